"""Brokers that refuse, vanish, talk garbage or keep silent: the bridge says so, and waits."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from inspector.bridges.broker import (
    Access,
    BrokerError,
    Connection,
    connected,
    naming,
    try_connection,
)
from inspector.config.mqtt_bridge import MqttBridge
from tests.bridges.brokers import bridge, config, wait_for
from tests.bridges.certificates import Authority
from tests.loops import in_a_loop
from tests.stations import Station

Behave = Callable[["Peer"], None]


class Peer:
    """One connection to a broker that is none."""

    def __init__(self, made: socket.socket, ending: threading.Event) -> None:
        self.made = made
        self.ending = ending

    def packet(self) -> tuple[int, bytes]:
        """First byte and body of the next MQTT packet; (0, b"") at the end."""
        first = self._exactly(1)
        length, shift = 0, 0
        while first:
            byte = self._exactly(1)[0]
            length |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return first[0], self._exactly(length)
        return 0, b""

    def welcome(self) -> None:
        """Take the connection as an MQTT 5 broker does."""
        assert self.packet()[0] == 0x10
        self.made.sendall(b"\x20\x03\x00\x00\x00")

    def acknowledge(self) -> bool:
        """Take one message; False at the end."""
        kind, body = self.packet()
        if kind >> 4 == 3 and kind & 6:
            length = int.from_bytes(body[:2], "big")
            self.made.sendall(b"\x40\x02" + body[2 + length : 4 + length])
        return kind != 0

    def hang(self) -> None:
        self.ending.wait()

    def _exactly(self, count: int) -> bytes:
        found = b""
        while len(found) < count:
            self.made.settimeout(0.1)
            try:
                more = self.made.recv(count - len(found))
            except TimeoutError:
                if self.ending.is_set():
                    return b""
                continue
            if not more:
                return b""
            found += more
        return found


class FakeBroker:
    """Listens, and treats one connection after the other as told, the last way for ever."""

    def __init__(self, *ways: Behave) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(0.05)
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._ways = ways
        self._ending = threading.Event()
        self.taken = 0
        self._threads: list[threading.Thread] = []
        self._threads.append(threading.Thread(target=self._accept))
        self._threads[0].start()

    def close(self) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def _accept(self) -> None:
        while not self._ending.is_set():
            with contextlib.suppress(TimeoutError):
                made, _ = self._listener.accept()
                way = self._ways[min(self.taken, len(self._ways) - 1)]
                self.taken += 1
                thread = threading.Thread(target=self._serve, args=(made, way))
                self._threads.append(thread)
                thread.start()

    def _serve(self, made: socket.socket, way: Behave) -> None:
        with made, contextlib.suppress(OSError):
            way(Peer(made, self._ending))


def well(peer: Peer) -> None:
    peer.welcome()
    while peer.acknowledge():
        pass


def closes_at_once(peer: Peer) -> None:
    pass


def resets(peer: Peer) -> None:
    peer.made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def never_answers(peer: Peer) -> None:
    peer.hang()


def answers_garbage(peer: Peer) -> None:
    peer.packet()
    peer.made.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n" + bytes(range(256)))
    peer.hang()


def answers_a_longest_length(peer: Peer) -> None:
    peer.packet()
    peer.made.sendall(b"\x20\xff\xff\xff\xff\xff")
    peer.hang()


def answers_half_a_packet(peer: Peer) -> None:
    peer.packet()
    peer.made.sendall(b"\x20\x03\x00")
    peer.hang()


def is_busy(peer: Peer) -> None:
    peer.packet()
    peer.made.sendall(b"\x20\x03\x00\x89\x00")


def is_of_mqtt_3(peer: Peer) -> None:
    peer.packet()
    peer.made.sendall(b"\x20\x02\x00\x01")


def acknowledges_what_it_never_got(peer: Peer) -> None:
    peer.welcome()
    while peer.packet()[0]:
        peer.made.sendall(b"\x40\x02\xff\xfe")


def talks_garbage_then(peer: Peer) -> None:
    peer.welcome()
    for _ in range(3):
        peer.acknowledge()
    peer.made.sendall(bytes(range(256)) * 40)
    peer.hang()


def vanishes_within_a_message(peer: Peer) -> None:
    peer.welcome()
    for _ in range(3):
        peer.acknowledge()
    peer._exactly(5)


def takes_and_keeps_silent(peer: Peer) -> None:
    peer.welcome()
    while peer.packet()[0]:
        pass


def shuts_down(peer: Peer) -> None:
    """Says so, as a broker does at its own end."""
    peer.welcome()
    peer.acknowledge()
    peer.made.sendall(b"\xe0\x02\x8b\x00")


def throws_out(peer: Peer) -> None:
    """As another client of the same name would have it."""
    peer.welcome()
    peer.acknowledge()
    peer.made.sendall(b"\xe0\x02\x8e\x00")


WAYS = {
    closes_at_once: "hung up before it answered; .*its port for TLS",
    resets: "reset by peer|hung up before it answered",
    never_answers: r"no answer in 2 s\W*$",
    answers_garbage: "answers what is no MQTT 5",
    answers_a_longest_length: "answers what is no MQTT 5",
    answers_half_a_packet: r"no answer in 2 s\W*$",
    is_busy: r"refuses the connection: Server busy\W*$",
    is_of_mqtt_3: "Unsupported protocol version; a bridge speaks MQTT 5",
    acknowledges_what_it_never_got: "no answer in",
    talks_garbage_then: "the connection ended: Protocol error",
    vanishes_within_a_message: r"the connection ended\W*$",
    takes_and_keeps_silent: "no answer in",
    shuts_down: "the connection ended: Server shutting down",
    throws_out: "the connection ended: Session taken over",
}


@contextlib.contextmanager
def faking(*ways: Behave) -> Iterator[FakeBroker]:
    made = FakeBroker(*ways)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inspector.bridges.broker._CONNECT_S", 2.0)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_what_a_broker_does_is_one_line_and_nothing_is_lost(tmp_path, caplog, impatient, way):
    caplog.set_level("INFO", "inspector")
    with Station(tmp_path / "journal") as station, faking(way, well) as broker:
        station.lose(20)
        with bridge(config(station, broker.address, tmp_path, timeout_s=2)) as state:

            def has_all() -> bool:
                station.say_status()
                time.sleep(0.05)
                return state.last is not None and state.last.seq == 20

            wait_for(has_all)
    said = [one.getMessage() for one in caplog.records if "problem=" in one.getMessage()]
    assert len(said) == 1 and broker.address in said[0], said
    assert re.search(WAYS[way], said[0]), said
    assert "broker well" in caplog.text
    assert "\n" not in said[0] and len(said[0]) < 300, said[0]


def test_a_message_after_the_end_is_told_why_the_connection_ended(tmp_path):
    """The library itself knows of such a message that there is no connection, and no more."""

    def garbage(peer: Peer) -> None:
        peer.welcome()
        peer.made.sendall(bytes(range(256)))
        peer.hang()

    async def publish_too_late(made: MqttBridge) -> None:
        async with connected(made, Access.load(made), None, "late") as connection:
            while connection.why_ended is None:
                await asyncio.sleep(0.01)
            with naming(connection, made):
                await connection.deliver("works/line-1", b"late", 1, False, None)

    with faking(garbage) as broker:
        made = MqttBridge.model_validate(
            {"bridge": "mqtt", "broker": broker.address, "state": tmp_path / "state"}
        )
        with pytest.raises(BrokerError, match="the connection ended: Protocol error"):
            in_a_loop(publish_too_late(made))


def test_a_socket_that_is_closed_before_it_is_written_to_is_no_traceback():
    async def close_at_once() -> list[dict[str, Any]]:
        problems: list[dict[str, Any]] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, about: problems.append(about))
        connection = Connection("127.0.0.1", 1)
        ours, theirs = socket.socketpair()
        with theirs:
            connection._on_socket_register_write(connection._client, None, ours)
            ours.close()
            await asyncio.sleep(0.01)
        return problems

    assert in_a_loop(close_at_once()) == []


@pytest.mark.long
@pytest.mark.parametrize("way", [never_answers, takes_and_keeps_silent])
def test_a_bridge_ends_in_time_whatever_its_broker_does(tmp_path, way):
    with Station(tmp_path / "journal") as station, faking(way) as broker:
        station.lose(20)
        with bridge(config(station, broker.address, tmp_path, timeout_s=300)):
            wait_for(lambda: broker.taken)
            station.say_status()
            time.sleep(0.5)
            begun = time.monotonic()
        assert time.monotonic() - begun < 8


@pytest.mark.long
def test_a_broker_that_never_speaks_tls_holds_nobody_up(tmp_path):
    ca = Authority(tmp_path).ca
    with faking(never_answers) as broker:
        made = MqttBridge.model_validate(
            {
                "bridge": "mqtt",
                "broker": broker.address,
                "state": tmp_path / "state",
                "tls": {"ca": ca},
                "keepalive_s": 3600,
            }
        )
        begun = time.monotonic()
        with pytest.raises(BrokerError, match=r"no answer|timed out"):
            try_connection(made, Access.load(made))
        assert time.monotonic() - begun < 8


def test_a_broker_that_is_not_there_is_told_once(tmp_path: Path, caplog):
    caplog.set_level("INFO", "inspector")
    with socket.create_server(("127.0.0.1", 0)) as gone:
        address = f"127.0.0.1:{gone.getsockname()[1]}"
    with Station(tmp_path / "journal") as station, bridge(config(station, address, tmp_path)):
        time.sleep(2)
    assert caplog.text.count("problem=") == 1 and "Connection refused" in caplog.text
