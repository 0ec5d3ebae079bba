"""Hub datasets: which files a reference means, and the real huggingface_hub client against a local server."""

import gzip
import io
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import ROOT
from stub_hub import Hub, Repo, serving
from test_data_chat import folder

from spool.data import prepared
from spool.data.reading.hub import Reference, chosen
from spool.data.reading.read import read
from spool.protocol import durable
from spool.protocol.errors import DataError
from spool.protocol.home import Home, State
from spool.protocol.spec import JobSpec
from spool.protocol.states import Token, Tokens
from spool.protocol.ulid import mint

CODE = """
import json, sys
from pathlib import Path
from spool.data.reading.hub import fetch
from spool.protocol.errors import DataError
from spool.protocol.home import Home
for reference in sys.argv[2:]:
    try:
        print(json.dumps(str(fetch(Home.at(sys.argv[1]), reference))))
    except DataError as error:
        print(json.dumps(error.to_json()))
"""


def chosen_of(names: list[str], text: str = "hf:org/a", configs: Any = None) -> list[str]:
    card = SimpleNamespace(configs=configs) if configs is not None else None
    info = SimpleNamespace(siblings=[SimpleNamespace(rfilename=name) for name in names], card_data=card)
    return chosen(info, Reference.parse(text))


@pytest.mark.parametrize(
    ("names", "train"),
    [
        (["README.md", "load.py", "a.jsonl", "b.csv.gz", ".x.json", "dataset_info.json", "c.zip"], "a.jsonl b.csv.gz"),
        (["data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet", "data/test-00000-of-00001.parquet"],
         "data/train-00000-of-00002.parquet data/train-00001-of-00002.parquet"),
        (["train.csv", "test.csv", "validation.csv"], "train.csv"),
        (["a/train/x.csv", "a/test/x.csv"], "a/train/x.csv"),
        (["my_train_file.csv", "dev.csv"], "my_train_file.csv"),
        (["constraints.jsonl", "others.jsonl"], "constraints.jsonl others.jsonl"),
        (["questions.jsonl", "questions_test.jsonl"], "questions.jsonl"),
        (["test.jsonl"], "test.jsonl"),
        (["../up.csv", "a//b.csv", "/etc/x.csv", "fine.csv"], "fine.csv"),
        (["load.py", "README.md"], ""),
    ],
)  # fmt: skip
def test_without_a_card_names_tell_the_split(names: list[str], train: str) -> None:
    assert chosen_of(names) == train.split()


NAMES = ["train.csv", "x/train.csv", "x/y/more.csv", "x/test.csv", "fr/a.csv", "fr/test/b.csv", "z[1].csv"]


@pytest.mark.parametrize(
    ("data_files", "train"),
    [
        ("*.csv", "train.csv z[1].csv"),
        ("**/*.csv", " ".join(sorted(NAMES))),
        ("x/**", "x/test.csv x/train.csv x/y/more.csv"),
        ("x/*", "x/test.csv x/train.csv"),
        (["train.csv", "x/t?ain.csv"], "train.csv x/train.csv"),
        ("[!t]r/a.csv", "fr/a.csv"),
        ([{"split": "train", "path": ["x/y/*", "x/test.csv"]}, {"split": "test", "path": "fr/*"}],
         "x/y/more.csv x/test.csv"),
        ([{"split": "odd", "path": "fr/*.csv"}], "fr/a.csv"),
        ([{"split": "train", "path": "*.png"}], ""),
        ([7, {"path": None}, {"path": "train.csv"}], "train.csv"),
    ],
)  # fmt: skip
def test_the_card_tells_the_files(data_files: Any, train: str) -> None:
    assert chosen_of(NAMES, configs=[{"config_name": "default", "data_files": data_files}]) == train.split()


@pytest.mark.parametrize("card", ["x", [1], [{"config_name": "a"}], {"a": 1}])
def test_a_card_without_sense_is_as_none(card: Any) -> None:
    assert chosen_of(["train.csv", "test.csv"], configs=card) == ["train.csv"]


