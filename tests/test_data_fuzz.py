"""Fuzzing of every reader: damaged and made-up files never crash or hang one, and no row is lost without a word.

The long run: FUZZ_CASES=100000 .venv/bin/pytest tests/test_data_fuzz.py (bench/results has what it showed).
"""

import csv
import gzip
import io
import json
import os
import time
import zipfile
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spool.data.judging.examples import to_example
from spool.data.judging.formats import recognise
from spool.data.judging.rejects import rejects
from spool.data.judging.scan import scan
from spool.data.reading.limits import Limits
from spool.data.reading.read import Reading
from spool.data.reading.table import Problem, Record
from spool.protocol.errors import DataError

CASES = int(os.environ.get("FUZZ_CASES", "2400"))
KINDS = ("csv", "tsv", "json", "columns", "jsonl", "txt", "parquet", "gzip", "zip")
SECONDS = 5.0
PARQUET_SHARE = 200
"""Each case of Parquet starts four processes: a damaged file can abort the library, and did so here."""
LIMITS = Limits(max_row_mb=0.05, max_unpacked_gb=0.005, max_columns=50, max_files=20, max_whole_mb=1)

WORD = st.text(st.sampled_from("ab ,;|\t\"'\n\r\\{}[]:é€😀\u2028\x00\x85\x1f<>&=-1"), max_size=12)
VALUE: Any = st.recursive(
    st.one_of(WORD, st.integers(), st.floats(), st.booleans(), st.none()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(WORD, inner, max_size=3)),
    max_leaves=5,
)
TURN = st.fixed_dictionaries(
    {},
    optional={
        "role": st.sampled_from(["user", "assistant", "system", "tool", "x"]),
        "content": VALUE,
        "from": WORD,
        "value": WORD,
    },
)
ROW = st.one_of(
    st.fixed_dictionaries({"prompt": WORD, "completion": WORD}),
    st.fixed_dictionaries({"prompt": VALUE, "completion": VALUE}),
    st.fixed_dictionaries({"messages": st.lists(TURN, max_size=4)}),
    st.fixed_dictionaries({"text": WORD, "label": VALUE}),
    st.fixed_dictionaries({"prompt": VALUE, "chosen": VALUE, "rejected": VALUE}),
    st.dictionaries(WORD, VALUE, max_size=4),
)
ROWS = st.lists(ROW, min_size=1, max_size=6)
FLAT = st.lists(st.fixed_dictionaries({"prompt": WORD, "completion": WORD}), min_size=1, max_size=6)


def lines(rows: list[Any]) -> bytes:
    return "\n".join(json.dumps(row, ensure_ascii=False) for row in rows).encode("utf-8", "surrogatepass")


def table(rows: list[dict[str, str]], delimiter: str) -> bytes:
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, ["prompt", "completion"], delimiter=delimiter, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().encode("utf-8", "surrogatepass")


def parquet(rows: list[dict[str, str]]) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), out)
    return out.getvalue()


def archive(data: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a/rows.jsonl", data)
        file.writestr("b/more.csv", "prompt,completion\nx,y\n")
    return out.getvalue()


CONTENTS = {
    "csv": FLAT.map(lambda rows: table(rows, ",")),
    "tsv": FLAT.map(lambda rows: table(rows, "\t")),
    "json": ROWS.map(lambda rows: json.dumps(rows).encode()),
    "columns": FLAT.map(lambda rows: json.dumps({name: [row[name] for row in rows] for name in rows[0]}).encode()),
    "jsonl": ROWS.map(lines),
    "txt": st.lists(WORD).map(lambda words: "\n".join(words).encode("utf-8", "surrogatepass")),
    "parquet": FLAT.map(parquet),
    "gzip": ROWS.map(lambda rows: gzip.compress(lines(rows))),
    "zip": ROWS.map(lambda rows: archive(lines(rows))),
}
ENDINGS = {"columns": ".json", "gzip": ".jsonl.gz", "zip": ".zip"}
MARKS = [b'"', b"\n", b"{", b"]", b",", b"\\", b"\xff\xfe", b"\x00"]
DAMAGE = st.lists(
    st.tuples(
        st.sampled_from(["cut", "drop", "insert", "double", "flip", "recode"]),
        st.floats(0, 1),
        st.one_of(
            st.binary(min_size=1, max_size=4),
            st.sampled_from([b'"', b"\n", b"{", b"]", b",", b"\\", b"\xff\xfe", b"\x00"]),
        ),
    ),
    max_size=3,
)


def damaged(data: bytes, damage: list[tuple[str, float, bytes]]) -> bytes:
    for how, where, what in damage:
        place = int(where * len(data))
        if how == "cut":
            data = data[:place]
        elif how == "drop":
            data = data[:place] + data[place + len(what) :]
        elif how == "insert":
            data = data[:place] + what + data[place:]
        elif how == "double":
            data = data[:place] + data[max(0, place - 20) :]
        elif how == "flip" and data:
            place = min(place, len(data) - 1)
            data = data[:place] + bytes([data[place] ^ what[0]]) + data[place + 1 :]
        elif how == "recode":
            data = data.decode("utf-8", "ignore").encode(["utf-16", "cp1252", "utf-8-sig"][what[0] % 3], "ignore")
    return data


@pytest.mark.parametrize("kind", KINDS)
def test_no_bytes_crash_a_reader_and_no_row_is_lost(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"rows{ENDINGS.get(kind, f'.{kind}')}"

    cases = max(1, CASES // (PARQUET_SHARE if kind == "parquet" else len(KINDS) - 1))

    @settings(max_examples=cases, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(CONTENTS[kind], DAMAGE)
    def go(content: bytes, damage: list[tuple[str, float, bytes]]) -> None:
        path.write_bytes(damaged(content, damage))
        began = time.process_time()
        judge(path, kind)
        assert time.process_time() - began < SECONDS

    go()


def judge(path: Path, kind: str) -> None:
    """Reads a file as a check does, and holds the outcome to what must be true of every file."""
    try:
        found = scan(path, limits=LIMITS)
    except DataError as error:
        if not (error.message and error.hint and (error.message + error.hint).encode()):
            raise
        return
    items = list(Reading(path, limits=LIMITS))
    records = [item for item in items if isinstance(item, Record)]
    dropped = [item for item in items if isinstance(item, Problem) and item.action == "dropped"]
    assert found.tally.rows == len(records) + len(dropped), "both readings see the same rows"
    assert found.tally.rows == found.usable + found.tally.findings.rows_dropped, "rows in = usable + dropped"
    json.dumps(found.tally.findings.to_json()).encode()
    layout = recognise(Reading(path, limits=LIMITS).sample(), found.layout.format)
    refused = sum(isinstance(to_example(record, layout), Problem) for record in records)
    assert found.usable == len(records) - refused
    written = [orjson.loads(line) for line in rejects(path, found.layout.format, limits=LIMITS)]
    assert len(written) == len(dropped) + refused, "each row that was dropped can be corrected"
    data = path.read_bytes()
    if (
        kind in ("jsonl", "txt")
        and found.container == kind
        and found.encoding.startswith("utf-8")
        and b"\r" not in data
    ):
        text = data.decode("utf-8", "surrogateescape").removeprefix("\ufeff")
        if "paragraph" not in found.note:
            assert found.tally.rows == sum(bool(line.strip()) for line in text.split("\n")), "one row a line"
