"""Bundles that come in over the wire, piece by piece, and those that were installed.

A bundle gets its name, ``installed/SHA256.onnx`` in the folder of the journal, once it is whole,
has this SHA-256 and is on the disk. What judges is decided elsewhere, by the journal alone: so a
crash at any moment leaves the old bundle in force or the new one, and never half of it.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final, Literal

from inspector.files import reason_of, sync_folder
from inspector.logs import say
from inspector.threads import QueueWorker, yield_to_others
from inspector.wire.messages import InstallCommand, RefusalCause, RefusalCode, UploadCommand
from inspector.wire.requests import Request

_MOST_WAITING: Final = 32
"""Pieces that may wait to be written."""
_MOST_UPLOADS: Final = 4
"""Bundles, whole or in part, that nobody has installed yet."""
_FORGOTTEN_S: Final = 3600.0
"""After so long without a piece an upload is given up, and a bundle that nobody installs too."""
_IDLE_S: Final = 60.0
"""After so long without a piece an upload makes room for another one."""
_LOOK_S: Final = 5.0
_SYNC_BYTES: Final = 4 << 20
"""Bytes that are written before they are synced: the journal's own sync would wait for more."""
_BYTES_PER_S: Final = 32e6
"""What is written at most, so that disk and cores are left to the line."""
_MB: Final = 2**20


class _RefusedError(Exception):
    """A command is refused, with this code of docs/wire.md."""

    def __init__(self, code: RefusalCode, detail: str, cause: RefusalCause | Literal[""]) -> None:
        super().__init__(detail)
        self.code = code
        self.cause = cause


@dataclass
class _Upload:
    """A bundle of which ``written`` bytes are there; ``touched_s`` is monotonic."""

    size: int
    file: IO[bytes]
    path: Path
    touched_s: float
    written: int = 0
    unsynced: int = 0
    digest: Any = field(default_factory=hashlib.sha256)


@dataclass
class _Whole:
    """A bundle that is whole, and the command to install it that came last."""

    touched_s: float
    request: Request | None = None


@dataclass(frozen=True)
class _Kept:
    """The SHA-256 of each bundle that the journal names."""

    found: frozenset[str]


