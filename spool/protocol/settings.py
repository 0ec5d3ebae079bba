"""The runner's settings: HOME/settings.json, read once at its start. Every field has a default."""

import difflib
import os
import re
import tempfile
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import Field, ValidationError
from pydantic_core import ErrorDetails

from spool.data.reading.limits import Limits
from spool.protocol.errors import SettingsError, SpecError
from spool.protocol.home import Home
from spool.protocol.parse import parse_json
from spool.protocol.training import Group

MOST_PROBLEMS = 5
Clock = Annotated[str, Field(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$")]
Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
DAYS: tuple[Day, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


class Window(Group):
    """When jobs may start, in this machine's local time: {"start": "20:00", "end": "07:00"} is overnight."""

    start: Clock
    """The first minute, HH:MM."""

    end: Clock
    """The first minute after it; at or before `start` it is of the next day."""

    days: Annotated[tuple[Day, ...], Field(min_length=1, max_length=7, strict=False)] = DAYS
    """The days on which the window opens."""

    at_end: Literal["finish", "interrupt"] = "finish"
    """What becomes of a job that still runs at the end: it goes on, or writes a checkpoint and waits for the next."""


Days = Annotated[float, Field(ge=0, le=36_500)] | None


class Retention(Group):
    """What is removed of jobs that have ended, and when; null keeps it for ever.

    Never removed: datasets, models, exports, specs, metrics, events, findings, and whatever a job that has not ended
    needs or names in its spec.
    """

    done_checkpoints_days: Days = 3
    """Checkpoints of jobs that are done or cancelled. Those of a job that left no export count as a failed job's."""

    failed_checkpoints_days: Days = 14
    """Checkpoints of failed jobs: the only trace of what they learned."""

    set_aside_days: Days = 7
    """Damaged checkpoints that a resume has set aside."""

    prepared_rows_days: Days = 1
    """Tokenised rows in runs/ID/data; the findings beside them stay."""

    rejected_days: Days = 90
    """Rejected drops: the dropped bytes and the reasons."""

    log_mb: Annotated[float, Field(ge=0.1, le=1_000_000)] | None = 20
    """The log of an ended job that is larger keeps its beginning and its end."""

    low_disk_gb: Annotated[float, Field(ge=0, le=100_000)] | None = 5
    """With less free disk, checkpoints of jobs that are done or cancelled go before their days are over, oldest first,
    then prepared rows. A failed job's checkpoints keep their days."""


class Settings(Group):
    allowed_roots: list[str] | None = None
    """Folders that datasets and local models may lie in. Default: where the runner was started, the data home, and
    the system's temporary folder."""

    settle_s: Annotated[float, Field(gt=0, le=60)] | None = None
    """How long a dropped file must not have changed. Default 0.5, and 3 on network mounts."""

    scan_s: Annotated[float, Field(gt=0, le=600)] | None = None
    """Time between two scans of the folders. Default 2, and 5 on network mounts."""

    unreadable_s: Annotated[float, Field(gt=0, le=86_400)] = 60
    """A file that does not parse and has not changed for so long is rejected."""

    grace_s: Annotated[float, Field(gt=0, le=3600)] = 30
    """A cancelled child that still lives so long after SIGTERM is killed."""

    stop_s: Annotated[float, Field(gt=0, le=3600)] = 120
    """When the runner is stopped: how long the child may take to write its checkpoint."""

    max_queued: Annotated[int, Field(ge=1, le=1_000_000)] | None = 20_000
    """Jobs that may wait (checked, queued and held together); what is dropped beyond is rejected. null: any number."""

    max_queued_per_user: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """The same for the jobs of one person: who signed in to the web app, or the account that dropped the file.
    Default: any number."""

    web_accounts: Annotated[list[str], Field(max_length=100)] | None = None
    """Accounts whose drops may say who submitted them (`submitted_by`), as the web app's do. Default: finetuner-web
    and the account that the runner runs as."""

    data_limits: Limits = Limits()
    """What reading a dataset refuses (spool/data/reading/limits.py)."""

    window: Window | None = None
    """When jobs may start. Default: always."""

    min_free_gb: Annotated[float, Field(ge=0, le=100_000)] = 1.0
    """Free disk (in GB) below which the queue waits. A job's own limits.min_free_gb may ask for more."""

    report_s: Annotated[float, Field(ge=0, le=86_400)] = 240
    """How long the report at the end of a training may take; what cannot be asked in that time it says. 0: trainings
    end without one."""

    price_per_kwh: Annotated[float, Field(ge=0, le=1000)] | None = None
    """What a kilowatt hour costs here; with it a report says what the energy of a training has cost. Default: it does
    not say."""

    currency: Annotated[str, Field(min_length=1, max_length=8)] = "EUR"
    """The currency of `price_per_kwh`, as it is written behind the number."""

    warm: bool = True
    """Whether a process waits for the next job with its libraries loaded (up to 1 GB of memory, none of the card), so
    that the job starts sooner."""

    heartbeat_s: Annotated[float, Field(gt=0, le=60)] = 5
    """Time between two writes of runner.json."""

    retention: Retention = Retention()
    """What is removed of ended jobs, and when."""

    reserve_mb: Annotated[int, Field(ge=0, le=100_000)] = 64
    """Disk kept back in spool/state/reserve, given up when the disk is full so that states can still be written."""

    gpu_foreign_gb: Annotated[float, Field(ge=0, le=1000)] = 2.0
    """While other people's processes hold more of the card's memory than this, no job is started."""


NETWORK_FILESYSTEMS = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "fuse.sshfs", "9p", "ceph", "glusterfs"})


def load(home: Home) -> Settings:
    """The settings of a data home.

    Raises:
        SettingsError: the file is there and cannot be used.
    """
    try:
        data = home.settings.read_bytes()
    except FileNotFoundError:
        return Settings()
    except OSError as error:
        raise SettingsError(f"{home.settings} cannot be read: {error.strerror}", "Correct its permissions.") from None
    try:
        document, _ = parse_json(data)
        return Settings.model_validate(document)
    except SpecError as error:
        raise SettingsError(f"{home.settings}: {error.message}", error.hint) from None
    except ValidationError as error:
        problems = [_problem(each) for each in error.errors(include_url=False)[:MOST_PROBLEMS]]
        hint = "Correct or remove " + ("it." if len(problems) == 1 else "them.")
        raise SettingsError(f"{home.settings}: {' '.join(problems)}", hint) from None


def _problem(error: ErrorDetails) -> str:
    """One thing that is wrong in the file, in a sentence."""
    where = ".".join(str(part) for part in error["loc"])
    if error["type"] != "extra_forbidden":
        return f"{where}: {error['msg']}." if where else f"{error['msg']}."
    near = difflib.get_close_matches(where[:60], _names(Settings), n=1, cutoff=0.75)
    return f"There is no setting {where[:60]!r}." + (f" Did you mean {near[0]!r}?" if near else "")


def _names(group: type[Group], above: str = "") -> list[str]:
    """Every setting as it is written here: min_free_gb, retention.rejected_days ..."""
    names = []
    for name, field in group.model_fields.items():
        names.append(above + name)
        for kind in (field.annotation, *get_args(field.annotation)):
            if isinstance(kind, type) and issubclass(kind, Group):
                names += _names(kind, f"{above}{name}.")
    return names


def roots(settings: Settings, home: Home, started_in: Path) -> list[Path]:
    """The resolved folders that datasets and local models may lie in."""
    if settings.allowed_roots is not None:
        return [Path(root).resolve() for root in settings.allowed_roots]
    try:
        temporary = [Path(tempfile.gettempdir()).resolve()]
    except FileNotFoundError:  # it tries to write there: a full disk must not keep the runner from starting
        temporary = []
    return [started_in.resolve(), home.root, *temporary]


def is_network_mount(path: Path) -> bool:
    """Whether /proc/mounts calls the file system of `path` a network one, where events and ages are late."""
    return filesystem(path) in NETWORK_FILESYSTEMS


def filesystem(path: Path) -> str:
    """The type of the file system of `path` as /proc/mounts has it (ext4, nfs4, overlay ...); empty if unknown."""
    try:
        lines = Path("/proc/mounts").read_bytes().splitlines()
    except OSError:
        return ""
    path = path.resolve()
    best = ("", "")
    for line in lines:
        fields = line.split()
        # A space stands there as \040. Escapes give bytes, bytes give the name.
        point = os.fsdecode(re.sub(rb"\\([0-7]{3})", lambda m: bytes([int(m[1], 8)]), fields[1]))
        if path.is_relative_to(point) and len(point) >= len(best[0]):
            best = (point, fields[2].decode())
    return best[1]
