"""Proof of parity: on real photos the exported file judges as the trained model does."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from export.data.dataset import Sample
from export.data.layouts import GOOD
from export.data.photos import RefusedPhotoError, load_sample
from export.evaluation.metrics import auroc
from export.training.scorer import Scorer
from inspector.detection.detector import Detector
from inspector.detection.manifest import Compared, Parity
from inspector.errors import ParityError
from inspector.imaging.geometry import Geometry
from inspector.verdict import FloatMap, Frame8, decide

TOLERANCE = {"fp32": 1e-3, "mixed": 1e-3, "fp16": math.inf, "int8": math.inf}
"""Largest difference of a score or a map pixel, in units of the limit."""

FLIPS = {"fp32": 0.0, "mixed": 0.0, "fp16": 0.005, "int8": 0.005}
"""Share of verdicts that may flip: differ between file and model."""

AUROC_CHANGE = 1e-3
"""By how much the image AUROC may fall where verdicts may flip."""

BATCH = 8


@dataclass
class _Tally:
    """Scores and differences on one kind of photos, good parts of the run or test photos."""

    scores: list[tuple[float, float]] = field(default_factory=list)
    """A photo's score by the trained model, and by the file."""
    defective: list[bool] = field(default_factory=list)
    score_gap: float = 0.0
    map_gap: float = 0.0
    worst: Path | None = None

    @property
    def flips(self) -> int:
        return sum(decide(a)[0] is not decide(b)[0] for a, b in self.scores)

    def summary(self) -> Compared | None:
        if not self.scores:
            return None
        return Compared(
            images=len(self.scores),
            verdict_flips=self.flips,
            largest_score_difference=self.score_gap,
            largest_map_difference=self.map_gap,
        )


def prove(
    detector: Detector,
    scorer: Scorer,
    validation: Sequence[Sample],
    test: Sequence[Sample],
    geometry: Geometry,
    *,
    precision: str,
    on_image: Callable[[int], None],
) -> Parity:
    """Judge every photo by PyTorch and by ``detector``, the class that the line uses, and compare.

    ``validation`` holds the run's good parts. Raises :class:`ParityError` when a score or a map
    differs by more than the tolerance, when more verdicts flip on either kind of photos than the
    precision may, or when the image AUROC falls further than it may.
    """
    tallies = []
    done = 0
    for samples in (validation, test):
        tally = _Tally()
        tallies.append(tally)
        for chosen, images in _batches(samples, geometry):
            _compare(tally, chosen, scorer(images), detector.infer(images))
            done += len(chosen)
            on_image(done)
    everything = _Tally(
        [pair for tally in tallies for pair in tally.scores],
        [bad for tally in tallies for bad in tally.defective],
        max(tally.score_gap for tally in tallies),
        max(tally.map_gap for tally in tallies),
        max(tallies, key=lambda tally: tally.map_gap).worst,
    )
    found, bad = np.array(everything.scores), np.array(everything.defective, dtype=bool)
    before, after = (auroc(column[~bad], column[bad]) for column in found.T)
    change = None if before is None or after is None else after - before
    largest = max(everything.map_gap, everything.score_gap)
    tolerance, most_flips = TOLERANCE[precision], FLIPS[precision]
    if not (math.isfinite(largest) and largest <= tolerance) or any(
        not tally.flips <= most_flips * len(tally.scores) for tally in tallies
    ):
        allowed = f"{most_flips:.1%} may" if most_flips else f"{tolerance:g} allowed"
        raise ParityError(
            f"the file does not judge as the trained model does: {everything.flips} of {done} "
            f"verdicts differ, largest difference {largest:.2g} of the limit ({allowed}), worst on "
            f"{everything.worst}{_no_file(precision)}"
        )
    if most_flips and change is not None and change < -AUROC_CHANGE:
        raise ParityError(
            f"the file tells defects less well than the trained model: image AUROC {change:+.4f} "
            f"on {done} photos ({-AUROC_CHANGE:g} allowed){_no_file(precision)}"
        )
    return Parity(
        images=done,
        largest_score_difference=everything.score_gap,
        largest_map_difference=everything.map_gap,
        verdict_flips=everything.flips,
        tolerance=tolerance if math.isfinite(tolerance) else None,
        flips_allowed=most_flips,
        provider=detector.provider,
        auroc_change=change,
        validation=tallies[0].summary(),
        test=tallies[1].summary(),
    )


def _no_file(precision: str) -> str:
    """The end of a refusal: the cause if it is known, that no file was written, and the cure."""
    cause, cure = "", "use --precision fp32"
    if precision == "fp32":
        cure = "export it on another machine"
    elif precision == "int8":
        from export.bundle.quantise import products_saturate

        if products_saturate():
            cause = "; 8-bit products saturate on this machine's processor, which has no VNNI"
            cure += " or mixed"
    return f"{cause}; no file was written; {cure}"


def _compare(
    tally: _Tally,
    chosen: list[Sample],
    ours: tuple[FloatMap, FloatMap],
    theirs: tuple[FloatMap, FloatMap],
) -> None:
    gaps = np.abs(ours[1] - theirs[1]).max(axis=(1, 2))
    # NaN on one side only must not compare as equal.
    gaps = np.where(np.isfinite(gaps), gaps, np.inf)
    if gaps.max() >= tally.map_gap:
        tally.map_gap, tally.worst = float(gaps.max()), chosen[int(gaps.argmax())].path
    tally.score_gap = max(tally.score_gap, float(np.abs(ours[0] - theirs[0]).max()))
    tally.scores += zip(ours[0].tolist(), theirs[0].tolist(), strict=True)
    tally.defective += [sample.kind != GOOD for sample in chosen]


def _batches(
    samples: Iterable[Sample], geometry: Geometry
) -> Iterator[tuple[list[Sample], Frame8]]:
    chosen: list[Sample] = []
    images: list[Frame8] = []
    for sample in samples:
        try:
            images.append(load_sample(sample, geometry).image)
        except RefusedPhotoError:
            # Neither the model nor the file judges such a photo: on the line it is a FAULT.
            continue
        chosen.append(sample)
        if len(images) == BATCH:
            yield chosen, np.stack(images)
            chosen, images = [], []
    if images:
        yield chosen, np.stack(images)
