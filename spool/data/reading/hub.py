"""Datasets of the Hugging Face Hub: hf:ORG/NAME becomes a folder of data files of one commit.

Which files belong to a configuration and a split stands in the dataset's card, else it follows from the files' names:
https://huggingface.co/docs/hub/datasets-manual-configuration and .../datasets-file-names-and-splits. Only data files
are fetched, never code. What was fetched once is found again while the hub cannot be reached.
"""

import errno
import glob
import hashlib
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spool.data.reading.source import ENDINGS, EVAL_NAME, TRAINING_NAME
from spool.protocol import durable
from spool.protocol.errors import DataError
from spool.protocol.home import Home
from spool.protocol.resolve import HUB_DATASET

CONVERTED = "refs/convert/parquet"
"""Where the hub keeps the Parquet files that it makes of a dataset, as CONFIGURATION/SPLIT/0000.parquet."""
PATIENCE_S = 30.0

SHARD = re.compile(r"(?:^|/)(\w+(?:\.\w+)*)-\d{5}-of-\d{5}[^/]*$")
WORDS = {"train": "train|training", "validation": "validation|valid|dev|val", "test": "test|testing|eval|evaluation"}
IN_FOLDER = {split: re.compile(rf"(?:^|[-._ \d/])(?:{each})(?:[-._ \d][^/]*)?/", re.I) for split, each in WORDS.items()}
IN_NAME = {split: re.compile(rf"(?:^|[-._ \d/])(?:{each})[-._ \d][^/]*$", re.I) for split, each in WORDS.items()}


@dataclass(frozen=True)
class Reference:
    """hf:ORG/NAME[@REVISION][:CONFIGURATION[:SPLIT]]"""

    repo: str
    revision: str | None
    config: str | None
    split: str | None

    @classmethod
    def parse(cls, text: str) -> "Reference":
        """Raises DataError where it is none."""
        match = HUB_DATASET.fullmatch(text)
        if match is None:
            hint = "Write hf:ORG/NAME, hf:ORG/NAME@REVISION or hf:ORG/NAME:CONFIGURATION:SPLIT."
            raise DataError(f"{text[:120]!r} names no dataset of the hub.", hint, "dataset_missing")
        return cls(match["repo"], match["revision"], match["config"], match["split"])

    @property
    def slug(self) -> str:
        """A folder's name: readable, and another one for each reference."""
        words = (self.repo, self.revision, self.config, self.split)
        number = hashlib.sha256(repr(words).encode()).hexdigest()[:8]
        return re.sub(r"[^\w.-]+", "--", "-".join(filter(None, words)))[:80] + f"-{number}"


def fetch(home: Home, text: str) -> Path:
    """The folder with the data files of a dataset, downloaded or from the cache. The token comes from HF_TOKEN.

    Raises:
        DataError: dataset_gated, dataset_missing, no_network, hub_error, disk_full, bad_reference (no such
            configuration or split), or no file in it can be read.
    """
    import httpx
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    wanted = Reference.parse(text)
    try:
        return _fetched(home, wanted)
    except GatedRepoError:
        hint = f"Open https://huggingface.co/datasets/{wanted.repo}, accept its terms, and set HF_TOKEN for the runner."
        raise DataError(f"{wanted.repo} is gated: its terms must be accepted first.", hint, "dataset_gated") from None
    except RevisionNotFoundError:
        if wanted.revision is None:
            raise _no_files(wanted) from None
        message = f"{wanted.repo} has no revision {wanted.revision!r}."
        raise DataError(message, "Look at its branches and tags on the hub.", "dataset_missing") from None
    except (RepositoryNotFoundError, HFValidationError):
        raise _unknown(wanted) from None
    except HfHubHTTPError as error:
        status = error.response.status_code
        if status in (401, 404):  # a mirror may not say which of its kinds it is
            raise _unknown(wanted) from None
        before = _fetched_before(home, wanted) if status >= 500 else None
        hint = "Check HF_TOKEN: the hub refuses it." if status == 403 else "Retry later."
        return before or _raise(DataError(f"the hub answered: {str(error).splitlines()[0]}", hint, "hub_error"))
    except (httpx.TransportError, LocalEntryNotFoundError, OfflineModeIsEnabled):
        hint = "Check the network, or upload the file."
        lost = DataError(f"the hub cannot be reached to fetch {wanted.repo}.", hint, "no_network")
        return _fetched_before(home, wanted) or _raise(lost)
    except OSError as error:
        code = "disk_full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "hub_error"
        hint = f"Look at the folder {home.hub_datasets}."
        raise DataError(f"{wanted.repo} cannot be stored: {error.strerror or error}.", hint, code) from None


