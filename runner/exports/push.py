"""Putting exports on the Hugging Face Hub: file by file, then in one commit, with errors that say what to do.

What was uploaded stays there when a push breaks off, and the next attempt does not send it again; nobody sees any of
it before the commit. A push replaces what the last one put there, so that two models never mix. The token comes from
HF_TOKEN (a service's credential: runner/launch.py) and goes into the requests' headers and nowhere else.
"""

import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from io import BufferedReader, FileIO
from json import JSONDecodeError
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner.exports import parcel
from runner.exports.parcel import Item
from runner.fetch import Arrival, causes
from runner.job import Attempt
from spool.health import failure
from spool.protocol import manifest
from spool.protocol.errors import FinetunerError
from spool.protocol.redact import redact
from spool.protocol.spec import Push

if TYPE_CHECKING:
    import httpx
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.hf_api import ModelInfo

TIMEOUT_S = 100.0
"""How long one answer is waited for: large commits take a while. The client asks up to six times."""

PATIENCE_S = 30
"""A hub that asks to come back later than this is left: the job waits in the queue, and others pass."""

TOLD_BYTES = 1_000_000
"""How far a file is, is told of those that take a while."""

TOKENS = "https://huggingface.co/settings/tokens"
GIVE = "set it as HF_TOKEN for the runner (a service: deploy/install.sh --token FILE), then retry."

WEIGHTS = (".safetensors", ".gguf", ".bin", ".pt", ".pth", ".onnx")


def check(wanted: Push) -> None:
    """Refuses at once what no push could do, before hours go into the exports.

    Raises:
        FinetunerError: no_token, token_rejected, repo_public, repo_taken. A hub that is away is no reason yet.
    """
    try:
        with _hub(wanted.repo) as api:
            account = api.whoami()
            if (account.get("auth") or {}).get("accessToken", {}).get("role") == "read":
                message = f"the hub's token of {account.get('name')} may only read."
                raise FinetunerError(message, f"Make one that may write at {TOKENS}, {GIVE}", "token_rejected")
            there = _there(api, wanted.repo)
            if there is not None:
                _ours(api, wanted, there)
    except FinetunerError as error:
        if not failure.is_passing(error.code):
            raise


def push(wanted: Push, title: str, folders: Mapping[str, Path], attempt: Attempt) -> dict[str, Any]:
    """Puts exports, by format, into one repository and gives what stands in the job's result.

    Raises:
        FinetunerError: not_proven, no_manifest, export_changed and those of `check`; no_network and hub_busy pass by
            themselves and are worth trying again.
    """
    items = parcel.pack(folders)
    attempt.phase(f"pushing to {wanted.repo}")
    with _hub(wanted.repo) as api, ExitStack() as opened:
        there = _there(api, wanted.repo)
        if there is None:
            api.create_repo(wanted.repo, private=wanted.private, exist_ok=True)
            there = api.model_info(wanted.repo)
        gone = _ours(api, wanted, there) - {item.path for item in items}
        added = []
        for item in items:
            operation = _addition(item, attempt, opened)
            api.preupload_lfs_files(wanted.repo, [operation])
            added.append(operation)
        attempt.phase(f"committing to {wanted.repo}")
        commit = _commit(api, wanted.repo, f"{title}: {', '.join(folders)}", added, sorted(gone), there.sha)
        url = f"{api.endpoint}/{wanted.repo}"
    attempt.note(f"pushed {len(items)} files, {_size(items)}, to {url}")
    return {"repo": wanted.repo, "commit": commit, "url": url, "files": [item.path for item in items]}


def _size(items: Sequence[Item]) -> str:
    total = sum(item.bytes for item in items)
    return f"{total / 1e9:.1f} GB" if total >= 1e9 else f"{total / 1e6:.1f} MB"


# ---- what is there already


def _there(api: "HfApi", repo: str) -> "ModelInfo | None":
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        return api.model_info(repo)
    except RepositoryNotFoundError as error:
        if error.response.status_code == 401:
            raise
        return None


