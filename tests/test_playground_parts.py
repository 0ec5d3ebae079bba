"""What the Playground is made of, without a browser: chats, batches, how a session stands, corrections."""

import csv
import io
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pages.parts import alive
from pages.parts.play import answers, chat, corrections, prompts, standing
from pages.parts.play.chat import BASE, Answer, Choice, Settings, Turn
from pages.parts.play.corrections import Correction
from pages.parts.play.standing import Around
from spool.data import inspect
from spool.data.keeping import keep
from spool.data.reading.limits import Limits
from spool.protocol import asks, durable
from spool.protocol.errors import DataError
from spool.protocol.home import Home
from spool.protocol.jobs import Job
from spool.protocol.parse import parse_spec
from spool.protocol.spec import GenerateSpec, Sampling

A, B = "01K00001ABCDEFGHJKMNPQRSTV", "01K00002ABCDEFGHJKMNPQRSTV"
NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


def said(text: str, **more: Any) -> Answer:
    return Answer("s", "a", text, done=True, **more)


# ---- chats


def test_each_model_is_told_its_own_answers() -> None:
    turns = [Turn("one", answers={BASE: said("base 1"), A: said("tuned 1")}), Turn("two", answers={A: said("tuned 2")})]
    assert [m["content"] for m in chat.conversation(turns, A, "three")] == ["one", "tuned 1", "two", "tuned 2", "three"]
    assert chat.conversation(turns, BASE, "three", "Be short.") == [
        {"role": "system", "content": "Be short."},
        *chat.pair("one", "base 1"),
        {"role": "user", "content": "three"},
    ]
    assert chat.conversation(turns, B, "three") == [{"role": "user", "content": "three"}]


@pytest.mark.parametrize(
    "answer", [said(""), said("  \n"), said("half", error={"code": "x"}), Answer("s", "a", "still coming")]
)
def test_what_is_no_answer_is_not_told_again(answer: Answer) -> None:
    assert len(chat.conversation([Turn("one", answers={A: answer})], A, "two")) == 1


@pytest.mark.parametrize("size", [3, 9_000])
def test_a_long_chat_is_cut_to_what_an_ask_may_hold(size: int) -> None:
    turns = [Turn(f"q{i}", answers={A: said(f"{i}-" + "x" * size)}) for i in range(60)]
    told = chat.conversation(turns, A, "last", "system")
    assert told[-2]["content"].startswith("59-")
    assert len(told) % 2 == 0
    asks.parse_ask(durable.to_bytes({"v": 1, "messages": told, "who": [A], **Settings().sampling}))


def test_settings_from_a_browser_are_numbers_inside_their_bounds() -> None:
    odd = {"temperature": 99, "top_p": float("nan"), "top_k": "7", "seed": True, "max_new_tokens": 0, "system": 3}
    assert chat.settings(odd) == Settings(temperature=2.0, max_new_tokens=1)
    told = chat.settings({"temperature": 0.7, "top_k": 40.0, "system": " Be kind. ", "memory": False})
    assert told == Settings(temperature=0.7, top_k=40, system="Be kind.", memory=False)


@pytest.mark.parametrize("side", [0, 1])
def test_every_setting_that_can_be_chosen_is_taken_by_the_runner(side: int) -> None:
    told = chat.settings({name: bounds[side] for name, bounds in chat.BOUNDS.items()})
    assert Sampling.model_validate(told.sampling)


def test_an_address_names_models_each_once_and_no_more_than_fit() -> None:
    ids = [f"01K0000{i}ABCDEFGHJKMNPQRSTV" for i in range(7)]
    assert chat.chosen(",".join([ids[0], ids[0], "../etc", "", *ids])) == ids[: chat.MOST_ADAPTERS]
    assert chat.chosen(None) == []


def test_a_choice_becomes_a_session_that_others_with_the_same_models_share() -> None:
    one, both, bare = Choice("m", (A,), base=False), Choice("m", (A, B)), Choice("m")
    spec = parse_spec(durable.to_bytes({"schema": 1, "kind": "generate", "interactive": True, **both.subject}))
    assert isinstance(spec, GenerateSpec)
    assert spec.who == [BASE, A, B] == list(both.who)
    assert one.who == (A,)
    assert bare.who == (BASE,)
    told = spec.to_json()
    assert one.served_by(told)
    assert both.served_by(told)
    assert not bare.served_by(told)
    assert not Choice("m", ("01K00003ABCDEFGHJKMNPQRSTV",)).served_by(told)
    assert bare.served_by({"kind": "generate", **bare.subject})
    assert not both.served_by({**told, "base": False})


