from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inspector.client import subscriber as client
from inspector.client.keys import ClientKeys
from inspector.client.refill import Progress, Refill
from inspector.client.subscriber import Gap, Subscriber
from inspector.errors import WireError
from inspector.wire.messages import ReplyMessage, StatusMessage, VerdictMessage
from tests.parties import make_keys
from tests.stations import NAME, Relay, Station, free_ports, verdict


@pytest.fixture
def station(tmp_path: Path) -> Iterator[Station]:
    with Station(tmp_path / "journal") as made:
        yield made


def until_halted(subscriber: Subscriber, timeout_s: float = 20.0) -> list[Any]:
    """Verdicts and gaps, in the order they came."""
    found, deadline = [], time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        item = subscriber.receive(200)
        if isinstance(item, StatusMessage) and item.state == "Halted":
            return found
        if isinstance(item, VerdictMessage | Gap):
            found.append(item)
    raise AssertionError(f"no end after {found[-3:]}")


def test_verdicts_lost_on_the_way_come_from_the_journal(station):
    with Subscriber(station.verdicts, commands=station.commands) as subscriber:
        station.wait()
        station.publish(2)
        station.lose(250)
        station.publish(1)
        station.say_status("Halted")
        assert until_halted(subscriber) == station.recorded.verdicts


def test_lost_last_verdict_comes_with_the_status(station):
    with Subscriber(station.verdicts, commands=station.commands) as subscriber:
        station.wait()
        station.publish(1)
        station.lose(3)
        station.say_status("Halted")
        assert until_halted(subscriber) == station.recorded.verdicts


def test_one_gap_after_the_other_is_filled(station):
    with Subscriber(station.verdicts, commands=station.commands) as subscriber:
        station.wait()
        for _ in range(20):
            station.publish(2)
            station.lose(1)
        station.say_status("Halted")
        assert until_halted(subscriber) == station.recorded.verdicts


def test_restart_loses_nothing_of_either_epoch(station):
    with Subscriber(station.verdicts, commands=station.commands) as subscriber:
        station.wait()
        station.publish(3)
        assert subscriber.receive(5000).seq == 1
        station.lose(2)
        station.go_down()
        station.rest(4)
        station.rest(0)
        station.rest(105)
        station.come_up()
        found = station.wait(subscriber)
        station.lose(1)
        station.publish(2)
        station.say_status("Halted")
        found += until_halted(subscriber)
    assert found == station.recorded.verdicts[1:]
    assert [one.epoch for one in found if one.seq == 1] == ["epoch-2", "epoch-4", "epoch-5"]


def test_restart_without_a_verdict_yet_gives_the_end_of_the_old_epoch(station):
    with Subscriber(station.verdicts, commands=station.commands) as subscriber:
        station.wait()
        station.publish(1)
        assert subscriber.receive(5000).seq == 1
        station.lose(2)
        station.go_down()
        station.come_up()
        assert station.wait(subscriber) == []
        station.say_status("Halted")
        assert until_halted(subscriber) == station.recorded.verdicts[1:]


@pytest.mark.parametrize("said", ["Preoperational", "Error"])
def test_start_that_the_journal_never_knew_leaves_no_gap(station, said):
    with Subscriber(station.verdicts, commands=station.commands, patience_s=5.0) as subscriber:
        station.wait()
        station.publish(1)
        assert subscriber.receive(5000).seq == 1
        station.lose(2)
        station.go_down()
        # Killed while it starts: it speaks, and dies before the journal has its epoch.
        station.come_up()
        station.wait(subscriber)
        stillborn = station.recorded.status(said).model_copy(update={"epoch": "stillborn"})
        station.publisher.send_status(stillborn)
        heard = []
        while stillborn not in heard:
            heard.append(subscriber.receive(5000))
        station.go_down()
        station.come_up()
        station.wait(subscriber)
        station.publish(2)
        station.say_status("Halted")
        heard += until_halted(subscriber)
        assert [one for one in heard if one != stillborn] == station.recorded.verdicts[1:]


@pytest.mark.parametrize("said", ["Preoperational", "Error"])
def test_subscription_that_begins_with_such_a_start_brings_nothing_older(station, said):
    station.publish(2)
    with Subscriber(station.verdicts, commands=station.commands, patience_s=5.0) as subscriber:
        station.wait()
        begins = station.recorded.status(said).model_copy(
            update={"epoch": "stillborn", "last_seq": 0}
        )
        station.publisher.send_status(begins)
        assert subscriber.receive(5000) == begins
        station.go_down()
        station.come_up()
        station.wait(subscriber)
        station.publish(2)
        station.say_status("Halted")
        assert until_halted(subscriber) == station.recorded.verdicts[2:]


