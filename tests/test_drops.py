"""The drop matrix: however a file gets into incoming/, it becomes one job, one rejection, or waits in peace."""

import json
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from drop_box import Box, text

from runner import accept, taking
from spool.protocol import durable
from spool.protocol.home import Home, State
from spool.protocol.states import Tokens
from spool.protocol.ulid import mint

ROOT_NEEDED = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to act as two accounts or to make devices")


@pytest.fixture
def box(home: Home) -> Box:
    return Box(home)


# Copies that take their time


def test_a_slow_copy_is_left_alone_while_it_grows_and_taken_right_after(box: Box) -> None:
    whole = text("slow", export=["adapter"])
    path = box.drop("slow.json", b"")
    for end in range(5, len(whole), 5):  # 30 s and more, each pause longer than the settle time
        path.write_bytes(whole[:end])
        box.wait(1.5)
        assert box.accepted == []
        assert box.rejected == {}
    path.write_bytes(whole)
    box.wait(0.6)
    assert box.names == ["slow"]


def test_a_writer_may_close_the_file_between_two_halves(box: Box) -> None:
    whole = text("halves")
    with open(box.home.incoming / "x.json", "wb") as file:
        file.write(whole[:40])
    box.wait(59)
    assert box.rejected == {}
    with open(box.home.incoming / "x.json", "ab") as file:
        file.write(whole[40:])
    box.wait()
    assert box.names == ["halves"]


def test_a_writer_that_dies_half_way_is_told_so_after_a_minute(box: Box) -> None:
    box.drop("cut.json", b'{"schema": 1,\n "model": ')
    box.wait(59)
    assert box.rejected == {}
    box.wait(2)
    assert box.rejected == {"cut.json": "bad_json"}
    told = (box.bytes_of("bad_json").parent / "reason.txt").read_text()
    assert "line 2, column 11: JSON ends early." in told
    assert "unfinished copy" in told
    assert box.bytes_of("bad_json").read_bytes() == b'{"schema": 1,\n "model": '
    assert box.clean()


