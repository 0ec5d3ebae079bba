"""What the pages cost with a real server and browser: first paints, refreshes, the wire, twenty readers at once.

Run as: python -m bench.pages [--rows 1000000] [--jobs 10000] [--sessions 20]      (goals stand beside the results)

A first paint is the time from asking for the address to seeing what the page is about, in headless Chromium; beside it
stands the same of a page of Streamlit with nothing of ours on it. A refresh is one run of the page's fragment: its
server time is the web process's own CPU time over many of them, the wire is what the browser's WebSocket received.
"""

import argparse
import itertools
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from playwright.sync_api import Browser, BrowserContext, Page
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from websockets.sync.client import connect

from spool.protocol import durable, metrics
from spool.protocol.home import Home, State
from tests import crowd, showcase
from tests.screenshots import beating, browser, repeating, server

ROOT = Path(__file__).resolve().parent.parent
TICK_S = os.sysconf("SC_CLK_TCK")
WORKER = """
import sys, time
import numpy as np
a = np.random.default_rng(0).standard_normal((320, 320)).astype("float32")
took = []
end = time.monotonic() + float(sys.argv[1])
while time.monotonic() < end:
    started = time.perf_counter()
    for _ in range(60):
        a @ a
    took.append(time.perf_counter() - started)
took.sort()
print(took[len(took) // 2])
"""


