"""What a check leaves for training in runs/ID/data/: tokenised rows as Arrow files, the findings, and their hashes.

train.arrow     the rows to train on; eval.arrow those kept away from it, where there are any
check.json      the findings; also where the check failed
prepared.json   written last: without it, or where a hash differs, nothing here counts

The row files are Arrow IPC streams (https://arrow.apache.org/docs/format/Columnar.html#ipc-streaming-format), which
`datasets.Dataset.from_file` maps into memory. Neither side ever holds all rows.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from spool.data.judging import arrow_rows
from spool.data.judging.arrow_rows import TokenRow
from spool.data.judging.tokens import learned
from spool.protocol import durable

VERSION = 2


@dataclass(frozen=True)
class Prepared:
    """What a training needs to know of its data, with every auto resolved; the rows stay in their files."""

    folder: Path
    format: str
    roles: dict[str, str]
    """The column that plays each role."""
    dialect: dict[str, Any]
    """encoding, delimiter and header of the file; the last two null where it is no table."""
    train_on: str
    max_length: int
    eval_fraction: float
    counts: dict[str, int]
    """rows, usable, dropped, left_out (by data.drop), over_long, train, eval, tokens, trained_tokens."""
    dataset: dict[str, str]
    """reference (as the spec names it), sha256 of its bytes, version (the first 12 digits of it); with an evaluation
    dataset of its own also eval_reference and eval_sha256."""
    tokenizer_sha256: str
    """`Encoder.identity` of the model that the tokens are for."""
    files: dict[str, dict[str, Any]]
    """Name -> rows, tokens and sha256 of each Arrow file."""

    @property
    def train(self) -> Path:
        return self.folder / "train.arrow"

    @property
    def eval(self) -> Path | None:
        """None where no row is kept away from training."""
        return self.folder / "eval.arrow" if "eval.arrow" in self.files else None

    @property
    def train_rows(self) -> int:
        return int(self.files["train.arrow"]["rows"])

    @property
    def eval_rows(self) -> int:
        return int(self.files["eval.arrow"]["rows"]) if self.eval else 0


def clear(folder: Path) -> None:
    """Makes the folder, and takes back what an earlier check left in it."""
    folder.mkdir(exist_ok=True)
    for name in ("prepared.json", "check.json", "train.arrow", "eval.arrow"):
        (folder / name).unlink(missing_ok=True)


def write_rows(path: Path, rows: Iterable[TokenRow]) -> tuple[dict[str, Any], int]:
    """Writes one Arrow file and fsyncs it; gives (its entry in `files`, tokens that are trained on)."""
    writer, trained = arrow_rows.Writer(path), 0
    try:
        for row in rows:
            writer.add(row.row, row.line, row.byte, row.input_ids, row.labels)
            trained += learned(row.labels)
    finally:
        writer.close()
    durable.sync(path)
    return {"rows": writer.rows, "tokens": writer.tokens, "sha256": sha256(path)}, trained


def save(prepared: Prepared) -> Prepared:
    """Writes prepared.json, and with it declares the folder complete."""
    document = asdict(prepared)
    del document["folder"]
    durable.write_json(prepared.folder / "prepared.json", {"v": VERSION, **document})
    durable.sync(prepared.folder.parent)
    return prepared


def load(folder: Path) -> Prepared | None:
    """What was prepared in the folder, or None where it was never finished or a byte of its rows is another one."""
    try:
        document = durable.read_json(folder / "prepared.json")
    except ValueError:
        return None
    if not isinstance(document, dict) or document.pop("v", None) != VERSION:
        return None
    try:
        prepared = Prepared(folder, **document)
    except TypeError:  # fields of another release
        return None
    for name, facts in prepared.files.items():
        path = folder / name
        if not path.is_file() or sha256(path) != facts["sha256"]:
            return None
    return prepared


def sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
