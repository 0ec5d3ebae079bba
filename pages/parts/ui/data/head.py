"""The head of a dataset: its name and version, what was recognised, the verdict, and reading it differently."""

from dataclasses import replace
from typing import Any

import streamlit as st

from pages.parts import quantities, words
from pages.parts.data import changes, findings, preview, reading
from pages.parts.data.reading import AUTO
from pages.parts.escape import md, one_line
from pages.parts.models import shelf
from pages.parts.phrases import translated
from pages.parts.texts import has, t
from pages.parts.ui import frame
from pages.parts.ui.data import dataset
from pages.parts.ui.data.dataset import Chosen
from spool.data.inspect import Inspection
from spool.data.keeping import said
from spool.data.keeping.keep import Stored
from spool.data.reading.roles import FORMATS
from spool.protocol.home import Home

STATE = st.session_state
LOOKS = {
    "green": (st.success, ":material/check_circle:"),
    "yellow": (st.warning, ":material/visibility:"),
    "red": (st.error, ":material/block:"),
}
MODEL = "data-model"


def title(chosen: Chosen, versions: list[Stored], readable: bool) -> None:
    """Name, version, base model and the way to Train, in one row that wraps on a phone."""
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute", gap="small"):
        st.subheader(md(chosen.title, 80), anchor=False, width="content")
        with st.container(horizontal=True, vertical_alignment="center", gap="small", width="content"):
            if len(versions) > 1 and chosen.stored:
                _version(chosen.stored, versions)
            _model(chosen)
            look = "primary" if readable else "secondary"
            if st.button(t("data.head.train"), key="data-train", type=look, icon=":material/model_training:"):
                dataset.train(chosen)


def _version(stored: Stored, versions: list[Stored]) -> None:
    now = frame.now()
    said = {each.version: f"{quantities.ago(each.added_at, now)} · {each.version[:6]}" for each in versions}
    key = f"data-version-{stored.reference}"

    def go() -> None:
        st.query_params["dataset"] = f"{stored.name}@{STATE[key]}"

    st.selectbox(
        t("data.head.version"),
        list(said),
        index=list(said).index(stored.version),
        format_func=lambda version: said[version],
        key=key,
        on_change=go,
        label_visibility="collapsed",
        icon=":material/history:",
        width=200,
    )


def _model(chosen: Chosen) -> None:
    names = [base.name for base in shelf.bases(chosen.home)]
    if names:
        st.selectbox(
            t("data.head.model"),
            names,
            key=MODEL,
            label_visibility="collapsed",
            icon=":material/deployed_code:",
            help=t("data.head.model_help"),
            width=200,
            persist_state="session",
        )


def recognised(chosen: Chosen, seen: Inspection) -> None:
    """What the file was taken for, how surely, and where it comes from."""
    report = seen.report
    said = [preview.headline(report)] if report else _read_as(chosen) if seen.error else []
    if chosen.stored:
        added = quantities.ago(chosen.stored.added_at, frame.now())
        said.append(f":material/history: {md(changes.origin(chosen.stored), 300)} · {added}")
    if said:
        st.caption("  \n".join(said))
    for notice in (report or {}).get("notices", []):
        st.caption(f":material/info: {md(translated(notice), 400)}")


def _read_as(chosen: Chosen) -> list[str]:
    """In which encoding a file was read whose layout is not known."""
    found = (chosen.stored.report or {}) if chosen.stored and chosen.reading.encoding == AUTO else {}
    return [t("data.head.read_as", encoding=md(found["encoding"], 40))] if found.get("encoding") else []


def verdict(chosen: Chosen, seen: Inspection) -> None:
    """May one train on it? One sentence with its colour, or why the file cannot be judged."""
    if seen.error and _unclear(chosen):
        names = md(", ".join(_columns(chosen, seen)[:20]), 400)
        st.warning(f"**{t('data.head.unclear', names=names)}**  \n{t('data.head.say_columns')}", icon=":material/help:")
    elif seen.error:
        hint = t("data.head.say_columns") if _columns(chosen, seen) else seen.error.get("hint") or ""
        frame.show_error(chosen.named(seen.error["message"]), hint)
    elif seen.report:
        found = findings.verdict(seen.report, seen.complete)
        draw, icon = LOOKS[found.color]
        draw(f"{md(chosen.named(found.says), 600)}" + (f"  \n{md(found.hint, 400)}" if found.hint else ""), icon=icon)


