"""What must hold after a power cut: first of the tree as it is found, then of what a runner makes of it.

Each check gives sentences; none means that the promise was kept.
"""

import contextlib
import io
import json
import logging
import os
import signal
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from runner import checkpoint
from spool.health import heartbeat
from spool.protocol import jobs, metrics
from spool.protocol.home import FINAL, Home, State
from spool.protocol.states import Token, Tokens
from spool.protocol.ulid import is_ulid
from tests.power import life
from tests.power.child import SPEC_HASH

RECOVER_S = 15.0


class Promises:
    """What was promised or seen before the cut, by the jobs' names (ids may be minted anew)."""

    def __init__(self, marks: list[str], ids: dict[str, str]) -> None:
        self.kept: set[str] = set()
        self.ended: dict[str, str] = {}
        words = [mark.removeprefix("mark ").split() for mark in marks]
        for word in words:
            if is_ulid(word[0]):  # `submit` printed it
                self.kept.add(ids[word[0]])
            elif word[0] == "dropped":
                self.kept.add(word[1])
            elif word[0] == "ended":
                self.ended[word[1]] = word[2]
        self.kept |= set(self.ended)
        self.cancelled = ["cancelled", "unwanted"] in words
        self.held = ["held"] in words


def found(home: Home, promises: Promises) -> list[str]:
    """Looks at the tree before any runner does."""
    wrong = readers(home, [])
    for state in State:
        for token in Tokens(home).list(state):
            wrong += [f"{state}: {words}" for words in _job(home, state, token)]
    places: dict[str, list[str]] = {}
    for state in State:
        for token in Tokens(home).list(state):
            places.setdefault(token.job_id, []).append(state)
    wrong += [f"{job_id} is in {where}" for job_id, where in places.items() if len(where) > 1]
    for folder in home.rejected.glob("*") if home.rejected.is_dir() else ():
        if (folder / "dropped.json").exists():
            wrong += _whole(folder / "reason.json")
            if not (folder / "reason.txt").exists() or b"not accepted" not in (folder / "reason.txt").read_bytes():
                wrong.append(f"{folder.name}: reason.txt is not whole")
    if promises.held and not home.hold.exists():
        wrong.append("the queue was held and is not any more")
    there = _names(home)
    wrong += [f"the {name} job was promised and is gone" for name in sorted(promises.kept - set(there))]
    return wrong


def suspicious(home: Home) -> bool:
    """Whether a job lies in two places: a runner has to make one job of it."""
    there = _names(home)
    return len(there) != len(set(there))


def _names(home: Home) -> list[str]:
    """The name in every spec that lies whole in a place where a runner finds it; twice if it is in two."""
    runs = {t.job_id: home.run(t.job_id).spec for state in State for t in Tokens(home).list(state)}
    paths = [*runs.values(), *home.incoming.glob("[!.]*"), *home.accepting.glob("*.json")]
    found = []
    for path in [*paths, *home.rejected.glob("*/dropped.json")]:
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            found.append(json.loads(path.read_bytes())["name"])
    return found


def readers(home: Home, shown: list[str]) -> list[str]:
    """Nothing that people look through may raise. `shown`: the ids that `finetuner show` is tried with."""
    from spool.cli import main as cli

    def command(*words: str) -> Callable[[], Any]:
        def call() -> None:
            said = io.StringIO()
            with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
                code = cli.main(["--home", str(home.root), *words])
            if code not in (0, None) or "Traceback" in said.getvalue():
                raise AssertionError(f"exit code {code}: {said.getvalue()[-500:]}")

        return call

    calls: list[Callable[[], Any]] = [lambda: heartbeat.read(home), command("jobs", "--json")]
    for job in jobs.job_ids(home) if home.states.is_dir() else ():
        calls.append(lambda job=job: [metrics.read(home.run(job).metrics), metrics.last(home.run(job).events)])
        calls.append(lambda job=job: jobs.get_job(home, job))
    calls += [command("show", job, "--json") for job in shown]
    wrong = []
    for call in calls:
        try:
            call()
        except BaseException:
            wrong.append(f"a reader raised: {traceback.format_exc(limit=-4)}")
    return wrong


def _whole(path: Path) -> list[str]:
    """A file under its final name is there as a whole."""
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        return [f"{path.name} is not whole: {error!r}"]
    return [] if isinstance(document, dict) and document else [f"{path.name} is not whole: {document!r}"]


