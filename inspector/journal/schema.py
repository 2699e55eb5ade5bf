"""The journal's tables, and the statements that write and read them.

They run on any connection that has ``execute`` and ``executemany``, and know no file.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Protocol

from pydantic import Strict, StrictStr

from inspector.errors import JournalError
from inspector.journal.search import (
    Database,
    Finding,
    file_aside,
    forget,
    make_aside,
    make_search,
)
from inspector.verdict import LIMIT_FACTOR_RANGE, Verdict
from inspector.wire.messages import (
    SHA256,
    DeedKind,
    MarkLabel,
    Microseconds,
    Outcome,
    Purpose,
    TriggerNumber,
    VerdictMessage,
    encode,
)

FILE: Final = "verdicts.sqlite3"
"""Name of the database in the journal's folder."""

PLACES_PER_EPOCH: Final = 2**40
"""Places that an epoch has, for its verdicts and those to come.

A verdict's key is its place: the number of its epoch × this + its seq. So keys grow in the order
of the verdicts.
"""

_APPLICATION: Final = 0x4C494A31
MOST_NUMBER: Final = 2**63 // PLACES_PER_EPOCH - 1
"""Highest number of an epoch whose places SQLite can hold."""
_NEVER_DELETED: Final = 100_000
"""Verdicts of the running epoch that stay however old they are."""

WAL_LIMIT_BYTES: Final = 64 * 2**20
"""To which SQLite cuts a write-ahead log that has grown beyond, when it begins anew."""

_PRAGMAS: Final = (
    "journal_mode=WAL",
    "synchronous=FULL",
    # macOS: a plain fsync leaves the data in the drive's cache.
    "fullfsync=ON",
    "checkpoint_fullfsync=ON",
    f"journal_size_limit={WAL_LIMIT_BYTES}",
    "cell_size_check=ON",
    "trusted_schema=OFF",
)


_LAST_PLACES: Final = (
    "SELECT max(place) FROM verdict WHERE place BETWEEN ? AND ?",
    "SELECT max(place) FROM damaged WHERE place BETWEEN ? AND ?",
)
"""Where the last verdict of an epoch may stand; the second since version 2 of the tables."""


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

    @property
    def lot(self) -> str:
        """What its verdict will have as ``lot``."""
        ...

    @property
    def purpose(self) -> Purpose:
        """What its verdict will have as ``purpose``."""
        ...


@dataclass(frozen=True)
class TriggerRow:
    """An accepted trigger, as the journal keeps it until its verdict is there."""

    camera: StrictStr
    client: StrictStr
    session: StrictStr
    number: Annotated[TriggerNumber, Strict()]
    part_id: StrictStr
    triggered_us: Annotated[Microseconds, Strict()]
    lot: StrictStr = ""
    purpose: Purpose = "production"

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
class LimitInForce:
    """The ``limit_factor`` that was ordered for a camera under a recipe of ``station``.

    ``of_file`` is the one that the station file had when it was ordered.
    """

    station: str
    recipe: str
    camera: str
    limit_factor: float
    of_file: float


@dataclass(frozen=True)
class BundleInForce:
    """The bundle that was installed by command for a camera under a recipe of ``station``.

    ``sha256`` (hex) is that of the bundle in force, ``before`` that of the one to go back to; "" is
    the station file's own. ``of_file`` is the path that the station file had when it was ordered.
    """

    station: str
    recipe: str
    camera: str
    sha256: str
    before: str
    of_file: str


@dataclass(frozen=True)
class StopOrder:
    """Whether ``station`` is stopped by command: since when (µs since the Unix epoch), and by whom.

    ``since_us`` None: it is not. ``client`` is the peer's name, "" without keys.
    """

    station: str
    since_us: int | None
    client: str = ""


Kept = RecipeInForce | LimitInForce | BundleInForce | StopOrder
"""What a station goes on with at its next start."""


@dataclass(frozen=True)
class Deed:
    """What somebody did to a station, at ``at_us`` (µs since the Unix epoch) by its own clock.

    ``client`` is the peer's name, "" without keys; ``by`` the person, as the client says. What was
    done to ``subject`` had it go from ``before`` to ``after``; all three are "" where they say
    nothing.
    """

    at_us: int
    kind: DeedKind
    client: str
    by: str
    subject: str = ""
    before: str = ""
    after: str = ""
    note: str = ""


