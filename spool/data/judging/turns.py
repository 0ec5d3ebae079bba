"""Chat turns in all their dialects (OpenAI, ShareGPT, Google, Anthropic), brought to role and content.

The templates of Gemma 1 to 3 have turns for the user and the model, and nothing that would mark a tool. What a row has
of tools is therefore written as text, as Google's guides to function calling with Gemma do it: the definitions into the
system turn, a call as a ```tool_code``` block of the answer, its result as a ```tool_output``` block of a user turn.
The row is marked as repaired, so that whoever runs the tuned model knows what it will write.
"""

import json
from typing import Any

import orjson

from spool.data.reading.json_mending import literal

ROLE_KEYS = ("role", "from", "speaker", "author")
CONTENT_KEYS = ("content", "value", "text", "parts", "message")
ROLES = {
    **dict.fromkeys(("user", "human", "prompter", "customer"), "user"),
    **dict.fromkeys(
        ("assistant", "gpt", "model", "bot", "chatgpt", "chatbot", "bard", "bing", "ai", "agent"), "assistant"
    ),
    **dict.fromkeys(("system", "developer"), "system"),
}
RESULT_ROLES = ("tool", "function", "observation", "tool_response", "function_response", "tool_result", "ipython")
CALL_ROLES = ("function_call", "tool_call")
TOOL = {"tool": True}

OFFER = """You have access to functions. To call one, write a block of this form:
```tool_code
{"name": function name, "parameters": {argument name: value}}
```
Its result comes back in a tool_output block. The functions:
"""
AS_TEXT = "tools were written as text (tool_code and tool_output blocks), as Gemma's templates have no turns for them."


class RowError(Exception):
    """Why a row cannot be used; becomes a Problem with the row's line."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message


Repairs = list[tuple[str, str]]
"""What was put right in a row: (code, how)."""


def as_turns(value: Any) -> list[dict[str, Any]] | None:
    """The list of turns that a cell holds, also as JSON or Python text or under {"messages": ...}; else None."""
    if isinstance(value, str) and value.lstrip()[:1] == "[":
        value = as_written(value)
    if isinstance(value, dict) and isinstance(value.get("messages"), list):
        value = value["messages"]
    if not isinstance(value, list) or not value:
        return None
    turns = all(isinstance(turn, dict) and _key(turn, ROLE_KEYS) for turn in value)
    return value if turns else None


def as_written(text: str) -> Any:
    """The value that a cell's text stands for, as JSON or as Python prints it; None where it is neither."""
    try:
        return orjson.loads(text)
    except ValueError:
        return literal(text)


def alternating(value: Any) -> list[dict[str, Any]] | None:
    """The turns of a conversation that is a bare list of texts (LIMA, UltraChat): the user first, then in turn."""
    if not isinstance(value, list) or not value or not all(isinstance(said, str) for said in value):
        return None
    return [{"role": "assistant" if number % 2 else "user", "content": said} for number, said in enumerate(value)]


def are_spoken(turns: list[dict[str, Any]]) -> bool:
    """Whether anybody in it has a known role. A list of e-mails has a "from" as well."""
    known = {*ROLES, *RESULT_ROLES, *CALL_ROLES}
    return any(isinstance(said := turn[_key(turn, ROLE_KEYS)], str) and said.strip().lower() in known for turn in turns)


def speaks_sharegpt(turns: list[dict[str, Any]]) -> bool:
    return "from" in turns[0] or "value" in turns[0]


