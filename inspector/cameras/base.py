"""The contract every camera kind keeps."""

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
    write to it while it is referenced. ``grabbed_us``: µs since the Unix epoch, taken when the
    driver handed the picture over. ``part_id``: what the camera knows of the part (a file's name,
    the simulator's counter), or "". ``exposed_ns``: a time no later than the start of the exposure,
    ns of ``time.monotonic_ns``, above the last frame's; 0: unknown. ``whole``: to be asked after
    the picture was read, False when it was written over meanwhile.
    """

    image: npt.NDArray[Any]
    grabbed_us: int
    part_id: str = ""
    exposed_ns: int = 0
    whole: Callable[[], bool] = field(default=lambda: True, repr=False, compare=False)


class Camera(Protocol):
    """A source of frames, used by one thread at a time except for ``interrupt``.

    A camera is open after ``open`` returns. ``grab`` waits at most ``timeout_ms`` and returns the
    next frame, None when the source has ended (the last file of a folder), and raises
    ``CameraLostError`` when there is no frame in time or the device failed; after that ``close``
    then ``open`` may be tried again. It raises ``BadFrameError`` when a part came whose picture
    cannot be read; the next ``grab`` goes on with the next part. ``close`` may be called at any
    time, more than once; a camera that was closed may be opened again: files, folders and
    simulators start from their beginning.
    """

    def open(self) -> None:
        """Acquire the device. Raises :class:`inspector.errors.CameraError` with a cure."""
        ...

    def grab(self, timeout_ms: int) -> Frame | None:
        """Next frame, None at the end. Raises CameraLostError or BadFrameError."""
        ...

    def interrupt(self) -> None:
        """Make a ``grab`` that waits in another thread return None soon; any thread may call.

        It holds until ``close``: later grabs return None at once, an ``open`` under way gives up
        with CameraError.
        """
        ...

    def close(self) -> None:
        """Release the device; never raises."""
        ...


class CameraLostError(Exception):
    """An open camera gave no fresh frame in time, or its device failed."""


class BadFrameError(Fault):
    """A part came whose picture cannot be read: it is owed a FAULT, and the camera goes on.

    ``exposed_ns`` as in :class:`Frame`.
    """

    def __init__(self, part_id: str, message: str, exposed_ns: int = 0) -> None:
        super().__init__(Reason.FRAME_UNREADABLE.value, message)
        self.part_id = part_id
        self.exposed_ns = exposed_ns
