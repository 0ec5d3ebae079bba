"""A Gemma with random weights of the true shapes, and a small tokenizer: what a GPU computes with depends on neither.

Run as: python -m bench.random_gemma NAME FOLDER [LAYERS]        (NAME as in spool/forecast/catalogue.toml: gemma-2b)
"""

import math
import random
import sys
from importlib import resources
from pathlib import Path
from typing import Any

from spool.forecast import shapes

SPECIAL: dict[str, dict[str, Any]] = {
    "gemma-2": {"sliding_window": 4096},
    "gemma-2-27b": {"query_pre_attn_scalar": 144},
    "gemma-3-": {"sliding_window": 512},
    "gemma-3-4b": {"sliding_window": 1024},
    "gemma-3-12b": {"sliding_window": 1024},
    "gemma-3-27b": {"sliding_window": 1024, "query_pre_attn_scalar": 168},
    "gemma-3n": {"every": 5, "num_kv_shared_layers": 10},
    "gemma-3n-e4b": {"num_kv_shared_layers": 15},
    "gemma-4": {"final_logit_softcapping": 30.0, "every": 6},
    "gemma-4-e2b": {"every": 5, "num_kv_shared_layers": 20, "use_double_wide_mlp": True, "intermediate_size": 6144},
    "gemma-4-e4b": {"num_kv_shared_layers": 18},
    "gemma-4-26b": {
        **{"hidden_size_per_layer_input": 0, "sliding_window": 1024},
        **{"attention_k_eq_v": True, "num_global_key_value_heads": 2},
    },
    "gemma-4-31b": {
        **{"hidden_size_per_layer_input": 0, "sliding_window": 1024},
        **{"attention_k_eq_v": True, "num_global_key_value_heads": 4},
    },
}
"""What stands in a configuration beside shape and defaults, by the beginnings of names; `every` says after how many
layers one sees all tokens."""
SMALLEST_TOWER = {
    **{"model_type": "siglip_vision_model", "hidden_size": 32, "intermediate_size": 32},
    **{"num_hidden_layers": 1, "num_attention_heads": 2},
}
SYMBOLS = "#$%&*+=~^"
"""Each of them is one token of the small tokenizer, whatever stands beside it."""


def configuration(name: str, layers: int | None = None) -> Any:
    """transformers' configuration. Gemma 3 gets the smallest tower for images, Gemma 4 none; of Gemma 3n, whose tower
    needs timm, it is the language model alone.

    Args:
        layers: fewer than the model has; of those with `every` at least one more than that.
    """
    from transformers import AutoConfig

    shape = shapes.named(name)
    assert shape is not None
    special: dict[str, Any] = {}
    for key in sorted(SPECIAL, key=len):
        special |= SPECIAL[key] if name.startswith(key) else {}
    count = layers or shape.layers
    every = special.pop("every", None)
    if every:
        special["layer_types"] = ["sliding_attention" if (i + 1) % every else "full_attention" for i in range(count)]
        special["num_kv_shared_layers"] = min(special.get("num_kv_shared_layers", 0), count - every)
    if shape.kind == "gemma3n":
        sparse = min(10, count // 2)
        special["activation_sparsity_pattern"] = [0.95] * sparse + [0.0] * (count - sparse)
    text = {
        "vocab_size": shape.vocabulary,
        "hidden_size": shape.hidden,
        "intermediate_size": shape.inner,
        "num_hidden_layers": count,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "max_position_embeddings": 8192,
        **special,
    }
    if shape.experts:
        text |= {theirs: getattr(shape, ours) for ours, theirs in shapes.EXPERTS.items()} | {"enable_moe_block": True}
    if shape.kind == "gemma3":
        return AutoConfig.for_model("gemma3", text_config=text, vision_config=SMALLEST_TOWER)
    if shape.kind == "gemma4":
        return AutoConfig.for_model("gemma4", text_config=text)
    return AutoConfig.for_model("gemma3n_text" if shape.kind == "gemma3n" else shape.kind, **text)


def model(name: str, layers: int | None = None, **named: Any) -> Any:
    """In 16 bit. Needs CUDA: a CPU draws random numbers for minutes.

    Gemma 4 does not scale its scores, whose size is a matter of trained norms. With weights of 1 each token would see
    one other alone, and transformers' own gradients in 16 bit would have nothing in common with those in 32 bit. To a
    router that is not trained all experts are alike, so that rounding would choose: its scores are spread.
    """
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device("cuda"):
            made = AutoModelForCausalLM.from_config(configuration(name, layers), **named)
    finally:
        torch.set_default_dtype(torch.float32)
    for each_name, each in made.named_parameters():
        if name.startswith("gemma-4") and each_name.endswith("q_norm.weight"):
            each.data.fill_(each.numel() ** -0.5)
        if each_name.endswith("router.scale"):
            each.data.fill_(100.0)
    return made


def build(name: str, folder: Path, layers: int | None = None) -> Path:
    from tests import tiny

    tiny.tokenizer(folder)
    if name.startswith("gemma-4"):
        _other_turns(folder)
    model(name, layers).save_pretrained(str(folder))
    return folder


def _other_turns(folder: Path) -> None:
    """Gemma 4's words for a turn's start and end, and a template with them: its models bring their own."""
    tokenizer = folder / "tokenizer.json"
    template = resources.files("spool.data").joinpath("templates", "gemma3.jinja").read_text(encoding="utf-8")
    for path, text in ((tokenizer, tokenizer.read_text()), (folder / "chat_template.jinja", template)):
        path.write_text(text.replace("<start_of_turn>", "<|turn>").replace("<end_of_turn>", "<turn|>"))


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
