"""What states, formats and settings are called. A state has a word and an icon, never only a colour."""

import re
from dataclasses import dataclass

from pages.parts.texts import has, t


@dataclass(frozen=True)
class Look:
    """How a state is shown: `color` is one of Streamlit's Markdown colours."""

    name: str
    icon: str
    color: str

    @property
    def label(self) -> str:
        key = f"words.state.{self.name}"
        return t(key) if has(key) else self.name.capitalize()


STATES = {
    look.name: look
    for look in (
        Look("checking", ":material/hourglass_empty:", "gray"),
        Look("queued", ":material/schedule:", "gray"),
        Look("running", ":material/play_circle:", "blue"),
        Look("held", ":material/pause_circle:", "orange"),
        Look("done", ":material/check_circle:", "green"),
        Look("failed", ":material/error:", "red"),
        Look("cancelled", ":material/cancel:", "gray"),
        Look("rejected", ":material/block:", "red"),
    )
}

GROUPS = ("", "lora", "train", "data", "eval", "limits")


def state(name: str) -> Look:
    return STATES.get(name, Look(name, ":material/help:", "gray"))


def group(name: str) -> str:
    """What a group of settings is called; the empty one holds those outside of any."""
    return t(f"words.group.{name or 'top'}")


def role(name: str) -> str:
    """What a column's role is called, where its name alone may not say it."""
    key = f"words.role.{name}"
    return t(key) if has(key) else name.replace("_", " ").capitalize()


def sentence(text: str) -> str:
    """With a capital first letter, the others as they are."""
    return text[:1].upper() + text[1:]


def phase(told: str) -> str:
    """What a job says that it does; of what is not known here, its own words."""
    for name, pattern in PHASES.items():
        if match := re.fullmatch(pattern, told):
            return t(f"words.phase.{name}", None, **match.groupdict())
    return sentence(told)


PHASES = {
    "starting": "starting",
    "libraries": "loading the libraries",
    "model": "loading the model",
    "training": "training",
    "resumed": r"training, from step (?P<step>\d+)",
    "taken_up": r"taking up the trained adapter of step (?P<step>\d+)",
    "saving": "saving the adapter",
    "merging": "merging",
    "fetching": "fetching (?P<what>.+)",
    "answering": "answering",
    "ready": "ready",
    "room": "ending: another job needed the machine",
    "idle": "ending: nothing was asked for a while",
    "over": "ending: its time is over",
}


def label(pointer: str) -> str:
    """A form label for a field of the spec."""
    key = f"words.label.{pointer}"
    return t(key) if has(key) else pointer.rpartition("/")[2].replace("_", " ").capitalize()


def explain(pointer: str, english: str) -> str:
    """What a setting does: in English as the spec itself says it."""
    key = f"help.{pointer}"
    return t(key) if has(key) else english


def format_name(name: str | None) -> str:
    key = f"words.format.{name}"
    return t(key) if name and has(key) else name or t("words.format.none")
