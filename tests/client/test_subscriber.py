"""What a subscriber hands on, and what it says of what it lost."""

from __future__ import annotations

import numpy as np
import pytest

from inspector.client.subscriber import Gap, Subscriber
from inspector.errors import WireError
from inspector.imaging.images import encode_jpeg, encode_png
from tests import tiny
from tests.messages import EPOCH, heatmap, status, subscribed, verdict


def test_station_1_does_not_receive_station_10(publisher):
    with subscribed(publisher, station="1") as subscriber:
        publisher.send_verdict(verdict(1, station="10"))
        publisher.send_status(status(1, station="10"))
        publisher.send_verdict(verdict(1))
        assert subscriber.receive(2000).station == "1"
        assert subscriber.receive(100) is None


def test_no_station_means_all(publisher):
    with subscribed(publisher) as subscriber:
        for name in ("1", "10"):
            publisher.send_verdict(verdict(1, station=name))
        assert [subscriber.receive(2000).station for _ in range(2)] == ["1", "10"]


def test_lost_verdicts_are_noticed_by_seq(publisher):
    with subscribed(publisher) as subscriber:
        for seq in (7, 8, 11):
            publisher.send_verdict(verdict(seq))
        found = [subscriber.receive(2000) for _ in range(4)]
    assert [getattr(item, "seq", item) for item in found] == [7, 8, Gap("1", EPOCH, 9, 10), 11]


def test_lost_last_verdict_is_noticed_by_status(publisher):
    with subscribed(publisher) as subscriber:
        publisher.send_status(status(0))
        publisher.send_verdict(verdict(1))
        publisher.send_status(status(1))
        publisher.send_status(status(3, "Halted"))
        found = [subscriber.receive(2000) for _ in range(5)]
    assert found[3] == Gap("1", EPOCH, 2, 3)
    assert found[4].state == "Halted"


@pytest.mark.parametrize("from_start", [False, True])
def test_late_joiner_has_no_gap_unless_it_asks(publisher, from_start):
    with subscribed(publisher, from_start=from_start) as subscriber:
        publisher.send_verdict(verdict(5))
        if from_start:
            assert subscriber.receive(2000) == Gap("1", EPOCH, 1, 4)
        assert subscriber.receive(2000).seq == 5


def test_new_epoch_starts_at_one(publisher):
    with subscribed(publisher) as subscriber:
        publisher.send_verdict(verdict(5))
        publisher.send_verdict(verdict(1, epoch="second"))
        publisher.send_verdict(verdict(3, epoch="third"))
        found = [subscriber.receive(2000) for _ in range(4)]
    assert [getattr(item, "seq", item) for item in found] == [5, 1, Gap("1", "third", 1, 2), 3]


def test_stations_are_counted_apart(publisher):
    with subscribed(publisher) as subscriber:
        for seq, name in ((1, "a"), (5, "b"), (2, "a"), (6, "b")):
            publisher.send_verdict(verdict(seq, station=name))
        assert [subscriber.receive(2000).seq for _ in range(4)] == [1, 5, 2, 6]


def test_heatmap_arrives_as_arrays(publisher):
    heat, picture = np.full((64, 64), 128, np.uint8), tiny.good_picture()
    with subscribed(publisher) as subscriber:
        publisher.send_heatmap(heatmap(1), encode_png(heat), encode_jpeg(picture))
        found = subscriber.receive(2000)
    assert np.array_equal(found.map, heat)
    assert np.abs(found.picture.astype(int) - picture).max() <= 3
    assert found.message == heatmap(1)


@pytest.mark.parametrize(
    "png", [encode_png(np.zeros((32, 32), np.uint8)), b"no picture", b""], ids=len
)
def test_picture_that_is_none_is_refused(publisher, png):
    with subscribed(publisher) as subscriber:
        publisher.send_heatmap(heatmap(1), png, encode_jpeg(tiny.good_picture()))
        with pytest.raises(WireError, match=r"received heatmap 1 of '1'"):
            subscriber.receive(2000)


def test_address_that_is_none_is_one_line():
    with pytest.raises(WireError, match="nonsense: not an address"):
        Subscriber("nonsense").__enter__()
