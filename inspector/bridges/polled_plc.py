"""The Modbus bridge to a PLC that is the server: it polls the PLC's block and writes its own.

The handshake and the registers are those of the bridge that listens; only who asks differs. The
PLC's program may be in the middle of changing its block when that is read: so a block in which
something is new that fires is read once more, and the second reading counts.
"""

from __future__ import annotations

import logging
import random
import time
import uuid
from collections.abc import Callable
from typing import Final

from inspector.bridges.handshake import Handshake
from inspector.bridges.modbus import settings
from inspector.bridges.modbus_client import Device, DeviceError
from inspector.bridges.polling import Inbox, stopped_by_signals
from inspector.bridges.registers import CAMERA, PLC, PLC_OFFSET, ByteOrders, Registers, camera_base
from inspector.bridges.results import LARGEST
from inspector.bridges.station_link import StationLink
from inspector.client import ClientKeys
from inspector.config.modbus_client import PolledBridge
from inspector.errors import WireError
from inspector.logs import say

_STATUS: Final = CAMERA[-1].at + 1
_COMMAND: Final = PLC[-1].at + 1
_FIRING: Final = tuple(
    field.at for field in PLC if field.name in {"Session", "Command", "ResetCount", "TriggerSeq"}
)
"""Registers whose change has other registers taken as they stand."""
_AGAIN_S: Final = 0.2
_QUIET_S: Final = 10.0


class PolledPlc:
    """The bridge at work; used by one thread."""

    def __init__(self, config: PolledBridge, keys: ClientKeys | None) -> None:
        self._config = config
        self._inbox = Inbox()
        self._device = Device(config)
        orders = ByteOrders(config.word_order, config.byte_order, config.text_order)
        self._registers = Registers(len(config.cameras), orders)
        run = uuid.uuid4().hex
        self._handshakes = {
            camera: Handshake(
                settings(config, camera),
                run,
                random.randint(1, LARGEST),  # noqa: S311 - no secret, but unlike the run before
            )
            for camera in config.cameras
        }
        self._link = StationLink(
            config.station.commands,
            keys,
            self._handshakes,
            tell=self._inbox.put,
            heartbeat_s=config.heartbeat_s,
            result_timeout_s=config.result_timeout_ms / 1000,
        )
        self._read: dict[int, list[int]] = {}
        """What stood in each camera's command block last."""
        self._written: dict[int, list[int]] = {}
        """What the PLC has been written of each camera; empty after a failure."""
        self._complaint = ""
        self._complained_s = 0.0

    def run(self, stop: Callable[[], bool]) -> None:
        """Work until ``stop``. Raises WireError."""
        config, link = self._config, self._link
        link.start()
        say("polling", modbus=config.connect, cameras=",".join(config.cameras))
        try:
            while not stop() and link.is_alive():
                next_s = time.monotonic() + config.poll_ms / 1000
                try:
                    self._exchange()
                except DeviceError as error:
                    self._lose(str(error))
                    next_s = time.monotonic() + _AGAIN_S
                # A result goes out at once, not with the next poll.
                while self._inbox.work(next_s) and self._device.is_connected:
                    try:
                        self._write_all()
                    except DeviceError as error:
                        self._lose(str(error))
        finally:
            self._device.close()
            link.finish()
        if link.crashed:
            raise WireError("the connection to the station ended by a crash, which the log shows")

    def _exchange(self) -> None:
        """Read every block, and write what has changed. Raises DeviceError."""
        if not self._device.is_connected:
            self._device.connect()
            self._ask(0)
            say("plc there", modbus=self._config.connect)
            self._complaint = ""
        for index in range(len(self._handshakes)):
            block = self._ask(index)
            before = self._read.get(index)
            if before is not None and any(block[at] != before[at] for at in _FIRING):
                block = self._ask(index)
            self._read[index] = block
            self._registers.write(camera_base(index) + PLC_OFFSET, block)
            self._scan(index)
        self._write_all()

    def _ask(self, index: int) -> list[int]:
        at = camera_base(index) + PLC_OFFSET + self._config.offset
        return self._device.read_registers(at, _COMMAND)

    def _scan(self, index: int) -> None:
        camera = self._config.cameras[index]
        fields = self._registers.fields(index)
        for action in self._handshakes[camera].scan(fields, time.monotonic()):
            self._link.do(camera, action)

    def _write_all(self) -> None:
        """Write each camera's block in one request, if it has changed. Raises DeviceError."""
        for index, handshake in enumerate(self._handshakes.values()):
            self._registers.show(index, handshake.outputs())
            block = self._registers.read(camera_base(index), _STATUS)
            if block is not None and block != self._written.get(index):
                self._device.write_registers(camera_base(index) + self._config.offset, block)
                self._written[index] = block

    def _lose(self, problem: str) -> None:
        self._device.close()
        self._written.clear()
        # Time passes all the same: parts expire, and a PLC that is away is told as lost.
        for index in range(len(self._handshakes)):
            self._scan(index)
        now_s = time.monotonic()
        if problem != self._complaint or now_s >= self._complained_s + _QUIET_S:
            self._complaint, self._complained_s = problem, now_s
            say("plc gone", logging.WARNING, problem=problem)


def run(config: PolledBridge, keys: ClientKeys | None) -> None:
    """Run the bridge until SIGTERM or Ctrl-C. Raises WireError."""
    with stopped_by_signals() as stop:
        PolledPlc(config, keys).run(stop)
