"""Changes of datasets in words and tables: what variants are, before and after, where a version comes from."""

from typing import Any

import pandas as pd

from pages.parts import quantities
from pages.parts.data import findings, preview
from pages.parts.escape import one_line
from pages.parts.texts import t
from spool.data.keeping import steps
from spool.data.keeping.diff import Diff
from spool.data.keeping.keep import Stored

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
        name = one_line(stored.original_name or "", 80)
        return t("data.origin.uploaded_as", name=name) if name else t("data.origin.uploaded")
    said = t("data.origin.then").join(steps.in_words(step) for step in stored.recipe)
    parents = t("data.origin.and").join(one_line(parent, 100) for parent in stored.parents)
    lost = ", ".join(f"{quantities.count(rows)} × {findings.label(code)}" for code, rows in stored.left_out.items())
    source = [t("data.origin.from", parents=parents)] if parents else []
    return " · ".join([said, *source, *([t("data.origin.left_out", rows=lost)] if lost else [])])


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
        rows += [[t("data.versions.kind.changed"), change.line_after, *cells] for cells in table.values.tolist()]
    for what, changes in (("added", found.added_rows), ("removed", found.removed_rows)):
        for change in changes[:most]:
            side = change.after if what == "added" else change.before
            text = " · ".join(_text(value) for name, value in (side or {}).items() if name not in MARKS)
            cells = ["", text] if what == "added" else [text, ""]
            rows.append([t(f"data.versions.kind.{what}"), change.line_after or change.line_before, "", *cells])
    return pd.DataFrame(rows, columns=["what", "line", "field", "before", "after"])


def _text(value: Any) -> str:
    return one_line(preview.cell(value), 300)
