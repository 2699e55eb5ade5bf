"""Verdicts are found by what people ask for, in pages, the newest first."""

from __future__ import annotations

import contextlib
import random
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from inspector.errors import JournalError
from inspector.journal import search
from inspector.journal.reader import Reader
from inspector.journal.recovery import Damage
from inspector.journal.schema import FILE, PLACES_PER_EPOCH, Deed, DeedFilter, Mark
from inspector.journal.search import FILED_EVERY, Filter
from inspector.journal.writer import Journal
from inspector.verdict import Reason, Verdict
from inspector.wire.messages import VerdictMessage
from inspector.wire.queries import HistoryQuery
from tests.records import NOW_US, verdict

EPOCHS = ("first", "second", "third")
SECOND_US = 1_000_000
FAULT: dict[str, Any] = {"verdict": "FAULT", "score": None}


def drawn(chance: random.Random, epoch: str, seq: int, judged_us: int) -> VerdictMessage:
    kind = chance.choice(("PASS", "PASS", "PASS", "FAIL", "FAULT"))
    changes: dict[str, Any] = {"PASS": {"score": chance.randrange(100) / 100}}.get(kind, {})
    if kind == "FAIL":
        changes = {"verdict": kind, "reason": "anomaly", "score": 1 + chance.randrange(100) / 100}
    elif kind == "FAULT":
        changes = FAULT | {"reason": chance.choice(("too_dark", "queue_full"))}
    camera, part_id = chance.choice(("top", "side")), chance.choice(("", "a", "b\0c", "Ä"))
    return verdict(seq, epoch=epoch, camera=camera, part_id=part_id, judged_us=judged_us, **changes)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with contextlib.closing(Journal(tmp_path, verdict_days=36_500)) as opened:
        yield opened


@pytest.fixture
def made(journal: Journal) -> list[VerdictMessage]:
    """Three starts of a station, a second between two verdicts; every seventh is marked."""
    chance = random.Random(3)
    found: list[VerdictMessage] = []
    for epoch in EPOCHS:
        journal.begin(epoch, NOW_US)
        mine = [
            drawn(chance, epoch, seq, NOW_US + (len(found) + seq) * SECOND_US)
            for seq in range(1, 61)
        ]
        journal.commit([], mine)
        found += mine
    marks = [Mark(one.epoch, one.seq, "desk", "Li", "bad", "", NOW_US) for one in found[::7]]
    assert journal.commit([], [], marks) == []
    return found


def pages(reader: Reader, asked: Filter, limit: int) -> list[list[VerdictMessage]]:
    found, before = list[list[VerdictMessage]](), None
    while True:
        page = reader.search(asked, before, limit)
        found.append(list(page.verdicts))
        before = page.next_before
        if before is None:
            return found


ASKED: dict[str, tuple[Filter, Callable[[VerdictMessage], bool]]] = {
    "all": (Filter(), lambda one: True),
    "camera": (Filter(camera="top"), lambda one: one.camera == "top"),
    "no such camera": (Filter(camera="left"), lambda one: False),
    "FAIL": (Filter(verdicts=(Verdict.FAIL,)), lambda one: one.verdict is Verdict.FAIL),
    "PASS": (Filter(verdicts=(Verdict.PASS,)), lambda one: one.verdict is Verdict.PASS),
    "not PASS": (
        Filter(verdicts=(Verdict.FAIL, Verdict.FAULT)),
        lambda one: one.verdict is not Verdict.PASS,
    ),
    "reason": (Filter(reason="too_dark"), lambda one: one.reason == "too_dark"),
    "without a reason": (Filter(reason=""), lambda one: one.reason == ""),
    "part": (Filter(part_id="b\0c"), lambda one: one.part_id == "b\0c"),
    "without a part id": (Filter(part_id=""), lambda one: one.part_id == ""),
    "score": (
        Filter(score_from=0.5, score_to=1.25),
        lambda one: one.score is not None and 0.5 <= one.score < 1.25,
    ),
    "time": (
        Filter(since_us=NOW_US + 50 * SECOND_US, until_us=NOW_US + 130 * SECOND_US),
        lambda one: 50 <= (one.judged_us - NOW_US) / SECOND_US < 130,
    ),
    "all together": (
        Filter(
            since_us=NOW_US + 10 * SECOND_US,
            camera="side",
            verdicts=(Verdict.FAIL,),
            reason="anomaly",
            score_from=1.2,
        ),
        lambda one: (
            one.judged_us >= NOW_US + 10 * SECOND_US
            and (one.camera, one.verdict) == ("side", Verdict.FAIL)
            and (one.score or 0) >= 1.2
        ),
    ),
    "part and verdict": (
        Filter(part_id="a", verdicts=(Verdict.FAULT,)),
        lambda one: (one.part_id, one.verdict) == ("a", Verdict.FAULT),
    ),
}