def _fetched(home: Home, wanted: Reference) -> Path:
    """The same with the errors of the hub's client."""
    from huggingface_hub import HfApi, snapshot_download

    info = HfApi().dataset_info(wanted.repo, revision=wanted.revision, timeout=PATIENCE_S)
    files = chosen(info, wanted)
    if not files and wanted.revision is None:
        info = HfApi().dataset_info(wanted.repo, revision=CONVERTED, timeout=PATIENCE_S)
        files = _converted(_data_files(info), wanted)
    if not files:
        raise _no_files(wanted)
    folder = snapshot_download(
        wanted.repo,
        repo_type="dataset",
        revision=info.sha,
        allow_patterns=[glob.escape(name) for name in files],
        cache_dir=home.hub_datasets / "cache",
    )
    return _gathered(home.hub_datasets / f"{wanted.slug}-{str(info.sha)[:12]}", Path(folder), files)


def chosen(info: Any, wanted: Reference) -> list[str]:
    """The repository's data files that make up the configuration and split; none where there are none to read.

    Args:
        info: what HfApi.dataset_info gives.

    Raises:
        DataError: it has no such configuration or split.
    """
    names = _data_files(info)
    if not names:
        return []
    card = getattr(info.card_data, "configs", None)
    entries = [entry for entry in card if isinstance(entry, dict)] if isinstance(card, list) else []
    configs = {str(each.get("config_name", "default")): each for each in entries if _tells_files(each)}
    if configs:
        usual = next((name for name, entry in configs.items() if entry.get("default") is True), "default")
        splits = _splits(_one(configs, wanted.config, usual, wanted), names)
    else:
        splits = _splits_by_name(_inside(names, wanted))
    return _split(splits, wanted)


def _data_files(info: Any) -> list[str]:
    return sorted(file.rfilename for file in info.siblings or [] if _is_data(file.rfilename))


def _is_data(name: str) -> bool:
    *folders, last = name.split("/")
    told = last.startswith(("README", "dataset_info", "dataset_dict", "requirements", "config.json", "LICENSE", "."))
    inside = all(folder and not folder.startswith(".") for folder in folders)
    return inside and not told and os.path.splitext(last.removesuffix(".gz"))[1] in ENDINGS


def _tells_files(entry: dict[str, Any]) -> bool:
    return bool(entry.get("data_files") or entry.get("data_dir"))


def _splits(config: dict[str, Any], names: list[str]) -> dict[str, list[str]]:
    """Split -> files, of the `data_files` in a card: a pattern, a list of them, or [{"split", "path"}]."""
    inside = f"{config['data_dir']}".strip("/.") + "/" if config.get("data_dir") else ""
    given = config.get("data_files")
    if not given:
        return _splits_by_name([name for name in names if name.startswith(inside)])
    found: dict[str, dict[str, None]] = {}
    for entry in given if isinstance(given, list) else [given]:
        split, paths = (entry.get("split", "train"), entry.get("path")) if isinstance(entry, dict) else ("train", entry)
        for path in paths if isinstance(paths, list) else [paths]:
            pattern = _pattern(inside + str(path).removeprefix("./"))
            found.setdefault(str(split), {}).update(dict.fromkeys(filter(pattern.fullmatch, names)))
    return {split: list(files) for split, files in found.items() if files}


def _pattern(path: str) -> re.Pattern[str]:
    """As the hub reads a card's path: * stays inside a folder, ** does not."""
    pieces = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    words = re.split(r"(\*\*/|\*\*|\*|\?|\[[^]/]+\])", path)
    return re.compile(
        "".join(pieces.get(each) or (_of_these(each) if each[:1] == "[" else re.escape(each)) for each in words)
    )


def _of_these(brackets: str) -> str:
    inside = re.sub(r"([\\\[&~|])", r"\\\1", brackets[1:-1])
    return f"[^{inside[1:]}]" if inside[0] in "!^" and inside[1:] else f"[{inside}]"


def _inside(names: list[str], wanted: Reference) -> list[str]:
    """Without a card, a configuration is a folder."""
    if wanted.config in (None, "default"):
        return names
    folders = sorted({folder for name in names for folder in name.split("/")[:-1]})
    inside = [name for name in names if wanted.config in name.split("/")[:-1]]
    if inside:
        return inside
    hint = f"It has: {', '.join(folders[:20])}." if folders else "It has none, only splits."
    hint += f" A split of all files is written hf:{wanted.repo}:default:SPLIT."
    raise DataError(f"{wanted.repo} has no configuration {wanted.config!r}.", hint, "bad_reference")


