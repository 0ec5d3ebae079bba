"""From the bytes of a drop to a spec: whatever they are, the answer is a spec or every problem at once."""

import json
import time
from typing import Any

import jsonschema
import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from spool.protocol.errors import Problem, SpecError
from spool.protocol.parse import MAX_BYTES, decode, parse_json, parse_spec, placed
from spool.protocol.schema import json_schema
from spool.protocol.spec import GenerateSpec, JobSpec, Spec
from spool.protocol.strict import MAX_TEXT, places

SMALLEST = {"schema": 1, "model": "gemma-3-270m", "dataset": "examples/support_tickets.jsonl"}
ASKED = {"schema": 1, "kind": "generate", "model": "gemma-3-270m", "prompts": ["Hello"]}
JOB = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
OTHER = "01BX5ZZKBKACTAV9WEVGEMMVRZ"


def spec(**fields: Any) -> bytes:
    return json.dumps({**SMALLEST, **fields}).encode()


def raw(field: str) -> bytes:
    """The smallest spec and one more field, written by hand: json.dumps cannot say what is wrong in it."""
    return json.dumps(SMALLEST).encode()[:-1] + b", " + field.encode() + b"}"


def problems(data: bytes) -> list[Problem]:
    with pytest.raises(SpecError) as caught:
        parse_spec(data)
    assert caught.value.problems
    orjson.dumps([problem.to_json() for problem in caught.value.problems])  # as it is written to reason.json
    return caught.value.problems


def judged(data: bytes) -> Spec | SpecError:
    try:
        return parse_spec(data)
    except SpecError as error:
        orjson.dumps(error.to_json() | {"errors": [problem.to_json() for problem in error.problems]})
        return error


def test_the_smallest_spec_gets_its_defaults() -> None:
    found = parse_spec(spec())
    assert found.train.epochs == 3
    assert found.lora.rank == found.lora.alpha == 16
    assert found.export == ["adapter"]
    assert found.to_json()["schema"] == 1


def test_what_was_accepted_is_accepted_again() -> None:
    accepted = parse_spec(spec(lora={"rank": 8}, train={"max_steps": 30}, name="Anna's"))
    assert parse_spec(json.dumps(accepted.to_json()).encode()) == accepted
    unmeasured = parse_spec(spec(data={"eval_fraction": 0}))
    assert unmeasured.limits.early_stopping is None
    assert parse_spec(json.dumps(unmeasured.to_json()).encode()) == unmeasured


