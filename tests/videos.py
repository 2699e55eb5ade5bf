"""JPEGs that lost their tail, and MJPEG videos and streams that hold what they are given."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

END = b"\xff\xd9"


def cut(jpeg: bytes, share: float = 0.4) -> bytes:
    """The first ``share`` of a JPEG with the end marker put back, as after a lost packet."""
    return jpeg[: int(share * (len(jpeg) - len(END)))] + END


def speckled(picture: np.ndarray, seed: int = 0) -> np.ndarray:
    """``picture`` with noise, so that most of its JPEG is pixels and not tables."""
    noise = np.random.default_rng(seed).integers(-12, 13, picture.shape)
    return (picture.astype(int) + noise).clip(0, 255).astype(np.uint8)


def encode(picture: np.ndarray, *options: int) -> bytes:
    """As JPEG, with OpenCV's ``options``."""
    return bytes(cv2.imencode(".jpg", picture, options)[1])


def write_avi(path: Path, pictures: Sequence[np.ndarray], *, rate_hz: int = 25) -> Path:
    """An MJPEG video of ``pictures``, which have one size."""
    height, width = pictures[0].shape[:2]
    code = cv2.VideoWriter_fourcc(*"MJPG")
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, code, rate_hz, (width, height))
    assert writer.isOpened()
    for picture in pictures:
        writer.write(picture)
    writer.release()
    return path


def turn(path: Path, degrees: int) -> Path:
    """Have an MP4 say that it is to be shown turned, as phones do."""
    data = bytearray(path.read_bytes())
    # The matrix stands 36 bytes behind the box's flags (ISO 14496-12, version 0).
    at = data.index(b"tkhd") + 8 + 36
    one = 1 << 16
    matrix = {90: (0, one, -one, 0), 180: (-one, 0, 0, -one), 270: (0, -one, one, 0)}[degrees]
    a, b, c, d = matrix
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    return path


def frames_of(avi: bytes) -> list[slice]:
    """Where the frames of an AVI stand."""
    found, at = [], avi.index(b"movi") + 4
    while avi[at + 2 : at + 4] in (b"dc", b"db"):
        size = int.from_bytes(avi[at + 4 : at + 8], "little")
        found.append(slice(at + 8, at + 8 + size))
        at += 8 + size + size % 2
    return found


def replace_frames(path: Path, jpegs: Mapping[int, bytes]) -> None:
    """Put JPEGs, none longer than what stands there, into the places of frames; zeros follow."""
    data = bytearray(path.read_bytes())
    places = frames_of(bytes(data))
    for number, jpeg in jpegs.items():
        place = places[number]
        room = place.stop - place.start
        assert len(jpeg) <= room
        data[place] = jpeg.ljust(room, b"\0")
    path.write_bytes(data)


def cut_frames(path: Path, shares: Mapping[int, float]) -> None:
    """Take their tails from frames of an MJPEG AVI; ``shares`` says how much of each remains."""
    data = path.read_bytes()
    places = frames_of(data)
    replace_frames(
        path, {number: cut(data[places[number]], share) for number, share in shares.items()}
    )


class StreamServer:
    """An IP camera on loopback: MJPEG over HTTP at 40 frames/s, or whatever it is told not to do.

    ``jpeg`` makes the bytes of a frame from its number in the connection. ``frames``: how many it
    sends before it falls silent with the connection open; 0: it accepts and never answers; None:
    for ever.
    """

    def __init__(self, jpeg: Callable[[int], bytes], frames: int | None = None) -> None:
        self.jpeg = jpeg
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
                    jpeg = self.jpeg(number)
                    head = "--frame\r\nContent-Type: image/jpeg\r\n"
                    head += f"Content-Length: {len(jpeg)}\r\n\r\n"
                    connection.sendall(head.encode() + jpeg + b"\r\n")
                    number += 1
                    self.sent = number
