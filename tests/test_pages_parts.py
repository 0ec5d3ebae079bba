"""The pure parts of the pages: exact expectations, no Streamlit running."""

import json
import math
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from pages.parts import alive, escape, quantities, words
from pages.parts.data import preview
from pages.parts.models import bundle, shelf
from pages.parts.run import tail
from pages.parts.train import draft, fields
from spool.data.reading.table import Record
from spool.protocol import durable
from spool.protocol.errors import Problem
from spool.protocol.home import Home
from spool.protocol.spec import JobSpec


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain name", "plain name"),
        ("**b** _i_ `c`", r"\*\*b\*\* \_i\_ \`c\`"),
        ("[x](javascript:alert(1))", "\\[x\\]\\(javascript\\:\u2060alert\\(1\\)\\)"),
        ("<img src=x>", r"\<img src\=x\>"),
        ("www.evil.test a@b.test", r"www\.evil\.test a\@b\.test"),
        ("$x$ :red[y]", "\\$x\\$ \\:\u2060red\\[y\\]"),
        (":material/home: :tada:", "\\:\u2060material\\/home\\: \\:\u2060tada\\:"),
        ("two\nlines\tand\0more\u202egnp", "two lines and more gnp"),
    ],
)
def test_user_text_becomes_markdown_that_shows_itself(text: str, shown: str) -> None:
    assert escape.md(text) == shown


def test_every_ascii_punctuation_mark_is_escaped() -> None:
    marks = "".join(chr(code) for code in range(33, 127) if not chr(code).isalnum())
    assert escape.md(marks).replace("\u2060", "") == "".join("\\" + mark for mark in marks)


def test_long_text_is_cut_and_scripts_stay_whole() -> None:
    assert escape.one_line("x" * 300, 10) == "x" * 9 + "…"
    assert escape.one_line("👩\u200d💻 می\u200cخواهم") == "👩\u200d💻 می\u200cخواهم"
    assert escape.one_line("a\ud800b") == "a b"


def test_a_log_loses_its_escape_sequences_and_redrawn_lines() -> None:
    text = "\x1b[31mred\x1b[0m\n10%\r50%\r100%\r\nbell\x07 \x1b]0;title\x07done\n"
    assert escape.lines(text) == "red\n100%\nbell done\n"


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0, "0 s"), (8.4, "8 s"), (59.6, "1 min"), (130, "2 min"), (3900, "1 h 05 min"), (180_000, "2 d 2 h"),
     (None, "–"), (math.nan, "–"), (-1, "–")],
)  # fmt: skip
def test_durations(seconds: float | None, shown: str) -> None:
    assert quantities.duration(seconds) == shown


@pytest.mark.parametrize(
    ("number", "shown"),
    [(0, "0 bytes"), (999, "999 bytes"), (1000, "1 kB"), (15_210_032, "15.2 MB"), (536_223_056, "536 MB"),
     (2.31e9, "2.31 GB"), (4e12, "4 TB"), (None, "–")],
)  # fmt: skip
def test_sizes(number: float | None, shown: str) -> None:
    assert quantities.size(number) == shown


def test_losses_and_rates() -> None:
    assert [quantities.loss(v) for v in (0.13121, 12.3456, None, math.inf)] == ["0.1312", "12.35", "–", "–"]
    assert [quantities.rate(v) for v in (2e-4, 3.352e-5, 0.0, None)] == ["2e-4", "3.35e-5", "0", "–"]


def test_times_are_the_readers_own() -> None:
    now = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
    assert quantities.ago("2026-03-02T11:56:00Z", now) == "4 min ago"
    assert quantities.ago("2026-03-02T11:59:55Z", now) == "just now"
    assert quantities.ago("nonsense", now) == "–"
    assert quantities.clock("2026-03-02T12:05:00Z", ZoneInfo("Asia/Tokyo")) == "2 Mar 2026, 21:05"
    assert quantities.between("2026-03-02T11:00:00Z", "2026-03-02T12:05:00Z") == "1 h 05 min"