class Web:
    """A web app over a home, with what its process costs."""

    def __init__(self, address: str, process: "subprocess.Popen[bytes]") -> None:
        self.address, self.process = address, process
        self.port = int(address.rpartition(":")[2])

    def cpu_s(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICK_S

    def memory_bytes(self) -> int:
        text = Path(f"/proc/{self.process.pid}/smaps_rollup").read_text()
        return 1024 * int(next(line.split()[1] for line in text.splitlines() if line.startswith("Pss:")))


@contextmanager
def serving(home: Home) -> Iterator[Web]:
    with server(home.root) as (address, process):
        yield Web(address, process)


def long_run(home: Home, job_id: str, rows: int) -> None:
    """Gives a running job that many rows of metrics: a falling loss with noise and three spikes."""
    noise = np.random.default_rng(1).standard_normal(rows)
    started = time.time() - rows * 0.1
    lines = []
    for step in range(1, rows + 1):
        loss = 2.5 * math.exp(-step / rows * 9) + 0.4 + 0.05 * noise[step - 1]
        loss += 5 if step in (rows // 7, rows // 3, rows // 2) else 0
        row = {"v": 1, "attempt": 1, "seq": step, "t": round(started + step * 0.1, 3), "step": step}
        row |= {"total_steps": rows + 500_000, "epoch": round(step / rows, 6), "loss": round(loss, 5)}
        row |= {"learning_rate": 2e-4, "grad_norm": 1.2, "tokens_per_s": 9400.5, "eta_s": 3600.0, "step_time_s": 0.1}
        row |= {"gpu_util_pct": 97, "gpu_mem_bytes": 18_400_000_000, "gpu_power_w": 480.1, "gpu_temp_c": 61}
        lines.append(json.dumps(row, separators=(",", ":")))
        if step % 5000 == 0:
            lines.append(json.dumps({**row, "seq": step, "eval_loss": loss + 0.1}))
    home.run(job_id).metrics.write_text("\n".join(lines) + "\n")


@dataclass(frozen=True)
class View:
    """An address, and what is to be seen there, as a CSS selector."""

    address: str
    seen: str


CHART = "[data-testid=stVegaLiteChart] :is(canvas, svg).marks"
"""The loss, not only the small courses beside the key figures."""

TABLE, BAR = "[data-testid=stDataFrame]", "[role=progressbar]"


def see(page: Page, selector: str) -> None:
    """Waits until it has a size. It looks with each frame: `expect` would look every half second, and tell that."""
    page.wait_for_function(
        "seen => [...document.querySelectorAll(seen)].some(each => each.checkVisibility({visibilityProperty: true})"
        " && each.getBoundingClientRect().height > 0)",
        arg=selector,
        timeout=120_000,
    )


def paint(window: BrowserContext, view: View) -> float:
    """Seconds from asking for the page to seeing it."""
    page = window.new_page()
    started = time.perf_counter()
    page.goto(view.address, wait_until="commit", timeout=120_000)
    see(page, view.seen)
    took = time.perf_counter() - started
    page.close()
    return took


@contextmanager
def window(browser: Browser) -> Iterator[BrowserContext]:
    """A browser that has never been here."""
    opened = browser.new_context(viewport={"width": 1440, "height": 1000}, locale="en-GB")
    yield opened
    opened.close()


def says(name: str, value: str, goal: str = "") -> None:
    print(f"{name:<44}{value}" + (f"   (goal {goal})" if goal else ""), flush=True)


def told(times: list[float]) -> str:
    return f"{statistics.median(times):.2f} s ({min(times):.2f} to {max(times):.2f})"


def paints(browser: Browser, what: str, ours: View, empty: View, goal: str, rounds: int = 7) -> None:
    """A page and an empty one in turns, in browsers that know Streamlit's files and in ones that do not."""
    with window(browser) as here, window(browser) as there:
        first = paint(here, ours)
        paint(there, empty)
        known = [(paint(here, ours), paint(there, empty)) for _ in range(rounds)]
    fresh = []
    for _ in range(rounds):
        with window(browser) as here, window(browser) as there:
            fresh.append((paint(here, ours), paint(there, empty)))
    says(f"{what}: first visitor of a new server", f"{first:.2f} s")
    for name, times in (("a browser that was here before", known), ("a browser without a cache", fresh)):
        page, nothing = ([pair[side] for pair in times] for side in (0, 1))
        says(f"{what}: {name}", f"{told(page)}; an empty page {told(nothing)}", goal)


def refreshes(browser: Browser, web: Web, home: Home, job_id: str, seconds: float = 40) -> None:
    """One reader on a running job to which a row is added each half second."""
    page = browser.new_context(viewport={"width": 1440, "height": 1000}).new_page()
    received: list[int] = []
    page.on("websocket", lambda channel: channel.on("framereceived", lambda data: received.append(len(data))))
    page.goto(f"{web.address}/monitor?job={job_id}")
    see(page, CHART)
    page.wait_for_timeout(8000)
    with growing(home, job_id):
        received.clear()
        cpu_s, started = web.cpu_s(), time.monotonic()
        page.wait_for_timeout(seconds * 1000)
        cpu_s, took_s = web.cpu_s() - cpu_s, time.monotonic() - started
    runs = took_s / 2
    page.context.close()
    says("Monitor: a refresh, CPU of the web process", f"{1000 * cpu_s / runs:.0f} ms", "150 ms")
    says("Monitor: a refresh, on the wire", f"{sum(received) / runs / 1000:.1f} kB", "60 kB")


def growing(home: Home, job_id: str) -> AbstractContextManager[None]:
    """A running job that logs two rows a second."""
    row = metrics.last(home.run(job_id).metrics) or {}
    steps = itertools.count(int(row.get("step") or 0) + 1)

    def grow() -> None:
        step = next(steps)
        more = {"step": step, "seq": step, "t": time.time(), "loss": 0.4 + 0.01 * (step % 7)}
        durable.append_line(home.run(job_id).metrics, {**row, **more})
        showcase.beat(home)

    return repeating(0.5, grow)


class Reader(threading.Thread):
    """A session without a browser: it opens a page and asks for each fragment as often as a browser would."""

    def __init__(self, port: int, page: str, query: str, until: float) -> None:
        super().__init__(daemon=True)
        self.port, self.page, self.query, self.until = port, page, query, until
        self.refreshes = 0

    def run(self) -> None:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 15)  # its work would be done on another machine
        with connect(  # type: ignore[arg-type]
            f"ws://127.0.0.1:{self.port}/_stcore/stream", max_size=None, origin=f"http://127.0.0.1:{self.port}"
        ) as channel:
            hello = BackMsg()
            hello.rerun_script.query_string, hello.rerun_script.page_name = self.query, self.page
            channel.send(hello.SerializeToString())
            due: dict[str, tuple[float, float]] = {}
            while time.monotonic() < self.until:
                try:
                    data = channel.recv(timeout=0.05)
                except TimeoutError:
                    data = None
                if data:
                    message = ForwardMsg()
                    message.ParseFromString(bytes(data))  # type: ignore[arg-type]
                    if message.WhichOneof("type") == "auto_rerun":
                        rerun = message.auto_rerun
                        due[rerun.fragment_id] = (time.monotonic() + rerun.interval, rerun.interval)
                for fragment, (at, interval) in list(due.items()):
                    if time.monotonic() >= at:
                        due[fragment] = (time.monotonic() + interval, interval)
                        again = BackMsg()
                        again.rerun_script.query_string, again.rerun_script.page_name = self.query, self.page
                        again.rerun_script.fragment_id = fragment
                        again.rerun_script.is_auto_rerun = True
                        channel.send(again.SerializeToString())
                        self.refreshes += 1


def many(web: Web, home: Home, job_id: str, sessions: int, seconds: float = 60) -> None:
    """Twenty readers of a running job, beside a stand-in for a training that is timed with and without them."""
    alone = float(subprocess.check_output([sys.executable, "-c", WORKER, "15"]))
    with growing(home, job_id):
        until = time.monotonic() + seconds + 20
        readers = [Reader(web.port, "monitor", f"job={job_id}", until) for _ in range(sessions)]
        for reader in readers:
            reader.start()
        time.sleep(20)
        cpu_s, before = web.cpu_s(), sum(reader.refreshes for reader in readers)
        beside = float(subprocess.check_output([sys.executable, "-c", WORKER, str(seconds - 5)]))
        memory = web.memory_bytes()
        cpu_s, counted = web.cpu_s() - cpu_s, sum(reader.refreshes for reader in readers) - before
        for reader in readers:
            reader.join()
    says(f"{sessions} sessions: refreshes asked for", f"{counted / (seconds - 5):.1f} a second")
    says(f"{sessions} sessions: the web process", f"{cpu_s / (seconds - 5):.2f} cores, {memory / 1e6:.0f} MB", "1 GB")
    says(f"{sessions} sessions: a training step beside it", f"{beside / alone:.3f} times its time alone")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.pages")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--sessions", type=int, default=20)
    arguments = parser.parse_args()
    print(f"{time.strftime('%Y-%m-%d')}, Python {platform.python_version()}, {os.cpu_count()} cores, "
          f"load {os.getloadavg()[0]:.1f}")  # fmt: skip
    with (
        tempfile.TemporaryDirectory() as scratch,
        browser() as chromium,
        server(Path(scratch), "bench/empty_page.py") as (empty, _),
    ):
        home = showcase.build(Path(scratch) / "long")
        crowd.crowd(home, ended=100, waiting=5)
        job_id = showcase.jobs(home, State.RUNNING)[0]
        long_run(home, job_id, arguments.rows)
        size_mb = home.run(job_id).metrics.stat().st_size / 1e6
        print(f"a run of {arguments.rows:,} rows ({size_mb:.0f} MB) among 100 others:")
        with serving(home) as web, beating(home):
            monitor = View(f"{web.address}/monitor?job={job_id}", CHART)
            paints(chromium, "Monitor", monitor, View(f"{empty}?with=chart", CHART), "1.5 s")
            refreshes(chromium, web, home, job_id)
            many(web, home, job_id, arguments.sessions)
        home = showcase.build(Path(scratch) / "crowd")
        crowd.crowd(home, ended=arguments.jobs * 9 // 10, waiting=arguments.jobs // 10)
        print(f"{arguments.jobs:,} jobs:")
        with serving(home) as web, beating(home):
            paints(chromium, "Queue", View(f"{web.address}/queue", TABLE), View(f"{empty}?with=table", TABLE), "1.5 s")
            paints(chromium, "Home", View(web.address, BAR), View(f"{empty}?with=progress", BAR), "1 s")


if __name__ == "__main__":
    main()
