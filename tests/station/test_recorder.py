from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pytest

from inspector.errors import JournalError
from inspector.journal.schema import Deed, Delivered, Kept, LimitInForce, StopOrder
from inspector.station import recorder as recorder_module
from inspector.station.recorder import (
    KeepEntry,
    Recorder,
    ReportEntry,
    StallWatch,
    Timing,
    TriggerEntry,
    VerdictEntry,
)
from inspector.station.triggers import Trigger
from inspector.verdict import Verdict
from inspector.wire.messages import StatusMessage, VerdictMessage, encode
from tests import stations

TRIGGER = Trigger("top", "plc", "s", 1, "p1", 5, 5)


class Disk:
    """Keeps what is committed; full or slow when told so."""

    def __init__(self) -> None:
        self.kept: list[VerdictMessage] = []
        self.bodies: set[bytes] = set()
        self.triggers: list[Trigger] = []
        self.commits = 0
        self.in_force: list[tuple[Kept | None, Deed | None]] = []
        self.groups: list[tuple[int, int]] = []
        """Verdicts and reports of each commit."""
        self.full = False
        self.gone = False
        self.gate = threading.Event()
        self.gate.set()

    def commit(
        self,
        triggers: Sequence[Trigger],
        verdicts: Sequence[VerdictMessage],
        reports: Sequence[Delivered] = (),
    ) -> Sequence[Delivered]:
        assert self.gate.wait(20)
        if self.full:
            raise JournalError("disk full")
        self.commits += 1
        self.triggers += triggers
        self.kept += verdicts
        self.bodies |= set(map(encode, verdicts))
        self.groups.append((len(verdicts), len(reports)))
        return [one for one in reports if one.epoch == "unknown"]

    def keep(self, kept: Kept | None, deed: Deed | None = None) -> None:
        if self.full:
            raise JournalError("disk full")
        self.in_force.append((kept, deed))

    def tend(self) -> None:
        if self.gone:
            raise JournalError("the file was deleted")


class Wire:
    """Remembers, for each verdict, how much was on the disk when it was sent."""

    def __init__(self, disk: Disk) -> None:
        self.disk = disk
        self.sent: list[VerdictMessage] = []
        self.early: list[int] = []

    def send_verdict(self, message: VerdictMessage) -> None:
        if encode(message) not in self.disk.bodies:
            self.early.append(message.seq)
        self.sent.append(message)

    def send_status(self, message: StatusMessage) -> None:
        pass


@contextmanager
def at_work(disk: Disk, on_group: Callable[[Timing], None] = lambda _: None) -> Iterator[tuple]:
    wire, troubles = Wire(disk), []
    recorder = Recorder(disk, wire, troubles.append, on_group)
    recorder.start()
    try:
        yield recorder, wire, troubles
    finally:
        disk.gate.set()
        recorder.finish()
        assert not recorder.crashed


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10.0
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_nothing_is_published_or_answered_before_it_is_recorded():
    disk = Disk()
    answered: list[int] = []
    with at_work(disk) as (recorder, wire, _):
        disk.gate.clear()
        for seq in range(1, 6):
            recorder.put(
                VerdictEntry(
                    stations.verdict(seq),
                    then=lambda verdict, recorded: answered.append(verdict.seq),
                )
            )
        time.sleep(0.1)
        assert wire.sent == [] and answered == []
        disk.gate.set()
        wait_until(lambda: len(wire.sent) == 5)
    assert wire.early == []
    assert answered == [1, 2, 3, 4, 5]


def test_what_waits_during_a_commit_is_one_commit():
    disk, groups = Disk(), []
    with at_work(disk, groups.append) as (recorder, wire, _):
        disk.gate.clear()
        recorder.put(VerdictEntry(stations.verdict(1)))
        wait_until(lambda: recorder.lag == 1)
        for seq in range(2, 102):
            recorder.put(VerdictEntry(stations.verdict(seq)))
        disk.gate.set()
        wait_until(lambda: len(wire.sent) == 101)
    assert disk.commits <= 3
    assert sum(group.verdicts for group in groups) == 101
    assert [verdict.seq for verdict in wire.sent] == list(range(1, 102))


