"""Recorded verdicts, read in chunks for those that missed them, and how fast they may ask."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from inspector.errors import WireError
from inspector.logs import say
from inspector.wire.messages import ReplayCommand, ReplyMessage, VerdictMessage, decode_verdict

CHUNK: Final = 100
"""Verdicts in one reply, at most."""

_LARGEST_CHUNK: Final = 128 << 10
"""Bytes of the verdicts in one reply; a single verdict may be larger."""
_MOST_ROWS: Final = 10_000
"""Rows that are read for one reply while all of them are damaged."""


class RecordedVerdicts(Protocol):
    """What was recorded, as :class:`inspector.journal.Reader` reads it; used by one thread.

    Verdicts are the JSON that was published, in order. Every method but ``close`` may raise
    :class:`JournalError`.
    """

    def verdicts(self, epoch: str, first: int, last: int | None, limit: int) -> Sequence[bytes]:
        """At most ``limit`` of ``epoch``, seq ``first`` to ``last`` (None: to the end)."""
        ...

    def since(self, us: int, limit: int) -> Sequence[bytes]:
        """At most ``limit`` that were judged at ``us`` (µs since the Unix epoch) or later."""
        ...

    def epochs(self) -> Sequence[tuple[str, int]]:
        """Every epoch and its last seq (0: no verdict), oldest first."""
        ...

    def following(self, epoch: str) -> str | None:
        """The next epoch that has verdicts. Raises LookupError for one that is not known."""
        ...

    def close(self) -> None:
        """Let go of the journal."""
        ...


@dataclass
class Bucket:
    """A limit of ``rate`` verdicts a second (a token bucket), at most ``size`` of them at once.

    ``level`` verdicts may be taken; whoever takes some subtracts them, also more than there are.
    ``filled_at`` is the moment (``time.monotonic``, s) that ``level`` is of.
    """

    rate: float
    size: float
    level: float
    filled_at: float

    @classmethod
    def full(cls, rate: float) -> Bucket:
        """A bucket of one chunk, full now."""
        return cls(rate, CHUNK, CHUNK, time.monotonic())

    def wait_s(self, now: float) -> float:
        """Bring ``level`` to ``now``; how long until something may be taken, 0 when it may be."""
        self.level = min(self.size, self.level + (now - self.filled_at) * self.rate)
        self.filled_at = now
        return 0.0 if self.level > 0 else (1.0 - self.level) / self.rate


def read_replay(
    journal: RecordedVerdicts, command: ReplayCommand
) -> tuple[ReplyMessage, list[bytes]]:
    """The reply, and the verdicts to put into it, JSON. Raises :class:`JournalError`.

    A row of the journal that is no verdict is left out and logged: for the client it is one that
    the journal has not.
    """
    limit = CHUNK + 1
    rows = _rows(journal, command, limit)
    while len(rows) == limit < _MOST_ROWS and not any(_verdict_in(row) for row in rows):
        # Nothing but damage so far: a reply without a verdict would end what the client asks for.
        limit *= 4
        rows = _rows(journal, command, limit)
    verdicts, count = _chunk_of(rows, command)
    more = count < len(rows) or len(rows) == limit
    following = None
    complete = command.to_seq is not None and count > command.to_seq - command.from_seq
    if command.epoch is not None and not more and not complete:
        try:
            following = journal.following(command.epoch)
            if command.from_seq > 1 and not journal.verdicts(command.epoch, 1, None, 1):
                raise LookupError
        except LookupError:
            detail = f"epoch '{command.epoch}' is not in the journal, or no longer"
            return ReplyMessage(id=command.id, kind="refused", code="unknown", detail=detail), []
    return ReplyMessage(id=command.id, kind="replayed", more=more, next_epoch=following), verdicts


def _rows(journal: RecordedVerdicts, command: ReplayCommand, limit: int) -> Sequence[bytes]:
    if command.epoch is None:
        return journal.since(command.since_us or 0, limit)
    return journal.verdicts(command.epoch, command.from_seq, command.to_seq, limit)


def _chunk_of(rows: Sequence[bytes], command: ReplayCommand) -> tuple[list[bytes], int]:
    """The verdicts of one reply, and how many rows they and the damaged ones among them are.

    One line in the log says how many are damaged, and where the first one is.
    """
    verdicts: list[bytes] = []
    epoch, seq = command.epoch or "", command.from_seq - 1
    damaged: list[dict[str, object]] = []
    size = count = 0
    for row in rows:
        verdict = _verdict_in(row)
        if verdict is None:
            damaged.append({"epoch": epoch, "after_seq": seq})
        elif len(verdicts) == CHUNK or (verdicts and size + len(row) > _LARGEST_CHUNK):
            break
        else:
            epoch, seq = verdict.epoch, verdict.seq
            verdicts.append(row)
            size += len(row)
        count += 1
    if damaged:
        say("damaged", logging.WARNING, rows=len(damaged), **damaged[0])
    return verdicts, count


def _verdict_in(row: bytes) -> VerdictMessage | None:
    """The verdict that a row of the journal is; None where it is damaged."""
    try:
        return decode_verdict(row)
    except WireError:
        return None
