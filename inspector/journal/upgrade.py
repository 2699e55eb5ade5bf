"""A journal of an earlier version is brought to this one's, after a trial on a copy."""

from __future__ import annotations

import contextlib
import logging
import shutil
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Final

from inspector.errors import JournalError
from inspector.files import reason_of
from inspector.journal.schema import VERSION, damaged, prepare, version_of
from inspector.logs import say

_SPARE_BYTES: Final = 16 * 2**20
_CHECK_S: Final = 1.0
_ENDINGS: Final = ("", "-wal", "-shm", "-journal")
"""What SQLite adds to the name of a database for the files beside it."""


def upgrade(db: sqlite3.Connection, path: Path) -> None:
    """Make ``db``, the database at ``path``, durable, and its tables those of this version.

    An earlier version's is tried on a copy beside it first, when there is room for one. Each step
    is one transaction: whatever ends it, the journal has the version before or the one after, and
    the next start goes on. Raises :class:`JournalError` for a newer version or another program's
    database, and when the trial fails; :class:`sqlite3.Error`.
    """
    version = version_of(db, path)
    if version in {0, VERSION}:
        prepare(db, path)
        return
    check(db, path)
    began = time.monotonic()
    say("upgrade", journal=path, version=version, to=VERSION)
    _try_on_copy(db, path, version)
    prepare(db, path)
    say("upgraded", journal=path, version=VERSION, seconds=f"{time.monotonic() - began:.1f}")


def check(db: sqlite3.Connection, path: Path) -> None:
    """Raise :class:`JournalError` if :func:`first_damage` finds some; ``path`` is named in it."""
    if found := first_damage(db):
        raise damaged(path, found)


def first_damage(db: sqlite3.Connection) -> str:
    """What is wrong with a database, in SQLite's words; "" when nothing was found.

    It is looked at for a second at most: a big journal must not keep the line waiting.
    """
    until = time.monotonic() + _CHECK_S
    db.set_progress_handler(lambda: time.monotonic() > until, 10_000)
    try:
        found = " ".join(db.execute("PRAGMA quick_check(1)").fetchone()[0].split())
    except sqlite3.OperationalError:
        return ""
    except sqlite3.Error as error:
        return str(error)
    finally:
        db.set_progress_handler(None, 0)
    return "" if found == "ok" else found


def _try_on_copy(db: sqlite3.Connection, path: Path, version: int) -> None:
    copy = path.with_name(f"{path.name}.upgrade")
    try:
        # A trial that a power cut ended is worth nothing.
        _delete(copy)
        there = sum(_size(Path(f"{path}{ending}")) for ending in ("", "-wal"))
        # The copy, as much again for what the steps change in it, and what they add to both.
        if shutil.disk_usage(path.parent).free < 3 * there + _SPARE_BYTES:
            why = f"no room for a copy of {there / 2**20:.0f} MB; each step is one transaction"
            say("upgrade not tried first", logging.WARNING, journal=path, why=why)
            return
        with closing(sqlite3.connect(copy, isolation_level=None)) as trial:
            db.backup(trial)
            prepare(trial, copy)
            check(trial, copy)
    except (sqlite3.Error, OSError, JournalError) as error:
        raise JournalError(
            f"{path}: cannot be brought from version {version} to {VERSION}: {reason_of(error)}; "
            f"it was left as it was: use the inspector that wrote it, or choose another "
            f"journal.folder"
        ) from None
    finally:
        with contextlib.suppress(OSError):
            _delete(copy)


def _delete(database: Path) -> None:
    for ending in _ENDINGS:
        Path(f"{database}{ending}").unlink(missing_ok=True)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
