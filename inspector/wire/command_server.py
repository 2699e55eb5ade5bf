"""The station's ROUTER socket: commands in, replies out, and what was missed from the journal."""

from __future__ import annotations

import collections
import contextlib
import json
import math
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

import zmq

from inspector.config.station_file import Role
from inspector.errors import JournalError, WireError
from inspector.threads import Worker
from inspector.wire.gate import ALL_ROLES, Gate
from inspector.wire.messages import (
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
    decode_command,
    encode,
)
from inspector.wire.replay import Bucket, RecordedVerdicts, bucket, read_replay
from inspector.wire.requests import Request

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
_LARGEST_COMMAND: Final = 64 << 10
_HIGH_WATER: Final = 256
_MOST_OUTSTANDING: Final = 1000
_MOST_REPLAYS: Final = 4
_EPOCHS_SHOWN: Final = 100
_MOST_A_TURN: Final = 100
_SHORTEST_COST: Final = 5.0
_LINGER_MS: Final = 500

_EMPTY: Final = b'"verdicts":[]'


@dataclass
class _Client:
    """One peer: by its name, or by its connection where there are no keys."""

    bucket: Bucket
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
        reader: Callable[[], RecordedVerdicts],
        replay_per_s: float = REPLAY_PER_S,
    ) -> None:
        super().__init__("commands")
        self._gate = gate
        self._handle = handle
        self._status = status
        self._open_reader = reader
        self._reader: RecordedVerdicts | None = None
        self._replay_per_s = replay_per_s
        self._clients: collections.OrderedDict[bytes, _Client] = collections.OrderedDict()
        self._all = bucket(5 * replay_per_s)
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
        client = self._clients.setdefault(key, _Client(bucket(self._replay_per_s)))
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

    def _journal(self) -> RecordedVerdicts:
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
        # The verdicts pass through as they are: what was published, byte for byte.
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


def _id_in(body: bytes) -> str:
    """The id of a command that is otherwise wrong, so that its sender finds the reply."""
    try:
        found = json.loads(body)["id"]
        found.encode()
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return ""
    return found if isinstance(found, str) and len(found) <= 64 else ""
