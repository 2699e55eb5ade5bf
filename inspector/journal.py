"""The record of every verdict: SQLite, committed before anything is published.

Why a commit survives a power cut: in WAL mode a transaction is one run of checksummed frames
appended to ``verdicts.sqlite3-wal``, and with ``synchronous=FULL`` SQLite syncs that file before
COMMIT returns. What a cut tears was not synced, hence not acknowledged; its checksums are wrong and
recovery ignores it. A checkpoint syncs the WAL before it writes to the database and the database
before the WAL is used again, so that every page is whole in one of the two. The name of a new WAL
is synced with its folder; the folder's own name we sync. (``synchronous=NORMAL`` and ``OFF`` leave
out the first of these syncs: the last verdicts would be gone.) A disk that reports a sync before it
is done breaks this; no program can mend that.

The only owner of sqlite3.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final, Protocol

from inspector.errors import JournalError
from inspector.wire import VerdictMessage, encode

FILE: Final = "verdicts.sqlite3"

_APPLICATION: Final = 0x4C494A31
_VERSION: Final = 1
_EPOCH: Final = 2**40
"""A verdict's key is its epoch's number × this + seq: keys grow in the order of the verdicts."""
_RESERVE_BYTES: Final = 16 * 2**20
_RESERVE_STEP: Final = 2**19
_REMEMBERED: Final = 10_000
_NEVER_DELETED: Final = 100_000
_MOST_EPOCHS: Final = 1000
_CHUNK: Final = 1000
_DAY_US: Final = 86_400_000_000
_CHECK_S: Final = 1.0

_PRAGMAS: Final = (
    "journal_mode=WAL",
    "synchronous=FULL",
    # macOS: a plain fsync leaves the data in the drive's cache.
    "fullfsync=ON",
    "checkpoint_fullfsync=ON",
    "journal_size_limit=67108864",
    "cell_size_check=ON",
    "trusted_schema=OFF",
)
_SCHEMA: Final = (
    "CREATE TABLE epoch (number INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, "
    "started_us INTEGER NOT NULL)",
    # latest_us: highest judged_us of its epoch so far. It only grows, whatever the clock does.
    "CREATE TABLE verdict (place INTEGER PRIMARY KEY, latest_us INTEGER NOT NULL, "
    "json TEXT NOT NULL)",
    "CREATE INDEX verdict_age ON verdict (latest_us)",
    "CREATE TABLE open_trigger (camera TEXT NOT NULL, client TEXT NOT NULL, "
    "session TEXT NOT NULL, number INTEGER NOT NULL, part_id TEXT NOT NULL, "
    "triggered_us INTEGER NOT NULL, PRIMARY KEY (number, part_id, client, session, camera))",
    f"PRAGMA application_id={_APPLICATION}",
    f"PRAGMA user_version={_VERSION}",
)


class Database(Protocol):
    """What is asked of a connection; :class:`sqlite3.Connection` is one."""

    def execute(self, sql: str, parameters: Any = ..., /) -> Any:
        """Run one statement; the cursor with its rows."""
        ...

    def executemany(self, sql: str, parameters: Any, /) -> Any:
        """Run one statement for each of ``parameters``."""
        ...


class Accepted(Protocol):
    """A trigger that was accepted; :class:`inspector.triggers.Trigger` is one."""

    @property
    def key(self) -> tuple[str, str, str, int, str]:
        """Camera, client, session, number and part id."""
        ...

    @property
    def triggered_us(self) -> int:
        """Wall time."""
        ...


@dataclass(frozen=True)
class TriggerRow:
    """An accepted trigger, as the journal keeps it until its verdict is there."""

    camera: str
    client: str
    session: str
    number: int
    part_id: str
    triggered_us: int

    @property
    def key(self) -> tuple[str, str, str, int, str]:
        """Camera, client, session, number and part id."""
        return self.camera, self.client, self.session, self.number, self.part_id


@dataclass(frozen=True)
class Recovered:
    """What earlier starts left.

    ``unanswered``: accepted triggers without a verdict, in the order they were accepted.
    ``epochs``: (epoch, its last seq) of the newest 1,000 earlier starts, oldest first.
    ``answered``: verdicts on triggers among the newest 10,000 verdicts, oldest first: a trigger
    repeated after a crash gets its first verdict again.
    """

    unanswered: tuple[TriggerRow, ...]
    epochs: tuple[tuple[str, int], ...]
    answered: tuple[VerdictMessage, ...]


class Journal:
    """The one writer of a folder. Threads may take turns at it, not use it at once."""

    def __init__(self, folder: Path, verdict_days: int = 365) -> None:
        """Open the journal in ``folder``, or make it. Raises :class:`JournalError`.

        A journal that is damaged, or of another version, is refused and left as it is.
        """
        self._folder = folder
        self._path = folder / FILE
        self._reserve = folder / "reserve"
        self._has_reserve = False
        self._keep_us = verdict_days * _DAY_US
        self._number = 0
        self._latest_us = 0
        with contextlib.ExitStack() as undo:
            self._lock = _lock(folder)
            undo.callback(self._unlock)
            self._db = self._open()
            undo.callback(self._db.close)
            self._check()
            self._fill_reserve(_RESERVE_BYTES)
            undo.pop_all()

    @property
    def trouble(self) -> str:
        """Why the journal has no reserve to fall back on, in words; "" while it has."""
        return "" if self._has_reserve else f"{self._folder}: the disk is nearly full: free space"

    def begin(self, epoch: str, started_us: int) -> Recovered:
        """Begin an epoch; what the earlier ones left. Raises :class:`JournalError`."""
        before_us = time.time_ns() // 1000 - self._keep_us
        self._number = self._transact(lambda: begin(self._db, epoch, started_us, before_us))
        self._latest_us = 0
        try:
            return recover(self._db, self._number)
        except sqlite3.Error as error:
            raise _damaged(self._path, error) from None

    def commit(self, triggers: Sequence[Accepted], verdicts: Sequence[VerdictMessage]) -> None:
        """Record accepted triggers and verdicts of the epoch, all or nothing.

        They are on the disk when it returns; a verdict closes the trigger it answers. For each new
        verdict at most two older than ``verdict_days`` are deleted: an hour with a wrong clock does
        not empty the journal. Raises :class:`JournalError`; the same verdicts, or others with
        their numbers, may then be tried again.
        """
        before_us = time.time_ns() // 1000 - self._keep_us
        self._latest_us = self._transact(
            lambda: record(
                self._db, self._number, self._latest_us, triggers, verdicts, before_us=before_us
            )
        )
        # A little with each commit: none waits for the whole.
        self._fill_reserve(_RESERVE_STEP)

    def close(self) -> None:
        """Let the journal go; twice does no harm."""
        if self._lock >= 0:
            self._db.close()
            self._unlock()

    def _unlock(self) -> None:
        os.close(self._lock)
        self._lock = -1

    def _open(self) -> sqlite3.Connection:
        try:
            return self._connect()
        except sqlite3.OperationalError:
            # Even opening writes a little, which a full disk refuses.
            self._free_reserve()
        except sqlite3.Error as error:
            raise _damaged(self._path, error) from None
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
        # The names of file and folder outlive a power cut, too; a parent may be closed to us.
        for folder in (self._folder, self._folder.parent):
            with contextlib.suppress(PermissionError):
                _sync(folder)
        return db

    def _check(self) -> None:
        """Look for damage, a second at most: a big journal must not keep the line waiting."""
        until = time.monotonic() + _CHECK_S
        self._db.set_progress_handler(lambda: time.monotonic() > until, 10_000)
        try:
            found = self._db.execute("PRAGMA quick_check(1)").fetchone()[0]
        except sqlite3.OperationalError:
            found = "ok"
        except sqlite3.Error as error:
            raise _damaged(self._path, error) from None
        finally:
            self._db.set_progress_handler(None, 0)
        if found != "ok":
            raise _damaged(self._path, " ".join(found.split()))

    def _transact(self, work: Callable[[], int]) -> int:
        try:
            try:
                return self._attempt(work)
            except sqlite3.OperationalError:
                if not self._free_reserve():
                    raise
                return self._attempt(work)
        except (sqlite3.OperationalError, sqlite3.IntegrityError) as error:
            raise JournalError(
                f"{self._path}: not written: {error}; free some space, look after the disk"
            ) from None
        except sqlite3.Error as error:
            raise _damaged(self._path, error) from None

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

    def _free_reserve(self) -> bool:
        """Give the reserve back; False when there is none, or the disk lets nothing be deleted."""
        try:
            self._reserve.unlink()
        except OSError:
            return False
        self._has_reserve = False
        return True

    def _fill_reserve(self, most_bytes: int) -> None:
        """Add to the reserve where it is not whole and there is space, ``most_bytes`` at once."""
        if self._has_reserve:
            return
        with contextlib.suppress(OSError), self._reserve.open("ab") as file:
            missing = _RESERVE_BYTES - file.tell()
            free = shutil.disk_usage(self._folder).free
            if missing > 0 and free < missing + _RESERVE_BYTES:
                return
            # Random: a file system that compresses would reserve nothing for zeros.
            piece = os.urandom(_RESERVE_STEP) if missing > 0 else b""
            for at in range(0, min(missing, most_bytes), _RESERVE_STEP):
                file.write(piece[: missing - at])
            file.flush()
            self._has_reserve = missing <= most_bytes


class Reader:
    """Reads a journal that a daemon may be writing. Used by one thread at a time."""

    def __init__(self, folder: Path) -> None:
        """Raises :class:`JournalError` where there is no journal."""
        self._path = folder / FILE
        try:
            found = self._path.is_file()
        except OSError as error:
            raise JournalError(
                f"{folder}: cannot be read: {error.strerror}; run this as the station's user"
            ) from None
        if not found:
            raise JournalError(
                f"{folder}: no journal there; give the folder that the station's log names as its "
                f"journal"
            )
        self._db = self._open()

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let the journal go."""
        self._db.close()

    def verdicts(self, epoch: str, first: int, last: int | None, limit: int) -> list[bytes]:
        """Verdicts ``first`` to ``last`` (None: to the end) of ``epoch``, JSON as published.

        At most ``limit``, in the order of seq; [] for an epoch that is not known.
        """
        known = self._fetch("SELECT number FROM epoch WHERE name = ?", epoch)
        if not known:
            return []
        base = known[0][0] * _EPOCH
        until = base + min(_EPOCH - 1, _EPOCH - 1 if last is None else last)
        return self._jsons(base + max(first, 0), until, limit)

    def since(self, us: int, limit: int) -> list[bytes]:
        """Of each epoch what was judged at ``us`` (µs since the Unix epoch) or came after that.

        At most ``limit``, in the order they were made.
        """
        return list(islice(self.walk(us), limit))

    def walk(self, since_us: int = 0) -> Iterator[bytes]:
        """Like ``since``, all of them. Raises :class:`JournalError`."""
        for (number,) in self._fetch("SELECT number FROM epoch ORDER BY number"):
            place = self._first_since(number, since_us)
            until = (number + 1) * _EPOCH - 1
            while place is not None:
                rows = self._fetch(
                    "SELECT place, CAST(json AS BLOB) FROM verdict WHERE place BETWEEN ? AND ? "
                    "ORDER BY place LIMIT ?",
                    *(place, until, _CHUNK),
                )
                yield from (json for _, json in rows)
                place = rows[-1][0] + 1 if rows else None

    def epochs(self) -> list[tuple[str, int]]:
        """(epoch, last seq in the journal) of the newest 1,000 starts, oldest first."""
        return self._asked(lambda: epochs(self._db))

    def following(self, epoch: str) -> str | None:
        """The next epoch that has verdicts. Raises LookupError for one that is not known."""
        known = self._fetch("SELECT number FROM epoch WHERE name = ?", epoch)
        if not known:
            raise LookupError(epoch)
        found = self._fetch(
            "SELECT name FROM epoch WHERE number > ? AND EXISTS (SELECT 1 FROM verdict WHERE place "
            "BETWEEN epoch.number * ? AND epoch.number * ? + ?) ORDER BY number LIMIT 1",
            *(known[0][0], _EPOCH, _EPOCH, _EPOCH - 1),
        )
        return str(found[0][0]) if found else None

    def count(self) -> int:
        """Verdicts in the journal; reads all of it."""
        return int(self._fetch("SELECT count(*) FROM verdict")[0][0])

    def _open(self) -> sqlite3.Connection:
        uri = f"{self._path.resolve().as_uri()}?mode=ro"
        if not Path(f"{self._path}-wal").exists() and not os.access(self._path.parent, os.W_OK):
            # Nobody writes, and SQLite cannot make its files here: the file stays as it is.
            uri += "&immutable=1"
        with contextlib.ExitStack() as undo:
            try:
                db = sqlite3.connect(
                    uri, uri=True, timeout=5.0, isolation_level=None, check_same_thread=False
                )
                undo.callback(db.close)
                check_version(db, self._path)
            except sqlite3.OperationalError as error:
                raise JournalError(f"{self._path}: cannot be read: {error}") from None
            except sqlite3.Error as error:
                raise _damaged(self._path, error) from None
            undo.pop_all()
            return db

    def _first_since(self, number: int, us: int) -> int | None:
        """Place of the first verdict of an epoch that was judged at ``us`` or came after that."""
        low, high = number * _EPOCH, (number + 1) * _EPOCH - 1
        last = self._fetch(
            "SELECT place, latest_us FROM verdict WHERE place BETWEEN ? AND ? "
            "ORDER BY place DESC LIMIT 1",
            *(low, high),
        )
        if not last or last[0][1] < us:
            return None
        high = last[0][0]
        while low < high:
            middle = (low + high) // 2
            place, latest_us = self._fetch(
                "SELECT place, latest_us FROM verdict WHERE place >= ? ORDER BY place LIMIT 1",
                middle,
            )[0]
            low, high = (low, min(middle, place)) if latest_us >= us else (place + 1, high)
        return low

    def _jsons(self, first: int, last: int, limit: int) -> list[bytes]:
        rows = self._fetch(
            "SELECT CAST(json AS BLOB) FROM verdict WHERE place BETWEEN ? AND ? "
            "ORDER BY place LIMIT ?",
            *(first, last, limit),
        )
        return [json for (json,) in rows]

    def _fetch(self, sql: str, *parameters: object) -> list[Any]:
        return self._asked(lambda: self._db.execute(sql, parameters).fetchall())

    def _asked(self, ask: Callable[[], list[Any]]) -> list[Any]:
        try:
            return ask()
        except sqlite3.OperationalError as error:
            raise JournalError(f"{self._path}: cannot be read: {error}") from None
        except sqlite3.Error as error:
            raise _damaged(self._path, error) from None


