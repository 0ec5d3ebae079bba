"""The charts of a report's page, as SVG that is written by hand: colours are classes of page.css, so dark is dark."""

import math
from collections.abc import Sequence
from html import escape
from typing import Any

WIDTH = 832
LABEL = 232
VALUE = 118
ROW = 34


def dumbbells(measures: Sequence[dict[str, Any]]) -> str:
    """A line a measure from the base's dot to the tuned one's, on a scale from 0 to 1, with their intervals."""
    left, right = LABEL + 12, WIDTH - VALUE - 16
    height = ROW * len(measures) + 26

    def x(value: float) -> float:
        return left + (right - left) * min(1.0, max(0.0, value))

    parts = []
    for tick in (0, 0.25, 0.5, 0.75, 1):
        parts.append(_line("grid", x(tick), 4, x(tick), height - 22))
        parts.append(_text(f"{tick:.0%}", x(tick), height - 6, "t mid"))
    for i, each in enumerate(measures):
        y = ROW * i + 20
        parts.append(_text(_short(each["title"]), 0, y + 4))
        parts.append(_line("rule", x(each["base"]), y, x(each["tuned"]), y))
        for who, mark in (("base", "b"), ("tuned", "t")):
            interval = each.get(f"{who}_interval")
            if interval:
                parts.append(_line(f"w{mark}", x(interval[0]), y, x(interval[1]), y))
            parts.append(f'<circle class="a{mark}" cx="{x(each[who]):.1f}" cy="{y}" r="{5 if mark == "b" else 6.5}"/>')
        said = f"{told(each, 'base')} → {told(each, 'tuned')}"
        parts.append(_text(said, WIDTH, y + 4, "end"))
    return _svg(height, "Base and tuned model, measure by measure", parts)


def pairs(kinds: dict[str, dict[str, int]]) -> str:
    """Two bars a kind of question: what the base and what the tuned model answers rightly."""
    left, right = LABEL + 12, WIDTH - VALUE - 16
    parts = []
    for i, (kind, counts) in enumerate(kinds.items()):
        top = i * 40 + 4
        parts.append(_text(_short(kind.capitalize()), 0, top + 19))
        for k, (who, mark) in enumerate((("base", "b"), ("tuned", "t"))):
            full = right - left
            long = full * counts[who] / max(1, counts["of"])
            y = top + 3 + 12 * k
            parts.append(f'<rect class="track" x="{left}" y="{y}" width="{full}" height="9" rx="4.5"/>')
            if long:
                parts.append(
                    f'<rect class="a{mark}" x="{left}" y="{y}" width="{max(9, long):.1f}" height="9" rx="4.5"/>'
                )
        parts.append(_text(f"{counts['base']} → {counts['tuned']} of {counts['of']}", WIDTH, top + 19, "end"))
    return _svg(40 * len(kinds) + 8, "Questions of the general set that are answered rightly, by kind", parts)


def curve(loss: Sequence[Sequence[float]], evaluations: Sequence[Sequence[float]]) -> str:
    """The loss over the steps, the evaluations as rings."""
    left, right, top, bottom, height = 44, WIDTH - 8, 10, 190, 220
    xs = [point[0] for point in [*loss, *evaluations]]
    highest = max(point[1] for point in [*loss, *evaluations])
    ticks = nice(highest)
    first, last = min(xs), max(xs)

    def x(value: float) -> float:
        return left + (right - left) * ((value - first) / (last - first) if last > first else 0.5)

    def y(value: float) -> float:
        return bottom - (bottom - top) * max(0.0, value) / ticks[-1]

    parts = []
    for tick in ticks:
        parts.append(_line("grid", left, y(tick), right, y(tick)))
        parts.append(_text(f"{tick:g}", left - 10, y(tick) + 4, "t end"))
    for i, place in enumerate(dict.fromkeys((first, (first + last) / 2, last))):
        anchor = ("t", "t mid", "t end")[i] if last > first else "t mid"
        parts.append(_text(f"step {place:.0f}" if i == 0 else f"{place:.0f}", x(place), bottom + 20, anchor))
    if len(loss) == 1:
        parts.append(f'<circle class="at" cx="{x(loss[0][0]):.1f}" cy="{y(loss[0][1]):.1f}" r="4"/>')
    elif loss:
        points = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in loss)
        parts.append(f'<polyline class="loss" points="{points}"/>')
    parts += [f'<circle class="eval" cx="{x(a):.1f}" cy="{y(b):.1f}" r="4"/>' for a, b in evaluations]
    return _svg(height, "The loss over the steps of the training", parts)


def nice(highest: float) -> list[float]:
    """From 0 to at least `highest` in three to five even steps that people would choose."""
    if not highest > 0:
        return [0.0, 1.0]
    rough = highest / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * each for each in (1, 2, 2.5, 5, 10) if power * each >= rough * 0.999)
    return [step * i for i in range(math.ceil(highest / step - 1e-9) + 1)]


def told(measure: dict[str, Any], who: str) -> str:
    """A number as people read it."""
    value = measure[who]
    if value is None:
        return "–"
    return {
        "share": lambda: percent(value),
        "score": lambda: f"{value:.2f}",
        "tokens": lambda: f"{value:.1f}",
        "nats": lambda: f"{value:.3f}",
    }[measure["unit"]]()


def percent(share: float) -> str:
    """Whole percents; what is not all is never 100%, and what is not nothing never 0%."""
    whole = round(share * 100)
    if whole == 100 and share < 1:
        return f"{math.floor(share * 1000) / 10:g}%"
    return "under 1%" if whole == 0 and share > 0 else f"{whole}%"


def _svg(height: float, title: str, parts: list[str]) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {height:g}" role="img" aria-label="{escape(title)}">' + "".join(parts) + "</svg>"


def _line(kind: str, x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _text(text: str, x: float, y: float, kind: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}"{f" class={kind!r}" if kind else ""}>{escape(text)}</text>'


def _short(text: str) -> str:
    return text if len(text) <= 34 else text[:33] + "…"
