"""Asking for reports: one dialog for one model or several, and where their jobs can be watched."""

from collections.abc import Mapping, Sequence

import streamlit as st

from pages.parts import alive, quantities
from pages.parts.escape import md, one_line
from pages.parts.models import asking
from pages.parts.models.asking import Wanted
from pages.parts.texts import t
from pages.parts.ui import frame, jobs
from spool.data.keeping import keep
from spool.data.keeping.keep import Stored
from spool.protocol.errors import FinetunerError
from spool.protocol.home import Home
from spool.protocol.jobs import Job

STATE = st.session_state
SENT = "evaluate-sent"
OWN = ""
"""The choice of those rows that each training kept."""
NAMED = 4


def button(home: Home, models: Sequence[Job], key: str) -> None:
    """Opens the dialog; where none of them can be asked it says why."""
    fit = [model for model in models if asking.usable(home, model.id)]
    label = t("models.asking.several", count=len(models)) if len(models) > 1 else t("models.asking.one")
    help = None if fit else t("models.asking.none_usable")
    if st.button(label, key=key, icon=":material/quiz:", type="tertiary", disabled=not fit, help=help):
        _open(home, models)


def _open(home: Home, models: Sequence[Job]) -> None:
    STATE.pop(SENT, None)

    @st.dialog(t("models.asking.title"), icon=":material/quiz:", on_dismiss="rerun")
    def ask() -> None:
        if STATE.get(SENT):
            _sent(home, STATE[SENT])
        else:
            _form(home, models)

    ask()


def _form(home: Home, models: Sequence[Job]) -> None:
    fit = [model for model in models if asking.usable(home, model.id)]
    gone = [model for model in models if model not in fit]
    stored = {each.reference: each for each in sorted(keep.list_datasets(home), key=lambda e: e.added_at, reverse=True)}
    st.markdown(t("models.asking.says"))
    st.markdown(f"**{_named(fit[: asking.MOST_MODELS])}**")
    if gone:
        st.caption(f":orange[:material/delete:] {t('models.asking.gone', count=len(gone), names=_named(gone))}")
    if len(fit) > asking.MOST_MODELS:
        st.caption(f":orange[:material/warning:] {t('models.asking.too_many', most=asking.MOST_MODELS)}")
    st.selectbox(
        t("models.asking.dataset"), [OWN, *stored], key="evaluate-dataset",
        format_func=lambda each: _dataset(stored.get(each)),
    )  # fmt: skip
    for says in _beware(fit, STATE.get("evaluate-dataset") or OWN):
        st.caption(f":material/info: {says}")
    st.number_input(
        t("models.asking.rows"), 1, asking.MOST_ROWS, asking.ROWS, step=20, key="evaluate-rows",
        help=t("models.asking.rows_help"),
    )  # fmt: skip
    st.toggle(t("models.asking.general"), True, key="evaluate-general", help=t("models.asking.general_help"))
    fit = fit[: asking.MOST_MODELS]
    st.button(
        t("models.asking.button", count=len(fit)), type="primary", icon=":material/quiz:", key="evaluate-go",
        on_click=lambda: _send(home, fit),
    )  # fmt: skip
    if error := STATE.pop("evaluate-error", None):
        frame.show_error(error)


def _named(models: Sequence[Job]) -> str:
    names = ", ".join(md(jobs.short_name(model), 60) for model in models[:NAMED])
    more = len(models) - NAMED
    return names + (f" {t('models.asking.more', count=more)}" if more > 0 else "")


def _dataset(stored: Stored | None) -> str:
    if stored is None:
        return t("models.asking.own")
    rows, ago = t("models.board.rows", count=stored.rows), quantities.ago(stored.added_at, frame.now())
    return f"{one_line(stored.name, 60)} · {stored.version[:6]} · {rows} · {ago}"


def _beware(models: Sequence[Job], dataset: str) -> list[str]:
    """What the answer will not be able to say."""
    if dataset != OWN:
        learned = [model for model in models if _trained_on(model) == dataset.partition("@")[2]]
        return [t("models.asking.learned", names=_named(learned))] if learned else []
    said = []
    if len({_trained_on(model) for model in models}) > 1:
        said.append(t("models.asking.differ"))
    bare = [model for model in models if (model.result or {}).get("eval_rows") == 0]
    if bare:
        said.append(t("models.asking.kept_none", names=_named(bare)))
    return said


def _trained_on(model: Job) -> str:
    """The version of the dataset that it was trained on."""
    told = (model.result or {}).get("dataset")
    return str(told.get("sha256") or "")[:12] if isinstance(told, Mapping) else ""


def _send(home: Home, models: Sequence[Job]) -> None:
    """What is in the form at the click, which may be later than what was drawn."""
    rows, general = STATE.get("evaluate-rows") or asking.ROWS, STATE.get("evaluate-general") is not False
    wanted = Wanted(STATE.get("evaluate-dataset") or None, int(rows), general)
    before = asking.of(home, frame.jobs())
    about = wanted.dataset.partition("@")[0] if wanted.dataset else t("models.asking.own_short")
    sent = []
    for model in models:
        name = t("models.asking.name", model=jobs.short_name(model), about=about)
        try:
            sent.append(asking.submit(home, model, wanted, name, before.get(model.id, [])))
        except (OSError, FinetunerError) as error:
            why = getattr(error, "strerror", None) or str(error)
            STATE["evaluate-error"] = t("models.asking.unwritable", why=why)
            break
    frame.roster().stale()
    if len(sent) == len(models):
        STATE[SENT] = sent


def _sent(home: Home, ids: Sequence[str]) -> None:
    """Where to watch them, and where what they find will stand."""
    st.markdown(f":green[:material/check_circle:] {t('models.asking.sent', count=len(ids))}")
    st.caption(t("models.asking.then"))
    if len(ids) == 1:
        frame.link(frame.MONITOR, t("models.asking.watch"), icon=":material/monitoring:", job=ids[0])
    else:
        frame.link(frame.QUEUE, t("models.asking.queue"), icon=":material/list_alt:")
    if not alive.look(home).alive:
        frame.runner_notice()
