"""What a start finds in the journal, and the rows that cannot be read, which are set aside.

A damaged row is moved to the table ``damaged``: it is in nobody's way there, and not lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from pydantic import TypeAdapter, ValidationError

from inspector.errors import WireError
from inspector.journal.schema import PLACES_PER_EPOCH, Recovered, TriggerRow, delete
from inspector.journal.search import Database
from inspector.wire.messages import VerdictMessage, decode_verdict
from inspector.wire.wording import first_wrong

_REMEMBERED: Final = 10_000
_TRIGGER_ROW: Final = TypeAdapter(TriggerRow)
_TRIGGER_FIELDS: Final = (
    *("camera", "client", "session", "number", "part_id", "triggered_us"),
    *("lot", "purpose"),
)


@dataclass(frozen=True)
class Damage:
    """A row of ``origin``, a table, that could not be read; ``place`` is that of a verdict."""

    origin: Literal["verdict", "open_trigger"]
    place: int | None
    content: bytes
    why: str


def recover(db: Database, number: int, found_us: int) -> tuple[Recovered, list[Damage]]:
    """What was left before epoch ``number``, and the damaged rows among it, which are set aside.

    The caller has begun a transaction. ``found_us``: wall time, µs since the Unix epoch.
    """
    unanswered: list[TriggerRow] = []
    damages: list[Damage] = []
    # A key with a flipped bit may stand where verdicts of this epoch belong.
    ahead = db.execute(
        "SELECT place, CAST(json AS BLOB) FROM verdict WHERE place >= ? LIMIT ?",
        (number * PLACES_PER_EPOCH, _REMEMBERED),
    ).fetchall()
    for place, json in ahead:
        damages.append(Damage("verdict", place, json or b"", "its key is of no epoch"))
    rows = db.execute(
        f"SELECT rowid, {', '.join(_TRIGGER_FIELDS)} FROM open_trigger ORDER BY rowid"  # noqa: S608
    ).fetchall()
    for rowid, *values in rows:
        fields = dict(zip(_TRIGGER_FIELDS, values, strict=True))
        try:
            unanswered.append(_TRIGGER_ROW.validate_python(fields))
        except ValidationError as error:
            why = f"an accepted trigger {first_wrong(error)}"
            damages.append(Damage("open_trigger", None, repr(fields).encode(), why))
            db.execute("DELETE FROM open_trigger WHERE rowid = ?", (rowid,))
    newest = db.execute(
        "SELECT place, CAST(json AS BLOB) FROM verdict WHERE place < ? ORDER BY place DESC LIMIT ?",
        (number * PLACES_PER_EPOCH, _REMEMBERED),
    ).fetchall()
    answered: list[VerdictMessage] = []
    for place, json in reversed(newest):
        verdict = read_row(place, json)
        if isinstance(verdict, Damage):
            damages.append(verdict)
        elif verdict.trigger_seq is not None:
            answered.append(verdict)
    set_aside(db, damages, found_us)
    return Recovered(tuple(unanswered), tuple(answered)), damages


def read_row(place: int, json: bytes | None) -> VerdictMessage | Damage:
    """The verdict in a row; what is wrong with it where there is none, or one of another number."""
    body = json or b""
    try:
        verdict = decode_verdict(body)
    except WireError as error:
        return Damage("verdict", place, body, str(error))
    if verdict.seq != place % PLACES_PER_EPOCH:
        # A subscriber would take the verdicts up to this number for lost.
        return Damage("verdict", place, body, f"it says it is seq {verdict.seq}")
    return verdict


def damaged_at(db: Database, places: Sequence[int]) -> list[Damage]:
    """Those of the verdicts at ``places`` that are damaged."""
    found = []
    for place in places:
        row = db.execute(
            "SELECT CAST(json AS BLOB) FROM verdict WHERE place = ?", (place,)
        ).fetchone()
        if row is not None and isinstance(damage := read_row(place, row[0]), Damage):
            found.append(damage)
    return found


def set_aside(db: Database, damages: Sequence[Damage], found_us: int) -> None:
    """Move rows to the table ``damaged``; the caller has begun a transaction.

    A trigger's row is to be deleted by the caller, who knows which it is.
    """
    if not damages:
        return
    db.executemany(
        "INSERT INTO damaged (found_us, origin, place, content, why) VALUES (?, ?, ?, ?, ?)",
        [(found_us, each.origin, each.place, each.content, each.why) for each in damages],
    )
    delete(db, [each.place for each in damages if each.place is not None])


def count_damaged(db: Database) -> int:
    """Rows that were set aside, ever."""
    return int(db.execute("SELECT count(*) FROM damaged").fetchone()[0])


def name_of(db: Database, place: int) -> str:
    """What people call the verdict at ``place``: its epoch and seq."""
    number, seq = divmod(place, PLACES_PER_EPOCH)
    row = db.execute("SELECT name FROM epoch WHERE number = ?", (number,)).fetchone()
    return f"{row[0] if row else f'epoch {number}'}/{seq}"
