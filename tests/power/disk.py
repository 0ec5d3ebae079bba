"""What a disk holds after the power went: a log of file operations, and the trees that a cut in it may leave behind.

Three models of what survives without an fsync. In all of them the bytes of a file are safe only after fsync of it, and
what was not synced may be there, be gone, be there in part, or be NULs.

`journal`  names change in one order, any prefix of it survives, any fsync makes safe what came before: ext4, xfs.
`loose`    each folder has an order of its own and only its own fsync makes that safe; a rename over two folders is one
           step: nothing but what POSIX and the rename(2) of a journaling file system promise.
`torn`     as loose, and a rename over two folders may leave both names; never neither. The product does not promise to
           live through this: a state is the folder that a token lies in, and no local file system of Linux does it.
"""

import os
import random
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = 0
PROMISED = ("journal", "loose")
MODELS = (*PROMISED, "torn")
SURVIVORS = (("least", "none"), ("most", "none"), ("most", "nul"), ("most", "all"), ("random", "random"))
"""(names, bytes): what of the unsynced survives."""

Tree = dict[str, "File | None"]
"""Path below the root -> a file, or None for a folder."""


@dataclass(frozen=True)
class File:
    inode: int
    data: bytes
    written: int
    """Where in the log it was last written: materialised files are as old as they were to each other."""


@dataclass(frozen=True)
class Op:
    """One operation. `began` is how many had ended when it started: an fsync covers those and no more."""

    kind: str  # link, drop, rename, write, size, sync, mark
    inode: int = -1
    folder: int = -1
    name: str = ""
    to_folder: int = -1
    to_name: str = ""
    offset: int = 0
    data: bytes = b""
    began: int = 0

    @property
    def folders(self) -> tuple[int, ...]:
        if self.kind in ("link", "drop"):
            return (self.folder,)
        if self.kind == "rename":
            return (self.folder,) if self.folder == self.to_folder else (self.folder, self.to_folder)
        return ()


@dataclass
class Log:
    """A base, all of it safe, and what was done to it. Also the name space as the running system sees it."""

    ops: list[Op] = field(default_factory=list)
    names: dict[int, dict[str, int]] = field(default_factory=lambda: {ROOT: {}})
    """Folder inode -> name -> inode, now."""
    base: dict[int, dict[str, int]] = field(default_factory=lambda: {ROOT: {}})
    contents: dict[int, bytes] = field(default_factory=dict)
    """The bytes of the base's files."""

    @classmethod
    def over(cls, folder: Path) -> "Log":
        """A log that starts with what lies in a folder."""
        log = cls()
        for path in sorted(folder.rglob("*")):
            above = log.inode(path.parent.relative_to(folder).as_posix())
            assert above is not None
            new = log.fresh()
            log.base[above][path.name] = log.names[above][path.name] = new
            if path.is_dir():
                log.base[new], log.names[new] = {}, {}
            else:
                log.contents[new] = path.read_bytes()
        return log

    def fresh(self) -> int:
        self._next = getattr(self, "_next", ROOT) + 1
        return self._next

    def inode(self, path: str) -> int | None:
        at: int | None = ROOT
        for part in Path(path).parts:
            at = self.names.get(at, {}).get(part) if at is not None else None
        return at

    def add(self, op: Op) -> None:
        """Notes an operation and does it to the name space."""
        self.ops.append(op)
        apply(self.names, op)

    def points(self) -> list[int]:
        """Cuts worth looking at: after each fsync, each change of a name, each promise; and before the first."""
        kinds = ("sync", "rename", "link", "drop", "mark")
        return [0, *(i + 1 for i, op in enumerate(self.ops) if op.kind in kinds)]

    def marks(self, cut: int) -> list[str]:
        """What had been promised or observed before the cut."""
        return [op.name for op in self.ops[:cut] if op.kind == "mark"]


def apply(names: dict[int, dict[str, int]], op: Op, halves: tuple[bool, bool] = (True, True)) -> None:
    """Does a change of names. `halves`: whether the old name goes and the new one comes (of a rename)."""
    if op.kind == "link":
        names[op.folder][op.name] = op.inode
    elif op.kind == "drop":
        names[op.folder].pop(op.name, None)
    elif op.kind == "rename":
        if halves[0]:
            names[op.folder].pop(op.name, None)
        if halves[1]:
            names[op.to_folder][op.to_name] = op.inode


