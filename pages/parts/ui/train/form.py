"""The Train form as a whole: where it came from, what it says, where it goes. All of it is session state.

The address says the same (`preset`, `model`, `data`, `set`, `form`; `from` or `retry` name the job that it was filled
in from), so a form can be linked, reloaded and gone back to. `form` is the id of the job to be: it is minted with
the form, and whoever hands it in, twice or from two tabs, hands in one job.
"""

import json
from pathlib import Path
from typing import Any

import orjson
import streamlit as st

from pages.parts.data import reading
from pages.parts.models import shelf
from pages.parts.train import draft, fields, figures, presets
from pages.parts.train.draft import Draft
from pages.parts.train.figures import Figures
from pages.parts.train.presets import Choice, Preset
from pages.parts.ui import frame
from pages.parts.ui.train import inputs
from spool.data.keeping import keep
from spool.health import cures
from spool.protocol import dropbox
from spool.protocol.errors import FinetunerError
from spool.protocol.jobs import get_job
from spool.protocol.ulid import is_ulid, mint

STATE = st.session_state
KEY = "train"
PRESET, MODEL, DATA, EXPORTS = "train-preset", "train-model", "train-data", "train/export"
ID, SENT, ERROR, OTHER = "train-id", "train-sent", "train-error", "train-other"
ORIGIN, BESIDE, CAME = "train-origin", "train-beside", "train-came"
ORIGINS = ("retry", "from")
ADDRESS = ("preset", "model", "data", "set", *ORIGINS, "form")
LONGEST_SET = 1500
LONGEST_NAME = 1024


def arrive() -> None:
    """Takes over what the address says, once for each address."""
    STATE.setdefault(ID, mint())
    STATE.setdefault(SENT, None)
    STATE.setdefault(ORIGIN, None)
    STATE.setdefault(BESIDE, {})
    asked = {name: st.query_params[name] for name in ADDRESS if name in st.query_params}
    fresh = CAME not in STATE
    if fresh or asked != STATE[CAME]:
        if fresh or asked:
            _take_over(asked)
        if SENT in STATE and STATE[SENT] and asked.get("form") != STATE[SENT]:
            another()
    STATE[CAME] = asked


def _take_over(asked: dict[str, str]) -> None:
    inputs.follow(fields.all_fields(), KEY, {})
    origin = next(((kind, asked[kind]) for kind in ORIGINS if kind in asked), None)
    if origin != STATE[ORIGIN]:
        start_from(*origin) if origin else fill({})
    given = asked.get("form", "")
    if is_ulid(given):
        STATE[ID] = given
        STATE[SENT] = given if _exists(given) else None
    if asked.get("preset") in presets.all_presets():
        STATE[PRESET] = asked["preset"]
    for name, key in (("model", MODEL), ("data", DATA)):
        if asked.get(name):
            STATE[key] = asked[name][:LONGEST_NAME]
    if origin is None and ("data" in asked or "set" in asked):
        _set(asked.get("set"), whole=bool(given))


def _set(text: str | None, whole: bool) -> None:
    """Takes over settings of an address: a `whole` form, or how the Data page reads a file and nothing else."""
    known = fields.all_fields()
    told = _settings(text) if whole else reading.from_query(text)
    offered = known if whole else {pointer: known[pointer] for pointer in reading.POINTERS if pointer in known}
    if whole:
        STATE[EXPORTS] = draft.further(told.pop("/export", None)) or []
    inputs.fill(offered, KEY, {pointer: value for pointer, value in told.items() if pointer in offered})


def _settings(text: str | None) -> dict[str, Any]:
    """Values by JSON pointer. Anything else is left out: addresses can be typed."""
    try:
        document = json.loads(text or "{}")
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def start_from(kind: str, job_id: str) -> None:
    """Fills the form with what an earlier job was; for a retry with the suggested change, where there is one."""
    try:
        job = get_job(frame.home(), job_id)
        made = cures.suggestion(frame.home(), job) if kind == "retry" else None
    except FinetunerError:
        return
    spec = made.spec if made else draft.dropped_before(frame.home(), job_id)
    if spec is None:
        return
    take(spec)
    STATE[ORIGIN], STATE[ID], STATE[SENT] = (kind, job_id), mint(), None


def take(spec: dict[str, Any]) -> None:
    """Fills the form with a spec; what no input can show is kept beside it, so that nothing is lost."""
    fill(spec)
    STATE[PRESET] = presets.OWN


def fill(spec: dict[str, Any]) -> None:
    """Sets every input to what a spec says, and to its default where it says nothing."""
    told = {p: value for p, value in draft.values_of(spec).items() if p[1:] not in draft.OF_ITS_OWN}
    STATE[ORIGIN] = None
    for pointer, key in (("/model", MODEL), ("/dataset", DATA)):
        if isinstance(told.get(pointer), str) and told[pointer]:
            STATE[key] = told.pop(pointer)
    exported = draft.further(told.get("/export"))
    STATE[EXPORTS] = exported or []
    if exported is not None:
        told.pop("/export")
    if told.get("/kind") == "train":
        told.pop("/kind")
    known = fields.all_fields()
    inputs.follow(known, KEY, {})
    STATE[BESIDE] = inputs.fill(known, KEY, told)


