"""Defects drawn on photos of good parts, to compare settings before any real defect is known.

Three families, each at the photo's own resolution. Marks alter a small place. Large faint changes
are what uneven surfaces show: a film or a cloud over a good share of the part, a few grey levels
strong. Misplaced parts (``misplaced.py``) alter no surface at all: something that stands out of the
photo is shifted, turned, missing or there twice. The weakest defects are hardly visible to a
person, so that even good settings miss some and better ones can be told.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt

from export.data import misplaced
from export.data.pixels import Floats, Rng, deep, f32, fill, grain, log_uniform, smooth
from inspector.verdict import Frame8

Mask = npt.NDArray[np.bool_]

SIZES: Final = (0.01, 0.15)
"""Smallest and largest extent of a mark, as a share of the photo's side; scratches: double."""

FAINT_SIZES: Final = (0.25, 0.6)
"""Smallest and largest extent of a large faint change, as a share of the photo's shorter side."""

MARGIN_PX: Final = 3
"""Farther than this from its mask, a photo is unchanged."""

_SMALLEST_PX = 3.0
_TRIES = 5
_MAP_PX = 96
_ANYWHERE = 0.08
_COVERED = 0.95
_MOST_CLOSED_PX = 24


@dataclass(frozen=True)
class Synthetic:
    """``image``: uint8 BGR ``[H, W, 3]``; ``mask``: bool ``[H, W]``, where the change shows."""

    image: Frame8
    mask: Mask
    kind: str


@dataclass(frozen=True)
class _Site:
    """The place of a defect. ``photo`` and ``other``: uint8 ``[H, W, 1 or 3]``; lengths in px."""

    photo: Frame8
    other: Frame8
    row: int
    column: int
    size: float
    side: float
    step: float
    """Change in grey levels."""


@dataclass(frozen=True)
class _Window:
    """The pixels around a site; ``x`` and ``y`` are px from the site's centre."""

    rows: slice
    columns: slice
    pixels: Floats
    x: Floats
    y: Floats


def defective(images: Sequence[Frame8], seed: int) -> Iterator[Synthetic]:
    """One defect for each photo, in order; each time a kind that was drawn least so far.

    ``images``: uint8 BGR ``[H, W, 3]``, of any sizes of at least 16 px. Two are read at a time, so
    that a lazy sequence will do, and none is altered. Grey photos stay grey. On a photo in which no
    part stands out (:func:`~export.data.misplaced.find_parts`) no kind of ``misplaced.KINDS`` is
    drawn; :func:`left_out` tells which kinds never were.
    """
    used = dict.fromkeys(KINDS, 0)
    for index, image in enumerate(images):
        rng = np.random.default_rng([seed, index + 1])
        source = int(rng.integers(len(images)))
        other = image if source == index else images[source]
        yield _spoil(image, other, used, rng)


def left_out(drawn: Iterable[str]) -> tuple[str, ...]:
    """Kinds that are not among those ``drawn``, since they showed on no photo."""
    return tuple(sorted(set(KINDS) - set(drawn)))


def _spoil(image: Frame8, source: Frame8, used: dict[str, int], rng: Rng) -> Synthetic:
    """The photo with a defect of the kind ``used`` least, whose number grows."""
    grey = all(np.array_equal(image[:, :, 0], image[:, :, channel]) for channel in (1, 2))
    # A grey photo is altered in one channel, so that its three channels stay equal.
    photo = image[:, :, :1] if grey else image
    other = deep(cv2.cvtColor(source, cv2.COLOR_BGR2GRAY)) if grey else source
    parts, edges = _interest(image)
    find_standing = functools.cache(lambda: misplaced.find_parts(image))
    ties = {str(kind): place for place, kind in enumerate(rng.permutation(sorted(KINDS)))}
    for kind in sorted(KINDS, key=lambda kind: (used[kind], ties[kind])):
        if kind in misplaced.KINDS and not find_standing():
            continue
        # A kind that does not show here has had its turn: others must not wait for it for ever.
        used[kind] += 1
        for tried in range(_TRIES):
            if kind in misplaced.KINDS:
                box, after = misplaced.draw(kind, photo, find_standing(), rng)
            else:
                at = _place(edges if kind in _NEEDS_EDGES else parts, photo, rng)
                site = _site((photo, other), at, 1.25**tried, rng)
                window, after = _MARKS[kind](site, rng)
                box = (window.rows, window.columns)
            made = _settle(image, box, after, kind)
            if made is not None:
                return made
    window, after = _blot(_site((photo, other), _place(parts, photo, rng), 1.0, rng))
    made = _settle(image, (window.rows, window.columns), after, "stain", least=0.0)
    assert made is not None
    return made


