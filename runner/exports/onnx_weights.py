"""Whether the numbers in an ONNX model are those that base and adapter give: rows of every tensor, held against both.

The builder lays matrices down transposed, the three of a layer's attention side by side, and norms with the 1 that
Gemma adds to them.
"""

import re
from pathlib import Path
from typing import Any, Literal

import numpy as np

from runner.exports import merge
from runner.exports.certificate import Check
from runner.exports.weights import some_rows, steps_apart

ATTENTION = ("q_proj", "k_proj", "v_proj")
LARGEST_NORM_ERROR = 1e-6
"""Of a norm's weight: a sum in 32 bit. Rounded to 16 bit it would be up to 0.004 off."""


def compare(folder: Path, base: Path, adapter: Path) -> Check:
    """Matrices equal but for one unit in the last place of 16 bit, where a sum lies between two numbers."""
    import torch

    stored = initializers(folder)
    pairs = dict(merge.adapter_pairs(base, adapter))
    known = [tensor for tensor in merge.tensors(base) if _is_text(tensor.name)]
    heights = {tensor.name: tensor.shape[0] for tensor in known}
    layers = 1 + max(int(found[1]) for name in heights if (found := re.search(r"layers\.(\d+)\.", name)))
    worst = 0
    for tensor in known:
        place, before = _place(tensor.name, heights, layers)
        there = stored.get(place)
        if there is None:
            return _not(f"{place} is missing")
        rows = some_rows(tensor.shape)
        ours = merge.rounded_rows(tensor, pairs.get(tensor.name), rows)
        if len(tensor.shape) == 1:
            error = float(np.abs(there[rows] - (1 + ours.float().numpy())).max())
            if there.shape != tensor.shape or not error <= LARGEST_NORM_ERROR:
                return _not(f"{place} is {error:.6f} off")
            continue
        if there.shape[0] != tensor.shape[1] or there.shape[1] < before + tensor.shape[0]:
            return _not(f"{place} has another shape")
        exact = torch.from_numpy(np.ascontiguousarray(there[:, [before + row for row in rows]].T))
        theirs = exact.to(ours.dtype)
        if not torch.equal(theirs.float(), exact):
            return _not(f"{place} has other numbers than {ours.dtype}")
        worst = max(worst, int(steps_apart(ours, theirs).max()))
    says = f"rows of {len(known)} tensors are what base and adapter give"
    return Check("weights", worst <= 1, says, worst, 1) if worst <= 1 else _not(f"by up to {worst} steps", worst)


def _not(why: str, worst: int | None = None) -> Check:
    return Check("weights", False, f"its numbers are not those of base and adapter: {why}", worst, 1)


def _is_text(name: str) -> bool:
    return "vision" not in name and "multi_modal" not in name


def _place(name: str, heights: dict[str, int], layers: int) -> tuple[str, int]:
    """(the initializer that a tensor of the base lies in, its first column there)."""
    module = name.removesuffix(".weight")
    if "layers." not in module:
        return (
            "lm_head.MatMul.weight" if "embed" in module else f"model.layers.{layers}.final_norm_layernorm.weight"
        ), 0
    module = module[module.index("layers.") :].replace("self_attn", "attn")
    above, _, last = module.rpartition(".")
    if last in ATTENTION:
        before = [name.replace(last, each) for each in ATTENTION[: ATTENTION.index(last)]]
        return f"model.{above}.qkv_proj.MatMul.weight", sum(heights[each] for each in before)
    kind = "MatMul." if last.endswith("_proj") else "layernorm." if last in ("q_norm", "k_norm") else ""
    return f"model.{module}.{kind}weight", 0


def initializers(folder: Path, mode: Literal["r", "r+"] = "r") -> dict[str, Any]:
    """Name -> what is stored, mapped and not read."""
    import onnx

    found = {}
    for each in onnx.load(str(folder / "model.onnx"), load_external_data=False).graph.initializer:
        lies = {entry.key: entry.value for entry in each.external_data}
        if each.data_type == onnx.TensorProto.FLOAT and "location" in lies:
            path, offset = folder / lies["location"], int(lies.get("offset", 0))
            found[each.name] = np.memmap(path, np.float32, mode, offset, tuple(each.dims))
    return found
