"""Changing a dataset by steps, each of which makes a new version: duplicates, masking, splitting, variants, mixing."""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import streamlit as st

from pages.parts import quantities
from pages.parts.data import changes
from pages.parts.escape import md, one_line
from pages.parts.phrases import translated
from pages.parts.texts import t, table
from pages.parts.ui import frame
from pages.parts.ui.data import dataset
from pages.parts.ui.data.dataset import Chosen
from spool.data import inspect
from spool.data.keeping import augment, keep, recipe
from spool.data.keeping.steps import reading
from spool.protocol.errors import FinetunerError

PREVIEWED_ROWS = 300
Steps = list[dict[str, Any]]


def show(chosen: Chosen, report: dict[str, Any]) -> None:
    """One kind of change at a time, with its settings and what it does in a sentence."""
    kind = st.pills(
        t("data.change.label"), list(KINDS), default="dedupe", required=True,
        format_func=lambda name: t(f"data.{name}.title"), key=f"change/{chosen.key}", label_visibility="collapsed",
    )  # fmt: skip
    with st.container(border=True):
        st.caption(t(f"data.{kind}.says"))
        KINDS[kind](chosen, report)
    st.caption(f":material/history: {t('data.change.history')}")


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
        says = t("data.change.added")
        _keep(chosen, lambda: recipe.add_rows(chosen.home, reference, path, dialect), says)


def _keep(chosen: Chosen, make: Callable[[], keep.Stored], says: str) -> None:
    try:
        with st.spinner(t("data.change.working"), show_time=True):
            stored = make()
    except FinetunerError as error:
        frame.show_error(error.message, error.hint)
    except OSError as error:
        frame.show_error(t("data.change.failed", problem=error.strerror), t("data.upload.disk"))
    else:
        dataset.saved(chosen, stored, says)


def _dedupe(chosen: Chosen, report: dict[str, Any]) -> None:
    near = st.toggle(t("data.dedupe.near"), help=t("data.dedupe.near_help"))
    threshold = 0.85
    if near:
        threshold = st.slider(t("data.dedupe.alike"), 0.5, 1.0, 0.85, 0.01, format="percent")
    if _go(t("data.dedupe.go")):
        step = {"step": "dedupe", "near": near, "threshold": threshold, **_how(chosen)}
        derive(chosen, [step], t("data.dedupe.done"))


def _mask(chosen: Chosen, report: dict[str, Any]) -> None:
    masked = table("data.mask.what")
    what = st.pills(
        t("data.mask.label"), list(masked), selection_mode="multi", default=list(masked),
        format_func=masked.__getitem__, label_visibility="collapsed",
    )  # fmt: skip
    if _go(t("data.mask.go"), disabled=not what):
        derive(chosen, [{"step": "mask", "what": what}], t("data.mask.done"))


def _split(chosen: Chosen, report: dict[str, Any]) -> None:
    with st.grid(2, min_column_width=220):
        share = st.slider(t("data.split.share"), 0.01, 0.5, 0.1, 0.01, format="percent")
        seed = st.number_input(t("data.split.seed"), min_value=0, value=42, step=1, help=t("data.split.seed_help"))
        by = _column("together", report)
        even = _column("evenly", report)
    if _go(t("data.split.go")):
        assert chosen.stored is not None
        reference = chosen.stored.reference

        def make() -> keep.Stored:
            how = {"eval_fraction": share, "seed": seed, "by": by, "stratify": even, **_how(chosen)}
            return recipe.split(chosen.home, reference, **how, dialect=chosen.reading.dialect)[0]

        _keep(chosen, make, t("data.split.done"))