def test_configurations_and_splits_are_named_or_the_error_names_them() -> None:
    card = [
        {"config_name": "en", "data_files": [{"split": "train", "path": "en/a.csv"},
                                             {"split": "dev", "path": "en/b.csv"}]},
        {"config_name": "fr", "data_dir": "fr"},
    ]  # fmt: skip
    names = ["en/a.csv", "en/b.csv", "fr/train.csv", "fr/test.csv"]
    assert chosen_of(names, "hf:org/a:en", card) == ["en/a.csv"]
    assert chosen_of(names, "hf:org/a:en:dev", card) == ["en/b.csv"]
    assert chosen_of(names, "hf:org/a:fr", card) == ["fr/train.csv"]
    assert chosen_of(names, "hf:org/a", [card[0], {**card[1], "default": True}]) == ["fr/train.csv"]
    for text, hint in (
        ("hf:org/a", "Name one: hf:org/a:en, hf:org/a:fr."),
        ("hf:org/a:de", "Name one: hf:org/a:en, hf:org/a:fr."),
        ("hf:org/a:en:test", "It has: train, dev."),
    ):
        with pytest.raises(DataError) as error:
            chosen_of(names, text, card)
        assert (error.value.code, error.value.hint) == ("bad_reference", hint)


def test_without_a_card_a_configuration_is_a_folder() -> None:
    names = ["en/train.csv", "en/test.csv", "fr/train.csv"]
    assert chosen_of(names, "hf:org/a:en") == ["en/train.csv"]
    assert chosen_of(names, "hf:org/a:default:test") == ["en/test.csv"]
    with pytest.raises(DataError, match="no configuration 'test'") as error:
        chosen_of(names, "hf:org/a:test")
    assert error.value.hint == "It has: en, fr. A split of all files is written hf:org/a:default:SPLIT."


def test_references_never_share_a_folder() -> None:
    texts = ["hf:org/a:b:c-d", "hf:org/a:b-c:d", "hf:org/a-b:c:d", "hf:org/a@b:c:d", "hf:org/a"]
    assert len({Reference.parse(text).slug for text in texts}) == len(texts)
    assert len(Reference.parse(f"hf:org/{'a' * 90}@{'b' * 90}:{'c' * 90}").slug) < 100
    with pytest.raises(DataError, match="names no dataset"):
        Reference.parse("hf:../x")


# ---- through the real client


def rows(word: str, count: int = 20) -> bytes:
    each = ({"prompt": f"{word} {n}?", "completion": f"So {word} {n * n}."} for n in range(count))
    return "".join(json.dumps(row) + "\n" for row in each).encode()


def parquet(word: str) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table({"prompt": [f"{word} {n}?" for n in range(9)], "completion": ["so"] * 9}), out)
    return out.getvalue()


CARD = {
    "configs": [
        {"config_name": "default", "data_files": [{"split": "train", "path": ["a.jsonl", "test_too.jsonl"]},
                                                  {"split": "test", "path": "b/*.csv.gz"}]},
    ]
}  # fmt: skip


@pytest.fixture
def hub() -> Iterator[Hub]:
    carded = {
        "README.md": b"---\n---\n", "load.py": b"raise SystemExit", "a.jsonl": rows("train"),
        "test_too.jsonl": rows("also"), "b/x.csv.gz": gzip.compress(b"prompt,completion\nq,a\nr,b\n"), "x.png": b"x",
    }  # fmt: skip
    script = {"name.py": b"raise SystemExit", "README.md": b""}
    converted = {"en/train/0000.parquet": parquet("en"), "en/unsupervised/0000.parquet": parquet("un"),
                 "fr/partial-train/0000.parquet": parquet("fr"), "fr/test/0000.parquet": parquet("test")}  # fmt: skip
    bare = {"data/train-00000-of-00001.parquet": parquet("bare"), "data/test-00000-of-00001.parquet": parquet("t")}
    with serving() as hub:
        hub.repos = {
            "datasets/org/carded": Repo({"main": carded, "v1": {"old.jsonl": rows("old")}}, CARD),
            "datasets/org/bare": Repo({"main": bare}),
            "datasets/org/script": Repo({"main": script, "refs/convert/parquet": converted}),
            "datasets/org/only-script": Repo({"main": script}),
            "datasets/org/gated": Repo({"main": carded}, refuses=(403, "GatedRepo")),
            "datasets/org/private": Repo({"main": carded}, refuses=(401, "")),
            "datasets/org/private-too": Repo({"main": carded}, refuses=(401, "RepoNotFound")),
            "datasets/org/broken": Repo({"main": carded}, refuses=(500, "")),
        }
        yield hub


