"""What this server has to offer a job: its card, memory, disk and cores."""

import os
import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path

from spool.health.gpu import Gpu
from spool.protocol import durable
from spool.protocol.home import Home

FRESH_S = 30.0


@dataclass(frozen=True)
class Machine:
    """`gpu` is the card's name, None where jobs train on the CPU; `capability` is CUDA's. Bytes and capability are
    None where nobody can tell."""

    gpu: str | None = None
    gpu_bytes: int | None = None
    memory_bytes: int | None = None
    disk_free_bytes: int | None = None
    cores: int = 1
    capability: tuple[int, ...] | None = None

    @property
    def device(self) -> str:
        """As result.json names it."""
        return self.gpu or "cpu"


def look(home: Home, gpu: Gpu | None = None) -> Machine:
    """The machine now. Asked again within half a minute it gives the same answer, but for the disk."""
    key = str(home.root)
    at, found = _seen.get(key, (0.0, Machine()))
    if gpu is not None or not at or time.monotonic() - at > FRESH_S:
        found = _look(home, gpu or Gpu())
        _seen[key] = (time.monotonic(), found)
        while len(_seen) > 16:
            del _seen[next(iter(_seen))]
    return replace(found, disk_free_bytes=_free(home))


_seen: dict[str, tuple[float, Machine]] = {}


def _look(home: Home, gpu: Gpu) -> Machine:
    """The card as NVML tells it; a web app without access to it goes by what the runner has written down."""
    try:
        card = gpu.ask()
    except Exception:  # no library, no driver, no access: nothing here may fail for want of a card
        card = {}
    try:
        noted = durable.read_json(home.card_json)
    except (OSError, ValueError):
        noted = None
    noted = noted if isinstance(noted, dict) else {}
    name = card.get("name") or noted.get("name")
    total = card.get("mem_total_bytes") or noted.get("mem_total_bytes")
    capability = card.get("capability") or noted.get("capability")
    return Machine(
        name if isinstance(name, str) else None,
        total if isinstance(total, int) else None,
        _memory(),
        None,
        len(os.sched_getaffinity(0)),
        tuple(capability) if isinstance(capability, list | tuple) else None,
    )


def _memory() -> int | None:
    """What programs may use in all: the machine's memory, or this container's where that is less."""
    try:
        line = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal"))
        total = int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError, StopIteration):
        return None
    try:
        return min(total, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    except (OSError, ValueError):
        return total


def _free(home: Home) -> int | None:
    place = next((folder for folder in (home.root, *home.root.parents) if folder.exists()), None)
    try:
        return shutil.disk_usage(place).free if place else None
    except OSError:
        return None
