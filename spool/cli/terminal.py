"""What reaches a terminal: text made harmless, tables, the progress bar, and the one JSON document of --json."""

import json
import re
import shutil
import sys
import unicodedata
from collections.abc import Sequence
from typing import Any

ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[PX^_][^\x1b]*(?:\x1b\\)?|[@-Z\\-_])")
UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters but tab and newline, what turns the direction of text around, and halves of characters."""


def clean(text: object) -> str:
    """Text of users, with what could steer a terminal or mislead its reader shown as an escape."""
    return UNSAFE.sub(lambda match: _escape(match[0]), str(text))


def one_line(text: object) -> str:
    return clean(text).replace("\n", "\\n").replace("\t", " ")


def plain_log(text: str) -> str:
    """Log output: colours are dropped, a carriage return (a progress bar's) begins a new line."""
    return clean(re.sub(r"\r+\n?", "\n", ANSI.sub("", text)))


def _escape(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def out(text: str = "") -> None:
    print(clean(text), flush=True)


def say(text: str) -> None:
    """A message: on stderr, so that stdout stays what was asked for."""
    print(clean(text), file=sys.stderr, flush=True)


def complain(message: str, hint: str = "") -> None:
    say(f"finetuner: {message}")
    if hint:
        say(f"  {hint}")


def print_json(document: Any) -> None:
    text = json.dumps(document, ensure_ascii=False, indent=2, default=str)
    print(UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", text), flush=True)


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Columns as wide as what stands in them; a last column may run on."""
    lines = [[one_line(cell) for cell in row] for row in (header, *rows)]
    widths = [max(_width(line[i]) for line in lines) for i in range(len(header))]
    for line in lines:
        cells = [cell + " " * (width - _width(cell)) for cell, width in zip(line, widths, strict=True)]
        print("  ".join(cells).rstrip())
    sys.stdout.flush()


def fields(pairs: Sequence[tuple[str, object]]) -> None:
    """Names and values under each other; what is None is left out."""
    for name, value in pairs:
        if value is not None:
            print(f"{name:<12}{one_line(value)}")
    sys.stdout.flush()


def shorten(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _width(text: str) -> int:
    if text.isascii():
        return len(text)
    wide = sum(unicodedata.east_asian_width(character) in "WF" for character in text)
    return len(text) + wide - sum(unicodedata.combining(character) > 0 for character in text)


def bar(fraction: float, width: int = 24) -> str:
    full = round(min(1.0, max(0.0, fraction)) * width)
    return "█" * full + "░" * (width - full)


class StatusLine:
    """One line on stderr that is drawn over itself on a terminal, and printed now and then elsewhere."""

    def __init__(self) -> None:
        self.live = sys.stderr.isatty()

    def show(self, text: str) -> None:
        if self.live:
            width = shutil.get_terminal_size().columns - 1
            print("\r\x1b[K" + shorten(one_line(text), width), end="", file=sys.stderr, flush=True)

    def end(self) -> None:
        if self.live:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
