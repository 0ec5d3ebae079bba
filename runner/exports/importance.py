"""The importance matrix: how strongly each column of a weight is used by the rows that it was trained on.

The mean square of each input of every linear layer, over the tokens of some training rows: what llama.cpp's imatrix
program measures, and what its K-quants weigh rounding errors with.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from runner.exports import lora_gguf
from spool.data.judging import arrow_rows
from spool.data.prepared import Prepared

ROWS = 128
ROW_TOKENS = 1024


def rows(data: Prepared) -> Iterator[list[int]]:
    """The tokens of some training rows, chosen evenly."""
    every = max(1, data.train_rows // ROWS)
    for i, row in enumerate(arrow_rows.read(data.train)):
        if i % every == 0:
            yield row.input_ids.tolist()[:ROW_TOKENS]


def measure(model: Path, data: Prepared, pulse: Callable[[], None]) -> dict[str, np.ndarray]:
    """Name of a GGUF tensor -> (columns,) float32, of a merged model over its training rows."""
    import torch
    from torch.nn import Linear
    from transformers import AutoModelForCausalLM

    _, known = lora_gguf.names(json.loads((model / "config.json").read_text()))
    loaded = AutoModelForCausalLM.from_pretrained(
        str(model),
        dtype=torch.bfloat16,
        device_map={"": 0 if torch.cuda.is_available() else "cpu"},
        local_files_only=True,
    ).eval()
    sums: dict[str, Any] = {}
    tokens: dict[str, int] = {}

    def watch(place: str) -> Any:
        def hook(_: Any, inputs: tuple[Any, ...]) -> None:
            each = inputs[0].detach().float().reshape(-1, inputs[0].shape[-1])
            sums[place] = sums.get(place, 0) + each.square().sum(0)
            tokens[place] = tokens.get(place, 0) + len(each)

        return hook

    for name, module in loaded.named_modules():
        at = name.find("layers.")
        if isinstance(module, Linear) and at >= 0 and name[at:] in known:
            module.register_forward_pre_hook(watch(f"{known[name[at:]]}.weight"))
    with torch.no_grad():
        for row in rows(data):
            loaded(input_ids=torch.tensor([row], device=loaded.device))
            pulse()
    return {place: (sums[place] / tokens[place]).cpu().numpy().astype(np.float32) for place in sums}
