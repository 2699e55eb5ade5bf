"""The way out of a part: its verdict to the journal and the wire, then its answers and pictures."""

from __future__ import annotations

import logging
import time
from functools import partial
from typing import Final

from inspector.judging.alarms import Alarms
from inspector.judging.judges import Judges
from inspector.logs import say
from inspector.station.inbox import Inbox
from inspector.station.ledger import Closed, Ledger
from inspector.station.metrics import Metrics
from inspector.station.part import Part
from inspector.station.pictures import PartPictures, Pictures
from inspector.station.recorder import Recorder, Timing, VerdictEntry
from inspector.verdict import Verdict
from inspector.wire.messages import VerdictMessage

_MOST_WITH_PICTURES: Final = 50
"""Entries that may wait for the disk with their pictures; a frame is some megabytes."""


class Delivery:
    """Hands closed parts to the recorder, and sees to what follows once they are published."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        judges: Judges,
        alarms: Alarms,
        recorder: Recorder,
        pictures: Pictures,
        metrics: Metrics,
        inbox: Inbox,
    ) -> None:
        self._ledger = ledger
        self._judges = judges
        self._alarms = alarms
        self._recorder = recorder
        self._pictures = pictures
        self._metrics = metrics
        self._inbox = inbox

    def close_parts(self) -> None:
        """Hand every verdict that is due to the recorder, in order; for the station's thread."""
        for closed in self._ledger.close():
            if closed.verdict.counts:
                self._judges.note(closed.verdict)
            pictures = self._pictures_of(closed)
            self._recorder.put(
                VerdictEntry(
                    closed.verdict,
                    closed.part.deadline_ns,
                    partial(self._published, closed.part, pictures),
                )
            )

    def _pictures_of(self, closed: Closed) -> PartPictures:
        verdict, part = closed
        if part.frame is not None and self._recorder.lag > _MOST_WITH_PICTURES:
            # A disk that stalls must not fill the memory with pictures.
            part.frame = part.judgement = None
            self._metrics.dropped("kept")
        station = self._judges.station
        # A trigger that a crash left may be of a camera that the station file no longer has.
        recipe = station.recipes[station.recipe].get(verdict.camera)
        frame = None if part.frame is None else part.frame.image
        geometry = None
        if frame is not None and part.judgement is not None:
            geometry = self._judges[verdict.camera].detector.geometry
        return PartPictures(verdict, recipe, part.judgement, frame, geometry)

    def _published(
        self, part: Part, pictures: PartPictures, published: VerdictMessage, recorded: bool
    ) -> None:
        """In the recorder's thread: the verdict is on the disk and on the wire."""
        for request in part.requests:
            request.answer(published, recorded)
        self._metrics.verdict(published)
        if published.counts:
            self._alarms.note(published)
        if part.is_begun:
            taken_s = (time.monotonic_ns() - part.start_ns) / 1e9
            self._metrics.stage("trigger_to_verdict", taken_s, published.camera)
        if recorded and published == pictures.verdict:
            self._pictures.show(pictures)
        else:
            self._inbox.call(partial(self._ledger.amend, pictures.verdict, published))
        if published.verdict is Verdict.FAULT:
            say(
                "fault",
                logging.WARNING,
                seq=published.seq,
                camera=published.camera,
                part=published.part_id,
                reason=published.reason,
                detail=published.detail,
            )


def note_group(metrics: Metrics, timing: Timing) -> None:
    """Count how long one group of verdicts took to be committed and published."""
    metrics.stage("commit", timing.commit_ms / 1e3)
    metrics.stage("publish", timing.publish_ms / 1e3)
