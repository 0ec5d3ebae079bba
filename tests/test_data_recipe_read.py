"""Recipes over files that are not read rightly by themselves: the step `read` says how, and is kept with the others."""

import json

import pytest
from test_data_recipe import lines

from spool.data.judging import rejects
from spool.data.keeping import diff, forget, keep, recipe, steps
from spool.data.reading.read import AS_FOUND, Dialect
from spool.protocol.errors import DataError
from spool.protocol.home import Home

TEXT = "".join(f"Größe {i}, wo?|Größe {i}, dort.\n" for i in range(12))
DIALECT = Dialect("windows-1252", "|", False)


@pytest.fixture
def odd(home: Home) -> keep.Stored:
    return keep.add(home, "odd", "odd.csv", TEXT.encode("cp1252"))


def rows(number: int) -> list[dict[str, str]]:
    return [{"column 1": f"Größe {i}, wo?", "column 2": f"Größe {i}, dort."} for i in range(number)]


def test_a_recipe_keeps_how_its_source_is_read_and_replays_it(home: Home, odd: keep.Stored) -> None:
    edit = {"step": "edit", "edits": [{"line": 2, "values": {"column 2": "Nein."}}]}
    made = recipe.derive(home, "odd", ["odd"], [*steps.reading(DIALECT), edit, {"step": "drop", "lines": [1]}])
    assert lines(made.path) == [{"column 1": "Größe 1, wo?", "column 2": "Nein."}, *rows(12)[2:]]
    assert made.recipe[0] == {"step": "read", "encoding": "windows-1252", "delimiter": "|", "header": False}
    data = made.path.read_bytes()
    forget.delete(home, made.reference)
    assert recipe.replay(home, made).path.read_bytes() == data
    found = diff.diff(home, odd.reference, made.reference)
    assert found.unchanged == 10, "the old one is read so too"


def test_what_is_read_as_found_needs_no_step() -> None:
    assert steps.reading(AS_FOUND) == []
    assert steps.reading(DIALECT)[0]["step"] == "read"
    assert steps.dialect_of(steps.reading(DIALECT)) == DIALECT
    assert steps.dialect_of([{"step": "dedupe"}]) == steps.dialect_of([]) == AS_FOUND
    assert steps.in_words(steps.reading(Dialect(delimiter="\t"))[0]) == "read with the delimiter '\\t'"


def test_splits_mixes_and_corrections_read_so_too(home: Home, odd: keep.Stored) -> None:
    roles = {"prompt": "column 1", "completion": "column 2"}
    train, held = recipe.split(home, "odd", eval_rows=3, mapping=roles, dialect=DIALECT)
    assert (train.rows, held.rows) == (9, 3)
    assert {row["column 1"][:5] for row in lines(held.path)} == {"Größe"}
    other = keep.add(home, "more", "more.jsonl", "\n".join(map(json.dumps, rows(4))).encode())
    mix = {"step": "mix", "weights": [1, 1], "mapping": roles}
    assert recipe.derive(home, "both", ["odd", other.reference], [*steps.reading(DIALECT), mix]).rows == 8
    keep.add(home, "bad", "bad.csv", (TEXT + "only one\n").encode("cp1252"))
    rejected = [json.loads(each) for each in rejects.rejects(keep.find(home, "bad").path, "auto", roles, DIALECT)]
    assert [each["line"] for each in rejected] == [13]
    corrected = home.root / "corrected.jsonl"
    corrected.write_text(json.dumps({**rejected[0], "row": {"column 1": "only", "column 2": "one"}}))
    made = recipe.add_rows(home, "bad", corrected, DIALECT)
    assert lines(made.path) == [*rows(12), {"column 1": "only", "column 2": "one"}]


def test_read_stands_first_and_never_alone(home: Home, odd: keep.Stored) -> None:
    read = steps.reading(DIALECT)
    for several in (read, [{"step": "dedupe"}, *read], [*read, *read, {"step": "dedupe"}]):
        with pytest.raises(DataError) as error:
            recipe.derive(home, "odd", ["odd"], several)
        assert error.value.code == "bad_recipe"
    with pytest.raises(DataError, match="klingon"):
        recipe.derive(home, "odd", ["odd"], [{"step": "read", "encoding": "klingon"}, {"step": "dedupe"}])
