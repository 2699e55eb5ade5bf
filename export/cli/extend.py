"""``extend``: teach in good parts that were rejected, without training."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from export.cli.arguments import add_bundle, add_device, add_sources, settings_of
from export.cli.screen import (
    print_calibration,
    print_choices,
    print_remarks,
    progress_bars,
    show_step,
)
from inspector.imaging.folders import find_images
from inspector.interrupt import Interrupt
from inspector.shown import plain
from inspector.tables import numbers, print_next, show, table

if TYPE_CHECKING:
    from export.training.train import Step


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``extend``."""
    parser.add_argument("folder", type=Path, metavar="RUN")
    parser.add_argument("--good", type=Path, required=True, metavar="DIR", help="their photos")
    parser.add_argument("-o", "--output", type=Path, required=True, help="part2.onnx")
    parser.add_argument(
        "--run",
        type=Path,
        dest="new_run",
        metavar="FOLDER",
        help="folder of the extended run; default: beside the bundle, part2-run",
    )
    parser.add_argument("--false-reject", help="target for the new limit; default: the run's")
    parser.add_argument(
        "--raise-limit",
        action="store_true",
        help="the taught parts' scores, given by models that were not taught them, count for the "
        "limit too: more parts like them pass, and so may more defects",
    )
    add_bundle(parser)
    add_sources(parser)
    add_device(parser)


def run(options: argparse.Namespace) -> int:
    """Teach in the parts and write the extended run and bundle; 0.

    Raises :class:`InspectorError`.
    """
    from export.bundle.describe import describe
    from export.extend import extend
    from export.training.run import Run
    from export.training.train import pick_device

    run = Run(options.folder)
    if options.good.is_dir():
        print_remarks(options.good, find_images(options.good))
    rate = run.outcome().calibration.asked
    if options.false_reject is not None:
        rate = settings_of({"false_reject": options.false_reject}).false_reject
    with progress_bars() as progress, Interrupt(at_once=True) as interrupt:
        tasks: dict[str, Any] = {}

        def on_step(step: Step) -> None:
            show_step(progress, tasks, step)
            interrupt.check()

        report = extend(
            run,
            options.good,
            options.new_run or options.output.parent / f"{options.output.stem}-run",
            options.output,
            data=options.data or run.facts().data,
            device=pick_device(options.device),
            weights=options.weights,
            rate=rate,
            pooled=options.raise_limit,
            name=options.name,
            precision=options.precision,
            on_step=on_step,
        )
    scores = table("taught part", numbers("before"), numbers("unseen"), numbers("now"))
    for part in report.parts:
        unseen = "-" if part.unseen is None else f"{part.unseen:.3f}"
        scores.add_row(part.name, f"{part.before:.3f}", unseen, f"{part.now:.3f}")
    show(scores, "scores; 1 is the limit")
    for line in report.lines():
        print(plain(line))
    print_calibration(report.manifest.calibration)
    print_choices(report.choices)
    print(plain(f"checked: {dict(describe(report.manifest))['checked']}"))
    print(plain(f"run: {report.run.folder}"))
    print(plain(f"bundle: {options.output} ({options.output.stat().st_size / 1e6:.1f} MB)"))
    print_next("inspector-model", "evaluate", report.run.folder)
    return 0
