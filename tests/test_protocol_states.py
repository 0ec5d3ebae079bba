"""Tokens and their moves, against a model that knows what should be."""

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from spool.protocol.home import FINAL, Home, State
from spool.protocol.states import MOVES, Token, Tokens, is_final
from spool.protocol.ulid import mint

states = st.sampled_from(list(State))

ALLOWED = {
    "checking": {"queued", "failed", "cancelled"},
    "queued": {"running", "held", "failed", "cancelled"},
    "held": {"queued", "cancelled"},
    "running": {"queued", "done", "failed", "cancelled"},
    "done": set(),
    "failed": set(),
    "cancelled": set(),
}


class TokenMachine(RuleBasedStateMachine):
    """Any sequence of what a runner may do; the model is a dictionary."""

    alive = Bundle("alive")

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.mkdtemp()
        self.home = Home(Path(self.folder)).create()
        self.tokens = Tokens(self.home)
        self.model: dict[str, tuple[State, Token]] = {}

    def teardown(self) -> None:
        shutil.rmtree(self.folder)

    @rule(target=alive, priority=st.integers(0, 9), state=st.sampled_from([State.CHECKING, State.QUEUED]))
    def create(self, priority: int, state: State) -> str:
        token = Token(priority, self.tokens.last_sequence() + 1, mint())
        self.tokens.create(state, token, {"name": token.job_id})
        self.model[token.job_id] = (state, token)
        return token.job_id

    @rule(job_id=alive, target_state=states)
    def move(self, job_id: str, target_state: State) -> None:
        source, token = self.model[job_id]
        if target_state.value in ALLOWED[source.value]:
            self.tokens.move(token, source, target_state)
            self.model[job_id] = (target_state, token)
        else:
            with pytest.raises(ValueError, match="cannot become"):
                self.tokens.move(token, source, target_state)

    @rule(target=alive, job_id=consumes(alive))
    def forget_the_ended(self, job_id: str) -> object:
        """Nothing follows a final state; keeping to the living makes longer lives."""
        state, _ = self.model[job_id]
        assert bool(MOVES[state]) != is_final(state)
        return multiple() if is_final(state) else job_id

    @rule(job_id=alive, source=states, target_state=states)
    def a_late_mover_loses(self, job_id: str, source: State, target_state: State) -> None:
        state, token = self.model[job_id]
        if source is not state and target_state in MOVES[source]:
            with pytest.raises(FileNotFoundError):
                self.tokens.move(token, source, target_state)

    @rule(job_id=alive, priority=st.integers(0, 9), sequence=st.integers(0, 10**12 - 1))
    def reorder(self, job_id: str, priority: int, sequence: int) -> None:
        state, token = self.model[job_id]
        if state in (State.QUEUED, State.HELD):
            self.model[job_id] = (state, self.tokens.reorder(token, state, priority, min(sequence, 10**6)))

    @rule(name=st.sampled_from(["x.json", ".hidden", "5-1-X.json", "README", "0-000000000001-.json"]), state=states)
    def litter(self, name: str, state: State) -> None:
        (self.home.state(state) / name).touch()

    @invariant()
    def every_job_is_in_exactly_one_folder(self) -> None:
        places: dict[str, list[State]] = {}
        for state in State:
            for token in self.tokens.list(state):
                places.setdefault(token.job_id, []).append(state)
        assert places == {job_id: [state] for job_id, (state, _) in self.model.items()}
        assert os.listdir(self.home.tmp) == []

    @invariant()
    def each_is_found_with_its_body(self) -> None:
        for job_id, place in list(self.model.items())[-5:]:
            assert self.tokens.find(job_id) == place
            assert self.tokens.body(*place) == {"name": job_id}

    @invariant()
    def the_queue_is_in_order(self) -> None:
        for state in State:
            listed = self.tokens.list(state)
            assert listed == sorted(listed, key=lambda token: (token.priority, token.sequence, token.job_id))
            assert [token.filename for token in listed] == sorted(token.filename for token in listed)  # `ls` shows it


TestTokens = TokenMachine.TestCase
TestTokens.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)


@given(st.integers(0, 9), st.integers(0, 10**12 - 1))
def test_filename_and_back(priority: int, sequence: int) -> None:
    token = Token(priority, sequence, mint())
    assert Token.parse(token.filename) == token


@given(st.text())
def test_other_names_are_no_tokens(name: str) -> None:
    token = Token.parse(name)
    assert token is None or token.filename == name


def test_final_states_are_the_ends() -> None:
    assert {state.value: set(after) for state, after in MOVES.items()} == ALLOWED
    assert {state for state in State if not MOVES[state]} == set(FINAL)
    reached = {State.CHECKING}
    while more := {after for state in reached for after in MOVES[state]} - reached:
        reached |= more
    assert reached == set(State)


def test_a_damaged_body_is_an_empty_one(home: Home) -> None:
    token = Token(5, 1, mint())
    home.state(State.QUEUED).joinpath(token.filename).write_bytes(b"\x00\xff")
    assert Tokens(home).body(State.QUEUED, token) == {}


def test_without_folders_there_are_no_tokens(tmp_path: Path) -> None:
    tokens = Tokens(Home(tmp_path / "none"))
    assert all(tokens.list(state) == [] for state in State)
    assert tokens.last_sequence() == 0
    assert tokens.find(mint()) is None
