"""Another maker's broker, mosquitto, with its own programs; and bridges to it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import pytest
import yaml

from inspector.bridges.broker import Access
from inspector.bridges.mqtt import Bridge
from inspector.bridges.position import PositionFile
from inspector.config.mqtt_bridge import MqttBridge
from tests.commands import Started, start
from tests.stations import free_ports

TOPIC = "works/line-1"


def need_mosquitto() -> None:
    """Skip the test, or with REQUIRE_PEERS=1 fail it, where the broker is not installed."""
    for program in ("mosquitto", "mosquitto_sub", "mosquitto_pub"):
        if shutil.which(program) is None and not Path("/usr/sbin", program).exists():
            if os.environ.get("REQUIRE_PEERS") == "1":
                pytest.fail(f"{program} is not installed")
            pytest.skip(f"{program} is not installed")


def wait_for(holds: Callable[[], Any], within_s: float = 15.0) -> Any:
    deadline = time.monotonic() + within_s
    while not (found := holds()):
        assert time.monotonic() < deadline, "did not come true in time"
        time.sleep(0.02)
    return found


class Broker:
    """mosquitto on a free port, which keeps its sessions on the disk over an orderly restart."""

    def __init__(self, folder: Path, *settings: str, words: Sequence[str] = ()) -> None:
        """``words``: how mosquitto's own programs get in."""
        self._words = tuple(words)
        self.port = int(free_ports(1)[0].rpartition(":")[2])
        self.address = f"127.0.0.1:{self.port}"
        self._folder = folder / "broker"
        self._folder.mkdir(parents=True)
        self._file = self._folder / "mosquitto.conf"
        lines = [
            f"listener {self.port} 127.0.0.1",
            "persistence true",
            f"persistence_location {self._folder}/",
            "max_queued_messages 100000",
            *(settings or ("allow_anonymous true",)),
        ]
        if os.geteuid() == 0:
            # It would become a user who cannot read the folder of a test.
            lines.insert(0, "user root")
        self._file.write_text("\n".join(lines) + "\n", encoding="utf-8")
        self._child: subprocess.Popen[bytes] | None = None
        self._subscribers: list[subprocess.Popen[bytes]] = []

    def start(self) -> Broker:
        program = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
        log = (self._folder / "log").open("ab")
        with log:
            self._child = subprocess.Popen([program, "-c", str(self._file)], stdout=log, stderr=log)
        wait_for(self._listens)
        return self

    def stop(self) -> None:
        if self._child is not None:
            self._child.send_signal(signal.SIGCONT)
            self._child.terminate()
            self._child.wait()
            self._child = None

    def signal(self, number: signal.Signals) -> None:
        assert self._child is not None
        self._child.send_signal(number)

    def subscribe(self, folder: Path, *words: str, topic: str = f"{TOPIC}/#") -> Heard:
        """What mosquitto_sub hears; its session outlives a restart of the broker."""
        path = folder / f"heard-{len(self._subscribers)}"
        command = ["mosquitto_sub", "-V", "mqttv5", "-h", "127.0.0.1", "-p", str(self.port)]
        command += [*self._words, "-q", "1", "-c", "-i", path.name, "-x", "3600", "-t", topic]
        with path.open("wb") as file:
            child = subprocess.Popen([*command, "-F", "%r %t %x", *words], stdout=file)
        self._subscribers.append(child)
        return Heard(path)

    def publish(self, topic: str, payload: str, *words: str) -> None:
        self._publish(topic, "-m", payload, *words)

    def send_file(self, topic: str, path: Path) -> None:
        """The whole file as one message."""
        # The program takes no empty file.
        self._publish(topic, *(("-f", str(path)) if path.stat().st_size else ("-n",)))

    def send_lines(self, topic: str, path: Path) -> None:
        """Each line of the file as a message."""
        with path.open("rb") as lines:
            self._publish(topic, "-l", given=lines)

    def _publish(self, topic: str, *words: str, given: IO[bytes] | None = None) -> None:
        command = ["mosquitto_pub", "-V", "mqttv5", "-h", "127.0.0.1", "-p", str(self.port)]
        command += [*self._words, "-q", "1", "-t", topic, *words]
        subprocess.run(command, stdin=given, check=True, timeout=20)

    def close(self) -> None:
        for child in self._subscribers:
            child.kill()
            child.wait()
        self.stop()

    @property
    def log(self) -> str:
        """What the broker itself said."""
        return (self._folder / "log").read_text(encoding="utf-8", errors="replace")

    def _listens(self) -> bool:

        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return True
        return False


class Heard:
    """What a subscriber heard: topic and payload of each message, in order."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def messages(self) -> list[tuple[str, bytes]]:
        found = []
        for line in self._path.read_bytes().split(b"\n")[:-1]:
            _, topic, payload = line.split(b" ", 2)
            found.append((topic.decode(), bytes.fromhex(payload.decode())))
        return found

    def documents(self, kind: str) -> list[dict[str, Any]]:
        return [json.loads(body) for topic, body in self.messages() if topic == f"{TOPIC}/{kind}"]

    def seqs(self) -> list[tuple[str, int]]:
        """(epoch, seq) of the verdicts, as a consumer takes them that knows what it has."""
        found: dict[tuple[str, int], None] = {}
        for told in self.documents("verdict"):
            found.setdefault((told["epoch"], told["seq"]))
        return list(found)


def need_broker(folder: Path, *settings: str, words: Sequence[str] = ()) -> Broker:
    """A broker that runs, where one is installed."""
    need_mosquitto()
    return Broker(folder, *settings, words=words).start()


def config(station: Any, broker: str, folder: Path, **changes: Any) -> MqttBridge:
    made: dict[str, Any] = {
        "bridge": "mqtt",
        "station": {
            "commands": station.commands,
            "verdicts": station.verdicts,
            "images": station.images,
        },
        "broker": broker,
        "topic": TOPIC,
        "state": folder / "bridge.state",
        "begin": "journal",
        "timeout_s": 1,
        "keepalive_s": 5,
    }
    return MqttBridge.model_validate(made | changes)


@contextlib.contextmanager
def process(made: MqttBridge, folder: Path) -> Iterator[Started | subprocess.Popen[bytes]]:
    """The same as a process of its own; what it logs is in ``bridge.log``."""
    path = folder / "bridge.yaml"
    document = made.model_dump(mode="json", exclude_none=True)
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    with (folder / "bridge.log").open("ab") as log:
        child = start(["bridge", "mqtt", path], stderr=log)
    try:
        yield child
    finally:
        child.kill()
        child.wait()


@contextlib.contextmanager
def bridge(made: MqttBridge) -> Iterator[PositionFile]:
    """A bridge at work in a thread of the test; its state."""
    access = Access.load(made)
    state = PositionFile(made.state, 0 if made.begin == "journal" else time.time_ns() // 1000)
    started = threading.Event()
    ending: list[Any] = []

    async def serve() -> None:
        stop = asyncio.Event()
        ending.append((asyncio.get_running_loop(), stop))
        started.set()
        await Bridge(made, access, None, state).run(stop)

    thread = threading.Thread(target=lambda: asyncio.run(serve()), name="bridge")
    thread.start()
    started.wait()
    try:
        yield state
    finally:
        loop, stop = ending[0]
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(stop.set)
        thread.join()
        state.close()
