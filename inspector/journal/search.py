"""What verdicts are searched by: a narrow table beside them, and the statements that read it.

A row of ``search`` has the place of its verdict and what people ask for. Verdicts themselves are
some hundred bytes of JSON each; a table with nothing else in it is read through from end to end in
a fraction of a second for a million parts, in the order of the verdicts, whatever is combined.

Rejected parts have an index too, and so have part ids: ``part_place``, which is written for many
verdicts at once, since a page of it with each commit would be felt there. The verdicts after the
last one that it knows, ``part_place_until``, are looked through one by one.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

from inspector.logs import say
from inspector.verdict import Verdict

_STRETCH: Final = 100_000
"""Places that one question looks at; more are for the next one."""

_COLUMNS: Final = ("place", "camera", "verdict", "reason", "part_id", "score")
_VALUES: Final = f"INTO search ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))})"
INDEX_EVERY: Final = 64
"""Verdicts after which :func:`index_parts` is due."""
_FILED_AT_ONCE: Final = 10_000
_TELL_EVERY_S: Final = 5.0

Finding = tuple[int, str, str, str, str, float | None]
"""A row: place, camera, verdict, reason, part id and score of a verdict."""


class Database(Protocol):
    """What is asked of a connection; :class:`sqlite3.Connection` is one."""

    def execute(self, sql: str, parameters: Any = ..., /) -> Any:
        """Run one statement; the cursor with its rows."""
        ...

    def executemany(self, sql: str, parameters: Any, /) -> Any:
        """Run one statement for each of ``parameters``."""
        ...


@dataclass(frozen=True)
class Filter:
    """Which verdicts are asked for; what is None, or empty, is not asked about.

    ``since_us`` and ``until_us``: judged from the first moment on, and before the second (µs since
    the Unix epoch). ``score_from`` and ``score_to``: a score of at least the first, and below the
    second. ``marked``: whether somebody has marked the part.
    """

    since_us: int | None = None
    until_us: int | None = None
    camera: str | None = None
    verdicts: tuple[Verdict, ...] = ()
    reason: str | None = None
    part_id: str | None = None
    score_from: float | None = None
    score_to: float | None = None
    marked: bool | None = None


def make_search(db: Database) -> None:
    """Make the table with a row for each verdict that is there; the caller has begun a transaction.

    It says how far it is. A verdict that cannot be read gets no row.
    """
    db.execute(
        "CREATE TABLE search (place INTEGER PRIMARY KEY, camera TEXT NOT NULL, "
        "verdict TEXT NOT NULL, reason TEXT NOT NULL, part_id TEXT NOT NULL, score REAL)"
    )
    _file_all(db)
    db.execute("CREATE INDEX search_part ON search (part_id, place) WHERE part_id <> ''")
    # Passed parts, which nearly all are, cost it nothing.
    db.execute(
        "CREATE INDEX search_rejected ON search (verdict, place, reason, camera) "
        "WHERE verdict <> 'PASS'"
    )


def file_under(db: Database, findings: Sequence[Finding], faults: Sequence[Finding]) -> None:
    """Write rows, those of ``faults`` in place of what is there; the caller began a transaction."""
    if findings:
        db.executemany(f"INSERT {_VALUES}", findings)
    if faults:
        db.executemany(f"INSERT OR REPLACE {_VALUES}", faults)
        db.executemany(
            "INSERT OR IGNORE INTO part_place (part_id, place) "
            "SELECT part_id, place FROM search WHERE place = ? AND part_id <> ''",
            [(fault[0],) for fault in faults],
        )


def forget(db: Database, places: Sequence[tuple[int]]) -> None:
    """Delete what verdicts are searched by; the caller has begun a transaction."""
    db.executemany(
        "DELETE FROM part_place WHERE (part_id, place) IN "
        "(SELECT part_id, place FROM search WHERE place = ?)",
        places,
    )
    db.executemany("DELETE FROM search WHERE place = ?", places)
    db.executemany("DELETE FROM aside WHERE place = ?", places)


def make_part_place(db: Database) -> None:
    """Make the table of part ids, in place of an index; the caller has begun a transaction."""
    db.execute("DROP INDEX search_part")
    db.execute(
        "CREATE TABLE part_place (part_id TEXT NOT NULL, place INTEGER NOT NULL, "
        "PRIMARY KEY (part_id, place)) WITHOUT ROWID"
    )
    db.execute("CREATE TABLE part_place_until (place INTEGER NOT NULL)")
    db.execute("INSERT INTO part_place_until (place) VALUES (?)", (-(2**63),))
    last = db.execute("SELECT max(place) FROM search").fetchone()[0]
    if last is not None:
        index_parts(db, last)


def index_parts(db: Database, last: int) -> None:
    """Have ``part_place`` know the verdicts up to place ``last``; the caller began a transaction.

    It is due after :data:`INDEX_EVERY` verdicts: a search looks through what comes after ``last``.
    """
    db.execute(
        "INSERT OR IGNORE INTO part_place (part_id, place) SELECT part_id, place FROM search "
        "WHERE place > (SELECT place FROM part_place_until) AND place <= ? AND part_id <> '' "
        "ORDER BY part_id, place",
        (last,),
    )
    # It may lie before the one of before: a damaged row can have any place.
    db.execute("UPDATE part_place_until SET place = ?", (last,))


def make_aside(db: Database) -> None:
    """Make the table of verdicts that do not count, from those that are there.

    The caller has begun a transaction. A verdict that cannot be read is not among them.
    """
    db.execute("CREATE TABLE aside (place INTEGER PRIMARY KEY, verdict TEXT NOT NULL)")
    # A text that has such words has its quotes escaped: this finds the field alone.
    others = [f'json LIKE \'%"purpose":"{name}"%\'' for name in ("challenge", "study")]
    db.execute(
        "INSERT INTO aside SELECT place, verdict FROM search WHERE place IN "  # noqa: S608
        f"(SELECT place FROM verdict WHERE {' OR '.join(others)})"
    )


def file_aside(db: Database, rows: Sequence[tuple[int, str]]) -> None:
    """Write (place, verdict) of verdicts that do not count; the caller has begun a transaction."""
    if rows:
        db.executemany("INSERT OR REPLACE INTO aside (place, verdict) VALUES (?, ?)", rows)


def count(db: Database, first: int, last: int) -> tuple[int, int, int]:
    """How many PASS, FAIL and FAULT at places ``first`` to ``last`` count."""
    told = "count(*), total(verdict = 'FAIL'), total(verdict = 'FAULT')"
    found = [
        db.execute(
            f"SELECT {told} FROM {table} WHERE place BETWEEN ? AND ?",  # noqa: S608
            (first, last),
        ).fetchone()
        for table in ("search NOT INDEXED", "aside")
    ]
    everything, failed, faults = (int(one - other) for one, other in zip(*found, strict=True))
    return everything - failed - faults, failed, faults


def _file_all(db: Database) -> None:
    total = int(db.execute("SELECT count(*) FROM verdict").fetchone()[0])
    place, done, told_s = -(2**63), 0, time.monotonic()
    while True:
        rows = db.execute(
            "SELECT place, CAST(json AS BLOB) FROM verdict WHERE place > ? ORDER BY place LIMIT ?",
            (place, _FILED_AT_ONCE),
        ).fetchall()
        if not rows:
            return
        found = [row for row in map(_finding, rows) if row is not None]
        db.executemany(f"INSERT {_VALUES}", found)
        place, done = rows[-1][0], done + len(rows)
        if time.monotonic() >= told_s + _TELL_EVERY_S:
            told_s = time.monotonic()
            say("upgrading", verdicts=done, of=total)


def _finding(row: tuple[int, bytes | None]) -> Finding | None:
    """The row of a verdict of any version; None for what is no verdict."""
    try:
        fields = json.loads(row[1] or b"")
        score = fields["score"]
        texts = [fields[name] for name in _COLUMNS[1:-1]]
        for text in texts:
            text.encode()
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None
    if not all(isinstance(text, str) for text in texts):
        return None
    is_number = isinstance(score, int | float) and not isinstance(score, bool)
    return row[0], *texts, float(score) if is_number else None


@dataclass(frozen=True)
class Found:
    """Places of verdicts, the newest first.

    ``next_below``: where to go on, below this place; None: there is nothing more.
    """

    places: tuple[int, ...]
    next_below: int | None


def find(db: Database, asked: Filter, first: int, last: int, limit: int) -> Found:
    """The newest ``limit`` verdicts at places ``first`` to ``last`` that ``asked`` is about.

    Its times are not looked at: the caller knows the places. No more than a stretch of them is
    examined; ``next_below`` then says where to go on, even if nothing was found so far.
    """
    if asked.part_id:
        until = int(db.execute("SELECT place FROM part_place_until").fetchone()[0])
        if last > until and first <= until:
            newest = _find(db, asked, _EACH, (until + 1, last), limit)
            return newest if newest.next_below is not None else Found(newest.places, until + 1)
        walk = _EACH if first > until else _PARTS.of(asked.part_id)
        return _find(db, asked, walk, (first, last), limit)
    if len(asked.verdicts) == 1 and asked.verdicts[0] is not Verdict.PASS:
        return _find(db, asked, _REJECTED.of(asked.verdicts[0].value), (first, last), limit)
    return _find(db, asked, _EACH, (first, last), limit)


@dataclass(frozen=True)
class _Walk:
    """A way through the table ``search`` in the order of ``along``'s places, past some of them."""

    tables: str
    along: str
    condition: str = ""
    values: tuple[object, ...] = ()

    def of(self, value: object) -> _Walk:
        """The way past the rows that have ``value``."""
        return replace(self, values=(value,))


