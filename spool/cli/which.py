"""Which job an id on the command line means: any unique beginning of the id will do."""

from spool.protocol import jobs
from spool.protocol.errors import NotFound
from spool.protocol.home import Home


def resolve(home: Home, text: str) -> str:
    """The whole id of a job from any unique beginning of it.

    Raises:
        NotFound: none begins so, or several do.
    """
    wanted = text.strip().upper()
    ids = jobs.job_ids(home)
    if wanted in ids:
        return wanted
    found = sorted(job_id for job_id in ids if wanted and job_id.startswith(wanted))
    if len(found) == 1:
        return found[0]
    if found:
        shown = ", ".join(found[:5]) + (" ..." if len(found) > 5 else "")
        raise NotFound(f"{len(found)} jobs begin with {text!r}: {shown}", "Give more of the id.", "ambiguous")
    raise NotFound(f"there is no job {text[:40]!r} in {home.root}.", "`finetuner jobs` lists them.")
