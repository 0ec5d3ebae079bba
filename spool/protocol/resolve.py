"""What a spec's `model` and `dataset` name: a folder under models/, a model of the catalogue, a hub id, a path inside
the allowed roots."""

import difflib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from spool.protocol import catalogue, durable, jobs
from spool.protocol.errors import FinetunerError, NotFound, Problem
from spool.protocol.home import Home
from spool.protocol.spec import EvaluateSpec, ExportSpec, JobSpec, Spec

STORED = re.compile(r"[\w.-]{1,80}(@[0-9a-f]{12})?", re.ASCII)
HUB_NAME = r"[A-Za-z0-9][\w.-]{0,95}"
HUB_DATASET = re.compile(
    rf"hf:(?P<repo>({HUB_NAME}/)?{HUB_NAME})(@(?P<revision>[\w./-]{{1,100}}))?"
    r"(:(?P<config>[\w.-]{1,100}))?(:(?P<split>[\w.-]{1,100}))?"
)
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")


class Unresolved(FinetunerError):
    """A reference that leads nowhere, or outside the allowed roots."""

    default_code = "not_found"


@dataclass(frozen=True)
class Model:
    """A base model: a local folder, or an id on the Hugging Face Hub that is fetched when the job starts. The
    `reference` of a name of the catalogue is the id that it stands for."""

    reference: str
    folder: Path | None

    @property
    def name(self) -> str:
        return self.folder.name if self.folder else self.reference


@dataclass(frozen=True)
class Places:
    """From where references count: the data home, the folder the process was started in, the allowed roots."""

    home: Home
    started_in: Path
    roots: list[Path]

    def path(self, reference: str) -> Path:
        """The real path behind a reference, links followed.

        Raises:
            Unresolved: it lies outside the allowed roots, or is no path at all.
        """
        try:
            path = (self.started_in / reference).resolve()
        except (OSError, ValueError, RuntimeError):
            raise Unresolved(f"{reference[:80]!r} is not a path.", "", "bad_path") from None
        if not any(path.is_relative_to(root) for root in self.roots):
            allowed = ", ".join(str(root) for root in self.roots)
            hint = f"Allowed are: {allowed}. allowed_roots in settings.json names others in their place."
            raise Unresolved(f"{path} lies outside the folders that jobs may read.", hint, "outside_roots")
        return path

    def model(self, reference: str) -> Model:
        """A folder under models/ comes before a model of the catalogue that has the same name.

        Raises:
            Unresolved: there is no such model; with the nearest names.
        """
        if re.fullmatch(r"[\w.-]+", reference) and reference not in (".", ".."):
            named = self.home.models / reference
            if (named / "config.json").is_file():
                return Model(reference, named)
        elif HUB_ID.fullmatch(reference) and not (self.started_in / reference).exists():
            return Model(reference, None)
        published = catalogue.find(reference)
        if published and not (self.started_in / reference).exists():
            return Model(published.repository, None)
        path = self.path(reference)
        if (path / "config.json").is_file():
            return Model(reference, path)
        known = sorted(p.name for p in self.home.models.glob("*") if (p / "config.json").is_file())
        near = difflib.get_close_matches(reference, [*known, *(each.name for each in catalogue.published())], n=1)
        listed = ", ".join(known) or "none yet: `make setup` prepares gemma-3-270m"
        hint = f"Did you mean {near[0]!r}?" if near else f"Models here: {listed}. `finetuner models` lists others."
        raise Unresolved(f"there is no model {reference!r}.", hint, "model_missing")

    def adapter(self, reference: str) -> "Trained":
        """A folder with a LoRA adapter in PEFT's layout. Raises Unresolved where there is none."""
        folder = self.path(reference)
        if not (folder / "adapter_model.safetensors").is_file():
            hint = "It holds adapter_model.safetensors and adapter_config.json."
            raise Unresolved(f"{folder} is no adapter's folder.", hint, "adapter_missing")
        try:
            config = durable.read_json(folder / "adapter_config.json")
            named = config.get("base_model_name_or_path")
        except (ValueError, OSError, AttributeError):
            named = None
        if not isinstance(named, str) or not named:
            hint = "Write base_model_name_or_path into it."
            raise Unresolved(f"{folder}/adapter_config.json names no base model.", hint, "base_missing")
        base = self.model(named)
        return Trained("", folder.name, folder, base.folder or Path(), base.reference, config.get("revision"))

    def dataset(self, reference: str) -> Path:
        """The data file or folder. Raises Unresolved where there is none."""
        path = self.path(reference)
        if path.exists():
            return path
        if STORED.fullmatch(reference):
            from spool.data.keeping import keep  # only stored datasets need it

            return keep.resolve(self.home, reference)
        raise Unresolved(f"the dataset {path} does not exist.", _where(path), "dataset_missing")

    def check_dataset(self, reference: str) -> None:
        """Raises Unresolved where a reference leads nowhere. What lies on the hub is found when it is fetched."""
        if not reference.startswith("hf:"):
            self.dataset(reference)
        elif not HUB_DATASET.fullmatch(reference):
            hint = "Write hf:ORG/NAME, hf:ORG/NAME@REVISION or hf:ORG/NAME:CONFIGURATION:SPLIT."
            raise Unresolved(f"{reference[:120]!r} names no dataset of the hub.", hint, "bad_reference")


