"""A printed circuit board with chips, resistors, capacitors and a connector."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from inspector.cameras.simulated.families.canvas import (
    Drawn,
    Family,
    Layer,
    Point,
    Rng,
    Spoil,
    clouds,
    disc,
    foreign,
    grain,
    line,
    paint,
    plain,
    rectangle,
    relief,
    spot,
    stroke,
    turned,
)
from inspector.cameras.simulated.scene import Conditions

SIZE: Final = (500.0, 360.0)


@dataclass(frozen=True)
class _Component:
    kind: str
    at: Point
    size: Point
    turn_deg: float = 0.0
    shade: float = 1.0


@functools.lru_cache(maxsize=1)
def _design() -> tuple[_Component, ...]:
    """What lies on every board, and where."""
    found = [
        _Component("chip", (-140, -70), (92, 92)),
        _Component("chip", (60, -95), (120, 58)),
        _Component("chip", (-70, 95), (84, 48)),
        _Component("round", (190, -110), (44, 44)),
        _Component("round", (190, -50), (44, 44)),
        _Component("connector", (120, 140), (190, 40)),
        _Component("crystal", (-195, 70), (36, 64)),
    ]
    rows = ((-40, -20), (0, -20), (40, -20), (80, -20), (120, -20), (10, 40), (50, 40), (90, 40))
    found += [_Component("resistor", (x, y), (26, 13)) for x, y in rows]
    columns = ((-215, -140), (-60, -145), (-20, -145), (150, 40), (195, 40), (-135, 150))
    found += [_Component("capacitor", at, (15, 28)) for at in columns]
    return tuple(found)


@functools.lru_cache(maxsize=1)
def _bare() -> Layer:
    """The board without components: lacquer, traces, vias, pads and holes."""
    rng = np.random.default_rng(2024)
    layer = plain((62, 98, 34), rectangle((0, 0), SIZE))
    for _ in range(46):
        start = np.round(rng.uniform((-230, -160), (230, 160)) / 12) * 12
        first = start + np.array([rng.choice([-1, 1]) * rng.integers(2, 12) * 12, 0])
        second = first + rng.choice([-1, 1], 2) * 12.0 * rng.integers(1, 4)
        points = np.clip(np.array([start, first, second]), (-238, -168), (238, 168))
        paint(layer, stroke(points, 3.0), (88, 136, 58))
        paint(layer, disc(tuple(points[-1]), 4.5), (150, 186, 190))
        paint(layer, disc(tuple(points[-1]), 2.0), (30, 40, 30))
    for component in _design():
        w, h = component.size
        for dx, dy in ((-1, 0), (1, 0)) if w > h else ((0, -1), (0, 1)):
            at = (component.at[0] + dx * w / 2, component.at[1] + dy * h / 2)
            if component.kind in {"resistor", "capacitor"}:
                paint(layer, rectangle(at, (13, 15)), (165, 192, 198))
    for x, y in ((-234, -164), (234, -164), (-234, 164), (234, 164)):
        paint(layer, disc((x, y), 11), (140, 180, 190))
        layer[:, :, 3] *= 1.0 - disc((x, y), 6)
    for component in _design():
        w, h = component.size
        frame = rectangle(component.at, (w + 16, h + 16)) - rectangle(
            component.at, (w + 13, h + 13)
        )
        paint(layer, np.clip(frame, 0, 1), (215, 220, 215), 0.8)
    return layer


def _mount(layer: Layer, component: _Component) -> None:
    """Draw ``component`` into ``layer``."""
    at, (w, h), turn, shade = component.at, component.size, component.turn_deg, component.shade

    def box(offset: Point, size: Point) -> np.ndarray:
        moved = turned(np.array([offset]), turn)[0] + at
        return rectangle((float(moved[0]), float(moved[1])), size, turn)

    cast = rectangle((at[0] + 3, at[1] + 3), (w + 3, h + 3), turn)
    paint(layer, cast, (0, 0, 0), 0.4)
    if component.kind == "chip":
        pins = int(w // 12)
        for number in range(pins):
            x = (number - (pins - 1) / 2) * 12
            for side in (-1, 1):
                paint(layer, box((x, side * (h / 2 + 4)), (5, 10)), (190, 196, 200))
        paint(layer, box((0, 0), (w, h)), np.array([44, 42, 42]) * shade)
        paint(layer, box((0, -h / 2 + 1.5), (w, 3)), np.array([80, 78, 78]) * shade)
        dot = turned(np.array([(-w / 2 + 10, -h / 2 + 10)]), turn)[0] + at
        paint(layer, disc((float(dot[0]), float(dot[1])), 4), (90, 90, 90))
        for row, share in ((-6, 0.55), (6, 0.4)):
            paint(layer, box((0, row), (share * w, 4)), (150, 150, 150), 0.8)
    elif component.kind == "round":
        paint(layer, disc(at, w / 2), np.array([188, 186, 184]) * shade)
        paint(layer, disc(at, w / 2 - 4), np.array([205, 204, 202]) * shade)
        cut = disc(at, w / 2 - 4) * box((-w / 3, 0), (w / 3, h))
        paint(layer, cut, (40, 36, 36))
    elif component.kind == "connector":
        paint(layer, box((0, 0), (w, h)), np.array([225, 228, 230]) * shade)
        for number in range(10):
            x = (number - 4.5) * w / 10.5
            paint(layer, box((x, 0), (9, h - 16)), (60, 64, 66))
            paint(layer, box((x, 2), (4, h - 24)), (120, 190, 215))
    elif component.kind == "crystal":
        paint(layer, box((0, 0), (w, h)), np.array([170, 172, 174]) * shade)
        paint(layer, box((-3, 0), (w - 14, h - 12)), np.array([205, 206, 208]) * shade)
    else:
        body = (38, 38, 40) if component.kind == "resistor" else (96, 142, 178)
        along = w >= h
        paint(layer, box((0, 0), (w, h)), np.array([205, 208, 210]) * shade)
        paint(layer, box((0, 0), (0.6 * w, h) if along else (w, 0.6 * h)), np.array(body) * shade)


def _draw(rng: Rng, texture: float) -> Drawn:
    parts = tuple(
        replace(
            one,
            at=(one.at[0] + rng.normal(0, 0.5), one.at[1] + rng.normal(0, 0.5)),
            turn_deg=float(rng.normal(0, 0.5)),
            shade=float(1.0 + 0.06 * texture * rng.standard_normal()),
        )
        for one in _design()
    )
    finish = 1.0 + texture * (0.02 * grain(rng, 0.9, 0.9) + 0.025 * clouds(rng, 90))

    def redraw(parts: tuple[_Component, ...] = parts, solder: Point | None = None) -> Layer:
        layer = _bare().copy()
        for one in parts:
            _mount(layer, one)
        if solder is not None:
            drop = np.maximum(disc(solder, 7.0), disc((solder[0] + 7, solder[1] + 1), 6.0))
            paint(layer, drop, np.array([196, 200, 204]) * relief(6 * drop, 0.2)[:, :, None])
        layer[:, :, :3] *= finish[:, :, None]
        return np.clip(layer, 0, 255)

    layer = redraw()
    return Drawn(layer, layer[:, :, 3] > 250, redraw, parts)


def _change(how: str) -> Spoil:
    def spoil(drawn: Drawn, rng: Rng) -> Layer:
        parts = list(drawn.plan)
        number = int(rng.integers(len(parts)))
        one = parts[number]
        if how == "missing":
            del parts[number]
        elif how == "shifted":
            angle, reach = rng.uniform(0, 2 * np.pi), rng.uniform(6, 20)
            moved = (one.at[0] + reach * np.cos(angle), one.at[1] + reach * np.sin(angle))
            parts[number] = replace(one, at=moved)
        elif how == "doubled":
            w, h = one.size
            beside = (one.at[0], one.at[1] + 0.7 * h) if w > h else (one.at[0] + 0.7 * w, one.at[1])
            parts.append(replace(one, at=beside))
        elif how == "turned":
            if one.kind == "round":
                # Hardly anything shows that a round component is turned.
                one, number = parts[0], 0
            turn = float(rng.uniform(8, 90) * rng.choice([-1, 1]))
            parts[number] = replace(one, turn_deg=turn)
        return drawn.redraw(parts=tuple(parts))

    return spoil


def _solder_bridge(drawn: Drawn, rng: Rng) -> Layer:
    chip = drawn.plan[int(rng.integers(3))]
    pins = int(chip.size[0] // 12)
    x = chip.at[0] + (int(rng.integers(pins - 1)) - (pins - 1) / 2) * 12 + 3
    y = chip.at[1] + float(rng.choice([-1, 1])) * (chip.size[1] / 2 + 6)
    return drawn.redraw(solder=(float(x), float(y)))


BOARD: Final = Family(
    says="a printed circuit board with chips and other components",
    draw=_draw,
    defects={
        "doubled_component": _change("doubled"),
        "missing_component": _change("missing"),
        "scratch": line((40, 120), (1.0, 2.0), (60, 110), 0.03),
        "shifted_component": _change("shifted"),
        "solder_ball": foreign((4, 9), (190, 195, 200)),
        "solder_bridge": _solder_bridge,
        "stain": spot((20, 60), (0.75, 0.8, 0.85), (0.3, 0.8)),
        "turned_component": _change("turned"),
    },
    conditions=Conditions(shift_px=5.0, turn_deg=1.5),
)
