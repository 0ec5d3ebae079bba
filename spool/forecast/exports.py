"""What follows a training takes: the size of each format for a base of that shape, and the disk while some are made."""

from collections.abc import Sequence

from spool.forecast.shapes import Shape
from spool.protocol import formats

CONVERTED = ("bf16", "f16", "q8_0")
"""Made by the converter from merged weights; what has fewer bits is quantised from bf16."""

BITS = {"bf16": 16.0, "f16": 16.0, "q8_0": 8.5, "q6_k": 6.6, "q5_k_m": 5.7, "q4_k_m": 4.9, "q4_k_s": 4.6, "q3_k_m": 3.9}
"""Bits a weight, of a large model; a small one keeps its embedding in more."""

UNEVEN = {"q6_k": 8.5, "q5_k_m": 6.0, "q4_k_m": 5.5, "q4_k_s": 5.5, "q3_k_m": 4.5}
"""Bits a weight where rows are no multiple of 256 numbers: llama.cpp then takes a coarser grouping, in more bits."""

BLOCK = 256
EMBEDDING_BITS = 6.6
"""Of Gemma's embedding, which is its output too, in every K-quant; q8_0 where its rows are uneven."""

ROTARY_BYTES = 67_108_864
"""Of an ONNX model: sines and cosines of 32,768 places, for near and for far."""

GPTQ_BITS, GPTQ_MOST = 4.125, 0.75
"""Bits a weight of the layers, with a 16-bit scale for 128 of them; and the share of the merged weights that it takes
where most of the model is its embedding, which stays as it is."""

TOKEN_BYTES = 26
"""Of the tokenizer in a GGUF, each token."""


START_S, ASK_S, MAKE_S, GPTQ_S = 8.0, 15.0, 30.0, 70.0
"""Measured for Gemma 3 270M on 2 cores: libraries and data; the adapter asked once; each format made and proven, and
what GPTQ takes beyond that."""

REPORT_S, REPORT_GPU_S = 75.0, 40.0
"""The report of the example on 2 cores, and a guess for a card, where loading takes most of it."""

MEASURED_PARAMETERS, MEASURED_CORES = 268_098_176, 2
MOST_CORES = 32


def wall_s(names: Sequence[str], shape: Shape, cores: int) -> float:
    """How long a job that makes these formats takes, by one that was measured: a guess."""
    scale = shape.parameters / MEASURED_PARAMETERS * MEASURED_CORES / max(1, min(cores, MOST_CORES))
    made = MAKE_S * len([name for name in names if name != "adapter"]) + GPTQ_S * ("gptq" in names)
    return START_S + scale * (ASK_S + made)


def report_s(shape: Shape, cores: int, on_gpu: bool, most_s: float) -> float:
    """How long the report at the end of a training takes, bounded as it is: a guess by one that was measured."""
    scale = shape.parameters / MEASURED_PARAMETERS * MEASURED_CORES / max(1, min(cores, MOST_CORES))
    return min(most_s, REPORT_GPU_S if on_gpu else START_S + scale * REPORT_S)


def size_bytes(name: str, shape: Shape | None, adapter_bytes: int) -> int | None:
    """How large an export becomes; None where the base's shape is not known."""
    kind = formats.gguf(name)
    if name == "adapter" or kind == "lora":
        return adapter_bytes
    if shape is None:
        return None
    if name == "onnx":
        return 4 * shape.parameters + ROTARY_BYTES
    embedding = shape.vocabulary * shape.hidden
    if name == "gptq":
        return round(2 * embedding + max(0, shape.parameters - embedding) * GPTQ_BITS / 8)
    if kind is None:
        return 2 * shape.parameters
    uneven = shape.hidden % BLOCK != 0
    bits = UNEVEN.get(kind, BITS[kind]) if uneven else BITS[kind]
    of_embedding = bits if kind in CONVERTED else BITS["q8_0"] if uneven else max(bits, EMBEDDING_BITS)
    layers = max(0, shape.parameters - embedding)
    return round((embedding * of_embedding + layers * bits) / 8) + TOKEN_BYTES * shape.vocabulary


def disk_bytes(names: Sequence[str], merged_bytes: int) -> int:
    """What lies on the disk at once while these formats are made."""
    kinds = [formats.gguf(name) for name in names]
    made = sum(merged_bytes * BITS[kind] / 16 for kind in kinds if kind in BITS)
    made += 2 * merged_bytes if "onnx" in names else 0
    made += merged_bytes * GPTQ_MOST if "gptq" in names else 0
    of_merged = any(kind in BITS for kind in kinds) or not {"merged", "onnx", "gptq"}.isdisjoint(names)
    on_the_way = merged_bytes if of_merged else 0
    if any(kind in BITS and kind not in CONVERTED for kind in kinds) or "lora" in kinds:
        on_the_way += merged_bytes  # a 16-bit GGUF
    return int(made + on_the_way)
