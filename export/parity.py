"""Proof that the exported file judges as the trained model does, on real photos."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from export.dataset import RefusedPhotoError, Sample, load_sample
from export.train import Scorer
from inspector.bundle import Parity
from inspector.detector import Detector
from inspector.errors import ParityError
from inspector.frame import Geometry
from inspector.verdict import Frame8, decide

TOLERANCE = {"fp32": 1e-3, "fp16": 2e-2}
"""Largest difference of a score or a map pixel, in units of the limit."""

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

    Raises :class:`ParityError` for a verdict that flips or a difference above the tolerance.
    """
    count, flips, score_gap, map_gap = 0, 0, 0.0, 0.0
    worst: Path | None = None
    for paths, images in _batches(samples, geometry):
        ours, our_maps = scorer(images)
        theirs, their_maps = detector.infer(images)
        gaps = np.abs(our_maps - their_maps).max(axis=(1, 2))
        # NaN on one side only must not compare as equal.
        gaps = np.where(np.isfinite(gaps), gaps, np.inf)
        if gaps.max() >= map_gap:
            map_gap, worst = float(gaps.max()), paths[int(gaps.argmax())]
        score_gap = max(score_gap, float(np.abs(ours - theirs).max()))
        flips += sum(
            decide(float(a))[0] is not decide(float(b))[0]
            for a, b in zip(ours, theirs, strict=True)
        )
        count += len(images)
        on_image(count)
    tolerance = TOLERANCE[precision]
    if flips or max(map_gap, score_gap) > tolerance:
        raise ParityError(
            f"exported graph disagrees with the trained model on {count} photos: {flips} verdicts "
            f"flip, largest difference {max(map_gap, score_gap):.2g} of the limit (allowed "
            f"{tolerance:g}), worst on {worst}; no file was written"
        )
    return Parity(
        images=count,
        largest_score_difference=score_gap,
        largest_map_difference=map_gap,
        verdict_flips=flips,
        tolerance=tolerance,
        provider=detector.provider,
    )


def _batches(samples: Iterable[Sample], geometry: Geometry) -> Iterator[tuple[list[Path], Frame8]]:
    paths: list[Path] = []
    images: list[Frame8] = []
    for sample in samples:
        try:
            images.append(load_sample(sample, geometry).image)
        except RefusedPhotoError:
            # Neither side ever sees it: on the line such a frame is a FAULT.
            continue
        paths.append(sample.path)
        if len(images) == BATCH:
            yield paths, np.stack(images)
            paths, images = [], []
    if images:
        yield paths, np.stack(images)
