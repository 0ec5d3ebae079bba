"""Benchmarks of a report: lm-evaluation-harness over a tiny Gemma and tasks of this server's own, without a network."""

import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import orjson
import pytest

from runner.exports import sources
from runner.job import Attempt, Stopped, StopRequest
from runner.report import benchmarks, page
from runner.report.benchmarks import Ready
from spool.protocol import durable
from spool.protocol.errors import FinetunerError, SpecError
from spool.protocol.home import Home, Run
from spool.protocol.parse import parse_spec
from tests.conftest import ROOT
from tests.stub_hub import Repo, serving
from tests.test_report_ask import training  # noqa: F401
from tests.test_report_page import HOSTILE, build, rows, run, story  # noqa: F401

JOB = "01M83T39RSXNMCZHRRM215TC4D"
TASK = """
dataset_path: json
dataset_kwargs: {data_files: {test: rows.jsonl}}
test_split: test
doc_to_text: "Question: {{question}}\\nAnswer:"
"""
CHOOSE = f'task: choose\n{TASK}output_type: multiple_choice\ndoc_to_choice: "{{{{choices}}}}"\ndoc_to_target: gold\n'
WRITE = f"""task: write
{TASK}output_type: generate_until
doc_to_target: answer
generation_kwargs: {{until: ["\\n"], max_gen_toks: 8, do_sample: false}}
metric_list: [{{metric: chrf}}]
"""
PERPLEXITY = f"task: surprise\n{TASK}output_type: loglikelihood_rolling\ndoc_to_target: answer\n"
PERPLEXITY += "metric_list: [{metric: word_perplexity}]\n"


@pytest.fixture
def extra() -> None:
    """CI has to have it (`make dev`)."""
    if importlib.util.find_spec("lm_eval") is None:
        reason = "no lm-eval: make benchmarks"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)


