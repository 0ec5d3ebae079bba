"""The `finetuner` command as a process of its own, over a home with a job in every state and no runner."""

import ast
import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_protocol_jobs import CONTRACT, SPEC, accept, begin, end, reject, stage

from spool.cli import main as cli
from spool.cli import show
from spool.protocol import durable, jobs, metrics, notes
from spool.protocol.home import Home, State
from spool.protocol.schema import json_schema
from spool.protocol.states import Tokens
from spool.protocol.ulid import is_ulid, mint

ROOT = Path(__file__).resolve().parent.parent
COMMAND = [sys.executable, "-m", "spool.cli.main"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
ORDERS = ["cancel", "hold", "release", "top", "up", "down"]
VERBS = ["submit", "jobs", "show", "wait", *ORDERS, "priority", "drain", "retry", "delete", "note", "logs", "check"]
VERBS += ["keep", "verify", "models", "schema", "status", "doctor"]


def finetuner(home: Home, *arguments: str, stdin: bytes = b"", **more: Any) -> subprocess.CompletedProcess[str]:
    command = [*COMMAND, "--home", str(home.root), *arguments]
    done = subprocess.run(command, input=stdin, capture_output=True, env=ENVIRONMENT, timeout=60, **more)
    out, err = done.stdout.decode(), done.stderr.decode()
    assert "Traceback" not in err
    return subprocess.CompletedProcess(command, done.returncode, out, err)


def start(home: Home, *arguments: str, **more: Any) -> subprocess.Popen[str]:
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **more}
    return subprocess.Popen([*COMMAND, *arguments, "--home", str(home.root)], env=ENVIRONMENT, text=True, **pipes)


def beat(home: Home, **fields: Any) -> None:
    durable.write_json(home.runner_json, {"heartbeat": time.time(), "state": "ready", "pid": 77, **fields})


@pytest.fixture
def ids(home: Home) -> dict[str, str]:
    return stage(home)


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    path = tmp_path / "spec.json"
    path.write_text(json.dumps({**SPEC, "name": "mine"}))
    return path


def take(home: Home, job_id: str) -> None:
    """What a runner does with a good drop."""
    accept(home, State.RUNNING, "mine", job_id=job_id)
    (home.incoming / f"{job_id}.json").unlink()


# --- the whole command


def test_help_names_every_verb_and_no_other(home: Home) -> None:
    done = finetuner(home, "--help")
    assert done.returncode == 0
    listed = [line.split()[0] for line in done.stdout.splitlines() if line.startswith("    ") and line[4] != " "]
    assert listed == VERBS


