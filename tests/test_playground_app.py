"""The Playground's page, run by AppTest: the session behind it is played by writing what its job would write."""

import json
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest
from test_pages_app import NASTY, World, said, visit, world  # noqa: F401

from spool.data.keeping import keep
from spool.protocol import asks, durable, metrics
from spool.protocol.home import State
from spool.protocol.jobs import get_job, iso
from spool.protocol.parse import parse_spec
from spool.protocol.spec import GenerateSpec
from spool.protocol.states import Token, Tokens

ROWS = b"question,answer\n" + b"".join(b"Number %d?,%d\n" % (i, i) for i in range(12))


class Session:
    """A generate job as the runner would take and answer it."""

    def __init__(self, world: World) -> None:  # noqa: F811
        self.home = world.home
        (drop,) = self.home.incoming.glob("*.json")
        self.id = drop.stem
        parsed = parse_spec(drop.read_bytes())
        assert isinstance(parsed, GenerateSpec)
        self.spec = parsed
        self.run = self.home.run(self.id)
        self.run.attempts.mkdir(parents=True)
        durable.write_json(self.run.spec, parsed.to_json())
        self.token = Token(5, 900 + len(list(self.home.runs.iterdir())), self.id)
        told = {"id": self.id, "kind": "generate", "name": parsed.name, "submitted_at": iso(1.0)}
        Tokens(self.home).create(State.QUEUED, self.token, told)
        drop.unlink()

    def start(self, ready: bool = True) -> "Session":
        durable.write_json(self.run.attempts / "0001.json", {"attempt": 1, "started_at": iso(1.0)})
        Tokens(self.home).move(self.token, State.QUEUED, State.RUNNING)
        metrics.Writer(self.run.events, 1).write(event="phase", phase="loading the model")
        if ready:
            asks.write_row(self.run.answers, ready=True, who=self.spec.who)
        return self

    def answer(self, whole: bool = True, **texts: str) -> list[asks.Ask]:
        """Answers everything that was asked: with `base`'s text for the base and `tuned`'s for all adapters."""
        taken = []
        for ask_id in asks.pending(self.home, self.id):
            ask = asks.take(self.home, self.id, ask_id)
            for who in ask.who:
                text = texts["base" if who == "base" else "tuned"]
                asks.write_row(self.run.answers, ask=ask_id, who=who, delta=text[:3])
                if whole:
                    end = {"text": text, "tokens": 4, "seconds": 0.5, "ended_by": "stop"}
                    asks.write_row(self.run.answers, ask=ask_id, who=who, done=True, **end)
            taken.append(ask)
        return taken

    def end(self, how: str, state: State = State.DONE, error: dict[str, str] | None = None) -> None:
        durable.write_json(self.run.result, {"result": {"answers": 1, "ended_by": how}})
        durable.write_json(self.run.outcome, {"state": state.value, "ended_at": iso(2.0), "error": error})
        Tokens(self.home).move(self.token, State.RUNNING, state)


def trained(world: World, name: str = "support tickets") -> str:  # noqa: F811
    world.runner()
    keep.add(world.home, "support_tickets", "faq.csv", ROWS)
    return world.job(State.DONE, name, steps=5)


def ask(app: AppTest, prompt: str) -> AppTest:
    app.chat_input[0].set_value(prompt).run()
    assert not app.exception, app.exception
    return app


def button(app: AppTest, label: str) -> Any:
    return next(each for each in app.button if each.label == label)


def texts(app: AppTest) -> list[str]:
    return [each.value for each in app.text]


def test_with_nobody_to_talk_to_it_leads_to_training(world: World) -> None:  # noqa: F811
    app = visit("playground")
    assert "Nobody to talk to yet" in said(app)
    assert "make setup" in said(app)
    assert not app.chat_input


def test_a_base_alone_can_be_asked(world: World) -> None:  # noqa: F811
    world.base()
    world.runner()
    app = ask(visit("playground"), "Hello?")
    session = Session(world)
    assert (session.spec.model, session.spec.who) == ("gemma-3-270m", ["base"])
    session.start().answer(base="Hi.")
    assert texts(app.run()) == ["Hello?", "Hi."]


