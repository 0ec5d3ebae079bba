"""A data home as a small team has it after some weeks, for screenshots and for looking at pages; nothing in it trained.

Run as: python -m tests.showcase HOME        (writes it; HOME must not exist yet)
"""

import json
import math
import random
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pages.parts import words
from spool.data.keeping import keep
from spool.forecast import exports, shapes
from spool.protocol import ballot, durable, formats, manifest, metrics, votes
from spool.protocol.home import Home, State
from spool.protocol.jobs import iso
from spool.protocol.spec import ExportSpec, JobSpec
from spool.protocol.states import Token, Tokens
from tests import showcase_reports
from tests.showcase_reports import EVALUATIONS, Asked

ROOT = Path(__file__).resolve().parent.parent
CARD = "NVIDIA H100 80GB HBM3"
VERSIONS = {"python": "3.12.3", "torch": "2.11.0", "transformers": "5.17.0", "peft": "0.21.2", "unsloth": "2026.10.9"}
BASES = {
    "gemma-3-270m": (536_000_000, {"num_hidden_layers": 18, "hidden_size": 640}),
    "gemma-3-4b-it": (8_600_000_000, {"num_hidden_layers": 34, "hidden_size": 2560}),
}
OUT_OF_MEMORY = {
    "code": "out_of_memory",
    "message": "The GPU ran out of memory at step 31 (78.1 of 79.2 GB were in use).",
    "hint": "Run it again with a smaller batch_size (4 instead of 8): the result stays the same, it only takes longer.",
    "evidence": "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.50 GiB.",
}
DIVERGED = {
    "code": "diverged",
    "message": "The loss stayed more than 3 times above its best since step 96.",
    "hint": "Run it again with a third of the learning rate.",
}


@dataclass(frozen=True)
class Story:
    """One job: how it is named, what it was asked, and what became of it."""

    state: State
    name: str
    ago_h: float
    model: str = "gemma-3-4b-it"
    dataset: str = "support_tickets"
    steps: int = 0
    total: int = 0
    who: str = "mira"
    floor: float = 0.13
    rise: float = 0.0
    """How much the eval loss rises over the second half: learning by heart."""
    step_s: float = 0.42
    settings: dict[str, Any] = field(default_factory=dict)
    error: dict[str, str] | None = None
    attempts: int = 1
    exports: tuple[str, ...] = ()
    """Formats that lie beside its adapter; one with a ! is suspect."""
    report: Asked | None = None


@dataclass(frozen=True)
class Making:
    """One job that makes exports of the model that a story tells of."""

    state: State
    of: str
    ago_h: float
    kinds: tuple[str, ...]
    why: str = ""
    phases: tuple[str, ...] = ()


STORIES = (
    Story(State.DONE, "support tickets, first try", 190, "gemma-3-270m", steps=60, total=60, floor=0.31, step_s=0.3,
          exports=("merged", "gguf:q4_k_m", "gguf:q4_k_s!"), report=Asked(0.63, 3)),
    Story(State.DONE, "FAQ answers", 121, dataset="faq_deutsch", steps=200, total=200, who="jonas", floor=0.42,
          rise=0.2, settings={"train": {"epochs": 10}}, report=Asked(0.4, 9, data="faq", rows=8, chosen=8)),
    Story(State.FAILED, "tone of voice, long letters", 98, dataset="letters", steps=31, total=400, who="jonas",
          error=OUT_OF_MEMORY, settings={"train": {"batch_size": 8}, "data": {"max_length": 4096}}),
    Story(State.DONE, "tone of voice", 74, dataset="letters", steps=400, total=400, who="jonas", floor=0.9,
          settings={"lora": {"rank": 32, "alpha": 32}}, attempts=2),
    Story(State.FAILED, "support tickets, rate 5e-3", 51, steps=104, total=240, error=DIVERGED,
          settings={"train": {"learning_rate": 5e-3}}),
    Story(State.CANCELLED, "wrong file", 50, steps=11, total=240),
    Story(State.DONE, "support tickets, rank 8", 27, steps=240, total=240, floor=0.16, settings={"lora": {"rank": 8}},
          report=Asked(0.88, 0)),
    Story(State.DONE, "support tickets, rank 16", 5, steps=240, total=240, floor=0.13,
          exports=("merged", "gguf:q8_0", "gguf:q4_k_m", "gguf:q3_k_m!"), report=Asked(0.94, 1)),
    Story(State.RUNNING, "support tickets, rank 64", 0.034, steps=152, total=240, floor=0.12,
          settings={"lora": {"rank": 64, "rslora": True}}),
    Story(State.QUEUED, "FAQ answers, fewer epochs", 0.03, dataset="faq_deutsch", who="jonas"),
    Story(State.QUEUED, "invoice fields", 0.02, dataset="invoices", who="ada"),
    Story(State.HELD, "large overnight run", 0.01, dataset="letters", who="jonas",
          settings={"train": {"epochs": 5}}),
)  # fmt: skip

