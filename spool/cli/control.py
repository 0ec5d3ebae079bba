"""`finetuner cancel`, `hold`, `release` and `top`: orders that the runner carries out at its next look."""

import argparse

from spool.cli import terminal, which
from spool.health import heartbeat
from spool.protocol import dropbox, jobs
from spool.protocol.home import Home

DONE = {
    "cancel": "will be cancelled",
    "hold": "will be held",
    "release": "will be released",
    "top": "will go to the front of the queue",
}


def run(arguments: argparse.Namespace, home: Home) -> int:
    job_id = which.resolve(home, arguments.id)
    dropbox.control(home, arguments.verb, job_id)
    terminal.say(f"{job_id} {DONE[arguments.verb]}.")
    if not heartbeat.read(home).alive:
        terminal.say("No runner is alive: it will do so when it starts (`make up`).")
    if arguments.json:
        terminal.print_json(jobs.get_job(home, job_id).to_json())
    return 0
