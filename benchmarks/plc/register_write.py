"""From the write that fires to ResultValid, beside a trigger over the command socket."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

from benchmarks.figures import Figure
from benchmarks.plc import latency
from benchmarks.plc.books import Stand, wait_until
from benchmarks.plc.line import Line
from benchmarks.rows import Row, Tick
from inspector.bridges.registers import CAMERA, PLC, PLC_OFFSET, camera_base
from inspector.client import Commander
from tests.bridges.serving import Wire

_AT: Final = {field.name: camera_base(0) + field.at for field in CAMERA}
_PLC: Final = {field.name: camera_base(0) + PLC_OFFSET + field.at for field in PLC}
_READY_AND_SESSION: Final = 1
_VALID: Final = 8
_PAUSE_S: Final = 0.001
"""Between two looks, half a PLC's scan: one that looks without end takes the processor from those
that it times, the bridge and the station."""
_PART_S: Final = 5.0


def measure(folder: Path, trials: int, tick: Tick) -> list[Figure]:
    """``trials`` pairs: a part by registers, a part by the command socket."""
    by_registers, by_commands = [], []
    with Line(folder, "modbus", 1) as line:
        line.start()
        stand = Stand(line.stands[0], "part")
        with Wire(line.port) as wire, Commander(line.commands) as commander:
            for name in ("Session", "TriggerSeq", "ResultAck"):
                wire.write(_PLC[name], 0)
            wire.write(_PLC["Session"], 1)
            for number in range(1, latency.WARM + trials + 1):
                stand.place()
                registers_ms = _by_registers(wire, number)
                stand.place()
                begun_s = time.monotonic()
                commander.trigger(line.cameras[0], number, timeout_s=_PART_S)
                commands_ms = 1000 * (time.monotonic() - begun_s)
                if number > latency.WARM:
                    by_registers.append(registers_ms)
                    by_commands.append(commands_ms)
                    tick(number - latency.WARM, trials)
    goals = [(0.5, 2.0), (0.99, 5.0)]
    return latency.figures("register write to ResultValid", by_registers, by_commands, goals)


def _by_registers(wire: Wire, number: int) -> float:
    """ms from the write of TriggerSeq until ResultValid stands there with this part's number."""

    def is_ready() -> bool:
        wire.write(_PLC["Heartbeat"], number % 7 + int(time.monotonic() * 100) % 60_000)
        return bool(wire.read(_AT["StatusWord"], 1)[0] & _READY_AND_SESSION)

    assert wait_until(is_ready, _PART_S), "the bridge is not Ready"
    # RecipeID is that of before, PartID none.
    wire.write(_PLC["RecipeID"], wire.read(_AT["ActiveRecipe"], 1)[0])
    begun_s = time.monotonic()
    wire.write(_PLC["TriggerSeq"], number)
    while True:
        found = wire.read(_AT["ResultSeq"], _AT["StatusWord"] - _AT["ResultSeq"] + 1)
        taken_s = time.monotonic()
        if found[-1] & _VALID and found[1] == number:
            break
        assert taken_s < begun_s + _PART_S, "there is no result"
        time.sleep(_PAUSE_S)
    assert found[2] in {1, 2}, f"verdict {found[2]}, reason {found[3]}"
    wire.write(_PLC["ResultAck"], found[0])
    return 1000 * (taken_s - begun_s)


ROW: Final = Row("what the Modbus bridge adds to a verdict", 2000, 300, measure)
