"""Near duplicates: the estimate against the exact similarity, what is found and what is not, memory and speed."""

import random
import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spool.data.judging import near
from spool.data.judging.near import Near, groups, jaccard, signatures

WORDS = ["".join(random.Random(n).choices("abcdefghijklmnopqrstuvwxyz", k=2 + n % 8)) for n in range(3000)]


def write(chance: random.Random, words: int = 120) -> str:
    return " ".join(chance.choices(WORDS, k=words))


def edit(text: str, changes: int, chance: random.Random) -> str:
    words = text.split()
    for _ in range(changes):
        place = chance.randrange(len(words))
        words[place : place + chance.choice([0, 1])] = chance.choice([[], [chance.choice(WORDS)]])
    return " ".join(words)


def exact(first: str, second: str, width: int = 3) -> float:
    """Jaccard's similarity of word shingles, written another way."""
    one, other = (
        {tuple(words[place : place + width]) for place in range(max(1, len(words) - width + 1))}
        for words in (first.lower().split(), second.lower().split())
    )
    return len(one & other) / len(one | other)


def pairs_of(texts: list[str], threshold: float) -> set[tuple[int, int]]:
    rows = Near()
    rows.add(signatures(texts))
    return {(first, row) for first, row, _ in rows.groups(threshold)}


def test_jaccard_is_exact() -> None:
    chance = random.Random(1)
    for changes in range(40):
        text = write(chance, 60)
        assert jaccard(text, edited := edit(text, changes, chance)) == pytest.approx(exact(text, edited))


def test_the_estimate_is_unbiased_and_as_sure_as_64_numbers_can_be() -> None:
    chance = random.Random(2)
    errors = []
    for _ in range(600):
        text = write(chance)
        edited = edit(text, chance.randint(0, 25), chance)
        one, other = signatures([text, edited])
        errors.append(np.mean(one == other) - jaccard(text, edited))
    assert abs(np.mean(errors)) < 0.01
    assert np.sqrt(np.mean(np.square(errors))) < 0.0625


def test_precision_and_recall_against_the_exact_similarity() -> None:
    """Sure of what is 0.06 (one standard error) beyond the threshold; nothing is found that is three below it."""
    chance = random.Random(3)
    texts: list[str] = []
    for _ in range(700):
        text = write(chance)
        texts += [text, edit(text, chance.randint(0, 16), chance)]
    similarity = [jaccard(texts[n], texts[n + 1]) for n in range(0, len(texts), 2)]
    found = pairs_of(texts, 0.85)
    assert all(row == first + 1 and first % 2 == 0 for first, row in found)
    truly = {(2 * n, 2 * n + 1) for n, value in enumerate(similarity) if value >= 0.85}
    clearly = {(2 * n, 2 * n + 1) for n, value in enumerate(similarity) if value >= 0.91}
    assert len(truly) > 100
    assert len(clearly & found) / len(clearly) > 0.95
    assert len(truly & found) / len(truly) > 0.85
    assert len(truly & found) / len(found) > 0.8
    assert min(similarity[first // 2] for first, _ in found) > 0.85 - 3 * 0.05


def test_rows_of_one_template_are_compared_past_the_first() -> None:
    """All rows share most words and so many bands; the like ones among them are found all the same."""
    chance = random.Random(4)
    frame = [write(chance, 10) for _ in range(7)]
    texts = [" ".join(f"{piece} {write(chance, 5)}" for piece in frame) for _ in range(400)]
    texts += [text + " at last" for text in texts[::4]]
    assert {(4 * (row - 400), row) for row in range(400, 500)} <= pairs_of(texts, 0.85)


def test_groups_of_texts() -> None:
    chance = random.Random(5)
    one, other = write(chance), write(chance)
    texts = [one, "something else altogether here", other, one.upper() + "!", one + " more", other]
    assert groups(texts) == [[0, 3, 4], [2, 5]]
    assert groups([]) == []
    assert groups(["alone"]) == []


def test_what_is_kept_is_like_what_is_dropped() -> None:
    """A chain a~b~c with a unlike c: c stays, for nothing like it would be left."""
    words = WORDS[:100]
    texts = [" ".join(words[shift : shift + 60]) for shift in range(0, 40, 4)]
    for first, *others in groups(texts, 0.8):
        assert all(jaccard(texts[first], texts[row]) >= 0.8 for row in others)
    dropped = {row for _, row in pairs_of(texts, 0.8)}
    assert all(first not in dropped for first, _ in pairs_of(texts, 0.8))


def test_short_rows_differ_by_a_word() -> None:
    texts = [
        "What is the capital of France?",
        "What is the capital of Spain?",
        "Thanks a lot",
        "Thanks a lot!",
        "no",
        "yes",
    ]
    assert groups(texts) == [[2, 3]]


def test_writing_without_spaces_is_taken_by_characters() -> None:
    texts = [
        "今天天气很好我们一起去公园散步吧然后吃晚饭",
        "今天天气很好我们一起去公园散步吧然后吃晚餐",
        "明天可能会下雨所以我们应该留在家里看电影",
    ]
    assert groups(texts, 0.75) == [[0, 1]]


def test_the_order_and_the_batches_make_no_difference() -> None:
    chance = random.Random(6)
    texts = [write(chance, chance.randint(0, 40)) for _ in range(50)] + [
        "",
        "!!!",
        "今天天气很好我们一起去公园散步吧然后",
    ]
    alone = np.concatenate([signatures([text]) for text in texts])
    assert (signatures(texts) == alone).all()
    assert (signatures(texts[::-1]) == alone[::-1]).all()


@given(st.lists(st.text(max_size=40), max_size=8))
@settings(max_examples=300, deadline=None)
def test_any_text_is_like_itself(texts: list[str]) -> None:
    assert signatures(texts).shape == (len(texts), 64)
    found = pairs_of([*texts, *texts], 0.85)
    assert {row for _, row in found} >= set(range(len(texts), 2 * len(texts)))
    assert all(jaccard(text, text) == 1 for text in texts)


def test_a_lone_surrogate_harms_nothing() -> None:
    assert signatures(["a\ud800 b c", "\ud800" * 40]).shape == (2, 64)


@pytest.mark.alone
def test_speed_and_memory() -> None:
    """Measured: 25,000 to 32,000 rows of 1 KB a second on one core; the bound leaves room for a busy machine."""
    chance = random.Random(7)
    texts = [write(chance, 180) for _ in range(2000)]
    start = time.process_time()
    rows = signatures(texts)
    assert 2000 / (time.process_time() - start) > 5000
    tracemalloc.start()
    held = Near()
    for _ in range(50):
        held.add(rows)
    many = sum(1 for _ in held.groups())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert many == len(held) - 2000
    assert peak / len(held) < 700  # bytes a row, of which some 30 MB do not grow with the rows


def test_bands_catch_what_they_should() -> None:
    for threshold in (0.5, 0.7, 0.8, 0.85, 0.9, 0.95):
        width = near._rows_a_band(threshold)
        assert 1 - (1 - threshold**width) ** (64 // width) >= 0.99
