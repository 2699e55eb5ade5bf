from __future__ import annotations

import contextlib
import logging
import os
import random
import re
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from inspector.errors import JournalError
from inspector.journal.reader import Reader
from inspector.journal.schema import FILE, VERSION, Recovered
from inspector.journal.writer import Journal
from tests.journal.powerloss import cut_often
from tests.paths import ROOT
from tests.records import EPOCH, trigger, verdict

TRIALS = 8


@contextlib.contextmanager
def opened(folder: Path) -> Iterator[Journal]:
    journal = Journal(folder)
    try:
        yield journal
    finally:
        journal.close()


def seqs(folder: Path, epoch: str = EPOCH) -> list[int]:
    with Reader(folder) as reader:
        found = reader.verdicts(epoch, 1, None, 1_000_000)
    return [int(json.partition(b'"seq":')[2].partition(b",")[0]) for json in found]


def python(*arguments: str, **options: object) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, *arguments], cwd=ROOT, stdout=subprocess.PIPE, **options
    )


def test_kill_loses_nothing_acknowledged(tmp_path: Path) -> None:
    chance = random.Random(4)
    left_open = 0
    for trial in range(TRIALS):
        epoch = f"epoch-{trial}"
        child = python("-m", "tests.journal.journal_writer", str(tmp_path), epoch)
        assert child.stdout is not None
        # The trigger that the killed one left open was not answered in between.
        assert child.stdout.readline() == b"R %d\n" % left_open
        said = child.stdout.readline()
        time.sleep(chance.uniform(0.0, 0.15))
        child.send_signal(signal.SIGKILL)
        said += child.communicate(timeout=10)[0]
        lines = [line.split() for line in said.decode().split("\n")[:-1]]
        acknowledged = {kind: int(number) for kind, number in lines}

        found = seqs(tmp_path, epoch)
        assert len(found) >= acknowledged.get("V", 0)
        assert found == list(range(1, len(found) + 1))
        with opened(tmp_path) as journal:
            recovered = journal.begin(f"after-{trial}", 1)
            mine = [row for row in recovered.unanswered if row.session == epoch]
            assert [row.number for row in mine] == [len(found) + 1]
            assert mine[0].number >= acknowledged["T"]
            assert [v.trigger_seq for v in recovered.answered if v.session == epoch] == found
        left_open = len(recovered.unanswered)


def test_power_cut_loses_nothing_acknowledged(tmp_path: Path) -> None:
    found = cut_often(tmp_path, "lossy", cuts=25)
    assert (found.cuts, found.verdicts, found.triggers, found.inconsistent) == (25, 0, 0, 0)


@pytest.mark.parametrize("lax", ["OFF", "NORMAL"])
def test_power_cut_test_notices_a_journal_that_does_not_sync(tmp_path: Path, lax: str) -> None:
    found = cut_often(tmp_path, lax, f"synchronous={lax}", cuts=25)
    assert found.verdicts > 100
    assert found.triggers > 0


FILL = """
import logging
import sys
from pathlib import Path
from inspector.errors import JournalError
from inspector.journal.writer import Journal
from tests.records import EPOCH, verdict

logging.basicConfig(level=logging.INFO, format="%(message)s")
journal = Journal(Path(sys.argv[1]) / "journal")
journal.begin(EPOCH, 1)
assert (Path(sys.argv[1]) / "journal" / "reserve").stat().st_size == 16 * 2**20
print("whole", journal.trouble == "")
hog = (Path(sys.argv[1]) / "hog").open("wb", buffering=0)
try:
    while True:
        hog.write(bytes(2**16))
except OSError:
    pass
seq = 0
try:
    while True:
        journal.commit([], [verdict(seq + 1, detail="x" * 20000)])
        seq += 1
        if journal.trouble and "first" not in locals():
            first = seq
except JournalError as error:
    print(error)
hog.truncate(0)
journal.commit([], [verdict(seq + 1, detail="y")])
for _ in range(40):
    seq += 1
    journal.commit([], [verdict(seq + 1, detail="y")])
print("again", journal.trouble == "")
journal.close()
print(first, seq + 1)
"""


