"""The catalogue of published Gemmas: true to what is installed, and its names work wherever a model is named."""

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from drop_box import Box

from spool.cli import main
from spool.data.judging.chat import GENERATIONS
from spool.forecast import needs, shapes, steps
from spool.forecast.estimate import estimate
from spool.forecast.machine import Machine
from spool.protocol import catalogue
from spool.protocol.catalogue import Published
from spool.protocol.home import Home, State
from spool.protocol.resolve import Places, Unresolved
from spool.protocol.states import Tokens

EVERY = pytest.mark.parametrize("model", catalogue.published(), ids=lambda model: model.name)
WITHOUT_COPY = {"google/gemma-4-12B-it": "models/gemma4_unified/configuration_gemma4_unified.py"}
"""Where transformers names what Unsloth's table does not have."""


def installed(package: str, path: str) -> str:
    """A file of a package, without importing it."""
    found = importlib.util.find_spec(package)
    assert found
    assert found.origin
    return Path(found.origin).with_name(path.split("/")[0]).joinpath(*path.split("/")[1:]).read_text()


def places(home: Home) -> Places:
    return Places(home, ROOT, [home.root])


def local(home: Home, name: str) -> None:
    (home.models / name).mkdir()
    (home.models / name / "config.json").write_text("{}")


@EVERY
def test_the_ids_are_those_that_the_installed_packages_know(model: Published) -> None:
    if model.mirror is None:
        assert model.hub_id in installed("transformers", WITHOUT_COPY[model.hub_id])
        return
    pairs = re.findall(r'"(unsloth/[^"]+)",\s+"(google/[^"]+)"', installed("unsloth", "models/mapper.py"))
    assert (model.mirror, model.hub_id) in pairs


@EVERY
def test_what_is_said_of_each_can_be_used_here(model: Published) -> None:
    generation = GENERATIONS[model.generation]
    assert model.context_tokens % 1024 == 0
    assert model.variant == "instruct" or generation.template, "nothing could be trained: it brings no chat template"
    assert installed("transformers", f"models/{model.generation}/__init__.py")
    count = needs.parameters(model)
    assert count
    if said := re.fullmatch(r"(\d+)(B|M)", model.size):
        stated = int(said[1]) * (1e9 if said[2] == "B" else 1e6)
        assert 0.95 * stated < count < 1.31 * stated, "Google's 2B has 2.6"
    shape = shapes.named(model.name)
    assert (model.parameters is None) == (shape is not None)
    assert shape is None or GENERATIONS[shape.kind] is generation


def test_four_bits_need_least_and_a_larger_one_more() -> None:
    known = {model.name: memory for model in catalogue.published() if (memory := needs.of(model))}
    for memory in known.values():
        assert memory.gpu_4bit < memory.gpu_8bit < memory.gpu_16bit
    order = ["gemma-3-270m", "gemma-3-1b-pt", "gemma-3-4b-pt", "gemma-3-12b-pt", "gemma-3-27b-pt"]
    sizes = [(known[name].gpu_4bit, known[name].cpu) for name in order]
    assert sizes == sorted(sizes)
    assert needs.of(catalogue.published()[0])
    assert needs.of(next(each for each in catalogue.published() if each.name == "gemma-4-12B-it")) is None


def test_a_name_stands_for_what_anybody_can_fetch(home: Home) -> None:
    for name, reference in (
        ("gemma-3-1b-it", "unsloth/gemma-3-1b-it"),
        ("Gemma-3N-e2b-IT", "unsloth/gemma-3n-E2B-it"),
        ("gemma-4-E2B-it", "google/gemma-4-E2B-it"),
    ):
        found = places(home).model(name)
        assert (found.reference, found.folder) == (reference, None)
    assert places(home).model("google/gemma-3-1b-it").reference == "google/gemma-3-1b-it"


def test_a_folder_under_models_comes_first(home: Home) -> None:
    local(home, "gemma-3-1b-it")
    found = places(home).model("gemma-3-1b-it")
    assert (found.reference, found.folder) == ("gemma-3-1b-it", home.models / "gemma-3-1b-it")


def test_a_slip_of_the_pen_is_answered_with_the_nearest_name(home: Home) -> None:
    with pytest.raises(Unresolved) as raised:
        Places(home, ROOT, [ROOT]).model("gemma-3-4b-itt")
    assert (raised.value.code, raised.value.hint) == ("model_missing", "Did you mean 'gemma-3-4b-it'?")


