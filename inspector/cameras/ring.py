"""Frames through shared memory: a ring of slots, one process writes, another reads.

The memory is a Linux memfd. It has no name, so whoever is killed, and however, the kernel takes it
back with its last user: nothing can be left behind. Its pages are allocated when it is made (a
full memory is an error there, not a bus error later) and it is sealed against shrinking.
"""

from __future__ import annotations

import contextlib
import fcntl
import math
import mmap
import os
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

SLOTS: Final = 3
NAME: Final = "line-inspector-ring"

_HEAD: Final = 128
_PAGE: Final = mmap.PAGESIZE
_MFD_NOEXEC_SEAL: Final = 0x0008

# Two for pictures; the others are what OpenCV can find in a file, refused where they are judged.
_DTYPES: Final = tuple(
    np.dtype(kind)
    for kind in (np.uint8, np.uint16, np.int8, np.int16, np.int32, np.float32, np.float64)
)

# Fields of a slot's head, int64 each.
_BEGUN, _DONE, _GRABBED_US, _EXPOSED_NS, _DTYPE, _NDIM, _SHAPE = range(7)


class TornError(Exception):
    """The slot does not hold the frame that was announced, whole."""


@dataclass(frozen=True)
class Slot:
    """What a slot held: a picture of one's own, and its times as in ``Frame``."""

    image: npt.NDArray[Any]
    grabbed_us: int
    exposed_ns: int


def takes(image: npt.NDArray[Any]) -> bool:
    """Whether a slot can hold such an image: ``[H, W]`` or ``[H, W, C]``, of OpenCV's types."""
    return image.ndim in (2, 3) and image.size > 0 and image.dtype in _DTYPES


def allocate(size: int, name: str = NAME) -> int:
    """Anonymous memory of ``size`` bytes, zeros: a file descriptor, which the caller closes.

    Raises OSError when there is not so much.
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


class Writer:
    """The end that writes. ``sequence`` counts the frames, from 1."""

    def __init__(self) -> None:
        self.sequence = 0
        self._segment: mmap.mmap | None = None
        self._fd = -1
        self._room = 0

    def fit(self, nbytes: int) -> int | None:
        """Make room for frames of ``nbytes``: a new segment's descriptor, None when it fits.

        The reader must be given the descriptor; it stays the writer's. Raises OSError when there
        is no memory.
        """
        # Much smaller frames get smaller slots, so that one large picture is not paid for for ever.
        if self._room // 4 <= nbytes <= self._room and self._segment is not None:
            return None
        self.close()
        stride = -(-(_HEAD + nbytes) // _PAGE) * _PAGE
        self._fd = allocate(SLOTS * stride)
        self._segment = mmap.mmap(self._fd, SLOTS * stride)
        self._room = stride - _HEAD
        return self._fd

    def write(
        self, image: npt.NDArray[Any], grabbed_us: int, exposed_ns: int, torn: bool = False
    ) -> int:
        """Put a picture into the next slot; ``takes`` and ``fit`` come before.

        Returns its sequence number. ``torn`` stops in the middle, as a writer does that dies there.
        """
        if self._segment is None or image.nbytes > self._room:
            raise ValueError("no room: fit() comes before write()")
        self.sequence += 1
        offset = self.sequence % SLOTS * (_HEAD + self._room)
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
        """Let the memory go."""
        _close(self._segment)
        if self._fd >= 0:
            os.close(self._fd)
        self._segment, self._fd, self._room = None, -1, 0


class Reader:
    """The end that reads; it trusts nothing that stands in the memory."""

    def __init__(self) -> None:
        self._segment: mmap.mmap | None = None

    def attach(self, fd: int) -> None:
        """Read from the segment ``fd`` from now on; takes and closes the descriptor.

        Raises ValueError when it could still be shrunk under us.
        """
        self.close()
        with contextlib.ExitStack() as undo:
            undo.callback(os.close, fd)
            seals = fcntl.fcntl(fd, fcntl.F_GET_SEALS)
            size = os.fstat(fd).st_size
            if not seals & fcntl.F_SEAL_SHRINK or size == 0 or size % (SLOTS * _PAGE):
                raise ValueError("not a segment of this program")
            self._segment = mmap.mmap(fd, size, prot=mmap.PROT_READ)

    def read(self, sequence: int) -> Slot:
        """Frame ``sequence``, copied. Raises :class:`TornError` when its slot does not hold it."""
        if self._segment is None:
            raise TornError("frame without a segment")
        stride = len(self._segment) // SLOTS
        offset = sequence % SLOTS * stride
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
        image = _pixels(self._segment, offset, shape, _DTYPES[kind]).copy()
        if head[_BEGUN] != sequence:
            raise TornError(f"frame {sequence} was written over while it was read")
        return Slot(image, fields[_GRABBED_US], fields[_EXPOSED_NS])

    def close(self) -> None:
        """Let the memory go."""
        _close(self._segment)
        self._segment = None


def numbers(fd: int) -> npt.NDArray[np.int64]:
    """The memory ``fd`` as numbers; what is written there outlives the process that writes."""
    return np.frombuffer(mmap.mmap(fd, os.fstat(fd).st_size), np.int64)


def _close(segment: mmap.mmap | None) -> None:
    # An error that is being handled may still hold a view; the memory goes with it.
    if segment is not None:
        with contextlib.suppress(BufferError):
            segment.close()


def _head(segment: mmap.mmap, offset: int) -> npt.NDArray[np.int64]:
    return np.frombuffer(segment, np.int64, _HEAD // 8, offset)


def _pixels(
    segment: mmap.mmap, offset: int, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> npt.NDArray[Any]:
    return np.ndarray(shape, dtype, segment, offset + _HEAD)
