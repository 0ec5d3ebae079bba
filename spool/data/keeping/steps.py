"""The steps that a recipe is made of: what each is told, checked before anything is read, and what it does in words.

A recipe is a list of JSON objects, each with a "step" and its settings, as it stands in a version's dataset.json:
[{"step": "dedupe"}, {"step": "cap", "rows": 1000, "seed": 7}]. Lines are those of the version that a recipe starts
from, as `finetuner check` names them; behind `mix` and `add_rows` they count from 1 in the new order.
"""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any, Literal, get_args

import orjson
from pydantic import Field, TypeAdapter, ValidationError, model_validator

from spool.data.reading.read import AS_FOUND, Dialect
from spool.protocol.errors import DataError
from spool.protocol.training import Group, Name

Masked = Literal["secret", "email", "card", "phone", "iban"]
Line = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]
Share = Annotated[float, Field(gt=0, le=1)]


class Place(Group):
    """Which row is meant. The line is enough where only one row starts on it; a zip archive also needs the file."""

    line: Line
    byte: Annotated[int, Field(ge=0)] | None = None
    """Where several rows share a line, as in JSON without newlines: the offset of the row's first byte."""

    file: str | None = None
    """Where several files were read: the row's one."""


class RowEdit(Place):
    values: Annotated[dict[str, Any], Field(min_length=1)]
    """Column -> its new value; the other columns stay."""


class WithLayout(Group):
    """How rows are understood, for steps that look at questions and answers."""

    format: Name = "auto"
    mapping: dict[Name, Name] = Field(max_length=16, default_factory=dict)


class Read(Group):
    """Stands first, and only where the first source is not read as it is found."""

    step: Literal["read"] = "read"
    encoding: Annotated[str, Field(min_length=1, max_length=40)] = AS_FOUND.encoding
    delimiter: Annotated[str, Field(min_length=1, max_length=4)] = AS_FOUND.delimiter
    header: bool | None = AS_FOUND.header

    @property
    def dialect(self) -> Dialect:
        return Dialect(self.encoding, self.delimiter, self.header)


class Edit(Group):
    step: Literal["edit"] = "edit"
    edits: Annotated[list[RowEdit], Field(min_length=1, max_length=100_000)]
    """At a recipe's start it also repairs rows that cannot be read: their values are then the whole row."""

    @property
    def places(self) -> Sequence[Place]:
        return self.edits


class Drop(Group):
    step: Literal["drop"] = "drop"
    lines: Annotated[list[Line | Place], Field(min_length=1, max_length=1_000_000)]

    @property
    def places(self) -> Sequence[Place]:
        return [Place(line=each) if isinstance(each, int) else each for each in self.lines]


class KeepUsable(WithLayout):
    step: Literal["keep_usable"] = "keep_usable"


class Dedupe(WithLayout):
    step: Literal["dedupe"] = "dedupe"
    near: bool = False
    """Also rows that differ in a few words only."""

    threshold: Annotated[float, Field(ge=0.5, le=1)] = 0.85
    """With `near`: how much of their word triples two rows share (Jaccard similarity)."""


class Split(WithLayout):
    step: Literal["split"] = "split"
    side: Literal["train", "eval"]
    eval_fraction: Annotated[float, Field(gt=0, le=0.5)] | None = None
    eval_rows: Annotated[int, Field(ge=1)] | None = None
    seed: Seed = 42
    by: Name | None = None
    """Rows with the same value of this column stay together. Without it: those with the same first question."""

    stratify: Name | None = None
    """Each value of this column gets its share of the eval rows."""

    @model_validator(mode="after")
    def _one_size(self) -> "Split":
        if (self.eval_fraction is None) == (self.eval_rows is None):
            raise ValueError("give either eval_fraction or eval_rows")
        return self


class Mix(WithLayout):
    step: Literal["mix"] = "mix"
    weights: Annotated[list[Annotated[float, Field(gt=0, le=1e6)]], Field(min_length=2, max_length=64)]
    """One a source: its share of the mixture is its weight over their sum."""

    rows: Annotated[int, Field(ge=1)] | None = None
    """How many rows in all; a source that has too few repeats its own. Without it: as many as repeat none."""

    seed: Seed = 42


