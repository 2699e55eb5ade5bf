"""The threads beside the judge loop: cameras in, pictures out, and the inbox between."""

from __future__ import annotations

import collections
import contextlib
import itertools
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, Protocol

import numpy.typing as npt

from inspector.cameras.base import BadFrameError, Camera, CameraLostError
from inspector.cameras.opencv import kind_of
from inspector.config import CameraConfig, FaultyCamera, OpenCvCamera
from inspector.errors import CameraError
from inspector.frame import Box, encode_jpeg, encode_png, map_to_grey
from inspector.station import CameraState
from inspector.verdict import FloatMap, Judgement, Reason
from inspector.wire import HeatmapMessage, Publisher, VerdictMessage

_POLL_S: Final = 0.1
_BACKOFF_S: Final = (0.25, 2.0)
_PICTURES_WAITING: Final = 20
_MOST_WANTED: Final = 1000
_NICE: Final = 10
"""Of the thread of pictures: a part that follows at once would wait for their encoding."""


@dataclass(frozen=True)
class Arrival:
    """What a camera gave: a picture, or the reason why there is none.

    ``exposed_ns`` (monotonic) is no later than the start of the exposure, None for a picture that
    was drawn for whichever part waits. ``since_ns`` (monotonic) is when it was handed over, None
    for a source that waits for the judge, whose part begins when it is taken.
    """

    camera: str
    part_id: str = ""
    grabbed_us: int | None = None
    exposed_ns: int | None = None
    since_ns: int | None = None
    image: npt.NDArray[Any] | None = None
    reason: Reason = Reason.NONE
    detail: str = ""
    whole: Callable[[], bool] = lambda: True
    """As in ``Frame``."""


@dataclass(frozen=True)
class Change:
    """A camera changed its state."""

    camera: str
    state: CameraState
    detail: str = ""


@dataclass(frozen=True)
class Call:
    """Something the judge loop does between two parts, soon: commands, troubles, new bundles."""

    do: Callable[[], None]


