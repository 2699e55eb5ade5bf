"""A Modbus server in a thread of its own, for PLCs and modules that exist only here."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import Callable
from typing import Final

from inspector.bridges.modbus_server import ModbusServer, Table
from inspector.errors import PortError
from inspector.threads import Worker

_TICK_S: Final = 0.001
_CONNECTIONS: Final = 100
_ANYBODY: Final = ("0.0.0.0/0", "::/0")


class ServerThread(Worker):
    """Serves ``table`` at ``address``; ``tick`` is called every millisecond in the same thread."""

    def __init__(
        self, table: Table, address: tuple[str, int], tick: Callable[[], None] | None = None
    ) -> None:
        super().__init__("simulated-server")
        self._table = table
        self._address = address
        self._tick = tick
        self._opened: queue.SimpleQueue[int | PortError] = queue.SimpleQueue()
        self._ending = False

    def open(self) -> int:
        """Begin to serve; returns the port. Raises :class:`PortError`."""
        self.start()
        found = self._opened.get()
        if isinstance(found, PortError):
            raise found
        return found

    def finish(self) -> None:
        """Serve no more, and wait for that."""
        self._ending = True
        self.join()

    def work(self) -> None:
        """Serve until the end."""
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        server = ModbusServer(
            self._table,
            self._address,
            readers=(),
            writers=_ANYBODY,
            connections=_CONNECTIONS,
            written=lambda _: None,
        )
        try:
            self._opened.put(await server.open())
        except PortError as error:
            self._opened.put(error)
            return
        try:
            while not self._ending:
                if self._tick is not None:
                    self._tick()
                await asyncio.sleep(_TICK_S)
        finally:
            await server.stop()
