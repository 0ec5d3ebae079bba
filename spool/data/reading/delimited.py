"""CSV and its kin: the delimiter, the header, rows with their lines, and every broken row as a problem."""

import csv
import re
import sys
from collections import deque
from collections.abc import Iterator
from typing import Any

from spool.data.reading.limits import Limits
from spool.data.reading.roles import KNOWN_NAMES, plain
from spool.data.reading.table import Problem, Record, Rows, printable
from spool.data.reading.text import Lines
from spool.protocol.errors import DataError

NAMES = {  # tab first: where two fit equally well, commas and semicolons stand in prose too
    "\t": "tab-separated",
    ",": "comma-separated",
    ";": "semicolon-separated",
    "|": "pipe-separated",
    "\x1f": "one column",
}
RARE = ("^", "~", "\x01", "\x1e", "§", "¦", ":", "#", "@")
"""Taken only where every column name is one that data files use."""
SAMPLE_CHARACTERS = 64 * 1024
SAMPLE_ROWS = 200
PATIENCE_LINES = 1_000_000
ROW_CELLS = 4
"""A row may have so many cells of the largest size before it counts as one that never ends."""

Place = tuple[int, int]
Found = tuple[Place, "list[str] | str", str]


def rows(lines: Lines, head: str, ending: str, file: str, limits: Limits, delimiter: str, header: bool | None) -> Rows:
    """The rows of a table.

    Args:
        head: the text's beginning, by which the dialect is found.
        delimiter: what parts the cells; "auto" finds it.
        header: whether the first line names the columns; None finds it.

    Raises:
        DataError: too many columns.
    """
    # The csv module refuses cells over 128 KiB unless told otherwise, and only knows a process-wide limit.
    csv.field_size_limit(min(sys.maxsize, limits.row_bytes))
    stated = re.match(r'(?:sep=([,;\t|])|"sep=([,;\t|])")\r?\n', head)  # Excel's own first line
    body = head[stated.end() :] if stated else head
    padded = False
    if delimiter == "auto":
        found: str | None = (stated.group(1) or stated.group(2)) if stated else None
        if found is None:
            found, padded, _ = _dialect(body)
        delimiter = found or ("\t" if ending in (".tsv", ".tab") else "\x1f")
    quoting = csv.QUOTE_NONE if delimiter == "\t" and _plain_tabs(body) else csv.QUOTE_MINIMAL
    options = {"delimiter": delimiter, "skipinitialspace": padded, "quoting": quoting, "strict": True}
    sample = _sampled(body, options)
    named = not _headerless(sample) if header is None else header
    width = _width(sample)
    if width > limits.max_columns:
        message = f"the table has {width:,} columns or more; at most {limits.max_columns:,} are read."
        raise DataError(message, "Is the delimiter right? Keep the columns that are needed.", "too_many_columns")
    columns = [f"column {n}" for n in range(1, width + 1)]
    if named and sample:
        columns = _names([""] + sample[0] if _numbered(sample) else sample[0])
    spoken = NAMES.get(delimiter, f"separated by {delimiter!r}")
    note = f"{spoken}, the first line names the columns" if named else f"{spoken}, no line with column names"
    cells = _cells(iter(lines), 1 if stated else 0, options, limits.row_bytes)
    container = "tsv" if delimiter == "\t" else "csv"
    return Rows(container, note, _table(cells, columns, named, file), columns, delimiter, named)


def looks_delimited(head: str, strict: bool) -> bool:
    """Whether text without a telling ending is a table: a header of short names and rows of the same width.

    Args:
        strict: every name of the header must be one of those that data files use (for .txt, where prose is likelier).
    """
    delimiter, padded, share = _dialect(head)
    if delimiter is None or share < 0.9:
        return False
    reader = csv.reader(_whole_lines(head), delimiter=delimiter, skipinitialspace=padded)
    header = next((cells for cells in reader if cells), [])
    if len(header) < 2:
        return False
    if delimiter == "\t" and header[0].strip() and len(_whole_lines(head)) > 3:
        return True  # prose has no tabs, and not the same number in every line
    names = [name.strip().lower() for name in header]
    if strict or delimiter == "|":
        return all(plain(name) in KNOWN_NAMES for name in names)
    return all(re.fullmatch(r"[^\W\d][\w .#/()-]{0,39}", name) for name in names) and len(set(names)) == len(names)


