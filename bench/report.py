"""How long the report of a finished training takes, everything included: cold, then with the base's answers known.
Before these, as a measure: the same rows asked by a plain transformers and PEFT script, one prompt after the other.

Run as: python -m bench.report RUN_FOLDER BASE_FOLDER [--heldout FILE] [--threads 2] [--unmerged]
        [--deadline 240] [--keep FOLDER] [--plain ROWS]

RUN_FOLDER is runs/ID of a training of the example that is done (examples/support_tickets.job.json), BASE_FOLDER its
base. Each report is made by a process of its own, so that importing and loading count. On a machine that does other
things `cpu_s / threads` says more than `wall_s`; threads wait asleep (OMP_WAIT_POLICY), or waiting would count.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from spool.protocol import durable
from spool.protocol.home import Home
from tests.trained import ended

ANSWER_TOKENS = 44
"""As the report allows for the example."""
HELDOUT = "examples/support_tickets.heldout.jsonl"


def home_of(folder: Path, run_folder: Path, base: Path, heldout: str) -> tuple[Home, str]:
    """A data home with this one training, whose spec names the held-out rows for evaluation."""
    home = Home(folder.resolve()).create()
    spec = durable.read_json(run_folder / "spec.json")
    result = durable.read_json(run_folder / "result.json")["result"]
    job_id = Path(result["adapter"]).parts[-3]
    run = home.run(job_id)
    shutil.copytree(run_folder, run.root, ignore=shutil.ignore_patterns("checkpoints", "data", "report.*"))
    (home.models / base.name).symlink_to(base.resolve())
    spec["eval"] = {**spec["eval"], "dataset": heldout}
    durable.write_json(run.spec, spec)
    result["base"] = {**result["base"], "folder": home.relative(home.models / base.name)}
    ended(home, job_id, result, name=spec["name"])
    return home, job_id


def once(home: Home, job_id: str, merged: bool, threads: int, deadline_s: float) -> dict[str, Any]:
    """One report, in this process."""
    began = time.monotonic()
    import torch

    from runner.exports import sources
    from runner.job import Attempt, StopRequest
    from runner.report import ask, make

    torch.set_num_threads(threads)
    if not merged:
        ask.MERGED = False
    attempt = Attempt(home, job_id, 1, StopRequest(home, job_id))
    told = make.report(sources.find(job_id, None, attempt), attempt, make.Bounds(deadline_s, began=began))
    return {**told, "wall_s": round(time.monotonic() - began, 1), "cpu_s": round(time.process_time(), 1)}


def plain(run_folder: Path, base: Path, heldout: str, rows: int, threads: int) -> dict[str, Any]:
    """Seconds an answer of base and tuned model, as a script asks them that knows nothing better."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(threads)
    adapter = run_folder / "exports" / "adapter"
    tokenizer = AutoTokenizer.from_pretrained(adapter)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
    prompts = [json.loads(line)["prompt"] for line in Path(heldout).read_text().splitlines()[:rows]]
    told: dict[str, Any] = {"rows": rows}
    for who in ("base", "tuned"):
        if who == "tuned":
            model = PeftModel.from_pretrained(model, str(adapter))
        model.eval()
        began = time.monotonic()
        for prompt in prompts:
            talk = [{"role": "user", "content": prompt}]
            asked = tokenizer.apply_chat_template(
                talk, add_generation_prompt=True, return_dict=True, return_tensors="pt"
            )
            model.generate(**asked, max_new_tokens=ANSWER_TOKENS, do_sample=False)
        told[f"{who}_s_an_answer"] = round((time.monotonic() - began) / rows, 2)
    return told


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("base", type=Path)
    parser.add_argument("--heldout", default=HELDOUT)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--deadline", type=float, default=240.0, help="more, to let a busy machine ask everything")
    parser.add_argument("--unmerged", action="store_true")
    parser.add_argument("--keep", type=Path, help="where the data home with the reports is left")
    parser.add_argument("--plain", type=int, default=12, help="rows that the plain script is asked; 0: none")
    parser.add_argument("--once", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.once:
        told = once(Home(arguments.run), arguments.once, not arguments.unmerged, arguments.threads, arguments.deadline)
        print("TOLD " + json.dumps(told))
        return
    if arguments.plain:
        os.environ["HF_HUB_OFFLINE"] = "1"
        told = plain(arguments.run, arguments.base, arguments.heldout, arguments.plain, arguments.threads)
        print("plain transformers and PEFT", json.dumps(told))
    folder = arguments.keep or Path(tempfile.mkdtemp())
    home, job_id = home_of(folder, arguments.run, arguments.base, arguments.heldout)
    for which in ("first report", "second report, the base's answers known"):
        began = time.monotonic()
        command = [sys.executable, "-m", "bench.report", str(home.root), str(arguments.base), "--once", job_id]
        command += ["--threads", str(arguments.threads), "--deadline", str(arguments.deadline)] + [
            "--unmerged"
        ] * arguments.unmerged
        out = subprocess.run(
            command,
            capture_output=True,
            text=True,
            env={"OMP_WAIT_POLICY": "PASSIVE", **os.environ, "HF_HUB_OFFLINE": "1"},
        )
        if out.returncode:
            sys.exit(out.stdout + out.stderr)
        told = json.loads(next(line for line in out.stdout.splitlines() if line.startswith("TOLD "))[5:])
        took = {"process_s": round(time.monotonic() - began, 1), "load": round(os.getloadavg()[0], 1)}
        took |= {name: told[name] for name in ("wall_s", "cpu_s")}
        took |= {name: told["asked"][name] for name in ("rows", "cut", "base_cached")}
        print(which, json.dumps(took), flush=True)
    print(f"the reports: {home.run(job_id).report}" if arguments.keep else "")
    if not arguments.keep:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
