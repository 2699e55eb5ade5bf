from __future__ import annotations

import os
import shutil
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import pytest

from inspector.clock import Clock
from inspector.config.station_file import JournalSettings
from inspector.imaging.folders import find_heatmaps, find_images
from inspector.imaging.geometry import Box
from inspector.imaging.images import encode_png, read_image
from inspector.journal.pictures import Archive, pictures, read_record
from inspector.verdict import Verdict
from tests import running, tiny
from tests.records import NOW_US, verdict

DAY_US = 86_400_000_000
NOISE = np.random.default_rng(3)


def frame(kilobytes: int = 100, dtype: type = np.uint8) -> np.ndarray:
    """Noise: as PNG about as large as it is."""
    return NOISE.integers(0, 255, (kilobytes, 1024), dtype=dtype)


def settings(**changes: object) -> JournalSettings:
    return JournalSettings(**{"reserve_mb": 1, "pass_share": 1.0, **changes})


def fail(seq: int, **changes: object) -> object:
    return verdict(seq, verdict="FAIL", score=1.5, reason="anomaly", **changes)


def kept(folder: Path) -> list[tuple[str, int]]:
    return [(picture.verdict.value, picture.load()[0].verdict.seq) for picture in pictures(folder)]


@pytest.mark.parametrize("shape", [(8, 9), (8, 9, 1), (8, 9, 3), (8, 9, 4)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_frame_comes_back_as_the_camera_gave_it(tmp_path: Path, shape: tuple, dtype: type) -> None:
    image = NOISE.integers(0, np.iinfo(dtype).max, shape, dtype=dtype)
    box = Box(x=1, y=2, w=3, h=4)
    heat = np.full((4, 4), 0.5, dtype=np.float32)
    said = fail(7, part_id="Blech ä/..", epoch="a1b2c3d4-5678")
    assert Archive(tmp_path, settings()).keep(said, image, heat, box, checked=False)
    (picture,) = pictures(tmp_path)
    record, found = picture.load()
    assert (record.verdict, record.region, record.checked) == (said, box, False)
    assert np.array_equal(found.reshape(image.shape), image)
    assert found.dtype == dtype
    assert picture.path.name == "20240501T100007.000000_top_FAIL_a1b2c3d4_000000007.png"
    assert picture.path.parent.name == "2024-05-01"
    assert picture.judged_us == said.judged_us
    assert (read_image(picture.path.with_suffix(".map.png")) == 64).all()


def test_its_folder_can_be_read_as_photos_and_no_heatmap_is_one(tmp_path: Path) -> None:
    archive = Archive(tmp_path, settings())
    assert archive.keep(fail(1), frame(1)[:, :, None], np.ones((4, 4), np.float32))
    (picture,) = pictures(tmp_path)
    assert find_images(tmp_path) == [picture.path]
    assert find_heatmaps(tmp_path) == [picture.path.with_suffix(".map.png")]


def test_any_camera_name_is_read_back(tmp_path: Path) -> None:
    archive = Archive(tmp_path, settings())
    for seq, name in enumerate(("a_PASS_b", "x.y-z_1", "FAIL"), 1):
        archive.keep(fail(seq, camera=name), frame(1))
    assert [each.camera for each in pictures(tmp_path)] == ["a_PASS_b", "x.y-z_1", "FAIL"]


def test_what_is_no_picture_is_not_kept(tmp_path: Path) -> None:
    archive = Archive(tmp_path, settings())
    for odd in (np.zeros((2, 2), np.float32), np.zeros((2, 2, 2), np.uint8), np.zeros(0, np.uint8)):
        assert not archive.keep(fail(1), odd)
    assert list(pictures(tmp_path)) == []


def test_all_but_pass_is_wanted_and_a_fair_share_of_pass(tmp_path: Path) -> None:
    archive = Archive(tmp_path, settings(pass_share=0.1))
    assert archive.wants(fail(1))
    assert archive.wants(verdict(1, verdict="FAULT", score=None, reason="too_dark"))
    drawn = [seq for seq in range(1, 10_001) if archive.wants(verdict(seq))]
    assert 900 < len(drawn) < 1100
    # A line whose every tenth part comes from the same mould is sampled from all ten.
    per_mould = [sum(seq % 10 == mould for seq in drawn) for mould in range(10)]
    assert min(per_mould) > 60
    assert drawn == [seq for seq in range(1, 10_001) if archive.wants(verdict(seq))]
    assert not any(
        Archive(tmp_path, settings(pass_share=0.0)).wants(verdict(s)) for s in range(1, 100)
    )
    assert all(Archive(tmp_path, settings(pass_share=1.0)).wants(verdict(s)) for s in range(1, 100))
    assert not Archive(tmp_path, settings(pictures_mb=0)).wants(fail(1))


def test_oldest_pass_goes_first_then_the_oldest_of_the_others(tmp_path: Path) -> None:
    archive = Archive(tmp_path, settings(pictures_mb=1))
    for seq in range(1, 7):
        assert archive.keep(verdict(seq) if seq % 2 else fail(seq), frame(160))
    assert kept(tmp_path) == [(v, s) for s, v in enumerate(["PASS", "FAIL"] * 3, 1)]
    for seq in range(7, 10):
        assert archive.keep(fail(seq), frame(160))
        assert archive.size_bytes <= 2**20
    assert kept(tmp_path) == [("FAIL", s) for s in (2, 4, 6, 7, 8, 9)]
    # No FAIL makes room for a PASS.
    assert not archive.keep(verdict(10), frame(160))
    assert archive.trouble == ""
    assert archive.keep(fail(11), frame(160))
    assert kept(tmp_path) == [("FAIL", s) for s in (4, 6, 7, 8, 9, 11)]
    assert not archive.keep(fail(12), frame(1100))
    assert len(kept(tmp_path)) == 6


def test_maps_count_and_go_with_their_pictures(tmp_path: Path) -> None:
    archive = Archive(tmp_path, settings(pictures_mb=1))
    heat = NOISE.random((300, 1024)).astype(np.float32)
    for seq in range(1, 6):
        assert archive.keep(fail(seq), frame(160), heat)
    files = list((tmp_path / "pictures").glob("*/*"))
    assert sum(path.stat().st_size for path in files) == archive.size_bytes <= 2**20
    assert len(files) == 2 * len(kept(tmp_path))


def test_next_start_goes_on_where_this_one_ended(tmp_path: Path) -> None:
    for seq in range(1, 10):
        archive = Archive(tmp_path, settings(pictures_mb=1))
        assert archive.keep(fail(seq), frame(160))
    assert kept(tmp_path) == [("FAIL", s) for s in range(4, 10)]


class Clocks:
    """A wall clock and a monotonic one that a test moves."""

    def __init__(self) -> None:
        self.us, self.ran_us = NOW_US, 0
        self.clock = Clock(lambda: self.us, lambda: self.ran_us * 1000)

    def run(self, us: int) -> None:
        self.us += us
        self.ran_us += us


def keep_each_second(archive: Archive, clocks: Clocks, first: int, count: int) -> None:
    for seq in range(first, first + count):
        clocks.run(1_000_000)
        assert archive.keep(fail(seq, judged_us=clocks.us), frame(1))


def test_old_pictures_go_two_for_each_new_one(tmp_path: Path) -> None:
    clocks = Clocks()
    archive = Archive(tmp_path, settings(pictures_days=30), clocks.clock)
    keep_each_second(archive, clocks, 1, 30)
    # The line stood still for a while, with the station on.
    clocks.run(31 * DAY_US)
    left = []
    for seq in range(31, 50):
        keep_each_second(archive, clocks, seq, 1)
        left.append(len(kept(tmp_path)))
    assert left[:3] == [29, 28, 27]
    assert left[-1] == 19
    assert [seq for _, seq in kept(tmp_path)] == list(range(31, 50))
    assert len(list((tmp_path / "pictures").iterdir())) == 1


@pytest.mark.parametrize("start", ["wrong at the start", "set while it runs"])
def test_clock_that_is_wrong_takes_no_pictures_at_a_glance(tmp_path: Path, start: str) -> None:
    clocks = Clocks()
    archive = Archive(tmp_path, settings(pictures_days=30), clocks.clock)
    keep_each_second(archive, clocks, 1, 124)
    clocks.us += 40 * DAY_US
    if start == "wrong at the start":
        archive = Archive(tmp_path, settings(pictures_days=30), clocks.clock)
    # The first picture after a start or a step deletes none; then two go for each.
    keep_each_second(archive, clocks, 125, 1)
    assert len(kept(tmp_path)) == 125
    keep_each_second(archive, clocks, 126, 2)
    assert len(kept(tmp_path)) == 123
    # Set right again, nothing more goes.
    clocks.us -= 40 * DAY_US
    keep_each_second(archive, clocks, 128, 5)
    assert len(kept(tmp_path)) == 128


def test_filling_disk_stops_the_pictures_and_only_these(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = Archive(tmp_path, settings(reserve_mb=500))
    assert archive.keep(fail(1), frame(10))
    real = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: real._replace(free=500 * 2**20))
    assert not archive.keep(fail(2), frame(10))
    assert "less than 500 MB are free" in archive.trouble
    monkeypatch.undo()
    assert archive.keep(fail(3), frame(10))
    assert archive.trouble == ""
    assert [seq for _, seq in kept(tmp_path)] == [1, 3]


def test_disk_that_refuses_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "pictures").write_bytes(b"in the way")
    archive = Archive(tmp_path, settings())
    assert not archive.keep(fail(1), frame(1))
    assert archive.trouble == (
        f"{tmp_path}/pictures: no picture can be kept: File exists; look after the disk"
    )
    (tmp_path / "pictures").unlink()
    assert archive.keep(fail(2), frame(1))
    assert archive.trouble == ""


def test_half_written_is_never_listed_and_is_swept(tmp_path: Path) -> None:
    archive = Archive(tmp_path, settings())
    archive.keep(fail(1), frame(1), np.zeros((4, 4), np.float32))
    (picture,) = pictures(tmp_path)
    folder = picture.path.parent
    # What a kill leaves: a temporary file, and a map whose picture did not come.
    (folder / f".{picture.path.name}.x1y2.part").write_bytes(b"half")
    orphan = folder / picture.path.name.replace("000000001", "000000002").replace(
        ".png", ".map.png"
    )
    orphan.write_bytes(b"map")
    (folder / "notes.png").write_bytes(b"somebody's")
    assert [each.path for each in pictures(tmp_path)] == [picture.path]
    Archive(tmp_path, settings()).keep(fail(3), frame(1))
    names = {path.name for path in folder.iterdir()}
    assert orphan.name not in names
    assert not any(name.endswith(".part") for name in names)
    assert "notes.png" in names
    assert picture.path.with_suffix(".map.png").exists()


def test_altered_picture_is_not_trusted(tmp_path: Path) -> None:
    Archive(tmp_path, settings()).keep(fail(1), frame(1))
    (picture,) = pictures(tmp_path)
    data = bytearray(picture.path.read_bytes())
    where = data.index(b'"FAIL"')
    data[where + 1 : where + 5] = b"PASS"
    picture.path.write_bytes(data)
    with pytest.raises(ValueError, match="not a picture that a station kept"):
        read_record(picture.path)
    picture.path.unlink()
    with pytest.raises(FileNotFoundError):
        picture.load()


def test_times_of_names_are_exact(tmp_path: Path) -> None:
    at = round(datetime(2031, 12, 31, 23, 59, 59, 999_999, timezone.utc).timestamp() * 1e6)
    archive = Archive(tmp_path, settings())
    for seq, us in enumerate((at, at + 1, at + 2, at + 1_000_003), 1):
        archive.keep(fail(seq, judged_us=us), frame(1))
    assert [each.judged_us - at for each in pictures(tmp_path)] == [0, 1, 2, 1_000_003]
    assert {each.verdict for each in pictures(tmp_path)} == {Verdict.FAIL}


def test_copies_in_other_folders_are_their_owners(tmp_path: Path) -> None:
    assert Archive(tmp_path, settings()).keep(fail(1), frame(600))
    (own,) = pictures(tmp_path)
    copy = own.path.parent.with_name("2000-saved") / own.path.name
    copy.parent.mkdir()
    shutil.copy(own.path, copy)
    archive = Archive(tmp_path, settings(pictures_mb=2))
    for seq in range(2, 6):
        assert archive.keep(fail(seq), frame(600))
    assert copy.exists()
    assert not own.path.exists()
    assert archive.size_bytes == sum(
        path.stat().st_size for path in own.path.parent.iterdir() if path.is_file()
    )


OLDEST = "20240401T100000.000000_top_FAIL_a1b2c3d4_000000001.png"


def put_odd_things(root: Path, own: Path) -> None:
    """What people, programs and disks leave in a folder of pictures."""
    day = own.parent
    for name in (b"\xff\xfe.png", b"a\nb.png", own.name.encode().replace(b"top", b"t\xffp")):
        (Path(os.fsdecode(os.fsencode(day) + b"/" + name))).write_bytes(b"odd")
    # Names as a station gives them, and no time, number or file that one could have kept.
    for time in ("99999999T999999.999999", "00000000T000000.000000", "20240230T100000.000000"):
        (day / f"{time}_top_FAIL_a1b2c3d4_000000001.png").write_bytes(b"no time")
    digits = own.name.translate(str.maketrans("0123456789", "٠١٢٣٤٥٦٧٨٩"))
    (day / digits).write_bytes(b"other digits")
    old = day.with_name("2024-04-01")
    (old / OLDEST).mkdir(parents=True)
    (old / OLDEST.replace(".png", ".map.png")).mkdir()
    (old / "folder.map.png").mkdir()
    os.mkfifo(old / OLDEST.replace("_top_", "_pipe_"))
    os.mkfifo(old / "pipe.map.png")
    (old / OLDEST.replace("_top_", "_link_")).symlink_to("nowhere")
    (old / OLDEST.replace("_top_", "_round_")).symlink_to(OLDEST.replace("_top_", "_round_"))
    (old / OLDEST.replace("_top_", "_empty_")).write_bytes(b"")
    (old / OLDEST.replace("_top_", "_png_")).write_bytes(encode_png(frame(1)))
    (root / "note.txt").write_text("a file where days are")
    os.mkfifo(root / "pipe")
    (root / "loop").symlink_to("loop")
    (root / "gone").symlink_to("nowhere")
    (root / "2024-03-01.part").mkdir()
    (root / "2024-03-01.part" / ".half.part").mkdir()


def test_nothing_that_lies_there_ends_the_thread_or_a_replay(tmp_path: Path) -> None:
    Archive(tmp_path, settings()).keep(fail(1), frame(600))
    (own,) = pictures(tmp_path)
    put_odd_things(tmp_path / "pictures", own.path)
    archive = Archive(tmp_path, settings(pictures_mb=2))
    for seq in range(2, 6):
        assert archive.keep(fail(seq), frame(600)), archive.trouble
        assert archive.trouble == ""
    told: list[str] = []
    seqs = []
    for picture in pictures(tmp_path, told.append):
        try:
            seqs.append(picture.load()[0].verdict.seq)
        except ValueError as error:
            assert "not a picture that a station kept" in str(error)
    assert seqs == [3, 4, 5]
    assert [line.split(": ")[-1] for line in told] == ["Too many levels of symbolic links"]
    code, out, error = running.inside(
        "replay", tmp_path, "--bundle", tiny.write_bundle(tmp_path / "new.onnx")
    )
    assert (code, out[:18]) == (0, "3 pictures judged "), error
    assert "loop: cannot be read: Too many levels of symbolic links; left out" in error


def test_day_that_nobody_may_read_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = Archive(tmp_path, settings())
    for seq, days in ((1, 0), (2, 1)):
        archive.keep(fail(seq, judged_us=NOW_US + days * DAY_US), frame(1))
    real = os.scandir

    def scandir(path):
        if str(path).endswith("2024-05-01"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    # Not by chmod: whoever runs the tests as root may read everything.
    monkeypatch.setattr(os, "scandir", scandir)
    told: list[str] = []
    assert [picture.load()[0].verdict.seq for picture in pictures(tmp_path, told.append)] == [2]
    assert told == [f"{tmp_path}/pictures/2024-05-01: cannot be read: Permission denied"]
    assert Archive(tmp_path, settings()).keep(fail(3), frame(1))
