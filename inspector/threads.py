"""Threads that tell a normal end from a crash."""

from __future__ import annotations

import collections
import contextlib
import os
import sys
import threading
from typing import Final, Generic, TypeVar

Item = TypeVar("Item")

_NICE: Final = 10
"""Added to the nice value of a thread that yields, or a part that follows at once would wait."""


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


class QueueWorker(Worker, Generic[Item]):
    """A worker that works off a queue, which other threads fill.

    ``_waiting`` is the queue; whoever changes it holds ``_changed``, and notifies it.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._waiting: collections.deque[Item] = collections.deque()
        self._changed = threading.Condition()
        self._closing = False

    def finish(self) -> None:
        """Have it work off what waits and end, and wait for that; at once if it never began."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self.ident is not None:
            self.join()

    def _take(self, most: int, idle_s: float | None = None) -> list[Item] | None:
        """The oldest items, at most ``most``; [] after ``idle_s`` without one, None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closing, idle_s)
            if not self._waiting and self._closing:
                return None
            return [self._waiting.popleft() for _ in range(min(len(self._waiting), most))]


def yield_to_others() -> None:
    """Have this thread compute only where no other wants the core; where the system knows that."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            # Linux has a nice value for each thread.
            me = os.PRIO_PROCESS, threading.get_native_id()
            os.setpriority(*me, min(19, os.getpriority(*me) + _NICE))
