"""A bridge's connection to its station, in a thread of its own."""

from __future__ import annotations

import collections
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol

from inspector.bridges import codes
from inspector.bridges.fields import Action, Delivered, Order, Ticket, Trigger
from inspector.client import Answer, ClientKeys, Commander, Sent
from inspector.errors import CommandError
from inspector.logs import say
from inspector.threads import Worker
from inspector.wire.messages import (
    Command,
    DeliveredCommand,
    RecipeCommand,
    ReplayCommand,
    ReplyMessage,
    ResetCommand,
    StartCommand,
    StatusCommand,
    StatusMessage,
    StopCommand,
    VerdictMessage,
)

_POLLS: Final = 5
"""Questions for the status within the heartbeat's time; one is waited for half that time."""
_ORDER_S: Final = 120.0
_DELIVERED_S: Final = 30.0
_LATE_S: Final = 10.0
"""So long after a part's time its verdict is still waited for, to tell that it came too late."""

_REPLAY_S: Final = 5.0

Tell = Callable[[Callable[[], None]], None]
"""Has a function called in the thread of the handshakes."""


class Side(Protocol):
    """What hears the station's answers for one camera: its handshake, whatever the fieldbus."""

    def status(self, message: StatusMessage) -> None:
        """The station lives, and stands like this."""

    def station_gone(self) -> None:
        """The station cannot be reached."""

    def acquired(self, ticket: Ticket) -> None:
        """The picture of a trigger is taken."""

    def verdict(self, ticket: Ticket, message: VerdictMessage) -> None:
        """The verdict on the part of a trigger came."""

    def refused(self, ticket: Ticket) -> None:
        """The station refused a trigger."""

    def ordered(self, order: Order, done: bool) -> None:
        """The station has obeyed an order, or has not."""


@dataclass(eq=False)
class Question:
    """To do: ask the journal; ``answered`` hears the reply, or None, where the sides are told."""

    command: ReplayCommand
    answered: Callable[[ReplyMessage | None], None]


