"""Receive what a station publishes: typed, checked, and with every lost verdict noticed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Final

import zmq

from inspector.errors import WireError
from inspector.frame import decode as decode_picture
from inspector.verdict import Frame8
from inspector.wire import HeatmapMessage, StatusMessage, VerdictMessage, decode, topic

VERDICTS: Final = "tcp://127.0.0.1:5555"
IMAGES: Final = "tcp://127.0.0.1:5556"

_LARGEST_MESSAGE: Final = 1 << 20
_LARGEST_PICTURE: Final = 32 << 20
_POLL_MS: Final = 200


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


@dataclass(frozen=True)
class Gap:
    """Verdicts ``first`` to ``last`` (seq) of ``epoch`` were published and did not arrive."""

    station: str
    epoch: str
    first: int
    last: int


Item = VerdictMessage | Heatmap | StatusMessage | Gap


class Subscriber:
    """A subscription to one station, or to all that publish at the address (``station=""``).

    Use it as a context manager and iterate; used by one thread. Verdicts of an epoch that had
    begun before the first message arrived are not gaps, unless ``from_start``.
    """

    def __init__(
        self,
        verdicts: str = VERDICTS,
        images: str | None = None,
        station: str = "",
        *,
        from_start: bool = False,
    ) -> None:
        self._addresses = {"verdicts": verdicts} | ({"images": images} if images else {})
        self._station = station
        self._from_start = from_start
        self._heard: dict[str, tuple[str, int]] = {}
        self._ready: list[Item] = []
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None
        self._sockets: list[zmq.Socket[bytes]] = []
        self._poller = zmq.Poller()

    def __enter__(self) -> Subscriber:
        self._context = zmq.Context()
        try:
            verdicts = self._connect("verdicts", _LARGEST_MESSAGE, high_water=100_000)
            verdicts.subscribe(topic("verdict", self._station))
            verdicts.subscribe(topic("status", self._station))
            if "images" in self._addresses:
                images = self._connect("images", _LARGEST_PICTURE, high_water=100)
                images.subscribe(topic("heatmap", self._station))
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
            left_ms = max(0, round((deadline - time.monotonic()) * 1000))
            readable = dict(self._poller.poll(left_ms))
            if not readable:
                return None
            # Verdicts first: they are small, and what the line waits for.
            socket = next(socket for socket in self._sockets if socket in readable)
            self._accept(socket.recv_multipart())
        return self._ready.pop(0)

    def close(self) -> None:
        """End the subscription; may be called more than once."""
        for socket in self._sockets:
            self._poller.unregister(socket)
            socket.close(linger=0)
        self._sockets.clear()
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
        address = self._addresses[which]
        try:
            socket.connect(address)
        except zmq.ZMQError as error:
            raise WireError(
                f"{address}: not an address to connect to ({error.strerror}); "
                f"write it as tcp://HOST:PORT or ipc://PATH"
            ) from None
        return socket

    def _accept(self, frames: list[bytes]) -> None:
        message = decode(frames)
        if isinstance(message, HeatmapMessage):
            self._ready.append(_heatmap(message, frames[2], frames[3]))
            return
        verdict = isinstance(message, VerdictMessage)
        seq = message.seq if isinstance(message, VerdictMessage) else message.last_seq
        self._check_gap(message.station, message.epoch, seq, verdict)
        self._ready.append(message)

    def _check_gap(self, station: str, epoch: str, seq: int, verdict: bool) -> None:
        before = self._heard.get(station)
        if before is not None and before[0] == epoch:
            last = before[1]
        elif before is None and not self._from_start:
            last = seq - verdict
        else:
            last = 0
        arrived = seq - 1 if verdict else seq
        if arrived > last:
            self._ready.append(Gap(station, epoch, last + 1, arrived))
        self._heard[station] = (epoch, max(last, seq))


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
