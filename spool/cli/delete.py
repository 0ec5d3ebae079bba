"""`finetuner delete`: asks the runner to remove the exports and checkpoints of an ended job; its record stays."""

import argparse
import getpass
from pathlib import Path

from spool.cli import control, terminal, which
from spool.protocol import jobs, removed
from spool.protocol.errors import FinetunerError
from spool.protocol.home import Home


def run(arguments: argparse.Namespace, home: Home) -> int:
    job_id = which.resolve(home, arguments.id)
    job = jobs.get_job(home, job_id)
    if not arguments.yes:
        message = f"the exports and checkpoints of {terminal.one_line(job.name)} ({job_id}) would go for ever."
        raise FinetunerError(message, "Nothing was deleted: say --yes to delete them.", "not_confirmed")
    removed.ask(home, job_id, getpass.getuser(), Path.cwd())
    terminal.say(f"{job_id}: its exports and checkpoints will be deleted; spec, metrics, log and outcome stay.")
    control.warn_without_runner(home)
    if arguments.json:
        terminal.print_json(job.to_json())
    return 0
