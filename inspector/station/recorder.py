"""The only way out for a verdict: into the journal, then onto the wire."""

from __future__ import annotations

import collections
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

from inspector.errors import JournalError
from inspector.journal.schema import Deed, Kept, Report
from inspector.logs import say
from inspector.station.triggers import Trigger
from inspector.threads import QueueWorker
from inspector.verdict import Reason, Verdict
from inspector.wire.messages import StatusMessage, VerdictMessage

_MOST_A_COMMIT: Final = 1000
_MOST_UNRECORDED: Final = 100_000
_MOST_KEPT: Final = 1000
_MOST_REPORTS: Final = 100
"""Reports that go into one commit, for which verdicts wait."""
_TEND_S: Final = 1.0
_LONGEST_PASS_S: Final = 0.5
"""What a pass of the station's thread takes at most while its process runs, but for slow judges."""
"""How often what was not recorded is tried again, and the journal looks after itself."""


class Records(Protocol):
    """Where verdicts are committed; :class:`inspector.journal.writer.Journal` is one."""

    def commit(
        self,
        triggers: Sequence[Trigger],
        verdicts: Sequence[VerdictMessage],
        reports: Sequence[Report] = ...,
        /,
    ) -> Sequence[Report]:
        """All or nothing, and on the disk when it returns; the reports on verdicts it has not.

        Raises :class:`JournalError`.
        """
        ...

    def tend(self) -> None:
        """What is due once a second. Raises :class:`JournalError` when nothing can be recorded."""
        ...

    def keep(self, kept: Kept | None, deed: Deed | None = ..., /) -> None:
        """On the disk when it returns. Raises :class:`JournalError`."""
        ...


class Wire(Protocol):
    """Where they are published."""

    def send_verdict(self, message: VerdictMessage) -> None: ...  # noqa: D102

    def send_status(self, message: StatusMessage) -> None: ...  # noqa: D102


@dataclass(frozen=True)
class TriggerEntry:
    """A trigger to record; None: one that has its verdict, and waits until that is recorded.

    ``then`` is called in the recorder's thread, with whether it is recorded.
    """

    trigger: Trigger | None
    then: Callable[[bool], None] = lambda _: None


@dataclass(frozen=True)
class VerdictEntry:
    """A verdict to record, then to publish.

    A PASS or FAIL that is not on the wire before ``deadline_ns`` (monotonic) goes out as a FAULT.
    ``then`` is called in the recorder's thread with the verdict as it was published, and whether
    it is recorded.
    """

    verdict: VerdictMessage
    deadline_ns: int | None = None
    then: Callable[[VerdictMessage, bool], None] = lambda _verdict, _recorded: None

    @property
    def is_late(self) -> bool:
        """True for a PASS or FAIL whose deadline has passed."""
        if self.deadline_ns is None or self.verdict.verdict is Verdict.FAULT:
            return False
        return time.monotonic_ns() >= self.deadline_ns


@dataclass(frozen=True)
class KeepEntry:
    """What the station goes on with after a restart, such as the recipe in force, and who did it.

    It is recorded before the verdicts that are put after this, so that a restart goes on with the
    recipe of the last verdict that anybody heard. ``then`` is called in the recorder's thread, with
    whether it is recorded; if it is not, it will be as soon as that works again.
    """

    kept: Kept | None
    then: Callable[[bool], None] = lambda _: None
    deed: Deed | None = None


@dataclass(frozen=True)
class ReportEntry:
    """What is told of a verdict that was published: what became of it, or a mark.

    It makes no commit of its own while verdicts or triggers come, as they would wait for that: it
    goes into their next one, or is recorded within a second. ``then`` is called in the recorder's
    thread: True once it is recorded, False if there is no such verdict, None if nothing can be
    recorded.
    """

    report: Report
    then: Callable[[bool | None], None] = lambda _: None


@dataclass(frozen=True)
class StatusEntry:
    """A status to publish after what was put before it."""

    status: StatusMessage


Entry = TriggerEntry | VerdictEntry | KeepEntry | ReportEntry | StatusEntry