class StationLink(Worker):
    """Carries actions to the station, and what it says to the handshakes.

    The station is asked how it stands five times in ``heartbeat_s``. A question without an answer
    in half that time means that it is gone: killed, hung up, or behind a cut cable.
    """

    def __init__(
        self,
        address: str,
        keys: ClientKeys | None,
        handshakes: Mapping[str, Side],
        *,
        tell: Tell,
        heartbeat_s: float,
        result_timeout_s: float,
    ) -> None:
        super().__init__("station-link")
        self._commander = Commander(address, keys=keys, timeout_s=heartbeat_s)
        self._handshakes = handshakes
        self._tell = tell
        self._every_s = heartbeat_s / _POLLS
        self._patience_s = heartbeat_s / 2
        self._result_timeout_s = result_timeout_s
        self._waiting: collections.deque[tuple[str, Action | Question]] = collections.deque()
        self._under_way: dict[Sent, tuple[str, Action | Question]] = {}
        self._question: Sent | None = None
        self._ask_at = 0.0
        self._is_there = False
        self._ending = False

    def do(self, camera: str, action: Action | Question) -> None:
        """Have an action done; any thread may call."""
        self._waiting.append((camera, action))
        self._commander.wake()

    def finish(self) -> None:
        """End the connection, and wait for that."""
        self._ending = True
        self._commander.wake()
        if self.ident is not None:
            self.join()

    def work(self) -> None:
        """Ask, send, and hand on, until the end."""
        with self._commander as commander:
            while not self._ending:
                self._ask(commander)
                while self._waiting:
                    self._begin(commander, *self._waiting.popleft())
                left_s = self._ask_at - time.monotonic()
                answer = commander.receive(max(0.0, min(left_s, self._every_s)))
                if answer is not None:
                    self._take(answer)
            # What the PLC has acknowledged by now shall be known, if it can be told quickly.
            while self._waiting:
                self._begin(commander, *self._waiting.popleft())

    def _ask(self, commander: Commander) -> None:
        now = time.monotonic()
        if self._question is None and now >= self._ask_at:
            self._question = commander.send(StatusCommand(), self._patience_s)
            self._ask_at = now + self._every_s
        elif self._question is not None and now >= self._ask_at:
            self._ask_at = now + self._every_s

    def _begin(self, commander: Commander, camera: str, action: Action | Question) -> None:
        try:
            if isinstance(action, Trigger):
                sent = commander.send_trigger(
                    camera,
                    action.ticket.number,
                    action.part_id,
                    self._result_timeout_s + _LATE_S,
                    lot=action.lot,
                    session=action.ticket.session,
                )
            elif isinstance(action, Order):
                sent = commander.send(_command(action), _ORDER_S)
            elif isinstance(action, Question):
                sent = commander.send(action.command, _REPLAY_S)
            else:
                sent = commander.send(_outcome(action), _DELIVERED_S)
        except CommandError as error:
            self._refuse(camera, action, str(error))
            return
        self._under_way[sent] = camera, action

    def _take(self, answer: Answer) -> None:
        sent = answer.sent
        if sent is self._question:
            self._question = None
            self._take_status(sent)
            return
        camera, action = self._under_way[sent]
        handshake = self._handshakes[camera]
        # Its end may be known by the time that its beginning is handed out.
        if answer.kind not in {"accepted", "acquired"}:
            del self._under_way[sent]
        if answer.kind == "acquired" and isinstance(action, Trigger):
            self._tell(partial(handshake.acquired, action.ticket))
        elif answer.kind == "verdict" and isinstance(action, Trigger):
            if sent.verdict is not None:
                self._tell(partial(handshake.verdict, action.ticket, sent.verdict))
        elif answer.kind == "done" and isinstance(action, Order):
            self._tell(partial(handshake.ordered, action, True))
        elif answer.kind == "replayed" and isinstance(action, Question):
            self._tell(partial(action.answered, sent.reply))
        elif answer.kind in {"refused", "unanswered"}:
            self._refuse(camera, action, str(sent.error), answer.kind == "unanswered")

    def _take_status(self, sent: Sent) -> None:
        status = None if sent.reply is None else sent.reply.status
        if status is None:
            if self._is_there:
                self._is_there = False
                say("station gone", logging.WARNING, problem=str(sent.error or ""))
            for handshake in self._handshakes.values():
                self._tell(handshake.station_gone)
            return
        if not self._is_there:
            self._is_there = True
            say("station there", state=status.state, epoch=status.epoch)
            known = {camera.name for camera in status.cameras}
            for name in sorted(set(self._handshakes) - known):
                say("camera unknown", logging.ERROR, camera=name, known=",".join(sorted(known)))
        for handshake in self._handshakes.values():
            self._tell(partial(handshake.status, status))

    def _refuse(
        self, camera: str, action: Action | Question, problem: str, is_unanswered: bool = False
    ) -> None:
        say("not done", logging.WARNING, camera=camera, what=_name(action), problem=problem)
        handshake = self._handshakes[camera]
        if isinstance(action, Question):
            self._tell(partial(action.answered, None))
        elif isinstance(action, Order):
            self._tell(partial(handshake.ordered, action, False))
        elif isinstance(action, Trigger) and not is_unanswered:
            self._tell(partial(handshake.refused, action.ticket))


def _command(order: Order) -> Command:
    """The station's command that a PLC's stands for."""
    match order.command:
        case codes.Command.START:
            return StartCommand()
        case codes.Command.STOP:
            return StopCommand()
        case codes.Command.RESET:
            return ResetCommand()
        case _:
            return RecipeCommand(recipe=order.recipe)


def _outcome(action: Delivered) -> DeliveredCommand:
    return DeliveredCommand(
        epoch=action.origin.epoch,
        seq=action.origin.seq,
        outcome=action.outcome,
        at_us=time.time_ns() // 1000,
    )


def _name(action: Action | Question) -> str:
    if isinstance(action, Question):
        return "replay"
    if isinstance(action, Order):
        return action.command.name.lower()
    return "trigger" if isinstance(action, Trigger) else "delivered"
