"""Keys of a camera that OpenCV reads: a device, a video file, a stream or a pipeline."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final, Literal

from pydantic import Field, field_validator

from inspector.config.cameras.base import CameraBase
from inspector.config.yaml_file import Number, Whole

if TYPE_CHECKING:
    from typing_extensions import Self

_STREAM: Final = re.compile(r"(?:rtsp\w?|rtmp\w?|https?)://([^!]*)", re.IGNORECASE | re.DOTALL)
"""A URL of a camera or server, which has a host; that of udp, file and others may have none."""
_HOST: Final = re.compile(r"(?:\[[^\]/]+\]|[^\s:/@\[\]]+)(?::\d*)?(?=[/?#\s]|$)")

SourceKind = Literal["device", "file", "stream", "pipeline"]


class OpenCvCamera(CameraBase):
    """A device, a video file, an RTSP or HTTP stream, or a GStreamer pipeline."""

    camera: ClassVar[str] = "inspector.cameras.opencv:OpenCv"

    kind: Literal["opencv"]
    timeout_ms: Whole = Field(default=500, ge=50, le=60_000)
    latency_ms: Whole = Field(default=100, ge=0, le=5000)
    source: Whole | str
    backend: Literal["any", "ffmpeg", "v4l2", "gstreamer"] = "any"
    width: Whole | None = Field(default=None, gt=0, le=100_000)
    height: Whole | None = Field(default=None, gt=0, le=100_000)
    fps: Number | None = Field(default=None, gt=0, le=100_000)

    @field_validator("source")
    @classmethod
    def _names_one(cls, value: int | str) -> int | str:
        if isinstance(value, int) and not 0 <= value <= 999:
            raise ValueError("must be a device number, 0 to 999")
        if value == "":
            raise ValueError("must be a device number, a file, a URL or a pipeline")
        stream = _STREAM.fullmatch(str(value))
        if stream is not None and not _has_host(stream[1]):
            raise ValueError(
                "names no host; a URL is rtsp://USER:PASSWORD@HOST/PATH, in quotes, with %23 for # "
                "in a password"
            )
        return value

    @property
    def source_kind(self) -> SourceKind:
        """What ``source`` names."""
        source = self.source
        if isinstance(source, int) or is_device(source):
            return "device"
        if self.backend == "gstreamer" or "!" in source:
            return "pipeline"
        return "stream" if "://" in source else "file"

    @property
    def is_live(self) -> bool:
        """All but a video file."""
        return self.source_kind != "file"

    @property
    def is_replay(self) -> bool:
        """A video file."""
        return self.source_kind == "file"

    @property
    def keeps_size(self) -> bool:
        """Always: a device, stream or video that changes its resolution was set up otherwise."""
        return True

    @property
    def waits_for_judge(self) -> bool:
        """A video file."""
        return self.source_kind == "file"

    def beside(self, folder: Path) -> Self:
        """A copy with the path of a video file, if ``source`` names one in ``folder``."""
        if isinstance(self.source, int) or "://" in self.source or self.backend == "gstreamer":
            return self
        path = folder / self.source
        # Unlike Path.is_file it raises no error for a name that is too long, or not allowed.
        is_file = os.path.isfile(path)  # noqa: PTH113
        return self.model_copy(update={"source": str(path)}) if is_file else self


def is_device(source: str) -> bool:
    """True when ``source`` names a device: its number, or a path below ``/dev``.

    What lies in Linux's memory file system, ``/dev/shm``, is a file.
    """
    below = source.startswith("/dev/") and not source.startswith("/dev/shm/")  # noqa: S108
    return source.isdecimal() or below


def _has_host(rest: str) -> bool:
    """True when a host follows the user and the password, if any, in what follows ``://``.

    A password may hold a slash or an ``@``, as may a path, so that there are two ways to read it.
    """
    authority = rest.partition("/")[0]
    return any(_HOST.match(one.rpartition("@")[2]) is not None for one in (authority, rest))
