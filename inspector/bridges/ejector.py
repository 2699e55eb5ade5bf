"""From a sensor's edge to an ejector's pulse: which part gets which output, and when.

Pure logic: what the inputs show, what the station says and the clock go in; triggers, and outputs
that are due, come out. Everything but a PASS in time for the very part at the ejector is no PASS:
no verdict, a late one, a record, an edge that was seen too late, a belt that stopped on the way.
"""

from __future__ import annotations

import collections
from dataclasses import dataclass
from typing import Final

from inspector.bridges.codes import BridgeReason
from inspector.bridges.fields import Action, Delivered, Order, Ticket, Trigger
from inspector.bridges.handshake import JUDGING, told
from inspector.bridges.results import Origin, Result
from inspector.verdict import Verdict
from inspector.wire.messages import Outcome, StatusMessage, VerdictMessage

_MOST_PARTS: Final = 512
"""Parts on their way to the ejector; with one more than these, none of them passes."""
_MOST_SETTLED: Final = 1_000
_BEATS: Final = 4
"""Changes of the healthy coil within the time in which one must be seen."""
_JUMP: Final = 10
"""So many times its tolerance between two readings no encoder counts: it was set anew."""
_EARLY: Final = 0.25
"""At most this share of a pulse it may end early, so that it ends before its time."""
_EARLY_S: Final = 0.01


@dataclass(frozen=True)
class Way:
    """How a part gets from its sensor to the ejector; times in s.

    Without ``delay_s`` and ``delay_pulses`` the output comes with the verdict.
    """

    camera: str
    delay_s: float | None = None
    delay_pulses: int | None = None
    tolerance_s: float = 0.025
    tolerance_pulses: int = 10
    standstill_s: float = 0.5
    """An encoder that counts nothing for this time stands still."""
    encoder_bits: int = 16
    pulse_s: float = 0.1
    result_timeout_s: float = 1.0
    heartbeat_s: float = 1.0


@dataclass(frozen=True)
class Inputs:
    """What one reading of the module shows."""

    trigger: bool
    belt: bool = True
    """True where there is no such input."""
    encoder: int | None = None


@dataclass(frozen=True)
class Firing:
    """An output that is due now, for one part."""

    output: Verdict
    number: int
    result: Result | None
    """None: no verdict has come, which is a FAULT."""


@dataclass(eq=False)
class _Part:
    number: int
    edge_s: float
    position: int
    recipe: str
    ticket: Ticket | None
    """None: the station was not asked, and this part is a FAULT."""
    result: Result | None = None