def _is_recorded(entry: Entry) -> bool:
    """True for an entry that makes a commit."""
    if isinstance(entry, TriggerEntry):
        return entry.trigger is not None
    return isinstance(entry, VerdictEntry | KeepEntry)


class StallWatch:
    """How long a commit has taken, without time in which the station's own thread stood still.

    A process that is stopped, or that gets no processor, learns nothing about its disk meanwhile.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._looked_s = clock()
        self._stalled_s = 0.0

    def look(self, stalled_s: float) -> float:
        """Seconds of ``stalled_s`` in which the caller ran; to be called in each of its passes."""
        now_s = self._clock()
        ran_s = min(now_s - self._looked_s, _LONGEST_PASS_S)
        self._looked_s = now_s
        self._stalled_s = min(stalled_s, self._stalled_s + ran_s)
        return self._stalled_s


@dataclass(frozen=True)
class Timing:
    """How long one group took, ms, and how many verdicts it had."""

    verdicts: int
    commit_ms: float
    publish_ms: float


class Recorder(QueueWorker[Entry]):
    """Group commit: what waits while one commit runs is the next one.

    A PASS or FAIL whose deadline passes during its commit is overwritten as a FAULT by another
    commit before it is published. What cannot be recorded is published as a FAULT
    ``journal_failed``, never as a PASS or FAIL, kept, and recorded before anything else as soon as
    that works again. ``on_trouble`` hears, in the recorder's thread, why recording fails, and ""
    when it works again.
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
        self._unrecorded: collections.deque[VerdictMessage] = collections.deque(
            maxlen=_MOST_UNRECORDED
        )
        self._kept: collections.deque[KeepEntry] = collections.deque(maxlen=_MOST_KEPT)
        """What is to be kept, while the journal does not have it; later ones count."""
        self._reports: collections.deque[ReportEntry] = collections.deque()
        """What waits for the next commit."""
        self._unknown: frozenset[Report] = frozenset()
        """What the last commit of reports found no verdicts for."""
        self._trouble = ""
        self._group: list[Entry] = []
        self._began: float | None = None
        self._forgotten = self._told = 0
        self._tended_s = 0.0
        self._untended = False
        self._sent = self._published = 0

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
    def published(self) -> int:
        """Seq of the last verdict that may be replayed: it is recorded as it was published.

        None after it may be, for what is recorded may still be overwritten. Any thread may read it.
        """
        return self._published

    @property
    def lag(self) -> int:
        """Entries that are not recorded yet."""
        return len(self._waiting) + len(self._group) + len(self._unrecorded)

    def put(self, entry: Entry) -> None:
        """Record and say ``entry``, in its turn; never blocks."""
        with self._changed:
            self._waiting.append(entry)
            self._changed.notify()

    def work(self) -> None:
        """Commit and publish until ``finish``."""
        while (group := self._take(_MOST_A_COMMIT, _TEND_S)) is not None:
            self._group = group
            self._began = time.monotonic()
            self._settle(self._group)
            if time.monotonic() - self._tended_s >= _TEND_S:
                self._tend()
            self._began = None
            self._group = []
        # Once more: what fails now is in no journal for good.
        if (self._unrecorded or self._kept) and not self._commit([]):
            self._forgotten += len(self._unrecorded)
            self._tell_forgotten()
        while self._reports:
            self._record_reports()

    def _settle(self, group: list[Entry]) -> None:
        began = time.monotonic()
        self._overrule(group, "before it was recorded")
        self._reports += (one for one in group if isinstance(one, ReportEntry))
        # On an idle line they wait for ``_tend``.
        reports = self._take_reports() if any(map(_is_recorded, group)) else []
        recorded = self._commit(group, reports)
        committed = time.monotonic()
        verdicts = 0
        lost: set[int] = set()
        for i, entry in enumerate(group):
            if isinstance(entry, ReportEntry):
                continue
            if isinstance(entry, TriggerEntry | KeepEntry):
                entry.then(recorded)
            elif isinstance(entry, StatusEntry):
                self._wire.send_status(entry.status)
            else:
                verdicts += 1
                final = entry
                if recorded and entry.is_late:
                    # Whatever else is late by now goes into the same commit.
                    final, *others = self._overrule(group, "while it was recorded", i)
                    if not self._commit([final, *others]):
                        lost |= {one.verdict.seq for one in (final, *others)}
                self._publish(final, recorded and final.verdict.seq not in lost)
        self._answer(reports, recorded)
        if verdicts:
            published = time.monotonic()
            self._on_group(
                Timing(verdicts, (committed - began) * 1e3, (published - committed) * 1e3)
            )

    def _overrule(self, group: list[Entry], when: str, first: int = 0) -> list[VerdictEntry]:
        """Make a FAULT of what is late in ``group`` from ``first`` on; returns those FAULTs."""
        overruled: list[VerdictEntry] = []
        for i, entry in enumerate(group[first:], first):
            if isinstance(entry, VerdictEntry) and entry.is_late:
                verdict = entry.verdict
                detail = f"judged {verdict.verdict} in time, but its deadline passed {when}"
                fault = verdict.overruled(Reason.DEADLINE_MISSED, detail)
                overruled.append(replace(entry, verdict=fault))
                group[i] = overruled[-1]
        return overruled

    def _publish(self, entry: VerdictEntry, recorded: bool) -> None:
        verdict = entry.verdict
        if not recorded:
            known = verdict.detail or f"judged {verdict.verdict}"
            detail = f"{known}, not recorded: {self._trouble}"
            verdict = verdict.overruled(Reason.JOURNAL_FAILED, detail)
            if len(self._unrecorded) == _MOST_UNRECORDED:
                self._forget()
            self._unrecorded.append(verdict)
        self._wire.send_verdict(verdict)
        self._sent = verdict.seq
        self._allow_replay()
        entry.then(verdict, recorded)

    def _allow_replay(self) -> None:
        """Let be replayed what was sent, unless some of it is not recorded as it was sent."""
        if not self._unrecorded:
            self._published = self._sent

    def _take_reports(self) -> list[ReportEntry]:
        most = min(len(self._reports), _MOST_REPORTS)
        return [self._reports.popleft() for _ in range(most)]

    def _record_reports(self) -> None:
        reports = self._take_reports()
        self._answer(reports, self._commit([], reports))

    def _answer(self, reports: Sequence[ReportEntry], recorded: bool) -> None:
        for one in reports:
            one.then(one.report not in self._unknown if recorded else None)

    def _commit(self, group: Sequence[Entry], reports: Sequence[ReportEntry] = ()) -> bool:
        triggers = [
            entry.trigger for entry in group if isinstance(entry, TriggerEntry) and entry.trigger
        ]
        verdicts = [entry.verdict for entry in group if isinstance(entry, VerdictEntry)]
        self._kept += (entry for entry in group if isinstance(entry, KeepEntry))
        told = [entry.report for entry in reports]
        if not (triggers or verdicts or told or self._unrecorded or self._kept):
            # What is repeated was recorded, but while nothing can be, nothing is accepted.
            return not self._trouble
        late = list(self._unrecorded)
        try:
            while self._kept:
                self._journal.keep(self._kept[0].kept, self._kept[0].deed)
                self._kept.popleft()
            if told:
                unknown = self._journal.commit(triggers, [*late, *verdicts], told)
                self._unknown = frozenset(unknown)
            else:
                self._journal.commit(triggers, [*late, *verdicts])
        except JournalError as error:
            self._note_trouble(str(error))
            return False
        self._unrecorded.clear()
        self._allow_replay()
        self._tell_forgotten()
        self._note_trouble("")
        return True

    def _tend(self) -> None:
        """Have the journal look after itself, also while there is nothing to record."""
        self._tended_s = time.monotonic()
        try:
            self._journal.tend()
        except JournalError as error:
            self._untended = True
            self._note_trouble(str(error))
        else:
            if self._untended and not self._unrecorded:
                self._note_trouble("")
        if self._reports:
            self._record_reports()

    def _note_trouble(self, text: str) -> None:
        """Tell why recording fails, or "" when it works again; only if that is news."""
        if not text:
            self._untended = False
        if bool(text) != bool(self._trouble):
            self._trouble = text
            self._on_trouble(text)

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