@pytest.mark.parametrize(
    "arguments",
    [[], ["drain", "x"], ["verify"], ["show"], ["jobs", "--state", "x"], ["jobs", "--stat", "done"], ["-x"]],
)
def test_wrong_usage(home: Home, arguments: list[str]) -> None:
    done = finetuner(home, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert "usage: finetuner" in done.stderr


def test_the_home_may_stand_anywhere(home: Home, ids: dict[str, str], tmp_path: Path) -> None:
    places: list[tuple[list[str], dict[str, str]]] = [
        (["--home", str(home.root), "jobs", "--json"], {}),
        (["jobs", "--json", "--home", str(home.root)], {}),
        (["jobs", "--json"], {"FINETUNER_HOME": str(home.root)}),
        (["--home", str(home.root), "jobs", "--json"], {"FINETUNER_HOME": "/nowhere"}),
    ]
    for arguments, variables in places:
        environment = {**ENVIRONMENT, **variables}
        done = subprocess.run([*COMMAND, *arguments], capture_output=True, env=environment, cwd=tmp_path, check=True)
        assert len(json.loads(done.stdout)) == len(ids)


@pytest.mark.alone
def test_jobs_is_fast(home: Home, ids: dict[str, str]) -> None:
    best = min(_seconds(lambda: finetuner(home, "jobs")) for _ in range(5))
    assert best < 0.4


def _seconds(action: Callable[[], object]) -> float:
    before = time.monotonic()
    action()
    return time.monotonic() - before


def test_listing_reaches_no_heavy_package(home: Home) -> None:
    code = "import sys; from spool.cli.main import main; main(['jobs']); print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, text=True, check=True)
    assert not {"pydantic", "pandas", "torch", "transformers", "tokenizers", "streamlit"} & set(done.stderr.split())


def test_each_verb_has_its_file() -> None:
    modules = {verb: verb for verb in VERBS} | dict.fromkeys(ORDERS, "control")
    for module in set(modules.values()):
        tree = ast.parse((ROOT / "spool" / "cli" / f"{module}.py").read_text())
        assert "run" in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, module


def test_a_reader_that_stops_reading_is_no_error(home: Home) -> None:
    for _ in range(50):
        reject(home)
    done = subprocess.run(
        f"{sys.executable} -m spool.cli.main --home {home.root} jobs --json | head -1; echo ${{PIPESTATUS[0]}}",
        shell=True,
        executable="/bin/bash",
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == ["[", "0"]
    assert done.stderr == ""


@pytest.mark.parametrize("verb", ["jobs", "submit", "show"])
def test_a_home_that_cannot_be_used_is_said_in_words(verb: str, tmp_path: Path, spec: Path) -> None:
    (tmp_path / "file").write_text("x")
    arguments = {"jobs": [], "submit": [str(spec)], "show": [mint()]}[verb]
    done = finetuner(Home(tmp_path / "file"), verb, *arguments, "--json")
    assert done.returncode in (1, 2)
    assert set(json.loads(done.stdout)["error"]) == {"code", "message", "hint"}
    assert done.stderr.startswith("finetuner: ")


def test_a_bug_is_reported_in_words(
    home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: Any) -> None:
        raise TypeError("unexpected")

    monkeypatch.setattr(jobs, "list_jobs", broken)
    assert cli.main(["jobs", "--home", str(home.root)]) == 1
    message = capsys.readouterr().err
    assert "TypeError: unexpected" in message
    assert "FINETUNER_DEBUG" in message
    monkeypatch.setenv("FINETUNER_DEBUG", "1")
    with pytest.raises(TypeError):
        cli.main(["jobs", "--home", str(home.root)])


# --- jobs and show


def test_jobs_as_json(home: Home, ids: dict[str, str]) -> None:
    done = finetuner(home, "jobs", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    listed = json.loads(done.stdout)
    assert {job["id"] for job in listed} == set(ids.values())
    assert all(set(job) >= CONTRACT for job in listed)
    submitted = [job["submitted_at"] for job in listed]
    assert submitted == sorted(submitted)


@pytest.mark.parametrize("state", cli.STATES)
def test_jobs_of_one_state(home: Home, ids: dict[str, str], state: str) -> None:
    listed = json.loads(finetuner(home, "jobs", "--state", state, "--json").stdout)
    wanted = {ids[state]} | ({ids["incoming"]} if state == "checking" else set())
    assert {job["id"] for job in listed} == wanted


def test_jobs_as_a_table(home: Home, ids: dict[str, str]) -> None:
    header, *lines = finetuner(home, "jobs").stdout.splitlines()
    assert header.split() == ["ID", "NAME", "STATE", "PROGRESS", "SUBMITTED", "AGE"]
    assert len(lines) == len(ids)
    running = next(line for line in lines if ids["running"] in line)
    assert "a running job" in running
    assert "30/120 (25 %), 90 s left" in running or "30/120 (25 %), 2 min left" in running
    at = header.index("STATE")
    assert {line[at:].split()[0] for line in lines} == set(cli.STATES)


def test_no_jobs(home: Home, tmp_path: Path) -> None:
    done = finetuner(home, "jobs")
    assert (done.returncode, done.stdout) == (0, "")
    assert "No jobs" in done.stderr
    assert json.loads(finetuner(home, "jobs", "--json").stdout) == []
    assert "no data home yet" in finetuner(Home(tmp_path / "none"), "jobs").stderr


def test_show_as_json_by_any_unique_beginning(home: Home, ids: dict[str, str]) -> None:
    for state, job_id in ids.items():
        done = finetuner(home, "show", job_id, "--json")
        assert (done.returncode, done.stderr) == (0, "")
        job = json.loads(done.stdout)
        assert (job["id"], job["state"]) == (job_id, "checking" if state == "incoming" else state)
    unique = next(
        job_id[:length]
        for length in range(1, 27)
        for job_id in [ids["done"]]
        if sum(other.startswith(job_id[:length]) for other in ids.values()) == 1
    )
    assert json.loads(finetuner(home, "show", unique.lower(), "--json").stdout)["id"] == ids["done"]


def test_ids_that_name_no_job_or_several(home: Home, ids: dict[str, str]) -> None:
    for verb in ("show", "cancel", "hold", "release", "top", "retry", "logs"):
        for name, code in (
            ("ZZZ", "not_found"),
            (ids["done"][:4], "ambiguous"),
            ("", "not_found"),
            ("../x", "not_found"),
        ):
            done = finetuner(home, verb, name, "--json")
            assert done.returncode == 2
            assert json.loads(done.stdout)["error"]["code"] == code
            assert done.stderr.startswith("finetuner: ")


def test_show_as_text(home: Home, ids: dict[str, str]) -> None:
    texts = {state: finetuner(home, "show", job_id).stdout for state, job_id in ids.items()}
    assert "state       running: training" in texts["running"]
    assert "final loss  0.0667" in texts["done"]
    assert f"adapter     {home.run(ids['done']).exports}/adapter" in texts["done"]
    assert "error       no row can be trained on. Correct the file." in texts["failed"]
    assert texts["rejected"].count("error       /lora/rnk (line 3, column 7): there is no field 'rnk'.") == 2
    assert "None" not in "".join(texts.values())


EVIL = "\x1b]0;owned\x07\x1b[31mred\x9b2J\u202egnp.exe\r\n\ttwo"


def test_text_of_users_cannot_steer_the_terminal(home: Home) -> None:
    job_id = accept(home, State.FAILED)
    token = Tokens(home).list(State.FAILED)[0]
    body = {"name": EVIL, "model": EVIL, "dataset": EVIL, "submitted_at": EVIL}
    durable.write_json(Tokens(home).path(State.FAILED, token), body)
    end(home, job_id, State.FAILED, {"code": "x", "message": EVIL, "hint": EVIL})
    home.run(job_id).log.write_bytes(EVIL.encode() + b"\xff\xfe plain \xc3\xa9\n")
    for arguments in (["jobs"], ["show", job_id], ["logs", job_id], ["jobs", "--json"], ["show", job_id, "--json"]):
        done = finetuner(home, *arguments)
        assert done.returncode == 0
        assert not {c for c in done.stdout + done.stderr if ord(c) < 32 or 127 <= ord(c) < 160} - {"\n", "\t"}
        assert "\u202e" not in done.stdout + done.stderr
    assert json.loads(finetuner(home, "show", job_id, "--json").stdout)["name"] == EVIL
    assert len(finetuner(home, "jobs").stdout.splitlines()) == 2
    assert "plain é" in finetuner(home, "logs", job_id).stdout


# --- orders and retry


@pytest.mark.parametrize("verb", ORDERS)
def test_orders(home: Home, ids: dict[str, str], verb: str) -> None:
    state = "held" if verb == "release" else "queued"
    done = finetuner(home, verb, ids[state])
    assert (done.returncode, done.stdout) == (0, "")
    assert ids[state] in done.stderr
    assert "No runner is alive" in done.stderr
    assert (home.control / f"{verb}-{ids[state]}").is_file()
    beat(home)
    again = finetuner(home, verb, ids[state], "--json")
    assert json.loads(again.stdout)["id"] == ids[state]
    assert "No runner" not in again.stderr


def test_priority(home: Home, ids: dict[str, str]) -> None:
    done = finetuner(home, "priority", ids["held"], "0")
    assert (done.returncode, done.stdout) == (0, "")
    assert "will have priority 0" in done.stderr
    assert os.listdir(home.control) == [f"priority0-{ids['held']}"]
    assert finetuner(home, "priority", ids["held"], "10").returncode == 2
    assert finetuner(home, "priority", ids["running"], "1").returncode == 1
    told = json.loads(finetuner(home, "priority", ids["queued"], "9", "--json").stdout)
    assert (told["id"], told["priority"]) == (ids["queued"], 5)


def test_orders_of_which_nothing_can_come(home: Home, ids: dict[str, str]) -> None:
    for verb, state in (("cancel", "done"), ("cancel", "rejected"), ("hold", "running"), ("release", "queued")):
        done = finetuner(home, verb, ids[state])
        assert (done.returncode, done.stdout) == (1, "")
        assert state in done.stderr
    assert os.listdir(home.control) == []


def test_delete_the_old_ones(home: Home, ids: dict[str, str]) -> None:
    for state in ("done", "failed", "cancelled"):
        folder = home.run(ids[state]).exports / "adapter"
        folder.mkdir(parents=True)
        (folder / "weights").write_bytes(b"x" * 10_000)
    notes.write(home, ids["failed"], "", ["keep"])
    durable.write_json(home.run(ids["queued"]).spec, {**SPEC, "model": f"runs/{ids['cancelled']}/exports/merged"})
    assert finetuner(home, "delete", "--older-than", "36000").stdout == ""
    for wrong in (["--older-than", "-1"], ["--older-than", "soon"], [], [ids["done"], "--older-than", "1"]):
        assert finetuner(home, "delete", *wrong, "--yes").returncode == 2
    done = finetuner(home, "delete", "--older-than", "0")
    assert (done.returncode, ids["done"] in done.stdout, "say --yes" in done.stderr) == (1, True, True)
    assert not list(home.control.iterdir())
    assert finetuner(home, "delete", "--older-than", "0", "--yes").returncode == 0
    assert [path.name for path in home.control.iterdir()] == [f"delete-{ids['done']}"]


def test_delete_wants_a_yes_and_an_ended_job(home: Home, ids: dict[str, str]) -> None:
    done = finetuner(home, "delete", ids["done"])
    assert (done.returncode, done.stdout) == (1, "")
    assert "say --yes" in done.stderr
    done = finetuner(home, "delete", ids["done"], "--yes")
    assert done.returncode == 0
    assert "No runner is alive" in done.stderr
    assert json.loads((home.control / f"delete-{ids['done']}").read_bytes())["by"]
    assert finetuner(home, "delete", ids["queued"], "--yes").returncode == 1
    durable.write_json(
        home.run(ids["done"]).removed, {"at": "2026-11-22T10:00:00.000Z", "by": "ann", "bytes": 7, "what": ["adapter"]}
    )
    shown = finetuner(home, "show", ids["done"]).stdout
    assert "removed     adapter on " in shown
    assert "by ann" in shown
    assert "\nadapter " not in shown


def test_note(home: Home, ids: dict[str, str]) -> None:
    assert finetuner(home, "note", ids["done"]).stdout == ""
    done = finetuner(home, "note", ids["done"], "the best so far", "--tags", "good, v2")
    assert done.stdout.startswith("the best so far\ntags        good, v2\nwritten")
    told = json.loads(finetuner(home, "note", ids["done"], "", "--json").stdout)
    assert (told["id"], told["text"], told["tags"]) == (ids["done"], "", ["good", "v2"])
    wrong = finetuner(home, "note", ids["done"], "--tags", "<b>")
    assert (wrong.returncode, wrong.stdout) == (1, "")


def test_retry(home: Home, ids: dict[str, str]) -> None:
    done = finetuner(home, "retry", ids["failed"])
    fresh = done.stdout.strip()
    assert done.returncode == 0
    assert is_ulid(fresh)
    assert json.loads((home.incoming / f"{fresh}.json").read_bytes())["retry_of"] == ids["failed"]
    as_json = json.loads(finetuner(home, "retry", ids["done"], "--json").stdout)
    assert as_json["state"] == "checking"
    for state in ("queued", "rejected"):
        done = finetuner(home, "retry", ids[state])
        assert (done.returncode, done.stdout) == (1, "")


# --- submit


def test_submit_prints_the_id_and_says_that_nobody_is_there(home: Home, spec: Path) -> None:
    done = finetuner(home, "submit", str(spec))
    job_id = done.stdout.strip()
    assert done.returncode == 0
    assert is_ulid(job_id)
    assert (home.incoming / f"{job_id}.json").read_bytes() == spec.read_bytes()
    assert "No runner is alive" in done.stderr
    assert str(home.incoming) in done.stderr


def test_submit_to_a_living_runner_says_nothing(home: Home, spec: Path) -> None:
    beat(home)
    assert finetuner(home, "submit", str(spec)).stderr == ""
    beat(home, halted={"code": "enospc", "reason": "No space left on device"})
    assert "No space left" in finetuner(home, "submit", str(spec)).stderr


def test_submit_as_json_is_what_show_prints(home: Home, spec: Path) -> None:
    job = json.loads(finetuner(home, "submit", str(spec), "--json").stdout)
    assert set(job) >= CONTRACT
    assert (job["name"], job["state"]) == ("mine", "checking")
    assert json.loads(finetuner(home, "show", job["id"], "--json").stdout) == job


def test_submit_from_standard_input(home: Home, spec: Path) -> None:
    job_id = finetuner(home, "submit", "-", stdin=spec.read_bytes()).stdout.strip()
    assert (home.incoming / f"{job_id}.json").read_bytes() == spec.read_bytes()


def test_one_submission_id_is_one_job(home: Home, ids: dict[str, str]) -> None:
    data = json.dumps({**SPEC, "submission_id": "nightly"}).encode()
    home.submission("nightly").write_text(ids["done"] + "\n")
    done = finetuner(home, "submit", "-", stdin=data)
    assert (done.returncode, done.stdout.strip()) == (0, ids["done"])
    assert "already" in done.stderr
    assert finetuner(home, "submit", "-", "--wait", stdin=data).returncode == 0
    home.submission("nightly").write_text(mint() + "\n")  # of a job that is gone
    assert finetuner(home, "submit", "-", stdin=data).stdout.strip() not in ids.values()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "No such file"),
        ("folder", "Is a directory"),
        (b"x" * 262_145, "262,144"),
        (b"{" + b" " * 300_000 + b"}", "too large"),
    ],
)
def test_a_spec_file_that_cannot_be_used(home: Home, tmp_path: Path, content: bytes | str | None, words: str) -> None:
    path = tmp_path / "x.json"
    if content == "folder":
        path.mkdir()
    elif isinstance(content, bytes):
        path.write_bytes(content)
    done = finetuner(home, "submit", str(path))
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr
    assert str(path) in done.stderr
    assert os.listdir(home.incoming) == []
    assert "error" in json.loads(finetuner(home, "submit", str(path), "--json").stdout)


