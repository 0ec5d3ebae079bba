"""`finetuner retry`: the same spec as a new job; every job ends once."""

import argparse

from spool.cli import submit, terminal, which
from spool.protocol import dropbox, jobs
from spool.protocol.home import Home


def run(arguments: argparse.Namespace, home: Home) -> int:
    job_id = dropbox.retry(home, which.resolve(home, arguments.id))
    submit.warn_without_runner(home)
    if arguments.json:
        terminal.print_json(jobs.get_job(home, job_id).to_json())
    else:
        terminal.out(job_id)
    return 0
