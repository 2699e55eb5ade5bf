"""The thread that encodes, publishes and keeps the parts' pictures."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, Protocol

import numpy.typing as npt

from inspector.config.station_file import CameraRecipe
from inspector.imaging.geometry import Box
from inspector.imaging.heatmaps import map_to_grey
from inspector.imaging.images import encode_jpeg, encode_png
from inspector.station.inbox import Inbox
from inspector.threads import QueueWorker
from inspector.verdict import FloatMap, Judgement, Verdict
from inspector.wire.messages import HeatmapMessage, VerdictMessage
from inspector.wire.publisher import Publisher

_PICTURES_WAITING: Final = 20
_NICE: Final = 10
"""Added to this thread's nice value, or a part that follows at once would wait for encoding."""


class PictureStore(Protocol):
    """Where pictures are kept; :class:`inspector.journal.pictures.Archive` is one."""

    def wants(self, verdict: VerdictMessage) -> bool:
        """True when the picture of this part is to be kept."""
        ...

    def keep(
        self,
        verdict: VerdictMessage,
        frame: npt.NDArray[Any],
        anomaly_map: FloatMap | None,
        region: Box | None,
        *,
        checked: bool,
    ) -> bool:
        """Keep it; False when there is no room."""
        ...


@dataclass(frozen=True)
class PartPictures:
    """What may be shown and kept of one part.

    ``judgement`` has the map and the judged region, ``frame`` is the picture as it came; both are
    None where there was none, or no memory for it. ``recipe`` judged the part; None for a part of
    a camera that the station file no longer has.
    """

    verdict: VerdictMessage
    recipe: CameraRecipe | None
    judgement: Judgement | None
    frame: npt.NDArray[Any] | None


@dataclass(frozen=True)
class _Job:
    """Pictures of a part, with their frame only if it is to be kept."""

    pictures: PartPictures
    header: HeatmapMessage | None
    """Published with the heatmap; None: nothing is published."""


class Pictures(QueueWorker[_Job]):
    """Encodes, publishes and keeps pictures, so that none delays a verdict; owns the images socket.

    When the line is faster, the oldest waiting picture goes, which ``on_drop`` hears: pictures are
    for people, verdicts are not affected.
    """

    def __init__(
        self,
        publisher: Publisher,
        store: PictureStore,
        inbox: Inbox,
        on_drop: Callable[[Literal["published", "kept"]], None],
    ) -> None:
        super().__init__("pictures")
        self._publisher = publisher
        self._store = store
        self._inbox = inbox
        self._on_drop = on_drop

    def has_room(self) -> bool:
        """False when the next picture would push out one that waits."""
        return len(self._waiting) < _PICTURES_WAITING

    def show(self, pictures: PartPictures) -> None:
        """Publish and keep a part's pictures soon; never blocks."""
        if pictures.frame is not None and not self._store.wants(pictures.verdict):
            # A frame is one of a few places in its camera's memory, which wants it back.
            pictures = replace(pictures, frame=None)
        job = _Job(pictures, heatmap_header(pictures))
        if job.header is None and pictures.frame is None:
            return
        with self._changed:
            if len(self._waiting) >= _PICTURES_WAITING:
                dropped = self._waiting.popleft()
                if dropped.header is not None:
                    self._on_drop("published")
                if dropped.pictures.frame is not None:
                    self._on_drop("kept")
            self._waiting.append(job)
            self._changed.notify()

    def work(self) -> None:
        """Publish and keep until ``finish``."""
        _yield_to_others()
        while jobs := self._take(1):
            self._publish(jobs[0])
            self._keep(jobs[0])
            # Or the last part's pictures would stay in memory until the next part's come.
            jobs.clear()
            self._inbox.wake()

    def _publish(self, job: _Job) -> None:
        judgement, header = job.pictures.judgement, job.header
        # Nobody looks, most of the time: then nothing is encoded.
        if (
            header is not None
            and judgement is not None
            and judgement.anomaly_map is not None
            and judgement.judged is not None
            and self._publisher.wants_heatmaps(header.station)
        ):
            png = encode_png(map_to_grey(judgement.anomaly_map))
            self._publisher.send_heatmap(header, png, encode_jpeg(judgement.judged))

    def _keep(self, job: _Job) -> None:
        pictures = job.pictures
        if pictures.frame is None:
            return
        recipe, judgement = pictures.recipe, pictures.judgement
        kept = self._store.keep(
            pictures.verdict,
            pictures.frame,
            None if judgement is None else judgement.anomaly_map,
            None if recipe is None else recipe.region,
            checked=recipe is not None and recipe.check_pictures,
        )
        if not kept:
            self._on_drop("kept")


def heatmap_header(pictures: PartPictures) -> HeatmapMessage | None:
    """The header with which a part's heatmap is published; None when there is none to show.

    The recipe's picture policy decides, and a part without a map has no heatmap.
    """
    verdict, recipe, judgement = pictures.verdict, pictures.recipe, pictures.judgement
    if recipe is None or judgement is None:
        return None
    if judgement.judged is None or judgement.anomaly_map is None:
        return None
    passed = verdict.verdict is Verdict.PASS
    if recipe.pictures == "none" or (recipe.pictures == "not_pass" and passed):
        return None
    height, width = judgement.judged.shape[:2]
    return HeatmapMessage(
        station=verdict.station,
        camera=verdict.camera,
        epoch=verdict.epoch,
        seq=verdict.seq,
        part_id=verdict.part_id,
        verdict=verdict.verdict,
        score=verdict.score,
        width=width,
        height=height,
    )


def _yield_to_others() -> None:
    """Have this thread compute only where no other wants the core; where the system knows that."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            # Linux has a nice value for each thread.
            me = os.PRIO_PROCESS, threading.get_native_id()
            os.setpriority(*me, min(19, os.getpriority(*me) + _NICE))
