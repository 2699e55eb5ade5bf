"""Figures of merit. Scores and maps are in units of the calibrated limit: FAIL iff score >= 1.

A figure that is undefined (no defects, no good parts, no masks) is None, never NaN.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from export.training.calibrate import confidence
from inspector.verdict import LIMIT, FloatMap

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]
AnyScores = Sequence[float] | npt.NDArray[Any]

PRO_FPR_LIMIT: Final = 0.3
"""AUPRO is integrated up to this false-positive rate, as MVTec's own evaluation does."""

SWEEP: Final = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0, 1.05, 1.1, 1.2, 1.35, 1.5, 1.75, 2.0)
"""Thresholds in the report's table: the range of the operator's sensitivity."""

_BIN_SHIFT = 8
_LOWEST = np.float32(2.0**-20)
_HIGHEST = np.nextafter(np.float32(2.0**12), np.float32(0.0))
_FIRST_BIN = int(_LOWEST.view(np.int32)) >> _BIN_SHIFT
_BINS = (int(_HIGHEST.view(np.int32)) >> _BIN_SHIFT) - _FIRST_BIN + 1

_EIGHT_NEIGHBOURS = np.ones((3, 3), dtype=np.int64)


@dataclass(frozen=True)
class Curve:
    """A curve from (0, 0) on: ``x`` is the false-positive rate, ``y`` the ROC's or PRO's value."""

    x: Floats
    y: Floats


@dataclass(frozen=True)
class Rate:
    """``hits`` of ``total`` with its 95 % Clopper-Pearson interval; None when total is 0."""

    hits: int
    total: int

    @property
    def value(self) -> float | None:
        """The share, 0..1."""
        return self.hits / self.total if self.total else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """The interval that holds the true share with 95 % confidence."""
        if not self.total:
            return None
        return confidence(self.hits, self.total)


@dataclass(frozen=True)
class KindFigures:
    """One kind of defect. ``auroc`` is against all good parts; ``faults`` could not be judged."""

    kind: str
    parts: int
    caught: int
    escaped: int
    faults: int
    auroc: float | None
    lowest_score: float | None


@dataclass(frozen=True)
class SweepRow:
    """Escapes and false rejects at one threshold."""

    threshold: float
    escapes: Rate
    false_rejects: Rate


@dataclass(frozen=True)
class PixelFigures:
    """Figures over all pixels, each within its ``_error`` of the value without binning."""

    auroc: float | None
    auroc_error: float
    aupro: float | None
    aupro_error: float
    roc: Curve | None
    pro: Curve | None


def auroc(good: AnyScores, defective: AnyScores) -> float | None:
    """Area under the ROC curve; a tie counts one half. None when either is empty."""
    _, negatives, positives = _tally(good, defective)
    return _auroc(negatives, positives)


def roc(good: AnyScores, defective: AnyScores) -> Curve | None:
    """The ROC curve with a point for each distinct score; None when either is empty."""
    if len(good) == 0 or len(defective) == 0:
        return None
    _, negatives, positives = _tally(good, defective)
    return _curve(negatives, positives)


def f1(good: AnyScores, defective: AnyScores, threshold: float = LIMIT) -> float | None:
    """F1 of "score >= threshold means defective"; None without defective parts."""
    if len(defective) == 0:
        return None
    caught = int(np.count_nonzero(np.asarray(defective) >= threshold))
    alarms = int(np.count_nonzero(np.asarray(good) >= threshold))
    return 2.0 * caught / (caught + alarms + len(defective))


def best_f1(good: AnyScores, defective: AnyScores) -> tuple[float, float] | None:
    """The highest F1 at any threshold, and the highest threshold that gives it."""
    if len(defective) == 0:
        return None
    scores, negatives, positives = _tally(good, defective)
    caught, alarms = positives[::-1].cumsum(), negatives[::-1].cumsum()
    values = 2.0 * caught / (caught + alarms + len(defective))
    best = int(values.argmax())
    return float(values[best]), float(scores[::-1][best])


def sweep(
    good: AnyScores, defective: AnyScores, thresholds: Sequence[float] = SWEEP
) -> tuple[SweepRow, ...]:
    """Escapes and false rejects at each of ``thresholds``."""
    good_scores, defective_scores = np.asarray(good), np.asarray(defective)
    return tuple(
        SweepRow(
            threshold,
            Rate(int(np.count_nonzero(defective_scores < threshold)), len(defective_scores)),
            Rate(int(np.count_nonzero(good_scores >= threshold)), len(good_scores)),
        )
        for threshold in thresholds
    )


