"""A Gemma with random weights of the true shapes, and a small tokenizer: what a GPU computes with depends on neither.

Run as: python -m bench.random_gemma NAME FOLDER [LAYERS]        (NAME as in spool/forecast/catalogue.toml: gemma-2b)
"""

import json
import math
import random
import sys
from pathlib import Path

from spool.forecast import shapes

KINDS = {"gemma-2b": "gemma", "gemma-7b": "gemma", "gemma-3-270m": "gemma3_text", "gemma-3-1b": "gemma3_text"}
SYMBOLS = "#$%&*+=~^"
"""Each of them is one token of the small tokenizer, whatever stands beside it."""


def build(name: str, folder: Path, layers: int | None = None) -> Path:
    """Needs CUDA: a CPU draws random numbers for minutes."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from tests import tiny

    shape = shapes.named(name)
    assert shape is not None
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(tiny.tokenizer_json()))
    names = {f"{each}_token": f"<{each}>" for each in ("pad", "eos", "bos", "unk")}
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", **names}))
    config = AutoConfig.for_model(
        KINDS[name],
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.inner,
        num_hidden_layers=layers or shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        max_position_embeddings=8192,
        **({"sliding_window": 512} if KINDS[name] == "gemma3_text" else {}),
    )
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda"):
        model = AutoModelForCausalLM.from_config(config)
    torch.set_default_dtype(torch.float32)
    model.save_pretrained(str(folder))
    return folder


def texts(count: int, tokens: int | None, seed: int = 0) -> list[str]:
    """Rows of text: all of `tokens` tokens, or of a natural length (log-normal, median 120, at most 1,024).

    <bos> and <eos> come to what is written.
    """
    draw = random.Random(seed)

    def length() -> int:
        return tokens or max(8, min(1024, round(120 * math.exp(0.8 * draw.gauss(0, 1)))))

    return ["".join(draw.choices(SYMBOLS, k=length() - 2)) for _ in range(count)]


if __name__ == "__main__":
    print(build(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else None))
