"""Cameras that make their own frames: their rate, waits that can be cut short, and their place."""

from __future__ import annotations

import threading
import time

import numpy as np
import numpy.typing as npt

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


class Place:
    """The number of the next part of a source that counts its parts.

    ``memory``: int64 that outlives this process and belongs to the parent, which sets it to 0 for a
    source that begins anew. None: the source has its own, and begins anew whenever it is opened.
    """

    def __init__(self, memory: npt.NDArray[np.int64] | None = None) -> None:
        self._memory = np.zeros(1, np.int64) if memory is None else memory
        self._is_own = memory is None

    @property
    def next(self) -> int:
        """The number of the next part, from 0."""
        return int(self._memory[0])

    def take(self) -> int:
        """The number of the next part, which is then the one after it.

        A part is taken before it is made: should that crash the process, the next one goes on.
        """
        number = self.next
        self._memory[0] = number + 1
        return number

    def rewind(self) -> None:
        """Begin with part 0 again."""
        self._memory[0] = 0

    def open(self) -> None:
        """Begin with part 0, unless the memory outlives this source and says otherwise."""
        if self._is_own:
            self.rewind()


def now_us() -> int:
    """The time now, µs since the Unix epoch."""
    return time.time_ns() // 1000
