"""Folders of parts: what is read, in which order, and every bad one's error."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from export.data.dataset import fingerprint, open_good, open_test
from export.data.layouts import GOOD
from export.data.photos import load_good, load_sample
from inspector.errors import DatasetError, ImageError, MaskError, TooFewPartsError
from inspector.imaging.geometry import Geometry
from tests.export.conftest import draw_part, good_folder, save, write_parts
from tests.paths import DATA

GEOMETRY = Geometry(height=64, width=96)
REAL = DATA


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
    names = ["day 2/2.PNG", "day 2/1.jpg", "day 1/x.JPEG", "3.bmp", "1.tif", "2.TIFF"]
    for name in names:
        save(tmp_path / name, image)
    for number in range(4):
        save(tmp_path / "day 3" / f"{number}.png", image)
    (tmp_path / "notes.txt").write_text("not a photo")
    save(tmp_path / "day 2" / "._1.png", image)
    save(tmp_path / ".thumbnails" / "1.png", image)
    found = [path.relative_to(tmp_path).as_posix() for path in open_good(tmp_path)]
    assert found == [
        *("1.tif", "2.TIFF", "3.bmp", "day 1/x.JPEG", "day 2/1.jpg", "day 2/2.PNG"),
        *(f"day 3/{number}.png" for number in range(4)),
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
    assert str(root / "train" / "good") in touched
    inside = {Path(path).relative_to(root).as_posix() for path in touched}
    assert inside == {".", "train", "train/good"}


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


def test_mask_without_image(tmp_path: Path) -> None:
    root = write_parts(tmp_path / "disc", good=10)
    (root / "test" / "stain" / "002.png").unlink()
    with pytest.raises(MaskError, match=r"002_mask\.png: a mask without an image; add .*/002\.png"):
        open_test(root)


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
