"""Which photos a folder holds: one rule, the same for everyone who reads a folder."""

from __future__ import annotations

import errno
import os
import re
import socket
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from rich.console import Console

from export.data.dataset import open_good
from export.data.photo_folders import list_photos
from inspector.cameras.folder import list_images
from inspector.cli import judge, tune
from inspector.detection.detector import Detector
from inspector.errors import CameraError, DatasetError, ImageError, OutputError
from inspector.imaging.folders import find_heatmaps, find_images, find_parts, left_out, remarks
from inspector.imaging.images import IMAGE_SUFFIXES, encode_png
from inspector.photos.album import Album
from tests import tiny


def fill(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"not read here")
    return root


def found(root: Path) -> list[str]:
    return [path.relative_to(root).as_posix() for path in find_images(root)]


def test_images_at_any_depth_whatever_their_suffix_s_case(tmp_path: Path) -> None:
    names = ["1.png", "2.JPG", "a/3.jpeg", "a/b/4.Bmp", "a/b/c/5.tif", "a/b/c/6.TIFF"]
    others = ["notes.txt", "a/7.png.part", "a/png", "a/b/8.heic"]
    assert found(fill(tmp_path, *names, *others)) == names


def test_what_is_left_out_is_counted_by_suffix(tmp_path: Path) -> None:
    fill(tmp_path, "a.heic", "b.HEIC", "in/c.heic", "notes.txt", "README", ".hidden.heic")
    fill(tmp_path, "d.jfif", "e.webp", "f.JPE")
    assert left_out(tmp_path) == "3 .heic, 1 .txt, 1 without a suffix"
    assert [path.name for path in find_images(tmp_path)] == ["d.jfif", "e.webp", "f.JPE"]
    (tmp_path / "only").mkdir()
    assert left_out(tmp_path / "only") == ""


def test_a_picture_counts_whatever_it_is_called_and_no_text_does(tmp_path: Path) -> None:
    picture = np.zeros((8, 8, 3), np.uint8)
    photos = {
        "IMG_0001": cv2.imencode(".jpg", picture)[1],
        "part.IMG": cv2.imencode(".webp", picture)[1],
        "scan.001": cv2.imencode(".ppm", picture)[1],
        "top.frame": cv2.imencode(".bmp", picture)[1],
    }
    others = {
        "part.png.bak": encode_png(picture),
        "half.part": encode_png(picture),
        "photo~": encode_png(picture),
        "raw.dng": cv2.imencode(".tiff", picture)[1],
        "BMW.txt": b"BM is how this note begins, and no bitmap does so",
        "P5.md": b"P5 is the fifth part",
        "empty": b"",
    }
    for name, data in (photos | others).items():
        (tmp_path / name).write_bytes(bytes(data))
    assert found(tmp_path) == sorted(photos)
    assert sum(map(int, re.findall(r"(\d+) [.w]", left_out(tmp_path)))) == len(others)


def test_masks_are_no_parts_unless_there_is_nothing_else(tmp_path: Path) -> None:
    parts = ["good/1.png", "scratch/2.png", "label/7.png", "masked/8.png", "9_mask.png"]
    masks = [
        "ground_truth/scratch/2_mask.png",
        "Masks/2.png",
        "scratch/2_GT.png",
        "good/1_label.bmp",
    ]
    fill(tmp_path, *parts, *masks)
    listed, left = find_parts(tmp_path)
    assert [path.relative_to(tmp_path).as_posix() for path in listed] == sorted(parts)
    assert {path.relative_to(tmp_path).as_posix() for path in left} == set(masks)
    assert list_images(tmp_path, "top") == listed
    assert len(find_images(tmp_path)) == len(parts + masks)
    assert (
        f"since they are masks by their names: {len(masks)}" in remarks(tmp_path, listed, left)[0]
    )
    assert len(find_parts(tmp_path / "Masks")[0]) == 1
    assert len(find_parts(fill(tmp_path / "only", "mask/1.png"))[0]) == 1


HEATMAPS = [
    "20260101T000000.000000_top_FAIL_e_1.map.png",
    "a/top_000001_000_FAIL_map.png",
    "a/top_000001_000_FAIL_overlay.jpg",
    "a/000.jpg_overlay.jpg",
]
PHOTOS = [
    "20260101T000000.000000_top_FAIL_e_1.png",
    "a/000.jpg",
    "a/000.png",
    "a/alone.map.png",
    "a/alone_overlay.jpg",
    "a/top_000001_000_FAIL.jpg",
]