@pytest.fixture
def own(extra: None, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with three tasks, in a home whose lm-eval has no others."""
    import datasets
    from lm_eval.tasks import manager

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
    monkeypatch.setattr(manager, "__file__", str(tmp_path / "shipped" / "manager.py"))
    home.benchmarks.mkdir(parents=True)
    told = [
        {
            "question": f"What is {i}?",
            "choices": ["yes", "no", "perhaps so"],
            "gold": i % 3,
            "answer": f"the number {i}",
        }
        for i in range(6)
    ]
    (home.benchmarks / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in told))
    for name, task in (("choose", CHOOSE), ("write", WRITE), ("surprise", PERPLEXITY)):
        (home.benchmarks / f"{name}.yaml").write_text(task)
    return home.benchmarks


def attempt_of(home: Home) -> Attempt:
    home.run(JOB).root.mkdir(parents=True, exist_ok=True)
    return Attempt(home, JOB, 1, StopRequest(home, JOB))


def refused(home: Home, *names: str) -> FinetunerError:
    with pytest.raises(FinetunerError) as caught:
        benchmarks.ready(names, 5, False, attempt_of(home))
    return caught.value


# ---- what a spec may say


def spec(**fields: Any) -> bytes:
    return orjson.dumps({"schema": 1, "kind": "evaluate", "job": JOB, **fields})


def test_a_spec_names_benchmarks() -> None:
    told = parse_spec(spec(benchmarks=["arc_easy", "egymmlu_arabic_language_(general)"], benchmark_rows=20))
    assert told.to_json()["benchmarks"] == ["arc_easy", "egymmlu_arabic_language_(general)"]
    assert parse_spec(spec()).to_json()["benchmarks"] == []


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        ({"benchmarks": ["../../etc/passwd"]}, "/benchmarks/0"),
        ({"benchmarks": ["tasks/mine.yaml"]}, "/benchmarks/0"),
        ({"benchmarks": ["arc*"]}, "/benchmarks/0"),
        ({"benchmarks": ["-h"]}, "/benchmarks/0"),
        ({"benchmarks": [f"task_{i}" for i in range(9)]}, "/benchmarks"),
        ({"benchmarks": ["arc_easy", "arc_easy"]}, "/benchmarks"),
        ({"benchmarks": ["arc_easy"], "benchmark_rows": 0}, "/benchmark_rows"),
    ],
)
def test_a_spec_that_names_none_is_refused(fields: dict[str, Any], where: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse_spec(spec(**fields))
    assert [each.pointer for each in caught.value.problems] == [where]


# ---- before anything is asked


def test_without_the_extra_it_is_said_how_to_get_it(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmarks.importlib.util, "find_spec", lambda name: None)
    error = refused(home, "arc_easy")
    assert error.code == "benchmarks_missing"
    assert "make benchmarks" in error.hint


def test_a_wrong_name_is_told_with_the_nearest(home: Home, own: Path) -> None:
    error = refused(home, "choose", "wirte")
    assert (error.code, error.message) == ("benchmark_unknown", "lm-eval knows no task 'wirte'.")
    assert error.hint.startswith("Did you mean write?")
    assert str(own) in error.hint


def test_data_that_the_hub_has_need_the_network(home: Home, own: Path) -> None:
    """The tests' HF_HUB_OFFLINE is a hub that cannot be reached."""
    (own / "far.yaml").write_text(CHOOSE.replace("choose", "far").replace("path: json", "path: org/data"))
    error = refused(home, "far")
    assert (error.code, error.message) == (
        "no_network",
        "the hub cannot be reached to fetch the data of the benchmark far.",
    )


def test_a_metric_that_is_code_of_the_hub_is_never_fetched(home: Home, own: Path) -> None:
    (own / "odd.yaml").write_text(WRITE.replace("write", "odd").replace("metric: chrf", "metric: nobody_knows"))
    error = refused(home, "odd")
    assert error.code == "benchmark_failed"
    assert "the metric nobody_knows: code of the hub" in error.message


def test_a_task_that_runs_what_a_model_has_written_is_refused(home: Home, own: Path) -> None:
    (own / "runs.yaml").write_text(WRITE.replace("write", "runs") + "unsafe_code: true\n")
    error = refused(home, "runs")
    assert error.code == "benchmark_failed"
    assert "runs what a model has written" in error.message


def test_a_task_whose_file_is_not_there_says_which(home: Home, own: Path) -> None:
    (own / "lost.yaml").write_text(CHOOSE.replace("choose", "lost").replace("rows.jsonl", "gone.jsonl"))
    error = refused(home, "lost")
    assert error.code == "benchmark_failed"
    assert "gone.jsonl" in error.message


def test_what_the_hub_refuses_is_told_in_words(extra: None) -> None:
    import httpx
    from datasets.exceptions import DatasetNotFoundError
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError

    def answer(status: int) -> httpx.Response:
        return httpx.Response(status, request=httpx.Request("GET", "https://hub"))

    wrapped = OSError("could not load")
    wrapped.__cause__ = HfHubHTTPError("no", response=answer(401))
    told = [
        (wrapped, "token_rejected"),
        (GatedRepoError("no", response=answer(403)), "dataset_gated"),
        (DatasetNotFoundError("Dataset 'a/b' is a gated dataset on the Hub."), "dataset_gated"),
        (DatasetNotFoundError("Dataset 'a/b' doesn't exist on the Hub or cannot be accessed."), "dataset_missing"),
        (HfHubHTTPError("no", response=answer(503)), "hub_busy"),
        (httpx.ConnectError("no"), "no_network"),
        (OSError(28, "No space left on device"), "disk_full"),
        (RuntimeError("Dataset scripts are no longer supported, but found x.py"), "benchmark_failed"),
        (KeyError("'choices'"), "benchmark_failed"),
    ]
    assert [benchmarks.in_words("arc_easy", error).code for error, _ in told] == [code for _, code in told]


FETCH = """
import os, sys
from runner.job import Attempt, StopRequest
from runner.report import benchmarks
from spool.protocol.errors import FinetunerError
from spool.protocol.home import Home
home = Home.at(sys.argv[1])
for name in sys.argv[2:]:
    try:
        chosen = benchmarks.ready([name], 5, False, Attempt(home, "JOB", 1, StopRequest(home, "JOB")))
        print("==", name, len(chosen.tasks[name]["tasks"][name].test_docs()))
    except FinetunerError as error:
        print("==", name, error.code)
"""


def test_data_are_fetched_from_the_hub_and_its_refusals_are_told(home: Home, own: Path, tmp_path: Path) -> None:
    """The real `datasets` and huggingface_hub against a local hub; once fetched they are there without it."""
    refusals = {"locked": (401, ""), "gated": (403, "GatedRepo")}
    expected = {"near": "6", "locked": "token_rejected", "gated": "dataset_gated"}
    for name in expected:
        task = CHOOSE.replace("choose", name).replace("path: json", f"path: org/{name}")
        (own / f"{name}.yaml").write_text(task.replace("dataset_kwargs: {data_files: {test: rows.jsonl}}\n", ""))
    home.run("JOB").root.mkdir(parents=True)

    def told(endpoint: str, offline: str, *names: str) -> dict[str, str]:
        changed = {"HF_ENDPOINT": endpoint, "HF_HUB_OFFLINE": offline, "HF_DATASETS_CACHE": str(tmp_path / "cache")}
        environment = {**os.environ, **changed, "HF_HUB_CACHE": str(tmp_path / "hub"), "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-c", FETCH, str(home.root), *names]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, cwd=tmp_path)
        return dict(line.split()[1:] for line in done.stdout.splitlines() if line.startswith("=="))

    with serving() as hub:
        hub.repos["datasets/org/near"] = Repo({"main": {"data/test.jsonl": (own / "rows.jsonl").read_bytes()}})
        for name, how in refusals.items():
            hub.repos[f"datasets/org/{name}"] = Repo({"main": {}}, refuses=how)
        assert told(hub.endpoint, "0", *expected) == expected
        fetched = list(hub.fetched)
    assert "data/test.jsonl" in fetched
    assert told("http://127.0.0.1:9", "1", "near") == {"near": "6"}


