"""The journal's files are deleted, moved, cut or replaced while they are open."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import shutil
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from inspector.errors import JournalError
from inspector.journal.open_files import Rescue
from inspector.journal.reader import Reader
from inspector.journal.schema import FILE, Delivered, Mark
from inspector.journal.search import Filter
from inspector.journal.writer import Journal
from tests.records import EPOCH, NOW_US, answer, trigger, verdict

RECORDED = 900
"""Verdicts before the attack: more than one checkpoint."""


@contextlib.contextmanager
def opened(folder: Path) -> Iterator[Journal]:
    with contextlib.closing(Journal(folder, verdict_days=36_500)) as journal:
        yield journal


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    folder = tmp_path / "journal"
    with opened(folder) as made:
        made.begin(EPOCH, NOW_US)
        # As with a journal that is larger than what SQLite keeps of it in memory.
        for pragma in ("wal_autocheckpoint=60", "cache_size=10"):
            made._db.execute(f"PRAGMA {pragma}").fetchall()
        for first in range(1, RECORDED, 100):
            if first > RECORDED - 200:
                made._db.execute("PRAGMA wal_autocheckpoint=0").fetchall()
            made.commit([], [verdict(seq) for seq in range(first, first + 100)])
        made.commit([trigger(RECORDED + 1)], [])
        # Some of it is in the database, and some in the log alone.
        assert (folder / FILE).stat().st_size > 200_000
        made._db.execute("PRAGMA shrink_memory").fetchall()
        yield made


def other_journal(folder: Path) -> Path:
    """A journal of another time, as somebody puts it back from a backup."""
    with opened(folder) as made:
        made.begin("other", NOW_US)
        made.commit([], [verdict(seq, epoch="other") for seq in range(1, 2000)])
    return folder / FILE


def delete(path: Path) -> None:
    path.unlink()


def move(path: Path) -> None:
    path.rename(path.with_suffix(".moved"))


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def replace(path: Path) -> None:
    other_journal(path.parent.parent / "other").replace(path)


def overwrite(path: Path) -> None:
    """The same file, and nothing of it the same: ``cp backup journal``."""
    shutil.copyfile(other_journal(path.parent.parent / "other"), path)


def overwrite_and_date_back(path: Path) -> None:
    """``cp -p backup journal``."""
    overwrite(path)
    os.utime(path, ns=(0, NOW_US * 1000))


def delete_log(path: Path) -> None:
    Path(f"{path}-wal").unlink()


def cut_log(path: Path) -> None:
    os.truncate(f"{path}-wal", 0)


def delete_index(path: Path) -> None:
    Path(f"{path}-shm").unlink()


def cut_index(path: Path) -> None:
    """What is mapped into memory and has gone ends whoever touches it (SIGBUS)."""
    os.truncate(f"{path}-shm", 0)


def move_folder(path: Path) -> None:
    path.parent.rename(path.parent.with_name("moved"))


def replace_folder(path: Path) -> None:
    move_folder(path)
    path.parent.mkdir()
    other_journal(path.parent)


def delete_folder(path: Path) -> None:
    shutil.rmtree(path.parent)


WHOLE = {delete, move, replace, delete_log, delete_index, move_folder, replace_folder}
WHOLE |= {cut_index, delete_folder}
"""After these the open handle still has everything."""
ATTACKS = [
    *(delete, move, cut, replace, overwrite, overwrite_and_date_back, delete_log, cut_log),
    *(delete_index, cut_index, move_folder, replace_folder, delete_folder),
]


def saved_in(folder: Path) -> Path:
    deadline = time.monotonic() + 10
    while not (found := sorted(folder.glob(f"{FILE}.saved-*"))):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return found[0]


@pytest.mark.parametrize("attack", ATTACKS)
def test_nothing_is_acknowledged_and_what_is_left_is_saved(
    journal: Journal,
    tmp_path: Path,
    attack: Callable[[Path], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    folder = tmp_path / "journal"
    attack(folder / FILE)
    for seq in (1, 2) if attack is not cut_index else (1,):
        with pytest.raises(JournalError, match="nothing can be recorded there: put it back"):
            journal.commit([trigger(RECORDED + 1 + seq)], [verdict(RECORDED + seq)])
    if attack is not cut_index:
        with pytest.raises(JournalError):
            journal.tend()
    saved = saved_in(folder)
    journal.close()
    lost, *rest = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert lost[0] == "ERROR"
    assert re.match(f'journal lost why="{folder / FILE}(-wal|-shm)? ', lost[1])
    (told,) = rest
    count = int(re.fullmatch(f"journal saved file={saved} verdicts=([0-9]+)( why=.*)?", told[1])[1])
    # Whoever puts it in the journal's place finds a journal again.
    (tmp_path / "restored").mkdir()
    shutil.copyfile(saved, tmp_path / "restored" / FILE)
    with opened(tmp_path / "restored") as restored:
        left = restored.begin("next", NOW_US).unanswered
    with Reader(tmp_path / "restored") as reader:
        found = [json.loads(each)["seq"] for each in reader.verdicts(EPOCH, 1, None, 100_000)]
    if attack in {overwrite, overwrite_and_date_back}:
        # What was not in memory is the other journal's.
        assert len(found) <= count
        return
    assert len(found) == count
    if attack in WHOLE:
        assert found == list(range(1, RECORDED + 1))
        assert [row.number for row in left] == [RECORDED + 1]
    else:
        # Here some of it is gone for good.
        assert ' why="only what could be read of it: ' in told[1]
        assert found


def test_where_only_rows_can_be_read_every_table_is_saved(
    journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = Delivered(EPOCH, 1, "plc", "acknowledged", NOW_US)
    mark = Mark(EPOCH, 2, "desk", "Li", "good", "", NOW_US)
    journal.commit([], [], [told, mark])

    def fail(self: object, to: Path) -> int:
        raise sqlite3.DatabaseError("a page cannot be read")

    monkeypatch.setattr(Rescue, "_copy", fail)
    delete(tmp_path / "journal" / FILE)
    with pytest.raises(JournalError):
        journal.tend()
    saved = saved_in(tmp_path / "journal")
    journal.close()
    (tmp_path / "restored").mkdir()
    shutil.copyfile(saved, tmp_path / "restored" / FILE)
    with Reader(tmp_path / "restored") as reader:
        assert reader.delivered(EPOCH, 1, 9) == [told]
        assert reader.marks(EPOCH, 1, 9) == [mark]
        newest = reader.search(Filter(), None, 1).verdicts
        assert [one.seq for one in newest] == [RECORDED]


@pytest.mark.parametrize("attack", [delete, delete_log, cut_log, move_folder])
def test_once_a_second_it_is_found_without_a_commit(
    journal: Journal, tmp_path: Path, attack: Callable[[Path], None]
) -> None:
    journal.tend()
    attack(tmp_path / "journal" / FILE)
    with pytest.raises(JournalError):
        journal.tend()


def test_folder_that_is_moved_back_is_written_again(journal: Journal, tmp_path: Path) -> None:
    folder = tmp_path / "journal"
    move_folder(folder / FILE)
    with pytest.raises(JournalError, match="was deleted or moved"):
        journal.commit([], [verdict(RECORDED + 1)])
    saved_in(folder)
    while any(isinstance(one, Rescue) for one in threading.enumerate()):
        time.sleep(0.01)
    shutil.rmtree(folder)
    (tmp_path / "moved").rename(folder)
    journal.commit([], [answer(RECORDED + 1, trigger(RECORDED + 1))])
    with Reader(folder) as reader:
        assert reader.count() == RECORDED + 1


def test_what_was_committed_as_the_files_went_is_no_record(
    journal: Journal, tmp_path: Path
) -> None:
    """Between the commit and the answer; what is told then is a FAULT under the same number."""
    folder = tmp_path / "journal"
    journal._db.set_trace_callback(
        lambda sql: move_folder(folder / FILE) if sql == "COMMIT" else None
    )
    with pytest.raises(JournalError, match="was deleted or moved"):
        journal.commit([], [verdict(RECORDED + 1)])
    journal._db.set_trace_callback(None)
    saved_in(folder)
    while any(isinstance(one, Rescue) for one in threading.enumerate()):
        time.sleep(0.01)
    shutil.rmtree(folder)
    (tmp_path / "moved").rename(folder)
    told = verdict(RECORDED + 1, verdict="FAULT", score=None, reason="journal_failed")
    journal.commit([], [told, verdict(RECORDED + 2)])
    with Reader(folder) as reader:
        found = reader.verdicts(EPOCH, RECORDED + 1, None, 10)
    assert [json.loads(each)["verdict"] for each in found] == ["FAULT", "PASS"]


def test_index_that_was_cut_is_made_anew(journal: Journal, tmp_path: Path) -> None:
    folder = tmp_path / "journal"
    cut_index(folder / FILE)
    with pytest.raises(JournalError, match="-shm was cut from"):
        journal.tend()
    saved_in(folder)
    while any(isinstance(one, Rescue) for one in threading.enumerate()):
        time.sleep(0.01)
    journal.commit([], [verdict(RECORDED + 1)])
    with Reader(folder) as reader:
        assert reader.count() == RECORDED + 1


def test_readers_and_copies_are_no_attack(journal: Journal, tmp_path: Path) -> None:
    """What people and backup programs do to a journal at work."""
    path = tmp_path / "journal" / FILE
    for seq in range(RECORDED + 1, RECORDED + 20):
        with Reader(path.parent) as reader:
            assert reader.count() == seq - 1
        # In a process of its own: closing a database of one's own process drops its locks.
        script = f"import sqlite3; sqlite3.connect({str(path)!r}).execute('SELECT 1 FROM epoch')"
        if seq % 10 == 0:
            subprocess.run(["python3", "-c", script], check=True)
            subprocess.run(["cp", "-a", path.parent, tmp_path / f"copy-{seq}"], check=True)
        path.chmod(0o600 + seq % 2 * 0o040)
        os.utime(path, ns=(0, path.stat().st_mtime_ns))
        journal.commit([], [verdict(seq)])
        journal.tend()
    journal._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def test_log_that_grew_beyond_its_limit_and_is_cut_to_it_is_no_attack(
    journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "journal" / FILE
    log = Path(f"{path}-wal")
    for pragma in ("journal_size_limit=8388608", "wal_autocheckpoint=1000"):
        journal._db.execute(f"PRAGMA {pragma}").fetchall()
    monkeypatch.setattr(journal._files, "_limits", (2**63, 8 * 2**20, 2**63))
    # A reader holds its snapshot, so that the log cannot begin anew.
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT 1 FROM verdict").fetchone()
        for seq in range(RECORDED + 1, RECORDED + 13):
            journal.commit([], [verdict(seq, detail="x" * 2**20)])
    assert log.stat().st_size > 9 * 2**20
    for seq in range(RECORDED + 13, RECORDED + 20):
        journal.commit([], [verdict(seq, detail="x" * 2**20)])
    assert log.stat().st_size <= 9 * 2**20


def test_rescue_that_takes_too_long_is_ended_by_the_stop(
    journal: Journal,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("inspector.journal.open_files._LAST_S", -1.0)
    monkeypatch.setattr("inspector.journal.open_files._PAGES", 1)
    path = tmp_path / "journal" / FILE
    path.unlink()
    with pytest.raises(JournalError):
        journal.tend()
    journal.close()
    assert [path.name for path in path.parent.glob(".*.part")] == []
    assert "the station stopped before all was saved" in caplog.text or saved_in(path.parent)


def test_disk_without_room_for_what_is_saved_is_told(
    journal: Journal, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    move_folder(tmp_path / "journal" / FILE)
    # Nothing can lie where the folder was.
    (tmp_path / "journal").write_bytes(b"")
    with pytest.raises(JournalError):
        journal.tend()
    journal.close()
    assert caplog.records[-1].getMessage().startswith("journal not saved journal=")


@pytest.mark.parametrize("attack", [Path.unlink, lambda path: os.truncate(path, 100)])
def test_reserve_that_was_deleted_or_cut_is_filled_again(
    journal: Journal,
    tmp_path: Path,
    attack: Callable[[Path], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """When the disk is full it is too late."""
    reserve = tmp_path / "journal" / "reserve"
    size = reserve.stat().st_size
    attack(reserve)
    journal.tend()
    for seq in range(RECORDED + 1, RECORDED + 40):
        journal.commit([], [verdict(seq)])
        journal.tend()
    assert reserve.stat().st_size == size
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("reserve missing ")
