"""What is computed from rows that base and tuned model have answered: shares with intervals, F1, ROUGE-L, chrF.

The task is recognised from the expected answers alone:
    json    at least nine in ten of them are JSON objects
    label   each is short (60 characters, one line), and at most half of them, and 50, are different ones
    text    everything else
Formulas are those of scikit-learn, sacrebleu, rouge-score and scipy; shares carry Wilson's 95% interval.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

from runner.report.rows import Row, Said

JSON_SHARE = 0.9
LABEL_CHARACTERS = 60
MOST_LABELS = 50
CONFUSED = 8
"""Labels that a confusion table has a row for, the most frequent first."""
ELSE = "(something else)"
MOST_FIELDS = 20

Judge = Callable[[Row, Said], float]


@dataclass(frozen=True)
class Measure:
    """One number of both. `unit` is share or score (0 to 1), tokens or nats; `of` is what a share counts."""

    name: str
    title: str
    unit: str
    base: float | None
    tuned: float | None
    higher_is_better: bool | None = True
    of: int = 0
    base_interval: tuple[float, float] | None = None
    tuned_interval: tuple[float, float] | None = None


def task(expected: Sequence[str]) -> str:
    """json, label, text, or nothing where there is nothing to recognise it by."""
    if not expected:
        return "nothing"
    if sum(_object(text) is not None for text in expected) >= JSON_SHARE * len(expected):
        return "json"
    short = all(len(text) <= LABEL_CHARACTERS and "\n" not in text for text in expected)
    different = len({_folded(text) for text in expected})
    return "label" if short and different <= min(MOST_LABELS, len(expected) / 2) else "text"


def score(rows: Sequence[Row]) -> dict[str, Any]:
    """{task, rows, measures, and of json fields, of label labels and confusion}; measures best first for a reader."""
    kind = task([row.expected for row in rows])
    found: dict[str, Any] = {"task": kind, "rows": len(rows)}
    if not rows:
        return {**found, "measures": []}
    measures = [_share("exact", "Exactly the expected answer", rows, lambda row, said: _exact(row, said))]
    if kind == "json":
        fields = _fields(rows)
        measures.insert(0, _share("same_object", "The same JSON, field for field", rows, _same_object))
        measures.append(_share("valid_json", "Valid JSON", rows, lambda row, said: _object(said.text) is not None))
        measures.append(_mean("fields", "Fields that are right", "share", rows, _fields_right))
        found["fields"] = [asdict(each) for each in fields]
    elif kind == "label":
        measures.insert(0, _share("accuracy", "The right label", rows, _right_label))
        measures.append(_macro_f1(rows))
        found |= _confusions(rows)
    else:
        measures.append(_mean("rouge_l", "ROUGE-L", "score", rows, lambda row, said: rouge_l(row.expected, said.text)))
        measures.append(Measure("chrf", "chrF", "score", _chrf(rows, "base"), _chrf(rows, "tuned")))
    measures.append(_share("stopped", "Ended by itself", rows, lambda row, said: said.stopped))
    measures.append(_mean("tokens", "Length of an answer", "tokens", rows, lambda row, said: said.tokens, None))
    losses = [row for row in rows if row.base.loss is not None and row.tuned.loss is not None]
    if losses:
        measures.append(
            _mean("loss", "Loss on the expected answer", "nats", losses, lambda row, said: said.loss or 0.0, False)
        )
    return {**found, "measures": [asdict(each) for each in measures]}


def quality(kind: str) -> Judge:
    """How good one answer is, 0 to 1: what the samples with the largest gains and losses are found by."""
    judges: dict[str, Judge] = {
        "json": _fields_right,
        "label": lambda row, said: float(_right_label(row, said)),
        "text": lambda row, said: 1.0 if _exact(row, said) else sentence_chrf(row.expected, said.text),
    }
    return judges.get(kind, judges["text"])


def wilson(count: int, of: int) -> tuple[float, float]:
    """The 95% interval of a share."""
    from scipy.stats import binomtest

    interval = binomtest(count, of).proportion_ci(0.95, "wilson")
    return round(float(interval.low), 4), round(float(interval.high), 4)


def changed_by_chance(gained: int, lost: int) -> float:
    """How probable so uneven a change is where nothing has changed: McNemar's exact test, 1 where nothing differs."""
    from scipy.stats import binomtest

    return float(binomtest(lost, gained + lost).pvalue) if gained + lost else 1.0


# ---- parts


def _share(name: str, title: str, rows: Sequence[Row], right: Callable[[Row, Said], bool]) -> Measure:
    of = len(rows)
    base, tuned = sum(right(row, row.base) for row in rows), sum(right(row, row.tuned) for row in rows)
    return Measure(name, title, "share", base / of, tuned / of, True, of, wilson(base, of), wilson(tuned, of))


