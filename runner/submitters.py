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
        claim = _claim(spec)
        if claim is None or claim == account:
            return account, None
        return (claim, None) if uid in self.trusted else (account, claim)

    def of(self, order: Path) -> str | None:
        """Who gave an order that lies in control/; None where it is gone."""
        try:
            uid = order.lstat().st_uid
        except OSError:
            return None
        claim = removed.asked_by(order) if uid in self.trusted else None
        return claim or user_name(uid)


def _claim(spec: bytes) -> str | None:
    try:
        document, _ = parse.parse_json(spec)
    except SpecError:
        return None
    claim = document.get("submitted_by") if isinstance(document, dict) else None
    return claim if isinstance(claim, str) and 0 < len(claim) <= MOST_CHARS else None


def _uid(name: str) -> int | None:
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        return None
