"""The methods that ``accuracy.py`` compares: ours, also with ``--auto``; the authors' CFA; rivals.

Every method sees good parts only and hands back the same thing, a :class:`Trained`: scores in units
of a limit that was calibrated by :func:`export.calibrate.calibrate` on good parts it held out.
PatchCore and PaDiM stand on the very features, geometry and input size of our model.
"""

from __future__ import annotations

import hashlib
import inspect
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import accuracy_rivals as rivals
import numpy as np
import numpy.typing as npt
import torch
from accuracy_rivals import (
    Batches,
    PaDiM,
    PatchCore,
    Rival,
    Target,
    concatenate,
    patchcore_14,
)
from torch import Tensor

import export
from export import settings
from export.bundle import graph as onnx_graph
from export.data import dataset, synthetic
from export.evaluation import evaluate, metrics
from export.evaluation.evaluate import ScoreBatch
from export.model import backbone, cfa, features
from export.model.backbone import Backbone
from export.model.features import FeatureCache
from export.settings import TrainSettings
from export.training import auto, calibrate, trial
from export.training.train import ADAPTING, OnStep, Scorer, Step, load_scorer, pick_device, train
from inspector.detection.manifest import Calibration
from inspector.imaging import geometry as frame
from inspector.imaging.geometry import Geometry

Index = npt.NDArray[np.intp]
AUTHORS_HOLD_OUT = 0.2


@dataclass(frozen=True)
class Trained:
    """A model ready to be judged.

    ``score``: in units of the limit. ``seconds``: training with everything the limit needs, photos
    already read. ``items``: vectors in the memory bank (positions, for PaDiM). ``megabytes``: what
    a station must be given, float32. ``limit_from``: how good parts were held out for the limit.
    """

    score: ScoreBatch
    settings: TrainSettings
    geometry: Geometry
    calibration: Calibration
    seconds: float
    items: int
    megabytes: float
    limit_from: str


Fit = Callable[[Path, Path, TrainSettings, OnStep], Trained]
"""Category, an empty folder for files of its own, settings, progress → a model."""


@dataclass(frozen=True)
class Method:
    """``settings`` makes the method's own from the run's; ``uses`` names those that matter to it.

    ``chooses``: settings it finds for itself unless they are given.
    ``code``: digest of the source its figures hang on, as it was when this process started.
    """

    fit: Fit
    settings: Callable[[TrainSettings], TrainSettings]
    every_seed: bool
    uses: frozenset[str]
    code: str
    chooses: frozenset[str] = frozenset()


def digest_code(*parts: Any) -> str:
    """Of the source text of files, modules, classes and functions."""
    whole = hashlib.sha256()
    for part in parts:
        text = part.read_text() if isinstance(part, Path) else inspect.getsource(part)
        whole.update(hashlib.sha256(text.encode()).digest())
    return whole.hexdigest()[:16]


def fit_auto(data: Path, folder: Path, chosen: TrainSettings, on_step: OnStep) -> Trained:
    """Our CFA as ``inspector-model train --auto`` makes it; the choice counts as training."""
    found, choice = auto.choose(data, chosen, on_step=on_step)
    trained = fit_cfa(data, folder, found, on_step)
    return replace(trained, seconds=round(trained.seconds + choice.seconds, 1))


def fit_cfa(data: Path, folder: Path, chosen: TrainSettings, on_step: OnStep) -> Trained:
    """Our CFA as ``inspector-model train`` makes it."""
    run = train(data, folder / "run", chosen, resume=False, on_step=on_step)
    facts, outcome = run.facts(), run.outcome()
    scorer = load_scorer(run, pick_device(chosen.device))
    return Trained(
        score=scorer,
        settings=facts.settings,
        geometry=facts.geometry,
        calibration=outcome.calibration,
        seconds=outcome.train_seconds,
        items=len(scorer.model.bank),
        megabytes=_graph_megabytes(scorer),
        limit_from=outcome.calibration.pooling,
    )


