"""Recipes: each step, replay, splits that leak nothing, mixtures, corrected rejects, exports, deletion."""

import csv
import io
import re
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spool.data import inspect
from spool.data.keeping import diff, export, forget, keep, recipe, rows, splitting, steps
from spool.data.keeping.rows import StoredRecords
from spool.data.reading.limits import DEFAULT, Limits
from spool.data.reading.table import Record
from spool.protocol import durable
from spool.protocol.errors import DataError, NotFound
from spool.protocol.home import Home, State
from spool.protocol.states import Token, Tokens

CSV = b"id,prompt,completion\n1,What is a?,A\n2,What is b?,B\n3,What is a?,A\n4,What is d?,\n5,What is e?,E\n"
JOB = "01JZZZZZZZZZZZZZZZZZZZZZZ0"


def lines(path: Path) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]


def jsonl(values: list[dict[str, Any]]) -> bytes:
    return b"".join(orjson.dumps(value) + b"\n" for value in values)


def store(home: Home, name: str, values: list[dict[str, Any]]) -> keep.Stored:
    return keep.add(home, name, f"{name}.jsonl", jsonl(values))


def questions(number: int, first: int = 0) -> list[dict[str, Any]]:
    return [{"prompt": f"What is {n}?", "completion": f"It is {n}."} for n in range(first, first + number)]


def applied(home: Home, parent: keep.Stored, *steps: dict[str, Any]) -> list[dict[str, Any]]:
    return lines(recipe.derive(home, "made", [parent.reference], list(steps)).path)


@pytest.fixture
def tickets(home: Home) -> keep.Stored:
    return keep.add(home, "tickets", "tickets.csv", CSV)


def test_a_derived_version_knows_where_it_comes_from(home: Home, tickets: keep.Stored) -> None:
    made = recipe.derive(home, "tickets", ["tickets"], [{"step": "dedupe"}, {"step": "keep_usable"}])
    assert [row["id"] for row in lines(made.path)] == ["1", "2", "5"]
    assert made.parents == [tickets.reference]
    assert [each["step"] for each in made.recipe] == ["dedupe", "keep_usable"]
    assert made.recipe[0]["threshold"] == 0.85, "defaults are written out"
    assert (made.rows, made.format, made.left_out) == (3, "prompt_completion", {})
    assert keep.find(home, "tickets") == made, "the newest version is what the name stands for"
    assert keep.find(home, tickets.reference) == tickets


def test_the_same_recipe_gives_the_same_version(home: Home, tickets: keep.Stored) -> None:
    several = [{"step": "cap", "rows": 2, "seed": 3}]
    first = recipe.derive(home, "few", ["tickets"], several)
    assert recipe.derive(home, "few", [tickets.reference], several).version == first.version
    assert len(keep.versions(home, "few")) == 1


def test_replay_brings_deleted_bytes_back(home: Home, tickets: keep.Stored) -> None:
    made = recipe.derive(home, "few", ["tickets"], [{"step": "cap", "rows": 2, "seed": 3}])
    data = made.path.read_bytes()
    newer = recipe.derive(home, "few", ["tickets"], [{"step": "cap", "rows": 1}])
    assert recipe.replay(home, made) == made
    assert keep.find(home, "few") == newer, "a replay is no new upload"
    forget.delete(home, made.reference)
    with pytest.raises(NotFound, match="was deleted on 20"):
        keep.resolve(home, made.reference)
    again = recipe.replay(home, made)
    assert (again.version, again.path.read_bytes(), again.deleted_at) == (made.version, data, None)
    with pytest.raises(DataError, match="was uploaded"):
        recipe.replay(home, tickets)


def test_a_changed_parent_is_an_error(home: Home, tickets: keep.Stored) -> None:
    made = recipe.derive(home, "few", ["tickets"], [{"step": "cap", "rows": 2}])
    tickets.path.write_bytes(CSV.replace(b"A", b"X"))
    for use in (
        lambda: recipe.derive(home, "more", ["tickets"], [{"step": "cap", "rows": 2}]),
        lambda: recipe.replay(home, made),
        lambda: keep.verified(home, tickets.reference),
    ):
        with pytest.raises(DataError, match="changed on the disk") as error:
            use()
        assert error.value.code == "dataset_changed"
    tickets.path.unlink()
    with pytest.raises(DataError, match="cannot be read"):
        keep.verify(tickets)
    assert keep.verified(home, made.reference) == made
    assert not list(home.datasets.glob(".*"))