def test_what_is_no_json_is_refused_at_once_with_its_place(home: Home) -> None:
    done = finetuner(home, "submit", "-", "--wait", "--json", stdin=b'{"schema": 1,\n "model": }')
    assert done.returncode == 2
    assert "line 2, column 11" in done.stderr
    job = json.loads(done.stdout)
    assert set(job) >= CONTRACT
    assert (job["id"], job["state"], job["error"]["code"]) == (None, "rejected", "bad_json")
    assert job["error"]["errors"][0]["line"] == 2
    assert os.listdir(home.incoming) == []


def play(home: Home, script: Callable[[str], None]) -> threading.Thread:
    """A runner's part, once a job has been dropped."""

    def run() -> None:
        end_at = time.monotonic() + 30
        while not (names := [name for name in os.listdir(home.incoming) if not name.startswith(".")]):
            assert time.monotonic() < end_at
            time.sleep(0.02)
        script(names[0].removesuffix(".json"))

    thread = threading.Thread(target=run)
    thread.start()
    return thread


ENDS = [("done", 0), ("failed", 1), ("cancelled", 1)]


@pytest.mark.parametrize(("state", "code"), ENDS)
def test_wait(home: Home, spec: Path, state: str, code: int) -> None:
    def script(job_id: str) -> None:
        take(home, job_id)
        begin(home, job_id)
        time.sleep(0.8)
        error = {"code": "oom", "message": "the card is full.", "hint": "Use 4bit."} if state == "failed" else None
        end(home, job_id, State(state), error)

    beat(home)
    runner = play(home, script)
    done = finetuner(home, "submit", str(spec), "--wait")
    runner.join()
    assert done.returncode == code
    job_id = done.stdout.strip()
    assert jobs.get_job(home, job_id).state == state
    assert "30/120  loss 0.0667  250 tokens/s  90 s left" in done.stderr.replace("2 min left", "90 s left")
    assert "\r" not in done.stderr
    assert ("the card is full. Use 4bit." in done.stderr) == (state == "failed")