def authors_settings(base: TrainSettings) -> TrainSettings:
    """The recipe of the authors' repository; where it runs is ``base``'s.

    Theirs reads the middle 224 of a photo whose short side was brought to 256; here the whole photo
    is brought to 224 × 224, so that no defect is cut off. They drop an epoch's last, smaller batch.
    """
    return TrainSettings(
        backbone=base.backbone,
        weights=base.weights,
        size=(224, 224),
        fit="stretch",
        strides=(4, 8, 16),
        standardise=False,
        descriptor_init="random",
        gamma_d=1.0,
        bank_init="mean",
        gamma_c=1.0,
        neighbours=3,
        hard_negatives=3,
        alpha=0.1,
        nu=1e-3,
        radius=1e-5,
        epochs=30,
        batch_size=4,
        learning_rate=1e-3,
        weight_decay=5e-4,
        sigma=4.0,
        false_reject=base.false_reject,
        seed=base.seed,
        device=base.device,
        cache_gb=base.cache_gb,
    )


def fit_authors(data: Path, folder: Path, chosen: TrainSettings, on_step: OnStep) -> Trained:
    """CFA as the authors' code trains and scores it, at the last epoch.

    The model in the table has seen all good parts; its limit comes from a second one that has seen
    80 % of them and scores the others.
    """
    with _Parts(data, folder, chosen, on_step) as parts:
        everything = np.arange(len(parts.cache))
        held = parts.hold_out(AUTHORS_HOLD_OUT)
        fits = {"service": everything, "limit": np.setdiff1d(everything, held)}
        models = {
            name: _adapt_as_authors(chosen, parts, index, name) for name, index in fits.items()
        }
        tester = Scorer(parts.backbone, models["limit"], chosen, parts.device)
        calibration = calibrate.calibrate(
            [tester.image_scores(parts.cache, parts.one_each(held))], chosen.false_reject
        )
        scorer = Scorer(
            parts.backbone, models["service"], chosen, parts.device, calibration.threshold
        )
        return Trained(
            score=scorer,
            settings=chosen,
            geometry=parts.geometry,
            calibration=calibration,
            seconds=parts.seconds(),
            items=len(scorer.model.bank),
            megabytes=_graph_megabytes(scorer),
            limit_from=f"one hold-out of {AUTHORS_HOLD_OUT:.0%}, scored by a second model trained "
            f"on the others",
        )


def authors_loss(model: cfa.CFA, levels: cfa.Levels) -> Tensor:
    """L_att + L_rep as the authors' code writes them: hard negatives from index J on.

    With K = J, its defaults, these are the paper's.
    """
    phi = cfa.flatten(model.descriptor(levels))
    k, j = model.neighbours, model.hard_negatives
    with torch.no_grad():
        nearest = cfa.find_nearest(phi, model.bank, k + j)[1]
    # The same function as indexing the full matrix of distances, without its gradient.
    distance = (phi.unsqueeze(1) - model.bank[nearest]).square().sum(dim=2)
    r2 = model.radius.square()
    attract = (distance[:, :k] - r2).clamp_min(0).mean()
    repel = (r2 - distance[:, j:] - model.alpha).clamp_min(0).mean()
    return (attract + repel) / model.nu


def _adapt_as_authors(chosen: TrainSettings, parts: _Parts, index: Index, name: str) -> cfa.CFA:
    model = cfa.build(
        chosen,
        parts.backbone.channels,
        lambda: parts.cache.batches(index),
        scale=_authors_scale(parts.backbone),
        seed=chosen.seed,
        device=parts.device,
    )
    optimiser = torch.optim.AdamW(
        [*model.descriptor.parameters(), model.radius],
        lr=chosen.learning_rate,
        weight_decay=chosen.weight_decay,
        amsgrad=True,
    )
    random = np.random.default_rng([chosen.seed, 2])
    for epoch in range(chosen.epochs):
        shuffled = random.permutation(index)
        for start in range(0, len(shuffled), chosen.batch_size):
            batch = parts.cache.batch(shuffled[start : start + chosen.batch_size])
            loss = authors_loss(model, batch)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        parts.on_step(Step(ADAPTING, epoch + 1, chosen.epochs, name, loss.item()))
    return model


def _authors_scale(network: Backbone) -> cfa.FeatureScale:
    """Raw features; of EfficientNet-B5 the authors divide each level by its channels' number."""
    if network.name != "efficientnet_b5":
        return cfa.FeatureScale.identity(network.channels)
    return cfa.FeatureScale(
        tuple(torch.zeros(c) for c in network.channels),
        tuple(torch.full((c,), float(c)) for c in network.channels),
    )


MakeRival = Callable[[Batches, int, Target, int, OnStep], Rival]