def _job(home: Home, state: State, token: Token) -> list[str]:
    """What a token's place promises about the files of its job."""
    run = home.run(token.job_id)
    wrong = _whole(home.state(state) / token.filename) + _whole(run.spec) + _whole(run.spec_orig)
    if run.attempts.is_dir():
        wrong += [words for path in run.attempts.glob("[0-9]*.json") for words in _whole(path)]
    for path in (run.checked, run.result, run.outcome):
        if path.exists():
            wrong += _whole(path)
    if state in (State.QUEUED, State.RUNNING, State.DONE) and not run.checked.exists():
        wrong.append("checked.json is gone")
    if state in FINAL:
        wrong += _whole(run.outcome)
        if not wrong and json.loads(run.outcome.read_bytes())["state"] != state:
            wrong.append("outcome.json tells another state")
    if state is State.DONE and not wrong:
        wrong += _whole(run.result)
        result = json.loads(run.result.read_bytes()) if not wrong else {}
        export = run.exports / "adapter" / "adapter.safetensors"
        name = json.loads(run.spec.read_bytes())["name"]
        if result.get("outcome") != "finished" or not export.exists() or export.read_bytes() != name.encode() * 100:
            wrong.append("a done job's result or export is not whole")
        if not any(checkpoint.problem(path, SPEC_HASH) is None for path in checkpoint.listed(run.checkpoints)):
            wrong.append("a done job has no checkpoint that verifies")
    return wrong


def recovered(home: Home, promises: Promises) -> list[str]:
    """Starts a runner over the tree and looks at where it ends."""
    before = {token.job_id: len(jobs.attempt_files(home, token.job_id)) for token in _with_result(home)}
    home.hold.unlink(missing_ok=True)
    log = home.root.with_name(f"{home.root.name}.log")
    pid = _start(home, log)
    try:
        wrong = _settle(home, pid)
    finally:
        os.kill(pid, signal.SIGTERM)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code != 0:
        wrong.append(f"the runner ended with {code}")
    said = log.read_text(errors="replace")
    if "Traceback" in said or "halted" in said:
        wrong.append("the runner broke or halted")
    if wrong:
        return [*wrong, said[-2500:]]
    wrong = readers(home, sorted(jobs.job_ids(home))[:3]) + _ends(home, promises)
    for job_id, attempts in before.items():
        if len(jobs.attempt_files(home, job_id)) != attempts:
            wrong.append(f"{job_id} had a result and was done again")
    for folder in (home.tmp, home.accepting, home.incoming):
        left = [name for name in os.listdir(folder) if not name.startswith(".")]
        wrong += [f"{folder.name} still holds {left}"] if left else []
    log.unlink()
    return wrong


def _with_result(home: Home) -> list[Token]:
    """Jobs whose last attempt left a result: there is nothing to do again."""
    tokens = [token for state in (State.RUNNING, State.DONE, State.FAILED) for token in Tokens(home).list(state)]
    return [token for token in tokens if home.run(token.job_id).result.exists()]


def _ends(home: Home, promises: Promises) -> list[str]:
    ends: dict[str, list[str]] = {}
    for state in State:
        for token in Tokens(home).list(state):
            name = json.loads(home.run(token.job_id).spec.read_bytes())["name"]
            ends.setdefault(name, []).append(state.value)
    for folder in home.rejected.iterdir():
        path = folder / "dropped.json"
        # the name in a spec that was torn cannot be told; nobody was promised anything about it then
        try:
            ends.setdefault(json.loads(path.read_bytes())["name"], []).append("rejected")
        except (OSError, ValueError):
            continue
    wrong = [f"the {name} job was promised and is gone" for name in promises.kept - ends.keys()]
    for name, states in ends.items():
        if len(states) != 1:
            wrong.append(f"the {name} job ended {len(states)} times: {states}")
        elif states[0] not in life.ENDS[name]:
            wrong.append(f"the {name} job ended as {states[0]}")
        elif promises.ended.get(name, states[0]) != states[0]:
            wrong.append(f"the {name} job was {promises.ended[name]} and is {states[0]}")
        wrong += [w for state in State for t in Tokens(home).list(state) for w in _job(home, state, t)][:3]
    if promises.cancelled and ends.get("unwanted") != ["cancelled"]:
        wrong.append(f"the unwanted job was cancelled and is {ends.get('unwanted')}")
    return wrong


def _start(home: Home, log: Path) -> int:
    """Forks a runner that is imported already: a fresh interpreter would take most of the time."""
    from runner import daemon

    pid = os.fork()
    if pid:
        return pid
    try:
        os.setsid()
        with open(log, "ab", buffering=0) as out:
            os.dup2(out.fileno(), 1)
            os.dup2(out.fileno(), 2)
        os.environ["POWER_IS_BACK"] = "1"
        logging.disable(logging.NOTSET)
        os.chdir(life.ROOT)
        os._exit(daemon.main(life.runner_arguments(home, "none")) or 0)
    except BaseException:
        with open(log, "a") as out:
            traceback.print_exc(file=out)
    finally:
        os._exit(70)


def _settle(home: Home, pid: int) -> list[str]:
    """Waits until nothing is left to do."""
    end = time.monotonic() + RECOVER_S
    while time.monotonic() < end:
        time.sleep(0.01)
        if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            return ["the runner ended by itself"]
        waiting = [state for state in State if state not in FINAL and Tokens(home).list(state)]
        drops = [n for f in (home.incoming, home.accepting) if f.is_dir() for n in os.listdir(f) if n[0] != "."]
        if home.runner_json.exists() and not waiting and not drops and _beat_of(home) == pid:
            return []
    return [f"not back to idle within {RECOVER_S:g} s: {waiting} {drops}"]


def _beat_of(home: Home) -> int | None:
    return heartbeat.read(home).pid
