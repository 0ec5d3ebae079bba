"""Failures recognised from what libraries, the kernel and logs really say; each with its evidence and one cure."""

import ast
import errno
import json
import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT

from runner import attempts
from runner.checkpoint import EXIT_INTERRUPTED
from spool.health import failure
from spool.health.failure_codes import MEANINGS, document
from spool.health.failure_rules import RULES
from spool.protocol import durable, metrics
from spool.protocol.errors import DataError, ModelError
from spool.protocol.home import Home
from spool.protocol.redact import HIDDEN, redact
from spool.protocol.ulid import mint

TOKEN = "hf_" + "aB3dE6gH9k" * 4


def error(text: str, name: str = "RuntimeError", module: str = "builtins") -> Exception:
    """An exception of a library that need not be installed: the doctor knows types by their names only."""
    return type(name, (Exception,), {"__module__": module})(text)


OOM = (
    "CUDA out of memory. Tried to allocate 2.25 GiB. GPU 0 has a total capacity of 79.11 GiB of which 1.56 GiB is free."
    " Including non-PyTorch memory, this process has 77.54 GiB memory in use. Of the allocated memory 75.10 GiB is "
    "allocated by PyTorch, and 1.72 GiB is reserved by PyTorch but unallocated."
)
HUB = "https://huggingface.co"
REAL = [json.loads(line) for line in (ROOT / "tests/failure_messages.jsonl").read_text().splitlines()]
"""What libraries and drivers really said (code, a part of our message, `package.Type: text`): out of their sources,
out of public issues, from full disks and allocations tried for the purpose, and some as their users remember them: not
each was traced to its source."""


@pytest.mark.parametrize("real", REAL, ids=lambda real: f"{real['code']}: {real['error'][:60]}")
def test_real_messages_are_recognised(real: dict[str, str]) -> None:
    name, _, text = real["error"].partition(": ")
    package, _, short = name.rpartition(".")
    told = failure.explain_exception(error(text, short, package or "builtins"))
    assert set(told) == {"code", "message", "hint", "evidence"}
    assert (told["code"], real["says"] in told["message"]) == (real["code"], True), told
    assert told["evidence"]
    assert told["evidence"].rstrip("…") in " ".join(re.sub(r"\x1b\[\d+m", "", real["error"]).split())
    assert len(told["evidence"]) <= failure.EVIDENCE_CHARS
    assert "{" not in told["message"] + told["hint"]
    assert told["hint"].endswith((".", ")"))


def test_every_rule_has_a_real_message() -> None:
    used = [found[0] for real in REAL if (found := failure._recognise(real["error"]))]
    unused = [rule for rule in RULES if rule not in used]
    assert [rule.message for rule in unused] == [], "give each rule its message in tests/failure_messages.jsonl"


def test_errors_of_python_itself_are_recognised(tmp_path: Path) -> None:
    expected = {
        errno.ENOSPC: "disk_full",
        errno.EDQUOT: "disk_full",
        errno.EROFS: "disk_read_only",
        errno.EIO: "disk_error",
        errno.ESTALE: "disk_error",
        errno.ENOMEM: "out_of_memory",
        errno.EMFILE: "too_many_open_files",
        errno.EACCES: "permission_denied",
        errno.ENOENT: "file_missing",
        errno.ECONNRESET: "no_network",
        errno.ENETUNREACH: "no_network",
    }
    for number, code in expected.items():
        assert failure.explain_exception(OSError(number, os.strerror(number), str(tmp_path)))["code"] == code
    assert failure.explain_exception(MemoryError())["code"] == "out_of_memory"


@pytest.mark.parametrize("raised", [
    ValueError("invalid literal for int() with base 10: 'x'"), KeyError("rows"), RuntimeError(""), AssertionError(),
    error("\n\n  \n"), ZeroDivisionError("division by zero"),
])  # fmt: skip
def test_what_was_not_foreseen_is_named_by_its_line(raised: Exception) -> None:
    told = failure.explain_exception(raised)
    assert told["code"] == "unexpected"
    assert told["evidence"].startswith(type(raised).__name__)
    assert told["message"] == told["evidence"]
    assert failure.explain_exception(raised, "check_failed", "the check broke off: ")["message"].startswith(
        "the check "
    )


