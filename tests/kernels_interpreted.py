"""What test_kernels.py runs under Triton's interpreter: each kernel on a CPU against plain PyTorch in 64 bit."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
import triton.language as tl
from torch import Tensor
from triton.runtime.interpreter import InterpreterBuilder

from runner.packed import flash
from runner.packed.flash import Flash
from runner.packed.kernels import Geglu, cross_entropy
from spool.data.judging.chat import NOT_TRAINED

LENGTHS = [5, 130, 1, 64, 21, 35]
"""The last row is padding; behind it come rows of no tokens, as many as the batch has fewer than the most."""
SMALL, LARGE = 99 << 10, 227 << 10


@pytest.fixture(autouse=True)
def products_of_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter multiplies the bits of bf16 as if they were whole numbers."""
    plain = InterpreterBuilder.create_dot

    def create_dot(self: Any, a: Any, b: Any, *rest: Any) -> Any:
        wide = (self.cast_impl(each, tl.float32) if each.dtype.scalar == tl.bfloat16 else each for each in (a, b))
        return plain(self, *wide, *rest)

    monkeypatch.setattr(InterpreterBuilder, "create_dot", create_dot)


def random(*shape: int, dtype: torch.dtype, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def near(found: Tensor, plain: Tensor) -> None:
    """bf16 keeps 8 bits, and the interpreter cuts off what it does not keep."""
    away = (found.double() - plain).norm() / plain.norm()
    assert away < (1e-2 if found.dtype == torch.bfloat16 else 1e-5)


@pytest.mark.parametrize(
    ("dtype", "shared", "heads", "key_heads", "head_dim", "window", "softcap"),
    [
        (torch.float32, SMALL, 4, 2, 64, None, None),
        (torch.float32, SMALL, 4, 1, 64, 7, 1.5),
        (torch.float32, SMALL, 2, 1, 256, 40, 1.5),
        (torch.float32, LARGE, 2, 2, 256, 2, 1.5),
        (torch.float32, LARGE, 3, 3, 128, 70, None),
        (torch.float32, SMALL, 2, 1, 512, None, None),
        (torch.float32, LARGE, 2, 1, 512, 100, 50.0),
        (torch.bfloat16, LARGE, 4, 2, 128, None, 1.5),
        (torch.bfloat16, SMALL, 2, 1, 512, None, None),
    ],
)
def test_attention(
    monkeypatch: pytest.MonkeyPatch,
    dtype: torch.dtype,
    shared: int,
    heads: int,
    key_heads: int,
    head_dim: int,
    window: int | None,
    softcap: float | None,
) -> None:
    monkeypatch.setattr(flash, "_shared_bytes", lambda device: shared)
    tokens, rows = sum(LENGTHS), torch.tensor(LENGTHS)
    starts = torch.tensor([0, *rows.cumsum(0), tokens, tokens], dtype=torch.int32)
    query = random(tokens, heads, head_dim, dtype=dtype, seed=0).requires_grad_()
    key, value = (random(tokens, key_heads, head_dim, dtype=dtype, seed=seed).requires_grad_() for seed in (1, 2))
    gradient = random(tokens, heads, head_dim, dtype=dtype, seed=3)
    found = Flash.apply(query, key, value, starts, head_dim**-0.5, window, softcap)

    q, k, v = (each.double().transpose(0, 1) for each in (query, key, value))
    k, v = (each.repeat_interleave(heads // key_heads, dim=0) for each in (k, v))
    scores = head_dim**-0.5 * q @ k.mT
    if softcap:
        scores = softcap * torch.tanh(scores / softcap)
    whose, place = torch.repeat_interleave(torch.arange(len(rows)), rows), torch.arange(tokens)
    seen = (whose[:, None] == whose) & (place <= place[:, None]) & (place > place[:, None] - (window or tokens))
    plain = (scores.masked_fill(~seen, -torch.inf).softmax(2) @ v).transpose(0, 1)
    near(found.detach(), plain.detach())
    of_found = torch.autograd.grad(found, (query, key, value), gradient)
    of_plain = torch.autograd.grad(plain, (query, key, value), gradient.double())
    for each, expected in zip(of_found, of_plain, strict=True):
        near(each, expected.double())


def test_attention_refuses_what_it_has_no_blocks_for() -> None:
    with pytest.raises(ValueError, match="96 is no power of two from 16 to 512"):
        flash.plan(96, SMALL)


@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_cross_entropy(dtype: torch.dtype, softcap: float | None) -> None:
    """Of more tokens than a block has, the last of them among the targets."""
    logits = 3 * random(4, 8292, dtype=dtype, seed=0)
    targets = torch.tensor([7, NOT_TRAINED, 8291, 8192])
    plain = logits.double().requires_grad_()
    capped = softcap * torch.tanh(plain / softcap) if softcap else plain
    expected = 0.25 * F.cross_entropy(capped, targets, ignore_index=NOT_TRAINED, reduction="none")
    (of_expected,) = torch.autograd.grad(expected.sum(), plain)
    losses = cross_entropy(logits, targets, torch.tensor(0.25), softcap)
    torch.testing.assert_close(losses.double(), expected.detach(), rtol=1e-5, atol=1e-6)
    near(logits, of_expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gated_activation(dtype: torch.dtype) -> None:
    gate, up, gradient = (2 * random(3, 1500, dtype=dtype, seed=seed) for seed in (0, 1, 2))
    gate, up = gate.requires_grad_(), up.requires_grad_()
    found, plain = Geglu.apply(gate, up), F.gelu(gate.double(), approximate="tanh") * up.double()
    near(found.detach(), plain.detach())
    of_plain = torch.autograd.grad(plain, (gate, up), gradient.double())
    for each, expected in zip(torch.autograd.grad(found, (gate, up), gradient), of_plain, strict=True):
        near(each, expected.double())
