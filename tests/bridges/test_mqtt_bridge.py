"""The MQTT bridge against another maker's broker."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inspector.wire.messages import HeatmapMessage, VerdictMessage
from tests.bridges.brokers import (
    TOPIC,
    Broker,
    Heard,
    bridge,
    config,
    need_broker,
    process,
    wait_for,
)
from tests.stations import Relay, Station, verdict

pytestmark = pytest.mark.peers


@pytest.fixture
def station(tmp_path: Path) -> Iterator[Station]:
    with Station(tmp_path / "journal") as made:
        yield made


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    with contextlib.closing(need_broker(tmp_path)) as made:
        yield made


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
        "missing": None,
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


def test_heatmaps_are_the_wires_own_bytes(tmp_path, station, broker):
    heard = broker.subscribe(tmp_path)
    with bridge(config(station, broker.address, tmp_path, heatmaps=True)):
        station.wait()
        wait_for(lambda: station.publisher.wants_heatmaps("line-1"))
        station.publish(1)
        chance = np.random.default_rng(1)
        picture = chance.integers(0, 256, (70, 90, 3), dtype=np.uint8)
        png, jpeg = station.show(1, picture[:, :, 0], picture)
        wait_for(lambda: len([1 for topic, _ in heard.messages() if "/heatmap/" in topic]) == 2)
        # What is no picture ends nothing.
        station.publisher.send_heatmap(_heatmap(), b"no png", b"no jpeg")
        station.publish(1)
        wait_for(lambda: len(heard.seqs()) == 2)
    found = dict(heard.messages())
    assert found[f"{TOPIC}/heatmap/top/map.png"] == png
    assert found[f"{TOPIC}/heatmap/top/picture.jpg"] == jpeg


def test_without_the_key_nobody_asks_for_heatmaps(tmp_path, station, broker):
    heard = broker.subscribe(tmp_path)
    with bridge(config(station, broker.address, tmp_path)):
        station.wait()
        station.publish(1)
        wait_for(heard.seqs)
        assert not station.publisher.wants_heatmaps("line-1")


def test_a_picture_that_the_broker_finds_too_large_holds_no_verdict_up(tmp_path, station, caplog):
    caplog.set_level("INFO", "inspector")
    with contextlib.closing(
        need_broker(tmp_path, "allow_anonymous true", "max_packet_size 20000")
    ) as broker:
        heard = broker.subscribe(tmp_path)
        with bridge(config(station, broker.address, tmp_path, heatmaps=True)):
            station.wait()
            wait_for(lambda: station.publisher.wants_heatmaps("line-1"))
            chance = np.random.default_rng(1)
            picture = chance.integers(0, 256, (300, 300, 3), dtype=np.uint8)
            for seq in range(1, 6):
                station.publish(1)
                station.show(seq, picture[:, :, 0], picture)
            wait_for(lambda: len(heard.seqs()) == 5)
            small = chance.integers(0, 256, (9, 9, 3), dtype=np.uint8)
            station.publish(1)
            station.show(6, small[:, :, 0], small)
            wait_for(lambda: f"{TOPIC}/heatmap/top/map.png" in dict(heard.messages()))
    assert caplog.text.count("problem=") == 1 and "20000" in caplog.text
    assert len([1 for topic, _ in heard.messages() if "/heatmap/" in topic]) == 2


def retained(broker: Broker, folder: Path) -> dict[str, Any]:
    """The status that somebody hears who comes now."""
    heard = broker.subscribe(folder, topic=f"{TOPIC}/status")
    return wait_for(lambda: heard.documents("status"))[-1]


def test_a_killed_bridge_is_told_by_its_will_and_a_stopped_one_by_itself(tmp_path, station, broker):
    heard = broker.subscribe(tmp_path)
    made = config(station, broker.address, tmp_path)
    for end in (signal.SIGKILL, signal.SIGTERM):
        with process(made, tmp_path) as child:
            station.wait()
            station.publish(2)
            complete(station, heard)
            wait_for(lambda: heard.documents("status")[-1]["station"])
            assert retained(broker, tmp_path)["bridge"] == "online"
            child.send_signal(end)
            assert child.wait(20) == (0 if end is signal.SIGTERM else -end)
        wait_for(lambda: heard.documents("status")[-1]["bridge"] == "offline")
        assert retained(broker, tmp_path)["bridge"] == "offline"
    log = (tmp_path / "bridge.log").read_text()
    assert "Traceback" not in log


def test_what_the_journal_has_let_go_is_told_and_counted(tmp_path, station, broker, caplog):
    heard = broker.subscribe(tmp_path)
    made = config(station, broker.address, tmp_path)
    with bridge(made):
        station.wait()
        station.publish(3)
        wait_for(lambda: len(heard.seqs()) == 3)
    station.lose(20)
    station.rest(8)
    station.go_down()
    station.come_up()
    station.lose(2)
    station.recorded.prune(1, before=11)
    station.recorded.prune(2, before=6)
    with bridge(made) as state:
        complete_but(station, heard, missing={1: range(4, 11), 2: range(1, 6)})
        wait_for(lambda: state.missing == 12)
        station.say_status()
        wait_for(lambda: heard.documents("status")[-1]["missing"] == 12)
    gaps = [(one["epoch"], one["first"], one["last"]) for one in heard.documents("gap")]
    assert gaps == [("epoch-1", 4, 10), ("epoch-2", 1, 5)]
    assert caplog.text.count("verdicts missing") == 2
    # It is not told again, and is still known.
    with bridge(made) as state:
        station.wait()
        station.say_status()
        wait_for(lambda: heard.documents("status")[-1]["station"])
        assert state.missing == 12 and len(heard.documents("gap")) == 2


def complete_but(station: Station, heard: Heard, missing: dict[int, range]) -> None:
    lacks = {(f"epoch-{epoch}", seq) for epoch, seqs in missing.items() for seq in seqs}
    due = [one for one in expected(station) if one not in lacks]

    def has_all() -> bool:
        station.say_status()
        time.sleep(0.1)
        return len(heard.seqs()) >= len(due)

    wait_for(has_all, 20)
    assert heard.seqs() == due


def test_a_whole_start_that_the_journal_has_let_go_is_told(tmp_path, station, broker):
    heard = broker.subscribe(tmp_path)
    made = config(station, broker.address, tmp_path)
    with bridge(made):
        station.wait()
        station.publish(3)
        wait_for(lambda: len(heard.seqs()) == 3)
    station.lose(4)
    station.go_down()
    station.come_up()
    station.lose(5)
    station.recorded.prune(1, before=100)
    with bridge(made) as state:
        complete_but(station, heard, missing={1: range(4, 8)})
        wait_for(lambda: state.missing)
        station.say_status()
        wait_for(lambda: heard.documents("status")[-1]["missing"])
    assert [one["epoch"] for one in heard.documents("gap")] == ["epoch-1"]


def test_a_position_in_another_stations_journal_is_told(tmp_path, station, broker):
    heard = broker.subscribe(tmp_path)
    made = config(station, broker.address, tmp_path)
    made.state.write_text('{"since_us": 1, "births": -1, "epoch": "another", "seq": 7}')
    station.lose(4)
    with bridge(made):
        complete(station, heard)
    (gap,) = heard.documents("gap")
    assert (gap["epoch"], gap["first"], gap["last"]) == ("another", 8, None)


def test_a_state_that_cannot_be_written_costs_doubles_and_nothing_else(
    tmp_path, station, broker, caplog
):
    heard = broker.subscribe(tmp_path)
    (tmp_path / "disk").mkdir()
    made = config(station, broker.address, tmp_path, state=tmp_path / "disk" / "state")
    with process(made, tmp_path) as child:
        station.wait()
        station.publish(3)
        wait_for(lambda: len(heard.seqs()) == 3)
        (tmp_path / "disk").rename(tmp_path / "away")
        time.sleep(1.1)
        station.publish(4)
        wait_for(lambda: len(heard.seqs()) == 7)
        child.kill()
    (tmp_path / "away").rename(tmp_path / "disk")
    station.lose(2)
    with bridge(made):
        complete(station, heard)
    told = [one["seq"] for one in heard.documents("verdict")]
    assert len(told) > 9 and told[-2:] == [8, 9]
    assert (tmp_path / "bridge.log").read_text().count("state not written") == 1


def test_a_damaged_state_is_one_line_and_an_exit_code(tmp_path, station):
    made = config(station, "127.0.0.1:1", tmp_path)
    made.state.write_bytes(b'{"since_us": 1, "bir')
    with process(made, tmp_path) as child:
        assert child.wait(20) == 10
    (line,) = (tmp_path / "bridge.log").read_text().splitlines()
    assert str(made.state) in line and "delete it" in line


def _heatmap() -> HeatmapMessage:
    fields = {"width": 9, "height": 9, "part_id": "p", "camera": "top", "station": "line-1"}
    return HeatmapMessage.model_validate(
        fields | {"epoch": "epoch-1", "seq": 1, "verdict": "PASS", "score": 0.5}
    )


def test_a_verdict_that_the_broker_finds_too_large_is_named_and_not_skipped(
    tmp_path, station, caplog
):
    caplog.set_level("INFO", "inspector")
    station.recorded.commit([verdict(1, detail="x" * 30_000)])
    station.lose(3)
    limits = "allow_anonymous true", "max_packet_size 20000"
    with contextlib.closing(need_broker(tmp_path, *limits)) as broker:
        heard = broker.subscribe(tmp_path)
        with bridge(config(station, broker.address, tmp_path)) as state:
            for _ in range(12):
                station.say_status()
                time.sleep(0.1)
            assert heard.seqs() == [] and state.last is None
    assert caplog.text.count("it takes packets of 20000") == 1
    with contextlib.closing(need_broker(tmp_path / "larger")) as broker:
        heard = broker.subscribe(tmp_path)
        with bridge(config(station, broker.address, tmp_path)):
            complete(station, heard)
