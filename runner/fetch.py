"""Bringing a base model from the Hugging Face Hub into the cache, whole, with errors that say what to do."""

import errno
import fnmatch
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner.checkpoint import sha256
from spool.protocol import catalogue
from spool.protocol.errors import ModelError
from spool.protocol.training import Limits

FILES = ["*.json", "*.safetensors", "*.jinja", "tokenizer.model", "LICENSE*", "README.md"]
"""Weights as safetensors only: pickled weights can run code when they are loaded."""

TOKENIZER_FILES = [
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "chat_template.json",
]
"""What `spool.data.judging.chat.Encoder` reads: some ten megabytes, where the weights have gigabytes."""

AT_ONCE, TRIES = 4, 5
CHUNK_BYTES = 1 << 20

WHOLE = "whole"
"""Beside a model's snapshots: WHOLE-COMMIT says that the weights' hashes have been compared once."""


def fetch(
    hub_id: str,
    files: list[str] = FILES,
    pulse: Callable[[], None] = lambda: None,
    revision: str | None = None,
    told: Callable[[str], None] = lambda how_far: None,
    min_free_gb: float = Limits().min_free_gb,
) -> tuple[Path, str]:
    """(folder, commit) of a hub model, downloaded or from the cache. The token comes from HF_TOKEN.

    Weights that have come in part are gone on with, also after the process was killed.

    Args:
        files: patterns of what is fetched: FILES, or TOKENIZER_FILES.
        pulse: called as bytes arrive.
        revision: the commit an earlier attempt has used; without it, that of the main branch now.
        told: called with how far it is (`3.2 of 8.6 GB`), each time that a twentieth more has come, but not more often
            than every 5 s.
        min_free_gb: what must stay free on the disk; nothing is fetched where it would not.

    Raises:
        ModelError: model_gated, token_rejected, model_missing, no_safetensors, disk_full, hub_error; no_network and
            hub_busy pass by themselves and are worth trying again.
    """
    import httpx
    from huggingface_hub import HfApi, constants, snapshot_download
    from tqdm import tqdm

    arrival = Arrival(told)

    class Beat(tqdm):
        def update(self, n: float | None = 1) -> bool | None:
            pulse()
            shown = super().update(n)
            if self.unit == "B":
                arrival.look(weights_bytes + self.n)
            return shown

    place = Path(constants.HF_HUB_CACHE, f"models--{hub_id.replace('/', '--')}")
    if revision:
        folder = place / "snapshots" / revision
        if (place / f"{WHOLE}-{revision}").exists() and list(folder.glob("*.safetensors")):
            return folder, revision
    try:
        info = HfApi().model_info(hub_id, revision=revision, files_metadata=True)
        commit, siblings = str(info.sha), info.siblings or []
        if not any(file.rfilename.endswith(".safetensors") for file in siblings):
            raise ModelError(f"{hub_id} has no safetensors weights.", "Choose another copy of it.", "no_safetensors")
        wanted = [file for file in siblings if any(fnmatch.fnmatch(file.rfilename, pattern) for pattern in files)]
        parts = [_part(file, place) for file in wanted if not (place / "snapshots" / commit / file.rfilename).exists()]
        missing = sum(part.missing_bytes for part in parts)
        _check_room(hub_id, place, missing, min_free_gb)
        arrival.expect(missing)
        weights = [part for part in parts if part.is_weights and not part.blob.exists()]
        weights_bytes = sum(part.missing_bytes for part in weights)
        _fetch_weights(hub_id, commit, weights, arrival, pulse)
        folder = Path(snapshot_download(hub_id, revision=commit, allow_patterns=files, tqdm_class=Beat))
        _verify(hub_id, folder, siblings, pulse)
    except (httpx.HTTPError, OSError, RuntimeError) as error:
        raise _in_words(hub_id, error) from None
    return folder, commit


@dataclass(frozen=True)
class Part:
    """A file that is to be fetched. `blob` is where the hub's client looks for it; weights are begun beside it."""

    name: str
    size_bytes: int
    blob: Path
    is_weights: bool

    @property
    def begun(self) -> Path:
        return self.blob.with_name(f"{self.blob.name}.begun")

    @property
    def begun_bytes(self) -> int:
        return self.begun.stat().st_size if self.begun.exists() else 0

    @property
    def missing_bytes(self) -> int:
        return 0 if self.blob.exists() else self.size_bytes - self.begun_bytes


