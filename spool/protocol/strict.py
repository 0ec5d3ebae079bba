"""Strict JSON from bytes that anybody may have written: UTF-8, bounded, no key twice, each error with its place."""

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from spool.protocol.errors import Problem, SpecError

MAX_BYTES = 256 * 1024
MAX_DEPTH = 32
MAX_KEYS = 1000
MAX_VALUES = 10_000
"""Commas and opening brackets together. A job spec has a few hundred; a bomb is refused before anything is built."""
MAX_TEXT = 8192

_HALF_CHARACTER = re.compile(r"\\u[dD][89abAB-F]")
_LARGE_NUMBER = re.compile(r"(?<!\d)\d{100}|[eE]\+?\d{3}")
_TEXT = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"')
_SPACE = re.compile(r"[\s,:]*")
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_ONE_KIND = bytes.maketrans(b"{}", b"[]")
_DECODER = json.JSONDecoder()


def parse_json(data: bytes, max_text: int = MAX_TEXT) -> tuple[Any, str]:
    """(document, text) of strict JSON: no duplicate keys, no NaN, bounded size, depth, fields, values and texts.

    Args:
        max_text: characters of the longest text that fits.

    Raises:
        SpecError: with the first problem; the work it takes to find it is bounded too.
    """
    if len(data) > MAX_BYTES:
        message = f"the file has {len(data):,} bytes; a job spec has at most {MAX_BYTES:,}."
        raise SpecError([Problem("too_large", message)])
    text = decode(data)
    longest = _bounded(text)
    document = _loaded(text)
    if longest > max_text:
        _check_texts(document, text, max_text)
    return document, text


def _bounded(text: str) -> int:
    """Refuses what is too deep or has too many values, before it is parsed; gives the longest text as written."""
    # Without its escapes a text ends at the next quote, and what lies outside of texts is every second piece.
    pieces = text.replace("\\\\", "__").replace('\\"', "__").split('"')
    outside = "".join(pieces[::2])
    openings = outside.count("[") + outside.count("{")
    if openings > MAX_DEPTH:
        brackets = outside.encode().translate(_ONE_KIND, _NO_BRACKETS)
        for _ in range(MAX_DEPTH):
            brackets = brackets.replace(b"[]", b"")
        if b"[]" in brackets or brackets.count(b"[") > MAX_DEPTH:
            raise SpecError([Problem("too_deep", f"the file is nested deeper than {MAX_DEPTH} levels.")])
    if openings + outside.count(",") > MAX_VALUES:
        raise SpecError([Problem("too_many_values", f"the file holds more than {MAX_VALUES:,} values.")])
    return max(map(len, pieces[1::2]), default=0)


