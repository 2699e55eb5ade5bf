"""A station as the whole of this process: signals, the heap, and a parent that may go."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Final

from inspector.config.station_file import Station
from inspector.station.daemon import Daemon

_M_ARENA_MAX: Final = -8
"""Of mallopt(3)."""


def run(
    station: Station,
    wait_for_subscriber_s: float = 0.0,
    stop_on_stdin_eof: bool = False,
    recipe: str | None = None,
    file: Path | None = None,
    *,
    without_model: bool = False,
) -> None:
    """Run a station in this process until its cameras end or SIGTERM/SIGINT.

    The first signal judges and publishes what was grabbed; a second one leaves at once. A terminal
    that is closed (SIGHUP) is a first signal, too; without a terminal SIGHUP has the bundles read
    again. With ``stop_on_stdin_eof`` the end of standard input is a first signal: a station that a
    program started does not outlive it. ``recipe``, one of the station's, is in force whatever was
    before. ``file`` is what ``station`` was read from: a reload tells what was changed in it since.
    ``without_model``: a bundle's file need not be there yet. Raises :class:`StartupError`.
    """
    _keep_heap_small()
    daemon = Daemon(station, recipe, file, without_model=without_model)
    asked = False

    def on_signal(number: int, _frame: object) -> None:
        nonlocal asked
        if asked:
            os._exit(128 + number)
        asked = True
        daemon.ask_to_stop()

    def on_hang_up(_number: int, _frame: object) -> None:
        # Never a second signal: kernel and shell both send it when a terminal is closed.
        nonlocal asked
        if has_terminal:
            asked = True
            daemon.ask_to_stop()
        else:
            daemon.ask_to_reload()

    has_terminal = _has_terminal()
    before = {
        number: signal.signal(number, on_signal) for number in (signal.SIGTERM, signal.SIGINT)
    }
    hang_up = getattr(signal, "SIGHUP", None)
    # 'nohup' has it ignored, and means it.
    if hang_up is not None and signal.getsignal(hang_up) is not signal.SIG_IGN:
        before[hang_up] = signal.signal(hang_up, on_hang_up)
    if stop_on_stdin_eof:
        threading.Thread(target=_stop_at_eof, args=(daemon,), daemon=True).start()
    try:
        daemon.run(wait_for_subscriber_s)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _keep_heap_small() -> None:
    """Two arenas for all threads: glibc's default, eight a core, keeps what dead threads freed."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 2)


def _has_terminal() -> bool:
    """Whether a terminal controls this process; asked at the start, for later it may be closed."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | getattr(os, "O_NOCTTY", 0)))
    except OSError:
        return False
    return True


def _stop_at_eof(daemon: Daemon) -> None:
    # Not sys.stdin: its lock would be held while the interpreter shuts down. A terminal that was
    # closed raises an error instead of its end.
    with contextlib.suppress(OSError):
        while os.read(0, 1024):
            pass
    daemon.ask_to_stop()
