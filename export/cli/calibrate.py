"""``calibrate``: set the limit for another share of false rejects, without training."""

from __future__ import annotations

import argparse
from pathlib import Path

from export.cli.arguments import settings_of
from export.cli.screen import print_calibration
from inspector.tables import print_next


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``calibrate``."""
    parser.add_argument("folder", type=Path, metavar="RUN")
    parser.add_argument(
        "--false-reject",
        required=True,
        help="e.g. 1%%, or auto: the lowest that the photos can tell",
    )
    parser.add_argument(
        "--all-good",
        action="store_true",
        help="you have looked at the photos that look unlike the others, and they are good parts: "
        "the auto limit allows for them, too",
    )


def run(options: argparse.Namespace) -> int:
    """Set the limit anew and forget what was evaluated at the former one; 0."""
    from export.training.calibrate import calibrate
    from export.training.run import Run

    rate = settings_of({"false_reject": options.false_reject}).false_reject
    run = Run(options.folder)
    outcome = run.outcome()
    all_good = outcome.all_good or options.all_good
    folds, vouched = run.limit_folds(all_good=all_good)
    calibration = calibrate(folds, rate, drawn=outcome.drawn, vouched=vouched)
    changed = outcome.model_copy(update={"calibration": calibration, "all_good": all_good})
    run.write("outcome.json", changed.model_dump_json(indent=2).encode())
    run.forget_evaluations()
    print_calibration(calibration)
    print_next("inspector-model", "evaluate", run.folder)
    return 0
