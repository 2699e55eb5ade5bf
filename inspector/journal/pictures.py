"""Pictures kept: the camera's frames of FAIL, FAULT and a sample of PASS, within a limit of size.

A picture is one lossless PNG, ``pictures/DAY/TIME_CAMERA_VERDICT_EPOCH_SEQ.png``: the frame as the
camera gave it, with the verdict as published and the region that was judged in a text chunk. Beside
it lies its map, ``….map.png`` (8 bit, 128 is the limit). A file gets its name once it is whole and
on the disk, so that every file with a name can be read. The names are the only index.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import struct
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, ValidationError

from inspector.clock import SYSTEM_CLOCK, Clock, ClockWatch
from inspector.config.station_file import JournalSettings
from inspector.errors import JournalError
from inspector.files import reason_of, write_whole
from inspector.imaging.geometry import Box
from inspector.imaging.heatmaps import map_to_grey
from inspector.imaging.images import encode_png, read_image
from inspector.verdict import FloatMap, Verdict
from inspector.wire.messages import VerdictMessage

FOLDER: Final = "pictures"

_NAME: Final = re.compile(
    r"(?P<time>[0-9]{8}T[0-9]{6}\.[0-9]{6})_(?P<camera>.+)_(?P<verdict>PASS|FAIL|FAULT)"
    r"_(?P<epoch>[^_]+)_(?P<seq>[0-9]+)\.png"
)
_TIME: Final = "%Y%m%dT%H%M%S.%f"
_MAP: Final = ".map.png"
_MOST_AGED: Final = 2
"""Aged pictures, of PASS and of the others each, that are deleted when one is kept."""
_STEP_S: Final = 60.0
"""A clock that is set by less makes no picture old."""
_MEGABYTE: Final = 2**20
_HEAD_BYTES: Final = 33
"""A PNG's signature and its first chunk, after which others may stand."""
_TEXT_HEAD: Final = b"line-inspector\0\0\0\0\0"
"""An iTXt chunk's keyword; neither compressed, nor in a language."""


class Area(BaseModel):
    """A rectangle in camera pixels; its edges need not lie on whole ones or inside the frame."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    x: float
    y: float
    w: float
    h: float


class PictureRecord(BaseModel):
    """What is stored in the file of a kept picture beside its pixels."""

    model_config = ConfigDict(frozen=True)

    verdict: VerdictMessage
    region: Box | None = None
    """Region the recipe asked for, in camera pixels; None: the bundle's own."""
    checked: bool = True
    """Whether the recipe had pictures checked for being fit to judge."""
    heatmap_area: Area | None = None
    """Where the map lies over the frame; None: an earlier version kept it, or there is no map."""


@dataclass(frozen=True)
class KeptPicture:
    """A kept picture, as its name tells; ``judged_us``: wall time, µs since the Unix epoch."""

    path: Path
    judged_us: int
    camera: str
    verdict: Verdict

    def load(self) -> tuple[PictureRecord, npt.NDArray[Any]]:
        """Its record, and the frame uint8 or uint16, grey, BGR or BGRA.

        Raises FileNotFoundError when it was deleted, ValueError when it cannot be read.
        """
        if not self.path.exists():
            raise FileNotFoundError(self.path)
        return read_record(self.path), read_image(self.path)

    def stored(self) -> tuple[PictureRecord, bytes]:
        """Its record, and its file as it is: a lossless PNG that bears the record.

        Raises FileNotFoundError when it was deleted, ValueError when it cannot be read.
        """
        record = read_record(self.path)
        try:
            return record, self.path.read_bytes()
        except FileNotFoundError:
            raise
        except OSError as error:
            raise ValueError(f"{self.path}: cannot be read: {reason_of(error)}") from None

    def heatmap(self) -> bytes | None:
        """Its map, a PNG; None where it has none."""
        try:
            return _map_of(self.path).read_bytes()
        except OSError:
            return None


