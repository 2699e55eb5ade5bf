"""Parts of a photo that are moved: shifted, turned, missing, or there twice.

What can be moved is found in the photo of the good part itself: a place that differs clearly from
everything around it, such as a component on a board or the part on its background. Photos of an
even texture have none.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt

from export.data.pixels import Floats, Rng, deep, f32, fill, grain, log_uniform
from inspector.verdict import Frame8

KINDS: Final = ("doubled", "missing", "shifted", "turned")

Box = tuple[slice, slice]

_SEARCHED_PX = 160
_AREA = (0.003, 0.3)
"""Smallest and largest share of the photo that a part may cover."""
_STANDS_OUT = 3.5
"""A part's level is at least so many times the spread around it away from its surround."""
_LEAST_LEVELS = 14.0
_RING_PX = 5
_LEVELS = 9
_MOST = 8
_OVERLAP = 0.5
_FEWEST_PX = 24
_DIRECTIONS = 12
_ROOM = 0.9
"""Share of a moved part that must lie in the photo."""


@dataclass(frozen=True)
class Part:
    """Something that stands out. ``cover``: float32 0..1 ``[H, W]``, soft at its edge.

    ``box`` holds it; ``extent`` is the diameter of a disc of its area, px; ``row`` and ``column``
    are its centre.
    """

    cover: Floats
    box: Box
    row: float
    column: float
    extent: float


def find_parts(image: Frame8) -> list[Part]:
    """What stands out in ``image``, uint8 BGR ``[H, W, 3]``; the largest first, at most 8."""
    height, width = image.shape[:2]
    zoom = min(1.0, _SEARCHED_PX / max(height, width))
    shape = (max(8, round(width * zoom)), max(8, round(height * zoom)))
    small = cv2.resize(image, shape, interpolation=cv2.INTER_AREA)
    lab = cv2.cvtColor(small, cv2.COLOR_BGR2LAB).astype(np.float32)
    found: list[npt.NDArray[np.bool_]] = []
    for channel in cv2.split(cv2.GaussianBlur(lab, (0, 0), 0.8)):
        span = float(np.ptp(channel))
        if span < _LEAST_LEVELS:
            continue
        low = float(channel.min())
        for share in np.arange(1, _LEVELS + 1) / (_LEVELS + 1):
            level = low + span * share
            for above in (channel > level, channel < level):
                found += _standing(above.astype(np.uint8), lab)
    kept: list[npt.NDArray[np.bool_]] = []
    for mask in sorted(found, key=np.count_nonzero, reverse=True):
        if all((mask & other).sum() < _OVERLAP * (mask | other).sum() for other in kept):
            kept.append(mask)
    return [_enlarged(mask, (height, width)) for mask in kept[:_MOST]]


