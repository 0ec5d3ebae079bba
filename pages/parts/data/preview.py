"""The first rows of a dataset as a table of plain text, and what was recognised in words."""

from typing import Any

import orjson
import pandas as pd

from pages.parts import quantities, words
from pages.parts.escape import md
from pages.parts.texts import t
from spool.data.reading.table import Record

ROWS = 50
LONGEST = 2000
GUESS_BELOW = 0.6
"""Below this confidence `spool.data.judging.formats` calls a layout a guess that a person should look at."""


def rows(records: list[Record], columns: list[str], longest: int = LONGEST) -> pd.DataFrame:
    """Records by the line each starts on; nested values as JSON."""
    names = columns or list(dict.fromkeys(name for record in records for name in record.value))
    cells = {_plain(name): [cell(record.value.get(name), longest) for record in records] for name in names}
    return pd.DataFrame(cells, index=[record.line for record in records])


def cell(value: Any, longest: int = LONGEST) -> str:
    """A value as text: lone surrogates, which no browser can be sent, are replaced."""
    if value is None:
        return ""
    text = value if isinstance(value, str) else orjson.dumps(value, default=str).decode()
    return _plain(text[:longest] + ("…" if len(text) > longest else ""))


def headline(report: dict[str, Any]) -> str:
    """What was recognised, as Markdown: `CSV · comma · utf-8 · Question and answer, 98 % sure`."""
    sure = report["confidence"]
    kind = words.format_name(report["format"])
    said = t("data.preview.sure", format=kind, share=quantities.percent(sure)) if sure < 1 else kind
    encoding = report["encoding"] if report["container"] != "parquet" else ""
    parts = [report["container"].upper(), report["reading"], encoding]
    head = " · ".join(md(part, 80) for part in dict.fromkeys(parts) if part)
    guess = t("data.preview.guess", said=md(said))
    look = f":orange[:material/help: {guess}]" if sure < GUESS_BELOW else md(said)
    return f"{head} · {look}  \n{md(columns(report['columns'], report['mapping']), 400)}"


def columns(names: list[str], mapping: dict[str, str]) -> str:
    """The columns, and which role each plays where its name does not say so."""
    said = t("data.preview.columns", names=", ".join(names))
    roles = [
        t("data.preview.column_as", column=column, role=words.role(role))
        for role, column in mapping.items()
        if role != column
    ]
    return said + (f" · {t('data.preview.roles', roles=', '.join(roles))}" if roles else "")


def _plain(text: str) -> str:
    return text.encode("utf-8", "replace").decode("utf-8")
