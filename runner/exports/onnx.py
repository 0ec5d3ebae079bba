"""ONNX: a merged model's folder as a graph with a KV cache in 32 bit, and who reads it for its certificate.

The packages are an extra of their own (`make onnx`), and run in processes of their own: runner/exports/onnx_builder.py
makes the graph, runner/exports/ort.py reads it.
"""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from runner.exports.certificate import Check
from runner.exports.readers import NO_GPU, Apart, last_words
from runner.exports.reference import Reference
from spool.health import extras
from spool.protocol import durable
from spool.protocol.errors import FinetunerError

LOOK_S = 0.2
FILES = ("model.onnx", "model.onnx.data", "genai_config.json")
"""What the builder makes of which the export keeps; the files of the tokenizer are the base's own, byte for byte."""
STEPPED = 2
"""Answers that are read once more token by token."""
MOST_APART = 0.001
"""Nats between a token read by itself and in one go: sums in 32 bit in another order, measured at 0.00003."""


def check() -> None:
    """Raises FinetunerError where the extra is not installed."""
    if not extras.installed("onnx"):
        message = "ONNX needs onnxruntime and its model builder, which are not installed here."
        hint = f"Run `{extras.COMMANDS['onnx']}` in the application's folder, then export it again."
        raise FinetunerError(message, hint, "onnx_missing")


def build(merged: Path, folder: Path, log: Path, pulse: Callable[[], None]) -> None:
    """Raises FinetunerError: the builder does not take this model; its last words are told."""
    out = folder / ".onnx"
    command = [sys.executable, "-m", "runner.exports.onnx_builder", str(merged), str(out)]
    quiet = {**os.environ, "HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1", **NO_GPU}
    with open(log, "wb") as said, subprocess.Popen(command, stdout=said, stderr=said, env=quiet) as process:
        try:
            while process.poll() is None:
                pulse()
                try:
                    process.wait(LOOK_S)
                except subprocess.TimeoutExpired:
                    continue
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        message = f"onnxruntime's model builder does not take this model: {last_words(log)}"
        raise FinetunerError(message, "Export it as merged weights; please report the base's name.", "onnx_failed")
    for name in FILES:
        durable.sync(out / name)
        durable.move(out / name, folder / name)
    for path in out.iterdir():
        path.unlink()
    out.rmdir()


class Onnx(Apart):
    """An ONNX model's folder, by onnxruntime and onnxruntime-genai."""

    def __init__(self, folder: Path, log: Path) -> None:
        """Raises DoesNotLoad."""
        super().__init__("onnxruntime", [sys.executable, "-m", "runner.exports.ort", str(folder)], log, NO_GPU)


def cache(reader: Any, asked: Reference) -> Check:
    """Whether it says token by token, as people run it, what it says when it reads all at once."""
    worst, places = 0.0, 0
    for answer in asked.answers[:STEPPED]:
        at_once = reader.read(answer.probe.ids, answer.said).of
        stepped = reader.read(answer.probe.ids, answer.said, step=1).of
        worst = max(worst, float(np.abs(at_once - stepped).max()))
        places += len(answer.said)
    says = f"at most {worst:.6f} nats between {places} tokens read one by one and in one go"
    return Check("cache", worst <= MOST_APART, says, round(worst, 6), MOST_APART)
