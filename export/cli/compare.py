"""``compare``: what ``evaluate`` found of several runs, side by side with what they differ in."""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from export.cli.arguments import shown
from inspector.errors import RunError
from inspector.shown import plain
from inspector.tables import numbers, show, table

if TYPE_CHECKING:
    from export.training.run import Facts, Outcome

_OF_THE_MACHINE: Final = frozenset({"device", "cache_gb", "weights"})
"""Settings that do not change the model."""
_NONE: Final = "-"


@dataclass(frozen=True)
class _Finished:
    """One run as its folder has it; ``figures`` and ``verdicts`` are empty before ``evaluate``."""

    name: str
    facts: Facts
    outcome: Outcome
    figures: dict[str, float]
    verdicts: dict[str, str]
    """The verdict of each test photo, by its path."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``compare``."""
    parser.add_argument("first", type=Path, metavar="RUN")
    parser.add_argument("others", type=Path, nargs="+", metavar="RUN")


def run(options: argparse.Namespace) -> int:
    """Print a column for each run; 0. Raises :class:`RunError`."""
    folders: list[Path] = [options.first, *options.others]
    short = [folder.resolve().name for folder in folders]
    names = short if len(set(short)) == len(short) else list(map(str, folders))
    runs = [_read(folder, name) for folder, name in zip(folders, names, strict=True)]
    rows = table("", *map(numbers, names))
    for name, values in _rows(runs):
        rows.add_row(name, *values)
    show(rows)
    for remark in _remarks(runs):
        print(plain(f"note: {remark}"))
    return 0


def _rows(runs: Sequence[_Finished]) -> list[tuple[str, tuple[str, ...]]]:
    """Settings in which the runs differ, and figures: a name and a text for each run."""
    from export.bundle.describe import say_figure

    found: list[tuple[str, tuple[str, ...]]] = []

    def row(name: str, say: Callable[[_Finished], str], *, always: bool = True) -> None:
        values = tuple(map(say, runs))
        if always or len(set(values)) > 1:
            found.append((name, values))

    for key in type(runs[0].facts.settings).model_fields:
        if key not in _OF_THE_MACHINE:
            row(f"setting {key}", partial(_setting, key), always=False)
    row("data", lambda one: str(one.facts.data), always=False)
    row("good parts trained on", lambda one: f"{one.facts.parts}")
    row("training, s", lambda one: f"{one.outcome.train_seconds:.0f}")
    row("rejects asked for", lambda one: f"{one.outcome.calibration.target_false_reject:.2%}")
    row("unseen good parts that reach the limit", _say_held_out)
    row("drawn defects that pass", _say_drawn)
    for key in dict.fromkeys(key for one in runs for key in one.figures):
        row(say_figure(key), partial(_figure, key))
    if all(one.verdicts for one in runs):
        row(f"verdicts unlike those of {runs[0].name}", partial(_say_differing, runs[0]))
    return found


def _read(folder: Path, name: str) -> _Finished:
    from export.training.run import Run

    made = Run(folder)
    facts, outcome = made.facts(), made.outcome()
    path = folder / "evaluation.json"
    try:
        figures = json.loads(path.read_bytes()) if path.exists() else {}
        verdicts = {}
        if path.exists():
            with (folder / "scores.csv").open(encoding="utf-8", newline="") as file:
                verdicts = {row["path"]: row["verdict"] for row in csv.DictReader(file)}
    except (OSError, ValueError, KeyError):
        raise RunError(
            f"{folder}: its evaluation is damaged; type 'inspector-model evaluate {folder}'"
        ) from None
    return _Finished(name, facts, outcome, figures, verdicts)


def _setting(key: str, one: _Finished) -> str:
    # What was computed from the photos, where nobody gave a value.
    found: dict[str, Any] = {
        **one.facts.settings.model_dump(),
        "bank_items": one.facts.settings.items,
        "sigma": one.facts.settings.sigma_px,
    }
    return _NONE if found[key] is None else shown(found[key])


def _say_held_out(one: _Finished) -> str:
    return f"{one.outcome.calibration.good_rejected} of {one.outcome.calibration.good_parts}"


def _say_drawn(one: _Finished) -> str:
    cost = one.outcome.calibration.cost
    return _NONE if cost is None else f"{cost.passed} of {cost.drawn}"


def _figure(key: str, one: _Finished) -> str:
    return f"{one.figures[key]:.4g}" if key in one.figures else _NONE


def _say_differing(first: _Finished, other: _Finished) -> str:
    both = first.verdicts.keys() & other.verdicts.keys()
    differing = sum(first.verdicts[path] != other.verdicts[path] for path in both)
    return f"{differing} of {len(both)}"


def _remarks(runs: Sequence[_Finished]) -> list[str]:
    remarks = [
        f"{one.name} was not evaluated at its limit: 'inspector-model evaluate' does it"
        for one in runs
        if not one.figures
    ]
    if len({frozenset(one.verdicts) for one in runs if one.verdicts}) > 1:
        remarks.append("the runs were evaluated on different test photos: compare with care")
    if len({one.facts.fingerprint for one in runs}) > 1:
        remarks.append("the runs were trained on different photos")
    return remarks
