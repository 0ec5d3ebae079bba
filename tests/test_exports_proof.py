"""The certificate on the real model that the demo taught: what is sound is ready, each planted failure is caught."""

import json
import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Demo

from runner.exports import certificate, gguf, gguf_file, make, onnx_weights, reference, sources
from runner.exports.make import Workshop
from runner.exports.sources import Source
from runner.job import Attempt, StopRequest
from spool.protocol import formats, manifest
from spool.protocol.home import Home

pytestmark = [pytest.mark.alone, pytest.mark.slow, pytest.mark.timeout(1800)]
FORMATS = ["adapter", "merged", "gptq", "gguf:bf16", "gguf:q4_k_m", "gguf:q4_k_m+imatrix", "gguf:lora", "onnx"]
CHATML = (
    "{{ bos_token }}{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="module")
def attempt(demo: Demo) -> Attempt:
    home = Home.at(demo.home)
    home.run("0" * 26).root.mkdir()
    return Attempt(home, "0" * 26, 1, StopRequest(home, "0" * 26))


@pytest.fixture(scope="module")
def source(attempt: Attempt) -> Source:
    job_id = next(path.parents[2].name for path in attempt.home.runs.glob("*/exports/adapter/manifest.json"))
    return sources.find(job_id, None, attempt)


@pytest.fixture(scope="module")
def shop(source: Source, attempt: Attempt) -> Iterator[Workshop]:
    """With fewer prompts than a real certificate has: what is planted shows in any."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reference, "PROMPTS", 6)
        patch.setattr(certificate, "CHATS", 3)
        yield Workshop(source, attempt)


@pytest.fixture(scope="module")
def made(source: Source, attempt: Attempt, shop: Workshop) -> dict[str, dict[str, Any]]:
    return make.make(source, FORMATS, attempt)


def test_what_is_sound_is_ready(made: dict[str, dict[str, Any]], source: Source) -> None:
    assert {name: each["state"] for name, each in made.items()} == dict.fromkeys(made, "ready"), made
    for name in made:
        folder = source.exports / formats.folder(name)
        found = manifest.verify(folder)
        assert (found.faults, found.verdict, found.kind) == ([], "ready", name)
        assert found.lineage["job"] == source.training.job_id
        assert (folder / "GEMMA_TERMS.html").exists()
        proof = json.loads((folder / "certificate.json").read_text())
        assert proof["measured"]["equal_tokens"] > 0.95
        assert proof["held_out"] is True  # the demo is asked rows that it never learned from
    kl = {name: json.loads((source.exports / formats.folder(name) / "certificate.json").read_text()) for name in made}
    assert kl["merged"]["measured"]["kl"] < 0.001
    assert kl["merged"]["measured"]["kl"] <= kl["gguf:q4_k_m"]["measured"]["kl"]
    assert not [path for path in source.exports.iterdir() if path.name.startswith(".")]
    size = {name: made[name]["bytes"] for name in made}
    assert size["gguf:q4_k_m"] < 0.6 * size["gguf:bf16"]
    assert size["gguf:lora"] < 0.1 * size["gguf:bf16"]
    assert size["gptq"] < 0.8 * size["merged"]  # the embedding, two thirds of so small a model, stays in 16 bit


def test_asked_again_nothing_is_made_again(made: dict[str, dict[str, Any]], source: Source, attempt: Attempt) -> None:
    file = next((source.exports / "gguf-q4_k_m").glob("*.gguf"))
    before = file.stat().st_mtime_ns
    assert make.make(source, ["gguf:q4_k_m"], attempt)["gguf:q4_k_m"] == made["gguf:q4_k_m"]
    assert file.stat().st_mtime_ns == before


# ---- weights


def through_fp16(folder: Path, base: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    rounded = {name: each.to(torch.float16).to(torch.bfloat16) for name, each in weights.items()}
    save_file(rounded, folder / "model.safetensors", {"format": "pt"})


def of_another_base(folder: Path, base: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    torch.manual_seed(1)
    for name, each in weights.items():
        if "mlp" in name:
            weights[name] = each + 0.3 * each.float().std() * torch.randn_like(each)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def without_the_adapter(folder: Path, base: Path) -> None:
    shutil.copy(base / "model.safetensors", folder / "model.safetensors")


def cut_short(folder: Path, base: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1_000_000])


def another_template(folder: Path, base: Path) -> None:
    (folder / "chat_template.jinja").write_text(CHATML)


def two_bos(folder: Path, base: Path) -> None:
    path = folder / "chat_template.jinja"
    path.write_text("<bos>" + path.read_text())


def no_stop(folder: Path, base: Path) -> None:
    path = folder / "generation_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "eos_token_id": [3]}))


PLANTED_IN_WEIGHTS: list[tuple[Callable[[Path, Path], None], set[str]]] = [
    (through_fp16, {"weights"}),
    (of_another_base, {"weights", "tokens", "divergence", "loss"}),
    (without_the_adapter, {"weights", "tokens", "divergence", "loss"}),
    (cut_short, {"loads"}),
    (another_template, {"template"}),
    (two_bos, {"template", "bos"}),
    (no_stop, {"stop"}),
]


@pytest.mark.parametrize(("plant", "caught_by"), PLANTED_IN_WEIGHTS)
def test_planted_in_merged_weights(
    plant: Callable[[Path, Path], None], caught_by: set[str], made: Any, shop: Workshop, tmp_path: Path
) -> None:
    folder = tmp_path / "merged"
    shutil.copytree(shop.source.exports / "merged", folder)
    plant(folder, shop.source.base.folder)
    proof = shop.prove("merged", folder)
    assert proof["verdict"] == "suspect"
    failed = {check["name"] for check in proof["checks"] if not check["passed"]}
    assert caught_by <= failed, proof["checks"]
    if plant is through_fp16:  # no prompt would have shown it
        assert failed == {"weights"}


# ---- GPTQ


def scales_of_other_groups(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    stored = load_file(folder / "model.safetensors")
    for name, each in stored.items():
        if name.endswith("_scale"):
            stored[name] = each.flip(0).contiguous()
    save_file(stored, folder / "model.safetensors", {"format": "pt"})


PLANTED_IN_GPTQ: list[tuple[Callable[[Path], None], set[str]]] = [
    (scales_of_other_groups, {"weights", "tokens", "divergence", "loss"}),
]


@pytest.mark.parametrize(("plant", "caught_by"), PLANTED_IN_GPTQ)
def test_planted_in_gptq(
    plant: Callable[[Path], None], caught_by: set[str], made: Any, shop: Workshop, tmp_path: Path
) -> None:
    folder = tmp_path / "gptq"
    shutil.copytree(shop.source.exports / "gptq", folder)
    plant(folder)
    proof = shop.prove("gptq", folder)
    failed = {check["name"] for check in proof["checks"] if not check["passed"]}
    assert caught_by <= failed, proof["checks"]


# ---- GGUF


def rewritten(path: Path, change: Callable[[dict[str, bytes]], None]) -> None:
    """The same GGUF with other metadata."""
    contents = gguf_file.read(path)
    fields = dict(contents.fields)
    change(fields)
    rows = [
        (each.name, each.dimensions, each.kind, each.rows * each.row_bytes(gguf.sizes())) for each in contents.tensors
    ]
    target = path.with_suffix(".new")
    with open(target, "wb") as out:
        gguf_file.write_header(out, fields, rows)
        for tensor, (*_, size) in zip(contents.tensors, rows, strict=True):
            out.write(contents.map(tensor, gguf.sizes()).tobytes() + b"\0" * gguf_file.padding(size))
    target.rename(path)


def text(value: str) -> bytes:
    data = value.encode()
    return struct.pack("<IQ", gguf_file.STRING, len(data)) + data


def gguf_two_bos(path: Path, shop: Workshop) -> None:
    def change(fields: dict[str, bytes]) -> None:
        template = shop.source.encoder.template.replace("{{ bos_token }}", "")
        fields["tokenizer.chat_template"] = text("<bos><bos>" + template)

    rewritten(path, change)


def gguf_another_template(path: Path, shop: Workshop) -> None:
    rewritten(path, lambda fields: fields.update({"tokenizer.chat_template": text(CHATML)}))


def gguf_no_stop(path: Path, shop: Workshop) -> None:
    """Without the two ends among its tokens: llama.cpp knows them by their names, whatever the file says."""

    def change(fields: dict[str, bytes]) -> None:
        tokens = fields["tokenizer.ggml.tokens"].replace(b"<end_of_turn>", b"<end_of_torn>")
        fields["tokenizer.ggml.tokens"] = tokens.replace(b"<eos>", b"<eoz>")
        fields["tokenizer.ggml.eos_token_id"] = gguf_file.uint32(3)

    rewritten(path, change)


def gguf_cut_short(path: Path, shop: Workshop) -> None:
    path.write_bytes(path.read_bytes()[:-5_000_000])


def gguf_in_half_precision(path: Path, shop: Workshop) -> None:
    path.unlink()
    gguf.convert(shop.source.exports / "merged", path, "f16", lambda: None)


PLANTED_IN_GGUF: list[tuple[Callable[[Path, Workshop], None], set[str]]] = [
    (gguf_two_bos, {"bos"}),
    (gguf_another_template, {"template"}),
    (gguf_no_stop, {"template", "stop"}),
    (gguf_cut_short, {"loads"}),
    (gguf_in_half_precision, {"weights"}),
]


@pytest.mark.parametrize(("plant", "caught_by"), PLANTED_IN_GGUF)
def test_planted_in_a_gguf(
    plant: Callable[[Path, Workshop], None], caught_by: set[str], made: Any, shop: Workshop, tmp_path: Path
) -> None:
    folder = tmp_path / "gguf-bf16"
    shutil.copytree(shop.source.exports / "gguf-bf16", folder)
    plant(folder / shop.file("gguf:bf16"), shop)
    proof = shop.prove("gguf:bf16", folder)
    assert proof["verdict"] == "suspect"
    failed = {check["name"] for check in proof["checks"] if not check["passed"]}
    assert caught_by <= failed, proof["checks"]


# ---- ONNX


def onnx_through_fp16(folder: Path, shop: Workshop) -> None:
    for name, matrix in onnx_weights.initializers(folder, "r+").items():
        if "up_proj" in name:
            matrix[:] = matrix.astype(np.float16).astype(np.float32)


def onnx_no_stop(folder: Path, shop: Workshop) -> None:
    path = folder / "genai_config.json"
    config = json.loads(path.read_text())
    config["model"]["eos_token_id"] = [3]
    path.write_text(json.dumps(config))


PLANTED_IN_ONNX: list[tuple[Callable[[Path, Workshop], None], set[str]]] = [
    (onnx_through_fp16, {"weights"}),
    (onnx_no_stop, {"stop"}),
]


@pytest.mark.parametrize(("plant", "caught_by"), PLANTED_IN_ONNX)
def test_planted_in_onnx(
    plant: Callable[[Path, Workshop], None], caught_by: set[str], made: Any, shop: Workshop, tmp_path: Path
) -> None:
    folder = tmp_path / "onnx"
    shutil.copytree(shop.source.exports / "onnx", folder)
    plant(folder, shop)
    proof = shop.prove("onnx", folder)
    assert proof["verdict"] == "suspect"
    failed = {check["name"] for check in proof["checks"] if not check["passed"]}
    assert caught_by <= failed, proof["checks"]
