"""What a station promises, the fault injected, how often, and whether it held.

    python -m benchmarks.faults                    # the whole table; the soak alone takes an hour
    python -m benchmarks.faults --quick            # shortened, under five minutes on two cores
    python -m benchmarks.faults --only kills,soak  # some rows; the others keep their last figures

Real daemons, sockets and files. A row's figures are written as soon as it has ended, to
``benchmarks/results/faults.json`` and ``faults.md`` (``faults-quick.*`` with ``--quick``). The soak
goes on where it was stopped: what it measured is in the work folder.
"""

from __future__ import annotations

import argparse
import datetime
import json
import shutil
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from benchmarks.checkout import RESULTS
from benchmarks.faults.lab import Found, Tick
from benchmarks.faults.rows import ROWS, Row
from benchmarks.figures import commit, machine
from inspector.files import write_output

WORK: Final = Path(tempfile.gettempdir()) / "line-inspector-faults"


def main() -> int:
    options = _options()
    name = "faults-quick" if options.quick else "faults"
    results = _earlier(options.out / f"{name}.json")
    console = Console()
    with Progress(
        TextColumn("{task.description:<12}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
    ) as progress:
        for key in options.only:
            row = ROWS[key]
            trials = row.quick if options.quick else row.trials
            if key == "soak" and options.soak_minutes is not None:
                trials = options.soak_minutes
            trials = trials if key == "soak" else int(trials)
            task = progress.add_task(key, total=None)

            def tick(done: float, total: float, task: Any = task) -> None:
                progress.update(task, completed=round(done, 1), total=total)

            begun = time.monotonic()
            found = _run(key, row, trials, tick, options)
            progress.update(task, total=found.trials, completed=found.trials)
            results[key] = asdict(found) | {
                "promise": row.promise,
                "goal": row.goal,
                "seconds": round(time.monotonic() - begun, 1),
                "commit": commit(),
                "time": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            }
            _write(options.out, name, results)
    console.print(_table(results, options.only))
    return 0 if all(results[key]["holds"] for key in options.only) else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.faults",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="fewer trials")
    parser.add_argument(
        "--only",
        type=_rows,
        default=list(ROWS),
        metavar="ROW,ROW",
        help=f"of {', '.join(ROWS)}",
    )
    parser.add_argument("--soak-minutes", type=float, metavar="M", help="60; with --quick 2")
    parser.add_argument(
        "--work", type=Path, default=WORK, help=f"where the soak's state is kept [{WORK}]"
    )
    parser.add_argument(
        "--again", action="store_true", help="begin the soak anew instead of going on"
    )
    parser.add_argument(
        "--out", type=Path, default=RESULTS, help="where the results go [benchmarks/results]"
    )
    return parser.parse_args()


def _rows(text: str) -> list[str]:
    names = text.split(",")
    for name in names:
        if name not in ROWS:
            raise argparse.ArgumentTypeError(f"'{name}' is none of {', '.join(ROWS)}")
    return names


def _run(key: str, row: Row, trials: float, tick: Tick, options: argparse.Namespace) -> Found:
    if key == "soak":
        # Another length is another soak.
        folder = options.work / f"soak-{trials:g}"
        if options.again or options.quick:
            shutil.rmtree(folder, ignore_errors=True)
        return row.run(folder, trials, tick)
    with tempfile.TemporaryDirectory(prefix=f"faults-{key}-") as scratch:
        return row.run(Path(scratch), trials, tick)


def _earlier(path: Path) -> dict[str, dict[str, Any]]:
    """Rows of an earlier run, which this one may leave as they are."""
    if not path.exists():
        return {}
    return dict(json.loads(path.read_text(encoding="utf-8"))["rows"])


def _write(folder: Path, name: str, results: dict[str, dict[str, Any]]) -> None:
    rows = {key: results[key] for key in ROWS if key in results}
    document = {
        "benchmark": name,
        "command": f"python -m benchmarks.faults{' --quick' if 'quick' in name else ''}",
        "machine": machine(),
        "rows": rows,
    }
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(document, indent=2, ensure_ascii=False)
    write_output(folder / f"{name}.json", text + "\n")
    write_output(folder / f"{name}.md", _markdown(rows))


def _markdown(rows: dict[str, dict[str, Any]]) -> str:
    described = machine()
    lines = [
        "| promise | fault | trials | to reach | figure | holds |",
        "| --- | --- | --: | --- | --- | --- |",
        *(
            f"| {row['promise']} | {row['fault']} | {row['trials']:,} | {row['goal']} | "
            f"{row['figure']} | {_word(row)} |"
            for row in rows.values()
        ),
        "",
        f"{described['processor']}, {described['cores']} cores, Python {described['python']}; "
        f"commit {', '.join(sorted({row['commit'] for row in rows.values()}))}.",
    ]
    return "\n".join(lines) + "\n"


def _word(row: dict[str, Any]) -> str:
    return "yes" if row["holds"] else "**NO**"


def _table(results: dict[str, dict[str, Any]], only: list[str]) -> Table:
    table = Table(
        "promise", "trials", "figure", "to reach", "holds", title="faults", show_lines=True
    )
    for key in only:
        row = results[key]
        table.add_row(
            row["promise"],
            f"{row['trials']:,}",
            row["figure"],
            row["goal"],
            "yes" if row["holds"] else "[red]NO",
        )
    return table


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("stopped; rows that ended are written, the soak goes on where it was")
