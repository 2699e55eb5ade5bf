"""The MQTT bridge against another maker's broker."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from inspector.wire.messages import VerdictMessage
from tests.bridges.brokers import Broker, Heard, bridge, config, need_mosquitto, wait_for
from tests.stations import Relay, Station

pytestmark = pytest.mark.peers


@pytest.fixture
def station(tmp_path: Path) -> Iterator[Station]:
    with Station(tmp_path / "journal") as made:
        yield made


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    need_mosquitto()
    made = Broker(tmp_path).start()
    yield made
    made.close()


def expected(station: Station) -> list[tuple[str, int]]:
    return [(one.epoch, one.seq) for one in station.recorded.verdicts]


def test_verdicts_are_the_wires_own_and_say_whether_they_are_records(tmp_path, station, broker):
    heard = broker.subscribe(tmp_path)
    station.lose(3)
    with bridge(config(station, broker.address, tmp_path)) as state:
        station.wait()
        station.say_status()
        wait_for(lambda: len(heard.seqs()) == 3)
        station.publish(2)
        wait_for(lambda: len(heard.seqs()) == 5)
        wait_for(lambda: state.last is not None and state.last.seq == 5)
    told = heard.documents("verdict")
    assert [one.pop("record") for one in told] == [True, True, True, False, False]
    assert [VerdictMessage.model_validate(one) for one in told] == station.recorded.verdicts
    assert heard.documents("status")[-1] == {
        "bridge": "offline",
        "acknowledged": None,
        "station": None,
    }


def complete(station: Station, heard: Heard) -> None:
    """Until the consumer has all that the journal has; the station says its status meanwhile."""

    def has_all() -> bool:
        station.say_status()
        time.sleep(0.1)
        return len(heard.seqs()) >= len(expected(station))

    wait_for(has_all, 20)
    assert heard.seqs() == expected(station)


def test_nothing_is_lost_or_disordered_over_outages_and_starts(tmp_path, station, broker):
    heard = broker.subscribe(tmp_path)
    cable = Relay(f"tcp://{broker.address}")
    with contextlib.closing(cable):
        made = config(station, cable.address.removeprefix("tcp://"), tmp_path)
        with bridge(made):
            station.wait()
            station.publish(5)
            complete(station, heard)
            cable.cut()
            station.publish(300)
            station.rest(7)
            station.go_down()
            station.come_up()
            station.lose(4)
            cable.mend()
            station.publish(3)
            complete(station, heard)
            broker.signal(signal.SIGSTOP)
            station.publish(50)
            time.sleep(2.5)
            broker.signal(signal.SIGCONT)
            complete(station, heard)
            broker.stop()
            station.publish(20)
            broker.start()
            complete(station, heard)
        station.lose(2)
        with bridge(made):
            complete(station, heard)
    assert heard.documents("gap") == []
