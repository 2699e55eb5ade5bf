"""The Modbus bridge: PLCs on one side, a station on the other, a handshake for each camera."""

from __future__ import annotations

import asyncio
import random
import signal
import time
import uuid
from collections.abc import Callable

from inspector.bridges.fields import Settings
from inspector.bridges.handshake import Handshake
from inspector.bridges.modbus_server import ModbusServer
from inspector.bridges.pictures import Pictures
from inspector.bridges.registers import ByteOrders, Registers
from inspector.bridges.results import LARGEST
from inspector.bridges.station_link import StationLink
from inspector.client import ClientKeys
from inspector.config.bridge_file import ModbusBridge, RegisterBridge
from inspector.errors import WireError
from inspector.logs import say

_SCAN_S = 0.02
"""Between two scans while no PLC writes: time-outs and heartbeats go by them."""


class Bridge:
    """A bridge at work; used in the thread of one event loop."""

    def __init__(self, config: ModbusBridge, keys: ClientKeys | None) -> None:
        self._config = config
        self._keys = keys
        self._run = uuid.uuid4().hex
        orders = ByteOrders(config.word_order, config.byte_order, config.text_order)
        self.registers = Registers(len(config.cameras), orders)
        self._handshakes = {
            camera: Handshake(
                settings(config, camera),
                self._run,
                random.randint(1, LARGEST),  # noqa: S311 - no secret, but unlike the run before
            )
            for camera in config.cameras
        }
        self._link: StationLink | None = None

    async def run(
        self, stop: asyncio.Event, listening: Callable[[int], None] | None = None
    ) -> None:
        """Serve until ``stop`` is set; ``listening`` hears the port.

        Raises :class:`PortError`, :class:`WireError`.
        """
        config, loop = self._config, asyncio.get_running_loop()

        def tell(function: Callable[[], None]) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._hear, function)

        server = ModbusServer(
            self.registers,
            config.host_and_port,
            readers=config.readers,
            writers=config.writers,
            connections=config.connections,
            written=self._scan,
        )
        self._scan_all()
        link = self._link = StationLink(
            config.station.commands,
            self._keys,
            self._handshakes,
            tell=tell,
            heartbeat_s=config.heartbeat_s,
            result_timeout_s=config.result_timeout_ms / 1000,
        )
        counted = {camera: self._handshakes[camera] for camera in config.hardware_trigger}
        pictures = Pictures(config.station, self._keys, counted, tell)
        port = await server.open()
        link.start()
        if counted:
            pictures.start()
        try:
            say("listening", modbus=f"{config.host_and_port[0]}:{port}")
            if listening is not None:
                listening(port)
            while not (stop.is_set() or link.crashed or pictures.crashed):
                self._scan_all()
                try:
                    await asyncio.wait_for(stop.wait(), _SCAN_S)
                except asyncio.TimeoutError:
                    continue
        finally:
            await server.stop()
            await asyncio.to_thread(pictures.finish)
            await asyncio.to_thread(link.finish)
        if link.crashed or pictures.crashed:
            raise WireError("the connection to the station ended by a crash, which the log shows")

    def _hear(self, function: Callable[[], None]) -> None:
        function()
        self._scan_all()

    def _scan(self, index: int) -> None:
        """A PLC wrote to the block of a camera."""
        camera = self._config.cameras[index]
        handshake = self._handshakes[camera]
        for action in handshake.scan(self.registers.fields(index), time.monotonic()):
            if self._link is not None:
                self._link.do(camera, action)
        self.registers.show(index, handshake.outputs())

    def _scan_all(self) -> None:
        for index in range(len(self._handshakes)):
            self._scan(index)
        self.registers.show_all([one.outputs() for one in self._handshakes.values()])


def run(config: ModbusBridge, keys: ClientKeys | None) -> None:
    """Run a bridge until SIGTERM or Ctrl-C. Raises PortError, WireError."""

    async def serve() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await Bridge(config, keys).run(stop)

    asyncio.run(serve())


def settings(config: RegisterBridge, camera: str) -> Settings:
    """What the handshake of a camera goes by."""
    counted = isinstance(config, ModbusBridge) and camera in config.hardware_trigger
    window_ms = config.hardware_window_ms if isinstance(config, ModbusBridge) else 0
    return Settings(
        camera=camera,
        recipes=dict(config.recipes),
        latest=config.results == "latest",
        hardware=counted,
        hardware_window_s=window_ms / 1000,
        result_timeout_s=config.result_timeout_ms / 1000,
        heartbeat_s=config.heartbeat_s,
        plc_heartbeat_s=config.plc_heartbeat_s,
    )
