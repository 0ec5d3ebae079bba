"""How findings say a time and a list of names."""


def span(seconds: float) -> str:
    for length, word in ((86_400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {word}"
    return f"{seconds:.0f} seconds"


def ago(seconds: float) -> str:
    return f"{span(seconds)} ago"


def some(names: list[str], limit: int = 5) -> str:
    shown = ", ".join(names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"
