"""The station's two publishing sockets (docs/wire.md)."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Final

import zmq

from inspector.errors import PortError
from inspector.wire.gate import Gate, SocketName
from inspector.wire.messages import HeatmapMessage, StatusMessage, VerdictMessage, encode, topic

_IMAGES_GRACE_S: Final = 0.5
_LARGEST_SUBSCRIPTION: Final = 1024
_LONGEST_PREFIX: Final = 100
_MOST_SUBSCRIPTIONS: Final = 1000
"""Subscriptions read per call, so that a flood of them cannot delay verdicts."""


class Publisher:
    """The station's two publishing sockets, one for verdicts and status, one for pictures.

    Raises :class:`PortError` when an address cannot be bound. Verdicts and status share a
    high-water mark of 100,000 messages; pictures have 20, so that a picture never delays a
    verdict, and neither ever blocks the line: they are XPUB, to see who subscribes, but without
    ``XPUB_NODROP``. ``send_heatmap`` may be called by one other thread than the rest. ``gate``
    says who may subscribe, and is closed by its owner, after this; None: one without keys.
    """

    def __init__(self, verdicts: str, images: str, gate: Gate | None = None) -> None:
        self._gate = gate or Gate()
        self._own_gate = gate is None
        self._sockets: list[zmq.Socket[bytes]] = []
        self._subscribed: set[zmq.Socket[bytes]] = set()
        self._prefixes: set[bytes] = set()
        try:
            self._verdicts = self._open("verdicts", verdicts, high_water=100_000)
            self._images = self._open("images", images, high_water=20)
        except PortError:
            self.close()
            raise

    @property
    def addresses(self) -> tuple[str, str]:
        """Bound addresses of verdicts and images, wildcards resolved."""
        return (
            self._verdicts.getsockopt_string(zmq.LAST_ENDPOINT),
            self._images.getsockopt_string(zmq.LAST_ENDPOINT),
        )

    def send_verdict(self, message: VerdictMessage) -> None:
        """Publish one verdict."""
        self._verdicts.send_multipart([topic("verdict", message.station), encode(message)])

    def send_status(self, message: StatusMessage) -> None:
        """Publish the state of the station."""
        self._note_subscriptions(self._verdicts)
        self._verdicts.send_multipart([topic("status", message.station), encode(message)])

    def send_heatmap(self, message: HeatmapMessage, png: bytes, jpeg: bytes) -> None:
        """Publish one heatmap (8 bit, 128 is the limit) with the judged picture."""
        self._note_subscriptions(self._images)
        self._images.send_multipart([topic("heatmap", message.station), encode(message), png, jpeg])

    def wants_heatmaps(self, station: str) -> bool:
        """True while somebody subscribes to the heatmaps of ``station``; for their thread."""
        self._note_subscriptions(self._images)
        mine = topic("heatmap", station)
        return any(mine.startswith(prefix) for prefix in self._prefixes)

    def wait_for_subscriber(
        self, timeout_s: float, stopped: Callable[[], bool] = lambda: False
    ) -> bool:
        """Wait until someone subscribes to verdicts; False when ``timeout_s`` passed first.

        Images are given a moment more. Call it before the thread that sends pictures starts.
        """
        for socket, patience_s in (
            (self._verdicts, timeout_s),
            (self._images, min(timeout_s, _IMAGES_GRACE_S)),
        ):
            deadline = time.monotonic() + patience_s
            while socket not in self._subscribed and not stopped():
                if time.monotonic() > deadline:
                    break
                socket.poll(50)
                self._note_subscriptions(socket)
        return self._verdicts in self._subscribed

    def close(self, linger_ms: int = 2000) -> None:
        """Hand what is queued to connected subscribers, at most ``linger_ms``, and close.

        With a gate of the caller's it does not wait for that; the gate's ``close`` does.
        """
        for socket in self._sockets:
            self._gate.close_socket(socket, linger_ms)
        if self._own_gate:
            self._gate.close()

    def _note_subscriptions(self, socket: zmq.Socket[bytes]) -> None:
        """Read the subscriptions seen, which would otherwise pile up in the socket over months."""
        with contextlib.suppress(zmq.Again):
            for _ in range(_MOST_SUBSCRIPTIONS):
                message = socket.recv(zmq.NOBLOCK)
                if socket is self._images:
                    self._note_prefix(message)
                if message[:1] == b"\x01" and any(
                    wanted.startswith(message[1:]) or message[1:].startswith(wanted)
                    for wanted in (topic("verdict"), topic("heatmap"))
                ):
                    self._subscribed.add(socket)

    def _note_prefix(self, message: bytes) -> None:
        """XPUB tells of the first subscription to a prefix, and of the end of the last."""
        prefix = message[1:]
        if message[:1] == b"\x00":
            self._prefixes.discard(prefix)
        elif message[:1] == b"\x01" and len(prefix) <= _LONGEST_PREFIX:
            self._prefixes.add(prefix)

    def _open(self, name: SocketName, address: str, high_water: int) -> zmq.Socket[bytes]:
        socket = self._gate.open(
            zmq.XPUB, name, address, high_water=high_water, largest=_LARGEST_SUBSCRIPTION
        )
        self._sockets.append(socket)
        return socket
