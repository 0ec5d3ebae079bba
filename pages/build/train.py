"""Train: from a model, data and a few settings to a job; the spec that comes of it stands beside the form."""

from pathlib import Path
from typing import Any

import streamlit as st

from pages.parts import alive, draft, fields, reading, shelf, words
from pages.parts.escape import md
from pages.parts.ui import form, frame, jobs
from spool.data.keeping import keep
from spool.health import cures
from spool.protocol import dropbox
from spool.protocol.errors import FinetunerError
from spool.protocol.jobs import get_job
from spool.protocol.ulid import mint

HOME = frame.home()
STATE = st.session_state
STATE.setdefault("train-id", mint())
STATE.setdefault("train-sent", None)
KEY = "train"


def submit(spec: dict[str, Any], job_id: str) -> None:
    """Drops the spec. The id was minted with the form: a second click drops the same job, which is one job."""
    try:
        dropbox.submit(HOME, {**spec, "submission_id": job_id}, job_id)
    except OSError as error:
        STATE["train-error"] = f"The job could not be written to the spool: {error.strerror}."
    else:
        STATE["train-sent"], STATE["train-error"] = job_id, None


def start_another() -> None:
    """Back to the form, as it was set, for a job of its own."""
    STATE["train-id"], STATE["train-sent"], STATE["train-retry"], STATE[f"{KEY}/name"] = mint(), None, None, ""


@st.fragment(run_every="2s")
def sent(job_id: str) -> None:
    """What became of the drop: it waits, it runs, or it was not accepted."""
    try:
        job = get_job(HOME, job_id)
    except FinetunerError as error:
        frame.show_error(error.message, error.hint)
        return
    if job.state == "rejected":
        for problem in (job.error or {}).get("errors", []):
            where = words.label(problem.get("pointer") or "/job")
            frame.show_error(f"{where}: {problem.get('message')}", problem.get("hint") or "")
        return
    if job.state == "failed":
        why = job.error or {}
        frame.show_error(why.get("message") or "The job failed.", why.get("hint") or "")
    elif job.state == "checking":
        st.info("Handed in. Its data is checked first; you may close this page.", icon=":material/fact_check:")
    else:
        says = "Your job is in the queue. You may close this page: it runs on the server."
        st.success(says, icon=":material/check_circle:")
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.markdown(f"**{md(jobs.short_name(job), 80)}**", width="content")
        st.markdown(jobs.badge(job), width="content")
    if not job.ended and not alive.look(HOME).alive:
        frame.runner_notice()


def after() -> None:
    with st.container(border=True, width=640):
        sent(STATE["train-sent"])
        with st.container(horizontal=True, vertical_alignment="center"):
            if st.button("Watch it", type="primary", icon=":material/monitoring:"):
                st.switch_page(frame.MONITOR, query_params={"job": STATE["train-sent"]})
            if st.button("See the queue", icon=":material/list_alt:"):
                st.switch_page(frame.QUEUE)
            st.button("Back to the form", type="tertiary", on_click=start_another)


def arrive() -> None:
    """Takes over what the Data page says of the data, or what a retry is to be, once for each way that leads here."""
    came = tuple(st.query_params.get(name) for name in ("data", "model", "set", "retry"))
    if STATE.get("train-came") == came:
        return
    STATE["train-came"] = came
    if came[3]:
        arrive_for_retry(came[3])
        return
    if STATE.get("train-retry"):  # what the retry had set is not meant for another job
        fill({})
    if came[1] in [base.name for base in shelf.bases(HOME)]:
        STATE[f"{KEY}-model"] = came[1]
    values, known = reading.from_query(came[2]), fields.all_fields()
    for pointer in reading.POINTERS:
        STATE.pop(f"{KEY}{pointer}", None)
        if pointer in values and pointer in known:
            lines = draft.lines(values[pointer]) if known[pointer].kind == "pairs" else values[pointer]
            STATE[f"{KEY}{pointer}"] = lines


def arrive_for_retry(job_id: str) -> None:
    """Fills the form with the suggestion for a failed job, or with what the job was where there is none."""
    try:
        made = cures.suggestion(HOME, get_job(HOME, job_id))
        spec = made.spec if made else dropbox.dropped_spec(HOME, job_id)
    except FinetunerError:
        return
    fill(spec)
    STATE["train-retry"], STATE["train-id"] = job_id, mint()


def fill(spec: dict[str, Any]) -> None:
    """Sets every input to what a spec says, and to its default where it says nothing."""
    values = draft.values_of(spec)
    for pointer, field in fields.all_fields().items():
        form.fill(field, KEY, values.get(pointer, form.UNSET))
    STATE[f"{KEY}/export"] = "merged" in values.get("/export", [])
    STATE["train-retry"] = None
    if values.get("/model"):
        STATE[f"{KEY}-model"] = values["/model"]


