"""Merging: 16-bit weights with an adapter's in them, tensor by tensor, so that memory never holds the model.

W + scale * B A (LoRA: arXiv 2106.09685, section 4.1; scale is alpha / r, rsLoRA's alpha / sqrt(r): arXiv 2312.03732) is
computed in 32 bit and rounded once. PEFT's merge_and_unload rounds the product and the sum, each to the base's type.
Always into the 16-bit base, also after a 4-bit training: what 4 bit had lost would be lost for good.

A shard that is whole has its name, a half one does not: an interrupted merge goes on with the next.
"""

import hashlib
import json
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spool.protocol import durable
from spool.protocol.errors import FinetunerError

SHARD_BYTES = 5_000_000_000
COPY_BYTES = 16 << 20
SIXTEEN_BIT = {"BF16": "BF16", "F16": "F16", "F32": "BF16"}
"""What a tensor of the base becomes; other types are those of a quantised base."""
PREFIX = "base_model.model."
PLAN = ".plan.json"

Pulse = Callable[[], None]


class CannotMerge(FinetunerError):
    """The adapter, or its base, is of a kind that has no merged form here."""

    default_code = "cannot_merge"


@dataclass(frozen=True)
class Tensor:
    """A tensor in a safetensors file: where its bytes lie."""

    name: str
    file: Path
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def bytes_after(self) -> int:
        return 2 * math.prod(self.shape)


def tensors(folder: Path) -> list[Tensor]:
    """Every tensor of a model's folder, in the order in which they lie in its files.

    Raises:
        CannotMerge: a file is no safetensors file, or cut short.
    """
    found = []
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with open(path, "rb") as file:
                length = int.from_bytes(file.read(8), "little")
                header: dict[str, Any] = json.loads(file.read(length)) if length < 100_000_000 else {}
            header.pop("__metadata__", None)
            each = [
                Tensor(
                    name,
                    path,
                    facts["dtype"],
                    tuple(facts["shape"]),
                    *(8 + length + at for at in facts["data_offsets"]),
                )
                for name, facts in header.items()
            ]
        except (OSError, ValueError, AttributeError, KeyError, TypeError):
            raise CannotMerge(f"{path} is no safetensors file.", "Fetch the base again.", "base_damaged") from None
        if max((tensor.end for tensor in each), default=0) > path.stat().st_size:
            raise CannotMerge(f"{path} is cut short.", "Fetch the base again.", "base_damaged")
        found += sorted(each, key=lambda tensor: tensor.begin)
    return found


def merge(base: Path, adapter: Path, target: Path, pulse: Pulse, shard_bytes: int = SHARD_BYTES) -> int:
    """Writes the merged weights (safetensors, with an index where there are several) and config.json into `target`.

    Takes up what an interrupted merge of the same base and adapter left there. Gives the bytes of the weights. Peak
    memory: four copies of the largest tensor with an adapter, in 32 bit.

    Raises:
        CannotMerge: the base is quantised on disk, the adapter is no plain LoRA, or does not fit the base.
    """
    found = tensors(base)
    quantised = next((tensor for tensor in found if tensor.dtype not in SIXTEEN_BIT), None)
    if quantised is not None:
        message = f"the base in {base} is quantised on disk ({quantised.name} is {quantised.dtype})."
        raise CannotMerge(message, "Train on the 16-bit base: a job loads it in 4 bit by itself.", "base_quantised")
    pairs = _pairs(adapter, found)
    shards = _shards(found, shard_bytes)
    _take_up(target, base, adapter, shard_bytes)
    total = 0
    for i, shard in enumerate(shards):
        name = _name(i, len(shards))
        total += sum(tensor.bytes_after for tensor in shard)
        if not (target / name).exists():
            half = target / f".{name}.part"
            _write(half, shard, pairs, pulse)
            durable.move(half, target / name)
    if len(shards) > 1:
        weight_map = {tensor.name: _name(i, len(shards)) for i, shard in enumerate(shards) for tensor in shard}
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
        durable.write_json(target / "model.safetensors.index.json", index)
    _config(base, target, found)
    (target / PLAN).unlink()
    return total


