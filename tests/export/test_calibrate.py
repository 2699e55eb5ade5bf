"""The limit's statistics against simulation: what it promises is what happens."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from export.calibrate import calibrate, confidence, parts_needed, prediction


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
        heavy = 1.0 + 0.05 * rng.standard_t(2, size=n)
        assert calibrate([heavy], 0.01).good_rejected <= 0.01 * (n + 1)


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


def test_too_few_parts_for_the_rate_is_said() -> None:
    calibration = calibrate([draw(np.random.default_rng(3), 100)], 0.005)
    assert parts_needed(0.005) == 600
    assert calibration.extrapolated
    assert "600" in calibration.remarks[0]
    enough = calibrate([draw(np.random.default_rng(3), 600)], 0.005)
    assert not enough.extrapolated
    assert not enough.remarks


def test_folds_that_differ_are_said() -> None:
    rng = np.random.default_rng(4)
    same = [draw(rng, 40) for _ in range(5)]
    assert not any("folds differ" in remark for remark in calibrate(same, 0.1).remarks)
    same[2] = same[2] + 1.0
    assert any("folds differ" in remark for remark in calibrate(same, 0.1).remarks)


@given(scale=st.floats(1e-3, 1e3))
@settings(max_examples=30, deadline=None)
def test_threshold_scales_with_the_scores(scale: float) -> None:
    scores = draw(np.random.default_rng(5), 90)
    plain = calibrate([scores], 0.01)
    scaled = calibrate([scores * scale], 0.01)
    assert scaled.threshold == pytest.approx(plain.threshold * scale, rel=1e-9)
    assert scaled.quantiles.q50 == pytest.approx(plain.quantiles.q50, rel=1e-9)


@given(n=st.integers(10, 400), share=st.floats(0, 1), m=st.integers(1, 300))
@settings(max_examples=60, deadline=None)
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
