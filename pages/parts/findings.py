"""What the data doctor found, for people: a verdict in one sentence, counts by kind, a table and a CSV file."""

import csv
import io
from dataclasses import dataclass
from typing import Any

import pandas as pd

from pages.parts import escape, quantities
from spool.data.keeping.export import harmless

SHOWN = 500
"""Rows of the table; the CSV file holds them all."""

ACTIONS = {
    "dropped": "left out",
    "cut": "shortened",
    "kept": "kept",
    "repaired": "repaired",
    "blocks": "blocks the job",
}

CODES = {
    "bad_encoding": "Unreadable characters",
    "bad_json": "Not valid JSON",
    "bad_quotes": "Quotes that do not close",
    "bad_roles": "Roles out of order",
    "conflicting_answers": "Same prompt, other answer",
    "control_characters": "Control characters",
    "damaged": "Damaged file",
    "duplicate": "Repeated row",
    "extreme_length": "Very short or very long",
    "lost_characters": "Lost characters",
    "mojibake": "Garbled characters",
    "near_duplicate": "Nearly the same row",
    "no_trainable_tokens": "Nothing to learn from",
    "not_desirable": "Marked as bad",
    "not_read": "Not read",
    "one_answer": "One answer for all",
    "one_label": "One label only",
    "row_too_large": "Too large",
    "over_long": "Longer than the limit",
    "ragged_row": "Too many or too few cells",
    "refusal": "The answer refuses",
    "secret": "Key or password",
    "special_token_in_text": "Control marker in the text",
    "too_deep": "Nested too deep",
    "tools_as_text": "Tools written as text",
    "truncated": "Breaks off",
    "wrong_type": "Wrong kind of value",
}
"""Where a code with blanks instead of underscores would not say it."""


def of_code(report: dict[str, Any], code: str) -> dict[tuple[str, int], str]:
    """(file, line) -> words of the findings of one code."""
    found = (each for each in report["problems"] if each["code"] == code)
    return {(each.get("file") or "", each["line"]): each["message"] for each in found}


@dataclass(frozen=True)
class Verdict:
    """`color` is green (train), yellow (look first) or red (a job would be blocked)."""

    color: str
    says: str
    hint: str = ""


def verdict(report: dict[str, Any], complete: bool = True) -> Verdict:
    """Whether to train on it, in one sentence; before the report is `complete`, as far as is known."""
    rows, usable = report["rows"], report["usable_rows"]
    if report["blocked"]:
        return _blocked(report, rows - usable)
    found = sum(report["problem_counts"].values())
    if not found and not complete:
        return Verdict("green", f"Nothing was found so far: each of the {rows:,} rows has what it needs.")
    if not found:
        return Verdict("green", f"Nothing was found: each of the {rows:,} rows can be trained on.")
    findings = f"the {found:,} findings" if found > 1 else "the one finding"
    if usable == rows:
        return Verdict("yellow", f"All {rows:,} rows can be trained on. Look at {findings} first.")
    lost = rows - usable
    share = f" ({quantities.percent(lost / rows)})" if lost / rows >= 0.01 else ""
    others = "1 row is" if lost == 1 else f"{lost:,} rows{share} are"
    return Verdict("yellow", f"{usable:,} of {rows:,} rows can be trained on; {others} left out. Correct, or go on.")


def _blocked(report: dict[str, Any], lost: int) -> Verdict:
    """Why no job may train on it. Where too many rows are lost the page says so shorter than the doctor does."""
    if lost and not any(problem["action"] == "blocks" for problem in report["problems"]):
        says = f"A job on this data would be blocked: {too_many(report)}"
        return Verdict("red", says, "Correct them, leave them out, or allow more unusable rows on Train.")
    says, hint = escape.one_line(report["blocked"]["message"], 600), report["blocked"].get("hint") or ""
    if "limits.max_fraction" in hint:
        hint = "Correct it, or allow it on Train: All settings, Limits, “Findings allowed”."
    return Verdict("red", says, hint)


def too_many(report: dict[str, Any]) -> str:
    """How many rows are lost: `3 of 10 rows (30 %) cannot be trained on.`"""
    lost = report["rows"] - report["usable_rows"]
    return f"{lost:,} of {report['rows']:,} rows ({quantities.percent(lost / report['rows'])}) cannot be trained on."


def label(code: str) -> str:
    return CODES.get(code, code.replace("_", " ").capitalize())


def counts(report: dict[str, Any]) -> dict[str, int]:
    """Findings by code, the most frequent first."""
    return dict(sorted(report["problem_counts"].items(), key=lambda item: (-item[1], item[0])))


def chosen(report: dict[str, Any], codes: list[str]) -> list[dict[str, Any]]:
    """The findings with one of these codes; all where none is chosen."""
    return [each for each in report["problems"] if not codes or each["code"] in codes]


def gravest(found: list[dict[str, Any]], most: int) -> list[dict[str, Any]]:
    """The first findings, those that block before those that lose a row, and these before all others."""
    order = {"blocks": 0, "dropped": 1, "cut": 2}
    return sorted(found, key=lambda each: order.get(each["action"], 3))[:most]


def table(found: list[dict[str, Any]], most: int = SHOWN) -> pd.DataFrame:
    """line, kind, what, done, and file where there are several."""
    shown = found[:most]
    columns = {
        "line": [problem["line"] or None for problem in shown],
        "kind": [label(problem["code"]) for problem in shown],
        "what": [escape.one_line(sentence(problem["message"]), 400) for problem in shown],
        "done": [ACTIONS.get(problem["action"], problem["action"]) for problem in shown],
    }
    if any(problem.get("file") for problem in shown):
        columns = {"file": [escape.one_line(problem.get("file", ""), 80) for problem in shown], **columns}
    return pd.DataFrame(columns).astype({"line": "Int64"})


def sentence(message: str) -> str:
    """A finding's words with a capital first letter, without what no browser can be sent."""
    text = _sent(message)
    return text[:1].upper() + text[1:]


def as_csv(found: list[dict[str, Any]]) -> bytes:
    """The findings for a spreadsheet, as UTF-8 with a mark that Excel looks for. No cell is a formula."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(["line", "file", "code", "what", "the row is"])
    for each in found:
        texts = (each.get("file", ""), each["code"], each["message"], ACTIONS.get(each["action"], each["action"]))
        writer.writerow([each["line"], *(harmless(_sent(text)) for text in texts)])
    return b"\xef\xbb\xbf" + out.getvalue().encode()


def lines_of(found: list[dict[str, Any]]) -> list[int]:
    """The rows that have a finding, each once, in order."""
    return sorted({each["line"] for each in found if each["line"]})


def _sent(text: object) -> str:
    """Without lone surrogates, which no browser can be sent."""
    return str(text).encode("utf-8", "replace").decode("utf-8")
