from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import pty
import re
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

import export.cli.main
from inspector.cameras.simulated import conveyor as simulator
from inspector.cli import collect, photo_source
from inspector.cli import main as cli
from inspector.cli.photo_source import find_source
from inspector.config.station_file import load_station
from inspector.errors import CameraError, ConfigError
from inspector.imaging.geometry import Box
from inspector.imaging.images import encode_png, read_image
from inspector.journal.schema import BundleInForce, RecipeInForce
from inspector.journal.writer import Journal
from inspector.photos.album import Album
from inspector.photos.checks import blur_objections, find_twin, light_objections, measure
from tests import tiny, videos
from tests.cameras.test_cameras import needs_ffmpeg, numbered, write_video
from tests.videos import StreamServer

REGION = Box(x=112, y=52, w=416, h=384)
NUMBERS = "112,52,416,384"


@functools.cache
def good(index: int) -> np.ndarray:
    return simulator.draw(0, index, 0.0).image


def as_camera(image: np.ndarray, gain: float = 1.0, seed: int = 0) -> np.ndarray:
    """``image`` as a sensor would see it once more: other noise, the lamp a little different."""
    noise = np.random.default_rng(seed).normal(0, 3, image.shape)
    return np.clip(image * gain + noise, 0, 255).astype(np.uint8)


def write_parts(folder: Path, *images: np.ndarray) -> Path:
    folder.mkdir()
    for number, image in enumerate(images):
        (folder / f"{number:03d}.png").write_bytes(encode_png(image))
    return folder


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def collected(*arguments: object) -> int:
    return cli.main(["collect", *map(str, arguments)])


def start(*arguments: object, **keys: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "inspector", "collect", *map(str, arguments)]
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, text=True, **{**pipes, **keys})  # type: ignore[call-overload]


@pytest.mark.parametrize("command", [cli.main, export.cli.main.main])
def test_parts_of_the_simulator_as_grabbed(command, tmp_path, capsys):
    out = tmp_path / "parts"
    arguments = ["collect", "simulator", "-o", str(out), "--count", "11", "--region", NUMBERS]
    assert command(arguments) == 0
    assert files(out) == [f"{number:04d}.png" for number in range(11)]
    assert np.array_equal(read_image(out / "0010.png"), good(10))
    said = capsys.readouterr().out
    assert "11 photos, 11 of them new\n" in said
    assert said.endswith(f"\nnext: inspector-model train {out} -o run --region {NUMBERS}\n")


@pytest.mark.long
def test_folder_is_continued_with_its_region(tmp_path, capsys):
    out = tmp_path / "parts"
    assert collected("simulator", "-o", out, "--count", 2, "--region", NUMBERS) == 0
    (out / "0001.png").rename(out / "0007.png")
    before = (out / "0007.png").read_bytes()
    capsys.readouterr()
    # Even --keep-all keeps no picture twice.
    assert collected("simulator", "-o", out, "--count", 4, "--keep-all") == 0
    assert files(out) == ["0000.png", "0007.png", "0008.png", "0009.png"]
    assert (out / "0007.png").read_bytes() == before
    assert np.array_equal(read_image(out / "0008.png"), good(2))
    said = capsys.readouterr()
    assert f"region: {NUMBERS}" in said.err
    assert said.err.count("; not kept (further") == 1
    assert "the same picture as 0000.png; not kept (further" in said.err
    assert "4 photos, 2 of them new; not kept: 2 already there" in said.out
    assert collected("simulator", "-o", out, "--count", 4) == 0
    assert "there are 4 already" in capsys.readouterr().err


def spoilt(tmp_path: Path) -> Path:
    blurred = as_camera(cv2.GaussianBlur(good(10), (0, 0), 2.0))
    glare = good(11).copy()
    glare[100:300, 200:400] = 255
    return write_parts(
        tmp_path / "camera",
        *(as_camera(good(number), seed=number) for number in range(7)),
        blurred,
        glare,
        np.full_like(glare, 255),
        np.zeros_like(glare),
        (good(12) * 0.5).astype(np.uint8),
        as_camera(good(3), 1.03, seed=99),
        as_camera(good(13)),
    )