@pytest.mark.parametrize(
    ("told", "alive_", "says"),
    [
        (None, False, "not been started"),
        ({"heartbeat": 1000.0, "state": "ready"}, True, ""),
        ({"heartbeat": 970.0, "state": "ready"}, False, "does not answer"),
        ({"heartbeat": 1000.0, "state": "stopped"}, False, "was stopped"),
        ({"heartbeat": 1000.0, "state": "halted", "halted": {"reason": "disk full"}}, True, "disk full"),
        ({"heartbeat": 1000.0, "state": "waiting", "waiting_for": "a trainer"}, True, "No job starts: a trainer"),
        ({"heartbeat": "soon"}, False, "not been started"),
    ],
)
def test_the_runners_state_in_words(told: dict | None, alive_: bool, says: str, tmp_path: Path) -> None:
    home = Home(tmp_path).create()
    if told is not None:
        home.runner_json.write_text(json.dumps(told))
    runner = alive.look(home, now=1005.0)
    assert runner.alive is alive_
    assert says in runner.problem
    assert bool(runner.problem) == bool(says)


def test_a_broken_runner_json_is_a_runner_that_was_not_started(tmp_path: Path) -> None:
    home = Home(tmp_path).create()
    home.runner_json.write_text("{")
    assert not alive.look(home, 0).alive


def test_every_setting_of_the_spec_is_offered_or_left_out_on_purpose() -> None:
    offered = set(fields.all_fields()) | set(fields.ELSEWHERE) | set(fields.NOT_OFFERED)
    spec = JobSpec.model_validate({"schema": 1, "model": "m", "dataset": "d"}).to_json()
    everything = {
        f"/{group}/{name}" if isinstance(members, dict) else f"/{group}"
        for group, members in spec.items()
        for name in (members if isinstance(members, dict) else ("",))
    }
    assert everything == offered
    assert set(fields.ESSENTIAL) <= set(fields.all_fields())


def test_fields_carry_the_specs_own_words_and_bounds() -> None:
    known = fields.all_fields()
    rank = known["/lora/rank"]
    assert (rank.kind, rank.default, rank.low, rank.high) == ("integer", 16, 1, 512)
    assert rank.help.startswith("Size of the adapter")
    rate = known["/train/learning_rate"]
    assert (rate.kind, rate.auto, rate.unset) == ("number", True, "auto")
    assert known["/train/gradient_checkpointing"].choices == ("auto", True, False)
    stopping = known["/limits/early_stopping"]
    assert [member.default for member in stopping.members] == [3, 0.0]
    assert known["/train/max_steps"].unset == "none"


def test_a_draft_says_only_what_differs(tmp_path: Path) -> None:
    spec = draft.spec_of("m", "d.csv", {"/train/epochs": 5, "/lora/rank": 32, "/name": "n"}, ["merged"])
    assert spec == {
        "schema": 1,
        "name": "n",
        "model": "m",
        "dataset": "d.csv",
        "train": {"epochs": 5},
        "lora": {"rank": 32},
        "export": ["adapter", "merged"],
    }
    assert list(spec)[:4] == ["schema", "name", "model", "dataset"]


def test_a_draft_is_judged_as_the_runner_does(tmp_path: Path) -> None:
    home = Home(tmp_path / "home").create()
    empty = draft.judge(draft.spec_of(None, None, {}), home, tmp_path)
    said = [draft.in_words(problem) for problem in empty.problems]
    assert said == ["Base model: choose one.", "Dataset: choose one."]
    wrong = draft.judge(draft.spec_of("m", "d", {"/train/batch_size": 3}), home, tmp_path)
    assert "Rows on the card at once: 3 does not divide" in draft.in_words(wrong.problems[0])
    unknown = draft.judge(draft.spec_of("gemma-3-27m", "no.csv", {}), home, tmp_path)
    assert not unknown.problems
    assert [problem.pointer for problem in unknown.doubts] == ["/model", "/dataset"]
    assert json.loads(unknown.text) == unknown.spec


def test_words_for_a_problem_without_a_place() -> None:
    assert draft.in_words(Problem("x", "it is wrong.", "Do this.")) == "it is wrong. Do this."


def test_typed_lists_and_pairs() -> None:
    assert draft.names(" q_proj, v_proj;k_proj ") == ["q_proj", "v_proj", "k_proj"]
    assert draft.pairs("prompt = Frage\n\n completion=Antwort ") == {"prompt": "Frage", "completion": "Antwort"}
    with pytest.raises(ValueError, match="role = column"):
        draft.pairs("prompt Frage")