def test_edit_and_drop_by_line(home: Home, tickets: keep.Stored) -> None:
    edits = {"step": "edit", "edits": [{"line": 5, "values": {"completion": "D", "id": 4}}]}
    made = applied(home, tickets, edits, {"step": "drop", "lines": [2, {"line": 4}]})
    assert [(row["id"], row["completion"]) for row in made] == [("2", "B"), (4, "D"), ("5", "E")]
    for step in ({"step": "drop", "lines": [1]}, {"step": "edit", "edits": [{"line": 9, "values": {"id": 1}}]}):
        with pytest.raises(DataError, match="there is no row on line"):
            applied(home, tickets, step)
    assert not list(home.datasets.glob(".*"))


def test_a_line_with_several_rows_is_refused() -> None:
    stream = lambda: iter([Record(1, {"a": 1}, 1), Record(1, {"a": 2}, 10)])  # noqa: E731
    with pytest.raises(DataError, match="2 rows start on line 1"):
        list(rows.drop(stream, steps.Drop(lines=[1]))())
    assert [each.value for each in rows.drop(stream, steps.Drop(lines=[steps.Place(line=1, byte=10)]))()] == [{"a": 1}]


def test_rows_of_an_archive_are_named_with_their_file(home: Home) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name in ("a.csv", "b.csv"):
            archive.writestr(name, f"question,answer\n{name} one,1\n{name} two,2\n")
    stored = keep.add(home, "z", "z.zip", out.getvalue())
    with pytest.raises(DataError, match="2 rows start on line 2"):
        applied(home, stored, {"step": "drop", "lines": [2]})
    made = applied(home, stored, {"step": "drop", "lines": [{"line": 2, "file": "b.csv"}]})
    assert [row["question"] for row in made] == ["a.csv one", "a.csv two", "b.csv two"]
    with pytest.raises(DataError, match=r"no row on line 9 of b\.csv"):
        applied(home, stored, {"step": "drop", "lines": [{"line": 9, "file": "b.csv"}]})


def test_rows_on_one_line_are_named_with_their_byte(home: Home) -> None:
    stored = keep.add(home, "j", "j.json", b'[{"text": "a"}, {"text": "b"}, {"text": "c"}]')
    places = [(record.line, record.byte) for record in StoredRecords(stored.path, DEFAULT)()]
    assert places == [(1, 1), (1, 16), (1, 31)]
    edit = {"step": "edit", "edits": [{"line": 1, "byte": 16, "values": {"text": "B"}}]}
    made = applied(home, stored, edit, {"step": "drop", "lines": [{"line": 1, "byte": 31}]})
    assert made == [{"text": "a"}, {"text": "B"}]


def test_an_edit_repairs_a_row_that_cannot_be_read(home: Home) -> None:
    broken = keep.add(home, "b", "b.jsonl", b'{"text": "a"}\n{"text": "b\n{"text": "c"}\n')
    assert recipe.derive(home, "made", ["b"], [{"step": "cap", "rows": 9}]).left_out == {"bad_json": 1}
    edit = {"step": "edit", "edits": [{"line": 2, "values": {"text": "b"}}]}
    made = recipe.derive(home, "made", [broken.reference], [edit])
    assert [row["text"] for row in lines(made.path)] == ["a", "b", "c"]
    assert made.left_out == {}
    dropped = recipe.derive(home, "dropped", [broken.reference], [{"step": "drop", "lines": [2]}])
    assert [row["text"] for row in lines(dropped.path)] == ["a", "c"]
    assert dropped.left_out == {}, "it was left out on purpose"


