"""A simulated PLC that is the server: a bridge polls its memory, and writes there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from inspector.bridges.registers import CAMERA, PLC, PLC_OFFSET, ByteOrders
from inspector.bridges.simulated_plc import FunctionBlock, SimulatedPlc, read_values
from inspector.bridges.simulated_server import ServerThread

_BLOCK: Final = CAMERA[-1].at + 1


class ServedPlc(SimulatedPlc):
    """The same program as that of a PLC which is the client; only who asks differs.

    ``base`` is the address of the camera's block in its memory. Raises :class:`PortError`.
    """

    def __init__(
        self, block: FunctionBlock, address: tuple[str, int], base: int, orders: ByteOrders
    ) -> None:
        super().__init__(block, *address, 0, orders)
        self.memory = PlcMemory(base)
        self._server = ServerThread(self.memory, address)
        self.port = self._server.open()

    def close(self) -> None:
        """Serve no more; may be called more than once."""
        super().close()
        self._server.finish()

    def _exchange(self) -> dict[str, int | float] | None:
        """Both blocks lie in this PLC's own memory; None until the bridge has written."""
        read = self.memory.scan(self._written())
        return None if read is None else read_values(read, self._orders)


class PlcMemory:
    """The registers of a PLC: a block that its program writes, and one that a bridge writes."""

    function_codes: Final = frozenset({3, 6, 16})

    def __init__(self, base: int) -> None:
        self._base = base
        self._status = [0] * _BLOCK
        self._command = [0] * (PLC[-1].at + 1)
        self._is_written = False

    def scan(self, written: list[int]) -> list[int] | None:
        """What the program does once a cycle: it writes its block, and reads the bridge's."""
        self._command = list(written)
        return list(self._status) if self._is_written else None

    def get(self, _code: int, address: int, count: int) -> list[int] | None:
        """Registers of one of the two blocks."""
        for base, block in (
            (self._base, self._status),
            (self._base + PLC_OFFSET, self._command),
        ):
            at = address - base
            if at >= 0 and at + count <= len(block):
                return block[at : at + count]
        return None

    def put(self, _code: int, address: int, values: Sequence[int]) -> int | None:
        """Write the bridge's block; the program's is the program's."""
        at = address - self._base
        if at < 0 or at + len(values) > _BLOCK:
            return None
        status = list(self._status)
        status[at : at + len(values)] = values
        self._status, self._is_written = status, True
        return 0
