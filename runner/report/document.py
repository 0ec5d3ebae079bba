"""report.json: everything that the page and its first page show, from what was asked and what the run has kept.

Nothing is computed here that scores.py or general.py know; here it is put together, and said in plain words.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tsdownsample import MinMaxLTTBDownsampler

from runner.report import scores
from runner.report.charts import percent
from runner.report.rows import Row
from spool.protocol import durable, energy, manifest, metrics
from spool.protocol.home import Run

SAMPLES = 20
CURVE_POINTS = 400
MOST_CHARACTERS = 2000
"""Of one prompt or answer; a page with longer ones is read by nobody."""
MOST_FINDINGS = 12
FEW_ROWS = 30
MOST_LINES = 100
"""Of benchmarks, on the page and in a job's result; a group may have hundreds."""
CHANCE = 0.05
"""A change that chance makes more often than this is called no clear change."""


@dataclass(frozen=True)
class Story:
    """What was asked, and what came of it."""

    rows: list[Row]
    of: int
    """How many rows there were to choose from."""
    chosen: int
    """How many were to be asked."""
    held_out: bool | None
    """None: rows of another dataset, of which the training knows nothing."""
    source: str
    answer_tokens: int
    chosen_sha256: str = ""
    """The same for everybody who is to be asked the same rows."""
    learned: bool = False
    """Whether the training was made with this dataset, these rows among it."""
    general: dict[str, Any] | None = None
    benchmarks: dict[str, Any] | None = None
    base_cached: int = 0
    seconds: dict[str, float] = field(default_factory=dict)


def build(
    story: Story, run: Run, title: str, job_id: str, price: float | None, currency: str, at: str
) -> dict[str, Any]:
    """The whole document; every text in it can be written as UTF-8, and every number is finite or null."""
    result = (durable.read_json(run.result) or durable.read_json(run.trained) or {}) if run.root.is_dir() else {}
    facts = result.get("result", result)
    spec = durable.read_json(run.spec) or {}
    rows = metrics.read(run.metrics)
    scored = scores.score(story.rows)
    used = energy.of_rows(rows)
    return clean(
        {
            "v": 1,
            "made_at": at,
            "job": job_id,
            "title": title,
            "base": (facts.get("base") or {}).get("reference") or spec.get("model"),
            "dataset": facts.get("dataset") or {"reference": spec.get("dataset")},
            "summary": summary(story, scored),
            "asked": {
                "rows": len(story.rows),
                "chosen": story.chosen,
                "of": story.of,
                "held_out": story.held_out,
                "learned": story.learned,
                "sha256": story.chosen_sha256,
                "source": story.source,
                "answer_tokens": story.answer_tokens,
                "cut": len(story.rows) < story.chosen,
                "base_cached": story.base_cached,
            },
            "scores": scored,
            "general": story.general,
            "benchmarks": story.benchmarks,
            "samples": samples(story.rows, scored["task"]),
            "ballot": ballot(story.rows),
            "curves": curves(rows),
            "settings": settings(spec),
            "data": findings(run.data / "check.json", facts),
            "time": {
                "trained_s": facts.get("trained_s"),
                "seconds": facts.get("seconds"),
                "steps": facts.get("steps"),
                "tokens": facts.get("tokens"),
                "report": story.seconds,
            },
            "energy_wh": used,
            "cost": {"amount": used / 1000 * price, "currency": currency, "price_per_kwh": price}
            if used is not None and price is not None
            else None,
            "hardware": hardware(run, facts),
            "exports": exports(run.exports),
        }
    )


