"""Proof that the exported file judges as the trained model does, on real photos."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from export.dataset import GOOD, RefusedPhotoError, Sample, load_sample
from export.metrics import auroc
from export.train import Scorer
from inspector.bundle import Parity
from inspector.detector import Detector
from inspector.errors import ParityError
from inspector.frame import Geometry
from inspector.verdict import Frame8, decide

TOLERANCE = {"fp32": 1e-3, "fp16": 2e-2, "int8": math.inf}
"""Largest difference of a score or a map pixel, in units of the limit."""

FLIPS = {"fp32": 0.0, "fp16": 0.0, "int8": 0.005}
"""Share of verdicts that may flip."""

AUROC_CHANGE = 1e-3
"""By how much the image AUROC may fall where verdicts may flip."""

BATCH = 8


def prove(
    detector: Detector,
    scorer: Scorer,
    samples: Iterable[Sample],
    geometry: Geometry,
    *,
    precision: str,
    on_image: Callable[[int], None],
) -> Parity:
    """Every photo through PyTorch and through ``detector``, the class the line uses.

    Raises :class:`ParityError` for a difference above the tolerance, and for more flipped verdicts
    or a lower image AUROC than the precision may have.
    """
    score_gap, map_gap = 0.0, 0.0
    worst: Path | None = None
    scores: list[tuple[float, float]] = []
    defective: list[bool] = []
    for chosen, images in _batches(samples, geometry):
        ours, our_maps = scorer(images)
        theirs, their_maps = detector.infer(images)
        gaps = np.abs(our_maps - their_maps).max(axis=(1, 2))
        # NaN on one side only must not compare as equal.
        gaps = np.where(np.isfinite(gaps), gaps, np.inf)
        if gaps.max() >= map_gap:
            map_gap, worst = float(gaps.max()), chosen[int(gaps.argmax())].path
        score_gap = max(score_gap, float(np.abs(ours - theirs).max()))
        scores += zip(ours.tolist(), theirs.tolist(), strict=True)
        defective += [sample.kind != GOOD for sample in chosen]
        on_image(len(scores))
    flips = sum(decide(a)[0] is not decide(b)[0] for a, b in scores)
    found, bad = np.array(scores), np.array(defective, dtype=bool)
    before, after = (auroc(column[~bad], column[bad]) for column in found.T)
    change = None if before is None or after is None else after - before
    tolerance, most_flips = TOLERANCE[precision], FLIPS[precision]
    if not max(map_gap, score_gap) <= tolerance or not flips <= most_flips * len(scores):
        allowed = f"{most_flips:.1%} may" if most_flips else f"{tolerance:g} allowed"
        raise ParityError(
            f"exported graph disagrees with the trained model on {len(scores)} photos: {flips} "
            f"verdicts flip, largest difference {max(map_gap, score_gap):.2g} of the limit "
            f"({allowed}), worst on {worst}; no file was written; "
            f"{'use --precision fp32' if precision != 'fp32' else 'export it on another machine'}"
        )
    if most_flips and change is not None and change < -AUROC_CHANGE:
        raise ParityError(
            f"exported graph tells defects worse than the trained model: image AUROC {change:+.4f} "
            f"on {len(scores)} photos ({-AUROC_CHANGE:g} allowed); no file was written; use "
            f"--precision fp32"
        )
    return Parity(
        images=len(scores),
        largest_score_difference=score_gap,
        largest_map_difference=map_gap,
        verdict_flips=flips,
        tolerance=tolerance if math.isfinite(tolerance) else None,
        flips_allowed=most_flips,
        provider=detector.provider,
        auroc_change=change,
    )


def _batches(
    samples: Iterable[Sample], geometry: Geometry
) -> Iterator[tuple[list[Sample], Frame8]]:
    chosen: list[Sample] = []
    images: list[Frame8] = []
    for sample in samples:
        try:
            images.append(load_sample(sample, geometry).image)
        except RefusedPhotoError:
            # Neither side ever sees it: on the line such a frame is a FAULT.
            continue
        chosen.append(sample)
        if len(images) == BATCH:
            yield chosen, np.stack(images)
            chosen, images = [], []
    if images:
        yield chosen, np.stack(images)