BAD_FILES = [
    ("empty", b"", "empty", "is empty"),
    ("only space", b" \n\t ", "empty", "is empty"),
    ("NUL-filled", bytes(4096), "not_text", "NUL bytes"),
    ("NUL inside", spec()[:-1] + b"\0}", "not_text", "NUL bytes"),
    ("UTF-16 as Windows saves it", spec().decode().encode("utf-16"), "not_utf8", "UTF-16"),
    ("UTF-16, big end first", b"\xfe\xff" + spec().decode().encode("utf-16-be"), "not_utf8", "UTF-16"),
    ("UTF-16 without a mark", spec().decode().encode("utf-16-le"), "not_utf8", "UTF-16"),
    ("UTF-16 without a mark, big end", spec().decode().encode("utf-16-be"), "not_utf8", "UTF-16"),
    ("Latin-1", '{"name": "Müller"}'.encode("latin-1"), "not_utf8", "Latin-1"),
    ("too large", b'{"name": "' + b"x" * MAX_BYTES + b'"}', "too_large", f"{MAX_BYTES:,}"),
    ("5 GB, as far as it is read", b"x" * (MAX_BYTES + 1), "too_large", "at most"),
    ("a million brackets", b"[" * 250_000, "too_deep", "32"),
    ("deep objects", b'{"a":' * 33 + b"1" + b"}" * 33, "too_deep", "32"),
    ("the same field twice", raw('"name": "a", "name": "b"'), "duplicate_key", "'name'"),
    ("twice further down", raw('"lora": {"rank": 8, "rank": 16}'), "duplicate_key", "'rank'"),
    ("twice, escaped", raw(r'"name": "a", "n\u0061me": "b"'), "duplicate_key", "'name'"),
    ("NaN", raw('"lora": {"alpha": NaN}'), "bad_number", "NaN"),
    ("Infinity", raw('"lora": {"alpha": -Infinity}'), "bad_number", "-Infinity"),
    ("1e999", raw('"lora": {"alpha": 1e999}'), "bad_number", "1e999"),
    ("5,000 digits", raw('"train": {"max_steps": ' + "9" * 5000 + "}"), "bad_number", "too large"),
    ("half a character", raw(r'"name": "\ud800"'), "bad_text", "surrogate"),
    ("half a character in a key", raw(r'"\ud800": 1'), "bad_text", "surrogate"),
    ("many fields", json.dumps(dict.fromkeys(map(str, range(1001)))).encode(), "too_many_keys", "1,000"),
    ("a list", b"[1, 2]", "not_an_object", "object"),
    ("a word", b'"hello"', "not_an_object", "object"),
    ("null", b"null", "not_an_object", "object"),
    ("newer version", raw("").replace(b": 1", b": 3").replace(b", }", b"}"), "newer_version", "version 3"),
    ("trailing text", spec() + b" x", "bad_json", "more follows"),
    ("two jobs", spec() + b"\n" + spec(), "bad_json", "more follows"),
    ("single quotes", b"{'schema': 1}", "bad_json", "double quotes"),
    ("curly quotes", "{\u201cschema\u201d: 1}".encode(), "bad_json", "double quotes"),
    ("trailing comma", b'{"schema": 1,}', "bad_json", "a comma stands before the closing }"),
    ("trailing comma in a list", b'{"export": ["adapter", ]}', "bad_json", "a comma stands before the closing ]"),
    ("comment", b"// mine\n" + spec(), "bad_json", "comment"),
    ("comment behind a value", b'{"schema": 1, # mine\n"model": "x"}', "bad_json", "comment"),
    ("Python", b'{"name": None}', "bad_json", "None is Python"),
    ("YAML", b"schema: 1\nmodel: x", "bad_json", "not JSON"),
    ("missing comma", b'{"schema": 1 "model": "x"}', "bad_json", "','"),
]


@pytest.mark.parametrize(("data", "code", "words"), [row[1:] for row in BAD_FILES], ids=[row[0] for row in BAD_FILES])
def test_bad_files_have_their_own_words(data: bytes, code: str, words: str) -> None:
    (problem,) = problems(data)
    assert problem.code == code
    assert words in problem.message
    assert "\n" not in str(problem)


@pytest.mark.parametrize(
    ("data", "place"),
    [
        (b'{\n "schema": 1,\n "model": "x",\n}', (3, 14)),
        (b'{\n  // mine\n "schema": 1}', (2, 3)),
        (b'{"name": "NaN \\" NaN",\n "priority": NaN}', (2, 14)),
        (b'{"schema": 1}\n{"schema": 1}', (2, 1)),
    ],
)
def test_a_slip_is_found_where_it_stands(data: bytes, place: tuple[int, int]) -> None:
    (problem,) = problems(data)
    assert (problem.line, problem.column) == place
    assert problem.hint


def test_what_was_meant_by_a_value_of_another_type() -> None:
    (problem,) = problems(spec(train={"learning_rate": [1e-4, 2e-4]}))
    assert problem.hint.endswith("A job has one value: for several drop several files.")
    (problem,) = problems(spec(train={"learning_rate": "1e-4"}))
    assert problem.hint.endswith("Write it without quotes.")
    (problem,) = problems(spec(schema="1"))
    assert problem.hint == "Expected 1. Write it without quotes."
    (problem,) = problems(spec(export="merged"))
    assert "quotes" not in problem.hint


def test_the_smallest_spec_of_the_hint_is_one() -> None:
    (problem,) = problems(b"[]")
    assert parse_spec(problem.hint.removeprefix("The smallest: ").encode()).model == "gemma-3-270m"


