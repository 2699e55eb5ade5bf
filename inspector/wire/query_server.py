"""The station's query socket: what people look at, in a thread that no part waits for.

A ROUTER socket, as that of commands is; pictures of many megabytes go out by it, and the journal is
searched for it.
"""

from __future__ import annotations

import collections
import contextlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from socket import socketpair
from typing import Final, Protocol

import zmq

from inspector.errors import WireError
from inspector.threads import Worker, yield_to_others
from inspector.wire.command_server import id_in
from inspector.wire.gate import Gate
from inspector.wire.messages import RefusalCode
from inspector.wire.queries import AnswerMessage, Query, decode_query, encode_answer
from inspector.wire.replay import Bucket

BYTES_PER_S: Final = 32 << 20
"""Bytes that one client is sent a second; all clients together four times as many."""

_LARGEST_QUERY: Final = 16 << 10
_HIGH_WATER: Final = 10
"""Answers that may wait for a client that does not read; each may be a picture in full."""
_MOST_WAITING: Final = 8
"""Queries of one client that may wait for their answer."""
_MOST_CLIENTS: Final = 100
"""Clients that may have a query waiting."""
_MOST_A_TURN: Final = 100
_HEARTBEAT_MS: Final = (2000, 6000)
_LEAST_COST: Final = 256 << 10
"""Bytes that an answer counts as at least: finding it takes time, too."""
_LINGER_MS: Final = 200

Answer = Callable[[AnswerMessage, Sequence[bytes]], None]
"""What an answer and its pictures are handed to."""


class Answerer(Protocol):
    """Who knows the answers; used by the thread of the socket."""

    def answer(self, query: Query, answer: Answer) -> None:
        """Call ``answer`` once, now or in a later ``turn``."""
        ...

    def turn(self) -> float | None:
        """Answer what is due; how long until something else is, s, None: only once it is woken."""
        ...

    def close(self) -> None:
        """Let go of what it has open."""
        ...


@dataclass
class _Client:
    """What a peer is owed. A peer is known by its name, without keys by its connection's identity.

    ``waiting``: the connection that asked, and what; the first is served next. ``outstanding``
    counts these and those that were handed to the answerer.
    """

    bucket: Bucket
    outstanding: int = 0
    waiting: collections.deque[tuple[bytes, Query]] = field(default_factory=collections.deque)


class QuerySocket:
    """The bound ROUTER socket that queries come in by. Raises :class:`PortError`."""

    def __init__(self, gate: Gate, address: str) -> None:
        self.gate = gate
        self.socket: zmq.Socket[bytes] = gate.open(
            zmq.ROUTER,
            "queries",
            address,
            high_water=_HIGH_WATER,
            largest=_LARGEST_QUERY,
            heartbeat_ms=_HEARTBEAT_MS,
        )
        # Without this an answer to a client that has gone vanishes; with it, it is counted.
        self.socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self.address = self.socket.getsockopt_string(zmq.LAST_ENDPOINT)

    def close(self, linger_ms: int = 0) -> None:
        """Let the address go; to be called by the thread that uses the socket, also twice."""
        if not self.socket.closed:
            self.gate.close_socket(self.socket, linger_ms)


