"""Which languages a file is written in."""

import pytest

from spool.data.judging import language as judging
from spool.data.judging.language import LONGEST_CHARACTERS, _identifier, language, languages, name

SENTENCES = {
    "en": "Where is my order? I have been waiting for it since last week.",
    "de": "Wo ist meine Bestellung? Ich warte seit letzter Woche darauf.",
    "fr": "Où est ma commande ? Je l'attends depuis la semaine dernière.",
    "es": "¿Dónde está mi pedido? Lo estoy esperando desde la semana pasada.",
    "it": "Dove si trova il mio ordine? Lo aspetto dalla settimana scorsa.",
    "pl": "Gdzie jest moje zamówienie? Czekam na nie od zeszłego tygodnia.",
    "tr": "Siparişim nerede? Geçen haftadan beri bekliyorum.",
    "ru": "Где мой заказ? Я жду его с прошлой недели.",
    "ar": "أين طلبي؟ أنا أنتظره منذ الأسبوع الماضي.",
    "zh": "我的订单在哪里？我从上周就开始等了。",
    "ja": "私の注文はどこですか？先週から待っています。",
    "ko": "제 주문은 어디에 있나요? 지난주부터 기다리고 있습니다.",
    "hi": "मेरा ऑर्डर कहाँ है? मैं पिछले हफ्ते से इंतज़ार कर रहा हूँ।",
}


@pytest.mark.parametrize("code", SENTENCES)
def test_a_sentence_is_enough(code: str) -> None:
    assert language(SENTENCES[code]) == code


@pytest.mark.parametrize(
    "text", ["", "   ", "12345 67", "ok", "!!! ???", "🙂🙂🙂", "asdkjh qwlekj zxcmnb qwe", "{}[];"]
)
def test_too_little_to_say(text: str) -> None:
    assert language(text) == "und"


def test_languages_are_counted_the_most_frequent_first() -> None:
    texts = [SENTENCES["de"]] * 3 + [SENTENCES["en"]] * 5 + ["42", SENTENCES["fr"]]
    assert languages(texts) == [("en", 5), ("de", 3), ("fr", 1), ("und", 1)]
    assert languages(iter([])) == []


def test_every_language_that_matters_has_a_name() -> None:
    assert name("de") == "German"
    assert name("und") == "not recognised"
    assert name("xyz") == "xyz"
    unnamed = [code for code in _identifier().labels if name(code) == code]
    assert len(unnamed) <= 20, unnamed


def test_only_the_beginning_of_a_long_text_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []

    class Counting:
        def classify(self, text: str) -> tuple[str, float]:
            read.append(len(text))
            return identifier.classify(text)

    identifier = _identifier()
    monkeypatch.setattr(judging, "_identifier", Counting)
    assert language(SENTENCES["en"] * 20_000) == "en"
    assert read == [LONGEST_CHARACTERS]
