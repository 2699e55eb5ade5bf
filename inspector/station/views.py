"""What the query socket tells: recorded verdicts, their pictures, live pictures, deeds, models.

All of it is read in the thread of that socket, by a connection to the journal of its own.
"""

from __future__ import annotations

import collections
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy.typing as npt

from inspector.errors import Fault, JournalError
from inspector.imaging.heatmaps import map_to_grey
from inspector.imaging.images import encode_jpeg, encode_png, png_size, shrink
from inspector.journal.pictures import kept_of
from inspector.journal.reader import Reader
from inspector.journal.schema import DeedFilter
from inspector.journal.search import Filter
from inspector.station.grabber import Grabber
from inspector.station.pictures import SeenPart, SeenParts
from inspector.wire.judging import JudgingField
from inspector.wire.messages import AreaField, RefusalCause, RefusalCode, VerdictMessage
from inspector.wire.queries import (
    AnswerMessage,
    CountsField,
    CountsQuery,
    DeedField,
    DeedsQuery,
    DeliveredField,
    EntryField,
    FrameField,
    HistoryQuery,
    JudgingQuery,
    MarkField,
    PictureField,
    PictureQuery,
    PreviewQuery,
    Query,
)
from inspector.wire.query_server import Answer

_PREVIEW_S: Final = 2.0
"""How long a camera may take until its next picture."""
_MOST_PREVIEWS: Final = 100
"""Previews that may wait for pictures."""

_Shown = list[tuple[FrameField, bytes]]


class _RefusedError(Exception):
    """There is no answer, and why."""

    def __init__(
        self, code: RefusalCode, detail: str, cause: RefusalCause | Literal[""] = ""
    ) -> None:
        super().__init__(detail)
        self.code = code
        self.cause = cause


@dataclass
class _Preview:
    """Somebody waits for a picture of a camera, until ``until_s`` (monotonic)."""

    query: PreviewQuery
    answer: Answer
    until_s: float