def test_all_of_a_start_is_due_that_was_heard_of_before_it_recorded_anything(station):
    with Subscriber(station.verdicts, commands=station.commands) as subscriber:
        station.wait()
        for epoch in ("stillborn", station.recorded.epoch):
            station.publisher.send_status(
                station.recorded.status("Preoperational").model_copy(update={"epoch": epoch})
            )
            assert subscriber.receive(5000).epoch == epoch
        station.lose(3)
        station.go_down()
        station.rest(2)
        station.come_up()
        station.wait(subscriber)
        station.publish(1)
        station.say_status("Halted")
        assert until_halted(subscriber) == station.recorded.verdicts


def test_journal_that_lost_a_start_leaves_a_gap_and_goes_on_from_the_one_before(station):
    with Subscriber(station.verdicts, commands=station.commands) as subscriber:
        station.wait()
        station.publish(1)
        assert subscriber.receive(5000).seq == 1
        lost = station.recorded.status("Ready").model_copy(
            update={"epoch": "restored-over", "last_seq": 0}
        )
        station.publisher.send_status(lost)
        assert subscriber.receive(5000) == lost
        station.go_down()
        station.come_up()
        station.wait(subscriber)
        station.publish(2)
        station.say_status("Halted")
        found = until_halted(subscriber)
        assert found == [Gap(NAME, "restored-over", 1, None), *station.recorded.verdicts[1:]]


@pytest.mark.parametrize("first", ["verdict", "status"])
@pytest.mark.parametrize("start", ["now", "start", "after", "after_epoch", "since", "future"])
def test_where_a_subscriber_begins(station, start, first):
    station.lose(3)
    station.go_down()
    time.sleep(0.002)
    moment_us = time.time_ns() // 1000
    station.rest(2)
    station.come_up()
    station.lose(5)
    options: dict[str, Any] = {
        "now": {},
        "start": {"from_start": True},
        "after": {"after": ("epoch-1", 1)},
        "after_epoch": {"after": ("epoch-2", 0)},
        "since": {"since_us": moment_us},
        "future": {"since_us": 2**52},
    }[start]
    with Subscriber(station.verdicts, commands=station.commands, **options) as subscriber:
        station.wait()
        if first == "status":
            station.say_status()
        station.publish(2)
        station.say_status("Halted")
        found = until_halted(subscriber)
    begin = {"now": 10, "start": 5, "after": 1, "after_epoch": 3, "since": 3, "future": 10}[start]
    assert found == station.recorded.verdicts[begin:]


def test_point_to_begin_at_needs_the_command_socket():
    for options in ({"since_us": 1}, {"after": ("epoch-1", 1)}):
        with pytest.raises(ValueError, match="command socket"):
            Subscriber(**options)


def test_without_the_command_socket_a_loss_is_a_gap_at_once(station):
    with Subscriber(station.verdicts) as subscriber:
        station.wait()
        station.publish(1)
        station.lose(2)
        station.publish(1)
        station.say_status("Halted")
        found = until_halted(subscriber)
    assert found[1:] == [Gap(NAME, "epoch-1", 2, 3), station.recorded.verdicts[-1]]


def test_silent_command_socket_makes_a_gap_in_time(station):
    [nobody] = free_ports(1)
    with Subscriber(station.verdicts, commands=nobody, patience_s=0.3) as subscriber:
        station.wait()
        station.publish(1)
        station.lose(2)
        station.publish(1)
        begun = time.monotonic()
        found = [subscriber.receive(5000) for _ in range(3)]
        assert 0.25 <= time.monotonic() - begun < 2.0
        station.go_down()
        station.come_up()
        found += station.wait(subscriber)
        station.lose(1)
        station.publish(1)
        found += [subscriber.receive(5000) for _ in range(3)]
    one, _, _, four, _, last = station.recorded.verdicts
    assert found == [
        one,
        Gap(NAME, "epoch-1", 2, 3),
        four,
        Gap(NAME, "epoch-1", 5, None),
        Gap(NAME, "epoch-2", 1, 1),
        last,
    ]
    assert [item.count for item in found if isinstance(item, Gap)] == [2, 1, 1]