def _cap(chosen: Chosen, report: dict[str, Any]) -> None:
    with st.grid(2, min_column_width=220):
        rows = st.number_input(t("data.cap.rows"), min_value=1, value=max(1, report["rows"] // 2), step=100)
        hows = table("data.cap.how")
        how = st.segmented_control(
            t("data.cap.which"), list(hows), default="random", required=True, format_func=hows.__getitem__
        )
    if _go(t("data.cap.go")):
        seed = 42 if how == "random" else None
        derive(chosen, [{"step": "cap", "rows": rows, "seed": seed}], t("data.cap.done", rows=quantities.count(rows)))


def _augment(chosen: Chosen, report: dict[str, Any]) -> None:
    kinds = table("data.augment.kind")
    usual = "balance" if report["format"] == "label" else "wrap"
    kind = st.segmented_control(
        t("data.augment.label"), list(kinds), default=usual, required=True, width="stretch",
        format_func=kinds.__getitem__, label_visibility="collapsed",
    )  # fmt: skip
    st.caption(t(f"data.augment.kind_says.{kind}"))
    step: dict[str, Any] = {"step": "augment", "kind": kind, **_how(chosen)}
    if kind == "balance":
        step["up_to"] = st.slider(t("data.augment.up_to"), 0.1, 1.0, 1.0, 0.05, format="percent")
        step["most"] = st.number_input(t("data.augment.most"), min_value=1, max_value=100, value=5)
    else:
        step["share"] = st.slider(t("data.augment.share"), 0.01, 1.0, 0.3, 0.01, format="percent")
    if kind == "noise":
        step["typos"] = st.slider(t("data.augment.typos"), 0.01, 0.2, 0.03, 0.01, format="percent")
    try:
        first = inspect.head(chosen.path, PREVIEWED_ROWS, chosen.limits, chosen.reading.dialect)
        pairs = augment.preview(first, step)
    except FinetunerError as error:
        st.caption(f":material/info: {md(translated(error.message), 300)} {md(translated(error.hint), 300)}")
        return
    if not pairs:
        st.caption(f":material/info: {t('data.augment.none')}")
    else:
        st.dataframe(
            changes.compared(pairs),
            hide_index=True,
            alt=t("data.augment.alt"),
            column_config={
                "field": st.column_config.TextColumn(t("data.augment.field"), width=100),
                "before": st.column_config.TextColumn(t("data.augment.before"), width="medium"),
                "after": st.column_config.TextColumn(t("data.augment.after"), width="medium"),
            },
        )
    if _go(t("data.augment.go"), disabled=not pairs):
        derive(chosen, [step], t("data.augment.done"))


def _mix(chosen: Chosen, report: dict[str, Any]) -> None:
    assert chosen.stored is not None
    names = list(dict.fromkeys(each.name for each in keep.list_datasets(chosen.home)))
    others = st.multiselect(t("data.mix.label"), [name for name in names if name != chosen.stored.name])
    if not others:
        return
    with st.grid(3, min_column_width=160):
        weights = [
            st.number_input(
                t("data.mix.parts", name=one_line(name, 40)), min_value=0.1, value=1.0, step=0.5, format="%g"
            )
            for name in [chosen.stored.name, *others]
        ]
        rows = st.number_input(
            t("data.mix.rows"), min_value=1, value=None, step=100, placeholder=t("data.mix.rows_none")
        )
    name = st.text_input(t("data.mix.name"), t("data.mix.name_of", name=chosen.stored.name[:70]), max_chars=80)
    if _go(t("data.mix.go")):
        step = {"step": "mix", "weights": weights, "rows": rows, "seed": 42}
        derive(chosen, [step], t("data.mix.done"), name, others)


def _go(label: str, disabled: bool = False) -> bool:
    return st.button(label, type="primary", icon=":material/save:", disabled=disabled)


def _column(what: str, report: dict[str, Any]) -> str | None:
    """A column by which rows are split, or none."""
    none = t(f"data.split.{what}_none")
    chosen = st.selectbox(
        t(f"data.split.{what}"), [None, *report["columns"]], help=t(f"data.split.{what}_help"),
        format_func=lambda name: none if name is None else md(name, 60),
    )  # fmt: skip
    return None if chosen is None else str(chosen)


def _how(chosen: Chosen) -> dict[str, Any]:
    return {"format": chosen.reading.format, "mapping": chosen.reading.mapping}


KINDS: dict[str, Callable[[Chosen, dict[str, Any]], None]] = {
    "dedupe": _dedupe,
    "mask": _mask,
    "split": _split,
    "cap": _cap,
    "augment": _augment,
    "mix": _mix,
}
