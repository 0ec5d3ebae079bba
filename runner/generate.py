"""The recipe of answering, top to bottom: what is asked, the base, its adapters, then every prompt for everybody.

The base is loaded as it is exported to (transformers and PEFT, local files only), so that what answers here is what
people get; it also starts sooner than a training does. Answers go to runs/ID/answers.jsonl as each batch ends, and an
interrupted job goes on with what is missing. An interactive job goes on in runner/session.py.
"""

import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner import bases
from runner.bases import Base
from runner.job import Attempt, Stopped, host_memory_bytes
from spool.data import questions
from spool.data.judging.chat import Encoder
from spool.data.questions import Question
from spool.health.gpu import Gpu
from spool.protocol import asks, durable, metrics, resolve
from spool.protocol.errors import FinetunerError
from spool.protocol.resolve import Trained
from spool.protocol.spec import GenerateSpec

if TYPE_CHECKING:
    from runner.answer import Reply

BATCH_ROWS = 16
"""Answers that are written at once; each new token reads all weights, whatever their number."""

Place = tuple[int, str]
"""(place of the prompt in the list, who answers)"""


def generate(spec: GenerateSpec, attempt: Attempt) -> dict[str, Any]:
    """Answers everything that the spec asks, or holds a session, and gives the job's `result`.

    Raises:
        FinetunerError: with a code, in words a person can act on.
        Stopped: on request.
    """
    trainings = [resolve.trained(attempt.home, job_id) for job_id in spec.jobs]
    base = _find_base(spec, attempt, trainings)
    encoder = Encoder.for_model(base.folder)
    asked = [] if spec.interactive else questions.of_spec(spec, attempt.run, attempt.places, encoder, attempt.phase)
    _check_prompts(asked, spec, encoder)

    attempt.phase("loading the libraries")
    import torch

    on_gpu = torch.cuda.is_available()
    precision = base.precision(spec.precision, on_gpu, bases.free_gpu_bytes(torch) if on_gpu else 0)
    spec = spec.model_copy(update={"precision": precision})
    durable.write_json(attempt.run.spec, spec.to_json())

    attempt.phase("loading the model")
    model = load(base.folder, precision, trainings, attempt)
    if spec.interactive:
        from runner import session

        counted = session.hold(spec, attempt, model, encoder)
    else:
        attempt.phase("answering")
        counted = _answer_all(spec, attempt, model, encoder, asked)
    return {
        **counted,
        "who": spec.who,
        "precision": precision,
        "device": torch.cuda.get_device_name() if on_gpu else "cpu",
        "peak_gpu_mem_bytes": torch.cuda.max_memory_allocated() if on_gpu else None,
        "base": {
            "reference": base.reference,
            "folder": attempt.home.relative(base.folder),
            "revision": base.revision,
        },
    }


def load(folder: Path, precision: str, trainings: list[Trained], attempt: Attempt) -> Any:
    """The base with every adapter beside it, each under the id of its training.

    Raises:
        FinetunerError: an adapter does not fit the base.
    """
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    on_gpu = torch.cuda.is_available()
    exact = torch.bfloat16 if not on_gpu or torch.cuda.is_bf16_supported() else torch.float32
    smaller = {
        "4bit": {
            "load_in_4bit": True,
            "bnb_4bit_quant_type": "nf4",
            "bnb_4bit_use_double_quant": True,
            "bnb_4bit_compute_dtype": exact,
        },
        "8bit": {"load_in_8bit": True},
    }.get(precision)
    model = AutoModelForCausalLM.from_pretrained(
        str(folder),
        dtype=exact,
        device_map={"": 0 if on_gpu else "cpu"},
        quantization_config=BitsAndBytesConfig(**smaller) if smaller else None,
        local_files_only=True,
        trust_remote_code=False,
        use_safetensors=True,
    )
    for training in trainings:
        attempt.pulse()
        model = with_adapter(model, training)
    return model.eval()


def with_adapter(model: Any, training: Trained) -> Any:
    """A model with one more adapter beside it, under the training's id.

    Raises:
        FinetunerError: the adapter does not fit.
    """
    from peft import PeftModel, get_peft_model_state_dict
    from safetensors import safe_open

    folder, name = str(training.adapter), training.job_id
    if isinstance(model, PeftModel):
        model.load_adapter(folder, adapter_name=name, local_files_only=True)
    else:
        model = PeftModel.from_pretrained(model, folder, adapter_name=name, local_files_only=True)
    with safe_open(str(training.adapter / "adapter_model.safetensors"), "np") as file:
        kept = set(file.keys())
    if kept != set(get_peft_model_state_dict(model, adapter_name=name)):
        # PEFT passes over what it does not know, and the base would answer in the adapter's name
        message = f"the adapter of job {name} ({training.name}) does not fit the base {training.reference}."
        raise FinetunerError(message, "Train it again on this base.", "adapter_mismatch")
    return model


def _find_base(spec: GenerateSpec, attempt: Attempt, trainings: list[Trained]) -> Base:
    """The very base that the adapters belong to: its folder, or the same commit fetched again."""
    if not trainings:
        return bases.find(str(spec.model), attempt)
    return bases.of_training(trainings[0], attempt)


def _check_prompts(asked: list[Question], spec: GenerateSpec, encoder: Encoder) -> None:
    """Raises FinetunerError for the first prompt that the model cannot be asked."""
    for i, question in enumerate(asked):
        where = f"prompt {i + 1}" if spec.prompts else f"question {i + 1} of {spec.dataset}"
        problem = refusal(question.messages, spec.max_new_tokens, encoder)
        if problem:
            raise FinetunerError(f"{where}: {problem.message}", problem.hint, problem.code)