@pytest.mark.parametrize("limit", [1, 7, 100])
@pytest.mark.parametrize("asked", ASKED)
def test_each_filter_finds_what_it_says_in_pages(
    made: list[VerdictMessage],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    asked: str,
    limit: int,
) -> None:
    # So that a page ends in the middle of what is looked through, too.
    monkeypatch.setattr(search, "_STRETCH", 11)
    wanted, holds = ASKED[asked]
    with Reader(tmp_path) as reader:
        found = pages(reader, wanted, limit)
    assert [one for page in found for one in page] == [one for one in reversed(made) if holds(one)]
    assert max(map(len, found)) <= limit


def test_marked_parts_are_found(made: list[VerdictMessage], tmp_path: Path) -> None:
    with Reader(tmp_path) as reader:
        marked = reader.search(Filter(marked=True), None, 200).verdicts
        others = reader.search(Filter(marked=False, camera="top"), None, 200).verdicts
        one = made[7]
        assert reader.marks(one.epoch, one.seq, one.seq) == [
            Mark(one.epoch, one.seq, "desk", "Li", "bad", "", NOW_US)
        ]
        assert reader.marks(one.epoch, one.seq + 1, one.seq + 6) == []
    assert list(marked) == made[::7][::-1]
    rest = [one for i, one in enumerate(made) if i % 7 and one.camera == "top"]
    assert list(others) == rest[::-1]


def test_a_search_ends_in_time_and_says_where_to_go_on(
    made: list[VerdictMessage], journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A start files what was not yet.
    journal.begin("fourth", NOW_US)
    monkeypatch.setattr(search, "_STRETCH", 20)
    monkeypatch.setattr("inspector.journal.reader._SEARCH_S", 0.0)
    with Reader(tmp_path) as reader:
        page = reader.search(Filter(camera="left"), None, 10)
        assert (page.verdicts, page.next_before) == ((), ("third", 41))
        found = pages(reader, Filter(reason="queue_full"), 100)
    assert len(found) > 5
    assert [one for page in found for one in page] == [
        one for one in reversed(made) if one.reason == "queue_full"
    ]


@pytest.mark.parametrize("stretch", [59, 60, 61, 62])
def test_a_page_that_ends_between_two_starts_can_be_followed(
    made: list[VerdictMessage], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stretch: int
) -> None:
    monkeypatch.setattr(search, "_STRETCH", stretch)
    monkeypatch.setattr("inspector.journal.reader._SEARCH_S", 0.0)
    found, before = list[VerdictMessage](), None
    with Reader(tmp_path) as reader:
        while True:
            page = reader.search(Filter(verdicts=(Verdict.PASS,)), before, 100)
            found += page.verdicts
            if page.next_before is None:
                break
            # As the wire takes it.
            epoch, seq = before = page.next_before
            HistoryQuery(before_epoch=epoch, before_seq=seq)
    assert found == [one for one in reversed(made) if one.verdict is Verdict.PASS]


def test_what_is_not_published_yet_is_not_found(made: list[VerdictMessage], tmp_path: Path) -> None:
    with Reader(tmp_path, published=lambda: ("third", 57)) as reader:
        page = reader.search(Filter(), None, 1)
        assert [(one.epoch, one.seq) for one in page.verdicts] == [("third", 57)]
        with pytest.raises(LookupError):
            reader.search(Filter(), ("unknown", 5), 1)


def test_verdicts_that_come_meanwhile_shift_no_page(
    journal: Journal, made: list[VerdictMessage], tmp_path: Path
) -> None:
    with Reader(tmp_path) as reader:
        first = reader.search(Filter(), None, 50)
        journal.commit([], [verdict(61, epoch="third")])
        second = reader.search(Filter(), first.next_before, 50)
    assert [*first.verdicts, *second.verdicts] == made[::-1][:100]


def test_a_fault_is_found_in_the_place_of_what_it_overruled(
    journal: Journal, tmp_path: Path
) -> None:
    journal.begin("first", NOW_US)
    judged = verdict(1, epoch="first")
    journal.commit([], [judged])
    fault = judged.overruled(Reason.DEADLINE_MISSED, "late")
    journal.commit([], [fault])
    with Reader(tmp_path) as reader:
        assert reader.search(Filter(verdicts=(Verdict.PASS,)), None, 9).verdicts == ()
        assert reader.search(Filter(reason="deadline_missed"), None, 9).verdicts == (fault,)
        assert reader.verdict("first", 1) == fault
        assert reader.verdict("first", 2) is None


def test_a_damaged_verdict_is_left_out_and_told(made: list[VerdictMessage], tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / FILE)) as db, db:
        db.execute("UPDATE verdict SET json = '{' WHERE place = ?", (PLACES_PER_EPOCH + 9,))
    met: list[Damage] = []
    with Reader(tmp_path, met.append) as reader:
        found = [one for page in pages(reader, Filter(), 100) for one in page]
    assert found == [one for one in reversed(made) if (one.epoch, one.seq) != ("first", 9)]
    assert [damage.place for damage in met] == [PLACES_PER_EPOCH + 9]


