"""JSON that is not quite JSON: what people and programs write instead, read without a guess about the contents."""

import ast
import json
import re
import warnings
from typing import Any

import orjson

LITERAL_CHARACTERS = 100_000

# NaN and Infinity are no JSON; pandas and Python write them for a missing value.
DECODER = json.JSONDecoder(parse_constant=lambda _: None)
LENIENT = json.JSONDecoder(parse_constant=lambda _: None, strict=False)
# JavaScript's comments are no JSON either, but people write them.
COMMENT = r"//[^\n]*|/\*[\s\S]*?\*/"
STRING = r'"(?:\\[\s\S]|[^"\\])*(?:"|$)'
COMMENTS = re.compile(rf"({STRING})|{COMMENT}")
SURPLUS_COMMAS = re.compile(rf"({STRING})|,(?=\s*[}}\]])")


def mended(text: str) -> tuple[Any, str] | None:
    """(value, how) where only the notation is at fault; else None."""
    attempts = (
        (lambda: LENIENT.decode(text), "Control characters in it were read as they stand."),
        (lambda: DECODER.decode(text.rstrip(",")), "The comma at its end was left out."),
        (lambda: DECODER.decode(SURPLUS_COMMAS.sub(r"\1", text)), "A comma before a closing bracket was left out."),
        (
            lambda: DECODER.decode(SURPLUS_COMMAS.sub(r"\1", COMMENTS.sub(r"\1", text))),
            "Comments and surplus commas were left out.",
        ),
    )
    for attempt, how in attempts:
        try:
            return attempt(), how
        except (ValueError, RecursionError):
            pass
    value = literal(text) if text[:1] == "{" and "'" in text else None
    return (value, "It was read as Python writes a dict.") if isinstance(value, dict) else None


def literal(text: str) -> Any:
    """The value that Python printed as this text, if JSON knows it too; None for anything else."""
    if len(text) > LITERAL_CHARACTERS:
        return None
    try:
        with warnings.catch_warnings(action="ignore"):  # about escapes such as \e, which stay as they are
            value = ast.literal_eval(text.strip())
        orjson.dumps(value)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return None
    return value
