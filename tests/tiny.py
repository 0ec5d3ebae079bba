"""A tiny Gemma 3 with random weights and a small BPE tokenizer of its own: everything real but the size.

Run as: python tests/tiny.py FOLDER
"""

import json
import sys
from pathlib import Path

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


def build(folder: Path) -> Path:
    import torch
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

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
    config = Gemma3TextConfig(
        vocab_size=len(document["model"]["vocab"]),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=1,
        head_dim=16,
        query_pre_attn_scalar=16,
        sliding_window=64,
        max_position_embeddings=512,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=2,
        layer_types=["sliding_attention", "full_attention"],
    )
    torch.manual_seed(0)
    model = Gemma3ForCausalLM(config).to(torch.bfloat16)
    model.generation_config.eos_token_id = [1, 5]
    model.save_pretrained(str(folder))
    return folder


if __name__ == "__main__":
    print(build(Path(sys.argv[1])))
