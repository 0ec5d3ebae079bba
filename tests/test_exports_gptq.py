"""4-bit exports: a tiny Gemma really quantised by llm-compressor, what its certificate catches, and what may fail.

`make dev` makes the environment that they need; where it is missing these tests fail.
"""

import itertools
import json
import shutil
import stat
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from test_exports_merge import load, lora

from runner.exports import companions, gptq, importance, merge, weights
from runner.exports.make import Source, Workshop
from runner.exports.readers import DoesNotLoad, Weights
from runner.job import Attempt, Stopped, StopRequest
from spool.data.judging.chat import Encoder
from spool.health import extras
from spool.protocol import formats
from spool.protocol.errors import FinetunerError
from spool.protocol.home import Home


def quiet() -> None:
    pass


# ---- what people call it, and what they are told


@pytest.mark.parametrize("asked", ["gptq", "GPTQ", "awq", "W4A16", "int4", "4bit", "compressed-tensors", "gtpq"])
def test_it_is_what_people_mean_who_want_four_bits_for_vllm(asked: str) -> None:
    assert formats.nearest(asked) == "gptq"


@pytest.mark.parametrize(("asked", "meant"), [("q4", "gguf:q4_k_m"), ("gguf", "gguf:f16"), ("merge", "merged")])
def test_it_takes_no_other_names(asked: str, meant: str) -> None:
    assert formats.nearest(asked) == meant


def test_where_it_is_not_installed_it_says_what_installs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert extras.gptq(tmp_path) is None
    monkeypatch.setattr(extras, "gptq", lambda: None)
    with pytest.raises(FinetunerError) as told:
        gptq.quantise(tmp_path, tmp_path, [[2]], tmp_path / "log", quiet)
    assert (told.value.code, "`make gptq`" in told.value.hint) == ("gptq_missing", True)
    finding = next(each for each in extras.examine() if "GPTQ" in each.message)
    assert (finding.level, "`make gptq`" in finding.message) == ("ok", True)


def test_the_tests_have_it() -> None:
    """`make dev` installs it: nothing here is ever skipped."""
    assert extras.gptq() is not None, "run `make gptq`"


# ---- the process


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """A Python that does something else with the job."""

    def make_one(code: str) -> Path:
        script = tmp_path / "python"
        script.write_text(f"#!{sys.executable}\nimport json, os, sys, time\n{code}\n")
        script.chmod(script.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setattr(extras, "gptq", lambda: script)
        return tmp_path / "log"

    return make_one


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("print(json.dumps({'error': 'ValueError: no such layer'})); sys.exit(1)", "ValueError: no such layer"),
        ("print('Killed by nobody'); sys.exit(7)", "Killed by nobody"),
        ("os.kill(os.getpid(), 9)", "want of memory"),
        ("print('all is well')", "all is well"),
        ("", "could not quantise"),
    ],
)
def test_what_llm_compressor_says_is_told(
    code: str, says: str, stand_in: Callable[[str], Path], tmp_path: Path
) -> None:
    log = stand_in(code)
    with pytest.raises(FinetunerError, match=says) as told:
        gptq.quantise(tmp_path, tmp_path, [[2]], log, quiet)
    assert told.value.code == "gptq_failed"
    assert str(log) in told.value.hint


def test_a_stop_ends_the_process_at_once(stand_in: Callable[[str], Path], tmp_path: Path) -> None:
    log = stand_in("print(os.getpid(), flush=True); time.sleep(60)")

    def stop() -> None:
        raise Stopped

    began = time.monotonic()
    with pytest.raises(Stopped):
        gptq.quantise(tmp_path, tmp_path, [[2]], log, stop)
    assert time.monotonic() - began < 10
    assert not Path(f"/proc/{int(log.read_text())}").exists()


def test_progress_is_the_only_sign_of_life(stand_in: Callable[[str], Path], tmp_path: Path) -> None:
    """A process that hangs must look like one: the daemon ends a job whose pulse stands still."""
    seen: list[float] = []
    log = stand_in("print(1, flush=True); time.sleep(0.5); print(json.dumps({'quantised': 1}))")
    gptq.quantise(tmp_path, tmp_path, [[2]], log, lambda: seen.append(time.monotonic()))
    assert max(later - earlier for earlier, later in itertools.pairwise(seen)) > 0.4


def test_it_leaves_when_nobody_waits_for_it_any_more(tmp_path: Path) -> None:
    """Whoever has started it may be killed: its input ends then, and it with it."""
    import subprocess

    script = Path(gptq.__file__).with_name("gptq_quantiser.py")
    job = json.dumps({"model": str(tmp_path / "none"), "target": str(tmp_path), "rows": [[2]]})
    done = subprocess.run(
        [sys.executable, "-P", "-c", _SLOW.format(script=script)], input=job + "\n", text=True, timeout=30, check=False
    )
    assert done.returncode == 3


