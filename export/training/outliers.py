"""Good parts that look unlike the others: defects may be among the photos that training takes.

Two scores of each part are looked at. The held-out score is that of a model that has not seen the
part; but two parts with the same defect, in different folds, hide each other, and a part that is
never held out has none. So each part is also compared with the patches of all others at once, with
those of the one other part left out that most makes it look usual.

A part is named when so high a score is not to be expected of one more good part: the tail of the
scores is taken as exponential (as where a limit is extrapolated) with the distance from the median
to the 80 % quantile as its scale, which a tenth of all parts, were they defective, could not move
far. Of N good parts half a one at most is named on average, and none whose score is nearly usual.
"""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from export.data.photos import Index, one_each
from export.data.synthetic import defective
from export.model import cfa
from export.settings import TrainSettings
from export.training.run import Run, Scores, Suspect
from inspector.errors import RunError
from inspector.verdict import FloatMap, Frame8

TAIL_FROM: Final = 0.8
"""The scale of the tail is the distance from the median to this quantile of the scores."""
EXPECTED: Final = 0.25
"""So many good parts may be expected above the bound of each of the two scores."""

LEAST: Final = 1.2
"""A score below so many times the usual one is not named: where good parts are nearly alike, the
tail is so narrow that what lies beyond it may still be a usual part."""

ITEMS: Final = 2048
"""Patches of all parts that each part is compared with, the most different ones."""
POOL: Final = 60_000
"""Patches that these are chosen from, the same number of each part."""

SHOWN: Final = 12
"""Parts with the highest held-out scores whose maps are kept for the report."""
DRAWN: Final = 40
"""Synthetic defects by which limits are compared: five of each kind."""

MAPS: Final = "heldout-maps.npz"
"""File in a run's folder."""
_MAP_STEP: Final = 8
"""Kept maps have a value for each square of so many px of the network's input."""


class Features(Protocol):
    """Pooled features of the parts, as :class:`~export.model.features.FeatureCache` has them."""

    def batch(self, index: Index) -> cfa.Levels:
        """Those of the parts ``index``."""
        ...


