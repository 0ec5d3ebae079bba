"""ONNX on tiny Gemmas: the graph says what transformers says, its numbers are looked at, and what can go wrong.

`make dev` installs the extra that this takes. With the real model: tests/test_exports_proof.py.
"""

import importlib.util
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_exports_merge import lora, quiet

from runner.exports import card, make, merge, onnx, onnx_builder, onnx_weights
from runner.exports.make import Source
from runner.exports.onnx import Onnx
from runner.exports.readers import DoesNotLoad, Places
from runner.exports.reference import Answered, Probe, Reference
from runner.job import Attempt, StopRequest
from spool.forecast import exports as forecast
from spool.protocol.errors import FinetunerError
from spool.protocol.home import Home
from spool.protocol.resolve import Trained

pytestmark = pytest.mark.training
PROMPT, TOKENS = list(range(300, 400)), list(range(400, 430))
"""Longer than the sliding window of 64."""


@pytest.fixture(scope="module")
def adapter(tiny_gemma: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lora(tiny_gemma, tmp_path_factory.mktemp("onnx") / "adapter")


@pytest.fixture(scope="module")
def merged(tiny_gemma: Path, adapter: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("onnx") / "merged"
    merge.merge(tiny_gemma, adapter, folder, quiet)
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        shutil.copy(tiny_gemma / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def built(merged: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("onnx") / "built"
    folder.mkdir()
    onnx.build(merged, folder, folder.with_suffix(".log"), quiet)
    return folder


@pytest.fixture
def export(built: Path, tmp_path: Path) -> Path:
    """A copy to break."""
    return Path(shutil.copytree(built, tmp_path / "onnx"))


def expected(model: Any) -> np.ndarray:
    """What a model of transformers finds of TOKENS after PROMPT, in 32 bit."""
    with torch.no_grad():
        logits = model(torch.tensor([[*PROMPT, *TOKENS[:-1]]])).logits[0, len(PROMPT) - 1 :]
    return np.asarray(torch.log_softmax(logits, -1).gather(1, torch.tensor(TOKENS)[:, None])[:, 0])


# ---- what it says


def test_it_says_what_the_merged_weights_say_at_once_and_token_by_token(merged: Path, built: Path) -> None:
    from transformers import AutoModelForCausalLM

    assert sorted(path.name for path in built.iterdir()) == sorted(onnx.FILES)
    reader = Onnx(built, built.with_suffix(".read.log"))
    try:
        at_once = reader.read(PROMPT, TOKENS)
        stepped = reader.read(PROMPT, TOKENS, step=1)
    finally:
        reader.close()
    theirs = expected(AutoModelForCausalLM.from_pretrained(merged, dtype=torch.float32))
    assert np.abs(at_once.of - theirs).max() < 1e-5
    assert np.abs(stepped.of - theirs).max() < 1e-5
    assert (at_once.best == stepped.best).all()


def gemma_2() -> Any:
    from transformers import Gemma2Config, Gemma2ForCausalLM

    return Gemma2ForCausalLM(Gemma2Config(**SHAPE, query_pre_attn_scalar=16, sliding_window=64))


def gemma_3_that_stretches() -> Any:
    """As 4B and larger do, and like them with eyes, which the ONNX model has not."""
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration, Gemma3TextConfig

    local, far = {"rope_type": "default", "rope_theta": 1e4}, {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6}
    rope = {"full_attention": far, "sliding_attention": local}
    text = Gemma3TextConfig(**SHAPE, query_pre_attn_scalar=16, sliding_window=64, rope_parameters=rope)
    eyes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = Gemma3Config(
        text_config=text,
        vision_config={**eyes, "image_size": 28, "patch_size": 14},
        mm_tokens_per_image=4,
        image_token_index=9,
        boi_token_index=7,
        eoi_token_index=8,
    )
    return Gemma3ForConditionalGeneration(config)


SHAPE: dict[str, Any] = {
    "vocab_size": 640, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 512,
    "layer_types": ["sliding_attention", "full_attention"], "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2,
}  # fmt: skip


@pytest.mark.parametrize("make_one", [gemma_2, gemma_3_that_stretches])
def test_every_generation_is_laid_out_right(
    make_one: Callable[[], Any], tiny_gemma: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from onnxruntime_genai.models import builder

    for name in ("AutoConfig", "Gemma3Model"):
        monkeypatch.setattr(builder, name, getattr(builder, name))
    monkeypatch.setattr(builder.Model, "load_weights", builder.Model.load_weights)
    torch.manual_seed(3)
    model = make_one()
    with torch.no_grad():  # norms that are not the same everywhere
        for name, weight in model.named_parameters():
            weight.copy_(torch.randn_like(weight) * (0.3 if "norm" in name else 0.1))
    folder = tmp_path / "model"
    model.to(torch.bfloat16).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tiny_gemma / name, folder / name)
    onnx_builder.build(str(folder), str(tmp_path / "onnx"))
    reader = Onnx(tmp_path / "onnx", tmp_path / "log")
    try:
        ours = reader.read(PROMPT, TOKENS).of
    finally:
        reader.close()
    theirs = type(model).from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    assert np.abs(ours - expected(theirs)).max() < 1e-4


# ---- its numbers


def data(folder: Path, name: str) -> np.ndarray:
    """A tensor in the file, to be written to."""
    found: np.ndarray = onnx_weights.initializers(folder, "r+")[name]
    return found


def through_fp16(folder: Path) -> None:
    matrix = data(folder, "model.layers.0.mlp.up_proj.MatMul.weight")
    matrix[:] = (matrix * 1e-6).astype(np.float16).astype(np.float32) * 1e6


def norms_in_16_bit(folder: Path) -> None:
    """What the builder makes of them by itself."""
    norm = data(folder, "model.layers.1.input_layernorm.weight")
    norm[:] = torch.from_numpy(np.array(norm)).bfloat16().float().numpy() + 0.003


def a_layer_of_the_base(folder: Path) -> None:
    matrix = data(folder, "model.layers.1.attn.qkv_proj.MatMul.weight")
    matrix[:, -1] *= 1.05


@pytest.mark.parametrize("plant", [through_fp16, norms_in_16_bit, a_layer_of_the_base])
def test_other_numbers_are_found(plant: Callable[[Path], None], export: Path, tiny_gemma: Path, adapter: Path) -> None:
    sound = onnx_weights.compare(export, tiny_gemma, adapter)
    assert sound.passed, sound
    assert sound.says == f"rows of {len(merge.tensors(tiny_gemma))} tensors are what base and adapter give"
    plant(export)
    assert not onnx_weights.compare(export, tiny_gemma, adapter).passed


def test_another_adapters_numbers_are_found(export: Path, tiny_gemma: Path, tmp_path: Path) -> None:
    other = lora(tiny_gemma, tmp_path / "other", r=4)
    assert not onnx_weights.compare(export, tiny_gemma, other).passed


def test_what_is_cut_short_does_not_load(export: Path, tmp_path: Path) -> None:
    path = export / "model.onnx.data"
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(DoesNotLoad, match="onnxruntime cannot load it"):
        Onnx(export, tmp_path / "log")


class Forgetful:
    """Finds everything less likely once it has to go by its cache."""

    def read(self, ids: list[int], tokens: list[int], step: int = 0) -> Places:
        of = np.log(np.full(len(tokens), 0.5 if step == 0 else 0.4))
        return Places(of, np.zeros(len(tokens)), np.zeros((len(tokens), 1)), of[:, None])


def test_a_cache_that_forgets_is_found() -> None:
    nothing = np.zeros((2, 1))
    answer = Answered(Probe([2, 9], [], None), [5, 6], True, nothing, nothing, np.empty(0))
    found = onnx.cache(Forgetful(), Reference([answer], True))
    assert (found.name, found.passed, found.measured) == ("cache", False, pytest.approx(0.223144))


# ---- what can go wrong


@pytest.fixture
def attempt(tmp_path: Path) -> Attempt:
    home = Home.at(tmp_path / "home").create()
    home.run("0" * 26).root.mkdir()
    return Attempt(home, "0" * 26, 1, StopRequest(home, "0" * 26))


def source(base: Path, adapter: Path, attempt: Attempt) -> Source:
    from runner import bases

    training = Trained("", "My tickets", adapter, base, "tiny", None)
    return Source(training, bases.at("tiny", base, None), attempt.run.exports, {"name": "My tickets"})


def test_without_the_extra_it_says_how_to_get_it_and_merges_nothing(
    tiny_gemma: Path, adapter: Path, attempt: Attempt, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    absent: Callable[..., Any] = lambda name, *more: None if name == "onnxruntime_genai" else find(name, *more)  # noqa: E731
    monkeypatch.setattr(importlib.util, "find_spec", absent)
    made = make.make(source(tiny_gemma, adapter, attempt), ["onnx"], attempt)
    assert (made["onnx"]["state"], made["onnx"]["error"]["code"]) == ("failed", "onnx_missing")
    assert "`make onnx`" in made["onnx"]["error"]["hint"]
    assert list(attempt.run.exports.iterdir()) == []


def test_what_the_builder_does_not_take_is_told_in_its_words(merged: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(merged, tmp_path / "merged"))
    config = folder / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "architectures": ["GemmaOfTomorrow"]}))
    (tmp_path / "out").mkdir()
    with pytest.raises(FinetunerError, match="is not currently supported") as caught:
        onnx.build(folder, tmp_path / "out", tmp_path / "log", quiet)
    assert caught.value.code == "onnx_failed"


def test_a_stop_ends_the_builder_at_once(merged: Path, tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def stop() -> None:
        raise Stop

    (tmp_path / "out").mkdir()
    with pytest.raises(Stop):
        onnx.build(merged, tmp_path / "out", tmp_path / "log", stop)
    assert list((tmp_path / "out").iterdir()) == []


def test_its_card_and_the_disk_that_it_takes(tmp_path: Path, tiny_gemma: Path, adapter: Path, attempt: Attempt) -> None:
    made = source(tiny_gemma, adapter, attempt)
    card.write(tmp_path, "onnx", made.facts, None, made.encoder)
    said = (tmp_path / "README.md").read_text()
    assert "library_name: onnx\n" in said
    assert "og.Model" in said
    assert not (tmp_path / "Modelfile").exists()
    assert forecast.disk_bytes(["onnx"], 100) == 300
    assert forecast.disk_bytes(["merged", "onnx"], 100) == 300
