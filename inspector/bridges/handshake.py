"""The handshake of one camera with a PLC, the same on every fieldbus (docs/plc/).

Pure logic: what the PLC wrote, what the station said and the clock go in; what the PLC reads, and
what is to be done, come out. A fieldbus calls :meth:`Handshake.scan` whenever the PLC wrote
something, and at least every 50 ms, so that time passes.

Every trigger ends in one of three ways: its result is shown once, as a PASS, a FAIL or a FAULT; or
it is counted in MissedTriggers; or the station is lost, and the PLC's own time runs out. No result
ever tells another part's verdict: the station knows a trigger by a session that is new whenever the
PLC opens one, and whenever the bridge starts.
"""

from __future__ import annotations

import collections
from dataclasses import dataclass, replace
from typing import Final

from inspector.bridges.codes import (
    STATE_CODES,
    BridgeReason,
    Command,
    CommandState,
    ErrorCode,
)
from inspector.bridges.fields import (
    Action,
    Delivered,
    Order,
    Outputs,
    PlcFields,
    Settings,
    Ticket,
    Trigger,
)
from inspector.bridges.part_count import Announced, PartCount
from inspector.bridges.results import LARGEST, MOST_WAITING, Origin, Result, ResultQueue
from inspector.verdict import Reason, Verdict
from inspector.wire.messages import Outcome, StatusMessage, VerdictMessage

_LONGEST_STEP: Final = 32_767
_BEATS: Final = 4
"""Changes of Heartbeat within the time in which the PLC must see one."""
_MOST_SETTLED: Final = 1_000
JUDGING: Final = frozenset({"Ready", "SingleExecution", "ContinuousExecution"})


@dataclass
class _Awaited:
    trigger_seq: int
    part_id: str
    recipe: str
    due_s: float
    acquired: bool = False


