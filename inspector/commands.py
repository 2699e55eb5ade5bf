"""The station's ROUTER socket: commands in, replies out, and what was missed from the journal."""

from __future__ import annotations

import collections
import contextlib
import json
import math
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

import zmq

from inspector.config import Role
from inspector.errors import JournalError, WireError
from inspector.security import ALL_ROLES, Gate
from inspector.wire import (
    Command,
    EpochField,
    RecipeCommand,
    RefusalCode,
    ReloadCommand,
    ReplayCommand,
    ReplyMessage,
    StatusCommand,
    StatusMessage,
    TriggerCommand,
    VerdictMessage,
    decode_command,
    encode,
)
from inspector.workers import Worker

ADMITTED: Final[Mapping[type[Command], frozenset[Role]]] = {
    TriggerCommand: frozenset({"trigger"}),
    StatusCommand: ALL_ROLES,
    RecipeCommand: frozenset({"operate"}),
    ReloadCommand: frozenset({"operate"}),
    ReplayCommand: frozenset({"listen"}),
}
"""Any one of these roles lets a peer send the command."""

REPLAY_PER_S: Final = 2000.0
"""Recorded verdicts a second that one client is sent; all clients together five times as many."""

CHUNK: Final = 100
"""Verdicts in one reply."""

_LARGEST_CHUNK: Final = 128 << 10
_LARGEST_COMMAND: Final = 64 << 10
_HIGH_WATER: Final = 256
_MOST_OUTSTANDING: Final = 1000
_MOST_REPLAYS: Final = 4
_EPOCHS_SHOWN: Final = 100
_MOST_A_TURN: Final = 100
_SHORTEST_COST: Final = 5.0
_LINGER_MS: Final = 500

_EMPTY: Final = b'"verdicts":[]'


class Reader(Protocol):
    """What was recorded, as :class:`inspector.journal.Reader` reads it; used by one thread.

    Verdicts are the JSON that was published, in order. Each may raise :class:`JournalError`.
    """

    def verdicts(self, epoch: str, first: int, last: int | None, limit: int) -> Sequence[bytes]:
        """At most ``limit`` of ``epoch``, seq ``first`` to ``last`` (None: to the end)."""
        ...

    def since(self, us: int, limit: int) -> Sequence[bytes]:
        """At most ``limit`` that were judged at ``us`` (µs since the Unix epoch) or later."""
        ...

    def epochs(self) -> Sequence[tuple[str, int]]:
        """Every epoch and its last seq (0: no verdict), oldest first."""
        ...

    def following(self, epoch: str) -> str | None:
        """The next epoch that has verdicts. Raises LookupError for one that is not known."""
        ...

    def close(self) -> None:
        """Let go of the journal."""
        ...


class Request:
    """A command that the judge loop answers: it calls one of ``answer``, ``finish``, ``refuse``.

    Any thread may call; what comes after the first of these is ignored. ``client`` is the name the
    peer's key has in the station file, "" without keys. ``received_us`` is wall time since the
    Unix epoch, ``received_ns`` monotonic.
    """

    def __init__(
        self,
        command: TriggerCommand | RecipeCommand | ReloadCommand,
        client: str,
        send: Callable[[ReplyMessage, bool], None],
    ) -> None:
        self.command = command
        self.client = client
        self.received_us = time.time_ns() // 1000
        self.received_ns = time.monotonic_ns()
        self._send = send
        self._open = True
        self._lock = threading.Lock()

    def accept(self) -> None:
        """The trigger is in the journal: it will get a verdict."""
        self._reply(ReplyMessage(id=self.command.id, kind="accepted"), last=False)

    def answer(self, verdict: VerdictMessage) -> None:
        """The verdict on the part that was triggered."""
        self._reply(ReplyMessage(id=self.command.id, kind="verdict", verdict=verdict))

    def finish(self, detail: str = "") -> None:
        """It was done."""
        self._reply(ReplyMessage(id=self.command.id, kind="done", detail=detail))

    def refuse(self, code: RefusalCode, detail: str) -> None:
        """It was not done, and why."""
        self._reply(ReplyMessage(id=self.command.id, kind="refused", code=code, detail=detail))

    def _reply(self, reply: ReplyMessage, last: bool = True) -> None:
        with self._lock:
            if not self._open:
                return
            self._open = not last
        self._send(reply, last)


@dataclass
class _Bucket:
    """So many verdicts a second, at most ``size`` at once."""

    rate: float
    size: float
    level: float
    filled_at: float

    def wait_s(self, now: float) -> float:
        """Until something may be taken; 0 when it is now."""
        self.level = min(self.size, self.level + (now - self.filled_at) * self.rate)
        self.filled_at = now
        return 0.0 if self.level > 0 else (1.0 - self.level) / self.rate


@dataclass
class _Client:
    """One peer: by its name, or by its connection where there are no keys."""

    bucket: _Bucket
    outstanding: int = 0
    replays: collections.deque[tuple[bytes, ReplayCommand]] = field(
        default_factory=collections.deque
    )


