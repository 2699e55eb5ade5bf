"""The house: rooms, floors and imports of ``inspector/`` and ``export/``, read from the code.

::

    python docs/house.py draw             # writes docs/architecture.svg
    python docs/house.py check            # exits 1 when that picture is not of today's imports
    python docs/house.py count [FOLDER]   # sizes of the house in FOLDER, an older checkout too

A room is a folder, or a single module, right below a package. Its floor comes from the layers
contract in ``pyproject.toml`` that import-linter enforces; the arrows come from the imports that
grimp, import-linter's own reader, finds in the modules.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import grimp
from importlinter.api import read_configuration

HOME: Final = Path(__file__).resolve().parent.parent
PICTURE: Final = HOME / "docs" / "architecture.svg"
WINGS: Final = ("inspector", "export")
LONGEST_SHOWN: Final = 10

Edge = tuple[str, str]
"""(importer, imported)."""


class HouseError(Exception):
    """The house cannot be drawn, and why, in one line."""


@dataclass(frozen=True)
class House:
    """The wings' modules and the imports between them, as they are in the folder ``root``."""

    root: Path
    modules: tuple[str, ...]
    imports: frozenset[Edge]

    @property
    def rooms(self) -> Counter[str]:
        """Number of modules in each room."""
        return Counter(map(room_of, self.modules))

    @property
    def doors(self) -> Counter[Edge]:
        """Number of imports from a room's modules into another room's."""
        pairs = ((room_of(a), room_of(b)) for a, b in self.imports)
        return Counter(pair for pair in pairs if pair[0] != pair[1])

    def file_of(self, name: str) -> Path:
        """The source file of a module, or of a room."""
        path = self.root.joinpath(*name.split("."))
        return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")

    def phrase(self, room: str) -> str:
        """First sentence of the docstring of ``room``. Raises :class:`HouseError`."""
        file = self.file_of(room)
        text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8")))
        if not text:
            raise HouseError(f"{file.relative_to(self.root)}: has no docstring to draw it with")
        sentence = re.split(r"(?<=[.!?])\s", " ".join(text.split("\n\n")[0].split()))[0]
        return re.sub(r":\w+:`~?(?:[\w.]+\.)?(\w+)`", r"\1", sentence).replace("``", "")


def room_of(module: str) -> str:
    """``inspector.cli.main`` lies in ``inspector.cli``; the package itself is a room of its own."""
    return ".".join(module.split(".")[:2])


def read(root: Path) -> House:
    """Read the wings that lie in ``root``. Raises :class:`HouseError` when there is none."""
    wings = [wing for wing in WINGS if (root / wing / "__init__.py").is_file()]
    if not wings:
        raise HouseError(f"{root}: holds neither {' nor '.join(WINGS)}; name a checkout")
    sys.path.insert(0, str(root))
    graph = grimp.build_graph(*wings, cache_dir=None)
    modules = tuple(sorted(graph.modules))
    imports = frozenset(
        (module, imported)
        for module in modules
        for imported in graph.find_modules_directly_imported_by(module)
    )
    return House(root, modules, imports)


def reached_from(edges: Iterable[Edge]) -> dict[str, set[str]]:
    """All that each name imports, directly or by way of others; itself where there is a cycle."""
    after: dict[str, set[str]] = {}
    for importer, imported in edges:
        after.setdefault(importer, set()).add(imported)
    reached: dict[str, set[str]] = {}
    for name, direct in after.items():
        found: set[str] = set()
        left = list(direct)
        while left:
            step = left.pop()
            if step not in found:
                found.add(step)
                left += after.get(step, ())
        reached[name] = found
    return reached


def cycles(edges: Iterable[Edge]) -> list[list[str]]:
    """Names that import each other in a ring, a list for each knot of rings."""
    reached = reached_from(edges)
    knots = {
        frozenset(other for other in around if name in reached.get(other, ()))
        for name, around in reached.items()
        if name in around
    }
    return sorted(sorted(knot) for knot in knots)


def floors(names: Iterable[str], edges: Iterable[Edge]) -> int:
    """Names on the longest chain of imports; those of a knot stand on one floor."""
    knot_of = {name: knot[0] for knot in cycles(edges) for name in knot}
    pairs = {(knot_of.get(a, a), knot_of.get(b, b)) for a, b in edges}
    height = {knot_of.get(name, name): 1 for name in names}
    # In a graph without cycles every pass raises at least one floor for good.
    for _ in height:
        for importer, imported in pairs:
            if importer != imported:
                height[importer] = max(height[importer], height[imported] + 1)
    return max(height.values())


