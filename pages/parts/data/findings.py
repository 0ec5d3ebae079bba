"""What the data doctor found, for people: a verdict in one sentence, counts by kind, a table and a CSV file."""

import csv
import io
from dataclasses import dataclass
from typing import Any

import pandas as pd

from pages.parts import escape, quantities
from pages.parts.phrases import translated
from pages.parts.texts import has, t
from spool.data.keeping.export import harmless

SHOWN = 500
"""Rows of the table; the CSV file holds them all."""


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
        return Verdict("green", t("data.verdict.clean_so_far", rows=quantities.count(rows)))
    if not found:
        return Verdict("green", t("data.verdict.clean", rows=quantities.count(rows)))
    findings = t("data.verdict.findings", count=found, number=quantities.count(found))
    if usable == rows:
        return Verdict("yellow", t("data.verdict.all", rows=quantities.count(rows), findings=findings))
    lost = rows - usable
    share = f" ({quantities.percent(lost / rows)})" if lost / rows >= 0.01 else ""
    others = t("data.verdict.lost", count=lost, number=quantities.count(lost), share=share)
    numbers: dict[str, Any] = {"usable": quantities.count(usable), "rows": quantities.count(rows)}
    return Verdict("yellow", t("data.verdict.some", **numbers, others=others))


def _blocked(report: dict[str, Any], lost: int) -> Verdict:
    """Why no job may train on it. Where too many rows are lost the page says so shorter than the doctor does."""
    if lost and not any(problem["action"] == "blocks" for problem in report["problems"]):
        return Verdict("red", t("data.verdict.blocked", why=too_many(report)), t("data.verdict.blocked_hint"))
    says, hint = (
        escape.one_line(translated(report["blocked"]["message"]), 600),
        translated(report["blocked"].get("hint") or ""),
    )
    if "limits.max_fraction" in hint:
        hint = t("data.verdict.allow_hint")
    return Verdict("red", says, hint)


def too_many(report: dict[str, Any]) -> str:
    """How many rows are lost: `3 of 10 rows (30 %) cannot be trained on.`"""
    lost = report["rows"] - report["usable_rows"]
    share = quantities.percent(lost / report["rows"])
    numbers: dict[str, Any] = {"lost": quantities.count(lost), "rows": quantities.count(report["rows"])}
    return t("data.verdict.too_many", **numbers, share=share)


def label(code: str) -> str:
    return t(f"data.code.{code}") if has(f"data.code.{code}") else code.replace("_", " ").capitalize()


def action(name: str) -> str:
    """What becomes of a row."""
    return t(f"data.action.{name}") if has(f"data.action.{name}") else name


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
        "done": [action(problem["action"]) for problem in shown],
    }
    if any(problem.get("file") for problem in shown):
        columns = {"file": [escape.one_line(problem.get("file", ""), 80) for problem in shown], **columns}
    return pd.DataFrame(columns).astype({"line": "Int64"})


def sentence(message: str) -> str:
    """A finding in the reader's language with a capital first letter, without what no browser can be sent."""
    text = translated(_sent(message))
    return text[:1].upper() + text[1:]


def as_csv(found: list[dict[str, Any]]) -> bytes:
    """The findings for a spreadsheet, as UTF-8 with a mark that Excel looks for. No cell is a formula."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(["line", "file", "code", "what", "the row is"])
    for each in found:
        texts = (each.get("file", ""), each["code"], translated(each["message"]), action(each["action"]))
        writer.writerow([each["line"], *(harmless(_sent(text)) for text in texts)])
    return b"\xef\xbb\xbf" + out.getvalue().encode()


def lines_of(found: list[dict[str, Any]]) -> list[int]:
    """The rows that have a finding, each once, in order."""
    return sorted({each["line"] for each in found if each["line"]})


def _sent(text: object) -> str:
    """Without lone surrogates, which no browser can be sent."""
    return str(text).encode("utf-8", "replace").decode("utf-8")