class Archive:
    """The writer of a station's pictures; used by one thread.

    ``wants``, ``protect`` and ``trouble`` may be used by any.

    Whatever the disk does, no method raises.
    """

    def __init__(
        self,
        folder: Path,
        settings: JournalSettings,
        clock: Clock = SYSTEM_CLOCK,
        *,
        marked: Iterable[tuple[str, int]] = (),
    ) -> None:
        """``folder`` is the journal's; nothing is read or written before the first picture.

        ``marked``: (epoch, seq) of parts whose pictures stay.
        """
        self._folder = folder / FOLDER
        self._settings = settings
        self._passed = _Kept()
        self._others = _Kept()
        self._marked = _Kept()
        """Pictures that stay, as far as they were met among the oldest."""
        self._protected = {_sign(epoch, seq) for epoch, seq in marked}
        self._known = False
        self._clock_watch = ClockWatch(_STEP_S, clock)
        self._trouble = ""

    @property
    def trouble(self) -> str:
        """Why the last picture that should have been kept was not, in words; "" when it was."""
        return self._trouble

    @property
    def size_bytes(self) -> int:
        """All pictures and maps together; 0 until the first one is kept after a start."""
        return self._passed.bytes + self._others.bytes + self._marked.bytes

    def protect(self, epoch: str, seq: int) -> None:
        """Somebody has marked this part: its picture stays, however old it is."""
        self._protected.add(_sign(epoch, seq))

    def wants(self, verdict: VerdictMessage) -> bool:
        """True when the picture of this part is to be kept, if there is one.

        The sample of PASS is drawn by a hash of epoch and seq, so that it cannot fall into step
        with a pattern of the line, and is the same whenever it is asked for.
        """
        if self._settings.pictures_mb == 0:
            return False
        if verdict.verdict is not Verdict.PASS:
            return True
        drawn = hashlib.sha256(f"{verdict.epoch}/{verdict.seq}".encode()).digest()[:8]
        return int.from_bytes(drawn, "big") < self._settings.pass_share * 2**64

    def keep(
        self,
        verdict: VerdictMessage,
        frame: npt.NDArray[Any],
        anomaly_map: FloatMap | None = None,
        region: Box | None = None,
        *,
        checked: bool = True,
        heatmap_area: tuple[float, float, float, float] | None = None,
    ) -> bool:
        """Keep a camera frame as it came, and its map float32 ``[h, w]`` in units of the limit.

        ``region``, ``checked`` and ``heatmap_area`` (x, y, w, h) are those of
        :class:`PictureRecord`. False when there is no space
        (``trouble`` says why) or the frame is no picture at all.
        """
        if not _is_picture(frame):
            return False
        area = None
        if heatmap_area is not None and anomaly_map is not None:
            area = Area(**dict(zip("xywh", heatmap_area, strict=True)))
        record = PictureRecord(verdict=verdict, region=region, checked=checked, heatmap_area=area)
        # OpenCV writes 8 and 16 bit as PNG, and _is_picture lets no other frame through.
        data = with_text(encode_png(frame), record.model_dump_json(by_alias=True))
        heat = b"" if anomaly_map is None else encode_png(map_to_grey(anomaly_map))
        name = _name(verdict)
        path = self._path(name)
        is_pass = verdict.verdict is Verdict.PASS
        size = len(data) + len(heat)
        try:
            self._folder.mkdir(mode=0o750, parents=True, exist_ok=True)
            is_first = not self._known
            if is_first:
                self._look()
            # A clock may be wrong until somebody sets it, and then again: no picture is deleted by
            # a time that was not there before.
            is_steady = self._clock_watch.jumped_s(verdict.judged_us) == 0.0
            if is_steady and not is_first:
                self._forget_aged(verdict.judged_us)
            self._trouble = self._shortage(size)
            if self._trouble or not self._make_room(size, is_pass):
                return False
            path.parent.mkdir(mode=0o750, exist_ok=True)
            if heat:
                write_whole(_map_of(path), heat)
            write_whole(path, data)
        except (OSError, ValueError) as error:
            _delete(path)
            self._trouble = (
                f"{self._folder}: no picture can be kept: {reason_of(error)}; look after the disk"
            )
            return False
        except JournalError as error:
            self._trouble = str(error)
            return False
        (self._passed if is_pass else self._others).add(name, size)
        return True

    def _shortage(self, size: int) -> str:
        """Why the disk has no room for ``size`` more bytes; "" when it has."""
        reserve = self._settings.reserve_mb * _MEGABYTE
        if shutil.disk_usage(self._folder).free - size < reserve:
            return (
                f"{self._folder}: less than {self._settings.reserve_mb} MB are free on the disk; "
                f"no picture is kept until there is more"
            )
        return ""

    def _make_room(self, size: int, is_pass: bool) -> bool:
        """Delete until ``size`` more bytes are within the limit, the oldest PASS first.

        False where pictures of rejected parts fill the limit: they are worth more than a PASS, so
        that this is no trouble.
        """
        limit = self._settings.pictures_mb * _MEGABYTE
        stays = self._marked.bytes + (self._others.bytes if is_pass else 0)
        if size > limit or (is_pass and stays + size > limit):
            return False
        while self.size_bytes + size > limit:
            if not self._drop(self._passed) and not self._drop(self._others):
                self._trouble = (
                    f"{self._folder}: pictures of marked parts, which stay, fill "
                    f"journal.pictures_mb; no other is kept until it is more"
                )
                return False
        return True

    def _forget_aged(self, now_us: int) -> None:
        """Delete pictures that are too old, a few at a time, lest a wrong clock take them all."""
        before = _time(now_us - self._settings.pictures_days * 86_400_000_000)
        for kept in (self._passed, self._others):
            for _ in range(_MOST_AGED):
                self._set_marked_aside(kept)
                if not kept.files or kept.files[0][0] >= before:
                    break
                self._drop(kept)

    def _drop(self, kept: _Kept) -> bool:
        """Delete the oldest that is not marked; False when there is none."""
        self._set_marked_aside(kept)
        if not kept.files:
            return False
        path = self._path(kept.take_oldest()[0])
        _delete(path)
        with suppress(OSError):
            path.parent.rmdir()
        return True

    def _set_marked_aside(self, kept: _Kept) -> None:
        """Have what is marked among the oldest stay for good."""
        while kept.files and _sign_of(kept.files[0][0]) in self._protected:
            self._marked.add(*kept.take_oldest())

    def _look(self) -> None:
        """Learn what earlier starts kept, and delete what they left unfinished."""
        for path in self._folder.glob("*/.*.part"):
            _delete(path)
        known = list(pictures(self._folder.parent))
        self._known = True
        for picture in known:
            # A copy in another folder is somebody else's: it is neither counted nor deleted.
            if picture.path != self._path(picture.path.name):
                continue
            size = _size(picture.path) + _size(_map_of(picture.path))
            is_pass = picture.verdict is Verdict.PASS
            (self._passed if is_pass else self._others).add(picture.path.name, size)
        for path in self._folder.glob(f"*/*{_MAP}"):
            with suppress(OSError):
                if not path.with_name(path.name.removesuffix(_MAP) + ".png").exists():
                    _delete(path)

    def _path(self, name: str) -> Path:
        return _path(self._folder, name)