class Handshake:
    """One camera's side of the handshake.

    ``run`` makes the sessions of this start of the bridge unlike those of any other, at most 32
    letters; ``first_result_seq`` should be drawn at random, so that a ResultAck that a PLC still
    holds hardly ever fits.
    """

    def __init__(self, settings: Settings, run: str, first_result_seq: int = 1) -> None:
        self._set = settings
        self._run = run
        self._results = ResultQueue(first_result_seq, settings.latest)
        self._parts = PartCount(settings.hardware_window_s)
        self._actions: list[Action] = []
        self._plc = PlcFields()
        self._numbers = {recipe: number for number, recipe in settings.recipes.items()}

        self._sessions = 0
        self._session = 0
        self._wire_session = ""
        self._last = 0
        """The last number of a trigger in this session, 0 before the first."""
        self._number = 0
        self._blocked = False
        self._echo = self._acquired_seq = 0
        self._awaited: dict[Ticket, _Awaited] = {}
        self._settled: collections.OrderedDict[Ticket, Outcome] = collections.OrderedDict()

        self._command_echo = 0
        self._command_state = CommandState.IDLE
        self._asked_recipe = ""
        self._order: Order | None = None

        self._state = ""
        self._epoch = ""
        """With a hardware trigger: the station's start whose pictures are counted."""
        self._camera_runs = False
        self._recipe = ""
        self._beat = 0
        self._beat_at_s: float | None = None
        self._plc_seen_s: float | None = None

        self._error = ErrorCode.NONE
        self._errors = self._missed = 0
        self._reset_echo = self._reset_seen = 0
        self._difference_told = True
        self._plc_lost = False
        self._triggers = self._passed = self._failed = self._faults = 0

    # What the PLC says.

    def scan(self, plc: PlcFields, now_s: float) -> list[Action]:
        """Take what the PLC has written and let time pass; returns what is to be done, in order."""
        before, self._plc = self._plc, plc
        if self._plc_seen_s is None or plc.heartbeat != before.heartbeat:
            self._plc_seen_s = now_s
        opened = self._take_session(before)
        self._take_acknowledgement()
        if plc.error_ack != before.error_ack and plc.error_ack == self._error and not self._blocked:
            self._error = ErrorCode.NONE
        self._take_reset(before)
        self._take_command(before)
        self._take_trigger(before, opened, now_s)
        self._expire(now_s)
        if self._can_judge and (
            self._beat_at_s is None or now_s >= self._beat_at_s + self._set.heartbeat_s / _BEATS
        ):
            self._beat_at_s, self._beat = now_s, (self._beat + 1) % (LARGEST + 1)
        self._plc_lost = self._lost_plc(now_s)
        actions, self._actions = self._actions, []
        return actions

    def outputs(self) -> Outputs:
        """What the PLC reads now."""
        pending = any(not one.acquired for one in self._awaited.values())
        return Outputs(
            state=STATE_CODES[self._state],
            session_echo=self._session,
            command_echo=self._command_echo,
            command_state=int(self._command_state),
            ready=self._is_ready(),
            busy=bool(self._awaited) or self._parts.open > 0,
            acquired=bool(self._acquired_seq) and not pending,
            result_valid=self._results.shown is not None,
            unsupervised=self._set.plc_heartbeat_s == 0,
            plc_lost=self._plc_lost,
            count_agrees=self._parts.agrees,
            trigger_echo=self._echo,
            acquired_seq=self._acquired_seq,
            result=self._results.shown,
            error_code=int(self._error),
            errors=self._errors,
            missed_triggers=self._missed,
            result_overruns=self._results.overruns,
            active_recipe=self._active_recipe,
            reset_count_echo=self._reset_echo,
            triggers=self._triggers,
            passed=self._passed,
            failed=self._failed,
            faults=self._faults,
            heartbeat=self._beat,
        )

    # What the station says.

    def status(self, message: StatusMessage) -> None:
        """The station lives, and stands like this."""
        if self._set.hardware:
            found = (one.frames for one in message.cameras if one.name == self._set.camera)
            frames = next(found, 0)
            if message.epoch != self._epoch:
                self._count_from(message.epoch, frames)
            self._parts.catch_up(frames)
        self._state = message.state
        self._recipe = message.recipe
        self._camera_runs = any(
            camera.name == self._set.camera and camera.state == "running"
            for camera in message.cameras
        )

    def station_gone(self) -> None:
        """The station cannot be reached: the PLC's own time runs out for what it awaits."""
        self._state, self._recipe, self._camera_runs = "", "", False
        for ticket in list(self._awaited):
            self._settle(ticket, "timed_out")
        if self._order is not None:
            self.ordered(self._order, False)
        if self._set.hardware:
            self._differ()

    def acquired(self, ticket: Ticket) -> None:
        """The picture of a trigger is taken: the part may move."""
        awaited = self._awaited.get(ticket)
        if awaited is not None:
            awaited.acquired, self._acquired_seq = True, awaited.trigger_seq

    def verdict(self, ticket: Ticket, message: VerdictMessage) -> None:
        """The verdict on the part of a trigger came; one that comes late is told as such."""
        origin = Origin(message.epoch, message.seq)
        awaited = self._awaited.pop(ticket, None)
        if awaited is None:
            outcome = self._settled.pop(ticket, None)
            if outcome is not None:
                self._actions.append(Delivered(origin, outcome))
            return
        if not awaited.acquired:
            self._acquired_seq = awaited.trigger_seq
        is_this = (
            message.camera == self._set.camera
            # A folder of photos names a part that the PLC did not.
            and (not awaited.part_id or message.part_id == awaited.part_id)
            and message.session == ticket.session
            and message.trigger_seq == ticket.number
        )
        result = told(message, awaited.trigger_seq, awaited.part_id, awaited.recipe)
        self._put(result if is_this else result.as_fault(BridgeReason.OTHER_PART.value))

    def refused(self, ticket: Ticket) -> None:
        """The station refused a trigger."""
        awaited = self._awaited.pop(ticket, None)
        if awaited is not None:
            self._put(self._fault(awaited.trigger_seq, BridgeReason.REFUSED, awaited.part_id))

    def ordered(self, order: Order, done: bool) -> None:
        """The station has obeyed an order, or has not; one that was given up is nobody's."""
        if order is not self._order:
            return
        self._order = None
        self._command_state = CommandState.DONE if done else CommandState.FAILED
        if not done:
            self._fail(ErrorCode.COMMAND_REFUSED)
        elif self._asked_recipe:
            self._recipe = self._asked_recipe
        self._asked_recipe = ""
        if not self._plc.command:
            self._command_echo, self._command_state = 0, CommandState.IDLE

    def pictured(
        self, message: VerdictMessage, is_record: bool, taken_s: float, now_s: float
    ) -> None:
        """With a hardware trigger: a picture of this camera was judged, or owed and not taken.

        ``is_record``: the verdict was fetched from the journal, so that it lets nothing pass.
        ``taken_s`` is when the camera handed the picture over, by the same clock as ``now_s``.
        """
        frame, origin = message.frame, Origin(message.epoch, message.seq)
        if frame is None or message.trigger_seq is not None:
            # A lost camera counts no edges; and who triggers it by command, counts for himself.
            self._actions.append(Delivered(origin, "discarded"))
            self._differ()
            return
        if message.epoch != self._epoch:
            self._count_from(message.epoch, frame - 1)
        self._expire(now_s)
        told_now = message.told_again() if is_record else message
        due_s = now_s + self._set.result_timeout_s
        count, part = self._parts.picture(frame, told_now, taken_s, due_s)
        if not self._parts.agrees:
            self._actions.append(Delivered(origin, "discarded"))
            if part is not None:
                self._put(self._fault(count, BridgeReason.COUNT_MISMATCH, part.part_id))
            self._differ()
        elif part is not None:
            self._put(self._counted(count, part, told_now))

    def _count_from(self, epoch: str, frame: int) -> None:
        """Another start of the station: its count stands at ``frame``, and nothing passes."""
        self._epoch = epoch
        self._differ()
        self._parts.restart(frame)

    # The rules, one by one.

    @property
    def _can_judge(self) -> bool:
        return self._state in JUDGING and self._camera_runs

    @property
    def _active_recipe(self) -> int:
        return 0 if self._asked_recipe else self._numbers.get(self._recipe, 0)

    def _is_ready(self) -> bool:
        return (
            self._can_judge
            and bool(self._session)
            and not (self._blocked or self._plc_lost or self._asked_recipe)
            and self._results.waiting < MOST_WAITING
            and all(one.acquired for one in self._awaited.values())
            and (self._parts.agrees or not self._set.hardware)
        )

    def _lost_plc(self, now_s: float) -> bool:
        limit_s = self._set.plc_heartbeat_s
        return bool(limit_s) and (self._plc_seen_s is None or now_s > self._plc_seen_s + limit_s)

    def _take_session(self, before: PlcFields) -> bool:
        """Open the session that the PLC asks for; True when this scan did."""
        session = self._plc.session
        if session is None or session == before.session:
            return False
        if before.session is None and session:
            # It may be that of before this start, whose triggers nobody remembers.
            self._fail(ErrorCode.SESSION_STANDING)
            return False
        for result in self._results.clear():
            self._deliver(result, "discarded")
        for ticket in list(self._awaited):
            self._settle(ticket, "discarded")
        self._differ(tell=False)
        self._session = session
        self._sessions += 1
        self._wire_session = f"{self._run}-{session}-{self._sessions}"
        self._last = self._number = self._echo = self._acquired_seq = 0
        if self._blocked or self._error is ErrorCode.SESSION_STANDING:
            self._blocked, self._error = False, ErrorCode.NONE
        return True

    def _take_acknowledgement(self) -> None:
        done = self._results.acknowledge(self._plc.result_ack)
        if done is not None:
            self._deliver(done, "acknowledged")

    def _take_reset(self, before: PlcFields) -> None:
        asked = self._plc.reset_count
        if before.reset_count is None and asked:
            # It stood there when the bridge started: nobody says that the line is empty now.
            self._reset_seen = asked
        if not self._set.hardware or not asked or asked == self._reset_seen:
            return
        # The numbers begin anew: a result of before must not stand beside them.
        untaken = self._results.shown is not None and not self._set.latest
        if self._parts.open or untaken:
            if asked != before.reset_count:
                self._fail(ErrorCode.RESET_NOT_EMPTY)
            return
        for result in self._results.clear():
            self._deliver(result, "discarded")
        self._parts.reset()
        self._last = 0
        self._difference_told = False
        self._reset_echo = self._reset_seen = asked
        if self._error is ErrorCode.COUNT_MISMATCH:
            self._error = ErrorCode.NONE

    def _take_command(self, before: PlcFields) -> None:
        command = self._plc.command
        if command is None or command == before.command:
            return
        if command == 0:
            # One that still runs is echoed until the station has answered.
            if self._command_state is not CommandState.RUNNING:
                self._command_echo, self._command_state = 0, CommandState.IDLE
            return
        if before.command is None:
            self._fail(ErrorCode.COMMAND_STANDING)
            return
        if self._command_echo or before.command:
            self._fail(ErrorCode.COMMAND_NOT_CLEARED)
            return
        self._command_echo, self._command_state = command, CommandState.FAILED
        if command not in Command.__members__.values():
            self._fail(ErrorCode.COMMAND_UNKNOWN)
        elif not self._state:
            self._fail(ErrorCode.COMMAND_NOT_READY)
        elif command == Command.RECIPE and self._plc.recipe_id not in self._set.recipes:
            self._fail(ErrorCode.RECIPE_UNKNOWN)
        else:
            self._command_state = CommandState.RUNNING
            if command == Command.RECIPE:
                self._asked_recipe = self._set.recipes[self._plc.recipe_id]
            self._order = Order(Command(command), self._asked_recipe)
            self._actions.append(self._order)

    def _take_trigger(self, before: PlcFields, opened: bool, now_s: float) -> None:
        plc, seq = self._plc, self._plc.trigger_seq
        if not seq or seq == before.trigger_seq:
            return
        if before.trigger_seq is None:
            self._miss(ErrorCode.TRIGGER_STANDING)
            return
        if opened or not self._session:
            self._miss(ErrorCode.TRIGGER_NO_SESSION)
            return
        if self._blocked:
            self._missed += 1
            return
        # Within a session numbers rise around the circle; the first may be any.
        step = (seq - self._last) % LARGEST if self._last else 1
        if not 0 < step <= _LONGEST_STEP:
            self._blocked = True
            self._error = ErrorCode.TRIGGER_STEP
            self._errors += 1
            self._missed += 1
            return
        skipped = step - 1
        self._missed += skipped
        self._number += step if self._last else seq
        self._last = self._echo = seq
        if self._results.is_full:
            self._miss(ErrorCode.RESULTS_FULL)
            return
        self._triggers += 1
        if self._set.hardware:
            self._announce(seq, skipped, now_s)
        else:
            self._trigger(plc, seq, now_s)

    def _trigger(self, plc: PlcFields, seq: int, now_s: float) -> None:
        """Have the station judge the part, or tell at once why nobody can."""
        part_id = plc.part_id or ""
        if plc.part_id is None or plc.lot is None:
            self._fail(ErrorCode.PART_ID if plc.part_id is None else ErrorCode.LOT)
            self._put(self._fault(seq, BridgeReason.BAD_TEXT, part_id))
            return
        if not self._can_judge or self._lost_plc(now_s):
            self._fail(ErrorCode.TRIGGER_NOT_READY)
            self._put(self._fault(seq, Reason.NOT_READY, part_id))
            return
        active = self._active_recipe
        if plc.recipe_id != active or (self._set.recipes and not active):
            self._fail(ErrorCode.RECIPE_MISMATCH)
            self._put(self._fault(seq, BridgeReason.RECIPE_MISMATCH, part_id))
            return
        if not self._is_ready():
            # The station decides: if the picture before is still to come, both parts are FAULTs.
            self._fail(ErrorCode.TRIGGER_NOT_READY)
        ticket = Ticket(self._wire_session, self._number)
        due_s = now_s + self._set.result_timeout_s
        self._awaited[ticket] = _Awaited(seq, part_id, self._recipe, due_s)
        self._actions.append(Trigger(ticket, part_id, plc.lot))

    def _announce(self, seq: int, skipped: int, now_s: float) -> None:
        """Take the PLC's count of a part that a hardware trigger photographs."""
        plc, active, why = self._plc, self._active_recipe, ""
        if plc.part_id is None or plc.lot is None:
            self._fail(ErrorCode.PART_ID if plc.part_id is None else ErrorCode.LOT)
            why = BridgeReason.BAD_TEXT.value
        elif plc.recipe_id != active or (self._set.recipes and not active):
            self._fail(ErrorCode.RECIPE_MISMATCH)
            why = BridgeReason.RECIPE_MISMATCH.value
        due_s = now_s + self._set.result_timeout_s
        part = Announced(plc.part_id or "", self._recipe, now_s, due_s, why)
        if skipped:
            # Of the parts between, the PLC told no PartID: which picture is whose is not known.
            self._differ()
        if not self._parts.agrees:
            self._put(self._fault(seq, BridgeReason.COUNT_MISMATCH, part.part_id))
            return
        message = self._parts.announce(seq, part)
        if isinstance(message, VerdictMessage):
            self._put(self._counted(seq, part, message))
        elif not self._parts.agrees:
            self._differ()

    def _counted(self, count: int, part: Announced, message: VerdictMessage) -> Result:
        result = replace(told(message, count, part.part_id, part.recipe), part_count=count)
        return result.as_fault(part.why) if part.why else result

    def _differ(self, tell: bool = True) -> None:
        """The counts differ, or can no longer be compared: no part passes until a reset."""
        if not self._set.hardware:
            return
        if tell and not self._difference_told:
            self._fail(ErrorCode.COUNT_MISMATCH)
        self._difference_told = True
        announced, pictured = self._parts.differ()
        for message in pictured:
            if isinstance(message, VerdictMessage):
                self._actions.append(Delivered(Origin(message.epoch, message.seq), "discarded"))
        if tell:
            for count, part in announced.items():
                self._put(self._fault(count, BridgeReason.COUNT_MISMATCH, part.part_id))

    def _expire(self, now_s: float) -> None:
        """Tell of what did not come in time while the station lives."""
        due = [ticket for ticket, one in self._awaited.items() if one.due_s <= now_s]
        for ticket in due:
            awaited = self._awaited[ticket]
            self._settle(ticket, "timed_out")
            self._put(self._fault(awaited.trigger_seq, Reason.DEADLINE_MISSED, awaited.part_id))
        if self._parts.late(now_s):
            self._differ()

    def _fault(self, seq: int, reason: Reason | BridgeReason, part_id: str) -> Result:
        return Result(seq, Verdict.FAULT, reason.value, None, part_id)

    def _put(self, result: Result) -> None:
        in_time = self._results.put(result, self._plc.result_ack)
        if not in_time:
            self._deliver(result, "overrun")
        verdict = result.verdict if in_time else Verdict.FAULT
        self._passed += verdict is Verdict.PASS
        self._failed += verdict is Verdict.FAIL
        self._faults += verdict is Verdict.FAULT

    def _deliver(self, result: Result, outcome: Outcome) -> None:
        if result.origin is not None:
            self._actions.append(Delivered(result.origin, outcome))

    def _settle(self, ticket: Ticket, outcome: Outcome) -> None:
        """Await a trigger no longer; if its verdict comes after all, the station is told so."""
        self._awaited.pop(ticket, None)
        self._settled[ticket] = outcome
        while len(self._settled) > _MOST_SETTLED:
            self._settled.popitem(last=False)

    def _miss(self, error: ErrorCode) -> None:
        self._missed += 1
        self._fail(error)

    def _fail(self, error: ErrorCode) -> None:
        """Show an error, unless another one waits to be acknowledged; each is counted."""
        self._errors += 1
        if self._error is ErrorCode.NONE:
            self._error = error


def told(message: VerdictMessage, trigger_seq: int, part_id: str, recipe: str) -> Result:
    """What the PLC is told of a verdict; ``recipe`` was in force when the part came."""
    result = Result(
        trigger_seq,
        message.verdict,
        message.reason,
        message.score,
        part_id,
        origin=Origin(message.epoch, message.seq),
    )
    if message.verdict is Verdict.FAULT:
        return result
    if message.recipe != recipe:
        return result.as_fault(BridgeReason.RECIPE_MISMATCH.value)
    if message.repeated or (message.verdict is Verdict.PASS and not message.may_pass):
        return result.as_fault(BridgeReason.RECORD_ONLY.value)
    return result
