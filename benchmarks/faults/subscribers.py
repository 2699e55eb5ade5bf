"""Subscribers end complete, and a slow one holds up nobody."""

from __future__ import annotations

import contextlib
import itertools
import json
import random
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import zmq

from benchmarks.faults.lab import (
    Found,
    Journal,
    Line,
    Plc,
    Tick,
    line_of,
    memory_bytes,
    order,
    peer,
    quantile,
    settle,
    triggered_station,
    wait_for_growth,
)
from inspector.config.station_file import load_station
from tests import running
from tests.stations import Relay

LOW_WATER: Final = 50
NARROW: Final = """
import sys, zmq
from inspector.cli import main as cli
from inspector.station import triggers
from inspector.wire import gate
class Narrow(zmq.Context):
    def socket(self, kind, **options):
        made = super().socket(kind, **options)
        if kind == zmq.XPUB:
            made.sndbuf = 8192
        return made
gate.zmq.Context = Narrow
opened = gate.Gate.open
def low(self, kind, *named, high_water, **options):
    mark = min(high_water, %d) if kind == zmq.XPUB else high_water
    return opened(self, kind, *named, high_water=mark, **options)
gate.Gate.open = low
made = triggers.TriggerMemory.__init__
triggers.TriggerMemory.__init__ = lambda self, size: made(self, min(size, %d))
sys.exit(cli.main(["run", sys.argv[1]]))
"""
"""The daemon with a high-water mark (and so many triggers remembered) that is reached in a second,
not in an hour."""

PADDING: Final = "x" * 180
STOPPED: Final = 1000
PERIOD_S: Final = 0.02
PHASE: Final = 50
RESAMPLED: Final = 1000
MARK: Final = 100_000
"""High-water mark of verdicts as shipped."""
LOWERED: Final = 3000
REMEMBERED: Final = 10_000
BUFFERED: Final = 500
"""Verdicts that the buffers of both ends and of the kernel hold beside."""
FILLED: Final = 15_000
"""Verdicts after which the daemon's memory stays as it is, with a subscriber or without."""


def complete(folder: Path, trials: int, tick: Tick, stopped: int = STOPPED) -> Found:
    """Stop a subscriber past the high-water mark, restart the daemon, cut the network."""
    station = triggered_station(folder)
    address = load_station(station).sockets
    chance = random.Random(3)
    faults = dict.fromkeys(("stopped", "killed", "restarted", "cut"), 0)
    with contextlib.ExitStack() as stack:
        relays = [Relay(address.verdicts), Relay(address.commands)]
        for relay in relays:
            stack.callback(relay.close)
        plc = Plc(address.commands, "line")
        stack.callback(plc.close)
        daemons = _Daemons(station)
        stack.callback(daemons.close)
        daemons.start()
        plc.reconnect(address.commands)
        direct = {"verdicts": address.verdicts, "commands": address.commands}
        cabled = dict(zip(("verdicts", "commands"), (one.address for one in relays), strict=True))
        listeners = {
            "stopped": _Listener(stack, folder, "stopped", **direct),
            "cut off": _Listener(stack, folder, "cut", **cabled),
            "without refill": _Listener(
                stack, folder, "plain", verdicts=address.verdicts, commands=None
            ),
        }
        _work(plc, 30)
        for trial in range(trials):
            fault = ("stopped", "cut", "killed", "restarted")[trial % 4]
            faults[fault] += 1
            if fault == "stopped":
                asleep = [listeners["stopped"], listeners["without refill"]]
                for one in asleep:
                    one.child.send_signal(signal.SIGSTOP)
                _work(plc, stopped)
                for one in asleep:
                    one.child.send_signal(signal.SIGCONT)
            elif fault == "cut":
                for relay in relays:
                    relay.cut()
                _work(plc, 100)
                time.sleep(chance.uniform(0.0, 0.5))
                for relay in relays:
                    relay.mend()
            else:
                daemons.stop(signal.SIGKILL if fault == "killed" else signal.SIGTERM)
                plc.pump(0.05)
                daemons.start()
                plc.reconnect(address.commands)
            _work(plc, 30)
            tick(trial + 1, trials)
        listeners["late"] = _Listener(stack, folder, "late", **direct)
        count = len(Journal(folder / "journal").verdicts)
        for name, one in listeners.items():
            if name != "without refill":
                wait_for_growth(one.size, count, 30.0)
        missed = listeners["without refill"].missed()
    lines = Journal(folder / "journal").lines
    found = {
        name: _compare(lines, one) for name, one in listeners.items() if name != "without refill"
    }
    wrong = sum(sum(one.values()) for one in found.values())
    return Found(
        fault=f"subscriber stopped for {stopped} verdicts past a high-water mark of {LOW_WATER} "
        f"({faults['stopped']}×), cable cut ({faults['cut']}×), daemon killed "
        f"({faults['killed']}×) and restarted ({faults['restarted']}×), one begins at the end",
        trials=trials,
        figure=f"missing after refill {sum(one['missing'] for one in found.values())}, twice "
        f"{sum(one['twice'] for one in found.values())}, out of order "
        f"{sum(one['disorder'] for one in found.values())}; without refill {missed} were missed",
        holds=wrong == 0 and missed > 0,
        figures={
            "verdicts": len(lines),
            "missed_without_refill": missed,
            **{
                f"{name.replace(' ', '_')}_{what}": value
                for name, one in found.items()
                for what, value in one.items()
            },
        },
    )


