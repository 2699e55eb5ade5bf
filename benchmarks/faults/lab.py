"""What the rows of the table share: a client that counts, ears, and the accounts they settle."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import zmq

from inspector.client.subscriber import Gap, Subscriber
from inspector.journal.reader import Reader
from inspector.wire.messages import VerdictMessage
from tests import running, tiny
from tests.stations import free_ports

Key = tuple[str, int, str]
"""A trigger: session, number, part."""

Line = tuple[str, int, str, str]
"""A verdict as everyone must have it: epoch, seq, part and verdict."""

Tick = Callable[[float, float], None]
"""Told how many trials are done, and of how many."""


@dataclass(frozen=True)
class Found:
    """What a row found. ``fault`` is what was done, ``figure`` the answer to the row's promise."""

    fault: str
    trials: int
    figure: str
    holds: bool
    figures: dict[str, float | int | str] = field(default_factory=dict)


@dataclass
class Tally:
    """Accounts in the sense of Jepsen's total-queue checker."""

    lost: int = 0
    duplicated: int = 0
    unexpected: int = 0
    recovered: int = 0
    """Delivered without an acknowledgement, which is allowed."""

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.lost + other.lost,
            self.duplicated + other.duplicated,
            self.unexpected + other.unexpected,
            self.recovered,
        )

    @property
    def clean(self) -> bool:
        return not (self.lost or self.duplicated or self.unexpected)

    def __str__(self) -> str:
        return f"lost {self.lost}, duplicated {self.duplicated}, unexpected {self.unexpected}"


def settle(attempted: set[Any], acknowledged: set[Any], delivered: Iterable[Any]) -> Tally:
    """Every attempt at most once, every acknowledged one exactly once, nothing else."""
    counts = Counter(delivered)
    return Tally(
        lost=len(acknowledged - counts.keys()),
        duplicated=sum(count - 1 for count in counts.values()),
        unexpected=len(counts.keys() - attempted),
        recovered=len((counts.keys() & attempted) - acknowledged),
    )


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that ``share`` of all do not exceed; nan of none."""
    ordered = sorted(values)
    return ordered[max(0, -int(-share * len(ordered) // 1) - 1)] if ordered else float("nan")


class Plc:
    """A client that sends triggers without waiting and keeps books; raw ZeroMQ and JSON."""

    def __init__(self, address: str, session: str, camera: str = "top") -> None:
        self.session = session
        self.camera = camera
        self.number = 0
        self.attempted: set[Key] = set()
        self.acknowledged: set[Key] = set()
        self.answers: dict[Key, set[Line]] = {}
        self.reasons: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.waiting: dict[Key, float] = {}
        """Triggers without a verdict, oldest first, and when each was sent first (monotonic)."""
        self._sent_us: dict[Key, int] = {}
        self.tells_time = True
        """False: its triggers do not say when they were sent."""
        self._ids: dict[str, Key] = {}
        self._sent = 0
        self._context = zmq.Context()
        self._socket = self._connect(address)

    def trigger(self, part: str | None = None) -> Key:
        """A new number; ``part`` None: a part that there was not before."""
        self.number += 1
        key = (self.session, self.number, f"{self.session}-{self.number}" if part is None else part)
        self.send(key)
        return key

    def send(self, key: Key) -> None:
        """Send it, or send it again."""
        repeat = key in self.attempted
        self.attempted.add(key)
        if key not in self.answers:
            self.waiting.setdefault(key, time.monotonic())
        self._sent += 1
        body = {
            "command": "trigger",
            "id": str(self._sent),
            "camera": self.camera,
            "session": key[0],
            "trigger_seq": key[1],
            "part_id": key[2],
            "repeat": repeat,
            "sent_us": self._sent_us.setdefault(key, time.time_ns() // 1000)
            if self.tells_time
            else None,
        }
        self._ids[str(self._sent)] = key
        self._socket.send(json.dumps(body).encode())

    def pump(self, timeout_s: float, most_waiting: int = 0) -> bool:
        """Take replies until at most ``most_waiting`` triggers wait for their verdict."""
        deadline = time.monotonic() + timeout_s
        while len(self.waiting) > most_waiting:
            left_ms = round((deadline - time.monotonic()) * 1000)
            if left_ms < 0 or not self._socket.poll(left_ms):
                return False
            self._take(json.loads(self._socket.recv()))
        with contextlib.suppress(zmq.Again):
            while True:
                self._take(json.loads(self._socket.recv(zmq.NOBLOCK)))
        return True

    def reconnect(self, address: str) -> None:
        """Drop the connection in the middle; what has no verdict is sent again, in order."""
        self._socket.close(linger=0)
        self._ids.clear()
        self._socket = self._connect(address)
        for key in list(self.waiting):
            self.send(key)

    def close(self) -> None:
        self._socket.close(linger=0)
        self._context.term()

    def _connect(self, address: str) -> zmq.Socket[bytes]:
        made = self._context.socket(zmq.DEALER)
        made.set_hwm(0)
        made.connect(address)
        return made

    def _take(self, reply: dict[str, Any]) -> None:
        key = self._ids.get(reply["id"])
        if key is None:
            return
        if reply["kind"] == "refused":
            self.refused[reply["code"]] += 1
            self.waiting.pop(key, None)
            return
        self.acknowledged.add(key)
        if reply["kind"] == "verdict":
            del self._ids[reply["id"]]
            verdict = reply["verdict"]
            if key not in self.answers:
                self.reasons[verdict["reason"] or "pass"] += 1
            self.answers.setdefault(key, set()).add(line_of(verdict))
            self.waiting.pop(key, None)


def line_of(verdict: dict[str, Any]) -> Line:
    return (
        verdict["epoch"],
        verdict["seq"],
        verdict["part_id"],
        f"{verdict['verdict']} {verdict['reason']} {verdict['score']}",
    )


class Journal:
    """What a station's journal has, read by the benchmark."""

    def __init__(self, folder: Path) -> None:
        with Reader(folder) as reader:
            self.verdicts = [json.loads(body) for body in reader.walk()]

    @property
    def lines(self) -> list[Line]:
        return [line_of(verdict) for verdict in self.verdicts]

    @property
    def keys(self) -> list[Key]:
        return [
            (verdict["session"], verdict["trigger_seq"], verdict["part_id"])
            for verdict in self.verdicts
            if verdict["trigger_seq"] is not None
        ]

    @property
    def holes(self) -> int:
        """Numbers that an epoch left out."""
        highest: dict[str, int] = {}
        for verdict in self.verdicts:
            highest[verdict["epoch"]] = max(highest.get(verdict["epoch"], 0), verdict["seq"])
        return sum(highest.values()) - len(self.verdicts)

    @property
    def disorder(self) -> int:
        """Verdicts that came before one on an earlier trigger of the same session and epoch."""
        last: dict[tuple[str, str, str], int] = {}
        found = 0
        for verdict in self.verdicts:
            number = verdict["trigger_seq"]
            if number is None or verdict["reason"] == "trigger_conflict":
                continue
            key = (verdict["epoch"], verdict["camera"], verdict["session"])
            found += number < last.get(key, -1)
            last[key] = number
        return found


