"""Answers of a tiny trained Gemma: alone and side by side, resumed, cut off, and in a session."""

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import wait_for
from trained import ended
from trainer_process import TrainerProcess

from spool.protocol import asks, durable, metrics
from spool.protocol.asks import Answers
from spool.protocol.home import Home

pytestmark = pytest.mark.training

TRAIN: dict[str, Any] = {
    "train": {"max_steps": 2, "effective_batch": 4, "learning_rate": 0.02},
    "data": {"eval_fraction": 0.1},
    "eval": {"sample_prompts": []},
    "limits": {"min_free_gb": 0, "early_stopping": None},
}
PROMPTS = [f"Where is my order A-{n}?" for n in range(9)] + ["Wo ist meine Bestellung? " * 6]


@pytest.fixture(scope="module")
def trainer(tiny_gemma: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TrainerProcess]:
    process = TrainerProcess(Home(tmp_path_factory.mktemp("home")).create(), tiny_gemma)
    yield process
    process.end()


def trained(trainer: TrainerProcess, **more: Any) -> str:
    job_id = trainer.job(**{**TRAIN, **more})
    answer = trainer.attempt(job_id)
    assert answer["outcome"] == "finished", answer
    return ended(trainer.home, job_id, answer["result"], name=f"training {job_id[-1]}")


@pytest.fixture(scope="module")
def jobs(trainer: TrainerProcess) -> tuple[str, str]:
    """Two trainings of the same base that learned different things."""
    return trained(trainer), trained(trainer, lora={"rank": 4, "alpha": 32})


def ask_all(trainer: TrainerProcess, job_id: str, **order: Any) -> dict[str, Any]:
    answer = trainer.attempt(job_id, **order)
    assert answer["outcome"] == "finished", answer
    return answer["result"]


def texts(trainer: TrainerProcess, job_id: str) -> dict[tuple[int, str], str]:
    rows = metrics.read(trainer.home.run(job_id).answers)
    assert len({(row["ask"], row["who"]) for row in rows}) == len(rows), "an answer was given twice"
    return {(row["ask"], row["who"]): row["text"] for row in rows}


def alike(some: dict[Any, str], others: dict[Any, str]) -> int:
    """How many answers are the same. With random weights the likeliest tokens are nearly as likely as others, and in
    16 bit a batch of another width may round another way."""
    assert some.keys() == others.keys()
    return sum(some[place] == others[place] for place in some)


def test_everybody_answers_every_prompt(trainer: TrainerProcess, jobs: tuple[str, str]) -> None:
    fields = {"prompts": PROMPTS, "max_new_tokens": 12}
    together = trainer.generate(job=jobs[0], also=[jobs[1]], **fields)
    result = ask_all(trainer, together)
    assert (result["answers"], result["ended_by"], result["who"]) == (30, "finished", ["base", *jobs])
    assert result["precision"] == "16bit"
    assert result["tokens"] > 30
    found = texts(trainer, together)
    assert sorted(found) == sorted((i, who) for i in range(10) for who in ["base", *jobs])
    assert len({found[0, who] for who in ["base", *jobs]}) == 3, "the adapters say what the base says"
    row = metrics.read(trainer.home.run(together).answers)[0]
    assert (row["prompt"], row["reference"], row["ended_by"]) == (PROMPTS[0], None, "length")
    assert row["tokens"] == 12
    assert row["seconds"] > 0
    last = metrics.last(trainer.home.run(together).metrics)
    assert last is not None
    assert (last["step"], last["total_steps"], last["eta_s"]) == (30, 30, 0)
    for who, alone in (
        ("base", trainer.generate(model="tiny", **fields)),
        (jobs[1], trainer.generate(job=jobs[1], base=False, **fields)),
    ):
        ask_all(trainer, alone)
        assert alike(texts(trainer, alone), {at: text for at, text in found.items() if at[1] == who}) >= 7


