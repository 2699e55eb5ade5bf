"""A cookie with chocolate chips: no two have one shape."""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np

from inspector.cameras.simulated.families.canvas import (
    Drawn,
    Family,
    Layer,
    Rng,
    blob,
    clouds,
    foreign,
    grain,
    grid,
    inside,
    line,
    place,
    relief,
    spot,
)
from inspector.cameras.simulated.scene import Conditions, Floats

RADIUS: Final = 158.0


def _draw(rng: Rng, texture: float) -> Drawn:
    x, y = grid()
    angle, away = np.arctan2(y, x), np.hypot(x, y)
    edge = np.full_like(x, RADIUS * float(1.0 + 0.03 * texture * rng.standard_normal()))
    for waves in range(2, 9):
        size = 3.2 * texture * rng.standard_normal() / waves**0.5
        edge += np.float32(size) * np.cos(waves * angle + np.float32(rng.uniform(0, 6.3)))
    depth = edge - away
    alpha = inside(-depth)
    crumb = 2.2 * clouds(rng, 22) + 1.3 * clouds(rng, 9) + 0.5 * grain(rng, 1.0, 1.0)
    height = 14.0 * np.sqrt(np.clip(depth / 40.0, 0.0, 1.0)) + texture * crumb
    baked = 1.0 - 0.25 * np.exp(-np.clip(depth, 0, None) / 22.0) + 0.05 * texture * clouds(rng, 70)
    colour = np.array([96.0, 148.0, 196.0]) * (1.0 + 0.04 * texture * rng.standard_normal(3))
    chips: list[tuple[float, float, float]] = []
    for _ in range(60):
        far, turn = 0.82 * RADIUS * rng.uniform(0, 1) ** 0.5, rng.uniform(0, 2 * np.pi)
        at = float(far * np.cos(turn)), float(far * np.sin(turn))
        if len(chips) < 13 and all(np.hypot(at[0] - u, at[1] - v) > 34 for u, v, _ in chips):
            chips.append((*at, float(rng.uniform(9, 15))))
    bumps = [(blob(rng, (u, v), size), size) for u, v, size in chips]

    def redraw(gone: Floats | None = None) -> Layer:
        tall = height.copy()
        chocolate = np.zeros_like(x)
        for field, size in bumps:
            tall += 0.5 * size * np.sqrt(np.clip(field, 0.0, 1.0))
            chocolate = np.maximum(chocolate, np.clip(field * size / 2.0, 0.0, 1.0))
        cover = alpha
        if gone is not None:
            # A broken edge is steep, and the crumb inside is paler.
            cover = alpha * (1.0 - gone)
            tall = tall * (1.0 - gone)
        light = relief(cv2.GaussianBlur(tall, (0, 0), 1.2), 0.28)
        bgr = colour * baked[:, :, None]
        if gone is not None:
            near = cv2.GaussianBlur(gone, (0, 0), 4.0)[:, :, None]
            bgr = bgr + near * (np.array([140.0, 188.0, 222.0]) - bgr)
        bgr = bgr + chocolate[:, :, None] * (np.array([30.0, 38.0, 58.0]) - bgr)
        bgr = np.clip(bgr * light[:, :, None], 0, 255)
        return np.dstack([bgr, 255.0 * cover]).astype(np.float32)

    layer = redraw()
    return Drawn(layer, depth > 6, redraw)


def _broken(drawn: Drawn, rng: Rng) -> Layer:
    x, y = grid()
    turn = rng.uniform(0, 2 * np.pi)
    along = x * np.cos(turn) + y * np.sin(turn) - RADIUS * rng.uniform(0.45, 0.9)
    gone = np.clip(along + 5.0 * clouds(rng, 26) + 2.0 * clouds(rng, 9), 0.0, 1.0)
    return drawn.redraw(gone=np.asarray(gone, dtype=np.float32))


def _bite(drawn: Drawn, rng: Rng) -> Layer:
    size, turn = float(rng.uniform(22, 48)), rng.uniform(0, 2 * np.pi)
    at = (float(RADIUS * np.cos(turn)), float(RADIUS * np.sin(turn)))
    gone = np.clip(blob(rng, at, size) * size / 2, 0.0, 1.0)
    return drawn.redraw(gone=np.asarray(gone, dtype=np.float32))


def _hole(drawn: Drawn, rng: Rng) -> Layer:
    size = float(rng.uniform(9, 20))
    gone = np.clip(blob(rng, place(drawn, rng, size + 14), size) * size / 2, 0.0, 1.0)
    return drawn.redraw(gone=np.asarray(gone, dtype=np.float32))


COOKIE: Final = Family(
    says="a cookie with chocolate chips, of irregular shape",
    draw=_draw,
    defects={
        "bite": _bite,
        "broken": _broken,
        "burnt": spot((30, 70), (0.3, 0.34, 0.4), (0.5, 0.9), (0.3, 0.8)),
        "crack": line((60, 170), (1.6, 3.0), (-95, -60), 0.3),
        "foreign_body": foreign((6, 13), (190, 120, 60)),
        "hole": _hole,
    },
    conditions=Conditions(shift_px=8.0, turn_deg=180.0),
)
