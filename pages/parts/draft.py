"""From what stands in the form to a small job spec, and to what is wrong with it in words."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from pages.parts import words
from spool.protocol import durable, resolve, settings
from spool.protocol.errors import FinetunerError, Problem, SpecError
from spool.protocol.home import Home
from spool.protocol.parse import parse_spec
from spool.protocol.spec import SCHEMA_VERSION, JobSpec


@dataclass(frozen=True)
class Draft:
    """A spec and what is wrong with it: `problems` must be cured first, of `doubts` the user may know better."""

    spec: dict[str, Any]
    problems: list[Problem]
    doubts: list[Problem]

    @property
    def text(self) -> str:
        return durable.to_bytes(self.spec).decode()


def spec_of(model: str | None, dataset: str | None, values: dict[str, Any], merged: bool = False) -> dict[str, Any]:
    """The smallest spec that says this: `values` maps JSON pointers to what differs from the default."""
    spec: dict[str, Any] = {"schema": SCHEMA_VERSION}
    if values.get("/name"):
        spec["name"] = values["/name"]
    if model:
        spec["model"] = model
    if dataset:
        spec["dataset"] = dataset
    for pointer, value in values.items():
        if pointer == "/name":
            continue
        *parents, leaf = pointer.split("/")[1:]
        place = spec
        for parent in parents:
            place = place.setdefault(parent, {})
        place[leaf] = value
    if merged:
        spec["export"] = ["adapter", "merged"]
    return spec


def values_of(spec: Mapping[str, Any]) -> dict[str, Any]:
    """What a spec says, by JSON pointer: the groups' fields, and the fields outside of them."""
    values: dict[str, Any] = {}
    for name, value in spec.items():
        if name in JobSpec.model_fields and isinstance(value, dict):
            values |= {f"/{name}/{member}": each for member, each in value.items()}
        else:
            values[f"/{name}"] = value
    return values


def judge(spec: dict[str, Any], home: Home, started_in: Path) -> Draft:
    """What the runner would say of it. Where references lead can only be a doubt: the runner may see other folders."""
    try:
        parsed = parse_spec(orjson.dumps(spec))
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
        return f"{words.label(problem.pointer)}: choose one."
    where = f"{words.label(problem.pointer)}: " if problem.pointer else ""
    return f"{where}{problem.message}" + (f" {problem.hint}" if problem.hint else "")


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
