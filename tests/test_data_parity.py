"""The encoder against its references: transformers gives the same tokens, Unsloth trains on the same ones."""

import json
import random
import subprocess
import sys
from pathlib import Path

from spool.data.judging.chat import Encoded, Encoder
from spool.data.judging.examples import Example

REFERENCE = """
import json, sys
import unsloth
from transformers import AutoTokenizer
from unsloth.chat_templates import train_on_responses_only
folder, source, target = sys.argv[1:]
tokenizer = AutoTokenizer.from_pretrained(folder)
conversations = json.load(open(source))
texts = [tokenizer.apply_chat_template(turns, tokenize=False) for turns in conversations]
ids = [tokenizer.apply_chat_template(turns, return_dict=False) + [tokenizer.eos_token_id] for turns in conversations]
mask = train_on_responses_only(
    None, instruction_part="<start_of_turn>user\\n", response_part="<start_of_turn>model\\n",
    tokenizer=tokenizer, return_function=True,
)
opened = {"add_generation_prompt": True, "return_dict": False}
prompts = [tokenizer.apply_chat_template(turns[:-1], **opened) for turns in conversations]
labels = mask({"input_ids": ids})["labels"]
json.dump({"texts": texts, "ids": ids, "labels": labels, "prompts": prompts}, open(target, "w"))
"""
PIECES = [
    *(
        "Hello",
        " world",
        "\n",
        "\n\n",
        "\n\n\n",
        "  ",
        "    ",
        "\t",
        "```py\ndef f():\n    return 1\n```",
        '{"a":[1,2]}',
    ),
    *(
        "Ünïcödé",
        "日本語のテキスト",
        "👩‍👩‍👧",
        "\u200b",
        "▁",
        "model",
        "user",
        "model\n",
        "<b>",
        "</b>",
        "<unk>",
        "1234567",
        "<0x0A>",
    ),
    *("\u00a0", "e\u0301", "...", "—", "<start_of", "_turn>", "<", ">", "العربية", "\x7f", "ﬁ", "🇩🇪", "\u2028"),
]


def conversations(count: int) -> list[list[dict[str, str]]]:
    pick = random.Random(7)

    def said() -> str:
        while True:
            text = "".join(pick.choice(PIECES) for _ in range(pick.randint(1, 12)))
            if text.strip() and "<start_of_turn>" not in text:
                return text

    found = []
    for _ in range(count):
        turns = [{"role": "system", "content": said()}] if pick.random() < 0.4 else []
        for _ in range(pick.randint(1, 4)):
            turns += [{"role": "user", "content": said()}, {"role": "assistant", "content": said()}]
        found.append(turns)
    return found


def test_same_as_transformers_and_unsloth(embedded_model: Path, tmp_path: Path) -> None:
    source, target = tmp_path / "conversations.json", tmp_path / "reference.json"
    chats = conversations(200)
    source.write_text(json.dumps(chats))
    (tmp_path / "reference.py").write_text(REFERENCE)
    command = [sys.executable, str(tmp_path / "reference.py"), str(embedded_model), str(source), str(target)]
    subprocess.run(command, check=True, capture_output=True, cwd=tmp_path)
    reference = json.loads(target.read_text())

    encoder = Encoder.for_model(embedded_model)
    rows = list(encoder.encode_all(Example(line, turns, None) for line, turns in enumerate(chats)))
    for number, row in enumerate(rows):
        assert isinstance(row, Encoded), row
        assert row.text == reference["texts"][number] + "<eos>", "TRL's own preparation ends a row so"
        assert row.input_ids == reference["ids"][number]
        assert row.labels == reference["labels"][number], row.text
        assert encoder.generation_ids(chats[number][:-1]) == reference["prompts"][number]
        assert row.trained_tokens > 0
