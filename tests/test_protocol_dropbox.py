"""The doors into the runner, used while none is alive."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from test_protocol_jobs import SPEC, accept, stage

from spool.protocol import dropbox, jobs
from spool.protocol.errors import FinetunerError, NotFound
from spool.protocol.home import Home, State
from spool.protocol.states import Tokens
from spool.protocol.ulid import is_ulid, mint


def test_submit_makes_the_home_and_drops_the_bytes_untouched(tmp_path: Path) -> None:
    home = Home(tmp_path / "fresh")
    data = b'{"schema":1,  "model": "x"}\n\n'
    job_id = dropbox.submit(home, data)
    assert is_ulid(job_id)
    assert os.listdir(home.incoming) == [f"{job_id}.json"]
    assert (home.incoming / f"{job_id}.json").read_bytes() == data


def test_submitting_twice_with_one_id_is_one_job(home: Home) -> None:
    job_id = dropbox.submit(home, SPEC, mint())
    assert dropbox.submit(home, {**SPEC, "name": "other"}, job_id) == job_id
    assert json.loads((home.incoming / f"{job_id}.json").read_bytes()) == SPEC
    taken = accept(home, State.DONE)
    assert dropbox.submit(home, SPEC, taken) == taken
    assert len(os.listdir(home.incoming)) == 1


def test_submitted_knows_the_job_of_a_submission_id(home: Home) -> None:
    assert dropbox.submitted(home, "../../etc/passwd") is None
    home.submission("mine").write_text("01M81ZAFFVD06P58V95ESN865K\n")
    assert dropbox.submitted(home, "mine") == "01M81ZAFFVD06P58V95ESN865K"


ALLOWED = {
    "checking": {"cancel", "hold", "top", "up", "down", "priority"},
    "queued": {"cancel", "hold", "top", "up", "down", "priority"},
    "running": {"cancel"},
    "held": {"cancel", "release", "priority"},
    "incoming": {"cancel", "hold", "top", "up", "down", "priority"},
}


@pytest.mark.parametrize("verb", list(dropbox.VERBS))
def test_orders_are_empty_files_and_only_where_something_can_come_of_them(home: Home, verb: str) -> None:
    level = 3 if verb == "priority" else None
    for state, job_id in stage(home).items():
        path = home.control / f"{verb}{level or ''}-{job_id}"
        if verb in ALLOWED.get(state, set()):
            dropbox.control(home, verb, job_id, level)
            assert path.read_bytes() == b""
        else:
            with pytest.raises(FinetunerError) as caught:
                dropbox.control(home, verb, job_id, level)
            assert caught.value.code == ("wrong_state" if state in ALLOWED else "already_ended")
            assert job_id in caught.value.message
            assert not path.exists()


NOBODYS = "01KAAAAAAAAAAAAAAAAAAAAAAA"
"""Reads like an id, and is none."""


@pytest.mark.parametrize("name", ["x", "../../../tmp/x", "", NOBODYS, f"cancel-{NOBODYS}"])
def test_no_order_for_what_is_no_job(home: Home, name: str) -> None:
    for verb in dropbox.VERBS:
        with pytest.raises(NotFound):
            dropbox.control(home, verb, name, 3 if verb == "priority" else None)
    with pytest.raises(NotFound):
        dropbox.retry(home, name)
    assert os.listdir(home.control) == []


@pytest.mark.parametrize(("verb", "level"), [("priority", None), ("priority", 10), ("priority", -1), ("top", 3)])
def test_a_priority_is_from_0_to_9_and_only_asked_for_where_it_is_meant(home: Home, verb: str, level: Any) -> None:
    job_id = accept(home, State.QUEUED)
    with pytest.raises(FinetunerError, match="no priority"):
        dropbox.control(home, verb, job_id, level)
    assert os.listdir(home.control) == []


def test_what_has_been_asked_is_listed_in_the_order_of_asking(home: Home) -> None:
    first, second = accept(home, State.QUEUED), accept(home, State.QUEUED)
    dropbox.control(home, "top", second)
    dropbox.control(home, "priority", first, 0)
    dropbox.queue(home, "hold")
    dropbox.control(home, "hold", first)
    (home.control / "note to self").touch()
    for age, name in enumerate([f"hold-{first}", "hold", f"priority0-{first}", f"top-{second}", "note to self"]):
        os.utime(home.control / name, (1000 - age,) * 2)
    assert dropbox.orders(home) == [
        ("note to self", "note to self", "", None),
        (f"top-{second}", "top", second, None),
        (f"priority0-{first}", "priority", first, 0),
        ("hold", "hold", "", None),
        (f"hold-{first}", "hold", first, None),
    ]
    assert dropbox.orders(Home(home.root / "nothing")) == []


def test_retry_drops_the_spec_as_it_was_dropped(home: Home) -> None:
    ids = stage(home)
    for state in ("done", "failed", "cancelled"):
        spec = {"$schema": "for an editor", **SPEC, "submission_id": "once", "name": "ü"}
        home.run(ids[state]).spec_orig.write_bytes(b"\xef\xbb\xbf" + json.dumps(spec).encode())  # Windows' mark
        fresh = dropbox.retry(home, ids[state])
        assert fresh not in ids.values()
        dropped = json.loads((home.incoming / f"{fresh}.json").read_bytes())
        assert dropped == {**SPEC, "name": "ü", "retry_of": ids[state]}
        assert jobs.get_job(home, fresh).name == "ü"


def test_what_cannot_be_retried(home: Home) -> None:
    ids = stage(home)
    for state in ("checking", "queued", "running", "held", "incoming"):
        with pytest.raises(FinetunerError) as caught:
            dropbox.retry(home, ids[state])
        assert caught.value.code == "not_ended"
    with pytest.raises(FinetunerError) as caught:
        dropbox.retry(home, ids["rejected"])
    assert caught.value.code == "rejected"
    home.run(ids["done"]).spec_orig.unlink()
    with pytest.raises(FinetunerError) as caught:
        dropbox.retry(home, ids["done"])
    assert caught.value.code == "lost"


def test_cancel_of_a_job_that_ends_meanwhile_is_an_error_with_words(home: Home) -> None:
    job_id = accept(home, State.QUEUED)
    state, token = Tokens(home).find(job_id) or (None, None)
    assert token is not None
    assert state is State.QUEUED
    Tokens(home).move(token, State.QUEUED, State.CANCELLED)
    with pytest.raises(FinetunerError, match="has ended"):
        dropbox.cancel(home, job_id)