class Queries(Worker):
    """The thread that owns the query socket, and answers one query at a time.

    Clients are served in turn, each at most :data:`BYTES_PER_S`. One that has gone or does not read
    loses its answers, and nobody waits for it; one that asks for more than it reads is refused.
    """

    def __init__(
        self,
        socket: QuerySocket,
        make_answerer: Callable[[Callable[[], None]], Answerer],
        *,
        bytes_per_s: float = BYTES_PER_S,
    ) -> None:
        """``make_answerer`` gets what any thread may call to have the answerer's turn come."""
        super().__init__("queries")
        self._gate = socket.gate
        self._socket = socket.socket
        self.address = socket.address
        self._bytes_per_s = bytes_per_s
        self._clients: collections.OrderedDict[bytes, _Client] = collections.OrderedDict()
        self._all = _full(4 * bytes_per_s)
        self._closing = False
        self._unsent = 0
        self._awake, self._waker = socketpair()
        self._awake.setblocking(False)
        self._waker.setblocking(False)
        self._answerer = make_answerer(self._wake)

    @property
    def unsent(self) -> int:
        """How many answers were dropped because their client had gone or did not read."""
        return self._unsent

    def finish(self) -> None:
        """End, and close the socket; what was not answered stays so."""
        self._closing = True
        self._wake()
        if self.ident is None:
            self._answerer.close()
            self._gate.close_socket(self._socket)
        else:
            self.join()
        self._awake.close()
        self._waker.close()

    def work(self) -> None:
        """Answer until ``finish``."""
        yield_to_others()
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN)
        poller.register(self._awake, zmq.POLLIN)
        try:
            while not self._closing:
                due_s = self._answerer.turn()
                waits_s = self._serve()
                left_s = [one for one in (due_s, waits_s) if one is not None]
                poller.poll(math.ceil(min(left_s) * 1000) if left_s else None)
                with contextlib.suppress(BlockingIOError):
                    self._awake.recv(4096)
                self._receive()
        finally:
            self._answerer.close()
            self._gate.close_socket(self._socket, _LINGER_MS)

    def _wake(self) -> None:
        # When the pipe is full the thread wakes up anyway; when it is closed the thread has ended.
        with contextlib.suppress(OSError):
            self._waker.send(b"\0")

    def _receive(self) -> None:
        with contextlib.suppress(zmq.Again):
            for _ in range(_MOST_A_TURN):
                identity, *frames = self._socket.recv_multipart(zmq.NOBLOCK, copy=False)
                self._accept(identity.bytes, frames)

    def _accept(self, identity: bytes, frames: list[zmq.Frame]) -> None:
        if len(frames) != 1:
            detail = f"received query of {len(frames)} frames, expected 1"
            self._refuse(identity, "", "malformed", detail)
            return
        body = frames[0].bytes
        try:
            query = decode_query(body)
        except WireError as error:
            self._refuse(identity, id_in(body), "malformed", str(error))
            return
        peer = self._gate.peer_of(frames[0])
        if "listen" not in self._gate.roles_of(peer):
            detail = f"peer '{peer}' may not send {query.command}; see security.peers"
            self._refuse(identity, query.id, "forbidden", detail)
            return
        key = peer.encode() or identity
        client = self._clients.get(key)
        if client is None:
            if len(self._clients) >= _MOST_CLIENTS:
                detail = f"{_MOST_CLIENTS} clients already wait for answers"
                self._refuse(identity, query.id, "busy", detail)
                return
            client = self._clients[key] = _Client(_full(self._bytes_per_s))
        for i, (asker, waiting) in enumerate(client.waiting):
            if asker == identity and waiting.id == query.id:
                # It was sent again.
                client.waiting[i] = (identity, query)
                return
        if client.outstanding >= _MOST_WAITING:
            detail = f"{_MOST_WAITING} queries of this client already wait"
            self._refuse(identity, query.id, "busy", detail)
            return
        client.outstanding += 1
        client.waiting.append((identity, query))

    def _serve(self) -> float | None:
        """Answer one query of the client whose turn it is.

        Returns how long to wait until the next may be answered, s; None when no client waits.
        """
        now = time.monotonic()
        self._forget_idle(now)
        waits_s = [one.bucket.wait_s(now) for one in self._clients.values() if one.waiting]
        if not waits_s:
            return None
        wait_s = max(min(waits_s), self._all.wait_s(now))
        if wait_s > 0:
            return wait_s
        key, client = next(
            (key, one)
            for key, one in self._clients.items()
            if one.waiting and one.bucket.wait_s(now) == 0
        )
        self._clients.move_to_end(key)
        identity, query = client.waiting.popleft()
        self._answerer.answer(query, self._sender(client, identity))
        return 0.0

    def _sender(self, client: _Client, identity: bytes) -> Answer:
        def send(answer: AnswerMessage, pictures: Sequence[bytes]) -> None:
            client.outstanding -= 1
            frames = encode_answer(answer, pictures)
            cost = max(_LEAST_COST, sum(map(len, frames)))
            client.bucket.level -= cost
            self._all.level -= cost
            self._send(identity, frames)

        return send

    def _send(self, identity: bytes, frames: Sequence[bytes]) -> None:
        try:
            self._socket.send_multipart([identity, *frames], zmq.NOBLOCK)
        except zmq.ZMQError as error:
            if error.errno not in {zmq.EHOSTUNREACH, zmq.EAGAIN}:
                raise
            self._unsent += 1

    def _refuse(self, identity: bytes, id_: str, code: RefusalCode, detail: str) -> None:
        answer = AnswerMessage(id=id_, kind="refused", code=code, detail=detail)
        self._send(identity, encode_answer(answer, ()))

    def _forget_idle(self, now: float) -> None:
        """Forget clients that are owed nothing and have not been sent much of late."""
        idle = [
            key
            for key, client in self._clients.items()
            if not client.outstanding and client.bucket.wait_s(now) == 0
            if client.bucket.level >= client.bucket.size
        ]
        for key in idle:
            del self._clients[key]


def _full(rate: float) -> Bucket:
    """A limit of bytes a second, of which as many may be sent at once."""
    return Bucket(rate, rate, rate, time.monotonic())
