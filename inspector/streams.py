"""Lines for somebody who may stop reading: the program that writes them never waits for that."""

from __future__ import annotations

import collections
import os
import select
import sys
import threading
import time
from collections.abc import Callable
from typing import Final

_MOST_BYTES: Final = 2**20
_PIECE_BYTES: Final = 4096
"""As much as a pipe takes at once when it says that it takes something (PIPE_BUF on Linux)."""
_POLL_S: Final = 0.1
_CLOSE_S: Final = 1.0
_COMPLAIN_S: Final = 1.0


def takes_some(fd: int, timeout_s: float) -> bool:
    """Wait until ``fd`` takes some kilobytes without blocking; False when it does not in time."""
    if not hasattr(select, "poll"):
        # On such a system the write itself may wait; ``LineSink.close`` then leaves it behind.
        return True
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    return bool(poll.poll(timeout_s * 1000))


def silence(fd: int) -> None:
    """Have nothing more written to ``fd``: whoever should read it does not."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), fd)


def until_unread(command: Callable[[], int], *, cut_short: int) -> int:
    """What ``command`` returns, or ``cut_short`` when whoever read its output ended before it did.

    So ``inspector check | head`` ends without a traceback, also where Python would write the rest
    of its output only as it exits.
    """
    try:
        code = command()
    except BrokenPipeError:
        code = cut_short
    finally:
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except BrokenPipeError:
                silence(stream.fileno())
            except (OSError, ValueError, AttributeError):
                # Closed, or no file: there is nobody to write to, and no error to tell.
                pass
    return code


def complain(text: str) -> None:
    """Print ``text`` on standard error, unless nobody takes it within a second."""
    try:
        fd = sys.stderr.fileno()
        if not takes_some(fd, _COMPLAIN_S):
            silence(fd)
    except (OSError, ValueError, AttributeError):
        # Standard error is closed, or is no file, and no reader can keep it waiting.
        pass
    print(text, file=sys.stderr)


class LineSink:
    """Writes lines to the file descriptor ``fd`` in a thread of its own; it never closes it.

    Lines wait in a queue of ``most_bytes`` bytes. When that is full, and when the descriptor
    refuses a line, lines are dropped and counted. Once lines flow again ``resumed`` is called in
    the sink's thread with the number of those that are missing at this place; it may ``put`` a line
    that says so.
    """

    def __init__(
        self, fd: int, resumed: Callable[[int], None], *, most_bytes: int = _MOST_BYTES
    ) -> None:
        self._fd = fd
        self._resumed = resumed
        self._most_bytes = most_bytes
        self._lines: collections.deque[bytes] = collections.deque()
        self._bytes = 0
        self._changed = threading.Condition()
        self._overflows = False
        self._missing = 0
        self._dropped = 0
        self._broken = False
        self._give_up_at: float | None = None
        self._thread = threading.Thread(target=self._work, name="line-sink", daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> int:
        """How many lines were dropped so far."""
        return self._dropped

    @property
    def broken(self) -> bool:
        """True once nobody can read any more: the reader has ended, or the terminal is closed."""
        return self._broken

    def put(self, line: bytes) -> None:
        """Have ``line`` written, which ends with its line break; any thread, never blocks."""
        with self._changed:
            # After an overflow the queue runs empty first, so that the gap is in one place.
            if self._overflows or self._bytes + len(line) > self._most_bytes:
                self._overflows = bool(self._lines)
                self._miss()
                return
            self._lines.append(line)
            self._bytes += len(line)
            self._changed.notify_all()

    def close(self, patience_s: float = _CLOSE_S) -> bool:
        """Write what waits, at most for ``patience_s``; True when all of it is written.

        What is ``put`` later is dropped.
        """
        with self._changed:
            self._give_up_at = time.monotonic() + patience_s
            self._changed.notify_all()
        # A moment more than the thread gives itself.
        self._thread.join(patience_s + 2 * _POLL_S)
        with self._changed:
            left = len(self._lines)
            self._overflows = True
        return not left

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._lines or self._give_up_at is not None)
                if not self._lines:
                    return
                line = self._lines[0]
            written = self._write(line)
            if written is None:
                return
            with self._changed:
                self._lines.popleft()
                self._bytes -= len(line)
                if not written:
                    self._miss()
                if self._lines:
                    continue
                self._overflows = False
                missing = self._missing if written else 0
                self._missing -= missing
            if missing:
                self._resumed(missing)

    def _write(self, line: bytes) -> bool | None:
        """True when it is written, False when it is refused, None when time is up."""
        rest = memoryview(line)
        while rest:
            if not takes_some(self._fd, _POLL_S):
                if self._give_up_at is not None and time.monotonic() > self._give_up_at:
                    return None
                continue
            try:
                rest = rest[os.write(self._fd, rest[:_PIECE_BYTES]) :]
            except BlockingIOError:
                # Another process has made the same open file non-blocking, and was quicker.
                time.sleep(_POLL_S)
            except OSError as error:
                self._broken = isinstance(error, BrokenPipeError)
                return False
        return True

    def _miss(self) -> None:
        self._dropped += 1
        self._missing += 1
