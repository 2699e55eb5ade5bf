"""Triggered parts over Modbus, four blocks side by side, while all that can break breaks."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from benchmarks.figures import Figure
from benchmarks.plc.books import Books, Stand, figures, journalled, settle
from benchmarks.plc.disturbances import KINDS, Disturber
from benchmarks.plc.line import TIMEOUT_S, Line
from benchmarks.plc.modbus_plc import ModbusPlc, scanning
from benchmarks.rows import Row, Tick
from inspector.bridges.simulated_plc import FunctionBlock

BLOCKS: Final = 4
CYCLE_S: Final = 0.002


def parts(
    folder: Path,
    trials: int,
    tick: Tick,
    *,
    kinds: Sequence[str] = KINDS,
    make: Callable[..., FunctionBlock] = FunctionBlock,
) -> list[Figure]:
    """Count ``trials`` parts. ``make`` makes the PLCs' programs, ``kinds`` is what is done."""
    books = Books(TIMEOUT_S)
    begun_s = time.monotonic()
    with Line(folder, "modbus", BLOCKS) as line:
        line.start()
        disturber = Disturber(line, books, trials, kinds)
        plcs = [
            ModbusPlc(
                line.plc_cable.port,
                number,
                Stand(line.stands[number], f"block-{number + 1}"),
                books,
                cycle_s=CYCLE_S,
                enough=disturber.is_enough,
                make=make,
            )
            for number in range(BLOCKS)
        ]
        disturber.plcs += plcs
        with scanning(plcs):
            disturber.go_on(tick)
        took_s = time.monotonic() - begun_s
        assert "Traceback" not in line.log, line.log
    sums = settle(books, journalled(line.journal))
    wraps = sum(plc.wraps for plc in plcs)
    scan_ms = 1000 * sum(plc.scanned_s for plc in plcs) / sum(plc.scans for plc in plcs)
    return figures(
        sums,
        disturber.done,
        kinds,
        [
            Figure("wraps of TriggerSeq", wraps, "times", "above 0", wraps > 0),
            Figure("lines that did not heal", disturber.unhealed, "", "0", not disturber.unhealed),
            Figure("scan cycle, mean", round(scan_ms, 2), "ms"),
            Figure("parts a second", round(sums.triggers / took_s, 1), "1/s"),
        ],
    )


ROW: Final = Row(
    "every part triggered over Modbus ends once, by its own result", 20_000, 400, parts
)