class _Daemons:
    """One station started again and again, with a low high-water mark."""

    def __init__(self, station: Path) -> None:
        self._station = station
        self._stack = contextlib.ExitStack()

    def start(self) -> None:
        self._now = self._stack.enter_context(
            running.running(self._station, program=NARROW % (LOW_WATER, REMEMBERED))
        )
        self._now.wait_for_log(r"state=Ready")

    def stop(self, number: int) -> None:
        self._now.child.send_signal(number)
        self._now.child.wait(20)
        self._stack.close()

    def close(self) -> None:
        self._stack.close()


class _Listener:
    """A subscriber in a process of its own, and the file it writes."""

    def __init__(
        self, stack: contextlib.ExitStack, folder: Path, name: str, **options: Any
    ) -> None:
        self._out = folder / f"{name}.jsonl"
        self.child = stack.enter_context(peer("listen", out=str(self._out), **options))
        assert self.child.stdout is not None
        self.child.stdout.readline()

    def size(self) -> int:
        return sum(1 for _ in self._items())

    def lines(self) -> list[Line]:
        return [line_of(one) for one in self._items() if "gap" not in one]

    def missed(self) -> int:
        return sum(one.get("gap", 0) for one in self._items())

    def _items(self) -> list[dict[str, Any]]:
        text = self._out.read_text(encoding="utf-8")
        return [json.loads(line) for line in text.splitlines() if line.endswith("}")]


def _compare(lines: list[Line], listener: _Listener) -> dict[str, int]:
    heard = listener.lines()
    tally = settle(set(lines), set(lines), heard)
    place = {line: at for at, line in enumerate(lines)}
    places = [place[line] for line in heard if line in place]
    return {
        "missing": tally.lost,
        "twice": tally.duplicated,
        "unknown": tally.unexpected,
        "gaps": listener.missed(),
        "disorder": sum(b < a for a, b in itertools.pairwise(places)),
    }


def _work(plc: Plc, count: int) -> None:
    """So many verdicts, most of them over-triggers: those need no judge."""
    for _ in range(count):
        plc.number += 1
        plc.send((plc.session, plc.number, f"{plc.number}-{PADDING}"))
        if plc.number % 50 == 0:
            plc.pump(30.0)
    plc.pump(30.0)


def slow(folder: Path, trials: int, tick: Tick) -> Found:
    """One that never reads and ten that come and go, in turn with none of them, in one run."""
    with _quick_disk(folder) as place:
        taken = compare(place, trials, tick)
        growth, most, sent = flood(place / "flood", LOWERED if trials < 5000 else MARK)
    base, with_crowd = (quantile(taken[crowded], 0.99) * 1e3 for crowded in (False, True))
    ratio, more = with_crowd / base, with_crowd - base
    low, low_ms = least_rise(taken)
    # The 99 % of some hundred verdicts is what a few of them took, on a machine that others use.
    calm = low <= 1.1 or low_ms <= 0.5
    bounded = growth < 0.01
    return Found(
        fault=f"a subscriber that never reads and ten that come and go, in turn with none, "
        f"{PHASE} triggers a phase; {sent} verdicts past the high-water mark for the memory",
        trials=len(taken[True]),
        figure=f"99 % of verdicts: {with_crowd:.2f} ms with, {base:.2f} ms without, ratio "
        f"{ratio:.3f} (95 % interval from {low:.3f}), {more:+.2f} ms (from {low_ms:+.2f}); "
        f"memory past the mark {growth:+.2%} of {most / 1e6:.0f} MB",
        holds=calm and bounded,
        figures={
            "p99_with_ms": round(with_crowd, 3),
            "p99_without_ms": round(base, 3),
            "p99_ratio": round(ratio, 4),
            "p99_ratio_from": round(low, 4),
            "p99_difference_ms": round(more, 3),
            "p99_difference_from_ms": round(low_ms, 3),
            "median_with_ms": round(quantile(taken[True], 0.5) * 1e3, 3),
            "median_without_ms": round(quantile(taken[False], 0.5) * 1e3, 3),
            "longest_with_ms": round(max(taken[True]) * 1e3, 3),
            "longest_without_ms": round(max(taken[False]) * 1e3, 3),
            "memory_growth_past_the_mark": round(growth, 5),
            "memory_mb": round(most / 1e6, 1),
        },
    )


