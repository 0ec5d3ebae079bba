"""What lies in an export: each file with its size and SHA-256, and where it comes from. `manifest.json` in its folder.

It can be checked anywhere, with nothing but the folder or a zip of it: `finetuner verify PATH`. A certificate
(runner/exports/certificate.py) names the manifest that it is about by its hash, so the two cannot be mixed up.
"""

import hashlib
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Any

import orjson

from spool.protocol import durable
from spool.protocol.errors import NotFound

NAME = "manifest.json"
CERTIFICATE = "certificate.json"
BESIDE = (NAME, CERTIFICATE)
"""What no manifest lists: itself, and what was written when it was finished."""
CHUNK = 1 << 20
MAX_BYTES = 16 << 20
"""A manifest is small; what is larger was not written here."""

Pulse = Callable[[], None]
"""A sign of life, given while gigabytes are hashed."""


class NoManifest(NotFound):
    """There is nothing to check against."""

    default_code = "no_manifest"


@dataclass(frozen=True)
class Fault:
    """One file that is not as it was exported: missing, changed, or not part of the export."""

    file: str
    what: str

    def __str__(self) -> str:
        return f"{self.file}: {self.what}"


@dataclass(frozen=True)
class Verified:
    """What a look at an export found; `faults` is empty where every byte is as it was exported."""

    path: Path
    kind: str
    lineage: dict[str, Any]
    files: int
    bytes: int
    faults: list[Fault]
    verdict: str | None = None
    """ready or suspect, as its certificate says; None where there is none."""
    failed: list[str] = field(default_factory=list)
    """The checks of the certificate that it did not pass."""


def write(folder: Path, kind: str, lineage: dict[str, Any], pulse: Pulse = lambda: None) -> str:
    """Hashes and fsyncs everything in a folder and writes its manifest; gives the manifest's own SHA-256."""
    files = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.name not in BESIDE):
        durable.sync(path)
        with open(path, "rb") as file:
            files[path.relative_to(folder).as_posix()] = {"bytes": path.stat().st_size, "sha256": sha256(file, pulse)}
    data = durable.to_bytes({"v": 1, "kind": kind, "lineage": lineage, "files": files})
    durable.write_atomic(folder / NAME, data)
    return hashlib.sha256(data).hexdigest()


def read(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """(manifest, certificate) of an export, without a look at its files. A certificate that is not about this manifest,
    and one that is missing, is {}.

    Raises:
        NoManifest: there is none, or none of ours.
    """
    place = _Folder(folder)
    sizes = dict(place.names())
    document, manifest_sha256 = _manifest(place, sizes)
    return document, _certificate(place, sizes, manifest_sha256)[0]


def verify(path: Path, pulse: Pulse = lambda: None) -> Verified:
    """Holds an export, a folder or a zip of one, against its manifest; reads every byte of it.

    Raises:
        NoManifest: there is no such path, no manifest in it, or one that is none of ours.
    """
    if path.is_file() and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return _verify(_Zip(path, archive), pulse)
    if path.is_file():
        path = path.parent
    if not path.is_dir():
        raise NoManifest(f"there is no {path}.", "Name the folder of an export, or its zip file.", "not_found")
    return _verify(_Folder(path), pulse)


def sha256(file: IO[bytes], pulse: Pulse = lambda: None) -> str:
    digest = hashlib.sha256()
    while data := file.read(CHUNK):
        digest.update(data)
        pulse()
    return digest.hexdigest()


def hashed(path: Path) -> str:
    with open(path, "rb") as file:
        return sha256(file)


class _Folder:
    def __init__(self, path: Path) -> None:
        self.path = path

    def names(self) -> Iterator[tuple[str, int]]:
        for path in sorted(self.path.rglob("*")):
            if path.is_file() and not any(part.startswith(".") for part in path.relative_to(self.path).parts):
                yield path.relative_to(self.path).as_posix(), path.stat().st_size

    def open(self, name: str) -> IO[bytes]:
        return open(self.path / name, "rb")


class _Zip:
    def __init__(self, path: Path, archive: zipfile.ZipFile) -> None:
        self.path, self.archive = path, archive
        found = [info.filename for info in archive.infolist() if PurePosixPath(info.filename).name == NAME]
        self.above = min(found, key=len, default=NAME).removesuffix(NAME)

    def names(self) -> Iterator[tuple[str, int]]:
        for info in self.archive.infolist():
            if not info.is_dir() and info.filename.startswith(self.above):
                yield info.filename.removeprefix(self.above), info.file_size

    def open(self, name: str) -> IO[bytes]:
        return self.archive.open(self.above + name)


def _verify(place: _Folder | _Zip, pulse: Pulse) -> Verified:
    sizes = dict(place.names())
    document, manifest_sha256 = _manifest(place, sizes)
    faults = []
    for name, facts in document["files"].items():
        if name not in sizes:
            faults.append(Fault(name, "it is missing"))
        elif sizes[name] != facts["bytes"]:
            faults.append(Fault(name, f"it has {sizes[name]:,} bytes, and had {facts['bytes']:,} when it was exported"))
        else:
            try:
                with place.open(name) as file:
                    same = sha256(file, pulse) == facts["sha256"]
            except zipfile.BadZipFile:
                same = False
            if not same:
                faults.append(Fault(name, "its content was changed"))
    faults += [
        Fault(name, "it is not part of the export") for name in sizes if name not in {*document["files"], *BESIDE}
    ]
    total = sum(int(facts["bytes"]) for facts in document["files"].values())
    certificate, fault = _certificate(place, sizes, manifest_sha256)
    if fault:
        faults.append(fault)
    return Verified(
        place.path,
        str(document["kind"]),
        document["lineage"],
        len(document["files"]),
        total,
        faults,
        certificate.get("verdict"),
        [str(check.get("name")) for check in certificate.get("checks", []) if not check.get("passed")],
    )


def _manifest(place: _Folder | _Zip, sizes: dict[str, int]) -> tuple[dict[str, Any], str]:
    if NAME not in sizes:
        message = f"{place.path} holds no {NAME}: it is no export, or not a whole one."
        raise NoManifest(message, "Name the folder of an export, such as runs/ID/exports/merged.")
    with place.open(NAME) as file:
        data = file.read(MAX_BYTES)
    try:
        document = orjson.loads(data)
        assert document["v"] == 1
        assert isinstance(document["lineage"], dict)
        assert all(
            isinstance(facts["bytes"], int) and isinstance(facts["sha256"], str) and _inside(name)
            for name, facts in document["files"].items()
        )
        document["kind"]
    except (ValueError, KeyError, TypeError, AttributeError, AssertionError):
        raise NoManifest(f"{place.path}/{NAME} is damaged, or none of this product.", "Export it again.") from None
    return document, hashlib.sha256(data).hexdigest()


def _inside(name: str) -> bool:
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts


def _certificate(
    place: _Folder | _Zip, sizes: dict[str, int], manifest_sha256: str
) -> tuple[dict[str, Any], Fault | None]:
    if CERTIFICATE not in sizes:
        return {}, None
    try:
        with place.open(CERTIFICATE) as file:
            document = orjson.loads(file.read(MAX_BYTES))
        if document["manifest_sha256"] == manifest_sha256:
            return document, None
    except (ValueError, KeyError, TypeError, zipfile.BadZipFile):
        pass
    return {}, Fault(CERTIFICATE, "it is damaged, or that of another export")
