"""Attempts at jobs, one after the other in one process: unsloth is imported once, so that many are cheap.

Run as: python tests/trainer_process.py        (one order a line on stdin, one answer a line on file descriptor 3)

An order: home, job, attempt, and at which sign of life (counted from 1) it is stopped by SIGTERM (`stop_at`) or left
as by SIGKILL (`kill_at`).
"""

import gc
import json
import os
import signal
import sys
import time
import traceback
from typing import Any

from runner.child import perform
from runner.job import Attempt, Stopped, StopRequest, explain
from spool.protocol.home import Home


class Killed(BaseException):
    """What SIGKILL leaves: nothing is done after it."""


class Watched(Attempt):
    stop_at: int | None = None
    kill_at: int | None = None
    pulses = 0

    def pulse(self) -> None:
        super().pulse()
        self.pulses += 1
        if self.pulses == self.stop_at:
            os.kill(os.getpid(), signal.SIGTERM)
        if self.pulses == self.kill_at:
            raise Killed


def obey(order: dict[str, Any]) -> dict[str, Any]:
    home = Home.at(order["home"])
    stop = StopRequest(home, order["job"])
    stop.LEAVE_S = 86_400  # this process lives on
    stop.listen()
    attempt = Watched(home, order["job"], order["attempt"], stop)
    attempt.stop_at, attempt.kill_at = order.get("stop_at"), order.get("kill_at")
    began = time.perf_counter()
    answer: dict[str, Any] = {"outcome": "finished"}
    try:
        answer["result"] = perform(attempt)
    except Stopped:
        answer["outcome"] = "stopped"
    except Killed:
        answer["outcome"] = "killed"
    except Exception as error:
        traceback.print_exc()
        answer |= {"outcome": "failed", "error": explain(error, "unexpected", "", "")}
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    gc.collect()
    return {**answer, "pulses": attempt.pulses, "seconds": round(time.perf_counter() - began, 2)}


def main() -> None:
    with os.fdopen(3, "w", buffering=1) as answers:
        for line in sys.stdin:
            answers.write(json.dumps(obey(json.loads(line))) + "\n")


if __name__ == "__main__":
    main()
