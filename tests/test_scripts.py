"""docs/scripts.md is true: its shell runs, the example needs Python alone, and files have the fields it names."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, Runner, wait_for

from spool.protocol import dropbox, jobs
from spool.protocol.home import Home
from spool.protocol.ulid import is_ulid

DOC = (ROOT / "docs" / "scripts.md").read_text()
EXAMPLE = ROOT / "examples" / "learning_rates.py"
JOB = {"schema": 1, "model": "gemma-3-270m", "dataset": "examples/support_tickets.jsonl", "train": {"epochs": 1}}


@pytest.fixture(autouse=True)
def model(home: Home) -> None:
    folder = home.models / "gemma-3-270m"
    folder.mkdir()
    (folder / "config.json").write_text("{}")


def sweep(home: Home, job: dict[str, Any], tmp_path: Path, night: str = "monday") -> subprocess.CompletedProcess[str]:
    path = tmp_path / "job.json"
    path.write_text(json.dumps(job))
    command = [sys.executable, "-I", "-S", str(EXAMPLE), str(home.root), str(path), night]  # no packages, not even ours
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def named(path: str) -> set[str]:
    """The fields that docs/scripts.md names for a file."""
    (row,) = [line for line in DOC.splitlines() if line.startswith(f"| `{path}`")]
    return set(re.findall(r"`([a-z_0-9]+)`", row.split("|")[2]))


def test_the_example_sweeps_and_a_second_start_makes_no_second_jobs(
    home: Home, stub_runner: Runner, tmp_path: Path
) -> None:
    done = sweep(home, JOB, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    *rows, best = done.stdout.splitlines()
    assert [row.split()[1:3] for row in rows] == [[rate, "done"] for rate in ("0.0001", "0.0002", "0.0005", "0.001")]
    assert Path(best).parent.parent.parent == home.runs
    found = jobs.list_jobs(home)
    assert {(job.id, job.state) for job in found} == {(row.split()[0], "done") for row in rows}
    assert all(is_ulid(job.id) and job.submission_id == job.id for job in found)
    assert sweep(home, JOB, tmp_path).stdout == done.stdout
    assert len(jobs.list_jobs(home)) == 4


def test_the_example_tells_why_there_is_no_best_one(home: Home, stub_runner: Runner, tmp_path: Path) -> None:
    done = sweep(home, {**JOB, "dataset": "no/such.jsonl"}, tmp_path)
    assert done.returncode == 1
    assert done.stdout.count("rejected") == 4
    assert "no/such.jsonl does not exist." in done.stdout
    assert sweep(Home(tmp_path / "nothing"), JOB, tmp_path).returncode == 2


def test_the_shell_of_the_page_runs(home: Home, stub_runner: Runner) -> None:
    blocks = re.findall(r"```sh\n(.*?)```", DOC, re.S)
    assert len(blocks) == 2
    for block in blocks:
        environment = {**os.environ, "FINETUNER_HOME": str(home.root), "PYTHONPATH": str(ROOT)}
        command = ["bash", "-euo", "pipefail", "-c", block]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
    assert [job.state for job in jobs.list_jobs(home)] == ["done", "done"]
    assert "nightly.json" in {job.dropped_name for job in jobs.list_jobs(home)}


def test_a_rejection_has_the_fields_that_the_page_names(home: Home, stub_runner: Runner) -> None:
    (home.incoming / "wrong.json").write_text('{"schema": 1, "submission_id": "night 1", "modle": "x"}')
    wait_for(lambda: list(home.rejected.glob("*/dropped.json")))
    (path,) = home.rejected.glob("*/reason.json")
    reason = json.loads(path.read_text())
    assert named("spool/rejected/ID/reason.json") <= set(reason) | set(reason["errors"][0])
    assert (reason["dropped_name"], reason["submission_id"]) == ("wrong.json", "night 1")
    assert "dropped.json, untouched" in path.with_suffix(".txt").read_text()
    assert named("spool/runner.json") <= set(json.loads(home.runner_json.read_text()))


def test_each_order_that_the_page_names_is_one() -> None:
    table = DOC.partition("**Orders**")[2].partition("To try a job again")[0]
    names = re.findall(r"`([a-z0-9]+(?:-ID)?)`", "".join(re.findall(r"^\|([^|]*)\|", table, re.M)))
    assert {"cancel-ID", "priority9-ID", "down-ID", "drain"} <= set(names)
    assert all(dropbox.is_order(name.replace("ID", "01BX5ZZKBKACTAV9WEVGEMMVRZ")) for name in names)