def _part(file: Any, place: Path) -> Part:
    hashed = getattr(file.lfs, "sha256", None) if file.lfs else None
    is_weights = bool(hashed) and file.rfilename.endswith(".safetensors")
    return Part(file.rfilename, file.size or 0, place / "blobs" / (hashed or file.blob_id or "unknown"), is_weights)


def _check_room(hub_id: str, place: Path, missing_bytes: int, min_free_gb: float) -> None:
    """Raises ModelError where the disk would have less than `min_free_gb` afterwards."""
    disk = next(folder for folder in (place, *place.parents) if folder.exists())
    free = shutil.disk_usage(disk).free
    if missing_bytes and missing_bytes + min_free_gb * 1e9 > free:
        message = (
            f"{hub_id} does not fit on the disk: {missing_bytes / 1e9:.1f} GB are to be fetched, {min_free_gb:g} GB "
            f"are kept free (limits.min_free_gb), and {free / 1e9:.1f} GB are free at {disk}."
        )
        hint = "Free some space (`finetuner doctor` shows what uses it), or choose a smaller model, then retry."
        raise ModelError(message, hint, "disk_full")


def _fetch_weights(
    hub_id: str, commit: str, weights: list[Part], arrival: "Arrival", pulse: Callable[[], None]
) -> None:
    """Puts weights where the hub's client finds them. Itself it begins each file anew after a break
    (https://github.com/huggingface/huggingface_hub/pull/4228); one child at a time fetches weights here."""
    arrived, counting, over = [0], threading.Lock(), threading.Event()

    def came(count: int) -> bool:
        with counting:
            arrived[0] += count
        return not over.is_set()

    for part in weights:
        part.begun.parent.mkdir(parents=True, exist_ok=True)
        if part.missing_bytes < 0:
            part.begun.unlink()
    seen = 0
    with ThreadPoolExecutor(AT_ONCE) as pool:
        running = {pool.submit(_go_on, hub_id, commit, part, came) for part in weights}
        try:
            while running:
                done, running = wait(running, timeout=1.0, return_when=FIRST_EXCEPTION)
                for each in done:
                    each.result()
                if arrived[0] > seen:
                    seen = arrived[0]
                    pulse()
                    arrival.look(seen)
        finally:
            over.set()


def _go_on(hub_id: str, commit: str, part: Part, came: Callable[[int], bool]) -> None:
    """Fetches what is missing of a file, until `came` (told of each chunk's bytes) says no. A connection that breaks is
    made again, as long as something comes."""
    import httpx

    tries = 0
    while (begun_bytes := part.begun_bytes) < part.size_bytes:
        try:
            if not _stream(hub_id, commit, part, came):
                return
            if part.begun_bytes < part.size_bytes:
                raise OSError(f"Consistency check failed: {part.name} is shorter than the hub says")
        except httpx.TransportError:
            tries = 1 if part.begun_bytes > begun_bytes else tries + 1
            if tries == TRIES:
                raise
            time.sleep(1)
    part.begun.replace(part.blob)


def _stream(hub_id: str, commit: str, part: Part, came: Callable[[int], bool]) -> bool:
    """One request for the rest of a file; False where it was stopped."""
    from huggingface_hub import constants, hf_hub_url
    from huggingface_hub.utils import build_hf_headers, hf_raise_for_status, http_stream_backoff

    url, patience_s = hf_hub_url(hub_id, part.name, revision=commit), constants.HF_HUB_DOWNLOAD_TIMEOUT
    headers = {**build_hf_headers(), "Accept-Encoding": "identity", "Range": f"bytes={part.begun_bytes}-"}
    with (
        part.begun.open("ab", buffering=0) as file,
        http_stream_backoff("GET", url, headers=headers, timeout=patience_s, retry_on_exceptions=()) as response,
    ):
        hf_raise_for_status(response)
        if response.status_code != 206:  # it sends the whole file
            file.truncate(0)
        for chunk in response.iter_bytes(CHUNK_BYTES):
            file.write(chunk)
            if not came(len(chunk)):
                return False
    return True