@dataclass(frozen=True)
class Delivered:
    """What became of a verdict, as ``client`` told it; "" without keys.

    ``at_us``: when that was, by the client's clock, µs since the Unix epoch.
    """

    epoch: str
    seq: int
    client: str
    outcome: Outcome
    at_us: int


@dataclass(frozen=True)
class Mark:
    """What somebody says the part of a verdict really was; a later one stands beside the earlier.

    ``client`` is the peer's name, "" without keys; ``by`` the person, as the client says;
    ``at_us`` when the station heard it, µs since the Unix epoch.
    """

    epoch: str
    seq: int
    client: str
    by: str
    label: MarkLabel
    note: str
    at_us: int


Report = Delivered | Mark
"""What is told of a verdict that is in the journal."""


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
    """Make a connection durable, and its tables those of :data:`VERSION`; ``path`` is for errors.

    Raises :class:`JournalError` for another program's database or a newer version's, and what
    ``db`` raises.
    """
    version = version_of(db, path)
    for pragma in _PRAGMAS:
        # Fetched to its end: a statement that is not would hold a lock.
        found = db.execute(f"PRAGMA {pragma}").fetchall()
        if pragma == _PRAGMAS[0] and found[0][0] != "wal":
            raise JournalError(
                f"{path}: this file system cannot hold a journal (no shared memory); choose a "
                f"journal.folder on a local disk"
            )
    for made, step in enumerate(STEPS[version:], version + 1):
        db.execute("BEGIN IMMEDIATE")
        try:
            step(db)
            db.execute(f"PRAGMA user_version={made}")
            db.execute("COMMIT")
        except BaseException:
            # A full disk may have rolled it back already, and says so.
            with contextlib.suppress(Exception):
                db.execute("ROLLBACK")
            raise


def version_of(db: Database, path: Path) -> int:
    """Version of the journal's tables, 1 to :data:`VERSION`; 0 when there are none yet.

    Raises :class:`JournalError` for another program's database, and for a newer version's.
    """
    if not db.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone():
        return 0
    if db.execute("PRAGMA application_id").fetchone()[0] != _APPLICATION:
        raise JournalError(f"{path}: not a journal; choose another journal.folder")
    version = int(db.execute("PRAGMA user_version").fetchone()[0])
    if not 1 <= version <= VERSION:
        raise JournalError(
            f"{path}: a journal of version {version}, this inspector has {VERSION}; use the "
            f"inspector that wrote it, or choose another journal.folder"
        )
    return version


def _make_first(db: Database) -> None:
    for statement in (
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
        f"PRAGMA application_id={_APPLICATION}",
    ):
        db.execute(statement)


def _make_second(db: Database) -> None:
    """Rows that could not be read, and the recipe that a station goes on with.

    ``origin``: the table a row stood in, ``content`` as it was; ``place``: of a verdict, None of a
    trigger. A station has one recipe: a changeover writes over the one before it.
    """
    db.execute(
        "CREATE TABLE damaged (found_us INTEGER NOT NULL, origin TEXT NOT NULL, place INTEGER, "
        "content BLOB, why TEXT NOT NULL)"
    )
    db.execute("CREATE INDEX damaged_place ON damaged (place)")
    db.execute(
        "CREATE TABLE recipe_in_force (station TEXT PRIMARY KEY, recipe TEXT NOT NULL, "
        "of_file TEXT NOT NULL)"
    )


def _make_third(db: Database) -> None:
    """Lots and purposes of triggers, stops by command, and what became of verdicts.

    ``stop_order`` has a row while a station is stopped. ``delivered`` has one for each verdict,
    client and outcome, so that a client which tells again adds none.
    """
    db.execute(
        "CREATE TABLE stop_order (station TEXT PRIMARY KEY, since_us INTEGER NOT NULL, "
        "client TEXT NOT NULL)"
    )
    db.execute("ALTER TABLE open_trigger ADD COLUMN lot TEXT NOT NULL DEFAULT ''")
    db.execute("ALTER TABLE open_trigger ADD COLUMN purpose TEXT NOT NULL DEFAULT 'production'")
    db.execute(
        "CREATE TABLE delivered (place INTEGER NOT NULL, client TEXT NOT NULL, "
        "outcome TEXT NOT NULL, at_us INTEGER NOT NULL, PRIMARY KEY (place, client, outcome)) "
        "WITHOUT ROWID"
    )


