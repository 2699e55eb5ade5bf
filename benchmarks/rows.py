"""Benchmarks that are a table of rows: each row is a module of its package that has a ``ROW``."""

from __future__ import annotations

import argparse
import datetime
import importlib
import json
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from benchmarks.checkout import RESULTS
from benchmarks.figures import Figure, commit, machine
from inspector.files import write_output

Tick = Callable[[int, int], None]
"""Told how many trials are done, and of how many."""


@dataclass(frozen=True)
class Row:
    """One row. ``trials`` and ``quick`` are what ``run`` counts: parts, calls, faults.

    ``quick`` is 0 for a row that ``--quick`` leaves out.
    """

    promise: str
    trials: int
    quick: int
    run: Callable[[Path, int, Tick], Sequence[Figure]]
    """Has a scratch folder, the number of trials, and who is told how far it is."""


def row(package: str, name: str) -> Row:
    """The row of a module, which is imported only now, with the extra that it needs."""
    found = importlib.import_module(f"{package}.{name}").ROW
    assert isinstance(found, Row)
    return found


def main(package: str, names: Sequence[str], description: str) -> int:
    """Run the rows ``names`` of ``package``, or those that the command names; the exit code."""
    options = _options(package, names, description)
    title = package.rpartition(".")[2]
    path = options.out / f"{title}{'-quick' if options.quick else ''}.json"
    rows = {name: row(package, name) for name in options.rows or names}
    if options.quick and not options.rows:
        rows = {name: one for name, one in rows.items() if one.quick}
    figures = _earlier(path, names)
    console = Console()
    with Progress(
        TextColumn("{task.description:<14}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
    ) as progress:
        for name, one in rows.items():
            trials = (one.quick or one.trials) if options.quick else one.trials
            task = progress.add_task(name, total=trials)

            def tick(done: int, total: int, task: Any = task) -> None:
                progress.update(task, completed=done, total=total)

            found = _run(f"{title}-{name}-", name, one, trials, tick)
            progress.update(task, completed=trials, total=trials)
            figures = [figure for figure in figures if figure["row"] != name] + found
            figures.sort(key=lambda figure: names.index(figure["row"]))
            _write(path, package, options.quick, figures)
    mine = [figure for figure in figures if figure["row"] in rows]
    console.print(_table(title, mine))
    return 0 if all(figure["holds"] is not False for figure in mine) else 1


def _options(package: str, names: Sequence[str], description: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=f"python -m {package}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )

    def name(text: str) -> str:
        if text not in names:
            raise argparse.ArgumentTypeError(f"'{text}' is none of {', '.join(names)}")
        return text

    parser.add_argument("rows", nargs="*", type=name, metavar="ROW", help=", ".join(names))
    parser.add_argument("--quick", action="store_true", help="fewer trials")
    parser.add_argument(
        "--out", type=Path, default=RESULTS, help="where the results go [benchmarks/results]"
    )
    return parser.parse_args()


def _run(scratch_name: str, name: str, one: Row, trials: int, tick: Tick) -> list[dict[str, Any]]:
    begun, load = time.monotonic(), os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix=scratch_name) as scratch:
        found = one.run(Path(scratch), trials, tick)
    about = {
        "row": name,
        "promise": one.promise,
        "trials": trials,
        "seconds": round(time.monotonic() - begun, 1),
        "commit": commit(),
        "time": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        # What ran beside it: a row that waits for processes makes some load of its own.
        "load_before": round(load, 2),
    }
    return [asdict(figure) | about for figure in found]


def _earlier(path: Path, names: Sequence[str]) -> list[dict[str, Any]]:
    """Figures of an earlier run, which this one may leave as they are."""
    if not path.exists():
        return []
    figures: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["figures"]
    return [figure for figure in figures if figure["row"] in names]


def _write(path: Path, package: str, quick: bool, figures: list[dict[str, Any]]) -> None:
    document = {
        "benchmark": path.stem,
        "command": f"python -m {package}{' --quick' if quick else ''}",
        "machine": machine(),
        "figures": figures,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_output(path, json.dumps(document, indent=2, ensure_ascii=False) + "\n")


def _table(title: str, figures: list[dict[str, Any]]) -> Table:
    table = Table("row", "figure", "value", "unit", "goal", "holds", title=title)
    before = ""
    for figure in figures:
        value = figure["value"]
        shown = f"{value:,}" if isinstance(value, int) else f"{value:.5g}"
        holds = {None: "", True: "yes", False: "[red]NO"}[figure["holds"]]
        name = "" if figure["row"] == before else figure["row"]
        before = figure["row"]
        table.add_row(name, figure["name"], shown, figure["unit"], figure["goal"], holds)
    return table
