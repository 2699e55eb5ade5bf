"""Receive what a station publishes, complete and in order."""

from __future__ import annotations

import collections
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

import zmq

from inspector.client.connection import (
    LARGEST_MESSAGE,
    PAUSE_S,
    REPEAT_S,
    Channel,
    Connection,
    beat,
    dial,
    new_id,
)
from inspector.client.keys import ClientKeys, configure_client
from inspector.client.refill import Gap, Progress, Refill
from inspector.config.addresses import VERDICTS
from inspector.errors import WireError
from inspector.imaging.images import decode as decode_picture
from inspector.verdict import Frame8, Reason
from inspector.wire.messages import (
    Command,
    HeatmapMessage,
    ReplyMessage,
    StatusCommand,
    StatusMessage,
    VerdictMessage,
    decode,
    topic,
)

_LARGEST_PICTURE: Final = 32 << 20
_POLL_MS: Final = 200
_TAIL_S: Final = 2.0
"""Time after which the journal of a sound station has what it will ever have."""
_SHORT_PATIENCE_S: Final = 1.0
"""``patience_s`` after a refill was given up, until the journal answers again."""


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


class Subscriber(Connection):
    """A subscription to one station, or to all that publish at the address (``station=""``).

    Use it as a context manager, in one thread, and iterate over it. It hands on every verdict from
    the first message that arrives. Earlier ones are due with ``from_start``: the whole epoch; with
    ``since_us`` (µs since the Unix epoch): all that were judged at that time or later; with
    ``after=(epoch, seq)``: all that followed that verdict, seq 0 for the whole epoch.

    With ``commands``, the address of the station's command socket, verdicts that did not arrive are
    fetched from its journal. So every verdict comes once and in order, over any loss of connection
    and any restart of the station. Until a verdict was fetched nothing else is handed on; ZeroMQ
    queues what arrives. A :class:`Gap` then means that the journal lacks the verdicts, or did not
    answer within ``patience_s``, or that a station in trouble did not record them in that time.
    Without ``commands`` every loss is a :class:`Gap` at once.

    ``queued`` messages at most wait in memory while the reader is slow; what is more is lost, and
    so fetched from the journal.
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
        queued: int = 100_000,
        keys: ClientKeys | None = None,
    ) -> None:
        if commands is None and (since_us is not None or after is not None):
            raise ValueError("since_us and after need the address of the command socket")
        super().__init__()
        self._addresses = {"verdicts": verdicts} | ({"images": images} if images else {})
        self._commands = commands
        self._station = station
        self._from_start = from_start
        self._since_us = since_us
        self._after = after
        self._patience_s = patience_s
        self._queued = queued
        self._patient = True
        self._keys = keys
        self._progress: dict[str, Progress] = {}
        self._unrecorded: dict[str, dict[str, None]] = {}
        self._ready: collections.deque[tuple[Item, bool]] = collections.deque()
        """What is to be handed out, and whether it is a record."""
        self._is_record = False
        self._filling: _Filling | None = None
        self._sockets: list[zmq.Socket[bytes]] = []
        self._poller = zmq.Poller()
        self._channel: Channel | None = None

    def __iter__(self) -> Iterator[Item]:
        """Items as they come, for ever. Raises :class:`WireError` for one that cannot be read.

        That message is dropped: iterate again, or call ``receive`` again, to go on after it.
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
                # Verdicts come before images: they are small, and the line waits for them. One may
                # have come together with its image after its socket was looked at.
                first = self._sockets[0]
                if first not in readable and first.poll(0):
                    readable[first] = zmq.POLLIN
                socket = next(socket for socket in self._sockets if socket in readable)
                self._accept(socket.recv_multipart())
            if not self._ready and time.monotonic() >= deadline:
                return None
        item, self._is_record = self._ready.popleft()
        return item

    @property
    def is_record(self) -> bool:
        """True when the item that was handed out last is a record, no permission to pass.

        It was fetched from the journal, or waited for what was. What was published while its reader
        was busy with something else is no record, and may be old all the same.
        """
        return self._is_record

    def close(self) -> None:
        """End the subscription; may be called more than once."""
        super().close()
        self._poller = zmq.Poller()
        self._sockets.clear()
        self._channel = None

    def _connect(self, context: zmq.Context[zmq.Socket[bytes]]) -> None:
        verdicts = self._subscribe(context, "verdicts", LARGEST_MESSAGE, self._queued)
        verdicts.subscribe(topic("verdict", self._station))
        verdicts.subscribe(topic("status", self._station))
        if "images" in self._addresses:
            images = self._subscribe(context, "images", _LARGEST_PICTURE, high_water=100)
            images.subscribe(topic("heatmap", self._station))
        if self._commands is not None:
            self._channel = Channel(context, self._commands, self._keys)
            self._open.callback(self._channel.close)

    def _subscribe(
        self, context: zmq.Context[zmq.Socket[bytes]], which: str, largest: int, high_water: int
    ) -> zmq.Socket[bytes]:
        socket = context.socket(zmq.SUB)
        self._open.callback(socket.close, linger=0)
        self._sockets.append(socket)
        self._poller.register(socket, zmq.POLLIN)
        socket.set_hwm(high_water)
        socket.setsockopt(zmq.MAXMSGSIZE, largest)
        configure_client(socket, self._keys)
        if self._commands is not None:
            # ZeroMQ then notices a connection that was cut, and makes a new one; the verdicts that
            # were lost meanwhile are fetched.
            beat(socket)
        dial(socket, self._addresses[which])
        return socket

    def _accept(self, frames: list[bytes]) -> None:
        message = decode(frames)
        if isinstance(message, HeatmapMessage):
            self._ready.append((_heatmap(message, frames[2], frames[3]), False))
            return
        station, epoch = message.station, message.epoch
        if isinstance(message, StatusMessage) and message.unrecorded:
            if station not in self._progress:
                self._unrecorded.setdefault(station, {})[epoch] = None
            self._ready.append((message, False))
            return
        # Verdicts up to ``due`` must be handed on before this message.
        due = message.seq - 1 if isinstance(message, VerdictMessage) else message.last_seq
        since_us = None
        progress = self._progress.get(station)
        if progress is None:
            progress = self._progress[station] = Progress()
            since_us = self._since_us
            if self._after is not None:
                progress.turn_to(self._after[0])
                progress.reach(self._after[1])
            elif since_us is None and station in self._unrecorded:
                progress.begin_with(self._unrecorded.pop(station))
            elif since_us is None:
                progress.turn_to(epoch)
                progress.reach(0 if self._from_start else due)
        if self._channel is None or (epoch in progress and since_us is None):
            progress.turn_to(epoch)
        refill = Refill(progress, station, epoch, due, since_us)
        if refill.done:
            self._hand_on(message)
        elif self._channel is None:
            self._extend(refill.give_up())
            self._hand_on(message)
        else:
            self._filling = _Filling(refill, message, self._channel, self._patience())

    def _extend(self, fetched: Iterable[Item]) -> None:
        self._ready.extend((item, True) for item in fetched)

    def _hand_on(self, message: VerdictMessage | StatusMessage, *, is_record: bool = False) -> None:
        if isinstance(message, VerdictMessage):
            progress = self._progress[message.station]
            if message.seq <= progress.last:
                return
            progress.reach(message.seq)
        self._ready.append((message, is_record))

    def _patience(self) -> float:
        """Until when a refill may go without an answer, in s of ``time.monotonic``."""
        # After one wait in vain the next gaps are given up sooner.
        return time.monotonic() + (self._patience_s if self._patient else _SHORT_PATIENCE_S)

    def _fill(self, filling: _Filling, timeout_s: float) -> None:
        """Send a question, or receive an answer, or give up; takes at most ``timeout_s``."""
        for socket in self._sockets:
            # After a lost connection ZeroMQ subscribes anew only while its user calls it.
            socket.getsockopt(zmq.EVENTS)
        now = time.monotonic()
        refill = filling.refill
        if now >= filling.give_up_at:
            self._patient = False
            self._extend(refill.give_up())
        elif now >= filling.ask_at:
            asked = filling.channel.send(filling.question())
            filling.ask_at = now + (REPEAT_S if asked else PAUSE_S)
        else:
            wait_s = min(filling.ask_at, filling.give_up_at) - now
            try:
                reply = filling.channel.receive(min(timeout_s, wait_s))
            except WireError:
                reply = None
                self._extend(refill.give_up())
            if reply is not None and reply.id == filling.id:
                self._take(filling, reply)
        if refill.done:
            self._filling = None
            self._hand_on(filling.held, is_record=True)

    def _take(self, filling: _Filling, reply: ReplyMessage) -> None:
        now = time.monotonic()
        filling.ask_at = now + PAUSE_S
        if reply.status is not None:
            filling.in_trouble = bool(reply.status.trouble)
        else:
            before = filling.refill.question(filling.id)
            self._extend(filling.refill.take(reply))
            if filling.refill.question(filling.id) != before:
                self._patient = True
                filling.ask_at, filling.id = now, new_id()
                filling.give_up_at = filling.patient_until = self._patience()
                return
            if reply.code == "busy":
                self._patient = True
                return
            filling.in_doubt = True
        if filling.in_trouble or filling.unrecorded:
            filling.give_up_at = filling.patient_until
        else:
            # A sound station records a verdict before it publishes it, so the journal has what is
            # missing by then, or never will.
            filling.give_up_at = min(filling.give_up_at, now + _TAIL_S)


