"""Whether digits are a card, a phone number or an IBAN. Sure rather than complete: a date or an order is none of them.

Patterns are RE2's (linear in the text). Each `is_*` gets what a pattern matched, the 40 characters before and after.
"""

import itertools
import re

# Space, no-break space, hyphens, dot, slash and brackets, as people group the digits of a phone number.
_SEPARATOR = r"[ \x{a0}().\-/\x{2010}\x{2011}\x{2013}]"
# What introduces a phone number; "call" alone would take any count of calls.
_INTRODUCED = (
    r"(?i:phone|telephone|tel|call (?:us|me|at|on)|mobile|cell|fax|whatsapp|hotline|telefon|telefonnummer|rufnummer"
    r"|handy|handynummer|mobil|téléphone|teléfono|móvil|portable)(?i:[ :.\-]| number| nr| is| ist| at| on| unter| au)"
    r"{0,6}"
)
_SHAPES = (
    r"(?:1[ .\-])?(?:\([2-9]\d{2}\)[ \-]?|[2-9]\d{2}[ .\-])[2-9]\d{2}[ .\-]\d{4}",  # North America
    r"0[1-9](?:[ .\-]\d{2}){4}",  # France
    r"\(?0[1-9]\d{1,4}\)? ?/ ?\d{3,8}(?:[ \-]\d{1,5}){0,2}|\(0[1-9]\d{1,4}\) ?\d{3,8}(?:[ \-]\d{1,5}){0,2}",  # Germany
    r"01[567]\d[ \-]\d{3,4}(?: ?\d{2,4}){1,2}",  # German mobile phones
    r"07\d{3} \d{3} ?\d{3}|020 \d{4} \d{4}|01\d{3} \d{6}|01\d{2} \d{3} \d{4}",  # Britain
)
PHONE = (
    rf"\+\(?[1-9](?:{_SEPARATOR}{{0,3}}\d){{7,17}}",
    *_SHAPES,
    rf"\b{_INTRODUCED}(\(?\d(?:{_SEPARATOR}{{0,2}}\d){{6,12}})",
)
CARD = r"\d{4}[ \-]\d{4}[ \-]\d{4}[ \-]\d{4}(?:[ \-]\d{3})?|\d{4}[ \-]\d{6}[ \-]\d{4,5}|\d{13,19}"
IBAN = r"[A-Z]{2}\d{2} ?(?:[A-Z0-9]{4} ?){2,7}[A-Z0-9]{0,4}"

# Country codes by ITU-T E.164.
_COUNTRY = re.compile(
    r"1|7|2(?:0|7|[1-689]\d)|3(?:[0-469]|[578]\d)|4(?:[013-9]|2\d)|5(?:[1-8]|[09]\d)|6(?:[0-6]|[789]\d)"
    r"|8(?:[1246]|[035789]\d)|9(?:[0-58]|[679]\d)"
)
_DATE = re.compile(r"(?:19|20)\d\d[-./ ]\d\d?[-./ ]\d\d?|\d\d?[-./]\d\d?[-./](?:19|20)?\d\d(?!\d)")
_NUMBERED = re.compile(
    r"\b(?:order|invoice|ref(?:erence)?|ticket|case|isbn|issn|ean|ssn|tracking|serial|sku|part|article|account|version"
    r"|bestell\w*|auftrag\w*|rechnung\w*|artikel\w*|kunden\w*|commande|facture|pedido|factura|id|no|nr|number)"
    r"[ .:#]*(?:no|nr|number|nummer|id)?[ .:#]*\Z",
    re.IGNORECASE,
)
_CALLED = re.compile(
    r"(?:phone|\btel|telefon\w*|mobile|mobil\w*|cell|fax|handy\w*|call|contact|card|visa|mastercard|amex|karte\w*)"
    r"\W{0,3}(?:\w+\W{1,3}){0,2}\Z",
    re.IGNORECASE,
)
# Issuers by ISO/IEC 7812: prefix, lengths.
_ISSUERS = (
    (re.compile("4"), (13, 16, 19)),  # Visa
    (re.compile("5[1-5]|2(?:22[1-9]|2[3-9]|[3-6]|7[01]|720)"), (16,)),  # Mastercard
    (re.compile("3[47]"), (15,)),  # American Express
    (re.compile("6011|65|64[4-9]"), (16,)),  # Discover
    (re.compile("3(?:0[0-5]|[68])"), (14,)),  # Diners
    (re.compile("35(?:2[89]|[3-8])"), (16,)),  # JCB
    (re.compile("62"), (16, 19)),  # UnionPay
)
# Lengths by the SWIFT registry of IBANs.
_IBANS = (
    "AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DK18 DO28 EE20 EG29 ES24 FI18"
    " FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HR21 HU28 IE22 IL23 IQ23 IS26 IT27 JO30 KW30 KZ20 LB28 LC32 LI21 LT20"
    " LU20 LV21 LY25 MC27 MD24 ME22 MK19 MR27 MT31 MU30 NL18 NO15 PK24 PL28 PS29 PT25 QA29 RO24 RS22 SA24 SC31 SD18"
    " SE24 SI19 SK24 SM27 ST25 SV28 TL23 TN24 TR26 UA29 VA22 VG24 XK20"
)
_IBAN_LENGTHS = {entry[:2]: int(entry[2:]) for entry in _IBANS.split()}


