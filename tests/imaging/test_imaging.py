from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inspector.errors import Fault
from inspector.imaging.geometry import Box, Geometry
from inspector.imaging.heatmaps import contact_sheet, map_to_grey, overlay
from inspector.imaging.images import (
    encode_jpeg,
    encode_png,
    gaussian_blur,
    read_image,
    shrink,
    to_bgr8,
)


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_apply_at_input_size_changes_nothing():
    image = picture(64, 96)
    assert np.array_equal(Geometry(height=64, width=96).apply(image), image)


def test_region_is_cut_before_the_resize():
    image = picture(200, 300)
    geometry = Geometry(height=64, width=64, region=Box(x=30, y=20, w=64, h=64))
    assert np.array_equal(geometry.apply(image), image[20:84, 30:94])


def test_region_beyond_the_frame_is_a_fault():
    geometry = Geometry(height=64, width=64, region=Box(x=30, y=20, w=64, h=64))
    with pytest.raises(Fault, match="reaches beyond it") as caught:
        geometry.apply(picture(80, 300))
    assert caught.value.reason == "frame_shape"


def test_another_aspect_than_trained_is_a_fault():
    geometry = Geometry(height=64, width=64, aspect=1.0)
    assert geometry.apply(picture(100, 101)).shape == (64, 64, 3)
    with pytest.raises(Fault, match=r"width/height 2\.000"):
        geometry.apply(picture(100, 200))
    letterbox = geometry.model_copy(update={"fit": "letterbox"})
    assert letterbox.apply(picture(100, 200)).shape == (64, 64, 3)


LETTERBOX = Geometry(height=64, width=64, fit="letterbox", border="mirror")


def test_letterbox_keeps_the_shape_and_mirrors_the_border():
    image = np.full((50, 100, 3), 200, np.uint8)
    image[:, 50:] = 100
    image[:2] = 0
    out = LETTERBOX.apply(image)
    rows, columns = LETTERBOX.inner(image.shape)
    assert (rows, columns) == (slice(16, 48), slice(0, 64))
    for step in range(1, 10):
        assert np.array_equal(out[16 - step], out[16 + step])
    assert set(np.unique(out[20:60, :30])) == {200}
    assert set(np.unique(out[20:60, 34:])) == {100}


def test_a_bundle_that_names_no_border_repeats_it():
    image = np.full((50, 100, 3), 200, np.uint8)
    image[:4] = 0
    out = Geometry(height=64, width=64, fit="letterbox").apply(image)
    assert np.array_equal(out[0], out[16])


def test_a_defect_mirrored_into_the_border_is_reported_once_with_the_highest_peak():
    heat = np.zeros((64, 64), np.float32)
    heat[18:22, 10:14] = 1.5
    heat[10:14, 10:14] = 1.6
    (region,) = LETTERBOX.regions(heat, (50, 100, 3))
    assert (region.x, region.y, region.w, region.h) == (15, 3, 7, 8)
    assert region.peak == pytest.approx(1.6)
    heat[18:22] = 0.0
    heat[40:44, 30:34] = 1.2
    mirrored, other = LETTERBOX.regions(heat, (50, 100, 3))
    assert (mirrored.peak, other.peak) == (pytest.approx(1.6), pytest.approx(1.2))
    assert (mirrored.x, mirrored.y, mirrored.h) == (15, 4, 7)


def test_black_frame_stays_black_in_16_bit():
    dark = np.full((64, 64), 200, np.uint16)
    assert to_bgr8(dark).max() == 0
    assert to_bgr8(np.full((4, 4), 65535, np.uint16)).min() == 255


def test_strides_do_not_matter():
    image = picture(64, 128)
    geometry = Geometry(height=64, width=64)
    assert np.array_equal(geometry.apply(image[:, ::2]), geometry.apply(image[:, ::2].copy()))
    assert geometry.apply(image[:, ::2]).flags.c_contiguous