def test_what_the_journal_has_not_is_a_gap_between_what_it_has(station, quick):
    """A verdict of which the journal knows nothing, beside one that only the wire has lost."""
    with Subscriber(station.verdicts, commands=station.commands) as subscriber:
        station.wait()
        station.publish(1)
        station.publisher.send_verdict(verdict(5))
        station.say_status("Halted")
        begun = time.monotonic()
        found = until_halted(subscriber)
        assert time.monotonic() - begun < 5.0
    assert [getattr(item, "seq", item) for item in found] == [1, Gap(NAME, "epoch-1", 2, 4), 5]


def test_damaged_row_of_the_journal_is_a_gap_of_one(station):
    with Subscriber(station.verdicts, commands=station.commands) as subscriber:
        station.wait()
        station.publish(1)
        station.lose(8)
        station.recorded.damage(5, '{"schema":1}')
        station.publish(1)
        station.say_status("Halted")
        found = until_halted(subscriber)
    expected: list[Any] = list(station.recorded.verdicts)
    expected[4] = Gap(NAME, "epoch-1", 5, 5)
    assert found == expected


@pytest.mark.parametrize("aside", [False, True], ids=["in its place", "set aside"])
def test_damaged_last_row_of_an_epoch_is_a_gap_of_one(station, aside):
    """Nothing follows it by which a subscriber could tell that a number is missing."""
    with Subscriber(station.verdicts, commands=station.commands) as subscriber:
        station.wait()
        station.publish(1)
        assert subscriber.receive(5000).seq == 1
        station.lose(3)
        station.recorded.damage(4, "{}")
        station.go_down()
        if aside:
            # Another start finds it among the last ones.
            station.rest(0)
        station.come_up()
        found = station.wait(subscriber)
        station.publish(2)
        station.say_status("Halted")
        found += until_halted(subscriber)
    expected: list[Any] = list(station.recorded.verdicts)[1:]
    expected[2] = Gap(NAME, "epoch-1", 4, 4)
    assert [one for one in found if not isinstance(one, StatusMessage)] == expected


@pytest.mark.parametrize("told_by", ["verdict", "status", "answer"])
def test_what_a_journal_that_fails_records_late_still_comes(station, monkeypatch, told_by):
    """Published, lost on the way, and in the journal only later than it is usually waited for."""
    monkeypatch.setattr("inspector.client.subscriber._TAIL_S", 0.3)
    late = [verdict(seq, verdict="FAULT", score=None, reason="journal_failed") for seq in (2, 3)]
    trouble = "journal: disk I/O error"
    broken = station.recorded.status().model_copy(update={"last_seq": 3, "trouble": trouble})
    if told_by != "verdict":
        station.recorded.trouble = trouble
    with Subscriber(station.verdicts, commands=station.commands) as subscriber:
        station.wait()
        station.publish(1)
        assert subscriber.receive(5000).seq == 1
        if told_by == "verdict":
            station.publisher.send_verdict(late[1])
        else:
            said = broken if told_by == "status" else broken.model_copy(update={"trouble": ""})
            station.publisher.send_status(said)
        assert subscriber.receive(1500) is None
        station.recorded.commit(late)
        station.recorded.trouble = ""
        found = [subscriber.receive(5000) for _ in late]
    assert found == late


@pytest.fixture
def quick(monkeypatch):
    """What the journal has not is asked for during 0.5 s, and after a wait in vain 0.3 s."""
    monkeypatch.setattr(client, "_TAIL_S", 0.5)
    monkeypatch.setattr(client, "_SHORT_PATIENCE_S", 0.3)


def test_trouble_that_ends_without_it_makes_a_gap_soon(station, quick):
    """Patience is for a station that may yet record it."""
    station.recorded.trouble = "self-test: missed a defect"
    with Subscriber(station.verdicts, commands=station.commands) as subscriber:
        station.wait()
        station.publish(1)
        station.publisher.send_verdict(verdict(3))
        assert subscriber.receive(5000).seq == 1
        assert subscriber.receive(1500) is None
        station.recorded.trouble = ""
        assert subscriber.receive(4000) == Gap(NAME, "epoch-1", 2, 2)