def test_wait_as_json_prints_one_document_at_the_end(home: Home, spec: Path) -> None:
    def script(job_id: str) -> None:
        take(home, job_id)
        begin(home, job_id)
        end(home, job_id, State.DONE)

    runner = play(home, script)
    done = finetuner(home, "submit", str(spec), "--wait", "--json")
    runner.join()
    job = json.loads(done.stdout)
    assert (done.returncode, job["state"], job["result"]["steps"]) == (0, "done", 120)


def test_wait_for_a_spec_that_is_rejected(home: Home, spec: Path) -> None:
    def script(job_id: str) -> None:
        rejected = reject(home)
        (home.rejected / rejected).rename(home.rejected / job_id)
        (home.incoming / f"{job_id}.json").unlink()

    runner = play(home, script)
    done = finetuner(home, "submit", str(spec), "--wait")
    runner.join()
    assert done.returncode == 2
    assert done.stderr.count("\n- /lora/rnk (line 3, column 7): there is no field 'rnk'. Did you mean 'rank'?") == 2


def test_wait_says_when_the_runner_goes_silent(home: Home, spec: Path) -> None:
    def script(job_id: str) -> None:
        time.sleep(0.7)
        beat(home, heartbeat=time.time() - 60)
        time.sleep(0.7)
        take(home, job_id)
        end(home, job_id, State.DONE)

    beat(home)
    runner = play(home, script)
    done = finetuner(home, "submit", str(spec), "--wait")
    runner.join()
    assert "no sign of life" in done.stderr


