"""The data doctor beside the libraries it builds on: the structural check of a large JSONL file against the time that
`pandas.read_json(lines=True)` needs only to read it, and token counts against the tokenizer's own batch encoding.

Run as: python -m bench.data_check [--rows 1000000] [--model data/models/gemma-3-270m]   (goals: 0.5, 1 GB; 0.8)

Each figure is a ratio of two processes that ran one after the other in this run, in alternating pairs.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WORDS = """the of and to in is you that it he was for on are as with his they be at one have this from or had by hot but
some what there we can out other were all your when up use word how said an each she which do their time if will way
about many then them would write like so these her long make thing see him two has look more day could go come did my
sound no most number who over know water than call first people may down side been now find any new work part take get
Bestellung Rechnung größer Straße wäre für können Lieferung bitte morgen schön""".split()  # noqa: SIM905

STRUCTURE = """
import resource, sys, time
from pathlib import Path
from spool.data.judging import repeats
from spool.data.judging.scan import scan
if __name__ == "__main__":
    began = time.perf_counter()
    found = scan(Path(sys.argv[1]))
    repeats.compare(found)
    seconds = time.perf_counter() - began
    own, children = (resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    print(found.tally.rows, seconds, own + children * {processes})
"""
PANDAS = """
import resource, sys, time
import pandas
began = time.perf_counter()
rows = len(pandas.read_json(sys.argv[1], lines=True))
print(rows, time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
TOKENS = """
import sys, tempfile, time
from pathlib import Path
from spool.data.judging.chat import Encoder
from spool.data.judging.scan import examples, scan
from spool.data.judging.tokens import tokenise
if __name__ == "__main__":
    encoder = Encoder.for_model(Path(sys.argv[2]))
    found = scan(Path(sys.argv[1]))
    texts = [encoder._rendered(example) for example in examples(found)]
    seconds = []
    for turn in range(6):
        with tempfile.TemporaryDirectory() as folder:
            began = time.perf_counter()
            if turn % 2:
                tokens = int(tokenise(found, encoder, "responses", Path(folder) / "x").lengths.sum())
            else:
                encodings = encoder.tokenizer.encode_batch(texts, add_special_tokens=False)
                del encodings
            seconds.append(time.perf_counter() - began)
    library, ours = seconds[0::2], seconds[1::2]
    print(len(texts), tokens, min(library), min(ours))
"""


def make_file(path: Path, rows: int) -> None:
    """Rows of about 1 kB: two texts of sentences, no two alike."""
    draw = random.Random(1)
    pool = [" ".join(draw.choices(WORDS, k=draw.randint(70, 95))) + "." for _ in range(20_000)]
    with open(path, "w", encoding="utf-8") as file:
        for number in range(rows):
            asked = f"{' '.join(draw.choices(WORDS, k=6))} {draw.choice(pool)}?"
            answered = f"{draw.choice(pool)} {' '.join(draw.choices(WORDS, k=6))} {number}."
            file.write(json.dumps({"prompt": asked, "completion": answered}, ensure_ascii=False) + "\n")


def run(code: str, *arguments: str) -> list[float]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with tempfile.NamedTemporaryFile("w", suffix=".py") as script:
        script.write(code)
        script.flush()
        command = [sys.executable, script.name, *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return [float(each) for each in done.stdout.split()]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--token-rows", type=int, default=8_000)
    parser.add_argument("--model", default=str(ROOT / "data" / "models" / "gemma-3-270m"))
    arguments = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        make_file(path, arguments.rows)
        size_gb = path.stat().st_size / 1e9
        pairs = []
        for _ in range(arguments.pairs):
            ours, pandas = run(STRUCTURE.replace("{processes}", str(cores)), str(path)), run(PANDAS, str(path))
            assert ours[0] == pandas[0] == arguments.rows
            pairs.append((ours, pandas))
            print(f"check {ours[1]:.1f} s, {ours[2] / 1e6:.2f} GB; pandas {pandas[1]:.1f} s, {pandas[2] / 1e6:.2f} GB")
        make_file(path, arguments.token_rows)
        rows, tokens, library, tokenised = run(TOKENS, str(path), arguments.model)
    ratios = [ours[1] / pandas[1] for ours, pandas in pairs]
    result = {
        "rows": arguments.rows,
        "size_gb": round(size_gb, 3),
        "cores": cores,
        "check_s": [round(ours[1], 2) for ours, _ in pairs],
        "pandas_s": [round(pandas[1], 2) for _, pandas in pairs],
        "check_to_pandas": round(statistics.median(ratios), 3),
        "check_gb": round(max(ours[2] for ours, _ in pairs) / 1e6, 3),
        "token_rows": int(rows),
        "tokens_per_s": round(tokens / tokenised),
        "tokenizer_alone_tokens_per_s": round(tokens / library),
        "token_speed_to_tokenizer": round(library / tokenised, 3),
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