def _unclear(chosen: Chosen) -> bool:
    """Whether all that is missing is a word on its columns: then that is asked, and no fault is named."""
    told = chosen.reading
    named = bool(chosen.stored and chosen.stored.format is None and (chosen.stored.report or {}).get("columns"))
    return named and (told.encoding, told.delimiter, told.header) == (AUTO, AUTO, AUTO)


@st.fragment(run_every="1s")
def progress(chosen: Chosen, shown: Inspection) -> None:
    """A slim line while the file is still being judged; the page is drawn again when there is more to show."""
    seen, _ = chosen.look_as_far_as_possible()
    if seen.complete or (seen.report is not None and shown.report is None):
        st.rerun()
    share = min(1.0, seen.done / seen.total) if seen.total else 0.0
    sampled = shown.report["statistics"]["sampled_rows"] if shown.report else None
    first = t("data.head.first", rows=quantities.count(sampled)) if sampled else ""
    st.progress(share, text=f":gray[{first}{_at_work(seen)}]")


def _at_work(seen: Inspection) -> str:
    """What the check is doing and how far that is, where it is known."""
    stage = seen.stage or "starting"
    said = t(f"data.stage.{stage}") if has(f"data.stage.{stage}") else stage.capitalize()
    if not seen.total:
        return t("data.head.working", stage=said)
    shown = quantities.size if stage == "reading" else quantities.count
    return t("data.head.working_of", stage=said, done=shown(seen.done), total=shown(seen.total))


def numbers(report: dict[str, Any]) -> None:
    tokens = report["tokens"]
    with st.grid(4, min_column_width=130, gap="small"):
        st.metric(t("data.number.rows"), quantities.count(report["rows"]), border=True)
        st.metric(
            t("data.number.usable"), quantities.count(report["usable_rows"]), border=True,
            help=t("data.number.usable_help"),
        )  # fmt: skip
        st.metric(
            t("data.number.repeated"), quantities.count(report["duplicates"]), border=True,
            help=t("data.number.repeated_help"),
        )  # fmt: skip
        st.metric(
            t("data.number.longest"),
            quantities.count(tokens["max"]) if tokens else quantities.DASH,
            border=True,
            help=t("data.number.longest_help"),
        )


def differently(chosen: Chosen) -> None:
    """Format, column roles and encoding as a person says them. Goes to Train with the data."""
    plain = _plain(chosen)
    with st.expander(t("data.read.title"), icon=":material/tune:", expanded=plain.error is not None):
        if plain.report is None and plain.error is None:
            st.caption(t("data.read.unknown"))
            return
        _meaning(chosen, plain)
        _file(chosen, plain)
        _said(chosen, plain)


def _meaning(chosen: Chosen, plain: Inspection) -> None:
    """The format, and which column plays which role in it."""
    columns = _columns(chosen, plain)
    recognised_roles = (plain.report or {}).get("mapping", {})
    offered = reading.roles(chosen.reading.format, (plain.report or {}).get("format"))
    with st.grid(2, min_column_width=220):
        st.selectbox(
            t("data.read.format"),
            [AUTO, *FORMATS],
            format_func=lambda name: _auto(chosen, plain) if name == AUTO else words.format_name(name),
            key=f"format/{chosen.key}",
            persist_state="session",
        )
        for role in offered:
            st.selectbox(
                words.role(role),
                columns,
                index=columns.index(recognised_roles[role]) if recognised_roles.get(role) in columns else None,
                format_func=lambda name: one_line(name, 60),
                placeholder=t("data.read.no_column"),
                key=f"role/{role}/{chosen.key}",
                persist_state="session",
            )


def _file(chosen: Chosen, plain: Inspection) -> None:
    """How the bytes become rows: encoding, and for a table its delimiter and header."""
    asked: list[tuple[str, str, dict[Any, str]]] = [("encoding", t("data.read.encoding"), reading.encodings())]
    if plain.report is None or plain.report["container"] in ("csv", "tsv"):
        asked += [
            ("delimiter", t("data.read.delimiter"), reading.delimiters()),
            ("header", t("data.read.header"), reading.headers()),
        ]
    with st.grid(3, min_column_width=160):
        for name, label, options in asked:
            st.selectbox(
                label,
                list(options),
                format_func=options.__getitem__,
                key=f"{name}/{chosen.key}",
                persist_state="session",
            )


