"""What in a row's text should not be learned: secrets, personal data, refusals, leftovers, broken characters.

One RE2 set goes over each row in time linear to its length; only what it suspects is looked at closely.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import ftfy
import re2
from ftfy.chardata import CHARMAP_ENCODINGS

from spool.data.judging import personal


@dataclass(frozen=True, slots=True)
class Finding:
    """`what` is in words, and never shows a secret; `text[start:end]` is the place.

    `code` is secret, personal_data, refusal, boilerplate, mojibake, lost_characters or control_characters; `kind` is
    the code, or email, card, phone or iban.
    """

    code: str
    what: str
    start: int
    end: int
    kind: str


@dataclass(frozen=True, slots=True)
class _Kind:
    """`hint` (RE2, on bytes) finds every suspect in plain text and in a line of JSON; `patterns` (in UTF-8) are exact.

    `patterns` are (what it is in words, pattern); where a pattern has a group, the group is the finding. `holds` has
    the last word: it gets what matched, and the 80 characters before and after.
    """

    code: str
    kind: str
    hint: bytes
    patterns: tuple[tuple[str, str], ...]
    holds: Callable[[str, str, str], bool] = lambda value, before, after: True


# Nothing in a hint may ask for a word's boundary: in a line of JSON "\nfoo" is a backslash, an n and foo.
_GAP = rb"(?:[ ()./\-]|\\/|\xc2\xa0|\xe2\x80[\x90\x91\x93]|\\u00a0|\\u201[013])"
_APOSTROPHE = "['’]"
_MARKED = re.compile(r"[<>{}\[\]()$%*…]|\.\.\.|(?i:your|example|xxx|placeholder|redacted|environ|getenv)")
_AT_START = re.compile(r"(?i)sorry|apologi|leid|désol|siento")
_PICTURES = re.compile(r"(?i)\.(?:png|jpe?g|gif|svg|webp|css|js|py)$")

_NAMED = "password|passwd|passphrase|pwd|passwort|kennwort|api[_-]?key|secret[_-]?key|access[_-]?key|private[_-]?key"
_NAMED += "|client[_-]?secret|access[_-]?token|auth[_-]?token|api[_-]?token|secret|contraseña|mot de passe"
_TOKENS = (
    ("an AWS access key", r"(?:AKIA|ASIA)[A-Z0-9]{16}"),
    ("a GitHub token", r"gh[pousr]_[A-Za-z0-9]{30,}|github_pat_[A-Za-z0-9_]{22,}"),
    ("a GitLab token", r"glpat-[A-Za-z0-9_\-]{20,}"),
    ("a Hugging Face token", r"hf_[A-Za-z0-9]{30,}"),
    ("an API key", r"sk-(?:ant-|proj-|or-)?[A-Za-z0-9_\-]{20,}|[sr]k_(?:live|test)_[A-Za-z0-9]{16,}"),
    ("a Google API key", r"AIza[A-Za-z0-9_\-]{35}"),
    ("a Slack token", r"xox[abeoprs]-[A-Za-z0-9\-]{10,}|xapp-[A-Za-z0-9\-]{10,}"),
    ("a package registry's token", r"npm_[A-Za-z0-9]{36}|pypi-AgE[A-Za-z0-9_\-]{50,}"),
    ("a signed web token", r"eyJ[A-Za-z0-9_\-]{8,}\.eyJ[A-Za-z0-9_\-]{8,}\.[A-Za-z0-9_\-]{8,}"),
    (
        "a private key",
        r"-----BEGIN [A-Z ]{0,20}PRIVATE KEY(?: BLOCK)?-----"
        r"(?:(?:[A-Za-z0-9+/=:,.\s]|-[A-Za-z])*-----END [A-Z ]{0,20}KEY(?: BLOCK)?-----)?",
    ),
)
_TOKENS_HINT = (
    rb"(?:AKIA|ASIA)[A-Z0-9]{8}|gh[pousr]_[A-Za-z0-9]{8}|github_pat_|glpat-|hf_[A-Za-z0-9]{8}|sk-[A-Za-z0-9_\-]{8}"
    rb"|[sr]k_(?:live|test)_|AIza[A-Za-z0-9]|xox[abeoprs]-|xapp-|npm_[A-Za-z0-9]{8}|pypi-AgE|eyJ[A-Za-z0-9_\-]{8}"
    rb"|-----BEGIN "
)
_PHONE_HINT = (
    rb"\+\(?[1-9](?:" + _GAP + rb"{0,3}\d){7}|[2-9]\d\d(?:\)|" + _GAP + rb")" + _GAP + rb"?[2-9]\d\d" + _GAP + rb"\d{4}"
    rb"|(?:^|[^0-9])0[1-9](?:" + _GAP + rb"{0,4}\d){7}"
    rb"|(?i:phone|tel|call (?:us|me|at|on)|mobil|cell|fax|whatsapp|hotline|nummer|handy|fono|vil|portable)"
    rb"(?i:[ :.\-]| number| nr| is| ist| at| on| unter| au){0,6}\(?\d(?:" + _GAP + rb"{0,2}\d){6}"
)
# A backspace or form feed is \b or \f in a line of JSON; \\begin and C:\\bin are none.
_UNSEEN_HINT = (
    rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\xc2[\x80-\x9f]|\xe2\x80[\x8b-\x8f\xaa-\xae]|\xe2\x81[\xa6-\xa9]|\xef\xbb\xbf"
    rb"|(?:^|[^\\])(?:\\\\)*\\[bf]"
    rb"|(?i:\\u(?:00(?:0[0-8bcef]|1[0-9a-f]|7f|[89][0-9a-f])|20(?:0[b-f]|2[a-e]|6[6-9])|feff))"
)
_REFUSALS = (
    r"as an (?:ai|artificial intelligence)(?:,| (?:language model|model|assistant|chatbot|system|developed|trained))",
    r"as a (?:large )?language model",
    r"i(?: a|’)m (?:just |only )?an? (?:ai|(?:large )?language model)(?:[,.;]| (?:language model|model|assistant))",
    r"(?:sorry|apologi[sz]e)(?:, but|,| but|\.)? i(?: can’t| cannot| can not|(?: a|’)m (?:unable|not able) to"
    r"| won’t be able)",
    r"i (?:can’t|cannot|can not) (?:assist|help (?:you )?with (?:that|this)|fulfil|comply|provide (?:you with )?"
    r"(?:assist|info)|engage in|generate content|create content|answer that)",
    r"i(?: a|’)m (?:unable|not able) to (?:assist|help|fulfil|comply|provide|answer|generate)",
    r"i (?:do not|don’t) have (?:personal (?:opinions|feelings|experiences|beliefs)|feelings or)|my knowledge cut-?off",
    r"als (?:eine? )?(?:ki-?(?:sprach)?(?:modell|assistent)|ki (?:kann|habe|bin)|künstliche intelligenz"
    r"|(?:großes )?sprachmodell)",
    r"tut mir leid, (?:aber )?(?:(?:das |dabei |damit )?kann ich|ich kann|leider kann)",
    r"ich kann (?:ihnen |dir )?(?:dabei|damit|hierbei) (?:leider )?nicht (?:weiter)?helfen",
    r"en tant qu(?:e (?:grand )?modèle de langage|’ia|’intelligence artificielle|’assistant ia)",
    r"désolée?, (?:mais )?je ne (?:peux|puis|suis)|je ne (?:peux|suis) pas (?:en mesure de )?(?:vous )?"
    r"(?:aider|répondre)",
    r"como (?:una? )?(?:ia,|inteligencia artificial|modelo de lenguaje)",
    r"lo siento, (?:pero )?no puedo|no puedo (?:ayudarte|ayudarle|proporcionar)",
)
_LEFTOVERS = (
    r"lorem ipsum|dolor sit amet",
    r"click here to|subscribe to our newsletter|all rights reserved|enable javascript",
    r"(?:we|site|website|wir|seite|website) (?:uses?|verwende[nt]|nutz(?:en|t)) cookies|accept all cookies",
    r"alle cookies akzeptieren|accepter (?:tous )?les cookies|aceptar (?:todas )?las cookies",
)
_PLACEHOLDER = (
    r"(?i)\[(?:insert|your|enter|fill in|placeholder) [^\]\n\[]{1,60}\]|\{\{ ?[a-z_][a-z0-9_ .\-]{0,40} ?\}\}"
)
_TODO = r"(?m:^[ \t]*((?:TODO|TBD|FIXME)(?:[ \t]*:|[ \t]*$)))"


def _phrases(phrases: Sequence[str]) -> tuple[str, bytes]:
    """(exact pattern, hint) of phrases in any case, in which ’ stands for every apostrophe."""
    exact = "|".join(phrases).replace("’", _APOSTROPHE)
    # The umlauts of a JSON line may be written \u00fc, its apostrophe \u0027.
    hint = "|".join(phrases).encode().replace("’".encode(), rb"(?:'|\xe2\x80\x99|\\u2019|\\u0027)")
    for letter in sorted({letter for letter in "".join(phrases) if ord(letter) > 127} - {"’"}):
        forms = {f"\\\\u{ord(case):04x}" for case in (letter.lower(), letter.upper()[0])} | {letter, letter.upper()[0]}
        hint = hint.replace(letter.encode(), b"(?:" + b"|".join(sorted(form.encode() for form in forms)) + b")")
    return rf"(?i)\b(?:{exact})", b"(?i:" + hint + b")"


# Lead bytes read as Mac Roman. Good French has ’é and «\xa0é everywhere, so one of them alone says nothing.
_PUNCTUATION = "«»…\xa0–—“”‘’÷"


def _misread(escaped: bool) -> bytes:
    """What UTF-8 becomes in each encoding that ftfy undoes: a lead byte's character, its continuations' characters."""

    def characters(read_as: Iterable[int], codec: str) -> bytes:
        read = sorted(set(bytes(read_as).decode(codec)))
        forms = [f"\\\\u{ord(each):04x}".encode() if escaped else re.escape(each).encode() for each in read]
        return b"(?:" + b"|".join(forms) + b")"

    found = []
    for codec in CHARMAP_ENCODINGS:
        rest = characters(range(0x80, 0xC0), codec)
        twos = [byte for byte in range(0xC2, 0xE0) if bytes([byte]).decode(codec) not in _PUNCTUATION]
        found += [characters(twos, codec) + rest, characters(range(0xE0, 0xF0), codec) + rest + rest]
        found += [characters(range(0xF0, 0xF5), codec) + rest + rest + rest]
        if others := sorted({*range(0xC2, 0xE0)} - {*twos}):
            found.append((characters(others, codec) + rest) * 2)
    # A no-break space among them may have become a plain one.
    found.append(rb"\\u00c[23] " if escaped else "(?:Â|Ã) ".encode())
    return b"(?i:" + b"|".join(found) + b")" if escaped else b"|".join(found)


def _random(value: str) -> bool:
    """Whether a value looks drawn, not written: letters and digits, at least 2.5 bits a character (Shannon)."""
    if len(value) < 8 or _MARKED.search(value) or not re.search(r"\d", value) or not re.search(r"[A-Za-z]", value):
        return False
    counts = Counter(value).values()
    return -sum(n / len(value) * math.log2(n / len(value)) for n in counts) >= 2.5


def _is_token(value: str, before: str, after: str) -> bool:
    varied = len(set(value[4:])) > 5 and (re.search(r"\d", value) is not None or value.startswith(("-----", "hf_")))
    return varied and not before[-1:].isalnum()


def _is_drawn(value: str, before: str, after: str) -> bool:
    return _random(value)


def _is_email(value: str, before: str, after: str) -> bool:
    return not _PICTURES.search(value) and not value.startswith("git@") and before[-1:] not in ("/", "@")


def _is_leftover(value: str, before: str, after: str) -> bool:
    """Not a link's text, [your page](...), nor doubled braces in code."""
    return after[:1] != "(" and not (value.startswith("{{") and re.search(r"[\w{\\]\Z", before))


