"""How far a bridge has come, in a file of its own."""

from __future__ import annotations

import json
import logging
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from inspector.errors import ConfigError
from inspector.files import lock_file, reason_of, write_whole
from inspector.logs import say

_EVERY_S: Final = 1.0
"""Between two writes of the file while verdicts are acknowledged."""


@dataclass(frozen=True)
class Position:
    """A verdict of a station: its start, and its number within that."""

    epoch: str
    seq: int


class PositionFile:
    """The last verdict that was acknowledged, and where to begin while there was none.

    It is written whole, and once a second at most: after a crash, what was acknowledged in the last
    second comes again, under the same epoch and seq. A second bridge cannot use the same file.
    """

    def __init__(self, path: Path, since_us: int) -> None:
        """Read or make the file; ``since_us``: where to begin if it is new (µs, Unix epoch).

        Raises :class:`ConfigError`.
        """
        self._path = path
        self.since_us = since_us
        self.last: Position | None = None
        self.births = -1
        """Number of the last Sparkplug connection, 0 to 255; -1 before the first."""
        self._written_s = 0.0
        self._is_dirty = False
        self._is_unwritable = False
        try:
            self._lock = lock_file(path.with_name(f"{path.name}.lock"), 0o640)
        except BlockingIOError:
            raise ConfigError(
                f"{path}: another bridge uses it; give each bridge a state file of its own"
            ) from None
        except OSError as error:
            raise ConfigError(_problem(path, error)) from None
        try:
            self._load()
        except BaseException:
            self.close()
            raise

    def acknowledge(self, position: Position) -> None:
        """Note that everything up to ``position`` was acknowledged."""
        self.last = position
        self._is_dirty = True
        if time.monotonic() - self._written_s >= _EVERY_S:
            self.write()

    def next_birth(self) -> int:
        """The number of the next Sparkplug connection, which is on the disk when this returns."""
        self.births = (self.births + 1) % 256
        self._is_dirty = True
        self.write()
        return self.births

    def write(self) -> None:
        """Have the file as it should be; an error is said once, and tried again later."""
        if not self._is_dirty:
            return
        self._written_s = time.monotonic()
        try:
            write_whole(self._path, self._document(), mode=0o640)
        except OSError as error:
            if not self._is_unwritable:
                say("state not written", logging.ERROR, problem=_problem(self._path, error))
            self._is_unwritable = True
            return
        if self._is_unwritable:
            say("state written again", file=self._path)
        self._is_dirty = self._is_unwritable = False

    def close(self) -> None:
        """Let another bridge have the file."""
        os.close(self._lock)

    def _document(self) -> bytes:
        told = {"since_us": self.since_us, "births": self.births}
        last = {} if self.last is None else {"epoch": self.last.epoch, "seq": self.last.seq}
        return json.dumps(told | last).encode()

    def _load(self) -> None:
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            self._make()
            return
        except OSError as error:
            raise ConfigError(_problem(self._path, error)) from None
        try:
            found = json.loads(data)
            self.since_us = _whole(found["since_us"])
            self.births = _whole(found["births"])
            if "epoch" in found:
                self.last = Position(str(found["epoch"]), _whole(found["seq"]))
        except (ValueError, TypeError, KeyError):
            raise ConfigError(
                f"{self._path}: is no state file of a bridge; name another one, or delete it and "
                f"choose with 'begin' where to begin anew"
            ) from None

    def _make(self) -> None:
        # What is judged before the first acknowledgement must not be lost with the process.
        try:
            write_whole(self._path, self._document(), mode=0o640)
        except OSError as error:
            raise ConfigError(_problem(self._path, error)) from None


def _whole(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError
    return value


def _problem(path: Path, error: OSError) -> str:
    return (
        f"{path}: cannot be used: {reason_of(error)}; its folder must be there, and the bridge's "
        f"user must be able to write to it"
    )
