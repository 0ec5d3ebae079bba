"""Job ids."""

import time

from hypothesis import given
from hypothesis import strategies as st

from spool.protocol.ulid import ALPHABET, is_ulid, mint


def test_fresh_ids_are_ulids_and_differ() -> None:
    ids = [mint() for _ in range(1000)]
    assert all(is_ulid(job_id) for job_id in ids)
    assert len(set(ids)) == len(ids)
    assert sorted(ids) == ids, "in the order of their making"


def test_ids_sort_by_time() -> None:
    first = mint()
    time.sleep(0.003)
    assert first < mint()


def test_the_time_stands_in_the_first_ten_characters() -> None:
    before_ms = time.time_ns() // 1_000_000
    value = 0
    for character in mint()[:10]:
        value = value * 32 + ALPHABET.index(character)
    assert before_ms <= value <= time.time_ns() // 1_000_000


@given(st.text())
def test_other_text_is_no_id(text: str) -> None:
    assert not is_ulid(text) or (len(text) == 26 and set(text) <= set(ALPHABET))


def test_what_looks_nearly_like_an_id() -> None:
    job_id = mint()
    for wrong in (job_id.lower(), job_id + "\n", "8" + job_id[1:], job_id[:-1] + "U", "../" + job_id, "", job_id[1:]):
        assert not is_ulid(wrong)
