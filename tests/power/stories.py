"""What is recorded besides the life of jobs, and what must hold of it after a cut: datasets, checkpoints, exports.

Run as: python -m tests.power.stories STORY HOME        (tests/power/__main__.py does, under strace)
"""

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from runner import checkpoint
from spool.data import prepared
from spool.data.judging.arrow_rows import TokenRow
from spool.data.keeping import forget, keep
from spool.protocol import durable, manifest
from spool.protocol.errors import DataError, FinetunerError
from spool.protocol.home import Home
from spool.protocol.manifest import NoManifest
from tests.power.child import SPEC_HASH
from tests.power.life import mark

ROWS = [f'{{"instruction": "question {n}", "output": "answer {n}"}}\n'.encode() * 3 for n in range(3)]
CHECKPOINTS = range(2, 16, 2)


def datasets(home: Home) -> None:
    """Two versions, one of them added again, deleted, and added once more; a file that cannot be read."""
    references = []
    for name, data in (("letters", ROWS[0]), ("letters", ROWS[1]), ("letters", ROWS[0]), ("other", ROWS[2])):
        references.append(keep.add(home, name, "rows.jsonl", data).reference)
        mark(f"kept {references[-1]}")
    try:
        keep.add(home, "broken", "rows.parquet", b"PAR1 and nothing else")
    except DataError:
        mark("refused broken")
    mark(f"deleting {references[1]}")
    forget.delete(home, references[1])
    mark(f"deleted {references[1]}")
    mark(f"adding {references[1]}")
    keep.add(home, "letters", "rows.jsonl", ROWS[1])
    mark(f"kept {references[1]}")


def look_at_datasets(home: Home, marks: list[str]) -> list[str]:
    wrong, promised = [], dict[str, str]()
    for words in (each.split()[1:] for each in marks):
        promised[words[1]] = words[0]
    try:
        listed = {each.reference for each in keep.list_datasets(home)}
        deleted = [each for name in ("letters", "other") for each in keep.versions(home, name, deleted=True)]
        wrong += [f"{each.reference} is deleted" for each in deleted if promised.get(each.reference) == "kept"]
        for reference, state in promised.items():
            if state == "kept" and reference not in listed:
                wrong.append(f"{reference} was kept and is gone")
            if state == "deleted" and reference in listed:
                wrong.append(f"{reference} was deleted and is back")
        for reference in listed:
            # a deletion that was not finished may have happened or not, or stop at the record
            if promised.get(reference) != "deleting":
                keep.verified(home, reference)
        again = keep.add(home, "letters", "rows.jsonl", ROWS[1])  # whatever was left behind is no obstacle
        keep.verified(home, again.reference)
    except (FinetunerError, OSError) as error:
        wrong.append(f"a dataset cannot be used or added: {error}")
    return wrong


def checkpoints(home: Home) -> None:
    """Saves and rotations as a trainer makes them."""
    run = home.run("job")
    durable.make_dirs([run.root])
    for step in CHECKPOINTS:
        _save(run.checkpoints, step)
        mark(f"saved {step}")
        checkpoint.rotate(run.checkpoints)
        mark(f"rotated {step}")


def _save(folder: Path, step: int) -> None:
    target = folder / f"checkpoint-{step}"
    (target / "parts").mkdir(parents=True)
    for file in ("adapter.safetensors", "optimizer.pt", "parts/rng.pth"):
        (target / file).write_bytes(f"{file} at {step}".encode() * 500)
    checkpoint.complete(target, SPEC_HASH)


def look_at_checkpoints(home: Home, marks: list[str]) -> list[str]:
    folder = home.run("job").checkpoints
    saved = max((int(each.split()[2]) for each in marks if each.startswith("mark saved")), default=0)
    good = [path for path in checkpoint.listed(folder) if checkpoint.problem(path, SPEC_HASH) is None]
    wrong = []
    if saved >= CHECKPOINTS[1] and len(good) < checkpoint.KEEP:
        wrong.append(f"after the save of step {saved} only {[path.name for path in good]} verify")
    newest = checkpoint.newest(folder, SPEC_HASH)
    step = checkpoint.step_of(newest) if newest else 0
    if step < saved:
        wrong.append(f"step {saved} was saved and the newest that verifies is {step}")
    _save(folder, step + 2)  # and training goes on from there
    checkpoint.rotate(folder)
    resumed = checkpoint.newest(folder, SPEC_HASH)
    if resumed is None or checkpoint.step_of(resumed) != step + 2:
        wrong.append(f"going on from step {step} left {resumed}")
    return wrong