def _settle(
    image: Frame8, box: tuple[slice, slice], after: Floats, kind: str, least: float = 4.0
) -> Synthetic | None:
    """The photo with ``after`` in its ``box``, and the mask; None if the change hardly shows."""
    before = image[box]
    changed = np.clip(np.rint(after), 0, 255).astype(np.uint8)
    changed = changed.repeat(3 // changed.shape[2], axis=2)
    lifted = changed.astype(np.float32) - before
    change = np.abs(lifted).max(axis=2)
    total = float(change.sum())
    if total == 0.0:
        return None
    soft = np.asarray(cv2.GaussianBlur(change, (0, 0), 0.7))
    weights = np.bincount(soft.astype(np.intp).ravel(), change.ravel(), minlength=256)
    covered = np.cumsum(weights[::-1])[::-1]
    level = int(np.flatnonzero(covered >= _COVERED * total)[-1])
    raw = (soft >= max(level, 1e-3)).astype(np.uint8)
    mask = _clean(raw)
    if float(change[mask > 0].sum()) < _COVERED * total:
        # In a defect of a few pixels a speck is a large part, so specks stay in the mask.
        mask |= raw
    # Differences that average to zero are grain, not a defect; the blur removes them.
    shown = np.abs(np.asarray(cv2.GaussianBlur(lifted, (0, 0), 0.8))).reshape(lifted.shape)
    if not mask.any() or float(np.quantile(shown.max(axis=2)[mask > 0], 0.8)) < least:
        return None
    reach = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * MARGIN_PX + 1,) * 2)
    near = np.asarray(cv2.dilate(mask, reach))[:, :, None] > 0
    spoiled, whole = image.copy(), np.zeros(image.shape[:2], dtype=np.bool_)
    spoiled[box] = np.where(near, changed, before)
    whole[box] = mask > 0
    return Synthetic(spoiled, whole, kind)


def _clean(mask: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """The mask with its gaps closed, its holes filled and its specks dropped."""
    extent = math.sqrt(float(np.count_nonzero(mask)))
    # The cost grows with the square of the radius, which large changes do not need.
    radius = min(1 + int(0.1 * extent), _MOST_CLOSED_PX)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1,) * 2)
    padded = np.pad(mask, radius + 1)
    closed = np.asarray(cv2.morphologyEx(padded, cv2.MORPH_CLOSE, kernel))
    closed = closed[radius + 1 : -radius - 1, radius + 1 : -radius - 1]
    count, labels, stats, _ = cv2.connectedComponentsWithStats(closed, connectivity=8)
    areas = stats[:, cv2.CC_STAT_AREA]
    kept = areas >= max(2.0, 0.02 * float(areas[1:].max(initial=0)))
    kept[0] = False
    return np.asarray(kept[labels], dtype=np.uint8) if count > 1 else mask


def _interest(image: Frame8) -> tuple[Floats, Floats]:
    """Chances on a coarse grid that a defect goes there: on the part, and on edges.

    On a texture the chance is nearly the same everywhere, and so it is on a flat photo.
    """
    height, width = image.shape[:2]
    zoom = min(1.0, _MAP_PX / max(height, width))
    shape = (max(8, round(width * zoom)), max(8, round(height * zoom)))
    small = cv2.resize(image, shape, interpolation=cv2.INTER_AREA)
    grey = np.asarray(cv2.cvtColor(small, cv2.COLOR_BGR2GRAY), dtype=np.float32)
    rim = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    mean = cv2.blur(grey, (5, 5))
    spread = np.sqrt(np.maximum(cv2.blur(grey * grey, (5, 5)) - mean * mean, 0.0))
    away = np.abs(mean - float(np.median(rim)))
    return _chances(away + 2.0 * spread), _chances(spread * spread)


def _chances(interest: Floats) -> Floats:
    # The fourth power separates the part from a background that is only lit unevenly.
    power = np.square(np.square(interest)) + 1e-3
    wanted = power / (power + np.square(np.square(interest).mean()) + 1e-3)
    return np.asarray((1 - _ANYWHERE) * wanted + _ANYWHERE * wanted.mean(), dtype=np.float32)