def test_dedupe_looks_at_what_is_taught(home: Home, tickets: keep.Stored) -> None:
    assert [row["id"] for row in applied(home, tickets, {"step": "dedupe"})] == ["1", "2", "4", "5"]
    pairs = [{"prompt": "a", "chosen": "b", "rejected": bad} for bad in "cdc"]
    assert len(applied(home, store(home, "pairs", pairs), {"step": "dedupe"})) == 2


def test_near_duplicates_keep_the_first(home: Home) -> None:
    answer = "Open the settings, choose security, then press the large blue button and follow what the page says there."
    values = [
        {"prompt": "How do I change my password?", "completion": answer},
        {"prompt": "What is the weather?", "completion": "I have no window to look out of, so I cannot say."},
        {"prompt": "How do I change my password?", "completion": answer.replace("large ", "big ")},
        {"prompt": "What is the weather?", "completion": "I have no window to look out of, so I cannot say!"},
        {"prompt": "How do I change my password?", "completion": "Write to us and wait for a week or two or three."},
    ]
    stored = store(home, "q", values)
    assert applied(home, stored, {"step": "dedupe", "near": True, "threshold": 0.6}) == [values[n] for n in (0, 1, 4)]
    assert applied(home, stored, {"step": "dedupe", "near": True, "threshold": 0.95}) == [
        values[n] for n in (0, 1, 2, 4)
    ]
    assert applied(home, stored, {"step": "dedupe"}) == values


def test_cap(home: Home) -> None:
    many = store(home, "q", questions(100))
    first = applied(home, many, {"step": "cap", "rows": 3})
    assert first == questions(3)
    chosen = [applied(home, many, {"step": "cap", "rows": 10, "seed": seed}) for seed in (1, 1, 2)]
    assert chosen[0] == chosen[1] != chosen[2]
    assert len(chosen[0]) == 10
    assert [questions(100).index(row) for row in chosen[0]] == sorted(questions(100).index(row) for row in chosen[0])
    assert len(applied(home, many, {"step": "cap", "rows": 1000, "seed": 1})) == 100


def test_mask_reaches_nested_turns(home: Home) -> None:
    chat = [{"role": "user", "content": "I am a.b@c.org"}, {"role": "assistant", "content": "hello"}]
    stored = store(home, "chat", [{"messages": chat, "n": 1}])
    masked = [{"messages": [{"role": "user", "content": "I am [EMAIL]"}, chat[1]], "n": 1}]
    assert applied(home, stored, {"step": "mask", "what": ["email"]}) == masked
    assert applied(home, stored, {"step": "mask", "what": ["phone"]}) == [{"messages": chat, "n": 1}]


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ([], "at least one dataset and one step"),
        ([{"step": "shrink"}], "step 1 cannot be used: there is no step 'shrink'"),
        ([{}], "does not say its 'step'"),
        ([{"step": "edit", "edits": [{"line": 2, "values": {"a": "\ud800"}}]}], "cannot be stored as JSON"),
        ([{"step": "augment", "kind": "x"}], "there is no kind 'x'"),
        ([{"step": "dedupe"}, {"step": "cap", "rows": 0}], "step 2 cannot be used: cap.rows"),
        ([{"step": "cap", "rows": 1, "row": 2}], "cap.row: Extra inputs"),
        (
            [{"step": "split", "side": "eval", "eval_rows": 1, "eval_fraction": 0.1}],
            "either eval_fraction or eval_rows",
        ),
        ([{"step": "mix", "weights": [1, 1]}], "1 dataset cannot be used with the steps"),
        ([{"step": "cap", "rows": 1}, {"step": "add_rows"}], "1 dataset cannot be used with the steps"),
    ],
)
def test_wrong_recipes_are_refused_before_anything_is_read(
    home: Home, tickets: keep.Stored, wrong: list[dict[str, Any]], says: str
) -> None:
    with pytest.raises(DataError, match=says) as error:
        recipe.derive(home, "made", ["tickets"], wrong)
    assert error.value.code == "bad_recipe"
    assert keep.versions(home, "made") == []


def test_a_recipe_that_leaves_nothing(home: Home, tickets: keep.Stored) -> None:
    with pytest.raises(DataError, match="leaves no row"):
        applied(home, tickets, {"step": "drop", "lines": [2, 3, 4, 5, 6]})
    assert not list(home.datasets.glob(".*"))


