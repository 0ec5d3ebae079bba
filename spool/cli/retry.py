"""`finetuner retry`: an ended job as a new one, with the same spec or the suggested one; every job ends once."""

import argparse

from spool.cli import show, submit, terminal, which
from spool.health import cures
from spool.protocol import dropbox, jobs
from spool.protocol.errors import FinetunerError
from spool.protocol.home import Home


def run(arguments: argparse.Namespace, home: Home) -> int:
    job_id = which.resolve(home, arguments.id)
    fresh = suggested(home, job_id) if arguments.suggested else dropbox.retry(home, job_id)
    submit.warn_without_runner(home)
    if arguments.json:
        terminal.print_json(show.document(home, jobs.get_job(home, fresh)))
    else:
        terminal.out(fresh)
    return 0


def suggested(home: Home, job_id: str) -> str:
    """Shows what differs, then drops it; asked for again, it gives the job that it became.

    Raises:
        FinetunerError: there is nothing to suggest.
    """
    job = jobs.get_job(home, job_id)
    made = cures.suggestion(home, job)
    if made is None:
        error = job.error or {}
        message = f"there is no change to suggest for job {job_id}: it is {job.state}."
        hint = str(error.get("hint") or f"`finetuner retry {job_id}` runs it again as it is, once it has ended.")
        raise FinetunerError(message, hint, "no_suggestion")
    for line in show.difference(made):
        terminal.say(line)
    return cures.submit(home, job_id, made)
