"""The versions of a dataset: where each comes from, what differs between two, and deleting one."""

import streamlit as st

from pages.parts import changes, quantities
from pages.parts.escape import md
from pages.parts.ui import frame
from pages.parts.ui.dataset import Chosen
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
        alt="Versions of this dataset",
        column_config={
            "version": st.column_config.TextColumn("Version", width=120),
            "when": st.column_config.TextColumn("Added", width=110),
            "rows": st.column_config.NumberColumn("Rows", width=80, format="localized"),
            "how": st.column_config.TextColumn("How it was made", width="large"),
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
        "Compare with", list(earlier), index=None, placeholder="another version", key=f"diff/{chosen.key}", width=360
    )
    if before is None:
        return
    try:
        with st.spinner("Comparing …"):
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
        f":green-badge[:material/add: {found.added:,} added]",
        f":red-badge[:material/remove: {found.removed:,} removed]",
        f":blue-badge[:material/edit: {found.changed:,} changed]",
        f":gray-badge[{found.unchanged:,} the same]",
    ]
    st.markdown(" ".join(said))
    table = changes.differing(found, SHOWN)
    if len(table):
        st.dataframe(
            table,
            hide_index=True,
            alt="Rows that differ",
            column_config={
                "what": st.column_config.TextColumn("What", width=90),
                "line": st.column_config.NumberColumn("Line", width=70, format="%d"),
                "field": st.column_config.TextColumn("Field", width=110),
                "before": st.column_config.TextColumn("Before", width="medium"),
                "after": st.column_config.TextColumn("After", width="medium"),
            },
        )


def _delete(chosen: Chosen) -> None:
    with st.container(horizontal=True, horizontal_alignment="right"):
        if st.button("Delete this version", icon=":material/delete:", type="tertiary"):
            ask_to_delete(chosen)


@st.dialog("Delete this version?", icon=":material/delete:")
def ask_to_delete(chosen: Chosen) -> None:
    """Says who needs it first. A version that a job still waits for cannot be deleted."""
    assert chosen.stored is not None
    needing = forget.needed_by(chosen.home, chosen.stored)
    using = forget.used_by(chosen.home, chosen.stored)
    if needing:
        st.warning(f"{_jobs(needing)} still to be trained on it. Cancel them first.", icon=":material/lock:")
        return
    if using:
        st.warning(f"{_jobs(using)} among those that used it: results stay, but cannot be made again.")
    back = "The same steps bring it back." if chosen.stored.recipe else "The same file brings it back."
    st.markdown(f"The bytes of **{md(chosen.stored.reference)}** go; its record stays. {back}")
    if st.button("Delete", type="primary", icon=":material/delete:"):
        try:
            forget.delete(chosen.home, chosen.stored.reference, force=True)
        except FinetunerError as error:
            frame.show_error(error.message, error.hint)
            return
        STATE["data-toast"] = f"{chosen.stored.reference} was deleted."
        st.query_params["dataset"] = chosen.stored.name
        st.rerun()


def _jobs(ids: list[str]) -> str:
    shown = ", ".join(f"…{each[-6:]}" for each in ids[:4]) + (f" and {len(ids) - 4} more" if len(ids) > 4 else "")
    return f"The job {shown} is" if len(ids) == 1 else f"The jobs {shown} are"
