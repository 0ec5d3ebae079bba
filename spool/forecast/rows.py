"""How many rows a job has and how long they are: from its own check, a report that was made, else the file's size."""

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from spool.data.background import Request
from spool.data.keeping import keep
from spool.data.keeping.keep import Stored
from spool.protocol import durable
from spool.protocol.errors import FinetunerError
from spool.protocol.home import Home
from spool.protocol.resolve import STORED, Places
from spool.protocol.training import Data

AUTO_MAX_TOKENS = 2048
CHARACTERS_A_TOKEN = 3.6
"""Of Gemma's tokenizer over English and German prose and JSON, about."""
TEMPLATE_TOKENS = 14
"""What a chat template adds to a row, about."""
LOOKED_AT_BYTES = 1_000_000
PACKED = 3
"""How many times smaller packed text is, about."""


@dataclass(frozen=True)
class Rows:
    """Rows to train and evaluate on, and their length in tokens before anything is cut.

    `known` is how it is known: "prepared" (counted for this very job), "counted" (with a tokenizer), "characters"
    (guessed from the rows' characters) or "size" (guessed from the file's).
    """

    train: int
    evaluated: int
    mean_tokens: float
    longest_tokens: float
    known: str

    def cut(self, limit: int | None) -> "Rows":
        """As training sees them: rows longer than the limit are cut."""
        longest = min(self.longest_tokens, limit or AUTO_MAX_TOKENS)
        return Rows(self.train, self.evaluated, min(self.mean_tokens, longest), longest, self.known)


def prepared(folder: Path) -> Rows | None:
    """What a job's own check has counted (runs/ID/data)."""
    try:
        document = durable.read_json(folder / "prepared.json") or {}
        files, longest = document["files"], float(document["max_length"])
        train, held = files["train.arrow"], files.get("eval.arrow") or {"rows": 0}
        mean = train["tokens"] / max(1, train["rows"])
        return Rows(int(train["rows"]), int(held["rows"]), min(mean, longest), longest, "prepared")
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def of(home: Home, places: Places, reference: str, data: Data, model_folder: Path | None) -> Rows | None:
    """What is known of a dataset without reading it; None where there is none, or nothing can be told."""
    path, stored = _place(home, places, reference)
    if path is None:
        return None
    for request in _requests(path, data, model_folder):
        found = _reported(home, request, data)
        if found is not None:
            return found
    found = _by_size(path, data)
    return found if stored is None else _by_record(stored, data, found)


def _place(home: Home, places: Places, reference: str) -> tuple[Path | None, Stored | None]:
    """The file or folder, and its record where it is a stored dataset. Never fetches anything."""
    if reference.startswith("hf:"):
        return None, None
    try:
        if STORED.fullmatch(reference) and (home.datasets / reference.partition("@")[0]).is_dir():
            stored = keep.find(home, reference)
            return stored.path, stored
        return places.dataset(reference), None
    except (FinetunerError, OSError):
        return None, None


def _requests(path: Path, data: Data, model_folder: Path | None) -> Iterator[Request]:
    """What the Data and the Train page may have asked about the file, the nearest to the job first."""
    limit = None if data.max_length == "auto" else data.max_length
    header = data.header if isinstance(data.header, bool) else None
    how = (data.format, tuple(sorted(data.mapping.items())), data.encoding, data.delimiter or "auto", header)
    plain = ("auto", (), "auto", "auto", None)
    folder = str(model_folder) if model_folder else None
    for reading in dict.fromkeys((how, plain)):
        for model, length in dict.fromkeys(((folder, limit), (folder, None), (None, None))):
            yield Request(str(path.resolve()), *reading, model, length)


def _reported(home: Home, request: Request, data: Data) -> Rows | None:
    try:
        report = durable.read_json(request.folder(home) / "report.json")
    except (FinetunerError, OSError, ValueError):
        return None
    if not isinstance(report, dict):
        return None
    try:
        usable = int(report["usable_rows"])
        lengths = report["statistics"]["lengths"]
        counted = lengths["unit"] == "tokens"
        edges, counts = lengths["edges"], lengths["counts"]
        middles = [(low + high) / 2 for low, high in pairwise(edges)]
        mean = sum(m * n for m, n in zip(middles, counts, strict=False)) / max(1, sum(counts))
        longest = float(report["tokens"]["max"] if report.get("tokens") else edges[-1])
    except (KeyError, TypeError, ValueError, IndexError):
        return None
    if not counted:
        mean, longest = (each / CHARACTERS_A_TOKEN + TEMPLATE_TOKENS for each in (mean, longest))
    return _split(usable, max(mean, 1.0), max(longest, 1.0), "counted" if counted else "characters", data)


def _by_size(path: Path, data: Data) -> Rows | None:
    """Rows by the lines of the first megabyte."""
    if path.is_dir():
        return None
    try:
        size = path.stat().st_size
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            start = file.read(LOOKED_AT_BYTES)
    except OSError:
        return None
    lines = [len(line) for line in start.splitlines() if line.strip()]
    if not lines or path.suffix.lower() in (".parquet", ".gz", ".zip", ".json"):
        return None
    rows = max(1, round(len(lines) * size / len(start)))
    mean = sum(lines) / len(lines) / CHARACTERS_A_TOKEN
    return _split(rows, max(mean, 1.0), max(lines) / CHARACTERS_A_TOKEN + TEMPLATE_TOKENS, "size", data)


def _by_record(stored: Stored, data: Data, found: Rows | None) -> Rows | None:
    """Its rows were counted when it was added; how long they are is seen in its first ones, or in its size."""
    usable = int((stored.report or {}).get("usable_rows") or stored.rows)
    if found is not None:
        return _split(usable, found.mean_tokens, found.longest_tokens, "size", data)
    packed = stored.path.suffix in (".gz", ".zip", ".parquet")
    mean = stored.size_bytes * (PACKED if packed else 1) / max(1, usable) / CHARACTERS_A_TOKEN
    return _split(usable, max(mean, 1.0), 4 * mean + TEMPLATE_TOKENS, "size", data)


def _split(usable: int, mean: float, longest: float, known: str, data: Data) -> Rows | None:
    from spool.data.prepare import eval_rows  # here, for it brings the tokenizer's libraries along

    if usable < 1:
        return None
    held = eval_rows(usable, data.eval_fraction)
    return Rows(usable - held, held, mean, longest, known)


def longest_kept(rows: Rows, asked: Any) -> int:
    """data.max_length as the check will set it."""
    return int(asked) if asked != "auto" else max(16, min(math.ceil(rows.longest_tokens), AUTO_MAX_TOKENS))
