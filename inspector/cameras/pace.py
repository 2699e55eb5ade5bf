"""The rate of cameras that make their own frames, and waits that can be cut short."""

from __future__ import annotations

import threading
import time

from inspector.cameras.base import CameraLostError
from inspector.errors import CameraError


class Pace:
    """The schedule of a source that makes its own frames: one part every 1 / ``rate_hz`` s.

    With ``rate_hz`` 0 a part is always due. A consumer that is late gets the next part at once. If
    it is late by less than a period the schedule stays; if by more, the schedule is moved, so that
    the parts it missed do not come in a flood.
    """

    def __init__(self, camera: str, rate_hz: float, timeout_ms: int) -> None:
        self._camera = camera
        self._period_s = 1.0 / rate_hz if rate_hz > 0 else 0.0
        self._timeout_ms = timeout_ms
        self._due_s = 0.0
        self._stop = threading.Event()

    def start(self) -> None:
        """Have the first part due now. Raises CameraError when every wait would time out."""
        if self._period_s * 1000 >= self._timeout_ms:
            raise CameraError(
                f"camera {self._camera}: at this rate a part comes every {self._period_s:g} s, "
                f"but timeout_ms is {self._timeout_ms}; set timeout_ms above "
                f"{self._period_s * 1000:.0f}, or a higher rate"
            )
        self._due_s = time.monotonic()

    def wait(self, timeout_ms: int) -> bool:
        """Wait until the next part is due: True, or False when interrupted.

        Raises :class:`CameraLostError` when it is not due within ``timeout_ms``.
        """
        wait_s = self._due_s - time.monotonic()
        if self._stop.wait(max(0.0, min(wait_s, timeout_ms / 1000))):
            return False
        if wait_s > timeout_ms / 1000:
            raise CameraLostError(f"no part within {timeout_ms} ms")
        self._due_s = max(self._due_s, time.monotonic() - self._period_s) + self._period_s
        return True

    @property
    def interrupted(self) -> bool:
        """True from ``interrupt`` to ``reset``."""
        return self._stop.is_set()

    def interrupt(self) -> None:
        """Let ``wait`` return False at once, until ``reset``; any thread may call."""
        self._stop.set()

    def reset(self) -> None:
        """End an interrupt."""
        self._stop.clear()


def now_us() -> int:
    """The time now, µs since the Unix epoch."""
    return time.time_ns() // 1000
