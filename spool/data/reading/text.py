"""From bytes to lines of text: the encoding, found and named, and each line with its number and byte offset."""

import codecs
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from spool.protocol.errors import DataError

HEAD_BYTES = 1 << 20
SURVEY_BYTES = 64 << 20

BOMS = (  # UTF-32 first: its little-endian mark starts with the one of UTF-16
    (b"\xff\xfe\x00\x00", "utf-32-le", "utf-32"),
    (b"\x00\x00\xfe\xff", "utf-32-be", "utf-32"),
    (b"\xff\xfe", "utf-16-le", "utf-16"),
    (b"\xfe\xff", "utf-16-be", "utf-16"),
    (b"\xef\xbb\xbf", "utf-8", "utf-8 with BOM"),
)
CONTROL = bytes(code for code in range(32) if code not in b"\t\n\r\f\v\x1b\x01\x1c\x1d\x1e\x1f") + b"\x7f"
FOREIGN_SHARE = 0.2
LEGACY = ["cp1252", "cp1250", "cp1251", "cp1253", "cp1254", "cp932", "gb18030", "big5", "euc_kr", "koi8_r"]


@dataclass(frozen=True)
class Encoding:
    """How bytes become characters."""

    name: str
    """As it is shown: "utf-8", "utf-8 with BOM", "utf-16", "windows-1252" ..."""
    codec: str
    mark_bytes: int = 0
    """Length of the byte order mark."""
    notice: str = ""
    """What a person should look at, where it was not certain."""

    @property
    def errors(self) -> str:
        """A byte that fits nowhere becomes a lone surrogate, which marks its row."""
        return "replace" if self.codec.startswith(("utf-16", "utf-32")) else "surrogateescape"

    def length_bytes(self, text: str) -> int:
        """How many bytes the text took in the file."""
        if self.codec == "utf-8" and text.isascii():
            return len(text)
        if self.codec.startswith(("utf-16", "utf-32")):
            return len(text.encode(self.codec, "surrogatepass"))
        return len(text.encode(self.codec, "surrogateescape"))


def detect(stream: BinaryIO, name: str, stated: str = "auto") -> Encoding:
    """The encoding of a stream, judged by its first 64 MiB.

    Args:
        stated: what the user says it is; "auto" looks.

    Raises:
        DataError: it is not text, or the user names an encoding that does not exist.
    """
    head = stream.read(HEAD_BYTES)
    marked = next((Encoding(shown, codec, len(mark)) for mark, codec, shown in BOMS if head.startswith(mark)), None)
    if stated != "auto":
        return _stated(stated, marked)
    if marked is not None:
        return marked
    unmarked = _utf16_without_mark(head)
    if unmarked is not None:
        return unmarked
    sample = head[: 1 << 16]
    if len(sample) - len(sample.translate(None, CONTROL)) > len(sample) // 100:
        hint = "CSV, TSV, JSON, JSONL, TXT and Parquet can be read."
        raise DataError(f"{name} is not text: it holds control bytes.", hint)
    return _utf8_or_legacy(stream, head)


def _stated(stated: str, marked: Encoding | None) -> Encoding:
    try:
        found = codecs.lookup(stated)
    except LookupError:
        found = None
    if found is None or not found._is_text_encoding:
        message = f"data.encoding: there is no encoding {stated[:40]!r}."
        raise DataError(message, "Known are utf-8, utf-16, windows-1252, windows-1251, shift_jis, gb18030 ...")
    if marked is not None and found.name.startswith(marked.codec[:5]):
        return marked
    name = "windows-1252" if found.name == "cp1252" else found.name
    return Encoding(name, {"utf-16": "utf-16-le", "utf-8-sig": "utf-8"}.get(found.name, found.name))