def _splits_by_name(names: list[str]) -> dict[str, list[str]]:
    """Split -> files: by NAME-00000-of-00002, else by folders, else by words in the names; the rest is "train"."""
    shards: dict[str, list[str]] = {}
    for name in names:
        if match := SHARD.search(name):
            shards.setdefault(match[1], []).append(name)
    if shards:
        return shards
    for words in (IN_FOLDER, IN_NAME):
        found = {split: [name for name in names if pattern.search(name)] for split, pattern in words.items()}
        if any(found.values()):
            told = {name for files in found.values() for name in files}
            found["train"] = found["train"] or [name for name in names if name not in told]
            return {split: files for split, files in found.items() if files}
    return {"train": names} if names else {}


def _converted(names: list[str], wanted: Reference) -> list[str]:
    """The files of a configuration and split among those that the hub has converted."""
    configs: dict[str, dict[str, list[str]]] = {}
    for name in names:
        config, *split, _ = name.split("/") if name.count("/") == 2 else ("", "", "")
        if config:
            configs.setdefault(config, {}).setdefault(split[0].removeprefix("partial-"), []).append(name)
    return _split(_one(configs, wanted.config, "default", wanted), wanted) if configs else []


def _one(configs: dict[str, Any], asked: str | None, usual: str, wanted: Reference) -> Any:
    """The configuration that was asked for; else the usual one, or the only one."""
    if asked in configs:
        return configs[asked]
    if asked is None and (usual in configs or len(configs) == 1):
        return configs.get(usual) or next(iter(configs.values()))
    known = f"{', '.join(f'hf:{wanted.repo}:{name}' for name in list(configs)[:8])}"
    more = f" (and {len(configs) - 8} more)" if len(configs) > 8 else ""
    told = f"has {len(configs)} configurations." if asked is None else f"has no configuration {asked!r}."
    raise DataError(f"{wanted.repo} {told}", f"Name one: {known}{more}.", "bad_reference")


def _split(splits: dict[str, list[str]], wanted: Reference) -> list[str]:
    """The files of the split that was asked for; else of "train", else of the first."""
    if not splits or wanted.split in splits:
        return splits.get(wanted.split or "", [])
    if wanted.split is None:
        return splits.get("train") or next(iter(splits.values()))
    hint = f"It has: {', '.join(list(splits)[:20])}."
    raise DataError(f"{wanted.repo} has no split {wanted.split!r}.", hint, "bad_reference")


def _no_files(wanted: Reference) -> DataError:
    made = ", and the hub has made no Parquet files of it" if wanted.revision is None else ""
    hint = "CSV, JSON, JSONL, TXT and Parquet are read; code of a dataset is never run."
    return DataError(f"{wanted.repo} has no data file that can be read{made}.", hint, "dataset_missing")


def _unknown(wanted: Reference) -> DataError:
    hint = "Check the spelling; a private dataset needs a valid HF_TOKEN set for the runner."
    return DataError(f"the hub knows no dataset {wanted.repo!r}.", hint, "dataset_missing")


def _raise(error: DataError) -> Path:
    raise error from None


def _fetched_before(home: Home, wanted: Reference) -> Path | None:
    """What the same reference stood for when it was last fetched."""
    folders = [each for each in home.hub_datasets.glob(f"{wanted.slug}-*") if each.is_dir()]
    return max(folders, key=lambda folder: folder.stat().st_mtime, default=None)


def _gathered(target: Path, snapshot: Path, files: list[str]) -> Path:
    """A folder with just these files, under plain names, for the snapshot may hold other splits from before."""
    if target.is_dir():
        os.utime(target)
        return target
    names = [re.sub(r"[^A-Za-z0-9._-]+", "-", name)[-100:] for name in files]
    training = [bool(TRAINING_NAME.search(name)) for name in names]
    if any(training) and any(
        EVAL_NAME.search(name) for name, is_told in zip(names, training, strict=True) if not is_told
    ):
        # the card puts a file called test into this split; by its name a folder's reader would pass it over
        names = ["rows" + re.sub(r"^.*?(\.[a-z]+(\.gz)?)$", r"\1", name) for name in names]
    draft = target.with_name(f".{target.name}-{os.getpid()}")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    for number, (name, file) in enumerate(zip(names, files, strict=True)):
        source, copy = (snapshot / file).resolve(), draft / f"{number:05d}-{name}"
        try:
            os.link(source, copy)
        except OSError:
            shutil.copyfile(source, copy)
        durable.sync(copy)
    durable.sync(draft)
    try:
        os.rename(draft, target)
    except OSError:  # another process was faster
        shutil.rmtree(draft, ignore_errors=True)
    return target
