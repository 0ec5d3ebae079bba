"""Exports as people see them: certificates, what is there, jobs that make more, and their places on every page."""

import hashlib
import json
import os
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest
from test_pages_app import NASTY, PAGES, World, said, visit
from test_pages_app import world as world

from pages.parts import quantities, words
from pages.parts.models import bundle, making, proof, shelf, use
from spool.forecast import exports as forecast
from spool.forecast.shapes import Shape
from spool.health import extras
from spool.protocol import durable, formats, jobs
from spool.protocol.home import State
from spool.protocol.jobs import Job, iso
from spool.protocol.parse import parse_spec
from spool.protocol.spec import ExportSpec
from spool.protocol.states import Token, Tokens
from spool.protocol.ulid import derived, is_ulid
from tests import showcase

SMALL = Shape(640, 2048, 18, 4, 1, 256, 262_144, 268_098_176)
"""Gemma 3 270M."""


def plain(app: AppTest) -> str:
    return said(app).replace("\\", "")


def button(app: AppTest, label: str) -> Any:
    return next(each for each in app.button if each.label == label)


def put(world: World, job_id: str, kind: str, suspect: bool = False, certified: bool = True) -> Path:
    """An export beside a model's adapter."""
    folder = world.home.run(job_id).exports / formats.folder(kind)
    folder.mkdir()
    name = f"support-tickets-{formats.gguf(kind)}.gguf" if formats.gguf(kind) else "model.safetensors"
    (folder / name).write_bytes(b"\1" * 5_000_000)
    (folder / "README.md").write_text(
        f"# x\n\n## Use\n\nWith Ollama:\n\n```sh\nollama create x -f Modelfile\n```\n\nIn Python:\n\n"
        f"```python\nfrom transformers import A\n```\n\n## Terms\n\n```sh\nrm -rf {NASTY}\n```\n"
    )
    if formats.gguf(kind):
        (folder / "Modelfile").write_text(f"FROM ./{name}\n")
    document = {"v": 1, "kind": kind, "lineage": {}, "files": {name: {"bytes": 5_000_000, "sha256": "ab" * 32}}}
    durable.write_json(folder / "manifest.json", document)
    if certified:
        durable.write_json(folder / "certificate.json", showcase.certificate(folder, kind, suspect))
    return folder


def export_job(world: World, state: State, of: str, kinds: list[str], **told: Any) -> str:
    """A job of kind export, as the runner leaves it."""
    world.count += 1
    job_id = f"01K{world.count:05d}ABCDEFGHJKMNPQRSTV"[:26]
    spec = {"schema": 1, "kind": "export", "name": "tickets for Ollama", "job": of, "export": kinds}
    run = world.home.run(job_id)
    run.attempts.mkdir(parents=True)
    durable.write_json(run.spec_orig, spec)
    durable.write_json(run.spec, ExportSpec.model_validate(spec).to_json())
    body = {"id": job_id, "kind": "export", "name": spec["name"], "model": "gemma-3-270m", "dataset": None}
    body |= {"submitted_at": iso(1_795_000_000 + world.count), "submitted_by": "mira"}
    Tokens(world.home).create(state, Token(5, world.count, job_id), body)
    if state is not State.QUEUED:
        durable.write_json(run.attempts / "0001.json", {"attempt": 1, "started_at": iso(1_795_000_100)})
    for row in told.get("events", ()):
        durable.append_line(run.events, {"v": 1, "attempt": 1, "seq": 1, "t": 1_795_000_101.0, **row})
    if state in (State.DONE, State.FAILED, State.CANCELLED):
        ended = {"state": state.value, "ended_at": iso(1_795_000_200), "error": told.get("error")}
        durable.write_json(run.outcome, ended)
    if "result" in told:
        document = {"v": 1, "attempt": 1, "outcome": "finished", "result": {"exports": told["result"], "of": of}}
        durable.write_json(run.result, document)
    return job_id


# ---- certificates


