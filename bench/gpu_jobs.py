"""Jobs of real daemons that share one GPU and are not timed: what is learned, which models train, what is left.

Run as: python -m bench.gpu_jobs OUT.json [--only PART ...] [--until-s 540]        (needs CUDA; not part of CI)

Random weights of the true shapes. The parts run side by side; each job's findings are written to OUT.json as it ends,
and nothing is begun that would not end in time. What needs the card for itself is in bench/gpu_plan.py. --tiny tries
the parts without a card.
"""

import argparse
import itertools
import json
import math
import queue
import random
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from bench import random_gemma
from bench.gpu_stage import ROOT, Found, Lane, Stage, built, facts
from spool.forecast import costs, shapes
from spool.health.gpu import Gpu
from spool.protocol import dropbox, metrics

FOUR = ("gemma-7b", "gemma-2b", "gemma-3-1b", "gemma-3-270m")
"""With all layers and two lengths of rows: the four shapes that the forecast is held against."""
NEXT = ("gemma-2-2b", "gemma-3-4b", "gemma-3n-e2b", "gemma-4-e2b")
"""The smallest of each other family; then come all that are left."""
KEPT = ("gemma-2b", "gemma-3-270m")
"""What other parts and bench/gpu_plan.py train too; the disk has no room for all."""
LAYERS = 7
"""Of models beyond 3 billion parameters that are not among the four: each kind of attention layer is there."""
WORKERS = 5
CARD_BYTES = 64e9
"""For the models; what is learned and the jobs in a row take some GB beside them."""
SEEDS = (1, 2, 3)
BRANCHES = 0.15
"""Of the synthetic text's symbols, those that do not follow from the one before."""


class Bench:
    """The stage, and how much of the card and of the time the jobs may take together."""

    def __init__(self, stage: Stage, until_s: float, tiny: bool, names: list[str], learner: Path | None) -> None:
        self.stage, self.tiny, self.names, self.learner = stage, tiny, names, learner
        self.ends_at = time.monotonic() + until_s
        self.free = threading.Condition()
        self.taken = 0.0

    def left_s(self) -> float:
        return self.ends_at - time.monotonic()

    @contextmanager
    def share(self, count: float) -> Iterator[None]:
        """So many bytes of the card, waited for: a job plans by what it finds free."""
        count = min(count, CARD_BYTES)
        with self.free:
            self.free.wait_for(lambda: self.taken + count <= CARD_BYTES or self.left_s() < 0)
            self.taken += count
        try:
            yield
        finally:
            with self.free:
                self.taken -= count
                self.free.notify_all()

    def rows(self, name: str, texts: list[str]) -> Path:
        path = self.stage.root / f"{name}.jsonl"
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
        return path

    def job(self, lane: Lane, model: str, rows: Path, steps: int, **more: Any) -> tuple[str, float]:
        """(id, when it was dropped) of a job that is done."""
        train = {"max_steps": steps, "save_steps": steps, "effective_batch": 8, **more.pop("train", {})}
        spec = {"schema": 1, "model": model, "dataset": str(rows), "data": {"eval_fraction": 0}, "train": train, **more}
        assert self.left_s() > 20, "no time was left"
        dropped_at = time.time()
        job_id = dropbox.submit(lane.home, spec)
        try:
            lane.ended(job_id, timeout_s=self.left_s())
        except AssertionError:
            dropbox.cancel(lane.home, job_id)  # the next one need not wait for it
            raise
        return job_id, dropped_at


