"""What is known of one export, on demand: how it is used, its certificate, its files."""

import pandas as pd
import streamlit as st

from pages.parts import quantities, words
from pages.parts.compare.dossier import finite
from pages.parts.escape import md, one_line
from pages.parts.models import proof, use
from pages.parts.models.proof import Certificate
from pages.parts.models.shelf import Export
from pages.parts.texts import t
from pages.parts.ui import frame
from spool.protocol import durable


def show(export: Export) -> None:
    st.dialog(words.export(export.kind), width="large", icon=":material/inventory_2:")(_inside)(export)


def _inside(export: Export) -> None:
    """What to do with it first; of one that is suspect, why."""
    names = ["use", "certificate", "files"]
    if export.state == proof.SUSPECT:
        names = ["certificate", "use", "files"]
    made = {"use": _use, "certificate": _certificate, "files": _files}
    for name, tab in zip(names, st.tabs([t(f"models.details.{name}") for name in names]), strict=True):
        with tab:
            made[name](export)


def _use(export: Export) -> None:
    st.markdown(words.export_for(export.kind))
    found = use.commands(export.folder)
    if not found:
        st.caption(t("models.details.no_commands"))
        return
    st.caption(t("models.details.unpack"))
    for command in found:
        if command.program:
            st.markdown(f"**{command.program}**")
        st.code(command.code, language="python" if command.language == "python" else None)
    if modelfile := use.modelfile(export.folder):
        with st.expander(t("models.details.modelfile"), icon=":material/description:"):
            st.code(modelfile, language=None)


def _certificate(export: Export) -> None:
    found = export.proof
    if found is None:
        st.markdown(t("models.proof.original_says" if export.kind == "adapter" else "models.proof.unproven_says"))
    else:
        _verdict(found)
        _figures(found)
        _checks(found)
        st.caption("  \n".join(_how(found)))
    _verify(export)


def _verdict(found: Certificate) -> None:
    if found.passed:
        st.markdown(f":green[:material/verified:] {t('models.proof.passed', count=len(found.checks))}")
    else:
        says = t("models.proof.failed", count=len(found.failed), all=len(found.checks))
        st.markdown(f":orange[:material/report:] {says}")


def _figures(found: Certificate) -> None:
    prompts, same = (finite(found.measured.get(name)) for name in ("prompts", "prompts_equal"))
    part_of = t("models.proof.of", part=quantities.count(same), all=quantities.count(prompts))
    figures = [
        ("same", quantities.agreement(found.equal) if found.equal is not None else ""),
        ("prompts", part_of if prompts else ""),
        ("loss", signed(found.rise) if found.rise is not None else ""),
        ("divergence", quantities.small(found.divergence) if found.divergence is not None else ""),
    ]
    known = [(name, value) for name, value in figures if value]
    if known:
        with st.grid(len(known), min_column_width=130, gap="small"):
            for name, value in known:
                label, says = t(f"models.proof.figure.{name}"), t(f"models.proof.figure.{name}_help")
                st.metric(label, value, help=says, border=True, height="stretch")


def signed(rise: float) -> str:
    """`+0.0032`: by how much a loss is above the adapter's."""
    if abs(rise) < 0.0001:
        return "±0"
    return ("+" if rise > 0 else "") + quantities.small(rise)


def _checks(found: Certificate) -> None:
    passed, failed = t("models.proof.check_passed"), t("models.proof.check_failed")
    config = st.column_config
    st.dataframe(
        pd.DataFrame(
            {
                "check": [check.label for check in found.checks],
                "result": [[passed if check.passed else failed] for check in found.checks],
                "measured": [check.found for check in found.checks],
                "limit": [check.wanted for check in found.checks],
                "says": [words.sentence(one_line(check.says, 300)) for check in found.checks],
            }
        ),
        hide_index=True,
        height="content",
        alt=t("models.details.certificate"),
        column_config={
            "check": config.TextColumn(t("models.proof.column.check"), width=112),
            "result": config.MultiselectColumn(
                t("models.proof.column.result"), options=[passed, failed], color=["green", "orange"], width=96
            ),
            "measured": config.TextColumn(t("models.proof.column.measured"), width=84),
            "limit": config.TextColumn(t("models.proof.column.limit"), width=110),
            "says": config.TextColumn(t("models.proof.column.says"), width=340),
        },
    )


def _how(found: Certificate) -> list[str]:
    """On what it was asked, when, and with which versions."""
    prompts, places = (quantities.count(finite(found.measured.get(name))) for name in ("prompts", "places"))
    said = []
    if found.measured:
        key = "held_out" if found.held_out else "learned"
        said.append(t(f"models.proof.{key}", prompts=prompts, places=places))
    if found.made_at:
        said.append(t("models.proof.made", when=quantities.clock(found.made_at, frame.zone())))
    said.append(" · ".join(f"{md(name, 40)} {md(version, 30)}" for name, version in found.versions.items()))
    return [each for each in said if each]


def _verify(export: Export) -> None:
    st.caption(t("models.files.verify"))
    st.code(f"finetuner verify {export.folder}", language=None)


def _files(export: Export) -> None:
    config = st.column_config
    st.dataframe(
        pd.DataFrame(manifest(export), columns=["file", "size", "sha256"]),
        hide_index=True,
        height="content",
        alt=t("models.details.files"),
        column_config={
            "file": config.TextColumn(t("models.files.file"), width=240),
            "size": config.TextColumn(t("models.list.size"), width=90),
            "sha256": config.TextColumn(t("models.files.hash"), width=480),
        },
    )
    _verify(export)


def manifest(export: Export) -> list[tuple[str, str, str]]:
    """(file, size, SHA-256) of an export as its manifest says; nothing where that is missing or damaged."""
    try:
        document = durable.read_json(export.folder / "manifest.json")
    except (ValueError, OSError):
        return []
    files = document.get("files") if isinstance(document, dict) else None
    return [
        (one_line(name, 120), quantities.size(finite(facts.get("bytes"))), one_line(facts.get("sha256"), 64))
        for name, facts in (files.items() if isinstance(files, dict) else ())
        if isinstance(facts, dict)
    ]
