"""`finetuner cancel`, `hold`, `release`, `top`, `up` and `down`: what the runner is asked to do."""

import argparse

from spool.cli import terminal, which
from spool.health import heartbeat
from spool.protocol import dropbox, durable, jobs
from spool.protocol.home import Home

DONE = {
    "cancel": "will be cancelled",
    "hold": "will be held",
    "release": "will be released",
    "top": "will go to the front of the queue",
    "up": "will go one place up in the queue",
    "down": "will go one place down in the queue",
}
QUEUE = {
    "hold": "The queue is held: no job starts, also after a restart, until `finetuner release`.",
    "release": "The queue goes on.",
    "drain": "The runner drains: it finishes its job and starts no other.",
}


def run(arguments: argparse.Namespace, home: Home) -> int:
    if arguments.id is None:
        return tell_queue(arguments, home)
    job_id = which.resolve(home, arguments.id)
    dropbox.control(home, arguments.verb, job_id)
    terminal.say(f"{job_id} {DONE[arguments.verb]}.")
    warn_without_runner(home)
    if arguments.json:
        terminal.print_json(jobs.get_job(home, job_id).to_json())
    return 0


def tell_queue(arguments: argparse.Namespace, home: Home) -> int:
    dropbox.queue(home, arguments.verb)
    terminal.say(QUEUE[arguments.verb])
    warn_without_runner(home)
    if arguments.json:
        terminal.print_json(durable.read_json(home.runner_json) or {})
    return 0


def warn_without_runner(home: Home, then: str = "it will do so when it starts") -> None:
    if not heartbeat.read(home).alive:
        terminal.say(f"No runner is alive: {then} (`make up`, or `systemctl start finetuner-runner`).")