def test_a_certificate_is_read_with_its_checks_and_figures(world: World) -> None:
    job_id = world.job(State.DONE)
    found = proof.read(put(world, job_id, "gguf:q4_k_m"))
    assert found is not None
    assert (found.passed, found.failed, found.held_out) == (True, [], True)
    assert found.equal == 0.9833
    assert found.rise == pytest.approx(0.0131)
    tokens = next(check for check in found.checks if check.name == "tokens")
    assert (tokens.label, tokens.found, tokens.wanted) == ("Same tokens", "98.3 %", "at least 85 %")
    loads = found.checks[0]
    assert (loads.found, loads.wanted) == ("–", "–")
    suspect = proof.read(put(world, job_id, "gguf:q3_k_m", suspect=True))
    assert suspect is not None
    assert not suspect.passed
    assert [check.label for check in suspect.failed] == ["Same tokens", "Divergence", "Loss"]


def test_a_verdict_that_its_own_checks_deny_is_not_believed(world: World) -> None:
    folder = put(world, world.job(State.DONE), "merged", suspect=True)
    document = durable.read_json(folder / "certificate.json") | {"verdict": "ready"}
    durable.write_json(folder / "certificate.json", document)
    assert not getattr(proof.read(folder), "passed", True)


@pytest.mark.parametrize("broken", ["manifest", "no_json", "a_list", "checks", "odd_check", "gone"])
def test_a_certificate_of_something_else_or_none_is_no_proof(broken: str, world: World) -> None:
    folder = put(world, world.job(State.DONE), "merged")
    path = folder / "certificate.json"
    document = durable.read_json(path) or {}
    match broken:
        case "manifest":
            durable.write_json(folder / "manifest.json", {"v": 1, "files": {}})
        case "no_json":
            path.write_bytes(b"{\xff")
        case "a_list":
            path.write_bytes(b"[]")
        case "checks":
            durable.write_json(path, document | {"checks": []})
        case "odd_check":
            durable.write_json(path, document | {"checks": [7]})
        case "gone":
            path.unlink()
    found = proof.read(folder)
    assert found is None or not found.passed


def test_shares_say_all_only_of_all() -> None:
    assert [quantities.agreement(share) for share in (1, 0.99967, 0.9, 0)] == ["100 %", "99.9 %", "90 %", "0 %"]
    assert [quantities.small(value) for value in (0, 0.00001, 0.00278, -0.002)] == [
        "0",
        "< 0.0001",
        "0.00278",
        "−0.002",
    ]


# ---- what is there


def test_every_format_is_found_and_what_is_suspect_comes_last(world: World) -> None:
    job_id = world.job(State.DONE)
    put(world, job_id, "merged", suspect=True)
    put(world, job_id, "gguf:q4_k_m")
    put(world, job_id, "gguf:q6_k+imatrix", certified=False)
    (world.home.run(job_id).exports / ".work").mkdir()
    found = shelf.exports(world.home, jobs.get_job(world.home, job_id))
    assert [(each.kind, each.state) for each in found] == [
        ("adapter", "original"),
        ("gguf:q4_k_m", "ready"),
        ("gguf:q6_k+imatrix", "unproven"),
        ("merged", "suspect"),
    ]
    assert all(each.size_bytes >= 5_000_000 for each in found)


def test_a_download_holds_a_gguf_with_what_belongs_to_it_and_nothing_else(world: World) -> None:
    folder = put(world, world.job(State.DONE), "gguf:q4_k_m")
    for name in ("llama.log", "a b.gguf", "..gguf", ".hidden.gguf", "training_args.bin", "modelfile", "x.gguf.part"):
        (folder / name).write_bytes(b"secret")
    (folder / "away.gguf").symlink_to("/etc/passwd")
    names = set(zipfile.ZipFile(BytesIO(bundle.packed(folder, "x"))).namelist())
    assert names == {
        f"x/{name}"
        for name in ("support-tickets-q4_k_m.gguf", "Modelfile", "README.md", "manifest.json", "certificate.json")
    }
    assert bundle.file_name("Support!", "01K00001ABCDEFGHJKMNPQRSTV", "gguf:q4_k_m") == "support-RSTV-gguf-q4_k_m.zip"


def test_a_download_of_onnx_holds_both_files_of_the_graph(world: World) -> None:
    folder = put(world, world.job(State.DONE), "onnx")
    (folder / "model.safetensors").unlink()
    for name in ("model.onnx", "model.onnx.data", "genai_config.json", "onnx.log", "model.onnx.part"):
        (folder / name).write_bytes(b"x")
    names = {path.name for path in bundle.files(folder)}
    told = {"README.md", "manifest.json", "certificate.json"}
    assert names == {"model.onnx", "model.onnx.data", "genai_config.json", *told}


