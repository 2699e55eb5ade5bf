"""How far a subscriber has come, and what it asks the journal for when verdicts are missing.

It decides only; the sockets and the clock are in :mod:`inspector.client.subscriber`.

An epoch is one start of a station, and verdicts are numbered within it. An unrecorded epoch is
known only from a status that the station sent before its journal had recorded the start, so that
the journal may not have it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from inspector.wire.messages import ReplayCommand, ReplyMessage, VerdictMessage

_EPOCHS_REMEMBERED: Final = 1000
_UNRECORDED_REMEMBERED: Final = 100


@dataclass(frozen=True)
class Gap:
    """Verdicts ``first`` to ``last`` (seq) of ``epoch`` did not arrive, and cannot be had.

    ``last`` is None when their number is unknown and may be 0: the station was started again, and
    what it recorded until then cannot be read.
    """

    station: str
    epoch: str
    first: int
    last: int | None

    @property
    def count(self) -> int:
        """Number of verdicts missing; 1 when it is unknown."""
        return 1 if self.last is None else self.last - self.first + 1


class Progress:
    """The last verdict handed on of each epoch of one station; ``epoch`` is the current one."""

    def __init__(self) -> None:
        self.epoch = ""
        self._last: dict[str, int] = {}
        self._unrecorded: list[str] = []

    def __contains__(self, epoch: str) -> bool:
        return epoch in self._last

    @property
    def last(self) -> int:
        """Seq of the last verdict handed on in the current epoch; 0 when there was none."""
        return self._last.get(self.epoch, 0)

    def turn_to(self, epoch: str) -> None:
        """Make ``epoch`` the current one, to go on where it was left or from its beginning."""
        self.epoch = epoch
        # The epoch becomes the dictionary's last key; the first is the one to be forgotten next.
        self._last[epoch] = self._last.pop(epoch, 0)
        if len(self._last) > _EPOCHS_REMEMBERED:
            del self._last[next(iter(self._last))]

    def begin_with(self, epochs: Iterable[str]) -> None:
        """Fetch every one of these unrecorded epochs, earliest first, if the journal has it."""
        self._unrecorded = list(epochs)[-_UNRECORDED_REMEMBERED:]
        self.turn_to(self._unrecorded[0])

    def drop_unrecorded(self, now: str) -> bool:
        """Leave an unrecorded current epoch for the next unrecorded one, or else for ``now``.

        False when the current epoch is not among the unrecorded ones.
        """
        if self.epoch not in self._unrecorded:
            return False
        self._unrecorded.remove(self.epoch)
        del self._last[self.epoch]
        self.turn_to(self._unrecorded[0] if self._unrecorded else now)
        return True

    def turn_back(self) -> bool:
        """Go back to the epoch before, from which the journal leads past the current one.

        The current one is forgotten. False when a verdict of it was handed on, or there is no
        other.
        """
        if self.last > 0 or len(self._last) < 2:
            return False
        del self._last[self.epoch]
        self.epoch = next(reversed(self._last))
        return True

    def reach(self, seq: int) -> None:
        """Note that ``seq`` of the current epoch was handed on, and all before it that will be."""
        self._last[self.epoch] = max(self.last, seq)


class Refill:
    """Fetches the verdicts from the last one handed on up to ``seq`` of ``epoch``, included.

    Until ``done``, send what ``question`` returns and give the reply to ``take``. After the last
    verdict of an epoch the refill goes on to the next epoch in the journal, and so to ``epoch``.
    With ``since_us`` it begins with the first verdict judged at that time or later (µs since the
    Unix epoch). Verdicts that cannot be had become a :class:`Gap`.
    """

    def __init__(
        self, progress: Progress, station: str, epoch: str, seq: int, since_us: int | None = None
    ) -> None:
        self.done = False
        self._progress = progress
        self._station = station
        self._epoch = epoch
        self._seq = seq
        self._since_us = since_us
        self._end_if_complete()

    def question(self, id_: str) -> ReplayCommand:
        """The next command to send, with ``id_`` as its id."""
        if self._since_us is not None:
            return ReplayCommand(id=id_, since_us=self._since_us)
        progress = self._progress
        return ReplayCommand(
            id=id_,
            epoch=progress.epoch,
            from_seq=progress.last + 1,
            to_seq=self._seq if progress.epoch == self._epoch else None,
        )

    def take(self, reply: ReplyMessage) -> Iterator[VerdictMessage | Gap]:
        """The verdicts and gaps that ``reply`` brings, in order.

        Nothing comes of a reply after which the question has to be sent again a little later. A
        reply that cannot help ends the refill with gaps.
        """
        if reply.kind == "refused":
            yield from self._refused(reply)
        elif reply.kind != "replayed" or any(
            verdict.station != self._station for verdict in reply.verdicts
        ):
            # The verdicts are another station's, and must not be taken for this one's.
            yield from self.give_up()
        elif self._since_us is not None:
            self._start(reply)
        else:
            yield from self._walk(reply)
        self._end_if_complete()

    def give_up(self) -> Iterator[Gap]:
        """End the refill; yields gaps for all that is still missing."""
        progress = self._progress
        if progress.epoch not in {"", self._epoch} and self._since_us is None:
            yield Gap(self._station, progress.epoch, progress.last + 1, None)
        self._since_us = None
        progress.turn_to(self._epoch)
        if progress.last < self._seq:
            yield Gap(self._station, self._epoch, progress.last + 1, self._seq)
            progress.reach(self._seq)
        self.done = True

    def _refused(self, reply: ReplyMessage) -> Iterator[Gap]:
        progress = self._progress
        if reply.code in {"busy", "journal"}:
            return
        if reply.code == "unknown" and progress.epoch != self._epoch and self._since_us is None:
            if progress.drop_unrecorded(self._epoch):
                return
            yield Gap(self._station, progress.epoch, progress.last + 1, None)
            if progress.turn_back():
                return
            # The epoch is older than the journal, so everything in the journal came later.
            self._since_us = 0
            return
        yield from self.give_up()

    def _start(self, reply: ReplyMessage) -> None:
        """Begin with the first verdict found for ``since_us``, if it is not past the end."""
        self._since_us = None
        first = reply.verdicts[0] if reply.verdicts else None
        if first is None or (first.epoch == self._epoch and first.seq > self._seq):
            self._progress.turn_to(self._epoch)
            self._progress.reach(self._seq)
        else:
            self._progress.turn_to(first.epoch)
            self._progress.reach(first.seq - 1)

    def _walk(self, reply: ReplyMessage) -> Iterator[VerdictMessage | Gap]:
        progress = self._progress
        before = progress.last
        for verdict in reply.verdicts:
            if verdict.epoch != progress.epoch or verdict.seq <= progress.last:
                continue
            if verdict.seq > progress.last + 1:
                yield Gap(self._station, verdict.epoch, progress.last + 1, verdict.seq - 1)
            progress.reach(verdict.seq)
            yield verdict
        if reply.more:
            if progress.last == before:
                yield from self.give_up()
            return
        # The journal had verdicts up to there, and cannot give those that did not come.
        is_last = progress.epoch == self._epoch
        end = min(reply.last_seq, self._seq) if is_last else reply.last_seq
        if progress.last < end:
            yield Gap(self._station, progress.epoch, progress.last + 1, end)
            progress.reach(end)
        if progress.epoch != self._epoch:
            following = reply.next_epoch
            known = following is None or following in progress
            progress.turn_to(self._epoch if following is None or known else following)

    def _end_if_complete(self) -> None:
        if self._since_us is None:
            progress = self._progress
            self.done = self.done or (progress.epoch == self._epoch and progress.last >= self._seq)
