"""Is a picture fit for judging? Too dark, saturated, out of focus or frozen is a FAULT, no guess.

"Unlike training" is no fault: that is what a gross defect looks like. Each rule therefore asks for
what only the lamp, the lens or the camera can do, **everywhere at once**, over a grid of 8x8 cells:

* ``too_dark``: 90 % of the cells that can tell have less than half the light that the darkest good
  part had there; or nothing at all is brighter than 8 grey levels. A part that is missing, or black
  instead of white, leaves the cells around it as they were.
* ``saturated``: 90 % of the cells that can tell have more than twice the light of the brightest
  good part there, or are white, and of the pixels 5 % more are saturated than in any good picture.
* ``out_of_focus``: every cell has the light good parts had there, and the picture its large
  contrasts, but its detail is nearer to that of good parts after a blur than to that of good parts.
  Detail is the energy of the Laplacian at half size, in the cells that have most of it, relative
  to the light. Where a blur would not show against the sensor's noise nothing is called blurred.
* ``frozen``: a live camera sent the very bytes of its previous frame; sensor noise never does.

What is gross enough to fill the whole region (another material, a cloth before the lens) cannot be
told from the lamp by its pixels, and black on black not from a dark picture: both are FAULT too.
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
from inspector.imaging.images import edge_energy, exposure, half_grey
from inspector.verdict import FloatMap, Frame8, Reason

CELLS: Final = 8
STOP: Final = 2.0
"""How many times darker or brighter than every good part the light must be."""

_BLACK: Final = 8.0
"""Grey levels that show nothing: three bits."""
_WHITE: Final = 250.0
_CLIPPED: Final = 254
_EVERYWHERE: Final = 0.9
_TELLING: Final = 0.5
"""Share of the cells that must be able to tell, or only the whole picture can."""
_SATURATED_MORE: Final = 0.05
_BLUR_SHARE: Final = 1 / 128
"""The blur that is too much, as a share of the longer side (standard deviation)."""
_BLUR_SHOWS: Final = 2.0
"""A blur must take at least so much of the detail, or focus is not watched."""
_LIGHT_SLACK: Final = 0.1
_LEVEL_SLACK: Final = 8.0
_CONTRAST_LEFT: Final = 0.8


@dataclass(frozen=True)
class Measures:
    """One picture: mean grey of the cells float32 ``[8, 8]`` (0..255), detail (relative energy, no
    unit), share of saturated pixels."""

    picture: Frame8
    cells: FloatMap
    detail: float

    @property
    def saturated(self) -> float:
        """Looked for when asked: few pictures are bright enough to need it."""
        return np.count_nonzero(self.picture >= _CLIPPED) / self.picture.size

    @property
    def contrast(self) -> float:
        """Standard deviation of the cells, grey levels."""
        return float(self.cells.std())


def measure(picture: Frame8) -> Measures:
    """Measure the judged region, uint8 BGR ``[H, W, 3]`` at network size."""
    half = half_grey(picture)
    return Measures(picture, _cell_means(half), _detail(half))


def learn(pictures: Iterable[Frame8]) -> Exposure:
    """Ranges over the pictures of good parts, each as for :func:`measure`; at least one."""
    learnt: Exposure | None = None
    for picture in pictures:
        learnt = _of_one(picture) if learnt is None else _join(learnt, _of_one(picture))
    if learnt is None:
        raise ValueError("no pictures to learn from")
    return learnt


def widen(learnt: Exposure, pictures: Iterable[Frame8]) -> Exposure:
    """``learnt`` with more pictures of good parts; an older bundle's stays without ``fitness``."""
    for picture in pictures:
        learnt = _join(learnt, _of_one(picture))
    return learnt


def check(picture: Frame8, learnt: Exposure) -> Fault | None:
    """What makes the judged region unfit, uint8 BGR ``[H, W, 3]`` at network size; None: nothing.

    The fault has the reason, and the value measured beside the one allowed. A bundle of an older
    version can only tell that all is black or white.
    """
    mine = measure(picture)
    if learnt.fitness is None:
        return _without_limits(mine, learnt)
    return _light(mine, learnt.fitness) or _focus(mine, learnt.fitness)


def _light(mine: Measures, fit: Fitness) -> Fault | None:
    darkest, brightest = _grid(fit.darkest), _grid(fit.brightest)
    tell = darkest >= STOP * _BLACK
    dark = mine.cells < darkest / STOP
    if (_most(dark, tell) and tell.mean() >= _TELLING) or (
        mine.cells.max() < _BLACK and brightest.max() >= STOP * _BLACK
    ):
        return _too_dark(mine, f"{darkest.mean():.0f}")
    tell = brightest < _WHITE - _BLACK
    level = np.minimum(STOP * np.maximum(brightest, _BLACK), 0.5 * (brightest + 255.0))
    bright = mine.cells > level
    allowed = min(1.0, fit.saturated + _SATURATED_MORE)
    all_white = mine.cells.min() >= _WHITE and darkest.min() < _WHITE - _BLACK
    if all_white or (_most(bright, tell) and tell.mean() >= _TELLING and mine.saturated > allowed):
        return Fault(
            Reason.SATURATED.value,
            f"{mine.saturated:.0%} of the picture is saturated (allowed {allowed:.0%}), mean "
            f"brightness {mine.cells.mean():.0f} (good parts at most {brightest.mean():.0f}): "
            f"shorten the exposure",
        )
    return None


