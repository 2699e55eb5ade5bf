"""The camera contract, kept by every kind, in this process and in one of its own."""

from __future__ import annotations

import contextlib
import itertools
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from inspector import cameras
from inspector.cameras import BadFrameError, Camera, CameraLostError, Frame
from inspector.config.cameras import CameraConfig
from inspector.config.cameras.faulty import FaultyCamera
from inspector.config.cameras.folder import FolderCamera
from inspector.config.cameras.opencv import OpenCvCamera
from inspector.config.cameras.simulator import SimulatorCamera
from inspector.errors import CameraError
from tests.cameras.test_cameras import (
    PARTS,
    needs_ffmpeg,
    numbered,
    unused_port,
    write_folder,
    write_video,
)
from tests.videos import StreamServer

KINDS = ("simulator", "folder", "opencv", "faulty")
isolated = pytest.param(
    cameras.isolate,
    id="isolated",
    marks=pytest.mark.skipif(sys.platform != "linux", reason="isolated cameras are Linux's"),
)
HOW = [pytest.param(cameras.create, id="bare"), isolated]

Build = Callable[[CameraConfig], Camera]
Make = Callable[..., Camera]


def replay(kind: str, folder: Path, rate_hz: float, timeout_ms: int) -> CameraConfig:
    """A camera of ``kind`` with PARTS parts; its files are written to ``folder`` once."""
    common: dict[str, Any] = {"name": "top", "timeout_ms": timeout_ms}
    if kind == "simulator":
        return SimulatorCamera(kind="simulator", rate_hz=rate_hz, parts=PARTS, **common)
    if kind in ("folder", "faulty"):
        if not (folder / "photos").exists():
            write_folder(folder / "photos")
        common |= {"path": folder / "photos", "rate_hz": rate_hz}
        if kind == "faulty":
            steps = [{"do": "frames", "count": PARTS}]
            return FaultyCamera.model_validate({"kind": "faulty", "steps": steps, **common})
        return FolderCamera(kind="folder", **common)
    path = folder / "line.avi"
    if not path.exists():
        write_video(path)
    return OpenCvCamera(kind="opencv", source=str(path), fps=rate_hz or None, **common)


@pytest.fixture(params=HOW)
def build(request: pytest.FixtureRequest) -> Build:
    return request.param


@pytest.fixture(params=KINDS)
def make(request: pytest.FixtureRequest, build: Build, tmp_path: Path) -> Make:
    def camera(rate_hz: float = 0.0, timeout_ms: int = 2000) -> Camera:
        return build(replay(request.param, tmp_path, rate_hz, timeout_ms))

    return camera


@contextlib.contextmanager
def opened(camera: Camera) -> Iterator[Camera]:
    try:
        camera.open()
        yield camera
    finally:
        camera.close()


def drain(camera: Camera) -> list[Frame]:
    return list(iter(lambda: camera.grab(2000), None))


def test_every_part_once_owned_stamped_in_order_then_the_end(make: Make) -> None:
    frames, copies = [], []
    with opened(make()) as camera:
        time.sleep(0.15)
        for _ in range(PARTS):
            before_us, before_ns = time.time_ns() // 1000, time.monotonic_ns()
            frame = camera.grab(2000)
            assert frame is not None
            assert before_us <= frame.grabbed_us <= time.time_ns() // 1000
            assert before_ns <= frame.exposed_ns <= time.monotonic_ns()
            frames.append(frame)
            copies.append(frame.image.copy())
        assert camera.grab(2000) is None
        assert camera.grab(2000) is None
    for one, two in itertools.pairwise(frames):
        assert one.grabbed_us <= two.grabbed_us
        assert one.exposed_ns < two.exposed_ns
        assert not np.shares_memory(one.image, two.image)
        assert not np.array_equal(one.image, two.image)
    assert len({frame.part_id for frame in frames} - {""}) == PARTS
    for frame, copy in zip(frames, copies, strict=True):
        assert np.array_equal(frame.image, copy)
        assert (frame.image.dtype, frame.image.ndim, frame.image.shape[2]) == (np.uint8, 3, 3)


@pytest.mark.long
def test_rate_is_kept_on_an_absolute_schedule_and_a_wait_can_be_cut(make: Make) -> None:
    with opened(make(rate_hz=1.0)) as camera:
        first = camera.grab(2000)
        time.sleep(1.5)
        assert camera.grab(2000)
        # The second part was taken 0.5 s late; the third is still due at 2 s.
        third = camera.grab(2000)
        assert first is not None
        assert third is not None
        assert 1.7 < (third.exposed_ns - first.exposed_ns) / 1e9 < 2.4
        timer = threading.Timer(0.1, camera.interrupt)
        timer.start()
        begun = time.monotonic()
        assert camera.grab(2000) is None
        assert time.monotonic() - begun < 0.8
        timer.join()
        assert camera.grab(2000) is None


def test_closed_before_open_and_twice_and_opened_again(make: Make) -> None:
    camera = make()
    camera.close()
    camera.interrupt()
    camera.close()
    with opened(camera):
        first = [(frame.part_id, frame.image.tobytes()) for frame in drain(camera)]
    camera.close()
    with opened(camera):
        assert [(frame.part_id, frame.image.tobytes()) for frame in drain(camera)] == first
    assert len(first) == PARTS
    with pytest.raises(CameraLostError):
        raise_unless_none(camera)


