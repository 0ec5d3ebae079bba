"""The gate before the queue, on the daemon's side: which jobs are checked next, and what came of it.

One checking child lives at a time and works through up to BATCH jobs from the head of `checking`, in queue order. It
writes runs/ID/checked.json as its last word on each. What passed goes to `queued` with its place in the order, what
must not train goes to `failed`. A job over which the child crashes CRASHES times fails; a stop, a reboot or a kill
from outside never counts, and a job without a word is checked again.
"""

import itertools
import logging
from pathlib import Path
from typing import Any

from runner import attempts, conclude, launch, waits
from spool.health import failure
from spool.protocol import durable
from spool.protocol.home import Home, State
from spool.protocol.states import Token, Tokens

log = logging.getLogger("runner")

BATCH = 8
CRASHES = 3
STOP_S = 2.0
"""A check writes nothing that a kill could spoil, so it gets little time to end."""
LOOK_S = 0.25
"""How often the daemon looks for the word on a job while the child goes on with the next one."""


class Gate:
    """Only the daemon's main thread calls it."""

    def __init__(self, home: Home, started_in: Path, checker: tuple[str, ...]) -> None:
        self.home = home
        self.started_in = started_in
        self.checker = checker
        self.tokens = Tokens(home)
        self.child: launch.Child | None = None
        self.job_ids: list[str] = []
        """What the child works on, in its order."""

    def settle(self) -> None:
        """Moves the jobs that a child has left its word on, and sees to a child that has ended."""
        waiting = self.tokens.list(State.CHECKING)
        if self.child is None:
            for token in waiting:  # an earlier runner's child may have been heard by nobody
                self._pass(token)
            return
        ended = self.child.poll()
        at = {token.job_id: token for token in waiting}
        silent = [at[job_id] for job_id in list(self.job_ids) if job_id in at and not self._pass(at[job_id])]
        if ended:
            child, self.child, self.job_ids = self.child, None, []
            if silent:
                self._blame(silent[0], child)

    def start(self) -> None:
        """Starts a child when none lives and a job waits."""
        if self.child is not None:
            return
        ready = (t.job_id for t in self.tokens.list(State.CHECKING) if waits.may_start(self.home, t.job_id))
        self.job_ids = list(itertools.islice(ready, BATCH))
        if self.job_ids:
            self.child = launch.start_check(self.home, self.job_ids, self.started_in, self.checker)

    def stop(self) -> None:
        if self.child is not None:
            self.child.terminate(STOP_S)

    def forget(self, job_id: str) -> None:
        """Ends the child if it is at this job just now; the others of its batch are begun again."""
        at_work = next((each for each in self.job_ids if verdict(self.home, each) is None), None)
        if at_work == job_id:
            self.stop()

    def _pass(self, token: Token) -> bool:
        """False while there is no word on the job."""
        run = self.home.run(token.job_id)
        found = verdict(self.home, token.job_id)
        if found is None:
            return False
        if found["outcome"] == "passed":
            run.wait.unlink(missing_ok=True)
            self.tokens.move(token, State.CHECKING, State.QUEUED)
        elif failure.is_passing(found["error"]["code"]) and (wait := waits.begin(run, found["error"], None, 0)):
            run.checked.unlink()
            if token.job_id in self.job_ids:
                self.job_ids.remove(token.job_id)
            log.info("%s is checked again: %s", token.job_id, wait.words())
        else:
            conclude.end(self.home, token, State.CHECKING, State.FAILED, found["error"])
        return True

    def _blame(self, token: Token, child: launch.Child) -> None:
        """What the child's end without a word means for the job that it was at."""
        for_memory = child.killed_for_memory()
        outcome, why = attempts.how_it_ended(child.returncode, for_memory, "the check of the data")
        if outcome == "interrupted":
            log.info("%s is checked again: %s", token.job_id, why)
            return
        path = self.home.run(token.job_id).crashes
        try:
            crashes = (durable.read_json(path) or {}).get("crashes", 0) + 1
        except ValueError:
            crashes = 1
        durable.write_json(path, {"v": 1, "crashes": crashes, "why": why})
        log.warning("%s: %s (%d of %d)", token.job_id, why, crashes, CRASHES)
        if crashes >= CRASHES:
            hint = "Its check.log holds the last words. Other jobs go on."
            if for_memory:
                hint = "Split the file, or free memory on the machine, then retry."
            code = "out_of_memory" if for_memory else "check_crashed"
            log_file = self.home.run(token.job_id).check_log
            seen = failure.explain_end(child.returncode, for_memory, log=log_file)["evidence"]
            message = f"{why}, {crashes} times in a row."
            error = {"code": code, "message": message, "hint": hint, "evidence": seen}
            conclude.end(self.home, token, State.CHECKING, State.FAILED, error)


def verdict(home: Home, job_id: str) -> dict[str, Any] | None:
    """The checking child's last word on a job: {"outcome": "passed" | "failed", "error"}, or None."""
    try:
        found = durable.read_json(home.run(job_id).checked)
    except ValueError:
        return None
    return found if isinstance(found, dict) and found.get("outcome") in ("passed", "failed") else None
