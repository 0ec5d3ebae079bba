"""`finetuner status`: the server in a few lines, for people and for monitoring; exit code 1 where nothing works."""

import argparse

from spool.cli import terminal
from spool.health import status
from spool.health.disk import size
from spool.protocol.home import Home


def run(arguments: argparse.Namespace, home: Home) -> int:
    found = status.look(home)
    if arguments.json:
        terminal.print_json(found.to_json())
    elif arguments.metrics:
        terminal.out(found.to_metrics())
    else:
        jobs = ", ".join(f"{count:,} {state}" for state, count in found.jobs.items() if count)
        pairs = [
            ("runner", found.runner + (f": {found.reason}" if found.reason else "")),
            ("job", found.current_job),
            ("queue", found.queue),
            ("jobs", jobs or "none"),
            ("disk", f"{size(found.disk_free_bytes)} of {size(found.disk_total_bytes)} free"),
        ]
        terminal.fields(pairs)
        if not found.ok:
            terminal.say("`finetuner doctor` says what to do about it.")
    return int(not found.ok)
