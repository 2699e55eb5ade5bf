"""The contract that every kind of camera keeps, and what a camera gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy.typing as npt

from inspector.errors import Fault
from inspector.verdict import Reason


@dataclass(frozen=True)
class Frame:
    """One picture of one part.

    ``image``: uint8 or uint16, ``[H, W]`` or BGR(A) ``[H, W, C]``, read-only: the camera does not
    write to it while it is referenced. ``grabbed_us``: when the driver handed the picture over, µs
    since the Unix epoch. ``part_id``: what the camera calls the part (a file's name, the
    simulator's counter), or "". ``exposed_ns``: a time no later than the start of the exposure, ns
    of ``time.monotonic_ns``, and later than the last frame's; 0 when unknown. ``whole``: call it
    after the pixels were read; False means that they were written over meanwhile.
    """

    image: npt.NDArray[Any]
    grabbed_us: int
    part_id: str = ""
    exposed_ns: int = 0
    whole: Callable[[], bool] = field(default=lambda: True, repr=False, compare=False)


class Camera(Protocol):
    """A source of frames, used by one thread at a time except for ``interrupt``.

    A camera is open from ``open`` to ``close``, and may be opened again: files, folders and
    simulators then start from their beginning. After a :class:`CameraLostError` it has to be closed
    and opened again; after a :class:`BadFrameError` the next ``grab`` goes on with the next part.
    """

    def open(self) -> None:
        """Acquire the device. Raises :class:`inspector.errors.CameraError` with a cure."""
        ...

    def grab(self, timeout_ms: int) -> Frame | None:
        """The next frame; None when the source has ended, as after the last file of a folder.

        Raises :class:`CameraLostError` when there is none within ``timeout_ms`` or the device
        failed, and :class:`BadFrameError` when a part came whose picture cannot be read.
        """
        ...

    def interrupt(self) -> None:
        """Make a ``grab`` that waits in another thread return None soon; any thread may call it.

        Until ``close``, later grabs return None at once, and an ``open`` under way gives up with
        :class:`CameraError`.
        """
        ...

    def close(self) -> None:
        """Release the device; may be called at any time and more than once, and never raises."""
        ...


class CameraLostError(Exception):
    """An open camera gave no fresh frame in time, or its device failed."""


class BadFrameError(Fault):
    """A part came whose picture cannot be read: its verdict is FAULT, and the camera goes on.

    ``part_id`` and ``exposed_ns`` are those of :class:`Frame`.
    """

    def __init__(self, part_id: str, message: str, exposed_ns: int = 0) -> None:
        super().__init__(Reason.FRAME_UNREADABLE.value, message)
        self.part_id = part_id
        self.exposed_ns = exposed_ns


class HalfFrameError(BadFrameError):
    """A frame whose lower half was not written; ``frame`` is the whole one."""

    def __init__(self, frame: Frame) -> None:
        super().__init__(frame.part_id, "the picture is not whole", frame.exposed_ns)
        self.frame = frame
