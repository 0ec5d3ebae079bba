"""Files that others make: the shapes of well-known data sets, services and exports, each read as its maker meant it."""

import gzip
import json
import zipfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from spool.data.judging.check import Report, check
from spool.data.judging.scan import examples, scan
from spool.data.reading.read import read
from spool.protocol.errors import DataError

SAMPLES = Path(__file__).parent / "data" / "samples"
ROWS = [
    {"prompt": "Where is my order?", "completion": "On its way."},
    {"prompt": "How do I pay?", "completion": "By card."},
]
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]


def user(text: Any) -> dict[str, Any]:
    return {"role": "user", "content": text}


def assistant(text: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


def human(text: str) -> dict[str, str]:
    return {"from": "human", "value": text}


def gpt(text: str) -> dict[str, str]:
    return {"from": "gpt", "value": text}


def lines(*rows: Any) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def written(tmp_path: Path, name: str, content: str | bytes) -> Path:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def said(path: Path) -> list[list[tuple[str, str]]]:
    """(first letter of the role, content) of each turn of each usable row; plain text counts as said by nobody."""
    return [
        [("", found.text or "")]
        if found.messages is None
        else [(message["role"][0], message["content"]) for message in found.messages]
        for found in examples(scan(path))
    ]


def judged(path: Path) -> Report:
    report = check(path)
    dropped = {(p.file, p.line, p.code) for p in report.problems if p.action == "dropped"}
    assert report.rows - report.usable_rows >= len(dropped), "a row is dropped only with a reason"
    assert (report.rows == report.usable_rows) == (not dropped)
    assert len(said(path)) == report.usable_rows, "training sees as many rows as the check counts"
    return report


CALL = '```tool_code\n{"name": "weather", "parameters": {"city": "Rome"}}\n```'
RESULT = "```tool_output\n21\n```"
QA = [("u", "p"), ("a", "c")]
PAIRS = [[("u", row["prompt"]), ("a", row["completion"])] for row in ROWS]

# name, content, format, rows, what the first usable row says, codes found
SHAPES: list[tuple[str, str | bytes, str, int, list[tuple[str, str]], list[str]]] = [
    ("azure.jsonl", "\ufeff" + lines({"messages": [user("p"), assistant("c")]}), "messages", 1, QA, []),
    ("hh_rlhf.jsonl", lines({"chosen": "\n\nHuman: p\n\nAssistant: c", "rejected": "\n\nHuman: p\n\nAssistant: r"}),
     "preference", 1, QA, []),
    ("hh_trl.jsonl", lines({"prompt": "\n\nHuman: p\n\nAssistant:", "chosen": "c", "rejected": "r"}),
     "preference", 1, QA, []),
    ("dpo.jsonl", lines({"prompt": "p", "chosen": "c", "rejected": "r"}), "preference", 1, QA, []),
    ("dpo_turns.jsonl", lines({"prompt": [user("p")], "chosen": [assistant("c")], "rejected": [assistant("r")]}),
     "preference", 1, QA, []),
    ("ultrafeedback.jsonl", lines({"prompt": "p", "prompt_id": "1", "chosen": [user("p"), assistant("c")],
     "rejected": [user("p"), assistant("r")], "messages": [user("p"), assistant("c")], "score_chosen": 8.0}),
     "preference", 1, QA, []),
    ("llamafactory_dpo.json", json.dumps([{"conversations": [human("p")], "chosen": gpt("c"), "rejected": gpt("r")}]),
     "preference", 1, QA, []),
    ("openai_dpo.jsonl", lines({"input": {"messages": [user("p")], "tools": [], "parallel_tool_calls": True},
     "preferred_output": [assistant("c")], "non_preferred_output": [assistant("r")]}), "preference", 1, QA, []),
    ("stack_exchange.jsonl", lines({"question": "p", "response_j": "c", "response_k": "r"}), "preference", 1, QA, []),
    ("lima.jsonl", lines({"conversations": ["p", "c"], "source": "x"}, {"conversations": ["a", "b", "c", "d"]}),
     "messages", 2, QA, []),
    ("ultrachat.jsonl", lines({"id": "0", "data": ["p", "c"]}), "messages", 1, QA, []),
    ("orca.jsonl", lines({"id": "1", "system_prompt": "S", "question": "p", "response": "c"}),
     "question_answer", 1, [("s", "S"), *QA], []),
    ("dolly.jsonl", lines({"instruction": "p", "context": "", "response": "c", "category": "open_qa"}),
     "alpaca", 1, QA, []),
    ("history.json", json.dumps([{"instruction": "p", "input": "", "output": "c", "history": [["q", "a"]]}]),
     "alpaca", 1, [("u", "q"), ("a", "a"), *QA], []),
    ("gsm8k.jsonl", lines({"question": "p", "answer": "c"}), "question_answer", 1, QA, []),
    ("squad.jsonl", lines({"id": "1", "context": "C", "question": "p", "answers": {"text": ["c"], "answer_start": [1]}},
     {"id": "2", "context": "C", "question": "q", "answers": {"text": [], "answer_start": []}}),
     "question_answer", 2, [("u", "C\n\np"), ("a", "c")], ["no_answer"]),
    ("squad.csv", 'question,answers\np,"{\'text\': [\'c\'], \'answer_start\': [1]}"\nq,"{\'text\': [], '
     "'answer_start': []}\"\n", "question_answer", 2, QA, ["no_answer"]),
    ("xsum.jsonl", lines({"document": "p", "summary": "c", "id": "1"}), "prompt_completion", 1, QA, []),
    ("samsum.json", json.dumps([{"id": "1", "summary": "c", "dialogue": "p"}]), "prompt_completion", 1, QA, []),
    ("kto.jsonl", lines({"prompt": "p", "completion": "c", "label": True}, {"prompt": "p", "completion": "r",
     "label": False}), "prompt_completion", 2, QA, ["not_desirable"]),
    ("kto.csv", "prompt,completion,label\np,c,True\np,r,False\n", "prompt_completion", 2, QA, ["not_desirable"]),
    ("kto_tag.json", json.dumps([{"instruction": "p", "output": "c", "tag": True}]), "alpaca", 1, QA, []),
    ("not_kto.jsonl", lines({"prompt": "p", "completion": "c", "label": "billing"}), "prompt_completion", 1, QA, []),
    ("gemini.jsonl", lines({"systemInstruction": {"role": "system", "parts": [{"text": "S"}]}, "contents": [
     {"role": "user", "parts": [{"text": "p"}]}, {"role": "model", "parts": [{"text": "c"}]}]}),
     "messages", 1, [("s", "S"), *QA], []),
    ("vertex.jsonl", lines({"input_text": "p", "output_text": "c"}), "prompt_completion", 1, QA, []),
    ("index.csv", ",prompt,completion\n0,p,c\n1,q,d\n", "prompt_completion", 2, QA, []),
    ("from_r.csv", '"prompt","completion"\n"1","p","c"\n"2","q","d"\n', "prompt_completion", 2, QA, []),
    ("excel.csv", "sep=;\r\nPrompt;Completion\r\nGrün?;5 €\r\n".encode("cp1252"),
     "prompt_completion", 1, [("u", "Grün?"), ("a", "5 €")], []),
    ("excel.txt", "Prompt\tCompletion\r\nGrün?\tJa\r\n".encode("utf-16"),
     "prompt_completion", 1, [("u", "Grün?"), ("a", "Ja")], []),
    ("mac.csv", "prompt,completion\rp,c\r", "prompt_completion", 1, QA, []),
    ("json_in.csv", 'id,messages\n1,"[{""role"": ""user"", ""content"": ""p""}, {""role"": ""assistant"", '
     '""content"": ""c""}]"\n', "messages", 1, QA, []),
    ("repr_in.csv", "id,messages\n1,\"[{'role': 'user', 'content': 'p'}, {'role': 'assistant', 'content': 'c'}]\"\n",
     "messages", 1, QA, []),
    ("records.json", json.dumps(ROWS), "prompt_completion", 2, PAIRS[0], []),
    ("split.json", json.dumps({"columns": ["prompt", "completion"], "index": [0, 1],
     "data": [list(row.values()) for row in ROWS]}), "prompt_completion", 2, PAIRS[0], []),
    ("ragged_split.json", json.dumps({"columns": ["prompt", "completion"], "data": [["p", "c"], ["p"]]}),
     "prompt_completion", 2, QA, ["ragged_row"]),
    ("index.json", json.dumps({str(n): row for n, row in enumerate(ROWS)}), "prompt_completion", 2, PAIRS[0], []),
    ("columns.json", json.dumps({name: {str(n): row[name] for n, row in enumerate(ROWS)} for name in ROWS[0]}),
     "prompt_completion", 2, PAIRS[0], []),
    ("table.json", json.dumps({"schema": {"fields": [{"name": "index"}], "pandas_version": "1.4.0"}, "data": ROWS}),
     "prompt_completion", 2, PAIRS[0], []),
    ("named_chats.json", json.dumps({"one": [user("p"), assistant("c")], "two": [user("q"), assistant("d")]}),
     "messages", 2, QA, []),
    ("splits.json", json.dumps({"test": ROWS[:1], "train": ROWS}), "prompt_completion", 2, PAIRS[0], ["not_read"]),
    ("bom.json", "\ufeff" + json.dumps(ROWS), "prompt_completion", 2, PAIRS[0], []),
    ("pretty.jsonl", "\n".join(json.dumps(row, indent=2) for row in ROWS), "prompt_completion", 2, PAIRS[0], []),
    ("list.jsonl", json.dumps(ROWS, indent=2), "prompt_completion", 2, PAIRS[0], []),
    ("python.json", str(ROWS), "prompt_completion", 2, PAIRS[0], ["bad_json", "bad_json"]),
    ("comments.json", '// mine\n[\n  {"prompt": "p", "completion": "c"}, // one\n  /* two */\n'
     '  {"prompt": "http://x", "completion": "d"},\n]\n', "prompt_completion", 2, QA, []),
    ("commas.json", '[{"prompt": "p", "completion": "c",},\n{"prompt": "q,}", /* x */ "completion": "d",},]',
     "prompt_completion", 2, QA, ["bad_json", "bad_json"]),
    ("book.txt", "CHAPTER I\n\nIt was the best of times,\nit was the worst.\n\nIt was the age\nof wisdom.\n",
     "text", 3, [("", "CHAPTER I")], []),
]  # fmt: skip


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("shape", SHAPES, ids=[shape[0] for shape in SHAPES])
def test_shapes(tmp_path: Path, shape: tuple[str, str | bytes, str, int, list, list[str]], packed: bool) -> None:
    name, content, format, rows, first, codes = shape
    path = written(tmp_path, name, content)
    if packed:
        path = written(tmp_path, f"{name}.gz", gzip.compress(path.read_bytes()))
    report = judged(path)
    assert (report.format, report.rows) == (format, rows)
    assert said(path)[0] == first
    ours = [
        problem.code for problem in report.problems if problem.action in ("dropped", "repaired") or not problem.line
    ]
    assert sorted(set(ours) | {p.code for p in report.problems if p.code == "not_read"}) == sorted(set(codes))
    assert report.problem_counts.get("bad_json", 0) == codes.count("bad_json")


TURNS: list[tuple[str, dict[str, Any]]] = [
    (
        "openai",
        {
            "messages": [
                user("Weather?"),
                {
                    "role": "assistant",
                    "tool_calls": [
                        {
                            "id": "1",
                            "function": {"name": "weather", "arguments": json.dumps(json.dumps({"city": "Rome"}))},
                        }
                    ],
                },
                {"role": "tool", "tool_call_id": "1", "content": "21"},
                assistant("21 degrees."),
            ]
        },
    ),
    (
        "openai, the older way",
        {
            "messages": [
                user("Weather?"),
                {
                    "role": "assistant",
                    "content": None,
                    "function_call": {"name": "weather", "arguments": '{"city": "Rome"}'},
                },
                {"role": "function", "name": "weather", "content": "21"},
                assistant("21 degrees."),
            ]
        },
    ),
    (
        "sharegpt",
        {
            "conversations": [
                human("Weather?"),
                {"from": "function_call", "value": '{"name": "weather", "arguments": {"city": "Rome"}}'},
                {"from": "observation", "value": "21"},
                gpt("21 degrees."),
            ]
        },
    ),
    (
        "google",
        {
            "contents": [
                {"role": "user", "parts": [{"text": "Weather?"}]},
                {"role": "model", "parts": [{"functionCall": {"name": "weather", "args": {"city": "Rome"}}}]},
                {"role": "function", "parts": [{"functionResponse": {"name": "weather", "response": 21}}]},
                {"role": "model", "parts": [{"text": "21 degrees."}]},
            ]
        },
    ),
    (
        "anthropic",
        {
            "messages": [
                user("Weather?"),
                assistant([{"type": "tool_use", "id": "1", "name": "weather", "input": {"city": "Rome"}}]),
                user([{"type": "tool_result", "tool_use_id": "1", "content": "21"}]),
                assistant("21 degrees."),
            ]
        },
    ),
]


@pytest.mark.parametrize(("name", "row"), TURNS, ids=[name for name, _ in TURNS])
def test_tools_of_every_dialect_become_text(tmp_path: Path, name: str, row: dict[str, Any]) -> None:
    path = written(tmp_path, "tools.jsonl", lines(row))
    report = judged(path)
    assert said(path) == [[("u", "Weather?"), ("a", CALL), ("u", RESULT), ("a", "21 degrees.")]]
    assert [(p.line, p.code, p.action) for p in report.problems] == [(1, "tools_as_text", "repaired")]


def test_tool_definitions_stand_in_the_system_turn(tmp_path: Path) -> None:
    chat = [{"role": "system", "content": "Be brief."}, user("Hi"), assistant("Hello")]
    path = written(tmp_path, "tools.jsonl", lines({"messages": chat, "tools": TOOLS}, {"messages": chat, "tools": []}))
    first, second = said(path)
    assert first[0][1].startswith("Be brief.\n\nYou have access to functions.")
    assert first[0][1].endswith(json.dumps(TOOLS))
    assert first[1:] == second[1:]
    assert second[0] == ("s", "Be brief.")
    assert [p.line for p in judged(path).problems if p.code == "tools_as_text"] == [1]


def test_several_calls_and_their_results_are_one_turn_each(tmp_path: Path) -> None:
    calls = [{"function": {"name": name, "arguments": "{}"}} for name in ("a", "b")]
    results = [{"role": "tool", "content": text} for text in ("1", "2")]
    row = {"messages": [user("p"), assistant("Wait.") | {"tool_calls": calls}, *results, assistant("c")]}
    (turns,) = said(written(tmp_path, "rows.jsonl", lines(row)))
    assert [role for role, _ in turns] == ["u", "a", "u", "a"]
    assert turns[1][1].startswith("Wait.\n\n```tool_code\n")
    assert turns[2][1] == "```tool_output\n1\n```\n\n```tool_output\n2\n```"


def test_turns_in_a_row(tmp_path: Path) -> None:
    system = {"role": "system", "content": "S"}
    path = written(
        tmp_path,
        "rows.jsonl",
        lines(
            {"messages": [user("a"), user("b"), assistant("c")]},
            {"messages": [user("a"), assistant("b"), assistant("c")]},
            {"messages": [system, assistant("a"), user("b"), assistant("c")]},
            {"messages": [system, {"role": "developer", "content": "D"}, user("b"), assistant("c")]},
            {"messages": [user("a"), assistant("b"), user("c")]},
        ),
    )
    found = [(p.line, p.code, p.action) for p in judged(path).problems if p.action != "kept"]
    assert found == [
        (1, "bad_roles", "repaired"),
        (2, "bad_roles", "dropped"),
        (3, "bad_roles", "dropped"),
        (4, "bad_roles", "repaired"),
        (5, "no_answer", "dropped"),
    ]
    assert said(path) == [[("u", "a\n\nb"), ("a", "c")], [("s", "S\n\nD"), ("u", "b"), ("a", "c")]]


SPAM = [("ham", f'Ok, see you at {n}... Then we "talk') for n in range(9)] + [("spam", "WINNER!! Call now: 0800")] * 3


@pytest.mark.parametrize("name", ["SMSSpamCollection", "sms.txt", "sms.tsv"])
def test_labels_and_texts_without_a_header(tmp_path: Path, name: str) -> None:
    path = written(tmp_path, name, "".join(f"{label}\t{text}\n" for label, text in SPAM))
    report = judged(path)
    assert (report.format, report.rows, report.usable_rows) == ("label", 12, 12)
    assert said(path)[0] == [("u", SPAM[0][1]), ("a", "ham")]
    assert "no line with column names" in report.reading


def test_a_zip_and_a_folder_of_exports(tmp_path: Path) -> None:
    folder = tmp_path / "export"
    folder.mkdir()
    pq.write_table(pa.Table.from_pylist(ROWS), folder / "train-00000-of-00002.parquet")
    (folder / "train-00001-of-00002.jsonl").write_text(lines(*ROWS))
    (folder / "test-00000-of-00001.jsonl").write_text(lines(*ROWS))
    with zipfile.ZipFile(tmp_path / "export.zip", "w") as archive:
        for file in sorted(folder.iterdir()):
            archive.write(file, f"export/{file.name}")
    for path in (folder, tmp_path / "export.zip"):
        report = judged(path)
        assert (report.format, report.rows) == ("prompt_completion", 4)
        assert any("test-00000" in notice for notice in report.notices)


@pytest.mark.parametrize("ending", ["csv", "json", "jsonl", "txt", "parquet"])
@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("version https://git-lfs.github.com/spec/v1\noid sha256:8e66\nsize 1050\n", "pointer that Git LFS leaves"),
        ("<!DOCTYPE html><html><body>404: Not Found</body></html>", "a web page"),
    ],
)
def test_what_downloads_leave_instead_of_data(tmp_path: Path, ending: str, content: str, words: str) -> None:
    with pytest.raises(DataError, match=words):
        check(written(tmp_path, f"data.{ending}", content))


