"""Whether the numbers in an export are those that they should be: rows of its tensors against base and adapter.

What a few prompts do not show, such as weights that were rounded through another type, shows here: of each tensor some
rows are computed from the base and the adapter again.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from runner.exports import gguf, gguf_file, lora_gguf, merge
from runner.exports.certificate import Check
from spool.protocol import formats

ROWS = 64
"""Of each tensor, chosen evenly."""
LARGEST_ERROR = {
    "f16": 0.001,
    "bf16": 0.0,
    "q8_0": 0.01,
    "q6_k": 0.04,
    "q5_k_m": 0.07,
    "q4_k_m": 0.12,
    "q4_k_s": 0.13,
    "q3_k_m": 0.24,
    "gptq": 0.4,  # it moves a number by more than half a step where that makes up for others
}
"""Root mean square of the error, as a share of the weights' own, that a tensor of a GGUF may have."""
STEPS, SCALE_ERROR = 7.5, 0.01
"""Of 4 bits with a sign: what the largest number of a group is divided by for the scale, and how exactly in bf16."""


def compare(name: str, path: Path, base: Path, adapter: Path) -> Check:
    """One check: whether rows of every tensor are what base and adapter give."""
    kind = formats.gguf(name)
    if kind == "lora":
        return _lora(path, base, adapter)
    if name == "gptq":
        return _gptq(path, base, adapter)
    return _merged(path, base, adapter) if kind is None else _gguf(path, kind, base, adapter)


def _merged(folder: Path, base: Path, adapter: Path) -> Check:
    """Equal to the last bit, but for one unit in the last place where a sum lies between two numbers."""
    import torch

    made = {tensor.name: tensor for tensor in merge.tensors(folder)}
    known = merge.tensors(base)
    if {tensor.name: tensor.shape for tensor in known} != {name: tensor.shape for name, tensor in made.items()}:
        return Check("weights", False, "its tensors are not those of the base")
    pairs = dict(merge.adapter_pairs(base, adapter))
    odd = worst = 0
    for tensor in known:
        rows = some_rows(tensor.shape)
        ours = merge.rounded_rows(tensor, pairs.get(tensor.name), rows)
        theirs = merge.rows(made[tensor.name], rows)
        if theirs.dtype != ours.dtype:
            return Check("weights", False, f"{tensor.name} is {theirs.dtype}, not {ours.dtype}")
        steps = steps_apart(ours, theirs)
        odd += int(torch.count_nonzero(steps))
        worst = max(worst, int(steps.max()) if steps.numel() else 0)
    says = f"rows of {len(known)} tensors are what base and adapter give"
    return Check(
        "weights", worst <= 1, says if worst <= 1 else "its numbers are not those of base and adapter", worst, 1
    )


def steps_apart(ours: Any, theirs: Any) -> Any:
    """How many numbers of their type lie between two tensors, element by element."""
    import torch

    def place(each: Any) -> Any:
        bits = each.view(torch.int16).to(torch.int32)
        return torch.where(bits < 0, -(bits & 0x7FFF), bits)

    return (place(ours) - place(theirs)).abs()


def some_rows(shape: tuple[int, ...]) -> list[int]:
    count = shape[0] if shape else 1
    some = min(ROWS, count)
    return sorted({round(i * (count - 1) / max(1, some - 1)) for i in range(some)})