def environment(endpoint: str, **more: str) -> dict[str, str]:
    plain = {"PATH": os.environ["PATH"], "HF_ENDPOINT": endpoint, "HF_HUB_DISABLE_XET": "1"}
    return plain | {"HF_HUB_DISABLE_PROGRESS_BARS": "1", **more}


def fetch(endpoint: str, home: Home, *references: str, **more: str) -> list[Any]:
    """For each reference its folder, or the error as a document."""
    command = [sys.executable, "-c", CODE, str(home.root), *references]
    done = subprocess.run(
        command, cwd=ROOT, env=environment(endpoint, **more), capture_output=True, text=True, timeout=90, check=False
    )
    assert done.returncode == 0, done.stderr
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(told) == len(references), done.stderr
    return told


def prompts(folder: str) -> set[str]:
    """The first word of each row's prompt."""
    return {record.value["prompt"].split()[0] for record in read(Path(folder)).records}


def test_each_kind_of_repository_gives_its_rows(hub: Hub, home: Home) -> None:
    v1 = hub.repos["datasets/org/carded"].commit("v1")
    references = {
        "hf:org/carded": {"train", "also"},
        "hf:org/carded:default:test": {"q", "r"},
        "hf:org/bare": {"bare"},
        "hf:org/bare:default:test": {"t"},
        "hf:org/script:en": {"en"},
        "hf:org/script:en:unsupervised": {"un"},
        "hf:org/script:fr": {"fr"},
    }
    told = fetch(hub.endpoint, home, *references)
    for found, (reference, words) in zip(told, references.items(), strict=True):
        assert prompts(found) == words, reference
    hub.repos["datasets/org/carded"].card = None
    for found in fetch(hub.endpoint, home, "hf:org/carded@v1", f"hf:org/carded@{v1}"):
        assert prompts(found) == {"old"}
    assert not [name for name in hub.fetched if not name.endswith((".jsonl", ".csv.gz", ".parquet"))]
    assert not [*home.root.rglob("*.py"), *home.root.rglob("*.png")]
    assert len(hub.fetched) == len(set(hub.fetched)), "each file is fetched once"


def test_what_the_hub_refuses_is_said_in_words(hub: Hub, home: Home) -> None:
    told = {
        "hf:org/absent": ("dataset_missing", "the hub knows no dataset 'org/absent'", "spelling"),
        "hf:org/private": ("dataset_missing", "the hub knows no dataset 'org/private'", "HF_TOKEN"),
        "hf:org/private-too": ("dataset_missing", "the hub knows no dataset 'org/private-too'", "HF_TOKEN"),
        "hf:org/na--me": ("dataset_missing", "the hub knows no dataset", "spelling"),
        "hf:org/gated": ("dataset_gated", "org/gated is gated", "accept its terms"),
        "hf:org/carded@v9": ("dataset_missing", "has no revision 'v9'", "branches"),
        "hf:org/broken": ("hub_error", "the hub answered: Server error '500", "Retry later"),
        "hf:org/only-script": (
            "dataset_missing",
            "no data file that can be read, and the hub has made no",
            "never run",
        ),
        "hf:org/carded:default:dev": ("bad_reference", "no split 'dev'", "It has: train, test."),
        "hf:org/carded:en": ("bad_reference", "no configuration 'en'", "hf:org/carded:default"),
        "hf:org/script": ("bad_reference", "has 2 configurations", "hf:org/script:en, hf:org/script:fr"),
        "hf:org/script:en:test": ("bad_reference", "no split 'test'", "It has: train, unsupervised."),
    }
    for error, (code, message, hint) in zip(fetch(hub.endpoint, home, *told), told.values(), strict=True):
        assert error["code"] == code
        assert message in error["message"]
        assert hint in error["hint"]
    assert hub.fetched == []
    (error,) = fetch("http://127.0.0.1:9", home, "hf:org/carded")
    assert (error["code"], error["hint"]) == ("no_network", "Check the network, or upload the file.")
    (error,) = fetch(hub.endpoint, home, "hf:org/carded", HF_HUB_OFFLINE="1")
    assert error["code"] == "no_network"


