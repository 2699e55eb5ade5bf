"""What judges one camera's parts: a detector, and the watches over it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy.typing as npt

from inspector.config.cameras import CameraConfig
from inspector.config.station_file import Station
from inspector.detection.detector import Detector
from inspector.detection.fitness import RepeatCheck, fault_if_unfit
from inspector.judging import self_test as selftest
from inspector.judging.drift import Watch
from inspector.verdict import Judgement
from inspector.wire.messages import ModelField


class Judge:
    """Judges one camera's parts by one bundle; used by one thread."""

    def __init__(self, station: Station, config: CameraConfig, detector: Detector) -> None:
        manifest, recipe = detector.manifest, station.active(config.name)
        self.name = config.name
        self.detector = detector
        self.model = ModelField(
            name=manifest.name, version=manifest.version, sha256=detector.sha256
        )
        self.on_probation = False
        """True from a changeover until the first part it could judge."""
        self.drift = Watch(
            manifest.calibration, station.drift.parts_between_false_alarms, recipe.limit_factor
        )
        self.defect = selftest.choose(station.self_test, manifest, recipe.limit_factor)
        self.schedule = selftest.Schedule(
            station.self_test.every_s if self.defect else 0.0, time.monotonic_ns
        )
        self._checks = recipe.check_pictures
        self._history = RepeatCheck(live=config.is_live)

    def judge(self, frame: npt.NDArray[Any]) -> Judgement:
        """Judge a frame; one whose picture is not fit for judging is a FAULT."""
        return self._reconsider(self.detector.judge(frame), frame)

    def _reconsider(self, judgement: Judgement, frame: npt.NDArray[Any]) -> Judgement:
        if not self._checks:
            return judgement
        return fault_if_unfit(judgement, frame, self.detector.manifest.exposure, self._history)

    def forget_frames(self) -> None:
        """The camera was opened again: what it sends may be what it sent before."""
        self._history.forget()

    @property
    def key(self) -> tuple[str, str, float]:
        """What its watch over drift is for: camera, bundle and sensitivity."""
        return self.name, self.model.sha256, self.detector.limit_factor

    def take_over(self, before: Judge) -> None:
        """Know the frames that ``before`` has seen of the same camera: none may come again."""
        self._history = before._history

    def health(self) -> str:
        """Empty while the last inference succeeded, else its error in words."""
        return self.detector.health()

    def self_test(self, parts_wait: bool) -> str | None:
        """Send the known defect when it is due: why it was missed, "" when caught, None: not due.

        Beside the line's parts: it has no number, no record, and no say in the drift.
        """
        if self.defect is None or not self.schedule.due(parts_wait):
            return None
        missed = self.defect.missed(self.defect.send(self.detector))
        self.schedule.record(missed)
        return missed


def judge_together(parts: Sequence[tuple[Judge, npt.NDArray[Any]]]) -> list[Judgement]:
    """Judge frames of cameras that share an engine in one batch, in their order."""
    found = Detector.judge_together([(judge.detector, frame) for judge, frame in parts])
    return [
        judge._reconsider(judgement, frame)
        for judgement, (judge, frame) in zip(found, parts, strict=True)
    ]