def test_full_disk_leaves_the_journal_its_reserve(tmp_path: Path) -> None:
    mount = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    tmpfs = f"mount -t tmpfs -o size=80m tmpfs {tmp_path}"
    # A container may forbid it.
    if shutil.which("unshare") is None or (
        subprocess.run([*mount, tmpfs], capture_output=True, check=False).returncode
    ):
        pytest.skip("no small file system can be made here")
    script = f"{tmpfs} && exec {sys.executable} -c '{FILL}' {tmp_path}"
    done = subprocess.run(
        [*mount, script], capture_output=True, text=True, cwd=ROOT, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    whole, error, again, last = done.stdout.splitlines()
    assert (whole, again) == ("whole True", "again True")
    assert "not written: database or disk is full; free some space" in error
    first, total = map(int, last.split())
    # 16 MB of reserve, in the WAL and once more in the database: some hundred verdicts of 20 kB.
    assert total - first > 300
    freed, filled = done.stderr.splitlines()
    assert freed == f'reserve freed folder={tmp_path}/journal why="database or disk is full"'
    assert filled == f"reserve filled folder={tmp_path}/journal"


def test_disk_that_refuses_fails_the_commit_and_nothing_else(tmp_path: Path) -> None:
    with opened(tmp_path) as journal:
        journal.begin(EPOCH, 1)
        journal.commit([], [verdict(1)])
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        wal = (tmp_path / f"{FILE}-wal").stat().st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (wal + 8192, hard))
        try:
            with pytest.raises(JournalError, match=r"not written.*look after the disk"):
                journal.commit([trigger(9)], [verdict(2, detail="x" * 100_000)])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert seqs(tmp_path) == [1]
        # The number is free: what was not recorded is recorded as what was published instead.
        journal.commit([], [verdict(2, verdict="FAULT", score=None, reason="journal_failed")])
        journal.commit([], [verdict(3)])
    assert seqs(tmp_path) == [1, 2, 3]
    with opened(tmp_path) as journal:
        assert journal.begin("next", 2).unanswered == ()


def test_reserve_that_is_freed_and_filled_again_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with opened(tmp_path) as journal:
        journal.begin(EPOCH, 1)
        journal.commit([], [verdict(1)])
        assert (journal.trouble, caplog.records) == ("", [])
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        wal = (tmp_path / f"{FILE}-wal").stat().st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (wal + 8192, hard))
        try:
            for _ in range(2):
                with pytest.raises(JournalError):
                    journal.commit([], [verdict(2, detail="x" * 100_000)])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert not (tmp_path / "reserve").exists()
        (freed,) = caplog.records
        assert freed.levelno == logging.WARNING
        assert freed.getMessage().startswith(f"reserve freed folder={tmp_path} why=")
        words = "could not be written .* freed its reserve .*; free some space on the disk"
        for seq in range(2, 34):
            assert re.fullmatch(f"{tmp_path}: the journal {words}", journal.trouble)
            journal.commit([], [verdict(seq)])
        assert journal.trouble == ""
    assert caplog.records[1].getMessage() == f"reserve filled folder={tmp_path}"
    assert len(caplog.records) == 2
    assert (tmp_path / "reserve").stat().st_size == 16 * 2**20


def test_second_daemon_is_refused(tmp_path: Path) -> None:
    with opened(tmp_path) as journal:
        with pytest.raises(JournalError, match="another inspector keeps its journal there"):
            Journal(tmp_path)
        journal.begin(EPOCH, 1)
        journal.commit([], [verdict(1)])
    with opened(tmp_path) as journal:
        journal.begin("next", 2)
    assert seqs(tmp_path, EPOCH) == [1]


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[4096:8192] = os.urandom(4096)
    path.write_bytes(data)


@pytest.mark.parametrize("how", ["noise", "damaged page", "cut in half"])
def test_damaged_journal_is_refused_with_its_cure_and_kept(tmp_path: Path, how: str) -> None:
    path = tmp_path / FILE
    with opened(tmp_path) as journal:
        journal.begin(EPOCH, 1)
        journal.commit([], [verdict(seq) for seq in range(1, 200)])
    if how == "noise":
        path.write_bytes(b"not a database at all" * 1000)
    elif how == "damaged page":
        damage(path)
    else:
        os.truncate(path, path.stat().st_size // 2 // 4096 * 4096)
    before = path.read_bytes()
    with pytest.raises(JournalError, match=rf"{FILE}: damaged .*mv {path} ") as caught:
        Journal(tmp_path)
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == before
    # Moved aside as told, a new one begins.
    path.rename(tmp_path / f"{FILE}.damaged")
    with opened(tmp_path) as journal:
        assert journal.begin(EPOCH, 1) == Recovered((), ())


def test_foreign_or_newer_database_is_refused_untouched(tmp_path: Path) -> None:
    path = tmp_path / FILE
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE recipes (name TEXT)")
    with pytest.raises(JournalError, match="not a journal"):
        Journal(tmp_path)
    with contextlib.closing(sqlite3.connect(path)) as other:
        assert other.execute("PRAGMA journal_mode").fetchone() == ("delete",)
    path.unlink()
    with opened(tmp_path) as journal:
        journal.begin(EPOCH, 1)
    with contextlib.closing(sqlite3.connect(path)) as newer:
        newer.execute(f"PRAGMA user_version={VERSION + 1}")
    told = f"of version {VERSION + 1}, this inspector has {VERSION}; use the inspector that wrote"
    with pytest.raises(JournalError, match=told):
        Journal(tmp_path)
    with pytest.raises(JournalError, match=told):
        Reader(tmp_path)


def test_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(JournalError, match=r"cannot be written: .*choose another journal.folder"):
        Journal(tmp_path / "file" / "journal")
