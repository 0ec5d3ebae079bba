"""Reading a job spec from bytes: strict JSON, then the closed schema, every problem at once with its place."""

import difflib
import functools
import json
import math
import re
from collections import Counter
from typing import Any

from pydantic import ValidationError

from spool.protocol.errors import Problem, SpecError
from spool.protocol.spec import SCHEMA_VERSION, JobSpec, batches, json_schema

MAX_BYTES = 256 * 1024
MAX_DEPTH = 32
MAX_KEYS = 1000
MAX_PROBLEMS = 100

NOT_BUILT = {
    "/kind": ("export", "generate", "evaluate"),
    "/train/packing": (True,),
}


def parse_spec(data: bytes) -> JobSpec:
    """The spec of a dropped file.

    Raises:
        SpecError: with all problems; nothing of the file is used.
    """
    document, text = parse_json(data)
    if not isinstance(document, dict):
        raise SpecError(
            [Problem("not_an_object", "a job spec is a JSON object.", 'The smallest: {"schema": 1, "model": ..}', "")]
        )
    problems = _version_problems(document)
    if not problems:
        try:
            spec = JobSpec.model_validate(document, by_alias=True, by_name=False)
        except ValidationError as error:
            problems = _schema_problems(document, error)
        else:
            problems = _cross_checks(spec)
            if not problems:
                return spec
    raise SpecError([placed(problem, text) for problem in problems])


