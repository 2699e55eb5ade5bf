"""The log: one line an event on standard error, ``event key=value key="two words"``.

Under systemd each line begins with its priority (``<4>``, see sd-daemon(3)), which journald takes
off, and bears no time, which journald adds.

Nobody waits for whoever reads the log. Lines go to a bounded queue (:mod:`inspector.streams`), and
what does not fit is dropped and counted. While the log is on, file descriptor 2 is a pipe that this
process itself empties into the same queue: so what libraries and camera processes write there
cannot stop them either.
"""

from __future__ import annotations

import atexit
import contextlib
import faulthandler
import json
import logging
import os
import re
import select
import sys
import threading
import time
from types import TracebackType
from typing import Final

from inspector.shown import plain
from inspector.streams import LineSink

_log: Final = logging.getLogger("inspector")

_PIPE_BYTES: Final = 2**20
_LONGEST_LINE: Final = 65536
"""A longer one that comes by the pipe is cut in two."""
_QUIET_S: Final = 10.0
_MOST_REFUSALS: Final = 20
_LONGEST_NAME: Final = 64
_LONGEST_PROBLEM: Final = 300

_PRIORITIES: Final = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4))


_output: _Output | None = None


def say(event: str, level: int = logging.INFO, **fields: object) -> None:
    """Log ``event`` with its fields; a field that is "" is left out."""
    shown = (f" {key}={quoted(str(value))}" for key, value in fields.items() if value != "")
    _log.log(level, "%s%s", event, "".join(shown))


def quoted(value: str) -> str:
    """``value`` as it stands, or as a JSON string where it could be taken for something else.

    What a part is called comes from outside: it can neither begin a new line nor move a cursor.
    """
    if not value.isprintable():
        return json.dumps(value)
    return json.dumps(value, ensure_ascii=False) if re.search(r'[\s"=]', value) else value


class Refusals:
    """Logs what peers did wrong: not more often than every ten seconds for each cause, nor more
    than twenty lines in that time for all of them together. ``event`` begins each line.
    """

    def __init__(self, event: str) -> None:
        self._event = event
        self._said_s: dict[str, float] = {}
        self._since_s = -_QUIET_S
        self._lines = 0

    def say(self, who: str, problem: str) -> None:
        """One line, or none if the same was said just now."""
        # Names and addresses come from outside, and are as long as a peer likes.
        who, problem = who[:_LONGEST_NAME], problem[:_LONGEST_PROBLEM]
        if self.admits(f"{who}\0{problem}"):
            say(self._event, logging.WARNING, peer=who, problem=problem)

    def admits(self, key: str) -> bool:
        """Whether there may be a line for ``key`` now; the caller then writes it."""
        now_s = time.monotonic()
        if now_s >= self._since_s + _QUIET_S:
            if self._lines > _MOST_REFUSALS:
                more = self._lines - _MOST_REFUSALS
                say(self._event, logging.WARNING, problem=f"{more} more refusals")
            self._since_s, self._lines = now_s, 0
            self._said_s = {key: at_s for key, at_s in self._said_s.items() if now_s < at_s}
        if now_s < self._said_s.get(key, now_s):
            return False
        self._lines += 1
        if self._lines > _MOST_REFUSALS:
            return False
        self._said_s[key] = now_s + _QUIET_S
        return True


def to_stderr() -> None:
    """Send the log to standard error, and what nobody caught into the log; once a process.

    What waits for its reader at the end of the process gets a second more.
    """
    global _output  # noqa: PLW0603
    if _output is not None:
        return
    handler: logging.Handler
    formatter = _formatter()
    try:
        _output = _Output(sys.stderr.fileno())
        handler = _SinkHandler(_output.sink)
    except (OSError, ValueError, AttributeError):
        # Standard error is closed, or is no file: what a test has put there blocks nobody.
        handler = logging.StreamHandler()
    handler.setFormatter(formatter)
    _log.addHandler(handler)
    _log.setLevel(logging.INFO)
    sys.excepthook = _log_crash
    threading.excepthook = _log_thread_crash


