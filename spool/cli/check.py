"""`finetuner check`: the data doctor at the command line. Needs no runner; without a model no tokens are counted."""

import argparse
from pathlib import Path
from typing import Any

from spool.cli import terminal
from spool.protocol.errors import ModelError
from spool.protocol.home import Home

SHOWN = 20


def run(arguments: argparse.Namespace, home: Home) -> int:
    from spool.data.check import check
    from spool.protocol.spec import Limits

    folder = model_folder(arguments.model, home) if arguments.model else None
    report = check(Path(arguments.file), format=arguments.format, mapping={}, model_folder=folder).to_json()
    limit = Limits().max_problem_fraction
    if arguments.json:
        terminal.print_json(report)
    else:
        text(arguments.file, report, limit)
    return int(blocked(report, limit))


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


def blocked(report: dict[str, Any], limit: float) -> bool:
    """Whether a job on this file would not be allowed to train."""
    rows, usable = report["rows"], report["usable_rows"]
    return bool(usable == 0 or (rows - usable) / rows > limit)


def text(name: str, report: dict[str, Any], limit: float) -> None:
    columns = report.get("columns")
    tokens = report.get("tokens")
    supervised = report.get("supervised_fraction")
    lengths = "p50 {p50}, p95 {p95}, longest {max}; {over_limit} over the limit"
    terminal.fields(
        [
            ("file", name),
            ("format", report["format"]),
            ("rows", f"{report['rows']:,}, {report['usable_rows']:,} usable"),
            ("columns", ", ".join(str(name) for name in columns) if columns else None),
            ("duplicates", report.get("duplicates") or None),
            ("tokens", lengths.format(**tokens) if tokens else "not counted (--model M counts them)"),
            ("learned", f"{supervised:.0%} of the tokens" if isinstance(supervised, int | float) else None),
        ]
    )
    problems = report.get("problems") or []
    if problems:
        terminal.out()
        rows = [(p.get("line") or "", p["code"], p["message"], p.get("action") or "") for p in problems[:SHOWN]]
        terminal.table(("LINE", "CODE", "MESSAGE", "ACTION"), rows)
        if len(problems) > SHOWN:
            terminal.out(f"... and {len(problems) - SHOWN:,} more (--json prints all)")
    if blocked(report, limit):
        share = f"more than {limit:.0%} of the rows" if report["usable_rows"] else "every row"
        terminal.complain(f"a job on this file would be blocked: {share} cannot be trained on.")
