"""Everything a station has for a bridge's consumers from one verdict on, complete and in order."""

from __future__ import annotations

import contextlib
import logging
from typing import Final

from inspector.bridges.position import Position
from inspector.client import ClientKeys, Gap, Heatmap, Item, Subscriber
from inspector.config.mqtt_bridge import PublishingStation
from inspector.errors import WireError
from inspector.logs import say
from inspector.wire.messages import VerdictMessage

_MOST: Final = 50
"""Items handed out at once; so many, and ZeroMQ's queue, are all that is held in memory."""
_QUEUED: Final = 2000
"""Verdicts that ZeroMQ holds while the consumer is slow; what is more comes from the journal."""
_PATIENCE_S: Final = 30.0


class Feed:
    """A subscription that goes on after ``last``, or else since a moment; used by one thread.

    A gap is believed when a second subscription, made anew, finds the same: a station that was
    stopped while it was asked does not answer, and has the verdicts all the same.
    """

    def __init__(
        self,
        station: PublishingStation,
        keys: ClientKeys | None,
        last: Position | None,
        since_us: int,
        heatmaps: bool = False,
    ) -> None:
        self._station = station
        self._keys = keys
        self._last = last
        self._since_us = since_us
        self._heatmaps = heatmaps
        self._doubted: tuple[str, int] | None = None
        self._open = contextlib.ExitStack()
        self._subscriber: Subscriber | None = None

    def receive(self, timeout_ms: int) -> list[tuple[Item, bool]]:
        """What has come, at most 50 items, each with True if it is a record; [] after the time.

        Raises :class:`WireError` when an address is none.
        """
        subscriber = self._subscriber or self._subscribe()
        found: list[tuple[Item, bool]] = []
        while len(found) < _MOST:
            try:
                item = subscriber.receive(0 if found else timeout_ms)
            except WireError as error:
                say("unreadable", logging.WARNING, problem=str(error))
                continue
            if item is None:
                break
            if isinstance(item, Gap) and self._doubted != (item.epoch, item.first):
                self._doubted = item.epoch, item.first
                self.close()
                break
            if isinstance(item, VerdictMessage):
                self._last = Position(item.epoch, item.seq)
            elif isinstance(item, Gap) and item.last is not None:
                self._last = Position(item.epoch, item.last)
            found.append((item, subscriber.is_record and not isinstance(item, Heatmap)))
        return found

    def close(self) -> None:
        """End the subscription; ``receive`` makes another one, which goes on where it was."""
        self._open.close()
        self._subscriber = None

    def _subscribe(self) -> Subscriber:
        last, station = self._last, self._station
        self._subscriber = self._open.enter_context(
            Subscriber(
                station.verdicts,
                station.images if self._heatmaps else None,
                commands=station.commands,
                since_us=self._since_us if last is None else None,
                after=None if last is None else (last.epoch, last.seq),
                patience_s=_PATIENCE_S,
                queued=_QUEUED,
                keys=self._keys,
            )
        )
        return self._subscriber
