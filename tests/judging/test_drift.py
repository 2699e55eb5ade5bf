"""The drift watch keeps its false-alarm rate and is quick; all by seeded simulation."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import pytest

from inspector.detection.manifest import Calibration, Quantiles
from inspector.judging import drift
from inspector.verdict import Verdict

Draw = Callable[[np.random.Generator, int], np.ndarray]
RATE = 0.01
FALSE_ALARM = 100_000


def normal(rng: np.random.Generator, n: int) -> np.ndarray:
    return rng.standard_normal(n)


def skewed(rng: np.random.Generator, n: int) -> np.ndarray:
    return (rng.gumbel(size=n) - 0.5772) / 1.2825


def coarse(rng: np.random.Generator, n: int) -> np.ndarray:
    return np.round(rng.standard_normal(n))


def calibration(scores: Iterable[float], *, good_parts: int = 0) -> Calibration:
    scores = tuple(sorted(float(score) for score in scores))
    points = np.quantile(scores, [0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0])
    return Calibration(
        method="",
        pooling="",
        target_false_reject=RATE,
        good_parts=good_parts or len(scores),
        good_rejected=0,
        threshold=1.0,
        interval=(0.0, 0.1),
        predicted_next=1000,
        predicted_rejects=(0, 100),
        extrapolated=True,
        quantiles=Quantiles(**dict(zip(Quantiles.model_fields, points, strict=True))),
        scores=() if good_parts else scores,
    )


class Line:
    """Good parts whose limit lies at the true quantile; shifts are in standard deviations."""

    def __init__(self, draw: Draw, seed: int, parts: int = 150) -> None:
        self._draw = draw
        self._rng = np.random.default_rng([seed, parts])
        far = np.quantile(draw(np.random.default_rng(0), 100_000), 1 - RATE)
        self._centre, self._unit = 0.85, 0.15 / far
        self.calibration = calibration(self.scores(parts))

    def scores(self, n: int, shift: np.ndarray | float = 0.0) -> np.ndarray:
        return np.maximum(0.0, self._centre + self._unit * (self._draw(self._rng, n) + shift))


def run(watch: drift.Watch, scores: np.ndarray) -> tuple[int | None, int]:
    """Parts until the alarm (None: none came), and parts rejected by then."""
    rejected = 0
    for number, score in enumerate(scores, start=1):
        if score >= 1.0:
            rejected += 1
            assert not watch.note(Verdict.FAIL, float(score))
        elif watch.note(Verdict.PASS, float(score)):
            return number, rejected
    return None, rejected


@pytest.mark.parametrize("draw", [normal, skewed, coarse])
@pytest.mark.parametrize("parts", [20, 150])
def test_false_alarms_are_as_rare_as_named(draw: Draw, parts: int) -> None:
    promised, lengths = 200, []
    for seed in range(40):
        line = Line(draw, seed, parts)
        watch = drift.Watch(line.calibration, promised)
        # Cut off, so that the mean is too low rather than too high.
        alarm, _ = run(watch, line.scores(5 * promised))
        lengths.append(5 * promised if alarm is None else alarm)
    assert np.mean(lengths) > promised


def test_a_calibration_that_was_unlucky_raises_no_alarm() -> None:
    """150 parts are never quite the truth: what is tested must not be their sampling error."""
    alarms = 0
    for seed in range(20):
        line = Line(normal, seed)
        alarm, _ = run(drift.Watch(line.calibration, FALSE_ALARM), line.scores(5000))
        alarms += alarm is not None
    assert alarms <= 1


@pytest.mark.parametrize("draw", [normal, skewed])
def test_half_a_deviation_is_found_before_false_rejects_pile_up(draw: Draw) -> None:
    """After a shift of 0.5 the rate of false rejects is two to three times the one promised."""
    found, rejected = [], []
    for seed in range(20):
        line = Line(draw, seed)
        watch = drift.Watch(line.calibration, FALSE_ALARM)
        assert run(watch, line.scores(1500))[0] is None
        alarm, rejects = run(watch, line.scores(2000, 0.5))
        assert alarm is not None
        found.append(alarm)
        rejected.append(rejects)
    assert np.median(found) < 200
    assert max(found) < 600
    assert np.mean(rejected) < 6


def test_slow_drift_is_found_before_false_rejects_double() -> None:
    """One deviation in 20,000 parts: at the alarm fewer were rejected than twice the promise."""
    ratios = []
    for seed in range(6):
        line = Line(normal, seed)
        watch = drift.Watch(line.calibration, FALSE_ALARM)
        alarm, rejects = run(watch, line.scores(20_000, np.linspace(0.0, 1.0, 20_000)))
        assert alarm is not None
        ratios.append(rejects / (RATE * alarm))
    assert np.mean(ratios) < 2.0


def test_drift_that_came_while_the_station_was_off_is_found() -> None:
    found = []
    for seed in range(15):
        line = Line(normal, seed)
        alarm, _ = run(drift.Watch(line.calibration, FALSE_ALARM), line.scores(1000, 1.0))
        assert alarm is not None
        found.append(alarm)
    assert np.median(found) < 60


def test_lower_scores_and_tiny_shifts_are_no_drift() -> None:
    for seed in range(4):
        for shift in (-1.0, 0.05):
            line = Line(normal, seed)
            assert (
                run(drift.Watch(line.calibration, FALSE_ALARM), line.scores(4000, shift))[0] is None
            )


def test_defects_are_no_drift() -> None:
    line = Line(normal, 0)
    watch = drift.Watch(line.calibration, FALSE_ALARM)
    for score in line.scores(500):
        watch.note(Verdict.FAIL, 3.0)
        watch.note(Verdict.FAULT, None)
        watch.note(Verdict.PASS, min(float(score), 0.99))
    assert watch.parts == 500
    assert not watch.alarm


def test_the_alarm_is_told_once_and_stands() -> None:
    line = Line(normal, 1)
    watch = drift.Watch(line.calibration, FALSE_ALARM)
    assert (watch.alarm, watch.statistic, watch.parts, watch.detail()) == (False, 0.0, 0, "")
    assert run(watch, line.scores(2000, 1.5))[0] is not None
    assert watch.alarm
    assert watch.statistic == 1.0
    assert "calibrated" in watch.detail()
    assert not any(watch.note(Verdict.PASS, 0.99) for _ in range(200))
    assert watch.alarm


def test_the_statistic_grows_towards_the_alarm() -> None:
    line = Line(normal, 2)
    watch = drift.Watch(line.calibration, FALSE_ALARM)
    seen = []
    for score in line.scores(300, 0.8):
        if score < 1.0:
            watch.note(Verdict.PASS, float(score))
            seen.append(watch.statistic)
    assert 0.0 <= min(seen) < 0.3
    assert max(seen) == 1.0


def test_the_operators_factor_changes_no_unit() -> None:
    """A verdict's score is in units of the limit in force, the calibration's of its own."""
    for factor in (0.9, 1.5):
        line = Line(normal, 3)
        watch = drift.Watch(line.calibration, FALSE_ALARM, factor)
        scores = line.scores(2000) / factor
        assert run(watch, scores)[0] is None
        assert run(watch, line.scores(2000, 1.0) / factor)[0] is not None


def test_an_older_bundle_is_watched_by_its_quantiles() -> None:
    line = Line(normal, 4)
    older = calibration(line.calibration.scores, good_parts=150)
    made_up = drift.reference(older)
    assert len(made_up) == 150
    assert np.median(made_up) == pytest.approx(np.median(line.calibration.scores), abs=0.01)
    watch = drift.Watch(older, FALSE_ALARM)
    assert run(watch, line.scores(3000))[0] is None
    assert run(watch, line.scores(2000, 1.0))[0] is not None


def test_zero_is_no_watch() -> None:
    watch = drift.Watch(Line(normal, 5).calibration, 0)
    assert not any(watch.note(Verdict.PASS, 0.999) for _ in range(1000))
    assert watch.statistic == 0.0


def test_a_calibration_of_equal_scores_does_no_harm() -> None:
    watch = drift.Watch(calibration([0.5] * 30), FALSE_ALARM)
    assert not any(watch.note(Verdict.PASS, 0.5) for _ in range(2000))
    assert any(watch.note(Verdict.PASS, 0.7) for _ in range(200))