def test_the_download_holds_one_conversation_for_each_model() -> None:
    turns = [
        Turn("one", Settings(system="Be short."), answers={BASE: said("b1"), A: said("a1")}),
        Turn("two", Settings(system="Be short."), answers={BASE: said("", ended_by="lost"), A: said("a2")}),
    ]
    rows = [json.loads(line) for line in chat.jsonl(turns, {BASE: "gemma", A: "tickets"}).splitlines()]
    assert [(row["model"], row["job"], len(row["messages"])) for row in rows] == [("gemma", None, 3), ("tickets", A, 5)]
    assert rows[1]["messages"][0] == {"role": "system", "content": "Be short."}
    assert rows[1]["settings"]["temperature"] == 0.0


def test_models_agree_only_where_all_have_said_the_same() -> None:
    assert Turn("q", answers={BASE: said("x "), A: said("x")}).agree
    assert not Turn("q", answers={BASE: said("x"), A: Answer("s", "a", "x")}).agree
    assert not Turn("q", answers={A: said("x")}).agree


# ---- batches


def batch(home: Home, *rows: dict[str, Any]) -> list[answers.Row]:
    run = home.run(A)
    run.root.mkdir(parents=True)
    for row in rows:
        asks.write_row(run.answers, tokens=3, seconds=0.1, ended_by="stop", **row)
    found = asks.Answers(home, A)
    found.read()
    return answers.rows(found)


def three(home: Home) -> list[answers.Row]:
    right = {"ask": 10, "prompt": "=1+1", "reference": '{"a": 1, "b": 2}'}
    wrong = {"ask": 2, "prompt": "two", "reference": "yes"}
    return batch(
        home,
        {**right, "who": BASE, "text": "no idea"},
        {**right, "who": A, "text": '{"b":2,"a":1}'},
        {**wrong, "who": BASE, "text": "no"},
        {**wrong, "who": A, "text": "no"},
        {"ask": 11, "prompt": "free", "reference": None, "who": A, "text": "anything"},
    )


def test_answers_of_a_batch_become_rows_in_their_order(home: Home) -> None:
    rows = three(home)
    assert [row.prompt for row in rows] == ["two", "=1+1", "free"]
    assert [answers.score(rows, who) for who in (BASE, A)] == [(0, 2), (1, 2)]
    kept = {which: answers.kept(rows, which, [A]) for which in ("all", "differs", "matches", "apart")}
    assert {which: [row.prompt for row in found] for which, found in kept.items()} == {
        "all": ["two", "=1+1", "free"],
        "differs": ["two"],
        "matches": ["=1+1"],
        "apart": ["=1+1"],
    }
    table = answers.table(rows, [BASE, A], "✓", "✗")
    assert table[f"right {A}"].tolist() == ["✗", "✓", ""]
    assert table[f"answer {BASE}"].tolist() == ["no", "no idea", ""]


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        (" yes\n", "yes", True),
        ("Yes", "yes", False),
        ('{"a": 1}', '{ "a":1 }', True),
        ('{"a": 1}', '{"a": 2}', False),
        ("1", "1.0", False),
        ('{"a": ', '{"a": 1}', False),
    ],
)
def test_equal_is_the_same_text_or_the_same_json(one: str, other: str, equal: bool) -> None:
    assert answers.same(one, other) is equal


def test_downloads_of_a_batch_hold_everything_and_run_nothing(home: Home) -> None:
    rows = three(home)
    names = {BASE: "gemma", A: "=tickets"}
    lines = [json.loads(line) for line in answers.to_jsonl(rows, names).splitlines()]
    assert lines[1]["=tickets"] == '{"b":2,"a":1}'
    assert lines[1]["=tickets: equal"] is True
    assert "gemma" not in lines[2]
    table = list(csv.DictReader(io.StringIO(answers.to_csv(rows, names).decode("utf-8-sig"))))
    assert table[1]["prompt"] == "'=1+1"
    assert table[0]["'=tickets: equal"] == "false"
    assert table[0]["gemma: tokens"] == "3"


# ---- how a session stands


def job(state: str, **more: Any) -> Job:
    found = Job(A, "my chat", "generate", state)
    for name, value in more.items():
        setattr(found, name, value)
    return found


def other(kind: str = "train") -> Job:
    return Job(B, "tone <b>", kind, "running")


def stands(
    this: Job, running: Job | None = None, waiting: int = 0, ready: bool = False, *, off: bool = False, **when: float
) -> str:
    ends = {name: NOW + timedelta(seconds=seconds) for name, seconds in when.items()}
    around = Around(running, waiting, alive.Runner(not off), NOW, UTC, **ends)
    found = standing.standing(this, around, ready, 10)
    return f"{found.kind}: {found.says} {found.hint}".strip()


