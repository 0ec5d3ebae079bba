"""System: what the machine and the runner are like, and what to do about it."""

from pages.parts.texts import t
from pages.parts.ui import frame

frame.title(t("frame.page.system"), t("system.says"))
