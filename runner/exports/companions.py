"""What lies beside the weights of every export: tokenizer, chat template, stop tokens, Gemma's terms."""

import shutil
from pathlib import Path

from spool.data.judging.chat import Encoder
from spool.protocol import durable

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "tokenizer.model")
"""The base's own, byte for byte."""

PROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")
"""Of the multimodal ones, so that what is merged can still see."""

TERMS_FILES = ("NOTICE", "GEMMA_TERMS.html")
"""Gemma's terms ask that they travel with every copy and derivative."""


def tokenizer(folder: Path, base: Path, encoder: Encoder) -> None:
    """The base's tokenizer, and the template and the stop tokens that the training used."""
    _copy(folder, base, (*TOKENIZER_FILES, *PROCESSOR_FILES, *TERMS_FILES))
    (folder / "chat_template.jinja").write_text(encoder.template, encoding="utf-8")
    generation = {"bos_token_id": encoder.bos_id, "eos_token_id": encoder.stop_ids, "pad_token_id": encoder.pad_id}
    durable.sync(*[path for path in folder.iterdir() if path.is_file()])
    durable.write_json(folder / "generation_config.json", generation)  # the last: an attempt that finds it goes on


def terms(folder: Path, base: Path) -> None:
    _copy(folder, base, TERMS_FILES)


def _copy(folder: Path, base: Path, names: tuple[str, ...]) -> None:
    for name in names:
        if (base / name).is_file():
            shutil.copyfile(base / name, folder / name)
