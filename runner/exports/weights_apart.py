"""transformers reading weights for the certificate, in a process of another environment than the job's.

Run as: .venv-gptq/bin/python -m runner.exports.weights_apart FOLDER      (runner/exports/gptq.py does;
runner/exports/serving.py says what it is asked)
"""

import sys
from pathlib import Path
from typing import Any

from runner.exports.readers import DoesNotLoad, Weights
from runner.exports.serving import serve

LIKELIEST = 200
"""Tokens that are told at each place; a certificate looks at no more than the adapter's 64."""


class Told:
    """A folder of weights, in the words of runner/exports/serving.py."""

    def __init__(self, folder: Path) -> None:
        try:
            self.reader = Weights.at(folder)
        except DoesNotLoad as error:
            sys.exit(f"error: {error.message}")

    def read(self, ids: list[int], tokens: list[int]) -> list[dict[str, Any]]:
        places = self.reader.read(ids, tokens)
        rows = zip(places.of.tolist(), places.ids.tolist(), places.logs.tolist(), strict=True)
        return [
            {"of": of, "likeliest": list(zip(known[:LIKELIEST], logs[:LIKELIEST], strict=True))}
            for of, known, logs in rows
        ]

    def chat(self, messages: list[dict[str, Any]], tokens: int) -> dict[str, Any]:
        said = self.reader.chat(messages, tokens)
        told = {"text": said.text, "tokens": said.tokens, "stopped": said.stopped}
        return {"ids": said.ids, "prompt_tokens": len(said.ids), **told}


if __name__ == "__main__":
    sys.exit(serve(lambda: Told(Path(sys.argv[1]))))
