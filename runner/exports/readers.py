"""Who reads an export for its certificate: transformers a folder of weights, llama.cpp a GGUF.

Each says how probable it finds the tokens of a text, every place seen after the true tokens before it, so that one
early difference does not make all that follows incomparable.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from spool.protocol.errors import FinetunerError

NO_GPU = {"CUDA_VISIBLE_DEVICES": ""}
LIKELIEST = 1000
"""Tokens that are told at each place of a model's own weights."""


class DoesNotLoad(FinetunerError):
    """The program that people will use cannot open the export."""

    default_code = "does_not_load"


@dataclass(frozen=True)
class Places:
    """What a reader expects at each of n places: natural logarithms of probabilities, NaN where it is not known."""

    of: np.ndarray
    """(n,): of the true token."""
    best: np.ndarray
    """(n,): the likeliest token."""
    ids: np.ndarray
    """(n, k): tokens whose probabilities are known, the likeliest first."""
    logs: np.ndarray
    """(n, k): theirs."""

    def __getitem__(self, which: slice) -> "Places":
        return Places(self.of[which], self.best[which], self.ids[which], self.logs[which])

    def at(self, wanted: np.ndarray) -> np.ndarray:
        """(n, m) probabilities, of the tokens in (n, m) `wanted`."""
        found = np.full(wanted.shape, np.nan, np.float64)
        for i, (ids, logs) in enumerate(zip(self.ids, self.logs, strict=True)):
            known = dict(zip(ids.tolist(), logs.tolist(), strict=True))
            found[i] = [known.get(token, np.nan) for token in wanted[i].tolist()]
        return found


@dataclass(frozen=True)
class Said:
    """What came of a message through the export's own chat template and tokenizer."""

    ids: list[int]
    """The prompt."""
    text: str
    tokens: int
    stopped: bool
    """It ended its answer by itself."""


class Reader(Protocol):
    def read(self, ids: list[int], tokens: list[int]) -> Places:
        """What it expects at each place of `tokens` after the prompt `ids`."""

    def chat(self, messages: list[dict[str, Any]], tokens: int) -> Said:
        """What it answers to messages, as somebody who knows nothing of the training would ask it."""

    def close(self) -> None: ...


def read(reader: Reader, ids: list[int], said: list[int], expected: list[int]) -> tuple[Places, np.ndarray]:
    """(what is expected at each place of `said`, the logarithmic probabilities of `expected`); read once where the
    data's answer begins with what was said."""
    if expected[: len(said)] == said:
        places = reader.read(ids, expected)
        return places[: len(said)], places.of
    return reader.read(ids, said), reader.read(ids, expected).of if expected else np.empty(0)


