"""Whatever happens in whichever order: one verdict a trigger, in order, without a gap in seq."""

from __future__ import annotations

import itertools
from collections import Counter, OrderedDict
from collections.abc import Collection
from dataclasses import dataclass

import hypothesis.strategies as st
import numpy as np
from hypothesis import given, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from inspector.clock import Clock
from inspector.config.station_file import Station
from inspector.station.ledger import Ledger
from inspector.station.part import Part
from inspector.station.repetitions import Past
from inspector.station.triggers import Trigger, TriggerMemory, trigger_of
from inspector.verdict import Judgement, Reason, Verdict
from inspector.wire.messages import ModelField, VerdictMessage

MS = 1_000_000
DEADLINES_MS = {"belt": 50, "gate": 100, "exit": 40}
QUEUE = 3
WINDOW_NS = 50 * MS
STATION = Station.model_validate(
    {
        "station": "line-1",
        "queue_size": QUEUE,
        "repeat_window_s": WINDOW_NS / 1e9,
        "cameras": [
            {
                "name": name,
                "kind": "simulator",
                "deadline_ms": deadline_ms,
                "trigger": "camera" if name == "belt" else "software",
            }
            for name, deadline_ms in DEADLINES_MS.items()
        ],
        "recipes": {
            recipe: {name: {"bundle": f"{recipe}.onnx"} for name in DEADLINES_MS}
            for recipe in ("r", "s")
        },
        "recipe": "r",
    }
)
SEEN = np.zeros((1, 1, 3), np.uint8)
RESULTS = {
    Verdict.PASS: Judgement(Verdict.PASS, 0.5, Reason.NONE, judged=SEEN),
    Verdict.FAIL: Judgement(Verdict.FAIL, 1.5, Reason.ANOMALY, judged=SEEN),
    Verdict.FAULT: Judgement(Verdict.FAULT, None, Reason.NOT_FINITE, judged=SEEN),
}
OVERRUNS = ("queue_full", "deadline_missed")
SOFTWARE = st.sampled_from(["gate", "exit"])
CAMERAS = st.sampled_from(sorted(DEADLINES_MS))
DELAYS_NS = st.just(0) | st.integers(0, 4 * MS)


class Sender:
    """Whoever waits for a part's verdict."""

    def __init__(self) -> None:
        self.acquired: list[int] = []

    def accept(self) -> None: ...

    def acquire(self, grabbed_us: int) -> None:
        self.acquired.append(grabbed_us)

    def answer(self, verdict: VerdictMessage, recorded: bool = True) -> None: ...

    def refuse(self, code: str, detail: str) -> None: ...


@dataclass(eq=False)
class Owed:
    """A part the ledger must give a verdict, as the test sees it."""

    camera: str
    start_ns: int
    trigger: Trigger | None = None
    part_id: str = ""
    outcome: tuple[Verdict, str] | None = None
    judged_by: str = ""
    """The recipe in force when the judge answered."""
    accepted: bool = True
    conflict: bool = False
    exposed: bool = False
    reasons: Collection[str] = ("deadline_missed", "camera_lost")
    """What it may be when it ended overdue."""
    settled: bool = False
    """It has one of ``reasons`` for good: what the judge says later changes nothing."""

    def overdue(self, now_ns: int) -> bool:
        return now_ns > self.start_ns + DEADLINES_MS[self.camera] * MS


class LedgerMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.ns = 10**12
        self.wall_us = 1_700_000_000_000_000
        self.epochs = itertools.count(1)
        self.numbers = itertools.count(1)
        self.conflicts: set[tuple[str, int]] = set()
        """The verdicts on triggers whose number was used: their epochs and numbers."""
        self.journal: list[Trigger | VerdictMessage] = []
        self.uncommitted: list[Trigger | VerdictMessage] = []
        self.start_epoch()

    def start_epoch(self) -> None:
        """A daemon starts on what is in the journal."""
        self.ledger = Ledger(
            STATION, f"epoch-{next(self.epochs)}", Clock(lambda: self.wall_us, lambda: self.ns)
        )
        self.owed: dict[str, list[Owed]] = {name: [] for name in DEADLINES_MS}
        self.pictured: list[tuple[Part, Owed]] = []
        self.known: dict[tuple, Past | Part | None] = {}
        self.highest: Counter[tuple] = Counter()
        self.seq = 0
        self.published: dict[int, VerdictMessage] = {}
        self.change_over("r")
        self.broken: str | None = None
        answered = [item for item in self.journal if isinstance(item, VerdictMessage)]
        for verdict in answered:
            if trigger := trigger_of(verdict):
                age_ns = (self.wall_us - verdict.judged_us) * 1000
                judged_ns = self.ns - (age_ns if age_ns >= 0 else 10**18)
                self.know(trigger, Past(verdict, judged_ns))
        unanswered = [
            item
            for item in self.journal
            if isinstance(item, Trigger) and item.key not in self.known
        ]
        self.ledger.recover(unanswered, answered)
        for trigger in unanswered:
            self.know(trigger, None)
            self.owed[trigger.camera].append(
                Owed(trigger.camera, self.ns, trigger, outcome=(Verdict.FAULT, "restarted"))
            )
        self.ledger.enter("Initialized")
        self.ledger.enter("Ready")
        self.ledger.start()

    def know(self, trigger: Trigger, item: Past | Part | None) -> None:
        self.known[trigger.key] = item
        session = trigger.key[:3]
        self.highest[session] = max(self.highest[session], trigger.number)

    @initialize()
    def begin(self) -> None:
        assert self.ledger.close() == []

    @rule(
        camera=SOFTWARE,
        session=st.sampled_from(["s1", "s2"]),
        step=st.sampled_from([-1, 0, 1, 1, 1, 2]),
        part=st.sampled_from("ab"),
        ago_ns=DELAYS_NS,
        repeat=st.booleans(),
    )
    def trigger(
        self, camera: str, session: str, step: int, part: str, ago_ns: int, repeat: bool = False
    ) -> None:
        number = max(1, self.highest[(camera, "plc", session)] + step)
        trigger = Trigger(camera, "plc", session, number, part, self.wall_us, self.ns - ago_ns)
        self.send(trigger, repeat)

    @precondition(lambda self: self.known)
    @rule(data=st.data(), part=st.sampled_from("ab") | st.none(), repeat=st.booleans())
    def trigger_again(self, data: st.DataObject, part: str | None, repeat: bool) -> None:
        *key, first = data.draw(st.sampled_from(list(self.known)))
        self.send(Trigger(*key, part or first, self.wall_us, self.ns), repeat)

    def send(self, trigger: Trigger, repeat: bool) -> None:
        camera, start_ns = trigger.camera, trigger.triggered_ns
        room = QUEUE - sum(
            not (one.exposed or one.outcome or one.overdue(self.ns)) for one in self.owed[camera]
        )
        used = trigger.number <= self.highest[trigger.key[:3]]
        sender = Sender()
        answer = self.ledger.trigger(trigger, sender, repeat=repeat)
        # Whoever repeats what is being judged hears at once that its picture is there.
        taken = answer.part is not None and answer.part.grabbed_us is not None
        assert sender.acquired == ([1] if taken else [])
        if repeat and used:
            first = self.known.get(trigger.key)
            if isinstance(first, Past) and self.ns - first.judged_ns <= WINDOW_NS:
                assert (answer.kind, answer.part) == ("repeated", None)
                assert answer.verdict == first.verdict.told_again()
            elif isinstance(first, Past) or trigger.key not in self.known:
                assert (answer.kind, answer.part, answer.verdict) == ("expired", None, None)
            else:
                assert answer.part is not None
                assert first in (None, answer.part)
                draft = answer.part.draft
                conflict = draft is not None and draft.reason == "trigger_conflict"
                kind = "conflict" if conflict else "repeated"
                assert (answer.kind, answer.verdict) == (kind, None)
            return
        owed = Owed(camera, start_ns, trigger)
        if used:
            owed.outcome, owed.conflict = (Verdict.FAULT, "trigger_conflict"), True
        elif self.broken is not None:
            owed.outcome = (Verdict.FAULT, self.broken)
        elif room <= 0:
            owed.outcome = (Verdict.FAULT, "over_trigger")
        owed.accepted = owed.outcome is None
        refused = "conflict" if owed.conflict else "refused"
        assert answer.kind == ("accepted" if owed.accepted else refused)
        assert answer.part is not None
        self.know(trigger, answer.part)
        self.owed[camera].append(owed)
        if not owed.conflict:
            self.uncommitted.append(trigger)

    @rule(
        camera=CAMERAS,
        exposed=st.sampled_from([None, 0, 0, MS, 5 * MS, 30 * MS]),
        ago_ns=DELAYS_NS,
    )
    def frame(self, camera: str, exposed: int | None, ago_ns: int) -> None:
        since_ns = self.ns - ago_ns
        exposed_ns = None if exposed is None else since_ns - exposed
        part_id = f"f{next(self.numbers)}"
        part = self.ledger.expose(camera, exposed_ns, 1, part_id, since_ns)
        for sender in part.requests if part is not None else ():
            assert sender.acquired == [1]
        waiting = [one for one in self.owed[camera] if one.accepted and not one.exposed]
        if camera == "belt":
            assert (part is None) == (self.broken is not None)
            owed = Owed(camera, since_ns, None, part_id, exposed=True)
            if self.broken is not None:
                owed.outcome = (Verdict.FAULT, self.broken)
            self.owed[camera].append(owed)
        elif part is None:
            self.check_unused(waiting, exposed_ns, since_ns)
            return
        else:
            (owed,) = [one for one in waiting if one.trigger is part.trigger]
            assert owed.outcome is None
            assert not owed.overdue(self.ns)
            owed.exposed = True
            self.check_association(owed, waiting, exposed_ns, since_ns)
        if part is not None:
            self.pictured.append((part, owed))

    def check_association(
        self, owed: Owed, waiting: list[Owed], exposed_ns: int | None, since_ns: int
    ) -> None:
        """The picture is of this trigger's part, and of no other that could be meant."""
        later = waiting[waiting.index(owed) + 1 :]
        earlier = waiting[: waiting.index(owed)]
        assert all(one.outcome or one.overdue(self.ns) for one in earlier)
        if exposed_ns is None:
            return
        assert owed.start_ns <= exposed_ns
        for one in later:
            if one.outcome is None and not one.overdue(self.ns) and one.start_ns <= since_ns:
                assert not one.start_ns <= exposed_ns
                one.outcome = (Verdict.FAULT, "over_trigger")

    def check_unused(self, waiting: list[Owed], exposed_ns: int | None, since_ns: int) -> None:
        """A picture is thrown away for one of the reasons allowed."""
        able = [one for one in waiting if one.outcome is None and not one.overdue(self.ns)]
        if not able or (exposed_ns is not None and exposed_ns < able[0].start_ns):
            return
        assert exposed_ns is not None
        crowd = [one for one in able[1:] if one.start_ns <= since_ns]
        assert any(one.start_ns <= exposed_ns for one in crowd)
        able[0].exposed = True
        for one in (able[0], *crowd):
            one.outcome = (Verdict.FAULT, "over_trigger")

    @precondition(lambda self: self.pictured)
    @rule(data=st.data(), verdict=st.sampled_from(list(RESULTS)), ago_ns=DELAYS_NS)
    def result(self, data: st.DataObject, verdict: Verdict, ago_ns: int) -> None:
        """Also for parts that have their verdict already."""
        part, owed = data.draw(st.sampled_from(self.pictured))
        self.judge(part, owed, verdict, ago_ns)

    @rule(camera=CAMERAS, verdict=st.sampled_from(list(RESULTS)), took_ns=st.integers(0, 60 * MS))
    def part(self, camera: str, verdict: Verdict, took_ns: int) -> None:
        """What a station sees all day."""
        if camera != "belt":
            self.trigger(camera, "s1", 1, "a", 0)
        self.ns += MS
        before = len(self.pictured)
        self.frame(camera, 0, 0)
        self.ns += took_ns
        for part, owed in self.pictured[before:]:
            self.judge(part, owed, verdict, took_ns)

    @rule(camera=SOFTWARE, moves=st.lists(st.sampled_from("tf."), min_size=2, max_size=6))
    def burst(self, camera: str, moves: list[str]) -> None:
        for move in moves:
            if move == "t":
                self.trigger(camera, "s2", 1, "a", 0)
            elif move == "f":
                self.frame(camera, 0, 0)
            self.ns += MS

    def judge(self, part: Part, owed: Owed, verdict: Verdict, ago_ns: int) -> None:
        self.ledger.judged(part, RESULTS[verdict], self.ns - ago_ns)
        owed.judged_by = owed.judged_by or self.recipe
        if owed.outcome is None and not owed.settled:
            if owed.overdue(self.ns) and verdict is not Verdict.FAULT:
                owed.outcome = (Verdict.FAULT, "deadline_missed")
            else:
                owed.outcome = (verdict, RESULTS[verdict].reason.value)

    @precondition(lambda self: self.pictured)
    @rule(data=st.data())
    def fault(self, data: st.DataObject) -> None:
        part, owed = data.draw(st.sampled_from(self.pictured))
        self.ledger.fault(part, Reason.QUEUE_FULL, "")
        if not owed.settled:
            owed.outcome = owed.outcome or (Verdict.FAULT, "queue_full")

    @rule(ns=st.integers(0, 60 * MS))
    def pass_time(self, ns: int) -> None:
        self.ns += ns

    @rule(
        what=st.sampled_from(["lose", "find", "leave", "return", "clock", "crash", "restart"]),
        camera=CAMERAS,
        step_us=st.integers(-(10**14), 10**14),
    )
    def disturb(self, what: str, camera: str, step_us: int) -> None:
        if what == "lose":
            self.lose(camera)
        elif what == "find":
            self.ledger.note_camera(camera, "running")
        elif what == "clock":
            self.wall_us = max(0, self.wall_us + step_us)
        elif what in {"crash", "restart"}:
            if what == "restart":
                self.commit()
            # What was not committed was neither acknowledged nor published.
            self.uncommitted = []
            self.start_epoch()
        elif what == "leave" and self.broken is None:
            self.broken = "journal_failed"
            self.ledger.enter("Error", Reason.JOURNAL_FAILED, "disk full")
            for owed in itertools.chain(*self.owed.values()):
                # Overdue, it may have had its FAULT before.
                if owed.overdue(self.ns):
                    owed.reasons = {*owed.reasons, self.broken}
                    owed.settled = True
                else:
                    owed.outcome = owed.outcome or (Verdict.FAULT, self.broken)
        elif what == "return" and self.broken is not None:
            self.come_back()

    def lose(self, camera: str) -> None:
        self.ledger.note_camera(camera, "lost", "unplugged")
        self.ledger.lost(camera, "unplugged")
        if camera == "belt":
            self.owed[camera].append(Owed(camera, self.ns, outcome=(Verdict.FAULT, "camera_lost")))
        for owed in self.owed[camera]:
            if not owed.exposed and not owed.overdue(self.ns):
                owed.outcome = owed.outcome or (Verdict.FAULT, "camera_lost")

    @precondition(lambda self: self.broken is not None)
    @rule()
    def come_back(self) -> None:
        for state in ("Preoperational", "Initialized", "Ready"):
            self.ledger.enter(state)
        self.ledger.start()
        self.broken = None

    @rule()
    def close(self) -> None:
        for verdict, part in self.ledger.close():
            self.seq += 1
            assert verdict.seq == self.seq
            assert verdict.epoch == self.ledger.epoch
            owed = self.owed[verdict.camera].pop(0)
            assert part.trigger is owed.trigger
            for sender in part.requests:
                assert sender.acquired == ([] if verdict.grabbed_us is None else [1])
            if owed.trigger is not None:
                assert trigger_of(verdict).key == owed.trigger.key
                if owed.conflict:
                    self.conflicts.add((verdict.epoch, verdict.seq))
                if self.known[owed.trigger.key] in (None, part):
                    self.known[owed.trigger.key] = Past(verdict, part.settled_ns)
            elif owed.part_id:
                assert verdict.part_id == owed.part_id
            if owed.outcome is not None:
                assert (verdict.verdict, verdict.reason) == owed.outcome
            else:
                assert verdict.verdict is Verdict.FAULT
                assert owed.overdue(self.ns)
                assert verdict.reason in owed.reasons
                assert verdict.reason != "camera_lost" or not owed.exposed
            if verdict.verdict is not Verdict.FAULT:
                judged_by = owed.judged_by, f"{owed.judged_by}-{verdict.camera}"
                assert verdict.model is not None
                assert (verdict.recipe, verdict.model.name) == judged_by
            self.uncommitted.append(verdict)
            self.published[verdict.seq] = verdict
        for line in self.owed.values():
            assert not line or not (line[0].outcome or line[0].overdue(self.ns))

    @rule()
    def wait_for_the_next(self) -> None:
        due_ns = self.ledger.next_due_ns()
        assert (due_ns is None) == (not any(self.owed.values()))
        if due_ns is not None:
            settled = any(line and line[0].outcome for line in self.owed.values())
            assert not settled or due_ns <= self.ns
            self.ns = max(self.ns, due_ns)
            before = self.seq
            self.close()
            assert self.seq > before

    @rule(recipe=st.sampled_from("rs"))
    def change_over(self, recipe: str) -> None:
        """Between two parts; those that wait for the judge are judged by the new one."""
        self.recipe = recipe
        self.ledger.select(recipe)
        for camera in DEADLINES_MS:
            model = ModelField(name=f"{recipe}-{camera}", version="1", sha256="0" * 64)
            self.ledger.install(camera, model)

    @precondition(lambda self: any(isinstance(one, VerdictMessage) for one in self.uncommitted))
    @rule(data=st.data(), reason=st.sampled_from(["journal_failed", "deadline_missed"]))
    def amend(self, data: st.DataObject, reason: str) -> None:
        """The journal failed, or took it too late: another verdict went out under its number."""
        choice = [one for one in self.uncommitted if isinstance(one, VerdictMessage)]
        verdict = data.draw(st.sampled_from(choice))
        fault = {"verdict": Verdict.FAULT, "score": None, "regions": (), "reason": reason}
        published = verdict.model_copy(update=fault)
        self.ledger.amend(verdict, published)
        self.uncommitted[self.uncommitted.index(verdict)] = published
        self.published[verdict.seq] = published
        if trigger := trigger_of(verdict):
            known = self.known[trigger.key]
            if isinstance(known, Past) and known.verdict == verdict:
                self.known[trigger.key] = known._replace(verdict=published)
                assert self.ledger.find(trigger) == published.told_again()

    @rule()
    def commit(self) -> None:
        self.journal += self.uncommitted
        self.uncommitted = []

    @invariant()
    def counts_add_up(self) -> None:
        status = self.ledger.status()
        assert status.passed + status.failed + status.faults == status.last_seq == self.seq
        kinds = Counter(one.verdict for one in self.published.values())
        reasons = Counter(one.reason for one in self.published.values())
        told = status.passed, status.failed, status.faults
        assert told == tuple(kinds[verdict] for verdict in Verdict)
        assert status.overruns == sum(reasons[reason] for reason in OVERRUNS)
        assert status.over_triggers == reasons["over_trigger"]
        assert status.recipe == self.recipe

    def teardown(self) -> None:
        while any(self.owed.values()):
            self.wait_for_the_next()
        self.commit()
        accepted = [item for item in self.journal if isinstance(item, Trigger)]
        verdicts = [item for item in self.journal if isinstance(item, VerdictMessage)]
        firsts = [one for one in verdicts if (one.epoch, one.seq) not in self.conflicts]
        answers = Counter(trigger.key for verdict in firsts if (trigger := trigger_of(verdict)))
        assert answers == Counter(trigger.key for trigger in accepted)
        assert set(answers.values()) <= {1}
        for _, group in itertools.groupby(verdicts, lambda verdict: verdict.epoch):
            seqs = [verdict.seq for verdict in group]
            assert seqs == list(range(1, len(seqs) + 1))
        for camera in DEADLINES_MS:
            order = [one.key for one in accepted if one.camera == camera]
            answered = [trigger_of(one).key for one in firsts if one.camera == camera != "belt"]
            assert answered == order[: len(answered)] or camera == "belt"


