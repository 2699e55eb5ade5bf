"""The rules of the handshake, one by one."""

from __future__ import annotations

import pytest

from inspector.bridges.codes import Command, CommandState, ErrorCode
from inspector.bridges.fields import Delivered, Order, PlcFields, Ticket, Trigger
from inspector.bridges.results import MOST_OVERRUN, MOST_WAITING, Origin
from inspector.verdict import Verdict
from tests.bridges.parts import Plc, answer, status


@pytest.fixture
def plc() -> Plc:
    made = Plc()
    made.open()
    return made


def shown(plc: Plc) -> tuple[int, str, str]:
    result = plc.outputs.result
    assert result is not None and plc.outputs.result_valid
    return result.trigger_seq, result.verdict.value, result.reason


def test_a_part_from_trigger_to_acknowledgement(plc):
    assert plc.outputs.ready
    (trigger,) = plc.write(trigger_seq=1, part_id="S/N 1", lot="L7")
    assert (trigger.part_id, trigger.lot) == ("S/N 1", "L7")
    assert not plc.outputs.ready and plc.outputs.busy and not plc.outputs.acquired
    plc.bridge.acquired(trigger.ticket)
    assert plc.outputs.ready and plc.outputs.acquired and plc.outputs.acquired_seq == 1
    plc.bridge.verdict(trigger.ticket, answer(trigger.ticket, "S/N 1", 41, score=0.25))
    result = plc.outputs.result
    assert (result.trigger_seq, result.verdict, result.score) == (1, Verdict.PASS, 0.25)
    assert result.part_id == "S/N 1" and not plc.outputs.busy
    plc.wait(0.5)
    assert plc.outputs.result == result
    done = plc.write(result_ack=result.seq)
    assert done == [Delivered(Origin("epoch-1", 41), "acknowledged")]
    assert not plc.outputs.result_valid and plc.outputs.passed == 1


def test_a_change_of_trigger_seq_fires_once_and_zero_never(plc):
    first = plc.trigger(5)
    assert plc.wait(0.1) == [] and plc.write(trigger_seq=0) == []
    plc.bridge.verdict(first, answer(first))
    second = plc.trigger(6)
    assert second.session == first.session and second.number == first.number + 1


def test_numbers_wrap_without_a_new_session(plc):
    tickets = []
    for seq in (65534, 65535, 1, 2):
        tickets.append(plc.trigger(seq))
        plc.bridge.acquired(tickets[-1])
    assert len({ticket.session for ticket in tickets}) == 1
    numbers = [ticket.number for ticket in tickets]
    assert numbers == list(range(numbers[0], numbers[0] + 4))
    assert plc.outputs.missed_triggers == 0 and plc.outputs.error_code == 0


@pytest.mark.parametrize("seq", [100, 99, 1, 100 + 32_768])
def test_a_step_back_fires_nothing_until_the_session_changes(plc, seq):
    plc.bridge.acquired(plc.trigger(100))
    plc.write(trigger_seq=0)
    assert plc.write(trigger_seq=seq) == []
    assert plc.outputs.error_code == ErrorCode.TRIGGER_STEP and not plc.outputs.ready
    plc.write(error_ack=ErrorCode.TRIGGER_STEP)
    assert plc.write(trigger_seq=101) == [] and plc.outputs.missed_triggers == 2
    assert plc.outputs.error_code == ErrorCode.TRIGGER_STEP
    plc.write(session=8, trigger_seq=0)
    assert plc.outputs.error_code == 0 and plc.outputs.ready
    assert plc.trigger(1).number == 1


def test_the_longest_step_counts_what_the_bridge_did_not_see(plc):
    plc.bridge.acquired(plc.trigger(1))
    assert plc.trigger(1 + 32_767).number == 1 + 32_767
    assert plc.outputs.missed_triggers == 32_766


def test_a_session_that_stood_there_is_not_new():
    plc = Plc()
    plc.bridge.status(status())
    plc.wait()
    assert plc.outputs.session_echo == 0 and not plc.outputs.ready
    plc.fields = PlcFields(session=7, command=0, trigger_seq=57, recipe_id=1)
    plc.wait()
    assert plc.outputs.session_echo == 0
    assert plc.outputs.error_code == ErrorCode.SESSION_STANDING
    assert plc.write(trigger_seq=58) == [] and plc.outputs.missed_triggers == 2
    plc.write(session=8, trigger_seq=0)
    assert plc.outputs.session_echo == 8 and plc.outputs.ready
    assert plc.trigger(1).session.startswith("run-8-")


