"""report.html: one file that shows a report's document, with no network, no script, light and dark, and fit for A4.

Prompts, answers, names and findings are other people's text: each goes through `_e`, and nothing else is trusted.
"""

from html import escape
from importlib import resources
from typing import Any

from runner.report import charts
from runner.report.document import MOST_LINES, headline

Document = dict[str, Any]

VERDICTS = {
    "better": "Better than its base",
    "same": "No clear change",
    "worse": "Worse than its base",
    "nothing": "Nothing to compare",
}
POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def render(document: Document) -> str:
    """The page."""
    style = resources.files("runner.report").joinpath("page.css").read_text("utf-8")
    sections = [_head, _lead, _figures, _scores, _general, _benchmarks, _samples, _curves, _facts, _foot]
    body = "\n".join(part for section in sections if (part := section(document)))
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{_e(document['title'])}: report</title>\n<style>\n{style}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def _e(value: Any) -> str:
    return escape("–" if value is None else str(value), quote=True)


def _head(document: Document) -> str:
    data = document["dataset"] or {}
    parts = [f"{_e(document['base'])} tuned on {_e(data.get('reference'))}"]
    if data.get("version"):
        parts.append(f"version {_e(data['version'])}")
    parts.append(_e(str(document["made_at"])[:10]))
    return (
        f'<header>\n<p class="kicker">Report card</p>\n<h1>{_e(document["title"])}</h1>\n'
        f'<p class="soft">{", ".join(parts)}</p>\n</header>'
    )


def called(document: Document) -> tuple[str, str]:
    """(the verdict, which has a colour, and its words); what was learned by heart is no reason for green."""
    verdict = document["summary"]["verdict"]
    if verdict == "better" and document["asked"]["held_out"] is False:
        return "same", "Better on rows that it learned from"
    return verdict, VERDICTS[verdict]


def _lead(document: Document) -> str:
    said = document["summary"]
    verdict, words = called(document)
    return (
        f'<section class="lead">\n<span class="verdict {verdict}">{words}</span>\n'
        f'<p class="first">{_e(said["better"])}</p>\n<p>{_e(said["forgotten"])}</p>\n'
        f"<p>{_e(said['trust'])}</p>\n</section>"
    )


def figures(document: Document) -> list[tuple[str, str, str]]:
    """(number, what it is, what to hold it against): the three that a reader takes away."""
    found = []
    measure = headline(document["scores"])
    if measure:
        interval = measure["tuned_interval"]
        between = f", 95% interval {charts.percent(interval[0])} to {charts.percent(interval[1])}" if interval else ""
        found.append((charts.told(measure, "tuned"), measure["title"], f"base {charts.told(measure, 'base')}{between}"))
    general = document["general"]
    if general and general["of"]:
        title = "General questions answered"
        found.append((f"{general['tuned']} of {general['of']}", title, f"base {general['base']} of {general['of']}"))
    asked = document["asked"]
    if asked["rows"]:
        seen = {True: "kept away from the training", False: "the training learned from them", None: asked["source"]}
        found.append((f"{asked['rows']}", "Rows asked", seen[asked["held_out"]]))
    return found


def _figures(document: Document) -> str:
    found = figures(document)
    cells = [f'<div><b>{_e(n)}</b><span class="name">{_e(t)}</span><span>{_e(s)}</span></div>' for n, t, s in found]
    return f'<div class="figures">{"".join(cells)}</div>' if cells else ""


KEY = '<p class="key"><span><i class="b"></i>Base</span><span><i></i>Tuned</span>{more}</p>'