class Arrival:
    """How much of a download has come, told in words now and then."""

    def __init__(self, told: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self.told, self.clock = told, clock
        self.total_bytes = 0
        self.said_bytes, self.said_at = 0.0, clock()

    def expect(self, total_bytes: int) -> None:
        self.total_bytes = total_bytes

    def look(self, arrived_bytes: float) -> None:
        if arrived_bytes - self.said_bytes < self.total_bytes / 20 or self.clock() - self.said_at < 5:
            return
        self.said_bytes, self.said_at = arrived_bytes, self.clock()
        unit, name = (1e9, "GB") if self.total_bytes >= 1e9 else (1e6, "MB")
        self.told(f"{arrived_bytes / unit:.1f} of {self.total_bytes / unit:.1f} {name}")


def _verify(hub_id: str, folder: Path, siblings: list[Any], pulse: Callable[[], None]) -> None:
    """Compares sizes, and once for each commit the hashes that the hub states. What differs is removed.

    Raises:
        ModelError: hub_busy; the next try fetches the damaged file again.
    """
    proof = folder.parent.parent / f"{WHOLE}-{folder.name}"
    weights = False
    for file in siblings:
        path = folder / file.rfilename
        if not path.exists():
            continue
        weights |= path.suffix == ".safetensors"
        stated = getattr(file.lfs, "sha256", None) if file.lfs else None
        whole = file.size is None or path.stat().st_size == file.size
        if whole and stated and not proof.exists():
            pulse()
            whole = sha256(path) == stated
        if not whole:
            path.resolve().unlink()
            path.unlink(missing_ok=True)
            proof.unlink(missing_ok=True)
            raise ModelError(f"{file.rfilename} of {hub_id} arrived damaged.", "It is fetched again.", "hub_busy")
    if weights:
        proof.touch()


def _in_words(hub_id: str, error: Exception) -> ModelError:
    """What stopped a download, by the first of its causes that says it."""
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    for cause in causes(error):
        status = getattr(getattr(cause, "response", None), "status_code", None)
        if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT):
            hint = "Free some space (`finetuner doctor` shows what uses it), then retry."
            return ModelError(f"the disk is full: {hub_id} could not be stored.", hint, "disk_full")
        if isinstance(cause, GatedRepoError):
            return ModelError(f"{hub_id} is gated: its terms must be accepted first.", _steps(hub_id), "model_gated")
        if isinstance(cause, RepositoryNotFoundError | RevisionNotFoundError):
            hint = "Check the spelling; a private model needs HF_TOKEN set for the runner."
            return ModelError(f"the hub knows no model {hub_id!r}.", hint, "model_missing")
        if status in (401, 403):
            hint = "Make a new token that may read it at https://huggingface.co/settings/tokens and set it as HF_TOKEN."
            return ModelError(f"the hub did not accept the token for {hub_id} ({status}).", hint, "token_rejected")
        if status == 429 or (status or 0) >= 500:
            return ModelError(f"the hub is busy ({status}) and did not send {hub_id}.", "Retry later.", "hub_busy")
        if status:
            return ModelError(f"the hub answered: {str(cause).splitlines()[0]}", "Retry later.", "hub_error")
        if "Consistency check failed" in str(cause):
            return ModelError(f"the download of {hub_id} broke off.", "It is fetched again.", "hub_busy")
    hint = "Check the network, or use a model under models/."
    return ModelError(f"the hub cannot be reached to fetch {hub_id}.", hint, "no_network")


def _steps(hub_id: str) -> str:
    """What lets somebody have a gated model."""
    known = catalogue.of_hub(hub_id)
    copy = f" Or take {known.mirror}, a copy that asks for no account." if known and known.mirror else ""
    return (
        f"1. Sign in at https://huggingface.co/{hub_id} and accept its terms. 2. Make a token of that account that may "
        "read it at https://huggingface.co/settings/tokens. 3. Set it as HF_TOKEN for the runner, start the runner "
        f"again, and retry.{copy}"
    )


def causes(error: BaseException) -> Iterator[BaseException]:
    """The error, then what it was raised from."""
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__
