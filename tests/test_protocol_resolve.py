"""What a spec of kind generate names: finished trainings that still have their adapter, all of one base."""

import json
from pathlib import Path
from typing import Any

import pytest
from drop_box import Box
from trained import ended, training

from spool.protocol import resolve
from spool.protocol.home import Home, State
from spool.protocol.spec import GenerateSpec, load
from spool.protocol.states import Tokens
from spool.protocol.ulid import mint


@pytest.fixture
def base(home: Home) -> Path:
    return home.models / "m"


def asked(**fields: Any) -> dict[str, Any]:
    return {"schema": 1, "kind": "generate", "prompts": ["Hello"], **fields}


def found(box: Box, **fields: Any) -> list[tuple[str, str]]:
    spec = load(asked(**fields))
    return [(problem.pointer, problem.code) for problem in resolve.problems(spec, box.places)]


@pytest.fixture
def box(home: Home) -> Box:
    return Box(home)


def test_a_finished_training_answers(box: Box, base: Path) -> None:
    job = training(box.home, base, name="Tickets")
    trained = resolve.trained(box.home, job)
    assert (trained.name, trained.base, trained.reference) == ("Tickets", base, "m")
    assert found(box, job=job) == []
    assert found(box, job=job, also=[training(box.home, base)]) == []
    assert found(box, model="m") == []


def test_what_cannot_answer_is_said_with_its_place(box: Box, base: Path) -> None:
    job, missing = training(box.home, base), mint()
    failed = training(box.home, base, State.FAILED)
    running = training(box.home, base, State.RUNNING)
    removed = training(box.home, base, adapter=False)
    other = training(box.home, box.home.models / "other")
    assert found(box, job=missing) == [("/job", "job_missing")]
    assert found(box, job=job, also=[failed, running]) == [("/also/0", "job_not_done"), ("/also/1", "job_not_done")]
    assert found(box, job=removed) == [("/job", "adapter_removed")]
    assert found(box, job=job, also=[other]) == [("/also/0", "another_base")]
    assert found(box, model="nobody") == [("/model", "model_missing")]
    assert found(box, job=job, prompts=None, dataset="gone/rows.jsonl") == [("/dataset", "dataset_missing")]


def test_a_job_that_is_no_training_has_no_adapter(box: Box) -> None:
    job = ended(box.home, mint(), {"answers": 3})
    token = next(token for token in Tokens(box.home).list(State.DONE) if token.job_id == job)
    path = Tokens(box.home).path(State.DONE, token)
    path.write_text(path.read_text().replace('"train"', '"generate"'))
    assert found(box, job=job) == [("/job", "no_adapter")]


def test_what_has_no_data_to_check_is_queued_at_once(box: Box, base: Path) -> None:
    job = training(box.home, base, name="Tickets")
    for name, fields in (
        ("a", {"job": job}),
        ("b", {"model": "m", "prompts": None, "interactive": True}),
        ("c", {"model": "m", "prompts": None, "dataset": "README.md"}),
        ("d", {"job": job, "name": "Mine"}),
    ):
        box.drop(f"{name}.json", json.dumps(asked(**fields)).encode())
    box.wait()
    tokens = Tokens(box.home)
    bodies = {state: [tokens.body(state, token) for token in tokens.list(state)] for state in State}
    queued, checking = bodies[State.QUEUED], bodies[State.CHECKING]
    assert [body["name"] for body in queued] == ["Answers of Tickets", "Chat with m", "Mine"]
    assert [(body["kind"], body["model"], body["dataset"]) for body in queued[:2]] == [("generate", "m", None)] * 2
    assert [(body["name"], body["dataset"]) for body in checking] == [("Answers of m", "README.md")]
    accepted = load(json.loads(box.home.run(queued[0]["id"]).spec.read_bytes()))
    assert isinstance(accepted, GenerateSpec)
    assert (accepted.job, accepted.name) == (job, "Answers of Tickets")


def test_a_session_with_a_training_that_is_gone_is_rejected_in_words(box: Box) -> None:
    box.drop("x.json", json.dumps(asked(job=mint())).encode())
    box.wait()
    assert box.rejected == {"x.json": "job_missing"}
