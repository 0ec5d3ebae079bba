"""Runs the suite and prints its table; exits 1 when anything failed or a planted bug was not caught.

Run as: python -m tests.faults [--short] [--seed N] [--only REGEX] [--workers N]        (or: make faults)
"""

import argparse
import platform
import re
import signal
import subprocess
import sys
import time
from functools import partial

from tests.faults import box, odd, order, points, storm
from tests.faults.planted import BUGS
from tests.faults.report import Case, Report

CATCHERS: dict[str, Case] = {
    "lock_not_inherited": odd.orphan_is_waited_for,
    "copied": order.check,
    "unlinked_first": partial(points.kill_where, "openat", "/state/queued", 3),
    "blind_requeue": odd.result_before_the_end,
    "deletes_halves": odd.slow_drop,
    "files_not_synced": order.check,
    "folders_not_synced": order.check,
    "acknowledged_early": odd.submitter_killed,
    "take_forgotten": partial(points.kill_where, "rename", "/state/tmp", 3),
    "never_poison": odd.poison,
    "moved_twice": order.check,
    "no_patience": odd.rewritten_drop,
    "wall_clock_sequence": odd.clocks,
    "swallowed_fsync": partial(points.persist, "fsync", 3, "EIO"),
    "second_runner": odd.frozen,
    "crash_retold": partial(points.kill_where, "rename", "/state/running/", 12),
    "resume_blindly": odd.damaged_checkpoint,
}
"""Bug -> the case of the suite that must fail when it is planted, and does not fail otherwise."""


def caught(bug: str) -> tuple[bool, list[str]]:
    _, wrong = CATCHERS[bug](bug=bug)  # type: ignore[call-arg]
    print(f"planted: {BUGS[bug].words}. Seen: {wrong[0] if wrong else 'nothing'}"[:300], file=sys.stderr, flush=True)
    return bool(wrong), [] if wrong else [f"not caught: {BUGS[bug].words}"]


def suite(report: Report, short: bool, seed: int, only: str) -> None:
    def run(name: str, cases: list[tuple[str, Case]]) -> None:
        if re.search(only, name):
            report.run(name, cases)

    found = points.survey()
    kills = points.pick(found, 24, seed) if short else points.thinned(found, 12)
    run("killed at a system call", [(_label(point), partial(points.kill_at, point)) for point in kills])
    may_fail = [point for point in found if point.name in points.FAILING or point.name in points.FORKS]
    for error in (*points.ERRORS, *points.RARE):
        rare = error in points.RARE
        chosen = points.pick(may_fail, 4 if rare else 10, seed) if short else may_fail
        chosen = points.pick(may_fail, 20, seed) if rare and not short else chosen
        run(f"one system call fails: {error}", [(_label(p), partial(points.fail_at, p, error)) for p in chosen])
    failing = {
        name: [p.nth for p in found if p.name == name] for name in ("fsync", "rename", "write", "mkdir", "openat")
    }
    early, late = ([(name, nths[len(nths) * part // 10]) for name, nths in failing.items()] for part in (1, 6))
    lasting = early[:3] if short else early + late
    errors = ("ENOSPC",) if short else (*points.ERRORS, *points.RARE)
    cases = [(f"{n} {i} {e}", partial(points.persist, n, i, e)) for n, i in lasting for e in errors]
    run("all calls of a name fail until the runner has said why", cases)
    run("the order of fsyncs", [("a life cycle", order.check)] * (1 if short else 5))
    run("cases of their own", list(odd.CASES.items()))
    seeds = range(seed, seed + (2 if short else 56))
    struck = []

    def storm_case(number: int) -> tuple[bool, list[str]]:
        count, wrong = storm.storm(number)
        struck.append(count)
        return True, wrong

    run("random kills, 25 a home", [(f"seed {n}", partial(storm_case, n)) for n in seeds])
    if struck:
        report.rows[-1].name += f": {sum(struck)} kills"
    run("planted bugs caught", [(bug, partial(caught, bug)) for bug in BUGS])


def _label(point: points.Point) -> str:
    return f"{point.name} {point.nth} {point.what}"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description="Breaks the runner on purpose.")
    parser.add_argument("--short", action="store_true", help="a sample with a fixed seed, as CI runs it")
    parser.add_argument("--seed", type=int, default=20261122)
    parser.add_argument("--only", default="", help="only the rows whose names match this expression")
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args(argv)
    try:
        version = subprocess.run(["strace", "-V"], capture_output=True, text=True, check=True).stdout.split("\n")[0]
    except OSError:
        print("strace is not there: install it (apt-get install strace), then run this again.", file=sys.stderr)
        return 2
    report, began = Report(arguments.workers), time.monotonic()
    try:
        suite(report, arguments.short, arguments.seed, arguments.only)
    finally:
        box.close_zygotes()
    python = platform.python_version()
    print(f"seed {arguments.seed}, Python {python}, Linux {platform.release()}, {version}")
    print(report.table())
    print(f"{time.monotonic() - began:.0f} s; {'FAILED' if report.failures else 'all held'}")
    return 1 if report.failures else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is ended
    sys.exit(main())
