"""Text that people wrote, made safe to show: each name, message and path comes through here before any Markdown.

What `st.text`, `st.code`, table cells and select options show is literal anyway and needs `one_line` at most.
"""

import re
import unicodedata

_PUNCTUATION = re.compile(r"([!-/:-@\[-`{-~])")
_UNSEEN = ("Cc", "Cf", "Co", "Cs")
_SHAPING = "\u200c\u200d"
"""Joiners that Persian, Indic scripts and emoji are written with."""

_JOINER = "\u2060"
_REPLACED_LATE = re.compile(r":(?=[\w+-])")
"""`:material/home:` and `:tada:` are looked for in the parsed text, where a backslash no longer stands."""


def one_line(text: object, longest: int = 200) -> str:
    """One line without control, direction-changing or private-use characters, cut with an ellipsis."""
    kept = "".join(c if c in _SHAPING or unicodedata.category(c) not in _UNSEEN else " " for c in str(text))
    words = " ".join(kept.split())
    return words if len(words) <= longest else words[: longest - 1] + "…"


def md(text: object, longest: int = 200) -> str:
    """Markdown that shows exactly this text, on one line: no link, image, HTML, icon or colour comes of it."""
    return _PUNCTUATION.sub(r"\\\1", _REPLACED_LATE.sub(":" + _JOINER, one_line(text, longest)))


def lines(text: str) -> str:
    """Several lines for a literal block: escape sequences and other control characters gone, carriage returns resolved.

    A progress bar that redraws its line with carriage returns leaves its last state only.
    """
    text = re.sub(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)", "", text)
    last_states = (line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n"))
    return "\n".join("".join(c for c in line if c == "\t" or c.isprintable()) for line in last_states)
