"""The simulated conveyor: draws parts, good and defective, the same for the same seed.

A part depends on (domain, seed, index) alone: no other part, clock or state is needed to draw it,
so that another process can tell what was on the belt (:func:`truth`). The stream of the camera and
each split of a written data set are different domains of NumPy's ``SeedSequence``, so that no
training picture ever appears on the belt, whatever the seeds.
"""

from __future__ import annotations

import enum
import re
import time
from typing import Final

import numpy as np
import numpy.typing as npt

from inspector.cameras.base import Frame
from inspector.cameras.pace import Pace, Place, now_us
from inspector.cameras.simulated import flange
from inspector.cameras.simulated.defects import KINDS, spoil
from inspector.cameras.simulated.scene import (
    HEIGHT,
    WIDTH,
    Conditions,
    Pose,
    SimulatedPart,
    Surroundings,
    changed,
)
from inspector.config.cameras.simulator import SimulatorCamera

GOOD: Final = "good"
DEFECTS: Final = tuple(KINDS)

SHIFT_PX: Final = 10.0
TURN_DEG: Final = 12.0
CONDITIONS: Final = Conditions(SHIFT_PX, TURN_DEG)
"""How the flanges of the camera, and of a data set by default, differ."""

_MASK_LEVEL: Final = 9
"""A pixel is marked defective where the defect changes it by more grey levels than this."""


class Domain(enum.IntEnum):
    """What parts are drawn for; those of different domains never coincide."""

    STREAM = 1
    TRAIN_GOOD = 2
    TEST_GOOD = 3
    TEST_DEFECTIVE = 4


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
    return _picture(rng, _truth(rng, defect_rate), CONDITIONS)


def draw_kind(
    seed: int, index: int, kind: str, domain: Domain, conditions: Conditions = CONDITIONS
) -> SimulatedPart:
    """Part ``index`` as ``kind``: ``good`` or one of ``DEFECTS``."""
    rng = _generator(domain, seed, index)
    _truth(rng, 0.0)
    return _picture(rng, kind, conditions)


def _generator(domain: Domain, seed: int, index: int) -> np.random.Generator:
    return np.random.default_rng([int(domain), seed, index])


def _truth(rng: np.random.Generator, defect_rate: float) -> str:
    # Both numbers are drawn for every part, so that the rate does not change how parts look.
    chance, kind = rng.random(), int(rng.integers(len(DEFECTS)))
    return DEFECTS[kind] if chance < defect_rate else GOOD


def _picture(rng: np.random.Generator, kind: str, conditions: Conditions) -> SimulatedPart:
    pose = Pose.choose(rng, conditions)
    finish = flange.Finish.choose(rng, conditions.texture)
    around = Surroundings.choose(rng, conditions)
    layer = flange.clean(finish, pose.turn_deg)
    placed = pose.place((flange.SIZE, flange.SIZE), flange.ZOOM)
    mask = np.zeros((HEIGHT, WIDTH), dtype=np.bool_)
    if kind != GOOD:
        good, layer = layer, spoil(kind, layer, rng, finish, pose.turn_deg)
        mask = changed(good, layer, placed, _MASK_LEVEL)
    image = around.photograph(layer, placed, float(rng.uniform(0.55, 0.75)))
    return SimulatedPart(image, kind, mask)
