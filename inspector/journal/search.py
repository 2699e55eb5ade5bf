"""What verdicts are searched by: a narrow table beside them, and the statements that read it.

A row of ``search`` has the place of its verdict and what people ask for. Verdicts themselves are
some hundred bytes of JSON each; a table with nothing else in it is read through from end to end in
a fraction of a second for a million parts, in the order of the verdicts, whatever is combined. Part
ids and rejected parts have an index too.

Verdicts are filed many at once, since two or three pages more with each commit would be felt there.
Those behind the last row are not filed yet: they are few, and are read themselves.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from inspector.logs import say
from inspector.verdict import Verdict

_STRETCH: Final = 100_000
"""Places that one question looks at; more are for the next one."""

_COLUMNS: Final = ("place", "camera", "verdict", "reason", "part_id", "score")
_INSERT: Final = (
    f"INSERT OR REPLACE INTO search ({', '.join(_COLUMNS)}) "  # noqa: S608
    f"VALUES ({', '.join('?' * len(_COLUMNS))})"
)
_FILED_AT_ONCE: Final = 10_000
FILED_EVERY: Final = 64
"""Verdicts that may wait until they are filed."""
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
    total = int(db.execute("SELECT count(*) FROM verdict").fetchone()[0])
    _file(db, -(2**63), 2**63 - 1, total)
    db.execute("CREATE INDEX search_part ON search (part_id, place) WHERE part_id <> ''")
    # Passed parts, which nearly all are, cost it nothing.
    db.execute(
        "CREATE INDEX search_rejected ON search (verdict, place, reason, camera) "
        "WHERE verdict <> 'PASS'"
    )


def filed_until(db: Database) -> int:
    """The place up to which verdicts are filed."""
    found = db.execute("SELECT max(place) FROM search").fetchone()[0]
    return -(2**63) if found is None else int(found)


def file_new(
    db: Database, findings: Sequence[Finding], waiting: Sequence[Finding]
) -> Sequence[Finding]:
    """File the rows of new verdicts if it is due; the caller has begun a transaction.

    ``waiting`` are rows of earlier ones that are not filed yet; returns those that then wait. A
    FAULT that takes the place of a verdict which is filed is filed at once.
    """
    due = [*waiting, *findings]
    if len(due) < FILED_EVERY:
        faults = [row[0] for row in findings if row[2] == Verdict.FAULT.value]
        if not faults or min(faults) > filed_until(db):
            return due
    db.executemany(_INSERT, due)
    return ()


def file_rest(db: Database, until: int) -> None:
    """File what was not yet, up to place ``until``; the caller has begun a transaction."""
    # A damaged row can have any place, behind which none would be looked for.
    db.execute("DELETE FROM search WHERE place > ?", (until,))
    _file(db, filed_until(db), until)


def forget(db: Database, places: Sequence[tuple[int]]) -> None:
    """Delete what verdicts are searched by; the caller has begun a transaction."""
    db.executemany("DELETE FROM search WHERE place = ?", places)
    db.executemany("DELETE FROM aside WHERE place = ?", places)


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
    until = filed_until(db)
    told = "count(*), total(verdict = 'FAIL'), total(verdict = 'FAULT')"
    found = [
        db.execute(
            f"SELECT {told} FROM {table} WHERE place BETWEEN ? AND ?",  # noqa: S608
            (first, end),
        ).fetchone()
        for table, end in (("search NOT INDEXED", min(last, until)), ("aside", last))
    ]
    everything, failed, faults = (int(one - other) for one, other in zip(*found, strict=True))
    for row in _newest(db, max(first, until + 1), last):
        everything += 1
        failed += row[2] == Verdict.FAIL.value
        faults += row[2] == Verdict.FAULT.value
    return everything - failed - faults, failed, faults


def _file(db: Database, after: int, until: int, total: int = 0) -> None:
    """Write the rows of verdicts behind place ``after``, up to ``until``, in place of earlier ones.

    With ``total`` it says how far it is, of so many.
    """
    done, told_s = 0, time.monotonic()
    while True:
        rows = db.execute(
            "SELECT place, CAST(json AS BLOB) FROM verdict WHERE place > ? AND place <= ? "
            "ORDER BY place LIMIT ?",
            (after, until, _FILED_AT_ONCE),
        ).fetchall()
        if not rows:
            return
        db.executemany(_INSERT, [row for row in map(_finding, rows) if row is not None])
        after, done = rows[-1][0], done + len(rows)
        if total and time.monotonic() >= told_s + _TELL_EVERY_S:
            told_s = time.monotonic()
            say("upgrading", verdicts=done, of=total)


def _newest(db: Database, first: int, last: int) -> list[Finding]:
    """Rows of verdicts that are not filed yet, the newest first."""
    rows = db.execute(
        "SELECT place, CAST(json AS BLOB) FROM verdict WHERE place BETWEEN ? AND ? "
        "ORDER BY place DESC",
        (first, last),
    ).fetchall()
    return [row for row in map(_finding, rows) if row is not None]


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
    until = filed_until(db)
    waiting = [row for row in _newest(db, max(first, until + 1), last) if _is_asked(asked, row)]
    newest = _marked(db, asked.marked, [row[0] for row in waiting])
    if len(newest) > limit:
        return Found(newest[:limit], newest[limit - 1])
    older = _find_filed(db, asked, (first, min(last, until)), limit - len(newest))
    return Found(newest + older.places, older.next_below)


def _find_filed(db: Database, asked: Filter, span: tuple[int, int], limit: int) -> Found:
    first, last = span
    index, base, values = _walked(asked)
    other, others = _checked(asked)
    # All texts are this module's own; what is asked for goes in as values.
    read = f"SELECT place FROM search {index} WHERE {base}place BETWEEN ? AND ?"  # noqa: S608
    newest = db.execute(f"{read} ORDER BY place DESC LIMIT 1", (*values, first, last)).fetchone()
    if newest is None:
        return Found((), None)
    # From there on: no places are looked through where there is nothing.
    last = int(newest[0])
    low = max(first, last - _STRETCH + 1)
    rows = db.execute(
        f"{read} AND {other} ORDER BY place DESC LIMIT ?", (*values, low, last, *others, limit + 1)
    ).fetchall()
    places = tuple(int(row[0]) for row in rows)
    if len(places) > limit:
        return Found(places[:limit], places[limit - 1] if limit else last + 1)
    return Found(places, low if low > first else None)


def _is_asked(asked: Filter, row: Finding) -> bool:
    """Whether ``asked`` is about a row; its marks and times are not looked at."""
    _, camera, verdict, reason, part_id, score = row
    return (
        asked.camera in {None, camera}
        and asked.reason in {None, reason}
        and asked.part_id in {None, part_id}
        and (not asked.verdicts or verdict in asked.verdicts)
        and (asked.score_from is None or (score is not None and score >= asked.score_from))
        and (asked.score_to is None or (score is not None and score < asked.score_to))
    )


def _marked(db: Database, marked: bool | None, places: list[int]) -> tuple[int, ...]:
    """Those of ``places`` that have a mark, or those that have none."""
    if marked is None or not places:
        return tuple(places)
    found = db.execute(
        "SELECT place FROM mark WHERE place BETWEEN ? AND ?", (places[-1], places[0])
    )
    there = {row[0] for row in found.fetchall()}
    return tuple(place for place in places if (place in there) == marked)


def _walked(asked: Filter) -> tuple[str, str, list[object]]:
    """The index that is walked along in the order of places, its condition, and its values."""
    if asked.part_id:
        return "INDEXED BY search_part", "part_id = ? AND part_id <> '' AND ", [asked.part_id]
    if len(asked.verdicts) == 1 and asked.verdicts[0] is not Verdict.PASS:
        condition = "verdict = ? AND verdict <> 'PASS' AND "
        return "INDEXED BY search_rejected", condition, [asked.verdicts[0].value]
    return "NOT INDEXED", "", []


def _checked(asked: Filter) -> tuple[str, list[object]]:
    """What each row is held against, and its values."""
    conditions, values = ["1"], list[object]()
    for column, value in (
        ("camera = ?", asked.camera),
        ("reason = ?", asked.reason),
        ("part_id = ?", asked.part_id),
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
        among = ("place NOT IN (SELECT place FROM mark)", "place IN (SELECT place FROM mark)")
        conditions.append(among[asked.marked])
    return " AND ".join(conditions), values
