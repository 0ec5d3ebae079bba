"""`finetuner jobs`: the queue and the history, oldest first."""

import argparse

from spool.cli import terminal, words
from spool.protocol import jobs
from spool.protocol.home import Home

NAME_WIDTH = 40


def run(arguments: argparse.Namespace, home: Home) -> int:
    found = jobs.list_jobs(home, arguments.state)
    if arguments.json:
        terminal.print_json([job.to_json() for job in found])
        return 0
    if not found:
        of_state = f" {arguments.state}" if arguments.state else ""
        where = "" if home.spool.is_dir() else " (there is no data home yet; --home DIR names another)"
        terminal.say(f"No{of_state} jobs in {home.root}{where}.")
        return 0
    rows = [
        (
            job.id,
            terminal.shorten(job.name, NAME_WIDTH),
            job.state,
            words.progress(job),
            words.local_time(job.submitted_at),
            words.age(job.submitted_at),
        )
        for job in found
    ]
    terminal.table(("ID", "NAME", "STATE", "PROGRESS", "SUBMITTED", "AGE"), rows)
    return 0