def test_what_is_unreadable_is_read_once_and_not_at_each_scan(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    box.drop("cut.json", b"{")
    looks: list[Path] = []
    really = taking.read_regular
    monkeypatch.setattr(taking, "read_regular", lambda path: looks.append(path) or really(path))
    for _ in range(10):
        box.wait(2)
    assert len(looks) == 1


# Ways in


def by_rename(source: Path, target: Path) -> None:
    os.rename(source, target)


def by_link(source: Path, target: Path) -> None:
    os.link(source, target)


def by_rsync(source: Path, target: Path) -> None:
    hidden = target.with_name(f".{target.name}.aB3xYz")
    shutil.copyfile(source, hidden)
    os.utime(hidden, (1, 1))  # rsync -t keeps the old time
    os.rename(hidden, target)


def by_linkat(source: Path, target: Path) -> None:
    fd = os.open(target.parent, os.O_TMPFILE | os.O_WRONLY)
    os.write(fd, source.read_bytes())
    root = os.open("/", os.O_RDONLY)  # with a folder given, os.link is linkat(2), which can follow the link
    os.link(f"/proc/self/fd/{fd}", target, src_dir_fd=root, follow_symlinks=True)
    os.close(fd)
    os.close(root)


def by_vim(source: Path, target: Path) -> None:
    """What vim does with `backup` set: a probe, a swap file, the old file moved aside, the new one in its place."""
    for name in ("4913", f".{target.name}.swp", f".{target.name}.swx"):
        (target.parent / name).write_bytes(b"b0VIM 9.0")
    (target.parent / "4913").unlink()
    if target.exists():
        os.rename(target, target.with_name(f"{target.name}~"))
    target.write_bytes(source.read_bytes())


WAYS_IN: list[Callable[[Path, Path], Any]] = [
    by_rename, by_link, by_rsync, by_linkat, by_vim, shutil.copyfile, shutil.copy2,
]  # fmt: skip


@pytest.mark.parametrize("way", WAYS_IN)
def test_every_way_in_makes_one_job(box: Box, tmp_path: Path, way: Callable[[Path, Path], Any]) -> None:
    source = tmp_path / "mine.json"
    source.write_bytes(text("x"))
    way(source, box.home.incoming / "mine.json")
    box.wait()
    box.wait(3600)
    assert box.names == ["x"]
    assert box.rejected == {}
    if source.exists():  # a hard link: the owner goes on writing to the same bytes
        source.write_bytes(b"{}")
    assert json.loads(box.home.run(box.accepted[0].job_id).spec_orig.read_bytes())["name"] == "x"


LITTER = [
    ".x.json.swp", ".x.json.swx", "x.json~", "#x.json#", "4913", ".~lock.x.json#", "x.json.part", "x.json.filepart",
    ".nfs000000000012ab", ".x.json.aB3xYz", "~$x.json", ".goutputstream-AB12", ".#x.json", "x.json.tmp",
    "x.json.crdownload", "x.json___jb_tmp___", ".DS_Store", "Thumbs.db", "desktop.ini", "..json", ".json", ".a\nb",
]  # fmt: skip


@pytest.mark.parametrize("name", LITTER)
def test_what_editors_and_copy_programs_leave_is_passed_over_for_ever(box: Box, name: str) -> None:
    box.drop(name)
    box.wait(100_000)
    assert (box.accepted, box.rejected) == ([], {})
    assert os.listdir(box.home.incoming) == [name]


# Files that change under our hands


def test_a_file_overwritten_while_it_is_taken_is_one_job_with_the_new_bytes(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = box.drop("x.json", text("old"))
    really = os.rename

    def overwritten_first(source: Any, target: Any) -> None:
        monkeypatch.setattr(os, "rename", really)
        path.write_bytes(text("new, and longer"))
        really(source, target)

    box.intake.scan()
    box.now += 0.6
    monkeypatch.setattr(os, "rename", overwritten_first)
    box.intake.scan()
    assert box.accepted == []
    assert os.listdir(box.home.incoming) == ["x.json"]
    box.wait()
    assert box.names == ["new, and longer"]
    assert box.clean()


def test_a_drop_put_back_never_covers_a_newer_one_of_its_name(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    path = box.drop("x.json", text("first"))
    really = os.rename

    def replaced_then_dropped_again(source: Any, target: Any) -> None:
        monkeypatch.setattr(os, "rename", really)
        path.write_bytes(text("second"))
        really(source, target)
        path.write_bytes(text("third"))

    box.intake.scan()
    box.now += 0.6
    monkeypatch.setattr(os, "rename", replaced_then_dropped_again)
    box.intake.scan()
    box.wait()
    assert sorted(box.names) == ["second", "third"]


def test_a_writer_that_still_holds_the_file_changes_nothing_after_it_was_accepted(box: Box) -> None:
    path = box.drop("x.json", text("kept"))
    with open(path, "r+b") as held:
        box.wait()
        held.write(b"rubbish")
    job_id = box.accepted[0].job_id
    assert box.names == ["kept"]
    assert box.home.run(job_id).spec_orig.read_bytes() == text("kept")


def test_a_drop_that_its_owner_takes_back_at_the_last_moment_is_no_job(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = box.drop("x.json")
    box.intake.scan()
    box.now += 0.6
    monkeypatch.setattr(accept, "mint", lambda: path.unlink() or mint())
    box.intake.scan()
    assert (box.accepted, box.rejected) == ([], {})
    assert box.clean()


# What is no file, or no text


def test_links_pipes_sockets_and_folders_are_turned_away_unopened(box: Box, tmp_path: Path) -> None:
    secret = tmp_path / "secret.json"
    secret.write_bytes(text("secret"))
    (box.home.incoming / "link.json").symlink_to(secret)
    (box.home.incoming / "dangling.json").symlink_to("/nowhere")
    os.mkfifo(box.home.incoming / "pipe.json")
    listening = socket.socket(socket.AF_UNIX)
    with tempfile.TemporaryDirectory() as short:  # the kernel's names of sockets are short
        listening.bind(f"{short}/s")
        os.rename(f"{short}/s", box.home.incoming / "socket.json")
    listening.close()
    (box.home.incoming / "folder.json").mkdir()
    (box.home.incoming / "folder.json" / "x").write_text("x")
    box.wait()
    assert box.accepted == []
    assert set(box.rejected) == {"link.json", "dangling.json", "pipe.json", "socket.json"}
    box.wait(61)
    assert box.rejected.pop("folder.json") == "is_a_folder"
    assert set(box.rejected.values()) == {"not_a_file", "is_a_folder"}
    assert box.clean()
    assert secret.read_bytes() == text("secret")
    assert len(list(box.home.rejected.glob("*/dropped.json/x"))) == 1  # the folder's content is kept


@ROOT_NEEDED
def test_a_device_is_turned_away_unopened(box: Box) -> None:
    os.mknod(box.home.incoming / "zero.json", 0o020666, os.makedev(1, 5))
    box.wait()
    assert box.rejected == {"zero.json": "not_a_file"}


BAD_BYTES = {
    "empty": (b"", "empty"),
    "nul": (bytes(4096), "not_text"),
    "utf16": (text().decode().encode("utf-16"), "not_utf8"),
    "latin1": ('{"name": "Müller"}'.encode("latin-1"), "not_utf8"),
    "deep": (b"[" * 1_000 + b"]" * 1_000, "too_deep"),
    "twice": (b'{"schema": 1, "schema": 1}', "duplicate_key"),
    "nan": (b'{"schema": NaN}', "bad_number"),
    "newer": (b'{"schema": 3, "model": "m", "dataset": "README.md"}', "newer_version"),
    "unknown": (text(nmae="x"), "unknown_field"),
}


@pytest.mark.parametrize("kind", BAD_BYTES)
def test_bad_bytes_are_kept_untouched_with_a_reason_of_their_own(box: Box, kind: str) -> None:
    data, code = BAD_BYTES[kind]
    box.drop("x.json", data)
    box.drop("good.json")
    box.wait(61)
    assert box.rejected == {"x.json": code}
    assert box.bytes_of(code).read_bytes() == data
    assert box.names == ["ok"]
    assert len(box.reason("x.json")["message"]) < 200


def test_a_byte_order_mark_is_no_fault(box: Box) -> None:
    box.drop("x.json", b"\xef\xbb\xbf" + text("bom"))
    box.wait()
    assert box.names == ["bom"]


def test_five_gigabytes_are_refused_by_their_size_alone(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    with open(box.home.incoming / "huge.json", "wb") as file:
        file.truncate(5 << 30)
    monkeypatch.setattr(taking, "read_regular", lambda path: pytest.fail(f"{path} was opened"))
    box.wait()
    assert box.rejected == {"huge.json": "too_large"}
    assert box.bytes_of("too_large").stat().st_size == 5 << 30


# Names


NAMES = [
    "a b.json", "a\nb.json", "a\tb.json", "\N{PILE OF POO}.json", "x" * 250 + ".json", "-rf.json", "--help",
    "no ending", "$(id).json", "a;b.json", "a\\b.json", "%2e%2e%2f.json", "con.json", "\uff1d1.json", "\xe9.json",
    "e\u0301.json", " ", mint(), "01ARZ3NDEKTSV4RRFFQ69G5FA!.json",
]  # fmt: skip


def test_a_dropped_name_is_words_and_never_a_path(box: Box) -> None:
    for name in NAMES:
        box.drop(name, text(name[:120] or "x"))
    raw = os.fsencode(str(box.home.incoming)) + b"/\xff\xfe.json"
    with open(raw, "wb") as file:
        file.write(text("raw"))
    box.wait()
    assert len(box.accepted) == len(NAMES) + 1
    tokens = Tokens(box.home)
    told = {tokens.body(State.CHECKING, token)["dropped_name"] for token in box.accepted}
    assert told == {*NAMES, "\\xff\\xfe.json"}
    assert {path.name for path in box.home.runs.iterdir()} == {token.job_id for token in box.accepted}
    assert box.clean()


def test_only_id_json_keeps_its_id_and_two_files_never_share_one(box: Box) -> None:
    job_id = mint()
    box.drop(f"{job_id}.json", text("with ending"))
    box.drop(job_id, text("without"))
    box.wait()
    assert sorted(box.names) == ["with ending", "without"]
    kept = {token.job_id: name for token, name in zip(box.accepted, box.names, strict=True)}
    assert kept[job_id] == "with ending"


def test_the_same_name_again_is_another_job(box: Box) -> None:
    job_id = mint()
    for name in ("one", "two"):
        box.drop(f"{job_id}.json", text(name))
        box.wait()
    assert box.names == ["one", "two"]
    box.drop(f"{job_id}.json", b"{}")
    box.wait()
    box.one_place_each()
    assert len(box.rejected) == 1


# The same submission


def test_one_submission_id_is_one_job_within_a_batch_later_and_after_a_restart(box: Box) -> None:
    for name in ("a.json", "b.json"):
        box.drop(name, text(name, submission_id="../../order 7"))
    box.wait()
    assert box.names == ["a.json"]
    first = box.accepted[0].job_id
    box.drop("c.json", text("c", submission_id="../../order 7"))
    box.wait()
    again = box.restarted()
    again.drop("d.json", text("d", submission_id="../../order 7"))
    again.wait()
    assert again.names == ["a.json"]
    assert again.rejected == dict.fromkeys(("b.json", "c.json", "d.json"), "duplicate_submission")
    assert all(first in again.reason(name)["message"] for name in again.rejected)


@pytest.mark.parametrize("torn", [b"", b"01ARZ3ND", b"\xff\0", b"01ARZ3NDEKTSV4RRFFQ69G5FAV\n"])
def test_a_marker_without_its_job_holds_nobody_up(box: Box, torn: bytes) -> None:
    box.home.submission("x").write_bytes(torn)
    box.drop("a.json", text("a", submission_id="x"))
    box.wait()
    assert box.names == ["a"]
    assert box.home.submission("x").read_text().strip() == box.accepted[0].job_id


def test_a_rejected_spec_does_not_use_up_its_submission_id(box: Box) -> None:
    box.drop("a.json", text("a", submission_id="x", dataset="no such file"))
    box.wait()
    box.drop("b.json", text("b", submission_id="x"))
    box.wait()
    assert (box.rejected, box.names) == ({"a.json": "dataset_missing"}, ["b"])


# Permissions


def test_what_the_runner_may_not_read_is_told_with_owner_and_mode_and_moved_away(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    box.drop("locked.json").chmod(0)
    box.drop("good.json")
    really = taking.read_regular

    def as_an_ordinary_user(path: Path) -> bytes:
        if path.name == "locked.json":
            raise PermissionError(13, "Permission denied", str(path))
        return really(path)

    monkeypatch.setattr(taking, "read_regular", as_an_ordinary_user)
    box.wait()
    assert box.names == ["ok"]
    assert box.rejected == {}
    box.wait(60)
    assert box.rejected == {"locked.json": "no_permission"}
    assert "mode 000" in box.reason("locked.json")["message"]
    assert accept.user_name(os.getuid()) in box.reason("locked.json")["message"]


@ROOT_NEEDED
def test_in_a_folder_that_is_not_the_runners_a_drop_stays_and_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    """A sticky incoming/ of another account: the runner may read a drop there and may not move it."""
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    nobody = 65534
    try:
        folder.chmod(0o755)
        home = Home(folder / "home").create()
        box = Box(home)
        for path in [folder, *folder.rglob("*")]:
            os.chown(path, nobody, nobody)
        os.chown(home.incoming, 0, 0)
        home.incoming.chmod(0o1777)
        box.drop("theirs.json", text("theirs")).chmod(0o644)
        box.drop("theirs too.json", b"{").chmod(0o600)
        os.seteuid(nobody)
        try:
            box.drop("ours.json", text("ours"))
            for _ in range(5):
                box.wait(61)
        finally:
            os.seteuid(0)
        assert box.names == ["ours"]
        assert box.rejected == {}
        assert os.listdir(home.rejected) == []
        assert set(box.intake.left) == {"theirs.json", "theirs too.json"}
        assert len([r for r in caplog.records if "stays there" in r.message]) == 2
        assert sorted(os.listdir(home.incoming)) == ["theirs too.json", "theirs.json"]
        assert os.listdir(home.accepting) == []
        os.chown(home.incoming, nobody, nobody)
        os.seteuid(nobody)
        try:
            box.wait(61)
        finally:
            os.seteuid(0)
        assert box.names == ["ours", "theirs"]
        assert box.rejected == {"theirs too.json": "no_permission"}
        box.wait()
        assert box.intake.left == {}
    finally:
        shutil.rmtree(folder)


@pytest.mark.parametrize("fault", [28, 122, 30, 5])  # ENOSPC, EDQUOT, EROFS, EIO
def test_a_fault_of_the_file_system_is_no_fault_of_the_drop(
    box: Box, fault: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is raised, so that the runner halts; afterwards nothing is lost and nothing is there twice."""
    box.drop("good.json")
    box.drop("bad.json", b"{}")
    really = os.rename
    left = [0]

    def failing(source: Any, target: Any) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(fault, os.strerror(fault), str(source))
        really(source, target)

    box.intake.scan()
    box.now += 0.6
    told: set[int | None] = set()
    for renames in range(20):
        left[0] = renames
        with monkeypatch.context() as patch:
            patch.setattr(os, "rename", failing)
            try:
                box.intake.scan()
                box.intake.recover()
            except OSError as error:
                told.add(error.errno)
        assert box.intake.left == {}
        box.one_place_each()
        if left[0] >= 0:
            break
    assert renames >= 3
    assert told == {fault}
    box.intake.recover()
    box.wait()
    assert box.names == ["ok"]
    assert box.rejected == {"bad.json": "missing"}
    assert box.clean()
    box.one_place_each()


def test_a_bad_sector_under_one_drop_holds_up_no_other(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    box.drop("bad.json")
    box.drop("good.json", text("good"))
    really = taking.read_regular

    def reading(path: Path) -> bytes:
        if path.name == "bad.json":
            raise OSError(5, "Input/output error", str(path))
        return really(path)

    monkeypatch.setattr(taking, "read_regular", reading)
    box.wait()
    assert box.names == ["good"]
    assert box.intake.left == {"bad.json": "cannot read it: Input/output error"}


# Many at once


@pytest.mark.alone
def test_a_flood_keeps_its_order_and_leaves_time_for_everything_else(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(durable, "sync", lambda *paths: None)
    monkeypatch.setattr(durable, "sync_all", lambda paths: None)
    count = 800
    for i in range(count):
        box.drop(f"{(i * 7919) % count:04d}.json", text(str(i)))
        os.utime(box.home.incoming / f"{(i * 7919) % count:04d}.json", ns=(i, i))
    box.intake.scan()
    box.now += 0.6
    ticks = 0

    def clock() -> float:
        nonlocal ticks
        ticks += 1
        return box.now + ticks * 0.005

    box.intake.clock = clock
    scans = 0
    while box.intake.scan() == 0.0:
        ticks = 0
        scans += 1
    assert 3 <= scans <= 8  # none took more than its second
    assert box.names == [str(i) for i in range(count)]


def test_beyond_the_limit_drops_are_kept_and_told_what_to_do(home: Home) -> None:
    box = Box(home, most=3)
    for i in range(5):
        box.drop(f"{i}.json", text(str(i), submission_id=f"s{i}"))
        os.utime(home.incoming / f"{i}.json", ns=(i, i))
    box.wait()
    assert box.names == ["0", "1", "2"]
    assert box.rejected == {"3.json": "queue_full", "4.json": "queue_full"}
    assert "max_queued" in box.reason("3.json")["message"]
    assert "rejected/" in box.reason("3.json")["hint"]
    tokens = Tokens(home)
    tokens.move(box.accepted[0], State.CHECKING, State.QUEUED)
    tokens.move(tokens.list(State.QUEUED)[0], State.QUEUED, State.HELD)  # it still waits
    again = box.restarted()
    again.drop("5.json", text("5"))
    again.wait()
    assert again.rejected["5.json"] == "queue_full"
    tokens.move(tokens.list(State.HELD)[0], State.HELD, State.CANCELLED)
    again.drop("6.json", text("6", submission_id="s3"))  # a full queue did not use the submission up
    again.wait()
    assert again.names == ["1", "2", "6"]


def test_the_limit_of_one_person_leaves_room_for_the_others(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    box = Box(home, most_per_user=2)
    uids = {"a": 1001, "b": 1001, "c": 1001, "d": 1002}
    really = taking.note_of
    monkeypatch.setattr(
        taking,
        "note_of",
        lambda h, i: {**really(h, i), "uid": uids[really(h, i)["dropped_name"].removesuffix(".json")]},
    )
    for i, name in enumerate(uids):
        box.drop(f"{name}.json", text(name))
        os.utime(home.incoming / f"{name}.json", ns=(i, i))
    box.wait()
    assert box.names == ["a", "b", "d"]
    assert box.rejected == {"c.json": "queue_full"}
    again = box.restarted()  # who waits is known again after a restart
    again.drop("c.json", text("c"))
    again.wait()
    assert len(again.rejected) == 1
    assert again.names == ["a", "b", "d"]
    Tokens(home).move(again.accepted[0], State.CHECKING, State.CANCELLED)
    again.drop("c.json", text("c"))
    again.wait()
    assert again.names == ["b", "d", "c"]


# Races


def test_a_claim_and_a_cancel_never_both_win(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """10,000 times: the runner claims a job while somebody else takes it out of the queue; a rename has one winner."""
    monkeypatch.setattr(durable, "sync", lambda *paths: None)
    box = Box(home)
    box.drop("x.json")
    box.wait()
    tokens = Tokens(home)
    token = box.accepted[0]
    tokens.move(token, State.CHECKING, State.QUEUED)
    wins = {State.RUNNING: 0, State.CANCELLED: 0}
    source = tokens.path(State.QUEUED, token)
    go, done = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:  # another process, as threads would take turns
        while os.read(go[0], 1) == b"g":
            try:
                tokens.move(token, State.QUEUED, State.CANCELLED)
                os.write(done[1], b"1")
            except FileNotFoundError:
                os.write(done[1], b"0")
        os._exit(0)
    try:
        for _ in range(10_000):
            os.write(go[1], b"g")
            try:
                tokens.move(token, State.QUEUED, State.RUNNING)
                mine = 1
            except FileNotFoundError:
                mine = 0
            theirs = int(os.read(done[0], 1))
            assert mine + theirs == 1
            winner = State.RUNNING if mine else State.CANCELLED
            wins[winner] += 1
            os.rename(tokens.path(winner, token), source)
    finally:
        os.write(go[1], b"q")
        os.waitpid(child, 0)
    assert sum(wins.values()) == 10_000


def test_a_torn_note_costs_the_name_and_not_the_job(box: Box) -> None:
    for i, torn in enumerate((b"", b"{", b"[]", b"\xff")):
        job_id = mint()
        (box.home.accepting / f"{job_id}.json").write_bytes(text(str(i)))
        (box.home.accepting / f"{job_id}.from").write_bytes(torn)
    again = box.restarted()
    assert sorted(again.names) == ["0", "1", "2", "3"]
    body = Tokens(box.home).body(State.CHECKING, again.accepted[0])
    assert body["submitted_by"] == accept.user_name(os.getuid())
    assert again.clean()


@pytest.mark.alone
def test_a_link_or_pipe_taken_by_a_runner_that_died_is_not_followed(box: Box, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(text("secret"))
    (box.home.accepting / f"{mint()}.json").symlink_to(tmp_path / "secret")
    os.mkfifo(box.home.accepting / f"{mint()}.json")
    started = time.monotonic()
    again = box.restarted()
    assert time.monotonic() - started < 5
    assert again.accepted == []
    assert list(again.rejected.values()) == ["not_a_file"] * len(again.rejected)
    assert again.clean()


def test_a_crash_at_any_rename_or_write_leaves_one_place_for_each_drop(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Power goes before the nth change of a scan; the next runner finishes it. Until a scan comes through."""

    class PowerCut(BaseException):
        pass

    names = {f"{i}.json": text(str(i), submission_id=str(i % 3)) for i in range(4)} | {"bad.json": b"{}"}
    left = [0]

    def counted(really: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            left[0] -= 1
            if left[0] < 0:
                raise PowerCut
            return really(*arguments, **named)

        return call

    for point in range(200):
        for name, data in names.items():
            box.drop(name, data)
        box.intake.scan()
        box.now += 0.6
        left[0] = point
        came_through = True
        with monkeypatch.context() as patch:
            for where, what in ((os, "rename"), (durable, "write_unsynced"), (Path, "unlink"), (Path, "mkdir")):
                patch.setattr(where, what, counted(getattr(where, what)))
            try:
                box.intake.scan()
            except PowerCut:
                came_through = False
        box = box.restarted()
        box.wait()
        box.one_place_each()
        assert sorted(box.names) == ["0", "1", "2"], point
        assert sorted(box.rejected.values()) == ["duplicate_submission", "missing"], point
        assert box.clean(), point
        if came_through:
            assert point > 20
            return
        for folder in (box.home.state(State.CHECKING), box.home.rejected, box.home.submissions, box.home.runs):
            shutil.rmtree(folder)
        box.home.create()
    pytest.fail("no scan came through")