def _mean(name: str, title: str, unit: str, rows: Sequence[Row], of: Judge, better: bool | None = True) -> Measure:
    base, tuned = (sum(of(row, said) for row, said in pairs) for pairs in _sides(rows))
    return Measure(name, title, unit, base / len(rows), tuned / len(rows), better)


def _sides(rows: Sequence[Row]) -> tuple[list[tuple[Row, Said]], list[tuple[Row, Said]]]:
    return [(row, row.base) for row in rows], [(row, row.tuned) for row in rows]


def _exact(row: Row, said: Said) -> bool:
    return said.text.strip() == row.expected.strip()


def _folded(text: str) -> str:
    return " ".join(text.casefold().split())


def _object(text: str) -> dict[str, Any] | None:
    """A JSON object, or None for whatever else: also NaN, and what is nested too deep, is none."""
    try:
        value = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _refuse(constant: str) -> None:
    raise ValueError(constant)


def _same(one: Any, other: Any) -> bool:
    """Equal as JSON: true is not 1, and 1 is 1.0."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other)


def _same_object(row: Row, said: Said) -> bool:
    expected, answer = _object(row.expected), _object(said.text)
    return expected is not None and answer is not None and _same(expected, answer)


def _fields_right(row: Row, said: Said) -> float:
    """The share of the expected fields that the answer has with the same value."""
    expected, answer = _object(row.expected), _object(said.text)
    if expected is None or not expected:
        return float(_exact(row, said) or _same_object(row, said))
    return sum(name in (answer or {}) and _same(expected[name], (answer or {})[name]) for name in expected) / len(
        expected
    )


def _fields(rows: Sequence[Row]) -> list[Measure]:
    """How often each field is right, of the rows that expect it; the most frequent fields."""
    counts = Counter(name for row in rows for name in _object(row.expected) or {})
    found = []
    for name, _ in counts.most_common(MOST_FIELDS):
        having = [row for row in rows if name in (_object(row.expected) or {})]

        def right(row: Row, said: Said, name: str = name) -> bool:
            answer = _object(said.text) or {}
            return name in answer and _same((_object(row.expected) or {})[name], answer[name])

        found.append(_share(name, name, having, right))
    return found


def _right_label(row: Row, said: Said) -> bool:
    return _folded(row.expected) == _folded(said.text)


def _labels(rows: Sequence[Row], who: str) -> tuple[list[str], list[str], list[str]]:
    """(known labels, most frequent first; expected; answered, with ELSE for what is no label)."""
    expected = [_folded(row.expected) for row in rows]
    known = [label for label, _ in Counter(expected).most_common()]
    said = [_folded(getattr(row, who).text) for row in rows]
    return known, expected, [label if label in known else ELSE for label in said]


def _macro_f1(rows: Sequence[Row]) -> Measure:
    from sklearn.metrics import f1_score

    def f1(who: str) -> float:
        known, expected, said = _labels(rows, who)
        return float(f1_score(expected, said, labels=known, average="macro", zero_division=0))

    return Measure("macro_f1", "Macro F1 over the labels", "score", f1("base"), f1("tuned"))


def _confusions(rows: Sequence[Row]) -> dict[str, Any]:
    """{labels, confusion: {base, tuned}}: a row a frequent label, a column each of them and one for everything else."""
    from sklearn.metrics import confusion_matrix

    tables, shown = {}, []
    for who in ("base", "tuned"):
        known, expected, said = _labels(rows, who)
        shown = known[:CONFUSED]
        told = [label if label in shown else ELSE for label in said]
        wanted = [label if label in shown else ELSE for label in expected]
        table = confusion_matrix(wanted, told, labels=[*shown, ELSE])
        tables[who] = table[: len(shown)].tolist()
    written = {_folded(row.expected): row.expected.strip() for row in rows}
    return {"labels": [written[label] for label in shown], "confusion": tables}


class _Words:
    """rouge-score's own tokenizer drops every letter beyond a to z, and with them most languages' words."""

    def tokenize(self, text: str) -> list[str]:
        return re.findall(r"\w+", text.casefold())


@lru_cache(1)
def _rouge() -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rougeL"], tokenizer=_Words())


@lru_cache(1)
def _chrf_metric() -> Any:
    from sacrebleu.metrics import CHRF

    return CHRF()


def rouge_l(expected: str, said: str) -> float:
    return float(_rouge().score(expected, said)["rougeL"].fmeasure)


def sentence_chrf(expected: str, said: str) -> float:
    return float(_chrf_metric().sentence_score(said, [expected]).score) / 100


def _chrf(rows: Sequence[Row], who: str) -> float:
    said, expected = [getattr(row, who).text for row in rows], [row.expected for row in rows]
    return float(_chrf_metric().corpus_score(said, [expected]).score) / 100
