"""Sample answers while training: the same few prompts at each evaluation, so that people see the answers change.

Rows of runs/ID/samples.jsonl: `v`, `t`, `attempt`, `step`, `prompt_index`, `prompt`, `answer`, `reference` (what the
dataset has, or null), `base` (what the bare base answered), `tokens`, `ended_by` (stop or length). Step 0 is the base.

Nothing of it is learned from and nothing that is learned changes by it: the state of every random generator and of
every module is put back, and what fails here is told once and ends the sampling, never the training.
"""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState

from runner.answer import BASE, Reply, Row, answer
from runner.job import Attempt
from runner.packed import ATTENTION
from runner.progress import Progress
from runner.randomness import random_state, restore
from spool.data.judging.chat import Encoder
from spool.data.prepared import Prepared
from spool.data.questions import Question, choose
from spool.protocol import asks, metrics
from spool.protocol.spec import JobSpec, Sampling

AUTO_PROMPTS = 3
MAX_NEW_TOKENS = 96
SHARE = 0.05
"""Of the time trained, what samples that nobody asked for may take; an evaluation beyond that goes without."""


@dataclass(frozen=True)
class Prompt:
    text: str
    ids: list[int]
    reference: str | None


def prompts(spec: JobSpec, data: Prepared, encoder: Encoder) -> list[Prompt]:
    """What is asked: the spec's own prompts, or a few of the rows that are kept for evaluation.

    A prompt beside which no answer fits into the model's context is passed over."""
    asked = spec.eval.sample_prompts
    if asked != "auto":
        questions = [Question([{"role": "user", "content": text}]) for text in asked]
    elif data.eval:
        questions = choose(data.eval, data.eval_rows, encoder, AUTO_PROMPTS, seed=None)
    else:
        questions = []
    found = [Prompt(each.prompt, encoder.generation_ids(each.messages), each.reference) for each in questions]
    return [each for each in found if len(each.ids) + MAX_NEW_TOKENS <= encoder.context_length]


class Samples(TrainerCallback):
    """Answers the prompts at every evaluation, and at as many steps where nothing is evaluated.

    Args:
        every: steps between two samplings where nothing is evaluated; None where something is.
        bounded: SHARE holds.
    """

    def __init__(
        self,
        attempt: Attempt,
        encoder: Encoder,
        asked: list[Prompt],
        progress: Progress,
        every: int | None,
        bounded: bool,
    ) -> None:
        self.attempt = attempt
        self.encoder = encoder
        self.asked = asked
        self.progress = progress
        self.every = every
        self.bounded = bounded
        self.spent_s = 0.0
        rows = [row for row in metrics.read(attempt.run.samples) if row.get("prompt_index") in range(len(asked))]
        self.taken = {int(row["step"]) for row in rows}
        said = {int(row["prompt_index"]): str(row["base"]) for row in rows if row["step"] == 0}
        self.base = [said[i] for i in range(len(asked))] if len(said) == len(asked) else []

    def on_train_begin(
        self, args: Any, state: TrainerState, control: TrainerControl, model: Any = None, **_: Any
    ) -> None:
        if not self.base:
            self._take(model, 0)

    def on_evaluate(self, args: Any, state: TrainerState, control: TrainerControl, model: Any = None, **_: Any) -> None:
        if not self.bounded or self.spent_s <= SHARE * self.progress.course.trained_s:
            self._take(model, state.global_step)

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, model: Any = None, **_: Any) -> None:
        if self.every and state.global_step % self.every == 0:
            self._take(model, state.global_step)

    def _take(self, model: Any, step: int) -> None:
        """Asks everything and writes the rows of one step, unless they are there or a stop is asked for."""
        if step in self.taken or not self.asked:
            return
        began = time.perf_counter()
        try:
            with undisturbed(model):
                replies = [self._answered(model, prompt, BASE if step == 0 else None) for prompt in self.asked]
            if not self.attempt.stop.requested:
                self._write(step, replies)
        except Exception as error:
            self.attempt.note(f"no more sample answers are made: {type(error).__name__}: {str(error)[:200]}")
            self.asked = []
            torch.cuda.empty_cache()
        took_s = time.perf_counter() - began
        self.spent_s += took_s
        self.progress.pass_over(took_s)

    def _write(self, step: int, replies: list[Reply]) -> None:
        if step == 0:
            self.base = [reply.text for reply in replies]
        for i, (prompt, reply) in enumerate(zip(self.asked, replies, strict=True)):
            asks.write_row(
                self.attempt.run.samples,
                attempt=self.attempt.number,
                step=step,
                prompt_index=i,
                prompt=prompt.text,
                answer=reply.text,
                reference=prompt.reference,
                base=self.base[i] if self.base else None,
                tokens=reply.tokens,
                ended_by=reply.ended_by,
            )
        self.taken.add(step)

    def _answered(self, model: Any, prompt: Prompt, who: str | None) -> Reply:
        row = Row(who or str(model.active_adapter), prompt.ids)
        if model.device.type == "cpu" or is_packed(model):
            return answer(model, self.encoder, [row], Sampling(max_new_tokens=MAX_NEW_TOKENS), self._look)[0]
        with model.disable_adapter() if who == BASE else contextlib.nullcontext():
            return self._without_cache(model, prompt)

    def _without_cache(self, model: Any, prompt: Prompt) -> Reply:
        """Greedy, each token from the whole text before it, as an evaluation computes it: with a cache the kernels that
        were compiled for the training would be compiled anew for steps of one token, and there is a limit to that."""
        began = time.perf_counter()
        ids, ended_by = torch.tensor([prompt.ids], device=model.device), "length"
        while ids.shape[1] < len(prompt.ids) + MAX_NEW_TOKENS and not self._look(None):
            token = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits[0, -1].argmax()
            if int(token) in self.encoder.stop_ids:
                ended_by = "stop"
                break
            ids = torch.cat([ids, token.view(1, 1)], dim=1)
        said = ids[0, len(prompt.ids) :].tolist()
        return Reply(self.encoder.decode(said).strip(), len(said), round(time.perf_counter() - began, 3), ended_by)

    def _look(self, said: Any) -> bool:
        self.attempt.pulse()
        return self.attempt.stop.requested


@contextlib.contextmanager
def undisturbed(model: Any) -> Iterator[None]:
    """Lets a model in training answer, and puts back what that touches: random generators, the modules' modes.

    Unsloth's own `generate` stays aside: it switches the model's training off for good and computes in inference mode,
    whose tensors no gradient may pass.
    """
    wrapped = [model, model.get_base_model()]
    random, modes = random_state(), [(module, module.training) for module in model.modules()]
    unsloths = [vars(each).pop("generate", None) for each in wrapped]
    model.eval()
    try:
        with torch.no_grad(), _answering(model) if is_packed(model) else contextlib.nullcontext():
            yield
    finally:
        for each, generate in zip(wrapped, unsloths, strict=True):
            if generate is not None:
                each.generate = generate
        for module, training in modes:
            module.training = training
        restore(random)


def is_packed(model: Any) -> bool:
    return bool(model.get_base_model().config._attn_implementation == ATTENTION)


@contextlib.contextmanager
def _answering(model: Any) -> Iterator[None]:
    """Lets a model that attends to packed rows answer like any other: attention with a mask."""
    inner = model.get_base_model()
    inner.set_attn_implementation("sdpa")
    try:
        yield
    finally:
        inner.set_attn_implementation(ATTENTION)
