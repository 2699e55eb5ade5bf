"""Which part gets a PASS: the rules of the ejector, without a module or a clock."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inspector.bridges.ejector import Ejector, Inputs, Way
from inspector.bridges.fields import Delivered, Ticket, Trigger
from inspector.verdict import Verdict
from tests.bridges.parts import answer, status

POLL_S = 0.005
GOOD: dict[str, Any] = {"verdict": "PASS", "reason": "", "score": 0.2}
BAD: dict[str, Any] = {"verdict": "FAIL", "reason": "anomaly", "score": 1.4}


class Line:
    """A belt, and a bridge that reads it every 5 ms and writes without delay."""

    def __init__(self, **way: Any) -> None:
        self.way = Way(**({"camera": "top", "delay_s": 0.4} | way))
        self.ejector = Ejector(self.way, "run")
        self.now_s = 100.0
        self.trigger = False
        self.belt = True
        self.encoder: float | None = None
        self.speed = 0.0
        self.fired: list[tuple[float, Verdict, int]] = []
        self.ended: list[tuple[float, Verdict]] = []
        self.tickets: list[Ticket] = []
        self.outcomes: list[tuple[int, str]] = []
        self.dropped: dict[str, int] = {}
        self.writes = True
        self.ejector.status(status())
        self.run(0.02)

    def run(self, for_s: float) -> None:
        """Let time pass, poll by poll."""
        until_s = self.now_s + for_s
        while self.now_s < until_s - 1e-9:
            self.now_s += POLL_S
            if self.encoder is not None:
                self.encoder = (self.encoder + self.speed * POLL_S) % 65_536
            self.scan()

    def scan(self) -> None:
        count = None if self.encoder is None else int(self.encoder)
        inputs = Inputs(self.trigger, self.belt, count)
        self.ejector.sense(inputs, self.now_s - 0.001, self.now_s)
        self.drive()

    def drive(self) -> None:
        for verdict in self.ejector.ending(self.now_s):
            self.ended.append((self.now_s, verdict))
            self.ejector.ended(verdict)
        while (firing := self.ejector.due(self.now_s)) is not None:
            if self.writes:
                self.fired.append((self.now_s, firing.output, firing.number))
            self.ejector.fired(firing, self.now_s, self.writes)
        for action in self.ejector.take_actions():
            if isinstance(action, Trigger):
                self.tickets.append(action.ticket)
            elif isinstance(action, Delivered):
                self.outcomes.append((action.origin.seq, action.outcome))
        for why, parts in self.ejector.take_dropped().items():
            self.dropped[why] = self.dropped.get(why, 0) + parts

    def part(self) -> Ticket | None:
        """A part comes to the sensor; its trigger, if it makes one."""
        before = len(self.tickets)
        self.trigger = True
        self.run(2 * POLL_S)
        self.trigger = False
        self.run(POLL_S)
        return self.tickets[-1] if len(self.tickets) > before else None

    def judge(self, ticket: Ticket | None, seq: int = 1, **changes: Any) -> None:
        assert ticket is not None
        self.ejector.verdict(ticket, answer(ticket, seq=seq, **(GOOD | changes)))
        self.drive()

    @property
    def outputs(self) -> list[str]:
        return [verdict.value for _, verdict, _ in self.fired]


def test_a_good_part_passes_when_it_is_at_the_ejector():
    line = Line()
    begun_s = line.now_s
    line.judge(line.part())
    line.run(0.3)
    assert line.outputs == []
    line.run(0.3)
    ((fired_s, verdict, number),) = line.fired
    assert verdict is Verdict.PASS and number == 1
    assert 0.4 <= fired_s - begun_s <= 0.4 + 2 * POLL_S + 1e-6
    ((ended_s, ended),) = line.ended
    assert ended is Verdict.PASS and 0.08 <= ended_s - fired_s <= line.way.pulse_s
    assert line.outcomes == [(1, "acknowledged")]


@pytest.mark.parametrize(
    ("changes", "output"),
    [
        (BAD, "FAIL"),
        ({"verdict": "FAULT", "reason": "too_dark", "score": None}, "FAULT"),
        ({"purpose": "study"}, "FAULT"),
        ({"repeated": True}, "FAULT"),
        ({"recipe": "disc"}, "FAULT"),
        ({"camera": "side"}, "FAULT"),
        ({"trigger_seq": 77}, "FAULT"),
        ({"session": "another"}, "FAULT"),
    ],
)
def test_what_is_no_pass_of_this_very_part_is_none(changes, output):
    line = Line()
    line.judge(line.part(), **changes)
    line.run(0.6)
    assert line.outputs == [output]


def test_no_verdict_and_a_late_one_are_no_pass():
    line = Line()
    ticket = line.part()
    line.run(0.6)
    assert line.outputs == ["FAULT"]
    line.judge(ticket)
    line.run(0.6)
    assert line.outputs == ["FAULT"] and line.outcomes == [(1, "timed_out")]
    line.ejector.refused(line.part() or ticket)
    line.run(0.6)
    assert line.outputs == ["FAULT", "FAULT"]


def test_a_station_that_cannot_judge_is_not_asked():
    for lame in ({"state": "Halted"}, {"camera": "lost"}):
        line = Line()
        line.ejector.status(status(**lame))
        assert line.part() is None
        line.run(0.6)
        assert line.outputs == ["FAULT"] and line.dropped == {"not ready": 1}
    line = Line()
    line.ejector.station_gone()
    assert line.part() is None and not line.ejector.is_ready


def test_a_stopped_belt_drops_what_is_on_its_way():
    line = Line()
    line.judge(line.part())
    line.belt = False
    line.run(0.01)
    line.belt = True
    line.run(0.6)
    assert line.outputs == [] and line.outcomes == [(1, "discarded")]
    assert line.dropped == {"belt stopped": 1}
    # A part that comes while it stands may be carried off by hand.
    line.belt = False
    assert line.part() is None
    line.run(0.6)
    assert line.outputs == ["FAULT"]


def test_inputs_that_were_unseen_for_long_drop_what_is_on_its_way():
    line = Line()
    line.judge(line.part())
    line.now_s += 0.05
    line.scan()
    line.run(0.6)
    assert line.outputs == [] and line.dropped == {"inputs unseen": 1}
    # Nor may an output go out by what was read long ago.
    line.judge(line.part(), seq=2)
    line.now_s += 0.4
    line.drive()
    assert line.outputs == [] and line.outcomes == [(1, "discarded"), (2, "discarded")]


def test_an_edge_that_was_seen_late_is_no_pass():
    line = Line()
    line.now_s += 0.05
    line.trigger = True
    line.scan()
    assert line.tickets == [] and line.dropped == {"edge seen late": 1}
    line.trigger = False
    line.run(0.6)
    assert line.outputs == ["FAULT"]


def test_after_a_lost_module_nothing_of_before_counts():
    line = Line()
    line.judge(line.part())
    line.ejector.lost()
    assert not line.ejector.is_ready
    line.trigger = True
    line.run(0.6)
    assert line.outputs == [] and len(line.tickets) == 1, "an input that stands is no edge"
    line.trigger = False
    line.run(0.02)
    line.judge(line.part(), seq=2)
    line.run(0.6)
    assert line.outputs == ["PASS"]


def test_a_write_that_failed_is_told_as_failed():
    line = Line()
    line.writes = False
    line.judge(line.part())
    line.run(0.6)
    assert line.outputs == [] and line.outcomes == [(1, "failed")]


def test_two_passes_never_become_one_pulse():
    line = Line()
    first, second = line.part(), line.part()
    line.judge(first, seq=1)
    line.judge(second, seq=2)
    line.run(0.6)
    # The second comes 15 ms behind the first, whose pulse ends before that.
    assert line.outputs == ["PASS", "PASS"]
    assert line.ended[0][0] <= line.fired[1][0]
    line = Line(pulse_s=0.02)
    for seq, changes in ((1, GOOD), (2, BAD)):
        line.judge(line.part(), seq=seq, **changes)
    line.run(0.6)
    assert line.outputs == ["PASS", "FAIL"] and line.ended[0][0] <= line.fired[1][0]


def test_an_output_that_would_be_late_is_none():
    """The inputs are read, and something else keeps the outputs from being written."""
    line = Line()
    line.judge(line.part())
    line.run(0.36)

    def sense_only(for_s: float) -> None:
        for _ in range(round(for_s / POLL_S)):
            line.now_s += POLL_S
            line.ejector.sense(Inputs(False), line.now_s - 0.001, line.now_s)

    sense_only(0.1)
    line.drive()
    assert line.outputs == [] and line.dropped == {"output late": 1}
    assert line.outcomes == [(1, "discarded")]
    line = Line(delay_s=None)
    ticket = line.part()
    line.run(0.97)
    line.ejector.verdict(ticket, answer(ticket, **GOOD))
    sense_only(0.05)
    line.drive()
    assert line.outputs == [] and line.dropped == {"output late": 1}


def test_an_output_that_is_still_on_is_not_written_again():
    """Nobody calls for the end of the first pulse before the second part is there."""
    line = Line()
    for seq in (1, 2):
        line.judge(line.part(), seq=seq)
    line.run(0.365)
    assert line.outputs == []
    for _ in range(6):
        line.now_s += POLL_S
        line.ejector.sense(Inputs(False), line.now_s - 0.001, line.now_s)
    first = line.ejector.due(line.now_s)
    assert first is not None and first.output is Verdict.PASS
    line.ejector.fired(first, line.now_s, True)
    assert line.ejector.due(line.now_s) is None
    line.drive()
    assert line.dropped == {"output still on": 1}


def test_without_a_delay_the_output_comes_with_the_verdict():
    line = Line(delay_s=None)
    ticket = line.part()
    line.run(0.1)
    line.judge(ticket)
    assert line.outputs == ["PASS"]
    line.run(0.2)
    # A part without a verdict in its time.
    ticket = line.part()
    line.run(1.2)
    line.judge(ticket, seq=2)
    line.run(0.2)
    assert line.outputs == ["PASS", "FAULT"] and line.outcomes[-1] == (2, "timed_out")


def test_without_a_delay_no_part_gets_the_pass_of_the_one_before():
    line = Line(delay_s=None, pulse_s=0.5)
    first = line.part()
    second = line.part()
    line.judge(first)
    line.run(0.1)
    assert line.outputs == [] and line.dropped == {"next part came": 1}
    line.judge(second, seq=2)
    assert line.outputs == ["PASS"]
    # The third comes while the coil is on for the second.
    line.part()
    assert [verdict for _, verdict in line.ended] == [Verdict.PASS]


def encoder_line(**way: Any) -> Line:
    line = Line(delay_s=None, delay_pulses=400, standstill_s=0.1, **way)
    line.encoder, line.speed = 65_400, 1000.0
    line.run(0.1)
    return line


def test_an_encoder_counts_the_way_over_its_wrap():
    line = encoder_line()
    begun_s = line.now_s
    line.judge(line.part())
    line.speed = 500.0
    line.run(1.0)
    ((fired_s, verdict, _),) = line.fired
    assert verdict is Verdict.PASS and 0.7 < fired_s - begun_s < 0.85


@pytest.mark.parametrize(
    ("happens", "why"),
    [
        (lambda line: setattr(line, "speed", 0.0), "belt stopped"),
        (lambda line: setattr(line, "encoder", line.encoder - 100), "belt ran back"),
        (lambda line: setattr(line, "encoder", line.encoder + 300), "encoder jumped"),
        (lambda line: setattr(line, "encoder", 0), "belt ran back"),
    ],
)
def test_an_encoder_that_stops_or_jumps_drops_what_is_on_its_way(happens, why):
    line = encoder_line()
    line.run(0.3)
    line.judge(line.part())
    happens(line)
    line.run(0.2)
    line.speed = 1000.0
    line.run(0.8)
    assert line.outputs == [] and line.dropped == {why: 1}


def test_healthy_is_a_wave_that_stands_still_without_a_station_or_module():
    line = Line()

    def changes(for_s: float) -> list[bool]:
        found = []
        until_s = line.now_s + for_s
        while line.now_s < until_s:
            line.run(POLL_S)
            level = line.ejector.wave(line.now_s)
            if level is not None:
                found.append(level)
        return found

    seen = changes(2.0)
    assert 7 <= len(seen) <= 9 and all(a is not b for a, b in pairwise(seen))
    line.ejector.station_gone()
    assert changes(1.0) in ([], [False])
    line.ejector.status(status())
    assert len(changes(1.0)) >= 3
    line.ejector.lost()
    assert line.ejector.wave(line.now_s) is None


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_a_pass_is_on_only_for_a_good_part_that_is_at_the_ejector(data):
    """Whatever happens: parts, verdicts, stops, gaps, losses, in any order."""
    delay_s = data.draw(st.sampled_from([None, 0.1, 0.4]))
    line = Line(delay_s=delay_s)
    good: dict[int, float] = {}
    open_: list[tuple[Ticket, int]] = []
    broken_s: list[float] = []
    steps = st.sampled_from(["part", "good", "bad", "run", "stop", "gap", "lost", "gone", "back"])
    for step in data.draw(st.lists(steps, max_size=25)):
        if step == "part":
            came_s = line.now_s
            ticket = line.part()
            if ticket is not None:
                open_.append((ticket, ticket.number))
                good[ticket.number] = came_s
        elif step in {"good", "bad"} and open_:
            ticket, number = open_.pop(data.draw(st.integers(0, len(open_) - 1)))
            line.judge(ticket, seq=number, **(GOOD if step == "good" else BAD))
            if step == "bad":
                good.pop(number)
        elif step == "stop":
            line.belt = False
            line.run(0.01)
            line.belt = True
            broken_s.append(line.now_s)
        elif step == "gap":
            line.now_s += data.draw(st.sampled_from([0.03, 0.3]))
            line.scan()
            broken_s.append(line.now_s)
        elif step == "lost":
            line.ejector.lost()
            broken_s.append(line.now_s)
        elif step == "gone":
            line.ejector.station_gone()
        elif step == "back":
            line.ejector.status(status())
        line.run(data.draw(st.sampled_from([0.005, 0.02, 0.1, 0.25])))
    line.run(0.6)
    for fired_s, verdict, number in line.fired:
        if verdict is not Verdict.PASS:
            continue
        came_s = good[number]
        if delay_s is not None:
            assert came_s + delay_s <= fired_s <= came_s + delay_s + 2 * line.way.tolerance_s
        assert not any(came_s + 3 * POLL_S < at_s < fired_s for at_s in broken_s)
    numbers = [number for _, _, number in line.fired]
    assert len(numbers) == len(set(numbers)) and numbers == sorted(numbers)
    told = [seq for seq, _ in line.outcomes]
    assert len(told) == len(set(told)), "each verdict has one end"
