"""`finetuner show`: one job, and how other verbs print one."""

import argparse
from collections.abc import Mapping
from typing import Any

from spool.cli import terminal, which, words
from spool.health import cures
from spool.health.disk import size
from spool.protocol import jobs, removed
from spool.protocol.errors import Problem
from spool.protocol.home import Home
from spool.protocol.jobs import Job

VERDICTS = {"better": "better than its base", "worse": "worse than its base"}
"""Of no clear change the report's own sentence says so."""


def run(arguments: argparse.Namespace, home: Home) -> int:
    job = jobs.get_job(home, which.resolve(home, arguments.id))
    if arguments.json:
        terminal.print_json(document(home, job))
    else:
        text(home, job)
    return 0


def document(home: Home, job: Job) -> dict[str, Any]:
    """What --json prints of a job: its fields, and what to change before it is tried again, or null."""
    made = cures.suggestion(home, job)
    return job.to_json() | {"suggestion": made.to_json() if made else None}


def text(home: Home, job: Job) -> None:
    result, error = job.result or {}, job.error or {}
    state = f"{job.state}: {job.phase}" if job.phase else job.state
    gone = removed.read(home.run(job.id))
    unfit = [terminal.one_line(str(each.get("words"))) for each in cures.unfit(home, job.id)] if not result else []
    terminal.fields(
        [
            ("id", job.id),
            ("name", job.name),
            ("kind", job.kind),
            ("state", state),
            ("waits", f"until {job.waits['not_before']}: {job.waits['why']}" if job.waits else None),
            ("model", job.model),
            ("dataset", job.dataset),
            ("priority", job.priority),
            ("submitted", _moment(job.submitted_at, job.submitted_by)),
            ("started", _moment(job.started_at)),
            ("ended", _moment(job.ended_at)),
            *(("too large", each) for each in unfit),
            ("progress", words.progress(job) or None if job.progress["total_steps"] else None),
            ("attempts", job.attempts or None),
            ("retry of", job.retry_of),
            ("final loss", _number(result.get("final_loss"))),
            ("eval loss", _number(result.get("eval_loss"))),
            ("adapter", result.get("adapter") if gone is None else None),
            ("pushed to", (result.get("pushed") or {}).get("url")),
            ("removed", f"{', '.join(gone.what)} on {_moment(gone.at, gone.by)}" if gone else None),
            ("answers", _answers(home, job)),
            ("pushed", (result.get("pushed") or {}).get("url")),
            *(("exports" if place == 0 else "", line) for place, line in enumerate([] if gone else exports(result))),
            *(("report" if place == 0 else "", line) for place, line in enumerate(report(result))),
            ("log", log if (log := home.run(job.id).latest_log).exists() else None),
        ]
    )
    for problem in problems(error):
        terminal.out(f"{'error':<12}{problem}")
    terminal.fields([("evidence", error.get("evidence") or None)])
    made = cures.suggestion(home, job)
    if made:
        lines = [*difference(made), f"`finetuner retry {job.id} --suggested` does it."]
        terminal.fields([("suggested", lines[0]), *(("", line) for line in lines[1:])])


def difference(made: cures.Suggestion) -> list[str]:
    """A suggestion line by line: why, then each field before and after."""
    lines = [f"{change.pointer[1:].replace('/', '.')}: {change.before} -> {change.after}" for change in made.changes]
    return [made.sentence, *lines]


def problems(error: dict[str, object]) -> list[str]:
    """Each reason of a failed or rejected job as one line."""
    known = ("code", "message", "hint", "pointer", "line", "column")
    listed = error.get("errors")
    found = [
        str(Problem(**{"code": "", "message": "", **{key: item[key] for key in known if item.get(key) is not None}}))
        for item in (listed if isinstance(listed, list) else [])
        if isinstance(item, dict)
    ]
    if not found and error.get("message"):
        found = [" ".join(str(error[key]) for key in ("message", "hint") if error.get(key))]
    return [terminal.one_line(problem) for problem in found]


def _answers(home: Home, job: Job) -> str | None:
    """How many answers a job of kind generate has given, where they lie, and why a session ended."""
    path = home.run(job.id).answers
    if job.kind != "generate" or not path.exists():
        return None
    result = job.result or {}
    count = result.get("answers", job.progress["step"])
    ended = {"made_room": "another job needed the machine", "idle": "nobody asked", "max_hours": "its time was over"}
    why = ended.get(str(result.get("ended_by")))
    return f"{count or 0:,} in {path}" + (f"; it ended as {why}" if why else "")


def exports(result: Mapping[str, Any]) -> list[str]:
    """What a job has made beside the adapter, a line each: where it lies, or what is wrong with it. Those that are
    ready come first."""
    made = result.get("exports")
    known = [(name, each) for name, each in made.items() if name != "adapter"] if isinstance(made, dict) else []
    order = ("ready", "unproven", "suspect", "failed")
    known.sort(key=lambda pair: order.index(pair[1]["state"]) if pair[1].get("state") in order else len(order))
    return [_export(name, each) for name, each in known]


def _export(name: str, each: Mapping[str, Any]) -> str:
    state = each.get("state")
    if state == "failed":
        return f"{name} could not be made: {(each.get('error') or {}).get('message') or 'it did not say why.'}"
    if state == "suspect":
        state = f"SUSPECT, it did not pass: {', '.join(map(str, each.get('failed_checks') or ['?']))}"
    return f"{name} is {state}; {size(int(each.get('bytes') or 0))} in {each.get('folder')}"


def report(result: Mapping[str, Any]) -> list[str]:
    """What a job has found of its model beside the base, and where that lies; or why there is no report."""
    told = result.get("report")
    if not isinstance(told, dict):
        return []
    if error := told.get("error"):
        message = error.get("message") if isinstance(error, dict) else None
        return [terminal.one_line(f"there is no report: {message or 'it did not say why.'}")]
    says = told.get("says")
    found = str(says[0]) if isinstance(says, list) and says else ""
    verdict = VERDICTS.get(str(told.get("verdict")))
    lines = [f"{verdict}: {found}" if verdict else found]
    if told.get("report"):
        lines.append(f"the report lies in {told['report']}")
    return [terminal.one_line(line) for line in lines if line]


def _moment(iso: str | None, by: str | None = None) -> str | None:
    if not iso:
        return None
    return f"{words.local_time(iso)}, {words.age(iso)} ago" + (f", by {by}" if by else "")


def _number(value: object) -> str | None:
    return f"{value:.4f}" if isinstance(value, int | float) else None
