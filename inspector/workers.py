"""The threads beside the judge loop: cameras in, pictures out, and the inbox between."""

from __future__ import annotations

import collections
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy.typing as npt

from inspector.cameras.base import BadFrameError, Camera, CameraLostError
from inspector.cameras.opencv import kind_of
from inspector.config import CameraConfig, OpenCvCamera
from inspector.errors import CameraError
from inspector.frame import encode_jpeg, encode_png, map_to_grey
from inspector.station import CameraState, Part
from inspector.verdict import FloatMap, Frame8, Reason
from inspector.wire import HeatmapMessage, Publisher

_POLL_S: Final = 0.1
_BACKOFF_S: Final = (0.5, 10.0)
_PICTURES_WAITING: Final = 20


@dataclass(frozen=True)
class Arrival:
    """A part that is owed a verdict: with its picture, or with the reason why there is none."""

    part: Part
    image: npt.NDArray[Any] | None = None
    reason: Reason = Reason.NONE
    detail: str = ""


@dataclass(frozen=True)
class Change:
    """A camera changed its state."""

    camera: str
    state: CameraState
    detail: str = ""


class Inbox:
    """What the cameras hand to the judge, in order of arrival.

    At most ``size`` pictures of a camera wait. One more part is let in without its picture, in its
    turn, as a FAULT ``queue_full``: nothing is dropped in silence.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._items: collections.deque[Arrival | Change] = collections.deque()
        self._pictures: collections.Counter[str] = collections.Counter()
        self._parts: collections.Counter[str] = collections.Counter()
        self._changed = threading.Condition()

    def put(self, item: Arrival | Change) -> None:
        """Hand over ``item``, in its turn; never blocks."""
        with self._changed:
            if isinstance(item, Arrival):
                camera = item.part.camera
                if item.image is not None and self._pictures[camera] >= self._size:
                    detail = f"{self._size} parts already wait for judgement"
                    item = Arrival(item.part, None, Reason.QUEUE_FULL, detail)
                self._pictures[camera] += item.image is not None
                self._parts[camera] += 1
            self._items.append(item)
            self._changed.notify_all()

    def take(self, timeout_s: float) -> Arrival | Change | None:
        """The oldest item, None when there was none in time."""
        with self._changed:
            if not self._changed.wait_for(lambda: bool(self._items), timeout_s):
                return None
            item = self._items.popleft()
            if isinstance(item, Arrival):
                self._pictures[item.part.camera] -= item.image is not None
                self._parts[item.part.camera] -= 1
            self._changed.notify_all()
            return item

    def wait_for_turn(self, camera: str, also: Callable[[], bool], timeout_s: float) -> bool:
        """True when no part of ``camera`` waits and ``also()`` holds."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._parts[camera] and also(), timeout_s)

    def wake(self) -> None:
        """Make ``wait_for_turn`` look again."""
        with self._changed:
            self._changed.notify_all()


class Worker(threading.Thread):
    """A thread that tells a normal end from a crash."""

    def __init__(self, name: str) -> None:
        super().__init__(name=name, daemon=True)
        self._finished = False

    @property
    def crashed(self) -> bool:
        """True when it died of an error, which ``threading.excepthook`` has shown."""
        return self.ident is not None and not self.is_alive() and not self._finished

    def run(self) -> None:
        """Work, and remember that it ended as it should."""
        self.work()
        self._finished = True

    def work(self) -> None:
        """What the thread does."""
        raise NotImplementedError


