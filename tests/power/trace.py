"""Recording: a command runs under strace, and its system calls become the operation log of tests/power/disk.py.

strace sees what the kernel is asked, whichever process, thread or library asks: nothing can be forgotten, as could be
with patched functions, and no FUSE mount is needed. `record` ends by comparing the log's own idea of the folder to
the folder, byte for byte: a call that was misread (a relative path without a folder's descriptor) is an error, never a
weaker test.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path

from tests.power.disk import SURVIVORS, Log, Op, after_cut

NAMES = "openat,open,creat,mkdir,mkdirat,rename,renameat,renameat2,unlink,unlinkat,rmdir,link,linkat,symlink,symlinkat"
DATA = "write,pwrite64,writev,pwritev,truncate,ftruncate,fallocate,copy_file_range,sendfile,fsync,fdatasync,sync,syncfs"
CALLS = f"{NAMES},{DATA}"
UNKNOWN = ("pwritev", "fallocate", "copy_file_range", "sendfile", "sync", "syncfs", "symlink", "symlinkat", "creat")
"""Calls that the product does not make on files it relies on: if that changes, the recorder must learn them."""
MAX_BYTES = 1 << 22

_LINE = re.compile(rb"(\d+) +(.*)")
_CALL = re.compile(rb"(\w+)\((.*)\) += (-?\d+|\?)(.*)")
_FD = re.compile(rb"(-?\w+)(?:<((?:\\x[0-9a-f]{2})*|[^>]*)>)?")
_ULID = re.compile(rb"[0-7][0-9A-HJKMNP-TV-Z]{25}\n?")


class Untraceable(Exception):
    """strace is not here, or may not trace; the message says which."""


def available() -> None:
    """Raises Untraceable with the reason where nothing can be recorded."""
    if shutil.which("strace") is None:
        raise Untraceable("strace is not installed (apt-get install strace)")
    tried = subprocess.run(["strace", "-f", "-o", os.devnull, "true"], capture_output=True, text=True)
    if tried.returncode:
        raise Untraceable(f"strace may not trace here: {tried.stderr.strip().splitlines()[-1]}")


def record(command: list[str], folder: Path, cwd: Path, env: dict[str, str], timeout_s: float = 300) -> Log:
    """Runs a command and gives the log of what was done below `folder`, the state before it being safe.

    Raises:
        Untraceable: strace cannot run here.
        RuntimeError: the command failed, or the log does not lead to what the folder holds.
    """
    available()
    log = Log.over(folder)
    raw = folder.with_name(f"{folder.name}.strace")
    tracer = ["strace", "-f", "-y", "-xx", f"-s{MAX_BYTES}", "--seccomp-bpf", "-e", f"trace={CALLS}"]
    tracer += ["-e", "signal=none", "-qq", "-o", str(raw)]
    done = subprocess.run([*tracer, *command], cwd=cwd, env=env, capture_output=True, text=True, timeout=timeout_s)
    if done.returncode:
        raise RuntimeError(f"{command} ended with {done.returncode}:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
    Reader(log, folder).read(raw)
    raw.unlink()
    _compare(log, folder)
    return log


def _compare(log: Log, folder: Path) -> None:
    tree = after_cut(log, len(log.ops), "journal", SURVIVORS[3])
    told = {path: file and file.data for path, file in tree.items()}
    there = {
        path.relative_to(folder).as_posix(): None if path.is_dir() else path.read_bytes() for path in folder.rglob("*")
    }
    if told != there:
        other = sorted(path for path in told.keys() | there.keys() if told.get(path, 0) != there.get(path, 0))
        raise RuntimeError(f"the log and the folder differ in {other[:10]}: a system call was misread")


def _bytes(hexed: bytes) -> bytes:
    return bytes.fromhex(hexed.replace(b"\\x", b"").decode())


class Reader:
    """Turns strace's lines into operations. Names outside of the folder are passed over, except for promises: a ULID
    printed, or a line `mark ...` written to /dev/null."""

    def __init__(self, log: Log, folder: Path) -> None:
        self.log = log
        self.folder = str(folder)
        self.begun: dict[bytes, tuple[bytes, int]] = {}
        self.cursor: dict[int, int] = {}
        self.append: set[int] = set()

    def read(self, raw: Path) -> None:
        with open(raw, "rb") as lines:
            for line in lines:
                match = _LINE.match(line)
                if match is None:
                    continue
                pid, rest = match[1], match[2]
                began = len(self.log.ops)
                if rest.endswith(b"<unfinished ...>"):
                    self.begun[pid] = (rest.removesuffix(b"<unfinished ...>").rstrip(), began)
                    continue
                if rest.startswith(b"<... "):
                    start, began = self.begun.pop(pid)
                    rest = start + rest.partition(b"resumed>")[2]
                call = _CALL.match(rest)
                if call and call[3] != b"?" and int(call[3]) >= 0:
                    self._call(call[1].decode(), split(call[2]), int(call[3]), began)

    def _call(self, name: str, words: list[bytes], result: int, began: int) -> None:
        if name in UNKNOWN:
            if any(self.folder.encode() in _path_bytes(word) for word in words):
                raise RuntimeError(f"the recorder does not know {name}")
            return
        if name in ("fsync", "fdatasync"):
            inode = self._inode(self._of_fd(words[0]))
            if inode is not None:
                self.log.add(Op("sync", inode, began=began))
        elif name in ("write", "pwrite64", "writev"):
            self._write(name, words, result)
        elif name in ("truncate", "ftruncate"):
            inode = self._inode(self._of_fd(words[0]) if name == "ftruncate" else self._at(None, words[0]))
            if inode is not None:
                self.log.add(Op("size", inode, offset=int(words[1])))
        elif name in ("open", "openat"):
            path = self._at(None, words[0]) if name == "open" else self._at(words[0], words[1])
            self._open(path, words[1 if name == "open" else 2])
        else:
            self._names(name, words)

    def _names(self, name: str, words: list[bytes]) -> None:
        at = name.removesuffix("2").endswith("at")
        two = name.startswith(("rename", "link"))
        if at and two:
            paths = [self._at(words[0], words[1]), self._at(words[2], words[3])]
        elif at:
            paths = [self._at(words[0], words[1])]
        else:
            paths = [self._at(None, word) for word in words[: 2 if two else 1]]
        inside = [path for path in paths if path is not None]
        if not inside:
            return
        if len(inside) != len(paths):
            raise RuntimeError(f"{name} over the edge of the folder: {words}")
        if two:
            self._two(name, inside[0], inside[1])
        elif name.startswith("mkdir"):
            new = self.log.fresh()
            self.log.names[new] = {}
            folder, entry = self._split(inside[0])
            self.log.add(Op("link", new, folder, entry))
        else:
            folder, entry = self._split(inside[0])
            self.log.add(Op("drop", folder=folder, name=entry))

    def _two(self, name: str, old: str, new: str) -> None:
        inode = self._inode(old)
        assert inode is not None, f"{name} of the unknown {old}"
        folder, entry = self._split(old)
        to_folder, to_entry = self._split(new)
        if name.startswith("link"):
            self.log.add(Op("link", inode, to_folder, to_entry))
        else:
            self.log.add(Op("rename", inode, folder, entry, to_folder, to_entry))

    def _open(self, path: str | None, flags: bytes) -> None:
        if path is None or not (b"O_CREAT" in flags or b"O_WRONLY" in flags or b"O_RDWR" in flags):
            return
        inode = self._inode(path)
        if inode is None:
            inode = self.log.fresh()
            folder, entry = self._split(path)
            self.log.add(Op("link", inode, folder, entry))
        elif b"O_TRUNC" in flags:
            self.log.add(Op("size", inode, offset=0))
        self.cursor[inode] = 0
        (self.append.add if b"O_APPEND" in flags else self.append.discard)(inode)

    def _write(self, name: str, words: list[bytes], result: int) -> None:
        fd = _FD.match(words[0])
        if fd is None:
            return
        path = self._of_fd(words[0])
        if path is None:
            data = _path_bytes(words[1]) if name == "write" else b""
            if data.startswith(b"mark ") or _ULID.fullmatch(data):
                self.log.add(Op("mark", name=data.decode().strip()))
            return
        inode = self._inode(path)
        if inode is None:  # its name is gone, and with it everybody who could read it after a restart
            return
        data = b"".join(_bytes(each) for each in re.findall(rb'"((?:\\x[0-9a-f]{2})*)"', words[1]))[:result]
        if len(data) != result:
            raise RuntimeError(f"strace cut {path} short: {len(data)} of {result} bytes")
        if name == "pwrite64":
            offset = int(words[3])
        else:
            offset = self._size(inode) if inode in self.append else self.cursor.get(inode, 0)
            self.cursor[inode] = offset + result
        self.log.add(Op("write", inode, offset=offset, data=data))

    def _size(self, inode: int) -> int:
        size = len(self.log.contents.get(inode, b""))
        for op in self.log.ops:
            if op.inode == inode and op.kind == "write":
                size = max(size, op.offset + len(op.data))
            elif op.inode == inode and op.kind == "size":
                size = op.offset
        return size

    def _of_fd(self, word: bytes) -> str | None:
        match = _FD.match(word)
        return self._inside(os.fsdecode(_path_bytes(match[2]))) if match and match[2] else None

    def _at(self, folder: bytes | None, word: bytes) -> str | None:
        path = os.fsdecode(_path_bytes(word))
        if not path.startswith("/"):
            match = _FD.match(folder) if folder else None
            if match is None or not match[2]:
                return None if folder else self._inside(path)
            path = os.path.join(os.fsdecode(_path_bytes(match[2])), path)
        return self._inside(path)

    def _inside(self, path: str) -> str | None:
        if path == self.folder:
            return "."
        return os.path.normpath(path[len(self.folder) + 1 :]) if path.startswith(f"{self.folder}/") else None

    def _inode(self, path: str | None) -> int | None:
        return None if path is None else self.log.inode(path)

    def _split(self, path: str) -> tuple[int, str]:
        folder, name = os.path.split(path)
        inode = self.log.inode(folder)
        assert inode is not None, f"something was made in the unknown folder {folder!r}"
        return inode, name


def _path_bytes(word: bytes) -> bytes:
    found = re.findall(rb"(?:\\x[0-9a-f]{2})+", word)
    return b"".join(_bytes(each) for each in found)


def split(arguments: bytes) -> list[bytes]:
    """The arguments of a call; commas in brackets, braces and the names of descriptors do not part them."""
    words, depth, start, quoted = [], 0, 0, False
    if b"[" not in arguments and b"{" not in arguments:
        return [word.strip() for word in arguments.split(b",")]
    for index, byte in enumerate(arguments):
        if byte == ord('"'):
            quoted = not quoted
        elif not quoted and byte in b"[{":
            depth += 1
        elif not quoted and byte in b"]}":
            depth -= 1
        elif not quoted and byte == ord(",") and depth == 0:
            words.append(arguments[start:index].strip())
            start = index + 1
    return [*words, arguments[start:].strip()]
