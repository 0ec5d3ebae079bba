"""Secrets taken out of what is written down or shown: hub tokens, and credentials inside addresses and headers."""

import os
import re
from collections.abc import Mapping

HIDDEN = "(secret)"

TOKEN_VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HUGGINGFACEHUB_API_TOKEN")

SHORTEST = 8
"""A value shorter than this is no token, and taking it out would tear words apart."""

_PATTERNS = (
    (re.compile(r"\b(?:hf|hf_oauth|api_org)_[A-Za-z0-9]{20,}"), HIDDEN),
    (re.compile(r"(?i)(authorization['\"]?\s*[:=]\s*['\"]?(?:bearer|basic)\s+)[^\s'\"]{8,}"), rf"\1{HIDDEN}"),
    (re.compile(r"(\b[a-z][a-z0-9+.-]*://)[^\s/@:]*:[^\s/@]+@"), rf"\1{HIDDEN}@"),
    (re.compile(r"\bBearer\s+[A-Za-z0-9._~+/=-]{20,}"), f"Bearer {HIDDEN}"),
    (
        re.compile(r"(?i)\b(x-amz-(?:signature|credential|security-token)|signature|access_token)=[^\s&\"']+"),
        rf"\1={HIDDEN}",
    ),
)


def redact(text: str, environment: Mapping[str, str] = os.environ) -> str:
    """The text without secrets: what looks like one, and the values of the token variables wherever they stand."""
    for name in TOKEN_VARIABLES:
        value = environment.get(name, "").strip()
        if len(value) >= SHORTEST:
            text = text.replace(value, HIDDEN)
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text