MAKINGS = (
    Making(State.DONE, "support tickets, first try", 180, ("merged", "gguf:q4_k_m", "gguf:q4_k_s")),
    Making(State.DONE, "support tickets, rank 16", 4, ("merged", "gguf:q8_0", "gguf:q4_k_m", "gguf:q3_k_m")),
    Making(State.FAILED, "tone of voice", 3, ("merged", "gguf:q8_0"),
           "the exports take 21.8 GB for a while; 12.4 GB are free at /srv/finetuner/runs."),
    Making(State.QUEUED, "support tickets, rank 8", 0.015, ("gguf:q4_k_m", "gguf:q8_0")),
)  # fmt: skip


def build(root: Path) -> Home:
    """Writes the home. Its runner looks alive for 20 s: `beat` keeps it so."""
    home = Home(root).create()
    _bases(home)
    _datasets(home)
    for number, story in enumerate(STORIES, start=1):
        _job(home, number, story)
    for number, making in enumerate(MAKINGS, start=len(STORIES) + 1):
        make(home, number, making)
    tickets = keep.find(home, "support_tickets").reference
    for number, each in enumerate(EVALUATIONS, start=len(STORIES) + len(MAKINGS) + 1):
        submitted = time.time() - 3600 * each.ago_h
        showcase_reports.evaluate(home, number, _id(submitted, number), submitted, each, tickets)
    voted(home, jobs(home, State.DONE)[-1])
    _rejected(home)
    beat(home)
    return home


def beat(home: Home) -> None:
    """One sign of life of a runner that trains."""
    running = Tokens(home).list(State.RUNNING)
    told = {
        "v": 1, "pid": 4711, "version": "0.1.0", "state": "ready", "queue": "open", "halted": None, "waiting_for": None,
        "started_at": iso(time.time() - 9 * 86_400), "heartbeat": time.time(), "started_in": str(ROOT),
        "current_job": running[0].job_id if running else None, "file_events": "ok", "left_in_incoming": {},
    }  # fmt: skip
    durable.write_json(home.runner_json, told)


def jobs(home: Home, state: State, kind: str = "train") -> list[str]:
    """The ids of the jobs of a kind in a state, the newest last."""
    tokens = sorted(Tokens(home).list(state), key=lambda token: token.sequence)
    return [token.job_id for token in tokens if Tokens(home).body(state, token)["kind"] == kind]


def _id(at_s: float, number: int) -> str:
    """A ULID of that moment, the same each time for the same number."""
    letters, value = "0123456789ABCDEFGHJKMNPQRSTVWXYZ", int(at_s * 1000)
    stamp = "".join(letters[(value >> shift) & 31] for shift in range(45, -1, -5))
    return stamp + "".join(random.Random(number).choices(letters, k=16))


