"""Power cuts at every point of a recorded life: what the disk then holds, and what a new runner makes of it.

Run as: python -m tests.power [--cuts N] [--restarts N] [--only STORY]      (`make power`; tests/test_power.py samples)

A story is performed once under strace (trace.py). Each cut of its log in each model of a disk (disk.py) gives a tree;
every distinct tree is looked at, and over a sample of those of the jobs' life a runner is started (oracle.py).
Exit codes: 0 all held and every planted bug was found, 1 not so, 77 nothing can be recorded here (the reason is said).
"""

import argparse
import contextlib
import hashlib
import json
import logging
import multiprocessing
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from spool.protocol.home import Home
from tests.power import disk, life, oracle, planted, stories, trace

NOISE = ("runner.json", ".runner.json.tmp", "metrics.jsonl", "events.jsonl", "train.log", "check.log")
"""Files that nothing is decided by: trees that differ in their bytes alone count as one."""
WORKERS = 2


@dataclass
class Case:
    """One tree that a cut may leave, and how it came about."""

    cut: int
    model: str
    survivors: tuple[str, str]

    def words(self, log: disk.Log) -> str:
        last = next((op for op in reversed(log.ops[: self.cut]) if op.kind != "mark"), None)
        after = f"{last.kind} {last.name} {last.to_name}".strip() if last else "nothing"
        return f"cut at {self.cut} of {len(log.ops)} (after {after}), {self.model}, {'/'.join(self.survivors)}"


@dataclass
class Told:
    """What came of one story."""

    story: str
    log: disk.Log
    trees: Counter[str] = field(default_factory=Counter)
    restarts: Counter[str] = field(default_factory=Counter)
    wrong: list[tuple[Case, str]] = field(default_factory=list)
    seconds: float = 0.0


def record(story: str, folder: Path, plant: str = "none") -> disk.Log:
    home = Home(folder / "recorded")
    home.root.mkdir()
    if story == "life":
        life.prepare(home)
        command = [sys.executable, "-m", "tests.power.life", str(home.root), plant]
    else:
        script = str(life.ROOT / "tests" / "power" / "planted.py")
        command = [sys.executable, script, plant, "tests.power.stories", story, str(home.root)]
    environment = {**os.environ, "PYTHONPATH": str(life.ROOT)}
    try:
        return trace.record(command, home.root, life.ROOT, environment)
    finally:
        shutil.rmtree(home.root)


def cases(log: disk.Log, models: tuple[str, ...], cuts: int | None = None) -> Iterator[Case]:
    """Every cut in every model; trees that were had before, under the same promises, are passed over.

    `cuts`: only so many points, chosen with a fixed seed.
    """
    had: set[bytes] = set()
    points = random.Random(7).sample(log.points(), len(log.points()))
    for cut in points[:cuts]:
        promises = "\n".join(log.marks(cut))
        for model in models:
            for survivors in disk.SURVIVORS:
                tree = disk.after_cut(log, cut, model, survivors)
                key = hashlib.blake2b(promises.encode())
                for path in sorted(tree):
                    file = tree[path]
                    noise = file is None or path.rpartition("/")[2] in NOISE
                    key.update(f"\0{path}\0{file is None}".encode() + (b"" if noise or file is None else file.data))
                if key.digest() not in had:
                    had.add(key.digest())
                    yield Case(cut, model, survivors)


def ids_of(log: disk.Log) -> dict[str, str]:
    """id -> name of every job of the life, from how it ended."""
    found = {}
    for path, file in disk.after_cut(log, len(log.ops), "journal", disk.SURVIVORS[3]).items():
        parts = path.split("/")
        if file is not None and (parts[-1] in ("spec.json", "dropped.json")):
            try:
                found[parts[-2]] = json.loads(file.data)["name"]
            except (ValueError, KeyError):
                continue
    return found


class Judge:
    """Looks at cases of one story; a process of the pool has one each."""

    def __init__(self, story: str, log: disk.Log, folder: Path) -> None:
        self.story, self.log, self.folder = story, log, folder
        self.ids = ids_of(log) if story == "life" else {}

    def look(self, case: Case) -> tuple[list[str], bool]:
        """(what is wrong with the tree as it is found, whether a restart is of special interest)."""
        with self._home(case) as home:
            if self.story != "life":
                return stories.STORIES[self.story][1](home, self.log.marks(case.cut)), False
            return oracle.found(home, self._promises(case)), oracle.suspicious(home)

    def restart(self, case: Case) -> list[str]:
        with self._home(case) as home:
            return oracle.recovered(home, self._promises(case))

    def _promises(self, case: Case) -> oracle.Promises:
        return oracle.Promises(self.log.marks(case.cut), self.ids)

    @contextlib.contextmanager
    def _home(self, case: Case) -> Iterator[Home]:
        """The data home as it is found after the cut."""
        root = self.folder / f"home-{os.getpid()}"
        root.mkdir()
        disk.materialise(disk.after_cut(self.log, case.cut, case.model, case.survivors), root)
        try:
            yield Home(root)
        finally:
            shutil.rmtree(root)
            root.with_name(f"{root.name}.log").unlink(missing_ok=True)


_judge: Judge | None = None


