"""lm-evaluation-harness over a model that is loaded already: bounded in time, a base's replies kept.

Imported only where the extra is installed (`make benchmarks`). Prompts, filters, metrics and their standard errors are
all lm-eval's; here is only what its HFLM asks of a model, and when it is left.
"""

import contextlib
import hashlib
import json
import random
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lm_eval import defaults
from lm_eval.evaluator import evaluate
from lm_eval.models.huggingface import HFLM
from transformers import PreTrainedTokenizerFast

from spool.data.judging.chat import Encoder
from spool.protocol import durable

MOST_TOKENS = 4096
"""Of one prompt with its answer; lm-eval cuts what is longer at its beginning."""
MOST_ROWS = 32
"""Answered at once."""
BATCH_BYTES = 3 * 2**30
"""What one batch may take on a CPU."""
CARD_SHARE = 0.4
"""The same of the memory that is free on a card."""
PLACE_BYTES = 10
"""Of one token of the vocabulary at one place of a text that is read: its score in 16 bit, and its probability's
logarithm in 32, twice for a moment. lm-eval keeps those of each place."""
BOOTSTRAP = 1000
"""Draws for the standard error of a metric that has no formula for it."""


class TimeOver(Exception):
    """There is no time left for this benchmark."""


class Replies:
    """What a base has replied to a benchmark's requests before, by their words; may be deleted at any time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._known = self._read()
        self._kept = len(self._known)
        self.used = 0

    def _read(self) -> dict[str, Any]:
        try:
            known = (durable.read_json(self.path) or {})["replies"]
            return dict(known) if all(isinstance(reply, list | str | float) for reply in known.values()) else {}
        except (ValueError, KeyError, TypeError, AttributeError):  # another release's, or damaged: asked anew
            return {}

    def get(self, kind: str, words: Sequence[Any]) -> Any:
        """The reply; None: it was not asked before, or is drawn by chance."""
        reply = self._known.get(_key(kind, words))
        self.used += reply is not None
        return tuple(reply) if isinstance(reply, list) else reply

    def add_partial(self, kind: str, words: Sequence[Any], reply: Any) -> None:
        """As lm-eval calls it after each reply."""
        if not _by_chance(words):
            self._known[_key(kind, words)] = list(reply) if isinstance(reply, tuple) else reply

    def save(self) -> None:
        if len(self._known) > self._kept:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            durable.write_json(self.path, {"v": 1, "replies": self._known})


def _key(kind: str, words: Sequence[Any]) -> str:
    return hashlib.sha256(json.dumps([kind, *words], default=str).encode()).hexdigest()[:32]


def _by_chance(words: Sequence[Any]) -> bool:
    return len(words) == 2 and isinstance(words[1], dict) and bool(words[1].get("do_sample"))


class Loaded(HFLM):
    """A model of this process as lm-eval asks one."""

    def __init__(self, model: Any, encoder: Encoder, replies: Replies | None = None) -> None:
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=encoder.tokenizer,
            bos_token="<bos>",
            eos_token="<eos>",
            pad_token="<pad>",
            chat_template=encoder.template,
            padding_side="left",
        )
        super().__init__(
            pretrained=model,
            backend="causal",
            tokenizer=tokenizer,
            add_bos_token=True,
            softmax_dtype=torch.float32,
            max_length=min(encoder.context_length, MOST_TOKENS),
            batch_size="auto",
            trust_remote_code=False,
        )
        self.replies = replies
        self.writes = False
        if replies:
            self.cache_hook = replies

    def _detect_batch_size(self, requests: Any = None, pos: int = 0) -> int:
        """lm-eval would try what fits until nothing does; here it is reckoned."""
        places = sum(map(len, requests[pos][1:])) if requests else self.max_length
        free = torch.cuda.mem_get_info()[0] * CARD_SHARE if torch.cuda.is_available() else BATCH_BYTES
        place = self._written_bytes() if self.writes else len(self.tokenizer) * PLACE_BYTES
        return int(max(1, min(MOST_ROWS, free // (places * place))))

    def _written_bytes(self) -> int:
        """What a model that writes keeps of one place: a key and a value of each layer, in 16 bit."""
        config = self.model.config.get_text_config()
        return int(config.num_hidden_layers * config.num_key_value_heads * config.head_dim * 2 * 2)

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> list[Any]:
        return self._asked("loglikelihood", requests, super().loglikelihood)

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[Any]:
        return self._asked("loglikelihood_rolling", requests, super().loglikelihood_rolling)

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[Any]:
        self.writes = True
        try:
            return self._asked("generate_until", requests, super().generate_until)
        finally:
            self.writes = False

    def _asked(self, kind: str, requests: list[Any], ask: Callable[..., list[Any]]) -> list[Any]:
        """The replies in order; what is known is not asked."""
        known = [self.replies.get(kind, each.args) if self.replies else None for each in requests]
        missing = [each for each, reply in zip(requests, known, strict=True) if reply is None]
        new = iter(ask(missing, disable_tqdm=True) if missing else [])
        return [next(new) if reply is None else reply for reply in known]


def results(
    model: Any,
    encoder: Encoder,
    tasks: Any,
    rows: int,
    chat: bool,
    until: float,
    pulse: Callable[[], None],
    replies: Replies | None = None,
    now: Callable[[], float] = time.monotonic,
) -> dict[str, Any]:
    """What lm-eval has measured.

    Args:
        tasks: as TaskManager.load gives them; asked anew they are asked the same.
        rows: the first so many of each task.
        until: by `now`, when to be done.

    Raises:
        TimeOver: it was not. What the base has replied is kept all the same.
        Exception: whatever a task raises.
    """

    def look(*_: Any) -> None:
        pulse()
        if now() > until:
            raise TimeOver

    look()
    random.seed(defaults.DEFAULT_RANDOM_SEED)
    np.random.seed(defaults.DEFAULT_OTHER_SEED)
    torch.manual_seed(defaults.DEFAULT_OTHER_SEED)
    for task in tasks["tasks"].values():
        if task.get_config("num_fewshot") is None:
            task.set_config(key="num_fewshot", value=0)
        task.set_fewshot_seed(seed=defaults.DEFAULT_OTHER_SEED)
    with _before_each_step(model, look):
        try:
            found = evaluate(
                Loaded(model, encoder, replies),
                tasks,
                limit=rows,
                bootstrap_iters=BOOTSTRAP,
                log_samples=False,
                apply_chat_template=chat,
                fewshot_as_multiturn=chat,
            )
        finally:
            if replies:
                replies.save()
    return dict(found or {})


@contextlib.contextmanager
def _before_each_step(model: Any, look: Callable[..., None]) -> Iterator[None]:
    """For each token of an answer, and for each batch of texts, a model is called once."""
    hook = model.register_forward_pre_hook(look)
    try:
        yield
    finally:
        hook.remove()
