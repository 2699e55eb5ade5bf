"""PatchCore and PaDiM, on the very features, geometry and input size of our model."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.accuracy.fitting import Fit, GoodParts, Index, Trained, pooled
from export.model import cfa
from export.settings import TrainSettings
from export.training import calibrate
from export.training.train import OnStep, Step

Batches = Callable[[], Iterator[Tensor]]
"""Iterates over patch features ``[N, D, H', W']`` of good parts, the same order each time."""

CORESET_SHARE, CORESET_MOST = 0.1, 10_000
CORESET_POOL = 100_000
PROJECTED = 128
REWEIGHTING_NEIGHBOURS = 9
PADIM_CHANNELS = 100
PADIM_SHRINKAGE = 0.01

_CHUNK = 4096
"""Patches compared with a bank, or positions inverted, at a time: bounds memory."""


class Rival(Protocol):
    """A model on patch features. ``floats`` is the count it must ship beside the backbone."""

    items: int
    floats: int

    def score(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        """``[N, D, H', W']`` → image scores ``[N]`` and maps ``[N, H, W]``."""
        ...


class Target(NamedTuple):
    """Maps are brought to ``size`` (H, W) and smoothed with ``sigma`` input pixels."""

    size: tuple[int, int]
    sigma: float


MakeRival = Callable[[Batches, int, Target, int, OnStep], Rival]
"""Features of good parts, their number, the maps' target, a seed, progress → a model."""


class Maps:
    """Patch scores ``[N, h, w]`` brought to the input size and smoothed, as ours are."""

    def __init__(self, grid: tuple[int, int], target: Target, device: torch.device) -> None:
        self._rows, self._columns = (
            torch.from_numpy(cfa.smoothing(cells, pixels, target.sigma)).to(device, torch.float32)
            for cells, pixels in zip(grid, target.size, strict=True)
        )

    def __call__(self, scores: Tensor) -> Tensor:
        out: Tensor = self._rows @ scores @ self._columns.T
        return out


