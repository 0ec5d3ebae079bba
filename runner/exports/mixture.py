"""Which type each tensor of a GGUF gets: llama.cpp's own mixtures (llama-quant.cpp of llama.cpp), for Gemma.

A K-quant is a mixture: what answers depend on most (the output, some values and some down projections) keeps more bits.
bench/gguf_quants.py holds the result against llama.cpp's own program, byte for byte.
"""

from collections.abc import Sequence
from dataclasses import dataclass

NEVER = ("_norm.weight", "ffn_gate_inp.weight", "altup", "laurel", "per_layer_model_proj")
"""Parts of the names of tensors that stay as they are: small, or harmed too much."""
EMBEDDINGS = ("token_embd.weight", "per_layer_token_embd.weight")


@dataclass(frozen=True)
class Quant:
    """A kind of file: its number in GGUF's general.file_type (llama_ftype) and the type that most tensors get."""

    file_type: int
    default: str


QUANTS = {
    "q8_0": Quant(7, "Q8_0"),
    "q3_k_m": Quant(12, "Q3_K"),
    "q4_k_s": Quant(14, "Q4_K"),
    "q4_k_m": Quant(15, "Q4_K"),
    "q5_k_m": Quant(17, "Q5_K"),
    "q6_k": Quant(18, "Q6_K"),
}
BLOCK = {"Q8_0": 32, "Q4_0": 32, "Q5_0": 32, "Q5_1": 32}
"""Weights that share a scale; 256 in all K-quants. The rows of a tensor must be made of whole blocks."""
SUPER_BLOCK = 256
SMALLER = {"Q3_K": "Q4_0", "Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"}
"""What a tensor gets whose rows are not made of whole blocks of 256."""


@dataclass(frozen=True)
class Shape:
    """A tensor: its name, and its dimensions as GGUF counts them, the length of a row first."""

    name: str
    dimensions: Sequence[int]


def types(tensors: Sequence[Shape], quant: str, layers: int) -> dict[str, str]:
    """Name -> type, of those tensors that are quantised."""
    default = QUANTS[quant].default
    tied = not any(tensor.name == "output.weight" for tensor in tensors)
    values = [tensor.name for tensor in _by_layer(tensors) if "attn_v.weight" in tensor.name]
    downs = [tensor.name for tensor in _by_layer(tensors) if "ffn_down" in tensor.name and _allowed(tensor)]
    found = {}
    for tensor in tensors:
        if not _allowed(tensor):
            continue
        name, row = tensor.name, tensor.dimensions[0]
        kind = default
        if name == "output.weight" or (tied and name in EMBEDDINGS):
            kind = "Q8_0" if row % _block(default) else "Q6_K" if default != "Q8_0" else default
        elif name in values:
            kind = _of_values(quant, values.index(name), len(values)) or default
        elif name in downs:
            kind = _of_downs(quant, downs.index(name), layers) or default
        elif "attn_output.weight" in name and quant == "q3_k_m":
            kind = "Q4_K"
        found[name] = _fitting(kind, row)
    return {name: kind for name, kind in found.items() if kind}


def _of_values(quant: str, i: int, count: int) -> str | None:
    if quant == "q3_k_m":
        return "Q5_K" if i < 2 else "Q4_K"
    if quant in ("q4_k_m", "q5_k_m") and _more_bits(i, count):
        return "Q6_K"
    return "Q5_K" if quant == "q4_k_s" and i < 4 else None


def _of_downs(quant: str, i: int, layers: int) -> str | None:
    if quant == "q3_k_m":
        return "Q5_K" if i < layers // 16 else "Q4_K"
    if quant in ("q4_k_m", "q5_k_m") and _more_bits(i, layers):
        return "Q6_K"
    return "Q5_K" if quant == "q4_k_s" and i < layers // 8 else None


def _more_bits(i: int, count: int) -> bool:
    """The first and the last eighth of the layers, and every third between."""
    return i < count // 8 or i >= 7 * count // 8 or (i - count // 8) % 3 == 2


def _fitting(kind: str, row: int) -> str:
    """The type itself, or the nearest one that rows of this length can have."""
    if row % _block(kind) == 0:
        return kind
    smaller = SMALLER.get(kind, kind)
    return smaller if row % _block(smaller) == 0 else "F16"


def _block(kind: str) -> int:
    return BLOCK.get(kind, SUPER_BLOCK)


def _allowed(tensor: Shape) -> bool:
    matrix = len([size for size in tensor.dimensions if size > 1]) >= 2
    return matrix and tensor.name.endswith("weight") and not any(part in tensor.name for part in NEVER)


def _by_layer(tensors: Sequence[Shape]) -> list[Shape]:
    def layer(tensor: Shape) -> int:
        parts = tensor.name.split(".")
        return int(parts[1]) if parts[0] == "blk" and parts[1].isdigit() else -1

    return sorted(tensors, key=layer)
