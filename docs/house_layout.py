"""Where rooms and arrows of the house stand: their order on each floor, and their places.

Arrows run down through shafts between the rooms; arrows to the same room share a shaft. All of it
follows from the rooms and imports alone, so that the same code gives the same picture.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

GAP: Final = 14
"""Between neighbours on a floor, px."""
ROOM_WIDEST: Final = 300
SHAFT: Final = 18
STARTS: Final = 12
FAR_INSIDE: Final = 20.0
"""Crossings that are as bad as a room in the way of an arrow to the other wing."""
SLANT: Final = 0.1
"""Crossings that are as bad as an arrow from one end of a floor to the other end of the next."""


class Shaft(NamedTuple):
    """Where arrows to ``target`` pass ``floor``."""

    target: str
    floor: int


Item = str | Shaft


@dataclass
class Wing:
    """One package on the page: its items from left to right on each floor, the top floor first."""

    name: str
    rows: list[list[Item]]
    segments: list[list[tuple[Item, Item]]]
    """Pieces of arrows, from each floor to the next."""
    left: float
    width: float
    centre: dict[Item, float] = field(default_factory=dict)
    """Of each item, px from the left of the page."""

    def floor_of(self, room: str) -> int:
        """Number of the floor, from the top, that ``room`` stands on."""
        return next(number for number, row in enumerate(self.rows) if room in row)

    def rooms_on(self, floor: int) -> list[str]:
        """From left to right."""
        return [item for item in self.rows[floor] if isinstance(item, str)]

    def room_width(self, floor: int) -> float:
        """Of each room on ``floor``."""
        row = self.rows[floor]
        rooms = len(self.rooms_on(floor))
        free = self.width - (len(row) - rooms) * SHAFT - (len(row) - 1) * GAP
        return min(ROOM_WIDEST, free / rooms)


def arrange(
    name: str,
    rooms: Sequence[Sequence[str]],
    arrows: Iterable[tuple[str, str]],
    *,
    pull: Mapping[str, int],
    left: float,
    width: float,
) -> Wing:
    """The wing with everything in its place.

    ``rooms`` on each floor, the top one first; ``arrows`` from importer to imported, each of which
    runs downwards; ``pull``: rooms that want to stand at the left (-1) or right (1) end.
    """
    floor_of = {room: number for number, row in enumerate(rooms) for room in row}
    rows: list[list[Item]] = [list(row) for row in rooms]
    pieces: list[set[tuple[Item, Item]]] = [set() for _ in rooms]
    for importer, imported in arrows:
        here: Item = importer
        for number in range(floor_of[importer], floor_of[imported]):
            last = number + 1 == floor_of[imported]
            below: Item = imported if last else Shaft(imported, number + 1)
            if below not in rows[number + 1]:
                rows[number + 1].append(below)
            pieces[number].add((here, below))
            here = below
    wing = Wing(name, rows, [sorted(piece, key=str) for piece in pieces], left, width)
    _order(wing, pull)
    _place(wing)
    return wing


def _order(wing: Wing, pull: Mapping[str, int]) -> None:
    """Have few arrows cross: move items within their floors as long as that helps."""

    def crossings(number: int) -> float:
        if not 0 <= number < len(wing.rows) - 1:
            return 0.0
        at = {
            item: place for row in wing.rows[number : number + 2] for place, item in enumerate(row)
        }
        pairs = itertools.combinations(wing.segments[number], 2)
        found = sum((at[a] - at[c]) * (at[b] - at[d]) < 0 for (a, b), (c, d) in pairs)
        width = [max(1, len(row) - 1) for row in wing.rows[number : number + 2]]
        slant = sum(abs(at[a] / width[0] - at[b] / width[1]) for a, b in wing.segments[number])
        return found + SLANT * slant

    def cost(number: int) -> float:
        rooms = wing.rooms_on(number)
        outside = sum(
            (len(rooms) - 1 - place) if pull[room] > 0 else place
            for place, room in enumerate(rooms)
            if room in pull
        )
        return crossings(number - 1) + crossings(number) + FAR_INSIDE * outside

    found = []
    for turn in range(STARTS):
        for number, row in enumerate(wing.rows):
            shift = turn * (number + 1) % len(row)
            wing.rows[number] = row[shift:] + row[:shift]
        _settle(wing.rows, cost)
        # Rounded: Python versions add floats in different ways, and must choose alike.
        total = round(math.fsum(map(cost, range(len(wing.rows)))), 6)
        found.append((total, turn, [list(row) for row in wing.rows]))
    wing.rows = min(found)[2]


def _settle(rows: Sequence[list[Item]], cost: Callable[[int], float]) -> None:
    """Move one item after the other as long as that lowers the cost of its floor."""
    better = True
    while better:
        better = False
        for number, row in enumerate(rows):
            for old, new in itertools.permutations(range(len(row)), 2):
                before = cost(number)
                row.insert(new, row.pop(old))
                if cost(number) < before - 1e-9:
                    better = True
                else:
                    row.insert(old, row.pop(new))


def _place(wing: Wing) -> None:
    """Centres of all items, near those they are joined with, side by side without overlap."""
    for number, row in enumerate(wing.rows):
        for item, x in zip(row, _spread(wing, number, [wing.width / 2] * len(row)), strict=True):
            wing.centre[item] = x
    numbers = range(len(wing.rows))
    for number in [*numbers, *reversed(numbers)] * 8:
        wanted = []
        for item in wing.rows[number]:
            near = [a for a, b in wing.segments[number - 1] if b == item] if number else []
            near += [b for a, b in wing.segments[number] if a == item]
            found = [wing.centre[other] - wing.left for other in near] or [wing.width / 2]
            wanted.append(_mean(found))
        placed = _spread(wing, number, wanted)
        wing.centre |= dict(zip(wing.rows[number], placed, strict=True))


def _spread(wing: Wing, number: int, wanted: Sequence[float]) -> list[float]:
    """The places nearest to ``wanted`` (least squares) at which nothing overlaps."""
    room = wing.room_width(number)
    sizes = [room if isinstance(item, str) else SHAFT for item in wing.rows[number]]
    offsets = [0.0]
    for one, other in itertools.pairwise(sizes):
        offsets.append(offsets[-1] + (one + other) / 2 + GAP)
    blocks: list[list[float]] = []
    for want, offset in zip(wanted, offsets, strict=True):
        blocks.append([want - offset])
        while len(blocks) > 1 and _mean(blocks[-2]) > _mean(blocks[-1]):
            blocks[-2:] = [blocks[-2] + blocks[-1]]
    low = sizes[0] / 2
    high = max(low, wing.width - sizes[-1] / 2 - offsets[-1])
    shifts = [min(max(_mean(block), low), high) for block in blocks for _ in block]
    return [wing.left + shift + offset for shift, offset in zip(shifts, offsets, strict=True)]


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