def _make_fourth(db: Database) -> None:
    """What verdicts are searched by, marks of parts, limits that were ordered, and deeds.

    ``mark`` and ``deed`` have a number of their own, in the order in which they came.
    """
    make_search(db)
    db.execute(
        "CREATE TABLE mark (number INTEGER PRIMARY KEY, place INTEGER NOT NULL, "
        "at_us INTEGER NOT NULL, client TEXT NOT NULL, person TEXT NOT NULL, "
        "label TEXT NOT NULL, note TEXT NOT NULL)"
    )
    db.execute("CREATE INDEX mark_place ON mark (place)")
    db.execute(
        "CREATE TABLE limit_in_force (station TEXT NOT NULL, recipe TEXT NOT NULL, "
        "camera TEXT NOT NULL, limit_factor REAL NOT NULL, of_file REAL NOT NULL, "
        "PRIMARY KEY (station, recipe, camera))"
    )
    db.execute(
        "CREATE TABLE deed (number INTEGER PRIMARY KEY, at_us INTEGER NOT NULL, "
        "kind TEXT NOT NULL, client TEXT NOT NULL, person TEXT NOT NULL, subject TEXT NOT NULL, "
        "earlier TEXT NOT NULL, later TEXT NOT NULL, note TEXT NOT NULL)"
    )


def _make_fifth(db: Database) -> None:
    """Bundles that were installed by command; a row each, while one of them is in force."""
    db.execute(
        "CREATE TABLE bundle_in_force (station TEXT NOT NULL, recipe TEXT NOT NULL, "
        "camera TEXT NOT NULL, sha256 TEXT NOT NULL, before TEXT NOT NULL, of_file TEXT NOT NULL, "
        "PRIMARY KEY (station, recipe, camera))"
    )


def _make_sixth(db: Database) -> None:
    """Verdicts on parts that are not made to be sold: they are few, and are counted apart."""
    make_aside(db)


STEPS: Final[tuple[Callable[[Database], None], ...]] = (
    _make_first,
    _make_second,
    _make_third,
    _make_fourth,
    _make_fifth,
    _make_sixth,
)
"""The step at ``i`` brings the tables from version ``i`` to ``i + 1``, in one transaction.

A step that a release contains is never changed: later ones are added. Version 0 has no tables, so
that a new journal takes every step. A fixture of each released version is tested.
"""

VERSION: Final = len(STEPS)
"""Version of the tables that this inspector writes; those of earlier ones are brought to it."""


def begin(db: Database, epoch: str, started_us: int, before_us: int) -> int:
    """Insert an epoch, and return its number; the caller has begun a transaction.

    Epochs without a verdict that started before ``before_us`` are deleted.
    """
    db.execute(
        "DELETE FROM epoch WHERE started_us < ? AND NOT EXISTS (SELECT 1 FROM verdict WHERE place "
        "BETWEEN epoch.number * ? AND epoch.number * ? + ?)",
        (before_us, PLACES_PER_EPOCH, PLACES_PER_EPOCH, PLACES_PER_EPOCH - 1),
    )
    last = db.execute(
        "SELECT max(number) FROM epoch WHERE number BETWEEN 1 AND ?", (MOST_NUMBER - 1,)
    ).fetchone()[0]
    number = 1 if last is None else int(last) + 1
    db.execute(
        "INSERT INTO epoch (number, name, started_us) VALUES (?, ?, ?)", (number, epoch, started_us)
    )
    return number