def test_who_waited_in_vain_waits_no_longer_for_the_next(station, quick):
    station.recorded.trouble = "journal: disk I/O error"
    where = {"commands": station.commands, "patience_s": 1.5}
    with Subscriber(station.verdicts, **where) as subscriber:
        station.wait()
        station.publish(1)
        assert subscriber.receive(5000).seq == 1
        for seq, least_s, most_s in ((3, 1.4, 4.0), (5, 0.2, 1.4)):
            station.publisher.send_verdict(verdict(seq))
            begun = time.monotonic()
            assert subscriber.receive(8000) == Gap(NAME, "epoch-1", seq - 1, seq - 1)
            assert least_s <= time.monotonic() - begun < most_s
            assert subscriber.receive(1000).seq == seq


def test_hole_in_the_journal_is_a_gap():
    progress = Progress()
    progress.turn_to("e")
    refill = Refill(progress, NAME, "e", 6)
    reply = ReplyMessage(
        id="", kind="replayed", verdicts=tuple(verdict(seq, "e") for seq in (3, 4, 6))
    )
    found = list(refill.take(reply))
    assert [getattr(item, "seq", item) for item in found] == [
        Gap(NAME, "e", 1, 2),
        3,
        4,
        Gap(NAME, "e", 5, 5),
        6,
    ]
    assert refill.done


def test_epoch_older_than_the_journal_is_a_gap_and_then_all_there_is(station):
    station.lose(2)
    where = {"commands": station.commands, "after": ("older", 17)}
    with Subscriber(station.verdicts, **where) as subscriber:
        station.wait()
        station.publish(1)
        station.say_status("Halted")
        found = until_halted(subscriber)
    assert found == [Gap(NAME, "older", 18, None), *station.recorded.verdicts]


def test_another_stations_journal_is_not_taken_for_ours(station, tmp_path):
    with Station(tmp_path / "other") as other:
        other.recorded.verdicts.clear()
        with Subscriber(other.verdicts, commands=station.commands) as subscriber:
            other.wait()
            station.lose(3)
            for seq in (1, 3):
                other.publisher.send_verdict(verdict(seq, station="line-2"))
            found = [subscriber.receive(5000) for _ in range(3)]
    assert found[1] == Gap("line-2", "epoch-1", 2, 2)


def test_peer_that_may_not_replay_gets_gaps_at_once(tmp_path):
    for name in ("station", "peer"):
        make_keys(tmp_path / "keys", name)
    keys = ClientKeys.load(tmp_path / "keys/peer.secret", tmp_path / "keys/station.public")
    from inspector.config.station_file import Security

    for roles, healed in ((["listen"], True), (["trigger"], False)):
        security = Security.model_validate(
            {
                "secret_key": tmp_path / "keys/station.secret",
                "peers": {"mes": {"key": keys.own.public.decode(), "roles": roles}},
            }
        )
        with Station(tmp_path / roles[0], security=security) as station:
            progress, found = ask_with_keys(station, keys)
        assert progress == healed
        assert (found == []) == healed


def ask_with_keys(station: Station, keys: ClientKeys) -> tuple[bool, list[Any]]:
    """Refill through the command socket alone: whether it came, and the gaps."""
    from inspector.client.connection import Channel

    station.lose(3)
    progress = Progress()
    progress.turn_to("epoch-1")
    refill = Refill(progress, NAME, "epoch-1", 3)
    context = zmq.Context()
    channel = Channel(context, station.commands, keys)
    try:
        deadline = time.monotonic() + 10
        while not channel.send(refill.question("q")) and time.monotonic() < deadline:
            time.sleep(0.01)
        reply = channel.receive(10)
        assert reply is not None
        found = list(refill.take(reply))
    finally:
        channel.close()
        context.term()
    assert refill.done
    return progress.last == 3 and len(found) == 3, [one for one in found if isinstance(one, Gap)]


def test_subscriber_stopped_past_the_high_water_mark_ends_complete(station):
    with (
        Subscriber(station.verdicts) as plain,
        Subscriber(station.verdicts, commands=station.commands) as healing,
    ):
        station.wait()
        station.publish(1)
        found = [healing.receive(5000)]
        assert plain.receive(5000) == found[0]
        # As if 100,000 waited already.
        for one in (station.publisher._verdicts, plain._sockets[0], healing._sockets[0]):
            one.set_hwm(10)
        padding = "x" * 20_000
        for _ in range(30):
            for message in station.recorded.record(100):
                station.publisher.send_verdict(message.model_copy(update={"detail": padding}))
        deadline = time.monotonic() + 30
        missed = 0
        while len(found) < len(station.recorded.verdicts) and time.monotonic() < deadline:
            station.say_status()
            for one in (plain, healing):
                while (item := one.receive(10)) is not None:
                    missed += item.count if isinstance(item, Gap) else 0
                    if isinstance(item, VerdictMessage) and one is healing:
                        found.append(item)
    assert [item.seq for item in found] == list(range(1, 3002))
    assert missed > 100