class Comparison:
    """Every part compared with all others but the one that hides it most.

    ``scores`` float64 ``[N]`` (NaN for a copy of a part before it) and ``maps`` float32
    ``[N, h, w]`` are raw distances, smoothed as a scorer's are; a map has a value for each 8 px.
    """

    def __init__(
        self,
        model: cfa.CFA,
        features: Features,
        picture: Index,
        settings: TrainSettings,
        on_part: Callable[[int, int], None],
    ) -> None:
        """``picture`` ``[N]``: copies of one picture are one part (``group_copies``)."""
        self._grid = settings.grid
        self._model, self._features, self._picture = model, features, picture
        self._rows, self._columns = (
            torch.from_numpy(
                cfa.smoothing(grid, side, settings.sigma_px)[_MAP_STEP // 2 :: _MAP_STEP]
            )
            for grid, side in zip(settings.grid, settings.input, strict=True)
        )
        bank, owner = self._choose(settings.seed)
        shape = len(picture), len(self._rows), len(self._columns)
        self.scores: Scores = np.full(len(picture), np.nan)
        self.maps = np.zeros(shape, dtype=np.float32)
        parts = one_each(np.arange(len(picture)), picture)
        for done, part in enumerate(parts.tolist(), start=1):
            heat = self._compare(part, bank, owner)
            self.scores[part], self.maps[part] = heat.max(), heat
            on_part(done, len(parts))

    @torch.no_grad()
    def _patches(self, part: int) -> Tensor:
        """``[T, D']`` of one part."""
        return cfa.flatten(self._model.descriptor(self._features.batch(np.array([part]))))

    def _choose(self, seed: int) -> tuple[Tensor, Tensor]:
        """Items ``[M, D']`` of a memory bank of all parts, and the picture that each is from."""
        generator = torch.Generator().manual_seed(seed)
        drawn, owners = [], []
        for part, picture in enumerate(self._picture):
            patches = self._patches(part)
            most = max(1, POOL // len(self._picture))
            some = torch.randperm(len(patches), generator=generator)[:most].to(patches.device)
            drawn.append(patches[some])
            owners.append(torch.full((len(some),), int(picture), device=patches.device))
        pool, owner = torch.cat(drawn), torch.cat(owners)
        if len(pool) > ITEMS:
            chosen = cfa.farthest_first(pool, ITEMS)
            pool, owner = pool[chosen], owner[chosen]
        return pool, owner

    def _compare(self, part: int, bank: Tensor, owner: Tensor) -> npt.NDArray[np.float64]:
        patches, own = self._patches(part), int(self._picture[part])
        squared = torch.cdist(patches, bank).square()
        pictures = int(self._picture.max()) + 1
        nearest = squared.new_full((len(patches), pictures), math.inf).scatter_reduce(
            1, owner.expand(len(patches), -1), squared, "amin"
        )
        nearest[:, own] = math.inf
        two, of = nearest.topk(2, dim=1, largest=False)
        # A picture may own no item, so that there is no second one.
        two = two.nan_to_num(posinf=float(two[torch.isfinite(two)].max())).sqrt()
        hiding = torch.unique(of[:, 0])
        maps = torch.where(of[:, 0] == hiding[:, None], two[:, 1], two[:, 0])
        maps = maps.view(-1, *self._grid).double().cpu()
        smooth = self._rows @ maps @ self._columns.T
        highest = int(smooth.amax(dim=(1, 2)).argmax())
        return np.asarray(smooth[highest].numpy(), dtype=np.float64)


def bound(scores: Scores, expected: float = EXPECTED) -> float:
    """The score that ``expected`` of so many good parts exceed, by the rule of this module."""
    median, high = np.quantile(scores, [0.5, TAIL_FROM])
    doubles = math.log(0.5 * len(scores) / expected) / math.log(0.5 / (1.0 - TAIL_FROM))
    return float(max(median + (high - median) * max(doubles, 0.0), LEAST * median))


def find_suspects(names: Sequence[str], held_out: Scores, compared: Scores) -> tuple[Suspect, ...]:
    """The parts to look at, the most unusual first.

    ``held_out`` and ``compared`` are both ``[N]``; NaN for a part that has no score: one that was
    never held out, or a copy of another one.
    """
    times = np.zeros(len(names))
    named = np.zeros(len(names), dtype=np.bool_)
    for scores in (held_out, compared):
        known = np.flatnonzero(np.isfinite(scores))
        named[known] |= scores[known] > bound(scores[known])
        usual = max(float(np.median(scores[known])), 1e-12)
        times[known] = np.maximum(times[known], scores[known] / usual)
    ranked = sorted(np.flatnonzero(named).tolist(), key=lambda part: -times[part])
    return tuple(Suspect(name=names[part], times=round(float(times[part]), 2)) for part in ranked)


class Maps(Protocol):
    """The maps of a model that has not seen the parts of a fold."""

    def maps(self, levels: cfa.Levels) -> Tensor:
        """Smoothed maps ``[N, H, W]``, raw distances."""
        ...


def keep_maps(
    run: Run,
    names: Sequence[str],
    highest: Sequence[tuple[int, int]],
    suspects: Sequence[Suspect],
    *,
    features: Features,
    comparison: Comparison,
    tester: Callable[[int], Maps],
) -> None:
    """Keep in the run what a report shows of its good parts: the suspects and the highest scores.

    ``highest`` has (part, fold) of the parts with the highest held-out scores; ``tester`` gives a
    fold's model. A suspect's map is that of ``comparison``, in which no other part hides it.
    """
    place = {name: part for part, name in enumerate(names)}
    kept: dict[str, FloatMap] = {
        suspect.name: comparison.maps[place[suspect.name]] for suspect in suspects[:SHOWN]
    }
    step = slice(_MAP_STEP // 2, None, _MAP_STEP)
    for fold in sorted({fold for _, fold in highest}):
        parts = [part for part, of in highest if of == fold]
        maps = tester(fold).maps(features.batch(np.array(parts)))[:, step, step].cpu().numpy()
        kept |= {
            names[part]: heat.astype(np.float32)
            for part, heat in zip(parts, maps, strict=True)
            if names[part] not in kept
        }
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer, names=np.array(list(kept), dtype=np.str_), maps=np.stack(list(kept.values()))
    )
    run.write(MAPS, buffer.getvalue())


def read_maps(run: Run, size: tuple[int, int]) -> dict[str, FloatMap]:
    """The kept maps by name, float32 ``[H, W]`` of ``size``, raw; none in a run without them.

    Raises :class:`RunError` when the file is damaged.
    """
    import cv2

    path = run.folder / MAPS
    if not path.exists():
        return {}
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
            names, maps = file["names"].tolist(), file["maps"].astype(np.float32)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, EOFError):
        raise RunError(
            f"{path}: damaged; remove it, and the report leaves these maps out"
        ) from None
    height, width = size
    return {
        name: np.asarray(cv2.resize(heat, (width, height), interpolation=cv2.INTER_LINEAR))
        for name, heat in zip(names, maps, strict=True)
    }


def measure_drawn(
    measure: Callable[[Frame8], FloatMap],
    images: Frame8,
    seed: int,
    on_defect: Callable[[int, int], None],
) -> FloatMap:
    """What ``measure`` finds of synthetic defects drawn on ``images``, uint8 BGR ``[N, H, W, 3]``.

    It returns distances ``[n, H', W']`` of ``n`` pictures, and so does this. The images are of
    parts that its model has not seen; each may get several defects.
    """
    drawn = list(defective([images[i % len(images)] for i in range(DRAWN)], seed))
    found: list[FloatMap] = []
    for start in range(0, DRAWN, 8):
        batch = np.stack([made.image for made in drawn[start : start + 8]])
        found += list(measure(batch))
        on_defect(len(found), DRAWN)
    return np.stack(found)
