"""PASS coils whose bridge is killed, stopped or cut off while they are on, each at random."""

from __future__ import annotations

import contextlib
import random
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks.faults.lab import quantile
from benchmarks.figures import Figure
from benchmarks.rows import Row, Tick
from inspector.bridges.modbus_client import Device
from inspector.bridges.remote_io import read_inputs
from inspector.client import Commander
from tests import tiny
from tests.bridges.remote import RemoteLine

PULSE_S: Final = 0.1
WATCHDOG_S: Final = 0.2
DELAY_S: Final = 0.1
TOLERANCE_S: Final = 0.06
TIMEOUT_S: Final = 0.15
_ON_S: Final = 1.0
_OFF_S: Final = 2.0
_HEALTHY_S: Final = 60.0
_KINDS: Final = ("kill", "cut", "answers lost", "stop")

Pulse = tuple[float, float]
"""When a PASS went on (monotonic, s) and for how long it was on (s)."""


def run(folder: Path, trials: int, tick: Tick) -> Sequence[Figure]:
    """``trials`` PASS coils, each disturbed once while it is on; then some that are left alone."""
    timed = max(20, trials // 10)
    with contextlib.ExitStack() as stack:
        line = Disturbed(folder, stack, tick, trials + timed)
        line.start_station(tiny.write_bundle(folder / "tiny.onnx"), tiny.good_picture())
        for number in range(trials):
            line.disturb(_KINDS[number % len(_KINDS)], random.uniform(0.0, PULSE_S))
        pulses, edges, late_s = line.on_times(), line.edges, line.module.late_s
        round_trips = line.round_trips(10 * timed)
        line.end_bridge()
    scratch = folder / "at-once"
    scratch.mkdir()
    with contextlib.ExitStack() as stack:
        line = Disturbed(scratch, stack, tick, trials + timed, trials, delay_ms=None)
        line.start_station(tiny.write_bundle(scratch / "tiny.onnx"), tiny.good_picture())
        after_s = line.times(timed)
        line.end_bridge()
        verdict_s = line.verdict_times(timed)
    late = Figure("the simulated module's own timers late, longest", 1000 * late_s, "ms")
    return [*figures(pulses, edges, after_s, verdict_s, round_trips), late]


def figures(
    pulses: Sequence[Pulse],
    edges: Sequence[float],
    after_s: Sequence[float],
    verdict_s: Sequence[float],
    round_trips: Sequence[float],
) -> list[Figure]:
    """The table's figures; ``edges`` are when parts came to the sensor (monotonic, s)."""
    limit_s = PULSE_S + WATCHDOG_S
    over = sum(for_s > limit_s for _, for_s in pulses)
    strange = sum(not _is_due(at_s, edges) for at_s, _ in pulses)
    longest = max((for_s for _, for_s in pulses), default=0.0)
    return [
        Figure("PASS coils, each disturbed while on", len(pulses), "coils"),
        Figure("on longer than pulse + watchdog", over, "coils", "0", over == 0),
        Figure("on at another moment than a part's", strange, "coils", "0", strange == 0),
        Figure(f"longest; pulse + watchdog is {1000 * limit_s:.0f}", 1000 * longest, "ms"),
        Figure("sensor's edge to PASS coil, no delay, p50", 1000 * quantile(after_s, 0.5), "ms"),
        Figure("sensor's edge to PASS coil, no delay, p99", 1000 * quantile(after_s, 0.99), "ms"),
        Figure(
            "trigger to verdict over the command socket, p50", 1000 * quantile(verdict_s, 0.5), "ms"
        ),
        Figure("one question to the module, p50", 1000 * quantile(round_trips, 0.5), "ms"),
    ]


def _is_due(at_s: float, edges: Sequence[float]) -> bool:
    """True when a part that came to the sensor is at the ejector, as far as it can be known."""
    late_s = 2 * TOLERANCE_S + TIMEOUT_S
    return any(edge_s + DELAY_S <= at_s <= edge_s + DELAY_S + late_s for edge_s in edges)


class Disturbed(RemoteLine):
    """A line whose bridge is killed, stopped and cut off."""

    def __init__(
        self,
        folder: Path,
        stack: contextlib.ExitStack,
        tick: Tick = lambda _done, _of: None,
        of: int = 1,
        done: int = 0,
        **changes: object,
    ) -> None:
        keys = {
            "pulse_ms": round(1000 * PULSE_S),
            "delay_ms": round(1000 * DELAY_S),
            "tolerance_ms": round(1000 * TOLERANCE_S),
            "timeout_ms": round(1000 * TIMEOUT_S),
            "heartbeat_s": 0.4,
            "watchdog": {"time_ms": round(1000 * WATCHDOG_S), "registers": {4096: 2, 4102: 1}},
        }
        super().__init__(folder, stack, **(keys | changes))
        self._tick, self._of, self._done = tick, of, done
        self._bridge = self.start_bridge()
        self.edges: list[float] = []

    def end_bridge(self) -> None:
        """Stop it; a module without a bridge notes nothing more."""
        self._bridge.terminate()
        self._bridge.wait()

    def disturb(self, kind: str, after_s: float) -> None:
        """Have a PASS go on, and ``after_s`` later kill, stop or cut off the bridge."""
        edge_s = self._until_on()
        time.sleep(after_s)
        if kind == "kill":
            self._bridge.kill()
            self._bridge.wait()
        elif kind == "cut":
            self.cable.cut()
        elif kind == "answers lost":
            self.cable.carries_answers = False
        else:
            self._bridge.send_signal(signal.SIGSTOP)
        until_s = time.monotonic() + _OFF_S
        while self.module.coils[0] and time.monotonic() < until_s:
            time.sleep(0.001)
        if kind == "kill":
            self._bridge = self.start_bridge()
        elif kind == "stop":
            self._bridge.send_signal(signal.SIGCONT)
        else:
            self.cable.mend()
        self.io.go(edge_s)
        self._count()

    def times(self, parts: int) -> list[float]:
        """From the sensor's edge to the PASS coil, s, of parts that nothing disturbs."""
        found = []
        for _ in range(parts):
            edge_s = self._until_on()
            found.append(self.on_times()[-1][0] - edge_s)
            while self.module.coils[0]:
                time.sleep(0.001)
            self.io.go(edge_s)
            self._count()
        return found

    def verdict_times(self, count: int) -> list[float]:
        """From trigger to verdict over the command socket, s, without a bridge."""
        found = []
        with Commander(self.commands) as commander:
            for number in range(1, count + 1):
                begun_s = time.monotonic()
                commander.trigger("top", number)
                found.append(time.monotonic() - begun_s)
                time.sleep(0.05)
        return found

    def round_trips(self, count: int) -> list[float]:
        """How long the module takes for one reading of its inputs, s."""
        device, found = Device(self.config.model_copy(update={"connect": self._address()})), []
        device.connect()
        for _ in range(count):
            begun_s = time.monotonic()
            read_inputs(device, self.config)
            found.append(time.monotonic() - begun_s)
        device.close()
        return found

    def _address(self) -> str:
        return f"127.0.0.1:{self.io.port}"

    def _until_on(self) -> float:
        """A part comes, and its PASS goes on while it is still at the sensor; when it came.

        On a busy machine a part may be dropped; then another one comes.
        """
        deadline_s = time.monotonic() + _HEALTHY_S
        self._until_healthy(deadline_s)
        while time.monotonic() < deadline_s:
            edge_s = self.io.come()
            self.edges.append(edge_s)
            while time.monotonic() < edge_s + _ON_S:
                if self.module.coils[0]:
                    return edge_s
                time.sleep(0.0005)
            self.io.go(edge_s)
        raise TimeoutError(f"no PASS came on:\n{self.said()[-2000:]}")

    def _until_healthy(self, deadline_s: float) -> None:
        seen = self.waves()
        while self.waves() < seen + 2:
            if time.monotonic() > deadline_s:
                raise TimeoutError(f"the bridge is not healthy:\n{self.said()[-2000:]}")
            time.sleep(0.005)

    def _count(self) -> None:
        self._done += 1
        self._tick(self._done, self._of)


ROW = Row(
    promise="a PASS coil is never on longer than pulse + watchdog, whatever becomes of the bridge",
    trials=2000,
    quick=20,
    run=run,
)
