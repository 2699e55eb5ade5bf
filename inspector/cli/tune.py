"""``tune``: every engine of this machine measured on a bundle, and the fastest that keeps verdicts.

Stations with ``provider: auto`` and ``threads: 0`` then use it (:mod:`inspector.engines.tuned`).
"""

from __future__ import annotations

import argparse
import datetime
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column
from rich.text import Text

from inspector.cli.arguments import count
from inspector.cli.tables import numbers, show, table
from inspector.detection import bundle as bundles
from inspector.detection.engines.base import Engine, default_threads, usable_cores
from inspector.detection.manifest import Compared, Manifest, Parity
from inspector.errors import BundleError, Fault, ImageError, StartupError
from inspector.imaging.images import find_images, read_image
from inspector.verdict import FloatMap, Frame8, decide

if TYPE_CHECKING:
    from inspector.detection.detector import Detector

SAME: Final = 5e-3
"""Map differences, in units of the limit, up to which an engine computes the same."""
FLIPS: Final = 0.005
"""Share of verdicts that may flip."""
AUROC_LOSS: Final = 1e-3
FEWEST_PHOTOS: Final = 50
"""For an engine that computes something else than the bundle was proven with."""
_EXACT: Final = ("fp32", "mixed", "fp16", "int8")
"""Precisions, the most exact first."""
_MOST_PHOTOS: Final = 1000
_AS_FAST: Final = 1.03
"""Medians that differ by less are equal, and fewer threads win: cameras need the cores."""


@dataclass(frozen=True)
class Photo:
    """A picture at network size; ``good`` None where its folder does not say."""

    image: Frame8
    good: bool | None = None


@dataclass(frozen=True)
class Spent:
    """What the reference gave up against the trained model when it was proven."""

    flips: float = 0.0
    """Share of the verdicts."""
    auroc: float = 0.0

    @classmethod
    def of(cls, manifest: Manifest) -> Spent:
        """By the manifest's proof; nothing where there is none."""
        proof = manifest.parity
        if proof is None:
            return cls()
        kinds: list[Compared | Parity] = [
            kind for kind in (proof.validation, proof.test) if kind is not None
        ]
        kinds = kinds or [proof]
        flips = max(kind.verdict_flips / max(1, kind.images) for kind in kinds)
        return cls(flips, max(0.0, -(proof.auroc_change or 0.0)))


@dataclass
class Family:
    """One bundle on one engine, whatever its threads: what it says of the pictures."""

    bundle: Path
    engine: Engine
    proven: Detector
    """The same file on ONNX Runtime's CPU."""
    detector: Detector | None = None
    refused: str = ""
    map_gap: float = 0.0
    """Largest difference of a map from that of the reference on the CPU."""
    own_gap: float = 0.0
    """The same, from that of its own file there."""
    flips: int = 0
    golden_flips: int = 0
    scores: list[float] = field(default_factory=list)


@dataclass
class EngineTrial:
    """A family with a number of threads, timed."""

    family: Family
    engine: Engine
    detector: Detector
    times_ms: list[float] = field(default_factory=list)

    @property
    def median_ms(self) -> float:
        """Of one picture."""
        return float(np.median(self.times_ms))

    @property
    def p99_ms(self) -> float:
        """99 % of the pictures took no longer."""
        return float(np.quantile(self.times_ms, 0.99))


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
        f"{FEWEST_PHOTOS} or more let engines compete that compute in bf16",
    )
    parser.add_argument("--rounds", type=count, default=100, metavar="N", help="[%(default)s]")
    parser.add_argument("--dry-run", action="store_true", help="write nothing")


