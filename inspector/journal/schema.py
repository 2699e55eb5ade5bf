"""The journal's tables, and the statements that write and read them.

They run on any connection that has ``execute`` and ``executemany``, and know no file.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from inspector.errors import JournalError, WireError
from inspector.logs import say
from inspector.wire.messages import VerdictMessage, decode_verdict, encode

FILE: Final = "verdicts.sqlite3"
"""Name of the database in the journal's folder."""

PLACES_PER_EPOCH: Final = 2**40
"""Places that an epoch has, for its verdicts and those to come.

A verdict's key is its place: the number of its epoch × this + its seq. So keys grow in the order
of the verdicts.
"""

_APPLICATION: Final = 0x4C494A31
_VERSION: Final = 1
_REMEMBERED: Final = 10_000
_NEVER_DELETED: Final = 100_000
"""Verdicts of the running epoch that stay however old they are."""
_MOST_EPOCHS: Final = 1000

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
# One row a station: a changeover writes over the one before it.
_RECIPE_IN_FORCE: Final = (
    "CREATE TABLE IF NOT EXISTS recipe_in_force (station TEXT PRIMARY KEY, recipe TEXT NOT NULL, "
    "of_file TEXT NOT NULL)"
)
_SCHEMA: Final = (
    "CREATE TABLE epoch (number INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, "
    "started_us INTEGER NOT NULL)",
    # latest_us is the highest judged_us of its epoch so far: it never falls, whatever the clock
    # does, so that a moment can be searched for.
    "CREATE TABLE verdict (place INTEGER PRIMARY KEY, latest_us INTEGER NOT NULL, "
    "json TEXT NOT NULL)",
    "CREATE INDEX verdict_age ON verdict (latest_us)",
    "CREATE TABLE open_trigger (camera TEXT NOT NULL, client TEXT NOT NULL, "
    "session TEXT NOT NULL, number INTEGER NOT NULL, part_id TEXT NOT NULL, "
    "triggered_us INTEGER NOT NULL, PRIMARY KEY (number, part_id, client, session, camera))",
    _RECIPE_IN_FORCE,
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
    """A trigger that was accepted; :class:`inspector.station.triggers.Trigger` is one."""

    @property
    def key(self) -> tuple[str, str, str, int, str]:
        """Camera, client, session, number and part id."""
        ...

    @property
    def triggered_us(self) -> int:
        """Wall time, µs since the Unix epoch."""
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
class RecipeInForce:
    """The recipe that ``station`` judges by, and the one that its file named when it started."""

    station: str
    recipe: str
    of_file: str


@dataclass(frozen=True)
class Recovered:
    """What earlier starts left.

    ``unanswered``: accepted triggers without a verdict, in the order they were accepted.
    ``answered``: verdicts on triggers among the newest 10,000 verdicts, oldest first: a trigger
    repeated after a crash gets its first verdict again.
    """

    unanswered: tuple[TriggerRow, ...]
    answered: tuple[VerdictMessage, ...]


def prepare(db: Database, path: Path) -> None:
    """Make a connection durable, and the tables where there are none; ``path`` is for errors.

    Raises :class:`JournalError` for another program's database, and what ``db`` raises.
    """
    fresh = not db.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone()
    if not fresh:
        check_version(db, path)
    for pragma in _PRAGMAS:
        # Fetched to its end: a statement that is not would hold a lock.
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
    else:
        # An inspector from before this table leaves it alone, so the version stays what it is.
        db.execute(_RECIPE_IN_FORCE)


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
    """Insert an epoch, and return its number.

    Epochs without a verdict that started before ``before_us`` are deleted.
    """
    db.execute(
        "DELETE FROM epoch WHERE started_us < ? AND NOT EXISTS (SELECT 1 FROM verdict WHERE place "
        "BETWEEN epoch.number * ? AND epoch.number * ? + ?)",
        (before_us, PLACES_PER_EPOCH, PLACES_PER_EPOCH, PLACES_PER_EPOCH - 1),
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
    """Write triggers and verdicts of epoch ``number``; the caller has begun a transaction.

    ``latest_us`` is the highest ``judged_us`` of the epoch so far; the new one is returned. At most
    two verdicts judged before ``before_us`` are deleted for each new one.
    """
    if triggers:
        db.executemany(
            "INSERT OR IGNORE INTO open_trigger (camera, client, session, number, part_id, "
            "triggered_us) VALUES (?, ?, ?, ?, ?, ?)",
            [(*map(_escaped, trigger.key), trigger.triggered_us) for trigger in triggers],
        )
    rows: list[tuple[int, int, str]] = []
    answered: list[tuple[object, ...]] = []
    for verdict in verdicts:
        latest_us = max(latest_us, verdict.judged_us)
        rows.append((number * PLACES_PER_EPOCH + verdict.seq, latest_us, encode(verdict).decode()))
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
        # A subscriber may still want the newest of the running epoch, whatever the clock said.
        before = max(number * PLACES_PER_EPOCH, rows[-1][0] - _NEVER_DELETED)
        db.execute(
            "DELETE FROM verdict WHERE place IN (SELECT place FROM verdict WHERE latest_us < ? "
            "AND place < ? ORDER BY latest_us LIMIT ?)",
            (before_us, before, 2 * len(rows)),
        )
    return latest_us


def keep_in_force(db: Database, recipe: RecipeInForce) -> None:
    """Write which recipe a station judges by; the caller has begun a transaction."""
    db.execute(
        "INSERT OR REPLACE INTO recipe_in_force (station, recipe, of_file) VALUES (?, ?, ?)",
        (recipe.station, recipe.recipe, recipe.of_file),
    )


def in_force(db: Database, station: str) -> RecipeInForce | None:
    """The recipe that ``station`` judged by at last; None in a journal that does not say."""
    known = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'recipe_in_force'"
    if not db.execute(known).fetchall():
        return None
    found = db.execute(
        "SELECT station, recipe, of_file FROM recipe_in_force WHERE station = ?", (station,)
    ).fetchall()
    return RecipeInForce(*found[0]) if found else None


def recover(db: Database) -> Recovered:
    """What earlier epochs left.

    A row that is no verdict is left out and logged: it would answer no trigger.
    """
    unanswered = db.execute(
        "SELECT camera, client, session, number, part_id, triggered_us FROM open_trigger "
        "ORDER BY rowid"
    ).fetchall()
    newest = db.execute(
        "SELECT place, CAST(json AS BLOB) FROM verdict ORDER BY place DESC LIMIT ?",
        (_REMEMBERED,),
    ).fetchall()
    answered: list[VerdictMessage] = []
    damages: list[str] = []
    for place, json in reversed(newest):
        try:
            verdict = decode_verdict(json)
        except WireError as error:
            damages.append(f"place {place}: {error}")
            continue
        if verdict.trigger_seq is not None:
            answered.append(verdict)
    if damages:
        say("damaged", logging.WARNING, rows=len(damages), why=damages[0])
    return Recovered(tuple(TriggerRow(*row) for row in unanswered), tuple(answered))


def epochs(db: Database) -> list[tuple[str, int]]:
    """(epoch, its last seq) of the newest 1,000 epochs, oldest first."""
    found = db.execute(
        "SELECT number, name FROM epoch ORDER BY number DESC LIMIT ?", (_MOST_EPOCHS,)
    ).fetchall()
    ends = []
    for number, name in reversed(found):
        base = number * PLACES_PER_EPOCH
        last = db.execute(
            "SELECT max(place) FROM verdict WHERE place BETWEEN ? AND ?",
            (base, base + PLACES_PER_EPOCH - 1),
        ).fetchone()[0]
        ends.append((str(name), 0 if last is None else int(last - base)))
    return ends


def _escaped(value: object) -> object:
    """A trigger's text as its verdict carries it, with what UTF-8 cannot carry escaped."""
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


def damaged(path: Path, cause: object) -> JournalError:
    """The error of a damaged database at ``path``, with the way to move it aside."""
    aside = f"{path}.damaged"
    return JournalError(
        f"{path}: damaged ({cause}); move it aside with the station stopped ('mv {path} {aside}; "
        f"mv {path}-wal {aside}-wal'): the next start makes a new one, and 'sqlite3 {aside} "
        f".recover' saves what can be read"
    )
