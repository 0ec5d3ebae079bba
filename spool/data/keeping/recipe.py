"""New versions of datasets from those that are stored: a recipe of steps, kept with what it made, and done again.

steps.py says what the steps are. A version that a recipe made is JSON lines, one object a row, whatever its
parents were; its dataset.json names the parents by their versions, and the recipe with every default written out.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from spool.data.keeping import keep, mixing, rows, splitting, steps
from spool.data.keeping.augment import augment
from spool.data.keeping.keep import Origin, Stored
from spool.data.keeping.rows import Records, StoredRecords
from spool.data.reading.limits import Limits
from spool.data.reading.read import AS_FOUND, Dialect
from spool.protocol import settings
from spool.protocol.errors import DataError
from spool.protocol.home import Home

WRITE_BYTES = 1 << 20
ONLY_FIRST = steps.Read | steps.Mix | steps.AddRows


def derive(home: Home, name: str, sources: Sequence[str], recipe: Sequence[dict[str, Any]]) -> Stored:
    """Applies a recipe to stored datasets and keeps the result as a version of `name`.

    Rows go from file to file one by one; what a step holds of them meanwhile stands in its docstring. The same
    parents and recipe give the same bytes, and so the same version. Where `name` has these bytes already, that
    version becomes its newest again and keeps the lineage it had.

    Args:
        sources: NAME or NAME@VERSION; several only where the first step is `mix` or `add_rows`.
        recipe: steps as JSON objects; a step `read` before all others says how the first source is read.

    Raises:
        NotFound: a source does not exist or was deleted.
        DataError: `bad_recipe`; `dataset_changed`, a source's bytes are not those of its version; `nothing_left`;
            or what a step finds (`no_such_row`, `cannot_split`, `cannot_mix` ...). Nothing is left behind.
    """
    keep.check_name(name)
    return _made(home, name, [keep.verified(home, each) for each in sources], recipe)


def replay(home: Home, stored: Stored) -> Stored:
    """Does the recipe of a derived version again: the same version, with its bytes back where they were deleted.

    Raises:
        NotFound: a parent was deleted.
        DataError: it has no recipe; a parent was changed; or the result is another one (`not_reproduced`).
    """
    if not stored.recipe:
        message = f"{stored.reference} was uploaded, not made by a recipe."
        raise DataError(message, "Only derived versions can be made again.", "no_recipe")
    return _made(home, stored.name, [keep.verified(home, each) for each in stored.parents], stored.recipe, stored)


def split(
    home: Home,
    reference: str,
    *,
    eval_fraction: float | None = None,
    eval_rows: int | None = None,
    seed: int = 42,
    by: str | None = None,
    stratify: str | None = None,
    format: str = "auto",
    mapping: dict[str, str] | None = None,
    dialect: Dialect = AS_FOUND,
) -> tuple[Stored, Stored]:
    """Makes the datasets NAME-train and NAME-eval of one; how is said in `spool.data.keeping.splitting`.

    Args:
        eval_fraction: share of the usable rows, at most 0.5; or `eval_rows`, how many.
        by: a column whose value holds rows together; without it rows with the same first question stay together.
        stratify: a column of which each value gets its share of the eval rows.
        dialect: how the dataset is read, where that is not found rightly.

    Raises:
        as `derive`; `cannot_split` where too little would be left on a side.
    """
    stored = keep.verified(home, reference)
    asked = {"eval_fraction": eval_fraction, "eval_rows": eval_rows, "seed": seed, "by": by, "stratify": stratify}
    step = {"step": "split", **asked, "format": format, "mapping": mapping or {}}
    train, evaluation = (
        _made(home, f"{stored.name[:74]}-{side}", [stored], [*steps.reading(dialect), {**step, "side": side}])
        for side in ("train", "eval")
    )
    return train, evaluation


def add_rows(home: Home, reference: str, corrected: Path, dialect: Dialect = AS_FOUND) -> Stored:
    """Adds the rows of a corrected rejects.jsonl; each takes the place of the line that it names, or comes last.

    The corrected file is kept too, as a version of NAME-corrections, so that the recipe can be done again.

    Args:
        reference: the version that the rejects came from: their lines are its lines.
        corrected: JSON lines, plain rows or {"line", "code", "message", "row"}.
        dialect: how the version is read, where that is not found rightly.

    Raises:
        as `derive`; `bad_correction` where a row is still no row.
    """
    stored = keep.verified(home, reference)
    kept = keep.add(home, f"{stored.name[:68]}-corrections", corrected.name, corrected)
    return _made(home, stored.name, [stored, kept], [*steps.reading(dialect), {"step": "add_rows"}])


def _made(
    home: Home, name: str, parents: Sequence[Stored], recipe: Sequence[dict[str, Any]], again: Stored | None = None
) -> Stored:
    parsed = steps.parse_all(recipe)
    with keep.drafting(home) as folder:
        draft = folder / "data.jsonl"
        sources, stream = _stream([parent.path for parent in parents], parsed, settings.load(home).data_limits)
        sha256 = _write(stream, draft)
        left_out = sum((source.left_out for source in sources), Counter())
        if again and sha256[:12] != again.version:
            message = (
                f"the recipe of {again.reference} now makes {sha256[:12]}: it was made by another version of this app, "
                "or under other data_limits."
            )
            raise DataError(message, "Keep the bytes of the old one, or use the new one.", "not_reproduced")
        origin = Origin(
            parents=[parent.reference for parent in parents],
            recipe=[steps.to_json(step) for step in parsed],
            left_out=dict(left_out),
        )
        return keep.settle(home, name, draft, sha256, origin, newest=again is None)


def _stream(paths: list[Path], recipe: list[steps.AnyStep], limits: Limits) -> tuple[list[StoredRecords], Records]:
    dialect = AS_FOUND
    if recipe and isinstance(recipe[0], steps.Read):
        dialect, recipe = recipe[0].dialect, recipe[1:]
    if not paths or not recipe:
        raise DataError("a recipe needs at least one dataset and one step.", "Name them.", "bad_recipe")
    first, *rest = recipe
    joins = isinstance(first, steps.Mix | steps.AddRows)
    if (len(paths) > 1) != joins or isinstance(first, steps.Read) or any(isinstance(step, ONLY_FIRST) for step in rest):
        message = f"{len(paths)} dataset{'s' * (len(paths) > 1)} cannot be used with the steps of this recipe."
        hint = "read, mix and add_rows come first; mix and add_rows take several datasets, all other steps take one."
        raise DataError(message, hint, "bad_recipe")
    match first:
        case steps.Mix():
            sources = [StoredRecords(paths[0], limits, dialect), *(StoredRecords(path, limits) for path in paths[1:])]
            stream = mixing.mix(sources, first)
        case steps.AddRows():
            corrected = StoredRecords(paths[1], limits)
            wrapped = (rows.wrapped(record)[0] for record in corrected())
            sources = [StoredRecords(paths[0], limits, dialect, [place for place in wrapped if place]), corrected]
            stream = rows.add_rows(sources[0], corrected, first)
        case _:
            sources = [StoredRecords(paths[0], limits, dialect, _named_first(recipe))]
            stream = _applied(sources[0], first)
    for step in rest:
        stream = _applied(stream, step)
    return sources, stream


def _named_first(recipe: list[steps.AnyStep]) -> Iterator[steps.Place]:
    """The rows that are edited and dropped before any other step."""
    for step in recipe:
        if not isinstance(step, steps.Edit | steps.Drop):
            return
        yield from step.places


def _applied(stream: Records, step: steps.AnyStep) -> Records:
    match step:
        case steps.Edit():
            return rows.edit(stream, step)
        case steps.Drop():
            return rows.drop(stream, step)
        case steps.KeepUsable():
            return rows.keep_usable(stream, step)
        case steps.Dedupe():
            return rows.dedupe(stream, step)
        case steps.Split():
            return splitting.split(stream, step)
        case steps.Cap():
            return rows.cap(stream, step)
        case steps.Mask():
            return rows.mask(stream, step)
        case steps.Wrap() | steps.Noise() | steps.Reword() | steps.Balance():
            return augment(stream, step)
    raise AssertionError(step)


def _write(stream: Records, path: Path) -> str:
    """Writes and fsyncs the rows as JSON lines; gives their SHA-256."""
    digest = hashlib.sha256()
    with open(path, "xb", buffering=WRITE_BYTES) as out:
        for record in stream():
            line = rows.dump(record.value, record.line) + b"\n"
            digest.update(line)
            out.write(line)
        if not out.tell():
            raise DataError(
                "the recipe leaves no row.", "Take out a step, or start from another version.", "nothing_left"
            )
        out.flush()
        os.fsync(out.fileno())
    return digest.hexdigest()
