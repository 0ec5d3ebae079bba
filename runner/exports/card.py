"""The model card of an export (README.md): what it is, what it was made from, how it did, and how it is used.

The front matter is the Hugging Face Hub's (https://huggingface.co/docs/hub/model-cards); a GGUF gets an Ollama
Modelfile beside it, whose template is made from the model's own.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from spool.data.judging.chat import Encoder
from spool.protocol import formats

TERMS = "Gemma is provided under and subject to the Gemma Terms of Use found at ai.google.dev/gemma/terms."
ANSWER_TOKENS = 256
GENAI = """import onnxruntime_genai as og  # pip install onnxruntime-genai

model = og.Model(".")  # this folder
tokenizer = og.Tokenizer(model)
prompt = tokenizer.apply_chat_template('[{"role": "user", "content": "Hello"}]', add_generation_prompt=True)
settings = og.GeneratorParams(model)
settings.set_search_options(max_length=2048, do_sample=False)
generator = og.Generator(model, settings)
generator.append_tokens(tokenizer.encode(prompt))
while not generator.is_done():  # it stops where it was taught to
    generator.generate_next_token()
print(tokenizer.decode(generator.get_sequence(0)))"""


def write(folder: Path, kind: str, facts: Mapping[str, Any], file: str | None, encoder: Encoder) -> None:
    """README.md, and for a whole GGUF a Modelfile.

    Args:
        kind: the format.
        facts: `name`, what people call the training, and its result and `settings`; of an adapter from elsewhere
            little is known.
        file: the GGUF's name; None for weights.
    """
    base = facts.get("base") or {}
    parts = [
        _front(kind, base),
        f"# {facts['name']}",
        _what(kind, facts),
        _made_from(facts),
        "## Use",
        _use(kind, str(base.get("reference") or "the base"), file, encoder),
        "## Terms",
        f"{TERMS} They hold for this {'adapter' if kind in ('adapter', 'gguf:lora') else 'model'} too.",
    ]
    (folder / "README.md").write_text("\n\n".join(part for part in parts if part) + "\n", encoding="utf-8")
    if file and kind != "gguf:lora":
        (folder / "Modelfile").write_text(modelfile(file, encoder), encoding="utf-8")


def _front(kind: str, base: Mapping[str, Any]) -> str:
    library = {"adapter": "peft", "merged": "transformers", "gptq": "transformers", "onnx": "onnx"}.get(kind, "gguf")
    more = {"gguf": ["gguf"], "gptq": ["gptq", "compressed-tensors"]}.get("gguf" if library == "gguf" else kind, [])
    relations = {"adapter": "adapter", "gguf:lora": "adapter", "merged": "finetune", "onnx": "finetune"}
    relation = relations.get(kind, "quantized")
    reference = base.get("reference") if base.get("revision") else None  # of the hub; it refuses cards that name others
    lines = [
        "---",
        *([f"base_model: {reference}", f"base_model_relation: {relation}"] if reference else []),
        f"library_name: {library}",
        "license: gemma",
        "pipeline_tag: text-generation",
        f"tags: [{', '.join(['gemma', 'lora', *more])}]",
        "---",
    ]
    return "\n".join(lines)


def _what(kind: str, facts: Mapping[str, Any]) -> str:
    said = {
        "adapter": "A LoRA adapter: it needs its base.",
        "merged": "The base with the LoRA adapter merged into its 16-bit weights.",
        "gptq": "The base with the LoRA adapter merged in. GPTQ has rounded the layers' matrices to 4 bits a weight,\n"
        "with rows of the training; all else is in 16 bit. The layout is that of compressed-tensors (W4A16).",
        "gguf:lora": "A LoRA adapter for llama.cpp: it needs the base as GGUF.",
        "onnx": "The base with the LoRA adapter merged in, as ONNX in 32 bit with a KV cache, for onnxruntime.",
    }.get(kind)
    quant = formats.gguf(kind)
    said = said or f"The base with the LoRA adapter merged in, as GGUF ({str(quant).upper()}) for llama.cpp and Ollama."
    if kind == "adapter":
        return said
    return (
        f"{said} `certificate.json` says how closely it answers like the adapter that it was made\n"
        "from; `finetuner verify` checks the files against `manifest.json`."
    )


def _made_from(facts: Mapping[str, Any]) -> str:
    if "steps" not in facts:
        return ""
    base, data = facts.get("base") or {}, facts.get("dataset") or {}
    learned, kept = _count(facts.get("train_rows")), _count(facts.get("eval_rows"))
    loss, eval_loss = _loss(facts.get("final_loss")), _loss(facts.get("eval_loss"))
    rows = [
        ("Base", f"`{base.get('reference')}`" + (f" at {base['revision']}" if base.get("revision") else "")),
        ("Data", f"`{data.get('reference')}`, version {data.get('version')}; {learned} rows learned, {kept} evaluated"),
        ("Training", _training(facts)),
        ("Loss", f"{loss} at the end; on the rows kept for evaluation: {eval_loss}"),
        ("Hardware", f"{facts.get('device')}, {_seconds(facts.get('trained_s'))} of training" + _energy(facts)),
    ]  # fmt: skip
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {said} |" for name, said in rows)])


def _training(facts: Mapping[str, Any]) -> str:
    spec = facts.get("settings") or {}
    lora, train = spec.get("lora") or {}, spec.get("train") or {}
    parts = [f"{_count(facts.get('steps'))} steps"]
    if train:
        parts.append(f"{train.get('effective_batch')} rows a step, learning rate {train.get('learning_rate')}")
        parts.append(f"{train.get('optimizer')}, {train.get('scheduler')}")
    if lora:
        parts.append(f"LoRA rank {lora.get('rank')}, alpha {lora.get('alpha'):g}")
    if spec.get("precision"):
        parts.append(f"base in {spec['precision']} while training")
    return "; ".join(parts)


def _energy(facts: Mapping[str, Any]) -> str:
    energy = facts.get("energy_wh")
    return f", {energy:.1f} Wh" if isinstance(energy, int | float) else ""


def _count(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else "?"


def _loss(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, int | float) else "not measured"


def _seconds(value: Any) -> str:
    if not isinstance(value, int | float):
        return "?"
    return f"{value:.0f} s" if value < 120 else f"{value / 60:.0f} min" if value < 7200 else f"{value / 3600:.1f} h"


# ---- use


def _use(kind: str, base: str, file: str | None, encoder: Encoder) -> str:
    if kind == "adapter":
        return _code("python", _transformers(base)) + "\n\n" + _vllm(f"{base} --enable-lora --lora-modules tuned=.")
    if kind == "gptq":
        code = _code("python", "# pip install transformers compressed-tensors\n" + _transformers(None))
        return f"{_vllm('.')}\n\nWith transformers:\n\n{code}"
    if kind == "merged":
        return _code("python", _transformers(None)) + "\n\n" + _vllm(".")
    if kind == "onnx":
        return _code("python", GENAI)
    if kind == "gguf:lora":
        return "With llama.cpp, over the base's own GGUF:\n\n" + _code(
            "sh", f"llama-cli -m BASE.gguf --lora {file} -cnv -p '' --temp 0"
        )
    return (
        "With Ollama:\n\n"
        + _code("sh", f"ollama create {Path(str(file)).stem} -f Modelfile\nollama run {Path(str(file)).stem}")
        + "\n\nWith llama.cpp, which takes template and stop tokens from the file:\n\n"
        + _code("sh", f"llama-server -m {file} --jinja    # or: llama-cli -m {file} --jinja -cnv")
    )


def _transformers(base: str | None) -> str:
    lines = ["from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig", ""]
    if base:
        lines.insert(0, "from peft import PeftModel")
    lines += ['folder = "."  # this folder', "tokenizer = AutoTokenizer.from_pretrained(folder)"]
    lines += (
        [
            f'model = AutoModelForCausalLM.from_pretrained("{base}", dtype="bfloat16")',
            "model = PeftModel.from_pretrained(model, folder)",
        ]
        if base
        else ['model = AutoModelForCausalLM.from_pretrained(folder, dtype="bfloat16")']
    )
    lines += [
        'messages = [{"role": "user", "content": "Hello"}]',
        "prompt = tokenizer.apply_chat_template(",
        '    messages, add_generation_prompt=True, return_tensors="pt", return_dict=True',
        ")",
        "settings = GenerationConfig.from_pretrained(folder)  # it stops where it was taught to",
        f"answer = model.generate(**prompt, max_new_tokens={ANSWER_TOKENS}, generation_config=settings)",
        'print(tokenizer.decode(answer[0][prompt["input_ids"].shape[1] :], skip_special_tokens=True))',
    ]
    return "\n".join(lines)


def _vllm(what: str) -> str:
    return "With vLLM:\n\n" + _code("sh", f"vllm serve {what}")


def _code(language: str, text: str) -> str:
    return f"```{language}\n{text}\n```"


# ---- Ollama


def modelfile(file: str, encoder: Encoder) -> str:
    """An Ollama Modelfile (https://github.com/ollama/ollama/blob/main/docs/modelfile.md) with the model's own turns.

    Ollama's template language is Go's; the turns are those of the Gemma generation. A system text goes where the
    model's own template puts it: before the first question, or in a turn of its own.
    """
    start, end = encoder.generation.turn_start, encoder.generation.turn_end
    probe = encoder.generation_text([{"role": "system", "content": "SYS"}, {"role": "user", "content": "ASK"}])
    own_turn = probe.partition("SYS")[2].partition("ASK")[0].count(end) > 0
    role = probe.partition("SYS")[0].rpartition(start)[2].strip()
    between = "" if own_turn else probe.partition("SYS")[2].partition("ASK")[0]
    if own_turn:
        system = f'{{{{ if eq $m.Role "system" }}}}{start}{role}\n{{{{ $m.Content }}}}{end}\n{{{{ end }}}}'
        before = ""
    else:
        system = '{{ if eq $m.Role "system" }}{{ $system = $m.Content }}{{ end }}'
        before = f'{{{{ if $system }}}}{{{{ $system }}}}{between}{{{{ $system = "" }}}}{{{{ end }}}}'
    turns = (
        '{{ $system := "" }}{{ range $i, $m := .Messages }}'
        + system
        + f'{{{{ if eq $m.Role "user" }}}}{start}user\n{before}{{{{ $m.Content }}}}{end}\n{{{{ end }}}}'
        + f'{{{{ if eq $m.Role "assistant" }}}}{start}model\n{{{{ $m.Content }}}}{end}\n{{{{ end }}}}'
        + f"{{{{ end }}}}{start}model\n"
    )
    return (
        f'FROM ./{file}\nTEMPLATE """{turns}"""\n'
        f'PARAMETER stop "{end}"\nPARAMETER stop "<eos>"\nPARAMETER temperature 0\n'
    )