def record(
    db: Database,
    number: int,
    latest_us: int,
    triggers: Sequence[Accepted],
    verdicts: Sequence[VerdictMessage],
) -> int:
    """Write triggers and verdicts of epoch ``number``; the caller has begun a transaction.

    ``latest_us`` is the highest ``judged_us`` of the epoch so far; the new one is returned. A FAULT
    takes the place of a verdict with its number; a PASS or FAIL never does. What they are searched
    by is for :func:`~inspector.journal.search.file_new`.
    """
    if triggers:
        db.executemany(
            "INSERT OR IGNORE INTO open_trigger (camera, client, session, number, part_id, "
            "triggered_us, lot, purpose) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (*map(_escaped, one.key), one.triggered_us, _escaped(one.lot), one.purpose)
                for one in triggers
            ],
        )
    rows: list[tuple[int, int, str]] = []
    faults: list[tuple[int, int, str]] = []
    aside: list[tuple[int, str]] = []
    answered: list[tuple[object, ...]] = []
    for verdict in verdicts:
        latest_us = max(latest_us, verdict.judged_us)
        place = number * PLACES_PER_EPOCH + verdict.seq
        row = place, latest_us, encode(verdict).decode()
        (faults if verdict.verdict is Verdict.FAULT else rows).append(row)
        if not verdict.counts:
            aside.append((place, verdict.verdict.value))
        if verdict.trigger_seq is not None:
            part = (verdict.trigger_seq, verdict.part_id)
            answered.append((*part, verdict.client, verdict.session, verdict.camera))
    if answered:
        db.executemany(
            "DELETE FROM open_trigger WHERE number = ? AND part_id = ? AND client = ? "
            "AND session = ? AND camera = ?",
            answered,
        )
    if verdicts:
        insert = "INSERT INTO verdict (place, latest_us, json) VALUES (?, ?, ?)"
        if rows:
            db.executemany(insert, rows)
        if faults:
            db.executemany(
                f"{insert} ON CONFLICT (place) DO UPDATE SET json = excluded.json", faults
            )
        file_aside(db, aside)
    return latest_us


def finding_of(place: int, verdict: VerdictMessage) -> Finding:
    """The row that a verdict is searched by."""
    kind, reason = verdict.verdict.value, verdict.reason
    return place, verdict.camera, kind, reason, verdict.part_id, verdict.score


def forget_aged(
    db: Database, number: int, last_seq: int, *, since_us: int, before_us: int, most: int
) -> int:
    """Delete at most ``most`` verdicts judged before ``before_us``, the oldest first.

    The caller has begun a transaction, in which the verdict ``last_seq`` of epoch ``number`` was
    written. Marked verdicts stay. ``since_us`` is what the call before returned, 0 at first: what
    is older was deleted, or is to stay, and is not looked at again.
    """
    # A subscriber may still want the newest of the running epoch, whatever the clock said.
    base = number * PLACES_PER_EPOCH
    before = max(base, base + last_seq - _NEVER_DELETED)
    if before_us < since_us:
        # The clock was set back.
        since_us = 0
    rows = db.execute(
        "SELECT place, latest_us FROM verdict WHERE latest_us >= ? AND latest_us < ? AND place < ? "
        "AND NOT EXISTS (SELECT 1 FROM mark WHERE mark.place = verdict.place) "
        "ORDER BY latest_us LIMIT ?",
        (since_us, before_us, before, most),
    ).fetchall()
    delete(db, [row[0] for row in rows])
    return int(rows[-1][1]) if rows else since_us


def delete(db: Database, places: Sequence[int]) -> None:
    """Delete verdicts, and what they are searched by; the caller has begun a transaction."""
    if places:
        rows = [(place,) for place in places]
        db.executemany("DELETE FROM verdict WHERE place = ?", rows)
        forget(db, rows)


def record_reports(db: Database, reports: Sequence[Report]) -> list[Report]:
    """Write what is told of verdicts; the caller has begun a transaction.

    Returns the reports on verdicts that are not there. What a client told before of what became of
    a verdict stays as it was told first; a mark stands beside the earlier ones, and is a deed. What
    was told of verdicts that were deleted meanwhile is deleted.
    """
    unknown: list[Report] = []
    bases: dict[str, int | None] = {}
    for one in reports:
        if one.epoch not in bases:
            row = db.execute("SELECT number FROM epoch WHERE name = ?", (one.epoch,)).fetchone()
            known = row is not None and 1 <= row[0] <= MOST_NUMBER
            bases[one.epoch] = row[0] * PLACES_PER_EPOCH if known else None
        base = bases[one.epoch]
        place = None if base is None else base + one.seq
        if not db.execute("SELECT 1 FROM verdict WHERE place = ?", (place,)).fetchone():
            unknown.append(one)
            continue
        if isinstance(one, Mark):
            db.execute(
                "INSERT INTO mark (place, at_us, client, person, label, note) "
                "VALUES (?, ?, ?, ?, ?, ?)",
                (place, one.at_us, one.client, one.by, one.label, one.note),
            )
            subject = f"{one.epoch}/{one.seq}"
            note(db, Deed(one.at_us, "mark", one.client, one.by, subject, "", one.label, one.note))
            continue
        db.execute(
            "INSERT OR IGNORE INTO delivered (place, client, outcome, at_us) VALUES (?, ?, ?, ?)",
            (place, one.client, one.outcome, one.at_us),
        )
    if reports:
        db.execute("DELETE FROM delivered WHERE place < (SELECT min(place) FROM verdict)")
    return unknown


