"""The thread that encodes, publishes and keeps the parts' pictures."""

from __future__ import annotations

import collections
import contextlib
import os
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, Protocol

import numpy.typing as npt

from inspector.imaging.geometry import Box
from inspector.imaging.heatmaps import map_to_grey
from inspector.imaging.images import encode_jpeg, encode_png
from inspector.station.inbox import Inbox
from inspector.threads import Worker
from inspector.verdict import FloatMap, Judgement
from inspector.wire.messages import HeatmapMessage, VerdictMessage
from inspector.wire.publisher import Publisher

_PICTURES_WAITING: Final = 20
_NICE: Final = 10
"""Of the thread of pictures: a part that follows at once would wait for their encoding."""


class PictureStore(Protocol):
    """Where pictures are kept; :class:`inspector.archive.Archive` is one."""

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
    """The pictures of one part: what is published (``header``), and the ``frame`` to be kept."""

    verdict: VerdictMessage
    judgement: Judgement | None
    header: HeatmapMessage | None
    frame: npt.NDArray[Any] | None
    region: Box | None = None
    checked: bool = True
    """It was looked at whether the picture is fit for judging."""


class Pictures(Worker):
    """Encodes, publishes and keeps pictures, so that none delays a verdict; owns the images socket.

    When the line is faster, the oldest waiting picture goes, which ``on_drop`` hears: pictures are
    for people, verdicts are not affected.
    """

    def __init__(
        self,
        publisher: Publisher,
        shots: PictureStore,
        inbox: Inbox,
        on_drop: Callable[[Literal["published", "kept"]], None],
    ) -> None:
        super().__init__("pictures")
        self._publisher = publisher
        self._shots = shots
        self._inbox = inbox
        self._on_drop = on_drop
        self._waiting: collections.deque[PartPictures] = collections.deque()
        self._changed = threading.Condition()
        self._closing = False

    def has_room(self) -> bool:
        """False when the next picture would push out one that waits."""
        return len(self._waiting) < _PICTURES_WAITING

    def show(self, shot: PartPictures) -> None:
        """Publish and keep a part's pictures soon; never blocks."""
        if shot.frame is not None and not self._shots.wants(shot.verdict):
            shot = replace(shot, frame=None)
        if shot.header is None and shot.frame is None:
            return
        with self._changed:
            if len(self._waiting) >= _PICTURES_WAITING:
                dropped = self._waiting.popleft()
                if dropped.header is not None:
                    self._on_drop("published")
                if dropped.frame is not None:
                    self._on_drop("kept")
            self._waiting.append(shot)
            self._changed.notify()

    def finish(self) -> None:
        """Publish and keep what waits, then end."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self.ident is not None:
            self.join()

    def work(self) -> None:
        """Publish and keep until ``finish``."""
        _yield_to_others()
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closing)
                if not self._waiting:
                    return
                shot = self._waiting.popleft()
            anomaly_map = None if shot.judgement is None else shot.judgement.anomaly_map
            judged = None if shot.judgement is None else shot.judgement.judged
            # Nobody looks, most of the time: then nothing is encoded.
            if (
                shot.header is not None
                and anomaly_map is not None
                and judged is not None
                and self._publisher.wants_heatmaps(shot.header.station)
            ):
                self._publisher.send_heatmap(
                    shot.header, encode_png(map_to_grey(anomaly_map)), encode_jpeg(judged)
                )
            if shot.frame is not None and not self._shots.keep(
                shot.verdict, shot.frame, anomaly_map, shot.region, checked=shot.checked
            ):
                self._on_drop("kept")
            self._inbox.wake()


def _yield_to_others() -> None:
    """Have this thread compute only where no other wants the core; where the system knows that."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            # Linux has a nice value for each thread.
            me = os.PRIO_PROCESS, threading.get_native_id()
            os.setpriority(*me, min(19, os.getpriority(*me) + _NICE))
