"""The report's document, its page in a browser without a network, and its first page as a PDF."""

import re
import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from runner.report import charts, document, first_page, general, page
from runner.report.document import Story
from runner.report.rows import Row, Said
from spool.protocol import durable
from spool.protocol.home import Home, Run
from spool.protocol.metrics import Writer

if TYPE_CHECKING:
    from playwright.sync_api import Browser

HOSTILE = '<script>document.title="owned"</script><img src=x onerror=alert(1)>"\'&\x00\x1b\ud800\u202e</style></div>'


def rows(count: int, right: int, expected: str = '{{"n":{}}}') -> list[Row]:
    """So many rows, of which the tuned model answers some and the base none."""
    return [
        Row(
            f"prompt {i}",
            expected.format(i),
            Said("hello", False, 9, 3.0 + i / 100),
            Said(expected.format(i if i < right else -1), True, 5, 0.1),
        )
        for i in range(count)
    ]


def general_answers(base: bool = True, tuned: bool = True) -> dict[str, Any]:
    knows = [(each.contains or each.exact or ["?"])[0] for each in general.questions()]
    return general.judge(
        [(Said(k if base else "", True, 1, None), Said(k if tuned else "", True, 1, None)) for k in knows]
    )


def story(answered: list[Row], held_out: bool | None = True, chosen: int | None = None, **more: Any) -> Story:
    return Story(answered, 99, len(answered) if chosen is None else chosen, held_out, "tickets.jsonl", 36, **more)


@pytest.fixture
def run(home: Home) -> Run:
    """A training as it leaves its folder."""
    home.create()
    run = home.run("01M83T39RSXNMCZHRRM215TC4D")
    run.data.mkdir(parents=True)
    writer = Writer(run.metrics, 1)
    for step in range(1, 1001):
        writer.write(step=step, loss=5 / step, gpu_power_w=360.0)
    writer.write(step=1000, eval_loss=0.01)
    data = {"reference": "tickets.jsonl", "sha256": "ab" * 32, "version": "ab" * 6}
    base = {"reference": "gemma-3-270m", "folder": "models/gemma-3-270m"}
    result = {"steps": 1000, "trained_s": 61.0, "tokens": 4000, "device": "cpu", "dataset": data, "base": base}
    durable.write_json(run.result, {"outcome": "finished", "result": result})
    durable.write_json(
        run.spec, {"model": "gemma-3-270m", "lora": {"rank": 16, "alpha": 32.0}, "train": {"epochs": 2.0}}
    )
    finding = {"line": 3, "code": "near_duplicate", "message": HOSTILE.replace("\ud800", ""), "action": "kept"}
    durable.write_json(run.data / "check.json", {"rows": 5, "usable_rows": 4, "problems": [finding]})
    for name, verdict in (("merged", "ready"), ("gguf-q4_k_m", "suspect")):
        folder = run.exports / name
        folder.mkdir(parents=True)
        durable.write_json(folder / "manifest.json", {"v": 1, "kind": name})
        checks = [{"name": "loss", "passed": verdict == "ready"}]
        durable.write_json(folder / "certificate.json", {"verdict": verdict, "checks": checks})
    return run


def build(told: Story, run: Run, title: str = "Tickets", price: float | None = None) -> dict[str, Any]:
    made = document.build(told, run, title, run.root.name, price, "EUR", "2026-11-23T10:00:00.000Z")
    result: dict[str, Any] = orjson.loads(durable.to_bytes(made))
    return result


def pdf_text(data: bytes) -> str:
    """What stands on the pages; reportlab writes streams as deflate in ASCII85."""
    import base64

    streams = re.findall(rb"stream\r?\n(.*?)endstream", data, re.DOTALL)
    drawn = b"".join(zlib.decompress(base64.a85decode(each))
                     for each in (s.strip().removesuffix(b"~>").removeprefix(b"<~") for s in streams))  # fmt: skip
    return drawn.decode("latin-1")