def test_ctrl_c_leaves_the_job_alone_and_says_so(home: Home, spec: Path) -> None:
    process = start(home, "submit", str(spec), "--wait")
    assert process.stdout is not None
    job_id = process.stdout.readline().strip()
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert f"finetuner logs -f {job_id}" in err
    assert "Traceback" not in err
    assert os.listdir(home.incoming) == [f"{job_id}.json"]
    assert os.listdir(home.control) == []


def test_on_a_terminal_the_bar_is_drawn_over_itself(home: Home, spec: Path) -> None:
    def script(job_id: str) -> None:
        take(home, job_id)
        begin(home, job_id)
        time.sleep(0.8)
        end(home, job_id, State.DONE)

    master, slave = pty.openpty()
    runner = play(home, script)
    process = start(home, "submit", str(spec), "--wait", stderr=slave)
    os.close(slave)
    seen = b""
    while True:
        try:
            seen += os.read(master, 4096)
        except OSError:
            break
    runner.join()
    assert process.wait(20) == 0
    assert process.stdout is not None
    process.stdout.close()
    text = seen.decode()
    assert "██████░░░░░░░░░░░░░░░░░░ 30/120  loss 0.0667" in text
    assert "\r\x1b[K" in text
    assert "is done." in text


# --- logs


def test_logs(home: Home, ids: dict[str, str]) -> None:
    done = finetuner(home, "logs", ids["done"])
    assert (done.returncode, done.stdout, done.stderr) == (0, "-- training\n", "")
    for state in ("queued", "rejected", "incoming"):
        done = finetuner(home, "logs", ids[state])
        assert (done.returncode, done.stdout) == (0, "")
        assert "no log" in done.stderr


def test_logs_as_json(home: Home, ids: dict[str, str]) -> None:
    log = json.loads(finetuner(home, "logs", ids["done"], "--json").stdout)
    path = str(home.run(ids["done"]).log)
    assert log == {"id": ids["done"], "state": "done", "path": path, "lines": ["-- training"]}
    assert json.loads(finetuner(home, "logs", ids["queued"], "--json").stdout)["path"] is None


