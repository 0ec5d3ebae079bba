"""Exports against their manifests: folders and zips, whole and damaged."""

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from spool.cli import main as cli
from spool.protocol import manifest


@pytest.fixture
def export(tmp_path: Path) -> Path:
    folder = tmp_path / "merged"
    (folder / "deep").mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"weights" * 1000)
    (folder / "deep" / "more.txt").write_text("more")
    (folder / "README.md").write_text("# A model\n")
    manifest.write(folder, "merged", {"name": "tickets", "steps": 12})
    return folder


def zipped(folder: Path, inside: str = "tickets-merged/") -> Path:
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, inside + file.relative_to(folder).as_posix())
    return path


def certify(folder: Path, verdict: str, sha256: str | None = None) -> None:
    checks = [{"name": "loads", "passed": True}, {"name": "divergence", "passed": verdict == "ready"}]
    document = {"manifest_sha256": sha256 or manifest.hashed(folder / manifest.NAME), "verdict": verdict}
    (folder / manifest.CERTIFICATE).write_text(json.dumps({**document, "checks": checks}))


@pytest.mark.parametrize("as_zip", [False, True])
def test_what_is_whole_is_verified(export: Path, as_zip: bool) -> None:
    certify(export, "suspect")
    found = manifest.verify(zipped(export) if as_zip else export)
    assert (found.kind, found.files, found.faults) == ("merged", 3, [])
    assert found.bytes == 7000 + 4 + 10
    assert found.lineage == {"name": "tickets", "steps": 12}
    assert (found.verdict, found.failed) == ("suspect", ["divergence"])


def flipped(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"?")


DAMAGES: list[tuple[Callable[[Path], object], str]] = [
    (flipped, "model.safetensors: its content was changed"),
    (lambda f: (f / "model.safetensors").write_bytes(b"short"), "model.safetensors: it has 5 bytes, and had 7,000"),
    (lambda f: (f / "deep" / "more.txt").unlink(), "deep/more.txt: it is missing"),
    (lambda f: (f / "training_args.bin").write_bytes(b"x"), "training_args.bin: it is not part of the export"),
    (lambda f: certify(f, "ready", "0" * 64), "certificate.json: it is damaged, or that of another export"),
    (lambda f: (f / "certificate.json").write_text("{"), "certificate.json: it is damaged"),
]


@pytest.mark.parametrize("as_zip", [False, True])
@pytest.mark.parametrize(("damage", "says"), DAMAGES)
def test_what_was_changed_is_named(export: Path, damage: Callable[[Path], object], says: str, as_zip: bool) -> None:
    damage(export)
    found = manifest.verify(zipped(export) if as_zip else export)
    assert len(found.faults) == 1
    assert str(found.faults[0]).startswith(says)


def test_a_zip_that_was_damaged_on_its_way_is_told(export: Path) -> None:
    path = zipped(export)
    data = bytearray(path.read_bytes())
    data[data.index(b"weightsweights") + 5] ^= 1
    path.write_bytes(data)
    assert [fault.file for fault in manifest.verify(path).faults] == ["model.safetensors"]


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{", '{"v": 2}', '{"v": 1, "kind": "x", "lineage": {}, "files": {"../up": {"bytes": 1, "sha256": ""}}}'],
)
def test_what_is_no_manifest_is_refused(export: Path, text: str) -> None:
    (export / manifest.NAME).write_text(text)
    with pytest.raises(manifest.NoManifest, match="damaged, or none of this product"):
        manifest.verify(export)


def test_the_command(export: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    certify(export, "ready")
    assert cli.main(["verify", str(export)]) == 0
    said = capsys.readouterr().out
    assert "merged of tickets: 3 files" in said
    assert "it answers like the adapter" in said

    flipped(export)
    shutil.rmtree(export / "deep")
    assert cli.main(["verify", str(export), "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["ok"] is False
    assert [fault["file"] for fault in document["faults"]] == ["deep/more.txt", "model.safetensors"]
    assert cli.main(["verify", str(export)]) == 1
    assert "2 of 3 files are not as they were exported" in capsys.readouterr().err

    assert cli.main(["verify", str(tmp_path / "nowhere")]) == 2
    assert cli.main(["verify", str(tmp_path)]) == 2
    assert "holds no manifest.json" in capsys.readouterr().err
