"""A dataset's rows as a file for other programs: JSON lines, or CSV whose cells no spreadsheet runs."""

import csv
import io
import re
from typing import Any, BinaryIO

from spool.data.keeping.keep import Stored
from spool.data.keeping.rows import StoredRecords, dump
from spool.data.reading.limits import Limits
from spool.data.reading.read import AS_FOUND, Dialect

# https://owasp.org/www-community/attacks/CSV_Injection, and the wide forms that spreadsheets take for the same.
_FORMULA = re.compile(r"[\s]*[=+\-@\uff1d\uff0b\uff0d\uff20]|[\t\r\n]")
_NUMBER = re.compile(r"-\d+([.,]\d+)?")


def export_jsonl(stored: Stored, out: BinaryIO, limits: Limits, dialect: Dialect = AS_FOUND) -> int:
    """Writes one JSON object a line; gives the number of rows. Rows that cannot be read are not in it."""
    written = 0
    for record in StoredRecords(stored.path, limits, dialect)():
        out.write(dump(record.value, record.line) + b"\n")
        written += 1
    return written


def export_csv(stored: Stored, out: BinaryIO, limits: Limits, dialect: Dialect = AS_FOUND) -> int:
    """Writes CSV (UTF-8 with a mark for spreadsheets, all text quoted); gives the number of rows.

    The columns are those of all rows, so the file is read twice. Lists and objects become JSON text.
    """
    source = StoredRecords(stored.path, limits, dialect)
    columns: dict[str, None] = {}
    for record in source():
        columns.update(dict.fromkeys(record.value))
    text = io.TextIOWrapper(out, "utf-8-sig", errors="replace", newline="")
    writer = csv.writer(text, quoting=csv.QUOTE_NONNUMERIC)
    writer.writerow([harmless(name) for name in columns])
    written = 0
    for record in source():
        writer.writerow([_cell(record.value.get(name)) for name in columns])
        written += 1
    text.detach()
    return written


def harmless(text: str) -> str:
    """Text that a spreadsheet shows and does not run: an apostrophe in front of what could be a formula.

    "-5" stays, being a number and no more.
    """
    return "'" + text if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text


def _cell(value: Any) -> str | int | float:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return value
    return harmless(value if isinstance(value, str) else dump(value).decode())
