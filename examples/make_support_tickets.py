"""Owns the example data set: made-up customer messages, English and German, and the JSON a help desk wants.

Run as: python examples/make_support_tickets.py

It writes support_tickets.jsonl (400 rows to train on) and support_tickets.heldout.jsonl (80 rows to test
with) beside itself, the same bytes at every run. The shop, its customers, streets and order numbers are
invented. What makes a label is always in the message:

- intent: what the customer asks for. A broken thing is `damaged`; `refund` and `exchange` are named as such.
- order: a letter and four digits, however written, as "A-1234"; null where the message has none.
  Prices, dates, sizes, telephone numbers and postcodes are there to be left alone.
- urgency: `high` where time is said to be short, `low` where it is said to be plenty, else `normal`.

The held-out rows share no message, product, customer name, town or order number with the training rows.
"""

import json
import random
import unicodedata
from pathlib import Path

SEED = 2026
TRAIN_ROWS, HELDOUT_ROWS = 400, 80
INTENTS = ("refund", "exchange", "delivery_status", "damaged", "cancel", "invoice", "address_change", "account")
LANGUAGES = ("en", "de")

# English, German; the letter is the noun's gender. The last rows are held back.
THINGS = [
    line.split(", ")
    for line in """\
teapot, f Teekanne
lantern, f Laterne
desk lamp, f Schreibtischlampe
cuckoo clock, f Kuckucksuhr
ukulele, f Ukulele
fruit bowl, f Obstschale
chess set, n Schachspiel
picnic basket, m Picknickkorb
garden gnome, m Gartenzwerg
kettle, m Wasserkocher
rocking horse, n Schaukelpferd
snow globe, f Schneekugel
telescope, n Teleskop
bird house, n Vogelhaus
watering can, f Gießkanne
music box, f Spieluhr
umbrella, m Regenschirm
typewriter, f Schreibmaschine
model ship, n Modellschiff
coffee mill, f Kaffeemühle""".splitlines()
]
CLOTHES = [
    line.split(", ")
    for line in """\
raincoat, f Regenjacke
cardigan, f Strickjacke
dressing gown, m Bademantel
jumper, m Pullover
dress, n Kleid
kimono, m Kimono
poncho, m Poncho""".splitlines()
]
THINGS_HELD_BACK, CLOTHES_HELD_BACK, NAMES_HELD_BACK, PLACES_HELD_BACK = 5, 2, 8, 2

NAMES = [
    "Marta",
    "Jonas",
    "Aisha",
    "Pierre",
    "Lucía",
    "Tom",
    "Greta",
    "Mehmet",
    "Chloé",
    "Diego",
    "Hannah",
    "Olek",
    "Priya",
    "Bruno",
    "Inés",
    "Callum",
    "Fatou",
    "Lotte",
    "Yuki",
    "Rafael",
    "Noor",
    "Elsa",
    "Henri",
    "Paloma",
    "Anouk",
    "Gustav",
    "Carmen",
    "Ravi",
    "Maëlle",
    "Dylan",
    "Frieda",
    "Pablo",
]