def _ours(api: "HfApi", wanted: Push, there: "ModelInfo") -> set[str]:
    """The files that an earlier push put there.

    Raises:
        FinetunerError: repo_public, repo_taken.
    """
    if wanted.private and not there.private:
        message = f"{wanted.repo} is public on the hub, and the push was to be private."
        hint = 'Make it private there, push to another name, or say "private": false.'
        raise FinetunerError(message, hint, "repo_public")
    names = {each.rfilename for each in there.siblings or []}
    earlier: set[str] = set()
    if manifest.NAME in names:
        with tempfile.TemporaryDirectory() as folder:
            api.hf_hub_download(wanted.repo, manifest.NAME, revision=there.sha, local_dir=folder)
            try:
                earlier = {*manifest.read(Path(folder))[0]["files"], *manifest.BESIDE} & names
            except manifest.NoManifest:
                pass
    foreign = sorted(name for name in names - earlier if name.endswith(WEIGHTS))
    if foreign and not earlier:
        message = f"{wanted.repo} holds a model that was not pushed from here ({foreign[0]})."
        raise FinetunerError(message, "Push to another name, or delete that model on the hub first.", "repo_taken")
    return earlier


# ---- what goes there


class _Told(BufferedReader):
    """A file that tells how far it is while it is read."""

    def __init__(self, path: Path, pulse: Callable[[], None]) -> None:
        super().__init__(FileIO(path))
        self.pulse = pulse
        self.arrival: Arrival | None = None

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self.pulse()
        if self.arrival is not None:
            self.arrival.look(self.tell())
        return data


def _addition(item: Item, attempt: Attempt, opened: ExitStack) -> "CommitOperationAdd":
    """Hashes the file, which is the last look at whether it still is what was proven."""
    from huggingface_hub import CommitOperationAdd

    if isinstance(item.source, bytes):
        return CommitOperationAdd(item.path, item.source)
    file = opened.enter_context(_Told(item.source, attempt.pulse))
    operation = CommitOperationAdd(item.path, file)
    if operation.upload_info.sha256.hex() != item.sha256:
        message = f"{item.source} is not as it was exported, and nothing was pushed."
        raise FinetunerError(message, "Delete this export, make it again and push that.", "export_changed")
    if item.bytes >= TOLD_BYTES:
        file.arrival = Arrival(lambda far: attempt.phase(f"pushing {item.path}, {far}"))
        file.arrival.expect(item.bytes)
    return operation


def _commit(
    api: "HfApi", repo: str, title: str, added: "list[CommitOperationAdd]", gone: list[str], parent: str | None
) -> str:
    """All or nothing, on what was there when we looked: a commit that somebody else made meanwhile is not undone."""
    from huggingface_hub import CommitOperationDelete

    operations = [*(CommitOperationDelete(path, is_folder=False) for path in gone), *added]
    return str(api.create_commit(repo, operations, commit_message=title, parent_commit=parent).oid)


# ---- the line to the hub


@contextmanager
def _hub(repo: str) -> Iterator["HfApi"]:
    """The hub's client with the token, its errors in our words.

    Raises:
        FinetunerError: by the first cause that says what stopped it.
    """
    import httpx
    from huggingface_hub import HfApi, set_client_factory
    from huggingface_hub.utils import logging

    set_client_factory(_client)
    logging.set_verbosity_error()  # its warnings have the signed addresses of uploads in them
    try:
        yield HfApi(token=_token(repo))
    except (httpx.HTTPError, OSError, RuntimeError, ValueError) as error:
        found = list(causes(error))
        ours = next((each for each in found if isinstance(each, FinetunerError)), None)
        local = next((each for each in found if isinstance(each, OSError) and each.filename), None)
        raise ours or local or _in_words(repo, found) from None


def _token(repo: str) -> str:
    from huggingface_hub import constants, get_token

    if constants.is_offline_mode():
        hint = "Take HF_HUB_OFFLINE out of the runner's environment and start it again, then retry."
        raise FinetunerError(f"HF_HUB_OFFLINE is set: nothing can be pushed to {repo}.", hint, "hub_error")
    token = get_token()
    if not token:
        message = f"there is no token for the hub: nothing can be pushed to {repo}."
        raise FinetunerError(message, f"Make one that may write at {TOKENS}, {GIVE}", "no_token")
    if not re.fullmatch("[!-~]+", token):  # an HTTP client would show it in its complaint
        message = "HF_TOKEN holds what no token has, such as a blank."
        raise FinetunerError(message, f"Copy it anew from {TOKENS}, {GIVE}", "token_rejected")
    os.environ.setdefault("HF_TOKEN", token)  # where it came from a file, `redact` knows it from here on
    return token


