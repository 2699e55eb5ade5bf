"""What each kind of camera promises beyond the contract, and what can go wrong with a stream."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import socket
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
from inspector.cameras.opencv import ExposureBounds, Freshness, OpenCv, has_gstreamer, turn_of
from inspector.config.cameras import CameraConfig
from inspector.config.cameras.folder import FolderCamera
from inspector.config.cameras.opencv import OpenCvCamera
from inspector.errors import CameraError, Fault
from inspector.verdict import Reason
from tests import videos
from tests.videos import StreamServer

PARTS = 4

needs_ffmpeg = pytest.mark.skipif(
    not cv2.videoio_registry.hasBackend(cv2.CAP_FFMPEG), reason="this OpenCV has no FFMPEG"
)


def picture(number: int) -> np.ndarray:
    """A grey picture 64 x 48 px that tells its number, exact enough after JPEG."""
    image = np.full((48, 64, 3), 10 + 5 * (number % 48), np.uint8)
    image[:24, :32] += 4
    return image


def numbered(number: int) -> bytes:
    """The picture as JPEG."""
    return videos.encode(picture(number))


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


@contextlib.contextmanager
def opened(camera: Camera) -> Iterator[Camera]:
    try:
        camera.open()
        yield camera
    finally:
        camera.close()


def drain(camera: Camera) -> list[Frame]:
    return list(iter(lambda: camera.grab(2000), None))


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
        opencv("/dev/video63?password=secret"),
        opencv("/dev//video63?password=secret"),
        FolderCamera(kind="folder", name="top", path=tmp_path / "http:" / "u:secret@10.0.0.9"),
    ]


def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize("case", range(12))
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


# Folder


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


# Video files


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
    with opened(cameras.create(config)) as camera:
        with pytest.raises(BadFrameError, match="truncated") as caught:
            while camera.grab(2000):
                count += 1
        assert caught.value.part_id == f"frame-{count:06d}"
        with pytest.raises(CameraLostError, match="of 60"):
            camera.grab(2000)
    assert 10 < count < 50


def speckled(number: int) -> np.ndarray:
    """A picture 160 x 120 px of which 40 % of a JPEG are more than its tables."""
    return videos.speckled(np.full((120, 160, 3), 60 + number, np.uint8), number)


def grab_all(camera: Camera) -> Iterator[Frame | BadFrameError]:
    """Every part of a file, also those that cannot be read."""
    while True:
        try:
            frame = camera.grab(2000)
        except BadFrameError as error:
            yield error
            continue
        if frame is None:
            return
        yield frame


@needs_ffmpeg
@pytest.mark.parametrize("create", [cameras.create, cameras.isolate])
def test_a_video_frame_that_lost_its_tail_is_a_bad_frame_and_the_others_are_not(
    tmp_path: Path, create: Callable[[CameraConfig], Camera]
) -> None:
    path = videos.write_avi(tmp_path / "line.avi", [speckled(number) for number in range(6)])
    reader = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    expected = [reader.read()[1] for _ in range(6)]
    reader.release()
    videos.cut_frames(path, {2: 0.4, 5: 0.9})
    with opened(create(OpenCvCamera(kind="opencv", name="top", source=str(path)))) as camera:
        found = list(grab_all(camera))
    assert [one.part_id for one in found] == [f"frame-{number:06d}" for number in range(6)]
    for number, frame in enumerate(found):
        if number in (2, 5):
            assert isinstance(frame, BadFrameError)
            assert "premature end" in str(frame)
        else:
            assert isinstance(frame, Frame)
            # FFmpeg's own decoder rounds otherwise, by some grey levels.
            np.testing.assert_allclose(frame.image.astype(int), expected[number], atol=9)


@needs_ffmpeg
@pytest.mark.parametrize("suffix", ["mp4", "mkv", "mov", "mjpeg"])
def test_jpegs_are_known_in_every_container(tmp_path: Path, suffix: str) -> None:
    path = videos.write_avi(tmp_path / f"line.{suffix}", [speckled(number) for number in range(6)])
    data = bytearray(path.read_bytes())
    begins = [found.start() for found in re.finditer(rb"\xff\xd8\xff", data)]
    end = data.index(videos.END, begins[3])
    half = (begins[3] + end) // 2
    data[half:end] = bytes(end - half)
    path.write_bytes(data)
    with opened(cameras.create(OpenCvCamera(kind="opencv", name="top", source=str(path)))) as it:
        found = list(grab_all(it))
    assert [isinstance(one, BadFrameError) for one in found] == [n == 3 for n in range(6)]


@needs_ffmpeg
def test_each_frame_of_a_video_has_its_own_size(tmp_path: Path) -> None:
    path = videos.write_avi(tmp_path / "line.avi", [speckled(number) for number in range(4)])
    small = videos.encode(speckled(2)[:60, :80], cv2.IMWRITE_JPEG_QUALITY, 40)
    videos.replace_frames(path, {2: small})
    with opened(cameras.create(OpenCvCamera(kind="opencv", name="top", source=str(path)))) as it:
        sizes = [frame.image.shape[:2] for frame in drain(it)]
    assert sizes == [(120, 160), (120, 160), (60, 80), (120, 160)]


@needs_ffmpeg
@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_a_video_that_is_to_be_shown_turned_comes_as_it_is_stored(
    tmp_path: Path, degrees: int
) -> None:
    path = tmp_path / "line.mp4"
    writer = cv2.VideoWriter(
        str(path), cv2.CAP_FFMPEG, cv2.VideoWriter_fourcc(*"mp4v"), 25, (96, 64)
    )
    picture = np.zeros((64, 96, 3), np.uint8)
    picture[:32, :48] = 255
    for _ in range(3):
        writer.write(picture)
    writer.release()
    config = OpenCvCamera(kind="opencv", name="top", source=str(path))
    assert turn_of(config) == 0
    videos.turn(path, degrees)
    assert turn_of(config) == degrees
    with opened(cameras.create(config)) as camera:
        frame = camera.grab(1000)
    assert frame is not None
    assert frame.image.shape == picture.shape
    assert frame.image[8, 8].min() > 200
    assert max(frame.image[8, -8].max(), frame.image[-8, 8].max(), frame.image[-8, -8].max()) < 50


@pytest.mark.parametrize("code", ["mp4v", "VP80"])
def test_a_video_of_another_codec_is_decoded_by_opencv(tmp_path: Path, code: str) -> None:
    path = tmp_path / "line.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*code), 25, (160, 120))
    for number in range(4):
        writer.write(speckled(number))
    writer.release()
    with opened(cameras.create(OpenCvCamera(kind="opencv", name="top", source=str(path)))) as it:
        assert [frame.image.shape for frame in drain(it)] == [(120, 160, 3)] * 4


@needs_ffmpeg
def test_a_frame_that_cannot_be_decoded_is_not_the_end(tmp_path: Path) -> None:
    path = tmp_path / "line.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"VP80"), 25, (160, 120))
    for number in range(40):
        writer.write(speckled(number))
    writer.release()
    # So near the end that the number of frames tells nothing.
    videos.replace_frames(path, {38: b""})
    config = OpenCvCamera(kind="opencv", name="top", source=str(path))
    with opened(cameras.create(config)) as camera, pytest.raises(CameraLostError) as caught:
        drain(camera)
    assert "frame-000038 of the video is damaged" in str(caught.value)


def test_a_folder_gives_no_part_of_a_photo_and_no_page_of_several(tmp_path: Path) -> None:
    jpeg = videos.encode(speckled(0))
    (tmp_path / "0.jpg").write_bytes(videos.cut(jpeg))
    (tmp_path / "1.jpg").write_bytes(jpeg)
    assert cv2.imwritemulti(str(tmp_path / "2.tiff"), [speckled(0), speckled(1)])
    assert cv2.imwrite(str(tmp_path / "3.tiff"), speckled(0))
    config = FolderCamera(kind="folder", name="top", path=tmp_path)
    with opened(cameras.create(config)) as camera:
        found = list(grab_all(camera))
    assert [one.part_id for one in found] == ["0.jpg", "1.jpg", "2.tiff", "3.tiff"]
    assert [isinstance(one, BadFrameError) for one in found] == [True, False, True, False]


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


@pytest.mark.skipif(has_gstreamer(), reason="this OpenCV has GStreamer")
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
    with pytest.raises(CameraError, match="without GStreamer") as caught:
        cameras.create(config).open()
    # Who named no backend, as on a command line, has no such key.
    assert ("another 'backend'" in str(caught.value)) == (backend != "any")


@pytest.mark.skipif(not has_gstreamer(), reason="this OpenCV has no GStreamer")
def test_gstreamer_pipeline_gives_frames() -> None:
    source = "videotestsrc is-live=true ! videoconvert ! video/x-raw,format=BGR ! appsink"
    with opened(cameras.create(OpenCvCamera(kind="opencv", name="top", source=source))) as camera:
        assert camera.grab(2000)


# Live streams


def stream(
    server: StreamServer, timeout_ms: int = 400, open_timeout_ms: int = 5000, scheme: str = "http"
) -> OpenCv:
    source = server.url.replace("http", scheme)
    config = OpenCvCamera(kind="opencv", name="top", source=source, timeout_ms=timeout_ms)
    return OpenCv(config, open_timeout_ms)


@needs_ffmpeg
@pytest.mark.parametrize("scheme", ["http", "rtsp"])
def test_server_that_never_answers_is_refused_in_time(scheme: str) -> None:
    with StreamServer(numbered, frames=0) as server:
        camera = stream(server, open_timeout_ms=500, scheme=scheme)
        start = time.monotonic()
        with pytest.raises(CameraError, match=f"^camera top: {scheme}"):
            camera.open()
        assert time.monotonic() - start < 2.5
        assert server.connections >= 1
        camera.close()
        time.sleep(0.2)
        assert not any(thread.name == "read-top" for thread in threading.enumerate())


@needs_ffmpeg
def test_interrupt_ends_a_waiting_open() -> None:
    with StreamServer(numbered, frames=0) as server:
        camera = stream(server, open_timeout_ms=2000)
        timer = threading.Timer(0.2, camera.interrupt)
        timer.start()
        start = time.monotonic()
        with pytest.raises(CameraError, match="interrupted"):
            camera.open()
        # The interrupt is prompt; joining the reader may take its second.
        assert time.monotonic() - start < 1.7
        timer.join()
        camera.close()


@needs_ffmpeg
def test_stream_that_falls_silent_is_a_lost_camera_and_comes_back() -> None:
    with StreamServer(numbered, frames=60) as server:
        camera = stream(server)
        with opened(camera):
            assert camera.grab(2000)
            with pytest.raises(CameraLostError):
                for _ in range(200):
                    assert camera.grab(400)
            start = time.monotonic()
            with pytest.raises(CameraLostError):
                camera.grab(400)
            assert time.monotonic() - start < 1.0
        server.frames = None
        with opened(camera):
            frame = camera.grab(2000)
            assert frame is not None
            assert frame.part_id == ""
        assert server.connections >= 2


@needs_ffmpeg
@pytest.mark.parametrize("end", [b"", videos.END])
def test_a_stream_frame_that_lost_its_tail_is_a_bad_frame_and_the_next_one_follows(
    end: bytes,
) -> None:
    def every_third_is_cut(number: int) -> bytes:
        jpeg = videos.encode(speckled(number))
        return videos.cut(jpeg)[:-2] + end if number % 3 == 2 else jpeg

    bad: list[str] = []
    shown: set[int] = set()
    server = StreamServer(every_third_is_cut)
    with server, opened(stream(server)) as camera:
        while len(bad) < 4:
            try:
                frame = camera.grab(2000)
            except BadFrameError as error:
                bad.append(str(error))
                continue
            assert frame is not None
            shown.add(round(float(frame.image.mean())) - 60)
    assert all("truncated" in text or "damaged" in text for text in bad), bad
    assert len(shown) >= 4
    assert not any(number % 3 == 2 for number in shown)


@needs_ffmpeg
def test_a_stream_that_changes_its_resolution_is_not_rescaled() -> None:
    def smaller_from_20_on(number: int) -> bytes:
        return videos.encode(speckled(0)[:60, :80] if number >= 20 else speckled(0))

    sizes: list[tuple[int, ...]] = []
    server = StreamServer(smaller_from_20_on)
    with server, opened(stream(server)) as camera:
        while server.sent < 40:
            frame = camera.grab(2000)
            assert frame is not None
            sizes.append(frame.image.shape[:2])
    assert set(sizes) == {(120, 160), (60, 80)}
    assert sizes == sorted(sizes, reverse=True)


@needs_ffmpeg
def test_only_the_newest_frame_of_a_stream_counts() -> None:
    with StreamServer(numbered) as server, opened(stream(server)) as camera:
        assert camera.grab(2000)
        for _ in range(3):
            time.sleep(0.3)
            before_us = time.time_ns() // 1000
            frame = camera.grab(2000)
            assert frame is not None
            # Twelve frames passed meanwhile; the one handed over is not one of the old ones.
            assert before_us - frame.grabbed_us < 120_000
            shown = round((float(frame.image[40, 50, 0]) - 10) / 5)
            assert (server.sent - shown) % 48 < 10


@needs_ffmpeg
def test_frame_that_waited_too_long_is_never_handed_over() -> None:
    with (
        StreamServer(numbered, frames=60) as server,
        opened(stream(server, timeout_ms=3000)) as camera,
    ):
        while server.sent < 60:
            time.sleep(0.05)
        time.sleep(0.5)
        # The reader holds the last frame, half a second old.
        with pytest.raises(CameraLostError, match="no fresh frame within 200 ms"):
            camera.grab(200)


@needs_ffmpeg
def test_readers_that_hang_do_not_pile_up() -> None:
    with StreamServer(numbered) as server:
        camera = stream(server, timeout_ms=20_000)
        for _ in range(3):
            server.frames = None
            camera.open()
            server.frames = 1
            time.sleep(0.1)
            camera.close()
        with pytest.raises(CameraError, match="3 earlier reads still hang"):
            camera.open()
        server.hang_up()
        server.frames = None
        time.sleep(0.2)
        with opened(camera):
            assert camera.grab(2000)
        server.hang_up()


def test_repeated_frame_is_told_from_a_line_that_stands_still() -> None:
    fresh, image = Freshness(), picture(3)
    assert fresh.accepts(image, 40.0)
    assert not fresh.accepts(image.copy(), 40.0)
    assert fresh.accepts(image.copy(), 80.0)
    assert fresh.accepts(picture(4), 80.0)
    assert fresh.accepts(picture(4), 0.0)
    assert fresh.accepts(picture(4), 0.0)


def held_up(frames: int, waiting_at_most: int) -> Iterator[tuple[int, int]]:
    """When a camera of 25 frames/s puts frames into its driver, and when a reader has them, in ms.

    The reader needs 8 ms a frame, and is held up for 400 ms in the middle.
    """
    waiting: list[int] = []
    free_at = 0
    for number in range(frames):
        came = 10_000 + 40 * number
        while waiting and max(free_at, waiting[0]) < came:
            oldest = waiting.pop(0)
            free_at = max(free_at, oldest) + 8
            yield oldest, free_at
            free_at += 400 * (oldest == 10_000 + 40 * (frames // 2))
        if len(waiting) < waiting_at_most:
            waiting.append(came)


@pytest.mark.parametrize("waiting_at_most", [1, 4, 100])
def test_exposure_is_never_said_to_be_later_than_it_was(waiting_at_most: int) -> None:
    ms, latency_ms, frames = 1_000_000, 60, 120
    bounds = ExposureBounds(9_990 * ms, latency_ms, 25)
    last_ns, seen = 0, 0
    for came, taken in held_up(frames, waiting_at_most):
        bound_ns = bounds.next(taken * ms)
        assert last_ns < bound_ns <= (came - latency_ms) * ms
        last_ns, seen = bound_ns, seen + 1
    assert seen > frames - 15
    # In step again, it is one frame behind and no more.
    assert (came - latency_ms) * ms - last_ns <= 40 * ms


@pytest.mark.skipif(sys.platform != "linux", reason="device files are Linux's")
def test_missing_device_names_those_there_are() -> None:
    with pytest.raises(CameraError, match=r"no /dev/video63; this machine has "):
        cameras.create(OpenCvCamera(kind="opencv", name="top", source=63)).open()
