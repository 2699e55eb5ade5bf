"""The layer on which a family draws, and the marks that any surface may bear.

A layer is float32 BGRA ``[HEIGHT, WIDTH, 4]``, 0..255, in the part's own frame: camera pixels from
the middle, x to the right, y down. It is larger than the camera's picture, so that a surface that
lies shifted or turned still fills it.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt

from inspector.cameras.simulated.scene import Conditions, Floats

Rng = np.random.Generator
Layer = npt.NDArray[np.float32]
Point = tuple[float, float]

WIDTH: Final = 840
HEIGHT: Final = 680


@dataclass(frozen=True)
class Drawn:
    """A good part: its ``layer``, and ``room``, where marks may lie (bool ``[HEIGHT, WIDTH]``).

    ``redraw`` draws the same part with a change that the family names; ``plan`` is what it is told
    of, if the family's parts have one.
    """

    layer: Layer
    room: npt.NDArray[np.bool_]
    redraw: Callable[..., Layer]
    plan: Any = None


Spoil = Callable[[Drawn, Rng], Layer]
"""A good part → its layer with a defect."""


@dataclass(frozen=True)
class Family:
    """A kind of part. ``draw`` makes a good one with ``texture`` times the natural variation.

    ``says`` describes it in a line; ``conditions`` are how its parts differ as a rule; ``fills``:
    it is a surface that fills the picture.
    """

    says: str
    draw: Callable[[Rng, float], Drawn]
    defects: Mapping[str, Spoil]
    conditions: Conditions
    fills: bool = False


@functools.lru_cache(maxsize=1)
def grid() -> tuple[Floats, Floats]:
    """x and y of each pixel of a layer."""
    x = np.arange(WIDTH, dtype=np.float32) - np.float32((WIDTH - 1) / 2)
    y = np.arange(HEIGHT, dtype=np.float32) - np.float32((HEIGHT - 1) / 2)
    return tuple(np.meshgrid(x, y))


def to_bytes(layer: Layer) -> npt.NDArray[np.uint8]:
    """The layer as uint8."""
    return np.asarray(np.clip(np.rint(layer), 0, 255), dtype=np.uint8)


def plain(bgr: tuple[float, float, float], alpha: Floats | float = 1.0) -> Layer:
    """A layer of one colour; ``alpha`` 0..1."""
    layer = np.empty((HEIGHT, WIDTH, 4), dtype=np.float32)
    layer[:, :, :3] = bgr
    layer[:, :, 3] = 255.0 * np.asarray(alpha)
    return layer


def inside(distance: npt.NDArray[Any]) -> Floats:
    """Coverage of a pixel at a signed distance (negative inside) from an outline."""
    return np.asarray(np.clip(0.5 - distance, 0.0, 1.0), dtype=np.float32)


def clouds(rng: Rng, cells: float) -> Floats:
    """Smooth noise over the layer, standard deviation near 1, bumps ``cells`` px wide."""
    shape = (max(4, int(HEIGHT / cells) + 3), max(4, int(WIDTH / cells) + 3))
    coarse = rng.standard_normal(shape).astype(np.float32)
    return np.asarray(
        cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC), dtype=np.float32
    )


def grain(rng: Rng, sigma_x: float, sigma_y: float) -> Floats:
    """Noise blurred over so many px, standard deviation 1."""
    # A wide blur is made of fewer columns, or it would take most of a part's time.
    shrink = max(1, int(sigma_x / 4))
    noise = rng.standard_normal((HEIGHT, -(-WIDTH // shrink)), dtype=np.float32)
    soft = cv2.GaussianBlur(noise, (0, 0), sigmaX=sigma_x / shrink, sigmaY=sigma_y)
    soft = cv2.resize(soft, (WIDTH, HEIGHT), interpolation=cv2.INTER_LINEAR)
    return np.asarray(soft / soft.std(), dtype=np.float32)


def relief(height: npt.NDArray[Any], strength: float = 0.12) -> Floats:
    """Gain of light from the upper left on a height field, px."""
    gy, gx = np.gradient(height)
    return np.asarray(np.clip(1.0 - strength * (gx + gy), 0.3, 1.8), dtype=np.float32)


def polygon(points: Any) -> Floats:
    """Coverage 0..1 of the polygon through ``points`` ``[N, 2]``."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    cv2.fillPoly(mask, [to_pixels(points)], 255, cv2.LINE_AA, 4)
    return mask.astype(np.float32) / 255.0