def test_what_cannot_be_recorded_is_a_fault_and_recorded_as_one_later():
    disk = Disk()
    acknowledged: list[bool] = []
    with at_work(disk) as (recorder, wire, troubles):
        disk.full = True
        recorder.put(TriggerEntry(TRIGGER, acknowledged.append))
        recorder.put(VerdictEntry(stations.verdict(1)))
        recorder.put(VerdictEntry(stations.verdict(2)))
        wait_until(lambda: len(wire.sent) == 2)
        assert [(v.verdict, v.score, v.reason) for v in wire.sent] == [
            (Verdict.FAULT, None, "journal_failed")
        ] * 2
        assert troubles == ["disk full"]
        assert recorder.lag == 2
        disk.full = False
        wait_until(lambda: len(disk.kept) == 2)
        assert disk.kept == wire.sent
        recorder.put(VerdictEntry(stations.verdict(3)))
        wait_until(lambda: len(wire.sent) == 3)
    assert troubles == ["disk full", ""]
    assert acknowledged == [False]
    assert wire.sent[2].verdict is Verdict.PASS


def test_what_waits_is_recorded_before_the_end():
    disk = Disk()
    with at_work(disk) as (recorder, wire, _):
        for seq in range(1, 2501):
            recorder.put(VerdictEntry(stations.verdict(seq)))
    assert len(disk.kept) == len(wire.sent) == 2500


def test_what_the_journal_takes_after_its_deadline_is_a_fault():
    disk = Disk()
    with at_work(disk) as (recorder, wire, _):
        disk.gate.clear()
        recorder.put(VerdictEntry(stations.verdict(1)))
        wait_until(lambda: recorder.stalled_s > 0)
        due_ns = time.monotonic_ns() + 50_000_000
        recorder.put(VerdictEntry(stations.verdict(2), deadline_ns=due_ns))
        recorder.put(VerdictEntry(stations.verdict(3), deadline_ns=due_ns + 60_000_000_000))
        time.sleep(0.1)
        disk.gate.set()
        wait_until(lambda: len(wire.sent) == 3)
        assert recorder.stalled_s == 0.0
    assert [v.reason for v in wire.sent] == ["", "deadline_missed", ""]
    assert disk.kept == wire.sent


def test_a_stall_is_the_disk_s_only_while_the_station_runs():
    now = [100.0]
    watch = StallWatch(lambda: now[0])
    shown: list[float] = []
    # Seconds that passed, and what the recorder then says of the commit under way.
    for passed_s, stalled_s in ((0.1, 0.05), (2.5, 2.55), (0.2, 2.75), (0.1, 0.0), (0.1, 0.1)):
        now[0] += passed_s
        shown.append(round(watch.look(stalled_s), 9))
    # Of the 2.5 s in which the process was stopped, half a second counts.
    assert shown == [0.05, 0.55, 0.75, 0.0, 0.1]


def test_a_disk_that_stalls_is_seen_in_time_whatever_a_pass_takes():
    now = [0.0]
    watch = StallWatch(lambda: now[0])
    for _ in range(20):
        now[0] += 0.1
        stalled_s = watch.look(now[0])
    assert stalled_s == pytest.approx(2.0)


def slow_to_sync(disk: Disk, monkeypatch: pytest.MonkeyPatch, **slow_s: float) -> None:
    """Have the commits of a PASS or a FAULT take so long."""
    commit = disk.commit

    def committed(triggers: Sequence[Trigger], verdicts: Sequence[VerdictMessage]) -> None:
        for verdict in verdicts:
            time.sleep(slow_s.get(verdict.verdict.value, 0.0))
        commit(triggers, verdicts)

    monkeypatch.setattr(disk, "commit", committed)


def due(ms: float) -> int:
    return time.monotonic_ns() + round(ms * 1e6)


def test_what_is_late_after_its_commit_is_overwritten_before_it_goes_out(monkeypatch):
    disk = Disk()
    slow_to_sync(disk, monkeypatch, PASS=0.1, FAULT=0.3)
    told: list[tuple[str, bool]] = []
    with at_work(disk) as (recorder, wire, _):
        recorder.put(
            VerdictEntry(
                stations.verdict(1),
                due(50),
                lambda verdict, recorded: told.append((verdict.reason, recorded)),
            )
        )
        wait_until(lambda: [one.reason for one in disk.kept] == [""])
        # The PASS is on the disk, and its FAULT on its way there.
        assert (wire.sent, told, recorder.published) == ([], [], 0)
        wait_until(lambda: recorder.published == 1)
        recorder.put(VerdictEntry(stations.verdict(2), due(60_000)))
        wait_until(lambda: recorder.published == 2)
    assert [(one.seq, one.verdict.value, one.score, one.reason) for one in wire.sent] == [
        (1, "FAULT", None, "deadline_missed"),
        (2, "PASS", 0.5, ""),
    ]
    assert told == [("deadline_missed", True)]
    assert [(one.seq, one.reason) for one in disk.kept] == [
        (1, ""),
        (1, "deadline_missed"),
        (2, ""),
    ]
    assert wire.early == []


