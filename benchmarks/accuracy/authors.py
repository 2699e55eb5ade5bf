"""CFA as the authors' repository trains and scores it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.accuracy.fitting import (
    GoodParts,
    Index,
    Trained,
    graph_megabytes,
    head_of,
    pooled,
)
from export.model import cfa
from export.model.backbone import Backbone
from export.settings import TrainSettings
from export.training import calibrate
from export.training.scorer import Scorer
from export.training.train import ADAPTING, OnStep, Step

HOLD_OUT = 0.2


def recipe(base: TrainSettings) -> TrainSettings:
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
        scales=(1.0,),
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
        normalise="none",
        false_reject=base.false_reject,
        seed=base.seed,
        device=base.device,
        cache_gb=base.cache_gb,
    )


def fit(data: Path, folder: Path, chosen: TrainSettings, on_step: OnStep) -> Trained:
    """CFA as the authors' code trains and scores it, at the last epoch.

    The model in the table has seen all good parts; its limit comes from a second one that has seen
    80 % of them and scores the others.
    """
    with GoodParts(data, folder, chosen, on_step) as parts:
        everything = np.arange(len(parts.cache))
        held = parts.hold_out(HOLD_OUT)
        fits = {"service": everything, "limit": np.setdiff1d(everything, held)}
        models = {name: _adapt(chosen, parts, index, name) for name, index in fits.items()}
        tester = Scorer(parts.backbone, models["limit"], chosen, parts.device)
        calibration = calibrate.calibrate(
            [tester.image_scores(parts.cache, parts.one_each(held))], chosen.false_reject
        )
        scorer = Scorer(
            parts.backbone, models["service"], chosen, parts.device, calibration.threshold
        )
        return Trained(
            features=pooled(parts.backbone, parts.device),
            head=head_of(scorer),
            settings=chosen,
            geometry=parts.geometry,
            calibration=calibration,
            seconds=parts.seconds(),
            items=len(scorer.model.bank),
            megabytes=graph_megabytes(scorer),
            limit_from=f"one hold-out of {HOLD_OUT:.0%}, scored by a second model trained "
            f"on the others",
        )


def objective(model: cfa.CFA, levels: cfa.Levels) -> Tensor:
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


def _adapt(chosen: TrainSettings, parts: GoodParts, index: Index, name: str) -> cfa.CFA:
    model = cfa.build(
        chosen,
        parts.backbone.channels,
        lambda: parts.cache.batches(index),
        scale=_scale(parts.backbone),
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
            loss = objective(model, batch)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        parts.on_step(Step(ADAPTING, epoch + 1, chosen.epochs, name, loss.item()))
    return model


def _scale(network: Backbone) -> cfa.FeatureScale:
    """Raw features; of EfficientNet-B5 the authors divide each level by its channels' number."""
    if network.name != "efficientnet_b5":
        return cfa.FeatureScale.identity(network.channels)
    return cfa.FeatureScale(
        tuple(torch.zeros(c) for c in network.channels),
        tuple(torch.full((c,), float(c)) for c in network.channels),
    )