def _loaded(text: str) -> Any:
    repeated: list[str] = []
    keys = 0

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal keys
        keys += len(items)
        if keys > MAX_KEYS:
            raise SpecError([Problem("too_many_keys", f"the file has more than {MAX_KEYS:,} fields.")])
        fields = dict(items)
        if len(fields) < len(items):
            repeated.extend(name for name, count in Counter(name for name, _ in items).items() if count > 1)
        return fields

    def constant(word: str) -> None:
        raise _no_number(text, word)

    hooks: dict[str, Any] = {"parse_float": _float, "parse_int": _int} if _LARGE_NUMBER.search(text) else {}
    try:
        document = json.loads(text, object_pairs_hook=pairs, parse_constant=constant, **hooks)
        if _HALF_CHARACTER.search(text):
            json.dumps(document, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        raise SpecError([_syntax_problem(error, text)]) from None
    except UnicodeEncodeError:
        message = "the file holds half a character (a lone surrogate such as \\ud800)."
        raise SpecError([Problem("bad_text", message, "Write the character itself, in UTF-8.")]) from None
    except ValueError as error:
        raise SpecError([Problem("bad_number", str(error))]) from None
    if repeated:
        shown = ", ".join(repr(shortened(name)) for name in repeated[:10])
        many = "the fields {} stand" if len(repeated) > 1 else "the field {} stands"
        message = f"{many.format(shown)} there more than once."
        raise SpecError([Problem("duplicate_key", message, "Keep one of each.")])
    return document


def _no_number(text: str, word: str) -> SpecError:
    """NaN and its like, with their place: outside of the texts."""
    line, column = _place(text, _TEXT.sub(lambda match: "_" * len(match[0]), text).find(word))
    hint = "Write a number, or leave the field out."
    return SpecError([Problem("bad_number", f"{word} is not a JSON number.", hint, "", line, column)])


def _float(word: str) -> float:
    value = float(word)
    if math.isinf(value):
        raise ValueError(f"{shortened(word)} is too large a number.")
    return value


def _int(word: str) -> int:
    if len(word) > 300:
        raise ValueError(f"{shortened(word)} is too large a number.")
    return int(word)


def _check_texts(document: Any, text: str, max_text: int) -> None:
    for pointer, each in _texts(document, ""):
        if len(each) > max_text:
            message = f"a text of {len(each):,} characters stands here; at most {max_text:,} fit."
            place = places(text, [pointer])[pointer]
            raise SpecError([Problem("too_long_text", message, "Rows belong in the dataset.", pointer, *place)])


def _texts(value: Any, pointer: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield pointer, value
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield pointer, name
            if len(name) <= MAX_TEXT:
                yield from _texts(inner, f"{pointer}/{name.replace('~', '~0').replace('/', '~1')}")
    elif isinstance(value, list):
        for position, inner in enumerate(value):
            yield from _texts(inner, f"{pointer}/{position}")


def shortened(text: str, limit: int = 60) -> str:
    return text if len(text) <= limit else text[: limit - 3] + "..."


def decode(data: bytes) -> str:
    """UTF-8 text; other encodings are named in the error. A UTF-8 byte order mark is passed over."""
    if not data.strip():
        raise SpecError([Problem("empty", "the file is empty.", "Copy it once more.")])
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


def places(text: str, pointers: Iterable[str]) -> dict[str, tuple[int, int]]:
    """(line, column), from 1, of the values that JSON pointers name in valid JSON `text`, in one pass; of its key for
    an object's field. Pointers that lead nowhere are left out."""
    tree: dict[str, Any] = {}
    for pointer in pointers:
        node = tree
        for part in pointer.split("/")[1:]:
            node = node.setdefault(part.replace("~1", "/").replace("~0", "~"), {})
    found: dict[str, int] = {}
    start = _SPACE.match(text).end()  # type: ignore[union-attr]
    if tree:
        _walk(text, start, tree, "", found)
    found[""] = start
    line, counted, places = 1, 0, {}
    for pointer, index in sorted(found.items(), key=lambda each: each[1]):
        line, counted = line + text.count("\n", counted, index), index
        places[pointer] = (line, index - text.rfind("\n", 0, index))
    return {pointer: places[pointer] for pointer in pointers if pointer in places}


def _walk(text: str, index: int, wanted: dict[str, Any], at: str, found: dict[str, int]) -> int:
    """Notes where the wanted parts of the value at `index` begin; gives the index behind the value."""
    opening = text[index]
    if not wanted or opening not in "{[":
        return _DECODER.raw_decode(text, index)[1]
    index = _SPACE.match(text, index + 1).end()  # type: ignore[union-attr]
    position = 0
    while text[index] not in "]}":
        place, key = index, str(position)
        if opening == "{":
            key, index = _DECODER.raw_decode(text, index)
            index = _SPACE.match(text, index).end()  # type: ignore[union-attr]
        inner = wanted.get(key)
        if inner is not None:
            pointer = f"{at}/{key.replace('~', '~0').replace('/', '~1')}"
            found[pointer] = place
            index = _walk(text, index, inner, pointer, found)
        else:
            index = _DECODER.raw_decode(text, index)[1]
        index = _SPACE.match(text, index).end()  # type: ignore[union-attr]
        position += 1
    return index + 1


def _syntax_problem(error: json.JSONDecodeError, text: str) -> Problem:
    rest = text[error.pos :].rstrip()
    cut = not rest or error.msg.startswith("Unterminated") or any(w.startswith(rest) for w in ("true", "false", "null"))
    cut = cut or re.fullmatch(r"-|\.|[eE][-+]?", rest) is not None
    if cut or (error.msg.startswith("Invalid \\") and len(rest) < 7):
        return _ends_early(error.lineno, error.colno)
    message, hint, at = _slip(error, text, rest)
    line, column = _place(text, at)
    return Problem("bad_json", message, hint, "", line, column)


def _slip(error: json.JSONDecodeError, text: str, rest: str) -> tuple[str, str, int]:
    """What people write where JSON wants something else: (message, hint, where in the text)."""
    before = text[: error.pos].rstrip()
    python = re.match(r"(None|True|False)\b", rest)
    if rest.startswith(("//", "/*", "#")):
        return "a comment stands here; JSON has none.", "Leave it out.", error.pos
    if rest[0] in "}]" and before.endswith(","):
        return f"a comma stands before the closing {rest[0]}.", "Leave that comma out.", len(before) - 1
    if rest[0] in "'\u2018\u2019\u201c\u201d\u201e":
        message = f"a text begins with {rest[0]}; JSON knows straight double quotes only."
        return message, 'Write "...".', error.pos
    if python:
        word = {"None": "null", "True": "true", "False": "false"}[python[0]]
        return f"{python[0]} is Python, not JSON.", f"Write {word}.", error.pos
    if error.msg.startswith("Extra data"):
        return "the first JSON value ends before this, and more follows.", "Drop one file for each job.", error.pos
    if not before:
        return "this is not JSON.", 'A job spec is a JSON object: {"schema": 1, ...}', error.pos
    return f"{error.msg}.", "Check the commas, quotes and brackets there.", error.pos


def _place(text: str, index: int) -> tuple[int, int]:
    """(line, column), both from 1."""
    return text.count("\n", 0, index) + 1, index - text.rfind("\n", 0, index)


def _ends_early(line: int, column: int) -> Problem:
    hint = "It looks like an unfinished copy: copy it once more."
    return Problem("bad_json", "JSON ends early.", hint, "", line, column)
