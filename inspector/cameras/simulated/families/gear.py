"""A milled steel gear: 24 teeth, five holes, a bore with a keyway."""

from __future__ import annotations

import math
from typing import Final

import cv2
import numpy as np

from inspector.cameras.simulated.families.canvas import (
    Drawn,
    Family,
    Layer,
    Rng,
    clouds,
    disc,
    grain,
    grid,
    inside,
    line,
    polygon,
    rectangle,
    relief,
    spot,
)
from inspector.cameras.simulated.scene import Conditions, Floats

TEETH: Final = 24
ROOT: Final = 158.0
TIP: Final = 182.0
HOLES: Final = 5
HOLE_CIRCLE: Final = 96.0
HOLE: Final = 21.0
BORE: Final = 36.0


def _tooth(number: int, height: float = 1.0) -> list[tuple[float, float]]:
    """Corners of a tooth, from its foot to its foot."""
    pitch = 2 * math.pi / TEETH
    middle, tip = pitch * number, ROOT + height * (TIP - ROOT)
    profile = ((-0.32, ROOT), (-0.2, 0.5 * (ROOT + tip)), (-0.13, tip))
    corners = [*profile, *((-at, r) for at, r in profile[::-1])]
    return [
        (r * math.cos(middle + at * pitch), r * math.sin(middle + at * pitch)) for at, r in corners
    ]


def _hole(number: int, shift: float = 0.0) -> tuple[float, float]:
    angle = 2 * math.pi * number / HOLES - math.pi / 2 + shift / HOLE_CIRCLE
    return HOLE_CIRCLE * math.cos(angle), HOLE_CIRCLE * math.sin(angle)


def _draw(rng: Rng, texture: float) -> Drawn:
    x, y = grid()
    radius = np.hypot(x, y)
    marks = rng.standard_normal(700)
    marks = np.convolve(marks, np.hanning(5), "same")
    rings = np.interp(radius, np.arange(marks.size) / 2.0, marks / marks.std())
    spread = 0.035 * rings + 0.03 * grain(rng, 1.0, 1.0) + 0.04 * clouds(rng, 160)
    finish = np.asarray(1.0 + texture * spread, dtype=np.float32)

    def redraw(
        broken: int | None = None,
        height: float = 0.0,
        filled: int | None = None,
        moved: int | None = None,
        shift: float = 0.0,
    ) -> Layer:
        outline = [
            corner
            for number in range(TEETH)
            for corner in _tooth(number, height if number == broken else 1.0)
        ]
        body = polygon(outline)
        opening = np.maximum(disc((0, 0), BORE), rectangle((0, -BORE), (16, 20)))
        for number in range(HOLES):
            if number != filled:
                at = _hole(number, shift if number == moved else 0.0)
                opening = np.maximum(opening, disc(at, HOLE))
        alpha = np.asarray(body * (1.0 - opening), dtype=np.float32)
        return _shade(alpha, radius, finish)

    layer = redraw()
    return Drawn(layer, layer[:, :, 3] > 250, redraw)


def _shade(alpha: Floats, radius: Floats, finish: Floats) -> Layer:
    height = 7.0 * cv2.GaussianBlur(alpha, (0, 0), 1.6)
    height += 4.0 * inside(np.abs(radius - 52.0) - 12.0)
    height -= 3.0 * inside(np.abs(radius - 138.0) - 5.0)
    light = relief(cv2.GaussianBlur(height, (0, 0), 1.1), 0.35)
    x, y = grid()
    # The bow tie of a turned face under a lamp from one side.
    streak = 1.0 + 0.22 * np.cos(2.0 * (np.arctan2(y, x) - 0.8))
    grey = np.clip(132.0 * finish * light * streak, 0, 255)
    return np.stack([1.03 * grey, 1.0 * grey, 0.97 * grey, 255.0 * alpha], 2).astype(np.float32)


def _broken_tooth(drawn: Drawn, rng: Rng) -> Layer:
    return drawn.redraw(broken=int(rng.integers(TEETH)), height=float(rng.uniform(-0.1, 0.5)))


def _missing_hole(drawn: Drawn, rng: Rng) -> Layer:
    return drawn.redraw(filled=int(rng.integers(HOLES)))


def _shifted_hole(drawn: Drawn, rng: Rng) -> Layer:
    shift = float(rng.uniform(6, 22) * rng.choice([-1, 1]))
    return drawn.redraw(moved=int(rng.integers(HOLES)), shift=shift)


GEAR: Final = Family(
    says="a milled steel gear with teeth, holes and a keyway",
    draw=_draw,
    defects={
        "broken_tooth": _broken_tooth,
        "crack": line((30, 80), (1.0, 1.6), (-90, -45), 0.35),
        "missing_hole": _missing_hole,
        "rust": spot((10, 34), (0.32, 0.52, 0.78), (0.4, 0.9)),
        "scratch": line((40, 130), (1.0, 1.8), (40, 90), 0.03),
        "shifted_hole": _shifted_hole,
    },
    conditions=Conditions(shift_px=5.0, turn_deg=4.0),
)
