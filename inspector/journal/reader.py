"""The reader of the journal, for everybody's programs; the station may be writing meanwhile."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Final, TypeVar

from inspector.errors import JournalError
from inspector.journal.schema import (
    FILE,
    PLACES_PER_EPOCH,
    RecipeInForce,
    check_version,
    damaged,
    epochs,
    in_force,
)

T = TypeVar("T")

_CHUNK: Final = 1000
"""Verdicts that ``walk`` has in memory at once."""


class Reader:
    """Reads the journal in a folder; used by one thread at a time.

    Every method may raise :class:`JournalError`.
    """

    def __init__(self, folder: Path) -> None:
        """Open the journal in ``folder``. Raises :class:`JournalError` where there is none."""
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
        base = known[0][0] * PLACES_PER_EPOCH
        until = base + min(PLACES_PER_EPOCH - 1, PLACES_PER_EPOCH - 1 if last is None else last)
        return self._jsons(base + max(first, 0), until, limit)

    def since(self, us: int, limit: int) -> list[bytes]:
        """Verdicts judged at ``us`` (µs since the Unix epoch) or later, JSON as published.

        At most ``limit``, in the order they were made. From the first such verdict of an epoch on
        all of that epoch are returned, also those judged while the clock had been set back.
        """
        return list(islice(self.walk(us), limit))

    def walk(self, since_us: int = 0) -> Iterator[bytes]:
        """Like ``since``, but all of them, and only some in memory at once."""
        for (number,) in self._fetch("SELECT number FROM epoch ORDER BY number"):
            place = self._first_since(number, since_us)
            until = (number + 1) * PLACES_PER_EPOCH - 1
            while place is not None:
                rows = self._fetch(
                    "SELECT place, CAST(json AS BLOB) FROM verdict WHERE place BETWEEN ? AND ? "
                    "ORDER BY place LIMIT ?",
                    *(place, until, _CHUNK),
                )
                yield from (json for _, json in rows)
                place = rows[-1][0] + 1 if rows else None

    def epochs(self) -> list[tuple[str, int]]:
        """(epoch, its last seq, 0 without a verdict) of the newest 1,000 starts, oldest first."""
        return self._asked(lambda: epochs(self._db))

    def following(self, epoch: str) -> str | None:
        """The next epoch that has verdicts. Raises LookupError for one that is not known."""
        known = self._fetch("SELECT number FROM epoch WHERE name = ?", epoch)
        if not known:
            raise LookupError(epoch)
        found = self._fetch(
            "SELECT name FROM epoch WHERE number > ? AND EXISTS (SELECT 1 FROM verdict WHERE place "
            "BETWEEN epoch.number * ? AND epoch.number * ? + ?) ORDER BY number LIMIT 1",
            *(known[0][0], PLACES_PER_EPOCH, PLACES_PER_EPOCH, PLACES_PER_EPOCH - 1),
        )
        return str(found[0][0]) if found else None

    def in_force(self, station: str) -> RecipeInForce | None:
        """The recipe that ``station`` judged by at last; None: the journal does not say."""
        return self._asked(lambda: in_force(self._db, station))

    def count(self) -> int:
        """How many verdicts are in the journal; this reads all of it."""
        return int(self._fetch("SELECT count(*) FROM verdict")[0][0])

    def _open(self) -> sqlite3.Connection:
        uri = f"{self._path.resolve().as_uri()}?mode=ro"
        if not Path(f"{self._path}-wal").exists() and not os.access(self._path.parent, os.W_OK):
            # SQLite cannot make its files here, and does without for a file that nobody changes.
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
                raise damaged(self._path, error) from None
            undo.pop_all()
            return db

    def _first_since(self, number: int, us: int) -> int | None:
        """Place of the first verdict of epoch ``number`` judged at ``us`` or later, or None.

        A binary search, as ``latest_us`` never falls within an epoch.
        """
        low, high = number * PLACES_PER_EPOCH, (number + 1) * PLACES_PER_EPOCH - 1
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
            # Places without a verdict are passed over, to the next that has one.
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

    def _asked(self, ask: Callable[[], T]) -> T:
        try:
            return ask()
        except sqlite3.OperationalError as error:
            raise JournalError(f"{self._path}: cannot be read: {error}") from None
        except sqlite3.Error as error:
            raise damaged(self._path, error) from None
