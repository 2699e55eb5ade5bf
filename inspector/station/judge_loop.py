"""From a camera's picture to a judged part: which part it is of, and what its judge says."""

from __future__ import annotations

import time
from typing import Final, NamedTuple

from inspector.judging.judges import Judges
from inspector.station.inbox import Arrival, Inbox
from inspector.station.ledger import Ledger
from inspector.station.part import Part, Picture
from inspector.verdict import Judgement, Reason, Verdict

_TORN: Final = "torn picture: it was written over while it was judged"
_FAILURES: Final = frozenset({Reason.INFERENCE_ERROR, Reason.NOT_FINITE})


class Exposed(NamedTuple):
    """A part whose picture is there, and waits for its judge."""

    part: Part
    picture: Picture


class FailedOnProbation(NamedTuple):
    """A part that the judge of a changeover could not judge, though it is new and was checked.

    The part has no verdict yet: roll the changeover back, then have it judged again.
    """

    exposed: Exposed
    why: str


class JudgeLoop:
    """Judges what the cameras hand over; used by the station's own thread."""

    def __init__(self, judges: Judges, ledger: Ledger, inbox: Inbox) -> None:
        self._judges = judges
        self._ledger = ledger
        self._inbox = inbox
        self._ahead: dict[int, Part | None] = {}
        """The parts of arrivals that still wait in the inbox, by their identity."""

    def take(self, first: Arrival) -> FailedOnProbation | None:
        """Judge the part that ``first`` shows, together with others that wait where that pays.

        A picture exposed after the batch began belongs to no part in it, so the order is kept.
        """
        found = [exposed for exposed in map(self._expose, self._with_others(first)) if exposed]
        self._expose_ahead()
        if len(found) > 1:
            self._judge_together(found)
            return None
        return self.judge(found[0]) if found else None

    def judge(self, exposed: Exposed) -> FailedOnProbation | None:
        """Judge one part alone."""
        part, picture = exposed
        judge = self._judges[part.camera]
        started_ns = time.monotonic_ns()
        (judgement,) = self._judges.batching.judge([(judge, picture.image)])
        if judge.on_probation and judgement.reason in _FAILURES:
            return FailedOnProbation(exposed, f"{part.camera}: {judgement.detail}")
        self._ledger.note_inference(part.camera, judge.health())
        self._settle(exposed, judgement, started_ns)
        return None

    def _with_others(self, first: Arrival) -> list[Arrival]:
        # A picture that comes while a camera has no model is of no part, and judged by nobody.
        if first.frame is None or self._judges.lacking:
            return [first]
        batching, judge = self._judges.batching, self._judges[first.camera]
        most = batching.largest(judge)
        if most == 1:
            return [first]
        arrivals = [first, *self._inbox.next_pictures(most - 1)]
        now_ns = time.monotonic_ns()
        # A part that waits for its verdict elsewhere must not wait for this batch either.
        soonest_ns = self._ledger.next_due_ns()
        deadlines_ns = [self._deadline_ns(arrival, now_ns) for arrival in arrivals]
        if soonest_ns is not None:
            deadlines_ns = [min(deadline_ns, soonest_ns) for deadline_ns in deadlines_ns]
        judges = [self._judges[arrival.camera] for arrival in arrivals]
        size = batching.size(judges, deadlines_ns, now_ns)
        return [first, *self._inbox.take_pictures(size - 1)]

    def _deadline_ns(self, arrival: Arrival, now_ns: int) -> int:
        part = self._ahead.get(id(arrival))
        if part is not None:
            return part.deadline_ns
        return self._ledger.deadline_ns(arrival.camera, arrival.since_ns or now_ns)

    def _expose_ahead(self) -> None:
        """Give pictures that wait to their triggers, so that these parts may move meanwhile."""
        for arrival in self._inbox.next_arrivals():
            if id(arrival) not in self._ahead and self._ledger.takes_triggers(arrival.camera):
                self._ahead[id(arrival)] = self._part_of(arrival)

    def _expose(self, arrival: Arrival) -> Exposed | None:
        """The part that a picture is of; None: of none that is to be judged."""
        if id(arrival) in self._ahead:
            part = self._ahead.pop(id(arrival))
            if part is None or not self._ledger.is_open(part):
                return None
        else:
            part = self._part_of(arrival)
        if part is None:
            return None
        if arrival.frame is None:
            self._ledger.fault(part, arrival.reason, arrival.detail)
            return None
        return Exposed(part, arrival.frame)

    def _part_of(self, arrival: Arrival) -> Part | None:
        return self._ledger.expose(
            arrival.camera,
            arrival.exposed_ns,
            arrival.grabbed_us or 0,
            arrival.part_id,
            arrival.since_ns,
            frame=arrival.frame,
        )

    def _judge_together(self, found: list[Exposed]) -> None:
        started_ns = time.monotonic_ns()
        judgements = self._judges.batching.judge(
            [(self._judges[part.camera], picture.image) for part, picture in found]
        )
        for exposed, judgement in zip(found, judgements, strict=True):
            failed = judgement.reason is Reason.INFERENCE_ERROR
            self._ledger.note_inference(exposed.part.camera, judgement.detail if failed else "")
            self._settle(exposed, judgement, started_ns)

    def _settle(self, exposed: Exposed, judgement: Judgement, started_ns: int) -> None:
        part, picture = exposed
        if not picture.whole():
            # The judge looked at two pictures, or at another part's.
            part.frame = None
            self._ledger.fault(part, Reason.FRAME_UNREADABLE, _TORN)
            return
        if judgement.verdict is not Verdict.FAULT:
            self._judges.confirm(part.camera)
        self._ledger.judged(part, judgement, started_ns)
