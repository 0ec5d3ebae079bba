"""Reports made in the background, single rows of files of any size, and many uploads at once."""

import gzip
import io
import json
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from conftest import wait_for
from test_data_chat import folder

from spool.data import background, inspect
from spool.data.background import Request
from spool.data.inspect import Inspection, look, row_view
from spool.data.keeping import keep
from spool.protocol import durable
from spool.protocol.errors import DataError
from spool.protocol.home import Home

LONG_S = 90

Left = Callable[[], set[int]]


def write(path: Path, rows: int, bad: int = 0) -> Path:
    """JSON lines, of which each `bad`-th cannot be read."""
    with open(path, "w") as file:
        for n in range(1, rows + 1):
            row = json.dumps({"prompt": f"What is {n} squared?", "completion": f"It is {n * n}."})
            file.write("{broken\n" if bad and n % bad == 0 else row + "\n")
    return path


def children() -> dict[int, str]:
    """pid -> state of the processes that this one has started and not waited for."""
    found = {}
    for task in Path("/proc/self/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):
            for pid in map(int, (task / "children").read_text().split()):
                with suppress(FileNotFoundError, ProcessLookupError):
                    found[pid] = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return found


def workers(home: Home) -> list[int]:
    """The pids of the workers of a data home."""
    found = []
    for pid in children():
        with suppress(FileNotFoundError, ProcessLookupError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if b"spool.data.background" in words and str(home.root).encode() in words:
                found.append(pid)
    return found


@pytest.fixture(autouse=True)
def left(home: Home) -> Iterator[Left]:
    """The processes that were started since the test began and have not been waited for; workers end with the test."""
    before = set(children())
    yield lambda: set(children()) - before
    for pid in workers(home):
        os.kill(pid, signal.SIGKILL)


def rss_bytes(pid: int | str = "self") -> int:
    """Resident memory; 0 of a process that has ended meanwhile."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (FileNotFoundError, ProcessLookupError, IndexError):
        return 0


def finished(home: Home, request: Request) -> background.Progress:
    def seen() -> background.Progress | None:
        told = background.ask(home, request)
        return told if told.complete or told.error else None

    return wait_for(seen, LONG_S, 0.05)


def places_known(home: Home, path: Path, model: Path) -> None:
    """Lets a worker go on until it knows where the rows are."""
    request = inspect._request(path, "auto", None, inspect.AS_FOUND, model, None)
    background.ask(home, request)
    wait_for(lambda: background.rows(home, request) is not None, LONG_S)
    for pid in workers(home):
        os.kill(pid, signal.SIGKILL)


def looked(home: Home, path: Path) -> Inspection:
    def seen() -> Inspection | None:
        told = look(home, path)
        return told if told.complete else None

    return wait_for(seen, LONG_S)


def tries(home: Home, request: Request) -> int:
    return len(list(request.folder(home).glob("try-*")))


def test_a_report_appears_and_nothing_of_its_process_is_left(home: Home, left: Left, tmp_path: Path) -> None:
    request = Request(str(write(tmp_path / "a.jsonl", 30, bad=10)))
    told = finished(home, request)
    assert told.report is not None
    assert (told.report["rows"], told.report["usable_rows"], told.error) == (30, 27, None)
    wait_for(lambda: not left())
    assert tries(home, request) == 1
    assert (request.folder(home) / "log.txt").read_text() == ""


def test_a_sample_comes_first_and_then_the_whole(home: Home, tmp_path: Path, tiny_gemma: Path) -> None:
    request = Request(str(write(tmp_path / "a.jsonl", 9_000)), model_folder=str(tiny_gemma))
    sampled = None
    end = time.monotonic() + LONG_S
    while True:
        told = background.ask(home, request)
        assert told.error is None
        assert time.monotonic() < end
        if told.complete:
            break
        sampled = told.report or sampled
        time.sleep(0.02)
    assert sampled is not None
    assert (sampled["rows"], sampled["statistics"]["sampled_rows"]) == (9_000, 2_000)
    assert sampled["tokens"]["p50"] > 0
    assert told.report is not None
    assert told.report["statistics"]["sampled_rows"] is None
    assert sum(told.report["statistics"]["lengths"]["counts"]) == 9_000


def test_many_who_ask_start_one_worker(home: Home, tmp_path: Path) -> None:
    request = Request(str(write(tmp_path / "a.jsonl", 20_000)))
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda _: background.ask(home, request), range(64)))
        assert len(workers(home)) == 1
    assert finished(home, request).complete
    assert tries(home, request) == 1


def stopped_worker(home: Home, request: Request) -> int:
    """The pid of a worker that was stopped before it could finish."""
    background.ask(home, request)
    pid = wait_for(lambda: next(iter(workers(home)), None))
    os.kill(pid, signal.SIGSTOP)
    return pid


def test_a_killed_worker_is_started_again_once(home: Home, left: Left, tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", 40)
    request = Request(str(path))
    for count in (1, 2):
        pid = stopped_worker(home, request)
        for _ in range(5):
            told = background.ask(home, request)
            assert (told.complete, told.error) == (False, None)
        assert tries(home, request) == count
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: not left())
    told = background.ask(home, request)
    assert told.error is not None
    assert told.error["code"] == "check_crashed"
    assert "log.txt" in told.error["hint"]
    assert look(home, path).error == told.error
    for attempt in request.folder(home).glob("try-*"):
        os.utime(attempt, (0, 0))  # long ago
    assert finished(home, request).complete


def test_one_kill_does_not_matter(home: Home, left: Left, tmp_path: Path) -> None:
    request = Request(str(write(tmp_path / "a.jsonl", 40)))
    os.kill(stopped_worker(home, request), signal.SIGKILL)
    wait_for(lambda: not left())
    assert finished(home, request).complete
    assert tries(home, request) == 2


def test_another_file_another_model_or_other_limits_make_another_report(home: Home, tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", 30)
    assert looked(home, path).report["rows"] == 30  # type: ignore[index]
    write(path, 20)
    assert looked(home, path).report["rows"] == 20  # type: ignore[index]
    durable.write_json(home.settings, {"data_limits": {"max_row_mb": 0.000_02}})
    seen = looked(home, path)
    assert seen.complete
    assert seen.error is not None  # every row is longer
    home.settings.unlink()
    assert looked(home, path).report["rows"] == 20  # type: ignore[index]
    path.unlink()
    seen = looked(home, path)
    assert (seen.complete, seen.error and seen.error["code"]) == (True, "dataset_missing")


def test_what_older_rules_found_is_not_told_after_an_update(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = Request(str(write(tmp_path / "rows.jsonl", 2)))
    before = request.folder(home)
    assert request.folder(home) == before
    monkeypatch.setattr(background, "_rules", lambda: "of the next release")
    assert request.folder(home) != before


def test_ten_files_at_once_two_at_a_time(home: Home, left: Left, tmp_path: Path) -> None:
    requests = [Request(str(write(tmp_path / f"{n}.jsonl", 3_000))) for n in range(10)]
    for request in requests:
        background.ask(home, request)
    most, waiting, unfinished = 0, False, list(requests)
    end = time.monotonic() + LONG_S
    while unfinished:
        assert time.monotonic() < end
        states = [background.ask(home, request) for request in unfinished]
        waiting |= any(state.stage == background.WAITING for state in states)
        busy = [state for state in states if state.stage in ("reading", "comparing rows", "counting tokens")]
        most = max(most, sum(not (state.complete or state.error) for state in busy))
        assert not any(state.error for state in states)
        unfinished = [request for request, state in zip(unfinished, states, strict=True) if not state.complete]
        time.sleep(0.02)
    assert 1 <= most <= background.AT_ONCE
    assert waiting
    assert {tries(home, request) for request in requests} == {1}
    wait_for(lambda: not left())


def test_asking_for_ever_takes_no_memory(home: Home, tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", 3_000, bad=3)
    request = Request(str(path))
    finished(home, request)
    before = 0
    for turn in range(400):
        assert background.ask(home, request).complete
        before = rss_bytes() if turn == 100 else before
    assert rss_bytes() - before < 10_000_000
    assert threading.active_count() < 10


def test_old_reports_go(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "KEPT_REPORTS", 5)
    reports = home.cache / "reports"
    for n in range(8):
        (reports / f"{n}").mkdir(parents=True)
        os.utime(reports / f"{n}", (time.time() - n * 86_400 * 7,) * 2)
    background.prune(home)
    assert sorted(path.name for path in reports.iterdir()) == ["0", "1", "2", "3", "4"]
    os.utime(reports / "1", (0, 0))
    with open(reports / "2" / "lock", "ab") as lock:
        assert background._locks(lock)
        os.utime(reports / "2", (0, 0))
        background.prune(home)
    assert sorted(path.name for path in reports.iterdir()) == ["0", "2", "3", "4"]
    request = Request(str(write(tmp_path / "a.jsonl", 30)))
    finished(home, request)
    assert not (reports / "2").exists(), "a worker prunes when it starts"
    assert request.folder(home).exists()


# ---- single rows


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / "m").mkdir()
    return folder(tmp_path / "m")


def as_csv(rows: int, long: bool = False) -> bytes:
    told = "".join(f'"What is {n}\nsquared?",It is {n * n}.{"." * 60 * long}\n' for n in range(1, rows + 1))
    return f"prompt,completion\n{told}".encode()


def one_line_json(rows: int) -> bytes:
    return json.dumps([{"prompt": f"What is {n}?", "completion": f"It is {n}."} for n in range(1, rows + 1)]).encode()


def pandas_json(rows: int) -> bytes:
    columns = ("prompt", "completion")
    return json.dumps({name: {str(n): f"{name} is {n}." for n in range(1, rows + 1)} for name in columns}).encode()


def walk(home: Home, path: Path, model: Path) -> list[str]:
    """What `row_view` shows of each position."""
    first = row_view(home, path, None, model)
    views = [row_view(home, path, None, model, position=n) for n in range(first["rows"])]
    assert [view["position"] for view in views] == list(range(len(views)))
    assert [view["next"] for view in views[:-1]] == [view["line"] for view in views[1:]]
    assert [view["previous"] for view in views[1:]] == [view["line"] for view in views[:-1]]
    return [view["text"] or view["problem"]["code"] for view in views]


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.csv", as_csv(150)),
        ("a.csv.gz", gzip.compress(as_csv(150))),
        ("a.json", one_line_json(150)),
        ("a.txt", b"".join(b"What is %d? It is.\n" % n for n in range(1, 151))),
        ("a.json", pandas_json(150)),
    ],
)  # fmt: skip
def test_each_position_shows_its_row(home: Home, tmp_path: Path, model: Path, name: str, data: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    before = walk(home, path, model)
    assert len(before) == len(set(before)) == 150
    assert all(f" is {n}" in text for n, text in enumerate(before, 1))
    finished(home, inspect._request(path, "auto", None, inspect.AS_FOUND, model, None))
    inspect._block.cache_clear()
    assert walk(home, path, model) == before


def test_rows_of_several_files_follow_one_another(home: Home, tmp_path: Path, model: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "rows").mkdir(exist_ok=True)
        write(tmp_path / "rows" / f"{name}.jsonl", 70, bad=35)
    texts = walk(home, tmp_path / "rows", model)
    assert len(texts) == 140
    assert texts[:70] == texts[70:]
    assert [n for n, text in enumerate(texts) if text == "bad_json"] == [34, 69, 104, 139]


def test_a_file_without_a_good_row_shows_why(home: Home, tmp_path: Path, model: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("prompt,completion\n" + "a,b,c\n" * 3 + "x,\n")
    assert [row_view(home, path, line, model)["problem"]["code"] for line in (1, 4, 5)] == [
        "ragged_row",
        "ragged_row",
        "empty_field",
    ]


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\n\n", "\r"])
def test_lines_are_entered_in_the_middle(home: Home, tmp_path: Path, model: Path, newline: str) -> None:
    path = write(tmp_path / "a.jsonl", 100, bad=9)
    rows = path.read_text().splitlines()
    rows[50] = rows[50][:-1] + ",}"  # read all the same
    path.write_bytes(b"\xef\xbb\xbf" + newline.join(rows).encode())
    texts = walk(home, path, model)
    for n, text in enumerate(texts, 1):
        assert text == "bad_json" if n % 9 == 0 else f"What is {n} squared?" in text
    assert len(texts) == 100


@pytest.mark.alone
def test_a_large_file_shows_any_row_at_once(home: Home, tmp_path: Path, model: Path) -> None:
    count = 600_000
    path = write(tmp_path / "a.jsonl", count, bad=100_000)
    assert path.stat().st_size > 32_000_000
    first = row_view(home, path, None, model)
    assert (first["line"], first["rows"]) == (1, 2_000)
    places_known(home, path, model)
    before = rss_bytes()
    took_s = []
    for line in (1, 2, 250_000, 100_000, count - 1, count, count + 9, 3, 250_001, 400_000):
        began = time.monotonic()
        view = row_view(home, path, line, model)
        took_s.append(time.monotonic() - began)
        shown = min(line, count)
        assert (view["line"], view["position"], view["rows"]) == (shown, shown - 1, count)
        assert view["previous"] == (shown - 1 or None)
        assert view["next"] == (shown + 1 if shown < count else None)
        if shown % 100_000:
            assert f"What is {shown} squared?" in view["text"]
        else:
            assert view["problem"]["code"] == "bad_json"
    assert sorted(took_s)[len(took_s) // 2] < 0.1, took_s
    assert rss_bytes() - before < 60_000_000
    view = row_view(home, path, 250_000, model, "prompt_completion", max_length=16)  # for which there is no report yet
    assert (view["line"], view["limit"]) == (250_000, 16)


@pytest.mark.alone
def test_a_large_table_shows_the_next_rows_without_reading_it_again(home: Home, tmp_path: Path, model: Path) -> None:
    count = 60_000
    path = tmp_path / "a.csv.gz"
    path.write_bytes(gzip.compress(as_csv(count, long=True), 1))
    places_known(home, path, model)
    last = row_view(home, path, 10**9, model)
    assert (last["rows"], last["position"]) == (count, count - 1)
    before = rss_bytes()
    began = time.monotonic()
    for _ in range(20):
        last = row_view(home, path, last["previous"], model)
    assert time.monotonic() - began < 0.5
    assert f"It is {(count - 20) ** 2}." in last["text"]
    assert rss_bytes() - before < 10_000_000


def test_a_row_that_changed_meanwhile_is_an_error_in_words(home: Home, tmp_path: Path, model: Path) -> None:
    file = inspect._File.now(home, write(tmp_path / "a.jsonl", 30), inspect.AS_FOUND)
    with pytest.raises(DataError, match="was changed while"):
        inspect._block(file, ((0, 900, 70_000),), 0)


# ---- uploads


class Upload(io.RawIOBase):
    """Bytes that come in from outside and never are in memory as a whole; they may stop half-way."""

    def __init__(self, number: int, blocks: int, breaks_at: int | None = None) -> None:
        self.number, self.left, self.breaks_at = number, blocks, breaks_at

    def read(self, size: int = -1) -> bytes:
        if self.left == self.breaks_at:
            raise ConnectionResetError("the browser is gone")
        self.left -= 1
        row = b'{"prompt": "What is %d?", "completion": "It is %d."}\n'
        start = (self.number * 1000 + self.left) * 10_000
        return b"".join(row % (n, n) for n in range(start, start + 10_000)) if self.left >= 0 else b""


def upload(home: Home, number: int, blocks: int) -> int:
    return keep.add(home, "many", f"{number}.jsonl", Upload(number, blocks)).rows  # type: ignore[arg-type]


def watched(stop: threading.Event, peak: list[int]) -> None:
    while not stop.wait(0.02):
        peak[0] = max(peak[0], sum(rss_bytes(pid) for pid in ["self", *children()]))


@pytest.mark.parametrize("kind", ["threads", "processes"])
def test_ten_uploads_at_once(home: Home, kind: str) -> None:
    peak, stop = [0], threading.Event()
    before = rss_bytes()
    watcher = threading.Thread(target=watched, args=(stop, peak))
    watcher.start()
    try:
        if kind == "threads":
            with ThreadPoolExecutor(10) as pool:
                rows = list(pool.map(lambda n: upload(home, n, 2), range(10)))
        else:
            with multiprocessing.get_context("spawn").Pool(10) as pool:
                rows = pool.starmap(upload, [(home, n, 2) for n in range(10)])
    finally:
        stop.set()
        watcher.join()
    assert rows == [20_000] * 10
    assert len(keep.list_datasets(home)) == 10
    assert [path.name for path in home.datasets.iterdir()] == ["many"]
    assert peak[0] - before < (200_000_000 if kind == "threads" else 10 * 150_000_000)


@pytest.mark.parametrize("blocks", [1, 3])
def test_an_upload_that_stops_half_way_leaves_nothing(home: Home, blocks: int) -> None:
    source: Any = Upload(1, 5, breaks_at=5 - blocks)
    with pytest.raises(ConnectionResetError):
        keep.add(home, "many", "a.jsonl", source)
    assert list(home.datasets.iterdir()) == []


def half(home: Home, ready: Any) -> None:
    class Slow(Upload):
        def read(self, size: int = -1) -> bytes:
            if self.left == 1:
                ready.set()
                time.sleep(60)
            return super().read(size)

    source: BinaryIO = Slow(1, 2)  # type: ignore[assignment]
    keep.add(home, "many", "a.jsonl", source)


def test_what_a_killed_upload_left_is_swept_by_a_later_one(home: Home) -> None:
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    process = context.Process(target=half, args=(home, ready))
    process.start()
    assert ready.wait(30)
    (left,) = home.datasets.iterdir()
    os.utime(left, (0, 0))
    upload(home, 2, 1)
    assert left.exists(), "somebody is still at it"
    process.kill()
    process.join()
    upload(home, 3, 1)
    assert [path.name for path in home.datasets.iterdir()] == ["many"]
