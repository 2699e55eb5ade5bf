"""How many of the parts that wait go through the model at once; no I/O, so that it can be proven.

A batch is worth it where it takes less time than its parts one by one, which the CPU measured does
not give (DECISIONS.md). Nothing ever waits for more parts to come.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median
from typing import Final

LARGEST: Final = 8

_PAYS: Final = 0.95
_TIMES: Final = 7
_FORGETS: Final = 0.999
"""Per part or batch: what was slow once counts for a thousand of them or so."""
_LEARNS: Final = 0.1
_FORGIVES: Final = 1000
"""So often is a batch refused for the slowest of its size before that is tried again; then twice as
often, and so on."""


class Batches:
    """What batches of 1, 2, 4, ... parts cost on one engine, ns.

    Only sizes that paid when they were learnt are ever used: singles that a busy machine slows down
    later say nothing of batches that do not run.
    """

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Know nothing: parts go one by one."""
        self._usual: dict[int, float] = {}
        self._worst: dict[int, float] = {}
        self._learnt: dict[int, tuple[float, float]] = {}
        self._refused: dict[int, int] = {}
        self._forgives: dict[int, int] = {}

    @property
    def largest(self) -> int:
        """The largest batch that may be worth it now; 1: parts go one by one."""
        return max((size for size in self._usual if self._pays(size)), default=1)

    def learn(self, judge: Callable[[int], None], clock_ns: Callable[[], int]) -> None:
        """Measure batches, ever larger ones as long as they pay; ``judge`` does one of a size.

        Each in turns with single parts. It pays by the fastest and by the median, so that a
        machine that is busy for a moment decides nothing. Nothing is known when ``judge`` raises.
        """
        self.forget()
        times: dict[int, list[int]] = {}
        try:
            judge(1)
            size = 2
            while size <= LARGEST:
                judge(size)
                found: dict[int, list[int]] = {1: [], size: []}
                for _ in range(_TIMES):
                    for each, taken in found.items():
                        began_ns = clock_ns()
                        judge(each)
                        taken.append(clock_ns() - began_ns)
                if not all(of(found[size]) < _PAYS * size * of(found[1]) for of in (min, median)):
                    break
                times |= found
                size *= 2
        except BaseException:
            self.forget()
            raise
        self._usual = {size: float(median(taken)) for size, taken in times.items()}
        self._worst = {size: float(max(taken)) for size, taken in times.items()}
        self._learnt = {size: (self._usual[size], self._worst[size]) for size in times}

    def note(self, size: int, taken_ns: float) -> None:
        """A batch of ``size`` parts took so long, all of which were inferred."""
        if size not in self._learnt:
            return
        self._usual[size] += _LEARNS * (taken_ns - self._usual[size])
        self._worst[size] = max(taken_ns, _FORGETS * self._worst[size])
        for other, (usual, _) in self._learnt.items():
            if other != size:
                # What no longer runs, for it was slow, would otherwise never run again.
                self._usual[other] = usual + _FORGETS * (self._usual[other] - usual)

    def size(self, due_ns: Sequence[int], now_ns: int) -> int:
        """How many of the parts that wait, in their order, to judge at once; at least 1.

        ``due_ns``: the deadline of each. A batch must pay, and end before every deadline in it
        even when it takes as long as the slowest of its size did.
        """
        for size in sorted(self._learnt, reverse=True):
            if 1 < size <= len(due_ns) and self._pays(size):
                if now_ns + self._worst[size] < min(due_ns[:size]):
                    return size
                self._refuse(size)
        return 1

    def _refuse(self, size: int) -> None:
        """One that was slow once must not be refused for ever; one that always is, ever longer."""
        self._refused[size] = self._refused.get(size, 0) + 1
        if self._refused[size] >= self._forgives.get(size, _FORGIVES):
            self._forgives[size] = 2 * self._forgives.get(size, _FORGIVES)
            self._refused[size] = 0
            self._worst[size] = self._learnt[size][1]

    def _pays(self, size: int) -> bool:
        return self._usual[size] < _PAYS * size * self._usual[1]
