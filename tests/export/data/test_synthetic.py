"""Synthetic defects: on any photo, in one place, seen, and the same again for the same seed."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from export.data.synthetic import KINDS, MARGIN_PX, SIZES, Synthetic, defective
from inspector.verdict import Frame8
from tests.export.conftest import draw_part

PAINTS = ("flat", "noise", "stripes", "object", "white", "black", "steps")


def paint(how: str, height: int, width: int, grey: bool, seed: int = 0) -> Frame8:
    """A uint8 BGR ``[height, width, 3]`` photo of one of ``PAINTS``."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    level = {
        "flat": np.full((height, width), 120.0),
        "white": np.full((height, width), 255.0),
        "black": np.zeros((height, width)),
        "noise": rng.uniform(0, 255, (height, width)),
        "stripes": 128 + 90 * np.sin(x / 3.0 + y / 7.0),
        "object": np.where(np.hypot(x - width / 2, y - height / 2) < min(x.max(), 30), 180.0, 40.0),
        "steps": np.where((x // 9 + y // 9) % 2 == 0, 255.0, 0.0),
    }[how]
    tint = np.ones(3) if grey else np.array([0.7, 1.0, 0.85])
    return np.clip(level[:, :, None] * tint, 0, 255).astype(np.uint8)


def change(before: Frame8, made: Synthetic) -> np.ndarray:
    return np.abs(made.image.astype(int) - before.astype(int)).max(axis=2)


def keeps_its_promises(before: Frame8, made: Synthetic) -> None:
    assert made.image.dtype == np.uint8
    assert made.image.shape == before.shape
    assert made.mask.dtype == np.bool_
    assert made.mask.shape == before.shape[:2]
    assert made.kind in KINDS
    assert made.mask.any()
    changed = change(before, made)
    assert changed[made.mask].sum() >= 0.9 * changed.sum() > 0
    near = cv2.dilate(made.mask.astype(np.uint8), np.ones((2 * MARGIN_PX + 1,) * 2, np.uint8)) > 0
    assert not changed[~near].any()


@pytest.fixture(scope="module")
def parts() -> list[Frame8]:
    return [cv2.resize(draw_part(i)[0], (240, 160)) for i in range(64)]


photos = st.builds(
    paint,
    st.sampled_from(PAINTS),
    st.integers(32, 200),
    st.integers(32, 200),
    st.booleans(),
    st.integers(0, 9),
)


@settings(deadline=None, max_examples=60)
@given(st.lists(photos, min_size=1, max_size=9), st.integers(0, 2**31))
def test_any_photos_get_one_defect_each(images: list[Frame8], seed: int) -> None:
    before = [image.copy() for image in images]
    made = list(defective(images, seed))
    assert len(made) == len(images)
    for image, kept, one in zip(images, before, made, strict=True):
        assert np.array_equal(image, kept)
        keeps_its_promises(image, one)


@pytest.mark.parametrize("shape", [(16, 16), (20, 400), (400, 20), (1400, 1900)])
def test_small_narrow_and_large_photos(shape: tuple[int, int]) -> None:
    images = [paint("object", *shape, grey=False)] * len(KINDS)
    for one in defective(images, 3):
        keeps_its_promises(images[0], one)


def test_same_seed_same_defects_other_seed_others(parts: list[Frame8]) -> None:
    first, again, other = (list(defective(parts[:8], seed)) for seed in (5, 5, 6))
    for one, two in zip(first, again, strict=True):
        assert np.array_equal(one.image, two.image)
        assert np.array_equal(one.mask, two.mask)
        assert one.kind == two.kind
    assert not any(
        np.array_equal(one.image, two.image) for one, two in zip(first, other, strict=True)
    )


def test_all_kinds_appear_equally_often(parts: list[Frame8]) -> None:
    made = list(defective(parts, 1))
    for image, one in zip(parts, made, strict=True):
        keeps_its_promises(image, one)
    counts = [sum(one.kind == kind for one in made) for kind in KINDS]
    # Where a kind finds nothing to show on, a stain takes its place.
    assert min(counts) >= len(parts) // len(KINDS) - 3


@pytest.mark.parametrize("how", PAINTS)
def test_grey_photos_stay_grey_beside_colour_ones(how: str) -> None:
    images = [paint(how, 120, 90, grey=i % 2 == 0, seed=i) for i in range(24)]
    for image, one in zip(images[::2], list(defective(images, 2))[::2], strict=True):
        assert np.ptp(one.image, axis=2).max() == 0
        assert change(image, one).any()


@pytest.mark.parametrize("how", ["flat", "white", "black"])
def test_a_flat_photo_gets_a_defect_that_shows(how: str) -> None:
    images = [paint(how, 150, 150, grey=True)] * 24
    for one in defective(images, 4):
        assert change(images[0], one)[one.mask].max() >= 4


def test_defects_lie_on_the_part() -> None:
    part = np.full((300, 300, 3), 200, dtype=np.uint8)
    part[120:180, 30:270] = 90
    part[130:170:8, 30:270] = 60
    part = np.clip(part + np.random.default_rng(0).normal(0, 2, part.shape), 0, 255).astype("uint8")
    near = np.zeros((300, 300), dtype=np.bool_)
    near[105:195, 15:285] = True
    hits = [(one.mask & near).any() for one in defective([part] * 80, 7)]
    assert np.mean(hits) > 0.85


def test_a_texture_gets_defects_everywhere() -> None:
    texture = np.random.default_rng(1).normal(128, 25, (256, 256, 1)).clip(0, 255)
    texture = cv2.GaussianBlur(texture.repeat(3, axis=2).astype(np.uint8), (0, 0), 1.0)
    made = list(defective([texture] * 240, 8))
    centres = np.array([np.argwhere(one.mask).mean(axis=0) for one in made])
    counts, *_ = np.histogram2d(*centres.T, bins=3, range=[[0, 256]] * 2)
    assert counts.min() > 240 / 9 / 3
    assert counts.max() < 240 / 9 * 2


def test_sizes_and_strengths_are_graded(parts: list[Frame8]) -> None:
    side = (160 * 240) ** 0.5
    extents, levels = [], []
    for seed in range(2):
        for image, one in zip(parts, defective(parts, seed), strict=True):
            extents.append(np.ptp(np.argwhere(one.mask), axis=0).max() + 1)
            levels.append(change(image, one)[one.mask].mean())
    assert max(extents) < 3.2 * SIZES[1] * side
    low, high = np.quantile(extents, (0.1, 0.9))
    assert high > 3 * low
    low, high = np.quantile(levels, (0.1, 0.9))
    assert low < 12
    assert high > 3 * low


class Opened(Sequence):
    """A lazy sequence that notes which photos were read."""

    def __init__(self, images: list[Frame8]) -> None:
        self.images, self.read = images, []

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Frame8:
        photo = self.images[index]
        self.read.append(index)
        return photo


def test_photos_are_read_when_needed(parts: list[Frame8]) -> None:
    opened = Opened(parts)
    made = defective(opened, 9)
    assert opened.read == []
    next(made)
    assert 1 <= len(opened.read) <= 2
