"""Who submitted a job: the web app's word for who signed in counts, anybody else's does not."""

import json
import logging
import os
import pwd
from collections.abc import Callable, Iterator

import pytest
from drop_box import Box, text

from runner import recover, taking
from runner.orders import Orders
from runner.submitters import WEB_ACCOUNT, Submitters
from spool.health import cures
from spool.protocol import asks as asks_
from spool.protocol import dropbox, durable, jobs, metrics
from spool.protocol.home import Home, State
from spool.protocol.states import Tokens

ME = pwd.getpwuid(os.getuid()).pw_name
STRANGER = 65_001
assert os.getuid() != STRANGER


@pytest.mark.parametrize(
    ("claim", "believed"),
    [
        ("ada@example.org", True),
        ("ü@example.org", True),
        ("a" * 320, True),
        ("a" * 321, False),
        ("", False),
        (7, False),
    ],
)
def test_a_claim_is_believed_from_trusted_accounts_only(claim: object, believed: bool) -> None:
    spec = json.dumps({"submitted_by": claim}).encode()
    assert Submitters().who(os.getuid(), spec) == (claim if believed else ME, None)
    assert Submitters().who(STRANGER, spec) == (f"uid {STRANGER}", claim if believed else None)
    assert Submitters([]).who(os.getuid(), spec) == (ME, claim if believed else None)


@pytest.mark.parametrize("spec", [b"", b"[]", b"{", b"\xff", b'"submitted_by"', b"null"])
def test_what_is_no_spec_claims_nothing(spec: bytes) -> None:
    assert Submitters().who(os.getuid(), spec) == (ME, None)


def test_the_web_account_is_trusted_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def known(name: str) -> pwd.struct_passwd:
        if name != WEB_ACCOUNT:
            raise KeyError(name)
        return pwd.struct_passwd((name, "x", STRANGER, STRANGER, "", "/", ""))

    monkeypatch.setattr(pwd, "getpwnam", known)
    spec = json.dumps({"submitted_by": "ada@example.org"}).encode()
    assert Submitters().who(STRANGER, spec) == ("ada@example.org", None)
    assert Submitters(["other"]).who(STRANGER, spec)[1] == "ada@example.org"


def test_a_job_keeps_both_names(home: Home) -> None:
    box = Box(home)
    box.drop("a.json", text("a", submitted_by="ada@example.org"))
    box.drop("b.json", text("b"))
    box.drop("c.json", text("c", submitted_by="eve@example.org", rank=1))
    box.wait()
    found = {job.name: (job.submitted_by, job.account) for job in jobs.list_jobs(home)}
    assert found == {"a": ("ada@example.org", ME), "b": (ME, ME), "c.json": ("eve@example.org", ME)}
    accepted = {durable.read_json(home.run(t.job_id).spec)["submitted_by"] for t in box.accepted}
    assert accepted == {"ada@example.org", ME}


def test_a_claim_of_another_account_is_dropped_with_a_note(
    home: Home, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    really = taking.note_of
    monkeypatch.setattr(taking, "note_of", lambda h, i: {**really(h, i), "uid": STRANGER})
    box = Box(home)
    box.drop("a.json", text("a", submitted_by="ada@example.org"))
    with caplog.at_level(logging.WARNING, "runner"):
        box.wait()
    body = Tokens(home).body(State.CHECKING, box.accepted[0])
    stranger = f"uid {STRANGER}"
    assert (body["submitted_by"], body["account"], body["claimed_by"]) == (stranger, stranger, "ada@example.org")
    assert durable.read_json(home.run(body["id"]).spec)["submitted_by"] == stranger
    assert "'ada@example.org'" in caplog.text


def test_the_limit_of_one_person_counts_those_who_signed_in_apart(home: Home) -> None:
    box = Box(home, most_per_user=1)
    for i, who in enumerate(("ada@example.org", "bob@example.org", "ada@example.org")):
        box.drop(f"{i}.json", text(str(i), submitted_by=who))
        os.utime(home.incoming / f"{i}.json", ns=(i, i))
    box.wait()
    assert box.names == ["0", "1"]
    assert "ada@example.org" in box.reason("2.json")["message"]
    assert box.reason("2.json")["submitted_by"] == "ada@example.org"


def dropped(home: Home, job_id: str) -> dict[str, object]:
    document = json.loads((home.incoming / f"{job_id}.json").read_bytes())
    assert isinstance(document, dict)
    return document


def ended(home: Home, spec: dict[str, object]) -> str:
    """A failed job that was dropped with `spec`."""
    box = Box(home)
    box.drop("x.json", json.dumps(spec).encode())
    box.wait()
    token = box.accepted[0]
    Tokens(home).move(token, State.CHECKING, State.FAILED)
    return token.job_id


@pytest.fixture
def asks() -> Iterator[Callable[[str | None], None]]:
    """Says who is signed in."""
    yield lambda who: dropbox.asked_by(lambda: who)
    dropbox.asked_by(lambda: None)


Asks = Callable[[str | None], None]


def test_who_repeats_a_job_is_its_submitter(home: Home, asks: Asks) -> None:
    job_id = ended(home, json.loads(text("a", submitted_by="ada@example.org")))
    asks("bob@example.org")
    assert dropped(home, dropbox.retry(home, job_id))["submitted_by"] == "bob@example.org"
    made = cures.Suggestion(json.loads(text("b", submitted_by="ada@example.org")), "", [])
    assert dropped(home, cures.submit(home, job_id, made))["submitted_by"] == "bob@example.org"
    session = asks_.open_session(home, {"model": "m", "submitted_by": "ada@example.org"})
    assert dropped(home, session)["submitted_by"] == "bob@example.org"
    asks(None)
    assert "submitted_by" not in dropped(home, dropbox.retry(home, job_id))


def test_an_order_says_who_gave_it(home: Home, asks: Asks) -> None:
    box = Box(home)
    box.drop("a.json", text("a"))
    box.wait()
    token = box.accepted[0]
    asks("ada@example.org")
    dropbox.control(home, "top", token.job_id)
    dropbox.queue(home, "hold")
    asks(None)
    dropbox.control(home, "priority", token.job_id, 3)
    orders = Orders(home, lambda state, token: False)
    orders.look()
    told = [row["words"] for row in metrics.read(home.run(token.job_id).events)]
    assert told == ["top, asked by ada@example.org", f"priority 3, asked by {ME}"]
    assert orders.submitters.of(home.hold) == "ada@example.org"
    assert Submitters([]).of(home.hold) == ME
    dropbox.control(home, "cancel", token.job_id)
    orders.look()
    orders.look()  # it must wait, and is told once
    assert [row["words"] for row in metrics.read(home.run(token.job_id).events)][2:] == [f"cancel, asked by {ME}"]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"by": 7}', b'{"by": ""}', b"\xff" * 5000])
def test_an_order_may_hold_anything(home: Home, content: bytes) -> None:
    home.hold.write_bytes(content)
    assert Submitters().of(home.hold) == ME
    assert Submitters().of(home.drain) is None


def test_a_lost_token_is_made_again_with_its_submitter(home: Home) -> None:
    box = Box(home)
    box.drop("a.json", text("a", submitted_by="ada@example.org"))
    box.wait()
    token = box.accepted[0]
    Tokens(home).path(State.CHECKING, token).unlink()
    assert recover.heal(home) == 1
    found = Tokens(home).find(token.job_id)
    assert found is not None
    assert Tokens(home).body(*found)["submitted_by"] == "ada@example.org"