@pytest.mark.parametrize(
    ("told", "says"),
    [
        (stands(job("queued")), "waits: Handed in: the runner takes it in a moment."),
        (stands(job("queued"), waiting=2), "waits: In the queue: 2 jobs go first."),
        (stands(job("queued"), off=True), "waits: Waits for the runner, which is not running. `make up` starts it."),
        (stands(job("held")), "waits: On hold in the queue: release it there."),
        (
            stands(job("queued"), other(), 1, until=1800),
            "waits: Waits while “tone \\<b\\>” trains, until about 12:30. One more job goes first.",
        ),
        (
            stands(job("queued"), other(), 2, until=1800, free=86400),
            "waits: Waits while “tone \\<b\\>” trains, until about 12:30. "
            "2 more jobs go first, until about 24 Nov 2026, 12:00.",
        ),
        (stands(job("queued"), other()), "waits: Waits while “tone \\<b\\>” trains."),
        (stands(job("queued"), other("generate")), "waits: Waits until “tone \\<b\\>” has the card no more."),
        (stands(job("running", phase="loading the model")), "starting: Loading the model …"),
        (
            stands(job("running"), ready=True),
            "ready: Ready. It makes room for any training, and closes after 10 min without a question.",
        ),
        (
            stands(job("done", result={"ended_by": "made_room"}), other()),
            "ended: The chat made room for “tone \\<b\\>”. Opened again, it waits until the card is free.",
        ),
        (
            stands(job("done", result={"ended_by": "idle"})),
            "ended: The chat closed by itself, as nobody asked anything. What was said is still here.",
        ),
        (stands(job("done", result={"ended_by": "new"})), "ended: The chat has ended. What was said is still here."),
        (stands(job("cancelled")), "ended: The chat was ended. What was said is still here."),
        (
            stands(job("failed", error={"message": "no memory left.", "hint": "Take a smaller base."})),
            "failed: **It could not go on.** No memory left\\. Take a smaller base\\.",
        ),
    ],
)
def test_how_a_session_stands_is_said_in_words(told: str, says: str) -> None:
    assert told == says


# ---- corrections


def right(*messages: tuple[str, str], answer: str = "Right.", wrong: str = "Wrong.") -> Correction:
    told = tuple({"role": role, "content": content} for role, content in messages or [("user", "Where is it?")])
    return Correction(told, wrong, answer, A, "mira@example.org")


def rows_of(stored: keep.Stored) -> list[dict[str, Any]]:
    return [record.value for record in inspect.head(stored.path, 100, Limits())]


def test_a_correction_makes_a_new_dataset_of_conversations(home: Home) -> None:
    saved = corrections.save(home, "fresh", right(("system", "Be short."), ("user", "Hello?")))
    assert saved.how == "added"
    assert saved.stored.format == "messages"
    assert rows_of(saved.stored) == [
        {
            "messages": [
                {"role": "system", "content": "Be short."},
                {"role": "user", "content": "Hello?"},
                {"role": "assistant", "content": "Right."},
            ],
            "corrected_by": "mira@example.org",
            "corrected_model": A,
        }
    ]
    again = corrections.save(home, "fresh", right(("user", "Another?")))
    assert (again.how, again.stored.rows, again.stored.format) == ("added", 2, "messages")


CASES = {
    "question_answer": (b"question,answer\nOne?,1\nTwo?,2\n", {"question": "Where is it?", "answer": "Right."}),
    "prompt_completion": (
        b'{"prompt":"One?","completion":"1"}\n{"prompt":"Two?","completion":"2"}\n',
        {"prompt": "Where is it?", "completion": "Right."},
    ),
    "alpaca": (
        b'{"instruction":"One?","input":"","output":"1"}\n{"instruction":"Two?","input":"","output":"2"}\n',
        {"instruction": "Where is it?", "output": "Right."},
    ),
    "preference": (
        b'{"prompt":"One?","chosen":"1","rejected":"0"}\n{"prompt":"Two?","chosen":"2","rejected":"0"}\n',
        {"prompt": "Where is it?", "chosen": "Right.", "rejected": "Wrong."},
    ),
    "sharegpt": (
        b'{"conversations":[{"from":"human","value":"One?"},{"from":"gpt","value":"1"}]}\n' * 2,
        {"conversations": [{"from": "human", "value": "Where is it?"}, {"from": "gpt", "value": "Right."}]},
    ),
}


