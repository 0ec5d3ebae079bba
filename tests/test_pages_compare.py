"""Compare: colours that stay, one table for the chart, a verdict by stated rules, what differs, and harmless CSV."""

import csv
import io
import json
import math
from typing import Any

import numpy as np
import pytest
from test_pages_app import NASTY, World, said, visit
from test_pages_app import world as world

from pages.parts.compare import contest, dossier, overlay, overlay_chart
from pages.parts.compare.dossier import Dossier
from pages.parts.run import series
from pages.parts.run.bulk import parse
from pages.parts.run.columns import Columns, Growing
from spool.protocol import durable
from spool.protocol.home import State
from spool.protocol.jobs import Job

A, B, C = (f"01K0000{i}ABCDEFGHJKMNPQRSTV" for i in range(3))


def curve(losses: dict[int, float], evals: dict[int, float] | None = None, **fields: float) -> Columns:
    rows = [
        {"step": step, "attempt": 1, "t": 1000.0 + 2 * step, "loss": loss, **fields} for step, loss in losses.items()
    ]
    rows += [
        {"step": step, "attempt": 1, "t": 1000.0 + 2 * step, "eval_loss": loss} for step, loss in (evals or {}).items()
    ]
    rows.sort(key=lambda row: row["step"])
    growing = Growing()
    growing.append(parse("".join(json.dumps(row) + "\n" for row in rows).encode()))
    return growing.snapshot()


def run(job_id: str = A, eval_loss: float | None = None, judge: str | None = "rows", **parts: Any) -> Dossier:
    result = {"eval_loss": eval_loss}
    settings, data = parts.get("settings", {}), parts.get("data", {})
    return Dossier(Job(job_id, job_id, "train", "done"), settings, data, result=result, eval_rows_hash=judge)


# ---- colours and addresses


def test_a_run_keeps_its_colour_whoever_comes_and_goes() -> None:
    first = overlay.slots(["a", "b", "c"], {})
    assert first == {"a": 0, "b": 1, "c": 2}
    assert overlay.slots(["a", "c"], first) == {"a": 0, "c": 2}
    assert overlay.slots(["c", "d", "a"], {"a": 0, "c": 2}) == {"c": 2, "d": 1, "a": 0}
    assert len(overlay.slots([str(i) for i in range(20)], {})) == overlay.MOST_RUNS


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        (None, []),
        ("", []),
        (f"{A},{B}", [A, B]),
        (f" {A.lower()} ,,{A},", [A]),
        (",".join("abcdefghij"), list("ABCDEFGH")),
    ],
)
def test_the_address_names_at_most_eight_each_once(text: str | None, ids: list[str]) -> None:
    assert overlay.asked(text) == ids


# ---- the table of the chart


def test_the_chart_draws_raw_trend_and_evaluations_in_one_table() -> None:
    curves = {0: curve({1: 3.0, 2: 2.0, 3: 1.0}, {3: 1.5}), 2: curve({2: 4.0, 4: 2.0}, {4: 0.5})}
    table = overlay.table(curves, "step", 0.0)
    assert list(table.columns) == ["run", "x", "loss", "trend", "eval_loss", "at", "best"]
    drawn = table[table.run == "r0"].dropna(subset="loss")
    assert drawn[["x", "loss", "trend"]].values.tolist() == [[1, 3, 3], [2, 2, 2], [3, 1, 1]]
    tested = table.dropna(subset="eval_loss")
    assert tested[["run", "x", "eval_loss"]].values.tolist() == [["r0", 3, 1.5], ["r2", 4, 0.5]]
    assert table.dropna(subset="best")[["run", "best"]].values.tolist() == [["r2", 0.5]]


def test_all_runs_are_read_off_at_the_same_places_and_only_where_they_have_been() -> None:
    table = overlay.table({0: curve({0: 4.0, 10: 2.0}), 1: curve({5: 1.0, 20: 1.0})}, "step", 0.0)
    read = table.dropna(subset="at")
    first, second = (read[read.run == run] for run in ("r0", "r1"))
    assert (first.x.min(), first.x.max(), second.x.max()) == (0, pytest.approx(10, abs=0.2), 20)
    assert second.x.min() >= 5
    middle = first.iloc[(first.x - 5).abs().argmin()]
    assert middle["at"] == pytest.approx(4.0 - 0.2 * middle.x, abs=1e-5)
    assert set(first[first.x >= 5].x) <= set(second.x)


