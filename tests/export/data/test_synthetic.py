"""Synthetic defects: on any photo, in one place, seen, and the same again for the same seed."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from export.data import misplaced
from export.data.misplaced import find_parts
from export.data.synthetic import (
    FAINT,
    KINDS,
    MARGIN_PX,
    SIZES,
    Synthetic,
    defective,
    left_out,
)
from inspector.verdict import Frame8
from tests.export.conftest import draw_part

MARKS = set(KINDS) - {*FAINT, *misplaced.KINDS}
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


@pytest.mark.long
@settings(max_examples=60)
@given(st.lists(photos, min_size=1, max_size=9), st.integers(0, 2**31))
def test_any_photos_get_one_defect_each(images: list[Frame8], seed: int) -> None:
    before = [image.copy() for image in images]
    made = list(defective(images, seed))
    assert len(made) == len(images)
    for image, kept, one in zip(images, before, made, strict=True):
        assert np.array_equal(image, kept)
        keeps_its_promises(image, one)


@pytest.mark.parametrize(
    "shape", [(16, 16), (20, 400), (400, 20), pytest.param((1400, 1900), marks=pytest.mark.long)]
)
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
    # A kind that finds nothing to show on gives its turn away.
    assert min(counts) >= len(parts) // len(KINDS) - 2
    assert max(counts) <= len(parts) // len(KINDS) + 3
    assert left_out(one.kind for one in made) == ()


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


@pytest.mark.long
def test_a_texture_gets_defects_everywhere() -> None:
    texture = np.random.default_rng(1).normal(128, 25, (256, 256, 1)).clip(0, 255)
    texture = cv2.GaussianBlur(texture.repeat(3, axis=2).astype(np.uint8), (0, 0), 1.0)
    made = [one for one in defective([texture] * 240, 8) if one.kind in MARKS]
    centres = np.array([np.argwhere(one.mask).mean(axis=0) for one in made])
    counts, *_ = np.histogram2d(*centres.T, bins=3, range=[[0, 256]] * 2)
    assert counts.min() > len(made) / 9 / 3
    assert counts.max() < len(made) / 9 * 2


@pytest.mark.long
def test_sizes_and_strengths_are_graded(parts: list[Frame8]) -> None:
    side = (160 * 240) ** 0.5
    extents, levels = [], []
    for seed in range(2):
        for image, one in zip(parts, defective(parts, seed), strict=True):
            if one.kind not in MARKS:
                continue
            extents.append(np.ptp(np.argwhere(one.mask), axis=0).max() + 1)
            levels.append(change(image, one)[one.mask].mean())
    assert max(extents) < 3.2 * SIZES[1] * side
    low, high = np.quantile(extents, (0.1, 0.9))
    assert high > 3 * low
    low, high = np.quantile(levels, (0.1, 0.9))
    assert low < 12
    assert high > 3 * low


def board(height: int = 240, width: int = 320, seed: int = 0, border: int = 0) -> Frame8:
    """A noisy green plate with three components; ``border`` black px on the left and the right."""
    rng = np.random.default_rng(seed)
    photo = np.empty((height, width, 3))
    photo[:] = (60, 110, 50)
    for x, y, colour in ((0.3, 0.3, 25), (0.7, 0.35, 190), (0.5, 0.7, 25)):
        at = (int(x * width), int(y * height))
        size = (width // 14, height // 9)
        corners = [(at[0] + side * size[0], at[1] + side * size[1]) for side in (-1, 1)]
        cv2.rectangle(photo, corners[0], corners[1], (colour,) * 3, -1)
        cv2.circle(photo, corners[0], size[0] // 3, (220, 220, 220), -1)
    photo += rng.normal(0, 3, photo.shape)
    if border:
        photo[:, :border] = photo[:, -border:] = 0
    return photo.clip(0, 255).astype(np.uint8)


@pytest.mark.long
def test_every_misplaced_kind_is_drawn_where_parts_stand_out() -> None:
    photos = [board(seed=seed) for seed in range(42)]
    made = list(defective(photos, 1))
    for photo, one in zip(photos, made, strict=True):
        keeps_its_promises(photo, one)
    counts = {kind: sum(one.kind == kind for one in made) for kind in KINDS}
    assert max(counts.values()) - min(counts.values()) <= 1
    assert left_out(one.kind for one in made) == ()


def test_what_is_missing_has_its_surround_in_its_place() -> None:
    photo = board()
    parts = find_parts(photo)
    assert len(parts) == 3
    plate = np.median(photo.reshape(-1, 3), axis=0)
    for part in parts:
        box, after = misplaced.draw("missing", photo, [part], np.random.default_rng(0))
        filled = after[part.cover[box] > 0.9]
        assert np.abs(filled.mean(axis=0) - plate).max() < 12
        # The plate's noise is there too, so that the place is not given away by being smooth.
        assert 1.0 < filled.std(axis=0).mean() < 12


@pytest.mark.parametrize("kind", misplaced.KINDS)
def test_a_misplaced_part_is_the_part_itself_elsewhere(kind: str) -> None:
    photo = board()
    levels = photo.mean(axis=2)
    part = min(find_parts(photo), key=lambda part: levels[part.cover > 0.5].mean())
    middle = (round(part.row), round(part.column))
    for seed in range(8):
        box, after = misplaced.draw(kind, photo, [part], np.random.default_rng(seed))
        whole = photo.astype(np.float32)
        whole[box] = after
        dark = (whole.mean(axis=2) < 50).sum() / (photo.mean(axis=2) < 50).sum()
        if kind == "doubled":
            assert dark > 1.05
            assert np.array_equal(whole[middle], photo[middle].astype(np.float32))
        elif kind == "missing":
            assert dark < 0.6
        else:
            assert 0.6 < dark < 1.1
        assert np.abs(whole - photo).max() > 60


@pytest.mark.parametrize("how", ["flat", "white", "black", "noise", "stripes"])
def test_a_photo_in_which_nothing_stands_out_gets_no_misplaced_part(how: str) -> None:
    photos = [paint(how, 160, 200, grey=True, seed=seed) for seed in range(24)]
    assert not any(find_parts(photo) for photo in photos)
    made = list(defective(photos, 3))
    assert set(misplaced.KINDS) <= set(left_out(one.kind for one in made))


def test_the_border_of_a_letterbox_is_no_part() -> None:
    photo = board(border=60)
    parts = find_parts(photo)
    assert parts
    for part in parts:
        assert 60 < part.column < 260
        assert part.extent < 120


@pytest.mark.long
@pytest.mark.parametrize("shape", [(16, 16), (20, 400), (900, 1200)])
def test_small_narrow_and_large_boards(shape: tuple[int, int]) -> None:
    photo = board(*shape)
    for one in defective([photo] * len(KINDS), 3):
        keeps_its_promises(photo, one)


def test_grey_boards_stay_grey() -> None:
    grey = cv2.cvtColor(cv2.cvtColor(board(), cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    made = list(defective([grey] * 28, 5))
    assert {one.kind for one in made} >= set(misplaced.KINDS)
    for one in made:
        assert np.ptp(one.image, axis=2).max() == 0


def test_large_faint_changes_are_large_and_faint(parts: list[Frame8]) -> None:
    made = [
        (image, one)
        for image, one in zip(parts, defective(parts, 2), strict=True)
        if one.kind in FAINT
    ]
    assert {one.kind for _, one in made} == set(FAINT)
    areas = np.array([one.mask.mean() for _, one in made])
    levels = np.array([change(image, one)[one.mask].mean() for image, one in made])
    assert np.median(areas) > 0.04
    assert areas.min() > 0.005
    assert levels.max() < 40
    assert np.median(levels) < 20


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
