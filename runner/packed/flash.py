"""Flash attention in Triton for what PyTorch's own cannot do: capped scores (Gemma 2), heads wider than 256 (Gemma 4).

The method is FlashAttention-2's (arXiv 2307.08691): scores are made a block at a time and never lie in memory, the
forward pass keeps the logarithm of each query's sum, and the backward pass makes the scores again. One kernel adds up
a query's gradient and one a key's, so that nothing is added by atomics and two runs give the same bits. Keys are looked
at from where the row of a block's first query begins, so that the work is that of the rows and not T x T. Nothing waits
for the host, and nothing is tried out first: all of it can be recorded in a CUDA graph.
"""

from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl

from runner.packed.kernels import tanh

UNBOUNDED = 1 << 30
"""A window that holds every row."""


@dataclass(frozen=True)
class Blocks:
    """Queries and keys that one program has at once, and how many warps and stages it has for them."""

    queries: int
    keys: int
    warps: int
    stages: int

    def __call__(self) -> dict[str, int]:
        return {"M": self.queries, "N": self.keys, "num_warps": self.warps, "num_stages": self.stages}


@dataclass(frozen=True)
class Plan:
    """Blocks of the three kernels."""

    forward: Blocks
    of_queries: Blocks
    of_keys: Blocks


LARGE_BYTES = 160 << 10
"""Shared memory that a block may have on an A100 (163 KiB) or H100 (227 KiB); on other cards 99 KiB."""

SMALL = {
    512: Plan(Blocks(32, 32, 8, 1), Blocks(32, 16, 8, 1), Blocks(16, 16, 8, 1)),
    256: Plan(Blocks(64, 64, 8, 1), Blocks(64, 32, 8, 1), Blocks(32, 32, 8, 1)),
    128: Plan(Blocks(64, 64, 4, 1), Blocks(64, 64, 8, 1), Blocks(64, 64, 8, 1)),
}
LARGE = {
    512: Plan(Blocks(64, 32, 8, 1), Blocks(32, 32, 8, 1), Blocks(32, 32, 8, 1)),
    256: Plan(Blocks(64, 32, 4, 2), Blocks(64, 32, 8, 2), Blocks(32, 64, 8, 2)),
    128: Plan(Blocks(128, 64, 8, 2), Blocks(64, 64, 4, 2), Blocks(32, 64, 4, 2)),
}


def plan(head_dim: int, shared_bytes: int) -> Plan:
    """What fits into so much shared memory of a block.

    Raises:
        ValueError: no kernel is made for heads so wide.
    """
    if head_dim not in (16, 32, 64, 128, 256, 512):
        raise ValueError(f"packed attention with capped or wide heads: {head_dim} is no power of two from 16 to 512")
    return (LARGE if shared_bytes >= LARGE_BYTES else SMALL)[max(128, head_dim)]


