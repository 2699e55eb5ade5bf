"""What a command shows while it works, and what several tell at the end, in plain words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from inspector.detection.manifest import Calibration
from inspector.imaging.folders import remarks
from inspector.progress import Bars
from inspector.shown import plain
from inspector.tables import Terminal, numbers, show, table

if TYPE_CHECKING:
    from export.training.run import Outcome
    from export.training.train import Step

STAGES: Final = {
    "backbone features": "looking at the photos",
    "adapting φ": "learning the good parts",
    "teaching": "learning the new good parts",
    "comparing parts": "looking for photos unlike the others",
    "drawing defects": "judging defects drawn on good parts",
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


def progress_bars() -> Bars:
    """Bars on standard error, each with a note; lines where that is no terminal."""
    return Bars(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=Terminal(stderr=True),
    )


def show_step(progress: Progress, tasks: dict[str, Any], step: Step) -> None:
    """Move the stage's bar, or add one; ``tasks`` maps a stage to its bar."""
    if step.stage not in tasks:
        words = STAGES.get(step.stage, step.stage)
        tasks[step.stage] = progress.add_task(words, total=step.total, note="")
    note = step.fit
    for term, words in _FITS.items():
        note = note.replace(term, words)
    if step.loss is not None:
        note += f", loss {step.loss:.4g}"
    progress.update(tasks[step.stage], completed=step.done, total=step.total, note=note)


def print_remarks(root: Path, photos: Sequence[Path] = ()) -> None:
    """Print what in a data set is not read, and how many of ``photos`` are to be shown turned."""
    for line in remarks(root, photos):
        print(plain(line))


def print_calibration(calibration: Calibration) -> None:
    """Print the limit and what it lets one expect."""
    # With SciPy, which '--help' on a station must not need.
    from export.training.calibrate import MOST_ESCAPES

    low, high = calibration.interval
    first, last = calibration.predicted_rejects
    print(
        f"limit: set to reject {calibration.target_false_reject:.2%} of good parts"
        f"{' (auto)' if calibration.automatic else ''}; of "
        f"{calibration.good_parts} that the model had not seen, {calibration.good_rejected} reach "
        f"it"
    )
    print(
        f"expect: {low:.2%} to {high:.2%} of good parts rejected, {first} to {last} of the next "
        f"{calibration.predicted_next} (95 % confidence)"
    )
    if (cost := calibration.cost) is not None:
        print(
            f"trial: the program drew {cost.drawn} defects on good parts, many of them hardly "
            f"visible; {cost.passed} of them pass at this limit"
        )
        if cost.passed > MOST_ESCAPES * cost.drawn:
            print(
                "note: more than half of them pass, so perhaps defects of yours pass too: have "
                "photos of defective parts judged before you rely on it (docs/evaluation.md)"
            )
    for remark in calibration.remarks:
        print(plain(f"note: {remark}"))


def show_suspects(outcome: Outcome, parts: int) -> None:
    """Name the photos among the good parts that a person is to look at."""
    found = table(numbers(""), "photo", numbers("times a usual part"))
    for number, suspect in enumerate(outcome.suspects, start=1):
        found.add_row(f"{number}", suspect.name, f"{suspect.times:.2f}")
    count = len(outcome.suspects)
    show(
        found,
        f"look at {'this' if count == 1 else 'these'} before you go on: {count} of {parts} photos "
        f"look{'s' if count == 1 else ''} unlike the others; a defect trained as good passes",
    )


def print_choices(choices: Iterable[str]) -> None:
    """Print why the number format was chosen."""
    for why in choices:
        print(plain(f"precision: {why}"))