def is_card(value: str, before: str, after: str) -> bool:
    """An issuer's prefix and length, and Luhn's check digit. A valid EAN barcode is none."""
    digits = _digits(value)
    if _touches(before, after) or _is_numbered(before):
        return False
    issued = any(len(digits) in lengths and prefix.match(digits) for prefix, lengths in _ISSUERS)
    return issued and len(set(digits)) > 1 and _luhn(digits) and not _ean(digits)


def is_iban(value: str, before: str, after: str) -> bool:
    """The country's length and the remainder 1 by 97 (ISO 13616)."""
    return bool(iban(value)) and not before[-1:].isalnum()


def iban(value: str) -> str:
    """The part of `value` that is a valid IBAN, as it is written there; empty if none is."""
    length = _IBAN_LENGTHS.get(value[:2], 0)
    end = seen = 0
    while end < len(value) and seen < length:
        seen += value[end] != " "
        end += 1
    plain = value[:end].replace(" ", "")
    if not length or len(plain) != length or value[end : end + 1].isalnum():
        return ""
    number = "".join(str(int(character, 36)) for character in plain[4:] + plain[:4])
    return value[:end] if int(number) % 97 == 1 else ""


def is_phone(value: str, before: str, after: str) -> bool:
    """An international number of a real country, a national shape, or digits that the text calls a phone number."""
    if value.startswith("+"):
        return _is_international(value, before, after)
    if _touches(before, after) or _is_numbered(before) or _DATE.search(value):
        return False
    groups = re.findall(r"\d+", value)
    if len(groups) > 3 and all(len(group) == 2 for group in groups):  # 01 02 03 04 05 is a count
        return len({int(b) - int(a) for a, b in itertools.pairwise(groups)}) > 1
    if re.fullmatch(r"[2-9]\d\d \d{3} \d{4}", value):
        return bool(_CALLED.search(before))
    return 7 <= len(_digits(value)) <= 13


def _is_international(value: str, before: str, after: str) -> bool:
    digits = _digits(value)
    if before[-1:].isalnum() or before.endswith(("+", "=", ".")) or after[:1].isalnum() or digits.endswith("00000"):
        return False
    if re.fullmatch(r"\+\d{1,3}(?:\.\d{3})+", value) or re.search(r"\. |- (?<! - )", value):  # thousands; a sentence
        return False
    if digits[0] == "1":
        return len(digits) == 11 and digits[1] in "23456789"
    alone = re.fullmatch(r"\+\d+", value)
    return bool(_COUNTRY.match(digits)) and (10 if alone else 8) <= len(digits) <= 14


def _is_numbered(before: str) -> bool:
    """Whether the words before name an order, a ticket, a version: "order no. ", but not "phone number: "."""
    return bool(_NUMBERED.search(before)) and not _CALLED.search(before)


def _touches(before: str, after: str) -> bool:
    """Whether the match is a piece of something longer: a number, a decimal, a path, an identifier."""
    return bool(re.search(r"(?:\w|\d[ ./,:\-]|[#$€£+=])\Z", before) or re.match(r"\w|[./,:\-]\d| \d", after))


def _digits(value: str) -> str:
    return "".join(character for character in value if character in "0123456789")


def _luhn(digits: str) -> bool:
    doubled = (sum(divmod(2 * int(digit), 10)) for digit in digits[-2::-2])
    return (sum(map(int, digits[-1::-2])) + sum(doubled)) % 10 == 0


def _ean(digits: str) -> bool:
    return len(digits) in (13, 14) and (sum(map(int, digits[-1::-2])) + 3 * sum(map(int, digits[-2::-2]))) % 10 == 0