def prepare(db: Database, path: Path) -> None:
    """Make a connection durable, and the tables where there are none; ``path`` is for errors.

    Raises :class:`JournalError` for another program's database, and what ``db`` raises.
    """
    fresh = not db.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone()
    if not fresh:
        check_version(db, path)
    for pragma in _PRAGMAS:
        # Read to its end: a statement that is under way would hold a lock.
        found = db.execute(f"PRAGMA {pragma}").fetchall()
        if pragma == _PRAGMAS[0] and found[0][0] != "wal":
            raise JournalError(
                f"{path}: this file system cannot hold a journal (no shared memory); choose a "
                f"journal.folder on a local disk"
            )
    if fresh:
        db.execute("BEGIN IMMEDIATE")
        for statement in _SCHEMA:
            db.execute(statement)
        db.execute("COMMIT")


def check_version(db: Database, path: Path) -> None:
    """Raise :class:`JournalError` unless ``db`` is a journal of this version."""
    if db.execute("PRAGMA application_id").fetchone()[0] != _APPLICATION:
        raise JournalError(f"{path}: not a journal; choose another journal.folder")
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if version != _VERSION:
        raise JournalError(
            f"{path}: a journal of version {version}, this inspector has {_VERSION}; use the "
            f"inspector that wrote it, or choose another journal.folder"
        )


