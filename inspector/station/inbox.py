"""What the cameras hand to the judge loop, and what others ask of it."""

from __future__ import annotations

import collections
import itertools
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy.typing as npt

from inspector.station.ledger import CameraState
from inspector.verdict import Reason


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
