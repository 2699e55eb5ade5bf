"""``inspector judge``: what a bundle says of photos, as a station with that bundle would."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from inspector.cli import main as cli
from inspector.detection.detector import Detector
from inspector.errors import ImageError
from inspector.imaging.images import encode_png, read_image
from tests import running, tiny

TELEMETRY = "ORT_DISABLE_TELEMETRY"
LIT = {"brightness": (100, 150), "sharpness": (0, 1e9)}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return running.write_parts(tmp_path / "photos", tiny.good_picture(), tiny.bad_picture())


def judge(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, list[list[str]], str]:
    """Exit code, the table's rows in words, and the line below the table."""
    code = cli.main(["judge", *map(str, words)])
    said = capsys.readouterr()
    assert said.err == ""
    head, *rows, end, following = said.out.splitlines()
    bundle = shlex.quote(str(words[0]))
    assert following == f"next: inspector init station.yaml --camera 0 --bundle {bundle}"
    assert head.split() == ["photo", "verdict", "score", "reason"]
    return code, [row.split() for row in rows], end


def test_a_line_a_photo_and_the_worst_verdict_s_exit_code(bundle_path, photos, capsys):
    good, bad = photos / "000.png", photos / "001.png"
    code, rows, end = judge(capsys, bundle_path, photos)
    assert rows == [[str(good), "PASS", "0.000"], [str(bad), "FAIL", "1.984", "anomaly"]]
    assert (code, end) == (1, "2 judged by tiny 1: 1 PASS, 1 FAIL")
    assert judge(capsys, bundle_path, good, good)[0] == 0
    (photos / "cut.png").write_bytes(good.read_bytes()[:-20])
    code, rows, _ = judge(capsys, bundle_path, photos)
    assert (code, rows[2][1:5]) == (2, ["FAULT", "-", "frame_unreadable:", "the"])
    assert str(photos) not in " ".join(rows[2][2:])


def test_photos_are_judged_as_the_station_judges_them(tmp_path, capsys):
    """The bundle's own region, and pictures that are not fit are no good parts."""
    geometry = {"height": 64, "width": 64, "region": {"x": 8, "y": 4, "w": 64, "h": 64}}
    bundle = tiny.write_bundle(tmp_path / "b.onnx", geometry=geometry, exposure=LIT)
    inside, outside = (np.full((80, 100, 3), tiny.GREY, np.uint8) for _ in range(2))
    inside[4:20, 8:30] = 255
    outside[:3] = 255
    black = np.zeros((80, 100, 3), np.uint8)
    small = tiny.good_picture(32)
    parts = running.write_parts(tmp_path / "parts", inside, outside, black, small)
    code, rows, _ = judge(capsys, bundle, parts)
    assert [row[1] for row in rows] == ["FAIL", "PASS", "FAULT", "FAULT"]
    assert [row[3] for row in rows[2:]] == ["too_dark:", "frame_shape:"]
    assert code == 2
    station = running.write_station(tmp_path / "s.yaml", bundle, running.folder_camera(parts))
    heard = running.judge_all(station).verdicts
    assert [v.verdict.value for v in heard] == [row[1] for row in rows]
    assert [v.reason for v in heard[2:]] == ["too_dark", "frame_shape"]


def test_where_a_station_file_is_the_next_command_is_no_second_one(
    tmp_path, bundle_path, photos, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "station.yaml").write_text("mine")
    cli.main(["judge", str(bundle_path), str(photos)])
    assert capsys.readouterr().out.endswith("\nnext: inspector check station.yaml\n")


def test_heatmaps_lie_over_the_judged_region(tmp_path, bundle_path, photos, capsys):
    out = tmp_path / "out"
    deeper = running.write_parts(photos / "deeper", tiny.bad_picture())
    (deeper / "000.bmp").write_bytes((deeper / "000.png").read_bytes())
    (photos / "none.png").write_bytes(b"no picture")
    _, _, end = judge(capsys, bundle_path, photos, "-o", out)
    made = sorted(path.relative_to(out).as_posix() for path in out.rglob("*.jpg"))
    assert made == [
        *("000_overlay.jpg", "001_overlay.jpg"),
        *("deeper/000.png_overlay.jpg", "deeper/000_overlay.jpg"),
    ]
    assert end.endswith(f"; heatmaps: 4 in {out}")
    good, bad = (read_image(out / f"00{n}_overlay.jpg").astype(int) for n in range(2))
    assert good.shape == (64, 64, 3)
    assert np.abs(good - tiny.GREY).max() < 6
    hot = Detector.load(bundle_path).judge(tiny.bad_picture()).anomaly_map >= 1.0
    assert (bad[hot].max(axis=1) - bad[hot].min(axis=1)).mean() > 40
    assert np.abs(bad[~hot] - tiny.GREY).mean() < 20


