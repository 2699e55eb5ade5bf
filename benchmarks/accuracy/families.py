"""What makes parts hard: the simulator's families, one property varied at a time.

    python -m benchmarks.accuracy.families [--families gear,board] [--axes aligned,few] [--seeds 1]
        [--methods cfa,padim] [--size 224] [--epochs 0] [--minutes 15]

Around one middle point (a family's own position noise, texture and light, ``--good`` photos) five
curves are drawn: ``aligned`` (shift, px), ``turned`` (turn, degrees), ``surface`` (factor on the
texture), ``light`` (factor on the light) and ``few`` (number of good photos). Each point is a data
set of its own, drawn into a temporary folder and trained on as any other is: the memory bank alone
unless ``--epochs`` says otherwise. After ``--minutes`` no further point is begun, and the missing
ones are named. Results: ``families.md``, ``.json`` and ``.png`` below ``benchmarks/results``.
"""

from __future__ import annotations

import argparse
import datetime
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any, Final

from matplotlib.figure import Figure as Drawing
from rich.console import Console
from rich.progress import Progress

from benchmarks.accuracy.cells import judge
from benchmarks.accuracy.methods import METHODS, OURS
from benchmarks.accuracy.plan import Category, choose, load, names, validate
from benchmarks.accuracy.report import COLOURS, MARKERS, number, percent
from benchmarks.checkout import RESULTS
from benchmarks.figures import commit, machine
from export.training.train import Step
from inspector.cameras.simulated import families
from inspector.cameras.simulated.scene import Conditions
from inspector.cli.simulate import write_dataset
from inspector.errors import InspectorError, OutputError
from inspector.files import write_whole

AXES: Final[dict[str, tuple[str, tuple[float, ...]]]] = {
    "aligned": ("shift, px", (0, 10, 40)),
    "turned": ("turn, degrees", (0, 10, 180)),
    "surface": ("factor on the texture", (0.5, 2, 4)),
    "light": ("factor on the light", (0, 2, 4)),
    "few": ("good photos", (12, 24, 80)),
}
"""What is varied, and the values beside the middle point."""

FIGURES: Final = (
    ("image_auroc", "image AUROC"),
    ("pixel_auroc", "pixel AUROC"),
    ("escapes_at_auto", "escapes at the auto limit"),
)


@dataclass(frozen=True)
class Point:
    """A data set: ``value`` is where it lies on ``axis`` ("middle": on all of them)."""

    family: str
    axis: str
    value: float
    conditions: Conditions
    good: int


@dataclass(frozen=True)
class Measured:
    """Figures of a method on a point with a seed."""

    point: Point
    method: str
    seed: int
    figures: dict[str, Any]


def points(family: str, axes: Sequence[str], good: int) -> Iterator[Point]:
    """The middle point, then those of each axis."""
    usual = families.conditions(family)
    first = Point(family, "middle", 0.0, usual, good)
    yield first
    for axis in axes:
        for value in AXES[axis][1]:
            if value == middle(first, axis):
                continue
            if axis == "few":
                yield Point(family, axis, value, usual, int(value))
            else:
                field = _FIELDS[axis]
                yield Point(family, axis, value, replace(usual, **{field: float(value)}), good)


_FIELDS: Final = {
    "aligned": "shift_px",
    "turned": "turn_deg",
    "surface": "texture",
    "light": "light",
}


def middle(point: Point, axis: str) -> float:
    """Where the middle ``point`` lies on ``axis``."""
    return point.good if axis == "few" else float(getattr(point.conditions, _FIELDS[axis]))


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m benchmarks.accuracy.families",
        description="What makes parts hard: the simulator's families, one property at a time.",
        allow_abbrev=False,
    )
    made.add_argument("--families", type=names, default=("board", "brushed", "gear", "textile"))
    made.add_argument("--axes", type=names, default=tuple(AXES))
    made.add_argument("--methods", type=names, default=(OURS,))
    made.add_argument("--seeds", type=int, default=1)
    made.add_argument("--good", type=int, default=40, help="good photos of the middle point")
    made.add_argument("--test", type=int, default=24, help="good and as many defective test photos")
    made.add_argument("--size", type=int, default=224)
    made.add_argument("--epochs", type=int, default=0, help="0: the memory bank alone")
    made.add_argument("--minutes", type=float, default=15.0, help="begin no point after this time")
    made.add_argument("--out", type=Path, default=RESULTS)
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    options = parser().parse_args(arguments)
    console = Console(stderr=True)
    try:
        return run(options, console)
    except InspectorError as error:
        console.print(f"families: error: {error}", markup=False, highlight=False, soft_wrap=True)
        return error.exit_code


