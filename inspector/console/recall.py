"""What a station's history has and did not come live: verdicts of the shift, the last rejects."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from inspector.console.shift import Shift
from inspector.errors import CommandError
from inspector.verdict import Verdict
from inspector.wire.queries import AnswerMessage, CountsQuery, EntryField, HistoryQuery

_MINUTE_US: Final = 60_000_000
_MINUTE_PAGES: Final = 60
"""Of the last minute so much is read at most: 100 parts a second."""
_AGAIN_S: Final = 3.0
"""Pause after a question that was not answered."""


@dataclass(frozen=True)
class Recalled:
    """The last verdicts of the history, in no order: of all, and of those that are no PASS."""

    verdicts: Sequence[EntryField]
    rejects: Sequence[EntryField]


class Recall:
    """Reads the history of one station whenever it is due; used in the thread of the event loop.

    ``shift`` then has every verdict that the station recorded in it. ``ask`` puts a query to the
    station and raises :class:`CommandError`. ``found`` hears the last verdicts, ``last`` of each
    kind at most. While ``is_there`` is false the station is not asked.
    """

    def __init__(
        self,
        shift: Shift,
        ask: Callable[[HistoryQuery | CountsQuery], Awaitable[AnswerMessage]],
        found: Callable[[Recalled], None],
        is_there: Callable[[], bool],
        last: int,
    ) -> None:
        self._shift = shift
        self._ask = ask
        self._found = found
        self._is_there = is_there
        self._last = last
        self._due = asyncio.Event()

    def due(self) -> None:
        """Have the history read soon: verdicts were judged, or lost, that did not come live."""
        self._due.set()

    async def run(self) -> None:
        """Read it whenever it is due, until cancelled."""
        # The thread that asks may end first where the whole program does.
        with contextlib.suppress(RuntimeError):
            while True:
                await self._due.wait()
                self._due.clear()
                try:
                    await self._count()
                    self._found(await self._recalled())
                except CommandError:
                    await asyncio.sleep(_AGAIN_S)
                    # One that is gone is due as soon as it is there again.
                    if self._is_there():
                        self._due.set()

    async def _count(self) -> None:
        """Have the station count the shift; what is told of the last minute is read besides."""
        shift = self._shift
        begin = shift.from_us
        try:
            await self._walk(max(begin, shift.now_us - _MINUTE_US), _MINUTE_PAGES)
            answer = await self._ask(CountsQuery(since_us=begin, until_us=shift.until_us))
        except CommandError as error:
            # A station of an earlier version does not know the question, and is read through.
            if error.code != "malformed":
                raise
            await self._walk(begin)
            return
        if shift.from_us == begin and answer.counts is not None:
            shift.counted(answer.counts)

    async def _walk(self, since_us: int, most_pages: int | None = None) -> None:
        """Add the verdicts since then, from the newest on down to those that are sure.

        Without ``most_pages`` the shift is then whole.
        """
        shift = self._shift
        begin, sure = shift.from_us, shift.sure
        pages = 0
        newest: tuple[str, int] | None = None
        before: tuple[str, int] | None = None
        while True:
            entries, before = await self._page(since_us=since_us, before=before)
            pages += 1
            if shift.from_us != begin:
                return  # Another shift began, for which the next walk is due already.
            for entry in entries:
                key = entry.verdict.epoch, entry.verdict.seq
                newest = newest or key
                if sure is not None and key[0] == sure[0] and key[1] <= sure[1]:
                    before = None
                    break
                shift.add(entry.verdict)
            if before is None or pages == most_pages:
                break
        if most_pages is None:
            shift.walked(newest)

    async def _recalled(self) -> Recalled:
        verdicts, _ = await self._page(limit=self._last)
        rejects: list[EntryField] = []
        for verdict in (Verdict.FAIL, Verdict.FAULT):
            entries, _ = await self._page(limit=self._last, verdicts=(verdict,))
            rejects += entries
        return Recalled(verdicts, rejects)

    async def _page(
        self, before: tuple[str, int] | None = None, **asked: Any
    ) -> tuple[tuple[EntryField, ...], tuple[str, int] | None]:
        epoch, seq = before or (None, None)
        answer = await self._ask(HistoryQuery(before_epoch=epoch, before_seq=seq, **asked))
        if answer.next_epoch is None or answer.next_seq is None:
            return answer.entries, None
        return answer.entries, (answer.next_epoch, answer.next_seq)
