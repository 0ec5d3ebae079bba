"""Outcomes: what each presets for data of each size, and that every value has its reason."""

import pytest

from pages.parts import texts
from pages.parts.train import entries, fields, presets
from pages.parts.train.presets import Choice, Size

ALL = presets.all_presets()
EPOCHS, BATCH, SHARE = presets.EPOCHS, presets.BATCH, presets.SHARE


def chosen(name: str, rows: int | None, tokens: int | None = None, **said: object) -> dict[str, object]:
    made = presets.choose(
        ALL[name], Size(rows, tokens), said and {f"/{k.replace('__', '/')}": v for k, v in said.items()}
    )
    return {pointer: choice.value for pointer, choice in made.items()}


def test_they_stand_in_their_order() -> None:
    assert list(ALL) == ["format", "tone", "faq", "classify", "continue", "own"]
    assert presets.FIRST in ALL
    assert presets.OWN in ALL


@pytest.mark.parametrize(
    ("rows", "epochs", "batch", "share"),
    [
        (20, 10, 4, "auto"),  # 5 steps an epoch: 24 would be wanted
        (60, 9, 4, 0.1),  # 54 rows, 14 steps
        (120, 9, 8, 0.1),  # 108 rows, 14 steps
        (320, 3, 8, "auto"),  # 304 rows, 38 steps
        (1000, 2, 8, "auto"),  # 119 steps: one would do, two are fewest
        (6000, 1, 8, "auto"),  # 725 steps: two would be 1,450
        (40_000, 1, 16, "auto"),
    ],
)
def test_epochs_follow_from_the_rows(rows: int, epochs: int, batch: int, share: object) -> None:
    made = chosen("format", rows)
    assert (made[EPOCHS], made[BATCH], made[SHARE]) == (epochs, batch, share)


def test_the_reason_says_the_rows_and_the_steps() -> None:
    made = presets.choose(ALL["format"], Size(120), {SHARE: 0})
    assert made[EPOCHS] == Choice(8, "8 epochs: 120 rows give 120 steps.")
    assert presets.choose(ALL["tone"], Size(30))[EPOCHS].why.startswith("No more than 5 epochs: 30 rows give 40 steps.")
    assert presets.choose(ALL["faq"], Size(50_000))[EPOCHS].why == (
        "49,800 rows are many: 1 epoch gives 3,113 steps, which is enough."
    )
    assert presets.choose(ALL["format"], Size(120))[SHARE].why == (
        "A tenth of 120 rows shows when it begins to learn them by heart."
    )


def test_what_somebody_set_by_hand_counts_for_the_epochs() -> None:
    assert chosen("format", 400)[EPOCHS] == 3
    assert chosen("format", 400, train__effective_batch=32)[EPOCHS] == 10
    assert chosen("format", 400, data__eval_fraction=0.5)[EPOCHS] == 5


def test_before_the_rows_are_known_nothing_is_made_up() -> None:
    made = presets.choose(ALL["faq"], Size())
    assert made[EPOCHS] == Choice(3, "Until the rows are counted.")
    assert BATCH not in made
    assert SHARE not in made
    assert made["/lora/rank"].value == 32


@pytest.mark.parametrize(("tokens", "rank"), [(1_000_000, 32), (1_000_001, 64), (30_000_000, 128)])
def test_more_text_gets_a_larger_adapter(tokens: int, rank: int) -> None:
    made = presets.choose(ALL["continue"], Size(5000, tokens))
    assert made["/lora/rank"].value == rank
    assert f"{tokens:,} tokens" in made["/lora/rank"].why
    assert made["/data/train_on"].value == "all"


def test_each_outcome_has_its_own_rank() -> None:
    ranks = {name: chosen(name, 300, 10_000).get("/lora/rank") for name in ALL}
    assert ranks == {"format": 16, "tone": 8, "faq": 32, "classify": 8, "continue": 32, "own": None}


def test_who_knows_what_they_do_gets_nothing_preset() -> None:
    assert presets.choose(ALL["own"], Size(100, 1000)) == {}


@pytest.mark.parametrize("language", texts.LANGUAGES)
@pytest.mark.parametrize("name", ALL)
def test_every_value_can_stand_in_the_form_and_has_a_reason(
    name: str, language: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(texts, "_asked", lambda: language)
    known = fields.all_fields()
    preset = ALL[name]
    assert preset.title
    assert preset.says
    for rows in (None, 1, 49, 50, 199, 500, 3000, 1_000_000):
        for pointer, choice in presets.choose(preset, Size(rows, rows and rows * 80)).items():
            assert entries.holds(known[pointer], choice.value), (pointer, choice)
            assert choice.why.endswith("."), choice
            assert "{" not in choice.why


def test_each_file_says_where_its_numbers_come_from() -> None:
    for name in ALL:
        told = (presets.FOLDER / f"{name}.toml").read_text()
        assert told.startswith("# ")
        assert name == presets.OWN or "arXiv" in told or "LoRA Without Regret" in told


def test_each_kind_of_data_has_an_outcome() -> None:
    suited = {format for preset in ALL.values() for format in preset.suits}
    assert suited == {"text", "label", "messages", "sharegpt", "alpaca", "prompt_completion", "question_answer"}