def test_a_trigger_that_stood_there_fires_nothing_even_in_a_new_session():
    plc = Plc()
    plc.bridge.status(status())
    for session in (0, 8):
        plc.fields = PlcFields(session=session, recipe_id=1)
        plc.wait()
    assert plc.outputs.session_echo == 8
    # The driver writes TriggerSeq in a request of its own, later than Session.
    plc.fields = PlcFields(session=8, trigger_seq=57, recipe_id=1)
    assert plc.wait() == [] and plc.outputs.missed_triggers == 1
    assert plc.outputs.error_code == ErrorCode.TRIGGER_STANDING
    assert plc.trigger(58).number == 58


def test_the_same_session_number_again_is_another_session_for_the_station(plc):
    first = plc.trigger(1)
    plc.write(session=0)
    plc.write(session=7, trigger_seq=0)
    second = plc.trigger(1)
    assert first.number == second.number and first.session != second.session
    plc.bridge.verdict(first, answer(first, seq=9))
    assert not plc.outputs.result_valid
    assert Delivered(Origin("epoch-1", 9), "discarded") in plc.wait()


def test_a_new_session_discards_results_and_never_fires_what_stands(plc):
    ticket = plc.trigger(1)
    plc.bridge.verdict(ticket, answer(ticket, seq=5))
    assert plc.outputs.result_valid
    told = plc.write(session=8)
    assert told == [Delivered(Origin("epoch-1", 5), "discarded")]
    assert plc.outputs.session_echo == 8 and not plc.outputs.result_valid
    assert plc.write(session=9, trigger_seq=2) == []
    assert plc.outputs.error_code == ErrorCode.TRIGGER_NO_SESSION


def test_a_result_ack_that_stands_acknowledges_nothing_new():
    plc = Plc()
    plc.write(result_ack=1)
    plc.open()
    ticket = plc.trigger(1)
    plc.bridge.verdict(ticket, answer(ticket))
    plc.wait()
    assert plc.outputs.result_valid and plc.outputs.result.seq == 2


def test_eight_results_wait_and_the_ninth_is_an_overrun(plc):
    tickets = [plc.trigger(1)]
    plc.bridge.acquired(tickets[0])
    for seq in range(2, 12):
        tickets.append(plc.trigger(seq))
        plc.bridge.acquired(tickets[-1])
    for seq, ticket in enumerate(tickets, 1):
        plc.bridge.verdict(ticket, answer(ticket, seq=seq))
    assert plc.outputs.result_overruns == 2 and not plc.outputs.ready
    told = plc.wait()
    assert told == [Delivered(Origin("epoch-1", seq), "overrun") for seq in (10, 11)]
    seen = []
    while plc.outputs.result_valid:
        seen.append(shown(plc))
        plc.write(result_ack=plc.outputs.result.seq)
    assert seen[: MOST_WAITING + 1] == [(seq, "PASS", "") for seq in range(1, 10)]
    assert seen[9:] == [(seq, "FAULT", "result_overrun") for seq in (10, 11)]
    assert plc.outputs.passed == 9 and plc.outputs.faults == 2


def test_results_that_nobody_takes_do_not_grow_for_ever(plc):
    for seq in range(1, MOST_OVERRUN + 40):
        for action in plc.write(trigger_seq=seq):
            if isinstance(action, Trigger):
                plc.bridge.verdict(action.ticket, answer(action.ticket))
    assert plc.bridge._results.waiting == MOST_WAITING + MOST_OVERRUN
    assert plc.outputs.missed_triggers > 0


def test_latest_works_without_acknowledgements():
    plc = Plc(latest=True)
    plc.open()
    seqs = []
    for seq in range(1, 15):
        ticket = plc.trigger(seq)
        plc.bridge.verdict(ticket, answer(ticket))
        assert shown(plc) == (seq, "PASS", "")
        seqs.append(plc.outputs.result.seq)
    assert seqs == list(range(1, 15)) and plc.outputs.result_overruns == 0


