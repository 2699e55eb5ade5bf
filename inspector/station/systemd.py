"""What systemd is told of the station: ready, alive, reloading, stopping (sd_notify(3)).

Without a supervisor that listens all of it does nothing.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
import time
from collections.abc import Callable, MutableMapping
from typing import Final

from inspector.logs import say

_LONGEST_STATUS: Final = 500
_PINGS_A_TIMEOUT: Final = 3
_SEND_S: Final = 1.0
"""Longest wait for a supervisor that does not read; never spent on a watchdog ping."""


class Notifier:
    """A line to systemd; used by one thread, the one that judges.

    Takes NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID out of ``environment``, so that no child
    process speaks in the station's name. A supervisor that has gone is logged, and no error.
    """

    def __init__(
        self,
        environment: MutableMapping[str, str] = os.environ,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._monotonic_ns = monotonic_ns
        path = environment.pop("NOTIFY_SOCKET", "")
        microseconds = environment.pop("WATCHDOG_USEC", "")
        pid = environment.pop("WATCHDOG_PID", "") or str(os.getpid())
        self.watchdog_s: float | None = None
        """The supervisor ends a station that has not pinged for so long; None: never."""
        self._ping_due_ns = 0
        self._mute = False
        self._status = ""
        self._address = f"\0{path[1:]}" if path.startswith("@") else path
        self._socket: socket.socket | None = None
        if path[:1] in {"/", "@"} and sys.platform != "win32":
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            if microseconds.isdecimal() and int(microseconds) > 0 and pid == str(os.getpid()):
                self.watchdog_s = int(microseconds) / 1e6
        elif path:
            say("notify", logging.WARNING, detail=f"NOTIFY_SOCKET {path} is no UNIX socket")

    def ready(self, status: str = "") -> None:
        """The station judges; after a reload too."""
        self._tell("READY=1", status)

    def reloading(self, status: str = "") -> None:
        """The station takes up a changed file; ``ready`` ends it."""
        self._tell(f"RELOADING=1\nMONOTONIC_USEC={self._monotonic_ns() // 1000}", status)

    def stopping(self, status: str = "") -> None:
        """The station is on its way out."""
        self._tell("STOPPING=1", status)

    def status(self, text: str) -> None:
        """One line for ``systemctl status``; the same line again is not sent."""
        if text != self._status:
            self._tell("", text)

    def ping(self) -> None:
        """The verdict loop has come round; call it in every turn, it is sent when due."""
        if self.watchdog_s is None:
            return
        now_ns = self._monotonic_ns()
        if now_ns >= self._ping_due_ns and self._send("WATCHDOG=1", wait_s=0.0):
            self._ping_due_ns = now_ns + int(self.watchdog_s * 1e9 / _PINGS_A_TIMEOUT)

    def close(self) -> None:
        """Say no more; may be called more than once."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _tell(self, state: str, status: str) -> None:
        lines = [state] if state else []
        if status:
            self._status = status
            line = "".join(letter if letter.isprintable() else " " for letter in status)
            lines.append(f"STATUS={line[:_LONGEST_STATUS]}")
        self._send("\n".join(lines), wait_s=_SEND_S)

    def _send(self, text: str, wait_s: float) -> bool:
        if self._socket is None:
            return False
        self._socket.settimeout(wait_s)
        try:
            self._socket.sendto(text.encode("utf-8"), self._address)
        except OSError as error:
            # Not taken now: a later ping says all that this one would have. Logged once a spell.
            if not self._mute:
                say("notify", logging.WARNING, detail=f"systemd does not take it: {error}")
            self._mute = True
            return False
        self._mute = False
        return True
