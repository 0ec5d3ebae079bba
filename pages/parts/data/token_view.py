"""One row as the model sees it, turned into what the token view draws: chips, the cut, and figures. Pure."""

import re
from typing import Any

from pages.parts import quantities
from pages.parts.texts import t

MOST_TOKENS = 6000
"""More are not sent to the browser; what lies behind them is counted."""

_BYTE = re.compile(r"<0x([0-9A-F]{2})>")


def drawn(view: dict[str, Any]) -> dict[str, Any]:
    """The token view's input from `spool.data.inspect.row_view`.

    Gives {"chips": [{"text", "kind" (trained, read, special), "trained", "cut", "ids", "from"}], "tokens", "trained",
    "limit", "lost", "lost_trained", "hidden"}. A character of several byte tokens is one chip. `from` counts from 0,
    `limit` is None where nothing is cut.
    """
    tokens = view["tokens"]
    limit = view["limit"] if view["limit"] and len(tokens) > view["limit"] else None
    behind = tokens[limit:] if limit else []
    return {
        "chips": [_chip(group, start, limit) for start, group in _groups(tokens[:MOST_TOKENS], limit)],
        "tokens": len(tokens),
        "trained": sum(token["trained"] for token in tokens),
        "limit": limit,
        "lost": len(behind),
        "lost_trained": sum(token["trained"] for token in behind),
        "hidden": max(0, len(tokens) - MOST_TOKENS),
    }


def in_words(seen: dict[str, Any]) -> str:
    """The row's figures in one sentence."""
    said = t("data.row.tokens", tokens=quantities.count(seen["tokens"]), trained=quantities.count(seen["trained"]))
    if not seen["limit"]:
        return said
    gone = seen["lost_trained"]
    which = t("data.row.lost_answer", number=quantities.count(gone)) if gone else t("data.row.lost_none")
    numbers: dict[str, Any] = {"lost": quantities.count(seen["lost"]), "limit": quantities.count(seen["limit"])}
    return t("data.row.lost", said=said, which=which, **numbers)


def _groups(tokens: list[dict[str, Any]], limit: int | None) -> list[tuple[int, list[dict[str, Any]]]]:
    """(first position, tokens) of each chip; bytes of one character stay together, but never across the limit."""
    groups: list[tuple[int, list[dict[str, Any]]]] = []
    for position, token in enumerate(tokens):
        last = groups[-1][1] if groups else []
        same = last and token["trained"] == last[0]["trained"] and position != limit
        if same and _BYTE.fullmatch(token["text"]) and _unfinished(last):
            last.append(token)
        else:
            groups.append((position, [token]))
    return groups


def _unfinished(group: list[dict[str, Any]]) -> bool:
    """Whether these are the first bytes of a character that needs more (UTF-8)."""
    found = [_BYTE.fullmatch(token["text"]) for token in group]
    if not all(found):
        return False
    first = int(found[0].group(1), 16)  # type: ignore[union-attr]
    length = 2 if 0xC2 <= first <= 0xDF else 3 if 0xE0 <= first <= 0xEF else 4 if 0xF0 <= first <= 0xF4 else 1
    return len(group) < length


def _chip(group: list[dict[str, Any]], start: int, limit: int | None) -> dict[str, Any]:
    token = group[0]
    text = token["text"] if len(group) == 1 else _decoded(group)
    kind = "special" if token["special"] else "trained" if token["trained"] else "read"
    return {
        "text": text,
        "kind": kind,
        "trained": token["trained"],
        "cut": limit is not None and start >= limit,
        "ids": [each["id"] for each in group],
        "from": start,
    }


def _decoded(group: list[dict[str, Any]]) -> str:
    data = bytes(int(token["text"][3:5], 16) for token in group)
    return data.decode("utf-8", "replace")