def test_heatmaps_beside_their_pictures_are_counted_and_are_no_photos(tmp_path: Path) -> None:
    assert found(fill(tmp_path, *PHOTOS, *HEATMAPS)) == PHOTOS
    assert {path.relative_to(tmp_path).as_posix() for path in find_heatmaps(tmp_path)} == set(
        HEATMAPS
    )
    assert left_out(tmp_path) == ""
    (line,) = remarks(tmp_path, find_images(tmp_path))
    assert line == (f"not read in {tmp_path}, since they are heatmaps of the photos beside them: 4")


def test_photos_that_are_to_be_shown_turned_are_counted(tmp_path: Path) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    for name in ("a.jpg", "b.png", "c.webp"):
        Image.new("RGB", (8, 8)).save(tmp_path / name, exif=turned)
    Image.new("RGB", (8, 8)).save(tmp_path / "d.jpg")
    (tmp_path / "e.png").write_bytes(b"")
    (tmp_path / "f.heic").write_bytes(b"from a phone")
    lines = remarks(tmp_path, find_images(tmp_path))
    assert lines[0].endswith(": 1 .heic")
    assert "3 of 5 photos say that they are to be shown turned" in lines[1]
    assert remarks(tmp_path) == lines[:1]


def test_hidden_folders_are_counted_in_the_line(tmp_path: Path) -> None:
    fill(tmp_path, ".day1/1.png", "a/.day1/2.png", "a/@eaDir/3.png", "a/b.heic", "._1.png")
    assert left_out(tmp_path) == "1 .heic, 3 hidden folders (.day1, @eaDir)"
    (line,) = remarks(tmp_path)
    assert "since they are no photos, or hidden: 1 .heic, 3 hidden folders" in line
    assert left_out(tmp_path / "a") == "1 .heic, 2 hidden folders (.day1, @eaDir)"
    fill(tmp_path / "only", ".day1/1.png")
    with pytest.raises(DatasetError, match=r"no images; .*; not read: 1 hidden folder \(\.day1\)$"):
        open_good(tmp_path / "only")


def test_hidden_files_and_folders_are_left_out(tmp_path: Path) -> None:
    fill(tmp_path, "1.png", "._1.png", ".thumbnails/1.png", "a/.trash/b/2.png", "a/3.png")
    assert found(tmp_path) == ["1.png", "a/3.png"]


def test_a_hidden_folder_that_is_named_is_read(tmp_path: Path) -> None:
    assert found(fill(tmp_path / ".photos", "1.png")) == ["1.png"]


def test_photos_of_a_folder_stay_together(tmp_path: Path) -> None:
    # As text, "a-b/1.png" comes before "a/1.png" and "a.png" between them.
    names = ["a/1.png", "a/2.png", "a-b/1.png", "a.png"]
    assert found(fill(tmp_path, *names)) == ["a/1.png", "a/2.png", "a-b/1.png", "a.png"]


def test_links_to_files_and_folders_are_followed(tmp_path: Path) -> None:
    fill(tmp_path / "elsewhere", "day/1.png", "2.png")
    root = fill(tmp_path / "root", "0.png")
    (root / "day1").symlink_to(tmp_path / "elsewhere" / "day", target_is_directory=True)
    (root / "two.png").symlink_to(tmp_path / "elsewhere" / "2.png")
    assert found(root) == ["0.png", "day1/1.png", "two.png"]
    (tmp_path / "link").symlink_to(root, target_is_directory=True)
    assert found(tmp_path / "link") == ["0.png", "day1/1.png", "two.png"]


@pytest.mark.parametrize("target", [".", "..", "../b"])
def test_a_circle_of_links_ends(tmp_path: Path, target: str) -> None:
    fill(tmp_path, "1.png", "a/2.png", "b/3.png")
    (tmp_path / "b" / "again").symlink_to(tmp_path / "b" / target, target_is_directory=True)
    assert found(tmp_path) == ["1.png", "a/2.png", "b/3.png"]


def test_a_folder_with_two_paths_counts_once_under_the_first(tmp_path: Path) -> None:
    fill(tmp_path, "b/1.png", "c/2.png")
    (tmp_path / "a").symlink_to(tmp_path / "b", target_is_directory=True)
    (tmp_path / "d").symlink_to(tmp_path / "c", target_is_directory=True)
    assert found(tmp_path) == ["a/1.png", "c/2.png"]


def test_a_link_to_nowhere_is_found_and_told_by_who_reads_it(tmp_path: Path) -> None:
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere", target_is_directory=True)
    assert found(tmp_path) == ["gone.png"]


NAMES = st.sampled_from(["a", "b", "c-d", ".e", "f.png", "g.JPG", ".h.png", "i.txt"])


