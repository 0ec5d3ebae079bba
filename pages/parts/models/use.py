"""How an export is used: the commands of its own README.md, each with the program that it is for."""

import re
from dataclasses import dataclass
from pathlib import Path

from pages.parts import escape
from pages.parts.run import tail

PROGRAMS = {
    "ollama ": "Ollama",
    "llama-": "llama.cpp",
    "vllm ": "vLLM",
    "transformers": "Transformers",
    "onnxruntime": "ONNX Runtime",
}
"""By what stands in its commands."""

FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Command:
    """Lines for one program; `program` is empty where it is not known."""

    program: str
    language: str
    code: str


def commands(folder: Path) -> list[Command]:
    """Those under “Use” of the export's README.md, in its order; nothing where there is none."""
    _, _, below = tail.head(folder / "README.md").partition("\n## Use\n")
    text = below.partition("\n## ")[0]
    return [Command(_program(code), language, escape.lines(code).rstrip()) for language, code in FENCED.findall(text)]


def modelfile(folder: Path) -> str:
    """What Ollama is told of it; empty where it is none of Ollama's."""
    return tail.head(folder / "Modelfile", 16_000)


def _program(code: str) -> str:
    return next((name for sign, name in PROGRAMS.items() if sign in code), "")
