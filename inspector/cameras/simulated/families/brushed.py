"""Brushed metal: a plain surface with fine lines along one direction."""

from __future__ import annotations

from typing import Final

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
    disc,
    grain,
    grid,
    line,
    place,
    plain,
    spot,
)
from inspector.cameras.simulated.scene import Conditions


def _draw(rng: Rng, texture: float) -> Drawn:
    lines = grain(rng, 60.0, 0.6) + 0.7 * grain(rng, 18.0, 0.9) + 0.5 * grain(rng, 200.0, 3.0)
    gain = 1.0 + texture * (0.055 * lines + 0.02 * grain(rng, 0.8, 0.8) + 0.035 * clouds(rng, 230))
    layer = plain((146.0, 144.0, 140.0))
    layer[:, :, :3] *= gain[:, :, None]
    return Drawn(np.clip(layer, 0, 255), np.ones((HEIGHT, WIDTH), dtype=np.bool_), lambda: layer)


def _pits(drawn: Drawn, rng: Rng) -> Layer:
    layer = drawn.layer.copy()
    x, y = place(drawn, rng, 30.0)
    for _ in range(int(rng.integers(3, 12))):
        at = (x + float(rng.normal(0, 14)), y + float(rng.normal(0, 14)))
        radius = float(rng.uniform(1.2, 3.2))
        layer[:, :, :3] *= 1.0 - 0.6 * disc(at, radius)[:, :, None]
        layer[:, :, :3] += 45.0 * disc((at[0] + radius, at[1] + radius), 0.8)[:, :, None]
    return np.clip(layer, 0, 255)


def _dent(drawn: Drawn, rng: Rng) -> Layer:
    layer = drawn.layer.copy()
    size = float(rng.uniform(16, 42))
    at = place(drawn, rng, size)
    x, y = grid()
    wall = np.clip(blob(rng, at, size), 0.0, 1.0)
    slope = ((x - at[0]) + (y - at[1])) / size
    layer[:, :, :3] *= (1.0 + rng.uniform(0.3, 0.7) * slope * wall)[:, :, None]
    return np.clip(layer, 0, 255)


def _dull(drawn: Drawn, rng: Rng) -> Layer:
    """A place that was not brushed: as bright, but without lines."""
    layer = drawn.layer.copy()
    size = float(rng.uniform(40, 90))
    weight = np.clip(blob(rng, place(drawn, rng, 0.5 * size), size) / 0.3, 0, 1)[:, :, None]
    even = layer[:, :, :3].mean() + 3.0 * grain(rng, 0.9, 0.9)[:, :, None]
    layer[:, :, :3] += 0.85 * weight * (even - layer[:, :, :3])
    return np.clip(layer, 0, 255)


BRUSHED: Final = Family(
    says="brushed metal that fills the picture",
    draw=_draw,
    defects={
        "crack": line((30, 130), (1.0, 1.4), (-70, -28), 0.3),
        "dent": _dent,
        "dull_place": _dull,
        "faint_stain": spot((50, 120), (0.88, 0.9, 0.92), (0.4, 0.9), (0.1, 0.9)),
        "pits": _pits,
        "scratch": line((40, 160), (1.0, 1.6), (30, 70), 0.02),
    },
    conditions=Conditions(shift_px=20.0, turn_deg=1.0),
    fills=True,
)
