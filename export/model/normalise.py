"""Distances are normalised at each grid position by those of good parts the model has not seen.

An edge of a part or its printed side may lie far from the memory bank on every good part, and plain
metal never. One limit for both would let small defects pass where good parts are alike. With the
mean μ_t and the spread σ_t of the held-out parts' distances at position t, and their means μ̄ and σ̄
over the grid, a distance d becomes

    d' = max(0, (d − μ_t) / σ_t · σ̄ + μ̄) = max(0, gain_t · d + offset_t),

which keeps the unit of distance. Few parts say little about one position, so both figures are
shrunk towards μ̄ and σ̄. What most good parts have at a place is no help where they lie in
any position: :func:`does_harm` tells that by drawn defects.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from scipy.ndimage import uniform_filter
from torch import Tensor

from inspector.verdict import FloatMap

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

WINDOW: Final = 5
"""Side of the square of positions over which a position's statistics are averaged."""

SHRINKAGE: Final = 60
"""With so many parts, a position's own statistics and those of the whole map count alike."""

MOST_GAIN: Final = 4.0
"""No distance is stretched or shrunk by a larger factor.

Where all parts are alike, noise would else become a reject, and one odd part among those held out
would make the model blind at its place.
"""


@dataclass(frozen=True)
class Normaliser:
    """d' = max(0, gain · d + offset): ``gain`` and ``offset`` are float64 ``[H', W']``.

    ``parts`` is n, the number of held-out good parts that the statistics come from.
    """

    gain: Floats
    offset: Floats
    parts: int

    @property
    def weight(self) -> float:
        """t = n / (n + :data:`SHRINKAGE`): how much a position's own statistics count."""
        return self.parts / (self.parts + SHRINKAGE)

    def __call__(self, distances: Tensor) -> Tensor:
        """``[..., H', W']`` normalised; NaN stays NaN."""
        gain, offset = (torch.from_numpy(a).to(distances) for a in (self.gain, self.offset))
        return (gain * distances + offset).clamp_min(0)

    def invert(self, value: float) -> Floats:
        """``[H', W']``: the largest distances whose normalised values are at most ``value``.

        0 where no distance has one.
        """
        return np.maximum((value - self.offset) / self.gain, 0.0)

    def state(self) -> dict[str, Any]:
        """What :meth:`from_state` takes, for ``torch.save``."""
        return {
            "gain": torch.from_numpy(self.gain),
            "offset": torch.from_numpy(self.offset),
            "parts": self.parts,
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any], grid: tuple[int, int]) -> Normaliser:
        """Raises ValueError when ``state`` is none for this ``grid``."""
        found = [state.get(name) for name in ("gain", "offset")]
        if not all(isinstance(one, Tensor) and one.shape == grid for one in found):
            raise ValueError(f"no statistics of a grid of {grid[0]}x{grid[1]} positions")
        gain, offset = (np.asarray(one, dtype=np.float64) for one in found)
        return cls(gain, offset, int(state["parts"]))


def does_harm(passes_with: Bools, passes_without: Bools) -> bool:
    """True when normalisation lets clearly more of the same defects pass, each ``[n]``.

    Clearly: by more than one standard error of the difference, the square root of the number of
    defects that pass one way and not the other (McNemar's test).
    """
    lost = int((passes_with & ~passes_without).sum())
    won = int((passes_without & ~passes_with).sum())
    return lost - won > math.sqrt(lost + won)


class Statistics:
    """Mean and spread of n good parts' distances at each grid position."""

    def __init__(self, maps: FloatMap) -> None:
        """``maps``: float32 ``[n, H', W']``, each by a model that has not seen the part."""
        self._parts = len(maps)
        self._sum = np.zeros(maps.shape[1:])
        self._squares = np.zeros(maps.shape[1:])
        for one in maps:
            exact = one.astype(np.float64)
            self._sum += exact
            self._squares += np.square(exact)

    def normaliser(self) -> Normaliser:
        """By all parts: that of the model in service."""
        return _normaliser(self._sum, self._squares, self._parts)

    def without(self, one: FloatMap) -> Normaliser:
        """By all parts but ``one`` ``[H', W']``, which must be among them.

        A part that is judged by its own statistics has a share in the mean that it is compared with
        and widens the spread that it is divided by. It would score lower than a new part does, and
        the limit would be too low.
        """
        exact = one.astype(np.float64)
        return _normaliser(self._sum - exact, self._squares - np.square(exact), self._parts - 1)


def _normaliser(total: Floats, squares: Floats, parts: int) -> Normaliser:
    """From the sums of ``parts`` distances and of their squares at each position."""
    if parts < 2:
        return Normaliser(np.ones_like(total), np.zeros_like(total), max(parts, 0))
    mean = total / parts
    variance = np.maximum(squares - total * mean, 0.0) / (parts - 1)
    mean = uniform_filter(mean, WINDOW, mode="nearest")
    spread = np.sqrt(np.maximum(uniform_filter(variance, WINDOW, mode="nearest"), 0.0))
    typical, common = float(mean.mean()), float(spread.mean())
    if common == 0.0:
        # All parts are alike at every position, so there is no spread to compare.
        return Normaliser(np.ones_like(total), np.zeros_like(total), parts)
    weight = parts / (parts + SHRINKAGE)
    mean = typical + weight * (mean - typical)
    spread = common + weight * (np.clip(spread, common / MOST_GAIN, common * MOST_GAIN) - common)
    gain = common / spread
    return Normaliser(gain, typical - gain * mean, parts)
