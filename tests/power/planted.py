"""Bugs for the suite to find: each takes one step away from what makes a write durable, or puts it in the wrong place.

Run as: python tests/power/planted.py PLANT MODULE [ARGUMENTS ...]        (runs a module with a bug in it)
"""

import os
import runpy
import shutil
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).resolve().parents[2])

from runner import checkpoint  # noqa: E402
from spool.protocol import durable  # noqa: E402


def _unsynced(matches: Callable[[Path], bool]) -> Callable[[], None]:
    """No fsync of the paths that match."""

    def plant() -> None:
        real = durable.sync

        def sync(*paths: Path) -> None:
            real(*[path for path in paths if not matches(Path(path))])

        def sync_all(paths: Iterable[Path]) -> None:
            sync(*paths)

        durable.sync, durable.sync_all = sync, sync_all

    return plant


def _copied() -> None:
    """A token is copied and the old one deleted, where it should be renamed."""

    def move(source: Path, target: Path) -> None:
        durable.write_new(target, source.read_bytes())
        durable.sync(target.parent)
        os.unlink(source)
        durable.sync(source.parent)

    durable.move = move


def _manifest_first() -> None:
    real = checkpoint.complete

    def complete(folder: Path, spec_hash: str) -> dict[str, Any]:
        held, durable.sync = durable.sync, lambda *paths: held(*[p for p in paths if p.name == ".COMPLETE.json.tmp"])
        try:
            return real(folder, spec_hash)
        finally:
            durable.sync = held
            durable.sync(*[path for path in sorted(folder.rglob("*")) if path.is_file()], folder, folder.parent)

    checkpoint.complete = complete


def _written_in_place() -> None:
    """A JSON file is written over itself: no temporary file, no rename."""

    def write_atomic(path: Path, data: bytes) -> None:
        durable.write_new(path, data)
        durable.sync(path.parent)

    durable.write_atomic = write_atomic


def _rotated_first() -> None:
    """Only the newest checkpoint is kept, and the others go before it is whole."""
    real = checkpoint.complete

    def complete(folder: Path, spec_hash: str) -> dict[str, Any]:
        for other in checkpoint.listed(folder.parent):
            if other != folder:
                shutil.rmtree(other)
        durable.sync(folder.parent)
        return real(folder, spec_hash)

    checkpoint.complete = complete


def _file_of(folder: str, dot: bool = True) -> Callable[[Path], bool]:
    return lambda path: path.parent.name == folder and path.name.startswith(".") == dot


PLANTS: dict[str, tuple[str, Callable[[], None]]] = {
    "the drop's bytes are not synced": ("life", _unsynced(_file_of("incoming"))),
    "the drop's name is not synced": ("life", _unsynced(lambda path: path.name == "incoming")),
    "the taking of drops is not synced": ("life", _unsynced(lambda path: path.name in ("incoming", "accepting"))),
    "the token's bytes are not synced": ("life", _unsynced(lambda path: path.parent.name == "tmp")),
    "the token's place is not synced": ("life", _unsynced(lambda path: path.name in ("tmp", "checking"))),
    "the spec is not synced": ("life", _unsynced(lambda path: path.name == "spec.json")),
    "the result is not synced": ("life", _unsynced(lambda path: path.name.startswith(".result.json"))),
    "the outcome is not synced": ("life", _unsynced(lambda path: path.name.startswith(".outcome.json"))),
    "the reason is not synced": ("life", _unsynced(lambda path: path.name == "reason.json")),
    "tokens are copied, not renamed": ("life", _copied),
    "files are written in place": ("life", _written_in_place),
    "the manifest comes before the weights": ("checkpoints", _manifest_first),
    "rotation comes before the manifest": ("checkpoints", _rotated_first),
    "the export's files are not synced": ("exports", _unsynced(lambda path: path.name == "model.safetensors")),
    "the certificate is not synced": ("exports", _unsynced(lambda path: path.name.startswith(".certificate.json"))),
    "the export's name is not synced": ("exports", _unsynced(lambda path: path.name == "exports")),
    "the dataset's record is not synced": ("datasets", _unsynced(lambda path: path.name.startswith(".dataset.json"))),
    "the dataset's name is not synced": ("datasets", _unsynced(lambda path: path.parent.name == "datasets")),
}
"""What is wrong -> (the story that has to find it, how it is done)."""


def main() -> None:
    plant, module = sys.argv[1], sys.argv[2]
    if plant != "none":
        PLANTS[plant][1]()
    sys.argv = [module, *sys.argv[3:]]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