_SLOW = """
import importlib.util, time
spec = importlib.util.spec_from_file_location("quantiser", "{script}")
quantiser = importlib.util.module_from_spec(spec)
spec.loader.exec_module(quantiser)
quantiser.quantise = lambda *_: time.sleep(60)
quantiser.main()
"""


# ---- a tiny Gemma, quantised


@pytest.fixture(scope="module")
def made(tiny_gemma: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """base, adapter, merged and gptq, beside each other."""
    root = tmp_path_factory.mktemp("gptq")
    shutil.copytree(tiny_gemma, root / "base")
    lora(root / "base", root / "adapter")
    merge.merge(root / "base", root / "adapter", root / "merged", quiet)
    encoder = Encoder.for_model(root / "base")
    companions.tokenizer(root / "merged", root / "base", encoder)
    torch.manual_seed(1)
    rows = torch.randint(6, 260, (16, 24)).tolist()
    (root / "gptq").mkdir()
    gptq.quantise(root / "merged", root / "gptq", rows, root / "gptq.log", quiet)
    companions.tokenizer(root / "gptq", root / "base", encoder)
    return root


@pytest.mark.training
def test_the_layers_have_four_bits_and_all_else_is_as_it_was(made: Path) -> None:
    before, after = load(made / "merged"), load(made / "gptq")
    packed = {name.removesuffix("_packed") for name in after if name.endswith("_packed")}
    assert packed == {name for name in before if name.endswith("_proj.weight")}
    for name in set(before) - packed:  # llm-compressor by itself leaves other norms behind
        assert torch.equal(before[name], after[name]), name
    one = "model.layers.0.mlp.down_proj.weight"
    assert after[f"{one}_packed"].numel() * 8 == before[one].numel()
    config = json.loads((made / "gptq" / "config.json").read_text())["quantization_config"]
    assert (config["quant_method"], config["format"]) == ("compressed-tensors", "pack-quantized")
    assert config["config_groups"]["group_0"]["weights"]["group_size"] == 64  # the largest that divides its matrices
    assert sorted(path.name for path in (made / "gptq").iterdir() if "recipe" in path.name) == []
    assert all(path.stat().st_mode & 0o044 for path in (made / "gptq").iterdir()), "others can read it"


@pytest.mark.training
def test_it_loads_and_expects_nearly_what_the_merged_weights_expect(made: Path, tmp_path: Path) -> None:
    reader = gptq.reader(made / "gptq", tmp_path / "log")
    try:
        ids, tokens = [2, 40, 50, 60, 70], [80, 90, 100, 110]
        ours, theirs = Weights.at(made / "merged").read(ids, tokens), reader.read(ids, tokens)
        assert theirs.ids.shape == (4, 200)
        assert abs(ours.of - theirs.of).max() < 1.5
        said = reader.chat([{"role": "user", "content": "Hello"}], 4)
        assert said.ids == Encoder.for_model(made / "base").generation_ids([{"role": "user", "content": "Hello"}])
        assert 1 <= said.tokens <= 4
    finally:
        reader.close()


@pytest.mark.training
def test_what_is_cut_short_does_not_load(made: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(made / "gptq", tmp_path / "gptq")
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-1000])
    with pytest.raises(DoesNotLoad, match="transformers cannot load it: "):
        gptq.reader(folder, tmp_path / "log")


def scales_of_other_groups(stored: dict[str, Any]) -> None:
    name = next(name for name in stored if name.endswith("down_proj.weight_scale"))
    stored[name] = stored[name].flip(1)


def nibbles_the_other_way_round(stored: dict[str, Any]) -> None:
    """As AutoAWQ orders them."""
    name = next(name for name in stored if name.endswith("q_proj.weight_packed"))
    numbers = stored[name]
    turned = sum(((numbers >> (4 * i)) & 15) << (28 - 4 * i) for i in range(8))
    stored[name] = turned.to(torch.int32)


def norms_rounded_away(stored: dict[str, Any]) -> None:
    """What llm-compressor does to Gemma's."""
    name = next(name for name in stored if name.endswith("input_layernorm.weight"))
    stored[name] = (stored[name] + 0.004).to(torch.bfloat16)


def a_matrix_missing(stored: dict[str, Any]) -> None:
    del stored[next(name for name in stored if name.endswith("k_proj.weight_packed"))]


