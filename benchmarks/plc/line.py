"""A line to be disturbed: a station with several cameras, a bridge, and the cables between."""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Final, Literal

import yaml

from benchmarks.faults.lab import fixed_sockets
from tests import running, tiny
from tests.stations import free_ports

START_S: Final = 60.0
TIMEOUT_S: Final = 1.5
"""The PLC's own time for a part, above the bridge's ``result_timeout_ms`` of 1000."""
HEARTBEAT_S: Final = 1.0
"""As the bridge has it by default."""
_HANG_UP: Final = struct.pack("ii", 1, 0)


class Cable(threading.Thread):
    """The way of TCP connections: whole, cut (both ends hear of it), or silent (neither does).

    What is sent into a silent cable arrives when it is mended, as TCP sends again what was lost.
    """

    def __init__(self, to_port: int) -> None:
        super().__init__(name="cable", daemon=True)
        self._to = ("127.0.0.1", to_port)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=100)
        self.port: int = self._listener.getsockname()[1]
        self._pairs: dict[socket.socket, socket.socket] = {}
        self._wake, self._waker = socket.socketpair()
        self._state: Literal["whole", "cut", "silent", "ended"] = "whole"
        self.start()

    def cut(self) -> None:
        """Both ends are hung up, and nobody gets through."""
        self._change("cut")

    def silence(self) -> None:
        """Nothing arrives any more."""
        self._change("silent")

    def mend(self) -> None:
        """Whole again."""
        self._change("whole")

    def close(self) -> None:
        """End it."""
        self._change("ended")
        self.join()
        for one in (self._listener, self._wake, self._waker):
            one.close()

    def _change(self, state: Literal["whole", "cut", "silent", "ended"]) -> None:
        self._state = state
        self._waker.send(b"\0")

    def run(self) -> None:
        while self._state != "ended":
            silent = self._state == "silent"
            ears = [self._wake] if silent else [self._wake, self._listener, *self._pairs]
            readable, _, _ = select.select(ears, [], [])
            if self._wake in readable:
                self._wake.recv(100)
                if self._state == "cut":
                    self._hang_up(*self._pairs)
                continue
            if self._listener in readable:
                self._accept()
            for one in readable:
                if one in self._pairs:
                    self._carry(one)
        self._hang_up(*self._pairs)

    def _accept(self) -> None:
        near, _ = self._listener.accept()
        try:
            if self._state != "whole":
                raise ConnectionError
            far = socket.create_connection(self._to, timeout=1)
        except OSError:
            near.close()
            return
        far.settimeout(None)
        for one in (near, far):
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._pairs |= {near: far, far: near}

    def _carry(self, one: socket.socket) -> None:
        try:
            data = one.recv(65536)
            self._pairs[one].sendall(data)
        except OSError:
            data = b""
        if not data:
            self._hang_up(one)

    def _hang_up(self, *ends: socket.socket) -> None:
        for one in ends:
            for end in (one, self._pairs.pop(one, None)):
                if end is not None:
                    self._pairs.pop(end, None)
                    with contextlib.suppress(OSError):
                        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _HANG_UP)
                    end.close()


class Line:
    """Station and bridge, each a process of its own; a context manager."""

    def __init__(self, folder: Path, fieldbus: Literal["modbus", "opcua"], cameras: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._stack = contextlib.ExitStack()
        self.fieldbus = fieldbus
        self.cameras = [f"camera-{number}" for number in range(1, cameras + 1)]
        self.stands = [folder / "stands" / name for name in self.cameras]
        self.journal = folder / "journal"
        bundle = tiny.write_bundle(folder / "tiny.onnx")
        for stand in self.stands:
            running.write_parts(stand, tiny.good_picture())
        sockets = fixed_sockets()
        self.commands = sockets["commands"]
        self._station_file = running.write_station(
            folder / "station.yaml",
            bundle,
            *(
                running.folder_camera(
                    stand, name=name, trigger="software", loop=True, deadline_ms=900
                )
                for name, stand in zip(self.cameras, self.stands, strict=True)
            ),
            sockets=sockets,
        )
        self._bridge_file = folder / "bridge.yaml"
        self.port = int(free_ports(1)[0].rpartition(":")[2])
        self.plc_cable = Cable(self.port)
        self._stack.callback(self.plc_cable.close)
        self.station_cable = Cable(int(self.commands.rpartition(":")[2]))
        self._stack.callback(self.station_cable.close)
        document: dict[str, Any] = {
            "bridge": fieldbus,
            "listen": f"127.0.0.1:{self.port}",
            "station": {"commands": f"tcp://127.0.0.1:{self.station_cable.port}"},
            "cameras": self.cameras,
            "recipes": {1: "r"} if fieldbus == "modbus" else ["r"],
        }
        self._bridge_file.write_text(yaml.safe_dump(document), encoding="utf-8")

    def __enter__(self) -> Line:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def start(self) -> None:
        """Start both."""
        self.start_station()
        self.start_bridge()

    def start_station(self) -> None:
        """Start it, and wait until it judges."""
        self.station = self._stack.enter_context(running.running(self._station_file))
        self.station.wait_for_log(r"state=Ready", START_S)

    def start_bridge(self) -> None:
        """Start it, and wait until it listens."""
        log = self._bridge_file.with_suffix(".log")
        with log.open("wb") as errors:
            self.bridge = subprocess.Popen(
                [sys.executable, "-m", "inspector", "bridge", self.fieldbus, self._bridge_file],
                stderr=errors,
                env=running.environment(),
            )
        self._stack.callback(_end, self.bridge)
        deadline = time.monotonic() + START_S
        while " listening " not in (said := log.read_text(encoding="utf-8")):
            assert self.bridge.poll() is None and time.monotonic() < deadline, said
            time.sleep(0.01)

    def kill_station(self) -> None:
        """SIGKILL."""
        self.station.child.kill()
        self.station.child.wait()

    def kill_bridge(self) -> None:
        """SIGKILL."""
        self.bridge.kill()
        self.bridge.wait()

    def restart(self) -> None:
        """Start again what was killed."""
        if self.station.child.returncode is not None:
            self.start_station()
        if self.bridge.returncode is not None:
            self.start_bridge()

    @property
    def log(self) -> str:
        """What the bridge has said since it was started last."""
        return self._bridge_file.with_suffix(".log").read_text(encoding="utf-8")


def _end(child: subprocess.Popen[bytes]) -> None:
    child.kill()
    child.wait()