def _export(folder: Path) -> None:
    folder.mkdir(parents=True)
    for name in ("adapter_model.safetensors", "adapter_config.json", "README.md", "training_args.bin", "optimizer.pt"):
        (folder / name).write_text(name)
    (folder / "tokenizer.json").symlink_to("/etc/hostname")
    (folder / "checkpoint").mkdir()


def test_a_download_holds_the_allowed_files_only(tmp_path: Path) -> None:
    _export(tmp_path / "adapter")
    with zipfile.ZipFile(bundle.zipped(tmp_path / "adapter", "tickets")) as archive:
        names = ["adapter_config.json", "adapter_model.safetensors", "README.md"]
        assert sorted(archive.namelist()) == sorted(f"tickets/{name}" for name in names)
        assert archive.testzip() is None
    assert bundle.size(tmp_path / "adapter") == sum(map(len, names))
    assert bundle.files(tmp_path / "nowhere") == []


def test_download_names_are_plain() -> None:
    assert bundle.file_name("../Über <b>", "01K00001ABCDEFGHJKMNPQRSTV", "adapter") == "ber-b-RSTV-adapter.zip"
    assert bundle.file_name("日本", "01K00001ABCDEFGHJKMNPQRSTV", "merged") == "model-RSTV-merged.zip"


def test_bases_are_the_folders_with_a_config(tmp_path: Path) -> None:
    home = Home(tmp_path).create()
    (home.models / "half").mkdir()
    (home.models / "broken").mkdir()
    (home.models / "broken" / "config.json").write_text("{")
    good = home.models / "gemma-3-270m"
    good.mkdir()
    durable.write_json(good / "config.json", {"model_type": "gemma3_text", "num_hidden_layers": 18, "hidden_size": 640})
    (good / "model.safetensors").write_bytes(b"12345")
    assert shelf.bases(home) == [shelf.Base("gemma-3-270m", "Gemma 3 · 18 layers · width 640", 5)]


def test_a_log_is_read_from_its_end(tmp_path: Path) -> None:
    path = tmp_path / "train.log"
    assert tail.log(path) == ""
    path.write_text("".join(f"line {i}\n" for i in range(100_000)))
    assert tail.log(path, lines=2) == "line 99998\nline 99999"
    assert tail.log(path, lines=10_000, tail_bytes=30) == "line 99998\nline 99999"


def test_events_in_words() -> None:
    assert tail.event({"event": "phase", "phase": "loading the model"}) == "Loading the model"
    assert tail.event({"event": "checkpoint", "step": 40, "phase": "training"}) == "Checkpoint: step 40"
    assert tail.event({}) == "Event"


def test_a_preview_is_text_whatever_the_rows_hold() -> None:
    records = [Record(2, {"a": "x", "b": [{"role": "user"}]}), Record(3, {"a": "\ud800", "c": None})]
    table = preview.rows(records, [])
    assert table.columns.tolist() == ["a", "b", "c"]
    assert table.index.tolist() == [2, 3]
    assert table.values.tolist() == [["x", '[{"role":"user"}]', ""], ["?", "", ""]]


def test_columns_say_their_role_where_the_name_does_not() -> None:
    assert preview.columns(["prompt", "completion"], {"prompt": "prompt"}) == "Columns: prompt, completion"
    said = preview.columns(["Frage", "Antwort"], {"prompt": "Frage", "completion": "Antwort"})
    assert said == "Columns: Frage, Antwort · read Frage as Prompt (what is asked), Antwort as Completion (the answer)"


def test_labels_are_readable() -> None:
    assert words.label("/train/weight_decay") == "Weight decay"
    assert words.state("running").label == "Running"
    assert words.state("new_state").label == "New_state"
    assert words.format_name(None) == "not recognised"


def test_where_it_is_a_service_its_own_command_starts_the_runner(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    assert alive.look(home).cure == "make up"
    monkeypatch.setenv("FINETUNER_START", "systemctl start finetuner-runner")
    assert alive.look(home).cure == "systemctl start finetuner-runner"
