"""What a report computes, with exact expectations, and the rules of the general set."""

import json

import pytest

from runner.report import general, scores
from runner.report.general import Question
from runner.report.rows import Row, Said
from spool.protocol import energy


def said(text: str, stopped: bool = True, tokens: int = 3, loss: float | None = 1.0) -> Said:
    return Said(text, stopped, tokens, loss)


def row(expected: str, base: str, tuned: str) -> Row:
    return Row("ask", expected, said(base, False, 9, 2.0), said(tuned))


def measured(rows: list[Row]) -> dict[str, dict]:
    return {each["name"]: each for each in scores.score(rows)["measures"]}


@pytest.mark.parametrize(
    ("expected", "kind"),
    [
        ([], "nothing"),
        (['{"a":1}'] * 9 + ["sorry"], "json"),
        (['{"a":1}'] * 8 + ["sorry", "sorry"], "label"),
        (["[1]", "[2]"], "text"),
        (["spam", "Ham", "ham ", "spam"], "label"),
        (["one", "two", "three"], "text"),
        (["x" * 61] * 4, "text"),
        (["two\nlines"] * 4, "text"),
        (["a single row"], "text"),
    ],
)
def test_the_task_is_recognised_from_the_expected_answers(expected: list[str], kind: str) -> None:
    assert scores.task(expected) == kind


def test_json_is_compared_field_for_field() -> None:
    want = '{"intent":"refund","order":null}'
    found = scores.score(
        [
            row(want, "Hello", '{"order": null, "intent": "refund"}'),
            row(want, '{"intent":"refund"}', '{"intent":"other","order":null}'),
            row(want, "[1]", want),
            row('{"intent":"other","n":1}', '{"n":NaN}', '{"intent":"other","n":true}'),
        ]
    )
    by_name = {each["name"]: each for each in found["measures"]}
    assert found["task"] == "json"
    assert (by_name["same_object"]["base"], by_name["same_object"]["tuned"]) == (0, 0.5)
    assert by_name["exact"]["tuned"] == 0.25, "the same object in other spaces is not the same text"
    assert (by_name["valid_json"]["base"], by_name["valid_json"]["tuned"]) == (0.25, 1), "NaN is no JSON"
    assert by_name["fields"]["base"] == pytest.approx(0.5 / 4), "an absent field is wrong, also where null is expected"
    assert by_name["fields"]["tuned"] == pytest.approx((1 + 0.5 + 1 + 0.5) / 4), "true is not 1"
    fields = {each["name"]: (each["base"], each["tuned"], each["of"]) for each in found["fields"]}
    assert fields == {"intent": (0.25, 0.75, 4), "order": (0, 1, 3), "n": (0, 0, 1)}


def test_labels_have_accuracy_f1_and_a_confusion_table() -> None:
    rows = [row("spam", "spam", "Spam"), row("spam", "?", "ham"), row("Ham", "spam", "ham"), row("ham", "ham.", "HAM")]
    by_name = measured(rows)
    assert (by_name["accuracy"]["base"], by_name["accuracy"]["tuned"]) == (0.25, 0.75)
    # tuned: spam has precision 1 and recall 1/2, ham 2/3 and 1
    assert by_name["macro_f1"]["tuned"] == pytest.approx((2 / 3 + 4 / 5) / 2)
    assert by_name["macro_f1"]["base"] == pytest.approx((2 * 0.5 * 0.5 / 1 + 0) / 2)
    found = scores.score(rows)
    assert found["labels"] == ["spam", "ham"]
    assert found["confusion"] == {"base": [[1, 0, 1], [1, 0, 1]], "tuned": [[1, 1, 0], [0, 2, 0]]}


def test_text_has_rouge_and_chrf_of_their_libraries() -> None:
    by_name = measured([row("Das Haus über dem Fluss", "Das Haus", "Das Haus über dem Fluss"), row("a b", "", "a b")])
    assert by_name["rouge_l"]["base"] == pytest.approx((2 * 1 * 0.4 / 1.4) / 2), "über is one word"
    assert (by_name["rouge_l"]["tuned"], by_name["chrf"]["tuned"]) == (1, 1)
    assert 0 < by_name["chrf"]["base"] < 0.5
    assert (by_name["stopped"]["base"], by_name["stopped"]["tuned"]) == (0, 1)
    assert (by_name["tokens"]["base"], by_name["tokens"]["tuned"]) == (9, 3)
    assert (by_name["loss"]["base"], by_name["loss"]["tuned"], by_name["loss"]["higher_is_better"]) == (2, 1, False)