def _place(chances: Floats, photo: Frame8, rng: Rng) -> tuple[int, int]:
    cumulated = np.cumsum(chances, dtype=np.float64)
    cell = int(np.searchsorted(cumulated, rng.uniform(0.0, cumulated[-1])))
    cell = min(cell, chances.size - 1)
    row, column = divmod(cell, chances.shape[1])
    at = rng.uniform(0.0, 1.0, 2)
    return (
        min(int((row + at[0]) / chances.shape[0] * photo.shape[0]), photo.shape[0] - 1),
        min(int((column + at[1]) / chances.shape[1] * photo.shape[1]), photo.shape[1] - 1),
    )


def _site(pair: tuple[Frame8, Frame8], at: tuple[int, int], boost: float, rng: Rng) -> _Site:
    photo, other = pair
    row, column = at
    side = math.sqrt(photo.shape[0] * photo.shape[1])
    largest = min(SIZES[1] * side, 0.5 * min(photo.shape[:2]))
    smallest = min(max(SIZES[0] * side, _SMALLEST_PX), largest)
    size = log_uniform(rng, smallest, largest) * boost**0.5
    site = _Site(photo, other, row, column, size, side, 0.0)
    around = _window(site, max(8.0, 1.5 * size)).pixels.mean(axis=2)
    # The median ignores the part's contours and measures its texture and the noise.
    texture = 1.5 * float(np.median(np.abs(around - cv2.blur(around, (9, 9)))))
    low = 6.0 + 1.2 * texture
    step = min(log_uniform(rng, low, 50.0 + 4.0 * texture) * boost, 140.0)
    return _Site(photo, other, row, column, size, side, step)


def _window(site: _Site, reach: float) -> _Window:
    height, width = site.photo.shape[:2]
    far = math.ceil(reach) + MARGIN_PX + 1
    rows = slice(max(0, site.row - far), min(height, site.row + far + 1))
    columns = slice(max(0, site.column - far), min(width, site.column + far + 1))
    y, x = np.mgrid[rows, columns].astype(np.float32)
    pixels = site.photo[rows, columns].astype(np.float32)
    return _Window(rows, columns, pixels, x - site.column, y - site.row)


def _scratch(site: _Site, rng: Rng) -> tuple[_Window, Floats]:
    """A groove: a curved or jagged line, often with a paler line beside it."""
    length = max(2.0 * site.size, 8.0)
    width = max(log_uniform(rng, 0.003, 0.015) * site.side, 0.9)
    width = min(width, 0.2 * length)
    count = 24
    t = np.linspace(-0.5, 0.5, count)
    if rng.random() < 0.7:
        side = rng.uniform(-0.2, 0.2) * (1 - 4 * t * t) + np.cumsum(rng.normal(0, 0.002, count))
    else:
        side = np.cumsum(rng.normal(0, 0.035, count))
        side -= side.mean()
    window = _window(site, 0.6 * length + 2 * width)
    turn = rng.uniform(0, math.pi)
    line = length * _turned(np.stack([t, side], axis=1), turn)
    taper = np.sin(np.linspace(0.2, math.pi - 0.2, count)) ** 0.5
    taper = taper * np.clip(1.0 + 0.5 * smooth(rng, (1, count), 4)[0], 0.25, 1.0)
    sign = _sign(window, site, rng)
    change = sign * _stroke(window, line, width, taper)
    if rng.random() < 0.4:
        shift = _turned(np.array([[0.0, 1.2 * width]]), turn)
        change -= 0.7 * sign * _stroke(window, line + shift, width, taper)
    return window, window.pixels + site.step * change[:, :, None]


def _stroke(
    window: _Window, line: npt.NDArray[Any], width: float, taper: npt.NDArray[Any]
) -> Floats:
    """Weights 0..1 of an anti-aliased line through the ``(x, y)`` of ``line``."""
    # OpenCV draws whole widths only, so a thin line is drawn enlarged and shrunk.
    zoom = max(1, round(4.0 / width))
    height, wide = window.x.shape
    drawn = np.zeros((height * zoom, wide * zoom), dtype=np.uint8)
    corner = np.array([window.x[0, 0], window.y[0, 0]]) - 0.5
    ends = np.rint(((line - corner) * zoom - 0.5) * 16).astype(int)
    for first, last, weight in zip(ends[:-1], ends[1:], taper, strict=False):
        thick = max(1, round(width * zoom))
        at, to = (int(first[0]), int(first[1])), (int(last[0]), int(last[1]))
        cv2.line(drawn, at, to, 255.0 * float(weight), thick, cv2.LINE_AA, 4)
    small = cv2.resize(drawn, (wide, height), interpolation=cv2.INTER_AREA)
    return np.asarray(small, dtype=np.float32) / np.float32(255.0)


