"""What is found by comparing rows with each other: duplicates, contradictions, one answer for all, odd lengths."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from spool.data.judging.scan import Scan
from spool.data.reading.table import Problem

FEW_ROWS = 10
EXTREME_TIMES, EXTREME_CHARACTERS = 20, 20_000
SHORTEST_CHARACTERS = 2


def compare(scan: Scan) -> None:
    """Adds these findings to the scan: duplicate, conflicting_answers, one_label, extreme_length."""
    if not scan.usable:
        return
    hashes = np.frombuffer(bytes(scan.tally.examples), np.uint64).reshape(-1, 2)
    repeated = np.zeros(scan.usable, bool)
    for first, row in _repeats(hashes[:, 0], hashes[:, 1]):
        repeated[row] = True
        scan.flag("duplicate", row, f"the same as line {_line(scan, first)}.")
    _conflicts(scan, repeated)
    _one_answer(scan)
    _lengths(scan)


def most_repeated(scan: Scan, most: int = 10) -> list[tuple[int, int]]:
    """(first usable row, how often it stands there) of the rows that stand there most often."""
    hashes = np.frombuffer(bytes(scan.tally.examples), np.uint64).reshape(-1, 2)
    if not len(hashes):
        return []
    _, first, times = np.unique(hashes[:, 0] ^ (hashes[:, 1] << np.uint64(1)), return_index=True, return_counts=True)
    order = np.lexsort((first, -times))[:most]
    return [(int(first[n]), int(times[n])) for n in order if times[n] > 1]


def overlap(training: Scan, evaluation: Scan) -> np.ndarray:
    """The usable rows (from 0) of the evaluation data whose prompt, or whole text, is trained on as well."""
    if not training.usable or not evaluation.usable:
        return np.zeros(0, np.int64)
    return np.flatnonzero(np.isin(question_keys(evaluation), question_keys(training)))


def question_keys(scan: Scan) -> np.ndarray:
    """One 64-bit hash a usable row of what is asked; of the whole text where nothing is."""
    prompts = np.frombuffer(scan.tally.prompts, np.uint64)
    answers = np.frombuffer(scan.tally.answers, np.uint64)
    return np.where(prompts == 0, answers, prompts)


def _repeats(*keys: np.ndarray) -> Iterator[tuple[int, int]]:
    """(first, row) for each row whose keys an earlier one has, by row."""
    order = np.lexsort(keys[::-1])  # stable: within equal keys the rows stay in their order
    equal = np.ones(len(order) - 1, bool)
    for key in keys:
        equal &= key[order[1:]] == key[order[:-1]]
    starts = np.flatnonzero(np.concatenate(([True], ~equal)))
    first = np.repeat(order[starts], np.diff(np.append(starts, len(order))))
    later = np.flatnonzero(first != order)
    by_row = later[np.argsort(order[later])]
    yield from zip(first[by_row].tolist(), order[by_row].tolist(), strict=True)


def _conflicts(scan: Scan, repeated: np.ndarray) -> None:
    """The same prompt with another answer than the first time."""
    prompts = np.frombuffer(scan.tally.prompts, np.uint64)
    answers = np.frombuffer(scan.tally.answers, np.uint64)
    for first, row in _repeats(prompts):
        if prompts[row] and answers[first] != answers[row] and not repeated[row]:
            words = f"the same prompt as line {_line(scan, first)}, with another answer: it teaches to guess."
            scan.flag("conflicting_answers", row, words)


def _one_answer(scan: Scan) -> None:
    if scan.layout.format == "label":
        if len(scan.tally.labels) == 1 and scan.usable > 1:
            label = next(iter(scan.tally.labels))
            words = f"every row has the same label ({label[:40]!r}): there is nothing to tell apart."
            scan.tally.findings.add(Problem(0, "one_label", words, "blocks"))
        return
    answers = np.frombuffer(scan.tally.answers, np.uint64)
    if scan.layout.format != "text" and scan.usable >= FEW_ROWS and (answers == answers[0]).all():
        words = "every row has the same answer: the model would learn to give it always."
        scan.tally.findings.add(Problem(0, "one_answer", words, "kept"))


def _lengths(scan: Scan) -> None:
    sizes = np.frombuffer(scan.tally.characters, np.int32)
    median = float(np.median(sizes))
    for row in np.flatnonzero(sizes > max(EXTREME_TIMES * median, EXTREME_CHARACTERS)).tolist():
        times = sizes[row] / max(median, 1)
        scan.flag("extreme_length", row, f"{sizes[row]:,} characters, {times:,.0f} times the median of all rows.")
    for row in np.flatnonzero(sizes < SHORTEST_CHARACTERS).tolist():
        scan.flag("extreme_length", row, f"hardly any text: {_counted(int(sizes[row]), 'character')}.")


def _line(scan: Scan, row: int) -> str:
    place: dict[str, Any] = scan.place(row)
    return f"{place['line']:,} of {place['file']}" if place["file"] else f"{place['line']:,}"


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