def test_every_step_is_described_in_words() -> None:
    assert steps.in_words({"step": "drop", "lines": [3, 9]}) == "2 rows dropped (lines 3, 9)"
    assert steps.in_words({"step": "cap", "rows": 1}) == "the first 1 row kept"
    assert steps.in_words({"step": "mask", "what": ["email", "phone"]}) == "e-mail addresses and phone numbers masked"
    words = steps.in_words({"step": "split", "side": "eval", "eval_rows": 20, "by": "user"})
    assert words.startswith("the rows for evaluation, where 20 rows are")


# Splits


def test_a_split_is_complete_and_keeps_groups_together(home: Home) -> None:
    values = [{"prompt": f"q{n % 40}", "completion": f"a{n}", "user": n % 7} for n in range(200)]
    store(home, "q", values)
    train, evaluation = recipe.split(home, "q", eval_fraction=0.2)
    assert (train.name, evaluation.name) == ("q-train", "q-eval")
    left, right = lines(train.path), lines(evaluation.path)
    assert sorted(map(str, left + right)) == sorted(map(str, values))
    assert len(right) == 40
    assert not {row["prompt"] for row in left} & {row["prompt"] for row in right}
    left, right = (lines(each.path) for each in recipe.split(home, "q", eval_rows=30, by="user", seed=1))
    assert not {row["user"] for row in left} & {row["user"] for row in right}
    assert 0 < len(right) <= 30
    again = recipe.split(home, "q", eval_fraction=0.2)
    assert [each.version for each in again] == [train.version, evaluation.version]
    assert recipe.replay(home, evaluation).version == evaluation.version


def test_a_stratified_split_gives_each_label_its_share(home: Home) -> None:
    values = [{"text": f"t{n}", "label": "rare" if n % 10 == 0 else "common"} for n in range(300)]
    store(home, "q", values)
    _, evaluation = recipe.split(home, "q", eval_rows=50, stratify="label")
    assert Counter(row["label"] for row in lines(evaluation.path)) == {"rare": 5, "common": 45}


def test_rows_that_cannot_be_used_are_not_evaluated_on(home: Home) -> None:
    store(home, "q", [*questions(20), *({"prompt": f"p{n}", "completion": ""} for n in range(20))])
    train, evaluation = recipe.split(home, "q", eval_fraction=0.5)
    assert all(row["completion"] for row in lines(evaluation.path))
    assert (train.rows, evaluation.rows) == (30, 10)


def test_splits_that_cannot_be(home: Home) -> None:
    store(home, "one", [{"prompt": "same", "completion": f"{n}"} for n in range(9)])
    store(home, "big", [{"prompt": "ab"[n % 2], "completion": f"{n}"} for n in range(100)])
    for name, settings_, says in (
        ("one", {"eval_fraction": 0.2}, "something must be left"),
        ("big", {"eval_rows": 3}, "the smallest has 50 rows"),
        ("big", {"eval_rows": 100}, "something must be left"),
        ("big", {"eval_rows": 3, "by": "user"}, "no row has the column 'user'"),
        ("big", {"eval_rows": 3, "stratify": "kind"}, "no row has the column 'kind'"),
    ):
        with pytest.raises(DataError, match=says) as error:
            recipe.split(home, name, **settings_)
        assert error.value.code == "cannot_split"
    assert {each.name for each in keep.list_datasets(home)} == {"one", "big"}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    asked=st.lists(st.integers(0, 12), min_size=4, max_size=40),
    share=st.floats(0.05, 0.5),
    seed=st.integers(0, 99),
    by=st.sampled_from([None, "user"]),
)
def test_nothing_leaks_between_the_sides(asked: list[int], share: float, seed: int, by: str | None) -> None:
    originals = [
        Record(line, {"question": f"How do I open door {n}?", "answer": f"a{line}", "user": n % 5})
        for line, n in enumerate(asked, 1)
    ]
    from spool.data.keeping.augment import augment

    stream: rows.Records = lambda: iter(originals)  # noqa: E731
    for kind in ("noise", "wrap", "reword"):
        stream = augment(
            stream,
            steps.parse(
                {"step": "augment", "kind": kind, "share": 0.7, "typos": 0.1}
                if kind == "noise"
                else {"step": "augment", "kind": kind, "share": 0.7}
            ),
        )  # type: ignore[arg-type]
    cut = {"step": "split", "eval_fraction": share, "seed": seed, "by": by}
    try:
        train, evaluation = (
            list(splitting.split(stream, steps.parse({**cut, "side": side}))()) for side in ("train", "eval")
        )
    except DataError as error:
        if error.code != "cannot_split":
            raise
        return
    everything = list(stream())
    assert train
    assert evaluation
    assert not any("augmented" in row.value for row in evaluation)
    # every original is on exactly one side, and what was made from an eval row is on none
    sides = Counter(row.line for row in train + evaluation if "augmented" not in row.value)
    assert sides == Counter(range(1, len(originals) + 1))
    evaluated = {row.line for row in evaluation}
    made = [row for row in everything if "augmented" in row.value]
    assert [row for row in train if "augmented" in row.value] == [
        row for row in made if row.value["augmented_from"] not in evaluated
    ]
    group = "question" if by is None else "user"
    assert not {row.value[group] for row in evaluation} & {
        row.value[group] for row in train if "augmented" not in row.value
    }


