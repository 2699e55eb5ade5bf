"""By what a station judges now, and how that does, as it answers the query ``judging``."""

from __future__ import annotations

from typing import Final

from pydantic import Field

from inspector.wire.messages import Message, Microseconds, ModelField, Text

MOST_SCORES: Final = 500
"""Scores of the calibration in one answer."""


class CalibrationField(Message):
    """How the limit of a bundle was set, from good parts that the model had not seen."""

    method: Text
    good_parts: int = Field(description="held-out good parts that the limit rests on")
    good_rejected: int = Field(description="how many of them reach the limit")
    asked: float | None = Field(
        description="share of good parts that may be rejected; null: what the parts support"
    )
    interval_low: float = Field(
        description="95 % confidence interval of the share of good parts that is rejected"
    )
    interval_high: float
    extrapolated: bool = Field(description="there were too few good parts for the share asked for")
    scores: tuple[float, ...] = Field(
        description="of these good parts, ascending, in units of the bundle's limit; of more than "
        f"{MOST_SCORES} an even selection",
        max_length=MOST_SCORES,
    )
    remarks: tuple[Text, ...]


class ExposureField(Message):
    """What the good parts' pictures looked like in training."""

    brightness_low: float = Field(description="mean grey level of a picture, 0 to 255")
    brightness_high: float
    sharpness_low: float = Field(description="variance of the Laplacian of its grey levels")
    sharpness_high: float
    saturated: float | None = Field(
        description="largest share of saturated pixel values; null in older bundles, as the others"
    )
    contrast: float | None = Field(description="smallest standard deviation of its cells")
    detail: float | None = Field(description="least relative energy of its edges")


class SelfTestField(Message):
    """The known defect of a camera, and its last test."""

    defect: Text
    expected: float | None = Field(
        description="the score that it must have, in units of the bundle's limit; null for a photo"
    )
    at_us: Microseconds | None = Field(description="of the last test; null before any")
    score: float | None = Field(description="what it scored then, in units of the bundle's limit")
    missed: Text = Field(description="why the test failed, in words; empty: the defect was found")


class DriftField(Message):
    """Whether good parts score as when the limit was set; scores in units of the limit in force."""

    parts: int = Field(description="passed parts that were watched")
    recent: float | None = Field(description="median of the last 200 of them; null before any")
    calibrated: float | None = Field(description="median when the limit was set")
    evidence: float = Field(description="of drift, from 0 (none) to 1 (the alarm)")
    alarm: bool


class JudgedField(Message):
    """By what one camera's parts are judged."""

    camera: Text
    recipe: Text
    model: ModelField
    created: Text = Field(description="when the bundle was made")
    training_parts: int
    limit_factor: float = Field(description="the factor on the bundle's limit that is in force")
    of_file: float = Field(description="limit_factor of the station file")
    golden: int = Field(description="known photos that scored as recorded when it was loaded")
    calibration: CalibrationField
    exposure: ExposureField
    self_test: SelfTestField | None = Field(description="null: the station tests no defect")
    drift: DriftField


class RecipeCameraField(Message):
    """What a recipe sets for a camera."""

    camera: Text
    bundle: Text = Field(description="name of the file, without its folder")
    limit_factor: float


class RecipeField(Message):
    """One recipe that a changeover may select."""

    recipe: Text
    cameras: tuple[RecipeCameraField, ...]


class JudgingField(Message):
    """By what the station judges now."""

    at_us: Microseconds = Field(description="when this was so")
    cameras: tuple[JudgedField, ...]
    recipes: tuple[RecipeField, ...]
    controllers: tuple[Text, ...] = Field(
        description="peers that may trigger and operate, as a PLC that has the control; without "
        "keys one without a name"
    )
