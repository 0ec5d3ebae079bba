"""How jobs end: what the end of an attempt means, and the two writes that end a job for ever."""

import logging
from dataclasses import dataclass
from typing import Any

from runner import attempts, checkpoint, waits
from spool.health import failure
from spool.protocol import asks, durable
from spool.protocol.home import Home, State
from spool.protocol.jobs import attempt_files, now_iso
from spool.protocol.states import Token, Tokens

log = logging.getLogger("runner")


@dataclass(frozen=True)
class Ending:
    """What the daemon saw of a child's end. `returncode` is None where an earlier daemon would have seen it."""

    returncode: int | None = None
    for_memory: bool = False
    stalled: str | None = None
    """Why the daemon ended it: it gave no sign of life."""
    gpu_lost: bool = False
    """The card has gone meanwhile: nothing that happened is the job's fault."""


def end(home: Home, token: Token, source: State, target: State, error: dict[str, Any] | None = None) -> None:
    """Ends a job for ever. The words are written first, moving the token commits them."""
    outcome = {"state": target.value, "ended_at": now_iso(), "error": error}
    durable.write_json(home.run(token.job_id).outcome, outcome)
    Tokens(home).move(token, source, target)
    (home.control / f"cancel-{token.job_id}").unlink(missing_ok=True)
    log.info("%s is %s%s", token.job_id, target.value, f": {error['message']}" if error else "")


def attempt(home: Home, token: Token, ending: Ending) -> None:
    """The end of an attempt: the job ends, or goes back to the head of its priority."""
    tokens, job_id = Tokens(home), token.job_id
    if not tokens.path(State.RUNNING, token).exists():
        return  # concluded already, before a fault of the file system
    number = len(attempt_files(home, job_id))
    if number == 0:  # it was claimed, and the runner died before the attempt began
        tokens.move(token, State.RUNNING, State.QUEUED)
        return
    is_session = asks.is_session(home, job_id)
    if attempts.outcome(home, job_id, number) == "interrupted" and not is_session:
        # told already, or claimed anew and not begun
        _back(home, token, "the runner ended before the next attempt began")
        return
    result = attempts.result_of(home, job_id, number)
    code = ending.returncode
    if result and result["outcome"] == "finished":
        attempts.end(home, job_id, number, "finished", exit=code)
        home.run(job_id).wait.unlink(missing_ok=True)
        end(home, token, State.RUNNING, State.DONE)
    elif result and is_session:
        attempts.end(home, job_id, number, "failed", exit=code, error=result["error"])
        end(home, token, State.RUNNING, State.FAILED, result["error"])
    elif result and not ending.gpu_lost:
        _failed(home, token, number, code, result["error"])
    elif (home.control / f"cancel-{job_id}").exists():
        attempts.end(home, job_id, number, "cancelled", exit=code)
        end(home, token, State.RUNNING, State.CANCELLED)
    elif is_session:
        _broken_off(home, token, number, ending)
    else:
        outcome, why = _how(ending)
        attempts.end(home, job_id, number, outcome, exit=code, why=why)
        error = attempts.poison(home, job_id)
        if error:
            end(home, token, State.RUNNING, State.FAILED, error)
        else:
            _back(home, token, why)


def _broken_off(home: Home, token: Token, number: int, ending: Ending) -> None:
    """A session that left no result: whoever asked has gone, so it is never taken up again. One that was stopped is
    done, one that crashed has failed."""
    run, code = home.run(token.job_id), ending.returncode
    outcome, why = _how(ending)
    if outcome == "interrupted":
        result = {"ended_by": "made_room" if run.make_room.exists() else "interrupted"}
        durable.write_json(run.result, {"v": 1, "attempt": number, "outcome": "finished", "result": result})
        attempts.end(home, token.job_id, number, outcome, exit=code, why=why)
        end(home, token, State.RUNNING, State.DONE)
        return
    error = failure.explain_end(code, ending.for_memory, outcome == "stalled", run.log)
    attempts.end(home, token.job_id, number, outcome, exit=code, why=why)
    end(home, token, State.RUNNING, State.FAILED, error)


def _how(ending: Ending) -> tuple[str, str]:
    if ending.gpu_lost:
        return "interrupted", "the GPU went away"
    if ending.stalled:
        return "stalled", ending.stalled
    return attempts.how_it_ended(ending.returncode, ending.for_memory)


def _failed(home: Home, token: Token, number: int, code: int | None, error: dict[str, Any]) -> None:
    """The child said why. What passes by itself, and a full disk where something would be lost, is waited for."""
    run, job_id = home.run(token.job_id), token.job_id
    step = checkpoint.newest_step(run.checkpoints)
    wait = None
    if failure.is_passing(error["code"]) or (error["code"] == "disk_full" and step):
        wait = waits.begin(run, error, step, _needed_bytes(home, job_id) if error["code"] == "disk_full" else 0)
    attempts.end(home, job_id, number, "interrupted" if wait else "failed", exit=code, error=error)
    if wait:
        _back(home, token, wait.words())
    else:
        end(home, token, State.RUNNING, State.FAILED, error)


def _needed_bytes(home: Home, job_id: str) -> int:
    """Room for the job's own limit, and for one checkpoint as large as its last."""
    try:
        limit_gb = float(durable.read_json(home.run(job_id).spec)["limits"]["min_free_gb"])
    except (ValueError, TypeError, KeyError):
        limit_gb = 1.0
    newest = checkpoint.listed(home.run(job_id).checkpoints)[-1:]
    return int(limit_gb * 1e9) + sum(path.stat().st_size for folder in newest for path in folder.iterdir())


def _back(home: Home, token: Token, why: str) -> None:
    Tokens(home).move(token, State.RUNNING, State.QUEUED)
    log.info("%s is back at the head of its queue: %s", token.job_id, why)