class Inbox:
    """What the cameras hand to the judge, in order of arrival; calls come before them.

    At most ``size`` pictures of a camera wait. One more part is let in without its picture, in its
    turn, as a FAULT ``queue_full``: nothing is dropped in silence.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._calls: collections.deque[Call] = collections.deque()
        self._items: collections.deque[Arrival | Change | Call] = collections.deque()
        self._pictures: collections.Counter[str] = collections.Counter()
        self._parts: collections.Counter[str] = collections.Counter()
        self._changed = threading.Condition()

    def put(self, item: Arrival | Change) -> None:
        """Hand over ``item``, in its turn; never blocks."""
        with self._changed:
            if isinstance(item, Arrival):
                if item.image is not None and self._pictures[item.camera] >= self._size:
                    detail = f"{self._size} parts already wait for judgement"
                    item = replace(item, image=None, reason=Reason.QUEUE_FULL, detail=detail)
                self._pictures[item.camera] += item.image is not None
                self._parts[item.camera] += 1
            self._items.append(item)
            self._changed.notify_all()

    def put_newest(self, item: Arrival) -> None:
        """Hand over ``item`` in the place of the picture of its camera that waits, if one does."""
        with self._changed:
            for i, waiting in enumerate(self._items):
                if isinstance(waiting, Arrival) and waiting.camera == item.camera:
                    self._items[i] = item
                    pictures = (item.image is not None) - (waiting.image is not None)
                    self._pictures[item.camera] += pictures
                    return
        self.put(item)

    def call(self, do: Callable[[], None]) -> None:
        """Have ``do`` done by the judge loop, before the next part; any thread, never blocks."""
        with self._changed:
            self._calls.append(Call(do))
            self._changed.notify_all()

    def take(self, timeout_s: float) -> Arrival | Change | Call | None:
        """The oldest item, None when there was none in time."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._calls or self._items, max(0.0, timeout_s)):
                return None
            if self._calls:
                return self._calls.popleft()
            item = self._items.popleft()
            if isinstance(item, Arrival):
                self._pictures[item.camera] -= item.image is not None
                self._parts[item.camera] -= 1
            self._changed.notify_all()
            return item

    def take_more(self, choose: Callable[[Sequence[Arrival]], int], most: int) -> list[Arrival]:
        """Of the pictures that wait next, at most ``most``, as many as ``choose`` says."""
        with self._changed:
            waiting: list[Arrival] = []
            for item in itertools.islice(self._items, most):
                if not isinstance(item, Arrival) or item.image is None:
                    break
                waiting.append(item)
            taken = waiting[: choose(waiting)] if waiting else []
            for item in taken:
                self._items.popleft()
                self._pictures[item.camera] -= 1
                self._parts[item.camera] -= 1
            if taken:
                self._changed.notify_all()
            return taken

    def call_in_turn(self, do: Callable[[], None]) -> None:
        """Have ``do`` done by the judge loop once it has judged what waits now."""
        with self._changed:
            self._items.append(Call(do))
            self._changed.notify_all()

    def waiting(self, camera: str) -> int:
        """Pictures of ``camera`` that wait."""
        return self._pictures[camera]

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
    With software triggers only wanted pictures are handed over: of a live camera the first that
    was exposed after its trigger, of a source that waits the next one.
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
        self.on_demand = config.trigger == "software" and is_replay(config)
        """A picture is drawn for each ``want``; else the camera runs, and one is picked out."""
        self._wanted: collections.deque[int] = collections.deque(maxlen=_MOST_WANTED)
        self._stopping = threading.Event()

    def want(self, triggered_ns: int) -> None:
        """A trigger wants a picture exposed no earlier than ``triggered_ns`` (monotonic).

        Any thread may call. What is handed over in vain is of no part, and judged by nobody.
        """
        self._wanted.append(triggered_ns)
        self._inbox.wake()

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
                self._hand_over(
                    Arrival(
                        name,
                        error.part_id,
                        time.time_ns() // 1000,
                        error.exposed_ns,
                        None if self._waits else time.monotonic_ns(),
                        reason=Reason.FRAME_UNREADABLE,
                        detail=str(error),
                    )
                )
                continue
            except CameraLostError as error:
                if self._stopping.is_set():
                    break
                if not lost:
                    self._wanted.clear()
                    self._inbox.put(Change(name, "lost", str(error)))
                    if is_replay(self.config):
                        why_ended = str(error)
                        break
                lost = True
                self._reopen()
                continue
            if frame is None:
                break
            if lost:
                self._inbox.put(Change(name, "running"))
                lost = False
            self._hand_over(
                Arrival(
                    name,
                    frame.part_id,
                    frame.grabbed_us,
                    frame.exposed_ns,
                    None if self._waits else time.monotonic_ns(),
                    frame.image,
                    whole=frame.whole,
                )
            )
        self._camera.close()
        self._inbox.put(Change(name, "ended", why_ended))

    def _hand_over(self, arrival: Arrival) -> None:
        if self.on_demand:
            arrival = replace(arrival, exposed_ns=None)
        if self.config.trigger == "software":
            # Whoever waits is served by whatever was drawn since; a live picture must be later.
            if not self._wanted:
                return
            if arrival.exposed_ns is None:
                self._wanted.popleft()
            elif arrival.exposed_ns < self._wanted[0]:
                return
            while self._wanted and (arrival.exposed_ns or 0) >= self._wanted[0]:
                self._wanted.popleft()
        if self.config.trigger == "free" and not self._waits:
            self._inbox.put_newest(arrival)
        else:
            self._inbox.put(arrival)

    def _my_turn(self) -> bool:
        """False when it is time to end."""
        while not self._stopping.is_set():
            if not (self._waits or self.on_demand):
                return True
            ready = self._inbox.wait_for_turn(
                self.config.name,
                lambda: self._room() and (not self.on_demand or bool(self._wanted)),
                _POLL_S,
            )
            if ready:
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


class Shots(Protocol):
    """Where pictures are kept; :class:`inspector.archive.Archive` is one."""

    def wants(self, verdict: VerdictMessage) -> bool:
        """True when the picture of this part is to be kept."""
        ...

    def keep(
        self,
        verdict: VerdictMessage,
        frame: npt.NDArray[Any],
        anomaly_map: FloatMap | None,
        region: Box | None,
        *,
        checked: bool,
    ) -> bool:
        """Keep it; False when there is no room."""
        ...


