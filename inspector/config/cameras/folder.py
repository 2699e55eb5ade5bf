"""Keys of a folder of photos that is replayed as a camera."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from inspector.config.cameras.base import CameraBase
from inspector.config.yaml_file import Number

if TYPE_CHECKING:
    from typing_extensions import Self


class FolderCamera(CameraBase):
    """The images under a folder, replayed in the order of their paths, once or for ever."""

    camera: ClassVar[str] = "inspector.cameras.folder:Folder"
    memory_bytes: ClassVar[int] = 8
    """The number of the next part, so that a process that crashed is replaced by one that goes on.
    """

    kind: Literal["folder"]
    path: Path
    rate_hz: Number = Field(default=0.0, ge=0, le=10_000)
    """Parts per second; 0: as fast as they are judged."""
    loop: bool = False

    @property
    def is_replay(self) -> bool:
        """Always."""
        return True

    @property
    def waits_for_judge(self) -> bool:
        """At ``rate_hz`` 0."""
        return self.rate_hz == 0

    def for_collecting(self) -> Self:
        """Each photo once."""
        return self.model_copy(update={"loop": False})
