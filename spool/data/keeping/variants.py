"""Other ways to write a question: sentence frames, typing errors and a few rules, in English and German.

Small on purpose: a rule is here when what it writes is right wherever it applies. What no rule fits stays as it is.
None is ever used on an answer. Typing errors follow what is known of them: neighbouring keys, swapped, missing and
doubled letters (Kukich 1992, "Techniques for automatically correcting words in text", section 2.1), and they spare
a word's first letter, short words, and whatever is no plain word.
"""

import random
import re

FRAMES: dict[str, dict[str, tuple[str, ...]]] = {
    "question_answer": {
        "en": (
            "Please answer the following question.\n\n{}",
            "I have a question: {}",
            "{}\n\nPlease answer this question.",
            "Question: {}",
        ),
        "de": (
            "Bitte beantworte die folgende Frage.\n\n{}",
            "Ich habe eine Frage: {}",
            "{}\n\nBitte beantworte diese Frage.",
            "Frage: {}",
        ),
    },
    "alpaca": {
        "en": (
            "Please do the following.\n\n{}",
            "Here is your task: {}",
            "Follow this instruction.\n\n{}",
            "Instruction: {}",
        ),
        "de": (
            "Bitte erledige Folgendes.\n\n{}",
            "Hier ist deine Aufgabe: {}",
            "Befolge diese Anweisung.\n\n{}",
            "Anweisung: {}",
        ),
    },
    "prompt_completion": {
        "en": ("Please respond to the following.\n\n{}", "{}\n\nPlease respond to this.", "Request: {}"),
        "de": ("Bitte antworte auf Folgendes.\n\n{}", "{}\n\nBitte antworte darauf.", "Anfrage: {}"),
    },
}

_COMMON = {
    "en": re.compile(
        r"\b(the|a|an|is|are|was|of|to|in|and|for|what|how|why|who|where|do|does|can|you|i|my|it)\b", re.I
    ),
    "de": re.compile(r"\b(der|die|das|den|ein|eine|ist|sind|zu|im|und|für|was|wie|wer|wo|kann|du|ich|mein\w*)\b", re.I),
}

# English word order moves a noun phrase only, so that "What is wrong with it?" stays; German moves nearly anything.
_NO_NOUN = (
    r"(?:like|for|about|with|in|on|at|to|from|now|then|today|tomorrow|tonight|here|there|open|wrong|and|or"
    r"|made|done|sent|lost|sold|found|kept|held|built|gone|left|set|put|born|shown)\b"
)
_NOUNS = rf"(?:(?!{_NO_NOUN})[\w'-]+ )?(?!{_NO_NOUN}|\w+(?:ed|en|ing)\b)[\w'-]+"
_THING = rf"(?:the|a|an|my|your|our|their|this|these) {_NOUNS}"
_DEED = r"(?!(?:and|or|that|which|who|when|where|if|because|but|than)\b)[\w'-]+"
_TEIL = r"(?!(?:und|oder|dass|wenn|weil|aber|als|wo|wer|Sie|Ihr|Ihre\w?|Ihnen)\b)[\w'-]+"

Rule = tuple[re.Pattern[str], tuple[str, ...]]

RULES: tuple[Rule, ...] = (
    (
        re.compile(
            rf"(?P<ask>What|Who|Where) (?P<be>is|are|was|were) (?P<part>{_THING}(?: of (?:{_THING}|{_NOUNS}))?)\?"
        ),
        ("Can you tell me {ask} {part} {be}?", "Do you know {ask} {part} {be}?"),
    ),
    (
        re.compile(rf"How (?:do|can|should|could) (?:I|we) (?P<part>{_DEED}(?: {_DEED}){{1,6}})\?"),
        ("What is the best way to {part}?", "I would like to know how to {part}."),
    ),
    (
        re.compile(
            r"(?:Can|Could|Would|Will) you (?:please )?(?P<part>(?:help|tell|show|explain|give|send|describe|write|list"
            rf"|translate|summari[sz]e|recommend|suggest)(?: {_DEED}){{1,6}})\?"
        ),
        ("Please {part}.", "I would like you to {part}."),
    ),
    (
        re.compile(
            rf"(?P<be>Explain|Describe|Summari[sz]e|Translate|List|Name|Give|Write)(?P<part>(?: {_DEED}){{1,6}})\."
        ),
        ("Can you {be} {part}?", "Please {be} {part}."),
    ),
    (
        re.compile(rf"(?P<ask>Was|Wer|Wo) (?P<be>ist|sind|war|waren) (?P<part>{_TEIL}(?: {_TEIL}){{0,6}})\?"),
        ("Kannst du mir sagen, {ask} {part} {be}?", "Weißt du, {ask} {part} {be}?"),
    ),
    (
        re.compile(rf"(?P<ask>Wie|Wo) (?P<be>kann|muss|soll) (?P<who>ich|man) (?P<part>{_TEIL}(?: {_TEIL}){{0,6}})\?"),
        ("Ich möchte wissen, {ask} {who} {part} {be}.", "Kannst du mir sagen, {ask} {who} {part} {be}?"),
    ),
    (
        re.compile(rf"(?P<ask>Wie) (?P<be>heißt|heißen) (?P<part>{_TEIL}(?: {_TEIL}){{0,6}})\?"),
        ("Weißt du, {ask} {part} {be}?",),
    ),
)
"""Pattern of a whole question -> what it becomes; {ask} and {be} are written small."""

_ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")


def wrap(text: str, format: str, seed: str) -> str | None:
    """A question or an instruction in another sentence frame; None for other formats and languages."""
    frames = FRAMES.get(format, {}).get(language(text) or "")
    if not frames:
        return None
    return random.Random(seed).choice(frames).format(text.strip())


def reword(text: str, seed: str) -> str | None:
    """The same question in other words; None where no rule fits it as a whole."""
    asked = " ".join(text[:500].split())
    asked = asked[:1].upper() + asked[1:]
    for pattern, frames in RULES:
        if found := pattern.fullmatch(asked):
            words = {key: value.strip() for key, value in found.groupdict().items()}
            words |= {key: words[key].lower() for key in ("ask", "be") if key in words}
            return random.Random(seed).choice(frames).format(**words)
    return None


def noise(text: str, typos: float, seed: str) -> str | None:
    """A text as somebody types it in a hurry; None where nothing in it can be mistyped.

    Args:
        typos: share of the letters that are touched.
    """
    chance = random.Random(seed)
    casing = chance.random()
    noisy = re.sub(r"\S+", lambda word: _mistyped(word[0], typos, chance), text)
    if casing < 0.3 and noisy[:1].isupper() and not noisy[:2].isupper():
        noisy = noisy[:1].lower() + noisy[1:]
    if 0.3 <= casing < 0.4 and re.fullmatch(r"[^\n]{1,300}", noisy) and not re.search(r"\d|\w\W\w|[A-Z]{2}", noisy):
        noisy = noisy.lower()
    return None if noisy == text else noisy


def language(text: str) -> str | None:
    """ "en" or "de" where the text's small words are of that language, else None."""
    hits = {name: len(common.findall(text[:2000])) for name, common in _COMMON.items()}
    best = max(hits, key=lambda name: hits[name])
    return best if hits[best] > sum(hits.values()) / 2 else None


def _mistyped(word: str, typos: float, chance: random.Random) -> str:
    """Numbers, addresses, code, placeholders, names in capitals and words of up to three letters are spared."""
    core = re.fullmatch(r"([\"'(]*)([A-ZÄÖÜ]?[a-zäöüß]{3,})([.,;:!?\"')]*)", word)
    if not core:
        return word
    letters = list(core[2])
    place = 1
    while place < len(letters):
        if chance.random() < typos:
            place = _slip(letters, place, chance)
        place += 1
    return core[1] + "".join(letters) + core[3]


def _slip(letters: list[str], place: int, chance: random.Random) -> int:
    """One error at a place; gives the place to go on behind."""
    how = chance.choice(("neighbour", "swap", "miss", "double"))
    if how == "neighbour":
        near = _neighbours(letters[place])
        letters[place] = chance.choice(near) if near else letters[place]
    elif how == "swap" and place + 1 < len(letters):
        letters[place], letters[place + 1] = letters[place + 1], letters[place]
        return place + 1
    elif how == "miss":
        del letters[place]
        return place - 1
    elif how == "double":
        letters.insert(place, letters[place])
        return place + 1
    return place


def _neighbours(letter: str) -> str:
    """The keys left and right of a letter: those are the same on most Latin keyboards."""
    for row in _ROWS:
        at = row.find(letter)
        if at >= 0:
            return row[max(0, at - 1) : at] + row[at + 1 : at + 2]
    return ""
