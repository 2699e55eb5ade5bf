"""Frames through shared memory: one process writes into slots, another reads them in place.

The reader names the slot for the next frame, and never one whose picture is still in use. So a
frame is judged and kept where the camera's process put it, without a copy.

The memory is a Linux memfd. It has no name, so the kernel frees it with its last user, however that
one ends. Its pages are allocated at once, so that a lack of memory is an error then and not a bus
error later, and it is sealed against shrinking.
"""

from __future__ import annotations

import contextlib
import fcntl
import math
import mmap
import os
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

SLOTS: Final = 4
"""One each for the last frame (which a frozen camera repeats), for the frame being judged, for one
that waits, and for the next."""
NAME: Final = "line-inspector-ring"

_HEAD: Final = 128
_PAGE: Final = mmap.PAGESIZE
_MFD_NOEXEC_SEAL: Final = 0x0008

# Pictures have the first two types. OpenCV may read the others from a file; the detector refuses
# them, so that such a part gets a FAULT with the reason.
_DTYPES: Final = tuple(
    np.dtype(kind)
    for kind in (np.uint8, np.uint16, np.int8, np.int16, np.int32, np.float32, np.float64)
)

# Fields of a slot's head, int64 each. A slot is whole while _BEGUN and _DONE are its sequence.
_BEGUN, _DONE, _GRABBED_US, _EXPOSED_NS, _DTYPE, _NDIM, _SHAPE = range(7)


class TornError(Exception):
    """The slot does not hold the announced frame, or only part of it."""


@dataclass(frozen=True)
class Slot:
    """What a slot holds: a picture, and its times as in ``Frame``.

    ``whole`` returns False once the writer has begun another frame in the slot.
    """

    image: npt.NDArray[Any]
    grabbed_us: int
    exposed_ns: int
    whole: Callable[[], bool] = lambda: True


def takes(image: npt.NDArray[Any]) -> bool:
    """True when a slot can hold ``image``: ``[H, W]`` or ``[H, W, C]``, of OpenCV's types."""
    return image.ndim in (2, 3) and image.size > 0 and image.dtype in _DTYPES


def allocate(size: int, name: str = NAME) -> int:
    """Anonymous memory of ``size`` bytes, all 0: a file descriptor, which the caller closes.

    Raises OSError when there is not enough.
    """
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        fd = os.memfd_create(name, flags | _MFD_NOEXEC_SEAL)
    except OSError:
        # Kernels before 6.3 do not know the flag.
        fd = os.memfd_create(name, flags)
    try:
        os.posix_fallocate(fd, 0, size)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
    except OSError:
        os.close(fd)
        raise
    return fd