def stroke(points: Any, width: float) -> Floats:
    """Coverage 0..1 of a line of ``width`` px."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    thick = max(1, round(width))
    cv2.polylines(mask, [to_pixels(points)], False, 255, thick, cv2.LINE_AA, 4)
    return mask.astype(np.float32) / 255.0 * np.float32(min(1.0, width))


def to_pixels(points: Any) -> npt.NDArray[np.int32]:
    """Part coordinates as OpenCV's fixed-point pixels with 4 fractional bits."""
    pixels = np.asarray(points, dtype=np.float64) + np.array([(WIDTH - 1) / 2, (HEIGHT - 1) / 2])
    return np.asarray(np.round(pixels * 16), dtype=np.int32).reshape(-1, 1, 2)


def rectangle(at: Point, size: Point, turn_deg: float = 0.0) -> Floats:
    """Coverage of a rectangle of ``size`` (w, h) around ``at``."""
    w, h = size[0] / 2, size[1] / 2
    corners = np.array([(-w, -h), (w, -h), (w, h), (-w, h)])
    return polygon(turned(corners, turn_deg) + at)


def disc(at: Point, radius: float) -> Floats:
    """Coverage of a disc."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    middle = tuple(int(v) for v in to_pixels([at])[0, 0])
    cv2.circle(mask, middle, round(radius * 16), 255, -1, cv2.LINE_AA, 4)
    return mask.astype(np.float32) / np.float32(255.0)


def turned(points: Any, turn_deg: float) -> npt.NDArray[np.float64]:
    """``points`` ``[N, 2]`` turned about the origin."""
    c, s = math.cos(math.radians(turn_deg)), math.sin(math.radians(turn_deg))
    return np.asarray(np.asarray(points, dtype=np.float64) @ np.array([[c, s], [-s, c]]))


def paint(layer: Layer, cover: Floats, bgr: Any, strength: float = 1.0) -> None:
    """Move the colour under ``cover`` towards ``bgr`` (a colour, or ``[H, W, 3]``)."""
    rows, columns = np.flatnonzero(cover.max(axis=1)), np.flatnonzero(cover.max(axis=0))
    if not len(rows):
        return
    # Most shapes are small, and the layer is large.
    box = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    colour = np.asarray(bgr, dtype=np.float32)
    weight = (cover[box] * np.float32(strength))[:, :, None]
    target = layer[:, :, :3][box]
    target += weight * ((colour[box] if colour.ndim == 3 else colour) - target)


def place(drawn: Drawn, rng: Rng, margin: float = 0.0) -> Point:
    """A point of the part's room, ``margin`` px from its border, in the camera's picture."""
    room = drawn.room.copy()
    # Whatever lies shifted or turned must not leave the picture with its defect.
    room[: (HEIGHT - 400) // 2] = room[(HEIGHT + 400) // 2 :] = False
    room[:, : (WIDTH - 540) // 2] = room[:, (WIDTH + 540) // 2 :] = False
    if margin > 0:
        away = cv2.distanceTransform(room.astype(np.uint8), cv2.DIST_L2, 5)
        room = away > min(margin, 0.8 * float(away.max()))
    rows, columns = np.nonzero(room)
    chosen = int(rng.integers(len(rows)))
    x, y = grid()
    return float(x[rows[chosen], columns[chosen]]), float(y[rows[chosen], columns[chosen]])


def blob(rng: Rng, at: Point, size: float) -> Floats:
    """A field that is positive inside an irregular spot of radius ``size``, 1 at its middle."""
    x, y = grid()
    turn, squeeze = rng.uniform(0, math.pi), rng.uniform(0.55, 1.0)
    c, s = math.cos(turn), math.sin(turn)
    u, v = c * (x - at[0]) + s * (y - at[1]), (c * (y - at[1]) - s * (x - at[0])) / squeeze
    rough = 0.16 * clouds(rng, 0.7 * size) + 0.08 * clouds(rng, 0.25 * size)
    return np.asarray(1.0 - np.hypot(u, v) / size + rough, dtype=np.float32)


def spot(
    sizes: Point, bgr: tuple[float, float, float], strengths: Point, soft: Point = (0.08, 0.3)
) -> Spoil:
    """A stain of radius ``sizes`` px whose colour is multiplied towards ``bgr`` (0..1)."""

    def spoil(drawn: Drawn, rng: Rng) -> Layer:
        layer = drawn.layer.copy()
        size = float(rng.uniform(*sizes))
        field = blob(rng, place(drawn, rng, 0.5 * size), size)
        wet = np.clip(field / rng.uniform(*soft), 0.0, 1.0) * drawn.room
        strength = float(rng.uniform(*strengths))
        tint = 1.0 - strength * (1.0 - np.array(bgr)) * rng.uniform(0.8, 1.2, 3)
        layer[:, :, :3] *= 1.0 - wet[:, :, None] * (1.0 - tint.astype(np.float32))
        return layer

    return spoil


def line(lengths: Point, widths: Point, levels: Point, jagged: float) -> Spoil:
    """A scratch or, the more ``jagged``, a crack; ``levels`` are what is added, grey levels."""

    def spoil(drawn: Drawn, rng: Rng) -> Layer:
        layer = drawn.layer.copy()
        length, heading = float(rng.uniform(*lengths)), rng.uniform(0, 2 * math.pi)
        steps = max(6, int(length / 4))
        turns = heading + np.clip(np.cumsum(rng.normal(0, 0.5 * jagged, steps)), -0.8, 0.8)
        turns += rng.normal(0, jagged, steps) + np.linspace(-1, 1, steps) * rng.uniform(-0.3, 0.3)
        moves = length / steps * np.stack([np.cos(turns), np.sin(turns)], axis=1)
        points = np.vstack([np.zeros((1, 2)), np.cumsum(moves, axis=0)])
        points += place(drawn, rng, 12.0) - points.mean(axis=0)
        cover = cv2.GaussianBlur(stroke(points, float(rng.uniform(*widths))), (0, 0), 0.6)
        layer[:, :, :3] += (cover * drawn.room * float(rng.uniform(*levels)))[:, :, None]
        return np.clip(layer, 0, 255)

    return spoil


def foreign(sizes: Point, bgr: tuple[float, float, float]) -> Spoil:
    """A foreign body of radius ``sizes`` px that lies on the part."""

    def spoil(drawn: Drawn, rng: Rng) -> Layer:
        layer = drawn.layer.copy()
        size = float(rng.uniform(*sizes))
        field = blob(rng, place(drawn, rng, size), size)
        cover = np.clip(field * size, 0.0, 1.0)
        shadow = cv2.GaussianBlur(np.roll(cover, (3, 3), axis=(0, 1)), (0, 0), 2.0)
        layer[:, :, :3] *= 1.0 - 0.5 * (shadow * drawn.room)[:, :, None]
        shade = relief(4.0 * np.sqrt(np.clip(field, 0.0, 1.0)) * size / 6.0)
        paint(layer, cover, np.array(bgr, dtype=np.float32) * shade[:, :, None])
        layer[:, :, 3] = np.maximum(layer[:, :, 3], 255.0 * cover)
        return np.clip(layer, 0, 255)

    return spoil
