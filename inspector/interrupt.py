"""Ctrl-C as a wish that a loop asks for, instead of an exception wherever the program stands."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Final

_NAP_S: Final = 0.1
_Handler = Callable[[int, FrameType | None], Any] | int | signal.Handlers


class Interrupt:
    """While this context manager is active Ctrl-C sets :attr:`requested`; a second one raises.

    Python drops a KeyboardInterrupt that comes while it runs a destructor, and one that comes
    between two steps that belong together leaves the first of them behind. A loop that asks
    between its rounds has neither fault. The second Ctrl-C raises KeyboardInterrupt, for a
    round that does not end; with ``at_once`` the first one does, for rounds that take long. It
    works in the main thread; in another one Ctrl-C is never noticed.
    """

    def __init__(self, at_once: bool = False) -> None:
        self._at_once = at_once
        self.requested = False
        """True once Ctrl-C was pressed."""
        self._before: _Handler = signal.default_int_handler
        self._is_installed = False

    def wait(self, seconds: float) -> None:
        """Sleep until ``seconds`` are over or Ctrl-C is pressed."""
        # A handler that sets an Event on which its own thread waits can block for ever.
        until = time.monotonic() + seconds
        while not self.requested and (left := until - time.monotonic()) > 0:
            time.sleep(min(left, _NAP_S))

    def check(self) -> None:
        """Raise KeyboardInterrupt once Ctrl-C was pressed, if that was dropped at the time."""
        if self.requested:
            raise KeyboardInterrupt

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            # A handler that is not Python's own cannot be put back.
            before = signal.signal(signal.SIGINT, self._on_signal)
            self._before = before or signal.default_int_handler
            self._is_installed = True
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._is_installed:
            signal.signal(signal.SIGINT, self._before)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        raises = self._at_once or self.requested
        self.requested = True
        if raises:
            signal.default_int_handler(number, frame)