def preset() -> Preset:
    """The chosen outcome."""
    return presets.all_presets().get(STATE.get(PRESET, presets.FIRST)) or presets.all_presets()[presets.FIRST]


def settle() -> tuple[Draft, Figures, dict[str, Choice]]:
    """The form as it stands: (its spec, judged; what is known of its data; what the outcome chose and why)."""
    home, known = frame.home(), fields.all_fields()
    _choose_first()
    if not all(f"{KEY}{pointer}" in STATE for pointer in known):
        inputs.follow(known, KEY, {})
    model, dataset = STATE.get(MODEL), STATE.get(DATA)
    told = _said_of_data(dataset)
    inputs.follow({pointer: known[pointer] for pointer in reading.POINTERS if pointer in known}, KEY, told)
    seen = look()
    chosen = presets.choose(preset(), seen.size, inputs.values(known, KEY, only_changed=True))
    inputs.follow(known, KEY, told | {pointer: choice.value for pointer, choice in chosen.items()})
    kept = {p: value for p, value in STATE[BESIDE].items() if p not in known or not inputs.changed(known[p], KEY)}
    STATE[BESIDE] = kept
    spec = draft.spec_of(model, dataset, inputs.values(known, KEY), STATE.get(EXPORTS) or (), kept)
    if STATE[ORIGIN] and STATE[ORIGIN][0] == "retry":
        spec["retry_of"] = STATE[ORIGIN][1]
    return draft.judge(spec, home, Path.cwd()), seen, chosen


def _said_of_data(dataset: str | None) -> dict[str, Any]:
    """How the Data page was told to read a stored dataset, by JSON pointer."""
    try:
        return reading.said_before(frame.home(), keep.find(frame.home(), dataset)) if dataset else {}
    except FinetunerError:
        return {}


def look() -> Figures:
    """What is known of the chosen data so far."""
    values = inputs.values(fields.all_fields(), KEY)
    return figures.look(frame.home(), Path.cwd(), STATE.get(DATA), STATE.get(MODEL), values)


def _choose_first() -> None:
    """The first model and the newest dataset where none is chosen yet."""
    if not STATE.get(MODEL):
        STATE[MODEL] = next((base.name for base in shelf.bases(frame.home())), None)
    if not STATE.get(DATA):
        STATE[DATA] = next(iter(datasets()), None)
    STATE.setdefault(PRESET, presets.FIRST)
    STATE.setdefault(EXPORTS, [])


def datasets() -> list[str]:
    """What can be trained on here: stored datasets, the newest first, then the example."""
    stored = sorted(keep.list_datasets(frame.home()), key=lambda each: each.added_at, reverse=True)
    example = [frame.EXAMPLE] if Path(frame.EXAMPLE).exists() else []
    return [*dict.fromkeys(each.name for each in stored), *example]


def leave() -> None:
    """Writes into the address what stands in the form."""
    wanted: dict[str, str] = {}
    if not STATE[SENT]:
        if STATE[ORIGIN]:
            kind, job_id = STATE[ORIGIN]
            wanted[kind] = job_id
        else:
            wanted = {"preset": STATE[PRESET], "model": STATE[MODEL] or "", "data": STATE[DATA] or ""}
            wanted["set"] = _said_by_hand()
    wanted["form"] = STATE[ID]
    wanted = {name: text for name, text in wanted.items() if text}
    for name in ADDRESS:
        if name in wanted and st.query_params.get(name) != wanted[name]:
            st.query_params[name] = wanted[name]
        elif name not in wanted and name in st.query_params:
            del st.query_params[name]
    STATE[CAME] = wanted


def _said_by_hand() -> str:
    values = inputs.values(fields.all_fields(), KEY, only_changed=True)
    if STATE.get(EXPORTS):
        values["/export"] = draft.exports(STATE[EXPORTS])
    text = orjson.dumps(values).decode() if values else ""
    return text if len(text) <= LONGEST_SET else ""


def submit() -> None:
    """Hands the form in as it stands now. Another click, tab or reload with the same id hands in nothing new."""
    if STATE[SENT]:
        return
    made, _, _ = settle()
    if made.problems:
        return
    home, job_id = frame.home(), STATE[ID]
    before = draft.dropped_before(home, job_id)
    STATE[OTHER] = before is not None and not draft.same(before, made.spec)
    try:
        dropbox.submit(home, {**made.spec, "submission_id": job_id}, job_id)
    except OSError as error:
        STATE[ERROR] = error.strerror or str(error)
    else:
        STATE[SENT], STATE[ERROR] = job_id, None


def another() -> None:
    """Back to the form, as it was set, for a job of its own."""
    STATE[ID], STATE[SENT], STATE[OTHER] = mint(), None, False
    STATE[f"{KEY}/name"] = ""
    if STATE[ORIGIN]:
        STATE[ORIGIN] = None


def as_its_own() -> None:
    """Hands the form in once more, as a job of its own: somebody else had handed in another one under its id."""
    STATE[ID], STATE[SENT] = mint(), None
    submit()


def _exists(job_id: str) -> bool:
    try:
        get_job(frame.home(), job_id)
    except FinetunerError:
        return False
    return True
