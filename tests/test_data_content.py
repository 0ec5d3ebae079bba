"""Secrets, personal data, refusals, leftovers and broken characters in a row: what is found, what is left alone."""

import json
import string
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from spool.data.judging import content
from spool.data.judging.content import findings, mask, repair, suspicious

SECRETS = [
    "AKIAIOSFODNN7EXAMPLE",
    "ghp_16C7e42F292c6912E7710c838347Ae178B4a",
    "github_pat_11ABCDEFG0abcdefghijkl_mnopqrstuvwxyz",
    "hf_abcdefghijKLMNOPqrstuvwxyzABCDEFGH",
    "sk-abcdEFGH1234567890ijklMNOP",
    "sk-ant-api03-AbCdEfGhIjKl1234567890-mnop",
    "sk-proj-AbCdEfGhIjKl1234567890mnop",
    "AIzaSyA1234567890abcdefghijklmnopqrstuv",
    "xoxb-123456789012-abcdefABCDEF",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dozjgNryP4J3jVmNHl0w5N",
    "-----BEGIN RSA PRIVATE KEY-----\nMIIEow9x8z\n-----END RSA PRIVATE KEY-----",
    "postgres://bob:s3cr3tPazz@db.internal/app",
    "password=Sup3rS3cret99",
    'api_key: "a8f5f167f44f4964e6c998dee827110c"',
    '{"client_secret": "q9X7_zz81LmPq0"}',
    "Mein Passwort: Gr0sserHund77",
]
PERSONAL = [
    ("email", "john.doe@example.com"),
    ("email", "Schreib an müller+post@firma-x.co.uk."),
    ("card", "4111 1111 1111 1111"),
    ("card", "card number: 5500-0000-0000-0004"),
    ("card", "378282246310005"),
    ("card", "3782 822463 10005"),
    ("card", "6011111111111117"),
    ("iban", "DE89370400440532013000"),
    ("iban", "GB29 NWBK 6016 1331 9268 19"),
    ("iban", "FR14 2004 1010 0505 0001 3M02 606"),
    ("phone", "+49 30 901820"),
    ("phone", "+1 (415) 555-2671"),
    ("phone", "+1-202-555-0143"),
    ("phone", "+12025550143"),
    ("phone", "+33 6 12 34 56 78"),
    ("phone", "+34 612 345 678"),
    ("phone", "+44 (0)20 7946 0958"),
    ("phone", "(415) 555-2671"),
    ("phone", "415-555-2671"),
    ("phone", "call me at 5551234567"),
    ("phone", "Phone number: 555 123 4567"),
    ("phone", "01 42 68 53 00"),
    ("phone", "030/9018200"),
    ("phone", "0171 1234567"),
    ("phone", "020 7946 0958"),
    ("phone", "Telefon: 089 1234567"),
]
DATES = ["2024-01-15", "2024-01-15 10:30:00", "15.01.2024", "01/15/2024 10:00", "20240115103000", "1705312200000"]
ORDERS = ["order 4155552671", "order no. 415-555-2671", "Bestellung 0171 1234567", "ticket #415-555-2671"]
ORDERS += ["invoice 030/9018200", "ISBN 978-3-16-148410-0", "0-306-40615-2", "EAN 4006381333931", "4006381333931"]
AMOUNTS = ["1,234,567.89", "$1,234,567,890", "1 234 567 890", "1.234.567,89 EUR", "+1,234,567", "+12.345.678"]
AMOUNTS += [
    "+3000000000",
    "3.14159265358979",
    "+1.234567890123E+10",
    "+57332259349E225",
    "a+b=12345678",
    "998  999 1000",
]
AMOUNTS += [
    "01 02 03 04 05",
    "10 20 30 40 50 60",
    "1 + 2 - 3 4567 8901",
    "UTC+0100",
    "192.168.100.200",
    "v1.22.333.4444",
]
WRONG_CHECK_DIGITS = ["4111 1111 1111 1112", "1234567890123456", "DE89370400440532013001", "XX12345678901234567890"]
NO_ADDRESSES = ["@app.route", "user@host", "logo@2x.png", "git@github.com:org/repo", "C++11"]
NO_SECRETS = [
    "password: required",
    "password = os.environ['PASSWORD_1']",
    "api_key=your_api_key_123",
    "the secret is out",
]
NO_SECRETS += ["sk-learn", "task-oriented-programming-language", "risk-adjusted-return-on-capital", "hf_hub_download"]
NO_SECRETS += ["password=[SECRET]", "token"]
NO_LEFTOVERS = ["a[Your Page](http)", r"\begin{{tabular}}", "ToDo lists are useful", "Quiero TODO el pastel"]
RIGHT_CHARACTERS = [
    "👨‍👩‍👧 and 🏳️‍🌈",
    "می‌خواهم",
    "Über die Straße, naïve Café",
    "В Москве «тепло», ёлка",
    "中文的句子在这里。",
]
RIGHT_CHARACTERS += ["Ångström à la carte", "C:\\bin\\foo", "\\frac{1}{2}"]
INNOCENT = [
    *DATES,
    *ORDERS,
    *AMOUNTS,
    *WRONG_CHECK_DIGITS,
    *NO_ADDRESSES,
    *NO_SECRETS,
    *NO_LEFTOVERS,
    *RIGHT_CHARACTERS,
]
REFUSALS = [
    "As an AI language model, I cannot do that.",
    "I'm sorry, but I can't help with that.",
    "I’m sorry, but I can’t help with that.",
    "Sorry, I am unable to do this.",
    "I cannot assist with that request.",
    "I'm just an AI assistant.",
    "Als KI-Sprachmodell habe ich keine Meinung.",
    "Es tut mir leid, aber ich kann dabei nicht helfen.",
    "Als künstliche Intelligenz kenne ich das nicht.",
    "Je suis désolé, mais je ne peux pas vous aider.",
    "En tant que modèle de langage, je n'ai pas d'avis.",
    "Lo siento, pero no puedo ayudarte.",
    "Como modelo de lenguaje, no tengo opiniones.",
]
NO_REFUSALS = [
    "\"I'm sorry, but I can't go,\" she said.",
    "As an aide to the mayor, I cannot complain.",
    "As an AI researcher she wrote two books.",
    "I can't believe it!",
    "You get your money back. " * 8 + "I'm sorry, but I can't say when.",
]
LEFTOVERS = [
    "Lorem ipsum dolor",
    "TODO: write this",
    "x\nTBD",
    "Dear [Your Name],",
    "[insert date here]",
    "{{Order Number}}",
]
LEFTOVERS += ["Click here to read on", "We use cookies", "Alle Cookies akzeptieren"]
PIECES = [
    *SECRETS,
    *(text for _, text in PERSONAL),
    *INNOCENT,
    *REFUSALS,
    *LEFTOVERS,
    "Ã¼ber",
    "â€™",
    "\u200b",
    "\ufffd",
    "\x07",
]


