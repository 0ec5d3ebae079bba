"""Playground: base and tuned models side by side on the same prompt."""

from pages.parts.texts import t
from pages.parts.ui import frame

frame.title(t("frame.page.playground"), t("playground.says"))