class Uploads(QueueWorker["tuple[Request, Callable[[], None]] | _Kept"]):
    """The thread that writes bundles; it yields to the others.

    ``folder`` is made with the first piece. ``reserve_mb``: so much stays free on its disk.
    ``kept``: what :meth:`keep` would be told now; everything else in the folder is deleted.
    """

    def __init__(
        self,
        folder: Path,
        reserve_mb: int,
        kept: Iterable[str] = (),
        *,
        clock: Callable[[], float] = time.monotonic,
        bytes_per_s: float = _BYTES_PER_S,
    ) -> None:
        super().__init__("uploads")
        self._folder = folder
        self._reserve_bytes = reserve_mb * _MB
        self._kept = frozenset(kept)
        self._clock = clock
        self._bytes_per_s = bytes_per_s
        self._uploads: dict[str, _Upload] = {}
        self._whole: dict[str, _Whole] = {}
        """Those that the journal does not name."""
        self._written = 0
        self._began_s: float | None = None

    def put(self, request: Request, then: Callable[[], None] = lambda: None) -> None:
        """Write a piece, or call ``then`` if the bundle to be installed is there; never blocks.

        ``then`` is called in this worker's thread.
        """
        with self._changed:
            if self._closing:
                request.refuse("stopping", "the station stops")
            elif self.crashed:
                request.refuse("failed", "the thread that writes bundles has died; see the log")
            elif len(self._waiting) >= _MOST_WAITING:
                request.refuse("busy", "too many pieces of bundles wait to be written", "loading")
            else:
                self._waiting.append((request, then))
                self._changed.notify()

    def keep(self, found: Iterable[str]) -> None:
        """The journal names the bundles of these SHA-256, and no others; any thread may call."""
        with self._changed:
            self._waiting.append(_Kept(frozenset(found)))
            self._changed.notify()

    def work(self) -> None:
        """Write until ``finish``; what was not sent whole by then is deleted."""
        yield_to_others()
        self._clear()
        while (items := self._take(1, _LOOK_S)) is not None:
            for item in items:
                if isinstance(item, _Kept):
                    self._kept = item.found
                    self._drop_unnamed()
                else:
                    self._answer(*item)
            self._give_up_old()
        for sha256 in tuple(self._uploads):
            self._drop(sha256)

    def _answer(self, request: Request, then: Callable[[], None]) -> None:
        command = request.command
        try:
            if isinstance(command, UploadCommand):
                request.tell_uploaded(self._write(command, request.data))
            elif isinstance(command, InstallCommand):
                self._look_up(command.sha256, request)
                then()
        except _RefusedError as error:
            request.refuse(error.code, str(error), error.cause)
        except OSError as error:
            sha256 = getattr(command, "sha256", "")
            self._drop(sha256)
            why = f"{self._folder}: cannot be written: {reason_of(error)}; free some space there"
            say("upload failed", logging.WARNING, sha256=sha256, by=request.client, detail=why)
            request.refuse("failed", why)

    def _look_up(self, sha256: str, request: Request) -> None:
        if not self._path(sha256).is_file():
            raise _RefusedError(
                "unknown", "no bundle of this sha256 was sent whole; send it", "not_sent"
            )
        if sha256 not in self._kept:
            self._whole[sha256] = _Whole(self._clock(), request)

    def _write(self, command: UploadCommand, data: bytes) -> int:
        """Write ``data`` if it is the next piece; how many bytes of the file are there."""
        sha256, whole = command.sha256, self._path(command.sha256)
        if whole.is_file():
            if sha256 in self._whole:
                self._whole[sha256].touched_s = self._clock()
            return whole.stat().st_size
        upload = self._uploads.get(sha256)
        if upload is None:
            if command.offset or not data:
                # It was asked how much is there, or the piece is of an upload that was given up.
                return 0
            upload = self._begin(command)
        if command.size != upload.size:
            said = f"size {command.size}, and {upload.size} with the first piece"
            raise _RefusedError("malformed", f"this bundle was announced with {said}", "transfer")
        if command.offset + len(data) > upload.size:
            raise _RefusedError(
                "malformed", "the piece goes beyond the end of the file", "transfer"
            )
        upload.touched_s = self._clock()
        if command.offset != upload.written or not data:
            return upload.written
        upload.file.write(data)
        upload.file.flush()
        upload.digest.update(data)
        upload.written += len(data)
        upload.unsynced += len(data)
        if upload.written == upload.size:
            self._complete(sha256, upload)
            return upload.size
        if upload.unsynced >= _SYNC_BYTES:
            os.fsync(upload.file.fileno())
            upload.unsynced = 0
            if shutil.disk_usage(self._folder).free < self._reserve_bytes:
                self._drop(sha256)
                raise self._no_room(upload.size)
        self._pace(len(data))
        return upload.written

    def _begin(self, command: UploadCommand) -> _Upload:
        if len(self._uploads) + len(self._whole) >= _MOST_UPLOADS:
            self._make_room()
        self._folder.mkdir(mode=0o750, parents=True, exist_ok=True)
        if shutil.disk_usage(self._folder).free - command.size < self._reserve_bytes:
            raise self._no_room(command.size)
        path = self._folder / f".{command.sha256}.part"
        file = path.open("wb")
        upload = self._uploads[command.sha256] = _Upload(command.size, file, path, self._clock())
        say("upload", sha256=command.sha256, mb=f"{command.size / _MB:.1f}")
        return upload

    def _make_room(self) -> None:
        """Give up what has waited longest; raise where all are being sent or installed."""
        touched = {sha256: upload.touched_s for sha256, upload in self._uploads.items()}
        for sha256, whole in self._whole.items():
            if whole.request is None or whole.request.last is not None:
                touched[sha256] = whole.touched_s
        oldest = min(touched, key=lambda one: touched[one], default=None)
        if oldest is None or self._clock() - touched[oldest] < _IDLE_S:
            detail = f"{_MOST_UPLOADS} bundles are being sent, or wait to be installed"
            raise _RefusedError("busy", detail, "loading")
        self._drop(oldest)

    def _no_room(self, size: int) -> _RefusedError:
        free, reserve = shutil.disk_usage(self._folder).free, self._reserve_bytes
        return _RefusedError(
            "failed",
            f"the station's disk has {free // _MB} MB free: with this bundle of "
            f"{size / _MB:.1f} MB less than journal.reserve_mb {reserve // _MB} would be left; "
            f"free some space",
            "space",
        )

    def _complete(self, sha256: str, upload: _Upload) -> None:
        if upload.digest.hexdigest() != sha256:
            found = upload.digest.hexdigest()
            self._drop(sha256)
            raise _RefusedError(
                "failed",
                f"what came has sha256 {found[:12]}..., and {sha256[:12]}... was announced; send "
                f"it again",
                "transfer",
            )
        os.fsync(upload.file.fileno())
        upload.file.close()
        upload.path.replace(self._path(sha256))
        sync_folder(self._folder)
        del self._uploads[sha256]
        self._whole[sha256] = _Whole(self._clock())
        say("uploaded", sha256=sha256)

    def _pace(self, written: int) -> None:
        """Wait where this goes faster than it may; not while the station stops."""
        now_s = self._clock()
        if self._began_s is None or now_s - self._began_s > self._written / self._bytes_per_s + 1:
            self._began_s, self._written = now_s, 0
        self._written += written
        ahead_s = self._began_s + self._written / self._bytes_per_s - now_s
        if ahead_s > 0.01:
            with self._changed:
                self._changed.wait_for(lambda: self._closing, ahead_s)

    def _path(self, sha256: str) -> Path:
        return self._folder / f"{sha256}.onnx"

    def _give_up_old(self) -> None:
        now_s = self._clock()
        for sha256, upload in tuple(self._uploads.items()):
            if now_s - upload.touched_s > _FORGOTTEN_S:
                self._drop(sha256)
        for sha256, whole in tuple(self._whole.items()):
            last = None if whole.request is None else whole.request.last
            is_open = whole.request is not None and last is None
            # What was tried and is no good will not be tried again; what was busy may be.
            is_no_good = last is not None and last.code == "failed"
            if is_no_good or (not is_open and now_s - whole.touched_s > _FORGOTTEN_S):
                self._drop(sha256)

    def _drop_unnamed(self) -> None:
        """Delete the bundles that the journal named, and names no longer."""
        for sha256 in self._kept:
            self._whole.pop(sha256, None)
        for path, sha256 in self._found():
            if sha256 not in self._kept and sha256 not in self._whole:
                _delete(path)

    def _drop(self, sha256: str) -> None:
        upload = self._uploads.pop(sha256, None)
        if upload is not None:
            # What could not be written is tried once more, in vain.
            with contextlib.suppress(OSError):
                upload.file.close()
            _delete(upload.path)
        if self._whole.pop(sha256, None) is not None:
            _delete(self._path(sha256))

    def _clear(self) -> None:
        """Delete what an earlier start left; it may have been killed."""
        self._drop_unnamed()
        with contextlib.suppress(OSError):
            for path in self._folder.glob(".*.part"):
                _delete(path)

    def _found(self) -> list[tuple[Path, str]]:
        try:
            names = list(self._folder.glob("*.onnx"))
        except OSError:
            return []
        return [(path, path.stem) for path in names if re.fullmatch(r"[0-9a-f]{64}", path.stem)]


def _delete(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        say("bundle not deleted", logging.WARNING, path=path, why=reason_of(error))
