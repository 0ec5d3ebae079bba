"""report.pdf: the report on one A4 page, drawn without a browser: the page that one sends to somebody who decides.

The fonts are those that every PDF reader has (Helvetica), so nothing is embedded; letters that they lack become "?".
"""

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from runner.report import charts
from runner.report.document import headline
from runner.report.page import called, cost, figures

if TYPE_CHECKING:
    from reportlab.pdfgen.canvas import Canvas

WIDTH, HEIGHT = 595.28, 841.89
LEFT, RIGHT = 48.0, WIDTH - 48.0
INK, SOFT, LINE, CARD = "#12151c", "#5b6372", "#e2e5ea", "#f6f7f9"
ACCENT, BASE = "#3355d1", "#8a93a6"
TINTS = {"better": "#147a50", "worse": "#c8303e", "same": "#96690a", "nothing": SOFT}
MOST_MEASURES = 7
CURVE_HEIGHT = 88.0
LEAST_CURVE = 36.0
FOOT = 66.0
TAKEN = ("Training", "Energy of the card", "Cost of the energy", "Device")


def render(document: dict[str, Any]) -> bytes:
    """The page as a PDF; the same bytes for the same document."""
    from reportlab.pdfgen.canvas import Canvas

    out = io.BytesIO()
    canvas = Canvas(out, (WIDTH, HEIGHT), invariant=1, initialFontName="Helvetica")
    canvas.setTitle(_plain(f"{document['title']}: report"))
    canvas.setCreator("Gemma Fine-Tuner")
    page = _Page(canvas)
    _head(page, document)
    _lead(page, document)
    _figures(page, figures(document))
    _measures(page, document)
    _general(page, document)
    _curve(page, document)
    _foot(page, document)
    canvas.showPage()
    canvas.save()
    return out.getvalue()


class _Page:
    """A canvas that is written from the top down; `y` is where the next thing begins."""

    def __init__(self, canvas: "Canvas") -> None:
        self.canvas = canvas
        self.y = HEIGHT - 54.0

    def text(
        self, said: str, x: float, y: float, size: float, colour: str = INK, bold: bool = False, align: str = "left"
    ) -> None:
        from reportlab.lib.colors import HexColor

        self.canvas.setFillColor(HexColor(colour))
        self.canvas.setFont("Helvetica-Bold" if bold else "Helvetica", size)
        draw = {"left": "drawString", "right": "drawRightString", "mid": "drawCentredString"}[align]
        getattr(self.canvas, draw)(x, y, _plain(said))

    def wrapped(
        self, said: str, x: float, width: float, size: float, most: int, colour: str = INK, bold: bool = False
    ) -> None:
        """Lines of one paragraph, `most` of them, from `y` on; moves it."""
        lines = wrap(said, width, size, bold)
        if len(lines) > most:
            lines = [*lines[: most - 1], lines[most - 1].rstrip(" .,;") + " ..."]
        for line in lines:
            self.y -= size * 1.36
            self.text(line, x, self.y, size, colour, bold)

    def box(self, x: float, y: float, width: float, height: float, colour: str, radius: float = 0) -> None:
        from reportlab.lib.colors import HexColor

        self.canvas.setFillColor(HexColor(colour))
        self.canvas.roundRect(x, y, width, height, radius, stroke=0, fill=1)

    def dot(self, x: float, y: float, radius: float, colour: str, hollow: bool = False) -> None:
        from reportlab.lib.colors import HexColor

        self.canvas.setFillColor(HexColor("#ffffff" if hollow else colour))
        self.canvas.setStrokeColor(HexColor(colour))
        self.canvas.setLineWidth(1.2)
        self.canvas.circle(x, y, radius, stroke=int(hollow), fill=1)

    def line(self, points: Sequence[tuple[float, float]], colour: str, width: float = 0.75) -> None:
        from reportlab.lib.colors import HexColor

        self.canvas.setStrokeColor(HexColor(colour))
        self.canvas.setLineWidth(width)
        self.canvas.setLineJoin(1)
        path = self.canvas.beginPath()
        path.moveTo(*points[0])
        for point in points[1:]:
            path.lineTo(*point)
        self.canvas.drawPath(path)

    def heading(self, said: str, key: bool = False) -> None:
        self.y -= 29
        self.text(said, LEFT, self.y, 10.5, bold=True)
        if key:
            for word, colour, x in (("Base", BASE, RIGHT - 76), ("Tuned", ACCENT, RIGHT - 30)):
                self.dot(x - 7, self.y + 3, 3, colour)
                self.text(word, x, self.y, 8.5, SOFT)
        self.y -= 8