def test_old_verdicts_go_and_marked_ones_stay(tmp_path: Path) -> None:
    day_us = 86_400 * SECOND_US
    with contextlib.closing(Journal(tmp_path, verdict_days=36_500)) as old:
        old.begin("first", NOW_US)
        old.commit([], [verdict(seq, epoch="first", judged_us=seq) for seq in range(1, 31)])
        old.commit([], [], [Mark("first", seq, "", "", "good", "", 1) for seq in (1, 2, 15)])
    with contextlib.closing(Journal(tmp_path, verdict_days=1)) as journal:
        journal.begin("second", NOW_US)
        now_us = 20_000 * day_us
        for seq in range(1, 21):
            fresh = {"judged_us": 2**52, "grabbed_us": now_us}
            journal.commit([], [verdict(seq, epoch="second", **fresh)])
    with Reader(tmp_path) as reader, contextlib.closing(sqlite3.connect(tmp_path / FILE)) as db:
        kept = [one for page in pages(reader, Filter(), 100) for one in page]
        assert [(one.epoch, one.seq) for one in kept[20:]] == [
            ("first", 15),
            ("first", 2),
            ("first", 1),
        ]
        rows = db.execute("SELECT count(*) FROM search").fetchone()[0]
        # The new ones are not filed yet.
        assert rows + 20 == len(kept) == len(list(reader.walk())) == 23


def test_verdicts_are_found_and_counted_whether_they_are_filed_or_not(tmp_path: Path) -> None:
    """They are filed many at once: after each commit a search finds what was committed."""
    chance = random.Random(5)
    told: dict[int, VerdictMessage] = {}
    waited = set[int]()

    def commit(journal: Journal) -> None:
        group = [
            drawn(chance, "first", len(told) + at, NOW_US).model_copy(
                update={"purpose": chance.choice(("production", "production", "study"))}
            )
            for at in range(1, chance.choice((1, 1, 1, 2, 5, 40)) + 1)
        ]
        marks = [Mark("first", one.seq, "", "", "bad", "", 1) for one in group[::3]]
        if told and chance.random() < 0.3:
            group.append(chance.choice(list(told.values())).overruled(Reason.DEADLINE_MISSED, ""))
        journal.commit([], group, marks)
        told.update({one.seq: one for one in group})

    with contextlib.closing(Journal(tmp_path, verdict_days=36_500)) as journal:
        journal.begin("first", NOW_US)
        for number in range(60):
            commit(journal)
            name, (asked, is_asked) = chance.choice(list(ASKED.items()))
            with Reader(tmp_path) as reader:
                found = [one for page in pages(reader, asked, 7) for one in page]
                marked = [one for page in pages(reader, Filter(marked=True), 7) for one in page]
                counts = reader.counts(NOW_US - SECOND_US, NOW_US + SECOND_US)
            newest_first = [one for _, one in sorted(told.items(), reverse=True)]
            assert found == [one for one in newest_first if is_asked(one)], (name, number)
            assert {one.seq for one in newest_first} >= {one.seq for one in marked} != set()
            kinds = [one.verdict for one in newest_first if one.counts]
            assert (counts.passed, counts.failed, counts.faults) == tuple(
                kinds.count(kind) for kind in (Verdict.PASS, Verdict.FAIL, Verdict.FAULT)
            )
            with contextlib.closing(sqlite3.connect(tmp_path / FILE)) as db:
                filed = db.execute("SELECT count(*) FROM search").fetchone()[0]
            waited.add(len(told) - filed)
    assert min(waited) == 0 < max(waited) < FILED_EVERY
    # A start files all of the starts before, and a damaged row is in nobody's way.
    with contextlib.closing(sqlite3.connect(tmp_path / FILE)) as db, db:
        db.execute(
            "UPDATE search SET place = ? WHERE place = (SELECT min(place) FROM search)", (2**62,)
        )
    with contextlib.closing(Journal(tmp_path, verdict_days=36_500)) as journal:
        journal.begin("second", NOW_US)
        journal.commit([], [verdict(1, epoch="second", part_id="new")])
        with Reader(tmp_path) as reader:
            assert len(reader.search(Filter(part_id="new"), None, 9).verdicts) == 1


