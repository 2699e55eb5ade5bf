"""The verdict on one part: what PASS, FAIL and FAULT mean, and nothing else."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
import numpy.typing as npt

FloatMap = npt.NDArray[np.float32]
Frame8 = npt.NDArray[np.uint8]

LIMIT: Final = 1.0
"""A part fails if and only if its map reaches this value."""

LIMIT_FACTOR_RANGE: Final = (0.5, 2.0)
"""Bounds of the operator's sensitivity: a factor on the calibrated limit."""


class Verdict(str, enum.Enum):
    """The one answer every part gets. FAULT is everything that is not a judged part."""

    PASS = "PASS"  # noqa: S105
    FAIL = "FAIL"
    FAULT = "FAULT"

    def __str__(self) -> str:
        return self.value


EXIT_CODES: Final = {Verdict.PASS: 0, Verdict.FAIL: 1, Verdict.FAULT: 2}
"""What the commands ``trigger`` and ``judge`` end with, by the worst verdict."""


class Reason(str, enum.Enum):
    """Why a verdict is not PASS; stable identifiers, documented in docs/wire.md."""

    NONE = ""
    ANOMALY = "anomaly"
    NOT_FINITE = "not_finite"
    FRAME_SHAPE = "frame_shape"
    FRAME_UNREADABLE = "frame_unreadable"
    INFERENCE_ERROR = "inference_error"
    CAMERA_LOST = "camera_lost"
    QUEUE_FULL = "queue_full"
    DEADLINE_MISSED = "deadline_missed"
    TOO_DARK = "too_dark"
    SATURATED = "saturated"
    OUT_OF_FOCUS = "out_of_focus"
    FROZEN = "frozen"
    OVER_TRIGGER = "over_trigger"
    TRIGGER_CONFLICT = "trigger_conflict"
    NOT_READY = "not_ready"
    RESTARTED = "restarted"
    JOURNAL_FAILED = "journal_failed"


@dataclass(frozen=True)
class Region:
    """One connected area of the map at or above the limit, in camera pixels."""

    x: int
    y: int
    w: int
    h: int
    peak: float


@dataclass(frozen=True)
class Judgement:
    """What the detector says of one frame.

    ``score`` and ``anomaly_map`` (float32 ``[H, W]``) are in units of the limit in force, the
    operator's factor included: 1.0 is the limit. ``score`` is None on FAULT; ``anomaly_map`` is
    None when the model gave no valid map; ``judged`` (uint8 BGR ``[H, W, 3]``, the region as the
    network saw it) is None when the frame never reached the network. ``detail`` says in words why
    a FAULT is one.
    """

    verdict: Verdict
    score: float | None
    reason: Reason
    anomaly_map: FloatMap | None = field(default=None, repr=False)
    regions: tuple[Region, ...] = ()
    judged: Frame8 | None = field(default=None, repr=False)
    limit_factor: float = 1.0
    detail: str = ""

    def as_fault(self, reason: Reason, detail: str) -> Judgement:
        """The same part as a FAULT: score and regions are withdrawn, the pictures stay."""
        return replace(
            self, verdict=Verdict.FAULT, score=None, reason=reason, regions=(), detail=detail
        )


def decide(score: float) -> tuple[Verdict, Reason]:
    """Verdict for a score in units of the limit in force.

    A score that is not finite, or negative (no distance is), is a FAULT: comparing it would
    quietly answer PASS.
    """
    if not math.isfinite(score) or score < 0.0:
        return Verdict.FAULT, Reason.NOT_FINITE
    if score >= LIMIT:
        return Verdict.FAIL, Reason.ANOMALY
    return Verdict.PASS, Reason.NONE