TestLedger = LedgerMachine.TestCase
TestLedger.settings = settings(max_examples=100, stateful_step_count=60)


@given(
    st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(1, 8), st.sampled_from("xy"))),
    st.integers(1, 4),
)
def test_memory_is_that_of_the_last_triggers_and_sessions(sent, size):
    memory: TriggerMemory[int] = TriggerMemory(size)
    items: OrderedDict[tuple, int] = OrderedDict()
    sessions: OrderedDict[str, int] = OrderedDict()
    for i, (session, number, part) in enumerate(sent):
        trigger = Trigger("gate", "plc", session, number, part, 0, 0)
        assert memory.find(trigger) == items.get((session, number, part))
        assert memory.is_used(trigger) == (number <= sessions.get(session, 0))
        if memory.find(trigger) is not None:
            assert memory.find(trigger) is not None
            memory.replace(trigger, -1, 0)
            memory.replace(trigger, items[session, number, part], i)
            items[session, number, part] = i
            continue
        memory.add(trigger, i)
        items[session, number, part] = i
        sessions[session] = max(number, sessions.pop(session, 0))
        items = OrderedDict(list(items.items())[-size:])
        sessions = OrderedDict(list(sessions.items())[-size:])


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(1, 8), st.sampled_from("xy"))))
def test_what_is_remembered_is_never_taken_for_new(sent):
    memory: TriggerMemory[int] = TriggerMemory(3)
    for i, (session, number, part) in enumerate(sent):
        trigger = Trigger("gate", "plc", session, number, part, 0, 0)
        if memory.find(trigger) is None:
            memory.add(trigger, i)
        else:
            assert memory.is_used(trigger)
        forgotten = Trigger("gate", "plc", "other", 1, "x", 0, 0)
        memory.replace(forgotten, i, i)
        assert memory.find(forgotten) is None
