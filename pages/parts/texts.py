"""What pages say, in the reader's language: one TOML file a topic and language under pages/texts/.

`t("queue.title")` is the text `title` of pages/texts/LANGUAGE/queue.toml. Places in braces are filled in by name; a
text with `one` and `other` is chosen by `count`. What a language lacks is said in English. tests/test_texts.py holds
that the languages have the same texts with the same places, and that no page says anything by itself.

To add a language: copy pages/texts/en to its two letters, translate, and name it in LANGUAGES.
"""

import tomllib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent.parent / "texts"
ENGLISH = "en"
LANGUAGES = {"en": "English", "de": "Deutsch"}

_asked: Callable[[], str] = lambda: ENGLISH  # noqa: E731  (pages/parts/ui/frame.py puts the session's language here)


def ask_with(language: Callable[[], str]) -> None:
    """Says where the reader's language comes from; asked for each text, as one process serves many readers."""
    global _asked
    _asked = language


def language() -> str:
    """Two letters, one of LANGUAGES."""
    return _asked()


def closest(locale: str | None) -> str:
    """The language for a browser's locale: `de` for de-AT, English for what there is none for."""
    short = (locale or "").replace("_", "-").partition("-")[0].lower()
    return short if short in LANGUAGES else ENGLISH


def t(key: str, /, count: float | None = None, **values: object) -> str:
    """A text by its key. Values go in as they are: Markdown in them is escaped by whoever gives them.

    Raises:
        KeyError: English has no such text, or a place is left without its value.
    """
    found = _find(key, language())
    if isinstance(found, dict):
        found = found["one" if count == 1 else "other"]
        values.setdefault("count", count)
    return found.format(**values) if values else found


def has(key: str) -> bool:
    """Whether there is such a text, for names that the spool may add to."""
    return _look(key, language()) is not None or _look(key, ENGLISH) is not None


def table(key: str) -> dict[str, str]:
    """All texts below a key, in the order of the file: for the labels of a choice."""
    found = _look(key, ENGLISH)
    assert isinstance(found, dict), key
    return {name: t(f"{key}.{name}") for name in found}


def _find(key: str, wanted: str) -> Any:
    found = _look(key, wanted)
    if found is None:
        found = _look(key, ENGLISH)
    if found is None:
        raise KeyError(key)
    return found


def _look(key: str, wanted: str) -> Any:
    topic, *path = key.split(".")
    found: Any = _texts(wanted, topic)
    for name in path:
        found = found.get(name) if isinstance(found, dict) else None
    return found


@cache
def _texts(wanted: str, topic: str) -> dict[str, Any]:
    try:
        return tomllib.loads((FOLDER / wanted / f"{topic}.toml").read_text("utf-8"))
    except FileNotFoundError:
        return {}
