"""Rows that are nearly the same, by MinHash and banding: 64 numbers a row, so that a million rows fit in memory.

A row is the set of its word 3-shingles; MinHash signatures estimate the Jaccard similarity of two sets (Broder, "On the
resemblance and containment of documents", 1997), and banding finds the similar pairs without comparing all (Leskovec,
Rajaraman, Ullman, "Mining of Massive Datasets", ch. 3). An estimate's standard error is at most 0.0625.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

PERMUTATIONS = 64
THRESHOLD = 0.85
WORDS_A_SHINGLE = 3
CHARACTERS_A_SHINGLE = 5
SPACED_CHARACTERS = 12
"""A text with fewer spaces than one in so many characters is taken by its characters: Chinese, Japanese, Thai."""

_CHUNK_CHARACTERS = 1 << 19
_PAIRS_AT_ONCE = 1 << 15
_ROUNDS = 8
_RECALL = 0.99

_random = np.random.default_rng(20260101)
_FACTORS = _random.integers(0, 1 << 32, PERMUTATIONS, dtype=np.uint32) | np.uint32(1)
_OFFSETS = _random.integers(0, 1 << 32, PERMUTATIONS, dtype=np.uint32)
# Letters, digits and every byte of a character outside ASCII make words (0: it parts them).
_BYTES = np.where(
    [byte > 127 or chr(byte).isalnum() for byte in range(256)], _random.integers(1, 1 << 63, 256, dtype=np.uint64), 0
).astype(np.uint64)
_ODD = np.uint64(0x9E3779B97F4A7C15)
_POWERS = np.cumprod(np.full(64, _ODD))
_SHIFT = np.uint64(32)


def signatures(texts: Sequence[str]) -> NDArray[np.uint32]:
    """(n, 64) MinHash signatures. Case and punctuation make no difference; all texts without a word are alike.

    About 25,000 rows of 1 KB a second on one core.
    """
    result = np.full((len(texts), PERMUTATIONS), 0xFFFFFFFF, dtype=np.uint32)
    chunk: list[int] = []
    size = 0
    for row, text in enumerate(texts):
        chunk.append(row)
        size += len(text)
        if size >= _CHUNK_CHARACTERS or row == len(texts) - 1:
            for rows, hashes, starts in _shingles(texts, chunk):
                for column in range(PERMUTATIONS):
                    result[rows, column] = np.minimum.reduceat(hashes * _FACTORS[column] + _OFFSETS[column], starts)
            chunk, size = [], 0
    return result


def jaccard(first: str, second: str) -> float:
    """The exact similarity of two texts, that of their sets of shingles: 0 to 1."""
    one, other = ({int(each) for _, hashes, _ in _shingles([text], [0]) for each in hashes} for text in (first, second))
    return len(one & other) / len(one | other) if one or other else 1.0


class Near:
    """Finds similar rows among all that were added. 256 bytes a row, and about 60 more while `groups` runs."""

    def __init__(self) -> None:
        self._signatures = bytearray()

    def __len__(self) -> int:
        return len(self._signatures) // (4 * PERMUTATIONS)

    def add(self, rows: NDArray[np.uint32]) -> None:
        """The next rows, (n, 64), as `signatures` gives them."""
        self._signatures += rows.tobytes()

    def groups(self, threshold: float = THRESHOLD) -> Iterator[tuple[int, int, float]]:
        """(first, row, similarity) of each row that is like an earlier one, by row; counted from 0 as added.

        `first` is the earliest similar row that is not itself given as like another, so that keeping the firsts and
        dropping the rows leaves something like each dropped one. The similarity is estimated.
        """
        if not len(self):
            return
        rows = np.frombuffer(self._signatures, dtype=np.uint32).reshape(-1, PERMUTATIONS)
        given = bytearray(len(rows))
        for pair in _similar_pairs(rows, threshold):
            row, first = divmod(int(pair), 1 << 32)
            if not given[row] and not given[first]:
                given[row] = True
                yield first, row, np.count_nonzero(rows[first] == rows[row]) / PERMUTATIONS


def groups(texts: Sequence[str], threshold: float = THRESHOLD) -> list[list[int]]:
    """The places of near duplicates, each group by its first; every later one is exactly that similar to the first."""
    near = Near()
    near.add(signatures(texts))
    found: dict[int, list[int]] = {}
    for first, row, _ in near.groups(threshold - 0.1):
        if jaccard(texts[first], texts[row]) >= threshold:
            found.setdefault(first, [first]).append(row)
    return [found[first] for first in sorted(found)]


def _shingles(
    texts: Sequence[str], chunk: Sequence[int]
) -> Iterator[tuple[list[int], NDArray[np.uint32], NDArray[np.intp]]]:
    """(rows, hashes of their shingles one row after the other, where each begins); rows without a word are left out."""
    spaced: list[int] = []
    unspaced: list[int] = []
    for row in chunk:
        text = texts[row]
        spaces = text.count(" ") + text.count("\n") + 1
        (spaced if spaces * SPACED_CHARACTERS >= len(text) else unspaced).append(row)
    for rows, read, width in (
        (spaced, _words, WORDS_A_SHINGLE),
        (unspaced, _characters, CHARACTERS_A_SHINGLE),
    ):
        if rows:
            tokens, counts = read([texts[row].lower() for row in rows])
            filled = [row for row, count in zip(rows, counts.tolist(), strict=True) if count]
            if filled:
                yield filled, *_windows(tokens, counts[counts > 0], width)


def _words(texts: list[str]) -> tuple[NDArray[np.uint64], NDArray[np.intp]]:
    """(a hash of each word, words of each text). The hash is a polynomial over the word's bytes, modulo 2^64."""
    encoded = [text.encode(errors="surrogatepass") for text in texts]
    data = np.frombuffer(b" " + b" ".join(encoded), dtype=np.uint8)
    values = _BYTES[data]
    inside = values != 0
    starts = np.flatnonzero(inside[1:] > inside[:-1]) + 1
    ends = np.cumsum([len(each) + 1 for each in encoded])
    counts = np.diff(np.searchsorted(starts, ends, side="right"), prepend=0)
    if not len(starts):
        return np.empty(0, dtype=np.uint64), counts
    lengths = np.diff(starts, append=len(data))
    place = np.arange(starts[0], len(data)) - np.repeat(starts, lengths)
    return np.add.reduceat(values[starts[0] :] * _POWERS[place & 63], starts - starts[0]), counts


