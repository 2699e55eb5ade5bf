"""``inspector-model``: collect, train, calibrate, evaluate, export, extend, show."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pydantic import ValidationError
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from export.settings import TrainSettings
from inspector import __version__
from inspector.cli import collect
from inspector.config.yaml_file import in_words, load_yaml
from inspector.detection.manifest import Calibration
from inspector.errors import ConfigError, InspectorError, OutputError
from inspector.imaging.geometry import STRIDE
from inspector.tables import numbers, print_next, show, table
from inspector.verdict import Verdict
from inspector.version import install_command

if TYPE_CHECKING:
    from export.training.run import Run
    from export.training.train import Step

INTERRUPTED = 130
WITHOUT_TORCH = 3
_OTHER_DATA = "evaluation-"
"""Folders in the run's folder whose names begin so hold reports on other data."""
_STAGES: Final = {
    "backbone features": "looking at the photos",
    "adapting φ": "learning the good parts",
    "teaching": "learning the new good parts",
    "proving parity": "checking that the file judges as the model does",
}
"""Plain words for the stages of :class:`~export.training.train.Step` that are technical terms."""
_FITS: Final = {
    "feature scale": "measuring features",
    "memory bank": "choosing what to remember",
    "service": "final model",
    "fold": "test model",
}
"""Plain words for the terms in ``Step.fit``."""
TRAINING_PACKAGES = {"torch", "torchvision", "sklearn", "scipy", "matplotlib", "jinja2", "PIL"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        return int(options.run(options) or 0)
    except InspectorError as error:
        for line in str(error).splitlines():
            print(f"inspector-model: error: {line}", file=sys.stderr)
        return error.exit_code
    except ModuleNotFoundError as error:
        if error.name not in TRAINING_PACKAGES:
            raise
        print(
            f"inspector-model: error: {options.command} needs {error.name}, which a station does "
            f"not have; run {install_command('train')}, or 'make train-tools' in a checkout",
            file=sys.stderr,
        )
        return WITHOUT_TORCH
    except KeyboardInterrupt:
        resumable = options.command == "train" and (options.output / "run.json").exists()
        hint = "; go on with --resume" if resumable else ""
        print(f"inspector-model: interrupted{hint}", file=sys.stderr)
        return INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="inspector-model",
        description="Photos of good parts in, one verified ONNX bundle out.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    command = commands.add_parser("collect", help="take photos of good parts (docs/collect.md)")
    collect.add_arguments(command)
    command.set_defaults(run=collect.run)

    command = commands.add_parser(
        "train", allow_abbrev=False, help="learn a model from photos of good parts"
    )
    command.add_argument("data", type=Path, help="folder in MVTec AD layout, or of good parts only")
    command.add_argument("-o", "--output", type=Path, required=True, help="folder of the run")
    command.add_argument(
        "--config",
        type=Path,
        help="options as YAML; 'inspector examples DIR' writes train.yaml, which has all",
    )
    command.add_argument("--resume", action="store_true", help="go on with an interrupted run")
    command.add_argument(
        "--auto",
        action="store_true",
        help="choose size, fit, strides and sigma from the good parts: they must tell parts that "
        "were kept back from the same parts with defects drawn on them; options given here or in "
        "--config stay as given",
    )
    group = command.add_argument_group(
        "options of the model",
        "They win over --config; docs/training.md explains the terms and symbols.",
    )
    for name, field in TrainSettings.model_fields.items():
        flag = f"--{name.replace('_', '-')}"
        default = "" if field.default is None else f" [{_shown(field.default)}]"
        text = f"{field.description}{default}"
        if field.annotation is bool:
            group.add_argument(flag, action=argparse.BooleanOptionalAction, help=text)
        else:
            group.add_argument(flag, metavar=name.split("_")[-1].upper(), help=text)
    command.set_defaults(run=_train)

    command = commands.add_parser(
        "calibrate", help="set the limit for another share of false rejects, without training"
    )
    command.add_argument("folder", type=Path, metavar="RUN")
    command.add_argument("--false-reject", required=True, help="e.g. 1%%")
    command.set_defaults(run=_calibrate)

    command = commands.add_parser("evaluate", help="judge the test photos; figures and a report")
    command.add_argument("folder", type=Path, metavar="RUN")
    command.add_argument("--data", type=Path, help="data set; default: the one it was trained on")
    command.add_argument(
        *("-o", "--output"),
        type=Path,
        metavar="DIR",
        help="folder of the report; default: RUN, for other data RUN/evaluation-NAME",
    )
    command.add_argument("--weights", type=Path, help="backbone weights file")
    command.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    command.set_defaults(run=_evaluate)

    command = commands.add_parser(
        "export", help="write the bundle, once it judges as the trained model does"
    )
    command.add_argument("folder", type=Path, metavar="RUN")
    command.add_argument("-o", "--output", type=Path, required=True, help="part.onnx")
    command.add_argument("--name", help="name in every verdict; default: the data folder's")
    _add_precision(command)
    command.add_argument(
        "--reference",
        action="store_true",
        help="write the network step by step as in the paper: many times slower, for comparisons",
    )
    command.add_argument("--data", type=Path, help="data set; default: the one it was trained on")
    command.add_argument("--weights", type=Path, help="backbone weights file")
    command.set_defaults(run=_export)

    command = commands.add_parser(
        "extend",
        allow_abbrev=False,
        help="teach in good parts that were rejected, without training (docs/teach-in.md)",
    )
    command.add_argument("folder", type=Path, metavar="RUN")
    command.add_argument("--good", type=Path, required=True, metavar="DIR", help="their photos")
    command.add_argument("-o", "--output", type=Path, required=True, help="part2.onnx")
    command.add_argument(
        "--run",
        type=Path,
        dest="new_run",
        metavar="FOLDER",
        help="folder of the extended run; default: beside the bundle, part2-run",
    )
    command.add_argument("--false-reject", help="target for the new limit; default: the run's")
    command.add_argument(
        "--raise-limit",
        action="store_true",
        help="the taught parts' scores, given by models that were not taught them, count for the "
        "limit too: more parts like them pass, and so may more defects",
    )
    command.add_argument("--name", help="name in every verdict; default: the data folder's")
    _add_precision(command)
    command.add_argument("--data", type=Path, help="data set; default: the one it was trained on")
    command.add_argument("--weights", type=Path, help="backbone weights file")
    command.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    command.set_defaults(run=_extend)

    command = commands.add_parser("show", help="print what a bundle holds and how it was made")
    command.add_argument("bundle", type=Path, metavar="part.onnx")
    command.add_argument("--json", action="store_true", help="the whole manifest as JSON")
    command.set_defaults(run=_show)
    return parser


def _shown(value: Any) -> str:
    if isinstance(value, tuple) and len(value) == 2 and max(value) >= STRIDE:
        return "x".join(map(str, value))
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _settings(options: argparse.Namespace) -> TrainSettings:
    """The settings; ``model_fields_set`` names those given on the command line or in --config."""
    base = load_yaml(options.config, TrainSettings) if options.config else TrainSettings()
    given = {
        name: getattr(options, name)
        for name in TrainSettings.model_fields
        if getattr(options, name, None) is not None
    }
    try:
        return TrainSettings.model_validate({**base.model_dump(exclude_unset=True), **given})
    except ValidationError as error:
        first = error.errors()[0]
        flag = f"--{'-'.join(str(first['loc'][0]).split('_'))}: " if first["loc"] else ""
        raise ConfigError(f"{flag}{in_words(first)}") from None


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=Console(stderr=True),
    )


