"""The process that checks jobs before they are queued: reads, judges and tokenises their data. No GPU, no torch.

Run as: python -m runner.checking --home DIR ID [ID ...]        (the daemon does; see runner/gate.py)

A training that will not fit this machine by the forecast is told what would (an event of its own), and queued: a
forecast may be wrong.

It takes the jobs in the order given, passes over those that are no longer in `checking`, writes runs/ID/checked.json
as its last act for each, and what it has to say to runs/ID/check.log. SIGTERM ends it at once: what is half done does
not count.
"""

import argparse
import faulthandler
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner.gate import verdict
from spool.health import failure
from spool.protocol import durable, metrics, settings
from spool.protocol.errors import FinetunerError
from spool.protocol.home import Home, Run, State
from spool.protocol.process import locked, step_back
from spool.protocol.redact import redact
from spool.protocol.resolve import Places, trained
from spool.protocol.spec import EvaluateSpec, ExportSpec, GenerateSpec, Spec, load
from spool.protocol.states import Tokens

if TYPE_CHECKING:
    from spool.data.judging.chat import Encoder

NICENESS = 10
"""Training and the web app go first."""
MEMORY_HINT = "Split the file, or free memory on the machine, then retry."

Encoders = dict[Path, "Encoder"]
"""The last job's model folder -> encoder: loading a tokenizer takes longer than checking a small file."""


def check(home: Home, job_id: str, places: Places, encoders: Encoders) -> None:
    """Checks one job and leaves the word on it, unless somebody has."""
    run = home.run(job_id)
    with locked(run.root):  # a dead runner's child may still be at it
        if verdict(home, job_id):
            return
        error: dict[str, Any] | None = None
        try:
            _check(run, places, encoders)
        except Exception as raised:
            if not isinstance(raised, FinetunerError):
                print(redact(traceback.format_exc()), flush=True)
            error = failure.explain_exception(raised, "check_failed", "the check of the data broke off: ", MEMORY_HINT)
            print(f"-- failed: {error['message']} {error['hint']}", flush=True)
        durable.write_json(run.checked, {"v": 1, "outcome": "failed" if error else "passed", "error": error})


def _check(run: Run, places: Places, encoders: Encoders) -> None:
    from spool.data import questions
    from spool.data.evaluation import task_of
    from spool.data.judging.chat import Encoder
    from spool.data.prepare import Task, prepare
    from spool.forecast.estimate import estimate

    events = metrics.Writer(run.events, attempt=0)

    def say(words: str) -> None:
        print(f"-- {words}", flush=True)
        events.write(event="phase", phase=words)

    spec = load(durable.read_json(run.spec))
    if spec.dataset is None or isinstance(spec, ExportSpec):
        say("there is no data to check")
        return
    folder = _tokenizer_folder(spec, places, say)
    if folder not in encoders:
        say("loading the tokenizer")
        encoder = Encoder.for_model(folder)
        encoders.clear()  # one at a time: a Gemma's tokenizer takes 400 MB
        encoders[folder] = encoder
    if isinstance(spec, GenerateSpec):
        questions.of_spec(spec, run, places, encoders[folder], say)
        return
    if isinstance(spec, EvaluateSpec):
        done = prepare(task_of(spec, str(folder), places, encoders[folder]), run.data, say)
        say(f"the data is good: {done.train_rows:,} rows to ask")
        return
    done = prepare(Task.of(spec, places, encoders[folder]), run.data, say)
    good = f"the data is good: {done.train_rows:,} rows to train on, {done.eval_rows:,} to evaluate on"
    say(good)
    found = estimate(places.home, spec.to_json(), run=run.root)
    for problem in found.problems:
        words = f"{problem.message} {problem.hint}"
        print(f"-- {words}", flush=True)
        changes = found.fits_with if problem.code.endswith("memory") else {}
        events.write(event="unfit", words=words, fits_with=changes, phase=good)


def _tokenizer_folder(spec: Spec, places: Places, say: Any) -> Path:
    reference = spec.model
    if isinstance(spec, EvaluateSpec) and spec.adapter:
        of_folder = places.adapter(spec.adapter)
        if of_folder.base != Path():
            return of_folder.base
        reference = of_folder.reference
    elif isinstance(spec, GenerateSpec | EvaluateSpec) and spec.job:
        of_job = trained(places.home, spec.job)
        if of_job.base.is_dir():
            return of_job.base
        reference = of_job.reference
    model = places.model(str(reference))
    if model.folder is not None:
        return model.folder
    from runner import fetch

    say(f"fetching the tokenizer of {reference}")
    return fetch.fetch(str(reference), fetch.TOKENIZER_FILES)[0]


def _speak_into(path: Path) -> None:
    """Sends what this process and its libraries say to a job's log."""
    with open(path, "ab") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m runner.checking")
    parser.add_argument("--home", required=True)
    parser.add_argument("ids", nargs="+", metavar="ID")
    arguments = parser.parse_args(argv)
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    step_back(oom_score=500, niceness=NICENESS)
    home, started_in = Home.at(arguments.home), Path.cwd()
    places = Places(home, started_in, settings.roots(settings.load(home), home, started_in))
    tokens, encoders = Tokens(home), Encoders()
    for job_id in arguments.ids:
        if any(token.job_id == job_id for token in tokens.list(State.CHECKING)):
            _speak_into(home.run(job_id).check_log)
            check(home, job_id, places, encoders)
    return 0


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)  # taking a tokenizer apart takes a tenth of a second, and a person waits for their first job