def run(options: argparse.Namespace, console: Console) -> int:
    """Measure every point there is time for, then publish; 1 when one is missing."""
    found = choose(list(families.NAMES), options.families, str, "--families")
    axes = choose(list(AXES), options.axes, str, "--axes")
    methods = choose(list(METHODS), options.methods, str, "--methods")
    # All middle points come first, so that a run that is cut short has them all.
    every = sorted(
        (point for family in found for point in points(family, axes, options.good)),
        key=lambda point: point.axis != "middle",
    )
    runs = [(point, seed) for seed in range(options.seeds) for point in every]
    measured: list[Measured] = []
    missing: list[str] = []
    began = time.monotonic()
    with Progress(console=console) as bar:
        task = bar.add_task("points", total=len(runs))
        for point, seed in runs:
            named = f"{point.family}, {point.axis} {point.value:g}, seed {seed}"
            bar.update(task, description=named)
            if measured and time.monotonic() - began > 60 * options.minutes:
                missing.append(named)
                continue
            measured += measure(point, seed, methods, options)
            bar.advance(task)
    for line in publish(options, measured, missing, found, axes):
        print(line)
    return 1 if missing else 0


def measure(
    point: Point, seed: int, methods: Sequence[str], options: argparse.Namespace
) -> Iterator[Measured]:
    """Draw the point's data set, and train and judge each method on it."""
    with tempfile.TemporaryDirectory(prefix="families-") as place:
        root = Path(place) / point.family
        write_dataset(
            root,
            good=point.good,
            test_good=options.test,
            defective=options.test,
            seed=seed,
            family=point.family,
            conditions=point.conditions,
        )
        category = load(Category(point.family, root))
        base = {"size": options.size, "epochs": options.epochs, "folds": 3, "seed": seed}
        for name in methods:
            folder = Path(place) / name
            folder.mkdir()
            method = METHODS[name]
            chosen = method.settings(validate({**base, "device": "cpu"}, "families"))
            trained = method.fit(root, folder, chosen, quiet)
            yield Measured(point, name, seed, judge(category, trained, quiet))


def quiet(step: Step) -> None:
    """Progress is told by the bar of all points."""


def curve(
    measured: Sequence[Measured], family: str, method: str, axis: str, name: str
) -> list[tuple[float, float]]:
    """Values on ``axis`` and the mean of a figure over seeds, rising; the middle point is on it."""
    at: dict[float, list[float]] = {}
    for one in measured:
        point, value = one.point, one.figures[name]
        if (point.family, one.method) != (family, method) or value is None:
            continue
        if point.axis == axis:
            at.setdefault(point.value, []).append(value)
        elif point.axis == "middle":
            at.setdefault(middle(point, axis), []).append(value)
    return [(value, statistics.fmean(found)) for value, found in sorted(at.items())]


def ticks_of(measured: Sequence[Measured], axis: str) -> list[float]:
    """All values on ``axis``, rising; families have middle points of their own."""
    points_on = (one.point for one in measured if one.point.axis in (axis, "middle"))
    return sorted({one.value if one.axis == axis else middle(one, axis) for one in points_on})