def _characters(texts: list[str]) -> tuple[NDArray[np.uint64], NDArray[np.intp]]:
    """(each character that is no space, characters of each text)."""
    packed = ["".join(text.split()) for text in texts]
    data = np.frombuffer("".join(packed).encode("utf-32-le", errors="surrogatepass"), dtype=np.uint32)
    return data.astype(np.uint64) * _ODD, np.fromiter(map(len, packed), dtype=np.intp, count=len(packed))


def _windows(
    tokens: NDArray[np.uint64], counts: NDArray[np.intp], width: int
) -> tuple[NDArray[np.uint32], NDArray[np.intp]]:
    """(hashes of `width` tokens in a row, where each text begins). A shorter text is one shingle as a whole."""
    ends = np.cumsum(counts)
    place = np.arange(len(tokens))
    left = np.repeat(ends, counts) - place
    hashes = tokens.copy()
    for step in range(1, width):
        following = np.where(left > step, np.roll(tokens, -step), np.uint64(step))
        hashes = (hashes ^ (hashes >> _SHIFT)) * _ODD + following
    hashes = (hashes ^ (hashes >> _SHIFT)) * _ODD
    begins = np.zeros(len(tokens), dtype=bool)
    begins[ends - counts] = True
    kept = (left >= width) | begins
    shingles = np.maximum(counts - width + 1, 1)
    return (hashes[kept] >> _SHIFT).astype(np.uint32), np.cumsum(shingles) - shingles


def _rows_a_band(threshold: float) -> int:
    """The longest bands that still bring a pair at the threshold together with a chance of 99 %."""
    fits = [r for r in range(1, 17) if 1 - (1 - threshold**r) ** (PERMUTATIONS // r) >= _RECALL]
    return max(fits, default=1)


def _similar_pairs(rows: NDArray[np.uint32], threshold: float) -> NDArray[np.uint64]:
    """The pairs at least as similar as the threshold, each the later row * 2^32 + the earlier, in order."""
    width = _rows_a_band(threshold)
    pairs = np.empty(0, dtype=np.uint64)
    for first in range(0, PERMUTATIONS - width + 1, width):
        pairs = np.concatenate([pairs, *_pairs_of_band(rows, first, width, threshold)])
        pairs.sort()
        pairs = pairs[np.append(True, pairs[1:] != pairs[:-1])] if len(pairs) else pairs
    return pairs


def _pairs_of_band(rows: NDArray[np.uint32], first: int, width: int, threshold: float) -> Iterator[NDArray[np.uint64]]:
    """Rows that agree in a band are compared with the first of them; those unlike it among themselves, and so on."""
    key = np.zeros(len(rows), dtype=np.uint64)
    for column in range(first, first + width):
        key = (key ^ (key >> _SHIFT)) * _ODD + rows[:, column]
    members = np.argsort(key, kind="stable").astype(np.uint32)
    for _ in range(_ROUNDS):
        if len(members) < 2:
            return
        runs = key[members]
        same = runs[1:] == runs[:-1]
        if not same.any():
            return
        in_run = np.append(same, False) | np.append(False, same)
        members, runs = members[in_run], runs[in_run]
        begins = np.append(True, runs[1:] != runs[:-1])
        leaders = members[np.flatnonzero(begins)][np.cumsum(begins) - 1]
        later, earlier = members[~begins], leaders[~begins]
        like = _alike(rows, later, earlier, threshold)
        yield (later[like].astype(np.uint64) << _SHIFT) | earlier[like]
        members = later[~like]


def _alike(
    rows: NDArray[np.uint32], one: NDArray[np.uint32], other: NDArray[np.uint32], threshold: float
) -> NDArray[np.bool_]:
    """Which pairs share enough equal numbers: their share estimates the Jaccard similarity."""
    result = np.empty(len(one), dtype=bool)
    for start in range(0, len(one), _PAIRS_AT_ONCE):
        part = slice(start, start + _PAIRS_AT_ONCE)
        equal = np.count_nonzero(rows[one[part]] == rows[other[part]], axis=1)
        result[part] = equal >= threshold * PERMUTATIONS
    return result