def told(made: dict[str, Any]) -> dict[str, Any]:
    """What the result of a job says of its report: enough to show it in a list and to compare models by."""
    asked, summary, scored = made["asked"], made["summary"], made["scores"]
    first = headline(scored)
    names = [first["name"]] if first else []
    names += [name for name in ("exact", "stopped", "loss") if name not in names]
    known = {each["name"]: each for each in scored["measures"]}
    return {
        "verdict": summary["verdict"],
        "says": [summary[name] for name in ("better", "forgotten", "trust")],
        "task": scored["task"],
        "measures": [known[name] for name in names if name in known],
        "general": {name: made["general"][name] for name in ("of", "base", "tuned", "lost", "gained")}
        if made["general"]
        else None,
        "asked": asked,
        "benchmarks": {**made["benchmarks"], "lines": made["benchmarks"]["lines"][:MOST_LINES]}
        if made["benchmarks"]
        else None,
        "cost": made["cost"],
        "energy_wh": made["energy_wh"],
        "seconds": made["time"]["report"].get("all"),
    }


# ---- in plain words


def summary(story: Story, scored: dict[str, Any]) -> dict[str, str]:
    """{verdict: better, same, worse or nothing; better, forgotten, trust: a sentence or two each}."""
    verdict, says = _better(story.rows, scored)
    return {"verdict": verdict, "better": says, "forgotten": _forgotten(story.general), "trust": _trust(story, scored)}


def headline(scored: dict[str, Any]) -> dict[str, Any] | None:
    """The one measure that says most of this task."""
    name = {"json": "same_object", "label": "accuracy", "text": "chrf"}.get(scored["task"])
    return next((each for each in scored["measures"] if each["name"] == name), None)


def _better(rows: Sequence[Row], scored: dict[str, Any]) -> tuple[str, str]:
    measure = headline(scored)
    if measure is None:
        return "nothing", "There were no rows to compare on, so nothing is said of how well it answers."
    judge = scores.quality(scored["task"])
    if measure["unit"] == "share":
        judged = [(judge(row, row.base) == 1, judge(row, row.tuned) == 1) for row in rows]
        chance = scores.changed_by_chance(sum(t > b for b, t in judged), sum(b > t for b, t in judged))
        of = measure["of"]
        base, tuned = round(measure["base"] * of), round(measure["tuned"] * of)
        what = {"same_object": "are the expected JSON, field for field", "accuracy": "are the right label"}
        says = f"{tuned} of {of} answers {what[measure['name']]}. The base model gives {base or 'none'}."
    else:
        chance = _uneven([judge(row, row.tuned) - judge(row, row.base) for row in rows])
        says = (
            f"The likeness of its answers to the expected ones (chrF) is {measure['tuned']:.2f}; the base model’s is "
            f"{measure['base']:.2f}, and 1.00 would be the same text."
        )
    if measure["tuned"] == measure["base"] or chance >= CHANCE:
        return "same", f"{says} That is no clear change: chance alone makes such a difference too often."
    return ("better" if measure["tuned"] > measure["base"] else "worse"), says


def _uneven(differences: list[float]) -> float:
    """How probable differences so uneven are by chance: Wilcoxon's signed-rank test."""
    from scipy.stats import wilcoxon

    changed = [each for each in differences if abs(each) > 1e-9]
    return float(wilcoxon(changed).pvalue) if changed else 1.0


def _forgotten(general: dict[str, Any] | None) -> str:
    if not general or not general["of"]:
        return "General questions were not asked, so nothing is known of what was forgotten."
    base, tuned, of, lost = general["base"], general["tuned"], general["of"], general["lost"]
    says = f"Of {of} general questions the tuned model answers {tuned} rightly, the base model {base}."
    if lost > general["gained"] and general["chance"] < CHANCE:
        return f"{says} Of those that the base knows {lost} are lost: outside its task it has forgotten."
    if base < of / 10:
        return f"{says} The base knows too little of them for anything to be forgotten."
    return f"{says} There is no clear sign that it has forgotten anything."


