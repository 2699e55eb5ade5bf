"""``evaluate``: judge the test photos of a run; figures, scores and a report."""

from __future__ import annotations

import argparse
import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from export.cli.arguments import add_device, add_sources, shown
from export.cli.screen import print_remarks, progress_bars
from inspector.errors import DatasetError, OutputError
from inspector.shown import plain
from inspector.tables import numbers, print_next, show, table
from inspector.verdict import Verdict

if TYPE_CHECKING:
    from export.training.run import Run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``evaluate``."""
    parser.add_argument("folder", type=Path, metavar="RUN")
    parser.add_argument(
        *("-o", "--output"),
        type=Path,
        metavar="DIR",
        help="folder of the report; default: RUN, for other data RUN/evaluation-NAME",
    )
    add_sources(parser)
    add_device(parser)


def run(options: argparse.Namespace) -> int:
    """Judge the test photos and write figures and report; 0. Raises :class:`InspectorError`."""

    from export.bundle.describe import say_figure
    from export.data.dataset import open_test
    from export.data.doubts import UnclearLayoutError
    from export.data.layouts import WHOLE
    from export.evaluation.advice import advise
    from export.evaluation.evaluate import evaluate
    from export.evaluation.held_out import read_good_pictures
    from export.evaluation.report import headline, write_report
    from export.training.run import Run
    from export.training.train import load_scorer, pick_device

    run = Run(options.folder)
    facts, outcome = run.facts(), run.outcome()
    data = options.data or facts.data
    try:
        samples = open_test(data, facts.selection if run.is_of(data) else WHOLE)
    except UnclearLayoutError as error:
        raise DatasetError(
            f"{error.why}: which are the good parts? Lay photos that are to be judged out as "
            f"test/good and test/<kind>, with masks in ground_truth/<kind> if there are any"
        ) from None
    print_remarks(data, [sample.path for sample in samples])
    report = Run(_report_folder(options, run, data))
    scorer = load_scorer(run, pick_device(options.device), options.weights)
    with progress_bars() as progress:
        task = progress.add_task("judging test photos", total=len(samples), note="")
        evaluation = evaluate(
            samples,
            scorer,
            facts.geometry,
            lambda done, total: progress.update(task, completed=done, total=total),
            root=data,
        )
    summary = evaluation.summary()
    report.write("evaluation.json", json.dumps(summary, indent=2).encode())
    evaluation.write_csv(report.folder / "scores.csv")
    held_out = run.limit_folds(all_good=True).pooled / outcome.calibration.threshold
    advice = advise(evaluation, held_out)
    write_report(
        evaluation,
        report.folder / "report.html",
        facts.name,
        {
            "data": str(data),
            "good parts": str(facts.parts),
            "training time": f"{outcome.train_seconds:.0f} s",
            **{
                key: shown(value)
                for key, value in {
                    **facts.settings.model_dump(),
                    "bank_items": facts.settings.items,
                    "sigma": facts.settings.sigma_px,
                }.items()
                if value is not None
            },
        },
        outcome.calibration,
        held_out,
        facts.choice,
        read_good_pictures(run, data),
        () if advice is None else advice.sentences,
    )
    if samples:
        figures = table("figure", numbers("value"))
        for key, value in summary.items():
            figures.add_row(say_figure(key), f"{value:.4g}")
        show(figures, f"{facts.name}: {len(samples)} test photos")
    for line in headline(evaluation, outcome.calibration):
        print(plain(line))
    for line in () if advice is None else advice.sentences:
        print(plain(line.replace("RUN", shlex.quote(str(run.folder)))))
    escaped = [part.row for part in evaluation.missed if part.row.verdict is Verdict.PASS]
    for row in escaped:
        print(plain(f"escaped: {row.path} (score {row.score:.3f})"))
    if evaluation.escapes.hits > len(escaped):
        print(f"escaped: {evaluation.escapes.hits - len(escaped)} more, all in scores.csv")
    print(plain(f"report: {report.folder / 'report.html'}"))
    print(plain(f"scores: {report.folder / 'scores.csv'}"))
    if advice is None:
        print_next("inspector-model", "export", run.folder, "-o", "part.onnx")
    elif advice.rate is not None:
        rate = f"{advice.rate:.0%}"
        print_next("inspector-model", "calibrate", run.folder, "--false-reject", rate)
    return 0


def _report_folder(options: argparse.Namespace, run: Run, data: Path) -> Path:
    """Make and return the report's folder: other data's figures never replace the run's own.

    Raises :class:`OutputError`.
    """
    folder: Path = options.output or run.folder
    if options.output is None and not run.is_of(data):
        from export.training.run import OTHER_DATA

        folder = run.folder / f"{OTHER_DATA}{data.resolve().name}"
        if folder.is_dir() and any(folder.iterdir()):
            raise OutputError(f"{folder}: is there already; remove it, or name a folder with -o")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be made: {error.strerror}; choose another") from None
    return folder
