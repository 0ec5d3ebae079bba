"""The runner: takes drops, has their data checked, keeps the queue, runs a child process a job. Never imports torch.

Run as: finetuner-runner [--home DIR]        (or: python -m runner.daemon)

Exit codes: 0 stopped, 75 another runner holds the lock, 78 the configuration is unusable.
"""

import argparse
import errno
import logging
import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner import attempts, conclude, launch, recover, taking
from runner.accept import Intake
from runner.card import Card
from runner.conclude import Ending
from runner.doctor import Doctor
from runner.gate import LOOK_S, Gate
from runner.guest import Guest
from runner.notify import Notify
from runner.orders import Orders
from runner.reserve import Reserve
from runner.retention import Retention
from runner.room import Room
from runner.schedule import Schedule
from runner.stall import Orphan, Vigil, Watched
from runner.submitters import Submitters
from runner.watch import Wake, Watch
from spool.health.environment import torch_build
from spool.health.gpu import Gpu
from spool.protocol import asks, durable, settings
from spool.protocol.errors import SettingsError
from spool.protocol.home import Home, State
from spool.protocol.jobs import now_iso
from spool.protocol.resolve import Places
from spool.protocol.states import Token, Tokens

log = logging.getLogger("runner")

EXIT_LOCKED = 75
EXIT_CONFIG = 78
VERSION = "0.1.0"


SWEEP_S = 0.05
"""How long one look may spend on removing what nobody needs any more."""


