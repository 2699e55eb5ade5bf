"""Verdicts over MQTT while the broker goes away: none lost, none out of order, doubles known.

A station judges parts without a pause. Its bridge is a process of its own, the broker is mosquitto,
and mosquitto_sub is the consumer, whose session outlives the outages. An outage is a cut cable, a
broker that stands still, one that is stopped and started, or a cut in which the bridge is killed.
A broker that is killed is not among them: what it acknowledged and forgets, nobody can send again.
"""

from __future__ import annotations

import contextlib
import json
import math
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psutil

from benchmarks.faults.lab import Journal
from benchmarks.figures import Figure
from benchmarks.rows import Row, Tick
from inspector.client import Commander
from inspector.config.mqtt_bridge import MqttBridge
from tests import running, tiny
from tests.bridges.brokers import Broker, config, process
from tests.stations import Relay

_FULL_FROM: Final = 5_000
"""From so many verdicts on the outages are as long as promised."""
_LONGEST_S: Final = (2.0, 60.0)
_RATE_HZ: Final = (40, 100)
_PAUSE_S: Final = ((0.5, 1.5), (2.0, 15.0))
_COMPLETE_S: Final = 120.0
"""So long after the last outage the consumer may take to have everything."""
KINDS: Final = ("cable cut", "broker stands still", "broker stopped", "bridge killed")

Key = tuple[str, int]
"""A verdict: epoch and seq."""


@dataclass
class Accounts:
    """What a consumer heard, against what the journal has."""

    lost: int
    unexpected: int
    out_of_order: int
    doubles: int
    unlike: int
    """Messages that are unlike what the journal has under the same epoch and seq."""


def account(recorded: Iterable[dict[str, Any]], heard: Iterable[dict[str, Any]]) -> Accounts:
    """Settle the accounts; both in the order in which they came.

    A message is out of order when a verdict that it follows in the journal comes first later.
    """
    bodies = {(one["epoch"], one["seq"]): one for one in recorded}
    places = {key: place for place, key in enumerate(bodies)}
    seen: set[Key] = set()
    found = Accounts(0, 0, 0, 0, 0)
    last = -1
    for message in heard:
        told = {name: value for name, value in message.items() if name != "record"}
        key = told["epoch"], told["seq"]
        if key not in bodies:
            found.unexpected += 1
            continue
        found.unlike += told != bodies[key]
        if key in seen:
            found.doubles += 1
            continue
        seen.add(key)
        found.out_of_order += places[key] < last
        last = max(last, places[key])
    found.lost = len(bodies) - len(seen)
    return found


class Consumer:
    """mosquitto_sub, and how many different verdicts it has heard so far."""

    def __init__(self, broker: Broker, path: Path, topic: str) -> None:
        self._path = path
        self._read = 0
        self._keys: set[Key] = set()
        command = ["mosquitto_sub", "-V", "mqttv5", "-h", "127.0.0.1", "-p", str(broker.port)]
        command += ["-q", "1", "-c", "-i", "consumer", "-x", "86400", "-t", topic, "-F", "%p"]
        with path.open("wb") as file:
            self._child = subprocess.Popen(command, stdout=file)

    def count(self) -> int:
        """How many it has."""
        with self._path.open("rb") as file:
            file.seek(self._read)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self._read += len(whole)
        for line in whole.splitlines():
            told = json.loads(line)
            self._keys.add((told["epoch"], told["seq"]))
        return len(self._keys)

    def messages(self) -> Iterable[dict[str, Any]]:
        """All that it heard, in order."""
        with self._path.open("rb") as file:
            for line in file:
                yield json.loads(line)

    def close(self) -> None:
        self._child.kill()
        self._child.wait()


class Bridge:
    """The bridge's process, which may be killed and started again; its largest memory."""

    def __init__(self, made: MqttBridge, folder: Path) -> None:
        self._made, self._folder = made, folder
        self._stack = contextlib.ExitStack()
        self.most_mb = 0.0
        self.start()

    def start(self) -> None:
        self._child = self._stack.enter_context(process(self._made, self._folder))
        self._process = psutil.Process(self._child.pid)

    def kill(self) -> None:
        self._stack.close()

    def look(self) -> None:
        """Note its memory. It must be alive."""
        assert self._child.poll() is None, self.log
        self.most_mb = max(self.most_mb, self._process.memory_info().rss / 2**20)

    @property
    def log(self) -> str:
        return (self._folder / "bridge.log").read_text(encoding="utf-8")