def note(db: Database, deed: Deed) -> None:
    """Write what somebody did; the caller has begun a transaction."""
    db.execute(
        "INSERT INTO deed (at_us, kind, client, person, subject, earlier, later, note) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (
            *(deed.at_us, deed.kind, deed.client, deed.by),
            *(deed.subject, deed.before, deed.after, deed.note),
        ),
    )


@dataclass(frozen=True)
class DeedFilter:
    """Which deeds are asked for; what is None, or empty, is not asked about.

    ``since_us`` and ``until_us``: done from the first moment on, and before the second (µs since
    the Unix epoch). ``who``: the person or the peer has this in its name; of A to Z no case counts.
    """

    since_us: int | None = None
    until_us: int | None = None
    kinds: tuple[str, ...] = ()
    who: str = ""


def deeds(
    db: Database, version: int, asked: DeedFilter, before: int, limit: int
) -> list[tuple[Any, ...]]:
    """(number and the fields of a :class:`Deed`) of the deeds before number ``before``.

    At most ``limit`` that ``asked`` is about, the newest first. ``version`` is that of the tables.
    """
    if version < 4:
        return []
    conditions, values = ["number < ?"], list[object]([before])
    for condition, value in (("at_us >= ?", asked.since_us), ("at_us < ?", asked.until_us)):
        if value is not None:
            conditions.append(condition)
            values.append(value)
    if asked.kinds:
        conditions.append(f"kind IN ({', '.join('?' * len(asked.kinds))})")
        values += asked.kinds
    if asked.who:
        conditions.append("(instr(lower(person), lower(?)) OR instr(lower(client), lower(?)))")
        values += [asked.who, asked.who]
    # All texts are this module's own; what is asked for goes in as values.
    found: list[tuple[Any, ...]] = db.execute(
        "SELECT number, at_us, kind, client, person, subject, earlier, later, note FROM deed "  # noqa: S608
        f"WHERE {' AND '.join(conditions)} ORDER BY number DESC LIMIT ?",
        (*values, limit),
    ).fetchall()
    return found


def marks(db: Database, version: int, first: int, last: int) -> list[tuple[Any, ...]]:
    """(place, client, by, label, note, at_us) of marks at places ``first`` to ``last``, in order.

    ``version`` is that of the tables: the first three had none.
    """
    if version < 4:
        return []
    found: list[tuple[Any, ...]] = db.execute(
        "SELECT place, client, person, label, note, at_us FROM mark WHERE place BETWEEN ? AND ? "
        "ORDER BY place, number",
        (first, last),
    ).fetchall()
    return found


def marked(db: Database) -> list[tuple[str, int]]:
    """(epoch, seq) of every verdict that is marked."""
    found = db.execute(
        "SELECT DISTINCT epoch.name, mark.place FROM mark JOIN epoch "
        "ON epoch.number = mark.place / ?",
        (PLACES_PER_EPOCH,),
    ).fetchall()
    return [(str(name), place % PLACES_PER_EPOCH) for name, place in found]


def delivered(db: Database, version: int, first: int, last: int) -> list[tuple[Any, ...]]:
    """(place, client, outcome, at_us) of verdicts at places ``first`` to ``last``, in order.

    ``version`` is that of the tables: the first two had no such table.
    """
    if version < 3:
        return []
    found: list[tuple[Any, ...]] = db.execute(
        "SELECT place, client, outcome, at_us FROM delivered WHERE place BETWEEN ? AND ? "
        "ORDER BY place, at_us, client, outcome",
        (first, last),
    ).fetchall()
    return found


def read_text(raw: bytes) -> str:
    """A text of the database, which may be damaged: what is not UTF-8 is written out."""
    return raw.decode("utf-8", "backslashreplace")


