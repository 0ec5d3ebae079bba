"""Plain text: one sample a line, or a paragraph where blank lines part blocks that mostly have several lines."""

from itertools import groupby

from spool.data.table import Problem, Record


def rows(text: str) -> tuple[list[str], list[Record], list[Problem], str]:
    """(columns, records, problems, which of the two it is in words)."""
    numbered = enumerate(text.split("\n"), 1)
    blocks = [list(block) for filled, block in groupby(numbered, key=lambda item: bool(item[1].strip())) if filled]
    paragraphs = len(blocks) > 1 and sum(len(block) > 1 for block in blocks) * 2 > len(blocks)
    if paragraphs:
        records = [Record(block[0][0], {"text": "\n".join(line for _, line in block)}) for block in blocks]
        return ["text"], records, [], "one sample a paragraph"
    records = [Record(line, {"text": sample}) for block in blocks for line, sample in block]
    return ["text"], records, [], "one sample a line"
