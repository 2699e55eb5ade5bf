"""Parts that a hardware trigger photographs: the PLC counts them, the camera counts them.

The trigger line tells the camera nothing but 'now'. So a picture is known to be a part's only by
its place: the PLC's n-th edge is the camera's n-th picture. Once the two counts differ, by one lost
edge or one doubled by a bouncing contact, every later picture is of another part. Then nothing
passes until somebody has emptied the line and both count from 1 again.

On a line that never rests, counts alone would not show it: there is always a next picture, to be
taken for the one that is missing. So the edge and the picture must also be close together in time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from inspector.bridges.results import LARGEST

MOST_OPEN: Final = 64
"""Parts that one side may have counted and the other not; more are a difference."""


@dataclass(frozen=True)
class Announced:
    """A part as the PLC counted it.

    ``recipe`` was in force then; ``told_s`` is when the PLC told it, ``due_s`` when its picture
    must have been judged; ``why`` is the reason for which it cannot pass whatever its picture
    shows, or "".
    """

    part_id: str
    recipe: str
    told_s: float
    due_s: float
    why: str = ""


@dataclass(frozen=True)
class _Pictured:
    token: object
    taken_s: float
    due_s: float


class PartCount:
    """Brings each part that the PLC counted together with the picture that the camera counted.

    The two lie ``window_s`` apart at most, which must be less than half of what lies between
    two parts: an edge told late, and the picture after one that was lost, would fit otherwise.
    ``token`` stands for what is known of a picture; it comes back with its part.
    """

    def __init__(self, window_s: float) -> None:
        self._window_s = window_s
        self.agrees = False
        """False: from the start, or since a difference, until ``reset``."""
        self._base = 0
        self._camera = 0
        self._announced: dict[int, Announced] = {}
        self._pictured: dict[int, _Pictured] = {}

    @property
    def open(self) -> int:
        """Parts that only one side has counted so far."""
        return len(self._announced) + len(self._pictured)

    @property
    def counted(self) -> int:
        """The camera's count since the reset, from 0 to 65,535 and then 1 again."""
        return _wrapped(self._camera - self._base)

    def announce(self, count: int, part: Announced) -> object | None:
        """The PLC counted part ``count``; its picture's token if that was judged already."""
        found = self._pictured.get(count)
        if found is not None and self._fit(part.told_s, found.taken_s):
            return self._pictured.pop(count).token
        self._announced[count] = part
        self._hold_together()
        return None

    def picture(
        self, frame: int, token: object, taken_s: float, due_s: float
    ) -> tuple[int, Announced | None]:
        """The camera's picture number ``frame`` of its epoch, taken at ``taken_s``, was judged.

        Returns its count and the part as the PLC announced it, None when it has not yet.
        """
        expected, self._camera = self._camera + 1, frame
        count = self.counted
        if frame != expected:
            self.agrees = False
            return count, None
        part = self._announced.pop(count, None)
        if part is not None:
            self._fit(part.told_s, taken_s)
        elif self.agrees:
            self._pictured[count] = _Pictured(token, taken_s, due_s)
            self._hold_together()
        return count, part

    def late(self, now_s: float) -> bool:
        """True when a part was counted by one side only and its time is over."""
        due_s = [part.due_s for part in self._announced.values()]
        due_s += [picture.due_s for picture in self._pictured.values()]
        return bool(due_s) and min(due_s) <= now_s

    def differ(self) -> tuple[dict[int, Announced], list[object]]:
        """Give up: what was announced without a picture, and pictures that were not announced."""
        self.agrees = False
        announced, pictured = self._announced, [one.token for one in self._pictured.values()]
        self._announced, self._pictured = {}, {}
        return announced, pictured

    def reset(self) -> None:
        """Both count from 1 again; the line is empty."""
        self.agrees = True
        self._base = self._camera

    def restart(self, frame: int) -> None:
        """The camera's count of pictures stands at ``frame``, as it does when a station starts."""
        self._camera = self._base = frame
        self.agrees = False

    def catch_up(self, frame: int) -> None:
        """The station says that its count stands at ``frame``, or did so a moment ago."""
        if not self.agrees:
            self._camera = max(self._camera, frame)

    def _fit(self, told_s: float, taken_s: float) -> bool:
        """True when edge and picture are close enough to be of one part; else the counts differ."""
        fits = abs(told_s - taken_s) <= self._window_s
        self.agrees = self.agrees and fits
        return fits

    def _hold_together(self) -> None:
        if self.open > MOST_OPEN:
            self.agrees = False


def _wrapped(count: int) -> int:
    return (count - 1) % LARGEST + 1 if count > 0 else 0