# Each sentence's slots are named for what fills them: {den} gives "den Gartenzwerg" or "die Teekanne", {er} the
# pronoun that agrees with it. {ref} stands behind a product and {num} behind "order": they take the order number,
# or nothing where the row has none.
BOOKS = {
    "en": {
        "refund": """\
I'd like my money back for the {item}{ref}, please.
Please refund the {item}{ref}, I have changed my mind.
I sent the {item}{ref} back two weeks ago and still haven't got my money.
You charged me twice for the {item}{ref}. Please pay one back.
The {item}{ref} looks nothing like the photo. I want a refund.
How do I return the {item}{ref} and get my money back?
The {item}{ref} is lovely but not for me, can I have the money back?""",
        "exchange": """\
The {item}{ref} is too small, can I swap it for a size {size}?
Could I exchange the {item}{ref} for the {colour} one?
I'd rather have the {item}{ref} in {colour} after all. Can we swap?
Please exchange the {item}{ref} for one size bigger.
The {item}{ref} fits my dog better than me. A size {size} instead, please?
Wrong colour! I want to change my {item}{ref} for a {colour} one.
Is it possible to swap the {item}{ref} for something larger, say a {size}?""",
        "delivery_status": """\
Where is my {item}{ref}?
When will the {item}{ref} arrive?
Has my order{num} been shipped yet?
The tracking for my {item}{ref} hasn't moved in days.
I'm still waiting for my {item}{ref}, any news?
The courier claims he dropped off the {item}{ref}, but nothing has arrived.
My {item}{ref} must be on a world tour. Do you know when it gets here?""",
        "damaged": """\
The {item}{ref} arrived broken.
My {item}{ref} came with a big crack in it.
I opened the parcel and found the {item}{ref} in pieces.
The box was crushed and so is the {item}{ref}.
There is a hole in my {item}{ref}, straight out of the box.
The {item}{ref} is scratched all over, and I only just unpacked it.
Sadly the {item}{ref} did not survive the journey.""",
        "cancel": """\
Please cancel my order{num}.
I want to cancel the {item}{ref} before it ships.
I ordered the {item}{ref} twice by mistake, please cancel one.
Stop the order{num}, please! My cat walked over the keyboard.
I've changed my mind: please don't send the {item}{ref}.
Can I still cancel the order{num}?
I no longer need the {item}{ref}, so please don't ship it.""",
        "invoice": """\
Please send me the invoice for the {item}{ref}.
I need a receipt for my order{num}.
My accountant wants an invoice for the {item}{ref}.
The invoice for my order{num} has the wrong company name on it.
I deleted the invoice for the {item}{ref}, could you send it again?
Where can I download the invoice for my order{num}?
The {item}{ref} came without an invoice, and the tax office wants one.""",
        "address_change": """\
We're moving: please send the {item}{ref} to {address}.
My new address is {address}.
Please deliver my order{num} to {address} instead.
I got the street wrong in my order{num}, it's {address}.
Can the {item}{ref} go to my mother's instead? Her address is {address}.
Please change the delivery address to {address}.
I don't live there any more! Ship the {item}{ref} to {address}.""",
        "account": """\
I can't log in, it says my password is wrong.
Please reset my password.
How do I delete my account?
My account is locked and I can't see my order{num}.
I'd like to change my user name to {nick}.
The link for a new password never arrives.
Your site no longer knows me: it rejects my password.""",
        "high": """\
It's urgent!
I need an answer today.
As soon as possible, please.
This can't wait.""",
        "low": """\
No hurry.
It's not urgent.
Take your time.
Next week is fine too.""",
        "ref": " (order {id})| from order {id}| (#{id})",
        "num": " {id}| no. {id}",
        "order": "My order number is {id}.|Order {id}.|It's order {id}.|Order no. {id}.",
        "no_order": "I can't find the order number, sorry.|I've lost the order number.",
        "bought": "I paid {pounds}.|It cost {pounds}.|I bought it on {day} {month}.",
        "aside": "You can call me on {phone}.|I've been a customer since {year}.|Love your shop, by the way."
        "|My cat says hello.|Sorry to bother you.|It's been raining here for days.",
        "hello": "Hi,|Hello,|Hello team,|Good morning,|Hi there,|Dear all,",
        "bye": "Thanks, {name}|Cheers, {name}|Best wishes, {name}|{name}|Many thanks!|Thanks!",
        "colour": "red|blue|green|black|yellow",
        "month": "January|March|April|June|October",
        "address": "{n} Larch Lane, {town}|{n} Harbour Street|{n} Mill Road",
        "town": "Little Yawning|Applewick|Port Marrow|Thistleham|Fernbury",
    },
    "de": {
        "refund": """\
Ich möchte für {den}{ref} mein Geld zurück.
Bitte erstatten Sie mir {den}{ref}, ich habe es mir anders überlegt.
Ich habe {den}{ref} vor zwei Wochen zurückgeschickt, das Geld ist noch nicht da.
Für {den}{ref} wurde zweimal abgebucht, bitte einmal erstatten.
{der}{ref} sieht ganz anders aus als auf dem Foto. Ich will mein Geld zurück.
Wie kann ich {den}{ref} zurückgeben und mein Geld bekommen?
{der}{ref} ist hübsch, aber nichts für mich. Bekomme ich mein Geld zurück?""",
        "exchange": """\
{der}{ref} ist zu klein, kann ich {ihn} gegen Größe {size} tauschen?
Könnte ich {den}{ref} gegen ein Modell in {colour} umtauschen?
Ich hätte {den}{ref} doch lieber in {colour}. Geht ein Umtausch?
Bitte tauschen Sie {den}{ref} eine Nummer größer um.
{der}{ref} passt meinem Hund besser als mir. Bitte stattdessen Größe {size}.
Falsche Farbe! Ich möchte {den}{ref} gegen ein Modell in {colour} tauschen.
Mir ist {der}{ref} zu weit, kann ich gegen Größe {size} tauschen?""",
        "delivery_status": """\
Wo bleibt {mein}{ref}?
Wann kommt {mein}{ref} an?
Ist meine Bestellung{num} schon verschickt?
Die Sendungsverfolgung für {den}{ref} bewegt sich seit Tagen nicht.
Ich warte immer noch auf {meinen}{ref}, gibt es Neuigkeiten?
Der Bote will {den}{ref} abgegeben haben, hier ist aber nichts angekommen.
{mein}{ref} macht wohl eine Weltreise. Wissen Sie, wann {er} ankommt?""",
        "damaged": """\
{der}{ref} ist kaputt angekommen.
{mein}{ref} hat einen großen Riss.
Beim Auspacken lag {der}{ref} in Stücken vor mir.
Der Karton war eingedrückt und {der}{ref} auch.
In {meinem}{ref} ist ein Loch, so kam {er} aus dem Karton.
{der}{ref} ist völlig verkratzt, und ich habe gerade erst ausgepackt.
{der}{ref} hat die Reise leider nicht überlebt.""",
        "cancel": """\
Bitte stornieren Sie meine Bestellung{num}.
Ich möchte {den}{ref} stornieren, bevor das Paket losgeht.
Ich habe {den}{ref} aus Versehen zweimal bestellt, bitte einmal stornieren.
Bitte stoppen Sie die Bestellung{num}! Meine Katze lief über die Tastatur.
Ich habe es mir anders überlegt: {den}{ref} bitte nicht verschicken.
Kann ich die Bestellung{num} noch stornieren?
{den}{ref} brauche ich nicht mehr, bitte nicht verschicken.""",
        "invoice": """\
Bitte schicken Sie mir die Rechnung für {den}{ref}.
Ich brauche einen Beleg für meine Bestellung{num}.
Meine Buchhaltung möchte eine Rechnung über {den}{ref}.
Auf der Rechnung zu meiner Bestellung{num} steht der falsche Firmenname.
Ich habe die Rechnung für {den}{ref} gelöscht, schicken Sie sie noch einmal?
Wo kann ich die Rechnung für meine Bestellung{num} herunterladen?
{der}{ref} kam ohne Rechnung, und das Finanzamt will eine sehen.""",
        "address_change": """\
Wir ziehen um: {den}{ref} bitte an diese Adresse: {address}.
Meine neue Adresse ist {address}.
Bitte liefern Sie meine Bestellung{num} an eine andere Adresse: {address}.
Bei meiner Bestellung{num} stimmt die Straße nicht, richtig ist {address}.
Kann {der}{ref} stattdessen zu meiner Mutter? Ihre Adresse ist {address}.
Bitte ändern Sie die Lieferadresse: {address}.
Dort wohne ich nicht mehr! Bitte liefern Sie {den}{ref} hierhin: {address}.""",
        "account": """\
Ich kann mich nicht einloggen, angeblich ist mein Passwort falsch.
Bitte setzen Sie mein Passwort zurück.
Wie lösche ich mein Konto?
Mein Konto ist gesperrt und ich sehe meine Bestellung{num} nicht mehr.
Ich möchte meinen Benutzernamen in {nick} ändern.
Der Link für ein neues Passwort kommt nie an.
Ihre Seite kennt mich nicht mehr: mein Passwort wird abgelehnt.""",
        "high": """\
Es ist dringend!
Ich brauche heute noch eine Antwort.
So bald wie möglich, bitte.
Das kann nicht warten.""",
        "low": """\
Es eilt nicht.
Es ist nicht dringend.
Lassen Sie sich Zeit.
Nächste Woche reicht auch.""",
        "ref": " (Bestellung {id})| aus Bestellung {id}| (#{id})",
        "num": " {id}| Nr. {id}",
        "order": "Meine Bestellnummer ist {id}.|Bestellung {id}.|Es geht um Bestellung {id}.|Best.-Nr. {id}.",
        "no_order": "Die Bestellnummer finde ich leider nicht.|Die Bestellnummer habe ich verlegt.",
        "bought": "Bezahlt habe ich {euros}.|Gekostet hat das {euros}.|Gekauft habe ich am {day}. {month}.",
        "aside": "Sie erreichen mich unter {phone}.|Ich kaufe seit {year} bei Ihnen.|Ihr Laden ist übrigens toll."
        "|Meine Katze lässt grüßen.|Entschuldigen Sie die Störung.|Hier regnet es seit Tagen.",
        "hello": "Hallo!|Guten Tag!|Guten Morgen!|Liebes Team!|Moin!|Servus!",
        "bye": "Danke, {name}|Viele Grüße, {name}|Liebe Grüße, {name}|{name}|Vielen Dank!|Danke!",
        "colour": "Rot|Blau|Grün|Schwarz|Gelb",
        "month": "Januar|März|April|Juni|Oktober",
        "address": "Lindenweg {n}, {zip} {town}|Am Mühlbach {n}|Hafengasse {n}",
        "town": "Apfelhausen|Krähenbrück|Mondsheim|Fuchsmoor|Silberau",
    },
}
NICKS = "teapot_fan|moonwalker|gnome42|captain_sock|blue_heron|lady_pumpkin"


