"""The spec's own arithmetic, and the schema that is committed."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from spool.protocol.schema import json_schema
from spool.protocol.spec import JobSpec
from spool.protocol.training import Train, batches

ROOT = Path(__file__).resolve().parent.parent
SIZES = st.integers(1, 4096)


@given(SIZES, st.integers(1, 64))
def test_automatic_batches_make_the_effective_batch(effective: int, largest: int) -> None:
    size, accumulation = batches(Train(effective_batch=effective), largest)
    assert size * accumulation == effective
    assert size <= largest
    assert all(effective % bigger for bigger in range(size + 1, min(largest, effective) + 1))


@given(SIZES, SIZES)
def test_one_given_number_decides_the_other(effective: int, given_one: int) -> None:
    for train in (
        Train(effective_batch=effective, batch_size=given_one),
        Train(effective_batch=effective, gradient_accumulation=given_one),
    ):
        if effective % given_one:
            with pytest.raises(ValueError, match=f"{given_one} does not divide"):
                batches(train)
        else:
            size, accumulation = batches(train)
            assert size * accumulation == effective
            assert given_one == (size if train.batch_size == given_one else accumulation)


@given(SIZES, SIZES)
def test_both_given_set_it(size: int, accumulation: int) -> None:
    assert batches(Train(batch_size=size, gradient_accumulation=accumulation)) == (size, accumulation)


def test_the_schema_is_valid_and_takes_the_smallest_spec() -> None:
    import jsonschema

    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["$schema"].endswith("2020-12/schema")
    smallest = {"schema": 1, "model": "gemma-3-270m", "dataset": "examples/support_tickets.jsonl"}
    jsonschema.validate(smallest, schema)
    jsonschema.validate(JobSpec.model_validate(smallest).to_json(), schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**smallest, "modle": "x"}, schema)


def test_the_committed_schema_is_the_code_s() -> None:
    """Make it anew with: finetuner schema > docs/job-spec.schema.json"""
    command = [sys.executable, "-m", "spool.cli.main", "schema"]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout
    assert json.loads(printed) == json_schema()
    assert (ROOT / "docs" / "job-spec.schema.json").read_bytes() == printed


def test_the_spec_is_closed_and_strict() -> None:
    for wrong in ({"epochs": "3"}, {"epoch": 3}, {"seed": 1.5}, {"epochs": float("nan")}, {"warmup_ratio": 1.01}):
        with pytest.raises(ValidationError):
            Train.model_validate(wrong)