def _bases(home: Home) -> None:
    for name, (weights_bytes, shape) in BASES.items():
        folder = home.models / name
        folder.mkdir(parents=True)
        config = {"model_type": "gemma3_text", "vocab_size": 262_144, **shape}
        (folder / "config.json").write_text(json.dumps(config))
        with open(folder / "model.safetensors", "wb") as file:
            file.truncate(weights_bytes)


def _datasets(home: Home) -> None:
    tickets = (ROOT / "examples" / "support_tickets.jsonl").read_bytes()
    keep.add(home, "support_tickets", "support_tickets.jsonl", tickets)
    faq = [f"Wie bestelle ich Artikel {i}?;Artikel {i} liegt im Katalog auf Seite {i // 3 + 1}." for i in range(160)]
    faq[20:20] = ["Wo ist meine Rechnung?;Im Konto unter Bestellungen."] * 3 + ["Kann ich ohne Konto bestellen?;"]
    keep.add(home, "faq_deutsch", "FAQ deutsch.csv", "\n".join(["question;answer", *faq]).encode())
    words = ["thank", "you", "for", "your", "kind", "letter", "about", "the", "garden", "gate", "we", "delivered"]
    noise = random.Random(3)
    letters = [
        {"messages": [{"role": "user", "content": f"Answer letter {i}."},
                      {"role": "assistant", "content": " ".join(noise.choices(words, k=60 + i % 50))}]}
        for i in range(240)
    ]  # fmt: skip
    keep.add(home, "letters", "letters.jsonl", "\n".join(map(json.dumps, letters)).encode())
    invoices = [
        {"prompt": f"Invoice {i} of 3 May, {i * 7} euros", "completion": f'{{"total": {i * 7}}}'} for i in range(90)
    ]
    keep.add(home, "invoices", "invoices.jsonl", "\n".join(map(json.dumps, invoices)).encode())


def _job(home: Home, number: int, story: Story) -> None:
    submitted = time.time() - 3600 * story.ago_h
    job_id = _id(submitted, number)
    dropped = {"schema": 1, "name": story.name, "model": story.model, "dataset": story.dataset, **story.settings}
    run = home.run(job_id)
    run.attempts.mkdir(parents=True)
    durable.write_json(run.spec_orig, dropped)
    durable.write_json(run.spec, JobSpec.model_validate(dropped).to_json())
    body = {name: dropped[name] for name in ("name", "model", "dataset")}
    body |= {"id": job_id, "kind": "train", "submitted_at": iso(submitted), "submitted_by": story.who}
    Tokens(home).create(story.state, Token(5, number, job_id), body)
    if not story.steps:
        return
    started = submitted + 14
    ended = started + story.steps * story.step_s + 40 * (story.attempts - 1) + 12
    _life(home, job_id, story, started)
    _attempts(home, job_id, story, started, ended)
    if story.state is not State.RUNNING:
        outcome = {"state": story.state.value, "ended_at": iso(ended), "error": story.error}
        durable.write_json(run.outcome, outcome)
    if story.state is State.DONE:
        _result(home, job_id, story, ended - started)


