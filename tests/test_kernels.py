"""The kernels that Triton makes for a GPU, where no GPU is: they compute what PyTorch computes, and fit their cards.

Triton comes from .venv-kernels, which `make dev` makes. It lies apart from .venv, whose libraries behave otherwise
where they find it, and so each of these runs in a process of its own.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TRITON = ROOT / ".venv-kernels"


@pytest.mark.parametrize(("tests", "interpret"), [("kernels_interpreted.py", "1"), ("kernels_compiled.py", "0")])
def test_kernels(tmp_path: Path, tests: str, interpret: str) -> None:
    if not (TRITON / ".installed").exists():
        (pytest.fail if os.environ.get("CI") else pytest.skip)("Triton is not there: run `make dev`")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", f"tests/{tests}"],
        cwd=ROOT,
        env={
            **os.environ,
            "PYTHONPATH": f"{ROOT}{os.pathsep}{TRITON}",
            "TRITON_INTERPRET": interpret,
            "TRITON_CACHE_DIR": str(tmp_path),
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
