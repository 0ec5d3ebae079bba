"""Bringing a base model from the Hugging Face Hub into the cache, whole, with errors that say what to do."""

import errno
import fnmatch
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from runner.checkpoint import sha256
from spool.protocol.errors import ModelError

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

WHOLE = "whole"
"""Beside a model's snapshots: WHOLE-COMMIT says that the weights' hashes have been compared once."""


def fetch(
    hub_id: str,
    files: list[str] = FILES,
    pulse: Callable[[], None] = lambda: None,
    revision: str | None = None,
    told: Callable[[str], None] = lambda how_far: None,
) -> tuple[Path, str]:
    """(folder, commit) of a hub model, downloaded or from the cache. The token comes from HF_TOKEN.

    Args:
        files: patterns of what is fetched: FILES, or TOKENIZER_FILES.
        pulse: called as bytes arrive.
        revision: the commit an earlier attempt has used; without it, that of the main branch now.
        told: called with how far it is (`3.2 of 8.6 GB`), each time that a twentieth more has come, but not more often
            than every 5 s.

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
                arrival.look(self.n)
            return shown

    if revision:
        known = Path(constants.HF_HUB_CACHE, f"models--{hub_id.replace('/', '--')}")
        folder = known / "snapshots" / revision
        if (known / f"{WHOLE}-{revision}").exists() and list(folder.glob("*.safetensors")):
            return folder, revision
    try:
        info = HfApi().model_info(hub_id, revision=revision, files_metadata=True)
        commit = str(info.sha)
        if not any(file.rfilename.endswith(".safetensors") for file in info.siblings or []):
            raise ModelError(f"{hub_id} has no safetensors weights.", "Choose another copy of it.", "no_safetensors")
        cached = Path(constants.HF_HUB_CACHE, f"models--{hub_id.replace('/', '--')}", "snapshots", commit)
        wanted = [f for f in info.siblings or [] if any(fnmatch.fnmatch(f.rfilename, pattern) for pattern in files)]
        missing = [file.size or 0 for file in wanted if not (cached / file.rfilename).exists()]
        arrival.expect(sum(missing))
        folder = Path(snapshot_download(hub_id, revision=commit, allow_patterns=files, tqdm_class=Beat))
        _verify(hub_id, folder, info.siblings or [], pulse)
    except (httpx.HTTPError, OSError, RuntimeError) as error:
        raise _in_words(hub_id, error) from None
    return folder, commit


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
            hint = f"Open https://huggingface.co/{hub_id}, accept its terms, and set HF_TOKEN for the runner."
            return ModelError(f"{hub_id} is gated: its terms must be accepted first.", hint, "model_gated")
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


def causes(error: BaseException) -> Iterator[BaseException]:
    """The error, then what it was raised from."""
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__
