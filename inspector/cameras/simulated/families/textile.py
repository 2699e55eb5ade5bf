"""A woven textile: a plain weave of two yarns, whose threads differ."""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np

from inspector.cameras.simulated.families.canvas import (
    HEIGHT,
    WIDTH,
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
    place,
    spot,
)
from inspector.cameras.simulated.scene import Conditions, Floats

PITCH: Final = 11.0
WARP: Final = (118.0, 104.0, 92.0)
WEFT: Final = (150.0, 152.0, 158.0)


def _draw(rng: Rng, texture: float) -> Drawn:
    threads = int(max(WIDTH, HEIGHT) / PITCH) + 8
    # Yarn is thicker here and thinner there, so that each thread has a shade of its own.
    shades = 1.0 + 0.05 * texture * rng.standard_normal((2, threads))
    bend = 0.8 * texture * np.stack([clouds(rng, 110), clouds(rng, 110)])
    fibre = 1.0 + 0.06 * texture * grain(rng, 0.8, 0.8) + 0.03 * texture * clouds(rng, 200)

    def redraw(
        missing: int | None = None,
        side: int = 0,
        gap: Floats | None = None,
        warp: Floats | None = None,
    ) -> Layer:
        x, y = grid()
        dx, dy = bend if warp is None else bend + warp
        u, v = (x + dx) / PITCH, (y + dy) / PITCH
        across, along = np.floor(u).astype(int), np.floor(v).astype(int)
        over = (across + along) % 2 == 0
        # A thread is round, and dips where it goes under the other one.
        hump_u, hump_v = np.cos(np.pi * (u - across - 0.5)), np.cos(np.pi * (v - along - 0.5))
        warp_light = (0.55 + 0.45 * hump_u) * (0.8 + 0.2 * hump_v)
        weft_light = (0.55 + 0.45 * hump_v) * (0.8 + 0.2 * hump_u)
        middle = threads // 2
        first, second = shades[0, across + middle], shades[1, along + middle]
        layer = np.empty((HEIGHT, WIDTH, 4), dtype=np.float32)
        for channel in range(3):
            vertical = WARP[channel] * warp_light * first
            level = np.where(over, vertical, WEFT[channel] * weft_light * second)
            if missing is not None:
                # Where a thread is missing, those across it lie free over a dark ground.
                lost = (along if side else across) == missing
                bare = np.where(over if side else ~over, level, 0.35 * level)
                level = np.where(lost, bare, level)
            layer[:, :, channel] = level * fibre
        if gap is not None:
            layer[:, :, :3] *= (1.0 - 0.82 * gap)[:, :, None]
        layer[:, :, 3] = 255.0
        return np.clip(layer, 0, 255)

    return Drawn(redraw(), np.ones((HEIGHT, WIDTH), dtype=np.bool_), redraw)


def _missing_thread(drawn: Drawn, rng: Rng) -> Layer:
    side = int(rng.integers(2))
    number = int(rng.integers(-14, 14))
    layer = drawn.redraw(missing=number, side=side)
    # Seldom is it missing all the way.
    x, y = grid()
    along = y if side == 0 else x
    half, middle = rng.uniform(40, 220), rng.uniform(-100, 100)
    weight = inside(np.abs(along - np.float32(middle)) - np.float32(half))[:, :, None]
    return np.asarray(drawn.layer * (1 - weight) + layer * weight, dtype=np.float32)


def _hole(drawn: Drawn, rng: Rng) -> Layer:
    size = float(rng.uniform(9, 26))
    at = place(drawn, rng, size)
    field = blob(rng, at, size)
    x, y = grid()
    dx, dy = x - at[0], y - at[1]
    away = np.hypot(dx, dy) + 1.0
    # The threads around a hole are pushed aside.
    push = 5.0 * np.exp(-np.square(away / (1.4 * size)))
    warp = np.stack([-dx / away * push, -dy / away * push])
    gap = cv2.GaussianBlur(np.clip(field * size / 2, 0, 1), (0, 0), 0.8)
    return drawn.redraw(gap=gap, warp=warp)


def _pulled(drawn: Drawn, rng: Rng) -> Layer:
    size = float(rng.uniform(30, 70))
    at = place(drawn, rng, size)
    x, y = grid()
    weight = np.exp(-(np.square(x - at[0]) + np.square(y - at[1])) / (2 * (0.5 * size) ** 2))
    pull = rng.uniform(5, 11) * rng.choice([-1, 1])
    warp = np.stack([weight * pull, 0.3 * weight * pull]).astype(np.float32)
    return drawn.redraw(warp=warp if rng.random() < 0.5 else warp[::-1])


TEXTILE: Final = Family(
    says="a woven textile that fills the picture",
    draw=_draw,
    defects={
        "faint_stain": spot((50, 110), (0.86, 0.9, 0.94), (0.4, 0.9), (0.1, 0.9)),
        "hole": _hole,
        "knot": foreign((6, 12), (148, 146, 148)),
        "missing_thread": _missing_thread,
        "pulled_threads": _pulled,
        "stain": spot((14, 40), (0.5, 0.6, 0.7), (0.4, 0.9)),
    },
    conditions=Conditions(shift_px=20.0, turn_deg=1.0),
    fills=True,
)
