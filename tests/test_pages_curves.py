"""The engine for curves: rows become columns, read once, resumed steps counted once; series and marks, exact."""

import json
import math
import random
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pages.parts import texts
from pages.parts.run import bulk, charts, curves, marks, series
from pages.parts.run.columns import Columns, Growing
from spool.protocol import metrics


def written(path: Path, rows: list[dict[str, Any]], attempt: int = 1) -> Path:
    with open(path, "ab") as file:
        for row in rows:
            file.write(json.dumps(metrics.finite({"v": 1, "attempt": attempt, **row})).encode() + b"\n")
    return path


def columns(*rows: dict[str, Any]) -> Columns:
    growing = Growing()
    growing.append(bulk.parse(b"".join(json.dumps(metrics.finite(row)).encode() + b"\n" for row in rows)))
    return growing.snapshot()


def steps(found: Columns, name: str = "loss") -> list[int]:
    return [int(step) for step in found.at("step", found.rows(name))]


# ---- lines as columns


def test_lines_become_columns_with_gaps() -> None:
    block = bulk.parse(b'{"step":1,"loss":2,"x":"y"}\n{"step":2,"eval_loss":0.5}\n')
    assert block.columns["step"].tolist() == [1, 2]
    assert block.columns["loss"][0] == 2
    assert np.isnan(block.columns["loss"][1])
    assert "grad_norm" not in block.columns
    assert (block.broken, block.nonfinite) == (0, [])


@pytest.mark.parametrize(
    "line",
    [b"null", b"7", b'"text"', b"[]", b"{", b'{"step": 1, \xff', b'{"step":1}null', b'{"step":1}{"step":2}'],
)  # fmt: skip
def test_a_line_that_is_no_object_is_counted_and_passed_over(line: bytes) -> None:
    """A bare null ends the process in pyarrow 26: it must never get there."""
    block = bulk.parse(b'{"step":1,"loss":1}\n' + line + b'\n\n{"step":2,"loss":3}\n')
    assert block.columns["loss"].tolist() == [1, 3]
    assert block.broken == 1


@pytest.mark.parametrize("value", ["true", '"1.5"', "{}", "[1]", "null"])
def test_what_is_no_number_is_none(value: str) -> None:
    block = bulk.parse(f'{{"step":1,"loss":{value}}}\n{{"step":2,"loss":1}}\n'.encode())
    assert np.isnan(block.columns["loss"][0])
    assert block.columns["loss"][1] == 1


def test_what_was_not_finite_is_named_by_its_row() -> None:
    lines = b'{"loss":9}\n{"step":1,"loss":2}\n{"step":2,"loss":null,"nonfinite":{"loss":"nan"}}\n{"step":-1}\n'
    block = bulk.parse(lines)
    assert block.columns["step"].tolist() == [1, 2]
    assert block.nonfinite == [(1, "loss", "nan")]


def test_both_ways_to_parse_give_the_same_numbers_also_of_damaged_lines() -> None:
    noise = random.Random(4)
    rows = [{"v": 1, "t": 17e8 + i, "step": i, "loss": 1 / (i + 1), "tokens": i * 10**7} for i in range(40)]
    whole = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
    fast = 0
    for _ in range(400):
        data = bytearray(whole)
        for _ in range(noise.choice([0, 1, 3])):
            data[noise.randrange(len(data) - 1)] = noise.choice(b'{}[],:"0n\\ e-.x')
        text = bytes(data[: data.rfind(b"\n") + 1])
        arrow, lines = bulk._by_arrow(text), bulk._by_line(text)
        if arrow is None:
            continue
        fast += 1
        for name in ("step", "loss", "tokens"):
            got = arrow.columns.get(name, np.full(len(arrow), np.nan))
            np.testing.assert_array_equal(got, lines.columns[name], err_msg=repr(text))
    assert fast > 50


# ---- attempts


def test_what_a_later_attempt_does_again_counts_once() -> None:
    first = [{"step": step, "loss": step, "attempt": 1} for step in range(1, 8)]
    again = [{"step": step, "loss": 10 * step, "attempt": 2} for step in (4, 5)]
    found = columns(*first, *again)
    assert found.at("loss", found.rows("loss")).tolist() == [1, 2, 3, 40, 50], "6 and 7 were lost with attempt 1"
    assert found.repeated
    assert len(found.rows("loss", every=True)) == 9
    assert found.latest("loss") == 50


