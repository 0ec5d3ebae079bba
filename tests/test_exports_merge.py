"""Merging, tensor by tensor: against plain arithmetic and PEFT, in shards, interrupted, and what is refused."""

import errno
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from runner import bases
from runner.exports import make, merge
from runner.exports.merge import CannotMerge
from runner.exports.sources import Source
from runner.job import Attempt, StopRequest
from spool.protocol.errors import FinetunerError
from spool.protocol.home import Home
from spool.protocol.resolve import Trained

pytestmark = pytest.mark.training


def quiet() -> None:
    pass


@pytest.fixture
def base(tiny_gemma: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "base"
    shutil.copytree(tiny_gemma, folder)
    return folder


def lora(base: Path, folder: Path, **more: Any) -> Path:
    """An adapter with random matrices."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    settings = {"r": 8, "lora_alpha": 16, "target_modules": "all-linear", "init_lora_weights": False, **more}
    torch.manual_seed(7)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
    get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **settings)).save_pretrained(folder)
    return folder


@pytest.fixture
def adapter(base: Path, tmp_path: Path) -> Path:
    return lora(base, tmp_path / "adapter")


def load(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return {name: value for path in sorted(folder.glob("*.safetensors")) for name, value in load_file(path).items()}


def by_hand(base: Path, adapter: Path, scale: float) -> dict[str, Any]:
    matrices = load(adapter)
    merged = load(base)
    for name, weight in merged.items():
        a = f"base_model.model.{name.removesuffix('.weight')}.lora_A.weight"
        if a in matrices:
            product = matrices[a.replace("lora_A", "lora_B")].double() @ matrices[a].double()
            merged[name] = (weight.double() + scale * product).to(weight.dtype)
    return merged


def same(ours: dict[str, Any], theirs: dict[str, Any]) -> float:
    """The share of numbers that are equal; all are within one unit in the last place."""
    assert sorted(ours) == sorted(theirs)
    equal = total = 0
    for name, each in ours.items():
        assert each.dtype == theirs[name].dtype
        steps = (each.view(torch.int16).int() - theirs[name].view(torch.int16).int()).abs()
        assert steps.max() <= 1, name
        equal += int((steps == 0).sum())
        total += steps.numel()
    return equal / total


@pytest.mark.parametrize(("more", "scale"), [({}, 2.0), ({"use_rslora": True}, 16 / 8**0.5), ({"r": 2}, 8.0)])
def test_it_is_plain_arithmetic(base: Path, tmp_path: Path, more: dict[str, Any], scale: float) -> None:
    adapter = lora(base, tmp_path / "adapter", **more)
    size = merge.merge(base, adapter, tmp_path / "merged", quiet)
    made = load(tmp_path / "merged")
    assert same(made, by_hand(base, adapter, scale)) > 0.9999
    assert size == sum(2 * each.numel() for each in made.values()) == merge.size_bytes(base)
    changed = [name for name, each in load(base).items() if not torch.equal(each, made[name])]
    assert len(changed) == 2 * 7


def test_it_says_what_peft_says_when_both_are_loaded(base: Path, adapter: Path, tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    merge.merge(base, adapter, tmp_path / "merged", quiet)
    ours = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32)
    plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    ids = torch.arange(10, 60)[None]
    with torch.no_grad():
        before = plain(ids).logits
        theirs = PeftModel.from_pretrained(plain, adapter).merge_and_unload()(ids).logits
        assert (ours(ids).logits - theirs).abs().max() < 0.02 * (theirs - before).abs().max()


def test_shards_are_made_one_by_one_and_taken_up(base: Path, adapter: Path, tmp_path: Path) -> None:
    straight, cut = tmp_path / "straight", tmp_path / "cut"
    merge.merge(base, adapter, straight, quiet, shard_bytes=60_000)
    names = sorted(path.name for path in straight.glob("*.safetensors"))
    assert len(names) > 3
    assert names[0] == f"model-00001-of-{len(names):05}.safetensors"
    index = json.loads((straight / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"].values()) == set(names)
    assert set(index["weight_map"]) == set(load(base))
    assert sorted(path.name for path in straight.iterdir() if path.name.startswith(".")) == []

    class Cut(Exception):
        pass

    beats = iter(range(1000))

    def beat() -> None:
        if next(beats) == 12:
            raise Cut

    with pytest.raises(Cut):
        merge.merge(base, adapter, cut, beat, shard_bytes=60_000)
    whole = sorted(cut.glob("*.safetensors"))
    assert 0 < len(whole) < len(names)
    before = {path: path.stat().st_mtime_ns for path in whole}
    merge.merge(base, adapter, cut, quiet, shard_bytes=60_000)
    assert {path: path.stat().st_mtime_ns for path in whole} == before
    for name in names:
        assert (cut / name).read_bytes() == (straight / name).read_bytes()

    from transformers import AutoModelForCausalLM

    AutoModelForCausalLM.from_pretrained(cut)


def test_what_another_adapter_left_half_made_is_not_taken_up(base: Path, adapter: Path, tmp_path: Path) -> None:
    target = tmp_path / "merged"
    merge.merge(base, adapter, target, quiet, shard_bytes=60_000)
    (target / ".plan.json").write_text("{}")
    other = lora(base, tmp_path / "other", r=4)
    merge.merge(base, other, target, quiet, shard_bytes=60_000)
    assert same(load(target), by_hand(base, other, 4.0)) > 0.9999


@pytest.mark.parametrize(("stored", "becomes"), [("float32", "bfloat16"), ("float16", "float16")])
def test_sixteen_bit_bases_stay_what_they_are(
    base: Path, adapter: Path, tmp_path: Path, stored: str, becomes: str
) -> None:
    from safetensors.torch import save_file

    weights = {name: each.to(getattr(torch, stored)) for name, each in load(base).items()}
    save_file(weights, base / "model.safetensors", {"format": "pt"})
    merge.merge(base, adapter, tmp_path / "merged", quiet)
    assert {str(each.dtype) for each in load(tmp_path / "merged").values()} == {f"torch.{becomes}"}
    assert json.loads((tmp_path / "merged" / "config.json").read_text())["dtype"] == becomes


def test_what_has_no_merged_form_is_refused(base: Path, adapter: Path, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    target = tmp_path / "merged"
    for name, settings, says in (
        ("dora", {"use_dora": True}, "use_dora"),
        ("head", {"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ("experts", {"target_parameters": ["mlp.down_proj.weight"], "target_modules": ["q_proj"]}, "target_parameters"),
        ("embedding", {"target_modules": ["embed_tokens", "q_proj"]}, "no part of a plain LoRA"),
    ):
        with pytest.raises(CannotMerge, match=says):
            merge.merge(base, lora(base, tmp_path / name, **settings), target, quiet)

    weights = load(adapter)
    first = next(name for name in weights if "lora_B" in name)
    save_file({**weights, first: torch.full_like(weights[first], float("nan"))}, adapter / "adapter_model.safetensors")
    with pytest.raises(CannotMerge, match="not finite"):
        merge.merge(base, adapter, target, quiet)
    assert not list(target.glob("*.safetensors"))

    save_file({**weights, first: weights[first][:-1]}, adapter / "adapter_model.safetensors")
    with pytest.raises(CannotMerge, match="does not fit the base"):
        merge.merge(base, adapter, target, quiet)

    (adapter / "adapter_model.safetensors").write_bytes(b"no")
    with pytest.raises(CannotMerge, match="no safetensors file"):
        merge.merge(base, adapter, target, quiet)


def test_a_quantised_or_damaged_base_is_refused(base: Path, adapter: Path, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    whole = (base / "model.safetensors").read_bytes()
    (base / "model.safetensors").write_bytes(whole[:-100])
    with pytest.raises(CannotMerge, match="cut short"):
        merge.merge(base, adapter, tmp_path / "merged", quiet)
    (base / "model.safetensors").write_bytes(whole)
    weights = load(base)
    name = next(iter(weights))
    save_file({**weights, name: weights[name].to(torch.uint8)}, base / "model.safetensors", {"format": "pt"})
    with pytest.raises(CannotMerge, match="quantised on disk") as refused:
        merge.merge(base, adapter, tmp_path / "merged", quiet)
    assert "16-bit base" in refused.value.hint


@pytest.fixture
def source(base: Path, adapter: Path, home: Home) -> Source:
    run = home.run("0" * 26)
    run.root.mkdir()
    training = Trained("", "tickets", adapter, base, "tiny", None)
    return Source(training, bases.at("tiny", base, None), run.exports, {"name": "tickets"})


def attempt_at(home: Home) -> Attempt:
    return Attempt(home, "0" * 26, 1, StopRequest(home, "0" * 26))


def test_too_little_disk_is_said_with_the_number_before_anything_is_made(
    source: Source, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(make.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**12, 10**12, 900_000_000))
    with pytest.raises(FinetunerError, match=r"take 0\.0 GB for a while; 0\.9 GB are free") as refused:
        make.make(source, ["merged"], attempt_at(home))
    assert refused.value.code == "disk_full"
    assert list(source.exports.iterdir()) == []


def test_a_disk_that_fills_up_while_one_is_made_leaves_nothing_of_it_and_harms_no_other(
    source: Source, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(base: Path, adapter: Path, target: Path, pulse: Any) -> int:
        target.mkdir(parents=True, exist_ok=True)
        (target / "model.safetensors").write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device", str(target))

    monkeypatch.setattr(merge, "merge", full)
    made = make.make(source, ["adapter", "merged"], attempt_at(home))
    assert (made["merged"]["state"], made["merged"]["error"]["code"]) == ("failed", "disk_full")
    assert made["adapter"]["state"] in ("ready", "suspect")
    assert [path.name for path in source.exports.iterdir()] == ["adapter"]