def begin(db: Database, epoch: str, started_us: int, before_us: int) -> int:
    """Insert an epoch; its number. Empty ones started before ``before_us`` are deleted."""
    db.execute(
        "DELETE FROM epoch WHERE started_us < ? AND NOT EXISTS (SELECT 1 FROM verdict WHERE place "
        "BETWEEN epoch.number * ? AND epoch.number * ? + ?)",
        (before_us, _EPOCH, _EPOCH, _EPOCH - 1),
    )
    db.execute("INSERT INTO epoch (name, started_us) VALUES (?, ?)", (epoch, started_us))
    return int(db.execute("SELECT max(number) FROM epoch").fetchone()[0])


def record(
    db: Database,
    number: int,
    latest_us: int,
    triggers: Sequence[Accepted],
    verdicts: Sequence[VerdictMessage],
    *,
    before_us: int = 0,
) -> int:
    """Write triggers and verdicts of epoch ``number`` within a transaction of the caller's.

    ``latest_us`` is the highest ``judged_us`` of the epoch so far; the new one is returned. A few
    verdicts judged before ``before_us`` are deleted.
    """
    if triggers:
        db.executemany(
            "INSERT OR IGNORE INTO open_trigger (camera, client, session, number, part_id, "
            "triggered_us) VALUES (?, ?, ?, ?, ?, ?)",
            [(*map(_storable, trigger.key), trigger.triggered_us) for trigger in triggers],
        )
    rows: list[tuple[int, int, str]] = []
    answered: list[tuple[object, ...]] = []
    for verdict in verdicts:
        latest_us = max(latest_us, verdict.judged_us)
        rows.append((number * _EPOCH + verdict.seq, latest_us, encode(verdict).decode()))
        if verdict.trigger_seq is not None:
            part = (verdict.trigger_seq, verdict.part_id)
            answered.append((*part, verdict.client, verdict.session, verdict.camera))
    if answered:
        db.executemany(
            "DELETE FROM open_trigger WHERE number = ? AND part_id = ? AND client = ? "
            "AND session = ? AND camera = ?",
            answered,
        )
    if rows:
        db.executemany("INSERT INTO verdict (place, latest_us, json) VALUES (?, ?, ?)", rows)
        # Of the running epoch a subscriber may still want the newest, whatever the clock said.
        before = max(number * _EPOCH, rows[-1][0] - _NEVER_DELETED)
        db.execute(
            "DELETE FROM verdict WHERE place IN (SELECT place FROM verdict WHERE latest_us < ? "
            "AND place < ? ORDER BY latest_us LIMIT ?)",
            (before_us, before, 2 * len(rows)),
        )
    return latest_us


