"""CSV and its kin: the delimiter, rows with their lines, and every broken row as a problem."""

import csv
import re
import sys
from collections.abc import Iterator

from spool.data.roles import KNOWN_NAMES, plain
from spool.data.table import Problem, Record, printable

NAMES = {
    ",": "comma-separated",
    ";": "semicolon-separated",
    "\t": "tab-separated",
    "|": "pipe-separated",
    "\x1f": "one column",
}
SAMPLE_CHARACTERS = 64 * 1024
SAMPLE_ROWS = 200
PATIENCE_LINES = 1_000_000


def rows(text: str, ending: str) -> tuple[list[str], list[Record], list[Problem], str]:
    """(columns, records, problems, how it was read in words)."""
    # The csv module refuses cells over 128 KiB unless told otherwise, and only knows a process-wide limit.
    csv.field_size_limit(sys.maxsize)
    stated = re.match(r'(?:sep=([,;\t|])|"sep=([,;\t|])")\n', text)  # Excel's own first line
    first = 1 if stated else 0
    delimiter = (stated.group(1) or stated.group(2)) if stated else None
    padded = False
    if delimiter is None:
        delimiter, padded, _ = _dialect(text)
    if delimiter is None:
        delimiter = "\t" if ending in (".tsv", ".tab") else "\x1f"
    lines = [line + "\n" for line in text.split("\n")]
    quoting = csv.QUOTE_MINIMAL
    if delimiter == "\t" and _plain_tabs(lines[first:]):
        quoting = csv.QUOTE_NONE
    return *_table(
        list(_cells(lines, first, delimiter, padded, quoting))
    ), f"{NAMES[delimiter]}, the first line names the columns"


def looks_delimited(text: str, strict: bool) -> bool:
    """Whether text without a telling ending is a table: a header of short names and rows of the same width.

    Args:
        strict: every name of the header must be one of those that data files use (for .txt, where prose is likelier).
    """
    delimiter, padded, share = _dialect(text)
    if delimiter is None or share < 0.9:
        return False
    sample = [line + "\n" for line in text[:SAMPLE_CHARACTERS].split("\n")[:SAMPLE_ROWS]]
    header = next((cells for _, cells in _cells(sample, 0, delimiter, padded) if cells), [])
    if not isinstance(header, list) or len(header) < 2:
        return False
    names = [name.strip().lower() for name in header]
    if strict or delimiter == "|":
        return all(plain(name) in KNOWN_NAMES for name in names)
    return all(re.fullmatch(r"[^\W\d][\w .#/()-]{0,39}", name) for name in names) and len(set(names)) == len(names)


def _dialect(text: str) -> tuple[str | None, bool, float]:
    """(delimiter, whether spaces follow it, share of sampled rows as wide as the header); None for one column."""
    sample = text[:SAMPLE_CHARACTERS]
    whole = len(sample) == len(text)
    lines = [line + "\n" for line in sample.split("\n")]
    lines = lines if whole or len(lines) < 3 else lines[:-1]
    best: tuple[float, int, str | None, bool] = (0.0, 1, None, False)
    for delimiter in NAMES:
        for padded in (False, True):
            if padded and f'{delimiter} "' not in sample:
                continue
            widths: list[int] = []
            for cells in csv.reader(lines, delimiter=delimiter, skipinitialspace=padded):
                if cells:
                    widths.append(len(_without_empty_end(cells, widths[0] if widths else None)))
                if len(widths) > SAMPLE_ROWS:
                    break
            if not whole and len(widths) > 2:
                widths.pop()  # the sample may end inside a quoted cell
            if not widths or widths[0] < 2:
                continue
            body = widths[1:] or widths
            found = (sum(width == widths[0] for width in body) / len(body), widths[0])
            if found > best[:2]:
                best = (*found, delimiter, padded)
    return best[2], best[3], best[0]


def _plain_tabs(lines: list[str]) -> bool:
    """Whether every line has the same number of tabs while quotes do not pair up: then quotes are only text."""
    filled = [line for line in lines if line.strip()]
    if len({line.count("\t") for line in filled}) != 1:
        return False
    for line in filled:
        try:
            next(csv.reader([line], delimiter="\t", strict=True))
        except csv.Error:
            return True
    return False


def _cells(
    lines: list[str], first: int, delimiter: str, padded: bool, quoting: int = csv.QUOTE_MINIMAL
) -> Iterator[tuple[int, list[str] | str]]:
    """(index of its first line, cells) of each row that is not blank; the reason in words where quotes are broken.

    After a broken row reading goes on at the next line. Where that would read the same lines too often (hostile
    quotes), the rest is read line by line.
    """
    options = {"delimiter": delimiter, "skipinitialspace": padded, "quoting": quoting, "strict": True}
    start, patience = first, PATIENCE_LINES
    while start < len(lines):
        end = len(lines) if patience > 0 else start + 1
        reader = csv.reader((lines[index] for index in range(start, end)), **options)  # type: ignore[arg-type]
        at = start
        try:
            for cells in reader:
                if cells and not (len(cells) == 1 and lines[at].isspace()):
                    yield at, cells
                at = start + reader.line_num
            start = end
        except csv.Error as error:
            patience -= start + reader.line_num - at
            yield at, _why(str(error))
            start = at + 1


def _why(error: str) -> str:
    if "unexpected end" in error:
        return "a quoted cell is never closed"
    return "the quotes do not match: text follows a closing quote; inside a quoted cell write quotes twice"


def _table(found: list[tuple[int, list[str] | str]]) -> tuple[list[str], list[Record], list[Problem]]:
    records: list[Record] = []
    problems: list[Problem] = []
    columns: list[str] = []
    for index, cells in found:
        line = index + 1
        if isinstance(cells, str):
            problems.append(Problem(line, "bad_quotes", f"{cells}."))
        elif not columns:
            columns = _names(cells)
        else:
            cells = _without_empty_end(cells, len(columns))
            if len(cells) == len(columns):
                if any(cell.strip() for cell in cells):
                    records.append(Record(line, dict(zip(columns, cells, strict=True))))
                else:
                    problems.append(Problem(line, "empty_row", "every cell is empty."))
            else:
                more = len(cells) > len(columns)
                cause = "Is there a delimiter inside a cell without quotes?" if more else "Is a cell missing?"
                message = f"{_count(len(cells), 'cell')} where the header has {len(columns)}. {cause}"
                problems.append(Problem(line, "ragged_row", message))
    return columns, records, problems


def _names(header: list[str]) -> list[str]:
    """Trimmed column names, each once: a second "text" becomes "text (2)", an empty one "column 3"."""
    while header and not header[-1].strip():
        header = header[:-1]
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
