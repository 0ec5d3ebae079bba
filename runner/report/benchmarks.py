"""Benchmarks of a report: tasks of lm-evaluation-harness, found and fetched first, then asked of base and tuned model.

The harness is an extra (`make benchmarks`); runner/report/harness.py is the part that imports it with torch. Nothing
is computed here: the numbers are the harness's.
"""

import contextlib
import difflib
import errno
import hashlib
import importlib.metadata
import json
import logging
import os
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner import bases
from runner.exports.sources import Source
from runner.fetch import causes
from runner.job import Attempt
from runner.report import ask
from spool.health import extras
from spool.protocol.errors import FinetunerError
from spool.protocol.home import Home
from spool.protocol.redact import redact

BASE_SHARE = 0.5
"""Of the time left, what the base may take: the tuned model takes as long."""
MOST_WHY = 300
OVER = "the time was over"


@dataclass(frozen=True)
class Ready:
    """Tasks whose data are here."""

    tasks: dict[str, Any]
    """Name -> what the harness has loaded: one task, or all of a group."""
    rows: int
    chat: bool


def ready(names: Sequence[str], rows: int, chat: bool, attempt: Attempt) -> Ready:
    """Finds the tasks and fetches their data, before anything is asked.

    Raises:
        FinetunerError: benchmarks_missing (the extra is not installed), benchmark_unknown, benchmark_failed,
            dataset_gated, dataset_missing, token_rejected, disk_full, hub_busy, no_network.
    """
    if command := extras.missing("benchmarks"):
        hint = f"Run `{command}` in the application's folder, then evaluate again."
        raise FinetunerError("benchmarks need lm-eval, which is not installed here.", hint, "benchmarks_missing")
    attempt.phase("fetching the benchmarks")
    # Its standard errors would be drawn by as many processes as the machine has cores, each a copy of this one.
    os.environ["DISABLE_MULTIPROC"] = "1"
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    manager = _manager(names, attempt.home)
    tasks = {}
    for name in names:
        attempt.phase(f"fetching the benchmark {name}")
        tasks[name] = _loaded(manager, name, attempt.home.benchmarks)
    return Ready(tasks, rows, chat)


def _manager(names: Sequence[str], home: Home) -> Any:
    """The harness's index, of this server's own tasks alone where that is enough: its own thousands take 10 s."""
    from lm_eval.tasks import TaskManager
    from lm_eval.tasks._index import Kind

    folder = home.benchmarks if home.benchmarks.is_dir() else None
    if folder:
        own = TaskManager(include_path=folder, include_defaults=False)
        index = own.task_index
        if all(name in index and index[name].kind in (Kind.TASK, Kind.PY_TASK) for name in names):
            return own
    manager = TaskManager(include_path=folder)
    for name in names:
        if name not in manager.task_index:
            near = difflib.get_close_matches(name, manager.all_tasks, 3)
            meant = f"Did you mean {' or '.join(near)}? " if near else ""
            hint = f"{meant}Tasks of your own are YAML files in {home.benchmarks}."
            raise FinetunerError(f"lm-eval knows no task {name!r}.", hint, "benchmark_unknown")
    return manager


def _loaded(manager: Any, name: str, folder: Path) -> Any:
    """A task with its data. Relative paths in a YAML file count from the folder of own tasks."""
    with _no_foreign_code() as refused, contextlib.chdir(folder if folder.is_dir() else "."):
        try:
            loaded = manager.load([name])
        except Exception as error:
            if not refused:
                raise in_words(name, error) from None
            loaded = {"tasks": {}}
    if refused:
        message = f"the benchmark {name} needs {', '.join(refused)}: code of the hub, which is never run here."
        raise FinetunerError(message, "Leave it out.", "benchmark_failed")
    for task in loaded["tasks"].values():
        if getattr(task, "UNSAFE_CODE", False) or getattr(task, "MULTIMODAL", False):
            why = "runs what a model has written" if getattr(task, "UNSAFE_CODE", False) else "asks about images"
            message = f"the benchmark {name} {why}, which is not done here."
            raise FinetunerError(message, "Leave it out.", "benchmark_failed")
    return loaded