def test_late_verdict_that_cannot_be_overwritten_is_no_pass_and_no_record(monkeypatch):
    disk = Disk()
    commit = disk.commit

    def committed(triggers: Sequence[Trigger], verdicts: Sequence[VerdictMessage]) -> None:
        time.sleep(0.05)
        commit(triggers, verdicts)
        # What is written under a number that is taken finds the disk full.
        disk.full = not cured

    cured = False
    monkeypatch.setattr(disk, "commit", committed)
    with at_work(disk) as (recorder, wire, troubles):
        recorder.put(VerdictEntry(stations.verdict(1), due(20)))
        wait_until(lambda: len(wire.sent) == 1)
        assert (wire.sent[0].reason, troubles) == ("journal_failed", ["disk full"])
        assert (recorder.published, recorder.lag) == (0, 1)
        cured, disk.full = True, False
        wait_until(lambda: recorder.published == 1)
        assert troubles == ["disk full", ""]
    assert [one.reason for one in disk.kept] == ["", "journal_failed"]


def test_what_becomes_late_while_others_go_out_is_overwritten_too():
    disk = Disk()
    with at_work(disk) as (recorder, wire, _):
        disk.gate.clear()
        recorder.put(VerdictEntry(stations.verdict(1), then=lambda _, __: time.sleep(0.2)))
        recorder.put(VerdictEntry(stations.verdict(2), due(150)))
        recorder.put(VerdictEntry(stations.verdict(3), due(60_000)))
        disk.gate.set()
        wait_until(lambda: len(wire.sent) == 3)
    assert [one.reason for one in wire.sent] == ["", "deadline_missed", ""]
    assert wire.early == []


def test_nothing_is_accepted_while_nothing_can_be_recorded():
    """A repetition of what is on the disk adds nothing to it, and yet it waits for the disk."""
    disk = Disk()
    accepted: list[tuple[str, bool]] = []

    def put(recorder: Recorder, name: str, trigger: Trigger | None) -> None:
        recorder.put(TriggerEntry(trigger, lambda recorded: accepted.append((name, recorded))))
        wait_until(lambda: accepted[-1:] == [(name, not disk.full)])

    with at_work(disk) as (recorder, _, __):
        put(recorder, "first", TRIGGER)
        disk.full = True
        put(recorder, "second", TRIGGER)
        put(recorder, "has its verdict", None)
        disk.full = False
        put(recorder, "second again", TRIGGER)
        put(recorder, "has its verdict still", None)


def test_what_is_never_recorded_is_counted_and_told(monkeypatch, caplog):
    monkeypatch.setattr(recorder_module, "_MOST_UNRECORDED", 3)
    caplog.set_level(logging.ERROR, "inspector")
    disk = Disk()
    disk.full = True
    with at_work(disk) as (recorder, wire, _):
        for seq in range(1, 6):
            recorder.put(VerdictEntry(stations.verdict(seq)))
        wait_until(lambda: len(wire.sent) == 5)
        assert recorder.forgotten == 2
        assert caplog.messages == [
            'forgotten detail="3 verdicts wait for the journal; the oldest are given up"'
        ]
        disk.full = False
        wait_until(lambda: len(disk.kept) == 3)
        assert [verdict.seq for verdict in disk.kept] == [3, 4, 5]
        wait_until(lambda: caplog.messages[1:] == ["forgotten verdicts=2"])


@pytest.mark.parametrize("cured", [False, True])
def test_what_waits_at_the_end_is_tried_once_more(caplog, cured):
    caplog.set_level(logging.ERROR, "inspector")
    disk = Disk()
    disk.full = True
    with at_work(disk) as (recorder, wire, _):
        recorder.put(VerdictEntry(stations.verdict(1)))
        wait_until(lambda: len(wire.sent) == 1)
        disk.full = not cured
    assert recorder.forgotten == (0 if cured else 1)
    assert disk.kept == (wire.sent if cured else [])
    assert caplog.messages == ([] if cured else ["forgotten verdicts=1"])


