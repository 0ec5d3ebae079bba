"""Numbers and times as people read them: short, with their unit, the same on every page."""

import math
from datetime import UTC, datetime, tzinfo

from pages.parts.texts import t

DASH = "–"


def _local(text: str) -> str:
    """An English number with the separators of the reader's language."""
    return text.translate(_SWAPPED) if t("quantities.decimal") == "," else text


_SWAPPED = str.maketrans(",.", ".,")


def duration(seconds: float | None) -> str:
    """`8 s`, `2 min`, `1 h 05 min`, `3 d 4 h`."""
    if seconds is None or not math.isfinite(seconds) or seconds < 0:
        return DASH
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes:02d} min"
    return t("quantities.days", days=hours // 24, hours=hours % 24)


def size(number: float | None) -> str:
    """Bytes in decimal units, as disks and `ls -h --si` count: `16 MB`, `1.9 GB`."""
    if number is None:
        return DASH
    value = float(number)
    for unit in ("bytes", "kB", "MB", "GB"):
        if value < 999.5:
            digits = f"{value:.0f}" if unit == "bytes" or value >= 99.5 else f"{value:.3g}"
            return f"{_local(digits)} {t('quantities.bytes') if unit == 'bytes' else unit}"
        value /= 1000
    return f"{_local(f'{value:.3g}')} TB"


def count(number: float | None) -> str:
    return DASH if number is None else _local(f"{number:,.0f}")


def loss(value: float | None) -> str:
    """Four figures: enough to see it move, few enough to read."""
    if value is None or not math.isfinite(value):
        return DASH
    return _local(f"{value:.4f}" if abs(value) < 10 else f"{value:.4g}")


def rate(value: float | None) -> str:
    """A learning rate: `2e-4`, `3.35e-5`."""
    if value is None:
        return DASH
    mantissa, _, exponent = f"{value:.2e}".partition("e")
    return f"{float(mantissa):g}e{int(exponent)}" if value else "0"


def percent(fraction: float | None) -> str:
    return DASH if fraction is None else f"{100 * fraction:.0f} %"


def share(fraction: float) -> str:
    """A small share, with a decimal where it has one: `2.5 %`."""
    return f"{_local(f'{100 * fraction:.3g}')} %"


def agreement(fraction: float) -> str:
    """A share that says `100 %` only of all: `99.9 %` of 9,999 in 10,000."""
    return f"{_local(f'{math.floor(fraction * 1000 + 1e-9) / 10:g}')} %"


def small(value: float) -> str:
    """A figure that is good near 0: `0.0028`, `< 0.0001`, `0.15`."""
    if 0 < abs(value) < 0.0001:
        return f"< {_local('0.0001')}"
    return _local(f"{value:.3g}").replace("-", "−")


def energy(watt_hours: float) -> str:
    """`0.4 Wh`, `87 Wh`, `1.25 kWh`."""
    small = watt_hours < 999.5
    return f"{_local(f'{watt_hours if small else watt_hours / 1000:.3g}')} {'Wh' if small else 'kWh'}"


def moment(iso: str | None) -> datetime | None:
    """A UTC time of the protocol, or None where it is missing or not a time. One without a zone is taken for UTC."""
    try:
        found = datetime.fromisoformat(iso) if iso else None
    except ValueError:
        return None
    return found.replace(tzinfo=UTC) if found and found.tzinfo is None else found


def ago(iso: str | None, now: datetime) -> str:
    """`just now`, `4 min ago`, `yesterday`-free: hours up to two days, then days."""
    then = moment(iso)
    if then is None:
        return DASH
    seconds = (now - then).total_seconds()
    return t("quantities.just_now") if seconds < 10 else t("quantities.ago", duration=duration(seconds))


def clock(iso: str | None, zone: tzinfo = UTC) -> str:
    """The reader's own date and time: `22 Nov 2025, 15:31`."""
    then = moment(iso)
    if then is None:
        return DASH
    local = then.astimezone(zone)
    month = t("quantities.months").split()[local.month - 1]
    return t("quantities.clock", day=local.day, month=month, year=local.year, time=f"{local:%H:%M}")


def between(start: str | None, end: str | None) -> str:
    """How long something took."""
    first, last = moment(start), moment(end)
    return duration((last - first).total_seconds()) if first and last else DASH