def test_cut_network_loses_nothing(station):
    with contextlib.ExitStack() as stack:
        relays = [Relay(station.verdicts), Relay(station.commands)]
        for relay in relays:
            stack.callback(relay.close)
        subscriber = stack.enter_context(Subscriber(relays[0].address, commands=relays[1].address))
        station.wait()
        station.publish(1)
        found = [subscriber.receive(5000)]
        for _ in range(3):
            station.publish(30)
            for relay in relays:
                relay.cut()
            station.publish(30)
            time.sleep(0.05)
            for relay in relays:
                relay.mend()
            deadline = time.monotonic() + 10
            while found[-1] != station.recorded.verdicts[-1] and time.monotonic() < deadline:
                station.say_status()
                item = subscriber.receive(100)
                if isinstance(item, VerdictMessage | Gap):
                    found.append(item)
    assert found == station.recorded.verdicts


def test_station_that_goes_down_amid_a_refill_finishes_it_later(tmp_path):
    with Station(tmp_path / "journal", replay_per_s=500.0) as station:
        with Subscriber(station.verdicts, commands=station.commands) as subscriber:
            station.wait()
            station.publish(1)
            station.lose(500)
            station.publish(1)
            found = [subscriber.receive(5000) for _ in range(150)]
            station.go_down()
            station.come_up()
            found += station.wait(subscriber)
            station.publish(1)
            station.say_status("Halted")
            found += until_halted(subscriber)
        assert found == station.recorded.verdicts


def test_message_that_is_none_is_an_error_and_then_filled(station):
    with Subscriber(station.verdicts, commands=station.commands) as subscriber:
        station.wait()
        station.publish(1)
        assert subscriber.receive(5000).seq == 1
        station.lose(1)
        station.publisher._verdicts.send_multipart([f"verdict/{NAME}/".encode(), b"{}"])
        station.publish(1)
        with pytest.raises(WireError):
            subscriber.receive(5000)
        assert [subscriber.receive(5000).seq for _ in range(2)] == [2, 3]


STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["publish", "lose"]), st.integers(1, 120)),
        st.tuples(st.sampled_from(["status", "restart"]), st.just(0)),
        st.tuples(st.just("rest"), st.integers(0, 120)),
    ),
    max_size=12,
)


@pytest.mark.long
@settings(max_examples=12, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
@given(steps=STEPS)
def test_whatever_is_lost_the_subscriber_ends_with_the_journals_list(steps):
    with tempfile.TemporaryDirectory() as folder, Station(Path(folder)) as station:
        station.lose(1)
        where = {"commands": station.commands, "after": ("epoch-1", 0)}
        with Subscriber(station.verdicts, **where) as subscriber:
            station.wait()
            found: list[Any] = []
            for step, count in steps:
                if step == "publish":
                    station.publish(count)
                elif step == "lose":
                    station.lose(count)
                elif step == "status":
                    station.say_status()
                else:
                    station.go_down()
                    if step == "rest":
                        station.rest(count)
                    station.come_up()
                    found += station.wait(subscriber)
            station.say_status("Halted")
            found += until_halted(subscriber)
        found = [item for item in found if not isinstance(item, StatusMessage)]
        assert found == station.recorded.verdicts


def test_reader_knows_which_verdicts_are_records(station):
    with Subscriber(station.verdicts, commands=station.commands) as subscriber:
        station.wait()
        station.publish(2)
        station.lose(3)
        station.publish(1)
        found: list[tuple[int, bool]] = []
        deadline = time.monotonic() + 20
        while len(found) < 7:
            assert time.monotonic() < deadline
            if isinstance(item := subscriber.receive(200), VerdictMessage):
                found.append((item.seq, subscriber.is_record))
                if len(found) == 6:
                    station.publish(1)
    # The sixth waited for those before it.
    assert found == [(1, False), (2, False), *((seq, True) for seq in (3, 4, 5, 6)), (7, False)]
