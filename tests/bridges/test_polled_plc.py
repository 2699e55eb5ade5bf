"""The bridge that polls a PLC: the handshake of registers, with the PLC as the server."""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from inspector.bridges.registers import ByteOrders
from inspector.bridges.served_plc import PlcMemory, ServedPlc
from inspector.bridges.simulated_plc import FunctionBlock
from tests import running, tiny
from tests.bridges.cables import Cable
from tests.commands import Started, start
from tests.stations import free_ports

OFFSET = -200


class Polled:
    """A station, a bridge that polls, and a PLC in this process behind a cable."""

    def __init__(self, folder: Path, stack: contextlib.ExitStack) -> None:
        self._folder, self._stack = folder, stack
        parts = running.write_parts(folder / "parts", tiny.good_picture(), tiny.bad_picture())
        file = running.write_station(
            folder / "station.yaml",
            tiny.write_bundle(folder / "tiny.onnx"),
            running.folder_camera(parts, trigger="software", loop=True),
        )
        self.station = stack.enter_context(running.running(file))
        self.commands = self.station.wait_for_log(r" commands address=(\S+)\n")[1]
        self.plc = ServedPlc(FunctionBlock(timeout_s=2.0), ("127.0.0.1", 0), 0, ByteOrders())
        stack.callback(self.plc.close)
        self.cable = Cable(self.plc.port)
        stack.callback(self.cable.close)
        self.file = folder / "bridge.yaml"
        self.document: dict[str, Any] = {
            "bridge": "modbus",
            "role": "client",
            "connect": f"127.0.0.1:{self.cable.port}",
            "offset": OFFSET,
            "station": {"commands": self.commands},
            "cameras": ["top"],
            "recipes": {1: "r"},
            "result_timeout_ms": 1500,
            "plc_heartbeat_s": 2,
        }
        self.write()

    def write(self) -> None:
        self.file.write_text(yaml.safe_dump(self.document), encoding="utf-8")

    def start_bridge(self) -> Started | subprocess.Popen[bytes]:
        log = self._stack.enter_context((self._folder / "bridge.log").open("ab"))
        child = start(["bridge", "modbus", self.file], stderr=log)

        def end() -> None:
            child.kill()
            child.wait()

        self._stack.callback(end)
        return child

    def said(self) -> str:
        return (self._folder / "bridge.log").read_text(encoding="utf-8")

    def until_ready(self) -> None:
        deadline = time.monotonic() + 20
        self.plc.scan()
        while not self.plc.block.may_trigger:
            self.plc.scan()
            assert time.monotonic() < deadline, f"{self.plc.block.mode} {self.said()}"
            time.sleep(0.005)

    def until_lost(self) -> None:
        deadline = time.monotonic() + 10
        while self.plc.block.may_trigger or self.plc.block.block["Session"]:
            self.plc.scan()
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.005)


@pytest.fixture
def polled(tmp_path: Path) -> Iterator[Polled]:
    with contextlib.ExitStack() as stack:
        yield Polled(tmp_path, stack)


