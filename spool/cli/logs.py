"""`finetuner logs`: a job's log (before it trains, its check's), and with -f what comes until the job has ended."""

import argparse
import codecs
import io
import sys
import time
from pathlib import Path
from typing import TextIO

from spool.cli import terminal, which
from spool.protocol import jobs
from spool.protocol.home import Home

POLL_S = 0.3
CHUNK_BYTES = 1 << 16


class Tail:
    """Gives the whole lines that were added to a file; starts over when it was replaced or cut short."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.offset = 0
        self._rest = ""
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def read(self) -> str:
        """The next piece, "" when there is none now. A line longer than a chunk comes in pieces."""
        try:
            with open(self.path, "rb") as file:
                if file.seek(0, 2) < self.offset:
                    self.offset, self._rest = 0, ""
                    self._decoder.reset()
                file.seek(self.offset)
                data = file.read(CHUNK_BYTES)
        except FileNotFoundError:
            return ""
        self.offset += len(data)
        text = self._rest + self._decoder.decode(data)
        # A carriage return at the very end may be half of a line end.
        end = max(text.rfind("\n"), text.rfind("\r", 0, -1)) + 1
        if len(text) - end > CHUNK_BYTES:
            end = len(text)
        whole, self._rest = text[:end], text[end:]
        return whole

    def rest(self) -> str:
        rest, self._rest = self._rest, ""
        return rest


def run(arguments: argparse.Namespace, home: Home) -> int:
    job_id = which.resolve(home, arguments.id)
    if not arguments.json:
        return follow(arguments, home, job_id, sys.stdout)
    log = io.StringIO()
    follow(arguments, home, job_id, log)
    path = home.run(job_id).latest_log
    state = jobs.get_job(home, job_id).state
    lines = log.getvalue().splitlines()
    terminal.print_json({"id": job_id, "state": state, "path": str(path) if path.exists() else None, "lines": lines})
    return 0


def follow(arguments: argparse.Namespace, home: Home, job_id: str, out: TextIO) -> int:
    """Writes the log to `out`, with -f until the job has ended."""
    run = home.run(job_id)
    tail = Tail(run.latest_log)
    job = jobs.get_job(home, job_id)
    if not tail.path.exists() and (job.ended or not arguments.follow):
        terminal.say(f"{job_id} is {job.state} and has no log: it never started.")
        return 0
    while True:
        ended = not arguments.follow or jobs.get_job(home, job_id).ended
        before = tail.offset
        while (text := tail.read()) or tail.offset != before:
            before = tail.offset
            out.write(terminal.plain_log(text))
        out.flush()
        if tail.path != run.latest_log:  # the check is over and told, the training has begun
            tail = Tail(run.latest_log)
            continue
        if ended:  # and so it had before the last look: nothing comes any more
            break
        time.sleep(POLL_S)
    rest = tail.rest()
    if rest:
        out.write(terminal.plain_log(rest) + "\n")
        out.flush()
    if arguments.follow:
        terminal.say(f"{job_id} is {jobs.get_job(home, job_id).state}.")
    return 0
