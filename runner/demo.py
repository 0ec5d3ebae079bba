"""`make demo`: a real Gemma, trained on the example through the spool, and what its report says.

Run as: python -m runner.demo [--home data]

Nothing here is special: the job goes the way of every job (a file in incoming/, taken by the runner).
"""

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from spool.cli import submit, terminal
from spool.health import heartbeat
from spool.protocol import dropbox, durable
from spool.protocol.home import Home

ROOT = Path(__file__).resolve().parent.parent
JOB = ROOT / "examples" / "support_tickets.job.json"
SHOWN = 3


@contextlib.contextmanager
def runner(home: Home) -> Iterator[None]:
    """A runner over this home: the one that is alive already, or one for as long as the demo takes."""
    if heartbeat.read(home).alive:
        yield
        return
    home.create()
    home.runner_json.unlink(missing_ok=True)
    with open(home.runner_log, "ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "runner.daemon", "--home", str(home.root)],
            cwd=ROOT,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        while not heartbeat.read(home).alive:
            if process.poll() is not None:
                raise SystemExit(f"the runner did not start; its words are in {home.runner_log}")
            time.sleep(0.02)
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def before_and_after(made: dict[str, Any]) -> dict[str, int]:
    """Prints some answers of a report, the base's and the tuned model's; gives what is counted."""
    rows = made["asked"]["rows"]
    for sample in made["samples"][:SHOWN]:
        print(f"\n  Message   {terminal.one_line(sample['prompt'])}")
        for who, said in (("Base", sample["base"]), ("Tuned", sample["tuned"])):
            print(f"  {who:<9} {terminal.one_line(said['text'])[:110]}{'' if said['stopped'] else ' ...'}")
        print(f"  Expected  {sample['expected']}")
    shares = {each["name"]: each for each in made["scores"]["measures"]}
    counts = {
        f"exact_{when}": round(shares["exact"][who] * rows) for when, who in (("before", "base"), ("after", "tuned"))
    }
    return {**counts, "stopped": round(shares["stopped"]["tuned"] * rows), "rows": rows}


def main() -> int:
    parser = argparse.ArgumentParser(prog="make demo")
    parser.add_argument("--home")
    home = Home.at(parser.parse_args().home)
    os.chdir(ROOT)  # the job's relative dataset path counts from where the runner is started
    with runner(home):
        dropped = time.monotonic()
        job_id = dropbox.submit(home, JOB.read_bytes())
        print(f"\nDropped {JOB.relative_to(ROOT)} into {home.incoming}\n", flush=True)
        try:
            job = submit.wait(home, job_id)
        except KeyboardInterrupt:
            dropbox.cancel(home, job_id)
            print("\ncancelled")
            return 130
        if job.state != "done" or job.result is None:
            return 1
    run = home.run(job_id)
    made = durable.read_json(run.report_json)
    if made is None:
        told = (job.result.get("report") or {}).get("error") or {}
        raise SystemExit(f"there is no report: {told.get('message', 'none was asked for')} {told.get('hint', '')}")
    told = before_and_after(made)
    taken = time.monotonic() - dropped
    durable.write_json(run.root / "demo.json", {"job": job_id, **told, "seconds": round(taken, 1)})
    rows, of = told["rows"], made["asked"]["of"]
    print(f"\n  Exactly right on {rows} held-out messages{f' of {of}' if rows < of else ''}: ", end="")
    print(f"{told['exact_before']} before, {told['exact_after']} after training.")
    print(f"  Answers that ended by themselves: {told['stopped']} of {rows}.")
    print(f"  From the drop to here: {taken:.0f} s, {made['time']['report']['all']:.0f} s of it for the report.")
    print(f"\n  The report    {run.report}")
    print(f"  The adapter   {job.result['adapter']}")
    print("  The app       make up      then open http://127.0.0.1:8501\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
