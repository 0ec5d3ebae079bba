"""Which runs a spec names: by an id anywhere in it, or by a path that leads into runs/, links followed."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from spool.protocol.home import Home

_ID = re.compile(rb"[0-7][0-9A-HJKMNP-TV-Z]{25}")
_LONGEST_PATH = 1024


def runs_named(home: Home, started_in: Path, spec: bytes) -> frozenset[str]:
    """The ids of all runs that a spec may mean; too many rather than too few, also where it is no JSON (yet)."""
    named = {match.decode() for match in _ID.findall(spec)}
    try:
        document = orjson.loads(spec)
    except ValueError:
        return frozenset(named)
    for text in _strings(document):
        base = started_in if "/" in text else home.models
        try:
            path = (base / text).resolve()
        except (OSError, ValueError, RuntimeError):
            continue
        if path.is_relative_to(home.runs) and path != home.runs:
            named.add(path.relative_to(home.runs).parts[0])
    return frozenset(named)


def _strings(document: Any) -> Iterator[str]:
    if isinstance(document, str):
        if 0 < len(document) <= _LONGEST_PATH:
            yield document
    elif isinstance(document, dict):
        for value in document.values():
            yield from _strings(value)
    elif isinstance(document, list):
        for value in document:
            yield from _strings(value)
