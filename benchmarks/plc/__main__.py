"""What the bridges to PLCs promise: parts counted, times taken, each with its goal.

    python -m benchmarks.plc                    # the whole table, about an hour
    python -m benchmarks.plc --quick            # shortened, under five minutes on two cores
    python -m benchmarks.plc modbus not_ready   # some rows; the others keep their last figures

Real stations, bridges, sockets and cables. A row's figures are written as soon as it has ended, to
``benchmarks/results/plc.json`` (``plc-quick.json`` with ``--quick``): to go on with a run that was
stopped, name the rows that it had not reached.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from benchmarks.checkout import RESULTS
from benchmarks.figures import commit, machine
from benchmarks.plc.rows import NAMES, Row, row
from inspector.files import write_output


def main() -> int:
    options = _options()
    path = options.out / ("plc-quick.json" if options.quick else "plc.json")
    rows = {name: row(name) for name in options.rows or NAMES}
    if options.quick and not options.rows:
        rows = {name: one for name, one in rows.items() if one.quick}
    figures = _earlier(path)
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

            found = _run(name, one, trials, tick)
            progress.update(task, completed=trials, total=trials)
            figures = [figure for figure in figures if figure["row"] != name] + found
            _write(path, options.quick, figures)
    mine = [figure for figure in figures if figure["row"] in rows]
    console.print(_table(mine))
    return 0 if all(figure["holds"] is not False for figure in mine) else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.plc",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("rows", nargs="*", type=_name, metavar="ROW", help=f"{', '.join(NAMES)}")
    parser.add_argument("--quick", action="store_true", help="fewer trials")
    parser.add_argument(
        "--out", type=Path, default=RESULTS, help="where the results go [benchmarks/results]"
    )
    return parser.parse_args()


def _name(text: str) -> str:
    if text not in NAMES:
        raise argparse.ArgumentTypeError(f"'{text}' is none of {', '.join(NAMES)}")
    return text


def _run(name: str, one: Row, trials: int, tick: Any) -> list[dict[str, Any]]:
    begun, load = time.monotonic(), os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix=f"plc-{name}-") as scratch:
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


def _earlier(path: Path) -> list[dict[str, Any]]:
    """Figures of an earlier run, which this one may leave as they are."""
    if not path.exists():
        return []
    figures: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["figures"]
    return [figure for figure in figures if figure["row"] in NAMES]


def _write(path: Path, quick: bool, figures: list[dict[str, Any]]) -> None:
    document = {
        "benchmark": path.stem,
        "command": f"python -m benchmarks.plc{' --quick' if quick else ''}",
        "machine": machine(),
        "figures": sorted(figures, key=lambda figure: NAMES.index(figure["row"])),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_output(path, json.dumps(document, indent=2, ensure_ascii=False) + "\n")


def _table(figures: list[dict[str, Any]]) -> Table:
    table = Table("row", "figure", "value", "unit", "goal", "holds", title="plc")
    before = ""
    for figure in figures:
        value = figure["value"]
        shown = f"{value:,}" if isinstance(value, int) else f"{value:.5g}"
        holds = {None: "", True: "yes", False: "[red]NO"}[figure["holds"]]
        name = "" if figure["row"] == before else figure["row"]
        before = figure["row"]
        table.add_row(name, figure["name"], shown, figure["unit"], figure["goal"], holds)
    return table


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("stopped; rows that ended are written")
