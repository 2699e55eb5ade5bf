"""Cameras through OpenCV: a device, a video file, an RTSP or HTTP stream, a GStreamer pipeline.

``VideoCapture.read`` and ``open`` may block for ever, so a thread of their own calls both and owns
the device from opening to release. A thread that hangs in the driver is left behind: when the
driver returns it releases the device and hands over nothing. Beside three of them ``open`` refuses
to start a fourth.
"""

from __future__ import annotations

import dataclasses
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt

from inspector.cameras.base import BadFrameError, CameraLostError, Frame
from inspector.cameras.pace import Pace, now_us
from inspector.config.cameras.opencv import OpenCvCamera, SourceKind
from inspector.errors import CameraError
from inspector.imaging.jpeg import decode_jpeg
from inspector.shown import complaint, masked

OPEN_TIMEOUT_MS: Final = 10_000
_JOIN_S: Final = 1.0
"""Longest time that ``close`` waits for the driver."""
_MOST_STUCK: Final = 3

_MOST_DAMAGED: Final = 25
"""Frames after the one that cannot be decoded which are tried, to tell damage from the end."""

_BACKENDS: Final = {
    "ffmpeg": cv2.CAP_FFMPEG,
    "v4l2": cv2.CAP_V4L2,
    "gstreamer": cv2.CAP_GSTREAMER,
}

_JPEG_CODES: Final = frozenset({b"mjpg", b"mjpe", b"jpeg"})
"""What a source of JPEGs calls its codec; ``mjpe`` is FFmpeg's name for those that have no code."""
_AS_IT_IS: Final = {
    "FFMPEG": (cv2.CAP_PROP_FORMAT, -1),
    "V4L2": (cv2.CAP_PROP_CONVERT_RGB, 0),
}
"""For each backend, what makes it hand over frames without decoding them, as uint8 ``[1, n]``."""

# OpenCV's own messages are for those who set its variable; others get the one line of our errors.
if "OPENCV_LOG_LEVEL" not in os.environ:
    # OpenCV 4 has the function at the top, OpenCV 5 below utils; level 0 is silent in both.
    _set_log_level = getattr(cv2, "setLogLevel", None) or cv2.utils.logging.setLogLevel
    _set_log_level(0)
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")


def has_gstreamer() -> bool:
    """Whether the installed OpenCV can run GStreamer pipelines."""
    return bool(cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER))


def turn_of(config: OpenCvCamera) -> int:
    """By how many degrees a video says that it is to be shown turned; 0 for any other source.

    0 too where the file cannot be read, which opening the camera tells.
    """
    if config.source_kind != "file" or not Path(str(config.source)).is_file():
        return 0
    capture = cv2.VideoCapture()
    try:
        capture.open(str(config.source), _backend(config, "file"))
        degrees = round(capture.get(cv2.CAP_PROP_ORIENTATION_META))
        # A backend that does not know says -1.
        return degrees if degrees in (90, 180, 270) else 0
    except (cv2.error, CameraError):
        return 0
    finally:
        capture.release()