def test_a_chat_from_the_first_question_to_the_next(world: World) -> None:  # noqa: F811
    job = trained(world)
    app = visit("playground")
    assert "Nothing is loaded" in said(app)
    assert not list(world.home.incoming.iterdir()), "looking starts nothing"
    ask(app, "Where is it?")
    session = Session(world)
    assert session.spec.interactive
    assert session.spec.who == ["base", job]
    assert app.chat_input[0].disabled
    assert "takes it in a moment" in said(app.run())
    session.start(ready=False)
    assert "Loading the model" in said(app.run())
    asks.write_row(session.run.answers, ready=True, who=session.spec.who)
    world.runner(current_job=session.id)
    assert "Ready." in said(app.run())
    assert "Runner is answering" in "".join(each.value for each in app.sidebar.caption)
    session.answer(whole=False, base="No idea", tuned="On its way")
    assert texts(app.run()) == ["Where is it?", "No", "On"]
    app = ask_again(world, app, session)
    told = session.answer(base="Later", tuned="Tomorrow")
    assert [each.who for each in told] == [["base"], [job]], "each is told its own answers"
    assert [[m.content for m in each.messages] for each in told] == [
        ["Where is it?", "No idea", "When?"],
        ["Where is it?", "On its way", "When?"],
    ]
    assert texts(app.run())[-2:] == ["Later", "Tomorrow"]
    assert len(list(world.home.runs.iterdir())) == 2, "one session serves the whole chat"


def ask_again(world: World, app: AppTest, session: Session) -> AppTest:  # noqa: F811
    """The half answers of the first question are finished, and a second one is asked."""
    known = asks.Answers(world.home, session.id)
    known.read()
    for ask_id, by_who in known.by_ask.items():
        for who in by_who:
            text = "No idea" if who == "base" else "On its way"
            end = {"text": text, "tokens": 3, "seconds": 0.25, "ended_by": "length"}
            asks.write_row(session.run.answers, ask=ask_id, who=who, done=True, **end)
    app.run()
    assert "3 tokens · 0.2 s · :orange[:material/content_cut: cut at 256 tokens]" in said(app)
    assert not app.chat_input[0].disabled
    return ask(app, "When?")


def test_the_address_says_who_answers(world: World) -> None:  # noqa: F811
    first, second = trained(world, "first"), world.job(State.DONE, "second", steps=5)
    app = visit("playground", **{"with": f"{first},{second},../../etc,{first}", "base": "0"})
    assert app.multiselect[0].value == [first, second]
    assert not app.toggle[0].value
    ask(app, "Hello?")
    assert Session(world).spec.who == ["base", first, second], "the base costs nothing and may be wanted next"
    assert [each.who for each in pending(world)] == [[first, second]]
    app.multiselect[0].set_value([second]).run()
    assert app.query_params["with"] == second


def pending(world: World) -> list[asks.Ask]:  # noqa: F811
    return [asks.parse_ask(path.read_bytes()) for path in sorted(world.home.asks.glob("*.json"))]


def test_settings_go_with_each_question(world: World) -> None:  # noqa: F811
    trained(world)
    app = visit("playground")
    app.text_area[0].set_value("Be brief.")
    app.slider[0].set_value(0.7)
    app.run()
    assert "2 changed" in app.get("popover")[0].proto.popover.label
    ask(app, "Hello?")
    asked = pending(world)[0]
    assert (asked.temperature, asked.max_new_tokens) == (0.7, 256)
    assert [message.content for message in asked.messages] == ["Be brief.", "Hello?"]


def test_a_question_from_its_own_rows_shows_the_datasets_answer(world: World) -> None:  # noqa: F811
    trained(world)
    app = visit("playground")
    button(app, "Number 0?").click().run()
    Session(world).start().answer(base="None", tuned="0")
    assert texts(app.run()) == ["Number 0?", "None", "0", "0"]
    assert "The dataset's own answer" in said(app)


def test_a_chat_that_made_room_says_so_and_opens_again_with_one_click(world: World) -> None:  # noqa: F811
    trained(world)
    app = ask(visit("playground"), "Hello?")
    session = Session(world).start()
    for ask_id in asks.pending(world.home, session.id):
        refused = {"code": "session_ended", "message": "the session has ended.", "hint": "Open a new one."}
        asks.write_row(session.run.answers, ask=ask_id, error=refused)
    session.end("made_room")
    training = world.job(State.RUNNING, "tone of voice", steps=3, ago_s=20)
    world.runner(current_job=training)
    app.run()
    assert "made room for “tone of voice”" in said(app)
    assert "the chat ended before" in said(app)
    button(app, "Ask again").click().run()
    again = Session(world)
    assert again.id != session.id
    app.run()
    assert "Waits while “tone of voice” trains" in said(app)
    assert [link.proto.label for link in app.get("page_link")][-1] == "Queue"
    assert texts(app) == ["Hello?"]