def conversation(turns: list[dict[str, Any]], system: str | None, tools: Any, repairs: Repairs) -> list[dict[str, Any]]:
    """Messages with the roles system, user and assistant that a Gemma can be trained on.

    A turn with OpenAI's `weight` 0 keeps it: the turn is read but not learned from. Several user turns in a row become
    one; two answers in a row are not joined, as they may be two versions.

    Args:
        tools: the definitions that go with the row, in any notation; None or empty for none.
        repairs: gets what was put right.

    Raises:
        RowError: an unknown role, an empty turn, roles out of order, or no answer at the end.
    """
    messages = [_message(number, turn) for number, turn in enumerate(turns, 1)]
    if messages and messages[0]["role"] == "system" and not messages[0]["content"].strip():
        messages = messages[1:]
    for number, message in enumerate(messages, 1 + len(turns) - len(messages)):
        if not message["content"].strip():
            what = "answer" if message["role"] == "assistant" else "turn"
            raise RowError("empty_field", f"turn {number} ({message['role']}) is an empty {what}.")
    messages = _joined(messages, repairs)
    with_tools = any([message.pop("tool", False) for message in messages])  # noqa: C419  (each is to be popped)
    if system and not (messages and messages[0]["role"] == "system"):
        messages = [{"role": "system", "content": system}, *messages]
    if offered := _offer(tools):
        first = messages.pop(0)["content"] + "\n\n" if messages and messages[0]["role"] == "system" else ""
        messages = [{"role": "system", "content": first + offered}, *messages]
    spoken = messages[1:] if messages and messages[0]["role"] == "system" else messages
    _check_order(spoken)
    if not any(message.get("weight", 1) for message in spoken if message["role"] == "assistant"):
        raise RowError("no_trainable_tokens", "every answer has weight 0: there is nothing to learn from.")
    if with_tools or offered:
        repairs.append(("tools_as_text", AS_TEXT))
    return messages


def _joined(messages: list[dict[str, Any]], repairs: Repairs) -> list[dict[str, Any]]:
    """Neighbours that are one turn: questions in a row, results of several calls, a call and what was said with it."""
    joined: list[dict[str, Any]] = []
    for message in messages:
        last = joined[-1] if joined else None
        if last is None or last["role"] != message["role"] or last.get("weight", 1) != message.get("weight", 1):
            joined.append(message)
            continue
        tool = bool(message.get("tool") or last.get("tool"))
        if message["role"] == "assistant" and not tool:
            joined.append(message)
        else:
            joined[-1] = {**last, "content": f"{last['content']}\n\n{message['content']}", "tool": tool}
            how = f"several {message['role']} turns in a row were joined into one, with a blank line between them."
            if not tool and ("bad_roles", how) not in repairs:
                repairs.append(("bad_roles", how))
    return joined


def _check_order(spoken: list[dict[str, Any]]) -> None:
    if not spoken:
        raise RowError("no_answer", "the conversation is empty.")
    for number, message in enumerate(spoken):
        expected = "assistant" if number % 2 else "user"
        if message["role"] != expected:
            roles = ", ".join(each["role"] for each in spoken[:6])
            what = "a system turn comes first or not at all" if message["role"] == "system" else "user goes first"
            raise RowError("bad_roles", f"the roles must alternate between user and assistant, {what}; here: {roles}.")
    if spoken[-1]["role"] == "user":
        raise RowError("no_answer", "the conversation ends with the user: there is no answer to learn.")


def _message(number: int, turn: dict[str, Any]) -> dict[str, Any]:
    """A turn as role and content; `tool` where a call or a result was written into it."""
    said = turn.get(_key(turn, ROLE_KEYS))
    name = said.strip().lower() if isinstance(said, str) else ""
    value = turn.get(_key(turn, CONTENT_KEYS))
    where = f"turn {number} ({name})"
    if name in CALL_ROLES:
        return {"role": "assistant", "content": _calls(as_written(content(value, where)), content(value, where))} | TOOL
    role = ROLES.get(name)
    if name in RESULT_ROLES and not _has_tool_part(value):
        result = value if isinstance(value, str) or _is_parts(value) else _as_json(value)
        return {"role": "user", "content": _block("tool_output", content(result, where))} | TOOL
    if role is None and name not in RESULT_ROLES:
        raise RowError("bad_roles", f"turn {number} has the role {said!r}; system, user and assistant are known.")
    called = turn.get("tool_calls") or turn.get("function_call")
    message: dict[str, Any] = {"role": role or "user"}
    if called:
        before = "" if value is None else content(value, where)
        calls = _calls(called, "")
        if not calls:
            raise RowError("wrong_type", f"turn {number} has a tool call without a function's name.")
        message |= {"content": f"{before}\n\n{calls}" if before.strip() else calls} | TOOL
    else:
        message["content"] = content(value, where)
        message |= TOOL if _has_tool_part(value) else {}
    if turn.get("weight") in (0, False) and "weight" in turn and role == "assistant":
        message["weight"] = 0
    return message


