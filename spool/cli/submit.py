"""`finetuner submit`: drops a job spec; with --wait it stays until the job has ended."""

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from spool.cli import show, terminal, words
from spool.health import heartbeat
from spool.protocol import dropbox, jobs, metrics
from spool.protocol.errors import NotFound, Problem, SpecError
from spool.protocol.home import Home
from spool.protocol.jobs import Job

EXIT = {"done": 0, "failed": 1, "cancelled": 1, "rejected": 2}
ENDED = {"done": "is done", "failed": "failed", "cancelled": "was cancelled", "rejected": "was rejected"}
POLL_S = 0.3
AT_WORK = ("training", "answering")
QUIET_S = 15.0
"""Without a terminal: a line of progress each so many seconds."""


def run(arguments: argparse.Namespace, home: Home) -> int:
    from spool.protocol.parse import parse_json

    spec = read(arguments.spec)
    try:
        document, _ = parse_json(spec)
    except SpecError as error:
        return refuse(arguments, error)
    job_id = known(home, document) or dropbox.submit(home, spec)
    if not arguments.json:
        terminal.out(job_id)
    warn_without_runner(home)
    if not arguments.wait:
        if arguments.json:
            terminal.print_json(show.document(home, jobs.get_job(home, job_id)))
        return 0
    try:
        job = wait(home, job_id)
    except KeyboardInterrupt:
        terminal.say(f"\n{job_id} goes on without you: `finetuner logs -f {job_id}` follows it, `cancel` stops it.")
        if arguments.json:
            terminal.print_json(show.document(home, jobs.get_job(home, job_id)))
        raise
    if arguments.json:
        terminal.print_json(show.document(home, job))
    return EXIT[job.state]


def read(name: str) -> bytes:
    """The bytes of a spec file, or of standard input.

    Raises:
        NotFound: it is missing or cannot be read.
        SpecError: it is too large to be a spec.
    """
    from spool.protocol.parse import MAX_BYTES

    try:
        if name == "-":
            data = sys.stdin.buffer.read(MAX_BYTES + 1)
        else:
            with open(Path(name), "rb") as file:
                data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise NotFound(f"cannot read {name}: {reason}.", "Give the path of a job spec.", "unreadable") from None
    if len(data) > MAX_BYTES:
        message = f"{name} has more than {MAX_BYTES:,} bytes: too large for a job spec."
        raise SpecError([Problem("too_large", message, "Data files are named in the spec, not dropped.")])
    return data


def refuse(arguments: argparse.Namespace, error: SpecError) -> int:
    """What is no JSON is not dropped: the runner would take it for an unfinished copy and wait for the rest.

    The reasons come at once, in the shape of a rejected job.
    """
    terminal.complain(f"{arguments.spec} was not submitted:")
    for problem in error.problems:
        terminal.say(f"- {problem}")
    if arguments.json:
        job = Job("", str(arguments.spec), "train", "rejected")
        job.error = error.to_json() | {"errors": [problem.to_json() for problem in error.problems]}
        terminal.print_json(job.to_json() | {"id": None, "suggestion": None})
    return EXIT["rejected"]


def known(home: Home, document: Any) -> str | None:
    """The id of the job that this submission_id is already: the same one twice is one job."""
    submission_id = document.get("submission_id") if isinstance(document, dict) else None
    job_id = dropbox.submitted(home, submission_id) if isinstance(submission_id, str) else None
    if job_id is None:
        return None
    try:
        jobs.get_job(home, job_id)
    except NotFound:
        return None
    terminal.say(f"The same submission_id is job {job_id} already; nothing new was dropped.")
    return job_id


def warn_without_runner(home: Home) -> None:
    beat = heartbeat.read(home)
    if not beat.alive:
        start = "`make up`, or `systemctl start finetuner-runner`"
        terminal.say(f"No runner is alive: the job waits in {home.incoming} until one starts ({start}).")
    elif beat.halted:
        terminal.say(f"The runner holds the queue: {beat.halted}.")


def wait(home: Home, job_id: str) -> Job:
    """Shows progress on stderr until the job has ended."""
    line = terminal.StatusLine()
    told, told_at, was_alive = "", 0.0, False
    while True:
        job = jobs.get_job(home, job_id)
        if job.ended:
            break
        text = status(home, job)
        line.show(text)
        stage = f"{job.state} {job.phase}"
        due = job.state == "running" and time.monotonic() - told_at >= QUIET_S
        if not line.live and (stage != told or due):
            terminal.say(text)
            told, told_at = stage, time.monotonic()
        alive = heartbeat.read(home).alive
        if was_alive and not alive:
            line.end()
            terminal.say("The runner gives no sign of life any more; the job goes on when it is back.")
        was_alive = alive
        time.sleep(POLL_S)
    line.end()
    terminal.say(ending(job))
    return job


def status(home: Home, job: Job) -> str:
    """One line: where the job stands."""
    step, total = job.progress["step"], job.progress["total_steps"]
    waiting = {"checking": job.phase or "waiting to be checked", "queued": "queued", "held": "held"}
    if job.state in waiting or not total or not (job.phase or "").startswith(AT_WORK):
        return f"{job.id}  {waiting.get(job.state, job.phase or 'starting')}"
    row = metrics.last(home.run(job.id).metrics) or {}
    parts = [f"{terminal.bar(step / total)} {step}/{total}"]
    if isinstance(row.get("loss"), int | float):
        parts.append(f"loss {row['loss']:.4f}")
    elif isinstance(row.get("eval_loss"), int | float):
        parts.append(f"eval loss {row['eval_loss']:.4f}")
    if isinstance(row.get("tokens_per_s"), int | float):
        parts.append(f"{row['tokens_per_s']:,.0f} tokens/s")
    if job.progress["eta_s"] is not None:
        parts.append(f"{words.duration(job.progress['eta_s'])} left")
    return "  ".join(parts)


def ending(job: Job) -> str:
    lines = [f"{job.id} {ENDED[job.state]}."]
    if job.state == "done" and job.result and job.kind == "train":
        lines.append(f"  The adapter lies in {job.result.get('adapter')}")
    elif job.state == "done" and job.kind == "generate":
        lines.append(f"  `finetuner show {job.id}` says where the answers lie.")
    lines += [f"  {line}" for line in show.exports(job.result or {})]
    lines += [f"  {line}" for line in show.report(job.result or {})]
    lines += [f"- {problem}" for problem in show.problems(job.error or {})]
    return "\n".join(lines)
