"""Families of simulated parts, for data sets whose good parts differ as much as one asks for.

Beside the flange of the conveyor there are six, a module each, drawn on one canvas
(``canvas.py``): objects on the belt and surfaces that fill the picture. Position noise, texture and
light (:class:`~inspector.cameras.simulated.scene.Conditions`) mean the same for all, so that one
can be varied and the others kept.
"""

from __future__ import annotations

import zlib
from typing import Final

import cv2
import numpy as np

from inspector.cameras.simulated import conveyor
from inspector.cameras.simulated.conveyor import GOOD, Domain
from inspector.cameras.simulated.families import (
    board,
    brushed,
    canvas,
    cookie,
    gear,
    label,
    textile,
)
from inspector.cameras.simulated.families.canvas import Family
from inspector.cameras.simulated.scene import (
    HEIGHT,
    WIDTH,
    Conditions,
    Pose,
    SimulatedPart,
    Surroundings,
    changed,
)

FLANGE: Final = "flange"

_FAMILIES: Final[dict[str, Family]] = {
    "board": board.BOARD,
    "brushed": brushed.BRUSHED,
    "cookie": cookie.COOKIE,
    "gear": gear.GEAR,
    "label": label.LABEL,
    "textile": textile.TEXTILE,
}

NAMES: Final = (FLANGE, *_FAMILIES)
"""Every family; the flange is the conveyor's own part."""

_MASK_LEVEL: Final = 5
"""A pixel is marked defective where the defect changes it by more grey levels than this."""


def describe(family: str) -> str:
    """A family in a line."""
    return "a turned aluminium flange" if family == FLANGE else _FAMILIES[family].says


def defects(family: str) -> tuple[str, ...]:
    """The kinds of defect that parts of ``family`` may have."""
    return conveyor.DEFECTS if family == FLANGE else tuple(_FAMILIES[family].defects)


def conditions(family: str) -> Conditions:
    """How good parts of ``family`` differ as a rule."""
    return conveyor.CONDITIONS if family == FLANGE else _FAMILIES[family].conditions


def draw_part(
    family: str, conditions: Conditions, *, seed: int, index: int, kind: str, domain: Domain
) -> SimulatedPart:
    """Part ``index`` of ``family`` as ``kind``: ``good`` or one of its defects.

    The same arguments give the same picture, and a part of one ``domain`` is none of another. A
    defective part differs from the good one with its numbers by the defect alone.
    """
    if family == FLANGE:
        return conveyor.draw_kind(seed, index, kind, domain, conditions)
    made = _FAMILIES[family]
    rng = np.random.default_rng([int(domain), seed, index, zlib.crc32(family.encode())])
    pose = Pose.choose(rng, conditions)
    around = Surroundings.choose(rng, conditions)
    blur_px = float(rng.uniform(0.55, 0.75))
    drawn = made.draw(rng, conditions.texture)
    good = canvas.to_bytes(drawn.layer)
    placed = pose.place((canvas.WIDTH, canvas.HEIGHT), 1.0)
    border = cv2.BORDER_REFLECT_101 if made.fills else cv2.BORDER_CONSTANT
    mask, layer = np.zeros((HEIGHT, WIDTH), dtype=np.bool_), good
    if kind != GOOD:
        layer = canvas.to_bytes(made.defects[kind](drawn, rng))
        mask = changed(good, layer, placed, _MASK_LEVEL, border)
    return SimulatedPart(around.photograph(layer, placed, blur_px, border), kind, mask)