def dropped() -> int:
    """How many lines were dropped so far because nobody read the log."""
    return 0 if _output is None else _output.sink.dropped


class _Output:
    """Standard error in the hands of a sink, and the pipe that stands in its place."""

    def __init__(self, fd: int) -> None:
        sys.stderr.flush()
        self._fd = fd
        self._real_fd = os.dup(fd)
        self.sink = LineSink(
            self._real_fd, lambda lines: say("log lines dropped", logging.WARNING, lines=lines)
        )
        self._pipe_fd, ours = os.pipe()
        self._ending_fd, self._end_fd = os.pipe()
        _widen(ours)
        os.dup2(ours, fd)
        os.close(ours)
        if faulthandler.is_enabled():
            # The stacks that it writes when the process dies would stay in the pipe.
            faulthandler.enable(file=self._real_fd)
        self._relay = threading.Thread(target=self._pass_on, name="log-relay", daemon=True)
        self._relay.start()
        atexit.register(self._end)

    def _pass_on(self) -> None:
        """Empty the pipe into the sink, in whole lines, until the process ends."""
        os.set_blocking(self._pipe_fd, False)
        rest = b""
        while True:
            ready, _, _ = select.select([self._pipe_fd, self._ending_fd], [], [])
            data = b""
            with contextlib.suppress(BlockingIOError):
                data = os.read(self._pipe_fd, 65536)
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                self.sink.put(line + b"\n")
            if len(rest) > _LONGEST_LINE or (rest and not data):
                self.sink.put(rest + b"\n")
                rest = b""
            if not data and self._ending_fd in ready:
                return

    def _end(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.flush()
        os.close(self._end_fd)
        self._relay.join()
        if self.sink.close():
            os.dup2(self._real_fd, self._fd)


class _SinkHandler(logging.Handler):
    def __init__(self, sink: LineSink) -> None:
        super().__init__()
        self._sink = sink

    def emit(self, record: logging.LogRecord) -> None:
        text = self.format(record) + "\n"
        self._sink.put(text.encode("utf-8", "backslashreplace"))


def _formatter() -> logging.Formatter:
    if _stderr_is_journal():
        return _ForJournal("%(message)s")
    formatter = _Plain("%(asctime)s.%(msecs)03dZ %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%S")
    formatter.converter = time.gmtime
    return formatter


class _Plain(logging.Formatter):
    """Escapes what cannot be printed: an error that nobody caught may say anything."""

    def format(self, record: logging.LogRecord) -> str:
        return "\n".join(map(plain, super().format(record).split("\n")))


def _widen(pipe_fd: int) -> None:
    """Let a pipe hold a megabyte, if the system allows it."""
    if sys.platform == "linux":
        import fcntl

        with contextlib.suppress(OSError):
            fcntl.fcntl(pipe_fd, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)


class _ForJournal(_Plain):
    def format(self, record: logging.LogRecord) -> str:
        priority = next((p for level, p in _PRIORITIES if record.levelno >= level), 6)
        # journald takes every line of a traceback for a message of its own.
        return "\n".join(f"<{priority}>{line}" for line in super().format(record).splitlines())


def _stderr_is_journal() -> bool:
    # The variable is inherited by children whose standard error goes elsewhere: sd-daemon(3).
    try:
        status = os.fstat(sys.stderr.fileno())
    except (OSError, ValueError, AttributeError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def _log_crash(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
        return
    _log.critical("crash error=%s", kind.__name__, exc_info=(kind, error, trace))


def _log_thread_crash(crash: threading.ExceptHookArgs) -> None:
    if crash.exc_value is None or crash.exc_type is SystemExit:
        return
    name = quoted(crash.thread.name if crash.thread else "")
    trace = (crash.exc_type, crash.exc_value, crash.exc_traceback)
    _log.critical("crash thread=%s error=%s", name, crash.exc_type.__name__, exc_info=trace)
