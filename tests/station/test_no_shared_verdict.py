"""Two parts never share a verdict by accident: restarts and lost messages on either side."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any

import hypothesis.strategies as st
import numpy as np
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from inspector.clock import Clock
from inspector.config.station_file import Station
from inspector.station.ledger import Ledger
from inspector.station.part import Part
from inspector.station.triggers import Trigger
from inspector.verdict import Judgement, Reason, Verdict
from inspector.wire.messages import ModelField, VerdictMessage, decode_verdict, encode

MS = 1_000_000
DEADLINE_MS = 1000
STATION = Station.model_validate(
    {
        "station": "line-1",
        "cameras": [
            {
                "name": "gate",
                "kind": "simulator",
                "trigger": "software",
                "deadline_ms": DEADLINE_MS,
            }
        ],
        "recipes": {"r": {"gate": {"bundle": "r.onnx"}}},
        "recipe": "r",
    }
)
MODEL = ModelField(name="r", version="1", sha256="0" * 64)
PICTURE = np.zeros((1, 1, 3), np.uint8)
RESULTS = {
    Verdict.PASS: Judgement(Verdict.PASS, 0.5, Reason.NONE, judged=PICTURE),
    Verdict.FAIL: Judgement(Verdict.FAIL, 1.5, Reason.ANOMALY, judged=PICTURE),
}


@dataclass(eq=False)
class Thing:
    """A part on the belt, and what its sender was told of it."""

    trigger: Trigger
    told: list[VerdictMessage] = field(default_factory=list)

    def accept(self) -> None:
        pass

    def acquire(self, grabbed_us: int) -> None:
        pass

    def answer(self, verdict: VerdictMessage, _recorded: bool = True) -> None:
        self.told.append(verdict)

    def refuse(self, code: str, detail: str) -> None:
        raise AssertionError(f"{code}: {detail}")


class Line(RuleBasedStateMachine):
    """A sender that names no parts and numbers its triggers from 1 at each start, and a station.

    It either chooses a new session at its start, as docs/wire.md asks for; or it forgets to, but
    says when each trigger was sent first.
    """

    def __init__(self) -> None:
        super().__init__()
        self.ns = 10**12
        self.wall_us = 1_700_000_000_000_000
        self.epochs = itertools.count(1)
        self.starts = itertools.count(1)
        self.stamps = itertools.count(1)
        self.recorded: list[Trigger | VerdictMessage] = []
        self.unrecorded: list[Trigger | VerdictMessage] = []
        self.shown: dict[tuple[str, int], Thing] = {}
        """The part that each verdict was made of."""
        self.things: list[Thing] = []

    @initialize(is_careful=st.booleans())
    def begin(self, is_careful: bool) -> None:
        self.is_careful = is_careful
        self.start_sender()
        self.start_station()

    def start_sender(self) -> None:
        self.session = f"run {next(self.starts)}" if self.is_careful else "plc"
        self.number = 0
        self.mine: list[Thing] = []
        """The parts that this run of the sender knows."""

    def start_station(self) -> None:
        epoch = f"epoch-{next(self.epochs)}"
        self.ledger = Ledger(STATION, epoch, Clock(lambda: self.wall_us, lambda: self.ns))
        self.ledger.install("gate", MODEL)
        self.at_work: dict[int, tuple[Part, Thing]] = {}
        self.pictured: list[Part] = []
        verdicts = [one for one in self.recorded if isinstance(one, VerdictMessage)]
        answered = {self.key_of(one) for one in verdicts}
        open_triggers = [
            one for one in self.recorded if isinstance(one, Trigger) and one.key not in answered
        ]
        self.ledger.recover(open_triggers, [decode_verdict(encode(one)) for one in verdicts])
        for state in ("Initialized", "Ready"):
            self.ledger.enter(state)
        self.ledger.start()

    @staticmethod
    def key_of(verdict: VerdictMessage) -> tuple[Any, ...]:
        number = verdict.trigger_seq
        return verdict.camera, verdict.client, verdict.session, number, verdict.part_id

    @rule(is_lost=st.booleans())
    def part_arrives(self, is_lost: bool) -> None:
        self.number += 1
        stamp = None if self.is_careful else next(self.stamps)
        trigger = Trigger("gate", "", self.session, self.number, "", 1, self.ns, stamp)
        thing = Thing(trigger)
        self.things.append(thing)
        self.mine.append(thing)
        if not is_lost:
            self.send(thing, repeat=False)

    @precondition(lambda self: self.mine)
    @rule(data=st.data())
    def sender_repeats(self, data: st.DataObject) -> None:
        self.send(data.draw(st.sampled_from(self.mine)), repeat=True)

    @precondition(lambda self: self.mine)
    @rule(data=st.data())
    def message_comes_late(self, data: st.DataObject) -> None:
        """Overtaken by its repetition, or twice."""
        self.send(data.draw(st.sampled_from(self.mine)), repeat=False)

    def send(self, thing: Thing, *, repeat: bool) -> None:
        fields = {**vars(thing.trigger), "triggered_ns": self.ns, "triggered_us": self.wall_us}
        trigger = Trigger(**fields)
        answer = self.ledger.trigger(trigger, thing, repeat=repeat)
        if answer.verdict is not None:
            thing.told.append(answer.verdict)
        elif answer.part is not None and id(answer.part) not in self.at_work:
            self.at_work[id(answer.part)] = answer.part, thing
            if answer.kind != "conflict":
                self.unrecorded.append(trigger)

    @rule(verdict=st.sampled_from(list(RESULTS)), is_judged=st.booleans())
    def picture_comes(self, verdict: Verdict, is_judged: bool) -> None:
        self.ns += MS
        part = self.ledger.expose("gate", self.ns, self.wall_us, since_ns=self.ns)
        if part is not None and is_judged:
            self.ledger.judged(part, RESULTS[verdict], self.ns)
        self.close()

    @rule(verdict=st.sampled_from(list(RESULTS)), is_recorded=st.booleans())
    def part_goes_through(self, verdict: Verdict, is_recorded: bool) -> None:
        """What a station sees all day."""
        self.part_arrives(is_lost=False)
        self.picture_comes(verdict, is_judged=True)
        if is_recorded:
            self.journal_catches_up()

    @rule(is_lost=st.booleans(), is_new_run=st.booleans())
    def part_is_sent_twice(self, is_lost: bool, is_new_run: bool) -> None:
        if is_new_run:
            self.start_sender()
        self.part_arrives(is_lost)
        self.send(self.mine[-1], repeat=True)

    @rule(ms=st.sampled_from([1, DEADLINE_MS + 1, 59_000, 61_000]))
    def time_passes(self, ms: int) -> None:
        self.ns += ms * MS
        self.wall_us += ms * 1000
        self.close()

    def close(self) -> None:
        for verdict, part in self.ledger.close():
            _, thing = self.at_work.get(id(part), (None, None))
            if thing is not None:
                self.shown[verdict.epoch, verdict.seq] = thing
            self.unrecorded.append(verdict)
            for request in part.requests:
                request.answer(verdict)

    @rule()
    def journal_catches_up(self) -> None:
        self.recorded += self.unrecorded
        self.unrecorded = []

    @rule(step_us=st.sampled_from([0, 0, -(10**9), 10**9]))
    def station_is_killed(self, step_us: int) -> None:
        """What it had told but not recorded it had not told: it records before it tells."""
        lost = {(one.epoch, one.seq) for one in self.unrecorded if isinstance(one, VerdictMessage)}
        for thing in self.things:
            thing.told = [one for one in thing.told if (one.epoch, one.seq) not in lost]
        self.unrecorded = []
        self.wall_us = max(0, self.wall_us + step_us)
        self.start_station()

    @rule()
    def sender_starts_again(self) -> None:
        self.start_sender()

    @invariant()
    def nobody_is_told_of_another_part(self) -> None:
        for thing in self.things:
            for verdict in thing.told:
                if verdict.verdict is not Verdict.FAULT:
                    assert self.shown[verdict.epoch, verdict.seq] is thing

    @invariant()
    def no_part_has_two_results(self) -> None:
        for thing in self.things:
            judged = {one.seq for one in thing.told if one.verdict is not Verdict.FAULT}
            assert len(judged) <= 1


TestLine = Line.TestCase
TestLine.settings = settings(max_examples=150, stateful_step_count=30)
