"""Reading a job spec from bytes: strict JSON, then the closed schema, every problem at once with its place."""

import difflib
import functools
import json
import re
from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from spool.protocol.errors import Problem, SpecError
from spool.protocol.formats import FORMATS, gguf
from spool.protocol.formats import nearest as nearest_format
from spool.protocol.schema import EDITORS
from spool.protocol.spec import KINDS, SCHEMA_VERSION, EvaluateSpec, ExportSpec, GenerateSpec, JobSpec, Spec
from spool.protocol.strict import MAX_BYTES, decode, parse_json, places, shortened
from spool.protocol.training import batches

__all__ = ["MAX_BYTES", "decode", "parse_json", "parse_spec", "placed"]

MAX_PROBLEMS = 100
MAX_GUESSES = 20
"""So many unknown fields are compared with the known names; a file with more of them is no slip of the pen."""
LONGEST_GUESS = 60
LONGEST_REPO = 96
"""Characters of a repository's name on the hub, without its owner."""
SMALLEST = '{"schema": 1, "model": "gemma-3-270m", "dataset": "examples/support_tickets.jsonl"}'


def parse_spec(data: bytes) -> Spec:
    """The spec of a dropped file.

    Raises:
        SpecError: with all problems; nothing of the file is used.
    """
    document, text = parse_json(data)
    if not isinstance(document, dict):
        raise SpecError(
            [
                Problem(
                    "not_an_object",
                    "a job spec is one JSON object, and one file is one job.",
                    f"The smallest: {SMALLEST}",
                )
            ]
        )
    told = document.get("$schema")  # for editors
    if isinstance(told, str) and len(told) <= EDITORS["maxLength"]:
        del document["$schema"]
    problems = _literal_problems(document)
    if not problems:
        try:
            spec = KINDS[_kind(document)].model_validate(document, by_alias=True, by_name=False)
        except ValidationError as error:
            problems = _schema_problems(document, error)
        else:
            problems = _checks(spec)
            if not problems:
                return _without_idle_guards(spec) if isinstance(spec, JobSpec) else spec
    raise SpecError(placed(problems, text))


def _kind(document: dict[str, Any]) -> str:
    """Whose fields the document is judged by: those of the kind it names, or of the nearest one."""
    named = document.get("kind", "train")
    if not isinstance(named, str) or len(named) > LONGEST_GUESS:
        return "train"
    return next(iter(difflib.get_close_matches(named, KINDS, n=1)), "train")


def _literal_problems(document: dict[str, Any]) -> list[Problem]:
    version = document.get("schema")
    if isinstance(version, bool):  # for Python, and so for pydantic's Literal, true equals 1
        return [Problem("bad_value", f"{json.dumps(version)} does not fit.", f"Expected {SCHEMA_VERSION}.", "/schema")]
    if isinstance(version, int | float) and version > SCHEMA_VERSION:
        message = f"made for version {shortened(f'{version:g}')}; this runner knows version {SCHEMA_VERSION}."
        return [Problem("newer_version", message, "Update the runner.", "/schema")]
    return []


def _schema_problems(document: dict[str, Any], error: ValidationError) -> list[Problem]:
    kind = _kind(document)
    schema = _schema(kind)
    found: dict[str, Problem] = {}
    items = error.errors(include_url=False, include_context=False)
    unknown = 0
    for item in items[:MAX_PROBLEMS]:
        path, node = _field_path(schema, item["loc"])
        pointer = "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)
        if pointer in found:
            continue
        if item["type"] == "missing":
            problem = Problem("missing", "this field is required.", f"It is: {_described(node)}", pointer)
        elif item["type"] == "extra_forbidden":
            unknown += 1
            problem = _unknown_field(kind, path, pointer, guess=unknown <= MAX_GUESSES)
        else:
            problem = _wrong_value(document, node, path, pointer)
        found[pointer] = problem
    problems = list(found.values())
    if len(items) > MAX_PROBLEMS:
        problems.append(Problem("too_many_problems", f"and {len(items) - MAX_PROBLEMS} more problems."))
    return problems