def _is_refusal(value: str, before: str, after: str) -> bool:
    """An apology only where an answer begins, and not in somebody's mouth: it is the story's then."""
    if _AT_START.search(value):
        return len(before) < 80 and not re.search(r"[\"“”„«»‘]", before[-12:])
    return not re.search(r"[\"“„«‘]\s*\Z", before)


_refusals, _refusals_hint = _phrases(_REFUSALS)
_leftovers, _leftovers_hint = _phrases(_LEFTOVERS)
_named, _named_hint = _phrases([_NAMED])
_CONTROL = "\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\u200b\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff"
# Joiners shape Arabic, Persian and Indic letters and hold an emoji's parts together.
_JOINED = "\u0600-\u109f\u1780-\u18af\ufb50-\ufdff\ufe0f\ufe70-\ufefc\u2190-\u2bff\U0001f000-\U0001faff"
_UNSEEN = re.compile(f"[{_CONTROL}]|(?<![{_JOINED}])[\u200c\u200d]")

_KINDS = (
    _Kind("secret", "secret", _TOKENS_HINT, _TOKENS, _is_token),
    _Kind(
        "secret",
        "secret",
        _named_hint + rb"""[\\"'\]]{0,6}(?: ?[:=]| is )|:(?:\\?/){2}[^ /:@]+:[^ /@]+@""",
        (
            ("a password or key", _named + r"""["'\]]{0,2}(?: ?[:=][=>]? ?| is )["']?([^\s"'<>,;]{8,})"""),
            ("a password in an address", r"(?i)\b[a-z]{2,12}://[^\s/:@]+:([^\s/:@]{8,})@[a-z0-9]"),
        ),
        _is_drawn,
    ),
    _Kind(
        "personal_data",
        "iban",
        rb"[A-Z]{2}\d\d ?[A-Z0-9]{4} ?[A-Z0-9]{4} ?[A-Z0-9]",
        (("a bank account (IBAN)", personal.IBAN),),
        personal.is_iban,
    ),
    _Kind(
        "personal_data",
        "card",
        rb"\d(?:[ \-]?\d){12}",
        (("a payment card's number", personal.CARD),),
        personal.is_card,
    ),
    _Kind(
        "personal_data",
        "email",
        rb"(?i:[a-z0-9_%+\-]@[a-z0-9\-]+\.[a-z])",
        (("an e-mail address", r"[A-Za-z0-9._%+\-]*[A-Za-z0-9_%+\-]@(?:[A-Za-z0-9\-]+\.)+[A-Za-z]{2,24}"),),
        _is_email,
    ),
    _Kind(
        "personal_data",
        "phone",
        _PHONE_HINT,
        tuple(("a phone number", pattern) for pattern in personal.PHONE),
        personal.is_phone,
    ),
    _Kind("refusal", "refusal", _refusals_hint, (("a refusal", _refusals),), _is_refusal),
    _Kind(
        "boilerplate",
        "boilerplate",
        _leftovers_hint + rb"|(?i:\[(?:insert|your|enter|fill in|placeholder) )|\{\{ ?[A-Za-z_]|TODO|TBD|FIXME",
        (("leftover text", _leftovers), ("an unfilled placeholder", _PLACEHOLDER), ("leftover text", _TODO)),
        _is_leftover,
    ),
    _Kind("lost_characters", "lost_characters", rb"\xef\xbf\xbd|(?i:\\ufffd)", (("lost characters", "\ufffd+"),)),
)
_PERSONAL = ("secret", "iban", "card", "email", "phone")
_EXACT = [[(words, re2.compile(pattern.encode())) for words, pattern in kind.patterns] for kind in _KINDS]
_MISREAD, _UNSEEN_INDEX = len(_KINDS), len(_KINDS) + 1
# A JSON line may write plain letters as \u0041; then anything may stand there. <, > and & are common and harmless.
_ESCAPED = rb"(?i:\\u00(?:2[0-57-9a-f]|3[0-9abdf]|[4-7][0-9a-f]))"


