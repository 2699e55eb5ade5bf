"""Commands that are under way to a station: sent, sent again, answered or given up."""

from __future__ import annotations

import collections
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from inspector.client.connection import PAUSE_S, REPEAT_S, Channel
from inspector.client.keys import why_silent
from inspector.errors import CommandError, WireError
from inspector.wire.messages import (
    Command,
    DeliveredCommand,
    ReplyMessage,
    StatusCommand,
    TriggerCommand,
    VerdictMessage,
)

AnswerKind = Literal[
    "accepted",
    "acquired",
    "verdict",
    "status",
    "replayed",
    "uploaded",
    "done",
    "refused",
    "unanswered",
]
"""What is new about a command: the kind of a reply, or that no final one came or will come."""


@dataclass(eq=False)
class Sent:
    """A command that was sent, and what the station has said of it so far.

    ``accepted`` and ``acquired_us`` (µs since the Unix epoch, when the picture was taken) are a
    trigger's. At the end there is either ``reply``, the final one, or ``error``.
    """

    command: Command
    accepted: bool = False
    acquired_us: int | None = None
    reply: ReplyMessage | None = None
    error: CommandError | None = None

    @property
    def is_done(self) -> bool:
        """True once nothing more comes."""
        return self.reply is not None or self.error is not None

    @property
    def verdict(self) -> VerdictMessage | None:
        """A trigger's verdict; None before it is there."""
        return None if self.reply is None else self.reply.verdict

    def result(self) -> ReplyMessage:
        """The final reply. Raises the :class:`CommandError`, or ValueError before the end."""
        if self.error is not None:
            raise self.error
        if self.reply is None:
            raise ValueError("there is no final reply yet")
        return self.reply


@dataclass(frozen=True)
class Answer:
    """Something new about a command: ``sent`` has it."""

    sent: Sent
    kind: AnswerKind


@dataclass
class _Flight:
    """How long a command is waited for, and when it is sent again; moments are monotonic, s.

    ``again``: what is sent while there is no answer; None: nothing is. ``about``: what waits for
    this command, which an error names. ``beside``: nobody is told of its answers. ``losses``: how
    many connections had broken when it was sent last.
    """

    sent: Sent
    begun: float
    until: float
    timeout_s: float
    again: Command | None
    about: Command
    beside: bool
    send_at: float | None
    data: bytes = b""
    is_sent: bool = False
    losses: int = 0


