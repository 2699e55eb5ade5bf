"""What every method starts from and hands back: good parts with features, and a model to judge."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from export.bundle.graph import build_graph
from export.data import dataset, photos
from export.model import cfa
from export.model.backbone import Backbone
from export.model.features import FeatureCache
from export.settings import TrainSettings
from export.training.scorer import Scorer
from export.training.train import OnStep, Step, pick_device
from inspector.detection.manifest import Calibration
from inspector.imaging.geometry import Geometry
from inspector.verdict import FloatMap, Frame8

HEAD_ROUNDS = 20
HEAD_SECONDS = 2.0

Index = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Trained:
    """A model ready to be judged.

    ``features``: uint8 BGR ``[N, H, W, 3]`` → the network's pooled maps. ``head``: these → scores
    ``[N]`` and maps ``[N, H, W]`` in units of the limit. ``seconds``: training with everything the
    limit needs, photos already read. ``items``: vectors in the memory bank (positions, for PaDiM).
    ``megabytes``: what a station must be given, float32. ``limit_from``: how good parts were held
    out for the limit.
    """

    features: Callable[[Frame8], cfa.Levels]
    head: Callable[[cfa.Levels], tuple[Tensor, Tensor]]
    settings: TrainSettings
    geometry: Geometry
    calibration: Calibration
    seconds: float
    items: int
    megabytes: float
    limit_from: str

    @torch.no_grad()
    def score(self, images: Frame8) -> tuple[FloatMap, FloatMap]:
        """Scores and maps of pictures, as :data:`export.evaluation.evaluate.ScoreBatch` says."""
        scores, maps = self.head(self.features(images))
        return scores.cpu().numpy(), maps.cpu().numpy()

    @torch.no_grad()
    def time_head(self) -> float:
        """Median time of ``head`` for one picture, ms: PyTorch on this machine, as it trains.

        What is searched does not depend on the picture, so a grey one will do.
        """
        grey = np.full((1, self.geometry.height, self.geometry.width, 3), 127, dtype=np.uint8)
        levels = self.features(grey)
        times: list[float] = []
        while len(times) < HEAD_ROUNDS and sum(times) < HEAD_SECONDS:
            began = time.perf_counter()
            scores, _ = self.head(levels)
            # A copy to the CPU waits for a GPU.
            scores.cpu()
            times.append(time.perf_counter() - began)
        # The first rounds allocate memory.
        return round(1e3 * float(np.median(times[min(2, len(times) - 1) :])), 3)


Fit = Callable[[Path, Path, TrainSettings, OnStep], Trained]
"""Category, an empty folder for files of its own, settings, progress → a model."""


class GoodParts:
    """Good parts of a category with their features; the clock starts once the photos are read."""

    def __init__(self, data: Path, folder: Path, chosen: TrainSettings, on_step: OnStep) -> None:
        self.on_step = on_step
        paths = dataset.open_good(data)
        chosen = self.settings = chosen.resolve(photos.photo_shapes(paths))
        self.device = pick_device(chosen.device)
        self.backbone = Backbone(chosen.backbone, chosen.strides, chosen.scales, chosen.weights).to(
            self.device
        )
        parts = photos.load_good(
            paths,
            chosen.geometry(),
            lambda done, total: on_step(Step("reading photos", done, total)),
        )
        self.geometry, self._picture = parts.geometry, parts.picture
        self._groups = np.random.default_rng([chosen.seed, 1]).permutation(
            int(self._picture.max()) + 1
        )
        self._began = time.monotonic()
        self.cache = FeatureCache(
            self.backbone,
            parts.images,
            device=self.device,
            cache_gb=chosen.cache_gb,
            folder=folder,
            on_progress=lambda done, total: on_step(Step("backbone features", done, total)),
        )

    def __enter__(self) -> GoodParts:
        return self

    def __exit__(self, *_: object) -> None:
        self.cache.close()

    def folds(self, count: int) -> list[Index]:
        """Disjoint parts that are held out in turn."""
        return [
            np.flatnonzero(np.isin(self._picture, fold))
            for fold in np.array_split(self._groups, min(count, len(self._groups)))
        ]

    def hold_out(self, share: float) -> Index:
        """One share of the parts."""
        count = max(1, round(len(self._groups) * share))
        return np.flatnonzero(np.isin(self._picture, self._groups[:count]))

    def one_each(self, index: Index) -> Index:
        """``index`` without copies: one score a picture sets the limit."""
        return photos.one_each(index, self._picture)

    def seconds(self) -> float:
        """Since the photos were read."""
        return round(time.monotonic() - self._began, 1)


def pooled(network: Backbone, device: torch.device) -> Callable[[Frame8], cfa.Levels]:
    """Pictures → the pooled maps of ``network``."""
    return lambda images: cfa.pool(network.maps(images, device))


def head_of(scorer: Scorer) -> Callable[[cfa.Levels], tuple[Tensor, Tensor]]:
    """What ``scorer`` does with pooled maps."""

    def head(levels: cfa.Levels) -> tuple[Tensor, Tensor]:
        maps = scorer.maps(levels)
        return maps.amax(dim=(1, 2)), maps

    return head


def graph_megabytes(scorer: Scorer) -> float:
    """Of what a station is given, float32."""
    return len(build_graph(scorer, precision="fp32").SerializeToString()) / 1e6
