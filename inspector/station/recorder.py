"""The only way out for a verdict: into the journal, then onto the wire."""

from __future__ import annotations

import collections
import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

from inspector.errors import JournalError
from inspector.journal.schema import RecipeInForce
from inspector.logs import say
from inspector.station.triggers import Trigger
from inspector.threads import Worker
from inspector.verdict import Reason, Verdict
from inspector.wire.messages import StatusMessage, VerdictMessage

_MOST_A_COMMIT: Final = 1000
_MOST_UNRECORDED: Final = 100_000
_RETRY_S: Final = 1.0


class Records(Protocol):
    """Where verdicts are committed; :class:`inspector.journal.writer.Journal` is one."""

    def commit(self, triggers: Sequence[Trigger], verdicts: Sequence[VerdictMessage]) -> None:
        """All or nothing, and on the disk when it returns. Raises :class:`JournalError`."""
        ...

    def keep(self, recipe: RecipeInForce) -> None:
        """On the disk when it returns. Raises :class:`JournalError`."""
        ...


class Wire(Protocol):
    """Where they are published."""

    def send_verdict(self, message: VerdictMessage) -> None: ...  # noqa: D102

    def send_status(self, message: StatusMessage) -> None: ...  # noqa: D102


@dataclass(frozen=True)
class TriggerEntry:
    """A trigger to record; None: one that was recorded when it first came, and waits for that.

    ``then`` is called in the recorder's thread, with whether it is recorded.
    """

    trigger: Trigger | None
    then: Callable[[bool], None] = lambda _: None


@dataclass(frozen=True)
class VerdictEntry:
    """A verdict to record, then to publish.

    One that comes to its commit at ``deadline_ns`` (monotonic) or later is a FAULT by then.
    ``then`` is called in the recorder's thread with the verdict as it was published, and whether
    it is recorded.
    """

    verdict: VerdictMessage
    deadline_ns: int | None = None
    then: Callable[[VerdictMessage, bool], None] = lambda _verdict, _recorded: None


@dataclass(frozen=True)
class RecipeEntry:
    """A recipe that judges the parts whose verdicts are put after this.

    It is recorded before the first of them, so that a restart goes on with the recipe of the last
    verdict that anybody heard. ``then`` is called in the recorder's thread, with whether
    it is recorded; if it is not, it will be as soon as that works again.
    """

    recipe: RecipeInForce
    then: Callable[[bool], None] = lambda _: None


@dataclass(frozen=True)
class StatusEntry:
    """A status to publish after what was put before it."""

    status: StatusMessage


Entry = TriggerEntry | VerdictEntry | RecipeEntry | StatusEntry


@dataclass(frozen=True)
class Timing:
    """How long one group took, ms, and how many verdicts it had."""

    verdicts: int
    commit_ms: float
    publish_ms: float


