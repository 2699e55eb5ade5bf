"""Recorded verdicts, read in chunks for those that missed them, and how fast they may ask."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from inspector.errors import WireError
from inspector.logs import say
from inspector.wire.messages import ReplayCommand, ReplyMessage, decode_verdict

CHUNK: Final = 100
"""Verdicts in one reply, at most."""

_LARGEST_CHUNK: Final = 128 << 10
"""Bytes of the verdicts in one reply; a single verdict may be larger."""


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
    epoch, to = command.epoch, command.to_seq
    if epoch is None:
        found = journal.since(command.since_us or 0, CHUNK + 1)
    else:
        found = journal.verdicts(epoch, command.from_seq, to, CHUNK + 1)
    size = count = 0
    for row in found[:CHUNK]:
        size += len(row)
        if count and size > _LARGEST_CHUNK:
            break
        count += 1
    more = count < len(found)
    following = None
    complete = to is not None and count > to - command.from_seq
    if epoch is not None and not more and not complete:
        try:
            following = journal.following(epoch)
            if command.from_seq > 1 and not journal.verdicts(epoch, 1, None, 1):
                raise LookupError
        except LookupError:
            detail = f"epoch '{epoch}' is not in the journal, or no longer"
            return ReplyMessage(id=command.id, kind="refused", code="unknown", detail=detail), []
    verdicts = _verdicts_among(found[:count], command)
    return ReplyMessage(id=command.id, kind="replayed", more=more, next_epoch=following), verdicts


def _verdicts_among(rows: Sequence[bytes], command: ReplayCommand) -> list[bytes]:
    """The rows that are verdicts; one line in the log says how many are not, and where."""
    verdicts: list[bytes] = []
    epoch, seq = command.epoch, command.from_seq - 1
    damaged: list[dict[str, object]] = []
    for row in rows:
        try:
            verdict = decode_verdict(row)
        except WireError as error:
            damaged.append({"epoch": epoch or "", "after_seq": seq, "why": error})
        else:
            epoch, seq = verdict.epoch, verdict.seq
            verdicts.append(row)
    if damaged:
        say("damaged", logging.WARNING, rows=len(damaged), **damaged[0])
    return verdicts
