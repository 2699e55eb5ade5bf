"""The shift's counts: each verdict once, by the station's clock."""

from __future__ import annotations

import datetime
import random
import time

import pytest
import yaml

from inspector.config.console_file import load_console
from inspector.console.shift import Shift, bounds
from inspector.errors import ConfigError, Problems
from inspector.verdict import Verdict
from inspector.wire.queries import CountsField
from tests.messages import verdict

HOUR_US = 3_600_000_000
NEWEST = ("newest_epoch", "newest_seq", "newest_us")


@pytest.fixture
def berlin(monkeypatch):
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def at(*when: int) -> int:
    return round(datetime.datetime(*when).timestamp() * 1e6)


def part(seq: int, judged_us: int, kind: Verdict = Verdict.PASS, **changes):
    fields = {"seq": seq, "verdict": kind, "judged_us": judged_us, "purpose": "production"}
    return verdict(**fields | changes)


@pytest.mark.parametrize(
    ("now", "begin", "end"),
    [
        ((2026, 5, 4, 6, 0), (2026, 5, 4, 6, 0), (2026, 5, 4, 14, 0)),
        ((2026, 5, 4, 21, 59), (2026, 5, 4, 14, 0), (2026, 5, 4, 22, 0)),
        ((2026, 5, 4, 23, 0), (2026, 5, 4, 22, 0), (2026, 5, 5, 6, 0)),
        ((2026, 5, 5, 2, 0), (2026, 5, 4, 22, 0), (2026, 5, 5, 6, 0)),
        # The night in which summer time ends has an hour more.
        ((2026, 10, 25, 5, 59), (2026, 10, 24, 22, 0), (2026, 10, 25, 6, 0)),
    ],
)
def test_a_shift_begins_at_its_hour_and_lasts_until_the_next(berlin, now, begin, end):
    starts = [datetime.time.fromisoformat(text) for text in ("06:00", "14:00", "22:00")]
    assert bounds(starts, at(*now)) == (at(*begin), at(*end))
    if begin == (2026, 10, 24, 22, 0):
        assert at(*end) - at(*begin) == 9 * HOUR_US


@pytest.mark.parametrize("shifts", [["14:00", "06:00"], ["06:00", "06:00"], ["24:00"], []])
def test_hours_that_do_not_rise_are_refused(tmp_path, shifts):
    path = tmp_path / "console.yaml"
    path.write_text(yaml.safe_dump({"stations": {"a": {}}, "shifts": shifts}), encoding="utf-8")
    with pytest.raises((ConfigError, Problems), match="shifts"):
        load_console(path)


def test_a_verdict_counts_once_in_whatever_order_it_comes(berlin):
    shift, now = Shift(["06:00", "14:00", "22:00"]), at(2026, 5, 4, 10, 0)
    assert shift.turn(now)
    kinds = (Verdict.PASS, Verdict.FAIL, Verdict.PASS, Verdict.FAULT, Verdict.PASS)
    found = [part(seq, now + seq, kinds[seq % 5]) for seq in range(1, 501)]
    twice = found + found
    random.Random(1).shuffle(twice)
    for one in twice:
        shift.add(one)
    told = shift.told()
    assert (told["passed"], told["failed"], told["faults"]) == (300, 100, 100)
    assert told["yield"] == 0.75
    assert told["per_minute"] == 500


def test_what_is_not_made_to_be_sold_or_of_another_shift_is_not_counted(berlin):
    shift, now = Shift(["06:00", "14:00"]), at(2026, 5, 4, 10, 0)
    shift.turn(now)
    for seq, purpose in enumerate(("challenge", "study"), 1):
        shift.add(part(seq, now, purpose=purpose))
    shift.add(part(3, at(2026, 5, 4, 5, 59)))
    assert shift.told()["passed"] == 0
    assert shift.told()["yield"] is None
    shift.add(part(4, at(2026, 5, 4, 13, 59)))
    assert not shift.turn(at(2026, 5, 4, 13, 59))
    assert shift.told()["passed"] == 1
    assert shift.turn(at(2026, 5, 4, 14, 0))
    assert shift.told()["passed"] == 0
    # A clock that is set back tells an earlier shift; one that is put right by a second does not.
    assert not shift.turn(at(2026, 5, 4, 14, 0) - 1_000_000)
    assert shift.turn(at(2026, 5, 4, 12, 0))


def test_the_history_is_walked_down_to_what_is_sure(berlin):
    shift, now = Shift(["06:00"]), at(2026, 5, 4, 10, 0)
    shift.turn(now)
    for seq in (7, 6, 5):
        shift.add(part(seq, now))
    epoch = part(5, now).epoch
    assert shift.sure is None
    shift.add(part(8, now))
    shift.walked((epoch, 7))
    assert shift.sure == (epoch, 8)
    shift.add(part(9, now))
    assert shift.sure == (epoch, 9)
    shift.add(part(12, now))
    assert shift.sure == (epoch, 9)
    for seq in (11, 10):
        shift.add(part(seq, now))
    shift.walked((epoch, 11))
    assert shift.sure == (epoch, 12)


def test_what_the_station_counted_is_not_counted_again(berlin):
    shift, now = Shift(["06:00"]), at(2026, 5, 4, 10, 0)
    shift.turn(now)
    epoch = part(1, now).epoch

    def counted(seq: int) -> CountsField:
        told = {"newest_epoch": epoch, "newest_seq": seq, "newest_us": now + seq}
        return CountsField(passed=50, failed=3, faults=1, **told)

    # Those of the last minute were read, and some came live while the station counted.
    for seq in (90, 99, 100, 101, 102):
        shift.add(part(seq, now + seq, Verdict.FAIL))
    shift.add(part(103, now + 103, Verdict.FAIL, purpose="study"))
    assert not shift.complete
    shift.counted(counted(100))
    told = shift.told()
    assert (told["passed"], told["failed"], told["faults"]) == (50, 5, 1)
    assert told["complete"] and told["per_minute"] == 5
    assert shift.sure == (epoch, 103)
    # What comes late is known already; what is new, and the next start's, is not.
    shift.add(part(60, now + 60, Verdict.FAIL))
    shift.add(part(102, now + 102, Verdict.FAIL))
    shift.add(part(7, now + 50, Verdict.FAIL, epoch="earlier"))
    assert shift.told()["failed"] == 5
    shift.add(part(104, now + 104, Verdict.FAIL))
    shift.add(part(1, now + 200, Verdict.FAIL, epoch="next"))
    assert shift.told()["failed"] == 7
    shift.counted(counted(104))
    assert shift.told()["failed"] == 4
    assert shift.turn(at(2026, 5, 5, 6, 0))
    assert shift.told()["failed"] == 0
    shift.counted(CountsField(passed=0, failed=0, faults=0, **dict.fromkeys(NEWEST)))
    assert shift.complete and shift.sure is None