class Flash(torch.autograd.Function):
    """Causal attention of packed rows; what `attend` of runner.packed.attention says, in these shapes:

    query (T, heads, head_dim), key and value (T, key heads, head_dim), all dense; starts (R + 1) in int32.
    Then scaling, window (how many tokens a token sees, itself included; None for all) and softcap (None for none).
    """

    @staticmethod
    def forward(
        ctx: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        starts: torch.Tensor,
        scaling: float,
        window: int | None,
        softcap: float | None,
    ) -> torch.Tensor:
        tokens, heads, head_dim = query.shape
        chosen = plan(head_dim, _shared_bytes(query.device))
        firsts, ends = torch.empty(2, tokens, device=query.device, dtype=torch.int32)
        _edges[(len(starts) - 1,)](starts, firsts, ends, BLOCK=1024)
        out = torch.empty_like(query)
        sums = torch.empty(heads, tokens, device=query.device, dtype=torch.float32)
        shape = {"HEADS": heads, "GROUP": heads // key.shape[1], "D": head_dim, "CAP": softcap or 0.0}
        numbers = (tokens, window or UNBOUNDED, scaling)
        _forward[(triton.cdiv(tokens, chosen.forward.queries), heads)](
            query, key, value, out, sums, firsts, *numbers, **shape, **chosen.forward()
        )
        ctx.save_for_backward(query, key, value, out, sums, firsts, ends)
        ctx.plan, ctx.numbers, ctx.shape = chosen, numbers, shape
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        query, key, value, out, sums, firsts, ends = ctx.saved_tensors
        gradient, tokens = gradients[0].contiguous(), len(query)
        d_query, deltas = torch.empty_like(query), torch.empty_like(sums)
        of_queries, of_keys = ctx.plan.of_queries, ctx.plan.of_keys
        programs = triton.cdiv(tokens, of_keys.keys) * key.shape[1]
        shares = _shares(programs, ctx.shape["GROUP"], query.device)
        parts = key.new_empty(2, shares, *key.shape, dtype=torch.float32 if shares > 1 else key.dtype)
        _of_queries[(triton.cdiv(tokens, of_queries.queries), query.shape[1])](
            gradient, query, key, value, out, sums, deltas, d_query, firsts, *ctx.numbers, **ctx.shape, **of_queries()
        )
        _of_keys[(triton.cdiv(tokens, of_keys.keys), key.shape[1] * shares)](
            gradient, query, key, value, sums, deltas, *parts, ends, *ctx.numbers,
            SHARES=shares, **ctx.shape, **of_keys(),
        )  # fmt: skip
        d_key, d_value = parts[:, 0] if shares == 1 else parts.sum(1).to(key.dtype)
        return d_query, d_key, d_value, None, None, None, None


def _shared_bytes(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).shared_memory_per_block_optin if device.type == "cuda" else 0


def _shares(programs: int, group: int, device: torch.device) -> int:
    """Among how many the heads of queries that share a key are divided, so that a card has enough to do at once: small
    Gemmas have one key head or two."""
    busy = 2 * torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 8
    shares = 1
    while group % (2 * shares) == 0 and programs * shares < busy:
        shares *= 2
    return shares


@triton.jit
def _edges(starts, firsts, ends, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """One program a row: where it begins and ends, for each of its tokens."""
    row = tl.program_id(0)
    first, end = tl.load(starts + row), tl.load(starts + row + 1)
    for start in range(first, end, BLOCK):
        at = start + tl.arange(0, BLOCK)
        tl.store(firsts + at, first, mask=at < end)
        tl.store(ends + at, end, mask=at < end)


LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit
def _scores(products, scaling, CAP: tl.constexpr):  # type: ignore[no-untyped-def]
    """In base 2, whose power is the quicker one."""
    if CAP > 0:
        return CAP * LOG2_E * tanh(products * (scaling / CAP))
    else:
        return products * (scaling * LOG2_E)


@triton.jit
def _slopes(scores, CAP: tl.constexpr):  # type: ignore[no-untyped-def]
    """Of the cap: 1 - tanh^2."""
    bent = scores / (CAP * LOG2_E)
    return 1.0 - bent * bent


@triton.jit(do_not_specialize=["tokens", "window"])
def _forward(  # type: ignore[no-untyped-def]
    queries, keys, values, outs, sums, firsts, tokens, window, scaling,
    HEADS: tl.constexpr, GROUP: tl.constexpr, D: tl.constexpr, CAP: tl.constexpr, M: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """One program for M queries of one head."""
    start, head = tl.program_id(0) * M, tl.program_id(1)
    end = tl.minimum(start + M, tokens)
    rows = start + tl.arange(0, M)
    here = (start.to(tl.int64) * HEADS + head) * D + tl.arange(0, M)[:, None] * (HEADS * D) + tl.arange(0, D)[None, :]
    query = tl.load(queries + here, mask=rows[:, None] < end, other=0.0)
    first = tl.load(firsts + rows, mask=rows < end, other=0)
    below = head // GROUP * D + tl.arange(0, N)[:, None] * (HEADS // GROUP * D) + tl.arange(0, D)[None, :]
    most = tl.full([M], -1.0e38, tl.float32)  # finite: a block may have no key for a query
    total = tl.zeros([M], tl.float32)
    out = tl.zeros([M, D], tl.float32)
    for begin in range(tl.maximum(tl.load(firsts + start), start - window + 1), end, N):
        columns = begin + tl.arange(0, N)
        there = tl.cast(begin, tl.int64) * (HEADS // GROUP * D) + below
        key = tl.load(keys + there, mask=columns[:, None] < end, other=0.0)
        scores = _scores(tl.dot(query, tl.trans(key)), scaling, CAP)
        behind = rows[:, None] - columns[None, :]
        scores = tl.where(
            (behind >= 0) & (behind < window) & (columns[None, :] >= first[:, None]), scores, -float("inf")
        )
        larger = tl.maximum(most, tl.max(scores, 1))
        chances, shrunk = tl.exp2(scores - larger[:, None]), tl.exp2(most - larger)
        total = total * shrunk + tl.sum(chances, 1)
        value = tl.load(values + there, mask=columns[:, None] < end, other=0.0)
        out = tl.dot(chances.to(value.dtype), value, out * shrunk[:, None])
        most = larger
    tl.store(outs + here, (out / total[:, None]).to(query.dtype), mask=rows[:, None] < end)
    tl.store(sums + head.to(tl.int64) * tokens + rows, most + tl.log2(total), mask=rows < end)


@triton.jit(do_not_specialize=["tokens", "window"])
def _of_queries(  # type: ignore[no-untyped-def]
    gradients, queries, keys, values, outs, sums, deltas, d_queries, firsts, tokens, window, scaling,
    HEADS: tl.constexpr, GROUP: tl.constexpr, D: tl.constexpr, CAP: tl.constexpr, M: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """One program for the gradients of M queries of one head; it leaves the deltas of section 3.2 for `_of_keys`."""
    start, head = tl.program_id(0) * M, tl.program_id(1)
    end = tl.minimum(start + M, tokens)
    rows = start + tl.arange(0, M)
    here = (start.to(tl.int64) * HEADS + head) * D + tl.arange(0, M)[:, None] * (HEADS * D) + tl.arange(0, D)[None, :]
    gradient = tl.load(gradients + here, mask=rows[:, None] < end, other=0.0)
    out = tl.load(outs + here, mask=rows[:, None] < end, other=0.0)
    delta = tl.sum(gradient.to(tl.float32) * out.to(tl.float32), 1)
    of_rows = head.to(tl.int64) * tokens + rows
    tl.store(deltas + of_rows, delta, mask=rows < end)
    query = tl.load(queries + here, mask=rows[:, None] < end, other=0.0)
    first = tl.load(firsts + rows, mask=rows < end, other=0)
    total = tl.load(sums + of_rows, mask=rows < end, other=float("inf"))
    below = head // GROUP * D + tl.arange(0, N)[:, None] * (HEADS // GROUP * D) + tl.arange(0, D)[None, :]
    d_query = tl.zeros([M, D], tl.float32)
    for begin in range(tl.maximum(tl.load(firsts + start), start - window + 1), end, N):
        columns = begin + tl.arange(0, N)
        there = tl.cast(begin, tl.int64) * (HEADS // GROUP * D) + below
        key = tl.load(keys + there, mask=columns[:, None] < end, other=0.0)
        value = tl.load(values + there, mask=columns[:, None] < end, other=0.0)
        scores = _scores(tl.dot(query, tl.trans(key)), scaling, CAP)
        behind = rows[:, None] - columns[None, :]
        seen = (behind >= 0) & (behind < window) & (columns[None, :] >= first[:, None])
        chances = tl.where(seen, tl.exp2(scores - total[:, None]), 0.0)
        d_scores = chances * (tl.dot(gradient, tl.trans(value)) - delta[:, None])
        if CAP > 0:
            d_scores *= _slopes(scores, CAP)
        d_query = tl.dot(d_scores.to(key.dtype), key, d_query)
    tl.store(d_queries + here, (d_query * scaling).to(query.dtype), mask=rows[:, None] < end)


@triton.jit(do_not_specialize=["tokens", "window"])
def _of_keys(  # type: ignore[no-untyped-def]
    gradients, queries, keys, values, sums, deltas, d_keys, d_values, ends, tokens, window, scaling,
    HEADS: tl.constexpr, GROUP: tl.constexpr, D: tl.constexpr, CAP: tl.constexpr, M: tl.constexpr, N: tl.constexpr,
    SHARES: tl.constexpr,
):  # fmt: skip
    """One program for the gradients of N keys and values of one key head, over a share of the heads of queries that it
    serves."""
    start, head, share = tl.program_id(0) * N, tl.program_id(1) // SHARES, tl.program_id(1) % SHARES
    columns = start + tl.arange(0, N)
    here = (start.to(tl.int64) * (HEADS // GROUP) + head) * D
    here += tl.arange(0, N)[:, None] * (HEADS // GROUP * D) + tl.arange(0, D)[None, :]
    key = tl.load(keys + here, mask=columns[:, None] < tokens, other=0.0)
    value = tl.load(values + here, mask=columns[:, None] < tokens, other=0.0)
    behind_all = tl.load(ends + columns, mask=columns < tokens, other=0)
    last = tl.minimum(start + N, tokens) - 1
    end = tl.minimum(tl.load(ends + last), last + window)
    below = tl.arange(0, M)[:, None] * (HEADS * D) + tl.arange(0, D)[None, :]
    d_key, d_value = tl.zeros([N, D], tl.float32), tl.zeros([N, D], tl.float32)
    served = head * GROUP + share * (GROUP // SHARES)
    for of in range(served, served + GROUP // SHARES):
        for begin in range(start, end, M):
            rows = begin + tl.arange(0, M)
            there = (tl.cast(begin, tl.int64) * HEADS + of) * D + below
            query = tl.load(queries + there, mask=rows[:, None] < end, other=0.0)
            gradient = tl.load(gradients + there, mask=rows[:, None] < end, other=0.0)
            of_rows = tl.cast(of, tl.int64) * tokens + rows
            total = tl.load(sums + of_rows, mask=rows < end, other=float("inf"))
            delta = tl.load(deltas + of_rows, mask=rows < end, other=0.0)
            scores = _scores(tl.dot(key, tl.trans(query)), scaling, CAP)
            behind = rows[None, :] - columns[:, None]
            seen = (behind >= 0) & (behind < window) & (rows[None, :] < behind_all[:, None])
            chances = tl.where(seen, tl.exp2(scores - total[None, :]), 0.0)
            d_value = tl.dot(chances.to(gradient.dtype), gradient, d_value)
            d_scores = chances * (tl.dot(value, tl.trans(gradient)) - delta[None, :])
            if CAP > 0:
                d_scores *= _slopes(scores, CAP)
            d_key = tl.dot(d_scores.to(query.dtype), query, d_key)
    here += tl.cast(share, tl.int64) * tokens * (HEADS // GROUP * D)
    tl.store(d_keys + here, (d_key * scaling).to(d_keys.dtype.element_ty), mask=columns[:, None] < tokens)
    tl.store(d_values + here, d_value.to(d_values.dtype.element_ty), mask=columns[:, None] < tokens)
