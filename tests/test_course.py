"""What a training carries over a resume, and when it says that it has diverged: without torch."""

import math
import random
from pathlib import Path

from runner.course import Course, Divergence
from spool.protocol.training import EarlyStopping


def tripped(losses: list[float], factor: float = 3) -> int | None:
    divergence = Divergence()
    return next((step for step, loss in enumerate(losses, 1) if divergence.add(loss, factor)), None)


def test_the_noise_of_tiny_data_is_no_divergence() -> None:
    rng = random.Random(1)
    for _ in range(40):
        level = rng.choice([0.01, 0.1, 1.0, 3.0])  # learnt by heart ... hardly learnt
        spread = rng.choice([0.3, 1.0, 1.5])  # of the logarithm: at 1.5 a row in a hundred is 30 times the median
        noise = [math.exp(rng.gauss(0, spread)) * (1 + 3 * math.exp(-step / 30)) for step in range(4000)]
        losses = [min(12.5, level * each) for each in noise]  # the loss of guessing among Gemma's 262,144 tokens
        assert tripped(losses) is None, (level, spread)
    spikes = [0.01 + 8 * (step % 40 == 0) for step in range(4000)]
    assert tripped(spikes) is None


def test_a_loss_that_runs_away_is_seen_within_some_hundred_steps() -> None:
    rng = random.Random(2)
    good = [max(0.3, 3 - step / 60) + rng.gauss(0, 0.1) for step in range(300)]
    for bad in (7.0, 12.0, 200.0):
        step = tripped(good + [bad + rng.gauss(0, 0.5) for _ in range(300)])
        assert step is not None
        assert 300 < step <= 400, step
    assert tripped(good + [7.0] * 20 + good[-200:] * 3) is None  # it comes back by itself
    assert tripped([20.0] * 1000) is None  # never better, so not worse either
    assert tripped(good + [7.0] * 300, factor=30) is None


def test_everything_comes_back_bit_for_bit(tmp_path: Path) -> None:
    course = Course(tokens=7, trained_s=0.1 + 0.2, step_s=1 / 3)
    for n in range(120):
        course.divergence.add(1 / (n + 1), 3)
    course.evaluated(0.1 + 0.7, 12, EarlyStopping())
    course.evaluated(1.0, 24, EarlyStopping())
    course.owes_evaluation = True
    course.write(tmp_path)
    assert Course.read(tmp_path) == course
    assert Course.read(tmp_path / "absent") == Course()


def test_patience_counts_evaluations_that_are_not_better() -> None:
    stopping = EarlyStopping(patience=2, min_delta=0.1)
    course = Course()
    assert course.evaluated(math.nan, 1, stopping) is False
    assert course.best is None
    assert [course.evaluated(loss, step, stopping) for step, loss in enumerate([2.0, 1.95, 1.5, 1.45], 2)] == [
        True,
        False,
        True,
        False,
    ]
    assert (course.best, course.bad_evaluations, course.ended_early) == ((1.5, 4), 1, None)
    course.evaluated(math.inf, 6, stopping)
    assert course.ended_early == "the eval loss has not fallen for 2 evaluations"
    assert Course().evaluated(1.0, 1, None) is False
