"""Runs the runner and the web app together, and stops both cleanly on Ctrl-C or SIGTERM.

Run as: make up        (or: python deploy/up.py [--home DIR] [--port 8501])
"""

import argparse
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from greet import greet

ROOT = Path(__file__).resolve().parent.parent
PATIENCE_S = 150  # a job that trains writes a checkpoint first
NICE = 5  # where both want a core, a training goes before a page


def welcome(port: int, web: "subprocess.Popen[bytes]") -> None:
    """Says where the web app is, once it is there."""
    if greet(port, lambda: web.poll() is None):
        print(f"\n  Gemma Fine-Tuner: http://127.0.0.1:{port}   (Ctrl-C stops it)\n", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="make up")
    parser.add_argument("--home", default=os.environ.get("FINETUNER_HOME", "data"))
    parser.add_argument("--port", type=int, default=int(os.environ.get("PORT", "8501")))
    arguments = parser.parse_args()
    environment = {**os.environ, "FINETUNER_HOME": str(Path(arguments.home).resolve())}
    web = ["streamlit", "run", "deploy/serve.py", "--server.port", str(arguments.port), "--server.headless", "true"]
    commands = {"runner": ["runner.daemon"], "web app": web}
    stop: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda received, _: stop.append(received))
    processes = {
        name: subprocess.Popen([sys.executable, "-m", *command], cwd=ROOT, env=environment, start_new_session=True)
        for name, command in commands.items()
    }
    os.setpriority(os.PRIO_PROCESS, processes["web app"].pid, NICE)
    threading.Thread(target=welcome, args=(arguments.port, processes["web app"]), daemon=True).start()
    while not stop and all(process.poll() is None for process in processes.values()):
        time.sleep(0.1)
    failed = [f"the {name} ended by itself (exit code {p.poll()})" for name, p in processes.items() if p.poll()]
    print("\n".join(failed) or "stopping: a running job writes a checkpoint and goes on next time", flush=True)
    for process in processes.values():
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
    for process in processes.values():
        try:
            process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