class OpenCv:
    """One OpenCV source (docs/cameras.md).

    A device, stream or pipeline gives its newest frame only; in a file every frame is a part.
    """

    def __init__(self, config: OpenCvCamera, open_timeout_ms: int = OPEN_TIMEOUT_MS) -> None:
        self._config = config
        self._open_timeout_ms = open_timeout_ms
        self._is_file = config.source_kind == "file"
        rate_hz = config.fps if self._is_file and config.fps else 0.0
        self._pace = Pace(config.name, rate_hz, config.timeout_ms)
        self._reader: _CaptureThread | None = None
        self._stuck: list[_CaptureThread] = []

    def open(self) -> None:
        """Connect, within the open timeout. Raises CameraError with the cause and a cure."""
        self._let_go()
        if len(self._stuck) >= _MOST_STUCK:
            raise CameraError(
                f"camera {self._config.name}: {len(self._stuck)} earlier reads still hang in the "
                f"driver; unplug the camera or restart the station"
            )
        self._pace.start()
        reader = self._reader = _CaptureThread(self._config, self._open_timeout_ms)
        reader.start()
        if self._pace.interrupted:
            reader.stop()
        try:
            reader.wait_open()
        except CameraError:
            self._let_go()
            raise

    def grab(self, timeout_ms: int) -> Frame | None:
        """The next frame; None at the end of a file.

        Raises :class:`CameraLostError`, and :class:`BadFrameError` for a JPEG that is not whole.
        """
        if self._reader is None:
            raise CameraLostError("not open")
        if not self._pace.wait(timeout_ms):
            return None
        return self._reader.take(timeout_ms)

    def interrupt(self) -> None:
        """Make a waiting ``grab`` return None, and a waiting ``open`` give up."""
        self._pace.interrupt()
        reader = self._reader
        if reader is not None:
            reader.stop()

    def close(self) -> None:
        """Release the device; waits at most a second for the driver."""
        self._let_go()
        self._pace.reset()

    def _let_go(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.stop()
            reader.join(_JOIN_S)
            self._stuck.append(reader)
        self._stuck = [other for other in self._stuck if other.is_alive()]


class _CaptureThread(threading.Thread):
    """Opens, reads and releases one ``VideoCapture``, which no other thread touches."""

    def __init__(self, config: OpenCvCamera, open_timeout_ms: int) -> None:
        super().__init__(name=f"read-{config.name}", daemon=True)
        self._config = config
        self._source = str(config.source)
        self._open_timeout_ms = open_timeout_ms
        self._is_file = config.source_kind == "file"
        self._changed = threading.Condition()
        self._slot: Frame | BadFrameError | None = None
        self._filled_s = 0.0
        self._opened_ns = 0
        self._is_open = False
        self._is_over = False
        self._stopping = False
        self._problem = ""

    def run(self) -> None:
        """Read until the source ends or fails, or ``stop`` is called."""
        capture = cv2.VideoCapture()
        self._opened_ns = time.monotonic_ns()
        # Remains if an unexpected error ends this thread, which must not pass for the source's end.
        problem = "the reader crashed; its error stands in the log"
        try:
            _connect(capture, self._config, self._open_timeout_ms)
            with self._changed:
                self._is_open = True
                self._changed.notify_all()
            problem = self._read_on(capture)
        except CameraError as error:
            problem = str(error)
        except cv2.error as error:
            problem = f"OpenCV: {' '.join(str(error).split())}"
        finally:
            capture.release()
            with self._changed:
                self._is_over, self._problem = True, complaint(problem, [self._source])
                self._changed.notify_all()

    def wait_open(self) -> None:
        """Wait until the source is open. Raises CameraError when it cannot be opened in time."""
        who = f"camera {self._config.name}: {masked(self._source)}"
        with self._changed:
            self._changed.wait_for(
                lambda: self._is_open or self._is_over or self._stopping,
                self._open_timeout_ms / 1000 + 0.5,
            )
            if self._stopping:
                raise CameraError(f"{who}: interrupted while it was opened")
            if self._is_open:
                return
            if self._is_over:
                raise CameraError(f"{who}: {self._problem}")
        raise CameraError(
            f"{who}: did not answer within {self._open_timeout_ms / 1000:g} s; check its power, "
            f"cable and address"
        )

    def take(self, timeout_ms: int) -> Frame | None:
        """The frame that waits, or the next one; None at the end of a file and after ``stop``.

        Raises :class:`CameraLostError` and :class:`BadFrameError`.
        """
        asked_ns = time.monotonic_ns()
        deadline_s = time.monotonic() + timeout_ms / 1000
        with self._changed:
            while not self._stopping:
                frame, self._slot = self._slot, None
                self._changed.notify_all()
                fresh_s = time.monotonic() - timeout_ms / 1000
                if frame is not None and (self._is_file or self._filled_s >= fresh_s):
                    return _handed_over(frame, asked_ns if self._is_file else frame.exposed_ns)
                if self._is_over and self._problem:
                    raise CameraLostError(self._problem)
                if self._is_over:
                    return None
                if not self._changed.wait_for(self._has_news, deadline_s - time.monotonic()):
                    raise CameraLostError(f"no fresh frame within {timeout_ms} ms")
        return None

    def stop(self) -> None:
        """Have the thread end soon, unless the driver hangs; any thread may call it."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()

    def _has_news(self) -> bool:
        return self._slot is not None or self._is_over or self._stopping

    def _read_on(self, capture: cv2.VideoCapture) -> str:
        """Read until the source ends or ``stop``; why it ended, "" if it should have."""
        count, fresh = 0, Freshness()
        bounds = ExposureBounds(
            self._opened_ns, self._config.latency_ms, capture.get(cv2.CAP_PROP_FPS)
        )
        while not self._stopping:
            ok, image = capture.read()
            grabbed_us, filled_s = now_us(), time.monotonic()
            if not ok or image is None:
                return self._why_over(capture, count)
            if not self._is_file and not fresh.accepts(image, capture.get(cv2.CAP_PROP_POS_MSEC)):
                continue
            part_id = f"frame-{count:06d}" if self._is_file else ""
            exposed_ns = bounds.next(time.monotonic_ns())
            count += 1
            frame: Frame | BadFrameError
            try:
                frame = Frame(_decoded(image), grabbed_us, part_id, exposed_ns)
            except ValueError as error:
                frame = BadFrameError(part_id, str(error), exposed_ns)
            with self._changed:
                if self._is_file:
                    self._changed.wait_for(lambda: self._slot is None or self._stopping)
                self._slot, self._filled_s = frame, filled_s
                self._changed.notify_all()
        return ""

    def _why_over(self, capture: cv2.VideoCapture, count: int) -> str:
        if not self._is_file:
            return "the camera gives no more frames; is it switched off or unplugged?"
        if count == 0:
            return "the file holds no frame that OpenCV can decode"
        # What follows a frame that cannot be decoded is drawn on top of it, so it shows no part.
        if any(capture.read()[0] for _ in range(_MOST_DAMAGED)):
            return f"frame-{count:06d} of the video is damaged, and so is what follows it"
        # The frame count in a header may be off by a few frames, but not by a tenth.
        promised = capture.get(cv2.CAP_PROP_FRAME_COUNT)
        if count < 0.9 * promised:
            return f"the video breaks off after {count} of {promised:.0f} frames"
        return ""


class Freshness:
    """Tells frames that a driver repeats from those of a line that stands still.

    A frame is old when its time stamp and every pixel are those of the frame before. With a driver
    that gives no time stamps (0 or negative) every frame counts as new.
    """

    def __init__(self) -> None:
        self._stamp_ms = -1.0
        self._image: npt.NDArray[Any] | None = None

    def accepts(self, image: npt.NDArray[Any], stamp_ms: float) -> bool:
        """True when ``image``, exposed at ``stamp_ms`` by the driver's clock, is a new frame."""
        is_old = (
            stamp_ms > 0
            and stamp_ms == self._stamp_ms
            and self._image is not None
            and np.array_equal(image, self._image)
        )
        self._stamp_ms, self._image = stamp_ms, image
        return not is_old


class ExposureBounds:
    """For each frame of a live source, a time no later than the start of its exposure.

    A frame entered the driver's buffer after the frame before it was taken out, and its exposure
    began at most ``latency_ms`` before that. A frame that arrives much sooner than usual after the
    last one was in the buffer already, because the reader had been held up; it may be as old as
    that one.
    """

    def __init__(self, opened_ns: int, latency_ms: int, fps: float) -> None:
        self._latency_ns = latency_ms * 1_000_000
        self._usual_ns = 1e9 / fps if 5 <= fps <= 240 else 0.0
        self._taken_ns = opened_ns
        self._empty_ns = opened_ns
        self._last_ns = 0

    def next(self, arrived_ns: int) -> int:
        """The bound of the frame that arrived at ``arrived_ns``, ns; later than the one before."""
        pause_ns = arrived_ns - self._taken_ns
        if 2 * pause_ns >= self._usual_ns:
            self._empty_ns = self._taken_ns
        if self._usual_ns:
            # The usual period shrinks slowly, so that working off a backlog does not pass for a
            # faster camera.
            change_ns = min(pause_ns, 2 * self._usual_ns) - self._usual_ns
            self._usual_ns += change_ns / (4 if change_ns > 0 else 64)
        else:
            self._usual_ns = float(pause_ns)
        self._taken_ns = arrived_ns
        self._last_ns = max(self._last_ns + 1, self._empty_ns - self._latency_ns)
        return self._last_ns


def _handed_over(frame: Frame | BadFrameError, exposed_ns: int) -> Frame:
    """``frame`` as its camera gives it, or raises it; a file's frame is grabbed when asked for."""
    if isinstance(frame, BadFrameError):
        raise BadFrameError(frame.part_id, str(frame), exposed_ns)
    if exposed_ns == frame.exposed_ns:
        return frame
    return dataclasses.replace(frame, grabbed_us=now_us(), exposed_ns=exposed_ns)


def _decoded(image: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A frame's picture. Raises ValueError when it is a JPEG that is not whole.

    ``image``: a picture, or the bytes uint8 ``[1, n]`` of a JPEG that OpenCV handed over as it is.
    """
    if image.ndim != 2 or image.shape[0] != 1:
        return image
    return decode_jpeg(image.tobytes())


def _connect(capture: cv2.VideoCapture, config: OpenCvCamera, open_timeout_ms: int) -> None:
    """Open ``capture`` as ``config`` says. Raises CameraError with a cause and a cure."""
    kind, source = config.source_kind, config.source
    backend = _backend(config, kind)
    if kind == "device":
        source = _device(source)
    elif kind == "file":
        if not Path(str(source)).exists():
            raise CameraError("no such file; name one that is there ('source' in a station file)")
        if not os.access(str(source), os.R_OK):
            raise CameraError("permission denied; give this user the right to read it")
    params: list[int] = []
    if backend in (cv2.CAP_FFMPEG, cv2.CAP_GSTREAMER) and kind in ("stream", "pipeline"):
        params = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, open_timeout_ms]
        params += [cv2.CAP_PROP_READ_TIMEOUT_MSEC, config.timeout_ms]
    if not capture.open(source, backend, params):
        raise CameraError(_CURES[kind])
    # Photos come as they are stored, whatever EXIF says, and so do the frames of a video.
    capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 0)
    if kind == "device":
        # With one frame in the driver's queue, what is read is what is in front of the lens.
        capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        for prop, value in (
            (cv2.CAP_PROP_FRAME_WIDTH, config.width),
            (cv2.CAP_PROP_FRAME_HEIGHT, config.height),
            (cv2.CAP_PROP_FPS, config.fps),
        ):
            if value is not None:
                capture.set(prop, value)
    width = round(capture.get(cv2.CAP_PROP_FRAME_WIDTH))
    height = round(capture.get(cv2.CAP_PROP_FRAME_HEIGHT))
    wanted = config.width or width, config.height or height
    if width > 0 and height > 0 and wanted != (width, height):
        raise CameraError(
            f"gives {width}x{height} px, not the {wanted[0]}x{wanted[1]} asked for; correct "
            f"'width' and 'height', or leave them out"
        )
    _ask_for_jpegs(capture)


def _ask_for_jpegs(capture: cv2.VideoCapture) -> None:
    """Have a source of JPEGs hand them over as they are. Raises CameraError when it cannot.

    OpenCV's own decoders do not tell that a frame is not whole: they leave the frame before in what
    is missing. They also bring each frame to the size of the first.
    """
    code = int(capture.get(cv2.CAP_PROP_FOURCC)) & 0xFFFFFFFF
    if code.to_bytes(4, "little").lower() not in _JPEG_CODES:
        return
    how = _AS_IT_IS.get(capture.getBackendName())
    if how is not None and not capture.set(*how):
        raise CameraError("OpenCV decodes its JPEG frames unchecked; install a newer OpenCV")


_CURES: Final[dict[SourceKind, str]] = {
    "device": "cannot be opened; does another program use it?",
    "file": "not a video that OpenCV can read; convert it, for example to MP4 (H.264) or AVI",
    "stream": "cannot be opened; check the address, user and password, and that a player shows it",
    "pipeline": "GStreamer cannot start this pipeline; try it with gst-launch-1.0, and let it end "
    "in 'appsink'",
}


def _backend(config: OpenCvCamera, kind: SourceKind) -> int:
    name: str = config.backend
    if name == "any":
        if kind == "pipeline":
            name = "gstreamer"
        elif kind == "device":
            name = "v4l2" if sys.platform == "linux" else "any"
        else:
            name = "ffmpeg" if cv2.videoio_registry.hasBackend(cv2.CAP_FFMPEG) else "any"
    if name == "any":
        return int(cv2.CAP_ANY)
    if not cv2.videoio_registry.hasBackend(_BACKENDS[name]):
        title = {"ffmpeg": "FFMPEG", "v4l2": "V4L2", "gstreamer": "GStreamer"}[name]
        # Only a station file can have named one.
        other = "" if config.backend == "any" else ", or choose another 'backend'"
        raise CameraError(
            f"this OpenCV ({cv2.__version__}) was built without {title}; install one that has "
            f"it{other}"
        )
    return int(_BACKENDS[name])


def _device(source: int | str) -> int | str:
    """The device to open. On Linux, raises CameraError when it is missing or may not be used."""
    if isinstance(source, str) and source.isdecimal():
        source = int(source)
    if sys.platform != "linux":
        return source
    path = Path(f"/dev/video{source}" if isinstance(source, int) else source)
    if not path.exists():
        there = ", ".join(sorted(str(other) for other in Path("/dev").glob("video*")))
        raise CameraError(
            f"no {path}; this machine has {there or 'no camera'}; name one that is there ('source' "
            f"in a station file)"
        )
    if not os.access(path, os.R_OK | os.W_OK):
        raise CameraError(f"{path}: permission denied; add this user to the group 'video'")
    return source
