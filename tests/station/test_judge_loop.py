"""The judge loop on real judges: which picture is whose, and when its part may move."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from inspector.cameras import Frame
from inspector.config.station_file import load_station
from inspector.judging.judges import Judges
from inspector.station.inbox import Arrival, Change, Inbox
from inspector.station.judge_loop import JudgeLoop
from inspector.station.ledger import Ledger
from inspector.station.triggers import Trigger
from inspector.verdict import Reason
from inspector.wire.messages import VerdictMessage
from tests import running, tiny

CAMERAS = ("a", "b", "c")


class Sender:
    def __init__(self) -> None:
        self.acquired: list[int] = []

    def accept(self) -> None: ...

    def acquire(self, grabbed_us: int) -> None:
        self.acquired.append(grabbed_us)

    def answer(self, verdict: VerdictMessage, recorded: bool = True) -> None: ...

    def refuse(self, code: str, detail: str) -> None: ...


class Line:
    """Three triggered cameras of one station, without their threads."""

    def __init__(self, folder: Path, bundle: Path) -> None:
        parts = running.write_parts(folder / "parts", tiny.good_picture())
        cameras = [
            running.folder_camera(parts, name, trigger="software", deadline_ms=60_000)
            for name in CAMERAS
        ]
        station = load_station(running.write_station(folder / "s.yaml", bundle, *cameras))
        self.judges = Judges(station)
        assert [problem for _, problem in self.judges.load()] == [None] * 3
        self.ledger = Ledger(station, "epoch-1")
        for name in CAMERAS:
            self.ledger.install(name, self.judges[name].model)
            self.ledger.note_camera(name, "running")
        self.ledger.enter("Initialized")
        self.ledger.enter("Ready")
        self.inbox = Inbox(8)
        self.loop = JudgeLoop(self.judges, self.ledger, self.inbox)
        self.numbers = 0

    def trigger(self, camera: str) -> Sender:
        self.numbers += 1
        sender, now_ns = Sender(), time.monotonic_ns()
        trigger = Trigger(camera, "plc", "s", self.numbers, f"p{self.numbers}", 1, now_ns)
        assert self.ledger.trigger(trigger, sender).kind == "accepted"
        return sender

    def show(self, camera: str) -> None:
        now_ns = time.monotonic_ns()
        frame = Frame(tiny.good_picture(), self.numbers)
        self.inbox.put(Arrival(camera, "", self.numbers, now_ns, now_ns, frame))

    def judge_next(self) -> None:
        item = self.inbox.take(0.0)
        if isinstance(item, Arrival):
            assert self.loop.take(item) is None
        elif isinstance(item, Change):
            self.ledger.lost(item.camera, item.detail)

    def closed(self) -> list[tuple[str, str]]:
        return [
            (one.verdict.part_id, one.verdict.reason or one.verdict.verdict.value)
            for one in self.ledger.close()
        ]


@pytest.fixture
def line(tmp_path: Path, bundle_path: Path) -> Line:
    return Line(tmp_path, bundle_path)


def test_parts_of_other_cameras_may_move_while_one_is_judged(line):
    senders = [line.trigger(camera) for camera in CAMERAS]
    for camera in CAMERAS:
        line.show(camera)
    during: list[int] = []
    judge = line.judges.batching.judge

    def watched(parts):
        during.append(sum(len(sender.acquired) for sender in senders))
        return judge(parts)

    line.judges.batching.judge = watched
    for _ in CAMERAS:
        line.judge_next()
    assert during == [3, 3, 3]
    assert line.closed() == [("p1", "PASS"), ("p2", "PASS"), ("p3", "PASS")]
    assert [sender.acquired for sender in senders] == [[3]] * 3
    assert [camera.frames for camera in line.ledger.status().cameras] == [1, 1, 1]


def test_picture_after_a_loss_is_not_given_to_a_trigger_from_before_it(line):
    first, lost = line.trigger("a"), line.trigger("b")
    line.show("a")
    line.inbox.put(Change("b", "lost", "unplugged"))
    # What follows is of a trigger that comes once the camera is back.
    line.show("b")
    line.judge_next()
    assert (len(first.acquired), len(lost.acquired)) == (1, 0)
    line.judge_next()
    line.judge_next()
    assert line.closed() == [("p1", "PASS"), ("p2", "camera_lost")]
    assert lost.acquired == []


def test_picture_is_not_given_away_while_its_trigger_waits_to_be_obeyed(line):
    line.trigger("a")
    line.show("a")
    first = line.inbox.take(0.0)
    senders: list[Sender] = []
    line.inbox.call(lambda: senders.append(line.trigger("b")))
    line.show("b")
    assert line.loop.take(first) is None
    line.inbox.take(0.0).do()
    # Its exposure is after its trigger's arrival, which is earlier than its obeying.
    line.ledger._queues["b"].waiting[0].start_ns -= 10**9
    line.judge_next()
    assert [len(sender.acquired) for sender in senders] == [1]
    assert line.closed() == [("p1", "PASS"), ("p2", "PASS")]


def test_part_whose_deadline_passes_while_another_is_judged_is_not_judged(line):
    waiting = [line.trigger("a"), line.trigger("b")]
    line.show("a")
    line.show("b")
    line.judge_next()
    (part,) = line.ledger._queues["b"].open
    part.deadline_ns = time.monotonic_ns()
    line.judge_next()
    assert line.closed() == [("p1", "PASS"), ("p2", Reason.DEADLINE_MISSED.value)]
    assert part.judgement is None
    assert [sender.acquired for sender in waiting] == [[2], [2]]
