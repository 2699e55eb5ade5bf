"""The jobs of one camera, as OPC 40100-1 counts them: a method call starts one, an event ends it.

Pure logic: calls, what the station said and the clock go in; finished jobs and what is to be done
come out. Where the Modbus handshake has one PLC, whose registers hold a number, this has any number
of clients, each of whose calls is answered by itself. The rules are the same: a job ends once, by
its own verdict or as a FAULT, and what was told before is never told as another part's.
"""

from __future__ import annotations

import collections
import re
from dataclasses import dataclass
from typing import Final

from inspector.bridges.codes import BridgeReason, ErrorCode
from inspector.bridges.fields import Action, Delivered, Order, Ticket, Trigger
from inspector.bridges.handshake import told
from inspector.bridges.results import Origin, Result
from inspector.verdict import Reason, Verdict
from inspector.wire.messages import Outcome, StatusMessage, VerdictMessage

_MOST_OPEN: Final = 64
"""Jobs that may wait for their verdicts; one more is refused."""
_MOST_KNOWN: Final = 10_000
"""Ids of measurements that are remembered, so that none is measured twice."""
_LONGEST: Final = 64
_NUMBERED: Final = re.compile(r"(.{1,48}):([1-9][0-9]{0,14})")
_AUTOMATIC: Final = frozenset({"Initialized", "Ready", "SingleExecution", "ContinuousExecution"})


class JobError(Exception):
    """A call that cannot be obeyed; nothing was started."""

    def __init__(self, code: ErrorCode) -> None:
        super().__init__(code.name)
        self.code = code


@dataclass(frozen=True)
class Job:
    """One part that a client had measured."""

    ticket: Ticket
    meas_id: str
    part_id: str
    lot: str
    recipe: str
    """The one in force when the part came."""
    due_s: float


@dataclass(frozen=True)
class Finished:
    """How a job ended; ``message`` is None where the station has not judged the part in time."""

    job: Job
    result: Result
    message: VerdictMessage | None
    is_aborted: bool = False


