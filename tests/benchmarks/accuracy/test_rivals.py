"""PatchCore and PaDiM are what their papers say, on our model's own input and maps."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.accuracy import rivals
from export.model import cfa
from export.settings import TrainSettings


def quiet(step: object) -> None:
    pass


@pytest.mark.parametrize("sigma", [None, 3.0])
def test_rivals_maps_are_smoothed_as_ours(data: Path, tmp_path: Path, sigma: float | None) -> None:
    targets: list[rivals.Target] = []

    def make(*arguments: Any) -> rivals.Rival:
        targets.append(arguments[2])
        return rivals.PaDiM.fit(*arguments)

    chosen = TrainSettings(size=(64, 96), sigma=sigma, folds=2, device="cpu")
    trained = rivals.fitted(make)(data / "masked", tmp_path, chosen, quiet)
    assert targets == [rivals.Target((64, 96), trained.settings.sigma_px)] * 3
    assert trained.settings.sigma_px == (8.0 if sigma is None else sigma)


@pytest.mark.parametrize("make", [rivals.PatchCore.fit, rivals.patchcore_14, rivals.PaDiM.fit])
def test_rivals_see_both_scales(data: Path, tmp_path: Path, make: rivals.MakeRival) -> None:
    widths: set[int] = set()

    def watched(batches: rivals.Batches, *rest: Any) -> rivals.Rival:
        widths.update(batch.shape[1] for batch in batches())
        return make(batches, *rest)

    chosen = TrainSettings(size=(64, 96), folds=2, device="cpu")
    trained = rivals.fitted(watched)(data / "masked", tmp_path, chosen, quiet)
    assert chosen.scales == (1.0, 0.5)
    # The half-resolution maps have as many channels as the full ones.
    assert widths == {2 * 112}
    photos = np.random.default_rng(0).integers(0, 256, (2, 64, 96, 3), dtype=np.uint8)
    levels = trained.features(photos)
    assert [tuple(level.shape) for level in levels] == [(2, 112, 4, 6), (2, 112, 2, 3)]
    scores, maps = trained.score(photos)
    with torch.no_grad():
        again, _ = trained.head(levels)
    np.testing.assert_array_equal(scores, again.numpy())
    assert maps.shape == (2, 64, 96)
    assert 0 < trained.time_head() < 1000


def features(images: int, channels: int, grid: tuple[int, int], seed: int = 0) -> torch.Tensor:
    return torch.randn(images, channels, *grid, generator=torch.Generator().manual_seed(seed))


def test_patchcore_scores_as_its_formulae_say() -> None:
    bank = features(1, 7, (5, 6)).flatten(2)[0].T.contiguous()
    photos = features(3, 7, (4, 3), seed=1)
    maps = rivals.Maps((4, 3), rivals.Target((64, 96), 4.0), torch.device("cpu"))
    rival = rivals.PatchCore(bank, maps, None)
    scores, heat = rival.score(photos)
    items = bank.double().numpy()
    for n in range(3):
        patches = photos[n].double().numpy().reshape(7, -1).T
        distance = np.array([[np.linalg.norm(p - c) for c in items] for p in patches])
        per_patch = distance.min(axis=1)
        star = int(per_patch.argmax())
        item = int(distance[star].argmin())
        around = np.argsort([np.linalg.norm(c - items[item]) for c in items])[:9]
        exponentials = [math.exp(np.linalg.norm(patches[star] - items[m])) for m in around]
        weight = 1.0 - math.exp(per_patch[star]) / sum(exponentials)
        assert float(scores[n]) == pytest.approx(weight * per_patch[star], rel=1e-5)
        rows, columns = (cfa.smoothing(a, b, 4.0) for a, b in ((4, 64), (3, 96)))
        expected = rows @ per_patch.reshape(4, 3) @ columns.T
        np.testing.assert_allclose(heat[n].numpy(), expected, rtol=1e-5)


def test_reweighting_puts_the_item_before_its_copies() -> None:
    bank = torch.tensor([[0.0, 1.0]] * 12 + [[3.0, 0.0]])
    patch = torch.tensor([0.0, 3.0])
    for nearest in (0, 11):
        assert float(rivals.reweighted(patch, nearest, bank)) == pytest.approx(2.0 * 8 / 9)
    assert float(rivals.reweighted(patch, 0, bank[:1])) == 2.0


def test_patchcore_bank_is_a_tenth_of_all_patches() -> None:
    photos = features(6, 150, (9, 5))

    def batches() -> Any:
        return iter(torch.split(photos, 4))

    for pooled, patches in ((None, 45), ((14, 14), 196)):
        rival = rivals.PatchCore.fit(
            batches, 6, rivals.Target((64, 64), 4.0), 0, quiet, pooled=pooled
        )
        assert rival.items == round(6 * patches / 10)
        grid = photos if pooled is None else torch.nn.functional.adaptive_avg_pool2d(photos, pooled)
        every = {
            tuple(patch) for patch in grid.flatten(2).transpose(1, 2).reshape(-1, 150).tolist()
        }
        assert {tuple(item) for item in rival.bank.tolist()} <= every
        assert len({tuple(item) for item in rival.bank.tolist()}) == len(rival.bank) or pooled
        assert rival.score(photos)[1].shape == (6, 64, 64)


def test_patchcore_bank_is_a_tenth_of_all_patches_also_beyond_the_sampled_pool(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rivals, "CORESET_POOL", 100)
    photos = features(6, 7, (9, 5))
    target = rivals.Target((64, 64), 4.0)
    rival = rivals.PatchCore.fit(lambda: iter(torch.split(photos, 4)), 6, target, 0, quiet)
    assert rival.items == len(rival.bank) == 27


@pytest.mark.parametrize("channels", [6, 130])
def test_padim_distances_are_mahalanobis(channels: int) -> None:
    photos = 5.0 + 2.0 * features(12, channels, (3, 4))
    rival = rivals.PaDiM.fit(
        lambda: iter(torch.split(photos, 5)), 12, rivals.Target((64, 64), 4.0), 0, quiet
    )
    kept = rival.channels.tolist()
    assert len(set(kept)) == min(channels, 100)
    fresh = features(2, channels, (3, 4), seed=3)
    found = rival.distances(fresh).numpy()
    for y in range(3):
        for x in range(4):
            good = photos[:, kept, y, x].double().numpy()
            inverse = np.linalg.inv(np.cov(good.T) + 0.01 * np.eye(len(kept)))
            for n in range(2):
                off = fresh[n, kept, y, x].double().numpy() - good.mean(axis=0)
                assert found[n, y, x] == pytest.approx(math.sqrt(off @ inverse @ off), rel=1e-3)