@functools.cache
def _schema(kind: str) -> dict[str, Any]:
    return KINDS[kind].model_json_schema(by_alias=True)


@functools.cache
def _grouped_fields(kind: str) -> dict[str, str]:
    """learning_rate -> train.learning_rate, for every field of a group."""
    return {field: f"{group}.{field}" for group, fields in _groups(_schema(kind)).items() for field in fields}


def _unknown_field(kind: str, path: list[Any], pointer: str, guess: bool) -> Problem:
    schema = _schema(kind)
    _, parent = _field_path(schema, path[:-1])
    known = list(parent.get("properties", {}))
    name = str(path[-1])
    other = next((each for each in KINDS if each != kind and name in _schema(each)["properties"]), None)
    if len(path) == 1 and other:
        message = f"{name!r} belongs to a job of kind {other!r}; this one is of kind {kind!r}."
        return Problem("unknown_field", message, f'Leave it out, or write "kind": "{other}".', pointer)
    elsewhere = _grouped_fields(kind)
    near: list[str] = [elsewhere[name]] if name in elsewhere else []
    if guess and len(name) <= LONGEST_GUESS:
        near = near or difflib.get_close_matches(name, known, n=1)
        near = near or [elsewhere[field] for field in difflib.get_close_matches(name, elsewhere, n=1)]
        near = near or difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"Did you mean {near[0]!r}?" if near else "Known here: " + ", ".join(known) + "."
    return Problem("unknown_field", f"there is no field {shortened(name)!r}.", hint, pointer)


def _wrong_value(document: Any, node: dict[str, Any], path: list[Any], pointer: str) -> Problem:
    value = document
    for part in path:
        value = value[part]
    expected = f"Expected one of {', '.join(map(json.dumps, KINDS))}." if pointer == "/kind" else _expected(node)
    if pointer == "/kind" and isinstance(value, str):
        near = difflib.get_close_matches(value, KINDS, n=1) if len(value) <= LONGEST_GUESS else []
        hint = f"Did you mean {near[0]!r}?" if near else expected
        return Problem("bad_value", f"there is no kind of job {shortened(value)!r}.", hint, pointer)
    if pointer.startswith("/export/") and isinstance(value, str):
        hint = f"Did you mean {nearest_format(value)!r}? Known: {', '.join(FORMATS)}."
        return Problem("bad_value", f"there is no export {shortened(value)!r}.", hint, pointer)
    shown = json.dumps(value, ensure_ascii=False, default=str)
    hint = f"{expected} {_wrong_type(value, node)}".strip()
    return Problem("bad_value", f"{shortened(shown)} does not fit.", hint, pointer)


def _wrong_type(value: Any, node: dict[str, Any]) -> str:
    """What is likely to be meant by a value of another type than the field has."""
    choices = [node, *node.get("anyOf", [])]
    if isinstance(value, list) and not any("items" in choice for choice in choices):
        return "A job has one value: for several drop several files."
    numeric = any(c.get("type") in ("integer", "number") or isinstance(c.get("const"), int) for c in choices)
    if isinstance(value, str) and numeric and re.fullmatch(r"[-+]?[0-9.]+([eE][-+]?[0-9]+)?", value):
        return "Write it without quotes."
    return ""


def _checks(spec: Spec) -> list[Problem]:
    """What no single field shows."""
    if isinstance(spec, GenerateSpec):
        return _generate_checks(spec)
    if isinstance(spec, EvaluateSpec):
        return _evaluate_checks(spec)
    twice = next((name for name in spec.export if spec.export.count(name) > 1), None)
    problems = _train_checks(spec) if isinstance(spec, JobSpec) else _export_checks(spec)
    if twice:
        problems.append(Problem("bad_value", f"{twice!r} is named more than once.", "Name each once.", "/export"))
    return problems


