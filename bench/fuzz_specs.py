"""Mutated job specs against the parser: no crash, none accepted that is invalid, each answer within 50 ms.

Run as: python -m bench.fuzz_specs [--cases 1000000] [--seed 1]        (one process; exit code 1 when a goal is missed)

What is accepted is judged once more by others: json.loads with a check for repeated keys, the committed JSON Schema
through jsonschema, and the rules across fields. jsonschema is slow, so it judges each value of a field once;
every 200th accepted spec is also given to it whole. Every 50th refused one is looked at from the other side: what
neither the schema nor a rule refuses must be one of the things that only the parser looks at.
"""

import argparse
import collections
import json
import platform
import random
import resource
import sys
import time
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any

import orjson

from bench.spec_mutations import FULL, SCHEMA, VALIDATOR, field_fits, mutated, of_kind
from spool.protocol import parse
from spool.protocol.errors import SpecError
from spool.protocol.spec import Spec

LIMIT_S = 0.050
ONLY_THE_PARSER = {"too_deep", "too_many_keys", "too_many_values", "too_long_text", "too_large", "bad_text"}


@dataclass
class Outcome:
    """What came of the cases; times are CPU seconds of one answer."""

    cases: int = 0
    accepted: int = 0
    refused: collections.Counter[str] = field(default_factory=collections.Counter)
    crashes: list[str] = field(default_factory=list)
    wrongly_accepted: list[str] = field(default_factory=list)
    wrongly_refused: list[str] = field(default_factory=list)
    times: "array[float]" = field(default_factory=lambda: array("d"))
    worst_s: float = 0.0
    slowest: bytes = b""
    longest_wall_s: float = 0.0

    @property
    def passed(self) -> bool:
        return not (self.crashes or self.wrongly_accepted or self.wrongly_refused) and self.worst_s <= LIMIT_S


def fuzz(cases: int, seed: int, told: Callable[[Outcome], None] = lambda _: None) -> Outcome:
    """`cases` mutated specs from one seed; `told` hears of the outcome after every 50,000."""
    chance = random.Random(seed)
    outcome = Outcome()
    for number in range(cases):
        judge(mutated(chance), number, outcome)
        if (number + 1) % 50_000 == 0:
            told(outcome)
    return outcome


def judge(data: bytes, number: int, outcome: Outcome) -> None:
    outcome.cases += 1
    spec, refusal = None, None
    began, began_wall = time.thread_time(), time.perf_counter()
    try:
        spec = parse.parse_spec(data)
    except SpecError as error:
        refusal = error
    except BaseException as error:
        outcome.crashes.append(f"{type(error).__name__}: {error}: {data[:300]!r}")
    took, wall = time.thread_time() - began, time.perf_counter() - began_wall
    outcome.longest_wall_s = max(outcome.longest_wall_s, wall)
    if took > outcome.worst_s:
        outcome.worst_s, outcome.slowest = took, data
    outcome.times.append(took)
    if spec is not None:
        outcome.accepted += 1
        problem = invalid(data, spec, whole=outcome.accepted % 200 == 0)
        if problem:
            outcome.wrongly_accepted.append(f"{problem}: {data[:2000]!r}")
    elif refusal is not None:
        outcome.refused[refusal.code] += 1
        orjson.dumps([problem.to_json() for problem in refusal.problems])
        if not all(problem.message for problem in refusal.problems):
            outcome.crashes.append(f"a problem without words: {data[:300]!r}")
        if number % 50 == 0 and refusal.code not in ONLY_THE_PARSER and not must_be_refused(data):
            outcome.wrongly_refused.append(f"{refusal.message}: {data[:2000]!r}")


def invalid(data: bytes, spec: Spec, whole: bool) -> str | None:
    """Why an accepted spec should not have been; None where it should."""
    try:
        document = independently(data)
    except ValueError as error:
        return f"not strict JSON ({error})"
    if not fits(document) or (whole and not VALIDATOR.is_valid(document)):
        return "against the schema"
    broken = broken_rule(document)
    if broken:
        return broken
    return not_accepted_again(spec) if whole else None


def not_accepted_again(spec: Spec) -> str | None:
    try:
        again = parse.parse_spec(json.dumps(spec.to_json()).encode())
    except SpecError as error:
        return f"its resolved spec is refused: {error.message}"
    return None if again == spec else "its resolved spec means something else"


def must_be_refused(data: bytes) -> bool:
    try:
        document = independently(data)
    except ValueError:
        return True
    return not VALIDATOR.is_valid(document) or broken_rule(document) is not None or float_for_int(document)


