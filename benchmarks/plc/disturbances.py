"""What is done to a line while parts come: each kind in turn, in an order that is drawn."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from benchmarks.plc.books import Books, wait_until
from benchmarks.plc.line import TIMEOUT_S, Line

_HEALS_S: Final = 30.0
_CALM_S: Final = (0.3, 1.2)


class Plc(Protocol):
    """What can be done to a PLC, whatever its fieldbus."""

    ready_s: float

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
    """Does one thing after the other to a line, and waits each time until the line works again."""

    def __init__(
        self, line: Line, plcs: Sequence[Plc], books: Books, kinds: Sequence[str] = KINDS
    ) -> None:
        self._line = line
        self._plcs = plcs
        self._books = books
        self._kinds = kinds
        self._chance = random.Random(7)
        self._deck: list[str] = []
        self.done: Counter[str] = Counter()
        self.unhealed = 0
        """After how many of them the line did not work again by itself."""

    def go_on(self, enough: Callable[[], bool]) -> None:
        """Until there were ``enough`` parts, and each kind was done at least once."""
        while not enough() or any(not self.done[kind] for kind in self._kinds):
            time.sleep(self._chance.uniform(*_CALM_S))
            if not self._deck:
                self._deck = self._chance.sample(self._kinds, len(self._kinds))
            self.do(self._deck.pop())

    def do(self, kind: str) -> None:
        """Do one thing, undo it, and wait for the line."""
        line, chance = self._line, self._chance
        cable = line.plc_cable if "PLCs" in kind else line.station_cable
        plc = chance.choice(self._plcs)
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
                for_s = chance.uniform(0.1, 0.7)
                plc.hold(for_s)
                time.sleep(for_s)
            case "missing":
                # As long as a part takes at most: what waits is told too late, or never.
                for_s = TIMEOUT_S + chance.uniform(0.1, 0.5)
                plc.hold(for_s)
                time.sleep(for_s)
                plc.restart()
                time.sleep(0.05)
        mended_s = time.monotonic()
        healed = wait_until(lambda: all(one.ready_s > mended_s for one in self._plcs), _HEALS_S)
        self.unhealed += not healed
        self._books.disturbed.append((begun_s, time.monotonic()))