def _client() -> "httpx.Client":
    """The library's own, but it waits for nothing longer than TIMEOUT_S; some calls ask to wait for ever."""
    import httpx
    from huggingface_hub.utils._http import default_client_factory

    def bounded(request: httpx.Request) -> None:
        request.extensions["timeout"] = httpx.Timeout(TIMEOUT_S).as_dict()

    client = default_client_factory()
    hooks = client.event_hooks
    client.event_hooks = {"request": [*hooks["request"], bounded], "response": [*hooks["response"], _impatient]}
    return client


def _impatient(response: "httpx.Response") -> None:
    """Takes over where the library would sleep as long as it is told, or ask again without end."""
    later = response.headers.get("Retry-After", "")
    limit = re.search(r"\bt=(\d+)", response.headers.get("RateLimit", ""))
    wait_s = int(later) if later.isdigit() else int(limit[1]) if limit else 0
    if response.status_code in (429, 503) and wait_s > PATIENCE_S:
        message = f"the hub is busy ({response.status_code}) and asks to come back in {wait_s} s."
        raise FinetunerError(message, "Retry later.", "hub_busy")
    if response.status_code == 409 and "another conflicting operation" in response.read().decode(errors="replace"):
        raise FinetunerError("the hub is busy with another change of this account (409).", "Retry later.", "hub_busy")


def _in_words(repo: str, found: Sequence[BaseException]) -> FinetunerError:
    import httpx

    status, said = next(((s, e) for e in found if (s := _status(e))), (0, found[0]))
    words = _words(said)
    if status == 401:
        hint = f"Make a new one that may write at {TOKENS}, {GIVE}"
        return FinetunerError("the hub does not accept the token (401).", hint, "token_rejected")
    if status == 403:
        hint = f"Give a token that may write to {repo.partition('/')[0]} ({TOKENS}): {GIVE}"
        return FinetunerError(f"the hub does not let this token write to {repo} (403){words}.", hint, "token_rejected")
    if status in (409, 412):
        message = f"{repo} was changed by somebody else during the push ({status}){words}."
        return FinetunerError(message, "Retry later.", "hub_busy")
    if status == 429 or status >= 500:
        return FinetunerError(f"the hub is busy ({status}) and did not take {repo}.", "Retry later.", "hub_busy")
    if status:
        return FinetunerError(f"the hub did not take {repo} ({status}){words}.", "Correct what it names.", "hub_error")
    if any("CERTIFICATE_VERIFY_FAILED" in str(each) for each in found):
        hint = "Set SSL_CERT_FILE to the proxy's certificates for the runner, then retry."
        return FinetunerError("the hub's certificate was not accepted.", hint, "certificate_refused")
    if any(isinstance(each, JSONDecodeError) for each in found):
        return FinetunerError(f"the hub's answer about {repo} makes no sense.", "Retry later.", "hub_busy")
    if isinstance(found[0], ValueError):
        return FinetunerError(f"the hub did not take {repo}{words}.", "Correct what it names.", "hub_error")
    how = "does not answer" if any(isinstance(e, httpx.TimeoutException) for e in found) else "cannot be reached"
    return FinetunerError(f"the hub {how}: {repo} was not pushed.", "Check the network, then retry.", "no_network")


def _status(error: BaseException) -> int:
    return int(getattr(getattr(error, "response", None), "status_code", 0))


def _words(error: BaseException) -> str:
    """What the hub itself says, in one line."""
    said = getattr(error, "server_message", None) or ("" if _status(error) else str(error))
    plain = " ".join("".join(c if c.isprintable() else " " for c in redact(str(said))).split())
    return f": {plain[:200].rstrip('.')}" if plain else ""
