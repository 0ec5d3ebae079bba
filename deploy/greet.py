"""Waits until the web app serves, and runs its script once: until then Streamlit knows no page behind a deep link.

Run as: python deploy/greet.py --port 8501 --pid N        (finetuner-web.service does, deploy/up.py calls `greet`)

It ends when process N has ended: a web app that refuses to start must not keep systemd waiting.
"""

import argparse
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable


def greet(port: int, alive: Callable[[], bool] = lambda: True) -> bool:
    """True once both answered; False when the app was no longer alive."""
    base = f"http://127.0.0.1:{port}/_stcore"
    for page in ("health", "script-health-check"):
        while alive():
            try:
                urllib.request.urlopen(f"{base}/{page}", timeout=30).close()
                break
            except urllib.error.HTTPError:
                break
            except OSError:
                time.sleep(0.2)
    return alive()


def lives(pid: int) -> bool:
    """Asked with a signal: in a service's sandbox /proc does not show it."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="greet")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--pid", type=int, required=True)
    arguments = parser.parse_args()
    greet(arguments.port, lambda: lives(arguments.pid))
