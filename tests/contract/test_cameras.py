"""The camera contract, kept by every kind; folders, video files and devices."""

from __future__ import annotations

import itertools
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from inspector import cameras
from inspector.cameras import BadFrameError, Camera, CameraLostError, Frame
from inspector.config import CameraConfig, FolderCamera, OpenCvCamera, SimulatorCamera
from inspector.errors import CameraError, Fault
from inspector.verdict import Reason

from .conftest import opened, picture

PARTS = 4
KINDS = ("simulator", "folder", "opencv")
Make = Callable[..., CameraConfig]


def write_video(path: Path, frames: int = PARTS) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 25, (64, 48))
    assert writer.isOpened()
    for number in range(frames):
        writer.write(picture(number))
    writer.release()
    return path


def write_folder(path: Path) -> Path:
    for number in range(PARTS):
        file = path / ("a" if number < 2 else "b") / f"{number:03d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(file), picture(number))
    return path


@pytest.fixture(params=KINDS)
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    """Configuration of each kind with PARTS parts; ``rate_hz`` and ``timeout_ms`` as asked."""
    if request.param == "folder":
        write_folder(tmp_path / "photos")
    elif request.param == "opencv":
        write_video(tmp_path / "line.avi")

    def config(rate_hz: float = 0.0, timeout_ms: int = 2000) -> CameraConfig:
        common = {"name": "top", "timeout_ms": timeout_ms}
        if request.param == "simulator":
            return SimulatorCamera(kind="simulator", rate_hz=rate_hz, parts=PARTS, **common)
        if request.param == "folder":
            path = tmp_path / "photos"
            return FolderCamera(kind="folder", path=path, rate_hz=rate_hz, **common)
        source = str(tmp_path / "line.avi")
        return OpenCvCamera(kind="opencv", source=source, fps=rate_hz or None, **common)

    return config


def drain(camera: Camera) -> list[Frame]:
    return list(iter(lambda: camera.grab(2000), None))


def test_every_part_once_then_the_end(make: Make) -> None:
    with opened(cameras.create(make())) as camera:
        frames = drain(camera)
        assert camera.grab(2000) is None
    assert len(frames) == PARTS
    assert len({frame.part_id for frame in frames}) == PARTS
    assert all(frame.part_id for frame in frames)


def test_frames_are_owned(make: Make) -> None:
    with opened(cameras.create(make())) as camera:
        first = camera.grab(2000)
        assert first is not None
        kept = first.image.copy()
        others = drain(camera)
    assert np.array_equal(first.image, kept)
    assert not any(np.shares_memory(first.image, other.image) for other in others)
    assert not any(np.array_equal(first.image, other.image) for other in others)


def test_pictures_are_8_bit_bgr(make: Make) -> None:
    with opened(cameras.create(make())) as camera:
        for frame in drain(camera):
            assert frame.image.dtype == np.uint8
            assert frame.image.ndim == 3
            assert frame.image.shape[2] == 3


def test_time_stamps_are_now_and_in_order(make: Make) -> None:
    stamps = []
    with opened(cameras.create(make())) as camera:
        time.sleep(0.15)
        for _ in range(PARTS):
            before_us = time.time_ns() // 1000
            frame = camera.grab(2000)
            after_us = time.time_ns() // 1000
            assert frame is not None
            assert before_us <= frame.grabbed_us <= after_us
            stamps.append(frame.grabbed_us)
    assert stamps == sorted(stamps)


def test_rate_is_kept_on_an_absolute_schedule(make: Make) -> None:
    with opened(cameras.create(make(rate_hz=5.0))) as camera:
        start = time.monotonic()
        assert camera.grab(2000)
        time.sleep(0.32)
        assert camera.grab(2000)
        assert time.monotonic() - start < 0.39
        # The second part was taken 0.12 s late; the third is still due at 0.4 s.
        assert camera.grab(2000)
        assert 0.38 <= time.monotonic() - start < 0.48


def test_close_twice_and_before_open(make: Make) -> None:
    camera = cameras.create(make())
    camera.close()
    camera.open()
    camera.close()
    camera.close()


def test_reopened_camera_starts_again(make: Make) -> None:
    camera = cameras.create(make())
    runs = []
    for _ in range(2):
        with opened(camera):
            runs.append([(frame.part_id, frame.image.tobytes()) for frame in drain(camera)])
    assert runs[0] == runs[1]
    assert len(runs[0]) == PARTS


