"""Power cuts, sampled: the recorder, the models of a disk, a few cuts of each story. `make power` does them all."""

import os
import sys
from pathlib import Path

import pytest

from tests.power import disk, trace
from tests.power.__main__ import tell
from tests.power.disk import Log, Op, after_cut


@pytest.fixture(scope="module")
def recorder() -> None:
    """Recording needs strace. CI installs it, so that there its absence is a fault and not a reason to pass by."""
    try:
        trace.available()
    except trace.Untraceable as why:
        if os.environ.get("CI") and "not installed" in str(why):
            raise
        pytest.skip(f"power cuts are not tested here: {why}")


pytestmark = pytest.mark.alone  # each tells its cuts with a process a core


def log_of(*ops: Op) -> Log:
    log = Log()
    for op in ops:
        if op.kind == "link" and op.inode >= 10:  # here folders have the inodes from 10
            log.names[op.inode] = {}
        log.add(op)
    return log


def names(log: Log, model: str, survivors: tuple[str, str], seed: int = 0) -> dict[str, bytes | None]:
    return {path: file and file.data for path, file in after_cut(log, len(log.ops), model, survivors, seed).items()}


LEAST, EMPTY, NUL, ALL, RANDOM = disk.SURVIVORS


def test_what_was_not_synced_may_be_gone_empty_nul_or_there() -> None:
    log = log_of(Op("link", 1, disk.ROOT, "a"), Op("write", 1, data=b"words"))
    for model in disk.MODELS:
        assert names(log, model, LEAST) == {}
        assert names(log, model, EMPTY) == {"a": b""}
        assert names(log, model, NUL) == {"a": bytes(5)}
        assert names(log, model, ALL) == {"a": b"words"}


def test_an_fsync_of_a_file_saves_its_name_only_where_names_have_one_order() -> None:
    log = log_of(Op("link", 1, disk.ROOT, "a"), Op("write", 1, data=b"words"), Op("sync", 1, began=2))
    assert names(log, "journal", LEAST) == {"a": b"words"}
    assert names(log, "loose", LEAST) == {}
    assert names(log, "loose", EMPTY) == {"a": b"words"}


def test_an_fsync_covers_what_had_ended_when_it_began() -> None:
    log = log_of(Op("link", 1, disk.ROOT, "a"), Op("write", 1, data=b"words"), Op("sync", 1, began=1))
    assert names(log, "journal", LEAST) == {"a": b""}


def test_a_rename_over_two_folders_is_one_step_or_leaves_both_names() -> None:
    log = log_of(
        Op("link", 10, disk.ROOT, "x"),
        Op("link", 11, disk.ROOT, "y"),
        Op("link", 1, 10, "a"),
        Op("sync", disk.ROOT, began=3),
        Op("sync", 10, began=3),
        Op("rename", 1, 10, "a", 11, "a"),
        Op("sync", 11, began=6),
    )
    assert names(log, "loose", LEAST) == {"x": None, "y": None, "y/a": b""}
    assert names(log, "torn", LEAST) == {"x": None, "x/a": b"", "y": None, "y/a": b""}
    unsynced = Log(log.ops[:-1], log.names, log.base, log.contents)
    for seed in range(20):
        assert [*names(unsynced, "loose", RANDOM, seed)].count("x/a") + [*names(unsynced, "loose", RANDOM, seed)].count(
            "y/a"
        ) == 1


def test_the_recorder_sees_what_a_program_does(recorder: None, tmp_path: Path) -> None:
    folder = tmp_path / "home"
    folder.mkdir()
    (folder / "base").write_text("was there")
    script = f"""
import os, subprocess, threading
home = {str(folder)!r}
with open(home + '/a', 'w') as file: file.write('one'); file.flush(); os.fsync(file.fileno())
threading.Thread(target=lambda: os.rename(home + '/a', home + '/b')).start()
for words in ('echo two >> {{0}}/base', 'mkdir {{0}}/d', 'ln {{0}}/base {{0}}/d/link', 'rm {{0}}/base'):
    subprocess.run(words.format(home), shell=True, check=True)
"""
    log = trace.record([sys.executable, "-c", script], folder, tmp_path, dict(os.environ))
    tree = {path: file and file.data for path, file in after_cut(log, len(log.ops), "journal", ALL).items()}
    assert tree == {"b": b"one", "d": None, "d/link": b"was theretwo\n"}
    assert [op.kind for op in log.ops].count("sync") == 1


@pytest.mark.parametrize("story", ["datasets", "checkpoints", "exports"])
def test_files_stand_whole_after_a_cut(recorder: None, tmp_path: Path, story: str) -> None:
    told = tell(story, tmp_path, restarts=0, cuts=40)
    assert told.wrong == []
    assert sum(told.trees.values()) > 20


def test_no_job_is_lost_and_each_ends_once(recorder: None, tmp_path: Path) -> None:
    told = tell("life", tmp_path, restarts=10, cuts=12)
    assert told.wrong == []
    assert sum(told.trees.values()) > 25
    assert sum(told.restarts.values()) == 10


@pytest.mark.parametrize("plant", ["the dataset's record is not synced", "the manifest comes before the weights"])
def test_a_planted_bug_is_found(recorder: None, tmp_path: Path, plant: str) -> None:
    from tests.power.planted import PLANTS

    told = tell(PLANTS[plant][0], tmp_path, restarts=0, plant=plant, first_only=True)
    assert told.wrong != []
