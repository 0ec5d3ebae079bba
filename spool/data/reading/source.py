"""What a path holds: one file, or those in a folder or a zip archive, each opened as a stream of unpacked bytes.

Names inside archives are only ever shown, never used as paths. Whatever unpacks is counted while it unpacks.
"""

import gzip
import hashlib
import io
import os
import re
import stat
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from spool.data.reading.limits import RATIO_COUNTS_FROM_BYTES, Limits
from spool.protocol.errors import DataError

KINDS = "CSV, TSV, JSON, JSONL, TXT and Parquet can be read, also gzipped, in a folder, or in a zip archive."
ENDINGS = (".csv", ".tsv", ".tab", ".json", ".jsonl", ".ndjson", ".txt", ".text", ".parquet")
BUFFER_BYTES = 1 << 20

GZIP, ZIP = b"\x1f\x8b", b"PK\x03\x04"
NOT_ROWS = (
    (b"\xd0\xcf\x11\xe0", "an old Excel or Word file", "Save the sheet as CSV (UTF-8)."),
    (b"%PDF", "a PDF", "Copy its text into a TXT or CSV file."),
    (b"BZh", "bzip2", "Unpack it first."),
    (b"\xfd7zXZ", "xz", "Unpack it first."),
    (b"\x28\xb5\x2f\xfd", "zstandard", "Unpack it first."),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", "Unpack it first."),
    (b"Rar!", "a RAR archive", "Unpack it first."),
    (b"SQLite format 3", "an SQLite database", "Export the table as CSV."),
    (b"\x89PNG", "a picture", "Rows of text are needed."),
    (b"\xff\xd8\xff", "a picture", "Rows of text are needed."),
    (b"GIF8", "a picture", "Rows of text are needed."),
    (b"\x7fELF", "a program", "Rows of text are needed."),
    (b"ARROW1", "an Arrow file", "Save it as Parquet."),
    (b"version https://git-lfs", "the pointer that Git LFS leaves, not the file itself", "Run git lfs pull."),
    (b"<!DOCTYPE html", "a web page", "Download the file itself, not the page that shows it."),
    (b"<!doctype html", "a web page", "Download the file itself, not the page that shows it."),
)
TRAINING_NAME = re.compile(r"train", re.IGNORECASE)
EVAL_NAME = re.compile(r"(^|[/_.-])(test|val|valid|validation|eval|dev|heldout|held_out)([/_.\d-]|$)", re.IGNORECASE)


@dataclass
class Budget:
    """Counts what all parts of one source unpack to."""

    limits: Limits
    name: str
    packed_bytes: int
    unpacked_bytes: int = 0

    def spend(self, count: int) -> None:
        """Raises DataError where the source unpacks to too much."""
        self.spend_unpacked(count)
        total = self.unpacked_bytes
        if total > RATIO_COUNTS_FROM_BYTES and total > self.limits.max_unpack_ratio * self.packed_bytes:
            message = f"{self.name} unpacks to more than {self.limits.max_unpack_ratio:g} times its size."
            raise DataError(message, "It looks like a zip bomb. Unpack it yourself if you trust it.", "unpacks_too_far")

    def spend_unpacked(self, count: int) -> None:
        """The same without regard to the packed size."""
        self.unpacked_bytes += count
        if self.unpacked_bytes > self.limits.max_unpacked_gb * 1e9:
            message = f"{self.name} holds more than {self.limits.max_unpacked_gb:g} GB unpacked."
            raise DataError(message, "Take a part of it, or raise data_limits.max_unpacked_gb.", "too_large")


@dataclass
class Part:
    """One file of a source."""

    name: str
    """Its name inside the folder or archive; "" where the source is this one file."""
    ending: str
    open: Callable[[Budget], "Stream"]
    path: Path | None = None
    """Where it lies, if it is a plain file that other processes can open as well."""
    size_bytes: int | None = None
    packed: str = ""
    """"gzip" where the stream unpacks it."""


@dataclass
class Source:
    """The files behind a path, and what is to be said of them."""

    path: Path
    parts: list[Part]
    kind: str
    """file, folder or zip."""
    packed_bytes: int
    limits: Limits
    notices: list[str] = field(default_factory=list)

    def budget(self) -> Budget:
        """A fresh count, for one reading of all parts."""
        return Budget(self.limits, self.path.name, self.packed_bytes)