def test_the_whole_curve_is_smoothed_before_it_is_thinned() -> None:
    losses = {step: float(step % 7) for step in range(1, 20_001)}
    table = overlay.table({0: curve(losses)}, "step", 0.01, points=500)
    drawn = table.dropna(subset="loss")
    assert len(drawn) <= 520
    whole = series.smooth(list(losses.values()), 200.0)
    for _, row in drawn.iloc[::50].iterrows():
        assert row.trend == pytest.approx(whole[int(row.x) - 1], rel=1e-5)


def test_a_logarithm_leaves_out_what_it_cannot_show() -> None:
    columns = curve({1: 1.0, 2: 0.0, 3: 0.5}, {2: 0.0, 3: 0.4})
    table = overlay.table({0: columns}, "step", 0.0, log=True)
    assert table.loss.dropna().tolist() == [1.0, 0.5]
    assert table.eval_loss.dropna().tolist() == pytest.approx([0.4])


def test_runs_without_rows_or_without_the_axis_draw_nothing() -> None:
    assert overlay.table({}, "step", 0.0).empty
    assert overlay.table({0: Columns()}, "step", 0.1).empty
    table = overlay.table({0: curve({1: 1.0}), 1: curve({1: 1.0}, tokens=50.0)}, "tokens", 0.0)
    assert set(table.run) == {"r1"}
    assert overlay.axes([curve({1: 1.0}, tokens=5.0)]) == ["step", "time", "tokens"]
    assert overlay.axes([Columns()]) == ["step"]


def test_the_chart_follows_the_runs_by_its_data_only() -> None:
    def spec(last: int) -> dict[str, Any]:
        curves = {0: curve(dict.fromkeys(range(1, last), 1.0), {2: 1.0}), 3: curve({1: 2.0, 2: 1.0})}
        drawn = overlay_chart.chart(overlay.table(curves, "step", 0.1), {0: "a", 3: '"]+x'}, "step", "both", False)
        document = json.loads(drawn.to_json())
        del document["datasets"], document["data"]
        return document

    assert spec(30) == spec(90)
    assert json.dumps('"]+x') in spec(30)["layer"][0]["encoding"]["color"]["legend"]["labelExpr"]


# ---- taking along


def test_a_table_for_a_spreadsheet_runs_nothing_and_keeps_numbers() -> None:
    text = overlay.table_csv(["=a", "b"], [["=1+1", -0.5], ["@x", True], ["-5", None], ["\tx", 3], ["+49", "plain"]])
    rows = list(csv.reader(io.StringIO(text.decode("utf-8-sig"))))
    assert rows == [["'=a", "b"], ["'=1+1", "-0.5"], ["'@x", "true"], ["-5", ""], ["'\tx", "3"], ["'+49", "plain"]]


def test_curves_as_a_file_hold_every_row_and_no_formula() -> None:
    data = overlay.curves_csv({(A, "=cmd()"): curve({1: 2.5, 2: 0.1}, {2: 0.25}, tokens=64.0)})
    rows = list(csv.DictReader(io.StringIO(data.decode("utf-8-sig"))))
    assert [row["name"] for row in rows] == ["'=cmd()"] * 3
    assert [(row["step"], row["loss"], row["eval_loss"]) for row in rows] == [
        ("1", "2.5", ""), ("2", "0.1", ""), ("2", "", "0.25"),
    ]  # fmt: skip
    assert [float(row["seconds"]) for row in rows] == [0.0, 2.0, 2.0]
    assert overlay.curves_csv({}).decode("utf-8-sig") == ""


# ---- the verdict and what differs


