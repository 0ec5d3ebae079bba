"""Changes of datasets in words and tables: what variants are, before and after, where a version comes from."""

from typing import Any

import pandas as pd

from pages.parts import findings, preview
from pages.parts.escape import one_line
from spool.data.keeping import steps
from spool.data.keeping.diff import Diff
from spool.data.keeping.keep import Stored

MASKED = {
    "secret": "Keys and passwords",
    "email": "E-mail addresses",
    "card": "Card numbers",
    "phone": "Phone numbers",
    "iban": "Bank accounts",
}

VARIANTS = {
    "wrap": ("Other frames", "The same question in another sentence: “Could you tell me: …”."),
    "noise": ("Typing errors", "Careless casing and typing errors in questions, never in answers."),
    "reword": ("Other words", "Questions reworded by a few English and German rules."),
    "balance": ("Balance labels", "Rows of rare labels are repeated."),
}
"""How each kind of augmentation is called, and what it does."""

MARKS = ("augmented", "augmented_from", "augmented_of")


def compared(pairs: list[tuple[dict[str, Any], dict[str, Any]]]) -> pd.DataFrame:
    """field, before and after of what differs between two rows; a mere copy is one line."""
    rows = []
    for before, after in pairs:
        names = [name for name in after if name not in MARKS and before.get(name) != after[name]]
        for name in names or list(before)[:1]:
            rows.append([one_line(name, 60), _text(before.get(name)), _text(after.get(name))])
    return pd.DataFrame(rows, columns=["field", "before", "after"])


def origin(stored: Stored) -> str:
    """Where a version comes from, as plain text: `uploaded as orders.csv`, or its steps and parents."""
    if not stored.recipe:
        return f"uploaded as {one_line(stored.original_name, 80)}" if stored.original_name else "uploaded"
    said = ", then ".join(steps.in_words(step) for step in stored.recipe)
    parents = " and ".join(one_line(parent, 100) for parent in stored.parents)
    lost = ", ".join(f"{rows:,} × {findings.label(code)}" for code, rows in stored.left_out.items())
    return " · ".join([said, *([f"from {parents}"] if parents else []), *([f"left out: {lost}"] if lost else [])])


def history(versions: list[Stored], when: list[str]) -> pd.DataFrame:
    """One line a version."""
    return pd.DataFrame(
        {
            "version": [each.version for each in versions],
            "when": when,
            "rows": [each.rows for each in versions],
            "how": [one_line(origin(each), 300) for each in versions],
        }
    )


def differing(found: Diff, most: int) -> pd.DataFrame:
    """The rows that differ between two versions, of each kind the first ones: what, line, field, before, after."""
    rows: list[list[Any]] = []
    for change in found.changed_rows[:most]:
        table = compared([(change.before or {}, change.after or {})])
        rows += [["changed", change.line_after, *cells] for cells in table.values.tolist()]
    for what, changes in (("added", found.added_rows), ("removed", found.removed_rows)):
        for change in changes[:most]:
            side = change.after if what == "added" else change.before
            text = " · ".join(_text(value) for name, value in (side or {}).items() if name not in MARKS)
            cells = ["", text] if what == "added" else [text, ""]
            rows.append([what, change.line_after or change.line_before, "", *cells])
    return pd.DataFrame(rows, columns=["what", "line", "field", "before", "after"])


def _text(value: Any) -> str:
    return one_line(preview.cell(value), 300)
