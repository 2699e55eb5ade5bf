"""The simulated conveyor: draws parts, good and defective, the same for the same seed.

A part depends on (domain, seed, index) alone: no other part, clock or state is needed to draw it,
so that another process can tell what was on the belt (:func:`truth`). The stream of the camera and
each split of a written data set are different domains of NumPy's ``SeedSequence``, so that no
training picture ever appears on the belt, whatever the seeds.
"""

from __future__ import annotations

import enum
import functools
import math
import re
import time
from dataclasses import dataclass
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt

from inspector.cameras.base import Frame
from inspector.cameras.pace import Pace, Place, now_us
from inspector.cameras.simulated import flange
from inspector.cameras.simulated.defects import KINDS, spoil
from inspector.config.cameras.simulator import SimulatorCamera

Picture = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

WIDTH: Final = 640
HEIGHT: Final = 480
GOOD: Final = "good"
DEFECTS: Final = tuple(KINDS)

SHIFT_PX: Final = 10.0
TURN_DEG: Final = 12.0
LIGHT: Final = 0.12
SCALE: Final = 0.012

_BELT_LENGTH: Final = 1920
_NOISE_MARGIN: Final = 96
_MASK_LEVEL: Final = 9
"""A pixel is marked defective where the defect changes it by more grey levels than this."""


class Domain(enum.IntEnum):
    """What parts are drawn for; those of different domains never coincide."""

    STREAM = 1
    TRAIN_GOOD = 2
    TEST_GOOD = 3
    TEST_DEFECTIVE = 4


@dataclass(frozen=True)
class SimulatedPart:
    """One picture, uint8 BGR ``[480, 640, 3]``, and what the part is.

    ``truth``: ``good`` or a kind of defect; ``mask``: where the defect shows, bool ``[480, 640]``.
    """

    image: Picture
    truth: str
    mask: npt.NDArray[np.bool_]


class Simulator:
    """The conveyor as a camera (docs/cameras.md)."""

    def __init__(
        self, config: SimulatorCamera, memory: npt.NDArray[np.int64] | None = None
    ) -> None:
        self._config = config
        self._pace = Pace(config.name, config.rate_hz, config.timeout_ms)
        self._place = Place(memory)

    def open(self) -> None:
        """Start the belt, at part 0 or where it was cut off.

        Raises CameraError when no part could come in time.
        """
        flange.warm()
        self._place.open()
        self._pace.start()

    def grab(self, timeout_ms: int) -> Frame | None:
        """The next part when it is due; None when the belt is empty."""
        if self._place.next == self._config.parts or not self._pace.wait(timeout_ms):
            return None
        exposed_ns = time.monotonic_ns()
        index = self._place.take()
        part = draw(self._config.seed, index, self._config.defect_rate)
        return Frame(part.image, now_us(), part_id(index), exposed_ns)

    def interrupt(self) -> None:
        """Make a waiting ``grab`` return None."""
        self._pace.interrupt()

    def close(self) -> None:
        """Stop the belt."""
        self._pace.reset()


def part_id(index: int) -> str:
    """What the camera calls part ``index``; it does not reveal the truth."""
    return f"part-{index:06d}"


def truth(part_id: str, seed: int, defect_rate: float) -> str:
    """What part ``part_id`` of the stream is, without drawing it: ``good`` or a kind of defect.

    Raises ValueError for an id that is not the simulator's.
    """
    match = re.fullmatch(r"part-(\d{6,})", part_id)
    if match is None:
        raise ValueError(f"'{part_id}' is not a part of the simulator, such as part-000012")
    return _truth(_generator(Domain.STREAM, seed, int(match[1])), defect_rate)


def draw(
    seed: int, index: int, defect_rate: float, domain: Domain = Domain.STREAM
) -> SimulatedPart:
    """Part ``index`` of the belt with ``seed``; the same arguments give the same picture."""
    rng = _generator(domain, seed, index)
    return _picture(rng, _truth(rng, defect_rate))


def draw_kind(seed: int, index: int, kind: str, domain: Domain) -> SimulatedPart:
    """Part ``index`` as ``kind``: ``good`` or one of ``DEFECTS``."""
    rng = _generator(domain, seed, index)
    _truth(rng, 0.0)
    return _picture(rng, kind)


def _generator(domain: Domain, seed: int, index: int) -> np.random.Generator:
    return np.random.default_rng([int(domain), seed, index])


def _truth(rng: np.random.Generator, defect_rate: float) -> str:
    # Both numbers are drawn for every part, so that the rate does not change how parts look.
    chance, kind = rng.random(), int(rng.integers(len(DEFECTS)))
    return DEFECTS[kind] if chance < defect_rate else GOOD


