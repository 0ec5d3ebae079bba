"""Runs cases side by side and keeps the table: what was tried how often, what was reached, what went wrong."""

import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from tests.faults.box import close_zygotes

Case = Callable[[], tuple[bool, list[str]]]
"""Gives whether the point was reached, and what was wrong."""


@dataclass
class Row:
    name: str
    tried: int = 0
    reached: int = 0
    failed: int = 0
    seconds: float = 0.0


@dataclass
class Report:
    workers: int = 2
    rows: list[Row] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def run(self, name: str, cases: Iterable[tuple[str, Case]]) -> Row:
        """One row of the table; each failure is printed at once with all that is known."""
        row, began = Row(name), time.monotonic()
        self.rows.append(row)
        with ThreadPoolExecutor(self.workers) as pool:
            running = [(label, pool.submit(self._case, case)) for label, case in cases]
            for label, future in running:
                try:
                    reached, wrong = future.result()
                except BaseException:  # stopped by somebody: what has not begun does not begin
                    pool.shutdown(wait=False, cancel_futures=True)
                    raise
                row.tried += 1
                row.reached += reached
                if wrong:
                    row.failed += 1
                    self.failures.append(f"{name} / {label}: {wrong[0]}")
                    self._say(f"FAILED {name} / {label}\n" + "\n".join(f"    {each}" for each in wrong))
        close_zygotes()  # they belong to the threads of this row
        row.seconds = time.monotonic() - began
        self._say(f"{name}: {row.tried} tried, {row.reached} reached, {row.failed} failed, {row.seconds:.0f} s")
        return row

    @staticmethod
    def _case(case: Case) -> tuple[bool, list[str]]:
        try:
            return case()
        except Exception as error:
            return False, [f"the suite itself: {type(error).__name__}: {error}"]

    @staticmethod
    def _say(words: str) -> None:
        print(words, file=sys.stderr, flush=True)

    def table(self) -> str:
        head = f"{'what':58} {'tried':>6} {'reached':>8} {'failed':>7} {'s':>6}"
        lines = [head, "-" * len(head)]
        lines += [f"{r.name:58} {r.tried:6} {r.reached:8} {r.failed:7} {r.seconds:6.0f}" for r in self.rows]
        lines += [f"  failed: {words[:200]}" for words in self.failures]
        total = sum(row.tried for row in self.rows)
        lines += ["-" * len(head), f"{'all':58} {total:6} {sum(r.reached for r in self.rows):8} {len(self.failures):7}"]
        return "\n".join(lines)
