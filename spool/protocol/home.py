"""Where things lie: every path of the data home, built from its root in one place."""

import hashlib
import os
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from spool.protocol import durable


class State(StrEnum):
    """The folder that a job's token lies in. `rejected` has no token: a rejected drop never became a job."""

    CHECKING = "checking"
    QUEUED = "queued"
    RUNNING = "running"
    HELD = "held"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


FINAL = frozenset({State.DONE, State.FAILED, State.CANCELLED})


@dataclass(frozen=True)
class Run:
    """One job's folder under runs/: stable for ever, deep links and scripts rely on it."""

    root: Path

    @property
    def spec(self) -> Path:
        return self.root / "spec.json"

    @property
    def spec_orig(self) -> Path:
        return self.root / "spec.orig.json"

    @property
    def attempts(self) -> Path:
        return self.root / "attempts"

    @property
    def metrics(self) -> Path:
        return self.root / "metrics.jsonl"

    @property
    def events(self) -> Path:
        return self.root / "events.jsonl"

    @property
    def data(self) -> Path:
        """What the check made of the dataset: tokenised rows and findings (spool/data/prepared.py)."""
        return self.root / "data"

    @property
    def check_log(self) -> Path:
        return self.root / "check.log"

    @property
    def checked(self) -> Path:
        """What came of the check (outcome, error): the checking child's last word on the job."""
        return self.root / "checked.json"

    @property
    def crashes(self) -> Path:
        """How often the checking child crashed over this job: written by the daemon, and only where it did."""
        return self.root / "check_crashes.json"

    @property
    def wait(self) -> Path:
        """Why and until when the job must not start (runner/waits.py)."""
        return self.root / "wait.json"

    @property
    def pulse(self) -> Path:
        """An empty file that the trainer touches while it gets on: the watchdog's sign of life."""
        return self.root / "pulse"

    @property
    def answers(self) -> Path:
        """What a job of kind generate has answered, a row each (spool/protocol/asks.py)."""
        return self.root / "answers.jsonl"

    @property
    def prompts(self) -> Path:
        """What a job of kind generate asks of a dataset: the check chose it (spool/data/questions.py)."""
        return self.root / "prompts.json"

    @property
    def samples(self) -> Path:
        """The same few prompts, answered at each evaluation of a training (runner/samples.py)."""
        return self.root / "samples.jsonl"

    @property
    def make_room(self) -> Path:
        """While it lies there an interactive job is asked to end, for another one waits: written by the daemon."""
        return self.root / "make_room"

    @property
    def log(self) -> Path:
        return self.root / "train.log"

    @property
    def latest_log(self) -> Path:
        """The log of the training, or that of the check where no training has begun."""
        return self.log if self.log.exists() or not self.check_log.exists() else self.check_log

    @property
    def base(self) -> Path:
        """The commit of a base model from the hub, so that every attempt trains the same one."""
        return self.root / "base.json"

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoints"

    @property
    def result(self) -> Path:
        return self.root / "result.json"

    @property
    def trained(self) -> Path:
        """The result of a training whose adapter is there, while further exports are made of it."""
        return self.root / "trained.json"

    @property
    def outcome(self) -> Path:
        """How the job ended (state, ended_at, error): written by the daemon just before the token's last move."""
        return self.root / "outcome.json"

    @property
    def exports(self) -> Path:
        return self.root / "exports"

    @property
    def report(self) -> Path:
        """Base against tuned, for people (runner/report): one file that needs no network."""
        return self.root / "report.html"

    @property
    def report_json(self) -> Path:
        """The same as data."""
        return self.root / "report.json"

    @property
    def report_pdf(self) -> Path:
        """Its first page, to be sent."""
        return self.root / "report.pdf"

    @property
    def removed(self) -> Path:
        """What somebody had deleted of the job, and when (spool/protocol/removed.py)."""
        return self.root / "removed.json"