def _said(chosen: Chosen, plain: Inspection) -> None:
    others = (plain.report or {}).get("alternatives", [])
    if others:
        listed = ", ".join(f"{words.format_name(o['format'])} ({quantities.percent(o['confidence'])})" for o in others)
        st.caption(t("data.read.also", others=md(listed, 300)))
    half = reading.half_mapped(chosen.reading, (chosen.look_as_far_as_possible()[0].report or {}).get("format"))
    if half:
        st.markdown(f":orange[:material/warning: {md(half, 300)}]")
    if chosen.reading.values():
        st.caption(t("data.read.job"))


def stated(chosen: Chosen) -> reading.Reading:
    """What the widgets of `differently` say, read before they are drawn."""
    key = chosen.key
    _recall(chosen)
    format = STATE.get(f"format/{key}") or AUTO
    file = reading.Reading(
        encoding=STATE.get(f"encoding/{key}") or AUTO,
        delimiter=STATE.get(f"delimiter/{key}") or AUTO,
        header=STATE.get(f"header/{key}", AUTO),
    )
    found = _plain(replace(chosen, reading=file))
    recognised_roles = (found.report or {}).get("mapping", {})
    offered = reading.roles(format, (found.report or {}).get("format"))
    picked = {role: STATE.get(f"role/{role}/{key}") for role in offered}
    mapping = reading.differing(picked, recognised_roles)
    told = replace(file, format=format, mapping=mapping, max_length=STATE.get(f"max-length/{key}"))
    if found.report is not None or found.error is not None:
        _note(chosen, told)
    return told


def _recall(chosen: Chosen) -> None:
    """Puts into the widgets what was said of this version on another day, unless this session has said something."""
    if chosen.stored is None or f"said/{chosen.key}" in STATE:
        return
    ending = f"/{chosen.key}"
    if any(str(key).startswith(dataset.CARRIED) and str(key).endswith(ending) for key in STATE):
        STATE[f"said{ending}"] = None
        return
    told = reading.said_before(chosen.home, chosen.stored)
    STATE[f"said{ending}"] = told
    for pointer, value in told.items():
        name = pointer.rpartition("/")[2]
        named = {f"role/{role}": column for role, column in value.items()} if name == "mapping" else {name: value}
        for each, stands in named.items():
            STATE[each + ending] = stands


def _note(chosen: Chosen, told: reading.Reading) -> None:
    """Notes what the widgets say beside the dataset, so that it holds tomorrow and on Train too."""
    values = replace(told, max_length=None).values()
    if chosen.stored is None or values == STATE.get(f"said/{chosen.key}"):
        return
    try:
        said.note(chosen.stored, {pointer.rpartition("/")[2]: value for pointer, value in values.items()})
    except OSError as error:
        st.caption(f":orange[:material/warning: {t('data.read.not_noted', why=md(error.strerror or str(error), 200))}]")
    else:
        STATE[f"said/{chosen.key}"] = values


def _plain(chosen: Chosen) -> Inspection:
    """What is recognised in the file without anybody's word on what its columns mean."""
    file = replace(chosen.reading, format=AUTO, mapping={}, max_length=None)
    return replace(chosen, reading=file).look_as_far_as_possible()[0]


def _auto(chosen: Chosen, plain: Inspection) -> str:
    """What the format is taken for: by itself, or by the columns that were named."""
    report = plain.report or chosen.look_as_far_as_possible()[0].report
    if report is None:
        return t("data.read.unrecognised")
    return t("data.read.recognised", format=words.format_name(report["format"]))


def _columns(chosen: Chosen, plain: Inspection) -> list[str]:
    if plain.report:
        return list(plain.report["columns"])
    summary = (chosen.stored.report or {}) if chosen.stored else {}
    return list(summary.get("columns") or [])


def model(home: Home) -> str | None:
    """The base model that was chosen, else the first on this server."""
    names = [base.name for base in shelf.bases(home)]
    asked = STATE.get(MODEL)
    return asked if asked in names else next(iter(names), None)
