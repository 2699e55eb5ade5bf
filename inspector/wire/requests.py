"""A command that another thread answers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from inspector.wire.messages import (
    RecipeCommand,
    RefusalCode,
    ReloadCommand,
    ReplyMessage,
    TriggerCommand,
    VerdictMessage,
)


class Request:
    """A command that the judge loop answers: it calls one of ``answer``, ``finish``, ``refuse``.

    Any thread may call; what comes after the first of these is ignored. ``client`` is the name the
    peer's key has in the station file, "" without keys. ``received_us`` is wall time since the
    Unix epoch, ``received_ns`` monotonic. ``age_us`` is how long before that a trigger was sent;
    None for one that does not say.
    """

    def __init__(
        self,
        command: TriggerCommand | RecipeCommand | ReloadCommand,
        client: str,
        send: Callable[[ReplyMessage, bool], None],
    ) -> None:
        self.command = command
        self.client = client
        self.received_us = time.time_ns() // 1000
        self.received_ns = time.monotonic_ns()
        self.age_us: int | None = None
        self._send = send
        self._open = True
        self._accepted = False
        self._lock = threading.Lock()

    def accept(self) -> None:
        """The trigger is in the journal: it will get a verdict."""
        self._accepted = True
        self._reply(ReplyMessage(id=self.command.id, kind="accepted"), last=False)

    def answer(self, verdict: VerdictMessage, recorded: bool = True) -> None:
        """The verdict on the part that was triggered, and whether it is ``recorded``.

        A trigger that was not accepted is accepted by its recorded verdict, and refused by one that
        the journal does not have.
        """
        if not self._accepted:
            if not recorded:
                self.refuse("journal", "the trigger could not be recorded; part not accepted")
                return
            self.accept()
        self._reply(ReplyMessage(id=self.command.id, kind="verdict", verdict=verdict))

    def finish(self, detail: str = "") -> None:
        """It was done."""
        self._reply(ReplyMessage(id=self.command.id, kind="done", detail=detail))

    def refuse(self, code: RefusalCode, detail: str) -> None:
        """It was not done, and why."""
        self._reply(ReplyMessage(id=self.command.id, kind="refused", code=code, detail=detail))

    def _reply(self, reply: ReplyMessage, last: bool = True) -> None:
        with self._lock:
            if not self._open:
                return
            self._open = not last
        self._send(reply, last)
