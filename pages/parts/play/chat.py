"""A chat with several models at once: turns with an answer of each, what each model is told of them, the download."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import orjson

from spool.protocol.ulid import is_ulid

BASE = "base"
"""Who answers where no adapter is on: the bare base."""
MOST_ADAPTERS = 4
MOST_COLUMNS = 4
LONGEST_PROMPT = 8192
MOST_MESSAGES = 64
MOST_BYTES = 240_000
"""Of the messages of one ask; the protocol takes 256 KiB with everything around them."""
IDLE_MINUTES = 10

BOUNDS: dict[str, tuple[float, float]] = {
    "max_new_tokens": (1, 4096),
    "temperature": (0, 2),
    "top_p": (0.01, 1),
    "top_k": (0, 1000),
    "repetition_penalty": (1, 2),
    "seed": (0, 2**32 - 1),
}


@dataclass(frozen=True)
class Choice:
    """Whom to talk to: adapters by their jobs' ids, all on one base, and whether the bare base answers beside."""

    model: str
    jobs: tuple[str, ...] = ()
    base: bool = True

    @property
    def who(self) -> tuple[str, ...]:
        return (*((BASE,) if self.base or not self.jobs else ()), *self.jobs)

    @property
    def subject(self) -> dict[str, Any]:
        """What of a `generate` spec says who answers. A session always keeps the base at hand: it costs nothing."""
        if not self.jobs:
            return {"model": self.model}
        also = {"also": list(self.jobs[1:])} if self.jobs[1:] else {}
        return {"job": self.jobs[0], **also}

    def served_by(self, spec: Mapping[str, Any]) -> bool:
        """Whether an open session can answer for this choice."""
        named = {spec.get("job"), *(spec.get("also") or [])} - {None}
        if self.jobs:
            return set(self.jobs) <= named and (not self.base or spec.get("base", True) is not False)
        return not named and spec.get("model") == self.model


@dataclass(frozen=True)
class Settings:
    """How an answer is chosen, token by token. Temperature 0 is greedy: the same question, the same answer."""

    max_new_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    repetition_penalty: float = 1.0
    seed: int = 42
    system: str = ""
    memory: bool = True
    """Whether the model is told what was said before."""

    @property
    def sampling(self) -> dict[str, Any]:
        """What a spec or an ask calls them, without what is no number."""
        told = asdict(self)
        del told["system"], told["memory"]
        return told


def settings(values: Mapping[str, Any]) -> Settings:
    """What a browser sent, with every number inside its bounds; what is no number is the default."""
    plain = Settings()
    told: dict[str, Any] = {}
    for name, (least, most) in BOUNDS.items():
        default = getattr(plain, name)
        value = values.get(name)
        usable = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        told[name] = type(default)(min(most, max(least, value))) if usable and value is not None else default
    system = values.get("system")
    told["system"] = system.strip()[:LONGEST_PROMPT] if isinstance(system, str) else ""
    return Settings(**told, memory=values.get("memory") is not False)


@dataclass
class Answer:
    """One model's answer, as far as it has come. `ask` names it in the session's answers."""

    session: str = ""
    ask: str = ""
    text: str = ""
    done: bool = False
    tokens: int | None = None
    seconds: float | None = None
    ended_by: str = ""
    """stop, length or cancelled; `lost` where the session ended before it answered."""
    error: dict[str, Any] | None = None

    @property
    def usable(self) -> bool:
        """Whether it can be told again as part of the conversation."""
        return self.done and not self.error and bool(self.text.strip())


@dataclass
class Turn:
    """One question to all, with what each answered."""

    prompt: str
    settings: Settings = Settings()
    reference: str | None = None
    """The answer that the dataset has, where the question comes from one."""
    answers: dict[str, Answer] = field(default_factory=dict)

    @property
    def live(self) -> bool:
        return any(not answer.done for answer in self.answers.values())

    @property
    def agree(self) -> bool:
        """Whether all models gave the same answer."""
        texts = {answer.text.strip() for answer in self.answers.values() if answer.usable}
        return len(self.answers) > 1 and len(texts) == 1 and all(each.usable for each in self.answers.values())


def conversation(turns: Sequence[Turn], who: str, prompt: str, system: str = "") -> list[dict[str, str]]:
    """What one model is told: the earlier questions with its own answers, then the new one.

    Turns that it did not answer are left out, and the oldest ones where there are more than an ask may hold.
    """
    before = []
    for turn in turns:
        answer = turn.answers.get(who)
        if answer is not None and answer.usable:
            before.append((turn.prompt, answer.text))
    head = [{"role": "system", "content": system}] if system else []
    most = (MOST_MESSAGES - len(head) - 1) // 2
    before = before[-most:]
    while True:
        told = [*head, *(m for asked, said in before for m in pair(asked, said)), {"role": "user", "content": prompt}]
        if not before or len(orjson.dumps(told)) <= MOST_BYTES:
            return told
        before = before[1:]


def asked_alike(
    turns: Sequence[Turn], who: Sequence[str], prompt: str, system: str = ""
) -> list[tuple[list[dict[str, str]], list[str]]]:
    """(what is told, to whom) of a question: models that are told the same are asked together and answer at once."""
    found: list[tuple[list[dict[str, str]], list[str]]] = []
    for each in who:
        told = conversation(turns, each, prompt, system)
        same = next((group for messages, group in found if messages == told), None)
        if same is None:
            found.append((told, [each]))
        else:
            same.append(each)
    return found


def pair(asked: str, said: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": asked}, {"role": "assistant", "content": said}]


def chosen(text: str | None) -> list[str]:
    """The job ids of an address (`ID,ID`), each once and no more than fit; what is no id is left out."""
    ids = [each.strip() for each in (text or "").split(",")]
    return [each for each in dict.fromkeys(ids) if is_ulid(each)][:MOST_ADAPTERS]


def lines(text: str) -> list[str]:
    """Prompts that somebody pasted, one a line, without empty ones."""
    return [line.strip()[:LONGEST_PROMPT] for line in text.splitlines() if line.strip()]


def jsonl(turns: Sequence[Turn], names: Mapping[str, str]) -> bytes:
    """The chat as JSON lines in the messages format, one conversation for each model that took part."""
    out = []
    for who, name in names.items():
        said = [turn for turn in turns if who in turn.answers and turn.answers[who].usable]
        if said:
            system = said[-1].settings.system
            told = [{"role": "system", "content": system}] if system else []
            told += [m for turn in said for m in pair(turn.prompt, turn.answers[who].text)]
            facts = {"model": name, "job": None if who == BASE else who, "settings": said[-1].settings.sampling}
            out.append(orjson.dumps({"messages": told, **facts}) + b"\n")
    return b"".join(out)
