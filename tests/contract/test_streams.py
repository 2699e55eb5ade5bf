"""What only a live stream can do wrong."""

from __future__ import annotations

import contextlib
import socket
import threading
import time

import cv2
import pytest

from inspector.cameras import CameraLostError
from inspector.cameras.opencv import Freshness, OpenCv
from inspector.config import OpenCvCamera
from inspector.errors import CameraError

from .conftest import opened, picture

needs_ffmpeg = pytest.mark.skipif(
    not cv2.videoio_registry.hasBackend(cv2.CAP_FFMPEG), reason="this OpenCV has no FFMPEG"
)


class StreamServer:
    """An IP camera on loopback: MJPEG over HTTP at 40 frames/s, or whatever it is told not to do.

    ``frames``: how many it sends before it falls silent with the connection open; 0: it accepts
    and never answers; None: for ever.
    """

    def __init__(self, frames: int | None) -> None:
        self.frames = frames
        self.connections = 0
        self.sent = 0
        self._closing = threading.Event()
        self._hanging_up = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(0.05)
        self._threads = [threading.Thread(target=self._serve)]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}/video.mjpg"

    def __enter__(self) -> StreamServer:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self.hang_up()
        self._threads[0].join()
        self._listener.close()

    def hang_up(self) -> None:
        """Close every connection; new ones are served."""
        self._hanging_up.set()
        for thread in self._threads[1:]:
            thread.join()
        self._hanging_up.clear()

    def _serve(self) -> None:
        while not self._closing.is_set():
            with contextlib.suppress(TimeoutError):
                connection, _ = self._listener.accept()
                self.connections += 1
                thread = threading.Thread(target=self._talk, args=(connection,))
                self._threads.append(thread)
                thread.start()

    def _talk(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.settimeout(1.0)
            connection.recv(4096)
            if self.frames != 0:
                kind = b"multipart/x-mixed-replace; boundary=frame"
                connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Type: " + kind + b"\r\n\r\n")
            number, silent = 0, False
            while not self._hanging_up.wait(0.025):
                # Once silent it stays connected: the failure that no error code shows.
                silent = silent or (self.frames is not None and number >= self.frames)
                if not silent:
                    jpeg = cv2.imencode(".jpg", picture(number))[1].tobytes()
                    head = "--frame\r\nContent-Type: image/jpeg\r\n"
                    head += f"Content-Length: {len(jpeg)}\r\n\r\n"
                    connection.sendall(head.encode() + jpeg + b"\r\n")
                    number += 1
                    self.sent = number


def stream(
    server: StreamServer, timeout_ms: int = 400, open_timeout_ms: int = 5000, scheme: str = "http"
) -> OpenCv:
    source = server.url.replace("http", scheme)
    config = OpenCvCamera(kind="opencv", name="top", source=source, timeout_ms=timeout_ms)
    return OpenCv(config, open_timeout_ms)


@needs_ffmpeg
@pytest.mark.parametrize("scheme", ["http", "rtsp"])
def test_server_that_never_answers_is_refused_in_time(scheme: str) -> None:
    with StreamServer(frames=0) as server:
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
    with StreamServer(frames=0) as server:
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
    with StreamServer(frames=60) as server:
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
def test_only_the_newest_frame_of_a_stream_counts() -> None:
    with StreamServer(frames=None) as server, opened(stream(server)) as camera:
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
    with StreamServer(frames=60) as server, opened(stream(server, timeout_ms=3000)) as camera:
        while server.sent < 60:
            time.sleep(0.05)
        time.sleep(0.5)
        # The reader holds the last frame, half a second old.
        with pytest.raises(CameraLostError, match="no fresh frame within 200 ms"):
            camera.grab(200)


@needs_ffmpeg
def test_readers_that_hang_do_not_pile_up() -> None:
    with StreamServer(frames=None) as server:
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