def parse_json(data: bytes) -> tuple[Any, str]:
    """(document, text) of strict JSON: no duplicate keys, no NaN, bounded size, depth and number of keys."""
    if len(data) > MAX_BYTES:
        message = f"the file has {len(data):,} bytes; a job spec has at most {MAX_BYTES:,}."
        raise SpecError([Problem("too_large", message)])
    text = decode(data)
    if _depth(text) > MAX_DEPTH:
        raise SpecError([Problem("too_deep", f"the file is nested deeper than {MAX_DEPTH} levels.")])
    repeated: list[str] = []
    keys = 0

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal keys
        keys += len(items)
        if keys > MAX_KEYS:
            raise SpecError([Problem("too_many_keys", f"the file has more than {MAX_KEYS:,} fields.")])
        names = Counter(name for name, _ in items)
        repeated.extend(name for name, count in names.items() if count > 1)
        return dict(items)

    try:
        document = json.loads(
            text, object_pairs_hook=pairs, parse_constant=_constant, parse_float=_float, parse_int=_int
        )
        json.dumps(document, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        raise SpecError([_syntax_problem(error, text)]) from None
    except UnicodeEncodeError:
        message = "the file holds half a character (a lone surrogate such as \\ud800)."
        raise SpecError([Problem("bad_text", message, "Write the character itself, in UTF-8.")]) from None
    except ValueError as error:
        raise SpecError([Problem("bad_number", str(error))]) from None
    if repeated:
        shown = ", ".join(repr(_short(name)) for name in repeated[:10])
        raise SpecError([Problem("duplicate_key", f"the field {shown} stands there more than once.", "Keep one.")])
    return document, text


def _constant(word: str) -> None:
    raise ValueError(f"{word} is not a JSON number.")


def _float(word: str) -> float:
    value = float(word)
    if math.isinf(value):
        raise ValueError(f"{_short(word)} is too large a number.")
    return value


def _int(word: str) -> int:
    if len(word) > 300:
        raise ValueError(f"{_short(word)} is too large a number.")
    return int(word)


def _short(text: str, limit: int = 60) -> str:
    return text if len(text) <= limit else text[: limit - 3] + "..."


def decode(data: bytes) -> str:
    """UTF-8 text; other encodings are named in the error. A UTF-8 byte order mark is passed over."""
    if not data.strip():
        raise SpecError([Problem("empty", "the file is empty.")])
    half_empty = b"\0" in data and any(not half.strip(b"\0") for half in (data[::2], data[1::2]))
    if data[:2] in (b"\xff\xfe", b"\xfe\xff") or (half_empty and data.strip(b"\0")):
        raise SpecError([Problem("not_utf8", "the file is saved as UTF-16.", "Save it as UTF-8.")])
    if b"\0" in data:
        raise SpecError([Problem("not_text", "the file holds NUL bytes; it is not text.", "Copy it once more.")])
    data = data.removeprefix(b"\xef\xbb\xbf")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        before = data[: error.start].decode()
        line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
        if error.reason == "unexpected end of data":
            raise SpecError([_ends_early(line, column)]) from None
        message = "the file is not UTF-8; it may be saved as Latin-1 or Windows-1252."
        raise SpecError([Problem("not_utf8", message, "Save it as UTF-8.", "", line, column)]) from None


def locate(text: str, pointer: str) -> tuple[int, int] | None:
    """(line, column), from 1, of the value that a JSON pointer names in valid JSON `text`; of its key for an object."""
    scanner = json.JSONDecoder()
    space = re.compile(r"[\s,:]*")
    index = space.match(text).end()  # type: ignore[union-attr]
    for part in [p.replace("~1", "/").replace("~0", "~") for p in pointer.split("/")[1:]]:
        opening, index = text[index], index + 1
        position = 0
        while True:
            index = space.match(text, index).end()  # type: ignore[union-attr]
            if index >= len(text) or text[index] in "]}":
                return None
            key: Any = position
            if opening == "{":
                place = index
                key, index = scanner.raw_decode(text, index)
                index = space.match(text, index).end()  # type: ignore[union-attr]
            else:
                place = index
            if str(key) == part:
                break
            _, index = scanner.raw_decode(text, index)
            position += 1
    if pointer:
        index = place
    return text.count("\n", 0, index) + 1, index - (text.rfind("\n", 0, index) + 1) + 1


def _depth(text: str) -> int:
    depth = deepest = 0
    # Possessive and with the closing quote optional: an unfinished string must not be scanned from each of its quotes.
    for mark in re.finditer(r'"(?:[^"\\]|\\.)*+"?|[\[{]|[\]}]', text, re.DOTALL):
        if mark.group() in "[{":
            depth += 1
            deepest = max(deepest, depth)
            if deepest > MAX_DEPTH:
                break
        elif mark.group() in "]}":
            depth -= 1
    return deepest


def _syntax_problem(error: json.JSONDecodeError, text: str) -> Problem:
    rest = text[error.pos :].rstrip()
    cut = not rest or error.msg.startswith("Unterminated") or any(w.startswith(rest) for w in ("true", "false", "null"))
    cut = cut or re.fullmatch(r"-|\.|[eE][-+]?", rest) is not None
    if cut or (error.msg.startswith("Invalid \\") and len(rest) < 7):
        return _ends_early(error.lineno, error.colno)
    hint = "Check the commas, quotes and brackets there."
    return Problem("bad_json", f"{error.msg}.", hint, "", error.lineno, error.colno)


def _ends_early(line: int, column: int) -> Problem:
    message = f"JSON ends early at line {line}, column {column}."
    return Problem("bad_json", message, "It looks like an unfinished copy.", "", line, column)


def _version_problems(document: dict[str, Any]) -> list[Problem]:
    version = document.get("schema")
    if isinstance(version, bool):  # for Python, and so for pydantic's Literal, true equals 1
        return [Problem("bad_value", f"{json.dumps(version)} does not fit.", f"Expected {SCHEMA_VERSION}.", "/schema")]
    if isinstance(version, int | float) and version > SCHEMA_VERSION:
        message = f"made for version {_short(f'{version:g}')}; this runner knows version {SCHEMA_VERSION}."
        return [Problem("newer_version", message, "Update the runner.", "/schema")]
    return []


def _schema_problems(document: dict[str, Any], error: ValidationError) -> list[Problem]:
    schema = _schema()
    found: dict[str, Problem] = {}
    items = error.errors(include_url=False, include_context=False)
    for item in items[:MAX_PROBLEMS]:
        path, node = _field_path(schema, item["loc"])
        pointer = "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)
        if item["type"] == "missing":
            problem = Problem("missing", "this field is required.", f"It is: {_described(node)}", pointer)
        elif item["type"] == "extra_forbidden":
            problem = _unknown_field(schema, path, pointer)
        else:
            problem = _wrong_value(document, node, path, pointer)
        found.setdefault(pointer, problem)
    problems = list(found.values())
    if len(items) > MAX_PROBLEMS:
        problems.append(Problem("too_many_problems", f"and {len(items) - MAX_PROBLEMS} more problems."))
    return problems


@functools.cache
def _schema() -> dict[str, Any]:
    return json_schema()


def _unknown_field(schema: dict[str, Any], path: list[Any], pointer: str) -> Problem:
    _, parent = _field_path(schema, path[:-1])
    known = list(parent.get("properties", {}))
    name = str(path[-1])
    elsewhere = {field: f"{group}.{field}" for group, fields in _groups(schema).items() for field in fields}
    near = difflib.get_close_matches(name, known, n=1)
    near = near or [elsewhere[field] for field in difflib.get_close_matches(name, elsewhere, n=1)]
    near = near or difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    if name in elsewhere:
        hint = f"Did you mean {elsewhere[name]!r}?"
    elif near:
        hint = f"Did you mean {near[0]!r}?"
    else:
        hint = "Known here: " + ", ".join(known) + "."
    return Problem("unknown_field", f"there is no field {_short(name)!r}.", hint, pointer)


def _wrong_value(document: Any, node: dict[str, Any], path: list[Any], pointer: str) -> Problem:
    value = document
    for part in path:
        value = value[part]
    if value in NOT_BUILT.get(pointer, ()) and isinstance(value, (str, bool)):
        return Problem("not_built", f"{json.dumps(value)} is not built yet in this version.", _expected(node), pointer)
    if pointer.startswith("/export/") and isinstance(value, str):
        known = ["adapter", "merged"]
        if value.partition(":")[0] in ("gguf", "onnx", "awq", "gptq"):
            return Problem("not_built", f"the export {value!r} is not built yet.", _expected(node), pointer)
        near = difflib.get_close_matches(value, known, n=1)
        return Problem("bad_value", f"unknown export {value!r}.", f"Did you mean {(near or known)[0]!r}?", pointer)
    shown = json.dumps(value, ensure_ascii=False, default=str)
    return Problem("bad_value", f"{_short(shown)} does not fit.", _expected(node), pointer)


def _cross_checks(spec: JobSpec) -> list[Problem]:
    problems = []
    try:
        batches(spec.train)
    except ValueError as error:
        given = "batch_size" if spec.train.batch_size != "auto" else "gradient_accumulation"
        hint = "Choose a divisor, or give both batch_size and gradient_accumulation."
        problems.append(Problem("bad_value", f"{error}.", hint, f"/train/{given}"))
    asked = "early_stopping" in spec.limits.model_fields_set and not spec.eval.dataset
    if asked and spec.limits.early_stopping and spec.data.eval_fraction == 0:
        message = "early stopping needs eval loss, but eval_fraction is 0."
        problems.append(Problem("bad_value", message, "Set data.eval_fraction.", "/limits/early_stopping"))
    return problems


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
        return "a text" + longest if "pattern" not in node else "a job id (26 characters)"
    if kind == "array":
        if node.get("maxItems") == 0:
            return "an empty list"
        longest = f"at most {node['maxItems']}, each " if "maxItems" in node else ""
        return "a list of " + longest + _words(node.get("items", {})).removeprefix("" if longest else "a ")
    return {"null": "null", "boolean": "true or false", "object": "an object"}.get(str(kind), "something else")


def _bounds(node: dict[str, Any]) -> str:
    low = f"from {node['minimum']:,}" if "minimum" in node else ""
    low = f"above {node['exclusiveMinimum']:,}" if "exclusiveMinimum" in node else low
    high = f"to {node['maximum']:,}" if "maximum" in node else ""
    high = f"and below {node['exclusiveMaximum']:,}" if "exclusiveMaximum" in node else high
    return "".join(f" {part}" for part in (low, high) if part)


def placed(problem: Problem, text: str) -> Problem:
    if problem.line is not None:
        return problem
    pointer = problem.pointer
    if problem.code == "missing":
        pointer = pointer.rpartition("/")[0]
    place = locate(text, pointer)
    if place is None:
        return problem
    return Problem(problem.code, problem.message, problem.hint, problem.pointer, *place)