def test_an_evaluation_that_was_owed_leaves_the_training_row_of_its_step() -> None:
    found = columns(
        {"step": 3, "loss": 1.0, "attempt": 1},
        {"step": 4, "loss": 0.9, "attempt": 1},
        {"step": 3, "eval_loss": 2.0, "attempt": 2},
    )
    assert steps(found) == [3, 4]
    found = columns(
        {"step": 3, "loss": 1.0, "attempt": 1},
        {"step": 4, "loss": 0.9, "attempt": 1},
        {"step": 4, "eval_loss": 0.8, "attempt": 1},
        {"step": 3, "eval_loss": 2.0, "attempt": 2},
        {"step": 4, "loss": 0.7, "attempt": 2},
    )
    assert found.at("loss", found.rows("loss")).tolist() == [1.0, pytest.approx(0.7)]
    assert found.at("eval_loss", found.rows("eval_loss")).tolist() == [2.0]


def test_of_equal_steps_the_last_one_stands_and_disorder_is_ordered() -> None:
    found = columns({"step": 2, "loss": 5}, {"step": 1, "loss": 6}, {"step": 2, "loss": 7})
    assert found.at("loss", found.rows("loss")).tolist() == [6, 7]


def test_rows_in_pieces_give_what_they_give_at_once() -> None:
    noise = random.Random(1)
    rows, step = [], 0
    for attempt in range(1, 6):
        step = max(0, step - noise.randrange(9))
        for _ in range(noise.randrange(1, 30)):
            step += 1
            rows.append({"step": step, "loss": noise.random(), "attempt": attempt})
            if step % 7 == 0:
                rows.append({"step": step, "eval_loss": noise.random(), "attempt": attempt})
    whole = columns(*rows)
    growing = Growing()
    for row in rows:
        growing.append(bulk.parse(json.dumps(row).encode() + b"\n"))
    pieces = growing.snapshot()
    for name in ("loss", "eval_loss"):
        np.testing.assert_array_equal(whole.rows(name), pieces.rows(name))
        np.testing.assert_array_equal(whole.at(name, whole.rows(name)), pieces.at(name, pieces.rows(name)))


# ---- files


def test_a_file_is_read_on_and_begun_again_where_it_was_replaced(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    store = curves.Store()
    assert store.look(path).columns.size == 0
    written(path, [{"step": 1, "loss": 3.0}, {"step": 2, "loss": 2.0}])
    seen = store.look(path)
    assert store.look(path).columns is seen.columns, "nothing came: nothing is made anew"
    with open(path, "ab") as file:
        file.write(b'{"step": 3, "lo')
    assert steps(store.look(path).columns) == [1, 2], "a line that is not whole waits"
    with open(path, "ab") as file:
        file.write(b'ss": 1.5}\nrot\n')
    look = store.look(path)
    assert (steps(look.columns), look.broken) == ([1, 2, 3], 1)
    assert steps(seen.columns) == [1, 2], "what a page holds does not change under it"
    path.unlink()
    written(path, [{"step": 9, "loss": 1.0}])
    look = store.look(path)
    assert (steps(look.columns), look.broken) == ([9], 0)
    path.write_bytes(b"")
    assert store.look(path).columns.size == 0


def test_an_endless_line_takes_no_memory_and_counts_once(tmp_path: Path) -> None:
    path = written(tmp_path / "m", [{"step": 1, "loss": 1.0}])
    with open(path, "ab") as file:
        file.write(b"x" * (3 * bulk.BLOCK_BYTES) + b"\n")
    written(path, [{"step": 2, "loss": 1.0}])
    look = curves.Store().look(path)
    assert (steps(look.columns), look.broken) == ([1, 2], 1)


def test_a_long_file_is_drawn_from_a_sample_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = 30_000
    path = written(tmp_path / "m", [{"step": i, "loss": i / rows, "t": 1.0 * i} for i in range(1, rows + 1)])
    monkeypatch.setattr(curves, "AT_ONCE_BYTES", 100_000)
    monkeypatch.setattr(curves, "SAMPLE_PLACES", 100)
    store = curves.Store()
    with curves._one_reader:
        first = store.look(path)
    assert first.sample
    assert first.reading
    assert 1000 < first.columns.size < rows
    assert steps(first.columns)[-1] == rows, "the end is always there"
    deadline = time.monotonic() + 20
    while (look := store.look(path)).reading:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert not look.sample
    assert steps(look.columns) == list(range(1, rows + 1))
    written(path, [{"step": rows + 1, "loss": 0.0}])
    assert store.look(path).columns.latest("step") == rows + 1


def test_what_is_too_large_stays_a_sample_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "m", [{"step": i, "loss": 1.0} for i in range(20_000)])
    monkeypatch.setattr(curves, "TOO_LARGE_BYTES", 1000)
    monkeypatch.setattr(curves, "SAMPLE_PLACES", 100)
    look = curves.Store().look(path)
    assert look.sample
    assert not look.reading
    assert 0 < look.columns.size < 20_000


