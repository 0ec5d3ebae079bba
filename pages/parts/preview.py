"""The first rows of a dataset as a table of plain text."""

from typing import Any

import orjson
import pandas as pd

from pages.parts import words
from spool.data.table import Record, Table

ROWS = 50
LONGEST = 2000
FINDINGS = 200

ACTIONS = {"dropped": "left out", "cut": "shortened", "kept": "kept"}


def rows(records: list[Record], columns: list[str]) -> pd.DataFrame:
    """The first ROWS records by the line each starts on; nested values as JSON."""
    shown = records[:ROWS]
    names = columns or list(dict.fromkeys(name for record in shown for name in record.value))
    cells = {_plain(name): [cell(record.value.get(name)) for record in shown] for name in names}
    return pd.DataFrame(cells, index=[record.line for record in shown])


def cell(value: Any) -> str:
    """A value as text: lone surrogates, which no browser can be sent, are replaced."""
    if value is None:
        return ""
    text = value if isinstance(value, str) else orjson.dumps(value, default=str).decode()
    return _plain(text[:LONGEST] + ("…" if len(text) > LONGEST else ""))


def problems(found: list[dict[str, Any]], most: int = FINDINGS) -> pd.DataFrame:
    """Findings with their lines, as a table."""
    shown = found[:most]
    return pd.DataFrame(
        {
            "line": [problem.get("line") for problem in shown],
            "what": [_plain(str(problem.get("message", ""))) for problem in shown],
            "done": [ACTIONS.get(problem.get("action", ""), str(problem.get("action", ""))) for problem in shown],
        }
    )


def headline(report: dict[str, Any] | None, table: Table) -> str:
    """What was recognised, as plain text: `JSONL · utf-8 · Prompt and completion`."""
    kind = words.format_name(report["format"]) if report else "layout not recognised"
    return " · ".join([table.container.upper(), table.encoding, kind])


def columns(names: list[str], mapping: dict[str, str]) -> str:
    """The columns, and which role each plays where its name does not say so."""
    said = "Columns: " + ", ".join(names)
    roles = [f"{column} as {role}" for role, column in mapping.items() if role != column]
    return said + (f" · read {', '.join(roles)}" if roles else "")


def _plain(text: str) -> str:
    return text.encode("utf-8", "replace").decode("utf-8")
