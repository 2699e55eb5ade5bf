"""The part on the simulated belt: a turned aluminium flange.

It is drawn in the part's own frame: a picture ("layer") of ``SIZE`` × ``SIZE`` px, twice the
camera's resolution, uint8 BGRA, alpha 0 where the belt shows through. Lengths are in camera pixels
from the flange's centre, x to the right, y down.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]
Layer = npt.NDArray[np.uint8]

ZOOM: Final = 2
HALF: Final = 206
SIZE: Final = 2 * HALF * ZOOM

LOBES: Final = 6
LOBE_RADIUS: Final = 42.0
LOBE_CIRCLE: Final = 146.0
BODY_RADIUS: Final = 158.0
SPOT_RADIUS: Final = 26.0
HOLE_RADIUS: Final = 13.0
HUB_RADIUS: Final = 98.0
BORE_RADIUS: Final = 55.0
GROOVE_RADIUS: Final = 111.0

_TURNS_DEG: Final = (-14.0, -7.0, 0.0, 7.0, 14.0)
_TEXTURES: Final = 6

KEY_LIGHT: Final = (-0.56, -0.62, 0.55)
"""Direction to the softbox, upper left, in the camera's frame."""
_FILL_LIGHT: Final = (0.80, -0.12, 0.58)


@dataclass(frozen=True)
class _Shape:
    """The flange as a height field, and how each pixel of it reflects; all ``[SIZE, SIZE]``."""

    height: Floats
    normal: tuple[Floats, Floats, Floats]
    alpha: Floats
    albedo: Floats
    pit: Floats
    occlusion: Floats
    tangents: tuple[Floats, Floats]
    fineness: Floats
    gloss: Floats


def lobe_centre(number: int) -> tuple[float, float]:
    """Centre of bolt hole ``number`` (0 to 5)."""
    angle = math.radians(60.0 * number)
    return LOBE_CIRCLE * math.cos(angle), LOBE_CIRCLE * math.sin(angle)


@functools.lru_cache(maxsize=1)
def grid() -> tuple[Floats, Floats, Floats]:
    """x, y and distance from the centre of each layer pixel, in camera pixels."""
    line = ((np.arange(SIZE) + 0.5) / ZOOM - HALF).astype(np.float32)
    x, y = np.meshgrid(line, line)
    return x, y, np.asarray(np.hypot(x, y), dtype=np.float32)


def step(low: float, high: float, value: Array) -> Floats:
    """Smooth step from 0 at ``low`` to 1 at ``high`` (``high`` may be the smaller)."""
    t = np.clip((value - low) / (high - low), 0.0, 1.0)
    return np.asarray(t * t * (3.0 - 2.0 * t), dtype=np.float32)


def inside(distance: Array) -> Floats:
    """Coverage of a pixel at a signed distance (negative inside) from an outline."""
    return np.asarray(np.clip(0.5 - distance, 0.0, 1.0), dtype=np.float32)


@functools.lru_cache(maxsize=1)
def outline() -> Floats:
    """Signed distance to the outer contour, negative on the part."""
    x, y, r = grid()
    distance = r - BODY_RADIUS
    for number in range(LOBES):
        cx, cy = lobe_centre(number)
        lobe = np.hypot(x - cx, y - cy) - LOBE_RADIUS
        # Smooth union: the fillet a casting has between boss and body.
        mix = np.clip(0.5 + (lobe - distance) / 28.0, 0.0, 1.0)
        distance = lobe + (distance - lobe) * mix - 14.0 * mix * (1.0 - mix)
    return np.asarray(distance, dtype=np.float32)


@functools.lru_cache(maxsize=1)
def bore() -> Floats:
    """Signed distance to the bore with its keyway, negative in the opening."""
    x, y, r = grid()
    dx, dy = np.abs(x) - 10.0, np.abs(y + 34.0) - 36.0
    key = np.hypot(np.maximum(dx, 0), np.maximum(dy, 0)) + np.minimum(np.maximum(dx, dy), 0)
    return np.asarray(np.minimum(r - BORE_RADIUS, key), dtype=np.float32)


