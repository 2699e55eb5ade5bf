"""Folders of parts: what is read, in which order, and every bad one's error."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from export.data.dataset import (
    GOOD,
    Sample,
    fingerprint,
    group_copies,
    load_good,
    load_sample,
    open_good,
    open_test,
)
from inspector.errors import DatasetError, ImageError, MaskError, TooFewPartsError
from inspector.imaging.geometry import Box, Geometry
from inspector.imaging.images import read_image
from tests.export.conftest import draw_part, write_parts
from tests.paths import DATA

GEOMETRY = Geometry(height=64, width=96)
REAL = DATA


def save(path: Path, image: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)
    return path


def good_folder(folder: Path, count: int = 12, suffix: str = ".png") -> tuple[Path, ...]:
    return tuple(save(folder / f"{i:03d}{suffix}", draw_part(i)[0]) for i in range(count))


def test_mvtec_layout(tmp_path: Path) -> None:
    root = write_parts(tmp_path / "disc", good=11, test_good=2, defective=3)
    good, test = open_good(root), open_test(root)
    assert [path.name for path in good] == [f"{i:03d}.png" for i in range(11)]
    assert [sample.kind for sample in test] == [GOOD] * 2 + ["scratch"] * 3 + ["stain"] * 3
    for sample in test:
        expected = root / "ground_truth" / sample.kind / f"{sample.path.stem}_mask.png"
        assert sample.mask == (None if sample.kind == GOOD else expected)


def test_plain_folder_with_subfolders_and_every_format(tmp_path: Path) -> None:
    image = draw_part(0)[0]
    names = ["b/2.PNG", "b/1.jpg", "a/x.JPEG", "3.bmp", "1.tif", "2.TIFF"]
    for name in names:
        save(tmp_path / name, image)
    for number in range(4):
        save(tmp_path / "c" / f"{number}.png", image)
    (tmp_path / "notes.txt").write_text("not a photo")
    save(tmp_path / "b" / "._1.png", image)
    save(tmp_path / ".thumbnails" / "1.png", image)
    found = [path.relative_to(tmp_path).as_posix() for path in open_good(tmp_path)]
    assert found == [
        *("1.tif", "2.TIFF", "3.bmp", "a/x.JPEG", "b/1.jpg", "b/2.PNG"),
        *(f"c/{number}.png" for number in range(4)),
    ]
    assert open_test(tmp_path) == ()


def test_training_never_looks_under_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_parts(tmp_path / "disc", good=11)
    for name in ("test", "ground_truth"):
        for path in (root / name).rglob("*.png"):
            path.write_bytes(b"would be refused if it were opened")
    touched: list[str] = []
    scan = os.scandir

    def watch(path: str) -> object:
        touched.append(str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", watch)
    load_good(open_good(root), GEOMETRY)
    assert touched == [str(root / "train" / "good")]


def test_linked_folder_is_followed_and_a_circle_ends(tmp_path: Path) -> None:
    good_folder(tmp_path / "elsewhere")
    parts = tmp_path / "parts"
    parts.mkdir()
    (parts / "day1").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (parts / "again").symlink_to(parts, target_is_directory=True)
    assert len(open_good(parts)) == 12


@pytest.mark.parametrize("opener", [open_good, open_test])
def test_missing_folder(tmp_path: Path, opener: object) -> None:
    with pytest.raises(DatasetError, match=r"nowhere: no such folder; name a folder"):
        opener(tmp_path / "nowhere")  # type: ignore[operator]


def test_file_instead_of_folder(tmp_path: Path) -> None:
    path = save(tmp_path / "one.png", draw_part(0)[0])
    with pytest.raises(DatasetError, match=r"one\.png: is a file, not a folder"):
        open_good(path)


def test_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"no images; put photos of good parts there"):
        open_good(tmp_path)


@pytest.mark.parametrize("made", ["train/bad", "test/scratch", "ground_truth/scratch"])
def test_layout_without_train_good(tmp_path: Path, made: str) -> None:
    good_folder(tmp_path / made)
    with pytest.raises(DatasetError, match=r"looked for good parts in .*train/good"):
        open_good(tmp_path)


def test_photo_outside_a_kind(tmp_path: Path) -> None:
    root = write_parts(tmp_path / "disc", good=10)
    save(root / "test" / "stray.png", draw_part(0)[0])
    with pytest.raises(DatasetError, match=r"stray\.png: lies outside a folder of its kind"):
        open_test(root)


def test_fewer_than_ten_good_parts(tmp_path: Path) -> None:
    good_folder(tmp_path, count=9)
    with pytest.raises(TooFewPartsError, match=r"9 good parts, at least 10 are needed"):
        open_good(tmp_path)
    good_folder(tmp_path, count=10)
    assert len(open_good(tmp_path)) == 10


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


def test_mask_without_image(tmp_path: Path) -> None:
    root = write_parts(tmp_path / "disc", good=10)
    (root / "test" / "stain" / "002.png").unlink()
    with pytest.raises(MaskError, match=r"002_mask\.png: a mask without an image; add .*/002\.png"):
        open_test(root)


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


def test_two_masks_for_one_image(tmp_path: Path) -> None:
    root = write_parts(tmp_path / "disc", good=10)
    save(root / "ground_truth" / "stain" / "001.png", draw_part(0, "stain")[1])
    with pytest.raises(MaskError, match=r"001\.png: has two masks"):
        open_test(root)


def test_masks_named_like_the_image(tmp_path: Path) -> None:
    root = write_parts(tmp_path / "disc", good=10)
    for mask in (root / "ground_truth").rglob("*_mask.png"):
        mask.rename(mask.with_name(mask.name.replace("_mask", "")))
    assert all(sample.mask for sample in open_test(root) if sample.kind != GOOD)


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


def test_fingerprint_knows_names_and_contents(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    paths, others = good_folder(here), good_folder(there)
    first = fingerprint(paths, here)
    assert len(first) == 64
    assert fingerprint(paths[::-1], here) == first
    assert fingerprint(others, there) == first
    assert fingerprint(paths[1:], here) != first
    data = bytearray(others[0].read_bytes())
    data[-20] ^= 1
    others[0].write_bytes(data)
    assert fingerprint(others, there) != first
    renamed = others[0].rename(there / "zzz.png")
    renamed.write_bytes(paths[0].read_bytes())
    assert fingerprint((renamed, *others[1:]), there) != first
    with pytest.raises(ImageError, match=r"000\.png: No such file"):
        fingerprint(others, there)


@pytest.mark.skipif(not REAL.is_dir(), reason="real photos are not there (../shared/data)")
@pytest.mark.parametrize(
    ("name", "good", "test", "aspect"),
    [("bottle", 209, 83, 1.0), ("screw", 320, 160, 1.0), ("magnetic_tile", 714, 626, None)],
)
def test_real_photos(name: str, good: int, test: int, aspect: float | None) -> None:
    parts, photos = open_good(REAL / name), open_test(REAL / name)
    assert (len(parts), len(photos)) == (good, test)
    assert all(sample.mask for sample in photos if sample.kind != GOOD)
    assert load_good(parts[:40], GEOMETRY).geometry.aspect == aspect
    for sample in photos[:: len(photos) // 10]:
        image, truth, _ = load_sample(sample, GEOMETRY)
        assert image.shape == (64, 96, 3)
        assert truth is None or truth.any() == (sample.kind != GOOD)
