"""Between a setting of the job spec and what stands in its input: `entered` one way, `said` the other. Pure."""

from typing import Any, Final

from pages.parts.train import draft
from pages.parts.train.fields import Field

UNSET: Final = object()
NO_TEXTS = "-"
"""Typed for an empty list where an empty box means something else."""

LARGEST_SENT = 2**53
"""Whole numbers beyond this do not survive a browser."""


def entered(field: Field, value: Any) -> Any:
    """What stands in the input for a value of the spec; of a group, whether it is switched on.

    Raises:
        TypeError, ValueError: the input cannot show such a value.
    """
    match field.kind:
        case "integer" | "number":
            if value is None or value == "auto":
                return None
            return int(value) if field.kind == "integer" else float(value)
        case "switch" | "group":
            return bool(value)
        case "text":
            return "" if value is None or value == field.default else str(value)
        case "names":
            return "" if value == field.default else value if isinstance(value, str) else ", ".join(value)
        case "texts":
            if value == field.default:
                return ""
            return NO_TEXTS if value == [] else "\n".join(value)
        case "pairs" | "shares":
            return draft.lines(value)
        case "several":
            return list(value)
    return value


def said(field: Field, stands: Any) -> Any:
    """What an input says, as the spec takes it; a text that cannot be read goes on as it is, to be refused in words."""
    match field.kind:
        case "integer" | "number":
            return _number(field, stands)
        case "text":
            return stands.strip(" ") or field.default
        case "names":
            names = draft.names(stands)
            return field.default if not names or names == [field.default] else names
        case "texts":
            texts = [line.strip() for line in stands.splitlines() if line.strip()]
            return [] if texts == [NO_TEXTS] else texts or field.default
        case "pairs" | "shares":
            return _mapping(field, stands)
        case "several":
            return list(stands)
    return stands


def holds(field: Field, value: Any) -> bool:
    """Whether the input can show this value and says the same again; what it cannot is kept beside the form."""
    if field.kind == "group":
        members = {member.pointer.rpartition("/")[2]: member for member in field.members}
        return value is None or (
            isinstance(value, dict) and all(name in members and holds(members[name], value[name]) for name in value)
        )
    if isinstance(value, bool) != (field.kind == "switch" or (field.kind == "choice" and value in (True, False))):
        return False
    if field.kind == "choice" and value not in field.choices:
        return False
    if field.kind == "several" and not (isinstance(value, list) and set(map(str, value)) <= set(field.choices)):
        return False
    if isinstance(value, int | float) and not isinstance(value, bool) and not _within(field, value):
        return False
    try:
        return bool(said(field, entered(field, value)) == value)
    except (TypeError, ValueError, AttributeError):
        return False


def differs(field: Field, value: Any) -> bool:
    """Whether a value must stand in the spec: it is not what the spec says by itself."""
    if field.default is None:
        return value is not None and value != {}
    return bool(value != field.default)


def _number(field: Field, stands: Any) -> Any:
    if stands is None:
        return "auto" if field.auto else None if field.nullable else field.default
    return int(stands) if isinstance(stands, float) and stands.is_integer() else stands


def _mapping(field: Field, stands: str) -> Any:
    try:
        pairs = draft.pairs(stands)
        return {name: float(share) for name, share in pairs.items()} if field.kind == "shares" else pairs
    except ValueError:
        return stands


def _within(field: Field, value: float) -> bool:
    low, high = field.low, field.high
    if isinstance(value, int) and abs(value) >= LARGEST_SENT:
        return False
    return (low is None or value >= low) and (high is None or value <= high)
