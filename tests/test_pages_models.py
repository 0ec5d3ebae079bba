"""Models: the list with its search and order, the page of one, notes, what depends on it, and deleting its files."""

import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest
from test_pages_app import NASTY, World, said, visit
from test_pages_app import world as world
from test_removal import look

from pages.parts.models import bundle, lineage, shelf
from spool.data.keeping import keep
from spool.protocol import dropbox, durable, notes, removed
from spool.protocol.home import State
from spool.protocol.jobs import Job
from spool.protocol.notes import Note
from spool.protocol.removed import Removed


def model(name: str, loss: float | None = None, size: int = 1, ended: str = "", **parts: object) -> shelf.Model:
    job = Job(name, name, "train", "done", ended_at=ended, result={"eval_loss": loss}, model="gemma-3-270m")
    job.dataset, job.submitted_by = "tickets", "mira"
    return shelf.Model(job, size, Note(str(parts.get("note", "")), tuple(parts.get("tags", ()))))  # type: ignore[arg-type]


def names(found: list[shelf.Model]) -> list[str]:
    return [each.job.name for each in found]


# ---- the shelf


def test_the_list_is_searched_by_what_people_remember() -> None:
    found = [
        model("Refunds", tags=("Pilot",)),
        model("tone", note="curt on refunds"),
        model("faq", tags=("pilot", "v2")),
    ]
    assert names(shelf.search(found, "refunds")) == ["Refunds", "tone"]
    assert names(shelf.search(found, "REFUNDS curt")) == ["tone"]
    assert names(shelf.search(found, "mira tickets gemma")) == ["Refunds", "tone", "faq"]
    assert names(shelf.search(found, "", ["pilot"])) == ["Refunds", "faq"]
    assert names(shelf.search(found, "", ["PILOT", "v2"])) == ["faq"]
    assert shelf.search(found, "nobody") == []
    assert shelf.tags(found) == ["Pilot", "v2"]


def test_the_orders() -> None:
    found = [model("b", 0.5, 10, "2026-01-02"), model("A", None, 30, "2026-01-03"), model("c", 0.2, 20, "2026-01-01")]
    assert names(shelf.ordered(found, "newest")) == ["A", "b", "c"]
    assert names(shelf.ordered(found, "best")) == ["c", "b", "A"]
    assert names(shelf.ordered(found, "largest")) == ["A", "c", "b"]
    assert names(shelf.ordered(found, "name")) == ["A", "b", "c"]


def test_sizes_follow_the_folder(world: World) -> None:
    job_id = world.job(State.DONE)
    folder = world.home.run(job_id).exports / "adapter"
    assert shelf.size(folder) == 15_200_011
    (folder / "adapter_model.safetensors").unlink()
    assert shelf.size(folder) == 11
    assert shelf.size(folder.with_name("merged")) == 0


# ---- zips


def export(folder: Path, size: int = 1000) -> Path:
    folder.mkdir(parents=True)
    (folder / "adapter_model.safetensors").write_bytes(b"x" * size)
    return folder


def test_many_who_take_the_same_one_along_share_one_zip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, made, at_once = export(tmp_path / "adapter"), [], []
    really, inside = bundle.zipped, threading.Semaphore(1)

    def counted(*given: object) -> BytesIO:
        at_once.append(inside.acquire(blocking=False))
        made.append(given)
        try:
            return really(folder, "x")
        finally:
            inside.release()

    monkeypatch.setattr(bundle, "zipped", counted)
    with ThreadPoolExecutor(8) as threads:
        zips = list(threads.map(lambda _: bundle.packed(folder, "x"), range(8)))
    assert len(made) == 1
    assert all(each is zips[0] for each in zips)
    assert zipfile.ZipFile(BytesIO(zips[0])).namelist() == ["x/adapter_model.safetensors"]
    (folder / "README.md").write_text("new")
    assert len(zipfile.ZipFile(BytesIO(bundle.packed(folder, "x"))).namelist()) == 2
    assert all(at_once)


def test_kept_zips_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle, "KEPT_BYTES", 5000)
    bundle._kept.clear()
    for name in range(5):
        bundle.packed(export(tmp_path / str(name), 2000), "x")
    assert 0 < sum(map(len, bundle._kept.values())) <= 5000
    assert len(bundle.packed(export(tmp_path / "large", 9000), "x")) > 9000
    assert sum(map(len, bundle._kept.values())) <= 5000


# ---- what depends on a model


