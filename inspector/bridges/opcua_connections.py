"""Connections of OPC UA clients, with bounds on what a peer may take whether it logs in or not.

asyncua serves whoever connects: it collects bytes for as long a message as a peer announces, keeps
what it cannot read, answers a peer that takes no answers, and holds a connection for ever whose
peer has vanished. Here each of these ends the connection, with one line in the log.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Any, Final

from asyncua import Server, ua
from asyncua.common.connection import TransportLimits
from asyncua.common.utils import Buffer, ServiceError
from asyncua.server.binary_server_asyncio import BinaryServer, OPCUAProtocol
from asyncua.server.internal_server import InternalServer
from asyncua.server.internal_session import SessionState
from asyncua.server.uaprocessor import UaProcessor
from asyncua.ua.ua_binary import header_from_binary, uatcp_to_binary

from inspector.bridges.opcua_security import SIGNATURE_ERRORS, Users
from inspector.bridges.opcua_sessions import MOST_OPERATIONS, OPERATION_LIMITS, Internal
from inspector.logs import Refusals

_NO_SESSION_S: Final = 10.0
"""A connection without a session is closed after this."""
_LOOK_S: Final = 1.0
_BEFORE_LOGIN: Final = 65_536
"""Bytes that a peer may send until it has logged in; a login takes some ten thousand."""
_LONGEST_CHUNK: Final = 65_535
_LEAST_BUFFER: Final = 8192
"""The specification's; in smaller ones an answer would be thousands of chunks."""
_LONGEST_REQUEST: Final = 65_536
"""As asyncua tells a client that logs in; to read so many bytes takes a fifth of a second."""
_WAITING_MESSAGES: Final = 100
_UNREAD_BYTES: Final = 4 * 1024 * 1024
"""Answers that a peer has not taken; with more it is hung up."""
_SENDING_BYTES: Final = 256 * 1024
_VANISHED_S: Final = 10
"""A peer whose machine answers nothing for this long has vanished."""
_KINDS: Final = {b"HEL": 8, b"OPN": 12, b"MSG": 12, b"CLO": 12, b"ERR": 8}
"""The messages that a client sends, and the bytes of their headers."""
_CREATE_SESSION: Final = ua.NodeId(ua.ObjectIds.CreateSessionRequest_Encoding_DefaultBinary)


class BoundedServer(Server):  # type: ignore[misc]
    """An OPC UA server that a peer's bytes neither stop nor fill."""

    def __init__(self, users: Users, refusals: Refusals, connections: int) -> None:
        internal = Internal(users, refusals)
        internal.max_connections = connections
        internal.max_pending_messages_per_connection = _WAITING_MESSAGES
        super().__init__(iserver=internal)
        self._refusals = refusals

    async def init(self, shelf_file: Any = None) -> None:
        """Build the nodes of the base specification."""
        await super().init(shelf_file)
        for number in OPERATION_LIMITS:
            limit = ua.DataValue(ua.Variant(MOST_OPERATIONS, ua.VariantType.UInt32))
            await self.write_attribute_value(ua.NodeId(number), limit)

    async def start(self) -> None:
        """Listen. Raises :class:`OSError`."""
        await self._setup_server_nodes()
        await self.iserver.start()
        host, port = self._get_bind_socket_info()
        self.bserver = _Listener(self.iserver, host, port, self.limits, self._refusals)
        self.bserver.set_policies(self._policies)
        try:
            await self.bserver.start()
        except OSError:
            await self.iserver.stop()
            raise


class _Listener(BinaryServer):  # type: ignore[misc]
    """Makes a connection of each peer that comes."""

    def __init__(
        self,
        internal: InternalServer,
        host: str | None,
        port: int | None,
        limits: TransportLimits,
        refusals: Refusals,
    ) -> None:
        super().__init__(internal, host, port, limits)
        self._refusals = refusals

    def _make_protocol(self) -> _Connection:
        return _Connection(self, self._refusals)