def _trust(story: Story, scored: dict[str, Any]) -> str:
    asked = len(story.rows)
    if not asked:
        return "Keep some rows for evaluation (data.eval_fraction) and the next report can compare."
    rows = f"{asked} row{'s' * (asked != 1)}"
    if story.held_out is None and story.learned:
        says = (
            f"Measured on {rows} of {story.source}, which it was trained with: it has seen most of them, and how it "
            "answers new texts is not known."
        )
    elif story.held_out is None:
        says = f"Measured on {rows} of {story.source}; whether the training saw any of them is not known here."
    elif story.held_out:
        says = f"Measured on {rows} that the training never saw."
    else:
        says = (
            f"Measured on {rows} that it learned from: this shows what it remembers, not how it answers new texts. "
            "Keep some rows for evaluation (data.eval_fraction) to learn that."
        )
    if asked < story.chosen:
        says += f" The time was over before all {story.chosen} could be asked."
    measure = headline(scored)
    if measure and measure["tuned_interval"]:
        low, high = measure["tuned_interval"]
        says += f" With 95% confidence the share of right answers lies between {percent(low)} and {percent(high)}."
    if asked < FEW_ROWS:
        says += " So few rows say little."
    return says


# ---- parts


def samples(rows: Sequence[Row], kind: str) -> list[dict[str, Any]]:
    """The rows with the largest gains, then those with the largest losses or what comes nearest to them."""
    judge = scores.quality(kind)
    judged = []
    for i, row in enumerate(rows):
        base, tuned = judge(row, row.base), judge(row, row.tuned)
        surprise = (row.base.loss or 0.0) - (row.tuned.loss or 0.0)
        judged.append((tuned - base, tuned, surprise, i, row))
    judged.sort(key=lambda each: each[:4])
    half = min(SAMPLES // 2, len(judged) // 2)
    best = judged[::-1][: max(half, min(SAMPLES // 2, len(judged) - half))]
    worst = judged[:half]
    return [_sample("gain", each) for each in best] + [_sample("loss", each) for each in worst]


def _sample(group: str, judged: tuple[float, float, float, int, Row]) -> dict[str, Any]:
    gain, tuned, _, _, row = judged
    return {
        "group": group,
        "gain": gain,
        "quality": {"base": tuned - gain, "tuned": tuned},
        "prompt": _short(row.prompt),
        "expected": _short(row.expected),
        "base": {"text": _short(row.base.text), "stopped": row.base.stopped, "loss": row.base.loss},
        "tuned": {"text": _short(row.tuned.text), "stopped": row.tuned.stopped, "loss": row.tuned.loss},
    }


def ballot(rows: Sequence[Row]) -> dict[str, Any]:
    """What people vote on (spool/protocol/ballot.py): the first rows, a fair sample as the largest gains and losses are
    none; whole, as they may become rows to train on. Of answers that are alike nobody needs to be asked."""
    apart = [i for i, row in enumerate(rows) if row.base.text.strip() != row.tuned.text.strip()]
    looked_at = apart[SAMPLES - 1] + 1 if len(apart) > SAMPLES else len(rows)
    chosen = apart[:SAMPLES]
    return {"same": looked_at - len(chosen), "rows": [_voted_on(rows[i]) for i in chosen]}


def _voted_on(row: Row) -> dict[str, Any]:
    answers = (("base", row.base), ("tuned", row.tuned))
    sides = {name: {"text": said.text, "stopped": said.stopped} for name, said in answers}
    return {"prompt": row.prompt, "messages": row.messages, "expected": row.expected, **sides}


def _short(text: str) -> str:
    return text if len(text) <= MOST_CHARACTERS else text[:MOST_CHARACTERS] + " …"


def curves(rows: Sequence[metrics.Row]) -> dict[str, list[tuple[float, float]]]:
    """loss and eval_loss over the steps, thinned to what a page can show."""
    line = metrics.one_line(list(rows))
    found = {}
    for name in ("loss", "eval_loss"):
        points = [
            (float(row["step"]), float(row[name]))
            for row in line
            if _number(row.get("step")) and _number(row.get(name))
        ]
        if len(points) > CURVE_POINTS:
            x, y = np.array(points).T
            kept = MinMaxLTTBDownsampler().downsample(
                np.ascontiguousarray(x), np.ascontiguousarray(y), n_out=CURVE_POINTS
            )
            points = [points[i] for i in kept]
        found[name] = points
    return found


def settings(spec: dict[str, Any]) -> list[tuple[str, str]]:
    """What was chosen, of what changes the outcome."""
    lora, train, data = spec.get("lora") or {}, spec.get("train") or {}, spec.get("data") or {}
    length = train.get("max_steps")
    modules = lora.get("target_modules")
    found = [
        (
            "LoRA rank",
            f"{lora.get('rank')}, alpha {_plain(lora.get('alpha'))}" + (", rsLoRA" if lora.get("rslora") else ""),
        ),
        ("Dropout", _plain(lora.get("dropout"))),
        ("Layers", modules if isinstance(modules, str) else ", ".join(map(str, modules or []))),
        ("Length", f"{length} steps" if length else f"{_plain(train.get('epochs'))} epochs"),
        ("Rows a step", _plain(train.get("effective_batch"))),
        ("Learning rate", f"{_plain(train.get('learning_rate'))}, {train.get('scheduler')}"),
        ("Optimizer", _plain(train.get("optimizer"))),
        ("Precision while training", _plain(spec.get("precision"))),
        ("Learned from", {"responses": "the answers", "all": "the whole texts"}.get(str(data.get("train_on")), "auto")),
        ("Longest row", f"{data.get('max_length')} tokens"),
        ("Seed", _plain(train.get("seed"))),
    ]
    return [(name, said) for name, said in found if spec and "None" not in said and said]


def findings(path: Path, facts: dict[str, Any]) -> dict[str, Any]:
    """What the check found in the data; empty where there was none."""
    try:
        check = durable.read_json(path) or {}
    except ValueError:
        check = {}
    told = {
        name: check.get(name) for name in ("format", "rows", "usable_rows", "duplicates", "near_duplicates", "tokens")
    }
    return {
        **told,
        "problem_counts": dict(list((check.get("problem_counts") or {}).items())[:MOST_FINDINGS]),
        "examples": [
            {key: each.get(key) for key in ("line", "code", "message", "action")}
            for each in (check.get("problems") or [])[:MOST_FINDINGS]
        ],
        "train_rows": facts.get("train_rows"),
        "eval_rows": facts.get("eval_rows"),
    }


def hardware(run: Run, facts: dict[str, Any]) -> dict[str, Any]:
    attempts = sorted(run.attempts.glob("*.json")) if run.attempts.is_dir() else []
    versions = (durable.read_json(attempts[-1]) or {}).get("versions") or {} if attempts else {}
    return {
        "device": facts.get("device"),
        "peak_gpu_mem_bytes": facts.get("peak_gpu_mem_bytes"),
        "versions": {name: versions[name] for name in ("torch", "transformers", "peft", "unsloth") if name in versions},
    }


def exports(folder: Path) -> list[dict[str, Any]]:
    """Each finished export, with what its certificate says."""
    found = []
    for each in sorted(folder.iterdir()) if folder.is_dir() else []:
        if each.name.startswith(".") or not (each / manifest.NAME).is_file():
            continue
        try:
            kind = (durable.read_json(each / manifest.NAME) or {}).get("kind", each.name)
            proof = durable.read_json(each / manifest.CERTIFICATE) or {}
        except ValueError:  # `finetuner verify` says what is wrong with it
            kind, proof = each.name, {}
        failed = [str(check.get("name")) for check in proof.get("checks", []) if not check.get("passed")]
        size = sum(path.stat().st_size for path in each.iterdir() if path.is_file())
        found.append({"format": kind, "bytes": size, "verdict": proof.get("verdict"), "failed_checks": failed})
    return found


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ufeff]")
"""No part of a text that is read; the directional ones would turn what stands behind them around."""


def clean(value: Any) -> Any:
    """The same with texts that can be written and shown, and numbers that JSON has."""
    if isinstance(value, str):
        return _CONTROL.sub("�", value.encode("utf-8", "replace").decode("utf-8"))
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(clean(key)): clean(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [clean(each) for each in value]
    return value
