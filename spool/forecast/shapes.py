"""The shape of a base model: what its config.json says, or for one that is not here what is known of its name."""

import json
import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from spool.protocol.home import Home

FIELDS = {
    "hidden": "hidden_size",
    "inner": "intermediate_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "kv_heads": "num_key_value_heads",
    "head_dim": "head_dim",
    "vocabulary": "vocab_size",
}
EXPERTS = {"experts": "num_experts", "experts_at_once": "top_k_experts", "expert_inner": "moe_intermediate_size"}
"""What a configuration with `enable_moe_block` says beside them."""
OMITTED = {
    "gemma3": {"num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256, "vocab_size": 262_208},
}
"""What the config.json of a model_type may leave to transformers' defaults."""
LARGEST_CONFIG_BYTES = 1_000_000
LARGEST_HEADER_BYTES = 100_000_000


@dataclass(frozen=True)
class Shape:
    """A Gemma's dimensions, those of its language. `parameters` are all of its weights, each counted once; where the
    last layers are twice as wide `inner` is the mean."""

    hidden: int
    inner: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    parameters: int
    kind: str = ""
    """The configuration's model_type."""
    experts: int = 0
    """Of each layer, beside its MLP; 0 where it has none. They are frozen: an adapter is on attention and MLP alone."""
    experts_at_once: int = 0
    """That the router sends a token to."""
    expert_inner: int = 0
    stored: str = ""
    """4bit or 8bit where the weights lie so in the folder, by bitsandbytes."""

    @property
    def linears(self) -> dict[str, tuple[int, int]]:
        """Name -> (inputs, outputs) of a layer's linear modules."""
        query, key = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return {
            "q_proj": (self.hidden, query),
            "k_proj": (self.hidden, key),
            "v_proj": (self.hidden, key),
            "o_proj": (query, self.hidden),
            "gate_proj": (self.hidden, self.inner),
            "up_proj": (self.hidden, self.inner),
            "down_proj": (self.inner, self.hidden),
        }

    @property
    def linear_parameters(self) -> int:
        """Weights of attention and MLP in all layers: those that 4 and 8 bit make smaller."""
        return self.layers * sum(inputs * outputs for inputs, outputs in self.linears.values())

    @property
    def expert_parameters(self) -> int:
        """Weights of all experts."""
        return self.layers * self.experts * 3 * self.hidden * self.expert_inner

    @property
    def multiplied_parameters(self) -> int:
        """Weights of the layers that a token is multiplied with."""
        return self.linear_parameters + self.layers * self.experts_at_once * 3 * self.hidden * self.expert_inner

    def lora_parameters(self, rank: int, modules: str | list[str]) -> int:
        """Weights of an adapter: rank times (inputs + outputs) of each module that gets one."""
        linears = self.linears
        named = [linears[name] for name in modules if name in linears] if isinstance(modules, list) else []
        return self.layers * rank * sum(inputs + outputs for inputs, outputs in named or linears.values())


def of(home: Home, reference: str, folder: Path | None) -> Shape | None:
    """The shape of a base: from its folder, from a copy in the hub's cache, else from its name; None where unknown."""
    for place in filter(None, (folder, fetched(home, reference))):
        found = _of_folder(str(place), _stamp(place / "config.json"))
        if found is not None:
            return found
    return named(reference)


def fetched(home: Home, reference: str) -> Path | None:
    """Where a hub model lies that was fetched before."""
    if reference.count("/") != 1 or ".." in reference:
        return None
    snapshots = home.cache / "hub" / f"models--{reference.replace('/', '--')}" / "snapshots"
    try:
        return next((folder for folder in sorted(snapshots.iterdir()) if (folder / "config.json").is_file()), None)
    except OSError:
        return None


def named(reference: str) -> Shape | None:
    """The shape that a model of this name has in the catalogue."""
    name = reference.rpartition("/")[2].lower()
    key = max((key for key in catalogue()["shape"] if name.startswith(key)), key=len, default=None)
    found = _whole(catalogue()["shape"][key]) if key else None
    return replace(found, kind=str(catalogue()["shape"][key].get("kind", ""))) if found and key else None


@cache
def catalogue() -> dict[str, Any]:
    return tomllib.loads(Path(__file__).with_name("catalogue.toml").read_text("utf-8"))


def count_parameters(path: Path) -> int:
    """From the header of a safetensors file (https://huggingface.co/docs/safetensors), without reading weights.

    Raises:
        ValueError: it has no such header.
        OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 0 < length <= LARGEST_HEADER_BYTES:
            raise ValueError(f"{path} is no safetensors file")
        header = json.loads(file.read(length))
    return sum(math.prod(entry["shape"]) for name, entry in header.items() if name != "__metadata__")


@lru_cache(maxsize=64)
def _of_folder(folder: str, stamp: float) -> Shape | None:
    """`stamp` makes a changed folder another one."""
    path = Path(folder, "config.json")
    try:
        if path.stat().st_size > LARGEST_CONFIG_BYTES:
            return None
        config = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    if not isinstance(config, dict):
        return None
    kind, text = config.get("model_type"), config.get("text_config")
    omitted = OMITTED.get(kind, {}) if isinstance(kind, str) else {}
    config = {**omitted, **config, **(text if isinstance(text, dict) else {})}
    names = FIELDS | EXPERTS if config.get("enable_moe_block") is True else FIELDS
    found = _whole({name: _number(config.get(theirs)) for name, theirs in names.items()})
    stored = _stored(config.get("quantization_config"))
    counted = 0 if stored else _counted(Path(folder))  # two weights of 4 bit are one number there
    if found is None:
        return None
    shared = config.get("num_kv_shared_layers")
    if config.get("use_double_wide_mlp") is True and isinstance(shared, int) and 0 < shared < found.layers:
        found = replace(found, inner=found.inner * (found.layers + shared) // found.layers)
    kind = kind if isinstance(kind, str) else ""
    return replace(found, parameters=counted or found.parameters, kind=kind, stored=stored)


def _stored(quantisation: Any) -> str:
    known = quantisation if isinstance(quantisation, dict) else {}
    return next((f"{bits}bit" for bits in (4, 8) if known.get(f"load_in_{bits}bit") is True), "")


def _number(value: Any) -> Any:
    """Gemma 3n lists the inner width of each layer."""
    if isinstance(value, list) and value and all(isinstance(each, int) for each in value):
        return max(value)
    return value


def _whole(values: Mapping[str, Any]) -> Shape | None:
    """From its fields; `parameters` are added up where they are not given. None where a field is missing."""
    numbers = {name: values.get(name) for name in (*FIELDS, *(EXPERTS if "experts" in values else ()))}
    if numbers["head_dim"] is None and numbers["hidden"] and numbers["heads"]:
        numbers["head_dim"] = numbers["hidden"] // numbers["heads"]
    if not all(isinstance(number, int) and 0 < number < 10**8 for number in numbers.values()):
        return None
    bare = Shape(**numbers, parameters=0)  # type: ignore[arg-type]
    layers = bare.linear_parameters + bare.expert_parameters + 4 * bare.layers * bare.hidden
    counted = layers + bare.vocabulary * bare.hidden
    return Shape(**{**vars(bare), "parameters": values.get("parameters") or counted})


def _counted(folder: Path) -> int:
    """Parameters in the folder's weights, 0 where they cannot be counted."""
    try:
        return sum(map(count_parameters, sorted(folder.glob("*.safetensors"))))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return 0


def _stamp(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
