"""From a record to an example: the messages or the text that the model will see, or why the row is dropped."""

import json
import re
from dataclasses import dataclass
from typing import Any

from xxhash import xxh3_64_intdigest

from spool.data import content
from spool.data.formats import Layout
from spool.data.table import Problem, Record
from spool.data.turns import RowError, as_turns, conversation, kind
from spool.data.turns import content as said

# With these in a row's text anybody who writes rows could open and close turns of their own. <unk> is harmless and
# stands in well-known text collections.
CONTROL_MARKERS = (
    *("<bos>", "<eos>", "<pad>", "<start_of_turn>", "<end_of_turn>", "<start_of_image>", "<end_of_image>"),
    *("<|turn>", "<turn|>", "<|channel>", "<channel|>"),
)
_MARKERS = re.compile("|".join(map(re.escape, CONTROL_MARKERS)))
# Anthropic's hh-rlhf and its kin write a whole dialogue into one string.
_TRANSCRIPT = re.compile(r"(?:^|\n\n)(Human|Assistant): ?")


# How a row that was made from another says so (spool/data/augment.py).
MADE, MADE_OF = "augmented", "augmented_of"
AUGMENTATIONS = ("wrap", "noise", "reword", "balance")


@dataclass(frozen=True, slots=True)
class Example:
    """What a row teaches: `messages` (roles system, user, assistant, ending with an answer) or plain `text`."""

    line: int
    messages: list[dict[str, Any]] | None
    text: str | None
    repairs: tuple[tuple[str, str], ...] = ()
    """What was put right in the row's text: (code, how)."""


def question(example: Example) -> str:
    """What an example asks: its first user turn, or the whole text. Rows that ask the same belong together."""
    if example.messages is None:
        return example.text or ""
    return str(next(message["content"] for message in example.messages if message["role"] == "user"))


def question_number(text: str | bytes) -> int:
    """64 bits that stand for a question."""
    return xxh3_64_intdigest(text if isinstance(text, bytes) else text.encode())


def to_example(record: Record, layout: Layout) -> Example | Problem:
    """The example of a row, or the problem that drops it."""
    try:
        repairs: list[tuple[str, str]] = []
        if layout.format == "text":
            text = _repaired(_text(record, layout, "text"), repairs)
            _check_text(text, "the text")
            return Example(record.line, None, text, tuple(repairs))
        messages = _messages(record, layout)
        for message in messages:
            message["content"] = _repaired(message["content"], repairs)
            _check_text(message["content"], f"the {message['role']} turn")
        return Example(record.line, messages, None, tuple(repairs))
    except RowError as error:
        code, words = error.code, error.message
    except RecursionError:
        code, words = "too_deep", "nested too deep."
    return Problem(record.line, code, words, "dropped", record.byte, record.file)


def _repaired(text: str, repairs: list[tuple[str, str]]) -> str:
    text, done = content.repair(text)
    for how in done:
        code = "control_characters" if how.endswith("taken out") else "mojibake"
        repairs.append((code, f"{how}."))
    return text


def _messages(record: Record, layout: Layout) -> list[dict[str, Any]]:
    system = _optional(record, layout, "system")
    if layout.format in ("messages", "sharegpt"):
        role = "messages" if layout.format == "messages" else "conversations"
        turns = as_turns(_required(record, layout, role))
        if turns is None:
            value = record.value[layout.roles[role]]
            raise RowError(*_not_turns(layout.roles[role], value))
        return conversation(turns, system)
    if layout.format == "preference":
        return _preferred(record, layout, system)
    asking, answering = {
        "alpaca": ("instruction", "output"),
        "question_answer": ("question", "answer"),
        "prompt_completion": ("prompt", "completion"),
        "label": ("text", "label"),
    }[layout.format]
    answer = _required(record, layout, answering)
    before = as_turns(_required(record, layout, asking))
    if before is not None and layout.format == "prompt_completion":
        after = as_turns(answer) or [{"role": "assistant", "content": _answer(record, layout, answering)}]
        return conversation(before + after, system)
    prompt = _text(record, layout, asking)
    if layout.format == "alpaca" and (extra := _optional(record, layout, "input")):
        prompt = f"{prompt.strip()}\n\n{extra}"
    if layout.format == "question_answer" and (extra := _optional(record, layout, "context")):
        prompt = f"{extra.strip()}\n\n{prompt}"
    return conversation(_pair(prompt, _answer(record, layout, answering)), system)