@contextlib.contextmanager
def _no_foreign_code() -> Iterator[list[str]]:
    """Metrics that the harness does not know it would fetch from the hub, as programs, and run."""
    import evaluate

    refused: list[str] = []

    def refuse(path: Any = "", *_: Any, **__: Any) -> Any:
        refused.append(f"the metric {path}")
        raise RuntimeError(f"the metric {path} is code of the hub")

    given, evaluate.load = evaluate.load, refuse
    try:
        yield refused
    finally:
        evaluate.load = given


def in_words(name: str, error: Exception) -> FinetunerError:
    """Why a task or its data could not be had, by the first of the causes that says it."""
    import httpx
    from datasets.exceptions import DatasetNotFoundError
    from huggingface_hub import errors as hub

    offline = (hub.OfflineModeIsEnabled, hub.LocalEntryNotFoundError)
    unreachable = (ConnectionError, TimeoutError, httpx.TransportError, *offline)
    whose = f"the data of the benchmark {name}"
    terms = "Accept their terms on the hub, and set HF_TOKEN for the runner."
    for cause in causes(error):
        status = getattr(getattr(cause, "response", None), "status_code", None)
        if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT):
            hint = "Free some space (`finetuner doctor` shows what uses it), then retry."
            return FinetunerError(f"the disk is full: {whose} could not be stored.", hint, "disk_full")
        if isinstance(cause, hub.GatedRepoError) or (isinstance(cause, DatasetNotFoundError) and "gated" in str(cause)):
            return FinetunerError(f"{whose} are gated: their terms must be accepted first.", terms, "dataset_gated")
        if isinstance(cause, DatasetNotFoundError | hub.RepositoryNotFoundError | hub.RevisionNotFoundError):
            hint = "Check the task's dataset_path; private data need HF_TOKEN set for the runner."
            return FinetunerError(f"the hub does not have {whose}, or not for this runner.", hint, "dataset_missing")
        if status in (401, 403):
            hint = "Make a new token that may read them at https://huggingface.co/settings/tokens, set it as HF_TOKEN."
            return FinetunerError(f"the hub did not accept the token for {whose} ({status}).", hint, "token_rejected")
        if status == 429 or (status or 0) >= 500:
            return FinetunerError(f"the hub is busy ({status}) and did not send {whose}.", "Retry later.", "hub_busy")
    if any(isinstance(cause, unreachable) for cause in causes(error)):  # the last: `datasets` says so of any refusal
        hint = "Check the network, or name tasks of your own in the data home's benchmarks/."
        return FinetunerError(f"the hub cannot be reached to fetch {whose}.", hint, "no_network")
    if "scripts are no longer supported" in str(error):
        message = f"{whose} are made by code of the hub, which is never run here."
        return FinetunerError(message, "Leave it out.", "benchmark_failed")
    hint = "Look at the task and at what its YAML file names; the log has more."
    print(redact("".join(traceback.format_exception(error))), flush=True)
    return FinetunerError(f"the benchmark {name} cannot be used: {_told(error)}", hint, "benchmark_failed")


# ---- asking


def measure(chosen: Ready, source: Source, attempt: Attempt, deadline: float) -> dict[str, Any]:
    """What report.json has under `benchmarks`. What is not done by the deadline is left out, and named.

    Raises:
        FinetunerError: base or adapter cannot be loaded.
    """
    began = time.monotonic()
    left: dict[str, str] = {}
    base: dict[str, Any] = {}
    tuned: dict[str, Any] = {}
    used = 0
    if began < deadline:
        model = ask.load(source.base.folder)
        weights = bases.sha256(attempt.home, source.base.folder, attempt.pulse)
        until = time.monotonic() + (deadline - time.monotonic()) * BASE_SHARE
        for name in chosen.tasks:
            replies = _replies(attempt.home, weights, source.encoder.identity, name)
            base |= _asked(name, "base", chosen, model, source, attempt, until, left, replies)
            used += replies.used
        if base:
            model, _ = ask.tune(model, source.base.folder, source.training.adapter)
        for name in base:
            tuned |= _asked(name, "tuned", chosen, model, source, attempt, deadline, left, None)
    whole = [name for name in chosen.tasks if name in tuned]
    return {
        "by": f"lm-evaluation-harness {importlib.metadata.version('lm_eval')}",
        "rows": chosen.rows,
        "chat": chosen.chat,
        "lines": [line for name in whole for line in lines(name, base[name], tuned[name])],
        "left_out": [{"benchmark": name, "why": left.get(name, OVER)} for name in chosen.tasks if name not in whole],
        "base_cached": used,
        "seconds": round(time.monotonic() - began, 1),
    }


