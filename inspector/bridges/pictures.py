"""Verdicts on pictures that nobody asked the station for: those of hardware triggers."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

from inspector.bridges.handshake import Handshake
from inspector.client import ClientKeys, Gap, Subscriber
from inspector.config.bridge_file import CountedStation
from inspector.errors import WireError
from inspector.logs import say
from inspector.threads import Worker
from inspector.wire.messages import VerdictMessage

_RECEIVE_MS: Final = 200
_PATIENCE_S: Final = 5.0
"""A verdict that the journal does not give in this time is a gap, after which counts differ."""


class Pictures(Worker):
    """Hands the verdicts of hardware triggers to their handshakes, complete and in order.

    What is missing is fetched from the journal, and lets nothing pass. A gap needs no words: the
    next picture's number tells it.
    """

    def __init__(
        self,
        station: CountedStation,
        keys: ClientKeys | None,
        handshakes: Mapping[str, Handshake],
        tell: Callable[[Callable[[], None]], None],
    ) -> None:
        super().__init__("pictures")
        self._station = station
        self._keys = keys
        self._handshakes = handshakes
        self._tell = tell
        self._ending = False

    def finish(self) -> None:
        """End, and wait for that."""
        self._ending = True
        if self.ident is not None:
            self.join()

    def work(self) -> None:
        """Receive and hand on, until the end."""
        station = self._station
        with Subscriber(
            station.verdicts, commands=station.commands, patience_s=_PATIENCE_S, keys=self._keys
        ) as subscriber:
            while not self._ending:
                try:
                    item = subscriber.receive(_RECEIVE_MS)
                except WireError as error:
                    say("unreadable", logging.WARNING, problem=str(error))
                    continue
                if isinstance(item, Gap):
                    say("verdicts missing", logging.WARNING, epoch=item.epoch, first=item.first)
                elif isinstance(item, VerdictMessage) and item.camera in self._handshakes:
                    now_s = time.monotonic()
                    # The station's clock, and so this host's, if it is another one, must be right.
                    age_s = time.time() - (item.grabbed_us or 0) / 1e6
                    pictured = self._handshakes[item.camera].pictured
                    self._tell(partial(pictured, item, subscriber.is_record, now_s - age_s, now_s))
