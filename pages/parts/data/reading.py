"""How a person says a file is to be read (format, column roles, dialect, longest row), and how that goes to Train."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from pages.parts import words
from pages.parts.texts import t
from spool.data.keeping import said
from spool.data.keeping.keep import Stored
from spool.data.reading.read import Dialect
from spool.data.reading.roles import FORMATS
from spool.protocol.home import Home
from spool.protocol.resolve import HUB_DATASET

AUTO = "auto"
ENCODINGS = {
    "utf-8": ("UTF-8", ""),
    "utf-16": ("UTF-16", ""),
    "windows-1252": ("Windows-1252", "western"),
    "iso-8859-15": ("ISO 8859-15", "western"),
    "windows-1250": ("Windows-1250", "central"),
    "windows-1251": ("Windows-1251", "cyrillic"),
    "shift_jis": ("Shift JIS", "japanese"),
    "gb18030": ("GB 18030", "chinese"),
    "big5": ("Big5", "chinese"),
}
"""Python's name of an encoding -> how people call it, and whose letters it is for."""

DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
POINTERS = ("/data/format", "/data/mapping", "/data/encoding", "/data/delimiter", "/data/header", "/data/max_length")


def encodings() -> dict[Any, str]:
    """What can be chosen, with its label."""
    named = {each: f"{name} {t(f'data.read.{whose}')}" if whose else name for each, (name, whose) in ENCODINGS.items()}
    return {AUTO: t("data.read.detected"), **named}


def delimiters() -> dict[Any, str]:
    return {AUTO: t("data.read.detected"), **{each: t(f"data.read.{name}") for each, name in DELIMITERS.items()}}


def headers() -> dict[Any, str]:
    return {AUTO: t("data.read.detected"), True: t("data.read.names"), False: t("data.read.row")}


@dataclass(frozen=True)
class Reading:
    """What differs from what is recognised; as it stands it says nothing."""

    format: str = AUTO
    mapping: dict[str, str] = field(default_factory=dict)
    """role -> column"""
    encoding: str = AUTO
    delimiter: str = AUTO
    header: bool | str = AUTO
    max_length: int | None = None

    @property
    def dialect(self) -> Dialect:
        return Dialect(self.encoding, self.delimiter, None if self.header == AUTO else bool(self.header))

    def values(self) -> dict[str, Any]:
        """The spec's fields that say the same, by JSON pointer; what is automatic is left out."""
        named = dict(
            zip(
                POINTERS,
                (self.format, self.mapping, self.encoding, self.delimiter, self.header, self.max_length),
                strict=True,
            )
        )
        return {pointer: value for pointer, value in named.items() if value not in (AUTO, None) and value != {}}

    def query(self) -> dict[str, str]:
        """The same for an address: `{"set": '{"/data/format": "alpaca"}'}`, or nothing."""
        values = self.values()
        return {"set": orjson.dumps(values).decode()} if values else {}


def from_query(text: str | None) -> dict[str, Any]:
    """The values of an address again. Anything that is not of that kind is left out: addresses can be typed."""
    try:
        document = orjson.loads(text or "{}")
    except ValueError:
        return {}
    return fitting(document) if isinstance(document, dict) else {}


def fitting(values: Mapping[str, Any]) -> dict[str, Any]:
    """Of values by JSON pointer those that say how a file is read, and say it rightly."""
    return {pointer: values[pointer] for pointer in POINTERS if _fits(pointer, values.get(pointer))}


def said_before(home: Home, stored: Stored) -> dict[str, Any]:
    """What somebody has said of a dataset's columns and bytes, on any day and in any browser, by JSON pointer."""
    return fitting({f"/data/{name}": value for name, value in said.of(home, stored).items()})


def _fits(pointer: str, value: Any) -> bool:
    match pointer:
        case "/data/format":
            return isinstance(value, str) and value in FORMATS
        case "/data/mapping":
            return isinstance(value, dict) and all(isinstance(each, str) for each in value.values())
        case "/data/encoding":
            return isinstance(value, str) and value in ENCODINGS
        case "/data/delimiter":
            return isinstance(value, str) and value in DELIMITERS
        case "/data/header":
            return isinstance(value, bool)
        case _:
            return isinstance(value, int) and not isinstance(value, bool) and value > 0


def hub_reference(typed: str) -> str | None:
    """What a job names a dataset of the hub by (hf:ORG/NAME ...), of what somebody typed or copied; None for others."""
    plain = re.sub(r"^(https?://[^/]+/)?datasets/", "", typed.strip()).rstrip("/").removeprefix("hf:")
    return f"hf:{plain}" if HUB_DATASET.fullmatch(f"hf:{plain}") else None


def roles(format: str, recognised: str | None) -> tuple[str, ...]:
    """The roles that columns can be given: those of the format, or of the one that was recognised."""
    name = recognised if format == AUTO else format
    return FORMATS[name].roles if name in FORMATS else ("prompt", "completion", "system")


def half_mapped(told: Reading, read_as: str | None) -> str:
    """What to say where roles were given that the format a file is read as has no use for; empty where all count."""
    unused = sorted(set(told.mapping) - set(FORMATS[read_as].roles)) if read_as in FORMATS else []
    if not unused:
        return ""
    named = t("data.read.half_join").join(f"“{words.role(role)}”" for role in unused)
    return t("data.read.half", format=words.format_name(read_as), roles=named)


def differing(chosen: Mapping[str, str | None], recognised: Mapping[str, str]) -> dict[str, str]:
    """The mapping that says what was chosen: only what is not recognised anyway."""
    return {role: column for role, column in chosen.items() if column and column != recognised.get(role)}
