"""Judges the test photos for a report; memory does not grow with their number."""

from __future__ import annotations

import csv
import heapq
import io
import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from export.data.dataset import Mask, Sample
from export.data.layouts import GOOD
from export.data.photos import Loaded, OnProgress, RefusedPhotoError, load_sample
from export.evaluation import metrics
from inspector.files import write_output
from inspector.imaging.geometry import Geometry
from inspector.imaging.heatmaps import map_to_grey
from inspector.shown import cell
from inspector.verdict import Frame8, Verdict, decide

ScoreBatch = Callable[[Frame8], tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]]
"""Uint8 BGR ``[N, H, W, 3]`` to scores float32 ``[N]`` and maps float32 ``[N, H, W]``."""

BATCH_SIZE: Final = 8
GALLERY_SIZE: Final = 12
"""Pictures kept for each gallery: the worst, or the closest to the limit."""


@dataclass(frozen=True)
class Row:
    """One judged photo. ``path`` is relative to the data set's root when that was given."""

    path: str
    kind: str
    score: float
    verdict: Verdict


@dataclass(frozen=True)
class RankedPicture:
    """A row with its picture: ``image`` uint8 BGR, ``heat`` uint8 (128 is the limit)."""

    row: Row
    image: Frame8
    heat: Frame8
    mask: Mask | None


@dataclass(frozen=True)
class Evaluation:
    """The model's verdicts, scores and figures on the test photos.

    ``good`` are the good parts with the highest scores, ``missed`` the defective ones with the
    lowest, ``caught`` those with the highest; each has at most :data:`GALLERY_SIZE` pictures.
    ``unmasked`` counts defective photos that have no mask, so that no pixel figure has them.
    """

    rows: tuple[Row, ...]
    geometry: Geometry
    pixels: metrics.PixelFigures
    unmasked: int
    good: tuple[RankedPicture, ...]
    missed: tuple[RankedPicture, ...]
    caught: tuple[RankedPicture, ...]

    @property
    def faults(self) -> tuple[Row, ...]:
        """Photos that could not be judged; no rate and no curve counts them."""
        return tuple(row for row in self.rows if row.verdict is Verdict.FAULT)

    @property
    def good_scores(self) -> tuple[float, ...]:
        """Scores of the good parts that could be judged."""
        return tuple(row.score for row in self._judged() if row.kind == GOOD)

    @property
    def defective_scores(self) -> tuple[float, ...]:
        """Scores of the defective parts that could be judged."""
        return tuple(row.score for row in self._judged() if row.kind != GOOD)

    @property
    def false_rejects(self) -> metrics.Rate:
        """Good parts that FAIL."""
        good = [row.verdict for row in self._judged() if row.kind == GOOD]
        return metrics.Rate(good.count(Verdict.FAIL), len(good))

    @property
    def escapes(self) -> metrics.Rate:
        """Defective parts that PASS."""
        defective = [row.verdict for row in self._judged() if row.kind != GOOD]
        return metrics.Rate(defective.count(Verdict.PASS), len(defective))

    @property
    def kinds(self) -> tuple[metrics.KindFigures, ...]:
        """Each kind of defect, by name."""
        good = self.good_scores
        figures = []
        for kind in sorted({row.kind for row in self.rows} - {GOOD}):
            rows = [row for row in self.rows if row.kind == kind]
            scores = [row.score for row in rows if row.verdict is not Verdict.FAULT]
            figures.append(metrics.kind_figures(kind, scores, len(rows) - len(scores), good))
        return tuple(figures)

    def summary(self) -> dict[str, float]:
        """The figures of the manifest: finite, and absent when undefined."""
        good, defective = self.good_scores, self.defective_scores
        # Without good parts every limit looks better the lower it lies.
        has_both = bool(good and defective)
        best = metrics.best_f1(good, defective) if has_both else None
        figures: dict[str, float | None] = {
            "image_auroc": metrics.auroc(good, defective),
            "pixel_auroc": self.pixels.auroc,
            "aupro": self.pixels.aupro,
            "f1": metrics.f1(good, defective) if has_both else None,
            "f1_best": best[0] if best else None,
            "f1_best_threshold": best[1] if best else None,
            "false_reject_rate": self.false_rejects.value,
            "escape_rate": self.escapes.value,
        }
        if self.rows:
            figures |= {
                "good_parts": len(good),
                "defective_parts": len(defective),
                "false_rejects": self.false_rejects.hits,
                "escapes": self.escapes.hits,
                "faults": len(self.faults),
            }
        return {
            name: float(value)
            for name, value in figures.items()
            if value is not None and math.isfinite(value)
        }

    def write_csv(self, path: Path) -> None:
        """Path, kind, score and verdict of every photo. Raises :class:`OutputError`.

        The score is written so that reading it gives the same float; it is empty on FAULT.
        """
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(("path", "kind", "score", "verdict"))
        for row in self.rows:
            score = repr(row.score) if row.verdict is not Verdict.FAULT else ""
            writer.writerow((cell(row.path), cell(row.kind), score, row.verdict.value))
        write_output(path, text.getvalue())

    def _judged(self) -> Iterable[Row]:
        return (row for row in self.rows if row.verdict is not Verdict.FAULT)


