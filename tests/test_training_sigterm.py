"""A stop of the real runner in each phase of a real job: interrupted, back in the queue, resumed, the same result."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, Runner, wait_for

from bench import sigterm
from spool.protocol import dropbox
from spool.protocol.home import Home

pytestmark = pytest.mark.training


def test_five_stops_in_five_phases(
    home: Home, tiny_gemma: Path, make_runner: Callable[..., Runner], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # threads that wait for each other are slow where cores are shared
    shutil.copytree(tiny_gemma, home.models / "tiny")
    runner = make_runner(home)
    spec = {**sigterm.SPEC, "model": "tiny"}
    straight, stopped = dropbox.submit(home, spec), dropbox.submit(home, spec)
    assert runner.wait(straight, "done", "failed", timeout_s=240).state == "done"
    seen: list[dict[str, Any]] = []
    for phase in ("load", "first step", "eval", "mid-step", "export"):
        seen.append(sigterm.stop_in(home, runner.stop, stopped, phase))
        runner.start()
    job = runner.wait(stopped, "done", "failed", timeout_s=240)
    assert job.state == "done", (job.error, seen)
    assert job.attempts == 6
    assert all(each["resumable"] and each["exit_s"] < 20 for each in seen), seen
    assert sigterm.learned(home, stopped) == sigterm.learned(home, straight)


def test_a_stack_is_dumped_while_a_library_holds_the_interpreter(home: Home, tmp_path: Path) -> None:
    """SIGUSR1 is what the runner sends to a training that gives no sign of life, before it ends it."""
    code = (
        "import ctypes, runner.child as child\n"
        "child.perform = lambda attempt: ctypes.PyDLL(None).sleep(60)\n"  # PyDLL keeps the interpreter's lock
        f"child.main(['--home', {str(home.root)!r}, '--job', 'x', '--attempt', '1'])\n"
    )
    home.run("x").root.mkdir()
    log = tmp_path / "train.log"
    with open(log, "wb") as output:
        process = subprocess.Popen([sys.executable, "-c", code], stdout=output, stderr=output, cwd=ROOT)
    try:
        wait_for(lambda: "nanosleep" in Path(f"/proc/{process.pid}/wchan").read_text() or asleep(process.pid), 30)
        os.kill(process.pid, signal.SIGUSR1)
        wait_for(lambda: "perform" in log.read_text() or "<lambda>" in log.read_text(), 10)
    finally:
        process.kill()
        process.wait()


def asleep(pid: int) -> bool:
    time.sleep(1)
    return "State:\tS" in Path(f"/proc/{pid}/status").read_text()
