"""What the engine for curves costs with a long run, against a dict a row: first look, whole, refresh, memory.

Run as: python -m bench.curves [--rows 1000000] [--naive-rows 200000]        (ratios are per row)

Times are the process's own CPU time, of all its threads: other load on the machine does not count.
"""

import argparse
import json
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROW_FIELDS = {"learning_rate": 2e-4, "grad_norm": 1.2, "tokens_per_s": 9400.5, "step_time_s": 0.11, "eta_s": 3600.0}
ROW_FIELDS |= {"host_mem_bytes": 2_310_000_000, "gpu_util_pct": 97, "gpu_mem_bytes": 18_400_000_000}
ROW_FIELDS |= {"gpu_power_w": 480.1, "gpu_temp_c": 61}


def write(path: Path, first: int, last: int, total: int) -> None:
    """Rows as a training writes them, an evaluation each 1,000 steps."""
    noise = np.random.default_rng(first).standard_normal(last - first)
    with open(path, "ab") as file:
        for step in range(first, last):
            loss = 2.5 * np.exp(-9 * step / total) + 0.4 + 0.05 * noise[step - first]
            row = {"v": 1, "attempt": 1, "seq": step, "t": 1.7e9 + step * 0.11, "step": step, "total_steps": total}
            row |= {"epoch": round(3 * step / total, 4), "loss": round(float(loss), 6), "tokens": step * 1800}
            file.write(json.dumps(row | ROW_FIELDS, separators=(",", ":")).encode() + b"\n")
            if step % 1000 == 0:
                file.write(json.dumps({**row, "loss": None, "eval_loss": float(loss) + 0.1}).encode() + b"\n")


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    started = time.process_time()
    return work(), time.process_time() - started


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def drawn(look: Any) -> None:
    """All that a page's refresh makes of a look."""
    from pages.parts.run import marks, series, verdict

    columns = look.columns
    columns.remember(("loss",), lambda: series.loss_table(columns))
    columns.remember(("strip",), lambda: series.strip_table(columns))
    columns.remember(("energy",), lambda: series.energy_wh(columns))
    columns.remember(("marks",), lambda: marks.find(columns, []))
    columns.remember(("verdict",), lambda: verdict.judge(columns))


def engine(path: Path, rows: int, told: Any) -> None:
    from pages.parts.run import bulk, curves

    bulk.parse(b'{"step":1,"loss":1}\n')  # what an import costs a server has paid before
    before, store = peak_bytes(), curves.Store()
    look, first_s = timed(lambda: store.look(path))
    _, first_drawn_s = timed(lambda: drawn(look))
    started = time.process_time()
    while look.reading:
        time.sleep(0.1)
        look = store.look(path)
    whole_s = first_s + time.process_time() - started
    _, whole_drawn_s = timed(lambda: drawn(look))
    refreshes = []
    for turn in range(12):
        write(path, rows + turn * 1000, rows + turn * 1000 + 1000, 2 * rows)
        look, refresh_s = timed(lambda: _refreshed(store, path))
        refreshes.append(refresh_s)
    _, still_s = timed(lambda: _refreshed(store, path))
    told.put(
        {
            "first_look_s": first_s,
            "first_drawn_s": first_drawn_s,
            "whole_s": whole_s,
            "whole_drawn_s": whole_drawn_s,
            "refresh_s": float(np.median(refreshes)),
            "refresh_slowest_s": max(refreshes),
            "nothing_new_s": still_s,
            "store_bytes": store.nbytes,
            "peak_bytes": peak_bytes() - before,
        }
    )


def _refreshed(store: Any, path: Path) -> Any:
    look = store.look(path)
    drawn(look)
    return look


def naive(path: Path, rows: int, told: Any) -> None:
    """A dict a row, kept; a refresh reads what is new and sorts all rows into one curve."""
    from spool.protocol import metrics

    before = peak_bytes()

    def read() -> Any:
        reader = metrics.Reader(path)
        return reader, metrics.one_line(reader.read_new())

    (reader, kept), whole_s = timed(read)
    write(path, rows, rows + 1000, 2 * rows)

    def refresh() -> Any:
        again = metrics.one_line(kept + reader.read_new())
        return [row["loss"] for row in again if row.get("loss") is not None]

    _, refresh_s = timed(refresh)
    told.put({"whole_s": whole_s, "refresh_s": refresh_s, "peak_bytes": peak_bytes() - before})


def apart(work: Callable[[Path, int, Any], None], path: Path, rows: int) -> dict[str, float]:
    """In a process of its own, so that its memory is its own."""
    context = multiprocessing.get_context("spawn")
    told = context.Queue()
    process = context.Process(target=work, args=(path, rows, told))
    process.start()
    found: dict[str, float] = told.get(timeout=600)
    process.join()
    return found


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.curves")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--naive-rows", type=int, default=200_000)
    asked = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        large, small = Path(folder) / "large.jsonl", Path(folder) / "small.jsonl"
        write(large, 1, asked.rows, 2 * asked.rows)
        write(small, 1, asked.naive_rows, 2 * asked.naive_rows)
        print(f"{asked.rows:,} rows, {large.stat().st_size / 1e6:.0f} MB", flush=True)
        ours, theirs = apart(engine, large, asked.rows), apart(naive, small, asked.naive_rows)
    for name, value in ours.items():
        print(f"{name:>20}  {value / 1e6:,.0f} MB" if name.endswith("bytes") else f"{name:>20}  {value:.3f} s")
    scale = asked.rows / asked.naive_rows
    print(f"a dict a row, {asked.naive_rows:,} rows, times {scale:g}:")
    for name in ("whole_s", "refresh_s", "peak_bytes"):
        expected = theirs[name] * scale
        shown = f"{expected / 1e6:,.0f} MB" if name.endswith("bytes") else f"{expected:.2f} s"
        print(f"{name:>20}  {shown}  ({expected / ours[name]:.1f} times as much)")


if __name__ == "__main__":
    main()
