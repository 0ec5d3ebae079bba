"""`finetuner drain`: before a reboot or an upgrade. The running job is finished, no other is started."""

import argparse
import time

from spool.cli import control, terminal
from spool.health import heartbeat
from spool.protocol.home import Home

LOOK_S = 0.5


def run(arguments: argparse.Namespace, home: Home) -> int:
    control.tell_queue(arguments, home)
    told = None
    while arguments.wait:
        beat = heartbeat.read(home)
        if not beat.alive:
            terminal.say("No runner is alive: nothing runs.")
            break
        if beat.queue in ("draining", "held") and beat.current_job is None:
            terminal.say("Nothing runs any more.")
            break
        if beat.current_job != told:
            told = beat.current_job
            terminal.say(f"{told} still runs." if told else "Waiting for the runner.")
        time.sleep(LOOK_S)
    return 0
