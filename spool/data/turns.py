"""Chat turns in all their dialects (OpenAI, ShareGPT, Google's contents and parts), brought to role and content."""

from typing import Any

import orjson

ROLE_KEYS = ("role", "from", "speaker", "author")
CONTENT_KEYS = ("content", "value", "text", "parts", "message")
ROLES = {
    **dict.fromkeys(("user", "human", "prompter", "customer"), "user"),
    **dict.fromkeys(
        ("assistant", "gpt", "model", "bot", "chatgpt", "chatbot", "bard", "bing", "ai", "agent"), "assistant"
    ),
    **dict.fromkeys(("system", "developer"), "system"),
}


class RowError(Exception):
    """Why a row cannot be used; becomes a Problem with the row's line."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message


def as_turns(value: Any) -> list[dict[str, Any]] | None:
    """The list of turns that a cell holds, also as JSON text or under {"messages": ...}; None for anything else."""
    if isinstance(value, str) and value.lstrip()[:1] == "[":
        try:
            value = orjson.loads(value)
        except ValueError:
            return None
    if isinstance(value, dict) and isinstance(value.get("messages"), list):
        value = value["messages"]
    if not isinstance(value, list) or not value:
        return None
    turns = all(isinstance(turn, dict) and _key(turn, ROLE_KEYS) for turn in value)
    return value if turns else None


def speaks_sharegpt(turns: list[dict[str, Any]]) -> bool:
    return "from" in turns[0] or "value" in turns[0]


def conversation(turns: list[dict[str, Any]], system: str | None = None) -> list[dict[str, Any]]:
    """Messages with the roles system, user and assistant that a Gemma can be trained on.

    A turn with OpenAI's `weight` 0 keeps it: the turn is read but not learned from.

    Raises:
        RowError: an unknown role, an empty turn, roles out of order, or no answer at the end.
    """
    messages = [_message(number, turn) for number, turn in enumerate(turns, 1)]
    if messages and messages[0]["role"] == "system" and not messages[0]["content"].strip():
        messages = messages[1:]
    if system and not (messages and messages[0]["role"] == "system"):
        messages = [{"role": "system", "content": system}, *messages]
    spoken = messages[1:] if messages and messages[0]["role"] == "system" else messages
    for number, message in enumerate(spoken, 1 + len(messages) - len(spoken)):
        if not message["content"].strip():
            what = "answer" if message["role"] == "assistant" else "turn"
            raise RowError("empty_field", f"turn {number} ({message['role']}) is an empty {what}.")
    _check_order(spoken)
    if not any(message.get("weight", 1) for message in spoken if message["role"] == "assistant"):
        raise RowError("no_trainable_tokens", "every answer has weight 0: there is nothing to learn from.")
    return messages


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
    said = turn.get(_key(turn, ROLE_KEYS))
    role = ROLES.get(said.strip().lower()) if isinstance(said, str) else None
    if role is None or turn.get("tool_calls") or turn.get("function_call"):
        what = f"the role {said!r}" if role is None else "a tool call"
        raise RowError("bad_roles", f"turn {number} has {what}; system, user and assistant can be trained on.")
    message: dict[str, Any] = {
        "role": role,
        "content": content(turn.get(_key(turn, CONTENT_KEYS)), f"turn {number} ({role})"),
    }
    if turn.get("weight") in (0, False) and "weight" in turn and role == "assistant":
        message["weight"] = 0
    return message


def content(value: Any, where: str) -> str:
    """The text of a turn: a string, or parts of which all are text.

    Raises:
        RowError: missing, or something else than text.
    """
    if value is None:
        raise RowError("missing_field", f"{where} has no content.")
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        value = value.get("parts") or [value]
    if isinstance(value, list) and all(isinstance(part, str) or _is_text(part) for part in value):
        return "".join(part if isinstance(part, str) else part["text"] for part in value)
    if isinstance(value, list) and any(isinstance(part, dict) and "image" in str(part.get("type")) for part in value):
        raise RowError("wrong_type", f"{where} holds a picture; only text can be trained on.")
    raise RowError("wrong_type", f"{where} holds {kind(value)} where text is needed.")


def kind(value: Any) -> str:
    """What a JSON value is, in words."""
    if isinstance(value, bool):
        return "true or false"
    return {dict: "an object", list: "a list", str: "text", type(None): "nothing"}.get(type(value), "a number")


def _is_text(part: Any) -> bool:
    return (
        isinstance(part, dict)
        and isinstance(part.get("text"), str)
        and part.get("type", "text") in ("text", "input_text")
    )


def _key(turn: dict[str, Any], names: tuple[str, ...]) -> str:
    return next((name for name in names if name in turn), "")