def test_photos_that_are_to_be_shown_turned_are_told_for_files_as_for_folders(
    bundle_path, tmp_path, capsys
):
    turned = Image.Exif()
    turned[0x0112] = 6
    for name in ("phone.jpg", "in/phone.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (64, 64), (tiny.GREY,) * 3).save(tmp_path / name, exif=turned)
    straight = running.write_parts(tmp_path / "straight", tiny.good_picture()) / "000.png"
    cli.main(["judge", str(bundle_path), str(tmp_path / "phone.jpg"), str(straight)])
    assert "1 of 2 photos say that they are to be shown turned" in capsys.readouterr().out
    cli.main(["judge", str(bundle_path), str(tmp_path / "in")])
    assert "1 of 1 photos say that they are to be shown turned" in capsys.readouterr().out
    cli.main(["judge", str(bundle_path), str(straight)])
    assert "shown turned" not in capsys.readouterr().out


@pytest.mark.skipif(os.name == "nt", reason="no file has such a name there")
def test_names_of_heatmaps_act_on_no_terminal(tmp_path, bundle_path, photos, capsys):
    (photos / "000.png").rename(photos / "a\nPASS\x1b[2J\u202e.png")
    out = tmp_path / "out"
    judge(capsys, bundle_path, photos, "-o", out)
    made = {path.name for path in out.iterdir()}
    assert made == {"a_PASS_[2J__overlay.jpg", "001_overlay.jpg"}


def test_what_it_wrote_is_no_photo_and_no_photo_is_overwritten(bundle_path, photos, capsys):
    first = judge(capsys, bundle_path, photos, "-o", photos / "heatmaps")
    assert judge(capsys, bundle_path, photos, "-o", photos / "heatmaps") == first
    (photos / "000_overlay.jpg").write_bytes(encode_png(tiny.good_picture()))
    before = {path: path.read_bytes() for path in photos.glob("*.*")}
    judge(capsys, bundle_path, *before, "-o", photos)
    assert {path: path.read_bytes() for path in before} == before
    assert (photos / "000.png_overlay.jpg").exists()


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("{bundle}", "{folder}/none.png"), 21, "none.png: no such photo or folder"),
        (
            ("{bundle}", "{folder}/empty"),
            21,
            "empty: holds no photo (avif, bmp, dib, gif, j2k, jfif, jp2",
        ),
        (("{folder}/photos/000.png", "{folder}/photos"), 11, "000.png: "),
        (("{folder}/none.onnx", "{folder}/photos"), 11, "none.onnx: "),
        (("{bundle}", "{folder}/photos", "-o", "{bundle}"), 26, "cannot be written: "),
    ],
)
def test_wrong_words_are_one_line(tmp_path, bundle_path, photos, capsys, words, code, said):
    (tmp_path / "empty").mkdir()
    told = [word.format(bundle=bundle_path, folder=tmp_path) for word in words]
    assert cli.main(["judge", *told]) == code
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert said in err


def test_names_that_are_markup_or_not_utf8_are_shown(tmp_path, bundle_path, capsys):
    names = [b"[red]x[-].png", b"m\xff.png"]
    for name in names:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).write_bytes(
            encode_png(tiny.good_picture())
        )
    _, rows, _ = judge(capsys, bundle_path, *tmp_path.glob("*.png"))
    assert {Path(row[0]).name for row in rows} == {"[red]x[-].png", r"m\udcff.png"}


def test_heatmaps_may_lie_among_the_photos(bundle_path, photos, capsys, monkeypatch):
    monkeypatch.chdir(photos)
    first = judge(capsys, bundle_path, ".", "-o", ".")
    assert [row[1] for row in first[1]] == ["PASS", "FAIL"]
    # Written a moment ago, and no photos: the same two are judged again.
    code, rows, end = judge(capsys, bundle_path, ".", "-o", ".")
    note = "not read in ., since they are heatmaps of the photos beside them: 2"
    assert (code, rows, end) == (first[0], [*first[1], note.split()], first[2])
    before = (photos / "000_overlay.jpg").read_bytes()
    # Given by name it is one, and is not overwritten, whatever the folder is called.
    judge(capsys, bundle_path, "000.png", "000_overlay.jpg", "-o", f"../{photos.name}")
    assert (photos / "000_overlay.jpg").read_bytes() == before


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may read everything")
def test_photo_that_may_not_be_reached_is_one_line(tmp_path, bundle_path, photos, capsys):
    photos.chmod(0)
    try:
        assert (
            cli.main(["judge", str(bundle_path), str(photos / "000.png")]) == ImageError.exit_code
        )
    finally:
        photos.chmod(0o755)
    assert "cannot be read" in capsys.readouterr().err


def test_name_that_no_file_can_have_is_one_line(bundle_path, capsys):
    assert cli.main(["judge", str(bundle_path), "x" * 300]) == ImageError.exit_code
    said = capsys.readouterr().err
    assert "cannot be read" in said
    assert "Traceback" not in said


@pytest.mark.long
def test_onnx_runtime_is_told_to_send_nothing_before_it_loads():
    for module in ("inspector.detection.detector", "export.bundle.quantise"):
        done = subprocess.run(
            [sys.executable, "-c", f"import {module}, os; print(os.environ['{TELEMETRY}'])"],
            env={k: v for k, v in os.environ.items() if k != TELEMETRY},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.strip() == "1"
