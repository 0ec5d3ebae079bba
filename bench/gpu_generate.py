"""Answers on a GPU: sample answers while training, a list of prompts, and a chat that makes room for a training.

Run as: python -m bench.gpu_generate MODEL_FOLDER OUT.json [--steps 60]        (needs CUDA; not part of CI)

One real daemon, one job after the other. What must hold is asserted: with and without samples the losses are the
same, every prompt is answered by all, a training that is dropped beside an open chat starts, and the card is empty
at the end.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.gpu_stage import LARGEST_DIFFERENCE, Found, Lane, Stage, epoch, facts
from spool.protocol import asks, dropbox, durable, jobs, metrics
from spool.protocol.asks import Answers

QUESTION = "Hello, my parcel from order T-2210 has not arrived and I need it by Friday. What can you do?"
ROWS = 60


def trained(lane: Lane, name: str, prompts: Any) -> str:
    """A training with an evaluation each third of it; gives its id when it is done."""
    every = max(1, lane.stage.steps // 3)
    job_id = lane.drop(name=name, data={"eval_fraction": 0.1}, eval={"every_steps": every, "sample_prompts": prompts})
    lane.ended(job_id)
    return job_id


def course_s(lane: Lane, job_id: str) -> float:
    """From the first step to the end of the last evaluation: what samples add to."""
    rows = metrics.read(lane.home.run(job_id).metrics)
    return round(rows[-1]["t"] - rows[0]["t"], 2)


def samples(lane: Lane) -> tuple[str, Found]:
    """The same training with sample answers and without, each twice, after one that compiles."""
    asked = "auto" if lane.stage.card else [QUESTION]
    trained(lane, "compiles", asked)
    runs = {name: [trained(lane, name, prompts) for _ in range(2)] for name, prompts in
            (("with samples", asked), ("without", []))}  # fmt: skip
    curves = [lane.losses(job_id) for each in runs.values() for job_id in each]
    assert all(curve.keys() == curves[0].keys() for curve in curves)
    apart = max(abs(curve[step] - loss) for curve in curves for step, loss in curves[0].items())
    assert apart <= LARGEST_DIFFERENCE, f"sample answers changed what was learned: losses are {apart} apart"
    with_samples = runs["with samples"][0]
    rows = metrics.read(lane.home.run(with_samples).samples)
    assert 0 in {row["step"] for row in rows}, "the base is answered"
    steps_s = [row["step_time_s"] for row in metrics.read(lane.home.run(with_samples).metrics) if "step_time_s" in row]
    return with_samples, {
        "from_first_to_last_row_s": {name: [course_s(lane, each) for each in ids] for name, ids in runs.items()},
        "sampled_at_steps": sorted({row["step"] for row in rows}),
        "answers": len(rows),
        "answer_tokens": sum(row["tokens"] for row in rows),
        "median_step_s": sorted(steps_s)[len(steps_s) // 2],
        "largest_loss_difference": apart,
        "an_answer_before_and_after": [rows[0]["answer"], rows[-1]["answer"]],
    }


def listed(lane: Lane, training: str) -> Found:
    """Rows that were kept for evaluation, answered by the base and the training side by side."""
    dataset = "examples/support_tickets.jsonl"
    began = time.time()
    spec = {"schema": 1, "kind": "generate", "job": training, "dataset": dataset, "rows": ROWS, "max_new_tokens": 96}
    job_id = dropbox.submit(lane.home, {**spec, "temperature": 0})
    job = lane.ended(job_id)
    answers = [row for row in metrics.read(lane.home.run(job_id).answers) if "text" in row]
    per = {who: sum(row["who"] == who for row in answers) for who in ("base", training)}
    assert per["base"] == per[training] > 0, per
    right = sum(row["text"].strip() == (row["reference"] or "").strip() for row in answers if row["who"] == training)
    return {
        "prompts": per["base"],
        "seconds_from_drop_to_end": round(time.time() - began, 1),
        "result": job.result,
        "exactly_the_reference": right,
    }


class Chat:
    """An open session and what it has said."""

    def __init__(self, lane: Lane, training: str) -> None:
        self.lane, self.who = lane, ["base", training]
        self.began = time.time()
        self.job_id = asks.open_session(lane.home, {"job": training, "idle_minutes": 5})
        self.answers = Answers(lane.home, self.job_id)

    def ready_s(self) -> float:
        """Seconds from opening to the first moment at which it can be asked."""
        rows = self.lane.home.run(self.job_id).answers
        self.lane.wait(lambda: any(row.get("ready") for row in metrics.read(rows)), 300, "the chat")
        return round(time.time() - self.began, 1)

    def ask(self) -> Found:
        began = time.time()
        ask_id = asks.ask(
            self.lane.home, self.job_id, [{"role": "user", "content": QUESTION}], self.who, max_new_tokens=128
        )
        self.lane.wait(lambda: self.answers.read() and bool(self.answers.of(ask_id)), 120, "a first word")
        first_s = time.time() - began

        def told() -> bool:
            self.answers.read()
            return self.answers.finished(ask_id, self.who)

        self.lane.wait(told, 120, "the answer's end")
        took_s = time.time() - began
        tokens = sum(each.tokens or 0 for each in self.answers.of(ask_id))
        return {"first_words_s": round(first_s, 2), "all_s": round(took_s, 2), "tokens": tokens}


def chat(lane: Lane, training: str) -> Found:
    """Five questions to a chat; then a training is dropped, which it makes room for."""
    session = Chat(lane, training)
    found: Found = {"ready_s": session.ready_s(), "asked": [session.ask() for _ in range(5)]}
    dropped_at = time.time()
    job_id = lane.drop(name="beside a chat", train={"max_steps": 10})
    lane.wait(lambda: lane.home.run(job_id).metrics.exists(), 300, "the training's first row")
    ended = jobs.get_job(lane.home, session.job_id)
    assert (ended.state, (ended.result or {}).get("ended_by")) == ("done", "made_room"), ended
    started = epoch(lane.attempts(job_id)[0]["started_at"])
    found["room_made"] = {
        "training_started_s_after_its_drop": round(started - dropped_at, 1),
        "first_row_s_after_its_drop": round(metrics.read(lane.home.run(job_id).metrics)[0]["t"] - dropped_at, 1),
    }
    again = Chat(lane, training)  # opened while the training has the card: it waits its turn
    lane.ended(job_id)
    trained_until = epoch(jobs.get_job(lane.home, job_id).ended_at or "")
    again.ready_s()
    found["opened_beside_a_training"] = {"ready_s_after_its_end": round(time.time() - trained_until, 1)}
    dropbox.control(lane.home, "cancel", again.job_id)
    lane.wait(lambda: jobs.get_job(lane.home, again.job_id).ended, 60, "the end of the chat")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu_generate")
    parser.add_argument("model", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=60)
    arguments = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="generate-"))
    stage = Stage(root, arguments.model, arguments.out, arguments.steps, 0, 0)
    stage.found |= facts("bench.gpu_generate")
    lane = Lane(stage, "home")
    try:
        lane.start()
        training, found = samples(lane)
        stage.keep("samples while training", found)
        stage.keep("a list of prompts", listed(lane, training))
        stage.keep("a chat", chat(lane, training))
        stage.keep("the daemon's end", {"stopped_s": lane.stop()})
    finally:
        stage.ending.set()
        lane.close()
    time.sleep(2)
    left = stage.unaccounted_bytes() - stage.baseline_bytes
    stage.keep("the card at the end", {"held_by_nobody_bytes": left})
    durable.write_json(stage.out, stage.found)
    return 0 if left < 200e6 else 1


if __name__ == "__main__":
    sys.exit(main())