def test_the_cause_is_found_under_what_was_raised_from_it() -> None:
    def load() -> None:
        try:
            raise error(OOM, "OutOfMemoryError", "torch")
        except Exception as inner:
            raise RuntimeError("the training step failed") from inner

    with pytest.raises(RuntimeError) as caught:
        load()
    assert failure.explain_exception(caught.value)["code"] == "out_of_memory"
    looped = RuntimeError("a")
    looped.__cause__ = looped
    assert failure.explain_exception(looped)["code"] == "unexpected"


def test_an_error_of_ours_keeps_its_words_and_shows_what_it_stands_for() -> None:
    def fetch() -> None:
        try:
            raise error(f"\n\n429 Too Many Requests for url: {HUB}/api/models/a/b?token={TOKEN}.", "HfHubHTTPError")
        except Exception:
            raise ModelError("the hub is busy.", "Wait.", "hub_busy") from None

    with pytest.raises(ModelError) as caught:
        fetch()
    told = failure.explain_exception(caught.value)
    assert (told["code"], told["message"], told["hint"]) == ("hub_busy", "the hub is busy.", "Wait.")
    assert told["evidence"].startswith("HfHubHTTPError: 429 Too Many Requests")
    assert TOKEN not in str(told)
    assert failure.explain_exception(DataError("no rows.", "Add some."))["evidence"] == ""


# --- secrets


def test_secrets_are_taken_out_before_a_line_is_cut() -> None:
    line = "x" * (failure.EVIDENCE_CHARS - 12) + " " + TOKEN
    assert "aB3" not in failure.explain_exception(RuntimeError(line))["evidence"]
    environment = {"HF_TOKEN": "sesame-open-now"}
    for text in (
        f"token {TOKEN} is wrong",
        f"GET https://mira:{TOKEN}@hub.test/x",
        "GET https://mira:hunter2@hub.test/x",
        "{'authorization': 'Bearer abcdefgh1234'}",
        "with sesame-open-now in it",
        "https://cdn.test/x?X-Amz-Signature=0a1b2c3d&y=1",
    ):
        hidden = redact(text, environment)
        assert HIDDEN in hidden, text
        assert not any(secret in hidden for secret in (TOKEN, "hunter2", "abcdefgh1234", "sesame", "0a1b2c3d"))
    plain = "Basic understanding of bearer bonds, https://huggingface.co/a/b:c@d, hf_tiny, signature page"
    assert redact(plain, {"HF_TOKEN": "a"}) == plain


def test_events_hold_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "sesame-open-now")
    metrics.Writer(tmp_path / "events.jsonl", 1).write(
        event="phase", phase=f"fetching with {TOKEN} and sesame-open-now"
    )
    text = (tmp_path / "events.jsonl").read_text()
    assert TOKEN not in text
    assert "sesame" not in text


# --- processes that left no result


