"""What pages say stands in pages/texts: whole in each language, nothing unused, and nothing in the code."""

import ast
import re
import string
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pages.parts import texts
from pages.parts.system import in_force
from pages.parts.train import fields
from spool.protocol.home import Home

ROOT = Path(__file__).resolve().parent.parent
PAGES = [*sorted((ROOT / "pages").rglob("*.py")), ROOT / "streamlit_app.py"]
SHOWS = {
    "title", "header", "subheader", "caption", "markdown", "write", "text", "info", "warning", "error", "success",
    "button", "download_button", "link_button", "menu_button", "toggle", "checkbox", "radio", "selectbox",
    "multiselect", "segmented_control", "pills", "text_input", "text_area", "number_input", "slider",
    "select_slider", "file_uploader", "chat_input", "metric", "toast", "expander", "popover", "dialog", "spinner",
    "status", "progress", "nothing", "link", "show_error", "tabs", "date_input", "feedback",
}  # fmt: skip
SAYS = {"label", "help", "placeholder", "text", "alt"}
MARKUP = re.compile(r":material/\w+:|:[a-z]+(-badge)?\[|`[^`]*`|https?://\S+")
KEY = re.compile(r"[a-z_]+(\.[a-z_/]+)+")


def flat(language: str) -> dict[str, str]:
    def walk(prefix: str, node: Any) -> Iterator[tuple[str, str]]:
        for name, value in node.items():
            if isinstance(value, dict):
                yield from walk(f"{prefix}.{name}", value)
            else:
                yield f"{prefix}.{name}", value

    found: dict[str, str] = {}
    for path in sorted((texts.FOLDER / language).glob("*.toml")):
        found |= dict(walk(path.stem, tomllib.loads(path.read_text("utf-8"))))
    return found


def places(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


def calls(path: Path) -> Iterator[tuple[ast.Call, str]]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            yield node, name


def keys_asked() -> tuple[set[str], set[str]]:
    """(whole keys, beginnings of keys that are put together) that stand in the code."""
    topics = tuple(f"{path.stem}." for path in (texts.FOLDER / texts.ENGLISH).glob("*.toml"))
    whole, begun = set(), set()
    for path in PAGES:
        tree = ast.parse(path.read_text("utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.JoinedStr) and isinstance(node.values[0], ast.Constant):
                begun.add(str(node.values[0].value))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                whole.add(node.value)
        for node, name in calls(path):
            if name == "table" and node.args and isinstance(node.args[0], ast.Constant):
                begun.add(f"{node.args[0].value}.")
    return {key for key in whole if KEY.fullmatch(key) and key.startswith(topics)}, {
        start for start in begun if start.startswith(topics)
    }


@pytest.mark.parametrize("language", [name for name in texts.LANGUAGES if name != texts.ENGLISH])
def test_each_language_is_whole(language: str) -> None:
    english, other = flat(texts.ENGLISH), flat(language)
    assert {key for key in other if not key.startswith(("help.", "setting."))} == set(english)
    differing = {key for key in english if places(english[key]) != places(other[key])}
    assert not differing


@pytest.mark.parametrize("language", [name for name in texts.LANGUAGES if name != texts.ENGLISH])
def test_each_setting_is_explained_in_each_language(language: str) -> None:
    """English is the schema's own; the others have their help.toml."""
    known = {f.pointer for field in fields.all_fields().values() for f in (field, *field.members)}
    explained = {key.partition(".")[2] for key in flat(language) if key.startswith("help.")}
    assert explained == known


@pytest.mark.parametrize("language", [name for name in texts.LANGUAGES if name != texts.ENGLISH])
def test_each_of_the_runners_settings_is_explained_in_each_language(language: str, tmp_path: Path) -> None:
    """English is the settings' own; the others have their setting.toml."""
    known = {setting.name for setting in in_force.read(Home(tmp_path), None).settings}
    explained = {key.partition(".")[2] for key in flat(language) if key.startswith("setting.")}
    assert explained == known


def test_each_text_that_is_asked_for_is_there_and_each_that_is_there_is_asked_for() -> None:
    have = flat(texts.ENGLISH)
    whole, begun = keys_asked()
    known = set(have) | {key.rpartition(".")[0] for key in have}
    prefixes = tuple(begun)
    assert {key for key in whole if key not in known and not key.startswith(prefixes)} == set()
    assert {start for start in begun if not any(key.startswith(start) for key in have)} == set()
    unused = {key for key in have if key not in whole and key.rpartition(".")[0] not in whole}
    assert {key for key in unused if not key.startswith(prefixes)} == set()


def spoken(node: ast.expr) -> bool:
    """Whether a literal holds words, not only markup and places."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        said = node.value
    elif isinstance(node, ast.JoinedStr):
        said = "".join(str(part.value) for part in node.values if isinstance(part, ast.Constant))
    else:
        return False
    return re.search(r"[A-Za-z]{3}", MARKUP.sub("", said)) is not None


def literals(path: Path) -> list[str]:
    found = []
    for node, name in calls(path):
        if name in SHOWS or name.endswith("Column"):
            said = [*node.args[:2], *(word.value for word in node.keywords if word.arg in SAYS)]
            found += [f"{path.name}:{each.lineno}" for each in said if spoken(each)]
    return found


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_page_says_anything_by_itself(path: Path) -> None:
    assert literals(path) == []


def test_a_text_with_a_count_has_one_and_many(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "en").mkdir()
    (tmp_path / "en" / "x.toml").write_text('[rows]\none = "one row"\nother = "{count} rows"\n')
    monkeypatch.setattr(texts, "FOLDER", tmp_path)
    assert texts.t("x.rows", count=1) == "one row"
    assert texts.t("x.rows", count=7) == "7 rows"
    with pytest.raises(KeyError):
        texts.t("x.cells")


@pytest.mark.parametrize(
    ("locale", "language"), [("de-AT", "de"), ("DE", "de"), ("fr", "en"), (None, "en"), ("", "en")]
)
def test_the_language_is_the_browsers(locale: str | None, language: str) -> None:
    assert texts.closest(locale) == language