def test_the_adapter_answers_as_its_export_does(trainer: TrainerProcess, jobs: tuple[str, str]) -> None:
    """The plain way: transformers and PEFT, one prompt at a time, no batch, no padding."""
    job_id = trainer.generate(job=jobs[0], prompts=PROMPTS, max_new_tokens=10, base=False)
    ask_all(trainer, job_id)
    plain = trainer.plain(jobs[0], PROMPTS, 10)
    assert alike(texts(trainer, job_id), {(i, jobs[0]): text for i, text in enumerate(plain)}) >= 7


@pytest.mark.parametrize("temperature", [0, 0.8])
def test_an_interrupted_job_goes_on_with_what_is_missing(
    trainer: TrainerProcess, jobs: tuple[str, str], temperature: float
) -> None:
    fields = {"job": jobs[0], "prompts": PROMPTS * 4, "max_new_tokens": 8, "temperature": temperature, "top_k": 20}
    straight = trainer.generate(**fields)
    whole = ask_all(trainer, straight)
    assert whole["answers"] == 80
    broken = trainer.generate(**fields)
    # while it loads, answers its second batch, and before it has anything to do again
    outcomes = [trainer.attempt(broken, 1, stop_at=3)["outcome"]]
    outcomes.append(trainer.attempt(broken, 2, kill_after=32)["outcome"])
    part = texts(trainer, broken)
    assert 0 < len(part) < 80
    assert outcomes == ["stopped", "killed"]
    result = ask_all(trainer, broken, number=3)
    assert (result["answers"], result["tokens"]) == (whole["answers"], whole["tokens"])
    assert texts(trainer, broken) == texts(trainer, straight)
    assert ask_all(trainer, broken, number=4)["answers"] == 80


def test_what_the_temperature_does(trainer: TrainerProcess) -> None:
    def said(**fields: Any) -> dict[tuple[int, str], str]:
        job_id = trainer.generate(model="tiny", prompts=PROMPTS[:3], max_new_tokens=8, **fields)
        ask_all(trainer, job_id)
        return texts(trainer, job_id)

    assert said() == said(seed=7)
    assert said(temperature=1.0) == said(temperature=1.0)
    assert said(temperature=1.0) != said(temperature=1.0, seed=7)
    assert said(temperature=1.0, top_k=1) == said()
    assert said(repetition_penalty=2.0) != said()


def test_questions_of_a_dataset_come_with_their_answers(trainer: TrainerProcess, jobs: tuple[str, str]) -> None:
    """Those of its own training are the ones that it did not learn from."""
    dataset = "examples/support_tickets.jsonl"
    own = trainer.generate(job=jobs[0], dataset=dataset, rows=7, max_new_tokens=2, system="Be short.")
    ask_all(trainer, own)
    rows = [row for row in metrics.read(trainer.home.run(own).answers) if row["who"] == "base"]
    assert len(rows) == 7
    assert all(row["reference"].startswith('{"intent":') for row in rows)
    learned = set(trainer.learned_prompts(jobs[0]))
    assert not {row["prompt"] for row in rows} & learned
    shutil.rmtree(trainer.home.run(jobs[0]).data)  # as after a day
    again = trainer.generate(job=jobs[0], dataset=dataset, rows=7, max_new_tokens=2, base=False)
    ask_all(trainer, again)
    assert [row["prompt"] for row in metrics.read(trainer.home.run(again).answers)] == [row["prompt"] for row in rows]
    other = trainer.generate(model="tiny", dataset="examples/support_tickets.heldout.jsonl", rows=3, max_new_tokens=2)
    ask_all(trainer, other)
    assert len(metrics.read(trainer.home.run(other).answers)) == 3


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"prompts": ["Hello", "a <end_of_turn> b"]}, "special_token"),
        ({"prompts": ["long " * 600]}, "too_long"),
        ({"prompts": ["Hello"], "max_new_tokens": 512}, "too_long"),
    ],
)
def test_what_cannot_be_asked_fails_before_anything_is_loaded(
    trainer: TrainerProcess, fields: dict[str, Any], code: str
) -> None:
    job_id = trainer.generate(model="tiny", **fields)
    answer = trainer.attempt(job_id)
    assert (answer["outcome"], answer["error"]["code"]) == ("failed", code)
    assert answer["error"]["message"].startswith("prompt ")
    assert not trainer.home.run(job_id).answers.exists()


