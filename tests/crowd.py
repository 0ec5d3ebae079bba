"""A data home with thousands of jobs, as the runner leaves them behind: for tests and measurements of size.

Run as: python -m tests.crowd DIR [ENDED] [WAITING]        (default 9,000 and 1,000)
"""

import json
import random
import sys
import time
from pathlib import Path
from typing import Any

from spool.protocol.home import Home, State
from spool.protocol.jobs import iso
from spool.protocol.states import Token
from spool.protocol.ulid import ALPHABET

NAMES = ("support tickets", "tone of voice", "FAQ answers", "invoice fields", "contract clauses", "product texts")
PEOPLE = ("mira", "jonas", "ada", "lin", None)
MODELS = ("gemma-3-270m", "gemma-3-1b-it", "gemma-3-4b-it")
DATASETS = ("support_tickets", "faq-deutsch", "invoices@3", "examples/support_tickets.jsonl")
ERRORS = (
    {
        "code": "out_of_memory",
        "message": "the GPU ran out of memory at step 31 (78.1 of 79.2 GB were in use).",
        "hint": "Run it again with a smaller batch_size (4 instead of 8): the result stays the same.",
    },
    {"code": "data_blocked", "message": "412 of 900 rows have no answer.", "hint": "Correct them on the Data page."},
)
EVERY_S = 600.0
FIRST_SEQUENCE = 1_000_000


def job_id(at_s: float, number: int) -> str:
    """A ULID for a moment, the same at each call."""
    value = int(at_s * 1000) << 80 | number
    return "".join(ALPHABET[value >> shift & 31] for shift in range(125, -1, -5))


def crowd(home: Home, ended: int, waiting: int, now_s: float | None = None) -> list[str]:
    """Fills a home with jobs and gives their ids, oldest first; about 1 s for a thousand.

    Of the ended ones one in seven failed and one in twenty was cancelled; of the waiting ones one in fifty is held.
    """
    home.create()
    noise = random.Random(5)
    now = time.time() if now_s is None else now_s
    ids = []
    for number in range(ended + waiting):
        left = ended - number
        at = now - left * EVERY_S if left > 0 else now - (ended + waiting - number)
        state = _ended_as(noise) if left > 0 else State.HELD if number % 50 == 0 else State.QUEUED
        ids.append(_job(home, noise, number, at, state))
    return ids


def _ended_as(noise: random.Random) -> State:
    chance = noise.random()
    return State.FAILED if chance < 0.14 else State.CANCELLED if chance < 0.19 else State.DONE


def _job(home: Home, noise: random.Random, number: int, at: float, state: State) -> str:
    token = Token(5, FIRST_SEQUENCE + number + 1, job_id(at, number))
    name = f"{noise.choice(NAMES)} {number}"
    spec = {"schema": 1, "name": name, "model": noise.choice(MODELS), "dataset": noise.choice(DATASETS)}
    run = home.run(token.job_id)
    run.root.mkdir(parents=True)
    _write(run.spec_orig, spec)
    _write(run.spec, spec)
    body = {**spec, "id": token.job_id, "kind": "train", "submitted_at": iso(at), "submitted_by": noise.choice(PEOPLE)}
    if state in (State.DONE, State.FAILED, State.CANCELLED):
        _lived(home, noise, token.job_id, at, state)
    _write(
        home.state(state) / token.filename, {**body, "name": name, "model": spec["model"], "dataset": spec["dataset"]}
    )
    return token.job_id


def _lived(home: Home, noise: random.Random, name: str, at: float, state: State) -> None:
    run, steps, took = home.run(name), noise.randrange(20, 400), noise.uniform(60, 5400)
    run.attempts.mkdir()
    _write(run.attempts / "0001.json", {"attempt": 1, "started_at": iso(at + 5)})
    loss = round(noise.uniform(0.05, 1.4), 4)
    row = {"v": 1, "attempt": 1, "seq": steps, "t": at + took, "step": steps, "total_steps": steps, "loss": loss}
    run.metrics.write_text(json.dumps(row) + "\n")
    error = noise.choice(ERRORS) if state is State.FAILED else None
    _write(run.outcome, {"state": state.value, "ended_at": iso(at + 5 + took), "error": error})
    if state is State.DONE:
        result = {
            "adapter": f"runs/{name}/exports/adapter",
            "final_loss": loss,
            "eval_loss": loss + 0.05,
            "steps": steps,
        }
        _write(run.result, {"v": 1, "attempt": 1, "outcome": "finished", "result": result})


def _write(path: Path, document: dict[str, Any]) -> None:
    path.write_text(json.dumps(document))


if __name__ == "__main__":
    size = [int(each) for each in sys.argv[2:]] or [9_000, 1_000]
    made = crowd(Home(Path(sys.argv[1]).resolve()), *size)
    print(f"{len(made):,} jobs in {sys.argv[1]}")
