"""What each format must keep to. Where the limits come from: docs/exports.md."""

from runner.exports.certificate import Limits
from spool.protocol import formats

EXACT = Limits(equal_tokens=0.97, kl=0.003, loss=0.02)
"""The same numbers, computed in another order."""

_LIMITS = {
    "gptq": Limits(0.90, 0.15, 0.15),
    "q8_0": Limits(0.96, 0.01, 0.03),
    "q6_k": Limits(0.95, 0.02, 0.05),
    "q5_k_m": Limits(0.93, 0.04, 0.08),
    "q4_k_m": Limits(0.90, 0.15, 0.15),
    "q4_k_s": Limits(0.90, 0.15, 0.15),
    "q3_k_m": Limits(0.85, 0.25, 0.30),
}


def of(name: str) -> Limits:
    """The limits of a format."""
    return _LIMITS.get(formats.gguf(name) or name, EXACT)
