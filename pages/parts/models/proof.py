"""What an export's certificate says: whether it answers like its adapter, by which checks, and how close it is."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import orjson

from pages.parts import quantities
from pages.parts.compare.dossier import finite
from pages.parts.escape import one_line
from pages.parts.texts import has, t
from pages.parts.words import sentence
from spool.protocol import certificate, manifest

READY, SUSPECT = certificate.READY, certificate.SUSPECT
UNPROVEN, ORIGINAL, FAILED = "unproven", "original", "failed"
"""How an export stands. ORIGINAL is an adapter without a certificate: all others are held against it."""

SHARES = ("tokens", "template", "stop")
"""Checks whose figure is a share that must be reached; the other figures must not be exceeded."""

MOST_CHECKS = 50


class Check(certificate.Check):
    """One thing that was looked at, as it is shown."""

    @property
    def label(self) -> str:
        key = f"models.check.{self.name}"
        return t(key) if has(key) else sentence(one_line(self.name, 40).replace("_", " "))

    @property
    def found(self) -> str:
        return _figure(self.name, self.measured, self.limit)

    @property
    def wanted(self) -> str:
        """`at least 85 %`, `at most 0.15`; a dash where there is no figure to reach."""
        if self.limit is None:
            return quantities.DASH
        key = "least" if self.name in SHARES else "most"
        return t(f"models.proof.{key}", limit=_figure(self.name, self.limit, self.limit))


@dataclass(frozen=True)
class Certificate:
    """What was found when the export was made."""

    passed: bool
    checks: tuple[Check, ...]
    measured: Mapping[str, Any] = field(default_factory=dict)
    held_out: bool = False
    made_at: str | None = None
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def failed(self) -> list[Check]:
        return [check for check in self.checks if not check.passed]

    @property
    def equal(self) -> float | None:
        """Share of places at which it would say the same as the adapter."""
        return finite(self.measured.get("equal_tokens"))

    @property
    def divergence(self) -> float | None:
        """Mean Kullback-Leibler divergence of its expectations from the adapter's, in nats a token."""
        return finite(self.measured.get("kl"))

    @property
    def rise(self) -> float | None:
        """By how much its loss on the data's own answers is above the adapter's."""
        theirs, ours = (finite(self.measured.get(name)) for name in ("eval_loss", "adapter_loss"))
        return None if theirs is None or ours is None else theirs - ours


def read(folder: Path) -> Certificate | None:
    """The certificate of an export; None where there is none, it is damaged, or that of another export."""
    try:
        stamps = tuple((folder / name).stat().st_mtime_ns for name in (manifest.CERTIFICATE, manifest.NAME))
    except OSError:
        return None
    return _read(folder, stamps)


@lru_cache(maxsize=1024)
def _read(folder: Path, stamps: tuple[int, ...]) -> Certificate | None:
    """`stamps` makes changed files another certificate."""
    try:
        document = orjson.loads(_start(folder / manifest.CERTIFICATE))
        about = hashlib.sha256(_start(folder / manifest.NAME)).hexdigest()
        if document["manifest_sha256"] != about:
            return None
        checks = tuple(_check(each) for each in document["checks"][:MOST_CHECKS])
        measured, versions = document.get("measured"), document.get("versions")
        return Certificate(
            document["verdict"] == READY and bool(checks) and all(check.passed for check in checks),
            checks,
            measured if isinstance(measured, dict) else {},
            document.get("held_out") is True,
            str(document.get("made_at") or "") or None,
            {str(name): str(value) for name, value in versions.items()} if isinstance(versions, dict) else {},
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _start(path: Path) -> bytes:
    with open(path, "rb") as file:
        return file.read(manifest.MAX_BYTES)


def _check(each: Mapping[str, Any]) -> Check:
    measured, limit = finite(each.get("measured")), finite(each.get("limit"))
    return Check(str(each["name"])[:80], each["passed"] is True, str(each.get("says") or ""), measured, limit)


def _figure(name: str, value: float | None, limit: float | None) -> str:
    if value is None:
        return quantities.DASH
    if name in SHARES:
        return quantities.agreement(value)
    if name == "weights" and limit is not None and limit < 1:
        return quantities.share(value)
    return quantities.small(value)
