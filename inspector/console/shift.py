"""What a station has judged in the shift at work, each verdict counted once."""

from __future__ import annotations

import bisect
import collections
import datetime
import statistics
from collections.abc import Sequence
from typing import Any, Final

from inspector.verdict import Verdict
from inspector.wire.messages import VerdictMessage
from inspector.wire.queries import CountsField

_MINUTE_US: Final = 60_000_000
_BACK_US: Final = 60_000_000
"""A station's clock that was set back by more than this begins the shift that it now tells."""
_REFRESH_US: Final = 500_000
_RECENT: Final = 5000
"""Verdicts that may come while the station counts; at 100 parts a second some 50 s."""
_LAST: Final = 100
"""Verdicts whose time is told."""


class Shift:
    """Counts of one station; used in one thread.

    ``starts``: when shifts begin, ``HH:MM`` by this machine's local time, rising. Verdicts may be
    added in any order and more than once: those that came live, and those of the history, which
    also has what was judged before this program started, or was lost on its way. What belongs to
    the shift is told by the station's clock.
    """

    def __init__(self, starts: Sequence[str]) -> None:
        self._starts = [datetime.time.fromisoformat(start) for start in starts]
        self._seen: dict[str, _Numbers] = {}
        self._counts: collections.Counter[Verdict] = collections.Counter()
        self._now_us = 0
        self._minute: list[int] = []
        self._times_ms: collections.deque[float] = collections.deque(maxlen=_LAST)
        self._sure: tuple[str, int] | None = None
        self._recent: collections.deque[VerdictMessage] = collections.deque(maxlen=_RECENT)
        self._counted: tuple[str, int, int] | None = None
        self.from_us = self.until_us = 0
        self.complete = False
        """True while nothing is known to be missing; see :meth:`walked`."""

    def turn(self, now_us: int) -> bool:
        """Have it be ``now_us``; True when another shift began, and all counts with it."""
        if abs(now_us - self._now_us) > _REFRESH_US:
            self._now_us = now_us
            self._minute = [at_us for at_us in self._minute if at_us > now_us - _MINUTE_US]
        if self.from_us - _BACK_US <= now_us < self.until_us:
            return False
        self.from_us, self.until_us = bounds(self._starts, now_us)
        self._seen.clear()
        self._counts.clear()
        self._recent.clear()
        self._sure = self._counted = None
        return True

    def add(self, verdict: VerdictMessage) -> None:
        """Count a verdict, unless it was counted before or is of another shift."""
        if not self.from_us <= verdict.judged_us < self.until_us or self._was_counted(verdict):
            return
        numbers = self._seen.setdefault(verdict.epoch, _Numbers())
        if not numbers.add(verdict.seq):
            return
        if self._sure == (verdict.epoch, verdict.seq - 1):
            self._sure = verdict.epoch, verdict.seq
        self._recent.append(verdict)
        # The history is walked from its newest verdict down, through a whole shift at times.
        is_recent = verdict.judged_us > self._now_us - _MINUTE_US
        if is_recent and verdict.judge_ms is not None:
            self._times_ms.append((verdict.queue_ms or 0.0) + verdict.judge_ms)
        if verdict.purpose == "production":
            self._counts[verdict.verdict] += 1
            if is_recent:
                self._minute.append(verdict.judged_us)

    @property
    def now_us(self) -> int:
        """What time it is there, as far as is known."""
        return self._now_us

    @property
    def sure(self) -> tuple[str, int] | None:
        """Epoch and number of a verdict, up to which the whole shift is counted; None: of none."""
        return self._sure

    def counted(self, counts: CountsField) -> None:
        """The station has counted the whole shift: what came since its newest verdict is added."""
        self._counts = collections.Counter(
            {
                Verdict.PASS: counts.passed,
                Verdict.FAIL: counts.failed,
                Verdict.FAULT: counts.faults,
            }
        )
        self._seen.clear()
        self._sure = self._counted = None
        recent = list(self._recent)
        if counts.newest_epoch is not None:
            epoch, seq = counts.newest_epoch, counts.newest_seq or 0
            self._counted = epoch, seq, counts.newest_us or 0
            self._seen[epoch] = _Numbers(seq)
            recent = [one for one in recent if not self._was_counted(one)]
        for one in recent:
            numbers = self._seen.setdefault(one.epoch, _Numbers())
            if numbers.add(one.seq) and one.purpose == "production":
                self._counts[one.verdict] += 1
        if self._counted is not None:
            epoch, seq, _ = self._counted
            self._sure = epoch, self._seen[epoch].end_of(seq)
        self.complete = True

    def _was_counted(self, verdict: VerdictMessage) -> bool:
        """Whether the station's count has it: of its last epoch by its number, else by its time."""
        if self._counted is None:
            return False
        epoch, seq, at_us = self._counted
        if verdict.epoch == epoch:
            return verdict.seq <= seq
        return verdict.judged_us <= at_us

    def walked(self, newest: tuple[str, int] | None) -> None:
        """The history was added down to :attr:`sure` or the begin, from ``newest`` on."""
        if newest is not None and newest[0] in self._seen:
            self._sure = newest[0], self._seen[newest[0]].end_of(newest[1])
        self.complete = True

    def told(self) -> dict[str, Any]:
        """For the page: ``yield`` is the share of PASS among the judged, null before the first."""
        passed, failed, faults = (self._counts[verdict] for verdict in _ORDER)
        return {
            "from_us": self.from_us,
            "until_us": self.until_us,
            "passed": passed,
            "failed": failed,
            "faults": faults,
            "yield": passed / (passed + failed) if passed + failed else None,
            "complete": self.complete,
            "per_minute": len(self._minute),
            "typical_ms": statistics.median(self._times_ms) if self._times_ms else None,
            "slowest_ms": max(self._times_ms) if self._times_ms else None,
        }


