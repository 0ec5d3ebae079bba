"""Differences between versions: a multiset of rows by content, with changed rows found by id, question or line."""

from collections import Counter
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spool.data.keeping import diff as diffs
from spool.data.keeping import keep
from spool.data.keeping.diff import diff
from spool.protocol.errors import NotFound
from spool.protocol.home import Home


def store(home: Home, values: list[dict[str, Any]]) -> str:
    data = b"".join(orjson.dumps(value) + b"\n" for value in values)
    return keep.add(home, "rows", "rows.jsonl", data).reference


def counts(found: diffs.Diff) -> tuple[int, int, int, int]:
    return found.added, found.removed, found.changed, found.unchanged


def test_order_and_key_order_are_no_difference(home: Home) -> None:
    before = store(home, [{"prompt": "a", "completion": "b"}, {"prompt": "c", "completion": "d"}])
    after = store(home, [{"completion": "d", "prompt": "c"}, {"completion": "b", "prompt": "a"}])
    assert counts(diff(home, before, after)) == (0, 0, 0, 2)


def test_another_answer_to_the_same_question_is_a_change(home: Home) -> None:
    before = store(home, [{"prompt": p, "completion": p.upper()} for p in "abcd"])
    after = store(home, [{"prompt": p, "completion": "C!" if p == "c" else p.upper()} for p in "acdef"])
    found = diff(home, before, after)
    assert counts(found) == (2, 1, 1, 2)
    assert found.changed_rows == [
        diffs.Change(3, 2, {"prompt": "c", "completion": "C"}, {"prompt": "c", "completion": "C!"})
    ]
    assert [each.after["prompt"] for each in found.added_rows if each.after] == ["e", "f"]
    assert [(each.line_before, each.line_after) for each in found.removed_rows] == [(2, None)]


def test_an_id_counts_more_than_the_question(home: Home) -> None:
    before = store(home, [{"id": n, "prompt": f"q{n}", "completion": "x"} for n in range(3)])
    after = store(home, [{"id": n, "prompt": f"Q{n}" if n == 1 else f"q{n}", "completion": "x"} for n in range(3)])
    found = diff(home, before, after)
    assert counts(found) == (0, 0, 1, 2)


def test_plain_text_changes_on_its_line(home: Home) -> None:
    before = store(home, [{"text": "a"}, {"text": "b"}, {"text": "c"}])
    after = store(home, [{"text": "a"}, {"text": "B"}, {"text": "c"}, {"text": "d"}])
    found = diff(home, before, after)
    assert counts(found) == (1, 0, 1, 2)
    assert [(each.line_before, each.line_after) for each in found.changed_rows] == [(2, 2)]


def test_repeated_rows_count_as_often_as_they_stand_there(home: Home) -> None:
    before = store(home, [{"prompt": "a", "completion": "b"}] * 5)
    after = store(home, [{"prompt": "a", "completion": "b"}] * 2)
    found = diff(home, before, after)
    assert counts(found) == (0, 3, 0, 2)
    assert counts(diff(home, after, before)) == (3, 0, 0, 2)


def test_another_layout_with_the_same_questions(home: Home) -> None:
    before = store(home, [{"prompt": "a", "completion": "b"}, {"prompt": "c", "completion": "d"}])
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    found = diff(home, before, store(home, [{"messages": turns}]))
    assert counts(found) == (0, 1, 1, 0)
    assert found.to_json()["changed_rows"][0]["after"] == {"messages": turns}


def test_an_unrecognised_layout_is_compared_by_line(home: Home) -> None:
    before, after = (store(home, [{"Frage": "a", "Zahl": n}]) for n in (1, 2))
    assert counts(diff(home, before, after)) == (0, 0, 1, 0)


def test_few_rows_are_shown_of_many(home: Home) -> None:
    before = store(home, [{"prompt": f"{n}", "completion": "x"} for n in range(1000)])
    after = store(home, [{"prompt": f"{n}", "completion": "y"} for n in range(500, 1500)])
    found = diff(home, before, after)
    assert counts(found) == (500, 500, 500, 0)
    assert [len(each) for each in (found.added_rows, found.removed_rows, found.changed_rows)] == [200] * 3
    assert [each.line_before for each in found.removed_rows] == list(range(1, 201))


def test_versions_that_are_not_there(home: Home) -> None:
    with pytest.raises(NotFound):
        diff(home, "rows", "rows@000000000000")


@settings(max_examples=200, deadline=None)
@given(left=st.lists(st.integers(0, 6), max_size=30), right=st.lists(st.integers(0, 6), max_size=30))
def test_a_surplus_is_that_of_multisets(left: list[int], right: list[int]) -> None:
    a, b = (np.array(values, np.uint64) for values in (left, right))
    more = Counter(a[diffs._surplus(a, b)].tolist())
    assert more == Counter(left) - Counter(right)
    at_left, at_right = diffs._paired(a, b)
    assert a[at_left].tolist() == b[at_right].tolist()
    assert Counter(a[at_left].tolist()) == Counter(left) & Counter(right)
