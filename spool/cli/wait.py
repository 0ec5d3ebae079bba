"""`finetuner wait`: returns when the jobs it is given have ended, or when its time is over. Scripts need no loop."""

import argparse
import math
import time
from contextlib import suppress
from pathlib import Path

from spool.cli import control, show, submit, terminal, which
from spool.health import heartbeat
from spool.protocol import durable, jobs
from spool.protocol.home import Home
from spool.protocol.jobs import Job

POLL_S = 0.3
BUSY = 5
"""Between two looks at many jobs lies so many times what a look takes."""
TIMED_OUT = 124
"""As of timeout(1)."""


class TimeIsOver(Exception):
    """What was waited for has not come in time."""


def run(arguments: argparse.Namespace, home: Home) -> int:
    until = None if arguments.timeout is None else time.monotonic() + arguments.timeout
    ended: dict[str, Job] = {}
    wanted: list[str] = []
    try:
        wanted += dict.fromkeys(find(home, name, until) for name in arguments.id)
        follow(home, wanted, until, ended, quiet=arguments.json)
    except TimeIsOver as over:
        terminal.complain(f"not within {arguments.timeout:g} s: {over}", "Nothing was stopped; wait again.")
        code = TIMED_OUT
    else:
        code = max(submit.EXIT[job.state] for job in ended.values())
    if arguments.json:
        found = [ended.get(job_id) or jobs.get_job(home, job_id) for job_id in wanted]
        terminal.print_json([show.document(home, job) for job in found])
    return code


def find(home: Home, name: str, until: float | None) -> str:
    """The id of a job. A drop of that name that still lies in incoming/ is meant before any older one.

    Raises:
        NotFound: there is nothing of that name.
        TimeIsOver: it has not been taken in time.
    """
    warn = True
    while on_its_way(home, name):
        warn = warn_once(home, warn)
        pause(until, f"{name} lies in {home.incoming} and has not been taken", POLL_S)
    return which.resolve(home, name)


def on_its_way(home: Home, name: str) -> bool:
    """Whether a drop of that name waits to be judged."""
    if not name or Path(name).name != name:
        return False
    if (home.incoming / name).exists():
        return True
    for note in home.accepting.glob("*.from"):
        with suppress(OSError, ValueError):
            if (durable.read_json(note) or {}).get("dropped_name") == name:
                return True
    return False


def follow(home: Home, wanted: list[str], until: float | None, ended: dict[str, Job], quiet: bool) -> None:
    """Fills `ended` as the jobs end; tells of each change on stderr, and of each end on stdout unless `quiet`."""
    told: dict[str, str] = {}
    warn = True
    while True:
        began = time.monotonic()
        for job_id in wanted:
            if job_id in ended:
                continue
            job = jobs.get_job(home, job_id)
            if job.ended:
                ended[job_id] = job
                terminal.say(submit.ending(job))
                if not quiet:
                    terminal.out(f"{job_id} {job.state}")
            elif told.get(job_id) != job.state:
                told[job_id] = job.state
                held = f"; `finetuner release {job_id}` lets it go on" if job.state == "held" else ""
                terminal.say(f"{job_id} is {job.state}{held}.")
        left = [job_id for job_id in wanted if job_id not in ended]
        if not left:
            return
        warn = warn_once(home, warn)
        pause(until, f"{', '.join(left[:3])}{' ...' if len(left) > 3 else ''}", BUSY * (time.monotonic() - began))


def warn_once(home: Home, warn: bool) -> bool:
    """Says that no runner is alive, or that it holds the queue; gives whether to say so should it come again."""
    beat = heartbeat.read(home)
    if beat.alive and not beat.halted:
        return True
    if warn and not beat.alive:
        control.warn_without_runner(home, "what waits goes on when one starts")
    elif warn:
        terminal.say(f"The runner holds the queue: {beat.halted}.")
    return False


def pause(until: float | None, what: str, longest_s: float) -> None:
    """Sleeps until the next look. Raises TimeIsOver, with what is missing, where no time is left."""
    left = math.inf if until is None else until - time.monotonic()
    if left <= 0:
        raise TimeIsOver(what)
    time.sleep(min(max(POLL_S, longest_s), left))