def _train_checks(spec: JobSpec) -> list[Problem]:
    problems = []
    try:
        batches(spec.train)
    except ValueError as error:
        given = "batch_size" if spec.train.batch_size != "auto" else "gradient_accumulation"
        hint = "Choose a divisor, or give both batch_size and gradient_accumulation."
        problems.append(Problem("bad_value", f"{error}.", hint, f"/train/{given}"))
    if spec.train.packing is True and spec.precision == "8bit":
        hint = "Choose 4bit, 16bit or auto, or leave packing out."
        problems.append(Problem("bad_value", "packing does not go with a base in 8 bit.", hint, "/precision"))
    asked = "early_stopping" in spec.limits.model_fields_set and not spec.eval.dataset
    if asked and spec.limits.early_stopping and spec.data.eval_fraction == 0:
        message = "early stopping needs eval loss, but eval_fraction is 0."
        problems.append(Problem("bad_value", message, "Set data.eval_fraction.", "/limits/early_stopping"))
    return problems


def _generate_checks(spec: GenerateSpec) -> list[Problem]:
    problems = []
    if (spec.job is None) == (spec.model is None):
        code, why = ("missing", "nobody is named to answer.") if spec.job is None else ("bad_value", "both are given.")
        problems.append(Problem(code, f"job or model: {why}", "Give one: a finished training, or a base.", "/job"))
    asked = [spec.prompts is not None, spec.dataset is not None, spec.interactive]
    if sum(asked) != 1:
        code, why = ("bad_value", "more than one is given.") if any(asked) else ("missing", "nothing is asked.")
        hint = 'Give one: a list of prompts, a dataset, or "interactive": true.'
        problems.append(Problem(code, f"prompts, dataset or interactive: {why}", hint, "/prompts"))
    if spec.model is not None and not spec.base:
        problems.append(Problem("bad_value", "without a job only the base can answer.", "Leave it out.", "/base"))
    if spec.model is not None and spec.also:
        hint = "Name the first in job, and leave model out: the base is that of the job."
        problems.append(Problem("bad_value", "trainings are named beside a model.", hint, "/also"))
    elif len(set(spec.jobs)) < len(spec.jobs):
        problems.append(Problem("bad_value", "a job is named more than once.", "Name each once.", "/also"))
    return problems


def _of_one_adapter(spec: ExportSpec | EvaluateSpec) -> list[Problem]:
    if (spec.job is None) != (spec.adapter is None):
        return []
    code, why = ("missing", "nothing is named.") if spec.job is None else ("bad_value", "both are given.")
    return [Problem(code, f"job or adapter: {why}", "Give one: a finished training, or an adapter's folder.", "/job")]


def _evaluate_checks(spec: EvaluateSpec) -> list[Problem]:
    problems = _of_one_adapter(spec)
    if spec.job is None and spec.adapter and spec.dataset is None:
        hint = "Name the rows to ask: nothing is known of what a foreign adapter was trained on."
        problems.append(Problem("missing", "an adapter's folder is named, and no dataset.", hint, "/dataset"))
    twice = next((name for name in spec.benchmarks if spec.benchmarks.count(name) > 1), None)
    if twice:
        problems.append(Problem("bad_value", f"{twice!r} is named more than once.", "Name each once.", "/benchmarks"))
    if spec.data and spec.dataset is None:
        hint = "Name a dataset, or leave data out: a training's own rows are asked as it has read them."
        problems.append(Problem("bad_value", "it says how to read rows, and names none.", hint, "/data"))
    return problems


def _export_checks(spec: ExportSpec) -> list[Problem]:
    problems = _of_one_adapter(spec)
    if spec.push and len(spec.export) > 1 and not all(map(gguf, spec.export)):
        message = f"{', '.join(spec.export)}: a repository on the hub holds one kind of model."
        hint = "Push one format alone, or any number of GGUFs; drop a job for each."
        problems.append(Problem("bad_value", message, hint, "/export"))
    if spec.push and (spec.push.repo.endswith(".git") or len(spec.push.repo.partition("/")[2]) > LONGEST_REPO):
        hint = f"At most {LONGEST_REPO} characters, and not .git at the end."
        problems.append(Problem("bad_value", "the hub takes no such name.", hint, "/push/repo"))
    return problems