def keep(db: Database, kept: Kept) -> None:
    """Write what a station goes on with; the caller has begun a transaction."""
    if isinstance(kept, RecipeInForce):
        db.execute(
            "INSERT OR REPLACE INTO recipe_in_force (station, recipe, of_file) VALUES (?, ?, ?)",
            (kept.station, kept.recipe, kept.of_file),
        )
    elif isinstance(kept, LimitInForce):
        db.execute(
            "INSERT OR REPLACE INTO limit_in_force (station, recipe, camera, limit_factor, "
            "of_file) VALUES (?, ?, ?, ?, ?)",
            (kept.station, kept.recipe, kept.camera, kept.limit_factor, kept.of_file),
        )
    elif isinstance(kept, BundleInForce):
        names = kept.station, kept.recipe, kept.camera
        if kept.sha256:
            db.execute(
                "INSERT OR REPLACE INTO bundle_in_force (station, recipe, camera, sha256, before, "
                "of_file) VALUES (?, ?, ?, ?, ?, ?)",
                (*names, kept.sha256, kept.before, kept.of_file),
            )
        else:
            db.execute(
                "DELETE FROM bundle_in_force WHERE station = ? AND recipe = ? AND camera = ?", names
            )
    elif kept.since_us is None:
        db.execute("DELETE FROM stop_order WHERE station = ?", (kept.station,))
    else:
        db.execute(
            "INSERT OR REPLACE INTO stop_order (station, since_us, client) VALUES (?, ?, ?)",
            (kept.station, kept.since_us, kept.client),
        )


def stop_order(db: Database, station: str) -> StopOrder:
    """Whether ``station`` is stopped by command."""
    found = db.execute(
        "SELECT since_us, client FROM stop_order WHERE station = ?", (station,)
    ).fetchall()
    if not found:
        return StopOrder(station, None)
    since_us, client = found[0]
    # Of a row that was damaged only this is certain: the station was stopped.
    return StopOrder(
        station,
        since_us if isinstance(since_us, int) else 0,
        client if isinstance(client, str) else "",
    )


def limits(db: Database, station: str) -> list[LimitInForce]:
    """The limits that were ordered for cameras of ``station``; a damaged row says nothing."""
    found = db.execute(
        "SELECT station, recipe, camera, limit_factor, of_file FROM limit_in_force "
        "WHERE station = ?",
        (station,),
    ).fetchall()
    low, high = LIMIT_FACTOR_RANGE
    return [
        LimitInForce(*row)
        for row in found
        if all(isinstance(text, str) for text in row[:3])
        and all(isinstance(factor, float) and low <= factor <= high for factor in row[3:])
    ]


def bundles(db: Database, version: int) -> list[BundleInForce]:
    """The bundles that were installed, for whichever station; a damaged row says nothing.

    ``version`` is that of the tables: the first four had no such table.
    """
    if version < 5:
        return []
    found = db.execute(
        "SELECT station, recipe, camera, sha256, before, of_file FROM bundle_in_force"
    ).fetchall()
    return [
        BundleInForce(*row)
        for row in found
        if all(isinstance(text, str) for text in row)
        and re.fullmatch(SHA256, row[3])
        and re.fullmatch(rf"{SHA256}|", row[4])
    ]


def in_force(db: Database, station: str) -> RecipeInForce | None:
    """The recipe that ``station`` judged by at last; None in a journal that does not say."""
    known = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'recipe_in_force'"
    if not db.execute(known).fetchall():
        return None
    found = db.execute(
        "SELECT station, recipe, of_file FROM recipe_in_force WHERE station = ?", (station,)
    ).fetchall()
    # A row that was damaged says nothing.
    return RecipeInForce(*found[0]) if found and all(isinstance(t, str) for t in found[0]) else None


def numbers(db: Database, after: int = 0) -> list[tuple[int, str]]:
    """Number and name of the epochs beyond number ``after``, oldest first."""
    found = db.execute(
        "SELECT number, name FROM epoch WHERE number > ? AND number BETWEEN 1 AND ? "
        "ORDER BY number",
        (after, MOST_NUMBER),
    ).fetchall()
    return [(number, str(name)) for number, name in found]


def last_seq(db: Database, number: int, version: int) -> int:
    """The last seq that epoch ``number`` has, readable or set aside; 0 without one.

    ``version`` is that of the tables.
    """
    base = number * PLACES_PER_EPOCH
    places = [base]
    for query in _LAST_PLACES[:version]:
        row = db.execute(query, (base, base + PLACES_PER_EPOCH - 1)).fetchone()
        places.append(int(row[0] or 0))
    return max(places) - base


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