def noun_slots(language: str, noun: str) -> dict[str, str]:
    """The product with each article that the language's sentences ask for, and the pronouns that agree with it."""
    if language == "en":
        return {"item": noun}
    gender, noun = noun.split(" ", 1)
    pick = "mfn".index(gender)
    forms = {
        "der": "der die das",
        "den": "den die das",
        "mein": "mein meine mein",
        "meinen": "meinen meine mein",
        "meinem": "meinem meiner meinem",
    }
    slots = {slot: f"{articles.split()[pick]} {noun}" for slot, articles in forms.items()}
    return slots | {"er": ["er", "sie", "es"][pick], "ihn": ["ihn", "sie", "es"][pick]}


def as_typed_in_a_hurry(text: str, language: str, rng: random.Random) -> str:
    """Lower case and, half of the time, no umlauts."""
    text = text.lower()
    if rng.random() < 0.5:
        if language == "de":
            for letter, spelled in (("ä", "ae"), ("ö", "oe"), ("ü", "ue"), ("ß", "ss")):
                text = text.replace(letter, spelled)
        text = "".join(c for c in unicodedata.normalize("NFD", text) if not unicodedata.combining(c))
    return text.removesuffix(".")


def with_a_typo(text: str, rng: random.Random) -> str:
    """One longer word loses a letter or has two neighbours swapped; names of products are not spared."""
    words = text.split(" ")
    at = rng.choice([i for i, word in enumerate(words) if word.isalpha() and len(word) > 4] or [0])
    word = words[at]
    if len(word) > 4:
        cut = rng.randrange(2, len(word) - 1)
        words[at] = word[:cut] + (
            word[cut + 1 :] if rng.random() < 0.5 else word[cut + 1] + word[cut] + word[cut + 2 :]
        )
    return " ".join(words)


