"""The parts of one run's page: head, outcome, progress, numbers, curves, log, events and spec."""

from functools import partial
from typing import Any

import pandas as pd
import streamlit as st

from pages.parts import bundle, quantities, series, shelf, tail
from pages.parts import charts as _charts
from pages.parts.escape import md, one_line
from pages.parts.ui import frame, jobs, run_data, run_failure
from spool.protocol.home import Home
from spool.protocol.jobs import Job
from spool.protocol.metrics import Row


def head(job: Job) -> None:
    """Name, state, and from what, by whom and when."""
    now = frame.now()
    with st.container(gap="xsmall"):
        with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
            with st.container(horizontal=True, vertical_alignment="center", gap="small", width="content"):
                st.subheader(md(jobs.short_name(job), 80), anchor=False, width="content")
                st.markdown(jobs.badge(job), width="content")
            jobs.menu(job, "monitor")
        when = f"submitted {quantities.ago(job.submitted_at, now)}"
        if job.started_at:
            when = f"started {quantities.clock(job.started_at, frame.zone())}"
        if job.ended_at and job.started_at:
            when += f", took {quantities.between(job.started_at, job.ended_at)}"
        if job.attempts > 1:
            when += f", attempt {job.attempts}"
        st.caption(" · ".join(filter(None, [jobs.about(job), when])))


def outcome(home: Home, job: Job) -> None:
    """How it ended, in words: the result with its download, or the error with its cure."""
    if job.state == "done":
        _result(home, job)
    elif run_data.blocked(home, job):
        run_data.show(home, job)
    elif job.state == "failed":
        run_failure.show(home, job)
    elif job.state == "rejected":
        _rejected(home, job)
    elif job.state == "cancelled":
        st.info("This job was cancelled. What it had saved until then stays in its folder.", icon=":material/cancel:")


def _rejected(home: Home, job: Job) -> None:
    errors = (job.error or {}).get("errors") or [job.error or {}]
    st.error(f"**This drop was not accepted as a job.** {len(errors)} to correct:", icon=":material/block:")
    for problem in errors:
        where = f"`{one_line(problem.get('pointer') or 'the file').replace('`', '')}`"
        line = f", line {problem['line']}" if problem.get("line") else ""
        st.markdown(
            f"{where}{line}: {md(problem.get('message') or '', 400)} :gray[{md(problem.get('hint') or '', 400)}]"
        )
    dropped = tail.head(home.rejected / job.id / "dropped.json")
    if dropped:
        st.markdown("**As it was dropped**")
        st.code(dropped, language="json", line_numbers=True, height=420 if dropped.count("\n") > 20 else "content")


