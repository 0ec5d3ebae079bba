"""A training that has ended, as the daemon leaves it: for tests of what comes after."""

from pathlib import Path
from typing import Any

from spool.protocol import durable
from spool.protocol.home import Home, State
from spool.protocol.jobs import now_iso
from spool.protocol.states import Token, Tokens
from spool.protocol.ulid import mint


def ended(home: Home, job_id: str, result: dict[str, Any] | None, state: State = State.DONE, name: str = "T") -> str:
    """Gives a job whose folder is there its token and its outcome."""
    run = home.run(job_id)
    run.root.mkdir(exist_ok=True)
    if result is not None:
        durable.write_json(run.result, {"v": 1, "attempt": 1, "outcome": "finished", "result": result})
    durable.write_json(run.outcome, {"state": state.value, "ended_at": now_iso(), "error": None})
    body = {"id": job_id, "name": name, "kind": "train", "submitted_at": now_iso()}
    Tokens(home).create(state, Token(5, Tokens(home).last_sequence() + 1, job_id), body)
    return job_id


def training(home: Home, base: Path, state: State = State.DONE, name: str = "T", adapter: bool = True) -> str:
    """A finished training on a base, with a file where its adapter would lie."""
    job_id = mint()
    folder = home.run(job_id).exports / "adapter"
    if adapter:
        folder.mkdir(parents=True)
        (folder / "adapter_model.safetensors").touch()
    of_base = {"reference": base.name, "folder": home.relative(base), "revision": None}
    return ended(home, job_id, {"adapter": home.relative(folder), "base": of_base}, state, name)
