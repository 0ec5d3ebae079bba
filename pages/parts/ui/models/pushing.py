"""Putting exports into a repository on the Hugging Face Hub: a dialog that asks for one job."""

from collections.abc import Mapping, Sequence

import streamlit as st

from pages.parts import alive, words
from pages.parts.escape import md
from pages.parts.models import making, proof
from pages.parts.models.shelf import Export
from pages.parts.phrases import translated
from pages.parts.texts import t
from pages.parts.ui import frame, jobs
from spool.protocol import formats
from spool.protocol.errors import FinetunerError, SpecError
from spool.protocol.home import Home
from spool.protocol.jobs import Job

STATE = st.session_state
WHAT, REPO, PRIVATE, ERROR, SENT = (f"push-{name}" for name in ("what", "repo", "private", "error", "sent"))
GGUFS = "ggufs"
LONGEST = 193


def button(home: Home, model: Job, there: Sequence[Export], everything: Mapping[str, Job]) -> None:
    """Opens the dialog; nothing where nothing is there that may be pushed."""
    fit = [export.kind for export in there if export.state in (proof.READY, proof.ORIGINAL)]
    if fit and st.button(t("models.push.button"), icon=":material/cloud_upload:", type="tertiary", key="push-open"):
        for name in (ERROR, SENT):
            STATE.pop(name, None)
        before = making.of(home, everything.values(), model.id)
        st.dialog(t("models.push.title"), icon=":material/cloud_upload:", on_dismiss="rerun")(_inside)(
            home, model, fit, before
        )


def _inside(home: Home, model: Job, fit: Sequence[str], before: Sequence[Job]) -> None:
    if sent := STATE.get(SENT):
        st.markdown(f":green[:material/check_circle:] {t('models.push.sent')}")
        frame.link(frame.MONITOR, t("models.making.watch"), icon=":material/monitoring:", job=sent)
        if not alive.look(home).alive:
            frame.runner_notice()
        return
    ggufs = [kind for kind in fit if formats.gguf(kind)]
    choices = [*([GGUFS] if len(ggufs) > 1 else []), *fit]
    st.markdown(t("models.push.says"))
    st.selectbox(
        t("models.push.what"), choices, key=WHAT,
        format_func=lambda kind: t("models.push.ggufs", number=len(ggufs)) if kind == GGUFS else words.export(kind),
    )  # fmt: skip
    st.text_input(t("models.push.repo"), key=REPO, placeholder=t("models.push.example"), max_chars=LONGEST)
    st.toggle(t("models.push.private"), True, key=PRIVATE, help=t("models.push.private_help"))
    st.caption(t("models.push.token"))

    def push() -> None:
        repo, private = str(STATE.get(REPO) or "").strip(), STATE.get(PRIVATE) is not False
        kinds = ggufs if STATE.get(WHAT) == GGUFS else [str(STATE.get(WHAT))]
        name = t("models.push.name", model=jobs.short_name(model), repo=repo)
        try:
            STATE[SENT] = making.submit(home, model, kinds, name, before, {"repo": repo, "private": private})
            frame.roster().stale()
        except SpecError as error:
            problem = error.problems[0]
            STATE[ERROR] = (
                f"{translated(problem.message)} {translated(problem.hint)}" if repo else t("models.push.no_repo")
            )
        except (OSError, FinetunerError) as error:
            why = getattr(error, "strerror", None) or str(error)
            STATE[ERROR] = t("models.making.unwritable", why=why)

    st.button(t("models.push.go"), type="primary", icon=":material/cloud_upload:", on_click=push, key="push-go")
    if error := STATE.pop(ERROR, None):
        st.error(md(error, 400), icon=":material/error:")