def outages(folder: Path, trials: int, tick: Tick, *, kinds: Sequence[str] = KINDS) -> list[Figure]:
    """Have a station judge ``trials`` parts while the broker goes away again and again."""
    is_full = trials >= _FULL_FROM
    longest_s, rate_hz, pause_s = _LONGEST_S[is_full], _RATE_HZ[is_full], _PAUSE_S[is_full]
    folder.mkdir(parents=True, exist_ok=True)
    chance = random.Random(24)
    bundle = tiny.write_bundle(folder / "tiny.onnx")
    parts = running.write_parts(folder / "parts", tiny.good_picture(), tiny.bad_picture())
    station = running.write_station(
        folder / "station.yaml", bundle, running.folder_camera(parts, rate_hz=rate_hz, loop=True)
    )
    lengths: list[float] = []
    with contextlib.ExitStack() as stack:
        broker = stack.enter_context(contextlib.closing(Broker(folder)))
        broker.start()
        cable = stack.enter_context(contextlib.closing(Relay(f"tcp://{broker.address}")))
        daemon = stack.enter_context(running.running(station))
        plc = stack.enter_context(Commander(daemon.commands))
        made = config(
            daemon, cable.address.removeprefix("tcp://"), folder, timeout_s=2, keepalive_s=5
        )
        consumer = Consumer(broker, folder / "heard", f"{made.topic}/verdict")
        stack.callback(consumer.close)
        bridge = Bridge(made, folder)
        stack.callback(bridge.kill)

        def rest(seconds: float) -> None:
            until = time.monotonic() + seconds
            while (left := until - time.monotonic()) > 0:
                tick(consumer.count(), trials)
                time.sleep(min(left, 0.5))

        way, judged = _Way(broker, cable, bridge), 0
        while judged < trials:
            rest(chance.uniform(*pause_s))
            bridge.look()
            # The first is as long as any; of the others short ones are as likely as long ones.
            spread = math.log(longest_s) * (chance.random() if lengths else 1.0)
            way.end(kinds[len(lengths) % len(kinds)], math.exp(spread), rest)
            lengths.append(math.exp(spread))
            judged = plc.status().last_seq
        plc.stop()
        judged = plc.status().last_seq
        begun = time.monotonic()
        while consumer.count() < judged and time.monotonic() < begun + _COMPLETE_S:
            rest(0.2)
        caught_up_s = time.monotonic() - begun
        # What comes twice or too late comes now.
        rest(1.0)
        bridge.look()
        assert "Traceback" not in bridge.log, bridge.log
        bridge.kill()
    found = account(Journal(folder / "journal").verdicts, consumer.messages())
    return [
        Figure("verdicts", judged, "", f"at least {trials}", judged >= trials),
        Figure("outages of the broker", len(lengths), "times"),
        Figure("outages, together", round(sum(lengths), 1), "s"),
        Figure("longest outage", round(max(lengths), 1), "s"),
        Figure("lost", found.lost, "verdicts", "0", not found.lost),
        Figure("out of order", found.out_of_order, "verdicts", "0", not found.out_of_order),
        Figure("never judged", found.unexpected, "verdicts", "0", not found.unexpected),
        Figure("doubles", found.doubles, "verdicts"),
        Figure("unlike the journal's", found.unlike, "messages", "0", not found.unlike),
        Figure("complete after the last part", round(caught_up_s, 1), "s"),
        Figure("memory of the bridge, at most", round(bridge.most_mb), "MB"),
    ]


@dataclass
class _Way:
    """What lies between the station and its consumer."""

    broker: Broker
    cable: Relay
    bridge: Bridge

    def end(self, kind: str, seconds: float, rest: Callable[[float], None]) -> None:
        """One outage, from its beginning to its end."""
        if kind == "broker stands still":
            self.broker.signal(signal.SIGSTOP)
            rest(seconds)
            self.broker.signal(signal.SIGCONT)
        elif kind == "broker stopped":
            self.broker.stop()
            rest(seconds)
            self.broker.start()
        else:
            self.cable.cut()
            if kind == "bridge killed":
                self.bridge.kill()
                self.bridge.start()
            rest(seconds)
            self.cable.mend()


def run(folder: Path, trials: int, tick: Tick) -> Sequence[Figure]:
    """The figures of this row."""
    return outages(folder, trials, tick)


ROW = Row(
    promise="no verdict is lost, late or altered over MQTT while the broker goes away",
    trials=50_000,
    quick=600,
    run=run,
)
