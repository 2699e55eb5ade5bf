"""What every simulated part is photographed with: belt, lamp, lens and sensor, 640 × 480 px.

A part comes as a layer, uint8 BGRA, alpha 0 where the belt shows through, and is placed by an
affine matrix. How much good parts differ is told by :class:`Conditions`.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt

Picture = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Affine = npt.NDArray[np.float64]

WIDTH: Final = 640
HEIGHT: Final = 480
LIGHT: Final = 0.12
SCALE: Final = 0.012

_BELT_LENGTH: Final = 1920
_NOISE_MARGIN: Final = 96


@dataclass(frozen=True)
class Conditions:
    """How good parts differ from one another.

    ``shift_px`` each way and ``turn_deg`` to either side are the largest; ``texture`` and ``light``
    are factors on the natural spread of a family's texture and of the lamp's level and gradient:
    0 none, 1 as it comes.
    """

    shift_px: float
    turn_deg: float
    texture: float = 1.0
    light: float = 1.0


@dataclass(frozen=True)
class SimulatedPart:
    """One picture, uint8 BGR ``[480, 640, 3]``, and what the part is.

    ``truth``: ``good`` or a kind of defect; ``mask``: where the defect shows, bool ``[480, 640]``.
    """

    image: Picture
    truth: str
    mask: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Pose:
    """Where a part lies: its centre in camera px, its turn and its scale."""

    x: float
    y: float
    turn_deg: float
    scale: float

    @classmethod
    def choose(cls, rng: np.random.Generator, conditions: Conditions) -> Pose:
        """A pose at random."""
        turn = float(rng.uniform(-conditions.turn_deg, conditions.turn_deg))
        shift = conditions.shift_px
        x, y = WIDTH / 2 + rng.uniform(-shift, shift), HEIGHT / 2 + rng.uniform(-shift, shift)
        return cls(x, y, turn, float(rng.uniform(1 - SCALE, 1 + SCALE)))

    def place(self, size: tuple[int, int], zoom: float) -> Affine:
        """The matrix ``[2, 3]`` from the pixels of a layer of ``size`` (W, H) to the camera's."""
        factor, angle = self.scale / zoom, math.radians(self.turn_deg)
        c, s = factor * math.cos(angle), factor * math.sin(angle)
        u, v = ((side - 1) / 2 for side in size)
        return np.array(
            [[c, -s, self.x - 0.5 - (c * u - s * v)], [s, c, self.y - 0.5 - (s * u + c * v)]]
        )


@dataclass(frozen=True)
class Surroundings:
    """What a part is photographed on and with."""

    belt: Picture
    light: Floats
    noise: Floats

    @classmethod
    def choose(cls, rng: np.random.Generator, conditions: Conditions) -> Surroundings:
        """Belt, light and noise at random."""
        belt = belt_at(rng)
        light = light_over(rng, conditions.light)
        return cls(belt, light, noise_at(rng))

    def photograph(
        self, layer: Picture, placed: Affine, blur_px: float, border: int = cv2.BORDER_CONSTANT
    ) -> Picture:
        """The camera's picture of ``layer``; ``border`` says how it goes on beyond its edge."""
        part = cv2.warpAffine(
            layer, placed, (WIDTH, HEIGHT), flags=cv2.INTER_LINEAR, borderMode=border
        )
        alpha = part[:, :, 3].astype(np.float32) * (1 / 255)
        shaded = cv2.multiply(self.belt, cv2.merge([_shadow(alpha)] * 3), dtype=cv2.CV_8U)
        scene = cv2.blendLinear(np.ascontiguousarray(part[:, :, :3]), shaded, alpha, 1 - alpha)
        scene = cv2.GaussianBlur(scene, (0, 0), blur_px)
        exposed = cv2.multiply(scene, cv2.merge([self.light] * 3), dtype=cv2.CV_32F)
        # Read-out noise and, growing with the light, shot noise.
        exposed += self.noise * (1.1 + 0.009 * exposed)
        return np.asarray(cv2.convertScaleAbs(exposed), np.uint8)


def changed(
    good: Picture,
    spoiled: Picture,
    placed: Affine,
    level: int,
    border: int = cv2.BORDER_CONSTANT,
) -> Any:
    """Where two layers differ by more than ``level`` in the camera's picture, small gaps closed."""
    blue, green, red, alpha = cv2.split(cv2.absdiff(good, spoiled))
    change = cv2.max(cv2.max(blue, green), red)
    cover = cv2.max(good[:, :, 3], spoiled[:, :, 3])
    change = cv2.max(
        cv2.multiply(change, cover, scale=1 / 255), cv2.convertScaleAbs(alpha, alpha=0.5)
    )
    moved = cv2.warpAffine(
        change, placed, (WIDTH, HEIGHT), flags=cv2.INTER_LINEAR, borderMode=border
    )
    marked = (moved > level).astype(np.uint8)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5))
    return cv2.morphologyEx(marked, cv2.MORPH_CLOSE, kernel) > 0


