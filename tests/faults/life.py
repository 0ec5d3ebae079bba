"""One life cycle of three jobs, driven from outside.

One is done, one crashes by itself until it is given up, one is cancelled while it runs. Beside them lie a spec that is
wrong and a file that is no JSON. Whenever the daemon dies, a fresh one is started.
"""

from collections.abc import Callable

from spool.protocol import dropbox, durable
from spool.protocol.errors import FinetunerError
from spool.protocol.home import State
from spool.protocol.ulid import mint
from tests.faults.box import Box, Late, Process, wait_until
from tests.faults.oracle import Oracle

STARTS = 30
"""A job that no kill disturbs so often and that still is not done never ends."""

DEATHS = 5


def fill(box: Box) -> str:
    """Drops all; gives the id of the job that is to be cancelled while it runs."""
    box.submit("ok 6")
    box.submit("crash", "failed")
    long = box.submit("long", "cancelled")
    box.refuse("wrong.json", durable.to_bytes(box.spec("x", modle="m")))
    box.refuse(f"{mint()}.json", b'{"schema": 1, "model": ')
    return long


def drive(box: Box, oracle: Oracle, daemon: Process, long: str, restart: Callable[[], Process] | None = None) -> int:
    """Until all is quiet; gives how many daemons died. Raises Late when the work does not come to an end."""
    deaths = 0
    asked = False
    latest = daemon

    def quiet() -> bool:
        """all jobs have ended and the runner is ready"""
        nonlocal asked, latest, deaths
        if not latest.alive:
            deaths += 1
            if deaths > DEATHS:
                raise Late(f"the runner ended {deaths} times, last with code {latest.code}")
            oracle.observe()
            latest = (restart or box.start)()
        if not asked and box.state(long) is State.RUNNING and box.step(long) >= 3:
            try:
                dropbox.cancel(box.home, long)
                asked = True
            except FinetunerError:
                pass  # it was put back into the queue just now
        if len([words for words in box.said() if words[0] == "start"]) > STARTS + 10 * deaths:
            raise Late(f"a job is started again and again ({STARTS} times)")
        return box.idle(latest)

    wait_until(quiet)
    code = latest.end(15)
    if code == -9:  # the point lay in its stopping
        wait_until(quiet)
        code = latest.end(15)
    if code != 0:
        oracle.wrong.append(f"the runner ended with code {code} when it was asked to stop")
    return deaths
