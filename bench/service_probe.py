"""What can be done from inside the web app's sandbox: prints one line a try. Run by bench/service.py as its service."""

import mmap
import os
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

from spool.data import background
from spool.data.keeping import keep
from spool.protocol import dropbox, jobs
from spool.protocol.home import Home

HOME = Home.at()
RUN = sys.argv[1]


def connect(host: str) -> str:
    with socket.create_connection((host, 7777), timeout=2):
        return "connected"


def report() -> str:
    stored = keep.add(HOME, "tickets", "t.jsonl", b'{"prompt": "a question", "completion": "an answer"}\n' * 30)
    request = background.Request(str(stored.path))
    for _ in range(200):
        progress = background.ask(HOME, request)
        if progress.complete or progress.error:
            return (
                f"error {progress.error}"
                if progress.error
                else f"{stored.name}@{stored.version}, {progress.done} rows read"
            )
        time.sleep(0.1)
    return "no report within 20 s"


TRIES: dict[str, tuple[bool, Callable[[], object]]] = {
    "drop a job": (
        True,
        lambda: dropbox.submit(
            HOME, {"schema": 1, "name": "ok", "model": "m", "dataset": "examples/support_tickets.jsonl"}
        ),
    ),
    "ask for a cancel": (True, lambda: (HOME.control / f"cancel-{'0' * 26}").touch()),
    "keep a dataset and have it checked": (True, report),
    "read the jobs": (True, lambda: f"{len(jobs.list_jobs(HOME))} jobs"),
    "read a log": (True, lambda: f"{HOME.run(RUN).log.stat().st_size} bytes"),
    "connect to 127.0.0.1": (True, lambda: connect("127.0.0.1")),
    "write into runs/": (False, lambda: (HOME.runs / "x").write_text("x")),
    "write into a run": (False, lambda: (HOME.run(RUN).root / "x").write_text("x")),
    "change a result": (False, lambda: os.open(HOME.run(RUN).result, os.O_WRONLY)),
    "write into spool/state/": (False, lambda: (HOME.states / "x").write_text("x")),
    "queue a token": (False, lambda: (HOME.states / "queued" / "x").write_text("x")),
    "write runner.json": (False, lambda: os.close(os.open(HOME.runner_json, os.O_WRONLY))),
    "write settings.json": (False, lambda: HOME.settings.write_text("{}")),
    "write into the compile cache": (False, lambda: (HOME.cache / "x").write_text("x")),
    "write into models/": (False, lambda: (HOME.models / "x").write_text("x")),
    "write into the code": (False, lambda: Path("runner/x.py").write_text("x")),
    "read the token's file": (False, lambda: Path("/etc/finetuner/hf_token").read_text()),
    "see the runner's credentials": (False, lambda: os.listdir("/run/credentials")),
    "list /home": (False, lambda: os.listdir("/home/alice")),
    "list /root": (False, lambda: os.listdir("/root")),
    "open a device": (False, lambda: os.open("/dev/nvidia0", os.O_RDWR)),
    "see another's process": (False, lambda: Path("/proc/1/cmdline").read_bytes()),
    "connect elsewhere": (False, lambda: connect("10.99.0.1")),
    "map memory to write and run": (False, lambda: mmap.mmap(-1, 4096, prot=7)),
    "become root": (False, lambda: os.setuid(0)),
    "give a file away": (False, lambda: os.chown(HOME.incoming, 0, 0)),
}

wrong = 0
for name, (allowed, attempt) in TRIES.items():
    try:
        done, said = True, str(attempt() or "done")
    except Exception as error:
        done, said = False, f"{type(error).__name__}: {error}"
    wrong += done != allowed
    print(f"{'ok   ' if done == allowed else 'WRONG'} {'can   ' if done else 'cannot'} {name}: {said[:150]}")
sys.exit(wrong)