def _stain(site: _Site, rng: Rng) -> tuple[_Window, Floats]:
    """A film of another shade, partly transparent, cloudy, sometimes with a dried rim."""
    window = _window(site, 0.8 * site.size)
    field = _blob(window, site, rng)
    film = _edge(field, site, log_uniform(rng, 1.0, 0.25 * site.size + 1.0))
    film = film * np.clip(1.0 + 0.3 * smooth(rng, film.shape, 8), 0.3, 1.5)
    if rng.random() < 0.3:
        film = film * (0.45 + 0.9 * np.exp(-np.square(field / 0.15)))
    channels = window.pixels.shape[2]
    tint = 1.0 + rng.normal(0, 0.35, channels) if channels == 3 else np.ones(1)
    shift = _sign(window, site, rng) * site.step * np.clip(tint, 0.0, 1.6)
    opaque = rng.uniform(0.1, 0.8)
    colour = np.median(window.pixels, axis=(0, 1)) + shift / opaque
    weight = np.clip(film * opaque, 0.0, 1.0)[:, :, None]
    return window, f32(window.pixels + weight * (colour - window.pixels))


def _blot(site: _Site) -> tuple[_Window, Floats]:
    """A plain disc of the opposite brightness, which shows on every photo."""
    window = _window(site, 0.8 * site.size)
    inside = np.hypot(window.x, window.y) <= max(0.5 * site.size, 1.0)
    level = 0.0 if float(window.pixels[inside].mean()) > 127.0 else 255.0
    return window, f32(np.where(inside[:, :, None], level, window.pixels))


def _dent(site: _Site, rng: Rng) -> tuple[_Window, Floats]:
    """A dent or a bump under a light from one side, or a pit with a dark ground."""
    window = _window(site, site.size)
    u, v = _ellipse(window, 0.6 * site.size, rng)
    rho = u * u + v * v + 0.15 * smooth(rng, u.shape, 5)
    inside = np.square(np.clip(1.0 - rho, 0.0, 1.0))
    light = rng.uniform(0, 2 * math.pi)
    slope = (window.x * math.cos(light) + window.y * math.sin(light)) / (0.3 * site.size)
    change = slope * inside * 1.6
    if rng.random() < 0.5:
        change = 0.6 * change + _sign(window, site, rng) * np.minimum(2.0 * inside, 1.0)
    return window, window.pixels + f32(site.step * change)[:, :, None]


def _warp(site: _Site, rng: Rng) -> tuple[_Window, Floats]:
    """A place that is bent, swirled or bulged."""
    size = max(1.2 * site.size, 6.0)
    window = _window(site, size)
    rho = (np.square(window.x) + np.square(window.y)) / (0.9 * size) ** 2
    inside = np.square(np.clip(1.0 - rho, 0.0, 1.0))
    amount = _visible(site) * float(rng.choice([-1.0, 1.0]))
    how = int(rng.integers(3))
    if how == 0:
        turn = rng.uniform(0, 2 * math.pi)
        shift = 0.35 * amount * size * inside
        dx, dy = f32(shift * math.cos(turn)), f32(shift * math.sin(turn))
    elif how == 1:
        angle = 1.8 * amount * inside
        dx = f32(window.x * (np.cos(angle) - 1) - window.y * np.sin(angle))
        dy = f32(window.x * np.sin(angle) + window.y * (np.cos(angle) - 1))
    else:
        dx, dy = (f32(0.7 * amount * inside * away) for away in (window.x, window.y))
    columns, rows = window.x - window.x[0, 0] + dx, window.y - window.y[0, 0] + dy
    border = cv2.BORDER_REFLECT_101
    moved = cv2.remap(window.pixels, columns, rows, cv2.INTER_CUBIC, borderMode=border)
    return window, np.where(inside[:, :, None] > 0, deep(moved), window.pixels)


