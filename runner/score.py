"""Greedy answers of a model to prompts, and how many are exactly right. What `make demo` shows."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spool.data.judging.chat import Encoder


@dataclass(frozen=True)
class Answer:
    """The text without special tokens, and whether the model ended it by itself within the limit."""

    text: str
    stopped: bool


def load(base: Path) -> Any:
    """The base model, ready to answer."""
    import torch
    from transformers import AutoModelForCausalLM

    device = "cuda" if torch.cuda.is_available() else "cpu"
    return AutoModelForCausalLM.from_pretrained(str(base), dtype=torch.bfloat16).to(device).eval()


def merge(model: Any, adapter: Path) -> Any:
    """The same model with an adapter merged into its weights: half the time per answer of an unmerged one."""
    from peft import PeftModel

    merged = PeftModel.from_pretrained(model, str(adapter)).merge_and_unload()
    # PEFT froze the weights, and for a frozen weight torch.matmul multiplies the last position of a batch with a copy
    # of the whole output matrix per row (a CPU then answers 10 times slower). For others it folds the batch.
    return merged.requires_grad_(True).eval()


def answer(
    model: Any, encoder: Encoder, prompts: Sequence[str], max_new_tokens: int, batch_size: int = 80
) -> list[Answer]:
    """Answers in the order of `prompts`; batches hold prompts of like length, padded on the left.

    Each new token reads all weights whatever the batch, so the more rows a batch, the faster.
    """
    import torch

    ids = [encoder.generation_ids([{"role": "user", "content": prompt}]) for prompt in prompts]
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    answers: dict[int, Answer] = {}
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        width = max(len(ids[i]) for i in batch)
        padded = torch.tensor([[encoder.pad_id] * (width - len(ids[i])) + ids[i] for i in batch], device=model.device)
        mask = torch.tensor([[0] * (width - len(ids[i])) + [1] * len(ids[i]) for i in batch], device=model.device)
        with torch.inference_mode():
            out = model.generate(
                input_ids=padded,
                attention_mask=mask,
                max_new_tokens=max_new_tokens,
                do_sample=False,
                eos_token_id=encoder.stop_ids,
                pad_token_id=encoder.pad_id,
            )
        for i, row in zip(batch, out[:, width:].tolist(), strict=True):
            end = next((k for k, token in enumerate(row) if token in encoder.stop_ids), None)
            answers[i] = Answer(encoder.decode(row if end is None else row[:end]).strip(), end is not None)
    return [answers[i] for i in range(len(prompts))]


def exact(answers: Sequence[Answer], expected: Sequence[str]) -> int:
    """How many answers are the expected text, character by character, and ended by themselves."""
    return sum(a.stopped and a.text == e.strip() for a, e in zip(answers, expected, strict=True))
