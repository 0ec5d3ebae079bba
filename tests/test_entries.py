"""What stands in an input of the form and what of it goes to the spec."""

from typing import Any

import pytest

from pages.parts.train import entries, fields

KNOWN = fields.all_fields()


@pytest.mark.parametrize("pointer", KNOWN)
def test_each_default_stands_in_its_input_and_says_nothing(pointer: str) -> None:
    field = KNOWN[pointer]
    stands = entries.entered(field, field.default)
    if field.kind != "group":
        assert not entries.differs(field, entries.said(field, stands))


@pytest.mark.parametrize(
    ("pointer", "value", "stands"),
    [
        ("/lora/rank", 32, 32),
        ("/lora/alpha", 32, 32.0),
        ("/train/learning_rate", "auto", None),
        ("/train/learning_rate", 3e-4, 3e-4),
        ("/train/max_steps", None, None),
        ("/limits/max_hours", None, None),
        ("/data/eval_fraction", 0.1, 0.1),
        ("/precision", "4bit", "4bit"),
        ("/train/gradient_checkpointing", False, False),
        ("/lora/rslora", True, True),
        ("/name", "tickets", "tickets"),
        ("/data/delimiter", ";", ";"),
        ("/lora/target_modules", ["q_proj", "v_proj"], "q_proj, v_proj"),
        ("/lora/target_modules", "all-linear", ""),
        ("/data/mapping", {"prompt": "Frage"}, "prompt = Frage"),
        ("/limits/max_fraction", {"secret": 0.5}, "secret = 0.5"),
        ("/data/drop", ["duplicate"], ["duplicate"]),
        ("/limits/early_stopping", None, False),
        ("/limits/early_stopping", {"patience": 5}, True),
    ],
)
def test_a_value_stands_in_the_form_and_says_the_same_again(pointer: str, value: Any, stands: Any) -> None:
    field = KNOWN[pointer]
    assert entries.holds(field, value)
    assert entries.entered(field, value) == stands
    if field.kind != "group":
        assert entries.said(field, stands) == value


@pytest.mark.parametrize(
    ("pointer", "value"),
    [
        ("/lora/rank", 9999),
        ("/lora/rank", 3.5),
        ("/lora/rank", "high"),
        ("/lora/rank", True),
        ("/lora/rank", [1]),
        ("/lora/rslora", 1),
        ("/train/seed", 2**60),
        ("/precision", "2bit"),
        ("/precision", None),
        ("/data/drop", ["nothing"]),
        ("/data/drop", "duplicate"),
        ("/data/mapping", "prompt"),
        ("/data/mapping", {"prompt": 3}),
        ("/data/mapping", {"a = b": "c"}),
        ("/data/delimiter", None),
        ("/limits/max_fraction", {"secret": "none"}),
        ("/limits/early_stopping", {"patience": 5, "mood": 1}),
        ("/limits/early_stopping", True),
    ],
)
def test_what_no_input_can_show_is_not_taken_for_something_else(pointer: str, value: Any) -> None:
    assert not entries.holds(KNOWN[pointer], value)


def test_a_list_of_texts_appears_when_the_schema_has_one() -> None:
    node = {
        "default": "auto",
        "anyOf": [{"const": "auto"}, {"type": "array", "maxItems": 8, "items": {"type": "string", "maxLength": 8192}}],
    }
    field = fields._field({}, "/eval/sample_prompts", node)
    assert (field.kind, field.high, field.auto) == ("texts", 8, True)
    assert entries.said(field, "") == "auto"
    assert entries.said(field, "Who are you?\n\n And why? ") == ["Who are you?", "And why?"]
    assert entries.said(field, "-") == []
    assert entries.entered(field, ["Who are you?", "And why?"]) == "Who are you?\nAnd why?"
    assert entries.holds(field, [])
    assert entries.holds(field, "auto")
    assert not entries.holds(field, ["two\nlines"])
