"""The settings of the Train page: the essentials with their reasons, and the rest folded by group."""

from collections.abc import Mapping

import streamlit as st

from pages.parts import words
from pages.parts.texts import t
from pages.parts.train import fields
from pages.parts.train.fields import Field
from pages.parts.train.presets import Choice
from pages.parts.ui.train import inputs
from pages.parts.ui.train.form import EXPORTS, KEY, STATE
from spool.protocol import formats

ICONS = {
    "": ":material/badge:",
    "lora": ":material/extension:",
    "train": ":material/fitness_center:",
    "data": ":material/dataset:",
    "eval": ":material/query_stats:",
    "limits": ":material/shield:",
}

SAID = ("merged", "gguf:q4_k_m", "gguf:q8_0")
"""What most people need: offered first, and with a word on what it is for."""

LATE = (words.IMATRIX, "16", "lora", "onnx")
EXPORTED = (
    *SAID,
    *sorted((kind for kind in formats.FORMATS if kind not in (*SAID, "adapter")), key=lambda kind: kind.endswith(LATE)),
)
"""Then the other quantised ones, and last what few people ask for."""


def essentials(chosen: Mapping[str, Choice]) -> None:
    """What decides most, each with the outcome's reason for its value."""
    known = fields.all_fields()
    with st.grid(2, min_column_width=260, gap=("medium", "small")) as grid:
        for pointer in fields.ESSENTIAL:
            with grid.cell():
                inputs.draw(known[pointer], KEY, chosen[pointer].why if pointer in chosen else "")


def rest(chosen: Mapping[str, Choice]) -> None:
    """All other settings, one fold for each group."""
    others = [field for pointer, field in fields.all_fields().items() if pointer not in fields.ESSENTIAL]
    with st.container(gap="xsmall"):
        for group in words.GROUPS:
            members = [field for field in others if field.group == group]
            changed = _changed(group, members)
            icon = ":material/edit:" if changed else ICONS[group]
            with st.expander(
                words.group(group), icon=icon, key=f"train-fold-{group}"
            ):  # another label would fold it up
                if changed:
                    st.markdown(f":small[:blue[:material/edit: {t('train.changed_in', count=changed)}]]")
                _group(group, members, chosen)


def _changed(group: str, members: list[Field]) -> int:
    return sum(inputs.changed(field, KEY) for field in members) + (group == "" and bool(STATE.get(EXPORTS)))


def _group(group: str, members: list[Field], chosen: Mapping[str, Choice]) -> None:
    with st.grid(2, min_column_width=240, gap=("medium", "small")) as grid:
        for field in members:
            with grid.cell(column_span="all" if field.kind == "texts" else 1):
                inputs.draw(field, KEY, chosen[field.pointer].why if field.pointer in chosen else "")
        if group == "":
            with grid.cell(column_span="all"):
                _exports()


def _exports() -> None:
    """What to make beside the adapter, the usual choices first."""
    st.multiselect(
        t("train.exports"), EXPORTED, format_func=_export, help=t("train.exports_help"), key=EXPORTS,
        placeholder=t("train.exports_none"), select_all=False, persist_state="session",
    )  # fmt: skip


def _export(kind: str) -> str:
    """`GGUF Q4_K_M: for Ollama and llama.cpp`, as short as a choice must be."""
    plain = kind.removesuffix(words.IMATRIX)
    return t(f"train.export.{plain}", export=words.export(kind)) if plain in SAID else words.export(kind)


def reset_all() -> None:
    """One way back for everything that was changed; nothing where nothing was."""
    known = fields.all_fields().values()
    changed = [field for field in known if inputs.changed(field, KEY) and field.pointer != "/name"]
    if not changed:
        return

    def back() -> None:
        for field in changed:
            inputs.reset(field, KEY)

    listed = ", ".join(field.label for field in changed)
    label = t("train.reset_all", count=len(changed))
    st.button(label, icon=":material/undo:", type="tertiary", help=listed, on_click=back, key="reset-all")
