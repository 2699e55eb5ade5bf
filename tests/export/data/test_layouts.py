"""Layouts of data sets: recognised for what they are, or refused; no defect is ever trained on."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from export.data.dataset import open_good, open_layout, open_test
from export.data.doubts import refuse_unless_good_only
from export.data.folder_names import sound
from export.data.layouts import GOOD, Selection
from export.data.photos import load_sample
from inspector.errors import DatasetError, MaskError
from inspector.imaging.geometry import Geometry
from tests.export.conftest import draw_part, save

IMAGE, MASK = draw_part(1, "stain")
GEOMETRY = Geometry(height=64, width=96)
BLACK = np.zeros(IMAGE.shape[:2], dtype=np.uint8)
WHITE_PART = MASK.astype(np.uint8) * 255


def photos(folder: Path, count: int, suffix: str = ".png", first: int = 0) -> None:
    for number in range(first, first + count):
        save(folder / f"{number:03d}{suffix}", draw_part(number)[0])


def masks(folder: Path, count: int, ending: str = "", first: int = 0) -> None:
    for number in range(first, first + count):
        save(folder / f"{number:03d}{ending}.png", WHITE_PART)


def mvtec(root: Path) -> None:
    photos(root / "train" / "good", 10)
    photos(root / "test" / "good", 2, first=20)
    photos(root / "test" / "crack", 3)
    masks(root / "ground_truth" / "crack", 3, "_mask")


def btad(root: Path) -> None:
    photos(root / "train" / "ok", 10, ".bmp")
    photos(root / "test" / "ok", 2, ".bmp", first=20)
    photos(root / "test" / "ko", 3, ".bmp")
    masks(root / "ground_truth" / "ko", 3)


def visa(root: Path) -> None:
    photos(root / "Data" / "Images" / "Normal", 10, ".jpg")
    photos(root / "Data" / "Images" / "Anomaly", 3, ".jpg")
    masks(root / "Data" / "Masks" / "Anomaly", 3)
    (root / "image_anno.csv").write_text("image,label,mask\n")


def loco(root: Path) -> None:
    photos(root / "train" / "good", 10)
    photos(root / "validation" / "good", 2, first=30)
    photos(root / "test" / "good", 2, first=20)
    photos(root / "test" / "logical_anomalies", 3)
    for number in range(3):
        folder = root / "ground_truth" / "logical_anomalies" / f"{number:03d}"
        save(folder / "000.png", WHITE_PART)
        save(folder / "001.png", np.flipud(WHITE_PART))


def kolektor_2(root: Path) -> None:
    for split, first in (("train", 0), ("test", 100)):
        for number in range(first, first + 15):
            save(root / split / f"{number}.png", draw_part(number)[0])
            defective = number % 5 == 0
            save(root / split / f"{number}_GT.png", WHITE_PART if defective else BLACK)


def kolektor(root: Path) -> None:
    for number in range(15):
        folder = root / f"kos{number:02d}"
        save(folder / "Part0.jpg", draw_part(number)[0])
        save(folder / "Part0_label.bmp", WHITE_PART if number % 5 == 0 else BLACK)


def beside(root: Path) -> None:
    photos(root / "good", 10)
    photos(root / "crack", 3)
    masks(root / "mask" / "crack", 3)


def ok_ng(root: Path) -> None:
    photos(root / "OK", 10)
    photos(root / "NG", 3)
    masks(root / "masks", 3)


def kinds_of_defects(root: Path) -> None:
    photos(root / "OK", 10)
    photos(root / "NG" / "scratch", 3)
    photos(root / "NG" / "dent", 2)
    masks(root / "masks" / "scratch", 3)


def kinds_in_test(root: Path) -> None:
    photos(root / "train" / "ok", 10)
    photos(root / "test" / "ok", 2, first=20)
    photos(root / "test" / "ko" / "dent", 2)
    masks(root / "ground_truth" / "ko" / "dent", 2)


def casting(root: Path) -> None:
    photos(root / "train" / "ok_front", 10)
    photos(root / "train" / "def_front", 4, first=50)
    photos(root / "test" / "ok_front", 2, first=20)
    photos(root / "test" / "def_front", 3)


def mvtec_2(root: Path) -> None:
    photos(root / "train" / "good", 10)
    photos(root / "validation" / "good", 2, first=30)
    photos(root / "test_public" / "good", 2, first=20)
    photos(root / "test_public" / "bad", 3)
    masks(root / "test_public" / "ground_truth" / "bad", 3, "_mask")
    photos(root / "test_private", 2, first=60)


def real_iad(root: Path) -> None:
    photos(root / "OK" / "S0001", 10, ".jpg")
    photos(root / "NG" / "AK" / "S0002", 3, ".jpg")
    masks(root / "NG" / "AK" / "S0002", 3)


def dagm(root: Path) -> None:
    for split, first in (("Train", 0), ("Test", 100)):
        photos(root / split, 15, ".PNG", first=first)
        for number in range(first, first + 15, 5):
            save(root / split / "Label" / f"{number:03d}_label.PNG", WHITE_PART)


def masks_beside(root: Path) -> None:
    photos(root / "train" / "good", 10)
    photos(root / "test" / "good", 2, first=20)
    photos(root / "test" / "crack", 3)
    masks(root / "test" / "crack", 3, "_mask")


def mvtec_3d(root: Path) -> None:
    photos(root / "train" / "good" / "rgb", 10)
    photos(root / "train" / "good" / "xyz", 10, ".tiff")
    for kind, count in (("good", 2), ("crack", 3), ("hole", 3)):
        photos(root / "test" / kind / "rgb", count, first=20)
        photos(root / "test" / kind / "xyz", count, ".tiff", first=20)
        for number in range(20, 20 + count):
            mask = BLACK if kind == "good" else WHITE_PART
            save(root / "test" / kind / "gt" / f"{number:03d}.png", mask)


def masks_in_kinds(root: Path) -> None:
    photos(root / "train" / "good", 10)
    for kind in ("rust", "NG/dent"):
        photos(root / "test" / kind, 3)
        masks(root / "test" / kind / "mask", 3)
    photos(root / "test" / "NG" / "gap", 2, first=50)
    masks(root / "test" / "NG" / "mask" / "gap", 2, first=50)


def unpacked_zip(root: Path) -> None:
    photos(root / "good", 10)
    photos(root / "NG_2024", 3)
    (root / "__MACOSX" / "good").mkdir(parents=True)
    save(root / "__MACOSX" / "good" / "twin.png", IMAGE)
    save(root / "good" / "@eaDir" / "000.png" / "SYNOPHOTO_THUMB_M.jpg", IMAGE)
    (root / "Thumbs.db").write_bytes(b"no photo")
    (root / "empty").mkdir()


def heap(root: Path) -> None:
    photos(root / "monday", 6)
    photos(root / "tuesday" / "camera 2", 4)


@pytest.mark.parametrize(
    ("write", "name", "good", "kinds", "masked"),
    [
        (mvtec, "MVTec AD", 10, {GOOD: 2, "crack": 3}, 3),
        (btad, "MVTec AD with other names", 10, {GOOD: 2, "ko": 3}, 3),
        (visa, "VisA", 10, {"Anomaly": 3}, 3),
        (loco, "MVTec AD", 10, {GOOD: 2, "logical_anomalies": 3}, 3),
        (kolektor_2, "Kolektor", 12, {GOOD: 12, "defective": 3}, 3),
        (kolektor, "Kolektor", 12, {"defective": 3}, 3),
        (beside, "good parts beside defects", 10, {"crack": 3}, 3),
        (ok_ng, "good parts beside defects", 10, {"NG": 3}, 3),
        (casting, "MVTec AD with other names", 10, {GOOD: 2, "def_front": 3}, 0),
        (heap, "good parts only", 10, {}, 0),
        (mvtec_2, "MVTec AD", 10, {GOOD: 2, "bad": 3}, 3),
        (real_iad, "good parts beside defects", 10, {"NG/AK": 3}, 3),
        (kinds_of_defects, "good parts beside defects", 10, {"NG/dent": 2, "NG/scratch": 3}, 3),
        (kinds_in_test, "MVTec AD with other names", 10, {GOOD: 2, "ko/dent": 2}, 2),
        (dagm, "DAGM", 12, {GOOD: 12, "defective": 3}, 3),
        (masks_beside, "MVTec AD", 10, {GOOD: 2, "crack": 3}, 3),
        (mvtec_3d, "MVTec 3D-AD, colour photos alone", 10, {GOOD: 2, "crack": 3, "hole": 3}, 6),
        (masks_in_kinds, "MVTec AD", 10, {"rust": 3, "NG/dent": 3, "NG/gap": 2}, 8),
        (unpacked_zip, "good parts beside defects", 10, {"NG_2024": 3}, 0),
    ],
)
def test_a_layout_is_recognised(tmp_path, write, name, good, kinds, masked) -> None:
    write(tmp_path)
    layout = open_layout(tmp_path)
    assert layout.name == name
    parts = open_good(tmp_path)
    assert len(parts) == good
    samples = open_test(tmp_path)
    assert Counter(sample.kind for sample in samples) == kinds
    assert not set(parts) & {sample.path for sample in samples}
    assert sum(sample.mask is not None for sample in samples) == masked
    for sample in samples:
        mask = load_sample(sample, GEOMETRY).mask
        assert (mask is None) == (sample.kind != GOOD and sample.mask is None)
        assert mask is None or mask.any() == (sample.kind != GOOD)
    counted = sum(row.photos for row in layout.rows() if row.role == "good parts")
    assert counted == good


def test_masks_of_one_photo_are_joined(tmp_path: Path) -> None:
    loco(tmp_path)
    sample = next(sample for sample in open_test(tmp_path) if sample.kind != GOOD)
    mask = load_sample(sample, GEOMETRY).mask
    both = GEOMETRY.apply_mask(WHITE_PART.astype(bool) | np.flipud(WHITE_PART).astype(bool))
    assert np.array_equal(mask, both)


@pytest.mark.parametrize(
    "folders",
    [
        ("crack",),
        ("monday", "mask"),
        ("monday/defects", "tuesday"),
        ("good", "ok", "crack"),
        ("a/good", "a/bad"),
        ("shift 1/train", "shift 2/train"),
        ("not_good", "monday"),
        ("良品/1", "正常"),
        ("positive", "negative"),
        ("0", "1"),
        ("class 1", "class 2"),
        ("one/scrach", "one/monday"),
        ("bottle/gut", "bottle/schlecht"),
        ("monday", "polygons"),
        ("good", "camera 2"),
        ("good", "validation"),
        ("good", "unlabeled"),
        ("good", "1"),
        ("good/rust", "good/monday"),
        ("train/good/rust", "train/good/monday"),
        ("Data/Images/Normal", "Data/Images/camera 2"),
    ],
)
def test_what_leaves_doubt_is_refused_with_both_ways_out(tmp_path: Path, folders) -> None:
    for number, folder in enumerate(folders):
        photos(tmp_path / folder, 12, first=20 * number)
    with pytest.raises(DatasetError) as caught:
        open_good(tmp_path)
    assert "--good DIR" in str(caught.value)
    assert "train/good" in str(caught.value)
    chosen = Selection(good=(folders[0],))
    assert len(open_good(tmp_path, chosen)) == 12
    assert {path.relative_to(tmp_path / folders[0]).name for path in open_good(tmp_path, chosen)}


def files(root: Path, *names: str) -> Path:
    """Photos by their names alone; "*" stands for 10 numbers."""
    for name in names:
        for number in range(10) if "*" in name else (0,):
            path = root / name.replace("*", f"{number:03d}")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    return root


@pytest.mark.parametrize(
    "names",
    [
        *(("P", "F"), ("G", "N"), ("A", "B"), ("o", "x"), ("0", "1"), ("1", "2"), ("0", "1", "2")),
        *(("+", "-"), ("✓", "✗"), ("优", "劣"), ("優", "劣"), ("monday", "x"), ("monday", "劣")),
        *(("c0", "c1"), ("01", "02"), ("P0001", "F0001"), (".", "伤"), (".", "A"), ("α", "β")),
    ],
)
def test_names_as_people_give_them_to_classes_make_no_heap(tmp_path, names) -> None:
    files(tmp_path, *(f"{name}/*.png" for name in names))
    with pytest.raises(DatasetError, match=r"which are the good parts.*--good DIR.*train/good"):
        open_good(tmp_path)


@pytest.mark.parametrize(
    "names",
    [
        *(("lot 1", "lot 2"), ("lot A", "lot B"), ("2024-05-01", "2024-05-02"), ("5月1日", "6月")),
        *(("S0001", "S0002"), ("camera 1", "camera 2"), (".", "monday"), ("20240501", "kw 18")),
    ],
)
def test_names_that_tell_when_where_or_how_make_a_heap(tmp_path, names) -> None:
    files(tmp_path, *(f"{name}/*.png" for name in names))
    assert len(open_good(tmp_path)) == 10 * len(names)


@pytest.mark.parametrize(
    ("good", "other"),
    [
        ("good_*.png", "rust_000.png"),
        ("part_ok_*.png", "part_porosity_*.png"),
        ("OK*.png", "Lunker.png"),
    ],
)
@pytest.mark.parametrize(("folder", "all_good"), [("", r"\."), ("good/", "good")])
def test_names_of_files_may_be_those_of_classes(tmp_path, good, other, folder, all_good) -> None:
    files(tmp_path, folder + good, folder + other)
    with pytest.raises(
        DatasetError, match=f"sound like good parts.*called other.*--good {all_good} "
    ):
        open_good(tmp_path)
    assert len(open_good(tmp_path, Selection(good=(folder or ".",)))) >= 11


def test_names_of_files_that_tell_nothing_beside_good_ones_are_no_classes(tmp_path) -> None:
    files(tmp_path, "IMG_*.png", "cup_ok_*.png", "cup_*.png")
    assert len(open_good(tmp_path)) == 30


@pytest.mark.parametrize(
    ("inside", "named"),
    [
        ("OK/NG", ("OK",)),
        ("OK/mask", ("OK",)),
        ("OK/monday/crack", ("OK", "OK/monday")),
        ("NG", (".",)),
    ],
)
def test_other_parts_in_a_folder_that_is_named_as_good_must_be_named_too(
    tmp_path: Path, inside: str, named: tuple[str, ...]
) -> None:
    files(tmp_path, "OK/*.png", f"{inside}/0*.png")
    (tmp_path / "OK" / "monday").mkdir(exist_ok=True)
    with pytest.raises(DatasetError, match=f"--good names '.*', but that has photos in '{inside}'"):
        open_good(tmp_path, Selection(good=named))
    assert len(open_good(tmp_path, Selection(good=(*named, inside)))) == 20


@pytest.mark.parametrize("name", ["NG", "NG 2024", "bad parts", "defects", "不良品", "masks"])
def test_the_data_folder_s_own_name_may_say_that_all_is_defective(tmp_path, name) -> None:
    root = files(tmp_path / name, "*.png")
    with pytest.raises(DatasetError, match=r"has the name of a folder of .*--good \. "):
        open_good(root)
    assert len(open_good(root, Selection(good=(".",)))) == 10
    # A whole data set may be called after what is looked for.
    assert len(open_good(files(tmp_path / "crack detector", "*.png"))) == 10
    assert len(open_good(files(tmp_path / "masked", "*.png"))) == 10


@pytest.mark.parametrize(
    "names",
    [("ok/*.png", "rust/*.png"), ("rust/*.png",), ("P/*.png", "F/*.png"), ("*.png", "NG_3.png")],
)
def test_what_may_be_no_good_part_is_not_taught(tmp_path: Path, names: tuple[str, ...]) -> None:
    with pytest.raises(DatasetError, match="good parts"):
        refuse_unless_good_only(files(tmp_path, *names))


def test_pictures_that_a_station_rejected_are_taught_whatever_their_names(tmp_path: Path) -> None:
    names = ("top_*_000_FAIL.jpg", "top_*_000_PASS.jpg", "monday/*.png", "ok/*.png")
    refuse_unless_good_only(files(tmp_path, *names))


@pytest.mark.parametrize("label", ["readme.txt", "007_label.png"])
def test_photos_beside_a_folder_without_their_masks_are_not_dagm(tmp_path, label) -> None:
    (tmp_path / "train").mkdir()
    files(tmp_path / "train", *(f"1{number}.png" for number in range(10)), f"masks/{label}")
    with pytest.raises(DatasetError, match=r"looked for good parts in .*train/good"):
        open_good(tmp_path)


def test_a_mask_in_the_folder_of_its_kind_that_belongs_to_no_photo_is_named(tmp_path) -> None:
    masks_in_kinds(tmp_path)
    (tmp_path / "test" / "rust" / "001.png").unlink()
    with pytest.raises(MaskError, match=r"rust/mask/001\.png: a mask .* add .*/rust/001\.png"):
        open_test(tmp_path)


def test_a_folder_of_test_photos_is_called_after_what_they_show(tmp_path: Path) -> None:
    files(tmp_path, "train/good/*.png", "test/camera 2/*.png")
    with pytest.raises(DatasetError, match=r"test/camera 2: .*rename it to 'good', or after the"):
        open_test(tmp_path)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        *(
            ("labels.csv", "a,b"),
            ("annotations/a.json", "{}"),
            ("003.xml", ""),
            ("defects.txt", ""),
        ),
        *(("table.csv", "file,class\n004.png,1\n"), ("all.json", '{"file": "images/004.png"}')),
    ],
)
def test_a_file_that_may_say_which_photos_are_good_is_no_news_to_miss(tmp_path, name, text) -> None:
    files(tmp_path, "images/*.png", "notes.txt", name)
    (tmp_path / name).write_text(text)
    with pytest.raises(DatasetError, match=f"has '{name}', which may say .*--good DIR"):
        open_good(tmp_path)
    assert len(open_good(tmp_path, Selection(good=(".",)))) == 10
    (tmp_path / name).unlink()
    assert len(open_good(tmp_path)) == 10


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        *(("gut", "schlecht"), ("Gutteile", "Schlechtteile"), ("i.O.", "n.i.O.")),
        *(("in Ordnung", "nicht in Ordnung"), ("合格品", "不合格品"), ("正常", "異常")),
        *(("bons", "défauts"), ("conforme", "non conforme"), ("buoni", "scarti")),
        *(("OK1", "NG1"), ("goodParts", "badParts"), ("OKimages", "NGimages")),
        *(("годные", "брак"), ("양품", "불량품"), ("accepted", "rejected")),
    ],
)
def test_good_and_bad_are_known_in_many_words(tmp_path: Path, good: str, bad: str) -> None:
    photos(tmp_path / good, 10)
    photos(tmp_path / bad, 2)
    assert {path.parent.name for path in open_good(tmp_path)} == {good}
    assert {sample.kind for sample in open_test(tmp_path)} == {bad}


def test_names_of_files_may_sound_like_defects(tmp_path: Path) -> None:
    photos(tmp_path, 12)
    save(tmp_path / "NG_1.png", IMAGE)
    with pytest.raises(DatasetError, match=r"1 photos .* like defects \(NG_1\.png\) .*--good DIR"):
        open_good(tmp_path)
    assert len(open_good(tmp_path, Selection(good=(".",)))) == 13
    # Where all are called so, it is the name of the product.
    for path in tmp_path.glob("0*.png"):
        path.rename(path.with_name(f"chip {path.name}"))
    assert len(open_good(tmp_path)) == 13


def test_a_mask_beside_a_good_part_is_not_trained_on(tmp_path: Path) -> None:
    photos(tmp_path / "good", 12)
    save(tmp_path / "good" / "003_mask.png", BLACK)
    photos(tmp_path / "bad", 2)
    assert len(open_good(tmp_path)) == 12
    save(tmp_path / "good" / "004_mask.png", WHITE_PART)
    with pytest.raises(DatasetError, match=r"004\.png: .* mask 004_mask\.png marks a defect"):
        open_good(tmp_path)


def test_where_each_photo_has_a_mark_of_a_defect_none_is_good(tmp_path: Path) -> None:
    photos(tmp_path, 12)
    masks(tmp_path, 12, "_mask")
    with pytest.raises(DatasetError, match="each photo has a mask beside it that marks a defect"):
        open_good(tmp_path)


def test_a_link_from_the_good_parts_to_the_defects_is_refused(tmp_path: Path) -> None:
    photos(tmp_path / "good", 12)
    photos(tmp_path / "bad", 2)
    (tmp_path / "good" / "more").symlink_to(tmp_path / "bad", target_is_directory=True)
    with pytest.raises(DatasetError, match=r"more.*is a link to .*bad"):
        open_good(tmp_path)


def test_a_folder_around_data_sets_names_them(tmp_path: Path) -> None:
    for name in ("bottle", "cap"):
        mvtec(tmp_path / name)
    with pytest.raises(
        DatasetError,
        match=r"holds data sets of its own \('bottle', 'cap'\); name one, such as .*bottle$",
    ):
        open_good(tmp_path)


def test_kinds_of_defects_are_told_apart_where_a_person_named_the_good_parts(
    tmp_path: Path,
) -> None:
    kinds_of_defects(tmp_path)
    samples = open_test(tmp_path, Selection(good=("OK",)))
    assert Counter(sample.kind for sample in samples) == {"NG/scratch": 3, "NG/dent": 2}
    # Days are no kinds.
    (tmp_path / "NG" / "scratch").rename(tmp_path / "NG" / "monday")
    (tmp_path / "NG" / "dent").rename(tmp_path / "NG" / "tuesday")
    (tmp_path / "masks" / "scratch").rename(tmp_path / "masks" / "monday")
    assert Counter(sample.kind for sample in open_test(tmp_path)) == {"NG": 5}


def test_good_parts_among_the_defects_are_asked_about_and_what_was_recognised_is_said(
    tmp_path: Path,
) -> None:
    kinds_of_defects(tmp_path)
    (tmp_path / "NG" / "dent").rename(tmp_path / "NG" / "okay")
    with pytest.raises(DatasetError, match="'OK' was taken for the good parts, and 'NG' beside it"):
        open_good(tmp_path)


@pytest.mark.parametrize(("name", "meant"), [("goood", "good"), ("normall", "normal")])
def test_a_misspelt_folder_is_asked_about(tmp_path: Path, name: str, meant: str) -> None:
    photos(tmp_path / name, 12)
    photos(tmp_path / "good", 12, first=20)
    with pytest.raises(DatasetError, match=f"'{name}' .is '{meant}' meant"):
        open_good(tmp_path)


def test_subfolders_of_good_parts_are_shown_one_by_one(tmp_path: Path) -> None:
    heap(tmp_path)
    save(tmp_path / "0.png", IMAGE)
    rows = open_layout(tmp_path).rows()
    shown = [(row.folder.relative_to(tmp_path).as_posix(), row.photos) for row in rows]
    assert shown == [(".", 1), ("monday", 6), ("tuesday", 4)]


def test_photos_beside_a_good_folder_leave_doubt(tmp_path: Path) -> None:
    photos(tmp_path / "good", 12)
    photos(tmp_path, 3, first=50)
    with pytest.raises(DatasetError, match="--good DIR"):
        open_good(tmp_path)


def test_left_out_photos_are_not_trained_on_and_must_be_there(tmp_path: Path) -> None:
    photos(tmp_path, 13)
    out = Selection(leave_out=("004.png", "007.png"))
    kept = open_good(tmp_path, out)
    assert len(kept) == 11
    assert not {"004.png", "007.png"} & {path.name for path in kept}
    with pytest.raises(DatasetError, match=r"nowhere\.png: is not among the good parts"):
        open_good(tmp_path, Selection(leave_out=("nowhere.png",)))


def test_a_mask_that_two_photos_claim_is_refused(tmp_path: Path) -> None:
    photos(tmp_path / "good", 10)
    photos(tmp_path / "crack", 2)
    photos(tmp_path / "stain", 2)
    masks(tmp_path / "mask", 2)
    with pytest.raises(MaskError, match=r"belongs to .*crack.*000\.png or to .*stain.*000\.png"):
        open_test(tmp_path)


def test_a_photo_without_its_twin_is_named(tmp_path: Path) -> None:
    kolektor_2(tmp_path)
    (tmp_path / "train" / "7_GT.png").unlink()
    with pytest.raises(DatasetError, match=r"7\.png: has no mask beside it"):
        open_good(tmp_path)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        *(("good", "good"), ("OK", "good"), ("ok_front", "good"), ("Normal", "good")),
        *(("良品", "good"), ("不良品", "bad"), ("not good", "bad"), ("no_defect", "bad")),
        *(("NG", "bad"), ("def_front", "bad"), ("Anomaly", "bad"), ("crack-2", "bad")),
        *(("ground_truth", "mask"), ("GT", "mask"), ("Masks", "mask")),
        *(("OkTeile", "good"), ("无缺陷", "good"), ("beschädigt", "bad"), ("NG2024", "bad")),
        *(
            ("非合格品", "bad"),
            ("非良品", "bad"),
            ("未合格", "bad"),
            ("非正常", "bad"),
            ("不好", "bad"),
        ),
        *(
            ("不良", "bad"),
            ("良否", "bad"),
            ("良品ではない", "bad"),
            ("불합격", "bad"),
            ("良品NG", "bad"),
        ),
        *(
            ("無欠陥", "good"),
            ("異常なし", "good"),
            ("합격", "good"),
            ("非OK", "bad"),
            ("未OK", "bad"),
        ),
        *(("sub_normal", "bad"), ("SubNormal", "bad"), ("n ok", "bad"), ("niet goed", "bad")),
        *(("iyi değil", "bad"), ("never passed", "bad"), ("OK no. 3", "good"), ("subnormal", "")),
        *(
            ("almost good", ""),
            ("ok?", ""),
            ("OK ✗", ""),
            ("false_good", ""),
            ("false_rejects", ""),
        ),
        *(("monday", ""), ("camera 2", ""), ("okra", ""), ("goodyear", ""), ("", "")),
    ],
)
def test_what_a_name_says(name: str, says: str) -> None:
    assert sound(name) == says


WORDS = ["good", "ok", "bad", "crack", "mask", "train", "test", "monday", "camera", "Data"]


@settings(max_examples=60)
@given(st.sets(st.lists(st.sampled_from(WORDS), max_size=3).map("/".join), min_size=1, max_size=4))
def test_whatever_the_folders_no_defect_is_trained_on(
    tmp_path_factory: pytest.TempPathFactory, folders: set[str]
) -> None:
    root = tmp_path_factory.mktemp("any")
    small = np.full((8, 8, 3), 90, dtype=np.uint8)
    for number, folder in enumerate(sorted(folders)):
        (root / folder).mkdir(parents=True, exist_ok=True)
        for one in range(10):
            assert cv2.imwrite(str(root / folder / f"{number}{one}.png"), small)
    try:
        found = open_good(root)
    except DatasetError:
        return
    for path in found:
        words = path.relative_to(root).parts[:-1]
        assert not {"bad", "crack", "mask", "test"} & set(words)
    # Where some are said to be good, no others are taken for good.
    if any({"good", "ok"} & set(folder.split("/")) for folder in folders):
        assert all({"good", "ok"} & set(path.relative_to(root).parts) for path in found)