def test_twenty_readers_read_the_file_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "m", [{"step": i, "loss": 1.0} for i in range(20_000)])
    parsed = []
    parse = bulk.parse
    monkeypatch.setattr(curves, "parse", lambda data: parsed.append(len(data)) or parse(data))
    store, found = curves.Store(), []
    threads = [threading.Thread(target=lambda: found.append(store.look(path).columns)) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(parsed) == path.stat().st_size
    assert len({id(each) for each in found}) == 1


def test_the_store_keeps_within_its_bytes_and_forgets_the_oldest(tmp_path: Path) -> None:
    paths = [written(tmp_path / f"m{i}", [{"step": s, "loss": 1.0} for s in range(2000)]) for i in range(4)]
    one = curves.Store()
    one.look(paths[0])
    store = curves.Store(limit_bytes=int(2.5 * one.nbytes))
    for path in paths:
        assert steps(store.look(path).columns)[-1] == 1999
    assert store.nbytes <= 2.5 * one.nbytes
    assert list(store._files) == paths[2:]


# ---- series


def test_smoothing_starts_at_the_first_value_and_follows_a_constant() -> None:
    assert series.smooth([2.0, 2.0, 2.0], 10).tolist() == pytest.approx([2.0, 2.0, 2.0])
    assert series.smooth([0.0, 1.0], 2).tolist() == pytest.approx([0.0, 1.0 * 0.5 / 0.75])
    assert series.smooth([3.0, 1.0], 1).tolist() == [3.0, 1.0]


def test_smoothing_is_the_debiased_average_it_says() -> None:
    noise = random.Random(2)
    values, weight, average, expected = [noise.random() for _ in range(300)], 1 - 1 / 12, 0.0, []
    for count, value in enumerate(values, start=1):
        average = weight * average + (1 - weight) * value
        expected.append(average / (1 - weight**count))
    assert series.smooth(values, 12).tolist() == pytest.approx(expected)


def test_the_window_is_a_share_of_the_whole_run() -> None:
    assert series.window(0.1, 100, 100, 400) == 40
    assert series.window(0.1, 50, 100, 400) == pytest.approx(20), "one row each two steps"
    assert series.window(0.1, 200, None, None) == 20
    assert series.window(0.1, 19, 19, 400) == 1, "too short to average"


def test_thinning_keeps_a_lone_spike_and_both_ends() -> None:
    values = np.ones(100_000)
    values[54_321] = 9.0
    kept = series.thin(np.arange(100_000.0), values, 2000)
    assert len(kept) <= 2000
    assert {0, 54_321, 99_999} <= set(kept.tolist())
    assert series.thin(values[:2000], values[:2000], 2000).tolist() == list(range(2000))


def run(count: int, **more: Any) -> Columns:
    rows = [
        {"step": i, "loss": 3 / i, "learning_rate": 1e-4 / i, "t": 10.0 * i, "tokens": 100 * i, "epoch": i / 10} | more
        for i in range(1, count + 1)
    ]
    return columns(*rows, {"step": count, "eval_loss": 0.5, "t": 10.0 * count + 5})


def test_the_loss_table_holds_training_evaluation_and_marks() -> None:
    table = series.loss_table(run(10), marks=[(0, 5, 0), (1, 7, 2)])
    assert table["x"].tolist() == [1, 2, 3, 4, 5, 5, 6, 7, 7, 8, 9, 10]
    assert table["mark"].tolist() == [-1] * 5 + [0, -1, -1, 1, -1, -1, -1]
    assert table["which"].max() == 2
    drawn = table[table["mark"] < 0]
    assert drawn["loss"].tolist() == pytest.approx(drawn["trend"].tolist())
    assert drawn["eval_loss"].notna().tolist() == [False] * 9 + [True], "in the row of its step"
    long = series.loss_table(run(50_000))
    assert len(long) <= series.MAX_POINTS + 1
    assert long.memory_usage(index=False).sum() <= 40_000, "bytes a refresh"
    assert series.loss_table(Columns()).empty
    assert table["tip"].tolist() == (table["mark"] < 0).tolist(), "a short run tells every number"
    assert long["tip"].sum() <= series.TIPS + 1, "the newest evaluation is told in any case"
    assert long.loc[long["eval_loss"].notna(), "tip"].all()


def test_a_part_of_the_run_is_cut_after_smoothing() -> None:
    found = run(1000)
    whole, tenth = (series.loss_table(found, shown=shown) for shown in ("all", "tenth"))
    assert tenth["x"].min() == pytest.approx(900.1, abs=1)
    same = whole[whole["x"] >= tenth["x"].min()]
    assert tenth["trend"].tolist() == pytest.approx(same["trend"].tolist())


@pytest.mark.parametrize(
    ("axis", "last", "evaluated"), [("step", 10, 10), ("time", 90, 90), ("epoch", 1.0, 1.0), ("tokens", 1000, 1000)]
)
def test_axes(axis: str, last: float, evaluated: float) -> None:
    table = series.loss_table(run(10), axis)
    assert table["x"].max() == pytest.approx(last)
    assert table.loc[table["eval_loss"].notna(), "x"].tolist() == pytest.approx([evaluated])
    assert series.axes(run(10)) == ["step", "time", "epoch", "tokens"]
    assert series.axes(columns({"step": 1, "loss": 1.0})) == ["step"]


def test_time_counts_training_only() -> None:
    found = columns(
        {"step": 1, "loss": 1.0, "t": 100.0, "attempt": 1},
        {"step": 2, "loss": 1.0, "t": 110.0, "attempt": 1},
        {"step": 3, "loss": 1.0, "t": 120.0, "attempt": 1},
        {"step": 3, "loss": 1.0, "t": 90_000.0, "attempt": 2},
        {"step": 4, "loss": 1.0, "t": 90_010.0, "attempt": 2},
        {"step": 5, "loss": 1.0, "t": 90_005.0, "attempt": 2},
    )
    assert series.along(found, found.rows("loss"), "time").tolist() == [0, 10, 10, 20, 20]


def test_energy_is_power_over_time() -> None:
    def at(t: float, watts: float | None, attempt: int = 1) -> dict[str, Any]:
        return {"step": int(t), "loss": 1.0, "t": t, "attempt": attempt} | ({"gpu_power_w": watts} if watts else {})

    found = columns(at(0, 100), at(36, 300), at(72, 300), at(5000, 300), at(5001, 300, 2), at(5037, 100, 2))
    assert series.energy_wh(found) == pytest.approx(2 + 3 + 2), "neither the long gap nor the one between attempts"
    assert series.energy_wh(columns(at(1, None))) is None


def test_a_spark_is_short_and_leaves_gaps_out() -> None:
    assert series.spark([1.0, math.nan, 2.0, 3.0]) == [1.0, 2.0, 3.0]
    assert series.spark([1.0, 2.0]) == []
    assert series.spark(np.arange(96.0)) == [2 * i + 0.5 for i in range(48)]


def test_the_strip_reduces_each_field_in_its_own_way() -> None:
    rows = [
        {"step": i, "loss": 1.0, "learning_rate": 1.0 * i, "grad_norm": 9.0 if i == 3 else 1.0, "tokens_per_s": 1.0 * i,
         "host_mem_bytes": 1.0}
        for i in range(1, 9)
    ]  # fmt: skip
    table = series.strip_table(columns(*rows), points=2)
    assert table.to_dict("list") == {
        "x": [4, 8], "step": [4, 8], "learning_rate": [4, 8], "grad_norm": [9, 1], "tokens_per_s": [2.5, 6.5],
        "host_mem_bytes": [1, 1],
    }  # fmt: skip
    assert series.strip_fields(columns({"step": 1, "gpu_mem_bytes": 1.0, "host_mem_bytes": 1.0})) == ["gpu_mem_bytes"]
    assert series.strip_table(Columns()).empty


def test_attempts_apart_hold_every_row() -> None:
    found = columns(*({"step": s, "loss": 1.0, "attempt": a} for a, s in [(1, 1), (1, 2), (1, 3), (2, 2), (2, 3)]))
    table = series.attempts_table(found)
    assert table[["attempt", "step"]].values.tolist() == [[1, 1], [1, 2], [1, 3], [2, 2], [2, 3]]
    assert series.attempts_table(Columns()).empty


# ---- marks


def test_marks_stand_at_their_steps() -> None:
    rows = [{"step": s, "loss": 1.0, "t": 100.0 + s, "attempt": 1 + (s > 6)} for s in range(1, 11)]
    rows += [{"step": 4, "eval_loss": 0.5, "attempt": 1}, {"step": 8, "eval_loss": 0.7, "attempt": 2}]
    found = columns(*sorted(rows, key=lambda row: row["step"]))
    events = [
        {"event": "checkpoint", "step": 4},
        {"event": "checkpoint", "step": 4},
        {"event": "checkpoint", "step": 99},
        {"event": "checkpoint", "step": "x"},
        {"event": "ended_early", "t": 109.5},
    ]
    attempts = [{"attempt": 1, "outcome": "stalled"}, {"attempt": 2, "outcome": None}]
    assert marks.find(found, events, attempts) == [
        ("checkpoint", 4, 0), ("best", 4, 0), ("stalled", 6, 0), ("attempt", 7, 2), ("early", 9, 0),
    ]  # fmt: skip
    assert marks.find(Columns(), events) == []


def test_a_loss_that_is_no_number_is_marked_and_stands_for_diverged() -> None:
    found = columns({"step": 1, "loss": 1.0}, {"step": 2, "loss": math.nan}, {"step": 3, "loss": math.inf})
    assert marks.find(found, [], error_code="diverged") == [("not_finite", 2, 0)]
    assert marks.find(run(3), [], error_code="diverged")[-1] == ("diverged", 3, 0)


def test_of_very_many_checkpoints_some_are_marked_the_newest_among_them() -> None:
    events = [{"event": "checkpoint", "step": step} for step in range(1, 1001)]
    found = [step for kind, step, _ in marks.find(run(1000), events) if kind == "checkpoint"]
    assert len(found) == marks.MOST_CHECKPOINTS
    assert (found[0], found[-1]) == (1, 1000)


# ---- charts


@pytest.mark.parametrize("axis", series.AXES)
@pytest.mark.parametrize("log", [False, True])
def test_a_chart_names_each_of_its_parameters_and_knows_no_row(axis: str, log: bool) -> None:
    drawn = charts.loss(axis, 2000, log)
    assert [param["name"] for param in drawn["params"]] == ["zoom", "hover"]
    assert not {"data", "datasets", "config"} & set(drawn)
    whole = [layer["encoding"]["x"].get("scale", {}).get("domain") for layer in drawn["layer"]]
    assert whole == [[0, 2000] if axis == "step" else None] * len(whole)
    assert [param["name"] for param in charts.attempts(axis, 2000, log)["params"]] == ["zoom", "hover"]


def test_a_chart_is_drawn_on_a_canvas() -> None:
    for drawn in (charts.loss(), charts.attempts(), charts.strip(["grad_norm"])):
        assert drawn["usermeta"] == {"embedOptions": {"renderer": "canvas"}}


def test_a_chart_is_made_once_and_belongs_to_who_asked() -> None:
    charts.loss("step", 77)["layer"].clear()
    assert charts.loss("step", 77)["layer"]


def test_a_chart_speaks_the_readers_language(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "Best evaluation" in json.dumps(charts.loss())
    monkeypatch.setattr(texts, "_asked", lambda: "de")
    assert "Beste Auswertung" in json.dumps(charts.loss())


def test_the_strip_has_one_ruler_through_all_its_views() -> None:
    drawn = charts.strip(["learning_rate", "grad_norm"], "time", 100)
    (hover,) = drawn["params"]
    assert hover["views"] == ["ruler_learning_rate", "ruler_grad_norm"]
    assert [panel["layer"][1]["name"] for panel in drawn["vconcat"]] == hover["views"]
    assert set(charts.STRIP_FORMATS) == set(series.STRIP)


def test_every_mark_has_its_word() -> None:
    text = json.dumps(charts.loss())
    for word in ("Checkpoint", "Attempt", "Best evaluation", "Stopped early", "Not a number", "Diverged", "Stalled"):
        assert word in text