class Jobs:
    """One camera's jobs, and the state of its machine.

    ``run`` makes the ids that this start of the bridge gives unlike those of any other.
    """

    def __init__(self, camera: str, run: str, result_timeout_s: float) -> None:
        self._camera = camera
        self._run = run
        self._timeout_s = result_timeout_s
        self._number = 0
        self._open: dict[Ticket, Job] = {}
        self._exposing: Ticket | None = None
        """The job whose picture is still to be taken: the next one may not start."""
        self._settled: collections.OrderedDict[Ticket, Outcome] = collections.OrderedDict()
        self._known: collections.OrderedDict[Ticket, None] = collections.OrderedDict()
        self.told: StatusMessage | None = None
        """The station's last status; None while there is no station."""
        self._state = ""
        self._recipe = ""
        self._runs = False
        self._changing = False
        self._actions: list[Action] = []
        self._finished: list[Finished] = []
        self._acquired: list[Job] = []
        self._ordered: list[tuple[Order, bool]] = []

    # What clients call.

    def start(self, meas_id: str, part_id: str, recipe: str, lot: str, now_s: float) -> Job:
        """Start a job. Raises :class:`JobError`, and then nothing was started.

        ``meas_id`` is SESSION:NUMBER, or any text of its own; "" gets a new one. ``recipe`` is ""
        or the one in force.
        """
        if not _is_text(part_id):
            raise JobError(ErrorCode.PART_ID)
        if not _is_text(lot):
            raise JobError(ErrorCode.LOT)
        if self._state not in {"Ready", "SingleExecution"} or not self._runs or self._changing:
            raise JobError(ErrorCode.TRIGGER_NOT_READY)
        if recipe and recipe != self._recipe:
            raise JobError(ErrorCode.RECIPE_MISMATCH)
        if self._exposing is not None:
            raise JobError(ErrorCode.TRIGGER_NOT_READY)
        if len(self._open) >= _MOST_OPEN:
            raise JobError(ErrorCode.RESULTS_FULL)
        ticket = self._ticket(meas_id)
        self._known[ticket] = None
        while len(self._known) > _MOST_KNOWN:
            self._known.popitem(last=False)
        job = Job(
            ticket,
            meas_id or f"{ticket.session}:{ticket.number}",
            part_id,
            lot,
            self._recipe,
            now_s + self._timeout_s,
        )
        self._open[ticket] = job
        self._exposing = ticket
        self._actions.append(Trigger(ticket, part_id, lot))
        return job

    def abort(self) -> None:
        """End every open job as a FAULT; a verdict that still comes is discarded."""
        for job in list(self._open.values()):
            self._settle(job, "discarded")
            fault = self._fault(job, BridgeReason.ABORTED)
            self._finished.append(Finished(job, fault, None, is_aborted=True))

    def order(self, order: Order) -> None:
        """Have the station obey an order; its end is among the answers of :meth:`ends`."""
        self._changing = self._changing or bool(order.recipe)
        self._actions.append(order)

    def pass_time(self, now_s: float) -> None:
        """End what did not come in time as a FAULT."""
        for job in [one for one in self._open.values() if one.due_s <= now_s]:
            self._settle(job, "timed_out")
            self._end(job, self._fault(job, Reason.DEADLINE_MISSED))

    # What comes out.

    def actions(self) -> list[Action]:
        """What is to be done at the station, in order; each is handed out once."""
        found, self._actions = self._actions, []
        return found

    def finished(self) -> list[Finished]:
        """The jobs that ended since the last call."""
        found, self._finished = self._finished, []
        return found

    def acquisitions(self) -> list[Job]:
        """The jobs whose pictures were taken since the last call."""
        found, self._acquired = self._acquired, []
        return found

    def ends(self) -> list[tuple[Order, bool]]:
        """The orders that ended since the last call, and whether they were obeyed."""
        found, self._ordered = self._ordered, []
        return found

    @property
    def state(self) -> str:
        """The station's state, as far as it is this camera's; "" while there is no station.

        A station says SingleExecution while a trigger of any camera is open.
        """
        if self._state in {"Ready", "SingleExecution"}:
            return "Ready" if self._exposing is None else "SingleExecution"
        return self._state

    @property
    def is_operational(self) -> bool:
        """True in the states of the automatic mode."""
        return self._state in _AUTOMATIC

    @property
    def recipe(self) -> str:
        """The recipe in force; "" while there is no station, or it changes over."""
        return "" if self._changing else self._recipe

    # What the station says.

    def status(self, message: StatusMessage) -> None:
        """The station lives, and stands like this."""
        self.told = message
        self._state = message.state
        self._recipe = message.recipe
        self._runs = any(
            one.name == self._camera and one.state == "running" for one in message.cameras
        )

    def station_gone(self) -> None:
        """The station cannot be reached; open jobs end by their time."""
        self.told = None
        self._state, self._recipe, self._runs = "", "", False

    def acquired(self, ticket: Ticket) -> None:
        """The picture of a job is taken: the part may move."""
        if ticket == self._exposing:
            self._exposing = None
            self._acquired.append(self._open[ticket])

    def verdict(self, ticket: Ticket, message: VerdictMessage) -> None:
        """The verdict on a job's part came; one that comes late is told as such."""
        origin = Origin(message.epoch, message.seq)
        job = self._open.pop(ticket, None)
        if job is None:
            outcome = self._settled.pop(ticket, None)
            if outcome is not None:
                self._actions.append(Delivered(origin, outcome))
            return
        if self._exposing == ticket:
            self._exposing = None
        is_this = (
            message.camera == self._camera
            # A folder of photos names a part that the client did not.
            and (not job.part_id or message.part_id == job.part_id)
            and message.session == ticket.session
            and message.trigger_seq == ticket.number
        )
        result = told(message, 0, job.part_id, job.recipe)
        if not is_this:
            result = result.as_fault(BridgeReason.OTHER_PART.value)
        self._finished.append(Finished(job, result, message))

    def refused(self, ticket: Ticket) -> None:
        """The station refused a trigger."""
        job = self._open.pop(ticket, None)
        if job is not None:
            if self._exposing == ticket:
                self._exposing = None
            self._end(job, self._fault(job, BridgeReason.REFUSED))

    def ordered(self, order: Order, done: bool) -> None:
        """The station has obeyed an order, or has not."""
        if order.recipe:
            self._changing = False
            if done:
                self._recipe = order.recipe
        self._ordered.append((order, done))

    def delivered(self, origin: Origin, outcome: Outcome) -> None:
        """What became of a result beyond the bridge is known."""
        self._actions.append(Delivered(origin, outcome))

    def _ticket(self, meas_id: str) -> Ticket:
        if not meas_id:
            self._number += 1
            return Ticket(self._run, self._number)
        if not _is_text(meas_id):
            raise JobError(ErrorCode.PART_ID)
        found = _NUMBERED.fullmatch(meas_id)
        ticket = Ticket(found[1], int(found[2])) if found else Ticket(meas_id, 1)
        if ticket in self._known or ticket.session == self._run:
            raise JobError(ErrorCode.MEAS_ID_USED)
        return ticket

    def _settle(self, job: Job, outcome: Outcome) -> None:
        del self._open[job.ticket]
        if self._exposing == job.ticket:
            self._exposing = None
        self._settled[job.ticket] = outcome
        while len(self._settled) > _MOST_KNOWN:
            self._settled.popitem(last=False)

    def _end(self, job: Job, result: Result) -> None:
        self._finished.append(Finished(job, result, None))

    def _fault(self, job: Job, reason: Reason | BridgeReason) -> Result:
        return Result(0, Verdict.FAULT, reason.value, None, job.part_id)


def _is_text(text: str) -> bool:
    return len(text) <= _LONGEST and (not text or text.isprintable())
