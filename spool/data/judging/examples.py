"""From a record to an example: the messages or the text that the model will see, or why the row is dropped."""

import json
import re
from dataclasses import dataclass
from typing import Any

from xxhash import xxh3_64_intdigest

from spool.data.judging import content
from spool.data.judging.formats import Layout, is_true
from spool.data.judging.turns import Repairs, RowError, alternating, as_turns, as_written, conversation, kind
from spool.data.judging.turns import content as said
from spool.data.reading.table import Problem, Record

# With these in a row's text anybody who writes rows could open and close turns of their own. <unk> is harmless and
# stands in well-known text collections.
CONTROL_MARKERS = (
    *("<bos>", "<eos>", "<pad>", "<start_of_turn>", "<end_of_turn>", "<start_of_image>", "<end_of_image>"),
    *("<|turn>", "<turn|>", "<|channel>", "<channel|>"),
)
_MARKERS = re.compile("|".join(map(re.escape, CONTROL_MARKERS)))
# Anthropic's hh-rlhf and its kin write a whole dialogue into one string.
_TRANSCRIPT = re.compile(r"(?:^|\n\n)(Human|Assistant): ?")
SPEAKERS = {"Human": "user", "Assistant": "assistant"}


# The roles of the usual question and its answer.
PAIRS = {
    "alpaca": ("instruction", "output"),
    "question_answer": ("question", "answer"),
    "prompt_completion": ("prompt", "completion"),
    "label": ("text", "label"),
}

# How a row that was made from another says so (spool/data/keeping/augment.py).
MADE, MADE_OF = "augmented", "augmented_of"
AUGMENTATIONS = ("wrap", "noise", "reword", "balance")
_QUESTION = re.compile(r"[0-9a-f]{16}")


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


def is_made(record: Record) -> bool:
    """Whether a row was made from another by a step `augment`; a column of that name with other words is the user's."""
    return record.value.get(MADE) in AUGMENTATIONS


def original_question(record: Record) -> int | None:
    """`question_number` of the row that this one was made from; None where it was not made, or does not say."""
    marked = record.value.get(MADE_OF)
    if is_made(record) and isinstance(marked, str) and _QUESTION.fullmatch(marked):
        return int(marked, 16)
    return None


def to_example(record: Record, layout: Layout) -> Example | Problem:
    """The example of a row, or the problem that drops it."""
    try:
        repairs: Repairs = []
        if layout.format == "text":
            text = _repaired(_text(record, layout, "text"), repairs)
            _check_text(text, "the text")
            return Example(record.line, None, text, tuple(repairs))
        _check_desirable(record, layout)
        messages = conversation(_turns(record, layout), *_around(record, layout), repairs)
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


def _check_desirable(record: Record, layout: Layout) -> None:
    """KTO files hold bad answers as well: those must not be learned."""
    column = layout.roles.get("desirable")
    if column is not None and is_true(record.value.get(column)) is False:
        raise RowError("not_desirable", f"the field {column!r} says that this is a bad answer, not to be learned.")


def _around(record: Record, layout: Layout) -> tuple[str | None, Any]:
    """(system turn, definitions of tools) from columns of their own, or beside the turns of a cell."""
    tools = record.value.get(layout.roles["tools"]) if "tools" in layout.roles else None
    asked = record.value.get(layout.roles.get("prompt", ""))
    if tools is None and isinstance(asked, dict):  # OpenAI's preference rows
        tools = asked.get("tools")
    return _optional(record, layout, "system"), tools


def _turns(record: Record, layout: Layout) -> list[dict[str, Any]]:
    if layout.format in ("messages", "sharegpt"):
        role = "messages" if layout.format == "messages" else "conversations"
        value = _required(record, layout, role)
        turns = as_turns(value) or alternating(value)
        if turns is None:
            raise RowError(*_not_turns(layout.roles[role], value))
        return turns
    if layout.format == "preference":
        return _preferred(record, layout)
    asking, answering = PAIRS[layout.format]
    answer = _required(record, layout, answering)
    before = as_turns(_required(record, layout, asking))
    if before is not None and layout.format == "prompt_completion":
        return before + (as_turns(answer) or [{"role": "assistant", "content": _answer(record, layout, answering)}])
    prompt = _text(record, layout, asking)
    if layout.format == "alpaca" and (extra := _optional(record, layout, "input")):
        prompt = f"{prompt.strip()}\n\n{extra}"
    if layout.format == "question_answer" and (extra := _optional(record, layout, "context")):
        prompt = f"{extra.strip()}\n\n{prompt}"
    return _history(record, layout) + _pair(prompt, _answer(record, layout, answering))


def _history(record: Record, layout: Layout) -> list[dict[str, Any]]:
    """What was said before: turns, or pairs of a question and its answer."""
    value = record.value.get(layout.roles["history"]) if "history" in layout.roles else None
    if isinstance(value, str):
        value = as_written(value) if value.strip() else None
    if not value:
        return []
    if turns := as_turns(value):
        return turns
    if isinstance(value, list) and all(isinstance(pair, list) and len(pair) == 2 for pair in value):
        return [turn for pair in value for turn in _pair(*pair)]
    raise RowError("wrong_type", f"the field {layout.roles['history']!r} holds no pairs of a question and its answer.")


def _preferred(record: Record, layout: Layout) -> list[dict[str, Any]]:
    """The conversation with the chosen answer; the prompt may stand in its own column or inside `chosen`."""
    chosen = _required(record, layout, "chosen")
    answer = as_turns([chosen] if isinstance(chosen, dict) else chosen)
    prompt = record.value.get(layout.roles["prompt"]) if "prompt" in layout.roles else None
    asked = as_turns(prompt) or _transcript(prompt, ends_open=True)
    if answer is not None:
        begins_with_user = answer[0].get("role", answer[0].get("from")) not in ("assistant", "gpt", "model")
        if begins_with_user:
            return answer
        return (asked or _pair(_text(record, layout, "prompt"), "")[:1]) + answer
    if asked is not None:
        return [*asked, {"role": "assistant", "content": _answer(record, layout, "chosen")}]
    if not prompt and (turns := _transcript(chosen)):
        return turns
    return _pair(_text(record, layout, "prompt"), _answer(record, layout, "chosen"))


def _transcript(text: Any, ends_open: bool = False) -> list[dict[str, Any]] | None:
    """The turns of a dialogue in one string. One that ends open leaves its last answer to be given."""
    parts = _TRANSCRIPT.split(text) if isinstance(text, str) else []
    turns = [{"role": SPEAKERS[name], "content": said} for name, said in zip(parts[1::2], parts[2::2], strict=True)]
    if not ends_open:
        return turns or None
    open_end = len(turns) > 1 and turns[-1]["role"] == "assistant" and not turns[-1]["content"].strip()
    return turns[:-1] if open_end else None


def _pair(prompt: Any, answer: Any) -> list[dict[str, Any]]:
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
        printed = as_written(value) if layout.format == "question_answer" and value[:2] in ("{'", '{"') else None
        if not (isinstance(printed, dict) and "answer_start" in printed):
            return value
        value = printed  # SQuAD's answers in a CSV cell
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
