"""The limit is set by held-out good parts alone: threshold, confidence and prediction intervals.

For the j-th largest of n exchangeable scores the next part's chance to reach it is j / (n + 1), and
rejects among the next m parts are beta-binomial (m, j, n + 1 − j), whatever the distribution: order
statistics, David & Nagaraja, "Order Statistics", 3rd ed., section 2. When n is too small for the
rate asked, the tail above the 80 % quantile is taken as exponential (peaks over threshold with
shape 0; Coles, "An Introduction to Statistical Modeling of Extreme Values", section 4.2). Where
rate · (n + 1) is 1 or more, the limit is never set so low that more of the held-out parts reach it
than the rate allows, ties or not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import stats

from inspector.detection.manifest import Calibration, Quantiles

TAIL_SHARE = 0.2
"""The exponential tail is fitted to this share of the scores, the highest."""

_LEVEL = 0.95
_ABOVE = 1.0 + 1e-3
"""Factor from a score to a limit just above it: an exported graph may differ by as much."""


def parts_needed(rate: float) -> int:
    """Number of good parts that lets a rate be counted directly: 3 / rate (rule of three, 95 %)."""
    return math.ceil(3.0 / rate)


def calibrate(
    folds: Sequence[npt.NDArray[np.float64]], rate: float, next_parts: int = 1000
) -> Calibration:
    """Set the limit for a target false-reject ``rate``.

    ``folds`` has the scores of each fold's held-out parts, one score for each picture: a copy is no
    further part (:func:`~export.data.photos.one_each`). Scores of all folds are pooled unchanged,
    because the folds' models are made by one procedure in one unit of feature distance. A held-out
    score is what a new part would score under a model of slightly fewer parts, so the limit errs to
    the tolerant side (cross-validation, CV+; Barber et al., "Predictive inference with the
    jackknife+", 2021). One fold is a plain hold-out.
    """
    scores = np.sort(np.concatenate([np.asarray(fold, dtype=np.float64) for fold in folds]))
    n = len(scores)
    needed = parts_needed(rate)
    extrapolated = n < needed
    remarks = []
    # ``own`` is the limit at which no more of the held-out parts are rejected than the rate allows.
    allowed = math.floor(rate * (n + 1))
    own = _just_over(scores, float(scores[-allowed - 1])) if allowed else 0.0
    if extrapolated:
        limit = max(_exponential_tail(scores, rate), own)
        remarks.append(
            f"the limit is estimated, for there are few photos: to count a rate of {rate:.2%} "
            f"takes about {needed} good parts that the model has not seen, and there are {n}; it "
            f"serves to start with"
        )
        method = (
            f"exponential tail over the {1 - TAIL_SHARE:.0%} quantile of held-out good scores, "
            f"but no lower than where they keep the rate themselves"
        )
    else:
        limit = own
        method = "order statistic of held-out good scores"
    pooling = "one hold-out, scored by the model in service"
    if len(folds) > 1:
        p = _fold_homogeneity(folds)
        pooling = (
            f"{len(folds)}-fold cross-fitting; scores pooled as they are, all folds' models being "
            f"in one unit of feature distance (Kruskal-Wallis over folds: p = {p:.3f})"
        )
        if p < 0.01:
            remarks.append(
                f"the good parts vary: in {len(folds)} groups, each judged by a model of the "
                f"others, scores differ more than by chance (p = {p:.4f}); the limit takes that "
                f"into account, the range of expected rejects does not"
            )
    rejected = int((scores >= limit).sum())
    quantiles = np.quantile(scores, [0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0]) / limit
    return Calibration(
        method=method,
        pooling=pooling,
        target_false_reject=rate,
        good_parts=n,
        good_rejected=rejected,
        threshold=limit,
        interval=confidence(rejected, n),
        predicted_next=next_parts,
        predicted_rejects=prediction(rejected, n, next_parts),
        extrapolated=extrapolated,
        quantiles=Quantiles(
            **dict(zip(Quantiles.model_fields, (float(q) for q in quantiles), strict=True))
        ),
        scores=tuple(round(float(score), 6) for score in scores / limit),
        remarks=tuple(remarks),
    )


def _just_over(scores: npt.NDArray[np.float64], value: float) -> float:
    """A limit that ``value`` does not reach: halfway to the next higher score, if there is one.

    On a score itself, rounding would decide that part's verdict. Above the highest score the limit
    lies just over it.
    """
    higher = scores[scores > value]
    limit = 0.5 * (value + float(higher.min())) if len(higher) else value * _ABOVE
    return max(limit, math.nextafter(value, math.inf))


def confidence(rejected: int, n: int) -> tuple[float, float]:
    """95 % Clopper-Pearson interval of the false-reject rate, ``rejected`` of ``n``."""
    low = 0.0 if rejected == 0 else stats.beta.ppf((1 - _LEVEL) / 2, rejected, n - rejected + 1)
    high = 1.0 if rejected == n else stats.beta.ppf((1 + _LEVEL) / 2, rejected + 1, n - rejected)
    return float(low), float(high)


def prediction(rejected: int, n: int, next_parts: int) -> tuple[int, int]:
    """95 % beta-binomial prediction interval of rejects in the next ``next_parts`` good parts.

    The limit lies between two order statistics; each end of the interval is taken from the less
    favourable one.
    """
    low = 0.0
    if rejected > 0:
        low = stats.betabinom.ppf((1 - _LEVEL) / 2, next_parts, rejected, n - rejected + 1)
    high = float(next_parts)
    if rejected < n:
        high = stats.betabinom.ppf((1 + _LEVEL) / 2, next_parts, rejected + 1, n - rejected)
    return int(low), int(high)


def _exponential_tail(scores: npt.NDArray[np.float64], rate: float) -> float:
    n = len(scores)
    count = max(2, math.ceil(TAIL_SHARE * n))
    start = float(scores[-count - 1]) if count < n else float(scores[0])
    excess = float((scores[-count:] - start).mean())
    limit = start + excess * math.log(max(count / n / rate, 1.0))
    # Identical scores have no tail to extrapolate; the limit must still lie above them.
    return _just_over(scores, float(scores[-1])) if excess == 0.0 else limit


def _fold_homogeneity(folds: Sequence[npt.NDArray[np.float64]]) -> float:
    pooled = np.concatenate(list(folds))
    if np.ptp(pooled) == 0.0 or min(len(fold) for fold in folds) < 2:
        return 1.0
    return float(stats.kruskal(*folds).pvalue)
