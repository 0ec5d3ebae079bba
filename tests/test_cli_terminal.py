"""What reaches a terminal: harmless text, aligned tables, times in words."""

import contextlib
import io
import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spool.cli import terminal, words
from spool.cli.logs import Tail

ANYTHING = st.text(st.characters(), max_size=80)
"""All of Unicode, halves of characters included."""


def steers(text: str) -> list[str]:
    """Control characters but newline and tab, halves of characters, and what turns the direction of text."""
    turning = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
    return [
        character
        for character in text
        if (unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") and character not in "\n\t")
        or unicodedata.bidirectional(character) in turning
    ]


def test_every_character_that_steers_is_shown_as_an_escape() -> None:
    everything = "".join(map(chr, range(0x11_0000)))
    assert len(steers(everything)) > 2000
    assert not steers(terminal.clean(everything))
    assert not steers(terminal.plain_log(everything))


@given(ANYTHING)
def test_clean_text_holds_nothing_that_steers(text: str) -> None:
    cleaned = terminal.clean(text)
    assert not steers(cleaned)
    cleaned.encode()  # it can always be printed
    assert terminal.clean(cleaned) == cleaned
    assert "\n" not in terminal.one_line(text)


@given(ANYTHING)
def test_a_log_holds_nothing_that_steers(text: str) -> None:
    assert not steers(terminal.plain_log(text))


@given(st.recursive(ANYTHING, lambda inner: st.lists(inner) | st.dictionaries(ANYTHING, inner), max_leaves=8))
def test_printed_json_is_harmless_and_the_same(document: object) -> None:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        terminal.print_json(document)
    assert not steers(out.getvalue())
    assert json.loads(out.getvalue()) == document


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07after", "after"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1b[2J\x1b[Hgone", "gone"),
        ("10%\r20%\r\ndone\n", "10%\n20%\ndone\n"),
        ("bell\x07", "bell\\x07"),
        ("a\tb", "a\tb"),
    ],
)
def test_logs_lose_their_colours(text: str, shown: str) -> None:
    assert terminal.plain_log(text) == shown


def test_tables_are_aligned_whatever_the_letters(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.table(("NAME", "STATE"), [("ascii", "x"), ("日本", "x"), ("Müller", "x"), ("e\u0301", "x"), ("a\nb", "x")])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 6
    assert {terminal._width(line[: line.rindex("x")]) for line in lines[1:]} == {8}


def test_fields_leave_out_what_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.fields([("a", None), ("b", 0), ("c", "two\nlines")])
    assert capsys.readouterr().out == "b           0\nc           two\\nlines\n"


@pytest.mark.parametrize(("fraction", "full"), [(0, 0), (0.5, 12), (1, 24), (7, 24), (-1, 0)])
def test_bar(fraction: float, full: int) -> None:
    assert terminal.bar(fraction) == "█" * full + "░" * (24 - full)


TIMES = {0: "0 s", 89.4: "89 s", 90: "2 min", 3600: "60 min", 5400: "1 h 30 min", 7170: "2 h 00 min", 259_200: "3 days"}


@pytest.mark.parametrize(("seconds", "shown"), [*TIMES.items(), (-5, "0 s")])
def test_durations(seconds: float, shown: str) -> None:
    assert words.duration(seconds) == shown


def test_times_and_what_is_none() -> None:
    for rubbish in (None, "", "yesterday"):
        assert words.age(rubbish) == words.local_time(rubbish) == ""
    moment = "2026-11-22T10:00:00.000Z"
    then = words.parse_iso(moment)
    assert then is not None
    assert words.age(moment, now=then.timestamp() + 45) == "45 s"
    assert len(words.local_time(moment)) == 16


@given(st.lists(st.integers(1, 50), max_size=20))
def test_a_tail_gives_every_byte_once(tmp_path_factory: pytest.TempPathFactory, pieces: list[int]) -> None:
    path = tmp_path_factory.mktemp("tail") / "train.log"
    text = "é first\r\n\r\nsecond 10%\r20%\rthird ☃\nno end"
    data = text.encode()
    tail = Tail(path)
    assert tail.read() == ""
    got = ""
    with open(path, "wb") as file:
        for piece in [*pieces, len(data)]:
            part, data = data[:piece], data[piece:]
            file.write(part)
            file.flush()
            step = tail.read()
            assert not step or step[-1] in "\r\n"
            got += terminal.plain_log(step)
    got += tail.rest()
    assert got == terminal.plain_log(text)
