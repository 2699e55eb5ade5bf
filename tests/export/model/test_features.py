"""The cache of features: what it holds, and how its size is counted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from export.model import cfa
from export.model.backbone import Backbone
from export.model.features import FeatureCache
from tests.export.conftest import CPU

FULL_BYTES = 4 * 3 * 112 * (4 * 6)
"""Of three parts at 64x96: 112 channels of stride 16, float32; the half has a quarter of them."""


@pytest.mark.parametrize(
    ("scales", "more", "mapped"),
    [((1.0, 0.5), 1.0, True), ((1.0, 0.5), 1.25, False), ((1.0,), 1.0, False)],
)
def test_every_scale_counts_for_the_memory(
    scales: tuple[float, ...], more: float, mapped: bool, tmp_path: Path
) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 64, 96, 3), dtype=np.uint8)
    backbone = Backbone("efficientnet_lite0", (16,), scales, None)
    with FeatureCache(
        backbone,
        images,
        device=CPU,
        cache_gb=(more * FULL_BYTES + 1) / 1e9,
        folder=tmp_path,
        on_progress=lambda done, total: None,
    ) as cache:
        assert any(tmp_path.rglob("level-*.npy")) is mapped
        found = cache.batch(np.array([2, 0]))
        assert [level.shape for level in found] == [
            (2, 112, round(4 * scale), round(6 * scale)) for scale in scales
        ]
        for level, expected in zip(found, cfa.pool(backbone.maps(images, CPU)), strict=True):
            torch.testing.assert_close(level, expected[[2, 0]], atol=1e-5, rtol=1e-5)
    assert not any(tmp_path.iterdir())
