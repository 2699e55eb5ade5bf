"""What it costs a commit of the journal that its verdicts can be searched."""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from benchmarks.faults.lab import quantile
from benchmarks.figures import Figure
from benchmarks.rows import Row, Tick
from inspector.journal import writer
from inspector.journal.search import FILED_EVERY
from inspector.journal.writer import Journal
from tests import stations

_GROUPS: Final = {1: True, 2: True, 5: True, 20: False, 100: False}
"""Verdicts of a commit, and whether a station that keeps up has such groups."""


def measure(folder: Path, trials: int, tick: Tick) -> Sequence[Figure]:
    """``trials`` commits of each size, in turn with and without the table that is searched."""
    figures = []
    epoch = str(uuid.uuid4())
    with contextlib.ExitStack() as stack:
        journals = {}
        for filed in (True, False):
            journal = stack.enter_context(contextlib.closing(Journal(folder / f"filed-{filed}")))
            journal.begin(epoch, time.time_ns() // 1000)
            journals[filed] = journal
        seq = 0
        for size, is_usual in _GROUPS.items():
            taken: dict[bool, list[float]] = {True: [], False: []}
            for number in range(trials):
                verdicts = [stations.verdict(seq + at, epoch) for at in range(1, size + 1)]
                seq += size
                # Neither is always the one that comes after the other.
                for filed in (True, False) if number % 2 else (False, True):
                    with contextlib.nullcontext() if filed else _unfiled():
                        begun_s = time.perf_counter()
                        journals[filed].commit((), verdicts)
                        taken[filed].append(1000 * (time.perf_counter() - begun_s))
                tick(seq, trials * sum(_GROUPS))
            # Of neighbours, since what else the machine does comes and goes.
            pairs = zip(taken[True], taken[False], strict=True)
            ratio = quantile([one / other for one, other in pairs], 0.5)
            runs = zip(_sums(taken[True]), _sums(taken[False]), strict=True)
            of_runs = quantile([one / other for one, other in runs], 0.5)
            goal, holds = ("≤ 1.05", ratio <= 1.05) if is_usual else ("", None)
            figures += [
                Figure(
                    f"commit of {size} without, p50", round(quantile(taken[False], 0.5), 3), "ms"
                ),
                Figure(f"of {size}, with over without, p50", round(ratio, 3), "", goal, holds),
                # One commit of many files all of them, which a median does not see.
                Figure(
                    f"{FILED_EVERY} commits of {size}, with over without, p50",
                    round(of_runs, 3),
                    "",
                ),
            ]
    return figures


def _sums(values: Sequence[float]) -> list[float]:
    """The sum of each run of commits, one or more of which file all of them."""
    starts = range(0, len(values), FILED_EVERY)
    return [sum(values[start : start + FILED_EVERY]) for start in starts]


@contextlib.contextmanager
def _unfiled() -> Iterator[None]:
    """Within it no verdict gets a row in the table that is searched."""
    file_new = writer.file_new
    writer.file_new = lambda *_: ()
    try:
        yield
    finally:
        writer.file_new = file_new


ROW: Final = Row("a commit does not notice that verdicts can be searched", 2000, 300, measure)
