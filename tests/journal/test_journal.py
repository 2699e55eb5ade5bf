from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from inspector.errors import JournalError
from inspector.journal import recovery, schema
from inspector.journal.reader import Reader
from inspector.journal.schema import FILE, Delivered, StopOrder, TriggerRow
from inspector.journal.writer import Journal
from inspector.verdict import Reason
from inspector.wire.messages import ReplayCommand, VerdictMessage, encode
from inspector.wire.replay import read_replay
from tests.records import EPOCH, NOW_US, answer, trigger, verdict

DAY_US = 86_400_000_000


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    # No retention: the verdicts of these tests are old.
    with contextlib.closing(Journal(tmp_path, verdict_days=36_500)) as opened:
        opened.begin(EPOCH, NOW_US)
        yield opened


@pytest.fixture
def reader(journal: Journal, tmp_path: Path) -> Iterator[Reader]:
    with Reader(tmp_path) as opened:
        yield opened


def seqs(found: list[bytes]) -> list[int]:
    return [json.loads(each)["seq"] for each in found]


def test_what_is_read_is_what_was_published(journal: Journal, reader: Reader) -> None:
    odd = [
        verdict(1, part_id="Blech-Ä\u2028\0", detail='"'),
        verdict(2, verdict="FAULT", score=None, reason="camera_lost", model=None),
        verdict(3, regions=({"x": 1, "y": 2, "w": 3, "h": 4, "peak": 1.5},) * 32),
    ]
    journal.commit([], odd)
    assert reader.verdicts(EPOCH, 1, None, 10) == [encode(each) for each in odd]
    assert reader.count() == 3


def test_ranges_and_limits(journal: Journal, reader: Reader) -> None:
    journal.commit([], [verdict(seq) for seq in range(1, 51)])
    assert seqs(reader.verdicts(EPOCH, 7, 9, 100)) == [7, 8, 9]
    assert seqs(reader.verdicts(EPOCH, 0, None, 3)) == [1, 2, 3]
    assert seqs(reader.verdicts(EPOCH, 48, 10**15, 100)) == [48, 49, 50]
    assert reader.verdicts(EPOCH, 51, None, 5) == reader.verdicts("other", 1, None, 5) == []


def test_epochs_never_mix(journal: Journal, reader: Reader) -> None:
    journal.commit([], [verdict(seq) for seq in range(1, 6)])
    journal.begin("second", NOW_US)
    assert reader.epochs() == [(EPOCH, 5), ("second", 0)]
    journal.begin("third", NOW_US)
    journal.commit([], [verdict(seq, epoch="third") for seq in range(1, 4)])
    assert reader.epochs() == [(EPOCH, 5), ("second", 0), ("third", 3)]
    assert seqs(reader.verdicts(EPOCH, 1, 10**15, 100)) == [1, 2, 3, 4, 5]
    assert reader.verdicts("second", 1, None, 100) == []
    assert reader.following(EPOCH) == "third"
    assert reader.following("third") is None
    with pytest.raises(LookupError):
        reader.following("unknown")
    assert len(list(reader.walk())) == 8


def test_since_a_moment(journal: Journal, reader: Reader) -> None:
    journal.commit([], [verdict(seq) for seq in range(1, 2501)])
    journal.begin("second", NOW_US)
    journal.commit([], [verdict(1, epoch="second", judged_us=NOW_US + 9_000_000_000)])
    for seq in (1, 2, 1234, 2500):
        at = NOW_US + seq * 1_000_000
        assert seqs(reader.since(at, 2)) == ([seq, seq + 1] if seq < 2500 else [2500, 1])
        assert seqs(reader.since(at - 1, 1)) == [seq]
    assert len(reader.since(0, 10_000)) == 2501
    assert reader.since(NOW_US + 9_000_000_001, 10) == []


