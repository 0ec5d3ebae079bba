"""Notes and tags: what is kept of them, what is refused, and that nothing in the folder can break a reader."""

import os
from pathlib import Path

import pytest
from test_protocol_jobs import accept

from spool.protocol import notes
from spool.protocol.errors import FinetunerError, NotFound
from spool.protocol.home import Home, State
from spool.protocol.notes import Note
from spool.protocol.ulid import mint


@pytest.fixture
def job(home: Home) -> str:
    return accept(home, State.DONE)


def test_what_was_written_is_read_again_with_who_and_when(home: Home, job: str) -> None:
    written = notes.write(
        home, job, "  Answers well.\r\nToo long at times.  ", ["  good   one ", "V2", "v2", ""], "ann"
    )
    assert written.text == "Answers well.\nToo long at times."
    assert written.tags == ("good one", "V2")
    assert notes.read(home, job) == written
    assert notes.read_all(home) == {job: written}
    assert (written.by, bool(written.at)) == ("ann", True)


def test_the_last_writer_counts(home: Home, job: str) -> None:
    notes.write(home, job, "first", ["a"], "ann")
    notes.write(home, job, "second", [], "ben")
    note = notes.read(home, job)
    assert (note.text, note.tags, note.by) == ("second", (), "ben")
    assert [path.name for path in home.notes.iterdir()] == [f"{job}.json"]


def test_nothing_said_leaves_nothing(home: Home, job: str) -> None:
    assert not notes.write(home, job, " \n", [" "], "ann")
    notes.write(home, job, "something", [])
    notes.write(home, job, "", [])
    assert list(home.notes.iterdir()) == []
    assert notes.read(home, job) == Note()


@pytest.mark.parametrize(
    ("text", "tags", "code"),
    [
        ("x" * 4001, [], "note_too_long"),
        ("", ["x" * 33], "bad_tag"),
        ("", ["a,b"], "bad_tag"),
        ("", ["<b>"], "bad_tag"),
        ("", ["-x"], "bad_tag"),
        ("", [f"tag {i}" for i in range(13)], "bad_tag"),
    ],
)
def test_what_cannot_be_kept_is_refused_and_the_old_note_stays(
    text: str, tags: list[str], code: str, home: Home, job: str
) -> None:
    notes.write(home, job, "old", ["kept"])
    with pytest.raises(FinetunerError) as caught:
        notes.write(home, job, text, tags)
    assert caught.value.code == code
    assert notes.read(home, job).text == "old"


def test_the_limits_themselves_are_kept(home: Home, job: str) -> None:
    tags = [f"{i:02d}{'ü' * 30}" for i in range(12)]
    note = notes.write(home, job, "ß" * 4000, tags)
    assert notes.read(home, job) == note
    assert len(note.tags) == 12


@pytest.mark.parametrize("job_id", ["01KAAAAAAAAAAAAAAAAAAAAAAA", "../../spec", ""])
def test_only_a_job_has_a_note(job_id: str, home: Home) -> None:
    with pytest.raises(NotFound):
        notes.write(home, job_id, "x", [])
    assert not notes.read(home, job_id)


@pytest.mark.parametrize(
    "content", [b"{", b"[]", b'{"text": 7, "tags": "x", "by": [], "at": 1}', b'{"tags": [1, "<"]}']
)
def test_a_damaged_note_is_no_note(content: bytes, home: Home, job: str) -> None:
    (home.notes / f"{job}.json").write_bytes(content)
    assert not notes.read(home, job)
    assert notes.read_all(home) == {}


def test_pipes_links_and_foreign_names_are_passed_over(home: Home, job: str, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text('{"text": "secret"}')
    os.mkfifo(home.notes / f"{mint()}.json")
    os.symlink(secret, home.notes / f"{job}.json")
    (home.notes / "readme.txt").write_text("x")
    assert notes.read_all(home) == {}
