"""What is wrong with a photo of a good part: its light, its sharpness, a part taken twice."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from inspector.imaging.geometry import Box, Geometry
from inspector.imaging.images import exposure, to_bgr8

Floats = npt.NDArray[np.float32]
ObjectionKind = Literal[
    "already there", "same part", "blurred", "overexposed", "underexposed", "other light"
]

FEWEST_OTHERS: Final = 5
"""With fewer photos to compare with, light and sharpness of a photo are not judged."""

_SIDE_PX: Final = 256
"""Photos are measured at this size: at the camera's, sensor noise would pass for sharpness."""
_CELLS: Final = 32
"""Side of a thumbnail, px."""
_WHITE: Final = 254
_BLACK: Final = 2
_CLIPPED: Final = 250.0
"""Mean grey from which a thumbnail's cell counts as saturated."""
_EMPTY_SHARE: Final = 0.98
"""Share of saturated or black pixels that leaves nothing to see."""
_CLIPPED_SHARE: Final = 0.05
"""A photo may have this much more saturated or black than is usual, as a share of the region."""
_SPREADS: Final = 5.0
"""Light may lie this many standard deviations from the median of the others."""
_BLUR_SPREADS: Final = 4.0
"""Sharpness may lie this many standard deviations below the median of the others, in logarithms."""


@dataclass(frozen=True)
class PhotoMeasures:
    """What is compared of one photo, within the region.

    ``brightness``: mean grey, 0..255. ``sharpness``: variance of the Laplacian. ``saturated`` and
    ``black``: shares of the pixels, 0..1. ``thumbnail``: grey float32 ``[32, 32]``;
    ``thumbnail_noise``: mean difference, in grey levels, of two thumbnails of one still scene.
    """

    brightness: float
    sharpness: float
    saturated: float
    black: float
    thumbnail: Floats
    thumbnail_noise: float


@dataclass(frozen=True)
class Objection:
    """One thing wrong with a photo: its kind, and a line with the figures and the cure.

    ``like``: name of the photo that it equals, for ``already there`` and ``same part``.
    """

    kind: ObjectionKind
    text: str
    like: str = ""


def measure(image: npt.NDArray[Any], region: Box | None) -> PhotoMeasures:
    """Measure a camera frame (shapes as :meth:`Geometry.apply`). Raises :class:`Fault`."""
    geometry = Geometry(height=_SIDE_PX, width=_SIDE_PX, region=region)
    pixels = to_bgr8(geometry.crop(image))
    picture = geometry.apply(image)
    brightness, sharpness = exposure(picture)
    brightest = pixels.max(axis=2)
    step = _SIDE_PX // _CELLS
    cells = picture.mean(axis=2, dtype=np.float32).reshape(_CELLS, step, _CELLS, step)
    per_cell = max(1.0, brightest.size / _CELLS**2)
    return PhotoMeasures(
        brightness=brightness,
        sharpness=sharpness,
        saturated=float((brightest >= _WHITE).mean()),
        black=float((brightest <= _BLACK).mean()),
        thumbnail=cells.mean(axis=(1, 3)),
        # The difference of two normal variables has a mean size of 2 σ / √π.
        thumbnail_noise=2.0 / math.sqrt(math.pi) * _noise(pixels) / math.sqrt(per_cell),
    )


def is_same(one: PhotoMeasures, other: PhotoMeasures) -> bool:
    """True when both were measured on the same picture."""
    return (
        (one.brightness, one.sharpness) == (other.brightness, other.sharpness)
        and (one.saturated, one.black) == (other.saturated, other.black)
        and np.array_equal(one.thumbnail, other.thumbnail)
    )


def stands_out(photo: PhotoMeasures, others: Sequence[PhotoMeasures]) -> list[Objection]:
    """What is wrong with the light or sharpness of ``photo`` beside ``others``; [] for nothing.

    Sharpness grows with light, so a photo in other light is not called blurred as well.
    """
    return list(light_objections(photo, others)) or list(blur_objections(photo, others))