class Ejector:
    """The parts between one camera's sensor and its ejector.

    ``run`` makes the session of this start of the bridge unlike that of any other. The caller reads
    the inputs again and again, and calls ``sense`` with each reading; then it writes what ``due``
    gives, says by ``fired`` how that went, and turns off what ``ending`` names. When the module
    cannot be read or written it calls ``lost``.
    """

    def __init__(self, way: Way, run: str) -> None:
        self._way = way
        self._session = run
        self._number = 0
        self._parts: collections.deque[_Part] = collections.deque()
        self._awaited: dict[Ticket, _Part] = {}
        self._settled: collections.OrderedDict[Ticket, Outcome] = collections.OrderedDict()
        self._actions: list[Action] = []
        self._dropped: collections.Counter[str] = collections.Counter()

        self._read_s: float | None = None
        """When the last good reading began; None: there was none since the connection was made."""
        self._is_blind = True
        """The last reading took too long, or was the first."""
        self._trigger = True
        self._encoder: int | None = None
        self._position = 0
        self._furthest = 0
        self._moved_s = 0.0
        self._runs = False
        self._on: dict[Verdict, float] = {}
        self._cut = False
        """What is on ends now: what comes next at the ejector is not its part."""
        self._wave = False
        self._wave_s: float | None = None

        self._state = ""
        self._camera_runs = False
        self._recipe = ""

    # What the module shows.

    def sense(self, inputs: Inputs, begun_s: float, now_s: float) -> None:
        """Take a reading that was begun at ``begun_s`` and answered at ``now_s``."""
        gap_s = None if self._read_s is None else now_s - self._read_s
        self._is_blind = gap_s is None or gap_s > self._way.tolerance_s
        if self._is_blind:
            # Meanwhile the belt may have stopped, and parts may have come that nobody counted.
            self._drop("inputs unseen")
        self._follow_belt(inputs, begun_s, now_s)
        edge = inputs.trigger and not self._trigger
        # After a reconnection an input that is on says nothing of when it came on.
        known = self._read_s is not None
        self._read_s, self._trigger = begun_s, inputs.trigger
        if edge and known:
            self._arrive(now_s)

    def lost(self) -> None:
        """The module cannot be read or written: nothing that was known of it holds any more."""
        self._drop("module lost")
        self._read_s = self._encoder = None
        self._is_blind = True
        self._on.clear()
        self._cut = False
        self._wave, self._wave_s = False, None

    def take_actions(self) -> list[Action]:
        """What is to be done at the station, in order."""
        actions, self._actions = self._actions, []
        return actions

    def take_dropped(self) -> dict[str, int]:
        """Parts that got no PASS because of what happened to them, since the last call, by why."""
        dropped, self._dropped = self._dropped, collections.Counter()
        return dict(dropped)

    # What is to be written.

    def due(self, now_s: float) -> Firing | None:
        """The next output whose moment has come; it leaves the queue with that."""
        if self._read_s is None:
            return None
        if now_s - self._read_s > self._way.tolerance_s:
            self._drop("inputs unseen")
            return None
        while self._parts:
            part = self._parts[0]
            late = self._lateness(part, now_s)
            if late is None:
                return None
            self._parts.popleft()
            result = part.result
            if result is None:
                self._settle(part, "timed_out")
            output = Verdict.FAULT if result is None else result.verdict
            if late or output in self._on:
                # Of two pulses in one nobody could say which part the second was for.
                self._dropped["output late" if late else "output still on"] += 1
                self._deliver(result, "discarded")
                continue
            return Firing(output, part.number, result)
        return None

    def fired(self, firing: Firing, begun_s: float, done: bool) -> None:
        """An output was written, which was begun at ``begun_s``; not ``done``: that failed."""
        if done:
            self._on[firing.output] = begun_s
        self._deliver(firing.result, "acknowledged" if done else "failed")

    def ending(self, now_s: float) -> list[Verdict]:
        """Outputs whose pulse is over, PASS first; each until ``ended``."""
        near = self._is_next_near(now_s)
        over = [
            output for output, begun_s in self._on.items() if near or now_s >= self._end_s(begun_s)
        ]
        return sorted(over, key=lambda output: output is not Verdict.PASS)

    def ended(self, output: Verdict) -> None:
        """An output was turned off."""
        self._on.pop(output, None)
        self._cut = self._cut and bool(self._on)

    def next_s(self) -> float | None:
        """When the next pulse ends or, by time, the next output is due; None: nothing is known."""
        moments = [self._end_s(begun_s) for begun_s in self._on.values()]
        if self._way.delay_s is not None and self._parts:
            moments.append(self._parts[0].edge_s + self._way.delay_s)
        return min(moments, default=None)

    def wave(self, now_s: float) -> bool | None:
        """Another level for the healthy coil, if it is to change now."""
        if not self.is_ready:
            changed, self._wave, self._wave_s = self._wave, False, None
            return False if changed else None
        if self._wave_s is not None and now_s < self._wave_s + self._way.heartbeat_s / _BEATS:
            return None
        self._wave, self._wave_s = not self._wave, now_s
        return self._wave

    @property
    def is_ready(self) -> bool:
        """True while a part that comes now can pass."""
        return self._state in JUDGING and self._camera_runs and not self._is_blind

    # What the station says.

    def status(self, message: StatusMessage) -> None:
        """The station lives, and stands like this."""
        self._state, self._recipe = message.state, message.recipe
        self._camera_runs = any(
            camera.name == self._way.camera and camera.state == "running"
            for camera in message.cameras
        )

    def station_gone(self) -> None:
        """The station cannot be reached."""
        self._state, self._camera_runs = "", False

    def acquired(self, ticket: Ticket) -> None:
        """The picture is taken; the belt moves on in any case."""

    def verdict(self, ticket: Ticket, message: VerdictMessage) -> None:
        """The verdict on a part came."""
        origin = Origin(message.epoch, message.seq)
        part = self._awaited.pop(ticket, None)
        if part is None:
            outcome = self._settled.pop(ticket, None)
            if outcome is not None:
                self._actions.append(Delivered(origin, outcome))
            return
        result = told(message, part.number, message.part_id, part.recipe)
        is_this = (
            message.camera == self._way.camera
            and message.session == ticket.session
            and message.trigger_seq == ticket.number
        )
        part.result = result if is_this else result.as_fault(BridgeReason.OTHER_PART.value)

    def refused(self, ticket: Ticket) -> None:
        """The station refused a trigger; its part stays without a verdict."""
        self._awaited.pop(ticket, None)

    def ordered(self, order: Order, done: bool) -> None:
        """Remote I/O gives no orders."""

    # The rules, one by one.

    @property
    def _is_at_once(self) -> bool:
        return self._way.delay_s is None and self._way.delay_pulses is None

    def _end_s(self, begun_s: float) -> float:
        return begun_s + self._way.pulse_s - min(_EARLY_S, _EARLY * self._way.pulse_s)

    def _is_next_near(self, now_s: float) -> bool:
        """True when an output that is on would reach the next part, or one that nobody knows."""
        way = self._way
        if self._cut or not self._parts:
            return self._cut
        following = self._parts[0]
        if way.delay_pulses is not None:
            near = following.position + way.delay_pulses - way.tolerance_pulses
            return self._position >= near
        return way.delay_s is not None and now_s >= following.edge_s + way.delay_s - _EARLY_S

    def _follow_belt(self, inputs: Inputs, begun_s: float, now_s: float) -> None:
        did_run, runs = self._runs, inputs.belt
        count, before, self._encoder = inputs.encoder, self._encoder, inputs.encoder
        if count is not None:
            if before is None:
                self._moved_s, self._furthest = begun_s - self._way.standstill_s, self._position
                # Whether the belt runs is known once it has counted something.
                before = count
            half = 1 << self._way.encoder_bits - 1
            step = (count - before + half) % (2 * half) - half
            self._position += step
            if step:
                self._moved_s = now_s
            self._furthest = max(self._furthest, self._position)
            if step > _JUMP * max(1, self._way.tolerance_pulses):
                self._drop("encoder jumped")
            elif self._position < self._furthest - self._way.tolerance_pulses:
                self._drop("belt ran back")
                self._furthest = self._position
            runs = runs and now_s < self._moved_s + self._way.standstill_s
        self._runs = runs
        if did_run and not runs:
            self._drop("belt stopped")

    def _arrive(self, now_s: float) -> None:
        """A part has reached the sensor."""
        if self._is_at_once:
            # A PASS from now on would be taken for this part's.
            self._drop("next part came")
        if len(self._parts) >= _MOST_PARTS:
            self._drop("too many parts")
        self._number += 1
        why = ""
        if self._is_blind:
            why = "edge seen late"
        elif not self._runs:
            why = "belt stands"
        elif not self.is_ready:
            why = "not ready"
        ticket = None if why else Ticket(self._session, self._number)
        part = _Part(self._number, now_s, self._position, self._recipe, ticket)
        self._parts.append(part)
        if ticket is None:
            self._dropped[why] += 1
            return
        self._awaited[ticket] = part
        self._actions.append(Trigger(ticket, "", ""))

    def _lateness(self, part: _Part, now_s: float) -> bool | None:
        """None: its moment is still to come; True: it is over."""
        way = self._way
        if way.delay_pulses is not None:
            left = part.position + way.delay_pulses - self._position
            return None if left > 0 else -left > way.tolerance_pulses
        if way.delay_s is not None:
            due_s = part.edge_s + way.delay_s
            return None if now_s < due_s else now_s > due_s + way.tolerance_s
        due_s = part.edge_s + way.result_timeout_s
        if part.result is not None:
            return now_s > due_s
        if part.ticket in self._awaited and now_s < due_s:
            return None
        return now_s > due_s + way.tolerance_s

    def _drop(self, why: str) -> None:
        """No part that is on its way passes any more."""
        for part in self._parts:
            if part.result is None:
                self._settle(part, "discarded")
            self._deliver(part.result, "discarded")
        if self._parts:
            self._dropped[why] += len(self._parts)
        self._parts.clear()
        self._cut = bool(self._on)

    def _settle(self, part: _Part, outcome: Outcome) -> None:
        """Await a verdict no longer; if it comes after all, the station is told so."""
        if part.ticket is None or self._awaited.pop(part.ticket, None) is None:
            return
        self._settled[part.ticket] = outcome
        while len(self._settled) > _MOST_SETTLED:
            self._settled.popitem(last=False)

    def _deliver(self, result: Result | None, outcome: Outcome) -> None:
        if result is not None and result.origin is not None:
            self._actions.append(Delivered(result.origin, outcome))
