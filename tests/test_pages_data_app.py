"""The Data page, run by AppTest: reading differently, the token view, each change, versions, and long work."""

import gzip
import io
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
import tiny
from conftest import ROOT
from streamlit.testing.v1 import AppTest
from test_pages_app import NASTY, World, said, visit, world  # noqa: F401

from spool.data import inspect
from spool.data.inspect import Inspection
from spool.data.judging import rejects
from spool.data.keeping import keep
from spool.data.reading.limits import DEFAULT
from spool.protocol import durable
from spool.protocol.home import State

FAQ = "question,answer,topic\n" + "".join(
    f"How much is article {i}?,Article {i} costs {i} euros.,{'price' if i % 3 else 'other'}\n" for i in range(40)
)


def tokenizer_only(folder: Path) -> Path:
    """What of a Gemma a page needs: its configuration and its tokenizer."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "gemma3_text", "max_position_embeddings": 512}))
    (folder / "tokenizer.json").write_text(json.dumps(tiny.tokenizer_json()))
    return folder


def add(world: World, name: str, text: str, filename: str = "faq.csv") -> keep.Stored:  # noqa: F811
    return keep.add(world.home, name, filename, text.encode())


def plain(app: AppTest) -> str:
    return said(app).replace("\\", "").replace("\u2060", "")


def press(app: AppTest, label: str) -> AppTest:
    app = next(each for each in app.button if each.label == label).click().run()
    assert not app.exception, app.exception
    return app


def tab(world: World, name: str, dataset: str) -> AppTest:  # noqa: F811
    app = visit("data", dataset=dataset, view=name)
    assert not app.exception, app.exception
    return app


def test_a_file_that_would_be_blocked_says_so_in_red(world: World) -> None:  # noqa: F811
    add(world, "faq", "question,answer\n" + "Where?,\n" * 3 + "How?,So.\n" * 7)
    app = visit("data", dataset="faq")
    assert "3 of 10 rows (30 %) cannot be trained on" in plain(app)
    assert app.error


def test_a_base_that_cannot_be_used_takes_nothing_away_but_tokens(world: World) -> None:  # noqa: F811
    world.base("half")
    add(world, "faq", FAQ)
    app = visit("data", dataset="faq")
    assert {m.label: m.value for m in app.metric}["Usable"] == "40"
    assert "No tokens are counted" in plain(app)
    assert not app.error


def test_columns_are_named_by_hand_and_go_to_train(world: World) -> None:  # noqa: F811
    world.base()
    stored = add(world, "odd", "alpha,beta\nWhere?,Here.\nWhen?,Now.\n")
    app = visit("data", dataset="odd")
    assert "Which column is the question, and which one the answer? Its columns: alpha, beta." in plain(app)
    assert "Say below which column is which" in plain(app)
    assert not app.error
    app.selectbox(key=f"role/prompt/{stored.reference}").set_value("alpha").run()
    app.selectbox(key=f"role/completion/{stored.reference}").set_value("beta").run()
    assert {m.label: m.value for m in app.metric}["Usable"] == "2"
    press(app, "Train on this")
    spec = json.loads(app.code[0].value)
    assert spec["dataset"] == "odd"
    assert spec["data"]["mapping"] == {"prompt": "alpha", "completion": "beta"}


def test_what_was_said_of_columns_holds_on_another_day_and_on_train(world: World) -> None:  # noqa: F811
    world.base()
    stored = add(world, "odd", "alpha,beta\nWhere?,Here.\nWhen?,Now.\n")
    app = visit("data", dataset="odd")
    app.selectbox(key=f"role/prompt/{stored.reference}").set_value("alpha").run()
    app.selectbox(key=f"role/completion/{stored.reference}").set_value("beta").run()
    assert {m.label: m.value for m in visit("data", dataset="odd").metric}["Usable"] == "2"
    train = visit("train", data="odd")
    assert json.loads(train.code[0].value)["data"]["mapping"] == {"prompt": "alpha", "completion": "beta"}
    assert not [each.label for each in train.button if each.label.startswith("Reset ")]
    # The next month's file with the same columns.
    add(world, "odd", "alpha,beta\nWhere?,Here.\nWhen?,Now.\nWho?,We.\n")
    assert {m.label: m.value for m in visit("data", dataset="odd").metric}["Usable"] == "3"


def test_what_was_said_and_taken_back_does_not_come_again(world: World) -> None:  # noqa: F811
    stored = add(world, "faq", FAQ)
    key = f"role/answer/{stored.reference}"
    app = visit("data", dataset="faq")
    app.selectbox(key=key).set_value("topic").run()
    again = visit("data", dataset="faq")
    assert again.selectbox(key=key).value == "topic"
    again.selectbox(key=key).set_value("answer").run()
    assert visit("data", dataset="faq").selectbox(key=key).value == "answer"


def test_columns_that_a_new_file_lacks_are_not_looked_for(world: World) -> None:  # noqa: F811
    stored = add(world, "odd", "alpha,beta\nWhere?,Here.\n")
    app = visit("data", dataset="odd")
    app.selectbox(key=f"role/prompt/{stored.reference}").set_value("alpha").run()
    add(world, "odd", FAQ)
    assert {m.label: m.value for m in visit("data", dataset="odd").metric}["Usable"] == "40"


def test_what_came_with_one_dataset_does_not_stay_for_the_next(world: World) -> None:  # noqa: F811
    world.base()
    add(world, "faq", FAQ)
    app = visit("train", data="odd.csv", set='{"/data/mapping": {"prompt": "alpha"}, "/data/max_length": 64}')
    assert json.loads(app.code[0].value)["data"] == {"mapping": {"prompt": "alpha"}, "max_length": 64}
    del app.query_params["set"]
    app.query_params["data"] = "faq"
    app.run()
    assert "data" not in json.loads(app.code[0].value)


def test_an_older_version_is_what_train_gets(world: World) -> None:  # noqa: F811
    world.base()
    older = add(world, "faq", FAQ)
    add(world, "faq", FAQ + "One more?,Yes.,other\n")
    app = visit("data", dataset=older.reference)
    assert {m.label: m.value for m in app.metric}["Rows"] == "40"
    press(app, "Train on this")
    assert json.loads(app.code[0].value)["dataset"] == older.reference


# ---- what the model sees


def test_the_token_view_goes_from_row_to_row(world: World) -> None:  # noqa: F811
    tokenizer_only(world.home.models / "tiny")
    stored = add(world, "faq", "question,answer\nWhere is it?,In the box.\nHow long?,\nWhat?,That 🦄.\n")
    app = tab(world, "sees", "faq")
    assert "Row 1 of 3, line 2" in plain(app)
    assert "learned from" in plain(app)
    app = press(app, "Next")
    assert "This row is left out" in plain(app)
    app = press(app, "Next")
    assert "Row 3 of 3, line 4" in plain(app)
    app.number_input(key=f"go/line/{stored.reference}").set_value(2).run()
    assert "Row 1 of 3" in plain(app)
    app.number_input(key=f"max-length/{stored.reference}").set_value(16).run()
    assert "lost behind the limit of 16" in plain(app)


def test_a_row_is_found_by_a_word(world: World) -> None:  # noqa: F811
    tokenizer_only(world.home.models / "tiny")
    stored = add(world, "faq", FAQ)
    app = tab(world, "sees", "faq")
    app.text_input(key=f"search/{stored.reference}").set_value("ARTICLE 17?").run()
    hit = app.selectbox(key=f"hit/{stored.reference}/ARTICLE 17?")
    app = hit.select_index(0).run()
    assert "line 19" in plain(app)
    app.text_input(key=f"search/{stored.reference}").set_value("nowhere").run()
    assert "No row holds “nowhere”" in plain(app)


def test_the_view_without_a_model_says_what_is_missing(world: World) -> None:  # noqa: F811
    add(world, "faq", FAQ)
    assert "No model on this server yet" in plain(tab(world, "sees", "faq"))


# ---- statistics


def test_statistics_are_drawn_with_their_sentences(world: World) -> None:  # noqa: F811
    tokenizer_only(world.home.models / "tiny")
    add(world, "topics", "text,label\n" + "".join(f"I want it {i},{'a' if i % 9 else 'b'}\n" for i in range(90)))
    app = tab(world, "statistics", "topics")
    assert len(app.get("vega_lite_chart")) >= 3
    assert "the model will lean to it" in plain(app)


# ---- changes


def newest(world: World, name: str = "faq") -> keep.Stored:  # noqa: F811
    return keep.versions(world.home, name)[0]


def change(world: World, kind: str, dataset: str = "faq") -> AppTest:  # noqa: F811
    app = tab(world, "change", dataset)
    key = f"change/{newest(world, dataset).reference}"
    app = app.get_by_key(key).set_value(kind).run()
    assert not app.exception, app.exception
    return app


def test_each_change_makes_a_version_with_its_recipe(world: World) -> None:  # noqa: F811
    add(world, "faq", FAQ + FAQ.partition("\n")[2] + "My mail is a@example.org?,Write to a@example.org.,other\n")
    for kind, label, rows in (
        ("dedupe", "Remove duplicates", 41),
        ("mask", "Mask it", 41),
        ("cap", "Keep these", 20),
        ("augment", "Add variants", None),
    ):
        before = newest(world)
        press(change(world, kind), label)
        made = newest(world)
        assert made.parents == [before.reference], kind
        assert made.recipe[0]["step"] == kind
        assert rows is None or made.rows == rows, kind
    assert "a@example.org" not in newest(world).path.read_text()
    app = visit("data", dataset="faq")
    assert f"from {newest(world).parents[0]}" in plain(app)


def test_a_split_makes_two_datasets(world: World) -> None:  # noqa: F811
    add(world, "faq", FAQ)
    app = press(change(world, "split"), "Split")
    assert newest(world, "faq-train").rows + newest(world, "faq-eval").rows == 40
    assert app.query_params["dataset"] == newest(world, "faq-train").reference


def test_a_split_that_leaves_nothing_is_refused_in_words(world: World) -> None:  # noqa: F811
    add(world, "faq", "question,answer\nWhere?,Here.\n")
    app = press(change(world, "split"), "Split")
    assert "cannot be split off" in plain(app)


def test_datasets_are_mixed_under_a_new_name(world: World) -> None:  # noqa: F811
    add(
        world,
        "more",
        '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n',
        "a.jsonl",
    )
    add(world, "faq", FAQ)
    app = change(world, "mix")
    app = app.multiselect[0].set_value(["more"]).run()
    press(app, "Mix")
    assert len(newest(world, "faq-mix").parents) == 2


def test_variants_are_previewed_before_they_are_added(world: World) -> None:  # noqa: F811
    add(world, "faq", FAQ)
    app = change(world, "augment")
    table = app.dataframe[0].value
    assert len(table)
    assert (table["before"] != table["after"]).all()
    assert len(keep.versions(world.home, "faq")) == 1, "looking changes nothing"


def test_rows_that_cannot_be_used_are_left_out_by_one_click(world: World) -> None:  # noqa: F811
    add(world, "faq", FAQ + "What?,,other\n")
    press(visit("data", dataset="faq"), "Leave these rows out")
    assert newest(world).rows == 40
    assert newest(world).recipe[0]["step"] == "keep_usable"


def test_corrected_rejects_take_their_places(world: World) -> None:  # noqa: F811
    stored = add(world, "faq", "question,answer\nWhere?,Here.\nWhen?,\nHow?,So.\n")
    (line,) = [json.loads(each) for each in rejects.rejects(stored.path)]
    assert line["line"] == 3
    line["row"]["answer"] = "Now."
    app = visit("data", dataset="faq")
    app.file_uploader(key=f"corrected/{stored.reference}").upload("rejects.jsonl", json.dumps(line).encode())
    app = press(app.run(), "Add them")
    rows = [json.loads(each) for each in newest(world).path.read_text().splitlines()]
    assert rows[1] == {"question": "When?", "answer": "Now."}
    assert "Nothing was found" in plain(app)


def test_the_example_cannot_be_changed(world: World) -> None:  # noqa: F811
    app = visit("data", dataset="examples/support_tickets.jsonl")
    assert not [each for each in app.button if "Drop" in each.label or "Save" in each.label]


# ---- versions


def test_versions_are_listed_and_compared(world: World) -> None:  # noqa: F811
    older = add(world, "faq", FAQ)
    add(world, "faq", FAQ.replace("costs 7 euros", "costs 8 euros") + "One more?,Yes.,other\n")
    app = tab(world, "versions", "faq")
    assert app.dataframe[0].value["rows"].tolist() == [41, 40]
    app = app.selectbox(key=f"diff/{newest(world).reference}").set_value(older.reference).run()
    assert "1 added" in plain(app)
    assert "1 changed" in plain(app)
    table = app.dataframe[1].value
    assert table["after"].tolist()[0] == "Article 7 costs 8 euros."
    assert "The same file brings it back" in plain(press(app, "Delete this version"))


def test_a_version_that_a_job_waits_for_is_not_deleted(world: World) -> None:  # noqa: F811
    stored = add(world, "faq", FAQ)
    job_id = world.job(State.QUEUED)
    run = world.home.run(job_id)
    durable.write_json(run.spec, json.loads(run.spec.read_bytes()) | {"dataset": stored.reference})
    app = press(tab(world, "versions", "faq"), "Delete this version")
    assert "still to be trained on it" in plain(app)
    assert "Delete" not in [each.label for each in app.button]
    assert keep.versions(world.home, "faq")


# ---- long work, and what is hostile


def test_pages_read_under_the_limits_that_are_set(world: World) -> None:  # noqa: F811
    add(world, "faq", FAQ.replace("Article 7 costs", "Article seven " + "so " * 500 + "costs"))
    assert 9 in tab(world, "rows", "faq").dataframe[0].value.index
    durable.write_json(world.home.settings, {"data_limits": {"max_row_mb": 0.001}})
    app = tab(world, "rows", "faq")
    assert app.dataframe[0].value.index.tolist() == [line for line in range(2, 42) if line != 9]
    press(tab(world, "findings", "faq"), "Leave these rows out")
    assert newest(world).rows == 39


def test_long_work_shows_a_sample_and_how_far_it_is(world: World, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    stored = add(world, "faq", FAQ)
    whole = inspect.look(world.home, stored.path)
    assert whole.report
    sample = whole.report | {"statistics": whole.report["statistics"] | {"sampled_rows": 2000}}
    seen = [Inspection(sample, False, None, "counting tokens", 2000, 1_000_000)]
    monkeypatch.setattr(inspect, "look", lambda *_, **__: seen[0])
    app = tab(world, "statistics", "faq")
    assert "Counting tokens" in app.progress[0].text
    assert "From the first 2,000 rows; shares are right to within ± 2 points" in plain(app)
    seen[0] = Inspection(None, False, None)
    app.run()
    assert not app.metric
    seen[0] = whole
    app.run()
    assert not app.progress
    assert app.metric


def test_several_files_at_once(world: World) -> None:  # noqa: F811
    app = visit("data")
    app.file_uploader[0].set_value(
        [("a.csv", FAQ.encode(), "text/csv"), ("b.csv", b"", "text/csv"), ("c.csv", FAQ.encode(), "text/csv")]
    )
    app.run()
    assert not app.exception
    assert sorted(each.name for each in keep.list_datasets(world.home)) == ["a", "c"]
    assert "b.csv is empty" in plain(app)


def test_a_file_that_is_here_already_says_what_becomes_of_it(world: World) -> None:  # noqa: F811
    add(world, "faq", FAQ)
    app = visit("data")
    app.file_uploader[0].upload("faq.csv", FAQ.encode()).run()
    assert "faq.csv is here already, byte for byte. Nothing was added" in plain(app)
    add(world, "faq", FAQ + "One more?,Yes.,other\n")
    app.file_uploader[0].upload("faq.csv", FAQ.encode()).run()
    assert "It counts as the newest version again" in plain(app)
    app.file_uploader[0].upload("other.csv", FAQ.encode()).run()
    assert "here already" not in plain(app)


def test_findings_name_the_change_that_cures_them(world: World) -> None:  # noqa: F811
    add(world, "faq", FAQ + "My mail is a@example.org?,Good.,other\n")
    assert "one click masks personal data" in plain(visit("data", dataset="faq"))
    add(world, "gap", FAQ + "Where?,,other\n")
    assert "one click masks personal data" not in plain(visit("data", dataset="gap"))


def test_a_file_that_cannot_be_read_does_not_call_for_training(world: World) -> None:  # noqa: F811
    stored = add(world, "odd", "alpha,beta\nWhere?,Here.\n")
    app = visit("data", dataset="odd")
    assert app.button(key="data-train").proto.type == "secondary"
    app.selectbox(key=f"role/prompt/{stored.reference}").set_value("alpha").run()
    app.selectbox(key=f"role/completion/{stored.reference}").set_value("beta").run()
    assert app.button(key="data-train").proto.type == "primary"
    assert "As recognised: Prompt and completion" in app.selectbox(key=f"format/{stored.reference}").options


def test_a_dataset_of_the_hub_goes_to_train(world: World) -> None:  # noqa: F811
    world.base()
    app = visit("data")
    app.text_input(key="hub-dataset").set_value("not a name/at all").run()
    assert "names no dataset" in plain(app)
    app.text_input(key="hub-dataset").set_value("org/faq:default:train").run()
    press(app, "Train on it")
    assert json.loads(app.code[0].value)["dataset"] == "hf:org/faq:default:train"


@pytest.mark.parametrize("view", ["findings", "sees", "statistics", "rows", "change", "versions"])
def test_what_rows_hold_is_never_rendered(view: str, world: World) -> None:  # noqa: F811
    tokenizer_only(world.home.models / "tiny")
    quoted = NASTY.replace('"', "")
    rows = [{NASTY: quoted, "text": quoted, "label": quoted if i % 2 else "x"} for i in range(6)]
    add(world, "nasty", "\n".join(map(json.dumps, rows)), f"{NASTY}.jsonl")
    app = tab(world, view, "nasty")
    for raw in ("<img", "[x](", "![](", "**b**", "$x$", ":material/home:"):
        assert raw not in said(app).replace(r"\<img", "").replace(r"\[x\]", "")


def test_bytes_that_are_gone_are_said(world: World) -> None:  # noqa: F811
    stored = add(world, "faq", FAQ)
    os.unlink(stored.path)
    app = visit("data", dataset="faq")
    assert app.error
    assert "there is no file" in plain(app).lower()


def test_an_address_for_a_version_that_is_not_there_shows_the_newest(world: World) -> None:  # noqa: F811
    add(world, "faq", FAQ)
    for asked in ("faq@000000000000", "faq@../..", "nothing", "<b>"):
        app = visit("data", dataset=asked)
        assert {m.label: m.value for m in app.metric}["Rows"] in ("40", "400"), asked


def test_a_search_finds_text_in_any_case(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    rows: list[Any] = [{"text": "Straße"}, {"text": "STRASSE"}, {"text": ["deep", "strasse"]}, {"text": "x"}]
    path.write_text("\n".join(map(json.dumps, rows)))
    assert [each["line"] for each in inspect.search(path, "strasse", DEFAULT)] == [1, 2, 3]
    assert inspect.search(path, " ", DEFAULT) == []


def packed(kind: str, text: str) -> bytes:
    if kind == "gz":
        return gzip.compress(text.encode())
    out = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(out, "w") as archive:
            archive.writestr("rows/faq.csv", text)
    elif kind == "parquet":
        header, *lines = [line.split(",") for line in text.splitlines()]
        pyarrow.parquet.write_table(pyarrow.table(dict(zip(header, zip(*lines, strict=True), strict=True))), out)
    else:
        out.write(text.encode(kind))
    return out.getvalue()


@pytest.mark.parametrize(
    ("filename", "kind", "says"),
    [
        ("faq.csv.gz", "gz", "gzipped"),
        ("faq.zip", "zip", "CSV"),
        ("faq.parquet", "parquet", "PARQUET"),
        ("faq.csv", "utf-16", "utf-16"),
    ],
)
def test_files_of_all_kinds_can_be_dropped(filename: str, kind: str, says: str, world: World) -> None:  # noqa: F811
    app = visit("data")
    app.file_uploader[0].upload(filename, packed(kind, FAQ))
    app.run()
    assert not app.exception
    assert {m.label: m.value for m in app.metric}["Usable"] == "40"
    assert says in plain(app)


def test_another_delimiter_is_said_and_seen(world: World) -> None:  # noqa: F811
    world.base()
    stored = add(world, "odd", "question|answer\n" + "Where, when, how?|Here, now, so.\n" * 3)
    app = visit("data", dataset="odd", view="change")
    app.selectbox(key=f"delimiter/{stored.reference}").set_value(",").run()
    assert not app.exception
    app.selectbox(key=f"delimiter/{stored.reference}").set_value("|").run()
    assert {m.label: m.value for m in app.metric}["Rows"] == "3"
    press(app, "Train on this")
    assert json.loads(app.code[0].value)["data"] == {"delimiter": "|"}


def test_what_is_read_differently_can_be_changed_too(world: World) -> None:  # noqa: F811
    world.base()
    text = "".join(f"Größe {i}, wo?|Größe {i}, dort.\n" for i in range(12)) + "Größe 3, wo?|Größe 3, dort.\n"
    stored = keep.add(world.home, "odd", "odd.csv", text.encode("cp1252"))
    app = visit("data", dataset="odd", view="change")
    for name, value in (("delimiter", "|"), ("header", False), ("encoding", "windows-1252")):
        app.selectbox(key=f"{name}/{stored.reference}").set_value(value).run()
    app.selectbox(key=f"role/prompt/{stored.reference}").set_value("column 1").run()
    app.selectbox(key=f"role/completion/{stored.reference}").set_value("column 2").run()
    assert {m.label: m.value for m in app.metric}["Usable"] == "13"
    app = press(app, "Remove duplicates")
    made = newest(world, "odd")
    assert [step["step"] for step in made.recipe] == ["read", "dedupe"]
    assert made.rows == 12
    assert json.loads(made.path.read_text().splitlines()[3]) == {
        "column 1": "Größe 3, wo?",
        "column 2": "Größe 3, dort.",
    }
    assert "read as windows-1252, with the delimiter '|' and with a row in the first line" in plain(app)
    assert {m.label: m.value for m in app.metric}["Usable"] == "12", "the roles are still known"
    press(app, "Train on this")
    spec = json.loads(app.code[0].value)
    assert spec["data"] == {"mapping": {"prompt": "column 1", "completion": "column 2"}}


def test_how_a_file_is_read_goes_to_train(world: World) -> None:  # noqa: F811
    world.base()
    told = {"/data/encoding": "windows-1252", "/data/delimiter": ";", "/data/header": False}
    app = visit("train", data="odd.csv", set=json.dumps(told))
    assert not app.exception
    assert json.loads(app.code[0].value)["data"] == {"encoding": "windows-1252", "delimiter": ";", "header": False}
    app = visit("train", data="odd.csv", set='{"/data/encoding": ["x"], "/data/delimiter": 7, "/data/header": "x"}')
    assert not app.exception
    assert "data" not in json.loads(app.code[0].value)


def test_the_page_is_whole_in_german(world: World) -> None:  # noqa: F811
    """Buttons that say the same in one language only would be one widget there."""
    keep.add(world.home, "faq", "faq.csv", b"frage,antwort\n" + b"".join(b"F%d,A%d\n" % (i, i) for i in range(20)))
    app = AppTest.from_file(str(ROOT / "streamlit_app.py"), default_timeout=60)
    app.query_params["lang"] = "de"
    app.run().switch_page("pages/build/data.py").run()
    assert not app.exception
    assert [title.value for title in app.title] == ["Daten"]
    assert [button.label for button in app.button].count("Damit trainieren") == 2