def test_a_verdict_that_does_not_come_is_a_fault_and_a_late_one_is_told_so(plc):
    ticket = plc.trigger(1)
    plc.wait(0.9)
    assert not plc.outputs.result_valid
    plc.wait(0.2)
    assert shown(plc) == (1, "FAULT", "deadline_missed") and plc.outputs.ready
    plc.bridge.verdict(ticket, answer(ticket, seq=3))
    assert plc.wait() == [Delivered(Origin("epoch-1", 3), "timed_out")]
    assert shown(plc) == (1, "FAULT", "deadline_missed")
    plc.bridge.verdict(ticket, answer(ticket, seq=3))
    assert plc.wait() == []


def test_without_a_station_the_plc_times_out_by_itself(plc):
    ticket = plc.trigger(1)
    beat = plc.outputs.heartbeat
    plc.bridge.station_gone()
    for _ in range(20):
        plc.wait(0.2)
    assert not plc.outputs.result_valid and not plc.outputs.ready
    assert plc.outputs.heartbeat == beat and plc.outputs.state == 0
    assert plc.outputs.active_recipe == 0
    plc.bridge.status(status())
    plc.bridge.verdict(ticket, answer(ticket, repeated=True))
    plc.wait(0.3)
    assert not plc.outputs.result_valid and plc.outputs.heartbeat == beat + 1


def test_a_trigger_without_a_station_is_a_fault_at_once(plc):
    plc.bridge.station_gone()
    assert plc.write(trigger_seq=1) == []
    assert shown(plc) == (1, "FAULT", "not_ready")
    assert plc.outputs.error_code == ErrorCode.TRIGGER_NOT_READY


@pytest.mark.parametrize("camera", ["lost", "opening", "ended"])
def test_without_its_camera_the_block_is_not_ready_and_its_heart_stands_still(plc, camera):
    plc.bridge.status(status(camera=camera))
    beat = plc.outputs.heartbeat
    plc.wait(2.0)
    assert not plc.outputs.ready and plc.outputs.heartbeat == beat


def test_a_trigger_before_the_last_picture_goes_to_the_station_which_decides(plc):
    first = plc.trigger(1)
    second = plc.trigger(2)
    assert plc.outputs.error_code == ErrorCode.TRIGGER_NOT_READY
    for ticket in (first, second):
        plc.bridge.verdict(ticket, answer(ticket, verdict="FAULT", reason="over_trigger"))
    assert shown(plc) == (1, "FAULT", "over_trigger")


def test_a_record_never_passes(plc):
    ticket = plc.trigger(1)
    plc.bridge.verdict(ticket, answer(ticket, repeated=True))
    assert shown(plc) == (1, "FAULT", "record_only")


@pytest.mark.parametrize(
    "changes", [{"part_id": "other"}, {"camera": "side"}, {"trigger_seq": 9}, {"session": "x"}]
)
def test_a_verdict_on_another_part_never_passes(plc, changes):
    ticket = plc.trigger(1, part_id="mine")
    plc.bridge.verdict(ticket, answer(ticket, **({"part_id": "mine"} | changes)))
    assert shown(plc) == (1, "FAULT", "other_part")


def test_a_refused_trigger_is_a_fault(plc):
    plc.bridge.refused(plc.trigger(1))
    assert shown(plc) == (1, "FAULT", "refused")


@pytest.mark.parametrize("recipe", [0, 2, 99])
def test_a_trigger_of_another_recipe_is_a_fault_and_no_changeover(plc, recipe):
    assert plc.write(trigger_seq=1, recipe_id=recipe) == []
    assert shown(plc) == (1, "FAULT", "recipe_mismatch")


def test_a_part_judged_by_another_recipe_is_a_fault(plc):
    ticket = plc.trigger(1)
    plc.bridge.verdict(ticket, answer(ticket, recipe="disc"))
    assert shown(plc) == (1, "FAULT", "recipe_mismatch")


def test_without_recipes_the_number_is_zero():
    plc = Plc(recipes={})
    plc.open()
    assert plc.write(trigger_seq=1) == [] and shown(plc)[2] == "recipe_mismatch"
    assert plc.trigger(2, recipe_id=0).number == 2


@pytest.mark.parametrize(
    ("field", "error"), [("part_id", ErrorCode.PART_ID), ("lot", ErrorCode.LOT)]
)
def test_a_text_that_cannot_be_read_is_a_fault(plc, field, error):
    assert plc.write(trigger_seq=1, **{field: None}) == []
    assert shown(plc) == (1, "FAULT", "bad_text") and plc.outputs.error_code == error


