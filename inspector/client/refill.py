"""How far a subscriber has come, and what it asks the journal for when something is missing.

Pure: the sockets and the clock are :mod:`inspector.client`'s.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from inspector.wire.messages import ReplayCommand, ReplyMessage, VerdictMessage

_EPOCHS_REMEMBERED: Final = 1000
_RUMOURS_KEPT: Final = 100


@dataclass(frozen=True)
class Gap:
    """Verdicts ``first`` to ``last`` (seq) of ``epoch`` did not arrive.

    ``last`` is None where nobody can say how many there were, if any: the station was started
    again, and what it recorded before, or in between, cannot be had.
    """

    station: str
    epoch: str
    first: int
    last: int | None

    @property
    def count(self) -> int:
        """How many; 1 where nobody can say."""
        return 1 if self.last is None else self.last - self.first + 1


class Progress:
    """The last verdict that was handed on, of each epoch of one station."""

    def __init__(self) -> None:
        self.epoch = ""
        self._last: dict[str, int] = {}
        self._rumours: list[str] = []

    def __contains__(self, epoch: str) -> bool:
        return epoch in self._last

    @property
    def last(self) -> int:
        """Seq in the epoch of now; 0 when none of it was handed on."""
        return self._last.get(self.epoch, 0)

    def turn_to(self, epoch: str) -> None:
        """Go on in ``epoch``, where it was left or at its beginning."""
        self.epoch = epoch
        # Last in the order of the dictionary: the one turned to longest ago is forgotten.
        self._last[epoch] = self._last.pop(epoch, 0)
        if len(self._last) > _EPOCHS_REMEMBERED:
            del self._last[next(iter(self._last))]

    def begin_with(self, rumours: Iterable[str]) -> None:
        """All of these starts is due, the earliest first, if the journal ever took note of it."""
        self._rumours = list(rumours)[-_RUMOURS_KEPT:]
        self.turn_to(self._rumours[0])

    def drop_rumour(self, now: str) -> bool:
        """Leave the epoch of now for the next one heard of, at last ``now``; False: it is none."""
        if self.epoch not in self._rumours:
            return False
        self._rumours.remove(self.epoch)
        del self._last[self.epoch]
        self.turn_to(self._rumours[0] if self._rumours else now)
        return True

    def turn_back(self) -> bool:
        """Forget the epoch of now, of which nothing was handed on; False when it is all there is.

        What the journal has of those before it leads past it.
        """
        if self.last > 0 or len(self._last) < 2:
            return False
        del self._last[self.epoch]
        self.epoch = next(reversed(self._last))
        return True

    def reach(self, seq: int) -> None:
        """``seq`` was handed on, and all before it that will be."""
        self._last[self.epoch] = max(self.last, seq)


class Refill:
    """Everything between what was handed on and verdict ``seq`` of ``epoch``, that one included.

    Ask what ``question`` says, hand the answer to ``take``, until ``done``. From an epoch it goes
    on to the one that follows in the journal, and so to ``epoch``; with ``since_us``, from the
    first verdict judged at that moment or later. Whatever cannot be had becomes a :class:`Gap`.
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
        """What to ask now."""
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
        """What the answer brings, in order; nothing when it has to be asked again a little later.

        An answer that helps in no way ends the refill.
        """
        if reply.kind == "refused":
            yield from self._refused(reply)
        elif reply.kind != "replayed" or any(
            verdict.station != self._station for verdict in reply.verdicts
        ):
            # It speaks for another station, whose verdicts must not be taken for ours.
            yield from self.give_up()
        elif self._since_us is not None:
            self._start(reply)
        else:
            yield from self._walk(reply)
        self._end_if_complete()

    def give_up(self) -> Iterator[Gap]:
        """What is still missing will not come."""
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
            if progress.drop_rumour(self._epoch):
                return
            yield Gap(self._station, progress.epoch, progress.last + 1, None)
            if progress.turn_back():
                return
            # It is older than the journal: all that the journal has came later.
            self._since_us = 0
            return
        yield from self.give_up()

    def _start(self, reply: ReplyMessage) -> None:
        """Begin before the first verdict found, at the latest before the one that is held."""
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
        elif progress.epoch != self._epoch:
            following = reply.next_epoch
            known = following is None or following in progress
            progress.turn_to(self._epoch if following is None or known else following)

    def _end_if_complete(self) -> None:
        if self._since_us is None:
            progress = self._progress
            self.done = self.done or (progress.epoch == self._epoch and progress.last >= self._seq)