class Grabber(Worker):
    """Grabs from one camera until it ends or ``stop``; a lost camera is opened again for ever.

    Not so a replay, which would begin anew and have its parts judged twice: lost, it has ended.
    """

    def __init__(
        self, config: CameraConfig, camera: Camera, inbox: Inbox, room: Callable[[], bool]
    ) -> None:
        super().__init__(f"grab-{config.name}")
        self.config = config
        self._camera = camera
        self._inbox = inbox
        self._room = room
        self._waits = waits_for_judge(config)
        self._stopping = threading.Event()

    def stop(self) -> None:
        """End soon, what was grabbed is handed over first; any thread may call."""
        self._stopping.set()
        self._camera.interrupt()
        self._inbox.wake()

    def ended(self, timeout_s: float) -> bool:
        """Wait for the end; False when the camera hangs and keeps the thread."""
        if self.ident is None:
            self._camera.close()
            return True
        self.join(timeout_s)
        return not self.is_alive()

    def work(self) -> None:
        """Grab and hand over until the source ends or ``stop``."""
        name, lost, why_ended = self.config.name, False, ""
        self._inbox.put(Change(name, "running"))
        while self._my_turn():
            try:
                frame = self._camera.grab(self.config.timeout_ms)
            except BadFrameError as error:
                part = self._part(error.part_id, time.time_ns() // 1000)
                self._inbox.put(Arrival(part, None, Reason.FRAME_UNREADABLE, str(error)))
                continue
            except CameraLostError as error:
                if self._stopping.is_set():
                    break
                if not lost:
                    self._inbox.put(Arrival(Part(name), None, Reason.CAMERA_LOST, str(error)))
                    if is_replay(self.config):
                        why_ended = str(error)
                        break
                    self._inbox.put(Change(name, "lost", str(error)))
                lost = True
                self._reopen()
                continue
            if frame is None:
                break
            if lost:
                self._inbox.put(Change(name, "running"))
                lost = False
            self._inbox.put(Arrival(self._part(frame.part_id, frame.grabbed_us), frame.image))
        self._camera.close()
        self._inbox.put(Change(name, "ended", why_ended))

    def _part(self, part_id: str, grabbed_us: int) -> Part:
        since_ns = None if self._waits else time.monotonic_ns()
        return Part(self.config.name, part_id, grabbed_us, since_ns)

    def _my_turn(self) -> bool:
        while not self._stopping.is_set():
            if not self._waits or self._inbox.wait_for_turn(self.config.name, self._room, _POLL_S):
                return True
        return False

    def _reopen(self) -> None:
        pause_s, longest_s = _BACKOFF_S
        self._camera.close()
        while not self._stopping.wait(pause_s):
            try:
                self._camera.open()
            except CameraError as error:
                self._camera.close()
                self._inbox.put(Change(self.config.name, "lost", str(error)))
                pause_s = min(2 * pause_s, longest_s)
                continue
            return


class Pictures(Worker):
    """Encodes and publishes pictures, so that none delays a verdict; owns the images socket.

    When the line is faster, the oldest waiting picture goes: pictures are for people, verdicts
    are not affected.
    """

    def __init__(self, publisher: Publisher, inbox: Inbox) -> None:
        super().__init__("pictures")
        self._publisher = publisher
        self._inbox = inbox
        self._waiting: collections.deque[tuple[HeatmapMessage, FloatMap, Frame8]] = (
            collections.deque(maxlen=_PICTURES_WAITING)
        )
        self._changed = threading.Condition()
        self._closing = False

    def has_room(self) -> bool:
        """False when the next picture would push out one that waits."""
        return len(self._waiting) < _PICTURES_WAITING

    def show(self, header: HeatmapMessage, anomaly_map: FloatMap, judged: Frame8) -> None:
        """Publish a map float32 ``[h, w]`` and its picture uint8 BGR soon; never blocks."""
        with self._changed:
            self._waiting.append((header, anomaly_map, judged))
            self._changed.notify()

    def finish(self) -> None:
        """Publish what waits, then end."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self.ident is not None:
            self.join()

    def work(self) -> None:
        """Publish until ``finish``."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closing)
                if not self._waiting:
                    return
                header, anomaly_map, judged = self._waiting.popleft()
            self._publisher.send_heatmap(
                header, encode_png(map_to_grey(anomaly_map)), encode_jpeg(judged)
            )
            self._inbox.wake()


def is_replay(config: CameraConfig) -> bool:
    """True for a source that starts from its beginning whenever it is opened."""
    return not isinstance(config, OpenCvCamera) or kind_of(config) == "file"


def waits_for_judge(config: CameraConfig) -> bool:
    """True for a source that can wait: it hands over a part when the judge is free for it.

    Such a source never overflows the queue, and the deadline counts from the hand-over.
    """
    if isinstance(config, OpenCvCamera):
        return kind_of(config) == "file"
    return config.rate_hz == 0