def test_a_column_of_the_users_own_is_no_mark(home: Home) -> None:
    values = [{**row, "augmented": "no", "augmented_of": ["x"]} for row in questions(20)]
    store(home, "q", values)
    train, evaluation = recipe.split(home, "q", eval_rows=5)
    assert sorted(map(str, lines(train.path) + lines(evaluation.path))) == sorted(map(str, values))
    assert evaluation.rows == 5


def test_variants_stay_with_their_row_through_other_steps(home: Home) -> None:
    store(home, "q", [{"question": f"How do I open door {n}?", "answer": f"a{n}"} for n in range(60)])
    store(home, "r", [{"instruction": f"Sing song {n}.", "output": "la"} for n in range(60)])
    more = [{"step": "augment", "kind": "noise", "share": 1.0, "typos": 0.2}, {"step": "drop", "lines": [3, 4]}]
    with pytest.raises(DataError, match="rows start on line 3"):
        recipe.derive(home, "more", ["q"], more)
    recipe.derive(home, "more", ["q"], more[:1])
    recipe.derive(
        home, "mixed", ["more", "r"], [{"step": "mix", "weights": [2, 1]}, {"step": "cap", "rows": 90, "seed": 1}]
    )
    train, evaluation = recipe.split(home, "mixed", eval_rows=10)
    ended = re.compile(r"\d+")
    evaluated = {ended.search(row["messages"][0]["content"])[0] for row in lines(evaluation.path) if "door" in str(row)}  # type: ignore[index]
    trained = {
        ended.search(row["messages"][0]["content"])[0]
        for row in lines(train.path)
        if "answer" not in row and "song" not in str(row)
    }  # type: ignore[index]
    assert not any("augmented" in row for row in lines(evaluation.path))
    assert any("augmented" in row for row in lines(train.path))
    assert evaluated
    assert not evaluated & trained


# Mixtures


def test_mixing_brings_layouts_together(home: Home) -> None:
    store(home, "alpaca", [{"instruction": f"i{n}", "input": "x", "output": f"o{n}"} for n in range(10)])
    store(
        home,
        "share",
        [{"conversations": [{"from": "human", "value": f"h{n}"}, {"from": "gpt", "value": "g"}]} for n in range(10)],
    )
    made = recipe.derive(home, "mixed", ["alpaca", "share"], [{"step": "mix", "weights": [3, 1]}])
    found = lines(made.path)
    assert all(set(row) == {"messages"} for row in found)
    assert Counter(row["messages"][0]["content"][0] for row in found) == {"i": 10, "h": 3}
    assert found[0]["messages"] == [{"role": "user", "content": "i0\n\nx"}, {"role": "assistant", "content": "o0"}]
    assert made.format == "messages"
    assert made.parents == [keep.find(home, "alpaca").reference, keep.find(home, "share").reference]


