"""Sparkplug B, live: what another maker's host application makes of it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pytest

from tests.bridges.brokers import Broker, bridge, config, need_broker, process, wait_for
from tests.paths import ROOT
from tests.stations import Relay, Station

pytestmark = pytest.mark.peers

NAMES = {"group": "plant-1", "node": "line-1"}
_PYTHON = ROOT / ".peers" / "sparkplug" / "bin" / "python"


@pytest.fixture
def station(tmp_path: Path) -> Iterator[Station]:
    with Station(tmp_path / "journal") as made:
        yield made


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    with contextlib.closing(need_broker(tmp_path)) as made:
        yield made


class Host:
    """pysparkplug, in the environment of its own that it needs."""

    def __init__(self, broker: Broker, folder: Path) -> None:
        if not _PYTHON.exists():
            if os.environ.get("REQUIRE_PEERS") == "1":
                pytest.fail("pysparkplug is not installed; run .ci/peers")
            pytest.skip("pysparkplug is not installed")
        self._path = folder / "host"
        command = [_PYTHON, ROOT / "tests" / "bridges" / "sparkplug_peer.py", "127.0.0.1"]
        command += [str(broker.port), *NAMES.values()]
        with self._path.open("wb") as heard:
            self._child = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=heard, stderr=subprocess.STDOUT
            )
        wait_for(lambda: self._path.read_text().startswith("{"))

    def close(self) -> None:
        self._child.kill()
        self._child.wait()
        self._given.close()

    def command(self, name: str) -> None:
        self._given.write(f"{name}\n".encode())
        self._given.flush()

    @property
    def heard(self) -> list[dict[str, Any]]:
        """Every message that it could read, in order; what it could not read fails the test."""
        lines = self._path.read_text().split("\n")[1:-1]
        return [json.loads(line) for line in lines if '"NCMD"' not in line]

    @property
    def kinds(self) -> list[str]:
        return [one["kind"] for one in self.heard]

    @property
    def _given(self) -> IO[bytes]:
        assert self._child.stdin is not None
        return self._child.stdin


@pytest.fixture
def host(tmp_path: Path, broker: Broker) -> Iterator[Host]:
    with contextlib.closing(Host(broker, tmp_path)) as made:
        yield made


def of_kind(host: Host, kind: str) -> list[dict[str, Any]]:
    return [one for one in host.heard if one["kind"] == kind]


def in_order(heard: list[dict[str, Any]]) -> bool:
    """True when each birth of the node begins with 0, and each message has the next number."""
    expected = None
    for one in heard:
        if one["kind"] == "NDEATH":
            expected = None
            continue
        if one["kind"] == "NBIRTH":
            expected = 0
        if one["seq"] != expected:
            return False
        expected = (expected + 1) % 256
    return True


def wait_for_data(station: Station, host: Host, count: int) -> None:
    def has_all() -> bool:
        station.say_status()
        return len(of_kind(host, "DDATA")) >= count

    wait_for(has_all, 20)


def test_births_data_and_death(tmp_path, station, broker, host):
    station.lose(3)
    with bridge(config(station, broker.address, tmp_path, sparkplug=NAMES)):
        station.wait()
        wait_for_data(station, host, 3)
        station.publish(2)
        wait_for_data(station, host, 5)
    wait_for(lambda: host.kinds[-1] == "NDEATH")
    heard = host.heard
    assert host.kinds[:1] == ["NBIRTH"] and "NDATA" in host.kinds
    assert host.kinds.index("DBIRTH") < host.kinds.index("DDATA")
    assert in_order(heard) and not any(one["retain"] for one in heard)
    birth, death = heard[0], heard[-1]
    assert birth["metrics"]["bdSeq"] == death["metrics"]["bdSeq"] == 0
    assert birth["metrics"]["Node Control/Rebirth"] is False
    assert birth["types"]["bdSeq"] == "INT64"
    data = of_kind(host, "DDATA")
    assert [one["historical"] for one in data] == [True] * 3 + [False] * 2
    verdicts = station.recorded.verdicts
    assert [one["metrics"]["Seq"] for one in data] == [one.seq for one in verdicts]
    assert {one["device"] for one in data} == {"top"}
    told, last = data[-1]["metrics"], verdicts[-1]
    assert (told["Verdict"], told["Score"], told["PartId"], told["Epoch"], told["Recipe"]) == (
        last.verdict.value,
        last.score,
        last.part_id,
        last.epoch,
        last.recipe,
    )
    assert told["TriggerSeq"] is None and data[-1]["types"]["TriggerSeq"] == "INT64"
    assert data[-1]["types"]["JudgedAt"] == "DATETIME"


def test_numbers_wrap_at_255_and_a_host_may_ask_for_another_birth(tmp_path, station, broker, host):
    with bridge(config(station, broker.address, tmp_path, sparkplug=NAMES)):
        station.wait()
        station.publish(300)
        wait_for_data(station, host, 300)
        assert {one["seq"] for one in host.heard} == set(range(256)) and in_order(host.heard)
        host.command("Something/Else")
        host.command("rebirth")
        wait_for(lambda: host.kinds.count("NBIRTH") == 2)
        station.publish(2)
        wait_for_data(station, host, 302)
        births = of_kind(host, "NBIRTH")
        # The connection is the same one, and so is its number.
        assert births[0]["metrics"]["bdSeq"] == births[1]["metrics"]["bdSeq"]
        assert births[1]["metrics"]["Station"] == "line-1" and births[1]["seq"] == 0
        again = of_kind(host, "DBIRTH")[-1]
        assert again["metrics"]["Verdict"] == "PASS" and again["metrics"]["Seq"] == 300
        assert host.kinds.count("DBIRTH") == 2 and in_order(host.heard)
    assert "NDEATH" in host.kinds


def test_garbage_for_a_command_ends_nothing(tmp_path, station, broker, host, caplog):
    heard = broker.subscribe(tmp_path)
    with bridge(config(station, broker.address, tmp_path, sparkplug=NAMES)):
        station.wait()
        wait_for(lambda: host.kinds)
        for number, payload in enumerate((b"", b"rebirth", bytes(range(256)), b"\xff" * 100_000)):
            (tmp_path / "payload").write_bytes(payload)
            # Elsewhere, so that the host of this test need not read it: it would fail.
            broker.send_file("spBv1.0/plant-1/NCMD/line-1", tmp_path / "payload")
            wait_for(lambda number=number: caplog.text.count("unreadable") >= number)
        station.publish(2)
        wait_for(lambda: len(heard.seqs()) == 2)
    assert [one["bridge"] for one in heard.documents("status")].count("offline") == 1


def test_every_connection_has_the_next_number_and_its_death(tmp_path, station, broker, host):
    cable = Relay(f"tcp://{broker.address}")
    with contextlib.closing(cable):
        made = config(
            station, cable.address.removeprefix("tcp://"), tmp_path, sparkplug=NAMES, keepalive_s=5
        )
        with process(made, tmp_path) as child:
            station.wait()
            station.publish(2)
            wait_for_data(station, host, 2)
            child.send_signal(signal.SIGKILL)
            wait_for(lambda: host.kinds[-1] == "NDEATH")
        with process(made, tmp_path) as child:
            wait_for(lambda: host.kinds.count("NBIRTH") == 2)
            cable.cut()
            wait_for(lambda: host.kinds.count("NDEATH") == 2)
            cable.mend()
            wait_for(lambda: host.kinds.count("NBIRTH") == 3)
            child.send_signal(signal.SIGTERM)
            assert child.wait(20) == 0
        wait_for(lambda: host.kinds.count("NDEATH") == 3)
    births, deaths = of_kind(host, "NBIRTH"), of_kind(host, "NDEATH")
    assert [one["metrics"]["bdSeq"] for one in births] == [0, 1, 2]
    assert [one["metrics"]["bdSeq"] for one in deaths] == [0, 1, 2]
    assert in_order(host.heard)
