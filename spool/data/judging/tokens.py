"""The rows of a file as one model's tokens: computed once, kept under HOME/cache/tokens by content and tokenizer.

A kept folder has rows.arrow (whole rows, not yet cut to a length), lengths.npy and trained.npy (int32, one entry a
row) and, written last, facts.json. It may be deleted at any time; the fifty that were used last are kept.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from xxhash import xxh3_128

from spool.data.judging import arrow_rows
from spool.data.judging.arrow_rows import TokenRow
from spool.data.judging.chat import NOT_TRAINED, Encoder
from spool.data.judging.formats import Layout
from spool.data.judging.scan import Say, Scan, examples, without_collecting
from spool.data.reading.table import Problem
from spool.protocol import durable
from spool.protocol.errors import DataError

VERSION = 1
AUTO_MAX_TOKENS = 2048
SHORTEST_MAX_TOKENS = 16
KEPT_FOLDERS = 50


@dataclass(frozen=True)
class Tokens:
    """Tokenised rows. The arrays have one entry a row, in reading order; int32, lengths in tokens before any cut."""

    folder: Path
    rows: np.ndarray
    """Which usable row (from 0) of the scan each one is."""
    lengths: np.ndarray
    trained: np.ndarray
    """Tokens that give a gradient."""
    problems: list[Problem]
    """Rows that the model's template or tokenizer refuses."""

    def read(self) -> Iterator[TokenRow]:
        return arrow_rows.read(self.folder / "rows.arrow")


def resolve_train_on(train_on: str, layout: Layout) -> str:
    """ "responses" or "all".

    Raises:
        DataError: responses are asked of plain text, which has none.
    """
    if layout.format != "text":
        return "responses" if train_on == "auto" else train_on
    if train_on == "responses":
        message = "plain text has no answers, so training on responses only would train on nothing."
        raise DataError(message, "Set data.train_on to auto or all.")
    return "all"


def resolve_max_length(asked: int | None, tokens: Tokens, encoder: Encoder) -> int:
    """The limit in tokens; None becomes the longest row, at most 2048 and what the model can.

    Raises:
        DataError: more tokens are asked for than the model can take.
    """
    if asked is None:
        longest = int(tokens.lengths.max(initial=0))
        return max(min(longest, AUTO_MAX_TOKENS, encoder.context_length), SHORTEST_MAX_TOKENS)
    if asked > encoder.context_length:
        message = f"data.max_length is {asked:,}, but the model takes at most {encoder.context_length:,} tokens."
        raise DataError(message, "Set data.max_length to auto or to a smaller number.")
    return asked


def key(scan: Scan, content_sha256: str, tokenizer_sha256: str, train_on: str, first_rows: int | None = None) -> str:
    """The name under which the tokens are kept: changes with whatever they depend on.

    The same bytes are other rows when they are read otherwise (file ending, dialect, limits): so the rows themselves
    count, what each teaches and where it lies.
    """
    tally = scan.tally
    rows = xxh3_128(bytes(tally.examples))
    for places in (tally.lines, tally.bytes, tally.files):
        rows.update(places.tobytes())
    parts = [VERSION, content_sha256, tokenizer_sha256, train_on, first_rows, scan.layout.format, scan.layout.roles]
    return hashlib.sha256(json.dumps([*parts, rows.hexdigest()], sort_keys=True).encode()).hexdigest()[:32]


