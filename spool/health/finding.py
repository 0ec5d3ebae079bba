"""What an examination finds: one sentence about one area, and its cure."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

Level = Literal["ok", "warn", "fail"]


@dataclass(frozen=True)
class Finding:
    """`cure` says what to do next; it is empty where nothing needs doing."""

    area: str
    level: Level
    message: str
    cure: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)
