"""Whether this Python can train: its version, the installed packages against the pins, torch's build."""

import re
import sys
from importlib import metadata, util
from pathlib import Path
from typing import Literal

from spool.health.finding import Finding

ROOT = Path(__file__).resolve().parents[2]
PYTHONS = ((3, 11), (3, 12))
TRAINING = ("torch", "transformers", "trl", "peft", "datasets", "accelerate", "bitsandbytes", "unsloth", "unsloth_zoo")
OTHERS = ("tokenizers", "streamlit", "altair", "pandas", "orjson", "pydantic", "watchdog", "filelock", "nvidia-ml-py")

Build = Literal["cpu", "gpu"]


def examine() -> list[Finding]:
    build = torch_build()
    return [_python(), *packages(build), *_traps(build)]


def torch_build(folder: Path | None = None) -> Build | None:
    """Which torch is installed, read from its version.py: importing it takes seconds and this room never does."""
    if folder is None:
        found = util.find_spec("torch")
        if found is None or found.origin is None:
            return None
        folder = Path(found.origin).parent
    try:
        match = re.search(r"^cuda\b[^=]*= *(\S+)", (folder / "version.py").read_text(), re.MULTILINE)
    except OSError:
        return None
    return "cpu" if match is None or match[1] == "None" else "gpu"


def pins(build: Build, root: Path = ROOT) -> dict[str, str]:
    """Name -> version of pyproject.toml (the CPU lock has no torch: it is installed first), then of the lock file."""
    found: dict[str, str] = {}
    for path in (root / "pyproject.toml", root / f"requirements-{build}.lock"):
        try:
            text = path.read_text()
        except OSError:
            continue
        for name, version in re.findall(r'^\s*"?([A-Za-z0-9][\w.-]*)==([^\s;",\\]+)', text, re.MULTILINE):
            found[_normal(name)] = version
    return found


def packages(build: Build | None, root: Path = ROOT) -> list[Finding]:
    wanted = pins(build or "cpu", root)
    if not wanted:
        return [
            Finding(
                "packages", "warn", f"no lock file in {root}: the versions are not compared.", "Run from a checkout."
            )
        ]
    findings = []
    for name in TRAINING + OTHERS:
        pin, have = wanted.get(_normal(name)), installed(name)
        if have is None:
            what = "training cannot start" if name in TRAINING else "parts will not start"
            findings.append(Finding("packages", "fail", f"{name} is not installed: {what}.", "Run `make setup`."))
        elif pin and pin.partition("+")[0] != have.partition("+")[0]:
            message = f"{name} is {have}, pinned is {pin}: this pair is not tested."
            findings.append(Finding("packages", "warn", message, "Run `make setup`; it installs the pinned versions."))
    checked = len(TRAINING + OTHERS)
    return findings or [Finding("packages", "ok", f"{checked} packages are installed as pinned ({build} set).")]


def installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _python() -> Finding:
    version = ".".join(str(part) for part in sys.version_info[:3])
    if sys.version_info[:2] in PYTHONS:
        return Finding("python", "ok", f"Python {version}.")
    cure = "Remove .venv and run `make setup PYTHON=/path/to/python3.12`."
    return Finding("python", "fail", f"Python {version}; 3.11 or 3.12 is needed.", cure)


def _traps(build: Build | None) -> list[Finding]:
    """A torchvision built for CUDA beside a CPU torch: its mere presence breaks `import unsloth`. xformers likewise."""
    present = [name for name in ("torchvision", "xformers") if installed(name)]
    if build != "cpu" or not present:
        return []
    names = " and ".join(present)
    message = f"{names} beside a CPU build of torch: `import unsloth` will fail."
    return [Finding("packages", "fail", message, f"Run `{sys.executable} -m pip uninstall -y {' '.join(present)}`.")]