class _Connection(OPCUAProtocol):  # type: ignore[misc]
    """One peer's connection."""

    def __init__(self, listener: _Listener, refusals: Refusals) -> None:
        super().__init__(
            listener.iserver,
            listener._policies,
            listener.clients,
            listener.closing_tasks,
            listener.limits,
        )
        self._refusals = refusals
        self._host = "?"
        self._was_in = False
        self._received = 0
        self._pieces = 0
        self._buffer = bytearray()

    @property
    def has_session(self) -> bool:
        """True while the peer is logged in."""
        session = self.processor.session if self.processor is not None else None
        return session is not None and session.is_activated()

    def connection_made(self, transport: Any) -> None:
        """Take the peer in; where there are too many, one that has not logged in has to go."""
        peer = transport.get_extra_info("peername")
        self._host = str(peer[0]) if peer else "?"
        if len(self.clients) >= self.iserver.max_connections:
            # The specification has a server close the oldest one without a session.
            idle = next((one for one in self.clients if not one.has_session), None)
            if idle is None:
                self._refusals.say(self._host, "came as one connection too many; see 'connections'")
                transport.abort()
                return
            idle.hang_up("had not logged in when 'connections' were used up")
        transport.set_write_buffer_limits(high=_UNREAD_BYTES)
        _set_up(transport.get_extra_info("socket"))
        super().connection_made(transport)
        self.processor = _Processor(self.iserver, transport, self.limits, self)
        self.processor.set_policies(self.policies)

    def connection_lost(self, ex: BaseException | None) -> None:
        """Clean up after the peer."""
        if self._buffer and self.transport is not None and self in self.clients:
            self.complain("hung up in the middle of a message")
        super().connection_lost(ex)

    def pause_writing(self) -> None:
        """Hang up on a peer that takes no answers."""
        self.hang_up("does not take its answers")

    def data_received(self, data: bytes) -> None:
        """Cut the bytes into messages."""
        if self.transport is None or self.transport.is_closing():
            return
        self._was_in = self._was_in or self.has_session
        self._received += len(data)
        if self._received > _BEFORE_LOGIN and not self._was_in:
            self.hang_up(f"sent more than {_BEFORE_LOGIN} bytes before it logged in")
            return
        self._buffer += data
        while len(self._buffer) >= 8:
            kind, final, size = struct.unpack_from("<3scI", self._buffer)
            header = _KINDS.get(kind, 0)
            if not header or final not in b"FCA" or size <= header:
                self.hang_up("sent bytes that are no OPC UA", _NOT_OURS)
                return
            if size > _LONGEST_CHUNK:
                self.hang_up(f"announced a message of {size} bytes in one piece", _TOO_LARGE)
                return
            if len(self._buffer) < size:
                return
            self._pieces += size - header
            if self._pieces > _LONGEST_REQUEST:
                self.hang_up(f"sent a request of more than {_LONGEST_REQUEST} bytes", _TOO_LARGE)
                return
            if final != b"C":
                self._pieces = 0
            message = Buffer(bytes(self._buffer[:size]))
            del self._buffer[:size]
            try:
                self.messages.put_nowait((header_from_binary(message), message))
            except asyncio.QueueFull:
                self.hang_up(f"has {_WAITING_MESSAGES} requests under way")
                return

    async def _process_one_msg(self, header: Any, buf: Buffer) -> bool:
        # A queue of requests is no reason to keep the others waiting.
        await asyncio.sleep(0)
        try:
            return bool(await super()._process_one_msg(header, buf))
        except SIGNATURE_ERRORS:
            self.hang_up(_FORGED, _CHECKS)
        except Exception:  # noqa: BLE001 - what a reader of foreign bytes raises is not documented
            self.hang_up("sent a message that cannot be read", _CHECKS)
        return False

    async def _activation_watchdog(self) -> None:
        without_s = 0.0
        while without_s < _NO_SESSION_S:
            await asyncio.sleep(_LOOK_S)
            without_s = 0.0 if self.has_session else without_s + _LOOK_S
        self.hang_up(f"was not logged in for {_NO_SESSION_S:g} s")

    def complain(self, problem: str) -> None:
        """Log what the peer did wrong."""
        self._refusals.say(self._host, problem)

    def hang_up(self, problem: str, code: int = 0) -> None:
        """End the connection; the peer hears ``code`` first, if there is one."""
        if self.transport is None or self.transport.is_closing():
            return
        self.complain(problem)
        # It is gone for whoever counts, although the event loop closes it a little later.
        if self in self.clients:
            self.clients.remove(self)
        if code:
            error = ua.ErrorMessage(ua.StatusCode(code), problem)
            self.transport.write(uatcp_to_binary(ua.MessageType.Error, error))
            self.transport.close()
        else:
            self.transport.abort()


