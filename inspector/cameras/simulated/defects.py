"""Defects of a flange: each kind is drawn into the layer of a good part (see flange.py)."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from inspector.cameras.simulated import flange
from inspector.cameras.simulated.flange import Array, Finish, Floats, Layer

Rng = np.random.Generator
Points = npt.NDArray[np.float64]


@dataclass(frozen=True)
class _Mask:
    """Weights 0..255 for a window of a layer whose upper left pixel is (``left``, ``top``)."""

    left: int
    top: int
    weight: Layer

    def of(self, layer: Layer) -> Layer:
        """The window of ``layer``, a view."""
        h, w = self.weight.shape
        return layer[self.top : self.top + h, self.left : self.left + w]


def spoil(kind: str, layer: Layer, rng: Rng, finish: Finish, turn_deg: float) -> Layer:
    """A copy of the good ``layer`` with one defect of ``kind`` (a key of ``KINDS``)."""
    spoiled = layer.copy()
    if kind == "missing_hole":
        _missing_hole(spoiled, rng, flange.clean(finish, turn_deg, holes=False))
    else:
        x, y, _ = flange.to_part(flange.KEY_LIGHT, turn_deg)
        norm = math.hypot(x, y)
        KINDS[kind](spoiled, rng, (x / norm, y / norm))
    return spoiled


def _scratch(layer: Layer, rng: Rng, light: tuple[float, float]) -> None:
    length, bend = rng.uniform(45, 150), rng.uniform(-0.18, 0.18)
    heading = rng.uniform(0, math.pi)
    cx, cy = _place(rng, 6.0)
    t = np.linspace(-0.5, 0.5, 24)
    along, side = t * length, bend * length * (1 - 4 * t * t) + np.cumsum(rng.normal(0, 0.12, 24))
    c, s = math.cos(heading), math.sin(heading)
    normal = np.array([-s, c]) * (1 if -s * light[0] + c * light[1] > 0 else -1)
    strength = rng.uniform(0.6, 1.0)
    width = rng.uniform(1.0, 2.1)
    for stroke in range(int(rng.integers(1, 4))):
        gap = stroke * rng.uniform(2.5, 5.0)
        part = slice(int(rng.integers(0, 6)), 24 - int(rng.integers(0, 6))) if stroke else slice(24)
        line = np.stack([cx + along * c - (side + gap) * s, cy + along * s + (side + gap) * c], 1)
        taper = np.sin(np.linspace(0.25, math.pi - 0.15, 24)) ** 0.5
        # A groove: the wall toward the lamp lies in shadow, the other one glints.
        _lerp(layer, _stroke(line[part] + 0.6 * width * normal, width, taper[part]), 40, strength)
        _lerp(layer, _stroke(line[part] - 0.4 * width * normal, width, taper[part]), 250, strength)


def _dent(layer: Layer, rng: Rng, light: tuple[float, float]) -> None:
    size = rng.uniform(10, 20)
    cx, cy = _place(rng, 0.6 * size)
    box = _window(cx, cy, 1.5 * size)
    u, v = _local(box, (cx, cy), rng.uniform(0, math.pi), size, rng.uniform(0.65, 1.0))
    rho = np.sqrt(u * u + v * v) * (1.0 + 0.10 * _field(rng, box, 3))
    x, y, _ = (part[box] for part in flange.grid())
    slope = -((x - cx) * light[0] + (y - cy) * light[1]) / size
    wall = np.clip(1.0 - rho, 0, 1) ** 0.5 * (rho < 1)
    rim = np.exp(-np.square((rho - 1.05) / 0.13))
    change = rng.uniform(130, 220) * slope * wall - 40.0 * slope * rim - 26.0 * (wall > 0) * wall
    target = layer[box]
    matte = cv2.GaussianBlur(target[:, :, :3], (0, 0), 2.0).astype(np.float32)
    kept = np.clip(wall * 1.5, 0, 1)[:, :, None]
    bgr = target[:, :, :3] * (1 - kept) + matte * kept + change[:, :, None]
    target[:, :, :3] = np.clip(bgr, 12, 252)


def _chipped_edge(layer: Layer, rng: Rng, light: tuple[float, float]) -> None:
    cx, cy = _on_contour(rng)
    size = rng.uniform(15, 27)
    out = 1.0 + rng.uniform(0.0, 0.15) * size / math.hypot(cx, cy)
    cx, cy = cx * out, cy * out
    box = _window(cx, cy, 1.6 * size)
    x, y, _ = (part[box] for part in flange.grid())
    u, v = _local(box, (cx, cy), rng.uniform(0, math.pi), size, rng.uniform(0.6, 1.0))
    jagged = 0.14 * _field(rng, box, 5) + 0.07 * _field(rng, box, 14)
    depth = (np.sqrt(u * u + v * v) - 1.0 + jagged) * size
    broken = flange.inside(depth)
    gone = flange.inside(depth + rng.uniform(3.5, 7.0))
    slope = -((x - cx) * light[0] + (y - cy) * light[1]) / size
    facets = 92.0 + 55.0 * slope + 26.0 * _field(rng, box, 18) + 16.0 * _field(rng, box, 40)
    facets += 90.0 * np.exp(-np.square((depth + 0.6) / 0.9)) * (0.6 + 0.4 * slope)
    target = layer[box].astype(np.float32)
    weight = broken[:, :, None]
    target[:, :, :3] = target[:, :, :3] * (1 - weight) + facets[:, :, None] * weight
    target[:, :, 3] *= 1.0 - gone
    layer[box] = np.clip(target, 0, 255)


def _missing_hole(layer: Layer, rng: Rng, blank: Layer) -> None:
    cx, cy = flange.lobe_centre(int(rng.integers(flange.LOBES)))
    how = int(rng.integers(3))
    radius = (flange.SPOT_RADIUS + 3.0, 17.0, flange.HOLE_RADIUS + 0.5)[how]
    box = _window(cx, cy, radius + 4.0)
    x, y, _ = (part[box] for part in flange.grid())
    away = np.hypot(x - cx, y - cy)
    weight = flange.step(radius + 0.8, radius - 0.8, away)[:, :, None]
    filling = blank[box].astype(np.float32)
    if how == 1:
        # Faced but not drilled: only the centre drill has been there.
        pip = flange.step(3.4, 2.2, away)
        filling[:, :, :3] *= (1.0 - 0.75 * pip)[:, :, None]
    elif how == 2:
        # Plugged with packed chips and coolant.
        grey = 88.0 + 24.0 * _field(rng, box, 9) + 22.0 * _field(rng, box, 20)
        grey *= 1.0 - 0.45 * flange.step(8.0, 14.0, away)
        tint = np.array([0.82, 0.94, 1.0]) * rng.uniform(0.75, 1.15)
        filling[:, :, :3] = grey[:, :, None] * tint
        filling[:, :, 3] = 255.0
    layer[box] = np.clip(layer[box] * (1 - weight) + filling * weight, 0, 255)


def _stain(layer: Layer, rng: Rng, light: tuple[float, float]) -> None:  # noqa: ARG001
    size = rng.uniform(17, 46)
    cx, cy = _place(rng, 8.0)
    box = _window(cx, cy, 1.7 * size)
    u, v = _local(box, (cx, cy), rng.uniform(0, math.pi), size, rng.uniform(0.55, 1.0))
    field = 1.0 - np.sqrt(u * u + v * v) + 0.17 * _field(rng, box, 4) + 0.08 * _field(rng, box, 10)
    wet = flange.step(0.0, rng.uniform(0.10, 0.30), field)
    rim = wet * np.exp(-np.square((field - 0.07) / 0.06))
    tints = ((0.36, 0.58, 0.74), (0.44, 0.46, 0.48), (0.30, 0.46, 0.70), (0.72, 0.58, 0.50))
    tint = np.array(tints[int(rng.integers(len(tints)))])
    strength = rng.uniform(0.65, 1.0)
    film = wet * (0.82 + 0.12 * _field(rng, box, 6)) + 0.35 * rim
    gain = 1.0 - (1.0 - tint) * np.clip(film * strength, 0, 1.15)[:, :, None]
    layer[box][:, :, :3] = np.clip(layer[box][:, :, :3] * gain, 0, 255)


def _crack(layer: Layer, rng: Rng, light: tuple[float, float]) -> None:
    x, y = _on_rim(rng)
    heading = math.atan2(-y, -x) if math.hypot(x, y) > 100 else math.atan2(y, x)
    heading += rng.uniform(-0.5, 0.5)
    shift = np.array(light)
    trunk = _walk(rng, np.array([x, y]), heading, rng.uniform(34, 78))
    cracks = [(trunk, rng.uniform(1.2, 2.2))]
    if rng.random() < 0.6:
        fork = trunk[int(rng.integers(len(trunk) // 3, 2 * len(trunk) // 3))]
        turned = heading + float(rng.choice([-0.7, 0.7]))
        cracks.append((_walk(rng, fork, turned, rng.uniform(14, 30)), 1.0))
    for line, width in cracks:
        taper = np.linspace(1.0, 0.55, len(line))
        _lerp(layer, _stroke(line - 0.9 * shift, width, taper), 235, 0.45)
        _lerp(layer, _stroke(line, width, taper), 14, 0.95)


def _walk(rng: Rng, start: Points, heading: float, length: float) -> Points:
    """A jagged path in steps of 4 px, straying at most 40 degrees from ``heading`` on average."""
    steps = max(4, int(length / 4.0))
    turns = heading + np.clip(np.cumsum(rng.normal(0, 0.30, steps)), -0.7, 0.7)
    turns += rng.normal(0, 0.28, steps)
    moves = 4.0 * np.stack([np.cos(turns), np.sin(turns)], axis=1)
    return np.vstack([start, start + np.cumsum(moves, axis=0)])


def _swarf(layer: Layer, rng: Rng, light: tuple[float, float]) -> None:
    cx, cy = _place(rng, 4.0)
    count = 60
    t = np.linspace(0, 1, count)
    if rng.random() < 0.6:
        radius, turns = rng.uniform(7, 15), rng.uniform(1.1, 2.4)
        angle = rng.uniform(0, 2 * math.pi) + 2 * math.pi * turns * t
        far = radius * (1 - 0.35 * t) + np.cumsum(rng.normal(0, 0.12, count))
        drift = rng.uniform(-9, 9, 2)
        line = np.stack([far * np.cos(angle), 0.75 * far * np.sin(angle)], 1) + t[:, None] * drift
    else:
        turn = rng.uniform(0, 2 * math.pi) + np.cumsum(
            rng.normal(rng.uniform(-0.07, 0.07), 0.10, count)
        )
        line = np.cumsum(rng.uniform(0.6, 1.2) * np.stack([np.cos(turn), np.sin(turn)], 1), 0)
        line -= line.mean(0)
    line += (cx, cy)
    width = rng.uniform(2.0, 3.2)
    shadow = _stroke(line - 3.0 * np.array(light), width + 1.0, np.ones(count), soften=2.4)
    _lerp(layer, shadow, 10, 0.8)
    body = _stroke(line, width + 0.8, np.ones(count))
    # The shaving lies on the part or hangs over a hole: it covers the belt there too.
    covered = body.of(layer)[:, :, 3]
    np.maximum(covered, body.weight[: covered.shape[0], : covered.shape[1]], out=covered)
    tint = (1.0, 1.0, 1.0) if rng.random() < 0.6 else (0.55, 0.82, 1.0)
    _lerp(layer, body, 52, 1.0, tint)
    facing = np.gradient(line, axis=0)
    facing /= np.linalg.norm(facing, axis=1, keepdims=True) + 1e-6
    # A round shaving glints where it lies across the light.
    across = 1.0 - np.square(facing @ np.array(light))
    glints = np.clip(0.25 + 0.75 * across + 0.2 * np.sin(t * rng.uniform(20, 45)), 0.2, 1.0)
    _lerp(layer, _stroke(line + 0.3 * np.array(light), 0.55 * width, glints), 252, 1.0, tint)


KINDS: Final[dict[str, Callable[[Layer, Rng, tuple[float, float]], None]]] = {
    "scratch": _scratch,
    "dent": _dent,
    "chipped_edge": _chipped_edge,
    "missing_hole": lambda *_: None,
    "stain": _stain,
    "crack": _crack,
    "swarf": _swarf,
}


@functools.lru_cache(maxsize=1)
def _room() -> Floats:
    """How far each point of the faces is from the nearest edge, hole or step, in camera px."""
    x, y, r = flange.grid()
    free = np.minimum(-flange.outline(), flange.bore())
    for number in range(flange.LOBES):
        cx, cy = flange.lobe_centre(number)
        free = np.minimum(free, np.hypot(x - cx, y - cy) - flange.SPOT_RADIUS)
    free = np.minimum(free, np.abs(r - flange.HUB_RADIUS - 2.5) - 3.0)
    return np.asarray(np.minimum(free, np.abs(r - flange.GROOVE_RADIUS) - 4.0), dtype=np.float32)


def _place(rng: Rng, margin: float) -> tuple[float, float]:
    """A point of the faces at least ``margin`` from what bounds them."""
    while True:
        row, column = (int(v) for v in rng.integers(0, flange.SIZE, 2))
        if _room()[row, column] >= margin:
            x, y, _ = flange.grid()
            return float(x[row, column]), float(y[row, column])


def _on_contour(rng: Rng) -> tuple[float, float]:
    """A point of the outer contour."""
    angle = rng.uniform(0, 2 * math.pi)
    far = np.arange(120.0, flange.HALF - 8.0, 0.5)
    at = (np.stack([far * math.cos(angle), far * math.sin(angle)]) + flange.HALF) * flange.ZOOM
    columns, rows = at.astype(int)
    edge = far[int(np.argmin(np.abs(flange.outline()[rows, columns])))]
    return float(edge * math.cos(angle)), float(edge * math.sin(angle))


def _on_rim(rng: Rng) -> tuple[float, float]:
    """Where a crack starts: at the contour, at the bore, or at a bolt hole."""
    choice = int(rng.integers(3))
    if choice == 0:
        return _on_contour(rng)
    angle = rng.uniform(0, 2 * math.pi)
    if choice == 1:
        return flange.BORE_RADIUS * math.cos(angle), flange.BORE_RADIUS * math.sin(angle)
    cx, cy = flange.lobe_centre(int(rng.integers(flange.LOBES)))
    inward = math.atan2(-cy, -cx) + rng.uniform(-0.6, 0.6)
    rim = flange.HOLE_RADIUS
    return cx + rim * math.cos(inward), cy + rim * math.sin(inward)


def _window(cx: float, cy: float, reach: float) -> tuple[slice, slice]:
    x, y = ((v + flange.HALF) * flange.ZOOM for v in (cx, cy))
    reach *= flange.ZOOM
    low, high = 0, flange.SIZE
    return (
        slice(max(low, int(y - reach)), min(high, int(y + reach))),
        slice(max(low, int(x - reach)), min(high, int(x + reach))),
    )


def _local(
    box: tuple[slice, slice], at: tuple[float, float], turn: float, size: float, squeeze: float
) -> tuple[Array, Array]:
    """Coordinates of a turned ellipse with half axes ``size`` and ``size * squeeze``."""
    x, y, _ = (part[box] for part in flange.grid())
    c, s = math.cos(turn), math.sin(turn)
    dx, dy = x - at[0], y - at[1]
    return (c * dx + s * dy) / size, (c * dy - s * dx) / (size * squeeze)


def _field(rng: Rng, box: tuple[slice, slice], cells: int) -> Floats:
    """Smooth noise over the window, standard deviation near 1, about ``cells`` bumps across."""
    shape = box[1].stop - box[1].start, box[0].stop - box[0].start
    coarse = rng.standard_normal((cells + 2, cells + 2)).astype(np.float32)
    return np.asarray(cv2.resize(coarse, shape, interpolation=cv2.INTER_CUBIC), dtype=np.float32)


def _stroke(points: Points, width: float, taper: Array, soften: float = 0.0) -> _Mask:
    """Anti-aliased line of ``width`` camera px whose weight follows ``taper``."""
    thick = max(1, round(width * flange.ZOOM))
    low = np.clip(points.min(0) - width - 4, -flange.HALF, flange.HALF - 1)
    high = np.clip(points.max(0) + width + 4, -flange.HALF + 1, flange.HALF)
    left, top, right, bottom = (
        int((v + flange.HALF) * flange.ZOOM) for v in (low[0], low[1], high[0], high[1])
    )
    mask = np.zeros((bottom - top + 1, right - left + 1), np.uint8)
    pixels = flange.to_pixels(points)[:, 0] - np.array([left, top]) * 16
    for first, second, weight in zip(pixels[:-1], pixels[1:], taper, strict=False):
        ends = [tuple(int(v) for v in end) for end in (first, second)]
        cv2.line(mask, ends[0], ends[1], float(255 * weight), thick, cv2.LINE_AA, 4)
    blurred = cv2.GaussianBlur(mask, (0, 0), 0.6 + soften)
    return _Mask(left, top, np.asarray(blurred, dtype=np.uint8))


def _lerp(
    layer: Layer,
    mask: _Mask,
    level: float,
    strength: float,
    tint: tuple[float, float, float] = (1.0, 1.0, 1.0),
) -> None:
    """Move the colour under ``mask`` towards a grey ``level`` times ``tint``."""
    target = mask.of(layer)[:, :, :3]
    weight = (mask.weight[: target.shape[0], : target.shape[1]].astype(np.float32))[:, :, None]
    weight *= strength / 255.0
    target[:] = target * (1.0 - weight) + np.array(tint, dtype=np.float32) * level * weight
