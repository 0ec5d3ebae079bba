"""The fault suite in short, with a fixed seed: a sample of the points, every case of its own, every planted bug."""

import os
import shutil

import pytest

from tests.faults.__main__ import main

SEED = 20261122


@pytest.fixture
def strace() -> None:
    """In CI a machine without strace is a failure; elsewhere the reason of the skip is told."""
    if shutil.which("strace") is None:
        assert not os.environ.get("CI"), "CI needs strace: .ci/run installs it"
        pytest.skip("strace is not installed (apt-get install strace)")


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.usefixtures("strace")
def test_nothing_is_lost_and_every_planted_bug_is_caught(capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["--short", "--seed", str(SEED)])
    told = capsys.readouterr()
    assert code == 0, f"{told.err}\n{told.out}"
