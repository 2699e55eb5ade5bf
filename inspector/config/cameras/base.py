"""What every kind of camera has in the station file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, model_validator

from inspector.config.yaml_file import NAME, FrozenModel, Misplaced, Whole

if TYPE_CHECKING:
    from typing_extensions import Self


class CameraBase(FrozenModel):
    """The keys that every kind has, and how a station must handle the frames of a kind."""

    camera: ClassVar[str]
    """The camera's class as ``module:class``, which is imported when a camera is made."""
    memory_bytes: ClassVar[int] = 0
    """Bytes of memory that outlive the camera's process; the class takes it as second argument."""

    name: str = Field(pattern=NAME)
    trigger: Literal["camera", "free", "software"] = "camera"
    """What makes a part. ``camera``: every frame; ``free``: the newest frame whenever the judge is
    free; ``software``: a ``trigger`` command."""
    timeout_ms: Whole = Field(default=2000, ge=50, le=60_000)
    """Longest wait for a frame before the camera counts as lost."""
    deadline_ms: Whole = Field(default=1000, ge=5, le=60_000)
    """From trigger, or grab if there is none, to verdict; a part judged later is a FAULT."""
    latency_ms: Whole = Field(default=0, ge=0, le=5000)
    """Longest time from the start of an exposure until the driver has the frame."""

    @model_validator(mode="after")
    def _can_be_in_time(self) -> Self:
        # Without a trigger command the deadline counts from the grab, whenever the exposure was.
        if self.trigger == "software" and self.latency_ms >= self.deadline_ms:
            raise Misplaced(
                ("latency_ms",),
                f"{self.latency_ms} is no less than deadline_ms {self.deadline_ms}: no trigger "
                f"could have its verdict in time; lower it, or raise deadline_ms",
            )
        return self

    @property
    def is_live(self) -> bool:
        """True when frames hold a sensor's noise, so that two equal ones are a frozen camera."""
        return False

    @property
    def is_replay(self) -> bool:
        """True when the source starts from its beginning whenever it is opened.

        Any of its pictures serves a trigger, whereas a live picture must have been exposed after
        the trigger.
        """
        return False

    @property
    def keeps_size(self) -> bool:
        """True when a picture of another size than the first one is a FAULT, not another part."""
        return False

    @property
    def can_go_on(self) -> bool:
        """False when a source that is opened again would give the parts again that it gave.

        Such a source that is lost has ended, since its parts would be judged twice. A replay goes
        on if it keeps its place in memory that outlives its process.
        """
        return not self.is_replay or self.memory_bytes > 0

    @property
    def waits_for_judge(self) -> bool:
        """True when the source waits with a part until the judge is free for it.

        Such a source never overflows the queue, and the deadline counts from the hand-over.
        """
        return False

    def beside(self, folder: Path) -> Self:  # noqa: ARG002
        """A copy in which text that may name a file is relative to ``folder``, the station file's.

        Fields of type Path need no such copy: they are resolved for every kind.
        """
        return self

    def for_collecting(self) -> Self:
        """A copy that gives good parts only, and each once, if the kind can do so."""
        return self