@settings(max_examples=60)
@given(
    height=st.integers(40, 300),
    width=st.integers(40, 300),
    fit=st.sampled_from(["stretch", "letterbox"]),
    spot=st.tuples(st.floats(0.1, 0.9), st.floats(0.1, 0.9)),
)
def test_a_spot_is_found_where_it_is_in_the_camera_frame(height, width, fit, spot):
    y, x = int(spot[0] * height), int(spot[1] * width)
    image = np.zeros((height, width, 3), np.uint8)
    image[max(0, y - 6) : y + 6, max(0, x - 6) : x + 6] = 255
    geometry = Geometry(height=64, width=96, fit=fit)
    heat = geometry.apply(image)[:, :, 0].astype(np.float32) / 128
    found = geometry.regions(heat, image.shape)
    assert len(found) == 1
    region = found[0]
    assert region.x >= 0
    assert region.y >= 0
    assert region.x + region.w <= width
    assert region.y + region.h <= height
    assert region.x <= x <= region.x + region.w
    assert region.y <= y <= region.y + region.h


@given(
    height=st.integers(40, 200),
    width=st.integers(40, 200),
    layers=st.sampled_from([0, 1, 3, 4]),
    deep=st.booleans(),
    fit=st.sampled_from(["stretch", "letterbox"]),
)
@settings(max_examples=40)
def test_a_region_in_place_gives_the_bits_of_a_copy(height, width, layers, deep, fit):
    """As a camera's process puts it into shared memory: read-only, a view of a larger picture."""
    shape = (height + 9, width + 7, *([layers] if layers else []))
    dtype = np.uint16 if deep else np.uint8
    whole = np.random.default_rng(height * width).integers(0, np.iinfo(dtype).max, shape, dtype)
    whole.flags.writeable = False
    geometry = Geometry(height=64, width=96, fit=fit, region=Box(x=5, y=3, w=width, h=height))
    copy = np.array(whole[3 : 3 + height, 5 : 5 + width])
    expected = geometry.model_copy(update={"region": None}).apply(copy)
    found = geometry.apply(whole)
    assert np.array_equal(found, expected)
    # What is published later does not keep the camera's memory.
    assert not np.shares_memory(found, whole)


def test_regions_are_sorted_by_peak_and_bounded():
    heat = np.zeros((64, 64), np.float32)
    for number in range(40):
        heat[number // 8 * 4, number % 8 * 4] = 1.0 + number / 100
    found = Geometry(height=64, width=64).regions(heat, (64, 64, 3))
    peaks = [region.peak for region in found]
    assert len(peaks) == 32
    assert peaks == sorted(peaks, reverse=True)
    assert peaks[0] == pytest.approx(1.39)


def test_map_below_the_limit_has_no_region():
    heat = np.full((64, 64), 0.999, np.float32)
    assert Geometry(height=64, width=64).regions(heat, (64, 64, 3)) == ()


def test_grey_128_is_the_limit():
    heat = np.asarray([[0.0, 0.999, 1.0, 1.99, 50.0, np.nan, np.inf]], np.float32)
    assert map_to_grey(heat).tolist() == [[0, 127, 128, 254, 255, 255, 255]]


@pytest.mark.parametrize("factor", [2, 4, 7])
def test_one_pixel_scratch_survives_in_the_mask(factor):
    mask = np.zeros((64 * factor, 96 * factor), dtype=np.uint8)
    mask[10:-10, 20 * factor + 1] = 255
    cv2.circle(mask, (70 * factor, 30 * factor), 6 * factor, 255, -1)
    scaled = Geometry(height=64, width=96).apply_mask(mask)
    column = scaled[:, 20] | scaled[:, 21]
    assert column.sum() > 50
    # What is not thin keeps its size: a dilated mask would flatter nobody but is not the truth.
    assert scaled[:, 40:].sum() == pytest.approx(
        (mask[:, 40 * factor :] > 0).sum() / factor**2, rel=0.1
    )


def test_a_region_is_not_cut_out_of_frames_of_another_resolution():
    region = Box(x=10, y=10, w=64, h=64)
    geometry = Geometry(height=64, width=64, region=region, frame=(120, 90))
    assert geometry.apply(np.zeros((90, 120, 3), dtype=np.uint8)).shape == (64, 64, 3)
    with pytest.raises(Fault, match="frames of 120x90"):
        geometry.apply(np.zeros((180, 240, 3), dtype=np.uint8))


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_truncated_file_is_refused(tmp_path, suffix):
    image = picture(60, 80)
    data = encode_png(image) if suffix == ".png" else encode_jpeg(image)
    path = tmp_path / f"part{suffix}"
    path.write_bytes(data)
    assert read_image(path).shape == (60, 80, 3)
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match=f"part\\{suffix}: the image is truncated"):
        read_image(path)


