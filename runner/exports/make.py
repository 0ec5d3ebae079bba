"""The recipe of exporting, top to bottom: what is made, the disk for it, each format made, proven, then published.

A format is made in a hidden folder beside the others, proven there (runner/exports/certificate.py) and renamed into
place with its certificate: what can be seen is whole and has been asked. An interrupted export goes on with what is
missing; a cancelled one leaves nothing.
"""

import shutil
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from runner.exports import (
    adapter,
    card,
    certificate,
    companions,
    gguf,
    gptq,
    importance,
    limits,
    lora_gguf,
    merge,
    onnx,
    onnx_weights,
    push,
    reference,
    sources,
    weights,
)
from runner.exports.certificate import Check
from runner.exports.onnx import Onnx
from runner.exports.readers import DoesNotLoad, Gguf, Reader, Weights
from runner.exports.reference import Reference
from runner.exports.sources import Source
from runner.job import Attempt, Stopped
from spool.data.prepared import Prepared
from spool.forecast import exports as forecast
from spool.health import failure
from spool.protocol import durable, formats, manifest
from spool.protocol.errors import FinetunerError
from spool.protocol.jobs import now_iso
from spool.protocol.redact import redact
from spool.protocol.spec import ExportSpec

MIN_FREE_GB = 1.0
MEMORY_HINT = "Free memory on the machine, then export the finished training again."
WORK = ".work"


def export(spec: ExportSpec, attempt: Attempt) -> dict[str, Any]:
    """Makes what the spec names and gives the job's `result`.

    Raises:
        FinetunerError: with a code, in words a person can act on; what could be made is there.
        Stopped: on request.
    """
    if spec.push:
        push.check(spec.push)
    source = sources.find(spec.job, spec.adapter, attempt)
    made = make(source, spec.export, attempt)
    failed = [each["error"] for each in made.values() if each["state"] == "failed"]
    if failed:
        raise FinetunerError(failed[0]["message"], failed[0]["hint"], failed[0]["code"])
    base = {"reference": source.base.reference, "folder": attempt.home.relative(source.base.folder)}
    result: dict[str, Any] = {"exports": made, "base": {**base, "revision": source.base.revision}}
    result["of"] = source.training.job_id or None
    if spec.push:
        folders: dict[str, Path] = {name: source.exports / formats.folder(name) for name in spec.export}
        result["pushed"] = push.push(spec.push, source.training.name, folders, attempt)
    return result


def make(source: Source, names: Sequence[str], attempt: Attempt) -> dict[str, dict[str, Any]]:
    """Format -> {state: ready, suspect or failed; folder; bytes; failed_checks or error}, of each that is asked for."""
    wanted = [name for name in formats.FORMATS if name in names]
    missing = [name for name in wanted if not (source.exports / formats.folder(name)).is_dir()]
    with _workshop(source, attempt) as shop:
        shop.check_disk(missing)
        made = {}
        for name in missing:
            try:
                shop.make(name)
            # whatever libraries raise: the other formats, and a training, are none the worse
            except Exception as error:
                if attempt.stop.requested:
                    raise
                made[name] = {"state": "failed", "error": explained(error, name, attempt)}
        if "adapter" in wanted and not (source.exports / "adapter" / manifest.CERTIFICATE).exists():
            shop.certify("adapter", source.exports / "adapter")
    return {name: made.get(name) or _told(source.exports / formats.folder(name), attempt) for name in wanted}


def explained(error: Exception, name: str, attempt: Attempt) -> dict[str, Any]:
    if not isinstance(error, FinetunerError):
        print(redact(traceback.format_exc()), flush=True)
    told = failure.explain_exception(error, broke_off=f"making {name} broke off: ", memory_hint=MEMORY_HINT)
    attempt.note(f"{name} could not be made: {told['message']}")
    return told


def _told(folder: Path, attempt: Attempt) -> dict[str, Any]:
    """What stands in a result about an export that is there."""
    try:
        proven = manifest.read(folder)[1]
    except manifest.NoManifest:
        proven = {}
    failed = [check["name"] for check in proven.get("checks", []) if not check["passed"]]
    size = sum(path.stat().st_size for path in folder.iterdir())
    state = proven.get("verdict") or "unproven"
    return {"state": state, "folder": attempt.home.relative(folder), "bytes": size, "failed_checks": failed}


