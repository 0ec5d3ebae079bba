"""GGUF files, read and written with their metadata as it lies there.

The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. The gguf package makes an object of each of a
Gemma's 262,144 tokens and takes ten seconds to open a file; what is done here needs none of them.
"""

import math
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from spool.protocol.errors import FinetunerError

MAGIC, VERSION, ALIGNMENT = b"GGUF", 3, 32
UINT32, STRING, ARRAY = 4, 8, 9
SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
"""Bytes of a value by its type: integers, floats and bools; strings (8) and arrays (9) say their own length."""
FLOATS = {0: np.dtype("<f4"), 1: np.dtype("<f2"), 30: np.dtype("<u2")}
"""GGML's F32, F16 and BF16 (as its bits); the rows of other types are made of blocks."""


@dataclass(frozen=True)
class Tensor:
    """A tensor of a file; `dimensions` as GGUF counts them, the length of a row first."""

    name: str
    dimensions: tuple[int, ...]
    kind: int
    """Its ggml_type."""
    begin: int
    """Of its bytes, in the file."""

    @property
    def rows(self) -> int:
        return math.prod(self.dimensions[1:])

    def row_bytes(self, sizes: Mapping[int, tuple[int, int]]) -> int:
        block, size = sizes[self.kind]
        return self.dimensions[0] // block * size


@dataclass(frozen=True)
class Contents:
    """What a file holds: its metadata as bytes by key, and where its tensors lie."""

    path: Path
    fields: dict[str, bytes]
    """Key -> type and value, as they lie in the file."""
    tensors: list[Tensor]

    def text(self, key: str) -> str:
        return self.fields[key][12:].decode()

    def number(self, key: str) -> int:
        value: int = struct.unpack_from("<I", self.fields[key], 4)[0]
        return value

    def map(self, tensor: Tensor, sizes: Mapping[int, tuple[int, int]]) -> Any:
        """(rows, bytes of a row) uint8, or (rows, columns) of a float type, mapped into memory."""
        width = tensor.row_bytes(sizes)
        data = np.memmap(self.path, np.uint8, "r", tensor.begin, (tensor.rows, width))
        kind = FLOATS.get(tensor.kind)
        return data.view(kind) if kind else data


def read(path: Path) -> Contents:
    """Raises FinetunerError for what is no whole GGUF of version 3."""
    try:
        with open(path, "rb") as file:
            return _read(path, file)
    except (struct.error, ValueError, KeyError, EOFError):
        raise FinetunerError(f"{path} is no whole GGUF file.", "Export it again.", "gguf_damaged") from None


def _read(path: Path, file: IO[bytes]) -> Contents:
    if file.read(4) != MAGIC:
        raise ValueError
    version, tensors, fields = struct.unpack("<IQQ", file.read(20))
    if version != VERSION:
        raise ValueError
    stream = _Stream(file)
    known = {}
    for _ in range(fields):
        key = stream.text()
        begin = stream.at
        stream.skip_value(stream.unpack("<I"))
        known[key] = stream.since(begin)
    infos = []
    for _ in range(tensors):
        name = stream.text()
        dimensions = tuple(stream.unpack("<Q") for _ in range(stream.unpack("<I")))
        infos.append((name, dimensions, stream.unpack("<I"), stream.unpack("<Q")))
    alignment = (
        struct.unpack_from("<I", known["general.alignment"], 4)[0] if "general.alignment" in known else ALIGNMENT
    )
    begin = -(-(24 + stream.at) // alignment) * alignment
    found = [Tensor(name, dimensions, kind, begin + offset) for name, dimensions, kind, offset in infos]
    return Contents(path, known, found)


class _Stream:
    """The header's bytes, read on as they are needed."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.data = bytearray()
        self.at = 0

    def _need(self, end: int) -> None:
        while len(self.data) < end:
            more = self.file.read(16 << 20)
            if not more:
                raise EOFError
            self.data += more

    def unpack(self, form: str) -> int:
        size = struct.calcsize(form)
        self._need(self.at + size)
        value: int = struct.unpack_from(form, self.data, self.at)[0]
        self.at += size
        return value

    def text(self) -> str:
        size = self.unpack("<Q")
        self._need(self.at + size)
        self.at += size
        return self.data[self.at - size : self.at].decode()

    def since(self, begin: int) -> bytes:
        return bytes(self.data[begin : self.at])

    def skip_value(self, kind: int) -> None:
        if kind == STRING:
            self.skip(self.unpack("<Q"))
        elif kind == ARRAY:
            inner, count = self.unpack("<I"), self.unpack("<Q")
            if inner in SIZES:
                self.skip(SIZES[inner] * count)
            else:
                for _ in range(count):
                    self.skip_value(inner)
        else:
            self.skip(SIZES[kind])

    def skip(self, size: int) -> None:
        self._need(self.at + size)
        self.at += size


def uint32(value: int) -> bytes:
    return struct.pack("<II", UINT32, value)


def write_header(
    out: IO[bytes], fields: Mapping[str, bytes], tensors: Iterable[tuple[str, tuple[int, ...], int, int]]
) -> None:
    """Metadata and the table of tensors: (name, dimensions, ggml_type, bytes); their data follows, each `padded`."""
    rows = list(tensors)
    parts = [MAGIC, struct.pack("<IQQ", VERSION, len(rows), len(fields))]
    for key, value in fields.items():
        parts += [_text(key), value]
    at = 0
    for name, dimensions, kind, size in rows:
        parts += [_text(name), struct.pack(f"<I{len(dimensions)}QIQ", len(dimensions), *dimensions, kind, at)]
        at += size + padding(size)
    header = b"".join(parts)
    out.write(header + b"\0" * padding(len(header)))


def padding(size: int) -> int:
    """Zero bytes after so many of data."""
    return -size % ALIGNMENT


def _text(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data
