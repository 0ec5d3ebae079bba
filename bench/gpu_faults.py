"""Breaks real jobs of real daemons on one GPU and looks at what becomes of them: stops, kills, damage, a full card.

Run as: python -m bench.gpu_faults MODEL_FOLDER OUT.json [--only PART ...] [--steps 400]        (not part of CI)

Each part has a data home and a daemon of its own; they share the card and, but where a cold start is looked at, the
compile caches, and run side by side where none needs the card for itself. OUT.json is written after each part. Every
job but those that are too large is the same, with packed rows, so that its losses can be compared with those of an
undisturbed one. Parts without memory can be tried without a card.
"""

import argparse
import functools
import json
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from bench import gpu_card
from bench.gpu_stage import LARGEST_DIFFERENCE, Found, Lane, Stage, epoch, facts
from runner import checkpoint
from spool.health import heartbeat
from spool.protocol import durable, jobs, metrics
from spool.protocol.home import State
from spool.protocol.states import Tokens

OF_THE_CARD = {"gpu_util_pct", "gpu_mem_bytes", "gpu_power_w", "gpu_temp_c"}


def timeline(lane: Lane, job_id: str, dropped_at: float) -> Found:
    """Seconds since the drop at which each thing came first."""
    rows = [row for row in metrics.read(lane.home.run(job_id).metrics) if "loss" in row]
    came = {"attempt": epoch(lane.attempts(job_id)[0]["started_at"]), **lane.phases(job_id, 1)}
    came |= {f"step {row['step']}": row["t"] for row in rows if row["step"] in (1, 2, 3, 10)}
    came |= {"last step": rows[-1]["t"], "done": epoch(jobs.get_job(lane.home, job_id).ended_at or "")}
    return {"seconds_after_the_drop": {name: round(t - dropped_at, 1) for name, t in came.items()}}


def cold(stage: Stage) -> Found:
    """The undisturbed job, with empty compile caches."""
    stage.wait_for("card")
    lane = Lane(stage, "reference")
    shutil.rmtree(stage.root / "caches", ignore_errors=True)
    lane.start()
    dropped_at = time.time()
    job_id = lane.drop(name="undisturbed")
    result = lane.ended(job_id).result or {}
    spec = durable.read_json(lane.home.run(job_id).spec)
    assert spec["train"]["packing"] is True, spec
    if stage.card:
        assert (spec["precision"], spec["train"]["optimizer"]) == ("4bit", "adamw_8bit"), spec
        told = [row for row in metrics.read(lane.home.run(job_id).metrics) if "loss" in row]
        assert all(row.keys() >= OF_THE_CARD for row in told), "figures of the card are missing"
    curve = lane.losses(job_id)
    document = {
        "losses": curve,
        "eval_loss": result["eval_loss"],
        "adapter_sha256": lane.adapter_sha256(job_id),
    }
    durable.write_json(stage.root / "reference.json", document)
    silence_s = lane.longest_silence_s  # `warm` counts anew
    stage.events["reference"].set()
    losses = list(curve.values())
    return {
        **timeline(lane, job_id, dropped_at),
        "longest_silence_s": silence_s,
        "first_and_last_loss": [losses[0], losses[-1]],
        "eval_loss": result["eval_loss"],
        "peak_gpu_mem_bytes": result.get("peak_gpu_mem_bytes"),
        "spec": {"precision": spec["precision"], "train": spec["train"]},
    }


def warm(stage: Stage) -> Found:
    """The same job once more in the same home: compile caches are there. Shows how far two undisturbed runs differ."""
    stage.wait_for("reference")
    lane = next(each for each in stage.lanes if each.home.root.name == "reference")
    lane.longest_silence_s = 0.0
    dropped_at = time.time()
    job_id = lane.drop(name="undisturbed, warm")
    lane.ended(job_id)
    found = timeline(lane, job_id, dropped_at) | {"longest_silence_s": lane.longest_silence_s}
    found["daemon_exit_s"] = lane.stop()
    stage.events["warm"].set()
    return {**found, **stage.same(lane, job_id)}