def run(options: argparse.Namespace) -> int:
    """Measure, print a table, write the choice beside each bundle; 0.

    Raises :class:`BundleError`, :class:`ImageError`, :class:`OutputError`.
    """
    # Here, so that the help of every command does not load ONNX Runtime.
    from inspector.detection.detector import Detector

    console = Console(stderr=True)
    paths = list(dict.fromkeys(options.bundles))
    files = [bundles.read(path) for path in paths]
    for file in files[1:]:
        _check_same_model(file, files[0])
    plain = Engine(provider="cpu")
    references = {path: Detector.load(path, engine=plain) for path in paths}
    # Of several the most exact, in whatever order they are given.
    reference = min(files, key=lambda file: _EXACT.index(file.manifest.precision))
    spent = Spent.of(reference.manifest)
    golden = [Photo(each.image()) for each in reference.manifest.golden]
    photos = _photos(options.photos, references[paths[0]], console) if options.photos else []
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    ) as bar:
        families: list[Family] = []
        trials: list[EngineTrial] = []
        for engine in bar.track(list(_engines()), description="starting engines"):
            for path in paths:
                family = Family(path, engine, references[path])
                families.append(family)
                trials += _start(family)
        said = bar.track([*golden, *photos], description="comparing verdicts")
        scores = _compare(said, len(golden), families, references[reference.path])
        for family in families:
            family.refused = family.refused or _objection(family, photos, scores, spent)
        task = bar.add_task("timing", total=options.rounds)
        for _ in _rounds(trials, golden[0].image[None], options.rounds):
            bar.advance(task)
    _print(families, trials, reference.path, bool(photos))
    _conclude(trials, files, write=not options.dry_run)
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


def _engines() -> Iterator[Engine]:
    """What this machine can try, threads left open."""
    from inspector.detection.engines import onnxruntime, openvino

    yield Engine(provider="cpu")
    if not openvino.missing():
        yield Engine(provider="openvino")
        if not openvino.missing("bf16"):
            yield Engine(provider="openvino", precision="bf16")
    if not onnxruntime.missing("cuda"):
        yield Engine(provider="cuda")
        yield Engine(provider="cuda", graph=False)
        yield Engine(provider="tensorrt")


