"""The health of the machine in one quiet line: card and disk."""

import shutil
from dataclasses import dataclass
from typing import Any

from pages.parts import quantities
from pages.parts.escape import one_line
from pages.parts.texts import t
from spool.protocol import durable, metrics
from spool.protocol.home import Home
from spool.protocol.jobs import Job

LOW_BYTES = 5e9
"""Below this the runner begins to remove checkpoints of done jobs."""


@dataclass(frozen=True)
class Sign:
    """One part of the line: an icon's name, plain text, and whether somebody should look at it."""

    icon: str
    says: str
    warns: bool = False


def signs(home: Home, running: Job | None) -> list[Sign]:
    """Card and disk, as far as they can be told; the card is the one that the runner saw last."""
    return [sign for sign in (_card(home, running), _disk(home)) if sign]


def _card(home: Home, running: Job | None) -> Sign | None:
    try:
        card = durable.read_json(home.card_json)
    except (OSError, ValueError):
        card = None
    if not isinstance(card, dict) or not card.get("name"):
        return Sign("memory", t("home.strip.no_gpu")) if home.runner_json.exists() else None
    said = [one_line(card["name"], 40)]
    row = (metrics.last(home.run(running.id).metrics) if running else None) or {}
    used, total = _number(row.get("gpu_mem_bytes")), _number(card.get("mem_total_bytes"))
    if used and total:
        said.append(t("home.strip.memory", used=quantities.size(used), total=quantities.size(total)))
    degrees = _number(row.get("gpu_temp_c"))
    if degrees:
        said.append(f"{degrees:.0f} °C")
    return Sign("memory", " · ".join(said))


def _disk(home: Home) -> Sign | None:
    try:
        disk = shutil.disk_usage(home.root)
    except OSError:
        return None
    low = disk.free < LOW_BYTES
    says = t("home.strip.disk_low" if low else "home.strip.disk", free=quantities.size(disk.free))
    return Sign("warning" if low else "hard_drive", says, low)


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None
