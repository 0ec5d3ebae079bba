"""Compare: several runs on one chart, and what differs between them."""

from pages.parts.texts import t
from pages.parts.ui import frame

frame.title(t("frame.page.compare"), t("compare.says"))
