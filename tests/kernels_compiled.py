"""What test_kernels.py runs with Triton's compiler, which needs no card: each plan fits the cards that it is for."""

from typing import Any

import pytest
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from runner.packed import flash, kernels
from runner.packed.flash import Blocks

TYPES = {
    "firsts": "*i32",
    "ends": "*i32",
    "sums": "*fp32",
    "deltas": "*fp32",
    "tokens": "i32",
    "window": "i32",
    "scaling": "fp32",
    "targets": "*i64",
    "losses": "*fp32",
    "scales": "*fp32",
    "vocabulary": "i32",
    "stride": "i32",
}
"""Of what a kernel is given; all else are numbers in bf16."""


def shared_bytes(kernel: Any, capability: int, blocks: Blocks, constants: dict[str, Any]) -> int:
    """Of the kernel, compiled for cards of such a compute capability."""
    names = kernel.arg_names
    types = {name: "constexpr" if name in constants else TYPES.get(name, "*bf16") for name in names}
    source = ASTSource(
        fn=kernel,
        signature=types,
        constexprs={(names.index(name),): value for name, value in constants.items()},
        attrs={(i,): [["tt.divisibility", 16]] for i, name in enumerate(names) if types[name].startswith("*")},
    )
    options = {"num_warps": blocks.warps, "num_stages": blocks.stages}
    return int(triton.compile(source, GPUTarget("cuda", capability, 32), options).metadata.shared)


@pytest.mark.parametrize("head_dim", [128, 256, 512])
@pytest.mark.parametrize(
    ("capability", "room_bytes"), [(86, 99 << 10), (80, 163 << 10), (90, 227 << 10)], ids=["3090", "A100", "H100"]
)
def test_attention(capability: int, room_bytes: int, head_dim: int) -> None:
    plan = flash.plan(head_dim, room_bytes)
    for kernel, blocks in (
        (flash._forward, plan.forward),
        (flash._of_queries, plan.of_queries),
        (flash._of_keys, plan.of_keys),
    ):
        constants = {"HEADS": 8, "GROUP": 2, "D": head_dim, "CAP": 50.0, "M": blocks.queries, "N": blocks.keys}
        constants |= {"SHARES": 2} if kernel is flash._of_keys else {}
        assert shared_bytes(kernel, capability, blocks, constants) <= room_bytes


@pytest.mark.parametrize("softcap", [0.0, 30.0])
def test_cross_entropy(softcap: float) -> None:
    constants = {"CAP": softcap, "BLOCK": 8192}
    assert shared_bytes(kernels._cross_entropy, 86, Blocks(1, 8192, 16, 3), constants) <= 99 << 10