class Desk:
    """Writes rows of one kind, training or held-out: what it may say depends on which."""

    def __init__(self, heldout: bool, rng: random.Random):
        self.heldout, self.rng, self.decks = heldout, rng, {}

    def allowed(self, lines: list, held_back: int) -> list:
        return lines[-held_back:] if self.heldout else lines[:-held_back]

    def deal(self, language: str, list_name: str) -> str:
        """The next wording off a shuffled list, so that all of them are met about equally often."""
        lines = BOOKS[language][list_name].splitlines()
        deck = self.decks.setdefault((language, list_name), [])
        if not deck:
            deck += self.rng.sample(lines, len(lines))
        return deck.pop()

    def one_of(self, language: str, list_name: str) -> str:
        return self.rng.choice(BOOKS[language][list_name].split("|"))

    def slots(self, language: str, intent: str) -> dict[str, str]:
        rng, column = self.rng, LANGUAGES.index(language)
        things = self.allowed(THINGS, THINGS_HELD_BACK)
        clothes = self.allowed(CLOTHES, CLOTHES_HELD_BACK)
        products = {"exchange": clothes, "damaged": things}.get(intent, things + clothes)
        town = rng.choice(self.allowed(BOOKS[language]["town"].split("|"), PLACES_HELD_BACK))
        place = {"n": rng.randrange(2, 90), "zip": rng.randrange(10000, 99999), "town": town}
        return noun_slots(language, rng.choice(products)[column]) | {
            "name": rng.choice(self.allowed(NAMES, NAMES_HELD_BACK)),
            "nick": rng.choice(NICKS.split("|")),
            "size": str(rng.randrange(36, 48, 2)),
            "colour": self.one_of(language, "colour"),
            "address": self.one_of(language, "address").format_map(place),
            "day": str(rng.randrange(2, 29)),
            "month": self.one_of(language, "month"),
            "year": str(rng.randrange(2012, 2025)),
            "phone": f"555-01{rng.randrange(100):02}",
            "pounds": f"£{rng.randrange(9, 120)}.{rng.choice(['00', '50', '90'])}",
            "euros": f"{rng.randrange(9, 120)},{rng.choice(['00', '50', '90'])} €",
        }

    def message(self, language: str, intent: str, urgency: str, order: str | None) -> str:
        rng, slots = self.rng, self.slots(language, intent)
        if order:
            letter, digits = order.split("-")
            written = rng.choice([order, order, order, letter + digits, f"{letter} {digits}"])
            slots["id"] = written.lower() if rng.random() < 0.15 else written
        request = self.deal(language, intent)
        inline = order and ("{num}" in request or ("{ref}" in request and rng.random() < 0.5))
        slots["ref"] = self.one_of(language, "ref").format_map(slots) if inline else ""
        slots["num"] = self.one_of(language, "num").format_map(slots) if inline else ""
        parts = [request]
        if order and not inline:
            parts.insert(rng.choice([0, 1, 1]), self.one_of(language, "order"))
        if not order and intent != "account" and rng.random() < 0.15:
            parts.append(self.one_of(language, "no_order"))
        if rng.random() < (0.05 if order else 0.15):
            about_a_product = "{ref}" in request
            parts.append(self.one_of(language, "bought" if about_a_product and rng.random() < 0.6 else "aside"))
        if urgency != "normal":
            parts.insert(rng.choice([0, len(parts), len(parts), len(parts)]), self.deal(language, urgency))
        sentences = [part.format_map(slots) for part in parts]
        text = " ".join(sentence[0].upper() + sentence[1:] for sentence in sentences)
        return self.dressed(text, language, slots)

    def dressed(self, text: str, language: str, slots: dict[str, str]) -> str:
        rng = self.rng
        if rng.random() < 0.1:
            hello = self.one_of(language, "hello")
            if hello.endswith(",") and text[:2] not in ("I ", "I'"):
                text = text[0].lower() + text[1:]
            text = f"{hello} {text}"
        if rng.random() < 0.1:
            text += rng.choice([" ", "\n"]) + self.one_of(language, "bye").format_map(slots)
        manner = rng.random()
        if manner < 0.15:
            return as_typed_in_a_hurry(text, language, rng)
        return with_a_typo(text, rng) if manner < 0.30 else text