def _whole_lines(head: str) -> list[str]:
    """The sample's lines; the last one, which may be cut, only where there are no others."""
    lines = [line + "\n" for line in re.split(r"\r\n|\n|\r", head[:SAMPLE_CHARACTERS])]
    return lines if len(head) < SAMPLE_CHARACTERS or len(lines) < 3 else lines[:-1]


def _dialect(head: str) -> tuple[str | None, bool, float]:
    """(delimiter, whether spaces follow it, share of sampled rows as wide as the header); None for one column."""
    lines = _whole_lines(head)
    best: tuple[float, int, str | None, bool] = (0.0, 1, None, False)
    for delimiter in (*NAMES, *RARE):
        if delimiter in RARE and best[2] is not None:
            break
        for padded in (False, True):
            if padded and f'{delimiter} "' not in head:
                continue
            widths, first = _widths(lines, delimiter, padded)
            if len(head) >= SAMPLE_CHARACTERS and len(widths) > 2:
                widths.pop()  # the sample may end inside a quoted cell
            if not widths or widths[0] < 2:
                continue
            if delimiter in RARE and not all(plain(name) in KNOWN_NAMES for name in first):
                continue
            body = widths[1:] or widths
            found = (sum(width == widths[0] for width in body) / len(body), widths[0])
            if found > best[:2]:
                best = (*found, delimiter, padded)
    return best[2], best[3], best[0]


def _widths(lines: list[str], delimiter: str, padded: bool) -> tuple[list[int], list[str]]:
    widths: list[int] = []
    first: list[str] = []
    try:
        for cells in csv.reader(lines, delimiter=delimiter, skipinitialspace=padded):
            if cells:
                first = first or cells
                widths.append(len(_without_empty_end(cells, widths[0] if widths else None)))
            if len(widths) > SAMPLE_ROWS:
                break
    except csv.Error:  # a cell over the limit
        pass
    return widths, first


def _sampled(head: str, options: dict[str, Any]) -> list[list[str]]:
    """The first rows that are not blank, as far as a sample shows them."""
    found: list[list[str]] = []
    try:
        for cells in csv.reader(_whole_lines(head), **{**options, "strict": False}):
            if cells:
                found.append(cells)
    except csv.Error:  # a cell over the limit
        pass
    return found


def _plain_tabs(head: str) -> bool:
    """Whether every line has the same number of tabs while quotes do not pair up: then quotes are only text."""
    filled = [line for line in _whole_lines(head) if line.strip()]
    if len({line.count("\t") for line in filled}) != 1:
        return False
    try:
        if len({len(cells) for cells in csv.reader(filled, delimiter="\t", strict=True)}) == 1:
            return False
    except csv.Error:
        pass
    for line in filled:
        try:
            next(csv.reader([line], delimiter="\t", strict=True))
        except csv.Error:
            return True
    return False


def _headerless(sample: list[list[str]]) -> bool:
    """Whether the first line is a row like the others: it reads like data, or its cells come again further down."""
    if not sample:
        return False
    first, body = sample[0], sample[1:SAMPLE_ROWS]
    if any(plain(cell) in KNOWN_NAMES for cell in first) or _names_numbers(first, body):
        return False
    if any(map(_reads_like_data, first)):
        return True
    again = {n for row in body for n, cell in enumerate(row[: len(first)]) if cell and cell == first[n]}
    return bool(again)


def _names_numbers(first: list[str], body: list[list[str]]) -> bool:
    """Whether the first line has words over columns of numbers, or leaves the place over the rows' names empty."""
    if not body or any(_is_number(cell) for cell in first if cell.strip()):
        return bool(body) and not first[0].strip() and all(row[0].strip() for row in body)
    columns = [[row[place] for row in body if place < len(row)] for place in range(len(first))]
    over_numbers = any(f.strip() and c and all(map(_is_number, c)) for f, c in zip(first, columns, strict=True))
    return over_numbers or (not first[0].strip() and all(row[0].strip() for row in body))


def _numbered(sample: list[list[str]]) -> bool:
    """Whether each row begins with its number and the header has no name for that, as R writes tables."""
    header, body = sample[0], sample[1:SAMPLE_ROWS]
    counted = [row[0] for row in body if len(row) == len(header) + 1 and row[0].isdecimal()]
    return bool(body) and counted == [str(number) for number in range(1, len(body) + 1)]


def _is_number(cell: str) -> bool:
    return bool(re.fullmatch(r"[-+]?[\d.,]+%?", cell.strip()))


def _reads_like_data(cell: str) -> bool:
    cell = cell.strip()
    sentence = " " in cell and cell[-1] in ".!?…"
    return bool(_is_number(cell) or sentence or "\n" in cell or len(cell) > 60)