class Commands(Worker):
    """The thread that owns the command socket.

    ``handle`` gets triggers, recipes and reloads; it must not block and may answer from any
    thread. ``status`` (any thread) says how the station stands. ``reader`` opens the journal for
    this thread; replays are chunks of at most 100 verdicts, turn by turn, so that nobody's refill
    holds up another's nor the line. A client that has gone or does not read costs its replies.
    Raises :class:`PortError`.
    """

    def __init__(
        self,
        gate: Gate,
        address: str,
        *,
        handle: Callable[[Request], None],
        status: Callable[[], StatusMessage],
        reader: Callable[[], Reader],
        replay_per_s: float = REPLAY_PER_S,
    ) -> None:
        super().__init__("commands")
        self._gate = gate
        self._handle = handle
        self._status = status
        self._open_reader = reader
        self._reader: Reader | None = None
        self._replay_per_s = replay_per_s
        self._clients: collections.OrderedDict[bytes, _Client] = collections.OrderedDict()
        self._all = _bucket(5 * replay_per_s)
        self._replies: collections.deque[tuple[bytes, bytes, ReplyMessage, bool]] = (
            collections.deque()
        )
        self._closing = False
        self._unsent = 0
        self._socket = open_socket(gate, address)
        self.address = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)
        self._awake, self._waker = socket.socketpair()
        self._awake.setblocking(False)
        self._waker.setblocking(False)

    @property
    def unsent(self) -> int:
        """Replies whose client had gone or did not read."""
        return self._unsent

    @property
    def served(self) -> bool:
        """Somebody asked for something that this start of the station remembers."""
        return bool(self._clients)

    def finish(self) -> None:
        """Send the replies that wait, end, and close the socket."""
        self._closing = True
        self._wake()
        if self.ident is None:
            self._gate.close_socket(self._socket)
        else:
            self.join()
        self._awake.close()
        self._waker.close()

    def work(self) -> None:
        """Serve until ``finish``."""
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN)
        poller.register(self._awake, zmq.POLLIN)
        try:
            while True:
                # Before the replies are sent: what is put after this is not promised.
                closing = self._closing
                self._send_replies()
                if closing:
                    return
                poller.poll(self._serve_replay())
                with contextlib.suppress(BlockingIOError):
                    self._awake.recv(4096)
                self._receive()
        finally:
            self._forget_journal()
            self._gate.close_socket(self._socket, _LINGER_MS)

    def _receive(self) -> None:
        with contextlib.suppress(zmq.Again):
            for _ in range(_MOST_A_TURN):
                identity, *frames = self._socket.recv_multipart(zmq.NOBLOCK, copy=False)
                self._accept(identity.bytes, frames)

    def _accept(self, identity: bytes, frames: list[zmq.Frame]) -> None:
        if len(frames) != 1:
            detail = f"received command of {len(frames)} frames, expected 1"
            self._refuse(identity, "", "malformed", detail)
            return
        body = frames[0].bytes
        try:
            command = decode_command(body)
        except WireError as error:
            self._refuse(identity, _id_in(body), "malformed", str(error))
            return
        peer = self._gate.peer_of(frames[0])
        if not ADMITTED[type(command)] & self._gate.roles_of(peer):
            detail = f"peer '{peer}' may not send {command.command}; see security.peers"
            self._refuse(identity, command.id, "forbidden", detail)
            return
        if isinstance(command, StatusCommand):
            self._send(identity, encode(self._describe(command.id)))
            return
        key = peer.encode() or identity
        client = self._clients.setdefault(key, _Client(_bucket(self._replay_per_s)))
        if isinstance(command, ReplayCommand):
            self._queue_replay(client, identity, command)
        elif client.outstanding >= _MOST_OUTSTANDING:
            detail = f"{client.outstanding} commands of this client already wait for their answer"
            self._refuse(identity, command.id, "busy", detail)
        else:
            client.outstanding += 1
            self._handle(Request(command, peer, self._sender(key, identity)))

    def _sender(self, key: bytes, identity: bytes) -> Callable[[ReplyMessage, bool], None]:
        def send(reply: ReplyMessage, last: bool) -> None:
            self._replies.append((key, identity, reply, last))
            self._wake()

        return send

    def _wake(self) -> None:
        # Full means that it wakes up anyway; closed, that nobody is there to be woken.
        with contextlib.suppress(OSError):
            self._waker.send(b"\0")

    def _send_replies(self) -> None:
        while self._replies:
            key, identity, reply, last = self._replies.popleft()
            self._clients[key].outstanding -= last
            self._send(identity, encode(reply))

    def _send(self, identity: bytes, body: bytes) -> None:
        try:
            self._socket.send_multipart([identity, body], zmq.NOBLOCK)
        except zmq.ZMQError as error:
            if error.errno not in {zmq.EHOSTUNREACH, zmq.EAGAIN}:
                raise
            self._unsent += 1

    def _refuse(self, identity: bytes, id_: str, code: RefusalCode, detail: str) -> None:
        reply = ReplyMessage(id=id_, kind="refused", code=code, detail=detail)
        self._send(identity, encode(reply))

    def _describe(self, id_: str) -> ReplyMessage:
        try:
            epochs, detail = self._journal().epochs(), ""
        except JournalError as error:
            self._forget_journal()
            epochs, detail = (), str(error)
        return ReplyMessage(
            id=id_,
            kind="status",
            detail=detail,
            status=self._status(),
            epochs=tuple(
                EpochField(epoch=epoch, last_seq=last) for epoch, last in epochs[-_EPOCHS_SHOWN:]
            ),
        )

    def _journal(self) -> Reader:
        if self._reader is None:
            self._reader = self._open_reader()
        return self._reader

    def _forget_journal(self) -> None:
        """Close it; the next one to ask opens it anew, for it may have been put right."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def _queue_replay(self, client: _Client, identity: bytes, command: ReplayCommand) -> None:
        for i, (asker, waiting) in enumerate(client.replays):
            if asker == identity and waiting.id == command.id:
                client.replays[i] = (identity, command)
                return
        if len(client.replays) >= _MOST_REPLAYS:
            detail = f"{_MOST_REPLAYS} replays of this client already wait"
            self._refuse(identity, command.id, "busy", detail)
            return
        client.replays.append((identity, command))

    def _serve_replay(self) -> int | None:
        """Send one chunk to the client whose turn it is; ms until the next may be sent."""
        now = time.monotonic()
        self._forget_idle(now)
        waits_s = [client.bucket.wait_s(now) for client in self._clients.values() if client.replays]
        if not waits_s:
            return None
        wait_s = max(min(waits_s), self._all.wait_s(now))
        if wait_s > 0:
            return math.ceil(wait_s * 1000)
        key, client = next(
            (key, client)
            for key, client in self._clients.items()
            if client.replays and client.bucket.wait_s(now) == 0
        )
        self._clients.move_to_end(key)
        identity, command = client.replays.popleft()
        cost = max(_SHORTEST_COST, self._replay(identity, command))
        client.bucket.level -= cost
        self._all.level -= cost
        return 0

    def _replay(self, identity: bytes, command: ReplayCommand) -> int:
        try:
            reply, verdicts = read_replay(self._journal(), command)
        except JournalError as error:
            self._forget_journal()
            self._refuse(identity, command.id, "journal", str(error))
            return 0
        # They are what was published, byte for byte: read once when published, never again.
        body = encode(reply).replace(_EMPTY, b'"verdicts":[%b]' % b",".join(verdicts), 1)
        self._send(identity, body)
        return len(verdicts)

    def _forget_idle(self, now: float) -> None:
        idle = [
            key
            for key, client in self._clients.items()
            if not client.outstanding and not client.replays and client.bucket.wait_s(now) == 0
            if client.bucket.level >= client.bucket.size
        ]
        for key in idle:
            del self._clients[key]


def open_socket(gate: Gate, address: str) -> zmq.Socket[bytes]:
    """The bound command socket. Raises :class:`PortError`."""
    router = gate.open(
        zmq.ROUTER, "commands", address, high_water=_HIGH_WATER, largest=_LARGEST_COMMAND
    )
    # A reply that nobody takes is an error to count, not one that vanishes.
    router.setsockopt(zmq.ROUTER_MANDATORY, 1)
    return router


def read_replay(journal: Reader, command: ReplayCommand) -> tuple[ReplyMessage, list[bytes]]:
    """The reply, and the verdicts to put into it. Raises :class:`JournalError`."""
    epoch, to = command.epoch, command.to_seq
    if epoch is None:
        found = journal.since(command.since_us or 0, CHUNK + 1)
    else:
        found = journal.verdicts(epoch, command.from_seq, to, CHUNK + 1)
    verdicts: list[bytes] = []
    size = 0
    for verdict in found[:CHUNK]:
        size += len(verdict)
        if verdicts and size > _LARGEST_CHUNK:
            break
        verdicts.append(verdict)
    more = len(verdicts) < len(found)
    following = None
    complete = to is not None and len(verdicts) > to - command.from_seq
    if epoch is not None and not more and not complete:
        try:
            following = journal.following(epoch)
            if command.from_seq > 1 and not journal.verdicts(epoch, 1, None, 1):
                raise LookupError
        except LookupError:
            detail = f"epoch '{epoch}' is not in the journal, or no longer"
            return ReplyMessage(id=command.id, kind="refused", code="unknown", detail=detail), []
    return ReplyMessage(id=command.id, kind="replayed", more=more, next_epoch=following), verdicts


def _bucket(rate: float) -> _Bucket:
    return _Bucket(rate, CHUNK, CHUNK, time.monotonic())


def _id_in(body: bytes) -> str:
    """The id of a command that is otherwise wrong, so that its sender finds the reply."""
    try:
        found = json.loads(body)["id"]
        found.encode()
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return ""
    return found if isinstance(found, str) and len(found) <= 64 else ""