class Views:
    """Answers queries; used by the thread of the query socket.

    ``folder`` is the journal's. ``judging`` says by what the station judges. ``wake`` is called, by
    any thread, when ``turn`` has something to do.
    """

    def __init__(
        self,
        wake: Callable[[], None],
        *,
        folder: Path,
        open_reader: Callable[[], Reader],
        seen: SeenParts,
        grabbers: Mapping[str, Grabber],
        judging: Callable[[], JudgingField],
    ) -> None:
        self._folder = folder
        self._open_reader = open_reader
        self._reader: Reader | None = None
        self._seen = seen
        self._grabbers = grabbers
        self._judging = judging
        self._wake = wake
        self._previews: dict[str, list[_Preview]] = {}
        """Those that wait, by their camera; one that is here was asked for a picture."""
        self._pictures: collections.deque[tuple[str, npt.NDArray[Any], int]] = collections.deque()
        """Pictures that came, with their camera and time."""

    def answer(self, query: Query, answer: Answer) -> None:
        """Answer ``query`` now, or when its camera has a picture."""
        try:
            if isinstance(query, PreviewQuery):
                self._await_picture(query, answer)
                return
            if isinstance(query, HistoryQuery):
                found: tuple[AnswerMessage, Sequence[bytes]] = self._history(query), ()
            elif isinstance(query, DeedsQuery):
                found = self._deeds(query), ()
            elif isinstance(query, CountsQuery):
                found = self._counts(query), ()
            elif isinstance(query, JudgingQuery):
                found = AnswerMessage(id=query.id, kind="judging", judging=self._judging()), ()
            else:
                found = self._picture(query)
        except JournalError as error:
            self.close()
            _refuse(query, answer, "journal", str(error))
        except _RefusedError as error:
            _refuse(query, answer, error.code, str(error), error.cause)
        else:
            answer(*found)

    def turn(self) -> float | None:
        """Answer previews whose pictures came, or did not; how long until another one is due, s."""
        while self._pictures:
            camera, picture, at_us = self._pictures.popleft()
            for preview in self._previews.pop(camera, []):
                try:
                    preview.answer(*_live(preview.query, picture, at_us))
                except (Fault, ValueError) as error:
                    words = f"camera {camera}: {error}"
                    _refuse(preview.query, preview.answer, "failed", words, "camera")
        now_s = time.monotonic()
        for camera, waiting in list(self._previews.items()):
            for preview in [one for one in waiting if one.until_s <= now_s]:
                waiting.remove(preview)
                detail = f"camera {camera} gave no picture within {_PREVIEW_S:g} s"
                _refuse(preview.query, preview.answer, "not_ready", detail, "camera")
        dues = [one.until_s for waiting in self._previews.values() for one in waiting]
        return max(0.0, min(dues) - now_s) if dues else None

    def close(self) -> None:
        """Close the journal; the next query has it opened anew, mended perhaps."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    @property
    def _journal(self) -> Reader:
        if self._reader is None:
            self._reader = self._open_reader()
        return self._reader

    def _history(self, query: HistoryQuery) -> AnswerMessage:
        asked = Filter(
            since_us=query.since_us,
            until_us=query.until_us,
            camera=query.camera,
            verdicts=query.verdicts,
            reason=query.reason,
            part_id=query.part_id,
            score_from=query.score_from,
            score_to=query.score_to,
            marked=query.marked,
        )
        before = None
        if query.before_epoch is not None and query.before_seq is not None:
            before = query.before_epoch, query.before_seq
        try:
            page = self._journal.search(asked, before, query.limit)
        except LookupError:
            detail = f"epoch '{query.before_epoch}' is not in the journal, or no longer"
            raise _RefusedError("unknown", detail, "part") from None
        epoch, seq = page.next_before or (None, None)
        return AnswerMessage(
            id=query.id,
            kind="history",
            entries=tuple(map(self._entry, page.verdicts)),
            next_epoch=epoch,
            next_seq=seq,
        )

    def _entry(self, verdict: VerdictMessage) -> EntryField:
        epoch, seq = verdict.epoch, verdict.seq
        has_picture = (
            self._seen.find(epoch, seq) is not None or kept_of(self._folder, verdict) is not None
        )
        return EntryField(
            verdict=verdict,
            marks=tuple(
                MarkField(
                    label=one.label, client=one.client, by=one.by, at_us=one.at_us, note=one.note
                )
                for one in self._journal.marks(epoch, seq, seq)
            ),
            delivered=tuple(
                DeliveredField(outcome=one.outcome, client=one.client, at_us=one.at_us)
                for one in self._journal.delivered(epoch, seq, seq)
            ),
            has_picture=has_picture,
        )

    def _deeds(self, query: DeedsQuery) -> AnswerMessage:
        asked = DeedFilter(
            since_us=query.since_us, until_us=query.until_us, kinds=query.kinds, who=query.who
        )
        found = self._journal.deeds(query.before, query.limit, asked)
        return AnswerMessage(
            id=query.id,
            kind="deeds",
            deeds=tuple(
                DeedField(
                    number=number,
                    at_us=deed.at_us,
                    kind=deed.kind,
                    client=deed.client,
                    by=deed.by,
                    subject=deed.subject,
                    before=deed.before,
                    after=deed.after,
                    note=deed.note,
                )
                for number, deed in found
            ),
            next_deed=found[-1][0] if len(found) == query.limit else None,
        )

    def _counts(self, query: CountsQuery) -> AnswerMessage:
        found = self._journal.counts(query.since_us, query.until_us)
        newest = found.newest
        return AnswerMessage(
            id=query.id,
            kind="counts",
            counts=CountsField(
                passed=found.passed,
                failed=found.failed,
                faults=found.faults,
                newest_epoch=None if newest is None else newest.epoch,
                newest_seq=None if newest is None else newest.seq,
                newest_us=None if newest is None else newest.judged_us,
            ),
        )

    def _picture(self, query: PictureQuery) -> tuple[AnswerMessage, Sequence[bytes]]:
        seen = self._seen.find(query.epoch, query.seq)
        verdict = self._journal.verdict(query.epoch, query.seq)
        if verdict is None and seen is None:
            detail = f"verdict {query.seq} of epoch '{query.epoch}' is not in the journal"
            raise _RefusedError("unknown", detail, "part")
        try:
            # What is on the disk is the picture in full.
            found = None if verdict is None else self._kept(query, verdict)
            if found is None and seen is not None:
                found = _remembered(query, seen)
        except (Fault, ValueError) as error:
            raise _RefusedError("failed", str(error), "picture") from None
        if found is None:
            raise _RefusedError(
                "unknown", "no picture of this part was kept, or it is gone", "picture"
            )
        return found

    def _kept(
        self, query: PictureQuery, verdict: VerdictMessage
    ) -> tuple[AnswerMessage, Sequence[bytes]] | None:
        kept = kept_of(self._folder, verdict)
        if kept is None:
            return None
        shown: _Shown = []
        try:
            if query.picture and query.full:
                # As it is stored it costs no core, and whoever has it may have it judged again.
                record, data = kept.stored()
                width, height = png_size(data)
                told = FrameField(content="picture", format="png", width=width, height=height)
                shown.append((told, data))
            else:
                record, frame = kept.load()
                height, width = frame.shape[:2]
                if query.picture:
                    shown.append(_encoded(frame, False, query.longest_px))
        except FileNotFoundError:
            return None
        heat = kept.heatmap() if query.heatmap else None
        if heat:
            across, down = png_size(heat)
            shown.append(
                (FrameField(content="heatmap", format="png", width=across, height=down), heat)
            )
        area = record.heatmap_area
        picture = PictureField(
            origin="kept",
            camera=verdict.camera,
            verdict=verdict,
            at_us=verdict.judged_us,
            width=width,
            height=height,
            heatmap_area=None if area is None else AreaField(**area.model_dump()),
            frame_area=AreaField(x=0, y=0, w=width, h=height),
            frames=tuple(told for told, _ in shown),
        )
        return _message(query, "picture", picture), [data for _, data in shown]

    def _await_picture(self, query: PreviewQuery, answer: Answer) -> None:
        grabber = self._grabbers.get(query.camera)
        if grabber is None or not grabber.is_alive():
            why = "there is no such camera" if grabber is None else "it has ended"
            code: RefusalCode = "unknown" if grabber is None else "not_ready"
            raise _RefusedError(code, f"camera '{query.camera}': {why}", "camera")
        if sum(map(len, self._previews.values())) >= _MOST_PREVIEWS:
            raise _RefusedError("busy", f"{_MOST_PREVIEWS} previews already wait for pictures")
        waiting = self._previews.get(query.camera)
        preview = _Preview(query, answer, time.monotonic() + _PREVIEW_S)
        if waiting is not None:
            waiting.append(preview)
            return
        self._previews[query.camera] = [preview]

        def take(picture: npt.NDArray[Any], at_us: int) -> None:
            self._pictures.append((query.camera, picture, at_us))
            self._wake()

        grabber.show(take)


def _remembered(query: PictureQuery, seen: SeenPart) -> tuple[AnswerMessage, Sequence[bytes]]:
    """The judged region of a part whose picture was not kept, which its map covers."""
    shown: _Shown = []
    if query.picture:
        shown.append(_encoded(seen.judged, query.full, query.longest_px))
    height, width = seen.judged.shape[:2]
    if query.heatmap:
        told = FrameField(content="heatmap", format="png", width=width, height=height)
        shown.append((told, encode_png(map_to_grey(seen.anomaly_map))))
    picture = PictureField(
        origin="memory",
        camera=seen.verdict.camera,
        verdict=seen.verdict,
        at_us=seen.verdict.judged_us,
        width=width,
        height=height,
        heatmap_area=AreaField(x=0, y=0, w=width, h=height),
        frame_area=seen.area,
        frames=tuple(told for told, _ in shown),
    )
    return _message(query, "picture", picture), [data for _, data in shown]


def _live(
    query: PreviewQuery, frame: npt.NDArray[Any], at_us: int
) -> tuple[AnswerMessage, Sequence[bytes]]:
    told, data = _encoded(frame, query.full, query.longest_px)
    picture = PictureField(
        origin="camera",
        camera=query.camera,
        verdict=None,
        at_us=at_us,
        width=frame.shape[1],
        height=frame.shape[0],
        heatmap_area=None,
        frame_area=_whole(frame),
        frames=(told,),
    )
    return _message(query, "preview", picture), [data]


def _whole(frame: npt.NDArray[Any]) -> AreaField:
    return AreaField(x=0, y=0, w=frame.shape[1], h=frame.shape[0])


def _encoded(frame: npt.NDArray[Any], full: bool, longest_px: int) -> tuple[FrameField, bytes]:
    """A picture as it is sent. Raises :class:`Fault` or ValueError for what is no picture."""
    if full:
        height, width = frame.shape[:2]
        told = FrameField(content="picture", format="png", width=width, height=height)
        return told, encode_png(frame)
    reduced = shrink(frame, longest_px)
    height, width = reduced.shape[:2]
    told = FrameField(content="picture", format="jpeg", width=width, height=height)
    return told, encode_jpeg(reduced)


def _message(query: Query, kind: Any, picture: PictureField) -> AnswerMessage:
    return AnswerMessage(id=query.id, kind=kind, picture=picture)


def _refuse(
    query: Query,
    answer: Answer,
    code: RefusalCode,
    detail: str,
    cause: RefusalCause | Literal[""] = "",
) -> None:
    refused = AnswerMessage(id=query.id, kind="refused", code=code, cause=cause, detail=detail)
    answer(refused, ())
