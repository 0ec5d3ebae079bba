"""What spool and runner have said, in the reader's language: findings, errors, causes of waiting, notes.

Files hold such sentences in English, which scripts may rely on. pages/texts/LANGUAGE/phrases/ has them by their
English: `"the field {} is empty." = "Das Feld {} ist leer."`. A place takes whatever stands there; what is a phrase
itself is translated too, and numbers are written as the language writes them. What is not known stays as it was said.
tests/test_phrases.py holds that all that the code may say is known.
"""

import re
import string
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache

from pages.parts import texts
from pages.parts.texts import t

LONGEST = 4000
"""Characters: more than a person reads is not looked through."""

_DEEPEST = 12
_MOST_SENTENCES = 24
_FEW, _HARDLY_ANY = 8, 4
"""Letters."""

_NUMBER = re.compile(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?%?|\d+(?:\.\d+)?%")
_MEASURED = re.compile(r"(?<![\w.,])\d[\d,]*(?:\.\d+)?(?= (?:\w+ [\d.,]+ )?(?:GB|GiB|MB|MiB|kB|s)\b)")
_SENTENCE = re.compile(r"(?<=[.!?)]) (?=[A-Z`/(])")
_HEADED = re.compile(r"(?P<head>[^:]{1,200}: )(?P<rest>.+)", re.DOTALL)
_WITHIN = r"((?:(?!(?:[.!?)] [A-Z`/])|: ).)*?)"
_BEGINS = re.compile(r"(?:^|[.!?)] )$")
_ENDS = re.compile(r"$| [A-Z`]")
_NAME = re.compile(r"(?:\S+|/.*|.*\.\w+): ")
_PLAIN = re.compile(r"\S*(?:, \S+)*")
_SWAPPED = str.maketrans(",.", ".,")


@dataclass(frozen=True)
class Template:
    """A sentence by its English."""

    strict: re.Pattern[str]
    loose: re.Pattern[str]
    longest: str
    """Of its literal parts: where it does not occur no pattern is worth trying."""
    own: int
    """Its literal characters."""
    words: str
    letters: int
    """Its literal letters; a tail (` of {}`, `, or {}`) has many enough."""
    begins: bool
    """A phrase that begins with a place: `{} characters`."""

    def fits(self, values: Sequence[str], told: Sequence[str | None]) -> bool:
        """Where little but places is given they have to be known, words or lists, so that nothing of people's own is
        changed; where next to nothing is (`{} or {}`) one has to be known."""
        plain = [bool(new or _PLAIN.fullmatch(old)) for new, old in zip(told, values, strict=True)]
        if self.letters < _FEW:
            return all(plain) and (self.letters >= _HARDLY_ANY or not plain or any(told))
        return not self.begins or plain[0]


def translated(english: object) -> str:
    """The same in the reader's language."""
    text = str(english)
    language = texts.language()
    return text if language == texts.ENGLISH or len(text) > LONGEST else _found(text, language)


@lru_cache(20_000)
def _found(text: str, language: str) -> str:
    found = _known(text, language, 0)
    return _MEASURED.sub(lambda each: _local(each[0]), found) if found else text


@lru_cache(50_000)
def _known(text: str, language: str, depth: int) -> str | None:
    """In that language, or None where nothing of it is known."""
    if depth > _DEEPEST or not text.strip():
        return None
    return (
        _whole(text, language, depth)
        or _in_parts(text, language, depth)
        or _by_template(text, language, depth, strictly=False)
    )


@lru_cache(50_000)
def _whole(text: str, language: str, depth: int) -> str | None:
    """By one template, or by one behind the place (`line 3: `, a file's name) that it is about."""
    found = _sentence(text, language, depth)
    if found or not (match := _HEADED.fullmatch(text)):
        return found
    head = _sentence(match["head"], language, depth + 1) or (match["head"] if _NAME.fullmatch(match["head"]) else None)
    rest = _whole(match["rest"], language, depth + 1) if head and depth < _DEEPEST else None
    return head + _capital(rest) if head and rest else None


def _sentence(text: str, language: str, depth: int) -> str | None:
    """By one template: as it stands, with a small letter first, or with a full stop more or less."""
    for each in (text, text[:1].lower() + text[1:]):
        if found := _by_template(each, language, depth):
            return found
    if text.endswith("."):
        found = _by_template(text[:-1], language, depth)
        return f"{found}." if found else None
    found = _by_template(f"{text}.", language, depth)
    return found.removesuffix(".") if found else None


def _in_parts(text: str, language: str, depth: int) -> str | None:
    """Sentences one after the other: each time as many as are known together."""
    parts = _SENTENCE.split(text)
    if not 1 < len(parts) <= _MOST_SENTENCES:
        return None
    told, start = list[str](), 0
    while start < len(parts):
        ends = range(len(parts), start, -1)
        runs = ((end, _whole(" ".join(parts[start:end]), language, depth + 1)) for end in ends)
        end, found = next((run for run in runs if run[1]), (start + 1, None))
        told.append(found or parts[start])
        start = end
    joined = " ".join(told)
    return None if joined == text else joined


def _by_template(text: str, language: str, depth: int, strictly: bool = True) -> str | None:
    """By the template with most words of its own that fits.

    Args:
        strictly: a place within a sentence holds no end of one; else two sentences could be taken for one.
    """
    for each in _templates(language):
        if each.longest in text and (match := (each.strict if strictly else each.loose).fullmatch(text)):
            told = [_known(value, language, depth + 1) for value in match.groups()]
            if each.fits(match.groups(), told):
                values = [new or _number(old) for new, old in zip(told, match.groups(), strict=True)]
                return each.words.format(*values)
    return None


def _capital(text: str) -> str:
    """A whole sentence begins with a capital behind a colon too."""
    return text[:1].upper() + text[1:] if text.endswith(".") else text


def _number(text: str) -> str:
    if not _NUMBER.fullmatch(text):
        return text
    return _local(text.removesuffix("%")) + (" %" if text.endswith("%") else "")


def _local(number: str) -> str:
    return number.translate(_SWAPPED) if t("quantities.decimal") == "," else number


@cache
def _templates(language: str) -> tuple[Template, ...]:
    """Those with most words of their own first."""
    found = [_template(english, words) for english, words in phrases(language)]
    return tuple(sorted(found, key=lambda each: -each.own))


def phrases(language: str) -> Iterator[tuple[str, str]]:
    """(English, in that language) as the files have them."""
    for path in sorted((texts.FOLDER / language / "phrases").glob("*.toml")):
        yield from tomllib.loads(path.read_text("utf-8")).items()


def _template(english: str, words: str) -> Template:
    parsed = [(part, name is not None) for part, name, *_ in string.Formatter().parse(english)]
    own = "".join(part for part, _ in parsed)
    strict, before = "", ""
    for number, (part, has_place) in enumerate(parsed):
        strict += re.escape(part)
        before += part
        if has_place:
            after = parsed[number + 1][0] if number + 1 < len(parsed) else ""
            strict += "(.*?)" if _BEGINS.search(before) and _ENDS.match(after) else _WITHIN
            before = "…"
    loose = "".join(re.escape(part) + ("(.*?)" if has_place else "") for part, has_place in parsed)
    longest = max((part for part, _ in parsed), key=len, default="")
    letters = _FEW if english[:1] in (" ", ",", ";") else len(re.findall("[A-Za-z]", own))
    begins = english.startswith("{}") and english[-1] not in ".?!:"
    return Template(
        re.compile(strict, re.DOTALL), re.compile(loose, re.DOTALL), longest, len(own), words, letters, begins
    )