@dataclass(frozen=True)
class Home:
    """The data home. Its root is absolute; nothing below is made from a name that somebody dropped."""

    root: Path

    @classmethod
    def at(cls, path: str | os.PathLike[str] | None = None) -> "Home":
        """From an option, else FINETUNER_HOME, else ./data."""
        return cls(Path(path or os.environ.get("FINETUNER_HOME") or "data").resolve())

    @property
    def spool(self) -> Path:
        return self.root / "spool"

    @property
    def incoming(self) -> Path:
        return self.spool / "incoming"

    @property
    def control(self) -> Path:
        return self.spool / "control"

    @property
    def asks(self) -> Path:
        """What interactive jobs are asked (spool/protocol/asks.py); their child takes it away."""
        return self.spool / "asks"

    @property
    def hold(self) -> Path:
        """While it lies there no job starts, also over a restart."""
        return self.control / "hold"

    @property
    def drain(self) -> Path:
        """While it lies there no job starts; the runner's next start takes it away."""
        return self.control / "drain"

    @property
    def look(self) -> Path:
        """An empty file that asks the runner to let the doctor look (runner/doctor.py)."""
        return self.control / "look"

    @property
    def doctor_json(self) -> Path:
        """What the doctor said when it was asked last, with the runner's eyes."""
        return self.spool / "doctor.json"

    @property
    def rejected(self) -> Path:
        return self.spool / "rejected"

    @property
    def states(self) -> Path:
        return self.spool / "state"

    def state(self, state: State) -> Path:
        return self.states / state.value

    @property
    def tmp(self) -> Path:
        return self.states / "tmp"

    @property
    def accepting(self) -> Path:
        return self.states / "accepting"

    @property
    def submissions(self) -> Path:
        """One small file a `submission_id` (named by its hash) that holds the id of the job it became."""
        return self.states / "submissions"

    def submission(self, submission_id: str) -> Path:
        return self.submissions / hashlib.sha256(submission_id.encode()).hexdigest()[:32]

    @property
    def runner_lock(self) -> Path:
        return self.states / "runner.lock"

    @property
    def gpu_lock(self) -> Path:
        return self.states / "gpu.lock"

    @property
    def reserve(self) -> Path:
        """Disk kept back for the day on which none is left (runner/reserve.py)."""
        return self.states / "reserve"

    @property
    def card_json(self) -> Path:
        """The GPU that the runner saw last (runner/card.py); delete it where a card was taken out for good."""
        return self.states / "card.json"

    @property
    def runner_json(self) -> Path:
        return self.spool / "runner.json"

    @property
    def runner_log(self) -> Path:
        return self.spool / "runner.log"

    @property
    def runs(self) -> Path:
        return self.root / "runs"

    def run(self, job_id: str) -> Run:
        return Run(self.runs / job_id)

    @property
    def datasets(self) -> Path:
        return self.root / "datasets"

    @property
    def models(self) -> Path:
        return self.root / "models"

    @property
    def notes(self) -> Path:
        """What people wrote on jobs (spool/protocol/notes.py); pages write here."""
        return self.root / "notes"

    @property
    def votes(self) -> Path:
        """What people found of answers side by side (spool/protocol/votes.py); pages write here."""
        return self.root / "votes"

    @property
    def settings(self) -> Path:
        return self.root / "settings.json"

    @property
    def benchmarks(self) -> Path:
        """Tasks of this server's own for reports (runner/report/benchmarks.py): YAML files, which may name code."""
        return self.root / "benchmarks"

    @property
    def cache(self) -> Path:
        """Compile, kernel, hub and token caches; may be deleted at any time."""
        return self.root / "cache"

    @property
    def tokens(self) -> Path:
        """Tokenised datasets, by content and tokenizer (spool/data/judging/tokens.py)."""
        return self.cache / "tokens"

    @property
    def base_answers(self) -> Path:
        """What bases have said to the rows and benchmarks of reports (runner/report/ask.py, harness.py)."""
        return self.cache / "base-answers"

    @property
    def hub_datasets(self) -> Path:
        """Datasets fetched from the Hugging Face Hub (spool/data/reading/hub.py)."""
        return self.cache / "hub-datasets"

    @property
    def seen(self) -> Path:
        """When people were on Home last (pages/parts/seen.py)."""
        return self.cache / "seen"

    def relative(self, path: Path) -> str:
        """How a path below the home is written down, so that a copy of the home elsewhere finds its own files."""
        return str(path.relative_to(self.root) if path.is_relative_to(self.root) else path)

    def create(self) -> "Home":
        """Makes the folders; any process may do it at any time."""
        durable.make_dirs(
            [self.incoming, self.control, self.asks, self.rejected, self.tmp, self.accepting, self.submissions]
            + [self.state(state) for state in State]
            + [self.runs, self.datasets, self.models, self.notes, self.votes]
        )
        return self