def test_journal_that_has_gone_is_told_while_nothing_is_recorded():
    disk = Disk()
    with at_work(disk) as (_recorder, _wire, troubles):
        time.sleep(0.1)
        assert troubles == []
        disk.gone = True
        began = time.monotonic()
        wait_until(lambda: troubles == ["the file was deleted"])
        assert time.monotonic() - began < 2.0
        disk.gone = False
        wait_until(lambda: troubles == ["the file was deleted", ""])


def test_journal_that_has_gone_works_again_only_once_what_waits_is_recorded():
    disk = Disk()
    with at_work(disk) as (recorder, wire, troubles):
        disk.gone = disk.full = True
        recorder.put(VerdictEntry(stations.verdict(1)))
        wait_until(lambda: len(wire.sent) == 1)
        disk.gone = False
        time.sleep(1.5)
        assert troubles == ["disk full"]
        disk.full = False
        wait_until(lambda: troubles == ["disk full", ""])
    assert disk.kept == wire.sent


def report(seq: int, epoch: str = "epoch-1") -> Delivered:
    return Delivered(epoch, seq, "plc", "acknowledged", 5)


def test_reports_go_into_the_next_commit_of_verdicts():
    disk = Disk()
    told: list[bool | None] = []
    with at_work(disk) as (recorder, wire, _):
        # Wait for the first second's housekeeping, so that the next is a second away.
        wait_until(lambda: recorder._tended_s > 0)
        recorder.put(VerdictEntry(stations.verdict(1)))
        wait_until(lambda: len(wire.sent) == 1)
        for seq in range(1, 251):
            recorder.put(ReportEntry(report(seq), told.append))
        recorder.put(ReportEntry(report(1, "unknown"), told.append))
        wait_until(lambda: not recorder._waiting)
        for seq in (2, 3, 4):
            recorder.put(VerdictEntry(stations.verdict(seq)))
            wait_until(lambda seq=seq: len(wire.sent) == seq)
        wait_until(lambda: len(told) == 251)
    # No commit had reports alone, and none so many that verdicts wait for them.
    assert disk.groups == [(1, 0), (1, 100), (1, 100), (1, 51)]
    assert told == [True] * 250 + [False]


def test_reports_on_an_idle_line_are_recorded_within_a_second_or_refused():
    disk = Disk()
    told: list[bool | None] = []
    with at_work(disk) as (recorder, _, troubles):
        recorder.put(ReportEntry(report(1), told.append))
        wait_until(lambda: told == [True])
        disk.full = True
        recorder.put(ReportEntry(report(2), told.append))
        wait_until(lambda: told == [True, None])
        assert troubles == ["disk full"]
        disk.full = False
        recorder.put(VerdictEntry(stations.verdict(1)))
        recorder.put(ReportEntry(report(2), told.append))
    # Also at the stop.
    assert told == [True, None, True]
    assert sum(reports for _, reports in disk.groups) == 2


def test_a_verdict_is_published_before_the_reports_of_its_commit_are_answered():
    disk = Disk()
    order: list[str] = []
    with at_work(disk) as (recorder, _, _):
        disk.gate.clear()
        recorder.put(VerdictEntry(stations.verdict(1)))
        wait_until(lambda: recorder.lag == 1)
        recorder.put(ReportEntry(report(1), lambda _: order.append("report")))
        recorder.put(
            VerdictEntry(stations.verdict(2), then=lambda verdict, _: order.append("verdict"))
        )
        disk.gate.set()
        wait_until(lambda: len(order) == 2)
    assert order == ["verdict", "report"]


def test_no_deed_and_no_limit_is_lost_while_nothing_can_be_recorded():
    disk = Disk()
    disk.full = True
    told: list[bool] = []
    kept = [
        (LimitInForce("line-1", "r", "top", 1.2, 1.0), Deed(1, "limit", "", "Li", "r/top")),
        (LimitInForce("line-1", "r", "side", 0.8, 1.0), Deed(2, "limit", "", "Li", "r/side")),
        (StopOrder("line-1", 3), Deed(3, "stop", "", "Ann")),
        (StopOrder("line-1", None), Deed(4, "start", "", "Ann")),
        (None, Deed(5, "reset", "", "Ann")),
    ]
    with at_work(disk) as (recorder, wire, _):
        for what, deed in kept:
            recorder.put(KeepEntry(what, told.append, deed))
        wait_until(lambda: told == [False] * 5)
        assert disk.in_force == []
        disk.full = False
        recorder.put(VerdictEntry(stations.verdict(1)))
        wait_until(lambda: len(wire.sent) == 1)
        # All of them, in their order, and before the verdict that came after them.
        assert disk.in_force == kept
