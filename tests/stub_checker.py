"""A checker for tests of the daemon that reads no data: speaks the checking child's protocol in milliseconds.

The job's name says what comes of it: `blocked` fails, `check crash` dies by SIGSEGV, `check once` does so the first
time, `check slow` waits until runs/ID/go is there, `check away` finds no network the first time. All others
pass at once.
"""

import json
import os
import signal
import sys
import time


def check(home: str, job_id: str) -> None:
    run = f"{home}/runs/{job_id}"
    with open(f"{run}/spec.json") as file:
        name = json.load(file)["name"]
    with open(f"{run}/check.log", "a") as file:
        file.write(f"check {os.getpid()}\n")
    first = not os.path.exists(f"{run}/begun")
    open(f"{run}/begun", "w").close()
    if name == "check crash" or (name == "check once" and first):
        os.kill(os.getpid(), signal.SIGSEGV)
    while name == "check slow" and not os.path.exists(f"{run}/go"):
        time.sleep(0.01)
    error = {"code": "data_blocked", "message": "nothing to train on.", "hint": "Add answers."}
    verdict = {"v": 1, "outcome": "passed", "error": None}
    if name == "blocked":
        verdict |= {"outcome": "failed", "error": error}
    if name == "check away" and first:
        verdict |= {"outcome": "failed", "error": {"code": "no_network", "message": "no way.", "hint": "Wait."}}
    with open(f"{run}/.checked.{os.getpid()}", "w") as file:
        json.dump(verdict, file)
    os.rename(file.name, f"{run}/checked.json")


def main() -> None:
    home, job_ids = sys.argv[2], sys.argv[3:]
    for job_id in job_ids:
        if any(name.endswith(f"-{job_id}.json") for name in os.listdir(f"{home}/spool/state/checking")):
            check(home, job_id)


main()
