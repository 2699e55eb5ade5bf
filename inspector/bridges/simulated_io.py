"""A remote I/O module in software: inputs, coils, pulse outputs and an output watchdog.

It is what a line of parts, a sensor and an ejector see of the bridge to remote I/O. It notes when
each coil went on and off, so that what a killed bridge or a cut cable leaves behind can be timed.
"""

from __future__ import annotations

import bisect
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from inspector.bridges.simulated_server import ServerThread
from inspector.config.modbus_client import Guard, RemoteIoBridge

PULSES_PER_S: Final = 1000.0
"""Speed of the simulated belt in counts of its encoder."""
_STEP_S: Final = 0.01
"""The module's timers count in such steps, and end early rather than late."""
_SETTLE_S: Final = 2.0
_MARGIN_S: Final = 0.05


@dataclass(frozen=True)
class Change:
    """A coil that went on or off; ``at_s`` is monotonic."""

    at_s: float
    coil: int
    on: bool


class IoModule:
    """The module's inputs, coils and registers, as a table that a server serves.

    Its watchdog turns all coils off when no request has come for its time, and its pulse outputs
    turn themselves off. ``is_guarded`` False: somebody has turned both off. A real module's timers
    are hardware: what these do is noted for the time at which they are due, and ``late_s`` is the
    longest by which this program did it later.
    """

    function_codes: Final = frozenset({1, 2, 3, 4, 5, 6, 15, 16})

    def __init__(self, config: RemoteIoBridge, clock: Callable[[], float] = time.monotonic) -> None:
        self._config = config
        self._clock = clock
        numbers = (config.trigger_input, config.belt_input or 0)
        self.inputs = [False] * (max(numbers) + 1)
        coils = (config.pass_coil, config.fail_coil, config.fault_coil, config.healthy_coil)
        self.coils = [False] * (max(coil or 0 for coil in coils) + 1)
        self.is_guarded = True
        self.changes: list[Change] = []
        self.late_s = 0.0
        self._since_s: dict[int, float] = {}
        self._asked_s: float | None = None
        self._pulsed = {
            coil
            for coil in (config.pass_coil, config.fail_coil, config.fault_coil)
            if coil is not None
        }
        self._belt_runs = False
        self._moved = 0.0
        self._moved_s = clock()

    @property
    def was_asked(self) -> bool:
        """True once a request has come."""
        return self._asked_s is not None

    def run_belt(self, runs: bool) -> None:
        """Start or stop the belt."""
        self._move()
        if self._config.belt_input is not None:
            self.inputs[self._config.belt_input] = runs
        self._belt_runs = runs

    def tick(self) -> None:
        """Let the module's own timers act."""
        config = self._config
        if not self.is_guarded:
            return
        dog, pulse = config.watchdog, config.module_pulse
        if dog is not None and self._asked_s is not None:
            for coil in range(len(self.coils)):
                self._end(coil, self._asked_s, dog)
        if pulse is not None:
            for coil in self._pulsed:
                self._end(coil, self._since_s.get(coil, 0.0), pulse)

    def get(self, code: int, address: int, count: int) -> list[int] | list[bool] | None:
        """Coils (1), inputs (2), registers (3, 4); writes ask for what they have written."""
        self.tick()
        self._asked_s = self._clock()
        if code in {1, 5, 15}:
            return _part(self.coils, address, count)
        if code == 2:
            return _part(self.inputs, address, count)
        found = self._registers("input" if code == 4 else "holding")
        values = [found[number] for number in range(address, address + count) if number in found]
        return values if len(values) == count else None

    def put(self, code: int, address: int, values: Sequence[int]) -> int | None:
        """Write coils; its registers are set by its own configuration."""
        self.tick()
        self._asked_s = self._clock()
        if code not in {5, 15} or address + len(values) > len(self.coils):
            return None
        for coil, value in enumerate(values, address):
            self._set(coil, bool(value))
        return 0

    def on_times(self, coil: int) -> list[tuple[float, float]]:
        """When a coil went on (monotonic, s) and for how long (s), up to now if it still is."""
        found: list[tuple[float, float]] = []
        begun_s: float | None = None
        for change in list(self.changes):
            if change.coil != coil:
                continue
            if change.on:
                begun_s = change.at_s
            elif begun_s is not None:
                found.append((begun_s, change.at_s - begun_s))
                begun_s = None
        if begun_s is not None:
            found.append((begun_s, self._clock() - begun_s))
        return found

    def _end(self, coil: int, since_s: float, guard: Guard) -> None:
        """Turn a coil off if it is on, and its guard's time is over."""
        due_s, now_s = since_s + guard.time_ms / 1000, self._clock()
        if self.coils[coil] and now_s >= due_s - _STEP_S:
            self.late_s = max(self.late_s, now_s - due_s)
            self._set(coil, False, min(due_s, now_s))

    def _set(self, coil: int, on: bool, at_s: float | None = None) -> None:
        if self.coils[coil] is on:
            return
        at_s = self._clock() if at_s is None else at_s
        self.coils[coil] = on
        self._since_s[coil] = at_s
        self.changes.append(Change(at_s, coil, on))

    def _registers(self, table: str) -> dict[int, int]:
        config, found = self._config, dict[int, int]()
        for guard in (config.watchdog, config.module_pulse):
            if guard is not None and guard.table == table:
                off = dict.fromkeys(guard.registers, 0)
                found |= guard.registers if self.is_guarded else off
        at = config.encoder_register
        if at is not None and config.encoder_table == table:
            self._move()
            count = int(self._moved)
            if config.encoder_bits == 16:
                found[at] = count & 0xFFFF
            else:
                found |= {at: count >> 16 & 0xFFFF, at + 1: count & 0xFFFF}
        return found

    def _move(self) -> None:
        now_s = self._clock()
        if self._belt_runs:
            self._moved += PULSES_PER_S * (now_s - self._moved_s)
        self._moved_s = now_s


