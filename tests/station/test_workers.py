from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from inspector.cameras import Frame
from inspector.config.station_file import CameraRecipe
from inspector.station.inbox import Arrival, Change, Inbox
from inspector.station.pictures import PartPictures, Pictures, heatmap_header
from inspector.threads import Worker
from inspector.verdict import Judgement, Reason, Verdict
from inspector.wire.messages import encode
from inspector.wire.publisher import Publisher
from tests.records import verdict

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


def test_turn_comes_when_the_own_part_is_taken():
    inbox = Inbox(8)
    inbox.put(arrival("side", "s0"))
    assert inbox.wait_for_turn("top", lambda: True, 0.0)
    assert not inbox.wait_for_turn("top", lambda: False, 0.0)
    assert not inbox.wait_for_turn("side", lambda: True, 0.01)
    waited = []
    waiter = threading.Thread(
        target=lambda: waited.append(inbox.wait_for_turn("side", lambda: True, 5.0))
    )
    waiter.start()
    inbox.take(0.0)
    waiter.join(5.0)
    assert waited == [True]


class Job(Worker):
    """Ends, or dies, when told."""

    def __init__(self, dies: bool) -> None:
        super().__init__("job")
        self.go = threading.Event()
        self._dies = dies

    def work(self) -> None:
        self.go.wait(5.0)
        if self._dies:
            raise KeyError("a bug")


def test_crash_of_a_thread_is_told_from_its_end(monkeypatch):
    shown = []
    monkeypatch.setattr(threading, "excepthook", shown.append)
    for dies in (False, True):
        job = Job(dies)
        assert not job.crashed
        job.start()
        assert not job.crashed
        job.go.set()
        job.join(5.0)
        assert job.crashed == dies
    assert [type(error.exc_value) for error in shown] == [KeyError]


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


class Shelf:
    """Keeps nothing, and remembers how urgent the thread was that asked it to."""

    def __init__(self) -> None:
        self.nice: list[int] = []

    def wants(self, _: object) -> bool:
        return True

    def keep(self, *_: object, **__: object) -> bool:
        self.nice.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
        return True


def test_pictures_are_encoded_only_where_no_part_wants_the_core():
    shelf, dropped = Shelf(), []
    publisher = Publisher("tcp://127.0.0.1:0", "tcp://127.0.0.1:0")
    pictures = Pictures(publisher, shelf, Inbox(1), dropped.append)
    try:
        pictures.start()
        pictures.show(PartPictures(verdict(1), None, None, IMAGE))
    finally:
        pictures.finish()
        publisher.close()
    mine = os.getpriority(os.PRIO_PROCESS, 0)
    assert shelf.nice == [min(19, mine + 10)]
    assert not dropped


HEAT = np.zeros((64, 48), np.float32)
SEEN = np.zeros((64, 48, 3), np.uint8)


@pytest.mark.parametrize(
    ("policy", "shown"),
    [("all", ["PASS", "FAIL"]), ("not_pass", ["FAIL"]), ("none", [])],
)
def test_picture_policy(policy, shown):
    recipe = CameraRecipe(bundle=Path("tiny.onnx"), pictures=policy)
    found = []
    for seq, judgement in enumerate(
        (
            Judgement(Verdict.PASS, 0.5, Reason.NONE, HEAT, judged=SEEN),
            Judgement(Verdict.FAIL, 1.5, Reason.ANOMALY, HEAT, judged=SEEN),
            Judgement(Verdict.FAULT, None, Reason.FRAME_SHAPE),
        ),
        1,
    ):
        part = r"m\udcff.png"
        message = verdict(seq, verdict=judgement.verdict, score=judgement.score, part_id=part)
        header = heatmap_header(PartPictures(message, recipe, judgement, IMAGE))
        if header:
            found.append(header.verdict.value)
            assert (header.seq, header.width, header.height) == (seq, 48, 64)
            assert rb"m\\udcff.png" in encode(header)
    assert found == shown
