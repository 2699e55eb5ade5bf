"""Receive what a station publishes, complete and in order, and send it commands."""

from __future__ import annotations

import collections
import contextlib
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Final

import zmq
from pydantic import ValidationError

from inspector.channel import LARGEST_MESSAGE, Channel, beat, dial
from inspector.errors import CommandError, WireError
from inspector.frame import decode as decode_picture
from inspector.refill import Gap, Progress, Refill
from inspector.security import ClientKeys, configure_client
from inspector.verdict import Frame8, Reason
from inspector.wire import (
    Command,
    HeatmapMessage,
    RecipeCommand,
    ReloadCommand,
    ReplyMessage,
    StatusCommand,
    StatusMessage,
    TriggerCommand,
    VerdictMessage,
    decode,
    topic,
)

__all__ = ["COMMANDS", "IMAGES", "VERDICTS", "Commander", "Gap", "Heatmap", "Item", "Subscriber"]

VERDICTS: Final = "tcp://127.0.0.1:5555"
IMAGES: Final = "tcp://127.0.0.1:5556"
COMMANDS: Final = "tcp://127.0.0.1:5557"

_LARGEST_PICTURE: Final = 32 << 20
_POLL_MS: Final = 200
_REPEAT_S: Final = 1.0
_PAUSE_S: Final = 0.05
_TAIL_S: Final = 2.0
_SHORT_PATIENCE_S: Final = 1.0
_RELOAD_S: Final = 120.0


@dataclass(frozen=True)
class Heatmap:
    """A part's heatmap and picture.

    ``map``: uint8 ``[h, w]``, 128 is the limit; ``picture``: uint8 BGR ``[h, w, 3]``, the judged
    region as the network saw it; ``png`` and ``jpeg`` are the two as they were sent.
    """

    message: HeatmapMessage
    map: Frame8
    picture: Frame8
    png: bytes
    jpeg: bytes


Item = VerdictMessage | Heatmap | StatusMessage | Gap


