"""llama.cpp reading a GGUF for the certificate, in a process of its own: it aborts on a damaged file.

Run as: python -m runner.exports.llama MODEL.gguf THREADS [LORA.gguf]      (runner/exports/readers.py does;
runner/exports/serving.py says what it is asked)
"""

import json
import os
import sys
import urllib.request
from typing import Any

from runner.exports.serving import serve

LIKELIEST = 200
"""Tokens whose probabilities are asked for at each place; all of them where the true token is not among these."""
EVERY = 1 << 20
LONGEST_TOKENS = 4096


class Llama:
    """One GGUF, loaded. The library serves HTTP on a port of this machine; the key keeps others out."""

    def __init__(self, model: str, threads: int, lora: str | None) -> None:
        import xllamacpp

        self.key = os.urandom(16).hex()
        params = xllamacpp.CommonParams()
        params.model.path = model
        if lora:
            params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(lora, 1.0)]
        params.n_ctx = LONGEST_TOKENS
        params.n_parallel = 1
        params.n_gpu_layers = 0
        params.cpuparams.n_threads = threads
        params.cpuparams_batch.n_threads = threads
        params.swa_full = True  # else a sliding window's cache cannot be taken up again, and each place costs a prompt
        params.warmup = False
        params.use_jinja = True
        params.api_keys = [self.key]
        self.server = xllamacpp.Server(params)

    def read(self, ids: list[int], tokens: list[int]) -> list[dict[str, Any]]:
        """Says on by itself as long as it says the true tokens, and is put right where it does not."""
        places: list[dict[str, Any]] = []
        while len(places) < len(tokens):
            done = len(places)
            for said, likeliest in self._say([*ids, *tokens[:done]], len(tokens) - done, LIKELIEST):
                true = tokens[len(places)]
                if true not in likeliest:
                    _, likeliest = self._say([*ids, *tokens[: len(places)]], 1, EVERY)[0]
                places.append({"of": likeliest[true], "likeliest": list(likeliest.items())[:LIKELIEST]})
                if said != true:
                    break
        return places

    def _say(self, ids: list[int], count: int, likeliest: int) -> list[tuple[int, dict[int, float]]]:
        """(token, {token: logarithmic probability}) at each place, at least one."""
        asked = {"prompt": ids, "n_predict": count, "temperature": 0, "n_probs": likeliest, "cache_prompt": True}
        answer = self._ask("completion", {**asked, "return_tokens": True, "ignore_eos": False})
        found = []
        for place in answer["completion_probabilities"]:
            found.append((place["id"], {each["id"]: each["logprob"] for each in place["top_logprobs"]}))
        return found

    def chat(self, messages: list[dict[str, Any]], tokens: int) -> dict[str, Any]:
        text = self._ask("apply-template", {"messages": messages})["prompt"]
        ids = self._ask("tokenize", {"content": text, "add_special": True, "parse_special": True})["tokens"]
        said = self._ask(
            "v1/chat/completions", {"messages": messages, "max_tokens": tokens, "temperature": 0, "cache_prompt": False}
        )
        choice = said["choices"][0]
        return {
            "ids": ids,
            "prompt_tokens": said["usage"]["prompt_tokens"],
            "text": choice["message"].get("content") or "",
            "tokens": said["usage"]["completion_tokens"],
            "stopped": choice["finish_reason"] == "stop",
        }

    def _ask(self, path: str, document: dict[str, Any]) -> Any:
        request = urllib.request.Request(
            f"{self.server.listening_address}/{path}",
            json.dumps(document).encode(),
            {"Content-Type": "application/json", "Authorization": f"Bearer {self.key}"},
        )
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with direct.open(request, timeout=600) as answer:
            return json.load(answer)


if __name__ == "__main__":
    sys.exit(serve(lambda: Llama(sys.argv[1], int(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else None)))
