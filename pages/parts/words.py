"""What states, formats and settings are called. A state has a word and an icon, never only a colour."""

import re
from collections.abc import Sequence
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
            said = match.groupdict()
            if "export" in said:
                said["export"] = export(said["export"])
            return t(f"words.phase.{name}", None, **said)
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
    "making": r"making (?P<export>\S+)",
    "proving": r"proving (?P<export>\S+)",
    "converting": "converting to GGUF",
    "measuring": "measuring what the training rows use",
    "asking": "asking the adapter",
    "reporting": "making the report",
    "reporting_far": r"making the report, (?P<done>\d+) of (?P<of>\d+) answers",
    "pushing_to": r"pushing to (?P<repo>\S+)",
    "committing": r"committing to (?P<repo>\S+)",
    "pushing": r"pushing (?P<file>[^,]+), (?P<far>.+)",
    "fetching": "fetching (?P<what>.+)",
    "answering": "answering",
    "ready": "ready",
    "room": "ending: another job needed the machine",
    "idle": "ending: nothing was asked for a while",
    "over": "ending: its time is over",
}


IMATRIX = "+imatrix"


def export(kind: str) -> str:
    """What a format of an export is called: `GGUF Q4_K_M`."""
    plain = kind.removesuffix(IMATRIX)
    key = f"words.export.{plain}"
    said = t(key) if has(key) else plain
    return t("words.weighed", export=said) if kind.endswith(IMATRIX) else said


def export_for(kind: str) -> str:
    """What a format is good for, in a sentence."""
    return t(f"words.export_for.{kind.removesuffix(IMATRIX)}")


COUNTED = ("ready", "unproven", "suspect", "failed", "missing")


def counted(states: Sequence[str]) -> str:
    """How many exports stand how: `2 proven, 1 suspect`."""
    there = [name for name in COUNTED if name in states]
    return ", ".join(t(f"words.exports.{name}", count=states.count(name)) for name in there)


def kind(name: str) -> str:
    """What a kind of job is called."""
    key = f"words.kind.{name}"
    return t(key) if has(key) else sentence(name)


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