class Stream(io.RawIOBase):
    """Unpacked bytes. A packed file that breaks off ends here, and `broken` says so in words."""

    def __init__(self, raw: Any, budget: Budget | None = None, beneath: tuple[Any, ...] = ()) -> None:
        super().__init__()
        self.raw = raw
        self.beneath = beneath
        """What `raw` reads from and would leave open."""
        self.budget = budget
        self.broken = ""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "memoryview[int]") -> int:  # type: ignore[override]
        try:
            data = self.raw.read1(len(buffer))  # at once what is there: a damaged end must not take it away
        except (EOFError, zlib.error, gzip.BadGzipFile, zipfile.BadZipFile) as error:
            words = "it breaks off in the middle" if isinstance(error, EOFError) else "its packed data is damaged"
            self.broken = self.broken or words
            return 0
        if self.budget is not None:
            self.budget.spend(len(data))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        for each in (self.raw, *self.beneath):
            each.close()
        super().close()


def open_source(path: Path, limits: Limits) -> Source:
    """The files behind a path. Nothing is unpacked yet.

    Raises:
        DataError: there is nothing there that could be read as rows.
    """
    if path.is_dir():
        return _folder(path, limits)
    with open_regular(path) as file:
        head = file.read(512)
        size_bytes = os.fstat(file.fileno()).st_size
    if head.startswith(ZIP):
        return _archive(path, size_bytes, limits)
    refuse_other_kinds(head, path.name)
    return Source(path, [_file_part("", path, head, size_bytes)], "file", size_bytes, limits)


def refuse_other_kinds(head: bytes, name: str) -> None:
    """Raises DataError for what is known not to be rows, by its first bytes."""
    for magic, what, hint in NOT_ROWS:
        if head.startswith(magic):
            raise DataError(f"{name} is {what}; it cannot be read as rows.", f"{hint} {KINDS}")


def open_regular(path: Path) -> BinaryIO:
    """Opens a file for reading, never a folder, a pipe or a device.

    Raises:
        DataError: there is none.
    """
    try:
        # without O_NONBLOCK opening a pipe would wait for a writer for ever
        file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    except FileNotFoundError:
        raise DataError(f"there is no file {path}.", "Check the path and the name.", "dataset_missing") from None
    except IsADirectoryError:
        raise DataError(f"{path} is a folder.", "Name one file in it.", "dataset_missing") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        hint = "Check the path and its permissions."
        raise DataError(f"{path} cannot be read: {reason}.", hint, "dataset_missing") from None
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise DataError(f"{path} is not a regular file.", "Copy the rows into one.", "dataset_missing")
    return file


def _ending(name: str) -> tuple[str, bool]:
    """(ending, gzipped) of "rows.jsonl.gz" is (".jsonl", True)."""
    plain = name.lower().removesuffix(".gz")
    return os.path.splitext(plain)[1], plain != name.lower()


def _file_part(name: str, path: Path, head: bytes, size_bytes: int) -> Part:
    ending, _ = _ending(path.name)
    if head.startswith(GZIP):
        return Part(name, ending, lambda budget: _unpacking(path, budget), packed="gzip")
    return Part(name, ending, lambda _: Stream(open_regular(path)), path, size_bytes)


def _unpacking(path: Path, budget: Budget) -> Stream:
    file = open_regular(path)
    return Stream(_gunzip(file), budget, (file,))


def _gunzip(raw: BinaryIO) -> BinaryIO:
    return gzip.GzipFile(fileobj=raw, mode="rb")  # type: ignore[return-value]


def _folder(path: Path, limits: Limits) -> Source:
    found: list[str] = []
    notices: list[str] = []
    for folder, folders, names in os.walk(path):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            file = Path(folder) / name
            if _ending(name)[0] in ENDINGS and not name.startswith(".") and file.is_file():
                if file.is_symlink() and not file.resolve().is_relative_to(path.resolve()):
                    raise DataError(f"{file} is a link that leads out of the folder.", "Copy the file.", "bad_link")
                found.append(str(file.relative_to(path)))
        _refuse_many(len(found), path.name, limits)
    if not found:
        raise DataError(f"{path} is a folder without a data file.", KINDS, "dataset_missing")
    chosen = _without_eval_files(found, notices)
    total_bytes = 0
    parts = []
    for name in chosen:
        with open_regular(path / name) as file_:
            head, size_bytes = file_.read(512), os.fstat(file_.fileno()).st_size
        refuse_other_kinds(head, name)
        total_bytes += size_bytes
        if size_bytes:
            parts.append(_file_part(name, path / name, head, size_bytes))
    if not parts:
        raise DataError(f"{path} holds only empty files.", "Choose a folder with rows in it.")
    return Source(path, parts, "folder", total_bytes, limits, notices)