def _look(case: Case) -> tuple[Case, list[str], bool]:
    assert _judge is not None
    return case, *_judge.look(case)


def _restart(case: Case) -> tuple[Case, list[str]]:
    assert _judge is not None
    return case, _judge.restart(case)


def tell(
    story: str,
    folder: Path,
    restarts: int | None,
    plant: str = "none",
    models: tuple[str, ...] = disk.PROMISED,
    cuts: int | None = None,
    first_only: bool = False,
) -> Told:
    """Records a story and judges its cuts.

    Args:
        restarts: over how many trees of the life a runner is started; None for all.
        cuts: how many points are cut at, chosen with a fixed seed; None for all.
        first_only: stop at the first thing found wrong (planted bugs).
    """
    global _judge
    began = time.monotonic()
    told = Told(story, record(story, folder, plant))
    _judge = Judge(story, told.log, folder)
    chosen = list(cases(told.log, models, cuts))
    first: list[Case] = []
    rest: list[Case] = []
    with multiprocessing.get_context("fork").Pool(WORKERS) as pool:
        for case, wrong, special in pool.imap_unordered(_look, chosen, chunksize=8):
            told.trees[case.model] += 1
            told.wrong += [(case, words) for words in wrong]
            if wrong and first_only:
                break
            if not wrong:
                (first if special else rest).append(case)
        if story == "life" and not (first_only and told.wrong):
            random.Random(7).shuffle(rest)
            for case, wrong in pool.imap_unordered(_restart, _mixed(first, rest)[:restarts]):
                told.restarts[case.model] += 1
                if wrong:
                    print(f"  ... {case.words(told.log)}: {wrong[0][:200]}", file=sys.stderr, flush=True)
                told.wrong += [(case, words) for words in wrong]
                if wrong and first_only:
                    break
    told.seconds = time.monotonic() - began
    return told


def _mixed(first: list[Case], rest: list[Case]) -> list[Case]:
    """Every second one is of special interest while there are any."""
    pairs = [case for pair in zip(first, rest, strict=False) for case in pair]
    shorter = min(len(first), len(rest))
    return [*pairs, *first[shorter:], *rest[shorter:]]


def report(told: Told) -> None:
    kinds = Counter(op.kind for op in told.log.ops)
    print(
        f"{told.story}: {len(told.log.ops)} operations recorded ({kinds['sync']} fsyncs, {kinds['rename']} renames), ",
        end="",
    )
    print(f"{len(told.log.points())} cuts, {told.seconds:.0f} s")
    for model in told.trees:
        wrong = len({(case.cut, case.survivors) for case, _ in told.wrong if case.model == model})
        restarts = f", {told.restarts[model]} of them restarted" if told.story == "life" else ""
        print(f"  {model:8} {told.trees[model]:5} distinct trees looked at{restarts}, {wrong} with something wrong")
    for words, count in Counter(words for _, words in told.wrong).most_common(12):
        case = next(case for case, each in told.wrong if each == words)
        print(f"  WRONG {count}x, first at {case.words(told.log)}:\n    {words}")


def plant_all(folder: Path, names: list[str]) -> int:
    """Each planted bug must be found; gives how many were not."""
    missed = 0
    for name in names:
        story = planted.PLANTS[name][0]
        try:
            told = tell(story, folder, restarts=60, plant=name, cuts=150, first_only=True)
        except RuntimeError as error:
            print(f"  PLANT {name}: its story does not end: {error}")
            missed += 1
            continue
        seen = told.wrong[0] if told.wrong else None
        missed += seen is None
        words = seen[1].splitlines()[0][:110] if seen else "NOT FOUND"
        print(f"  {name:42} {words}" + (f" [{seen[0].model}]" if seen else ""), flush=True)
    return missed


def main() -> int:
    logging.disable(logging.WARNING)  # a damaged checkpoint is set aside thousands of times
    parser = argparse.ArgumentParser(prog="python -m tests.power")
    parser.add_argument("--restarts", type=int, default=600, help="runners started over trees of the life (0: none)")
    parser.add_argument("--cuts", type=int, help="points of each story that are cut at (default: all)")
    parser.add_argument("--only", help="one story")
    parser.add_argument("--models", nargs="+", default=list(disk.PROMISED), choices=disk.MODELS)
    parser.add_argument("--no-plants", action="store_true")
    parser.add_argument("--plants", nargs="+", help="only these planted bugs, no stories", choices=list(planted.PLANTS))
    arguments = parser.parse_args()
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    try:
        trace.available()
    except trace.Untraceable as why:
        print(f"NOT RUN: {why}")
        return 77
    missed = wrong = 0
    with tempfile.TemporaryDirectory(prefix="power-") as name:
        for story in ("life", *stories.STORIES):
            if arguments.only in (None, story) and not arguments.plants:
                told = tell(story, Path(name), arguments.restarts, models=tuple(arguments.models), cuts=arguments.cuts)
                report(told)
                wrong += len(told.wrong)
        if not arguments.no_plants and arguments.only is None:
            names = arguments.plants or list(planted.PLANTS)
            print(f"{len(names)} planted bugs, and what gave each away:")
            missed = plant_all(Path(name), names)
    return 1 if wrong or missed else 0


if __name__ == "__main__":
    sys.exit(main())