def test_a_command_is_echoed_until_it_is_cleared(plc):
    assert plc.write(command=1) == [Order(Command.START)]
    assert plc.outputs.command_echo == 1 and plc.outputs.command_state == CommandState.RUNNING
    assert plc.wait(0.1) == []
    plc.bridge.ordered(plc.order, True)
    assert plc.outputs.command_state == CommandState.DONE
    assert plc.write(command=2) == []
    assert plc.outputs.error_code == ErrorCode.COMMAND_NOT_CLEARED
    plc.write(command=0)
    assert plc.outputs.command_echo == 0
    assert plc.write(command=2) == [Order(Command.STOP)]


def test_a_changeover_is_a_command_and_no_recipe_is_active_meanwhile(plc):
    assert plc.outputs.active_recipe == 1
    assert plc.write(command=4, recipe_id=2) == [Order(Command.RECIPE, "disc")]
    assert plc.outputs.active_recipe == 0 and not plc.outputs.ready
    plc.bridge.ordered(plc.order, True)
    assert plc.outputs.active_recipe == 2 and plc.outputs.ready


def test_a_changeover_that_failed_leaves_the_recipe(plc):
    plc.write(command=4, recipe_id=2)
    plc.bridge.ordered(plc.order, False)
    assert plc.outputs.active_recipe == 1
    assert plc.outputs.command_state == CommandState.FAILED
    assert plc.outputs.error_code == ErrorCode.COMMAND_REFUSED


def test_a_late_answer_to_an_order_that_was_given_up_ends_no_other(plc):
    (given_up,) = plc.write(command=4, recipe_id=2)
    plc.bridge.station_gone()
    assert plc.outputs.command_state == CommandState.FAILED
    plc.bridge.status(status())
    plc.write(command=0)
    plc.write(command=1)
    plc.bridge.ordered(given_up, True)
    assert plc.outputs.command_state == CommandState.RUNNING and plc.outputs.active_recipe == 1
    plc.bridge.ordered(plc.order, True)
    assert plc.outputs.command_state == CommandState.DONE


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"command": 17}, ErrorCode.COMMAND_UNKNOWN),
        ({"command": 4, "recipe_id": 9}, ErrorCode.RECIPE_UNKNOWN),
    ],
)
def test_a_command_that_is_none_is_an_error_which_its_number_acknowledges(plc, fields, error):
    assert plc.write(**fields) == []
    assert plc.outputs.error_code == error and plc.outputs.errors == 1
    plc.write(error_ack=99)
    assert plc.outputs.error_code == error
    plc.write(error_ack=error)
    assert plc.outputs.error_code == 0
    plc.write(command=0)
    plc.write(**fields)
    # The acknowledgement of the first one still stands there, and must not hide the second.
    assert plc.outputs.error_code == error and plc.outputs.errors == 2


def test_a_command_without_a_station_is_an_error(plc):
    plc.bridge.station_gone()
    assert plc.write(command=1) == []
    assert plc.outputs.error_code == ErrorCode.COMMAND_NOT_READY


def test_a_command_that_stood_there_is_not_new():
    plc = Plc()
    plc.bridge.status(status())
    plc.wait()
    plc.fields = PlcFields(command=1)
    assert plc.wait() == [] and plc.outputs.error_code == ErrorCode.COMMAND_STANDING
    plc.write(command=0)
    assert plc.write(command=1) == [Order(Command.START)]


def test_a_plc_whose_heart_stands_still_gets_no_part_judged():
    plc = Plc(plc_heartbeat_s=1.0)
    plc.open()
    plc.write(0.9, heartbeat=1)
    assert plc.outputs.ready and not plc.outputs.plc_lost
    plc.wait(1.1)
    assert plc.outputs.plc_lost and not plc.outputs.ready
    assert plc.write(trigger_seq=1) == [] and shown(plc) == (1, "FAULT", "not_ready")
    plc.write(heartbeat=2)
    assert plc.outputs.ready
    assert not plc.outputs.unsupervised and Plc().outputs.unsupervised


