"""A command that another thread answers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Literal

from inspector.wire.messages import Order, RefusalCause, RefusalCode, ReplyMessage, VerdictMessage


class Request:
    """A command that the judge loop answers: it calls one of ``answer``, ``finish``, ``refuse``.

    A trigger is told ``accepted``, then ``acquired`` if its picture is there, then its verdict:
    each once, in this order, whatever the order of the calls. Any thread may call; what comes
    after the first of the three calls above is ignored. ``client`` is the name the
    peer's key has in the station file, "" without keys. ``received_us`` is wall time since the
    Unix epoch, ``received_ns`` monotonic. ``age_us`` is how long before that a trigger was sent;
    None for one that does not say. ``data`` came beside the command: the bytes of an upload.
    """

    def __init__(
        self,
        command: Order,
        client: str,
        send: Callable[[ReplyMessage, bool], None],
        data: bytes = b"",
    ) -> None:
        self.command = command
        self.client = client
        self.data = data
        self.received_us = time.time_ns() // 1000
        self.received_ns = time.monotonic_ns()
        self.age_us: int | None = None
        self._send = send
        self._last: ReplyMessage | None = None
        self._accepted = False
        self._grabbed_us: int | None = None
        self._acquired = False
        # Reentrant: an answer may have to accept first.
        self._lock = threading.RLock()

    def accept(self) -> None:
        """The trigger is in the journal: it will get a verdict."""
        with self._lock:
            if not self._accepted:
                self._accepted = True
                self._reply(ReplyMessage(id=self.command.id, kind="accepted"), last=False)
                self._tell_acquired()

    def acquire(self, grabbed_us: int) -> None:
        """The part's picture is taken, at ``grabbed_us`` (wall time): the part may move.

        It is told once the trigger is accepted, for until then the trigger may be refused.
        """
        with self._lock:
            self._grabbed_us = grabbed_us
            if self._accepted:
                self._tell_acquired()

    def answer(self, verdict: VerdictMessage, recorded: bool = True) -> None:
        """The verdict on the part that was triggered, and whether it is ``recorded``.

        A trigger that was not accepted is accepted by its recorded verdict, and refused by one that
        the journal does not have. What was acquired is told before the verdict in any case.
        """
        with self._lock:
            if not self._accepted and not recorded:
                self.refuse("journal", "the trigger could not be recorded; part not accepted")
                return
            if verdict.grabbed_us is not None and self._grabbed_us is None:
                self._grabbed_us = verdict.grabbed_us
            if not self._accepted:
                self.accept()
            self._tell_acquired()
            self._reply(ReplyMessage(id=self.command.id, kind="verdict", verdict=verdict))

    @property
    def last(self) -> ReplyMessage | None:
        """The final reply; None while it is owed. Any thread may read it."""
        return self._last

    def tell_uploaded(self, offset: int) -> None:
        """So many bytes of the file are there, from its beginning."""
        self._reply(ReplyMessage(id=self.command.id, kind="uploaded", offset=offset))

    def finish(self, detail: str = "") -> None:
        """It was done."""
        self._reply(ReplyMessage(id=self.command.id, kind="done", detail=detail))

    def refuse(
        self, code: RefusalCode, detail: str, cause: RefusalCause | Literal[""] = ""
    ) -> None:
        """It was not done, and why."""
        reply = ReplyMessage(
            id=self.command.id, kind="refused", code=code, cause=cause, detail=detail
        )
        self._reply(reply)

    def _tell_acquired(self) -> None:
        if self._grabbed_us is not None and not self._acquired:
            self._acquired = True
            acquired = ReplyMessage(
                id=self.command.id, kind="acquired", grabbed_us=self._grabbed_us
            )
            self._reply(acquired, last=False)

    def _reply(self, reply: ReplyMessage, last: bool = True) -> None:
        with self._lock:
            if self._last is not None:
                return
            self._last = reply if last else None
            # Within the lock, or replies of two threads could overtake each other.
            self._send(reply, last)
