"""What bridges share that ask a Modbus server: the thread that polls, and the way to be stopped."""

from __future__ import annotations

import contextlib
import queue
import signal
import time
from collections.abc import Callable, Iterator
from types import FrameType


class Inbox:
    """Functions that other threads have called in the thread that polls."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()

    def put(self, function: Callable[[], None]) -> None:
        """Have a function called; any thread may call this."""
        self._queue.put(function)

    def work(self, until_s: float) -> bool:
        """Call what has been put here; wait for it until ``until_s`` (monotonic, s).

        True when something was called.
        """
        worked = False
        while True:
            try:
                left_s = until_s - time.monotonic()
                if worked or left_s <= 0:
                    function = self._queue.get_nowait()
                else:
                    function = self._queue.get(timeout=left_s)
            except queue.Empty:
                return worked
            function()
            worked = True


@contextlib.contextmanager
def stopped_by_signals() -> Iterator[Callable[[], bool]]:
    """Gives what tells whether SIGTERM or Ctrl-C came; for the main thread."""
    came = False

    def note(_number: int, _frame: FrameType | None) -> None:
        nonlocal came
        came = True

    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield lambda: came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)
