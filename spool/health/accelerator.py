"""The GPU for doctor: what it is, what is free of it, who else uses it, and the card that is missed."""

from pathlib import Path

from spool.health import environment, processes
from spool.health.finding import Finding
from spool.health.gpu import Gpu, Values
from spool.health.heartbeat import Heartbeat
from spool.protocol import durable
from spool.protocol.home import Home
from spool.protocol.settings import Settings

GIB = 1 << 30


def examine(home: Home, gpu: Gpu, options: Settings, beat: Heartbeat) -> list[Finding]:
    build, card = environment.torch_build(), gpu.describe()
    missed = _missed(home, gpu, card, beat)
    if missed is not None:
        return [missed]
    if not card:
        return [_none(gpu, build)]
    total, free = card.get("mem_total_bytes", 0), card.get("mem_free_bytes", 0)
    count = card.get("count", 1)
    message = f"{card.get('name', 'a GPU')}{f' (one of {count})' if count > 1 else ''}"
    message += f", driver {card.get('driver', 'unknown')}, {free / GIB:.1f} of {total / GIB:.1f} GiB free."
    findings = [Finding("gpu", "ok", message)]
    if build == "cpu":
        cure = "Remove .venv, install a CUDA torch in a new one, then run `make setup`."
        findings.append(Finding("gpu", "warn", "torch is a CPU build: training will not use the GPU.", cure))
    return findings + _foreign(home, card, options, beat.current_job is not None)


def _none(gpu: Gpu, build: environment.Build | None) -> Finding:
    why = f" ({gpu.problem})" if gpu.problem else ""
    message = f"no GPU to be seen{why}: training will run on the CPU."
    if build != "gpu":
        return Finding("gpu", "ok", message)
    cure = "If there is one: see `nvidia-smi`, the driver, CUDA_VISIBLE_DEVICES, and that the container was given it."
    return Finding("gpu", "warn", message, cure)


def _missed(home: Home, gpu: Gpu, card: Values, beat: Heartbeat) -> Finding | None:
    """The card that the runner saw last (runner/card.py), where it is not there any more."""
    try:
        seen = durable.read_json(home.card_json)
    except (OSError, ValueError):
        return None
    if not isinstance(seen, dict) or not isinstance(seen.get("count"), int):
        return None
    if "uuid" in card and card.get("count", 0) >= seen["count"]:
        return None
    if gpu.visible is not None and gpu.visible.partition(",")[0].strip() in ("", "-1", "none", "NoDevFiles"):
        return None  # hidden from this shell on purpose
    if "uuid" not in card and beat.alive and not beat.halted and not any(Path("/dev").glob("nvidia[0-9]*")):
        # the web app's unit is given no card, on purpose; the runner halts by itself where its card is gone
        return Finding("gpu", "ok", f"{seen.get('name') or 'a GPU'}: the runner has it, this account does not see it.")
    why = f" ({gpu.problem})" if gpu.problem else ""
    message = f"{seen.get('name') or 'a GPU'} was here and cannot be used now{why}: the runner holds the queue."
    if "uuid" in card:
        message = f"{card['count']} of {seen['count']} GPUs are left: the runner holds the queue."
    cure = f"See `nvidia-smi` and `dmesg`; reboot. Was it taken out for good? Then delete {home.card_json}."
    return Finding("gpu", "fail", message, cure)


def _foreign(home: Home, card: Values, options: Settings, job_runs: bool) -> list[Finding]:
    """Others on the card. While a job runs, a process that cannot be told from the job's own is passed over."""
    found = [(processes.look(home, each["pid"]), each["mem_bytes"] or 0) for each in card.get("processes") or []]
    others = [(who, used) for who, used in found if who.ours is False or (who.ours is None and not job_runs)]
    if not others:
        return []
    others.sort(key=lambda each: -each[1])
    total = sum(used for _, used in others)
    named = ", ".join(f"{who} {used / 1e9:.1f} GB" for who, used in others[:4])
    more = f" and {len(others) - 4} more" if len(others) > 4 else ""
    message = f"{len(others)} foreign process(es) hold {total / 1e9:.1f} GB of the card: {named}{more}."
    if total > options.gpu_foreign_gb * 1e9:
        cure = f"Ask them to end: above {options.gpu_foreign_gb:g} GB (gpu_foreign_gb in settings.json) jobs wait."
        return [Finding("gpu", "warn", message, cure)]
    return [Finding("gpu", "ok", message)]
