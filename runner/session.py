"""An interactive job once its model is loaded: it answers what people ask until nobody does, or another job waits.

Everybody who is asked answers at once, in one batch, and what they say is told as it comes (spool/protocol/asks.py).
"""

import time
from typing import Any

import torch

from runner.answer import Reply, Row, Said, answer
from runner.generate import refusal
from runner.job import Attempt, Stopped, host_memory_bytes
from spool.data.judging.chat import Encoder
from spool.health.gpu import Gpu
from spool.protocol import asks
from spool.protocol.asks import Ask
from spool.protocol.errors import FinetunerError
from spool.protocol.spec import GenerateSpec

POLL_S = 0.05
FINISH_S = 10.0
"""How long an answer may go on once the session was asked to make room."""
WHY = {
    "made_room": "another job needed the machine",
    "idle": "nothing was asked for a while",
    "max_hours": "its time is over",
}


def hold(spec: GenerateSpec, attempt: Attempt, model: Any, encoder: Encoder) -> dict[str, Any]:
    """Answers asks in their order until the session is over; gives what is counted in the result.

    Raises:
        Stopped: on request.
    """
    session = _Session(spec, attempt, model, encoder)
    attempt.phase("ready")
    asks.write_row(attempt.run.answers, ready=True, who=spec.who)
    while (ended_by := session.over()) is None:
        attempt.pulse()
        if attempt.stop.requested:
            raise Stopped
        waiting = asks.pending(attempt.home, attempt.job_id)
        if waiting:
            session.answer(waiting[0])
        else:
            time.sleep(POLL_S)
    attempt.phase(f"ending: {WHY[ended_by]}")
    left = FinetunerError(f"the session has ended: {WHY[ended_by]}.", "Open a new one.", "session_ended")
    for ask_id in asks.pending(attempt.home, attempt.job_id):
        session.refuse(ask_id, left)
    return session.counted(ended_by)


class _Session:
    """What is asked and counted while the model is loaded."""

    def __init__(self, spec: GenerateSpec, attempt: Attempt, model: Any, encoder: Encoder) -> None:
        self.spec = spec
        self.attempt = attempt
        self.model = model
        self.encoder = encoder
        self.gpu = Gpu()
        self.began = self.asked_at = time.monotonic()
        self.answers = self.tokens = 0
        self.busy_s = 0.0

    def over(self) -> str | None:
        """Why the session ends now, or None."""
        now = time.monotonic()
        if self.attempt.run.make_room.exists():
            return "made_room"
        if now - self.began >= self.spec.max_hours * 3600:
            return "max_hours"
        return "idle" if now - self.asked_at >= self.spec.idle_minutes * 60 else None

    def answer(self, ask_id: str) -> None:
        """Takes one ask and answers it, or says why not."""
        try:
            asked = asks.take(self.attempt.home, self.attempt.job_id, ask_id)
            self._answer(ask_id, asked)
        except FileNotFoundError:
            pass
        except FinetunerError as error:
            self.refuse(ask_id, error)
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            message = "the answer does not fit into the GPU's memory."
            hint = "Ask for a shorter answer, begin a new conversation, or ask fewer at once."
            self.refuse(ask_id, FinetunerError(message, hint, "out_of_memory"))
        asks.forget(self.attempt.home, self.attempt.job_id, ask_id)
        self.asked_at = time.monotonic()

    def refuse(self, ask_id: str, error: FinetunerError) -> None:
        asks.write_row(self.attempt.run.answers, ask=ask_id, error=error.to_json())
        asks.forget(self.attempt.home, self.attempt.job_id, ask_id)

    def _answer(self, ask_id: str, asked: Ask) -> None:
        strangers = [who for who in asked.who if who not in self.spec.who]
        if strangers:
            held = ", ".join(self.spec.who)
            raise FinetunerError(
                f"{strangers[0]} does not answer in this session.", f"Here are: {held}.", "unknown_who"
            )
        problem = refusal(asked.turns, asked.max_new_tokens, self.encoder)
        if problem:
            raise problem
        ids = self.encoder.generation_ids(asked.turns)
        telling = _Telling(self, ask_id, asked.who)
        try:
            replies = answer(self.model, self.encoder, [Row(who, ids) for who in asked.who], asked, telling.look)
        except Stopped:
            telling.broken_off()
            raise
        telling.done(replies)

    def counted(self, ended_by: str) -> dict[str, Any]:
        return {
            "answers": self.answers,
            "tokens": self.tokens,
            "tokens_per_s": round(self.tokens / self.busy_s, 1) if self.busy_s else None,
            "seconds": round(time.monotonic() - self.began, 1),
            "ended_by": ended_by,
        }

    def count(self, replies: list[Reply]) -> None:
        """Adds one ask's answers, and tells how fast they came."""
        took_s = max(reply.seconds for reply in replies)
        said = sum(reply.tokens for reply in replies)
        self.answers += len(replies)
        self.tokens += said
        self.busy_s += took_s
        self.attempt.metrics.write(
            step=self.answers,
            tokens_per_s=round(said / max(1e-9, took_s), 1),
            tokens=self.tokens,
            host_mem_bytes=host_memory_bytes(),
            **self.gpu.sample(),
        )


class _Telling:
    """Tells the answers to one ask as they grow."""

    def __init__(self, session: _Session, ask_id: str, who: list[str]) -> None:
        self.session = session
        self.attempt = session.attempt
        self.ask_id = ask_id
        self.who = who
        self.began = time.monotonic()
        self.told = [""] * len(who)
        self.tokens = [0] * len(who)
        self.asked_to_end: float | None = None

    def look(self, said: Said) -> bool:
        """Between two tokens: tells what is new; True where the answers shall end."""
        self.attempt.pulse()
        for i, ids in enumerate(said):
            if len(ids) > self.tokens[i]:
                self.tokens[i] = len(ids)
                self._tell(i, self.session.encoder.settled(ids).lstrip())
        if self.attempt.stop.requested:
            raise Stopped
        return asks.stopped(self.attempt.home, self.attempt.job_id, self.ask_id) or self._out_of_time()

    def _tell(self, i: int, text: str) -> None:
        if new := text[len(self.told[i]) :]:
            asks.write_row(self.attempt.run.answers, ask=self.ask_id, who=self.who[i], delta=new)
            self.told[i] = text

    def _out_of_time(self) -> bool:
        now = time.monotonic()
        if self.asked_to_end is None and self.session.over() in ("made_room", "max_hours"):
            self.asked_to_end = now
        return self.asked_to_end is not None and now - self.asked_to_end >= FINISH_S

    def done(self, replies: list[Reply]) -> None:
        for who, reply in zip(self.who, replies, strict=True):
            self._end(who, reply.text, reply.tokens, reply.seconds, reply.ended_by)
        self.session.count(replies)

    def broken_off(self) -> None:
        """The session is ended from outside: what was said so far stays."""
        seconds = round(time.monotonic() - self.began, 3)
        for who, text, tokens in zip(self.who, self.told, self.tokens, strict=True):
            self._end(who, text.strip(), tokens, seconds, "cancelled")

    def _end(self, who: str, text: str, tokens: int, seconds: float, ended_by: str) -> None:
        asks.write_row(
            self.attempt.run.answers,
            ask=self.ask_id,
            who=who,
            done=True,
            text=text,
            tokens=tokens,
            seconds=seconds,
            ended_by=ended_by,
        )
