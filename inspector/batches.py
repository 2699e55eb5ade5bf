"""How many of the parts that wait go through the model at once; pure, so that it can be proven.

A batch is worth it where it takes less time than its parts one by one, which the CPU measured does
not give (DECISIONS.md). Nothing ever waits for more parts to come.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

LARGEST: Final = 8

_PAYS: Final = 0.95
_TIMES: Final = 3
_FORGETS: Final = 0.999
"""Per decision: what was slow once counts for a thousand of them or so."""
_LEARNS: Final = 0.1


class Batches:
    """What batches of 1, 2, 4, ... parts cost on one engine, ns."""

    def __init__(self) -> None:
        self._usual: dict[int, float] = {}
        self._learnt: dict[int, float] = {}
        self._worst: dict[int, float] = {}

    @property
    def largest(self) -> int:
        """The largest batch that may be worth it; 1: parts go one by one."""
        return max((size for size in self._usual if self._pays(size)), default=1)

    def learn(self, judge: Callable[[int], None], clock_ns: Callable[[], int]) -> None:
        """Measure batches, ever larger ones as long as they pay; ``judge`` does one of a size."""
        size = 1
        while size <= LARGEST:
            judge(size)
            for _ in range(_TIMES):
                began_ns = clock_ns()
                judge(size)
                self.note(size, clock_ns() - began_ns)
            self._learnt[size] = self._usual[size]
            if size > 1 and not self._pays(size):
                return
            size *= 2

    def note(self, size: int, taken_ns: float) -> None:
        """A batch of ``size`` parts took so long, of which all were inferred."""
        usual = self._usual.setdefault(size, taken_ns)
        self._usual[size] = usual + _LEARNS * (taken_ns - usual)
        self._worst[size] = max(taken_ns, _FORGETS * self._worst.get(size, 0.0))
        for other, learnt in self._learnt.items():
            if other != size:
                # What no longer runs, for it was slow, would otherwise never run again.
                self._usual[other] = learnt + _FORGETS * (self._usual[other] - learnt)

    def size(self, due_ns: Sequence[int], now_ns: int) -> int:
        """How many of the parts that wait, in their order, to judge at once; at least 1.

        ``due_ns``: the deadline of each. A batch must pay, and end before every deadline in it
        even when it takes as long as the slowest of its size did.
        """
        for size in sorted(self._usual, reverse=True):
            if 1 < size <= len(due_ns) and self._pays(size):
                if now_ns + self._worst[size] < min(due_ns[:size]):
                    return size
                self._worst[size] = max(self._usual[size], _FORGETS * self._worst[size])
        return 1

    def _pays(self, size: int) -> bool:
        return self._usual[size] < _PAYS * size * self._usual[1]