def refusal(messages: list[dict[str, Any]], max_new_tokens: int, encoder: Encoder) -> FinetunerError | None:
    """Why a model cannot be asked this, or None."""
    for message in messages:
        if marker := encoder.control_token(message["content"]):
            said = f"the text holds the model's control token {marker}, which would end the turn."
            return FinetunerError(said, "Leave it out.", "special_token")
    try:
        tokens = len(encoder.generation_ids(messages))
    except Exception as error:  # whatever a model's own template raises
        said = f"the model's chat template refuses the conversation: {str(error)[:200]}."
        return FinetunerError(said, "Ask without a system text, or begin a new conversation.", "bad_turns")
    if tokens + max_new_tokens > encoder.context_length:
        room = max(0, encoder.context_length - max_new_tokens)
        said = f"the conversation has {tokens:,} tokens, and {room:,} fit beside an answer of {max_new_tokens:,}."
        return FinetunerError(said, "Ask for a shorter answer, or begin a new conversation.", "too_long")
    return None


def _answer_all(
    spec: GenerateSpec, attempt: Attempt, model: Any, encoder: Encoder, asked: list[Question]
) -> dict[str, Any]:
    """Answers what is not answered yet, a batch at a time; gives what is counted in the result."""
    import torch

    places = [(i, who) for i in range(len(asked)) for who in spec.who]
    course = _Course(attempt, len(places), spec.max_hours)
    chunks = deque(
        chunk
        for start in range(0, len(places), BATCH_ROWS)
        if (chunk := [place for place in places[start : start + BATCH_ROWS] if place not in course.answered])
    )
    while chunks and not course.look():
        chunk = chunks.popleft()
        try:
            replies = _batch(spec, course, model, encoder, asked, chunk)
        except torch.OutOfMemoryError:
            if len(chunk) == 1:
                raise
            torch.cuda.empty_cache()
            chunks.extendleft([chunk[len(chunk) // 2 :], chunk[: len(chunk) // 2]])
            continue
        course.took(chunk, replies, asked)
    return course.counted()


def _batch(
    spec: GenerateSpec, course: "_Course", model: Any, encoder: Encoder, asked: list[Question], chunk: list[Place]
) -> "list[Reply]":
    from runner.answer import Row, answer

    first, who = chunk[0]
    seed = (spec.seed + first * len(spec.who) + spec.who.index(who)) % 2**32  # a resumed job draws the same
    rows = [Row(who, encoder.generation_ids(asked[i].messages)) for i, who in chunk]
    return answer(model, encoder, rows, spec.model_copy(update={"seed": seed}), course.look)


class _Course:
    """What has been answered, over all attempts, and the time that it took."""

    def __init__(self, attempt: Attempt, total: int, max_hours: float) -> None:
        self.attempt = attempt
        self.total = total
        self.limit_s = max_hours * 3600
        self.gpu = Gpu()
        self.began = time.perf_counter()
        self.before_s = float((metrics.last(attempt.run.metrics) or {}).get("elapsed_s") or 0.0)
        rows = [row for row in metrics.read(attempt.run.answers) if isinstance(row.get("ask"), int)]
        self.answered: set[Place] = {(row["ask"], str(row.get("who"))) for row in rows}
        self.tokens = sum(int(row.get("tokens") or 0) for row in rows)
        self.cut = False

    @property
    def elapsed_s(self) -> float:
        return self.before_s + time.perf_counter() - self.began

    def late(self) -> bool:
        self.cut = self.cut or self.elapsed_s >= self.limit_s
        return self.cut

    def look(self, said: Any = None) -> bool:
        """Between two tokens, and between two batches: whether the time is over."""
        self.attempt.pulse()
        if self.attempt.stop.requested:
            raise Stopped
        return self.late()

    def took(self, chunk: list[Place], replies: "list[Reply]", asked: list[Question]) -> None:
        for (i, who), reply in zip(chunk, replies, strict=True):
            if reply.ended_by == "cancelled":
                continue
            asks.write_row(
                self.attempt.run.answers,
                ask=i,
                who=who,
                prompt=asked[i].prompt,
                reference=asked[i].reference,
                text=reply.text,
                tokens=reply.tokens,
                seconds=reply.seconds,
                ended_by=reply.ended_by,
            )
            self.answered.add((i, who))
            self.tokens += reply.tokens
        done, took_s = len(self.answered), max(reply.seconds for reply in replies)
        self.attempt.metrics.write(
            step=done,
            total_steps=self.total,
            tokens_per_s=round(sum(reply.tokens for reply in replies) / max(1e-9, took_s), 1),
            tokens=self.tokens,
            elapsed_s=round(self.elapsed_s, 1),
            host_mem_bytes=host_memory_bytes(),
            **self.gpu.sample(),
            eta_s=round(self.elapsed_s / max(1, done) * (self.total - done), 1),
        )

    def counted(self) -> dict[str, Any]:
        seconds = self.elapsed_s
        return {
            "answers": len(self.answered),
            "tokens": self.tokens,
            "tokens_per_s": round(self.tokens / max(1e-9, seconds), 1),
            "seconds": round(seconds, 1),
            "ended_by": "max_hours" if self.cut and len(self.answered) < self.total else "finished",
        }