def _build(holes: bool) -> _Shape:
    x, y, r = grid()
    edge, opening = outline(), bore()
    height = -0.9 * np.clip(edge + 5.0, 0.0, 9.0)
    height += 15.0 * step(HUB_RADIUS + 5.0, HUB_RADIUS, r)
    height -= 0.9 * np.clip(r - (HUB_RADIUS - 4.0), 0.0, 4.0) * step(106.0, 98.0, r)
    height -= np.clip(5.0 - opening, 0.0, 8.0)
    height -= 3.5 * step(4.0, 2.2, np.abs(r - GROOVE_RADIUS))
    open_ = inside(opening)
    spots = np.zeros_like(r)
    pit = np.zeros_like(r)
    tx, ty = -y / np.maximum(r, 1e-3), x / np.maximum(r, 1e-3)
    fineness = 20.0 + 26.0 * step(HUB_RADIUS + 1, HUB_RADIUS - 1, r)
    gloss = 0.50 + 0.16 * step(HUB_RADIUS + 1, HUB_RADIUS - 1, r)
    for number in range(LOBES if holes else 0):
        cx, cy = lobe_centre(number)
        away = np.hypot(x - cx, y - cy)
        spot = inside(away - SPOT_RADIUS)
        height -= 2.6 * step(SPOT_RADIUS + 1.2, SPOT_RADIUS - 0.8, away)
        height -= 1.1 * np.clip(3.2 - (away - HOLE_RADIUS), 0.0, 5.0)
        open_ = np.maximum(open_, inside(away - HOLE_RADIUS))
        spots = np.maximum(spots, spot)
        scale = 1.0 / np.maximum(away, 1e-3)
        tx = tx * (1 - spot) - (y - cy) * scale * spot
        ty = ty * (1 - spot) + (x - cx) * scale * spot
    fineness = fineness * (1 - spots) + 30.0 * spots
    gloss = gloss * (1 - spots) + 0.62 * spots
    for number in range(3):
        angle = math.radians(-30.0 + 120.0 * number)
        away = np.hypot(x - 77.0 * math.cos(angle), y - 77.0 * math.sin(angle))
        height -= 1.2 * np.clip(2.0 - (away - 5.0), 0.0, 4.0)
        pit = np.maximum(pit, inside(away - 5.0))
    height = cv2.GaussianBlur(height.astype(np.float32), (0, 0), 0.9)
    gy, gx = np.gradient(height, 1.0 / ZOOM)
    norm = 1.0 / np.sqrt(gx * gx + gy * gy + 1.0)
    low = cv2.GaussianBlur(np.where(open_ > 0.5, -14.0, height).astype(np.float32), (0, 0), 9.0)
    occlusion = np.clip(1.0 - 0.045 * np.maximum(low - height, 0.0), 0.4, 1.0)
    return _Shape(
        height=height,
        normal=(-gx * norm, -gy * norm, norm),
        alpha=inside(edge) * (1.0 - open_),
        albedo=1.0 - 0.42 * _marking(),
        pit=pit,
        occlusion=occlusion.astype(np.float32),
        tangents=(tx.astype(np.float32), ty.astype(np.float32)),
        fineness=fineness.astype(np.float32),
        gloss=gloss.astype(np.float32),
    )