def _replies(home: Home, weights_sha256: str, tokens: str, name: str) -> Any:
    """What this base has replied to this benchmark, on hardware of this kind. By the requests' own words: a task whose
    rows have changed, or more of them, asks what is new."""
    import torch

    from runner.report.harness import Replies

    version = importlib.metadata.version("lm_eval")
    known = [weights_sha256, tokens, "lm-eval", version, name, torch.__version__, torch.cuda.is_available()]
    return Replies(home.base_answers / f"{hashlib.sha256(json.dumps(known).encode()).hexdigest()[:32]}.json")


def _asked(
    name: str,
    who: str,
    chosen: Ready,
    model: Any,
    source: Source,
    attempt: Attempt,
    until: float,
    left: dict[str, str],
    replies: Any,
) -> dict[str, Any]:
    """{name: what was measured}; empty, and why in `left`, where nothing was."""
    import torch

    from runner.report import harness

    attempt.phase(f"asking the {who} model {name}")
    how = (chosen.tasks[name], chosen.rows, chosen.chat, until, attempt.pulse, replies)
    try:
        with _no_foreign_code():
            return {name: harness.results(model, source.encoder, *how)}
    except harness.TimeOver:
        left[name] = f"{OVER} while the {who} model was asked"
    except torch.OutOfMemoryError:
        torch.cuda.empty_cache()
        left[name] = "there was not enough memory on the card"
    except Exception as error:  # whatever a task's own code raises: the rest of the report stands
        print(redact(traceback.format_exc()), flush=True)
        left[name] = f"it failed: {_told(error)}"
    return {}


def _told(error: BaseException) -> str:
    words = redact(" ".join(str(error).split()))[:MOST_WHY].rstrip(".")
    return f"{type(error).__name__}: {words}." if words else f"{type(error).__name__}."


def lines(name: str, base: dict[str, Any], tuned: dict[str, Any]) -> list[dict[str, Any]]:
    """One for each metric of a task; of a group its own ones, and where it has none those of all its tasks."""
    groups, tasks = base.get("groups") or {}, base["results"]
    shown = [name] if name in groups else [task for task in tasks if task not in groups]
    found = []
    for task in shown:
        of_base, of_tuned = ((each.get("groups") or {}).get(task) or each["results"][task] for each in (base, tuned))
        for key in of_base:
            metric, _, filtered = key.partition(",")
            if not filtered or metric.endswith("_stderr"):
                continue
            found.append(
                {
                    "benchmark": name,
                    "task": task,
                    "metric": metric,
                    "filter": filtered,
                    "base": _number(of_base.get(key)),
                    "tuned": _number(of_tuned.get(key)),
                    "base_stderr": _number(of_base.get(f"{metric}_stderr,{filtered}")),
                    "tuned_stderr": _number(of_tuned.get(f"{metric}_stderr,{filtered}")),
                    "higher_is_better": ((base.get("higher_is_better") or {}).get(task) or {}).get(metric),
                    "rows": _number(of_base.get("sample_len")),
                    "shots": (base.get("n-shot") or {}).get(task),
                    "version": (base.get("versions") or {}).get(task),
                }
            )
    return found


def _number(value: Any) -> float | int | None:
    """As JSON has it; the harness says "N/A" where it has none."""
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return None
    with contextlib.suppress(TypeError, ValueError):
        return int(value) if isinstance(value, int) else float(value)
    return None