@pytest.mark.long
def test_bad_photos_are_named_with_figures_and_left_out(tmp_path, capsys):
    out = tmp_path / "parts"
    assert collected(spoilt(tmp_path), "-o", out, "--region", NUMBERS) == 0
    said = capsys.readouterr()
    for line in (
        r"0007 \(007.png\): blurred \(sharpness \d+, the others \d+\): hold still, check focus",
        r"0007 \(008.png\): overexposed \(2\d% of the region saturated, the others \d%\): shorten",
        r"0007 \(009.png\): overexposed \(100% of the region saturated\): shorten",
        r"0007 \(010.png\): underexposed \(100% of the region black\): is the lens cap on\?",
        r"0007 \(011.png\): darker than the others \(brightness \d+, the others \d+\): check",
        r"0007 \(012.png\): same part photographed twice\? \(differs from 0003.png by 0\.\d+ grey",
    ):
        assert re.search(rf"^{line}.*; not kept$", said.err, re.MULTILINE), said.err
    assert "5 in a row were not kept" in said.err
    assert files(out) == [f"{number:04d}.png" for number in range(8)]
    assert np.array_equal(read_image(out / "0007.png"), as_camera(good(13)))
    assert "8 photos: too few, training needs 10" in said.out
    assert "inspector-model train" not in said.out


def test_keep_all_warns_and_keeps(tmp_path, capsys):
    out = tmp_path / "parts"
    assert collected(spoilt(tmp_path), "-o", out, "--region", NUMBERS, "--keep-all") == 0
    assert len(files(out)) == 14
    said = capsys.readouterr()
    assert said.err.count("; kept\n") == 6
    assert said.err.count("blurred") == 1
    assert "look again at 0007.png: blurred" in said.out


@pytest.mark.long
def test_first_photos_are_looked_at_again_when_there_are_others(tmp_path, capsys):
    blurred = cv2.GaussianBlur(good(20), (0, 0), 3.0)
    camera = write_parts(tmp_path / "camera", blurred, *(good(number) for number in range(8)))
    assert collected(camera, "-o", tmp_path / "parts") == 0
    assert "look again at 0000.png: blurred (sharpness" in capsys.readouterr().out


def test_noise_hides_no_twin_and_no_blur():
    others = [measure(as_camera(good(number), seed=number), REGION) for number in range(6)]
    for number in range(6):
        again = measure(as_camera(good(number), 0.98, seed=100 + number), REGION)
        twin = find_twin(again, others)
        assert twin is not None
        assert twin[0] == number
        assert find_twin(others[number], others[:number] + others[number + 1 :]) is None
        blurred = cv2.GaussianBlur(good(number), (0, 0), 2.0)
        found = list(blur_objections(measure(as_camera(blurred), REGION), others))
        assert [objection.kind for objection in found] == ["blurred"]
        assert not list(blur_objections(others[number], others))
        assert not list(light_objections(others[number], others))


def test_16_bit_and_grey_photos_stay_what_they_are(tmp_path):
    image = (good(0)[:, :, 0].astype(np.uint16) << 8) + 7
    camera = write_parts(tmp_path / "camera", image)
    assert collected(camera, "-o", tmp_path / "parts") == 0
    kept = read_image(tmp_path / "parts" / "0000.png")
    assert kept.dtype == np.uint16
    assert np.array_equal(kept, image)


def test_unreadable_photos_are_said_and_left_out(tmp_path, capsys):
    camera = write_parts(tmp_path / "camera", *(good(number) for number in range(3)))
    for name in ("000.png", "001.png"):
        (camera / name).write_bytes((camera / name).read_bytes()[:5000])
    out = tmp_path / "parts"
    assert collected(camera, "-o", out) == 0
    assert files(out) == ["0000.png"]
    assert capsys.readouterr().err.count("the image is truncated") == 2
    shutil.copy(camera / "000.png", out / "0005.png")
    assert collected("simulator", "-o", out, "--count", 2) == 0
    assert "0005.png: the image is truncated; delete it" in capsys.readouterr().err
    assert files(out) == ["0000.png", "0005.png", "0006.png"]


def test_every_frame_of_a_video(tmp_path):
    video = write_video(tmp_path / "line.avi", frames=4)
    assert collected(video, "-o", tmp_path / "parts", "--keep-all") == 0
    assert len(files(tmp_path / "parts")) == 4


