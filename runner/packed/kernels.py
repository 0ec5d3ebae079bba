"""The one Triton kernel: cross-entropy of rows of logits, which become their own gradient."""

import torch
import triton
import triton.language as tl


def cross_entropy(logits: torch.Tensor, targets: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Scaled losses (n) in 32 bit; `logits` (n, V) become their gradient. A negative target is passed over."""
    losses = torch.empty(len(logits), device=logits.device, dtype=torch.float32)
    _cross_entropy[(len(logits),)](
        logits, targets, losses, scale, logits.shape[1], logits.stride(0), BLOCK=8192, num_warps=16
    )
    return losses


@triton.jit
def _cross_entropy(logits, targets, losses, scales, vocabulary, stride, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
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
            x = tl.load(here + at, mask=at < vocabulary, other=-float("inf")).to(tl.float32)
            larger = tl.maximum(most, tl.max(x))
            total = total * tl.exp(most - larger) + tl.sum(tl.exp(x - larger))
            most = larger
        wanted = tl.load(here + target).to(tl.float32)
        tl.store(losses + row, (most + tl.log(total) - wanted) * scale)
        tl.debug_barrier()
        for start in range(0, vocabulary, BLOCK):
            at = start + tl.arange(0, BLOCK)
            x = tl.load(here + at, mask=at < vocabulary, other=-float("inf")).to(tl.float32)
            chance = tl.exp(x - most) / total
            tl.store(here + at, (chance - tl.where(at == target, 1.0, 0.0)) * scale, mask=at < vocabulary)