def _gguf(path: Path, kind: str, base: Path, adapter: Path) -> Check:
    """The matrices of the layers, dequantised by gguf's own code, which is not the one that quantised them."""
    from gguf import GGMLQuantizationType, quants

    contents = gguf_file.read(path)
    stored = {tensor.name: tensor for tensor in contents.tensors}
    _, known = lora_gguf.names(json.loads((base / "config.json").read_text()))
    pairs = dict(merge.adapter_pairs(base, adapter))
    worst, where, looked = 0.0, "", 0
    for tensor in merge.tensors(base):
        module = tensor.name.removesuffix(".weight")
        place = known.get(module[module.index("layers.") :]) if "layers." in module and len(tensor.shape) == 2 else None
        if place is None or "vision" in module:
            continue
        there = stored.get(f"{place}.weight")
        if there is None or there.dimensions[::-1] != tensor.shape:
            return Check("weights", False, f"{place}.weight is missing, or has another shape")
        rows = some_rows(tensor.shape)
        ours = merge.rounded_rows(tensor, pairs.get(tensor.name), rows).float().numpy()
        raw = np.array(contents.map(there, gguf.sizes())[rows])
        theirs = quants.dequantize(raw.view(np.uint8), GGMLQuantizationType(there.kind)).reshape(ours.shape)
        error = float(np.sqrt(np.square(theirs - ours).mean() / max(1e-30, np.square(ours).mean())))
        looked += 1
        if not error <= worst:
            worst, where = error, place
    limit = LARGEST_ERROR[kind]
    says = (
        f"rows of {looked} matrices are what base and adapter give, but for rounding ({where or 'none'}: {worst:.2%})"
    )
    return Check("weights", looked > 0 and worst <= limit, says, round(worst, 6), limit)


def _gptq(folder: Path, base: Path, adapter: Path) -> Check:
    """Each group's scale is that of its largest number; unpacked here, by no code of the library that packed them."""
    import torch

    made = {tensor.name: tensor for tensor in merge.tensors(folder)}
    pairs = dict(merge.adapter_pairs(base, adapter))
    worst, where, looked = 0.0, "", 0
    for tensor in merge.tensors(base):
        rows = some_rows(tensor.shape)
        ours = merge.rounded_rows(tensor, pairs.get(tensor.name), rows)
        plain, packed = made.get(tensor.name), made.get(f"{tensor.name}_packed")
        if plain is not None:
            theirs = merge.rows(plain, rows)
            if (theirs.shape, theirs.dtype) != (ours.shape, ours.dtype) or int(steps_apart(ours, theirs).max()) > 1:
                return Check("weights", False, f"{tensor.name} is not that of base and adapter")
            continue
        scales = made.get(f"{tensor.name}_scale")
        if packed is None or scales is None or 8 * packed.shape[1] != tensor.shape[1]:
            return Check("weights", False, f"{tensor.name} is missing, or has another shape")
        scale, exact = merge.rows(scales, rows).float(), ours.float()
        groups = exact.reshape(len(rows), scales.shape[1], -1)
        largest = groups.abs().amax(-1)
        if bool(((scale * STEPS / largest - 1).abs() > SCALE_ERROR)[largest > 0].any()):
            return Check("weights", False, f"the scales of {tensor.name} are not those of base and adapter")
        nibbles = merge.rows(packed, rows)[:, :, None] >> torch.arange(0, 32, 4) & 15
        theirs = ((nibbles.reshape(groups.shape) - 8) * scale[:, :, None]).reshape(exact.shape)
        error = float((theirs - exact).square().mean().sqrt() / exact.square().mean().sqrt().clamp(min=1e-30))
        looked += 1
        if not error <= worst:
            worst, where = error, tensor.name
    limit = LARGEST_ERROR["gptq"]
    says = f"rows of {looked} matrices are what base and adapter give, but for rounding ({where}: {worst:.2%})"
    return Check("weights", looked > 0 and worst <= limit, says, round(worst, 6), limit)


def _lora(path: Path, base: Path, adapter: Path) -> Check:
    from safetensors.numpy import load_file

    contents = gguf_file.read(path)
    stored = {tensor.name: contents.map(tensor, gguf.sizes()) for tensor in contents.tensors}
    _, known = lora_gguf.names(json.loads((base / "config.json").read_text()))
    matrices = load_file(adapter / "adapter_model.safetensors")
    pairs = merge.adapter_pairs(base, adapter)
    for name, pair in pairs:
        module = name.removesuffix(".weight")
        place = known[module[module.index("layers.") :]]
        for end, matrix in (("lora_a", pair.a), ("lora_b", pair.b)):
            there = stored.get(f"{place}.weight.{end}")
            if there is None or not np.array_equal(there, matrices[matrix].astype(np.float32)):
                return Check("weights", False, f"{place}.weight.{end} is missing, or is not the adapter's")
    return Check("weights", len(stored) == 2 * len(pairs), f"{len(stored)} matrices are the adapter's")