def test_interrupt_ends_a_waiting_grab(make: Make) -> None:
    with opened(cameras.create(make(rate_hz=1.0, timeout_ms=5000))) as camera:
        assert camera.grab(5000)
        timer = threading.Timer(0.1, camera.interrupt)
        timer.start()
        start = time.monotonic()
        assert camera.grab(5000) is None
        assert time.monotonic() - start < 0.6
        timer.join()
        assert camera.grab(5000) is None


def test_interrupted_camera_works_after_close_and_open(make: Make) -> None:
    camera = cameras.create(make())
    with opened(camera):
        camera.interrupt()
        assert camera.grab(2000) is None
    with opened(camera):
        assert camera.grab(2000)


def test_late_part_is_a_lost_camera(make: Make) -> None:
    with opened(cameras.create(make(rate_hz=2.0))) as camera:
        assert camera.grab(2000)
        start = time.monotonic()
        with pytest.raises(CameraLostError, match="50 ms"):
            camera.grab(50)
        assert time.monotonic() - start < 0.3


def test_rate_slower_than_timeout_is_refused(make: Make) -> None:
    camera = cameras.create(make(rate_hz=0.5, timeout_ms=1000))
    with pytest.raises(CameraError, match="set timeout_ms above 2000"):
        camera.open()
    camera.close()


def missing(tmp_path: Path) -> list[CameraConfig]:
    (tmp_path / "empty").mkdir()
    (tmp_path / "no.avi").write_bytes(b"this is not a video" * 100)

    def opencv(source: int | str, **more: object) -> CameraConfig:
        return OpenCvCamera.model_validate(
            {"kind": "opencv", "name": "top", "source": source, **more}
        )

    return [
        FolderCamera(kind="folder", name="top", path=tmp_path / "nowhere"),
        FolderCamera(kind="folder", name="top", path=tmp_path / "empty"),
        opencv(str(tmp_path / "nowhere.avi")),
        opencv(str(tmp_path / "no.avi")),
        opencv(63),
        opencv("63"),
        opencv("/dev/video63"),
        opencv(f"http://user:secret@127.0.0.1:{unused_port()}/video"),
        opencv(f"rtsp://user:secret@127.0.0.1:{unused_port()}/video"),
    ]


