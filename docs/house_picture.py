"""Draws the house as SVG: rooms on their floors, arrows for imports, a table of all of them.

The same code gives the same bytes: nothing in them depends on time, machine or locale.
"""

from __future__ import annotations

import html
import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from house_layout import GAP, Item, Shaft, Wing, arrange

if TYPE_CHECKING:
    from house import Edge, House

WIDTH: Final = 1200
MARGIN: Final = 34
WING_WIDTHS: Final = {"inspector": 734, "export": 326}
CORRIDOR: Final = 54
ROOF: Final = 86
PHRASE_PX: Final = 12.5
LINE: Final = 16
CELL: Final = 24
TABLE_LABEL: Final = 170
PORTS_APART: Final = 26
ASIDE: Final = 0.36
"""Where arrows to the other wing start and end on a side: never at the same height."""

PAPER, INK, FAINT, WALL = "#fbfaf6", "#22303f", "#5d6b7a", "#c9c5b8"
SHADE, BLUE = "#e6e2d6", "#3a608c"
ARROW, ACROSS = "#64748b", "#c2552d"
FLOOR_COLOURS: Final = (
    "#8a6d3b", "#a08535", "#6f9142", "#3f8f6b", "#2f8a94", "#3a78a8", "#4c62a6", "#6a4f9c",
)  # fmt: skip
"""From the ground floor up."""

STYLE: Final = f"""
text {{ font-family: 'Segoe UI', Helvetica, Arial, 'DejaVu Sans', sans-serif; fill: {INK}; }}
.title {{ font-size: 21px; font-weight: bold; }}
.room {{ font-size: 15.5px; font-weight: bold; }}
.phrase {{ font-size: {PHRASE_PX}px; fill: {FAINT}; }}
.small {{ font-size: 11.5px; fill: {FAINT}; }}
.label {{ font-size: 12.5px; }}
.arrow {{ fill: none; stroke: {ARROW}; stroke-width: 1.6; }}
.across {{ fill: none; stroke: {ACROSS}; stroke-width: 1.8; }}
"""

Point = tuple[float, float]


def draw(
    house: House, floors: Mapping[str, Sequence[Sequence[str]]], arrows: Sequence[Edge]
) -> str:
    """The picture, an SVG document.

    ``floors``: the rooms of each wing, the top floor first; ``arrows``: the imports to draw, which
    run downwards within a wing, and from ``export`` to ``inspector``.
    """
    across = [edge for edge in arrows if wing_of(edge[0]) != wing_of(edge[1])]
    # An arrow across leaves its wing at the left side, and enters the other at the right one.
    pull = {edge[0]: -1 for edge in across} | {edge[1]: 1 for edge in across}
    wings = {}
    for name, rooms in floors.items():
        inside = [edge for edge in arrows if wing_of(edge[0]) == wing_of(edge[1]) == name]
        width = WING_WIDTHS[name]
        left = MARGIN if name == "inspector" else WIDTH - MARGIN - width
        wings[name] = arrange(name, rooms, inside, pull=pull, left=left, width=width)
    return _Page(house, wings, across).document()


def wing_of(room: str) -> str:
    """``inspector.cli`` is a room of ``inspector``."""
    return room.split(".", maxsplit=1)[0]


