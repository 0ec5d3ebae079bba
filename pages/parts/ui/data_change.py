"""Changing a dataset by steps, each of which makes a new version: duplicates, masking, splitting, variants, mixing."""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import streamlit as st

from pages.parts import changes
from pages.parts.escape import md, one_line
from pages.parts.ui import dataset, frame
from pages.parts.ui.dataset import Chosen
from spool.data import inspect
from spool.data.keeping import augment, keep, recipe
from spool.data.keeping.steps import reading
from spool.protocol.errors import FinetunerError

PREVIEWED_ROWS = 300
Steps = list[dict[str, Any]]


def show(chosen: Chosen, report: dict[str, Any]) -> None:
    """One kind of change at a time, with its settings and what it does in a sentence."""
    kind = st.pills(
        "What to change", list(KINDS), default="dedupe", required=True, format_func=lambda name: KINDS[name][0],
        key=f"change/{chosen.key}", label_visibility="collapsed",
    )  # fmt: skip
    _, says, ask = KINDS[kind]
    with st.container(border=True):
        st.caption(says)
        ask(chosen, report)
    st.caption(":material/history: A change makes a new version. This one stays as it is, and its jobs keep it.")


def derive(chosen: Chosen, steps: Steps, says: str, name: str | None = None, others: list[str] | None = None) -> None:
    """Applies steps and goes on to the version that comes of them; what cannot be done is said in words."""
    assert chosen.stored is not None
    sources = [chosen.stored.reference, *(others or [])]
    made, read = name or chosen.stored.name, reading(chosen.reading.dialect)
    _keep(chosen, lambda: recipe.derive(chosen.home, made, sources, [*read, *steps]), says)


def add_rows(chosen: Chosen, corrected: bytes) -> None:
    """Adds the rows of a corrected rejects.jsonl as a new version."""
    assert chosen.stored is not None
    reference = chosen.stored.reference
    with TemporaryDirectory() as folder:
        path = Path(folder) / "corrected.jsonl"
        path.write_bytes(corrected)
        dialect = chosen.reading.dialect
        says = "The corrected rows are in a new version."
        _keep(chosen, lambda: recipe.add_rows(chosen.home, reference, path, dialect), says)


def _keep(chosen: Chosen, make: Callable[[], keep.Stored], says: str) -> None:
    try:
        with st.spinner("Making a new version …"):
            stored = make()
    except FinetunerError as error:
        frame.show_error(error.message, error.hint)
    except OSError as error:
        frame.show_error(f"The new version could not be written: {error.strerror}.", "Check the disk of the data home.")
    else:
        dataset.saved(chosen, stored, says)


def _dedupe(chosen: Chosen, report: dict[str, Any]) -> None:
    near = st.toggle("Also rows that are nearly the same", help="Compares three words at a time (MinHash).")
    threshold = 0.85
    if near:
        threshold = st.slider("How alike they must be", 0.5, 1.0, 0.85, 0.01, format="percent")
    if _go("Remove duplicates"):
        step = {"step": "dedupe", "near": near, "threshold": threshold, **_how(chosen)}
        derive(chosen, [step], "The repeated rows are gone.")


def _mask(chosen: Chosen, report: dict[str, Any]) -> None:
    what = st.pills(
        "What to mask", list(changes.MASKED), selection_mode="multi", default=list(changes.MASKED),
        format_func=changes.MASKED.__getitem__, label_visibility="collapsed",
    )  # fmt: skip
    if _go("Mask it", disabled=not what):
        derive(chosen, [{"step": "mask", "what": what}], "Secrets and personal data are masked.")


def _split(chosen: Chosen, report: dict[str, Any]) -> None:
    with st.grid(2, min_column_width=220):
        share = st.slider("For evaluation", 0.01, 0.5, 0.1, 0.01, format="percent")
        seed = st.number_input("Seed", min_value=0, value=42, step=1, help="The same seed chooses the same rows.")
        by = _column("Keep together", report, "rows with the same question", "No group stands on both sides.")
        even = _column("Spread evenly", report, "no", "Each value of it gets its share of the evaluation rows.")
    if _go("Split"):
        assert chosen.stored is not None
        reference = chosen.stored.reference

        def make() -> keep.Stored:
            how = {"eval_fraction": share, "seed": seed, "by": by, "stratify": even, **_how(chosen)}
            return recipe.split(chosen.home, reference, **how, dialect=chosen.reading.dialect)[0]

        _keep(chosen, make, "Two datasets were made, one for training and one for evaluation.")


