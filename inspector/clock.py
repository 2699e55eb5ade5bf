"""The two times that a station goes by, and whether somebody set one of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Clock:
    """Wall time in µs since the Unix epoch for people, monotonic ns for durations."""

    wall_us: Callable[[], int]
    monotonic_ns: Callable[[], int]


SYSTEM_CLOCK: Final = Clock(lambda: time.time_ns() // 1000, time.monotonic_ns)


class ClockWatch:
    """Tells a wall clock that was set from one that runs; used by one thread.

    A clock that is being corrected slowly (by up to a thousandth) was not set.
    """

    def __init__(self, tolerance_s: float = 1.0, clock: Clock = SYSTEM_CLOCK) -> None:
        self._tolerance_us = tolerance_s * 1e6
        self._clock = clock
        self._last_us = clock.wall_us()
        self._last_ns = clock.monotonic_ns()

    def jumped_s(self, wall_us: int | None = None) -> float:
        """By how many seconds it was set forward (backward: below 0) since the last call; or 0.

        ``wall_us``: the wall time to look at, µs since the Unix epoch; None: now.
        """
        wall_us = self._clock.wall_us() if wall_us is None else wall_us
        now_ns = self._clock.monotonic_ns()
        ran_us = (now_ns - self._last_ns) / 1e3
        jumped_us = wall_us - self._last_us - ran_us
        self._last_us, self._last_ns = wall_us, now_ns
        return jumped_us / 1e6 if abs(jumped_us) > self._tolerance_us + ran_us / 1e3 else 0.0