def test_the_lowest_eval_loss_wins_and_what_it_has_is_named() -> None:
    best = run(A, 0.4, settings={"/lora/rank": 32, "/train/seed": 1})
    second = run(B, 0.5, settings={"/lora/rank": 16, "/train/seed": 1})
    found = contest.judge([run(C, 0.9), second, best, run("x")])
    assert (found.kind, found.best, found.second) == ("ahead", best, second)
    assert found.lead == pytest.approx(0.2)
    assert found.changed == (("/lora/rank", 32, 16),)
    assert (found.more_changed, found.other_judge, found.other_data) == (0, False, False)


@pytest.mark.parametrize(("high", "kind"), [(1.0102, "ahead"), (1.01, "level"), (1.0, "level")])
def test_less_than_a_hundredth_apart_is_level(high: float, kind: str) -> None:
    assert contest.judge([run(A, 1.0), run(B, high)]).kind == kind


def test_one_alone_is_not_the_best() -> None:
    assert contest.judge([run(A, 1.0), run(B)]).kind == "none"
    assert dossier.best([run(A, 1.0), run(B, math.nan)]) is None


def test_losses_of_other_rows_are_not_compared_in_silence() -> None:
    found = contest.judge(
        [run(A, 0.4, judge="x", data={"version": "1"}), run(B, 0.5, judge="y", data={"version": "2"})]
    )
    assert (found.other_judge, found.other_data) == (True, True)
    assert not contest.judge([run(A, 0.4, judge=None), run(B, 0.5)]).other_judge


def test_only_what_differs_is_listed_unless_all_is_asked_for() -> None:
    both = [run(settings={"/a": 1, "/b": "x"}), run(settings={"/a": 1.0, "/b": "y", "/c": None}), run(settings={})]
    assert dossier.differing(both, "settings") == [("/b", ["x", "y", None])]
    everything = dossier.differing(both, "settings", everything=True)
    assert [name for name, _ in everything] == ["/a", "/b", "/c"]


def test_a_spec_lies_flat() -> None:
    spec = {"lora": {"rank": 8, "target_modules": ["q", "k"]}, "limits": {"early": {"patience": 3}}, "mapping": {}}
    assert dict(dossier.flat(spec)) == {
        "/lora/rank": 8, "/lora/target_modules": "q, k", "/limits/early/patience": 3, "/mapping": None,
    }  # fmt: skip


def test_tries_are_followed_back_and_circles_end() -> None:
    jobs = {each: Job(each, each, "train", "done") for each in (A, B, C)}
    jobs[C].retry_of, jobs[B].retry_of = B, A
    assert [job.id for job in dossier.chain(jobs, jobs[C])] == [A, B]
    jobs[A].retry_of = C
    assert [job.id for job in dossier.chain(jobs, jobs[C])] == [A, B]


# ---- the page


def finished(world: World, name: str, eval_loss: float, rank: int = 16, version: str = "aa") -> str:
    job_id = world.job(State.DONE, name, steps=60)
    home_run = world.home.run(job_id)
    spec = durable.read_json(home_run.spec)
    spec["lora"]["rank"] = rank
    durable.write_json(home_run.spec, spec)
    result = durable.read_json(home_run.result)
    result["result"] |= {"eval_loss": eval_loss, "trained_s": 90, "tokens": 9000}
    durable.write_json(home_run.result, result)
    (home_run.root / "data").mkdir()
    prepared = {"dataset": {"reference": "tickets", "version": version}, "files": {"eval.arrow": {"sha256": version}}}
    durable.write_json(home_run.data / "prepared.json", prepared)
    return job_id


@pytest.mark.usefixtures("world")
def test_nothing_to_compare_leads_to_train() -> None:
    assert "Nothing to compare yet" in said(visit("compare"))


def test_two_runs_are_judged_drawn_and_set_against_each_other(world: World) -> None:
    one, two = finished(world, "first", 0.30), finished(world, "second", 0.20, rank=64)
    app = visit("compare", jobs=f"{one},{two}")
    text = said(app).replace("\\", "")
    assert "**second** came out best: eval loss 0.2000, 33 % below **first**" in text
    assert "LoRA rank 64 instead of 16" in text
    assert len(app.get("vega_lite_chart")) == 1
    outcomes, differing = app.dataframe[0].value, app.dataframe[1].value
    assert outcomes["run"].tolist() == ["second", "first"]
    assert [state[0] for state in outcomes["state"]] == ["Best", "Done"]
    assert outcomes["tokens_per_s"].tolist() == [100.0, 100.0]
    assert "memory" not in outcomes, "no run has told it"
    assert differing[["field", "r0", "r1"]].values.tolist() == [["LoRA rank", "64", "16"]]