def test_a_failed_session_says_why_and_a_runner_that_is_off_too(world: World) -> None:  # noqa: F811
    trained(world)
    app = ask(visit("playground"), "Hello?")
    world.runner(age_s=99)
    assert "which is not running" in said(app.run())
    Session(world).start().end("", State.FAILED, {"code": "x", "message": NASTY, "hint": "Take less."})
    world.runner()
    app.run()
    assert "It could not go on" in said(app)
    assert "Take less" in said(app)
    assert "<img" not in said(app).replace(r"\<img", "")
    button(app, "Open again").click().run()
    assert Session(world).spec.interactive


def test_an_open_chat_of_the_same_models_is_shared(world: World) -> None:  # noqa: F811
    trained(world)
    first = ask(visit("playground"), "Hello?")
    session = Session(world).start()
    second = ask(visit("playground"), "Hello too?")
    assert not list(world.home.incoming.glob("*.json"))
    session.answer(base="b", tuned="t")
    assert texts(second.run()) == ["Hello too?", "b", "t"]
    assert texts(first.run()) == ["Hello?", "b", "t"]
    assert "Close" in [each.label for each in first.button]
    assert "Close" not in [each.label for each in second.button], "who did not open it does not close it"
    button(first, "Close").click().run()
    assert [path.name for path in world.home.control.iterdir()] == [f"cancel-{session.id}"]


def test_a_question_is_stopped_written_anew_and_cleared(world: World) -> None:  # noqa: F811
    trained(world)
    app = ask(visit("playground"), "First?")
    session = Session(world).start()
    button(app, "Stop").click().run()
    assert len(list(world.home.asks.glob(f"{session.id}-*.stop"))) == 1
    session.answer(base="b1", tuned="t1")
    app.run()
    ask(app, "Second?")
    session.answer(base="b2", tuned="t2")
    app.run()
    button(app, "Edit").click().run()
    assert "Question 1 is written anew" in said(app)
    assert texts(ask(app, "Other?")) == ["Other?"]
    (asked,) = session.answer(base="b3", tuned="t3")
    assert [message.content for message in asked.messages] == ["Other?"]
    button(app.run(), "Clear").click().run()
    assert texts(app) == []


def test_an_answer_opens_the_dialog_that_corrects_it(world: World) -> None:  # noqa: F811
    trained(world)
    app = ask(visit("playground"), "Where is it?")
    Session(world).start().answer(base="b", tuned="Wrong.")
    app.run()
    [each for each in app.button if each.label == "Correct"][1].click().run()
    area = next(each for each in app.text_area if each.label == "The right answer")
    assert area.value == "Wrong."
    assert app.selectbox[-1].value == "support_tickets"


def dialog() -> None:
    """What the dialog shows, as a page of its own: AppTest runs no fragment again."""
    import streamlit as st

    from pages.parts.ui import frame
    from pages.parts.ui.play import correct
    from pages.parts.ui.play.models import Adapter

    known = {"x": Adapter("x", "tickets", "m", "support_tickets", "")}
    asked = [{"role": "user", "content": content} for content in ("Where is it?",)]
    if st.session_state.get("earlier"):
        asked = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}, *asked]
    correct.draw(frame.home(), correct.asked(asked, "base", "Wrong.", None, known))


def opened(world: World, earlier: bool = False) -> AppTest:  # noqa: F811
    app = AppTest.from_function(dialog, default_timeout=30)
    app.session_state["earlier"] = earlier
    app.run()
    assert not app.exception, app.exception
    return app


def test_a_correction_is_kept_as_a_row_and_leads_on(world: World) -> None:  # noqa: F811
    trained(world)
    app = opened(world)
    app.text_area[0].set_value("Right.")
    button(app, "Save the correction").click().run()
    assert not app.exception, app.exception
    stored = keep.find(world.home, "support_tickets")
    assert stored.rows == 13
    row = json.loads(stored.path.read_bytes().splitlines()[-1])
    assert row == {
        "question": "Where is it?",
        "answer": "Right.",
        "corrected_by": "",
        "corrected_model": "base",
    }
    button(app, "Save the correction").click().run()
    assert app.session_state["play-chat"].saved == [stored.reference], "the same row is kept once"
    page = visit("playground")
    page.session_state["play-chat"] = app.session_state["play-chat"]
    page.session_state["play-toast"] = "The correction is in support_tickets."
    page.run()
    assert f"One correction saved to **{stored.reference}**" in said(page).replace("\\", "")
    assert page.toast[0].value == r"The correction is in support\_tickets\."
    links = {link.proto.label: link.proto.query_string for link in page.get("page_link")}
    assert links["Train on it"] == "data=support_tickets"
    assert links["See it in Data"] == f"dataset={stored.reference.replace('@', '%40')}"


