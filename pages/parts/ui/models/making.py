"""Making more exports of a model: what is on its way, and a picker that asks for one job, whatever one clicks."""

from collections.abc import Mapping, Sequence

import streamlit as st

from pages.parts import alive, quantities, words
from pages.parts.escape import md
from pages.parts.models import making, proof
from pages.parts.models.shelf import Export
from pages.parts.texts import t
from pages.parts.ui import frame, jobs
from pages.parts.ui.models import certificate
from spool.forecast import exports as forecast
from spool.forecast import shapes
from spool.health import extras
from spool.protocol.errors import FinetunerError
from spool.protocol.home import Home
from spool.protocol.jobs import Job

STATE = st.session_state
FIRST = ("gguf:q4_k_m", "gguf:q8_0", "gguf:q6_k", "merged")
FURTHER = ("gptq", "onnx", "gguf:q5_k_m", "gguf:q4_k_s", "gguf:q3_k_m", "gguf:bf16", "gguf:f16", "gguf:lora")
QUANTISED = ("gguf:q6_k", "gguf:q5_k_m", "gguf:q4_k_m", "gguf:q4_k_s", "gguf:q3_k_m")
"""Those that an importance matrix makes closer."""

LOOK_S = 3


def under_way(home: Home, model: Job, everything: Mapping[str, Job]) -> None:
    """The jobs that make exports of it just now, and the last one that failed to."""
    known = making.of(home, everything.values(), model.id)
    going = [job.id for job in known if not job.ended]
    if going:
        st.fragment(_going, run_every=LOOK_S)(home, going)
        if not alive.look(home).alive:
            frame.runner_notice()
    elif known and known[-1].state in ("failed", "rejected"):
        _failed(home, known[-1])


def _going(home: Home, ids: Sequence[str]) -> None:
    """Follows them; once one has ended the page shows what it made."""
    for job_id in ids:
        try:
            job = frame.job(job_id)
        except FinetunerError:
            continue
        if job.ended:
            st.rerun()
        found = making.rows(home, job)
        named = ", ".join(words.export(row.kind) for row in found if not row.there)
        with st.container(border=True, gap="xsmall"):
            with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
                with st.container(horizontal=True, vertical_alignment="center", gap="small", width="content"):
                    st.markdown(jobs.badge(job), width="content")
                    st.markdown(t("models.making.now", exports=f"**{md(named, 200)}**"), width="content")
                frame.link(frame.MONITOR, t("models.making.watch"), icon=":material/monitoring:", job=job.id)
            if job.state == "running":
                st.progress(making.share(found), text=jobs.progress_text(job))


def _failed(home: Home, job: Job) -> None:
    """Until it is asked for again. What it could make is there."""
    missing = [row for row in making.rows(home, job) if not row.there]
    if missing:
        named = ", ".join(words.export(row.kind) for row in missing)
        says = t("models.making.failed", exports=md(named, 200))
        why = next((row.why for row in missing if row.why), jobs.why(job))
        with st.container(border=True, horizontal=True, vertical_alignment="center", gap="small"):
            st.markdown(f":red[:material/error:] **{says}** {md(why, 300)}", width="stretch")
            frame.link(frame.MONITOR, t("models.making.why"), icon=":material/monitoring:", job=job.id)


# ---- the picker


def more(home: Home, model: Job, there: Sequence[Export], everything: Mapping[str, Job]) -> None:
    """What else can be made of it."""
    if "adapter" not in {export.kind for export in there}:
        return
    before = making.of(home, everything.values(), model.id)
    going = {kind for job in before if not job.ended for kind in making.asked(home, job).kinds}
    bare = not going and {export.kind for export in there} == {"adapter"}
    with st.expander(t("models.making.head"), icon=":material/add:", expanded=bare):
        st.caption(t("models.making.says"))
        weighed = _weighed(home, model)
        chosen = _choices(home, model, FIRST, there, going, weighed)
        if st.toggle(t("models.making.all"), key=f"make-all-{model.id}"):
            chosen += _choices(home, model, FURTHER, there, going, weighed)
        _button(home, model, chosen, before)