def publish(
    options: argparse.Namespace,
    measured: Sequence[Measured],
    missing: Sequence[str],
    found: Sequence[str],
    axes: Sequence[str],
) -> list[str]:
    """Write ``families.md``, ``.json`` and ``.png``; returns the Markdown. Raises OutputError."""
    methods = list(dict.fromkeys(one.method for one in measured))
    command = (
        f"python -m benchmarks.accuracy.families --families {','.join(found)} --axes "
        f"{','.join(axes)} --methods {','.join(methods)} --seeds {options.seeds} --good "
        f"{options.good} --test {options.test} --size {options.size} --epochs {options.epochs}"
    )
    here = {"commit": commit(), "machine": machine(), "command": command}
    lines = [
        "# Families of simulated parts",
        "",
        f"`{command}`",
        "",
        f"Commit {here['commit'] or 'unknown'}; {here['machine']['processor']}, "
        f"{here['machine']['cores']} cores. Means over {options.seeds} seeds, {options.test} good "
        f"and {options.test} defective test photos a point. Drawn parts are no products: the "
        "curves tell what a property costs, not how good a model is on photos.",
    ]
    for axis in axes:
        said = AXES[axis][0]
        lines += [
            "",
            f"## {axis}: {said}",
            "",
            f"| family | method | {said} | image AUROC | pixel AUROC | escapes at the auto limit |",
            "| --- | --- |" + " --: |" * 4,
        ]
        for family in found:
            for method in methods:
                columns = [dict(curve(measured, family, method, axis, n)) for n, _ in FIGURES]
                lines += [
                    f"| {family} | {method} | {value:g} | {number(columns[0].get(value), 3)} | "
                    f"{number(columns[1].get(value), 3)} | {percent(columns[2].get(value))} |"
                    for value in sorted({value for column in columns for value in column})
                ]
    if missing:
        lines += ["", "Not measured, for the time was up:", *(f"* {one}" for one in missing)]
    document = {
        "benchmark": "families",
        **here,
        "time": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "points": [asdict(one) for one in measured],
        "missing": list(missing),
    }
    files = {
        "families.md": "\n".join([*lines, ""]).encode(),
        "families.json": (json.dumps(document, indent=1, allow_nan=False) + "\n").encode(),
        "families.png": draw(measured, found, methods, axes),
    }
    try:
        options.out.mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            write_whole(options.out / name, data)
    except OSError as error:
        raise OutputError(
            f"{options.out}: results cannot be written: {error.strerror or error}; give --out"
        ) from None
    return lines


def draw(
    measured: Sequence[Measured],
    found: Sequence[str],
    methods: Sequence[str],
    axes: Sequence[str],
) -> bytes:
    """A row a figure, a column an axis, a line a family (and method). PNG."""
    drawing = Drawing(figsize=(3.0 * len(axes) + 1, 7.5), dpi=110, layout="constrained")
    panels = drawing.subplots(len(FIGURES), len(axes), squeeze=False, sharey="row")
    for row, (name, title) in enumerate(FIGURES):
        for column, axis in enumerate(axes):
            panel = panels[row][column]
            ticks = ticks_of(measured, axis)
            # Evenly spaced: values go from 0 to 180 degrees.
            panel.set_xticks(range(len(ticks)), [f"{value:g}" for value in ticks])
            for order, family in enumerate(found):
                for mark, method in enumerate(methods):
                    line = curve(measured, family, method, axis, name)
                    panel.plot(
                        [ticks.index(value) for value, _ in line],
                        [value for _, value in line],
                        color=COLOURS[order % len(COLOURS)],
                        marker=MARKERS[mark % len(MARKERS)],
                        markersize=5,
                        label=family if len(methods) == 1 else f"{family}, {method}",
                    )
            panel.grid(color="#dddddd", linewidth=0.6)
            if row == 0:
                panel.set_title(axis, fontsize=10)
            if row == len(FIGURES) - 1:
                panel.set_xlabel(AXES[axis][0], fontsize=9)
            if column == 0:
                panel.set_ylabel(title, fontsize=9)
    handles, labels = panels[0][0].get_legend_handles_labels()
    drawing.legend(handles, labels, loc="outside lower center", ncols=5, frameon=False, fontsize=9)
    buffer = BytesIO()
    drawing.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


if __name__ == "__main__":
    sys.exit(main())
