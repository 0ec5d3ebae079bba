"""The cases of their own: start-ups killed in a row, clocks that jump, frozen runners, lost locks, slow drops."""

import errno
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from spool.protocol import durable
from spool.protocol.home import State
from spool.protocol.ulid import mint
from tests.faults.box import Box, Late, Process, fresh_box, wait_until
from tests.faults.oracle import Oracle

Outcome = tuple[bool, list[str]]


@contextmanager
def _scene(bug: str | None) -> Iterator[tuple[Box, Oracle, list[str]]]:
    """A box whose verdict is added to the list at the end; what comes late is told, not raised."""
    wrong: list[str] = []
    with fresh_box(bug, wrong) as box:
        oracle = Oracle(box)
        try:
            yield box, oracle, wrong
        except Late as late:
            wrong.append(f"I5: {late} (status {box.status()}, tokens {box.tokens()})")
        wrong += oracle.verdict()
        if wrong:
            wrong.append(f"runner.log: {box.log.read_text()[-2000:]}")


def _finish(box: Box, daemon: Process) -> None:
    wait_until(lambda: box.idle(daemon))
    daemon.end(signal.SIGTERM)


def _running(box: Box, name: str, must_end: str = "done") -> tuple[str, Process]:
    """A daemon whose trainer has made some steps."""
    job_id = box.submit(name, must_end)
    daemon = box.start()
    wait_until(lambda: box.step(job_id) >= 6)
    return job_id, daemon


def orphan_is_waited_for(bug: str | None = None) -> Outcome:
    """The runner alone is killed: the next one waits for the trainer that lives on and starts none beside it."""
    with _scene(bug) as (box, oracle, wrong):
        job_id, daemon = _running(box, "ok 400")
        later = box.submit("ok 2")
        daemon.end()
        second = box.start()

        def waits() -> bool:
            """the new runner waits for the trainer of the old one"""
            if any(words[0] == "overlap" for words in box.said()):
                raise Late("I3: it does not wait")
            return box.status().get("pid") == second.pid and box.status().get("state") == "waiting"

        wait_until(waits)
        oracle.observe()
        _finish(box, second)
        starts = [words[1] for words in box.said() if words[0] == "start"]
        if starts != [job_id, later]:
            wrong.append(f"I3: the trainers were started as {starts}")
    return True, wrong


def result_before_the_end(bug: str | None = None) -> Outcome:
    """The runner is killed while the trainer works, the trainer ends, and only then a new runner comes."""
    with _scene(bug) as (box, _, wrong):
        job_id, daemon = _running(box, "ok 40")
        daemon.end()
        wait_until(lambda: ["result", job_id] in [words[:2] for words in box.said()] and not box.live_trainers())
        _finish(box, box.start())
    return True, wrong


def trainer_killed(bug: str | None = None) -> Outcome:
    """The trainer alone, three times: never counted against the job, resumed from its checkpoint each time."""
    with _scene(bug) as (box, _, wrong):
        job_id, daemon = _running(box, "ok 900")
        for attempt in (1, 2, 3):
            wait_until(lambda n=attempt: [words[2] for words in box.said() if words[0] == "start"].count(str(n)) == 1)
            before = box.step(job_id)
            wait_until(lambda n=before: box.step(job_id) >= n + 6)
            for pid in box.live_trainers():
                os.kill(pid, signal.SIGKILL)
        wait_until(lambda: len([words for words in box.said() if words[0] == "start"]) == 4)
        _finish(box, daemon)
        resumed = [words for words in box.said() if words[0].startswith("resumed-")]
        if len(resumed) != 3:
            wrong.append(f"3 resumptions were due: {resumed}")
        records = [durable.read_json(path) for path in sorted(box.home.run(job_id).attempts.glob("*.json"))]
        if [record["outcome"] for record in records] != ["interrupted"] * 3 + ["finished"]:
            wrong.append(f"the attempts are told as {[record['outcome'] for record in records]}")
    return True, wrong


def both_killed(bug: str | None = None) -> Outcome:
    """Runner and trainer at once, as a cgroup kill does."""
    with _scene(bug) as (box, oracle, wrong):
        _, daemon = _running(box, "ok 200")
        for pid in (daemon.pid, *box.live_trainers()):
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not daemon.alive)
        oracle.observe()
        _finish(box, box.start())
    return True, wrong


