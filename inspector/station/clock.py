"""The two times that a station goes by."""

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
