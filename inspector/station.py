"""One station's books, pure: its state, its counters, and exactly one verdict a part.

No I/O, and the clock is handed in, so that every promise here is tested without waiting.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from inspector.config import Station
from inspector.verdict import Judgement, Reason, Region, Verdict
from inspector.wire import (
    CameraStatus,
    HeatmapMessage,
    ModelField,
    RegionField,
    State,
    StatusMessage,
    VerdictMessage,
    encode,
)

CameraState = Literal["opening", "running", "ended", "lost"]

_NEXT: Final[Mapping[State, frozenset[State]]] = {
    "Preoperational": frozenset({"Initialized", "Halted", "Error"}),
    "Initialized": frozenset({"Ready", "Preoperational", "Halted", "Error"}),
    "Ready": frozenset(
        {
            "SingleExecution",
            "ContinuousExecution",
            "Initialized",
            "Preoperational",
            "Halted",
            "Error",
        }
    ),
    "SingleExecution": frozenset({"Ready", "Halted", "Error"}),
    "ContinuousExecution": frozenset({"Ready", "Halted", "Error"}),
    "Error": frozenset({"Preoperational", "Halted"}),
    "Halted": frozenset({"Preoperational"}),
}


@dataclass(frozen=True)
class Clock:
    """Wall time in µs since the Unix epoch for people, monotonic ns for durations."""

    wall_us: Callable[[], int]
    monotonic_ns: Callable[[], int]


SYSTEM_CLOCK: Final = Clock(lambda: time.time_ns() // 1000, time.monotonic_ns)


@dataclass(frozen=True)
class Part:
    """A part that is owed a verdict.

    ``grabbed_us`` is None when no picture came. ``waiting_since_ns`` (monotonic) is when the part
    began to wait for its judgement: its deadline counts from there, untouched by a clock that is
    set while the line runs.
    """

    camera: str
    part_id: str = ""
    grabbed_us: int | None = None
    waiting_since_ns: int | None = None


class Books:
    """The books of one daemon start; used by one thread."""

    def __init__(self, station: Station, epoch: str, clock: Clock = SYSTEM_CLOCK) -> None:
        self.epoch = epoch
        self.provider = ""
        self._station = station
        self._clock = clock
        self._state: State = "Preoperational"
        self._last_seq = 0
        self._counts = dict.fromkeys(Verdict, 0)
        self._deadlines_ms = {camera.name: camera.deadline_ms for camera in station.cameras}
        self._models: dict[str, ModelField] = {}
        self._troubles: dict[str, str] = {}
        self._cameras = {
            camera.name: CameraStatus(name=camera.name, state="opening", detail="", frames=0)
            for camera in station.cameras
        }

    @property
    def state(self) -> State:
        """State of OPC 40100-1."""
        return self._state

    @property
    def last_seq(self) -> int:
        """Sequence number of the last verdict, 0 before the first."""
        return self._last_seq

    def enter(self, state: State) -> None:
        """Change state. Raises ValueError for a change that OPC 40100-1 does not draw."""
        if state not in _NEXT[self._state]:
            raise ValueError(f"no way from state {self._state} to {state}")
        self._state = state

    def install(self, camera: str, model: ModelField) -> None:
        """Name the model that judges ``camera`` from now on."""
        self._models[camera] = model

    def note_camera(self, camera: str, state: CameraState, detail: str = "") -> None:
        """A camera changed its state."""
        frames = self._cameras[camera].frames
        self._cameras[camera] = CameraStatus(name=camera, state=state, detail=detail, frames=frames)

    def note_inference(self, camera: str, trouble: str) -> None:
        """How the model failed on the last part of ``camera``; "" when it did not."""
        self._troubles[camera] = trouble

    def judged(self, part: Part, judgement: Judgement, started_ns: int) -> VerdictMessage:
        """The verdict on a part that went to the detector at ``started_ns`` (monotonic).

        One that comes after the camera's deadline is a FAULT: the part has left the ejector.
        """
        now_ns = self._clock.monotonic_ns()
        since_ns = started_ns if part.waiting_since_ns is None else part.waiting_since_ns
        taken_ms = (now_ns - since_ns) / 1e6
        deadline_ms = self._deadlines_ms[part.camera]
        verdict, score, reason = judgement.verdict, judgement.score, judgement.reason
        regions, detail = judgement.regions, judgement.detail
        if verdict is not Verdict.FAULT and taken_ms > deadline_ms:
            verdict, score, regions = Verdict.FAULT, None, ()
            reason = Reason.DEADLINE_MISSED
            detail = f"judged {taken_ms:.0f} ms after the grab, the deadline is {deadline_ms} ms"
        return self._close(
            part,
            verdict,
            score,
            reason,
            detail,
            regions=regions,
            model=None if judgement.judged is None else self._models[part.camera],
            limit_factor=judgement.limit_factor,
            queue_ms=max(0.0, (started_ns - since_ns) / 1e6),
            judge_ms=max(0.0, (now_ns - started_ns) / 1e6),
        )

    def fault(self, part: Part, reason: Reason, detail: str) -> VerdictMessage:
        """The verdict on a part that never reached the detector."""
        return self._close(part, Verdict.FAULT, None, reason, detail)

    def heatmap(self, verdict: VerdictMessage, judgement: Judgement) -> HeatmapMessage | None:
        """Header of the pictures that belong to ``verdict``; None when there are none to show.

        The recipe's picture policy decides, and a part without a map has no heatmap.
        """
        policy = self._station.active(verdict.camera).pictures
        if policy == "none" or (policy == "not_pass" and verdict.verdict is Verdict.PASS):
            return None
        if judgement.judged is None or judgement.anomaly_map is None:
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

    def status(self) -> StatusMessage:
        """The station as it stands."""
        return StatusMessage(
            station=self._station.station,
            epoch=self.epoch,
            state=self._state,
            last_seq=self._last_seq,
            passed=self._counts[Verdict.PASS],
            failed=self._counts[Verdict.FAIL],
            faults=self._counts[Verdict.FAULT],
            recipe=self._station.recipe,
            provider=self.provider,
            inference="; ".join(f"{name}: {text}" for name, text in self._troubles.items() if text),
            cameras=tuple(self._cameras.values()),
            sent_us=self._clock.wall_us(),
        )

    def _close(
        self,
        part: Part,
        verdict: Verdict,
        score: float | None,
        reason: Reason,
        detail: str,
        *,
        regions: tuple[Region, ...] = (),
        model: ModelField | None = None,
        limit_factor: float | None = None,
        queue_ms: float | None = None,
        judge_ms: float | None = None,
    ) -> VerdictMessage:
        if limit_factor is None:
            limit_factor = self._station.active(part.camera).limit_factor
        message = VerdictMessage(
            station=self._station.station,
            camera=part.camera,
            epoch=self.epoch,
            seq=self._last_seq + 1,
            part_id=part.part_id,
            trigger_seq=None,
            verdict=verdict,
            score=score,
            reason=reason.value,
            detail=detail,
            limit_factor=limit_factor,
            regions=tuple(RegionField(x=r.x, y=r.y, w=r.w, h=r.h, peak=r.peak) for r in regions),
            model=model,
            recipe=self._station.recipe,
            triggered_us=None,
            grabbed_us=part.grabbed_us,
            judged_us=self._clock.wall_us(),
            queue_ms=queue_ms,
            judge_ms=judge_ms,
        )
        # Counted only once the message can be sent: seq has no gap whatever goes wrong above.
        encode(message)
        self._last_seq = message.seq
        self._counts[verdict] += 1
        if part.grabbed_us is not None:
            camera = self._cameras[part.camera]
            self._cameras[part.camera] = camera.model_copy(update={"frames": camera.frames + 1})
        return message
