"""Monitor, run by AppTest: each state of a training and of a job that answers, its tabs, and what its address keeps."""

import json
import math
import os
import time
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest
from test_pages_app import NASTY, World, log, said, visit, world  # noqa: F401

from pages.parts.run import curves, samples, tail
from spool.protocol import durable, metrics
from spool.protocol.home import State
from spool.protocol.jobs import iso


def table_of(app: AppTest, name: str) -> Any:
    return next(each.value for each in app.dataframe if name in each.value)


def chart(app: AppTest, place: int = 0) -> dict[str, Any]:
    spec: dict[str, Any] = json.loads(app.get("vega_lite_chart")[place].proto.spec)
    return spec


def alt(app: AppTest, place: int = 0) -> str:
    return str(app.get("vega_lite_chart")[place].proto.alt)


def figures(app: AppTest) -> dict[str, str]:
    return {metric.label: metric.value for metric in app.metric}


# ---- states


def test_a_running_job_shows_its_figures_verdict_and_charts(world: World) -> None:  # noqa: F811
    job_id = world.job(State.RUNNING, steps=72, gpu=True)
    world.runner(current_job=job_id)
    app = visit("monitor", job=job_id)
    assert list(figures(app)) == [
        "Loss", "Eval loss", "Tokens / s", "Time left", "GPU memory", "GPU power", "Energy so far",
    ]  # fmt: skip
    assert "**Flat for the last" in said(app) or "**Still improving" in said(app)
    assert "expected to end" in said(app)
    assert len(app.get("vega_lite_chart")) == 2
    assert "the run so far" in alt(app)
    assert [param["name"] for param in chart(app)["params"]] == ["zoom", "hover"]
    assert len(chart(app, 1)["vconcat"]) == 7


def test_a_job_without_a_gpu_shows_what_is_known(world: World) -> None:  # noqa: F811
    app = visit("monitor", job=world.job(State.RUNNING, steps=30))
    assert list(figures(app)) == ["Loss", "Eval loss", "Tokens / s", "Time left", "Memory"]


@pytest.mark.alone
def test_silence_of_a_running_job_is_told(world: World) -> None:  # noqa: F811
    job_id = world.job(State.RUNNING, steps=30)
    run = world.home.run(job_id)
    old = time.time() - 47
    rows = [json.loads(line) | {"t": old} for line in run.metrics.read_text().splitlines()]
    run.metrics.write_text("".join(json.dumps(row) + "\n" for row in rows))
    os.utime(run.events, (old, old))
    assert "last update 47 s ago" in said(visit("monitor", job=job_id)).replace("48 s", "47 s")
    run.pulse.touch()
    assert "last update" not in said(visit("monitor", job=job_id))


def test_a_done_job_is_told_how_much_better_it_is(world: World) -> None:  # noqa: F811
    app = visit("monitor", job=world.job(State.DONE, steps=120))
    assert "better than it began**, on rows kept away from training" in said(app)
    assert "Steps" in figures(app)
    assert "Time left" not in figures(app)


def test_a_cancelled_job_keeps_its_curves(world: World) -> None:  # noqa: F811
    app = visit("monitor", job=world.job(State.CANCELLED, steps=30))
    assert "was cancelled" in app.info[0].value
    x = chart(app)["layer"][0]["encoding"]["x"]
    assert x["scale"]["domain"] == [0, 30], "what it did, not what it would have done"


def test_a_loss_that_is_no_number_is_said_and_marked(world: World) -> None:  # noqa: F811
    job_id = world.job(State.RUNNING, steps=25)
    metrics.Writer(world.home.run(job_id).metrics, 1).write(step=26, total_steps=120, loss=math.nan)
    app = visit("monitor", job=job_id)
    assert "**The loss is no number any more** since step 26" in said(app)


def test_one_row_is_enough_to_draw_and_none_is_too(world: World) -> None:  # noqa: F811
    job_id = world.job(State.RUNNING, steps=1)
    assert "Too early to say" in said(visit("monitor", job=job_id))
    world.home.run(job_id).metrics.write_bytes(b"")
    assert not visit("monitor", job=job_id).metric


def test_a_job_that_is_tried_again_says_when_and_why(world: World) -> None:  # noqa: F811
    job_id = world.job(State.QUEUED, steps=5)
    world.runner()
    durable.write_json(world.home.run(job_id).wait, {"why": "the hub is busy", "not_before": time.time() + 300})
    app = visit("monitor", job=job_id)
    assert "tried again by itself at" in app.info[0].value
    assert "the hub is busy" in app.info[0].value