class Exchange:
    """Several commands under way over one channel; used by one thread.

    ``on_reply`` hears of every final reply, ``on_reset`` when the connection was made anew.
    ``has_keys``: the channel shows a key.
    """

    def __init__(
        self,
        address: str,
        channel: Channel,
        on_reply: Callable[[Command, ReplyMessage], None],
        on_reset: Callable[[], None],
        *,
        has_keys: bool,
    ) -> None:
        self.channel = channel
        self._address = address
        self._on_reply = on_reply
        self._on_reset = on_reset
        self._has_keys = has_keys
        self._flights: dict[str, _Flight] = {}
        self._answers: collections.deque[Answer] = collections.deque()
        self._heard = time.monotonic()

    def launch(
        self,
        command: Command,
        timeout_s: float,
        until: float | None = None,
        *,
        about: Command | None = None,
        beside: bool = False,
        data: bytes = b"",
    ) -> Sent:
        """Send ``command`` now, or as soon as there is a connection.

        ``until`` (monotonic, s) ends the wait sooner than ``timeout_s``, which the error names, as
        it does ``about`` instead of the command. Nobody is told of the answers to one ``beside``
        the others. ``data`` goes with it, in a frame of its own.
        """
        again: Command | None = None
        if isinstance(command, TriggerCommand):
            again = command.model_copy(update={"repeat": True})
        elif isinstance(command, StatusCommand | DeliveredCommand):
            # Others, such as start and stop, would undo what was ordered meanwhile.
            again = command
        now = time.monotonic()
        flight = _Flight(
            Sent(command),
            begun=now,
            until=now + timeout_s if until is None else until,
            timeout_s=timeout_s,
            again=again,
            about=about or command,
            beside=beside,
            send_at=now,
            data=data,
        )
        self._flights[command.id] = flight
        self._send_due(now)
        return flight.sent

    def is_under_way(self, kind: type[Command]) -> bool:
        """True while a command of this type waits for its final reply."""
        return any(isinstance(flight.sent.command, kind) for flight in self._flights.values())

    def wait(self, sent: Sent, on_acquired: Callable[[int], None] | None = None) -> ReplyMessage:
        """The final reply to ``sent``. Raises CommandError. Answers to other commands are kept."""
        flight = self._flights.get(sent.command.id)
        told = False
        try:
            while flight is not None and not sent.is_done:
                self.turn(flight.until)
                if on_acquired is not None and sent.acquired_us is not None and not told:
                    told = True
                    on_acquired(sent.acquired_us)
        finally:
            self._flights.pop(sent.command.id, None)
            kept = [one for one in self._answers if one.sent is not sent]
            self._answers = collections.deque(kept)
        return sent.result()

    def forget(self, sent: Sent) -> None:
        """Wait no more for ``sent``; its reply will be nobody's."""
        self._flights.pop(sent.command.id, None)

    def next_answer(self) -> Answer | None:
        """The oldest answer that was not handed out; None when there is none."""
        return self._answers.popleft() if self._answers else None

    def turn(self, until: float) -> None:
        """Send what is due and take one reply, or wait for the next of these.

        Returns at ``until`` (monotonic, s) at the latest, and when the channel was woken.
        """
        now = time.monotonic()
        self._send_due(now)
        flights = self._flights.values()
        dues = [flight.until for flight in flights]
        dues += [flight.send_at for flight in flights if flight.send_at is not None]
        try:
            reply = self.channel.receive(min([until, *dues]) - now)
        except WireError as error:
            # Nobody can say whose reply it was, so that all who wait are told.
            for flight in list(flights):
                self._end(flight, CommandError(f"{self._address}: {error}"), "unanswered")
            return
        if reply is not None:
            self._take(reply)
        else:
            self._end_lost()
        now = time.monotonic()
        late = [flight for flight in self._flights.values() if now >= flight.until]
        if late:
            self._give_up(late, now)

    def _send_due(self, now: float) -> None:
        for flight in self._flights.values():
            if flight.send_at is None or not flight.send_at <= now < flight.until:
                continue
            again = flight.again if flight.is_sent else None
            flight.losses = self.channel.losses
            if self.channel.send(flight.sent.command if again is None else again, flight.data):
                flight.is_sent = True
                flight.send_at = None if flight.again is None else now + REPEAT_S
            else:
                flight.send_at = now + PAUSE_S

    def _take(self, reply: ReplyMessage) -> None:
        """Note a reply with its command; one with an id that is not known is nobody's."""
        self._heard = time.monotonic()
        flight = self._flights.get(reply.id)
        if flight is None:
            return
        sent = flight.sent
        if reply.kind == "refused":
            command = sent.command.command
            text = f"{self._address}: refused {command}: {reply.code}: {reply.detail}"
            error = CommandError(text, reply.code, cause=reply.cause, detail=reply.detail)
            self._end(flight, error, "refused")
        elif reply.kind == "accepted":
            # What was sent again hears this, and the next, once for each time.
            if not sent.accepted:
                sent.accepted = True
                self._tell(flight, "accepted")
        elif reply.kind == "acquired":
            if sent.acquired_us is None:
                sent.acquired_us = reply.grabbed_us
                self._tell(flight, "acquired")
        else:
            del self._flights[reply.id]
            sent.reply = reply
            self._on_reply(sent.command, reply)
            self._tell(flight, reply.kind)

    def _end_lost(self) -> None:
        """The answer to what went out by a connection that broke will not come."""
        losses = self.channel.losses
        for flight in list(self._flights.values()):
            if flight.is_sent and flight.again is None and flight.losses < losses:
                text = (
                    f"{self._address}: the station went while {flight.about.command} waited for "
                    f"its answer; whether it was done, the station's status tells"
                )
                self._end(flight, CommandError(text), "unanswered")

    def _give_up(self, late: list[_Flight], now: float) -> None:
        """No answer came to these in time."""
        for flight in late:
            cause = (
                "is the station still running?"
                if flight.is_sent
                else why_silent(self._address, self._has_keys)
            )
            text = (
                f"{self._address}: no answer to {flight.about.command} in {flight.timeout_s:g} s; "
                f"{cause}"
            )
            self._end(flight, CommandError(text), "unanswered")
        if self._heard >= min(flight.begun for flight in late):
            # The station answers others.
            return
        # A command that lies in the connection must not go out later, when nobody wants it.
        self.channel.reset()
        self._on_reset()
        for flight in self._flights.values():
            if flight.again is not None:
                flight.send_at = now

    def _end(self, flight: _Flight, error: CommandError, kind: AnswerKind) -> None:
        del self._flights[flight.sent.command.id]
        flight.sent.error = error
        self._tell(flight, kind)

    def _tell(self, flight: _Flight, kind: AnswerKind) -> None:
        if not flight.beside:
            self._answers.append(Answer(flight.sent, kind))