def test_what_an_editor_is_told_is_passed_over() -> None:
    told = {"$schema": "../docs/job-spec.schema.json"}
    assert parse_spec(spec(**told)) == parse_spec(spec())
    jsonschema.validate({**SMALLEST, **told}, json_schema())
    (problem,) = problems(spec(**{"$schema": 1}))
    assert problem.pointer == "/$schema"


def test_a_byte_order_mark_is_passed_over() -> None:
    assert parse_spec(b"\xef\xbb\xbf" + spec()) == parse_spec(spec())


def test_an_unfinished_copy_is_called_so_wherever_it_was_cut() -> None:
    document = {**SMALLEST, "name": 'a "b" é \\ \U0001f600', "lora": {"rslora": True, "dropout": 0.5}}
    for data in (json.dumps(document, indent=2).encode(), json.dumps(document, ensure_ascii=False).encode()):
        for length in range(1, len(data)):
            (problem,) = problems(data[:length])
            assert problem.code == "bad_json"
            assert "ends early" in problem.message, (data[:length], problem)
            assert problem.line is not None
            assert problem.column is not None


BAD_VALUES = [
    ({"name": 5}, "/name", "bad_value", "text"),
    ({"model": ""}, "/model", "bad_value", ""),
    ({"schema": 0}, "/schema", "bad_value", "1"),
    ({"schema": True}, "/schema", "bad_value", "1"),
    ({"schema": "1"}, "/schema", "bad_value", "1"),
    ({"schema": 2.5}, "/schema", "newer_version", "Update"),
    ({"priority": 10}, "/priority", "bad_value", "from 0 to 9"),
    ({"priority": "5"}, "/priority", "bad_value", "whole number"),
    ({"priority": 5.5}, "/priority", "bad_value", "whole number"),
    ({"lora": {"rank": 10**30}}, "/lora/rank", "bad_value", "512"),
    ({"lora": {"rank": True}}, "/lora/rank", "bad_value", "whole number"),
    ({"lora": 5}, "/lora", "bad_value", "object"),
    ({"lora": None}, "/lora", "bad_value", "object"),
    ({"train": {"learning_rate": "fast"}}, "/train/learning_rate", "bad_value", '"auto" or a number'),
    ({"train": {"scheduler": "cosin"}}, "/train/scheduler", "bad_value", '"cosine"'),
    ({"train": {"batch_size": 3}}, "/train/batch_size", "bad_value", "divisor"),
    ({"train": {"gradient_accumulation": 5}}, "/train/gradient_accumulation", "bad_value", "divisor"),
    ({"precision": "8bit", "train": {"packing": True}}, "/precision", "bad_value", "leave packing out"),
    ({"train": {"packing": 0}}, "/train/packing", "bad_value", '"auto" or true or false'),
    ({"train": {"packing": -0.0}}, "/train/packing", "bad_value", '"auto" or true or false'),
    ({"data": {"mapping": {"prompt": 1}}}, "/data/mapping/prompt", "bad_value", "text"),
    ({"data": {"mapping": {f"k{i}": "x" for i in range(17)}}}, "/data/mapping", "bad_value", ""),
    ({"export": ["adapter", "mergd"]}, "/export/1", "bad_value", "'merged'"),
    ({"export": ["gguf:q4_k"]}, "/export/0", "bad_value", "'gguf:q4_k_m'"),
    ({"export": ["Q8"]}, "/export/0", "bad_value", "'gguf:q8_0'"),
    ({"export": ["onnxruntime"]}, "/export/0", "bad_value", "'onnx'"),
    ({"export": ["tflite"]}, "/export/0", "bad_value", "Known: adapter, merged"),
    ({"export": []}, "/export", "bad_value", "list"),
    ({"export": ["adapter", "merged", "merged"]}, "/export", "bad_value", "Name each once"),
    ({"kind": "trian"}, "/kind", "bad_value", "'train'"),
    ({"kind": "xyz"}, "/kind", "bad_value", '"train", "generate"'),
    ({"kind": 3}, "/kind", "bad_value", '"train", "generate"'),
    ({"prompts": ["x"]}, "/prompts", "unknown_field", '"kind": "generate"'),
    ({"retry_of": "latest"}, "/retry_of", "bad_value", "job id"),
    ({"limits": {"early_stopping": {"patience": 0}}}, "/limits/early_stopping/patience", "bad_value", "100"),
    ({"limits": {"early_stopping": {}}, "data": {"eval_fraction": 0}}, "/limits/early_stopping", "bad_value", ""),
    ({"lerning_rate": 1}, "/lerning_rate", "unknown_field", "'train.learning_rate'"),
    ({"learning_rate": 1}, "/learning_rate", "unknown_field", "'train.learning_rate'"),
    ({"modle": "x"}, "/modle", "unknown_field", "'model'"),
    ({"schema_version": 1}, "/schema_version", "unknown_field", "'schema'"),
    ({"lora": {"rnk": 8}}, "/lora/rnk", "unknown_field", "'rank'"),
    ({"lora": {"epochs": 8}}, "/lora/epochs", "unknown_field", "'train.epochs'"),
    ({"lora": {"zzz": 8}}, "/lora/zzz", "unknown_field", "rslora"),
    ({"a/b~c": 8}, "/a~1b~0c", "unknown_field", ""),
    ({"x" * 8000: 8}, "/" + "x" * 8000, "unknown_field", ""),
    ({"x" * 9000: 8}, "", "too_long_text", ""),
    ({"name": "ü" * (MAX_TEXT + 1)}, "/name", "too_long_text", ""),
    ({"name": "ü" * MAX_TEXT}, "/name", "bad_value", "120"),
]