class PixelTally:
    """Counts pixels by score, image after image, in memory that does not grow with their number.

    A float32 that is not negative sorts like its bits, so the upper 24 bits are the bin: 2^15
    bins an octave (scores are told apart to 0.003 %) from 2^-20 to 2^12 limits. The error this
    makes is bounded by the pairs that share a bin, and reported with the figure.
    """

    def __init__(self) -> None:
        self._good: Counts = np.zeros(_BINS, dtype=np.int64)
        self._defective: Counts = np.zeros(_BINS, dtype=np.int64)
        self._overlap: Floats = np.zeros(_BINS, dtype=np.float64)

    def add(self, anomaly_map: FloatMap, mask: npt.NDArray[np.bool_]) -> None:
        """Count one image: a finite float32 map ``[H, W]`` and its truth, bool ``[H, W]``."""
        if anomaly_map.shape != mask.shape:
            raise ValueError(f"map is {anomaly_map.shape}, mask is {mask.shape}")
        if not np.isfinite(anomaly_map).all():
            raise ValueError("map must be finite; leave out parts that could not be judged")
        bins = _bin(anomaly_map)
        self._good += np.bincount(bins[~mask], minlength=_BINS)
        if not mask.any():
            return
        self._defective += np.bincount(bins[mask], minlength=_BINS)
        labels, count = ndimage.label(mask, structure=_EIGHT_NEIGHBOURS)
        weights = 1.0 / np.bincount(labels[mask], minlength=count + 1)[labels[mask]]
        self._overlap += np.bincount(bins[mask], weights=weights, minlength=_BINS)

    def figures(self) -> PixelFigures:
        """The figures of all images added so far."""
        value = _auroc(self._good, self._defective)
        if value is None:
            return PixelFigures(None, 0.0, None, 0.0, None, None)
        pairs = float(self._good.sum()) * float(self._defective.sum())
        shared = float((self._good.astype(np.float64) * self._defective).sum())
        pro = _curve(self._good, self._overlap)
        area, area_error = _area_up_to(pro, PRO_FPR_LIMIT)
        return PixelFigures(
            auroc=value,
            auroc_error=0.5 * shared / pairs,
            aupro=area / PRO_FPR_LIMIT,
            aupro_error=area_error / PRO_FPR_LIMIT,
            roc=_curve(self._good, self._defective),
            pro=pro,
        )


def kind_figures(kind: str, scores: AnyScores, faults: int, good: AnyScores) -> KindFigures:
    """Figures of one kind of defect from its judged ``scores`` and the good parts'."""
    caught = int(np.count_nonzero(np.asarray(scores) >= LIMIT))
    return KindFigures(
        kind=kind,
        parts=len(scores) + faults,
        caught=caught,
        escaped=len(scores) - caught,
        faults=faults,
        auroc=auroc(good, scores),
        lowest_score=float(min(scores)) if len(scores) else None,
    )


def thin(curve: Curve, points: int = 400) -> Curve:
    """``curve`` with at most ``points`` points, as many as a drawing shows."""
    if curve.x.size <= points:
        return curve
    # Steps are even along the curve, not along x, because readers look at the steep beginning.
    length = np.concatenate(([0.0], np.cumsum(np.diff(curve.x) + np.diff(curve.y))))
    wanted = np.searchsorted(length, np.linspace(0.0, length[-1], points))
    kept = np.unique(np.clip(wanted, 0, curve.x.size - 1))
    return Curve(curve.x[kept], curve.y[kept])


def _tally(good: AnyScores, defective: AnyScores) -> tuple[Floats, Counts, Counts]:
    """Distinct scores, ascending, and how many good and defective parts have each."""
    scores: Floats = np.concatenate((np.asarray(good, float), np.asarray(defective, float)))
    if not np.isfinite(scores).all():
        raise ValueError("scores must be finite; leave out parts that could not be judged")
    distinct, where = np.unique(scores, return_inverse=True)
    negatives = np.bincount(where[: len(good)], minlength=distinct.size)
    positives = np.bincount(where[len(good) :], minlength=distinct.size)
    return distinct, negatives, positives


def _auroc(negatives: Counts, positives: Counts) -> float | None:
    """AUROC from the counts at each distinct score, ascending."""
    pairs = float(negatives.sum()) * float(positives.sum())
    if pairs == 0.0:
        return None
    below = negatives.cumsum() - negatives
    # For pixels these are whole numbers far above 2^53; only their 16th digit is rounded.
    wins = (positives * (below + 0.5 * negatives)).sum()
    return float(wins / pairs)


def _curve(negatives: Counts, positives: npt.NDArray[Any]) -> Curve:
    """Rates at or above each distinct score, from the highest down."""
    used = (negatives > 0) | (positives > 0)
    x = negatives[used][::-1].cumsum() / negatives.sum()
    y = positives[used][::-1].cumsum() / positives.sum()
    return Curve(np.concatenate(([0.0], x)), np.concatenate(([0.0], y)))


def _area_up_to(curve: Curve, x_limit: float) -> tuple[float, float]:
    """Area below ``curve`` left of ``x_limit``, and the largest error that binning can cause."""
    inside = curve.x <= x_limit
    x = np.append(curve.x[inside], x_limit)
    y = np.append(curve.y[inside], np.interp(x_limit, curve.x, curve.y))
    area = float(((y[1:] + y[:-1]) * np.diff(x)).sum() / 2.0)
    # Inside a bin the true curve may be anywhere in the bin's rectangle: the error is at most half
    # of it, measured from the diagonal, or all of it where ``x_limit`` cuts the bin.
    rectangles = np.diff(curve.x) * np.diff(curve.y)
    whole = int(inside.sum()) - 1
    return area, float(0.5 * rectangles[:whole].sum() + rectangles[whole : whole + 1].sum())


def _bin(scores: FloatMap) -> npt.NDArray[np.int32]:
    clipped = np.ascontiguousarray(np.clip(scores, _LOWEST, _HIGHEST), dtype=np.float32)
    return (clipped.view(np.int32) >> _BIN_SHIFT) - np.int32(_FIRST_BIN)
