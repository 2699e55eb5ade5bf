"""What every kind of camera has in the station file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from inspector.config.yaml_file import NAME, Frozen, Whole

if TYPE_CHECKING:
    from typing_extensions import Self


class CameraBase(Frozen):
    """Keys of every kind, and what a station has to know of a kind to handle its frames."""

    camera: ClassVar[str]
    """The class that makes the pictures, ``module:class``; loaded when a camera is made."""
    memory_bytes: ClassVar[int] = 0
    """Memory that outlives the camera's process, given to ``camera`` as a second argument."""

    name: str = Field(pattern=NAME)
    trigger: Literal["camera", "free", "software"] = "camera"
    """What makes a part: every frame of the camera; the newest frame whenever the judge is free;
    a ``trigger`` command."""
    timeout_ms: Whole = Field(default=2000, ge=50, le=60_000)
    """Longest wait for a frame before the camera counts as lost."""
    deadline_ms: Whole = Field(default=1000, ge=5, le=60_000)
    """From trigger (or grab, where there is none) to verdict; a part judged later is a FAULT."""
    latency_ms: Whole = Field(default=0, ge=0, le=5000)
    """Longest time from the start of an exposure to its frame: how old a frame may be."""

    @property
    def is_live(self) -> bool:
        """The sensor's noise is in every frame, so that no frame can come twice."""
        return False

    @property
    def is_replay(self) -> bool:
        """The source starts from its beginning whenever it is opened.

        A replay that is lost has ended, since its parts would be judged twice; and any of its
        pictures serves a trigger, whereas a live picture must have been exposed after it.
        """
        return False

    @property
    def waits_for_judge(self) -> bool:
        """The source hands over a part when the judge is free for it.

        Such a source never overflows the queue, and the deadline counts from the hand-over.
        """
        return False

    def beside(self, folder: Path) -> Self:  # noqa: ARG002
        """A copy whose sources are looked for in ``folder``, the station file's own.

        Fields of type Path are resolved for every kind; this is for text that may name a file.
        """
        return self

    def for_collecting(self) -> Self:
        """A copy that shows good parts, each once, where the kind can be told to."""
        return self