def _preferred(record: Record, layout: Layout, system: str | None) -> list[dict[str, Any]]:
    """The conversation with the chosen answer; the prompt may stand in its own column or inside `chosen`."""
    chosen = _required(record, layout, "chosen")
    answer = as_turns(chosen)
    prompt = record.value.get(layout.roles["prompt"]) if "prompt" in layout.roles else None
    asked = as_turns(prompt)
    if answer is not None:
        begins_with_user = answer[0].get("role", answer[0].get("from")) not in ("assistant", "gpt", "model")
        if begins_with_user:
            return conversation(answer, system)
        return conversation((asked or _pair(_text(record, layout, "prompt"), "")[:1]) + answer, system)
    if asked is not None:
        return conversation([*asked, {"role": "assistant", "content": _answer(record, layout, "chosen")}], system)
    if not prompt and isinstance(chosen, str) and len(parts := _TRANSCRIPT.split(chosen)) > 1:
        roles = {"Human": "user", "Assistant": "assistant"}
        pairs = zip(parts[1::2], parts[2::2], strict=True)
        return conversation([{"role": roles[name], "content": said} for name, said in pairs], system)
    return conversation(_pair(_text(record, layout, "prompt"), _answer(record, layout, "chosen")), system)


def _pair(prompt: str, answer: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]


def _required(record: Record, layout: Layout, role: str) -> Any:
    column = layout.roles.get(role)
    value = None if column is None else record.value.get(column)
    if value is None:
        raise RowError("missing_field", f"the field {column or role!r} is missing.")
    if isinstance(value, str) and not value.strip():
        raise RowError("empty_field", f"the field {column!r} is empty.")
    return value


def _text(record: Record, layout: Layout, role: str) -> str:
    value = _required(record, layout, role)
    if not isinstance(value, str):
        raise RowError("wrong_type", f"the field {layout.roles[role]!r} holds {kind(value)} where text is needed.")
    return value


def _optional(record: Record, layout: Layout, role: str) -> str | None:
    column = layout.roles.get(role)
    value = None if column is None else record.value.get(column)
    if value is None or value in ([], {}):
        return None
    text = said(value, f"the field {column!r}")
    return text if text.strip() else None


def _answer(record: Record, layout: Layout, role: str) -> str:
    """The answer as text; an object or a list becomes compact JSON, a number or a truth value its JSON text."""
    value = _required(record, layout, role)
    if isinstance(value, str):
        return value
    if layout.format == "question_answer":
        several = value.get("text") if isinstance(value, dict) and "answer_start" in value else value  # SQuAD
        if isinstance(several, list) and several and all(isinstance(each, str) for each in several):
            value = several[0]
        elif several == []:
            raise RowError("no_answer", f"the field {layout.roles[role]!r} holds no answer.")
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    if not text.strip():
        raise RowError("empty_field", f"the field {layout.roles[role]!r} is empty.")
    return text


def _not_turns(column: str, value: Any) -> tuple[str, str]:
    if value == []:
        return "no_answer", f"the field {column!r} is an empty conversation."
    return "wrong_type", f"the field {column!r} holds no list of turns with a role (or from) and a content (or value)."


def _check_text(text: str, where: str) -> None:
    marker = _MARKERS.search(text) if "<" in text else None
    if marker:
        message = f"{where} holds the control marker {marker.group()}, which would open or close a turn by itself."
        raise RowError("special_token_in_text", message)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise RowError("bad_encoding", f"{where} holds bytes or characters that cannot be read.") from None
