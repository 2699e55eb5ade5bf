"""What hangs, for real: a pipe that nobody reads, and a file that no open gets."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def unread_pipe() -> Iterator[tuple[int, int]]:
    """(read end, write end) of a pipe that is full already."""
    read_fd, write_fd = os.pipe()
    try:
        os.set_blocking(write_fd, False)
        for size in (65536, 4096, 1):
            with contextlib.suppress(BlockingIOError):
                while True:
                    os.write(write_fd, b"." * size)
        os.set_blocking(write_fd, True)
        yield read_fd, write_fd
    finally:
        os.close(read_fd)
        os.close(write_fd)


@contextlib.contextmanager
def hanging_file(path: Path) -> Iterator[None]:
    """Let every open of ``path`` hang meanwhile, as on a network share whose server is gone.

    It is a lease, which the kernel takes away after 45 s (fcntl(2), lease-break-time).
    """
    before = signal.signal(signal.SIGIO, signal.SIG_IGN)
    handle = os.open(path, os.O_RDWR)
    try:
        fcntl.fcntl(handle, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        yield
    finally:
        os.close(handle)
        signal.signal(signal.SIGIO, before)
