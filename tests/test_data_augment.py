"""Augmentation: marked, repeatable, answers untouched, and rules that write what a person would."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spool.data.judging.examples import Example, to_example
from spool.data.judging.formats import Layout
from spool.data.keeping import augment, variants
from spool.data.keeping.rows import MARKS, layout_of
from spool.data.keeping.steps import KeepUsable, parse
from spool.data.reading.table import Record
from spool.protocol.errors import DataError

TURNS = [
    {"from": "system", "value": "Please answer kindly about things."},
    {"from": "human", "value": "Where is the nearest station, please?"},
    {"from": "gpt", "value": "Please look behind the nearest corner."},
    {"from": "human", "value": "Thanks, which trains leave there today?"},
    {"from": "gpt", "value": "Several trains leave there today."},
]
ROWS: dict[str, list[dict[str, Any]]] = {
    "alpaca": [
        {"instruction": f"Explain the colour number {n}.", "input": "red", "output": "It is red."} for n in range(9)
    ],
    "question_answer": [
        {"question": f"What is the number of house {n}?", "answer": "The number is eight."} for n in range(9)
    ],
    "prompt_completion": [
        {"prompt": f"Write a letter to the friend {n}", "completion": "Dear friend"} for n in range(9)
    ],
    "sharegpt": [{"conversations": TURNS, "id": n} for n in range(9)],
    "label": [{"text": f"This product broke after day {n}", "label": "bad" if n else "good"} for n in range(9)],
    "preference": [
        {"prompt": f"Where is the station {n}?", "chosen": "Right here.", "rejected": "There."} for n in range(9)
    ],
}


def records(format: str) -> list[Record]:
    return [Record(line, value) for line, value in enumerate(ROWS[format], 2)]


def made(rows: list[Record], **step: Any) -> list[Record]:
    return list(augment.augment(lambda: iter(rows), parse({"step": "augment", **step}))())  # type: ignore[arg-type]


def answers(record: Record, layout: Layout) -> list[str]:
    example = to_example(record, layout)
    assert isinstance(example, Example)
    return [each["content"] for each in example.messages or [] if each["role"] != "user"]


@pytest.mark.parametrize(
    ("format", "kind"),
    [("alpaca", "wrap"), ("question_answer", "wrap"), ("prompt_completion", "wrap"), ("question_answer", "reword")]
    + [(format, "noise") for format in ROWS],
)
def test_made_rows_are_marked_and_keep_their_answers(format: str, kind: str) -> None:
    rows = records(format)
    layout = layout_of(lambda: iter(rows), KeepUsable())
    assert layout.format == format
    found = made(rows, kind=kind, share=1.0, **({"typos": 0.2} if kind == "noise" else {}))
    originals = [each for each in found if "augmented" not in each.value]
    assert originals == rows, "the rows themselves stay as they are, in their order"
    others = [each for each in found if "augmented" in each.value]
    assert len(others) >= 7
    by_line = {record.line: record for record in rows}
    for each in others:
        source = by_line[each.value["augmented_from"]]
        assert each.value["augmented"] == kind
        assert answers(each, layout) == answers(source, layout)
        assert {key: value for key, value in each.value.items() if key not in MARKS} != source.value
        assert each.value.get("rejected") == source.value.get("rejected")
    assert layout_of(lambda: iter(found), KeepUsable()) == layout, "the marks do not confuse what is recognised"
    assert made(rows, kind=kind, share=1.0, **({"typos": 0.2} if kind == "noise" else {})) == found
    assert made(found, kind=kind, share=1.0, **({"typos": 0.2} if kind == "noise" else {})) == [
        each
        for record in found
        for each in ([record, *made_of(record, found)] if "augmented" not in record.value else [record])
    ], "nothing is made from a made row"


def made_of(record: Record, found: list[Record]) -> list[Record]:
    return [each for each in found if each.value.get("augmented_from") == record.line]


def test_seeds_and_shares() -> None:
    rows = [Record(n, {"question": f"How do I open the door {n}?", "answer": "Push."}) for n in range(1, 400)]
    some = made(rows, kind="wrap", share=0.25, seed=1)
    assert 60 < len(some) - len(rows) < 140
    assert some != made(rows, kind="wrap", share=0.25, seed=2)
    fewer = [each for each in made(rows[50:], kind="wrap", share=0.25, seed=1) if "augmented" in each.value]
    assert all(each in some for each in fewer), "what becomes of a row does not hang on the others"


@pytest.mark.parametrize(
    ("kind", "rows", "says"),
    [
        ("noise", [{"text": "once upon a time there was"}], "Plain text has no question"),
        ("wrap", ROWS["sharegpt"], "noise and reword serve chats too"),
        ("balance", ROWS["alpaca"], "Name the column with by"),
    ],
)
def test_what_cannot_be_augmented(kind: str, rows: list[dict[str, Any]], says: str) -> None:
    with pytest.raises(DataError) as error:
        made([Record(1, value) for value in rows], kind=kind)
    assert says in error.value.hint
    assert error.value.code == "cannot_augment"


def test_balancing_repeats_rare_labels_evenly() -> None:
    labels = ["a"] * 20 + ["b"] * 8 + ["c"] * 2
    rows = [Record(n, {"text": f"text {n}", "label": label}) for n, label in enumerate(labels, 1)]

    def counts(**step: Any) -> dict[str, int]:
        found = [each.value["label"] for each in made(rows, kind="balance", **step)]
        return {label: found.count(label) for label in "abc"}

    assert counts() == {"a": 20, "b": 20, "c": 12}, "five copies of a row at most"
    assert counts(most=9) == {"a": 20, "b": 20, "c": 20}
    assert counts(up_to=0.5) == {"a": 20, "b": 10, "c": 10}
    copies = [
        each.value["augmented_from"] for each in made(rows, kind="balance", by="label") if "augmented" in each.value
    ]
    assert {copies.count(line) for line in range(21, 29)} == {1, 2}


def test_chats_keep_their_dialect_and_their_form() -> None:
    import json

    text = [Record(1, {"conversations": json.dumps(TURNS)})]
    found = made(text, kind="noise", share=1.0, typos=0.2)[1].value["conversations"]
    assert isinstance(found, str)
    turns = json.loads(found)
    assert [turn["from"] for turn in turns] == [turn["from"] for turn in TURNS]
    assert [turn["value"] for turn in turns[::2]] == [turn["value"] for turn in TURNS[::2]]
    assert turns[1] != TURNS[1]


def test_a_preview_shows_before_and_after() -> None:
    pairs = augment.preview(records("question_answer"), {"step": "augment", "kind": "reword"}, n=3)
    assert len(pairs) == 3
    before, after = pairs[0]
    assert before == ROWS["question_answer"][0]
    assert after["question"] in (
        "Can you tell me what the number of house 0 is?",
        "Do you know what the number of house 0 is?",
    )
    with pytest.raises(DataError, match="only augmentations"):
        augment.preview([], {"step": "dedupe"})


@pytest.mark.parametrize(
    ("asked", "reworded"),
    [
        ("What is the capital of France?", "what the capital of France is?"),
        ("what are your opening hours?", "what your opening hours are?"),
        ("Where is my order?", "where my order is?"),
        ("How do I reset my password?", "to reset my password"),
        ("Could you please send me an invoice?", "send me an invoice"),
        ("Explain the second law.", "xplain the second law"),
        ("Was ist die Hauptstadt von Frankreich?", "was die Hauptstadt von Frankreich ist?"),
        ("Wie kann ich mein Passwort ändern?", "wie ich mein Passwort ändern kann"),
        ("Wie heißt der höchste Berg?", "wie der höchste Berg heißt?"),
    ],
)
def test_questions_reworded(asked: str, reworded: str) -> None:
    for seed in range(8):
        found = variants.reword(asked, str(seed))
        assert found
        assert reworded in found
        assert found[0].isupper()
        assert found != asked


@pytest.mark.parametrize(
    "asked",
    [
        "What is wrong with my order?",
        "What is it like?",
        "Where is the office located?",
        "What is the weather like?",
        "Where is the shop now?",
        "Where are my keys hidden?",
        "Where is my parcel sent?",
        "What is the reason that it fails?",
        "How do I know when it ends?",
        "Can you swim?",
        "What is the time? And where are you?",
        "Was ist, wenn es regnet?",
        "Wie kann ich Ihnen helfen?",
        "What is the " + "very " * 2000 + "end?",
        "def what(): return 1",
        "",
    ],
)
def test_questions_that_no_rule_is_sure_of_stay(asked: str) -> None:
    assert variants.reword(asked, "1") is None


def test_frames_speak_the_questions_language() -> None:
    german = {variants.wrap("Wie wird das Wetter in der Stadt?", "question_answer", str(n)) for n in range(30)}
    assert "Bitte beantworte die folgende Frage.\n\nWie wird das Wetter in der Stadt?" in german
    assert len(german) == 4
    assert variants.wrap("Quelle heure est-il?", "question_answer", "1") is None
    assert variants.wrap("What is it?", "label", "1") is None
    assert variants.wrap("Use {} and {x} in the text", "alpaca", "1") is not None


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=200), st.integers(0, 99))
def test_noise_spares_what_is_no_word(text: str, seed: int) -> None:
    guarded = f"{text} https://a.example/Path?q=1 {{name}} AB12 42.5 NASA user@host.example"
    noisy = variants.noise(guarded, 0.2, str(seed))
    assert noisy is None or noisy.endswith(guarded[len(text) :])
    for other in (variants.wrap(text, "alpaca", str(seed)), variants.reword(text, str(seed))):
        assert other is None or isinstance(other, str)


def test_noise_is_human_in_size() -> None:
    text = "The delivery was late and nobody answered my message about the missing parcel. " * 20
    noisy = variants.noise(text, 0.03, "1")
    assert noisy
    changed = sum(a != b for a, b in zip(text.split(), noisy.split(), strict=True))
    assert 0.03 < changed / len(text.split()) < 0.3