def _width(sample: list[list[str]]) -> int:
    widths = [len(row) for row in sample[:SAMPLE_ROWS]]
    return max(set(widths), key=widths.count) if widths else 1


class _Feed:
    """Gives the csv reader its lines, remembers those of the row it is in, and takes back what must be read again."""

    def __init__(self, lines: Iterator[tuple[int, int, str | None]], most: int) -> None:
        self.lines = lines
        self.most = most
        self.again: deque[tuple[int, int, str | None]] = deque()
        self.row: list[tuple[int, int, str | None]] = []
        self.size = 0

    def __iter__(self) -> "_Feed":
        return self

    def __next__(self) -> str:
        line = self.again.popleft() if self.again else next(self.lines)
        self.row.append(line)
        text = line[2]
        if text is None:
            raise csv.Error("larger than field limit")
        self.size += len(text)
        if self.size > self.most:
            raise csv.Error("larger than field limit")
        return text + "\n"

    def begin(self) -> None:
        self.row, self.size = [], 0

    @property
    def raw(self) -> str:
        return "\n".join(text or "" for _, _, text in self.row)


def _cells(
    lines: Iterator[tuple[int, int, str | None]], skip: int, options: dict[str, Any], row_bytes: int
) -> Iterator[Found]:
    """(place, cells, source) of each row that is not blank; the reason in words where it is broken.

    After a broken row reading goes on at the next line. Where that would read the same lines too often (hostile
    quotes), the rest is read line by line.
    """
    for _ in range(skip):
        next(lines, None)
    feed, patience = _Feed(lines, ROW_CELLS * row_bytes), PATIENCE_LINES
    reader = csv.reader(feed, **options)
    while True:
        feed.begin()
        try:
            cells = next(reader) if patience > 0 else next(csv.reader([next(feed)], **options), [])
        except StopIteration:
            return
        except csv.Error as error:
            patience -= len(feed.row)
            number, byte, text = feed.row[0]
            yield (number, byte), _why(str(error)), text or ""
            feed.again.extendleft(reversed(feed.row[1:]))
            reader = csv.reader(feed, **options)
            continue
        if cells and not (len(cells) == 1 and not cells[0].strip() and not feed.raw.strip()):
            yield feed.row[0][:2], cells, feed.raw


def _why(error: str) -> str:
    if "unexpected end" in error:
        return "a quoted cell is never closed"
    if "larger than field limit" in error:
        return "a cell is longer than data_limits.max_row_mb allows, or its quotes are never closed"
    return "the quotes do not match: text follows a closing quote; inside a quoted cell write quotes twice"


def _table(found: Iterator[Found], columns: list[str], named: bool, file: str) -> Iterator[Record | Problem]:
    width = len(columns)
    if named:
        next(found, None)
    for (line, byte), cells, raw in found:
        if isinstance(cells, str):
            yield Problem(line, "bad_quotes", f"{cells}.", "dropped", byte, file, raw)
            continue
        if len(cells) > width:
            cells = _without_empty_end(cells, width)
        if len(cells) != width:
            more = len(cells) > width
            cause = "Is there a delimiter inside a cell without quotes?" if more else "Is a cell missing?"
            message = f"{_count(len(cells), 'cell')} where the header has {width}. {cause}"
            yield Problem(line, "ragged_row", message, "dropped", byte, file, raw)
        elif any(cell.strip() for cell in cells):
            yield Record(line, dict(zip(columns, cells, strict=True)), byte, file)
        else:
            yield Problem(line, "empty_row", "every cell is empty.", "dropped", byte, file, raw)


def _names(header: list[str]) -> list[str]:
    """Trimmed column names, each once: a second "text" becomes "text (2)", an empty one "column 3"."""
    filled = max((place for place, cell in enumerate(header, 1) if cell.strip()), default=0)
    header = header[:filled]
    names: dict[str, None] = {}
    for number, cell in enumerate(header, 1):
        plain = printable(cell).strip() or f"column {number}"
        name, times = plain, 1
        while name in names:
            times += 1
            name = f"{plain} ({times})"
        names[name] = None
    return list(names)


def _without_empty_end(cells: list[str], width: int | None) -> list[str]:
    """Row without the empty cells beyond the header's width that spreadsheets leave."""
    if width is not None and len(cells) > width and not any(cell.strip() for cell in cells[width:]):
        return cells[:width]
    return cells


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
