"""Whether the files that SQLite writes are still the ones under their names, and what to do if not.

A file that is deleted, moved or replaced while it is open goes on taking what is written, and
nothing of it can be found again: every sync succeeds, and the next start finds another file.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import threading
import time
from contextlib import closing
from datetime import datetime, timezone
from pathlib import Path
from typing import Final

from inspector.errors import JournalError
from inspector.files import reason_of
from inspector.journal.recovery import read_row
from inspector.journal.schema import WAL_LIMIT_BYTES, prepare, read_text
from inspector.journal.upgrade import first_damage
from inspector.logs import say
from inspector.wire.messages import VerdictMessage

_INDEX: Final = 2
"""Place of the index among the files."""
_SECOND_NS: Final = 10**9
_PAGES: Final = 1000
"""Pages that are saved in one go, after which a stop is heard."""
_LAST_S: Final = 20.0
"""How long a station that stops waits until all is saved."""


class OpenFiles:
    """The database at ``path``, its write-ahead log and its index, as they are while one writes.

    Used by the thread that writes, and made once the database is open. It costs three system calls
    to look.
    """

    def __init__(self, path: Path) -> None:
        self._paths = tuple(Path(f"{path}{ending}") for ending in ("", "-wal", "-shm"))
        # A log is cut to this limit when it begins anew; otherwise no file ever becomes smaller.
        self._limits = (2**63, WAL_LIMIT_BYTES, 2**63)
        self._known: list[tuple[int, int] | None] = [None, None, None]
        self._sizes = [0, 0, 0]
        self._written_ns = 0
        self.look(written=True)

    def look(self, *, written: bool) -> str:
        """What happened to the files, in words; "" when they are as they were.

        ``written``: this program has committed since the last look, so that the database may have
        changed; otherwise whatever changed it was another program.
        """
        for i, path in enumerate(self._paths):
            try:
                found = path.stat()
            except FileNotFoundError:
                if self._known[i] is None:
                    continue
                return f"{path} was deleted or moved while the station had it open"
            except OSError as error:
                return f"{path} cannot be seen any more: {error.strerror}"
            identity = found.st_dev, found.st_ino
            if self._known[i] is None:
                self._known[i] = identity
            if identity != self._known[i]:
                return f"{path} was replaced by another file while the station had it open"
            if found.st_size < min(self._sizes[i], self._limits[i]):
                if i == _INDEX:
                    # It is mapped into memory: whoever touches what is missing is ended by the
                    # system. SQLite makes the index anew where it finds zeros.
                    with contextlib.suppress(OSError):
                        os.truncate(path, self._sizes[i])
                return f"{path} was cut from {self._sizes[i]} to {found.st_size} bytes"
            if i == 0:
                # A file system may round the time down once it has let go of the file's record.
                before_ns = self._written_ns - found.st_mtime_ns
                if not written and not 0 <= before_ns < _SECOND_NS:
                    return f"{path} was written by another program"
                self._written_ns = found.st_mtime_ns
            self._sizes[i] = found.st_size
        return ""


class Rescue(threading.Thread):
    """Saves what ``db`` still has of the database at ``path``, into a new file beside it.

    Nobody may use ``db`` until it has ended. What was saved, and under which name, is logged.
    ``log_is_lost``: the database itself is still the one that ``db`` has open.
    """

    def __init__(self, db: sqlite3.Connection, path: Path, *, log_is_lost: bool) -> None:
        super().__init__(name="rescue", daemon=True)
        self._db = db
        self._path = path
        self._log_is_lost = log_is_lost
        self._give_up_s = float("inf")

    def finish(self) -> None:
        """Wait until it has ended, or end it where it would take too long."""
        self._give_up_s = time.monotonic() + _LAST_S
        self.join()

    def run(self) -> None:
        """Save a whole copy, and where that cannot be had, the rows that can be read."""
        now = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%S")
        saved = self._path.with_name(f"{self._path.name}.saved-{now}")
        unfinished = saved.with_name(f".{saved.name}.part")
        try:
            saved.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
            try:
                verdicts = self._copy(unfinished)
                missing = ""
            except (sqlite3.Error, JournalError) as error:
                unfinished.unlink(missing_ok=True)
                verdicts = self._copy_rows(unfinished)
                missing = f"only what could be read of it: {reason_of(error)}"
            unfinished.replace(saved)
        except (sqlite3.Error, OSError, JournalError) as error:
            say("journal not saved", logging.ERROR, journal=self._path, why=reason_of(error))
        else:
            say("journal saved", logging.WARNING, file=saved, verdicts=verdicts, why=missing)
        finally:
            with contextlib.suppress(OSError):
                unfinished.unlink(missing_ok=True)

    def _copy(self, to: Path) -> int:
        with closing(sqlite3.connect(to, isolation_level=None)) as copy:
            self._db.backup(copy, pages=_PAGES, progress=self._go_on)
            # Rolled into one file, which is moved and copied as such.
            copy.execute("PRAGMA journal_mode=DELETE").fetchall()
            if found := first_damage(copy):
                raise sqlite3.DatabaseError(found)
            return int(copy.execute("SELECT count(*) FROM verdict").fetchone()[0])

    def _copy_rows(self, to: Path) -> int:
        with closing(sqlite3.connect(to, isolation_level=None)) as copy:
            prepare(copy, to)
            copy.execute("PRAGMA journal_mode=DELETE").fetchall()
            copy.execute("BEGIN")
            tables = copy.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
            for (table,) in tables:
                # From its other end, too, where a row in between cannot be read.
                if not self._copy_table(self._db, copy, table, "ASC"):
                    self._copy_table(self._db, copy, table, "DESC")
                if self._log_is_lost:
                    self._copy_table_without_log(copy, table)
            copy.execute("COMMIT")
            return int(copy.execute("SELECT count(*) FROM verdict").fetchone()[0])

    def _copy_table_without_log(self, copy: sqlite3.Connection, table: str) -> None:
        """What was there at the last checkpoint, of which nothing stands in the log."""
        uri = f"{self._path.resolve().as_uri()}?immutable=1"
        with closing(sqlite3.connect(uri, uri=True)) as database:
            database.text_factory = read_text
            self._copy_table(database, copy, table, "ASC")

    def _copy_table(
        self, source: sqlite3.Connection, copy: sqlite3.Connection, table: str, order: str
    ) -> bool:
        """Copy its rows in order of their keys; False when one could not be read."""
        info = list(copy.execute(f"PRAGMA table_info({table})"))
        names = [row[1] for row in info]
        # A table without rowids has a key in their place; where there are some, their order counts.
        keys = [row[1] for row in sorted(info, key=lambda row: row[5]) if row[5]]
        if not _lacks_rowids(copy, table):
            names, keys = ["rowid", *names], ["rowid"]
        columns, marks = ", ".join(names), ", ".join("?" * len(names))
        by = ", ".join(f"{key} {order}" for key in keys)
        # The names are those of this program's own tables.
        read = f"SELECT {columns} FROM {table} ORDER BY {by}"  # noqa: S608
        write = f"INSERT OR IGNORE INTO {table} ({columns}) VALUES ({marks})"  # noqa: S608
        try:
            for row in source.execute(read):
                self._go_on()
                if table != "verdict" or _is_verdict(row[0], row[-1]):
                    copy.execute(write, row)
        except sqlite3.Error:
            return False
        return True

    def _go_on(self, *_pages: int) -> None:
        if time.monotonic() > self._give_up_s:
            raise JournalError("the station stopped before all was saved")


def _lacks_rowids(db: sqlite3.Connection, table: str) -> bool:
    try:
        db.execute(f"SELECT rowid FROM {table} LIMIT 0")  # noqa: S608
    except sqlite3.OperationalError:
        return True
    return False


def _is_verdict(place: int, json: object) -> bool:
    return isinstance(json, str) and isinstance(read_row(place, json.encode()), VerdictMessage)
