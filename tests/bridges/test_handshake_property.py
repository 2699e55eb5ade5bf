"""Whatever is cut, restarted, late or lost: a part gets one result, its own, or the PLC's time-out.

The PLC of this model follows docs/plc/ as the function block does; cable, bridge and station are
cut, killed and delayed at random. What a verdict says is the part that stood before the camera when
its picture was taken, so that a result which tells another part's verdict is found out.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from typing import Any

import pytest
from hypothesis import HealthCheck, settings, strategies
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from inspector.bridges.fields import Delivered, Outputs, PlcFields, Settings, Trigger
from inspector.bridges.handshake import Handshake
from inspector.bridges.results import LARGEST, Result
from inspector.verdict import Verdict
from tests.bridges.parts import answer, status

BLANK = PlcFields(session=0, command=0, trigger_seq=0)


@dataclasses.dataclass
class Waiting:
    """A trigger at the station, and the part whose picture it took; None: none yet."""

    action: Trigger
    part: int | None = None


class Line(RuleBasedStateMachine):
    """A PLC, a cable, a bridge and a station."""

    LATEST = False

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 1000.0
        self.runs = 0
        self.alive = True
        self.part = 0
        self.seq_of_verdict = 0
        self.judged: list[Waiting] = []
        self.told: dict[int, str] = {}
        self.triggered = self.seen = self.overruns = self.timed_out = 0
        self.start_bridge(1)
        self.start_plc(0, 1)

    # The bridge.

    def start_bridge(self, first_result_seq: int) -> None:
        self.runs += 1
        made = Settings(
            camera="top", recipes={1: "flange"}, latest=self.LATEST, result_timeout_s=1.0
        )
        self.bridge = Handshake(made, f"run{self.runs}", first_result_seq)
        self.arrived = PlcFields()
        self.at_station: list[Waiting] = []
        self.to_station: deque[Trigger] = deque()
        self.held: tuple[Result | None, int] = (None, 0)
        self.told_in_session: set[tuple[int, int]] = set()
        self.sessions_opened = 0
        if self.alive:
            self.bridge.status(status())
        self.cut_cable()
        self.look()

    def scan(self) -> None:
        before = self.bridge.outputs()
        actions = self.bridge.scan(self.arrived, self.now_s)
        if self.bridge.outputs().session_echo != before.session_echo:
            self.sessions_opened += 1
            self.undisturbed.clear()
        for action in actions:
            if isinstance(action, Trigger):
                self.to_station.append(action)
            elif isinstance(action, Delivered):
                # One fate for each verdict.
                assert action.origin.seq not in self.told
                self.told[action.origin.seq] = action.outcome
        self.look()

    def look(self) -> None:
        """A shown result stays as it is until its number is acknowledged."""
        outputs = self.bridge.outputs()
        before, sessions = self.held
        now = outputs.result
        same_session = sessions == self.sessions_opened
        if before is not None and same_session and now != before and not self.LATEST:
            assert self.arrived.result_ack == before.seq
        if now is not None and now != before:
            key = (self.sessions_opened, now.trigger_seq)
            assert key not in self.told_in_session, "one trigger, two results"
            self.told_in_session.add(key)
        self.held = now, self.sessions_opened

    # The PLC.

    def start_plc(self, session: int, seq: int) -> None:
        self.mode = "clear"
        self.session, self.seq = session, seq
        self.awaited: dict[int, int] = {}
        self.undisturbed: set[int] = set()
        self.block = BLANK
        self.read: Outputs | None = None
        self.cut_cable()

    def cut_cable(self) -> None:
        self.writes: deque[PlcFields] = deque()
        self.reads: deque[Outputs] = deque()

    def write(self, **changes: Any) -> None:
        beat = (self.block.heartbeat + 1) % 65_536
        self.block = dataclasses.replace(self.block, heartbeat=beat, **changes)
        self.writes.append(self.block)

    def give_up(self) -> None:
        self.timed_out += len(self.awaited)
        self.awaited.clear()
        self.undisturbed.clear()

    def obey(self, outputs: Outputs) -> None:
        """One cycle of the function block."""
        self.read = outputs
        if self.mode == "clear":
            if outputs.session_echo == 0 and not outputs.result_valid:
                self.mode = "open"
                self.open_another()
            else:
                self.write(session=0, trigger_seq=0, command=0)
        elif self.mode == "open":
            if outputs.session_echo == self.session and not outputs.result_valid:
                self.mode = "run"
            elif self.patience:
                self.patience -= 1
                self.write()
            else:
                # A bridge that has just started takes this number for one of before.
                self.open_another()
        elif outputs.session_echo != self.session:
            self.give_up()
            self.mode = "clear"
            self.write(session=0, trigger_seq=0, command=0)
        elif outputs.result_valid:
            self.take(outputs.result)
        else:
            self.write()

    def open_another(self) -> None:
        self.patience = 2
        self.session = self.session % LARGEST + 1
        self.write(session=self.session)

    def take(self, result: Result | None) -> None:
        assert result is not None
        part = self.awaited.pop(result.trigger_seq, None)
        self.undisturbed.discard(result.trigger_seq)
        if part is not None:
            self.seen += 1
            self.overruns += result.reason == "result_overrun"
            if result.verdict is not Verdict.FAULT:
                assert result.score == part / 100_000, "another part's verdict"
        self.write(result_ack=result.seq)

    # What happens.

    @initialize(session=strategies.integers(0, 3), seq=strategies.sampled_from([1, 65_530]))
    def begin(self, session: int, seq: int) -> None:
        self.start_plc(session, seq)
        for _ in range(8):
            self.cycle()
        assert self.mode == "run"

    last = 0

    def may_trigger(self) -> bool:
        """The last part's picture is taken, or the PLC has given it up."""
        if self.mode != "run" or self.read is None:
            return False
        if self.last in self.awaited:
            return self.read.ready and self.read.trigger_echo == self.last
        return True

    def plc_triggers(self) -> None:
        if not self.may_trigger():
            return
        self.part += 1
        self.triggered += 1
        self.awaited[self.seq] = self.part
        if self.alive:
            self.undisturbed.add(self.seq)
        self.write(trigger_seq=self.seq, recipe_id=1)
        self.last, self.seq = self.seq, self.seq % LARGEST + 1

    def plc_reads(self) -> None:
        if self.reads:
            self.obey(self.reads.popleft())

    def bridge_answers(self) -> None:
        if len(self.reads) < 5:
            self.reads.append(self.bridge.outputs())

    def bridge_takes(self) -> None:
        if self.writes:
            self.arrived = self.writes.popleft()
            self.scan()

    def cycle(self) -> None:
        """A whole cycle without a delay."""
        while self.writes:
            self.bridge_takes()
        self.reads.append(self.bridge.outputs())
        while self.reads:
            self.plc_reads()
        while self.writes:
            self.bridge_takes()

    def part_without_acknowledgement(self) -> None:
        """A part is triggered and photographed; the PLC only looks whether it is Ready."""
        self.plc_triggers()
        while self.writes:
            self.bridge_takes()
        self.station_takes()
        if self.mode == "run" and self.bridge.outputs().session_echo == self.session:
            self.read = self.bridge.outputs()

    def station_takes(self) -> None:
        if self.to_station and self.alive:
            waiting = Waiting(self.to_station.popleft(), self.part)
            self.at_station.append(waiting)
            self.bridge.acquired(waiting.action.ticket)

    def station_judges(self, which: int = 0, verdict: str = "PASS") -> None:
        if self.at_station:
            waiting = self.at_station.pop(which % len(self.at_station))
            self.judged.append(waiting)
            self.say(waiting, verdict=verdict)

    def station_judges_the_last(self) -> None:
        self.station_judges(-1, "FAIL")

    def time_passes(self) -> None:
        self.now_s += 0.01
        self.scan()

    def several_cycles(self) -> None:
        for _ in range(8):
            self.cycle()

    WORK = (
        several_cycles,
        several_cycles,
        plc_triggers,
        plc_triggers,
        part_without_acknowledgement,
        plc_reads,
        bridge_answers,
        bridge_takes,
        cycle,
        station_takes,
        station_takes,
        station_judges,
        station_judges_the_last,
        time_passes,
    )

    @rule(steps=strategies.lists(strategies.sampled_from(WORK), min_size=4, max_size=12))
    def goes_on(self, steps: list[Any]) -> None:
        """The line works, each side at its own pace."""
        for step in steps:
            step(self)

    @rule(parts=strategies.integers(9, 12))
    def nobody_acknowledges(self, parts: int) -> None:
        for _ in range(parts):
            self.part_without_acknowledgement()
            self.station_judges()

    def settle(self, cycles: int) -> None:
        for _ in range(cycles):
            while self.to_station and self.alive:
                self.station_takes()
            while self.at_station:
                self.station_judges()
            self.cycle()

    @rule()
    def goes_well(self) -> None:
        """From whatever state: soon the line is in order, and the next part has its result."""
        self.station_starts()
        self.settle(40)
        assert self.mode == "run" and self.bridge.outputs().ready
        seen = self.seen
        self.plc_triggers()
        self.settle(3)
        assert not self.awaited or self.last not in self.awaited
        assert self.seen > seen

    @rule()
    def goes_well_until_it_is_judged(self) -> None:
        self.station_starts()
        self.settle(40)
        self.plc_triggers()
        self.cycle()
        self.station_takes()
        self.cycle()

    @rule()
    def plc_times_out(self) -> None:
        if self.awaited:
            seq = next(iter(self.awaited))
            del self.awaited[seq]
            self.undisturbed.discard(seq)
            self.timed_out += 1

    @rule(
        kind=strategies.sampled_from(["cable", "bridge", "plc", "station", "station and back"]),
        number=strategies.sampled_from([0, 1, 2, 3, 65_530]),
    )
    def trouble(self, kind: str, number: int) -> None:
        self.undisturbed.clear()
        if kind == "cable":
            self.cut_cable()
        elif kind == "bridge":
            self.start_bridge(number or LARGEST)
        elif kind == "plc":
            self.give_up()
            # It may count as before the restart, or open the very session of before.
            self.start_plc(number if number > 1 else self.session - number, number or 1)
            self.write()
        else:
            self.alive = False
            self.at_station.clear()
            self.to_station.clear()
            self.bridge.station_gone()
            self.scan()
        if kind == "station and back":
            self.station_starts()

    @rule(same_session=strategies.booleans())
    def plc_restarts_and_uses_its_last_number_again(self, same_session: bool) -> None:
        """While the part of before is still at the station."""
        self.give_up()
        number = self.last or 1
        self.start_plc(self.session - 1 if same_session and self.session else self.session, number)
        self.several_cycles()
        self.plc_triggers()
        self.cycle()
        self.station_judges()
        self.cycle()

    @rule()
    def station_starts(self) -> None:
        self.alive = True
        self.bridge.status(status())

    @precondition(lambda self: self.judged)
    @rule(which=strategies.integers(0, 30))
    def station_tells_again(self, which: int) -> None:
        """A verdict of any time before, as the answer to a repetition."""
        self.say(self.judged[which % len(self.judged)], verdict="PASS", repeated=True)

    def say(self, waiting: Waiting, **changes: Any) -> None:
        self.seq_of_verdict += 1
        assert waiting.part is not None
        message = answer(
            waiting.action.ticket,
            seq=self.seq_of_verdict,
            score=waiting.part / 100_000,
            **changes,
        )
        self.bridge.verdict(waiting.action.ticket, message)
        self.look()

    @rule(seconds=strategies.sampled_from([0.2, 0.6, 1.1]))
    def time_is_lost(self, seconds: float) -> None:
        self.now_s += seconds
        self.undisturbed.clear()
        self.scan()

    # What must hold.

    @invariant()
    def nothing_is_counted_twice(self) -> None:
        assert self.triggered == self.seen + self.timed_out + len(self.awaited)

    @invariant()
    def what_is_ready_has_a_session_and_a_station(self) -> None:
        outputs = self.bridge.outputs()
        if outputs.ready:
            assert self.alive and outputs.session_echo

    def teardown(self) -> None:
        """When nothing disturbs any more, every trigger that was not disturbed has its result."""
        undisturbed = set(self.undisturbed)
        if self.alive:
            self.settle(40)
            undisturbed &= set(self.awaited)
            assert not undisturbed, "no result came, and nothing was in its way"
        self.give_up()
        assert self.triggered == self.seen + self.timed_out


class LatestLine(Line):
    """The same where results replace each other, and no acknowledgement is needed."""

    LATEST = True

    def teardown(self) -> None:
        self.give_up()
        assert self.triggered == self.seen + self.timed_out


LOTS = settings(
    max_examples=50,
    stateful_step_count=40,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


@pytest.mark.parametrize("machine", [Line, LatestLine])
def test_every_trigger_ends_once_and_with_no_other_parts_result(machine):
    run_state_machine_as_test(machine, settings=LOTS)
