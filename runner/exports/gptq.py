"""GPTQ: the matrices of a model's layers in 4 bits, all else in 16, in the layout of compressed-tensors.

vLLM and transformers load it. It is made by llm-compressor, and read for its certificate, in an environment of its own
(`make gptq`): `.venv` has all that it needs but a few packages, and a training is better off without these.
"""

import json
import os
import signal
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from runner.exports.readers import Apart
from spool.health import extras
from spool.health.environment import ROOT
from spool.protocol import durable
from spool.protocol.errors import FinetunerError

ALONE = {"HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}

Pulse = Callable[[], None]


def python() -> Path:
    """Raises FinetunerError where the environment is not there."""
    found = extras.gptq()
    if found is None:
        message = "GPTQ is made by llm-compressor, which is not installed here."
        hint = f"Run `{extras.COMMANDS['gptq']}` in the application's folder, then export it again."
        raise FinetunerError(message, hint, "gptq_missing")
    return found


def quantise(model: Path, target: Path, rows: Sequence[Sequence[int]], log: Path, pulse: Pulse) -> None:
    """A merged model's folder in 4 bit: weights and config.json, in `target`.

    Args:
        rows: tokens that it is calibrated with: rounding errors are made up for by what these use.
        log: takes what the library says.
        pulse: called whenever the library tells of its progress.

    Raises:
        FinetunerError: gptq_missing, gptq_failed.
    """
    for path in target.glob("*.safetensors"):
        path.unlink()
    # -P: the scripts beside this one are named like packages that libraries look for
    command = [str(python()), "-P", str(Path(__file__).with_name("gptq_quantiser.py"))]
    job = {"model": str(model), "target": str(target), "rows": [list(row) for row in rows]}
    with (
        open(log, "wb") as said,
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, **ALONE},
        ) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps(job).encode() + b"\n")
            process.stdin.flush()
            while some := os.read(process.stdout.fileno(), 1 << 16):
                said.write(some)
                pulse()
        except BaseException:
            process.kill()
            raise
    _check(process.returncode, log)
    for path in target.glob("*.safetensors"):
        path.chmod(0o644)  # safetensors makes it private; the home is shared
        durable.sync(path)
    (target / "recipe.yaml").unlink(missing_ok=True)  # config.json says the same


def _check(returncode: int, log: Path) -> None:
    last = (log.read_text(errors="replace").replace("\r", "\n").strip().splitlines() or [""])[-1]
    try:
        answer = json.loads(last)
    except ValueError:
        answer = {}
    if returncode == 0 and "quantised" in answer:
        return
    why = answer.get("error") or last[:300]
    if returncode == -signal.SIGKILL:
        why = "it was killed from outside, mostly for want of memory"
    hint = f"Export it merged, or as GGUF. What llm-compressor said is in {log}."
    raise FinetunerError(f"llm-compressor could not quantise this model: {why}", hint, "gptq_failed")


def reader(folder: Path, log: Path) -> Apart:
    """transformers with compressed-tensors, as people will load it.

    Raises:
        FinetunerError: gptq_missing; DoesNotLoad.
    """
    command = [str(python()), "-m", "runner.exports.weights_apart", str(folder)]
    return Apart("transformers", command, log, ALONE)