def _smear(site: _Site, rng: Rng) -> tuple[_Window, Floats]:
    """A place that is wiped along one direction, or out of focus."""
    window = _window(site, 1.2 * site.size)
    length = 2 * max(1, int(rng.uniform(0.1, 0.25) * max(site.size, 8.0))) + 1
    if rng.random() < 0.6:
        middle = length // 2
        turned = _turned(np.array([[float(middle), 0.0]]), rng.uniform(0, math.pi))[0]
        x, y = (round(float(v)) for v in turned)
        kernel = np.zeros((length, length), dtype=np.float32)
        cv2.line(kernel, (middle - x, middle - y), (middle + x, middle + y), 1.0, 1)
        wiped = cv2.filter2D(window.pixels, -1, kernel / kernel.sum())
    else:
        wiped = cv2.GaussianBlur(window.pixels, (0, 0), 0.3 * length)
    soft_px = max(2.0, 0.3 * site.size)
    weight = (_visible(site) ** 0.5 * _edge(_blob(window, site, rng), site, soft_px))[:, :, None]
    # Wiping the part removes no noise of the camera, so grain is added again.
    added = grain(window.pixels, rng) * weight
    return window, f32(window.pixels + weight * (deep(wiped) - window.pixels) + added)


def _gap(site: _Site, rng: Rng) -> tuple[_Window, Floats]:
    """A contour that is chipped or overgrown: one of its sides spreads over the other."""
    window = _window(site, 0.9 * site.size)
    field = _blob(window, site, rng)
    grey = window.pixels.mean(axis=2)
    ring = (field < 0) & (field > -max(0.35, 5.0 / site.size))
    if not ring.any():
        return window, window.pixels
    low, high = (float(level) for level in np.quantile(grey[ring], (0.1, 0.9)))
    # The pixels in the middle of a blurred contour belong to neither of its sides.
    share = 0.3 * (high - low)
    spreading = ring & (grey >= high - share if rng.random() < 0.5 else grey <= low + share)
    filling = fill(window.pixels, f32(spreading)) + grain(window.pixels, rng)
    weight = _edge(field, site, 1.5)[:, :, None] * (0.4 + 0.6 * _visible(site))
    return window, window.pixels + f32(weight) * (filling - window.pixels)


def _patch(site: _Site, rng: Rng) -> tuple[_Window, Floats]:
    """A piece of another good part or of another place, with or without a visible seam."""
    window = _window(site, 0.9 * site.size)
    piece = _piece(window, site, rng)
    field = _blob(window, site, rng)
    if rng.random() < 0.6:
        # As in Poisson editing, the differences at the seam are spread over the piece.
        piece = f32(piece + fill(window.pixels - piece, f32(field < 0)))
    weight = _edge(field, site, 2.0)[:, :, None] * (0.35 + 0.65 * _visible(site))
    return window, window.pixels + f32(weight) * (piece - window.pixels)


def _scar(site: _Site, rng: Rng) -> tuple[_Window, Floats]:
    """A narrow strip of another place, turned, in a slightly other shade."""
    length = max(1.5 * site.size, 6.0)
    width = max(length * rng.uniform(0.08, 0.3), 1.5)
    window = _window(site, 0.6 * length)
    piece = f32(_piece(window, site, rng) + rng.normal(0, 0.25 * site.step))
    u, v = _axes(window, rng.uniform(0, math.pi))
    depth = np.minimum(0.5 * length - np.abs(u), 0.5 * width - np.abs(v))
    weight = np.clip(depth + 0.5, 0.0, 1.0)[:, :, None] * (0.35 + 0.65 * _visible(site))
    return window, window.pixels + f32(weight) * (piece - window.pixels)


def _film(site: _Site, rng: Rng) -> tuple[_Window, Floats]:
    """A large faint change with a sharp edge: a film of oil, a place that dried otherwise."""
    large = _enlarge(site, rng)
    window = _window(large, 0.9 * large.size)
    field = _blob(window, large, rng)
    change = _tint(large, window, rng) * _edge(field, large, 1.5)[:, :, None]
    return window, f32(window.pixels + change)


def _cloud(site: _Site, rng: Rng) -> tuple[_Window, Floats]:
    """A large faint change that fades out: uneven polish, a shade of the material."""
    large = _enlarge(site, rng)
    window = _window(large, 1.1 * large.size)
    u, v = _ellipse(window, 0.5 * large.size, rng)
    rho = u * u + v * v + 0.15 * smooth(rng, u.shape, 4)
    weight = np.exp(-0.7 * np.maximum(rho, 0.0))[:, :, None]
    return window, f32(window.pixels + 1.3 * _tint(large, window, rng) * weight)