class Cap(Group):
    step: Literal["cap"] = "cap"
    rows: Annotated[int, Field(ge=1)]
    seed: Seed | None = None
    """Chooses the rows at random; without it the first ones stay."""


class Mask(Group):
    step: Literal["mask"] = "mask"
    what: list[Masked] = Field(min_length=1, default_factory=lambda: list(get_args(Masked)))


class AddRows(Group):
    """Adds the rows of the second source; one that says which line it replaces takes that row's place."""

    step: Literal["add_rows"] = "add_rows"


class Wrap(WithLayout):
    """Puts a question or an instruction into another sentence frame."""

    step: Literal["augment"] = "augment"
    kind: Literal["wrap"]
    share: Share = 0.3
    """Share of the rows that get a variant."""

    seed: Seed = 42


class Noise(WithLayout):
    """Typing errors and careless casing in what users write, never in answers."""

    step: Literal["augment"] = "augment"
    kind: Literal["noise"]
    share: Share = 0.3
    seed: Seed = 42
    typos: Annotated[float, Field(gt=0, le=0.2)] = 0.03
    """Share of the letters that are touched."""


class Reword(WithLayout):
    """Asks the same question in other words, by a few English and German rules."""

    step: Literal["augment"] = "augment"
    kind: Literal["reword"]
    share: Share = 1.0
    seed: Seed = 42


class Balance(WithLayout):
    """Repeats the rows of rare labels."""

    step: Literal["augment"] = "augment"
    kind: Literal["balance"]
    by: Name | None = None
    """The column to balance; without it the label of a classification."""

    up_to: Share = 1.0
    """How many rows each label shall have, as a share of the most frequent label's."""

    most: Annotated[int, Field(ge=1, le=100)] = 5
    """At most so many copies of one row."""


Augment = Annotated[Wrap | Noise | Reword | Balance, Field(discriminator="kind")]
Step = Annotated[
    Read | Edit | Drop | KeepUsable | Dedupe | Split | Mix | Cap | Mask | AddRows | Augment,
    Field(discriminator="step"),
]
AnyStep = (
    Read | Edit | Drop | KeepUsable | Dedupe | Split | Mix | Cap | Mask | AddRows | Wrap | Noise | Reword | Balance
)

_STEP: TypeAdapter[AnyStep] = TypeAdapter(Step)


def parse(step: Any) -> AnyStep:
    """One step from its JSON object.

    Raises:
        DataError: `bad_recipe`; it names the setting that is wrong.
    """
    try:
        orjson.dumps(step)
    except TypeError:
        hint = "A recipe is JSON: leave out half characters and whatever is no text, number, list or object."
        raise DataError("the step cannot be used: it cannot be stored as JSON.", hint, "bad_recipe") from None
    try:
        return _STEP.validate_python(step)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        says = f"{where + ': ' if where else ''}{first['msg'].removeprefix('Value error, ')}"
        if first["type"].startswith("union_tag"):
            tag = "kind" if where else "step"
            given = step.get(tag) if isinstance(step, dict) else None
            says = f"there is no {tag} {given!r}" if given else f"it does not say its {tag!r}"
        known = "read, edit, drop, keep_usable, dedupe, split, mix, cap, mask, add_rows and augment"
        hint = f"Correct this setting. The steps are {known}; augment has the kinds wrap, noise, reword and balance."
        raise DataError(f"the step cannot be used: {says}.", hint, "bad_recipe") from None


def parse_all(steps: Sequence[Any]) -> list[AnyStep]:
    """A recipe's steps.

    Raises:
        DataError: `bad_recipe`; the message counts the steps from 1.
    """
    found = []
    for number, step in enumerate(steps, 1):
        try:
            found.append(parse(step))
        except DataError as error:
            raise DataError(error.message.replace("the step", f"step {number}", 1), error.hint, error.code) from None
    return found