class _Kept:
    """Names and sizes of kept pictures, oldest first; no more, as there may be millions of them."""

    def __init__(self) -> None:
        self.files: deque[tuple[str, int]] = deque()
        self.bytes = 0

    def add(self, name: str, size: int) -> None:
        self.files.append((name, size))
        self.bytes += size

    def take_oldest(self) -> tuple[str, int]:
        name, size = self.files.popleft()
        self.bytes -= size
        return name, size


def _name(verdict: VerdictMessage) -> str:
    parts = (verdict.camera, verdict.verdict.value, verdict.epoch[:8], f"{verdict.seq:09d}")
    return f"{_time(verdict.judged_us)}_{'_'.join(parts)}.png"


def _sign(epoch: str, seq: int) -> str:
    """By what the name of a picture shows its part."""
    return f"{epoch[:8]}_{seq:09d}"


def _sign_of(name: str) -> str:
    found = _NAME.fullmatch(name)
    return "" if found is None else f"{found['epoch']}_{found['seq']}"


def kept_of(folder: Path, verdict: VerdictMessage) -> KeptPicture | None:
    """The kept picture of a part beside the journal in ``folder``; None where there is none.

    No name from outside leads anywhere else: it must be one that a station gives.
    """
    name = _name(verdict)
    kept = _kept_at(_path(folder / FOLDER, name)) if Path(name).name == name else None
    if kept is None or kept.path.is_symlink() or not kept.path.is_file():
        return None
    return kept


