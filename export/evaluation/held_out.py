"""Good parts as a report shows them: those to look at, and those with the highest scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from export.data.photos import PhotoFile
from export.evaluation.evaluate import RankedPicture, Row
from export.training.outliers import SHOWN, read_maps
from export.training.run import Run
from inspector.errors import ImageError
from inspector.imaging.heatmaps import map_to_grey
from inspector.verdict import decide


@dataclass(frozen=True)
class GoodPictures:
    """Pictures of good parts with maps of models that have not seen them.

    ``suspects`` look unlike the others; ``highest`` have the highest held-out scores. A photo that
    is no longer where it was is left out.
    """

    suspects: tuple[RankedPicture, ...] = ()
    highest: tuple[RankedPicture, ...] = ()


def read_good_pictures(run: Run, data: Path) -> GoodPictures:
    """What the run kept for its report; ``data`` holds its photos. Raises :class:`RunError`."""
    facts, outcome = run.facts(), run.outcome()
    limit = outcome.calibration.threshold
    maps = read_maps(run, facts.settings.input)
    names, _, scores = run.held_out_parts()
    score_of = dict(zip(names, scores, strict=True))

    def pictures(shown: Sequence[str]) -> tuple[RankedPicture, ...]:
        found = []
        for name in shown:
            heat = maps.get(name)
            path = data / name
            if heat is None or not path.is_file():
                continue
            try:
                image = PhotoFile(path).apply(facts.geometry)
            except ImageError:
                # The report is of the run; photos that were changed since have no place in it.
                continue
            score = score_of.get(name, float(heat.max())) / limit
            row = Row(name, "good part", float(score), decide(float(score))[0])
            found.append(RankedPicture(row, image, map_to_grey(heat / np.float32(limit)), None))
        return tuple(found)

    ranked = [names[i] for i in np.argsort(-scores, kind="stable")[:SHOWN]]
    return GoodPictures(
        pictures([suspect.name for suspect in outcome.suspects[:SHOWN]]), pictures(ranked)
    )