def damaged_checkpoint(bug: str | None = None) -> Outcome:
    """The newest checkpoint is damaged while nothing runs: the one before it is resumed from, to the same end."""
    with _scene(bug) as (box, _, wrong):
        job_id, daemon = _running(box, "ok 120")
        wait_until(lambda: box.step(job_id) >= 20)
        for pid in (daemon.pid, *box.live_trainers()):
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not daemon.alive)
        whole = [p for p in box.home.run(job_id).checkpoints.glob("checkpoint-*") if (p / "COMPLETE.json").exists()]
        newest = max(whole, key=lambda path: int(path.name.rpartition("-")[2]))
        word, _, state = (newest / "state").read_text().partition(" ")
        (newest / "state").write_text(f"{word} {state[::-1]}")
        _finish(box, box.start())
        if newest.exists() and not list(newest.parent.glob("*incomplete*")):
            wrong.append("the damaged checkpoint was not set aside")
    return True, wrong


def startups_killed(bug: str | None = None, times: int = 20) -> Outcome:
    """Runners killed at ever later calls of their start-up, over the same leavings: a start-up is idempotent."""
    with _scene(bug) as (box, oracle, wrong):
        _, daemon = _running(box, "ok 60")
        for pid in (daemon.pid, *box.live_trainers()):
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not daemon.alive)
        taken = mint()
        data = durable.to_bytes(box.spec("ok 3"))
        (box.home.accepting / f"{taken}.json").write_bytes(data)
        box.dropped[taken] = (data, "done")
        (box.home.tmp / "half").write_text("x")
        box.refuse("wrong.json", b'{"schema": 1, "modle": 1}')
        struck = 0
        for number in range(times):
            name, nth = [("openat", 4 + 3 * number), ("rename", 1 + number // 6), ("fsync", 1 + number // 6)][
                number % 3
            ]
            victim = box.start(inject=f"{name}:signal=KILL:when={nth}")
            wait_until(lambda v=victim: not v.alive or box.idle(v))
            struck += victim.code == -9
            victim.end()
            oracle.observe()
        _finish(box, box.start())
        if struck < times // 2:
            wrong.append(f"the suite itself: only {struck} of {times} start-ups were struck")
    return True, wrong


def clocks(bug: str | None = None) -> Outcome:
    """A year ahead, then an hour back: jobs of one priority run in the order of their arrival."""
    with _scene(bug) as (box, _, wrong):
        blocker = box.submit("long", "cancelled")
        order = []
        for offset_s in (365 * 86_400.0, 0.0, -3600.0):
            daemon = box.start(clock_s=offset_s)
            wait_until(lambda: box.state(blocker) is State.RUNNING)
            order.append(box.submit("ok 2"))
            wait_until(lambda: box.state(order[-1]) is State.QUEUED)
            daemon.end(signal.SIGTERM)
        (box.home.control / f"cancel-{blocker}").touch()
        _finish(box, box.start(clock_s=-3600.0))
        starts = [words[1] for words in box.said() if words[0] == "start" and words[1] != blocker]
        if starts != order:
            wrong.append(f"dropped as {order}, begun as {starts}")
    return True, wrong


def frozen(bug: str | None = None) -> Outcome:
    """SIGSTOP: the lock stays held, a second runner leaves with 75, and what was dropped meanwhile is found."""
    with _scene(bug) as (box, _, wrong):
        daemon = box.start()
        wait_until(lambda: box.idle(daemon))
        os.kill(daemon.pid, signal.SIGSTOP)
        box.submit("ok 3")
        second = box.start()
        try:
            wait_until(lambda: not second.alive, 10)
        except Late:
            wrong.append("a second runner stays although the first one lives")
            second.end()
        if second.code not in (75, -9):
            wrong.append(f"the second runner ended with {second.code}")
        os.kill(daemon.pid, signal.SIGCONT)
        _finish(box, daemon)
    return True, wrong


def locks_deleted(bug: str | None = None) -> Outcome:
    """Somebody deletes the lock files while all is at work: still one runner, still one trainer."""
    with _scene(bug) as (box, _, wrong):
        box.submit("ok 2")
        _, daemon = _running(box, "ok 200")
        for lock in (box.home.runner_lock, box.home.gpu_lock):
            lock.unlink(missing_ok=True)
        second = box.start()
        try:
            wait_until(lambda: not second.alive, 10)
        except Late:
            wrong.append("I3: a second runner works beside the first one")
            second.end()
        daemon.end()  # and now the orphan alone holds what is left of the lock
        _finish(box, box.start())
    return True, wrong


def no_locks(bug: str | None = None) -> Outcome:
    """A file system that knows no locks: no trainer is started, the reason is told, no soft lock takes their place."""
    with _scene(bug) as (box, _, wrong):
        box.submit("ok 2")
        daemon = box.start(inject="flock:error=ENOSYS")
        wait_until(lambda: not daemon.alive or box.status().get("halted"))
        said = box.log.read_text() + json.dumps(box.status())
        if daemon.alive:
            daemon.end(signal.SIGTERM)
        elif daemon.code not in (75, 78):
            wrong.append(f"the runner ended with {daemon.code}")
        if os.strerror(errno.ENOSYS) not in said and "lock" not in said:
            wrong.append("the runner does not say that the locks do not work")
        if box.said():
            wrong.append("I3: a trainer was started without a lock")
        _finish(box, box.start())
    return True, wrong


def slow_drop(bug: str | None = None) -> Outcome:
    """A copy that takes its time: neither taken nor rejected nor deleted while it grows."""
    with _scene(bug) as (box, _, wrong):
        daemon = box.start()
        data = durable.to_bytes(box.spec("ok 2"))
        job_id = mint()
        box.dropped[job_id] = (data, "done")
        with open(box.home.incoming / f"{job_id}.json", "wb", buffering=0) as file:
            for start in range(0, len(data), 12):
                file.write(data[start : start + 12])
                time.sleep(0.03)
        _finish(box, daemon)
    return True, wrong


def rewritten_drop(bug: str | None = None) -> Outcome:
    """A drop that is whole each time it is looked at and still changes: what counts is how it was left."""
    with _scene(bug) as (box, _, wrong):
        daemon = box.start()
        wait_until(lambda: box.idle(daemon))
        job_id = mint()
        with open(box.home.incoming / f"{job_id}.json", "wb", buffering=0) as file:
            for steps in range(2, 12):
                data = durable.to_bytes(box.spec(f"ok {steps}"))
                box.dropped[job_id] = (data, "done")
                os.pwrite(file.fileno(), data, 0)
                os.ftruncate(file.fileno(), len(data))
                time.sleep(0.025)
        _finish(box, daemon)
    return True, wrong


def poison(bug: str | None = None) -> Outcome:
    """A job that crashes by itself stops after three attempts, and the next one runs."""
    with _scene(bug) as (box, _, wrong):
        job_id = box.submit("crash", "failed")
        box.submit("ok 2")
        daemon = box.start()

        def over() -> bool:
            """the crashing job is given up"""
            if len([words for words in box.said() if words[:2] == ["crash", job_id]]) > 6:
                raise Late("it crashes on and on")
            return box.idle(daemon)

        wait_until(over)
        daemon.end(signal.SIGTERM)
    return True, wrong


def submitter_killed(bug: str | None = None) -> Outcome:
    """`finetuner submit` killed at each call that changes something: an id that was printed is a job, one that was not
    is at most a job more."""
    wrong: list[str] = []
    for name, most in (("rename", 1), ("fsync", 2), ("write", 4)):
        for nth in range(1, most + 1):
            with _scene(bug) as (box, _, found):
                file = box.folder / "spec.json"
                data = durable.to_bytes(box.spec("ok 2"))
                file.write_bytes(data)
                said = box.folder / "submit.out"
                argv = ["--home", str(box.home.root), "submit", str(file)]
                submitter = box.start(inject=f"{name}:signal=KILL:when={nth}", what="finetuner", argv=argv, log=said)
                wait_until(lambda s=submitter: not s.alive)
                told = [word for word in said.read_text().split() if len(word) == 26]
                there = [path.stem for path in box.home.incoming.glob("[!.]*.json")]
                for job_id in dict.fromkeys([*told, *there]):
                    box.dropped[job_id] = (data, "done")
                box.bug = None
                daemon = box.start()
                if told and not there:
                    found.append(f"I1: {told[0]} was printed and is nowhere ({name} {nth})")
                    box.dropped.clear()
                _finish(box, daemon)
            wrong += found
    return True, wrong


CASES: dict[str, Callable[..., Outcome]] = {
    "runner killed, orphan waited for (4)": orphan_is_waited_for,
    "runner killed, result left behind (5)": result_before_the_end,
    "trainer killed three times (6)": trainer_killed,
    "both killed at once (7)": both_killed,
    "20 start-ups killed in a row (8)": startups_killed,
    "crash loop (9)": poison,
    "no locks on the file system (11)": no_locks,
    "lock files deleted (12)": locks_deleted,
    "runner frozen, second runner refused (10, 20)": frozen,
    "clocks jump (21)": clocks,
    "slow copy (23)": slow_drop,
    "drop rewritten in place (27)": rewritten_drop,
    "damaged checkpoint (53)": damaged_checkpoint,
    "submit killed at each call": submitter_killed,
}
