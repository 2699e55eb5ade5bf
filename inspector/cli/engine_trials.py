"""Every engine of this machine tried with a bundle: whether it keeps the verdicts, how fast it is.

Verdicts are compared with those of a reference, the most exact bundle given, on ONNX Runtime's CPU.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from inspector.detection.engines.base import Engine, default_threads, usable_cores
from inspector.detection.manifest import Compared, Manifest, Parity
from inspector.errors import Fault, StartupError
from inspector.verdict import FloatMap, Frame8, decide

if TYPE_CHECKING:
    from inspector.detection.detector import Detector

SAME: Final = 5e-3
"""Map differences, in units of the limit, up to which an engine computes the same."""
FLIPS: Final = 0.005
"""Share of the photos' verdicts that may flip, the reference's own flips included."""
AUROC_LOSS: Final = 1e-3
"""Image AUROC that may be lost, the reference's own loss included."""
FEWEST_PHOTOS: Final = 50
"""Photos that it takes to trust an engine that does not compute the same."""
_AS_FAST: Final = 1.03
"""Medians within this factor are equal, and fewer threads win: cameras need the cores."""


@dataclass(frozen=True)
class Photo:
    """A picture at network size, uint8 BGR; ``good`` is None where its folder does not say."""

    image: Frame8
    good: bool | None = None


@dataclass(frozen=True)
class ReferenceLoss:
    """What the reference lost against the trained model, by the proof in its manifest.

    ``flips``: share of the verdicts that flipped. ``auroc``: image AUROC lost.
    """

    flips: float = 0.0
    auroc: float = 0.0

    @classmethod
    def of(cls, manifest: Manifest) -> ReferenceLoss:
        """The losses that ``manifest`` records; none where it has no proof."""
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
class BundleOnEngine:
    """One bundle on one engine, whatever its threads, and how its answers compare."""

    bundle: Path
    engine: Engine
    proven: Detector
    """The same bundle on ONNX Runtime's CPU."""
    detector: Detector | None = None
    """None while it was not started, and when it does not start."""
    refused: str = ""
    """Why its verdicts cannot be trusted, or why it does not start; "" when all is well."""
    map_gap: float = 0.0
    """Largest difference of a map from the reference's, in units of the limit."""
    own_gap: float = 0.0
    """The same, from the map of ``proven``."""
    flips: int = 0
    golden_flips: int = 0
    scores: list[float] = field(default_factory=list)


@dataclass
class EngineTrial:
    """A bundle on an engine with a number of threads, timed."""

    family: BundleOnEngine
    engine: Engine
    detector: Detector
    times_ms: list[float] = field(default_factory=list)

    @property
    def median_ms(self) -> float:
        """Median time of one picture, ms."""
        return float(np.median(self.times_ms))

    @property
    def p99_ms(self) -> float:
        """The time that 99 % of the pictures did not exceed, ms."""
        return float(np.quantile(self.times_ms, 0.99))


def engines() -> Iterator[Engine]:
    """The engines that this machine can try, their number of threads left open."""
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


def start(family: BundleOnEngine) -> list[EngineTrial]:
    """Start one trial for each number of threads; none, with ``refused`` set, if that fails."""
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


def compare(
    pictures: Iterable[Photo], golden: int, families: list[BundleOnEngine], first: Detector
) -> list[float]:
    """Have every family judge every picture, and note in it how its answers compare.

    ``pictures`` are first the ``golden`` golden ones, then the photos. Returns the scores that
    ``first``, the reference, gives the photos.
    """
    scores = []
    for number, photo in enumerate(pictures):
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
    """Score and map of a batch of one picture; NaN where the engine fails."""
    try:
        scores, maps = detector.infer(batch)
    except Fault:
        return float("nan"), np.full((1, 1), np.nan, dtype=np.float32)
    return float(scores[0]), maps[0]


def _gap(found: FloatMap, true: FloatMap) -> float:
    gap = float(np.abs(found - true).max())
    return gap if np.isfinite(gap) else float("inf")


def objection(
    family: BundleOnEngine, photos: list[Photo], reference: list[float], loss: ReferenceLoss
) -> str:
    """Why the family's verdicts cannot be trusted, "" when they can.

    ``reference`` holds the reference's scores of ``photos``.
    """
    if family.golden_flips:
        return f"{family.golden_flips} of the bundle's known photos get another verdict"
    if family.own_gap > SAME and len(photos) < FEWEST_PHOTOS:
        return (
            f"its map differs by {family.own_gap:.2g} of the limit: only {FEWEST_PHOTOS} --photos "
            f"or more can tell whether verdicts stay the same ({len(photos)} given)"
        )
    if family.flips and family.flips > (FLIPS - loss.flips) * len(photos):
        before = f", beside {loss.flips:.1%} that the export had changed" if loss.flips else ""
        return f"{family.flips} of {len(photos)} verdicts are others{before}"
    good = np.array([photo.good for photo in photos if photo.good is not None], dtype=bool)
    if len(good):
        fall = _auroc(np.array(reference), good) - _auroc(np.array(family.scores), good)
        if not (fall <= 0 or fall + loss.auroc <= AUROC_LOSS):
            before = f", beside {loss.auroc:.4f} lost in the export" if loss.auroc else ""
            return (
                f"good and defective parts are told apart less well: image AUROC falls by "
                f"{fall:.4f}{before}"
            )
    return ""


def _auroc(scores: npt.NDArray[np.float64], good: npt.NDArray[np.bool_]) -> float:
    """Share of (good, defective) pairs whose scores are in order; a NaN is never in order."""
    mine, theirs = scores[good][:, None], scores[~good][None]
    return float(np.mean((mine < theirs) + 0.5 * (mine == theirs)))


def time_in_turns(trials: list[EngineTrial], batch: Frame8, count: int) -> Iterator[None]:
    """Run every trial once a round, and note its time; yields after each round.

    The order changes from round to round, so that a slow spell of the machine is shared by all.
    """
    chance = np.random.default_rng(0)
    for _ in range(count):
        for number in chance.permutation(len(trials)):
            trial = trials[number]
            begun = time.perf_counter()
            trial.detector.infer(batch)
            trial.times_ms.append((time.perf_counter() - begun) * 1e3)
        yield


def choose(trials: list[EngineTrial]) -> EngineTrial:
    """The fastest trial that keeps the verdicts; of several as fast the one with fewest threads."""
    kept = [trial for trial in trials if not trial.family.refused]
    limit = _AS_FAST * min(trial.median_ms for trial in kept)
    quick = [trial for trial in kept if trial.median_ms <= limit]
    return min(quick, key=lambda trial: (trial.engine.threads, trial.median_ms))