@pytest.mark.training
@pytest.mark.parametrize(
    "plant", [scales_of_other_groups, nibbles_the_other_way_round, norms_rounded_away, a_matrix_missing]
)
def test_broken_numbers_are_caught(plant: Callable[[dict[str, Any]], None], made: Path, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    sound = weights.compare("gptq", made / "gptq", made / "base", made / "adapter")
    assert sound.passed, sound.says
    assert 0.05 < (sound.measured or 0) < 0.3
    folder = shutil.copytree(made / "gptq", tmp_path / "gptq")
    stored = load(folder)
    plant(stored)
    save_file(stored, folder / "model.safetensors", {"format": "pt"})
    assert not weights.compare("gptq", folder, made / "base", made / "adapter").passed


@pytest.mark.training
def test_the_wrong_base_and_the_wrong_adapter_are_caught(made: Path, tmp_path: Path) -> None:
    other = lora(made / "base", tmp_path / "other", r=4)
    assert "scales" in weights.compare("gptq", made / "gptq", made / "base", other).says
    from safetensors.torch import save_file

    base = shutil.copytree(made / "base", tmp_path / "base")
    stored = {name: each + 0.02 * each.std() * (each.ndim == 2) for name, each in load(base).items()}
    save_file(stored, base / "model.safetensors", {"format": "pt"})
    assert not weights.compare("gptq", made / "gptq", base, made / "adapter").passed


@pytest.mark.training
def test_of_a_model_that_sees_only_what_reads_and_writes_is_quantised(tiny_gemma: Path, tmp_path: Path) -> None:
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration, Gemma3TextConfig, SiglipVisionConfig

    text = Gemma3TextConfig(
        vocab_size=640, hidden_size=64, intermediate_size=128, num_hidden_layers=1, num_attention_heads=4,
        num_key_value_heads=1, head_dim=16, layer_types=["full_attention"],
    )  # fmt: skip
    vision = SiglipVisionConfig(
        hidden_size=32, intermediate_size=37, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14
    )
    config = Gemma3Config(
        text_config=text, vision_config=vision, mm_tokens_per_image=4, image_token_index=600, boi_token_index=601,
        eoi_token_index=602,
    )  # fmt: skip
    model, target = tmp_path / "model", tmp_path / "gptq"
    Gemma3ForConditionalGeneration(config).to(torch.bfloat16).save_pretrained(str(model))
    for name in companions.TOKENIZER_FILES:
        if (tiny_gemma / name).exists():
            shutil.copy(tiny_gemma / name, model)
    target.mkdir()
    gptq.quantise(model, target, [[2, *range(40, 60)]] * 4, tmp_path / "log", quiet)
    packed = {name for name in load(target) if name.endswith("_packed")}
    assert len(packed) == 7
    assert all(name.startswith("language_model.") for name in packed), packed
    reader = gptq.reader(target, tmp_path / "log")
    assert reader.read([2, 40, 50], [60, 70]).of.shape == (2,)
    reader.close()


@pytest.mark.training
def test_matrices_that_fit_no_group_are_refused_in_words(tmp_path: Path) -> None:
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    config = Gemma3TextConfig(
        vocab_size=64, hidden_size=24, intermediate_size=48, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, head_dim=8, layer_types=["full_attention"],
    )  # fmt: skip
    Gemma3ForCausalLM(config).save_pretrained(str(tmp_path / "odd"))
    with pytest.raises(FinetunerError, match=r"\[16, 24, 48\] columns") as told:
        gptq.quantise(tmp_path / "odd", tmp_path / "out", [[2, 3]], tmp_path / "log", quiet)
    assert told.value.code == "gptq_failed"


# ---- rows


def test_without_the_training_rows_it_is_refused(home: Home, tiny_gemma: Path, tmp_path: Path) -> None:
    from runner import bases
    from spool.protocol.resolve import Trained

    run = home.run("0" * 26)
    run.root.mkdir(parents=True)
    base = bases.at("tiny", tiny_gemma, None)
    training = Trained("", "an adapter", tmp_path / "adapter", tiny_gemma, "tiny", None)
    source = Source(training, base, run.exports, {"name": "x"})
    shop = Workshop(source, Attempt(home, "0" * 26, 1, StopRequest(home, "0" * 26)))
    with pytest.raises(FinetunerError, match="training rows") as told:
        _ = shop.calibration
    assert (told.value.code, "gguf:q4_k_m" in told.value.hint) == ("no_training_rows", True)


def test_a_hundred_odd_rows_are_taken_from_all_over(monkeypatch: pytest.MonkeyPatch) -> None:
    from types import SimpleNamespace

    import numpy as np

    data = [SimpleNamespace(input_ids=np.arange(n, n + 5_000)) for n in range(1_000)]
    monkeypatch.setattr(importance.arrow_rows, "read", lambda _: iter(data))
    found = list(importance.rows(SimpleNamespace(train="x", train_rows=len(data))))  # type: ignore[arg-type]
    assert importance.ROWS <= len(found) <= 2 * importance.ROWS
    assert {len(row) for row in found} == {importance.ROW_TOKENS}
    assert found[-1][0] > 900
