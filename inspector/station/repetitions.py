"""Which trigger is one that came before, and what it is told then.

A sender that counts from 1 anew must not get an old verdict for a new part. So a used number is a
repetition only if its sender says so, and gets its first verdict only for a while.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple

from inspector.clock import Clock
from inspector.station.part import Part
from inspector.station.triggers import Trigger, TriggerMemory, trigger_of
from inspector.verdict import Reason
from inspector.wire.messages import VerdictMessage


class Past(NamedTuple):
    """The verdict that a trigger had, and when (monotonic) it was judged."""

    verdict: VerdictMessage
    judged_ns: int


class Repetitions:
    """What became of the last ``size`` triggers, and what a repetition of one is told.

    A verdict is told again for ``window_s`` after it was judged. Used by one thread.
    """

    def __init__(self, size: int, window_s: float, clock: Clock) -> None:
        self._memory: TriggerMemory[Part | Past] = TriggerMemory(size)
        self._window_ns = round(window_s * 1e9)
        self._clock = clock

    def recover(self, answered: Iterable[VerdictMessage]) -> None:
        """Take over the verdicts of the daemon before, oldest first.

        Their age is told by the wall clock; one that it says is still to come is too old.
        """
        now_us, now_ns = self._clock.wall_us(), self._clock.monotonic_ns()
        for verdict in answered:
            if (trigger := trigger_of(verdict)) is not None:
                age_ns = (now_us - verdict.judged_us) * 1000
                judged_ns = now_ns - (age_ns if age_ns >= 0 else self._window_ns + 1)
                self._memory.add(trigger, Past(verdict, judged_ns))

    def find(self, trigger: Trigger) -> VerdictMessage | None:
        """The verdict that ``trigger`` had, as it is told again; None while it is owed."""
        known = self._memory.find(trigger)
        return known.verdict.told_again() if isinstance(known, Past) else None

    def look(
        self, trigger: Trigger, repeat: bool
    ) -> Literal["new", "used", "expired"] | Part | Past:
        """What ``trigger`` is.

        ``new``: its number is above all of its session. ``used``: it is not, and this is no
        repetition. ``expired``: it repeats what is too old, or not known. Else what it repeats: a
        part whose verdict is owed, or the verdict.

        ``repeat``: its sender says that it was sent before, for the same part. Where both tell when
        they were sent first, that must be the same too; and if it is, this is the same trigger also
        without ``repeat``, overtaken by its repetition on another connection.
        """
        if not self._memory.is_used(trigger):
            return "new"
        known = self._memory.find(trigger)
        sent_us = {trigger.sent_us, None if known is None else _sent_us_of(known)}
        is_overtaken = known is not None and len(sent_us) == 1 and None not in sent_us
        if not (repeat or is_overtaken):
            return "used"
        if known is None or self._is_expired(known):
            return "expired"
        return known if len(sent_us - {None}) <= 1 else "used"

    def opened(self, trigger: Trigger, part: Part) -> None:
        """``trigger`` has opened ``part``."""
        self._memory.add(trigger, part)

    def closed(self, part: Part, verdict: VerdictMessage) -> None:
        """``part`` has its verdict."""
        if part.trigger is not None:
            judged_ns = self._clock.monotonic_ns() if part.settled_ns is None else part.settled_ns
            self._memory.replace(part.trigger, part, Past(verdict, judged_ns))

    def amend(self, verdict: VerdictMessage, published: VerdictMessage) -> None:
        """Another verdict went out under the number of ``verdict``: that one is told again."""
        trigger = trigger_of(verdict)
        known = None if trigger is None else self._memory.find(trigger)
        if trigger is not None and isinstance(known, Past) and known.verdict == verdict:
            self._memory.replace(trigger, known, known._replace(verdict=published))

    def _is_expired(self, known: Part | Past) -> bool:
        """True when ``known`` was judged too long ago to be told again."""
        if not isinstance(known, Past):
            return False
        return self._clock.monotonic_ns() - known.judged_ns > self._window_ns


def is_conflict(part: Part) -> bool:
    """True when ``part`` is a FAULT because its trigger's number was used before."""
    return part.draft is not None and part.draft.reason == Reason.TRIGGER_CONFLICT.value


def _sent_us_of(known: Part | Past) -> int | None:
    """When the trigger that is remembered as ``known`` was sent first, by its sender's clock."""
    if isinstance(known, Past):
        return known.verdict.sent_us
    return None if known.trigger is None else known.trigger.sent_us
