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
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PATIENCE_S = 150  # a job that trains writes a checkpoint first


def greet(port: int, web: "subprocess.Popen[bytes]") -> None:
    """Waits for the web app, and runs its script once: until then Streamlit knows no page behind a deep link."""
    base = f"http://127.0.0.1:{port}/_stcore"
    for page in ("health", "script-health-check"):
        while web.poll() is None:
            try:
                urllib.request.urlopen(f"{base}/{page}", timeout=30).close()
                break
            except urllib.error.HTTPError:
                break
            except OSError:
                time.sleep(0.2)
    if web.poll() is None:
        print(f"\n  Gemma Fine-Tuner: http://127.0.0.1:{port}   (Ctrl-C stops it)\n", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="make up")
    parser.add_argument("--home", default=os.environ.get("FINETUNER_HOME", "data"))
    parser.add_argument("--port", type=int, default=int(os.environ.get("PORT", "8501")))
    arguments = parser.parse_args()
    environment = {**os.environ, "FINETUNER_HOME": str(Path(arguments.home).resolve())}
    web = ["streamlit", "run", "streamlit_app.py", "--server.port", str(arguments.port), "--server.headless", "true"]
    commands = {"runner": ["runner.daemon"], "web app": web}
    stop: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda received, _: stop.append(received))
    processes = {
        name: subprocess.Popen([sys.executable, "-m", *command], cwd=ROOT, env=environment, start_new_session=True)
        for name, command in commands.items()
    }
    threading.Thread(target=greet, args=(arguments.port, processes["web app"]), daemon=True).start()
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
