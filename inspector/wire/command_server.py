"""The station's command socket: commands in, replies out, and missed verdicts from the journal.

A ROUTER socket: each connection has an identity, which libzmq puts before what it receives and
takes off what it sends.
"""

from __future__ import annotations

import collections
import contextlib
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from socket import socketpair
from typing import Final

import zmq

from inspector.config.station_file import Role
from inspector.errors import JournalError, WireError
from inspector.threads import Worker
from inspector.wire.clocks import Clocks
from inspector.wire.gate import ALL_ROLES, Gate
from inspector.wire.messages import (
    AcknowledgeCommand,
    Command,
    DeliveredCommand,
    EpochField,
    InstallCommand,
    LimitCommand,
    MarkCommand,
    RecipeCommand,
    RefusalCode,
    ReloadCommand,
    ReplayCommand,
    ReplyMessage,
    ResetCommand,
    RevertCommand,
    StartCommand,
    StatusCommand,
    StatusMessage,
    StopCommand,
    TriggerCommand,
    UploadCommand,
    decode_command,
    encode,
)
from inspector.wire.outbox import Outbox
from inspector.wire.replay import Bucket, RecordedVerdicts, read_replay
from inspector.wire.requests import Request

ADMITTED: Final[Mapping[type[Command], frozenset[Role]]] = {
    TriggerCommand: frozenset({"trigger"}),
    StatusCommand: ALL_ROLES,
    RecipeCommand: frozenset({"operate"}),
    ReloadCommand: frozenset({"operate"}),
    StartCommand: frozenset({"operate"}),
    StopCommand: frozenset({"operate"}),
    ResetCommand: frozenset({"operate"}),
    DeliveredCommand: frozenset({"trigger"}),
    MarkCommand: frozenset({"operate"}),
    LimitCommand: frozenset({"operate"}),
    AcknowledgeCommand: frozenset({"operate"}),
    UploadCommand: frozenset({"engineer"}),
    InstallCommand: frozenset({"engineer"}),
    RevertCommand: frozenset({"engineer"}),
    ReplayCommand: frozenset({"listen"}),
}
"""The roles that may send each command; a peer needs one of them."""

REPLAY_PER_S: Final = 2000.0
"""Recorded verdicts a second that one client is sent; all clients together five times as many."""

_LARGEST_COMMAND: Final = 64 << 10
_HIGH_WATER: Final = 256
_MOST_OUTSTANDING: Final = 1000
"""Commands of one client that may wait for their last reply."""
_MOST_KEPT: Final = 3 * _MOST_OUTSTANDING
"""Replies that wait for one connection: a trigger has three, and a slow disk ends all at once."""
_MOST_KEPT_BYTES: Final = 64 << 20
_PATIENCE_S: Final = 10.0
"""For so long a connection with kept replies may be passed none of them."""
_MOST_REPLAYS: Final = 4
"""Replays of one client that may wait for their turn."""
_EPOCHS_SHOWN: Final = 100
_MOST_A_TURN: Final = 100
"""Commands read at once, so that a flood of them cannot hold up replies."""
_LEAST_COST: Final = 5.0
"""Verdicts that a replay counts as at least: reading the journal in vain takes time, too."""
_LINGER_MS: Final = 500
_DRAIN_S: Final = 0.25

_NO_VERDICTS: Final = b'"verdicts":[]'
"""Where the recorded verdicts go in a reply: its text fields have every quote escaped."""


@dataclass
class _Client:
    """What a peer is owed. A peer is known by its name, without keys by its connection's identity.

    ``replays``: the connection that asked, and for what; the first is served next.
    """

    bucket: Bucket
    outstanding: int = 0
    replays: collections.deque[tuple[bytes, ReplayCommand]] = field(
        default_factory=collections.deque
    )


class CommandSocket:
    """The bound ROUTER socket that commands come in by. Raises :class:`PortError`."""

    def __init__(self, gate: Gate, address: str) -> None:
        self.gate = gate
        self.socket: zmq.Socket[bytes] = gate.open(
            zmq.ROUTER, "commands", address, high_water=_HIGH_WATER, largest=_LARGEST_COMMAND
        )
        # Without this a reply to a client that has gone vanishes; with it, it is a counted error.
        self.socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self.address = self.socket.getsockopt_string(zmq.LAST_ENDPOINT)

    def close(self, linger_ms: int = 0) -> None:
        """Let the address go; to be called by the thread that uses the socket, also twice."""
        if not self.socket.closed:
            self.gate.close_socket(self.socket, linger_ms)


