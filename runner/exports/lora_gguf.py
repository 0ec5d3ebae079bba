"""A LoRA adapter as a GGUF of its own, which llama.cpp lays over the base's GGUF (`--lora`)."""

import json
from pathlib import Path

from runner.exports.merge import adapter_pairs
from spool.protocol import durable
from spool.protocol.errors import FinetunerError

ARCHITECTURES = {
    "gemma": "gemma",
    "gemma2": "gemma2",
    "gemma3": "gemma3",
    "gemma3_text": "gemma3",
    "gemma3n": "gemma3n",
    "gemma3n_text": "gemma3n",
    "gemma4": "gemma4",
    "gemma4_text": "gemma4",
}
"""config.json's model_type -> GGUF's general.architecture."""


def names(config: dict[str, object]) -> tuple[str, "dict[str, str]"]:
    """(architecture, {module of a layer as transformers calls it, from `layers.` on: GGUF's name without .weight})."""
    import gguf

    kind = str(config.get("model_type"))
    if kind not in ARCHITECTURES:
        raise FinetunerError(
            f"llama.cpp has no kind of model for {kind}.", "Export it as merged weights.", "gguf_failed"
        )
    architecture = ARCHITECTURES[kind]
    number = next(number for number, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    inner = config.get("text_config")
    layers = int({**config, **(inner if isinstance(inner, dict) else {})}["num_hidden_layers"])
    known = gguf.get_tensor_name_map(number, layers).mapping
    found = {key[key.index("layers.") :]: name for key, (_, name) in known.items() if key.startswith("model.layers.")}
    return architecture, found


def convert(base: Path, adapter: Path, target: Path) -> None:
    """Writes the adapter's matrices in 32 bit; llama.cpp multiplies by alpha / rank, which rsLoRA's alpha is made for.

    Raises:
        FinetunerError: llama.cpp does not know the kind of model, or one of the layers.
    """
    import gguf
    from safetensors.numpy import load_file

    architecture, known = names(json.loads((base / "config.json").read_text()))
    pairs = adapter_pairs(base, adapter)
    scales = {round(pair.scale * pair.rank, 9) for _, pair in pairs}
    if len(scales) != 1:
        message = "the adapter's layers have different alphas, and a GGUF adapter has one for all."
        raise FinetunerError(message, "Export it merged.", "gguf_failed")
    half = target.with_name(f".{target.name}.part")
    writer = gguf.GGUFWriter(half, architecture)
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, scales.pop())
    matrices = load_file(adapter / "adapter_model.safetensors")
    for name, pair in pairs:
        module = name.removesuffix(".weight")
        place = known.get(module[module.index("layers.") :]) if "layers." in module else None
        if place is None:
            raise FinetunerError(
                f"llama.cpp has no place for an adapter of {module}.", "Export it merged.", "gguf_failed"
            )
        writer.add_tensor(f"{place}.weight.lora_a", matrices[pair.a].astype("float32"))
        writer.add_tensor(f"{place}.weight.lora_b", matrices[pair.b].astype("float32"))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    durable.sync(half)
    durable.move(half, target)
