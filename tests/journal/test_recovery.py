"""Damaged and odd rows: whatever stands in the database, it is read around and set aside."""

from __future__ import annotations

import contextlib
import csv
import json
import logging
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from inspector.journal.reader import Reader
from inspector.journal.recovery import Damage
from inspector.journal.schema import FILE, PLACES_PER_EPOCH
from inspector.journal.writer import Journal
from inspector.wire.messages import ReplayCommand, encode
from inspector.wire.replay import read_replay
from tests import running
from tests.records import EPOCH, NOW_US, answer, trigger, verdict

BASE = PLACES_PER_EPOCH
GOOD = [1, 2, 4, 5, 6]
"""Seqs of the verdicts that are not damaged, of six."""


@contextlib.contextmanager
def opened(folder: Path) -> Iterator[Journal]:
    with contextlib.closing(Journal(folder, verdict_days=36_500)) as journal:
        yield journal


def write(folder: Path, sql: str, *values: Any) -> None:
    with contextlib.closing(sqlite3.connect(folder / FILE)) as db, db:
        db.execute(sql, values)


def ask(folder: Path, sql: str) -> list[tuple[Any, ...]]:
    with contextlib.closing(sqlite3.connect(folder / FILE)) as db:
        return db.execute(sql).fetchall()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A journal with six answers and one trigger that has none."""
    with opened(tmp_path) as journal:
        journal.begin(EPOCH, NOW_US)
        asked = [trigger(number) for number in range(1, 8)]
        journal.commit(asked, [answer(seq, asked[seq - 1]) for seq in range(1, 7)])
    return tmp_path


def with_changes(**changes: Any) -> str:
    return encode(answer(3, trigger(3), **changes)).decode()


SPOILT = {
    "one character": with_changes().replace('"verdict":"PASS"', '"verdict":"QASS"'),
    "no JSON": with_changes()[:-1],
    "not UTF-8": with_changes().encode().replace(b"part-3", b"part-\xff"),
    "empty": "",
    "a number": 5,
    "deep": "[" * 100_000,
    "another number": with_changes().replace('"seq":3', '"seq":5'),
    "what ends a reply": '"],"more":true,"x":["',
}


@pytest.mark.parametrize("row", SPOILT.values(), ids=list(SPOILT))
def test_damaged_row_is_one_verdict_less_for_everybody(
    folder: Path, tmp_path: Path, row: object, caplog: pytest.LogCaptureFixture
) -> None:
    # As disks do it: the bytes of the row change, not its type.
    what = row if isinstance(row, bytes) else str(row).encode()
    write(folder, "UPDATE verdict SET json = CAST(? AS TEXT) WHERE place = ?", what, BASE + 3)
    met: list[Damage] = []
    with Reader(folder, met.append) as reader:
        reply, verdicts = read_replay(reader, ReplayCommand(epoch=EPOCH))
        assert [json.loads(each)["seq"] for each in verdicts] == GOOD
        assert (reply.more, reply.last_seq) == (False, 6)
        assert [json.loads(each)["seq"] for each in reader.since(0, 100)] == GOOD
    assert [damage.place for damage in met] == [BASE + 3] * 2
    out = tmp_path / "out.csv"
    code, _, error = running.inside("export-verdicts", folder, "-o", out)
    assert code == 0
    assert f"{folder}: 1 damaged rows left out, the first is {EPOCH}/3 (" in error
    with out.open(encoding="utf-8", newline="") as file:
        assert [int(row["seq"]) for row in csv.DictReader(file)] == GOOD
    with opened(folder) as journal:
        recovered = journal.begin("second", NOW_US)
        assert [each.seq for each in recovered.answered] == GOOD
        assert len(recovered.unanswered) == 1
        assert journal.damaged == 1
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith(f"damaged rows=1 which={EPOCH}/3 why=")
    assert ask(folder, "SELECT origin, place, content FROM damaged") == [
        ("verdict", BASE + 3, what)
    ]
    # It is named once, counted from then on, and the epoch keeps its end.
    with opened(folder) as journal:
        journal.begin("third", NOW_US)
        assert (journal.damaged, len(caplog.records)) == (1, 1)
    with Reader(folder) as reader:
        assert reader.epochs()[0] == (EPOCH, 6)


def test_last_row_of_an_epoch_still_counts_when_it_is_set_aside(folder: Path) -> None:
    write(folder, "UPDATE verdict SET json = '' WHERE place = ?", BASE + 6)
    for _ in range(2):
        with Reader(folder) as reader:
            reply, verdicts = read_replay(reader, ReplayCommand(epoch=EPOCH, from_seq=6))
            assert (verdicts, reply.last_seq, reader.epochs()[0]) == ([], 6, (EPOCH, 6))
        with opened(folder) as journal:
            journal.begin("next", NOW_US)
            write(folder, "DELETE FROM epoch WHERE name = 'next'")


def test_epoch_of_which_all_is_damaged_is_known(folder: Path) -> None:
    with opened(folder) as journal:
        journal.begin("second", NOW_US)
        journal.commit([], [verdict(1, epoch="second")])
    write(folder, "UPDATE verdict SET json = ''")
    with opened(folder) as journal:
        journal.begin("third", NOW_US)
        assert journal.damaged == 7
    with Reader(folder) as reader:
        assert reader.epochs() == [(EPOCH, 6), ("second", 1), ("third", 0)]
        assert reader.following(EPOCH) == "second"
        reply, verdicts = read_replay(reader, ReplayCommand(epoch="second", from_seq=1))
        assert (reply.kind, verdicts, reply.last_seq) == ("replayed", [], 1)


def test_what_a_reader_meets_is_set_aside_a_hundred_at_a_time(tmp_path: Path) -> None:
    with opened(tmp_path) as journal:
        journal.begin(EPOCH, NOW_US)
        journal.commit([], [verdict(seq) for seq in range(1, 301)])
        write(tmp_path, "UPDATE verdict SET json = '{}' WHERE place <= ?", BASE + 250)
        with Reader(tmp_path, journal.suspect) as reader:
            found = reader.verdicts(EPOCH, 1, None, 10)
            assert [json.loads(each)["seq"] for each in found] == list(range(251, 261))
            # A row that is whole, whoever suspects it, stays.
            journal.suspect(Damage("verdict", BASE + 251, b"", ""))
            counts = []
            for _ in range(4):
                journal.tend()
                counts.append(journal.damaged)
            assert counts[-1] == 250
            assert max(b - a for a, b in zip([0, *counts], counts, strict=False)) == 100
            assert len(reader.verdicts(EPOCH, 1, None, 1000)) == 50


ODD = {
    "a trigger's number": ("UPDATE open_trigger SET number = 'x'", 0),
    "a trigger's number below 0": ("UPDATE open_trigger SET number = -1", 0),
    "a trigger's time": ("UPDATE open_trigger SET triggered_us = x'ff'", 0),
    "a trigger's camera": ("UPDATE open_trigger SET camera = x'ff00'", 0),
    "a trigger's part, not UTF-8": (
        "UPDATE open_trigger SET part_id = CAST(x'61ff' AS TEXT)",
        1,
    ),
    "a time": ("UPDATE verdict SET latest_us = 'x'", 1),
    "a time of a BLOB": (f"UPDATE verdict SET latest_us = x'ff' WHERE place = {BASE + 6}", 1),
    "a verdict of a BLOB": ("UPDATE verdict SET json = x'ff'", 1),
    "a key below 0": (f"UPDATE verdict SET place = -5 WHERE place = {BASE + 3}", 1),
    "a key of what is to come": (
        f"UPDATE verdict SET place = {2 * BASE + 1} WHERE place = {BASE + 3}",
        1,
    ),
    "the highest key": (f"UPDATE verdict SET place = {2**63 - 1} WHERE place = {BASE + 3}", 1),
    "an epoch's number": (f"UPDATE epoch SET number = {2**63 - 1}", 1),
    "an epoch's number below 0": ("UPDATE epoch SET number = -3", 1),
    "an epoch's name": ("UPDATE epoch SET name = x'ff'", 1),
    "an epoch's name, not UTF-8": ("UPDATE epoch SET name = CAST(x'ff' AS TEXT)", 1),
    "an epoch's start": ("UPDATE epoch SET started_us = 'x'", 1),
    "what was set aside": (
        "INSERT INTO damaged (found_us, origin, place, why) VALUES ('x', x'ff', 'y', 7)",
        1,
    ),
}


@pytest.mark.parametrize(("sql", "unanswered"), ODD.values(), ids=list(ODD))
def test_odd_row_in_any_table_ends_nothing(
    folder: Path, sql: str, unanswered: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    write(folder, sql)
    for start in range(2):
        with opened(folder) as journal:
            recovered = journal.begin(f"start-{start}", NOW_US)
            assert len(recovered.unanswered) == unanswered
            journal.commit([trigger(9)], [verdict(1, epoch=f"start-{start}")])
            journal.tend()
            with Reader(folder, journal.suspect) as reader:
                reader.epochs()
                # Rather too many than too few where the times are odd.
                assert len(reader.since(NOW_US + 4_000_000, 100)) <= 7 + start
                assert len(reader.verdicts(f"start-{start}", 1, None, 10)) == 1
                for name in (EPOCH, f"start-{start}"):
                    with contextlib.suppress(LookupError):
                        reader.following(name)
                        reader.last_seq(name)
            journal.commit([], [answer(2, trigger(9), epoch=f"start-{start}")])
    code, _, error = running.inside("export-verdicts", folder, "-o", folder / "out.csv")
    assert code == 0, error
    lost = [record for record in caplog.records if "damaged" in record.getMessage()]
    assert len(lost) <= 2


def test_time_that_is_odd_hides_no_verdict(folder: Path) -> None:
    write(folder, "UPDATE verdict SET latest_us = x'00' WHERE place = ?", BASE + 6)
    with Reader(folder) as reader:
        found = reader.since(NOW_US + 4_000_000, 100)
    assert [json.loads(each)["seq"] for each in found] == [4, 5, 6]
