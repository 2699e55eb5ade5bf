"""Keys of the simulated conveyor."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from inspector.config.cameras.base import CameraBase
from inspector.config.yaml_file import Number, Whole

if TYPE_CHECKING:
    from typing_extensions import Self


class SimulatorCamera(CameraBase):
    """A conveyor with drawn parts, good and defective, which are the same for the same seed."""

    camera: ClassVar[str] = "inspector.cameras.simulated.conveyor:Simulator"
    memory_bytes: ClassVar[int] = 8
    """The number of the next part, so that a process that crashed is replaced by one that goes on.
    """

    kind: Literal["simulator"]
    rate_hz: Number = Field(default=2.0, ge=0, le=10_000)
    seed: Whole = Field(default=0, ge=0)
    defect_rate: Number = Field(default=0.3, ge=0, le=1)
    parts: Whole | None = Field(default=None, gt=0)
    """Number of parts until the belt is empty; None: never."""

    @property
    def is_replay(self) -> bool:
        """Always."""
        return True

    @property
    def waits_for_judge(self) -> bool:
        """At ``rate_hz`` 0."""
        return self.rate_hz == 0

    def for_collecting(self) -> Self:
        """Good parts only."""
        return self.model_copy(update={"defect_rate": 0.0})
