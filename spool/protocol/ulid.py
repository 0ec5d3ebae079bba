"""Job ids: ULIDs (https://github.com/ulid/spec), 26 Crockford base-32 characters that sort by time."""

import os
import re
import time

ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
PATTERN = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}")


def mint() -> str:
    """A fresh id: 48 bits of milliseconds, 80 bits of randomness."""
    value = (time.time_ns() // 1_000_000 & (1 << 48) - 1) << 80 | int.from_bytes(os.urandom(10), "big")
    return "".join(ALPHABET[value >> shift & 31] for shift in range(125, -1, -5))


def is_ulid(text: str) -> bool:
    return PATTERN.fullmatch(text) is not None