def test_a_large_log_comes_whole(home: Home, ids: dict[str, str]) -> None:
    lines = [f"é line {number} \x1b[32mgreen\x1b[0m" for number in range(20_000)]
    home.run(ids["done"]).log.write_text("\n".join(lines) + "\n10%|█\r20%|██\r\nlong " + "x" * 200_000)
    printed = finetuner(home, "logs", ids["done"]).stdout.split("\n")
    assert printed[:20_000] == [f"é line {number} green" for number in range(20_000)]
    assert printed[20_000:20_002] == ["10%|█", "20%|██"]
    assert "".join(printed[20_002:]) == "long " + "x" * 200_000


def test_following_a_log_until_the_job_has_ended(home: Home) -> None:
    job_id = accept(home, State.RUNNING)
    log = home.run(job_id).log
    process = start(home, "logs", "-f", job_id)
    assert process.stdout is not None
    time.sleep(0.5)
    with open(log, "w") as file:
        file.write("first\nsec")
        file.flush()
        assert process.stdout.readline() == "first\n"
        file.write("ond\n")
        file.flush()
        assert process.stdout.readline() == "second\n"
        file.write("last words")
    end(home, job_id, State.DONE)
    out, err = process.communicate(timeout=20)
    assert out == "last words\n"
    assert process.returncode == 0
    assert "is done" in err


def test_the_last_words_of_a_job_that_ends_between_two_looks(
    home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    job_id = accept(home, State.RUNNING)
    home.run(job_id).log.write_text("first\n")
    really, looks = jobs.get_job, []

    def get_job(*arguments: Any) -> jobs.Job:
        looks.append(1)
        if len(looks) == 3:
            with open(home.run(job_id).log, "a") as file:
                file.write("last words\n")
            end(home, job_id, State.DONE)
        return really(*arguments)

    monkeypatch.setattr(jobs, "get_job", get_job)
    assert cli.main(["logs", "-f", job_id, "--home", str(home.root)]) == 0
    assert capsys.readouterr().out == "first\nlast words\n"


def test_following_a_log_that_is_replaced(home: Home) -> None:
    job_id = accept(home, State.RUNNING)
    log = home.run(job_id).log
    log.write_text("a long first line\n")
    process = start(home, "logs", "-f", job_id)
    assert process.stdout is not None
    assert process.stdout.readline() == "a long first line\n"
    log.write_text("new\n")
    assert process.stdout.readline() == "new\n"
    end(home, job_id, State.DONE)
    process.communicate(timeout=20)


def test_the_log_of_the_check_is_shown_until_the_training_begins(home: Home) -> None:
    job_id = accept(home, State.RUNNING)
    home.run(job_id).check_log.write_text("-- checking the data\n")
    assert finetuner(home, "logs", job_id).stdout == "-- checking the data\n"
    assert str(home.run(job_id).check_log) in finetuner(home, "show", job_id).stdout
    process = start(home, "logs", "-f", job_id)
    assert process.stdout is not None
    assert process.stdout.readline() == "-- checking the data\n"
    home.run(job_id).log.write_text("-- training\n")
    assert process.stdout.readline() == "-- training\n"
    end(home, job_id, State.DONE)
    assert process.communicate(timeout=20)[0] == ""
    assert finetuner(home, "logs", job_id).stdout == "-- training\n"


# --- schema, doctor, check


def test_schema(home: Home) -> None:
    assert json.loads(finetuner(home, "schema").stdout) == json_schema()


def test_doctor(home: Home, ids: dict[str, str]) -> None:
    done = finetuner(home, "doctor", "--json")
    report = json.loads(done.stdout)
    assert done.returncode == 1
    assert report["ok"] is False
    assert all(set(finding) == {"area", "level", "message", "cure"} for finding in report["findings"])
    text = finetuner(home, "doctor")
    assert text.returncode == 1
    assert "FAIL  runner" in text.stdout
    assert "-> Start it: `systemctl start finetuner-runner`" in text.stdout
    beat(home)
    healthy = json.loads(finetuner(home, "doctor", "--json").stdout)
    assert next(f for f in healthy["findings"] if f["area"] == "runner")["level"] == "ok"


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"q {i}", "completion": f"a {i}"}) + "\n" for i in range(20)))
    return path


def test_check_as_json(home: Home, rows: Path) -> None:
    done = finetuner(home, "check", str(rows), "--json")
    assert (done.returncode, done.stderr) == (0, "")
    report = json.loads(done.stdout)
    keys = {"format", "rows", "usable_rows", "columns", "problems", "tokens", "duplicates", "supervised_fraction"}
    assert set(report) >= keys
    assert (report["format"], report["rows"], report["usable_rows"]) == ("prompt_completion", 20, 20)
    assert report["tokens"] is None
    assert report["columns"] == ["prompt", "completion"]