def test_since_survives_a_clock_that_jumps(journal: Journal, reader: Reader) -> None:
    ahead = [NOW_US + s * 1_000_000 for s in (1, 2, 5000, 5001, 5, 6, 7)]
    journal.commit([], [verdict(i + 1, judged_us=us) for i, us in enumerate(ahead)])
    # What was judged while the clock stood ahead belongs to what came after 3 s, too.
    assert seqs(reader.since(NOW_US + 3_000_000, 100)) == [3, 4, 5, 6, 7]
    # Wrong in one epoch, it is right again in the next.
    journal.begin("second", NOW_US)
    late = NOW_US + 100_000_000
    journal.commit([], [verdict(i, epoch="second", judged_us=late + i) for i in (1, 2, 3)])
    found = reader.since(late + 2, 100)
    assert [seq for seq, each in zip(seqs(found), found, strict=True) if b"second" in each] == [
        2,
        3,
    ]


def test_reader_sees_commits_as_they_come(journal: Journal, reader: Reader) -> None:
    for seq in range(1, 20):
        journal.commit([], [verdict(seq)])
        assert reader.epochs() == [(EPOCH, seq)]


def test_commit_is_all_or_nothing(journal: Journal, reader: Reader) -> None:
    journal.commit([], [verdict(1)])
    with pytest.raises(JournalError, match="not written: UNIQUE"):
        journal.commit([trigger(5)], [verdict(2), verdict(1)])
    assert reader.count() == 1
    assert journal.begin("next", NOW_US).unanswered == ()


def test_fault_takes_the_place_of_a_late_verdict_and_nothing_else_does(
    journal: Journal, reader: Reader
) -> None:
    judged = [verdict(seq) for seq in range(1, 4)]
    journal.commit([], judged)
    late = judged[1].overruled(Reason.DEADLINE_MISSED, "too late")
    journal.commit([], [late, verdict(4)])
    with pytest.raises(JournalError, match="not written"):
        journal.commit([], [judged[1]])
    with pytest.raises(JournalError, match="not written"):
        journal.commit([], [verdict(1, verdict="FAIL", score=1.5, reason="anomaly")])
    wanted = [judged[0], late, judged[2], verdict(4)]
    assert reader.verdicts(EPOCH, 1, None, 10) == [encode(one) for one in wanted]
    # A moment can still be searched for.
    assert seqs(reader.since(late.judged_us, 10)) == [2, 3, 4]


def test_what_is_not_published_yet_is_not_read(journal: Journal, tmp_path: Path) -> None:
    journal.commit([], [verdict(seq) for seq in range(1, 4)])
    journal.begin("second", NOW_US)
    journal.commit([], [verdict(seq, epoch="second") for seq in range(1, 4)])
    published = 0
    with Reader(tmp_path, published=lambda: ("second", published)) as reader:
        for published in range(4):
            until = list(range(1, published + 1))
            assert seqs(reader.verdicts("second", 1, None, 10)) == until
            assert seqs(reader.verdicts("second", 1, 10**15, 10)) == until
            assert seqs(reader.since(0, 10)) == [1, 2, 3, *until]
            assert reader.epochs() == [(EPOCH, 3), ("second", published)]
            assert reader.following(EPOCH) == ("second" if published else None)
            assert seqs(reader.verdicts(EPOCH, 1, None, 10)) == [1, 2, 3]


def test_verdicts_of_schema_1_are_read_and_answer_their_triggers(
    journal: Journal, reader: Reader
) -> None:
    """As version 0.1 recorded them, by the byte."""
    fields = json.loads(encode(answer(1, trigger(7))))
    for name in ("sent_us", "repeated"):
        del fields[name]
    old = json.dumps(fields | {"schema": 1})
    with contextlib.closing(sqlite3.connect(reader._path)) as db, db:
        db.execute(
            "INSERT INTO verdict VALUES (?, ?, ?)", (schema.PLACES_PER_EPOCH + 1, NOW_US, old)
        )
    assert reader.verdicts(EPOCH, 1, None, 10) == [old.encode()]
    reply, found = read_replay(reader, ReplayCommand(epoch=EPOCH))
    assert (reply.kind, found) == ("replayed", [old.encode()])
    (known,) = journal.begin("second", NOW_US).answered
    assert (known.schema_, known.trigger_seq, known.repeated) == (1, 7, False)
    again = json.loads(encode(known.told_again()))
    assert (again["schema"], again["repeated"], again["seq"]) == (2, True, 1)


