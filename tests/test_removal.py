"""Deleting what a job has made: what goes and what stays, who may not lose it, and that a kill changes neither."""

import getpass
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_protocol_jobs import SPEC, accept
from test_retention import finish

from runner import removal
from runner.orders import Orders
from runner.removal import Removal
from spool.protocol import dropbox, durable, metrics, removed
from spool.protocol.errors import FinetunerError, NotFound
from spool.protocol.home import Home, Run, State
from spool.protocol.states import Tokens
from spool.protocol.ulid import mint


def look(home: Home) -> None:
    """The runner's next look at control/."""
    Orders(home, lambda state, token: True).look()


def ask(home: Home, run: Run, by: str | None = "ann") -> None:
    removed.ask(home, run.root.name, by, Path.cwd())


def kept(run: Run) -> set[str]:
    return {path.name for path in run.root.iterdir()}


STAYS = {"spec.json", "metrics.jsonl", "events.jsonl", "train.log", "outcome.json", "data", "removed.json"}


@pytest.mark.parametrize("state", [State.DONE, State.FAILED, State.CANCELLED])
def test_exports_and_checkpoints_go_and_the_record_stays(state: State, home: Home) -> None:
    run = finish(home, state)
    ask(home, run)
    look(home)
    assert not run.exports.exists()
    assert not run.checkpoints.exists()
    assert kept(run) >= STAYS
    assert not any(name.startswith(".pruned") for name in kept(run))
    record = removed.read(run)
    assert record
    assert (record.by, record.what) == ("ann", ("adapter", "checkpoints"))
    assert record.size_bytes >= 80_000
    assert list(home.control.iterdir()) == []
    assert (metrics.last(run.events) or {})["why"] == "asked by ann"
    found = Tokens(home).find(run.root.name)
    assert found
    assert found[0] is state


def test_an_empty_file_is_an_order_too(home: Home) -> None:
    run = finish(home, State.DONE)
    (home.control / f"delete-{run.root.name}").touch()
    look(home)
    record = removed.read(run)
    assert record
    assert record.by == getpass.getuser()


def test_asked_again_it_says_that_nothing_is_left(home: Home) -> None:
    run = finish(home, State.DONE)
    ask(home, run)
    ask(home, run, "ben")
    look(home)
    with pytest.raises(FinetunerError) as caught:
        ask(home, run)
    assert caught.value.code == "removed"
    first = run.removed.read_bytes()
    (home.control / f"delete-{run.root.name}").touch()
    look(home)
    assert run.removed.read_bytes() == first


def test_a_job_that_has_not_ended_keeps_everything(home: Home) -> None:
    job_id = accept(home, State.QUEUED)
    (home.run(job_id).exports / "adapter").mkdir(parents=True)
    with pytest.raises(FinetunerError) as caught:
        removed.ask(home, job_id, None, Path.cwd())
    assert caught.value.code == "not_ended"
    (home.control / f"delete-{job_id}").touch()
    look(home)
    assert (home.run(job_id).exports / "adapter").exists()
    assert list(home.control.iterdir()) == []
    with pytest.raises(NotFound):
        removed.ask(home, mint(), None, Path.cwd())


def drop(home: Home, spec: dict[str, Any]) -> str:
    return dropbox.submit(home, spec)


def queue(home: Home, spec: dict[str, Any]) -> str:
    job_id = accept(home, State.QUEUED)
    durable.write_json(home.run(job_id).spec, spec)
    return job_id


@pytest.mark.parametrize("enter", [drop, queue])
@pytest.mark.parametrize("names", ["retry_of", "job", "model"])
def test_what_another_job_names_stays(enter: Callable[[Home, dict[str, Any]], str], names: str, home: Home) -> None:
    run = finish(home, State.DONE)
    value = str(run.exports / "merged") if names == "model" else run.root.name
    ask(home, run)  # before the other came: only the runner can tell
    other = enter(home, {**SPEC, names: value})
    with pytest.raises(FinetunerError) as caught:
        ask(home, run)
    assert caught.value.code == "in_use"
    assert other in caught.value.message
    look(home)
    assert (run.exports / "adapter").exists()
    assert removed.read(run) is None
    assert list(home.control.iterdir()) == []
    assert (metrics.last(run.events) or {})["event"] == "not_removed"


class Killed(BaseException):
    """The process is gone: nothing behind this line happens."""


def test_killed_at_any_moment_it_is_done_again_to_the_same_end(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each call that changes something is the last one once: before it happens, and behind it."""
    points = 0
    for point in range(100):
        run = finish(home, State.DONE)
        ask(home, run, "ann")
        left = point

        def dies(call: Callable[..., Any]) -> Callable[..., Any]:
            def wrapped(*args: Any, **more: Any) -> Any:
                nonlocal left
                left -= 1
                if left == -1:
                    raise Killed
                done = call(*args, **more)
                left -= 1
                if left == -1:
                    raise Killed
                return done

            return wrapped

        with monkeypatch.context() as patch:
            patch.setattr(os, "rename", dies(os.rename))
            patch.setattr(os, "unlink", dies(os.unlink))
            patch.setattr(os, "rmdir", dies(os.rmdir))
            patch.setattr(Path, "unlink", dies(Path.unlink))
            try:
                Removal(home).look(os.listdir(home.control))
            except Killed:
                points += 1
            else:
                break
        assert removed.read(run) or (run.exports / "adapter" / "adapter_model.safetensors").exists()
        look(home)
        record = removed.read(run)
        assert record
        assert (record.by, record.what) == ("ann", ("adapter", "checkpoints"))
        assert record.size_bytes >= 80_000
        assert not any(name.startswith((".pruned", "exports", "checkpoints")) for name in kept(run))
        assert list(home.control.iterdir()) == []
    assert points >= 20


def test_a_file_that_cannot_go_holds_nothing_up_and_is_tried_again(
    home: Home, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    stuck, other = finish(home, State.DONE), finish(home, State.DONE)
    ask(home, stuck)
    ask(home, other)
    room = Removal(home)
    really = shutil.rmtree

    def refuses(path: Path) -> None:
        if stuck.root in Path(path).parents:
            raise PermissionError(13, "Permission denied", str(path))
        really(path)

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", refuses)
        for _ in range(3):
            room.look(os.listdir(home.control))
    assert [path.name for path in home.control.iterdir()] == [f"delete-{stuck.root.name}"]
    assert sum("Permission denied" in record.message for record in caplog.records) == 1
    room.look(os.listdir(home.control))
    assert list(home.control.iterdir()) == []
    assert not any(name.startswith(".pruned") for name in kept(stuck))


def test_links_are_not_followed(home: Home, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "model.safetensors").write_bytes(b"x")
    run = finish(home, State.DONE, export=False)
    os.symlink(precious, run.exports)
    (run.checkpoints / "elsewhere").symlink_to(precious)
    ask(home, run)
    look(home)
    assert (precious / "model.safetensors").exists()
    assert not run.checkpoints.exists()


def test_a_long_list_of_orders_is_carried_out_a_little_at_a_time(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(removal, "MOST", 2)
    runs = [finish(home, State.DONE) for _ in range(3)]
    for run in runs:
        ask(home, run)
    look(home)
    assert [run.exports.exists() for run in runs].count(True) == 1
    look(home)
    assert not any(run.exports.exists() for run in runs)


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"at": 1, "what": "x"}', b"{}"])
def test_a_damaged_record_is_none(content: bytes, home: Home) -> None:
    run = finish(home, State.DONE)
    run.removed.write_bytes(content)
    assert removed.read(run) is None
