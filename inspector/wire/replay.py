"""Recorded verdicts, read in chunks for those that missed them, and how fast they may ask."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from inspector.wire.messages import ReplayCommand, ReplyMessage

CHUNK: Final = 100
"""Verdicts in one reply, at most."""

_LARGEST_CHUNK: Final = 128 << 10
"""Bytes of the verdicts in one reply; a single verdict may be larger."""


class RecordedVerdicts(Protocol):
    """What was recorded, as :class:`inspector.journal.Reader` reads it; used by one thread.

    Verdicts are the JSON that was published, in order; a row that is none is left out. Every method
    but ``close`` may raise :class:`JournalError`.
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

    def last_seq(self, epoch: str) -> int:
        """The last seq of ``epoch``, also one that is left out; 0 without a verdict.

        Raises LookupError for an epoch that is not known.
        """
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

    Or of other things, such as bytes. ``level`` verdicts may be taken; whoever takes some subtracts
    them, also more than there are.
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
    """The reply, and the verdicts to put into it, JSON. Raises :class:`JournalError`."""
    if command.epoch is None:
        rows = journal.since(command.since_us or 0, CHUNK + 1)
    else:
        rows = journal.verdicts(command.epoch, command.from_seq, command.to_seq, CHUNK + 1)
    verdicts = _chunk_of(rows)
    more = len(verdicts) < len(rows)
    following, last_seq = None, 0
    complete = command.to_seq is not None and len(verdicts) > command.to_seq - command.from_seq
    if command.epoch is not None and not more and not complete:
        try:
            last_seq = journal.last_seq(command.epoch)
            if command.from_seq > 1 and last_seq == 0:
                raise LookupError
            following = journal.following(command.epoch)
        except LookupError:
            detail = f"epoch '{command.epoch}' is not in the journal, or no longer"
            return ReplyMessage(id=command.id, kind="refused", code="unknown", detail=detail), []
    reply = ReplyMessage(
        id=command.id, kind="replayed", more=more, next_epoch=following, last_seq=last_seq
    )
    return reply, verdicts


def _chunk_of(rows: Sequence[bytes]) -> list[bytes]:
    """The verdicts of one reply."""
    verdicts: list[bytes] = []
    size = 0
    for row in rows[:CHUNK]:
        size += len(row)
        if verdicts and size > _LARGEST_CHUNK:
            break
        verdicts.append(row)
    return verdicts