def _utf16_without_mark(head: bytes) -> Encoding | None:
    """Latin text in UTF-16 has a zero in every other byte."""
    sample = head[:4096]
    half = len(sample) // 2
    if half < 2:
        return None
    first, second = sample[0 : half * 2 : 2].count(0), sample[1 : half * 2 : 2].count(0)
    notice = "It has no byte order mark; UTF-16 was recognised by its zero bytes."
    if second > half * 0.4 and first < half * 0.05:
        return Encoding("utf-16", "utf-16-le", notice=notice)
    if first > half * 0.4 and second < half * 0.05:
        return Encoding("utf-16", "utf-16-be", notice=notice)
    return None


def _utf8_or_legacy(stream: BinaryIO, head: bytes) -> Encoding:
    """UTF-8 unless most of the characters beyond ASCII do not fit it."""
    decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
    good = bad = seen = 0
    sample = b""
    block = head
    while block and seen < SURVEY_BYTES:
        seen += len(block)
        if not block.isascii() or decoder.getstate()[0]:
            text = decoder.decode(block)
            beyond_ascii = len(text) - len(text.encode("ascii", "ignore"))
            escaped = len(text.encode("utf-8", "surrogatepass")) - len(text.encode("utf-8", "ignore"))
            bad += escaped // 3  # a lone surrogate would take three bytes
            good += beyond_ascii - escaped // 3
            sample = sample or block
        block = stream.read(HEAD_BYTES)
    if not bad:
        return Encoding("utf-8", "utf-8")
    if good >= bad:
        notice = f"{bad:,} bytes are no UTF-8; the rows with them are dropped. Say data.encoding if it is another one."
        return Encoding(f"utf-8 with {bad:,} unreadable bytes", "utf-8", notice=notice)
    return _legacy(sample)


def _legacy(sample: bytes) -> Encoding:
    """Windows-1252, unless so many letters lie beyond ASCII that the text is in another script."""
    hint = "If letters look wrong, name the encoding (“Read it differently” on the page, data.encoding in a job)."
    letters = sum(byte > 127 for byte in sample) / max(1, sum(byte > 64 for byte in sample))
    if letters > FOREIGN_SHARE:
        from charset_normalizer import from_bytes

        best = from_bytes(sample[: 1 << 16], cp_isolation=LEGACY).best()
        if best is not None and best.encoding not in ("cp1252", "cp1250"):
            name = best.encoding.replace("cp125", "windows-125")
            return Encoding(
                name, best.encoding, notice=f"It is not UTF-8; read as {name}, judged by its letters. {hint}"
            )
    return Encoding("windows-1252", "cp1252", notice=f"It is not UTF-8; read as Windows-1252. {hint}")


class Lines:
    """The lines of a stream: (number from 1, byte offset, text without its line end).

    A line over the limit comes as None: its text is never held. Ends are \\n, \\r\\n and \\r.
    """

    def __init__(self, stream: BinaryIO, encoding: Encoding, most_characters: int) -> None:
        stream.read(encoding.mark_bytes)
        self._text = io.TextIOWrapper(stream, encoding.codec, encoding.errors, newline="")
        self._text._CHUNK_SIZE = 1 << 18  # type: ignore[attr-defined]
        self.encoding = encoding
        self.most = most_characters
        self.number = 0
        self.byte = encoding.mark_bytes

    def __iter__(self) -> Iterator[tuple[int, int, str | None]]:
        readline: Callable[[int], str] = self._text.readline
        length = self.encoding.length_bytes
        most = self.most + 2
        while line := readline(most):
            self.number += 1
            start = self.byte
            self.byte += length(line)
            if line[-1] == "\n":
                text = line[:-2] if line[-2:-1] == "\r" else line[:-1]
            elif line[-1] == "\r":
                text = line[:-1]
            elif len(line) < most:
                text = line
            else:
                self._skip_rest(readline, most)
                yield self.number, start, None
                continue
            yield self.number, start, text if len(text) <= self.most else None

    def _skip_rest(self, readline: Callable[[int], str], most: int) -> None:
        while rest := readline(most):
            self.byte += self.encoding.length_bytes(rest)
            if rest[-1] in "\r\n":
                return
