"""`finetuner priority`: another priority for a job that waits or is held, from 0 (first) to 9."""

import argparse

from spool.cli import control, terminal, which
from spool.protocol import dropbox, jobs
from spool.protocol.home import Home


def run(arguments: argparse.Namespace, home: Home) -> int:
    job_id = which.resolve(home, arguments.id)
    dropbox.control(home, "priority", job_id, arguments.priority)
    terminal.say(f"{job_id} will have priority {arguments.priority}.")
    control.warn_without_runner(home)
    if arguments.json:
        terminal.print_json(jobs.get_job(home, job_id).to_json())
    return 0
