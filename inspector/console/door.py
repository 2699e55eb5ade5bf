"""Connections: how many there may be, and how long each may keep the page waiting.

uvicorn speaks HTTP on them, but accepts none itself: it waits without a limit for a peer that sends
half a request or reads no answer, and counts a connection only once its TLS handshake is over.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import sys
from typing import Final

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from inspector.files import reason_of
from inspector.logs import Refusals

_HANDSHAKE_S: Final = 5.0
_REQUEST_S: Final = 10.0
"""Time for the head of a request, from a connection's beginning or the head's first byte on."""
_UNREAD_S: Final = 30.0
"""As long may a peer leave unread what is sent to it."""
_PAUSE_S: Final = 0.2
_SPARE_FILES: Final = 256
_FULL: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\n"
    b'Content-Length: 27\r\nConnection: close\r\n\r\n{"code":"full","detail":""}'
)


class Door:
    """Takes connections for ``server``, ``most`` at once; used in the thread of the event loop.

    If there are more, the oldest on which nothing is under way makes room, those of strangers
    first; where there is none, the new one is refused.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        state: ServerState,
        most: int,
        tls: ssl.SSLContext | None,
        refusals: Refusals,
    ) -> None:
        self._config = config
        self._state = state
        self._most = most
        self._tls = tls
        self._refusals = refusals
        self._open: dict[Connection, asyncio.Task[None]] = {}
        """In the order in which they came."""

    async def serve(self, listening: socket.socket) -> None:
        """Take connections until cancelled."""
        _allow_files(self._most + _SPARE_FILES)
        listening.setblocking(False)
        loop = asyncio.get_running_loop()
        try:
            while True:
                try:
                    accepted, address = await loop.sock_accept(listening)
                except OSError as error:
                    # Such as too many open files: some that are open must end first.
                    self._refusals.say("", f"no connection can be taken: {reason_of(error)}")
                    await asyncio.sleep(_PAUSE_S)
                    continue
                self._take(accepted, str(address[0]))
        finally:
            for task in self._open.values():
                task.cancel()

    def _take(self, accepted: socket.socket, peer: str) -> None:
        if len(self._open) >= self._most and not self._make_room():
            self._refusals.say(peer, "came as one connection too many; see 'connections'")
            accepted.setblocking(False)
            with accepted, contextlib.suppress(OSError):
                if self._tls is None:
                    accepted.send(_FULL)
            return
        _set_up(accepted)
        made = Connection(self._config, self._state, self, peer)
        self._open[made] = asyncio.ensure_future(self._connect(accepted, made))

    def _make_room(self) -> bool:
        idle = [one for one in self._open if not one.is_busy]
        if not idle:
            return False
        leaving = next((one for one in idle if one.is_strange), idle[0])
        self._refusals.say(leaving.peer, "had to make room for another connection")
        leaving.drop()
        return True

    async def _connect(self, accepted: socket.socket, made: Connection) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: made,
                accepted,
                ssl=self._tls,
                ssl_handshake_timeout=None if self._tls is None else _HANDSHAKE_S,
            )
        except (OSError, ssl.SSLError) as error:
            if made.transport is None:
                why = getattr(error, "reason", None) or reason_of(error)
                self._refusals.say(made.peer, f"no TLS: {why}")
        finally:
            if made.transport is None:
                accepted.close()
                self.forget(made)

    def drop(self, connection: Connection) -> None:
        """End a connection at once, whatever its state."""
        task = self._open.pop(connection, None)
        if connection.transport is not None:
            connection.transport.abort()
        elif task is not None:
            task.cancel()

    def drop_late(self, connection: Connection, problem: str) -> None:
        """End one that kept the page waiting."""
        self._refusals.say(connection.peer, problem)
        self.drop(connection)

    def forget(self, connection: Connection) -> None:
        """A connection has ended."""
        self._open.pop(connection, None)


class Connection(H11Protocol):
    """One connection of a browser."""

    def __init__(self, config: uvicorn.Config, state: ServerState, door: Door, peer: str) -> None:
        super().__init__(config, state, {})
        self.peer = peer
        self._door = door
        self._timers: dict[str, asyncio.TimerHandle] = {}

    @property
    def is_strange(self) -> bool:
        """True until somebody who may see the page has asked for something here."""
        return self.cycle is None or "person" not in self.cycle.scope["state"]

    @property
    def is_busy(self) -> bool:
        """True while the page works on a request, or sends events to somebody that it knows."""
        cycle = self.cycle
        if cycle is None or cycle.response_complete:
            return False
        return not self.is_strange or not cycle.more_body

    def drop(self) -> None:
        """End it at once."""
        self._door.drop(self)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """The connection stands; its first request is due."""
        super().connection_made(transport)
        self._expect("request", _REQUEST_S, "sent no whole request in 10 s")

    def data_received(self, data: bytes) -> None:
        """Data came: a head that was begun is due as a whole."""
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._settle("request")
        else:
            self._expect("request", _REQUEST_S, "sent no whole request in 10 s")

    def _unsupported_upgrade_warning(self) -> None:
        # The page speaks HTTP alone. What uvicorn would advise helps nobody here.
        pass

    def pause_writing(self) -> None:
        """The peer reads more slowly than it is written to."""
        super().pause_writing()
        self._expect("read", _UNREAD_S, "left unread for 30 s what was sent to it")

    def resume_writing(self) -> None:
        """The peer has caught up."""
        super().resume_writing()
        self._settle("read")

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection has ended."""
        super().connection_lost(exc)
        for name in tuple(self._timers):
            self._settle(name)
        self._unset_keepalive_if_required()
        self._door.forget(self)

    def _expect(self, what: str, within_s: float, problem: str) -> None:
        if what not in self._timers:
            self._timers[what] = self.loop.call_later(within_s, self._door.drop_late, self, problem)

    def _settle(self, what: str) -> None:
        timer = self._timers.pop(what, None)
        if timer is not None:
            timer.cancel()


def _set_up(accepted: socket.socket) -> None:
    with contextlib.suppress(OSError):
        accepted.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        # The body of an answer would else wait until its head is acknowledged, 40 ms on Linux.
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if sys.platform == "linux":
            # The kernel ends a connection whose peer neither reads nor is there any more.
            unread_ms = round(1000 * _UNREAD_S)
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, unread_ms)


def _allow_files(wanted: int) -> None:
    if sys.platform == "linux":
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        if soft < allowed:
            resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