def _compile() -> re2.Set:
    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    options.max_mem = 64 << 20
    options.never_capture = True
    hints = re2.Set.SearchSet(options)
    for kind in _KINDS:
        hints.Add(kind.hint)
    hints.Add(_misread(escaped=False) + b"|" + _misread(escaped=True))
    hints.Add(_UNSEEN_HINT)
    hints.Add(_ESCAPED)
    hints.Compile()
    return hints


_HINTS = _compile()


def suspicious(raw: bytes) -> bool:
    """Whether `findings` may find something. `raw` is UTF-8: a text, or a line of JSON with its escapes.

    False is sure. Costs 3 to 5 us for a clean row of 1 KB.
    """
    return _HINTS.Match(raw) is not None


def findings(text: str, answer: bool = False) -> list[Finding]:
    """Everything found, by place. Refusals only where the text is an `answer`."""
    return _findings(text, _HINTS.Match(text.encode(errors="surrogatepass")) or (), answer)


def _findings(text: str, suspects: Sequence[int], answer: bool) -> list[Finding]:
    found: list[Finding] = []
    for index in suspects:
        if index < len(_KINDS) and (answer or _KINDS[index].code != "refusal"):
            found += _matches(text, index)
    if _MISREAD in suspects and (changes := _changes(text, _reread(text))):
        start, end, after = changes[0]
        what = f"characters read with the wrong encoding ({_short(text[start:end])} for {_short(after)})"
        found.append(Finding("mojibake", what, start, end, "mojibake"))
    if _UNSEEN_INDEX in suspects and (unseen := _UNSEEN.search(text)):
        what = f"{_counted(len(_UNSEEN.findall(text)), 'invisible character')} ({_named_unseen(text)})"
        found.append(Finding("control_characters", what, unseen.start(), unseen.end(), "control_characters"))
    return sorted(_without_overlaps(found), key=lambda finding: finding.start)


