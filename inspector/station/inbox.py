"""What the cameras hand to the judge loop, and what others ask of it."""

from __future__ import annotations

import collections
import itertools
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace

from inspector.station.ledger import CameraState
from inspector.station.part import Picture
from inspector.verdict import Reason


@dataclass(frozen=True)
class Arrival:
    """What a camera gave: a picture of a part, or the reason why there is none.

    ``exposed_ns`` (monotonic) is no later than the start of the exposure, None for a picture that
    was drawn for whichever part waits. ``since_ns`` (monotonic) is when it was handed over, None
    for a source that waits for the judge, whose part begins when it is taken.
    """

    camera: str
    part_id: str = ""
    grabbed_us: int | None = None
    exposed_ns: int | None = None
    since_ns: int | None = None
    frame: Picture | None = None
    reason: Reason = Reason.NONE
    detail: str = ""


@dataclass(frozen=True)
class Change:
    """A camera changed its state."""

    camera: str
    state: CameraState
    detail: str = ""


@dataclass(frozen=True)
class Call:
    """Something that the judge loop does between two parts: commands, troubles, new bundles."""

    do: Callable[[], None]


class Inbox:
    """What the cameras hand to the judge loop, in order of arrival; calls come before them.

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
        self._changes = 0

    def put(self, item: Arrival | Change) -> None:
        """Hand over ``item``, in its turn; never blocks."""
        with self._changed:
            if isinstance(item, Arrival):
                if item.frame is not None and self._pictures[item.camera] >= self._size:
                    detail = f"{self._size} parts already wait for judgement"
                    item = replace(item, frame=None, reason=Reason.QUEUE_FULL, detail=detail)
                self._count(item, 1)
            self._items.append(item)
            self._notify()

    def put_newest(self, item: Arrival) -> None:
        """Hand over ``item`` in the place of the picture of its camera that waits, if one does."""
        with self._changed:
            for i, waiting in enumerate(self._items):
                if isinstance(waiting, Arrival) and waiting.camera == item.camera:
                    self._items[i] = item
                    self._count(waiting, -1)
                    self._count(item, 1)
                    return
        self.put(item)

    def call(self, do: Callable[[], None]) -> None:
        """Have ``do`` done by the judge loop, before the next part; any thread, never blocks."""
        with self._changed:
            self._calls.append(Call(do))
            self._notify()

    def call_in_turn(self, do: Callable[[], None]) -> None:
        """Have ``do`` done by the judge loop once it has judged what waits now."""
        with self._changed:
            self._items.append(Call(do))
            self._notify()

    def take(self, timeout_s: float) -> Arrival | Change | Call | None:
        """The oldest item, None when there was none in time."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._calls or self._items, max(0.0, timeout_s)):
                return None
            if self._calls:
                return self._calls.popleft()
            item = self._items.popleft()
            if isinstance(item, Arrival):
                self._count(item, -1)
            self._notify()
            return item

    def next_pictures(self, most: int) -> list[Arrival]:
        """The pictures that would be taken next, at most ``most``; they go on waiting."""
        with self._changed:
            return self._next_pictures(most)

    def take_pictures(self, most: int) -> list[Arrival]:
        """Take the pictures that are next, at most ``most``; never waits."""
        with self._changed:
            taken = self._next_pictures(most)
            for item in taken:
                self._items.popleft()
                self._count(item, -1)
            if taken:
                self._notify()
            return taken

    def next_arrivals(self) -> list[Arrival]:
        """The arrivals that come before anything else; they go on waiting.

        None while a call is due, which may be the trigger that one of them is for; and none after a
        change of a camera, which may leave earlier triggers without a picture.
        """
        found: list[Arrival] = []
        with self._changed:
            for item in () if self._calls else self._items:
                if not isinstance(item, Arrival):
                    break
                found.append(item)
        return found

    def waiting(self, camera: str) -> int:
        """Pictures of ``camera`` that wait."""
        return self._pictures[camera]

    def is_clear(self, camera: str) -> bool:
        """True when no part of ``camera`` waits."""
        return not self._parts[camera]

    @property
    def changes(self) -> int:
        """How often something changed here, or ``wake`` was called."""
        return self._changes

    def wait_for_change(self, seen: int, timeout_s: float) -> None:
        """Return once ``changes`` is another number than ``seen``, or after ``timeout_s``.

        Who reads ``changes`` before it looks at what it waits for misses nothing.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._changes != seen, timeout_s)

    def wake(self) -> None:
        """Count a change of something else that ``wait_for_change`` may be waiting for."""
        with self._changed:
            self._notify()

    def _notify(self) -> None:
        self._changes += 1
        self._changed.notify_all()

    def _next_pictures(self, most: int) -> list[Arrival]:
        found: list[Arrival] = []
        for item in itertools.islice(self._items, most):
            if not isinstance(item, Arrival) or item.frame is None:
                break
            found.append(item)
        return found

    def _count(self, item: Arrival, by: int) -> None:
        self._pictures[item.camera] += by * (item.frame is not None)
        self._parts[item.camera] += by