def least_rise(taken: dict[bool, list[float]]) -> tuple[float, float]:
    """Lower ends of the 95 % intervals of the ratio and the difference (ms) of the 99 %.

    By bootstrap; phases are resampled whole, since what disturbs one trigger disturbs its
    neighbours.
    """
    chance = random.Random(0)
    phases = {
        crowded: [all_s[at : at + PHASE] for at in range(0, len(all_s), PHASE)]
        for crowded, all_s in taken.items()
    }
    ratios, differences = [], []
    for _ in range(RESAMPLED):
        base, with_crowd = (
            quantile([s for one in chance.choices(some, k=len(some)) for s in one], 0.99)
            for some in (phases[False], phases[True])
        )
        ratios.append(with_crowd / base)
        differences.append((with_crowd - base) * 1e3)
    return quantile(ratios, 0.025), quantile(differences, 0.025)


def compare(folder: Path, trials: int, tick: Tick) -> dict[bool, list[float]]:
    """Seconds from trigger to verdict, each ``trials`` times: without the crowd and with it."""
    station = triggered_station(folder)
    address = load_station(station).sockets
    taken: dict[bool, list[float]] = {False: [], True: []}
    with (
        running.running(station) as daemon,
        peer("crowd", verdicts=address.verdicts, images=address.images, guests=10) as crowd,
        contextlib.closing(_Stopwatch(address.verdicts, address.commands)) as watch,
    ):
        daemon.wait_for_log(r"state=Ready")
        watch.warm_up()
        crowded = False
        while len(taken[True]) < trials:
            order(crowd, "on" if crowded else "off")
            taken[crowded] += [watch.measure() for _ in range(PHASE)]
            tick(len(taken[True]), trials)
            crowded = not crowded
    return taken


@contextlib.contextmanager
def _quick_disk(folder: Path) -> Any:
    """A folder in memory, where a sync takes no time that would hide what is measured."""
    base = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=base if base.is_dir() else folder) as name:
        yield Path(name)


class _Stopwatch:
    """Triggers one part after the other and takes the time until its verdict is on the wire."""

    def __init__(self, verdicts: str, commands: str) -> None:
        self._plc = Plc(commands, "line")
        self._context = zmq.Context()
        self._verdicts = self._context.socket(zmq.SUB)
        self._verdicts.connect(verdicts)
        self._verdicts.subscribe(b"verdict/")

    def warm_up(self) -> None:
        deadline = time.monotonic() + 10
        heard = 0
        while heard < 20 and time.monotonic() < deadline:
            heard += self.measure(0.2) < 0.2
        assert heard == 20, "no verdict was heard"

    def measure(self, timeout_s: float = 10.0) -> float:
        begun = time.monotonic()
        _, number, _ = self._plc.trigger()
        while self._verdicts.poll(timeout_s * 1000):
            if json.loads(self._verdicts.recv_multipart()[1])["trigger_seq"] == number:
                break
        taken_s = time.monotonic() - begun
        self._plc.pump(1.0)
        time.sleep(max(0.0, PERIOD_S - taken_s))
        return taken_s

    def close(self) -> None:
        self._plc.close()
        self._verdicts.close(linger=0)
        self._context.term()


def flood(
    folder: Path,
    mark: int,
    *,
    remembered: int = REMEMBERED,
    past: int | None = None,
    filled: int = FILLED,
    compared: int | None = None,
) -> tuple[float, int, int]:
    """Growth of the daemon's memory once a subscriber that never reads is at the high-water mark.

    Share of what it was then, bytes at the end, and verdicts sent past the mark (``past``).
    ``compared``: over how many verdicts, at either end, the least memory is taken.
    """
    # So few pictures are kept that their limit, too, is reached before anything is compared.
    journal = {"folder": str(folder / "journal"), "reserve_mb": 1, "pictures_mb": 1}
    station = triggered_station(folder, journal=journal)
    address = load_station(station).sockets
    full = max(remembered, mark)
    past = full // 2 if past is None else past
    with (
        running.running(station, program=NARROW % (mark, remembered)) as daemon,
        _deaf(address.verdicts) as deaf,
        contextlib.closing(Plc(address.commands, "line")) as plc,
    ):
        daemon.wait_for_log(r"state=Ready")
        time.sleep(0.3)

        def least(count: int) -> int:
            """The least memory while so many verdicts are made: buffers come and go."""
            found = []
            for _ in range(count // 500):
                _work(plc, 500)
                found.append(memory_bytes(daemon.child.pid))
            return min(found)

        # Past the mark, and until SQLite's page cache and Python's arenas are as large as they get.
        _work(plc, full + filled)
        before = least(compared or LOWERED)
        last = compared or past // 2
        _work(plc, past - last)
        after = least(last)
        # It was there, and from the mark on the daemon kept nothing for it.
        kept = 0
        while deaf.poll(1000):
            deaf.recv_multipart()
            kept += 1
        assert 0.9 * mark <= kept <= mark + BUFFERED, f"{kept} verdicts were kept, not {mark}"
    return after / before - 1.0, after, past


@contextlib.contextmanager
def _deaf(verdicts: str) -> Iterator[zmq.Socket[bytes]]:
    """A subscriber that does not read, with buffers as small as can be."""
    context = zmq.Context()
    made = context.socket(zmq.SUB)
    made.linger, made.rcvhwm, made.rcvbuf = 0, 1, 4096
    made.subscribe(b"verdict/")
    made.connect(verdicts)
    try:
        yield made
    finally:
        context.destroy(linger=0)