def _focus(mine: Measures, fit: Fitness) -> Fault | None:
    limit = focus_limit(fit)
    if limit is None or mine.detail >= limit or mine.contrast < _CONTRAST_LEFT * fit.contrast:
        return None
    low = _grid(fit.darkest) * (1.0 - _LIGHT_SLACK) - _LEVEL_SLACK
    high = _grid(fit.brightest) * (1.0 + _LIGHT_SLACK) + _LEVEL_SLACK
    # Another light, or another thing there, is no matter of focus.
    if ((mine.cells < low) | (mine.cells > high)).mean() > 1.0 - _EVERYWHERE:
        return None
    return Fault(
        Reason.OUT_OF_FOCUS.value,
        f"detail is {mine.detail / fit.detail:.0%} of the least sharp good part's, at least "
        f"{limit / fit.detail:.0%} is needed: check focus, lens and vibration",
    )


def focus_limit(fit: Fitness) -> float | None:
    """Least detail of a picture in focus: the geometric mean of good and blurred; None: unknown."""
    if fit.detail < _BLUR_SHOWS * fit.blurred or fit.detail == 0.0:
        return None
    return math.sqrt(fit.detail * fit.blurred)


def _without_limits(mine: Measures, learnt: Exposure) -> Fault | None:
    low, high = learnt.brightness
    if mine.cells.max() < _BLACK and low >= STOP * _BLACK:
        return _too_dark(mine, f"{low:.0f}")
    if mine.cells.min() >= _WHITE and high < _WHITE - _BLACK:
        return Fault(
            Reason.SATURATED.value,
            f"the picture is white (brightness {mine.cells.mean():.0f}, good parts at most "
            f"{high:.0f}): shorten the exposure",
        )
    return None


def _too_dark(mine: Measures, usual: str) -> Fault:
    return Fault(
        Reason.TOO_DARK.value,
        f"mean brightness {mine.cells.mean():.0f}, good parts have at least {usual} and half of "
        f"that is needed: check the lamp and the exposure",
    )


def _most(which: npt.NDArray[np.bool_], among: npt.NDArray[np.bool_]) -> bool:
    return bool(among.any() and which[among].mean() >= _EVERYWHERE)


@functools.lru_cache(maxsize=64)
def _grid(values: tuple[float, ...]) -> FloatMap:
    grid = np.asarray(values, dtype=np.float32).reshape(CELLS, CELLS)
    grid.flags.writeable = False
    return grid


def _of_one(picture: Frame8) -> Exposure:
    mine, (brightness, sharpness) = measure(picture), exposure(picture)
    cells = tuple(round(float(level), 2) for level in mine.cells.ravel())
    return Exposure(
        brightness=(brightness, brightness),
        sharpness=(sharpness, sharpness),
        fitness=Fitness(
            darkest=cells,
            brightest=cells,
            saturated=mine.saturated,
            contrast=mine.contrast,
            detail=mine.detail,
            blurred=_detail(_blurred(half_grey(picture), _BLUR_SHARE * max(picture.shape) / 2)),
        ),
    )


def _join(one: Exposure, other: Exposure) -> Exposure:
    return Exposure(
        brightness=_hull(one.brightness, other.brightness),
        sharpness=_hull(one.sharpness, other.sharpness),
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


def _hull(one: tuple[float, float], other: tuple[float, float]) -> tuple[float, float]:
    return min(one[0], other[0]), max(one[1], other[1])


def _cell_means(values: FloatMap) -> FloatMap:
    height, width = values.shape
    # Whole rows first: four times as quick as the mean over both axes at once.
    rows = values.reshape(CELLS, height // CELLS, width).mean(axis=1)
    return np.asarray(rows.reshape(CELLS, CELLS, -1).mean(axis=2), dtype=np.float32)


def _detail(half: FloatMap) -> float:
    light = max(float(half.mean()), 1.0)
    cells = np.sort(_cell_means(edge_energy(half)), axis=None)
    # As numpy.quantile, which takes ten times as long for so few.
    below, share = divmod(_EVERYWHERE * (len(cells) - 1), 1.0)
    low, high = cells[int(below)], cells[int(below) + 1]
    return float(low + share * (high - low)) / light**2


def _blurred(half: FloatMap, sigma: float) -> FloatMap:
    """As through a lens out of focus: the picture is blurred, the sensor's noise is not."""
    reach = math.ceil(3 * sigma)
    taps = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    taps = (taps / taps.sum()).astype(np.float32)
    out = half
    for axis in (0, 1):
        length = out.shape[axis]
        padded = np.pad(out, [(reach, reach) if a == axis else (0, 0) for a in (0, 1)], "reflect")
        shifted = (np.take(padded, range(i, i + length), axis) for i in range(len(taps)))
        out = np.zeros_like(half)
        for tap, part in zip(taps, shifted, strict=True):
            out += tap * part
    noise = np.random.default_rng(0).standard_normal(half.shape, dtype=np.float32)
    return np.asarray(out + noise * _noise(half), dtype=np.float32)


def _noise(half: FloatMap) -> np.float32:
    """Standard deviation of the noise, by Immerkær's mask; the median leaves edges out."""
    across = half[:, :-2] - 2 * half[:, 1:-1] + half[:, 2:]
    both = across[:-2] - 2 * across[1:-1] + across[2:]
    return np.float32(np.median(np.abs(both)) / 0.6745 / 6.0)