def reading(dialect: Dialect) -> list[dict[str, Any]]:
    """The start of a recipe whose first source is to be read so; empty where it is read as it is found."""
    return [] if dialect == AS_FOUND else [{"step": "read", **asdict(dialect)}]


def dialect_of(recipe: Sequence[dict[str, Any]]) -> Dialect:
    """How a stored recipe reads its first source."""
    first = parse(recipe[0]) if recipe else None
    return first.dialect if isinstance(first, Read) else AS_FOUND


def to_json(step: AnyStep) -> dict[str, Any]:
    """With every default written out, so that a stored recipe means the same when defaults change."""
    return step.model_dump(mode="json")


def in_words(step: Any) -> str:
    """One sentence without a full stop that says what a step does, from its JSON object."""
    parsed = parse(step)
    match parsed:
        case Read():
            return _read_in_words(parsed)
        case Edit():
            return f"{_counted(len(parsed.edits), 'row')} edited ({_lines([each.line for each in parsed.edits])})"
        case Drop():
            lines = [place.line for place in parsed.places]
            return f"{_counted(len(lines), 'row')} dropped ({_lines(lines)})"
        case KeepUsable():
            return "rows that cannot be trained on dropped"
        case Dedupe():
            alike = f", also those that are {parsed.threshold:.0%} alike" if parsed.near else ""
            return f"repeated rows dropped{alike}"
        case Split():
            return _split_in_words(parsed)
        case Mix():
            return _mix_in_words(parsed)
        case Cap():
            how = "the first" if parsed.seed is None else f"a random choice (seed {parsed.seed}) of"
            return f"{how} {_counted(parsed.rows, 'row')} kept"
        case Mask():
            return f"{_listed([_MASKED[each] for each in parsed.what])} masked"
        case AddRows():
            return "corrected rows added"
        case _:
            return _augment_in_words(parsed)


_MASKED = {
    "secret": "keys and passwords",
    "email": "e-mail addresses",
    "card": "card numbers",
    "phone": "phone numbers",
    "iban": "bank accounts",
}


def _read_in_words(step: Read) -> str:
    said = [f"as {step.encoding}"] if step.encoding != AS_FOUND.encoding else []
    said += [f"with the delimiter {step.delimiter!r}"] if step.delimiter != AS_FOUND.delimiter else []
    if step.header is not None:
        said.append("with column names in the first line" if step.header else "with a row in the first line")
    return f"read {_listed(said)}" if said else "read as it is found"


def _split_in_words(step: Split) -> str:
    size = _counted(step.eval_rows, "row") if step.eval_rows else f"{step.eval_fraction:.1%} of the rows"
    whole = f"rows with the same {step.by!r}" if step.by else "rows with the same question"
    even = f", even over {step.stratify!r}" if step.stratify else ""
    side = "the rows for training" if step.side == "train" else "the rows for evaluation"
    return f"{side}, where {size} are for evaluation ({whole} stay together{even}; seed {step.seed})"


def _mix_in_words(step: Mix) -> str:
    total = sum(step.weights)
    shares = _listed([f"{weight / total:.0%}" for weight in step.weights])
    size = f"{_counted(step.rows, 'row')}" if step.rows else "as many rows as repeat none"
    return f"{len(step.weights)} datasets mixed, {shares}: {size} (seed {step.seed})"


def _augment_in_words(step: Wrap | Noise | Reword | Balance) -> str:
    if isinstance(step, Balance):
        what = f"the values of {step.by!r}" if step.by else "the labels"
        return f"rows repeated until {what} are balanced (to {step.up_to:.0%}, at most {step.most} copies of a row)"
    what = {"wrap": "in another sentence frame", "noise": "with typing errors", "reword": "in other words"}[step.kind]
    return f"{step.share:.0%} of the rows added again with the question {what} (seed {step.seed})"


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _lines(lines: list[int]) -> str:
    shown = ", ".join(f"{line:,}" for line in lines[:5])
    more = ", …" if len(lines) > 5 else ""
    return f"{'line' if len(lines) == 1 else 'lines'} {shown}{more}"


def _listed(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
