"""Edges and pictures lost, doubled and late: no part gets a verdict by another part's picture.

Parts pass a trigger line that tells the camera 'now' and the PLC to count. Either may miss a part
or take it twice; what the PLC tells is on its way for less than the window, and a verdict for any
time. The bridge, the station and the PLC start again, and the counts are reset with parts on the
line, at random.
"""

from __future__ import annotations

import dataclasses
import heapq
from collections.abc import Callable
from functools import partial
from typing import Any

from hypothesis import HealthCheck, settings, strategies
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from inspector.bridges.fields import PlcFields, Settings
from inspector.bridges.handshake import Handshake
from inspector.bridges.results import LARGEST
from inspector.verdict import Verdict
from tests.bridges.parts import status
from tests.stations import verdict

WINDOW_S = 0.1
SPACING_S = 0.21
"""Between two parts, at least: more than twice the window."""
TIMEOUT_S = 1.0
SCAN_S = 0.04


class TriggerLine(RuleBasedStateMachine):
    """A PLC and a camera on one trigger line, a bridge, and a station."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 1000.0
        self.part_at_s = self.now_s
        self.part = self.seq_of_verdict = self.epochs = self.resets = self.session = 0
        self.events: list[tuple[float, int, Callable[[], None]]] = []
        self.order = 0
        self.last_verdict_s = 0.0
        self.results: set[tuple[int, int, int]] = set()
        self.own = 0
        """Results that told a part's own verdict."""
        self.block = PlcFields(session=0, command=0, trigger_seq=0, reset_count=0, recipe_id=1)
        self.start_station()
        self.start_bridge()

    # Who starts again.

    def start_bridge(self) -> None:
        made = Settings(
            camera="top",
            recipes={1: "flange"},
            hardware=True,
            hardware_window_s=WINDOW_S,
            result_timeout_s=TIMEOUT_S,
            plc_heartbeat_s=0.0,
        )
        self.bridge = Handshake(made, f"run{self.resets}-{self.order}", 1)
        self.held = None
        self.say_status()

    def start_station(self) -> None:
        self.epochs += 1
        self.frames = 0

    def say_status(self) -> None:
        message = status(frames=self.frames).model_copy(update={"epoch": f"epoch-{self.epochs}"})
        self.bridge.status(message)

    def start_plc(self) -> None:
        """It opens a session, as after any trouble, and resets the counts when it has one."""
        self.write(session=0, trigger_seq=0, command=0)
        self.session = self.session % LARGEST + 1
        self.write(session=self.session)

    def reset(self) -> None:
        self.resets = self.resets % LARGEST + 1
        self.count = 0
        self.write(trigger_seq=0, reset_count=self.resets)

    # The PLC.

    def write(self, **changes: Any) -> None:
        self.block = dataclasses.replace(self.block, **changes)
        self.scan()

    def scan(self) -> None:
        self.bridge.scan(self.block, self.now_s)
        shown = self.bridge.outputs().result
        if shown is not None and shown != self.held:
            self.look_at(shown)
        self.held = shown

    def look_at(self, result: Any) -> None:
        key = (self.session, self.resets, result.trigger_seq)
        told = (*key, result.seq)
        assert told not in self.results
        self.results.add(told)
        if result.verdict is not Verdict.FAULT:
            assert result.score == int(result.part_id) / 100_000, "another part's verdict"
            is_bad = int(result.part_id) % 3 == 0
            assert (result.verdict is Verdict.FAIL) == is_bad
            self.own += 1

    # The line.

    def at(self, when_s: float, what: Callable[[], None]) -> None:
        self.order += 1
        heapq.heappush(self.events, (max(when_s, self.now_s), self.order, what))

    def pass_time(self, until_s: float) -> None:
        """All that is on its way until then arrives, the bridge scans, results are taken."""
        while self.now_s < until_s:
            next_s = min(until_s, self.now_s + SCAN_S)
            if self.events and self.events[0][0] <= next_s:
                when_s, _, what = heapq.heappop(self.events)
                self.now_s = max(self.now_s, when_s)
                what()
            else:
                self.now_s = next_s
            self.scan()
            if self.acknowledges and self.held is not None:
                self.write(result_ack=self.held.seq)

    acknowledges = True

    def comes(self, edges: int, pictures: int, told_s: float, judged_s: float) -> None:
        """A part passes the trigger: so many edges at the PLC, so many pictures of the camera."""
        self.part_at_s = max(self.part_at_s + SPACING_S, self.now_s)
        self.part += 1
        part, taken_s = self.part, self.part_at_s
        for _ in range(edges):
            self.at(taken_s + told_s, lambda: self.tells(part))
        for _ in range(pictures):
            # Verdicts of one camera come in order.
            self.last_verdict_s = max(self.last_verdict_s, taken_s + judged_s)
            self.frames += 1
            told = partial(self.judged, part, self.frames, self.epochs, taken_s)
            self.at(self.last_verdict_s, told)

    def tells(self, part: int) -> None:
        self.count = self.count % LARGEST + 1
        self.write(trigger_seq=self.count, part_id=str(part))

    count = 0

    def judged(self, part: int, frame: int, epoch: int, taken_s: float) -> None:
        if epoch != self.epochs:
            return  # the station that had it is gone
        self.seq_of_verdict += 1
        is_bad = part % 3 == 0
        message = verdict(
            self.seq_of_verdict,
            f"epoch-{epoch}",
            frame=frame,
            part_id="",
            verdict="FAIL" if is_bad else "PASS",
            reason="anomaly" if is_bad else "",
            score=part / 100_000,
            recipe="flange",
        )
        self.bridge.pictured(message, False, taken_s, self.now_s)
        self.scan()

    # What happens.

    @initialize()
    def begin(self) -> None:
        self.start_plc()
        self.reset()

    @rule(
        fates=strategies.lists(
            strategies.tuples(
                strategies.sampled_from([1, 1, 1, 1, 1, 1, 0, 2]),
                strategies.sampled_from([1, 1, 1, 1, 1, 1, 0, 2]),
                strategies.sampled_from([0.0, 0.03, 0.09]),
                strategies.sampled_from([0.01, 0.05, 0.2, 0.4, 1.5]),
            ),
            min_size=1,
            max_size=6,
        ),
        wait_s=strategies.sampled_from([0.0, 0.1, 0.7]),
    )
    def parts_come(self, fates: list[tuple[int, int, float, float]], wait_s: float) -> None:
        for fate in fates:
            self.comes(*fate)
        self.pass_time(self.now_s + wait_s)

    @rule(acknowledges=strategies.booleans())
    def results_are_taken(self, acknowledges: bool) -> None:
        self.acknowledges = acknowledges

    @rule()
    def plc_resets_with_parts_on_the_line(self) -> None:
        self.reset()

    @rule()
    def plc_starts_again(self) -> None:
        self.start_plc()
        self.reset()

    @rule()
    def bridge_starts_again(self) -> None:
        self.start_bridge()
        self.scan()

    @rule()
    def station_starts_again(self) -> None:
        self.start_station()
        self.say_status()
        self.scan()

    @rule()
    def status_comes(self) -> None:
        self.say_status()
        self.scan()

    @rule(parts=strategies.integers(1, 5))
    def goes_well_after_a_reset_on_an_empty_line(self, parts: int) -> None:
        """Whatever was: the line is emptied, and every part then gets its own verdict."""
        self.acknowledges = True
        self.pass_time(max(self.now_s, self.part_at_s) + 2 * TIMEOUT_S + 1.0)
        self.say_status()
        self.start_plc()
        self.pass_time(self.now_s + 0.1)
        self.reset()
        assert self.bridge.outputs().count_agrees
        own = self.own
        for _ in range(parts):
            self.comes(1, 1, 0.03, 0.05)
        self.pass_time(self.part_at_s + TIMEOUT_S)
        assert self.own == own + parts

    # What must hold.

    @invariant()
    def nothing_is_ready_while_the_counts_differ(self) -> None:
        outputs = self.bridge.outputs()
        assert outputs.count_agrees or not outputs.ready


def test_no_part_gets_a_verdict_by_another_parts_picture() -> None:
    run_state_machine_as_test(
        TriggerLine,
        settings=settings(
            max_examples=40,
            stateful_step_count=15,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )
