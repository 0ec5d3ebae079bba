"""What the command line and the cures say of jobs that answer."""

import io
from contextlib import redirect_stdout

import pytest

from spool.cli import show, submit
from spool.health import cures
from spool.protocol import asks, durable, jobs, metrics
from spool.protocol.home import Home, State
from spool.protocol.jobs import now_iso
from spool.protocol.states import Token, Tokens
from spool.protocol.ulid import mint

SPEC = {"schema": 1, "kind": "generate", "model": "m", "prompts": ["Hello"]}


def answered(home: Home, result: dict[str, object] | None, state: State = State.DONE) -> str:
    job_id = mint()
    run = home.run(job_id)
    run.attempts.mkdir(parents=True)
    durable.write_json(run.attempts / "0001.json", {"attempt": 1, "started_at": now_iso()})
    asks.write_row(run.answers, ask=0, who="base", text="Hi")
    if result is not None:
        durable.write_json(run.result, {"v": 1, "attempt": 1, "outcome": "finished", "result": result})
        durable.write_json(run.outcome, {"state": state.value, "ended_at": now_iso(), "error": None})
    Tokens(home).create(state, Token(5, 1, job_id), {"id": job_id, "name": "Answers", "kind": "generate"})
    return job_id


def shown(home: Home, job_id: str) -> dict[str, str]:
    out = io.StringIO()
    with redirect_stdout(out):
        show.text(home, jobs.get_job(home, job_id))
    return {line[:12].strip(): line[12:].strip() for line in out.getvalue().splitlines()}


def test_show_says_how_many_answers_there_are_and_where(home: Home) -> None:
    job_id = answered(home, {"answers": 1200, "ended_by": "finished"})
    assert shown(home, job_id)["answers"] == f"1,200 in {home.run(job_id).answers}"
    assert "adapter" not in shown(home, job_id)
    session = answered(home, {"answers": 3, "ended_by": "made_room"})
    assert shown(home, session)["answers"].endswith("; it ended as another job needed the machine")
    assert "answers" not in shown(home, answered_never(home))


def answered_never(home: Home) -> str:
    job_id = answered(home, None, State.QUEUED)
    home.run(job_id).answers.unlink()
    return job_id


def test_waiting_for_answers_shows_a_bar_and_ends_with_where_they_are(home: Home) -> None:
    job_id = answered(home, None, State.RUNNING)
    metrics.Writer(home.run(job_id).events, 1).write(event="phase", phase="answering")
    metrics.Writer(home.run(job_id).metrics, 1).write(step=4, total_steps=8, tokens_per_s=90.0, eta_s=30.0)
    line = submit.status(home, jobs.get_job(home, job_id))
    assert "4/8  90 tokens/s  30 s left" in line
    done = answered(home, {"answers": 8, "ended_by": "finished"})
    assert submit.ending(jobs.get_job(home, done)).splitlines() == [
        f"{done} is done.",
        f"  `finetuner show {done}` says where the answers lie.",
    ]


@pytest.mark.parametrize(
    ("precision", "resolved", "after"), [("auto", "16bit", "4bit"), ("8bit", "8bit", "4bit"), ("auto", "4bit", None)]
)
def test_too_little_memory_to_answer_is_cured_by_a_smaller_base(
    precision: str, resolved: str, after: str | None
) -> None:
    spec = {**SPEC, "precision": precision}
    made = cures.suggest(spec, {"code": "out_of_memory"}, {**spec, "precision": resolved})
    if after is None:
        assert made is None
        return
    assert made is not None
    assert made.spec == {**spec, "precision": after}
    assert cures.suggest(made.spec, {"code": "out_of_memory"}, {**made.spec}, tried=[spec]) is None


def test_what_lay_outside_of_the_job_is_offered_as_it_is() -> None:
    made = cures.suggest({**SPEC, "retry_of": mint()}, {"code": "gpu_lost"})
    assert made is not None
    assert made.spec == SPEC
    assert cures.suggest(SPEC, {"code": "stalled"}, tried=[SPEC]) is None