def test_mixing_rows_of_one_layout_keeps_them(home: Home) -> None:
    first, second = questions(30), questions(30, 100)
    store(home, "a", [*first, {"prompt": "none", "completion": ""}])
    store(home, "b", second)
    found = lines(recipe.derive(home, "m", ["a", "b"], [{"step": "mix", "weights": [1, 2], "rows": 30}]).path)
    assert len(found) == 30
    assert [sum(row in side for row in found) for side in (first, second)] == [10, 20]
    assert {sum(row in first for row in found[n : n + 3]) for n in range(0, 30, 3)} == {1}, "evenly interleaved"
    more = lines(recipe.derive(home, "m", ["a", "b"], [{"step": "mix", "weights": [1, 1], "rows": 100}]).path)
    assert len(more) == 100
    assert set(Counter(row["prompt"] for row in more).values()) == {1, 2}, "whole rounds, then a part"


def test_text_and_chats_do_not_mix(home: Home) -> None:
    store(home, "t", [{"text": "once upon a time"}])
    store(home, "q", questions(3))
    with pytest.raises(DataError, match="plain text cannot be mixed"):
        recipe.derive(home, "m", ["t", "q"], [{"step": "mix", "weights": [1, 1]}])
    with pytest.raises(DataError, match="cannot be mixed by 3 weights"):
        recipe.derive(home, "m", ["t", "q"], [{"step": "mix", "weights": [1, 1, 1]}])


# Corrected rejects


def test_corrected_rejects_take_their_places(home: Home, tmp_path: Path) -> None:
    broken = b'{"prompt": "a", "completion": "b"}\n{"prompt": "c", \n{"prompt": "e", "completion": ""}\n'
    stored = keep.add(home, "b", "b.jsonl", broken)
    corrected = tmp_path / "rejects.jsonl"
    corrected.write_bytes(
        jsonl(
            [
                {"line": 3, "code": "empty_field", "message": "", "row": {"prompt": "e", "completion": "f"}},
                {"line": 2, "code": "bad_json", "message": "", "row": '{"prompt": "c", "completion": "d"}'},
                {"line": 77, "code": "bad_json", "message": "", "row": {"prompt": "y", "completion": "z"}},
                {"prompt": "g", "completion": "h"},
            ]
        )
    )
    made = recipe.add_rows(home, "b", corrected)
    assert [row["prompt"] + row["completion"] for row in lines(made.path)] == ["ab", "cd", "ef", "yz", "gh"]
    assert made.parents == [stored.reference, keep.find(home, "b-corrections").reference]
    assert (made.left_out, made.name) == ({}, "b")
    assert recipe.replay(home, made).version == made.version


def test_corrected_cells_and_what_is_still_broken(home: Home, tmp_path: Path) -> None:
    keep.add(home, "b", "b.csv", b"prompt;completion\na;b\nc;d\n")
    corrected = tmp_path / "rejects.jsonl"
    corrected.write_bytes(jsonl([{"line": 9, "code": "ragged", "message": "", "row": 'e;"f;g"'}]))
    assert lines(recipe.add_rows(home, "b", corrected).path)[-1] == {"prompt": "e", "completion": "f;g"}
    corrected.write_bytes(jsonl([{"line": 9, "code": "ragged", "message": "", "row": "e"}]))
    with pytest.raises(DataError, match="line 1 of the corrected rows is still text"):
        recipe.add_rows(home, "b", corrected)


# Exports


def test_csv_cells_are_no_formulas(home: Home) -> None:
    cells = ["=HYPERLINK(1)", "+1", "-1+2", "@x", "\t=1", "\r=1", "\n=1", " =1", "＝1", 'a";=1', "fine", "-5", "a=b"]
    store(home, "f", [{"prompt": cell, "completion": "x", "=n": -number} for number, cell in enumerate(cells)])
    out = io.BytesIO()
    assert export.export_csv(keep.find(home, "f"), out, DEFAULT) == len(cells)
    found = list(csv.reader(io.StringIO(out.getvalue().decode("utf-8-sig"), newline="")))
    assert found[0] == ["prompt", "completion", "'=n"]
    assert [row[0] for row in found[1:]] == [*("'" + cell for cell in cells[:9]), *cells[9:]]
    assert [row[2] for row in found[1:]] == [str(-number) for number in range(len(cells))]
    raw = out.getvalue().decode("utf-8-sig")
    assert '"a"";=1"' in raw, "quoted: in no country's spreadsheet does it start a cell"
    assert ",-3\r\n" in raw, "numbers stay numbers"