@dataclass
class _Filling:
    """A refill under way over ``channel``, and ``held``, the message that waits for its end.

    Times are in s of ``time.monotonic``: the next question goes out at ``ask_at``, the refill ends
    at ``give_up_at``, and no later than ``patient_until``.
    """

    refill: Refill
    held: VerdictMessage | StatusMessage
    channel: Channel
    patient_until: float
    ask_at: float = 0.0
    in_doubt: bool = False
    """The journal lacks what is missing, so the station's status is asked for next."""
    in_trouble: bool = False
    """The station reports trouble; its journal may have the verdicts once that is over."""

    def __post_init__(self) -> None:
        self.id = new_id()
        self.give_up_at = self.patient_until
        self.in_trouble = isinstance(self.held, StatusMessage) and bool(self.held.trouble)

    @property
    def unrecorded(self) -> bool:
        """True when ``held`` was published unrecorded, as the missing verdicts probably were."""
        return (
            isinstance(self.held, VerdictMessage)
            and self.held.reason == Reason.JOURNAL_FAILED.value
        )

    def question(self) -> Command:
        """The next question: to the journal, or after it lacked the verdicts for the status."""
        if self.in_doubt:
            self.in_doubt = False
            return StatusCommand(id=self.id)
        return self.refill.question(self.id)


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