class RingWriter:
    """The end that writes. ``sequence`` counts the frames, from 1."""

    def __init__(self) -> None:
        self.sequence = 0
        self._segment: mmap.mmap | None = None
        self._fd = -1
        self._room = 0

    def fit(self, nbytes: int) -> int | None:
        """Make room for frames of ``nbytes``; returns None when the segment fits already.

        Else returns the descriptor of a new segment, of which the reader must be given a copy.
        Raises OSError when there is not enough memory.
        """
        # Much smaller frames get a smaller segment, so that one large picture does not occupy its
        # memory for ever.
        if self._room // 4 <= nbytes <= self._room and self._segment is not None:
            return None
        self.close()
        stride = -(-(_HEAD + nbytes) // _PAGE) * _PAGE
        self._fd = allocate(SLOTS * stride)
        self._segment = mmap.mmap(self._fd, SLOTS * stride)
        self._room = stride - _HEAD
        return self._fd

    def write(
        self,
        image: npt.NDArray[Any],
        slot: int,
        grabbed_us: int,
        exposed_ns: int,
        torn: bool = False,
    ) -> int:
        """Put a picture into ``slot``; call ``takes`` and ``fit`` first.

        Returns its sequence number. ``torn`` stops in the middle, like a writer that dies there.
        """
        if self._segment is None or image.nbytes > self._room:
            raise ValueError("no room: fit() comes before write()")
        self.sequence += 1
        offset = slot % SLOTS * (_HEAD + self._room)
        head = _head(self._segment, offset)
        head[_BEGUN] = self.sequence
        kind = _DTYPES.index(image.dtype)
        head[_GRABBED_US:_SHAPE] = grabbed_us, exposed_ns, kind, image.ndim
        head[_SHAPE : _SHAPE + image.ndim] = image.shape
        pixels = _pixels(self._segment, offset, image.shape, image.dtype)
        rows = image.shape[0] // 2 if torn else image.shape[0]
        pixels[:rows] = image[:rows]
        if not torn:
            head[_DONE] = self.sequence
        return self.sequence

    def close(self) -> None:
        """Release the memory."""
        _close(self._segment)
        if self._fd >= 0:
            os.close(self._fd)
        self._segment, self._fd, self._room = None, -1, 0


class RingReader:
    """The end that reads. The writer may be broken, so it trusts nothing in the memory."""

    def __init__(self) -> None:
        self._segment: mmap.mmap | None = None
        self._attached = 0
        self._lent: set[tuple[int, int]] = set()

    def attach(self, fd: int) -> None:
        """Read from the segment ``fd`` from now on; closes the descriptor.

        Raises ValueError for memory that is no segment, or that could still be shrunk.
        """
        self.close()
        with contextlib.ExitStack() as undo:
            undo.callback(os.close, fd)
            seals = fcntl.fcntl(fd, fcntl.F_GET_SEALS)
            size = os.fstat(fd).st_size
            if not seals & fcntl.F_SEAL_SHRINK or size == 0 or size % (SLOTS * _PAGE):
                raise ValueError("not a segment of this program")
            self._segment = mmap.mmap(fd, size, prot=mmap.PROT_READ)
            self._attached += 1

    @property
    def free(self) -> int:
        """A slot for the next frame, whose picture is not in use."""
        return next(slot for slot in range(SLOTS) if (self._attached, slot) not in self._lent)

    def borrow(self, sequence: int, slot: int) -> Slot:
        """Frame ``sequence`` in ``slot``, read-only; the slot is not free while it is referenced.

        The picture is a copy when all slots but one are lent, those of earlier segments included.
        Raises :class:`TornError` when the slot does not hold it.
        """
        found = self._find(sequence, slot)
        if len(self._lent) >= SLOTS - 1:
            return _copied(found, sequence)
        # A view of the picture references it, so the last view that goes frees the slot.
        place = self._attached, slot % SLOTS
        self._lent.add(place)
        weakref.finalize(found.image, self._lent.discard, place).atexit = False
        return found

    def _find(self, sequence: int, slot: int) -> Slot:
        if self._segment is None:
            raise TornError("frame without a segment")
        stride = len(self._segment) // SLOTS
        offset = slot % SLOTS * stride
        head = _head(self._segment, offset)
        if head[_DONE] != sequence:
            raise TornError(f"frame {sequence} is not whole")
        fields = [int(value) for value in head]
        ndim, kind = fields[_NDIM], fields[_DTYPE]
        shape = tuple(fields[_SHAPE : _SHAPE + ndim])
        if ndim not in (2, 3) or min(shape) < 1 or not 0 <= kind < len(_DTYPES):
            raise TornError(f"frame {sequence} has an impossible shape")
        if math.prod(shape) * _DTYPES[kind].itemsize > stride - _HEAD:
            raise TornError(f"frame {sequence} is larger than its slot")
        return Slot(
            _pixels(self._segment, offset, shape, _DTYPES[kind]),
            fields[_GRABBED_US],
            fields[_EXPOSED_NS],
            lambda: bool(head[_BEGUN] == sequence),
        )

    def close(self) -> None:
        """Release the memory as soon as the last picture in it is not referenced any more."""
        # The mapping is not closed, since numpy arrays do not keep it open.
        self._segment = None


def numbers(fd: int) -> npt.NDArray[np.int64]:
    """The memory ``fd`` as numbers, which outlive the process that writes them."""
    return np.frombuffer(mmap.mmap(fd, os.fstat(fd).st_size), np.int64)


def _copied(slot: Slot, sequence: int) -> Slot:
    image = slot.image.copy()
    if not slot.whole():
        raise TornError(f"frame {sequence} was written over while it was read")
    return Slot(image, slot.grabbed_us, slot.exposed_ns)


def _close(segment: mmap.mmap | None) -> None:
    # While an error is handled it may still reference a view; the memory is released with it.
    if segment is not None:
        with contextlib.suppress(BufferError):
            segment.close()


def _head(segment: mmap.mmap, offset: int) -> npt.NDArray[np.int64]:
    return np.frombuffer(segment, np.int64, _HEAD // 8, offset)


def _pixels(
    segment: mmap.mmap, offset: int, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> npt.NDArray[Any]:
    return np.ndarray(shape, dtype, segment, offset + _HEAD)
