"""Real libraries loaded ahead: a training that starts warm is the same training, and a GPU is left alone meanwhile."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, Runner, wait_for

from spool.protocol import dropbox, jobs, metrics
from spool.protocol.home import Home

pytestmark = pytest.mark.training

SPEC: dict[str, Any] = {
    "schema": 1,
    "model": "tiny",
    "dataset": "examples/support_tickets.jsonl",
    "train": {"max_steps": 4},
    "data": {"eval_fraction": 0.1},
}


def trained(runner: Runner, **more: Any) -> jobs.Job:
    job = runner.wait(dropbox.submit(runner.home, {**SPEC, **more}), "done", "failed", timeout_s=240)
    assert job.state == "done", job.error
    return job


def adapter(job: jobs.Job) -> bytes:
    assert job.result
    return (Path(job.result["adapter"]) / "adapter_model.safetensors").read_bytes()


def test_a_warm_start_is_the_same_training(home: Home, tiny_gemma: Path, make_runner: Callable[..., Runner]) -> None:
    shutil.copytree(tiny_gemma, home.models / "tiny")
    home.settings.write_text('{"report_s": 0}')
    runner = make_runner(home)
    log = home.cache / "warm.log"
    wait_for(lambda: log.exists() and "-- ready" in log.read_text(), 120)
    assert "Unsloth" in log.read_text()  # it has greeted before there was a job
    (pid,) = runner.children()
    warm = trained(runner, export=["adapter", "merged"])  # the exports are made in a process begun anew
    words = home.run(warm.id).log.read_text()
    assert "-- the libraries were loaded ahead" in words
    assert "Unsloth 20" not in words
    assert warm.result
    assert (Path(warm.result["adapter"]).parent / "merged" / "manifest.json").exists()
    assert pid not in runner.children()
    runner.stop()

    home.settings.write_text('{"report_s": 0, "warm": false}')
    runner.start()
    cold = trained(runner)
    assert "loaded ahead" not in home.run(cold.id).log.read_text()
    assert adapter(warm) == adapter(cold)
    curves = [
        [(row["step"], row["loss"]) for row in metrics.read(home.run(job.id).metrics) if "loss" in row]
        for job in (warm, cold)
    ]
    assert curves[0] == curves[1]


TRITON = ROOT / ".venv-kernels"
PRETENDED = """
import torch

def opened(*_):
    raise SystemExit("a CUDA context would have been opened")

torch.cuda.is_available = lambda: True
torch.cuda.device_count = lambda: 1
torch.version.cuda = "13.0"
torch._C._cuda_getCurrentRawStream = lambda *_: 0
torch.cuda._lazy_init = opened

import sys
from spool.health.gpu import Gpu
from runner import warm

Gpu.ask = lambda self: {"capability": (9, 0)}
warm.load(on_gpu=True)
assert not {"unsloth", "trl"} & set(sys.modules)
print("loaded", "bitsandbytes" in sys.modules)
"""


@pytest.mark.parametrize("by_nvml", [True, False])
def test_on_a_gpu_no_context_is_opened_for_it(by_nvml: bool) -> None:
    """A card that is pretended, with the compiler that comes with one: whatever asks CUDA itself (bitsandbytes and
    torchao would) is found out."""
    if not (TRITON / ".installed").exists():
        (pytest.fail if os.environ.get("CI") else pytest.skip)("Triton is not there: run `make dev`")
    code = PRETENDED
    if not by_nvml:
        code = code.replace(
            "warm.load(", "import contextlib; warm._card_untouched = contextlib.nullcontext\nwarm.load("
        )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{TRITON}"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ("loaded True" in done.stdout) == by_nvml, done.stdout + done.stderr
    assert ("would have been opened" in done.stderr) != by_nvml
