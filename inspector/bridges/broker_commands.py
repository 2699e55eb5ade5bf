"""Commands that come by a broker, and the station's answers to them."""

from __future__ import annotations

import collections
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from inspector.client import Answer, ClientKeys, Commander, Sent
from inspector.config.mqtt_bridge import Commands
from inspector.errors import CommandError, WireError
from inspector.logs import say
from inspector.threads import Worker
from inspector.wire.messages import (
    Command,
    RecipeCommand,
    ReplyMessage,
    TriggerCommand,
    decode_command,
)

_MOST: Final = 100
"""Commands under way; one more is refused."""
_TRIGGER_S: Final = 30.0
_RECIPE_S: Final = 120.0


@dataclass(frozen=True)
class Sender:
    """Where the answers to a command go: a topic, and what names the command to its sender."""

    topic: str
    correlation: bytes | None


Tell = Callable[[Sender, ReplyMessage], None]


class CommandDesk(Worker):
    """Hands commands to the station and answers to ``tell``, which it calls in its own thread."""

    def __init__(
        self, address: str, keys: ClientKeys | None, allowed: Commands, tell: Tell
    ) -> None:
        super().__init__("broker-commands")
        self._commander = Commander(address, keys=keys, timeout_s=_TRIGGER_S)
        self._allowed = allowed
        self._tell = tell
        self._waiting: collections.deque[tuple[Sender, Command]] = collections.deque()
        self._under_way: dict[Sent, tuple[Sender, str]] = {}
        self._ending = False

    def take(self, sender: Sender, payload: bytes, is_retained: bool) -> None:
        """A command has come; any one thread may call."""
        try:
            command = decode_command(payload)
        except WireError as error:
            self._refuse(sender, "", "malformed", str(error))
            return
        allowed = (isinstance(command, TriggerCommand) and self._allowed.trigger) or (
            isinstance(command, RecipeCommand) and self._allowed.recipe
        )
        if not allowed:
            self._refuse(
                sender, command.id, "forbidden", f"the bridge's file allows no {command.command}"
            )
        elif is_retained:
            # The broker would hand it out again at every start, for a part that is long gone.
            self._refuse(sender, command.id, "expired", "a command must not be retained")
        elif len(self._under_way) + len(self._waiting) >= _MOST:
            self._refuse(sender, command.id, "busy", f"{_MOST} commands are under way")
        else:
            self._waiting.append((sender, command))
            self._commander.wake()

    def finish(self) -> None:
        """End, and wait for that."""
        self._ending = True
        self._commander.wake()
        if self.ident is not None:
            self.join()

    def work(self) -> None:
        """Send, and hand on the answers, until the end."""
        with self._commander as commander:
            while not self._ending:
                while self._waiting:
                    self._begin(commander, *self._waiting.popleft())
                answer = commander.receive(0.5)
                if answer is not None:
                    self._answer(answer)

    def _begin(self, commander: Commander, sender: Sender, command: Command) -> None:
        timeout_s = _TRIGGER_S if isinstance(command, TriggerCommand) else _RECIPE_S
        try:
            sent = commander.send(command, timeout_s)
        except CommandError as error:
            self._refuse(sender, command.id, error.code, str(error))
            return
        self._under_way[sent] = sender, command.id

    def _answer(self, answer: Answer) -> None:
        sent = answer.sent
        sender, name = self._under_way[sent]
        if answer.kind in {"accepted", "acquired"}:
            told = {"id": name, "kind": answer.kind, "grabbed_us": sent.acquired_us}
            self._tell(sender, ReplyMessage.model_validate(told))
            return
        del self._under_way[sent]
        if sent.reply is not None:
            self._tell(sender, sent.reply.model_copy(update={"id": name}))
        elif sent.error is not None:
            self._refuse(sender, name, sent.error.code, str(sent.error))

    def _refuse(self, sender: Sender, name: str, code: str, detail: str) -> None:
        say("command refused", logging.WARNING, code=code, problem=detail)
        told = {"id": name, "kind": "refused", "code": code, "detail": detail}
        self._tell(sender, ReplyMessage.model_validate(told))
