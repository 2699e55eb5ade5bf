"""The log: one line an event on standard error, ``event key=value key="two words"``.

Under systemd each line begins with its priority (``<4>``, see sd-daemon(3)), which journald takes
off, and bears no time, which journald adds.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import threading
import time
from types import TracebackType
from typing import Final

from inspector.shown import plain

_log: Final = logging.getLogger("inspector")

_PRIORITIES: Final = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4))


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


def to_stderr() -> None:
    """Send the log to standard error, and what nobody caught into the log; once a process."""
    handler = logging.StreamHandler()
    if _stderr_is_journal():
        handler.setFormatter(_ForJournal("%(message)s"))
    else:
        formatter = _Plain(
            "%(asctime)s.%(msecs)03dZ %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%S"
        )
        formatter.converter = time.gmtime
        handler.setFormatter(formatter)
    _log.addHandler(handler)
    _log.setLevel(logging.INFO)
    sys.excepthook = _log_crash
    threading.excepthook = _log_thread_crash


class _Plain(logging.Formatter):
    """Escapes what cannot be printed: an error that nobody caught may say anything."""

    def format(self, record: logging.LogRecord) -> str:
        return "\n".join(map(plain, super().format(record).split("\n")))


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
