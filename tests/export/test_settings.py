"""Options of a training run: what "auto" becomes for the photos at hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from export.settings import LONGEST_PX, SHORTEST_PX, TrainSettings
from inspector.errors import ConfigError
from inspector.imaging.geometry import STRIDE, Box

sides = st.integers(16, 6000)


@pytest.mark.parametrize(
    ("shapes", "size", "fit"),
    [
        ([(360, 360)], (352, 352), "stretch"),
        ([(512, 512)], (512, 512), "stretch"),
        ([(640, 480)], (384, 512), "stretch"),
        ([(1080, 1920)], (512, 288), "stretch"),
        ([(4096, 256)], (64, 512), "letterbox"),
        ([(100, 100)], (256, 256), "stretch"),
        ([(300, 200), (200, 300)], (288, 288), "letterbox"),
        ([(300, 200), (300, 150)], (192, 288), "letterbox"),
    ],
)
def test_auto_follows_the_photos(
    shapes: list[tuple[int, int]], size: tuple[int, int], fit: str
) -> None:
    found = TrainSettings().resolve(shapes)
    assert (found.size, found.fit) == (size, fit)
    assert found.geometry().border == "mirror"


@given(shapes=st.lists(st.tuples(sides, sides), min_size=1, max_size=6))
def test_any_photos_get_a_size_and_keep_their_shape(shapes: list[tuple[int, int]]) -> None:
    found = TrainSettings().resolve(shapes)
    height, width = found.input
    assert height % STRIDE == 0 == width % STRIDE
    assert SHORTEST_PX - STRIDE / 2 <= max(height, width) <= LONGEST_PX
    assert found.sigma_px >= found.patch_px / 2
    if found.fit == "stretch":
        for w, h in shapes:
            assert 1 / 1.13 <= (width / height) / (w / h) <= 1.13
    assert found.resolve(shapes) == found


def test_a_region_decides_the_size_and_given_options_stay() -> None:
    region = Box(x=10, y=10, w=400, h=300)
    assert TrainSettings(region=region).resolve([(2000, 1000)]).size == (288, 384)
    given_ = TrainSettings(size=(64, 96), fit="stretch", sigma=2.0)
    assert given_.resolve([(300, 200), (200, 300)]) == given_


def test_a_bank_too_small_for_the_photos_is_refused_in_one_line() -> None:
    with pytest.raises(
        ConfigError, match=r"photos are judged at 352x352 px: .*bank of 1 items"
    ) as e:
        TrainSettings(gamma_c=1000.0).resolve([(360, 360)])
    assert "\n" not in str(e.value)


def test_before_resolving_there_is_no_size() -> None:
    with pytest.raises(ValueError, match="resolve"):
        _ = TrainSettings().grid


@pytest.mark.parametrize(
    ("strides", "scales", "patch"),
    [
        ("16", "1,0.5", 16),
        ("16", "1", 16),
        ("16", "0.5", 32),
        ("8,16", "0.5", 16),
        ("4", "1,.5", 4),
    ],
)
def test_a_patch_is_the_finest_map_at_the_largest_scale(
    strides: str, scales: str, patch: int
) -> None:
    found = TrainSettings(size=(128, 96), strides=strides, scales=scales)
    assert found.patch_px == patch
    assert found.grid == (128 // patch, 96 // patch)
    assert found.sigma_px >= patch / 2


@pytest.mark.parametrize("scales", ["0.5,1", "1,1", "2", "0.25", "", "half", "nan", "1;0.5"])
def test_other_scales_are_refused(scales: str) -> None:
    with pytest.raises(ValidationError, match=r"1,0\.5|finite"):
        TrainSettings(scales=scales)
