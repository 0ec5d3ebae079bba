"""Every error a user can meet, with one base class.

FinetunerError                 message (what and where), hint (what to do next), code (for programs)
├── SpecError                  a job spec is wrong: carries every problem at once
├── DataError                  a data file cannot be read, or holds nothing to train on
├── ModelError                 a base model is missing, unknown or not a usable Gemma
├── NotFound                   no job, dataset or file of that name
└── SettingsError              the runner's own configuration is unusable (exit code 78)
"""

from dataclasses import asdict, dataclass
from typing import Any


class FinetunerError(Exception):
    """Something a person can act on.

    Args:
        message: what is wrong and where, one sentence.
        hint: what to do next.
        code: a stable lower-case word for programs.
    """

    default_code = "error"

    def __init__(self, message: str, hint: str = "", code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.code = code or self.default_code

    def to_json(self) -> dict[str, Any]:
        return {"code": self.code, "message": self.message, "hint": self.hint}


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong in a job spec; `pointer` is an RFC 6901 JSON pointer, line and column count from 1."""

    code: str
    message: str
    hint: str = ""
    pointer: str = ""
    line: int | None = None
    column: int | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        place = "" if self.line is None else f"line {self.line}, column {self.column}"
        where = f"{self.pointer} ({place})" if self.pointer and place else self.pointer or place
        return (f"{where}: " if where else "") + self.message + (f" {self.hint}" if self.hint else "")


class SpecError(FinetunerError):
    """A job spec with at least one problem; `problems` holds all of them."""

    default_code = "bad_spec"

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = problems
        first = problems[0]
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        where = f"{first.pointer}: " if first.pointer else ""
        super().__init__(f"{where}{first.message}{more}", first.hint, first.code)


class DataError(FinetunerError):
    default_code = "data_blocked"


class ModelError(FinetunerError):
    default_code = "model_missing"


class NotFound(FinetunerError):
    default_code = "not_found"


class SettingsError(FinetunerError):
    default_code = "bad_settings"
