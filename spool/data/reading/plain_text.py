"""Plain text: one sample a line, or a paragraph where blank lines part blocks that mostly have several lines."""

from collections.abc import Iterator
from itertools import groupby

from spool.data.reading.table import Problem, Record, Rows
from spool.data.reading.text import Lines


def rows(lines: Lines, head: str, file: str) -> Rows:
    """The samples of a text. `head` is its beginning, by which it is seen which of the two it is."""
    blocks = [
        list(block) for filled, block in groupby(head.splitlines(), key=lambda line: bool(line.strip())) if filled
    ]
    paragraphs = len(blocks) > 1 and sum(len(block) > 1 for block in blocks) * 2 > len(blocks)
    note = "one sample a paragraph" if paragraphs else "one sample a line"
    items = _paragraphs(lines, file) if paragraphs else _lines(lines, file)
    return Rows("txt", note, items, ["text"])


def _lines(lines: Lines, file: str) -> Iterator[Record | Problem]:
    for number, byte, text in lines:
        if text is None:
            yield too_long(number, byte, file)
        elif text.strip():
            yield Record(number, {"text": text}, byte, file)


def _paragraphs(lines: Lines, file: str) -> Iterator[Record | Problem]:
    start: tuple[int, int] | None = None
    block: list[str] = []
    size = 0
    for number, byte, text in lines:
        if text is None:
            yield too_long(number, byte, file)
        elif text.strip():
            start = start or (number, byte)
            size += len(text)
            if size <= lines.most:
                block.append(text)
        elif start:
            yield _paragraph(start, block, size, lines.most, file)
            start, block, size = None, [], 0
    if start:
        yield _paragraph(start, block, size, lines.most, file)


def _paragraph(start: tuple[int, int], block: list[str], size: int, most: int, file: str) -> Record | Problem:
    if size > most:
        return too_long(*start, file)
    return Record(start[0], {"text": "\n".join(block)}, start[1], file)


def too_long(line: int, byte: int, file: str) -> Problem:
    return Problem(
        line, "row_too_large", "the row is longer than data_limits.max_row_mb allows.", "dropped", byte, file
    )