def test_verdicts_of_a_time_are_counted(
    made: list[VerdictMessage], journal: Journal, tmp_path: Path
) -> None:
    """As many as the history finds, without those that are not made to be sold."""
    del made
    chance = random.Random(7)
    journal.begin("fourth", NOW_US)
    purposes = ("production", "production", "challenge", "study")
    mixed = [
        drawn(chance, "fourth", seq, NOW_US + (500 + seq) * SECOND_US).model_copy(
            update={"purpose": chance.choice(purposes)}
        )
        for seq in range(1, 101)
    ]
    journal.commit([], mixed)
    # A FAULT takes the place of a verdict.
    journal.commit([], [mixed[-1].overruled(Reason.JOURNAL_FAILED, "")])
    with Reader(tmp_path) as reader:
        for since, until in ((0, 1000), (30, 95), (100, 545), (560, 600), (900, 1000)):
            times = (NOW_US + since * SECOND_US, NOW_US + until * SECOND_US)
            found = [
                one for page in pages(reader, Filter(*times), 100) for one in page if one.counts
            ]
            counts = reader.counts(*times)
            told = (counts.passed, counts.failed, counts.faults)
            assert told == tuple(
                sum(one.verdict is kind for one in found)
                for kind in (Verdict.PASS, Verdict.FAIL, Verdict.FAULT)
            )
            newest = next((one for page in pages(reader, Filter(*times), 1) for one in page), None)
            assert counts.newest == newest
    with contextlib.closing(sqlite3.connect(tmp_path / FILE)) as db, db:
        told = db.execute("SELECT count(*) FROM aside").fetchone()[0]
        # An upgrade finds the same in what there is.
        db.execute("DROP TABLE aside")
        search.make_aside(db)
        assert db.execute("SELECT count(*) FROM aside").fetchone()[0] == told
    assert told == sum(not one.counts for one in mixed)


def test_marks_are_deeds_and_those_on_nothing_are_told(journal: Journal, tmp_path: Path) -> None:
    journal.begin("first", NOW_US)
    journal.commit([], [verdict(1, epoch="first")])
    unknown = Mark("first", 2, "desk", "Li", "bad", "", 5)
    good = Mark("first", 1, "desk", "Li", "good", "scratch is allowed", 5)
    bad = Mark("first", 1, "", "Wang", "bad", "", 6)
    assert journal.commit([], [], [unknown, good, bad]) == [unknown]
    journal.keep(None, Deed(7, "reset", "desk", "Li"))
    with Reader(tmp_path) as reader:
        assert reader.marks("first", 1, 9) == [good, bad]
        told = [deed for _, deed in reader.deeds(None, 10)]
        numbers = [number for number, _ in reader.deeds(None, 10)]
        assert told == [
            Deed(7, "reset", "desk", "Li"),
            Deed(6, "mark", "", "Wang", "first/1", "", "bad", ""),
            Deed(5, "mark", "desk", "Li", "first/1", "", "good", "scratch is allowed"),
        ]
        assert [number for number, _ in reader.deeds(numbers[0], 1)] == numbers[1:2]
    assert journal.marked() == [("first", 1)]


