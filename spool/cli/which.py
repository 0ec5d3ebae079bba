"""Which job somebody means: by its id or a beginning of it, its submission_id, or the name of the dropped file."""

from spool.cli import terminal
from spool.protocol import dropbox, jobs
from spool.protocol.errors import NotFound
from spool.protocol.home import Home


def resolve(home: Home, text: str) -> str:
    """The whole id of a job.

    Of several drops with one name the newest is meant, and that is said.

    Raises:
        NotFound: nothing is called so, or several ids begin so.
    """
    wanted = text.strip().upper()
    ids = jobs.job_ids(home)
    if wanted in ids:
        return wanted
    submitted = dropbox.submitted(home, text)
    if submitted in ids:
        return str(submitted)
    found = sorted(job_id for job_id in ids if wanted and job_id.startswith(wanted))
    if len(found) == 1:
        return found[0]
    if found:
        shown = ", ".join(found[:5]) + (" ..." if len(found) > 5 else "")
        raise NotFound(f"{len(found)} jobs begin with {text!r}: {shown}", "Give more of the id.", "ambiguous")
    return _named(home, text)


def _named(home: Home, text: str) -> str:
    """The newest job that was dropped under this name, or that says this submission_id (one that was rejected)."""
    named = [job for job in jobs.list_jobs(home) if text and text in (job.dropped_name, job.submission_id)]
    if named:
        if len(named) > 1:
            terminal.say(f"{text[:40]!r} is {named[-1].id}, the newest of {len(named)} drops of that name.")
        return named[-1].id
    raise NotFound(f"there is no job {text[:40]!r} in {home.root}.", "`finetuner jobs` lists them.")
