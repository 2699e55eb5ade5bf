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
from typing import Final, TypeVar

from inspector.errors import JournalError
from inspector.files import lock_file, lock_folder, sync_folder
from inspector.journal.open_files import OpenFiles, Rescue
from inspector.journal.recovery import (
    Damage,
    count_damaged,
    damaged_at,
    name_of,
    recover,
    set_aside,
)
from inspector.journal.schema import (
    FILE,
    PLACES_PER_EPOCH,
    VERSION,
    Accepted,
    BundleInForce,
    Deed,
    Kept,
    LimitInForce,
    RecipeInForce,
    Recovered,
    Report,
    StopOrder,
    begin,
    bundles,
    damaged,
    delete,
    finding_of,
    forget_aged,
    in_force,
    keep,
    limits,
    marked,
    note,
    read_text,
    record,
    record_reports,
    stop_order,
)
from inspector.journal.search import Finding, file_new, file_rest
from inspector.journal.upgrade import check, upgrade
from inspector.logs import say
from inspector.wire.messages import VerdictMessage

T = TypeVar("T")

_RESERVE_BYTES: Final = 16 * 2**20
_RESERVE_STEP: Final = 2**19
"""Bytes that are added to the reserve with one commit."""
_DAY_US: Final = 86_400_000_000
_MOST_SUSPECTS: Final = 100_000
_MOST_SET_ASIDE: Final = 100
"""Damaged rows that are moved in one transaction, for which verdicts wait."""
_MOST_NAMED: Final = 10


