"""``tune``: measure every engine of this machine on a bundle, and choose the fastest for it.

Stations with ``provider: auto`` and ``threads: 0`` then use the choice
(:mod:`inspector.detection.engines.tuned`).
"""

from __future__ import annotations

import argparse
import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.table import Column
from rich.text import Text

from inspector.cli.arguments import count
from inspector.cli.engine_trials import (
    FEWEST_PHOTOS,
    BundleOnEngine,
    EngineTrial,
    Photo,
    ReferenceLoss,
    choose,
    compare,
    engines,
    objection,
    start,
    time_in_turns,
)
from inspector.detection import bundle as bundles
from inspector.detection.engines.base import Engine, usable_cores
from inspector.errors import BundleError, Fault, ImageError
from inspector.imaging.folders import find_parts, remarks
from inspector.imaging.images import read_image
from inspector.progress import QUICK_S, Bars
from inspector.shown import plain
from inspector.tables import Terminal, numbers, print_next, print_next_station, show, table
from inspector.verdict import Frame8

if TYPE_CHECKING:
    from inspector.detection.detector import Detector

_EXACT: Final = ("fp32", "mixed", "fp16", "int8")
"""Precisions, the most exact first."""
_MOST_PHOTOS: Final = 1000
"""Of more photos only this many are compared, taken at even distances."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``tune``."""
    parser.add_argument(
        "bundles",
        type=Path,
        nargs="+",
        metavar="BUNDLE.onnx",
        help="the model; with it the same model in other precisions",
    )
    parser.add_argument(
        "--photos",
        type=Path,
        metavar="DIR",
        help="photos to compare verdicts on; those in a folder 'good' are good, others defective. "
        f"{FEWEST_PHOTOS} or more let engines compete that compute less exactly (bf16)",
    )
    parser.add_argument("--rounds", type=count, default=100, metavar="N", help="[%(default)s]")
    parser.add_argument("--dry-run", action="store_true", help="write nothing")


def run(options: argparse.Namespace) -> int:
    """Measure, print a table, write the choice beside each bundle; 0.

    Raises :class:`BundleError`, :class:`ImageError`, :class:`OutputError`.
    """
    # Loaded here, so that 'inspector tune --help' does not load ONNX Runtime.
    from inspector.detection.detector import Detector

    console = Terminal(stderr=True, highlight=False, soft_wrap=True, markup=False)
    paths = list(dict.fromkeys(options.bundles))
    files = [bundles.read(path) for path in paths]
    for file in files[1:]:
        _check_same_model(file, files[0])
    plain = Engine(provider="cpu")
    references = {path: Detector.load(path, engine=plain) for path in paths}
    # The most exact of several is the reference, in whatever order they are given.
    reference = min(files, key=lambda file: _EXACT.index(file.manifest.precision))
    loss = ReferenceLoss.of(reference.manifest)
    golden = [Photo(each.image()) for each in reference.manifest.golden]
    photos = _photos(options.photos, references[paths[0]], console) if options.photos else []
    with Bars(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        quick_s=QUICK_S,
    ) as bar:
        families: list[BundleOnEngine] = []
        trials: list[EngineTrial] = []
        for engine in bar.track(list(engines()), description="starting engines"):
            for path in paths:
                family = BundleOnEngine(path, engine, references[path])
                families.append(family)
                trials += start(family)
        pictures = bar.track([*golden, *photos], description="comparing verdicts")
        scores = compare(pictures, len(golden), families, references[reference.path])
        for family in families:
            family.refused = family.refused or objection(family, photos, scores, loss)
        task = bar.add_task("timing", total=options.rounds)
        for _ in time_in_turns(trials, golden[0].image[None], options.rounds):
            bar.advance(task)
    _print(families, trials, reference.path, bool(photos))
    fastest = _conclude(trials, files, write=not options.dry_run)
    if fastest is not None and options.dry_run:
        photos_option = ["--photos", options.photos] if options.photos else []
        print_next("inspector", "tune", *paths, *photos_option)
    elif fastest is not None:
        print_next_station(fastest)
    return 0


def _check_same_model(file: bundles.Bundle, first: bundles.Bundle) -> None:
    """Raise :class:`BundleError` unless both are one model, whatever their precisions."""
    mine, other = file.manifest, first.manifest
    if mine.geometry != other.geometry:
        raise BundleError(
            f"{file.path}: looks at another region or size than {first.path}; tune it by itself"
        )
    if (mine.version, mine.training_fingerprint) != (other.version, other.training_fingerprint):
        raise BundleError(
            f"{file.path}: another model than {first.path}, trained on other photos or anew; tune "
            f"it by itself"
        )


