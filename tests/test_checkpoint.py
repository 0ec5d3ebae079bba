"""Which checkpoints are trusted, told without torch: manifests, rotation, versions, numbers that are none."""

import errno
import json
import os
import struct
from pathlib import Path
from typing import Any

import pytest

from runner import checkpoint

FILES = ("adapter_model.safetensors", "optimizer.pt", "rng_state.pth", "trainer_state.json")


def safetensors(path: Path, dtype: str, data: bytes) -> None:
    width = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8}[dtype]
    header = {
        "__metadata__": {"format": "pt"},
        "empty": {"dtype": dtype, "shape": [0], "data_offsets": [0, 0]},
        "good": {"dtype": dtype, "shape": [2], "data_offsets": [0, 2 * width]},
        "layers.1.lora_A": {"dtype": dtype, "shape": [2], "data_offsets": [2 * width, 4 * width]},
    }
    words = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(words)) + words + bytes(2 * width) + data)


def written(parent: Path, step: int, spec: str = "spec") -> Path:
    folder = parent / f"checkpoint-{step}"
    folder.mkdir()
    safetensors(folder / FILES[0], "F32", struct.pack("<2f", 1.0, -2.0))
    for name in FILES[1:]:
        (folder / name).write_bytes(name.encode() * 50)
    checkpoint.complete(folder, spec)
    return folder


def test_what_was_written_verifies_and_nothing_else(tmp_path: Path) -> None:
    folder = written(tmp_path, 20)
    assert checkpoint.problem(folder, "spec") is None
    assert checkpoint.newest(tmp_path, "spec") == folder
    assert checkpoint.newest_step(tmp_path) == 20
    manifest = json.loads((folder / "COMPLETE.json").read_text())
    assert (manifest["step"], manifest["spec_sha256"], set(manifest["files"])) == (20, "spec", set(FILES))
    assert {"torch", "transformers", "peft", "trl", "unsloth"} <= manifest["versions"].keys()
    assert "another spec" in str(checkpoint.problem(folder, "other"))
    os.rename(folder, tmp_path / "checkpoint-30")
    assert checkpoint.problem(tmp_path / "checkpoint-30", "spec") == "its manifest is that of step 20"