def test_an_adapter_that_does_not_fit_is_never_passed_over(trainer: TrainerProcess, jobs: tuple[str, str]) -> None:
    broken = trainer.copy(jobs[0])
    ended(trainer.home, broken, None)
    path = trainer.home.run(broken).exports / "adapter" / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes().replace(b"self_attn", b"self_atnn"))
    answer = trainer.attempt(trainer.generate(job=broken, prompts=["Hello"]))
    assert (answer["outcome"], answer["error"]["code"]) == ("failed", "adapter_mismatch")


def test_the_time_limit_keeps_what_was_answered(trainer: TrainerProcess) -> None:
    job_id = trainer.generate(model="tiny", prompts=PROMPTS * 8, max_new_tokens=64, max_hours=0.15 / 3600)
    result = ask_all(trainer, job_id)
    assert result["ended_by"] == "max_hours"
    assert result["answers"] == len(texts(trainer, job_id)) < 80


# Sessions


class Session:
    """A session in a thread of its own; the test asks."""

    def __init__(self, trainer: TrainerProcess, **fields: Any) -> None:
        self.home = trainer.home
        self.job_id = trainer.generate(interactive=True, **fields)
        durable.write_json(self.home.incoming / f"{self.job_id}.json", {})  # it has no token, and must be known
        self.outcome: dict[str, Any] = {}
        self.answers = Answers(self.home, self.job_id)
        self._thread = threading.Thread(target=lambda: self.outcome.update(trainer.attempt(self.job_id)))
        self._thread.start()

    def ask(self, *said: str, who: tuple[str, ...] = ("base",), **sampling: Any) -> str:
        roles = ["user", "assistant"] * len(said)
        messages = [{"role": role, "content": content} for role, content in zip(roles, said, strict=False)]
        return asks.ask(self.home, self.job_id, messages, who, **sampling)

    def wait(self, condition: Callable[[Answers], Any], timeout_s: float = 30) -> Any:
        def read() -> Any:
            self.answers.read()
            return condition(self.answers)

        return wait_for(read, timeout_s)

    def end(self) -> dict[str, Any]:
        self._thread.join(60)
        assert not self._thread.is_alive()
        return self.outcome

    def make_room(self) -> dict[str, Any]:
        self.home.run(self.job_id).make_room.touch()
        return self.end()


def test_a_session_answers_what_it_is_asked(trainer: TrainerProcess, jobs: tuple[str, str]) -> None:
    session = Session(trainer, job=jobs[0], also=[jobs[1]])
    early = session.ask(PROMPTS[0], max_new_tokens=6)  # before it has loaded anything
    everybody = ("base", *jobs)
    session.wait(lambda answers: answers.ready and answers.finished(early, ["base"]))
    assert session.answers.who == list(everybody)
    asked = session.ask(PROMPTS[0], who=everybody, max_new_tokens=80)
    session.wait(lambda answers: answers.finished(asked, everybody))
    found = session.answers.of(asked)
    assert [(each.tokens, each.ended_by) for each in found] == [(80, "length")] * 3
    assert len({each.text for each in found}) == 3
    follow = session.ask(PROMPTS[0], found[0].text[:20], "And now?", max_new_tokens=4, temperature=1.0)
    session.wait(lambda answers: answers.finished(follow, ["base"]))
    rows = metrics.read(trainer.home.run(session.job_id).answers)
    told: dict[tuple[str, str], str] = {}
    for row in rows:
        if "delta" in row:
            told[row["ask"], row["who"]] = told.get((row["ask"], row["who"]), "") + row["delta"]
    assert told, "nothing was told while it was said"
    for each in found:
        assert each.text.startswith(told[asked, each.who].strip())
    answer = session.make_room()
    assert answer["outcome"] == "finished", answer
    assert (answer["result"]["ended_by"], answer["result"]["answers"]) == ("made_room", 5)
    assert list(trainer.home.asks.iterdir()) == []