def test_nothing_and_one_row_are_scored() -> None:
    assert scores.score([]) == {"task": "nothing", "rows": 0, "measures": []}
    assert measured([row("one", "two", "one")])["exact"]["tuned_interval"] == pytest.approx((0.2065, 1), abs=1e-4)


def test_intervals_and_chances_are_those_of_the_books() -> None:
    assert scores.wilson(0, 10) == pytest.approx((0, 0.2775), abs=1e-4)
    assert scores.wilson(76, 80) == pytest.approx((0.8784, 0.9804), abs=1e-4)
    assert scores.changed_by_chance(5, 0) == pytest.approx(2 / 2**5)
    assert scores.changed_by_chance(0, 0) == 1


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "\ud800", '{"a": Infinity}', ""])
def test_what_is_no_json_is_none(text: str) -> None:
    assert scores._object(text) is None


@pytest.mark.parametrize(
    ("question", "text", "right"),
    [
        (Question("k", "en", "Capital?", contains=["Paris"]), "It is PARIS, of course.", True),
        (Question("k", "en", "Capital?", contains=["Paris"]), "Parisian", False),
        (Question("k", "en", "Say Paris again", contains=["Paris"]), "Say Paris again", False),
        (Question("k", "en", "Larger?", contains=["384"], without=["348"]), "348 is smaller than 384", False),
        (Question("k", "en", "Hot?", exact=["cold"]), " Cold.\n\nAnd then more", True),
        (Question("k", "en", "Hot?", exact=["cold"]), "It is cold", False),
        (Question("k", "en", "Count", matches=r"1 2 3\.?"), "1 2 3", True),
        (Question("k", "en", "Count", matches=r"1 2 3\.?"), "1 2 3 4", False),
        (Question("k", "en", "Count", matches=r"1 2 3\.?"), "", False),
    ],
)
def test_general_questions_are_judged_by_plain_rules(question: Question, text: str, right: bool) -> None:
    assert general.right(question, text) is right


def test_the_general_set_is_whole_and_each_beginning_holds_every_kind() -> None:
    found = general.questions()
    kinds = {each.kind for each in found}
    assert len(found) == 40
    assert len({each.ask for each in found}) == 40
    assert {each.kind for each in found[: len(kinds)]} == kinds
    assert {each.language for each in found} == {"en", "de"}
    for each in found:
        assert sum(map(bool, (each.contains, each.exact, each.matches))) == 1, each.ask
        assert not general.right(each, each.ask), "repeating the question answers nothing"
        assert not general.right(each, ""), each.ask


def test_what_was_forgotten_is_counted_on_the_same_questions() -> None:
    known = [(each.contains or each.exact or [""])[0] for each in general.questions()[:10]]
    answers = [(said(right), said("{}" if i < 8 else right)) for i, right in enumerate(known)]
    found = general.judge(answers)
    by_base = sum(general.right(q, right) for q, right in zip(general.questions(), known, strict=False))
    assert (found["of"], found["base"], found["tuned"]) == (10, by_base, by_base - found["lost"])
    assert found["lost"] >= 6
    assert found["gained"] == 0
    assert found["chance"] < 0.05
    assert found["told"][0] == {"ask": general.questions()[0].ask, "base": known[0], "tuned": "{}"}
    assert sum(each["of"] for each in found["kinds"].values()) == 10


def test_the_way_counts_in_which_the_base_knows_more() -> None:
    knows = [(each.contains or each.exact or ["?"])[0] for each in general.questions()]
    nothing = [(said(""), said(""))] * 40
    text = [(said(f"{each}\nQuestion: more?\nAnswer: {each}"), said("")) for each in knows]
    silent, knowing = ([base for base, _ in pairs] for pairs in (nothing, text))
    assert general.best_way(dict(zip(general.WAYS, (silent, knowing), strict=True))) == "as plain text"
    assert general.best_way(dict(zip(general.WAYS, (silent, silent), strict=True))) == "as a conversation"
    found = general.judge(text, "as plain text")
    assert (found["way"], found["tuned"]) == ("as plain text", 0)
    assert found["base"] >= 33
    assert found["told"][0]["base"] == knows[0], "what it goes on to ask itself is no part of its answer"


def test_energy_is_the_same_for_rows_and_for_columns() -> None:
    rows = [{"t": 0, "gpu_power_w": 100, "attempt": 1}, {"t": 36, "gpu_power_w": 300, "attempt": 1}, {"t": 37}]
    assert energy.of_rows(rows) == pytest.approx(2)
    assert energy.of_rows([json.loads("{}")]) is None