def test_parquet_only_by_name(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not Parquet"):
        check(written(tmp_path, "data.parquet", "prompt,completion\na,b\n"))


def test_objects_are_no_text_and_mails_no_chats(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not recognised"):
        check(written(tmp_path, "wmt.jsonl", lines({"translation": {"en": "Hello", "de": "Hallo"}})))
    mails = [{"from": "ann@example.com", "subject": "s", "body": "b"}]
    path = written(tmp_path, "mails.json", json.dumps([{"id": "1", "inbox": mails, "input": "p", "target": "c"}]))
    assert judged(path).format == "prompt_completion"


def test_published_files() -> None:
    report = judged(SAMPLES / "human_eval.jsonl.gz")
    assert (report.format, report.rows, report.usable_rows) == ("prompt_completion", 3, 3)
    report = judged(SAMPLES / "math.json")
    assert (report.format, report.rows, report.mapping["prompt"]) == ("prompt_completion", 3, "problem")
    table = read(SAMPLES / "dietox.csv")
    assert (table.columns[:2], len(table.records), table.problems) == (["column 1", "Weight"], 6, [])
    assert (table.records[0].value["Litter"], table.records[5].value["Weight"]) == ("1", "55.39999")
    assert read(SAMPLES / "iris.csv").columns == [f"column {number}" for number in range(1, 6)]
    table = read(SAMPLES / "evaluators.csv")
    assert (table.columns[1], len(table.records)) == ("Human agreement", 4)