def light_objections(photo: PhotoMeasures, others: Sequence[PhotoMeasures]) -> Iterator[Objection]:
    """What is wrong with the light of ``photo`` beside ``others``: one objection at most."""
    if photo.saturated >= _EMPTY_SHARE:
        text = f"overexposed ({photo.saturated:.0%} of the region saturated): shorten the exposure"
        yield Objection("overexposed", text)
        return
    if photo.black >= _EMPTY_SHARE:
        text = f"underexposed ({photo.black:.0%} of the region black): is the lens cap on?"
        yield Objection("underexposed", text)
        return
    if len(others) < FEWEST_OTHERS:
        return
    usual, spread = _median([other.saturated for other in others])
    if photo.saturated > usual + max(_CLIPPED_SHARE, _SPREADS * spread):
        yield Objection(
            "overexposed",
            f"overexposed ({photo.saturated:.0%} of the region saturated, the others {usual:.0%}): "
            f"shorten the exposure, look for a reflection",
        )
        return
    usual, spread = _median([other.black for other in others])
    if photo.black > usual + max(_CLIPPED_SHARE, _SPREADS * spread):
        yield Objection(
            "underexposed",
            f"underexposed ({photo.black:.0%} of the region black, the others {usual:.0%}): "
            f"check the lamp and the exposure",
        )
        return
    usual, spread = _median([other.brightness for other in others])
    if abs(photo.brightness - usual) > max(10.0, 0.2 * usual, _SPREADS * spread):
        yield Objection(
            "other light",
            f"{'brighter' if photo.brightness > usual else 'darker'} than the others (brightness "
            f"{photo.brightness:.0f}, the others {usual:.0f}): check the lamp, fix the exposure",
        )


def blur_objections(photo: PhotoMeasures, others: Sequence[PhotoMeasures]) -> Iterator[Objection]:
    """What is wrong with the sharpness of ``photo`` beside ``others``: one objection at most."""
    if len(others) < FEWEST_OTHERS:
        return
    usual, spread = _median([math.log(max(other.sharpness, 1e-3)) for other in others])
    below = usual - math.log(max(photo.sharpness, 1e-3))
    if below > max(math.log(2.0), _BLUR_SPREADS * spread):
        yield Objection(
            "blurred",
            f"blurred (sharpness {photo.sharpness:.0f}, the others {math.exp(usual):.0f}): hold "
            f"still, check focus",
        )


def find_twin(photo: PhotoMeasures, others: Sequence[PhotoMeasures]) -> tuple[int, float] | None:
    """The photo of the same part, if one differs from ``photo`` by no more than noise.

    Returns its index in ``others`` and the mean difference in grey levels, or None.
    """
    if not others:
        return None
    new, old = photo.thumbnail, np.stack([other.thumbnail for other in others])
    lit = (new < _CLIPPED) & (old < _CLIPPED)
    # A lamp that flickers makes no other part, so the brightness is levelled first. Saturated cells
    # cannot tell how bright it was, so they do not count in that.
    gain = (new * lit).sum((1, 2)) / np.maximum((old * lit).sum((1, 2)), 1.0)
    gain = np.where(lit.mean((1, 2)) > 0.05, np.clip(gain, 0.8, 1.25), 1.0)
    changes = np.abs(new - np.minimum(old * gain[:, None, None], 255.0))
    counted = (new < _CLIPPED) | (old < _CLIPPED)
    mean = (changes * counted).sum((1, 2)) / np.maximum(counted.sum((1, 2)), 1)
    # Most of the picture may be a belt that never changes, which would hide another part in the
    # mean: no single cell may change much either.
    limit = min(max(2.0 * photo.thumbnail_noise, 0.5), 1.0)
    mean[changes.max((1, 2)) > 6.0 * limit] = np.inf
    which = int(np.argmin(mean))
    return (which, float(mean[which])) if mean[which] <= limit else None


def _noise(pixels: npt.NDArray[np.uint8]) -> float:
    """Standard deviation of the sensor's noise in grey levels, from the middle of the picture.

    Immerkær's mask answers neither to a level nor to a slope, and the median leaves edges out.
    """
    top, left = (max(0, (side - 512) // 2) for side in pixels.shape[:2])
    grey = pixels[top : top + 512, left : left + 512].mean(axis=2, dtype=np.float32)
    if min(grey.shape) < 3:
        return 0.0
    across = grey[:, :-2] - 2 * grey[:, 1:-1] + grey[:, 2:]
    both = across[:-2] - 2 * across[1:-1] + across[2:]
    return float(np.median(np.abs(both)) / 0.6745 / 6.0)


def _median(values: Sequence[float]) -> tuple[float, float]:
    """The median, and the standard deviation estimated from the median absolute deviation."""
    middle = float(np.median(values))
    return middle, 1.4826 * float(np.median(np.abs(np.asarray(values) - middle)))