def test_check_as_text(home: Home, rows: Path) -> None:
    done = finetuner(home, "check", str(rows))
    assert done.returncode == 0
    assert "prompt_completion" in done.stdout
    assert "20, 20 usable" in done.stdout


def test_check_shows_what_is_wrong(home: Home, rows: Path) -> None:
    with open(rows, "a") as file:
        file.write('{"prompt": "half\n' * 5)
    done = finetuner(home, "check", str(rows), "--json")
    assert done.returncode == 1
    report = json.loads(done.stdout)
    assert {problem["line"] for problem in report["problems"]} == set(range(21, 26))
    assert all(set(problem) >= {"line", "code", "message", "action"} for problem in report["problems"])
    text = finetuner(home, "check", str(rows))
    assert text.returncode == 1
    assert "LINE" in text.stdout
    assert "would be blocked" in text.stderr


def test_check_of_a_few_bad_rows_does_not_block(home: Home, rows: Path) -> None:
    with open(rows, "a") as file:
        file.write('{"prompt": "half\n')
    assert finetuner(home, "check", str(rows)).returncode == 0


def test_a_kept_file_is_a_dataset_that_jobs_name(home: Home, rows: Path, tmp_path: Path) -> None:
    first = finetuner(home, "keep", str(rows), "--name", "tickets")
    assert (first.returncode, first.stderr) == (0, "")
    again = json.loads(finetuner(home, "keep", str(rows), "--name", "tickets", "--json").stdout)
    assert (again["reference"], again["original_name"]) == (first.stdout.strip(), rows.name)
    assert Path(again["path"]).read_bytes() == rows.read_bytes()
    assert finetuner(home, "check", first.stdout.strip()).returncode == 0
    assert finetuner(home, "keep", str(rows)).stdout.startswith(f"{rows.stem}@")
    for wrong, name, code in (
        (rows, "a/b", "bad_name"),
        (tmp_path / "none", "x", "unreadable"),
        (tmp_path, "x", "unreadable"),
    ):
        done = finetuner(home, "keep", str(wrong), "--name", name, "--json")
        assert (done.returncode, json.loads(done.stdout)["error"]["code"]) == (2, code)


def test_what_cannot_be_checked(home: Home, rows: Path, tmp_path: Path) -> None:
    (tmp_path / "noise.csv").write_bytes(bytes(range(256)) * 10)
    (tmp_path / "empty.csv").touch()
    for arguments in (
        [str(tmp_path / "none.csv")],
        [str(tmp_path)],
        [str(tmp_path / "noise.csv")],
        [str(tmp_path / "empty.csv")],
        [str(rows), "--format", "wat"],
        [str(rows), "--model", "none"],
        [str(rows), "--model", str(tmp_path)],
    ):
        done = finetuner(home, "check", *arguments, "--json")
        assert done.returncode == 2, arguments
        assert json.loads(done.stdout)["error"]["message"]
        assert done.stderr.startswith("finetuner: ")


def test_check_counts_tokens_as_a_model_does(home: Home, rows: Path, tiny_gemma: Path) -> None:
    (home.models / "tiny").symlink_to(tiny_gemma)
    for name in ("tiny", str(tiny_gemma)):
        report = json.loads(finetuner(home, "check", str(rows), "--model", name, "--json").stdout)
        assert set(report["tokens"]) == {"p50", "p95", "max", "over_limit"}
        assert 0 < report["supervised_fraction"] < 1


def test_metrics_rows_feed_the_bar(home: Home) -> None:
    from spool.cli.submit import status

    job_id = accept(home, State.RUNNING)
    assert status(home, jobs.get_job(home, job_id)).endswith("starting")
    begin(home, job_id)
    metrics.Writer(home.run(job_id).events, 1).write(event="phase", phase="saving the adapter")
    assert status(home, jobs.get_job(home, job_id)).endswith("saving the adapter")
    metrics.Writer(home.run(job_id).events, 1).write(event="phase", phase="training, from step 20")
    metrics.Writer(home.run(job_id).metrics, 1).write(step=30, total_steps=120, eval_loss=0.5)
    assert "eval loss 0.5000" in status(home, jobs.get_job(home, job_id))


# --- status


