"""The drop box as people need to know it who drop job files by hand or by script; what became of the last ones."""

import grp
import json
import os
import pwd
import shlex
import stat
from dataclasses import dataclass
from typing import Any

from spool.protocol import durable
from spool.protocol.home import Home, State
from spool.protocol.states import Token, Tokens
from spool.protocol.ulid import is_ulid

RECEIPTS = 20
OVERFLOW_UID = 65_534
MODEL = "gemma-3-270m"
DATASET = "examples/support_tickets.jsonl"


@dataclass(frozen=True)
class Receipt:
    """What became of one drop: a job in some state, or `rejected` with its reason."""

    job_id: str
    name: str
    """What the dropped file was called; of one that a page or `finetuner submit` dropped, the job's name."""
    state: str
    at: str | None
    by: str | None
    why: str = ""
    hint: str = ""


@dataclass(frozen=True)
class Access:
    """Who may drop: `owner`, `group` and `mode` as `ls -l` names them; nobody before the folder is made."""

    exists: bool
    owner: str = ""
    """Empty where this process cannot tell: a unit with PrivateUsers= sees all others as nobody."""
    group: str = ""
    mode: str = ""
    writable: bool = False
    """By this web app's own account."""


def example(model: str | None, dataset: str | None) -> str:
    """The smallest spec that works here."""
    spec = {"schema": 1, "model": model or MODEL, "dataset": dataset or DATASET}
    return json.dumps(spec, indent=2, ensure_ascii=False)


def richer(model: str | None, dataset: str | None) -> str:
    """One with what people set most often."""
    spec: dict[str, Any] = {
        "schema": 1,
        "name": "support tickets, nightly",
        "model": model or MODEL,
        "dataset": dataset or DATASET,
        "priority": 7,
        "submission_id": "tickets-2026-11-23",
        "train": {"epochs": 2},
        "lora": {"rank": 32, "alpha": 32},
        "export": ["adapter", "merged"],
    }
    return json.dumps(spec, indent=2, ensure_ascii=False)


def by_hand(home: Home) -> str:
    """Copied under a name that is passed over, then renamed: a half-copied file is never seen."""
    folder = shlex.quote(str(home.incoming))
    return f"cp job.json {folder}/.job.part\nmv {folder}/.job.part {folder}/job.json"


def from_afar(home: Home, host: str) -> str:
    folder = shlex.quote(str(home.incoming))
    return f"scp job.json {host}:{folder}/.job.part\nssh {host} mv {folder}/.job.part {folder}/job.json"


def by_command(home: Home) -> str:
    return f"finetuner --home {shlex.quote(str(home.root))} submit job.json --wait"


def access(home: Home) -> Access:
    try:
        info = home.incoming.stat()
    except OSError:
        return Access(False)
    writable = os.access(home.incoming, os.W_OK | os.X_OK)
    hidden = info.st_uid == OVERFLOW_UID and info.st_uid != os.geteuid()
    owner = "" if hidden else _user(info.st_uid)
    return Access(True, owner, _group(info.st_gid), stat.filemode(info.st_mode), writable)


def receipts(home: Home, most: int = RECEIPTS) -> list[Receipt]:
    """The last drops, newest first, by their ids: only those shown are opened."""
    placed: dict[str, tuple[State, Token]] = {
        token.job_id: (state, token) for state in State for token in Tokens(home).list(state)
    }
    try:
        refused = {name for name in os.listdir(home.rejected) if is_ulid(name)} - placed.keys()
    except OSError:
        refused = set()
    newest = sorted([*placed, *refused], reverse=True)[:most]
    return [_accepted(home, *placed[job_id]) if job_id in placed else _refused(home, job_id) for job_id in newest]


def _accepted(home: Home, state: State, token: Token) -> Receipt:
    body = Tokens(home).body(state, token)
    dropped = str(body.get("dropped_name") or "")
    by_id = dropped.removesuffix(".json") == token.job_id
    name = str(body.get("name") or token.job_id) if by_id or not dropped else dropped
    return Receipt(token.job_id, name, state.value, _text(body.get("submitted_at")), _text(body.get("submitted_by")))


def _refused(home: Home, job_id: str) -> Receipt:
    try:
        reason = durable.read_json(home.rejected / job_id / "reason.json") or {}
    except (OSError, ValueError):
        reason = {}
    name, message, hint = (str(reason.get(key) or "") for key in ("dropped_name", "message", "hint"))
    at, by = _text(reason.get("rejected_at")), _text(reason.get("submitted_by"))
    return Receipt(job_id, name or job_id, "rejected", at, by, message, hint)


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
