"""Results on their way to a PLC: one is shown, eight may wait, and what comes later is a FAULT."""

from __future__ import annotations

import collections
from dataclasses import dataclass, replace
from typing import Final

from inspector.bridges.codes import BridgeReason
from inspector.verdict import Reason, Verdict

LARGEST: Final = 65_535
"""Largest number of a trigger or a result; 1 follows it, and 0 is none."""
MOST_WAITING: Final = 8
"""Results that may wait behind the one shown; the next one becomes a FAULT ``result_overrun``."""
MOST_OVERRUN: Final = 256
"""Such FAULTs that wait; a trigger that comes then gets no result."""


def following(number: int) -> int:
    """The number after this one, from 1 to 65,535 and then 1 again."""
    return number % LARGEST + 1


@dataclass(frozen=True)
class Origin:
    """The verdict of the station that a result tells."""

    epoch: str
    seq: int


@dataclass(frozen=True)
class Result:
    """What the PLC is told about one part."""

    trigger_seq: int
    verdict: Verdict
    reason: str = Reason.NONE.value
    score: float | None = None
    """In units of the limit: 1.0 and above is FAIL; None on FAULT."""
    part_id: str = ""
    part_count: int = 0
    origin: Origin | None = None
    """None: the bridge made this FAULT, the station did not judge the part or has not yet."""
    seq: int = 0
    """ResultSeq, which it gets when it is shown."""

    def as_fault(self, reason: str) -> Result:
        """The same part as a FAULT."""
        return replace(self, verdict=Verdict.FAULT, reason=reason, score=None)


class ResultQueue:
    """Shows one result after the other.

    A result stays unchanged until it is acknowledged by its number. With ``latest`` the newest
    replaces it instead, and nobody needs to acknowledge.
    """

    def __init__(self, first_seq: int, latest: bool = False) -> None:
        self._next = first_seq
        self._latest = latest
        self._waiting: collections.deque[Result] = collections.deque()
        self.shown: Result | None = None
        self.overruns = 0
        """Results that came as the ninth, or later."""

    @property
    def waiting(self) -> int:
        """How many wait behind the one that is shown."""
        return len(self._waiting)

    @property
    def is_full(self) -> bool:
        """True when not even a FAULT ``result_overrun`` has room."""
        return len(self._waiting) >= MOST_WAITING + MOST_OVERRUN

    def put(self, result: Result, acknowledged: int) -> bool:
        """Add a result; False when it became a FAULT ``result_overrun``.

        ``acknowledged`` is ResultAck as it stands.
        """
        if self._latest:
            self._show(result, acknowledged)
            return True
        in_time = len(self._waiting) < MOST_WAITING
        if not in_time:
            self.overruns += 1
            # The verdict's fate is settled with that, whatever becomes of this FAULT.
            result = replace(result.as_fault(BridgeReason.RESULT_OVERRUN.value), origin=None)
        self._waiting.append(result)
        if self.shown is None:
            self._show(self._waiting.popleft(), acknowledged)
        return in_time

    def acknowledge(self, acknowledged: int) -> Result | None:
        """Take ResultAck as it stands; the result that it acknowledges, if any."""
        done = self.shown
        if done is None or done.seq != acknowledged:
            return None
        self.shown = None
        if self._waiting:
            self._show(self._waiting.popleft(), acknowledged)
        return done

    def clear(self) -> list[Result]:
        """Drop everything; returns what the PLC has not acknowledged."""
        dropped = ([] if self.shown is None else [self.shown]) + list(self._waiting)
        self._waiting.clear()
        self.shown = None
        return dropped

    def _show(self, result: Result, acknowledged: int) -> None:
        # A ResultAck that stands there from before must not acknowledge what nobody has read.
        if self._next == acknowledged:
            self._next = following(self._next)
        self.shown = replace(result, seq=self._next)
        self._next = following(self._next)
