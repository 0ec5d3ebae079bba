"""`make up`: runner and web app together, both gone after Ctrl-C."""

import os
import signal
import socket
import subprocess
import sys
import urllib.request

from conftest import ROOT, wait_for

from spool.health import heartbeat
from spool.protocol.home import Home


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def test_up_runs_both_and_ctrl_c_stops_both(home: Home) -> None:
    port = free_port()
    command = [sys.executable, "deploy/up.py", "--home", str(home.root), "--port", str(port)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env={**os.environ})

    def healthy() -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/_stcore/health", timeout=2) as answer:
                return answer.read() == b"ok"
        except OSError:
            return False

    try:
        wait_for(lambda: heartbeat.read(home).alive and healthy(), 60)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0, output
    assert f"http://127.0.0.1:{port}" in output
    assert heartbeat.read(home).stopped
    assert not healthy()


def test_up_ends_when_one_of_them_ends(home: Home) -> None:
    home.settings.write_text("{broken")
    command = [sys.executable, "deploy/up.py", "--home", str(home.root), "--port", str(free_port())]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 1
    assert "the runner ended by itself (exit code 78)" in done.stdout
