"""Station, bridge and PLC, each a real one: processes, sockets, and what happens when one dies."""

from __future__ import annotations

import re
import signal
import socket
import time
from typing import Any

import pytest

from inspector.bridges.simulated_plc import SimulatedPlc
from inspector.journal.reader import Reader
from tests import running
from tests.bridges.serving import PLC, Wire


def is_ready(read: dict[str, int | float]) -> bool:
    return bool(int(read["StatusWord"]) & 1)


def until_ready(plc: SimulatedPlc, timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    plc.scan()
    while not plc.block.may_trigger:
        plc.scan()
        assert time.monotonic() < deadline, plc.block.mode
        time.sleep(0.005)


@pytest.mark.long
def test_a_line_with_every_party_killed_in_turn(line):
    """Every part ends once, and after each disturbance the line works again."""
    line.start_station()
    bridge = line.start_bridge()
    plc = line.plc()
    until_ready(plc)
    seen = list(plc.run(6, 0.0))
    assert [part.verdict for part in seen] == [1, 2] * 3
    assert [part.passes for part in seen] == [True, False] * 3
    assert all(part.score >= 1.0 for part in seen if part.verdict == 2)

    # What the PLC acknowledged stands beside the verdicts in the journal.
    deadline = time.monotonic() + 10
    told: list[Any] = []
    while len(told) < 6 and time.monotonic() < deadline:
        time.sleep(0.1)
        with Reader(line.journal) as reader:
            ((epoch, _),) = reader.epochs()
            told = reader.delivered(epoch, 1, 6)
    assert [(one.seq, one.outcome) for one in told] == [(n, "acknowledged") for n in range(1, 7)]

    # The cable to the station is cut: within the heartbeat's time the PLC sees it.
    line.relay.cut()
    cut_s = time.monotonic()
    while is_ready(line.block()):
        assert time.monotonic() < cut_s + 1.0
        time.sleep(0.005)
    line.relay.mend()
    until_ready(plc)

    # The station dies at once, and another one starts.
    line.station.child.kill()
    killed_s = time.monotonic()
    while is_ready(line.block()):
        assert time.monotonic() < killed_s + 1.0
        time.sleep(0.005)
    line.station.child.wait()
    line.start_station()
    until_ready(plc)
    assert [part.verdict for part in plc.run(2, 0.0)] == [1, 2]

    # The bridge dies with a part under way: the PLC's own time ends it, and nothing passes.
    bridge.kill()
    bridge.wait()
    plc.block.trigger("orphan", time.monotonic())
    lost = list(plc.run(0, 0.0))
    assert [(part.part_id, part.verdict, part.passes) for part in lost] == [("orphan", 0, False)]
    bridge = line.start_bridge()
    until_ready(plc)
    assert [part.verdict for part in plc.run(2, 0.0)] == [1, 2]
    assert plc.block.sessions >= 2

    bridge.send_signal(signal.SIGTERM)
    assert bridge.wait(running.START_S) == 0, line.said()
    assert not re.search("Traceback|crash", line.said())


@pytest.mark.long
def test_a_plc_that_stands_still_and_a_station_that_stops(line):
    line.start_station()
    line.start_bridge(plc_heartbeat_s=0.3)
    plc = line.plc()
    until_ready(plc)
    time.sleep(0.6)
    assert not is_ready(line.block()) and int(line.block()["StatusWord"]) & 1 << 8
    until_ready(plc)

    # A station that hangs answers nobody, although its connection lives.
    line.station.child.send_signal(signal.SIGSTOP)
    try:
        hung_s = time.monotonic()
        while line.block()["State"]:
            assert time.monotonic() < hung_s + 1.0
            time.sleep(0.005)
    finally:
        line.station.child.send_signal(signal.SIGCONT)
    until_ready(plc)

    # The PLC stops the station and starts it again, by commands.
    for command, judges in ((2, False), (1, True)):
        with Wire(line.port) as wire:
            wire.write(PLC + 1, 0)
            wire.write(PLC + 1, command)
            deadline = time.monotonic() + 10
            while line.block()["CommandState"] != 2:
                assert time.monotonic() < deadline, (
                    f"{line.block()}\n{line.said()}\n{line.station.log}"
                )
                time.sleep(0.02)
            assert line.block()["CommandEcho"] == command
            wire.write(PLC + 1, 0)
        deadline = time.monotonic() + 10
        while (line.block()["State"] in {3, 4, 5}) is not judges:
            assert time.monotonic() < deadline, line.block()
            time.sleep(0.02)
    until_ready(plc)


def test_a_port_that_is_taken_is_one_line(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        file = tmp_path / "bridge.yaml"
        file.write_text(f"bridge: modbus\nlisten: 127.0.0.1:{port}\ncameras: [top]\n")
        code, out, err = running.inspector("bridge", "modbus", file)
    assert (code, out) == (15, "") and "cannot be bound" in err and "Traceback" not in err
    assert err.count("\n") == 1