class Halt(Exception):
    """A fault of the machine: the queue is held, and asked again at each scan until it is gone."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


@dataclass(frozen=True)
class Running:
    """The one job that trains just now."""

    token: Token
    child: launch.Child
    vigil: Vigil
    guest: Guest | None
    """Of a session: it makes room for others."""


class Daemon:
    """One runner over one data home. `tick` does everything that is due; `run` ticks until a signal says stop."""

    def __init__(
        self,
        home: Home,
        options: settings.Settings,
        started_in: Path,
        trainer: tuple[str, ...],
        checker: tuple[str, ...],
        warm: tuple[str, ...] = (),
    ) -> None:
        self.home = home
        self.options = options
        self.started_in = started_in
        self.trainer = trainer
        network = settings.is_network_mount(home.incoming)
        self.settle_s = options.settle_s or (3.0 if network else 0.5)
        self.scan_s = options.scan_s or (5.0 if network else 2.0)
        self.notify = Notify(os.environ)
        self.wake = Wake()
        self.watch = Watch(self.wake, [home.incoming, home.control])
        self.tokens = Tokens(home)
        places = Places(home, started_in, settings.roots(options, home, started_in))
        room = Room(home, options.max_queued, options.max_queued_per_user)
        submitters = Submitters(options.web_accounts)
        self.intake = Intake(home, places, self.settle_s, options.unreadable_s, room=room, submitters=submitters)
        self.gate = Gate(home, started_in, checker)
        self.orders = Orders(home, self._cancel, submitters)
        self.doctor = Doctor(home)
        self.schedule = Schedule(home, options, self.orders)
        self.card = Card(home, Gpu(), options.gpu_foreign_gb)
        self.reserve = Reserve(home, options.reserve_mb * 1_000_000)
        self.retention = Retention(home, options, started_in=started_in)
        self.gpu_lock = launch.Lock(home.gpu_lock, home.state(State.RUNNING))
        self.warm = launch.Warm(home, started_in, warm) if warm and options.warm else None
        self.running: Running | None = None
        self.orphan: Vigil | None = None
        """Watches the trainer that an earlier runner left behind."""
        self.orphan_guest: Guest | None = None
        """Of a session that an earlier runner left behind."""
        self.stopping = False
        self.halted: dict[str, str] | None = None
        self.waiting_for: str | None = None
        self.started_at = now_iso()
        self._reconciled = False
        self._next_heartbeat = 0.0
        self._recovered = False
        self._begun = False
        self._told: dict[str, Any] = {}

    def run(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_stop)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # only so that a child's end wakes the wait
        self.wake.on_signals()
        while not (self.stopping and self.running is None and self.gate.child is None):
            self.wake.wait(self.tick())
        try:
            self.watch.stop()
            self._tell("stopped")
        except OSError as error:
            log.warning("stopped, and %s cannot say so: %s", self.home.runner_json, error.strerror)

    def _on_stop(self, *_: Any) -> None:
        self.stopping = True

    def tick(self) -> float:
        """Does what is due; gives the seconds until something may be due again."""
        try:
            soonest = self._work()
            if self.halted:
                log.info("the fault is gone, going on")
            self.halted = None
        except (OSError, Halt) as error:
            self._halt(error)
            soonest = self.scan_s
        self._heartbeat()
        self.notify.alive(self.stopping)
        return soonest

    def _work(self) -> float:
        self._reap()
        self.gate.settle()
        if self.stopping:
            self.gate.stop()
            if self.running:
                self.running.child.terminate(self.options.stop_s)
            return 0.2
        young = self._scan()  # before a job is started: it may just have been queued, and be asked to hold
        self.gate.start()
        self._start_next()
        self._keep_warm()
        self.retention.sweep(SWEEP_S)
        soonest = min(self.scan_s, self.options.heartbeat_s)
        if young is not None:
            soonest = min(soonest, young)
        if self.gate.child:
            soonest = min(soonest, LOOK_S)
        if self.running and self.running.child.kill_at is not None:
            soonest = min(soonest, 0.2)
        return soonest

    def _scan(self) -> float | None:
        """Looks through incoming/ and control/. The folders are the truth, an event only made it happen sooner."""
        self.home.create()
        self.watch.ensure()
        self.reserve.ensure()
        if not self._begun:
            self.orders.begin()
            self._begun = True
        if not self._recovered:
            recover.heal(self.home)
            self.intake.recover()
            self._recovered = True
        young = self.intake.scan()
        self.orders.look()
        self.doctor.look()
        asks.sweep(self.home)
        return young

    def _cancel(self, state: State, token: Token) -> bool:
        """Ends a job that somebody wants ended; False while its child still lives."""
        if state is State.RUNNING:
            if self.running and self.running.token == token:
                self.running.child.terminate(self.options.grace_s)
            return False  # the file stays until the job has ended: the child looks at it, and so does a new runner
        conclude.end(self.home, token, state, State.CANCELLED)
        self.gate.forget(token.job_id)
        return True

    def _start_next(self) -> None:
        if self.running:
            self.running.vigil.look()
            if self.running.guest:
                self.running.guest.look()
            if self.schedule.must_stop():
                self.running.child.terminate(self.options.stop_s)
            return
        if not self.gpu_lock.acquire():
            self.waiting_for = "a trainer of an earlier runner still lives"
            self._watch_orphan()
            return
        if not self._reconciled:
            for token in self.tokens.list(State.RUNNING):
                conclude.attempt(self.home, token, Ending(stalled=self.orphan.why if self.orphan else None))
            self._reconciled, self.orphan, self.orphan_guest = True, None, None
        self.waiting_for = self.schedule.why_not()
        if not self.reserve.whole:
            self.waiting_for = "the disk is nearly full: no job starts before there is room for the reserve again"
        first = None if self.waiting_for else self.schedule.next()
        if first is None:
            return
        if lost := self.card.fault():
            raise Halt("gpu_lost", lost)
        self.waiting_for = self.card.busy()
        if self.waiting_for is None:
            self._start(first)

    def _watch_orphan(self) -> None:
        running = self.tokens.list(State.RUNNING)
        if self.orphan is None and running:
            job_id = running[0].job_id
            left = Orphan(self.home, job_id)
            self.orphan = Vigil(self.home.run(job_id), left)
            self.orphan_guest = self._guest(job_id, left)
        if self.orphan:
            self.orphan.look()
        if self.orphan_guest:
            self.orphan_guest.look()

    def _guest(self, job_id: str, child: Watched) -> Guest | None:
        """Only a session is a guest."""
        if not self.schedule.is_session(job_id):
            return None
        return Guest(self.home.run(job_id), child, self.schedule.wants_room)

    def _start(self, token: Token) -> None:
        try:
            self.tokens.move(token, State.QUEUED, State.RUNNING)
        except FileNotFoundError:
            return
        number = attempts.begin(self.home, token.job_id)
        child = self.warm.take(token.job_id, number, self.gpu_lock) if self.warm else None
        if child is None:
            child = launch.start(self.home, token.job_id, number, self.gpu_lock, self.started_in, self.trainer)
        vigil = Vigil(self.home.run(token.job_id), child)
        self.running = Running(token, child, vigil, self._guest(token.job_id, child))
        log.info("started %s, attempt %d", token.job_id, number)
        self._heartbeat(now=True)

    def _keep_warm(self) -> None:
        """The next job finds a child that has its libraries loaded. First of all the daemon says that it is there."""
        if self.warm and self._told and self.warm.due() and self.card.fault() is None:
            self.warm.start(on_gpu=self.card.present() and torch_build() == "gpu")

    def _reap(self) -> None:
        if self.running and self.running.child.poll():
            child, vigil = self.running.child, self.running.vigil
            lost = self.card.fault() is not None
            ending = Ending(child.returncode, child.killed_for_memory(), vigil.why, lost)
            conclude.attempt(self.home, self.running.token, ending)
            self.running = None

    def _halt(self, error: OSError | Halt) -> None:
        if isinstance(error, Halt):
            if self.halted is None:
                log.error("halted, the queue is held: %s", error.reason)
            self.halted = {"code": error.code, "reason": error.reason}
            return
        name = errno.errorcode.get(error.errno or 0, "error")
        reason = f"{error.strerror or error} ({name}) at {error.filename or 'the data home'}"
        if self.halted is None:
            log.error("halted, the queue is held: %s", reason, exc_info=True)
        self.halted = {"code": name.lower(), "reason": reason}
        if self.reserve.helps(error):
            self.reserve.release()
        # what was taken and not committed, or claimed and not started, is put right first
        self._recovered = self._reconciled = False

    def _heartbeat(self, now: bool = False) -> None:
        if not now and time.monotonic() < self._next_heartbeat and self._told == self._status():
            return
        self._next_heartbeat = time.monotonic() + self.options.heartbeat_s
        try:
            self._tell(self._state())
        except OSError as error:
            self._halt(error)

    def _state(self) -> str:
        if self.halted:
            return "halted"
        if self.stopping:
            return "stopping"
        return "waiting" if self.waiting_for else "ready"

    def _status(self) -> dict[str, Any]:
        return {
            "state": self._state(),
            "queue": self.schedule.queue(),
            "current_job": self.running.token.job_id if self.running else None,
            "halted": self.halted,
            "waiting_for": self.waiting_for,
        }

    def _words(self, state: str) -> str:
        if self.halted:
            return f"halted, the queue is held: {self.halted['reason']}"
        return f"{state}: job {self.running.token.job_id}" if self.running else self.waiting_for or state

    def _tell(self, state: str) -> None:
        self._told = self._status()
        self.notify.tell(self._words(state), self.stopping)
        document = {
            "v": 1,
            "pid": os.getpid(),
            "version": VERSION,
            "started_at": self.started_at,
            "heartbeat": round(time.time(), 3),
            **self._told,
            "state": state,
            "started_in": str(self.started_in),
            "file_events": self.watch.problem or "ok",
            "left_in_incoming": {taking.shown(name): why for name, why in list(self.intake.left.items())[:20]},
        }
        temporary = self.home.runner_json.with_name(".runner.json.tmp")
        temporary.write_bytes(durable.to_bytes(document))  # a heartbeat is not fsynced: it is about now
        os.rename(temporary, self.home.runner_json)


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="finetuner-runner", description="Takes jobs from the spool and runs them.")
    parser.add_argument("--home", help="the data home (default: FINETUNER_HOME, else ./data)")
    parser.add_argument("--trainer", nargs="+", help=argparse.SUPPRESS, default=list(launch.TRAINER))
    parser.add_argument("--checker", nargs="+", help=argparse.SUPPRESS, default=list(launch.CHECKER))
    parser.add_argument("--warm", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.warm is None:  # it becomes the real trainer, and no other
        arguments.warm = launch.WARM if tuple(arguments.trainer) == launch.TRAINER else ()
    return arguments


def main(argv: list[str] | None = None) -> int:
    arguments = parse_arguments(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    home = Home.at(arguments.home)
    try:
        options = settings.load(home)
        home.create()
    except (SettingsError, OSError) as error:
        hint = error.hint if isinstance(error, SettingsError) else ""
        print(f"finetuner-runner: {error} {hint}".rstrip(), file=sys.stderr)
        return EXIT_CONFIG
    lock = launch.Lock(home.runner_lock, home.states)
    try:
        alone = lock.acquire()
    except OSError as error:
        print(f"finetuner-runner: cannot lock {home.runner_lock}: {error}", file=sys.stderr)
        return EXIT_CONFIG
    if not alone:
        other = durable.read_json(home.runner_json) or {}
        who = f"pid {other.get('pid')}, since {other.get('started_at')}"
        print(f"finetuner-runner: another runner ({who}) holds {home.runner_lock}", file=sys.stderr)
        return EXIT_LOCKED
    commands = (tuple(words) for words in (arguments.trainer, arguments.checker, arguments.warm))
    daemon = Daemon(home, options, Path.cwd(), *commands)
    log.info("runner %s on %s", VERSION, home.root)
    daemon.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
