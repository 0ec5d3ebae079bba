"""Many prompts at once: where they come from, and their answers in a table as they come, kept as a job."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import streamlit as st

from pages.parts import quantities
from pages.parts.escape import lines, md, one_line
from pages.parts.play import answers, chat
from pages.parts.play.answers import Row
from pages.parts.play.chat import BASE, Choice, Settings
from pages.parts.texts import t, table
from pages.parts.ui import frame
from pages.parts.ui.play import correct, models, session
from pages.parts.ui.play.models import Adapter
from spool.data.keeping import keep
from spool.protocol import dropbox, durable
from spool.protocol.errors import NotFound
from spool.protocol.home import Home
from spool.protocol.jobs import Job, get_job
from spool.protocol.parse import parse_spec
from spool.protocol.ulid import mint

STATE = st.session_state
NEW = "new"
OWN, STORED, PASTED = "own", "stored", "pasted"
MOST_PROMPTS = 1000
SHOWN_JOBS = 100
LOOK_S = 2


@dataclass(frozen=True)
class Batch:
    """One batch that is looked at: its job, its spec, and what it was asked of."""

    job: Job
    spec: dict[str, Any]
    known: dict[str, Adapter]

    @property
    def names(self) -> dict[str, str]:
        """Who answers, the base first, with what each is called."""
        jobs = [each for each in [self.spec.get("job"), *(self.spec.get("also") or [])] if isinstance(each, str)]
        found = {each: models.label(self.known, each) for each in jobs}
        model = self.known[jobs[0]].model if jobs and jobs[0] in self.known else str(self.spec.get("model") or "")
        base = {BASE: model or t("playground.base")} if not jobs or self.spec.get("base", True) else {}
        return base | found


def ask(home: Home, known: dict[str, Adapter], choice: Choice, told: Settings) -> None:
    """The form: where the prompts come from, how many, and the button that drops the job."""
    sources = table("playground.batch.source")
    if not choice.jobs:
        del sources[OWN]
    with st.container(border=True):
        source = st.segmented_control(
            t("playground.batch.from"), list(sources), default=next(iter(sources)), required=True,
            format_func=sources.__getitem__, key="play-source", persist_state="session",
        )  # fmt: skip
        asked = _asked(home, known, choice, str(source))
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            pressed = st.button(
                t("playground.batch.run"),
                type="primary",
                icon=":material/play_arrow:",
                disabled=not asked,
                key="play-run",
            )
            st.caption(t("playground.batch.says"), width="content")
    if pressed and asked:
        _drop(home, known, choice, told, asked)


def _asked(home: Home, known: dict[str, Adapter], choice: Choice, source: str) -> dict[str, Any]:
    """What of the spec says which prompts; empty where there are none yet."""
    if source == PASTED:
        text = st.text_area(
            t("playground.batch.lines"), height=160, key="play-lines", placeholder=t("playground.batch.lines_hint"),
            persist_state="session",
        )  # fmt: skip
        prompts = chat.lines(text or "")
        if len(prompts) > MOST_PROMPTS:
            st.caption(
                f":orange[:material/warning: {t('playground.batch.too_many', most=quantities.count(MOST_PROMPTS))}]"
            )
        return {"prompts": prompts[:MOST_PROMPTS]} if prompts else {}
    with st.grid(2, min_column_width=220):
        if source == STORED:
            names = sorted({each.name for each in keep.list_datasets(home)})
            dataset = st.selectbox(
                t("playground.batch.dataset"), names, key="play-dataset", placeholder=t("playground.batch.no_dataset"),
                format_func=lambda name: one_line(name, 80), persist_state="session",
            )  # fmt: skip
        else:
            dataset = known[choice.jobs[0]].dataset
            st.text_input(t("playground.batch.dataset"), dataset, disabled=True, help=t("playground.batch.own_help"))
        rows = st.number_input(
            t("playground.batch.rows"), 1, MOST_PROMPTS, value=20, step=10, key="play-rows", persist_state="session"
        )
    return {"dataset": dataset, "rows": min(MOST_PROMPTS, max(1, int(rows or 20)))} if dataset else {}


def _drop(home: Home, known: dict[str, Adapter], choice: Choice, told: Settings, asked: dict[str, Any]) -> None:
    names = models.names(known, choice)
    about = asked.get("dataset") or t("playground.batch.lines_of", count=len(asked["prompts"]))
    name = t("playground.batch.name", model=names[choice.who[-1]], about=about)
    job_id = mint()
    spec: dict[str, Any] = {"schema": 1, "kind": "generate", "name": name[:120], **choice.subject, **asked}
    spec |= {"base": choice.base} if choice.jobs else {}
    spec |= {**told.sampling, "submission_id": job_id} | ({"system": told.system} if told.system else {})
    try:
        parse_spec(durable.to_bytes(spec))  # thousands of pasted letters may not fit into one job
        dropbox.submit(home, spec, job_id)
    except OSError as error:
        failed = session.unwritten(error)
        frame.show_error(failed.message, failed.hint)
        return
    st.query_params["batch"] = job_id
    st.rerun()


def earlier(home: Home, shown: str) -> None:
    """A box with the batches that were run before."""
    jobs = [job for job in _batches(home) if job.state != "rejected"][:SHOWN_JOBS]
    by_id = {job.id: job for job in jobs}
    if not by_id:
        return

    def go() -> None:
        if STATE.get("play-batch"):
            st.query_params["batch"] = STATE["play-batch"]

    now = frame.now()
    STATE["play-batch"] = shown if shown in by_id else None
    st.selectbox(
        t("playground.batch.earlier"),
        list(by_id),
        index=None,
        format_func=lambda each: (
            f"{one_line(by_id[each].name, 70)}  ·  {quantities.ago(by_id[each].submitted_at, now)}"
        ),
        key="play-batch",
        on_change=go,
        placeholder=t("playground.batch.earlier"),
        label_visibility="collapsed",
        icon=":material/history:",
        width=420,
    )


def _batches(home: Home) -> list[Job]:
    """The newest first, without the chats."""
    jobs = [job for job in frame.jobs() if job.kind == "generate"][::-1]
    return [job for job in jobs[: 2 * SHOWN_JOBS] if not session.spec_of(home, job.id).get("interactive")]


def show(home: Home, known: dict[str, Adapter], job_id: str) -> None:
    """One batch; while it is not complete it is looked at every other second."""
    job = _job(home, job_id)
    if job is None:
        return
    spec = session.spec_of(home, job_id)
    if job.ended:
        _drawn(home, Batch(job, spec, known), polled=False)
    else:
        st.fragment(_polled, run_every=LOOK_S)(home, spec, known, job_id)


def _job(home: Home, job_id: str) -> Job | None:
    try:
        job = get_job(home, job_id)
    except NotFound:
        frame.show_error(t("playground.batch.unknown", id=job_id), t("playground.batch.unknown_hint"))
        return None
    if job.kind != "generate" and job.state not in ("checking", "rejected"):
        frame.show_error(t("playground.batch.other_kind"), t("playground.batch.unknown_hint"))
        return None
    return job


def _polled(home: Home, spec: dict[str, Any], known: dict[str, Adapter], job_id: str) -> None:
    job = _job(home, job_id)
    if job is None or job.ended:
        st.rerun()
    else:
        _drawn(home, Batch(job, spec or session.spec_of(home, job_id), known), polled=True)


def _drawn(home: Home, batch: Batch, polled: bool) -> None:
    rows = answers.rows(session.answers(home, batch.job.id))
    names = batch.names | {
        who: models.label(batch.known, who) for row in rows for who in row.answers if who not in batch.names
    }
    _head(batch, rows, names)
    _state(home, batch, len(rows))
    if not rows:
        if batch.job.state == "done":
            st.caption(t("playground.batch.no_answers"))
        return
    _scores(rows, names)
    _table(batch, rows, names)


def _head(batch: Batch, rows: list[Row], names: dict[str, str]) -> None:
    """Name, the way to its job, and what of it can be taken along."""
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute", gap="small"):
        st.subheader(md(one_line(batch.job.name, 80)), anchor=False, width="content")
        with st.container(horizontal=True, vertical_alignment="center", width="content", gap="small"):
            if rows:
                _downloads(batch, rows, names)
            if batch.job.ended and len(names) == 2 and rows:
                frame.link(frame.VOTE, t("playground.batch.vote"), icon=":material/how_to_vote:", job=batch.job.id)
            frame.link(frame.MONITOR, t("playground.batch.to_job"), icon=":material/monitoring:", job=batch.job.id)


def _state(home: Home, batch: Batch, answered: int) -> None:
    """How far it is, or why it does not move."""
    job = batch.job
    if job.state == "running":
        step, total = job.progress.get("step") or 0, job.progress.get("total_steps")
        left = job.progress.get("eta_s")
        text = t("playground.batch.progress", done=quantities.count(step), total=quantities.count(total))
        if not total:
            text = f"{md(session.phase(job), 80)} …"
        elif left is not None:
            text = f"{text} · {t('playground.batch.left', duration=quantities.duration(left))}"
        st.progress(min(1.0, step / total) if total else 0.0, text=text)
    elif not job.ended or job.state in ("failed", "rejected"):
        state = session.of_job(home, job)
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            st.markdown(state.told, width="content")
            if not job.ended:
                frame.link(frame.QUEUE, t("playground.to_queue"), icon=":material/list_alt:")
    elif job.state == "cancelled":
        st.caption(f":material/cancel: {t('playground.batch.cancelled', count=answered)}")


def _scores(rows: list[Row], names: dict[str, str]) -> None:
    """How many answers are like the reference: what this page is for, in one line a model."""
    scored = {who: answers.score(rows, who) for who in names}
    if not any(of for _, of in scored.values()):
        return
    with st.grid(len(names), min_column_width=180, gap="small"):
        for who, (right, of) in scored.items():
            value = t("playground.batch.of", right=quantities.count(right), of=quantities.count(of))
            st.metric(one_line(names[who], 60), value, help=t("playground.batch.equal_help"), border=True)


def _table(batch: Batch, rows: list[Row], names: dict[str, str]) -> None:
    compared = any(row.reference is not None for row in rows)
    filters = table("playground.batch.filter")
    if not compared:
        filters = {name: filters[name] for name in ("all", "apart")}
    if len(names) < 2:
        filters.pop("apart", None)
    judged = [who for who in names if who != BASE] or list(names)
    which = st.segmented_control(
        t("playground.batch.show"), list(filters), default="all", required=True, format_func=filters.__getitem__,
        key="play-filter", label_visibility="collapsed", persist_state="session",
    )  # fmt: skip
    kept = answers.kept(rows, str(which), judged)
    if not kept:
        st.caption(t("playground.batch.none_left"))
        return
    chosen = _frame(kept, names)
    if chosen is not None and chosen < len(kept):
        _detail(batch, kept[chosen], names)


def _frame(rows: list[Row], names: dict[str, str]) -> int | None:
    """The table; gives the position of the row that is selected."""
    config = st.column_config
    shown = answers.table(rows, list(names), t("playground.batch.equal"), t("playground.batch.differs"))
    columns: dict[str, Any] = {
        "prompt": config.TextColumn(t("playground.batch.prompt"), width="medium", pinned=True),
        "reference": config.TextColumn(t("playground.batch.reference"), width="medium"),
    }
    for who, name in names.items():
        columns[f"answer {who}"] = config.TextColumn(one_line(name, 40), width="medium")
        columns[f"right {who}"] = config.TextColumn(t("playground.batch.is_equal"), width=90)
    event = st.dataframe(
        shown, hide_index=True, column_config=columns, key="play-table", on_select="rerun",
        selection_mode="single-row", height="content" if len(rows) <= 12 else 500, row_height=40,
        alt=t("playground.batch.alt"),
    )  # fmt: skip
    picked = event.selection.rows
    if not picked:
        st.caption(t("playground.batch.select"))
    return picked[0] if picked else None


def _downloads(batch: Batch, rows: list[Row], names: dict[str, str]) -> None:
    for kind, make, mime in (("csv", answers.to_csv, "text/csv"), ("jsonl", answers.to_jsonl, "application/jsonl")):
        st.download_button(
            kind.upper(),
            partial(make, rows, names),
            file_name=f"answers-{batch.job.id[-6:]}.{kind}",
            mime=mime,
            icon=":material/download:",
            type="tertiary",
            on_click="ignore",
            key=f"play-download-{kind}",
        )


def _detail(batch: Batch, row: Row, names: dict[str, str]) -> None:
    """One prompt in full, with all answers side by side."""
    with st.container(border=True):
        st.caption(t("playground.batch.prompt"))
        st.text(lines(row.prompt))
        said: dict[str, str] = {"reference": row.reference} if row.reference is not None else {}
        said |= {who: row.answers[who].text for who in names if who in row.answers}
        adapters = [who for who in names if who != BASE]
        for (who, text), column in zip(said.items(), st.columns(len(said), gap="medium"), strict=True):
            with column, st.container(gap="xsmall"):
                if who == "reference":
                    st.markdown(f":green-badge[:material/fact_check: {t('playground.batch.reference')}]")
                else:
                    place = adapters.index(who) if who in adapters else 0
                    st.markdown(models.heading(who, names[who], place))
                session.text(text)
                if who != "reference" and st.button(
                    t("playground.correct"), key=f"play-fix-{who}", icon=":material/edit_note:", type="tertiary",
                    help=t("playground.correct_help"),
                ):  # fmt: skip
                    system = str(batch.spec.get("system") or "")
                    correct.dialog(
                        frame.home(), correct.of_row(row.prompt, who, text, row.reference, system, batch.known)
                    )
