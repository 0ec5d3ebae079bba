"""The vocabulary: the formats, the roles that a row of each has, and the column names that usually play them.

The first name of a role is its own; COMMON more are nearly as telling; those after them are weaker hints. Adding a
name here is all it takes to have it recognised.
"""

import re
from dataclasses import dataclass

COMMON = 10


@dataclass(frozen=True)
class Format:
    required: tuple[str, ...]
    optional: tuple[str, ...] = ()

    @property
    def roles(self) -> tuple[str, ...]:
        return self.required + self.optional


# In this order where two fit equally well.
FORMATS = {
    "preference": Format(("chosen", "rejected"), ("prompt", "system", "tools")),
    "messages": Format(("messages",), ("system", "tools", "desirable")),
    "sharegpt": Format(("conversations",), ("system", "tools", "desirable")),
    "alpaca": Format(("instruction", "output"), ("input", "system", "history", "desirable")),
    "question_answer": Format(("question", "answer"), ("context", "system", "history")),
    "prompt_completion": Format(("prompt", "completion"), ("system", "history", "tools", "desirable")),
    "label": Format(("text", "label")),
    "text": Format(("text",)),
}

SYSTEM = ("system", "system_prompt", "system_message", "system_instruction", "systeminstruction")
TOOLS = ("tools", "functions")
HISTORY = ("history",)
# KTO: whether the answer is a good one. Counts only where the column holds nothing but true and false.
DESIRABLE = ("label", "kto_tag", "tag", "desirable", "is_desirable")
TEXT = ("text", "content", "body", "document", "passage", "paragraph", "sentence", "story", "article", "page_content")

NAMES: dict[str, dict[str, tuple[str, ...]]] = {
    "preference": {
        "chosen": (
            *("chosen", "preferred", "accepted", "chosen_response", "preferred_output", "response_chosen"),
            "response_j",
        ),
        "rejected": (
            *("rejected", "dispreferred", "rejected_response", "non_preferred_output", "response_rejected"),
            "response_k",
        ),
        "prompt": ("prompt", "question", "instruction", "input", "query", "conversations", "messages", "context"),
        "system": SYSTEM,
        "tools": TOOLS,
    },
    "messages": {
        "messages": ("messages", "conversation", "conversations", "chat", "dialog", "dialogue", "turns", "contents"),
        "system": SYSTEM,
        "tools": TOOLS,
        "desirable": DESIRABLE,
    },
    "sharegpt": {
        "conversations": ("conversations", "conversation", "messages", "chat", "dialog", "dialogue", "turns", "items"),
        "system": SYSTEM,
        "tools": TOOLS,
        "desirable": DESIRABLE,
    },
    "alpaca": {
        "instruction": ("instruction", "instructions"),
        "output": ("output", "response", "completion", "answer", "target"),
        "input": ("input", "context"),
        "system": SYSTEM,
        "history": HISTORY,
        "desirable": DESIRABLE,
    },
    "question_answer": {
        "question": (
            *("question", "q", "questions", "frage", "kundenfrage", "customer_question", "anfrage", "kundenanfrage"),
            *("fragen", "customer_request", "frage_des_kunden", "kundennachricht", "nachricht"),
        ),
        "answer": (
            *("answer", "answers", "a", "response", "reply", "completion", "output", "best_answer", "antwort"),
            *("antworten", "unsere_antwort", "antwort_an_kunden", "our_answer", "our_reply", "agent_reply"),
        ),
        "context": ("context", "passage"),
        "system": SYSTEM,
        "history": HISTORY,
    },
    "prompt_completion": {
        "prompt": (
            *("prompt", "input", "query", "user", "source", "request", "human", "question", "instruction"),
            *("user_message", "customer_message", "user_input", "input_text", "source_text", "src", "problem"),
            *("message", "article", "dialogue", "document", "text"),
        ),
        "completion": (
            *("completion", "output", "response", "assistant", "target", "answer", "reply", "bot", "model"),
            *("assistant_message", "agent_response", "expected_output", "output_text", "target_text", "tgt"),
            *("solution", "gpt", "summary", "highlights", "generated_text", "canonical_solution"),
        ),
        "system": SYSTEM,
        "history": HISTORY,
        "tools": TOOLS,
        "desirable": DESIRABLE,
    },
    "label": {
        "text": (
            *TEXT,
            *("message", "review", "tweet", "headline", "comment", "utterance", "sms", "email", "input", "question"),
            *("query", "title", "description"),
        ),
        "label": (
            *("label", "category", "class", "label_text", "label_name", "intent", "sentiment", "labels"),
            *("class_name", "class_label", "topic", "tag", "target"),
        ),
    },
    "text": {"text": TEXT},
}

# Roles that mean the same in another format, so that a mapping of "prompt" also serves a question_answer file.
ASKING = ("prompt", "question", "instruction", "text")
ANSWERING = ("completion", "answer", "output", "label", "chosen")
CHATTING = ("messages", "conversations")
TALKS = frozenset((*NAMES["messages"]["messages"], *NAMES["sharegpt"]["conversations"], "data"))
"""Columns in which a bare list of texts is a conversation."""
ROLES = tuple(dict.fromkeys(role for each in FORMATS.values() for role in each.roles))
KNOWN_NAMES = frozenset(name for names in NAMES.values() for group in names.values() for name in group)


def plain(column: str) -> str:
    """A column name as the vocabulary writes it: "Customer Message " becomes customer_message."""
    return re.sub(r"[\W_]+", "_", column.lower()).strip("_")
