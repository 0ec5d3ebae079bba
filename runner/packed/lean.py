"""The same arithmetic in fewer kernels and less memory: linear layers, LoRA's too, Gemma's norms, its gated activation.

And in kernels alone: a CUDA graph records no number that a model's code makes on the CPU and copies to the card.

PEFT adds what an adapter gives in three passes over a layer's output; a matrix product that adds to it needs none.
transformers computes a norm in eight kernels where PyTorch has one, and the gate keeps a product that is quickly made
again. With dozens of layers all that is a third of a step, and as much of its memory. Of a base in 4 bit one matrix at
a time is there in 16 bit, in both passes.
"""

from typing import Any

import torch
import torch.nn.functional as F
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn import Linear4bit
from peft.tuners import lora
from torch import Tensor
from torch.overrides import TorchFunctionMode


def make_lean(model: Any) -> None:
    """Changes how a PeftModel of a Gemma computes, not what. Its norms and base layers are frozen.

    Raises:
        TypeError: an adapter has something that is not computed here.
    """
    text = model.get_base_model().get_decoder()
    for module in text.modules():
        if isinstance(module, Linear4bit):
            module.forward = _unpacked(module)  # type: ignore[method-assign]
        elif isinstance(module, lora.Linear | lora.Linear4bit):
            module.forward = _linear(module)
        elif type(module).__name__.endswith("RMSNorm"):
            module.forward = _norm(module)
        elif type(getattr(module, "act_fn", None)).__name__ == "GELUTanh" and hasattr(module, "gate_proj"):
            module.forward = _gated(module)
    if hasattr(text, "altup_projections"):
        text.forward = _with_numbers_on_card(text.forward)


def _linear(module: Any) -> Any:
    (name,) = module.active_adapters
    down, up, scale = module.lora_A[name].weight, module.lora_B[name].weight, module.scaling[name]
    base, dropout = module.base_layer, module.lora_dropout[name]
    if module.lora_variant or base.bias is not None:
        raise TypeError(f"{type(module).__name__} with a bias or a variant of LoRA")

    def forward(x: Tensor) -> Tensor:
        plain: Tensor = base(x)
        if module.disable_adapters:
            return plain
        low = F.linear(dropout(x), down.to(x.dtype)).flatten(0, -2)
        return torch.addmm(plain.flatten(0, -2), low, up.t().to(x.dtype), alpha=scale).unflatten(0, x.shape[:-1])

    return forward


def _unpacked(module: Linear4bit) -> Any:
    """A layer without a bias whose weight is packed in 4 bit, two values in a byte."""
    return lambda x: _Product4Bit.apply(x, module.weight, module.weight.quant_state)


class _Product4Bit(torch.autograd.Function):
    """x @ weight.T. Both passes unpack the weight, which is frozen; nothing is kept, and nothing waits for the card."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, state: Any) -> Tensor:
        ctx.weight, ctx.state = weight, state
        return F.linear(x, dequantize_4bit(weight, state).to(x.dtype))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return gradients[0] @ dequantize_4bit(ctx.weight, ctx.state).to(gradients[0].dtype), None, None


def _norm(module: Any) -> Any:
    """Gemma 1 to 3 multiply by 1 + weight, Gemma 3n and 4 by the weight, or by nothing; all in 32 bit."""
    weight = module.weight.detach().float() if hasattr(module, "weight") else None
    if weight is not None and not hasattr(module, "with_scale"):
        weight = 1.0 + weight

    def forward(x: Tensor) -> Tensor:
        return F.rms_norm(x.float(), x.shape[-1:], weight, module.eps).type_as(x)

    return forward


def _gated(module: Any) -> Any:
    sparsity = getattr(module, "activation_sparsity", 0.0)
    deviations = torch.distributions.Normal(0, 1).icdf(torch.tensor(sparsity)) if sparsity else None

    def forward(x: Tensor) -> Tensor:
        gate, up = module.gate_proj(x), module.up_proj(x)
        if deviations is not None:
            gate = _largest(gate, deviations)
        return module.down_proj(geglu(gate, up) if x.is_cuda else module.act_fn(gate) * up)

    return forward


def _largest(gate: Tensor, deviations: Tensor) -> Tensor:
    """What Gemma 3n's first layers let through: values so many standard deviations above the mean, less that."""
    spread = torch.std(gate, dim=-1, keepdim=True, unbiased=False) * deviations.type(gate.dtype)
    return F.relu(gate - (gate.mean(dim=-1, keepdim=True) + spread))


def _with_numbers_on_card(forward: Any) -> Any:
    def on_card(*args: Any, **named: Any) -> Any:
        with _NumbersOnCard():
            return forward(*args, **named)

    return on_card


class _NumbersOnCard(TorchFunctionMode):
    """A number that would be copied from the CPU is written by a kernel: Gemma 3n does so with its smallest norm."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.to and len(args) == 2 and isinstance(args[1], torch.device):
            number, device = args
            if number.dim() == 0 and number.device.type == "cpu" != device.type:
                return torch.full((), number.item(), dtype=number.dtype, device=device)
        return func(*args, **(kwargs or {}))


def geglu(gate: Tensor, up: Tensor) -> Tensor:
    from runner.packed.kernels import Geglu

    return Geglu.apply(gate, up)
