"""The limit's statistics against simulation: what it promises is what happens."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from export.training.calibrate import (
    auto_rate,
    calibrate,
    confidence,
    find_limit,
    parts_needed,
    prediction,
)


def draw(rng: np.random.Generator, n: int) -> np.ndarray:
    return 1.0 + 0.1 * rng.gumbel(size=n)


@pytest.mark.parametrize(("n", "rate"), [(700, 0.005), (100, 0.03), (100, 0.01), (200, 0.005)])
def test_rate_reached_is_near_the_rate_asked(n: int, rate: float) -> None:
    rng = np.random.default_rng(0)
    reached = []
    for _ in range(200):
        limit = calibrate([draw(rng, n)], rate).threshold
        # The Gumbel distribution's own tail, not another sample.
        reached.append(1.0 - np.exp(-np.exp(-(limit - 1.0) / 0.1)))
    assert rate / 2 < np.mean(reached) < rate * 2


@pytest.mark.parametrize("n", [110, 209, 299, 600])
def test_held_out_parts_keep_the_rate_even_where_the_tail_is_heavy(n: int) -> None:
    rng = np.random.default_rng(6)
    for _ in range(50):
        # A score is a distance.
        heavy = np.maximum(1.0 + 0.05 * rng.standard_t(2, size=n), 0.0)
        assert calibrate([heavy], 0.01).good_rejected <= 0.01 * (n + 1)


@pytest.mark.parametrize(
    ("scores", "rejected"),
    [
        (np.full(400, 2.0), 0),
        (np.append(np.linspace(1.0, 2.0, 370), np.full(30, 2.5)), 0),
        (np.concatenate([np.linspace(1.0, 2.0, 368), np.full(30, 2.5), [3.5, 3.6]]), 2),
        (np.append(np.linspace(1.0, 2.0, 396), np.full(4, 2.5)), 4),
        (np.append(np.full(396, 2.0), np.full(4, np.nextafter(2.0, 3.0))), 4),
    ],
)
def test_held_out_parts_keep_the_rate_where_their_scores_tie(
    scores: np.ndarray, rejected: int
) -> None:
    calibration = calibrate([scores], 0.01)
    assert not calibration.extrapolated
    assert calibration.good_rejected == rejected
    if rejected == 2:
        assert calibration.threshold == 3.0


def test_a_limit_above_the_highest_scores_lies_beyond_rounding() -> None:
    limit = calibrate([np.full(400, 2.0)], 0.01).threshold
    assert np.float32(2.0) / np.float32(limit) < 1.0
    assert limit == pytest.approx(2.0, rel=0.01)


@pytest.mark.parametrize(("n", "rate"), [(700, 0.005), (320, 0.01), (40, 0.2)])
def test_no_held_out_part_lies_on_the_limit(n: int, rate: float) -> None:
    scores = np.sort(draw(np.random.default_rng(9), n))
    allowed = int(rate * (n + 1))
    limit = calibrate([scores], rate).threshold
    gap = scores[-allowed] - scores[-allowed - 1]
    assert scores[-allowed - 1] + 0.249 * gap < limit < scores[-allowed - 1] + 0.751 * gap


def test_limit_is_neither_the_smallest_good_score_nor_rejects_everything() -> None:
    scores = draw(np.random.default_rng(1), 60)
    calibration = calibrate([scores], 0.005)
    assert calibration.threshold > np.quantile(scores, 0.95)
    assert calibration.good_rejected <= 2


@pytest.mark.parametrize("n", [80, 400])
def test_prediction_interval_covers_what_the_next_parts_do(n: int) -> None:
    rng = np.random.default_rng(2)
    covered = 0
    for _ in range(300):
        calibration = calibrate([draw(rng, n)], 0.02, next_parts=100)
        rejected = int((draw(rng, 100) >= calibration.threshold).sum())
        low, high = calibration.predicted_rejects
        covered += low <= rejected <= high
    assert covered / 300 > 0.93


@pytest.mark.parametrize(
    ("rejected", "n", "next_parts", "expected"),
    [(4, 400, 1000, (1, 28)), (0, 60, 200, (0, 13)), (2, 150, 1000, (1, 49))],
)
def test_prediction_interval_to_the_part(
    rejected: int, n: int, next_parts: int, expected: tuple[int, int]
) -> None:
    # Computed from the beta-binomial's probabilities as exact fractions.
    assert prediction(rejected, n, next_parts) == expected


def test_too_few_parts_for_the_rate_is_said() -> None:
    calibration = calibrate([draw(np.random.default_rng(3), 100)], 0.005)
    assert parts_needed(0.005) == 199
    assert calibration.extrapolated
    assert "100 photos can tell 1 good part in 100, and 0.50% was asked" in calibration.remarks[0]
    assert "from 199 photos on it is counted" in calibration.remarks[0]
    enough = calibrate([draw(np.random.default_rng(3), 199)], 0.005)
    assert not enough.extrapolated
    assert not enough.remarks


SHAPES = {
    "gumbel": stats.gumbel_r(2.0, 0.3),
    "normal": stats.norm(2.0, 0.3),
    "exponential": stats.expon(1.0, 0.5),
    "gamma": stats.gamma(4.0),
    "lognormal": stats.lognorm(0.5),
}


@pytest.mark.parametrize("shape", sorted(SHAPES))
@pytest.mark.parametrize(
    ("n", "rate"),
    [
        *[(12, None), (31, None), (150, None), (600, None)],
        *[(31, 0.005), (50, 0.01), (120, 0.005), (230, 0.005)],
    ],
)
def test_mean_false_rejects_stay_within_one_and_a_half_of_what_was_promised(
    shape: str, n: int, rate: float | None
) -> None:
    rng = np.random.default_rng([n, 11])
    promised = auto_rate(n) if rate is None else rate
    samples = np.sort(np.maximum(SHAPES[shape].rvs(size=(400, n), random_state=rng), 0.0))
    reached = SHAPES[shape].sf([find_limit(scores, promised) for scores in samples]).mean()
    assert reached < 1.5 * promised
    if rate is None:
        # An auto limit is no higher than it must be, whatever the distribution.
        assert reached > promised / 1.5


@pytest.mark.parametrize("n", [10, 31, 150])
def test_the_auto_limit_lies_just_over_the_highest_part(n: int) -> None:
    scores = draw(np.random.default_rng(12), n)
    calibration = calibrate([], None, vouched=[scores])
    assert calibration.automatic
    assert calibration.asked is None
    assert not calibration.extrapolated
    assert scores.max() < calibration.threshold < 1.01 * scores.max()
    assert calibration.target_false_reject == 1 / (n + 1)
    assert f"about 1 good part in {n} may be rejected" in calibration.remarks[0]
    more = {10: 150, 31: 150, 150: 200}[n]
    assert f"{more} photos allow 1 in {more}" in calibration.remarks[0]


def test_the_auto_limit_does_not_creep_up_with_ever_more_parts() -> None:
    scores = draw(np.random.default_rng(13), 2000)
    calibration = calibrate([], None, vouched=[scores])
    assert calibration.target_false_reject == 0.005
    assert 9 <= calibration.good_rejected <= 10
    assert calibration.remarks == ("about 1 good part in 200 may be rejected",)


STRAYS = [30.0, 40.0]


def test_parts_that_look_unlike_the_others_set_no_auto_limit() -> None:
    usual = 10.0 + np.random.default_rng(15).normal(size=100)
    alone = calibrate([usual], None)
    calibration = calibrate([np.concatenate([STRAYS, usual])], None)
    assert calibration.threshold == alone.threshold
    assert calibration.strays == calibration.good_rejected == 2
    assert calibration.target_false_reject == pytest.approx(3 / 103)
    assert "2 of 102 good parts look unlike the others" in calibration.remarks[0]
    low, high = calibration.interval
    assert low < 3 / 103 < high


def test_parts_that_a_person_calls_good_are_allowed_for() -> None:
    usual = 10.0 + np.random.default_rng(15).normal(size=100)
    calibration = calibrate([usual], None, vouched=[np.array(STRAYS)])
    assert calibration.threshold > 40.0
    assert (calibration.strays, calibration.good_rejected) == (0, 0)
    assert calibration.good_parts == 102
    everything = calibrate([], None, vouched=[np.concatenate([STRAYS, usual])])
    assert everything.threshold == calibration.threshold


def test_a_named_rate_allows_for_all_parts() -> None:
    usual = 10.0 + np.random.default_rng(15).normal(size=100)
    calibration = calibrate([np.concatenate([STRAYS, usual])], 0.01)
    assert calibration.threshold > 30.0
    assert calibration.strays == 0


def test_where_many_look_unlike_the_others_they_are_what_the_parts_are_like() -> None:
    usual = 10.0 + np.random.default_rng(15).normal(size=100)
    calibration = calibrate([np.concatenate([np.linspace(30.0, 40.0, 12), usual])], None)
    assert calibration.strays == 0
    assert calibration.threshold > 40.0


@pytest.mark.parametrize("name", ["normal", "gumbel", "exponential", "heavy"])
@pytest.mark.parametrize("n", [31, 100])
def test_the_auto_limit_keeps_what_it_promises(name: str, n: int) -> None:
    """Whatever the tail: parts that are set aside are promised as rejected, too."""
    rng = np.random.default_rng(16)
    parts = {
        "normal": lambda size: 10.0 + rng.normal(size=size),
        "gumbel": lambda size: 10.0 + rng.gumbel(size=size),
        "exponential": lambda size: 5.0 + rng.exponential(size=size),
        "heavy": lambda size: 5.0 + rng.lognormal(sigma=0.8, size=size),
    }[name]
    later = np.sort(parts(100_000))
    made = [calibrate([parts(n)], None) for _ in range(300)]
    promised = np.mean([one.target_false_reject for one in made])
    reached = np.mean([1.0 - np.searchsorted(later, one.threshold) / len(later) for one in made])
    assert promised / 1.5 < reached < 1.5 * promised


def test_a_named_rate_says_what_it_costs_against_auto() -> None:
    scores = draw(np.random.default_rng(14), 31)
    drawn = np.linspace(1.0, 3.0, 41)
    auto = calibrate([scores], None, drawn=drawn)
    named = calibrate([scores], 0.005, drawn=drawn)
    assert auto.cost is not None
    assert named.cost is not None
    assert named.threshold > auto.threshold
    assert auto.cost.passed == auto.cost.passed_at_auto == (drawn < auto.threshold).sum()
    assert named.cost.passed_at_auto == auto.cost.passed
    assert named.cost.passed == (drawn < named.threshold).sum() > auto.cost.passed
    said = f"of 41 defects drawn on good parts {named.cost.passed} pass, and {auto.cost.passed}"
    assert said in named.remarks[0]


def test_folds_that_differ_are_said() -> None:
    rng = np.random.default_rng(4)
    same = [draw(rng, 40) for _ in range(5)]
    assert not any("the good parts vary" in remark for remark in calibrate(same, 0.1).remarks)
    same[2] = same[2] + 1.0
    assert any("the good parts vary" in remark for remark in calibrate(same, 0.1).remarks)


@given(scale=st.floats(1e-3, 1e3))
@settings(max_examples=30)
def test_threshold_scales_with_the_scores(scale: float) -> None:
    scores = draw(np.random.default_rng(5), 90)
    plain = calibrate([scores], 0.01)
    scaled = calibrate([scores * scale], 0.01)
    assert scaled.threshold == pytest.approx(plain.threshold * scale, rel=1e-9)
    assert scaled.quantiles.q50 == pytest.approx(plain.quantiles.q50, rel=1e-9)


@given(n=st.integers(10, 400), share=st.floats(0, 1), m=st.integers(1, 300))
@settings(max_examples=60)
def test_intervals_are_ordered_and_hold_the_estimate(n: int, share: float, m: int) -> None:
    rejected = round(n * share)
    low, high = confidence(rejected, n)
    assert 0 <= low <= rejected / n <= high <= 1
    first, last = prediction(rejected, n, m)
    assert 0 <= first <= last <= m


def test_identical_scores_leave_every_good_part_a_pass() -> None:
    calibration = calibrate([np.full(50, 2.0)], 0.005)
    assert calibration.threshold > 2.0
    assert calibration.good_rejected == 0


def test_the_scores_the_limit_rests_on_go_with_it_in_its_units() -> None:
    folds = [draw(np.random.default_rng(seed), 30) for seed in (7, 8)]
    calibration = calibrate(folds, 0.05)
    expected = np.sort(np.concatenate(folds)) / calibration.threshold
    assert calibration.scores == pytest.approx(expected, abs=1e-6)
    assert sum(score >= 1.0 for score in calibration.scores) == calibration.good_rejected