def _attempts(home: Home, job_id: str, story: Story, started: float, ended: float) -> None:
    middle = (started + ended) / 2
    for each in range(1, story.attempts + 1):
        last = each == story.attempts
        attempt: dict[str, Any] = {"attempt": each, "started_at": iso(started if each == 1 else middle)}
        attempt |= {"resume_step": None if each == 1 else story.steps // 2, "versions": VERSIONS}
        if not last:
            attempt |= {"ended_at": iso(middle - 20), "outcome": "interrupted"}
        elif story.state is not State.RUNNING:
            outcome = {State.DONE: "finished", State.FAILED: "failed"}.get(story.state, "cancelled")
            attempt |= {"ended_at": iso(ended), "outcome": outcome}
        durable.write_json(home.run(job_id).attempts / f"{each:04d}.json", attempt)


def _life(home: Home, job_id: str, story: Story, started: float) -> None:
    """Metrics, events and log; a second attempt goes over the ten steps before its checkpoint again."""
    run, half = home.run(job_id), story.steps // 2
    spans = [(1, 1, story.steps)] if story.attempts == 1 else [(1, 1, half + 10), (2, half + 1, story.steps)]
    lines = []
    for attempt, first, last in spans:
        curve = _Lines(run.metrics, attempt, started + 40 * (attempt - 1))
        events = _Lines(run.events, attempt, started + 40 * (attempt - 1))
        for at, phase in ((0.0, "reading the data"), (1.1, "loading the libraries"), (6.0, "loading the model")):
            events.write(at + first * story.step_s, event="phase", phase=phase)
        events.write(12 + first * story.step_s, event="phase", phase="training")
        for step in range(first, last + 1):
            at = 12 + step * story.step_s
            for row in _rows(story, step):
                curve.write(at, **row)
            if step % 24 == 0:
                events.write(at, event="checkpoint", step=step, phase="training")
            lines.append(f"step {step} of {story.total}: loss {_loss(story, step):.4f}")
    run.log.write_text("Unsloth 2026.10.9: Fast Gemma3 patching. " + CARD + "\n" + "\n".join(lines) + "\n")
    if story.state is State.RUNNING:
        run.pulse.touch()


class _Lines:
    """Appends rows as metrics.Writer does, at times of the story instead of now."""

    def __init__(self, path: Path, attempt: int, started: float) -> None:
        self.path, self.attempt, self.started, self.sequence = path, attempt, started, 0

    def write(self, at_s: float, **values: Any) -> None:
        self.sequence += 1
        row = {"v": 1, "attempt": self.attempt, "seq": self.sequence, "t": round(self.started + at_s, 3), **values}
        durable.append_line(self.path, metrics.finite(row))


def _loss(story: Story, step: int) -> float:
    noise = random.Random(1000 * story.total + step).gauss(0, 1)
    loss = 2.7 * math.exp(-step / (0.12 * story.total)) + story.floor
    loss *= 1 + 0.13 * noise
    if story.error is DIVERGED and step > 80:
        loss += 0.04 * (step - 80) ** 1.4
    return max(0.02, loss)


def _rows(story: Story, step: int) -> list[dict[str, Any]]:
    share = step / story.total
    noise = random.Random(step)
    peak = story.settings.get("train", {}).get("learning_rate", 2e-4)
    row = {"step": step, "total_steps": story.total, "epoch": round(3 * share, 4), "loss": _loss(story, step)}
    row |= {"learning_rate": peak * min(1, step / 8) * (0.5 + 0.5 * math.cos(math.pi * share))}
    row |= {"grad_norm": 0.6 + 2 * math.exp(-step / 20) + noise.gauss(0, 0.08), "step_time_s": story.step_s}
    row |= {"tokens_per_s": 9400 + noise.gauss(0, 300), "eta_s": round((story.total - step) * story.step_s, 1)}
    row |= {"gpu_util_pct": 92 + noise.randint(0, 6), "gpu_mem_bytes": 18_400_000_000 + 2_000_000 * step}
    row |= {"gpu_power_w": 480 + noise.gauss(0, 18), "gpu_temp_c": 52 + round(9 * (1 - math.exp(-step / 40)))}
    row |= {"host_mem_bytes": 6_200_000_000}
    rows = [row]
    if step % max(1, story.total // 10) == 0:
        late = max(0.0, share - 0.5) * 2
        evaluated = 2.5 * math.exp(-step / (0.12 * story.total)) + story.floor * 1.14 + story.rise * late
        rows.append({"step": step, "total_steps": story.total, "epoch": round(3 * share, 4), "eval_loss": evaluated})
    return rows


def _result(home: Home, job_id: str, story: Story, seconds: float) -> None:
    run = home.run(job_id)
    folder = run.exports / "adapter"
    folder.mkdir(parents=True)
    rank = story.settings.get("lora", {}).get("rank", 16)
    (folder / "adapter_config.json").write_text(json.dumps({"r": rank, "base_model_name_or_path": story.model}))
    with open(folder / "adapter_model.safetensors", "wb") as file:
        file.truncate(rank * (950_000 if story.model.startswith("gemma-3-2") else 4_100_000))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_text("{}")
    (folder / "README.md").write_text(f"# {story.name}\n")
    data = keep.find(home, story.dataset)
    result = {
        "adapter": f"runs/{job_id}/exports/adapter",
        "final_loss": _loss(story, story.steps),
        "train_loss": story.floor + 0.4,
        "eval_loss": story.floor * 1.14 + story.rise,
        "steps": story.steps,
        "best_step": story.steps,
        "ended_early": None,
        "tokens": round(9400 * story.steps * story.step_s),
        "train_rows": data.rows - data.rows // 20,
        "eval_rows": data.rows // 20,
        "seconds": round(seconds, 1),
        "trained_s": round(story.steps * story.step_s, 1),
        "device": CARD,
        "peak_gpu_mem_bytes": 18_900_000_000,
        "base": {"reference": story.model, "folder": f"models/{story.model}", "revision": None},
        "dataset": {"reference": data.reference, "sha256": data.version},
    }
    finished = {"v": 1, "attempt": story.attempts, "outcome": "finished", "result": result}
    durable.write_json(run.result, finished)
    _exports(home, job_id, story)
    if story.report:
        made = time.time() - 3600 * story.ago_h
        told = (home, job_id, job_id, story.name, story.model, data.reference, story.report, made)
        result["report"] = showcase_reports.write(*told)
        durable.write_json(run.result, finished)


def _exports(home: Home, job_id: str, story: Story) -> None:
    """Each with its weights, as a hole in the disk, its words, its manifest and its certificate."""
    for told in story.exports:
        kind = told.rstrip("!")
        folder = home.run(job_id).exports / formats.folder(kind)
        folder.mkdir()
        file = f"{formats.plain_name(story.name)}-{formats.gguf(kind)}.gguf"
        size = exports.size_bytes(kind, shapes.named(story.model), 16_000_000) or 0
        with open(folder / (file if formats.gguf(kind) else "model.safetensors"), "wb") as weights:
            weights.truncate(size)
        if formats.gguf(kind):
            use = f"With Ollama:\n\n```sh\nollama create {file[:-5]} -f Modelfile\nollama run {file[:-5]}\n```\n\n"
            use += f"With llama.cpp:\n\n```sh\nllama-server -m {file} --jinja\n```\n"
            (folder / "Modelfile").write_text(f'FROM ./{file}\nPARAMETER stop "<end_of_turn>"\n')
        else:
            use = "With vLLM:\n\n```sh\nvllm serve .\n```\n"
        (folder / "README.md").write_text(f"# {story.name}\n\n## Use\n\n{use}\n## Terms\n\nGemma's.\n")
        files = {path.name: {"bytes": path.stat().st_size, "sha256": f"{size:064x}"} for path in folder.iterdir()}
        durable.write_json(folder / manifest.NAME, {"v": 1, "kind": kind, "lineage": {}, "files": files})
        durable.write_json(folder / manifest.CERTIFICATE, certificate(folder, kind, told.endswith("!")))


def certificate(folder: Path, kind: str, suspect: bool) -> dict[str, Any]:
    """As runner/exports/certificate.py writes one; what is suspect never stops."""
    quant = formats.gguf(kind)
    equal, kl, rise = {None: (1.0, 0.000004, 0.000003), "q8_0": (0.9967, 0.0011, 0.0008)}.get(
        quant, (0.9833, 0.0128, 0.0131)
    )
    if suspect:
        equal, kl, rise = 0.7124, 0.6112, 0.7391
    limits = (0.97, 0.005, 0.02) if quant is None else (0.95, 0.02, 0.05) if quant == "q8_0" else (0.85, 0.15, 0.25)
    told: list[tuple[str, bool, str, float | None, float | None]] = [
        ("loads", True, "it loads", None, None),
        ("weights", True, "rows of 236 matrices are what base and adapter give, but for rounding", 0.058, 0.12),
        ("tokens", not suspect, f"the same token at {equal:.1%} of 598 places of 32 prompts", equal, limits[0]),
        ("divergence", not suspect, f"{kl:.4f} nats a token between its expectations and the adapter's", kl, limits[1]),
        ("loss", not suspect, f"a loss of {0.1482 + rise:.4f} on the data's own answers, the adapter's is 0.1482",
         rise, limits[2]),
        ("template", True, "6 of 6 conversations become the tokens that it was trained with", 1.0, 1.0),
        ("bos", True, "each prompt begins with one <bos>", None, None),
        ("stop", True, "6 of 6 answers ended by themselves, as the adapter's do", 1.0, 0.75),
    ]  # fmt: skip
    names = ("name", "passed", "says", "measured", "limit")
    measured = {
        "prompts": 32, "places": 598, "equal_tokens": equal, "first_difference": None if equal == 1 else 9.5,
        "prompts_equal": round(32 * equal**6), "kl": kl, "kl_p95": 4 * kl, "eval_loss": 0.1482 + rise,
        "adapter_loss": 0.1482,
    }  # fmt: skip
    return {
        "v": 1,
        "kind": kind,
        "verdict": "suspect" if suspect else "ready",
        "manifest_sha256": manifest.hashed(folder / manifest.NAME),
        "checks": [dict(zip(names, each, strict=True)) for each in told],
        "measured": measured,
        "held_out": True,
        "made_at": iso(time.time() - 4 * 3600),
        "versions": {**{name: VERSIONS[name] for name in ("torch", "transformers", "peft")}, "xllamacpp": "2026.10"},
    }


ASKED = (
    ("My parcel has been at the depot since Monday. What can I do?",
     "I am sorry about that. Please send me the order number and I will ask the depot today."),
    ("The mug arrived broken. I want my money back.",
     "I am sorry that it broke. Your 12 euros go back to your card today; you need not return it."),
    ("Can I change the delivery address? I typed the wrong street.",
     "Yes, until the parcel has left our house. Tell me the right street and I will change it now."),
    ("Do you ship to Switzerland?", "Yes. It takes three to five days and costs 9.90 euros, without customs."),
    ("I was charged twice for order 4711.",
     "You are right, order 4711 was charged twice. One of the two goes back to you within three days."),
    ("How do I cancel my subscription?", "Under Account, Subscriptions, Cancel. It ends with the month you have paid."),
    ("The colour is not what I saw on the page.",
     "Screens differ, I am sorry. Send it back within 30 days; the label is in your account."),
    ("Where is my invoice?", "In your account under Orders. I have sent it to you again."),
)  # fmt: skip
"""What a model that was tuned on letters to customers was asked, and what it says."""


def voted(home: Home, job_id: str) -> None:
    """What a report leaves to vote on, and what two people have found of it. The base goes on and on."""
    from runner.report import document
    from runner.report.rows import Row, Said

    noise = random.Random(5)
    filler = (
        "Thank you for your message.", "We value each customer.", "Please note the following.", "It may take a while.",
        "There are several possibilities.", "It depends on the product.", "You may also ask the support.",
    )  # fmt: skip
    rows = []
    for place in range(20):
        asked, right = ASKED[place % len(ASKED)]
        asked = asked if place < len(ASKED) else f"{asked} (Order {4000 + 37 * place})"
        wrong = " ".join(noise.choices(filler, k=noise.choice((5, 9, 60 if place == 3 else 12))))
        said = Said(wrong, place % 3 == 0, 60, 2.9), Said(right if place % 7 else right[:28], True, 22, 0.4)
        rows.append(Row(asked, right, *said, ({"role": "user", "content": asked},)))
    told = durable.read_json(home.run(job_id).report_json) or {}
    durable.write_json(home.run(job_id).report_json, {**told, "ballot": document.ballot(rows)})
    there = ballot.read(home, job_id)
    assert there is not None
    for who, taste in (("jonas@example.org", 0.85), ("ada@example.org", 0.7)):
        for pair in there.samples:
            better = ["tuned"] if noise.random() < taste else noise.choice((["base"], [], ["base", "tuned"]))
            votes.cast(home, there, who, pair, better)
        votes.close(home, job_id, who)


def make(home: Home, number: int, making: Making) -> str:
    """A job of kind export."""
    submitted = time.time() - 3600 * making.ago_h
    job_id = _id(submitted, number)
    done = sorted(Tokens(home).list(State.DONE), key=lambda token: token.sequence)
    named = {body["name"]: body for token in done if (body := Tokens(home).body(State.DONE, token))}
    of = named[making.of]
    name = f"{making.of}: {', '.join(map(words.export, making.kinds))}"
    dropped = {"schema": 1, "kind": "export", "name": name, "job": of["id"], "export": list(making.kinds)}
    run = home.run(job_id)
    run.attempts.mkdir(parents=True)
    durable.write_json(run.spec_orig, dropped)
    durable.write_json(run.spec, ExportSpec.model_validate(dropped).to_json())
    body = {"id": job_id, "kind": "export", "name": name, "model": of["model"], "dataset": None}
    body |= {"submitted_at": iso(submitted), "submitted_by": of["submitted_by"]}
    Tokens(home).create(making.state, Token(5, number, job_id), body)
    if making.state is State.QUEUED:
        return job_id
    attempt = {"attempt": 1, "started_at": iso(submitted + 9)}
    if making.state is not State.RUNNING:
        attempt |= {"ended_at": iso(submitted + 120), "outcome": "failed" if making.why else "finished"}
    durable.write_json(run.attempts / "0001.json", attempt)
    events = _Lines(run.events, 1, submitted + 9)
    told = making.phases or tuple(f"{verb} {kind}" for kind in making.kinds for verb in ("making", "proving"))
    for place, phase in enumerate(told):
        events.write(5.0 * place, event="phase", phase=phase)
    run.log.write_text("".join(f"-- {phase}\n" for phase in told))
    run.pulse.touch()
    if making.state is State.RUNNING:
        return job_id
    error = {"code": "disk_full", "message": making.why, "hint": "Free some space, then retry."} if making.why else None
    outcome = {"state": making.state.value, "ended_at": iso(submitted + 120), "error": error}
    durable.write_json(run.outcome, outcome)
    if making.state is State.DONE:
        made = {kind: _told(home, of["id"], kind) for kind in making.kinds}
        result = {"exports": made, "of": of["id"], "base": {"reference": of["model"]}}
        durable.write_json(run.result, {"v": 1, "attempt": 1, "outcome": "finished", "result": result})
    return job_id


def _told(home: Home, job_id: str, kind: str) -> dict[str, Any]:
    """What a result says of an export that is there."""
    folder = home.run(job_id).exports / formats.folder(kind)
    proven = durable.read_json(folder / manifest.CERTIFICATE) or {}
    failed = [check["name"] for check in proven["checks"] if not check["passed"]]
    size = sum(path.stat().st_size for path in folder.iterdir())
    return {"state": proven["verdict"], "folder": home.relative(folder), "bytes": size, "failed_checks": failed}


def _rejected(home: Home) -> None:
    folder = home.rejected / _id(time.time() - 7 * 3600, 99)
    folder.mkdir()
    first = {
        "code": "unknown_field", "message": "there is no field 'epoch'.", "hint": "Did you mean 'train.epochs'?",
        "pointer": "/epoch", "line": 4, "column": 3,
    }  # fmt: skip
    reason = {**first, "dropped_name": "night run.json", "rejected_at": iso(time.time() - 7 * 3600)}
    durable.write_json(folder / "reason.json", {**reason, "errors": [first], "submitted_by": "ada"})
    durable.write_json(folder / "dropped.json", {"schema": 1, "model": "gemma-3-4b-it", "epoch": 3})


if __name__ == "__main__":
    print(build(Path(sys.argv[1])).root)
