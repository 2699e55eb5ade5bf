"""Triggers, and the memory by which one that is sent twice is known."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from inspector.wire.messages import Purpose, VerdictMessage

REMEMBERED: Final = 10_000
"""Triggers that are known when they come again."""

Item = TypeVar("Item")


@dataclass(frozen=True)
class Trigger:
    """A client's wish for one verdict.

    ``number`` is the client's own (the PLC's TriggerSeq); it rises within a ``session``, for each
    camera. ``triggered_us`` is wall time, ``triggered_ns`` the same moment on the monotonic clock.
    ``sent_us`` is when the client first sent it, by its own clock; None: it did not say. ``lot``
    and ``purpose`` go into the verdict; they tell no trigger from another.
    """

    camera: str
    client: str
    session: str
    number: int
    part_id: str
    triggered_us: int
    triggered_ns: int
    sent_us: int | None = None
    lot: str = ""
    purpose: Purpose = "production"

    @property
    def key(self) -> tuple[str, str, str, int, str]:
        """What a repetition has in common with the first."""
        return self.camera, self.client, self.session, self.number, self.part_id


def trigger_of(verdict: VerdictMessage) -> Trigger | None:
    """The trigger that ``verdict`` answers, its monotonic time unknown (0); None without one."""
    if verdict.trigger_seq is None:
        return None
    return Trigger(
        camera=verdict.camera,
        client=verdict.client,
        session=verdict.session,
        number=verdict.trigger_seq,
        part_id=verdict.part_id,
        triggered_us=verdict.triggered_us or 0,
        triggered_ns=0,
        sent_us=verdict.sent_us,
        lot=verdict.lot,
        purpose=verdict.purpose,
    )


class TriggerMemory(Generic[Item]):
    """What became of the last ``size`` triggers, and each session's highest number.

    Its room is bounded. A trigger that has fallen out is not taken for a new one: its number is
    not above its session's highest. Of sessions, too, the last ``size`` are known, so that none
    is forgotten that has a remembered trigger.
    """

    def __init__(self, size: int = REMEMBERED) -> None:
        self._size = size
        self._items: OrderedDict[tuple[str, str, str, int, str], Item] = OrderedDict()
        self._highest: OrderedDict[tuple[str, str, str], int] = OrderedDict()

    def find(self, trigger: Trigger) -> Item | None:
        """What became of the same trigger when it first came; None when it is not known."""
        return self._items.get(trigger.key)

    def is_used(self, trigger: Trigger) -> bool:
        """True when its number is not above all that its session sent to the camera."""
        highest = self._highest.get(trigger.key[:3])
        return highest is not None and trigger.number <= highest

    def add(self, trigger: Trigger, item: Item) -> None:
        """Remember what becomes of a trigger, in the place of what became of one like it."""
        self._items[trigger.key] = item
        session = trigger.key[:3]
        self._highest[session] = max(trigger.number, self._highest.get(session, trigger.number))
        self._highest.move_to_end(session)
        for known in (self._items, self._highest):
            if len(known) > self._size:
                known.popitem(last=False)

    def replace(self, trigger: Trigger, before: Item, item: Item) -> None:
        """Put ``item`` in the place of ``before``, if that is what is remembered of the trigger."""
        if self._items.get(trigger.key) == before:
            self._items[trigger.key] = item
