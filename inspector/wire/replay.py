"""Recorded verdicts, read in chunks for those that missed them, and how fast they may ask."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from inspector.wire.messages import (
    ReplayCommand,
    ReplyMessage,
)

CHUNK: Final = 100
"""Verdicts in one reply."""

_LARGEST_CHUNK: Final = 128 << 10


class RecordedVerdicts(Protocol):
    """What was recorded, as :class:`inspector.journal.Reader` reads it; used by one thread.

    Verdicts are the JSON that was published, in order. Each may raise :class:`JournalError`.
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
    """So many verdicts a second, at most ``size`` at once."""

    rate: float
    size: float
    level: float
    filled_at: float

    def wait_s(self, now: float) -> float:
        """Until something may be taken; 0 when it is now."""
        self.level = min(self.size, self.level + (now - self.filled_at) * self.rate)
        self.filled_at = now
        return 0.0 if self.level > 0 else (1.0 - self.level) / self.rate


def read_replay(
    journal: RecordedVerdicts, command: ReplayCommand
) -> tuple[ReplyMessage, list[bytes]]:
    """The reply, and the verdicts to put into it. Raises :class:`JournalError`."""
    epoch, to = command.epoch, command.to_seq
    if epoch is None:
        found = journal.since(command.since_us or 0, CHUNK + 1)
    else:
        found = journal.verdicts(epoch, command.from_seq, to, CHUNK + 1)
    verdicts: list[bytes] = []
    size = 0
    for verdict in found[:CHUNK]:
        size += len(verdict)
        if verdicts and size > _LARGEST_CHUNK:
            break
        verdicts.append(verdict)
    more = len(verdicts) < len(found)
    following = None
    complete = to is not None and len(verdicts) > to - command.from_seq
    if epoch is not None and not more and not complete:
        try:
            following = journal.following(epoch)
            if command.from_seq > 1 and not journal.verdicts(epoch, 1, None, 1):
                raise LookupError
        except LookupError:
            detail = f"epoch '{epoch}' is not in the journal, or no longer"
            return ReplyMessage(id=command.id, kind="refused", code="unknown", detail=detail), []
    return ReplyMessage(id=command.id, kind="replayed", more=more, next_epoch=following), verdicts


def bucket(rate: float) -> Bucket:
    """A full bucket of one chunk that refills at ``rate`` verdicts a second."""
    return Bucket(rate, CHUNK, CHUNK, time.monotonic())