class _Processor(UaProcessor):  # type: ignore[misc]
    """Reads one peer's requests."""

    def __init__(
        self,
        internal: InternalServer,
        transport: Any,
        limits: TransportLimits,
        connection: _Connection,
    ) -> None:
        super().__init__(internal, transport, limits)
        self._peer = connection

    @property
    def is_closed(self) -> bool:
        """True once nothing reaches the peer."""
        return bool(self._transport.is_closing())

    def get_publish_request(self, subscription_id: int) -> Any:
        """A request of the client that an event can answer; None: it has none, or is gone."""
        return None if self.is_closed else super().get_publish_request(subscription_id)

    async def process(self, header: Any, body: Buffer) -> bool:
        """Read one message; False: the connection has to end."""
        if header.MessageType == ua.MessageType.Hello:
            _, receives, sends = struct.unpack_from("<III", bytes(body.copy(header.body_size)))
            if min(receives, sends) < _LEAST_BUFFER:
                self._peer.hang_up(f"has buffers of less than {_LEAST_BUFFER} bytes", _CHECKS)
                return False
        return bool(await super().process(header, body))

    def _refuse_session(self) -> None:
        """Raise :class:`ServiceError` for a peer that may have no session, or no other one."""
        offered = {one.SecurityPolicyUri for one in self.iserver.endpoints}
        if self._connection.security_policy.URI not in offered:
            # A channel without security is there to ask what is offered.
            self._peer.complain("asked for a session without certificate and encryption")
            raise ServiceError(ua.StatusCodes.BadSecurityPolicyRejected)
        if self.session is not None and self.session.state is not SessionState.Closed:
            self._peer.complain("asked for a second session on one connection")
            raise ServiceError(ua.StatusCodes.BadTooManySessions)

    async def _process_message(self, typeid: Any, requesthdr: Any, seqhdr: Any, body: Any) -> Any:
        if typeid == _CREATE_SESSION:
            self._refuse_session()
        try:
            return await super()._process_message(typeid, requesthdr, seqhdr, body)
        except (ServiceError, ua.UaStatusCodeError):
            raise
        except SIGNATURE_ERRORS:
            self._peer.complain(_FORGED)
            raise ServiceError(ua.StatusCodes.BadApplicationSignatureInvalid) from None
        except Exception:  # noqa: BLE001 - what a reader of foreign bytes raises is not documented
            self._peer.complain("sent a request that cannot be read")
            raise ServiceError(ua.StatusCodes.BadDecodingError) from None


_FORGED: Final = "signs with another key than that of its certificate"
_NOT_OURS: Final = ua.StatusCodes.BadTcpMessageTypeInvalid
_TOO_LARGE: Final = ua.StatusCodes.BadTcpMessageTooLarge
_CHECKS: Final = ua.StatusCodes.BadSecurityChecksFailed


def _set_up(connection: socket.socket) -> None:
    """Have the operating system hold few answers, and end a connection whose peer has vanished."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SENDING_BYTES)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", _VANISHED_S // 2),
        ("TCP_KEEPINTVL", 1),
        ("TCP_KEEPCNT", _VANISHED_S // 2),
        ("TCP_USER_TIMEOUT", 1000 * _VANISHED_S),
    ):
        if hasattr(socket, name):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