def test_unanswered_triggers_come_back_until_they_are_answered(tmp_path: Path) -> None:
    asked = [
        trigger(1),
        trigger(2, lot="lot \udcff", purpose="study"),
        trigger(2, client="other"),
        trigger(2, session="s2"),
        trigger(2, camera="side"),
        trigger(2, part_id="odd\udcff"),
    ]
    with contextlib.closing(Journal(tmp_path)) as journal:
        journal.begin(EPOCH, 1)
        journal.commit(asked, [])
        journal.commit([], [answer(1, asked[0])])
        # In the same commit as its answer, and twice: nothing is left open.
        journal.commit([trigger(7), trigger(7)], [answer(2, trigger(7))])
    for epoch in ("second", "third"):
        with contextlib.closing(Journal(tmp_path)) as journal:
            recovered = journal.begin(epoch, 2)
        assert len(recovered.unanswered) == 5
        assert [row.key for row in recovered.unanswered[:-1]] == [t.key for t in asked[1:-1]]
        assert recovered.unanswered[0] == TriggerRow(
            "top", "plc", "s1", 2, "part-2", NOW_US, "lot \\udcff", "study"
        )
        # As a verdict carries it.
        assert recovered.unanswered[-1].part_id == "odd\\udcff"
    with contextlib.closing(Journal(tmp_path)) as journal:
        left = journal.begin("fourth", 3).unanswered
        late = [
            verdict(
                seq,
                epoch="fourth",
                camera=row.camera,
                client=row.client,
                session=row.session,
                trigger_seq=row.number,
                part_id=row.part_id,
            )
            for seq, row in enumerate(left, 1)
        ]
        journal.commit([], late)
        assert journal.begin("fifth", 4).unanswered == ()


def test_last_answers_are_remembered_over_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery, "_REMEMBERED", 30)
    with contextlib.closing(Journal(tmp_path)) as journal:
        journal.begin(EPOCH, 1)
        both = [answer(s, trigger(s)) if s % 2 else verdict(s) for s in range(1, 101)]
        journal.commit([], both)
        found = journal.begin("second", 2).answered
    assert [each.trigger_seq for each in found] == list(range(71, 101, 2))
    assert all(isinstance(each, VerdictMessage) for each in found)