def adapter_pairs(base: Path, adapter: Path) -> list[tuple[str, "Pair"]]:
    """[(tensor of the base, its pair)], in the base's order.

    Raises:
        CannotMerge: the adapter is no plain LoRA, or does not fit the base.
    """
    found = tensors(base)
    pairs = _pairs(adapter, found)
    return [(tensor.name, pairs[tensor.name]) for tensor in found if tensor.name in pairs]


def size_bytes(base: Path) -> int:
    """What the merged weights of a base will take on the disk."""
    return sum(tensor.bytes_after for tensor in tensors(base))


def _take_up(target: Path, base: Path, adapter: Path, shard_bytes: int) -> None:
    """Keeps the shards of an interrupted merge where it was the very same one."""
    weights = hashlib.sha256((adapter / "adapter_model.safetensors").read_bytes()).hexdigest()
    plan = {"base": [(p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in sorted(base.glob("*.safetensors"))]}
    document = json.loads(json.dumps({"v": 1, **plan, "adapter": weights, "shard_bytes": shard_bytes}))
    target.mkdir(parents=True, exist_ok=True)
    if durable.read_json(target / PLAN) == document:
        return
    for path in target.iterdir():
        if path.suffix in (".safetensors", ".part"):
            path.unlink()
    durable.write_json(target / PLAN, document)


def _shards(found: list[Tensor], shard_bytes: int) -> list[list[Tensor]]:
    shards: list[list[Tensor]] = [[]]
    size = 0
    for tensor in found:
        if shards[-1] and size + tensor.bytes_after > shard_bytes:
            shards.append([])
            size = 0
        shards[-1].append(tensor)
        size += tensor.bytes_after
    return shards


def _name(i: int, count: int) -> str:
    return "model.safetensors" if count == 1 else f"model-{i + 1:05}-of-{count:05}.safetensors"


# ---- which tensor gets which adapter


@dataclass(frozen=True)
class Pair:
    """The two matrices of a tensor's adapter and what their product is multiplied by."""

    a: str
    b: str
    rank: int
    scale: float
    file: Path


def _pairs(adapter: Path, found: list[Tensor]) -> dict[str, Pair]:
    """Name of a base tensor -> its pair."""
    config = durable.read_json(adapter / "adapter_config.json") or {}
    _check_plain(config)
    file = adapter / "adapter_model.safetensors"
    shapes = {tensor.name: tensor.shape for tensor in tensors(adapter) if tensor.file == file}
    places = _places(found)
    pairs = {}
    for a in sorted(shapes):
        if not a.endswith(".lora_A.weight"):
            if not a.endswith(".lora_B.weight"):
                raise CannotMerge(
                    f"the adapter holds {a}, which is no part of a plain LoRA.", "Export the adapter alone."
                )
            continue
        module = a.removeprefix(PREFIX).removesuffix(".lora_A.weight")
        b = a.replace(".lora_A.", ".lora_B.")
        tensor = places.get(_tail(module))
        rank, fits = shapes[a][0], tensor is not None and b in shapes
        if not fits or tensor is None or (shapes[b][0], shapes[a][1]) != tensor.shape or shapes[b][1] != rank:
            message = f"the adapter does not fit the base: {module} is not there, or has another shape."
            raise CannotMerge(message, "Use the base that it was trained on.", "adapter_mismatch")
        pairs[tensor.name] = Pair(a, b, rank, _scale(config, module, rank), file)
    if not pairs:
        raise CannotMerge(f"{file} holds no LoRA matrices.", "Name the folder of an adapter.", "no_adapter")
    return pairs


def _check_plain(config: dict[str, Any]) -> None:
    names = ("use_dora", "modules_to_save", "target_parameters", "fan_in_fan_out", "lora_bias")
    odd = [name for name in names if config.get(name)]
    odd += ["bias"] if config.get("bias", "none") != "none" else []
    odd += [f"peft_type {config.get('peft_type')}"] if config.get("peft_type", "LORA") != "LORA" else []
    if odd:
        message = f"the adapter is no plain LoRA ({', '.join(odd)})."
        raise CannotMerge(message, "Merge it with the program that made it; the adapter alone can be exported.")


def _tail(name: str) -> tuple[str, bool]:
    """What base and adapter call the same: transformers gives the modules of the multimodal ones other beginnings."""
    at = re.search(r"(?:^|\.)(layers\.\d+\..*|lm_head|embed_tokens)$", name)
    return (at[1] if at else name), "vision" in name or "audio" in name


def _places(found: list[Tensor]) -> dict[tuple[str, bool], Tensor]:
    places: dict[tuple[str, bool], Tensor] = {}
    for tensor in found:
        if tensor.name.endswith(".weight"):
            key = _tail(tensor.name.removesuffix(".weight"))
            if key in places:
                message = f"{tensor.name} and {places[key].name} of the base cannot be told apart."
                raise CannotMerge(message, "Please report it, with the base's name.")
            places[key] = tensor
    return places


def _scale(config: dict[str, Any], module: str, rank: int) -> float:
    patterns = config.get("alpha_pattern") or {}
    named = (alpha for name, alpha in patterns.items() if re.fullmatch(rf"(?:.*\.)?(?:{name})", module))
    alpha = float(next(named, config.get("lora_alpha") or rank))
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


# ---- writing


def _write(path: Path, shard: list[Tensor], pairs: dict[str, Pair], pulse: Pulse) -> None:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for tensor in shard:
        header[tensor.name] = {
            "dtype": SIXTEEN_BIT[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [at, at + tensor.bytes_after],
        }
        at += tensor.bytes_after
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as out:
        out.write(len(text).to_bytes(8, "little") + text)
        for tensor in shard:
            for data in _data(tensor, pairs.get(tensor.name)):
                out.write(data)
                pulse()
        out.flush()
    durable.sync(path)


def _data(tensor: Tensor, pair: Pair | None) -> Iterator[bytes | memoryview]:
    """The bytes of a tensor as they are written: copied where nothing changes."""
    if pair is None and tensor.dtype == SIXTEEN_BIT[tensor.dtype]:
        with open(tensor.file, "rb") as file:
            file.seek(tensor.begin)
            left = tensor.end - tensor.begin
            while left:
                data = file.read(min(COPY_BYTES, left))
                left -= len(data)
                yield data
        return
    merged = rounded_rows(tensor, pair, None)
    yield memoryview(merged.contiguous().view(_bytes_type()).numpy()).cast("B")


def rows(tensor: Tensor, which: list[int] | None) -> Any:
    """Rows of a tensor as they are stored, as a torch tensor; None: all."""
    from safetensors import safe_open

    with safe_open(str(tensor.file), "pt") as file:
        if which is None or not tensor.shape:
            return file.get_tensor(tensor.name)
        stored = file.get_slice(tensor.name)
        import torch

        return torch.cat([stored[i : i + 1] for i in which])


def rounded_rows(tensor: Tensor, pair: Pair | None, which: list[int] | None) -> Any:
    """Rows of the base's tensor with the adapter's share in them, computed in 32 bit and rounded once.

    Raises:
        CannotMerge: a number is not finite.
    """
    import torch
    from safetensors import safe_open

    weight = rows(tensor, which).to(torch.float32)
    if pair is not None:
        with safe_open(str(pair.file), "pt") as file:
            a, b = (file.get_tensor(name).to(torch.float32) for name in (pair.a, pair.b))
        weight.addmm_(b if which is None else b[which], a, alpha=pair.scale)
    rounded = weight.to(torch.float16 if tensor.dtype == "F16" else torch.bfloat16)
    if not torch.isfinite(rounded).all():
        message = f"{tensor.name} holds numbers that are not finite when it is merged."
        raise CannotMerge(message, "The adapter or the base is damaged: train again.", "not_finite")
    return rounded


def _bytes_type() -> Any:
    import torch

    return torch.uint8


def _config(base: Path, target: Path, found: list[Tensor]) -> None:
    config = json.loads((base / "config.json").read_text())
    for name in ("quantization_config", "torch_dtype"):
        config.pop(name, None)
    kinds = {SIXTEEN_BIT[tensor.dtype] for tensor in found}
    config["dtype"] = "float16" if kinds == {"F16"} else "bfloat16"
    durable.write_json(target / "config.json", config)
