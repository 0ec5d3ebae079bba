"""Compare: several runs on one chart, and what differs between them.

The address holds the runs (`/compare?jobs=ID,ID`) and every choice, so a link shows somebody else the same.
"""

import streamlit as st

from pages.parts.compare import dossier
from pages.parts.run.curves import look
from pages.parts.texts import t
from pages.parts.ui import frame
from pages.parts.ui.compare import chart, tables
from spool.protocol.jobs import get_job

HOME = frame.home()
REFRESH_S = 5


def show(ids: list[str], polled: bool) -> None:
    """Everything about the chosen runs. When the last of them has ended, the page runs once more and polling stops."""
    tables.go()
    dossiers = [dossier.read(HOME, get_job(HOME, each)) for each in ids]
    if polled and all(each.job.ended for each in dossiers):
        st.rerun()
    named = chart.names(each.job for each in dossiers)
    curves = {each: look(HOME.run(each).metrics).columns for each in ids}
    chart.verdict(dossiers, named)
    chart.chart(curves, named)
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        st.subheader(t("compare.outcomes"), anchor=False, width="content")
        with st.container(horizontal=True, width="content", gap="small"):
            tables.take_along(dossiers, curves, named)
            chart.take_along(curves, named)
    tables.outcomes(dossiers, curves, named)
    tables.differing(dossiers, named)


frame.title(t("frame.page.compare"), t("compare.says"))
known = chart.comparable(frame.jobs())
if not known:
    frame.nothing(t("compare.empty.head"), t("compare.empty.says"), frame.TRAIN, t("compare.empty.do"))
else:
    chosen = chart.pick(known)
    if not chosen:
        chart.suggestions(known)
    else:
        live = any(not known[each].ended for each in chosen)
        with frame.plain_errors():
            st.fragment(show, run_every=REFRESH_S if live else None)(chosen, live)
