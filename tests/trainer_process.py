"""Attempts at jobs, one after the other in one process: unsloth is imported once, so that many are cheap.

Run as: python tests/trainer_process.py        (one order a line on stdin, one answer a line on file descriptor 3)

An order: home, job, attempt; at which sign of life (counted from 1) it is stopped by SIGTERM (`stop_at`) or left as by
SIGKILL (`kill_at`), or after which step that is (`kill_after`); from which batch on the loss is NaN (`nan_from`), or
the card has room for 2 rows only (`small_from`), or of packed rows for none whose activations are kept (`full_from`;
with `for_all`: for none).
"""

import contextlib
import gc
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from runner import child
from runner.job import Attempt, Stopped, StopRequest
from spool.health import failure
from spool.protocol import durable, metrics
from spool.protocol.home import Home
from spool.protocol.parse import parse_spec

ROOT = Path(__file__).resolve().parent.parent


class TrainerProcess:
    """The test's side: jobs that lie ready in one home, and attempts at them."""

    def __init__(self, home: Home, model: Path) -> None:
        self.home = home
        home.settings.write_text('{"report_s": 0}')  # it would begin the process anew
        shutil.copytree(model, home.models / "tiny")
        self.jobs = 0
        answers, writer = os.pipe()
        self.log = home.root / "trainer_process.log"
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                ["bash", "-c", f'exec "$@" 3>&{writer} {writer}>&-', "-", sys.executable, __file__],
                cwd=ROOT,
                env={
                    **os.environ,
                    "PYTHONPATH": str(ROOT),
                    "UNSLOTH_COMPILE_LOCATION": str(home.cache / "unsloth"),
                    "HF_HUB_OFFLINE": "1",
                    "OMP_NUM_THREADS": "1",  # threads that wait for each other are slow where cores are shared
                },
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                text=True,
                pass_fds=[writer],
            )
        os.close(writer)
        self.answers = os.fdopen(answers)

    def job(self, **spec: Any) -> str:
        """A job's folder with its spec, as acceptance leaves it."""
        self.jobs += 1
        job_id = f"{self.jobs:026d}"
        document = {"schema": 1, "model": "tiny", "dataset": "examples/support_tickets.jsonl", **spec}
        run = self.home.run(job_id)
        run.root.mkdir()
        durable.write_json(run.spec, {**parse_spec(json.dumps(document).encode()).to_json(), "name": job_id})
        return job_id

    def generate(self, **spec: Any) -> str:
        """The same of a job that answers."""
        self.jobs += 1
        job_id = f"{self.jobs:026d}"
        document = {"schema": 1, "kind": "generate", **spec}
        run = self.home.run(job_id)
        run.root.mkdir()
        durable.write_json(run.spec, {**parse_spec(json.dumps(document).encode()).to_json(), "name": job_id})
        return job_id

    def plain(self, job_id: str, prompts: list[str], max_new_tokens: int) -> list[str]:
        """What an export answers, greedily, one prompt at a time, by nothing but transformers and PEFT."""
        order = {
            "plain": str(self.home.run(job_id).exports / "adapter"),
            "base": str(self.home.models / "tiny"),
            "prompts": prompts,
            "max_new_tokens": max_new_tokens,
        }
        texts: list[str] = self._asked(order)["texts"]
        return texts

    def learned_prompts(self, job_id: str) -> list[str]:
        """The questions of the rows that a training learned from."""
        from spool.data import prepared
        from spool.data.judging.chat import Encoder
        from spool.data.questions import choose

        data = prepared.load(self.home.run(job_id).data)
        assert data is not None
        encoder = Encoder.for_model(self.home.models / "tiny")
        return [each.prompt for each in choose(data.train, data.train_rows, encoder, data.train_rows, None)]

    def copy(self, job_id: str) -> str:
        """The same job in the state that it is in, under another id."""
        self.jobs += 1
        twin = f"{self.jobs:026d}"
        shutil.copytree(self.home.run(job_id).root, self.home.run(twin).root)
        return twin

    def attempt(self, job_id: str, number: int = 1, **order: Any) -> dict[str, Any]:
        return self._asked({"home": str(self.home.root), "job": job_id, "attempt": number, **order})

    def _asked(self, order: dict[str, Any]) -> dict[str, Any]:
        assert self.process.stdin
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        answer = self.answers.readline()
        assert answer, self.log.read_text()[-3000:]
        return json.loads(answer)

    def learned(self, job_id: str) -> tuple[bytes, dict[Any, Any]]:
        """The adapter's bytes and the curves: two jobs that learned the same are equal in both."""
        run = self.home.run(job_id)
        rows = metrics.one_line(metrics.read(run.metrics))
        curves = {(row["step"], "eval_loss" in row): row.get("loss", row.get("eval_loss")) for row in rows}
        return (run.exports / "adapter" / "adapter_model.safetensors").read_bytes(), curves

    def notes(self, job_id: str) -> list[str]:
        return [row["words"] for row in metrics.read(self.home.run(job_id).events) if row.get("event") == "note"]

    def end(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait(60)
        self.answers.close()


class Killed(BaseException):
    """What SIGKILL leaves: nothing is done after it."""


class BegunAnew(BaseException):
    """Where a child would have replaced itself."""


def begin_anew() -> None:
    raise BegunAnew


child.begin_anew = begin_anew  # type: ignore[assignment]


class Watched(Attempt):
    stop_at: int | None = None
    kill_at: int | None = None
    kill_after: int | None = None
    pulses = 0

    def pulse(self) -> None:
        super().pulse()
        self.pulses += 1
        if self.pulses == self.stop_at:
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)  # a second one changes nothing
        if self.pulses == self.kill_at:
            raise Killed
        if self.kill_after and (metrics.last(self.run.metrics) or {}).get("step", 0) >= self.kill_after:
            raise Killed


