"""What a repository on the Hugging Face Hub holds of some exports: each file, its name there and its hash.

One export is pushed as it lies in its folder. Several GGUFs lie side by side, as llama.cpp and Ollama expect them: each
one's own manifest, certificate and Modelfile have its name, and one README and one manifest tell of all.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from spool.protocol import durable, formats, manifest
from spool.protocol.errors import FinetunerError

README = "README.md"


@dataclass(frozen=True)
class Item:
    """A file of the repository, and what is known of its bytes."""

    path: str
    source: Path | bytes
    bytes: int
    sha256: str


def pack(folders: Mapping[str, Path]) -> list[Item]:
    """What is pushed of some exports, by format: what their manifests list and these themselves, nothing else.

    Raises:
        FinetunerError: not_proven, no_manifest.
    """
    read = {name: manifest.read(folder) for name, folder in folders.items()}
    for name, (_, certificate) in read.items():
        _must_be_ready(name, certificate)
    if len(read) == 1:
        ((name, (document, _)),) = read.items()
        return list(_of(folders[name], document))
    return _side_by_side(folders, read)


def _must_be_ready(name: str, certificate: Mapping[str, Any]) -> None:
    """A suspect export is never pushed: whoever finds it on the hub does not see the certificate first."""
    if certificate.get("verdict") == "ready":
        return
    failed = [str(check.get("name")) for check in certificate.get("checks", []) if not check.get("passed")]
    why = f"its certificate failed {', '.join(failed)}" if failed else "it has no certificate of its own"
    hint = "Its certificate.json says what was measured. Push another format."
    raise FinetunerError(f"{name} is suspect and nothing was pushed: {why}.", hint, "not_proven")


def _of(folder: Path, document: Mapping[str, Any]) -> Iterator[Item]:
    for path, facts in document["files"].items():
        if not any(part.startswith(".") for part in PurePosixPath(path).parts):
            yield Item(path, folder / path, facts["bytes"], facts["sha256"])
    for path in manifest.BESIDE:
        if (folder / path).is_file():
            yield _written(path, (folder / path).read_bytes())


def _side_by_side(folders: Mapping[str, Path], read: Mapping[str, tuple[dict[str, Any], dict[str, Any]]]) -> list[Item]:
    """The first that is named gives the README its example, and keeps `Modelfile` as the name of its own."""
    items: dict[str, Item] = {}
    rows: list[str] = []
    for name, (document, certificate) in read.items():
        tag = formats.folder(name).removeprefix("gguf-")
        here: dict[str, str] = {}
        for item in _of(folders[name], document):
            there = items.get(item.path)
            if item.path == README or (there is not None and there.sha256 == item.sha256):
                continue
            apart = there is not None or item.path in manifest.BESIDE
            here[item.path] = _apart(item.path, tag) if apart else item.path
            items[here[item.path]] = replace(item, path=here[item.path])
        rows += _rows(items, here, certificate)
    first, (document, _) = next(iter(read.items()))
    readme = (folders[first] / README).read_text(encoding="utf-8")
    readme = readme.replace(f"`{manifest.CERTIFICATE}`", f"`{_apart(manifest.CERTIFICATE, '*')}`")
    items[README] = _written(README, _with_files(readme, rows).encode())
    files = {path: {"bytes": item.bytes, "sha256": item.sha256} for path, item in sorted(items.items())}
    all_of_them = {"v": 1, "kind": "gguf", "lineage": document["lineage"], "files": files}
    return [*items.values(), _written(manifest.NAME, durable.to_bytes(all_of_them))]


def _rows(items: Mapping[str, Item], here: Mapping[str, str], certificate: Mapping[str, Any]) -> Iterator[str]:
    equal = (certificate.get("measured") or {}).get("equal_tokens")
    same = f"{equal:.1%} of its tokens" if isinstance(equal, int | float) else "not measured"
    modelfile = f"`{here['Modelfile']}`" if "Modelfile" in here else ""
    for path in here.values():
        if path.endswith(".gguf"):
            yield f"| `{path}` | {items[path].bytes / 1e9:.2f} GB | {same} | {modelfile} |"


def _with_files(readme: str, rows: list[str]) -> str:
    table = ["## Files", "", "| file | size | as the adapter's | for Ollama |", "|---|---|---|---|", *rows]
    before, use, after = readme.partition("\n## Use\n")
    return f"{before.rstrip()}\n\n" + "\n".join(table) + "\n" + (f"{use}{after}" if use else "")


def _apart(path: str, tag: str) -> str:
    return str(PurePosixPath(path).with_stem(f"{PurePosixPath(path).stem}-{tag}"))


def _written(path: str, data: bytes) -> Item:
    return Item(path, data, len(data), hashlib.sha256(data).hexdigest())