def settle_all(plcs: Sequence[Plc], journal: Journal, heard: Sequence[Line]) -> Tally:
    """Accounts of what clients sent, with the journal, with their answers, with a subscriber."""
    attempted = set().union(*(plc.attempted for plc in plcs))
    acknowledged = set().union(*(plc.acknowledged for plc in plcs))
    tally = settle(attempted, acknowledged, journal.keys)
    for plc in plcs:
        tally.lost += len(plc.waiting)
        tally.duplicated += sum(len(lines) - 1 for lines in plc.answers.values())
        tally += settle(
            set(journal.lines), set(), (line for lines in plc.answers.values() for line in lines)
        )
    lines = set(journal.lines)
    return tally + settle(lines, lines, heard)


class Ear(threading.Thread):
    """A subscriber in a thread, which keeps what it is handed on; a context manager."""

    def __init__(self, verdicts: str, commands: str | None, **options: Any) -> None:
        super().__init__(name="ear", daemon=True)
        self.verdicts: list[VerdictMessage] = []
        self.gaps = 0
        self._ending = False
        self._subscriber = Subscriber(verdicts, commands=commands, **options)

    def __enter__(self) -> Ear:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending = True
        self.join()

    def run(self) -> None:
        with self._subscriber as subscriber:
            while not self._ending:
                item = subscriber.receive(50)
                if isinstance(item, VerdictMessage):
                    self.verdicts.append(item)
                elif isinstance(item, Gap):
                    self.gaps += item.count

    @property
    def lines(self) -> list[Line]:
        return [line_of(json.loads(one.model_dump_json())) for one in list(self.verdicts)]

    def wait_for(self, count: int, timeout_s: float = 30.0) -> None:
        """Until so many verdicts came, or none did for ``timeout_s``."""
        wait_for_growth(lambda: len(self.verdicts), count, timeout_s)


def wait_for_growth(size: Callable[[], int], count: int, timeout_s: float) -> None:
    seen, deadline = -1, 0.0
    while (now := size()) < count:
        if now > seen:
            seen, deadline = now, time.monotonic() + timeout_s
        elif time.monotonic() > deadline:
            return
        time.sleep(0.02)


def fixed_sockets() -> dict[str, str]:
    """Addresses that stay the same over restarts."""
    return dict(zip(("verdicts", "images", "commands"), free_ports(3), strict=True))


def triggered_station(folder: Path, **keys: Any) -> Path:
    """A station whose parts are ordered by triggers: tiny model, a good and a bad part in turn."""
    folder.mkdir(parents=True, exist_ok=True)
    bundle = tiny.write_bundle(folder / "tiny.onnx")
    parts = running.write_parts(folder / "parts", tiny.good_picture(), tiny.bad_picture())
    camera = running.folder_camera(parts, trigger="software", loop=True, deadline_ms=5000)
    return running.write_station(
        folder / "station.yaml",
        bundle,
        camera,
        # What is sent again after a crash is to be judged, and not only refused a picture.
        **{"sockets": fixed_sockets(), "stale_trigger_ms": 600_000} | keys,
    )


@contextlib.contextmanager
def peer(kind: str, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A process of ``peers.py``; it ends with its standard input."""
    command = [sys.executable, "-m", "benchmarks.faults.peers", kind, json.dumps(options)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=running.environment()
    ) as child:
        try:
            yield child
        finally:
            with contextlib.suppress(ProcessLookupError):
                child.send_signal(signal.SIGCONT)
            assert child.stdin is not None
            child.stdin.close()
            try:
                child.wait(10)
            except subprocess.TimeoutExpired:
                child.kill()


def order(crowd: subprocess.Popen[bytes], word: str) -> None:
    """Tell a crowd 'on' or 'off', and wait until it has obeyed."""
    assert crowd.stdin is not None
    assert crowd.stdout is not None
    crowd.stdin.write(word.encode())
    crowd.stdin.flush()
    assert crowd.stdout.readline().decode().strip() == word


def memory_bytes(pid: int) -> int:
    """Resident, without what it shares with other processes."""
    return int(psutil.Process(pid).memory_full_info().uss)
