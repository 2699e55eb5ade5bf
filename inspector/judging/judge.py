"""What judges one camera's parts: a detector, and the watches over it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from inspector.config.cameras import CameraConfig
from inspector.config.station_file import Station
from inspector.detection.detector import BatchItem, Detector
from inspector.errors import Fault
from inspector.files import read_within
from inspector.judging import self_test
from inspector.judging.drift import Watch
from inspector.verdict import Judgement, Reason, Verdict
from inspector.wire.messages import ModelField


class RepeatCheck:
    """Compares each frame of one camera with the frame before it.

    ``live``: the camera's sensor has noise, so no frame may repeat; files and simulators may.
    """

    def __init__(self, live: bool) -> None:
        self._live = live
        self._previous: npt.NDArray[Any] | None = None
        self._repeats = 0

    def check(self, frame: npt.NDArray[Any]) -> Fault | None:
        """``frozen`` when the camera sent the bytes of its previous frame again, else None.

        ``frame`` is what the camera gave, and nobody may write to it later. Every frame must be
        checked, in the order of the camera. The same array again is one frame that is judged a
        second time, as when a changeover is rolled back, and has the answer that it had.
        """
        if not self._live:
            return None
        if frame is not self._previous:
            previous, self._previous = self._previous, frame
            repeats = previous is not None and _same_bytes(previous, frame)
            self._repeats = self._repeats + 1 if repeats else 0
        if self._repeats == 0:
            return None
        return Fault(
            Reason.FROZEN.value,
            f"the camera sent the same picture {self._repeats + 1} times, byte for byte; none may "
            f"repeat",
        )

    def forget(self) -> None:
        """Start anew, as after the camera was opened again."""
        self._previous, self._repeats = None, 0


class SizeCheck:
    """Compares the size of each frame of one camera with those that it may have.

    ``first_counts``: without ``allowed`` sizes (each as WxH, px), the camera's first frame since
    the start says what size all must have. Else any size will do.
    """

    def __init__(self, first_counts: bool, allowed: Sequence[str] = ()) -> None:
        self._first_counts = first_counts
        self._allowed = frozenset(allowed)
        self._first = ""

    def check(self, frame: npt.NDArray[Any]) -> Fault | None:
        """``frame_shape`` when ``frame`` has a size that it may not have, else None."""
        if frame.ndim < 2:
            return None
        size = f"{frame.shape[1]}x{frame.shape[0]}"
        self._first = self._first or size
        if self._allowed:
            may_be = size in self._allowed
            expected = f"the recipe's 'sizes' are {', '.join(sorted(self._allowed))}"
        else:
            may_be = size == self._first or not self._first_counts
            expected = (
                f"the first one was {self._first}; set the camera up as before, or list both in "
                f"the recipe's 'sizes'"
            )
        if may_be:
            return None
        return Fault(Reason.FRAME_SHAPE.value, f"the picture is {size} px, but {expected}")

    def forget(self) -> None:
        """Start anew."""
        self._first = ""

    def go_on_from(self, before: SizeCheck) -> None:
        """Keep the first size that ``before`` saw: a changeover does not change the camera."""
        self._first = before._first


class Judge:
    """Judges one camera's parts by one bundle; used by one thread."""

    def __init__(
        self,
        station: Station,
        config: CameraConfig,
        detector: Detector,
        read_file: Callable[[Path], bytes] = read_within,
    ) -> None:
        manifest, recipe = detector.manifest, station.active(config.name)
        self.name = config.name
        self._station = station
        self.detector = detector
        self.model = ModelField(
            name=manifest.name, version=manifest.version, sha256=detector.sha256
        )
        self.on_probation = False
        """True from a changeover until the first part that this judge could judge."""
        self.drift = Watch(
            manifest.calibration, station.drift.parts_between_false_alarms, recipe.limit_factor
        )
        self.defect = self_test.choose(station.self_test, manifest, recipe.limit_factor, read_file)
        self.tested: self_test.Tested | None = None
        """How the last self-test went; None before any."""
        self.schedule = self_test.Schedule(
            station.self_test.every_s if self.defect else 0.0, time.monotonic_ns
        )
        self._check_pictures = recipe.check_pictures
        self._repeat_check = RepeatCheck(live=config.is_live)
        self._size_check = SizeCheck(config.keeps_size, recipe.sizes)

    def judge(self, frame: npt.NDArray[Any]) -> Judgement:
        """Judge a frame as the detector does; one that the camera should not send is a FAULT."""
        amiss = self._amiss(frame)
        judgement = self.detector.judge(frame, check_picture=self._check_pictures and not amiss)
        return _fault_if_amiss(judgement, amiss)

    def _amiss(self, frame: npt.NDArray[Any]) -> Fault | None:
        """Why ``frame`` is a FAULT before it is judged: its light and focus then do not matter."""
        repeat = self._repeat_check.check(frame) if self._check_pictures else None
        return self._size_check.check(frame) or repeat

    def reopened(self) -> None:
        """The camera was opened again: it may send what it sent before, but in no other size."""
        self._repeat_check.forget()

    def set_limit(self, limit_factor: float) -> str:
        """Judge by another factor on the limit from the next part on.

        Returns why that is not done: the known defect would be missed; "" when it is done. The
        watch over drift begins anew.
        """
        station, manifest = self._station, self.detector.manifest
        region = station.active(self.name).region
        detector = self.detector.adapted(region, limit_factor)
        defect = self.defect
        if station.self_test.defect is None:
            # Which golden picture must fail depends on the limit.
            defect = self_test.choose(station.self_test, manifest, limit_factor)
        tested = None if defect is None else defect.test(detector)
        if tested is not None and tested.missed:
            return tested.missed
        self.detector = detector
        self.drift = Watch(
            manifest.calibration, station.drift.parts_between_false_alarms, limit_factor
        )
        if (defect is None) != (self.defect is None):
            every_s = 0.0 if defect is None else station.self_test.every_s
            self.schedule = self_test.Schedule(every_s, time.monotonic_ns)
        self.defect, self.tested = defect, tested
        return ""

    def forget_frames(self) -> None:
        """Forget what was judged so far: those were no frames of the camera."""
        self._repeat_check.forget()
        self._size_check.forget()

    @property
    def recipe(self) -> str:
        """The recipe that it was loaded for."""
        return self._station.recipe

    @property
    def key(self) -> tuple[str, str, float]:
        """What the watch over drift is for: camera, bundle (SHA-256) and limit factor."""
        return self.name, self.model.sha256, self.detector.limit_factor

    def take_over(self, before: Judge) -> None:
        """Remember the frames that ``before`` saw of the same camera: none of them may repeat."""
        self._repeat_check = before._repeat_check
        self._size_check.go_on_from(before._size_check)

    def health(self) -> str:
        """Empty while the last inference succeeded, else its error in words."""
        return self.detector.health()

    def self_test(self, parts_wait: bool) -> str | None:
        """Judge the known defect when that is due.

        Returns None when it is not due, "" when the defect was caught, else why it was missed. The
        defect is nobody's part: it has no number and no record, and does not count in the drift.
        """
        if self.defect is None or not self.schedule.due(parts_wait):
            return None
        self.tested = self.defect.test(self.detector)
        self.schedule.record(self.tested.missed)
        return self.tested.missed


def judge_together(parts: Sequence[tuple[Judge, npt.NDArray[Any]]]) -> list[Judgement]:
    """Judge frames of cameras that share an engine in one batch, in their order."""
    amiss = [judge._amiss(frame) for judge, frame in parts]
    judgements = Detector.judge_together(
        [
            BatchItem(judge.detector, frame, check_picture=judge._check_pictures and not fault)
            for (judge, frame), fault in zip(parts, amiss, strict=True)
        ]
    )
    return list(map(_fault_if_amiss, judgements, amiss))


def _fault_if_amiss(judgement: Judgement, amiss: Fault | None) -> Judgement:
    """``judgement``, or the FAULT ``amiss``; what could not be judged stays the FAULT it is."""
    if amiss is None or judgement.verdict is Verdict.FAULT:
        return judgement
    return judgement.as_fault(Reason(amiss.reason), str(amiss))


def _same_bytes(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> bool:
    # Every 97th row tells most frames apart; all rows are read only when those are equal.
    return (
        one.shape == other.shape
        and one.dtype == other.dtype
        and np.array_equal(one[::97], other[::97])
        and np.array_equal(one, other)
    )
