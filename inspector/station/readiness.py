"""Whether a station is ready to judge, what keeps it from that, and what it says of itself."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime

from inspector.journal.schema import StopOrder
from inspector.judging.alarms import Alarms
from inspector.judging.judges import Judges
from inspector.logs import say
from inspector.station.ledger import Ledger
from inspector.station.states import WORKING
from inspector.verdict import Reason
from inspector.wire.messages import State, StatusMessage


class Readiness:
    """The station's state with its obstacles, told in a status; used by the station's thread.

    An obstacle is what keeps a station from judging although it runs: a journal that cannot be
    written, a self-test that was missed. While there is one the state is Error. A station that was
    stopped by command is Initialized, and makes no parts.
    """

    def __init__(self, ledger: Ledger, judges: Judges, alarms: Alarms) -> None:
        self.storage = ""
        """What is wrong with the disk that does not keep the station from judging; or ""."""
        self.damaged = 0
        """Rows of the journal that could not be read and were set aside."""
        self._ledger = ledger
        self._judges = judges
        self._alarms = alarms
        self._obstacles: dict[str, tuple[Reason, str]] = {}
        self._stopped = ""
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
    def stopped(self) -> str:
        """Who stopped the station by command, and when; "" while it is not stopped."""
        return self._stopped

    @property
    def trouble(self) -> str:
        """What keeps the station from judging, in words; "" when nothing does."""
        return "; ".join(f"{what}: {detail}" for what, (_, detail) in self._obstacles.items())

    @property
    def is_over(self) -> bool:
        """True once the station has begun to leave."""
        return self._over

    def speak_through(self, publish: Callable[[StatusMessage], None]) -> None:
        """Have every status from now on published by ``publish``."""
        self._publish = publish

    def obstruct(self, what: str, reason: Reason, detail: str) -> None:
        """Something keeps the station from being ready; ``detail`` "": it no longer does."""
        if self._over:
            return
        before = bool(self._obstacles)
        if detail:
            say("not ready", logging.ERROR, why=what, detail=detail)
            self._obstacles[what] = (reason, detail)
            if not before:
                self.enter("Error", reason, detail)
        elif self._obstacles.pop(what, None) is not None:
            say("cured", why=what)
            if self._obstacles:
                self._ledger.blame(*next(iter(self._obstacles.values())))
            else:
                for state in ("Preoperational", "Initialized"):
                    self.enter(state)
                if not self._stopped:
                    self._begin()

    def stop(self, order: StopOrder) -> None:
        """Judge no more: open parts are FAULTs, and no other part begins until ``start``."""
        self._stopped = _in_words(order)
        if self._ledger.state in WORKING:
            if self._ledger.state != "Ready":
                self._ledger.enter("Ready")
            self._ledger.enter("Initialized", Reason.NOT_READY, self._stopped)
        self._ledger.stop(True)
        self.tell_state()

    def start(self) -> None:
        """Judge again after ``stop``; for a station that nothing else keeps from it."""
        self._stopped = ""
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
        self._status = status.model_copy(
            update={
                "trouble": self.trouble,
                "stopped": self._stopped,
                "drift": self._judges.drifting,
                "alarm": self._alarms.in_words(status.recipe),
                "storage": self.storage,
                "damaged": self.damaged,
            }
        )
        self._publish(self._status)

    def tell_state(self) -> None:
        """Publish the status, and log the state."""
        self.tell()
        state = self._ledger.state
        tally: dict[str, int] = {}
        if state == "Halted":
            status = self._status
            tally = {"passed": status.passed, "failed": status.failed, "faults": status.faults}
        say("state", state=state, last_seq=self._status.last_seq, **tally)


def _in_words(order: StopOrder) -> str:
    by = f" by {order.client}" if order.client else ""
    at = datetime.fromtimestamp((order.since_us or 0) / 1e6).astimezone()
    return f"stopped{by} at {at:%Y-%m-%d %H:%M:%S}; 'inspector start' has it judge again"
