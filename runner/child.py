"""The process of one attempt at one job: does what the spec's kind says, then writes result.json as its last act.

Run as: python -m runner.child --home DIR --job ID --attempt N        (the daemon does; see runner/launch.py)

Exit codes: 0 result.json was written (finished or failed), 75 stopped on request (the job can be resumed).
"""

import argparse
import faulthandler
import os
import signal
import sys
import traceback
from typing import Any, NoReturn

from runner.checkpoint import EXIT_INTERRUPTED
from runner.job import Anew, Attempt, Stopped, StopRequest
from spool.health import failure
from spool.protocol import durable
from spool.protocol.errors import FinetunerError
from spool.protocol.home import Home
from spool.protocol.process import step_back
from spool.protocol.redact import redact
from spool.protocol.spec import EvaluateSpec, ExportSpec, GenerateSpec, load

_ENVIRONMENT = dict(os.environ)
"""As it was given: libraries add to it."""


def perform(attempt: Attempt) -> dict[str, Any]:
    """Does the job and gives what stands under `result`."""
    spec = load(durable.read_json(attempt.run.spec))
    attempt.phase("starting")
    if isinstance(spec, GenerateSpec):
        from runner import generate

        return generate.generate(spec, attempt)
    if isinstance(spec, ExportSpec):
        from runner.exports import make

        return make.export(spec, attempt)
    if isinstance(spec, EvaluateSpec):
        from runner import evaluate

        return evaluate.evaluate(spec, attempt)
    from runner import finish

    result: dict[str, Any] | None = durable.read_json(attempt.run.trained)
    if result is None:
        from runner import train

        try:
            result = train.train(spec, attempt)
        except Anew:
            print("-- the process begins anew", flush=True)
            begin_anew()
        assert result is not None
        if not finish.wanted(spec, attempt):
            return result
        durable.write_json(attempt.run.trained, result)
        print("-- the adapter is there", flush=True)
        begin_anew()
    return finish.finish(spec, attempt, result)


def begin_anew() -> NoReturn:
    """The same process, as if it had just been started: nothing is left of the training's memory, nor of what Unsloth
    has patched, when its exports are proven and its report is made."""
    os.execve(sys.executable, [sys.executable, "-m", "runner.child", *sys.argv[1:]], _ENVIRONMENT)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m runner.child")
    parser.add_argument("--home", required=True)
    parser.add_argument("--job", required=True)
    parser.add_argument("--attempt", type=int, required=True)
    arguments = parser.parse_args(argv)
    faulthandler.register(signal.SIGUSR1, all_threads=True)  # in C: it answers also while a library holds the GIL
    step_back(oom_score=500)
    home = Home.at(arguments.home)
    stop = StopRequest(home, arguments.job)
    try:
        stop.listen()
        return _attempt(Attempt(home, arguments.job, arguments.attempt, stop))
    except Stopped:
        print("-- stopped on request", flush=True)
        return EXIT_INTERRUPTED


def _attempt(attempt: Attempt) -> int:
    """Raises Stopped: on request."""
    try:
        outcome: dict[str, Any] = {"outcome": "finished", "result": perform(attempt)}
    except Exception as error:
        if attempt.stop.requested:  # the signal may surface as another error inside a library
            print(redact(traceback.format_exc()), flush=True)
            raise Stopped from None
        if not isinstance(error, FinetunerError):
            print(redact(traceback.format_exc()), flush=True)
        outcome = {"outcome": "failed", "error": failure.explain_exception(error)}
        print(f"-- failed: {outcome['error']['message']} {outcome['error']['hint']}", flush=True)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    durable.write_json(attempt.run.result, {"v": 1, "attempt": attempt.number, **outcome})
    return 0


if __name__ == "__main__":
    sys.exit(main())