@pytest.mark.parametrize(("fields", "pointer", "code", "hint"), BAD_VALUES)
def test_bad_values(fields: dict[str, Any], pointer: str, code: str, hint: str) -> None:
    data = spec(**fields)
    (problem,) = problems(data)
    assert (problem.pointer, problem.code) == (pointer, code)
    assert hint in problem.hint
    assert len(problem.message) < 200
    assert {pointer: (problem.line, problem.column)} == places(data.decode(), [pointer])


BAD_GENERATE = [
    ({"prompts": []}, "/prompts", "bad_value", "list"),
    ({"prompts": ["x", ""]}, "/prompts/1", "bad_value", "text"),
    ({"prompts": ["x"] * 1001}, "/prompts", "bad_value", "at most 1000"),
    ({"prompts": None}, "/prompts", "missing", "interactive"),
    ({"interactive": True}, "/prompts", "bad_value", "Give one"),
    ({"dataset": "a.jsonl"}, "/prompts", "bad_value", "Give one"),
    ({"model": None}, "/job", "missing", "a finished training, or a base"),
    ({"job": JOB}, "/job", "bad_value", "Give one"),
    ({"job": "latest"}, "/job", "bad_value", "job id"),
    ({"base": False}, "/base", "bad_value", "Leave it out"),
    ({"also": [JOB]}, "/also", "bad_value", "in job"),
    ({"model": None, "job": JOB, "also": [JOB]}, "/also", "bad_value", "once"),
    ({"model": None, "job": JOB, "also": [OTHER] * 5}, "/also", "bad_value", "at most 4"),
    ({"temperature": 2.1}, "/temperature", "bad_value", "from 0 to 2"),
    ({"max_new_tokens": 4097}, "/max_new_tokens", "bad_value", "4,096"),
    ({"lora": {"rank": 8}}, "/lora", "unknown_field", '"kind": "train"'),
    ({"promts": ["x"]}, "/promts", "unknown_field", "'prompts'"),
    ({"kind": "generat"}, "/kind", "bad_value", "'generate'"),
]


@pytest.mark.parametrize(("fields", "pointer", "code", "hint"), BAD_GENERATE)
def test_bad_values_of_generate(fields: dict[str, Any], pointer: str, code: str, hint: str) -> None:
    (problem,) = problems(json.dumps({**ASKED, **fields}).encode())
    assert (problem.pointer, problem.code) == (pointer, code)
    assert hint in problem.hint
    assert problem.line == 1


def test_who_answers_stands_in_order() -> None:
    spec = parse_spec(json.dumps({**ASKED, "model": None, "job": JOB, "also": [OTHER]}).encode())
    assert isinstance(spec, GenerateSpec)
    assert spec.who == ["base", JOB, OTHER]
    assert spec.model_copy(update={"base": False}).who == [JOB, OTHER]


