"""Send commands to a station: trigger, status, recipe, reload."""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Iterator
from typing import Final

import zmq
from pydantic import ValidationError

from inspector.client.connection import (
    PAUSE_S,
    REPEAT_S,
    Channel,
    Connection,
    new_id,
)
from inspector.client.keys import ClientKeys
from inspector.config.addresses import COMMANDS
from inspector.errors import CommandError, WireError
from inspector.wire.messages import (
    Command,
    RecipeCommand,
    ReloadCommand,
    ReplyMessage,
    StatusCommand,
    StatusMessage,
    TriggerCommand,
    VerdictMessage,
)
from inspector.wire.wording import wrong_field

_RELOAD_S: Final = 120.0
_ENTER_S: Final = 1.0
_MEASURE_S: Final = 60.0
"""How often the station measures this side's clock, which drifts by some ms meanwhile."""


class Commander(Connection):
    """Sends commands to one station; a context manager, for one thread.

    The station knows a trigger by session, number and part. So trigger numbers (``trigger_seq``)
    may begin anew only in another ``session``; the default is a new one for each ``Commander``.
    Every trigger tells when it was called for, so that the station takes no picture of a part that
    has gone by; so enter it before the first part comes, which waits for the station for a second
    at most. Every command raises :class:`CommandError` when the station refuses it
    or does not answer in time; its ``code`` is the refusal's (docs/wire.md), or "".
    """

    def __init__(
        self,
        address: str = COMMANDS,
        *,
        session: str | None = None,
        timeout_s: float = 10.0,
        keys: ClientKeys | None = None,
    ) -> None:
        super().__init__()
        self.session = str(uuid.uuid4()) if session is None else session
        self._address = address
        self._timeout_s = timeout_s
        self._keys = keys
        self._channel: Channel | None = None
        # Wall time at first, but it goes on without a jump when somebody sets the clock.
        self._clock_us = (time.time_ns() - time.monotonic_ns()) // 1000
        self._measured_s: float | None = None
        """When (monotonic) this clock was measured last; None: not by the station at work."""
        self._answered_us: int | None = None
        self._epoch = ""
        self._called: tuple[tuple[str, int, str] | None, int] = None, 0
        """The last trigger that was not a repetition, and when it was called for."""

    def close(self) -> None:
        """Close the connection; may be called more than once."""
        super().close()
        self._channel = None

    def trigger(
        self,
        camera: str,
        trigger_seq: int,
        part_id: str = "",
        timeout_s: float | None = None,
        *,
        repeat: bool = False,
    ) -> VerdictMessage:
        """Have the part before ``camera`` judged, and wait for its verdict.

        Until there is an answer the trigger is sent again as a repetition, which makes no second
        part. After a CommandError the caller may do the same with ``repeat``; a verdict that the
        part had already then comes with ``repeated`` set: it is a record, no permission to pass.
        """
        timeout_s = self._timeout_s if timeout_s is None else timeout_s
        called_us, until = self._now_us(), time.monotonic() + timeout_s
        with _in_words():
            command = TriggerCommand(
                id=new_id(),
                camera=camera,
                session=self.session,
                trigger_seq=trigger_seq,
                part_id=part_id,
                repeat=repeat,
            )
        key = camera, trigger_seq, part_id
        if not repeat:
            self._called = key, called_us
        # Another object's trigger may be repeated, whose time is not known here.
        sent_us = self._called[1] if self._called[0] == key else None
        command = command.model_copy(update={"sent_us": sent_us})
        if self._measured_s is None or time.monotonic() > self._measured_s + _MEASURE_S:
            self._have_clock_measured(timeout_s, until, about=command)
        again = command.model_copy(update={"repeat": True})
        reply = self._ask(command, timeout_s, again, until)
        if reply.verdict is None:
            raise self._wrong(command, reply)
        if reply.verdict.epoch != self._epoch:
            # A station that was started again has measured nothing yet.
            self._epoch, self._measured_s = reply.verdict.epoch, None
        return reply.verdict

    def status(self) -> StatusMessage:
        """The station's status now."""
        command = self._question()
        reply = self._ask(command, self._timeout_s, command)
        if reply.status is None:
            raise self._wrong(command, reply)
        self._answered_us = self._now_us()
        return reply.status

    def recipe(self, name: str, timeout_s: float = _RELOAD_S) -> str:
        """Have the station judge by another recipe; returns what it says about that."""
        with _in_words():
            command = RecipeCommand(id=new_id(), recipe=name)
        return self._ask(command, timeout_s).detail

    def reload(self, timeout_s: float = _RELOAD_S) -> str:
        """Have it read its bundles again, and acknowledge a missed self-test; returns its words."""
        return self._ask(ReloadCommand(id=new_id()), timeout_s).detail

    def _now_us(self) -> int:
        return self._clock_us + time.monotonic_ns() // 1000

    def _question(self) -> StatusCommand:
        """The next status command, which has the station measure this side's clock."""
        return StatusCommand(id=new_id(), sent_us=self._now_us(), answered_us=self._answered_us)

    def _have_clock_measured(
        self, timeout_s: float, until: float | None = None, about: Command | None = None
    ) -> None:
        """Make two round trips, and tell the station how long they took. Raises CommandError.

        The first may have waited for the connection. ``about`` is what waits for this, which the
        error names.
        """
        for _ in range(3):
            question = self._question()
            reply = self._ask(question, timeout_s, question, until, about=about)
            self._answered_us = self._now_us()
            if reply.status is not None:
                self._epoch = reply.status.epoch
        self._measured_s = time.monotonic()

    def _ask(
        self,
        command: Command,
        timeout_s: float,
        again: Command | None = None,
        until: float | None = None,
        *,
        about: Command | None = None,
    ) -> ReplyMessage:
        """Send ``command`` and return the final reply, not an ``accepted``. Raises CommandError.

        ``again`` is sent while there is no answer, None: nothing is. ``until`` (monotonic, s) ends
        the wait sooner than ``timeout_s``, which the error names, as it does ``about``.
        """
        if self._channel is None:
            raise ValueError("use it as a context manager")
        now = time.monotonic()
        deadline, send_at, sent = now + timeout_s if until is None else until, now, False
        while now < deadline:
            if now >= send_at and (again is not None or not sent):
                delivered = self._channel.send(again if sent and again is not None else command)
                sent = sent or delivered
                send_at = now + (REPEAT_S if delivered else PAUSE_S)
            wake_at = deadline if sent and again is None else min(send_at, deadline)
            try:
                reply = self._channel.receive(wake_at - time.monotonic())
            except WireError as error:
                raise CommandError(f"{self._address}: {error}") from None
            if reply is not None and reply.id == command.id:
                if reply.kind == "refused":
                    raise CommandError(
                        f"{self._address}: refused {command.command}: {reply.code}: {reply.detail}",
                        reply.code,
                    )
                if reply.kind != "accepted":
                    return reply
            now = time.monotonic()
        # A late answer must not reach the next command, and an unsent command must not go out then.
        self._channel.reset()
        self._measured_s = self._answered_us = None
        cause = (
            "is the station still running?"
            if sent
            else "is the station running, and does it know this key?"
        )
        raise CommandError(
            f"{self._address}: no answer to {(about or command).command} in {timeout_s:g} s; "
            f"{cause}"
        )

    def _connect(self, context: zmq.Context[zmq.Socket[bytes]]) -> None:
        self._channel = Channel(context, self._address, self._keys)
        self._open.callback(self._channel.close)
        # The first trigger shall not have to wait for this; a station that is down is no error yet.
        with contextlib.suppress(CommandError):
            self._have_clock_measured(min(_ENTER_S, self._timeout_s))

    def _wrong(self, command: Command, reply: ReplyMessage) -> CommandError:
        return CommandError(f"{self._address}: answered {command.command} with {reply.kind}")


@contextlib.contextmanager
def _in_words() -> Iterator[None]:
    """Turn the error of a command that the wire format does not allow into a CommandError."""
    try:
        yield
    except ValidationError as error:
        raise CommandError(" ".join(wrong_field(error)), "malformed") from None