class _Page:
    """The document as it grows."""

    def __init__(self, house: House, wings: Mapping[str, Wing], across: Sequence[Edge]) -> None:
        self.house, self.wings, self.across = house, wings, across
        self.parts: list[str] = []
        self.lines = {
            room: _wrap(house.phrase(room), wing.room_width(number) - 2 * GAP)
            for wing in wings.values()
            for number in range(len(wing.rows))
            for room in wing.rooms_on(number)
        }
        storeys = max(len(wing.rows) for wing in wings.values())
        # Counted from the ground, on which both wings stand.
        self.heights = [
            max(
                52 + LINE * len(self.lines[room])
                for wing in wings.values()
                if storey < len(wing.rows)
                for room in wing.rooms_on(len(wing.rows) - 1 - storey)
            )
            for storey in range(storeys)
        ]
        self.ground = MARGIN + ROOF + sum(self.heights) + CORRIDOR * storeys - CORRIDOR / 2
        self.ports: dict[tuple[tuple[Item, Item], bool], float] = {}

    def document(self) -> str:
        """Draw it all."""
        for wing in self.wings.values():
            self._walls(wing)
        for wing in self.wings.values():
            self._ports(wing)
            for number, pieces in enumerate(wing.segments):
                for piece in pieces:
                    self._piece(wing, number, piece)
            for number, row in enumerate(wing.rows):
                for item in row:
                    if isinstance(item, Shaft):
                        x, (top, bottom) = wing.centre[item], self._sides(wing, number)
                        self._add(f'<path class="arrow" d="M{_xy(x, top)}V{_n(bottom)}"/>')
        self._draw_across()
        for wing in self.wings.values():
            for number in range(len(wing.rows)):
                for room in wing.rooms_on(number):
                    self._room(wing, number, room)
        self._legend(self.ground + 34)
        bottom = self._table(self.ground + 104)
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {_n(bottom)}" '
            f'width="{WIDTH}" height="{_n(bottom)}" role="img" '
            f'aria-label="Rooms, floors and imports of inspector and export">'
            f"\n<style>{STYLE}</style>\n<defs>{_head('tip', ARROW)}{_head('tip-across', ACROSS)}"
            f"</defs>\n"
            f'<rect x="1" y="1" width="{WIDTH - 2}" height="{_n(bottom - 2)}" rx="14" '
            f'fill="{PAPER}" stroke="{WALL}"/>\n'
        )
        return head + "\n".join(self.parts) + "\n</svg>\n"

    def _legend(self, y: float) -> None:
        for x, kind, tip, text in (
            (MARGIN, "arrow", "tip", "imports"),
            (MARGIN + 130, "across", "tip-across", "imports from the other wing"),
        ):
            self._add(f'<path class="{kind}" d="M{_xy(x, y - 4)}h28" marker-end="url(#{tip})"/>')
            self._text(x + 44, y, text, "phrase")
        text = "Left out: an import of what a room in between imports too. The table has them all."
        self._text(MARGIN + 400, y, text, "phrase")

    def _add(self, part: str) -> None:
        self.parts.append(part)

    def _text(self, x: float, y: float, text: str, kind: str, more: str = "") -> None:
        self._add(f'<text class="{kind}" x="{_n(x)}" y="{_n(y)}"{more}>{html.escape(text)}</text>')

    def _sides(self, wing: Wing, number: int) -> tuple[float, float]:
        """Top and bottom of the rooms on a floor."""
        storey = len(wing.rows) - 1 - number
        bottom = self.ground - CORRIDOR / 2 - sum(self.heights[:storey]) - CORRIDOR * storey
        return bottom - self.heights[storey], bottom

    def _walls(self, wing: Wing) -> None:
        top = self._sides(wing, 0)[0] - CORRIDOR / 2
        left, right = wing.left - GAP, wing.left + wing.width + GAP
        middle = (left + right) / 2
        modules = sum(
            count for room, count in self.house.rooms.items() if wing_of(room) == wing.name
        )
        self._add(
            f'<path d="M{_xy(left - 8, top)}L{_xy(middle, top - ROOF + 12)}'
            f'L{_xy(right + 8, top)}Z" fill="#e9e4d6" stroke="{WALL}"/>'
        )
        self._add(
            f'<rect x="{_n(left)}" y="{_n(top)}" width="{_n(right - left)}" '
            f'height="{_n(self.ground - top)}" fill="#ffffff" stroke="{WALL}"/>'
        )
        for number in range(1, len(wing.rows)):
            y = self._sides(wing, number)[0] - CORRIDOR / 2
            self._add(
                f'<path d="M{_xy(left, y)}H{_n(right)}" stroke="{WALL}" stroke-dasharray="2 5"/>'
            )
        self._add(
            f'<path d="M{_xy(left - 8, self.ground)}H{_n(right + 8)}" stroke="{INK}" '
            f'stroke-width="3"/>'
        )
        centred = ' text-anchor="middle"'
        self._text(middle, top - 30, f"{wing.name}/", "title", centred)
        self._text(middle, top - 12, f"{modules} modules", "small", centred)

    def _room(self, wing: Wing, number: int, room: str) -> None:
        top, bottom = self._sides(wing, number)
        width = wing.room_width(number)
        left = wing.centre[room] - width / 2
        colour = _colour(len(wing.rows) - 1 - number)
        box = f'x="{_n(left)}" y="{_n(top)}" width="{_n(width)}" height="{_n(bottom - top)}" rx="7"'
        self._add(f'<rect {box} fill="#ffffff" stroke="{colour}" stroke-width="1.4"/>')
        self._add(
            f'<path d="M{_xy(left, top + 7)}q0 -7 7 -7H{_n(left + width - 7)}q7 0 7 7Z" '
            f'fill="{colour}"/>'
        )
        self._text(left + GAP, top + 27, self._name(room), "room")
        for number_, line in enumerate(self.lines[room]):
            self._text(left + GAP, top + 45 + LINE * number_, line, "phrase")
        count = self.house.rooms[room]
        if count > 1:
            end = f' text-anchor="end" style="fill: {colour}"'
            self._text(left + width - GAP, top + 27, f"{count} modules", "small", end)

    def _name(self, room: str) -> str:
        file = self.house.file_of(room)
        is_folder = file.name == "__init__.py" and "." in room
        return f"{file.parent.name}/" if is_folder else file.name

    def _ports(self, wing: Wing) -> None:
        """Where arrows leave and enter each item, in the order of their other ends."""
        for number, pieces in enumerate(wing.segments):
            for leaving in (True, False):
                at = number if leaving else number + 1
                own, other = (0, 1) if leaving else (1, 0)
                for item in {piece[own] for piece in pieces}:
                    mine = [piece for piece in pieces if piece[own] == item]
                    mine.sort(key=lambda piece: (wing.centre[piece[other]], str(piece)))
                    room = wing.room_width(at) - 40 if isinstance(item, str) else 0.0
                    apart = min(PORTS_APART, room / max(1, len(mine) - 1))
                    first = wing.centre[item] - apart * (len(mine) - 1) / 2
                    for place, piece in enumerate(mine):
                        self.ports[piece, leaving] = first + apart * place

    def _piece(self, wing: Wing, number: int, piece: tuple[Item, Item]) -> None:
        start, end = self.ports[piece, True], self.ports[piece, False]
        top, bottom = self._sides(wing, number)[1], self._sides(wing, number + 1)[0]
        tip = ""
        if isinstance(piece[1], str):
            tip, bottom = ' marker-end="url(#tip)"', bottom - 7
        middle = (top + bottom) / 2
        self._add(
            f'<path class="arrow" d="M{_xy(start, top)}C{_xy(start, middle)} '
            f'{_xy(end, middle)} {_xy(end, bottom)}"{tip}/>'
        )

    def _draw_across(self) -> None:
        """Arrows between the wings: along the floors, and up or down in the yard between them."""
        east, west = self.wings["export"], self.wings["inspector"]
        low, high = west.left + west.width + GAP, east.left - GAP
        ends = [(self._exit(east, edge), self._entrance(west, edge)) for edge in self.across]
        order: list[tuple[list[Point], list[Point]]] = []
        for end in ends:
            tries = [[*order[:place], end, *order[place:]] for place in range(len(order) + 1)]
            order = min(tries, key=_knots)
        for number, (leaving, entering) in enumerate(order, 1):
            track = low + (high - low) * number / (len(order) + 1)
            corners = [(track, leaving[-1][1]), (track, entering[0][1])]
            path = _bent([*leaving, *corners, *entering])
            self._add(f'<path class="across" d="{path}" marker-end="url(#tip-across)"/>')

    def _exit(self, wing: Wing, edge: Edge) -> list[Point]:
        """From the left side of a room, or where another stands there, over that one's roof."""
        number = wing.floor_of(edge[0])
        top, bottom = self._sides(wing, number)
        rooms = wing.rooms_on(number)
        left = wing.centre[edge[0]] - wing.room_width(number) / 2
        mine = [each for each in self.across if each[0] == edge[0]]
        if rooms[0] == edge[0]:
            return [(left, bottom - (bottom - top) * ASIDE + _aside(mine, edge))]
        x = left + wing.room_width(number) / 2 + _aside(mine, edge)
        return [(x, top), (x, top - CORRIDOR / 4)]

    def _entrance(self, wing: Wing, edge: Edge) -> list[Point]:
        """To the right side of a room, or where another stands there, over that one's roof."""
        number = wing.floor_of(edge[1])
        top, bottom = self._sides(wing, number)
        rooms = wing.rooms_on(number)
        right = wing.centre[edge[1]] + wing.room_width(number) / 2
        mine = [each for each in self.across if each[1] == edge[1]]
        if rooms[-1] == edge[1]:
            return [(right + 7, top + (bottom - top) * ASIDE + _aside(mine, edge))]
        x = right - GAP + _aside(mine, edge)
        return [(x, top - CORRIDOR / 4), (x, top - 7)]

    def _table(self, top: float) -> float:
        """How many imports there are between each two rooms; returns where the page ends."""
        floor_of = {
            room: number
            for wing in self.wings.values()
            for number in range(len(wing.rows))
            for room in wing.rooms_on(number)
        }
        doors = self.house.doors
        rows = [room for room in floor_of if any(edge[0] == room for edge in doors)]
        columns = [room for room in floor_of if any(edge[1] == room for edge in doors)]
        left = (WIDTH - TABLE_LABEL - CELL * len(columns)) / 2 + TABLE_LABEL
        self._text(MARGIN, top, "Every import", "title")
        for line, text in enumerate(
            (
                "How often the modules of a room (row) import modules of another room (column).",
                "Grey: where no import may be, since it would not run down to a lower floor, "
                "or would lead from inspector to export.",
            )
        ):
            self._text(MARGIN, top + 24 + 18 * line, text, "phrase")
        top += 160
        for number, room in enumerate(columns):
            x = left + CELL * (number + 0.5)
            turned = f' transform="rotate(-55 {_n(x)} {_n(top - 8)})"'
            self._text(x, top - 8, self._label(room), "label", turned)
        for number, room in enumerate(rows):
            y = top + CELL * number
            self._text(left - 10, y + 16, self._label(room), "label", ' text-anchor="end"')
            for place, other in enumerate(columns):
                x, count, same = (
                    left + CELL * place,
                    doors[room, other],
                    wing_of(room) == wing_of(other),
                )
                if count:
                    fill = _tint(count, BLUE if same else ACROSS)
                elif same:
                    fill = "#ffffff" if floor_of[room] < floor_of[other] else SHADE
                else:
                    fill = "#ffffff" if wing_of(room) == "export" else SHADE
                self._add(
                    f'<rect x="{_n(x)}" y="{_n(y)}" width="{CELL}" height="{CELL}" '
                    f'fill="{fill}" stroke="{WALL}" stroke-width="0.6"/>'
                )
                if count:
                    ink = f' text-anchor="middle" style="fill: {"#ffffff" if count > 4 else INK}"'
                    self._text(x + CELL / 2, y + 16, str(count), "small", ink)
        return top + CELL * len(rows) + MARGIN

    def _label(self, room: str) -> str:
        name = self._name(room)
        return name if room.startswith("inspector") else f"export/{name}"


