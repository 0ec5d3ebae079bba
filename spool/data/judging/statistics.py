"""The figures about a dataset that the page draws: lengths, turns, languages, labels, what is repeated most."""

import math
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from spool.data.judging import language, repeats
from spool.data.judging.examples import to_example
from spool.data.judging.formats import Layout
from spool.data.judging.scan import Scan
from spool.data.reading.read import Reading
from spool.data.reading.table import Problem, Record

if TYPE_CHECKING:
    from spool.data.judging.check import Examined

BINS = 30
SHOWN_LABELS, SHOWN_REPEATS = 20, 5
PREVIEW_CHARACTERS = 160
SUGGESTED_SHARE, SUGGESTED_STEP_TOKENS = 0.99, 64


def of(done: "Examined") -> dict[str, Any]:
    """The `statistics` of a report; docs/data.md describes each."""
    found = done.scan
    if done.tokens is not None:
        lengths, unit = done.tokens.lengths, "tokens"
    else:
        lengths, unit = np.frombuffer(found.tally.characters, np.int32), "characters"
    edges, counts = histogram(lengths)
    return {
        "lengths": {
            "unit": unit,
            "edges": edges,
            "counts": counts,
            "limit": done.max_length,
            "suggested": suggested_length(lengths) if done.tokens is not None else None,
        },
        "turns": [[turns, rows] for turns, rows in sorted(found.tally.turns.items())],
        "languages": [[code, rows] for code, rows in language.languages(found.tally.texts)],
        "labels": [[label, rows] for label, rows in found.tally.labels.most_common(SHOWN_LABELS)],
        "top_duplicates": _top_duplicates(found),
        "sampled_rows": done.looked_at if done.looked_at < found.usable else None,
    }


def percentiles(lengths: np.ndarray) -> dict[str, int]:
    """Nearest-rank percentiles: each is the length of a real row."""
    ordered = np.sort(lengths) if len(lengths) else np.zeros(1, np.int32)

    def at(share: float) -> int:
        return int(ordered[max(0, math.ceil(share * len(ordered)) - 1)])

    return {"p50": at(0.5), "p95": at(0.95), "max": int(ordered[-1])}


def suggested_length(lengths: np.ndarray) -> int:
    """The smallest multiple of 64 tokens that holds 99 % of the rows whole."""
    if not len(lengths):
        return SUGGESTED_STEP_TOKENS
    held = np.sort(lengths)[max(0, math.ceil(SUGGESTED_SHARE * len(lengths)) - 1)]
    return int(math.ceil(held / SUGGESTED_STEP_TOKENS) * SUGGESTED_STEP_TOKENS)


def histogram(lengths: np.ndarray) -> tuple[list[int], list[int]]:
    """(edges, counts): at most 30 bins of one width in whole numbers, from 0 to the longest row."""
    longest = int(lengths.max(initial=1))
    width = max(1, math.ceil(longest / BINS))
    edges = np.arange(0, longest + width + 1, width)
    counts, _ = np.histogram(lengths, edges)
    return edges.tolist(), counts.tolist()


def _top_duplicates(found: Scan) -> list[dict[str, Any]]:
    often = repeats.most_repeated(found, SHOWN_REPEATS)
    lines = {found.place(row)["line"]: times for row, times in often}
    if not lines:
        return []
    texts = {}
    for item in Reading(found.path, found.dialect, found.limits):
        if isinstance(item, Record) and item.line in lines and item.line not in texts:
            texts[item.line] = _preview(item, found.layout)
            if len(texts) == len(lines):
                break
    return [{"line": line, "times": times, "text": texts.get(line, "")} for line, times in lines.items()]


def _preview(record: Record, layout: Layout) -> str:
    example = to_example(record, layout)
    if isinstance(example, Problem):
        return ""
    texts = [message["content"] for message in example.messages or []] or [example.text or ""]
    return " → ".join(" ".join(text.split()) for text in islice(texts, 3))[:PREVIEW_CHARACTERS]
