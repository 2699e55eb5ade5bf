"""A station, the bridge to remote I/O in a process of its own, and a module behind a cable."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from inspector.bridges.simulated_io import SimulatedIo
from inspector.config.modbus_client import RemoteIoBridge, load_modbus
from tests import running, tiny
from tests.bridges.cables import Cable
from tests.commands import Started, start
from tests.stations import free_ports

PULSE_S = 0.2
WATCHDOG_S = 0.3


def document(**changes: Any) -> dict[str, Any]:
    """A bridge's file; a key with the value None is left out."""
    made: dict[str, Any] = {
        "bridge": "modbus",
        "role": "remote_io",
        "connect": "127.0.0.1:1502",
        "camera": "top",
        "trigger_input": 0,
        "belt_input": 1,
        "pass_coil": 0,
        "fail_coil": 1,
        "fault_coil": 2,
        "healthy_coil": 3,
        "pulse_ms": round(1000 * PULSE_S),
        "delay_ms": 300,
        # The machines of tests are busy, and a part that is dropped then is no finding.
        "tolerance_ms": 60,
        "timeout_ms": 200,
        "watchdog": {
            "time_ms": round(1000 * WATCHDOG_S),
            "registers": {4096: 3, 4102: 1},
        },
    }
    return {key: value for key, value in (made | changes).items() if value is not None}


def until(wanted: Callable[[], Any], what: object = "", timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not wanted():
        assert time.monotonic() < deadline, what() if callable(what) else what
        time.sleep(0.002)


class RemoteLine:
    """The parties; ``module`` is on this side of the test, so that its coils can be timed."""

    def __init__(
        self, folder: Path, stack: contextlib.ExitStack, commands: str = "", **changes: Any
    ) -> None:
        self._stack = stack
        self._folder = folder
        self.file = folder / "bridge.yaml"
        self.commands = commands or free_ports(1)[0]
        self.write_file(**changes)
        config = load_modbus(self.file)
        assert isinstance(config, RemoteIoBridge)
        self.config = config
        self.io = SimulatedIo(config, ("127.0.0.1", 0))
        self.module = self.io.module
        stack.callback(self.io.close)
        self.cable = Cable(self.io.port)
        stack.callback(self.cable.close)
        self.write_file(**({"connect": f"127.0.0.1:{self.cable.port}"} | changes))

    def write_file(self, **changes: Any) -> None:
        made = document(station={"commands": self.commands}) | changes
        made = {key: value for key, value in made.items() if value is not None}
        self.file.write_text(yaml.safe_dump(made), encoding="utf-8")

    def start_station(self, bundle: Path, *pictures: np.ndarray) -> running.Running:
        shown = pictures or (tiny.good_picture(),)
        parts = running.write_parts(self._folder / "parts", *shown)
        verdicts, images = free_ports(2)
        file = running.write_station(
            self._folder / "station.yaml",
            bundle,
            running.folder_camera(parts, trigger="software", loop=True),
            sockets={"verdicts": verdicts, "images": images, "commands": self.commands},
        )
        self.station = self._stack.enter_context(running.running(file))
        self.station.wait_for_log(r" commands address=(\S+)\n")
        return self.station

    def start_bridge(self) -> Started | subprocess.Popen[bytes]:
        self.log = self._stack.enter_context((self._folder / "bridge.log").open("ab"))
        child = start(["bridge", "modbus", self.file], stderr=self.log)

        def end() -> None:
            child.kill()
            child.wait()

        self._stack.callback(end)
        return child

    def said(self) -> str:
        return (self._folder / "bridge.log").read_text(encoding="utf-8")

    def on_times(self, verdict: str = "pass") -> list[tuple[float, float]]:
        coil = {"pass": 0, "fail": 1, "fault": 2, "healthy": 3}[verdict]
        return self.module.on_times(coil)

    def waves(self) -> int:
        return sum(change.coil == 3 for change in list(self.module.changes))

    def until_healthy(self) -> None:
        seen = self.waves()
        until(lambda: self.waves() >= seen + 3, self.said)
