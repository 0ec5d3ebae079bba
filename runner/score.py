"""Greedy answers of a model to prompts, and how many are exactly right. What `make demo` shows."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spool.data.judging.chat import Encoder
from spool.protocol.spec import Sampling

if TYPE_CHECKING:
    from runner.answer import Reply


def load(base: Path) -> Any:
    """The base model, ready to answer."""
    import torch
    from transformers import AutoModelForCausalLM

    device = "cuda" if torch.cuda.is_available() else "cpu"
    return AutoModelForCausalLM.from_pretrained(str(base), dtype=torch.bfloat16).to(device).eval()


def merge(model: Any, adapter: Path) -> Any:
    """The same model with an adapter merged into its weights: half the time per answer of an unmerged one."""
    from peft import PeftModel

    return PeftModel.from_pretrained(model, str(adapter)).merge_and_unload().eval()


def answer(
    model: Any, encoder: Encoder, prompts: Sequence[str], max_new_tokens: int, batch_size: int = 80
) -> "list[Reply]":
    """Answers in the order of `prompts`; batches hold prompts of like length.

    Each new token reads all weights whatever the batch, so the more rows a batch, the faster.
    """
    from runner.answer import BASE, Row
    from runner.answer import answer as answer_batch

    rows = [Row(BASE, encoder.generation_ids([{"role": "user", "content": prompt}])) for prompt in prompts]
    order = sorted(range(len(rows)), key=lambda i: len(rows[i].ids))
    answers: dict[int, Reply] = {}
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        replies = answer_batch(model, encoder, [rows[i] for i in batch], Sampling(max_new_tokens=max_new_tokens))
        answers |= dict(zip(batch, replies, strict=True))
    return [answers[i] for i in range(len(prompts))]


def exact(answers: "Sequence[Reply]", expected: Sequence[str]) -> int:
    """How many answers are the expected text, character by character, and ended by themselves."""
    return sum(a.stopped and a.text == e.strip() for a, e in zip(answers, expected, strict=True))
