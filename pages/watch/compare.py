"""Compare: several runs on one chart, and what differs between them.

The address holds the runs (`/compare?jobs=ID,ID`) and every choice, so a link shows somebody else the same.
"""

import streamlit as st

from pages.parts import dossier
from pages.parts.curves import look
from pages.parts.texts import t
from pages.parts.ui import compare, compare_tables, frame
from spool.protocol.jobs import get_job

HOME = frame.home()
REFRESH_S = 5


def show(ids: list[str], polled: bool) -> None:
    """Everything about the chosen runs. When the last of them has ended, the page runs once more and polling stops."""
    compare_tables.go()
    dossiers = [dossier.read(HOME, get_job(HOME, each)) for each in ids]
    if polled and all(each.job.ended for each in dossiers):
        st.rerun()
    named = compare.names(each.job for each in dossiers)
    curves = {each: look(HOME.run(each).metrics).columns for each in ids}
    compare.verdict(dossiers, named)
    compare.chart(curves, named)
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        st.subheader(t("compare.outcomes"), anchor=False, width="content")
        with st.container(horizontal=True, width="content", gap="small"):
            compare_tables.take_along(dossiers, curves, named)
            compare.take_along(curves, named)
    compare_tables.outcomes(dossiers, curves, named)
    compare_tables.differing(dossiers, named)


frame.title(t("frame.page.compare"), t("compare.says"))
known = compare.comparable(frame.jobs())
if not known:
    frame.nothing(t("compare.empty.head"), t("compare.empty.says"), frame.TRAIN, t("compare.empty.do"))
else:
    chosen = compare.pick(known)
    if not chosen:
        compare.suggestions(known)
    else:
        live = any(not known[each].ended for each in chosen)
        with frame.plain_errors():
            st.fragment(show, run_every=REFRESH_S if live else None)(chosen, live)
