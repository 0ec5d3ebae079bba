"""The parts of Compare: picking runs, the verdict, the chart with its choices, and what can be taken along."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import partial

import streamlit as st

from pages.parts import quantities, words
from pages.parts.compare import contest, overlay, overlay_chart
from pages.parts.compare.dossier import Dossier, Value
from pages.parts.escape import md, one_line
from pages.parts.run.columns import Columns
from pages.parts.texts import t, table
from pages.parts.ui import choices, frame, jobs
from pages.parts.ui.run import figures
from spool.protocol.jobs import Job

OFFERED = 300
"""Runs in the box: a browser is slow with thousands, and nobody reads them."""
PICK, ADDRESS, SLOTS = "compare-pick", "jobs", "compare-slots"
STATE = st.session_state


def comparable(everything: Sequence[Job]) -> dict[str, Job]:
    """The training jobs that have begun, the newest first."""
    begun = [job for job in everything if job.kind == "train" and job.attempts and job.state != "rejected"]
    return {job.id: job for job in sorted(begun, key=lambda job: job.started_at or "", reverse=True)}


def pick(known: Mapping[str, Job]) -> list[str]:
    """The box with the runs; the address says which, and what is chosen goes there."""
    wanted = overlay.asked(st.query_params.get(ADDRESS))
    chosen = [each for each in wanted if each in known]
    named = names(known.values())
    if STATE.get(PICK) != chosen:
        STATE[PICK] = chosen

    def went() -> None:
        ids = overlay.asked(",".join(STATE[PICK]))
        missing = [each for each in ids if each not in known]
        if missing:
            st.toast(t("compare.unknown", id=md(missing[0], 40)), icon=":material/search_off:")
        st.query_params[ADDRESS] = ",".join(each for each in ids if each in known)

    st.multiselect(
        t("compare.pick"),
        list(dict.fromkeys([*chosen, *list(known)[:OFFERED]])),
        key=PICK,
        format_func=lambda each: label(known[each], named[each]) if each in known else each,
        on_change=went,
        max_selections=overlay.MOST_RUNS,
        placeholder=t("compare.search"),
        label_visibility="collapsed",
        accept_new_options=len(known) > OFFERED,
    )
    if len(known) > OFFERED:
        st.caption(t("compare.most", number=OFFERED))
    lost = [each for each in wanted if each not in known]
    if lost:
        st.caption(f":material/search_off: {t('compare.gone', ids=md(', '.join(lost), 300))}")
    return chosen


def label(job: Job, name: str) -> str:
    """`support tickets · 0.1547`, or how it stands with a run that has no eval loss."""
    loss = (job.result or {}).get("eval_loss")
    return f"{name} · {quantities.loss(loss) if loss is not None else words.state(job.state).label}"


def names(found: Iterable[Job]) -> dict[str, str]:
    """A short name for each run; where two share one, the beginning of the id, which is its time, tells them apart."""
    short = {job.id: jobs.short_name(job) for job in found}
    times = Counter(short.values())
    return {each: f"{name} ({each[:10]})" if times[name] > 1 else name for each, name in short.items()}


def suggestions(known: Mapping[str, Job]) -> None:
    """Where nothing is chosen: what is likely to be compared, one click each."""
    by_dataset: dict[str, list[str]] = {}
    for job in known.values():
        by_dataset.setdefault(job.dataset or "", []).append(job.id)
    offers = [(t("compare.newest"), list(known)[:3])]
    offers += [
        (t("compare.on_dataset", dataset=md(name, 50), number=len(ids)), ids)
        for name, ids in by_dataset.items()
        if name and 1 < len(ids) < len(known)
    ][:3]
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.markdown(f":gray[{t('compare.suggest')}]", width="content")
        for said, ids in offers:
            address = ",".join(ids[: overlay.MOST_RUNS])
            frame.link(frame.COMPARE, said, icon=":material/stacked_line_chart:", jobs=address)


def verdict(dossiers: Sequence[Dossier], named: Mapping[str, str]) -> None:
    """Which one came out best, in words, and what it has that the next one has not."""
    found = contest.judge(dossiers)
    if len(dossiers) < 2:
        return
    if found.best is None or found.second is None:
        st.caption(t("compare.verdict.none"))
        return
    best, second = md(named[found.best.job.id], 60), md(named[found.second.job.id], 60)
    low, high = quantities.loss(found.best.eval_loss), quantities.loss(found.second.eval_loss)
    says = [
        t(f"compare.verdict.{found.kind}", best=best, second=second, low=low, lead=quantities.percent(found.lead))
        if found.kind == "ahead"
        else t("compare.verdict.level", best=best, second=second, low=low, high=high)
    ]
    says.append(_changed(found, second))
    if found.other_data:
        says.append(t("compare.verdict.other_data"))
    icon = ":green[:material/trophy:]" if found.kind == "ahead" else ":gray[:material/balance:]"
    with st.container(gap="xsmall"):
        st.markdown(f"{icon} {' '.join(says)}")
        if found.other_judge:
            st.warning(t("compare.verdict.other_judge"), icon=":material/rule:")


def _changed(found: contest.Verdict, second: str) -> str:
    if not found.changed:
        return t("compare.verdict.same")
    parts = [
        t("compare.verdict.change", label=words.label(name), value=md(value(name, a), 40), other=md(value(name, b), 40))
        for name, a, b in found.changed
    ]
    if found.more_changed:
        parts.append(t("compare.verdict.more", number=found.more_changed))
    return t("compare.verdict.changed", second=second, changes=", ".join(parts))


def value(name: str, given: Value) -> str:
    """A setting as people read it."""
    if given is None:
        return quantities.DASH
    if name == "/train/learning_rate" and isinstance(given, float):
        return quantities.rate(given)
    if isinstance(given, bool):
        return str(given).lower()
    if isinstance(given, int):
        return quantities.count(given)
    return f"{given:g}" if isinstance(given, float) else one_line(given, 120)


def chart(curves: Mapping[str, Columns], named: Mapping[str, str]) -> None:
    """All runs on one chart, with what can be chosen about it; each choice stands in the address."""
    slots = STATE[SLOTS] = overlay.slots(list(curves), STATE.get(SLOTS, {}))
    with st.container(border=True, gap="small"):
        if not any(columns.size for columns in curves.values()):
            st.caption(t("compare.no_rows"))
            return
        axis, shown, share, log = _choices(curves)
        by_slot = {slots[each]: columns for each, columns in curves.items()}
        rows = overlay.table(by_slot, axis, share, log)
        labels = {slots[each]: one_line(named[each], 60) for each in curves}
        drawn = overlay_chart.chart(rows, labels, axis, shown, log)
        said = ", ".join(labels.values())
        alt = t("compare.alt_chart", number=len(curves), axis=t(f"charts.axis.{axis}"), names=said)
        st.altair_chart(drawn, key="compare-chart", alt=alt)
        st.caption(f"{t('charts.zoom')} {t('compare.png')}")


def _choices(curves: Mapping[str, Columns]) -> tuple[str, str, float, bool]:
    """(axis, curves shown, share that the trend averages over, logarithm), as on Monitor; all in the address."""
    kinds, axes = table("compare.show"), overlay.axes(curves.values())
    choices.keep("show", list(kinds), "both")
    choices.keep("x", axes, "step")
    with st.container(horizontal=True, vertical_alignment="center", gap="medium"):
        st.segmented_control(
            t("compare.show_label"), list(kinds), required=True, key=choices.key("show"), on_change=choices.went,
            args=("show", "both"), format_func=kinds.__getitem__, label_visibility="collapsed",
        )  # fmt: skip
        st.segmented_control(
            t("charts.axis.label"), axes, required=True, key=choices.key("x"), on_change=choices.went,
            args=("x", "step"), format_func=lambda axis: t(f"charts.axis.{axis}"), label_visibility="collapsed",
        )  # fmt: skip
        share, log, _ = figures.view()
    return choices.chosen("x", axes, "step"), choices.chosen("show", list(kinds), "both"), share, log


def take_along(curves: Mapping[str, Columns], named: Mapping[str, str]) -> None:
    """The rows of all curves as a file, made when it is asked for."""
    by_name = {(each, named[each]): columns for each, columns in curves.items()}
    st.download_button(
        t("compare.curves_csv"),
        partial(overlay.curves_csv, by_name),
        file_name="curves.csv",
        mime="text/csv",
        icon=":material/download:",
        type="tertiary",
        on_click="ignore",
    )