def test_exports_hold_every_row(home: Home) -> None:
    values = [{"text": "a", "n": 1}, {"text": 'b,"\n', "tags": ["x", {"y": None}], "on": True}]
    stored = store(home, "e", values)
    out = io.BytesIO()
    assert export.export_jsonl(stored, out, DEFAULT) == 2
    assert out.getvalue() == jsonl(values)
    table = io.BytesIO()
    export.export_csv(stored, table, DEFAULT)
    found = list(csv.DictReader(io.StringIO(table.getvalue().decode("utf-8-sig"), newline="")))
    assert found[1] == {"text": 'b,"\n', "n": "", "tags": '["x",{"y":null}]', "on": "true"}


def test_whatever_json_holds_survives(home: Home) -> None:
    odd = b'{"text": "\\ud800", "n": 123456789012345678901234567890}\n{"text": "b", "n": 1.5}\n'
    stored = keep.add(home, "odd", "odd.jsonl", odd)
    made = recipe.derive(home, "odd", [stored.reference], [{"step": "cap", "rows": 5}])
    assert [each.value for each in StoredRecords(made.path, DEFAULT)()] == [
        each.value for each in StoredRecords(stored.path, DEFAULT)()
    ]


def test_what_parquet_holds_is_written_as_json(home: Home) -> None:
    import datetime
    import decimal

    import pyarrow as pa
    import pyarrow.parquet as pq

    def stored(**more: Any) -> keep.Stored:
        out = io.BytesIO()
        pq.write_table(pa.Table.from_pylist([{"prompt": "a", "completion": "b", **more}]), out)
        return keep.add(home, "p", "p.parquet", out.getvalue())

    dated = stored(day=datetime.date(2024, 2, 29), price=decimal.Decimal("1.50"), share=float("nan"))
    assert dated.path.name == "data.parquet"
    assert applied(home, dated, {"step": "cap", "rows": 1}) == [
        {"prompt": "a", "completion": "b", "day": "2024-02-29", "price": "1.50", "share": None}
    ]
    pictured = applied(home, stored(picture=b"\x89PNG", name=b"text"), {"step": "cap", "rows": 1})
    assert pictured == [{"prompt": "a", "completion": "b", "picture": None, "name": "text"}]


# Deleting


def job(home: Home, dataset: str, state: State | None, job_id: str = JOB, version: str | None = None) -> None:
    run = home.run(job_id)
    run.root.mkdir(parents=True, exist_ok=True)
    durable.write_json(run.spec, {"dataset": dataset})
    if version:
        (run.root / "data").mkdir(exist_ok=True)
        durable.write_json(run.root / "data" / "prepared.json", {"dataset": {"version": version}})
    if state:
        Tokens(home).create(state, Token(5, 1, job_id), {"name": "x"})


def test_deleting_keeps_the_record_and_the_same_bytes_revive_it(home: Home, tickets: keep.Stored) -> None:
    deleted = forget.delete(home, "tickets")
    assert deleted.deleted_at
    assert not tickets.path.exists()
    assert durable.read_json(tickets.path.parent / keep.RECORD)["rows"] == 5
    assert keep.list_datasets(home) == []
    assert keep.versions(home, "tickets", deleted=True) == [deleted]
    for reference in ("tickets", tickets.reference):
        with pytest.raises(NotFound, match="was deleted on 20") as error:
            keep.resolve(home, reference)
        assert error.value.code == "dataset_deleted"
        with pytest.raises(NotFound, match="was deleted"):
            forget.delete(home, reference, force=True)
    again = keep.add(home, "tickets", "other.csv", CSV)
    assert (again.version, again.deleted_at, again.path.read_bytes()) == (tickets.version, None, CSV)
    assert keep.verified(home, tickets.reference) == again
    assert not list(home.datasets.glob(".*"))