def test_the_commands_come_from_the_exports_own_words(world: World) -> None:
    folder = put(world, world.job(State.DONE), "gguf:q4_k_m")
    assert [(each.program, each.code) for each in use.commands(folder)] == [
        ("Ollama", "ollama create x -f Modelfile"),
        ("Transformers", "from transformers import A"),
    ]
    assert use.modelfile(folder).startswith("FROM ./support-tickets-q4_k_m.gguf")
    (folder / "README.md").unlink()
    assert use.commands(folder) == []


def test_every_format_has_its_words() -> None:
    for kind in formats.FORMATS:
        assert words.export(kind) != kind
        assert words.export_for(kind).endswith(".")
    assert words.export("gguf:q4_k_m+imatrix") == "GGUF Q4_K_M, weighted"
    assert words.phase("proving gguf:q4_k_m") == "Proving GGUF Q4_K_M"
    assert words.phase("pushing a.gguf, 40%") == "Pushing a.gguf, 40%"


def test_estimated_sizes_are_near_the_measured() -> None:
    measured = {"gguf:q4_k_m": 253_114_656, "gguf:bf16": 542_834_976, "merged": 536_223_056}
    measured |= {"gptq": 387_414_248, "onnx": 1_139_680_474}
    for kind, size in measured.items():
        assert forecast.size_bytes(kind, SMALL, 0) == pytest.approx(size, rel=0.01)
    assert forecast.size_bytes("gguf:lora", None, 15) == 15
    assert forecast.size_bytes("merged", None, 15) is None
    large = Shape(2560, 10240, 34, 8, 4, 256, 262_208, 4_300_079_472)
    sizes = [forecast.size_bytes(f"gguf:{kind}", large, 0) or 0 for kind in forecast.BITS]
    assert sizes == sorted(sizes, reverse=True)


# ---- jobs that make more


def test_two_clicks_drop_one_job_and_a_failed_one_can_be_asked_for_again(world: World) -> None:
    model = jobs.get_job(world.home, world.job(State.DONE))
    kinds = ["gguf:q8_0", "merged"]
    first = making.submit(world.home, model, kinds, "x", [])
    assert making.submit(world.home, model, reversed(kinds), "x", []) == first
    assert making.submit(world.home, model, ["merged"], "x", []) != first
    again = making.submit(world.home, model, kinds, "x", [Job("a", "a", "export", "failed")])
    assert again != first
    (world.home.rejected / again).mkdir()
    assert making.submit(world.home, model, kinds, "x", [Job("a", "a", "export", "failed")]) not in (again, first)
    spec = parse_spec((world.home.incoming / f"{first}.json").read_bytes())
    assert isinstance(spec, ExportSpec)
    assert (spec.job, spec.export) == (model.id, ["merged", "gguf:q8_0"])
    assert jobs.get_job(world.home, first).kind == "export", "before the runner has taken it"
    assert [job.id for job in making.of(world.home, jobs.list_jobs(world.home), model.id)].count(first) == 1


def test_an_id_that_follows_from_a_text() -> None:
    stem = "01K00001ABCDEFGHJKMNPQRSTV"
    assert is_ulid(derived(stem, "a"))
    assert derived(stem, "a")[:10] == stem[:10]
    assert derived(stem, "a") == derived(stem, "a") != derived(stem, "b")


def test_each_format_of_a_job_says_where_it_stands(world: World) -> None:
    of = world.job(State.DONE)
    put(world, of, "merged")
    put(world, of, "gguf:q8_0", suspect=True)
    kinds = ["merged", "gguf:q8_0", "gguf:q6_k", "gguf:q4_k_m", "gguf:q3_k_m"]
    events = [
        {"event": "note", "words": "gguf:q6_k could not be made: a tensor is odd."},
        {"event": "phase", "phase": "making gguf:q4_k_m"},
        {"event": "phase", "phase": "proving gguf:q4_k_m"},
        {"event": "phase", "phase": "asking the adapter"},
    ]
    job = jobs.get_job(world.home, export_job(world, State.RUNNING, of, kinds, events=events))
    found = making.rows(world.home, job)
    assert [(row.kind, row.state) for row in found] == [
        ("merged", "ready"), ("gguf:q8_0", "suspect"), ("gguf:q6_k", "failed"), ("gguf:q4_k_m", "proving"),
        ("gguf:q3_k_m", "waits"),
    ]  # fmt: skip
    assert found[2].why == "a tensor is odd."
    assert making.share(found) == pytest.approx(3.5 / 5)
    error = {"code": "x", "message": "no.", "hint": ""}
    ended = jobs.get_job(world.home, export_job(world, State.FAILED, of, kinds, error=error))
    assert [row.state for row in making.rows(world.home, ended)] == [
        "ready", "suspect", "missing", "missing", "missing",
    ]  # fmt: skip