def test_file_that_is_no_image_is_refused(tmp_path):
    path = tmp_path / "part.png"
    with pytest.raises(ValueError, match="No such file"):
        read_image(path)
    path.write_bytes(b"")
    with pytest.raises(ValueError, match="empty"):
        read_image(path)
    path.write_bytes(b"not a picture at all")
    with pytest.raises(ValueError, match="not a readable image"):
        read_image(path)


@pytest.mark.parametrize("encode", [encode_png, encode_jpeg])
@pytest.mark.parametrize("shape", [(4, 4, 2), (4, 4, 7), (0, 4, 3)])
def test_what_is_no_picture_is_not_encoded(encode, shape):
    with pytest.raises(ValueError, match=r"cannot encode a picture of shape \("):
        encode(np.zeros(shape, np.uint8))


def test_blur_spreads_a_point_as_a_gaussian_and_keeps_the_light():
    point = np.zeros((41, 31), np.float32)
    point[20, 15] = 100.0
    blurred = gaussian_blur(point, 2.0)
    squares = (np.arange(41)[:, None] - 20) ** 2 + (np.arange(31) - 15) ** 2
    expected = 100.0 / (2 * np.pi * 2.0**2) * np.exp(-squares / (2 * 2.0**2))
    np.testing.assert_allclose(blurred, expected, atol=0.02)
    assert blurred.sum() == pytest.approx(100.0, rel=1e-4)
    # At the border its reflection lies beyond.
    edge = np.tile(np.float32([0, 0, 0, 90, 0, 0, 0]), (9, 1))
    assert gaussian_blur(edge, 1.0).sum(axis=1) == pytest.approx(edge.sum(axis=1), rel=0.01)


def test_overlay_leaves_a_good_part_as_it_is():
    image = picture(64, 64)
    assert np.array_equal(overlay(image, np.zeros((64, 64), np.uint8)), image)
    hot = overlay(image, np.full((64, 64), 200, np.uint8))
    assert not np.array_equal(hot, image)


def test_contact_sheet_holds_every_picture():
    tiles = [(f"{n}", np.full((64, 64, 3), 10 + n, np.uint8)) for n in range(7)]
    sheet = contact_sheet(tiles, columns=3)
    for number in range(7):
        assert (sheet == 10 + number).all(axis=2).sum() >= 64 * 64


@pytest.mark.parametrize("fit", ["stretch", "letterbox"])
@pytest.mark.parametrize("box", [None, Box(x=40, y=10, w=200, h=100)])
def test_a_map_lies_where_its_regions_are(fit, box):
    geometry = Geometry(height=64, width=96, region=box, fit=fit)
    frame = (300, 500, 3)
    x, y, w, h = geometry.covered(frame)
    heat = np.zeros((64, 96), np.float32)
    heat[20:24, 30:36] = 2.0
    (region,) = geometry.regions(heat, frame)
    # The same corner, told by the map's area and by the region, is within a pixel of the camera's.
    assert abs(x + 30 * w / 96 - region.x) <= 1
    assert abs(y + 20 * h / 64 - region.y) <= 1
    assert abs(6 * w / 96 - region.w) <= 2
    assert abs(4 * h / 64 - region.h) <= 2
    if fit == "letterbox":
        # Both axes have one scale, and the border reaches beyond the region.
        assert w / 96 == pytest.approx(h / 64, rel=0.02)
        assert w * h > (box.w * box.h if box else 500 * 300)


@pytest.mark.parametrize("shape", [(300, 600), (300, 600, 3), (300, 600, 4)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_picture_is_shrunk_to_its_longest_side(shape, dtype):
    picture = np.full(shape, np.iinfo(dtype).max // 2, dtype)
    small = shrink(picture, 100)
    assert (small.shape, small.dtype) == ((50, 100, 3), np.uint8)
    assert abs(int(small.mean()) - 127) <= 1
    assert shrink(picture, 4096).shape == (300, 600, 3)
    with pytest.raises(ValueError, match="is not a picture"):
        shrink(np.zeros((300, 600, 9, 2), np.uint8), 100)