def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize("case", range(9))
def test_missing_source_is_one_line_and_leaves_nothing(
    case: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    camera = cameras.create(missing(tmp_path)[case])
    for _ in range(2):
        with pytest.raises(CameraError) as caught:
            camera.open()
        assert str(caught.value).startswith("camera top: ")
        assert "\n" not in str(caught.value)
        assert "secret" not in str(caught.value)
    camera.close()
    assert capfd.readouterr().err == ""


def test_source_that_appears_later_opens(tmp_path: Path) -> None:
    path = tmp_path / "late.avi"
    camera = cameras.create(OpenCvCamera(kind="opencv", name="top", source=str(path)))
    with pytest.raises(CameraError, match="no such file"):
        camera.open()
    write_video(path)
    with opened(camera):
        assert len(drain(camera)) == PARTS


def test_folder_goes_by_path(tmp_path: Path) -> None:
    config = FolderCamera(kind="folder", name="top", path=write_folder(tmp_path))
    with opened(cameras.create(config)) as camera:
        ids = [frame.part_id for frame in drain(camera)]
    assert ids == ["a/000.png", "a/001.png", "b/002.png", "b/003.png"]


def test_folder_loops(tmp_path: Path) -> None:
    config = FolderCamera(kind="folder", name="top", path=write_folder(tmp_path), loop=True)
    with opened(cameras.create(config)) as camera:
        ids = [frame.part_id for frame in itertools.islice(iter(lambda: camera.grab(500), None), 9)]
    assert ids[:4] == ids[4:8]
    assert ids[8] == ids[0]


def test_unreadable_photos_are_parts_that_fault(tmp_path: Path) -> None:
    root = write_folder(tmp_path)
    whole = (root / "a/001.png").read_bytes()
    (root / "a/001.png").write_bytes(whole[: len(whole) // 2])
    (root / "b/002.png").write_bytes(b"")
    (root / "b/notes.txt").write_text("not a part")
    (root / "b/._003.png").write_bytes(b"left by another system")
    seen: list[str] = []
    config = FolderCamera(kind="folder", name="top", path=root)
    with opened(cameras.create(config)) as camera:
        for number in range(PARTS):
            if number in (1, 2):
                with pytest.raises(BadFrameError) as caught:
                    camera.grab(500)
                assert isinstance(caught.value, Fault)
                assert caught.value.reason == Reason.FRAME_UNREADABLE.value
                seen.append(caught.value.part_id)
            else:
                frame = camera.grab(500)
                assert frame is not None
                seen.append(frame.part_id)
        assert camera.grab(500) is None
    assert seen == ["a/000.png", "a/001.png", "b/002.png", "b/003.png"]


def test_photo_deleted_meanwhile_faults(tmp_path: Path) -> None:
    root = write_folder(tmp_path)
    with opened(cameras.create(FolderCamera(kind="folder", name="top", path=root))) as camera:
        (root / "a/000.png").unlink()
        with pytest.raises(BadFrameError) as caught:
            camera.grab(500)
        assert caught.value.part_id == "a/000.png"
        assert camera.grab(500)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_folder_without_permission_is_refused(tmp_path: Path) -> None:
    root = write_folder(tmp_path)
    (root / "b").chmod(0)
    try:
        with pytest.raises(CameraError, match="right to"):
            cameras.create(FolderCamera(kind="folder", name="top", path=root)).open()
    finally:
        (root / "b").chmod(0o755)


def test_every_frame_of_a_file_in_order_however_slow(tmp_path: Path) -> None:
    source = str(write_video(tmp_path / "line.avi", 12))
    levels = []
    with opened(cameras.create(OpenCvCamera(kind="opencv", name="top", source=source))) as camera:
        while frame := camera.grab(2000):
            levels.append(round((float(frame.image[40, 50, 0]) - 10) / 5))
            time.sleep(0.02)
    assert levels == list(range(12))


def test_video_that_breaks_off_is_not_the_end(tmp_path: Path) -> None:
    path = write_video(tmp_path / "line.avi", 60)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    count = 0
    config = OpenCvCamera(kind="opencv", name="top", source=str(path))
    with opened(cameras.create(config)) as camera, pytest.raises(CameraLostError, match="of 60"):
        while camera.grab(2000):
            count += 1
    assert 10 < count < 50


def test_crash_of_the_reader_is_not_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", shown.append)
    made = []

    def crash(*fields: Any) -> Frame:
        made.append(fields)
        if len(made) == 3:
            raise KeyError("a bug")
        return Frame(*fields)

    monkeypatch.setattr("inspector.cameras.opencv.Frame", crash)
    source = str(write_video(tmp_path / "line.avi"))
    config = OpenCvCamera(kind="opencv", name="top", source=source)
    with opened(cameras.create(config)) as camera:
        assert [camera.grab(2000) is None for _ in range(2)] == [False, False]
        with pytest.raises(CameraLostError, match="crashed"):
            camera.grab(2000)
    assert [type(error.exc_value) for error in shown] == [KeyError]


def test_other_size_than_asked_is_refused(tmp_path: Path) -> None:
    source = str(write_video(tmp_path / "line.avi"))
    config = OpenCvCamera(kind="opencv", name="top", source=source, width=1920, height=1080)
    with pytest.raises(CameraError, match="gives 64x48 px, not the 1920x1080"):
        cameras.create(config).open()


@pytest.mark.skipif(cameras.has_gstreamer(), reason="this OpenCV has GStreamer")
@pytest.mark.parametrize("backend", ["any", "gstreamer"])
def test_gstreamer_that_is_not_there_is_said_plainly(backend: str) -> None:
    config = OpenCvCamera.model_validate(
        {
            "kind": "opencv",
            "name": "top",
            "source": "videotestsrc ! videoconvert ! appsink",
            "backend": backend,
        }
    )
    with pytest.raises(CameraError, match="without GStreamer"):
        cameras.create(config).open()


@pytest.mark.skipif(not cameras.has_gstreamer(), reason="this OpenCV has no GStreamer")
def test_gstreamer_pipeline_gives_frames() -> None:
    source = "videotestsrc is-live=true ! videoconvert ! video/x-raw,format=BGR ! appsink"
    with opened(cameras.create(OpenCvCamera(kind="opencv", name="top", source=source))) as camera:
        assert camera.grab(2000)


@pytest.mark.skipif(sys.platform != "linux", reason="device files are Linux's")
def test_missing_device_names_those_there_are() -> None:
    with pytest.raises(CameraError, match=r"no /dev/video63; this machine has "):
        cameras.create(OpenCvCamera(kind="opencv", name="top", source=63)).open()
