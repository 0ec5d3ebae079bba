"""Recognising layouts and turning rows into examples, with the problem that drops each bad one."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spool.data.judging.examples import Example, to_example
from spool.data.judging.formats import Layout, recognise
from spool.data.judging.scan import examples, scan
from spool.data.reading.read import read
from spool.data.reading.table import Problem, Record, Table
from spool.protocol.errors import DataError

FILES = Path(__file__).parent / "data"


def table(rows: list[dict[str, Any]], container: str = "jsonl") -> Table:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    records = [Record(number, row) for number, row in enumerate(rows, 1)]
    return Table(Path("rows"), container, "utf-8", "", columns, records)


def example(row: dict[str, Any], **options: Any) -> Example | Problem:
    rows = table([row])
    return to_example(rows.records[0], recognise(rows, **options))


def turns(found: Example | Problem) -> list[tuple[str, str]]:
    assert isinstance(found, Example), found
    assert found.messages is not None
    return [(message["role"], message["content"]) for message in found.messages]


@pytest.mark.parametrize(
    ("row", "format", "roles"),
    [
        ({"instruction": "a", "input": "b", "output": "c"}, "alpaca", ["instruction", "output", "input"]),
        ({"instruction": "a", "context": "b", "response": "c", "category": "d"}, "alpaca", None),
        ({"prompt": "a", "completion": "b"}, "prompt_completion", ["prompt", "completion"]),
        ({"input": "a", "output": "b"}, "prompt_completion", ["input", "output"]),
        ({"query": "a", "response": "b"}, "prompt_completion", None),
        ({"Prompt": "a", "Response": "b"}, "prompt_completion", ["Prompt", "Response"]),
        ({"user": "a", "assistant": "b"}, "prompt_completion", None),
        ({"source": "a", "target": "b"}, "prompt_completion", None),
        ({"Customer Message": "a", "Agent Response": "b"}, "prompt_completion", None),
        ({"document": "a", "summary": "b"}, "prompt_completion", None),
        ({"question": "a", "answer": "b"}, "question_answer", ["question", "answer"]),
        ({"question": "a", "answer": "b", "text": "c"}, "question_answer", ["question", "answer"]),
        ({"Ticket-Nr": "1", "Kundenfrage": "a", "Antwort": "b"}, "question_answer", ["Kundenfrage", "Antwort"]),
        ({"Customer question": "a", "Our answer": "b"}, "question_answer", ["Customer question", "Our answer"]),
        ({"conversations": [{"from": "human", "value": "a"}]}, "sharegpt", ["conversations"]),
        ({"conversations": [{"role": "user", "content": "a"}]}, "messages", ["conversations"]),
        ({"messages": [{"from": "human", "value": "a"}]}, "sharegpt", ["messages"]),
        ({"odd name": [{"role": "user", "content": "a"}]}, "messages", ["odd name"]),
        ({"messages": '[{"role": "user", "content": "a"}]'}, "messages", ["messages"]),
        ({"prompt": "a", "prompt_id": "1", "messages": [{"role": "user", "content": "a"}]}, "messages", ["messages"]),
        ({"text": "a"}, "text", ["text"]),
        ({"poem": "a"}, "text", ["poem"]),
        ({"text": "a", "source_url": "b"}, "text", ["text"]),
        ({"prompt": "a", "chosen": "b", "rejected": "c"}, "preference", ["chosen", "rejected", "prompt"]),
        ({"text": "a", "label": "b"}, "label", ["text", "label"]),
        ({"review": "a", "sentiment": "b"}, "label", ["review", "sentiment"]),
        ({"text": "a", "category": 3, "id": 7}, "label", ["text", "category"]),
    ],
)
def test_recognised(row: dict[str, Any], format: str, roles: list[str] | None) -> None:
    layout = recognise(table([row]))
    assert layout.format == format
    assert roles is None or list(layout.roles.values()) == roles
    assert recognise(table([row]), format).roles == layout.roles, "naming what auto found must change nothing"


def test_confidence_and_alternatives() -> None:
    sure = recognise(table([{"instruction": "a", "input": "b", "output": "c"}]))
    assert sure.confidence == 1
    assert [each["format"] for each in sure.alternatives] == ["prompt_completion"]
    assert recognise(table([{"poem": "a"}])).confidence <= 0.5


def test_not_recognised() -> None:
    with pytest.raises(DataError, match=r"columns: Anliegen, Erledigung\.") as error:
        recognise(table([{"Anliegen": "a", "Erledigung": "b"}]))
    assert '{"prompt": "Anliegen", "completion": "Erledigung"}' in error.value.hint
    with pytest.raises(DataError, match="no line with column names") as error:
        recognise(read(FILES / "no_header.csv"))
    assert '{"prompt": "column 1", "completion": "column 2"}' in error.value.hint
    with pytest.raises(DataError, match="does not fit the format question_answer: no column for question"):
        recognise(table([{"prompt": "a", "completion": "b"}]), "question_answer")
    with pytest.raises(DataError, match="not recognised"):
        recognise(table([{"question": "a"}]))


@pytest.mark.parametrize("format", ["auto", "prompt_completion", "question_answer"])
def test_mapping(format: str) -> None:
    row = {"Frage": "Wie?", "Antwort": "So.", "prompt": "not this"}
    layout = recognise(table([row]), format, {"prompt": "Frage", "completion": "Antwort"})
    assert layout.format == ("prompt_completion" if format == "auto" else format)
    assert turns(to_example(Record(1, row), layout)) == [("user", "Wie?"), ("assistant", "So.")]


def test_part_of_a_mapping() -> None:
    layout = recognise(table([{"prompt": "a", "Antwort": "b"}]), mapping={"completion": "Antwort"})
    assert layout.roles == {"prompt": "prompt", "completion": "Antwort"}
    assert recognise(table([{"Satz": "a", "x": "b"}]), mapping={"text": "Satz"}).format == "text"
    layout = recognise(table([{"a": "a", "b": "b", "c": "c"}]), mapping={"chosen": "a", "rejected": "b", "prompt": "c"})
    assert layout.format == "preference"


def test_a_prompt_alone_is_no_plain_text() -> None:
    with pytest.raises(DataError, match="columns: Anliegen, Erledigung"):
        recognise(table([{"Anliegen": "a", "Erledigung": "b"}]), mapping={"prompt": "Anliegen"})


def test_wrong_mappings() -> None:
    rows = table([{"Frage": "a", "Antwort": "b"}])
    with pytest.raises(DataError) as error:
        recognise(rows, mapping={"Frage": "prompt"})
    assert 'the other way round: {"prompt": "Frage"}' in error.value.hint
    with pytest.raises(DataError, match="no column 'Fragen'") as error:
        recognise(rows, mapping={"prompt": "Fragen"})
    assert "Did you mean 'Frage'?" in error.value.hint
    with pytest.raises(DataError, match="no format 'alpacca'"):
        recognise(rows, "alpacca")


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"instruction": "Add.", "input": "1", "output": "2"}, [("user", "Add.\n\n1"), ("assistant", "2")]),
        ({"instruction": "Add.", "input": "", "output": "2"}, [("user", "Add."), ("assistant", "2")]),
        ({"instruction": "Add.", "": 1, "output": "2"}, [("user", "Add."), ("assistant", "2")]),
        ({"instruction": "Add.", "input": None, "output": 2}, [("user", "Add."), ("assistant", "2")]),
        ({"system": "S", "prompt": "a", "completion": "b"}, [("system", "S"), ("user", "a"), ("assistant", "b")]),
        ({"prompt": "a", "completion": {"x": [1, "é"]}}, [("user", "a"), ("assistant", '{"x":[1,"é"]}')]),
        ({"question": "a", "answer": ["b", "c"]}, [("user", "a"), ("assistant", "b")]),
        ({"question": "q", "context": "c", "answer": "a"}, [("user", "c\n\nq"), ("assistant", "a")]),
        ({"text": "a", "label": True}, [("user", "a"), ("assistant", "true")]),
        ({"text": "a", "label": 0}, [("user", "a"), ("assistant", "0")]),
        (
            {"prompt": [{"role": "user", "content": "a"}], "completion": [{"role": "assistant", "content": "b"}]},
            [("user", "a"), ("assistant", "b")],
        ),
    ],
)
def test_examples(row: dict[str, Any], expected: list[tuple[str, str]]) -> None:
    assert turns(example(row)) == expected


def test_chats_of_every_dialect() -> None:
    def of(name: str) -> tuple[list[list[tuple[str, str]]], list[tuple[int, str]]]:
        found = scan(FILES / name)
        dropped = [(p.line, p.code) for p in found.tally.findings.sorted() if p.action == "dropped"]
        return [turns(each) for each in examples(found)], dropped

    good, problems = of("openai_messages.jsonl")
    assert good[1] == [("system", "Be nice."), ("user", "Hi"), ("assistant", "Hello 👋")]
    assert good[2] == [("user", "Hi"), ("assistant", "Hello")]
    assert good[3] == [("user", "Parts joined"), ("assistant", "ok")]
    assert [code for _, code in problems] == [*("wrong_type", "wrong_type", "bad_roles", "special_token_in_text")]
    assert good[5] == [("user", "a\n\nb"), ("assistant", "c")]
    good, problems = of("sharegpt.json")
    assert good[0][0] == ("system", "Be kind.")
    assert good[1] == [("user", "2+2?"), ("assistant", "4")]
    assert good[2] == [("user", "Use it\n\n```tool_output\n42\n```"), ("assistant", "done")]
    assert [code for _, code in problems] == ["bad_roles", "no_answer", "no_answer", "empty_field"]
    good, problems = of("google_contents.jsonl")
    assert good[0] == [("system", "Sort the ticket."), ("user", "Broken screen"), ("assistant", "hardware")]
    assert not problems
    good, problems = of("dpo.jsonl")
    assert good[:3] == [
        [("user", "Be brief: sky?"), ("assistant", "Blue.")],
        [("user", "Grass?"), ("assistant", "Green.")],
        [("user", "Snow?"), ("assistant", "White.")],
    ]
    assert good[3][-1] == ("assistant", "Cold.")
    assert problems == [(4, "empty_field")]


def test_weight_zero_is_kept() -> None:
    messages = list(examples(scan(FILES / "openai_messages.jsonl")))[4].messages
    assert messages is not None
    assert [message.get("weight") for message in messages] == [None, 0, None, None]
    only = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "weight": 0}]}
    found = example(only)
    assert isinstance(found, Problem)
    assert found.code == "no_trainable_tokens"


@pytest.mark.parametrize(
    ("row", "code"),
    [
        ({"prompt": "a", "completion": ""}, "empty_field"),
        ({"prompt": " \n", "completion": "a"}, "empty_field"),
        ({"prompt": "a", "completion": None}, "missing_field"),
        ({"prompt": 5, "completion": "a"}, "wrong_type"),
        ({"prompt": {"a": 1}, "completion": "a"}, "wrong_type"),
        ({"text": 5}, "wrong_type"),
        ({"prompt": "a", "completion": "b<eos>"}, "special_token_in_text"),
        ({"text": "<start_of_turn>user"}, "special_token_in_text"),
        ({"text": "a <|turn>model"}, "special_token_in_text"),
        ({"text": "\ud800"}, "bad_encoding"),
        ({"messages": [{"role": "user", "content": "a"}]}, "no_answer"),
        ({"messages": [{"role": "wizard", "content": "a"}]}, "bad_roles"),
        ({"messages": [{"role": "assistant", "content": "a"}]}, "bad_roles"),
        ({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": 1}]}, "wrong_type"),
        ({"messages": [{"role": "user"}, {"role": "assistant", "content": "a"}]}, "missing_field"),
    ],
)
def test_bad_rows(row: dict[str, Any], code: str) -> None:
    found = example(row)
    assert isinstance(found, Problem)
    assert (found.line, found.code, found.action) == (1, code, "dropped")
    assert found.message.endswith(".")


def test_harmless_angle_brackets() -> None:
    assert isinstance(example({"text": "<b>bold</b> <unk> a < b > c <start_of_turns>"}), Example)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["role", "content", "from", "value", "text", "parts", "weight"]), inner)
    ),
    max_leaves=12,
)
ROLES = {"prompt": "a", "completion": "b", "instruction": "a", "output": "b", "question": "a", "answer": "b"}
ROLES |= {"text": "a", "label": "b", "messages": "a", "conversations": "a", "chosen": "a", "rejected": "b"}
FORMATS = ["alpaca", "prompt_completion", "question_answer", "sharegpt", "messages", "text", "preference", "label"]


@given(st.dictionaries(st.sampled_from("abc"), JSON), st.sampled_from(FORMATS))
def test_any_row_is_an_example_or_a_problem(row: dict[str, Any], format: str) -> None:
    found = to_example(Record(3, row), Layout(format, ROLES | {"system": "c", "input": "c", "context": "c"}, 1.0))
    assert found.line == 3
    if isinstance(found, Example) and found.messages:
        assert found.messages[-1]["role"] == "assistant"
        assert all(message["content"].strip() for message in found.messages)
    json.dumps(row, default=str)
