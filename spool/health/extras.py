"""Optional parts of the installation: what they are for, whether they are there, and the command that adds each."""

import importlib.util
from pathlib import Path

from spool.health.environment import ROOT
from spool.health.finding import Finding

ADD = "make" if (ROOT / "Makefile").exists() else "sudo deploy/setup.sh"
"""An installed service has no Makefile."""
COMMANDS = {name: f"{ADD} {name}" for name in ("gptq", "onnx", "benchmarks")}
NAMES = {"gptq": "4-bit exports (GPTQ)", "onnx": "Exports as ONNX", "benchmarks": "Benchmarks in reports"}
PACKAGES = {"onnx": "onnxruntime_genai", "benchmarks": "lm_eval"}


def gptq(root: Path = ROOT) -> Path | None:
    """The Python of the environment that 4-bit exports are made in; None where it is not installed."""
    python = root / ".venv-gptq" / "bin" / "python"
    return python if (root / ".venv-gptq" / ".installed").exists() and python.exists() else None


def installed(name: str) -> bool:
    return gptq() is not None if name == "gptq" else importlib.util.find_spec(PACKAGES[name]) is not None


def missing(name: str) -> str | None:
    """The command that adds what a format of exports, or what benchmarks need; None where all is there."""
    return COMMANDS[name] if name in COMMANDS and not installed(name) else None


def examine() -> list[Finding]:
    found = []
    for name, command in COMMANDS.items():
        says = "installed." if installed(name) else f"not installed: `{command}` adds them."
        found.append(Finding("extras", "ok", f"{NAMES[name]} are {says}"))
    return found