def after_cut(log: Log, cut: int, model: str, survivors: tuple[str, str], seed: int = 0) -> Tree:
    """The tree that is found when the machine starts again."""
    rng = random.Random(f"{cut} {model} {survivors} {seed}")
    ops = log.ops[:cut]
    # an inode is a folder where something was linked into it or the base says so; its names start as the base's
    names = {folder: dict(entries) for folder, entries in log.base.items()}
    names |= {folder: {} for folder in log.names if folder not in names}
    keep = _journaled(ops, survivors[0], rng) if model == "journal" else _loose(ops, model, survivors[0], rng)
    for index, op in enumerate(ops):
        if op.folders:
            gone = index < keep.get(op.folder, cut)
            come = index < keep.get(op.to_folder, cut) if op.kind == "rename" else True
            if op.kind != "rename" and gone:
                apply(names, op)
            elif op.kind == "rename":
                apply(names, op, (gone, come))
    contents = _contents(log, ops, survivors[1], rng)
    tree: Tree = {}
    _walk(names, contents, ROOT, "", tree)
    return tree


def _walk(names: dict[int, dict[str, int]], contents: dict[int, File], folder: int, path: str, tree: Tree) -> None:
    for name, inode in names[folder].items():
        tree[path + name] = None if inode in names else contents.get(inode, File(inode, b"", 0))
        if inode in names:
            _walk(names, contents, inode, f"{path}{name}/", tree)


def _pick(safe: int, last: int, survivors: str, rng: random.Random) -> int:
    return {"least": safe, "most": last}.get(survivors, rng.randint(safe, last) if safe < last else last)


def _journaled(ops: list[Op], survivors: str, rng: random.Random) -> dict[int, int]:
    """folder -> index up to which its changes survive: one number for all."""
    safe = max((op.began for op in ops if op.kind == "sync"), default=0)
    upto = _pick(safe, len(ops), survivors, rng)
    return {folder: upto for op in ops for folder in op.folders}


def _loose(ops: list[Op], model: str, survivors: str, rng: random.Random) -> dict[int, int]:
    folders = {folder for op in ops for folder in op.folders}
    synced = dict.fromkeys(folders, 0)
    for op in ops:
        if op.kind == "sync" and op.inode in synced:
            synced[op.inode] = max(synced[op.inode], op.began)
    keep = {folder: _pick(synced[folder], len(ops), survivors, rng) for folder in sorted(folders)}
    changed = True
    while changed:  # a rename that survives in one folder does so in the other
        changed = False
        for index, op in enumerate(ops):
            if op.kind != "rename" or op.folder == op.to_folder:
                continue
            if index < keep[op.folder] and keep[op.to_folder] <= index:
                keep[op.to_folder], changed = index + 1, True
            if model == "loose" and index < keep[op.to_folder] and keep[op.folder] <= index:
                keep[op.folder], changed = index + 1, True
    return keep


def _contents(log: Log, ops: list[Op], survivors: str, rng: random.Random) -> dict[int, File]:
    safe: dict[int, int] = {}
    for op in ops:
        if op.kind == "sync":
            safe[op.inode] = max(safe.get(op.inode, 0), op.began)
    pending: dict[int, list[tuple[int, Op]]] = {}
    found = {inode: bytearray(data) for inode, data in log.contents.items()}
    written = dict.fromkeys(log.contents, 0)
    for index, op in enumerate(ops):
        if op.kind in ("write", "size"):
            if index < safe.get(op.inode, 0):
                _write(found.setdefault(op.inode, bytearray()), op)
            else:
                pending.setdefault(op.inode, []).append((index, op))
            written[op.inode] = index
    for inode in sorted(pending):
        _survive(found.setdefault(inode, bytearray()), [op for _, op in pending[inode]], survivors, rng)
    return {inode: File(inode, bytes(data), written[inode]) for inode, data in found.items()}


def _survive(data: bytearray, ops: list[Op], survivors: str, rng: random.Random) -> None:
    """What becomes of one file's unsynced writes."""
    how = rng.choice(["none", "nul", "all", "part"]) if survivors == "random" else survivors
    if how == "none":
        return
    last = rng.randrange(len(ops)) if how == "part" else len(ops)
    for op in ops[:last]:
        _write(data, op, nul=how == "nul")
    if how == "part" and ops[last].kind == "write":
        torn = ops[last]
        _write(data, Op("write", torn.inode, offset=torn.offset, data=torn.data[: rng.randrange(len(torn.data) + 1)]))


def _write(data: bytearray, op: Op, nul: bool = False) -> None:
    if op.kind == "size":
        if op.offset < len(data):
            del data[op.offset :]
        data.extend(bytes(op.offset - len(data)))
        return
    data.extend(bytes(max(0, op.offset - len(data))))
    data[op.offset : op.offset + len(op.data)] = bytes(len(op.data)) if nul else op.data


def materialise(tree: Tree, folder: Path) -> None:
    """Writes a tree into an empty folder; a file with two names is one file."""
    first: dict[int, Path] = {}
    began = time.time() - 3600  # retention must not take it for old
    for path, file in tree.items():
        target = folder / path
        if file is None:
            target.mkdir()
        elif file.inode in first:
            os.link(first[file.inode], target)
        else:
            target.write_bytes(file.data)
            os.utime(target, (began, began + file.written))
            first[file.inode] = target