def kinds(text: str, answer: bool = False) -> set[str]:
    return {finding.kind for finding in findings(text, answer)}


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("around", ["{}", "Use {} here.", "Zuerst (für später):\n{}\n"])
def test_a_secret_is_found_and_never_shown(secret: str, around: str) -> None:
    found = [finding for finding in findings(around.format(secret)) if finding.kind == "secret"]
    assert len(found) == 1
    value = around.format(secret)[found[0].start : found[0].end]
    assert len(value) >= 8
    assert value[:4] not in found[0].what.split("(")[1]
    assert value not in mask(around.format(secret))


@pytest.mark.parametrize(("kind", "text"), PERSONAL)
@pytest.mark.parametrize("around", ["{}", "Please use {}, thanks.", "Größe 7:\n{}\n"])
def test_personal_data_is_found_and_masked(kind: str, text: str, around: str) -> None:
    text = around.format(text)
    found = findings(text)
    assert [(finding.code, finding.kind) for finding in found] == [("personal_data", kind)]
    masked = mask(text)
    assert f"[{kind.upper()}]" in masked
    assert not findings(masked)


@pytest.mark.parametrize("text", INNOCENT)
@pytest.mark.parametrize("around", ["{}", "It says {} there.", "a\n{}\nb"])
def test_what_only_looks_alike_is_left_alone(text: str, around: str) -> None:
    text = around.format(text)
    assert not findings(text, answer=True)
    assert mask(text) == text
    assert repair(text)[0] is text


def test_mask_takes_only_what_it_is_told() -> None:
    text = "Mail a@b.org or call +49 30 901820"
    assert mask(text) == "Mail [EMAIL] or call [PHONE]"
    assert mask(text, ("phone",)) == "Mail a@b.org or call [PHONE]"


@pytest.mark.parametrize("text", REFUSALS)
def test_a_refusal_counts_only_in_an_answer(text: str) -> None:
    assert kinds(text, answer=True) == {"refusal"}
    assert not findings(text, answer=False)


@pytest.mark.parametrize("text", NO_REFUSALS)
def test_no_refusal(text: str) -> None:
    assert not findings(text, answer=True)


@pytest.mark.parametrize("text", LEFTOVERS)
def test_leftovers(text: str) -> None:
    assert kinds(text) == {"boilerplate"}