class Weights:
    """A folder of weights, or a model that is loaded already, by transformers."""

    def __init__(self, model: Any, folder: Path | None = None) -> None:
        self.model = model
        self.folder = folder
        self._tokenizer: Any = None

    @classmethod
    def at(cls, folder: Path, adapter: Path | None = None) -> "Weights":
        """Raises DoesNotLoad."""
        import torch
        from peft import PeftModel
        from transformers import AutoModelForCausalLM

        try:
            model, told = AutoModelForCausalLM.from_pretrained(
                str(folder),
                dtype=torch.bfloat16,
                device_map={"": 0 if torch.cuda.is_available() else "cpu"},
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                output_loading_info=True,
            )
        except Exception as error:
            raise DoesNotLoad(f"transformers cannot load it: {str(error)[:300]}") from None
        lacking = sorted(told["missing_keys"]) + sorted(told["unexpected_keys"])
        if lacking:
            raise DoesNotLoad(f"its weights are not those of its config.json: {', '.join(lacking[:3])} ...")
        if adapter is None:
            return cls(model.eval(), folder)
        try:
            return cls(PeftModel.from_pretrained(model, str(adapter), local_files_only=True).eval(), adapter)
        except Exception as error:
            raise DoesNotLoad(f"PEFT cannot load it: {str(error)[:300]}") from None

    def read(self, ids: list[int], tokens: list[int]) -> Places:
        import torch

        from runner.answer import folded

        everything = torch.tensor([[*ids, *tokens[:-1]]], device=self.model.device)
        with torch.no_grad(), folded(self.model):
            logits = self.model(input_ids=everything, logits_to_keep=len(tokens)).logits[0].float()
        logs = torch.log_softmax(logits, -1)
        of = logs.gather(1, torch.tensor(tokens, device=logs.device)[:, None])[:, 0]
        top = logs.topk(min(LIKELIEST, logs.shape[-1]))
        likeliest, values = top.indices.cpu().numpy(), top.values.double().cpu().numpy()
        return Places(of.double().cpu().numpy(), likeliest[:, 0], likeliest, values)

    def chat(self, messages: list[dict[str, Any]], tokens: int) -> Said:
        import torch
        from transformers import AutoTokenizer, GenerationConfig

        if self._tokenizer is None:
            self._tokenizer = AutoTokenizer.from_pretrained(str(self.folder), local_files_only=True)
        ids = self._tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)["input_ids"]
        config = GenerationConfig.from_pretrained(str(self.folder))
        with torch.no_grad():
            out = self.model.generate(
                input_ids=torch.tensor([ids], device=self.model.device),
                attention_mask=torch.ones(1, len(ids), dtype=torch.long, device=self.model.device),
                generation_config=config,
                max_new_tokens=tokens,
                do_sample=False,
            )
        said = out[0, len(ids) :].tolist()
        ends = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
        text = self._tokenizer.decode(said, skip_special_tokens=True)
        return Said(list(ids), text, len(said), bool(said) and said[-1] in ends)

    def close(self) -> None:
        self.model = self._tokenizer = None


class Apart:
    """A program in a process of its own, which a damaged file may end; runner/exports/serving.py is its other side."""

    def __init__(self, program: str, command: Sequence[str], log: Path, environment: Mapping[str, str]) -> None:
        """Raises DoesNotLoad."""
        self.program = program
        self.log = log
        with open(log, "wb") as errors:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env={**os.environ, **environment},
            )
        self._answer()

    def read(self, ids: list[int], tokens: list[int], **how: Any) -> Places:
        rows = self._ask({"read": {"ids": ids, "tokens": tokens, **how}})
        width = min(len(row["likeliest"]) for row in rows)
        likeliest = np.array([row["likeliest"][:width] for row in rows], np.float64)
        of = np.array([row["of"] for row in rows], np.float64)
        known = likeliest[:, :, 0].astype(np.int64)
        return Places(of, known[:, 0], known, likeliest[:, :, 1])

    def chat(self, messages: list[dict[str, Any]], tokens: int) -> Said:
        said = self._ask({"chat": {"messages": messages, "tokens": tokens}})
        ids = said["ids"]
        if said["prompt_tokens"] != len(ids):  # what it evaluates is not what its template and tokenizer say
            ids = [*ids, *[-1] * (said["prompt_tokens"] - len(ids))] if said["prompt_tokens"] > len(ids) else ids[1:]
        return Said(ids, said["text"], said["tokens"], said["stopped"])

    def close(self) -> None:
        self.process.kill()
        self.process.wait()

    def _ask(self, request: dict[str, Any]) -> Any:
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass
        return self._answer()

    def _answer(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if line:
            return json.loads(line)
        self.process.wait()
        raise DoesNotLoad(f"{self.program} cannot load it: {last_words(self.log)}")


class Gguf(Apart):
    """A GGUF, alone or as an adapter on another one."""

    def __init__(self, model: Path, lora: Path | None, log: Path) -> None:
        """Raises DoesNotLoad."""
        command = [sys.executable, "-m", "runner.exports.llama", str(model), str(os.cpu_count() or 1)]
        super().__init__("llama.cpp", [*command, str(lora)] if lora else command, log, NO_GPU)


def last_words(log: Path) -> str:
    """The line in which the library, or Python, says why it ended."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    said = [line for line in lines if any(word in line.lower() for word in ("error", "fail", "assert", "abort"))]
    return (said or lines or ["it ended without a word"])[-1][-300:]