def _enlarge(site: _Site, rng: Rng) -> _Site:
    """The site with the size and the step of a large faint change."""
    size = rng.uniform(*FAINT_SIZES) * min(site.photo.shape[:2])
    around = _window(site, size).pixels.mean(axis=2)
    texture = float(np.median(np.abs(around - cv2.blur(around, (9, 9)))))
    # Over a large area a change is seen that a texture would hide in a small one.
    step = log_uniform(rng, 6.0 + 0.3 * texture, 18.0 + texture)
    return replace(site, size=max(size, 6.0), step=step)


def _tint(site: _Site, window: _Window, rng: Rng) -> Floats:
    """The change of each channel, grey levels."""
    channels = window.pixels.shape[2]
    tint = 1.0 + rng.normal(0, 0.3, channels) if channels == 3 else np.ones(1)
    return f32(_sign(window, site, rng) * site.step * np.clip(tint, 0.3, 1.5))


_MARKS: Final[dict[str, Callable[[_Site, Rng], tuple[_Window, Floats]]]] = {
    "cloud": _cloud,
    "dent": _dent,
    "film": _film,
    "gap": _gap,
    "patch": _patch,
    "scar": _scar,
    "scratch": _scratch,
    "smear": _smear,
    "stain": _stain,
    "warp": _warp,
}

FAINT: Final = ("cloud", "film")
"""Kinds that change a large area by little."""

KINDS: Final = (*_MARKS, *misplaced.KINDS)
"""Every kind of defect; those of :data:`misplaced.KINDS` only where a part stands out."""

_NEEDS_EDGES = frozenset({"gap", "smear", "warp"})


def _piece(window: _Window, site: _Site, rng: Rng) -> Floats:
    """Pixels for the window from anywhere in the other photo, turned and scaled."""
    source = site.other if rng.random() < 0.5 else site.photo
    colour = source if source.shape[2] == 3 else source.repeat(3, axis=2)
    row, column = _place(_interest(colour)[0], source, rng)
    turn, scale = rng.uniform(0, 2 * math.pi), log_uniform(rng, 0.7, 1.4)
    c, s = scale * math.cos(turn), scale * math.sin(turn)
    x, y = float(window.x[0, 0]), float(window.y[0, 0])
    back = np.array([[c, -s, column + c * x - s * y], [s, c, row + s * x + c * y]])
    taken = cv2.warpAffine(
        source,
        back,
        (window.x.shape[1], window.x.shape[0]),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REFLECT_101,
    )
    return f32(deep(taken))


def _blob(window: _Window, site: _Site, rng: Rng) -> Floats:
    """A field that is positive inside an irregular spot of the site's size, and 1 at its middle."""
    u, v = _ellipse(window, 0.5 * site.size, rng)
    rough = 0.22 * smooth(rng, u.shape, 3) + 0.1 * smooth(rng, u.shape, 8)
    return f32(1.0 - np.hypot(u, v) + rng.uniform(0.3, 1.0) * rough)


def _edge(field: Floats, site: _Site, soft_px: float) -> Floats:
    """Weights 0..1 of a spot whose border is ``soft_px`` wide."""
    return f32(np.clip(0.5 * site.size * field / max(soft_px, 0.5) + 0.5, 0.0, 1.0))


def _ellipse(window: _Window, half: float, rng: Rng) -> tuple[Floats, Floats]:
    u, v = _axes(window, rng.uniform(0, math.pi))
    return u / np.float32(half), v / np.float32(half * rng.uniform(0.45, 1.0))


def _axes(window: _Window, turn: float) -> tuple[Floats, Floats]:
    c, s = np.float32(math.cos(turn)), np.float32(math.sin(turn))
    return c * window.x + s * window.y, c * window.y - s * window.x


def _turned(points: npt.NDArray[Any], turn: float) -> npt.NDArray[Any]:
    c, s = math.cos(turn), math.sin(turn)
    return np.asarray(points @ np.array([[c, s], [-s, c]]))


def _sign(window: _Window, site: _Site, rng: Rng) -> float:
    """1 (brighter) or -1 (darker) at random, unless only one of them has room in 0..255."""
    middle = np.hypot(window.x, window.y) <= max(0.5 * site.size, 2.0)
    level = float(window.pixels[middle].mean())
    dark = 0.6
    if level + site.step > 250.0:
        dark = 1.0
    elif level - site.step < 5.0:
        dark = 0.0
    return -1.0 if rng.random() < dark else 1.0


def _visible(site: _Site) -> float:
    """Strength of the site's step, 0..1; 1 is a strong one."""
    return math.sqrt(min(max((site.step - 6.0) / 60.0, 0.0), 1.0))
