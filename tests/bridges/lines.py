"""A station whose camera waits for triggers, and a Modbus bridge, each a process of its own."""

from __future__ import annotations

import contextlib
import subprocess
import time
from pathlib import Path
from typing import Any

import yaml

from inspector.bridges.registers import ByteOrders
from inspector.bridges.simulated_plc import FunctionBlock, SimulatedPlc, read_values
from tests import running, tiny
from tests.bridges.serving import BLOCK, Wire
from tests.commands import Started, start
from tests.stations import Relay, free_ports


class Line:
    """A station whose camera waits for triggers, and a bridge in a process of its own."""

    def __init__(
        self, folder: Path, bundle: Path, stack: contextlib.ExitStack, **camera: Any
    ) -> None:
        self._stack = stack
        parts = running.write_parts(folder / "parts", tiny.good_picture(), tiny.bad_picture())
        self.verdicts, images, self.commands = free_ports(3)
        self.station_file = running.write_station(
            folder / "station.yaml",
            bundle,
            running.folder_camera(parts, loop=True, **(camera or {"trigger": "software"})),
            sockets={"verdicts": self.verdicts, "images": images, "commands": self.commands},
        )
        self.relay = Relay(self.commands)
        stack.callback(self.relay.close)
        self.port = int(free_ports(1)[0].rpartition(":")[2])
        self.bridge_file = folder / "bridge.yaml"
        self.journal = folder / "journal"

    def start_station(self) -> running.Running:
        self.station = self._stack.enter_context(running.running(self.station_file))
        self.station.wait_for_log(r" commands address=(\S+)\n")
        return self.station

    def start_bridge(self, **changes: Any) -> Started | subprocess.Popen[bytes]:
        document: dict[str, Any] = {
            "bridge": "modbus",
            "listen": f"127.0.0.1:{self.port}",
            "station": {"commands": self.relay.address},
            "cameras": ["top"],
            "recipes": {1: "r"},
        }
        self.bridge_file.write_text(yaml.safe_dump(document | changes), encoding="utf-8")
        self.log = self._stack.enter_context(self.bridge_file.with_suffix(".log").open("wb"))
        child = start(["bridge", "modbus", self.bridge_file], stderr=self.log)

        def end() -> None:
            child.kill()
            child.wait()

        self._stack.callback(end)
        deadline = time.monotonic() + 20
        while " listening " not in self.said():
            assert child.poll() is None and time.monotonic() < deadline, self.said()
            time.sleep(0.02)
        return child

    def said(self) -> str:
        return self.bridge_file.with_suffix(".log").read_text(encoding="utf-8")

    def plc(self, **options: Any) -> SimulatedPlc:
        made = SimulatedPlc(FunctionBlock(**options), "127.0.0.1", self.port, 0, ByteOrders())
        self._stack.callback(made.close)
        return made

    def block(self) -> dict[str, int | float]:
        with Wire(self.port) as wire:
            return read_values(wire.read(BLOCK, 70), ByteOrders())
