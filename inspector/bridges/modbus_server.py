"""A Modbus TCP server that answers every request, once and in order.

pymodbus makes and reads the messages and holds the port. Its own handler keeps one request for
each connection: of two that are in flight it answers one twice and the other never, and its buffer
of 264 bytes drops what is longer. So the handler here cuts a connection's bytes into requests by
itself, and answers each before it looks at the next.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final, Protocol

from pymodbus.constants import ExcCodes
from pymodbus.pdu import ExceptionResponse, ModbusPDU
from pymodbus.server import ModbusTcpServer
from pymodbus.server.requesthandler import ServerRequestHandler
from pymodbus.simulator import DataType, SimData, SimDevice

from inspector.errors import PortError
from inspector.logs import say

# What its complaints are about is told in this product's own words.
logging.getLogger("pymodbus").setLevel(logging.CRITICAL)

_WRITES: Final = frozenset({5, 6, 15, 16, 23})
"""Function codes that write, of those that the table served knows."""

_HEADER: Final = 7
"""Bytes of an MBAP header: transaction, protocol 0, length of what follows them, unit."""
_LONGEST: Final = 254
"""Of what the length counts: the unit and a message of 253 bytes."""
_UNREAD_BYTES: Final = 65_536
"""Answers that a peer has not taken; with more it is hung up."""
_SILENT_S: Final = 10.0
"""After this a silent connection gives its place to another one, if there is none left."""
_AT_ONCE: Final = 2
"""Requests of one peer that are answered before the others have their turn."""
_QUIET_S: Final = 10.0
"""Between two lines in the log about the same address."""


class Table(Protocol):
    """What a server serves: registers, coils or inputs, by function code."""

    @property
    def function_codes(self) -> frozenset[int]:
        """The ones that it knows; any other is exception 1."""

    def get(self, code: int, address: int, count: int) -> Sequence[int] | Sequence[bool] | None:
        """What stands there now; None where not all of it exists."""

    def put(self, code: int, address: int, values: Sequence[int]) -> int | None:
        """Write; returns what ``written`` is to hear, None where not all of it may be written."""


class ModbusServer(ModbusTcpServer):
    """Serves a table to those that may read and write it; made in a running loop.

    ``written`` hears after each write what the table returned: which camera's block it was in.
    """

    def __init__(
        self,
        table: Table,
        address: tuple[str, int],
        *,
        readers: Sequence[str],
        writers: Sequence[str],
        connections: int,
        written: Callable[[int], None],
    ) -> None:
        # pymodbus wants a device of its own, which nobody reaches.
        unused = SimDevice(0, simdata=[SimData(0, values=0, datatype=DataType.REGISTERS)])
        super().__init__(unused, address=address)
        self.table = table
        self.written = written
        self._connections = connections
        self._writers = [ipaddress.ip_network(one) for one in writers]
        self._readers = [ipaddress.ip_network(one) for one in readers] + self._writers
        self._said_s: dict[str, float] = {}

    async def open(self) -> int:
        """Begin to serve; returns the port. Raises :class:`PortError`."""
        host, port = self.comm_params.source_address or ("", 0)
        if not await self.listen():
            raise PortError(
                f"{host}:{port}: cannot be bound; another program may have the port, or it is "
                f"below 1024 and needs the right to bind it (docs/plc/modbus.md)"
            )
        sockets: Any = getattr(self.transport, "sockets", ())
        return int(sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Serve no more, and close every connection."""
        await self.shutdown()  # type: ignore[no-untyped-call]

    def callback_new_connection(self) -> ServerRequestHandler:
        """A handler for a connection that comes in."""
        return _Connection(self, None, None, None)  # type: ignore[no-untyped-call]

    def may_read(self, host: str) -> bool:
        """True when this address may connect."""
        return _is_in(host, self._readers)

    def may_write(self, host: str) -> bool:
        """True when this address may write."""
        return _is_in(host, self._writers)

    def has_room(self, newcomer: _Connection) -> bool:
        """True when one more may stay, if need be in the place of another.

        That is one which has been silent, as are those that a PLC left behind when it lost its
        power; or, for one who may write, the place of one who may not.
        """
        open_ones = [
            one
            for one in self.active_connections.values()
            if isinstance(one, _Connection) and one is not newcomer and one.is_open
        ]
        if len(open_ones) < self._connections:
            return True
        now_s = time.monotonic()
        left = [
            one
            for one in open_ones
            if now_s >= one.heard_s + _SILENT_S or (newcomer.may_write and not one.may_write)
        ]
        if left:
            min(left, key=lambda one: one.heard_s).hang_up("gave its place to another connection")
        return bool(left)

    def complain(self, host: str, what: str) -> None:
        """Log what a peer did wrong, not more often than every ten seconds."""
        now_s = time.monotonic()
        if len(self._said_s) > 1000:
            self._said_s.clear()
        if now_s >= self._said_s.get(host, -_QUIET_S) + _QUIET_S:
            self._said_s[host] = now_s
            say("modbus", logging.WARNING, peer=host, problem=what)