def fit_rival(make: MakeRival) -> Fit:
    """A method of ``make``: fitted on all good parts, its limit cross-fitted as ours."""

    def fit(data: Path, folder: Path, chosen: TrainSettings, on_step: OnStep) -> Trained:
        with _Parts(data, folder, chosen, on_step) as parts, torch.no_grad():
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

            @torch.no_grad()
            def score(
                images: npt.NDArray[np.uint8],
            ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
                levels = cfa.pool(network.maps(images, parts.device))
                values, maps = rival.score(concatenate(levels, grid))
                return (
                    (values / calibration.threshold).cpu().numpy(),
                    (maps / calibration.threshold).cpu().numpy(),
                )

            weights = sum(v.numel() for v in network.network.state_dict().values())
            return Trained(
                score=score,
                settings=chosen,
                geometry=parts.geometry,
                calibration=calibration,
                seconds=parts.seconds(),
                items=rival.items,
                megabytes=4 * (weights + rival.floats) / 1e6,
                limit_from=f"{len(held)}-fold cross-fitting",
            )

    return fit


class _Parts:
    """Good parts of a category with their features; the clock starts once the photos are read."""

    def __init__(self, data: Path, folder: Path, chosen: TrainSettings, on_step: OnStep) -> None:
        self.on_step = on_step
        paths = dataset.open_good(data)
        chosen = self.settings = chosen.resolve(dataset.photo_shapes(paths))
        self.device = pick_device(chosen.device)
        self.backbone = Backbone(chosen.backbone, chosen.strides, chosen.weights).to(self.device)
        parts = dataset.load_good(
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

    def __enter__(self) -> _Parts:
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
        return dataset.one_each(index, self._picture)

    def seconds(self) -> float:
        """Since the photos were read."""
        return round(time.monotonic() - self._began, 1)


def _graph_megabytes(scorer: Scorer) -> float:
    return len(onnx_graph.build(scorer, precision="fp32").SerializeToString()) / 1e6


# Modules of ours that keep files, write reports or bundles, or teach in change no figure of a cell.
_ASIDE = {
    *("__init__", "assemble", "charts", "cli", "describe", "extend"),
    *("memory", "parity", "report", "run", "wording"),
}
_OURS = tuple(
    path
    for path in sorted(Path(export.__path__[0]).glob("*.py"))
    if path.stem not in _ASIDE | {"auto", "synthetic", "trial"}
)
_SHARED = (backbone, calibrate, dataset, evaluate, features, metrics, frame)
_GRID = (
    cfa.pool,
    cfa.up_sample,
    cfa.smoothing,
    cfa.farthest_first,
    cfa.flatten,
    cfa.find_nearest,
    settings,
    fit_rival,
    _Parts,
    rivals,
)
_EVERY_SETTING = frozenset(TrainSettings.model_fields) - {"weights", "device", "cache_gb"}
_RIVAL_SETTINGS = frozenset(
    {"backbone", "size", "region", "fit", "strides", "sigma", "false_reject", "folds", "seed"}
)

OURS = "cfa"

_RIVAL = digest_code(*_SHARED, *_GRID)

METHODS: dict[str, Method] = {
    OURS: Method(
        fit=fit_cfa,
        settings=lambda base: base,
        every_seed=True,
        uses=_EVERY_SETTING,
        code=digest_code(*_OURS, frame, fit_cfa),
    ),
    "auto": Method(
        fit=fit_auto,
        settings=lambda base: base,
        every_seed=True,
        uses=_EVERY_SETTING,
        code=digest_code(*_OURS, frame, fit_cfa, auto, trial, synthetic, fit_auto),
        chooses=frozenset(auto.CHOSEN),
    ),
    "cfa-authors": Method(
        fit=fit_authors,
        settings=authors_settings,
        every_seed=True,
        uses=_EVERY_SETTING,
        code=digest_code(
            *_SHARED,
            cfa,
            settings,
            fit_authors,
            authors_loss,
            Scorer,
            _adapt_as_authors,
            _authors_scale,
            _Parts,
        ),
    ),
    "patchcore": Method(
        fit=fit_rival(PatchCore.fit),
        settings=lambda base: base,
        every_seed=False,
        uses=_RIVAL_SETTINGS,
        code=_RIVAL,
    ),
    "patchcore-14": Method(
        fit=fit_rival(patchcore_14),
        settings=lambda base: base,
        every_seed=False,
        uses=_RIVAL_SETTINGS,
        code=_RIVAL,
    ),
    "padim": Method(
        fit=fit_rival(PaDiM.fit),
        settings=lambda base: base,
        every_seed=False,
        uses=_RIVAL_SETTINGS,
        code=_RIVAL,
    ),
}