def test_what_goes_back_to_a_model_is_found(world: World) -> None:
    job_id, other = world.job(State.DONE), world.job(State.DONE)
    again = Job("x", "x", "train", "done", retry_of=job_id)
    row = b'{"question": "a?", "answer": "b", "corrected_by": "ann", "corrected_model": "%s"}\n' % job_id.encode()
    stored = keep.add(world.home, "faq", "faq.jsonl", row * 3)
    keep.add(world.home, "other", "other.jsonl", b'{"question": "a?", "answer": "b"}\n')
    waiting = dropbox.submit(world.home, {"schema": 1, "model": "m", "dataset": "d", "retry_of": job_id})
    found = lineage.dependents(world.home, job_id, [again], Path.cwd())
    assert (found.needing, found.retries) == ((waiting,), (again,))
    assert [each.reference for each in found.datasets] == [stored.reference]
    assert not lineage.dependents(world.home, other, [again], Path.cwd())


# ---- the list


def test_a_model_is_found_by_word_and_tag(world: World) -> None:
    ids = [world.job(State.DONE, name) for name in ("refunds", "tone", "faq", "invoices")]
    notes.write(world.home, ids[2], "", ["pilot"])
    app = visit("models")
    assert len(app.dataframe[0].value) == 4
    tags = dict(zip(app.dataframe[0].value["name"], map(list, app.dataframe[0].value["tags"]), strict=True))
    assert tags == {"refunds": [], "tone": [], "faq": ["pilot"], "invoices": []}
    found = app.text_input(key="q").set_value("refu").run()
    assert found.dataframe[0].value["name"].tolist() == ["refunds"]
    found = app.text_input(key="q").set_value("zebra").run()
    assert "No model fits that" in said(found)
    app = visit("models", sort="name", tags="pilot")
    assert app.dataframe[0].value["name"].tolist() == ["faq"]
    assert visit("models", sort="name").dataframe[0].value["name"].tolist() == ["faq", "invoices", "refunds", "tone"]


def test_five_hundred_models_are_one_table(world: World) -> None:
    first = world.job(State.DONE, "one")
    token = next(path for path in world.home.state(State.DONE).iterdir() if first in path.name)
    body, template = durable.read_json(token), world.home.run(first)
    for number in range(520):
        job_id = f"01M{number:05d}ABCDEFGHJKMNPQRSTV"[:26]
        run = world.home.run(job_id)
        run.root.mkdir()
        for name in ("result.json", "outcome.json"):
            (run.root / name).write_bytes((template.root / name).read_bytes())
        (token.parent / f"5-{number + 10:012d}-{job_id}.json").write_bytes(durable.to_bytes({**body, "id": job_id}))
    app = visit("models")
    assert len(app.dataframe[0].value) == 500
    assert "The first 500 of 521" in said(app)


# ---- the page of one


def plainly(app: AppTest) -> str:
    return said(app).replace("\\", "")


def links(app: AppTest) -> dict[str, str]:
    return {link.proto.label: link.proto.query_string for link in app.get("page_link") if link.proto.query_string}


def test_a_model_shows_where_it_comes_from(world: World) -> None:
    earlier = world.job(State.FAILED, "first try", error={"code": "x", "message": "m", "hint": "h"})
    job_id = world.job(State.DONE, steps=120)
    token = next(path for path in world.home.state(State.DONE).iterdir() if job_id in path.name)
    durable.write_json(token, durable.read_json(token) | {"retry_of": earlier})
    app = visit("models", model=job_id)
    text = plainly(app)
    assert "LoRA rank 16" in text
    assert f"`{job_id}`" in text
    assert {metric.label: metric.value for metric in app.metric}["Eval loss"] == "0.1547"
    assert app.download_button[0].label == "Download · 15.2 MB"
    known = links(app)
    assert known["Try it"] == f"with={job_id}"
    assert known["Train again"] == f"from={job_id}"
    assert known["Compare"] == f"jobs={job_id}"
    assert known["first try"] == f"job={earlier}"
    assert known["support\\_tickets"] == "dataset=support_tickets"
    app = next(button for button in app.button if button.label == "All models").click().run()
    assert "model" not in app.query_params


def test_a_model_says_which_export_one_needs(world: World) -> None:
    job_id = world.job(State.DONE)
    text = plainly(visit("models", model=job_id))
    assert "works only together with its base model, gemma-3-270m" in text
    assert "with Ollama or llama.cpp:** GGUF Q4_K_M" in text