def pick_model() -> str | None:
    names = [base.name for base in shelf.bases(HOME)]
    if STATE.get(f"{KEY}-model") and STATE[f"{KEY}-model"] not in names:
        names = [STATE[f"{KEY}-model"], *names]
    chosen = st.selectbox(
        words.label("/model"),
        names,
        index=0 if names else None,
        accept_new_options=True,
        placeholder="Choose or type one",
        help="A model on this server, or type a Hugging Face id (google/gemma-3-1b-it) or a folder.",
        key=f"{KEY}-model",
        persist_state="session",
    )
    if not names:
        st.caption("No model lies on this server yet: `make setup` prepares gemma-3-270m. A hub id works too.")
    return chosen


def pick_dataset() -> str | None:
    stored = sorted(keep.list_datasets(HOME), key=lambda each: each.added_at, reverse=True)
    options = list(dict.fromkeys(each.name for each in stored)) + (
        [frame.EXAMPLE] if Path(frame.EXAMPLE).exists() else []
    )
    wanted = st.query_params.get("data")
    if wanted and wanted not in options:
        options = [wanted, *options]
    chosen = st.selectbox(
        words.label("/dataset"),
        options,
        index=options.index(wanted) if wanted else 0 if options else None,
        accept_new_options=True,
        placeholder="Choose or type one",
        format_func=lambda name: f"{name}  (example)" if name == frame.EXAMPLE else str(name),
        help="An uploaded dataset, or type a path on this server.",
        key=f"{KEY}-data-{wanted or ''}",
        persist_state="session",
    )
    if not stored:
        frame.link(frame.DATA, "Upload your own data", icon=":material/upload:")
    return chosen


def ask() -> draft.Draft:
    """The form. Gives the draft of what stands in it."""
    known = fields.all_fields()
    values: dict[str, Any] = {}

    def draw(field: fields.Field) -> None:
        value = form.ask(field, KEY)
        if value is not form.UNSET:
            values[field.pointer] = value

    with st.container(border=True):
        with st.grid(2, min_column_width=260):
            with st.container(gap="small"):
                model = pick_model()
            with st.container(gap="small"):
                dataset = pick_dataset()
        with st.grid(2, min_column_width=260):
            for pointer in fields.ESSENTIAL:
                draw(known[pointer])
    merged = False
    with st.expander("All settings", icon=":material/tune:"):
        st.caption("Each has a default that suits most work. What you leave alone stays out of the spec.")
        rest = [field for pointer, field in known.items() if pointer not in fields.ESSENTIAL]
        for group in words.GROUPS:
            st.markdown(f"**{words.group(group)}**")
            with st.grid(2, min_column_width=240):
                for field in rest:
                    if field.group == group:
                        draw(field)
                if group == "":
                    merged = st.toggle(
                        "Also make a merged model",
                        help="16-bit weights with the adapter merged in: larger, and usable without the base.",
                        key=f"{KEY}/export",
                        persist_state="session",
                    )
    spec = draft.spec_of(model, dataset, values, merged)
    if STATE.get("train-retry"):
        spec["retry_of"] = STATE["train-retry"]
    return draft.judge(spec, HOME, Path.cwd())


def beside(made: draft.Draft) -> None:
    """Start, what is wrong, and the spec."""
    with st.container(border=True):
        st.button(
            "Start training",
            type="primary",
            icon=":material/play_arrow:",
            width="stretch",
            disabled=bool(made.problems),
            on_click=submit,
            args=(made.spec, STATE["train-id"]),
            key="start",
        )
        if STATE.get("train-error"):
            frame.show_error(STATE["train-error"], "Check the disk and the rights of the data home.")
        for problem in made.problems:
            st.markdown(f":red[:material/error:] {md(draft.in_words(problem), 500)}")
        for doubt in made.doubts:
            st.markdown(f":orange[:material/warning:] {md(draft.in_words(doubt), 500)}")
        if not made.problems and not made.doubts:
            st.markdown(":green[:material/check_circle:] :gray[Ready to start.]")
        st.markdown("**Job spec**", help="What will be dropped into the spool. `finetuner submit` takes the same file.")
        st.code(made.text, language="json", wrap_lines=True)


if STATE["train-sent"]:
    frame.title("Train", "One more job for the queue.")
    after()
else:
    arrive()
    frame.title("Train", "Pick a model and your data. The rest has defaults that suit a beginner.")
    if STATE.get("train-retry"):
        says = "Filled in from the job that failed, with the suggested change."
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            st.caption(f":material/replay: {says}", width="content")
            frame.link(frame.MONITOR, "Open that job", job=STATE["train-retry"])
    left, right = st.columns([1.7, 1], gap="medium")
    with left:
        made = ask()
    with right:
        beside(made)