def wrap(said: str, width: float, size: float, bold: bool = False) -> list[str]:
    """Lines that fit into a width; a word that does not is broken."""
    from reportlab.pdfbase.pdfmetrics import stringWidth

    font, lines, line = "Helvetica-Bold" if bold else "Helvetica", [], ""
    for word in _plain(said).split():
        while stringWidth(word, font, size) > width:
            cut = next(i for i in range(len(word), 0, -1) if i == 1 or stringWidth(word[:i], font, size) <= width)
            if cut == len(word):
                break
            lines += [line] if line else []
            lines, line, word = [*lines, word[:cut]], "", word[cut:]
        longer = f"{line} {word}".strip()
        if line and stringWidth(longer, font, size) > width:
            lines.append(line)
            longer = word
        line = longer
    return [*lines, line] if line else lines


def _plain(said: str) -> str:
    """What Helvetica in a PDF can write: Windows-1252, no control characters."""
    told = "".join(c if c.isprintable() else " " for c in said.replace("→", "to"))
    return told.encode("cp1252", "replace").decode("cp1252")


# ---- the page, top to bottom


def _head(page: _Page, document: dict[str, Any]) -> None:
    page.text("REPORT CARD", LEFT, page.y, 8, SOFT, bold=True)
    page.text(str(document["made_at"])[:10], RIGHT, page.y, 8, SOFT, align="right")
    page.y -= 4
    page.wrapped(document["title"], LEFT, RIGHT - LEFT, 22, 2, bold=True)
    page.y -= 2
    data = document["dataset"] or {}
    page.wrapped(f"{document['base']} tuned on {data.get('reference')}", LEFT, RIGHT - LEFT, 9.5, 1, SOFT)


def _lead(page: _Page, document: dict[str, Any]) -> None:
    said, inner = document["summary"], RIGHT - LEFT - 36
    top = page.y - 18
    heights = [len(wrap(said["better"], inner, 13, True)[:4]) * 13 * 1.36]
    heights += [len(wrap(said[name], inner, 9.5)[:4]) * 9.5 * 1.36 for name in ("forgotten", "trust")]
    page.box(LEFT, top - sum(heights) - 62, RIGHT - LEFT, sum(heights) + 62, CARD, 8)
    page.y = top - 22
    verdict, words = called(document)
    page.dot(LEFT + 22, page.y + 3.2, 4, TINTS[verdict])
    page.text(words, LEFT + 32, page.y, 9.5, TINTS[verdict], bold=True)
    page.y -= 4
    page.wrapped(said["better"], LEFT + 18, inner, 13, 4, bold=True)
    for name in ("forgotten", "trust"):
        page.y -= 7
        page.wrapped(said[name], LEFT + 18, inner, 9.5, 4)
    page.y = top - sum(heights) - 62


def _figures(page: _Page, found: list[tuple[str, str, str]]) -> None:
    if not found:
        return
    width = (RIGHT - LEFT) / 3
    page.y -= 40
    for i, (number, title, beside) in enumerate(found):
        x = LEFT + i * width + (16 if i else 0)
        if i:
            page.line([(x - 14, page.y + 22), (x - 14, page.y - 28)], LINE)
        page.text(number, x, page.y, 24, bold=True)
        page.text(wrap(title, width - 22, 9)[0], x, page.y - 14, 9, bold=True)
        told = wrap(beside, width - 22, 8)
        page.text(told[0] if told else "", x, page.y - 25, 8, SOFT)
    page.y -= 28


