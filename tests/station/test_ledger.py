from __future__ import annotations

import numpy as np
import pytest

from inspector.clock import Clock
from inspector.config.station_file import Station
from inspector.errors import CommandError
from inspector.station.ledger import Closed, Ledger
from inspector.station.part import Part
from inspector.station.triggers import Trigger
from inspector.verdict import Judgement, Reason, Region, Verdict
from inspector.wire.messages import ModelField, VerdictMessage, encode

PICTURE = np.zeros((64, 64, 3), np.uint8)
HEAT = np.zeros((64, 64), np.float32)
MODEL = ModelField(name="tiny", version="1", sha256="0" * 64)
MS = 1_000_000


class Hand:
    """A clock moved by hand."""

    def __init__(self) -> None:
        self.ns = 5_000_000_000
        self.wall_us = 1_700_000_000_000_000

    def clock(self) -> Clock:
        return Clock(lambda: self.wall_us + self.ns // 1000, lambda: self.ns)

    def trigger(self, number: int, part_id: str = "", **changes) -> Trigger:
        fields = {
            "camera": "gate",
            "client": "plc",
            "session": "s1",
            "number": number,
            "part_id": part_id or f"p{number}",
            "triggered_us": 1_700_000_000_000_000,
            "triggered_ns": self.ns,
        }
        return Trigger(**(fields | changes))


def station(pictures: str = "all", deadline_ms: int = 1000, queue_size: int = 3) -> Station:
    triggered = {"kind": "simulator", "trigger": "software", "deadline_ms": deadline_ms}
    return Station.model_validate(
        {
            "station": "line-1",
            "queue_size": queue_size,
            "cameras": [
                {"name": "top", "kind": "simulator", "deadline_ms": deadline_ms},
                {"name": "gate", **triggered},
                {"name": "exit", **triggered},
            ],
            "recipes": {
                name: {
                    "top": {"bundle": "a.onnx", "limit_factor": 1.5, "pictures": pictures},
                    "gate": {"bundle": "b.onnx"},
                    "exit": {"bundle": "b.onnx"},
                }
                for name in ("flange", "bracket")
            },
            "recipe": "flange",
        }
    )


def only_triggered() -> Station:
    full = station()
    return full.model_copy(update={"cameras": full.cameras[1:]})


def ready(hand: Hand, config: Station | None = None, **options) -> Ledger:
    made = Ledger(config or station(**options), "epoch-1", hand.clock())
    for camera in ("top", "gate", "exit"):
        made.install(camera, MODEL)
    made.enter("Initialized")
    made.enter("Ready")
    made.start()
    return made


def judgement(
    verdict: Verdict = Verdict.PASS, score: float | None = 0.5, reason: Reason = Reason.NONE
) -> Judgement:
    regions = (Region(1, 2, 3, 4, score),) if verdict is Verdict.FAIL else ()
    return Judgement(verdict, score, reason, HEAT, regions, PICTURE, 1.5)


BAD = judgement(Verdict.FAIL, 1.2, Reason.ANOMALY)


def expose(ledger: Ledger, hand: Hand, camera: str = "gate", **options) -> Part | None:
    return ledger.expose(camera, options.pop("exposed_ns", hand.ns), 1, **options)


def judge(ledger: Ledger, hand: Hand, part: Part | None, found: Judgement) -> VerdictMessage:
    assert part is not None
    ledger.judged(part, found, hand.ns)
    (closed,) = ledger.close()
    assert closed.part is part
    return closed.verdict


def parts(closed: list[Closed]) -> list[tuple[str, str]]:
    return [(verdict.part_id, verdict.reason or str(verdict.verdict)) for verdict, _ in closed]


def test_every_part_gets_the_next_seq():
    hand = Hand()
    made = ready(hand)
    first = judge(made, hand, expose(made, hand, "top"), judgement())
    made.lost("top", "unplugged")
    (lost,) = made.close()
    last = judge(made, hand, expose(made, hand, "top"), BAD)
    messages = [first, lost.verdict, last]
    assert [message.seq for message in messages] == [1, 2, 3]
    assert [message.verdict.value for message in messages] == ["PASS", "FAULT", "FAIL"]
    assert lost.verdict.grabbed_us is None
    status = made.status()
    assert (status.last_seq, status.passed, status.failed, status.faults) == (3, 1, 1, 1)
    assert [camera.frames for camera in status.cameras] == [2, 0, 0]


def test_verdict_says_what_judged_it_and_how_long_it_took():
    hand = Hand()
    made = ready(hand)
    part = expose(made, hand, "top", part_id="p-7", since_ns=hand.ns - 20 * MS)
    started = hand.ns
    hand.ns += 30 * MS
    made.judged(part, BAD, started)
    ((message, _),) = made.close()
    assert (message.queue_ms, message.judge_ms) == (20.0, 30.0)
    assert message.model == MODEL
    assert (message.limit_factor, message.recipe, message.part_id) == (1.5, "flange", "p-7")
    assert message.regions[0].peak == 1.2
    assert message.judged_us == hand.wall_us + hand.ns // 1000
    assert (message.trigger_seq, message.client, message.session) == (None, "", "")
    assert message.triggered_us is None


def test_triggered_verdict_names_its_trigger():
    hand = Hand()
    made = ready(hand)
    trigger = hand.trigger(7, "p-7")
    answer = made.trigger(trigger)
    assert (answer.kind, answer.verdict) == ("accepted", None)
    hand.ns += 5 * MS
    # The simulator's own name for the part is not the PLC's.
    message = judge(made, hand, expose(made, hand, part_id="0815"), judgement())
    assert (message.verdict, message.part_id, message.trigger_seq) == (Verdict.PASS, "p-7", 7)
    assert (message.client, message.session) == ("plc", "s1")
    assert message.triggered_us == trigger.triggered_us


def test_part_judged_after_its_deadline_is_a_fault():
    hand = Hand()
    made = ready(hand, deadline_ms=100)
    in_time, late = expose(made, hand, "top"), expose(made, hand, "top")
    hand.ns += 100 * MS
    assert judge(made, hand, in_time, judgement()).verdict is Verdict.PASS
    hand.ns += MS
    message = judge(made, hand, late, BAD)
    assert (message.verdict, message.score, message.reason) == (
        Verdict.FAULT,
        None,
        "deadline_missed",
    )
    assert (message.regions, message.model) == ((), MODEL)
    assert "judged 101 ms after the grab" in message.detail
    status = made.status()
    assert (status.late, status.overruns) == (1, 1)


def test_deadline_counts_from_the_trigger_and_ends_without_a_picture():
    hand = Hand()
    made = ready(hand, deadline_ms=100)
    made.trigger(hand.trigger(1))
    hand.ns += 60 * MS
    part = expose(made, hand)
    assert made.next_due_ns() == 5_000_000_000 + 100 * MS + 1
    hand.ns += 40 * MS
    assert made.close() == []
    hand.ns += 1
    assert parts(made.close()) == [("p1", "deadline_missed")]
    assert made.next_due_ns() is None
    made.judged(part, judgement(), hand.ns)
    made.fault(part, Reason.INFERENCE_ERROR, "")
    assert made.close() == []
    assert made.status().late == 2


def test_trigger_without_a_picture_says_whether_the_camera_was_lost():
    hand = Hand()
    made = ready(hand, deadline_ms=100)
    made.trigger(hand.trigger(1))
    made.note_camera("exit", "lost", "unplugged")
    made.trigger(hand.trigger(2, camera="exit"))
    hand.ns += 101 * MS
    closed = made.close()
    assert parts(closed) == [("p1", "deadline_missed"), ("p2", "camera_lost")]
    assert closed[1].verdict.detail == "unplugged"


def test_a_set_clock_moves_no_deadline():
    hand = Hand()
    made = ready(hand, deadline_ms=100)
    made.trigger(hand.trigger(1))
    for step_us in (10**13, -(10**14)):
        hand.wall_us += step_us
        assert made.close() == []
    message = judge(made, hand, expose(made, hand), judgement())
    assert (message.verdict, message.queue_ms) == (Verdict.PASS, 0.0)


def test_repeated_trigger_gets_its_first_verdict_again():
    hand = Hand()
    made = ready(hand)
    first = made.trigger(hand.trigger(1))
    hand.ns += MS
    again = made.trigger(hand.trigger(1), repeat=True)
    assert (again.kind, again.part, again.verdict) == ("repeated", first.part, None)
    verdict = judge(made, hand, expose(made, hand), judgement())
    assert not verdict.repeated
    hand.ns += 60_000 * MS
    again = made.trigger(hand.trigger(1), repeat=True)
    assert (again.kind, again.part) == ("repeated", None)
    assert again.verdict.repeated
    assert again.verdict == made.find(hand.trigger(1))
    assert again.verdict.model_copy(update={"repeated": False}) == verdict
    assert made.close() == []
    assert made.status().repeated == 2


def test_trigger_that_is_repeated_too_late_is_no_part_and_gets_no_verdict():
    hand = Hand()
    made = ready(hand)
    made.trigger(hand.trigger(1))
    judge(made, hand, expose(made, hand), judgement())
    hand.ns += 60_000 * MS + 1
    again = made.trigger(hand.trigger(1), repeat=True)
    assert (again.kind, again.part, again.verdict) == ("expired", None, None)
    assert made.close() == []
    assert (made.status().last_seq, made.status().repeated) == (1, 0)


def test_sender_that_counts_from_1_again_gets_no_old_verdict():
    hand = Hand()
    made = ready(hand)
    made.trigger(hand.trigger(1))
    assert judge(made, hand, expose(made, hand), judgement()).verdict is Verdict.PASS
    hand.ns += MS
    answer = made.trigger(hand.trigger(1))
    assert answer.kind == "conflict"
    (closed,) = made.close()
    assert (closed.verdict.seq, closed.verdict.reason) == (2, "trigger_conflict")
    # Nobody can say any more which of the two parts a repetition is of.
    again = made.trigger(hand.trigger(1), repeat=True)
    assert again.verdict == closed.verdict.told_again()


def test_used_number_while_the_first_part_is_open_takes_nothing_from_it():
    hand = Hand()
    made = ready(hand)
    first = made.trigger(hand.trigger(1))
    assert made.trigger(hand.trigger(1)).kind == "conflict"
    part = expose(made, hand)
    assert part is first.part
    made.judged(part, judgement(), hand.ns)
    assert parts(made.close()) == [("p1", "PASS"), ("p1", "trigger_conflict")]
    assert made.find(hand.trigger(1)).reason == "trigger_conflict"


def test_repetition_that_was_sent_first_at_another_time_is_another_part():
    hand = Hand()
    made = ready(hand)
    made.trigger(hand.trigger(1, sent_us=7))
    verdict = judge(made, hand, expose(made, hand), judgement())
    assert verdict.sent_us == 7
    for sent_us in (7, None):
        again = made.trigger(hand.trigger(1, sent_us=sent_us), repeat=True)
        assert (again.kind, again.verdict.seq) == ("repeated", 1)
    assert made.trigger(hand.trigger(1, sent_us=8), repeat=True).kind == "conflict"
    assert parts(made.close()) == [("p1", "trigger_conflict")]


def test_trigger_that_its_repetition_overtook_is_no_second_part():
    """As a connection is dropped and made anew, what was sent by the old one may come later."""
    hand = Hand()
    made = ready(hand)
    assert made.trigger(hand.trigger(1, sent_us=7), repeat=True).kind == "accepted"
    assert made.trigger(hand.trigger(1, sent_us=7)).kind == "repeated"
    verdict = judge(made, hand, expose(made, hand), judgement())
    assert made.trigger(hand.trigger(1, sent_us=7)).verdict == verdict.told_again()
    assert made.trigger(hand.trigger(1, sent_us=8)).kind == "conflict"
    assert parts(made.close()) == [("p1", "trigger_conflict")]
    hand.ns += 60_000 * MS + 1
    assert made.trigger(hand.trigger(1, sent_us=8)).kind == "expired"


def test_trigger_that_a_crash_left_is_repeated_though_its_first_sending_is_forgotten():
    hand = Hand()
    made = Ledger(only_triggered(), "epoch-2", hand.clock())
    made.recover([hand.trigger(1)])
    again = made.trigger(hand.trigger(1, sent_us=7), repeat=True)
    assert again.kind == "repeated"
    assert parts(made.close()) == [("p1", "restarted")]


def test_trigger_that_was_long_on_its_way_gets_no_picture():
    hand = Hand()
    made = ready(hand)
    assert made.trigger(hand.trigger(1), age_us=500_001).kind == "refused"
    assert expose(made, hand) is None
    (closed,) = made.close()
    assert (closed.verdict.reason, closed.verdict.grabbed_us) == ("deadline_missed", None)
    assert "500 ms" in closed.verdict.detail
    for number, age_us in enumerate((500_000, -3, None), 2):
        assert made.trigger(hand.trigger(number), age_us=age_us).kind == "accepted"
        judge(made, hand, expose(made, hand), judgement())


def test_same_number_with_another_part_is_a_fault_and_repeats_as_one():
    hand = Hand()
    made = ready(hand)
    made.trigger(hand.trigger(5, "a"))
    for number, part_id in ((5, "b"), (4, "c")):
        assert made.trigger(hand.trigger(number, part_id)).kind == "conflict"
    part = expose(made, hand)
    made.judged(part, judgement(), hand.ns)
    assert parts(made.close()) == [
        ("a", "PASS"),
        ("b", "trigger_conflict"),
        ("c", "trigger_conflict"),
    ]
    again = made.trigger(hand.trigger(5, "b"), repeat=True)
    assert (again.kind, again.verdict.reason) == ("repeated", "trigger_conflict")


@pytest.mark.parametrize("changes", [{"session": "s2"}, {"client": "mes"}, {"camera": "exit"}])
def test_numbers_are_counted_by_client_session_and_camera(changes):
    hand = Hand()
    made = ready(hand)
    assert made.trigger(hand.trigger(5, "a")).kind == "accepted"
    hand.ns += MS
    assert made.trigger(hand.trigger(5, "b", **changes)).kind == "accepted"


def test_trigger_older_than_the_memory_is_no_new_part():
    hand = Hand()
    made = Ledger(station(), "epoch-1", hand.clock(), remembered=2)
    made.enter("Initialized")
    made.enter("Ready")
    kinds = []
    for number in (1, 2, 3, 3, 2, 1, 4):
        hand.ns += MS
        kinds.append(made.trigger(hand.trigger(number), repeat=True).kind)
        if part := expose(made, hand):
            judge(made, hand, part, Judgement(Verdict.PASS, 0.5, Reason.NONE))
        made.close()
    assert kinds == ["accepted"] * 3 + ["repeated"] * 2 + ["expired", "accepted"]


def test_picture_from_before_the_trigger_is_never_used():
    hand = Hand()
    made = ready(hand)
    assert expose(made, hand) is None
    made.trigger(hand.trigger(1))
    assert expose(made, hand, exposed_ns=hand.ns - 1) is None
    part = expose(made, hand)
    assert part is not None
    assert part.part_id == "p1"
    assert expose(made, hand) is None


def test_later_trigger_waits_for_the_earlier_one_at_most_till_its_deadline():
    hand = Hand()
    made = ready(hand, deadline_ms=100)
    owed = []
    for number in (1, 2):
        made.trigger(hand.trigger(number))
        hand.ns += 10 * MS
        owed.append(expose(made, hand))
        hand.ns += 10 * MS
    made.judged(owed[1], judgement(), hand.ns)
    assert made.close() == []
    hand.ns = made.next_due_ns()
    assert parts(made.close()) == [("p1", "deadline_missed"), ("p2", "PASS")]


def test_cameras_do_not_wait_for_one_another():
    hand = Hand()
    made = ready(hand)
    made.trigger(hand.trigger(1))
    made.trigger(hand.trigger(1, camera="exit"))
    message = judge(made, hand, expose(made, hand, "exit"), judgement())
    assert (message.seq, message.camera) == (1, "exit")
    assert made.next_due_ns() is not None


def test_trigger_during_an_exposure_is_an_over_trigger():
    hand = Hand()
    made = ready(hand)
    made.trigger(hand.trigger(1))
    exposed = hand.ns
    hand.ns += MS
    made.trigger(hand.trigger(2))
    hand.ns += MS
    there = hand.ns
    hand.ns += MS
    made.trigger(hand.trigger(3))
    # The judge comes to the picture after the third trigger; it was there before.
    part = expose(made, hand, exposed_ns=exposed, since_ns=there)
    made.judged(part, judgement(), hand.ns)
    assert parts(made.close()) == [("p1", "PASS"), ("p2", "over_trigger")]
    assert judge(made, hand, expose(made, hand), judgement()).part_id == "p3"
    assert made.status().over_triggers == 1


def test_picture_exposed_after_two_triggers_judges_neither():
    hand = Hand()
    made = ready(hand)
    for number in (1, 2):
        made.trigger(hand.trigger(number))
        hand.ns += MS
    assert expose(made, hand) is None
    assert parts(made.close()) == [("p1", "over_trigger"), ("p2", "over_trigger")]
    assert made.status().over_triggers == 2


def test_pictures_drawn_on_demand_go_to_triggers_in_turn():
    hand = Hand()
    made = ready(hand)
    for number in (1, 2, 3):
        made.trigger(hand.trigger(number))
    owed = [expose(made, hand, exposed_ns=None) for _ in range(4)]
    assert [part and part.part_id for part in owed] == ["p1", "p2", "p3", None]


def test_more_triggers_than_may_wait_are_refused():
    hand = Hand()
    made = ready(hand, queue_size=2)
    kinds = [made.trigger(hand.trigger(number)).kind for number in range(1, 5)]
    assert kinds == ["accepted", "accepted", "refused", "refused"]
    hand.ns += 1001 * MS
    # The first two are overdue, and take no room from the next.
    assert made.trigger(hand.trigger(5)).kind == "accepted"
    assert [reason for _, reason in parts(made.close())] == [
        "deadline_missed",
        "deadline_missed",
        "over_trigger",
        "over_trigger",
    ]


def test_lost_camera_faults_the_triggers_that_wait_for_it():
    hand = Hand()
    made = ready(hand)
    made.trigger(hand.trigger(1))
    hand.ns += MS
    exposed = expose(made, hand)
    made.trigger(hand.trigger(2))
    made.lost("gate", "unplugged")
    made.lost("exit", "unplugged")
    assert made.close() == []
    made.judged(exposed, judgement(), hand.ns)
    assert parts(made.close()) == [("p1", "PASS"), ("p2", "camera_lost")]


def test_trigger_to_a_camera_that_has_ended_is_refused():
    hand = Hand()
    made = ready(hand)
    made.note_camera("gate", "ended")
    assert made.trigger(hand.trigger(1)).kind == "refused"
    assert parts(made.close()) == [("p1", "camera_lost")]


def test_nothing_is_judged_while_the_station_is_not_ready():
    hand = Hand()
    made = Ledger(station(), "epoch-1", hand.clock())
    answer = made.trigger(hand.trigger(1))
    assert answer.kind == "refused"
    assert expose(made, hand, "top", part_id="t1") is None
    assert parts(made.close()) == [("t1", "not_ready"), ("p1", "not_ready")]
    assert made.trigger(hand.trigger(1), repeat=True).verdict.reason == "not_ready"


def test_leaving_ready_faults_every_open_part_with_the_reason():
    hand = Hand()
    made = ready(hand)
    made.trigger(hand.trigger(1))
    exposed = expose(made, hand, "top", part_id="t1")
    made.enter("Error", Reason.JOURNAL_FAILED, "disk full")
    made.judged(exposed, judgement(), hand.ns)
    made.trigger(hand.trigger(2))
    closed = made.close()
    assert parts(closed) == [(part, "journal_failed") for part in ("t1", "p1", "p2")]
    assert {verdict.detail for verdict, _ in closed} == {"disk full"}


@pytest.mark.parametrize(
    ("camera", "words"), [("top", "takes no triggers"), ("roof", "no such camera")]
)
def test_trigger_that_no_camera_takes_is_no_part(camera, words):
    hand = Hand()
    made = ready(hand)
    with pytest.raises(CommandError, match=words):
        made.trigger(hand.trigger(1, camera=camera))
    assert made.close() == []


def test_part_without_a_picture_cannot_be_judged():
    hand = Hand()
    made = ready(hand)
    answer = made.trigger(hand.trigger(1))
    with pytest.raises(ValueError, match="no picture to judge"):
        made.judged(answer.part, judgement(), hand.ns)


def test_triggers_that_a_crash_left_are_faults_before_anything_else():
    hand = Hand()
    before = ready(hand)
    before.trigger(hand.trigger(1))
    answered = judge(before, hand, expose(before, hand), judgement())
    made = Ledger(only_triggered(), "epoch-2", hand.clock())
    # Its camera is no longer in the station file.
    gone = hand.trigger(9, camera="roof")
    made.recover([hand.trigger(2), gone], [answered])
    assert [(c.verdict.seq, c.verdict.epoch, c.verdict.reason) for c in made.close()] == [
        (1, "epoch-2", "restarted"),
        (2, "epoch-2", "restarted"),
    ]
    assert made.trigger(hand.trigger(1), repeat=True).verdict == answered.told_again()
    assert made.trigger(hand.trigger(2), repeat=True).verdict.reason == "restarted"
    assert made.trigger(hand.trigger(2, "other")).kind == "conflict"
    with pytest.raises(ValueError, match="before the first part"):
        made.recover([])


@pytest.mark.parametrize(
    ("gap_s", "kind"), [(59, "repeated"), (61, "expired"), (86_400, "expired"), (-60, "expired")]
)
def test_verdict_from_before_a_restart_ages_by_the_wall_clock(gap_s, kind):
    """A clock that was set back makes no old verdict young."""
    hand = Hand()
    before = ready(hand)
    before.trigger(hand.trigger(1))
    answered = judge(before, hand, expose(before, hand), judgement())
    hand.wall_us += hand.ns // 1000 + gap_s * 1_000_000
    hand.ns = 5
    made = Ledger(only_triggered(), "epoch-2", hand.clock())
    made.recover([], [answered])
    assert made.trigger(hand.trigger(1), repeat=True).kind == kind
    assert made.trigger(hand.trigger(1)).kind == "conflict"


def test_verdict_that_could_not_be_journalled_is_counted_and_repeated_as_published():
    hand = Hand()
    made = ready(hand)
    made.trigger(hand.trigger(1))
    verdict = judge(made, hand, expose(made, hand), judgement())
    published = verdict.model_copy(update={"verdict": Verdict.FAULT, "reason": "journal_failed"})
    made.amend(verdict, published)
    status = made.status()
    assert (status.passed, status.faults, status.last_seq) == (0, 1, 1)
    assert made.trigger(hand.trigger(1), repeat=True).verdict == published.told_again()


def test_fault_without_a_model_names_none():
    hand = Hand()
    made = ready(hand)
    odd = Judgement(Verdict.FAULT, None, Reason.FRAME_SHAPE, detail="not a picture")
    message = judge(made, hand, expose(made, hand, "top"), odd)
    assert (message.model, message.score, message.detail) == (None, None, "not a picture")


def test_text_that_utf8_cannot_carry_is_escaped_and_burns_no_seq():
    hand = Hand()
    made = ready(hand)
    odd = "m\udcff.png"
    judged = judge(made, hand, expose(made, hand, "top", part_id=odd), judgement())
    part = expose(made, hand, "top", part_id=odd)
    made.fault(part, Reason.FRAME_UNREADABLE, odd)
    ((fault, _),) = made.close()
    made.note_camera("top", "lost", odd)
    made.note_inference("top", odd)
    for message in (judged, fault, made.status()):
        assert rb"m\\udcff.png" in encode(message)
    assert (judged.seq, fault.seq, made.last_seq) == (1, 2, 2)


def test_message_that_cannot_be_sent_takes_no_seq():
    hand = Hand()
    made = ready(hand)
    part = expose(made, hand, "top")
    with pytest.raises(ValueError, match="finite"):
        made.judged(part, judgement(Verdict.PASS, float("nan")), hand.ns)
    made.fault(part, Reason.NOT_FINITE, "")
    assert [closed.verdict.seq for closed in made.close()] == [1]


def test_inference_trouble_leaves_a_cameras_state_alone():
    made = ready(Hand())
    made.note_camera("top", "lost", "unplugged")
    made.note_inference("gate", "out of memory")
    made.note_inference("top", "")
    status = made.status()
    assert status.inference == "gate: out of memory"
    assert [(camera.state, camera.detail) for camera in status.cameras] == [
        ("lost", "unplugged"),
        ("opening", ""),
        ("opening", ""),
    ]
    made.note_inference("gate", "")
    assert made.status().inference == ""


def test_selected_recipe_is_the_verdicts():
    hand = Hand()
    made = ready(hand)
    open_before = expose(made, hand, "top")
    made.select("bracket")
    assert judge(made, hand, open_before, judgement()).recipe == made.status().recipe == "bracket"
    with pytest.raises(ValueError, match="no recipe 'x'"):
        made.select("x")


def test_states_follow_their_drawing():
    made = Ledger(station(), "epoch-1", Hand().clock())
    for state in ("Initialized", "Ready", "ContinuousExecution", "Halted", "Preoperational"):
        made.enter(state)
        assert made.status().state == state
    for state in ("ContinuousExecution", "Ready", "Preoperational"):
        with pytest.raises(ValueError, match="no way from state Preoperational"):
            made.enter(state)


def test_station_of_triggers_is_ready_between_them():
    hand = Hand()
    made = ready(hand, only_triggered())
    seen = [made.state]
    made.trigger(hand.trigger(1))
    made.trigger(hand.trigger(2, camera="exit"))
    seen.append(made.state)
    for camera in ("gate", "exit"):
        judge(made, hand, expose(made, hand, camera), judgement())
        seen.append(made.state)
    assert seen == ["Ready", "SingleExecution", "SingleExecution", "Ready"]


def test_station_with_a_camera_of_its_own_pace_executes_continuously():
    hand = Hand()
    made = ready(hand)
    made.trigger(hand.trigger(1))
    assert made.state == "ContinuousExecution"


def test_error_during_execution_stays_an_error():
    hand = Hand()
    made = ready(hand, only_triggered())
    made.trigger(hand.trigger(1))
    made.enter("Error")
    assert parts(made.close()) == [("p1", "not_ready")]
    assert made.state == "Error"


def test_lost_camera_is_in_the_status():
    made = ready(Hand())
    made.note_camera("gate", "lost", "unplugged")
    assert [(c.name, c.state, c.detail) for c in made.status().cameras] == [
        ("top", "opening", ""),
        ("gate", "lost", "unplugged"),
        ("exit", "opening", ""),
    ]


def test_stopped_station_makes_no_parts():
    hand = Hand()
    made = ready(hand)
    waiting = made.trigger(hand.trigger(1)).part
    expose(made, hand, "top", part_id="open")
    # As a stop leaves the working states: by way of Ready.
    made.enter("Ready")
    made.enter("Initialized", Reason.NOT_READY, "stopped by desk")
    made.stop(True)
    assert {(one.verdict.reason, one.verdict.detail) for one in made.close()} == {
        ("not_ready", "stopped by desk")
    }
    assert waiting.draft is not None
    answer = made.trigger(hand.trigger(2))
    assert (answer.kind, answer.part) == ("stopped", None)
    assert expose(made, hand, "top") is None
    assert expose(made, hand, "gate") is None
    made.lost("top", "unplugged")
    assert made.close() == []
    assert [camera.frames for camera in made.status().cameras] == [2, 1, 0]
    # What was judged before is told again; what never came is no part now either.
    assert made.trigger(hand.trigger(1), repeat=True).kind == "repeated"
    assert made.trigger(hand.trigger(2), repeat=True).kind == "stopped"
    made.stop(False)
    made.enter("Ready")
    made.start()
    assert made.trigger(hand.trigger(2)).kind == "accepted"


def test_camera_is_ready_for_a_trigger_while_none_waits_for_its_picture():
    hand = Hand()
    made = ready(hand)

    def takes() -> list[bool]:
        return [camera.ready_for_trigger for camera in made.status().cameras]

    assert takes() == [False, False, False]
    for camera in ("top", "gate", "exit"):
        made.note_camera(camera, "running")
    assert takes() == [False, True, True]
    made.trigger(hand.trigger(1))
    assert takes() == [False, False, True]
    part = expose(made, hand)
    # The picture is there: the part need not be judged yet.
    assert takes() == [False, True, True]
    judge(made, hand, part, judgement())
    made.note_camera("gate", "lost")
    assert takes() == [False, False, True]
    made.enter("Error", Reason.JOURNAL_FAILED)
    assert takes() == [False, False, False]


def test_only_production_enters_the_counters():
    hand = Hand()
    made = ready(hand)
    for number, purpose in enumerate(("production", "challenge", "study"), 1):
        made.trigger(hand.trigger(number, lot="A-17", purpose=purpose))
        message = judge(made, hand, expose(made, hand), BAD)
        assert (message.lot, message.purpose) == ("A-17", purpose)
    made.trigger(hand.trigger(4, purpose="study"))
    hand.ns += 2_000 * MS
    ((late, _),) = made.close()
    status = made.status()
    assert late.reason == "deadline_missed"
    assert (status.failed, status.challenges, status.studies, status.last_seq) == (1, 1, 2, 4)
    assert (status.faults, status.overruns) == (0, 0)
    # What goes out as another verdict is counted where it was.
    made.amend(late, late.overruled(Reason.JOURNAL_FAILED, ""))
    assert (made.status().faults, made.status().studies) == (0, 2)
