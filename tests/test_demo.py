"""`make demo` as a newcomer runs it: the real Gemma, through the spool, to the before and after."""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
from conftest import ROOT


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_the_demo_teaches_the_model_and_ends_by_itself(tmp_path: Path, embedded_model: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "models").symlink_to(ROOT / "data" / "models")
    done = subprocess.run(
        ["make", "demo"],
        cwd=ROOT,
        env={**os.environ, "FINETUNER_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=1400,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    told = json.loads(next(home.glob("runs/*/demo.json")).read_text())
    assert told["rows"] == 80
    assert told["exact_after"] >= 72, done.stdout[-3000:]
    assert told["stopped"] == 80
    assert told["exact_before"] <= 4
    assert "/100" in done.stderr, "no progress was shown"
    assert re.search(r"Expected +\{", done.stdout)
    adapter = next(home.glob("runs/*/exports/adapter"))
    assert str(adapter.resolve()) in done.stdout
    assert json.loads((home / "spool" / "runner.json").read_text())["state"] == "stopped"


def test_no_message_stands_on_both_sides() -> None:
    def messages(name: str) -> list[str]:
        rows = [json.loads(line) for line in (ROOT / "examples" / name).read_text().splitlines()]
        assert all(json.loads(row["completion"]).keys() == {"intent", "order", "urgency"} for row in rows)
        return [row["prompt"] for row in rows]

    train, held_out = messages("support_tickets.jsonl"), messages("support_tickets.heldout.jsonl")
    assert len(train) == len(set(train)) == 400
    assert len(held_out) == len(set(held_out)) == 80
    assert not set(train) & set(held_out)


def test_the_example_is_what_its_generator_makes(tmp_path: Path) -> None:
    import shutil
    import sys

    shutil.copy(ROOT / "examples" / "make_support_tickets.py", tmp_path)
    subprocess.run([sys.executable, str(tmp_path / "make_support_tickets.py")], check=True, capture_output=True)
    for name in ("support_tickets.jsonl", "support_tickets.heldout.jsonl"):
        assert (tmp_path / name).read_bytes() == (ROOT / "examples" / name).read_bytes()
