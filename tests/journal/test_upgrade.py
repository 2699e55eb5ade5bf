"""Journals of earlier versions.

``journal_N`` is a folder that a station with tables of version N left when it was killed: its
second start is in the write-ahead log alone. A released one is never made anew.
"""

from __future__ import annotations

import contextlib
import csv
import logging
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import zmq

from inspector.errors import JournalError
from inspector.journal import schema, search, upgrade
from inspector.journal.pictures import pictures
from inspector.journal.reader import Reader
from inspector.journal.schema import FILE, VERSION
from inspector.journal.search import Filter
from inspector.journal.writer import Journal
from inspector.verdict import Verdict
from inspector.wire.messages import ReplayCommand, decode_reply, decode_verdict, encode
from tests import running, tiny
from tests.parties import connected
from tests.records import EPOCH
from tests.stations import Recorded, serving

FIRST_EPOCH = "0d9f6a1e-1f0a-4a55-9b0d-6a2f6f6b1a01"
FIXTURES = sorted(Path(__file__).parent.glob("journal_*/"))
SAID = [(FIRST_EPOCH, 1, "PASS"), (FIRST_EPOCH, 2, "PASS"), (FIRST_EPOCH, 3, "FAIL")]
SAID += [(EPOCH, 1, "PASS"), (EPOCH, 2, "FAIL"), (EPOCH, 3, "FAULT")]


@pytest.fixture(params=FIXTURES, ids=lambda path: path.name)
def old(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of a fixture's folder, which a test may change."""
    return Path(shutil.copytree(request.param, tmp_path / request.param.name))


def version(folder: Path) -> int:
    with contextlib.closing(sqlite3.connect(folder / FILE)) as db:
        return int(db.execute("PRAGMA user_version").fetchone()[0])


def said(folder: Path) -> list[tuple[str, int, str]]:
    with Reader(folder) as reader:
        found = [decode_verdict(json) for json in reader.walk()]
    return [(each.epoch, each.seq, each.verdict.value) for each in found]


@contextlib.contextmanager
def opened(folder: Path) -> Iterator[Journal]:
    with contextlib.closing(Journal(folder, verdict_days=36_500)) as journal:
        yield journal


def test_every_version_but_this_one_has_a_fixture() -> None:
    assert [path.name for path in FIXTURES] == [f"journal_{number}" for number in range(1, VERSION)]


def test_it_is_recovered_and_goes_on(old: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    before = version(old)
    with opened(old) as journal:
        recovered = journal.begin("new", 1)
        assert [(row.client, row.number, row.part_id) for row in recovered.unanswered] == [
            ("other", 2, "odd\\udcff")
        ]
        assert [(each.epoch, each.trigger_seq) for each in recovered.answered] == [
            (EPOCH, 1),
            (EPOCH, 2),
        ]
        journal.commit([], [recovered.answered[0].model_copy(update={"epoch": "new"})])
        with Reader(old) as reader:
            assert reader.epochs() == [(FIRST_EPOCH, 3), (EPOCH, 3), ("new", 1)]
    assert said(old) == [*SAID, ("new", 1, "PASS")]
    assert (before, version(old)) == (int(old.name.removeprefix("journal_")), VERSION)
    lines = [record.getMessage() for record in caplog.records]
    assert lines[0] == f"upgrade journal={old / FILE} version={before} to={VERSION}"
    assert lines[1].startswith(f"upgraded journal={old / FILE} version={VERSION} seconds=")
    assert len(lines) == 2
    # Nothing of the trial is left, and the next start has nothing to do.
    assert {path.name for path in old.iterdir()} == {FILE, "lock", "pictures", "reserve"}
    with opened(old):
        assert len(caplog.records) == 2


@pytest.mark.parametrize("first", ["as it was", "upgraded"])
def test_it_is_read_exported_and_replayed(old: Path, tmp_path: Path, first: str) -> None:
    if first == "upgraded":
        with opened(old):
            pass
    before = version(old)
    assert said(old) == SAID
    out = tmp_path / "out.csv"
    code, _, error = running.inside("export-verdicts", old, "-o", out)
    assert (code, error) == (0, "")
    with out.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["epoch"], int(row["seq"]), row["verdict"]) for row in rows] == SAID
    # What cannot be printed is written out.
    assert rows[1]["part_id"] == r"Blech-Ä\u2028\x00"
    (picture,) = pictures(old)
    assert picture.load()[0].verdict == decode_verdict(verdicts_of(old, EPOCH)[1])
    bundle = tiny.write_bundle(tmp_path / "new.onnx")
    code, told, error = running.inside("replay", old, "--bundle", bundle)
    assert (code, error) == (0, "")
    assert told.startswith("1 pictures judged")
    # Whoever only reads leaves it as it was.
    assert version(old) == before