@pytest.mark.long
def test_a_polled_plc_through_cuts_and_kills(polled):
    bridge = polled.start_bridge()
    polled.until_ready()
    seen = list(polled.plc.run(6, 0.0))
    assert [part.verdict for part in seen] == [1, 2] * 3, polled.said()

    # The cable is cut with a part under way: the PLC's own time ends it, and nothing passes.
    polled.cable.cut()
    polled.plc.block.trigger("cut", time.monotonic())
    lost = list(polled.plc.run(0, 0.0))
    assert [(part.part_id, part.passes) for part in lost] == [("cut", False)]
    polled.cable.mend()
    polled.until_ready()
    assert "plc gone" in polled.said()
    assert sorted(part.verdict for part in polled.plc.run(2, 0.0)) == [1, 2]

    # The bridge is killed; what stands in the PLC's memory from before passes nothing.
    bridge.kill()
    bridge.wait()
    polled.plc.block.trigger("orphan", time.monotonic())
    lost = list(polled.plc.run(0, 0.0))
    assert [(part.part_id, part.verdict) for part in lost] == [("orphan", 0)]
    polled.until_lost()
    bridge = polled.start_bridge()
    polled.until_ready()
    assert sorted(part.verdict for part in polled.plc.run(2, 0.0)) == [1, 2]

    # Answers that are no Modbus: the line goes on after them.
    polled.cable.altered = lambda _: b"HTTP/1.1 200 OK\r\n\r\n"
    polled.until_lost()
    polled.cable.altered = lambda data: data
    polled.until_ready()

    bridge.send_signal(signal.SIGTERM)
    assert bridge.wait(running.START_S) == 0, polled.said()
    assert not re.search("Traceback|crash", polled.said())
    code, out, _ = running.inside("check", polled.file)
    assert code == 0 and "has every block to read" in out, out
    polled.plc.close()
    code, out, _ = running.inside("check", polled.file)
    assert code == 1 and "problem  device" in out, out

    # The simulated PLC that is shipped, as a server in a process of its own.
    polled.document["connect"] = free_ports(1)[0].removeprefix("tcp://")
    polled.write()
    polled.start_bridge()
    code, out, err = running.inspector("simulate-plc", "modbus", polled.file, "--parts", "4")
    assert code == 0 and out.count(" pass ") and out.count(" reject"), f"{out}{err}{polled.said()}"


def test_a_block_that_was_read_in_the_middle_of_a_change_counts_as_read_again(monkeypatch):
    """TriggerSeq is new in the first reading, PartID only in the second; likewise Command."""
    from inspector.bridges import polled_plc
    from inspector.bridges.fields import Order, Trigger
    from inspector.bridges.registers import PLC
    from inspector.config.modbus_client import PolledBridge
    from tests.bridges.parts import status

    config = PolledBridge.model_validate(
        {
            "bridge": "modbus",
            "role": "client",
            "connect": "127.0.0.1:1",
            "cameras": ["top"],
            "recipes": {1: "flange", 2: "disc"},
            "plc_heartbeat_s": 0,
            "station": {"commands": free_ports(1)[0]},
        }
    )
    at = {field.name: field.at for field in PLC}
    block = [0] * (PLC[-1].at + 1)
    readings: list[list[int]] = []
    did: list[Any] = []

    class Device:
        is_connected = True

        def __init__(self, _config: Any) -> None:
            pass

        def read_registers(self, _address: int, _count: int) -> list[int]:
            return list(readings.pop(0) if readings else block)

        def write_registers(self, _address: int, _values: list[int]) -> None:
            pass

    monkeypatch.setattr(polled_plc, "Device", Device)
    bridge = polled_plc.PolledPlc(config, None)
    monkeypatch.setattr(bridge._link, "do", lambda _camera, action: did.append(action))
    bridge._handshakes["top"].status(status())
    bridge._exchange()
    block[at["Session"]] = 5
    block[at["RecipeID"]] = 1
    bridge._exchange()
    old = ByteOrders().letters("before")
    new = ByteOrders().letters("after!")
    block[at["PartIDLength"]] = 6
    block[at["PartID"] : at["PartID"] + 32] = old
    bridge._exchange()
    block[at["TriggerSeq"]] = 1
    readings.append(list(block))
    block[at["PartID"] : at["PartID"] + 32] = new
    bridge._exchange()
    (trigger,) = [action for action in did if isinstance(action, Trigger)]
    assert trigger.part_id == "after!"

    block[at["Command"]] = 4
    readings.append(list(block))
    block[at["RecipeID"]] = 2
    bridge._exchange()
    (order,) = [action for action in did if isinstance(action, Order)]
    assert order.recipe == "disc"


def test_the_plcs_memory_has_a_writer_for_each_block():
    memory = PlcMemory(0)
    assert memory.scan([1] * 75) is None, "nothing was written by a bridge"
    assert memory.put(16, 100, [1]) is None and memory.put(16, 69, [1, 2]) is None
    assert memory.put(16, 0, list(range(70))) == 0
    assert memory.scan([2] * 75) == list(range(70))
    assert memory.get(3, 100, 75) == [2] * 75 and memory.get(3, 100, 76) is None
