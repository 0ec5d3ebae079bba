"""Reading a data file: its encoding, its container (by content first, by ending second) and its rows."""

import os
import re
import stat
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import orjson

from spool.data import delimited, json_rows, plain_text
from spool.data.table import Table, in_words
from spool.protocol.errors import DataError

MAX_BYTES = 2 * 1024**3

MAGIC = (
    (b"\x1f\x8b", "gzip", "Unpack it first."),
    (b"PK\x03\x04", "a zip archive or an Excel workbook", "Unpack it, or save the sheet as CSV (UTF-8)."),
    (b"\xd0\xcf\x11\xe0", "an old Excel or Word file", "Save the sheet as CSV (UTF-8)."),
    (b"PAR1", "Parquet", "Convert it to JSONL."),
    (b"%PDF", "a PDF", "Copy its text into a TXT or CSV file."),
    (b"BZh", "bzip2", "Unpack it first."),
    (b"\xfd7zXZ", "xz", "Unpack it first."),
    (b"\x28\xb5\x2f\xfd", "zstandard", "Unpack it first."),
    (b"SQLite format 3", "an SQLite database", "Export the table as CSV."),
    (b"\x89PNG", "a picture", "Rows of text are needed."),
    (b"\xff\xd8\xff", "a picture", "Rows of text are needed."),
)
BOMS = (  # UTF-32 first: its little-endian mark starts with the one of UTF-16
    (b"\xff\xfe\x00\x00", "utf-32"),
    (b"\x00\x00\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
    (b"\xef\xbb\xbf", "utf-8-sig"),
)
CONTROL = bytes(code for code in range(32) if code not in b"\t\n\r\f\v\x1b") + b"\x7f"
KINDS = "CSV, TSV, JSON, JSONL and TXT can be read."


def read(path: Path) -> Table:
    """The rows of a file. A row that cannot be read is a problem of the table, never an exception.

    Raises:
        DataError: there is no such file, it is not text, or none of its rows can be read.
    """
    path = Path(path)
    with open_regular(path) as file:
        data = file.read()
    text, encoding = decode(data, path)
    container = _container(text, path.suffix.lower(), path)
    if container in ("csv", "tsv"):
        columns, records, problems, note = delimited.rows(text, path.suffix.lower())
        container = "tsv" if note.startswith("tab") else "csv"
    elif container == "txt":
        columns, records, problems, note = plain_text.rows(text)
    else:
        columns, records, problems, note = json_rows.rows(text, container)
    table = Table(path, container, encoding, note, columns, records, problems)
    if not records:
        raise _nothing(table)
    return table


def decode(data: bytes, path: Path) -> tuple[str, str]:
    """(text, encoding). Newlines become \\n; a byte that fits nowhere becomes a lone surrogate, which marks its row.

    Raises:
        DataError: empty or not text.
    """
    if not data.strip():
        raise DataError(f"{path.name} is empty.", "Choose a file with rows in it.")
    for magic, what, hint in MAGIC:
        if data.startswith(magic):
            raise DataError(f"{path.name} is {what}; it cannot be read as rows.", f"{hint} {KINDS}")
    text, encoding = _decoded(data, path)
    text = text.removeprefix("\ufeff")
    if not text.strip():
        raise DataError(f"{path.name} is empty.", "Choose a file with rows in it.")
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    return text, encoding


def _decoded(data: bytes, path: Path) -> tuple[str, str]:
    for mark, encoding in BOMS:
        if data.startswith(mark):
            try:
                name = "utf-8 with BOM" if encoding == "utf-8-sig" else encoding
                return data.decode(encoding), name
            except UnicodeDecodeError as error:
                if encoding != "utf-8-sig":
                    message = f"{path.name} starts as {encoding} but breaks off at byte {error.start:,}."
                    raise DataError(message, "Save it again, as UTF-8.") from None
                data = data[len(mark) :]
    head = data[: 1 << 16]
    if len(head) - len(head.translate(None, CONTROL)) > len(head) // 100:
        hint = "If it is text in UTF-16, save it as UTF-8." if b"\0" in head else ""
        raise DataError(f"{path.name} is not text: it holds control bytes.", f"{KINDS} {hint}".strip())
    try:
        return data.decode(), "utf-8"
    except UnicodeDecodeError:
        text = data.decode(errors="surrogateescape")
    unreadable = len(re.findall("[\udc80-\udcff]", text))
    if len(re.findall("[^\x00-\x7f\udc80-\udcff]", text)) >= unreadable:
        return text, f"utf-8 with {unreadable:,} unreadable bytes"
    return data.decode("cp1252", errors="surrogateescape"), "windows-1252"


def open_regular(path: Path) -> BinaryIO:
    """Opens a file for reading, never a folder, a pipe or a device.

    Raises:
        DataError: there is none, or it is too large.
    """
    try:
        # without O_NONBLOCK opening a pipe would wait for a writer for ever
        file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    except FileNotFoundError:
        raise DataError(f"there is no file {path}.", "Check the path and the name.", "dataset_missing") from None
    except IsADirectoryError:
        raise DataError(f"{path} is a folder.", "Name one file in it.", "dataset_missing") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        hint = "Check the path and its permissions."
        raise DataError(f"{path} cannot be read: {reason}.", hint, "dataset_missing") from None
    status = os.fstat(file.fileno())
    if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_BYTES:
        file.close()
        if stat.S_ISREG(status.st_mode):
            size = f"{status.st_size / 1024**3:.1f} GiB"
            raise DataError(f"{path.name} has {size}; at most 2 GiB are read.", "Split it, or take a part of it.")
        raise DataError(f"{path} is not a regular file.", "Copy the rows into one.", "dataset_missing")
    return file


def _container(text: str, ending: str, path: Path) -> str:
    lines = [line for line in islice(_lines(text), 200) if line.strip()][:50]
    objects = sum(_is_json_row(line) for line in lines)
    start = text.lstrip()[:1]
    if len(lines) > 1 and objects * 2 >= len(lines):
        return "jsonl"
    if start in ("{", "["):
        if _is_json(text):
            return "jsonl" if start == "{" and ending in (".jsonl", ".ndjson") and len(lines) == 1 else "json"
        if ending in (".jsonl", ".ndjson"):
            return "jsonl"
        if ending == ".json" or re.match(r'\s*(\[\s*[\[{]|\{\s*")', text):
            return "json"
    if ending in (".csv", ".tsv", ".tab"):
        return "csv"
    if delimited.looks_delimited(text, strict=ending in (".txt", ".text")):
        return "csv"
    if ending in (".jsonl", ".ndjson"):
        return "jsonl"
    if ending == ".json":
        shown = lines[0].strip()[:60]
        raise DataError(f"{path.name} is not JSON: it starts with {shown!r}.", "A JSON file starts with [ or {.")
    return "txt"


def _lines(text: str) -> Iterator[str]:
    return (match.group() for match in re.finditer(r"[^\n]+", text))


def _is_json(text: str) -> bool:
    try:
        orjson.loads(text)
    except ValueError:
        return False
    return True


def _is_json_row(line: str) -> bool:
    line = line.strip()
    return line[:1] in ("{", "[") and line[-1:] in ("}", "]") and _is_json(line)


def _nothing(table: Table) -> DataError:
    if not table.problems:
        message = f"{table.path.name} holds no rows (read as {table.container.upper()}, {table.encoding})."
        return DataError(message, "Choose a file with rows in it.")
    message = (
        f"none of the {table.rows:,} rows of {table.path.name} can be read "
        f"(read as {table.container.upper()}, {table.encoding}). {in_words(table.problems)}"
    )
    return DataError(message, "Correct the file. " + KINDS)