def recover(db: Database, number: int) -> Recovered:
    """What the epochs before ``number`` left."""
    unanswered = db.execute(
        "SELECT camera, client, session, number, part_id, triggered_us FROM open_trigger "
        "ORDER BY rowid"
    ).fetchall()
    newest = db.execute(
        "SELECT json FROM verdict ORDER BY place DESC LIMIT ?", (_REMEMBERED,)
    ).fetchall()
    return Recovered(
        tuple(TriggerRow(*row) for row in unanswered),
        tuple(epochs(db, number)),
        tuple(
            VerdictMessage.model_validate_json(json)
            for (json,) in reversed(newest)
            if '"trigger_seq":null' not in json
        ),
    )


def epochs(db: Database, before: int = 2**22) -> list[tuple[str, int]]:
    """(epoch, its last seq) of the newest 1,000 epochs below number ``before``, oldest first."""
    found = db.execute(
        "SELECT number, name FROM epoch WHERE number < ? ORDER BY number DESC LIMIT ?",
        (before, _MOST_EPOCHS),
    ).fetchall()
    ends = []
    for number, name in reversed(found):
        base = number * _EPOCH
        last = db.execute(
            "SELECT max(place) FROM verdict WHERE place BETWEEN ? AND ?", (base, base + _EPOCH - 1)
        ).fetchone()[0]
        ends.append((str(name), 0 if last is None else int(last - base)))
    return ends


def _storable(value: object) -> object:
    """As the verdict has it: what UTF-8 cannot carry is escaped."""
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


def _damaged(path: Path, cause: object) -> JournalError:
    aside = f"{path}.damaged"
    return JournalError(
        f"{path}: damaged ({cause}); move it aside with the station stopped ('mv {path} {aside}; "
        f"mv {path}-wal {aside}-wal'): the next start makes a new one, and 'sqlite3 {aside} "
        f".recover' saves what can be read"
    )


def _lock(folder: Path) -> int:
    try:
        folder.mkdir(mode=0o750, parents=True, exist_ok=True)
        lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o640)
    except OSError as error:
        raise JournalError(
            f"{folder}: cannot be written: {error.strerror}; choose another journal.folder, or "
            f"give this user the right to write there"
        ) from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise JournalError(
            f"{folder}: another inspector keeps its journal there; stop it, or give this station "
            f"a journal.folder of its own"
        ) from None
    return lock


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
