"""What is known of the data that a job names: rows, tokens and findings, as the Data page has them. No streamlit."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pages.parts.data.reading import AUTO, Reading
from pages.parts.train.presets import Size
from spool.data import inspect
from spool.data.inspect import Inspection
from spool.data.keeping import keep
from spool.protocol import resolve, settings
from spool.protocol.errors import FinetunerError
from spool.protocol.home import Home


@dataclass(frozen=True)
class Figures:
    """`state` is none (nothing chosen), unknown (cannot be looked at here), reading, unreadable, blocked, or known."""

    state: str
    report: dict[str, Any] | None = None
    complete: bool = True
    problem: str = ""
    """Why it is unreadable or blocked, in the doctor's words."""
    hint: str = ""
    noted: int | None = None
    """Rows that could be trained on when the file was added: good enough until it has been looked at."""

    @property
    def rows(self) -> int | None:
        """Rows that can be trained on."""
        return self.report["usable_rows"] if self.report else self.noted

    @property
    def findings(self) -> int:
        return sum(self.report["problem_counts"].values()) if self.report else 0

    @property
    def tokens(self) -> int | None:
        """About how many tokens a pass over the rows has: the median row times the rows."""
        lengths = (self.report or {}).get("tokens")
        return lengths["p50"] * self.rows if lengths and self.rows is not None else None

    @property
    def longest(self) -> int | None:
        """Tokens of the longest row, before anything is cut."""
        lengths = (self.report or {}).get("tokens")
        return lengths["max"] if lengths else None

    @property
    def format(self) -> str | None:
        return self.report["format"] if self.report else None

    @property
    def size(self) -> Size:
        return Size(self.rows, self.tokens)


def look(home: Home, started_in: Path, dataset: str | None, model: str | None, values: Mapping[str, Any]) -> Figures:
    """What is known so far, at once. Asking again is cheap, and goes on until `complete`.

    Args:
        values: of the form, by JSON pointer; how the file is to be read is among them.
    """
    if not dataset:
        return Figures("none")
    if dataset.startswith("hf:"):
        return Figures("unknown")
    try:
        places = resolve.Places(home, started_in, settings.roots(settings.load(home), home, started_in))
        path = places.dataset(dataset)
        how = _how(values)
        seen = inspect.look(home, path, model_folder=_tokenizer(home, model), **how, patience_s=0)
        as_found = how["format"] == AUTO and not how["mapping"]
        found = of(seen, _noted(home, dataset) if seen.report is None and as_found else None)
        stored = path.is_relative_to(home.datasets)  # under a name that nobody but the server knows
        return replace(found, problem=found.problem.replace(path.name, dataset)) if stored else found
    except (FinetunerError, OSError):
        return Figures("unknown")  # judging the draft says why


def of(seen: Inspection, noted: int | None = None) -> Figures:
    """What an inspection says; `noted` are the rows of a file that it has not come to yet."""
    if seen.error:
        return Figures("unreadable", None, True, seen.error["message"], seen.error.get("hint") or "")
    if seen.report is None:
        return Figures("reading", None, False, noted=noted)
    why = seen.report["blocked"]
    if why:
        return Figures("blocked", seen.report, seen.complete, why["message"], why.get("hint") or "")
    return Figures("known", seen.report, seen.complete)


def _noted(home: Home, dataset: str) -> int | None:
    """What was written down of a stored dataset when it was added."""
    try:
        rows = (keep.find(home, dataset).report or {}).get("usable_rows")
    except FinetunerError:
        return None
    return rows if isinstance(rows, int) and rows > 0 else None


def _tokenizer(home: Home, model: str | None) -> Path | None:
    """The model's folder where it can count tokens; the rows are known without."""
    if not model or "/" in model or model.startswith("."):
        return None
    folder = home.models / model
    return folder if (folder / "tokenizer.json").is_file() else None


def _how(values: Mapping[str, Any]) -> dict[str, Any]:
    """How the form says that the file is to be read, as `inspect.look` takes it; nonsense is left to the judge."""
    mapping, delimiter = values.get("/data/mapping", {}), values.get("/data/delimiter")
    length = values.get("/data/max_length")
    told = Reading(
        format=values.get("/data/format", AUTO),
        mapping=mapping if isinstance(mapping, dict) else {},
        encoding=values.get("/data/encoding", AUTO),
        delimiter=delimiter if isinstance(delimiter, str) and len(delimiter) == 1 else AUTO,
        header=values.get("/data/header", AUTO),
        max_length=length if isinstance(length, int) else None,
    )
    how = {"format": told.format, "mapping": told.mapping, "dialect": told.dialect}
    return how | {"max_length": told.max_length}
