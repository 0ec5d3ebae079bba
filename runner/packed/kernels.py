"""Triton kernels: cross-entropy of rows of logits, which become their own gradient, and Gemma's gated activation."""

from typing import Any

import torch
import triton
import triton.language as tl


def cross_entropy(
    logits: torch.Tensor, targets: torch.Tensor, scale: torch.Tensor, softcap: float | None = None
) -> torch.Tensor:
    """Scaled losses (n) in 32 bit; `logits` (n, V) become their gradient. A negative target is passed over."""
    losses = torch.empty(len(logits), device=logits.device, dtype=torch.float32)
    _cross_entropy[(len(logits),)](
        logits, targets, losses, scale, logits.shape[1], logits.stride(0), CAP=softcap or 0.0, BLOCK=8192, num_warps=16
    )
    return losses


@triton.jit
def tanh(x):  # type: ignore[no-untyped-def]
    return 1.0 - 2.0 / (tl.exp(2.0 * x) + 1.0)


@triton.jit
def _capped(x, CAP: tl.constexpr):  # type: ignore[no-untyped-def]
    """A cap of 0 is none."""
    if CAP > 0:
        return CAP * tanh(x / CAP)
    else:
        return x


@triton.jit
def _cross_entropy(logits, targets, losses, scales, vocabulary, stride, CAP: tl.constexpr, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """One program a row: the sum of exponentials as it goes (arXiv 1805.02867), then the gradient."""
    row = tl.program_id(0).to(tl.int64)
    target, here, scale = tl.load(targets + row), logits + row * stride, tl.load(scales)
    if target < 0:
        for start in range(0, vocabulary, BLOCK):
            at = start + tl.arange(0, BLOCK)
            tl.store(here + at, 0.0, mask=at < vocabulary)
        tl.store(losses + row, 0.0)
    else:
        most, total = -float("inf"), 0.0
        for start in range(0, vocabulary, BLOCK):
            at = start + tl.arange(0, BLOCK)
            x = _capped(tl.load(here + at, mask=at < vocabulary, other=0.0).to(tl.float32), CAP)
            x = tl.where(at < vocabulary, x, -float("inf"))
            larger = tl.maximum(most, tl.max(x))
            total = total * tl.exp(most - larger) + tl.sum(tl.exp(x - larger))
            most = larger
        wanted = _capped(tl.load(here + target).to(tl.float32), CAP)
        tl.store(losses + row, (most + tl.log(total) - wanted) * scale)
        tl.debug_barrier()
        for start in range(0, vocabulary, BLOCK):
            at = start + tl.arange(0, BLOCK)
            x = _capped(tl.load(here + at, mask=at < vocabulary, other=0.0).to(tl.float32), CAP)
            gradient = (tl.exp(x - most) / total - tl.where(at == target, 1.0, 0.0)) * scale
            if CAP > 0:
                gradient *= 1.0 - (x / CAP) * (x / CAP)
            tl.store(here + at, gradient, mask=at < vocabulary)


class Geglu(torch.autograd.Function):
    """gelu(gate) * up with the tanh form of GELU (arXiv 1606.08415); nothing but the two is kept. Any equal shapes."""

    @staticmethod
    def forward(ctx: Any, gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(gate, up)
        out = torch.empty_like(gate)
        _geglu[_grid(gate)](gate, up, out, gate.numel(), BLOCK=BLOCK)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        gate, up = ctx.saved_tensors
        d_gate, d_up = torch.empty_like(gate), torch.empty_like(up)
        _geglu_backward[_grid(gate)](gradients[0].contiguous(), gate, up, d_gate, d_up, gate.numel(), BLOCK=BLOCK)
        return d_gate, d_up


BLOCK = 4096


def _grid(values: torch.Tensor) -> tuple[int]:
    return (triton.cdiv(values.numel(), BLOCK),)


@triton.jit
def _geglu(gates, ups, outs, count, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    gate = tl.load(gates + at, mask=at < count, other=0.0).to(tl.float32)
    up = tl.load(ups + at, mask=at < count, other=0.0).to(tl.float32)
    half = 0.5 * (1.0 + tanh(0.7978845608028654 * gate * (1.0 + 0.044715 * gate * gate)))
    tl.store(outs + at, gate * half * up, mask=at < count)


@triton.jit
def _geglu_backward(gradients, gates, ups, d_gates, d_ups, count, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    gradient = tl.load(gradients + at, mask=at < count, other=0.0).to(tl.float32)
    gate = tl.load(gates + at, mask=at < count, other=0.0).to(tl.float32)
    up = tl.load(ups + at, mask=at < count, other=0.0).to(tl.float32)
    bent = tanh(0.7978845608028654 * gate * (1.0 + 0.044715 * gate * gate))
    half = 0.5 * (1.0 + bent)
    slope = half + 0.5 * gate * (1.0 - bent * bent) * 0.7978845608028654 * (1.0 + 0.134145 * gate * gate)
    tl.store(d_ups + at, gradient * gate * half, mask=at < count)
    tl.store(d_gates + at, gradient * up * slope, mask=at < count)