class _Connection(ServerRequestHandler):
    """One peer's connection.

    Of what a peer sends at once a few requests are answered; then all others have their turn before
    it goes on, and meanwhile no more is read from it. So nobody who floods stops a PLC.
    """

    server: ModbusServer
    heard_s: float
    """When it sent something last."""
    may_write: bool

    _host = ""

    def callback_connected(self) -> None:
        """Know the peer, and hang up on one that may not read."""
        self._bytes = bytearray()
        self._is_paused = False
        self.heard_s = time.monotonic()
        peer = self.transport.get_extra_info("peername")
        self._host = str(peer[0]) if peer else ""
        self.may_write = self.server.may_write(self._host)
        if not self.server.may_read(self._host):
            self.hang_up("is in neither 'readers' nor 'writers'")
        elif not self.server.has_room(self):
            self.hang_up("came as one connection too many; see 'connections'")

    @property
    def is_open(self) -> bool:
        """False once it was hung up."""
        transport: Any = self.transport
        return transport is not None and not transport.is_closing()

    def data_received(self, data: bytes) -> None:
        """Answer every whole request, in order, and keep the rest."""
        self.heard_s = time.monotonic()
        self._bytes += data
        if not self._is_paused:
            self._take()

    def _take(self) -> None:
        """Answer the next few requests, and come back for more."""
        transport: Any = self.transport
        for _ in range(_AT_ONCE):
            if transport is None or transport.is_closing():
                self._bytes.clear()
                return
            request = self._next()
            if request is None:
                if self._is_paused and not transport.is_closing():
                    self._is_paused = False
                    transport.resume_reading()
                return
            self._answer(request)
        if not self._is_paused:
            self._is_paused = True
            transport.pause_reading()
        asyncio.get_running_loop().call_soon(self._take)

    def _next(self) -> bytes | None:
        """The next whole request; None where there is none."""
        if len(self._bytes) <= _HEADER:
            return None
        protocol = int.from_bytes(self._bytes[2:4], "big")
        length = int.from_bytes(self._bytes[4:6], "big")
        if protocol or not 2 <= length <= _LONGEST:
            self.hang_up("sent bytes that are no Modbus TCP")
            return None
        end = 6 + length
        if len(self._bytes) < end:
            return None
        request = bytes(self._bytes[:end])
        del self._bytes[:end]
        return request

    def hang_up(self, why: str) -> None:
        """Close the connection, and say why."""
        self.server.complain(self._host, why)
        self._bytes.clear()
        transport: Any = self.transport
        if transport is not None:
            transport.abort()

    def _answer(self, request: bytes) -> None:
        response = self._response(request[_HEADER:])
        response.transaction_id = int.from_bytes(request[:2], "big")
        response.dev_id = request[6]
        self.pdu_send(response)
        transport: Any = self.transport
        if transport is not None and transport.get_write_buffer_size() > _UNREAD_BYTES:
            self.hang_up("does not read the answers")

    def _response(self, message: bytes) -> ModbusPDU:
        code = message[0]
        if code not in self.server.table.function_codes:
            return ExceptionResponse(code & 0x7F, ExcCodes.ILLEGAL_FUNCTION)
        if code in _WRITES and not self.may_write:
            self.server.complain(self._host, "wrote, and is not in 'writers'")
            return ExceptionResponse(code, ExcCodes.ILLEGAL_FUNCTION)
        pdu = self.server.decoder.decode(message)
        if pdu is None:
            return ExceptionResponse(code, ExcCodes.ILLEGAL_VALUE)
        context: Any = _Context(self.server.table)
        response = _at_once(pdu.datastore_update(context, 0))
        # The bridge acts at once, so that an answer to the PLC shows what its write has done.
        if context.written is not None:
            self.server.written(context.written)
            if code == 23 and not response.isError():
                response = self._read_again(message)
        return response

    def _read_again(self, message: bytes) -> ModbusPDU:
        """The answer to function 23, whose reading comes after what its writing has caused."""
        address, count = int.from_bytes(message[1:3], "big"), int.from_bytes(message[3:5], "big")
        reading = b"\x03" + address.to_bytes(2, "big") + count.to_bytes(2, "big")
        pdu = self.server.decoder.decode(reading)
        if pdu is None:
            return ExceptionResponse(23, ExcCodes.ILLEGAL_VALUE)
        context: Any = _Context(self.server.table)
        response = _at_once(pdu.datastore_update(context, 0))
        response.function_code = 23
        return response


class _Context:
    """A table as pymodbus' messages ask for it."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self.written: int | None = None

    async def async_getValues(  # noqa: N802 - pymodbus calls it so
        self, _unit: int, code: int, address: int, count: int = 1
    ) -> list[int] | list[bool] | ExcCodes:
        """Registers, or bits for the function codes of coils and inputs."""
        found = self._table.get(code, address, count)
        return ExcCodes.ILLEGAL_ADDRESS if found is None else list(found)

    async def async_setValues(  # noqa: N802 - pymodbus calls it so
        self, _unit: int, code: int, address: int, values: list[int]
    ) -> ExcCodes | None:
        """Write registers or coils."""
        self.written = self._table.put(code, address, values)
        return ExcCodes.ILLEGAL_ADDRESS if self.written is None else None


def _at_once(work: Coroutine[Any, Any, ModbusPDU]) -> ModbusPDU:
    """The result of a coroutine that waits for nothing."""
    try:
        work.send(None)
    except StopIteration as done:
        response: ModbusPDU = done.value
        return response
    raise AssertionError("a request waited")


def _is_in(host: str, networks: Sequence[ipaddress.IPv4Network | ipaddress.IPv6Network]) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return any((mapped or address) in network for network in networks)
