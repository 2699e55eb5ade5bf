"""What helps when most defective test parts pass: said instead of going on to the export."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from export.evaluation import metrics
from export.evaluation.evaluate import Evaluation
from export.evaluation.wording import say_of, say_percent, say_share
from export.training.calibrate import FLOOR, MOST_ESCAPES, find_limit, parts_needed
from inspector.verdict import LIMIT, LIMIT_FACTOR_RANGE

_TELLS: Final = 0.9
"""From this AUROC on the scores tell the parts apart, and it is the limit that does not."""
_RATES: Final = (0.01, 0.02, 0.05, 0.1, 0.2)
"""Rates of false rejects that are tried, the lowest first."""


@dataclass(frozen=True)
class Advice:
    """``sentences`` for a person; ``rate``: the false rejects to calibrate for, or None."""

    sentences: tuple[str, ...]
    rate: float | None


def advise(evaluation: Evaluation, held_out: metrics.Floats) -> Advice | None:
    """None where at most half of the defective test parts pass, or none was tested.

    ``held_out`` ``[n]`` has the scores of the held-out good parts, in units of the limit; where no
    good part was tested, they stand for those.
    """
    escapes = evaluation.escapes
    if escapes.hits <= MOST_ESCAPES * escapes.total:
        return None
    tested = np.asarray(evaluation.good_scores)
    good, whose = (tested, "good test parts") if len(tested) else (held_out, "held-out good parts")
    defective = evaluation.defective_scores
    auroc = metrics.auroc(good, defective)
    if auroc is None or auroc < _TELLS:
        return Advice(
            (
                f"More than half of the defective parts pass, and their scores hardly differ from "
                f"those of {whose} (AUROC {say_share(auroc)}): no limit helps. What may: light "
                f"that shows the defect, a region that is closer to the part, a larger --size.",
            ),
            None,
        )
    sentences = [
        f"More than half of the defective parts pass, although their scores differ from those of "
        f"{whose} (AUROC {say_share(auroc)}): the limit lies too high for them."
    ]
    n = len(held_out)
    if n < parts_needed(FLOOR):
        sentences.append(
            f"What helps: more photos of good parts; the limit lies above the highest of {n} now, "
            f"and one odd part among so few moves it far."
        )
    rate = _find_rate(held_out, defective)
    if rate is not None:
        limit = _limit(held_out, rate)
        sentences.append(
            f"Or a lower limit: 'inspector-model calibrate RUN --false-reject {rate:.0%}' would "
            f"let {say_of(metrics.sweep((), defective, (limit,))[0].escapes)} of these parts "
            f"pass, and rejects about {say_percent(rate)} of good parts."
        )
    best = metrics.best_f1(good, defective)
    factor = LIMIT if best is None else max(best[1], LIMIT_FACTOR_RANGE[0])
    # Rounded down, so that what is promised of it holds.
    factor = np.floor(factor * 100) / 100
    if factor < LIMIT:
        there = metrics.sweep(good, defective, (factor,))[0]
        sentences.append(
            f"Or limit_factor: {factor:.2f} in the station file, where "
            f"{say_of(there.escapes)} would pass and {say_of(there.false_rejects)} {whose} would "
            f"be rejected."
        )
    return Advice(tuple(sentences), rate)


def _limit(held_out: metrics.Floats, rate: float) -> float:
    """What :func:`calibrate` would set for ``rate``, in units of the limit in force."""
    return find_limit(np.sort(held_out), rate)


def _find_rate(held_out: metrics.Floats, defective: metrics.AnyScores) -> float | None:
    """The lowest rate at whose limit no more than half of the defective parts pass."""
    scores = np.asarray(defective)
    for rate in _RATES:
        limit = _limit(held_out, rate)
        if limit < LIMIT and (scores < limit).mean() <= MOST_ESCAPES:
            return rate
    return None
