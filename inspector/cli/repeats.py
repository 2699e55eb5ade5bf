"""Remarks that a command would repeat: the first ones in full, then how many there were."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

_EVERY_S: Final = 10.0
"""So long after a remark of a kind another one is printed, with the number of those between."""


@dataclass
class _Kind:
    said: int = 0
    unsaid: int = 0
    last_s: float = -math.inf


class Repeats:
    """Prints with ``put``; of each kind of remark the first ``most``, then one every ten seconds.

    A context manager; at its end what was only counted is told.
    """

    def __init__(
        self,
        put: Callable[[str], object],
        most: int = 3,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._put = put
        self._most = most
        self._clock = clock
        self._kinds: dict[str, _Kind] = {}

    def tell(self, kind: str, line: str, most: int | None = None) -> None:
        """Print ``line``, or count it among those of its ``kind``; ``most`` of them in full."""
        most = self._most if most is None else most
        seen = self._kinds.setdefault(kind, _Kind())
        now_s = self._clock()
        if seen.said >= most and now_s < seen.last_s + _EVERY_S:
            seen.unsaid += 1
            return
        seen.said += 1
        more = ""
        if seen.unsaid:
            more = f" (and {seen.unsaid} like it before)"
        elif seen.said == most:
            more = " (further ones like it are only counted)"
        seen.unsaid, seen.last_s = 0, now_s
        self._put(f"{line}{more}")

    def close(self) -> None:
        """Tell how many remarks were counted since the last one of their kind was printed."""
        for kind, seen in self._kinds.items():
            if seen.unsaid:
                self._put(f"{seen.unsaid} more like it: {kind}")
                seen.unsaid = 0

    def __enter__(self) -> Repeats:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