def _show_step(progress: Progress, tasks: dict[str, Any], step: Step) -> None:
    """Move the stage's bar, or add one; ``tasks`` maps a stage to its bar."""
    if step.stage not in tasks:
        words = _STAGES.get(step.stage, step.stage)
        tasks[step.stage] = progress.add_task(words, total=step.total, note="")
    note = step.fit
    for term, words in _FITS.items():
        note = note.replace(term, words)
    if step.loss is not None:
        note += f", loss {step.loss:.4g}"
    progress.update(tasks[step.stage], completed=step.done, total=step.total, note=note)


def _train(options: argparse.Namespace) -> None:
    settings = _settings(options)
    from export.training.auto import choose, in_plain_words, recall
    from export.training.run import Choice, Run
    from export.training.train import train

    run = Run(options.output)
    run.check(resume=options.resume)
    choice: Choice | None = None
    with _progress() as progress:
        tasks: dict[str, Any] = {}

        def on_step(step: Step) -> None:
            _show_step(progress, tasks, step)

        if options.resume and (options.auto or run.facts().choice is not None):
            settings, choice = recall(run, settings)
        elif options.auto:
            settings, choice = choose(options.data, settings, on_step=on_step)
        train(
            options.data,
            options.output,
            settings,
            resume=options.resume,
            on_step=on_step,
            choice=choice,
        )
    outcome = run.outcome()
    if choice is not None:
        print(f"settings: {in_plain_words(choice)}")
        print(
            f"chosen in {choice.seconds:.0f} s from good parts alone: {choice.held_out} that were "
            f"kept back, and {choice.defects} defects drawn on them"
        )
    print(f"trained in {outcome.train_seconds:.0f} s: {run.folder}")
    for remark in outcome.remarks:
        print(f"note: {remark}")
    _print_calibration(outcome.calibration)
    print_next("inspector-model", "evaluate", run.folder)