def content(value: Any, where: str) -> str:
    """The text of a turn: a string, or parts of which all are text, a tool's call or its result.

    Raises:
        RowError: missing, or something else than text.
    """
    if value is None:
        raise RowError("missing_field", f"{where} has no content.")
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        value = value.get("parts") or [value]
    if isinstance(value, list) and None not in (parts := [_part(part) for part in value]):
        text = ""
        for part, written in zip(value, parts, strict=True):
            text += f"\n\n{written}" if text and _is_tool_part(part) else str(written)
        return text
    if isinstance(value, list) and any(isinstance(part, dict) and "image" in str(part.get("type")) for part in value):
        raise RowError("wrong_type", f"{where} holds a picture; only text can be trained on.")
    raise RowError("wrong_type", f"{where} holds {kind(value)} where text is needed.")


def kind(value: Any) -> str:
    """What a JSON value is, in words."""
    if isinstance(value, bool):
        return "true or false"
    return {dict: "an object", list: "a list", str: "text", type(None): "nothing"}.get(type(value), "a number")


def _part(part: Any) -> str | None:
    """A part of a turn as text; None for what is none."""
    if isinstance(part, str):
        return part
    if not isinstance(part, dict):
        return None
    if isinstance(part.get("text"), str) and part.get("type", "text") in ("text", "input_text", "output_text"):
        return str(part["text"])
    if part.get("type") == "tool_use" or "functionCall" in part:
        return _calls(part.get("functionCall", part), "") or None
    if part.get("type") == "tool_result":
        result = part.get("content")
        return _block("tool_output", result if isinstance(result, str) else _part_texts(result))
    if isinstance(answer := part.get("functionResponse"), dict):
        return _block("tool_output", _as_json(answer.get("response")))
    return None


def _part_texts(parts: Any) -> str:
    if isinstance(parts, list) and all(isinstance(part, dict) and isinstance(part.get("text"), str) for part in parts):
        return "".join(part["text"] for part in parts)
    return _as_json(parts)


def _is_parts(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(_part(part) is not None for part in value)


def _has_tool_part(value: Any) -> bool:
    if isinstance(value, dict):
        value = value.get("parts") or [value]
    return isinstance(value, list) and any(map(_is_tool_part, value))


def _is_tool_part(part: Any) -> bool:
    return isinstance(part, dict) and (
        part.get("type") in ("tool_use", "tool_result") or "functionCall" in part or "functionResponse" in part
    )


def _calls(value: Any, otherwise: str) -> str:
    """Calls in OpenAI's, Google's, Anthropic's or ShareGPT's notation as tool_code blocks."""
    blocks = []
    for call in value if isinstance(value, list) else [value]:
        named = call.get("function", call) if isinstance(call, dict) else None
        if not isinstance(named, dict) or not isinstance(named.get("name"), str):
            return _block("tool_code", otherwise) if otherwise.strip() else ""
        given: Any = next((named[key] for key in ("arguments", "parameters", "args", "input") if key in named), {})
        for _ in range(2):  # OpenAI writes the arguments as JSON text, some files twice over
            if isinstance(given, str) and (written := as_written(given)) is not None:
                given = written
        blocks.append(_block("tool_code", _as_json({"name": named["name"], "parameters": given})))
    return "\n".join(blocks)


def _offer(tools: Any) -> str:
    """The definitions of tools as the system turn has them; "" for none."""
    if isinstance(tools, str):
        written = as_written(tools)
        tools = tools.strip() if written is None else written
    if not tools:
        return ""
    return OFFER + (tools if isinstance(tools, str) else _as_json(tools))


def _block(name: str, text: str) -> str:
    return f"```{name}\n{text}\n```" if text.strip() else f"```{name}\n```"


def _as_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


def _key(turn: dict[str, Any], names: tuple[str, ...]) -> str:
    return next((name for name in names if name in turn), "")