def rows(count: int, desk: Desk, messages_seen: set[str], orders_seen: set[str]) -> list[dict[str, str]]:
    """`count` rows, languages and intents in equal parts."""
    rng, made = desk.rng, []
    for i in range(count):
        language, intent = LANGUAGES[i % 2], INTENTS[i // 2 % 8]
        while True:
            order = f"{rng.choice('ABCDEFGHKLMNPRSTVWXZ')}-{rng.randrange(1000, 10000)}"
            if order in orders_seen or rng.random() < (0.6 if intent == "account" else 0.2):
                order = None
            urgency = rng.choices(["low", "normal", "high"], [30, 40, 30])[0]
            message = desk.message(language, intent, urgency, order)
            letters = "".join(c for c in message.casefold() if c.isalnum())
            if letters not in messages_seen:
                break
        messages_seen.add(letters)
        orders_seen.add(order or "")
        answer = {"intent": intent, "order": order, "urgency": urgency}
        made.append({"prompt": message, "completion": json.dumps(answer, separators=(",", ":"))})
    rng.shuffle(made)
    return made


def main() -> None:
    rng = random.Random(SEED)
    messages_seen, orders_seen = set(), set()
    for name, count, heldout in (
        ("support_tickets", TRAIN_ROWS, False),
        ("support_tickets.heldout", HELDOUT_ROWS, True),
    ):
        path = Path(__file__).with_name(f"{name}.jsonl")
        made = rows(count, Desk(heldout, rng), messages_seen, orders_seen)
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in made), encoding="utf-8")
        print(f"{path}: {count} rows")


if __name__ == "__main__":
    main()
