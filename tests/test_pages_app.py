"""Each page, run by AppTest over homes that are empty, full, broken or hostile."""

import html
import json
import math
import random
import re
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from pages.parts.ui import frame
from spool.data import inspect
from spool.data.keeping import keep
from spool.protocol import durable, metrics, roster
from spool.protocol.home import Home, State
from spool.protocol.jobs import iso
from spool.protocol.spec import JobSpec
from spool.protocol.states import Token, Tokens

ROOT = Path(__file__).resolve().parent.parent
NASTY = "<img src=x onerror=alert(1)> [x](javascript:alert(1)) ![](http://evil.test/a.png) **b** :material/home: $x$"


class World:
    """A data home with jobs in any state, written as the runner writes them."""

    def __init__(self, root: Path) -> None:
        self.home = Home(root).create()
        self.count = 0

    def runner(self, age_s: float = 0.0, **told: Any) -> None:
        document = {"v": 1, "state": "ready", "current_job": None, "halted": None, "heartbeat": time.time() - age_s}
        durable.write_json(self.home.runner_json, document | told)

    def job(
        self,
        state: State,
        name: str = "support tickets",
        steps: int = 0,
        total: int = 120,
        ago_s: float = 600.0,
        error: dict[str, str] | None = None,
        gpu: bool = False,
    ) -> str:
        self.count += 1
        job_id = f"01K{self.count:05d}ABCDEFGHJKMNPQRSTV"[:26]
        now = time.time()
        spec = {"schema": 1, "name": name[:120], "model": "gemma-3-270m", "dataset": "support_tickets"}
        run = self.home.run(job_id)
        run.attempts.mkdir(parents=True)
        durable.write_json(run.spec_orig, spec)
        durable.write_json(run.spec, JobSpec.model_validate(spec).to_json())
        body = {k: spec[k] for k in ("name", "model", "dataset")} | {"id": job_id, "kind": "train"}
        body |= {"submitted_at": iso(now - ago_s), "submitted_by": "mira"}
        Tokens(self.home).create(state, Token(5, self.count, job_id), body)
        if steps:
            started = now - ago_s + 20
            durable.write_json(run.attempts / "0001.json", {"attempt": 1, "started_at": iso(started)})
            self._curve(run.metrics, steps, total, started, gpu)
            event = {"v": 1, "attempt": 1, "event": "phase"}
            durable.append_line(run.events, {**event, "t": started, "phase": "loading the model"})
            durable.append_line(run.events, {**event, "t": started + 9, "phase": "training"})
            durable.append_line(run.events, {**event, "t": started + 20, "event": "checkpoint", "step": 10})
            run.log.write_text("loading the model\n" + "".join(f"step {i}\n" for i in range(steps)))
        if state in (State.DONE, State.FAILED, State.CANCELLED):
            ended = {"state": state.value, "ended_at": iso(now - ago_s / 2), "error": error}
            durable.write_json(run.outcome, ended)
        if state is State.DONE:
            self._export(run.exports / "adapter")
            result = {
                "adapter": str(run.exports / "adapter"),
                "final_loss": 0.1312,
                "eval_loss": 0.1547,
                "steps": steps,
            }
            durable.write_json(run.result, {"attempt": 1, "outcome": "finished", "result": result})
        return job_id

    def rejected(self) -> str:
        self.count += 1
        job_id = f"01K{self.count:05d}ABCDEFGHJKMNPQRSTV"[:26]
        folder = self.home.rejected / job_id
        folder.mkdir()
        errors = [
            {"code": "unknown_field", "message": "there is no field 'epoch'.", "hint": "Did you mean 'train.epochs'?",
             "pointer": "/epoch", "line": 4, "column": 3},
            {"code": "bad_value", "message": '"high" does not fit.', "hint": "Expected a whole number from 0 to 9.",
             "pointer": "/priority", "line": 5, "column": 15},
        ]  # fmt: skip
        reason = {
            **errors[0],
            "dropped_name": "night run.json",
            "rejected_at": iso(time.time() - 400),
            "errors": errors,
        }
        durable.write_json(folder / "reason.json", {**reason, "submitted_by": "jonas"})
        durable.write_json(folder / "dropped.json", {"schema": 1, "model": "m", "epoch": 3, "priority": "high"})
        return job_id

    def base(self, name: str = "gemma-3-270m") -> None:
        folder = self.home.models / name
        folder.mkdir(parents=True)
        config = {"model_type": "gemma3_text", "num_hidden_layers": 18, "hidden_size": 640}
        (folder / "config.json").write_text(json.dumps(config))
        with open(folder / "model.safetensors", "wb") as file:
            file.truncate(536_000_000)

    def _curve(self, path: Path, steps: int, total: int, started: float, gpu: bool) -> None:
        noise = random.Random(7)
        writer = metrics.Writer(path, 1)
        for step in range(1, steps + 1):
            loss = 2.9 * math.exp(-step / 14) + 0.13 + noise.gauss(0, 0.055) * (0.35 + math.exp(-step / 30))
            row: dict[str, Any] = {
                "step": step,
                "total_steps": total,
                "loss": max(0.02, loss),
                "epoch": 3 * step / total,
            }
            row["learning_rate"] = 5e-4 * min(1, step / 4) * (0.5 + 0.5 * math.cos(math.pi * step / total))
            row |= {"grad_norm": 1.2, "tokens_per_s": 1480 + noise.gauss(0, 40), "eta_s": (total - step) * 1.5}
            row |= {"host_mem_bytes": 2_310_000_000, "step_time_s": 1.5}
            if gpu:
                row |= {"gpu_util_pct": 93, "gpu_mem_bytes": 5.2e9, "gpu_power_w": 412.0, "gpu_temp_c": 61}
            writer.write(**row)
            if step % 24 == 0:
                writer.write(step=step, total_steps=total, eval_loss=2.7 * math.exp(-step / 14) + 0.152)

    def _export(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        (folder / "adapter_config.json").write_text('{"r": 16}')
        (folder / "adapter_model.safetensors").write_bytes(b"\0" * 15_200_000)
        (folder / "tokenizer.json").write_text("{}")
        (folder / "training_args.bin").write_bytes(b"secret")


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setenv("FINETUNER_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(inspect, "PATIENCE_S", 60.0)  # AppTest runs no fragment again
    monkeypatch.setattr(roster, "PAUSE_S", 0.0)
    return World(tmp_path / "home")


PAGES = {name: path for path, name in frame.PAGES}


def visit(page: str, **query: str) -> AppTest:
    """A page as streamlit_app.py shows it."""
    app = AppTest.from_file(str(ROOT / "streamlit_app.py"), default_timeout=30).run()
    if page != "home":
        app = app.switch_page(PAGES[page])
        for name, value in query.items():
            app.query_params[name] = value
        app = app.run()
    assert not app.exception, app.exception
    return app


def said(app: AppTest) -> str:
    """Everything the page says, as one text."""
    kinds = (app.title, app.subheader, app.markdown, app.caption, app.error, app.warning, app.info, app.success)
    return "\n".join(str(element.value) for kind in kinds for element in kind)


def log(app: AppTest) -> str:
    """The log as a reader sees it."""
    (shown,) = app.get("html")
    return html.unescape(re.sub("</?pre[^>]*>", "", shown.proto.body))


def full(world: World) -> dict[str, str]:
    """One job in each state."""
    ids = {
        "done": world.job(State.DONE, "support tickets", steps=120),
        "failed": world.job(
            State.FAILED, "tone", steps=30, error={"code": "x", "message": "no memory.", "hint": "Less."}
        ),
        "cancelled": world.job(State.CANCELLED, "wrong file", steps=11),
        "rejected": world.rejected(),
        "running": world.job(State.RUNNING, "rank 32", steps=72, gpu=True),
        "queued": world.job(State.QUEUED, "FAQ answers"),
        "held": world.job(State.HELD, "overnight"),
        "checking": world.job(State.CHECKING, "just came"),
    }
    world.runner(current_job=ids["running"])
    return ids


@pytest.mark.parametrize("page", PAGES)
def test_every_page_opens_on_a_home_that_does_not_exist_yet(page: str, world: World) -> None:
    shutil.rmtree(world.home.root)
    app = visit(page)
    assert app.title
    left = sorted(path.name for path in world.home.root.glob("*"))
    assert left == (["cache"] if page in ("data", "train") else []), "looking changes nothing"


@pytest.mark.parametrize("page", PAGES)
def test_every_page_opens_on_a_full_home(page: str, world: World) -> None:
    world.base()
    full(world)
    assert visit(page).title


@pytest.mark.parametrize("page", PAGES)
def test_every_page_opens_where_files_are_broken(page: str, world: World) -> None:
    ids = full(world)
    for path in world.home.runs.rglob("*.json*"):
        path.write_bytes(b'{"step": 1, \xff')
    world.home.runner_json.write_text("[]")
    app = visit(page, job=ids["done"])
    assert app.title


@pytest.mark.parametrize("page", PAGES)
def test_no_page_renders_what_people_wrote(page: str, world: World) -> None:
    job_id = world.job(State.RUNNING, NASTY[:110], steps=5)
    world.job(State.FAILED, NASTY[:110], error={"code": "x", "message": NASTY, "hint": NASTY})
    world.job(State.QUEUED, NASTY[:110])
    world.job(State.DONE, NASTY[:110], steps=5)
    text = said(visit(page, job=job_id)) + said(visit("monitor", job=job_id))
    for raw in ("<img", "[x](", "![](", "**b**", "$x$", ":material/home:"):
        assert raw not in text.replace(r"\<img", "").replace(r"\[x\]", "")


def order(app: AppTest, key: str, choice: str) -> AppTest:
    app.get_by_key(key).set_value(choice)
    return app.run()


@pytest.mark.parametrize(
    ("told", "says"),
    [
        ({"age_s": 30}, "does not answer"),
        ({"state": "stopped"}, "was stopped"),
        ({"state": "waiting", "queue": "held", "waiting_for": "the queue is held by ann"}, "held by ann"),
        ({"queue": "draining", "current_job": "x"}, "after this job no other starts"),
    ],
)
def test_queue_says_why_nothing_moves(told: dict[str, Any], says: str, world: World) -> None:
    world.job(State.QUEUED)
    world.runner(**told)
    assert says in visit("queue").warning[0].value


@pytest.mark.parametrize("page", [name for _, name in frame.PAGES])
def test_every_page_says_what_halted_the_runner(page: str, world: World) -> None:
    world.runner(halted={"code": "enospc", "reason": "No space left"})
    app = visit(page)
    assert "No space left" in app.error[0].value
    assert any("halted" in caption.value for caption in app.sidebar.caption)


def test_the_queue_is_held_drained_and_released_from_its_page(world: World) -> None:
    world.runner()
    world.job(State.QUEUED)
    app = order(visit("queue"), "queue-order", "hold")
    assert "No further job starts" in app.toast[0].value
    order(app, "queue-order", "drain")
    world.runner(queue="held", state="waiting", waiting_for="the queue is held")
    order(visit("queue"), "queue-order", "release")
    assert sorted(path.name for path in world.home.control.iterdir()) == ["drain", "hold", "release"]


def test_steps_done_twice_are_drawn_once_and_each_attempt_on_demand(world: World) -> None:
    job_id = world.job(State.RUNNING, steps=72)
    assert [toggle.key for toggle in visit("monitor", job=job_id).toggle] == ["log"]
    path = world.home.run(job_id).metrics
    writer = metrics.Writer(path, 2)
    for step in range(61, 80):
        writer.write(step=step, total_steps=120, loss=0.5)
    with open(path, "ab") as file:
        file.write(b"\x00 bit rot\n")
    app = visit("monitor", job=job_id)
    assert "One line of metrics.jsonl" in said(app)
    assert '"attempts"' not in app.get("vega_lite_chart")[0].proto.spec
    app = app.toggle(key="attempts").set_value(True).run()
    assert not app.exception
    chart = json.loads(app.get("vega_lite_chart")[0].proto.spec)
    assert any(layer.get("name") == "attempts" for layer in chart["layer"])


def test_monitor_shows_a_running_job(world: World) -> None:
    job_id = full(world)["running"]
    app = visit("monitor", job=job_id)
    values = {metric.label: metric.value for metric in app.metric}
    assert values["Time left"] == "1 min"
    assert values["GPU power"] == "412 W"
    assert values["Eval loss"].startswith("0.1")
    assert len(app.get("vega_lite_chart")) == 2
    assert "step 71" in log(app)
    assert app.selectbox[0].value == job_id


def test_monitor_shows_the_phase_before_the_first_step(world: World) -> None:
    job_id = world.job(State.RUNNING, "early", steps=1)
    world.home.run(job_id).metrics.unlink()
    durable.append_line(world.home.run(job_id).events, {"event": "phase", "phase": "loading the model"})
    app = visit("monitor", job=job_id)
    assert app.progress[0].text == "Loading the model"
    assert not app.metric


def test_monitor_offers_the_result(world: World) -> None:
    job_id = full(world)["done"]
    app = visit("monitor", job=job_id)
    assert "The adapter is ready" in said(app)
    assert app.download_button[0].label == "Download adapter · 15.2 MB"
    assert not app.progress


def test_monitor_says_why_a_job_failed(world: World) -> None:
    app = visit("monitor", job=full(world)["failed"])
    assert "No memory\\." in app.error[0].value
    assert "Less" in app.error[0].value


def test_monitor_shows_each_reason_of_a_rejected_drop(world: World) -> None:
    app = visit("monitor", job=full(world)["rejected"])
    assert "2 to correct" in app.error[0].value
    assert "/epoch" in said(app)
    assert "/priority" in said(app)
    assert '"epoch": 3' in app.code[0].value


@pytest.mark.parametrize("job", ["01K99999ABCDEFGHJKMNPQRSTV", "../../etc/passwd", "<b>", ""])
def test_monitor_of_a_job_that_is_not_there(job: str, world: World) -> None:
    full(world)
    app = visit("monitor", job=job)
    assert "There is no job" in app.error[0].value


def test_monitor_of_nothing_shows_what_runs(world: World) -> None:
    ids = full(world)
    assert visit("monitor").selectbox[0].value == ids["running"]


def test_models_lists_adapters_and_bases(world: World) -> None:
    world.base()
    full(world)
    app = visit("models")
    assert app.dataframe[0].value["size"].tolist() == ["15.2 MB"]
    assert app.dataframe[1].value[["kind", "users"]].values.tolist() == [["Gemma 3 · 18 layers · width 640", 1]]


# ---- the check of a job's data


def plainly(app: AppTest) -> str:
    return said(app).replace("\\", "")


def blocked(world: World, dataset: str, text: str) -> str:
    """A job whose data was blocked, with the check's own findings."""
    stored = keep.add(world.home, dataset, f"{dataset}.csv", text.encode())
    seen = inspect.look(world.home, stored.path)
    assert seen.report
    assert seen.report["blocked"]
    job_id = world.job(State.FAILED, error=seen.report["blocked"])
    run = world.home.run(job_id)
    run.data.mkdir()
    durable.write_json(run.data / "check.json", {"v": 1, **seen.report})
    run.check_log.write_text("-- checking the data\n-- failed\n")
    (token,) = [path for path in world.home.state(State.FAILED).iterdir() if job_id in path.name]
    durable.write_json(token, durable.read_json(token) | {"dataset": dataset})
    return job_id


def test_a_job_that_was_blocked_shows_its_rows_and_the_way_to_correct_them(world: World) -> None:
    world.runner()
    text = "question,answer\n" + "".join(f"How much is {i}?,{'' if i % 2 else 'Nothing.'}\n" for i in range(20))
    app = visit("monitor", job=blocked(world, "prices", text))
    assert not app.exception
    assert "10 of 20 rows (50 %) cannot be trained on" in plainly(app)
    assert "data.csv" not in " ".join(error.value for error in app.error)
    assert app.dataframe[0].value["line"].tolist()[:3] == [3, 5, 7]
    links = {link.proto.label: link.proto.query_string for link in app.get("page_link")}
    assert "dataset=prices" in links["Correct it on the Data page"]
    assert "-- checking the data" in log(app)
    queue = visit("queue")
    assert not queue.dataframe[0].value["note"].tolist()[0].startswith(("data.csv", "Data.csv"))


def test_what_blocks_a_whole_file_says_where_it_is_allowed(world: World) -> None:
    world.runner()
    text = "text,label\n" + "".join(f"I want number {i},same\n" for i in range(20))
    app = visit("monitor", job=blocked(world, "labels", text))
    assert "every row has the same label" in said(app)
    assert "Findings allowed" in said(app)
    assert len(app.dataframe[0].value) >= 1


def test_a_broken_report_takes_nothing_else_away(world: World) -> None:
    world.runner()
    job_id = world.job(State.FAILED, error={"code": "data_blocked", "message": "nothing to train on.", "hint": "Add."})
    for content in (b"{", b"[]", b'{"v": 1, "blocked": {"code": "x"}}'):
        world.home.run(job_id).data.mkdir(exist_ok=True)
        (world.home.run(job_id).data / "check.json").write_bytes(content)
        app = visit("monitor", job=job_id)
        assert not app.exception
        assert "Nothing to train on." in plainly(app)


def test_a_job_that_is_checked_says_what_is_done(world: World) -> None:
    world.runner()
    job_id = world.job(State.CHECKING)
    run = world.home.run(job_id)
    metrics.Writer(run.events, attempt=0).write(event="phase", phase="comparing rows")
    run.check_log.write_text("-- comparing rows\n")
    app = visit("monitor", job=job_id)
    assert "being checked before it is queued" in said(app)
    assert "Comparing rows" in said(app)
    assert "-- comparing rows" in log(app)
    assert visit("queue").dataframe[0].value["note"].tolist() == ["Comparing rows …"]