def test_what_a_name_became_stands_in_the_jobs_record(home: Home) -> None:
    box = Box(home)
    for name, model in (("a.json", "gemma-3-4b-it"), ("b.json", "m")):
        box.drop(name, json.dumps({"schema": 1, "model": model, "dataset": "README.md"}).encode())
    box.wait()
    assert box.rejected == {}
    tokens = Tokens(home)
    accepted = [tokens.body(State.CHECKING, token) for token in tokens.list(State.CHECKING)]
    records = [home.run(body["id"]) for body in accepted]
    assert [body["model"] for body in accepted] == ["unsloth/gemma-3-4b-it", "m"]
    assert [json.loads(run.spec.read_bytes())["model"] for run in records] == ["unsloth/gemma-3-4b-it", "m"]
    assert [json.loads(run.spec_orig.read_bytes())["model"] for run in records] == ["gemma-3-4b-it", "m"]


def test_a_name_is_estimated_before_anything_is_here(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    card = Machine("NVIDIA H100 80GB HBM3", 85 * 10**9, 100 * 10**9, 10**12, 16)
    spec = {"schema": 1, "model": "gemma-3-4b-it", "dataset": "examples/support_tickets.jsonl"}
    found = estimate(home, spec, machine=card)
    assert found.gpu_bytes
    assert any("fetching it comes on top" in reason for reason in found.reasons)
    unknown = estimate(home, {**spec, "model": "gemma-4-12B-it"}, machine=card)
    assert (unknown.gpu_bytes, unknown.problems) == (None, ())
    assert "this base is not on this server, and its size is not known by its name." in unknown.reasons


def test_the_command_line_lists_them(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    local(home, "ours")
    local(home, "gemma-2b")
    (home.cache / "hub/models--unsloth--gemma-3-1b-it/snapshots/c0ffee").mkdir(parents=True)
    (home.cache / "hub/models--unsloth--gemma-3-1b-it/snapshots/c0ffee/config.json").write_text("{}")
    assert main.main(["--home", str(home.root), "models", "--json"]) == 0
    listed = {each["name"]: each for each in json.loads(capsys.readouterr().out)}
    assert {name for name, each in listed.items() if each["here"] == "models"} == {"ours", "gemma-2b"}
    assert {name for name, each in listed.items() if each["here"] == "fetched"} == {"gemma-3-1b-it"}
    one = listed["gemma-3-27b-it"]
    assert (one["repository"], one["gated"]) == ("unsloth/gemma-3-27b-it", True)
    assert one["memory_bytes"]["gpu_4bit"] < 24 * 10**9 < one["memory_bytes"]["gpu_16bit"]
    assert main.main(["--home", str(home.root), "models"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:4]] == ["ours", "gemma-2b", "gemma-3-1b-it"]
    assert len(lines) == 1 + 1 + len(catalogue.published())


def test_the_documents_table_is_the_catalogue() -> None:
    """Make it anew with: python -m spool.forecast.needs"""
    text = (ROOT / "docs" / "models.md").read_text()
    assert needs.table() in text
    assert needs.ORDINARY in " ".join(text.split())


@pytest.mark.parametrize(
    ("config", "heads"),
    [
        ({"model_type": "gemma3", "text_config": {"num_hidden_layers": 34}}, 8),
        ({"model_type": "gemma3", "text_config": {"num_hidden_layers": 34, "num_attention_heads": 32}}, 32),
    ],
)
def test_a_config_of_several_parts_is_read_by_its_text(tmp_path: Path, config: dict[str, Any], heads: int) -> None:
    """Google's own of Gemma 3 leaves out what transformers knows."""
    text = {"hidden_size": 2560, "intermediate_size": 10240, **config["text_config"]}
    tower = {"hidden_size": 1152, "num_attention_heads": 16, "num_hidden_layers": 27}
    whole = {**config, "text_config": text, "vision_config": tower}
    (tmp_path / "config.json").write_text(json.dumps(whole))
    found = shapes.of(Home(tmp_path / "home"), "ours", tmp_path)
    assert found is not None
    assert (found.hidden, found.layers, found.heads, found.experts) == (2560, 34, heads, 0)
    assert found.kind in steps.PACKED_KINDS


def test_experts_are_read_where_the_configuration_has_them(tmp_path: Path) -> None:
    """A dense Gemma 4 names the same fields, with nothing in them."""
    known = shapes.named("gemma-4-26b")
    assert known is not None
    text = {theirs: getattr(known, ours) for ours, theirs in (shapes.FIELDS | shapes.EXPERTS).items()}
    for number, (changed, expected) in enumerate(
        (
            ({"enable_moe_block": True}, (128, 22_837_985_280)),
            ({"enable_moe_block": False, "num_experts": None}, (0, 0)),
            ({"enable_moe_block": True, "top_k_experts": None}, None),
        )
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps({"model_type": "gemma4", "text_config": text | changed}))
        found = shapes.of(Home(tmp_path / "home"), "ours", folder)
        assert (found and (found.experts, found.expert_parameters)) == expected
