"""From the call of StartSingleJob to the ResultReadyEvent, beside the command socket."""

from __future__ import annotations

import asyncio
import logging
import time
from pathlib import Path
from typing import Any, Final

from asyncua import Client

from benchmarks.figures import Figure
from benchmarks.plc import latency
from benchmarks.plc.books import Stand
from benchmarks.plc.line import Line
from benchmarks.plc.opcua_plc import Camera
from benchmarks.rows import Row, Tick
from inspector.bridges import machine_vision as mv
from inspector.client import Commander

_PART_S: Final = 5.0
_READY_S: Final = 30.0


def measure(folder: Path, trials: int, tick: Tick) -> list[Figure]:
    """``trials`` pairs: a part by a method call, a part by the command socket."""
    logging.getLogger("asyncua").setLevel(logging.CRITICAL + 1)
    with Line(folder, "opcua", 1) as line:
        line.start()
        calls, commands = asyncio.run(_pairs(line, trials, tick))
    return latency.figures("method call to ResultReadyEvent", calls, commands, [(0.5, 8.0)])


async def _pairs(line: Line, trials: int, tick: Tick) -> tuple[list[float], list[float]]:
    by_calls, by_commands = [], []
    stand = Stand(line.stands[0], "part")
    with Commander(line.commands) as commander:
        async with Client(f"opc.tcp://127.0.0.1:{line.port}", timeout=_PART_S) as client:
            camera = Camera(client, line.cameras[0])
            heard: asyncio.Queue[tuple[str, float]] = asyncio.Queue()

            def hear(meas_id: str, _event: Any) -> None:
                heard.put_nowait((meas_id, time.monotonic()))

            await camera.listen(hear, mv.RESULT_READY)
            for number in range(1, latency.WARM + trials + 1):
                stand.place()
                calls_ms = await _by_call(camera, heard, number)
                stand.place()
                # Nothing else is under way in this loop, so that it may be blocked.
                begun_s = time.monotonic()
                commander.trigger(line.cameras[0], number, timeout_s=_PART_S)
                commands_ms = 1000 * (time.monotonic() - begun_s)
                if number > latency.WARM:
                    by_calls.append(calls_ms)
                    by_commands.append(commands_ms)
                    tick(number - latency.WARM, trials)
    return by_calls, by_commands


async def _by_call(camera: Camera, heard: asyncio.Queue[tuple[str, float]], number: int) -> float:
    deadline = time.monotonic() + _READY_S
    while True:
        begun_s = time.monotonic()
        if not await camera.start(f"pairs:{number}", f"part-{number}"):
            break
        assert begun_s < deadline, "no job could be started"
        await asyncio.sleep(0.02)
    meas_id, ended_s = await asyncio.wait_for(heard.get(), _PART_S)
    assert meas_id == f"pairs:{number}", meas_id
    return 1000 * (ended_s - begun_s)


ROW: Final = Row("what the OPC UA bridge adds to a verdict", 2000, 200, measure)