_EACH: Final = _Walk("search NOT INDEXED", "search")
_PARTS: Final = _Walk(
    "part_place CROSS JOIN search ON search.place = part_place.place",
    "part_place",
    "part_place.part_id = ? AND ",
)
_REJECTED: Final = _Walk(
    "search INDEXED BY search_rejected", "search", "verdict = ? AND verdict <> 'PASS' AND "
)


def _find(db: Database, asked: Filter, walk: _Walk, span: tuple[int, int], limit: int) -> Found:
    first, last = span
    other, others = _checked(asked)
    # All texts are this module's own; what is asked for goes in as values.
    read = (
        f"SELECT search.place FROM {walk.tables} "  # noqa: S608
        f"WHERE {walk.condition}{walk.along}.place BETWEEN ? AND ?"
    )
    order = f"ORDER BY {walk.along}.place DESC LIMIT"
    found = db.execute(f"{read} {order} 1", (*walk.values, first, last)).fetchone()
    if found is None:
        return Found((), None)
    # From there on: no places are looked through where there is nothing.
    last = int(found[0])
    low = max(first, last - _STRETCH + 1)
    rows = db.execute(
        f"{read} AND {other} {order} ?", (*walk.values, low, last, *others, limit + 1)
    ).fetchall()
    places = tuple(int(row[0]) for row in rows)
    if len(places) > limit:
        return Found(places[:limit], places[limit - 1])
    return Found(places, low if low > first else None)


def _checked(asked: Filter) -> tuple[str, list[object]]:
    """What each row is held against, and its values."""
    conditions, values = ["1"], list[object]()
    for column, value in (
        ("camera = ?", asked.camera),
        ("reason = ?", asked.reason),
        ("search.part_id = ?", asked.part_id),
        ("score >= ?", asked.score_from),
        ("score < ?", asked.score_to),
    ):
        if value is not None:
            conditions.append(column)
            values.append(value)
    if asked.verdicts:
        conditions.append(f"verdict IN ({', '.join('?' * len(asked.verdicts))})")
        values += [verdict.value for verdict in asked.verdicts]
    if asked.marked is not None:
        among = (
            "search.place NOT IN (SELECT place FROM mark)",
            "search.place IN (SELECT place FROM mark)",
        )
        conditions.append(among[asked.marked])
    return " AND ".join(conditions), values