class PatchCore:
    """PatchCore (Roth et al., CVPR 2022): nearest neighbours in a greedy coreset of all patches.

    The bank holds 10 % of all patches, at most 10,000. As in the authors' code the coreset is
    chosen on a random projection to 128 dimensions; beyond that it is chosen from a uniform sample
    of at most 100,000 patches, so that it ends in minutes whatever the data set. ``pooled``: the
    features are averaged to this grid first.
    """

    def __init__(self, bank: Tensor, maps: Maps, pooled: tuple[int, int] | None) -> None:
        self.bank, self.maps, self.pooled = bank, maps, pooled
        self.items, self.floats = len(bank), bank.numel()

    @classmethod
    def fit(
        cls,
        batches: Batches,
        images: int,
        target: Target,
        seed: int,
        on_step: OnStep,
        *,
        pooled: tuple[int, int] | None = None,
    ) -> PatchCore:
        """On ``images`` good parts."""
        generator = torch.Generator().manual_seed(seed)
        sample: list[Tensor] = []
        first = 0
        for batch in batches():
            patches = cfa.flatten(_to_grid(batch, pooled))
            if first == 0:
                grid = pooled or (batch.shape[2], batch.shape[3])
                total = images * math.prod(grid)
                wanted = torch.randperm(total, generator=generator)[:CORESET_POOL].sort().values
            low, high = torch.searchsorted(wanted, torch.tensor([first, first + len(patches)]))
            sample.append(patches[(wanted[low:high] - first).to(patches.device)])
            first += len(patches)
        points = torch.cat(sample)
        items = min(CORESET_MOST, max(1, round(CORESET_SHARE * total)))
        on_step(Step("coreset", 0, 1))
        chosen = cfa.farthest_first(_projected(points, generator), min(items, len(points)))
        return cls(points[chosen], Maps(grid, target, points.device), pooled)

    def score(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        """The map is not reweighted, the image score is: its highest patch's."""
        patches = _to_grid(patches, self.pooled)
        points = cfa.flatten(patches)
        found = [cfa.find_nearest(part, self.bank, 1) for part in torch.split(points, _CHUNK)]
        squared, nearest = (torch.cat(column)[:, 0] for column in zip(*found, strict=True))
        distance = squared.sqrt()
        per_image = distance.view(len(patches), -1)
        peaks = (
            per_image.argmax(dim=1)
            + torch.arange(len(patches), device=points.device) * per_image.shape[1]
        )
        scores = torch.stack(
            [reweighted(points[peak], int(nearest[peak]), self.bank) for peak in peaks.tolist()]
        )
        return scores, self.maps(distance.view(len(patches), *patches.shape[2:]))


def reweighted(patch: Tensor, nearest: int, bank: Tensor) -> Tensor:
    """The image score of ``patch`` ``[D]``, the photo's farthest, ``nearest`` its bank item.

    Its distance, times one minus the softmax over the item's 9 nearest in the bank (itself first)
    of their distances to ``patch``: equation 7.
    """
    count = min(REWEIGHTING_NEIGHBOURS, len(bank))
    distance: Tensor = torch.linalg.vector_norm(patch - bank[nearest])
    if count < 2:
        return distance
    around = (bank - bank[nearest]).square().sum(dim=1)
    # Itself first, also where the bank holds a copy.
    around[nearest] = -1.0
    support = bank[around.topk(count, largest=False).indices]
    weights = torch.softmax(torch.linalg.vector_norm(patch - support, dim=1), dim=0)
    return (1.0 - weights[0]) * distance


def _projected(points: Tensor, generator: torch.Generator) -> Tensor:
    """``[P, D]`` on at most 128 random directions."""
    if points.shape[1] <= PROJECTED:
        return points
    matrix = torch.randn(points.shape[1], PROJECTED, generator=generator) / PROJECTED**0.5
    return points @ matrix.to(points)


class PaDiM:
    """PaDiM (Defard et al., ICPR 2021): a Gaussian at every position of the grid.

    On a random 100 of the channels when there are more; covariances get 0.01 on their diagonal;
    a patch scores its Mahalanobis distance, a photo its smoothed map's maximum.
    """

    def __init__(self, mean: Tensor, whiten: Tensor, channels: Tensor, maps: Maps) -> None:
        """``mean`` ``[P, d]``; ``whiten`` ``[P, d, d]``: inverses of covariances' lower factors."""
        self.mean, self.whiten, self.channels, self.maps = mean, whiten, channels, maps
        positions, width = mean.shape
        self.items = positions
        self.floats = positions * (width + width * (width + 1) // 2)

    @classmethod
    def fit(
        cls, batches: Batches, images: int, target: Target, seed: int, on_step: OnStep
    ) -> PaDiM:
        """On ``images`` good parts."""
        generator = torch.Generator().manual_seed(seed)
        total: Tensor | None = None
        done = 0
        for batch in batches():
            if total is None:
                width = batch.shape[1]
                channels = torch.randperm(width, generator=generator)[:PADIM_CHANNELS].sort().values
                channels = channels.to(batch.device)
                grid = (batch.shape[2], batch.shape[3])
            x = batch[:, channels].flatten(2).double()
            if total is None:
                # Second moments about a value close to the mean keep their digits.
                origin = x.mean(dim=0)
                total = torch.zeros_like(origin)
                second = x.new_zeros(x.shape[2], x.shape[1], x.shape[1])
            x = x - origin
            total += x.sum(dim=0)
            second.baddbmm_(x.permute(2, 1, 0), x.permute(2, 0, 1))
            done += len(x)
            on_step(Step("gaussians", done, images))
        assert total is not None
        mean = (total / images).T
        whiten = torch.empty(second.shape, dtype=torch.float32, device=second.device)
        ridge = PADIM_SHRINKAGE * torch.eye(second.shape[1]).to(second)
        for part in torch.split(torch.arange(len(second), device=second.device), _CHUNK // 4):
            outer = mean[part, :, None] * mean[part, None, :]
            covariance = (second[part] - images * outer) / (images - 1) + ridge
            factor = torch.linalg.cholesky(covariance)
            whiten[part] = torch.linalg.solve_triangular(
                factor, torch.eye(len(ridge)).to(factor).expand_as(factor), upper=False
            ).float()
        return cls((mean + origin.T).float(), whiten, channels, Maps(grid, target, mean.device))

    def distances(self, patches: Tensor) -> Tensor:
        """Mahalanobis distance of every patch, ``[N, H', W']``."""
        x = patches[:, self.channels].flatten(2).permute(2, 1, 0) - self.mean.unsqueeze(2)
        distance: Tensor = torch.linalg.vector_norm(self.whiten @ x, dim=1)
        return distance.T.reshape(len(patches), *patches.shape[2:])

    def score(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        maps = self.maps(self.distances(patches))
        return maps.amax(dim=(1, 2)), maps


def patchcore_14(
    batches: Batches, images: int, target: Target, seed: int, on_step: OnStep
) -> PatchCore:
    """PatchCore on features averaged to a 14 × 14 grid."""
    return PatchCore.fit(batches, images, target, seed, on_step, pooled=(14, 14))


def concatenate(levels: cfa.Levels, grid: tuple[int, int]) -> Tensor:
    """Patch features ``[N, D, H', W']``: every level brought bilinearly to the finest grid."""
    return torch.cat([cfa.up_sample(level, grid) for level in levels], dim=1)


def _to_grid(patches: Tensor, grid: tuple[int, int] | None) -> Tensor:
    return patches if grid is None else F.adaptive_avg_pool2d(patches, grid)


def fitted(make: MakeRival) -> Fit:
    """A method of ``make``: fitted on all good parts, its limit cross-fitted as ours."""

    def fit(data: Path, folder: Path, chosen: TrainSettings, on_step: OnStep) -> Trained:
        with GoodParts(data, folder, chosen, on_step) as parts, torch.no_grad():
            chosen = parts.settings
            network, cache, grid = parts.backbone, parts.cache, chosen.grid
            target = Target(chosen.input, chosen.sigma_px)

            def build(index: Index, name: str) -> Rival:
                def told(step: Step) -> None:
                    on_step(Step(step.stage, step.done, step.total, name))

                def batches() -> Iterator[Tensor]:
                    return (concatenate(levels, grid) for levels in cache.batches(index))

                return make(batches, len(index), target, chosen.seed, told)

            everything = np.arange(len(cache))
            held = parts.folds(chosen.folds)
            scores = []
            for number, index in enumerate(held):
                rest = np.setdiff1d(everything, index)
                tester = build(rest, f"fold {number + 1} of {len(held)}")
                found = [
                    tester.score(concatenate(levels, grid))[0].cpu()
                    for levels in cache.batches(parts.one_each(index))
                ]
                scores.append(torch.cat(found).double().numpy())
            rival = build(everything, "service")
            calibration = calibrate.calibrate(scores, chosen.false_reject)

            def head(levels: cfa.Levels) -> tuple[Tensor, Tensor]:
                values, maps = rival.score(concatenate(levels, grid))
                return values / calibration.threshold, maps / calibration.threshold

            weights = sum(v.numel() for v in network.network.state_dict().values())
            return Trained(
                features=pooled(network, parts.device),
                head=head,
                settings=chosen,
                geometry=parts.geometry,
                calibration=calibration,
                seconds=parts.seconds(),
                items=rival.items,
                megabytes=4 * (weights + rival.floats) / 1e6,
                limit_from=f"{len(held)}-fold cross-fitting",
            )

    return fit