def spoil(nan_from: float, small_from: float) -> None:
    """From these batches on the next trainer's loss is NaN, or its card has no room for more than 2 rows."""
    from runner import padded

    class Spoilt(padded.Trainer):
        batches = 0

        def compute_loss(self, model: Any, inputs: Any, *values: Any, **named: Any) -> Any:
            import torch

            self.batches += 1
            if self.batches >= small_from and len(inputs["input_ids"]) > 2:
                raise torch.OutOfMemoryError
            nan = float("nan") if self.batches >= nan_from else 1.0
            return super().compute_loss(model, inputs, *values, **named) * nan

    padded.Trainer = Spoilt  # type: ignore[misc]


@contextlib.contextmanager
def filled(full_from: float, for_all: bool = False) -> Iterator[None]:
    """From this batch on the card has no room for packed rows whose activations are kept; for_all: nor for others."""
    from runner.packed.step import Step

    plain, batches = Step._part, 0

    def part(self: Any, rows: Any, trained_tokens: int) -> Any:
        import torch

        nonlocal batches
        batches += 1
        if batches >= full_from and (for_all or not self.text.is_gradient_checkpointing):
            raise torch.OutOfMemoryError
        return plain(self, rows, trained_tokens)

    Step._part = part  # type: ignore[method-assign]
    try:
        yield
    finally:
        Step._part = plain  # type: ignore[method-assign]


def obey(order: dict[str, Any]) -> dict[str, Any]:
    home = Home.at(order["home"])
    stop = StopRequest(home, order["job"])
    stop.LEAVE_S = 86_400  # this process lives on
    stop.listen()
    attempt = Watched(home, order["job"], order["attempt"], stop)
    attempt.stop_at, attempt.kill_at = order.get("stop_at"), order.get("kill_at")
    attempt.kill_after = order.get("kill_after")
    began = time.perf_counter()
    answer: dict[str, Any] = {"outcome": "finished"}
    spoilt = order.keys() & {"nan_from", "small_from"}
    if spoilt:
        from runner import padded

        kept = padded.Trainer
        spoil(order.get("nan_from", math.inf), order.get("small_from", math.inf))
    try:
        full = filled(order["full_from"], order.get("for_all", False)) if "full_from" in order else None
        with full or contextlib.nullcontext():
            answer["result"] = child.perform(attempt)
    except Stopped:
        answer["outcome"] = "stopped"
    except Killed:
        answer["outcome"] = "killed"
    except BegunAnew:
        answer["outcome"] = "begun anew"
    except Exception as error:
        traceback.print_exc()
        answer |= {"outcome": "failed", "error": failure.explain_exception(error)}
    if spoilt:
        padded.Trainer = kept
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    gc.collect()
    return {**answer, "pulses": attempt.pulses, "seconds": round(time.perf_counter() - began, 2)}


def plain(order: dict[str, Any]) -> dict[str, Any]:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    folder = order["plain"]
    model = AutoModelForCausalLM.from_pretrained(order["base"], dtype=torch.bfloat16)
    model = PeftModel.from_pretrained(model, folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    texts = []
    for prompt in order["prompts"]:
        ids = tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        config = GenerationConfig.from_pretrained(folder)
        out = model.generate(**ids, max_new_tokens=order["max_new_tokens"], do_sample=False, generation_config=config)
        texts.append(tokenizer.decode(out[0][ids["input_ids"].shape[1] :], skip_special_tokens=True).strip())
    return {"texts": texts}


def main() -> None:
    with os.fdopen(3, "w", buffering=1) as answers:
        for line in sys.stdin:
            order = json.loads(line)
            answers.write(json.dumps(plain(order) if "plain" in order else obey(order)) + "\n")


if __name__ == "__main__":
    main()