@pytest.mark.parametrize("state", [State.CHECKING, State.QUEUED, State.HELD, State.RUNNING])
def test_what_a_job_still_needs_is_never_deleted(home: Home, tickets: keep.Stored, state: State) -> None:
    job(home, tickets.reference, state)
    for force in (False, True):
        with pytest.raises(DataError, match=f"the job {JOB} still to be trained") as error:
            forget.delete(home, "tickets", force=force)
        assert error.value.code == "in_use"
    assert keep.verified(home, "tickets") == tickets


def test_a_job_that_ended_is_named_first(home: Home, tickets: keep.Stored) -> None:
    newer = keep.add(home, "tickets", "t.csv", CSV + b"6,f,F\n")
    job(home, "tickets", State.DONE, version=tickets.version)
    assert forget.used_by(home, tickets) == [JOB]
    assert forget.used_by(home, newer) == []
    with pytest.raises(DataError, match=f"was used by the job {JOB}"):
        forget.delete(home, tickets.reference)
    assert forget.delete(home, tickets.reference, force=True).deleted_at


def test_drops_paths_and_descendants_count(home: Home, tickets: keep.Stored) -> None:
    made = recipe.derive(home, "few", ["tickets"], [{"step": "cap", "rows": 2}])
    with pytest.raises(DataError, match=re.escape(f"was used by {made.reference}")):
        forget.delete(home, "tickets")
    job(home, str(made.path), State.DONE)
    assert forget.used_by(home, tickets) == [JOB]
    assert forget.needed_by(home, tickets) == []
    other = "01JZZZZZZZZZZZZZZZZZZZZZZ1"
    durable.write_json(home.incoming / f"{other}.json", {"dataset": "tickets"})
    assert forget.needed_by(home, tickets) == [other]
    with pytest.raises(DataError, match="cannot be deleted"):
        forget.delete(home, "tickets", force=True)


def test_the_limits_of_the_settings_hold_for_whatever_reads_a_version(home: Home, tmp_path: Path) -> None:
    rows = questions(6)
    rows[2]["completion"] = "long " * 400
    whole = store(home, "whole", rows)
    fewer = store(home, "fewer", [rows[0], *rows[2:]])
    corrected = tmp_path / "rejects.jsonl"
    corrected.write_bytes(jsonl([rows[2], rows[3]]))
    durable.write_json(home.settings, {"data_limits": {"max_row_mb": 0.001}})
    limits = Limits(max_row_mb=0.001)

    made = recipe.derive(home, "made", ["whole"], [{"step": "cap", "rows": 9}])
    assert (made.rows, made.left_out) == (5, {"row_too_large": 1})
    assert recipe.derive(home, "mixed", ["whole", "fewer"], [{"step": "mix", "weights": [1, 1], "rows": 9}]).rows == 9
    train, evaluation = recipe.split(home, "whole", eval_rows=2)
    assert (train.rows, evaluation.rows) == (3, 2)
    assert recipe.add_rows(home, "whole", corrected).left_out == {"row_too_large": 2}

    found = diff.diff(home, whole.reference, fewer.reference)
    assert (found.removed, found.added, found.changed, found.unchanged) == (1, 0, 0, 4)

    assert export.export_jsonl(whole, io.BytesIO(), limits) == export.export_csv(whole, io.BytesIO(), limits) == 5
    assert [row.line for row in inspect.head(whole.path, 9, limits)] == [1, 2, 4, 5, 6]
    assert [row.line for row in inspect.records(whole.path, {2, 3}, limits)] == [2]
    assert inspect.search(whole.path, "long long", limits) == []
    assert len(inspect.search(whole.path, "long long", DEFAULT)) == 1

    home.settings.unlink()
    with pytest.raises(DataError, match="under other data_limits") as error:
        recipe.replay(home, made)
    assert error.value.code == "not_reproduced"
