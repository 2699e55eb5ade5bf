"""The writer of the journal: every verdict is committed to SQLite before it is published.

Why a commit survives a power cut: in WAL mode a transaction is one run of checksummed frames
appended to ``verdicts.sqlite3-wal``, and with ``synchronous=FULL`` SQLite syncs that file before
COMMIT returns. A transaction that a cut tears was not synced, hence not acknowledged; its checksums
are wrong, and recovery ignores it. A checkpoint syncs the WAL before it writes to the database, and
the database before the WAL is used again, so that every page is whole in one of the two. SQLite
syncs the folder when it makes a new WAL, so that its name is on the disk; the name of the folder
itself is synced here. (``synchronous=NORMAL`` and ``OFF`` leave out the first of these syncs: the
last verdicts would be lost.) A disk that reports a sync before it is done breaks this; no program
can mend that.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from inspector.errors import JournalError
from inspector.files import lock_file, lock_folder, sync_folder
from inspector.journal.schema import (
    FILE,
    Accepted,
    Recovered,
    begin,
    damaged,
    prepare,
    record,
    recover,
)
from inspector.logs import say
from inspector.wire.messages import VerdictMessage

_RESERVE_BYTES: Final = 16 * 2**20
_RESERVE_STEP: Final = 2**19
"""Bytes that are added to the reserve with one commit."""
_DAY_US: Final = 86_400_000_000
_CHECK_S: Final = 1.0


class Journal:
    """The one writer of a folder. Threads may take turns at it, not use it at once.

    Beside the database lies a reserve, a file of 16 MB. When the disk is full the journal deletes
    it, so that there is space for thousands of verdicts, and goes on; with space on the disk
    again it fills the reserve again. Both are logged.
    """

    def __init__(self, folder: Path, verdict_days: int = 365) -> None:
        """Open the journal in ``folder``, or make it. Raises :class:`JournalError`.

        A journal that is damaged, or of another version, is refused and left as it is.
        """
        self._folder = folder
        self._path = folder / FILE
        self._reserve = folder / "reserve"
        self._has_reserve = False
        self._trouble = ""
        self._keep_us = verdict_days * _DAY_US
        self._number = 0
        self._latest_us = 0
        with contextlib.ExitStack() as undo:
            self._locks = _lock(folder)
            undo.callback(self._unlock)
            self._db = self._open()
            undo.callback(self._db.close)
            self._check()
            self._fill_reserve(_RESERVE_BYTES)
            undo.pop_all()

    @property
    def trouble(self) -> str:
        """Why the journal has no reserve to fall back on, in words; "" while it has one.

        Any thread may read it.
        """
        return self._trouble

    def begin(self, epoch: str, started_us: int) -> Recovered:
        """Begin an epoch, and return what the earlier ones left. Raises :class:`JournalError`.

        ``started_us``: wall time of the start, µs since the Unix epoch.
        """
        before_us = time.time_ns() // 1000 - self._keep_us
        self._number = self._transact(lambda: begin(self._db, epoch, started_us, before_us))
        self._latest_us = 0
        try:
            return recover(self._db)
        except sqlite3.Error as error:
            raise damaged(self._path, error) from None

    def commit(self, triggers: Sequence[Accepted], verdicts: Sequence[VerdictMessage]) -> None:
        """Record accepted triggers and verdicts of the epoch, all or nothing.

        They are on the disk when it returns; a verdict closes the trigger that it answers. For each
        new verdict at most two older than ``verdict_days`` are deleted, so that an hour with a
        wrong clock does not empty the journal. Raises :class:`JournalError`; the same verdicts, or
        others with their numbers, may then be tried again.
        """
        before_us = time.time_ns() // 1000 - self._keep_us
        self._latest_us = self._transact(
            lambda: record(
                self._db, self._number, self._latest_us, triggers, verdicts, before_us=before_us
            )
        )
        # A piece with each commit, so that no verdict waits until all of the reserve is written.
        self._fill_reserve(_RESERVE_STEP)

    def close(self) -> None:
        """Let the journal go; twice does no harm."""
        if self._locks:
            self._db.close()
            self._unlock()

    def _unlock(self) -> None:
        for handle in self._locks:
            os.close(handle)
        self._locks = ()

    def _open(self) -> sqlite3.Connection:
        try:
            return self._connect()
        except sqlite3.OperationalError as error:
            # Even opening writes a little, which a full disk refuses.
            self._free_reserve(error)
        except sqlite3.Error as error:
            raise damaged(self._path, error) from None
        try:
            return self._connect()
        except sqlite3.Error as error:
            raise JournalError(
                f"{self._path}: cannot be opened: {error}; free some space, or give this user the "
                f"right to write there, or choose another journal.folder"
            ) from None

    def _connect(self) -> sqlite3.Connection:
        db = sqlite3.connect(self._path, timeout=5.0, isolation_level=None, check_same_thread=False)
        try:
            prepare(db, self._path)
        except BaseException:
            db.close()
            raise
        # The names of the file and of the folder must outlive a power cut, too. A folder above that
        # is closed to this user is not synced: somebody else made the name in it.
        for folder in (self._folder, self._folder.parent):
            with contextlib.suppress(PermissionError):
                sync_folder(folder)
        return db

    def _check(self) -> None:
        """Look for damage, for a second at most: a big journal must not keep the line waiting."""
        until = time.monotonic() + _CHECK_S
        self._db.set_progress_handler(lambda: time.monotonic() > until, 10_000)
        try:
            found = self._db.execute("PRAGMA quick_check(1)").fetchone()[0]
        except sqlite3.OperationalError:
            found = "ok"
        except sqlite3.Error as error:
            raise damaged(self._path, error) from None
        finally:
            self._db.set_progress_handler(None, 0)
        if found != "ok":
            raise damaged(self._path, " ".join(found.split()))

    def _transact(self, work: Callable[[], int]) -> int:
        try:
            try:
                return self._attempt(work)
            except sqlite3.OperationalError as error:
                if not self._free_reserve(error):
                    raise
                return self._attempt(work)
        except (sqlite3.OperationalError, sqlite3.IntegrityError) as error:
            raise JournalError(
                f"{self._path}: not written: {error}; free some space, look after the disk"
            ) from None
        except sqlite3.Error as error:
            raise damaged(self._path, error) from None

    def _attempt(self, work: Callable[[], int]) -> int:
        try:
            self._db.execute("BEGIN IMMEDIATE")
            result = work()
            self._db.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")
            raise
        return result

    def _free_reserve(self, cause: sqlite3.Error) -> bool:
        """Delete the reserve; False when there is none, or the disk lets nothing be deleted."""
        try:
            self._reserve.unlink()
        except OSError:
            return False
        self._has_reserve = False
        self._trouble = (
            f"{self._folder}: the journal could not be written ({cause}), so that it freed its "
            f"reserve and goes on in that; free some space on the disk"
        )
        say("reserve freed", logging.WARNING, folder=self._folder, why=cause)
        return True

    def _fill_reserve(self, most_bytes: int) -> None:
        """Add to the reserve where it is not whole and there is space, ``most_bytes`` at once."""
        if self._has_reserve:
            return
        try:
            there = self._reserve.stat().st_size if self._reserve.exists() else 0
            missing = _RESERVE_BYTES - there
            free = shutil.disk_usage(self._folder).free
            if missing > 0 and free < missing + _RESERVE_BYTES:
                self._lack_reserve("the disk is nearly full; free some space")
                return
            # Random: a file system that compresses would reserve nothing for zeros.
            piece = os.urandom(_RESERVE_STEP) if missing > 0 else b""
            with self._reserve.open("ab") as file:
                for at in range(0, min(missing, most_bytes), _RESERVE_STEP):
                    file.write(piece[: missing - at])
        except OSError as error:
            self._lack_reserve(f"it cannot be written: {error.strerror}; look after the disk")
            return
        self._has_reserve = missing <= most_bytes
        if self._has_reserve and self._trouble:
            self._trouble = ""
            say("reserve filled", folder=self._folder)

    def _lack_reserve(self, why: str) -> None:
        """Remember why there is no reserve, and log it, unless that was done already."""
        if not self._trouble:
            self._trouble = f"{self._folder}: the journal has no reserve: {why}"
            say("reserve missing", logging.WARNING, folder=self._folder, why=why)


def _lock(folder: Path) -> tuple[int, ...]:
    """Make the folder, and hold its locks. Raises :class:`JournalError`.

    The folder itself is locked, since somebody may delete the file ``lock`` in it; the file is for
    inspectors of earlier versions, which know only that.
    """
    try:
        folder.mkdir(mode=0o750, parents=True, exist_ok=True)
        with contextlib.ExitStack() as undo:
            handles = [lock_folder(folder)]
            undo.callback(os.close, handles[0])
            handles.append(lock_file(folder / "lock", 0o640))
            undo.pop_all()
        return tuple(handles)
    except BlockingIOError:
        raise JournalError(
            f"{folder}: another inspector keeps its journal there; stop it, or give this station "
            f"a journal.folder of its own"
        ) from None
    except OSError as error:
        raise JournalError(
            f"{folder}: cannot be written: {error.strerror}; choose another journal.folder, or "
            f"give this user the right to write there"
        ) from None