@pytest.mark.parametrize("spec", [b"{", b"[]", b'{"job": 7, "export": 7}', b'{"job": "../x", "export": ["nope"]}'])
def test_a_job_whose_spec_is_broken_makes_nothing_of_anybody(spec: bytes, world: World) -> None:
    of = world.job(State.DONE)
    job_id = export_job(world, State.DONE, of, ["merged"])
    world.home.run(job_id).spec.write_bytes(spec)
    job = jobs.get_job(world.home, job_id)
    assert making.asked(world.home, job).of is None
    assert making.rows(world.home, job) == []
    assert visit("monitor", job=job_id).title


def test_a_push_says_where_it_went(world: World) -> None:
    of = world.job(State.DONE)
    put(world, of, "merged")
    job_id = export_job(world, State.DONE, of, ["merged"], result={"merged": {"state": "ready"}})
    path = world.home.run(job_id).result
    document = durable.read_json(path) or {}
    document["result"]["pushed"] = {"repo": "team/model", "url": "https://hub.test/team/model", "files": 3}
    durable.write_json(path, document)
    assert "Pushed to the hub: **team/model**" in plain(visit("monitor", job=job_id))


def test_an_adapter_is_suspect_only_by_a_certificate_of_its_own(world: World) -> None:
    job_id = world.job(State.DONE)
    folder = world.home.run(job_id).exports / "adapter"
    durable.write_json(folder / "manifest.json", {"v": 1, "kind": "adapter", "lineage": {}, "files": {}})
    for suspect, state in ((False, "ready"), (True, "suspect")):
        durable.write_json(folder / "certificate.json", showcase.certificate(folder, "adapter", suspect))
        proof._read.cache_clear()
        (found,) = shelf.exports(world.home, jobs.get_job(world.home, job_id))
        assert found.state == state


# ---- the page of a model


def test_the_page_shows_each_export_and_what_is_wrong_with_one(world: World) -> None:
    job_id = world.job(State.DONE)
    put(world, job_id, "gguf:q4_k_m")
    put(world, job_id, "gguf:q3_k_m", suspect=True)
    app = visit("models", model=job_id)
    text = plain(app)
    assert ":material/verified: Proven" in text
    assert "same tokens 98.3 % · loss +0.0131 · divergence 0.0128" in text
    assert "It did not pass: Same tokens, Divergence, Loss" in text
    labels = [each.label for each in app.download_button]
    assert labels == ["Download · 15.2 MB", "Download · 5 MB", "Download anyway · 5 MB"]
    button = app.button(key=f"details-gguf:q3_k_m-{job_id}").click().run()
    assert not button.exception
    text = plain(button)
    assert "It did not pass 3 of its 8 checks" in text
    assert "32 prompts that were kept away from training" in text
    assert any(code.value == f"finetuner verify {shelf_folder(world, job_id, 'gguf-q3_k_m')}" for code in button.code)
    (table,) = (each.value for each in button.dataframe if "limit" in each.value)
    assert table["limit"].tolist()[2] == "at least 85 %"
    assert [code.value for code in button.code][1] == "ollama create x -f Modelfile"
    files = next(each.value for each in button.dataframe if "sha256" in each.value)
    assert files["sha256"].tolist() == ["ab" * 32]


def shelf_folder(world: World, job_id: str, name: str) -> Path:
    return world.home.run(job_id).exports / name