@needs_ffmpeg
def test_lost_camera_is_tried_again_then_error_14(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(photo_source, "RETRY_S", (0.05, 0.1))
    monkeypatch.setattr(photo_source, "SETTLE_S", 0.1)
    out = tmp_path / "parts"
    with StreamServer(numbered) as server:
        pulling_the_plug = threading.Timer(1.0, server.__exit__)
        pulling_the_plug.start()
        arguments = (server.url, "-o", out, "--keep-all", "--interval-ms", 50, "--count", 10_000)
        assert collected(*arguments) == 14
        pulling_the_plug.join()
    said = capsys.readouterr()
    assert "trying again in 0.1 s (2 of 2)" in said.err
    assert said.err.splitlines()[-1].startswith("inspector: error: camera stream: lost: ")
    kept = files(out)
    assert f"{len(kept)} photos, {len(kept)} of them new" in said.out
    assert len(kept) > 3
    assert all(read_image(out / name).shape == (48, 64, 3) for name in kept)


@needs_ffmpeg
def test_a_camera_whose_every_picture_is_cut_is_error_14(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(photo_source, "SETTLE_S", 0.1)
    monkeypatch.setattr(photo_source, "UNREADABLE_S", 0.2)
    with StreamServer(lambda number: videos.cut(numbered(number), 0.9)) as server:
        assert collected(server.url, "-o", tmp_path / "parts") == 14
    last = capsys.readouterr().err.splitlines()[-1]
    assert "camera stream: gives no picture that can be read: the image is " in last


@pytest.mark.long
def test_enter_takes_a_photo(tmp_path):
    command = start("simulator", "-o", tmp_path / "parts", "--manual", stdin=subprocess.PIPE)
    said, err = command.communicate("\n\nq\n\n", timeout=30)
    assert command.returncode == 0, err
    assert files(tmp_path / "parts") == ["0000.png", "0001.png"]
    assert "0001.png: kept, 2 photos; sharpness" in err
    assert "2 photos: too few" in said


def test_standard_input_may_be_closed(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    assert collected("simulator", "-o", tmp_path / "parts", "--count", 1) == 0
    capsys.readouterr()
    assert collected("simulator", "-o", tmp_path / "parts", "--manual") == 10
    assert "standard input is closed" in capsys.readouterr().err


@pytest.mark.long
def test_ctrl_c_sums_up(tmp_path):
    out = tmp_path / "parts"
    command = start("simulator", "-o", out, "--count", 100_000)
    deadline = time.monotonic() + 30
    while not (out / "0002.png").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    for _ in range(3):
        command.send_signal(signal.SIGINT)
        # Python loses an interrupt that comes while it runs a destructor: people press again.
        with contextlib.suppress(subprocess.TimeoutExpired):
            said, err = command.communicate(timeout=10)
            break
    assert command.poll() == 0, err
    assert "stopped" in err
    assert "Traceback" not in err
    kept = files(out)
    # A photo may reach the disk in the instant of the interrupt: it is counted next time.
    assert any(f"{count} photos" in said for count in (len(kept), len(kept) - 1)), said
    assert all(read_image(out / name).shape == (480, 640, 3) for name in kept)
    assert not list(out.glob(".*.part"))


def test_full_disk_is_error_26_and_leaves_nothing_half(tmp_path, capsys):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        assert collected("simulator", "-o", tmp_path / "parts") == 26
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    err = capsys.readouterr().err
    assert "0000.png: cannot be written: File too large; free disk space" in err
    assert not (tmp_path / "parts").exists()


@pytest.mark.parametrize(
    ("camera", "code", "part"),
    [
        ("nothing-here", 14, "no such camera; give a device number"),
        ("", 14, "no such camera"),
        ("99", 14, "/dev/video99"),
        ("missing.yaml", 10, "no such file"),
        ("photo.png", 14, "a single picture; name the folder"),
        ("notes.txt", 14, "not a video"),
        ("empty", 14, "holds no image"),
        ("two.yaml", 10, "has 2 cameras (left, right); name one"),
        ("two.yaml:up", 10, "has no camera 'up'; it has left, right"),
    ],
)
def test_wrong_camera_is_one_clear_line(camera, code, part, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photo.png").write_bytes(encode_png(good(0)))
    (tmp_path / "notes.txt").write_text("no video")
    (tmp_path / "empty").mkdir()
    write_station(tmp_path / "two.yaml")
    assert collected(camera, "-o", "out") == code
    err = capsys.readouterr().err
    assert part in err
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def write_station(path: Path) -> Path:
    cameras = [
        {"name": "left", "kind": "simulator", "rate_hz": 100, "defect_rate": 1.0, "parts": 3},
        {"name": "right", "kind": "folder", "path": "photos", "loop": True},
    ]
    region = {"x": 112, "y": 52, "w": 416, "h": 384}
    recipe = {"left": {"bundle": "later.onnx", "region": region}, "right": {"bundle": "b.onnx"}}
    station = {"station": "s", "cameras": cameras, "recipes": {"r": recipe}, "recipe": "r"}
    path.write_text(yaml.safe_dump(station))
    return path


def test_camera_of_a_station_gives_good_parts_once(tmp_path, capsys):
    station = write_station(tmp_path / "station.yaml")
    write_parts(tmp_path / "photos", good(0), good(1))
    assert collected(f"{station}:left", "-o", tmp_path / "left") == 0
    assert f"region: {NUMBERS}" in capsys.readouterr().err
    assert np.array_equal(read_image(tmp_path / "left" / "0002.png"), good(2))
    assert collected(f"{station}:right", "-o", tmp_path / "right") == 0
    assert files(tmp_path / "right") == ["0000.png", "0001.png"]


def test_a_station_s_region_is_that_of_its_bundle_and_of_the_recipe_in_force(tmp_path, capsys):
    path = write_station(tmp_path / "station.yaml")
    station = yaml.safe_load(path.read_text())
    station["recipes"]["r"]["left"] = {"bundle": "region.onnx"}
    other = {"bundle": "none.onnx", "region": {"x": 8, "y": 4, "w": 300, "h": 200}}
    station["recipes"]["other"] = {"left": other, "right": {"bundle": "none.onnx"}}
    station["journal"] = {"folder": "journal"}
    path.write_text(yaml.safe_dump(station))
    region = {"x": 0, "y": 16, "w": 640, "h": 400}
    whole = {"height": tiny.SIDE, "width": tiny.SIDE}
    tiny.write_bundle(tmp_path / "region.onnx", geometry={**whole, "region": region})
    write_parts(tmp_path / "photos", good(0))

    def region_of(camera: str) -> str:
        assert collected(f"{path}:{camera}", "-o", tmp_path / camera, "--count", 1) == 0
        shutil.rmtree(tmp_path / camera)
        return capsys.readouterr().err.splitlines()[0].partition("px, ")[2]

    assert region_of("left") == "region: 0,16,640,400 (from the bundle of recipe 'r')"
    assert region_of("right").startswith("region: the whole picture (recipe 'r' names none, and ")
    # A bundle that was installed since judges in place of the file's.
    new = tiny.write_bundle(
        tmp_path / "new.onnx", geometry={**whole, "region": region | {"h": 320}}
    )
    sha256 = hashlib.sha256(new.read_bytes()).hexdigest()
    made = load_station(path)
    made.bundles_folder.mkdir(parents=True)
    new.rename(made.installed(sha256))
    of_file = str(made.recipes["r"]["left"].bundle)
    journal = Journal(tmp_path / "journal", 1)
    journal.keep(BundleInForce("s", "r", "left", sha256, "", of_file))
    journal.close()
    wanted = "region: 0,16,640,320 (from the bundle that was installed for recipe 'r')"
    assert region_of("left") == wanted
    # Where the file names another one than it did then, that counts.
    station["recipes"]["r"]["left"] = {"bundle": str(tmp_path / "." / "other.onnx")}
    shutil.copy(tmp_path / "region.onnx", tmp_path / "other.onnx")
    path.write_text(yaml.safe_dump(station))
    assert region_of("left") == "region: 0,16,640,400 (from the bundle of recipe 'r')"
    # A changeover is in force until the next one, whatever the file begins with.
    journal = Journal(tmp_path / "journal", 1)
    journal.keep(RecipeInForce("s", "other", "r"))
    journal.close()
    assert region_of("left") == "region: 8,4,300,200 (from recipe 'other')"
    other["region"]["w"] = 641
    path.write_text(yaml.safe_dump(station))
    assert collected(f"{path}:left", "-o", tmp_path / "left") == 10
    wanted = "region 8,4,641,200 (from recipe 'other'): reaches beyond the camera's 640x480 px"
    assert wanted in capsys.readouterr().err


@pytest.mark.long
def test_frames_that_repeat_are_counted_and_not_told_one_by_one(tmp_path, capsys):
    camera = write_parts(
        tmp_path / "camera", *(as_camera(good(0), seed=number) for number in range(40))
    )
    assert collected(camera, "-o", tmp_path / "out", "--region", NUMBERS) == 0
    said = capsys.readouterr()
    told = said.err.count("same part photographed twice?")
    more = sum(map(int, re.findall(r"(\d+) (?:more like it|like it before)", said.err)))
    assert 3 <= told <= 6
    assert told + more == 39
    assert "not kept: 39 same part" in said.out


def test_what_a_folder_has_beside_photos_is_told(tmp_path, capsys):
    camera = write_parts(tmp_path / "camera", good(0), good(1))
    (camera / "IMG_7.heic").write_bytes(b"from a phone")
    (camera / "mask").mkdir()
    (camera / "mask" / "0.png").write_bytes(encode_png(good(0)))
    assert collected(camera, "-o", tmp_path / "out") == 0
    said = capsys.readouterr()
    assert f"not read in {camera}, since they are no photos: 1 .heic" in said.err
    assert f"not read in {camera}, since they are masks by their names: 1" in said.err
    assert files(tmp_path / "out") == ["0000.png", "0001.png"]


def test_folders_that_cannot_take_photos(tmp_path, capsys):
    camera = write_parts(tmp_path / "camera", good(0))
    assert collected(camera, "-o", camera / "parts") == 26
    (tmp_path / "set" / "test").mkdir(parents=True)
    assert collected("simulator", "-o", tmp_path / "set") == 26
    assert collected("simulator", "-o", camera / "000.png") == 26
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / ".collect.json").write_text('{"region": 5}')
    assert collected("simulator", "-o", tmp_path / "odd") == 10
    with contextlib.closing(Album(tmp_path / "held")):
        assert collected("simulator", "-o", tmp_path / "held") == 26
    said = capsys.readouterr().err.splitlines()
    errors = [line for line in said if line.startswith("inspector: error: ")]
    parts = ("which is the camera", "holds a whole data", "not a folder", "delete it", "another")
    assert len(errors) == len(parts)
    for line, part in zip(errors, parts, strict=True):
        assert part in line


def test_region_beyond_the_picture_is_refused(tmp_path, capsys):
    assert collected("simulator", "-o", tmp_path / "parts", "--region", "600,0,100,100") == 10
    assert "reaches beyond the camera's 640x480 px" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        collected("simulator", "-o", tmp_path / "parts", "--region", "1,2,3")


@pytest.mark.parametrize(
    ("number", "part"),
    [
        (9, "too few, training needs 10"),
        (99, "enough to try training; 100 are a good start"),
        (100, "about 1 good part in 100 may be rejected, 1 in 200 with 200 photos or more"),
        (600, "about 1 good part in 200 may be rejected"),
    ],
)
def test_enough_is_said(number, part):
    assert part in collect.enough(number)


# Choosing the region


def without_display() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if key != "DISPLAY"}


@pytest.mark.long
def test_pick_without_a_window_asks_for_numbers(tmp_path):
    ours, theirs = pty.openpty()
    out = tmp_path / "parts"
    arguments = ("simulator", "-o", out, "--count", 1, "--pick")
    command = start(*arguments, stdin=theirs, env=without_display())
    try:
        os.write(ours, f"middle\n0,0,9999,9\n{NUMBERS}\n".encode())
        _, err = command.communicate(timeout=30)
    finally:
        os.close(ours)
        os.close(theirs)
    assert command.returncode == 0, err
    assert "--pick: no window: " in err
    assert f"; see {out / '.preview.jpg'} (640x480 px)" in err
    assert "'middle' is not x,y,w,h" in err
    assert "0,0,9999,9 reaches beyond" in err
    assert f"region: {NUMBERS}" in err
    assert read_image(out / ".preview.jpg").shape == (480, 640, 3)
    assert files(out) == ["0000.png"]


def test_pick_without_window_and_terminal_is_refused(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.setattr(sys, "stdin", None)
    assert collected("simulator", "-o", tmp_path / "parts", "--pick") == 10
    assert "(640x480 px) and give --region x,y,w,h instead" in capsys.readouterr().err


@pytest.fixture(scope="module")
def display() -> Iterator[str]:
    pytest.importorskip("tkinter", reason="this Python has no tkinter", exc_type=ImportError)
    if shutil.which("Xvfb") is None:
        pytest.skip("Xvfb is not installed (apt install xvfb)")
    ours, theirs = os.pipe()
    server = subprocess.Popen(
        ["Xvfb", "-displayfd", str(theirs), "-screen", "0", "1024x768x24", "-nolisten", "tcp"],
        pass_fds=[theirs],
        stderr=subprocess.DEVNULL,
    )
    os.close(theirs)
    try:
        with os.fdopen(ours) as number:
            line = number.readline().strip()
        if not line:
            pytest.skip("Xvfb does not start here")
        yield f":{line}"
    finally:
        server.terminate()
        server.wait()


def drag(window, start, end):
    window.canvas.event_generate("<ButtonPress-1>", x=start[0], y=start[1])
    window.canvas.event_generate("<B1-Motion>", x=end[0], y=end[1], state=0x100)
    window.canvas.event_generate("<ButtonRelease-1>", x=end[0], y=end[1])


@pytest.mark.parametrize(
    ("shape", "start", "end", "box"),
    [
        ((480, 640), (528, 436), (112, 52), REGION),
        # Shown at half its size, and dragged out of the window.
        ((1200, 1600), (100, 50), (2000, 2000), Box(x=200, y=100, w=1400, h=1100)),
        # A click is no rectangle.
        ((480, 640), (100, 100), (103, 104), None),
    ],
)
def test_rectangle_of_the_mouse_in_camera_pixels(shape, start, end, box, display, monkeypatch):
    from inspector.cli.picker import PickerWindow

    monkeypatch.setenv("DISPLAY", display)
    window = PickerWindow(np.zeros((*shape, 3), np.uint8))
    window.root.after(50, lambda: drag(window, start, end))
    window.root.after(100, lambda: window.root.event_generate("<Return>"))
    assert window.run() == box


def test_escape_is_the_whole_picture_and_closing_stops(display, monkeypatch):
    from inspector.cli.picker import PickerWindow

    monkeypatch.setenv("DISPLAY", display)
    window = PickerWindow(good(0))
    window.root.after(50, lambda: drag(window, (10, 10), (200, 200)))
    window.root.after(100, lambda: window.root.event_generate("<Escape>"))
    assert window.run() is None
    window = PickerWindow(good(0))
    window.root.after(50, lambda: window.root.tk.call(window.root.protocol("WM_DELETE_WINDOW")))
    with pytest.raises(KeyboardInterrupt):
        window.run()


def test_region_picked_in_the_window_is_trained_on(display, tmp_path, capsys, monkeypatch):
    from inspector.cli import picker

    class WithHand(picker.PickerWindow):
        def __init__(self, picture):
            super().__init__(picture)
            self.root.after(50, lambda: drag(self, (112, 52), (528, 436)))
            self.root.after(100, lambda: self.root.event_generate("<Return>"))

    monkeypatch.setenv("DISPLAY", display)
    monkeypatch.setattr(picker, "PickerWindow", WithHand)
    assert collected("simulator", "-o", tmp_path / "parts", "--count", 10, "--pick") == 0
    assert capsys.readouterr().out.endswith(f" -o run --region {NUMBERS}\n")


def test_cameras_that_run_on_are_told_from_recordings(tmp_path):
    (tmp_path / "line.mp4").touch()
    assert find_source("0").is_live
    assert find_source("/dev/video0").is_live
    assert find_source("rtsp://10.0.0.1/stream").is_live
    assert not find_source(str(tmp_path / "line.mp4")).is_live
    assert not find_source("simulator").is_live
    for missing in ("line.mp4", "/dev/shm/no such.mp4"):
        with pytest.raises(CameraError, match="no such camera"):
            find_source(missing)
    with pytest.raises(ConfigError):
        find_source("line.yml:top")
