"""The figures of a certificate, with exact expectations, and what makes an export suspect."""

import math
from typing import Any

import numpy as np
import pytest

from runner.exports import certificate
from runner.exports.certificate import Limits
from runner.exports.readers import Places, Said
from runner.exports.reference import Answered, Probe, Reference

LIMITS = Limits(equal_tokens=0.9, kl=0.1, loss=0.2)
CHAT = [{"role": "user", "content": "Hello"}]


def places(distributions: list[dict[int, float]], tokens: list[int]) -> Places:
    """From probabilities at each place."""
    rows = [sorted(each.items(), key=lambda pair: -pair[1]) for each in distributions]
    ids = np.array([[token for token, _ in row] for row in rows])
    logs = np.array([[math.log(p) for _, p in row] for row in rows])
    of = np.array([math.log(each[token]) for each, token in zip(distributions, tokens, strict=True)])
    return Places(of, ids[:, 0], ids, logs)


OURS = [{5: 0.7, 6: 0.2}, {6: 0.6, 5: 0.3}, {1: 0.9, 5: 0.05}]
SAID = [5, 6, 1]


def answered(expected: list[int] | None = None, stopped: bool = True) -> Answered:
    seen = places(OURS, SAID)
    probe = Probe([2, 9], expected if expected is not None else [6], CHAT)
    return Answered(probe, SAID, stopped, seen.ids, seen.logs, np.log([0.5] * len(probe.expected)))


class Reader:
    """Expects what it is given at the places of what the adapter said, and 0.4 of every token that was expected."""

    def __init__(self, distributions: list[dict[int, float]], said: Said | None = None) -> None:
        self.distributions = distributions
        self.said = said or Said([2, 100, 101], "Hi", 1, True)

    def read(self, ids: list[int], tokens: list[int]) -> Places:
        assert ids == [2, 9]
        if tokens == SAID:
            return places(self.distributions, tokens)
        return places([{token: 0.4, 0: 0.6} for token in tokens], tokens)

    def chat(self, messages: list[dict[str, Any]], tokens: int) -> Said:
        assert messages == CHAT
        return self.said

    def close(self) -> None:
        pass


class Encoder:
    bos_id = 2

    def generation_ids(self, messages: list[dict[str, Any]]) -> list[int]:
        return [2, 100, 101]


def test_what_expects_the_same_measures_nothing() -> None:
    found = certificate.measure(Reader(OURS), Reference([answered(), answered()], True))
    assert (found.prompts, found.places, found.equal_tokens, found.prompts_equal) == (2, 6, 1.0, 2)
    assert found.kl == pytest.approx(0, abs=1e-12)
    assert found.first_difference is None
    assert found.eval_loss == pytest.approx(-math.log(0.4))
    assert found.adapter_loss == pytest.approx(-math.log(0.5))


def test_differences_are_counted_and_divergence_is_that_of_the_text_book() -> None:
    theirs = [{5: 0.7, 6: 0.2}, {5: 0.6, 6: 0.3}, {1: 0.9, 5: 0.05}]
    found = certificate.measure(Reader(theirs), Reference([answered(), answered()], True))
    at_two = 0.6 * math.log(0.6 / 0.3) + 0.3 * math.log(0.3 / 0.6) + 0.1 * math.log(0.1 / 0.1)
    assert found.kl == pytest.approx(at_two / 3)
    assert found.equal_tokens == pytest.approx(2 / 3)
    assert (found.first_difference, found.prompts_equal) == (2.0, 0)


def test_tokens_that_the_export_does_not_tell_count_as_one() -> None:
    """The figure is then lower than the true one, never higher."""
    told = [{5: 0.7, 6: 0.1}, {6: 0.6, 5: 0.1}, {1: 0.9, 5: 0.01}]
    untold = [{5: 0.7, 8: 0.1}, {6: 0.6, 8: 0.1}, {1: 0.9, 8: 0.01}]
    full = certificate.measure(Reader(told), Reference([answered()], True)).kl
    less = certificate.measure(Reader(untold), Reference([answered()], True)).kl
    assert 0 <= less < full


def test_each_limit_makes_suspect() -> None:
    good = certificate.measure(Reader(OURS), Reference([answered(expected=[])], True))
    assert certificate.verdict(certificate.checks(good, LIMITS)) == "ready"
    assert [check.name for check in certificate.checks(good, LIMITS)] == ["tokens", "divergence"]

    worse_loss = certificate.measure(Reader(OURS), Reference([answered()], True))
    checks = certificate.checks(worse_loss, LIMITS)
    assert [check.name for check in checks if not check.passed] == ["loss"]
    assert certificate.verdict(checks) == "suspect"

    other = [{6: 0.9, 5: 0.05}, {5: 0.9, 6: 0.05}, {5: 0.9, 1: 0.05}]
    far = certificate.measure(Reader(other), Reference([answered(expected=[])], True))
    assert [check.name for check in certificate.checks(far, LIMITS) if not check.passed] == ["tokens", "divergence"]


@pytest.mark.parametrize(
    ("said", "fails"),
    [
        (Said([2, 100, 101], "Hi", 1, True), []),
        (Said([2, 2, 100, 101], "Hi", 1, True), ["template", "bos"]),
        (Said([100, 101], "Hi", 1, True), ["template", "bos"]),
        (Said([2, 100, 102], "Hi", 1, True), ["template"]),
        (Said([2, 100, 101], "Hi and on and on", 64, False), ["stop"]),
    ],
)
def test_template_bos_and_stop_are_asked_for(said: Said, fails: list[str]) -> None:
    checks = certificate.spoken(Reader(OURS, said), Reference([answered()] * 8, True), Encoder())  # type: ignore[arg-type]
    assert [check.name for check in checks if not check.passed] == fails


def test_an_adapter_that_never_stops_is_not_asked_to(  # its answers are long, or it has not learned to
) -> None:
    endless = Said([2, 100, 101], "Hi", 64, False)
    checks = certificate.spoken(Reader(OURS, endless), Reference([answered(stopped=False)], True), Encoder())  # type: ignore[arg-type]
    assert [check.name for check in checks] == ["template", "bos"]


def test_the_document_names_what_failed() -> None:
    found = certificate.measure(Reader(OURS), Reference([answered(expected=[])], False))
    checks = certificate.checks(found, Limits(1.0, -1, 0))
    document = certificate.document("merged", "ab", checks, found, False, made_at="now")
    assert document["verdict"] == "suspect"
    assert document["manifest_sha256"] == "ab"
    assert [check["name"] for check in document["checks"] if not check["passed"]] == ["divergence"]
    assert document["measured"]["places"] == 3
    assert document["held_out"] is False