def test_the_document_says_what_got_better_and_whether_to_trust_it(run: Run) -> None:
    made = build(story(rows(80, 76), general=general_answers(tuned=False)), run, price=0.5)
    assert made["summary"] == {
        "verdict": "better",
        "better": "76 of 80 answers are the expected JSON, field for field. The base model gives none.",
        "forgotten": made["summary"]["forgotten"],
        "trust": "Measured on 80 rows that the training never saw. With 95% confidence the share of right answers lies "
        "between 88% and 98%.",
    }
    assert "outside its task it has forgotten" in made["summary"]["forgotten"]
    assert len(made["samples"]) == 20
    assert [each["group"] for each in made["samples"]] == ["gain"] * 10 + ["loss"] * 10
    assert {each["prompt"] for each in made["samples"][10:14]} == {f"prompt {i}" for i in range(76, 80)}, (
        "wrong ones first"
    )
    assert len(made["curves"]["loss"]) <= document.CURVE_POINTS
    assert made["curves"]["loss"][0] == [1, 5]
    assert made["curves"]["eval_loss"] == [[1000, 0.01]]
    assert made["cost"]["amount"] == pytest.approx(made["energy_wh"] / 1000 * 0.5)
    assert {each["format"]: each["verdict"] for each in made["exports"]} == {
        "merged": "ready",
        "gguf-q4_k_m": "suspect",
    }
    assert made["settings"][:2] == [["LoRA rank", "16, alpha 32"], ["Length", "2 epochs"]]


def test_what_people_vote_on_is_a_fair_sample_of_whole_answers_that_differ(run: Run) -> None:
    answered = rows(50, 10)
    alike = [Row("alike", "x", Said("same ", True, 1, None), Said("same", True, 1, None))] * 5
    turns = ({"role": "user", "content": "before"}, {"role": "user", "content": "p" * 5000})
    long = Row("p" * 5000, "x", Said("a" * 9000, False, 256, None), Said("b", True, 1, None), turns)
    made = build(story([long, *alike, *answered]), run)["ballot"]
    assert made["same"] == 5
    assert [each["prompt"] for each in made["rows"]] == ["p" * 5000, *(f"prompt {i}" for i in range(19))]
    assert made["rows"][0]["messages"] == list(turns)
    assert made["rows"][0]["base"] == {"text": "a" * 9000, "stopped": False}
    assert made["rows"][1]["tuned"] == {"text": '{"n":0}', "stopped": True}
    assert build(story([*answered[:3], *alike]), run)["ballot"]["same"] == 5
    assert build(story([]), run)["ballot"] == {"same": 0, "rows": []}


@pytest.mark.parametrize(
    ("told", "verdict", "says"),
    [
        (story([]), "nothing", "There were no rows"),
        (story(rows(1, 1)), "same", "no clear change"),
        (story(rows(10, 10), held_out=False), "better", "learned from"),
        (story(rows(40, 40), chosen=80), "better", "before all 80"),
        (story(rows(40, 40), held_out=None), "better", "not known here"),
        (story(rows(40, 0, "a text of its own, number {}")), "better", "chrF"),
    ],
)
def test_what_is_not_known_is_not_claimed(run: Run, told: Story, verdict: str, says: str) -> None:
    made = build(told, run)
    assert made["summary"]["verdict"] == verdict
    assert says in " ".join(made["summary"].values())
    assert "General questions were not asked" in made["summary"]["forgotten"]
    assert page.render(made).endswith("</html>\n")
    assert first_page.render(made).startswith(b"%PDF")


def test_what_was_learned_by_heart_is_not_green(run: Run) -> None:
    shown = {held: page.render(build(story(rows(40, 40), held_out=held), run)) for held in (True, False)}
    assert '<span class="verdict better">Better than its base</span>' in shown[True]
    assert '<span class="verdict same">Better on rows that it learned from</span>' in shown[False]


def test_worse_is_called_worse(run: Run) -> None:
    turned = [Row(each.prompt, each.expected, each.tuned, each.base) for each in rows(40, 38)]
    assert build(story(turned), run)["summary"]["verdict"] == "worse"


def test_a_report_of_an_adapter_from_elsewhere_has_no_run(home: Home) -> None:
    made = build(story(rows(3, 3)), home.run("nobody"))
    assert made["curves"] == {"loss": [], "eval_loss": []}
    assert made["energy_wh"] is None
    assert "not measured here" in page.render(made)
    assert first_page.render(made).startswith(b"%PDF")