def _aside(edges: Sequence[Edge], edge: Edge) -> float:
    """How far from the middle ``edge`` is of all that start or end at the same place."""
    return PORTS_APART / 2 * (edges.index(edge) - (len(edges) - 1) / 2)


def _knots(order: Sequence[tuple[Sequence[Point], Sequence[Point]]]) -> int:
    """Crossings in the yard, when the arrows turn in ``order``, the first one the farthest west."""
    found = 0
    for (leaving, entering), (other_leaving, other_entering) in itertools.combinations(order, 2):
        mine = sorted((leaving[-1][1], entering[0][1]))
        others = sorted((other_leaving[-1][1], other_entering[0][1]))
        found += others[0] <= leaving[-1][1] <= others[1]
        found += mine[0] <= other_entering[0][1] <= mine[1]
    return found


def _bent(points: Sequence[Point]) -> str:
    """A line through ``points`` with round corners."""
    path = f"M{_xy(*points[0])}"
    for before, corner, after in zip(points, points[1:], points[2:], strict=False):
        near, far = _towards(corner, before), _towards(corner, after)
        path += f"L{_xy(*near)}Q{_xy(*corner)} {_xy(*far)}"
    return path + f"L{_xy(*points[-1])}"


def _towards(corner: Point, other: Point) -> Point:
    length = abs(other[0] - corner[0]) + abs(other[1] - corner[1])
    share = min(8.0, length / 2) / length if length else 0.0
    return (
        corner[0] + share * (other[0] - corner[0]),
        corner[1] + share * (other[1] - corner[1]),
    )


def _wrap(text: str, width: float) -> list[str]:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and _length(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def _length(text: str) -> float:
    """Of a phrase, px, in the widest of the fonts it may be shown in."""
    wide = {**dict.fromkeys("ijl.,:;'|! ()-ftr", 0.40), **dict.fromkeys("mwMW@", 0.95)}
    return PHRASE_PX * sum(wide.get(sign, 0.70 if sign.isupper() else 0.61) for sign in text)


def _tint(count: int, colour: str) -> str:
    """``colour``, the paler the fewer."""
    strength = min(1.0, 0.2 + count / 9)
    full = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    return "#" + "".join(f"{round(255 + (each - 255) * strength):02x}" for each in full)


def _colour(storey: int) -> str:
    return FLOOR_COLOURS[storey % len(FLOOR_COLOURS)]


def _head(name: str, colour: str) -> str:
    return (
        f'<marker id="{name}" viewBox="0 0 10 10" refX="3" refY="5" markerWidth="10" '
        f'markerHeight="10" markerUnits="userSpaceOnUse" orient="auto">'
        f'<path d="M0 1L10 5L0 9Z" fill="{colour}"/></marker>'
    )


def _n(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _xy(x: float, y: float) -> str:
    return f"{_n(x)} {_n(y)}"