@contextmanager
def _workshop(source: Source, attempt: Attempt) -> Iterator["Workshop"]:
    """Its work folder goes when the exports are made, or nobody wants them any more; a stop leaves it for the next."""
    shop = Workshop(source, attempt)
    try:
        yield shop
    except Stopped:
        if attempt.stop.cancelled:
            shop.clear()
        raise
    except Exception:
        shop.clear()
        raise
    shop.clear()


class Workshop:
    """What is needed on the way: merged weights, a 16-bit GGUF, what the adapter says."""

    def __init__(self, source: Source, attempt: Attempt) -> None:
        self.source = source
        self.attempt = attempt
        self.folder = source.exports / WORK

    def check_disk(self, names: Sequence[str]) -> None:
        """Raises FinetunerError, with the numbers, where the disk cannot hold what is made and what it takes to."""
        if not names:
            return
        need = forecast.disk_bytes(names, merge.size_bytes(self.source.base.folder))
        self.source.exports.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self.source.exports).free
        if free < need + MIN_FREE_GB * 1e9:
            where = f"{free / 1e9:.1f} GB are free at {self.source.exports}"
            message = f"the exports take {need / 1e9:.1f} GB for a while; {where}."
            hint = "Free some space (`finetuner doctor` shows what uses it), then retry."
            raise FinetunerError(message, hint, "disk_full")

    def make(self, name: str) -> None:
        """Makes, proves and publishes one format."""
        folder = self.source.exports / f".{formats.folder(name)}.tmp"
        if not (folder / manifest.NAME).exists():
            self.attempt.phase(f"making {name}")
            folder.mkdir(parents=True, exist_ok=True)
            self._fill(name, folder)
            manifest.write(folder, name, self.lineage(), self.attempt.pulse)
        self.certify(name, folder)
        durable.sync(folder)
        durable.move(folder, self.source.exports / formats.folder(name))

    def _fill(self, name: str, folder: Path) -> None:
        source, pulse = self.source, self.attempt.pulse
        kind = formats.gguf(name)
        if name == "adapter":
            for each in ("adapter_model.safetensors", "adapter_config.json"):
                shutil.copyfile(source.training.adapter / each, folder / each)
            companions.tokenizer(folder, source.base.folder, source.encoder)
        elif name == "merged":
            merge.merge(source.base.folder, source.training.adapter, folder, pulse)
            companions.tokenizer(folder, source.base.folder, source.encoder)
        elif name == "onnx":
            onnx.check()  # where it is missing nobody waits for a merge
            onnx.build(self.merged, folder, self.attempt.run.root / "onnx.log", pulse)
            companions.tokenizer(folder, source.base.folder, source.encoder)
        elif name == "gptq":
            gptq.python()
            rows = self.calibration
            gptq.quantise(self.merged, folder, rows, self.attempt.run.root / "gptq.log", pulse)
            companions.tokenizer(folder, source.base.folder, source.encoder)
        elif kind == "lora":
            lora_gguf.convert(source.base.folder, source.training.adapter, folder / self.file(name))
            companions.terms(folder, source.base.folder)
        elif kind in forecast.CONVERTED:
            gguf.convert(self.merged, folder / self.file(name), kind, pulse)
            companions.terms(folder, source.base.folder)
        elif kind is not None:
            weighed = self.importance if name.endswith("+imatrix") else None
            gguf.quantise(self.sixteen_bit, folder / self.file(name), kind, weighed, pulse)
            companions.terms(folder, source.base.folder)
        card.write(folder, name, source.facts, self.file(name) if kind else None, source.encoder)

    def file(self, name: str) -> str:
        return f"{self.source.name}-{formats.folder(name).removeprefix('gguf-')}.gguf"

    # ---- what several formats are made from

    @cached_property
    def merged(self) -> Path:
        """Merged weights: the export where there is one, else made here."""
        there = self.source.exports / "merged"
        if there.is_dir():
            return there
        folder = self.folder / "merged"
        if not (folder / "generation_config.json").exists():
            self.attempt.phase("merging")
            merge.merge(self.source.base.folder, self.source.training.adapter, folder, self.attempt.pulse)
            companions.tokenizer(folder, self.source.base.folder, self.source.encoder)
        return folder

    @cached_property
    def sixteen_bit(self) -> Path:
        there = self.source.exports / formats.folder("gguf:bf16") / self.file("gguf:bf16")
        return there if there.exists() else self._converted(self.merged, "merged.gguf")

    @cached_property
    def base_gguf(self) -> Path:
        """The base without the adapter, which an adapter's GGUF is laid over to prove it."""
        folder = self.folder / "base"
        if not (folder / "generation_config.json").exists():
            folder.mkdir(parents=True, exist_ok=True)
            for path in self.source.base.folder.iterdir():
                if path.suffix in (".safetensors", ".json") and not (folder / path.name).exists():
                    (folder / path.name).symlink_to(path)
            (folder / "generation_config.json").unlink(missing_ok=True)
            for name in companions.TOKENIZER_FILES:
                (folder / name).unlink(missing_ok=True)
            companions.tokenizer(folder, self.source.base.folder, self.source.encoder)
        return self._converted(folder, "base.gguf")

    def _converted(self, model: Path, name: str) -> Path:
        target = self.folder / name
        if not target.exists():
            self.attempt.phase("converting to GGUF")
            self.folder.mkdir(parents=True, exist_ok=True)
            gguf.convert(model, target, "bf16", self.attempt.pulse)
        return target

    @cached_property
    def data(self) -> Prepared | None:
        return sources.rows(self.source, self.attempt)

    @cached_property
    def calibration(self) -> list[list[int]]:
        if self.data is None:
            message = "GPTQ is calibrated with the training rows, and they are not here."
            raise FinetunerError(message, "Export it as gguf:q4_k_m, which takes none.", "no_training_rows")
        return list(importance.rows(self.data))

    @cached_property
    def importance(self) -> gguf.Importance:
        if self.data is None:
            message = "an importance matrix is made from the training rows, and they are gone."
            raise FinetunerError(message, "Export it without +imatrix.", "no_training_rows")
        self.attempt.phase("measuring what the training rows use")
        return importance.measure(self.merged, self.data, self.attempt.pulse)

    @cached_property
    def reference(self) -> Reference:
        self.attempt.phase("asking the adapter")
        return reference.of(
            self.source.base.folder,
            self.source.training.adapter,
            self.data,
            self.source.encoder,
            self.attempt.pulse,
        )

    # ---- proof

    def certify(self, name: str, folder: Path) -> None:
        self.attempt.phase(f"proving {name}")
        durable.write_json(folder / manifest.CERTIFICATE, self.prove(name, folder))

    def prove(self, name: str, folder: Path) -> dict[str, Any]:
        """The certificate of an export: every check that its format has."""
        asked = self.reference
        found: list[Check] = []
        measured = None
        reader: Reader | None = None
        try:
            reader = self._reader(name, folder)
            found.append(Check("loads", True, "it loads"))
            if name != "adapter":
                found.append(self._weights(name, folder))
            if isinstance(reader, Onnx):
                found.append(onnx.cache(reader, asked))
            measured = certificate.measure(reader, asked, self.attempt.pulse)
            found += certificate.checks(measured, limits.of(name))
            found += certificate.spoken(reader, asked, self.source.encoder)
        except DoesNotLoad as error:
            found = [check for check in found if check.name != "loads"]
            found.append(Check("loads", False, error.message))
        finally:
            if reader is not None:
                reader.close()
        sha256 = manifest.hashed(folder / manifest.NAME)
        return certificate.document(
            name, sha256, found, measured, asked.held_out, made_at=now_iso(), versions=certificate.versions()
        )

    def _weights(self, name: str, folder: Path) -> Check:
        if name == "onnx":
            return onnx_weights.compare(folder, self.source.base.folder, self.source.training.adapter)
        subject = folder / self.file(name) if formats.gguf(name) else folder
        return weights.compare(name, subject, self.source.base.folder, self.source.training.adapter)

    def _reader(self, name: str, folder: Path) -> Reader:
        kind = formats.gguf(name)
        log = self.attempt.run.root / "llama.log"
        if name == "adapter":
            return Weights.at(self.source.base.folder, folder)
        if name == "onnx":
            return Onnx(folder, self.attempt.run.root / "onnx.log")
        if name == "gptq":
            return gptq.reader(folder, self.attempt.run.root / "gptq-reader.log")
        if kind is None:
            return Weights.at(folder)
        if kind == "lora":
            return Gguf(self.base_gguf, folder / self.file(name), log)
        return Gguf(folder / self.file(name), None, log)

    def lineage(self) -> dict[str, Any]:
        """Where the files come from, as their manifest says."""
        weights_file = self.source.training.adapter / "adapter_model.safetensors"
        return {
            **adapter.lineage(self.source.facts),
            "adapter": {"sha256": manifest.hashed(weights_file)},
            "made_at": now_iso(),
        }

    def clear(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        for folder in self.source.exports.glob(".*.tmp"):
            shutil.rmtree(folder, ignore_errors=True)