def old(seq: int, days: float, **changes: object) -> VerdictMessage:
    return verdict(seq, judged_us=time.time_ns() // 1000 - round(days * DAY_US), **changes)


def test_old_verdicts_go_two_for_each_new_one(tmp_path: Path) -> None:
    with contextlib.closing(Journal(tmp_path, verdict_days=30)) as journal:
        journal.begin("empty", 1)
        journal.begin(EPOCH, 1)
        journal.commit([], [old(seq, 40 - seq / 10) for seq in range(1, 151)])
        journal.begin("second", 2)
        with Reader(tmp_path) as reader:
            # An epoch without a verdict is forgotten once later ones have some.
            assert reader.epochs() == [(EPOCH, 150), ("second", 0)]
            left = []
            for seq in range(1, 61):
                journal.commit([], [old(seq, 0, epoch="second")])
                left.append(len(reader.verdicts(EPOCH, 1, None, 1000)))
            # Seqs 1 to 100 were older than 30 days, or are now; the rest stays.
            assert left[:3] == [148, 146, 144]
            assert left[-1] in (50, 51)
            assert seqs(reader.verdicts(EPOCH, 1, None, 1000))[-1] == 150
            assert reader.epochs() == [(EPOCH, 150), ("second", 60)]


def test_clock_from_another_decade_does_not_stop_the_deleting(tmp_path: Path) -> None:
    with contextlib.closing(Journal(tmp_path, verdict_days=30)) as journal:
        journal.begin("future", 1)
        journal.commit([], [old(1, -3650, epoch="future")])
        journal.begin(EPOCH, 1)
        journal.commit([], [old(1, 40), old(2, 40)])
        journal.begin("now", 1)
        journal.commit([], [old(1, 0, epoch="now")])
        journal.begin("end", 1)
        with Reader(tmp_path) as reader:
            assert reader.epochs() == [("future", 1), ("now", 1), ("end", 0)]


def test_newest_of_the_running_epoch_stay_whatever_the_clock_said(tmp_path: Path) -> None:
    with contextlib.closing(Journal(tmp_path, verdict_days=30)) as journal:
        journal.begin(EPOCH, 1)
        journal.commit([], [old(seq, 20_000) for seq in range(1, 11)])
        journal.commit([], [old(seq, 0) for seq in range(11, 21)])
        with Reader(tmp_path) as reader:
            assert reader.count() == 20


def test_reader_in_another_thread_while_it_is_written(journal: Journal, tmp_path: Path) -> None:
    done = threading.Event()
    counts: list[int] = []

    def read() -> None:
        with Reader(tmp_path) as reader:
            while not done.is_set():
                counts.append(len(reader.verdicts(EPOCH, 1, None, 10_000)))

    thread = threading.Thread(target=read)
    thread.start()
    for start in range(1, 1001, 5):
        journal.commit([], [verdict(seq) for seq in range(start, start + 5)])
    done.set()
    thread.join()
    assert counts == sorted(counts)
    assert all(count % 5 == 0 for count in counts)


def test_closed_journal_can_be_read(tmp_path: Path) -> None:
    with contextlib.closing(Journal(tmp_path / "j")) as journal:
        journal.begin(EPOCH, 1)
        journal.commit([], [verdict(1)])
    with Reader(tmp_path / "j") as reader:
        assert reader.count() == 1
    # On a medium that cannot be written, such as a copy in a plant's archive.
    shutil.copytree(tmp_path / "j", tmp_path / "copy")
    (tmp_path / "copy").chmod(0o555)
    with Reader(tmp_path / "copy") as reader:
        assert reader.count() == 1
    with pytest.raises(JournalError, match="no journal there"):
        Reader(tmp_path)


def test_nobody_else_may_read_the_folder(tmp_path: Path) -> None:
    with contextlib.closing(Journal(tmp_path / "state" / "line-1")):
        assert (tmp_path / "state" / "line-1").stat().st_mode & 0o007 == 0
    assert (tmp_path / "state" / "line-1" / FILE).is_file()


def test_missing_reserve_is_told_and_made_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    real = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: real._replace(free=20 * 2**20))
    with contextlib.closing(Journal(tmp_path)) as journal:
        journal.begin(EPOCH, 1)
        for seq in (1, 2):
            assert "the disk is nearly full; free some space" in journal.trouble
            journal.commit([], [verdict(seq)])
        monkeypatch.undo()
        for seq in range(3, 40):
            journal.commit([], [verdict(seq)])
        assert journal.trouble == ""
    lines = [record.getMessage().split(" why=")[0] for record in caplog.records]
    assert lines == [f"reserve {how} folder={tmp_path}" for how in ("missing", "filled")]
    assert caplog.records[0].levelno == logging.WARNING
    assert (tmp_path / "reserve").stat().st_size == 16 * 2**20
    monkeypatch.setattr(shutil, "disk_usage", lambda path: real._replace(free=1))
    with contextlib.closing(Journal(tmp_path)) as journal:
        assert journal.trouble == ""


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo], ids=["folder", "pipe"])
def test_reserve_that_cannot_be_written_is_trouble_and_no_end(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    make(tmp_path / "reserve")
    with contextlib.closing(Journal(tmp_path)) as journal:
        journal.begin(EPOCH, 1)
        journal.commit([], [verdict(1)])
        assert journal.trouble == (
            f"{tmp_path}: the journal has no reserve: {tmp_path}/reserve is no file; delete it"
        )


def test_damaged_row_among_the_last_answers_does_not_stop_the_next_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with contextlib.closing(Journal(tmp_path)) as journal:
        journal.begin(EPOCH, 1)
        journal.commit([], [answer(seq, trigger(seq)) for seq in range(1, 5)])
    with contextlib.closing(sqlite3.connect(tmp_path / FILE)) as db, db:
        for place, row in ((2, b"\xff"), (3, b"{}")):
            db.execute(
                "UPDATE verdict SET json = CAST(? AS TEXT) WHERE place = ?",
                (row, schema.PLACES_PER_EPOCH + place),
            )
    with contextlib.closing(Journal(tmp_path)) as journal:
        found = journal.begin("second", 2)
    assert [each.seq for each in found.answered] == [1, 4]
    (record,) = caplog.records
    assert f'damaged rows=2 which="{EPOCH}/2, {EPOCH}/3" why="' in record.getMessage()


def told(seq: int, outcome: str = "acknowledged", **changes: object) -> Delivered:
    fields = {"epoch": EPOCH, "seq": seq, "client": "plc", "outcome": outcome, "at_us": 7}
    return Delivered(**fields | changes)


def test_what_became_of_a_verdict_stands_beside_it(journal: Journal, reader: Reader) -> None:
    bodies = [encode(verdict(seq)) for seq in (1, 2, 3)]
    first = [told(1), told(2, "failed"), told(2, at_us=9), told(2, client="mes", at_us=8)]
    # A report may come with its verdict.
    assert journal.commit([], [verdict(seq) for seq in (1, 2, 3)], first[:1]) == []
    strangers = [told(4), told(1, epoch="nobody's"), told(2**40 - 1)]
    assert journal.commit([], [], [*first, *strangers]) == strangers
    assert journal.commit([], [], [told(1, at_us=99)]) == []
    assert reader.delivered(EPOCH, 1, 3) == [first[0], first[1], first[3], first[2]]
    assert reader.delivered(EPOCH, 2, 2) == [first[1], first[3], first[2]]
    assert reader.delivered("nobody's", 1, 3) == []
    assert reader.verdicts(EPOCH, 1, None, 10) == bodies


def test_a_bridge_tells_of_a_verdict_of_the_start_before(tmp_path: Path) -> None:
    for epoch in ("first", "second"):
        with contextlib.closing(Journal(tmp_path, verdict_days=36_500)) as journal:
            journal.begin(epoch, NOW_US)
            journal.commit([], [verdict(1, epoch=epoch)])
            if epoch == "second":
                assert journal.commit([], [], [told(1, epoch="first")]) == []
    with Reader(tmp_path) as reader:
        assert reader.delivered("first", 1, 1) == [told(1, epoch="first")]
        assert reader.delivered("second", 1, 1) == []


def test_what_was_told_goes_with_its_verdict(tmp_path: Path) -> None:
    with contextlib.closing(Journal(tmp_path, verdict_days=30)) as journal:
        journal.begin("first", NOW_US)
        journal.commit([], [old(seq, 40, epoch="first") for seq in (1, 2, 3)])
        reports = [told(seq, epoch="first") for seq in (1, 2, 3)]
        assert journal.commit([], [], reports) == []
        journal.begin("second", NOW_US)
        journal.commit([], [old(1, 0, epoch="second")], [told(3, "discarded", epoch="first")])
        with Reader(tmp_path) as reader:
            assert reader.delivered("first", 1, 9) == [
                reports[2],
                told(3, "discarded", epoch="first"),
            ]
        assert journal.commit([], [], [told(1, epoch="first")]) == [told(1, epoch="first")]


def test_damaged_rows_of_what_was_told_are_left_out(journal: Journal, tmp_path: Path) -> None:
    journal.commit([], [verdict(1)], [told(1), told(1, "failed", at_us=8)])
    with contextlib.closing(sqlite3.connect(tmp_path / FILE)) as db, db:
        db.execute("UPDATE delivered SET at_us = 'late' WHERE outcome = 'failed'")
    with Reader(tmp_path) as reader:
        assert reader.delivered(EPOCH, 1, 1) == [told(1)]


def test_stop_is_kept_until_the_start(journal: Journal, tmp_path: Path) -> None:
    never = StopOrder("line-1", None)
    assert journal.stop_order("line-1") == never
    stopped = StopOrder("line-1", NOW_US, "desk")
    journal.keep(stopped)
    assert journal.stop_order("line-1") == stopped
    assert journal.stop_order("line-2") == StopOrder("line-2", None)
    with contextlib.closing(sqlite3.connect(tmp_path / FILE)) as db, db:
        db.execute("UPDATE stop_order SET since_us = 'late', client = x'00'")
    # What it says may be damaged: that it is there stops the station.
    assert journal.stop_order("line-1") == StopOrder("line-1", 0, "")
    journal.keep(never)
    assert journal.stop_order("line-1") == never