@pytest.mark.parametrize("codec", ["latin-1", "cp1252", "cp1250", "cp1254", "mac-roman", "cp437"])
def test_misread_text_is_found_and_put_right(codec: str) -> None:
    right = "Ein schöner Käse für die Größe übermäßig" if codec != "cp1252" else "Ein schöner Käse – it’s “fïne”"
    wrong = right.encode().replace(b"\xe2\x80\x9d", b"").decode(codec)
    assert "mojibake" in kinds(wrong)
    fixed, words = repair(wrong)
    assert fixed == right.replace("”", "")
    assert words
    assert not findings(fixed)


def test_a_repair_says_what_it_did() -> None:
    fixed, words = repair("grÃ¼n, Ã¼ber, fÃ¼r\u200b und\x07 StraÃŸe")
    assert fixed == "grün, über, für und Straße"
    assert words == ["Ã¼ became ü in 3 places", "ÃŸ became ß", "2 invisible characters (U+0007, U+200B) taken out"]


def test_text_misread_twice() -> None:
    twice = "Grüße".encode().decode("latin-1").encode().decode("latin-1")
    assert repair(twice)[0] == "Grüße"


def test_russian_read_as_windows_1251() -> None:
    wrong = "Привет, как дела?".encode().decode("cp1251", errors="ignore")
    assert kinds(wrong) == {"mojibake"}


def test_lost_characters_cannot_be_repaired() -> None:
    assert kinds("Gr\ufffd\ufffde") == {"lost_characters"}
    assert repair("Gr\ufffd\ufffde") == ("Gr\ufffd\ufffde", [])


def test_a_joiner_between_latin_letters_goes() -> None:
    assert repair("a\u200db \u200cc 👨\u200d👩") == (
        "ab c 👨\u200d👩",
        ["2 invisible characters (U+200C, U+200D) taken out"],
    )


def test_a_lone_surrogate_harms_nothing() -> None:
    text = "a\ud800 john@example.com Ã¼"
    assert {"email"} <= kinds(text)
    assert repair(text)[0].startswith("a\ud800")


texts = st.lists(
    st.one_of(st.sampled_from(PIECES), st.text(max_size=12), st.text(string.digits + " -+./()@", max_size=20)),
    max_size=5,
).map(" ".join)


@given(texts, st.booleans())
@settings(max_examples=1500, deadline=None)
@example("Ã\xa0 la", False)
def test_the_prefilter_misses_nothing(text: str, answer: bool) -> None:
    """Whatever the closer look would find, in the text and in any line of JSON that holds it."""
    everything = list(range(len(content._KINDS) + 2))
    found = content._findings(text, [*everything[:-2]], answer)
    found += [finding for finding in findings(text, answer) if finding.kind in ("mojibake", "control_characters")]
    if content._UNSEEN.search(text):
        assert "control_characters" in kinds(text)
    if not found:
        return
    assert suspicious(text.encode())
    assert {finding.kind for finding in found} == kinds(text, answer)
    for line in (
        json.dumps({"a": text}),
        json.dumps({"a": text}, ensure_ascii=False),
        json.dumps({"a": text}).replace("/", "\\/"),
        json.dumps({"a": text}).replace("'", "\\u0027").replace("@", "\\u0040"),
    ):
        assert suspicious(line.encode()), line


@given(texts)
@settings(max_examples=800, deadline=None)
def test_repairing_and_masking_twice_change_nothing_more(text: str) -> None:
    fixed, words = repair(text)
    assert bool(words) == (fixed is not text)
    again, more = repair(fixed)
    assert again is fixed
    assert not more
    assert not {"mojibake", "control_characters"} & kinds(fixed)
    for finding in findings(text, answer=True):
        assert 0 <= finding.start < finding.end <= len(text)


@pytest.mark.parametrize(
    "piece",
    [
        "a",
        "1",
        "1 ",
        "-",
        "a@",
        "a.",
        "é a@b.co ",
        "password=",
        "AB12",
        "[your ",
        "{{a",
        "\u200b",
        "Ã¼ ",
        "-----BEGIN PRIVATE KEY-----",
    ],
)
def test_hostile_text_takes_linear_time(piece: str) -> None:
    start = time.process_time()
    findings(piece * (200_000 // len(piece)), answer=True)
    repair(piece * (200_000 // len(piece)))
    mask(piece * (200_000 // len(piece)))
    assert time.process_time() - start < 5


@pytest.mark.alone
def test_a_clean_row_of_1_kb_costs_microseconds() -> None:
    """The goal is 6 us; measured 2.2 us. The bound here leaves room for a busy machine."""
    row = b"The quick brown fox jumps over 13 lazy dogs, he said. Then on 2024-01-15 the order 88123 came." * 11
    assert not suspicious(row)
    best = min(_seconds(row) for _ in range(7))
    assert best < 12e-6


def _seconds(row: bytes, times: int = 500) -> float:
    start = time.perf_counter()
    for _ in range(times):
        suspicious(row)
    return (time.perf_counter() - start) / times