def test_deeds_are_found_by_kind_who_and_time(journal: Journal, tmp_path: Path) -> None:
    chance = random.Random(5)
    done = [
        Deed(
            chance.randrange(100),
            chance.choice(("limit", "recipe", "stop")),
            chance.choice(("", "desk", "PLC")),
            chance.choice(("", "Li Wei", "Ana", "100%")),
        )
        for _ in range(200)
    ]
    for deed in done:
        journal.keep(None, deed)
    with Reader(tmp_path) as reader:
        for _ in range(60):
            asked = DeedFilter(
                chance.choice((None, 20)),
                chance.choice((None, 70)),
                chance.choice(((), ("limit",), ("limit", "stop"))),
                chance.choice(("", "li", "LI W", "plc", "%", "nobody")),
            )
            found: list[Deed] = []
            before = None
            while page := reader.deeds(before, 7, asked):
                found += [deed for _, deed in page]
                before = page[-1][0]
            assert found == [one for one in reversed(done) if is_asked_for(one, asked)], asked


@pytest.mark.long
def test_half_a_million_verdicts_are_counted_at_once(journal: Journal, tmp_path: Path) -> None:
    journal.begin("first", NOW_US)
    journal.commit([], [verdict(600_001, epoch="first", judged_us=NOW_US + 10)])
    rows = 600_000
    with contextlib.closing(sqlite3.connect(tmp_path / FILE)) as db, db:
        base = db.execute("SELECT place FROM verdict").fetchone()[0] - rows - 1
        db.executemany(
            "INSERT INTO search (place, camera, verdict, reason, part_id, score) "
            "VALUES (?, 'top', ?, '', '', 0.5)",
            ((base + seq, "FAIL" if seq % 100 == 0 else "PASS") for seq in range(1, rows + 1)),
        )
        db.execute(
            "INSERT INTO verdict (place, latest_us, json) SELECT place, ?, '{}' FROM search "
            "WHERE place NOT IN (SELECT place FROM verdict)",
            (NOW_US,),
        )
    with Reader(tmp_path) as reader:
        began_s = time.process_time()
        counts = reader.counts(NOW_US, NOW_US + SECOND_US)
        took_s = time.process_time() - began_s
    assert (counts.passed + counts.failed, counts.failed) == (rows + 1, rows // 100)
    assert took_s < 1.0


def is_asked_for(deed: Deed, asked: DeedFilter) -> bool:
    names = deed.by.lower(), deed.client.lower()
    return (
        (asked.since_us is None or deed.at_us >= asked.since_us)
        and (asked.until_us is None or deed.at_us < asked.until_us)
        and (not asked.kinds or deed.kind in asked.kinds)
        and any(asked.who.lower() in name for name in names)
    )


@pytest.mark.long
def test_a_hundred_thousand_deeds_are_searched_at_once(journal: Journal, tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / FILE)) as db, db:
        db.executemany(
            "INSERT INTO deed (at_us, kind, client, person, subject, earlier, later, note) "
            "VALUES (?, 'mark', 'desk', 'Li Wei', 'e/1', '', 'good', '')",
            ((at_us,) for at_us in range(100_000)),
        )
    with Reader(tmp_path) as reader:
        began_s = time.process_time()
        assert reader.deeds(None, 100, DeedFilter(kinds=("limit",), who="ana")) == []
        assert [number for number, _ in reader.deeds(None, 5, DeedFilter(until_us=3))] == [3, 2, 1]
        assert time.process_time() - began_s < 1.0


def test_a_journal_that_was_not_upgraded_cannot_be_searched(tmp_path: Path) -> None:
    old = Path(__file__).with_name("journal_3") / FILE
    (tmp_path / FILE).write_bytes(old.read_bytes())
    with Reader(tmp_path) as reader:
        with pytest.raises(JournalError, match="start the station once"):
            reader.search(Filter(), None, 1)
        assert reader.deeds(None, 5) == reader.marks("first", 1, 5) == []
