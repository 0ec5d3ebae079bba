"""Which layers of a model get an adapter."""

from typing import Any

import torch

from spool.protocol.errors import FinetunerError
from spool.protocol.training import LINEAR_LAYERS


def named(model: Any, modules: str | list[str]) -> list[str]:
    """The names that a spec's `lora.target_modules` stands for.

    Raises:
        FinetunerError: a name is of no linear layer of the language model. PEFT passes over one beside others that are
            there, and Unsloth trains the whole of the output layer and of the embedding.
    """
    if isinstance(modules, str):
        return LINEAR_LAYERS
    linear = [f".{name}" for name, each in model.get_decoder().named_modules() if isinstance(each, torch.nn.Linear)]
    unknown = [name for name in modules if not any(each.endswith(f".{name}") for each in linear)]
    if unknown:
        raise FinetunerError(
            f"/lora/target_modules: no linear layer of the language model is called {' or '.join(unknown)}.",
            f'Name some of {", ".join(LINEAR_LAYERS)}, or write "all-linear".',
            "bad_spec",
        )
    return modules