def test_a_correction_with_what_was_said_before_goes_to_a_dataset_of_conversations(world: World) -> None:  # noqa: F811
    trained(world)
    app = opened(world, earlier=True)
    assert not app.toggle[0].value, "its dataset holds single questions"
    app.toggle[0].set_value(True).run()
    assert app.selectbox[0].value == "support_tickets-corrected"
    button(app, "Save the correction").click().run()
    (row,) = keep.find(world.home, "support_tickets-corrected").path.read_bytes().splitlines()
    assert [message["content"] for message in json.loads(row)["messages"]] == ["Hi", "Hello", "Where is it?", "Wrong."]


# ---- many prompts


def form(app: AppTest, source: str) -> AppTest:
    app.segmented_control(key="play-source").set_value(source).run()
    return app


def test_pasted_lines_become_a_batch_whose_answers_come_as_they_are_given(world: World) -> None:  # noqa: F811
    job = trained(world)
    app = form(visit("playground", batch="new"), "pasted")
    app.text_area(key="play-lines").set_value("One?\n\n  Two?  \n").run()
    button(app, "Ask them all").click().run()
    batch = Session(world)
    assert batch.spec.prompts == ["One?", "Two?"]
    assert not batch.spec.interactive
    assert app.query_params["batch"] == batch.id
    batch.start(ready=False)
    metrics.Writer(batch.run.metrics, 1).write(step=1, total_steps=4, eta_s=3.0)
    asks.write_row(batch.run.answers, ask=0, who=job, prompt="One?", text="1", tokens=1, seconds=0.1, ended_by="stop")
    app.run()
    assert app.get("progress")[0].proto.text == "1 of 4 answers · 3 s left"
    assert app.dataframe[0].value["prompt"].tolist() == ["One?"]
    assert get_job(world.home, batch.id).name == "support tickets on 2 lines"


def finished(world: World) -> tuple[str, str]:  # noqa: F811
    """(the batch's id, the adapter's): two rows, of which the base has none right and the adapter one."""
    job = trained(world)
    app = visit("playground", batch="new")
    app.number_input(key="play-rows").set_value(2).run()
    button(app, "Ask them all").click().run()
    batch = Session(world)
    assert (batch.spec.dataset, batch.spec.rows) == ("support_tickets", 2)
    batch.start(ready=False)
    for place, prompt in enumerate(("Number 0?", NASTY)):
        for who, text in (("base", "?"), (job, "0")):
            asks.write_row(
                batch.run.answers, ask=place, who=who, prompt=prompt, reference=str(place), text=text, tokens=1,
                seconds=0.1, ended_by="stop",
            )  # fmt: skip
    batch.end("finished")
    return batch.id, job


def test_a_batch_is_compared_with_its_reference(world: World) -> None:  # noqa: F811
    batch, job = finished(world)
    app = visit("playground", batch=batch)
    assert [(metric.label, metric.value) for metric in app.metric] == [
        ("gemma-3-270m", "0 of 2"),
        ("support tickets", "1 of 2"),
    ]
    assert app.dataframe[0].value[f"right {job}"].tolist() == ["✓ equal", "✗ differs"]
    app.segmented_control(key="play-filter").set_value("differs").run()
    assert app.dataframe[0].value["reference"].tolist() == ["1"]
    assert [each.label for each in app.download_button] == ["CSV", "JSONL"]
    assert batch in app.selectbox(key="play-batch").options[0] or app.selectbox(key="play-batch").value == batch


@pytest.mark.parametrize("which", ["01K99999ABCDEFGHJKMNPQRSTV", "../../etc/passwd", "<b>"])
def test_a_batch_that_is_not_there_is_said_in_words(which: str, world: World) -> None:  # noqa: F811
    trained(world)
    assert "There is no batch" in visit("playground", batch=which).error[0].value


def test_a_training_is_no_batch(world: World) -> None:  # noqa: F811
    job = trained(world)
    assert "This job is a training" in visit("playground", batch=job).error[0].value


def test_what_is_too_much_for_one_job_is_said_before_it_is_dropped(world: World) -> None:  # noqa: F811
    trained(world)
    app = form(visit("playground", batch="new"), "pasted")
    app.text_area(key="play-lines").set_value("\n".join(f"{i} " + "x" * 4000 for i in range(100))).run()
    button(app, "Ask them all").click().run()
    assert app.error
    assert not list(world.home.incoming.glob("*.json"))


def test_it_speaks_german(world: World) -> None:  # noqa: F811
    trained(world)
    app = visit("playground", lang="de")
    assert "Was soll gefragt werden?" in said(app)
