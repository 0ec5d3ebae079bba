"""What states, formats and settings are called. A state has a word and an icon, never only a colour."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Look:
    label: str
    icon: str
    color: str


STATES = {
    "checking": Look("Checking", ":material/hourglass_empty:", "gray"),
    "queued": Look("Waiting", ":material/schedule:", "gray"),
    "running": Look("Running", ":material/play_circle:", "blue"),
    "held": Look("On hold", ":material/pause_circle:", "orange"),
    "done": Look("Done", ":material/check_circle:", "green"),
    "failed": Look("Failed", ":material/error:", "red"),
    "cancelled": Look("Cancelled", ":material/cancel:", "gray"),
    "rejected": Look("Not accepted", ":material/block:", "red"),
}

FORMATS = {
    "alpaca": "Instruction and output",
    "prompt_completion": "Prompt and completion",
    "question_answer": "Question and answer",
    "sharegpt": "Conversations (ShareGPT)",
    "messages": "Conversations (messages)",
    "text": "Plain text",
    "preference": "Chosen and rejected answers",
    "label": "Text and label",
}

GROUPS = {
    "": "Job",
    "lora": "Adapter (LoRA)",
    "train": "Training",
    "data": "Data",
    "eval": "Evaluation",
    "limits": "Limits",
}

LABELS = {
    "/name": "Name",
    "/model": "Base model",
    "/dataset": "Dataset",
    "/lora/rank": "LoRA rank",
    "/lora/alpha": "LoRA alpha",
    "/lora/rslora": "Rank-stabilised LoRA",
    "/train/max_steps": "Stop after steps",
    "/train/effective_batch": "Batch (rows a step)",
    "/train/batch_size": "Rows on the card at once",
    "/train/warmup_ratio": "Warm-up (share of steps)",
    "/train/logging_steps": "Log every … steps",
    "/train/save_steps": "Checkpoint every … steps",
    "/data/train_on": "Learn from",
    "/data/max_length": "Longest row (tokens)",
    "/data/mapping": "Column mapping",
    "/data/header": "First line names the columns",
    "/data/drop": "Leave out rows with",
    "/data/eval_fraction": "Share kept for evaluation",
    "/eval/dataset": "Evaluate on",
    "/eval/every_steps": "Evaluate every … steps",
    "/limits/max_hours": "Stop after hours",
    "/limits/divergence_factor": "Diverged at times the best loss",
    "/limits/stall_minutes": "Stalled after minutes without a sign",
    "/limits/min_free_gb": "Free disk needed (GB)",
    "/limits/max_fraction": "Findings allowed (share of rows)",
    "/limits/max_problem_fraction": "Unusable rows allowed (share)",
}


ROLES = {
    "prompt": "Prompt (what is asked)",
    "completion": "Completion (the answer)",
    "system": "System (instructions)",
    "messages": "Messages",
    "text": "Text",
}
"""Roles of columns where the name alone may not say it."""


def role(name: str) -> str:
    return ROLES.get(name, name.replace("_", " ").capitalize())


def state(name: str) -> Look:
    return STATES.get(name, Look(name.capitalize(), ":material/help:", "gray"))


def sentence(text: str) -> str:
    """With a capital first letter, the others as they are."""
    return text[:1].upper() + text[1:]


def label(pointer: str) -> str:
    """A form label for a field of the spec."""
    return LABELS.get(pointer, pointer.rpartition("/")[2].replace("_", " ").capitalize())


def format_name(name: str | None) -> str:
    return FORMATS.get(name or "", name or "not recognised")
