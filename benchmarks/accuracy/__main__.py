"""How well defects are told from good parts: categories × backbones × methods × seeds.

    python -m benchmarks.accuracy DATA_ROOT [--categories A,B] [--methods cfa,padim] [--seeds 3]
        [--backbones efficientnet_lite0] [--set KEY=VALUE] [--variant NAME:KEY=VALUE,KEY=VALUE]

Every category in MVTec AD layout below DATA_ROOT is measured. Until a model and its limit stand,
the files under ``test`` are only hashed, to know them again, and decoded, to find damaged ones.
Each finished cell is a file in the work folder, reused as long as photos, settings and the code
behind its figures are the same; so an interrupted run goes on.
The table, its JSON and a picture are written to ``benchmarks/results``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.accuracy.cells import Store, measure
from benchmarks.accuracy.plan import (
    Cell,
    command,
    find_backbones,
    find_categories,
    load,
    parser,
    plan,
    plan_cells,
    shorten,
)
from benchmarks.accuracy.report import headline, publish
from benchmarks.figures import commit
from export.training.train import Step
from inspector.errors import InspectorError, WeightsError
from inspector.interrupt import Interrupt

CELL_FAILURES = (InspectorError, OSError, RuntimeError, ValueError, MemoryError)
INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    options = parser().parse_args(arguments)
    console = Console(stderr=True)
    store = None
    try:
        store = Store(options.work, any_code=options.any_code)
        return run(options, store, console)
    except InspectorError as error:
        console.print(f"accuracy: error: {error}", markup=False, highlight=False, soft_wrap=True)
        return error.exit_code
    except KeyboardInterrupt:
        if store:
            store.drop_unfinished()
        where = f" in {store.folder}" if store else ""
        console.print(
            f"accuracy: interrupted; finished cells are kept{where}, the same command goes on",
            markup=False,
            soft_wrap=True,
        )
        return INTERRUPTED


def run(options: argparse.Namespace, store: Store, console: Console) -> int:
    """Measure what is missing, then publish; 1 when a cell failed."""

    def say(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    entries, shared = plan(options)
    categories = find_categories(options.data, options.categories)
    networks, skipped = find_backbones(options.backbones, shared)
    for line in skipped:
        say(f"accuracy: {line}")
    if not networks:
        raise WeightsError("no backbone's weights are at hand; nothing to measure")
    failed: list[str] = []

    def fail(what: str, error: Exception) -> None:
        text = str(error) if isinstance(error, InspectorError) else ""
        text = text or f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
        text = shorten(shorten(text, options.data, "DATA_ROOT"), store.folder, "WORK")
        failed.append(f"{what}: {' '.join(text.split())}")
        say(f"accuracy: failed: {failed[-1]}")

    with (
        Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            console=console,
        ) as progress,
        Interrupt(at_once=True) as interrupt,
    ):
        cells: list[Cell] = []
        task = progress.add_task("checking photos", total=len(categories), note="")
        for category in categories:
            progress.update(task, note=category.name)
            try:
                loaded = load(category)
            except CELL_FAILURES as error:
                fail(category.name, error)
            else:
                cells += plan_cells(loaded, networks, entries, shared, options.seeds)
            progress.advance(task)
        progress.remove_task(task)
        results: dict[int, dict[str, Any]] = {}
        for number, cell in enumerate(cells):
            if not options.again and (found := store.find(cell)) is not None:
                results[number] = found
        if results:
            say(f"accuracy: {len(results)} of {len(cells)} cells reused, {ages(results.values())}")
        task = progress.add_task("cells", total=len(cells), completed=len(results), note="")
        detail = progress.add_task("", total=None, note="", start=False)
        measured: set[Path] = set()
        for number, cell in enumerate(cells):
            if number in results:
                continue
            interrupt.check()
            progress.update(task, note=str(cell))

            def on_step(step: Step) -> None:
                interrupt.check()
                note = step.fit if step.loss is None else f"{step.fit}: loss {step.loss:.4g}"
                progress.update(
                    detail,
                    description=step.stage,
                    completed=step.done,
                    total=step.total,
                    note=note,
                )

            try:
                # A variant with the settings of another row is measured once.
                result = store.find(cell) if store.path(cell) in measured else None
                if result is None:
                    progress.reset(detail)
                    result = measure(cell, store.folder, on_step)
                    store.keep(cell, result)
                    measured.add(store.path(cell))
                results[number] = result
                say(f"{cell}: {headline(result['figures'])}")
            except CELL_FAILURES as error:
                fail(str(cell), error)
            progress.advance(task)
        progress.remove_task(detail)
    if results:
        labelled = [
            {"row": cells[number].entry.name, "category": cells[number].category.name, **result}
            for number, result in sorted(results.items())
        ]
        for line in publish(
            options.out,
            labelled,
            command=command(options),
            commit=commit(),
            false_reject=shared["false_reject"],
            skipped=skipped,
            failed=failed,
        ):
            print(line)
        say(f"accuracy: written to {options.out / 'accuracy'}.md, .json and .png")
    return 1 if failed else 0


def ages(results: Any) -> str:
    """When and at which commits reused cells were measured."""
    found = list(results)
    commits = sorted({result["commit"] or "unknown" for result in found})
    times = sorted(result["time"][:16].replace("T", " ") for result in found)
    return f"measured {times[0]} to {times[-1]} UTC at commit {', '.join(commits)}"


if __name__ == "__main__":
    sys.exit(main())