@given(
    files=st.lists(st.lists(NAMES, min_size=1, max_size=4), max_size=12),
    links=st.lists(
        st.tuples(st.lists(NAMES, max_size=3), NAMES, st.lists(NAMES, max_size=3)), max_size=5
    ),
)
def test_any_tree_is_read_as_defined(
    tmp_path_factory: pytest.TempPathFactory,
    files: list[list[str]],
    links: list[tuple[list[str], str, list[str]]],
) -> None:
    """The definition: every real folder that visible names lead to gives its photos once."""
    root = tmp_path_factory.mktemp("tree")
    for parts in files:
        path = root.joinpath(*parts)
        if not any(parent.is_file() for parent in path.parents) and not path.exists():
            fill(root, path.relative_to(root).as_posix())
    for where, name, target in links:
        folder, aim = root.joinpath(*where), root.joinpath(*target)
        if folder.is_dir() and aim.is_dir() and not os.path.lexists(folder / name):
            (folder / name).symlink_to(aim, target_is_directory=True)

    reached = {root.resolve()}
    while (
        more := {
            child.resolve()
            for folder in reached
            for child in folder.iterdir()
            if child.is_dir() and not child.name.startswith(".")
        }
        - reached
    ):
        reached |= more
    expected = {
        child
        for folder in reached
        for child in folder.iterdir()
        if child.is_file() and not child.name.startswith(".")
        if child.suffix.lower() in IMAGE_SUFFIXES
    }
    images = find_images(root)
    assert len(images) == len(expected)
    assert {path.resolve() for path in images} == expected
    assert images == sorted(images)
    assert not any(part.startswith(".") for path in images for part in path.relative_to(root).parts)


def read_album(folder: Path) -> int:
    album = Album(folder)
    try:
        said = album.load(None, lambda done, total: None)
        assert all(line.startswith("not read in ") for line in said), said
        return len(album)
    finally:
        album.close()


def read_for_tuning(folder: Path) -> int:
    detector = Detector.load(tiny.write_bundle(folder.parent / "tiny.onnx"))
    return len(tune._photos(folder, detector, Console(quiet=True)))


READERS: dict[str, tuple[Callable[[Path], int], type[Exception]]] = {
    "training": (lambda folder: len(list_photos(folder)), DatasetError),
    "camera": (lambda folder: len(list_images(folder, "top")), CameraError),
    "judge": (lambda folder: len(list(judge._find([folder], None, []))), ImageError),
    "tune": (read_for_tuning, ImageError),
    "collect": (read_album, OutputError),
}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Three photos: in the folder, in one below it and in a linked one; the rest do not count."""
    root = tmp_path / "root"
    for number, name in enumerate(
        ["1.png", "a/2.png", "../other/3.png", ".hidden/4.png", "a/._5.png"]
    ):
        picture = tiny.good_picture()
        picture[number, :8] = 255
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_png(picture))
    (root / "linked").symlink_to(root / "../other", target_is_directory=True)
    (root / "a" / "circle").symlink_to(root, target_is_directory=True)
    return root


@pytest.mark.parametrize("reader", READERS)
def test_everyone_reads_the_same_photos(tree: Path, reader: str) -> None:
    count, _ = READERS[reader]
    assert count(tree) == 3


@pytest.mark.parametrize("reader", READERS)
def test_nobody_takes_the_heatmaps_of_a_station_for_photos(tree: Path, reader: str) -> None:
    count, _ = READERS[reader]
    # On a monochrome camera a heatmap looks like any of its pictures.
    (tree / "a" / "2.map.png").write_bytes(encode_png(tiny.good_picture()[:, :, 0]))
    assert count(tree) == 3


@pytest.mark.parametrize("reader", READERS)
def test_a_folder_that_cannot_be_read_is_named(
    tree: Path, reader: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    count, error = READERS[reader]
    scan = os.scandir

    def refuse(path: str) -> object:
        """As the system does to all but root, who runs some tests."""
        if Path(path) == tree / "a":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(error, match=rf"{tree / 'a'}: .*Permission denied"):
        count(tree)


def test_pipes_and_sockets_are_no_photos_whatever_their_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever opened one would wait for ever."""
    (tmp_path / "a.png").write_bytes(b"")
    os.mkfifo(tmp_path / "b.png")
    (tmp_path / "c.png").symlink_to("b.png")
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as made:
        made.bind("d.png")
    # What cannot be read is left to its reader, who names it.
    (tmp_path / "e.png").symlink_to("nowhere")
    (tmp_path / "f.png").symlink_to("f.png")
    assert [path.name for path in find_images(tmp_path)] == ["a.png", "e.png", "f.png"]