def test_status_is_for_monitoring(home: Home, ids: dict[str, str]) -> None:
    done = finetuner(home, "status", "--json")
    told = json.loads(done.stdout)
    assert (done.returncode, told["ok"], told["runner"]) == (1, False, "absent")
    assert told["jobs"]["done"] == len(Tokens(home).list(State.DONE)) > 0
    beat(home, current_job=ids["running"])
    done = finetuner(home, "status")
    assert done.returncode == 0
    assert ids["running"] in done.stdout
    beat(home, halted={"code": "disk", "reason": "the disk is read-only"})
    done = finetuner(home, "status")
    assert (done.returncode, "halted: the disk is read-only" in done.stdout) == (1, True)


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({}, "ready"),
        ({"waiting_for": "room"}, "waiting"),
        ({"state": "stopped"}, "stopped"),
        ({"heartbeat": time.time() - 600}, "silent"),
    ],
)
def test_status_as_metrics(home: Home, fields: dict[str, Any], word: str) -> None:
    beat(home, **fields)
    assert json.loads(finetuner(home, "status", "--json").stdout)["runner"] == word
    said = finetuner(home, "status", "--metrics").stdout
    assert f"finetuner_up {int(word in ('ready', 'waiting'))}\n" in said
    assert 'finetuner_jobs{state="queued"} 0\n' in said
    names = {line.split()[2] for line in said.splitlines() if line.startswith("# TYPE")}
    for line in said.splitlines():
        assert line.startswith("#") or re.fullmatch(r"(finetuner_\w+)(\{state=\"\w+\"\})? -?[0-9.]+", line)
        assert line.startswith("#") or re.split(r"[{ ]", line)[0] in names


# ---- exports


MADE = {
    "gguf:q4_k_m": {
        "state": "suspect", "folder": "runs/X/exports/gguf-q4_k_m", "bytes": 253_000_000,
        "failed_checks": ["stop", "template"],
    },
    "gguf:q8_0": {"state": "failed", "error": {"message": "the disk is full."}},
    "merged": {"state": "ready", "folder": "runs/X/exports/merged", "bytes": 536_000_000, "failed_checks": []},
}  # fmt: skip


@pytest.mark.parametrize("kind", ["export", "train"])
def test_show_and_wait_say_what_was_made_and_what_is_suspect(home: Home, kind: str) -> None:
    job_id = accept(home, State.DONE, "for Ollama")
    token = next(path for path in home.state(State.DONE).iterdir() if job_id in path.name)
    durable.write_json(token, durable.read_json(token) | {"kind": kind})
    begin(home, job_id)
    end(home, job_id, State.DONE)
    result = {"exports": {"adapter": {"state": "unproven", "folder": "a", "bytes": 9}, **MADE}, "adapter": "a"}
    durable.write_json(home.run(job_id).result, {"v": 1, "attempt": 1, "outcome": "finished", "result": result})
    folder = f"{home.root}/runs/X/exports"
    lines = [
        f"merged is ready; 0.5 GB in {folder}/merged",
        f"gguf:q4_k_m is SUSPECT, it did not pass: stop, template; 0.3 GB in {folder}/gguf-q4_k_m",
        "gguf:q8_0 could not be made: the disk is full.",
    ]
    shown = finetuner(home, "show", job_id).stdout
    places = [shown.index(line) for line in lines]
    assert places == sorted(places)
    assert "exports     merged is ready" in shown
    waited = finetuner(home, "wait", job_id).stderr
    assert all(f"  {line}" in waited for line in lines)
    assert "says where the answers lie" not in waited


@pytest.mark.parametrize("kind", ["evaluate", "train"])
def test_show_and_wait_say_what_the_report_found_and_where_it_lies(home: Home, kind: str) -> None:
    job_id = accept(home, State.DONE, "how good")
    token = next(path for path in home.state(State.DONE).iterdir() if job_id in path.name)
    durable.write_json(token, durable.read_json(token) | {"kind": kind})
    begin(home, job_id)
    end(home, job_id, State.DONE)

    def told(report: Any) -> tuple[str, str]:
        result = {"report": report, "adapter": "a"}
        durable.write_json(home.run(job_id).result, {"v": 1, "attempt": 1, "outcome": "finished", "result": result})
        return finetuner(home, "show", job_id).stdout, finetuner(home, "wait", job_id).stderr

    says = ["14 of 16 answers are right. The base model gives 4.", "Nothing is forgotten.", "16 rows."]
    shown, waited = told({"report": f"runs/{job_id}/report.html", "verdict": "better", "says": says})
    where = f"the report lies in {home.run(job_id).report}"
    assert f"report      better than its base: {says[0]}\n            {where}\n" in shown
    assert f"  better than its base: {says[0]}\n  {where}" in waited
    shown, waited = told({"error": {"code": "out_of_memory", "message": "the report broke off: no \x1b[31mmemory."}})
    assert "report      there is no report: the report broke off: no" in shown
    assert "  there is no report: the report broke off" in waited
    assert "\x1b" not in shown + waited
    found = [show.report({"report": odd}) for odd in (None, 7, {}, {"says": 3, "verdict": []}, {"error": 5})]
    assert found == [[], [], [], [], ["there is no report: it did not say why."]]
    assert show.report({"report": {"verdict": "same", "says": ["That is no clear change."]}}) == [
        "That is no clear change."
    ]


def test_a_drop_that_is_not_taken_yet_says_its_kind(home: Home) -> None:
    for kind in ("export", "generate", "evaluate", "train"):
        job_id = finetuner(home, "submit", "-", stdin=json.dumps({"schema": 1, "kind": kind}).encode()).stdout.strip()
        assert jobs.get_job(home, job_id).kind == kind
