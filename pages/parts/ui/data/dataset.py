"""The dataset that the Data page shows: which file, read how, for which model, and what is known of it so far."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import streamlit as st

from pages.parts.data.reading import Reading
from pages.parts.texts import t
from pages.parts.ui import frame
from spool.data import inspect
from spool.data.inspect import Inspection
from spool.data.keeping.keep import Stored
from spool.data.reading.limits import Limits
from spool.protocol import settings
from spool.protocol.home import Home


@dataclass(frozen=True)
class Chosen:
    """What is looked at. `stored` is None for the example, which is a file of its own."""

    home: Home
    reference: str
    """What a job names it by: NAME, NAME@VERSION or a path."""
    path: Path
    stored: Stored | None
    reading: Reading = field(default_factory=Reading)
    model_folder: Path | None = None

    @property
    def key(self) -> str:
        """Part of the keys of widgets that belong to these bytes."""
        return f"{self.stored.name}@{self.stored.version}" if self.stored else self.reference

    @property
    def fixed(self) -> str:
        """Why its rows cannot be changed here; empty where they can."""
        if self.stored is None:
            return t("data.head.fixed")
        return ""

    @property
    def title(self) -> str:
        return self.stored.name if self.stored else t("data.pick.example", name=self.path.stem)

    @property
    def limits(self) -> Limits:
        """What reading it refuses."""
        return settings.load(self.home).data_limits

    def look_as_far_as_possible(self) -> tuple[Inspection, str]:
        """What is known, and why no tokens are counted although there is a model: then it is the model's fault."""
        seen = self.look()
        if seen.error is None or self.model_folder is None:
            return seen, ""
        plain = replace(self, model_folder=None, reading=replace(self.reading, max_length=None)).look()
        return (plain, seen.error["message"]) if plain.error is None else (seen, "")

    def look(self) -> Inspection:
        return inspect.look(self.home, self.path, model_folder=self.model_folder, **self.how())

    def named(self, text: str) -> str:
        """Words about the file with the name that its owner knows instead of the stored file's."""
        known = (self.stored.original_name or self.stored.name) if self.stored else self.path.name
        return text.replace(self.path.name, known)

    def how(self) -> dict[str, Any]:
        """The reading as `spool.data.inspect` takes it."""
        return {
            "format": self.reading.format,
            "mapping": self.reading.mapping,
            "dialect": self.reading.dialect,
            "max_length": self.reading.max_length,
        }


CARRIED = ("format/", "role/", "max-length/")
"""Keys of what a person said of a version that holds for the next one too. Dialects do not: that one is JSON lines."""


def saved(chosen: Chosen, stored: Stored, says: str) -> None:
    """Goes on to a version that was just made, and says so there. Format and roles that were given still hold."""
    state, ending = st.session_state, f"/{chosen.key}"
    if all(step["step"] != "mix" for step in stored.recipe):
        for key in [key for key in state if str(key).startswith(CARRIED) and str(key).endswith(ending)]:
            state[str(key).removesuffix(ending) + f"/{stored.reference}"] = state[key]
    state["data-toast"] = says
    st.query_params["dataset"] = f"{stored.name}@{stored.version}"
    st.rerun()


def train(chosen: Chosen) -> None:
    """To the Train page, with the data and how it is to be read."""
    model = {"model": chosen.model_folder.name} if chosen.model_folder else {}
    st.switch_page(frame.TRAIN, query_params={"data": chosen.reference, **model, **chosen.reading.query()})
