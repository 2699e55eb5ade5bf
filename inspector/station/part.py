"""A part on its way: what is owed a verdict, and what travels with it until it has one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy.typing as npt

from inspector.station.triggers import Trigger
from inspector.verdict import Judgement
from inspector.wire.messages import RefusalCode, VerdictMessage


class Requester(Protocol):
    """Whoever triggered a part; :class:`inspector.wire.requests.Request` is one."""

    def accept(self) -> None:
        """The trigger is in the journal: it will get a verdict."""
        ...

    def acquire(self, grabbed_us: int) -> None:
        """The picture of the part is taken, at ``grabbed_us`` (wall time): the part may move."""
        ...

    def answer(self, verdict: VerdictMessage, recorded: bool = True) -> None:
        """The verdict on the part, and whether it is in the journal."""
        ...

    def refuse(self, code: RefusalCode, detail: str) -> None:
        """There is no part, and why."""
        ...


class Picture(Protocol):
    """What the camera saw of a part; :class:`inspector.cameras.Frame` is one."""

    @property
    def image(self) -> npt.NDArray[Any]:
        """Uint8 or uint16, ``[H, W]`` or BGR(A) ``[H, W, C]``, read-only."""
        ...

    @property
    def whole(self) -> Callable[[], bool]:
        """Asked after the picture was read: False when it was written over meanwhile."""
        ...


@dataclass(eq=False)
class Part:
    """A part from its trigger, or its picture, to its verdict.

    The ledger opens it, settles it once and closes it in its turn; the judge loop reads ``frame``;
    the delivery answers ``requests``. All times are monotonic.
    """

    camera: str
    start_ns: int
    """When its time began to run: its trigger, or its picture's arrival."""
    deadline_ns: int
    """The first moment that is too late."""
    part_id: str = ""
    trigger: Trigger | None = None
    requests: list[Requester] = field(default_factory=list)
    grabbed_us: int | None = None
    """Wall time at which the camera handed the picture over."""
    frame_number: int | None = None
    """Number of its picture among the camera's of this epoch, from 1."""
    waiting_since_ns: int | None = None
    """When its picture began to wait for the judge; None: there is none."""
    frame: Picture | None = field(default=None, repr=False)
    """None before the exposure, and once the picture may no longer be used."""
    judgement: Judgement | None = field(default=None, repr=False)
    draft: VerdictMessage | None = field(default=None, repr=False)
    """The verdict, before it has its number."""
    settled_ns: int | None = None
    """When it got its ``draft``."""

    def await_by(self, requests: Sequence[Requester]) -> None:
        """These wait for its verdict from now on; they hear of its picture, if that is taken."""
        self.requests += requests
        if self.grabbed_us is not None:
            for request in requests:
                request.acquire(self.grabbed_us)

    def expose(self, grabbed_us: int, since_ns: int, number: int) -> None:
        """Its picture is taken: whoever waits for it is told at once, before it is judged."""
        self.grabbed_us, self.waiting_since_ns, self.frame_number = grabbed_us, since_ns, number
        for request in self.requests:
            request.acquire(grabbed_us)

    @property
    def due_ns(self) -> int:
        """When its verdict is due: at once where it is settled, else at the deadline."""
        return self.deadline_ns if self.settled_ns is None else self.settled_ns

    @property
    def is_begun(self) -> bool:
        """True for a part that was triggered or seen.

        False for the FAULT that a lost camera owes for a part which nobody saw.
        """
        return self.trigger is not None or self.waiting_since_ns is not None
