from __future__ import annotations

import numpy as np
import pytest

from inspector.config import Station
from inspector.station import Books, Clock, Part
from inspector.verdict import Judgement, Reason, Region, Verdict
from inspector.wire import ModelField, encode

PICTURE = np.zeros((64, 64, 3), np.uint8)
HEAT = np.zeros((64, 64), np.float32)
MODEL = ModelField(name="tiny", version="1", sha256="0" * 64)


class Hand:
    """A clock moved by hand."""

    def __init__(self) -> None:
        self.ns = 5_000_000_000

    def clock(self) -> Clock:
        return Clock(lambda: 1_700_000_000_000_000 + self.ns // 1000, lambda: self.ns)


def station(pictures: str = "all", deadline_ms: int = 1000) -> Station:
    return Station.model_validate(
        {
            "station": "line-1",
            "cameras": [
                {"name": "top", "kind": "simulator", "deadline_ms": deadline_ms},
                {"name": "side", "kind": "simulator"},
            ],
            "recipes": {
                "flange": {
                    "top": {"bundle": "a.onnx", "limit_factor": 1.5, "pictures": pictures},
                    "side": {"bundle": "b.onnx"},
                }
            },
            "recipe": "flange",
        }
    )


def books(hand: Hand, **options) -> Books:
    made = Books(station(**options), "epoch-1", hand.clock())
    made.install("top", MODEL)
    return made


def judgement(verdict: Verdict, score: float | None, reason: Reason = Reason.NONE) -> Judgement:
    regions = (Region(1, 2, 3, 4, score),) if verdict is Verdict.FAIL else ()
    return Judgement(verdict, score, reason, HEAT, regions, PICTURE, 1.5)


def test_every_part_gets_the_next_seq():
    hand = Hand()
    made = books(hand)
    part = Part("top", "p", 1, hand.ns)
    messages = [
        made.judged(part, judgement(Verdict.PASS, 0.5), hand.ns),
        made.fault(Part("side"), Reason.CAMERA_LOST, "unplugged"),
        made.judged(part, judgement(Verdict.FAIL, 1.2, Reason.ANOMALY), hand.ns),
    ]
    assert [message.seq for message in messages] == [1, 2, 3]
    assert [message.verdict.value for message in messages] == ["PASS", "FAULT", "FAIL"]
    status = made.status()
    assert (status.last_seq, status.passed, status.failed, status.faults) == (3, 1, 1, 1)
    assert [camera.frames for camera in status.cameras] == [2, 0]


def test_verdict_says_what_judged_it_and_how_long_it_took():
    hand = Hand()
    made = books(hand)
    part = Part("top", "p-7", 1_700_000_000_000_000, hand.ns)
    hand.ns += 20_000_000
    started = hand.ns
    hand.ns += 30_000_000
    message = made.judged(part, judgement(Verdict.FAIL, 1.2, Reason.ANOMALY), started)
    assert (message.queue_ms, message.judge_ms) == (20.0, 30.0)
    assert message.model == MODEL
    assert (message.limit_factor, message.recipe) == (1.5, "flange")
    assert message.regions[0].peak == 1.2
    assert message.judged_us == 1_700_000_000_000_000 + hand.ns // 1000


def test_part_judged_after_its_deadline_is_a_fault():
    hand = Hand()
    made = books(hand, deadline_ms=100)
    part = Part("top", "p", 1, hand.ns)
    started = hand.ns
    hand.ns += 100_000_000
    assert made.judged(part, judgement(Verdict.PASS, 0.5), started).verdict is Verdict.PASS
    hand.ns += 1_000_000
    late = made.judged(part, judgement(Verdict.FAIL, 1.5, Reason.ANOMALY), started)
    assert (late.verdict, late.score, late.reason) == (Verdict.FAULT, None, "deadline_missed")
    assert late.regions == ()


def test_part_that_did_not_wait_is_timed_from_its_judgement():
    hand = Hand()
    made = books(hand, deadline_ms=100)
    part = Part("top", "p", 1, None)
    hand.ns += 10**9
    message = made.judged(part, judgement(Verdict.PASS, 0.5), hand.ns)
    assert (message.verdict, message.queue_ms) == (Verdict.PASS, 0.0)


def test_fault_without_a_model_names_none():
    made = books(Hand())
    odd = Judgement(Verdict.FAULT, None, Reason.FRAME_SHAPE, detail="not a picture")
    message = made.judged(Part("top", "p", 1), odd, 5_000_000_000)
    assert (message.model, message.score, message.detail) == (None, None, "not a picture")


@pytest.mark.parametrize(
    ("policy", "shown"),
    [("all", ["PASS", "FAIL"]), ("not_pass", ["FAIL"]), ("none", [])],
)
def test_picture_policy(policy, shown):
    hand = Hand()
    made = books(hand, pictures=policy)
    found = []
    for one in (
        judgement(Verdict.PASS, 0.5),
        judgement(Verdict.FAIL, 1.5, Reason.ANOMALY),
        Judgement(Verdict.FAULT, None, Reason.FRAME_SHAPE),
    ):
        header = made.heatmap(made.judged(Part("top", "p", 1), one, hand.ns), one)
        if header:
            found.append(header.verdict.value)
            assert (header.seq, header.width, header.height) == (made.last_seq, 64, 64)
    assert found == shown


def test_text_that_utf8_cannot_carry_is_escaped_and_burns_no_seq():
    made = books(Hand())
    odd = "m\udcff.png"
    part = Part("top", odd, 1, 5_000_000_000)
    judged = made.judged(part, judgement(Verdict.PASS, 0.5), 5_000_000_000)
    header = made.heatmap(judged, judgement(Verdict.PASS, 0.5))
    fault = made.fault(part, Reason.FRAME_UNREADABLE, odd)
    made.note_camera("top", "lost", odd)
    made.note_inference("top", odd)
    for message in (judged, header, fault, made.status()):
        assert rb"m\\udcff.png" in encode(message)
    assert (judged.seq, fault.seq, made.last_seq) == (1, 2, 2)


def test_inference_trouble_leaves_a_cameras_state_alone():
    made = books(Hand())
    made.note_camera("top", "lost", "unplugged")
    made.note_inference("side", "out of memory")
    made.note_inference("top", "")
    status = made.status()
    assert status.inference == "side: out of memory"
    assert [(camera.state, camera.detail) for camera in status.cameras] == [
        ("lost", "unplugged"),
        ("opening", ""),
    ]
    made.note_inference("side", "")
    assert made.status().inference == ""


def test_states_follow_their_drawing():
    made = books(Hand())
    for state in ("Initialized", "Ready", "ContinuousExecution", "Halted", "Preoperational"):
        made.enter(state)
        assert made.status().state == state
    for state in ("ContinuousExecution", "Ready", "Preoperational"):
        with pytest.raises(ValueError, match="no way from state Preoperational"):
            made.enter(state)


def test_lost_camera_is_in_the_status():
    made = books(Hand())
    made.note_camera("side", "lost", "unplugged")
    status = made.status()
    assert [(camera.name, camera.state, camera.detail) for camera in status.cameras] == [
        ("top", "opening", ""),
        ("side", "lost", "unplugged"),
    ]