def raise_unless_none(camera: Camera) -> None:
    """A closed camera gives nothing: lost, or the end."""
    if camera.grab(100) is None:
        raise CameraLostError("the end")


def test_late_part_is_a_lost_camera(make: Make) -> None:
    with opened(make(rate_hz=2.0)) as camera:
        assert camera.grab(2000)
        start = time.monotonic()
        with pytest.raises(CameraLostError):
            camera.grab(50)
        assert time.monotonic() - start < 0.3
        with pytest.raises(CameraLostError):
            camera.grab(50)


def test_rate_slower_than_timeout_is_refused(make: Make) -> None:
    camera = make(rate_hz=0.5, timeout_ms=1000)
    with pytest.raises(CameraError, match=r"^camera top: .*set timeout_ms above 2000"):
        camera.open()
    camera.close()


def test_missing_source_is_one_line_and_leaves_nothing(
    build: Build, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    url = f"http://user:secret@127.0.0.1:{unused_port()}/video"
    for config in (
        FolderCamera(kind="folder", name="top", path=tmp_path / "nowhere"),
        OpenCvCamera(kind="opencv", name="top", source=url),
        OpenCvCamera(kind="opencv", name="top", source=63),
        FaultyCamera.model_validate(
            {"kind": "faulty", "name": "top", "steps": [{"do": "refuse_open", "times": 2}]}
        ),
    ):
        camera = build(config)
        for _ in range(2):
            with pytest.raises(CameraError) as caught:
                camera.open()
            assert str(caught.value).startswith("camera top: ")
            assert "\n" not in str(caught.value)
            assert "secret" not in str(caught.value)
        camera.close()
    assert capfd.readouterr().err == ""


@needs_ffmpeg
def test_stream_is_fresh_falls_silent_is_lost_and_comes_back(build: Build) -> None:
    with StreamServer(numbered) as server:
        config = OpenCvCamera(kind="opencv", name="top", source=server.url, timeout_ms=400)
        camera = build(config)
        with opened(camera):
            last_ns = 0
            for _ in range(3):
                time.sleep(0.2)
                called_ns = time.monotonic_ns()
                frame = camera.grab(2000)
                assert frame is not None
                assert last_ns < frame.exposed_ns < time.monotonic_ns() - 90_000_000
                # Eight frames passed meanwhile; the one handed over is not one of the old ones.
                assert called_ns - frame.exposed_ns < 300_000_000
                last_ns = frame.exposed_ns
                assert frame.part_id == ""
            server.frames = 0
            start = time.monotonic()
            with pytest.raises(CameraLostError):
                while camera.grab(400):
                    assert time.monotonic() - start < 2.0
        server.frames = None
        with opened(camera):
            assert camera.grab(2000)
        assert server.connections >= 2


@needs_ffmpeg
def test_interrupt_ends_a_waiting_open(build: Build) -> None:
    with StreamServer(numbered, frames=0) as server:
        camera = build(OpenCvCamera(kind="opencv", name="top", source=server.url, timeout_ms=1000))

        def interrupt_when_connected() -> None:
            while not server.connections:
                time.sleep(0.01)
            camera.interrupt()

        interrupter = threading.Thread(target=interrupt_when_connected)
        interrupter.start()
        with pytest.raises(CameraError, match="interrupted"):
            camera.open()
        interrupter.join()
        start = time.monotonic()
        with pytest.raises(CameraError, match="interrupted"):
            camera.open()
        camera.close()
        assert time.monotonic() - start < 4.0
        server.hang_up()
        time.sleep(0.1)


def test_every_kind_of_picture_comes_as_the_file_has_it(build: Build, tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    pictures = {
        "a.png": rng.integers(0, 256, (31, 45), np.uint8),
        "b.png": rng.integers(0, 65536, (31, 45), np.uint16),
        "c.png": rng.integers(0, 256, (45, 31, 3), np.uint8),
        "d.png": rng.integers(0, 65536, (45, 31, 4), np.uint16),
        "e.tiff": rng.random((31, 45), np.float32),
        "f.png": rng.integers(0, 256, (1, 1, 3), np.uint8),
    }
    for name, image in pictures.items():
        assert cv2.imwrite(str(tmp_path / name), image)
    (tmp_path / "aa.png").write_bytes(b"broken")
    seen: dict[str, Any] = {}
    with opened(build(FolderCamera(kind="folder", name="top", path=tmp_path))) as camera:
        for _ in range(len(pictures) + 1):
            try:
                frame = camera.grab(2000)
            except BadFrameError as error:
                seen[error.part_id] = str(error)
                assert error.exposed_ns > 0
            else:
                assert frame is not None
                seen[frame.part_id] = frame.image
        assert camera.grab(2000) is None
    assert sorted(seen) == sorted([*pictures, "aa.png"])
    assert "aa.png" in seen["aa.png"]
    for name, image in pictures.items():
        assert seen[name].dtype == image.dtype
        assert np.array_equal(seen[name], image)
