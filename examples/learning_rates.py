"""A night's sweep by files alone: four learning rates, one job each, then the best adapter. Python without packages.

Run as: python3 examples/learning_rates.py HOME JOB.json NIGHT        (NIGHT: any word, such as 2026-11-23)
Exit codes: 0 there is a best one, 1 none of them was finished, 2 the arguments are wrong.

The same NIGHT again starts nothing anew: it waits for the jobs of that night and tells the same.
"""

import hashlib
import json
import sys
import time
from pathlib import Path

RATES = (1e-4, 2e-4, 5e-4, 1e-3)
LOOK_S = 2
ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def main() -> int:
    if len(sys.argv) != 4:
        print(__doc__, file=sys.stderr)
        return 2
    home, spec, night = Path(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text()), sys.argv[3]
    if not (home / "spool" / "incoming").is_dir():
        print(f"{home} is no data home: start the runner on it once.", file=sys.stderr)
        return 2
    jobs = {}
    for rate in RATES:
        job_id = job_id_of(f"{night} {rate:g}")
        train = {**spec.get("train", {}), "learning_rate": rate}
        drop(home, job_id, {**spec, "name": f"{night}, rate {rate:g}", "train": train})
        jobs[job_id] = rate
    ends = {job_id: wait(home, job_id) for job_id in jobs}
    for job_id, end in ends.items():
        print(f"{job_id}  {jobs[job_id]:<8g}{end['state']:<11}{words(end)}")
    finished = [job_id for job_id, end in ends.items() if end["state"] == "done"]
    if not finished:
        return 1
    best = min(finished, key=lambda job_id: loss(ends[job_id]["result"]))
    print(home / ends[best]["result"]["adapter"])
    return 0


def job_id_of(text: str) -> str:
    """An id of our own choice, the same for the same text: 26 of the letters that an id may have, the first 0 to 7."""
    number = int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "big")
    return "".join(ALPHABET[number >> shift & 31] for shift in range(125, -1, -5))


def drop(home: Path, job_id: str, spec: dict) -> None:
    """Writes beside and renames: what ends in .tmp is never taken. What is known already is not dropped again, and the
    submission_id keeps it one job should we have looked at the wrong moment."""
    drop = home / "spool" / "incoming" / f"{job_id}.json"
    taken = [drop, home / "runs" / job_id, home / "spool" / "rejected" / job_id]
    if not any(path.exists() for path in taken):
        half = drop.with_suffix(".tmp")
        half.write_text(json.dumps({**spec, "submission_id": job_id}))
        half.rename(drop)


def wait(home: Path, job_id: str) -> dict:
    """What became of a job. One of two files says so, and neither is written before the end."""
    run, rejected = home / "runs" / job_id, home / "spool" / "rejected" / job_id / "reason.json"
    while True:
        if (run / "outcome.json").exists():
            end = json.loads((run / "outcome.json").read_text())
            if end["state"] == "done":
                end["result"] = json.loads((run / "result.json").read_text())["result"]
            return end
        if rejected.exists():
            return {"state": "rejected", "error": json.loads(rejected.read_text())}
        time.sleep(LOOK_S)


def words(end: dict) -> str:
    if end["state"] == "done":
        kind = "training loss" if end["result"]["eval_loss"] is None else "eval loss"
        return f"{kind} {loss(end['result']):.4f}"
    error = end.get("error") or {}
    return " ".join(error[part] for part in ("message", "hint") if error.get(part))


def loss(result: dict) -> float:
    """The eval loss tells runs apart; where no rows are kept apart (data.eval_fraction 0) the training loss must do."""
    return result["final_loss"] if result["eval_loss"] is None else result["eval_loss"]


if __name__ == "__main__":
    sys.exit(main())