@pytest.mark.parametrize("wrong", ["01K99999ABCDEFGHJKMNPQRSTV", "../../etc", "<b>"])
def test_a_model_that_is_not_there_leads_back(wrong: str, world: World) -> None:
    world.job(State.QUEUED)
    app = visit("models", model=wrong)
    assert "There is no finished model" in app.error[0].value
    assert "<b>" not in app.error[0].value.replace("\\<b", "")


def test_a_note_is_kept_with_its_tags(world: World) -> None:
    job_id = world.job(State.DONE, steps=20)
    app = visit("models", model=job_id)
    app.text_area[0].set_value("Good on refunds.")
    app.multiselect[0].set_value(["pilot"])
    app = next(button for button in app.button if button.label == "Save").click().run()
    note = notes.read(world.home, job_id)
    assert (note.text, note.tags, note.by) == ("Good on refunds.", ("pilot",), None)
    assert "somebody, just now" in plainly(app)
    assert app.text_area[0].value == "Good on refunds."


def test_what_others_wrote_shows_as_they_wrote_it(world: World) -> None:
    job_id = world.job(State.DONE, NASTY[:110], steps=3)
    durable.write_json(
        world.home.notes / f"{job_id}.json", {"text": NASTY, "tags": ["ok"], "by": NASTY, "at": "2026-01-01"}
    )
    text = said(visit("models", model=job_id)) + said(visit("models"))
    for raw in ("<img", "[x](", "![](", "**b**", "$x$", ":material/home: "):
        assert raw not in text.replace(r"\<img", "").replace(r"\[x\]", "")


# ---- deleting


def ask(app: AppTest) -> AppTest:
    return next(button for button in app.button if button.label == "Delete its files").click().run()


def confirm(app: AppTest, job_id: str, name: str) -> AppTest:
    """Types a name in the dialog and clicks. AppTest runs no dialog by itself: what opened it is clicked each time."""
    app = ask(app)
    app.text_input(key=f"delete-{job_id}").set_value(name)
    next(button for button in app.button if button.label == "Delete").click()
    return ask(app)


def test_deleting_wants_the_name_typed_and_asks_the_runner(world: World) -> None:
    world.runner()
    job_id = world.job(State.DONE, "refunds", steps=20)
    app = confirm(visit("models", model=job_id), job_id, "refund")
    assert "not its name" in app.error[0].value
    assert not list(world.home.control.iterdir())
    app = confirm(app, job_id, " Refunds ")
    assert not app.exception
    assert [path.name for path in world.home.control.iterdir()] == [f"delete-{job_id}"]
    assert (world.home.run(job_id).exports / "adapter").exists(), "the web process deletes nothing"
    assert "being deleted" in said(visit("models", model=job_id))
    look(world.home)
    gone = visit("models", model=job_id)
    assert "Its files were removed on" in said(gone)
    assert not gone.download_button
    assert "Try it" not in links(gone)
    assert visit("models").dataframe[0].value["size"].tolist() == ["removed"]


def test_what_a_waiting_job_needs_cannot_be_deleted(world: World) -> None:
    world.runner()
    job_id = world.job(State.DONE, steps=20)
    dropbox.submit(world.home, {"schema": 1, "model": "m", "dataset": "d", "retry_of": job_id})
    app = visit("models", model=job_id)
    assert "Still needs its files" in said(app)
    app = ask(app)
    assert "still needs these files" in " ".join(each.value for each in app.warning)
    assert "Delete" not in [button.label for button in app.button]


def test_files_that_went_by_themselves_are_no_error(world: World) -> None:
    job_id = world.job(State.DONE, steps=20)
    run = world.home.run(job_id)
    run.exports.rename(run.root / "elsewhere")
    assert "no longer there" in visit("models", model=job_id).warning[0].value
    durable.write_json(
        run.removed, {"at": "2026-11-22T10:00:00Z", "by": "ann", "bytes": 5_000_000, "what": ["adapter"]}
    )
    assert removed.read(run) == Removed("2026-11-22T10:00:00Z", "ann", 5_000_000, ("adapter",))
    assert "removed on 22 Nov 2026, 10:00 by ann (5 MB)" in plainly(visit("models", model=job_id))
    monitor = visit("monitor", job=job_id)
    assert "removed on 22 Nov 2026, 10:00 by ann (5 MB)" in plainly(monitor)
    assert not monitor.download_button
