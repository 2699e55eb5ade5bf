"""The limit is set by held-out good parts alone: threshold, confidence and prediction intervals.

For the j-th largest of n exchangeable scores the next part's chance to reach it is j / (n + 1), and
rejects among the next m parts are beta-binomial (m, j, n + 1 − j), whatever the distribution: order
statistics, David & Nagaraja, "Order Statistics", 3rd ed., section 2. So n parts can tell a rate of
1 / (n + 1), with the limit just over the highest of them, and every higher one.

A lower rate is extrapolated: the tail above the 80 % quantile is taken as exponential (peaks over
threshold with shape 0; Coles, "An Introduction to Statistical Modeling of Extreme Values", section
4.2). Its scale is estimated from k excesses, and a limit that took the estimate for the truth would
be exceeded too often on average; this one is the predictive quantile, which is not: for k excesses
of mean e, P(next excess > e k ((p / r)^(1/k) − 1)) is r / p, the mean of a gamma distribution's
Laplace transform.

A few parts may look unlike all others: a hair on the table, or a defect among the good parts. Where
nobody named a rate and nobody has said that they are good, they set no limit: it would lie above
defects that all other parts would show. They count as rejected, and so in all that is promised.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import stats

from export.training.outliers import bound
from inspector.detection.manifest import Calibration, DrawnDefects, Quantiles

TAIL_SHARE = 0.2
"""The exponential tail is fitted to this share of the scores, the highest."""

FEWEST_EXCESSES = 5
"""To so many scores at least."""

FLOOR: Final = 0.005
"""The lowest rate that "auto" asks for: with more parts than can tell it the limit would creep up
with the highest of ever more good parts, and more defects would pass."""

MOST_STRAYS: Final = 0.1
"""Where a larger share of the parts look unlike the others, they are what the parts are like."""

MOST_ESCAPES: Final = 0.5
"""Where a larger share of known defects passes, a person is told before they go on."""

_NEXT: Final = 150
"""So many photos are named to whoever has fewer."""
_ROUNDING: Final = 1e-9
_LEVEL = 0.95
_ABOVE = 1.0 + 1e-3
"""Factor from a score to a limit just above it: an exported graph may differ by as much."""


def auto_rate(n: int) -> float:
    """The false-reject rate that ``n`` held-out parts support: 1 / (n + 1), or :data:`FLOOR`."""
    return max(1.0 / (n + 1), FLOOR)


def parts_needed(rate: float) -> int:
    """Number of held-out good parts from which a rate is counted, not extrapolated."""
    return math.ceil(1.0 / rate - _ROUNDING) - 1


def find_limit(scores: npt.NDArray[np.float64], rate: float) -> float:
    """The limit for a false-reject ``rate`` by the ascending ``scores`` ``[n]`` of good parts."""
    n = len(scores)
    if n >= parts_needed(rate):
        return _counted(scores, rate)
    return max(_exponential_tail(scores, rate), _counted(scores, 1.0 / (n + 1)))


def without_strays(scores: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The ``scores`` ``[n]`` of parts that do not look unlike the others, in their order.

    All of them, where more than :data:`MOST_STRAYS` do.
    """
    if not len(scores):
        return scores
    usual = scores[scores <= bound(scores)]
    return usual if len(usual) >= (1.0 - MOST_STRAYS) * len(scores) else scores


def auto_limit(scores: npt.NDArray[np.float64]) -> float:
    """The limit that nobody named, by the ``scores`` ``[n]`` of held-out good parts."""
    usual = np.sort(without_strays(scores))
    return find_limit(usual, auto_rate(len(usual)))