def _picture(rng: np.random.Generator, kind: str) -> SimulatedPart:
    turn = float(rng.uniform(-TURN_DEG, TURN_DEG))
    cx, cy = (
        WIDTH / 2 + rng.uniform(-SHIFT_PX, SHIFT_PX),
        HEIGHT / 2 + rng.uniform(-SHIFT_PX, SHIFT_PX),
    )
    scale = rng.uniform(1 - SCALE, 1 + SCALE)
    finish = flange.Finish.choose(rng)
    belt = _belt_at(rng)
    light = _light(rng)
    noise = _noise_at(rng)
    layer = flange.clean(finish, turn)
    placed = _placement(cx, cy, turn, scale)
    mask = np.zeros((HEIGHT, WIDTH), dtype=np.bool_)
    if kind != GOOD:
        good, layer = layer, spoil(kind, layer, rng, finish, turn)
        mask = _changed(good, layer, placed)
    part = cv2.warpAffine(layer, placed, (WIDTH, HEIGHT), flags=cv2.INTER_LINEAR)
    alpha = part[:, :, 3].astype(np.float32) * (1 / 255)
    shaded = cv2.multiply(belt, cv2.merge([_shadow(alpha)] * 3), dtype=cv2.CV_8U)
    scene = cv2.blendLinear(np.ascontiguousarray(part[:, :, :3]), shaded, alpha, 1 - alpha)
    scene = cv2.GaussianBlur(scene, (0, 0), float(rng.uniform(0.55, 0.75)))
    exposed = cv2.multiply(scene, cv2.merge([light] * 3), dtype=cv2.CV_32F)
    # Read-out noise and, growing with the light, shot noise.
    exposed += noise * (1.1 + 0.009 * exposed)
    return SimulatedPart(np.asarray(cv2.convertScaleAbs(exposed), np.uint8), kind, mask)


def _placement(cx: float, cy: float, turn_deg: float, scale: float) -> npt.NDArray[np.float64]:
    """The affine matrix ``[2, 3]`` from the layer's pixels to the camera's."""
    factor, angle = scale / flange.ZOOM, math.radians(turn_deg)
    c, s = factor * math.cos(angle), factor * math.sin(angle)
    middle = (flange.SIZE - 1) / 2
    return np.array(
        [
            [c, -s, cx - 0.5 - (c - s) * middle],
            [s, c, cy - 0.5 - (s + c) * middle],
        ]
    )


def _changed(good: Picture, spoiled: Picture, placed: npt.NDArray[np.float64]) -> Any:
    """Where the defect shows in the camera's picture, small gaps closed."""
    blue, green, red, alpha = cv2.split(cv2.absdiff(good, spoiled))
    change = cv2.max(cv2.max(blue, green), red)
    cover = cv2.max(good[:, :, 3], spoiled[:, :, 3])
    change = cv2.max(
        cv2.multiply(change, cover, scale=1 / 255), cv2.convertScaleAbs(alpha, alpha=0.5)
    )
    moved = cv2.warpAffine(change, placed, (WIDTH, HEIGHT), flags=cv2.INTER_LINEAR)
    marked = (moved > _MASK_LEVEL).astype(np.uint8)
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


def _belt_at(rng: np.random.Generator) -> Picture:
    """The stretch of belt under this part, with dust of its own."""
    x, y = int(rng.integers(_BELT_LENGTH - WIDTH)), int(rng.integers(17))
    belt = _belt()[y : y + HEIGHT, x : x + WIDTH].copy()
    for _ in range(int(rng.integers(0, 9))):
        at = tuple(int(v * 16) for v in rng.uniform((0, 0), (WIDTH, HEIGHT)))
        level = float(rng.uniform(58, 96))
        cv2.circle(belt, at, int(rng.uniform(8, 20)), (level,) * 3, -1, cv2.LINE_AA, 4)
    return belt


def _light(rng: np.random.Generator) -> Floats:
    """The lamp's gain over the picture ``[480, 640]``: level, gradient, vignetting."""
    level = 1.0 + rng.uniform(-LIGHT, LIGHT) * 0.7
    gx, gy = rng.uniform(-LIGHT, LIGHT, 2) * 0.5
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


def _noise_at(rng: np.random.Generator) -> Floats:
    """Sensor noise, unit variance, another piece of it for each part."""
    y, x = (int(v) for v in rng.integers(0, _NOISE_MARGIN, 2))
    piece = _noise()[y : y + HEIGHT, x : x + WIDTH]
    return piece[:: int(rng.choice([-1, 1])), :: int(rng.choice([-1, 1]))]
