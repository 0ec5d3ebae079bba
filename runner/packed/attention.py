"""Attention within each of the rows that lie one behind the other, as an attention function of transformers.

On a GPU it is PyTorch's own flash attention for rows of different lengths (FlashAttention-2, arXiv 2307.08691), without
mask and padding, and with a backward pass that adds in the same order each time. What that cannot do, capped scores and
wide heads, is done by a kernel of our own (flash.py). On a CPU the rows are computed one after the other.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch.library import custom_op, register_autograd
from transformers import AttentionInterface

from runner.packed import ATTENTION
from runner.packed.batch import spans

WIDEST = 256
"""The most head_dim that PyTorch's flash attention has."""


def attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: None,
    scaling: float,
    *,
    starts: torch.Tensor,
    longest: int,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention of packed rows.

    Args:
        query: (1, heads, T, head_dim); key and value (1, key heads, T, head_dim).
        starts: (R + 1) where each row begins, and the end; int32.
        longest: no row has more tokens.
        sliding_window: how many tokens a token sees, itself included.
        softcap: scores become softcap * tanh(score / softcap), as Gemma 2 has them.

    Returns:
        (1, T, heads, head_dim), and no weights.
    """
    window = (sliding_window - 1) if sliding_window else -1
    if query.is_cuda:
        rows = (each[0].transpose(0, 1).to(torch.bfloat16).contiguous() for each in (query, key, value))
        if softcap is not None or query.shape[3] > WIDEST:
            from runner.packed.flash import Flash

            return Flash.apply(*rows, starts, scaling, sliding_window, softcap)[None], None
        out, *_unused = flash(*rows, starts, longest, scaling, window)
        return out[None], None
    parts = [_row(query, key, value, at, scaling, window, softcap) for at in spans(starts)]
    return torch.cat(parts, dim=2).transpose(1, 2), None


def _row(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    at: tuple[int, int],
    scaling: float,
    window: int,
    softcap: float | None,
) -> torch.Tensor:
    q, k, v = (each[:, :, at[0] : at[1]] for each in (query, key, value))
    length = at[1] - at[0]
    if softcap is None and (window < 0 or length <= window + 1):
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scaling, enable_gqa=True)
    seen = torch.ones(length, length, dtype=torch.bool).tril()
    if window >= 0:
        seen = seen.triu(-window)
    if softcap is None:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=seen, scale=scaling, enable_gqa=True)
    k, v = (each.repeat_interleave(query.shape[1] // key.shape[1], dim=1) for each in (k, v))
    scores = softcap * torch.tanh(q @ k.transpose(2, 3) * (scaling / softcap))
    return scores.masked_fill(~seen, -torch.inf).softmax(dim=3, dtype=torch.float32).to(v.dtype) @ v


@custom_op("finetuner::flash", mutates_args=())
def flash(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    starts: torch.Tensor,
    longest: int,
    scaling: float,
    window: int,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Shapes (T, heads, head_dim); gives that of the query, and what the backward pass needs."""
    out, sums, seed, offset, _ = torch.ops.aten._flash_attention_forward(
        query, key, value, starts, starts, longest, longest, 0.0, True, False,
        scale=scaling, window_size_left=window, window_size_right=0,
    )  # fmt: skip
    return out, sums, seed.clone(), offset.clone()


@custom_op("finetuner::flash_backward", mutates_args=())
def flash_backward(
    gradient: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    out: torch.Tensor,
    sums: torch.Tensor,
    starts: torch.Tensor,
    longest: int,
    seed: torch.Tensor,
    offset: torch.Tensor,
    scaling: float,
    window: int,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    before = torch.are_deterministic_algorithms_enabled()
    torch._C._set_deterministic_algorithms(True)
    try:
        d_query, d_key, d_value = torch.ops.aten._flash_attention_backward(
            gradient.contiguous(), query, key, value, out, sums, starts, starts, longest, longest, 0.0, True, seed,
            offset, scale=scaling, window_size_left=window, window_size_right=0,
        )  # fmt: skip
    finally:
        torch._C._set_deterministic_algorithms(before)
    return d_query, d_key, d_value


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, ...]) -> None:
    query, key, value, starts, ctx.longest, ctx.scaling, ctx.window = inputs
    out, sums, seed, offset = output
    ctx.save_for_backward(query, key, value, out, sums, starts, seed, offset)


def _backward(ctx: Any, gradient: torch.Tensor, *_: Any) -> tuple[torch.Tensor | None, ...]:
    query, key, value, out, sums, starts, seed, offset = ctx.saved_tensors
    found = flash_backward(
        gradient, query, key, value, out, sums, starts, ctx.longest, seed, offset, ctx.scaling, ctx.window
    )
    return *found, None, None, None, None


register_autograd("finetuner::flash", _backward, setup_context=_keep)
AttentionInterface.register(ATTENTION, attend)