def calibrate(
    folds: Sequence[npt.NDArray[np.float64]],
    rate: float | None,
    next_parts: int = 1000,
    drawn: Sequence[float] = (),
    vouched: Sequence[npt.NDArray[np.float64]] = (),
) -> Calibration:
    """Set the limit for a target false-reject ``rate``; None asks for the auto limit.

    The auto limit is that of :func:`auto_rate` by the parts that do not look unlike the others
    (:func:`without_strays`); its target is what it promises: that rate, and those parts rejected.

    ``folds`` has the scores of each fold's held-out parts, one score for each picture: a copy is no
    further part (:func:`~export.data.photos.one_each`). ``vouched`` has further folds, whose parts
    a person has looked at and called good: they all count. Scores of all folds are pooled
    unchanged,
    because the folds' models are made by one procedure in one unit of feature distance. A held-out
    score is what a new part would score under a model of slightly fewer parts, so the limit errs to
    the tolerant side (cross-validation, CV+; Barber et al., "Predictive inference with the
    jackknife+", 2021). One fold is a plain hold-out. ``drawn`` has the scores of synthetic defects,
    by which two limits are compared.
    """
    pooled = np.concatenate([np.empty(0), *folds])
    known = np.concatenate([np.empty(0), *vouched])
    scores = np.sort(np.concatenate([pooled, known]))
    n = len(scores)
    usual = np.sort(np.concatenate([without_strays(pooled), known]))
    strays = n - len(usual)
    auto_limit = find_limit(usual, auto_rate(len(usual)))
    if rate is None:
        target, limit = auto_rate(n) + strays / (n + 1), auto_limit
    else:
        target, limit = rate, find_limit(scores, rate)
    extrapolated = n < parts_needed(target)
    method = "order statistic of held-out good scores"
    if extrapolated:
        method = (
            f"exponential tail over the {1 - TAIL_SHARE:.0%} quantile of held-out good scores, "
            f"predictive, but above the highest of them"
        )
    cost = None
    if len(drawn):
        passed = [int(sum(score < value for score in drawn)) for value in (limit, auto_limit)]
        cost = DrawnDefects(drawn=len(drawn), passed=passed[0], passed_at_auto=passed[1])
    remarks = [_say_auto(n, strays)] if rate is None else []
    if extrapolated:
        remarks.append(_say_cost(n, target, cost))
    pooling = "one hold-out, scored by the model in service"
    if len(parts := [*folds, *vouched]) > 1:
        p = _fold_homogeneity(parts)
        pooling = (
            f"{len(parts)}-fold cross-fitting; scores pooled as they are, all folds' models being "
            f"in one unit of feature distance (Kruskal-Wallis over folds: p = {p:.3f})"
        )
        if p < 0.01:
            remarks.append(
                f"the good parts vary: in {len(parts)} groups, each judged by a model of the "
                f"others, scores differ more than by chance (p = {p:.4f}); the limit takes that "
                f"into account, the range of expected rejects does not"
            )
    rejected = int((scores >= limit).sum())
    quantiles = np.quantile(scores, [0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0]) / limit
    return Calibration(
        method=method,
        pooling=pooling,
        target_false_reject=target,
        automatic=rate is None,
        good_parts=n,
        good_rejected=rejected,
        strays=strays if rate is None else 0,
        threshold=limit,
        interval=confidence(rejected, n),
        predicted_next=next_parts,
        predicted_rejects=prediction(rejected, n, next_parts),
        extrapolated=extrapolated,
        cost=cost,
        quantiles=Quantiles(
            **dict(zip(Quantiles.model_fields, (float(q) for q in quantiles), strict=True))
        ),
        scores=tuple(round(float(score), 6) for score in scores / limit),
        remarks=tuple(remarks),
    )


def _say_auto(n: int, strays: int) -> str:
    """What the auto limit promises, and how many photos would promise more."""
    fewest = round(1.0 / FLOOR)
    words = f"about 1 good part in {min(n, fewest)} may be rejected"
    if n < parts_needed(FLOOR):
        more = _NEXT if n < _NEXT else fewest
        words += f", for no fewer can be promised by {n} photos; {more} photos allow 1 in {more}"
    if strays:
        one = strays == 1
        words += (
            f"; {strays} of {n} good parts look{'s' if one else ''} unlike the others and "
            f"{'is' if one else 'are'} not allowed for: {'it' if one else 'they'} would be rejected"
        )
    return words


def _say_cost(n: int, rate: float, cost: DrawnDefects | None) -> str:
    """What a rate below the one that ``n`` parts can tell costs."""
    words = (
        f"the limit is estimated, above every good part that was photographed: {n} photos can "
        f"tell 1 good part in {n}, and {rate:.2%} was asked"
    )
    if cost is not None:
        words += (
            f"; of {cost.drawn} defects drawn on good parts {cost.passed} pass, and "
            f"{cost.passed_at_auto} would with 'auto'"
        )
    return f"{words}; from {parts_needed(rate)} photos on it is counted"


def _counted(scores: npt.NDArray[np.float64], rate: float) -> float:
    """The limit that a share ``rate`` of parts like the ascending ``scores`` reaches.

    The next part's chance is j / (n + 1) at the j-th highest score, and ``rate`` between two of
    them: the limit lies in the middle half of that gap, on no score, or rounding would decide that
    part's verdict. Where scores tie it lies above the tie; above the highest one, just over it.
    """
    position = rate * (len(scores) + 1)
    rejected = max(math.ceil(position - _ROUNDING) - 1, 0)
    value = float(scores[-rejected - 1])
    higher = scores[scores > value]
    if not len(higher):
        return max(value * _ABOVE, math.nextafter(value, math.inf))
    gap = float(higher.min()) - value
    down = min(max(position - rejected, 0.25), 0.75) if float(scores[-rejected]) > value else 0.5
    return max(value + (1.0 - down) * gap, math.nextafter(value, math.inf))


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
    """The value that the next score exceeds with chance ``rate``; see the module."""
    n = len(scores)
    count = min(max(FEWEST_EXCESSES, math.ceil(TAIL_SHARE * n)), n - 1)
    start = float(scores[-count - 1])
    excess = float((scores[-count:] - start).mean())
    # The next part's chance to be above ``start``, whatever the distribution.
    above = (count + 1) / (n + 1)
    farther = math.pow(max(above / rate, 1.0), 1.0 / count) - 1.0
    return start + excess * count * farther


def _fold_homogeneity(folds: Sequence[npt.NDArray[np.float64]]) -> float:
    pooled = np.concatenate(list(folds))
    if np.ptp(pooled) == 0.0 or min(len(fold) for fold in folds) < 2:
        return 1.0
    return float(stats.kruskal(*folds).pvalue)
