"""One station's ledger, pure: its state, its counters, and exactly one verdict a part.

A part is opened by a trigger or by a frame, settled once (by its judgement, a fault or its
deadline) and closed in the order it was opened in, for each camera. No I/O, and the clock is
handed in, so that every promise here is tested without waiting.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from inspector.clock import SYSTEM_CLOCK, Clock
from inspector.config.cameras import CameraConfig
from inspector.config.station_file import Station
from inspector.errors import CommandError
from inspector.station.part import Part, Picture, Requester
from inspector.station.repetitions import Past, Repetitions, is_conflict
from inspector.station.states import NEXT, WORKING
from inspector.station.triggers import REMEMBERED, Trigger
from inspector.verdict import Judgement, Reason, Verdict
from inspector.wire.messages import (
    CameraStatus,
    ModelField,
    RecipeSource,
    RegionField,
    State,
    StatusMessage,
    VerdictMessage,
    encode,
)

CameraState = Literal["opening", "running", "ended", "lost"]

_OVERRUNS: Final = (Reason.QUEUE_FULL.value, Reason.DEADLINE_MISSED.value)


@dataclass(frozen=True)
class TriggerAnswer:
    """What a trigger is told at once.

    ``refused``: the part's verdict is a FAULT, which comes in its turn like any other.
    ``conflict``: likewise, and the journal may have another trigger of the same name; also for
    what repeats such a trigger while its verdict waits for its turn.
    ``repeated``: no new part. ``part`` is the one that the trigger had, while its verdict is owed;
    ``verdict`` is that verdict, marked as repeated, once the part was closed.
    ``expired``: no part and no verdict; what it repeats is too old.
    ``stopped``: no part and no verdict; the station was stopped by command.
    """

    kind: Literal["accepted", "refused", "conflict", "repeated", "expired", "stopped"]
    part: Part | None = None
    verdict: VerdictMessage | None = None


class Closed(NamedTuple):
    """A verdict with its number, and the part it is on."""

    verdict: VerdictMessage
    part: Part


class _CameraQueue:
    """The open parts of one camera, in order."""

    def __init__(self, config: CameraConfig | None) -> None:
        # The deadline itself is still in time.
        self.allowed_ns = 1 + (0 if config is None else config.deadline_ms * 1_000_000)
        """A part is late from this moment after its start on."""
        self.software = config is not None and config.trigger == "software"
        self.waits_for_judge = config is not None and config.waits_for_judge
        self.open: deque[Part] = deque()
        self.waiting: list[Part] = []
        """Triggers whose pictures are to come."""


class Ledger:
    """The ledger of one daemon start; used by one thread."""

    def __init__(
        self,
        station: Station,
        epoch: str,
        clock: Clock = SYSTEM_CLOCK,
        remembered: int = REMEMBERED,
    ) -> None:
        self.epoch = epoch
        self.provider = ""
        self._station = station
        self._recipe_from: RecipeSource = "file"
        self._clock = clock
        self._state: State = "Preoperational"
        self._not_ready = (Reason.NOT_READY, "the station is Preoperational")
        self._stopped = False
        self._last_seq = 0
        self._counts = dict.fromkeys(Verdict, 0)
        self._uncounted: Counter[str] = Counter()
        """Verdicts whose purpose is not production, by their purpose."""
        self._reasons: Counter[str] = Counter()
        self._late = self._repeated = 0
        self._repetitions = Repetitions(remembered, station.repeat_window_s, clock)
        self._queues = {camera.name: _CameraQueue(camera) for camera in station.cameras}
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

    def enter(self, state: State, reason: Reason = Reason.NOT_READY, detail: str = "") -> None:
        """Change state. Raises ValueError for a change that OPC 40100-1 does not draw.

        Out of Ready and execution, every open part and every one that comes is a FAULT for
        ``reason``: what judged it may be what failed.
        """
        if state not in NEXT[self._state]:
            raise ValueError(f"no way from state {self._state} to {state}")
        self._state = state
        self._not_ready = (reason, detail or f"the station is {state}")
        if state not in WORKING:
            for queue in self._queues.values():
                for part in queue.open:
                    if part.draft is None:
                        self._settle(part, *self._not_ready)

    def stop(self, stopped: bool) -> None:
        """While it is stopped a station makes no parts of triggers and of pictures that come.

        A picture that a source had drawn for the judge already is a FAULT: that source shows each
        part once. What was open before gets its verdict as the state says.
        """
        self._stopped = stopped

    def blame(self, reason: Reason, detail: str) -> None:
        """Name another cause of not being ready, the state being what it is."""
        self._not_ready = (reason, detail)

    def find(self, trigger: Trigger) -> VerdictMessage | None:
        """The verdict that ``trigger`` had, as it is told again; None while it is owed."""
        return self._repetitions.find(trigger)

    def start(self) -> None:
        """From Ready on, take parts.

        ContinuousExecution, where a camera makes parts of its own accord; a station that only
        takes triggers stays Ready, and is in SingleExecution while one is open.
        """
        if any(camera.trigger != "software" for camera in self._station.cameras):
            self.enter("ContinuousExecution")

    def select(self, recipe: str, source: RecipeSource = "command") -> None:
        """Put another recipe of the station file in force, between two parts."""
        if recipe not in self._station.recipes:
            raise ValueError(f"no recipe '{recipe}'")
        self._station = self._station.model_copy(update={"recipe": recipe})
        self._recipe_from = source

    def adopt(self, station: Station) -> None:
        """Take over the limits and bundles of ``station``, which is else this one."""
        self._station = self._station.model_copy(update={"recipes": station.recipes})

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

    def recover(
        self, unanswered: Sequence[Trigger], answered: Iterable[VerdictMessage] = ()
    ) -> None:
        """Take over from the daemon before, ahead of every part.

        The triggers that it left ``unanswered`` become FAULT ``restarted``; ``answered`` are its
        last verdicts, oldest first, so that a trigger repeated now gets the one it had. Their age
        is told by the wall clock, and one that it says is still to come is too old. Raises
        ValueError when there was a part already.
        """
        if self._last_seq or any(queue.open for queue in self._queues.values()):
            raise ValueError("recover comes before the first part")
        self._repetitions.recover(answered)
        for trigger in unanswered:
            # A camera that the station file no longer has still owes its verdicts.
            self._queues.setdefault(trigger.camera, _CameraQueue(None))
            part = self._open(trigger.camera, trigger=trigger)
            self._settle(part, Reason.RESTARTED, "the station restarted before the verdict")

    def trigger(
        self,
        trigger: Trigger,
        request: Requester | None = None,
        *,
        repeat: bool = False,
        age_us: int | None = None,
    ) -> TriggerAnswer:
        """Open a part, unless ``trigger`` repeats another; ``request`` waits for its verdict.

        ``repeat``: its sender says that it was sent before, for the same part; see
        :meth:`Repetitions.look`.

        ``age_us``: how long it was on its way, None when that is not known. After
        ``stale_trigger_ms`` the part is no longer before the camera.

        Raises :class:`CommandError` when the camera takes no triggers; then there is no part.
        """
        queue = self._queues.get(trigger.camera)
        if queue is None or not queue.software:
            why = "there is no such camera" if queue is None else "it takes no triggers"
            raise CommandError(f"trigger: camera '{trigger.camera}': {why}")
        requests = [] if request is None else [request]
        known = self._repetitions.look(trigger, repeat)
        if known == "expired":
            return TriggerAnswer("expired")
        if isinstance(known, Part | Past):
            self._repeated += 1
            if isinstance(known, Past):
                return TriggerAnswer("repeated", None, known.verdict.told_again())
            known.await_by(requests)
            return TriggerAnswer("conflict" if is_conflict(known) else "repeated", known)
        if self._stopped:
            return TriggerAnswer("stopped")
        for waiting in tuple(queue.waiting):
            self._expire(waiting)
        part = self._open(trigger.camera, trigger=trigger)
        part.await_by(requests)
        if known == "used":
            detail = (
                f"number {trigger.number} was used before in session '{trigger.session}'; a sender "
                f"that counts anew needs a new session, one that repeats a trigger says so"
            )
            self._settle(part, Reason.TRIGGER_CONFLICT, detail)
            return TriggerAnswer("conflict", part)
        stale_ms = self._station.stale_trigger_ms
        if self._state not in WORKING:
            self._settle(part, *self._not_ready)
        elif age_us is not None and age_us > stale_ms * 1000:
            detail = (
                f"the trigger was sent {age_us / 1000:.0f} ms before it arrived, by its sender's "
                f"clock; no picture is taken after {stale_ms} ms"
            )
            self._settle(part, Reason.DEADLINE_MISSED, detail)
        elif self._cameras[trigger.camera].state == "ended":
            self._settle(part, Reason.CAMERA_LOST, "the camera has ended")
        elif len(queue.waiting) >= self._station.queue_size:
            detail = f"{self._station.queue_size} parts already wait for their pictures"
            self._settle(part, Reason.OVER_TRIGGER, detail)
        else:
            queue.waiting.append(part)
            if self._state == "Ready":
                self._state = "SingleExecution"
            return TriggerAnswer("accepted", part)
        return TriggerAnswer("refused", part)

    def expose(
        self,
        camera: str,
        exposed_ns: int | None,
        grabbed_us: int,
        part_id: str = "",
        since_ns: int | None = None,
        *,
        frame: Picture | None = None,
    ) -> Part | None:
        """The part that a frame is of; None when it is of none that can be judged.

        ``frame`` goes with the part, unopened; None: the camera has no picture of it.

        ``exposed_ns`` (monotonic): its exposure began no earlier; None: it was drawn for whichever
        part waits. ``since_ns`` (monotonic): when it was there, None for now; the deadline of a
        part without a trigger counts from then.

        A triggered part is never given a picture from before its trigger. A trigger that came
        before the picture of the part before it was there is an over-trigger; when it came before
        the exposure even, the picture may show either part, and judges neither.
        """
        status = self._cameras[camera]
        number = status.frames + 1
        self._cameras[camera] = status.model_copy(update={"frames": number})
        queue = self._queues[camera]
        if since_ns is None:
            since_ns = self._clock.monotonic_ns()
        if self._stopped and not queue.waits_for_judge:
            return None
        if not queue.software:
            part = self._open(camera, part_id, grabbed_us, since_ns, number=number)
            if self._state in WORKING:
                part.frame = frame
                return part
            self._settle(part, *self._not_ready)
            return None
        for waiting in tuple(queue.waiting):
            self._expire(waiting)
        if not queue.waiting:
            return None
        if exposed_ns is None:
            first, crowd = queue.waiting[0], []
        elif exposed_ns < queue.waiting[0].start_ns:
            return None
        else:
            first, *others = queue.waiting
            crowd = [part for part in others if part.start_ns <= since_ns]
        queue.waiting.remove(first)
        first.expose(grabbed_us, since_ns, number)
        for part in crowd:
            detail = "it came before the picture of the part before it"
            self._settle(part, Reason.OVER_TRIGGER, detail)
        if exposed_ns is not None and any(part.start_ns <= exposed_ns for part in crowd):
            detail = "the next trigger came before its picture was taken"
            self._settle(first, Reason.OVER_TRIGGER, detail)
            return None
        first.frame = frame
        return first

    def takes_triggers(self, camera: str) -> bool:
        """True for a camera whose pictures are of triggers."""
        return self._queues[camera].software

    def is_open(self, part: Part) -> bool:
        """True for a part that still waits for its verdict, which its deadline may end now."""
        return not self._expire(part)

    def judged(self, part: Part, judgement: Judgement, started_ns: int) -> None:
        """A part went to the detector at ``started_ns`` (monotonic) and is back.

        After its deadline it is a FAULT: the part has left the ejector. A part that has its
        verdict keeps it. Raises ValueError for a part without a picture.
        """
        now_ns = self._clock.monotonic_ns()
        if part.waiting_since_ns is None:
            raise ValueError(f"part {part.part_id!r} has no picture to judge")
        self._late += part.draft is not None or now_ns >= part.deadline_ns
        if part.draft is not None:
            return
        part.judgement = judgement
        queue_ms = max(0.0, (started_ns - part.waiting_since_ns) / 1e6)
        judge_ms = max(0.0, (now_ns - started_ns) / 1e6)
        verdict, reason, detail = judgement.verdict, judgement.reason, judgement.detail
        if verdict is not Verdict.FAULT and now_ns >= part.deadline_ns:
            verdict, reason = Verdict.FAULT, Reason.DEADLINE_MISSED
            detail = self._too_late(part, "judged")
        self._settle(part, reason, detail, verdict, queue_ms=queue_ms, judge_ms=judge_ms)

    def fault(self, part: Part, reason: Reason, detail: str) -> None:
        """A part cannot be judged. One that has its verdict keeps it."""
        if part.draft is not None:
            self._late += 1
            return
        self._settle(part, reason, detail)

    def lost(self, camera: str, detail: str) -> None:
        """A camera is lost: a FAULT for every trigger that waits for its picture.

        A camera that makes parts of its own accord owes one, for the part it would have shown.
        """
        queue = self._queues[camera]
        if self._stopped:
            return
        for part in tuple(queue.waiting) if queue.software else (self._open(camera),):
            self._settle(part, Reason.CAMERA_LOST, detail)

    def close(self) -> list[Closed]:
        """The verdicts due now, expired deadlines included, numbered without a gap.

        Those of one camera come in the order of its parts: a later one waits for an earlier one,
        at most until that one's deadline.
        """
        closed: list[Closed] = []
        for queue in self._queues.values():
            while queue.open:
                self._expire(queue.open[0])
                draft = queue.open[0].draft
                if draft is None:
                    break
                closed.append(self._number(draft, queue.open.popleft()))
        if self._state == "SingleExecution" and not any(
            queue.open for queue in self._queues.values()
        ):
            self._state = "Ready"
        return closed

    def deadline_ns(self, camera: str, since_ns: int) -> int:
        """When (monotonic) the next part of ``camera`` is late whose picture is there ``since_ns``.

        It is the deadline of the trigger that waits longest, where the camera takes triggers.
        """
        queue = self._queues[camera]
        if queue.waiting:
            return queue.waiting[0].deadline_ns
        return since_ns + queue.allowed_ns

    def next_due_ns(self) -> int | None:
        """When (monotonic) ``close`` will have a verdict at the latest; None: no part is open."""
        return min(
            (queue.open[0].due_ns for queue in self._queues.values() if queue.open), default=None
        )

    def amend(self, verdict: VerdictMessage, published: VerdictMessage) -> None:
        """Another verdict went out under the number of ``verdict``; count and repeat that one."""
        for one, change in ((verdict, -1), (published, 1)):
            self._count(one, change)
        self._repetitions.amend(verdict, published)

    def status(self) -> StatusMessage:
        """The station as it stands."""
        recipe = self._station.recipe
        return StatusMessage(
            station=self._station.station,
            epoch=self.epoch,
            state=self._state,
            last_seq=self._last_seq,
            passed=self._counts[Verdict.PASS],
            failed=self._counts[Verdict.FAIL],
            faults=self._counts[Verdict.FAULT],
            challenges=self._uncounted["challenge"],
            studies=self._uncounted["study"],
            over_triggers=self._reasons[Reason.OVER_TRIGGER.value],
            overruns=sum(self._reasons[reason] for reason in _OVERRUNS),
            late=self._late,
            repeated=self._repeated,
            recipe=recipe,
            recipe_from=self._recipe_from,
            recipes=tuple(sorted(self._station.recipes)),
            provider=self.provider,
            inference="; ".join(f"{name}: {text}" for name, text in self._troubles.items() if text),
            cameras=tuple(
                camera.model_copy(
                    update={
                        "ready_for_trigger": self._takes_trigger(camera),
                        "limit_factor": self._station.active(camera.name).limit_factor,
                        "model": self._models.get(camera.name),
                        "installed": self._station.is_installed(recipe, camera.name),
                        "takes_triggers": self._queues[camera.name].software,
                        "deadline_ms": self._deadlines_ms[camera.name],
                    }
                )
                for camera in self._cameras.values()
            ),
            sent_us=self._clock.wall_us(),
        )

    def _takes_trigger(self, camera: CameraStatus) -> bool:
        """True while a trigger that came now would get the camera's next picture."""
        queue = self._queues[camera.name]
        is_working = self._state in WORKING and camera.state == "running"
        return is_working and queue.software and not queue.waiting

    def _open(
        self,
        camera: str,
        part_id: str = "",
        grabbed_us: int | None = None,
        since_ns: int | None = None,
        trigger: Trigger | None = None,
        *,
        number: int | None = None,
    ) -> Part:
        queue = self._queues[camera]
        if trigger is not None:
            part_id, start_ns = trigger.part_id, trigger.triggered_ns
        else:
            start_ns = self._clock.monotonic_ns() if since_ns is None else since_ns
        part = Part(
            camera,
            start_ns,
            start_ns + queue.allowed_ns,
            part_id,
            trigger,
            grabbed_us=grabbed_us,
            frame_number=number,
            waiting_since_ns=since_ns,
        )
        queue.open.append(part)
        if trigger is not None:
            self._repetitions.opened(trigger, part)
        return part

    def _expire(self, part: Part) -> bool:
        """True when ``part`` is settled, if need be now by its deadline."""
        if part.draft is None and self._clock.monotonic_ns() >= part.deadline_ns:
            camera = self._cameras[part.camera]
            if part.waiting_since_ns is None and camera.state in {"lost", "ended"}:
                self._settle(part, Reason.CAMERA_LOST, camera.detail)
            else:
                what = "no picture" if part.waiting_since_ns is None else "not judged"
                self._settle(part, Reason.DEADLINE_MISSED, self._too_late(part, what))
        return part.draft is not None

    def _too_late(self, part: Part, what: str) -> str:
        taken_ms = (self._clock.monotonic_ns() - part.start_ns) / 1e6
        deadline_ms = self._queues[part.camera].allowed_ns // 1_000_000
        since = "grab" if part.trigger is None else "trigger"
        return f"{what} {taken_ms:.0f} ms after the {since}, the deadline is {deadline_ms} ms"

    def _settle(
        self,
        part: Part,
        reason: Reason,
        detail: str,
        verdict: Verdict = Verdict.FAULT,
        *,
        queue_ms: float | None = None,
        judge_ms: float | None = None,
    ) -> None:
        """Decide on an open part, once."""
        trigger, judgement = part.trigger, part.judgement
        if judgement is None:
            recipe = self._station.recipes[self._station.recipe].get(part.camera)
            limit_factor = 1.0 if recipe is None else recipe.limit_factor
        else:
            limit_factor = judgement.limit_factor
        asked = judgement is not None and judgement.judged is not None
        found = None if verdict is Verdict.FAULT else judgement
        draft = VerdictMessage(
            station=self._station.station,
            camera=part.camera,
            epoch=self.epoch,
            seq=1,
            part_id=part.part_id,
            trigger_seq=None if trigger is None else trigger.number,
            client="" if trigger is None else trigger.client,
            session="" if trigger is None else trigger.session,
            lot="" if trigger is None else trigger.lot,
            purpose="production" if trigger is None else trigger.purpose,
            verdict=verdict,
            score=None if found is None else found.score,
            reason=reason.value,
            detail=detail,
            limit_factor=limit_factor,
            regions=tuple(
                RegionField(x=r.x, y=r.y, w=r.w, h=r.h, peak=r.peak)
                for r in (() if found is None else found.regions)
            ),
            model=self._models[part.camera] if asked else None,
            recipe=self._station.recipe,
            triggered_us=None if trigger is None else trigger.triggered_us,
            grabbed_us=part.grabbed_us,
            frame=part.frame_number,
            judged_us=self._clock.wall_us(),
            queue_ms=queue_ms,
            judge_ms=judge_ms,
            sent_us=None if trigger is None else trigger.sent_us,
        )
        # Here, so that a message that cannot be sent takes no number.
        encode(draft)
        part.draft = draft
        part.settled_ns = self._clock.monotonic_ns()
        queue = self._queues[part.camera]
        if part in queue.waiting:
            queue.waiting.remove(part)

    def _number(self, draft: VerdictMessage, part: Part) -> Closed:
        self._last_seq += 1
        verdict = draft.numbered(self._last_seq)
        self._count(verdict, 1)
        self._repetitions.closed(part, verdict)
        return Closed(verdict, part)

    def _count(self, verdict: VerdictMessage, by: int) -> None:
        if verdict.counts:
            self._counts[verdict.verdict] += by
            self._reasons[verdict.reason] += by
        else:
            self._uncounted[verdict.purpose] += by