def _without_idle_guards(spec: JobSpec) -> JobSpec:
    """Early stopping by default is null where no rows are kept to measure: what is resolved is accepted again."""
    if spec.limits.early_stopping is None or spec.data.eval_fraction != 0 or spec.eval.dataset:
        return spec
    limits = spec.limits.model_copy(update={"early_stopping": None})
    return spec.model_copy(update={"limits": limits})


def _groups(schema: dict[str, Any]) -> dict[str, list[str]]:
    return {
        name: list(_resolved(schema, node).get("properties", {}))
        for name, node in schema["properties"].items()
        if "properties" in _resolved(schema, node)
    }


def _resolved(schema: dict[str, Any], node: dict[str, Any]) -> dict[str, Any]:
    if "$ref" in node:
        return schema["$defs"][node["$ref"].rpartition("/")[2]] | {k: v for k, v in node.items() if k != "$ref"}
    for choice in node.get("anyOf", []):
        if "$ref" in choice:
            return _resolved(schema, choice) | {k: v for k, v in node.items() if k != "anyOf"}
    return node


def _field_path(schema: dict[str, Any], loc: Any) -> tuple[list[Any], dict[str, Any]]:
    """The part of a pydantic location that stands in the document (not the union members), and its schema node."""
    path: list[Any] = []
    node = schema
    for part in loc:
        node = _resolved(schema, node)
        properties = node.get("properties")
        if properties is not None:
            path.append(part)
            if part not in properties:
                return path, {}
            node = properties[part]
        elif isinstance(part, int):
            path.append(part)
            arrays = [c for c in [node, *node.get("anyOf", [])] if "items" in c]
            node = arrays[0]["items"] if arrays else {}
        elif isinstance(node.get("additionalProperties"), dict):
            path.append(part)
            node = node["additionalProperties"]
        else:
            break
    return path, _resolved(schema, node)


def _described(node: dict[str, Any]) -> str:
    return str(node.get("description", "")).partition("\n")[0]


def _expected(node: dict[str, Any]) -> str:
    return f"Expected {_words(node)}." if node else ""


def _words(node: dict[str, Any]) -> str:
    if "anyOf" in node:
        return " or ".join(_words(choice) for choice in node["anyOf"])
    if "enum" in node:
        return "one of " + ", ".join(json.dumps(value) for value in node["enum"])
    if "const" in node:
        return json.dumps(node["const"])
    kind = node.get("type")
    if kind in ("integer", "number"):
        return ("a whole number" if kind == "integer" else "a number") + _bounds(node)
    if kind == "string":
        longest = f" of at most {node['maxLength']:,} characters" if "maxLength" in node else ""
        if "examples" in node:
            return f"a text such as {json.dumps(node['examples'][0])}"
        return "a text" + longest if "pattern" not in node else "a job id (26 characters)"
    if kind == "array":
        if node.get("maxItems") == 0:
            return "an empty list"
        each = _words(node.get("items", {}))
        if "maxItems" in node:
            return f"a list of at most {node['maxItems']}, each {each}"
        return f"a list of {each.removeprefix('a ')}"
    return {"null": "null", "boolean": "true or false", "object": "an object"}.get(str(kind), "something else")


def _bounds(node: dict[str, Any]) -> str:
    low = f"from {node['minimum']:,}" if "minimum" in node else ""
    low = f"above {node['exclusiveMinimum']:,}" if "exclusiveMinimum" in node else low
    high = f"to {node['maximum']:,}" if "maximum" in node else ""
    high = f"and below {node['exclusiveMaximum']:,}" if "exclusiveMaximum" in node else high
    return "".join(f" {part}" for part in (low, high) if part)


def placed(problems: list[Problem], text: str) -> list[Problem]:
    """The problems with the line and column of their pointers in the valid JSON `text`."""
    pointers = [p.pointer.rpartition("/")[0] if p.code == "missing" else p.pointer for p in problems]
    found = places(text, {pointer for p, pointer in zip(problems, pointers, strict=True) if p.line is None})
    return [
        replace(problem, line=place[0], column=place[1])
        if problem.line is None and (place := found.get(pointer))
        else problem
        for problem, pointer in zip(problems, pointers, strict=True)
    ]