def _shade(shape: _Shape, turn_deg: float) -> Layer:
    """The layer as lit when the part lies turned by ``turn_deg`` under the fixed lights."""
    nx, ny, nz = shape.normal
    tx, ty = shape.tangents
    key, fill = to_part(KEY_LIGHT, turn_deg), to_part(_FILL_LIGHT, turn_deg)
    light = np.full_like(nx, 0.10)
    flat = step(0.93, 0.995, nz)
    for direction, diffuse, glint, streak in ((key, 0.34, 1.25, 1.45), (fill, 0.14, 0.40, 0.62)):
        hx, hy, hz = _half(direction)
        toward = np.maximum(nx * direction[0] + ny * direction[1] + nz * direction[2], 0.0)
        shine = np.maximum(nx * hx + ny * hy + nz * hz, 0.0)
        # Tool marks spread the highlight across themselves (Kajiya-Kay): the bow tie of turned
        # metal, which stays with the lamp while the part turns.
        across = np.power(1.0 - np.square(hx * tx + hy * ty), shape.fineness)
        light += diffuse * toward
        light += glint * np.power(shine, 26.0) * (1.0 - 0.6 * flat)
        light += streak * shape.gloss * across * flat
    light *= shape.occlusion * shape.albedo * (1.0 - 0.62 * _cast_shadow(shape.height, key))
    light *= 1.0 - 0.88 * shape.pit
    # Film-like shoulder: highlights roll off before they clip.
    grey = 1.0 - np.exp(-1.7 * light)
    bgr = np.stack([grey * 1.012 + 0.006, grey, grey * 0.985 - 0.002, shape.alpha], axis=2)
    layer = (np.clip(bgr, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)
    return np.asarray(cv2.GaussianBlur(layer, (0, 0), 0.7), dtype=np.uint8)


def _half(direction: tuple[float, float, float]) -> tuple[float, float, float]:
    x, y, z = direction
    norm = math.sqrt(x * x + y * y + (z + 1.0) ** 2)
    return x / norm, y / norm, (z + 1.0) / norm


def to_part(direction: tuple[float, float, float], turn_deg: float) -> tuple[float, float, float]:
    """A direction of the camera's frame in the frame of a part turned by ``turn_deg``."""
    x, y, z = direction
    norm = math.sqrt(x * x + y * y + z * z)
    c, s = math.cos(math.radians(turn_deg)), math.sin(math.radians(turn_deg))
    return (c * x + s * y) / norm, (c * y - s * x) / norm, z / norm


def _cast_shadow(height: Floats, key: tuple[float, float, float]) -> Floats:
    """0..1, soft shadow the hub throws on the flange."""
    rise = key[2] / math.hypot(key[0], key[1])
    small = cv2.resize(height, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    found = np.zeros_like(small)
    unit = 1.0 / math.hypot(key[0], key[1])
    for distance in range(2, 20, 2):
        shift = np.array(
            [[1, 0, -key[0] * unit * distance], [0, 1, -key[1] * unit * distance]], np.float32
        )
        moved = cv2.warpAffine(small, shift, small.shape[::-1], borderMode=cv2.BORDER_REPLICATE)
        np.maximum(found, np.clip((moved - small - rise * distance) / 4.0, 0, 1), out=found)
    found = cv2.GaussianBlur(found, (0, 0), 1.6)
    return np.asarray(cv2.resize(found, height.shape[::-1]), dtype=np.float32)


# Strokes of our own: OpenCV 4 and 5 draw text with different fonts.
_GLYPHS: Final[dict[str, tuple[tuple[tuple[float, float], ...], ...]]] = {
    "L": (((0, 0), (0, 6), (3.6, 6)),),
    "I": (((1, 0), (1, 6)),),
    "-": (((0.4, 3.2), (3, 3.2)),),
    "4": (((3, 6), (3, 0), (0, 4.2), (4, 4.2)),),
    "0": (
        ((1.2, 0), (2.8, 0), (4, 1.4), (4, 4.6), (2.8, 6), (1.2, 6), (0, 4.6), (0, 1.4), (1.2, 0)),
    ),
    "7": (((0, 0), (4, 0), (1.6, 6)),),
    "H": (((0, 0), (0, 6)), ((4, 0), (4, 6)), ((0, 3), (4, 3))),
    " ": (),
}


@functools.lru_cache(maxsize=1)
def _marking() -> Floats:
    """0..1, the laser mark: type along an arc at the bottom, a code at the top."""
    mark = np.zeros((SIZE, SIZE), np.uint8)
    text, radius, size = "LI-40 H7", 149.0, 1.6
    widths = [5.4 if glyph != "I" else 3.4 for glyph in text]
    along = -0.5 * sum(widths)
    for glyph, width in zip(text, widths, strict=True):
        for stroke in _GLYPHS[glyph]:
            points = []
            for u, v in stroke:
                angle = math.pi / 2 - (along + u + 0.7) * size / (radius - 6.0)
                far = radius - 10.0 + v * size
                points.append((far * math.cos(angle), far * math.sin(angle)))
            _polyline(mark, points, 1.2)
        along += width
    code = np.random.default_rng(40).random((12, 12)) < 0.5
    code[:, 0] = code[-1, :] = True
    code[0, :] = np.arange(12) % 2 == 0
    code[:, -1] = np.arange(12) % 2 == 1
    # In the gap between two lobes, square to the radius.
    middle, angle = 136.0, math.radians(-90.0)
    for row, col in zip(*np.nonzero(code), strict=True):
        u, v = (col - 6) * 1.75, (row - 6) * 1.75
        corner = [(u, v), (u + 1.75, v), (u + 1.75, v + 1.75), (u, v + 1.75)]
        c, s = math.cos(angle + math.pi / 2), math.sin(angle + math.pi / 2)
        moved = [
            (middle * math.cos(angle) + c * a - s * b, middle * math.sin(angle) + s * a + c * b)
            for a, b in corner
        ]
        cv2.fillConvexPoly(mark, to_pixels(moved), 255, cv2.LINE_AA, 4)
    return np.asarray(cv2.GaussianBlur(mark, (0, 0), 0.8), dtype=np.float32) / 255.0


def to_pixels(points: Any) -> npt.NDArray[np.int32]:
    """Part coordinates as OpenCV's fixed-point pixels with 4 fractional bits."""
    pixels = (np.asarray(points, dtype=np.float64) + HALF) * ZOOM - 0.5
    return np.round(pixels * 16).astype(np.int32).reshape(-1, 1, 2)


def _polyline(image: Array, points: Any, width: float) -> None:
    cv2.polylines(
        image, [to_pixels(points)], False, 255, max(1, round(width * ZOOM)), cv2.LINE_AA, 4
    )


@functools.lru_cache(maxsize=2)
def _shaded(holes: bool) -> tuple[Layer, ...]:
    shape = _build(holes)
    return tuple(_shade(shape, turn) for turn in _TURNS_DEG)


@functools.lru_cache(maxsize=1)
def _textures() -> tuple[Layer, ...]:
    """Tool marks and grain, 128 neutral, BGR: each good part wears a blend of two of them."""
    x, y, r = grid()
    made = []
    for number in range(_TEXTURES):
        rng = np.random.default_rng([777, number])
        rings = _ring_noise(rng, r)
        slow = cv2.resize(
            rng.standard_normal((14, 14)).astype(np.float32),
            (SIZE, SIZE),
            interpolation=cv2.INTER_CUBIC,
        )
        rings *= 1.0 + 0.25 * slow
        for lobe in range(LOBES):
            cx, cy = lobe_centre(lobe)
            away = np.hypot(x - cx, y - cy)
            spot = inside(away - SPOT_RADIUS)
            rings = rings * (1 - spot) + 0.8 * _ring_noise(rng, away) * spot
        grain = cv2.GaussianBlur(rng.standard_normal((SIZE, SIZE)).astype(np.float32), (0, 0), 1.0)
        gain = 1.0 + 0.042 * rings + 0.045 * grain + 0.012 * slow
        tile = np.clip(gain * 128.0, 0, 255).astype(np.uint8)
        made.append(np.asarray(cv2.cvtColor(tile, cv2.COLOR_GRAY2BGRA), dtype=np.uint8))
        made[-1][:, :, 3] = 128
    return tuple(made)


def _ring_noise(rng: np.random.Generator, radius: Array) -> Floats:
    """Unit noise that depends on the radius alone: what a lathe leaves."""
    line = rng.standard_normal(4 * HALF).astype(np.float32)
    fine = np.convolve(line, [0.25, 0.5, 0.25], "same")
    broad = np.convolve(line, np.hanning(17) / 4.0, "same")
    wave = fine / fine.std() + 0.7 * broad / broad.std()
    return np.asarray(np.interp(radius, np.arange(line.size) / 2.2, wave), dtype=np.float32)


@dataclass(frozen=True)
class Finish:
    """Tool marks of one part: a blend of two textures, ``strength`` times as deep."""

    one: int
    two: int
    weight: float
    strength: float = 1.0

    @classmethod
    def choose(cls, rng: np.random.Generator, strength: float = 1.0) -> Finish:
        """Tool marks at random."""
        one, two = (int(v) for v in rng.choice(_TEXTURES, 2, replace=False))
        return cls(one, two, float(rng.uniform(0.0, 1.0)), strength)


def warm() -> None:
    """Draw everything that parts have in common, which takes about a second once a process."""
    _shaded(True), _shaded(False), _textures()


def clean(finish: Finish, turn_deg: float, holes: bool = True) -> Layer:
    """A good flange as lit when turned by ``turn_deg``.

    Beyond the range of _TURNS_DEG it is lit as at that range's end.
    """
    turn_deg = min(max(turn_deg, _TURNS_DEG[0]), _TURNS_DEG[-1])
    at = (turn_deg - _TURNS_DEG[0]) / (_TURNS_DEG[1] - _TURNS_DEG[0])
    first = min(int(at), len(_TURNS_DEG) - 2)
    bank, marks = _shaded(holes), _textures()
    lit = cv2.addWeighted(bank[first], 1 - (at - first), bank[first + 1], at - first, 0)
    worn = cv2.addWeighted(
        marks[finish.one], finish.weight, marks[finish.two], 1 - finish.weight, 0
    )
    if finish.strength != 1.0:
        # 128 is neutral.
        worn = cv2.convertScaleAbs(worn, alpha=finish.strength, beta=128 * (1 - finish.strength))
    return np.asarray(cv2.multiply(lit, worn, scale=1 / 128), dtype=np.uint8)
