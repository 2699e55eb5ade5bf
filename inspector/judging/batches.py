"""Parts that wait, judged in one batch where that is quicker: how many, and how long it takes.

A batch is worth it where it takes less time than its parts one by one, which no CPU measured so far
gives (docs/decisions). A station therefore judges parts one by one unless its file says
``batching: auto``; then the batches of each engine are measured at the start and at a changeover.
Nothing ever waits for more parts to come.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from statistics import median
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from inspector.detection.detector import Detector
from inspector.errors import Fault
from inspector.judging.judge import Judge, judge_together
from inspector.logs import say
from inspector.verdict import Frame8, Judgement, Reason

LARGEST: Final = 8

_PAYS: Final = 0.95
_TIMES: Final = 7
_FORGETS: Final = 0.999
"""Share of the slowest time that is left after each batch: it is forgotten within thousands."""
_LEARNS: Final = 0.1
_FORGIVES: Final = 1000
"""After this many refusals because of one slow batch, the size is allowed again; then the number
doubles."""


class Batching:
    """Which of the parts that wait are judged in one batch, and judging them.

    Before :meth:`learn` every batch is of one part.
    """

    def __init__(self) -> None:
        self._costs: dict[object, BatchCosts] = {}

    def learn(self, judges: Iterable[Judge]) -> None:
        """Measure batches on every engine that two cameras or more share; takes some seconds.

        What is measured is a part's whole way: geometry, inference, checks. Batches are not used
        where one does not score as its parts alone do.
        """
        first: dict[object, Judge] = {}
        for judge in judges:
            engine = judge.detector.engine
            if engine in self._costs:
                continue
            if engine in first:
                costs = self._costs[engine] = BatchCosts()
                _learn(first[engine], costs)
            else:
                first[engine] = judge

    def largest(self, judge: Judge) -> int:
        """The largest batch that may be worth it with a part of ``judge``; 1: judge it alone."""
        costs = self._costs.get(judge.detector.engine)
        return 1 if costs is None or judge.on_probation else costs.largest

    def size(self, judges: Sequence[Judge], deadlines_ns: Sequence[int], now_ns: int) -> int:
        """How many of the parts that wait, in their order, to judge together; at least 1.

        ``judges`` and ``deadlines_ns`` (monotonic) are theirs. A batch has one engine, and ends
        before every deadline in it.
        """
        first = judges[0]
        costs = self._costs.get(first.detector.engine)
        if costs is None or first.on_probation:
            return 1
        alike = itertools.takewhile(
            lambda judge: judge.detector.engine is first.detector.engine and not judge.on_probation,
            judges,
        )
        return costs.size(deadlines_ns[: sum(1 for _ in alike)], now_ns)

    def judge(self, parts: Sequence[tuple[Judge, npt.NDArray[Any]]]) -> list[Judgement]:
        """Judge the frames of ``parts``, as many as ``size`` said, in their order."""
        started_ns = time.monotonic_ns()
        (judge, frame), *others = parts
        judgements = judge_together(parts) if others else [judge.judge(frame)]
        costs = self._costs.get(judge.detector.engine)
        if costs is not None and all(map(_was_inferred, judgements)):
            costs.note(len(parts), time.monotonic_ns() - started_ns)
        return judgements


class BatchCosts:
    """What batches of 1, 2, 4, ... parts cost on one engine, ns.

    Only sizes that paid when they were measured are used. Single parts that load slows down later
    prove nothing about batches that have not run since.
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
                # Sizes that are not used drift back to their first measurement, or one slow spell
                # would exclude them for good.
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
        """Try a size again that was slow once; try one that is always slow ever more rarely."""
        self._refused[size] = self._refused.get(size, 0) + 1
        if self._refused[size] >= self._forgives.get(size, _FORGIVES):
            self._forgives[size] = 2 * self._forgives.get(size, _FORGIVES)
            self._refused[size] = 0
            self._worst[size] = self._learnt[size][1]

    def _pays(self, size: int) -> bool:
        return self._usual[size] < _PAYS * size * self._usual[1]


def _was_inferred(judgement: Judgement) -> bool:
    """Whether the part went through the network, which then took its usual time."""
    return judgement.judged is not None and judgement.reason is not Reason.INFERENCE_ERROR


def _learn(judge: Judge, costs: BatchCosts) -> None:
    detector = judge.detector
    golden, frame = detector.manifest.golden[0].image()[np.newaxis], _some_frame(detector)

    warm: set[int] = set()

    def together(size: int) -> None:
        if size not in warm:
            # A CUDA graph, or OpenVINO's program, for each: what is measured is what will run.
            detector.warm(size)
            warm.add(size)
        judge_together([(judge, frame)] * size)

    try:
        alone = float(detector.infer(golden)[0][0])
        costs.learn(together, time.perf_counter_ns)
        for size in range(2, costs.largest + 1):
            scores, _ = detector.infer(np.repeat(golden, size, axis=0))
            # Compare with this engine's own single score; in bf16 it differs from the manifest's.
            if not (np.abs(scores - alone) <= detector.manifest.golden_tolerance).all():
                raise Fault(Reason.INFERENCE_ERROR.value, f"a batch of {size} scores otherwise")
    except Fault as fault:
        costs.forget()
        say("no batches", logging.WARNING, detail=str(fault))
    judge.forget_frames()


def _some_frame(detector: Detector) -> Frame8:
    """A frame of a size that the detector takes, all black: it costs what a part costs."""
    geometry = detector.geometry
    if geometry.frame is not None:
        width, height = geometry.frame
    elif geometry.region is not None:
        width, height = geometry.region.x + geometry.region.w, geometry.region.y + geometry.region.h
    else:
        height = geometry.height
        width = round(height * (geometry.aspect or geometry.width / height))
    return np.zeros((height, width, 3), dtype=np.uint8)