@dataclass(frozen=True)
class Trained:
    """What a finished training left: its adapter, and the base that this belongs to."""

    job_id: str
    name: str
    adapter: Path
    base: Path
    reference: str
    """The base as the training's spec named it."""
    revision: str | None


def trained(home: Home, job_id: str) -> Trained:
    """The adapter of a finished training.

    Raises:
        Unresolved: there is no such job, it has not come to an adapter, or its adapter was removed.
    """
    try:
        job = jobs.get_job(home, job_id)
    except NotFound:
        raise Unresolved(f"there is no job {job_id}.", "`finetuner jobs` lists them.", "job_missing") from None
    if job.kind != "train":
        raise Unresolved(f"job {job_id} is no training: it has no adapter.", "Name a training.", "no_adapter")
    if job.state != "done" or job.result is None:
        hint = "Name a job that is done." if job.ended else "Wait until it is done."
        raise Unresolved(f"job {job_id} ({job.name}) has no adapter: it is {job.state}.", hint, "job_not_done")
    adapter = home.run(job_id).exports / "adapter"
    if not (adapter / "adapter_model.safetensors").is_file():
        raise Unresolved(f"the adapter of job {job_id} ({job.name}) was removed.", "Train it again.", "adapter_removed")
    base = job.result.get("base") or {}
    return Trained(
        job_id, job.name, adapter, Path(base.get("folder") or ""), str(base.get("reference")), base.get("revision")
    )


def problems(spec: Spec, places: Places) -> list[Problem]:
    """What of the spec's references leads nowhere, each with its JSON pointer."""
    found = []
    named: list[tuple[str, Callable[[str], object], str | None]] = [
        ("/model", places.model, spec.model),
        ("/dataset", places.check_dataset, spec.dataset),
    ]
    found += _of_adapters(spec, places.home)
    if isinstance(spec, JobSpec):
        named.append(("/eval/dataset", places.check_dataset, spec.eval.dataset))
    elif isinstance(spec, ExportSpec | EvaluateSpec):
        named.append(("/adapter", places.adapter, spec.adapter))
    for pointer, resolve, reference in named:
        try:
            if reference is not None:
                resolve(reference)
        except FinetunerError as error:
            found.append(Problem(error.code, error.message, error.hint, pointer))
        except OSError as error:  # the job's fault, never the runner's: a name too long, a folder it may not enter
            message = f"{str(reference)[:80]!r} cannot be looked at: {error.strerror}."
            found.append(Problem("not_readable", message, "Is it the runner's account's to read?", pointer))
    return found


def _of_adapters(spec: Spec, home: Home) -> list[Problem]:
    """What keeps the named trainings from answering together."""
    found, first = [], None
    for i, job_id in enumerate(spec.jobs):
        pointer = f"/also/{i - 1}" if i else "/job"
        try:
            each = trained(home, job_id)
        except FinetunerError as error:
            found.append(Problem(error.code, error.message, error.hint, pointer))
            continue
        first = first or each
        if (each.base, each.revision) != (first.base, first.revision):
            message = f"job {job_id} was trained on {each.reference}, and job {first.job_id} on {first.reference}."
            found.append(Problem("another_base", message, "Only adapters of one base answer together.", pointer))
    return found


def _where(path: Path) -> str:
    try:
        near = difflib.get_close_matches(path.name, [p.name for p in path.parent.iterdir()][:1000], n=1)
    except OSError:
        near = []
    nearest = f"Did you mean {near[0]!r}? " if near else ""
    return nearest + "Relative paths count from the folder that the runner was started in."
