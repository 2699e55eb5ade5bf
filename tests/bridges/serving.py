"""A Modbus bridge in a thread of the test, and a PLC's bare socket."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import socket
import struct
import threading
from collections.abc import Iterator
from typing import Any

from inspector.bridges.modbus import Bridge
from inspector.config.bridge_file import ModbusBridge
from tests.stations import free_ports

BLOCK = 200
PLC = 300


def config(**changes: Any) -> ModbusBridge:
    made: dict[str, Any] = {
        "bridge": "modbus",
        "listen": "127.0.0.1:0",
        "cameras": ["top"],
        "station": {"commands": free_ports(1)[0]},
        "plc_heartbeat_s": 0,
    }
    return ModbusBridge.model_validate(made | changes)


@contextlib.contextmanager
def bridge(made: ModbusBridge) -> Iterator[int]:
    """The port of a bridge that serves."""
    ports: queue.Queue[int] = queue.Queue()
    ending: list[Any] = []

    async def serve() -> None:
        stop = asyncio.Event()
        ending.append((asyncio.get_running_loop(), stop))
        await Bridge(made, None).run(stop, ports.put)

    thread = threading.Thread(target=lambda: asyncio.run(serve()), name="bridge")
    thread.start()
    try:
        yield ports.get(timeout=20)
    finally:
        loop, stop = ending[0]
        loop.call_soon_threadsafe(stop.set)
        thread.join()


class Wire:
    """Bytes to and from a Modbus server."""

    def __init__(self, port: int, host: str = "127.0.0.1", *, source: str = "") -> None:
        self.socket = socket.create_connection((host, port), 10, (source, 0))
        self._transaction = 0

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def request(self, message: bytes, unit: int = 1) -> bytes:
        self._transaction = (self._transaction + 1) % 65_536
        return struct.pack(">HHHB", self._transaction, 0, len(message) + 1, unit) + message

    def answer(self) -> tuple[int, int, bytes]:
        """Transaction, unit and message of the next answer."""
        header = self._exactly(7)
        transaction, protocol, length, unit = struct.unpack(">HHHB", header)
        assert protocol == 0
        return transaction, unit, self._exactly(length - 1)

    def ask(self, message: bytes, unit: int = 1) -> bytes:
        self.socket.sendall(self.request(message, unit))
        transaction, answered, body = self.answer()
        assert (transaction, answered) == (self._transaction, unit)
        return body

    def read(self, address: int, count: int, code: int = 3) -> list[int]:
        body = self.ask(struct.pack(">BHH", code, address, count))
        assert body[0] == code, body.hex()
        return list(struct.unpack(f">{count}H", body[2:]))

    def write(self, address: int, *values: int) -> bytes:
        head = struct.pack(">BHHB", 16, address, len(values), 2 * len(values))
        return self.ask(head + struct.pack(f">{len(values)}H", *values))

    def _exactly(self, count: int) -> bytes:
        found = b""
        while len(found) < count:
            more = self.socket.recv(count - len(found))
            if not more:
                raise ConnectionError("hung up")
            found += more
        return found