@pytest.mark.parametrize("format", CASES)
def test_a_correction_is_written_in_the_datasets_own_columns(format: str, home: Home) -> None:
    data, row = CASES[format]
    before = keep.add(home, "mine", "mine.csv" if b"," in data.splitlines()[0][:12] else "mine.jsonl", data)
    assert before.format == format
    saved = corrections.save(home, "mine", right())
    assert (saved.how, saved.stored.rows, saved.stored.format) == ("added", 3, format)
    assert rows_of(saved.stored)[2] == {**row, "corrected_by": "mira@example.org", "corrected_model": A}
    assert saved.stored.report is not None
    assert saved.stored.report["usable_rows"] == 3
    assert keep.find(home, "mine").version == saved.stored.version
    assert rows_of(before) == rows_of(keep.find(home, before.reference)), "the earlier version stays"


def test_the_same_question_gets_the_new_answer_and_the_same_row_is_kept_once(home: Home) -> None:
    keep.add(home, "mine", "mine.csv", b"question,answer,topic\nOne?,1,a\nWhere is it?,Here.,b\nTwo?,2,c\n")
    saved = corrections.save(home, "mine", right())
    assert (saved.how, saved.stored.rows) == ("replaced", 3)
    assert [(row["answer"], row["topic"]) for row in rows_of(saved.stored)] == [("1", "a"), ("Right.", "b"), ("2", "c")]
    again = corrections.save(home, "mine", right())
    assert (again.how, again.stored.version) == ("known", saved.stored.version)


def test_a_conversation_goes_only_where_it_fits(home: Home) -> None:
    keep.add(home, "single", "a.csv", b"question,answer\nOne?,1\nTwo?,2\n")
    keep.add(home, "talks", "b.jsonl", durable.to_bytes({"messages": chat.pair("a", "b")}).replace(b"\n", b"") + b"\n")
    keep.add(home, "plain", "c.txt", b"Only text.\n\nMore text.\n")
    asked = [*chat.pair("one", "two"), {"role": "user", "content": "three"}]
    assert [stored.name for stored in corrections.offered(home, asked)] == ["talks"]
    assert [stored.name for stored in corrections.offered(home, asked[-1:])] == ["single", "talks"]
    assert corrections.takes(home, "talks@0123456789ab", asked)
    assert not corrections.takes(home, "single", asked)
    turns = right(("user", "one"), ("assistant", "two"), ("user", "three"))
    with pytest.raises(DataError, match="no row of single"):
        corrections.save(home, "single", turns)
    assert corrections.save(home, "talks", turns).stored.rows == 2


@pytest.mark.parametrize(
    ("name", "answer", "says"),
    [("../evil", "x", "cannot be"), ("mine", " \n", "is empty"), ("mine", "x" * 40_000, "longer than")],
)
def test_what_is_no_correction_leaves_nothing_behind(name: str, answer: str, says: str, home: Home) -> None:
    with pytest.raises(DataError, match=says):
        corrections.save(home, name, right(answer=answer))
    assert keep.list_datasets(home) == []


# ---- questions to begin with


def test_questions_to_begin_with_are_rows_kept_from_training_first(home: Home, tmp_path: Path) -> None:
    keep.add(home, "faq", "faq.csv", b"question,answer\n" + b"".join(b"Number %d?,%d\n" % (i, i) for i in range(9)))
    run = home.run(A)
    run.data.mkdir(parents=True)
    durable.write_json(run.spec, {"dataset": "faq", "data": {"format": "auto", "mapping": {}}})
    assert [each.prompt for each in prompts.suggestions(home, A)] == ["Number 0?", "Number 1?", "Number 2?"]
    from spool.data.judging import arrow_rows

    writer = arrow_rows.Writer(run.data / "eval.arrow")
    for line in (5, 7):
        writer.add(line - 2, line, 0, [1, 2], [1, 2])
    writer.close()
    found = prompts.suggestions(home, A)
    assert [(each.prompt, each.reference, each.unseen) for each in found] == [
        ("Number 3?", "3", True),
        ("Number 5?", "5", True),
        ("Number 0?", "0", False),
    ]
    row = {"v": 1, "prompt": "Sampled?", "reference": "Yes."}
    durable.append_line(run.samples, row)
    durable.append_line(run.samples, row)
    assert [each.prompt for each in prompts.suggestions(home, A)] == ["Sampled?"]


@pytest.mark.parametrize("dataset", ["gone", "../../etc/passwd", "hf:some/where", ""])
def test_where_the_data_is_gone_there_are_no_questions(dataset: str, home: Home) -> None:
    home.run(A).root.mkdir(parents=True)
    durable.write_json(home.run(A).spec, {"dataset": dataset})
    assert prompts.suggestions(home, A) == []