def repair(text: str) -> tuple[str, list[str]]:
    """The text with misread characters put right (ftfy's encoding fix, nothing else) and invisible ones taken out.

    Also what was done, in words. A clean text comes back as the same object. Repairing twice changes nothing more.
    """
    suspects = _HINTS.Match(text.encode(errors="surrogatepass")) or ()
    if _MISREAD not in suspects and _UNSEEN_INDEX not in suspects:
        return text, []
    words: list[str] = []
    while True:
        read = _reread(text)
        if read != text:
            counts = Counter((text[start:end], after) for start, end, after in _changes(text, read))
            words += [
                f"{_short(before)} became {_short(after)}" + (f" in {n} places" if n > 1 else "")
                for (before, after), n in counts.most_common(3)
            ]
            if len(counts) > 3:
                words.append(f"{_counted(len(counts) - 3, 'other misread piece')} put right")
        seen = _UNSEEN.sub("", read)
        if seen != read:
            count = _counted(len(_UNSEEN.findall(read)), "invisible character")
            words.append(f"{count} ({_named_unseen(read)}) taken out")
        if seen == text:
            return text, words
        text = seen


def mask(text: str, what: Sequence[str] = _PERSONAL) -> str:
    """The text with [SECRET], [EMAIL], [CARD], [PHONE] and [IBAN] in the place of what was found of these kinds."""
    pieces, last = [], 0
    for finding in findings(text):
        if finding.kind in what and finding.kind in _PERSONAL:
            pieces += [text[last : finding.start], f"[{finding.kind.upper()}]"]
            last = finding.end
    return "".join([*pieces, text[last:]])


