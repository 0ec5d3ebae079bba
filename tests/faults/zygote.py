"""A process that has imported the runner and forks one on request: a fresh daemon in milliseconds, a thousand times.

Run as: python -m tests.faults.zygote        (JSON lines on stdin and stdout; box.py talks to it)

A forked child is a process of its own session; with `stop` it stops itself before its first act, so that strace can
be attached and counts the daemon's own system calls from 1, not those of a starting interpreter.
"""

import ctypes
import json
import os
import resource
import signal
import sys
from typing import Any

from runner import daemon
from spool.cli import main as finetuner
from tests.faults import planted

PR_SET_PDEATHSIG = 1
_codes: dict[int, int] = {}


def fork(request: dict[str, Any]) -> dict[str, Any]:
    pid = os.fork()
    if pid == 0:
        code = 70
        try:
            code = _child(request)
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 1
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    if request.get("stop"):
        os.waitpid(pid, os.WUNTRACED)
    return {"pid": pid}


def _child(request: dict[str, Any]) -> int:
    os.setsid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # nothing is left behind when the suite itself is killed
    os.chdir(request["cwd"])
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    null = os.open(os.devnull, os.O_RDONLY)
    for fd, target in ((null, 0), (log, 1), (log, 2)):
        os.dup2(fd, target)
    os.closerange(3, 256)
    os.environ.update(request["env"])
    if request.get("serial"):
        planted.serial_fsyncs()
    if request.get("clock_s"):
        planted.shift_clock(request["clock_s"])
    if request.get("planted"):
        planted.BUGS[request["planted"]].patch()
    if request.get("stop"):
        os.kill(os.getpid(), signal.SIGSTOP)
    main = {"daemon": daemon.main, "finetuner": finetuner.main}[request["what"]]
    return main(request["argv"]) or 0


def poll(request: dict[str, Any]) -> dict[str, Any]:
    pid = request["pid"]
    if pid not in _codes:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if not ended:
            return {"code": None}
        _codes[pid] = os.waitstatus_to_exitcode(status)
    return {"code": _codes[pid]}


def main() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    operations = {"fork": fork, "poll": poll}
    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps(operations[request["op"]](request)), flush=True)


if __name__ == "__main__":
    main()