class Hardware(Plc):
    """A camera on a trigger line; the PLC counts its edges."""

    def __init__(self) -> None:
        super().__init__(hardware=True)
        self.open()
        self.write(reset_count=1)
        self.frames, self.epoch, self.is_record = 0, "epoch-1", False

    def picture(self, judged_in_s=0.03, **changes):
        """The camera's next picture was judged, so long after it was taken."""
        self.frames += 1
        told = {"session": "", "trigger_seq": None, "frame": self.frames, "epoch": self.epoch}
        message = answer(Ticket("", 1), seq=self.frames, **(told | changes))
        self.bridge.pictured(message, self.is_record, self.now_s - judged_in_s, self.now_s)

    def seen(self) -> list[tuple[int, str, str]]:
        """Acknowledge all results; what they told."""
        found = []
        while self.outputs.result_valid:
            result = self.outputs.result
            found.append((result.trigger_seq, result.part_id, result.reason))
            self.write(result_ack=result.seq)
        return found


@pytest.fixture
def line() -> Hardware:
    return Hardware()


def test_both_counts_meet_whichever_comes_first(line):
    assert line.outputs.reset_count_echo == 1 and line.outputs.ready
    line.write(trigger_seq=1, part_id="a")
    line.picture()
    line.picture()
    line.write(trigger_seq=2, part_id="b")
    assert line.outputs.result.part_count == 1
    assert line.seen() == [(1, "a", ""), (2, "b", "")]


def test_before_a_reset_nothing_passes():
    line = Plc(hardware=True)
    line.open()
    assert not line.outputs.ready and not line.outputs.count_agrees
    line.write(trigger_seq=1)
    assert shown(line) == (1, "FAULT", "count_mismatch")


def test_an_edge_that_the_camera_missed_stops_every_pass_until_a_reset(line):
    line.write(trigger_seq=1, part_id="a")
    line.wait(1.1)
    assert line.outputs.error_code == ErrorCode.COUNT_MISMATCH and not line.outputs.ready
    line.write(trigger_seq=2, part_id="b")
    line.picture()
    assert line.seen() == [(1, "a", "count_mismatch"), (2, "b", "count_mismatch")]
    line.write(reset_count=2, trigger_seq=0)
    assert line.outputs.reset_count_echo == 2 and line.outputs.error_code == 0
    line.write(trigger_seq=1, part_id="c")
    line.picture()
    assert line.seen() == [(1, "c", "")]


def test_a_picture_that_the_plc_did_not_count_stops_every_pass(line):
    line.picture()
    line.wait(1.1)
    assert not line.outputs.count_agrees
    assert line.outputs.error_code == ErrorCode.COUNT_MISMATCH
    line.write(trigger_seq=1)
    line.picture()
    assert line.seen() == [(1, "", "count_mismatch")]


def test_on_a_line_that_never_rests_a_missed_edge_gives_nobody_the_next_parts_verdict(line):
    for number, part_id in enumerate("abcdef", 1):
        line.write(after_s=0.3, trigger_seq=number, part_id=part_id)
        if part_id != "b":
            line.wait(0.03)
            line.picture()
    seen = line.seen()
    assert seen[0] == (1, "a", "")
    assert [reason for _, _, reason in seen[1:]] == ["count_mismatch"] * 5
    assert [part_id for _, part_id, _ in seen] == list("abcdef")


def test_on_a_line_that_never_rests_a_doubled_picture_gives_nobody_anothers_verdict(line):
    line.picture()
    for number, part_id in enumerate("abcd", 1):
        line.write(after_s=0.3, trigger_seq=number, part_id=part_id)
        line.wait(0.03)
        line.picture()
    assert [reason for _, _, reason in line.seen()] == ["count_mismatch"] * 4


def test_parts_that_are_judged_while_others_come_are_no_difference(line):
    seen = []
    for number in range(1, 21):
        line.write(after_s=0.15, trigger_seq=number, part_id=f"p{number}")
        if number > 4:
            # Four parts are on their way to their verdicts.
            line.picture(judged_in_s=0.6)
        seen += line.seen()
    assert seen == [(number, f"p{number}", "") for number in range(1, 17)]


def test_a_frame_that_the_camera_lost_or_a_count_that_the_plc_skipped_is_a_difference(line):
    line.write(trigger_seq=1, part_id="a")
    line.frames += 1
    line.picture()
    assert line.seen() == [(1, "a", "count_mismatch")] and not line.outputs.count_agrees
    line.write(reset_count=2, trigger_seq=0)
    line.write(trigger_seq=1)
    line.write(trigger_seq=3)
    line.picture()
    assert [reason for _, _, reason in line.seen()] == ["count_mismatch"] * 2


