"""Who may connect to a station's sockets, and what each peer may do (docs/security.md).

Beyond loopback every socket speaks CURVE: both sides prove that they hold their key, and all that
travels is encrypted. libzmq asks who may connect (ZAP, rfc.zeromq.org/27), and the gate answers
from the station file's table of peers. ``zmq.auth.Authenticator`` is not used for that: it turns a
peer away with a 400, after which a client never tries again, and knows no roles.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
import socket as sockets
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal, get_args

import zmq
from zmq.utils import z85
from zmq.utils.monitor import parse_monitor_message

from inspector.config.addresses import LOOPBACK
from inspector.config.station_file import Role, Security
from inspector.errors import PortError, SecretError
from inspector.files import lock_file
from inspector.logs import say
from inspector.wire.keys import Keys, decode, load_keys

SocketName = Literal["verdicts", "images", "commands", "queries"]
"""A socket of a station, by its name in the station file."""

ALL_ROLES: Final[frozenset[Role]] = frozenset(get_args(Role))

_ADMITS: Final[Mapping[str, frozenset[Role]]] = {
    "verdicts": frozenset({"listen"}),
    "images": frozenset({"listen"}),
    "commands": ALL_ROLES,
    "queries": frozenset({"listen"}),
}
"""The roles that each socket lets in, by its :data:`SocketName`; a peer needs one of them."""

_HANDSHAKE_MS: Final = 5000
_ZAP: Final = "inproc://zeromq.zap.01"
_STOP: Final = "inproc://gate-stop"
_SAY_EVERY_S: Final = 10.0


class Gate:
    """The ZeroMQ context of one station: it opens the sockets, and knows who is on them.

    Without ``security.secret_key`` the sockets stay on loopback, and whoever connects may do
    everything. With it a peer needs a key of ``security.peers`` and a role that the socket admits;
    should the thread that answers libzmq die, nobody gets in. Raises :class:`SecretError`.

    Sockets are closed by ``close_socket``, all of them before ``close``.
    """

    def __init__(self, security: Security = Security()) -> None:  # noqa: B008
        self._keys, peers = _load(security)
        self._roles = {name: frozenset(peer.roles) for name, peer in security.peers.items()}
        self._context = zmq.Context()
        self._locks: list[int] = []
        self._guard: _Guard | None = None
        if self._keys is not None:
            self._guard = _Guard(
                self._context, {key: (name, self._roles[name]) for name, key in peers.items()}
            )
            self._guard.start()

    @property
    def public_key(self) -> str:
        """The key that clients must know the station by, Z85; "" without keys."""
        return self._keys.public.decode() if self._keys is not None else ""

    @property
    def crashed(self) -> bool:
        """True when the thread that lets peers in has died of an error: nobody new gets in."""
        return self._guard is not None and not self._guard.is_alive()

    @property
    def refused(self) -> int:
        """How many connections were turned away so far."""
        return self._guard.refused if self._guard is not None else 0

    def open(
        self,
        kind: int,
        name: SocketName,
        address: str,
        *,
        high_water: int,
        largest: int,
        heartbeat_ms: tuple[int, int] | None = None,
    ) -> zmq.Socket[bytes]:
        """A bound socket of ZeroMQ's ``kind`` (``zmq.ROUTER``, ...).

        A peer that sends a message of more than ``largest`` bytes is cut off; ``high_water`` is how
        many messages may wait for one peer. ``heartbeat_ms``: how often a peer is asked whether it
        is there, and how long it may be silent before it is cut off, with what waits for it. Raises
        :class:`PortError` when ``address`` cannot be bound, or can be reached from other machines
        while there are no keys.
        """
        if self._guard is None and not re.fullmatch(LOOPBACK, address):
            raise PortError(
                f"sockets.{name}: {address} can be reached from other machines, which needs keys: "
                f"run 'inspector keygen', then set security.secret_key"
            )
        socket = self._context.socket(kind)
        try:
            socket.linger = 0
            socket.set_hwm(high_water)
            socket.setsockopt(zmq.MAXMSGSIZE, largest)
            socket.setsockopt(zmq.HANDSHAKE_IVL, _HANDSHAKE_MS)
            if heartbeat_ms is not None:
                socket.setsockopt(zmq.HEARTBEAT_IVL, heartbeat_ms[0])
                socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, heartbeat_ms[1])
            if self._keys is not None:
                socket.curve_secretkey = self._keys.secret
                socket.curve_server = True
                socket.zap_domain = name.encode()
                # Without this libzmq lets everyone in while nobody answers its questions.
                socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
                socket.monitor(_monitor_of(name), _Guard.WATCHED)
            self._lock(address)
            socket.bind(address)
        except (OSError, zmq.ZMQError) as error:
            self.close_socket(socket, linger_ms=0)
            cause = (
                "in use; is another inspector running? Stop it or choose another address"
                if error.errno in {errno.EADDRINUSE, errno.EWOULDBLOCK, zmq.EADDRINUSE}
                else f"cannot be bound ({zmq.strerror(error.errno or 0)}); choose another address"
            )
            raise PortError(f"sockets: {address}: {cause}") from None
        return socket

    def peer_of(self, frame: zmq.Frame) -> str:
        """The name in ``security.peers`` of the peer that sent ``frame``; "" without keys.

        The handshake has proved it: it is not what a message says. ``frame`` is one received with
        ``copy=False``.
        """
        return str(frame.get("User-Id")) if self._guard is not None else ""

    def roles_of(self, peer: str) -> frozenset[Role]:
        """What ``peer`` may do; without keys every peer may do everything."""
        return self._roles.get(peer, frozenset()) if self._guard is not None else ALL_ROLES

    def close_socket(self, socket: zmq.Socket[bytes], linger_ms: int = 0) -> None:
        """Close ``socket``; what is queued is sent within ``linger_ms``, or dropped.

        To be called by the thread that uses the socket.
        """
        if self._guard is not None:
            # Once closed nobody reads the monitor's events, and libzmq's own thread would block.
            socket.disable_monitor()
        socket.close(linger=linger_ms)

    def close(self) -> None:
        """Wait until every closed socket has lingered, then end."""
        if self._guard is not None:
            self._guard.stop()
        self._context.term()
        for lock in self._locks:
            os.close(lock)
        self._locks.clear()

    def _lock(self, address: str) -> None:
        """Hold ``PATH.lock`` beside an ``ipc://PATH`` until ``close``. Raises OSError.

        Before it binds libzmq removes whatever stands at the path, be it the socket of a station
        that runs or a file that is no socket at all.
        """
        path = address.removeprefix("ipc://")
        if sys.platform == "win32" or path == address or path[:1] in ("", "*", "@"):
            return
        self._locks.append(lock_file(Path(f"{path}.lock"), 0o600))
        if Path(path).exists() and not Path(path).is_socket():
            raise FileExistsError(errno.EEXIST, "not a socket")
        # Somebody may have deleted the lock of a station that runs.
        with contextlib.closing(sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM)) as probe:
            if probe.connect_ex(os.fsencode(path)) == 0:
                raise OSError(errno.EADDRINUSE, "a station listens there")


class _Guard(threading.Thread):
    """The thread that answers libzmq who may connect, and logs whom it turned away."""

    WATCHED: Final = zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        peers: Mapping[bytes, tuple[str, frozenset[Role]]],
    ) -> None:
        """``peers``: name and roles by raw public key."""
        super().__init__(name="gate", daemon=True)
        self.refused = 0
        self._peers = peers
        self._told: dict[tuple[str, str], tuple[float, int]] = {}
        self._zap = context.socket(zmq.REP)
        self._zap.bind(_ZAP)
        self._stop_asked, self._stopped = context.socket(zmq.PAIR), context.socket(zmq.PAIR)
        self._stop_asked.bind(_STOP)
        self._stopped.connect(_STOP)
        self._monitors: dict[zmq.Socket[bytes], str] = {}
        for name in _ADMITS:
            monitor = context.socket(zmq.PAIR)
            # Without a limit: libzmq's own thread would wait for room.
            monitor.set_hwm(0)
            monitor.connect(_monitor_of(name))
            self._monitors[monitor] = name

    def run(self) -> None:
        poller = zmq.Poller()
        for socket in (self._zap, self._stopped, *self._monitors):
            poller.register(socket, zmq.POLLIN)
        while True:
            for socket, _ in poller.poll():
                if socket is self._stopped:
                    return
                if socket is self._zap:
                    self._zap.send_multipart(self._answer(self._zap.recv_multipart()))
                else:
                    self._note(self._monitors[socket], socket.recv_multipart())

    def stop(self) -> None:
        """End the thread and close its sockets."""
        self._stop_asked.send(b"")
        self.join()
        for socket in (self._zap, self._stop_asked, self._stopped, *self._monitors):
            socket.close(linger=0)

    def _answer(self, request: list[bytes]) -> list[bytes]:
        """The reply to a ZAP request: who a peer is, or that it is not let in."""
        version, number, domain, address, _identity, mechanism, *credentials = request
        name = domain.decode("ascii", "replace")
        key = credentials[0] if mechanism == b"CURVE" and len(credentials) == 1 else b""
        peer, roles = self._peers.get(key, ("", frozenset[Role]()))
        if roles & _ADMITS.get(name, frozenset()):
            return [version, number, b"200", b"OK", peer.encode(), b""]
        why = f"peer {peer} has no role for it" if peer else "unknown key"
        shown = z85.encode(key).decode() if len(key) == 32 else ""
        self._turn_away(name, why, address=address.decode("ascii", "replace"), key=shown)
        # 300 means "try again". After a 400 libzmq's client would not, even once its key is added.
        return [version, number, b"300", b"not admitted", b"", b""]

    def _note(self, name: str, event: list[bytes]) -> None:
        """Take note of a connection whose handshake failed before it came to a key."""
        kind = parse_monitor_message(event)["event"]
        if kind == zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL:
            self._turn_away(name, "no or another station's key")
        elif kind == zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL:
            self._turn_away(name, "ended before it showed a key")

    def _turn_away(self, name: str, why: str, **details: str) -> None:
        """Count it, and log at most one line in ten seconds for each socket and reason."""
        self.refused += 1
        said, times = self._told.get((name, why), (-_SAY_EVERY_S, 0))
        now, times = time.monotonic(), times + 1
        if now - said >= _SAY_EVERY_S:
            say("refused", logging.WARNING, socket=name, why=why, times=times, **details)
            said, times = now, 0
        self._told[name, why] = (said, times)


def _monitor_of(name: str) -> str:
    return f"inproc://gate-{name}"


def _load(security: Security) -> tuple[Keys | None, dict[str, bytes]]:
    """The station's pair, and each peer's raw public key. Raises :class:`SecretError`."""
    if security.secret_key is None:
        if security.peers:
            raise SecretError(
                "security.peers: has no effect without security.secret_key; run 'inspector keygen' "
                "and set it"
            )
        return None, {}
    own = load_keys(security.secret_key)
    peers: dict[str, bytes] = {}
    for name, peer in security.peers.items():
        raw = decode(peer.key.encode())
        if raw is None:
            raise SecretError(f"security.peers.{name}.key: is no key; copy it again")
        if peer.key.encode() == own.public:
            raise SecretError(
                f"security.peers.{name}.key: is the station's own; make one for each peer"
            )
        for other, taken in peers.items():
            if taken == raw:
                raise SecretError(
                    f"security.peers: {other} and {name} have the same key; make one for each peer"
                )
        peers[name] = raw
    return own, peers
