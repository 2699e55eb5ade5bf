"""The reader of the journal, for everybody's programs; the station may be writing meanwhile."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final, TypeVar

from pydantic import TypeAdapter, ValidationError

from inspector.errors import JournalError
from inspector.journal.recovery import Damage, name_of, read_row
from inspector.journal.schema import (
    FILE,
    MOST_NUMBER,
    PLACES_PER_EPOCH,
    VERSION,
    BundleInForce,
    Deed,
    DeedFilter,
    Delivered,
    Mark,
    RecipeInForce,
    Report,
    bundles,
    damaged,
    deeds,
    delivered,
    in_force,
    last_seq,
    marks,
    numbers,
    read_text,
    version_of,
)
from inspector.journal.search import Filter, Found, count, find
from inspector.wire.messages import VerdictMessage

T = TypeVar("T")
R = TypeVar("R", bound=Report)

_MOST_EPOCHS: Final = 1000
_CHUNK: Final = 1000
"""Verdicts that ``walk`` has in memory at once."""
_NO_PLACE: Final = 2**63 - 1
_SEARCHED_SINCE: Final = 4
"""Version of the tables from which on verdicts can be searched."""
_COUNTED_SINCE: Final = 6
_DELIVERED: Final = TypeAdapter(Delivered)
_MARK: Final = TypeAdapter(Mark)
_DEED: Final = TypeAdapter(Deed)
_ALL_DEEDS: Final = DeedFilter()
_SEARCH_S: Final = 0.2
"""After this a search looks at no further stretch of the journal."""


@dataclass(frozen=True)
class Page:
    """Verdicts that were searched for, the newest first.

    ``next_before`` is the (epoch, seq) below which the next page begins; None: there is no more.
    """

    verdicts: tuple[VerdictMessage, ...]
    next_before: tuple[str, int] | None


@dataclass(frozen=True)
class Counts:
    """Verdicts of the production; ``newest`` is the last verdict that was looked at, if any."""

    passed: int
    failed: int
    faults: int
    newest: VerdictMessage | None


class Reader:
    """Reads the journal in a folder; used by one thread at a time.

    Every method may raise :class:`JournalError`.
    """

    def __init__(
        self,
        folder: Path,
        on_damage: Callable[[Damage], None] = lambda _damage: None,
        *,
        published: Callable[[], tuple[str, int]] | None = None,
    ) -> None:
        """Open the journal in ``folder``. Raises :class:`JournalError` where there is none.

        A row that is no verdict is left out of all that is read, and ``on_damage`` hears of it,
        each time that it is met. ``published`` tells the epoch that is being written, and the last
        seq of it that may be read: the station may still replace those after it. None: all may be
        read.
        """
        self._path = folder / FILE
        self._on_damage = on_damage
        self._published = published
        self._version = VERSION
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
        number = self._number_of(epoch)
        if number is None:
            return []
        base = number * PLACES_PER_EPOCH
        until = PLACES_PER_EPOCH - 1 if last is None else min(last, PLACES_PER_EPOCH - 1)
        begin = min(max(first, 0), PLACES_PER_EPOCH - 1)
        return list(islice(self._verdicts(base + begin, base + until, limit), limit))

    def since(self, us: int, limit: int) -> list[bytes]:
        """Verdicts judged at ``us`` (µs since the Unix epoch) or later, JSON as published.

        At most ``limit``, in the order they were made. From the first such verdict of an epoch on
        all of that epoch are returned, also those judged while the clock had been set back.
        """
        return list(islice(self.walk(us), limit))

    def walk(self, since_us: int = 0) -> Iterator[bytes]:
        """Like ``since``, but all of them, and only some in memory at once."""
        for number, _ in self._asked(lambda: numbers(self._db)):
            place = self._first_since(number, since_us)
            if place is not None:
                yield from self._verdicts(place, (number + 1) * PLACES_PER_EPOCH - 1, _CHUNK)

    def delivered(self, epoch: str, first: int, last: int) -> list[Delivered]:
        """What became of the verdicts ``first`` to ``last`` of ``epoch``, as bridges told it.

        In the order of seq, and of the time told; [] for an epoch that is not known. Each client
        tells an outcome of a verdict once. A row that was damaged is left out.
        """
        fields = ("client", "outcome", "at_us")
        return self._reports(epoch, first, last, read=delivered, names=fields, adapter=_DELIVERED)

    def marks(self, epoch: str, first: int, last: int) -> list[Mark]:
        """What people say the parts of verdicts ``first`` to ``last`` of ``epoch`` really were.

        In the order of seq, and in which they said it; [] for an epoch that is not known. A row
        that was damaged is left out.
        """
        fields = ("client", "by", "label", "note", "at_us")
        return self._reports(epoch, first, last, read=marks, names=fields, adapter=_MARK)

    def deeds(
        self, before: int | None, limit: int, asked: DeedFilter = _ALL_DEEDS
    ) -> list[tuple[int, Deed]]:
        """At most ``limit`` of what people did to the station, with their numbers, newest first.

        ``before``: only those of lower numbers. A row that was damaged is left out.
        """
        below = _NO_PLACE if before is None else min(before, _NO_PLACE)
        found: list[tuple[int, Deed]] = []
        while len(found) < limit:
            rows = self._asked(lambda: deeds(self._db, self._version, asked, below, limit))  # noqa: B023
            names = ("at_us", "kind", "client", "by", "subject", "before", "after", "note")
            for number, *values in rows:
                with contextlib.suppress(ValidationError):
                    fields = dict(zip(names, values, strict=True))
                    found.append((number, _DEED.validate_python(fields)))
            if len(rows) < limit:
                break
            below = rows[-1][0]
        return found[:limit]

    def search(self, asked: Filter, before: tuple[str, int] | None, limit: int) -> Page:
        """The newest ``limit`` verdicts that ``asked`` is about, below (epoch, seq) ``before``.

        None: from the last one on. It takes some tenths of a second at most: a page may have fewer
        verdicts, or none, although there is another one. Raises LookupError for an epoch that is
        not known.
        """
        if self._version < _SEARCHED_SINCE:
            raise JournalError(
                f"{self._path}: of version {self._version}, which cannot be searched; start the "
                f"station once with this inspector"
            )
        top = self._last_place()
        if before is not None:
            number = self._number_of(before[0])
            if number is None:
                raise LookupError(before[0])
            top = min(top, number * PLACES_PER_EPOCH + min(before[1], PLACES_PER_EPOCH) - 1)
        until_s = time.monotonic() + _SEARCH_S
        places: list[int] = []
        for first, last in self._spans(asked, top):
            below: int | None = last + 1
            while below is not None:
                found = self._find(asked, first, below - 1, limit - len(places))
                places += found.places
                below = found.next_below
                if len(places) == limit or time.monotonic() > until_s:
                    return self._page(places, first if below is None else below)
        return self._page(places, None)

    def counts(self, since_us: int, until_us: int) -> Counts:
        """How many verdicts of the production were judged within this time.

        From ``since_us`` on and before ``until_us``, µs since the Unix epoch.
        """
        if self._version < _COUNTED_SINCE:
            raise JournalError(
                f"{self._path}: of version {self._version}, which cannot be counted; start the "
                f"station once with this inspector"
            )
        passed = failed = faults = 0
        newest: VerdictMessage | None = None
        asked = Filter(since_us=since_us, until_us=until_us)
        for first, last in self._spans(asked, self._last_place()):
            told = self._asked(lambda: count(self._db, first, last))  # noqa: B023
            passed, failed, faults = passed + told[0], failed + told[1], faults + told[2]
            if newest is None:
                found = self._find(Filter(), first, last, 1)
                newest = next(iter(self._page(found.places, None).verdicts), None)
        return Counts(passed, failed, faults, newest)

    def verdict(self, epoch: str, seq: int) -> VerdictMessage | None:
        """One verdict; None where the journal has none of this number, or a damaged one."""
        found = self.verdicts(epoch, seq, seq, 1)
        return VerdictMessage.model_validate_json(found[0]) if found else None

    def epochs(self) -> list[tuple[str, int]]:
        """(epoch, its last seq, 0 without a verdict) of the newest 1,000 starts, oldest first."""
        newest = self._asked(lambda: numbers(self._db))[-_MOST_EPOCHS:]
        return [(name, self._last_seq(number)) for number, name in newest]

    def last_seq(self, epoch: str) -> int:
        """The last seq of ``epoch``, also where its row was damaged; 0 for one without a verdict.

        Raises LookupError for an epoch that is not known.
        """
        number = self._number_of(epoch)
        if number is None:
            raise LookupError(epoch)
        return self._last_seq(number)

    def following(self, epoch: str) -> str | None:
        """The next epoch that has verdicts. Raises LookupError for one that is not known."""
        number = self._number_of(epoch)
        if number is None:
            raise LookupError(epoch)
        for later, name in self._asked(lambda: numbers(self._db, number)):
            if self._last_seq(later):
                return name
        return None

    def name_of(self, damage: Damage) -> str:
        """What people call a damaged row: EPOCH/SEQ of a verdict, else the table it stands in."""
        place = damage.place
        return damage.origin if place is None else self._asked(lambda: name_of(self._db, place))

    def in_force(self, station: str) -> RecipeInForce | None:
        """The recipe that ``station`` judged by at last; None: the journal does not say."""
        return self._asked(lambda: in_force(self._db, station))

    def bundles(self) -> list[BundleInForce]:
        """The bundles that were installed by command, for whichever station."""
        return self._asked(lambda: bundles(self._db, self._version))

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
                db.text_factory = read_text
                self._version = version_of(db, self._path)
            except sqlite3.OperationalError as error:
                raise JournalError(f"{self._path}: cannot be read: {error}") from None
            except sqlite3.Error as error:
                raise damaged(self._path, error) from None
            undo.pop_all()
            return db

    def _reports(
        self,
        epoch: str,
        first: int,
        last: int,
        *,
        read: Callable[[sqlite3.Connection, int, int, int], list[tuple[Any, ...]]],
        names: Sequence[str],
        adapter: TypeAdapter[R],
    ) -> list[R]:
        """What ``read`` finds on verdicts ``first`` to ``last`` of ``epoch``."""
        number = self._number_of(epoch)
        if number is None:
            return []
        base = number * PLACES_PER_EPOCH
        until = base + min(last, PLACES_PER_EPOCH - 1)
        rows = self._asked(lambda: read(self._db, self._version, base + max(first, 0), until))
        found: list[R] = []
        for place, *values in rows:
            fields = dict(zip(names, values, strict=True))
            with contextlib.suppress(ValidationError):
                found.append(
                    adapter.validate_python({"epoch": epoch, "seq": place - base, **fields})
                )
        return found

    def _spans(self, asked: Filter, top: int) -> Iterator[tuple[int, int]]:
        """The places (first, last) of the time that is asked for, up to ``top``, newest first."""
        if asked.since_us is None and asked.until_us is None:
            yield 0, top
            return
        for number, _ in reversed(self._asked(lambda: numbers(self._db))):
            base = number * PLACES_PER_EPOCH
            if base > top:
                continue
            first = self._first_since(number, asked.since_us or 0)
            if first is None:
                continue
            last = min(top, base + PLACES_PER_EPOCH - 1)
            if asked.until_us is not None:
                after = self._first_since(number, asked.until_us)
                last = last if after is None else min(last, after - 1)
            if first <= last:
                yield first, last

    def _find(self, asked: Filter, first: int, last: int, limit: int) -> Found:
        return self._asked(lambda: find(self._db, asked, first, last, limit))

    def _page(self, places: Sequence[int], next_below: int | None) -> Page:
        """The verdicts at ``places``, and the (epoch, seq) that stands for ``next_below``."""
        verdicts: list[VerdictMessage] = []
        for place in places:
            rows = self._fetch(
                "SELECT place, CAST(json AS BLOB) FROM verdict WHERE place = ?", place
            )
            for row in rows:
                found = read_row(*row)
                if isinstance(found, Damage):
                    self._on_damage(found)
                else:
                    verdicts.append(found)
        return Page(tuple(verdicts), None if next_below is None else self._below(next_below))

    def _below(self, place: int) -> tuple[str, int] | None:
        """The (epoch, seq) of the first verdict that is no lower than ``place``, or of one above.

        None where nothing is below ``place``.
        """
        known = self._asked(lambda: numbers(self._db))
        number, seq = divmod(place, PLACES_PER_EPOCH)
        for earlier, name in reversed(known):
            if earlier == number and seq:
                return name, seq
            if earlier < number:
                # What comes below is the end of this epoch.
                return name, PLACES_PER_EPOCH
        return None

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
        if not last or _moment(last[0][1]) < us:
            return None
        first = self._fetch(
            "SELECT place, latest_us FROM verdict WHERE place >= ? ORDER BY place LIMIT 1", low
        )
        if _moment(first[0][1]) >= us:
            return int(first[0][0])
        high = last[0][0]
        while low < high:
            middle = (low + high) // 2
            # Places without a verdict are passed over, to the next that has one.
            place, latest_us = self._fetch(
                "SELECT place, latest_us FROM verdict WHERE place >= ? ORDER BY place LIMIT 1",
                middle,
            )[0]
            low, high = (low, min(middle, place)) if _moment(latest_us) >= us else (place + 1, high)
        return low

    def _last_place(self) -> int:
        """The place of the last verdict that may be read, or one that no verdict has."""
        if self._published is None:
            return _NO_PLACE
        # Asked for before the rows, so that what is published meanwhile is at most left out.
        epoch, last_seq = self._published()
        number = self._number_of(epoch)
        return _NO_PLACE if number is None else number * PLACES_PER_EPOCH + last_seq

    def _verdicts(self, first: int, last: int, chunk: int) -> Iterator[bytes]:
        """Those from place ``first`` to ``last`` that can be read, ``chunk`` in memory at once."""
        last = min(last, self._last_place())
        while rows := self._fetch(
            "SELECT place, CAST(json AS BLOB) FROM verdict WHERE place BETWEEN ? AND ? "
            "ORDER BY place LIMIT ?",
            *(first, last, chunk),
        ):
            for place, json in rows:
                found = read_row(place, json)
                if isinstance(found, Damage):
                    self._on_damage(found)
                else:
                    yield json
            first = rows[-1][0] + 1

    def _number_of(self, epoch: str) -> int | None:
        found = self._fetch("SELECT number FROM epoch WHERE name = ?", epoch)
        return found[0][0] if found and 0 < found[0][0] <= MOST_NUMBER else None

    def _last_seq(self, number: int) -> int:
        running, published = divmod(self._last_place(), PLACES_PER_EPOCH)
        found = self._asked(lambda: last_seq(self._db, number, self._version))
        return min(found, published) if number == running else found

    def _fetch(self, sql: str, *parameters: object) -> list[Any]:
        return self._asked(lambda: self._db.execute(sql, parameters).fetchall())

    def _asked(self, ask: Callable[[], T]) -> T:
        try:
            return ask()
        except sqlite3.OperationalError as error:
            raise JournalError(f"{self._path}: cannot be read: {error}") from None
        except sqlite3.Error as error:
            raise damaged(self._path, error) from None


def _moment(latest_us: object) -> int:
    """``latest_us``, of a damaged one the end of time: rather too many verdicts than too few."""
    return latest_us if isinstance(latest_us, int) else 2**63
