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

_RELOAD_S: Final = 120.0


class Commander(Connection):
    """Sends commands to one station; a context manager, for one thread.

    The station knows a trigger by session, number and part, however often it is sent. So trigger
    numbers (``trigger_seq``) may begin anew only in another ``session``; the default is a new one
    for each ``Commander``. Every command raises :class:`CommandError` when the station refuses it
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

    def close(self) -> None:
        """Close the connection; may be called more than once."""
        super().close()
        self._channel = None

    def trigger(
        self, camera: str, trigger_seq: int, part_id: str = "", timeout_s: float | None = None
    ) -> VerdictMessage:
        """Have the part before ``camera`` judged, and wait for its verdict.

        Until there is an answer the trigger is sent again, which makes no second part; after a
        CommandError the caller may send it again as well.
        """
        with _in_words():
            command = TriggerCommand(
                id=new_id(),
                camera=camera,
                session=self.session,
                trigger_seq=trigger_seq,
                part_id=part_id,
            )
        reply = self._ask(command, self._timeout_s if timeout_s is None else timeout_s, True)
        if reply.verdict is None:
            raise self._wrong(command, reply)
        return reply.verdict

    def status(self) -> StatusMessage:
        """The station's status now."""
        reply = self._ask(StatusCommand(id=new_id()), self._timeout_s, True)
        if reply.status is None:
            raise self._wrong(StatusCommand(), reply)
        return reply.status

    def recipe(self, name: str, timeout_s: float = _RELOAD_S) -> str:
        """Have the station judge by another recipe; returns what it says about that."""
        with _in_words():
            command = RecipeCommand(id=new_id(), recipe=name)
        return self._ask(command, timeout_s, False).detail

    def reload(self, timeout_s: float = _RELOAD_S) -> str:
        """Have it read its bundles again, and acknowledge a missed self-test; returns its words."""
        return self._ask(ReloadCommand(id=new_id()), timeout_s, False).detail

    def _ask(self, command: Command, timeout_s: float, repeat: bool) -> ReplyMessage:
        """Send ``command`` and return the final reply, not an ``accepted``. Raises CommandError.

        ``repeat``: send it again while there is no answer.
        """
        if self._channel is None:
            raise ValueError("use it as a context manager")
        now = time.monotonic()
        deadline, send_at, sent = now + timeout_s, now, False
        while now < deadline:
            if now >= send_at and (repeat or not sent):
                delivered = self._channel.send(command)
                sent = sent or delivered
                send_at = now + (REPEAT_S if delivered else PAUSE_S)
            wake_at = deadline if sent and not repeat else min(send_at, deadline)
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
        cause = (
            "is the station still running?"
            if sent
            else "is the station running, and does it know this key?"
        )
        raise CommandError(
            f"{self._address}: no answer to {command.command} in {timeout_s:g} s; {cause}"
        )

    def _connect(self, context: zmq.Context[zmq.Socket[bytes]]) -> None:
        self._channel = Channel(context, self._address, self._keys)
        self._open.callback(self._channel.close)

    def _wrong(self, command: Command, reply: ReplyMessage) -> CommandError:
        return CommandError(f"{self._address}: answered {command.command} with {reply.kind}")


@contextlib.contextmanager
def _in_words() -> Iterator[None]:
    """Turn the error of a command that the wire format does not allow into a CommandError."""
    try:
        yield
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise CommandError(f"{field} {first['input']!r}: {first['msg']}", "malformed") from None
