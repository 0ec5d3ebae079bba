"""Who votes, and the reports whose answers wait for votes."""

import streamlit as st

from pages.parts.escape import md, one_line
from pages.parts.texts import t
from pages.parts.ui import frame, jobs
from spool.protocol import ballot, votes
from spool.protocol.ballot import Ballot
from spool.protocol.errors import FinetunerError
from spool.protocol.home import Home
from spool.protocol.votes import Votes

AS, NAME = "as", "vote-name"
LONGEST_NAME = 60
MOST_REPORTS = 30
"""The newest; each is read for the list."""


def who() -> str:
    """Who is signed in; where nobody signs in, the name that somebody gave themselves, or nothing."""
    return frame.user() or one_line(st.query_params.get(AS, ""), LONGEST_NAME)


def person() -> str:
    """`who`, with the box for a name where nobody signs in: several people may share one open server."""
    if frame.user():
        return who()

    def go() -> None:
        if name := one_line(st.session_state[NAME], LONGEST_NAME):
            st.query_params[AS] = name
        else:
            st.query_params.pop(AS, None)

    st.session_state[NAME] = who()
    st.text_input(
        t("vote.name"), key=NAME, on_change=go, max_chars=LONGEST_NAME, placeholder=t("vote.name"),
        label_visibility="collapsed", icon=":material/person:", width=240, help=None,
    )  # fmt: skip
    return who()


def damaged(kept: Votes) -> None:
    """Says so for as long as a file of votes lies there that cannot be read."""
    if kept.damaged:
        names = ", ".join(f"votes/{md(name)}" for name in kept.damaged[:3])
        st.warning(t("vote.damaged", names=names), icon=":material/warning:")


def show(home: Home) -> None:
    """Every report that has answers to vote on, the newest first."""
    done = [job for job in frame.jobs() if job.state == "done"][::-1]
    ids = [job for job in done if home.run(job.id).report_json.exists()][:MOST_REPORTS]
    found = [(job, there) for job in ids if (there := _read(home, job.id))]
    if not found:
        frame.nothing(t("vote.empty.head"), t("vote.empty.says"), frame.TRAIN, t("vote.empty.do"))
    for job, there in found:
        with st.container(border=True, horizontal=True, vertical_alignment="center", gap="medium"):
            with st.container(gap="xxsmall"):
                st.markdown(f"**{md(jobs.short_name(job), 80)}**")
                st.caption(standing(there, votes.read(home, job.id)))
            link(job.id)


def _read(home: Home, job_id: str) -> Ballot | None:
    try:
        return ballot.read(home, job_id)
    except FinetunerError:
        return None  # its own page says so


def standing(there: Ballot, kept: Votes) -> str:
    """How many pairs there are, who has voted, and how far this person is."""
    people = len({vote.who for vote in kept.on(there)})
    own = len(kept.by(who(), there))
    parts = [t("vote.pairs", count=len(there.samples)), t("vote.people", count=people) if people else t("vote.nobody")]
    if who() in kept.closed:
        parts.append(t("vote.seen"))
    elif own:
        parts.append(t("vote.own", done=own, total=len(there.samples)))
    return " · ".join(parts)


def link(job_id: str) -> None:
    """To the pairs of a job, under the same name."""
    name = {AS: who()} if who() and not frame.user() else {}
    frame.link(frame.VOTE, t("vote.go"), icon=":material/how_to_vote:", job=job_id, **name)


def invite(home: Home, job_id: str) -> None:
    """Beside a report: that its answers can be voted on; nothing where they cannot."""
    there = _read(home, job_id)
    if there is None:
        return
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        st.markdown(f"**{t('vote.invite')}** :gray[{standing(there, votes.read(home, job_id))}]", width="content")
        link(job_id)
