"""Random kills with fixed seeds: the runner, the trainer, or both, while jobs come in."""

import os
import random
import signal
import time

from spool.protocol import dropbox
from spool.protocol.errors import FinetunerError
from tests.faults.box import Box, Late, Process, fresh_box, wait_until
from tests.faults.oracle import Oracle

KILLS = 25
"""A home; more homes of fewer kills look at more beginnings and ends than one of many."""


def storm(seed: int, kills: int = KILLS, bug: str | None = None) -> tuple[int, list[str]]:
    """(kills that struck, what was wrong)."""
    wrong: list[str] = []
    source = random.Random(seed)
    struck = 0
    with fresh_box(bug, wrong) as box:
        oracle = Oracle(box)
        daemon = box.start()
        try:
            for number in range(kills):
                _drop(box, source, number)
                time.sleep(source.uniform(0.0, 0.25))
                struck += _kill(box, daemon, source)
                if not daemon.alive:
                    oracle.observe()
                    daemon = box.start()
            wait_until(lambda: box.idle(daemon))
            if daemon.end(signal.SIGTERM) != 0:
                wrong.append(f"the runner ended with {daemon.code} when it was asked to stop")
        except Late as late:
            wrong.append(f"I5: {late} (status {box.status()}, tokens {box.tokens()})")
        wrong += oracle.verdict()
        if wrong:
            wrong.append(f"runner.log: {box.log.read_text()[-2500:]}")
    return struck, wrong


def _drop(box: Box, source: random.Random, number: int) -> None:
    """Now and then a job comes in, and now and then one that waits is cancelled."""
    if number % 3 == 0:
        box.submit(f"ok {source.choice([2, 6, 13])}")
    elif number % 12 == 1:
        box.submit("fail", "failed")
    elif number % 12 == 4:
        box.submit("crash", "failed")
    elif number % 12 == 7:
        job_id = box.submit("long", "cancelled")
        try:
            dropbox.cancel(box.home, job_id)
        except FinetunerError as error:
            raise AssertionError(f"the job that was just submitted cannot be cancelled: {error}") from None
    elif number % 12 == 10:
        box.refuse(f"wrong {number}.json", f'{{"schema": 1, "modle": {number}}}'.encode())


def _kill(box: Box, daemon: Process, source: random.Random) -> bool:
    """Kills one or both; False where there was nothing to kill."""
    what = source.choice(["runner", "runner", "trainer", "both"])
    trainers = box.live_trainers() if what != "runner" else []
    victims = [*([daemon.pid] if what != "trainer" and daemon.alive else []), *trainers]
    for pid in victims:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    if what != "trainer":
        wait_until(lambda: not daemon.alive)
    return bool(victims)
