"""Drift: do good parts score higher than at calibration? A sequential test for each camera, no I/O.

The score of each passed part gets a smoothed conformal p-value: its rank among the held-out good
scores of the calibration and all passed parts so far, with ties broken at random. As long as the
scores are exchangeable, the p-values are independent and uniform, whatever the distribution and
however few parts calibrated (Vovk, "Testing randomness online", Statistical Science 36, 2021).
Ranks among the calibration alone would not be: its own sampling error would look like drift sooner
or later.

Bets on upward shifts of several sizes are summed as an e-detector of Shiryaev-Roberts type,
``R = (R + 1) * bet``, which raises the alarm at ``A``. On average at least ``A`` parts lie between
two false alarms, exactly and for any ``A`` (Shin, Ramdas, Rinaldo, "E-detectors: a nonparametric
framework for sequential change detection", New England Journal of Statistics in Data Science 2,
2024). A drift that is there from the first part, as after a night or a restart, has a bet of its
own, which is given a hundredth of ``A``: it is found although the drifted parts soon make up most
of the ranks, and at most one start in a hundred begins with a false alarm. A shift below
``TOLERATED`` standard deviations is no drift.

Only passed parts count, and of the calibration only the scores that would pass: a defective part
says nothing of the lamp, and nobody knows which of the failed parts are good. The scores of good
parts below the limit are exchangeable, too, so the promise holds; and drift shows below the limit
long before it carries parts over it. What moves all parts over the limit at once needs no
statistics.
"""

from __future__ import annotations

import collections
import math
import random
from statistics import NormalDist, median
from typing import Final

import numpy as np
import numpy.typing as npt

from inspector.detection.manifest import Calibration
from inspector.verdict import LIMIT, Verdict

TOLERATED: Final = 0.1
"""A lasting shift of good parts' scores on which nobody need act, in standard deviations."""

_SHIFTS: Final = (0.25, 0.5, 1.0, 2.0)
"""The sizes of shift that are bet on, in standard deviations, the tolerated one included."""
_AT_START: Final = 0.01
"""Share of the evidence needed that a drift from the first part on is given in advance."""
_BINS: Final = 4096
"""Scores are counted in so many bins between 0 and the limit."""
_RECENT: Final = 200
"""Passed parts whose median :meth:`Watch.detail` tells."""
_NORMAL: Final = NormalDist()
_EDGE: Final = 1e-12
"""Smallest distance of a p-value from 0 and 1, where its normal quantile would be infinite."""
_QUANTILES: Final = (0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)
"""The levels of :class:`Quantiles`, in the order of its fields."""


def reference(calibration: Calibration) -> tuple[float, ...]:
    """Held-out good scores, in units of the calibrated limit.

    An older bundle has only their quantiles: as many scores as there were parts are interpolated.
    """
    if calibration.scores:
        return calibration.scores
    levels = [
        getattr(calibration.quantiles, name) for name in type(calibration.quantiles).model_fields
    ]
    places = (np.arange(calibration.good_parts) + 0.5) / max(1, calibration.good_parts)
    return tuple(float(score) for score in np.interp(places, _QUANTILES, levels))


class Watch:
    """The watch over the good parts of one camera; used by one thread.

    ``parts_between_false_alarms`` is ``A`` above, 0 for no alarm ever. ``limit_factor`` is the
    operator's: scores of verdicts are in units of the limit times this factor. An alarm stands;
    another bundle, or an operator's word, is reason for another watch.
    """

    def __init__(
        self,
        calibration: Calibration,
        parts_between_false_alarms: int,
        limit_factor: float = 1.0,
    ) -> None:
        self._threshold = parts_between_false_alarms
        self._calibrated = [
            score
            for score in (raw / limit_factor for raw in reference(calibration))
            if score < LIMIT
        ]
        self._counts: npt.NDArray[np.int64] = np.zeros(_BINS, dtype=np.int64)
        """How many scores so far, of the calibration and of passed parts, lie in each bin."""
        np.add.at(self._counts, [_bin(score) for score in self._calibrated], 1)
        self._bets = [0.0] * len(_SHIFTS)
        """For each shift, the evidence that good parts began to drift at some time."""
        self._bets_from_start = [1.0] * len(_SHIFTS)
        """For each shift, the evidence that they have drifted from the first part on."""
        self._recent: collections.deque[float] = collections.deque(maxlen=_RECENT)
        self._random = random.Random(0)  # noqa: S311
        self.parts = 0
        """Passed parts so far."""
        self.alarm = False
        """True from the alarm on."""

    @property
    def statistic(self) -> float:
        """Evidence of drift on a logarithmic scale, from 0 (none) to 1 (the alarm)."""
        if self.alarm:
            return 1.0
        if not self._threshold:
            return 0.0
        at_rest = 1.0 + _AT_START * self._threshold
        span = math.log((1.0 + (1.0 + _AT_START) * self._threshold) / at_rest)
        return min(1.0, max(0.0, math.log((1.0 + self._evidence()) / at_rest) / span))

    def note(self, verdict: Verdict, score: float | None) -> bool:
        """Count a verdict; True when it raises the alarm, which happens once."""
        if verdict is not Verdict.PASS or score is None or not self._threshold:
            return False
        self.parts += 1
        self._recent.append(score)
        p = self._p_value(score)
        if self.alarm:
            return False
        z = -_NORMAL.inv_cdf(min(max(p, _EDGE), 1.0 - _EDGE))
        # A part that has drifted from the start is ranked among parts that have drifted alike.
        diluted = len(self._calibrated) / (len(self._calibrated) + self.parts)
        for i, shift in enumerate(_SHIFTS):
            self._bets[i] = (self._bets[i] + 1.0) * _bet(z, shift, TOLERATED)
            self._bets_from_start[i] *= _bet(z, shift * diluted, TOLERATED * diluted)
        self.alarm = self._evidence() >= (1.0 + _AT_START) * self._threshold
        return self.alarm

    @property
    def medians(self) -> tuple[float | None, float | None]:
        """Of the scores of the last passed parts and of the calibration; any thread may ask.

        In units of the limit in force; None where there are none.
        """
        # The copy is made at once, while the station's thread goes on adding.
        recent = tuple(self._recent)
        calibrated = self._calibrated
        return median(recent) if recent else None, median(calibrated) if calibrated else None

    def detail(self) -> str:
        """What good parts have scored lately and what they should, in words; "" before any."""
        recent, calibrated = self.medians
        if recent is None or calibrated is None:
            return ""
        return (
            f"good parts score {recent:.3f} of the limit (median of the last "
            f"{len(self._recent)}), {calibrated:.3f} when it was calibrated: check "
            f"lamp, lens and material, or teach in the parts that are new"
        )

    def _p_value(self, score: float) -> float:
        """The smoothed conformal p-value of ``score`` among all before it, which it then joins.

        Scores in one bin are ties, which a random number breaks, so that the test stays exact.
        """
        place = _bin(score)
        self._counts[place] += 1
        above = int(self._counts[place + 1 :].sum())
        return (above + self._random.random() * int(self._counts[place])) / int(self._counts.sum())

    def _evidence(self) -> float:
        start = _AT_START * self._threshold
        return (sum(self._bets) + start * sum(self._bets_from_start)) / len(_SHIFTS)


def _bet(z: float, shift: float, tolerated: float) -> float:
    """Likelihood ratio of a normal shift; its mean is at most 1 for shifts up to ``tolerated``."""
    gain = shift - tolerated
    return math.exp(gain * (z - tolerated) - 0.5 * gain**2)


def _bin(score: float) -> int:
    return min(_BINS - 1, max(0, int(score * _BINS)))