def test_a_long_run_is_drawn_from_a_sample_and_says_so(
    world: World,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job_id = world.job(State.RUNNING, steps=2000, total=4000)
    monkeypatch.setattr(curves, "TOO_LARGE_BYTES", 1000)
    monkeypatch.setattr(curves, "SAMPLE_PLACES", 20)
    app = visit("monitor", job=job_id)
    assert "Drawn from a sample" in said(app)
    assert "Still improving" not in said(app), "its rules count rows"
    assert "Energy so far" not in figures(app), "it is a sum over all rows"
    assert app.get("vega_lite_chart")


def test_a_page_in_german(world: World) -> None:  # noqa: F811
    app = visit("monitor", job=world.job(State.DONE, steps=120), lang="de")
    assert "Eval-Loss" in figures(app)
    assert "besser als am Anfang" in said(app)


# ---- what the address keeps


def test_choices_come_from_the_address_by_name(world: World) -> None:  # noqa: F811
    job_id = world.job(State.RUNNING, steps=72)
    app = visit("monitor", job=job_id, x="epoch", range="half", smooth="10", log="true")
    y = next(layer["encoding"]["y"] for layer in chart(app)["layer"] if "line_trend" in str(layer.get("name")))
    assert y["scale"]["type"] == "log"
    assert app.get_by_key("choice-x").value == "epoch"
    assert app.get_by_key("choice-range").value == "half"
    assert app.get_by_key("choice-smooth").value == "10"


def test_a_widget_that_has_not_been_drawn_writes_nothing_into_the_address() -> None:
    def script() -> None:
        import streamlit as st

        from pages.parts.ui import choices

        st.session_state[choices.key("x")] = None
        choices.went("x", "step")

    app = AppTest.from_function(script).run()
    assert not app.exception
    assert "x" not in app.query_params


def test_choices_go_into_the_address_and_the_usual_ones_do_not(world: World) -> None:  # noqa: F811
    app = visit("monitor", job=world.job(State.RUNNING, steps=72))
    app.get_by_key("choice-x").set_value("time")
    app = app.run()
    assert app.query_params["x"] in ("time", ["time"])
    app.get_by_key("choice-x").set_value("step")
    app = app.run()
    assert "x" not in app.query_params


@pytest.mark.parametrize("query", [{"x": "<b>"}, {"smooth": "1e9"}, {"range": ""}, {"view": "nothing"}, {"at": "-1"}])
def test_what_no_widget_offers_is_the_usual(query: dict[str, str], world: World) -> None:  # noqa: F811
    app = visit("monitor", job=world.job(State.RUNNING, steps=72), **query)
    assert not app.exception
    assert app.get_by_key("choice-x").value == "step"


# ---- tabs


def test_the_log_is_searched(world: World) -> None:  # noqa: F811
    job_id = world.job(State.RUNNING, steps=72)
    app = visit("monitor", job=job_id, view="log", find="STEP 7")
    assert log(app).splitlines() == ["step 7", "step 70", "step 71"]
    assert "3 lines." in said(app)
    app = app.toggle(key="every").set_value(True).run()
    lines = log(app).splitlines()
    assert lines[-1] == "→ step 71"
    assert "  step 69" in lines
    app = visit("monitor", job=job_id, view="log", find="[x](y) no such")
    assert "No line holds these words" in said(app)


def test_a_log_is_text_and_nothing_else(world: World) -> None:  # noqa: F811
    job_id = world.job(State.RUNNING, steps=3)
    path = world.home.run(job_id).latest_log
    path.write_text(NASTY + "\n</pre><script>alert(1)</script>\n")
    app = visit("monitor", job=job_id, view="log")
    assert log(app).splitlines() == [NASTY, "</pre><script>alert(1)</script>"]
    assert "<img" not in app.get("html")[0].proto.body
    assert "<script" not in app.get("html")[0].proto.body


def test_only_the_end_of_a_log_is_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "train.log"
    path.write_text("needle\n" + "hay\n" * 1000 + "Needle\n")
    assert tail.search(path, "needle").hits == 2
    monkeypatch.setattr(tail, "SEARCHED_BYTES", 100)
    assert tail.search(path, "needle") == tail.Found("Needle", 1, True)
    assert tail.search(tmp_path / "none", "x") == tail.Found("", 0, False)


def test_attempts_tell_when_from_where_and_why(world: World) -> None:  # noqa: F811
    job_id = world.job(State.RUNNING, steps=30)
    run, now = world.home.run(job_id), time.time()
    first = {"attempt": 1, "started_at": iso(now - 600), "ended_at": iso(now - 300), "outcome": "crashed", "why": NASTY}
    durable.write_json(run.attempts / "0001.json", first)
    durable.write_json(run.attempts / "0002.json", {"attempt": 2, "started_at": iso(now), "resume_step": 20})
    (run.attempts / "0003.json").write_bytes(b"{")
    table = table_of(visit("monitor", job=job_id, view="attempts"), "ended")
    assert table["ended"].tolist() == ["running", "crashed"]
    assert table["from"].tolist() == ["step 20", "the start"]
    assert table["took"].tolist() == ["–", "5 min"]


def test_the_spec_is_shown_as_accepted_and_as_dropped(world: World) -> None:  # noqa: F811
    job_id = world.job(State.RUNNING, steps=3)
    accepted = visit("monitor", job=job_id, view="spec").code[0].value
    dropped = visit("monitor", job=job_id, view="spec", spec="dropped").code[0].value
    assert "learning_rate" in accepted
    assert "learning_rate" not in dropped


def test_events_and_data_have_their_tabs(world: World) -> None:  # noqa: F811
    job_id = world.job(State.RUNNING, steps=3)
    run = world.home.run(job_id)
    durable.append_line(run.events, {"event": "note", "t": "x", "words": "the disk is slow"})
    table = table_of(visit("monitor", job=job_id, view="events"), "what")
    assert table["what"].tolist()[0] == "The disk is slow"
    run.data.mkdir()
    report = {"rows": 10, "usable_rows": 9, "problem_counts": {}, "problems": [], "notices": [NASTY], "blocked": None}
    durable.write_json(run.data / "check.json", report)
    text = said(visit("monitor", job=job_id, view="data"))
    assert "9 of 10 rows can be trained on" in text
    assert "](javascript" not in text


ROWS = [
    {"step": 0, "prompt_index": 0, "prompt": "Who?", "base": "I am sorry.", "answer": None, "reference": "Me."},
    {"step": 10, "prompt_index": 0, "prompt": "Who?", "answer": "You", "ended_by": "length", "tokens": 3},
    {"step": 20, "prompt_index": 0, "prompt": "Who?", "answer": NASTY, "ended_by": "stop", "tokens": 9},
    {"step": 20, "prompt_index": 0, "prompt": "Who?", "answer": "Me.", "ended_by": "stop", "tokens": 2, "attempt": 2},
]


def test_sample_answers_stand_beside_the_base(world: World) -> None:  # noqa: F811
    job_id = world.job(State.RUNNING, steps=30)
    for row in ROWS:
        durable.append_line(world.home.run(job_id).samples, row)
    app = visit("monitor", job=job_id)
    texts = [text.value for text in app.text]
    assert texts == ["Who?", "I am sorry.", "Me.", "Me."], "prompt, base, newest, reference"
    earlier = visit("monitor", job=job_id, at="10")
    assert "You" in [text.value for text in earlier.text]
    assert "Cut off at its longest length" in said(earlier)


def test_sample_answers_that_are_not_there_say_how_to_ask_for_them(world: World) -> None:  # noqa: F811
    text = said(visit("monitor", job=world.job(State.DONE, steps=30), view="answers"))
    assert "“Sample prompts” on Train, under Evaluation" in text


def test_rows_of_samples_that_are_damaged_are_passed_over() -> None:
    found = samples.collect([*ROWS, {}, {"prompt_index": "x"}, {"prompt_index": 1, "step": 1}, {"step": None}])
    assert [(prompt.index, samples.steps([prompt])) for prompt in found] == [(0, [10, 20])]
    assert found[0].at(15) == (10, samples.Answer("You", True, 3))
    assert found[0].at(5) is None
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]
    assert samples.collect([{"prompt_index": 0, "step": 1, "prompt": turns, "answer": "x"}])[0].text == "Ho"


# ---- a job that answers


def test_a_generate_job_shows_its_answers(world: World) -> None:  # noqa: F811
    job_id = world.job(State.RUNNING, "ask the tickets")
    run = world.home.run(job_id)
    (token,) = [path for path in world.home.state(State.RUNNING).iterdir() if job_id in path.name]
    durable.write_json(token, durable.read_json(token) | {"kind": "generate"})
    for ask in range(3):
        row = {"ask": ask, "who": "base", "prompt": f"prompt {ask}", "text": f"answer {ask}", "tokens": 5}
        durable.append_line(run.answers, {"v": 1, "t": time.time(), **row, "done": True, "ended_by": "stop"})
        metrics.Writer(run.metrics, 1).write(step=ask + 1, total_steps=9, tokens_per_s=90.0, host_mem_bytes=2.0e9)
    app = visit("monitor", job=job_id)
    assert figures(app)["Answered"] == "3"
    assert [text.value for text in app.text] == ["answer 2", "answer 1", "answer 0"]
    assert not app.get("vega_lite_chart")
