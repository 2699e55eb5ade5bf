"""A station as the whole of this process: signals, the heap, and a parent that may go."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import threading
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
) -> None:
    """Run a station in this process until its cameras end or SIGTERM/SIGINT.

    The first signal judges and publishes what was grabbed; a second one leaves at once. With
    ``stop_on_stdin_eof`` the end of standard input is a first signal: a station that a program
    started does not outlive it. ``recipe``, one of the station's, is in force whatever was before.
    Raises :class:`StartupError`.
    """
    _keep_heap_small()
    daemon = Daemon(station, recipe)
    asked = False

    def on_signal(number: int, _frame: object) -> None:
        nonlocal asked
        if asked:
            os._exit(128 + number)
        asked = True
        daemon.ask_to_stop()

    before = {
        number: signal.signal(number, on_signal) for number in (signal.SIGTERM, signal.SIGINT)
    }
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


def _stop_at_eof(daemon: Daemon) -> None:
    # Not sys.stdin: its lock would be held while the interpreter shuts down.
    while os.read(0, 1024):
        pass
    daemon.ask_to_stop()
