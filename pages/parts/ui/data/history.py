"""The versions of a dataset: where each comes from, what differs between two, and deleting one."""

import streamlit as st

from pages.parts import quantities
from pages.parts.data import changes
from pages.parts.escape import md
from pages.parts.texts import t
from pages.parts.ui import frame
from pages.parts.ui.data.dataset import Chosen
from spool.data.keeping import forget
from spool.data.keeping.diff import Diff, diff
from spool.data.keeping.keep import Stored
from spool.protocol.errors import FinetunerError
from spool.protocol.home import Home

STATE = st.session_state
SHOWN = 50


def show(chosen: Chosen, versions: list[Stored]) -> None:
    """All versions, newest first; a comparison; and the way to delete the one that is shown."""
    assert chosen.stored is not None
    now = frame.now()
    st.dataframe(
        changes.history(versions, [quantities.ago(each.added_at, now) for each in versions]),
        hide_index=True,
        alt=t("data.versions.alt"),
        column_config={
            "version": st.column_config.TextColumn(t("data.versions.version"), width=120),
            "when": st.column_config.TextColumn(t("data.versions.added"), width=110),
            "rows": st.column_config.NumberColumn(t("data.versions.rows"), width=80, format="localized"),
            "how": st.column_config.TextColumn(t("data.versions.how"), width="large"),
        },
    )
    earlier = _comparable(chosen.stored, versions)
    if earlier:
        _compare(chosen, earlier)
    _delete(chosen)


def _comparable(stored: Stored, versions: list[Stored]) -> dict[str, str]:
    """What a version can be compared with, by reference: its parents first, then the other versions."""
    others = [each.reference for each in versions if each.version != stored.version]
    return {each: each for each in dict.fromkeys([*stored.parents, *others])}


def _compare(chosen: Chosen, earlier: dict[str, str]) -> None:
    assert chosen.stored is not None
    before = st.selectbox(
        t("data.versions.compare"), list(earlier), index=None, placeholder=t("data.versions.another"),
        key=f"diff/{chosen.key}", width=360,
    )  # fmt: skip
    if before is None:
        return
    try:
        with st.spinner(t("data.versions.comparing"), show_time=True):
            found = _diff(str(chosen.home.root), before, chosen.stored.reference)
    except FinetunerError as error:
        frame.show_error(error.message, error.hint)
        return
    _drawn(found)


@st.cache_data(max_entries=8, show_spinner=False)
def _diff(root: str, before: str, after: str) -> Diff:
    return diff(Home.at(root), before, after)


def _drawn(found: Diff) -> None:
    said = [
        f":green-badge[:material/add: {t('data.versions.n_added', number=quantities.count(found.added))}]",
        f":red-badge[:material/remove: {t('data.versions.n_removed', number=quantities.count(found.removed))}]",
        f":blue-badge[:material/edit: {t('data.versions.n_changed', number=quantities.count(found.changed))}]",
        f":gray-badge[{t('data.versions.n_same', number=quantities.count(found.unchanged))}]",
    ]
    st.markdown(" ".join(said))
    table = changes.differing(found, SHOWN)
    if len(table):
        st.dataframe(
            table,
            hide_index=True,
            alt=t("data.versions.differ"),
            column_config={
                "what": st.column_config.TextColumn(t("data.versions.what"), width=90),
                "line": st.column_config.NumberColumn(t("data.versions.line"), width=70, format="%d"),
                "field": st.column_config.TextColumn(t("data.versions.field"), width=110),
                "before": st.column_config.TextColumn(t("data.versions.before"), width="medium"),
                "after": st.column_config.TextColumn(t("data.versions.after"), width="medium"),
            },
        )


def _delete(chosen: Chosen) -> None:
    with st.container(horizontal=True, horizontal_alignment="right"):
        if st.button(t("data.delete.open"), icon=":material/delete:", type="tertiary"):
            # Made here, where the reader's language is known.
            st.dialog(t("data.delete.title"), icon=":material/delete:")(ask_to_delete)(chosen)


def ask_to_delete(chosen: Chosen) -> None:
    """Says who needs it first. A version that a job still waits for cannot be deleted."""
    assert chosen.stored is not None
    needing = forget.needed_by(chosen.home, chosen.stored)
    using = forget.used_by(chosen.home, chosen.stored)
    if needing:
        st.warning(_jobs("data.delete.needed", needing), icon=":material/lock:")
        return
    if using:
        st.warning(_jobs("data.delete.used", using))
    back = t("data.delete.steps") if chosen.stored.recipe else t("data.delete.file")
    st.markdown(t("data.delete.says", reference=md(chosen.stored.reference), back=back))
    if st.button(t("data.delete.go"), type="primary", icon=":material/delete:"):
        try:
            forget.delete(chosen.home, chosen.stored.reference, force=True)
        except FinetunerError as error:
            frame.show_error(error.message, error.hint)
            return
        STATE["data-toast"] = t("data.delete.done", reference=chosen.stored.reference)
        st.query_params["dataset"] = chosen.stored.name
        st.rerun()


def _jobs(key: str, ids: list[str]) -> str:
    shown = ", ".join(f"…{each[-6:]}" for each in ids[:4])
    if len(ids) > 4:
        shown = t("data.delete.more", jobs=shown, number=len(ids) - 4)
    return t(key, count=len(ids), jobs=shown)