def _scores(document: Document) -> str:
    scored = document["scores"]
    shown = [each for each in scored["measures"] if each["unit"] in ("share", "score")]
    others = [each for each in scored["measures"] if each["unit"] not in ("share", "score")]
    if not shown:
        return ""
    with_intervals = "<span>Lines through the dots are 95% intervals</span>"
    parts = ["<section>\n<h2>Base against tuned</h2>", KEY.format(more=with_intervals)]
    parts.append(f'<div class="wide">{charts.dumbbells(shown)}</div>')
    if scored.get("fields"):
        parts += ["<h3>Each field</h3>", f'<div class="wide">{charts.dumbbells(scored["fields"])}</div>']
    if scored.get("confusion"):
        parts.append(_confusion(scored))
    rows = [
        f'<tr><td>{_e(each["title"])}{_unit(each)}</td><td class="n">{charts.told(each, "base")}</td>'
        f'<td class="n">{charts.told(each, "tuned")}</td></tr>'
        for each in others
    ]
    if rows:
        head = '<tr><th></th><th class="n">Base</th><th class="n">Tuned</th></tr>'
        parts.append(f"<table>{head}{''.join(rows)}</table>")
    limit = document["asked"]["answer_tokens"]
    parts.append(f'<p class="soft">Answers are greedy and may be {_e(limit)} tokens long.</p>\n</section>')
    return "\n".join(parts)


def _unit(measure: dict[str, Any]) -> str:
    says = {"tokens": "tokens", "nats": "nats a token; lower is better"}[measure["unit"]]
    return f' <span class="soft">({says})</span>'


def _confusion(scored: dict[str, Any]) -> str:
    labels, table = scored["labels"], scored["confusion"]["tuned"]
    head = "".join(f'<th class="n">{_e(label)}</th>' for label in [*labels, "another"])
    rows = []
    for i, label in enumerate(labels):
        of = sum(table[i]) or 1
        cells = []
        for k, count in enumerate(table[i]):
            colour = "--good" if k == i else "--bad"
            shade = f"background:color-mix(in srgb, var({colour}) {round(60 * count / of)}%, transparent)"
            cells.append(f'<td class="n" style="{shade}">{count}</td>')
        rows.append(f"<tr><th>{_e(label)}</th>{''.join(cells)}</tr>")
    return (
        "<h3>Which labels the tuned model mixes up</h3>\n"
        '<p class="soft">A row is the expected label, a column what was answered.</p>\n'
        f'<div class="scroll"><table class="confusion"><tr><th></th>{head}</tr>{"".join(rows)}</table></div>'
    )


def _general(document: Document) -> str:
    general = document["general"]
    if not general or not general["of"]:
        return ""
    parts = [
        "<section>\n<h2>What was forgotten</h2>",
        f'<p class="soft">{general["of"]} small questions that ship with the product (version '
        f"{_e(general['version'])}), in English and German, asked {_e(general['way'])} and judged by plain rules.</p>",
        KEY.format(more=""),
        f'<div class="wide">{charts.pairs(general["kinds"])}</div>',
    ]
    if general["told"]:
        rows = "".join(
            f'<tr><td>{_e(each["ask"])}</td><td><div class="said">{_said(each["base"])}</div></td>'
            f'<td><div class="said">{_said(each["tuned"])}</div></td></tr>'
            for each in general["told"]
        )
        parts.append("<h3>Known to the base, lost to the tuned model</h3>")
        parts.append(f'<table class="told"><tr><th>Question</th><th>Base</th><th>Tuned</th></tr>{rows}</table>')
    return "\n".join([*parts, "</section>"])


