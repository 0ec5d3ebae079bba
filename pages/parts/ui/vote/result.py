"""What the votes came to, who won which pair, and the votes as a dataset; for whoever votes no more."""

from collections.abc import Mapping

import pandas as pd
import streamlit as st

from pages.parts import quantities
from pages.parts.escape import lines, md, one_line
from pages.parts.texts import t
from pages.parts.ui import frame, jobs
from pages.parts.ui.play import session
from pages.parts.ui.vote import dataset
from spool.protocol import tally
from spool.protocol.ballot import Ballot
from spool.protocol.errors import FinetunerError
from spool.protocol.home import Home
from spool.protocol.tally import Tally
from spool.protocol.ulid import is_ulid
from spool.protocol.votes import Votes

KNOWN_SIDES = ("base", "tuned")
ALMOST_NEVER = 0.001


def names(ballot: Ballot) -> dict[str, str]:
    """What each side is called."""
    return {side: _name(side) for side in ballot.sides}


def _name(side: str) -> str:
    if side in KNOWN_SIDES:
        return t(f"vote.side.{side}")
    if is_ulid(side):
        try:
            return one_line(jobs.short_name(frame.job(side)), 60)
        except FinetunerError:
            pass
    return one_line(side, 60)


def show(home: Home, ballot: Ballot, kept: Votes) -> None:
    """The result of everybody's votes as of now."""
    counted = tally.count(ballot, kept.on(ballot))
    called = names(ballot)
    if not counted.votes:
        st.info(t("vote.result.nobody"), icon=":material/how_to_vote:")
        return
    _verdict(ballot, counted, called)
    _figures(ballot, counted, called)
    _people(ballot, counted, len(kept.votes) - counted.votes)
    _pairs(ballot, counted, called)
    dataset.save(home, ballot, counted)


def _verdict(ballot: Ballot, counted: Tally, called: Mapping[str, str]) -> None:
    first, second = ballot.sides
    decided = counted.wins + counted.losses
    if counted.rate is None or counted.interval is None:
        st.markdown(f"### :gray[:material/balance:] {t('vote.verdict.ties')}")
        return
    if not counted.clear:
        head, icon = t("vote.verdict.open"), ":gray[:material/balance:]"
    else:
        better = second if counted.wins > counted.losses else first
        head, icon = t("vote.verdict.clear", name=md(called[better])), ":green[:material/trophy:]"
    low, high = map(quantities.percent, counted.interval)
    chance = t("vote.verdict.chance", share=quantities.share(counted.chance))
    says = [
        t("vote.verdict.won", name=md(called[second]), wins=counted.wins, of=decided),
        t("vote.verdict.interval", low=low, high=high),
        t("vote.verdict.never") if counted.chance < ALMOST_NEVER else chance,
    ]
    st.markdown(f"### {icon} {head}")
    st.markdown(" ".join(says))


def _figures(ballot: Ballot, counted: Tally, called: Mapping[str, str]) -> None:
    first, second = ballot.sides
    figures = [
        (t("vote.figure.wins", name=called[second]), quantities.count(counted.wins)),
        (t("vote.figure.wins", name=called[first]), quantities.count(counted.losses)),
        (t("vote.figure.ties"), quantities.count(counted.ties)),
        (t("vote.figure.rate", name=called[second]), quantities.percent(counted.rate)),
    ]
    helps = (None, None, t("vote.figure.ties_help"), t("vote.figure.rate_help"))
    with st.grid(len(figures), min_column_width=150, gap="small"):
        for (name, value), says in zip(figures, helps, strict=True):
            st.metric(name, value, help=says, border=True, height="stretch")


def _people(ballot: Ballot, counted: Tally, elsewhere: int) -> None:
    """Who that was, how far they agree, and what is not in it."""
    says = [t("vote.count", people=quantities.count(counted.people), votes=quantities.count(counted.votes))]
    if counted.agreement is not None:
        share = quantities.percent(counted.agreement)
        says.append(t("vote.agreement", share=share, of=quantities.count(counted.compared)))
    if left := len(ballot.samples) - len(counted.outcomes):
        says.append(t("vote.open", count=left))
    if ballot.same:
        says.append(t("vote.same", count=ballot.same))
    if elsewhere:
        says.append(t("vote.elsewhere", count=elsewhere))
    st.caption(" ".join(says))


def _pairs(ballot: Ballot, counted: Tally, called: Mapping[str, str]) -> None:
    """Who won which pair, and the answers of the one that is selected, under their names."""
    st.subheader(t("vote.pairs_head"), anchor=False)
    first, second = ballot.sides
    pairs = list(counted.outcomes)
    rows = [
        {
            "prompt": one_line(ballot.samples[pair].prompt, 300),
            "winner": called[found.winner] if found.winner else t("vote.tie"),
            "second": found.second,
            "first": found.first,
            "good": found.good,
            "bad": found.bad,
        }
        for pair, found in counted.outcomes.items()
    ]
    config = st.column_config
    columns = {
        "prompt": config.TextColumn(t("vote.prompt"), width=380, pinned=True),
        "winner": config.TextColumn(t("vote.column.winner"), width=140),
        "second": config.NumberColumn(called[second], width=140),
        "first": config.NumberColumn(called[first], width=140),
        "good": config.NumberColumn(t("vote.column.good"), width="small"),
        "bad": config.NumberColumn(t("vote.column.bad"), width="small"),
    }
    event = st.dataframe(
        pd.DataFrame(rows), hide_index=True, column_config=columns, key="vote-pairs", on_select="rerun",
        selection_mode="single-row", height="content" if len(rows) <= 20 else 720, alt=t("vote.alt"),
    )  # fmt: skip
    picked = [row for row in event.selection.rows if row < len(pairs)]
    if not picked:
        st.caption(t("vote.select"))
        return
    sample = ballot.samples[pairs[picked[0]]]
    with st.container(border=True):
        st.text(lines(sample.prompt))
        for side, column in zip(ballot.sides, st.columns(2, gap="medium"), strict=True):
            with column, st.container(gap="xsmall"):
                won = counted.outcomes[pairs[picked[0]]].winner == side
                st.markdown(f"**{md(called[side], 60)}**" + (f" :green-badge[:material/trophy: {t('vote.won')}]" * won))
                session.text(sample.answers[side].text)