def reduced(edges: Iterable[Edge]) -> list[Edge]:
    """Without the edges whose end is reached by way of another room anyway."""
    edges = sorted(edges)
    reached = reached_from(edges)
    direct: dict[str, set[str]] = {}
    for importer, imported in edges:
        direct.setdefault(importer, set()).add(imported)
    return [
        (importer, imported)
        for importer, imported in edges
        if not any(
            imported in reached.get(other, ()) for other in direct[importer] if other != imported
        )
    ]


def plan(house: House) -> dict[str, list[list[str]]]:
    """The rooms on each floor of each wing, the top first, as the layers contracts have them.

    The package's own ``__init__`` stands on the top floor: it is a door from outside. Raises
    :class:`HouseError` when code and contract disagree.
    """
    settings = house.root / "pyproject.toml"
    found: dict[str, list[list[str]]] = {}
    for contract in read_configuration(str(settings))["contracts_options"]:
        if contract["type"] == "layers":
            (wing,) = contract["containers"]
            found[wing] = [
                [f"{wing}.{name.strip(' ()')}" for name in re.split("[|:]", layer)]
                for layer in contract["layers"]
            ]
    if set(found) != set(WINGS):
        raise HouseError(
            f"{settings.name}: a layers contract for each of {', '.join(WINGS)} is needed"
        )
    for wing, rows in found.items():
        rows[0].append(wing)
    floor_of = {
        room: number for rows in found.values() for number, row in enumerate(rows) for room in row
    }
    for room in sorted(set(house.rooms) ^ set(floor_of)):
        where = "no floor in the layers contract" if room in house.rooms else "no code"
        raise HouseError(f"{settings.name}: {room} has {where}; run lint-imports")
    for importer, imported in sorted(house.doors):
        wings = importer.split(".")[0], imported.split(".")[0]
        if wings == ("inspector", "export"):
            raise HouseError(f"{importer} imports {imported}, of the training wing")
        if wings[0] == wings[1] and floor_of[importer] >= floor_of[imported]:
            raise HouseError(f"{importer} imports {imported}, which is on no lower floor")
    return found


def count(house: House) -> str:
    """Sizes of each wing, and its longest files, to print."""
    lines = []
    for wing in sorted({name.split(".")[0] for name in house.modules}, reverse=True):
        modules = [name for name in house.modules if name.split(".")[0] == wing]
        inside = set(modules)
        imports = {(a, b) for a, b in house.imports if a in inside and b in inside}
        rooms = {room_of(module) for module in modules}
        doors = {(a, b) for a, b in house.doors if {a, b} <= rooms}
        lines += [
            f"{wing}/",
            f"  {len(modules):6}  modules, on {floors(modules, imports)} floors",
            f"  {len(imports):6}  imports between modules",
            f"  {len(rooms):6}  rooms, on {floors(rooms, doors)} floors",
            f"  {len(doors):6}  imports between rooms",
        ]
        for what, edges in (("modules", imports), ("rooms", doors)):
            knots = cycles(edges)
            lines.append(f"  {len(knots):6}  cycles of {what}")
            lines += [f"          {', '.join(knot)}" for knot in knots]
        files = {house.file_of(module) for module in modules}
        sizes = [(len(file.read_text(encoding="utf-8").splitlines()), file) for file in files]
        lines.append("   lines  of the longest files")
        for size, file in sorted(sizes, key=lambda each: (-each[0], each[1]))[:LONGEST_SHOWN]:
            lines.append(f"  {size:6}  {file.relative_to(house.root).as_posix()}")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw, check or count; 1 with one line on standard error when something is wrong."""
    parser = argparse.ArgumentParser(description="The rooms of inspector/ and export/.")
    commands = parser.add_subparsers(required=True, dest="command")
    commands.add_parser("draw", help="write docs/architecture.svg")
    commands.add_parser("check", help="is docs/architecture.svg of today's imports?")
    counting = commands.add_parser("count", help="modules, floors, imports, longest files")
    counting.add_argument("folder", nargs="?", type=Path, default=HOME, help="a checkout")
    options = parser.parse_args(arguments)
    try:
        if options.command == "count":
            print(count(read(options.folder.resolve())))
            return 0
        from house_picture import draw

        house = read(HOME)
        picture = draw(house, plan(house), reduced(house.doors))
    except HouseError as error:
        print(f"house: {error}", file=sys.stderr)
        return 1
    if options.command == "draw":
        PICTURE.write_text(picture, encoding="utf-8")
    elif not PICTURE.is_file() or PICTURE.read_text(encoding="utf-8") != picture:
        name = PICTURE.relative_to(HOME)
        print(
            f"house: {name} is not of today's imports; run 'python docs/house.py draw'",
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
