"""Is a picture fit for judging? One that is too dark, saturated or out of focus is a FAULT.

"Unlike the training photos" is no such reason: that is what a gross defect looks like, and it is a
FAIL. Each rule therefore asks for what only the lamp, the lens or the camera can do, **everywhere
at once**, over a grid of 8x8 cells of the judged region:

* ``too_dark``: of the cells that can show darkness, 90 % have less than half the light that the
  darkest good part had there; or nothing at all is brighter than 8 grey levels. A part that is
  missing, or black instead of white, leaves the cells around it as they were.
* ``saturated``: of the cells that can show saturation, 90 % have more than twice the light that the
  brightest good part had there, or are white; and 5 % more of the pixels are saturated than in any
  good picture.
* ``out_of_focus``: every cell has the light that good parts had there, and the picture has its
  large contrasts, but its detail is nearer to that of good parts after a blur than to that of good
  parts. Detail is the energy of the Laplacian at half size, in the cells that have most of it,
  relative to the light. Where a blur would not show against the sensor's noise, focus is not
  watched.

Something that fills the whole region (another material, a cloth before the lens) cannot be told
from a change of the lamp by its pixels, nor can black on black from a dark picture: both are a
FAULT, too. Whether a camera froze is no property of one picture: ``inspector.judging.judge`` sees
that.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from inspector.detection.manifest import Exposure, Fitness
from inspector.errors import Fault
from inspector.imaging.images import edge_energy, exposure, gaussian_blur, half_grey
from inspector.verdict import FloatMap, Frame8, Reason

_CELLS: Final = 8
"""Rows and columns of the grid over the judged region."""
_STOP: Final = 2.0
"""How many times darker or brighter than every good part the light must be (an f-stop)."""
_BLACK: Final = 8.0
"""Mean grey of a cell below which it shows nothing: the lowest three of eight bits."""
_WHITE: Final = 250.0
"""Mean grey of a cell from which on it is white."""
_CLIPPED: Final = 254
"""Pixel value from which on it is saturated."""
_EVERYWHERE: Final = 0.9
"""Share of the cells that counts as all of them."""
_ENOUGH_CELLS: Final = 0.5
"""If fewer cells than this share can show the fault, judge only the picture as a whole."""
_MORE_SATURATED: Final = 0.05
"""How much more of a picture may be saturated than of any good one, as a share of its pixels."""
_BLUR_SHARE: Final = 1 / 128
"""Standard deviation of the blur that is too much, as a share of the longer side."""
_BLUR_SHOWS: Final = 2.0
"""Focus is watched only where that blur divides the detail by at least this."""
_LIGHT_SLACK: Final = 0.1
"""Share by which a cell may leave the light of good parts and still count as having it."""
_LEVEL_SLACK: Final = 8.0
"""Grey levels by which it may do so, in addition."""
_CONTRAST_LEFT: Final = 0.8
"""Share of a good picture's contrast between cells that a blurred one still has."""


@dataclass(frozen=True)
class Measures:
    """What is measured on one picture."""

    picture: Frame8
    cells: FloatMap
    """Mean grey of each cell, float32 ``[8, 8]``, 0..255."""
    detail: float
    """Relative energy of the edges, without a unit."""

    @property
    def saturated(self) -> float:
        """Share of saturated pixel values; counted when asked, since few pictures need it."""
        return np.count_nonzero(self.picture >= _CLIPPED) / self.picture.size

    @property
    def contrast(self) -> float:
        """Standard deviation of the cells, in grey levels."""
        return float(self.cells.std())


def measure(picture: Frame8) -> Measures:
    """Measure the judged region: ``picture`` is uint8 BGR ``[H, W, 3]`` at network size."""
    half = half_grey(picture)
    return Measures(picture, _cell_means(half), _detail(half))


def learn(pictures: Iterable[Frame8]) -> Exposure:
    """The limits from pictures of good parts, each as for :func:`measure`.

    Raises ValueError when there is no picture.
    """
    learnt: Exposure | None = None
    for picture in pictures:
        learnt = _limits_of(picture) if learnt is None else _join(learnt, _limits_of(picture))
    if learnt is None:
        raise ValueError("no pictures to learn from")
    return learnt