def tokenise(
    scan: Scan,
    encoder: Encoder,
    train_on: str,
    folder: Path,
    say: Say = lambda done, total: None,
    first_rows: int | None = None,
) -> Tokens:
    """The tokens of all usable rows, from `folder` where they are kept already, else computed and kept there.

    Args:
        say: told (rows done, rows in all).
        first_rows: only so many.
    """
    kept = load(folder)
    if kept is not None:
        os.utime(folder)
        return kept
    _prune(folder.parent)
    draft = folder.with_name(f".{folder.name}-{os.getpid()}")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    try:
        with without_collecting():
            _write(scan, encoder, train_on, draft, say, first_rows)
        try:
            os.rename(draft, folder)
        except OSError:  # somebody else was faster
            if load(folder) is None:
                shutil.rmtree(folder, ignore_errors=True)
                os.rename(draft, folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    done = load(folder)
    assert done is not None
    return done


def load(folder: Path) -> Tokens | None:
    """Kept tokens, or None where they are not complete."""
    try:
        facts = durable.read_json(folder / "facts.json")
        if not facts or (folder / "rows.arrow").stat().st_size != facts["size_bytes"]:
            return None
        rows, lengths, trained = (np.load(folder / f"{name}.npy") for name in ("rows", "lengths", "trained"))
        return Tokens(folder, rows, lengths, trained, [Problem(**problem) for problem in facts["problems"]])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _prune(cache: Path) -> None:
    """Deletes what was not used for longest. Who has just mapped a file of it keeps it until it is closed."""
    folders = [path for path in cache.glob("*") if path.is_dir() and not path.name.startswith(".")]
    for old in sorted(folders, key=_used_at, reverse=True)[KEPT_FOLDERS - 1 :]:
        shutil.rmtree(old, ignore_errors=True)


def _used_at(folder: Path) -> float:
    try:
        return folder.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _write(scan: Scan, encoder: Encoder, train_on: str, folder: Path, say: Say, first_rows: int | None) -> None:
    writer = arrow_rows.Writer(folder / "rows.arrow")
    rows, lengths, trained, problems = [], [], [], []
    try:
        for row, found in enumerate(encoder.encode_all(islice(examples(scan), first_rows), train_on)):
            place = scan.place(row)
            if isinstance(found, Problem):
                problems.append({"code": found.code, "message": found.message, "action": "dropped", **place})
                continue
            writer.add(row, found.line, scan.tally.bytes[row], found.input_ids, found.labels)
            rows.append(row)
            lengths.append(len(found.input_ids))
            trained.append(found.trained_tokens)
            if not row % 2000:
                say(row, scan.usable)
    finally:
        writer.close()
    for name, values in (("rows", rows), ("lengths", lengths), ("trained", trained)):
        np.save(folder / f"{name}.npy", np.array(values, np.int64 if name == "rows" else np.int32))
    facts: dict[str, Any] = {"v": VERSION, "problems": problems, "tokens": writer.tokens}
    facts["size_bytes"] = (folder / "rows.arrow").stat().st_size
    # the size alone says that they are whole: a power cut may leave the right number of NULs
    durable.sync_all(path for path in folder.iterdir())
    durable.write_json(folder / "facts.json", facts)
    say(scan.usable, scan.usable)


def cut(row: TokenRow, max_length: int, place: dict[str, Any]) -> tuple[TokenRow | None, Problem | None]:
    """The row as it is trained on, and what is to be said of it; None where nothing of it would be learned."""
    length = len(row.input_ids)
    if not learned(row.labels):
        words = "nothing in the row would be trained on."
        return None, Problem(code="no_trainable_tokens", message=words, action="dropped", **place)
    if length <= max_length:
        return row, None
    lost = f"{length - max_length:,} of {length:,} tokens are lost beyond data.max_length ({max_length:,})"
    kept = row._replace(input_ids=row.input_ids[:max_length], labels=row.labels[:max_length])
    if not learned(kept.labels):
        words = f"{lost}, the whole answer among them: nothing is left to train on."
        return None, Problem(code="no_trainable_tokens", message=words, action="dropped", **place)
    gone = int((row.labels[max_length:] != NOT_TRAINED).sum())
    what = (
        f"{gone:,} tokens of the answer are among them, its end too" if gone else "no token of an answer is among them"
    )
    if (row.labels != NOT_TRAINED).all():
        what = "the row's end is not learned"
    return kept, Problem(code="over_long", message=f"{lost}; {what}.", action="cut", **place)


def learned(labels: np.ndarray) -> int:
    """Tokens that give a gradient. The first one has nothing before it to be predicted from."""
    return int((labels[1:] != NOT_TRAINED).sum())
