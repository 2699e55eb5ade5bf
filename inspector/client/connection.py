"""A client's sockets: they connect, notice a dead peer, and send commands one by one."""

from __future__ import annotations

import contextlib
import math
import uuid
from collections.abc import Iterator
from socket import socketpair
from types import TracebackType
from typing import Final, TypeVar

import zmq
from pydantic import ValidationError
from zmq.utils.monitor import parse_monitor_message

from inspector.client.keys import ClientKeys, configure_client
from inspector.errors import CommandError, WireError
from inspector.shown import masked
from inspector.wire.messages import (
    Command,
    ReplyMessage,
    decode_reply,
    encode,
)
from inspector.wire.queries import Query
from inspector.wire.wording import wrong_field

LARGEST_MESSAGE: Final = 1 << 20
REPEAT_S: Final = 1.0
"""Time after which a command without an answer is sent again."""
PAUSE_S: Final = 0.05
"""Time after which a command that could not be sent is tried again."""

_HEARTBEAT_MS: Final = (2000, 6000)
"""How often a heartbeat is sent, and how long a peer may be silent."""

_Self = TypeVar("_Self", bound="Connection")


class Connection:
    """Sockets that are open while this context manager is entered, or until ``close``."""

    def __init__(self) -> None:
        self._open = contextlib.ExitStack()

    def __enter__(self: _Self) -> _Self:
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        # What is opened last is closed first, so that every socket is closed before its context.
        self._open.callback(context.term)
        try:
            self._connect(context)
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
        """Close the sockets, and drop what was not sent; may be called more than once."""
        self._open.close()

    def _connect(self, context: zmq.Context[zmq.Socket[bytes]]) -> None:
        """Open the sockets, each with a callback in ``_open``. Raises :class:`WireError`."""
        raise NotImplementedError


class Channel:
    """A connection to the command socket, or that of queries, by a DEALER.

    Unless it is connected it sends nothing, and queues nothing.

    A reply belongs to the connection by which its command went out: one that breaks takes along
    the replies that have not come, which ``losses`` tells. ZMQ_IMMEDIATE is not for this: with it
    libzmq 4.3 also drops replies that came before a connection broke and were not read yet.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        address: str,
        keys: ClientKeys | None,
        largest: int = LARGEST_MESSAGE,
    ) -> None:
        """``largest``: a station that sends more bytes than this in one frame is cut off."""
        self._context = context
        self._largest = largest
        self._address = address
        self._keys = keys
        self._awake, self._waker = socketpair()
        self._awake.setblocking(False)
        self._waker.setblocking(False)
        self._woken = False
        self._losses = 0
        try:
            self._socket, self._monitor = self._open()
        except WireError:
            self._close_pair()
            raise

    def send(self, command: Command | Query, data: bytes = b"") -> bool:
        """Send ``command``, with ``data`` in a frame of its own if there is any.

        False when it could not be sent, as the station is not connected.
        """
        self._watch()
        if not self._connected or self._broken:
            return False
        try:
            frames = [encode(command), data] if data else [encode(command)]
            self._socket.send_multipart(frames, zmq.NOBLOCK)
        except zmq.Again:
            return False
        return True

    def receive(self, timeout_s: float) -> ReplyMessage | None:
        """The next reply, None when none comes in time, after ``wake``, or on a loss.

        Raises :class:`WireError`.
        """
        frames = self.receive_frames(timeout_s)
        if frames is None:
            return None
        if len(frames) != 1:
            raise WireError(f"received reply of {len(frames)} frames, expected 1")
        return decode_reply(frames[0])

    def receive_frames(self, timeout_s: float) -> list[bytes] | None:
        """The frames of the next reply, as ``receive`` waits for it."""
        if not self._has_reply():
            # Rounded up: a wait that ends too early would be begun again at once, and again.
            ready = dict(self._poller.poll(max(0, math.ceil(timeout_s * 1000))))
            with contextlib.suppress(BlockingIOError):
                self._awake.recv(4096)
                self._woken = True
            if self._socket not in ready:
                return None
        return self._socket.recv_multipart()

    def wake(self) -> None:
        """End a ``receive`` that waits, or else the next one; any thread may call."""
        # A pipe that is full wakes it as well, and after ``close`` nobody waits.
        with contextlib.suppress(OSError):
            self._waker.send(b"\0")

    def was_woken(self) -> bool:
        """True once after any number of ``wake``; for the thread that calls ``receive``."""
        woken, self._woken = self._woken, False
        return woken

    @property
    def losses(self) -> int:
        """How many connections broke so far, but for one by which a reply still lies here."""
        self._watch()
        return self._losses

    def reset(self) -> None:
        """Connect anew, and so drop commands and replies that are on their way."""
        self._close_socket()
        self._socket, self._monitor = self._open()

    def close(self) -> None:
        """Close the socket; what was not sent is dropped."""
        self._close_socket()
        self._close_pair()

    def _watch(self) -> None:
        """Take note of what became of the connection; after a loss, make a new one."""
        with contextlib.suppress(zmq.Again):
            while True:
                event = parse_monitor_message(self._monitor.recv_multipart(zmq.NOBLOCK))["event"]
                if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                    self._connected = True
                elif self._connected:
                    self._broken = True
        # libzmq reports a loss after it has handed out what came by that connection. By a new
        # socket, not by the one that libzmq connects again, no command goes out a second time.
        if self._broken and not self._has_reply():
            self._losses += 1
            self.reset()

    def _has_reply(self) -> bool:
        return bool(int(self._socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN)

    def _close_socket(self) -> None:
        self._socket.disable_monitor()
        self._monitor.close(linger=0)
        self._socket.close(linger=0)

    def _close_pair(self) -> None:
        self._awake.close()
        self._waker.close()

    def _open(self) -> tuple[zmq.Socket[bytes], zmq.Socket[bytes]]:
        """A socket that connects, and the one that tells what becomes of that."""
        self._connected = self._broken = False
        socket = self._context.socket(zmq.DEALER)
        monitor = socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED)
        socket.setsockopt(zmq.MAXMSGSIZE, self._largest)
        beat(socket)
        configure_client(socket, self._keys)
        try:
            dial(socket, self._address)
        except WireError:
            socket.disable_monitor()
            monitor.close(linger=0)
            socket.close(linger=0)
            raise
        self._poller = zmq.Poller()
        for one in (socket, monitor, self._awake):
            self._poller.register(one, zmq.POLLIN)
        return socket, monitor


def beat(socket: zmq.Socket[bytes]) -> None:
    """Have both ends of ``socket`` notice soon when the other one vanishes."""
    every_ms, longest_ms = _HEARTBEAT_MS
    socket.setsockopt(zmq.HEARTBEAT_IVL, every_ms)
    socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, longest_ms)
    socket.setsockopt(zmq.HEARTBEAT_TTL, longest_ms)


def dial(socket: zmq.Socket[bytes], address: str) -> None:
    """Connect ``socket`` to ``address``. Raises :class:`WireError` when it is no address."""
    try:
        socket.connect(address)
    except zmq.ZMQError:
        raise WireError(
            f"{masked(address)}: not an address to connect to; "
            f"write it as tcp://HOST:PORT or ipc://PATH"
        ) from None


def new_id() -> str:
    """A new id for a command, which its replies repeat."""
    return uuid.uuid4().hex


@contextlib.contextmanager
def in_words() -> Iterator[None]:
    """Turn the error of what the wire format does not allow into a CommandError."""
    try:
        yield
    except ValidationError as error:
        raise CommandError(" ".join(wrong_field(error)), "malformed") from None
