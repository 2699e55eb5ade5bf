"""The manifest of a bundle: everything a station needs to know about its model."""

from __future__ import annotations

import base64
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from inspector.imaging.geometry import Geometry
from inspector.imaging.images import decode
from inspector.verdict import Frame8

FORMAT: Final = 1


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Cfa(_Frozen):
    """Hyper-parameters of the model, in the paper's symbols (arXiv 2206.04325, section III)."""

    backbone: str
    strides: tuple[int, ...]
    weights_sha256: str
    gamma_c: float
    gamma_d: float
    neighbours: int
    hard_negatives: int
    alpha: float
    nu: float
    radius: float
    bank_init: str
    standardise: bool
    bank_items: int
    descriptor_width: int
    grid: tuple[int, int]
    sigma: float
    epochs: int
    seed: int


class Quantiles(_Frozen):
    """Quantiles of the held-out good scores, in units of the threshold."""

    q05: float
    q25: float
    q50: float
    q75: float
    q95: float
    q99: float
    maximum: float


class Calibration(_Frozen):
    """How the limit was set, from good parts alone."""

    method: str
    pooling: str
    target_false_reject: float
    good_parts: int
    """Held-out good parts the limit rests on."""
    good_rejected: int
    """How many of them reach the limit."""
    threshold: float = Field(gt=0)
    interval: tuple[float, float]
    """95 % confidence interval of the true false-reject rate at the threshold."""
    predicted_next: int
    predicted_rejects: tuple[int, int]
    """95 % beta-binomial prediction interval: rejects among the next ``predicted_next`` parts."""
    extrapolated: bool
    quantiles: Quantiles
    scores: tuple[float, ...] = ()
    """The held-out good scores in units of the threshold, ascending; () in older bundles."""
    remarks: tuple[str, ...] = ()


class Fitness(_Frozen):
    """What good parts' pictures had that a picture fit for judging has: inspector/fitness.py.

    ``darkest``, ``brightest``: lowest and highest mean grey (0..255) of each of the 8x8 cells of
    the judged region, row by row.
    """

    darkest: tuple[float, ...] = Field(min_length=64, max_length=64)
    brightest: tuple[float, ...] = Field(min_length=64, max_length=64)
    saturated: float = Field(ge=0, le=1)
    """Largest share of saturated pixels."""
    contrast: float = Field(ge=0)
    """Smallest standard deviation of a picture's cells, grey levels."""
    detail: float = Field(ge=0)
    """Least detail of a picture."""
    blurred: float = Field(ge=0)
    """Most detail of one of the pictures after it was blurred."""


class Exposure(_Frozen):
    """What the good parts looked like: ranges learnt in training, grey levels 0..255."""

    brightness: tuple[float, float]
    sharpness: tuple[float, float]
    fitness: Fitness | None = None
    """None in bundles of older versions."""


class Golden(_Frozen):
    """A picture at network input size with the score it must give."""

    name: str
    png: str
    score: float

    def image(self) -> Frame8:
        """Uint8 BGR ``[H, W, 3]``."""
        return decode(base64.b64decode(self.png))


class Compared(_Frozen):
    """One kind of photos through the file and the trained model."""

    images: int
    verdict_flips: int
    largest_score_difference: float
    largest_map_difference: float


class Parity(_Frozen):
    """Proof that the file scores as the trained model did; differences in units of the limit."""

    images: int
    largest_score_difference: float
    largest_map_difference: float
    verdict_flips: int
    tolerance: float | None
    """Largest difference allowed; None: the verdicts count, not the scores."""
    flips_allowed: float = 0.0
    """Share of verdicts that were allowed to flip."""
    provider: str = "CPUExecutionProvider"
    """Execution provider the proof ran on."""
    auroc_change: float | None = None
    """Image AUROC of the file minus that of the trained model; None without photos of defects."""
    validation: Compared | None = None
    """On the run's own good parts, from which the limit comes; None in older bundles."""
    test: Compared | None = None
    """On the test photos; None without any."""


class Extension(_Frozen):
    """Good parts taught to a finished model, without retraining."""

    created: str
    parts: int
    fingerprint: str
    """Of the added photos."""
    parent_version: str
    parent_fingerprint: str
    """``version`` and ``training_fingerprint`` of the model that was extended."""
    bank_replaced: int
    """Items of the memory bank that gave way to patches of the added parts."""


class Manifest(_Frozen):
    """Everything a station needs to know about a model, and a person wants to."""

    format: Literal[1] = FORMAT
    name: str
    version: str
    created: str
    product_version: str
    geometry: Geometry
    precision: Literal["fp32", "mixed", "fp16", "int8"]
    cfa: Cfa
    calibration: Calibration
    exposure: Exposure
    evaluation: dict[str, float]
    training_fingerprint: str
    training_parts: int
    lineage: tuple[Extension, ...] = ()
    """Extensions since training, oldest first."""
    golden: tuple[Golden, ...] = Field(min_length=1)
    golden_tolerance: float = Field(gt=0)
    parity: Parity | None = None
