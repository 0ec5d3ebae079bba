"""What training a published model needs of memory by each method, for one ordinary job that all can be compared by.

Run as: python -m spool.forecast.needs        (prints the table of docs/models.md)
"""

from dataclasses import dataclass
from itertools import groupby

from spool.forecast import shapes
from spool.forecast.costs import Plan
from spool.forecast.fitting import Need
from spool.protocol import catalogue
from spool.protocol.catalogue import Published

ORDINARY = "LoRA of rank 16 on all linear layers, 8 rows at once, 160 tokens a row and 1,024 the longest"


@dataclass(frozen=True)
class Needs:
    """Bytes that the ORDINARY job needs: of a card with the base in 4, 8 or 16 bit, and of memory without a card. By
    formula, not learned from this server's jobs."""

    gpu_4bit: int
    gpu_8bit: int
    gpu_16bit: int
    cpu: int


def parameters(model: Published) -> int | None:
    """All weights of a model, as far as it is known."""
    shape = shapes.named(model.name)
    return shape.parameters if shape else model.parameters


def of(model: Published) -> Needs | None:
    """None where the dimensions of the model are not known."""
    shape = shapes.named(model.name)
    if shape is None:
        return None

    def card(precision: str) -> int:
        return Need.of(shape, _plan(precision, True), [], "cuda").gpu_bytes or 0

    without = Need.of(shape, _plan("16bit", False), [], "cpu").memory_bytes
    return Needs(card("4bit"), card("8bit"), card("16bit"), without)


def _plan(precision: str, on_gpu: bool) -> Plan:
    """Of rows that are not packed, which takes least."""
    return Plan(
        steps=100,
        batch=8,
        accumulation=1,
        mean_tokens=160,
        longest_tokens=1024,
        rank=16,
        modules="all-linear",
        precision=precision,
        checkpointing=on_gpu,
        optimizer="adamw_8bit" if on_gpu else "adamw_torch",
        on_gpu=on_gpu,
    )


def table() -> str:
    """All of the catalogue as a Markdown table, a line for each size."""
    lines = [
        "| model | names | weights | takes | context | licence | GPU, 4 bit | 8 bit | 16 bit | no GPU | tried here |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for _, same in groupby(catalogue.published(), key=lambda each: (each.family, each.size)):
        models = list(same)
        first, memory, count = models[0], of(models[0]), parameters(models[0])
        needed = [memory.gpu_4bit, memory.gpu_8bit, memory.gpu_16bit, memory.cpu] if memory else [None] * 4
        cells = [
            f"{first.family} {first.size}",
            ", ".join(f"`{each.name}`" for each in models),
            f"{count / 1e9:.2g} B" if count else "-",
            ", ".join(("text", *first.reads)),
            f"{first.context_tokens // 1024}k",
            f"[{first.licence}]({first.licence_url})",
            *(f"{bytes_ / 1e9:.0f} GB" if bytes_ else "not known" for bytes_ in needed),
            first.tested or "no",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(table(), end="")
