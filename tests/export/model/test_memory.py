"""The memory bank after a lesson: it knows what was taught, and what stands alone stays."""

from __future__ import annotations

import numpy as np
import torch

from export.model.memory import COVER, MOST_REPLACED, teach
from export.model.normalise import Normaliser
from export.training.run import Run
from export.training.train import load_scorer
from tests.export.conftest import CPU, draw_labelled, features


def test_every_new_patch_is_near_an_item_afterwards(roomy: Run) -> None:
    model = load_scorer(roomy, CPU).model
    # Room for all: the bank's own items, again and again.
    model.bank = model.bank.repeat(10, 1)
    levels = features(roomy, [draw_labelled(seed) for seed in range(5000, 5004)])
    limit = roomy.outcome().calibration.threshold
    replaced = teach(model, [levels], limit)
    assert 0 < replaced < MOST_REPLACED * len(model.bank)
    with torch.no_grad():
        phi = model.descriptor(levels).flatten(2).transpose(1, 2).flatten(0, 1)
    assert torch.cdist(phi, model.bank).amin(dim=1).max() <= COVER * limit


def test_a_taught_patch_is_near_in_the_measure_of_its_position(roomy: Run) -> None:
    scorer = load_scorer(roomy, CPU)
    model, grid = scorer.model, scorer.settings.grid
    # Most items lie far apart, so that the limit and not the bank's own spread sets the radius.
    far = torch.randn(600, model.descriptor.width, generator=torch.Generator().manual_seed(0))
    # Copies leave first, so that no item that is needed goes.
    model.bank = torch.cat([model.bank, model.bank, far])
    levels = features(roomy, [draw_labelled(seed) for seed in range(5000, 5004)])
    # The label lies in the first columns; distances there count eight times.
    gain = np.ones(grid)
    gain[:, :2] = 8.0
    normaliser = Normaliser(gain, np.zeros(grid), 24)
    limit = float(roomy.held_out()[1].max())
    # Some patches, but not all 96 of them, are needed for that.
    assert 0 < teach(model, [levels], limit, normaliser) < 60
    assert normaliser(model.patch_scores(levels)).max() <= COVER * limit * (1 + 1e-3)


def test_items_that_stand_alone_stay(roomy: Run) -> None:
    model = load_scorer(roomy, CPU).model
    before = model.bank.clone()
    apart = torch.cdist(before, before).fill_diagonal_(torch.inf).amin(dim=1)
    levels = features(roomy, [draw_labelled(seed) for seed in range(5000, 5006)])
    teach(model, [levels], roomy.outcome().calibration.threshold)
    gone = (model.bank != before).any(dim=1)
    apart = torch.minimum(apart, torch.cdist(before, model.bank[gone]).amin(dim=1))
    assert apart[gone].max() < apart[~gone].median()
    assert not gone[apart.argmax()]


def test_teaching_what_is_known_changes_nothing(roomy: Run) -> None:
    model = load_scorer(roomy, CPU).model
    levels = features(roomy, [draw_labelled(5000)])
    with torch.no_grad():
        known = model.descriptor(levels).flatten(2).transpose(1, 2).flatten(0, 1)
    model.bank[: len(known)] = known
    before = model.bank.clone()
    assert teach(model, [levels], roomy.outcome().calibration.threshold) == 0
    assert torch.equal(model.bank, before)
