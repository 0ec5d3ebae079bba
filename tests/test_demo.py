"""`make demo` as a newcomer runs it: the real Gemma, through the spool, to the before and after."""

import json
import re
import subprocess
from pathlib import Path

import pytest
from conftest import ROOT, Demo


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.timeout(1500)
def test_the_demo_teaches_the_model_and_ends_by_itself(demo: Demo) -> None:
    home, done = demo.home, demo.done
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    told = json.loads(next(home.glob("runs/*/demo.json")).read_text())
    assert told["rows"] == 80
    assert told["exact_after"] >= 0.9 * told["rows"], done.stdout[-3000:]
    assert told["stopped"] == told["rows"]
    assert told["exact_before"] <= 0.05 * told["rows"]
    report = next(home.glob("runs/*/report.html"))
    assert str(report.resolve()) in done.stdout
    assert report.with_suffix(".pdf").read_bytes().startswith(b"%PDF")
    assert json.loads(report.with_suffix(".json").read_text())["asked"]["held_out"] is True
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