def _photos(folder: Path, detector: Detector, console: Console) -> list[Photo]:
    """The photos under ``folder`` at network size. Raises ImageError when none can be judged."""
    try:
        found, masks = find_parts(folder)
        for remark in remarks(folder, found, masks):
            console.print(plain(remark))
    except OSError as error:
        raise ImageError(f"{error.filename or folder}: cannot be read: {error.strerror}") from None
    if not found:
        raise ImageError(f"{folder}: holds no photo")
    if len(found) > _MOST_PHOTOS:
        found = [found[i] for i in np.linspace(0, len(found) - 1, _MOST_PHOTOS).astype(int)]
    images: list[tuple[Path, Frame8]] = []
    skipped = ""
    for path in found:
        try:
            images.append((path, detector.geometry.apply(read_image(path))))
        except (ValueError, Fault) as error:
            # A photo that no engine can judge compares nothing.
            skipped = skipped or str(error)
    if not images:
        raise ImageError(f"{folder}: no photo can be judged: {skipped}")
    if skipped:
        left = f"{len(found) - len(images)} of {len(found)}"
        console.print(plain(f"{left} photos would be a FAULT and are left out: {skipped}"))
    good = ["good" in path.relative_to(folder).parts for path, _ in images]
    labelled = len(set(good)) == 2
    return [
        Photo(image, is_good if labelled else None)
        for (_, image), is_good in zip(images, good, strict=True)
    ]


def _print(
    families: list[BundleOnEngine], trials: list[EngineTrial], reference: Path, with_photos: bool
) -> None:
    several = len({family.bundle for family in families}) > 1
    columns: list[str | Column] = ["bundle", "engine"] if several else ["engine"]
    columns += [numbers(name) for name in ("median ms", "p99 ms", "x fastest", "map differs")]
    columns += [numbers("other verdicts")] if with_photos else []
    measured = table(*columns, "verdicts")
    best = min(trial.median_ms for trial in trials)
    for trial in sorted(trials, key=lambda trial: trial.median_ms):
        family = trial.family
        measured.add_row(
            *((family.bundle.name,) if several else ()),
            str(trial.engine),
            f"{trial.median_ms:.1f}",
            f"{trial.p99_ms:.1f}",
            f"{trial.median_ms / best:.2f}",
            f"{family.map_gap:.2g}",
            *((str(family.flips),) if with_photos else ()),
            _refused(family) if family.refused else "kept",
        )
    for family in families:
        if family.detector is None:
            names = (family.bundle.name,) if several else ()
            engine = str(family.engine).partition(",")[0]
            blank = ("",) * (4 + with_photos)
            measured.add_row(*names, engine, *blank, _refused(family))
    show(measured, f"one picture, all in turns; differences from {reference.name} on the CPU")


def _refused(family: BundleOnEngine) -> Text:
    return Text.assemble(("refused", "red"), f": {family.refused}")


def _conclude(
    trials: list[EngineTrial], files: list[bundles.Bundle], *, write: bool
) -> Path | None:
    """Print and, with ``write``, record the choice for each bundle; returns the fastest bundle."""
    from inspector.detection.engines import tuned

    chosen = []
    for file in files:
        own = [trial for trial in trials if trial.family.bundle == file.path]
        if all(trial.family.refused for trial in own):
            print(plain(f"{file.path}: no engine here keeps the verdicts; nothing was written"))
            if write and tuned.forget(file.path):
                print(plain(f"{tuned.file_of(file.path)}: an earlier choice, deleted"))
            continue
        best = choose(own)
        chosen.append(best)
        record = tuned.TunedEngine(
            sha256=file.sha256,
            processor=tuned.processor(),
            cores=len(usable_cores()),
            library=tuned.library(best.engine),
            created=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            engine=best.engine,
            median_ms=best.median_ms,
            p99_ms=best.p99_ms,
        )
        where = tuned.file_of(file.path)
        if write:
            tuned.write(where, record)
        what = f"; {where} tells stations with 'provider: auto'" if write else "; not written"
        print(plain(f"{file.path}: {best.engine}, {best.median_ms:.1f} ms{what}"))
    if not chosen:
        return None
    fastest = min(chosen, key=lambda trial: trial.median_ms)
    if fastest.family.bundle != files[0].path:
        print(plain(f"fastest: name {fastest.family.bundle} as 'bundle' in the station's recipe"))
    return fastest.family.bundle
