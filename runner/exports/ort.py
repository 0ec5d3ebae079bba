"""onnxruntime reading an ONNX model with its KV cache, and onnxruntime-genai talking to it, for the certificate.

Run as: python -m runner.exports.ort FOLDER      (runner/exports/onnx.py does; runner/exports/serving.py says what
it is asked)

Two programs, because people use both: onnxruntime itself, which takes the graph and nothing else, and
onnxruntime-genai, which takes template, tokenizer and stop tokens from the files beside it.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from runner.exports.serving import serve

LIKELIEST = 200
CHUNK_TOKENS = 256
"""Of a prompt in one go: the graph says what follows each of its tokens, a row of the whole vocabulary."""

Cache = dict[str, np.ndarray]


class Ort:
    def __init__(self, folder: Path) -> None:
        import onnxruntime

        self.folder = folder
        decoder = json.loads((folder / "genai_config.json").read_text())["model"]["decoder"]
        self.head_size = decoder["head_size"]
        self.session = onnxruntime.InferenceSession(
            str(folder / decoder["filename"]), providers=["CPUExecutionProvider"]
        )
        self.cached = {each.name: each.shape[1] for each in self.session.get_inputs() if "past" in each.name}
        self.outputs = [each.name for each in self.session.get_outputs()]
        self.genai: Any = None

    def read(self, ids: list[int], tokens: list[int], step: int = 0) -> list[dict[str, Any]]:
        """Prompt and tokens through one cache; `step` tokens in one go, else all of them."""
        cache: Cache = {}
        for some in _split(ids, CHUNK_TOKENS):
            logits, cache = self._after(some, cache)
        rows = [logits[-1:]]
        for some in _split(tokens[:-1], step or len(tokens)):
            logits, cache = self._after(some, cache)
            rows.append(logits)
        return [_place(row, token) for row, token in zip(np.concatenate(rows), tokens, strict=True)]

    def _after(self, ids: list[int], cache: Cache) -> tuple[np.ndarray, Cache]:
        """(logits after each of these tokens, the cache with them in it)."""
        before = next(iter(cache.values())).shape[2] if cache else 0
        empty = {name: np.zeros((1, heads, 0, self.head_size), np.float32) for name, heads in self.cached.items()}
        asked = {
            "input_ids": np.array([ids], np.int64),
            "attention_mask": np.ones((1, before + len(ids)), np.int64),
            **(cache or empty),
        }
        found = dict(zip(self.outputs, self.session.run(self.outputs, asked), strict=True))
        logits = found.pop("logits")[0]
        return logits, {name.replace("present", "past_key_values"): each for name, each in found.items()}

    def chat(self, messages: list[dict[str, Any]], tokens: int) -> dict[str, Any]:
        import onnxruntime_genai

        if self.genai is None:
            self.session = None  # the model is held once
            self.genai = onnxruntime_genai.Model(str(self.folder))
        tokenizer = onnxruntime_genai.Tokenizer(self.genai)
        text = tokenizer.apply_chat_template(json.dumps(messages), add_generation_prompt=True)
        ids = tokenizer.encode(text).tolist()
        settings = onnxruntime_genai.GeneratorParams(self.genai)
        settings.set_search_options(max_length=len(ids) + tokens, do_sample=False)
        generator = onnxruntime_genai.Generator(self.genai, settings)
        generator.append_tokens(ids)
        count = 0
        while not generator.is_done():
            generator.generate_next_token()
            count += 1
        said = generator.get_sequence(0)[len(ids) :]
        return {
            "ids": ids,
            "prompt_tokens": len(ids),
            "text": tokenizer.decode(said),
            "tokens": count,
            "stopped": count < tokens,
        }


def _split(ids: list[int], size: int) -> Iterator[list[int]]:
    return (ids[start : start + size] for start in range(0, len(ids), size))


def _place(logits: np.ndarray, token: int) -> dict[str, Any]:
    from_top = (logits - logits.max()).astype(np.float64)
    logs = from_top - np.log(np.exp(from_top).sum())
    known = np.argpartition(-logs, LIKELIEST)[:LIKELIEST] if len(logs) > LIKELIEST else np.arange(len(logs))
    known = known[np.argsort(-logs[known], kind="stable")]
    return {"of": float(logs[token]), "likeliest": [[int(i), float(logs[i])] for i in known]}


if __name__ == "__main__":
    sys.exit(serve(lambda: Ort(Path(sys.argv[1]))))