def evaluate(
    samples: Sequence[Sample],
    score_fn: ScoreBatch,
    geometry: Geometry,
    on_progress: OnProgress | None = None,
    *,
    root: Path | None = None,
    batch_size: int = BATCH_SIZE,
) -> Evaluation:
    """Judge ``samples`` in order; paths in the result are relative to ``root``.

    A photo that ``geometry`` refuses is a FAULT, as on the line. Raises :class:`ImageError` and
    :class:`MaskError` naming the file.
    """
    rows: list[Row] = []
    pixels = metrics.PixelTally()
    unmasked = 0
    good, missed, caught = _Best(GALLERY_SIZE), _Best(GALLERY_SIZE), _Best(GALLERY_SIZE)
    for start in range(0, len(samples), batch_size):
        batch = samples[start : start + batch_size]
        loaded = [_load(sample, geometry) for sample in batch]
        images = [part.image for part in loaded if part is not None]
        answers = zip(*score_fn(np.stack(images)), strict=True) if images else iter(())
        for sample, part in zip(batch, loaded, strict=True):
            if part is None:
                name = _name(sample.path, root)
                rows.append(Row(name, sample.kind, math.nan, Verdict.FAULT))
                continue
            score, heat = next(answers)
            verdict, _ = decide(float(score))
            row = Row(_name(sample.path, root), sample.kind, float(score), verdict)
            rows.append(row)
            if sample.kind != GOOD and part.mask is None:
                unmasked += 1
            if verdict is not Verdict.FAULT:
                if part.mask is not None:
                    # The reflection around a letterboxed photo counts in no pixel figure.
                    pixels.add(heat[part.inner], part.mask[part.inner])
                picture = RankedPicture(row, part.image, map_to_grey(heat), part.mask)
                if sample.kind == GOOD:
                    good.offer(row.score, picture)
                else:
                    missed.offer(-row.score, picture)
                    caught.offer(row.score, picture)
        if on_progress is not None:
            on_progress(len(rows), len(samples))
    return Evaluation(
        tuple(rows),
        geometry,
        pixels.figures(),
        unmasked,
        good.ranked(),
        missed.ranked(),
        caught.ranked(),
    )


class _Best:
    """The pictures with the highest rank seen so far; the first seen wins a tie."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._order = itertools.count()
        self._kept: list[tuple[float, int, RankedPicture]] = []

    def offer(self, rank: float, picture: RankedPicture) -> None:
        if len(self._kept) < self._size:
            heapq.heappush(self._kept, (rank, -next(self._order), picture))
        elif rank > self._kept[0][0]:
            heapq.heapreplace(self._kept, (rank, -next(self._order), picture))

    def ranked(self) -> tuple[RankedPicture, ...]:
        return tuple(picture for _, _, picture in sorted(self._kept, key=lambda k: k[:2])[::-1])


def _load(sample: Sample, geometry: Geometry) -> Loaded | None:
    """None for a photo that ``geometry`` refuses."""
    try:
        return load_sample(sample, geometry)
    except RefusedPhotoError:
        return None


def _name(path: Path, root: Path | None) -> str:
    return (path.relative_to(root) if root is not None else path).as_posix()
