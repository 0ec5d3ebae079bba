"""Which format a table has: what its columns are called, what lies in them, or what the user's mapping says."""

import difflib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from spool.data.judging.turns import alternating, are_spoken, as_turns, speaks_sharegpt
from spool.data.reading.roles import (
    ANSWERING,
    ASKING,
    CHATTING,
    COMMON,
    FORMATS,
    KNOWN_NAMES,
    NAMES,
    ROLES,
    TALKS,
    plain,
)
from spool.data.reading.table import Table
from spool.protocol.errors import DataError

SAMPLE_ROWS = 200


@dataclass(frozen=True)
class Layout:
    """How a row is read: the column that plays each role."""

    format: str
    roles: dict[str, str]
    confidence: float
    """1 where names and contents leave no doubt; below 0.6 it is a guess that a person should look at."""
    alternatives: list[dict[str, Any]] = field(default_factory=list)
    """The other layouts that would fit, best first: {"format", "roles", "confidence"}."""


def recognise(table: Table, format: str = "auto", mapping: Mapping[str, str] | None = None) -> Layout:
    """The layout of a table's rows.

    Args:
        format: a format's name, or "auto".
        mapping: role -> column, for names that are not recognised; the roles it leaves out are still looked for.

    Raises:
        DataError: no format fits, or the mapping names a role or column that does not exist.
    """
    if format != "auto" and format not in FORMATS:
        raise DataError(f"there is no format {format!r}.", f"Known: auto, {', '.join(FORMATS)}.")
    fixed = _checked_mapping(table, mapping or {})
    found = _candidates(table, fixed)
    if fixed:
        found = [each for each in found if set(fixed.values()) <= set(each.roles.values())] or found
    chosen = [each for each in found if format in ("auto", each.format)]
    if not chosen:
        raise _not_recognised(table, format, fixed, found)
    best = chosen[0]
    others = [
        {"format": each.format, "roles": each.roles, "confidence": each.confidence}
        for each in found
        if set(each.roles.values()) != set(best.roles.values())
    ]
    return Layout(best.format, best.roles, best.confidence, others)


def _candidates(table: Table, fixed: dict[str, str]) -> list[Layout]:
    """Every layout that fits, the most convincing first."""
    found = []
    chats = _chat_columns(table)
    for order, name in enumerate(FORMATS):
        roles = _chat_roles(name, table, chats, fixed) if name in ("messages", "sharegpt") else None
        roles = roles or _named_roles(name, table.columns, fixed)
        if roles is None:
            continue
        if "desirable" not in fixed and not _says_yes_or_no(table, roles.get("desirable")):
            roles.pop("desirable", None)
        filled = _filled(table, [roles[role] for role in FORMATS[name].required])
        confidence = _name_score(name, roles, table, fixed) * (0.5 + 0.5 * filled)
        if name in ("messages", "sharegpt") and chats.get(roles[FORMATS[name].required[0]]) != (name == "sharegpt"):
            confidence *= 0.5  # by its name only: the column holds no turns, or those of the other dialect
        found.append((-round(confidence, 2), order, Layout(name, roles, round(confidence, 2))))
    alone = len(table.columns) == 1 and plain(table.columns[0]) not in KNOWN_NAMES
    if not found and not fixed and alone and any(isinstance(r.value.get(table.columns[0]), str) for r in table.records):
        found.append((-0.5, 0, Layout("text", {"text": table.columns[0]}, 0.5)))
    if not found and not fixed and _nameless(table) and (roles := _text_and_label(table)):
        found.append((-0.5, 0, Layout("label", roles, 0.5)))
    return [layout for _, _, layout in sorted(found, key=lambda item: item[:2])]


def _named_roles(name: str, columns: list[str], fixed: dict[str, str]) -> dict[str, str] | None:
    """role -> column by the vocabulary, after what the mapping fixes; None unless every required role has one."""
    roles = {role: column for role in FORMATS[name].roles if (column := _fixed(role, name, fixed))}
    by_name = {plain(column): column for column in reversed(columns) if column not in roles.values()}
    for role in FORMATS[name].roles:
        if role in roles:
            continue
        column = next(
            (by_name[n] for n in NAMES[name][role] if n in by_name and by_name[n] not in roles.values()), None
        )
        if column is not None:
            roles[role] = column
        elif role in FORMATS[name].required:
            return None
    return roles


def _fixed(role: str, name: str, fixed: dict[str, str]) -> str | None:
    """What the mapping says for a role, also under the name that the same role has in another format."""
    if role in fixed:
        return fixed[role]
    if name == "text":  # a prompt alone is a prompt without its answer, no plain text
        return None
    for family in (ASKING, ANSWERING, CHATTING):
        if role in family:
            own = set(FORMATS[name].roles)
            return next((fixed[other] for other in family if other in fixed and other not in own), None)
    return None


def _chat_columns(table: Table) -> dict[str, bool]:
    """The columns that hold lists of turns, and whether in ShareGPT's dialect, judged by their contents."""
    found = {}
    for column in table.columns[:200]:
        values = [record.value.get(column) for record in table.records[:SAMPLE_ROWS]]
        filled = [value for value in values if value not in (None, "", [])]
        by_name = plain(column) in TALKS
        chats = [turns for value in filled if (turns := as_turns(value) or (alternating(value) if by_name else None))]
        if filled and len(chats) * 2 >= len(filled) and any(map(are_spoken, chats)):
            found[column] = sum(map(speaks_sharegpt, chats)) * 2 >= len(chats)
    return found