class Journal:
    """The one writer of a folder. Threads may take turns at it, not use it at once.

    Beside the database lies a reserve, a file of 16 MB. When the disk is full the journal deletes
    it, so that there is space for thousands of verdicts, and goes on; with space on the disk
    again it fills the reserve again. Both are logged.
    """

    def __init__(self, folder: Path, verdict_days: int = 365) -> None:
        """Open the journal in ``folder``, or make it. Raises :class:`JournalError`.

        A journal of an earlier version is brought to this one's. One that is damaged, or of a newer
        version, is refused and left as it is.
        """
        self._folder = folder
        self._path = folder / FILE
        self._reserve = folder / "reserve"
        self._has_reserve = False
        self._trouble = ""
        self._keep_us = verdict_days * _DAY_US
        self._number = 0
        self._latest_us = 0
        self._aged_us = 0
        """Verdicts judged before this are gone, or are to stay."""
        self._damaged = 0
        self._rescue: Rescue | None = None
        self._unsure: list[int] = []
        self._waiting: Sequence[Finding] = ()
        """Rows of verdicts that are not filed yet."""
        self._suspects: set[int] = set()
        with contextlib.ExitStack() as undo:
            self._locks = _lock(folder)
            undo.callback(self._unlock)
            self._db = self._open()
            undo.callback(self._db.close)
            check(self._db, self._path)
            self._files = OpenFiles(self._path)
            self._fill_reserve(_RESERVE_BYTES)
            undo.pop_all()

    @property
    def trouble(self) -> str:
        """Why the journal has no reserve to fall back on, in words; "" while it has one.

        Any thread may read it.
        """
        return self._trouble

    @property
    def damaged(self) -> int:
        """Rows that could not be read and were set aside, ever. Any thread may read it."""
        return self._damaged

    def in_force(self, station: str) -> RecipeInForce | None:
        """The recipe that ``station`` judged by at last; None: the journal does not say.

        Raises :class:`JournalError`.
        """
        try:
            return in_force(self._db, station)
        except sqlite3.Error as error:
            raise damaged(self._path, error) from None

    def stop_order(self, station: str) -> StopOrder:
        """Whether ``station`` is stopped by command. Raises :class:`JournalError`."""
        try:
            return stop_order(self._db, station)
        except sqlite3.Error as error:
            raise damaged(self._path, error) from None

    def limits(self, station: str) -> list[LimitInForce]:
        """The limits that were ordered for ``station``. Raises :class:`JournalError`."""
        try:
            return limits(self._db, station)
        except sqlite3.Error as error:
            raise damaged(self._path, error) from None

    def bundles(self) -> list[BundleInForce]:
        """The bundles that were installed, for whichever station. Raises :class:`JournalError`."""
        try:
            return bundles(self._db, VERSION)
        except sqlite3.Error as error:
            raise damaged(self._path, error) from None

    def marked(self) -> list[tuple[str, int]]:
        """(epoch, seq) of every verdict that is marked. Raises :class:`JournalError`."""
        try:
            return marked(self._db)
        except sqlite3.Error as error:
            raise damaged(self._path, error) from None

    def keep(self, kept: Kept | None, deed: Deed | None = None) -> None:
        """Record what a station goes on with from now on, and who did that.

        None: there is nothing of the kind. It is on the disk when this returns. Raises
        :class:`JournalError`.
        """

        def work() -> int:
            if kept is not None:
                keep(self._db, kept)
            if deed is not None:
                note(self._db, deed)
            return 1

        self._transact(work)

    def begin(self, epoch: str, started_us: int) -> Recovered:
        """Begin an epoch, and return what the earlier ones left. Raises :class:`JournalError`.

        ``started_us``: wall time of the start, µs since the Unix epoch.
        """
        before_us = time.time_ns() // 1000 - self._keep_us
        self._number = self._transact(lambda: begin(self._db, epoch, started_us, before_us))
        self._latest_us = self._aged_us = 0
        recovered, damages = self._transact(lambda: recover(self._db, self._number, started_us))
        self._transact(lambda: file_rest(self._db, self._number * PLACES_PER_EPOCH - 1))
        self._waiting = ()
        self._damaged = self._transact(lambda: count_damaged(self._db))
        self._tell_damages(damages)
        return recovered

    def commit(
        self,
        triggers: Sequence[Accepted],
        verdicts: Sequence[VerdictMessage],
        reports: Sequence[Report] = (),
    ) -> Sequence[Report]:
        """Record accepted triggers and verdicts of the epoch, and reports; all or nothing.

        They are on the disk when it returns; a verdict closes the trigger that it answers. For each
        new verdict at most two older than ``verdict_days`` are deleted that nobody has marked, so
        that an hour with a wrong clock does not empty the journal. A FAULT takes the place of what
        was recorded under its number; a second PASS or FAIL is refused. Returns the ``reports`` on
        verdicts, of any epoch, that the journal does not have, or no longer. Raises
        :class:`JournalError`; the same verdicts, or others with their numbers, may then be tried
        again.
        """
        before_us = time.time_ns() // 1000 - self._keep_us

        def write() -> tuple[int, int, Sequence[Finding], Sequence[Report]]:
            delete(self._db, self._unsure)
            latest_us = record(self._db, self._number, self._latest_us, triggers, verdicts)
            aged_us, waiting = self._aged_us, self._waiting
            if verdicts:
                base = self._number * PLACES_PER_EPOCH
                found = [finding_of(base + verdict.seq, verdict) for verdict in verdicts]
                waiting = file_new(self._db, found, waiting)
                aged_us = forget_aged(
                    self._db,
                    self._number,
                    verdicts[-1].seq,
                    since_us=aged_us,
                    before_us=before_us,
                    most=2 * len(verdicts),
                )
            return latest_us, aged_us, waiting, record_reports(self._db, reports)

        try:
            self._latest_us, self._aged_us, self._waiting, unknown = self._transact(write)
        except _OvertakenError:
            # They may be on the disk, and will have been published as something else.
            base = self._number * PLACES_PER_EPOCH
            self._unsure = [base + verdict.seq for verdict in verdicts]
            raise
        self._unsure = []
        # A piece with each commit, so that no verdict waits until all of the reserve is written.
        self._fill_reserve(_RESERVE_STEP)
        return unknown

    def suspect(self, damage: Damage) -> None:
        """A reader could not read this row: ``tend`` looks at it. Any thread may call."""
        if damage.place is not None and len(self._suspects) < _MOST_SUSPECTS:
            self._suspects.add(damage.place)

    def tend(self) -> None:
        """What is due once a second: look after the files, and set aside rows that are damaged.

        Of these only the ones that were suspected. Raises :class:`JournalError`.
        """
        self._look(written=False)
        if self._has_reserve and not self._reserve_is_whole():
            say(
                "reserve missing", logging.WARNING, folder=self._folder, why="it was deleted or cut"
            )
            self._has_reserve = False
        if not self._suspects:
            return
        places = [self._suspects.pop() for _ in range(min(len(self._suspects), _MOST_SET_ASIDE))]
        now_us = time.time_ns() // 1000

        def move() -> list[Damage]:
            damages = damaged_at(self._db, sorted(places))
            set_aside(self._db, damages, now_us)
            return damages

        damages = self._transact(move)
        self._damaged += len(damages)
        self._tell_damages(damages)

    def _tell_damages(self, damages: Sequence[Damage]) -> None:
        """Name the rows that were set aside."""
        if not damages:
            return
        names = [
            each.origin if each.place is None else name_of(self._db, each.place)
            for each in damages[:_MOST_NAMED]
        ]
        more = f" and {len(damages) - _MOST_NAMED} more" if len(damages) > _MOST_NAMED else ""
        say(
            "damaged",
            logging.WARNING,
            rows=len(damages),
            which=f"{', '.join(names)}{more}",
            why=damages[0].why,
        )

    def close(self) -> None:
        """Let the journal go; twice does no harm."""
        if self._locks:
            if self._rescue is not None:
                self._rescue.finish()
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
        db.text_factory = read_text
        try:
            upgrade(db, self._path)
        except BaseException:
            db.close()
            raise
        # The names of the file and of the folder must outlive a power cut, too. A folder above that
        # is closed to this user is not synced: somebody else made the name in it.
        for folder in (self._folder, self._folder.parent):
            with contextlib.suppress(PermissionError):
                sync_folder(folder)
        return db

    def _transact(self, work: Callable[[], T]) -> T:
        self._look(written=False)
        try:
            try:
                result = self._attempt(work)
            except sqlite3.OperationalError as error:
                if not self._free_reserve(error):
                    raise
                result = self._attempt(work)
        except (sqlite3.OperationalError, sqlite3.IntegrityError) as error:
            raise JournalError(
                f"{self._path}: not written: {error}; free some space, look after the disk"
            ) from None
        except sqlite3.Error as error:
            raise damaged(self._path, error) from None

        try:
            self._look(written=True)
        except JournalError as error:
            raise _OvertakenError(str(error)) from None
        return result

    def _look(self, *, written: bool) -> None:
        """Raise :class:`JournalError` unless the files are still those under their names.

        What the open ones have is saved, the first time that they are not.
        """
        why = self._files.look(written=written)
        if not why:
            if self._rescue is None:
                return
            if not self._rescue.is_alive():
                say("journal is back", journal=self._path)
                self._rescue = None
                return
            why = f"{self._path} is back, and is being saved"
        elif self._rescue is None:
            say("journal lost", logging.ERROR, why=why)
            self._rescue = Rescue(
                self._db, self._path, log_is_lost=why.startswith(f"{self._path}-")
            )
            self._rescue.start()
        raise JournalError(
            f"{why}; nothing can be recorded there: put it back, or stop the station, and start "
            f"it again (the log names the file in which the verdicts were saved)"
        )

    def _attempt(self, work: Callable[[], T]) -> T:
        try:
            self._db.execute("BEGIN IMMEDIATE")
            result = work()
            self._db.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")
            # What was written by then is no other program's; what else changed is found again.
            self._files.look(written=True)
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
            if self._reserve.exists() and not self._reserve.is_file():
                # Opening a pipe would wait for its reader for ever.
                self._lack_reserve(f"{self._reserve} is no file; delete it")
                return
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

    def _reserve_is_whole(self) -> bool:
        try:
            return self._reserve.stat().st_size >= _RESERVE_BYTES
        except OSError:
            return False

    def _lack_reserve(self, why: str) -> None:
        """Remember why there is no reserve, and log it, unless that was done already."""
        if not self._trouble:
            self._trouble = f"{self._folder}: the journal has no reserve: {why}"
            say("reserve missing", logging.WARNING, folder=self._folder, why=why)


class _OvertakenError(JournalError):
    """It was committed, and by then the files were no longer those under their names."""


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
