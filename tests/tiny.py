"""A tiny Gemma of each family with random weights and a small BPE tokenizer: everything real but the size.

Run as: python tests/tiny.py FOLDER [KIND]        (KIND: gemma3_text, or one of FAMILIES)
"""

import json
import sys
from pathlib import Path
from typing import Any

SPECIAL = ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"]
TEXT = [
    "Where is my order? It was due on Monday and the parcel has not arrived.",
    '{"intent":"refund","order":"A-10293","urgency":"high","language":"en"}',
    "user model The capital of France is Paris. Wo ist meine Bestellung? Merci beaucoup, gracias.",
]


def tokenizer_json() -> dict:
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Replace(" ", "\u2581")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()])
    byte_tokens = [f"<0x{i:02X}>" for i in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=640, special_tokens=SPECIAL + byte_tokens, show_progress=False)
    tokenizer.train_from_iterator(TEXT * 3 + [chr(i) for i in range(32, 127)] + ["\n"], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", pair="<bos> $A <bos> $B", special_tokens=[("<bos>", 2)]
    )
    document = json.loads(tokenizer.to_str())
    document["added_tokens"] = [t for t in document["added_tokens"] if t["content"] in SPECIAL]
    return document


SMALL = {
    "vocab_size": 640,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "sliding_window": 64,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "bos_token_id": 2,
    "layer_types": ["sliding_attention", "full_attention"],
}
FOUR = {"num_hidden_layers": 4, "layer_types": ["sliding_attention", "full_attention"] * 2, "num_kv_shared_layers": 2}
GEMMA_4 = {"global_head_dim": 32, "final_logit_softcapping": 2.0}
EDGE = {
    **{**SMALL, **FOUR, **GEMMA_4},
    **{"vocab_size_per_layer_input": 640, "hidden_size_per_layer_input": 8, "use_double_wide_mlp": True},
}
DENSE = {"attention_k_eq_v": True, "num_key_value_heads": 2, "num_global_key_value_heads": 1}
TOWER = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
FAMILIES: dict[str, tuple[str, dict]] = {
    "gemma": ("gemma", {**SMALL, "hidden_activation": "gelu_pytorch_tanh"}),
    "gemma2": ("gemma2", {**SMALL, "attn_logit_softcapping": 0.5, "final_logit_softcapping": 2.0}),
    "gemma3": (
        "gemma3",
        {
            "text_config": {**SMALL, "query_pre_attn_scalar": 16},
            "vision_config": {"model_type": "siglip_vision_model", **TOWER, "image_size": 28, "patch_size": 14},
            **{"mm_tokens_per_image": 4, "image_token_index": 639, "boi_token_index": 638, "eoi_token_index": 637},
        },
    ),
    "gemma3n_text": (
        "gemma3n_text",
        {
            **{**SMALL, **FOUR, "intermediate_size": [128, 128, 64, 64]},
            **{"vocab_size_per_layer_input": 640, "hidden_size_per_layer_input": 8, "laurel_rank": 8},
            **{"activation_sparsity_pattern": [0.9, 0.5, 0.0, 0.0], "final_logit_softcapping": 2.0},
        },
    ),
    "gemma4_text": ("gemma4_text", EDGE),
    "gemma4": (
        "gemma4",
        {
            "text_config": {**SMALL, **GEMMA_4, **DENSE, "hidden_size_per_layer_input": 0},
            "vision_config": {**TOWER, "num_key_value_heads": 2, "head_dim": 16, "position_embedding_size": 16},
            **{"image_token_id": 639, "audio_token_id": 638, "video_token_id": 637},
        },
    ),
    "gemma4_experts": (
        "gemma4_text",
        {
            **{**SMALL, **GEMMA_4, **DENSE, "hidden_size_per_layer_input": 0, "enable_moe_block": True},
            **{"num_experts": 8, "top_k_experts": 2, "moe_intermediate_size": 32},
        },
    ),
    "gemma4_unified_text": ("gemma4_unified_text", {**SMALL, **GEMMA_4, **DENSE}),
}
"""Name -> (model_type, its configuration): between them everything that one Gemma computes and another does not.
Windows are short and soft caps low, so that both count."""


def family(kind: str, **named: Any) -> Any:
    """The tiny model of FAMILIES; no weight is where it begins, be it of a norm or of a scale."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    model_type, values = FAMILIES[kind]
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **values), **named)
    for each in (*model.parameters(), *(b for name, b in model.named_buffers() if name.endswith("layer_scalar"))):
        each.data.add_(torch.randn(each.shape) * (0.3 if each.dim() == 1 else 0.05))
    return model.eval()


def tokenizer(folder: Path) -> int:
    """Writes it; how many tokens it has."""
    folder.mkdir(parents=True, exist_ok=True)
    document = tokenizer_json()
    (folder / "tokenizer.json").write_text(json.dumps(document, ensure_ascii=False))
    names = dict(zip(("pad_token", "eos_token", "bos_token", "unk_token"), SPECIAL, strict=False))
    (folder / "tokenizer_config.json").write_text(
        json.dumps(
            {
                "tokenizer_class": "PreTrainedTokenizerFast",
                "model_max_length": 512,
                "clean_up_tokenization_spaces": False,
                **names,
            }
        )
    )
    return len(document["model"]["vocab"])


def build(folder: Path, kind: str = "gemma3_text") -> Path:
    import torch
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    vocabulary = tokenizer(folder)
    if kind == "gemma3_text":
        config = Gemma3TextConfig(**{**SMALL, "vocab_size": vocabulary}, query_pre_attn_scalar=16)
        torch.manual_seed(0)
        model = Gemma3ForCausalLM(config).to(torch.bfloat16)
    else:
        model = family(kind).to(torch.bfloat16)
    model.generation_config.eos_token_id = [1, 5]
    model.save_pretrained(str(folder))
    return folder


if __name__ == "__main__":
    print(build(Path(sys.argv[1]), *sys.argv[2:]))
