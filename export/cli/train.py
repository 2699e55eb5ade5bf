"""``train``: learn a model from photos of good parts."""

from __future__ import annotations

import argparse
import contextlib
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from export.cli.arguments import settings_of, shown
from export.cli.screen import (
    print_calibration,
    print_remarks,
    progress_bars,
    show_step,
    show_suspects,
)
from export.settings import TrainSettings
from inspector.errors import DatasetError
from inspector.interrupt import Interrupt
from inspector.shown import plain
from inspector.tables import numbers, print_next, show, table

if TYPE_CHECKING:
    from rich.progress import Progress

    from export.data.layouts import Layout, Selection
    from export.training.run import Choice, Outcome, Suspect
    from export.training.train import Step


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``train``."""
    parser.add_argument(
        "data",
        type=Path,
        help="folder of photos: of good parts only, or good parts beside defects in one of the "
        "layouts of docs/training.md",
    )
    parser.add_argument(
        "--good",
        type=Path,
        nargs="+",
        action="extend",
        default=[],
        metavar="DIR",
        help="folders in the data folder that hold the good parts, where their names do not tell",
    )
    parser.add_argument(
        "--leave-out",
        type=Path,
        nargs="+",
        action="extend",
        default=[],
        metavar="FILE",
        help="photos among the good parts that are not to be trained on: their paths, their names "
        "where no other photo has the same one, or folders of them",
    )
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the run")
    parser.add_argument(
        "--config",
        type=Path,
        help="options as YAML; 'inspector examples DIR' writes train.yaml, which has all",
    )
    parser.add_argument("--resume", action="store_true", help="go on with an interrupted run")
    parser.add_argument(
        "--auto",
        action="store_true",
        help="choose size, fit, strides, scales and sigma from the good parts: they must tell "
        "parts that were kept back from the same parts with defects drawn on them; options given "
        "here or in --config stay as given",
    )
    group = parser.add_argument_group(
        "options of the model",
        "They win over --config; docs/training.md explains the terms and symbols.",
    )
    for name, field in TrainSettings.model_fields.items():
        flag = f"--{name.replace('_', '-')}"
        default = "" if field.default is None else f" [{shown(field.default)}]"
        text = f"{field.description}{default}"
        if field.annotation is bool:
            group.add_argument(flag, action=argparse.BooleanOptionalAction, help=text)
        else:
            group.add_argument(flag, metavar=name.split("_")[-1].upper(), help=text)


def run(options: argparse.Namespace) -> int:
    """Train, or go on with an interrupted run; 0. Raises :class:`InspectorError`."""
    settings = settings_of(vars(options), options.config)
    from export.data.dataset import FEWEST_GOOD_PARTS, open_layout
    from export.data.layouts import WHOLE, Selection
    from export.training.auto import choose, in_plain_words, recall, say_left_out
    from export.training.run import Run
    from export.training.train import train

    run = Run(options.output)
    run.check(resume=options.resume)
    selection = Selection(
        good=tuple(_below(options.data, path) for path in options.good),
        leave_out=_left_out(options),
    )
    if options.resume and selection == WHOLE:
        selection = run.facts().selection
    _show_layout(open_layout(options.data, selection))
    choice: Choice | None = None
    with progress_bars() as progress, Interrupt(at_once=True) as interrupt:
        tasks: dict[str, Any] = {}

        def on_step(step: Step) -> None:
            show_step(progress, tasks, step)
            interrupt.check()

        if options.resume and (options.auto or run.facts().choice is not None):
            settings, choice = recall(run, settings)
        elif options.auto:
            settings, choice = choose(options.data, settings, on_step=on_step, selection=selection)
        train(
            options.data,
            options.output,
            settings,
            resume=options.resume,
            on_step=on_step,
            choice=choice,
            selection=selection,
            review=_ask(progress) if sys.stdin.isatty() and sys.stdout.isatty() else None,
        )
    outcome = run.outcome()
    if choice is not None:
        print(f"settings: {in_plain_words(choice)}")
        print(
            f"chosen in {choice.seconds:.0f} s from good parts alone: {choice.held_out} that were "
            f"kept back, and {choice.defects} defects drawn on them"
        )
        if choice.left_out:
            print(f"note: {say_left_out(choice.left_out)}")
    print(plain(f"trained in {outcome.train_seconds:.0f} s: {run.folder}"))
    for remark in outcome.remarks:
        print(plain(f"note: {remark}"))
    print_calibration(outcome.calibration)
    if outcome.suspects:
        facts = run.facts()
        show_suspects(outcome, facts.parts)
        left = facts.parts - len(outcome.suspects)
        if left < FEWEST_GOOD_PARTS:
            print(_too_few(left))
        else:
            print(plain(f"without them: {_again(options, facts.selection, outcome.suspects)}"))
    print_next("inspector-model", "evaluate", run.folder)
    return 0


def _left_out(options: argparse.Namespace) -> tuple[str, ...]:
    """What ``--leave-out`` names, relative to the data folder. Raises :class:`DatasetError`."""
    from export.data.photo_folders import list_photos

    named: list[Path] = []
    for path in options.leave_out:
        here = path if path.exists() else options.data / path
        if here.is_dir():
            named += list_photos(here)
        elif here.exists() or len(path.parts) > 1:
            named.append(path)
        else:
            alike = [photo for photo in list_photos(options.data) if photo.name == path.name]
            if len(alike) > 1:
                raise DatasetError(
                    f"{path}: {len(alike)} photos in {options.data} have this name; give the path "
                    f"below {options.data}, such as {alike[0].relative_to(options.data)}"
                )
            named += alike or [path]
    return tuple(dict.fromkeys(_below(options.data, path) for path in named))


def _too_few(left: int) -> str:
    """What to do where too few good parts are left without the suspects."""
    from export.data.dataset import FEWEST_GOOD_PARTS

    return (
        f"without them {left} different good parts would be left, and at least "
        f"{FEWEST_GOOD_PARTS} are needed: photograph more parts before you leave these out"
    )


def _ask(progress: Progress) -> Callable[[Outcome, int], Sequence[str] | None]:
    """Show the suspects of a finished run and ask which are no good parts."""
    from export.data.dataset import FEWEST_GOOD_PARTS

    def review(outcome: Outcome, spare: int) -> Sequence[str] | None:
        progress.stop()
        show_suspects(outcome, outcome.calibration.good_parts)
        names = [suspect.name for suspect in outcome.suspects]
        is_short = len(names) > spare
        if is_short:
            print(_too_few(FEWEST_GOOD_PARTS + spare - len(names)))
        all_of_them = "" if is_short else "y: without all of these; or "
        at_most = f" (at most {spare} of them)" if is_short else ""
        left_out = None
        with contextlib.suppress(EOFError):
            # Where none can be left out, whoever presses Enter would say that all are good parts.
            while left_out is None and spare > 0:
                answer = input(
                    f"Train again without them? Enter: no, all of them are good parts, and the "
                    f"limit allows for them; {all_of_them}the numbers of those to leave out, such "
                    f"as 1 3{at_most}: "
                )
                left_out = chosen(answer, names)
                if left_out is not None and len(left_out) > spare:
                    print(_too_few(FEWEST_GOOD_PARTS + spare - len(left_out)))
                    left_out = None
        print(plain(f"left out: {', '.join(left_out or ()) or 'none'}"))
        progress.start()
        return left_out

    return review


def chosen(answer: str, names: Sequence[str]) -> list[str] | None:
    """Those of ``names`` that an answer leaves out: all, some by their numbers from 1, or none.

    None for an answer that says nothing of this.
    """
    words = answer.lower().replace(",", " ").split()
    if words in (["y"], ["yes"], ["all"]):
        return list(names)
    if words in (["n"], ["no"], ["none"]):
        return []
    if not all(word.isdecimal() and 0 < int(word) <= len(names) for word in words):
        return None
    return [names[int(word) - 1] for word in dict.fromkeys(words)]


def _again(options: argparse.Namespace, selection: Selection, suspects: Sequence[Suspect]) -> str:
    """The command that trains as these options did, without the suspects, in another folder."""
    words = ["inspector-model", "train", _as_path(options.data)]
    number = 2
    while (folder := options.output.with_name(f"{options.output.name}-{number}")).exists():
        number += 1
    words += ["-o", _as_path(folder)]
    words += _given("--good", *selection.good)
    words += ["--config", _as_path(options.config)] if options.config else []
    words += ["--auto"] if options.auto else []
    for name, field in TrainSettings.model_fields.items():
        value, flag = getattr(options, name), name.replace("_", "-")
        if value is not None and field.annotation is bool:
            words.append(f"--{flag}" if value else f"--no-{flag}")
        elif value is not None:
            words += _given(f"--{flag}", str(value))
    words += _given("--leave-out", *selection.leave_out, *(one.name for one in suspects))
    return shlex.join(words)


def _given(flag: str, *values: str) -> list[str]:
    """The words that give ``flag`` its ``values``; none for none.

    One that begins with a dash would be taken for an option, unless it is joined to the flag.
    """
    joined = [f"{flag}={value}" for value in values if value.startswith("-")]
    others = [value for value in values if not value.startswith("-")]
    return [*joined, *([flag, *others] if others else [])]


def _as_path(path: Path) -> str:
    """``path`` as it is to be typed where a word that begins with a dash would be an option."""
    return f"./{path}" if str(path).startswith("-") else str(path)


def _below(data: Path, path: Path) -> str:
    """``path`` relative to the data folder. Raises :class:`DatasetError`."""
    whole = data.resolve()
    # What lies in the data folder is meant, though something here may have the same name.
    for place in (path, data / path):
        if place.exists() and place.resolve().is_relative_to(whole):
            return place.resolve().relative_to(whole).as_posix()
    try:
        return (data / path).resolve().relative_to(whole).as_posix()
    except ValueError:
        raise DatasetError(
            f"{path}: does not lie in {data}; name the folder that holds all photos, then this "
            f"one in it"
        ) from None


def _show_layout(layout: Layout) -> None:
    """Print which folders were taken for what, so that a wrong guess is seen before training."""
    found = table("folder", "taken for", numbers("photos"))
    for row in layout.rows():
        folder = row.folder.relative_to(layout.root).as_posix()
        found.add_row(folder, f"{row.role}: {row.kind}" if row.kind else row.role, f"{row.photos}")
    show(found, f"{layout.root}: {layout.name}")
    print_remarks(layout.root)