def _weighed(home: Home, model: Job) -> bool:
    """Whether quantised formats are made with an importance matrix; it takes the rows that were trained on."""
    if not STATE.get(f"make-all-{model.id}") or not (home.run(model.id).data / "prepared.json").exists():
        return False
    return st.toggle(t("models.making.imatrix"), help=t("models.making.imatrix_help"), key=f"make-imatrix-{model.id}")


def _choices(
    home: Home, model: Job, kinds: Sequence[str], there: Sequence[Export], going: set[str], weighed: bool
) -> list[tuple[str, int | None]]:
    """A box for each format; gives those that are ticked, with their estimated sizes."""
    known = {export.kind: export for export in there}
    shape = _shape(home, model)
    chosen = []
    with st.grid(2, min_column_width=280, gap=("medium", "small")) as grid:
        for plain in kinds:
            kind = plain + words.IMATRIX if weighed and plain in QUANTISED else plain
            size = forecast.size_bytes(kind, shape, known["adapter"].size_bytes)
            with grid.cell(), st.container(gap=None):
                if kind in known or kind in going:
                    st.checkbox(f"**{words.export(kind)}**", True, disabled=True, key=f"made-{kind}-{model.id}")
                    st.caption(
                        _stands(known[kind])
                        if kind in known
                        else f":blue[:material/hourglass_empty:] {t('models.making.on_its_way')}"
                    )
                elif command := extras.missing(kind):
                    st.checkbox(f"**{words.export(kind)}**", disabled=True, key=f"missing-{kind}-{model.id}")
                    st.caption(t("models.making.missing", command=f"`{command}`"))
                else:
                    about = f" :gray[≈ {quantities.size(size)}]" if size else ""
                    if st.checkbox(f"**{words.export(kind)}**{about}", key=f"make-{kind}-{model.id}"):
                        chosen.append((kind, size))
                    st.caption(words.export_for(kind))
    return chosen


def _stands(export: Export) -> str:
    """Of one that is there: its size, and the loss that was measured."""
    said = [t("models.making.there"), quantities.size(export.size_bytes)]
    if export.proof and export.proof.rise is not None:
        said.append(t("models.proof.loss", rise=certificate.signed(export.proof.rise)))
    icon = ":orange[:material/report:]" if export.state == proof.SUSPECT else ":green[:material/check:]"
    return f"{icon} " + " · ".join(said)


def _shape(home: Home, model: Job) -> shapes.Shape | None:
    reference = str(model.model or "")
    folder = ((model.result or {}).get("base") or {}).get("folder")
    return shapes.of(home, reference, home.root / folder if isinstance(folder, str) and folder else None)


def _button(home: Home, model: Job, chosen: Sequence[tuple[str, int | None]], before: Sequence[Job]) -> None:
    kinds = [kind for kind, _ in chosen]
    sizes = [size for _, size in chosen if size]

    def make() -> None:
        name = t("models.making.name", model=jobs.short_name(model), exports=", ".join(map(words.export, kinds)))
        try:
            making.submit(home, model, kinds, name, before)
        except (OSError, FinetunerError) as error:
            why = getattr(error, "strerror", None) or str(error)
            st.toast(md(t("models.making.unwritable", why=why), 300), icon=":material/error:")
            return
        for kind in kinds:
            STATE.pop(f"make-{kind}-{model.id}", None)
        frame.roster().stale()
        st.toast(t("models.making.sent"), icon=":material/check:")

    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        label = t("models.making.button", count=len(kinds)) if kinds else t("models.making.none")
        st.button(
            label, type="primary", icon=":material/construction:", disabled=not kinds, on_click=make,
            key=f"make-{model.id}",
        )  # fmt: skip
        if sizes:
            st.caption(t("models.making.takes", size=quantities.size(sum(sizes))), width="content")
