"""Whether a station is ready to judge, what keeps it from that, and what it says of itself."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final

from inspector.journal.schema import StopOrder
from inspector.judging.alarms import Alarms
from inspector.judging.judges import Judges
from inspector.logs import say
from inspector.station.ledger import Ledger
from inspector.station.states import WORKING
from inspector.verdict import Reason, Verdict
from inspector.wire.messages import (
    AlarmField,
    AlarmKind,
    ObstacleField,
    ObstacleKind,
    State,
    StatusMessage,
    StoppedField,
)

_MODEL: Final = "model"
"""The obstacle that a camera has no model yet."""


class Readiness:
    """The station's state with its obstacles, told in a status; used by the station's thread.

    An obstacle is what keeps a station from judging although it runs: a journal that cannot be
    written, a self-test that was missed. While there is one the state is Error. A station that was
    stopped by command is Initialized, and makes no parts.
    """

    def __init__(self, ledger: Ledger, judges: Judges, alarms: Alarms) -> None:
        self.storage: dict[str, str] = {}
        """What is wrong with the disk that does not keep the station from judging; or ""s.

        By what it is that is stored: ``journal``, ``pictures``.
        """
        self.damaged = 0
        """Rows of the journal that could not be read and were set aside."""
        self._ledger = ledger
        self._judges = judges
        self._alarms = alarms
        self._obstacles: dict[ObstacleKind, tuple[Reason, str]] = {}
        self._acknowledged: dict[tuple[AlarmKind, str], AlarmField] = {}
        self._stopped: StopOrder | None = None
        self._status = ledger.status()
        self._publish: Callable[[StatusMessage], None] = lambda _: None
        self._over = False

    @property
    def status(self) -> StatusMessage:
        """The last status that was told; any thread may read it."""
        return self._status

    @property
    def is_obstructed(self) -> bool:
        """True while something keeps the station from judging."""
        return bool(self._obstacles)

    @property
    def lacks_model(self) -> bool:
        """True while a camera has no model yet, and the station therefore makes no parts."""
        return _MODEL in self._obstacles

    @property
    def stopped(self) -> str:
        """Who stopped the station by command, and when; "" while it is not stopped."""
        return "" if self._stopped is None else _in_words(self._stopped)

    @property
    def trouble(self) -> str:
        """What keeps the station from judging, in words; "" when nothing does."""
        return "; ".join(
            f"{kind.replace('_', '-')}: {detail}" for kind, (_, detail) in self._obstacles.items()
        )

    @property
    def is_over(self) -> bool:
        """True once the station has begun to leave."""
        return self._over

    def speak_through(self, publish: Callable[[StatusMessage], None]) -> None:
        """Have every status from now on published by ``publish``."""
        self._publish = publish

    def obstruct(self, what: ObstacleKind, reason: Reason, detail: str) -> None:
        """Something keeps the station from being ready; ``detail`` "": it no longer does."""
        if self._over:
            return
        before = bool(self._obstacles)
        if detail:
            say("not ready", logging.ERROR, why=what, detail=detail)
            self._obstacles[what] = (reason, detail)
            self._hold_parts()
            if not before:
                self.enter("Error", reason, detail)
        elif self._obstacles.pop(what, None) is not None:
            say("cured", why=what)
            self._hold_parts()
            if self._obstacles:
                self._ledger.blame(*next(iter(self._obstacles.values())))
            else:
                for state in ("Preoperational", "Initialized"):
                    self.enter(state)
                if not self._stopped:
                    self._begin()

    def lack(self, cameras: Sequence[str]) -> None:
        """These cameras have no model yet: no part begins before each has one."""
        detail = ""
        if cameras:
            detail = (
                f"{', '.join(cameras)}: there is no model yet; take photos and train one in the "
                f"view Set up of the operator's page, or 'inspector install' one"
            )
        if detail != self._obstacles.get(_MODEL, (None, ""))[1]:
            self.obstruct(_MODEL, Reason.NOT_READY, detail)

    def _hold_parts(self) -> None:
        # What comes before there is a model was made by nobody to be judged: it is no FAULT.
        self._ledger.stop(self._stopped is not None or self.lacks_model)

    def stop(self, order: StopOrder) -> None:
        """Judge no more: open parts are FAULTs, and no other part begins until ``start``."""
        self._stopped = order
        if self._ledger.state in WORKING:
            if self._ledger.state != "Ready":
                self._ledger.enter("Ready")
            self._ledger.enter("Initialized", Reason.NOT_READY, self.stopped)
        self._ledger.stop(True)
        self.tell_state()

    def start(self) -> None:
        """Judge again after ``stop``; for a station that nothing else keeps from it."""
        self._stopped = None
        self._ledger.stop(False)
        self._begin()

    def _begin(self) -> None:
        self.enter("Ready")
        self._ledger.start()
        self.tell_state()

    def enter(self, state: State, reason: Reason = Reason.NOT_READY, detail: str = "") -> None:
        """Change the state, and say so."""
        self._ledger.enter(state, reason, detail)
        self.tell_state()

    def leave(self) -> None:
        """From here on no state leads to another but the last one."""
        self._over = True

    def tell(self) -> None:
        """Publish the status."""
        status = self._ledger.status()
        alarms = self._standing(status.recipe)
        # What has ended, or was raised anew, must be seen anew.
        seen = {(one.kind, one.where): one for one in alarms if one.acknowledged_us is not None}
        self._acknowledged = seen
        self._status = status.model_copy(
            update={
                "trouble": self.trouble,
                "obstacles": tuple(
                    ObstacleField(kind=kind, detail=detail)
                    for kind, (_, detail) in self._obstacles.items()
                ),
                "stopped": self.stopped,
                "stopped_by": None if self._stopped is None else _as_field(self._stopped),
                "drift": self._judges.drifting,
                "alarm": self._alarms.in_words(status.recipe),
                "storage": "; ".join(filter(None, self.storage.values())),
                "alarms": alarms,
                "damaged": self.damaged,
            }
        )
        self._publish(self._status)

    def alarm(self, kind: AlarmKind, where: str) -> AlarmField | None:
        """The alarm that stands, as it was seen; None: there is none."""
        for alarm in self._standing(self._ledger.status().recipe):
            if (alarm.kind, alarm.where) == (kind, where):
                return alarm
        return None

    def acknowledge(self, seen: AlarmField) -> None:
        """Somebody has seen an alarm, which is told until it ends."""
        self._acknowledged[seen.kind, seen.where] = seen
        self.tell()

    def _standing(self, recipe: str) -> tuple[AlarmField, ...]:
        found = [
            AlarmField(
                kind="fail" if one.kind is Verdict.FAIL else "fault",
                where=one.camera,
                detail=one.words,
                bad=one.bad,
                parts=one.parts,
                usual=one.usual,
                reason=one.reason,
                passed=one.has_passed if one.kind is Verdict.FAIL else None,
            )
            for one in self._alarms.standing(recipe)
        ]
        for camera, drift in self._judges.drifts():
            recent, calibrated = drift.medians
            found.append(
                AlarmField(
                    kind="drift",
                    where=camera,
                    detail=drift.detail(),
                    score=recent,
                    calibrated=calibrated,
                )
            )
        for what, words in self.storage.items():
            if words:
                found.append(AlarmField(kind="storage", where=what, detail=words))
        return tuple(map(self._as_seen, found))

    def _as_seen(self, alarm: AlarmField) -> AlarmField:
        seen = self._acknowledged.get((alarm.kind, alarm.where))
        # The words of these two say what raised the alarm; those of the others change while it
        # stands.
        if seen is None or (alarm.kind in {"fail", "fault"} and seen.detail != alarm.detail):
            return alarm
        told = {"by": seen.by, "client": seen.client, "acknowledged_us": seen.acknowledged_us}
        return alarm.model_copy(update=told)

    def tell_state(self) -> None:
        """Publish the status, and log the state."""
        self.tell()
        state = self._ledger.state
        tally: dict[str, int] = {}
        if state == "Halted":
            status = self._status
            tally = {"passed": status.passed, "failed": status.failed, "faults": status.faults}
        say("state", state=state, last_seq=self._status.last_seq, **tally)


def _as_field(order: StopOrder) -> StoppedField:
    return StoppedField(client=order.client, at_us=order.since_us or 0)


def _in_words(order: StopOrder) -> str:
    by = f" by {order.client}" if order.client else ""
    at = datetime.fromtimestamp((order.since_us or 0) / 1e6).astimezone()
    return f"stopped{by} at {at:%Y-%m-%d %H:%M:%S}; 'inspector start' has it judge again"
