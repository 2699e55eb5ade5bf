"""What is done to a line while parts come: each kind in turn, in an order that is drawn."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Sequence
from typing import Final, Protocol

from benchmarks.plc.books import Books, wait_until
from benchmarks.plc.line import TIMEOUT_S, Line
from benchmarks.rows import Tick

_HEALS_S: Final = 60.0
_CALM_S: Final = (0.3, 1.2)
_LATE_S: Final = 1.2
"""Below the PLC's own time for a part, so that late results are results still."""


class Plc(Protocol):
    """What can be done to a PLC, whatever its fieldbus."""

    ready_s: float

    @property
    def waiting(self) -> int:
        """Parts without an end."""

    def freeze(self, for_s: float) -> None:
        """It stands still."""

    def hold(self, for_s: float) -> None:
        """It takes no results."""

    def restart(self) -> None:
        """Its program begins anew."""


KINDS: Final = (
    "cable to the PLCs cut",
    "cable to the PLCs silent",
    "cable to the station cut",
    "cable to the station silent",
    "station killed",
    "bridge killed",
    "PLC frozen",
    "PLC restarted",
    "acknowledgements late",
    "acknowledgements missing",
)


class Disturber:
    """Does one thing after the other to a line, and waits each time until the line works again.

    It goes on until there were so many ``parts``, and each kind was done at least once.
    """

    def __init__(self, line: Line, books: Books, parts: int, kinds: Sequence[str] = KINDS) -> None:
        self.plcs: list[Plc] = []
        self.done: Counter[str] = Counter()
        self.unhealed = 0
        """After how many of them the line did not work again by itself."""
        self._line = line
        self._books = books
        self._parts = parts
        self._kinds = kinds
        self._chance = random.Random(7)
        self._deck: list[str] = []

    def is_enough(self) -> bool:
        """True when no more parts need come."""
        return self._books.triggered >= self._parts and all(self.done[one] for one in self._kinds)

    def go_on(self, tick: Tick) -> None:
        """Until it is enough, and every part has its end."""
        while not self.is_enough():
            time.sleep(self._chance.uniform(*_CALM_S))
            tick(min(self._books.triggered, self._parts), self._parts)
            if not self._deck:
                self._deck = self._chance.sample(self._kinds, len(self._kinds))
            if self._deck:
                self.do(self._deck.pop())
        wait_until(lambda: not any(plc.waiting for plc in self.plcs), 2 * TIMEOUT_S)
        # A result that comes twice would come now.
        time.sleep(0.2)

    def do(self, kind: str) -> None:
        """Do one thing, undo it, and wait for the line."""
        line, chance = self._line, self._chance
        cable = line.plc_cable if "PLCs" in kind else line.station_cable
        plc = chance.choice(self.plcs)
        begun_s = time.monotonic()
        self.done[kind] += 1
        match kind.rsplit(maxsplit=1)[-1]:
            case "cut":
                cable.cut()
                time.sleep(chance.uniform(0.05, 1.5))
                cable.mend()
            case "silent":
                cable.silence()
                time.sleep(chance.uniform(0.05, 2.5))
                cable.mend()
            case "killed":
                line.kill_station() if "station" in kind else line.kill_bridge()
                line.restart()
            case "frozen":
                for_s = chance.uniform(0.2, 2.5)
                plc.freeze(for_s)
                time.sleep(for_s)
            case "restarted":
                plc.restart()
                time.sleep(0.05)
            case "late":
                # Until some wait, at times more than the bridge has room for.
                most = chance.randint(3, 14)
                plc.hold(_LATE_S)
                wait_until(lambda: plc.waiting >= most, _LATE_S)
                plc.hold(0)
            case "missing":
                # As long as a part takes at most: what waits is told too late, or never.
                for_s = TIMEOUT_S + chance.uniform(0.1, 0.5)
                plc.hold(for_s)
                time.sleep(for_s)
                plc.restart()
                time.sleep(0.05)
        mended_s = time.monotonic()
        healed = wait_until(lambda: all(one.ready_s > mended_s for one in self.plcs), _HEALS_S)
        self.unhealed += not healed
        self._books.disturbed.append((begun_s, time.monotonic()))