def _archive(path: Path, size_bytes: int, limits: Limits) -> Source:
    with open_regular(path) as file:
        try:
            with zipfile.ZipFile(file) as archive:
                entries = archive.infolist()
        except Exception as error:  # zipfile trips over damaged archives in many ways
            message = f"{path.name} is a damaged zip archive: {str(error)[:100]}."
            raise DataError(message, "Pack it again, or copy it again.", "bad_archive") from None
    names = [entry.filename for entry in entries]
    if any(name in ("[Content_Types].xml", "mimetype") for name in names):
        message = f"{path.name} is an Excel workbook or another office file; it cannot be read as rows."
        raise DataError(message, "Save the sheet as CSV (UTF-8).")
    _refuse_many(len(entries), path.name, limits)
    by_name = {}
    for entry in entries:
        if stat.S_ISLNK(entry.external_attr >> 16):
            message = f"{path.name} holds a link ({shown(entry.filename)})."
            raise DataError(message, "Pack the file itself instead of the link.", "bad_archive")
        if entry.flag_bits & 1:
            message = f"{path.name} is encrypted."
            raise DataError(message, "Pack it again without a password.", "bad_archive")
        pieces = [piece for piece in entry.filename.split("/") if piece not in (".", "..")]
        hidden = any(piece.startswith((".", "__MACOSX")) for piece in pieces)
        if entry.file_size and not entry.is_dir() and not hidden and _ending(entry.filename)[0] in ENDINGS:
            by_name[entry.filename] = entry
    if not by_name:
        raise DataError(f"{path.name} is a zip archive without a data file.", KINDS)
    notices: list[str] = []
    Budget(limits, path.name, size_bytes).spend(sum(entry.file_size for entry in by_name.values()))
    parts = [
        Part(shown(name), _ending(name)[0], _member(path, by_name[name]), size_bytes=by_name[name].file_size)
        for name in _without_eval_files(sorted(by_name), notices)
    ]
    return Source(path, parts, "zip", size_bytes, limits, notices)


def _member(path: Path, entry: zipfile.ZipInfo) -> Callable[[Budget], Stream]:
    def opened(budget: Budget) -> Stream:
        try:
            file = open_regular(path)
            archive = zipfile.ZipFile(file)
            raw: Any = archive.open(entry)
            packed = raw
            if _ending(entry.filename)[1]:
                raw = _gunzip(raw)
        except Exception as error:  # zipfile trips over damaged archives in many ways
            message = f"{shown(entry.filename)} in {path.name} cannot be unpacked: {str(error)[:100]}."
            raise DataError(message, "Pack it again.", "bad_archive") from None
        return Stream(raw, budget, (packed, archive, file))

    return opened


def _refuse_many(count: int, name: str, limits: Limits) -> None:
    if count > limits.max_files:
        message = f"{name} holds more than {limits.max_files:,} files."
        raise DataError(message, "Join them, or raise data_limits.max_files.", "too_many_files")


def _without_eval_files(names: list[str], notices: list[str]) -> list[str]:
    """Beside files called train, those called test or validation are not trained on."""
    training = [name for name in names if TRAINING_NAME.search(name)]
    left_out = [name for name in names if EVAL_NAME.search(name) and name not in training] if training else []
    if left_out:
        listed = ", ".join(map(shown, left_out[:5])) + (" ..." if len(left_out) > 5 else "")
        notices.append(f"Not read, as the name says that it is for testing: {listed}.")
    return [name for name in names if name not in left_out]


def shown(name: str) -> str:
    """A name from an archive as it may be printed."""
    text = name.encode("utf-8", "replace").decode()
    return re.sub(r"[^\w .,()\[\]+@=/-]", "?", text)[-120:]


def signature(path: Path) -> list[Any]:
    """Tells two states of a file or folder apart without reading it.

    Raises:
        DataError: there is none.
    """
    try:
        if path.is_dir():
            files = sorted(file for file in path.rglob("*") if file.is_file())
            return [[str(file.relative_to(path)), *signature(file)] for file in files]
        info = path.stat()
    except OSError as error:
        hint = "Put it back, or choose another one."
        raise DataError(f"{path.name} cannot be read: {error.strerror}.", hint, "dataset_missing") from None
    return [info.st_ino, info.st_size, info.st_mtime_ns]


def content_sha256(path: Path) -> str:
    """The hash of a file's bytes; of a folder, of its data files' names and bytes. It names what was trained on."""
    if not path.is_dir():
        with open_regular(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
    digest = hashlib.sha256()
    for folder, folders, names in os.walk(path):
        folders.sort()
        for name in sorted(names):
            file_path = Path(folder) / name
            if _ending(name)[0] in ENDINGS and not name.startswith(".") and file_path.is_file():
                digest.update(
                    f"{file_path.relative_to(path)}\0{content_sha256(file_path)}\n".encode("utf-8", "replace")
                )
    return digest.hexdigest()