def _path(root: Path, name: str) -> Path:
    return root / f"{name[:4]}-{name[4:6]}-{name[6:8]}" / name


def _time(us: int) -> str:
    return datetime.fromtimestamp(us / 1e6, timezone.utc).strftime(_TIME)


def pictures(
    folder: Path, on_trouble: Callable[[str], None] = lambda _text: None
) -> Iterator[KeptPicture]:
    """The pictures kept beside the journal in ``folder``, oldest first.

    A station may keep and delete some meanwhile. Whatever else lies there is passed over;
    ``on_trouble`` hears of a day that cannot be read. Raises :class:`JournalError` where none can.
    """
    root = folder / FOLDER
    try:
        days = sorted(root.iterdir()) if root.exists() else []
    except OSError as error:
        raise JournalError(f"{root}: cannot be read: {error.strerror}") from None
    for day in days:
        try:
            with os.scandir(day) as entries:
                # Neither folders nor links nor pipes: a station keeps plain files.
                names = sorted(one.name for one in entries if one.is_file(follow_symlinks=False))
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            on_trouble(f"{day}: cannot be read: {error.strerror}")
            continue
        yield from filter(None, (_kept_at(day / name) for name in names))


def _kept_at(path: Path) -> KeptPicture | None:
    """What the name of a file says; None where no station gave it."""
    found = _NAME.fullmatch(path.name)
    if found is None or path.name.endswith(_MAP):
        return None
    with suppress(ValueError):
        moment = datetime.strptime(found["time"], _TIME).replace(tzinfo=timezone.utc)
        judged_us = round(moment.timestamp() * 1e6)
        return KeptPicture(path, judged_us, found["camera"], Verdict(found["verdict"]))
    return None


def with_text(png: bytes, text: str) -> bytes:
    """A PNG with ``text`` in a chunk that viewers pass over."""
    body = b"iTXt" + _TEXT_HEAD + text.encode()
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    return png[:_HEAD_BYTES] + chunk + png[_HEAD_BYTES:]


def read_record(path: Path) -> PictureRecord:
    """The record of a kept picture. Raises ValueError."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES + 8)
            length = struct.unpack(">I", head[_HEAD_BYTES : _HEAD_BYTES + 4])[0]
            if head[_HEAD_BYTES + 4 :] != b"iTXt" or length > _MEGABYTE:
                raise ValueError
            body = b"iTXt" + file.read(length)
            if struct.pack(">I", zlib.crc32(body)) != file.read(4):
                raise ValueError
        return PictureRecord.model_validate_json(body[4 + len(_TEXT_HEAD) :])
    except FileNotFoundError:
        raise
    except (OSError, ValueError, struct.error, ValidationError):
        raise ValueError(f"{path}: not a picture that a station kept") from None


def _is_picture(frame: npt.NDArray[Any]) -> bool:
    depth = 1 if frame.ndim == 2 else frame.shape[2] if frame.ndim == 3 else 0
    return frame.size > 0 and depth in (1, 3, 4) and frame.dtype in (np.uint8, np.uint16)


def _map_of(path: Path) -> Path:
    return path.with_suffix(_MAP)


def _size(path: Path) -> int:
    with suppress(OSError):
        return path.stat().st_size
    return 0


def _delete(path: Path) -> None:
    for each in (path, _map_of(path)):
        with suppress(OSError):
            each.unlink(missing_ok=True)