def widen(learnt: Exposure, pictures: Iterable[Frame8]) -> Exposure:
    """``learnt``, widened by more pictures of good parts.

    Limits of an older bundle stay without ``fitness``: its good parts cannot be measured any more.
    """
    for picture in pictures:
        learnt = _join(learnt, _limits_of(picture))
    return learnt


def check(picture: Frame8, learnt: Exposure) -> Fault | None:
    """Why ``picture`` cannot be judged, or None when it can.

    ``picture`` is the judged region, uint8 BGR ``[H, W, 3]`` at network size. The fault has the
    reason, and in words the value measured beside the one allowed. With the limits of an older
    bundle, only a picture that is all black or all white is found.
    """
    found = measure(picture)
    if learnt.fitness is None:
        return _check_whole_picture(found, learnt)
    return _check_light(found, learnt.fitness) or _check_focus(found, learnt.fitness)


def _check_light(found: Measures, fit: Fitness) -> Fault | None:
    darkest, brightest = _grid(fit.darkest), _grid(fit.brightest)
    # A cell that was nearly black in a good part cannot show darkness.
    can_tell = darkest >= _STOP * _BLACK
    dark = found.cells < darkest / _STOP
    all_black = found.cells.max() < _BLACK and brightest.max() >= _STOP * _BLACK
    if all_black or _holds_everywhere(dark, can_tell):
        return _too_dark(found, f"{darkest.mean():.0f}")
    # A cell that was nearly white in a good part cannot show saturation.
    can_tell = brightest < _WHITE - _BLACK
    # Twice the light of a bright cell would be beyond white: halfway from it to white will do.
    level = np.minimum(_STOP * np.maximum(brightest, _BLACK), 0.5 * (brightest + 255.0))
    bright = found.cells > level
    allowed = min(1.0, fit.saturated + _MORE_SATURATED)
    all_white = found.cells.min() >= _WHITE and darkest.min() < _WHITE - _BLACK
    if all_white or (_holds_everywhere(bright, can_tell) and found.saturated > allowed):
        return Fault(
            Reason.SATURATED.value,
            f"{found.saturated:.0%} of the picture is saturated (allowed {allowed:.0%}), mean "
            f"brightness {found.cells.mean():.0f} (good parts at most {brightest.mean():.0f}): "
            f"shorten the exposure",
        )
    return None


def _check_focus(found: Measures, fit: Fitness) -> Fault | None:
    limit = focus_limit(fit)
    if limit is None or found.detail >= limit or found.contrast < _CONTRAST_LEFT * fit.contrast:
        return None
    low = _grid(fit.darkest) * (1.0 - _LIGHT_SLACK) - _LEVEL_SLACK
    high = _grid(fit.brightest) * (1.0 + _LIGHT_SLACK) + _LEVEL_SLACK
    # Where the light is another, something else lies there, or the lamp has changed.
    if ((found.cells < low) | (found.cells > high)).mean() > 1.0 - _EVERYWHERE:
        return None
    return Fault(
        Reason.OUT_OF_FOCUS.value,
        f"detail is {found.detail / fit.detail:.0%} of the least sharp good part's, at least "
        f"{limit / fit.detail:.0%} is needed: check focus, lens and vibration",
    )


def focus_limit(fit: Fitness) -> float | None:
    """Least detail of a picture in focus, or None where a blur would not show.

    It is the geometric mean of the least detail of a good part and the most after a blur.
    """
    if fit.detail < _BLUR_SHOWS * fit.blurred or fit.detail == 0.0:
        return None
    return math.sqrt(fit.detail * fit.blurred)


def _check_whole_picture(found: Measures, learnt: Exposure) -> Fault | None:
    low, high = learnt.brightness
    if found.cells.max() < _BLACK and low >= _STOP * _BLACK:
        return _too_dark(found, f"{low:.0f}")
    if found.cells.min() >= _WHITE and high < _WHITE - _BLACK:
        return Fault(
            Reason.SATURATED.value,
            f"the picture is white (brightness {found.cells.mean():.0f}, good parts at most "
            f"{high:.0f}): shorten the exposure",
        )
    return None