def test_hostile_texts_are_shown_and_do_nothing(run: Run, tmp_path: Path, chromium: "Browser") -> None:
    hostile = [Row(HOSTILE, HOSTILE, Said(HOSTILE, False, 1, float("nan")), Said(HOSTILE, True, 1, float("inf")))] * 40
    told = story(hostile, general=general.judge([(Said("Paris", True, 1, None), Said(HOSTILE, True, 1, None))] * 40))
    made = build(told, run, HOSTILE)
    file = tmp_path / "report.html"
    file.write_text(page.render(made), encoding="utf-8")
    seen: list[str] = []
    context = chromium.new_context(offline=True)
    shown = context.new_page()
    shown.on("request", lambda request: seen.append(request.url))
    shown.on("dialog", lambda dialog: seen.append("dialog"))
    shown.on("console", lambda message: seen.append(message.text))
    shown.goto(file.as_uri())
    assert seen == [file.as_uri()]
    assert shown.title().startswith("<script>")
    assert shown.locator("script, img, link, iframe, [onerror]").count() == 0
    assert "onerror=alert(1)" in shown.locator("h1").inner_text()
    assert not re.search(r"[\x00-\x08\x1b\ud800-\udfff\u202e]", shown.content())
    context.close()
    assert first_page.render(made).startswith(b"%PDF")


def test_the_page_is_readable_without_script_in_light_dark_and_on_a_phone(
    run: Run, tmp_path: Path, chromium: "Browser"
) -> None:
    file = tmp_path / "report.html"
    long = [Row("w" * 5000, "x" * 5000, Said("y " * 2000, False, 1, 1.0), Said("z" * 5000, True, 1, 1.0))]
    file.write_text(
        page.render(build(story(long * 2 + rows(30, 20), general=general_answers()), run)), encoding="utf-8"
    )
    backs = set()
    for scheme in ("light", "dark"):
        context = chromium.new_context(
            offline=True, java_script_enabled=False, color_scheme=scheme, viewport={"width": 390, "height": 800}
        )
        shown = context.new_page()
        shown.goto(file.as_uri())
        headings = shown.locator("h2").all_inner_texts()
        assert headings[:4] == ["Base against tuned", "What was forgotten", "Side by side", "How it learned"]
        for name in ("Settings", "Data", "Time, energy, hardware", "Exports"):
            assert name in headings
        picture = shown.screenshot(full_page=True)
        assert struct.unpack(">I", picture[16:20])[0] == 390, "it is no wider than a phone"
        backs.add(picture[-2000:])
        context.close()
    assert len(backs) == 2


def test_the_first_page_is_one_page_and_always_the_same(run: Run) -> None:
    made = build(story(rows(80, 76), general=general_answers(tuned=False)), run, "Tickets " * 40)
    data = first_page.render(made)
    assert data == first_page.render(made)
    assert data.count(b"/Type /Page\n") == 1
    drawn = pdf_text(data)
    for words in (
        "Better than its base",
        "76 of 80 answers",
        "Base against tuned",
        "LoRA rank 16",
        "Loss over the steps",
    ):
        assert words in drawn, words


def test_letters_that_the_first_page_lacks_are_replaced() -> None:
    assert first_page._plain("Größe – 報告\x00→") == "Größe – ?? to"
    assert all(len(line) < 30 for line in first_page.wrap("w" * 300 + " end", 100, 9))
    assert "".join(first_page.wrap("w" * 300, 100, 9)) == "w" * 300


@pytest.mark.parametrize(
    ("share", "says"), [(0, "0%"), (1, "100%"), (0.998, "99.8%"), (0.001, "under 1%"), (0.5, "50%"), (0.9999, "99.9%")]
)
def test_percents_do_not_round_to_all_or_nothing(share: float, says: str) -> None:
    assert charts.percent(share) == says


@pytest.mark.parametrize(("highest", "ticks"), [(5.3, [0, 2, 4, 6]), (0.9, [0, 0.25, 0.5, 0.75, 1]), (0, [0, 1])])
def test_axes_have_round_numbers(highest: float, ticks: list[float]) -> None:
    assert charts.nice(highest) == pytest.approx(ticks)