class Recorder(Worker):
    """Group commit: what waits while one commit runs is the next one.

    What cannot be recorded is published as a FAULT ``journal_failed``, never as a PASS or FAIL,
    kept, and recorded before anything else as soon as that works again. ``on_trouble`` hears, in
    the recorder's thread, why recording fails, and "" when it works again.
    """

    def __init__(
        self,
        journal: Records,
        wire: Wire,
        on_trouble: Callable[[str], None],
        on_group: Callable[[Timing], None] = lambda _: None,
    ) -> None:
        super().__init__("recorder")
        self._journal = journal
        self._wire = wire
        self._on_trouble = on_trouble
        self._on_group = on_group
        self._waiting: collections.deque[Entry] = collections.deque()
        self._unrecorded: collections.deque[VerdictMessage] = collections.deque(
            maxlen=_MOST_UNRECORDED
        )
        self._recipe: RecipeInForce | None = None
        """The recipe in force, while the journal does not have it."""
        self._changed = threading.Condition()
        self._closing = False
        self._trouble = ""
        self._group: list[Entry] = []
        self._began: float | None = None
        self._forgotten = self._told = 0

    @property
    def stalled_s(self) -> float:
        """How long the commit under way has taken; 0 when there is none."""
        began = self._began
        return 0.0 if began is None else time.monotonic() - began

    @property
    def trouble(self) -> str:
        """Why recording fails; "" while it works."""
        return self._trouble

    @property
    def forgotten(self) -> int:
        """Verdicts that were published and will never be recorded: too many waited for it."""
        return self._forgotten

    @property
    def lag(self) -> int:
        """Entries that are not recorded yet."""
        return len(self._waiting) + len(self._group) + len(self._unrecorded)

    def put(self, entry: Entry) -> None:
        """Record and say ``entry``, in its turn; never blocks."""
        with self._changed:
            self._waiting.append(entry)
            self._changed.notify()

    def finish(self) -> None:
        """Record and say what waits, then end."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self.ident is not None:
            self.join()

    def work(self) -> None:
        """Commit and publish until ``finish``."""
        while True:
            with self._changed:
                idle_s = _RETRY_S if self._unrecorded or self._recipe else None
                self._changed.wait_for(lambda: self._waiting or self._closing, idle_s)
                if not self._waiting and self._closing:
                    break
                count = min(len(self._waiting), _MOST_A_COMMIT)
                self._group = [self._waiting.popleft() for _ in range(count)]
            self._group = [
                _in_time(entry) if isinstance(entry, VerdictEntry) else entry
                for entry in self._group
            ]
            self._began = time.monotonic()
            self._settle(self._group)
            self._began = None
            self._group = []
        # Once more: what fails now is in no journal for good.
        if (self._unrecorded or self._recipe) and not self._commit([]):
            self._forgotten += len(self._unrecorded)
            self._tell_forgotten()

    def _settle(self, group: list[Entry]) -> None:
        began = time.monotonic()
        recorded = self._commit(group)
        committed = time.monotonic()
        verdicts = 0
        for entry in group:
            if isinstance(entry, TriggerEntry | RecipeEntry):
                entry.then(recorded)
            elif isinstance(entry, StatusEntry):
                self._wire.send_status(entry.status)
            else:
                verdicts += 1
                verdict = entry.verdict
                if not recorded:
                    verdict = _unrecorded(verdict, self._trouble)
                    if len(self._unrecorded) == _MOST_UNRECORDED:
                        self._forget()
                    self._unrecorded.append(verdict)
                self._wire.send_verdict(verdict)
                entry.then(verdict, recorded)
        if verdicts:
            published = time.monotonic()
            self._on_group(
                Timing(verdicts, (committed - began) * 1e3, (published - committed) * 1e3)
            )

    def _commit(self, group: list[Entry]) -> bool:
        triggers = [
            entry.trigger for entry in group if isinstance(entry, TriggerEntry) and entry.trigger
        ]
        verdicts = [entry.verdict for entry in group if isinstance(entry, VerdictEntry)]
        for entry in group:
            if isinstance(entry, RecipeEntry):
                self._recipe = entry.recipe
        if not triggers and not verdicts and not self._unrecorded and not self._recipe:
            return True
        late = list(self._unrecorded)
        try:
            if self._recipe:
                self._journal.keep(self._recipe)
                self._recipe = None
            self._journal.commit(triggers, [*late, *verdicts])
        except JournalError as error:
            if not self._trouble:
                self._trouble = str(error)
                self._on_trouble(self._trouble)
            return False
        self._unrecorded.clear()
        self._tell_forgotten()
        if self._trouble:
            self._trouble = ""
            self._on_trouble("")
        return True

    def _forget(self) -> None:
        """The oldest that waits for the journal makes room for another."""
        if self._forgotten == self._told:
            detail = f"{_MOST_UNRECORDED} verdicts wait for the journal; the oldest are given up"
            say("forgotten", logging.ERROR, detail=detail)
        self._forgotten += 1

    def _tell_forgotten(self) -> None:
        if self._forgotten > self._told:
            self._told = self._forgotten
            say("forgotten", logging.ERROR, verdicts=self._forgotten)


def _in_time(entry: VerdictEntry) -> VerdictEntry:
    """``entry``, its verdict a FAULT when the journal could not take it before its deadline."""
    verdict = entry.verdict
    if entry.deadline_ns is None or verdict.verdict is Verdict.FAULT:
        return entry
    late_ms = (time.monotonic_ns() - entry.deadline_ns) / 1e6
    if late_ms < 0:
        return entry
    detail = f"judged {verdict.verdict} in time, but the journal came {late_ms:.0f} ms too late"
    changed = {
        "verdict": Verdict.FAULT,
        "score": None,
        "regions": (),
        "reason": Reason.DEADLINE_MISSED.value,
        "detail": detail,
    }
    return replace(entry, verdict=verdict.model_copy(update=changed))


def _unrecorded(verdict: VerdictMessage, trouble: str) -> VerdictMessage:
    """What is published of a verdict that the journal does not have."""
    return verdict.model_copy(
        update={
            "verdict": Verdict.FAULT,
            "score": None,
            "regions": (),
            "reason": Reason.JOURNAL_FAILED.value,
            "detail": f"judged {verdict.verdict}, not recorded: {trouble}",
        }
    )