def _benchmarks(document: Document) -> str:
    made = document.get("benchmarks")
    if not made:
        return ""
    lines = made["lines"]
    way = "as conversations" if made["chat"] else "as plain text"
    rows = "".join(
        f"<tr><td>{_e(each['task'])}</td><td>{_e(_metric(each))}</td>"
        f'<td class="n">{_e(each["rows"])}</td>'
        f'<td class="n">{_measured(each, "base")}</td><td class="n">{_measured(each, "tuned")}</td></tr>'
        for each in lines[:MOST_LINES]
    )
    head = '<tr><th>Task</th><th>Metric</th><th class="n">Rows</th><th class="n">Base</th><th class="n">Tuned</th></tr>'
    parts = [
        "<section>\n<h2>Benchmarks</h2>",
        f'<p class="soft">Measured by {_e(made["by"])} on the first {_e(made["rows"])} examples of each task, at most, '
        f"asked {way}. Behind ± stands its standard error: a difference smaller than two of them may be chance.</p>",
        f'<div class="scroll"><table>{head}{rows}</table></div>' if rows else "",
    ]
    if len(lines) > MOST_LINES:
        parts.append(f'<p class="soft">{len(lines) - MOST_LINES} more lines stand in report.json.</p>')
    parts += [f"<p>Left out: {_e(each['benchmark'])}, {_e(each['why'].rstrip('.'))}.</p>" for each in made["left_out"]]
    return "\n".join([*(part for part in parts if part), "</section>"])


def _metric(line: dict[str, Any]) -> str:
    """Its name, with what was made of the answers before and whether less of it is better."""
    filtered = f", {line['filter']}" if line["filter"] != "none" else ""
    return f"{line['metric']}{filtered}{' (lower is better)' if line['higher_is_better'] is False else ''}"


def _measured(line: dict[str, Any], who: str) -> str:
    value, error = line[who], line[f"{who}_stderr"]
    if value is None:
        return "–"
    return f"{value:.3f}" + (f" ± {error:.3f}" if error is not None else "")


def _said(text: str) -> str:
    """A text; one without spaces may be broken behind its commas."""
    return _e(text).replace(",", ",<wbr>") if text.strip() else '<span class="empty">nothing</span>'


def _samples(document: Document) -> str:
    titles = {"gain": "Where it gained most", "loss": "Where it gained least, or lost"}
    parts = []
    for group, title in titles.items():
        those = [_sample(each) for each in document["samples"] if each["group"] == group]
        if those:
            parts += [f"<h3>{title}</h3>", *those]
    return "\n".join(["<section>\n<h2>Side by side</h2>", *parts, "</section>"]) if parts else ""


def _sample(sample: dict[str, Any]) -> str:
    sides = "".join(
        _side(name, sample[who], sample["quality"][who]) for who, name in (("base", "Base"), ("tuned", "Tuned"))
    )
    return (
        f'<article class="sample"><div class="ask">{_box("Prompt", sample["prompt"])}</div>'
        f'<div class="want">{_box("Expected", sample["expected"])}</div><div class="row">{sides}</div></article>'
    )


def _box(tag: str, text: str) -> str:
    return f'<span class="tag">{tag}</span><div class="said">{_said(text)}</div>'


def _side(name: str, said: dict[str, Any], quality: float) -> str:
    kind, word = (
        ("better", "right")
        if quality == 1
        else ("worse", "wrong")
        if quality == 0
        else ("same", f"{quality:.0%} right")
    )
    ended = "" if said["stopped"] else ", did not end by itself"
    return (
        f'<div><span class="tag">{name}, <b class="{kind}">{word}</b>{ended}</span>'
        f'<div class="said">{_said(said["text"])}</div></div>'
    )


def _curves(document: Document) -> str:
    loss, evaluations = document["curves"]["loss"], document["curves"]["eval_loss"]
    if not loss and not evaluations:
        return ""
    more = '<span><i class="o"></i>On rows kept for evaluation</span>' if evaluations else ""
    key = f'<p class="key"><span><i></i>Loss on the rows learned from</span>{more}</p>'
    drawn = f'<div class="wide">{charts.curve(loss, evaluations)}</div>'
    return f"<section>\n<h2>How it learned</h2>\n{key}\n{drawn}\n</section>"


# ---- facts


def _facts(document: Document) -> str:
    left = [("Settings", _rows(document["settings"])), ("Exports", _exports(document))]
    right = [
        ("Data", _rows(_data(document["data"])) + _findings(document["data"])),
        ("Time, energy, hardware", _rows(cost(document))),
    ]
    columns = [
        "".join(f"<section>\n<h2>{title}</h2>\n{told}\n</section>" for title, told in column if told)
        for column in (left, right)
    ]
    return '<div class="two">' + "".join(f"<section>{column}</section>" for column in columns if column) + "</div>"