def _shadow(alpha: Floats) -> Floats:
    """0..1 ``[480, 640]``: how much light the part lets through to the belt."""
    small = cv2.resize(alpha, (WIDTH // 4, HEIGHT // 4), interpolation=cv2.INTER_AREA)
    thrown = np.array([[1, 0, 2.6], [0, 1, 3.0]], dtype=np.float32)
    cast = cv2.GaussianBlur(cv2.warpAffine(small, thrown, small.shape[::-1]), (0, 0), 2.2)
    near = cv2.GaussianBlur(small, (0, 0), 5.0)
    dimmed = (1 - 0.62 * cast) * (1 - 0.42 * near)
    return np.asarray(cv2.resize(dimmed, (WIDTH, HEIGHT)), dtype=np.float32)


@functools.lru_cache(maxsize=1)
def _belt() -> Picture:
    """A stretch of belt, uint8 BGR ``[480 + 16, 1920, 3]``: fabric weave, wear, scuffs."""
    rng = np.random.default_rng(4711)
    shape = (HEIGHT + 16, _BELT_LENGTH)
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]].astype(np.float32)
    warp = np.sin(2 * np.pi * x / 5.0) * np.sin(2 * np.pi * y / 5.0)
    twill = np.sin(2 * np.pi * (x + 2 * y) / 10.0)
    grain = cv2.GaussianBlur(rng.standard_normal(shape).astype(np.float32), (0, 0), 0.8)
    coarse = rng.standard_normal((12, 40)).astype(np.float32)
    wear = cv2.resize(coarse, shape[::-1], interpolation=cv2.INTER_CUBIC)
    lanes = np.convolve(rng.standard_normal(shape[0]), np.hanning(21), "same")
    lanes = (lanes / lanes.std())[:, None]
    grey = 50.0 + 3.6 * warp + 2.0 * twill + 6.0 * grain + 1.6 * wear + 1.0 * lanes
    scuffs = np.zeros(shape, np.uint8)
    for _ in range(60):
        start = rng.uniform((0, 0), shape[::-1])
        reach = rng.uniform(8, 60), rng.uniform(-3, 3)
        end = start + reach
        ends = [tuple(int(v * 16) for v in point) for point in (start, end)]
        cv2.line(scuffs, ends[0], ends[1], float(rng.uniform(60, 255)), 1, cv2.LINE_AA, 4)
    grey += 7.0 * cv2.GaussianBlur(scuffs, (0, 0), 0.8).astype(np.float32) / 255.0
    bgr = np.stack([grey * 1.02, grey * 0.98, grey * 0.90], axis=2)
    return np.asarray(np.clip(bgr, 0, 255), dtype=np.uint8)


def belt_at(rng: np.random.Generator) -> Picture:
    """The stretch of belt under this part, with dust of its own."""
    x, y = int(rng.integers(_BELT_LENGTH - WIDTH)), int(rng.integers(17))
    belt = _belt()[y : y + HEIGHT, x : x + WIDTH].copy()
    for _ in range(int(rng.integers(0, 9))):
        at = tuple(int(v * 16) for v in rng.uniform((0, 0), (WIDTH, HEIGHT)))
        level = float(rng.uniform(58, 96))
        cv2.circle(belt, at, int(rng.uniform(8, 20)), (level,) * 3, -1, cv2.LINE_AA, 4)
    return belt


def light_over(rng: np.random.Generator, strength: float) -> Floats:
    """The lamp's gain over the picture ``[480, 640]``: level, gradient, vignetting."""
    level = 1.0 + strength * rng.uniform(-LIGHT, LIGHT) * 0.7
    gx, gy = strength * rng.uniform(-LIGHT, LIGHT, 2) * 0.5
    x = np.linspace(-1, 1, WIDTH, dtype=np.float32)
    y = np.linspace(-1, 1, HEIGHT, dtype=np.float32)[:, None]
    return np.asarray((level * _vignette()) * (1 + gx * x + gy * y), dtype=np.float32)


@functools.lru_cache(maxsize=1)
def _vignette() -> Floats:
    x = np.linspace(-1, 1, WIDTH, dtype=np.float32)
    y = np.linspace(-0.75, 0.75, HEIGHT, dtype=np.float32)[:, None]
    return np.asarray(1.05 - 0.20 * (x * x + y * y), dtype=np.float32)


@functools.lru_cache(maxsize=1)
def _noise() -> Floats:
    rng = np.random.default_rng(815)
    shape = (HEIGHT + _NOISE_MARGIN, WIDTH + _NOISE_MARGIN)
    shared = rng.standard_normal((*shape, 1), dtype=np.float32)
    return 0.8 * shared + 0.6 * rng.standard_normal((*shape, 3), dtype=np.float32)


def noise_at(rng: np.random.Generator) -> Floats:
    """Sensor noise, unit variance, another piece of it for each part."""
    y, x = (int(v) for v in rng.integers(0, _NOISE_MARGIN, 2))
    piece = _noise()[y : y + HEIGHT, x : x + WIDTH]
    return piece[:: int(rng.choice([-1, 1])), :: int(rng.choice([-1, 1]))]