def _measures(page: _Page, document: dict[str, Any]) -> None:
    scored = document["scores"]
    shown = [each for each in scored["measures"] if each["unit"] in ("share", "score")]
    first = headline(scored)
    shown = [*[each for each in shown if each is first], *[each for each in shown if each is not first]][:MOST_MEASURES]
    if not shown:
        return
    page.heading("Base against tuned", key=True)
    left, right = LEFT + 172, RIGHT - 84
    bottom = page.y - 19 * len(shown)
    for tick in (0, 0.25, 0.5, 0.75, 1):
        x = left + (right - left) * tick
        page.line([(x, page.y), (x, bottom - 2)], LINE, 0.5)
        page.text(f"{tick:.0%}", x, bottom - 12, 7.5, SOFT, align="mid")
    for each in shown:
        page.y -= 19
        y = page.y + 7
        places = {who: left + (right - left) * min(1, max(0, each[who])) for who in ("base", "tuned")}
        page.text(each["title"], LEFT, y - 3, 9)
        page.line([(places["base"], y), (places["tuned"], y)], "#c9ceda", 2)
        page.dot(places["base"], y, 3.2, BASE)
        page.dot(places["tuned"], y, 4.2, ACCENT)
        page.text(f"{charts.told(each, 'base')} to {charts.told(each, 'tuned')}", RIGHT, y - 3, 9, align="right")
    page.y -= 14


def _general(page: _Page, document: dict[str, Any]) -> None:
    general = document["general"]
    if not general or not general["of"]:
        return
    page.heading("General questions answered rightly", key=True)
    left, right = LEFT + 172, RIGHT - 84
    for kind, counts in general["kinds"].items():
        page.y -= 21
        page.text(kind.capitalize(), LEFT, page.y + 4, 9)
        for who, colour, up in (("base", BASE, 8), ("tuned", ACCENT, 1)):
            page.box(left, page.y + up, right - left, 5.4, "#eef0f4", 2.7)
            if counts[who]:
                page.box(left, page.y + up, max(5.4, (right - left) * counts[who] / counts["of"]), 5.4, colour, 2.7)
        page.text(f"{counts['base']} to {counts['tuned']} of {counts['of']}", RIGHT, page.y + 4, 9, align="right")
    page.y -= 2


def _curve(page: _Page, document: dict[str, Any]) -> None:
    loss, evaluations = document["curves"]["loss"], document["curves"]["eval_loss"]
    points = [*loss, *evaluations]
    high = min(CURVE_HEIGHT, page.y - FOOT - 56)
    if len(points) < 2 or high < LEAST_CURVE:
        return
    page.heading("Loss over the steps" + (", rings: on rows kept for evaluation" if evaluations else ""))
    first, last = min(p[0] for p in points), max(p[0] for p in points)
    ticks = charts.nice(max(p[1] for p in points))
    left, top, bottom = LEFT + 22, page.y - 4, page.y - high

    def place(point: Sequence[float]) -> tuple[float, float]:
        across = (point[0] - first) / (last - first) if last > first else 0.5
        return left + (RIGHT - left) * across, bottom + (top - bottom) * max(0.0, point[1]) / ticks[-1]

    for tick in ticks:
        y = place((first, tick))[1]
        page.line([(left, y), (RIGHT, y)], LINE, 0.5)
        page.text(f"{tick:g}", left - 6, y - 2.6, 7.5, SOFT, align="right")
    page.text(f"step {first:.0f}", left, bottom - 11, 7.5, SOFT)
    page.text(f"{last:.0f}", RIGHT, bottom - 11, 7.5, SOFT, align="right")
    if len(loss) > 1:
        page.line([place(point) for point in loss], ACCENT, 1.2)
    for point in evaluations:
        page.dot(*place(point), 2.6, INK, hollow=True)
    page.y = bottom - 12


def _foot(page: _Page, document: dict[str, Any]) -> None:
    told = [*document["settings"][:7], *((name, said) for name, said in cost(document) if said and name in TAKEN)]
    page.line([(LEFT, FOOT), (RIGHT, FOOT)], LINE)
    page.y = FOOT - 3
    page.wrapped(" · ".join(f"{name} {said}" for name, said in told), LEFT, RIGHT - LEFT, 7.5, 2, SOFT)
    page.text("Everything else, with answers side by side, is in report.html.", LEFT, 27, 7.5, SOFT)
    page.text(f"Job {document['job']}", RIGHT, 27, 7.5, SOFT, align="right")
