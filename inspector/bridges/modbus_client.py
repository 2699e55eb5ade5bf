"""A connection to a Modbus server: one request at a time, and after any error a new connection."""

from __future__ import annotations

import contextlib
import logging
import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from pymodbus.client import ModbusTcpClient
from pymodbus.exceptions import ModbusException
from pymodbus.pdu import ExceptionResponse, ModbusPDU

from inspector.config.modbus_client import ModbusDevice

# What its complaints are about is told in this product's own words.
logging.getLogger("pymodbus").setLevel(logging.CRITICAL)

MOST_READ: Final = 125
MOST_WRITTEN: Final = 123
"""Registers in one request."""


class DeviceError(Exception):
    """A request was not answered, or not as it should be; ``str()`` says how."""


class Device:
    """A Modbus server, such as a PLC or remote I/O; used by one thread.

    Every request waits for its answer. After a request that failed the connection is closed, so
    that an answer which comes late is never taken for the next one's; ``connect`` makes another.
    All of it raises :class:`DeviceError`. ``before`` is called before each request, and may make
    others.
    """

    def __init__(self, config: ModbusDevice, before: Callable[[], None] = lambda: None) -> None:
        host, port = config.host_and_port
        self._before = before
        self._name = config.connect
        self._unit = config.unit
        self._timeout_ms = config.timeout_ms
        self._client = ModbusTcpClient(host, port=port, timeout=config.timeout_ms / 1000, retries=0)

    @property
    def is_connected(self) -> bool:
        """True until the first error."""
        return bool(self._client.connected)

    def connect(self) -> None:
        """Make the connection, if there is none."""
        if not self._client.connect():  # type: ignore[no-untyped-call]
            raise DeviceError(f"{self._name}: cannot be reached")

    def close(self) -> None:
        """Close the connection; may be called more than once."""
        self._client.close()  # type: ignore[no-untyped-call]

    def read_inputs(self, address: int, count: int) -> list[bool]:
        """Discrete inputs (function code 2)."""
        with self._asking(f"inputs {address} to {address + count - 1}") as about:
            answer = self._client.read_discrete_inputs(address, count=count, device_id=self._unit)
            bits = list(self._checked(answer, 2, about).bits)
            # A module sends whole bytes, whatever was asked for.
            if not count <= len(bits) <= (count + 7) // 8 * 8:
                raise DeviceError(f"{about}: the answer has {len(bits)} bits instead of {count}")
            return bits[:count]

    def read_registers(self, address: int, count: int, table: str = "holding") -> list[int]:
        """Registers of the table ``holding`` (function code 3) or ``input`` (4)."""
        with self._asking(f"registers {address} to {address + count - 1}") as about:
            if table == "holding":
                answer = self._client.read_holding_registers(
                    address, count=count, device_id=self._unit
                )
            else:
                answer = self._client.read_input_registers(
                    address, count=count, device_id=self._unit
                )
            found = list(self._checked(answer, 3 if table == "holding" else 4, about).registers)
            if len(found) != count:
                raise DeviceError(f"{about}: the answer has {len(found)} instead of {count}")
            return found

    def write_coil(self, address: int, on: bool) -> None:
        """One coil (function code 5)."""
        with self._asking(f"coil {address}") as about:
            answer = self._client.write_coil(address, on, device_id=self._unit)
            if self._checked(answer, 5, about).bits[:1] != [on]:
                raise DeviceError(f"{about}: the answer is for another state of the coil")

    def write_registers(self, address: int, values: Sequence[int]) -> None:
        """Registers (function code 16), at most 123."""
        with self._asking(f"registers {address} to {address + len(values) - 1}") as about:
            answer = self._client.write_registers(address, list(values), device_id=self._unit)
            if self._checked(answer, 16, about).count != len(values):
                raise DeviceError(f"{about}: not all of them were written")

    @contextlib.contextmanager
    def _asking(self, what: str) -> Iterator[str]:
        """A request about ``what``; gives the words that a complaint begins with."""
        about = f"{self._name}: {what}"
        self._before()
        try:
            if not self.is_connected:
                raise DeviceError(f"{self._name}: there is no connection")
            yield about
        except DeviceError:
            self.close()
            raise
        except (ModbusException, OSError, ValueError, LookupError, struct.error) as error:
            self.close()
            # pymodbus raises the last three for bytes that are no message.
            no_answer = isinstance(error, ModbusException | OSError)
            said = f"no answer in {self._timeout_ms} ms" if no_answer else "no Modbus answer"
            raise DeviceError(f"{about}: {said}") from None

    def _checked(self, answer: ModbusPDU, code: int, about: str) -> ModbusPDU:
        if isinstance(answer, ExceptionResponse) or answer.isError():
            raise DeviceError(f"{about}: refused with Modbus exception {answer.exception_code}")
        if answer.function_code != code:
            raise DeviceError(f"{about}: answered with function code {answer.function_code}")
        return answer