def predictable(count: int, tokens: int, seed: int) -> list[str]:
    """Rows whose next symbol mostly follows from the one before: what a training can learn, down to a known loss."""
    draw, symbols = random.Random(seed), random_gemma.SYMBOLS
    rows = []
    for _ in range(count):
        text = [draw.choice(symbols)]
        for _ in range(draw.randint(tokens // 4, tokens) - 3):
            follows = symbols[(symbols.index(text[-1]) * 2 + 1) % len(symbols)]
            text.append(draw.choice(symbols) if draw.random() < BRANCHES else follows)
        rows.append("".join(text))
    return rows


def least_loss() -> float:
    """Of a row's symbols, in nats: what is random in them."""
    n = len(random_gemma.SYMBOLS)
    likely = 1 - BRANCHES + BRANCHES / n
    return -likely * math.log(likely) - (n - 1) * BRANCHES / n * math.log(BRANCHES / n)


def learned(bench: Bench) -> None:
    """The product's own plan against plain settings: each way and seed has a lane, side by side, all the same rows.
    Those of the example where a trained base is given, else text that even random weights can learn from."""
    steps = 20 if bench.tiny else 120
    train, held_out = bench.rows("learn", predictable(8 * steps, 200, 1)), bench.rows("told", predictable(100, 200, 2))
    model = bench.learner or built(bench.stage.root, "gemma-3-270m", tiny=bench.tiny)
    if bench.learner:
        lines = (ROOT / "examples" / "support_tickets.jsonl").read_text().splitlines(keepends=True)
        train.write_text("".join(lines[:320]))
        held_out.write_text("".join(lines[320:]))
    rate = 5e-4 if bench.learner else 1e-3
    ways: dict[str, Found] = {"plan": {"packing": True if bench.tiny else "auto"}, "plain": {"packing": False}}
    found: dict[str, dict[int, float]] = {name: {} for name in ways}

    def one(way: tuple[str, int]) -> None:
        name, seed = way
        lane = Lane(bench.stage, f"learned-{name}-{seed}", warm=name == "plan", report_s=0)
        (lane.home.models / "learner").symlink_to(model)
        lane.start(UNSLOTH_COMPILE_DISABLE="1")  # compiling takes minutes, and nothing else is learned by it

        def part() -> Found:
            job_id, dropped_at = bench.job(
                lane, "learner", train, steps, precision="16bit",
                train={**ways[name], "seed": seed, "learning_rate": rate},
                eval={"dataset": str(held_out), "every_steps": steps, "sample_prompts": []},
                limits={"early_stopping": None},
            )  # fmt: skip
            told = metrics.read(lane.home.run(job_id).metrics)
            found[name][seed] = [row["eval_loss"] for row in told if "eval_loss" in row][-1]
            return {"eval_loss": found[name][seed], **lane.figures(job_id, dropped_at)}

        try:
            bench.stage.part(f"learned, {name}, seed {seed}", part)
        finally:
            lane.close()

    each = list(itertools.product(ways, SEEDS))
    with ThreadPoolExecutor(len(each)) as pool:
        list(pool.map(one, each))

    def compared() -> Found:
        losses_of = {name: [found[name][seed] for seed in SEEDS] for name in ways}
        means = {name: statistics.fmean(losses) for name, losses in losses_of.items()}
        spread = {name: max(losses) - min(losses) for name, losses in losses_of.items()}
        apart = means["plan"] - means["plain"]
        return {
            "eval_loss": losses_of,
            "mean": means,
            "spread": spread,
            "standard_deviation": {name: statistics.stdev(losses) for name, losses in losses_of.items()},
            "difference_of_the_means": apart,
            "inside_the_seeds_spread": abs(apart) <= min(spread.values()),
            "least_loss_of_the_text": round(least_loss(), 4),
        }

    bench.stage.part("learned", compared)


def models(bench: Bench) -> None:
    """Each model of the catalogue through dropped jobs, in 4 and in 16 bit, and its memory as it was foretold."""
    known = list(shapes.catalogue()["shape"])
    first = [name for name in (*FOUR, *NEXT) if name in known]
    waiting: queue.SimpleQueue[str] = queue.SimpleQueue()
    for name in bench.names or [*first, *(each for each in known if each not in first)][: 2 if bench.tiny else None]:
        waiting.put(name)
    lengths = (40, 100) if bench.tiny else (256, 1024)
    rows = {length: bench.rows(f"rows-{length}", random_gemma.texts(160, length)) for length in lengths}

    def worker(_: int) -> None:
        while True:
            try:
                name = waiting.get_nowait()
            except queue.Empty:
                return
            if bench.left_s() < 60:
                bench.stage.keep(f"{name}", {"failed": "not begun: no time was left"})
                continue
            try:
                one_model(bench, name, rows)
            except Exception as error:
                bench.stage.keep(name, {"failed": f"{type(error).__name__}: {error}"[:2000]})

    with ThreadPoolExecutor(WORKERS) as pool:
        list(pool.map(worker, range(1 if bench.tiny else WORKERS)))


def one_model(bench: Bench, name: str, rows: dict[int, Path]) -> None:
    shape = shapes.named(name)
    assert shape
    whole = name in FOUR or shape.parameters < 3e9
    lane = Lane(bench.stage, f"model-{name}", warm=True, report_s=0)
    lane.start()
    folder = bench.stage.root / "none"
    try:
        with bench.share(shape.parameters * 2 if whole else 10e9):
            folder = built(bench.stage.root, name, None if whole else LAYERS, bench.tiny)
        (lane.home.models / name).symlink_to(folder)
        small = shapes.of(lane.home, name, folder) or shape
        short, long = rows
        runs = [("16bit", short, 20), ("4bit", short, 20)]
        runs += [("16bit", long, 4), ("4bit", long, 4)] if name in FOUR else []
        for precision, length, steps in runs:
            wanted = costs.weights_bytes(small, precision) + 4e9 + 8 * length * 2 * costs.packed_token_bytes(small)
            part = f"{name}, {precision}, {length} tokens"
            with bench.share(wanted):
                once = partial(trained, bench, lane, name, precision, rows[length], steps)
                if not bench.stage.part(part, once) and bench.left_s() > 90:
                    bench.stage.part(f"{part}, not packed", partial(once, packing=False))
    finally:
        lane.close()
        if name not in KEPT:
            shutil.rmtree(folder, ignore_errors=True)


def trained(
    bench: Bench, lane: Lane, name: str, precision: str, rows: Path, steps: int, packing: bool | str = "auto"
) -> Found:
    train = {"packing": packing}
    job_id, dropped_at = bench.job(lane, name, rows, steps, precision=precision, train=train)
    found = lane.figures(job_id, dropped_at)
    try:
        found["forecast"] = lane.foretold(job_id)
    except Exception as error:  # the training passed all the same
        found["forecast"] = f"{type(error).__name__}: {error}"
    shape = shapes.of(lane.home, name, lane.home.models / name)
    return {"layers": shape.layers if shape else None, **found}


def sequence(bench: Bench) -> None:
    """Jobs one after the other, each by a warm child: before and after each the card is looked at, and nothing of it is
    held. Two runners with half of them each, for a next child begins to load a while after each job's start."""
    built(bench.stage.root, "gemma-3-270m", tiny=bench.tiny)

    def runner(number: int) -> bool:
        return bench.stage.part(f"jobs in a row, {number}", partial(in_a_row, bench, number))

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(runner, (1, 2)))


def in_a_row(bench: Bench, number: int) -> Found:
    lane = Lane(bench.stage, f"sequence-{number}", warm=True, report_s=0)
    (lane.home.models / "small").symlink_to(built(bench.stage.root, "gemma-3-270m", tiny=bench.tiny))
    rows, log = bench.rows(f"few-{number}", random_gemma.texts(24, 60)), lane.home.cache / "warm.log"
    waiting, held, left, ahead, seconds = list[int](), list[int](), list[int](), 0, list[float]()

    def holders() -> int:
        """How many of ours hold memory of the card."""
        found = {each["pid"] for each in Gpu().ask()["processes"]} if bench.stage.card else set[int]()
        return len(found & set(lane.children()))

    def kept() -> Found:
        found = {
            "jobs": len(left),
            "of_them_by_a_warm_child": ahead,
            "seconds_each": seconds,
            "our_processes_that_held_memory_of_the_card": {"before_each_job": waiting, "after_each_job": held},
            "held_by_nobody_bytes": left,
            "most_held_by_nobody_bytes": max(left, default=None),
        }
        bench.stage.keep(f"jobs in a row, {number}", found)
        return found

    lane.start()
    try:
        for _ in range(2 if bench.tiny else 10):
            if bench.left_s() < 60:
                break
            ready = min(90, bench.left_s())
            lane.wait(lambda: log.exists() and "-- ready" in log.read_text(), ready, "the child that is kept warm")
            waiting.append(holders())
            log.unlink()  # the next child writes a new one
            waits = set(lane.children())
            job_id, dropped_at = bench.job(lane, "small", rows, 3)
            seconds.append(round(time.time() - dropped_at, 1))
            ahead += "loaded ahead" in lane.home.run(job_id).log.read_text(errors="replace")
            lane.wait(lambda: waits.isdisjoint(lane.children()), 10, "the trainer's end")  # noqa: B023
            time.sleep(0.5)
            held.append(holders())
            left.append(bench.stage.unaccounted_bytes() - bench.stage.baseline_bytes)
            kept()
        return {**kept(), "daemon_exit_s": lane.stop(), "processes_left": lane.children()}
    finally:
        lane.close()


PARTS: dict[str, Callable[[Bench], None]] = {"learned": learned, "models": models, "sequence": sequence}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu_jobs")
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--root", type=Path, help="kept, with the models in it, for a later call")
    parser.add_argument("--until-s", type=float, default=540, help="nothing is begun that would last longer")
    parser.add_argument("--models", nargs="+", default=[], help="these alone, by their names in the catalogue")
    parser.add_argument("--learner", type=Path, help="a trained base's folder: what is learned can be seen better")
    parser.add_argument("--tiny", action="store_true", help="tries the parts with a tiny model")
    arguments = parser.parse_args()
    root = arguments.root or Path(tempfile.mkdtemp(prefix="jobs-"))
    root.mkdir(parents=True, exist_ok=True)
    model = built(root, "gemma-3-270m", tiny=arguments.tiny)  # several parts train it
    learner = arguments.learner.resolve() if arguments.learner else None
    stage = Stage(root, model, arguments.out, 20, 0, 0)
    bench = Bench(stage, arguments.until_s, arguments.tiny, arguments.models, learner)
    bench.stage.found |= facts("bench.gpu_jobs")
    try:
        with ThreadPoolExecutor(1 if arguments.tiny else len(arguments.only)) as pool:
            list(pool.map(lambda name: PARTS[name](bench), arguments.only))
    finally:
        bench.stage.ending.set()
        for lane in bench.stage.lanes:
            lane.close()
    if bench.stage.card:
        time.sleep(2)
        left = bench.stage.unaccounted_bytes() - bench.stage.baseline_bytes
        bench.stage.keep("the card at the end", {"held_by_nobody_bytes": left})
    return 1 if any("failed" in found for found in bench.stage.found["parts"].values()) else 0


if __name__ == "__main__":
    sys.exit(main())
