"""What curves mean in plain words: each rule, at its threshold and just below."""

import json
import math
import random
from typing import Any

import numpy as np
import pytest

from pages.parts import texts
from pages.parts.run import bulk, verdict
from pages.parts.run.columns import Columns, Growing
from pages.parts.run.verdict import Finding
from spool.protocol import metrics


def run(losses: list[float], evals: dict[int, float] | None = None) -> Columns:
    rows: list[dict[str, Any]] = [{"step": step, "loss": loss} for step, loss in enumerate(losses, start=1)]
    rows += [{"step": step, "eval_loss": loss} for step, loss in (evals or {}).items()]
    growing = Growing()
    growing.append(bulk.parse(b"".join(json.dumps(metrics.finite(row)).encode() + b"\n" for row in rows)))
    return growing.snapshot()


def rules(*run_of: Any, state: str = "running") -> list[str]:
    return [found.rule for found in verdict.judge(run(*run_of), state)]


FALLING = [4 - 0.02 * step for step in range(100)]


def test_nothing_measured_says_nothing() -> None:
    assert verdict.judge(Columns()) == []


def test_too_early_below_twenty_losses() -> None:
    assert rules(FALLING[:19]) == ["early"]
    assert rules(FALLING[:20]) == ["improving"]


def test_a_loss_that_is_no_number_goes_before_all_else() -> None:
    assert verdict.judge(run([*FALLING[:5], math.nan, 1.0])) == [Finding("not_finite", "bad", {"step": 6})]


def test_improving_tells_the_last_two_quarters() -> None:
    (found,) = verdict.judge(run(FALLING))
    before, now = sum(FALLING[50:75]) / 25, sum(FALLING[75:]) / 25
    assert found == Finding("improving", "good", {"before": pytest.approx(before), "now": pytest.approx(now)})


@pytest.mark.parametrize(("risen", "rule"), [(1.51, "diverging"), (1.49, "flat")])
def test_diverging_is_half_as_much_again(risen: float, rule: str) -> None:
    losses = [2.0] * 60 + [2.0 * risen] * 20
    assert rules(losses) == [rule]


def test_a_loss_near_zero_does_not_diverge_by_its_ratio() -> None:
    assert rules([0.01] * 60 + [0.4] * 20) == ["flat"]
    assert rules([0.01] * 60 + [0.6] * 20) == ["diverging"]


def test_overfitting_is_three_evaluations_above_the_best() -> None:
    good = {20: 2.0, 40: 1.0}
    assert rules(FALLING, good | {60: 1.1, 80: 1.2}) == ["improving"]
    (found,) = verdict.judge(run(FALLING, good | {60: 1.1, 80: 1.2, 100: 1.3}))
    assert found == Finding("overfitting", "bad", {"count": 3, "best": 1.0, "step": 40})
    assert rules(FALLING, good | {60: 1.1, 80: 1.2, 100: 1.009}) == ["improving"], "within a hundredth of the best"


@pytest.mark.parametrize("share", [0.3, 0.5, 0.75])
def test_flat_says_how_much_of_the_end_is_flat(share: float) -> None:
    flat = round(200 * share)
    losses = [3 - 2 * step / (200 - flat) for step in range(200 - flat)] + [1.0] * flat
    assert verdict.flat_share(np.array(losses)) == pytest.approx(share, abs=0.1)


def test_a_quarter_is_the_least_that_counts_as_flat() -> None:
    assert verdict.flat_share(np.array([3 - 2 * step / 170 for step in range(170)] + [1.0] * 30)) == 0


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("count", [60, 400, 30_000])
def test_noise_is_flat_and_a_fall_below_noise_is_not(count: int, seed: int) -> None:
    noise = np.random.default_rng(seed)
    still = 1 + noise.normal(0, 0.3, count)
    assert verdict.flat_share(still) >= 0.5
    falling = 3 - 2 * np.arange(count) / count + noise.normal(0, 0.1, count)
    assert verdict.flat_share(falling) == 0


def test_done_says_how_much_better_and_what_to_do_next_time() -> None:
    evals = {50: 2.0, 100: 0.5}
    found = verdict.judge(run(FALLING, evals), "done")
    assert found[0] == Finding("ended_eval", "good", {"first": 2.0, "last": 0.5, "lower": 0.75})
    assert found[1].rule == "improving_done"
    assert rules(FALLING, state="done") == ["ended_loss", "improving_done"]
    assert rules([*FALLING[::2], *[1.0] * 60], state="done") == ["ended_loss", "flat_done"]
    assert rules(FALLING[::-1][:30], state="done")[0] == "ended_worse"
    assert rules(FALLING[:10], state="done") == []
    assert rules(FALLING[:10], {5: 2.0, 10: 1.5}, state="done") == ["ended_eval"]


@pytest.mark.parametrize("language", list(texts.LANGUAGES))
def test_every_rule_has_its_words(language: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(texts, "_asked", lambda: language)
    noise = random.Random(1)
    cases = [
        run(FALLING), run(FALLING[:5]), run([1.0] * 50), run([2.0] * 60 + [4.0] * 20), run([math.nan]),
        run(FALLING, {10: 1.0, 20: 2.0, 30: 2.0, 40: 3.0}), run([noise.random() for _ in range(50)]),
    ]  # fmt: skip
    said = [
        verdict.words(found) for each in cases for state in ("running", "done") for found in verdict.judge(each, state)
    ]
    assert len(said) >= len(cases)
    assert all("{" not in each and each.endswith(".") for each in said)


def test_words_are_whole_sentences() -> None:
    (found,) = verdict.judge(run([*FALLING, *[FALLING[-1]] * 100]))
    assert verdict.words(found).startswith("**Flat for the last 5")
    overfitting = Finding("overfitting", "bad", {"count": 3, "best": 0.4213, "step": 1200})
    assert "3 evaluations in a row have not beaten the best, 0.4213 at step 1,200" in verdict.words(overfitting)
