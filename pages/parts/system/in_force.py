"""The runner's settings as they are in force: each with its value, whether somebody set it, and what it means."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson

from pages.parts.texts import has, t
from spool.protocol import settings
from spool.protocol.errors import SettingsError
from spool.protocol.home import Home
from spool.protocol.settings import Settings, Window
from spool.protocol.training import Group


@dataclass(frozen=True)
class Setting:
    """`name` as a path into settings.json: retention.low_disk_gb."""

    name: str
    value: Any
    default: Any
    means: str

    @property
    def changed(self) -> bool:
        return bool(self.value != self.default)


@dataclass(frozen=True)
class InForce:
    """`problem` says why the file cannot be used, and `settings` are then the defaults."""

    settings: list[Setting]
    problem: str = ""
    hint: str = ""
    newer: bool = False
    """The file was changed after the runner was started, which reads it once."""


def read(home: Home, runner_since: str | None) -> InForce:
    """
    Args:
        runner_since: when the runner that is alive was started (ISO 8601).
    """
    try:
        found, problem, hint = settings.load(home), "", ""
    except SettingsError as error:
        found, problem, hint = Settings(), error.message, error.hint
    return InForce(_flat(found, Settings(), ""), problem, hint, _newer(home, runner_since))


def written(value: Any) -> str:
    """A value as it is written in the file."""
    whole = isinstance(value, float) and value.is_integer()
    return orjson.dumps(int(value) if whole else value).decode()


def group(name: str) -> str:
    """Which part of the settings one belongs to: queue, retention or data_limits."""
    return name.partition(".")[0] if "." in name else "queue"


def example() -> str:
    """A settings.json as somebody may write it first."""
    told = {"window": {"start": "20:00", "end": "07:00"}, "retention": {"done_checkpoints_days": 7}, "min_free_gb": 20}
    return orjson.dumps(told, option=orjson.OPT_INDENT_2).decode()


def _flat(group: Group, default: Group | None, prefix: str) -> list[Setting]:
    found = []
    for name, field in type(group).model_fields.items():
        value, usual = getattr(group, name), getattr(default, name) if default else None
        pointer = f"{prefix}{name}"
        if isinstance(value, Group) and not isinstance(value, Window):
            found += _flat(value, usual if isinstance(usual, Group) else None, f"{pointer}.")
        else:
            found.append(Setting(pointer, _plain(value), _plain(usual), meaning(pointer, field.description or "")))
    return found


def meaning(pointer: str, english: str) -> str:
    """In English as the setting itself says it (spool/protocol/settings.py)."""
    key = f"setting.{pointer}"
    return t(key) if has(key) else " ".join(english.split())


def _plain(value: Any) -> Any:
    return value.model_dump(mode="json", exclude_defaults=True) if isinstance(value, Group) else value


def _newer(home: Home, runner_since: str | None) -> bool:
    try:
        return (
            runner_since is not None
            and home.settings.stat().st_mtime > datetime.fromisoformat(runner_since).timestamp()
        )
    except (OSError, ValueError):
        return False