def _cap(chosen: Chosen, report: dict[str, Any]) -> None:
    with st.grid(2, min_column_width=220):
        rows = st.number_input("Rows to keep", min_value=1, value=max(1, report["rows"] // 2), step=100)
        how = st.segmented_control("Which", ["at random", "the first"], default="at random", required=True)
    if _go("Keep these"):
        seed = 42 if how == "at random" else None
        derive(chosen, [{"step": "cap", "rows": rows, "seed": seed}], f"{rows:,} rows were kept.")


def _augment(chosen: Chosen, report: dict[str, Any]) -> None:
    usual = "balance" if report["format"] == "label" else "wrap"
    kind = st.segmented_control(
        "Kind", list(changes.VARIANTS), default=usual, required=True, width="stretch",
        format_func=lambda name: changes.VARIANTS[name][0], label_visibility="collapsed",
    )  # fmt: skip
    st.caption(changes.VARIANTS[kind][1])
    step: dict[str, Any] = {"step": "augment", "kind": kind, **_how(chosen)}
    if kind == "balance":
        step["up_to"] = st.slider("Up to this share of the most frequent label", 0.1, 1.0, 1.0, 0.05, format="percent")
        step["most"] = st.number_input("Copies of one row, at most", min_value=1, max_value=100, value=5)
    else:
        step["share"] = st.slider("Share of the rows", 0.01, 1.0, 0.3, 0.01, format="percent")
    if kind == "noise":
        step["typos"] = st.slider("Letters with an error", 0.01, 0.2, 0.03, 0.01, format="percent")
    try:
        first = inspect.head(chosen.path, PREVIEWED_ROWS, chosen.limits, chosen.reading.dialect)
        pairs = augment.preview(first, step)
    except FinetunerError as error:
        st.caption(f":material/info: {md(error.message, 300)} {md(error.hint, 300)}")
        return
    if not pairs:
        st.caption(":material/info: Nothing in the first rows would be changed by this.")
    else:
        st.dataframe(
            changes.compared(pairs),
            hide_index=True,
            alt="What would be added",
            column_config={
                "field": st.column_config.TextColumn("Field", width=100),
                "before": st.column_config.TextColumn("From this row", width="medium"),
                "after": st.column_config.TextColumn("This one is made", width="medium"),
            },
        )
    if _go("Add variants", disabled=not pairs):
        derive(chosen, [step], "Variants were added, and each says that it is one.")


def _mix(chosen: Chosen, report: dict[str, Any]) -> None:
    assert chosen.stored is not None
    names = list(dict.fromkeys(each.name for each in keep.list_datasets(chosen.home)))
    others = st.multiselect("Mix with", [name for name in names if name != chosen.stored.name])
    if not others:
        return
    with st.grid(3, min_column_width=160):
        weights = [
            st.number_input(f"Parts of {one_line(name, 40)}", min_value=0.1, value=1.0, step=0.5, format="%g")
            for name in [chosen.stored.name, *others]
        ]
        rows = st.number_input("Rows in all", min_value=1, value=None, step=100, placeholder="as many as repeat none")
    name = st.text_input("Name", f"{chosen.stored.name[:70]}-mix", max_chars=80)
    if _go("Mix"):
        step = {"step": "mix", "weights": weights, "rows": rows, "seed": 42}
        derive(chosen, [step], "The datasets were mixed.", name, others)


def _go(label: str, disabled: bool = False) -> bool:
    return st.button(label, type="primary", icon=":material/save:", disabled=disabled)


def _column(label: str, report: dict[str, Any], none: str, help: str) -> str | None:
    chosen = st.selectbox(
        label, [None, *report["columns"]], format_func=lambda name: none if name is None else md(name, 60), help=help
    )
    return None if chosen is None else str(chosen)


def _how(chosen: Chosen) -> dict[str, Any]:
    return {"format": chosen.reading.format, "mapping": chosen.reading.mapping}


KINDS: dict[str, tuple[str, str, Callable[[Chosen, dict[str, Any]], None]]] = {
    "dedupe": ("Remove duplicates", "Of rows that teach the same, the first one stays.", _dedupe),
    "mask": ("Mask personal data", "Placeholders such as [EMAIL] take the place of what is found.", _mask),
    "split": (
        "Split off evaluation rows",
        "Makes two datasets, so that you can measure on rows that were never trained on.",
        _split,
    ),
    "cap": ("Keep fewer rows", "A smaller dataset trains faster: good for a first try.", _cap),
    "augment": ("Add variants", "Rows made from your own by fixed rules, marked as such; answers stay.", _augment),
    "mix": ("Mix with others", "Several datasets become one, each with its share.", _mix),
}
