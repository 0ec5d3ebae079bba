"""The doctor's look on request: a child with the runner's own eyes, as a web app in its sandbox sees a part only.

control/look asks for one; spool/doctor.json is what `finetuner doctor --json` said, with `at` (UTC epoch s) and the
`account` that looked. Nothing rests on it, and nothing waits for it.
"""

import getpass
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import IO

from spool.protocol import durable
from spool.protocol.home import Home
from spool.protocol.process import search_path

log = logging.getLogger("runner")

PATIENCE_S = 60.0
"""A disk that hangs may hold the child for ever."""
COMMAND = (sys.executable, "-m", "spool.cli.main", "doctor", "--json")


class Doctor:
    """Only the daemon's main thread calls it; `look` never waits."""

    def __init__(
        self, home: Home, command: tuple[str, ...] = COMMAND, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.home = home
        self.command = command
        self.clock = clock
        self._child: subprocess.Popen[bytes] | None = None
        self._said: IO[bytes] | None = None
        self._since = 0.0

    def look(self) -> None:
        """Begins a look where one is asked for, and writes down what came of the one that was begun."""
        try:
            if self._child is None or self._ended():
                self._begin()
        except OSError as error:  # a full disk, too many processes: no reason to hold the queue
            log.warning("the doctor cannot look: %s", error.strerror or error)

    def _begin(self) -> None:
        try:
            self.home.look.unlink()
        except FileNotFoundError:
            return
        self._said = tempfile.TemporaryFile()  # noqa: SIM115  (it lives until the child has ended)
        self._since = self.clock()
        self._child = subprocess.Popen(
            [*self.command, "--home", str(self.home.root)],
            stdin=subprocess.DEVNULL,
            stdout=self._said,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": search_path()},
        )

    def _ended(self) -> bool:
        assert self._child is not None
        assert self._said is not None
        if self._child.poll() is None:
            if self.clock() - self._since > PATIENCE_S:
                self._child.kill()
            return False
        with self._said as file:
            file.seek(0)
            said = file.read()
        self._child = self._said = None
        try:
            found = json.loads(said)
            document = {"v": 1, "at": round(time.time(), 3), "account": _account(), **found}
        except (ValueError, TypeError):
            log.warning("the doctor ended without a report")
            return True
        durable.write_atomic(self.home.doctor_json, durable.to_bytes(document))
        return True


def _account() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())