def _start(family: Family) -> list[EngineTrial]:
    """One trial for each number of threads; none, and ``refused``, where it does not start."""
    from inspector.detection.detector import Detector

    cores = len(usable_cores())
    counts = sorted({1, max(1, cores // 2), default_threads(), cores})
    if family.engine.provider in {"cuda", "tensorrt"}:
        counts = [0]
    trials = []
    for threads in counts:
        engine = family.engine.model_copy(update={"threads": threads})
        try:
            trials.append(EngineTrial(family, engine, Detector.load(family.bundle, engine=engine)))
        except StartupError as error:
            family.refused = str(error).removeprefix(f"{family.bundle}: ")
            return []
    family.detector = trials[0].detector
    return trials


def _photos(folder: Path, detector: Detector, console: Console) -> list[Photo]:
    """Raises :class:`ImageError` when there is none to judge."""
    try:
        found = find_images(folder)
    except OSError as error:
        raise ImageError(f"{folder}: cannot be read: {error.strerror}") from None
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
            # A FAULT on every engine.
            skipped = skipped or str(error)
    if not images:
        raise ImageError(f"{folder}: no photo can be judged: {skipped}")
    if skipped:
        left = f"{len(found) - len(images)} of {len(found)}"
        console.print(f"{left} photos would be a FAULT and are left out: {skipped}")
    good = ["good" in path.relative_to(folder).parts for path, _ in images]
    labelled = len(set(good)) == 2
    return [
        Photo(image, is_good if labelled else None)
        for (_, image), is_good in zip(images, good, strict=True)
    ]


def _compare(
    said: Iterable[Photo], golden: int, families: list[Family], first: Detector
) -> list[float]:
    """Every picture through every family; the first bundle's scores of the photos on the CPU."""
    scores = []
    for number, photo in enumerate(said):
        batch = photo.image[None]
        own = {id(family.proven): _infer(family.proven, batch) for family in families}
        true_score, true_map = own[id(first)]
        if number >= golden:
            scores.append(true_score)
        for family in families:
            if family.detector is None:
                continue
            score, found = _infer(family.detector, batch)
            family.map_gap = max(family.map_gap, _gap(found, true_map))
            family.own_gap = max(family.own_gap, _gap(found, own[id(family.proven)][1]))
            flips = decide(score)[0] is not decide(true_score)[0]
            if number >= golden:
                family.scores.append(score)
                family.flips += flips
            else:
                family.golden_flips += flips
    return scores


def _infer(detector: Detector, batch: Frame8) -> tuple[float, FloatMap]:
    """Score and map; NaN where the engine fails."""
    try:
        scores, maps = detector.infer(batch)
    except Fault:
        return float("nan"), np.full((1, 1), np.nan, dtype=np.float32)
    return float(scores[0]), maps[0]


def _gap(found: FloatMap, true: FloatMap) -> float:
    gap = float(np.abs(found - true).max())
    return gap if np.isfinite(gap) else float("inf")


def _objection(family: Family, photos: list[Photo], reference: list[float], spent: Spent) -> str:
    """Why its verdicts cannot be trusted, "" when they can."""
    if family.golden_flips:
        return f"{family.golden_flips} golden verdicts flip"
    if family.own_gap > SAME and len(photos) < FEWEST_PHOTOS:
        return (
            f"its map differs by {family.own_gap:.2g} of the limit: only {FEWEST_PHOTOS} --photos "
            f"or more can tell whether verdicts stay ({len(photos)} given)"
        )
    if family.flips and family.flips > (FLIPS - spent.flips) * len(photos):
        before = f", beside {spent.flips:.1%} in the reference's proof" if spent.flips else ""
        return f"{family.flips} of {len(photos)} verdicts flip{before}"
    good = np.array([photo.good for photo in photos if photo.good is not None], dtype=bool)
    if len(good):
        loss = _auroc(np.array(reference), good) - _auroc(np.array(family.scores), good)
        if not (loss <= 0 or loss + spent.auroc <= AUROC_LOSS):
            before = f", beside {spent.auroc:.4f} in the reference's proof" if spent.auroc else ""
            return f"image AUROC falls by {loss:.4f}{before}"
    return ""


def _auroc(scores: npt.NDArray[np.float64], good: npt.NDArray[np.bool_]) -> float:
    """Share of (good, defective) pairs in order; NaN is never in order."""
    mine, theirs = scores[good][:, None], scores[~good][None]
    return float(np.mean((mine < theirs) + 0.5 * (mine == theirs)))


def _rounds(trials: list[EngineTrial], batch: Frame8, count: int) -> Iterator[None]:
    """All once a round, each time in another order: the machine's moods are shared."""
    chance = np.random.default_rng(0)
    for _ in range(count):
        for number in chance.permutation(len(trials)):
            trial = trials[number]
            begun = time.perf_counter()
            trial.detector.infer(batch)
            trial.times_ms.append((time.perf_counter() - begun) * 1e3)
        yield


def _print(
    families: list[Family], trials: list[EngineTrial], reference: Path, with_photos: bool
) -> None:
    several = len({family.bundle for family in families}) > 1
    columns: list[str | Column] = ["bundle", "engine"] if several else ["engine"]
    columns += [numbers(name) for name in ("median ms", "p99 ms", "x fastest", "map")]
    columns += [numbers("flips")] if with_photos else []
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


def _refused(family: Family) -> Text:
    return Text.assemble(("refused", "red"), f": {family.refused}")


def choose(trials: list[EngineTrial]) -> EngineTrial:
    """The fastest that keeps the verdicts; of those as fast, the one with the fewest threads."""
    kept = [trial for trial in trials if not trial.family.refused]
    limit = _AS_FAST * min(trial.median_ms for trial in kept)
    quick = [trial for trial in kept if trial.median_ms <= limit]
    return min(quick, key=lambda trial: (trial.engine.threads, trial.median_ms))


def _conclude(trials: list[EngineTrial], files: list[bundles.Bundle], *, write: bool) -> None:
    from inspector.detection.engines import tuned

    chosen = []
    for file in files:
        own = [trial for trial in trials if trial.family.bundle == file.path]
        if all(trial.family.refused for trial in own):
            print(f"{file.path}: no engine here keeps the verdicts; nothing was written")
            if write and tuned.forget(file.path):
                print(f"{tuned.file_of(file.path)}: an earlier choice, deleted")
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
        print(
            f"{file.path}: {best.engine}, {best.median_ms:.1f} ms"
            + (f"; {where} tells stations with 'provider: auto'" if write else "; not written")
        )
    if not chosen:
        return
    fastest = min(chosen, key=lambda trial: trial.median_ms)
    if fastest.family.bundle != files[0].path:
        print(f"fastest: name {fastest.family.bundle} as 'bundle' in the station's recipe")