def _too_dark(found: Measures, usual: str) -> Fault:
    return Fault(
        Reason.TOO_DARK.value,
        f"mean brightness {found.cells.mean():.0f}, good parts have at least {usual} and half of "
        f"that is needed: check the lamp and the exposure",
    )


def _holds_everywhere(fault: npt.NDArray[np.bool_], can_tell: npt.NDArray[np.bool_]) -> bool:
    """Whether enough cells can tell, and of them nearly all show the ``fault``."""
    return bool(can_tell.mean() >= _ENOUGH_CELLS and fault[can_tell].mean() >= _EVERYWHERE)


@functools.lru_cache(maxsize=64)
def _grid(values: tuple[float, ...]) -> FloatMap:
    grid = np.asarray(values, dtype=np.float32).reshape(_CELLS, _CELLS)
    grid.flags.writeable = False
    return grid


def _limits_of(picture: Frame8) -> Exposure:
    """The limits from one picture of a good part."""
    found, (brightness, sharpness) = measure(picture), exposure(picture)
    cells = tuple(round(float(level), 2) for level in found.cells.ravel())
    return Exposure(
        brightness=(brightness, brightness),
        sharpness=(sharpness, sharpness),
        fitness=Fitness(
            darkest=cells,
            brightest=cells,
            saturated=found.saturated,
            contrast=found.contrast,
            detail=found.detail,
            blurred=_detail(_blurred(half_grey(picture), _BLUR_SHARE * max(picture.shape) / 2)),
        ),
    )


def _join(one: Exposure, other: Exposure) -> Exposure:
    return Exposure(
        brightness=_span(one.brightness, other.brightness),
        sharpness=_span(one.sharpness, other.sharpness),
        fitness=_join_fitness(one.fitness, other.fitness),
    )


def _join_fitness(one: Fitness | None, other: Fitness | None) -> Fitness | None:
    if one is None or other is None:
        return None
    return Fitness(
        darkest=tuple(map(min, one.darkest, other.darkest)),
        brightest=tuple(map(max, one.brightest, other.brightest)),
        saturated=max(one.saturated, other.saturated),
        contrast=min(one.contrast, other.contrast),
        detail=min(one.detail, other.detail),
        blurred=max(one.blurred, other.blurred),
    )


def _span(one: tuple[float, float], other: tuple[float, float]) -> tuple[float, float]:
    return min(one[0], other[0]), max(one[1], other[1])


def _cell_means(values: FloatMap) -> FloatMap:
    height, width = values.shape
    # The mean over whole rows first takes a quarter of the time of one over both axes at once.
    rows = values.reshape(_CELLS, height // _CELLS, width).mean(axis=1)
    return np.asarray(rows.reshape(_CELLS, _CELLS, -1).mean(axis=2), dtype=np.float32)


def _detail(half: FloatMap) -> float:
    """The detail of a picture from its grey levels at half size; :class:`Measures` has its unit."""
    light = max(float(half.mean()), 1.0)
    cells = np.sort(_cell_means(edge_energy(half)), axis=None)
    # numpy.quantile gives the same, and takes ten times as long for so few values.
    below, share = divmod(_EVERYWHERE * (len(cells) - 1), 1.0)
    low, high = cells[int(below)], cells[int(below) + 1]
    return float(low + share * (high - low)) / light**2


def _blurred(half: FloatMap, sigma: float) -> FloatMap:
    """``half`` as through a lens out of focus: the picture is blurred, the sensor's noise is not.

    ``sigma`` is the standard deviation of the blur, in pixels of ``half``.
    """
    noise = np.random.default_rng(0).standard_normal(half.shape, dtype=np.float32)
    return np.asarray(gaussian_blur(half, sigma) + noise * _noise(half), dtype=np.float32)


def _noise(half: FloatMap) -> np.float32:
    """Standard deviation of the noise, in grey levels, by Immerkær's mask.

    The median instead of his mean leaves the edges out.
    """
    across = half[:, :-2] - 2 * half[:, 1:-1] + half[:, 2:]
    both = across[:-2] - 2 * across[1:-1] + across[2:]
    return np.float32(np.median(np.abs(both)) / 0.6745 / 6.0)
