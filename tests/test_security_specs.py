"""Specs from hostile hands: a spec is data, is bounded, names no file that it may not, and leaves its trace."""

import ast
import hashlib
import json
import os
import random
import re
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from drop_box import Box, text

from bench import fuzz_specs
from spool.protocol import parse, strict
from spool.protocol.home import Home, State
from spool.protocol.schema import json_schema
from spool.protocol.states import Tokens


@pytest.fixture
def box(home: Home) -> Box:
    return Box(home)


# Fuzz: `python -m bench.fuzz_specs` is the long run


@pytest.mark.alone
def test_mutated_specs_crash_nothing_and_none_is_accepted_that_is_invalid() -> None:
    outcome = fuzz_specs.fuzz(6_000, seed=7)
    assert outcome.crashes == []
    assert outcome.wrongly_accepted == []
    assert outcome.wrongly_refused == []
    assert outcome.accepted > 1_000
    assert set(outcome.refused) > {"bad_value", "bad_json", "unknown_field", "missing", "not_utf8", "too_deep"}
    assert sorted(outcome.times)[len(outcome.times) * 99 // 100] < fuzz_specs.LIMIT_S
    # One answer may meet a busy machine; its time counts when it is slow again.
    assert outcome.worst_s < fuzz_specs.LIMIT_S or again(outcome.slowest) < fuzz_specs.LIMIT_S


def again(data: bytes) -> float:
    def once() -> float:
        began = time.thread_time()
        with suppress(parse.SpecError):
            parse.parse_spec(data)
        return time.thread_time() - began

    return min(once() for _ in range(5))


def known_fields_of(document: Any, text: str) -> tuple[Any, str]:
    definitions = fuzz_specs.SCHEMA["$defs"]
    known = definitions["train"]["properties"] | definitions["generate"]["properties"]
    return {name: document[name] for name in document if name in known} if isinstance(document, dict) else [], text


PLANTED = {
    "a rule across fields is forgotten": (parse, "_checks", lambda spec: []),
    "unknown fields are passed over": (parse, "parse_json", lambda data: known_fields_of(*strict.parse_json(data))),
    "a key may stand there twice": (strict, "Counter", lambda items: {}),
}


@pytest.mark.parametrize("bug", PLANTED)
def test_the_fuzzer_finds_planted_bugs(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(*PLANTED[bug])
    outcome = fuzz_specs.Outcome()
    chance = random.Random(3)
    for number in range(6_000):
        fuzz_specs.judge(fuzz_specs.mutated(chance), number, outcome)
        if outcome.wrongly_accepted:
            return
    pytest.fail("not found")


def test_the_fuzzer_finds_a_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parse, "_wrong_value", lambda *_: 1 / 0)
    outcome = fuzz_specs.fuzz(100, seed=1)
    assert outcome.crashes
    assert not outcome.passed


# A spec is data


RUN_TEXT = {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "yaml.load", "yaml.unsafe_load"}
LOAD_OBJECTS = {"pickle", "marshal", "shelve", "dill", "joblib", "cloudpickle"}
SWITCHES = {("shell", True), ("trust_remote_code", True), ("weights_only", False), ("use_safetensors", False)}


def what_runs_text(code: str) -> list[int]:
    """The lines at which code would run, or unpickle, what somebody wrote."""
    found = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            wrong = bool({name.partition(".")[0] for name in names} & LOAD_OBJECTS)
        elif isinstance(node, ast.Call):
            switched = {(k.arg, k.value.value) for k in node.keywords if isinstance(k.value, ast.Constant)}
            wrong = ast.unparse(node.func) in RUN_TEXT or any(each in SWITCHES for each in switched)
        else:
            continue
        if wrong:
            found.append(node.lineno)
    return found


def test_product_code_runs_no_text() -> None:
    rooms = [path for room in ("pages", "spool", "runner") for path in (ROOT / room).rglob("*.py")]
    assert len(rooms) > 100
    found = {str(path): what_runs_text(path.read_text()) for path in [ROOT / "streamlit_app.py", *rooms]}
    assert {path: lines for path, lines in found.items() if lines} == {}


@pytest.mark.parametrize(
    "line",
    [
        "x = eval(text)",
        "exec(text)",
        "subprocess.run(c, shell=True)",
        "import pickle",
        "from joblib import load",
        "yaml.load(f)",
        "torch.load(f, weights_only=False)",
        "AutoModel.from_pretrained(m, trust_remote_code=True)",
    ],
)
def test_the_search_finds_what_it_is_for(line: str) -> None:
    assert what_runs_text(f"if True:\n    {line}") == [2]


def test_every_text_and_list_of_a_spec_is_bounded() -> None:
    for node in json_schema()["$defs"].values():
        for name, field in node.get("properties", {}).items():
            for choice in [field, *field.get("anyOf", [])]:
                if choice.get("type") == "string" and not {"enum", "const", "pattern"} & set(choice):
                    assert choice.get("maxLength", 10**9) <= strict.MAX_TEXT, name
                if choice.get("type") == "array":
                    assert choice.get("maxItems", 10**9) <= (1000 if name == "prompts" else 100), name
                if choice.get("type") in ("integer", "number") and "const" not in choice:
                    assert {"maximum", "exclusiveMaximum"} & set(choice), name


# Names of files


OUTSIDE = [
    "/etc/passwd", "../../../../../../etc/passwd", "README.md/../../../../../../etc/passwd", "/proc/self/environ",
    "/dev/zero", "/etc/../etc/passwd", "//etc/passwd", "~/.ssh/id_rsa", "file:///etc/passwd", "a\0b", "x" * 1024,
    "..", "%2e%2e/%2e%2e/etc/passwd", "..\\..\\etc\\passwd", "\uff0e\uff0e/etc/passwd", "/etc/passwd\0.jsonl",
    "http://evil.test/x.jsonl", "\\\\evil.test\\share\\x.jsonl", "hf:../../etc/passwd", "hf:a/b/c/d", "$(id)", "`id`",
]  # fmt: skip


@pytest.mark.parametrize("field", ["model", "dataset", "eval"])
def test_no_field_reaches_a_file_outside_the_allowed_folders(box: Box, field: str) -> None:
    for i, name in enumerate(OUTSIDE):
        more: dict[str, Any] = {"eval": {"dataset": name}} if field == "eval" else {field: name}
        box.drop(f"{i}.json", text(**more))
    box.wait()
    box.wait(61)
    assert box.accepted == []
    assert len(box.rejected) == len(OUTSIDE)
    assert set(box.rejected.values()) <= {
        *(
            "outside_roots",
            "bad_path",
            "dataset_missing",
            "model_missing",
            "bad_reference",
            "not_found",
            "bad_value",
            "not_readable",
        ),
    }


def test_a_link_inside_the_allowed_folders_that_leads_out_is_followed_to_where_it_leads(box: Box) -> None:
    link = box.home.datasets / "mine.jsonl"
    link.symlink_to("/etc/passwd")
    box.drop("x.json", text(dataset=str(link)))
    box.wait()
    assert box.rejected == {"x.json": "outside_roots"}


# The trace


def test_every_job_says_who_submitted_it_when_and_what(box: Box) -> None:
    data = text("traced")
    box.drop("by hand.json", data)
    box.wait()
    body = Tokens(box.home).body(State.CHECKING, box.accepted[0])
    assert body["uid"] == os.getuid()
    assert body["submitted_by"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", body["submitted_at"])
    assert body["spec_sha256"] == hashlib.sha256(data).hexdigest()
    assert body["dropped_name"] == "by hand.json"
    box.drop("bad.json", b"{}")
    box.wait()
    assert box.reason("bad.json")["uid"] == os.getuid()


def test_the_owner_of_a_hand_drop_is_the_files_owner(box: Box) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to give a file to another account")
    os.chown(box.drop("theirs.json"), 65534, 65534)
    box.wait()
    body = Tokens(box.home).body(State.CHECKING, box.accepted[0])
    assert body["uid"] == 65534
    assert json.loads((box.home.run(box.accepted[0].job_id)).spec_orig.read_bytes())["name"] == "ok"


def test_the_committed_schema_is_what_the_fuzzer_judges_by() -> None:
    assert json.loads(Path(ROOT / "docs" / "job-spec.schema.json").read_text()) == fuzz_specs.SCHEMA
