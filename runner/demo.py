"""`make demo`: a real Gemma, trained on the example through the spool, then asked before and after.

Run as: python -m runner.demo [--home data]

Nothing here is special: the job goes the way of every job (a file in incoming/, taken by the runner).
"""

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from runner import score
from spool.cli import submit, terminal
from spool.data.judging.chat import Encoder
from spool.health import heartbeat
from spool.protocol import dropbox, durable
from spool.protocol.home import Home

ROOT = Path(__file__).resolve().parent.parent
JOB = ROOT / "examples" / "support_tickets.job.json"
HELD_OUT = ROOT / "examples" / "support_tickets.heldout.jsonl"
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


@contextlib.contextmanager
def quiet(home: Home) -> Iterator[None]:
    """What libraries say on stderr while they load goes to the runner's log."""
    sys.stderr.flush()
    kept = os.dup(2)
    with open(home.runner_log, "ab") as log:
        os.dup2(log.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def before_and_after(base: Path, adapter: Path) -> tuple[int, int, int]:
    """Prints answers of the base and the tuned model; gives (exact before, exact after, stopped after)."""
    rows = [json.loads(line) for line in HELD_OUT.read_text().splitlines()]
    prompts, expected = [row["prompt"] for row in rows], [row["completion"] for row in rows]
    encoder = Encoder.for_model(base)
    longest = max(len(encoder.tokenizer.encode(text, add_special_tokens=False).ids) for text in expected) + 8
    model = score.load(base)
    before = score.answer(model, encoder, prompts, longest)
    after = score.answer(score.merge(model, adapter), encoder, prompts, longest)
    for i in range(SHOWN):
        print(f"\n  Message   {terminal.one_line(prompts[i])}")
        print(f"  Base      {terminal.one_line(before[i].text)[:110]}{'' if before[i].stopped else ' ...'}")
        print(f"  Tuned     {terminal.one_line(after[i].text)}{'' if after[i].stopped else ' ...'}")
        print(f"  Expected  {expected[i]}")
    return score.exact(before, expected), score.exact(after, expected), sum(answer.stopped for answer in after)


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
        trained = time.monotonic() - dropped
        print("\nAsking the base model and the tuned one the 80 held-out messages ...", flush=True)
        base, adapter = Path(job.result["base"]["folder"]), Path(job.result["adapter"])
        with quiet(home):
            before, after, stopped = before_and_after(base, adapter)
    total = len(HELD_OUT.read_text().splitlines())
    taken = time.monotonic() - dropped
    demo = {"job": job_id, "exact_before": before, "exact_after": after, "stopped": stopped, "rows": total}
    durable.write_json(home.run(job_id).root / "demo.json", {**demo, "seconds": round(taken, 1)})
    print(f"\n  Exactly right on {total} held-out messages: {before} before, {after} after training.")
    print(f"  Answers that ended by themselves: {stopped} of {total}.")
    print(f"  From the drop to here: {taken:.0f} s, {trained:.0f} s of it until the job was done.")
    print(f"\n  The adapter   {adapter}")
    print("  The app       make up      then open http://127.0.0.1:8501\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