def _print_calibration(calibration: Calibration) -> None:
    low, high = calibration.interval
    first, last = calibration.predicted_rejects
    print(
        f"limit: set to reject {calibration.target_false_reject:.2%} of good parts; of "
        f"{calibration.good_parts} that the model had not seen, {calibration.good_rejected} reach "
        f"it"
    )
    print(
        f"expect: {low:.2%} to {high:.2%} of good parts rejected, {first} to {last} of the next "
        f"{calibration.predicted_next} (95 % confidence)"
    )
    for remark in calibration.remarks:
        print(f"note: {remark}")


def _calibrate(options: argparse.Namespace) -> None:
    from export.training.calibrate import calibrate
    from export.training.run import Run

    rate = _settings(
        argparse.Namespace(config=None, false_reject=options.false_reject)
    ).false_reject
    run = Run(options.folder)
    outcome = run.outcome()
    calibration = calibrate(run.limit_folds(), rate)
    changed = outcome.model_copy(update={"calibration": calibration})
    run.write("outcome.json", changed.model_dump_json(indent=2).encode())
    # The figures of an earlier evaluation hold at the former limit only.
    for name in ("evaluation.json", "scores.csv", "report.html"):
        run.remove(name)
        run.remove(f"{_OTHER_DATA}*/{name}")
    _print_calibration(calibration)
    print_next("inspector-model", "evaluate", run.folder)


def _report_folder(options: argparse.Namespace, run: Run, data: Path) -> Path:
    """Make and return the report's folder: other data's figures never replace the run's own.

    Raises :class:`OutputError`.
    """
    folder: Path = options.output or run.folder
    if options.output is None and not run.is_of(data):
        folder = run.folder / f"{_OTHER_DATA}{data.resolve().name}"
        if folder.is_dir() and any(folder.iterdir()):
            raise OutputError(f"{folder}: is there already; remove it, or name a folder with -o")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be made: {error.strerror}; choose another") from None
    return folder


def _evaluate(options: argparse.Namespace) -> None:
    import numpy as np

    from export.bundle.describe import say_figure
    from export.data.dataset import open_test
    from export.evaluation.evaluate import evaluate
    from export.evaluation.report import headline, write_report
    from export.training.run import Run
    from export.training.train import load_scorer, pick_device

    run = Run(options.folder)
    facts, outcome = run.facts(), run.outcome()
    data = options.data or facts.data
    samples = open_test(data)
    report = Run(_report_folder(options, run, data))
    scorer = load_scorer(run, pick_device(options.device), options.weights)
    with _progress() as progress:
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
    held_out = np.concatenate(run.limit_folds())
    write_report(
        evaluation,
        report.folder / "report.html",
        facts.name,
        {
            "data": str(data),
            "good parts": str(facts.parts),
            "training time": f"{outcome.train_seconds:.0f} s",
            **{
                key: _shown(value)
                for key, value in {
                    **facts.settings.model_dump(),
                    "bank_items": facts.settings.items,
                    "sigma": facts.settings.sigma_px,
                }.items()
                if value is not None
            },
        },
        outcome.calibration,
        held_out / outcome.calibration.threshold,
        facts.choice,
    )
    if samples:
        figures = table("figure", numbers("value"))
        for key, value in summary.items():
            figures.add_row(say_figure(key), f"{value:.4g}")
        show(figures, f"{facts.name}: {len(samples)} test photos")
    for line in headline(evaluation, outcome.calibration):
        print(line)
    escaped = [part.row for part in evaluation.missed if part.row.verdict is Verdict.PASS]
    for row in escaped:
        print(f"escaped: {row.path} (score {row.score:.3f})")
    if evaluation.escapes.hits > len(escaped):
        print(f"escaped: {evaluation.escapes.hits - len(escaped)} more, all in scores.csv")
    print(f"report: {report.folder / 'report.html'}\nscores: {report.folder / 'scores.csv'}")
    print_next("inspector-model", "export", run.folder, "-o", "part.onnx")