def exports(home: Home) -> None:
    """What a job's children leave: prepared rows, the adapter, an export by the real workshop, then result.json."""
    from runner.exports import adapter, card, companions, make
    from runner.exports.sources import Source
    from runner.job import Attempt, StopRequest

    run = home.run("job")
    durable.make_dirs([run.root])
    prepared.clear(run.data)
    ids = np.array([1, 2, 3], np.int32)
    rows = [TokenRow(row=n, line=n, byte=n, input_ids=ids, labels=ids) for n in range(50)]
    facts, tokens = prepared.write_rows(run.data / "train.arrow", rows)
    prepared.save(_prepared(run.data, {"train.arrow": facts}, tokens))
    mark("prepared")

    def fill(folder: Path, *names: str) -> None:
        for name in names:
            (folder / name).write_bytes(name.encode() * 300)

    class Model:
        def save_pretrained(self, folder: str, safe_serialization: bool) -> None:
            fill(Path(folder), "adapter_model.safetensors", "adapter_config.json")

    class Workshop(make.Workshop):
        """Its tools write little: what is looked at is when and where."""

        def _fill(self, name: str, folder: Path) -> None:
            fill(folder, "model.safetensors", "README.md")

        def prove(self, name: str, folder: Path) -> dict[str, Any]:
            sha256 = manifest.hashed(folder / manifest.NAME)
            return {"v": 1, "verdict": "ready", "checks": [], "manifest_sha256": sha256}

        def lineage(self) -> dict[str, Any]:
            return dict(lineage)

    companions.tokenizer = lambda folder, base, encoder: fill(folder, "tokenizer.json")
    card.write = lambda folder, *rest: fill(folder, "README.md")
    lineage = {"name": "n", "dataset": "d", "steps": 1}
    adapter.save(run.exports, Model(), home.root, None, lineage, lambda: None)
    source = Source(None, None, run.exports, lineage)
    half = run.exports / ".merged.tmp"
    durable.make_dirs([half])
    fill(half, "model.safetensors")  # by an attempt that died before its last word
    Workshop(source, Attempt(home, "job", 2, StopRequest(home, "job"))).make("merged")
    durable.write_json(run.result, {"v": 1, "attempt": 2, "outcome": "finished", "result": {}})
    mark("finished")


def _prepared(folder: Path, files: dict[str, Any], tokens: int) -> prepared.Prepared:
    values = {field.name: None for field in dataclasses.fields(prepared.Prepared)}
    return prepared.Prepared(**{**values, "folder": folder, "files": files})


def look_at_exports(home: Home, marks: list[str]) -> list[str]:
    run = home.run("job")
    wrong = []
    if "mark prepared" in marks and prepared.load(run.data) is None:
        wrong.append("the prepared rows are gone or not whole")
    if run.result.exists() and not isinstance(durable.read_json(run.result), dict):
        wrong.append("result.json is not whole")
    for name in ("adapter", "merged") if run.result.exists() else ():
        try:
            found = manifest.verify(run.exports / name)
        except NoManifest as error:
            wrong.append(f"a result is there and exports/{name} is not whole: {error}")
        else:
            wrong += [f"exports/{name}/{fault}" for fault in found.faults]
            if name == "merged" and found.verdict != "ready":
                wrong.append("a result is there and what its certificate said is not")
    hidden = {path.name for path in run.exports.glob("*") if not path.name.startswith(".")}
    if not hidden <= {"adapter", "merged"}:
        wrong.append(f"what can be seen of the exports is {hidden}")
    if "mark finished" in marks and not run.result.exists():
        wrong.append("the result is gone")
    return wrong


Look = Callable[[Home, list[str]], list[str]]
STORIES: dict[str, tuple[Callable[[Home], None], Look]] = {
    "datasets": (datasets, look_at_datasets),
    "checkpoints": (checkpoints, look_at_checkpoints),
    "exports": (exports, look_at_exports),
}


def main() -> None:
    try:
        STORIES[sys.argv[1]][0](Home.at(sys.argv[2]).create())
    except FinetunerError as error:
        sys.exit(f"{error}")


if __name__ == "__main__":
    main()
