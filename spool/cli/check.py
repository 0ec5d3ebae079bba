"""`finetuner check`: the data doctor at the command line. Needs no runner; without a model no tokens are counted."""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from spool.cli import terminal
from spool.protocol import settings
from spool.protocol.errors import DataError, ModelError, NotFound
from spool.protocol.home import Home
from spool.protocol.resolve import STORED

SHOWN = 20


def run(arguments: argparse.Namespace, home: Home) -> int:
    from spool.data.judging.check import check
    from spool.data.reading.read import Dialect

    path = data_path(arguments.file, home)
    mapping = roles(arguments.mapping)
    dialect = Dialect(arguments.encoding, arguments.delimiter, False if arguments.no_header else None)
    limits = settings.load(home).data_limits
    report = check(
        path,
        arguments.format,
        mapping,
        model_folder(arguments.model, home) if arguments.model else None,
        arguments.max_length,
        dialect=dialect,
        limits=limits,
        cache=home.tokens if os.access(home.tokens if home.tokens.is_dir() else home.root, os.W_OK) else None,
        say=silent if arguments.json or not sys.stderr.isatty() else progress,
    ).to_json()
    if arguments.rejects:
        from spool.data.judging.rejects import write

        count = write(path, Path(arguments.rejects), arguments.format, mapping, dialect, limits)
        terminal.say(f"{count:,} rows written to {arguments.rejects}")
    if arguments.json:
        terminal.print_json(report)
    else:
        text(arguments.file, report)
    return int(report["blocked"] is not None)


def data_path(reference: str, home: Home) -> Path:
    """A path; else a stored dataset or one of the hub, which is fetched.

    Raises:
        FinetunerError: there is none.
    """
    if reference.startswith("hf:"):
        from spool.data.reading import hub

        return hub.fetch(home, reference)
    path = Path(reference)
    if path.exists() or not STORED.fullmatch(reference):
        return path
    from spool.data.keeping import keep

    try:
        return keep.resolve(home, reference)
    except NotFound:
        if "@" in reference or "." not in reference:
            raise
        return path


def roles(pairs: list[str]) -> dict[str, str]:
    """{"prompt": "Frage"} of ["prompt=Frage"].

    Raises:
        DataError: one has no equals sign.
    """
    for pair in pairs:
        if "=" not in pair:
            raise DataError(f"--mapping {pair[:60]!r} has no =.", "Write ROLE=COLUMN, for example prompt=Question.")
    return {role: column for role, _, column in (pair.partition("=") for pair in pairs)}


def progress(stage: str, done: int, total: int) -> None:
    """One line on the terminal that is written over."""
    share = f" {done / total:.0%}" if total else f" {done:,}"
    sys.stderr.write(f"\r{stage}{share}   ")
    sys.stderr.flush()


def model_folder(name: str, home: Home) -> Path:
    """A name under models/, or a folder.

    Raises:
        ModelError: neither holds a tokenizer.
    """
    plain = "/" not in name and name not in (".", "..")
    for folder in ([home.models / name] if plain else []) + [Path(name)]:
        if (folder / "tokenizer.json").is_file():
            return folder.resolve()
    here = sorted(path.parent.name for path in home.models.glob("*/tokenizer.json"))
    hint = f"Models here: {', '.join(here)}." if here else "There are none yet: `make setup` makes gemma-3-270m."
    raise ModelError(f"there is no model {name!r} with a tokenizer.json.", hint)


def silent(stage: str, done: int, total: int) -> None:
    """For pipes and files."""


def text(name: str, report: dict[str, Any]) -> None:
    columns = report.get("columns")
    tokens = report.get("tokens")
    supervised = report.get("supervised_fraction")
    lengths = "p50 {p50}, p95 {p95}, longest {max}; {over_limit} over the limit"
    terminal.fields(
        [
            ("file", name),
            ("read as", f"{report['container'].upper()}, {report['encoding']}; {report['reading']}"),
            ("format", f"{report['format']} ({report['confidence']:.0%} sure{_others(report)})"),
            ("rows", f"{report['rows']:,}, {report['usable_rows']:,} usable"),
            ("columns", ", ".join(str(name) for name in columns) if columns else None),
            ("duplicates", report.get("duplicates") or None),
            ("near copies", report.get("near_duplicates") or None),
            ("tokens", lengths.format(**tokens) if tokens else "not counted (--model M counts them)"),
            ("learned", f"{supervised:.0%} of the tokens" if isinstance(supervised, int | float) else None),
        ]
    )
    for notice in report["notices"]:
        terminal.out(f"note: {notice}")
    problems = report.get("problems") or []
    if problems:
        terminal.out()
        rows = [(_place(p), p["code"], p["message"], p.get("action") or "") for p in problems[:SHOWN]]
        terminal.table(("LINE", "CODE", "MESSAGE", "ACTION"), rows)
        found = sum(report["problem_counts"].values())
        if found > SHOWN:
            counts = ", ".join(f"{code} {count:,}" for code, count in report["problem_counts"].items())
            terminal.out(f"... {found:,} in all: {counts} (--json prints them)")
    if blocked := report["blocked"]:
        terminal.complain(f"a job on this file would be blocked: {blocked['message']}", blocked["hint"])


def _others(report: dict[str, Any]) -> str:
    others = [f"{each['format']} {each['confidence']:.0%}" for each in report["alternatives"][:3]]
    return f"; or {', '.join(others)}" if others else ""


def _place(problem: dict[str, Any]) -> str:
    line = str(problem["line"]) if problem["line"] else ""
    return f"{problem['file']}:{line}" if problem.get("file") else line