@dataclass(frozen=True)
class Sorted:
    """How one part ended at the ejector."""

    part_id: str
    output: str
    """``pass``, ``fail``, ``fault`` or "" for none; all but ``pass`` is a reject."""
    after_ms: float
    """From the sensor's edge to the coil; 0 without an output."""
    on_ms: float
    """So long the coil was on."""


class SimulatedIo:
    """A module that is served, and a belt that carries parts past its sensor."""

    def __init__(self, config: RemoteIoBridge, address: tuple[str, int] | None = None) -> None:
        self._config = config
        self.module = IoModule(config)
        self._server = ServerThread(self.module, address or config.host_and_port, self.module.tick)
        self.port = self._server.open()
        self.module.run_belt(True)

    def close(self) -> None:
        """Serve no more."""
        self._server.finish()

    def wait(self, stop: Callable[[], bool] = lambda: False) -> None:
        """Until a bridge works with the module: its healthy coil changes, if it has one."""
        healthy = self._config.healthy_coil
        while not stop() and not self.module.was_asked:
            time.sleep(0.01)
        settled_s = time.monotonic() + _SETTLE_S
        while not stop():
            waves = sum(change.coil == healthy for change in list(self.module.changes))
            if waves >= 2 or (healthy is None and time.monotonic() >= settled_s):
                return
            time.sleep(0.01)

    def pass_part(self) -> float:
        """Let a part come to the sensor, and go on; returns its edge (monotonic, s)."""
        edge_s = self.come()
        self.go(edge_s)
        return edge_s

    def come(self) -> float:
        """Let a part come to the sensor; returns its edge (monotonic, s)."""
        self.module.inputs[self._config.trigger_input] = True
        return time.monotonic()

    def go(self, edge_s: float) -> None:
        """Let the part that came at ``edge_s`` leave the sensor, when it has been seen for sure."""
        # A signal that is shorter than the tolerance may come and go between two readings.
        signal_s = 2 * self._config.tolerance_ms / 1000
        time.sleep(max(0.0, edge_s + signal_s - time.monotonic()))
        self.module.inputs[self._config.trigger_input] = False
        time.sleep(signal_s)

    def run(
        self, parts: int, every_s: float, *, stop: Callable[[], bool] = lambda: False
    ) -> Iterator[Sorted]:
        """Send ``parts`` past the sensor, one ``every_s`` at the most; gives each part's end."""
        edges: list[float] = []
        told, due_s = 0, time.monotonic()
        while not stop() and told < parts:
            now_s = time.monotonic()
            if len(edges) < parts and now_s >= due_s:
                due_s = now_s + every_s
                edges.append(self.pass_part())
            elif told < len(edges) and now_s >= self._end_s(edges, told):
                yield self._outcome(f"part-{told + 1:05}", edges, told)
                told += 1
            else:
                time.sleep(0.002)

    def _way_s(self) -> float | None:
        if self._config.delay_pulses is not None:
            return self._config.delay_pulses / PULSES_PER_S
        return None if self._config.delay_ms is None else self._config.delay_ms / 1000

    def _window_s(self, edges: Sequence[float], number: int) -> tuple[float, float]:
        """From when to when an output that goes on is this part's."""
        way_s, edge_s = self._way_s(), edges[number]
        if way_s is not None:
            late_s = self._config.tolerance_ms / 1000 + _MARGIN_S
            return edge_s + way_s - _STEP_S, edge_s + way_s + late_s
        over_s = edge_s + self._config.result_timeout_ms / 1000 + _MARGIN_S
        following = edges[number + 1] if number + 1 < len(edges) else over_s
        return edge_s, min(over_s, following)

    def _end_s(self, edges: Sequence[float], number: int) -> float:
        return self._window_s(edges, number)[1] + self._config.pulse_ms / 1000

    def _outcome(self, part_id: str, edges: Sequence[float], number: int) -> Sorted:
        config = self._config
        first_s, last_s = self._window_s(edges, number)
        for output, coil in (
            ("pass", config.pass_coil),
            ("fail", config.fail_coil),
            ("fault", config.fault_coil),
        ):
            if coil is None:
                continue
            times = self.module.on_times(coil)
            at = bisect.bisect_left(times, (first_s, 0.0))
            if at < len(times) and times[at][0] < last_s:
                begun_s, on_s = times[at]
                return Sorted(part_id, output, 1000 * (begun_s - edges[number]), 1000 * on_s)
        return Sorted(part_id, "", 0.0, 0.0)


def _part(values: list[bool], address: int, count: int) -> list[bool] | None:
    return values[address : address + count] if address + count <= len(values) else None