def test_what_was_fetched_is_there_when_the_hub_is_not(hub: Hub, home: Home) -> None:
    references = ["hf:org/carded", "hf:org/carded:default:test", "hf:org/script:en"]
    before = fetch(hub.endpoint, home, *references)
    newer = {"a.jsonl": rows("newer")}
    hub.repos["datasets/org/carded"].revisions["v2"] = newer
    (other,) = fetch(hub.endpoint, home, "hf:org/carded@v2")
    assert prompts(other) == {"newer"}
    assert fetch("http://127.0.0.1:9", home, *references, "hf:org/carded@v2") == [*before, other]
    assert fetch(hub.endpoint, home, *references, HF_HUB_OFFLINE="1") == before
    hub.repos["datasets/org/carded"].refuses = (503, "")
    assert fetch(hub.endpoint, home, references[0]) == before[:1]
    (error,) = fetch("http://127.0.0.1:9", home, "hf:org/carded@v7")
    assert error["code"] == "no_network"


def test_a_hub_that_never_answers_is_given_up(home: Home) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        code = CODE.replace(
            "from spool.data.reading.hub import fetch", "from spool.data.reading import hub; hub.PATIENCE_S = 0.5"
        )
        code = code.replace("fetch(", "hub.fetch(")
        done = subprocess.run(
            [sys.executable, "-c", code, str(home.root), "hf:org/a"], cwd=ROOT, capture_output=True, timeout=30,
            env=environment(f"http://127.0.0.1:{silent.getsockname()[1]}"), check=True,
        )  # fmt: skip
    assert json.loads(done.stdout)["code"] == "no_network"


def test_the_command_line_checks_a_hub_dataset(hub: Hub, home: Home) -> None:
    command = [sys.executable, "-m", "spool.cli.main", "--home", str(home.root), "check", "--json"]
    for reference, status in (("hf:org/script:en", 0), ("hf:org/gated", 2)):
        done = subprocess.run(
            [*command, reference], cwd=ROOT, env=environment(hub.endpoint), capture_output=True, timeout=60, check=False
        )
        assert done.returncode == status, done.stderr
        told = json.loads(done.stdout)
        if status:
            assert told["error"]["code"] == "dataset_gated"
        else:
            assert (told["format"], told["rows"], told["usable_rows"]) == ("prompt_completion", 9, 9)


def test_a_job_on_a_hub_dataset_ends_in_prepared_rows(hub: Hub, home: Home) -> None:
    (home.models / "m").mkdir()
    folder(home.models / "m")
    jobs = {mint(): "hf:org/carded", mint(): "hf:org/gated"}
    for job_id, dataset in jobs.items():
        home.run(job_id).root.mkdir()
        spec = JobSpec.model_validate({"schema": 1, "model": "m", "dataset": dataset})
        durable.write_json(home.run(job_id).spec, spec.to_json())
        tokens = Tokens(home)
        tokens.create(State.CHECKING, Token(5, tokens.last_sequence() + 1, job_id), {"name": "x"})
    command = [sys.executable, "-m", "runner.checking", "--home", str(home.root), *jobs]
    subprocess.run(command, cwd=ROOT, env=environment(hub.endpoint), capture_output=True, timeout=90, check=True)
    good, gated = (home.run(job_id) for job_id in jobs)
    assert durable.read_json(good.checked) == {"v": 1, "outcome": "passed", "error": None}
    data = prepared.load(good.data)
    assert data is not None
    assert (data.train_rows, data.dataset["reference"]) == (40, "hf:org/carded")
    assert durable.read_json(gated.checked)["error"]["code"] == "dataset_gated"