def _print_choices(choices: Iterable[str]) -> None:
    for why in choices:
        print(f"precision: {why}")


def _add_precision(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--precision",
        choices=("auto", "fp32", "mixed", "fp16", "int8"),
        default="auto",
        help="number format of the file; auto: int8 (8 bits) or mixed (8 bits in the search alone) "
        "where this machine's processor is quicker with it and the file still judges as the model "
        "does, else fp32, which runs alike everywhere",
    )


def _export(options: argparse.Namespace) -> None:
    from export.bundle.assemble import check_output, export_bundle
    from export.bundle.describe import describe
    from export.training.run import Run
    from export.training.train import load_scorer, pick_device

    run = Run(options.folder)
    facts = run.facts()
    check_output(options.output)
    if options.reference and options.precision not in {"auto", "fp32"}:
        raise ConfigError("--reference is written in fp32 only: leave --precision out")
    scorer = load_scorer(run, pick_device("cpu"), options.weights)
    choices: list[str] = []
    with _progress() as progress:
        task = progress.add_task(_STAGES["proving parity"], total=None, note="")
        manifest = export_bundle(
            run,
            scorer,
            options.output,
            name=options.name or facts.name,
            precision=options.precision,
            reference=options.reference,
            data=options.data or facts.data,
            on_image=lambda done, total: progress.update(task, completed=done, total=total),
            on_choice=choices.append,
        )
    _print_choices(choices)
    print(f"checked: {dict(describe(manifest))['checked']}")
    print(f"bundle: {options.output} ({options.output.stat().st_size / 1e6:.1f} MB)")
    test = (options.data or facts.data) / "test"
    if test.is_dir():
        print_next("inspector", "judge", options.output, test)
    else:
        print_next("inspector", "init", "station.yaml", "--bundle", options.output)


def _extend(options: argparse.Namespace) -> None:
    rate = None
    if options.false_reject is not None:
        given = argparse.Namespace(config=None, false_reject=options.false_reject)
        rate = _settings(given).false_reject
    from export.bundle.describe import describe
    from export.extend import extend
    from export.training.run import Run
    from export.training.train import pick_device

    run = Run(options.folder)
    with _progress() as progress:
        tasks: dict[str, Any] = {}

        def on_step(step: Step) -> None:
            _show_step(progress, tasks, step)

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
        print(line)
    _print_calibration(report.manifest.calibration)
    _print_choices(report.choices)
    print(f"checked: {dict(describe(report.manifest))['checked']}")
    print(f"run: {report.run.folder}")
    print(f"bundle: {options.output} ({options.output.stat().st_size / 1e6:.1f} MB)")
    print_next("inspector-model", "evaluate", report.run.folder)


def _show(options: argparse.Namespace) -> None:
    from export.bundle.describe import describe
    from inspector.detection import bundle

    read = bundle.read(options.bundle)
    if options.json:
        print(read.manifest.model_dump_json(indent=2))
        return
    facts = table("", "")
    for name, text in describe(read.manifest):
        facts.add_row(name, text)
    show(facts, f"{options.bundle}\nsha256 {read.sha256}")


if __name__ == "__main__":
    sys.exit(main())