def saving(lane: Lane, job_id: str, attempt: int) -> bool:
    """A checkpoint is being written that has no manifest yet."""
    folders = checkpoint.listed(lane.home.run(job_id).checkpoints)
    return any(not (each / checkpoint.MANIFEST).exists() for each in folders)


def evaluating(lane: Lane, job_id: str, attempt: int) -> bool:
    """The loss of a step that is evaluated stands there, and the evaluation's does not."""
    row = metrics.last(lane.home.run(job_id).metrics) or {}
    return row.get("attempt") == attempt and "loss" in row and row["step"] % (lane.stage.steps // 2) == 0


def stepping(lane: Lane, job_id: str, attempt: int) -> bool:
    return lane.step(job_id) >= lane.stage.steps // 8


def in_phase(lane: Lane, job_id: str, attempt: int, *names: str) -> bool:
    return not lane.phases(job_id, attempt).keys().isdisjoint(names)


STOPS: dict[str, Callable[[Lane, str, int], bool]] = {
    "importing": lambda *where: in_phase(*where, "loading the libraries"),
    "loading": lambda *where: in_phase(*where, "loading the model"),
    "compiling": lambda *where: in_phase(*where, "measuring what a step takes", "training"),
    "stepping": stepping,
    "saving": saving,
    "evaluating": evaluating,
    "exporting": lambda *where: in_phase(*where, "saving the adapter"),
}
"""In the order in which a job comes to them."""


def stopped(stage: Stage) -> Found:
    """SIGTERM to the daemon in each phase of one job, which finds no compiled kernels until it has made its own."""
    stage.wait_for("card")
    lane, job_id, found = Lane(stage, "stopped"), "", Found()
    for number, (phase, begun) in enumerate(STOPS.items(), 1):
        lane.start(**stage.caches(lane.home.root / "cold"))
        job_id = job_id or lane.drop(name="stopped")
        come = functools.partial(begun, lane, job_id, number)
        lane.wait(lambda: len(lane.attempts(job_id)) == number, 60, f"attempt {number}")  # noqa: B023
        lane.wait(lambda: come() or jobs.get_job(lane.home, job_id).ended, 120, phase, pause_s=0.002)  # noqa: B023
        time.sleep({"importing": 1.0, "compiling": stage.compile_s}.get(phase, 0.0))
        step = lane.step(job_id)
        exit_s = lane.stop()
        assert (lane.outcomes(job_id), queued(lane)) == (["interrupted"] * number, [job_id]), phase
        ended = lane.attempts(job_id)[-1]
        found[phase] = {"step": step, "exit_s": exit_s, "checkpoint_step": ended["checkpoint_step"]}
        stage.keep("stops", found)
    assert found["compiling"]["step"] == 0, "it had compiled already"
    assert found["stepping"]["checkpoint_step"] >= stage.steps // 8
    lane.start(**stage.caches(lane.home.root / "cold"))
    lane.ended(job_id)
    assert lane.outcomes(job_id) == ["interrupted"] * len(STOPS) + ["finished"]
    return stage.same(lane, job_id)


def queued(lane: Lane) -> list[str]:
    return [token.job_id for token in Tokens(lane.home).list(State.QUEUED)]


def stalled(stage: Stage) -> Found:
    """The trainer is frozen (SIGSTOP) with the least limits.stall_minutes."""
    stage.wait_for("card")
    lane = Lane(stage, "stalled")
    lane.start()
    job_id = lane.drop(name="stalled", limits={"stall_minutes": 3})
    lane.reaches(job_id, stage.steps * 5 // 8)
    os.kill(lane.trainers()[0], signal.SIGSTOP)
    began = time.monotonic()
    lane.wait(lambda: lane.outcomes(job_id)[0], 300, "the end of the frozen attempt")
    found = {"ended_after_s": round(time.monotonic() - began, 1), "attempt": lane.attempts(job_id)[0]}
    found["stack_dump"] = "Current thread 0x" in lane.home.run(job_id).log.read_text(errors="replace")
    lane.ended(job_id)
    assert lane.outcomes(job_id) == ["stalled", "finished"]
    return {**found, **stage.same(lane, job_id)}


def daemon_killed(stage: Stage) -> Found:
    """kill -9 of the daemon alone: the trainer lives on, the next daemon waits for it and takes its word."""
    stage.wait_for("reference", "warm")
    lane = Lane(stage, "daemon-killed")
    lane.start()
    job_id = lane.drop(name="its daemon is killed")
    behind = lane.drop(name="the one behind it", train={"max_steps": 2})
    lane.trains(job_id)
    trainer = lane.trainers()
    lane.kill()
    restarted_s = lane.start()
    lane.wait(lambda: heartbeat.read(lane.home).waiting_for, 10, "waiting_for")
    waiting_for = heartbeat.read(lane.home).waiting_for
    assert lane.trainers() == trainer, "the trainer did not live on"
    lane.ended(job_id)
    assert lane.outcomes(job_id) == ["finished"]
    lane.ended(behind)
    later_s = epoch(jobs.get_job(lane.home, job_id).ended_at or "") - lane.home.run(job_id).result.stat().st_mtime
    return {
        "restart_s": restarted_s,
        "waiting_for": waiting_for,
        "finalised_after_its_result_s": round(later_s, 1),
        "most_trainers": lane.most_trainers,
        **stage.same(lane, job_id),
    }


def both_killed(stage: Stage) -> Found:
    """kill -9 of daemon and trainer: nothing is left, the next daemon resumes."""
    stage.wait_for("reference", "warm")
    lane = Lane(stage, "both-killed")
    lane.start()
    job_id = lane.drop(name="broken off")
    break_off(lane, job_id)
    shutil.rmtree(stage.root / "broken", ignore_errors=True)
    shutil.copytree(lane.home.root, stage.root / "broken", symlinks=True)
    stage.events["broken"].set()
    began = time.time()
    lane.start()
    lane.wait(lambda: len(lane.attempts(job_id)) == 2, 60, "the second attempt")
    again_s = epoch(lane.attempts(job_id)[1]["started_at"]) - began
    lane.ended(job_id)
    assert lane.outcomes(job_id) == ["interrupted", "finished"]
    found = {"at_work_again_s": round(again_s, 2), "resume_step": lane.attempts(job_id)[1]["resume_step"]}
    assert found["resume_step"] == stage.steps // 2
    return {**found, **stage.same(lane, job_id)}


def break_off(lane: Lane, job_id: str) -> None:
    """kill -9 of the daemon and its trainer in mid-training."""
    lane.reaches(job_id, lane.stage.steps * 5 // 8)
    trainer = lane.trainers()[0]
    lane.kill()
    os.kill(trainer, signal.SIGKILL)
    lane.wait(lambda: not lane.trainers(), 10, "the trainer's end")


def dropout(stage: Stage) -> Found:
    """With dropout the losses hang on the card's random state as well: both killed, against an undisturbed job."""
    stage.wait_for("card")
    lane = Lane(stage, "dropout")
    lane.start()
    straight, job_id = (lane.drop(name=name, lora={"dropout": 0.1}) for name in ("undisturbed", "broken off"))
    lane.ended(straight)
    break_off(lane, job_id)
    lane.start()
    lane.ended(job_id)
    assert lane.outcomes(job_id) == ["interrupted", "finished"]
    there, here = lane.losses(straight), lane.losses(job_id)
    stage.wait_for("reference")
    plain = json.loads((stage.root / "reference.json").read_text())["losses"]
    assert here.keys() == there.keys()
    apart = max(abs(here[step] - there[step]) for step in there)
    assert apart <= LARGEST_DIFFERENCE, f"the losses are {apart} apart"
    return {
        "largest_loss_difference": apart,
        "adapter_is_the_same_bytes": lane.adapter_sha256(job_id) == lane.adapter_sha256(straight),
        "what_dropout_itself_moves": max(abs(plain[step] - there[step]) for step in there),
    }


CONTROL = "newest checkpoint gone"
DAMAGES: dict[str, tuple[str, Callable[[Path], Any]]] = {
    CONTROL: ("", shutil.rmtree),
    "optimizer missing": ("optimizer.pt", lambda path: path.unlink()),
    "optimizer cut in half": ("optimizer.pt", lambda path: os.truncate(path, path.stat().st_size // 2)),
    "adapter NUL-filled": ("adapter_model.safetensors", lambda path: path.write_bytes(bytes(path.stat().st_size))),
    "trainer state missing": ("trainer_state.json", lambda path: path.unlink()),
}


def damaged(stage: Stage, how: str) -> Found:
    """A file of the newest checkpoint is damaged: resumed from the one before, as a job that had no newer one is."""
    stage.wait_for("broken")
    lane = Lane(stage, how.replace(" ", "-"), copy_of=stage.root / "broken")
    job_id = os.listdir(lane.home.runs)[0]
    run = lane.home.run(job_id)
    before, newest = checkpoint.listed(run.checkpoints)[-2:]
    name, damage = DAMAGES[how]
    damage(newest / name)
    lane.start()
    lane.ended(job_id)
    events = metrics.read(run.events)
    assert f"training, from step {checkpoint.step_of(before)}" in [row.get("phase") for row in events]
    found = {"resumed_from": before.name, **stage.same(lane, job_id)}
    if how == CONTROL:
        durable.write_json(stage.root / "control.json", lane.losses(job_id))
        stage.events["control"].set()
        return found
    notes = lane.notes(job_id)
    assert len(notes) == 1, notes
    assert f"{newest.name} is not resumed from: {name} is" in notes[0], notes
    assert list(run.checkpoints.glob(f"{newest.name}.incomplete-*"))
    stage.wait_for("control")
    assert lane.losses(job_id) == json.loads((stage.root / "control.json").read_text()), "other losses than the control"
    return {"note": notes[0], **found}


PARTS: dict[str, Callable[[Stage], Found]] = {
    "foreign and memory": gpu_card.foreign_and_memory,
    "cold": cold,
    "warm": warm,
    "stopped": stopped,
    "stalled": stalled,
    "daemon killed": daemon_killed,
    "both killed": both_killed,
    "padded": gpu_card.padded,
    "too little": gpu_card.too_little,
    "dropout": dropout,
    **{how: functools.partial(damaged, how=how) for how in DAMAGES},
}
SETS = {"foreign and memory": "card", "cold": "reference", "warm": "warm", "both killed": "broken", CONTROL: "control"}


def one_part(stage: Stage, name: str) -> bool:
    passed = stage.part(name, functools.partial(PARTS[name], stage))
    if name in SETS:
        stage.events[SETS[name]].set()
    for lane in stage.lanes:
        if lane.part == threading.get_ident() and name != "cold":  # that one's home is `warm`'s too
            lane.close()
    return passed


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu_faults")
    parser.add_argument("model", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--root", type=Path, help="where the data homes lie; kept for a later call with --only")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--compile-s", type=float, default=8.0, help="how far into the first compile it is stopped")
    parser.add_argument("--share", type=float, default=0.1, help="of the card that jobs too large may use")
    parser.add_argument("--until-s", type=float, default=900, help="then all ends, and what was found stays")
    arguments = parser.parse_args()
    root = arguments.root or Path(tempfile.mkdtemp(prefix="faults-"))
    root.mkdir(parents=True, exist_ok=True)
    stage = Stage(root, arguments.model, arguments.out, arguments.steps, arguments.compile_s, arguments.share)
    stage.found |= facts("bench.gpu_faults")
    for part, event in SETS.items():
        if part not in arguments.only:
            stage.events[event].set()
    clock = threading.Timer(arguments.until_s, stage.ending.set)
    clock.start()
    try:
        with ThreadPoolExecutor(len(arguments.only)) as pool:
            passed = list(pool.map(functools.partial(one_part, stage), arguments.only))
    finally:
        clock.cancel()
        stage.ending.set()
        for lane in stage.lanes:
            lane.close()
    time.sleep(2)
    left = stage.unaccounted_bytes() - stage.baseline_bytes
    stage.keep("the card at the end", {"held_by_nobody_bytes": left})
    print(f"{sum(passed)} of {len(passed)} parts passed")
    return 0 if all(passed) and left < 200e6 else 1


if __name__ == "__main__":
    sys.exit(main())