class Commands(Worker):
    """The thread that owns the command socket.

    It asks ``status`` for the state of the station, which it tells at once. All other commands wait
    for :meth:`begin`, so that a station that is still starting can be asked how it stands. Replays
    are answered in chunks of at most 100 verdicts, one client after the other, so that no refill
    holds up another one or the line. A client that has gone or does not read loses its replies, and
    nobody waits for it.
    """

    def __init__(
        self,
        socket: CommandSocket,
        *,
        status: Callable[[], StatusMessage],
        handle: Callable[[Request], None] | None = None,
        reader: Callable[[], RecordedVerdicts] | None = None,
        replay_per_s: float = REPLAY_PER_S,
    ) -> None:
        super().__init__("commands")
        self._gate = socket.gate
        self._socket = socket.socket
        self._handle = handle
        self._status = status
        self._open_reader = reader
        self._begun_with: (
            tuple[Callable[[Request], None], Callable[[], RecordedVerdicts]] | None
        ) = None
        self._early: list[tuple[bytes, list[zmq.Frame]]] = []
        """Commands that came before ``begin``, each with its connection."""
        self._reader: RecordedVerdicts | None = None
        self._replay_per_s = replay_per_s
        self._clients: collections.OrderedDict[bytes, _Client] = collections.OrderedDict()
        self._all = Bucket.full(5 * replay_per_s)
        self._clocks = Clocks()
        self._replies: collections.deque[tuple[bytes, bytes, ReplyMessage, bool]] = (
            collections.deque()
        )
        self._closing = False
        self._outbox = Outbox(
            socket.socket, most=_MOST_KEPT, most_bytes=_MOST_KEPT_BYTES, patience_s=_PATIENCE_S
        )
        self.address = socket.address
        self._awake, self._waker = socketpair()
        self._awake.setblocking(False)
        self._waker.setblocking(False)

    def begin(
        self, handle: Callable[[Request], None], reader: Callable[[], RecordedVerdicts]
    ) -> None:
        """Serve all commands from now on, first those that came before; any thread may call.

        ``handle`` is called with every :data:`Order`; it must not block, and may answer from any
        thread. ``reader`` opens the journal.
        """
        self._begun_with = handle, reader
        self._wake()

    @property
    def unsent(self) -> int:
        """How many replies were dropped because their client had gone or did not read."""
        return self._outbox.unsent

    @property
    def served(self) -> bool:
        """True while a client waits for a reply, or asked so lately that it is still known."""
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
                # Read before the replies are sent: those put before ``finish`` are all sent, those
                # put after it perhaps not.
                closing = self._closing
                self._send_replies()
                self._take_early(closing)
                if closing:
                    self._outbox.drain(_DRAIN_S)
                    return
                waits_ms = [
                    wait
                    for wait in (self._outbox.retry(), self._serve_replay())
                    if wait is not None
                ]
                poller.poll(min(waits_ms, default=None))
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
                if len(frames) > 1:
                    # Pieces of bundles come one after the other: replies go out between them.
                    return

    def _accept(self, identity: bytes, frames: list[zmq.Frame], closing: bool = False) -> None:
        if not 1 <= len(frames) <= 2:
            detail = f"received command of {len(frames)} frames, expected 1"
            self._refuse(identity, "", "malformed", detail)
            return
        body = frames[0].bytes
        try:
            command = decode_command(body)
        except WireError as error:
            self._refuse(identity, id_in(body), "malformed", str(error))
            return
        if len(frames) != 1 and not isinstance(command, UploadCommand):
            detail = f"received command {command.command} of {len(frames)} frames, expected 1"
            self._refuse(identity, command.id, "malformed", detail)
            return
        peer = self._gate.peer_of(frames[0])
        if not ADMITTED[type(command)] & self._gate.roles_of(peer):
            detail = f"peer '{peer}' may not send {command.command}; see security.peers"
            self._refuse(identity, command.id, "forbidden", detail)
            return
        if isinstance(command, StatusCommand):
            received_us = time.monotonic_ns() // 1000
            self._clocks.hear(identity, command.sent_us, command.answered_us, received_us)
            self._outbox.send(identity, encode(self._describe(command.id)))
            return
        key = peer.encode() or identity
        client = self._clients.setdefault(key, _Client(Bucket.full(self._replay_per_s)))
        if isinstance(command, ReplayCommand):
            self._queue_replay(client, identity, command)
        elif self._handle is None and isinstance(command, UploadCommand):
            # Pieces are not kept until it can write them.
            self._refuse(identity, command.id, "not_ready", "the station starts; send it then")
        elif self._handle is None:
            self._put_off(identity, frames, command.id, closing)
        elif client.outstanding >= _MOST_OUTSTANDING:
            detail = f"{client.outstanding} commands of this client already wait for their answer"
            self._refuse(identity, command.id, "busy", detail)
        else:
            client.outstanding += 1
            data = frames[1].bytes if len(frames) > 1 else b""
            request = Request(command, peer, self._sender(key, identity), data)
            if isinstance(command, TriggerCommand) and command.sent_us is not None:
                received_us = request.received_ns // 1000
                age_us = self._clocks.age_us(identity, command.sent_us, received_us)
                # A sender that has not measured its clock is taken to have the station's.
                request.age_us = request.received_us - command.sent_us if age_us is None else age_us
            self._handle(request)

    def _take_early(self, closing: bool) -> None:
        """After ``begin``, or at the end: what came before it, ahead of all that comes later."""
        if self._handle is None and self._begun_with is not None:
            self._handle, self._open_reader = self._begun_with
        if self._handle is not None or closing:
            early, self._early = self._early, []
            for identity, frames in early:
                self._accept(identity, frames, closing)

    def _put_off(self, identity: bytes, frames: list[zmq.Frame], id_: str, closing: bool) -> None:
        if closing:
            self._refuse(identity, id_, "stopping", "the station ends before it was Ready")
        elif len(self._early) >= _MOST_OUTSTANDING:
            detail = f"the station starts, and {_MOST_OUTSTANDING} commands wait already"
            self._refuse(identity, id_, "busy", detail)
        else:
            self._early.append((identity, frames))

    def _sender(self, key: bytes, identity: bytes) -> Callable[[ReplyMessage, bool], None]:
        def send(reply: ReplyMessage, last: bool) -> None:
            self._replies.append((key, identity, reply, last))
            self._wake()

        return send

    def _wake(self) -> None:
        # When the pipe is full the thread wakes up anyway; when it is closed the thread has ended.
        with contextlib.suppress(OSError):
            self._waker.send(b"\0")

    def _send_replies(self) -> None:
        while self._replies:
            key, identity, reply, last = self._replies.popleft()
            self._clients[key].outstanding -= last
            self._outbox.keep(identity, encode(reply))

    def _refuse(self, identity: bytes, id_: str, code: RefusalCode, detail: str) -> None:
        reply = ReplyMessage(id=id_, kind="refused", code=code, detail=detail)
        self._outbox.send(identity, encode(reply))

    def _describe(self, id_: str) -> ReplyMessage:
        epochs: Sequence[tuple[str, int]] = ()
        try:
            if self._open_reader is None:
                detail = "the station starts; other commands wait until it is Ready"
            else:
                epochs, detail = self._journal().epochs(), ""
        except JournalError as error:
            self._forget_journal()
            detail = str(error)
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
            if self._open_reader is None:
                raise JournalError("the station starts, and its journal is not read yet")
            self._reader = self._open_reader()
        return self._reader

    def _forget_journal(self) -> None:
        """Close the journal; the next client that needs it has it opened anew, mended perhaps."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def _queue_replay(self, client: _Client, identity: bytes, command: ReplayCommand) -> None:
        """Have ``command`` wait for its turn, in place of the same one sent before."""
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
        """Send one chunk to the client whose turn it is.

        Returns how many ms to wait until the next one may be sent; None when no client waits.
        """
        now = time.monotonic()
        self._forget_idle(now)
        if self._open_reader is None:
            return None
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
        cost = max(_LEAST_COST, self._replay(identity, command))
        client.bucket.level -= cost
        self._all.level -= cost
        return 0

    def _replay(self, identity: bytes, command: ReplayCommand) -> int:
        """Answer ``command``; how many verdicts were sent."""
        try:
            reply, verdicts = read_replay(self._journal(), command)
        except JournalError as error:
            self._forget_journal()
            self._refuse(identity, command.id, "journal", str(error))
            return 0
        # The verdicts are passed on as they are recorded: what was published, byte for byte.
        body = encode(reply).replace(_NO_VERDICTS, b'"verdicts":[%b]' % b",".join(verdicts), 1)
        self._outbox.send(identity, body)
        return len(verdicts)

    def _forget_idle(self, now: float) -> None:
        """Forget clients that are owed nothing and may take a full chunk at once."""
        idle = [
            key
            for key, client in self._clients.items()
            if not client.outstanding and not client.replays and client.bucket.wait_s(now) == 0
            if client.bucket.level >= client.bucket.size
        ]
        for key in idle:
            del self._clients[key]


def id_in(body: bytes) -> str:
    """The id in a command that is otherwise wrong, by which its sender knows the reply; or ""."""
    try:
        found = json.loads(body)["id"]
        found.encode()
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return ""
    return found if isinstance(found, str) and len(found) <= 64 else ""