_ORDER: Final = (Verdict.PASS, Verdict.FAIL, Verdict.FAULT)


class _Numbers:
    """Whole numbers as few stretches: a shift's verdicts hardly have gaps."""

    def __init__(self, last: int = 0) -> None:
        """``last``: all up to this one are there."""
        self._firsts: list[int] = [1] if last else []
        self._lasts: list[int] = [last] if last else []

    def add(self, number: int) -> bool:
        """False when it was there already."""
        at = bisect.bisect_right(self._firsts, number) - 1
        if at >= 0 and number <= self._lasts[at]:
            return False
        joins_left = at >= 0 and self._lasts[at] == number - 1
        joins_right = at + 1 < len(self._firsts) and self._firsts[at + 1] == number + 1
        if joins_left and joins_right:
            self._lasts[at] = self._lasts.pop(at + 1)
            del self._firsts[at + 1]
        elif joins_left:
            self._lasts[at] = number
        elif joins_right:
            self._firsts[at + 1] = number
        else:
            self._firsts.insert(at + 1, number)
            self._lasts.insert(at + 1, number)
        return True

    def end_of(self, number: int) -> int:
        """The last number of the stretch that has ``number``; ``number`` where none has."""
        at = bisect.bisect_right(self._firsts, number) - 1
        return max(number, self._lasts[at]) if at >= 0 else number


def bounds(starts: Sequence[datetime.time], now_us: int) -> tuple[int, int]:
    """The shift at ``now_us``: its first moment, and that of the next one, µs since the epoch."""
    today = datetime.datetime.fromtimestamp(now_us / 1e6).date()
    days = (today + datetime.timedelta(days=days) for days in (-1, 0, 1))
    # A time of day without a zone is local, also across a change to or from summer time.
    begins = [
        round(datetime.datetime.combine(day, start).timestamp() * 1e6)
        for day in days
        for start in starts
    ]
    begins.sort()
    at = bisect.bisect_right(begins, now_us)
    return begins[at - 1], begins[at]