class Subscriber:
    """A subscription to one station, or to all that publish at the address (``station=""``).

    Use it as a context manager and iterate; used by one thread. It begins with the first message
    that arrives: with ``from_start`` the whole epoch is due, with ``since_us`` (µs since the Unix
    epoch) all that was judged from that moment on, with ``after=(epoch, seq)`` all that followed
    that verdict (seq 0: the whole epoch).

    With ``commands``, the command socket of the station, verdicts that did not arrive are fetched
    from its journal, and every verdict comes once and in order, over any loss of connection and
    any restart of the station; meanwhile nothing else is handed on, and ZeroMQ's own queue keeps
    what comes. A :class:`Gap` is then what the journal has not, or could not be asked for in
    ``patience_s``; so long, too, a station in trouble may take to record what it published.
    Without, every loss is a :class:`Gap` at once.
    """

    def __init__(
        self,
        verdicts: str = VERDICTS,
        images: str | None = None,
        station: str = "",
        *,
        from_start: bool = False,
        commands: str | None = None,
        since_us: int | None = None,
        after: tuple[str, int] | None = None,
        patience_s: float = 30.0,
        keys: ClientKeys | None = None,
    ) -> None:
        if commands is None and (since_us is not None or after is not None):
            raise ValueError("since_us and after need the address of the command socket")
        self._addresses = {"verdicts": verdicts} | ({"images": images} if images else {})
        self._commands = commands
        self._station = station
        self._from_start = from_start
        self._since_us = since_us
        self._after = after
        self._patience_s = patience_s
        self._patient = True
        self._keys = keys
        self._progress: dict[str, Progress] = {}
        self._rumours: dict[str, dict[str, None]] = {}
        self._ready: collections.deque[Item] = collections.deque()
        self._filling: _Filling | None = None
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None
        self._sockets: list[zmq.Socket[bytes]] = []
        self._poller = zmq.Poller()
        self._channel: Channel | None = None

    def __enter__(self) -> Subscriber:
        self._context = zmq.Context()
        try:
            verdicts = self._connect("verdicts", LARGEST_MESSAGE, high_water=100_000)
            verdicts.subscribe(topic("verdict", self._station))
            verdicts.subscribe(topic("status", self._station))
            if "images" in self._addresses:
                images = self._connect("images", _LARGEST_PICTURE, high_water=100)
                images.subscribe(topic("heatmap", self._station))
            if self._commands is not None:
                self._channel = Channel(self._context, self._commands, self._keys)
        except WireError:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[Item]:
        """Items as they come, for ever. Raises :class:`WireError` for a message that is none.

        That message is gone: iterate again, or call ``receive`` again, to go on after it.
        """
        while True:
            item = self.receive(_POLL_MS)
            if item is not None:
                yield item

    def receive(self, timeout_ms: int) -> Item | None:
        """The next item, None when none came in time. Raises :class:`WireError`."""
        deadline = time.monotonic() + timeout_ms / 1000
        while not self._ready:
            left_s = max(0.0, deadline - time.monotonic())
            if self._filling is not None:
                self._fill(self._filling, left_s)
            elif readable := dict(self._poller.poll(round(left_s * 1000))):
                # Verdicts first: they are small, and what the line waits for.
                socket = next(socket for socket in self._sockets if socket in readable)
                self._accept(socket.recv_multipart())
            if not self._ready and time.monotonic() >= deadline:
                return None
        return self._ready.popleft()

    def close(self) -> None:
        """End the subscription; may be called more than once."""
        for socket in self._sockets:
            self._poller.unregister(socket)
            socket.close(linger=0)
        self._sockets.clear()
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        if self._context is not None:
            self._context.term()
            self._context = None

    def _connect(self, which: str, largest: int, high_water: int) -> zmq.Socket[bytes]:
        assert self._context is not None
        socket = self._context.socket(zmq.SUB)
        self._sockets.append(socket)
        self._poller.register(socket, zmq.POLLIN)
        socket.set_hwm(high_water)
        socket.setsockopt(zmq.MAXMSGSIZE, largest)
        configure_client(socket, self._keys)
        if self._commands is not None:
            # A connection that was cut in silence is made anew; what it lost is fetched.
            beat(socket)
        dial(socket, self._addresses[which])
        return socket

    def _accept(self, frames: list[bytes]) -> None:
        message = decode(frames)
        if isinstance(message, HeatmapMessage):
            self._ready.append(_heatmap(message, frames[2], frames[3]))
            return
        station, epoch = message.station, message.epoch
        if isinstance(message, StatusMessage) and message.unrecorded:
            if station not in self._progress:
                self._rumours.setdefault(station, {})[epoch] = None
            self._ready.append(message)
            return
        # Up to here, everything must have been handed on before this message is.
        due = message.seq - 1 if isinstance(message, VerdictMessage) else message.last_seq
        since_us = None
        progress = self._progress.get(station)
        if progress is None:
            progress = self._progress[station] = Progress()
            since_us = self._since_us
            if self._after is not None:
                progress.turn_to(self._after[0])
                progress.reach(self._after[1])
            elif since_us is None and station in self._rumours:
                progress.begin_with(self._rumours.pop(station))
            elif since_us is None:
                progress.turn_to(epoch)
                progress.reach(0 if self._from_start else due)
        if self._channel is None or (epoch in progress and since_us is None):
            progress.turn_to(epoch)
        refill = Refill(progress, station, epoch, due, since_us)
        if refill.done:
            self._hand_on(message)
        elif self._channel is None:
            self._ready.extend(refill.give_up())
            self._hand_on(message)
        else:
            self._filling = _Filling(refill, message, self._patience())

    def _hand_on(self, message: VerdictMessage | StatusMessage) -> None:
        if isinstance(message, VerdictMessage):
            progress = self._progress[message.station]
            if message.seq <= progress.last:
                return
            progress.reach(message.seq)
        self._ready.append(message)

    def _patience(self) -> float:
        """Until when a refill may go without an answer (monotonic, s)."""
        # Who has waited in vain waits no longer for each of the next gaps.
        return time.monotonic() + (self._patience_s if self._patient else _SHORT_PATIENCE_S)

    def _fill(self, filling: _Filling, timeout_s: float) -> None:
        """Ask, or take the answer, or give up; at most ``timeout_s``."""
        assert self._channel is not None
        for socket in self._sockets:
            # ZeroMQ subscribes anew, after a cut, only within a call of its user.
            socket.getsockopt(zmq.EVENTS)
        now = time.monotonic()
        refill = filling.refill
        if now >= filling.give_up_at:
            self._patient = False
            self._ready.extend(refill.give_up())
        elif now >= filling.ask_at:
            asked = self._channel.send(filling.question())
            filling.ask_at = now + (_REPEAT_S if asked else _PAUSE_S)
        else:
            wait_s = min(filling.ask_at, filling.give_up_at) - now
            try:
                reply = self._channel.receive(min(timeout_s, wait_s))
            except WireError:
                reply = None
                self._ready.extend(refill.give_up())
            if reply is not None and reply.id == filling.id:
                self._take(filling, reply)
        if refill.done:
            self._filling = None
            self._hand_on(filling.held)

    def _take(self, filling: _Filling, reply: ReplyMessage) -> None:
        now = time.monotonic()
        filling.ask_at = now + _PAUSE_S
        if reply.status is not None:
            filling.in_trouble = bool(reply.status.trouble)
        else:
            before = filling.refill.question(filling.id)
            self._ready.extend(filling.refill.take(reply))
            if filling.refill.question(filling.id) != before:
                self._patient = True
                filling.ask_at, filling.id = now, _new_id()
                filling.give_up_at = filling.patient_until = self._patience()
                return
            if reply.code == "busy":
                self._patient = True
                return
            filling.in_doubt = True
        if filling.in_trouble or filling.unrecorded:
            filling.give_up_at = filling.patient_until
        else:
            # Recorded before it is published: what is not there now soon is, or never.
            filling.give_up_at = min(filling.give_up_at, now + _TAIL_S)