def test_what_is_wrong_is_answered_in_words_and_the_session_goes_on(trainer: TrainerProcess) -> None:
    session = Session(trainer, model="tiny")
    stranger = session.ask("Hello", who=("01ARZ3NDEKTSV4RRFFQ69G5FAV",))
    token = session.ask("a <start_of_turn> b")
    long = session.ask("long " * 600)
    broken = "01BX5ZZKBKACTAV9WEVGEMMVRZ"
    (trainer.home.asks / f"{session.job_id}-{broken}.json").write_bytes(b'{"v": 1')
    fine = session.ask("Hello", max_new_tokens=2)
    session.wait(lambda answers: answers.finished(fine, ["base"]) and len(answers.errors) == 4)
    codes = {ask: error["code"] for ask, error in session.answers.errors.items()}
    assert codes == {stranger: "unknown_who", token: "special_token", long: "too_long", broken: "bad_json"}
    assert all(error["message"] and "hint" in error for error in session.answers.errors.values())
    assert session.make_room()["result"]["answers"] == 1


def test_one_answer_can_be_stopped(trainer: TrainerProcess) -> None:
    session = Session(trainer, model="tiny")
    asked = session.ask("Hello", max_new_tokens=490)
    session.wait(lambda answers: answers.of(asked) and answers.of(asked)[0].text)
    asks.stop(trainer.home, session.job_id, asked)
    session.wait(lambda answers: answers.finished(asked, ["base"]))
    (stopped,) = session.answers.of(asked)
    assert stopped.ended_by == "cancelled"
    assert stopped.tokens is not None
    assert 0 < stopped.tokens < 490
    again = session.ask("Hello", max_new_tokens=2)
    session.wait(lambda answers: answers.finished(again, ["base"]))
    session.make_room()


def test_a_session_that_nobody_asks_ends_by_itself(trainer: TrainerProcess) -> None:
    began = time.monotonic()
    session = Session(trainer, model="tiny", idle_minutes=0.01)
    answer = session.end()
    assert (answer["result"]["ended_by"], answer["result"]["answers"]) == ("idle", 0)
    assert time.monotonic() - began < 30
    assert answer["pulses"] > 5


def test_a_session_whose_time_is_over_ends_and_says_so_to_who_still_asks(trainer: TrainerProcess) -> None:
    session = Session(trainer, model="tiny", max_hours=0.5 / 3600)
    session.wait(lambda answers: answers.ready)
    session.home.run(session.job_id).make_room.touch()
    left = session.ask("Hello")
    answer = session.end()
    session.answers.read()
    assert answer["result"]["ended_by"] in ("made_room", "max_hours")
    assert session.answers.errors.get(left, {"code": "session_ended"})["code"] == "session_ended"


def test_a_stop_in_the_middle_of_an_answer_keeps_what_was_said(trainer: TrainerProcess) -> None:
    session = Session(trainer, model="tiny")
    asked = session.ask("Hello", max_new_tokens=490)
    session.wait(lambda answers: answers.of(asked) and answers.of(asked)[0].text)
    (trainer.home.control / f"cancel-{session.job_id}").touch()
    assert session.end()["outcome"] == "stopped"
    session.answers.read()
    (answer,) = session.answers.of(asked)
    assert (answer.done, answer.ended_by) == (True, "cancelled")
    assert answer.text
