"""The formats of an export: what specs call them, and the folders that they lie in."""

import difflib
import re
from typing import Literal, get_args

Format = Literal[
    "adapter",
    "merged",
    "gptq",
    "gguf:bf16",
    "gguf:f16",
    "gguf:q8_0",
    "gguf:q6_k",
    "gguf:q5_k_m",
    "gguf:q4_k_m",
    "gguf:q4_k_s",
    "gguf:q3_k_m",
    "gguf:q6_k+imatrix",
    "gguf:q5_k_m+imatrix",
    "gguf:q4_k_m+imatrix",
    "gguf:q4_k_s+imatrix",
    "gguf:q3_k_m+imatrix",
    "gguf:lora",
    "onnx",
]
"""adapter: LoRA in PEFT's layout. merged: 16-bit weights with the adapter in them. gptq: these in 4 bit, for vLLM and
transformers. gguf: for llama.cpp and Ollama, in 16 bit, in fewer (+imatrix weighs rounding errors by what the training
rows use), or the adapter alone (lora). onnx: for onnxruntime, in 32 bit."""

FORMATS: tuple[str, ...] = get_args(Format)

ALSO_GPTQ = ("awq", "autoawq", "autogptq", "w4a16", "int4", "4bit", "compressedtensors")
"""What people ask for who want 4 bits for vLLM or transformers."""


def folder(name: str) -> str:
    """gguf:q4_k_m lies in exports/gguf-q4_k_m/."""
    return name.replace(":", "-").replace("+", "-")


def gguf(name: str) -> str | None:
    """bf16, q4_k_m, lora ...; None of what is no GGUF."""
    kind, _, rest = name.partition(":")
    return rest.removesuffix("+imatrix") if kind == "gguf" else None


def plain_name(name: str) -> str:
    """A job's name as part of a file's name that every file system takes."""
    return re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-").lower()[:60] or "model"


def nearest(name: str) -> str:
    """The format that is likely to be meant: Q4, gguf-q4_k_m and q4km all mean gguf:q4_k_m."""
    plain = {_plain(known): known for known in FORMATS}
    asked = _plain(name[:60])
    if asked in plain:
        return plain[asked]
    if asked in ALSO_GPTQ:
        return "gptq"
    begins = [known for known in plain if known.startswith(asked) or known.startswith("gguf" + asked)]
    near = difflib.get_close_matches(asked, plain, n=1, cutoff=0.4) or difflib.get_close_matches(
        "gguf" + asked, plain, n=1
    )
    return plain[min(begins, key=len)] if begins and asked else plain[near[0]] if near else "merged"


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())
