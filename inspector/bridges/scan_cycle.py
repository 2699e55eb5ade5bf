"""The cycle in which a simulated PLC runs its program, whatever the fieldbus."""

from __future__ import annotations

import abc
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Seen:
    """How one part ended for the PLC."""

    part_id: str
    verdict: int
    """1 pass, 2 fail, 3 fault, 0: no result in the PLC's own time, or none was begun."""
    reason: str
    score: float
    took_ms: float

    @property
    def passes(self) -> bool:
        """True only for a PASS in time: everything else is a reject."""
        return self.verdict == 1


class ScanCycle(abc.ABC):
    """A PLC program that works as a line does.

    A part comes, is triggered, and is let through only when a PASS for this very part has come
    within the PLC's own time. Everything else is a reject, silence included.
    """

    @abc.abstractmethod
    def scan(self) -> list[Seen]:
        """One cycle: inputs, program, outputs; gives the parts that ended."""

    @abc.abstractmethod
    def trigger(self, part_id: str) -> None:
        """Fire for the part that stands before the camera; only while ``may_trigger``."""

    @property
    @abc.abstractmethod
    def may_trigger(self) -> bool:
        """True while the camera takes a part."""

    @property
    @abc.abstractmethod
    def waiting(self) -> int:
        """Parts that have no end yet."""

    @property
    @abc.abstractmethod
    def discarded(self) -> int:
        """Results that came for parts which were given up by then."""

    def rest(self, left_s: float) -> None:
        """Spend what is left of the cycle's time."""
        time.sleep(left_s)

    @abc.abstractmethod
    def close(self) -> None:
        """Close the connection."""

    def run(
        self,
        parts: int,
        every_s: float,
        *,
        cycle_s: float = 0.005,
        stop: Callable[[], bool] = lambda: False,
    ) -> Iterator[Seen]:
        """Send ``parts`` past the camera, one ``every_s`` at the most; gives each part's end."""
        sent, due_s = 0, time.monotonic()
        while not stop() and (sent < parts or self.waiting):
            begun_s = time.monotonic()
            yield from self.scan()
            if sent < parts and begun_s >= due_s and self.may_trigger:
                sent += 1
                due_s = begun_s + every_s
                self.trigger(f"part-{sent:05}")
            self.rest(max(0.0, cycle_s - (time.monotonic() - begun_s)))
        # The last result is acknowledged by the next write only.
        yield from self.scan()