# ---- asking


@pytest.mark.training
def test_the_harness_measures_what_it_measures_by_itself(
    home: Home, own: Path, tiny_gemma: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    from runner.report import ask, harness
    from spool.data.judging.chat import Encoder

    names = ["choose", "write", "surprise"]
    chosen = benchmarks.ready(names, 5, False, attempt_of(home))
    encoder, model = Encoder.for_model(tiny_gemma), ask.load(tiny_gemma)
    monkeypatch.chdir(own)
    theirs = simple_evaluate(
        "hf",
        {"pretrained": str(tiny_gemma), "add_bos_token": True, "softmax_dtype": "float32", "device": "cpu"},
        tasks=names,
        task_manager=TaskManager(include_path=own),
        limit=5,
        bootstrap_iters=1000,
    )["results"]
    for name in names:
        ours = harness.results(model, encoder, chosen.tasks[name], 5, False, time.monotonic() + 60, lambda: None, None)[
            "results"
        ][name]
        numbers = {key: value for key, value in theirs[name].items() if "," in key and value != "N/A"}
        assert numbers
        assert {key: ours[key] for key in numbers} == pytest.approx(numbers, rel=0.02), name


@pytest.mark.training
def test_an_evaluation_with_benchmarks(home: Home, own: Path, training: str) -> None:  # noqa: F811
    from runner import evaluate

    attempt = Attempt(home, training, 1, StopRequest(home, training))
    asked = spec(benchmarks=["choose", "write"], benchmark_rows=4, rows=2, general=False)
    told = evaluate.evaluate(parse_spec(asked), attempt)["report"]["benchmarks"]
    made = durable.read_json(attempt.run.report_json)["benchmarks"]
    assert told == made
    assert made["by"].startswith("lm-evaluation-harness 0.")
    assert (made["rows"], made["chat"], made["left_out"], made["base_cached"]) == (4, False, [], 0)
    found = {(line["task"], line["metric"]): line for line in made["lines"]}
    assert list(found) == [("choose", "acc"), ("choose", "acc_norm"), ("write", "chrf")]
    assert found["choose", "acc"]["rows"] == 4
    assert 0 <= found["choose", "acc"]["base"] <= 1
    assert found["write", "chrf"]["base"] != found["write", "chrf"]["tuned"], "the adapter was in it"
    assert all(line["tuned_stderr"] is not None for line in made["lines"])
    assert "<h2>Benchmarks</h2>" in attempt.run.report.read_text()
    again = evaluate.evaluate(parse_spec(asked), attempt)["report"]["benchmarks"]
    assert again["base_cached"] == 4 * 3 + 4, "each choice of each row, and each text: the base was asked nothing"
    assert again["lines"] == made["lines"]


@pytest.mark.training
def test_what_fails_or_has_no_time_is_left_out(home: Home, own: Path, training: str) -> None:  # noqa: F811
    (own / "broken.yaml").write_text(WRITE.replace("write", "broken") + "process_results: !function my.no\n")
    (own / "my.py").write_text("def no(doc, said):\n    raise ValueError('an own metric')\n")
    attempt = Attempt(home, training, 1, StopRequest(home, training))
    chosen = benchmarks.ready(["broken", "choose"], 2, True, attempt)
    source = sources.find(training, None, attempt)
    made = benchmarks.measure(chosen, source, attempt, time.monotonic() + 60)
    assert [line["task"] for line in made["lines"]] == ["choose", "choose"]
    assert made["left_out"] == [{"benchmark": "broken", "why": "it failed: ValueError: an own metric."}]
    late = benchmarks.measure(chosen, source, attempt, time.monotonic() - 1)
    assert late["lines"] == []
    assert [each["why"] for each in late["left_out"]] == ["the time was over"] * 2


@pytest.mark.training
def test_it_ends_in_the_middle_when_the_time_is_over_and_goes_on_from_there(
    home: Home, own: Path, tiny_gemma: Path
) -> None:
    from runner.report import ask, harness
    from spool.data.judging.chat import Encoder

    chosen = benchmarks.ready(["write"], 6, False, attempt_of(home))
    encoder, model = Encoder.for_model(tiny_gemma), ask.load(tiny_gemma)
    clock = iter(range(10_000))
    pulses: list[int] = []

    def results(until: float, replies: harness.Replies) -> dict[str, Any]:
        how = (until, lambda: pulses.append(1), replies, lambda: next(clock))
        return harness.results(model, encoder, chosen.tasks["write"], 6, False, *how)

    harness.MOST_ROWS, most = 2, harness.MOST_ROWS
    try:
        first = harness.Replies(own / "replies.json")
        with pytest.raises(harness.TimeOver):
            results(12, first)
        assert 12 <= len(pulses) <= 14, "the watchdog is told at each token"
        then = harness.Replies(own / "replies.json")
        whole = results(1000, then)
    finally:
        harness.MOST_ROWS = most
    assert 0 < then.used < 6
    assert whole["n-samples"]["write"]["effective"] == 6
    assert not model._forward_pre_hooks


@pytest.mark.training
def test_a_stop_is_heard_at_each_token_and_leaves_nothing_behind(home: Home, own: Path, training: str) -> None:  # noqa: F811
    attempt = Attempt(home, training, 1, StopRequest(home, training))
    chosen = benchmarks.ready(["write"], 6, True, attempt)
    source = sources.find(training, None, attempt)
    heard: list[int] = []

    def pulse() -> None:
        heard.append(1)
        if len(heard) == 5:
            raise Stopped

    attempt.phase, attempt.pulse = lambda words: None, pulse  # type: ignore[method-assign]
    with pytest.raises(Stopped):
        benchmarks.measure(chosen, source, attempt, time.monotonic() + 60)
    assert len(heard) == 5


@pytest.mark.training
def test_how_many_are_asked_at_once_follows_from_what_they_take(extra: None, tiny_gemma: Path) -> None:
    import torch

    from runner.report import ask, harness
    from spool.data.judging.chat import Encoder

    asked = harness.Loaded(ask.load(tiny_gemma), Encoder.for_model(tiny_gemma))
    if not torch.cuda.is_available():
        assert asked._detect_batch_size([("", [1] * 100, [1] * 28)]) == harness.MOST_ROWS
        read = len(asked.tokenizer) * harness.PLACE_BYTES * 512
        assert asked._detect_batch_size() == min(harness.MOST_ROWS, harness.BATCH_BYTES // read)
    assert asked._written_bytes() == 2 * 1 * 16 * 2 * 2, "layers, heads, their width, key and value, two bytes"


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"v":1,"said":{}}', b'{"replies":{"k":{"a":1}}}'])
def test_damaged_replies_are_asked_anew(extra: None, tmp_path: Path, content: bytes) -> None:
    from runner.report.harness import Replies

    (tmp_path / "r.json").write_bytes(content)
    replies = Replies(tmp_path / "r.json")
    assert replies.get("loglikelihood", ("a", "b")) is None
    replies.add_partial("loglikelihood", ("a", "b"), (-1.5, True))
    replies.add_partial("generate_until", ("a", {"do_sample": True}), "by chance")
    replies.save()
    again = Replies(tmp_path / "r.json")
    assert again.get("loglikelihood", ("a", "b")) == (-1.5, True)
    assert again.get("generate_until", ("a", {"do_sample": True})) is None


# ---- what is shown


def measured(**more: Any) -> dict[str, Any]:
    of_one = {"name": "arc", "sample_len": 50, "acc,none": 0.5, "acc_stderr,none": 0.07, "ppl,strict": 9, **more}
    return {
        "results": {"arc": of_one},
        "higher_is_better": {"arc": {"acc": True, "ppl": False}},
        "n-shot": {"arc": 0},
        "versions": {"arc": 1.0},
    }


def test_a_line_is_what_the_harness_has_measured() -> None:
    first, second = benchmarks.lines("arc", measured(), measured(**{"acc,none": 0.62, "ppl_stderr,strict": "N/A"}))
    assert first == {
        "benchmark": "arc",
        "task": "arc",
        "metric": "acc",
        "filter": "none",
        "base": 0.5,
        "tuned": 0.62,
        "base_stderr": 0.07,
        "tuned_stderr": 0.07,
        "higher_is_better": True,
        "rows": 50,
        "shots": 0,
        "version": 1.0,
    }
    assert (second["metric"], second["filter"], second["tuned_stderr"]) == ("ppl", "strict", None)


def test_of_a_group_its_own_numbers_are_told_and_else_those_of_its_tasks() -> None:
    group = {"name": "both", "sample_len": 100, "acc,none": 0.4}
    with_own = {**measured(), "groups": {"both": group}}
    with_own["results"]["both"] = group
    assert [(each["task"], each["base"]) for each in benchmarks.lines("both", with_own, with_own)] == [("both", 0.4)]
    without = measured()
    without["results"]["both"] = {"name": "both", "alias": "both"}
    assert [each["task"] for each in benchmarks.lines("both", without, without)] == ["arc", "arc"]


def test_the_page_shows_benchmarks_and_names_what_was_left_out(run: Run) -> None:  # noqa: F811
    made = {
        "by": "lm-evaluation-harness 0.4.13",
        "rows": 50,
        "chat": False,
        "lines": benchmarks.lines("arc", measured(), measured(**{"acc,none": 0.62})),
        "left_out": [{"benchmark": "mmlu", "why": f"it failed: {HOSTILE}."}],
        "base_cached": 0,
        "seconds": 1.0,
    }
    shown = page.render(build(story(rows(9, 8), benchmarks=made), run))
    assert '<td>arc</td><td>acc</td><td class="n">50</td>' in shown
    assert '<td class="n">0.500 ± 0.070</td><td class="n">0.620 ± 0.070</td>' in shown
    assert "ppl, strict (lower is better)" in shown
    assert "Left out: mmlu, it failed: &lt;script&gt;" in shown
    assert "<script" not in shown
    assert "<h2>Benchmarks</h2>" not in page.render(build(story(rows(9, 8)), run))


def test_the_extra_is_no_part_of_what_is_always_loaded() -> None:
    assert Ready.__module__ == "runner.report.benchmarks"
    code = "import runner.evaluate, runner.report.benchmarks, sys; sys.exit('lm_eval' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
