from __future__ import annotations

import threading
import time

import numpy as np

from inspector.cameras import Frame
from inspector.station.inbox import Arrival, Change, Inbox
from inspector.verdict import Reason

IMAGE = np.zeros((2, 2), np.uint8)


def arrival(camera: str, part_id: str) -> Arrival:
    return Arrival(camera, part_id, 1, frame=Frame(IMAGE, 1))


def take_all(inbox: Inbox) -> list[tuple[str, str]]:
    found = []
    while (item := inbox.take(0.0)) is not None:
        assert isinstance(item, Arrival)
        assert (item.frame is None) == (item.reason is Reason.QUEUE_FULL)
        found.append((item.part_id, item.reason.value))
    return found


def test_overflow_keeps_its_turn_and_its_name():
    inbox = Inbox(2)
    for number in range(4):
        inbox.put(arrival("top", f"t{number}"))
    assert take_all(inbox) == [("t0", ""), ("t1", ""), ("t2", "queue_full"), ("t3", "queue_full")]


def test_room_is_counted_per_camera():
    inbox = Inbox(1)
    for camera, part_id in (("top", "t0"), ("side", "s0"), ("top", "t1"), ("side", "s1")):
        inbox.put(arrival(camera, part_id))
    assert take_all(inbox) == [
        ("t0", ""),
        ("s0", ""),
        ("t1", "queue_full"),
        ("s1", "queue_full"),
    ]


def test_room_comes_back_when_a_picture_is_taken():
    inbox = Inbox(1)
    inbox.put(arrival("top", "t0"))
    inbox.put(arrival("top", "t1"))
    inbox.take(0.0)
    inbox.put(arrival("top", "t2"))
    assert take_all(inbox) == [("t1", "queue_full"), ("t2", "")]


def test_changes_of_state_need_no_room():
    inbox = Inbox(1)
    inbox.put(arrival("top", "t0"))
    inbox.put(Change("top", "lost"))
    inbox.put(Change("top", "running"))
    assert isinstance(inbox.take(0.0), Arrival)
    assert inbox.take(0.0) == Change("top", "lost")
    assert inbox.take(0.0) == Change("top", "running")
    assert inbox.take(0.0) is None


def test_a_camera_is_clear_once_its_part_is_taken_and_who_waits_hears_of_it():
    inbox = Inbox(8)
    inbox.put(arrival("side", "s0"))
    assert inbox.is_clear("top")
    assert not inbox.is_clear("side")
    seen, heard = inbox.changes, []

    def wait():
        inbox.wait_for_change(seen, 5.0)
        heard.append(inbox.is_clear("side"))

    waiter = threading.Thread(target=wait)
    waiter.start()
    inbox.take(0.0)
    waiter.join(5.0)
    assert heard == [True]


def test_a_change_before_the_wait_is_not_missed():
    inbox = Inbox(1)
    seen, begun = inbox.changes, time.monotonic()
    inbox.wake()
    inbox.wait_for_change(seen, 5.0)
    assert time.monotonic() - begun < 1.0
    inbox.wait_for_change(inbox.changes, 0.05)
    assert time.monotonic() - begun >= 0.04


def test_take_waits_no_longer_than_asked():
    begun = time.monotonic()
    assert Inbox(1).take(0.05) is None
    assert 0.04 < time.monotonic() - begun < 2.0


def test_newest_picture_takes_the_place_of_the_one_that_waits_and_its_room():
    inbox = Inbox(1)
    torn = Arrival("top", "torn", 1, reason=Reason.FRAME_UNREADABLE)
    for number in range(5):
        inbox.put_newest(arrival("top", f"t{number}"))
        inbox.put_newest(torn)
    assert inbox.waiting("top") == 0
    inbox.put_newest(arrival("top", "last"))
    assert inbox.waiting("top") == 1
    found = inbox.take(0.0)
    assert (found.part_id, found.reason, inbox.take(0.0)) == ("last", Reason.NONE, None)
    inbox.put(arrival("top", "next"))
    assert inbox.take(0.0).reason is Reason.NONE


def test_calls_come_first_and_calls_in_turn_in_turn():
    inbox, done = Inbox(3), []
    inbox.put(arrival("top", "t0"))
    inbox.call_in_turn(lambda: done.append("in turn"))
    inbox.put(arrival("top", "t1"))
    inbox.call(lambda: done.append("first"))
    order = [
        item.part_id if isinstance(item, Arrival) else item.do()
        for item in iter(lambda: inbox.take(0.0), None)
    ]
    assert order == [None, "t0", None, "t1"]
    assert done == ["first", "in turn"]
