"""Our exported models against those that other packages deploy, one picture at a time, one run.

    python -m benchmarks.speed.rivals --prepare    # environments, models, memory; then, quietly:
    python -m benchmarks.speed.rivals              # every group, a few minutes each
    python -m benchmarks.speed.rivals --groups resnet18-224 --rounds 30

anomalib (CFA, PatchCore, EfficientAD-S) and anomavision (PatchCore, PaDiM, EfficientAD) are
installed from PyPI, at the versions named below, into environments of their own. These share
PyTorch and whatever else fits with the Python that runs this, and take 1 GB all the same; they and
the models are kept in ``--environments``. Backbones have random weights, as no time depends on
them; banks and statistics come from 100 pictures of the simulator. Every model runs in a process
of its own, with the options that its package sets; all of a group take turns, each time in another
order, one run untimed before those that are timed. Memory is the largest proportional set size of
such a process while it alone loads and runs the model. What cannot be had is named with the reason.
Tables, ``results/rivals.json`` and ``results/rivals.png``; groups not run keep their figures.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import sys
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.checkout import RESULTS, ROOT
from benchmarks.figures import commit, machine
from benchmarks.speed.rivals.environments import PINS, prepare
from benchmarks.speed.rivals.plan import GROUPS, plan
from benchmarks.speed.rivals.report import compare, draw, goals, table
from benchmarks.speed.rivals.turns import measure, peak_mb


def main() -> int:
    options = _options()
    options.environments = options.environments.resolve()
    entries = {group: plan(group) for group in options.groups}
    lacking = prepare([entry for rows in entries.values() for entry in rows], options.environments)
    if options.prepare:
        for source, reason in lacking.items():
            print(f"not to be had: {source.folder}: {reason}")
        ready = [entry for rows in entries.values() for entry in rows]
        for entry in track(ready, "memory", console=Console(stderr=True)):
            # What does not run is told by the row that lacks it.
            with contextlib.suppress(RuntimeError):
                if entry.source not in lacking:
                    peak_mb(entry, options.environments)
        return 0
    path = RESULTS / f"{options.name}.json"
    kept = json.loads(path.read_text())["groups"] if path.exists() else {}
    for group in options.groups:
        rows = measure(group, entries[group], lacking, options)
        compare(rows)
        kept[group] = {
            "command": f"python -m benchmarks.speed.rivals {' '.join(sys.argv[1:])}".strip(),
            "commit": commit(),
            "machine": machine(),
            "time": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            "rounds": options.rounds,
            "rows": [asdict(row) for row in rows],
        }
        Console(width=200).print(table(group, rows))
    document = {"benchmark": "rivals", "pins": PINS, "groups": kept, "goals": goals(kept)}
    RESULTS.mkdir(exist_ok=True)
    path.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    draw(kept, path.with_suffix(".png"))
    found = Table("goal", "measured", "holds", title="goals")
    for goal in document["goals"]:
        holds = {None: "not measured", True: "yes", False: "NO"}[goal["holds"]]
        value = "" if goal["value"] is None else f"{goal['value']:.3f}"
        found.add_row(f"{goal['name']} ≤ {goal['limit']:g}", value, holds)
    Console(width=140).print(found)
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.speed.rivals",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--prepare", action="store_true", help="measure nothing")
    parser.add_argument(
        "--environments", type=Path, default=ROOT / ".rivals", help="folder, some GB"
    )
    parser.add_argument(
        "--groups",
        type=lambda text: text.split(","),
        default=list(GROUPS),
        help=f"of {', '.join(GROUPS)}",
    )
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--name", default="rivals", help="of the files in results")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