@dataclass(frozen=True)
class Shot:
    """The pictures of one part: what is published (``header``), and the ``frame`` to be kept."""

    verdict: VerdictMessage
    judgement: Judgement | None
    header: HeatmapMessage | None
    frame: npt.NDArray[Any] | None
    region: Box | None = None
    checked: bool = True
    """It was looked at whether the picture is fit for judging."""


class Pictures(Worker):
    """Encodes, publishes and keeps pictures, so that none delays a verdict; owns the images socket.

    When the line is faster, the oldest waiting picture goes, which ``on_drop`` hears: pictures are
    for people, verdicts are not affected.
    """

    def __init__(
        self,
        publisher: Publisher,
        shots: Shots,
        inbox: Inbox,
        on_drop: Callable[[Literal["published", "kept"]], None],
    ) -> None:
        super().__init__("pictures")
        self._publisher = publisher
        self._shots = shots
        self._inbox = inbox
        self._on_drop = on_drop
        self._waiting: collections.deque[Shot] = collections.deque()
        self._changed = threading.Condition()
        self._closing = False

    def has_room(self) -> bool:
        """False when the next picture would push out one that waits."""
        return len(self._waiting) < _PICTURES_WAITING

    def show(self, shot: Shot) -> None:
        """Publish and keep a part's pictures soon; never blocks."""
        if shot.frame is not None and not self._shots.wants(shot.verdict):
            shot = replace(shot, frame=None)
        if shot.header is None and shot.frame is None:
            return
        with self._changed:
            if len(self._waiting) >= _PICTURES_WAITING:
                dropped = self._waiting.popleft()
                if dropped.header is not None:
                    self._on_drop("published")
                if dropped.frame is not None:
                    self._on_drop("kept")
            self._waiting.append(shot)
            self._changed.notify()

    def finish(self) -> None:
        """Publish and keep what waits, then end."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self.ident is not None:
            self.join()

    def work(self) -> None:
        """Publish and keep until ``finish``."""
        _yield_to_others()
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closing)
                if not self._waiting:
                    return
                shot = self._waiting.popleft()
            anomaly_map = None if shot.judgement is None else shot.judgement.anomaly_map
            judged = None if shot.judgement is None else shot.judgement.judged
            # Nobody looks, most of the time: then nothing is encoded.
            if (
                shot.header is not None
                and anomaly_map is not None
                and judged is not None
                and self._publisher.wants_heatmaps(shot.header.station)
            ):
                self._publisher.send_heatmap(
                    shot.header, encode_png(map_to_grey(anomaly_map)), encode_jpeg(judged)
                )
            if shot.frame is not None and not self._shots.keep(
                shot.verdict, shot.frame, anomaly_map, shot.region, checked=shot.checked
            ):
                self._on_drop("kept")
            self._inbox.wake()


def _yield_to_others() -> None:
    """Have this thread compute only where no other wants the core; where the system knows that."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            # Linux has a nice value for each thread.
            me = os.PRIO_PROCESS, threading.get_native_id()
            os.setpriority(*me, min(19, os.getpriority(*me) + _NICE))


def is_replay(config: CameraConfig) -> bool:
    """True for a source that starts from its beginning whenever it is opened."""
    if isinstance(config, OpenCvCamera):
        return kind_of(config) == "file"
    return not isinstance(config, FaultyCamera)


def waits_for_judge(config: CameraConfig) -> bool:
    """True for a source that can wait: it hands over a part when the judge is free for it.

    Such a source never overflows the queue, and the deadline counts from the hand-over.
    """
    if isinstance(config, OpenCvCamera):
        return kind_of(config) == "file"
    return config.rate_hz == 0


def is_live(config: CameraConfig) -> bool:
    """True for a source whose every frame has its own noise, so that none can come twice."""
    if isinstance(config, OpenCvCamera):
        return kind_of(config) != "file"
    return isinstance(config, FaultyCamera)