def _rows(pairs: Any) -> str:
    rows = "".join(
        f'<tr><th>{_e(name)}</th><td class="n">{_e(said)}</td></tr>' for name, said in pairs if said is not None
    )
    return f"<table>{rows}</table>" if rows else ""


def _data(data: dict[str, Any]) -> list[tuple[str, Any]]:
    tokens = data.get("tokens") or {}
    return [
        ("Format", data.get("format")),
        ("Rows, usable", f"{data['rows']:,}, {data['usable_rows']:,}" if data.get("rows") is not None else None),
        ("Learned from", _count(data.get("train_rows"))),
        ("Kept for evaluation", _count(data.get("eval_rows"))),
        (
            "Tokens a row",
            f"{tokens['p50']:,} usual, {tokens['max']:,} at most" if tokens.get("p50") is not None else None,
        ),
        ("Duplicates", _count(data.get("duplicates"))),
        ("Nearly the same", _count(data.get("near_duplicates"))),
    ]


def _findings(data: dict[str, Any]) -> str:
    rows = "".join(
        f'<tr><td class="line">Line {_e(each["line"])}</td>'
        f'<td>{_e(each["message"])} <span class="soft">{_e(each["action"])}</span></td></tr>'
        for each in data["examples"][:5]
    )
    return f"<h3>Findings</h3><table>{rows}</table>" if rows else ""


def cost(document: Document) -> list[tuple[str, Any]]:
    """What the training has taken, on what."""
    time, hardware, price = document["time"], document["hardware"], document["cost"]
    used = document["energy_wh"]
    memory = hardware["peak_gpu_mem_bytes"]
    return [
        ("Training", _seconds(time["trained_s"])),
        ("Steps", _count(time["steps"])),
        ("Tokens learned from", _count(time["tokens"])),
        ("Energy of the card", f"{used:,.1f} Wh" if used is not None else "not measured here"),
        (
            "Cost of the energy",
            f"{price['amount']:,.2f} {price['currency']} at {price['price_per_kwh']:g} a kWh" if price else None,
        ),
        ("Device", {"cpu": "CPU"}.get(hardware["device"], hardware["device"])),
        ("Peak GPU memory", f"{memory / 1e9:.1f} GB" if memory else None),
        *((name, said) for name, said in hardware["versions"].items()),
        ("This report", _seconds(time["report"].get("all"))),
    ]


def _exports(document: Document) -> str:
    rows = []
    for each in document["exports"]:
        verdict = each["verdict"]
        said = {
            "ready": "proven",
            "suspect": "suspect",
            None: "what was trained" if each["format"] == "adapter" else "not proven",
        }
        told = said.get(verdict, verdict)
        if each["failed_checks"]:
            told = f"{told}: {', '.join(each['failed_checks'])}"
        kind = {"ready": "better", "suspect": "worse"}.get(verdict, "soft")
        rows.append(
            f'<tr><th>{_e(each["format"])}</th><td class="n">{each["bytes"] / 1e6:,.0f} MB</td>'
            f'<td class="n {kind}">{_e(told)}</td></tr>'
        )
    return f"<table>{''.join(rows)}</table>" if rows else ""


def _foot(document: Document) -> str:
    return (
        f"<footer>Made at {_e(document['made_at'])} for job {_e(document['job'])} by the Gemma Fine-Tuner. "
        "The same as data: report.json beside this file.</footer>"
    )


def _count(value: Any) -> str | None:
    return f"{value:,}" if isinstance(value, int) else None


def _seconds(value: Any) -> str | None:
    if not isinstance(value, int | float):
        return None
    return f"{value:.0f} s" if value < 120 else f"{value / 60:.0f} min" if value < 7200 else f"{value / 3600:.1f} h"
