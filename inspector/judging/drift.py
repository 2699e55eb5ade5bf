"""Drift: do good parts score higher than at calibration? A sequential test, pure, one a camera.

Each passed part's score gets a smoothed conformal p-value: its rank among the calibration's
held-out good scores and all passed parts so far, ties broken at random. As long as they are
exchangeable the p-values are independent and uniform, whatever the distribution and however few
parts calibrated (Vovk, "Testing randomness online", Statistical Science 36, 2021); against the
calibration alone they would not be, and 150 parts would be "refuted" by chance sooner or later.

Bets on an upward shift of several sizes are summed as an e-detector of Shiryaev-Roberts type,
``R = (R + 1) * bet``, which raises the alarm at ``A``: on average at least A parts lie between two
false alarms, exactly, for any A (Shin, Ramdas, Rinaldo, "E-detectors: a nonparametric framework for
sequential change detection", New England Journal of Statistics in Data Science 2, 2024). A drift
that is there from the first part, as after a night or a restart, is bet on separately with a
hundredth of ``A``: it is found though the parts themselves soon make up most of the ranks, and at
most one start in a hundred begins with a false alarm. Shifts below ``TOLERATED`` standard
deviations are no drift.

Only PASS counts, and of the calibration only what would pass: a defective part says nothing of the
lamp, and which of the failed parts are good nobody knows. Under the limit the truncated scores of
good parts are exchangeable too, so the promise holds; and drift shows below the limit long before
it carries parts over it. What moves all parts over the limit at once needs no statistics.
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
"""A lasting shift of good parts' scores that nobody need act on, in standard deviations."""

_SHIFTS: Final = (0.25, 0.5, 1.0, 2.0)
"""Sizes of shift bet on, in standard deviations, the tolerated one included."""
_AT_START: Final = 0.01
"""Share of the evidence needed that a drift from the first part on is given in advance."""
_BINS: Final = 4096
_RECENT: Final = 200
_NORMAL: Final = NormalDist()
_EDGE: Final = 1e-12
_QUANTILES: Final = (0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)


def reference(calibration: Calibration) -> tuple[float, ...]:
    """Held-out good scores in units of the calibrated limit; of an older bundle's quantiles made
    up, as many as there were parts."""
    if calibration.scores:
        return calibration.scores
    levels = [
        getattr(calibration.quantiles, name) for name in type(calibration.quantiles).model_fields
    ]
    places = (np.arange(calibration.good_parts) + 0.5) / max(1, calibration.good_parts)
    return tuple(float(score) for score in np.interp(places, _QUANTILES, levels))


class Watch:
    """The watch over one camera's good parts; used by one thread.

    ``parts_between_false_alarms`` 0: never an alarm. ``limit_factor``: the operator's, in whose
    units the scores of verdicts are.
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
        self._bets = [0.0] * len(_SHIFTS)
        self._first = [1.0] * len(_SHIFTS)
        self._recent: collections.deque[float] = collections.deque(maxlen=_RECENT)
        self._random = random.Random(0)  # noqa: S311
        self.parts = 0
        """Good parts seen since the start or ``reset``."""
        self.alarm = False
        """True from the alarm until ``reset``."""
        self.reset()

    @property
    def statistic(self) -> float:
        """Evidence of drift: 0 none, 1 alarm, on a logarithmic scale between."""
        if self.alarm:
            return 1.0
        if not self._threshold:
            return 0.0
        at_rest = 1.0 + _AT_START * self._threshold
        span = math.log((1.0 + (1.0 + _AT_START) * self._threshold) / at_rest)
        return min(1.0, max(0.0, math.log((1.0 + self._evidence()) / at_rest) / span))

    def note(self, verdict: Verdict, score: float | None) -> bool:
        """Count a verdict; True when it raises the alarm, once until ``reset``."""
        if verdict is not Verdict.PASS or score is None or not self._threshold:
            return False
        self.parts += 1
        self._recent.append(score)
        p = self._p_value(score)
        if self.alarm:
            return False
        z = -_NORMAL.inv_cdf(min(max(p, _EDGE), 1.0 - _EDGE))
        # Drifted from the start, a part is ranked among others that have drifted as it has.
        diluted = len(self._calibrated) / (len(self._calibrated) + self.parts)
        for i, shift in enumerate(_SHIFTS):
            self._bets[i] = (self._bets[i] + 1.0) * _bet(z, shift, TOLERATED)
            self._first[i] *= _bet(z, shift * diluted, TOLERATED * diluted)
        self.alarm = self._evidence() >= (1.0 + _AT_START) * self._threshold
        return self.alarm

    def detail(self) -> str:
        """What good parts score of late beside what they should, in words."""
        if not self._recent or not self._calibrated:
            return ""
        return (
            f"good parts score {median(self._recent):.3f} of the limit (median of the last "
            f"{len(self._recent)}), {median(self._calibrated):.3f} when it was calibrated: check "
            f"lamp, lens and material, or teach in the parts that are new"
        )

    def reset(self) -> None:
        """Begin anew from the calibration, as after another bundle or an operator's word."""
        self._counts[:] = 0
        np.add.at(self._counts, [_bin(score) for score in self._calibrated], 1)
        self._bets = [0.0] * len(_SHIFTS)
        self._first = [1.0] * len(_SHIFTS)
        self._recent.clear()
        self.parts = 0
        self.alarm = False

    def _p_value(self, score: float) -> float:
        """Smoothed conformal p-value among all before it; then it is one of them.

        Scores are compared in steps of 1 / 4096 of the limit: equal ones are ties, which the
        random number breaks, so that rounding costs no validity.
        """
        place = _bin(score)
        self._counts[place] += 1
        above = int(self._counts[place + 1 :].sum())
        return (above + self._random.random() * int(self._counts[place])) / int(self._counts.sum())

    def _evidence(self) -> float:
        start = _AT_START * self._threshold
        return (sum(self._bets) + start * sum(self._first)) / len(_SHIFTS)


def _bet(z: float, shift: float, tolerated: float) -> float:
    """Likelihood ratio for a normal shift; its mean is at most 1 up to the tolerated one."""
    gain = shift - tolerated
    return math.exp(gain * (z - tolerated) - 0.5 * gain**2)


def _bin(score: float) -> int:
    return min(_BINS - 1, max(0, int(score * _BINS)))
