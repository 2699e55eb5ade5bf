"""The authors' CFA is theirs: its recipe to the field, its loss to the index."""

from __future__ import annotations

import pytest
import torch

from benchmarks.accuracy import authors
from export.model import cfa
from export.settings import TrainSettings


def test_the_authors_recipe_is_theirs_to_the_field() -> None:
    base = TrainSettings(
        backbone="resnet18", size=(64, 64), epochs=9, seed=7, false_reject=0.02, folds=3
    )
    assert authors.recipe(base).model_dump() == {
        "backbone": "resnet18",
        "weights": None,
        "size": (224, 224),
        "region": None,
        "fit": "stretch",
        "strides": (4, 8, 16),
        "scales": (1.0,),
        "standardise": False,
        "descriptor_init": "random",
        "gamma_d": 1.0,
        "descriptor_width": None,
        "bank_init": "mean",
        "gamma_c": 1.0,
        "bank_items": None,
        "neighbours": 3,
        "hard_negatives": 3,
        "alpha": 0.1,
        "nu": 1e-3,
        "radius": 1e-5,
        "epochs": 30,
        "batch_size": 4,
        "learning_rate": 1e-3,
        "weight_decay": 5e-4,
        "sigma": 4.0,
        "normalise": "none",
        "false_reject": 0.02,
        "folds": 5,
        "seed": 7,
        "device": "auto",
        "cache_gb": 4.0,
    }


@pytest.mark.parametrize(("k", "j"), [(3, 3), (4, 2), (2, 5)])
def test_authors_loss_indexes_as_their_code(k: int, j: int) -> None:
    settings = TrainSettings(
        size=(64, 64),
        strides=(16,),
        standardise=False,
        descriptor_init="random",
        bank_init="mean",
        neighbours=k,
        hard_negatives=j,
        radius=2.0,
    )
    levels = [torch.randn(3, 6, 4, 4, generator=torch.Generator().manual_seed(0))]
    model = cfa.build(
        settings,
        (6,),
        lambda: iter([levels]),
        scale=cfa.FeatureScale.identity((6,)),
        seed=0,
        device=torch.device("cpu"),
    )
    phi = model.descriptor(levels).detach().double().permute(0, 2, 3, 1).reshape(-1, 6).numpy()
    bank, r, alpha, nu = model.bank.double().numpy(), 2.0, 0.1, 1e-3
    attract, repel = [], []
    for patch in phi:
        nearest = sorted(float(((patch - item) ** 2).sum()) for item in bank)[: k + j]
        attract += [max(0.0, d - r**2) for d in nearest[:k]]
        repel += [max(0.0, r**2 - d - alpha) for d in nearest[j:]]
    assert sum(attract) + sum(repel) > 0
    expected = sum(attract) / len(attract) / nu + sum(repel) / len(repel) / nu
    loss = authors.objective(model, levels)
    assert loss.item() == pytest.approx(expected, rel=1e-4)
    loss.backward()
    assert model.descriptor.weight.grad is not None
    assert bool(model.descriptor.weight.grad.abs().sum() > 0)
