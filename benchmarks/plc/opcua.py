"""Triggered parts over OPC UA, four cameras side by side, while all that can break breaks."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from benchmarks.figures import Figure
from benchmarks.plc.books import Books, Stand, figures, journalled, settle
from benchmarks.plc.disturbances import KINDS, Disturber
from benchmarks.plc.line import TIMEOUT_S, Line
from benchmarks.plc.opcua_plc import OpcuaPlc, Program
from benchmarks.rows import Row, Tick

CAMERAS: Final = 4
CYCLE_S: Final = 0.002


def parts(
    folder: Path,
    trials: int,
    tick: Tick,
    *,
    kinds: Sequence[str] = KINDS,
    make: Callable[..., OpcuaPlc] = OpcuaPlc,
) -> list[Figure]:
    """Count ``trials`` parts. ``make`` makes the PLCs, ``kinds`` is what is done."""
    books = Books(TIMEOUT_S)
    begun_s = time.monotonic()
    with Line(folder, "opcua", CAMERAS) as line:
        line.start()
        disturber = Disturber(line, books, trials, kinds)
        program = Program(books, cycle_s=CYCLE_S, enough=disturber.is_enough)
        program.plcs += [
            make(program, line.plc_cable.port, name, Stand(stand, name))
            for name, stand in zip(line.cameras, line.stands, strict=True)
        ]
        disturber.plcs += program.plcs
        with program:
            disturber.go_on(tick)
        took_s = time.monotonic() - begun_s
        assert "Traceback" not in line.log, line.log
    sums = settle(books, journalled(line.journal))
    return figures(
        sums,
        disturber.done,
        kinds,
        [
            Figure("calls refused, nothing started", sum(one.refused for one in program.plcs), ""),
            Figure("lines that did not heal", disturber.unhealed, "", "0", not disturber.unhealed),
            Figure("parts a second", round(sums.triggers / took_s, 1), "1/s"),
        ],
    )


ROW: Final = Row(
    "every part triggered over OPC UA ends once, by its own result", 20_000, 300, parts
)
