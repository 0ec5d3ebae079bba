"""Job ids: ULIDs (https://github.com/ulid/spec), 26 Crockford base-32 characters that sort by time."""

import hashlib
import os
import re
import threading
import time

ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
PATTERN = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}")


_lock = threading.Lock()
_last = 0


def mint() -> str:
    """A fresh id: 48 bits of milliseconds, 80 bits of randomness.

    Those of one process sort in the order of their making: within one millisecond each is a little above the one
    before, by chance, so that two halves of a forked process make no id twice.
    """
    global _last
    fresh = (time.time_ns() // 1_000_000 & (1 << 48) - 1) << 80 | int.from_bytes(os.urandom(10), "big")
    with _lock:
        _last = fresh if fresh >> 80 != _last >> 80 else _last + 1 + int.from_bytes(os.urandom(6), "big")
        value = _last
    return "".join(ALPHABET[value >> shift & 31] for shift in range(125, -1, -5))


def derived(job_id: str, text: str) -> str:
    """An id with the time of another, and letters that follow from a text: the same text is the same id."""
    digest = int.from_bytes(hashlib.sha256(text.encode()).digest()[:10], "big")
    return job_id[:10] + "".join(ALPHABET[digest >> shift & 31] for shift in range(75, -1, -5))


def is_ulid(text: str) -> bool:
    return PATTERN.fullmatch(text) is not None