@dataclass
class _Filling:
    """A refill that goes on, and the message that waits for its end. Times: monotonic, s."""

    refill: Refill
    held: VerdictMessage | StatusMessage
    patient_until: float
    ask_at: float = 0.0
    in_doubt: bool = False
    """The journal has not what is missing: next, ask why."""
    in_trouble: bool = False
    """The station said so; its journal may have it once that is over."""

    def __post_init__(self) -> None:
        self.id = _new_id()
        self.give_up_at = self.patient_until
        self.in_trouble = isinstance(self.held, StatusMessage) and bool(self.held.trouble)

    @property
    def unrecorded(self) -> bool:
        """The verdict that waits was published before the journal had it, as those missing were."""
        return (
            isinstance(self.held, VerdictMessage)
            and self.held.reason == Reason.JOURNAL_FAILED.value
        )

    def question(self) -> Command:
        """What to ask now: the journal, and the station each time that had nothing."""
        if self.in_doubt:
            self.in_doubt = False
            return StatusCommand(id=self.id)
        return self.refill.question(self.id)


class Commander:
    """Commands to one station; a context manager, used by one thread.

    ``session`` names the run of the trigger numbers (``trigger_seq``), which begin anew in
    another: one trigger is known by session, number and part, however often it is sent. Default: a
    new one each time. Every method raises :class:`CommandError` when the station refuses, or has
    not answered in time; ``code`` is then that of docs/wire.md, or "".
    """

    def __init__(
        self,
        address: str = COMMANDS,
        *,
        session: str | None = None,
        timeout_s: float = 10.0,
        keys: ClientKeys | None = None,
    ) -> None:
        self.session = str(uuid.uuid4()) if session is None else session
        self._address = address
        self._timeout_s = timeout_s
        self._keys = keys
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None
        self._channel: Channel | None = None

    def __enter__(self) -> Commander:
        self._context = zmq.Context()
        try:
            self._channel = Channel(self._context, self._address, self._keys)
        except WireError:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End; may be called more than once."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        if self._context is not None:
            self._context.term()
            self._context = None

    def trigger(
        self, camera: str, trigger_seq: int, part_id: str = "", timeout_s: float | None = None
    ) -> VerdictMessage:
        """Have the part before ``camera`` judged, and wait for its verdict.

        Without an answer it is sent again, which makes no second part of it; so may the caller.
        """
        with _in_words():
            command = TriggerCommand(
                id=_new_id(),
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
        """The station as it stands."""
        reply = self._ask(StatusCommand(id=_new_id()), self._timeout_s, True)
        if reply.status is None:
            raise self._wrong(StatusCommand(), reply)
        return reply.status

    def recipe(self, name: str, timeout_s: float = _RELOAD_S) -> str:
        """Have the station judge by another recipe; what it says of it."""
        with _in_words():
            command = RecipeCommand(id=_new_id(), recipe=name)
        return self._ask(command, timeout_s, False).detail

    def reload(self, timeout_s: float = _RELOAD_S) -> str:
        """Have it read its bundles again, and acknowledge a missed self-test; what it says."""
        return self._ask(ReloadCommand(id=_new_id()), timeout_s, False).detail

    def _ask(self, command: Command, timeout_s: float, repeat: bool) -> ReplyMessage:
        """The final reply. Raises CommandError."""
        if self._channel is None:
            raise ValueError("use it as a context manager")
        now = time.monotonic()
        deadline, send_at, sent = now + timeout_s, now, False
        while now < deadline:
            if now >= send_at and (repeat or not sent):
                delivered = self._channel.send(command)
                sent = sent or delivered
                send_at = now + (_REPEAT_S if delivered else _PAUSE_S)
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
        # A late answer, or a command not sent yet, must not come into the next one's time.
        self._channel.reset()
        cause = (
            "is the station still running?"
            if sent
            else "is the station running, and does it know this key?"
        )
        raise CommandError(
            f"{self._address}: no answer to {command.command} in {timeout_s:g} s; {cause}"
        )

    def _wrong(self, command: Command, reply: ReplyMessage) -> CommandError:
        return CommandError(f"{self._address}: answered {command.command} with {reply.kind}")


@contextlib.contextmanager
def _in_words() -> Iterator[None]:
    """Make a command that cannot be written a CommandError of one line."""
    try:
        yield
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise CommandError(f"{field} {first['input']!r}: {first['msg']}", "malformed") from None


def _new_id() -> str:
    return uuid.uuid4().hex


def _heatmap(message: HeatmapMessage, png: bytes, jpeg: bytes) -> Heatmap:
    try:
        if not png or not jpeg:
            raise ValueError("an empty picture")
        heat, picture = decode_picture(png), decode_picture(jpeg)
    except ValueError as error:
        raise WireError(f"received heatmap {message.seq} of '{message.station}': {error}") from None
    size = (message.height, message.width)
    if heat.shape != size or picture.shape != (*size, 3):
        raise WireError(
            f"received heatmap {message.seq} of '{message.station}' of another size than it says"
        )
    return Heatmap(message, heat, picture, png, jpeg)