def log(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "train.log"
    path.write_text(text)
    return path


SEGFAULT = """-- training
Fatal Python error: Segmentation fault

Current thread 0x00007f1c5d7fa640 (most recent call first):
  File "/venv/lib/python3.12/site-packages/bitsandbytes/functional.py", line 512 in dequantize_4bit
  File "/venv/lib/python3.12/site-packages/torch/nn/modules/module.py", line 1751 in _call_impl
"""
ABORT = """terminate called after throwing an instance of 'c10::Error'
  what():  CUDA error: unknown error
CUDA kernel errors might be asynchronously reported at some other API call.
"""
TRACEBACK = """-- loading the libraries
Traceback (most recent call last):
  File "/venv/x.py", line 3, in <module>
    import unsloth
RuntimeError: operator torchvision::nms does not exist

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "/venv/y.py", line 9, in main
    frobnicate()
frob.FrobError: the knob is loose
"""
DUMP = """-- training
Thread 0x00007f1c01 (most recent call first):
  File "/usr/lib/python3.12/threading.py", line 355 in wait

Current thread 0x00007f1c02 (most recent call first):
  File "/venv/torch/autograd/graph.py", line 824 in _engine_run_backward
  File "/venv/torch/_tensor.py", line 648 in backward
"""


@pytest.mark.parametrize(
    ("text", "code", "evidence"),
    [
        (SEGFAULT, "crashed", "Fatal Python error: Segmentation fault, at dequantize_4bit (functional.py, line 512)"),
        (ABORT, "gpu_lost", "what(): CUDA error: unknown error"),
        (TRACEBACK, "version_mismatch", "RuntimeError: operator torchvision::nms does not exist"),
        ("all is well\n", "crashed", ""),
        ("row: 'CUDA out of memory. Tried to allocate' is what the customer wrote\n", "crashed", ""),
        ("Traceback (most recent call last):\n  File 'x'\nfrob.FrobError: loose\n", "crashed", "frob.FrobError: loose"),
    ],
)
def test_last_words_in_the_log(tmp_path: Path, text: str, code: str, evidence: str) -> None:
    told = failure.explain_end(-signal.SIGABRT, log=log(tmp_path, text))
    assert (told["code"], told["evidence"]) == (code, evidence)


def test_words_of_an_earlier_attempt_do_not_count(tmp_path: Path) -> None:
    path = log(tmp_path, ABORT)
    size = path.stat().st_size
    with open(path, "a") as file:
        file.write(SEGFAULT)
    assert failure.explain_end(-11, log=path, since_bytes=size)["code"] == "crashed"
    assert failure.explain_end(-11, log=path, since_bytes=size * 99)["code"] == "gpu_lost", (
        "the log was cut short since"
    )
    assert failure.explain_end(-11, log=tmp_path / "none")["evidence"] == ""


def test_a_damaged_log_is_read_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "train.log"
    path.write_bytes(
        b"\xff\x00" * (failure.TAIL_BYTES // 2 + 5) + b"\nTraceback (most recent call last):\n  x\nE\xff: \x1b[31mred\n"
    )
    assert failure.explain_end(1, log=path)["evidence"] == "E\ufffd: red"


@pytest.mark.parametrize(
    ("ended", "code", "says"),
    [
        ({"returncode": -9}, "killed", "SIGKILL"),
        ({"returncode": -15}, "killed", "SIGTERM"),
        ({"returncode": None}, "runner_ended", "the runner ended before"),
        ({"returncode": -9, "for_memory": True}, "out_of_memory", "the kernel killed"),
        ({"returncode": -9, "stalled": True}, "stalled", "no sign of life"),
        ({"returncode": -11}, "crashed", "SIGSEGV"),
        ({"returncode": -64}, "crashed", "SIGRTMAX"),
        ({"returncode": -99}, "crashed", "signal 99"),
        ({"returncode": 3}, "crashed", "exit code 3"),
        ({"returncode": 0}, "crashed", "exit code 0"),
    ],
)
def test_how_a_process_ended(ended: dict[str, Any], code: str, says: str) -> None:
    told = failure.explain_end(**ended)
    assert (told["code"], says in told["message"]) == (code, True), told


def test_a_stall_shows_where_the_main_thread_stood(tmp_path: Path) -> None:
    told = failure.explain_end(-9, stalled=True, log=log(tmp_path, DUMP))
    assert told["evidence"] == "_engine_run_backward (graph.py, line 824)"
    assert attempts.how_it_ended(-9, False, stalled=True)[0] == "stalled"
    assert attempts.how_it_ended(EXIT_INTERRUPTED, False, stalled=True)[0] == "stalled"


@pytest.mark.parametrize(
    ("returncode", "for_memory", "outcome"),
    [(None, False, "interrupted"), (-9, False, "interrupted"), (-9, True, "crashed"), (-15, False, "interrupted"),
     (EXIT_INTERRUPTED, False, "interrupted"), (-11, False, "crashed"), (1, False, "crashed"), (0, False, "crashed")],
)  # fmt: skip
def test_a_stop_from_outside_is_no_fault_of_the_job(returncode: int | None, for_memory: bool, outcome: str) -> None:
    assert attempts.how_it_ended(returncode, for_memory)[0] == outcome


# --- poison


def played(home: Home, *ends: str, words: str = "") -> str:
    """A job with attempts that ended so: crash, stall, memory or stop, with `@step` of the newest checkpoint."""
    job_id = mint()
    run = home.run(job_id)
    run.attempts.mkdir(parents=True)
    run.log.write_text(words)
    codes = {
        "crash": (-11, False),
        "stall": (-9, False),
        "memory": (-9, True),
        "stop": (None, False),
        "exit": (1, False),
    }
    for number, end in enumerate(ends, 1):
        way, _, step = end.partition("@")
        outcome, why = attempts.how_it_ended(*codes[way], stalled=way == "stall")
        record = {"outcome": outcome, "why": why, "exit": codes[way][0], "checkpoint_step": int(step or 0) or None}
        durable.write_json(run.attempts / f"{number:04d}.json", {"attempt": number, **record})
    return job_id


@pytest.mark.parametrize(
    ("ends", "code"),
    [
        (["crash"] * 2, None),
        (["crash"] * 3, "crash_loop"),
        (["exit", "crash", "stall"], "stalled"),
        (["stall"] * 3, "stalled"),
        (["memory"], None),
        (["memory"] * 2, "out_of_memory"),
        (["memory", "stop", "memory"], "out_of_memory"),
        (["memory", "crash"], None),
        (["crash@10", "crash@20", "crash@30", "crash@40"], None),
        (["crash@10", "crash@10", "crash@10"], None),
        (["crash@10", "crash@10", "crash@10", "crash@10"], "crash_loop"),
        (["crash@10", "crash@10", "crash", "crash@10"], "crash_loop"),
        (["crash", "stop", "crash", "stop", "stop", "crash"], "crash_loop"),
        (["crash", "crash", "stop@10", "crash@10"], None),
        (["stop"] * 50, None),
        (["memory@10", "memory@20"], None),
        (["memory@10", "memory@10", "memory@10"], "out_of_memory"),
    ],
)
def test_poison_is_what_fails_by_itself_without_getting_further(home: Home, ends: list[str], code: str | None) -> None:
    told = attempts.poison(home, played(home, *ends))
    assert (told and told["code"]) == code
    if told:
        assert "times in a row" in told["message"]
        assert set(told) == {"code", "message", "hint", "evidence"}


def test_a_crash_loop_says_what_was_repeated_and_after_which_step(home: Home) -> None:
    told = attempts.poison(home, played(home, "crash@20", "crash@20", "crash@20", "crash@20", words=SEGFAULT))
    assert told is not None
    assert told["message"] == "the job crashed (SIGSEGV), 3 times in a row after the checkpoint of step 20."
    assert "dequantize_4bit" in told["evidence"]
    told = attempts.poison(home, played(home, "exit", "exit", "exit", words=TRACEBACK))
    assert told is not None
    assert (told["code"], "3 times in a row before its first checkpoint" in told["message"]) == (
        "version_mismatch",
        True,
    )


def test_a_damaged_record_is_no_crash(home: Home) -> None:
    job_id = played(home, "crash", "crash", "crash")
    (home.run(job_id).attempts / "0002.json").write_text("{")
    assert attempts.poison(home, job_id) is None


# --- the codes

OF_OURS = ("FinetunerError", "DataError", "ModelError", "NotFound", "Unresolved", "Diverged", "CannotMerge")


def raised_codes() -> dict[str, set[str]]:
    """code -> files, of every error that the code of a job's processes raises with a code of its own."""
    files = [path for path in (ROOT / "runner").glob("*.py") if path.stem not in ("accept", "embed", "demo")]
    readers = {"chat", "delimited", "hub", "prepare", "read", "source", "tokens"}
    of_data = [path for path in (ROOT / "spool/data").rglob("*.py") if path.stem in readers]
    assert {path.stem for path in of_data} == readers, "a module was renamed: name it here"
    files += of_data
    files += [ROOT / "spool/protocol/resolve.py", *(ROOT / "runner/exports").glob("*.py")]
    found: dict[str, set[str]] = {}
    for path in files:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in OF_OURS:
                values = [*node.args[2:3], *(each.value for each in node.keywords if each.arg == "code")]
                for value in values:
                    if isinstance(value, ast.Constant) and isinstance(value.value, str):
                        found.setdefault(value.value, set()).add(path.name)
    return found


def test_every_code_is_explained_in_the_docs() -> None:
    codes = raised_codes()
    assert {"disk_full", "data_blocked", "model_missing"} <= set(codes)
    assert {code: files for code, files in codes.items() if code not in MEANINGS} == {}, (
        "explain it in failure_codes.py"
    )
    assert {rule.code for rule in RULES} <= set(MEANINGS)
    written = (ROOT / "docs/failures.md").read_text()
    assert written == document(), "write it anew: python -m spool.health.failure_codes > docs/failures.md"


def test_what_passes_by_itself() -> None:
    assert failure.is_passing("no_network")
    assert failure.is_passing("hub_busy")
    assert not any(failure.is_passing(code) for code in MEANINGS if code not in ("no_network", "hub_busy"))
    assert list(failure.BACK_OFF_S) == sorted(failure.BACK_OFF_S)