@pytest.mark.parametrize("missing", ["schema", "model", "dataset"])
def test_missing_fields(missing: str) -> None:
    (problem,) = problems(json.dumps({k: v for k, v in SMALLEST.items() if k != missing}).encode())
    assert (problem.pointer, problem.code) == (f"/{missing}", "missing")
    assert (problem.line, problem.column) == (1, 1)


def test_all_problems_at_once_each_with_its_place() -> None:
    data = b"""{
  "schema": 1,
  "model": 5,
  "lora": {"rank": 0,
           "rnk": 8},
  "train": {
    "epochs": -1
  }
}"""
    found = {problem.pointer: problem for problem in problems(data)}
    places = {pointer: (problem.line, problem.column) for pointer, problem in found.items()}
    assert places == {
        "/dataset": (1, 1),
        "/model": (3, 3),
        "/lora/rank": (4, 12),
        "/lora/rnk": (5, 12),
        "/train/epochs": (7, 5),
    }
    with pytest.raises(SpecError, match=r"\(and 4 more\)"):
        parse_spec(data)


def test_very_many_problems_are_counted_not_listed() -> None:
    found = problems(json.dumps({**SMALLEST, **{f"epochs{i}": i for i in range(500)}}).encode())
    assert len(found) == 101
    assert found[-1].message == "and 400 more problems."


@pytest.mark.alone
@pytest.mark.parametrize(
    "data",
    [
        b'{"a": "' + b'\\"' * 130_000,
        b'{"a": ' + b'"' * 260_000,
        b"{" + b'"a":1,' * 43_000 + b'"b":1}',
        json.dumps({"k" * 240 + str(i): i for i in range(999)}).encode(),
        b"[" + b"1," * 130_000,
        b"9" * 260_000,
        b"\\" * 260_000,
        b"[" + b"{}," * 85_000 + b"{}]",
        b"[" + (b"[" * 31 + b"]" * 31 + b",") * 4_000 + b"[]]",
        b'{"x":[' + b"1," * 9_000 + b"1]," + b",".join(b'"q%d":1' % i for i in range(500)) + b"}",
        b"\n" * 250_000 + json.dumps({f"epoch{i}": i for i in range(200)}).encode(),
        json.dumps({**SMALLEST, "export": [[0]] * 4_900}).encode(),
    ],
    ids=[
        *("escaped quotes", "quotes", "twice, often", "long names", "long list", "long number", "backslashes"),
        *("many objects", "deep lists", "problems far down", "many lines", "many wrong values"),
    ],
)
def test_hostile_files_cost_little(data: bytes) -> None:
    start = time.process_time()
    problems(data)
    assert time.process_time() - start < 0.1  # about 15 ms; the promise is 50 ms on an idle machine


TEXTS = st.text(max_size=20)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS | st.just("auto"),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)


def names(schema: dict[str, Any]) -> list[str]:
    return sorted({name for node in [schema, *schema["$defs"].values()] for name in node["properties"]})


SCHEMA = json_schema()
FIELDS = st.sampled_from(names(SCHEMA))
NEARLY = st.dictionaries(FIELDS, VALUES | st.dictionaries(FIELDS, VALUES, max_size=4), max_size=6)


@settings(deadline=None)
@given(st.binary(max_size=400))
@example(b'"\\')
@example(b"\xef\xbb\xbf")
def test_any_bytes_give_a_spec_or_a_spec_error(data: bytes) -> None:
    judged(data)


@settings(deadline=None, max_examples=200)
@given(VALUES | NEARLY | NEARLY.map(lambda fields: {**SMALLEST, **fields}) | NEARLY.map(lambda f: {**ASKED, **f}))
def test_any_json_gives_a_spec_or_a_spec_error(document: Any) -> None:
    found = judged(json.dumps(document).encode())
    if not isinstance(found, SpecError):
        assert parse_spec(json.dumps(found.to_json()).encode()) == found
        return
    assert all(str(problem) for problem in found.problems)
    pointers = [problem.pointer for problem in found.problems]
    assert len(set(pointers)) == len(pointers)


