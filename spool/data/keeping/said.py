"""How people said that a dataset is to be read, beside its record: `reading.json`, in the words of a spec's `data`.

It fills in the forms of the pages, on another day and in another browser too. A job reads nothing but its own spec.
"""

from collections.abc import Mapping
from typing import Any

from spool.data.keeping import keep
from spool.data.keeping.keep import Stored
from spool.protocol import durable
from spool.protocol.home import Home

READING = "reading.json"
OF_ALL_VERSIONS = ("format", "mapping")
"""What holds for other versions too: those that were made here are JSON lines, whatever the upload was."""


def note(stored: Stored, data: Mapping[str, Any]) -> None:
    """Notes what was said of a version; that nothing was said is noted too."""
    durable.write_json(stored.path.parent / READING, {"schema": 1, "data": dict(data)})


def of(home: Home, stored: Stored) -> dict[str, Any]:
    """What was said of a version; else of its newest other version, where that names columns which this one has."""
    own = _noted(stored)
    if own is not None:
        return own
    columns = set((stored.report or {}).get("columns") or [])
    for other in keep.versions(home, stored.name):
        told = _noted(other) or {}
        mapping = told.get("mapping")
        if isinstance(mapping, dict) and mapping and columns.issuperset(map(str, mapping.values())):
            return {name: told[name] for name in OF_ALL_VERSIONS if name in told}
    return {}


def _noted(stored: Stored) -> dict[str, Any] | None:
    try:
        data = durable.read_json(stored.path.parent / READING)["data"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return data if isinstance(data, dict) else None