def test_a_reset_waits_for_the_parts_on_their_way(line):
    line.write(trigger_seq=1)
    line.write(reset_count=2)
    assert line.outputs.reset_count_echo == 1
    assert line.outputs.error_code == ErrorCode.RESET_NOT_EMPTY
    line.picture()
    line.wait()
    assert line.outputs.reset_count_echo == 1, "its result was not taken yet"
    assert line.seen() == [(1, "", "")]
    assert line.outputs.reset_count_echo == 2


@pytest.mark.parametrize("latest", [False, True])
def test_no_result_of_before_a_reset_stands_beside_the_numbers_that_begin_anew(latest):
    line = Hardware.__new__(Hardware)
    Plc.__init__(line, hardware=True, latest=latest)
    line.frames, line.epoch, line.is_record = 0, "epoch-1", False
    line.open()
    line.write(reset_count=1)
    line.write(trigger_seq=1, part_id="a")
    line.picture()
    assert line.outputs.result.trigger_seq == 1 and line.outputs.result_valid
    line.write(reset_count=2, trigger_seq=0)
    if latest:
        assert line.outputs.reset_count_echo == 2
    else:
        assert line.outputs.error_code == ErrorCode.RESET_NOT_EMPTY
        line.write(result_ack=line.outputs.result.seq)
        assert line.outputs.reset_count_echo == 2
    line.write(trigger_seq=1, part_id="b")
    assert line.outputs.result is None, "a PASS of part a beside number 1 of part b"


def test_a_reset_count_that_stood_there_resets_nothing():
    line = Plc(hardware=True)
    line.bridge.status(status())
    line.fields = PlcFields(session=0, command=0, trigger_seq=0, reset_count=4)
    line.wait()
    line.write(session=3, recipe_id=1)
    assert line.outputs.reset_count_echo == 0 and not line.outputs.count_agrees


def test_a_station_that_starts_again_counts_anew_and_nothing_passes(line):
    line.write(trigger_seq=1)
    line.epoch, line.frames = "epoch-2", 0
    line.picture()
    assert line.seen() == [(1, "", "count_mismatch")] and not line.outputs.count_agrees
    line.write(reset_count=2, trigger_seq=0)
    line.bridge.status(status())
    assert not line.outputs.count_agrees, "the station started a third time"


def test_a_bridge_that_starts_amid_the_pictures_counts_on_from_the_stations_count():
    line = Hardware.__new__(Hardware)
    Plc.__init__(line, hardware=True)
    line.frames, line.epoch, line.is_record = 57, "epoch-1", False
    # A status is a second old at most: one picture more was taken, and judged before the bridge.
    line.bridge.status(status(frames=56))
    line.open()
    line.bridge.status(status(frames=57))
    line.write(reset_count=1)
    line.write(trigger_seq=1, part_id="a")
    line.picture()
    assert line.seen() == [(1, "a", "")]


def test_a_verdict_from_the_journal_is_counted_and_lets_nothing_pass(line):
    line.write(trigger_seq=1, part_id="a")
    line.is_record = True
    line.picture()
    line.is_record = False
    line.write(trigger_seq=2, part_id="b")
    line.picture()
    assert line.seen() == [(1, "a", "record_only"), (2, "b", "")]


@pytest.mark.parametrize("owed", [{"frame": None, "verdict": "FAULT"}, {"trigger_seq": 4}])
def test_a_verdict_without_a_counted_picture_is_a_difference(line, owed):
    line.picture(**owed)
    assert not line.outputs.count_agrees
    line.write(trigger_seq=1, part_id="a")
    assert line.seen() == [(1, "a", "count_mismatch")]


def test_a_picture_that_was_told_too_late_is_a_difference(line):
    line.write(trigger_seq=1, part_id="a")
    # The bridge stood still: nothing was scanned meanwhile.
    line.now_s += 5
    line.picture()
    assert line.seen() == [(1, "a", "count_mismatch")] and not line.outputs.count_agrees


def test_a_part_announced_with_a_bad_part_id_or_recipe_cannot_pass(line):
    line.write(trigger_seq=1, part_id=None)
    line.picture()
    line.write(trigger_seq=2, part_id="b", recipe_id=2)
    line.write(recipe_id=1)
    line.picture()
    assert line.seen() == [(1, "", "bad_text"), (2, "b", "recipe_mismatch")]