def test_what_an_export_is_told_by_others_shows_as_it_is(world: World) -> None:
    job_id = world.job(State.DONE)
    folder = put(world, job_id, "merged")
    document = durable.read_json(folder / "certificate.json") or {}
    document["checks"] = [{"name": NASTY, "passed": False, "says": NASTY, "measured": "x", "limit": True}]
    document["versions"] = {NASTY: NASTY}
    durable.write_json(folder / "certificate.json", document | {"made_at": NASTY})
    app = visit("models", model=job_id)
    text = said(app) + said(app.button(key=f"details-merged-{job_id}").click().run())
    for raw in ("<img", "[x](", "![](", "**b**", "$x$"):
        assert raw not in text.replace(r"\<img", "").replace(r"\[x\]", "")


def test_a_format_is_asked_for_with_two_clicks_and_is_then_on_its_way(world: World) -> None:
    world.base()
    world.runner()
    job_id = world.job(State.DONE)
    put(world, job_id, "gguf:q8_0")
    app = visit("models", model=job_id)
    assert app.checkbox(key=f"made-gguf:q8_0-{job_id}").disabled
    assert "there · 5 MB · loss +0.0008" in plain(app)
    assert app.button(key=f"make-{job_id}").disabled
    app.checkbox(key=f"make-gguf:q4_k_m-{job_id}").check().run()
    assert button(app, "Make it")
    app = app.button(key=f"make-{job_id}").click().run()
    assert not app.exception
    (drop,) = world.home.incoming.glob("*.json")
    spec = json.loads(drop.read_bytes())
    assert (spec["kind"], spec["job"], spec["export"]) == ("export", job_id, ["gguf:q4_k_m"])
    assert spec["name"] == "support tickets: GGUF Q4_K_M"
    assert "GGUF Q4\\_K\\_M** on the way" in said(app)
    assert app.checkbox(key=f"made-gguf:q4_k_m-{job_id}").disabled, "it cannot be asked for twice"
    links = [link.proto.query_string for link in app.get("page_link")]
    assert f"job={drop.stem}" in links


def test_what_is_ready_can_be_pushed_to_the_hub_once(world: World) -> None:
    world.base()
    world.runner()
    job_id = world.job(State.DONE)
    put(world, job_id, "gguf:q8_0")
    put(world, job_id, "gguf:q4_k_m")
    app = visit("models", model=job_id)
    app.button(key="push-open").click().run()
    assert app.selectbox(key="push-what").options == ["All 2 GGUF files", "Adapter", "GGUF Q8_0", "GGUF Q4_K_M"]
    app.text_input(key="push-repo").set_value("no slash")
    app.button(key="push-go").click().run()
    assert not list(world.home.incoming.glob("*.json")), "the hub would take no such name"
    app = visit("models", model=job_id)
    app.button(key="push-open").click().run()
    app.text_input(key="push-repo").set_value("my-team/support")
    app.toggle(key="push-private").set_value(False)
    app.button(key="push-go").click().run()
    assert not app.exception
    (drop,) = world.home.incoming.glob("*.json")
    spec = json.loads(drop.read_bytes())
    assert sorted(spec["export"]) == ["gguf:q4_k_m", "gguf:q8_0"]
    assert spec["push"] == {"repo": "my-team/support", "private": False}


def test_what_is_suspect_cannot_be_pushed(world: World) -> None:
    job_id = world.job(State.DONE)
    put(world, job_id, "gguf:q8_0", suspect=True)
    app = visit("models", model=job_id)
    app.button(key="push-open").click().run()
    assert app.selectbox(key="push-what").options == ["Adapter"]


