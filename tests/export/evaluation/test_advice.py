"""Where most defects pass, what helps is said, with its price."""

from __future__ import annotations

import numpy as np
import pytest

from export.evaluation import metrics
from export.evaluation.advice import advise
from export.evaluation.evaluate import Evaluation, Row
from export.training.calibrate import find_limit
from inspector.imaging.geometry import Geometry
from inspector.verdict import decide

# One odd part among thirty has moved the limit far above the others.
HELD_OUT = np.append(np.linspace(0.30, 0.50, 29), 0.99)


def judged(good: list[float], defective: list[float]) -> Evaluation:
    rows = [
        Row(f"{kind}/{number}.png", kind, score, decide(score)[0])
        for kind, scores in (("good", good), ("scratch", defective))
        for number, score in enumerate(scores)
    ]
    return Evaluation(
        tuple(rows),
        Geometry(height=64, width=64, aspect=1.0),
        metrics.PixelTally().figures(),
        len(defective),
        (),
        (),
        (),
    )


@pytest.mark.parametrize("good", [[0.3, 0.4, 0.5, 0.55], []])
def test_a_limit_that_lies_too_high_is_told_with_what_lowers_it(good: list[float]) -> None:
    defective = [0.6, 0.7, 0.8, 0.9, 1.2]
    advice = advise(judged(good, defective), HELD_OUT)
    assert advice is not None
    said = "\n".join(advice.sentences)
    whose = "good test parts" if good else "held-out good parts"
    assert f"differ from those of {whose}" in said
    assert "more photos of good parts" in said
    # The rate is the lowest of those that catch half, and does what is said of it.
    assert advice.rate == 0.05
    assert f"calibrate RUN --false-reject {advice.rate:.0%}" in said
    limit = find_limit(np.sort(HELD_OUT), advice.rate)
    passed = sum(score < limit for score in defective)
    assert f"would let {passed} of 5" in said
    if good:
        assert "limit_factor: 0.60" in said
        assert "0 of 5 (0 %) would pass and 0 of 4 (0 %) good test parts would be rejected" in said


def test_what_no_limit_helps_is_told_so() -> None:
    advice = advise(judged([0.3, 0.4, 0.5], [0.35, 0.45, 0.5, 0.3]), HELD_OUT)
    assert advice is not None
    assert advice.rate is None
    assert "no limit helps" in advice.sentences[0]


@pytest.mark.parametrize("defective", [[], [0.9, 1.1], [1.2, 1.3, 0.2]])
def test_a_model_that_catches_half_is_waved_on(defective: list[float]) -> None:
    assert advise(judged([0.3], defective), HELD_OUT) is None
