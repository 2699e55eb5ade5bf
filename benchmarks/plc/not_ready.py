"""How soon a PLC sees 'not Ready' when something dies at once, or falls silent."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from benchmarks.figures import Figure
from benchmarks.plc.line import HEARTBEAT_S, TIMEOUT_S, Line
from benchmarks.plc.modbus_plc import Exchange
from benchmarks.rows import Row, Tick
from inspector.bridges.simulated_plc import FunctionBlock

CYCLE_S: Final = 0.01
LIMIT_S: Final = HEARTBEAT_S + 2 * CYCLE_S

KINDS: Final = (
    ("bridge killed",),
    ("station killed",),
    ("cable to the PLC silent", "cable to the station silent"),
)
"""As many faults of each; those of a group in turns."""
_HEALS_S: Final = 60.0
_STAYS_S: Final = 0.5
"""So long it is watched whether Ready comes back although nothing was mended."""
_NEVER_S: Final = 10.0


class IdlePlc:
    """A PLC that scans, and sends no part."""

    def __init__(self, port: int) -> None:
        self._block = FunctionBlock(timeout_s=TIMEOUT_S, heartbeat_s=HEARTBEAT_S)
        # It is the heartbeat that tells, and not the end of its patience with a request.
        self._exchange = Exchange(port, 0, reply_s=3 * HEARTBEAT_S)
        self.close = self._exchange.close

    def scans(self, for_s: float) -> Iterator[bool]:
        """A scan after the other for so long; whether it is Ready, as the PLC sees it."""
        until_s = time.monotonic() + for_s
        while (begun_s := time.monotonic()) < until_s:
            read = self._exchange.turn(self._block, CYCLE_S)
            list(self._block.scan(read, time.monotonic()))
            yield self._block.may_trigger
            time.sleep(max(0.0, CYCLE_S - (time.monotonic() - begun_s)))


def measure(
    folder: Path,
    trials: int,
    tick: Tick,
    *,
    kinds: Sequence[Sequence[str]] = KINDS,
    make: Callable[[int], IdlePlc] = IdlePlc,
) -> list[Figure]:
    """``trials`` faults, of each of ``kinds`` as many. ``make`` makes the PLC."""
    chance = random.Random(5)
    took_s: dict[str, list[float]] = {kind: [] for group in kinds for kind in group}
    again = 0
    with Line(folder, "modbus", 1) as line:
        line.start()
        plc = make(line.plc_cable.port)
        for number in range(trials):
            turn, at = divmod(number, len(kinds))
            kind = kinds[at][turn % len(kinds[at])]
            assert any(plc.scans(_HEALS_S)), f"it did not become Ready again: {line.log}"
            # So that the fault comes anywhere between two heartbeats.
            list(plc.scans(0.3 + chance.uniform(0.0, HEARTBEAT_S)))
            begun_s = time.monotonic()
            mend = _do(line, kind)
            is_seen = not all(plc.scans(_NEVER_S))
            took_s[kind].append(time.monotonic() - begun_s if is_seen else float("inf"))
            again += any(plc.scans(_STAYS_S))
            mend()
            tick(number + 1, trials)
        plc.close()
    every = [one for times in took_s.values() for one in times]
    in_time = sum(one <= LIMIT_S for one in every)
    return [
        Figure("faults", trials, "", "", None),
        Figure(
            f"seen within {LIMIT_S:g} s, the heartbeat's time and two scans",
            in_time,
            "",
            f"{trials}",
            in_time == trials,
        ),
        Figure("Ready again although nothing was mended", again, "", "0", not again),
        *[
            Figure(f"{kind}: seen after, {word}", round(pick(times), 3), "s")
            for kind, times in took_s.items()
            if times
            for word, pick in (("median", _median), ("at most", max))
        ],
    ]


def _do(line: Line, kind: str) -> Callable[[], None]:
    """Do it; what undoes it."""
    if kind == "bridge killed":
        line.kill_bridge()
        return line.restart
    if kind == "station killed":
        line.kill_station()
        return line.restart
    cable = line.plc_cable if "PLC" in kind else line.station_cable
    cable.silence()
    return cable.mend


def _median(times: Sequence[float]) -> float:
    return sorted(times)[len(times) // 2]


ROW: Final = Row("a PLC sees that nobody judges", 300, 24, measure)
