"""The upper part of the Train page: what the training is for, the base model, and the data with its verdict."""

from pathlib import Path

import streamlit as st

from pages.parts import quantities, words
from pages.parts.escape import md
from pages.parts.models import shelf
from pages.parts.phrases import translated
from pages.parts.texts import t
from pages.parts.train import presets, published
from pages.parts.train.figures import Figures
from pages.parts.train.presets import Preset
from pages.parts.ui import frame
from pages.parts.ui.train import form
from pages.parts.ui.train.form import DATA, MODEL, PRESET, STATE
from spool.forecast import machine, shapes
from spool.protocol import catalogue


def outcome() -> None:
    """Which outcome is aimed at, and below it what that means."""
    known = presets.all_presets()
    st.segmented_control(
        t("train.goal"),
        list(known),
        format_func=lambda name: f"{known[name].icon} {known[name].title}",
        required=True,
        key=PRESET,
        width="stretch",
        persist_state="session",
    )
    chosen = form.preset()
    example = f"  \n:gray[{t('train.example')} {chosen.example}]" if chosen.example else ""
    st.markdown(f"{chosen.says}{example}")


def model() -> None:
    """The base model: one of this server, one of the catalogue, or an id or folder that is typed."""
    home = frame.home()
    here = shelf.bases(home)
    names = [base.name for base in here]
    away = {each.name: each for each in catalogue.published() if each.name not in names}
    typed, on_gpu = STATE.get(MODEL), machine.look(home).gpu is not None

    def shown(name: str) -> str:
        return published.label(away[name], on_gpu) if name in away else str(name)

    st.selectbox(
        words.label("/model"),
        [*([typed] if typed and typed not in names and typed not in away else []), *names, *away],
        accept_new_options=True,
        format_func=shown,
        placeholder=t("train.choose_or_type"),
        help=t("train.model_help"),
        key=MODEL,
        persist_state="session",
    )
    chosen = STATE.get(MODEL)
    kind = next((base.kind for base in here if base.name == chosen), "")
    if kind:
        st.caption(md(kind, 120))
    elif chosen in away:
        fetched = shapes.fetched(home, away[chosen].repository) is not None
        st.caption(" ".join(published.about(away[chosen], fetched, on_gpu)))
    elif not names:
        st.markdown(f":small[:orange[:material/deployed_code:] {t('train.no_model')}]")
    elif typed:
        st.caption(f":material/cloud_download: {t('train.model_away')}")


def data(seen: Figures) -> None:
    """The dataset, and in a line whether to train on it."""
    names = form.datasets()
    typed = STATE.get(DATA)

    def shown(name: str) -> str:
        return t("train.example_data", name=Path(name).stem) if name == frame.EXAMPLE else str(name)

    st.selectbox(
        words.label("/dataset"),
        [*([typed] if typed and typed not in names else []), *names],
        accept_new_options=True,
        format_func=shown,
        placeholder=t("train.choose_or_type"),
        help=t("train.data_help"),
        key=DATA,
        persist_state="session",
    )
    if not seen.complete:
        _watch(seen)
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.markdown(f":small[{verdict(seen)}]", width="content")
        if seen.state == "none":
            frame.link(frame.DATA, t("train.upload"), icon=":material/upload:")
        elif typed in names:
            frame.link(frame.DATA, t("train.look"), icon=":material/arrow_forward:", dataset=str(typed))


def verdict(seen: Figures) -> str:
    """The state of the data in one line, as Markdown with an icon."""
    if seen.state == "none":
        return f":orange[:material/dataset: {t('train.data.none')}]"
    if seen.state in ("unknown", "reading"):
        rows = f"{t('train.data.rows', count=seen.rows, rows=quantities.count(seen.rows))} · " if seen.rows else ""
        return f":material/hourglass_empty: {rows}{t(f'train.data.{seen.state}')}"
    if seen.state in ("unreadable", "blocked"):
        return f":red[:material/block: {md(words.sentence(translated(seen.problem)), 300)}]"
    parts = [t("train.data.rows", count=seen.rows, rows=quantities.count(seen.rows))]
    if seen.tokens is not None:
        parts.append(t("train.data.tokens", tokens=quantities.count(_about(seen.tokens))))
    if seen.longest is not None:
        parts.append(t("train.data.longest", tokens=quantities.count(seen.longest)))
    found = seen.findings
    if found:
        said = t("train.data.findings", count=found, findings=quantities.count(found))
        return f":orange[:material/visibility: {said}] · {' · '.join(parts)}"
    return f":green[:material/check_circle: {t('train.data.fine')}] · {' · '.join(parts)}"


def _about(number: int) -> int:
    """Two figures: it is the median row times the rows."""
    digits = len(str(number))
    return round(number, 2 - digits) if digits > 2 else number


@st.fragment(run_every="1s")
def _watch(shown: Figures) -> None:
    """Draws the page again when more is known of the data than is shown."""
    seen = form.look()
    if seen.complete or seen.state != shown.state:
        st.rerun()


def unsuited(preset: Preset, seen: Figures) -> None:
    """Says so where the data is of another kind than the outcome is made for, and offers the outcome that it fits."""
    if not preset.suits or seen.format is None or seen.format in preset.suits:
        return
    known = presets.all_presets().values()
    other = next((each for each in known if seen.format in each.suits), None)
    says = t("train.unsuited", format=words.format_name(seen.format), goal=preset.title)
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.markdown(f":orange[:material/warning: {md(says, 300)}]", width="content")
        if other:

            def take() -> None:
                STATE[PRESET] = other.name

            st.button(t("train.take_goal", goal=other.title), type="tertiary", on_click=take, key="take-goal")
