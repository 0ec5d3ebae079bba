"""Nothing is added or lost: a dropped job and a plain Unsloth script learn the same, loss by loss, tensor by tensor."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, Runner

from spool.protocol import dropbox, durable, metrics
from spool.protocol.home import Home

ROWS = 48


def dataset(folder: Path) -> Path:
    lines = (ROOT / "examples" / "support_tickets.jsonl").read_text().splitlines()[:ROWS]
    path = folder / "rows.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return path


def bare(model: Path, rows: Path, output: Path, max_length: int, arguments: dict[str, object]) -> list[float]:
    output.mkdir()
    config = output / "config.json"
    config.write_text(
        json.dumps(
            {
                "model": str(model),
                "dataset": str(rows),
                "output": str(output),
                "seed": 42,
                "max_length": max_length,
                "load_in_4bit": False,
                "gradient_checkpointing": False,
                "arguments": arguments,
            }
        )
    )
    command = [sys.executable, "tests/bare_unsloth.py", str(config)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((output / "curve.json").read_text())["losses"]


@pytest.mark.training
@pytest.mark.parametrize(
    ("which", "sampled"), [("tiny_gemma", []), ("tiny_gemma", ["Where is my order?"]), ("embedded_model", [])]
)
def test_a_job_learns_what_the_plain_script_learns(
    which: str, sampled: list[str], request: pytest.FixtureRequest, home: Home, daemon: Runner, tmp_path: Path
) -> None:
    """Sample answers while it trains change nothing of it."""
    from safetensors.numpy import load_file

    model: Path = request.getfixturevalue(which)
    steps = 12 if which == "tiny_gemma" else 4
    rows = dataset(tmp_path)
    spec = {
        "schema": 1,
        "model": str(model) if which == "embedded_model" else str(shutil.copytree(model, home.models / "tiny")),
        "dataset": str(rows),
        "precision": "16bit",
        "data": {"max_length": 160, "eval_fraction": 0},
        "eval": {"every_steps": 6, "sample_prompts": sampled},
        "train": {"max_steps": steps, "effective_batch": 8, "batch_size": 4, "learning_rate": 5e-4},
    }
    job_id = dropbox.submit(home, spec)
    job = daemon.wait(job_id, "done", "failed", "rejected", timeout_s=300)
    assert job.state == "done", job.error
    assert job.result is not None
    resolved = durable.read_json(home.run(job_id).spec)["train"]
    losses = bare(
        Path(spec["model"]),  # type: ignore[arg-type]
        rows,
        tmp_path / "bare",
        160,
        {
            "per_device_train_batch_size": 4,
            "gradient_accumulation_steps": 2,
            "max_steps": steps,
            "learning_rate": 5e-4,
            "lr_scheduler_type": "cosine",
            "warmup_steps": resolved["warmup_ratio"],
            "weight_decay": resolved["weight_decay"],
            "optim": resolved["optimizer"],
            "logging_nan_inf_filter": False,
        },
    )
    assert [row["loss"] for row in metrics.read(home.run(job_id).metrics)] == losses
    assert len(losses) == steps
    steps_sampled = [row["step"] for row in metrics.read(home.run(job_id).samples)]
    assert steps_sampled == ([0, 6, 12] if sampled else [])
    ours = load_file(Path(job.result["adapter"]) / "adapter_model.safetensors")
    plain = load_file(tmp_path / "bare" / "adapter_model.safetensors")
    assert ours.keys() == plain.keys()
    assert all((ours[name] == plain[name]).all() for name in ours)