def test_it_can_be_searched_and_says_how_far_it_is(
    old: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(search, "_TELL_EVERY_S", 0.0)
    monkeypatch.setattr(search, "_FILED_AT_ONCE", 4)
    with contextlib.closing(sqlite3.connect(old / FILE)) as db, db:
        # What cannot be read is not found, and does not end the upgrade.
        db.execute("UPDATE verdict SET json = '[' WHERE json LIKE '%\"PASS\"%' AND place % 3 = 1")
    with opened(old), Reader(old) as reader:
        left = said(old)
        found = reader.search(Filter(), None, 10).verdicts
        assert [(one.epoch, one.seq, one.verdict.value) for one in reversed(found)] == left
        failed = reader.search(Filter(verdicts=(Verdict.FAIL,)), None, 10).verdicts
        assert [(one.epoch, one.seq) for one in failed] == [(EPOCH, 2), (FIRST_EPOCH, 3)]
        odd = reader.search(Filter(part_id="Blech-Ä\u2028\0"), None, 10).verdicts
        assert [(one.epoch, one.seq) for one in odd] == [
            (epoch, seq) for epoch, seq, _ in left if (epoch, seq) == (FIRST_EPOCH, 2)
        ]
    # Once on the copy, once on the journal itself; what has the narrow table needs nothing.
    steps = [r.getMessage() for r in caplog.records if r.getMessage().startswith("upgrading")]
    wanted = [] if old.name in {"journal_4", "journal_5"} else ["4 of=6", "6 of=6"] * 2
    assert steps == [f"upgrading verdicts={one}" for one in wanted]


def test_what_was_ordered_before_an_upgrade_stands(tmp_path: Path) -> None:
    folder = shutil.copytree(FIXTURES[3], tmp_path / "old")
    limit = schema.LimitInForce("line-1", "r", "top", 1.2, 1.0)
    with opened(folder) as journal:
        assert journal.limits("line-1") == [limit]
        assert journal.bundles() == []
    with Reader(folder) as reader:
        (found,) = reader.deeds(None, 10)
        assert (found[1].kind, found[1].by, found[1].after) == ("limit", "Li Wei", "1.2")


def verdicts_of(folder: Path, epoch: str) -> list[bytes]:
    with Reader(folder) as reader:
        return reader.verdicts(epoch, 1, None, 100)


def test_it_is_replayed_over_the_wire(old: Path) -> None:
    recorded = Recorded(old)
    with (
        contextlib.closing(recorded),
        serving(recorded, lambda request: None) as commands,
        connected(zmq.DEALER, commands.address, None) as peer,
    ):
        peer.send(encode(ReplayCommand(epoch=EPOCH)))
        assert peer.poll(5000)
        reply = decode_reply(peer.recv())
    assert [(each.epoch, each.seq, each.verdict.value) for each in reply.verdicts] == SAID[3:]
    assert reply.next_epoch is None


def fail(db: schema.Database) -> None:
    db.execute("CREATE TABLE half (made INTEGER)")
    db.execute("DELETE FROM verdict")
    db.execute("SELECT 1 FROM nowhere")


def lack_room(monkeypatch: pytest.MonkeyPatch) -> None:
    full = SimpleNamespace(total=1, used=1, free=2**20)
    monkeypatch.setattr(upgrade.shutil, "disk_usage", lambda path: full)


@pytest.mark.parametrize("room", [True, False])
def test_step_that_fails_leaves_it_as_it_was(
    old: Path, monkeypatch: pytest.MonkeyPatch, room: bool
) -> None:
    before = version(old), said(old)
    number = before[0]
    if not room:
        lack_room(monkeypatch)
    monkeypatch.setattr(schema, "STEPS", (*schema.STEPS[:number], fail))
    with pytest.raises(JournalError, match=f"{FILE}: cannot be .*no such table: nowhere"):
        Journal(old)
    monkeypatch.undo()
    assert (version(old), said(old)) == before
    assert not list(old.glob("*.upgrade*"))
    with opened(old) as journal:
        assert len(journal.begin("new", 1).unanswered) == 1


def test_without_room_for_a_copy_it_says_so(
    old: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    lack_room(monkeypatch)
    with opened(old):
        pass
    (said_so,) = (r.getMessage() for r in caplog.records if "not tried first" in r.getMessage())
    assert 'why="no room for a copy of 0 MB' in said_so
    assert (version(old), said(old)) == (VERSION, SAID)


def test_trial_that_a_power_cut_ended_is_forgotten(old: Path) -> None:
    for ending in ("", "-wal", "-shm"):
        (old / f"{FILE}.upgrade{ending}").write_bytes(b"half")
    with opened(old):
        assert not list(old.glob("*.upgrade*"))
    assert said(old) == SAID
