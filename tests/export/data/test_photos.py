"""Photos as the network sees them, and every bad one's error."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from export.data import photos
from export.data.dataset import Sample, digest_file, open_test
from export.data.layouts import GOOD
from export.data.photos import PhotoFile, Shape, group_copies, load_good, load_sample
from inspector.errors import ConfigError, ImageError, MaskError, TooFewPartsError
from inspector.imaging.geometry import Box, Geometry
from inspector.imaging.images import read_image
from tests.export.conftest import draw_part, good_folder, save, write_parts

GEOMETRY = Geometry(height=64, width=96)


def test_identical_parts(tmp_path: Path) -> None:
    image = draw_part(0)[0]
    # Other files, same picture: file contents differ, what the camera saw does not.
    paths = [save(tmp_path / f"{i}{s}", image) for i in range(6) for s in (".png", ".bmp")]
    with pytest.raises(TooFewPartsError, match=r"12 good parts, but they are all the same picture"):
        load_good(paths, GEOMETRY)


def test_copies_do_not_count_as_parts(tmp_path: Path) -> None:
    paths = [save(tmp_path / f"{i}.png", draw_part(i % 9)[0]) for i in range(40)]
    with pytest.raises(TooFewPartsError, match=r"copies of one another \(9 different"):
        load_good(paths, GEOMETRY)
    paths.append(save(tmp_path / "new.png", draw_part(9)[0]))
    assert load_good(paths, GEOMETRY).remarks == (
        "31 of 41 good parts are copies of another photo",
    )


def test_good_parts_that_are_to_be_shown_turned_are_counted(tmp_path: Path) -> None:
    turned = Image.Exif()
    turned[0x0112] = 8
    paths = [*good_folder(tmp_path)]
    for number in range(3):
        paths.append(tmp_path / f"phone {number}.jpg")
        Image.fromarray(draw_part(50 + number)[0]).save(paths[-1], exif=turned)
    (remark,) = load_good(paths, GEOMETRY).remarks
    assert remark.startswith("3 of 15 photos say that they are to be shown turned (EXIF")


def test_copies_share_a_number_that_hangs_on_the_picture_alone() -> None:
    one, two = draw_part(1)[0], draw_part(2)[0]
    small, turned = one[:40], one[:40].reshape(80, 60, 3)
    found = group_copies(iter([one, small, two, one.copy(), turned])).tolist()
    assert found[0] == found[3]
    assert sorted(found[:3] + found[4:]) == [0, 1, 2, 3]
    assert group_copies([two, turned, one, small]).tolist() == [found[i] for i in (2, 4, 0, 1)]


def test_load_good_is_the_line_geometry(tmp_path: Path) -> None:
    paths = good_folder(tmp_path)
    seen: list[tuple[int, int]] = []
    parts = load_good(paths, GEOMETRY, lambda done, total: seen.append((done, total)))
    assert parts.images.shape == (12, 64, 96, 3)
    assert parts.images.dtype == np.uint8
    for path, image in zip(paths, parts.images, strict=True):
        np.testing.assert_array_equal(image, GEOMETRY.apply(read_image(path)))
    assert parts.geometry.aspect == pytest.approx(120 / 80)
    assert parts.remarks == ()
    assert seen == [(i, 12) for i in range(1, 13)]


def by_first_shape(shapes: Sequence[Shape]) -> Geometry:
    """Another size when photos of several shapes are seen together."""
    return GEOMETRY if len(set(shapes)) == 1 else GEOMETRY.model_copy(update={"width": 128})


@pytest.mark.parametrize("most_kept", [0, 30_000, 10**9])
def test_photos_of_several_shapes_are_read_again_only_beyond_what_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most_kept: int
) -> None:
    paths = list(good_folder(tmp_path))
    opened: list[Path] = []

    class Watched(PhotoFile):
        def __init__(self, path: Path) -> None:
            opened.append(path)
            super().__init__(path)

    monkeypatch.setattr(photos, "PhotoFile", Watched)
    monkeypatch.setattr(photos, "MOST_KEPT", most_kept)
    parts = load_good(paths, by_first_shape)
    assert parts.images.shape == (12, 64, 96, 3)
    assert opened == paths
    paths.append(save(tmp_path / "x.png", cv2.resize(draw_part(50)[0], (240, 160))))
    opened.clear()
    parts = load_good(paths, by_first_shape)
    sizes = np.cumsum([path.stat().st_size for path in paths])
    assert 30_000 < sizes[-1] < 10**9
    again = [path for path, size in zip(paths, sizes, strict=True) if size > most_kept]
    assert opened == [*paths, *again]
    assert parts.images.shape == (13, 64, 128, 3)
    wide = by_first_shape([(1, 1), (2, 2)])
    for path, image in zip(paths, parts.images, strict=True):
        np.testing.assert_array_equal(image, wide.apply(read_image(path)))
    assert parts.shapes == (*[(120, 80)] * 12, (240, 160))
    assert parts.digests == tuple(digest_file(path) for path in paths)


def test_a_photo_that_changes_while_it_is_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [*good_folder(tmp_path), save(tmp_path / "x.png", draw_part(50)[0][:60])]

    def change(done: int, total: int) -> None:
        if done == total:
            save(paths[3], draw_part(51)[0])

    monkeypatch.setattr(photos, "MOST_KEPT", 0)
    with pytest.raises(ImageError, match=r"003\.png: was changed while it was read"):
        load_good(paths, by_first_shape, change)


def test_options_that_no_photo_alone_fits_may_fit_them_together(tmp_path: Path) -> None:
    paths = [*good_folder(tmp_path), save(tmp_path / "x.png", draw_part(50)[0][:60])]

    def picky(shapes: Sequence[Shape]) -> Geometry:
        if len(set(shapes)) == 1:
            raise ConfigError("too small")
        return GEOMETRY

    assert load_good(paths, picky).images.shape == (13, 64, 96, 3)
    with pytest.raises(ConfigError, match="too small"):
        load_good(paths[:12], picky)


def test_grey_and_16_bit_are_read(tmp_path: Path) -> None:
    paths = list(good_folder(tmp_path, count=10))
    colour = draw_part(100)[0]
    grey = cv2.cvtColor(colour, cv2.COLOR_BGR2GRAY)
    deep = grey.astype(np.uint16) * 257
    paths += [save(tmp_path / "g8.png", grey), save(tmp_path / "g16.tif", deep)]
    parts = load_good(paths, GEOMETRY)
    np.testing.assert_array_equal(parts.images[-1], parts.images[-2])
    assert parts.remarks[-1] == "2 of 12 photos are grey, the others in colour"
    assert not parts.geometry.colour
    assert load_good(paths[:10], GEOMETRY).geometry.colour


def test_sizes_may_differ(tmp_path: Path) -> None:
    paths = list(good_folder(tmp_path, count=10))
    paths.append(save(tmp_path / "x.png", cv2.resize(draw_part(50)[0], (240, 160))))
    parts = load_good(paths, GEOMETRY)
    assert parts.geometry.aspect == pytest.approx(1.5)
    assert "2 sizes, from 120x80 to 240x160 px" in parts.remarks[0]
    paths.append(save(tmp_path / "y.png", cv2.resize(draw_part(51)[0], (80, 80))))
    assert load_good(paths, GEOMETRY).geometry.aspect is None
    cropped = GEOMETRY.model_copy(update={"region": Box(x=10, y=10, w=60, h=30)})
    assert load_good(paths, cropped).geometry.aspect == pytest.approx(2.0)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tif"])
def test_truncated_image(tmp_path: Path, suffix: str) -> None:
    paths = good_folder(tmp_path, suffix=suffix)
    whole = paths[7].read_bytes()
    paths[7].write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ImageError, match=rf"007\{suffix}: .*(truncated|not a readable image)"):
        load_good(paths, GEOMETRY)
    with pytest.raises(ImageError, match=rf"007\{suffix}: "):
        load_sample(Sample(paths[7], GOOD, None), GEOMETRY)


@pytest.mark.parametrize("content", [b"", b"this is not a photo"])
def test_unreadable_image(tmp_path: Path, content: bytes) -> None:
    paths = good_folder(tmp_path)
    paths[3].write_bytes(content)
    with pytest.raises(ImageError, match=r"003\.png: .*(empty|not a readable image).*; remove"):
        load_good(paths, GEOMETRY)


def test_impossible_pixels(tmp_path: Path) -> None:
    path = save(tmp_path / "depth.tiff", np.ones((80, 120), dtype=np.float32))
    with pytest.raises(ImageError, match=r"depth\.tiff: a frame of float32"):
        load_sample(Sample(path, GOOD, None), GEOMETRY)


def test_region_outside_a_photo(tmp_path: Path) -> None:
    paths = list(good_folder(tmp_path))
    paths.append(save(tmp_path / "small.png", draw_part(50)[0][:60, :100]))
    region = GEOMETRY.model_copy(update={"region": Box(x=20, y=10, w=90, h=60)})
    with pytest.raises(ImageError, match=r"small\.png: frame is 100x60 px, but the region x=20"):
        load_good(paths, region)


def test_other_shape_than_trained(tmp_path: Path) -> None:
    path = save(tmp_path / "wide.png", cv2.resize(draw_part(0)[0], (400, 80)))
    trained = GEOMETRY.model_copy(update={"aspect": 1.5})
    with pytest.raises(ImageError, match=r"wide\.png: judged region is 400x80 px"):
        load_sample(Sample(path, GOOD, None), trained)


def test_mask_of_another_size(tmp_path: Path) -> None:
    root = write_parts(tmp_path / "disc", good=10)
    mask = root / "ground_truth" / "stain" / "001_mask.png"
    save(mask, np.zeros((40, 60), dtype=np.uint8))
    sample = next(sample for sample in open_test(root) if sample.mask == mask)
    with pytest.raises(MaskError, match=r"001_mask\.png: mask is 60x40 px, its image .* 120x80 px"):
        load_sample(sample, GEOMETRY)


def test_unreadable_mask(tmp_path: Path) -> None:
    root = write_parts(tmp_path / "disc", good=10)
    mask = root / "ground_truth" / "stain" / "001_mask.png"
    mask.write_bytes(mask.read_bytes()[:40])
    sample = next(sample for sample in open_test(root) if sample.mask == mask)
    with pytest.raises(MaskError, match=r"001_mask\.png: .*; draw or copy the mask again"):
        load_sample(sample, GEOMETRY)


@pytest.mark.parametrize(
    ("encode", "suffix"),
    [
        (lambda mask: mask, ".png"),
        (lambda mask: (mask > 0).astype(np.uint8), ".png"),
        (lambda mask: cv2.merge([mask, mask, mask, np.full_like(mask, 255)]), ".png"),
        (lambda mask: mask, ".jpg"),
    ],
    ids=["black and white", "labels", "opaque alpha", "jpeg noise"],
)
def test_mask_marks_the_defect(tmp_path: Path, encode: object, suffix: str) -> None:
    image, drawn = draw_part(5, "stain")
    photo = save(tmp_path / "p.png", image)
    mask = save(tmp_path / f"m{suffix}", encode(drawn))  # type: ignore[operator]
    loaded, truth, _ = load_sample(Sample(photo, "stain", mask), GEOMETRY)
    assert loaded.shape == (64, 96, 3)
    assert truth is not None
    np.testing.assert_array_equal(truth, GEOMETRY.apply_mask(drawn > 0))
    assert truth.sum() == pytest.approx((drawn > 0).sum() * 0.64, rel=0.15)


def test_truth_of_good_unmasked_and_vanished(tmp_path: Path) -> None:
    photo = save(tmp_path / "p.png", draw_part(0)[0])
    black = save(tmp_path / "m.png", np.zeros((80, 120), dtype=np.uint8))
    truth = load_sample(Sample(photo, GOOD, None), GEOMETRY)[1]
    assert truth is not None
    assert truth.shape == (64, 96)
    assert not truth.any()
    assert load_sample(Sample(photo, "stain", None), GEOMETRY)[1] is None
    assert load_sample(Sample(photo, "stain", black), GEOMETRY)[1] is None