def _standing(above: npt.NDArray[np.uint8], lab: Floats) -> list[npt.NDArray[np.bool_]]:
    """Masks of the connected places of ``above`` that stand out of their surround."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(above, connectivity=4)
    height, width = above.shape
    least = max(_AREA[0] * above.size, _FEWEST_PX)
    ring = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * _RING_PX + 1,) * 2)
    made = []
    order = np.argsort(stats[1:count, cv2.CC_STAT_AREA])[::-1][:_MOST] + 1
    for label in order:
        left, top, across, down, area = stats[label]
        inside = left > 0 and top > 0 and left + across < width and top + down < height
        if not inside or not least <= area <= _AREA[1] * above.size:
            continue
        if area < 0.25 * across * down:
            # Something so hollow or so thin and slanted is a contour or a scratch, not a part.
            continue
        mask = labels == label
        near = np.asarray(cv2.dilate(mask.astype(np.uint8), ring)) > 0
        core = np.asarray(cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8))) > 0
        around = near & ~(np.asarray(cv2.dilate(mask.astype(np.uint8), np.ones((3, 3)))) > 0)
        if not core.any() or not around.any():
            continue
        away = lab[core].mean(axis=0) - lab[around].mean(axis=0)
        spread = np.hypot(lab[around].std(axis=0), 0.5 * lab[core].std(axis=0))
        if float(np.linalg.norm(away)) < _LEAST_LEVELS:
            continue
        if float(np.linalg.norm(away)) >= _STANDS_OUT * float(np.linalg.norm(spread)):
            made.append(mask)
    return made


def _enlarged(mask: npt.NDArray[np.bool_], shape: tuple[int, int]) -> Part:
    """The part of a mask of the small picture in the photo of ``shape``."""
    height, width = shape
    zoom = max(height / mask.shape[0], width / mask.shape[1])
    # A part's blurred outline and the small picture's coarse grid belong to it.
    grown = cv2.dilate(mask.astype(np.uint8), np.ones((3, 3), np.uint8))
    cover = cv2.resize(f32(grown), (width, height), interpolation=cv2.INTER_LINEAR)
    cover = f32(cv2.GaussianBlur(f32(cover > 0.5), (0, 0), max(0.6, 0.4 * zoom)))
    cover[cover < 0.02] = 0.0
    rows, columns = np.flatnonzero(cover.any(axis=1)), np.flatnonzero(cover.any(axis=0))
    box = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    weight = float(cover.sum())
    row = float((cover.sum(axis=1) * np.arange(height)).sum() / weight)
    column = float((cover.sum(axis=0) * np.arange(width)).sum() / weight)
    return Part(cover, box, row, column, 2.0 * math.sqrt(weight / math.pi))


def draw(kind: str, photo: Frame8, parts: list[Part], rng: Rng) -> tuple[Box, Floats]:
    """A part of ``photo`` ``[H, W, 1 or 3]`` misplaced: where, and the pixels float32 there.

    ``kind`` is one of :data:`KINDS`, ``parts`` come from :func:`find_parts`. Where nothing can be
    moved, the pixels are as they were.
    """
    # Large parts are chosen more often, but not as much as their area says.
    chances = np.sqrt([part.extent for part in parts])
    part = parts[int(rng.choice(len(parts), p=chances / chances.sum()))]
    back = _placement(kind, part, photo.shape[:2], rng)
    box = _window(part, back, photo.shape[:2])
    pixels = photo[box].astype(np.float32)
    base = pixels if kind == "doubled" else _without(photo, part, box, rng)
    if kind == "missing" or back is None:
        return box, base if kind == "missing" else pixels
    here = back @ np.array([[1, 0, box[1].start], [0, 1, box[0].start], [0, 0, 1]])
    size = (pixels.shape[1], pixels.shape[0])
    how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    border = cv2.BORDER_REFLECT_101
    moved = deep(cv2.warpAffine(f32(photo), here, size, flags=how, borderMode=border))
    weight = cv2.warpAffine(part.cover, here, size, flags=how)[:, :, None]
    return box, f32(base + weight * (moved - base))


def _placement(
    kind: str, part: Part, shape: tuple[int, int], rng: Rng
) -> npt.NDArray[np.float64] | None:
    """The affine matrix ``[2, 3]`` from where the part goes back to where it is; None: no room."""
    for _ in range(_DIRECTIONS):
        heading, turn, reach = rng.uniform(0, 2 * math.pi), 0.0, 0.0
        if kind == "shifted":
            reach = log_uniform(rng, max(2.0, 0.06 * part.extent), max(3.0, 0.6 * part.extent))
        elif kind == "doubled":
            reach = rng.uniform(0.5, 1.4) * part.extent
            turn = rng.normal(0.0, 0.1)
        elif kind == "turned":
            turn = float(rng.choice([-1.0, 1.0])) * log_uniform(rng, math.radians(6), math.pi)
        dy, dx = reach * math.sin(heading), reach * math.cos(heading)
        c, s = math.cos(turn), math.sin(turn)
        to_row, to_column = part.row + dy, part.column + dx
        back = np.array(
            [
                [c, s, part.column - c * to_column - s * to_row],
                [-s, c, part.row + s * to_column - c * to_row],
            ]
        )
        forward = cv2.invertAffineTransform(back)
        there = cv2.warpAffine(part.cover, forward, shape[::-1])
        if float(there.sum()) >= _ROOM * float(part.cover.sum()):
            return back
    return None


def _window(part: Part, back: npt.NDArray[np.float64] | None, shape: tuple[int, int]) -> Box:
    """The rectangle around the part where it is and where it goes, with room for its surround."""
    rows, columns = part.box
    corners = [(x, y) for x in (columns.start, columns.stop) for y in (rows.start, rows.stop)]
    ends = np.array(corners, dtype=np.float64)
    if back is not None:
        forward = cv2.invertAffineTransform(back)
        ends = np.vstack([ends, ends @ forward[:, :2].T + forward[:, 2]])
    # So wide that a piece of the surround as large as the part can be found for its place.
    margin = 6 + 1.1 * part.extent
    low = np.maximum(np.floor(ends.min(axis=0) - margin), 0).astype(int)
    high = np.minimum(np.ceil(ends.max(axis=0) + margin), np.array(shape[::-1])).astype(int)
    return slice(int(low[1]), int(high[1])), slice(int(low[0]), int(high[0]))


def _without(photo: Frame8, part: Part, box: Box, rng: Rng) -> Floats:
    """The pixels of ``box`` with the part's surround, and its texture, in the part's place."""
    pixels, cover = photo[box].astype(np.float32), part.cover[box]
    free = f32(cover == 0.0)
    filled = fill(pixels, free)
    texture = _texture_beside(pixels, free, part)
    filled = filled + (grain(pixels, rng) if texture is None else texture)
    # The seam lies outside the part, where both sides agree.
    weight = np.clip(2.0 * cover, 0.0, 1.0)[:, :, None]
    return f32(pixels + weight * (filled - pixels))


def _texture_beside(pixels: Floats, free: Floats, part: Part) -> Any:
    """Fine differences of a place beside the part, brought to it; None where there is no such."""
    sigma = max(1.5, 0.08 * part.extent)
    fine = pixels - deep(cv2.GaussianBlur(fill(pixels, free), (0, 0), sigma))
    rows, columns = part.box
    wanted = free == 0.0
    for down, across in ((0, 1), (0, -1), (1, 0), (-1, 0)):
        shift = (down * (rows.stop - rows.start), across * (columns.stop - columns.start))
        source = np.roll(free, shift, axis=(0, 1))
        if float(source[wanted].min(initial=1.0)) == 1.0:
            return np.roll(fine, shift, axis=(0, 1))
    return None