def independently(data: bytes) -> Any:
    """The document, read without the product's code. Raises ValueError for what strict JSON does not allow."""

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({name for name, _ in items}) < len(items):
            raise ValueError("a repeated key")
        return dict(items)

    def constant(word: str) -> None:
        raise ValueError(word)

    def number(word: str) -> float:
        value = float(word)
        if value in (float("inf"), float("-inf")):
            raise ValueError(word)
        return value

    try:
        return json.loads(
            data.decode("utf-8-sig"), object_pairs_hook=pairs, parse_constant=constant, parse_float=number
        )
    except RecursionError:
        raise ValueError("too deep") from None


def fits(document: Any) -> bool:
    """Whether a document fits the schema; the closed groups are taken apart here, their fields are jsonschema's."""
    if not isinstance(document, dict) or not closed(document, of_kind(document)):
        return False
    kind = str(document.get("kind", "train"))
    for name, value in document.items():
        node = of_kind(document)["properties"][name]
        group = SCHEMA["$defs"].get(node.get("$ref", "").rpartition("/")[2])
        if group is None:
            if not field_fits(kind, "", name, orjson.dumps(value)):
                return False
        elif (
            not isinstance(value, dict)
            or not closed(value, group)
            or not all(field_fits(kind, name, inner, orjson.dumps(v)) for inner, v in value.items())
        ):
            return False
    return True


def closed(value: dict[str, Any], node: dict[str, Any]) -> bool:
    assert node["additionalProperties"] is False
    return set(node.get("required", [])) <= set(value) <= set(node["properties"])


def broken_rule(document: Any) -> str | None:
    """The rules across fields, written down once more."""
    if document.get("kind") == "generate":
        return broken_in_generate(document)
    train = {**FULL["train"], **document.get("train", {})}
    size, accumulation = train["batch_size"], train["gradient_accumulation"]
    given = [n for n in (size, accumulation) if n != "auto"]
    if len(given) == 1 and train["effective_batch"] % given[0]:
        return "a batch size that does not divide the effective batch"
    without_rows = document.get("data", {}).get("eval_fraction") == 0 and not document.get("eval", {}).get("dataset")
    if without_rows and document.get("limits", {}).get("early_stopping") is not None:
        return "early stopping without eval rows"
    return None


def broken_in_generate(document: Any) -> str | None:
    job, model, also = document.get("job"), document.get("model"), document.get("also", [])
    if [job, model].count(None) != 1:
        return "not one of job and model"
    if [document.get("prompts"), document.get("dataset"), document.get("interactive") or None].count(None) != 2:
        return "not one of prompts, dataset and interactive"
    if model and (also or document.get("base") is False):
        return "a model with adapters, or without itself"
    return "a job named twice" if len({job, *also}) <= len(also) else None


def float_for_int(value: Any) -> bool:
    """16.0 is a whole number for JSON Schema and none for the parser, which is strict on purpose."""
    if isinstance(value, dict | list):
        return any(float_for_int(inner) for inner in (value.values() if isinstance(value, dict) else value))
    return isinstance(value, float) and value.is_integer()


def report(outcome: Outcome, seed: int, took_s: float) -> str:
    times = sorted(outcome.times)
    p50, p99, worst = times[len(times) // 2], times[int(len(times) * 0.99)], times[-1]
    memory_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("pydantic", "jsonschema", "orjson"))
    lines = [
        f"python -m bench.fuzz_specs --cases {outcome.cases} --seed {seed}",
        f"{time.strftime('%Y-%m-%d')}, Python {platform.python_version()}, {versions}; {platform.machine()}, CPU",
        f"{outcome.cases:,} cases in {took_s:,.0f} s, at most {memory_mb:.0f} MB",
        f"crashes                    {len(outcome.crashes)}   (goal 0)",
        f"accepted                   {outcome.accepted:,}, of them invalid: {len(outcome.wrongly_accepted)}   (goal 0)",
        f"refused                    {sum(outcome.refused.values()):,}, of the sample not for a reason: "
        f"{len(outcome.wrongly_refused)}   (goal 0)",
        f"an answer, CPU time        p50 {p50 * 1e3:.2f} ms, p99 {p99 * 1e3:.2f} ms, "
        f"worst {worst * 1e3:.1f} ms   (goal 50)",
        f"by the clock               worst {outcome.longest_wall_s * 1e3:.1f} ms (others share the machine)",
        "refused as                 " + ", ".join(f"{code} {n:,}" for code, n in outcome.refused.most_common()),
        f"passed: {outcome.passed}",
    ]
    for name in ("crashes", "wrongly_accepted", "wrongly_refused"):
        lines += [f"{name}: {each}" for each in getattr(outcome, name)[:20]]
    if worst > LIMIT_S:
        lines.append(f"slowest: {outcome.slowest[:500]!r}")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--cases", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    began = time.perf_counter()

    def told(outcome: Outcome) -> None:
        print(f"{outcome.cases:,} cases, {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)

    outcome = fuzz(arguments.cases, arguments.seed, told)
    print(report(outcome, arguments.seed, time.perf_counter() - began))
    return 0 if outcome.passed else 1


if __name__ == "__main__":
    sys.exit(main())
