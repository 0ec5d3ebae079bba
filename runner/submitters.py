"""Who asked: the account that owns a dropped spec or an order, or whom the web app's account names in it."""

import os
import pwd
from pathlib import Path

from runner.rejection import user_name
from spool.protocol import parse, removed
from spool.protocol.errors import SpecError

WEB_ACCOUNT = "finetuner-web"
MOST_CHARS = 320  # an address has at most so many


class Submitters:
    """Any account may write any claim into its own drop, so it counts only from accounts that check who signs in.

    Args:
        accounts: the names of these accounts; None: finetuner-web and the one that this process runs as.
    """

    def __init__(self, accounts: list[str] | None = None) -> None:
        own = {os.getuid()} if accounts is None else set()
        self.trusted = own | {
            uid for name in ([WEB_ACCOUNT] if accounts is None else accounts) if (uid := _uid(name)) is not None
        }

    def who(self, uid: int, spec: bytes) -> tuple[str | None, str | None]:
        """(who submitted it, the claim that was not believed) for a drop of the account `uid`."""
        account = user_name(uid)
        claimed = claim(spec, "submitted_by")
        if claimed is None or claimed == account:
            return account, None
        return (claimed, None) if uid in self.trusted else (account, claimed)

    def of(self, order: Path) -> str | None:
        """Who gave an order that lies in control/; None where it is gone."""
        try:
            uid = order.lstat().st_uid
        except OSError:
            return None
        claimed = removed.asked_by(order) if uid in self.trusted else None
        return claimed or user_name(uid)


def claim(spec: bytes, name: str) -> str | None:
    """What a drop says in a field of text, whether or not the rest of it is a job spec."""
    try:
        document, _ = parse.parse_json(spec)
    except SpecError:
        return None
    value = document.get(name) if isinstance(document, dict) else None
    return value if isinstance(value, str) and 0 < len(value) <= MOST_CHARS else None


def _uid(name: str) -> int | None:
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        return None
