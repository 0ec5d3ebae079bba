"""Models: every adapter that a job has made, how they answer beside each other, the page of one (`/models?model=ID`),
and the bases on this server."""

import streamlit as st

from pages.parts.compare import dossier
from pages.parts.escape import md
from pages.parts.models import shelf
from pages.parts.texts import t
from pages.parts.ui import frame
from pages.parts.ui.models import board, listing, model
from spool.protocol import notes

HOME = frame.home()

listing.go()
board.go()
everything = frame.jobs()
asked = st.query_params.get("model")
if asked:
    found = next((job for job in everything if job.id == asked and job.state == "done"), None)
    if found is None:
        model.back()
        frame.show_error(t("models.unknown", id=md(asked, 60)), t("models.unknown_hint"))
    else:
        with frame.plain_errors():
            model.show(HOME, dossier.read(HOME, found), {job.id: job for job in everything})
else:
    frame.title(t("frame.page.models"), t("models.says"))
    made = shelf.models(HOME, everything, notes.read_all(HOME))
    if made:
        listing.show(made)
    else:
        frame.nothing(t("models.empty.head"), t("models.empty.says"), frame.TRAIN, t("models.empty.do"))
    board.show(HOME, everything)
    st.space("small")
    listing.bases(shelf.bases(HOME), everything)