def _chat_roles(name: str, table: Table, chats: dict[str, bool], fixed: dict[str, str]) -> dict[str, str] | None:
    role = FORMATS[name].required[0]
    column = _fixed(role, name, fixed)
    if column is None:
        pairs = _named_roles("preference", table.columns, fixed) or _named_roles(
            "prompt_completion", table.columns, fixed
        )
        taken = set((pairs or {}).values())
        dialect = [each for each, sharegpt in chats.items() if sharegpt == (name == "sharegpt") and each not in taken]
        usual = [each for each in dialect if plain(each) in NAMES[name][role]]
        column = next(iter(usual + dialect), None)
    elif column in chats and chats[column] != (name == "sharegpt"):
        return None
    if column is None:
        return None
    return _named_roles(name, table.columns, {**fixed, role: column})


def _name_score(name: str, roles: dict[str, str], table: Table, fixed: dict[str, str]) -> float:
    scores = []
    for role in FORMATS[name].required:
        names = NAMES[name][role]
        place = names.index(plain(roles[role])) if plain(roles[role]) in names else 0
        scores.append(1.0 if roles[role] in fixed.values() or not place else 0.9 if place < COMMON else 0.75)
    score = min(scores)
    if name == "text" and len(table.columns) > 1 and not fixed:
        score *= 0.6
    if name == "alpaca" and "input" not in roles:
        score *= 0.97
    if fixed and not set(fixed) <= set(roles):
        score *= 0.9  # a format with just these roles fits better than one that knows them by another name
    return score


def _filled(table: Table, columns: list[str]) -> float:
    """Share of sampled rows in which all these columns hold something."""
    sample = table.records[:SAMPLE_ROWS]
    good = sum(all(record.value.get(column) not in (None, "") for column in columns) for record in sample)
    return good / max(1, len(sample))


def _says_yes_or_no(table: Table, column: str | None) -> bool:
    """Whether a column says of every sampled row that it is good or bad (KTO), and not what kind it is."""
    said = [record.value.get(column) for record in table.records[:SAMPLE_ROWS]] if column else []
    said = [value for value in said if value is not None]
    return bool(said) and all(is_true(value) is not None for value in said)


def is_true(value: Any) -> bool | None:
    """True or false, also as CSV has it; None for anything else."""
    if isinstance(value, bool):
        return value
    return {"true": True, "false": False}.get(value.strip().lower()) if isinstance(value, str) else None


def _checked_mapping(table: Table, mapping: Mapping[str, str]) -> dict[str, str]:
    for role, column in mapping.items():
        columns = ", ".join(table.columns[:20])
        if role not in ROLES:
            turned = role in table.columns and column in ROLES
            hint = f'Write it the other way round: {{"{column}": "{role}"}}.' if turned else _near(role, ROLES)
            raise DataError(f"data.mapping: there is no role {role!r}.", f"{hint} Roles: {', '.join(ROLES)}.".strip())
        if column not in table.columns:
            hint = f"{_near(column, table.columns)} Columns: {columns}.".strip()
            raise DataError(f"data.mapping: {table.path.name} has no column {column!r}.", hint)
    return dict(mapping)


def _near(word: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"Did you mean {near[0]!r}?" if near else ""


def _not_recognised(table: Table, format: str, fixed: dict[str, str], found: list[Layout]) -> DataError:
    name, columns = table.path.name, ", ".join(table.columns[:20]) or "none"
    pair = [*table.columns, "COLUMN", "COLUMN"][:2]
    example = json.dumps({"prompt": pair[0], "completion": pair[1]}, ensure_ascii=False)
    if format == "auto":
        wanted = "; ".join(f"{each} ({', '.join(FORMATS[each].required)})" for each in FORMATS)
        message = f"the layout of {name} is not recognised. Its columns: {columns}."
        if _nameless(table):
            message = f"{name} has no line with column names. Its columns count as: {columns}."
        return DataError(
            message, f"Say which column is which with data.mapping, for example {example}. Known: {wanted}."
        )
    missing = [role for role in FORMATS[format].required if not _named(format, role, table, fixed)]
    lacks = f"no column for {' and '.join(missing)}" if missing else "nothing in the columns it needs"
    message = f"{name} does not fit the format {format}: {lacks}. Its columns: {columns}."
    others = f"It would fit {', '.join(each.format for each in found)}. " if found else ""
    return DataError(message, f"{others}Say which column is which with data.mapping, for example {example}.")


def _named(format: str, role: str, table: Table, fixed: dict[str, str]) -> bool:
    return bool(_fixed(role, format, fixed)) or any(plain(column) in NAMES[format][role] for column in table.columns)


def _nameless(table: Table) -> bool:
    return bool(table.columns) and all(re.fullmatch(r"column \d+", column) for column in table.columns)


def _text_and_label(table: Table) -> dict[str, str] | None:
    """Two columns without names, of which one holds a few short words that come again and again."""
    if len(table.columns) != 2 or len(table.records) < 10:
        return None
    for label, text in (table.columns, table.columns[::-1]):
        labels = [str(record.value[label]) for record in table.records]
        texts = {str(record.value[text]) for record in table.records}
        few = len(set(labels)) <= max(2, len(labels) // 5) and max(map(len, labels)) <= 40
        if few and len(texts) > 2 * len(set(labels)):
            return {"text": text, "label": label}
    return None
