"""A trained model in PyTorch as a judge: distances, normalised or not, smoothed into scores."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from export.data.photos import Index
from export.model import cfa
from export.model.backbone import Backbone
from export.model.features import FeatureCache
from export.model.normalise import Normaliser, Statistics, does_harm
from export.settings import TrainSettings
from export.training.calibrate import auto_limit
from export.training.run import Scores
from inspector.verdict import FloatMap


class Scorer:
    """A trained model in PyTorch: uint8 BGR pictures at network size → scores and maps.

    Scores and maps are in units of ``threshold`` (1: the unit of distance). Without a
    ``normaliser`` distances are judged as they are.
    """

    def __init__(
        self,
        backbone: Backbone,
        model: cfa.CFA,
        settings: TrainSettings,
        device: torch.device,
        threshold: float = 1.0,
        *,
        normaliser: Normaliser | None = None,
    ) -> None:
        self.backbone, self.model, self.settings = backbone, model, settings
        self.normaliser = normaliser
        self.device, self.threshold = device, threshold
        (grid_h, grid_w), (height, width) = settings.grid, settings.input
        self._rows = torch.from_numpy(cfa.smoothing(grid_h, height, settings.sigma_px)).to(
            device, torch.float32
        )
        self._columns = torch.from_numpy(cfa.smoothing(grid_w, width, settings.sigma_px)).to(
            device, torch.float32
        )

    @torch.no_grad()
    def maps(self, levels: cfa.Levels) -> Tensor:
        """Smoothed anomaly maps ``[N, H, W]`` of pooled features."""
        patch_scores = self.model.patch_scores(levels)
        if self.normaliser is not None:
            patch_scores = self.normaliser(patch_scores)
        return self.smooth(patch_scores)

    def smooth(self, patch_scores: Tensor) -> Tensor:
        """Maps ``[N, H, W]`` of (normalised) distances ``[N, H', W']``."""
        return self._rows @ patch_scores @ self._columns.T / self.threshold

    def __call__(self, images: npt.NDArray[np.uint8]) -> tuple[FloatMap, FloatMap]:
        """Scores float32 ``[N]`` and maps float32 ``[N, H, W]`` of uint8 ``[N, H, W, 3]``."""
        maps = self.maps(cfa.pool(self.backbone.maps(images, self.device)))
        return maps.amax(dim=(1, 2)).cpu().numpy(), maps.cpu().numpy()

    def image_scores(self, cache: FeatureCache, index: Index) -> Scores:
        """Float64 ``[len(index)]`` from cached features."""
        parts = [self.maps(levels).amax(dim=(1, 2)).cpu() for levels in cache.batches(index)]
        return torch.cat(parts).double().numpy()

    def distances(self, cache: FeatureCache, index: Index) -> FloatMap:
        """Float32 ``[len(index), H', W']`` from cached features, before normalisation."""
        parts = [self.model.patch_scores(levels).cpu() for levels in cache.batches(index)]
        return torch.cat(parts).numpy()

    @torch.no_grad()
    def measure(self, images: npt.NDArray[np.uint8]) -> FloatMap:
        """Distances, float32 ``[N, H', W']``, of uint8 ``[N, H, W, 3]``, before normalisation."""
        levels = cfa.pool(self.backbone.maps(images, self.device))
        return self.model.patch_scores(levels).cpu().numpy()

    @torch.no_grad()
    def peaks(self, distances: FloatMap) -> Scores:
        """Scores, float64 ``[N]``, of distances ``[N, H', W']``."""
        scores = np.empty(len(distances))
        for i, one in enumerate(distances):
            patch_scores = torch.from_numpy(one[None]).to(self.device)
            if self.normaliser is not None:
                patch_scores = self.normaliser(patch_scores)
            scores[i] = self.smooth(patch_scores).max().item()
        return scores

    @torch.no_grad()
    def score_held_out(
        self, distances: FloatMap, counted: npt.NDArray[np.bool_]
    ) -> tuple[Normaliser, Scores]:
        """The normaliser that held-out parts give, and their scores by it, float64 ``[n]``.

        ``distances`` ``[n, H', W']``, each by a model that has not seen the part. The ``counted``
        ``[n]`` ones give the statistics, and each of them is judged by those of the others, as a
        new part will be.
        """
        statistics = Statistics(distances[counted])
        whole = statistics.normaliser()
        scores = np.empty(len(distances))
        for i, (one, counts) in enumerate(zip(distances, counted, strict=True)):
            normaliser = statistics.without(one) if counts else whole
            patch_scores = normaliser(torch.from_numpy(one[None]).to(self.device))
            scores[i] = self.smooth(patch_scores).max().item()
        return whole, scores


@dataclass(frozen=True)
class Judged:
    """Raw scores of held-out good parts and of drawn defects, each ``[n]``, by a normaliser."""

    normaliser: Normaliser | None
    held_out: Scores
    drawn: Scores
    remarks: tuple[str, ...] = ()

    @property
    def passes(self) -> npt.NDArray[np.bool_]:
        """``[n]``: which drawn defects the limit lets pass that so many good parts can tell."""
        return self.drawn < auto_limit(self.held_out)


def judge(scorer: Scorer, held_out: FloatMap, drawn: FloatMap) -> Judged:
    """Scores of distances ``[n, H', W']``, normalised as the scorer's settings say.

    ``held_out``: of good parts, each by a model that has not seen it; ``drawn``: of defects drawn
    on such parts. Leaves ``scorer`` with the normaliser that is taken.
    """
    asked = scorer.settings.normalise
    plain = Judged(None, scorer.peaks(held_out), scorer.peaks(drawn))
    if asked == "none":
        return plain
    scorer.normaliser, scores = scorer.score_held_out(held_out, np.ones(len(held_out), dtype=bool))
    normalised = Judged(scorer.normaliser, scores, scorer.peaks(drawn))
    ways = (normalised.passes, plain.passes)
    if asked == "position" or not does_harm(*ways):
        return normalised
    scorer.normaliser = None
    passed, fewer = (int(way.sum()) for way in ways)
    remark = (
        f"each place of a part is judged by one measure for the whole part (normalise: none): with "
        f"a measure for each place {passed} of {len(drawn)} defects that the program drew as a "
        f"trial would pass, and so {fewer} do; there is nothing for you to do"
    )
    return replace(plain, remarks=(remark,))
