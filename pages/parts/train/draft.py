"""From what stands in the form to a small job spec, from a spec back to the form, and what is wrong in words."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from pages.parts import words
from pages.parts.phrases import translated
from pages.parts.texts import t
from spool.protocol import durable, formats, resolve, settings
from spool.protocol.dropbox import dropped_spec
from spool.protocol.errors import FinetunerError, Problem, SpecError
from spool.protocol.home import Home
from spool.protocol.parse import parse_json, parse_spec
from spool.protocol.spec import SCHEMA_VERSION, JobSpec

OF_ITS_OWN = ("schema", "submission_id", "submitted_by", "retry_of")
"""What a spec that fills the form does not bring along: each job has its own."""


@dataclass(frozen=True)
class Draft:
    """A spec and what is wrong with it: `problems` must be cured first, of `doubts` the user may know better."""

    spec: dict[str, Any]
    problems: list[Problem]
    doubts: list[Problem]

    @property
    def text(self) -> str:
        return durable.to_bytes(self.spec).decode()


def spec_of(
    model: str | None,
    dataset: str | None,
    values: Mapping[str, Any],
    further: Sequence[str] = (),
    beside: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The smallest spec that says this.

    Args:
        values: what differs from the default, by JSON pointer.
        further: formats to make beside the adapter.
        beside: what no input can hold (of an imported spec), by JSON pointer; it goes in as it is.
    """
    spec: dict[str, Any] = {"schema": SCHEMA_VERSION}
    if values.get("/name"):
        spec["name"] = values["/name"]
    if model:
        spec["model"] = model
    if dataset:
        spec["dataset"] = dataset
    for pointer, value in values.items():
        if pointer != "/name":
            _put(spec, pointer, value)
    if further:
        spec["export"] = exports(further)
    for pointer, value in (beside or {}).items():
        _put(spec, pointer, value)
    return spec


def exports(further: Sequence[str]) -> list[str]:
    """A spec's `export`: the adapter, which is always made, and further formats in their order."""
    return ["adapter", *(kind for kind in formats.FORMATS if kind in further and kind != "adapter")]


def further(exported: Any) -> list[str] | None:
    """The formats beside the adapter of a spec's `export`; None where the form cannot show it."""
    if not isinstance(exported, list) or not all(each in formats.FORMATS for each in exported):
        return None
    return exports(exported)[1:]


def _put(spec: dict[str, Any], pointer: str, value: Any) -> None:
    *parents, leaf = (part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:])
    place = spec
    for parent in parents:
        inner = place.setdefault(parent, {})
        if not isinstance(inner, dict):
            return
        place = inner
    place[leaf] = value


def values_of(spec: Mapping[str, Any]) -> dict[str, Any]:
    """What a spec says, by JSON pointer: the groups' fields, and the fields outside of them."""
    values: dict[str, Any] = {}
    for name, value in spec.items():
        if name in JobSpec.model_fields and isinstance(value, dict):
            values |= {f"/{name}/{_escaped(member)}": each for member, each in value.items()}
        else:
            values[f"/{_escaped(name)}"] = value
    return values


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")


def imported(data: bytes) -> dict[str, Any]:
    """The spec in a file or a pasted text; what is wrong with its fields is judged with the form.

    Raises:
        SpecError: it is no JSON object, with the line and column where it breaks off.
    """
    document, _ = parse_json(data)
    if not isinstance(document, dict):
        raise SpecError([Problem("not_an_object", t("train.import.no_object"), t("train.import.smallest"))])
    return document


def dropped_before(home: Home, job_id: str) -> dict[str, Any] | None:
    """The spec that was handed in under this id, wherever it is by now; None where there is none to be read."""
    try:
        return dropped_spec(home, job_id)
    except FinetunerError:
        pass
    for folder in (home.incoming, home.accepting):
        try:
            document = parse_json((folder / f"{job_id}.json").read_bytes())[0]
        except (OSError, SpecError):
            continue
        if isinstance(document, dict):
            return document
    return None


def judge(spec: dict[str, Any], home: Home, started_in: Path) -> Draft:
    """What the runner would say of it. Where references lead can only be a doubt: the runner may see other folders.

    Lines and columns are those of `Draft.text`.
    """
    try:
        parsed = parse_spec(Draft(spec, [], []).text.encode())
    except SpecError as error:
        return Draft(spec, error.problems, [])
    try:
        places = resolve.Places(home, started_in, settings.roots(settings.load(home), home, started_in))
        doubts = resolve.problems(parsed, places)
    except FinetunerError as error:
        doubts = [Problem(error.code, error.message, error.hint)]
    return Draft(spec, [], doubts)


def in_words(problem: Problem) -> str:
    """One problem as a sentence that names the field as the form does."""
    if problem.code == "missing":
        return t("train.choose_one", label=words.label(problem.pointer))
    label = words.label(problem.pointer)
    if problem.code == "unknown_field" and problem.line:
        label = t("train.in_line", line=problem.line)
    where = f"{label}: " if problem.pointer else ""
    return f"{where}{translated(problem.message)}" + (f" {translated(problem.hint)}" if problem.hint else "")


def names(text: str) -> list[str]:
    """A list typed with commas or blanks between: `q_proj, v_proj`."""
    return [name for name in re.split(r"[,;\s]+", text) if name]


def lines(mapping: Mapping[str, Any]) -> str:
    """A mapping as `pairs` reads it."""
    return "\n".join(f"{role} = {column}" for role, column in mapping.items())


def pairs(text: str) -> dict[str, str]:
    """Lines of `role = column`.

    Raises:
        ValueError: a line has no equals sign, or nothing on one side of it.
    """
    found = {}
    for line in filter(str.strip, text.splitlines()):
        role, sign, column = (part.strip() for part in line.partition("="))
        if not (role and sign and column):
            raise ValueError(f"{line.strip()!r} is not of the form: role = column")
        found[role] = column
    return found


def same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two specs ask for the same job, whatever they are called by their senders."""

    def plain(spec: Mapping[str, Any]) -> bytes:
        kept = {name: value for name, value in spec.items() if name not in ("submission_id", "submitted_by")}
        return orjson.dumps(kept, option=orjson.OPT_SORT_KEYS)

    return plain(one) == plain(other)