def _matches(text: str, index: int) -> Iterator[Finding]:
    kind, data = _KINDS[index], text.encode(errors="surrogatepass")
    for words, pattern in _EXACT[index]:
        byte = end = 0
        for match in pattern.finditer(data):
            first, last = match.span(1 if pattern.groups else 0)
            start = end + len(data[byte:first].decode(errors="surrogatepass"))
            value = data[first:last].decode(errors="surrogatepass")
            byte, end = last, start + len(value)
            if kind.kind == "iban":
                value = personal.iban(value)
            after = start + len(value)
            if value and kind.holds(value, text[max(0, start - 80) : start], text[after : after + 80]):
                shown = value[:2] + "…" if kind.kind in _PERSONAL else _short(value)
                yield Finding(kind.code, f"{words} ({shown})", start, after, kind.kind)


def _without_overlaps(found: list[Finding]) -> list[Finding]:
    """Of secrets and personal data at one place the first of _PERSONAL; a phone number inside a card is none."""
    kept: list[Finding] = []
    last = 0
    rank = {kind: place for place, kind in enumerate(_PERSONAL)}
    for finding in sorted(found, key=lambda finding: (finding.start, rank.get(finding.kind, 0), -finding.end)):
        if finding.kind not in rank:
            kept.append(finding)
        elif finding.start >= last:
            kept.append(finding)
            last = finding.end
    return kept


def _reread(text: str) -> str:
    """ftfy's encoding fix (rspeer), told not to give up characters that are partly lost."""
    return ftfy.fix_encoding(text, replace_lossy_sequences=False)


def _changes(text: str, fixed: str) -> list[tuple[int, int, str]]:
    """(start, end, what it became) of each run of characters outside ASCII that was put right."""
    if text == fixed:
        return []
    before, after = (list(re.finditer(r"[^\x00-\x7f]+", each)) for each in (text, fixed))
    if len(before) != len(after):  # a space became part of a character
        start = next((place for place, (a, b) in enumerate(zip(text, fixed, strict=False)) if a != b), 0)
        return [(start, min(start + 2, len(text)), fixed[start : start + 1])]
    pairs = zip(before, after, strict=True)
    return [(old.start(), old.end(), new.group()) for old, new in pairs if old.group() != new.group()]


def _named_unseen(text: str) -> str:
    return ", ".join(sorted({f"U+{ord(each):04X}" for each in _UNSEEN.findall(text)})[:3])


def _short(text: str) -> str:
    return text if len(text) <= 40 else text[:40] + "…"


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