@settings(deadline=None, max_examples=300)
@given(st.sampled_from([SMALLEST, ASKED]), NEARLY)
def test_the_schema_says_what_the_parser_says(smallest: dict[str, Any], fields: dict[str, Any]) -> None:
    """Both refuse the same, but for rules across fields and 16.0 as a whole number."""
    import jsonschema

    validator = jsonschema.Draft202012Validator(SCHEMA)
    data = json.dumps({**smallest, **fields}, allow_nan=True).encode()
    if b"NaN" in data or b"Infinity" in data:
        return
    valid = validator.is_valid(json.loads(data))
    found = judged(data)
    if not isinstance(found, SpecError):
        assert valid
        return
    first = found.problems[0]
    across = first.pointer.endswith(("early_stopping", "batch_size", "gradient_accumulation")) or (
        first.pointer in ("/job", "/prompts", "/base", "/also")
    )
    assert not valid or across or first.code in ("bad_text", "bad_number") or "a whole number" in first.hint


def pointers(document: Any, at: str = "") -> list[tuple[str, Any]]:
    found = [(at, document)]
    items = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    for key, value in items:
        found += pointers(value, f"{at}/{str(key).replace('~', '~0').replace('/', '~1')}")
    return found


@settings(deadline=None)
@given(st.dictionaries(TEXTS, VALUES, max_size=4), st.sampled_from([None, 0, 2]))
def test_every_place_is_found(document: Any, indent: int | None) -> None:
    text = json.dumps(document, indent=indent, ensure_ascii=False)
    expected = pointers(document)
    found_places = places(text, [pointer for pointer, _ in expected])
    assert len(found_places) == len(expected)
    for pointer, value in expected:
        assert places(text, [pointer]) == {pointer: found_places[pointer]}
        line, column = found_places[pointer]
        rest = "\n".join(text.split("\n")[line - 1 :])[column - 1 :]
        if not pointer:
            assert rest == text
            continue
        found, end = json.JSONDecoder().raw_decode(rest)
        if rest[end:].lstrip().startswith(":"):  # an object's field is shown at its name
            assert str(found) == pointer.rpartition("/")[2].replace("~1", "/").replace("~0", "~")
        else:
            assert json.dumps(found) == json.dumps(value)


def test_places_of_what_is_not_there() -> None:
    assert places('{"a": [1]}', ["/b", "/a/1", "/a/0/c"]) == {}
    assert places("{}", ["/a"]) == {}
    kept = Problem("x", "y", pointer="/b")
    assert placed([kept], '{"a": 1}')[0] is kept


@pytest.mark.parametrize("data", [b"\xff", b"ok \xc3", "ä".encode("latin-1"), b"\xed\xa0\x80"])
def test_decode_names_line_and_column(data: bytes) -> None:
    with pytest.raises(SpecError) as caught:
        decode("é\n".encode() + data)
    (problem,) = caught.value.problems
    assert problem.line == 2
    assert problem.column == data.index(next(byte for byte in data if byte > 127)) + 1


@given(st.text(alphabet='[]{}",:\\\\ab1', max_size=60))
@settings(deadline=None, max_examples=300)
def test_the_depth_is_judged_before_the_parser_sees_it(inner: str) -> None:
    """Whatever stands in texts, 32 levels pass and 33 do not."""
    text = json.dumps(inner)
    assert parse_json(("[" * 32 + text + "]" * 32).encode())
    with pytest.raises(SpecError) as caught:
        parse_json(("[" * 33 + text + "]" * 33).encode())
    assert caught.value.code == "too_deep"


def test_parse_json_gives_the_text_too() -> None:
    assert parse_json(b'{"a": 1}') == ({"a": 1}, '{"a": 1}')


def test_every_field_has_words_for_people() -> None:
    schema = json_schema()
    for node in [schema, *schema["$defs"].values()]:
        for name, field in node["properties"].items():
            group = "$ref" in field
            assert group or field.get("description"), name
    assert JobSpec.model_fields["lora"].annotation is not None
