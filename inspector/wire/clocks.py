"""How old a trigger is when it arrives, though its sender's clock is another than the station's.

A sender that asks for the status says when it asked and when its question before was answered, by
its own clock. The station's clock stood, when that question arrived, somewhere between the two: the
shorter the round trip, the better is it known.
"""

from __future__ import annotations

import collections
from dataclasses import dataclass, field
from typing import Final

_TRIPS: Final = 10
"""Round trips of a sender that are remembered; the shortest of them counts."""
_MOST_SENDERS: Final = 1000


@dataclass
class _Sender:
    asked: tuple[int, int] | None = None
    """Its last question: when it was sent, by the sender's clock, and when it arrived, by ours."""
    answered_us: int | None = None
    """What it said last of when it was answered."""
    trips: collections.deque[tuple[int, int]] = field(
        default_factory=lambda: collections.deque(maxlen=_TRIPS)
    )
    """How long each round trip took, and our clock less the sender's in the middle of it."""


class Clocks:
    """The senders' clocks, as far as they are known; all times in µs, used by one thread.

    A sender is known by its connection. ``received_us`` is of a clock of the station's that nobody
    sets; a sender's clock may stand anywhere, but must not jump.
    """

    def __init__(self) -> None:
        self._senders: collections.OrderedDict[bytes, _Sender] = collections.OrderedDict()

    def hear(
        self, sender: bytes, sent_us: int | None, answered_us: int | None, received_us: int
    ) -> None:
        """A question for the status came.

        ``answered_us`` is when the reply to the sender's question before reached it, None when it
        does not say.
        """
        known = self._senders.pop(sender, None) or _Sender()
        # A question that is sent again, or ahead of the last one's answer, tells of no new one.
        if known.asked is not None and answered_us not in (None, known.answered_us):
            asked_us, arrived_us = known.asked
            if answered_us >= asked_us:
                middle_us = (asked_us + answered_us) // 2
                known.trips.append((answered_us - asked_us, arrived_us - middle_us))
        known.answered_us = answered_us
        known.asked = None if sent_us is None else (sent_us, received_us)
        self._senders[sender] = known
        if len(self._senders) > _MOST_SENDERS:
            self._senders.popitem(last=False)

    def age_us(self, sender: bytes, sent_us: int, received_us: int) -> int | None:
        """How long ago ``sent_us`` of the sender's clock was; None while that is not known.

        Of the sender's round trips the shortest counts, as its middle is known best.
        """
        known = self._senders.get(sender)
        if known is None or not known.trips:
            return None
        _, ahead_us = min(known.trips)
        return received_us - (sent_us + ahead_us)
