"""`finetuner delete`: asks the runner to remove the exports and checkpoints of ended jobs; their records stay."""

import argparse
import getpass
import time
from datetime import datetime
from pathlib import Path

from spool.cli import control, terminal, which, words
from spool.health.disk import size, tree
from spool.protocol import jobs, notes, removed
from spool.protocol.errors import FinetunerError
from spool.protocol.home import Home
from spool.protocol.jobs import Job

KEEP = "keep"
"""Jobs with this tag are never among the old ones."""
DAY_S = 86_400.0


def run(arguments: argparse.Namespace, home: Home) -> int:
    if arguments.id is None:
        return _old_ones(arguments, home)
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


def _old_ones(arguments: argparse.Namespace, home: Home) -> int:
    """For a disk that fills: all at once, by hand or from a timer. What a waiting job names is left."""
    needed = frozenset().union(*removed.needs(home, Path.cwd()).values())
    kept = {job_id for job_id, note in notes.read_all(home).items() if KEEP in note.tags}
    before = time.time() - arguments.older_than * DAY_S
    found = [job for job in jobs.list_jobs(home) if _ended(job) < before and job.id not in needed | kept]
    runs = {job.id: home.run(job.id) for job in found}
    sizes = {job_id: taken for job_id, run in runs.items() if (taken := tree(run.exports) + tree(run.checkpoints))}
    found = [job for job in found if job.id in sizes]
    if arguments.json:
        terminal.print_json([{**job.to_json(), "bytes": sizes[job.id]} for job in found])
    elif found:
        rows = [
            (job.id, terminal.shorten(job.name, 40), words.local_time(job.ended_at), size(sizes[job.id]))
            for job in found
        ]
        terminal.table(("ID", "NAME", "ENDED", "FREES"), rows)
    if not found:
        terminal.say(f"No job that ended more than {arguments.older_than:g} days ago has files to delete.")
        return 0
    total = f"{len(found)} job(s), {size(sum(sizes.values()))}"
    if not arguments.yes:
        hint = f"Nothing was deleted: say --yes to delete them. The tag {KEEP!r} on a job keeps it."
        raise FinetunerError(f"the exports and checkpoints of {total} would go for ever.", hint, "not_confirmed")
    for job in found:
        try:
            removed.ask(home, job.id, getpass.getuser(), Path.cwd())
        except FinetunerError as error:  # since it was listed somebody has named it, or deleted it
            terminal.complain(error.message, error.hint)
    terminal.say(f"{total}: exports and checkpoints will be deleted; spec, metrics, log and outcome stay.")
    control.warn_without_runner(home)
    return 0


def _ended(job: Job) -> float:
    if not job.ended or not job.ended_at:
        return float("inf")
    return datetime.fromisoformat(job.ended_at).timestamp()
