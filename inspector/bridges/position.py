"""How far a bridge has come, in a file of its own."""

from __future__ import annotations

import logging
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from inspector.errors import ConfigError
from inspector.files import lock_file, reason_of, write_whole
from inspector.logs import say

_EVERY_S: Final = 1.0
"""Between two writes of the file while verdicts are acknowledged."""
_LARGEST: Final = 4096
"""Bytes of a state file; none is longer."""


@dataclass(frozen=True)
class Position:
    """A verdict of a station: its start, and its number within that."""

    epoch: str
    seq: int


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    since_us: Annotated[int, Field(ge=0, lt=2**53)]
    births: Annotated[int, Field(ge=-1, le=255)]
    missing: Annotated[int, Field(ge=0)] = 0
    epoch: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    seq: Annotated[int, Field(ge=0, lt=2**53 - 1)] | None = None

    @model_validator(mode="after")
    def _both_or_none(self) -> _Document:
        if (self.epoch is None) != (self.seq is None):
            raise ValueError("epoch and seq belong together")
        return self


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
        self.missing = 0
        """Verdicts that the journal lacked so far; one for each gap of an unknown number."""
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

    def lack(self, count: int) -> None:
        """Note that the broker was told of ``count`` verdicts that the journal lacks."""
        self.missing += count
        self._is_dirty = True

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
        last = self.last
        return (
            _Document(
                since_us=self.since_us,
                births=self.births,
                missing=self.missing,
                epoch=None if last is None else last.epoch,
                seq=None if last is None else last.seq,
            )
            .model_dump_json(exclude_none=True)
            .encode()
        )

    def _load(self) -> None:
        try:
            with self._path.open("rb") as file:
                data = file.read(_LARGEST + 1)
        except FileNotFoundError:
            self._make()
            return
        except OSError as error:
            raise ConfigError(_problem(self._path, error)) from None
        try:
            found = _Document.model_validate_json(data)
        except ValidationError:
            raise ConfigError(
                f"{self._path}: is no state file of a bridge; name another one, or delete it and "
                f"choose with 'begin' where to begin anew"
            ) from None
        self.since_us, self.births, self.missing = found.since_us, found.births, found.missing
        if found.epoch is not None and found.seq is not None:
            self.last = Position(found.epoch, found.seq)

    def _make(self) -> None:
        # What is judged before the first acknowledgement must not be lost with the process.
        try:
            write_whole(self._path, self._document(), mode=0o640)
        except OSError as error:
            raise ConfigError(_problem(self._path, error)) from None


def _problem(path: Path, error: OSError) -> str:
    return (
        f"{path}: cannot be used: {reason_of(error)}; its folder must be there, and the bridge's "
        f"user must be able to write to it"
    )
