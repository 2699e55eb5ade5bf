"""The manifest of a bundle: what a station needs to know about the model in it."""

from __future__ import annotations

import base64
from typing import Annotated, Final, Literal

from pydantic import Field

from inspector.config.yaml_file import FrozenModel
from inspector.imaging.geometry import Geometry
from inspector.imaging.images import decode
from inspector.verdict import Frame8

FORMAT: Final = 1


class Cfa(FrozenModel):
    """Hyper-parameters of the model, in the paper's symbols (arXiv 2206.04325, section III)."""

    backbone: str
    strides: tuple[int, ...]
    scales: tuple[float, ...] = (1.0,)
    """Sizes at which the network sees the picture; older bundles do not name them."""
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


class Normalisation(FrozenModel):
    """Distances are normalised at each grid position by those of held-out good parts there."""

    good_parts: int = Field(ge=0, le=10_000_000)
    """n: number of good parts that the statistics come from."""
    weight: float = Field(ge=0, le=1)
    """t: 0 takes distances as they are, 1 trusts each position's own statistics alone."""


class Quantiles(FrozenModel):
    """Quantiles of the held-out good scores, in units of the threshold: the calibrated limit."""

    q05: float = Field(ge=0)
    q25: float = Field(ge=0)
    q50: float = Field(ge=0)
    q75: float = Field(ge=0)
    q95: float = Field(ge=0)
    q99: float = Field(ge=0)
    maximum: float = Field(ge=0)


class DrawnDefects(FrozenModel):
    """Synthetic defects, drawn on held-out good parts: what a limit costs against another one."""

    drawn: int = Field(gt=0)
    passed: int = Field(ge=0)
    """How many stay below the limit in force."""
    passed_at_auto: int = Field(ge=0)
    """How many stay below the limit for the rate that the held-out parts support."""


class Calibration(FrozenModel):
    """How the limit was set, from the scores of good parts alone."""

    method: str
    pooling: str
    target_false_reject: float
    automatic: bool = False
    """True when the target is the rate that the held-out parts support; nobody named one."""
    good_parts: int = Field(ge=0, le=10_000_000)
    """Number of held-out good parts that the limit rests on."""
    good_rejected: int
    """How many of them reach the limit."""
    strays: int = Field(0, ge=0)
    """How many of them look unlike the others, so that the limit does not allow for them."""
    threshold: float = Field(gt=0)
    """The limit, in units of the model's own distance; scores and maps are divided by it."""
    interval: tuple[float, float]
    """95 % confidence interval of the true false-reject rate at the threshold."""
    predicted_next: int
    predicted_rejects: tuple[int, int]
    """95 % beta-binomial prediction interval: rejects among the next ``predicted_next`` parts."""
    extrapolated: bool
    """True when there were too few parts for the target, so the tail of scores was extrapolated."""
    cost: DrawnDefects | None = None
    """None when no defects were drawn, and in older bundles."""
    quantiles: Quantiles
    scores: tuple[Annotated[float, Field(ge=0)], ...] = ()
    """The held-out good scores in units of the threshold, ascending; () in older bundles."""
    remarks: tuple[str, ...] = ()

    @property
    def asked(self) -> float | None:
        """The false-reject rate that was asked for; None for the one that the parts support."""
        return None if self.automatic else self.target_false_reject


class Fitness(FrozenModel):
    """Light and detail of the good parts' pictures, the limits of what is fit for judging.

    :mod:`inspector.detection.fitness` says how they are used. ``darkest`` and ``brightest`` are the
    lowest and the highest mean grey (0..255) of each of the 8x8 cells of the judged region, row by
    row.
    """

    darkest: tuple[float, ...] = Field(min_length=64, max_length=64)
    brightest: tuple[float, ...] = Field(min_length=64, max_length=64)
    saturated: float = Field(ge=0, le=1)
    """Largest share (0..1) of saturated pixel values in a picture."""
    contrast: float = Field(ge=0)
    """Smallest standard deviation of the cells of a picture, in grey levels."""
    detail: float = Field(ge=0)
    """Least detail of a picture: relative energy of its edges, without a unit."""
    blurred: float = Field(ge=0)
    """Most detail of one of the pictures after it was blurred."""


class Exposure(FrozenModel):
    """What the good parts looked like in training: each pair is the lowest and the highest."""

    brightness: tuple[float, float]
    """Mean grey level of a picture (0..255)."""
    sharpness: tuple[float, float]
    """Variance of the Laplacian of a picture's grey levels."""
    fitness: Fitness | None = None
    """None in bundles of older versions."""


class Golden(FrozenModel):
    """A picture at network size, and the score that it must have on every machine."""

    name: str
    png: str
    """The picture as PNG, in base64."""
    score: float
    """In units of the calibrated limit."""

    def data(self) -> bytes:
        """The bytes of the PNG. Raises ValueError when there are none."""
        return base64.b64decode(self.png, validate=True)

    def image(self) -> Frame8:
        """The picture, uint8 BGR ``[H, W, 3]``. Raises ValueError when it is none."""
        return decode(self.data())


class Compared(FrozenModel):
    """Photos of one kind, through the bundle and the trained model; units of the limit."""

    images: int
    verdict_flips: int
    largest_score_difference: float
    largest_map_difference: float


class Parity(FrozenModel):
    """Proof that the bundle scores as the trained model; differences in units of the limit."""

    images: int
    largest_score_difference: float
    largest_map_difference: float
    verdict_flips: int
    tolerance: float | None
    """Largest difference allowed; None when the verdicts were compared, not the scores."""
    flips_allowed: float = 0.0
    """Share of verdicts that were allowed to flip."""
    provider: str = "CPUExecutionProvider"
    """Execution provider that the proof ran on."""
    auroc_change: float | None = None
    """Image AUROC of the bundle minus the trained model's; None without photos of defects."""
    validation: Compared | None = None
    """On the good parts of the training run, from which the limit comes; None in older bundles."""
    test: Compared | None = None
    """On the test photos; None when there were none."""


class Extension(FrozenModel):
    """Good parts that a finished model was taught, without training it again."""

    created: str
    parts: int
    fingerprint: str
    """Fingerprint of the added photos."""
    parent_version: str
    parent_fingerprint: str
    """``version`` and ``training_fingerprint`` of the model that was extended."""
    bank_replaced: int
    """Items of the memory bank that patches of the added parts replaced."""


class Manifest(FrozenModel):
    """Everything that a station needs to know about a model, and a person wants to know."""

    format: Literal[1] = FORMAT
    name: str
    version: str
    created: str
    product_version: str
    geometry: Geometry
    precision: Literal["fp32", "mixed", "fp16", "int8"]
    cfa: Cfa
    normalisation: Normalisation | None = None
    """None: distances are taken as they are, as in all older bundles."""
    calibration: Calibration
    exposure: Exposure
    evaluation: dict[str, float]
    training_fingerprint: str
    training_parts: int
    lineage: tuple[Extension, ...] = ()
    """Extensions since training, oldest first."""
    golden: tuple[Golden, ...] = Field(min_length=1)
    golden_tolerance: float = Field(gt=0, le=0.1)
    """How far a golden score may move on another machine, in units of the calibrated limit."""
    parity: Parity | None = None