def test_all_fields_on_demand(world: World) -> None:
    app = visit("compare", jobs=f"{finished(world, 'a', 0.3)},{finished(world, 'b', 0.2)}")
    assert "What differs is chance" in said(app)
    app = app.toggle(key="all").set_value(True).run()
    assert "Learning rate" in app.dataframe[1].value["field"].tolist()


def test_other_evaluation_rows_are_said(world: World) -> None:
    app = visit("compare", jobs=f"{finished(world, 'a', 0.3, version='x')},{finished(world, 'b', 0.2, version='y')}")
    assert "judged by different rows" in app.warning[-1].value
    assert "learned from different rows" in said(app)


def test_the_address_says_which_and_how(world: World) -> None:
    ids = [finished(world, "a", 0.3), finished(world, "b", 0.2)]
    app = visit("compare", jobs=ids[1], show="eval", x="time", smooth="10")
    assert app.multiselect(key="compare-pick").value == [ids[1]]
    assert app.session_state["choice-show"] == "eval"
    assert app.session_state["choice-x"] == "time"
    assert app.session_state["choice-smooth"] == "10"
    layers = json.loads(app.get("vega_lite_chart")[0].proto.spec)["layer"]
    assert [layer["name"] for layer in layers] == ["line_eval_loss", "points_eval_loss", "points_best", "ruler"]
    app.multiselect(key="compare-pick").set_value(ids).run()
    assert app.query_params["jobs"] in (",".join(ids), [",".join(ids)])


@pytest.mark.parametrize("wrong", ["nothing", "../../etc/passwd", "<b>x</b>", ",,,"])
def test_addresses_that_name_no_run(wrong: str, world: World) -> None:
    one = finished(world, "a", 0.3)
    app = visit("compare", jobs=f"{wrong},{one}", x="<x>", smooth="-1", show="none")
    assert app.multiselect(key="compare-pick").value == [one]
    assert app.session_state["choice-x"] == "step"
    assert not app.exception


def test_runs_that_wait_or_were_refused_are_not_offered(world: World) -> None:
    world.job(State.QUEUED)
    world.rejected()
    running = world.job(State.RUNNING, steps=5)
    assert visit("compare").multiselect(key="compare-pick").options
    app = visit("compare", jobs=running)
    assert len(app.get("vega_lite_chart")) == 1
    assert app.dataframe[0].value["steps"].tolist() == [5.0]


def test_a_run_without_numbers_says_so(world: World) -> None:
    job_id = world.job(State.RUNNING, steps=3)
    world.home.run(job_id).metrics.unlink()
    app = visit("compare", jobs=job_id)
    assert "has written a number" in said(app)
    assert not app.get("vega_lite_chart")


def test_names_that_people_wrote_show_as_they_are(world: World) -> None:
    one, two = finished(world, NASTY[:110], 0.3), finished(world, NASTY[:110], 0.2)
    text = said(visit("compare", jobs=f"{one},{two}")) + said(visit("compare"))
    for raw in ("<img", "[x](", "![](", "**b**", "$x$", ":material/home:"):
        assert raw not in text.replace(r"\<img", "").replace(r"\[x\]", "")


def test_broken_files_take_no_other_run_away(world: World) -> None:
    one, two = finished(world, "a", 0.3), finished(world, "b", 0.2)
    for path in world.home.run(one).root.rglob("*.json*"):
        path.write_bytes(b'{"step": 1, \xff')
    app = visit("compare", jobs=f"{one},{two}")
    assert "b" in app.dataframe[0].value["run"].tolist()


def test_a_smoothed_curve_begins_at_its_first_value() -> None:
    table = overlay.table({0: curve({step: 5.0 if step == 1 else 1.0 for step in range(1, 101)})}, "step", 0.1)
    trend = table.trend.dropna().to_numpy()
    assert trend[0] == 5.0
    assert np.all(np.diff(trend) < 0)