def _result(home: Home, job: Job) -> None:
    result = job.result or {}
    exports = shelf.exports(home, job)
    with st.container(border=True, horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        said = f"**The adapter is ready.** Final loss {quantities.loss(result.get('final_loss'))}"
        if result.get("eval_loss") is not None:
            said += f", eval loss {quantities.loss(result['eval_loss'])}"
        st.markdown(f":green[:material/check_circle:] {said}.", width="content")
        with st.container(horizontal=True, width="content"):
            for export in exports:
                download(job, export, primary=export.kind == "adapter")


def download(job: Job, export: shelf.Export, primary: bool = False) -> None:
    """A button that zips on click; what is too large for the browser is named by its folder instead."""
    if export.size_bytes > bundle.LARGEST_BYTES:
        st.caption(f"{export.kind}, {quantities.size(export.size_bytes)}: fetch it on the server")
        st.code(str(export.folder), language=None)
        return
    name = bundle.file_name(jobs.short_name(job), job.id, export.kind)
    st.download_button(
        f"Download {export.kind} · {quantities.size(export.size_bytes)}",
        partial(bundle.zipped, export.folder, name.removesuffix(".zip")),
        file_name=name,
        mime="application/zip",
        icon=":material/download:",
        type="primary" if primary else "secondary",
        on_click="ignore",
        key=f"download-{export.kind}-{job.id}",
    )


def progress(job: Job) -> None:
    """How far it is, or why it does not move."""
    if job.state == "running":
        st.progress(jobs.fraction(job) or 0.0, text=jobs.progress_text(job))
        return
    runner = frame.runner_notice()
    if job.state == "checking":
        if runner.alive:
            says = f":gray[{jobs.progress_text(job)} …]" if job.phase else ""
            st.info(f"Its data is being checked before it is queued. {says}", icon=":material/fact_check:")
    elif job.state == "held":
        st.info("This job is on hold. Release it with Actions.", icon=":material/pause_circle:")
    elif runner.alive and not runner.problem:
        st.info("This job waits for its turn; it starts by itself.", icon=":material/schedule:")


def numbers(job: Job, rows: list[Row]) -> None:
    """The key figures, those that this machine can measure."""

    def last(name: str) -> float | None:
        return series.latest(rows, name)

    figures: list[tuple[str, str, str | None]] = []

    def add(label: str, name: str, shown: Any, says: str | None = None) -> None:
        if last(name) is not None:
            figures.append((label, shown(last(name)), says))

    total = job.progress.get("total_steps")
    step = last("step")
    if job.ended:
        of = f" / {quantities.count(total)}" if total and step != total else ""
        figures.append(("Steps", quantities.count(step) + of, None))
    add("Loss", "loss", quantities.loss, "How wrong the model still is on the rows it learns from. Lower is better.")
    add(
        "Eval loss",
        "eval_loss",
        quantities.loss,
        "The same on rows kept away from training. Rising means learning by heart.",
    )
    add("Tokens per second", "tokens_per_s", quantities.count)
    if job.state == "running":
        add("Time left", "eta_s", quantities.duration)
    add("GPU memory", "gpu_mem_bytes", quantities.size)
    if last("gpu_mem_bytes") is None:
        add("Memory", "host_mem_bytes", quantities.size)
    if job.state == "running":
        add("GPU in use", "gpu_util_pct", lambda value: f"{value:.0f} %")
        add("GPU power", "gpu_power_w", lambda value: f"{value:.0f} W")
        add("GPU temperature", "gpu_temp_c", lambda value: f"{value:.0f} °C")
    with st.grid(len(figures) if len(figures) <= 6 else -(-len(figures) // 2), min_column_width=130, gap="small"):
        for label, value, says in figures:
            st.metric(label, value, help=says, border=True, height="stretch")


def charts(job: Job, follower: series.Follower) -> None:
    """Loss with eval loss, and the learning rate. Nothing but the rows may change here, or each refresh draws anew."""
    rows, total = follower.rows, job.progress.get("total_steps")
    rates = series.frame(rows, "learning_rate")
    left, right = st.columns([2, 1], gap="small")
    with left.container(border=True, height="stretch"):
        with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
            st.markdown("**Loss** :gray[by step]", width="content")
            says = "Steps that were done again after an interruption are drawn once; this shows each attempt."
            apart = follower.repeated and st.toggle("Attempts", key="attempts", bind="query-params", help=says)
        if apart:
            drawn = _charts.attempts(series.attempts_frame(follower.every), total)
            st.altair_chart(drawn, key="chart-attempts", alt="Training loss by step, a line for each attempt")
        else:
            drawn = _charts.loss(series.loss_frame(rows), total)
            st.altair_chart(drawn, key="chart-loss", alt="Training and eval loss by step")
    with right.container(border=True, height="stretch"):
        st.markdown("**Learning rate** :gray[by step]")
        st.altair_chart(_charts.learning_rate(rates, total), key="chart-rate", alt="Learning rate over the steps")
    bad = series.not_finite(rows)
    if bad:
        st.warning(f"The loss was not a number at step {bad[0]:,}.", icon=":material/warning:")
    if follower.broken:
        st.caption(f"{follower.broken:,} line(s) of metrics.jsonl cannot be read and are passed over.")


def details(home: Home, job: Job) -> None:
    """Log, events and spec, each as it was written."""
    files = home.run(job.id)
    log, events, spec = st.tabs(["Log", "Events", "Spec"], key=f"details-{job.id}", on_change="rerun")
    if log.open:
        text = tail.log(files.latest_log)
        with log:
            if text:
                with st.container(height=340, autoscroll=True, border=False):
                    st.code(text, language=None, wrap_lines=True)
            else:
                st.caption("Nothing has been logged yet.")
    if events.open:
        with events:
            _events(tail.events(files.events))
    if spec.open:
        with spec:
            _spec(files.spec, files.spec_orig)


def _events(rows: list[dict[str, Any]]) -> None:
    if not rows:
        st.caption("Nothing has happened yet.")
        return
    table = pd.DataFrame(
        {
            "when": pd.to_datetime(pd.Series([row.get("t") for row in rows], dtype="float"), unit="s", utc=True),
            "what": [tail.event(row) for row in rows],
        }
    )
    st.dataframe(
        table,
        hide_index=True,
        alt="Events of this job, newest first",
        column_config={
            "when": st.column_config.DatetimeColumn(
                "When", format="D MMM, HH:mm:ss", timezone=str(frame.zone()), width=140
            ),
            "what": st.column_config.TextColumn("What", width="large"),
        },
    )


def _spec(accepted: Any, dropped: Any) -> None:
    path = accepted if accepted.exists() else dropped
    try:
        text = path.read_text("utf-8", "replace")
    except OSError:
        st.caption("The runner has not accepted this job yet.")
        return
    st.caption("As accepted, with every default filled in.")
    st.code(text, language="json", height=420)
