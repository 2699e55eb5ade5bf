"""The thread that encodes, publishes and keeps the parts' pictures."""

from __future__ import annotations

import collections
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, Protocol

import numpy.typing as npt

from inspector.config.station_file import CameraRecipe
from inspector.imaging.geometry import Box, Geometry
from inspector.imaging.heatmaps import map_to_grey
from inspector.imaging.images import encode_jpeg, encode_png
from inspector.station.inbox import Inbox
from inspector.threads import QueueWorker, yield_to_others
from inspector.verdict import FloatMap, Frame8, Judgement, Verdict
from inspector.wire.messages import AreaField, HeatmapMessage, VerdictMessage
from inspector.wire.publisher import Publisher

_PICTURES_WAITING: Final = 20
_MOST_REMEMBERED: Final = 100
_MOST_REMEMBERED_BYTES: Final = 32 << 20


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
        heatmap_area: tuple[float, float, float, float] | None,
    ) -> bool:
        """Keep it; False when there is no room."""
        ...


@dataclass(frozen=True)
class PartPictures:
    """What may be shown and kept of one part.

    ``judgement`` has the map and the judged region, ``frame`` is the picture as it came; both are
    None where there was none, or no memory for it. ``recipe`` judged the part; None for a part of
    a camera that the station file no longer has. ``geometry`` says where the map lies over the
    picture.
    """

    verdict: VerdictMessage
    recipe: CameraRecipe | None
    judgement: Judgement | None
    frame: npt.NDArray[Any] | None
    geometry: Geometry | None = None


@dataclass(frozen=True)
class _Job:
    """Pictures of a part, with their frame only if it is to be kept."""

    pictures: PartPictures
    header: HeatmapMessage | None
    """Published with the heatmap; None: nothing is published."""


@dataclass(frozen=True)
class SeenPart:
    """A part of which the judged region and its map are in memory.

    ``judged``: uint8 BGR ``[H, W, 3]``, the region as the network saw it; ``anomaly_map``: float32
    ``[H, W]`` in units of the limit; ``area``: where both lie in the camera's frame.
    """

    verdict: VerdictMessage
    judged: Frame8
    anomaly_map: FloatMap
    area: AreaField | None = None


class SeenParts:
    """The last parts whose pictures the recipe shows; any thread may ask."""

    def __init__(self) -> None:
        self._parts: collections.OrderedDict[tuple[str, int], SeenPart] = collections.OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def find(self, epoch: str, seq: int) -> SeenPart | None:
        """The part of this verdict; None when it is not in memory, or no longer."""
        with self._lock:
            return self._parts.get((epoch, seq))

    def add(self, part: SeenPart) -> None:
        """Remember ``part``, and forget the oldest beyond some megabytes."""
        with self._lock:
            self._parts[part.verdict.epoch, part.verdict.seq] = part
            self._bytes += _size(part)
            while len(self._parts) > _MOST_REMEMBERED or self._bytes > _MOST_REMEMBERED_BYTES:
                self._bytes -= _size(self._parts.popitem(last=False)[1])


def _size(part: SeenPart) -> int:
    return part.judged.nbytes + part.anomaly_map.nbytes


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
        self.seen = SeenParts()

    def has_room(self) -> bool:
        """False when the next picture would push out one that waits."""
        return len(self._waiting) < _PICTURES_WAITING

    def show(self, pictures: PartPictures) -> None:
        """Publish and keep a part's pictures soon; never blocks."""
        header = heatmap_header(pictures)
        if pictures.frame is not None and not self._store.wants(pictures.verdict):
            # A frame is one of a few places in its camera's memory, which wants it back.
            pictures = replace(pictures, frame=None)
        job = _Job(pictures, header)
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
        yield_to_others()
        while jobs := self._take(1):
            self._remember(jobs[0])
            self._publish(jobs[0])
            self._keep(jobs[0])
            # Or the last part's pictures would stay in memory until the next part's come.
            jobs.clear()
            self._inbox.wake()

    def _remember(self, job: _Job) -> None:
        judgement = job.pictures.judgement
        if job.header is None or judgement is None:
            return
        if judgement.judged is not None and judgement.anomaly_map is not None:
            verdict = job.pictures.verdict
            seen = SeenPart(
                verdict, judgement.judged, judgement.anomaly_map, job.header.heatmap_area
            )
            self.seen.add(seen)

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
        recipe, judgement, geometry = pictures.recipe, pictures.judgement, pictures.geometry
        kept = self._store.keep(
            pictures.verdict,
            pictures.frame,
            None if judgement is None else judgement.anomaly_map,
            None if recipe is None else recipe.region,
            checked=recipe is not None and recipe.check_pictures,
            heatmap_area=None if geometry is None else geometry.covered(pictures.frame.shape),
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
    area = None
    if pictures.geometry is not None and pictures.frame is not None:
        covered = pictures.geometry.covered(pictures.frame.shape)
        area = AreaField(**dict(zip("xywh", covered, strict=True)))
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
        heatmap_area=area,
    )
