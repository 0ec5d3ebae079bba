"""Datasets of the Hugging Face Hub: hf:ORG/NAME becomes a folder of data files of one commit.

Which files belong to a configuration and a split stands in the dataset's card, else it follows from the files' names:
https://huggingface.co/docs/hub/datasets-manual-configuration. Only data files are fetched, never code.
"""

import fnmatch
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spool.data.source import ENDINGS, EVAL_NAME, TRAINING_NAME
from spool.protocol.errors import DataError
from spool.protocol.home import Home
from spool.protocol.resolve import HUB_DATASET

CONVERTED = "refs/convert/parquet"
"""Where the hub keeps the Parquet files that it makes of a dataset with a loading script."""


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


def fetch(home: Home, text: str) -> Path:
    """The folder with the data files of a dataset, downloaded or from the cache. The token comes from HF_TOKEN.

    Raises:
        DataError: dataset_gated, dataset_missing, no_network, or no file in it can be read.
    """
    import httpx
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    wanted = Reference.parse(text)
    try:
        info = HfApi().dataset_info(wanted.repo, revision=wanted.revision)
        files = chosen(info, wanted)
        if not files and wanted.revision is None:
            info = HfApi().dataset_info(wanted.repo, revision=CONVERTED)
            files = chosen(info, wanted)
        if not files:
            message = f"{wanted.repo} has no data file that can be read."
            raise DataError(message, "CSV, JSON, JSONL, TXT and Parquet are read; code of a dataset is never run.")
        cache = home.hub_datasets / "cache"
        folder = snapshot_download(
            wanted.repo, repo_type="dataset", revision=info.sha, allow_patterns=files, cache_dir=cache
        )
    except GatedRepoError:
        hint = f"Open https://huggingface.co/datasets/{wanted.repo}, accept its terms, and set HF_TOKEN for the runner."
        raise DataError(f"{wanted.repo} is gated: its terms must be accepted first.", hint, "dataset_gated") from None
    except RevisionNotFoundError:
        message = f"{wanted.repo} has no revision {wanted.revision!r}."
        if wanted.revision is None:
            message = f"{wanted.repo} has no data file that can be read, and the hub has made no Parquet files of it."
        raise DataError(message, "Look at its files on the hub.", "dataset_missing") from None
    except RepositoryNotFoundError:
        hint = "Check the spelling; a private dataset needs HF_TOKEN set for the runner."
        raise DataError(f"the hub knows no dataset {wanted.repo!r}.", hint, "dataset_missing") from None
    except (httpx.TransportError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
        if isinstance(error, HfHubHTTPError):
            raise DataError(f"the hub answered: {str(error).splitlines()[0]}", "Retry later.", "hub_error") from None
        hint = "Check the network, or upload the file."
        raise DataError(f"the hub cannot be reached to fetch {wanted.repo}.", hint, "no_network") from None
    return _gathered(home, wanted, str(info.sha), Path(folder), files)


def chosen(info: Any, wanted: Reference) -> list[str]:
    """The repository's data files that make up the configuration and split.

    Raises:
        DataError: it has no such configuration or split.
    """
    names = sorted(file.rfilename for file in info.siblings or [] if _is_data(file.rfilename))
    if not names:
        return []
    configs = {}
    for entry in getattr(info.card_data, "configs", None) or []:
        if isinstance(entry, dict) and entry.get("data_files"):
            configs[str(entry.get("config_name", "default"))] = entry
    if configs:
        splits = _splits(_one(configs, wanted.config, "configuration", wanted), names)
    else:
        if wanted.config:
            inside = [name for name in names if wanted.config in name.split("/")[:-1]]
            names = inside or _none(
                "configuration", wanted.config, sorted({n.split("/")[0] for n in names if "/" in n})
            )
        splits = _splits_by_name(names)
    return _one(splits, wanted.split, "split", wanted)


def _is_data(name: str) -> bool:
    return os.path.splitext(name.removesuffix(".gz"))[1] in ENDINGS and not name.split("/")[-1].startswith(
        ("README", "dataset_info", "requirements", ".")
    )


def _splits(config: dict[str, Any], names: list[str]) -> dict[str, list[str]]:
    """Split -> files, of the `data_files` in a card: a pattern, a list of them, or [{"split", "path"}]."""
    given = config["data_files"]
    entries = given if isinstance(given, list) else [given]
    found: dict[str, list[str]] = {}
    for entry in entries:
        split, paths = (
            ("train", entry) if isinstance(entry, str) else (str(entry.get("split", "train")), entry.get("path"))
        )
        for pattern in paths if isinstance(paths, list) else [paths]:
            fitting = fnmatch.filter(names, str(pattern).replace("**", "*"))
            found.setdefault(split, []).extend(name for name in fitting if name not in found.get(split, ()))
    return {split: files for split, files in found.items() if files}


def _splits_by_name(names: list[str]) -> dict[str, list[str]]:
    training = [name for name in names if TRAINING_NAME.search(name)]
    testing = [name for name in names if EVAL_NAME.search(name) and name not in training]
    splits = {"train": training or [name for name in names if name not in testing] or names}
    for name in testing:
        match = EVAL_NAME.search(name)
        assert match is not None
        splits.setdefault(match[2].lower(), []).append(name)
    return splits


def _one(among: dict[str, Any], asked: str | None, what: str, wanted: Reference) -> Any:
    """What was asked for; else the usual one, or the only one."""
    if asked is not None:
        return among[asked] if asked in among else _none(what, asked, list(among))
    for usual in ("default", "train"):
        if usual in among:
            return among[usual]
    if len(among) == 1 or what == "split":
        return next(iter(among.values()), [])
    hint = f"Name one: {', '.join(f'hf:{wanted.repo}:{name}' for name in list(among)[:8])}."
    raise DataError(f"{wanted.repo} has {len(among)} configurations.", hint, "bad_reference")


def _none(what: str, asked: str, known: list[str]) -> Any:
    raise DataError(
        f"the dataset has no {what} {asked!r}.", f"It has: {', '.join(known[:20]) or 'none'}.", "bad_reference"
    )


def _gathered(home: Home, wanted: Reference, commit: str, snapshot: Path, files: list[str]) -> Path:
    """A folder with just these files, under plain names, for the snapshot may hold other splits from before."""
    slug = re.sub(r"[^\w.-]+", "--", "-".join(filter(None, (wanted.repo, wanted.config, wanted.split))))
    target = home.hub_datasets / f"{slug}-{commit[:12]}"
    if target.is_dir():
        return target
    draft = home.hub_datasets / f".{target.name}-{os.getpid()}"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    for number, name in enumerate(files):
        source = (snapshot / name).resolve()
        copy = draft / f"{number:05d}-{re.sub(r'[^A-Za-z0-9._-]+', '-', name)[-100:]}"
        try:
            os.link(source, copy)
        except OSError:
            shutil.copyfile(source, copy)
    try:
        os.rename(draft, target)
    except OSError:  # another process was faster
        shutil.rmtree(draft, ignore_errors=True)
    return target
