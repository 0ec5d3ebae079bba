"""Cross-entropy of a linear layer over the vocabulary, a few rows of logits at a time: loss and gradient in one pass.

The method is that of Liger Kernel's fused linear cross entropy (arXiv 2410.10989, section 3.2): the gradient of the
hidden states is computed with the loss, while the logits of a chunk are there, and the logits are given up. The layer
itself is frozen and gets no gradient.
"""

from typing import Any

import torch

from spool.data.judging.chat import NOT_TRAINED

CHUNK_BYTES = 1 << 28
"""Of logits at once: 524 rows of a vocabulary of 256,000, as large a matrix product as keeps a card busy."""
TILE = 128
"""Rows that a matrix product takes at once: a part of a tile costs a whole one."""


def linear_cross_entropy(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    targets: torch.Tensor,
    scale: torch.Tensor,
    softcap: float | None = None,
) -> torch.Tensor:
    """The sum of the losses, times `scale`: 1 / trained tokens of the step makes it their mean.

    Args:
        hidden: (N, H).
        weight: (V, H), frozen.
        targets: (N) token ids; -100 is passed over.
        scale: () in 32 bit, on the same device.
        softcap: logits become softcap * tanh(logit / softcap), as Gemma 2 has them.
    """
    return _LinearCrossEntropy.apply(hidden, weight, targets, scale, softcap)


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        targets: torch.Tensor,
        scale: torch.Tensor,
        softcap: float | None,
    ) -> torch.Tensor:
        most = max(1, CHUNK_BYTES // (weight.shape[0] * hidden.element_size()))
        chunk = max(most - most % TILE, min(most, TILE))
        losses = torch.empty(len(hidden), device=hidden.device, dtype=torch.float32)
        gradient = torch.empty_like(hidden)
        for i in range(0, len(hidden), chunk):
            part = slice(i, i + chunk)
            logits = hidden[part] @ weight.t()
            losses[part] = _to_gradient(logits, targets[part], scale, softcap)
            if ctx.needs_input_grad[0]:
                torch.mm(logits, weight, out=gradient[part])
            del logits  # before the next ones are there
        ctx.save_for_backward(gradient)
        return losses.sum()

    @staticmethod
    def backward(ctx: Any, *of_loss: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return gradient * of_loss[0].to(gradient.dtype), None, None, None, None


def _to_gradient(
    logits: torch.Tensor, targets: torch.Tensor, scale: torch.Tensor, softcap: float | None
) -> torch.Tensor:
    """The scaled losses of rows of logits (n, V), which become their gradient in place."""
    if logits.is_cuda:
        from runner.packed.kernels import cross_entropy

        return cross_entropy(logits, targets, scale, softcap)
    learned = targets != NOT_TRAINED
    rows, at = torch.arange(len(targets)), targets.clamp(min=0)
    values = logits.float()
    slopes = 1.0
    if softcap is not None:
        capped = torch.tanh(values / softcap)
        values, slopes = softcap * capped, 1 - capped**2
    sums = values.logsumexp(dim=1)
    losses = (sums - values[rows, at]) * learned * scale
    values.sub_(sums[:, None]).exp_()
    values[rows, at] -= 1
    logits.copy_(values * slopes * (learned * scale)[:, None])
    return losses