def test_a_format_that_is_not_installed_cannot_be_asked_for_and_says_how_it_can(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = world.job(State.DONE)
    app = visit("models", model=job_id)
    app.toggle(key=f"make-all-{job_id}").set_value(True).run()
    assert not app.checkbox(key=f"make-gptq-{job_id}").disabled
    monkeypatch.setattr(extras, "gptq", lambda: None)
    app = visit("models", model=job_id)
    app.toggle(key=f"make-all-{job_id}").set_value(True).run()
    assert app.checkbox(key=f"missing-gptq-{job_id}").disabled
    assert "Not installed on the server. There, `make gptq` adds it." in plain(app)


def test_all_formats_and_an_importance_matrix_where_the_rows_are_there(world: World) -> None:
    job_id = world.job(State.DONE)
    app = visit("models", model=job_id)
    offered = [each.key for each in app.checkbox]
    assert offered[0] == f"make-gguf:q4_k_m-{job_id}"
    app.toggle(key=f"make-all-{job_id}").set_value(True).run()
    assert len(app.checkbox) == len([kind for kind in formats.FORMATS if words.IMATRIX not in kind]) - 1
    assert not any("imatrix" in (each.key or "") for each in app.toggle)
    data = world.home.run(job_id).data
    data.mkdir(exist_ok=True)
    durable.write_json(data / "prepared.json", {"v": 2})
    app = app.run()
    app.toggle(key=f"make-imatrix-{job_id}").set_value(True).run()
    app.checkbox(key=f"make-gguf:q4_k_m+imatrix-{job_id}").check().run()
    app.button(key=f"make-{job_id}").click().run()
    (drop,) = world.home.incoming.glob("*.json")
    assert json.loads(drop.read_bytes())["export"] == ["gguf:q4_k_m+imatrix"]


def test_a_job_that_failed_is_told_until_its_formats_are_there(world: World) -> None:
    job_id = world.job(State.DONE)
    error = {"code": "disk_full", "message": "the exports take 9 GB for a while.", "hint": "Free some space."}
    export_job(world, State.FAILED, job_id, ["merged"], error=error)
    text = plain(visit("models", model=job_id))
    assert "Merged weights could not be made.** The exports take 9 GB" in text
    put(world, job_id, "merged")
    assert "could not be made" not in plain(visit("models", model=job_id))


# ---- the other pages


@pytest.mark.parametrize("page", PAGES)
def test_every_page_opens_with_exports_in_every_state(page: str, world: World) -> None:
    of = world.job(State.DONE, steps=20)
    put(world, of, "merged")
    error = {"code": "out_of_memory", "message": "no memory.", "hint": ""}
    made = {"merged": {"state": "ready", "folder": "x", "bytes": 1}, "gguf:q8_0": {"state": "suspect"}}
    ids = [
        export_job(world, State.QUEUED, of, ["merged"]),
        export_job(world, State.HELD, of, ["merged"]),
        export_job(world, State.FAILED, of, ["merged"], error=error),
        export_job(world, State.CANCELLED, of, ["merged"]),
        export_job(world, State.DONE, of, ["merged", "gguf:q8_0"], result=made),
        export_job(
            world, State.RUNNING, of, ["gguf:q4_k_m"], events=[{"event": "phase", "phase": "making gguf:q4_k_m"}]
        ),
    ]
    world.runner(current_job=ids[-1])
    app = visit(page)
    assert "Runner is exporting" in plain(app)
    if page == "home":
        assert [each.proto.text for each in app.get("progress")] == ["Making GGUF Q4\\_K\\_M"]
    if page == "queue":
        ended = next(each.value for each in app.dataframe if "took" in each.value)
        assert "1 proven, 1 suspect" in ended["note"].tolist()
        assert "Export · gemma-3-270m" in ended["what"].tolist()
    if page == "monitor":
        for job_id in ids:
            app = visit(page, job=job_id)
            assert not app.get("vega_lite_chart")
            assert "To the model" in [link.proto.label for link in app.get("page_link")]
            assert "Change more first" not in [link.proto.label for link in app.get("page_link")]


def test_a_training_leads_to_its_other_formats_and_says_what_is_suspect(world: World) -> None:
    job_id = world.job(State.DONE, steps=20)
    labels = [link.proto.label for link in visit("monitor", job=job_id).get("page_link")]
    assert "Other formats" in labels
    put(world, job_id, "merged")
    put(world, job_id, "gguf:q3_k_m", suspect=True)
    app = visit("monitor", job=job_id)
    assert "2 more formats, 1 of them suspect" in [link.proto.label for link in app.get("page_link")]
    assert [each.label for each in app.download_button] == ["Download adapter · 15.2 MB"]


def test_the_certificates_of_the_showcase_are_their_exports_own(tmp_path: Path) -> None:
    home = showcase.build(tmp_path / "home")
    done = [job for job in jobs.list_jobs(home, "done") if job.kind == "train"]
    states = {each.kind: each.state for job in done for each in shelf.exports(home, job)}
    assert states["gguf:q3_k_m"] == "suspect"
    assert states["gguf:q4_k_m"] == "ready"
    folder = next(home.runs.glob("*/exports/merged"))
    told = durable.read_json(folder / "certificate.json") or {}
    assert told["manifest_sha256"] == hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest()
    assert os.path.getsize(folder / "model.safetensors") > 1e8