@pytest.mark.parametrize("how", ["missing", "half", "empty", "zeros", "link", "flipped"])
@pytest.mark.parametrize("name", [*FILES, "COMPLETE.json"])
def test_any_damage_is_seen(tmp_path: Path, name: str, how: str) -> None:
    path = written(tmp_path, 20) / name
    data = path.read_bytes()
    path.unlink()
    if how == "link":
        (tmp_path / "elsewhere").write_bytes(data)
        path.symlink_to(tmp_path / "elsewhere")
    elif how != "missing":
        flipped = data[:-3] + bytes([data[-3] ^ 1]) + data[-2:]
        path.write_bytes({"half": data[: len(data) // 2], "empty": b"", "zeros": bytes(len(data))}.get(how, flipped))
    if name == "COMPLETE.json" and how in ("link", "flipped"):
        return  # a manifest may be read through a link; its own last bytes are layout
    assert checkpoint.problem(path.parent, "spec")


@pytest.mark.parametrize("manifest", [[], {}, {"files": []}, {"files": {"a": 1}}, {"files": {"a": {}}}, "x", None, 7])
def test_a_manifest_of_another_shape_is_a_damaged_one(tmp_path: Path, manifest: Any) -> None:
    folder = written(tmp_path, 20)
    (folder / "COMPLETE.json").write_text(json.dumps(manifest))
    assert checkpoint.problem(folder, "spec") in ("its manifest is damaged", "it was never finished")


def test_a_file_that_is_not_of_it_is_refused(tmp_path: Path) -> None:
    folder = written(tmp_path, 20)
    (folder / "optimizer.bin").write_bytes(b"a library would load this")
    assert checkpoint.problem(folder, "spec") == "optimizer.bin is not of it"


def test_damaged_ones_are_set_aside_under_names_of_their_own(tmp_path: Path) -> None:
    good = written(tmp_path, 10)
    said: list[str] = []
    for _ in range(3):
        (written(tmp_path, 20) / "optimizer.pt").unlink()
        assert checkpoint.newest(tmp_path, "spec", said.append) == good
    aside = sorted(path.name for path in tmp_path.iterdir() if path != good)
    assert len(aside) == 3
    assert all(name.startswith("checkpoint-20.incomplete-") for name in aside)
    assert all(words.startswith("checkpoint-20 is not resumed from: optimizer.pt is missing.") for words in said)
    assert checkpoint.newest(tmp_path / "absent", "spec") is None


@pytest.mark.parametrize(
    ("dtype", "data"),
    [
        ("F32", struct.pack("<2f", 1.0, float("nan"))),
        ("F32", struct.pack("<2f", float("-inf"), 0.0)),
        ("F64", struct.pack("<2d", 1.0, float("nan"))),
        ("F16", struct.pack("<2e", 1.0, float("inf"))),
        ("BF16", bytes.fromhex("803f c0ff")),
    ],
)
def test_numbers_that_are_none_are_refused_before_and_after_the_manifest(
    tmp_path: Path, dtype: str, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = written(tmp_path, 20)
    (folder / "COMPLETE.json").unlink()
    safetensors(folder / FILES[0], dtype, data)
    with pytest.raises(checkpoint.NotFinite, match="lora_A of checkpoint-20"):
        checkpoint.complete(folder, "spec")
    assert not (folder / "COMPLETE.json").exists()
    with monkeypatch.context() as older:
        older.setattr(checkpoint, "not_finite", lambda path: None)
        checkpoint.complete(folder, "spec")
    assert "layers.1.lora_A" in str(checkpoint.problem(folder, "spec"))


def test_large_and_whole_numbers_are_finite(tmp_path: Path) -> None:
    for dtype, data in (
        ("F32", struct.pack("<2f", 3.4e38, -3.4e38)),
        ("BF16", bytes.fromhex("7f7f 7fff")),
        ("F16", struct.pack("<2e", 65504.0, -65504.0)),
        ("I64", b"\xff" * 16),
    ):
        safetensors(tmp_path / "a.safetensors", dtype, data)
        assert checkpoint.not_finite(tmp_path / "a.safetensors") is None


def test_another_major_version_is_refused_in_words(tmp_path: Path) -> None:
    folder = written(tmp_path, 20)
    manifest = json.loads((folder / "COMPLETE.json").read_text())
    installed = dict(manifest["versions"])
    manifest["versions"]["transformers"] = "4.57.1"
    (folder / "COMPLETE.json").write_text(json.dumps(manifest))
    why = checkpoint.problem(folder, "spec")
    assert why is not None
    assert why.startswith(f"it was written with transformers 4.57.1 (now {installed['transformers']})")
    manifest["versions"]["transformers"] = installed["transformers"].partition(".")[0] + ".999.0"
    (folder / "COMPLETE.json").write_text(json.dumps(manifest))
    assert checkpoint.problem(folder, "spec") is None


def test_rotation_keeps_two_and_the_best_and_clears_what_a_crash_left(tmp_path: Path) -> None:
    for step in (10, 20, 30, 40, 50):
        written(tmp_path, step)
    (tmp_path / "checkpoint-15").mkdir()  # a save or a removal that a crash cut short
    (tmp_path / "checkpoint-15" / "optimizer.pt").write_bytes(b"x")
    (tmp_path / "checkpoint-60").mkdir()  # one that is just being written
    (tmp_path / "checkpoint-5.incomplete-1").mkdir()
    checkpoint.rotate(tmp_path, spare=tmp_path / "checkpoint-20")
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"checkpoint-20", "checkpoint-40", "checkpoint-50", "checkpoint-60", "checkpoint-5.incomplete-1"}
    checkpoint.rotate(tmp_path, keep=5)
    assert {path.name for path in tmp_path.iterdir()} == names


def test_everything_is_synced_before_the_manifest_and_the_manifest_before_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = written(tmp_path, 20)
    (folder / "COMPLETE.json").unlink()
    (folder / "deeper").mkdir()
    (folder / "deeper" / "file").write_text("x")
    told: list[str] = []
    fsync, rename = os.fsync, os.rename

    def synced(fd: int) -> None:
        told.append(Path(f"/proc/self/fd/{fd}").readlink().name)
        fsync(fd)

    def renamed(source: Path, target: Path) -> None:
        told.append(f"-> {Path(target).name}")
        rename(source, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "rename", renamed)
    checkpoint.complete(folder, "spec")
    at = told.index("-> COMPLETE.json")
    assert {*FILES, "file", "deeper", "checkpoint-20"} <= set(told[:at])
    assert told[at - 1].startswith(".COMPLETE.json.")
    assert told[at + 1 :] == ["checkpoint-20", tmp_path.name, tmp_path.parent.name]  # which is new in runs/ID


def test_a_full_disk_is_recognised_also_where_a_library_ate_the_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrapped = RuntimeError("cannot save")
    wrapped.__cause__ = OSError(errno.EDQUOT, "Disk quota exceeded")
    full = [
        OSError(errno.ENOSPC, "No space left on device"),
        wrapped,
        Exception("Error while serializing: I/O error: No space left on device (os error 28)"),
    ]
    assert all(checkpoint.is_disk_full(error, tmp_path) for error in full)
    short = RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 704 vs 598")
    usage = type("Usage", (), {"free": 4096})
    assert not any(checkpoint.is_disk_full(e, tmp_path) for e in (OSError(errno.EIO, "x"), ValueError("y"), short))
    monkeypatch.setattr(checkpoint.shutil, "disk_usage", lambda path: usage)
    assert checkpoint.is_disk_full(short, tmp_path)
